/*
 * How much data a command moves, as far as its own words say: for those who pass on commands that others have made.
 *
 * A controller goes by the command, not by the length of the buffer that it is given.
 */
#ifndef NVME_TRANSFER_H
#define NVME_TRANSFER_H

#include "nvme/cmd.h"

enum nvme_transfer {
	NVME_TRANSFER_NONE,    /* no data at all */
	NVME_TRANSFER_KNOWN,   /* exactly *ret_len bytes */
	NVME_TRANSFER_UNKNOWN, /* the vendor's, or of a feature that we do not know */
};

/* Bytes.  Any thread. */
enum nvme_transfer nvme_admin_transfer(const union nvme_cmd *cmd, uint64_t *ret_len);
/* block_size: of the command's namespace, with metadata that goes with the data; 0: not known. */
enum nvme_transfer nvme_io_transfer(const union nvme_cmd *cmd, uint32_t block_size, uint64_t *ret_len);

#endif
