/* The conformance table's host over RDMA, on the simulated fabric: each command has a piece of registered memory for its data. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/rnic_sim.h"
#include "transport/rdma/raw_host.h"
#include "transport/rdma/rdma.h"
#include "transport/wire.h"

#define SLOT_SIZE (RAW_MEM_SIZE / WIRE_CMDS)

struct wire {
	struct raw_host host;
	uint16_t next_cid;
	struct wire_cmd *cmds[WIRE_CMDS];
};

const struct nvmf_transport_ops *const wire_transport = &rdma_transport_ops;
const enum wire_place wire_connect_place = WIRE_AWAY;
const uint8_t wire_away_sgl = NVME_SGL_KEYED;

fiber_fn struct wire *wire_open(const struct stream_addr *addr, uint16_t qid, uint16_t depth)
{
	struct raw_request request = raw_request(qid, depth);
	struct wire *wire = calloc(1, sizeof(*wire));

	ck_assert_ptr_nonnull(wire);
	raw_ask(&wire->host, addr, &request);
	if (raw_wait_cm(&wire->host))
		return wire;
	wire_close(wire, false);
	return NULL;
}

fiber_fn void wire_close(struct wire *wire, bool orderly)
{
	raw_close(&wire->host, orderly);
	free(wire);
}

fiber_fn void wire_send(struct wire *wire, struct wire_cmd *cmd)
{
	bool in_capsule = cmd->len && cmd->place == WIRE_CAPSULE;

	for (cmd->slot = 0; wire->cmds[cmd->slot]; cmd->slot++)
		ck_assert_uint_lt(cmd->slot, WIRE_CMDS - 1);
	wire->cmds[cmd->slot] = cmd;
	cmd->done = false;
	cmd->cmd.cid = wire->next_cid++;
	if (!cmd->prp)
		cmd->cmd.flags |= NVME_CMD_PSDT_SGL;
	ck_assert_uint_le(cmd->slot * SLOT_SIZE + cmd->len, RAW_MEM_SIZE);
	if (!in_capsule && cmd->xfer == NVMF_XFER_FROM_HOST)
		memcpy(wire->host.mem + cmd->slot * SLOT_SIZE, cmd->buf, cmd->len);
	if (in_capsule && !cmd->sgl_is_set)
		cmd->cmd.sgl = (struct nvme_sgl){ .len = cmd->len, .type = NVME_SGL_IN_CAPSULE };
	else if (!cmd->sgl_is_set)
		raw_keyed(&wire->host, &cmd->cmd, cmd->slot * SLOT_SIZE, cmd->len);
	raw_send(&wire->host, &cmd->cmd, cmd->buf, in_capsule ? cmd->len : 0);
}

fiber_fn uint16_t wire_wait(struct wire *wire, struct wire_cmd *cmd)
{
	uint16_t status;

	if (cmd->done)
		return cmd->status;
	status = raw_wait(&wire->host, cmd->cmd.cid, &cmd->cqe);
	if (status == RAW_LOST)
		return WIRE_LOST;
	cmd->status = status;
	cmd->done = true;
	wire->cmds[cmd->slot] = NULL;
	if (status == NVME_SC_SUCCESS && cmd->xfer == NVMF_XFER_TO_HOST)
		memcpy(cmd->buf, wire->host.mem + cmd->slot * SLOT_SIZE, cmd->len);
	return status;
}

fiber_fn void wire_wait_end(struct wire *wire)
{
	raw_wait_end(&wire->host);
}

fiber_fn void wire_stop_taking(struct wire *wire)
{
	rnic_sim_drop_recvs(wire->host.conn);
}

fiber_fn void wire_offend(struct wire *wire)
{
	raw_send_len(&wire->host, "half a command", 14);
}
