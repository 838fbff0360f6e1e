/*
 * Passing a command through to a controller: Format, Sanitize, namespace management, firmware, whatever it knows; or I/O.
 *
 * What the driver needs for itself (queues, events, doorbells, keep alive) is refused.  Bytes travel as base64url, as SPDK's do.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/nvme.h"
#include "mgmt/methods.h"
#include "nvme/transfer.h"

#define DATA_MAX (1u << 20)

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* Source: RFC 4648, 5.  Takes the common alphabet as well, and padding or none.  Return: bytes, or -EINVAL. */
static long base64_decode(const char *text, uint8_t *to, size_t size)
{
	uint32_t bits = 0;
	unsigned nr_bits = 0;
	size_t len = 0;

	for (; *text && *text != '='; text++) {
		char c = *text == '+' ? '-' : *text == '/' ? '_' : *text;
		const char *at = strchr(alphabet, c);

		if (!at)
			return -EINVAL;
		bits = bits << 6 | (uint32_t)(at - alphabet);
		nr_bits += 6;
		if (nr_bits < 8)
			continue;
		nr_bits -= 8;
		if (len == size)
			return -EINVAL;
		to[len++] = (uint8_t)(bits >> nr_bits);
	}
	return (long)len;
}

static json_t *base64_json(const uint8_t *from, size_t len)
{
	char *text = malloc((len + 2) / 3 * 4 + 1), *p = text;
	json_t *out;

	if (!text)
		return json_null();
	for (size_t i = 0; i < len; i += 3) {
		uint32_t bits = (uint32_t)from[i] << 16;

		bits |= i + 1 < len ? (uint32_t)from[i + 1] << 8 : 0;
		bits |= i + 2 < len ? from[i + 2] : 0;
		*p++ = alphabet[bits >> 18];
		*p++ = alphabet[bits >> 12 & 63];
		*p++ = i + 1 < len ? alphabet[bits >> 6 & 63] : '=';
		*p++ = i + 2 < len ? alphabet[bits & 63] : '=';
	}
	*p = '\0';
	out = json_string(text);
	free(text);
	return out;
}

static const struct rpc_param send_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "cmd_type", RPC_STRING, RPC_REQUIRED, NULL },
	{ "data_direction", RPC_STRING, RPC_REQUIRED, NULL },
	{ "cmdbuf", RPC_STRING, RPC_REQUIRED, NULL },
	{ "data", RPC_STRING, 0, NULL },
	{ "metadata", RPC_STRING, 0, NULL },
	{ "data_len", RPC_U32, 0, "data_length" },
	{ "metadata_len", RPC_U32, 0, "metadata_length" },
	{ "timeout_ms", RPC_U32, 0, NULL },
	{ NULL, 0, 0, NULL },
};

/* Commands that would take the controller out of the driver's hands. */
static bool is_the_drivers(uint8_t opcode)
{
	switch (opcode) {
	case NVME_ADMIN_CREATE_IO_CQ:
	case NVME_ADMIN_CREATE_IO_SQ:
	case NVME_ADMIN_DELETE_IO_CQ:
	case NVME_ADMIN_DELETE_IO_SQ:
	case NVME_ADMIN_ABORT:
	case NVME_ADMIN_AER:
	case NVME_ADMIN_KEEP_ALIVE:
	case NVME_ADMIN_DOORBELL_BUFFER:
	case NVME_OPC_FABRICS:
		return true;
	}
	return false;
}

static int decode_command(struct rpc_call *call, union nvme_cmd *cmd)
{
	bool admin = !strcmp(rpc_string(call, "cmd_type", ""), "admin");

	if (!admin && strcmp(rpc_string(call, "cmd_type", ""), "io")) {
		rpc_fail_param(call, "cmd_type", "cmd_type is admin or io");
		return -EINVAL;
	}
	if (base64_decode(rpc_string(call, "cmdbuf", ""), cmd->bytes, sizeof(*cmd)) != sizeof(*cmd)) {
		rpc_fail_param(call, "cmdbuf", "cmdbuf is the 64 bytes of a command, in base64");
		return -EINVAL;
	}
	if (admin ? is_the_drivers(cmd->opcode) : cmd->opcode == NVME_OPC_FABRICS) {
		rpc_fail_errno(call, -EPERM, "%s is the driver's own", nvme_admin_opcode_name(cmd->opcode));
		rpc_blame(call, "cmdbuf");
		return -EPERM;
	}
	if (rpc_u64(call, "metadata_len", 0) || rpc_has(call, "metadata")) {
		rpc_fail_errno(call, -ENOTSUP, "metadata is not passed through");
		rpc_blame(call, "metadata");
		return -ENOTSUP;
	}
	return 0;
}

/* Bytes of a block of the command's namespace; 0: it is none of those that are bdevs. */
static uint32_t block_size_of(const char *ctrlr_name, uint32_t nsid)
{
	char name[BDEV_NAME_MAX];
	const struct nvme_ns *ns;
	struct bdev *bdev;

	snprintf(name, sizeof(name), "%.200sn%u", ctrlr_name, nsid);
	bdev = bdev_find(name);
	ns = bdev ? bdev_nvme_ns_of(bdev) : NULL;
	return ns ? ns->block_size : 0;
}

/* A drive moves what the command's words say, whatever buffer it is given: that has to be what the caller says, too. */
static bool length_fits(struct rpc_call *call, const union nvme_cmd *cmd, uint64_t len)
{
	bool admin = !strcmp(rpc_string(call, "cmd_type", ""), "admin");
	const char *what = admin ? nvme_admin_opcode_name(cmd->opcode) : nvme_io_opcode_name(cmd->opcode);
	enum nvme_transfer transfer;
	uint64_t want = 0;

	if (admin)
		transfer = nvme_admin_transfer(cmd, &want);
	else
		transfer = nvme_io_transfer(cmd, block_size_of(rpc_string(call, "name", ""), cmd->nsid), &want);
	if (transfer == NVME_TRANSFER_UNKNOWN || len == want)
		return true;
	rpc_fail_param(call, "data_len", "this %s moves %llu bytes, and data_len is %llu", what, (unsigned long long)want,
		       (unsigned long long)len);
	return false;
}

/* The data and how much of it.  -EINVAL with the call failed. */
static int decode_data(struct rpc_call *call, const union nvme_cmd *cmd, uint8_t *data, uint32_t *ret_len)
{
	bool to_ctrlr = !strcmp(rpc_string(call, "data_direction", ""), "h2c");
	uint64_t len = rpc_u64(call, "data_len", 0);
	unsigned xfer = nvme_opcode_xfer(cmd->opcode);
	long n;

	if (!to_ctrlr && strcmp(rpc_string(call, "data_direction", ""), "c2h")) {
		rpc_fail_param(call, "data_direction", "data_direction is c2h or h2c");
		return -EINVAL;
	}
	if (rpc_has(call, "data")) {
		n = base64_decode(rpc_string(call, "data", ""), data, DATA_MAX);
		if (n < 0 || (len && len != (uint64_t)n)) {
			rpc_fail_param(call, "data", "data is base64, of data_len bytes, at most %u", DATA_MAX);
			return -EINVAL;
		}
		len = (uint64_t)n;
	}
	if (len && xfer != (to_ctrlr ? NVME_XFER_TO_CTRLR : NVME_XFER_TO_HOST)) {
		rpc_fail_param(call, "data_direction", "the opcode says that its data goes %s",
			       xfer == NVME_XFER_TO_CTRLR ? "to the controller (h2c)" :
			       xfer == NVME_XFER_TO_HOST  ? "to the host (c2h)" :
			       xfer == NVME_XFER_NONE	  ? "nowhere: it has none" :
							    "both ways, which is not passed through");
		return -EINVAL;
	}
	if (len > DATA_MAX || len % 4) {
		rpc_fail_param(call, "data_len", "data has at most %u bytes, a multiple of four", DATA_MAX);
		return -EINVAL;
	}
	if (!length_fits(call, cmd, len))
		return -EINVAL;
	*ret_len = (uint32_t)len;
	return 0;
}

static fiber_fn void send_cmd(struct rpc_call *call)
{
	const char *name = rpc_string(call, "name", "");
	uint32_t timeout_ms = (uint32_t)rpc_u64(call, "timeout_ms", 0);
	uint8_t *data = calloc(1, DATA_MAX);
	struct nvme_cqe cqe = { 0 };
	union nvme_cmd cmd;
	uint32_t len;
	json_t *out;
	int rc;

	if (!data) {
		rpc_fail_errno(call, -ENOMEM, NULL);
		return;
	}
	if (decode_command(call, &cmd) || decode_data(call, &cmd, data, &len))
		goto out;
	if (!len)
		cmd.prp1 = cmd.prp2 = 0; /* nobody else's addresses reach the controller */
	cmd.mptr = 0;
	cmd.flags = 0; /* nor half of a fused pair, which would wait for the other */
	if (strcmp(rpc_string(call, "cmd_type", ""), "io"))
		rc = bdev_nvme_admin(name, &cmd, data, len, timeout_ms, &cqe);
	else
		rc = bdev_nvme_io(name, &cmd, data, len, timeout_ms, &cqe);
	if (rc < 0) {
		rpc_fail_errno(call, rc, "there is no NVMe controller %.200s that is connected, or it was lost meanwhile", name);
		rpc_blame(call, "name");
		goto out;
	}
	/* What the controller answers is the answer, be it an error. */
	out = json_pack("{s:o}", "cpl", base64_json((const uint8_t *)&cqe, sizeof(cqe)));
	if (len && nvme_opcode_xfer(cmd.opcode) == NVME_XFER_TO_HOST)
		json_object_set_new(out, "data", base64_json(data, len));
	rpc_ok(call, out);
out:
	free(data);
}

const struct rpc_method nvme_pass_methods[] = {
	{ .name = "bdev_nvme_send_cmd", .handler = send_cmd, .params = send_params },
	{ .name = NULL },
};
