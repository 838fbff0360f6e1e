/* The tables of admin commands, of I/O and of discovery controllers, and log page 05h, which is made from
 * them. */
#include <string.h>

#include "nvmf/internal.h"

const struct nvmf_op nvmf_ops_admin[256] = {
	[NVME_ADMIN_GET_LOG_PAGE] = { nvmf_log_page_prepare, nvmf_log_page_execute, 0 },
	[NVME_ADMIN_IDENTIFY] = { nvmf_identify_prepare, nvmf_identify_execute, 0 },
	[NVME_ADMIN_ABORT] = { NULL, nvmf_abort_execute, 0 },
	[NVME_ADMIN_SET_FEATURES] = { nvmf_set_features_prepare, nvmf_set_features_execute, 0 },
	[NVME_ADMIN_GET_FEATURES] = { nvmf_get_features_prepare, nvmf_get_features_execute, 0 },
	[NVME_ADMIN_AER] = { NULL, nvmf_aer_execute, 0 },
	[NVME_ADMIN_KEEP_ALIVE] = { NULL, nvmf_keep_alive_execute, 0 },
	[NVME_OPC_FABRICS] = { nvmf_fabrics_prepare, nvmf_fabrics_execute, NVMF_OP_ANYTIME },
};

const struct nvmf_op nvmf_ops_discovery[256] = {
	[NVME_ADMIN_GET_LOG_PAGE] = { nvmf_log_page_prepare, nvmf_log_page_execute, 0 },
	[NVME_ADMIN_IDENTIFY] = { nvmf_identify_prepare, nvmf_identify_execute, 0 },
	[NVME_ADMIN_SET_FEATURES] = { nvmf_set_features_prepare, nvmf_set_features_execute, 0 },
	[NVME_ADMIN_GET_FEATURES] = { nvmf_get_features_prepare, nvmf_get_features_execute, 0 },
	[NVME_ADMIN_AER] = { NULL, nvmf_aer_execute, 0 },
	[NVME_ADMIN_KEEP_ALIVE] = { NULL, nvmf_keep_alive_execute, 0 },
	[NVME_OPC_FABRICS] = { nvmf_fabrics_prepare, nvmf_fabrics_execute, NVMF_OP_ANYTIME },
};

static bool changes_blocks(uint8_t opcode)
{
	return opcode == NVME_IO_WRITE || opcode == NVME_IO_WRITE_ZEROES || opcode == NVME_IO_DSM || opcode == NVME_IO_COPY;
}

void nvmf_log_effects_fill(struct nvme_log_effects *log)
{
	memset(log, 0, sizeof(*log));
	for (unsigned i = 0; i < 256; i++) {
		if (nvmf_ops_admin[i].execute && i != NVME_OPC_FABRICS)
			log->admin[i] = NVME_EFFECTS_CSUPP;
		if (nvmf_ops_io[i].execute && i != NVME_OPC_FABRICS)
			log->io[i] =
				NVME_EFFECTS_CSUPP | (changes_blocks((uint8_t)i) ? NVME_EFFECTS_LBCC : 0);
	}
}
