/*
 * The length of each command's data.  Bits 1:0 of the opcode say which way it goes, and 00b that there is none; how much there
 * is stands in a different place for each.
 */
#include <stdbool.h>

#include "nvme/identify.h"
#include "nvme/log_page.h"
#include "nvme/transfer.h"

#define NS_MANAGEMENT_CREATE 0u

/* Source: NVM Express Base 2.0, 5.15 and 5.27.1; bits 10:8 of Get Features with 011b ask what the feature can do, without data. */
static enum nvme_transfer feature_transfer(const union nvme_cmd *cmd, bool set, uint64_t *ret_len)
{
	bool capabilities = !set && (cmd->cdw10 >> NVME_FEATURE_SEL_SHIFT & NVME_FEATURE_SEL_MASK) == NVME_FEATURE_SEL_SUPPORTED;

	if (capabilities)
		return NVME_TRANSFER_NONE;
	switch (cmd->cdw10 & 0xff) {
	case NVME_FID_ARBITRATION:
	case NVME_FID_POWER:
	case NVME_FID_TEMPERATURE_THRESHOLD:
	case NVME_FID_ERROR_RECOVERY:
	case NVME_FID_VWC:
	case NVME_FID_NR_QUEUES:
	case NVME_FID_INTERRUPT_COALESCING:
	case NVME_FID_INTERRUPT_VECTOR:
	case NVME_FID_WRITE_ATOMICITY:
	case NVME_FID_ASYNC_EVENT:
	case NVME_FID_KEEP_ALIVE:
	case NVME_FID_RESERVATION_MASK:
	case NVME_FID_RESERVATION_PERSISTENCE:
		return NVME_TRANSFER_NONE;
	case NVME_FID_LBA_RANGE:
		*ret_len = 4096;
		return NVME_TRANSFER_KNOWN;
	case NVME_FID_POWER_TRANSITIONS:
		*ret_len = 256;
		return NVME_TRANSFER_KNOWN;
	case NVME_FID_HOST_MEMORY:
		if (set)
			return NVME_TRANSFER_NONE;
		*ret_len = 4096;
		return NVME_TRANSFER_KNOWN;
	case NVME_FID_TIMESTAMP:
		*ret_len = 8;
		return NVME_TRANSFER_KNOWN;
	case NVME_FID_HOST_BEHAVIOR:
		*ret_len = sizeof(struct nvme_host_behavior);
		return NVME_TRANSFER_KNOWN;
	case NVME_FID_HOST_ID:
		*ret_len = cmd->cdw11 & 1 ? 16 : 8;
		return NVME_TRANSFER_KNOWN;
	}
	return NVME_TRANSFER_UNKNOWN;
}

/* A number of dwords, 0's based, that is all of a field. */
static enum nvme_transfer dwords(uint32_t field, uint64_t *ret_len)
{
	*ret_len = ((uint64_t)field + 1) * 4;
	return NVME_TRANSFER_KNOWN;
}

/* Source: NVM Express Base 2.0, figure 138 and the commands' own sections. */
enum nvme_transfer nvme_admin_transfer(const union nvme_cmd *cmd, uint64_t *ret_len)
{
	*ret_len = 0;
	if (!nvme_opcode_xfer(cmd->opcode))
		return NVME_TRANSFER_NONE;
	switch (cmd->opcode) {
	case NVME_ADMIN_IDENTIFY:
		*ret_len = NVME_IDENTIFY_SIZE;
		return NVME_TRANSFER_KNOWN;
	case NVME_ADMIN_GET_LOG_PAGE:
		*ret_len = nvme_get_log_len_bytes(cmd);
		return NVME_TRANSFER_KNOWN;
	case NVME_ADMIN_SET_FEATURES:
	case NVME_ADMIN_GET_FEATURES:
		return feature_transfer(cmd, cmd->opcode == NVME_ADMIN_SET_FEATURES, ret_len);
	case NVME_ADMIN_NS_MANAGEMENT:
		if ((cmd->cdw10 & 0xf) != NS_MANAGEMENT_CREATE)
			return NVME_TRANSFER_NONE;
		*ret_len = NVME_IDENTIFY_SIZE;
		return NVME_TRANSFER_KNOWN;
	case NVME_ADMIN_NS_ATTACHMENT:
		*ret_len = sizeof(struct nvme_ns_list);
		return NVME_TRANSFER_KNOWN;
	case NVME_ADMIN_FIRMWARE_DOWNLOAD:
		return dwords(cmd->cdw10, ret_len);
	case NVME_ADMIN_SECURITY_SEND:
	case NVME_ADMIN_SECURITY_RECEIVE:
		*ret_len = cmd->cdw11;
		return cmd->cdw11 ? NVME_TRANSFER_KNOWN : NVME_TRANSFER_NONE;
	}
	return NVME_TRANSFER_UNKNOWN;
}

/* Source: NVM Express NVM Command Set 1.0, 3.2; Base 2.0, 7. */
enum nvme_transfer nvme_io_transfer(const union nvme_cmd *cmd, uint32_t block_size, uint64_t *ret_len)
{
	*ret_len = 0;
	if (!nvme_opcode_xfer(cmd->opcode))
		return NVME_TRANSFER_NONE;
	switch (cmd->opcode) {
	case NVME_IO_READ:
	case NVME_IO_WRITE:
	case NVME_IO_COMPARE:
		*ret_len = (cmd->rw.nlb + 1ull) * block_size;
		return block_size ? NVME_TRANSFER_KNOWN : NVME_TRANSFER_UNKNOWN;
	case NVME_IO_DSM:
		*ret_len = (cmd->dsm.nr + 1ull) * sizeof(struct nvme_dsm_range);
		return NVME_TRANSFER_KNOWN;
	case NVME_IO_COPY:
		*ret_len = (cmd->copy.nr + 1ull) * sizeof(struct nvme_copy_range);
		return NVME_TRANSFER_KNOWN;
	case NVME_IO_RESERVATION_REGISTER:
	case NVME_IO_RESERVATION_ACQUIRE:
		*ret_len = 16;
		return NVME_TRANSFER_KNOWN;
	case NVME_IO_RESERVATION_RELEASE:
		*ret_len = 8;
		return NVME_TRANSFER_KNOWN;
	case NVME_IO_RESERVATION_REPORT:
		return dwords(cmd->cdw10, ret_len);
	}
	return NVME_TRANSFER_UNKNOWN;
}
