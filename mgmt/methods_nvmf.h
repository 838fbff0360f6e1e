/* What the files of the nvmf methods share. */
#ifndef MGMT_METHODS_NVMF_H
#define MGMT_METHODS_NVMF_H

#include "mgmt/methods.h"

/* methods_nvmf.c */
struct nvmf_subsystem *subsystem_of_call(struct rpc_call *call); /* NULL with the call failed */
void nvmf_failed(struct rpc_call *call, const char *key, int rc);

/* methods_nvmf_export.c */
const char *adrfam_name(const struct stream_addr *addr); /* "IPv4", "IPv6" */

#endif
