/* The conformance table's host over TCP: PDUs sent and taken as they come, whichever command they belong to. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "transport/tcp/raw_host.h"
#include "transport/tcp/tcp.h"
#include "transport/wire.h"

struct wire {
	struct raw_host host;
	bool over;
	uint16_t next_cid;
	struct wire_cmd *cmds[WIRE_CMDS];
	uint8_t pdu[(1u << 20) + 256];
};

const struct nvmf_transport_ops *const wire_transport = &tcp_transport_ops;
const enum wire_place wire_connect_place = WIRE_CAPSULE;
const uint8_t wire_away_sgl = NVME_SGL_TRANSPORT;

fiber_fn struct wire *wire_open(const struct stream_addr *addr, uint16_t qid, uint16_t depth)
{
	struct wire *wire = calloc(1, sizeof(*wire));

	ck_assert_ptr_nonnull(wire);
	raw_open(&wire->host, addr);
	raw_ic(&wire->host, 0, 0);
	return wire;
}

fiber_fn void wire_close(struct wire *wire, bool orderly)
{
	raw_close(&wire->host, !orderly);
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
	if (!cmd->sgl_is_set)
		cmd->cmd.sgl = (struct nvme_sgl){ .len = cmd->len, .type = in_capsule ? NVME_SGL_IN_CAPSULE : NVME_SGL_TRANSPORT };
	if (!raw_send_cmd(&wire->host, &cmd->cmd, cmd->buf, in_capsule ? cmd->len : 0))
		wire->over = true;
}

static struct wire_cmd *find(struct wire *wire, uint16_t cid)
{
	for (unsigned i = 0; i < WIRE_CMDS; i++) {
		if (wire->cmds[i] && wire->cmds[i]->cmd.cid == cid)
			return wire->cmds[i];
	}
	ck_abort_msg("an answer to no command: CID %u", cid);
	return NULL;
}

static void done(struct wire *wire, struct wire_cmd *cmd, const struct nvme_cqe *cqe)
{
	cmd->cqe = *cqe;
	cmd->status = nvme_cqe_status(cqe) & NVME_SC_MASK;
	cmd->done = true;
	wire->cmds[cmd->slot] = NULL;
}

static fiber_fn void data_asked(struct wire *wire, struct nvme_tcp_r2t r2t)
{
	struct wire_cmd *cmd = find(wire, r2t.cccid);
	size_t len;

	ck_assert_int_eq(cmd->xfer, NVMF_XFER_FROM_HOST);
	ck_assert_uint_le(r2t.r2to, cmd->len);
	ck_assert_uint_le(r2t.r2tl, cmd->len - r2t.r2to);
	len = raw_make_h2c(&wire->host, wire->pdu, r2t.cccid, r2t.ttag, r2t.r2to, (uint8_t *)cmd->buf + r2t.r2to, r2t.r2tl, true);
	if (!raw_send(&wire->host, wire->pdu, len))
		wire->over = true;
}

static void data_came(struct wire *wire, const struct nvme_tcp_data *pdu)
{
	struct wire_cmd *cmd = find(wire, pdu->cccid);

	ck_assert_int_eq(cmd->xfer, NVMF_XFER_TO_HOST);
	ck_assert_uint_le(pdu->datao, cmd->len);
	ck_assert_uint_le(pdu->datal, cmd->len - pdu->datao);
	memcpy((uint8_t *)cmd->buf + pdu->datao, (const uint8_t *)pdu + pdu->hdr.pdo, pdu->datal);
	if (pdu->hdr.flags & NVME_TCP_FLAG_SUCCESS)
		done(wire, cmd, &(struct nvme_cqe){ .cid = pdu->cccid });
}

static fiber_fn void take_pdu(struct wire *wire)
{
	const struct nvme_tcp_hdr *hdr = raw_recv(&wire->host);
	struct nvme_tcp_r2t r2t;

	if (!hdr || hdr->type == NVME_TCP_C2H_TERM_REQ) {
		wire->over = true;
		return;
	}
	switch (hdr->type) {
	case NVME_TCP_R2T:
		memcpy(&r2t, hdr, sizeof(r2t));
		raw_next(&wire->host);
		data_asked(wire, r2t);
		return;
	case NVME_TCP_C2H_DATA:
		data_came(wire, (const void *)hdr);
		break;
	case NVME_TCP_CAPSULE_RESP:
		done(wire, find(wire, ((const struct nvme_tcp_capsule_resp *)hdr)->cqe.cid), &((const struct nvme_tcp_capsule_resp *)hdr)->cqe);
		break;
	default:
		ck_abort_msg("a PDU of type %02xh", hdr->type);
	}
	raw_next(&wire->host);
}

fiber_fn uint16_t wire_wait(struct wire *wire, struct wire_cmd *cmd)
{
	while (!cmd->done && !wire->over)
		take_pdu(wire);
	return cmd->done ? cmd->status : WIRE_LOST;
}

fiber_fn void wire_wait_end(struct wire *wire)
{
	while (!wire->over)
		take_pdu(wire);
}

/* Nothing is read but in wire_wait() and wire_wait_end(). */
fiber_fn void wire_stop_taking(struct wire *wire)
{
}

fiber_fn void wire_offend(struct wire *wire)
{
	static const uint8_t no_header[8];

	raw_send(&wire->host, no_header, sizeof(no_header));
}
