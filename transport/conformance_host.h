/* For the conformance table: a host that connects, enables, reads and writes, with a queue of commands at a time. */
#ifndef TRANSPORT_CONFORMANCE_HOST_H
#define TRANSPORT_CONFORMANCE_HOST_H

#include "transport/wire.h"

#define SUBNQN	"nqn.2024-01.example.ferrule:sub"
#define HOSTNQN "nqn.2024-01.example.ferrule:host"
#define DEPTH	16u /* of an I/O queue */
#define OK	NVME_SC_SUCCESS

extern struct stream_addr host_addr; /* the target's */
extern uint8_t host_back[2u << 20];  /* what is read */

/* What Connect says; 0 and NULL are the usual. */
struct host_connect {
	uint16_t qid, sqsize, cntlid, recfmt;
	uint32_t kato_ms, len;
	uint8_t host_id;
	const char *subnqn, *hostnqn;
};

struct host {
	struct wire *admin, *io;
	uint16_t cntlid;
};

fiber_fn uint16_t host_connect(struct wire *wire, const struct host_connect *how, struct nvme_cqe *ret_cqe);
fiber_fn uint16_t host_property(struct wire *wire, uint8_t fctype, uint32_t ofst, uint8_t attrib, uint64_t value, uint64_t *ret_value);
fiber_fn void host_enable(struct wire *admin);
fiber_fn struct wire *host_open_queue(uint16_t qid);
fiber_fn struct wire *host_io_queue(struct host *host, uint16_t qid);
fiber_fn void host_up(struct host *host, uint32_t kato_ms);
fiber_fn void host_down(struct host *host);
struct wire_cmd host_rw(uint8_t opcode, uint32_t block, void *buf, uint32_t len, enum wire_place place);
fiber_fn void host_write(struct wire *io, uint32_t block, void *buf, uint32_t len, enum wire_place place);
fiber_fn void host_expect(struct wire *io, uint32_t block, const void *what, uint32_t len);

#endif
