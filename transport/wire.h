/*
 * For the conformance table: a host's end of a queue, whatever the transport.  It sends the commands it is given, right or wrong, and
 * adds nothing but the descriptor that says where their data lies; tcp/wire.c and rdma/wire.c are the two, one in each program.
 * All functions are for fibers of the app thread.
 */
#ifndef TRANSPORT_WIRE_H
#define TRANSPORT_WIRE_H

#include "nvme/nvme.h"
#include "nvmf/transport.h"

#define WIRE_CMDS	 32u /* of a queue, at a time */
#define WIRE_MAX_CAPSULE 4096u
#define WIRE_LOST	 0xffffu /* the connection ended first */

/* Where a command's data goes: in its capsule, or by the transport's own way (R2T and data PDUs; RDMA READ and WRITE). */
enum wire_place { WIRE_AWAY, WIRE_CAPSULE };

struct wire_cmd {
	union nvme_cmd cmd; /* all but CID, PSDT and the descriptor */
	enum nvmf_xfer xfer;
	enum wire_place place;
	bool prp;	  /* PSDT says so */
	bool sgl_is_set; /* by the caller, in cmd */
	void *buf;
	uint32_t len;
	/* the answer */
	bool done;
	uint16_t status; /* SCT and SC */
	struct nvme_cqe cqe;
	unsigned slot;
};

struct wire;

extern const struct nvmf_transport_ops *const wire_transport;
extern const enum wire_place wire_connect_place; /* how this transport's hosts send Connect's data */
extern const uint8_t wire_away_sgl;		 /* type of the descriptor of data that is away */

/* A connection for queue qid of so many entries, ready for Connect; NULL: the target does not want it. */
fiber_fn struct wire *wire_open(const struct stream_addr *addr, uint16_t qid, uint16_t depth);
fiber_fn void wire_close(struct wire *wire, bool orderly);
/* At most WIRE_CMDS outstanding, and of more than 128 KiB one. */
fiber_fn void wire_send(struct wire *wire, struct wire_cmd *cmd);
/* Its status, or WIRE_LOST. */
fiber_fn uint16_t wire_wait(struct wire *wire, struct wire_cmd *cmd);
fiber_fn void wire_wait_end(struct wire *wire);
/* Takes nothing that comes from now on: no answer, no data.  It may go on sending. */
fiber_fn void wire_stop_taking(struct wire *wire);
/* Breaks this transport's own rules, so that the connection must end. */
fiber_fn void wire_offend(struct wire *wire);

static inline fiber_fn uint16_t wire_run(struct wire *wire, struct wire_cmd *cmd)
{
	wire_send(wire, cmd);
	return wire_wait(wire, cmd);
}

#endif
