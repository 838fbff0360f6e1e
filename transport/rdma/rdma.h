/* NVMe/RDMA, the target's side: what the target registers with nvmf.  Everything else goes through nvmf/transport.h. */
#ifndef TRANSPORT_RDMA_RDMA_H
#define TRANSPORT_RDMA_RDMA_H

#include "nvmf/transport.h"

extern const struct nvmf_transport_ops rdma_transport_ops;

#endif
