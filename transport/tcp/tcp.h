/* NVMe/TCP, the target's side: what the target registers with nvmf.  Everything else goes through nvmf/transport.h. */
#ifndef TRANSPORT_TCP_TCP_H
#define TRANSPORT_TCP_TCP_H

#include "nvmf/transport.h"

extern const struct nvmf_transport_ops tcp_transport_ops;

#endif
