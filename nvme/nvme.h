/*
 * NVMe's words: everything that the wire defines, and nothing that acts on it.  One include for those who
 * need it all.
 *
 * Wire structures are little endian and used in place; their static_asserts stand beside them.
 */
#ifndef NVME_NVME_H
#define NVME_NVME_H

#include "nvme/cmd.h"
#include "nvme/fabrics.h"
#include "nvme/identify.h"
#include "nvme/log_page.h"
#include "nvme/rdma_cm.h"
#include "nvme/status.h"
#include "nvme/tcp_pdu.h"

#endif
