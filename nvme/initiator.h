/*
 * The initiator: a controller one connects to, its queues, and requests on them.
 *
 * Everything about a controller is fiber code; I/O is a request that the caller owns and submits to a queue
 * of its own thread.  It runs on runtime's streams, so it runs in the simulation too.  Nothing that a target
 * sends is believed before it has been compared with what was asked for.
 */
#ifndef NVME_INITIATOR_H
#define NVME_INITIATOR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "nvme/nvme.h"
#include "runtime/runtime.h"

struct nvme_ctrlr;
struct nvme_qpair;
struct nvme_request;

/* Why something failed, for a person to read.  Owner: the caller. */
struct nvme_error {
	int err;         /* -errno */
	uint16_t status; /* the NVMe status, when it was the target that refused; else 0 */
	char text[640];  /* names the thing and, where there is one, the remedy */
};

struct nvme_bar;

struct nvme_connect_opts {
	enum nvme_trtype trtype; /* 0: TCP */
	struct nvme_bar *bar;    /* PCIe: the function; it outlives the controller */
	struct stream_addr addr; /* fabrics */
	char subnqn[NVME_NQN_FIELD_SIZE];
	char hostnqn[NVME_NQN_FIELD_SIZE]; /* empty: made of hostid */
	uint8_t hostid[16];                /* all zero: a random one */
	bool hdgst, ddgst;                 /* ask for digests; a target may refuse them */
	uint32_t kato_ms;                  /* keep alive; 0: none */
	uint16_t admin_queue_size;         /* entries; 0: 32 */
	uint64_t timeout_us;               /* of connecting, and of every command; 0: 30 s */
	uint64_t abort_timeout_us; /* what a command that had its time gets once Abort was sent; 0: no Abort is sent */
	uint16_t cntlid;                   /* NVME_CNTLID_DYNAMIC */
	uint32_t batch_bytes;              /* of data in one send, about; 0: 1 MiB */
	/* Asynchronous events; NULL: none are asked for.  On the controller's thread. */
	void (*event)(struct nvme_ctrlr *ctrlr, uint32_t dw0, void *arg);
	void *event_arg;
	/* The controller is of no use any more (see nvme_ctrlr_error): once, on its thread; NULL: nobody asks.  Its owner
	 * disables it, disconnects its queues, and then it. */
	void (*failed)(struct nvme_ctrlr *ctrlr, void *arg);
	void *failed_arg;
};

/* Defaults: no address, the discovery NQN, no digests, KATO 10 s, a host identity that lasts as long as the
 * process. */
void nvme_connect_opts_init(struct nvme_connect_opts *opts);

/* --- requests --------------------------------------------------------------------------------- */

enum nvme_request_state {
	NVME_REQUEST_IDLE,      /* the submitter's */
	NVME_REQUEST_READY,     /* waits for a command identifier and for room to send */
	NVME_REQUEST_IN_FLIGHT, /* has its identifier; the capsule is sent or on its way out */
	NVME_REQUEST_DRAINING,  /* answered, but its data is still being sent: done runs when it is out */
};

#define NVME_REQUEST_MAX_IOVS 256u

/*
 * One command.  Owner: the submitter, but from submit until done runs the queue's.  The data and iov stay
 * until then. cmd's cid and SGL are filled by the queue.
 */
struct nvme_request {
	/* the submitter's */
	union nvme_cmd cmd;
	const struct iovec *iov; /* len bytes of data, to or from the controller as the opcode says */
	uint32_t iovcnt;
	uint32_t len;
	/*
	 * On the queue's thread, never before the submit has returned.  status is NVMe's, with flags;
	 * HOST_PATH_ERROR when the connection is lost (see nvme_qpair_error), TRANSIENT_TRANSPORT_ERROR when
	 * a data digest was wrong.
	 */
	void (*done)(struct nvme_request *req, uint16_t status);
	uint32_t timeout_ms; /* 0: its queue's */
	/* A command that others made: len may be less than it moves.  A function over PCIe then gets memory of its own that bounds
	 * what it can reach; fabrics bound that for every command. */
	bool guarded;
	struct nvme_cqe cqe; /* the response; zero but for the CID after C2HData's SUCCESS */
	/* the queue's */
	enum nvme_request_state state;
	uint16_t status;
	uint16_t nr_tx; /* pieces of the caller's data in the batch being sent */
	bool bad_digest, last_seen, in_capsule, never_expires, abort_sent;
	uint32_t data_done;            /* bytes received */
	uint32_t h2c_next;             /* the offset below which everything has been asked for */
	uint32_t h2c_offset, h2c_left; /* of the R2T being served */
	uint16_t h2c_ttag;
	uint16_t slot;
	uint32_t start_tick;
	struct fifo_link link;
	struct list h2c_link;
};

/* Submits.  Thread: the queue's; from a done callback too.  Beyond the queue's depth requests wait in order.
 */
void nvme_qpair_submit(struct nvme_qpair *qpair, struct nvme_request *req);
/* A fused pair: nothing comes between them.  Sets the flags.  The queue's depth must be two or more. */
void nvme_qpair_submit_fused(struct nvme_qpair *qpair, struct nvme_request *first,
			     struct nvme_request *second);
/* Receives and sends what can be, now: for those who would rather poll than wait to be told.  True when there
 * was work. */
bool nvme_qpair_poll(struct nvme_qpair *qpair);

/**
 * nvme_execute - submit a command and wait for its end
 * @buf:     data, either way; NULL with len_bytes 0
 * @ret_cqe: may be NULL
 *
 * Return: 0, an NVMe status (positive), or -errno when the connection is lost.
 */
fiber_fn int nvme_execute(struct nvme_qpair *qpair, const union nvme_cmd *cmd, void *buf, uint32_t len_bytes,
			  struct nvme_cqe *ret_cqe);

/* The same for a command that takes longer, or less long, than others: timeout_ms, 0 for the queue's own limit. */
fiber_fn int nvme_execute_within(struct nvme_qpair *qpair, const union nvme_cmd *cmd, void *buf, uint32_t len_bytes,
				 uint32_t timeout_ms, struct nvme_cqe *ret_cqe);

/* The same for a command that others made (see nvme_request.guarded): whatever it moves, nothing outside buf is touched. */
fiber_fn int nvme_execute_guarded(struct nvme_qpair *qpair, const union nvme_cmd *cmd, void *buf, uint32_t len_bytes,
				  uint32_t timeout_ms, struct nvme_cqe *ret_cqe);

/* --- queues ----------------------------------------------------------------------------------- */

/**
 * nvme_qpair_connect - make an I/O queue, owned by the current thread
 * @qid:        1 up to nvme_ctrlr_nr_io_queues()
 * @size:       entries, 2 to 4096; it takes one request fewer at a time; less when the controller has a
 * smaller limit
 *
 * Thread: any; the controller must not be disconnected meanwhile.  Return: 0, or -errno with *error filled.
 */
fiber_fn int nvme_qpair_connect(struct nvme_ctrlr *ctrlr, uint16_t qid, uint32_t size,
				struct nvme_qpair **ret_qpair, struct nvme_error *error);
/*
 * Closes; what is outstanding completes with HOST_PATH_ERROR before this returns.  NULL is fine.  On the queue's thread.
 * A PCIe queue is deleted first; a controller that does not answer that is disabled, so that nothing writes to a request's
 * memory after its end.
 */
fiber_fn void nvme_qpair_disconnect(struct nvme_qpair *qpair);

uint32_t nvme_qpair_depth(const struct nvme_qpair *qpair); /* requests at a time */
bool nvme_qpair_is_live(const struct nvme_qpair *qpair);
const struct nvme_error *nvme_qpair_error(const struct nvme_qpair *qpair); /* why it is not live */
bool nvme_qpair_has_hdgst(const struct nvme_qpair *qpair);
bool nvme_qpair_has_ddgst(const struct nvme_qpair *qpair);

/* --- controllers ------------------------------------------------------------------------------ */

/**
 * nvme_ctrlr_connect - connect the admin queue, enable the controller, identify it, begin keep alive
 *
 * The controller belongs to the current thread.  Return: 0, or -errno with *error filled.
 * Source: NVM Express Base 2.0, 3.5.2 "Message-based Controller Initialization".
 */
fiber_fn int nvme_ctrlr_connect(const struct nvme_connect_opts *opts, struct nvme_ctrlr **ret_ctrlr,
				struct nvme_error *error);
/* Shuts down (a normal CC.SHN) and closes.  Its I/O queues must be gone.  NULL is fine. */
fiber_fn void nvme_ctrlr_disconnect(struct nvme_ctrlr *ctrlr);

/*
 * Makes the controller let go of everything: all queues' requests complete with HOST_PATH_ERROR soon after.  PCIe: CC.EN
 * off, or its function stopped; fabrics: the admin connection closed, upon which the target ends the association.
 */
fiber_fn void nvme_ctrlr_disable(struct nvme_ctrlr *ctrlr);
/* Why it failed. */
const struct nvme_error *nvme_ctrlr_error(const struct nvme_ctrlr *ctrlr);

struct nvme_qpair *nvme_ctrlr_admin(struct nvme_ctrlr *ctrlr);
const struct nvme_id_ctrlr *nvme_ctrlr_id(const struct nvme_ctrlr *ctrlr);
uint64_t nvme_ctrlr_cap(const struct nvme_ctrlr *ctrlr);
uint32_t nvme_ctrlr_vs(const struct nvme_ctrlr *ctrlr);
uint16_t nvme_ctrlr_cntlid(const struct nvme_ctrlr *ctrlr);
uint32_t nvme_ctrlr_max_xfer_bytes(const struct nvme_ctrlr *ctrlr); /* of MDTS; at most 1 GiB */
/* Asks with feature 07h the first time; 0 for a discovery controller. */
fiber_fn unsigned nvme_ctrlr_nr_io_queues(struct nvme_ctrlr *ctrlr);

/* All return as nvme_execute does.  A property of 4 or 8 bytes, as its offset says. */
fiber_fn int nvme_property_get(struct nvme_ctrlr *ctrlr, uint32_t offset, uint64_t *ret_value);
fiber_fn int nvme_property_set(struct nvme_ctrlr *ctrlr, uint32_t offset, uint64_t value);
fiber_fn int nvme_identify(struct nvme_ctrlr *ctrlr, uint8_t cns, uint32_t nsid, uint8_t csi, void *buf_4096);
fiber_fn int nvme_get_log(struct nvme_ctrlr *ctrlr, uint8_t lid, uint8_t lsp, uint32_t nsid,
			  uint64_t offset_bytes, void *buf, uint32_t len_bytes);
fiber_fn int nvme_set_feature(struct nvme_ctrlr *ctrlr, uint8_t fid, uint32_t cdw11, void *buf,
			      uint32_t len_bytes, uint32_t *ret_dw0);
/* Asks that a request in flight on one of this controller's queues of this thread be aborted.  *ret_aborted:
 * it was. */
fiber_fn int nvme_abort(struct nvme_ctrlr *ctrlr, struct nvme_qpair *qpair, const struct nvme_request *req,
			bool *ret_aborted);

/**
 * nvme_discover - read the discovery log page whole, again when it changes under way
 *
 * Return: as nvme_execute; *ret_log with numrec entries is the caller's to free().  -EPROTO: a log that makes
 * no sense.
 */
fiber_fn int nvme_discover(struct nvme_ctrlr *ctrlr, struct nvme_discovery_log **ret_log);
/* Copies a field padded with spaces or NULs as a string; size includes the NUL.  What is not printable
 * becomes '?'. */
void nvme_copy_field(char *dst, size_t dst_size, const char *field, size_t field_len);

/* --- namespaces ------------------------------------------------------------------------------- */

struct nvme_ns {
	uint32_t nsid;
	uint32_t block_size; /* bytes */
	uint64_t nr_blocks;
	uint32_t max_xfer_blocks;
	bool has_uuid, has_nguid, has_eui64;
	uint8_t uuid[16], nguid[16], eui64[8];
	struct nvme_id_ns id;
};

/* nsid 0: the first active one.  Return: 0, or -errno with *error filled. */
fiber_fn int nvme_ns_open(struct nvme_ctrlr *ctrlr, uint32_t nsid, struct nvme_ns *ret_ns,
			  struct nvme_error *error);
/* Fills ret_nsids with the active ones from after @nsid, at most @max; gives their number, or a negative
 * errno. */
fiber_fn int nvme_ns_list(struct nvme_ctrlr *ctrlr, uint32_t nsid, uint32_t *ret_nsids, unsigned max);

static inline void nvme_cmd_rw(union nvme_cmd *cmd, uint8_t opcode, uint32_t nsid, uint64_t slba,
			       uint32_t nr_blocks)
{
	*cmd = (union nvme_cmd){0};
	cmd->opcode = opcode;
	cmd->nsid = nsid;
	cmd->rw.slba = slba;
	cmd->rw.nlb = (uint16_t)(nr_blocks - 1);
}

void nvme_error_set(struct nvme_error *error, int err, uint16_t status, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

#endif
