/* A host for tests that posts exactly what it is told, right or wrong, on the simulated fabric.  All functions are for fibers of
 * the app thread. */
#ifndef TRANSPORT_RDMA_RAW_HOST_H
#define TRANSPORT_RDMA_RAW_HOST_H

#include "nvme/nvme.h"
#include "runtime/rnic.h"
#include "runtime/runtime.h"

#define RAW_MEM_SIZE   (4u << 20)
#define RAW_CAPSULES   160u
#define RAW_CAPSULE    (64u + 8192)
#define RAW_NQN	       "nqn.2024-01.example.ferrule:sub"
#define RAW_HOSTNQN    "nqn.2024-01.example.ferrule:host"

struct raw_host {
	struct rnic_conn *conn;
	struct rnic_cq *cq;
	struct rnic_mr *mr; /* of mem: may be read and written from outside */
	uint8_t *mem;	    /* data, then capsules, then responses */
	struct fiber_cond cond;
	bool established, rejected, over;
	uint16_t reject_status;
	uint16_t crqsize;
	unsigned next_capsule, nr_sends_done, nr_sends_failed, nr_responses;
	struct nvme_cqe responses[512];
	uint32_t invalidated[512]; /* with the response; 0: none */
};

/* What raw_ask() says, right by default. */
struct raw_request {
	struct nvme_rdma_cm_request cm;
	uint8_t len;
	uint8_t peer_reads;
	unsigned nr_recvs;
};

struct raw_request raw_request(uint16_t qid, uint16_t depth);
/* Resolves and makes the queue pair; asks; raw_wait_cm() waits for the answer. */
fiber_fn void raw_ask(struct raw_host *host, const struct stream_addr *addr, const struct raw_request *request);
fiber_fn bool raw_wait_cm(struct raw_host *host); /* true: established */
fiber_fn void raw_close(struct raw_host *host, bool disconnect);
fiber_fn void raw_wait_end(struct raw_host *host);

/* Sends a capsule; does not wait. */
int raw_send(struct raw_host *host, const union nvme_cmd *cmd, const void *data, uint32_t data_len);
int raw_send_len(struct raw_host *host, const void *capsule, uint32_t len);
/* Waits for a response; gives its status, or RAW_LOST. */
#define RAW_LOST 0xffffu
fiber_fn uint16_t raw_wait(struct raw_host *host, uint16_t cid, struct nvme_cqe *ret_cqe);
fiber_fn uint16_t raw_execute(struct raw_host *host, union nvme_cmd *cmd, struct nvme_cqe *ret_cqe);

/* Commands; data at host->mem + at. */
union nvme_cmd raw_rw(uint8_t opcode, uint16_t cid, uint32_t block, uint32_t nr_blocks);
void raw_keyed(const struct raw_host *host, union nvme_cmd *cmd, uint32_t at, uint32_t len);
union nvme_cmd raw_connect_cmd(struct raw_host *host, uint16_t qid, uint16_t depth, uint16_t cntlid);

/* Each descriptor that is wrong, with data that fits capsules of 4096 bytes: asserts the status that it must get. */
fiber_fn void raw_try_bad_sgls(struct raw_host *host);

/* An enabled controller: an admin queue, and one I/O queue. */
struct raw_ctrlr {
	struct raw_host admin, io;
	uint16_t cntlid;
};

fiber_fn void raw_up(struct raw_ctrlr *ctrlr, const struct stream_addr *addr, uint16_t depth);
fiber_fn void raw_down(struct raw_ctrlr *ctrlr);

#endif
