/*
 * The seam between nvmf and its transports: one request machine for all of them, and the operations that a
 * transport gives.
 *
 * A transport turns bytes into struct nvmf_req and back.  nvmf decides everything that the NVMe
 * specifications say about commands, queues and controllers; a transport knows its own PDUs or work requests
 * and nothing of namespaces.
 *
 * Life of a request, all on the connection's poll group thread:
 *
 *  1. Transport: a capsule is there.  It takes a free request of the connection, fills req->cmd and, for in-capsule data,
 *     req->iov, and calls nvmf_req_begin(req).
 *  2. nvmf decodes, asks ops->parse_sgl(req) for the length and the place of the data, checks, and takes buffers (it may wait
 *     for them).  Data from the host that is not in the capsule it asks for with ops->receive_data(req).
 *  3. Transport: the data is all in req->iov: nvmf_req_data_received(req), or nvmf_req_data_failed(req, status).
 *  4. nvmf executes, fills req->cqe, and calls ops->complete(req).
 *  5. Transport: sends data to the host (when req->xfer is to the host and the status is success) and the response.  When the
 *     last byte is out, or the connection is gone: nvmf_req_release(req).  Buffers go back, the request is the transport's again.
 *
 * ops->complete() may be called from within nvmf_req_begin(), nvmf_req_data_received() and
 * nvmf_req_data_failed(), for that request (a bad command) and for others of the connection (the other half
 * of a fused pair, an event request).  A transport must cope with that, and so must it with ops->close(),
 * which may be called from there too.  nvmf_req_begin() may not be called from within ops->complete().
 *
 * After nvmf_qpair_disconnect() the transport does not fetch data any more: it calls nvmf_req_data_failed()
 * or nvmf_req_release() for the requests whose data it was fetching, and releases those that nvmf completes.
 */
#ifndef NVMF_TRANSPORT_H
#define NVMF_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "bdev/bdev.h"
#include "nvme/nvme.h"
#include "nvmf/nvmf.h"
#include "runtime/runtime.h"

struct nvmf_group;
struct nvmf_group_ns;
struct nvmf_group_subsystem;
struct nvmf_qpair;
struct nvmf_ctrlr;
struct nvmf_op;
struct nvmf_req;

#define NVMF_MAX_CAPSULE_DATA (64u * 1024)   /* the most that in_capsule_data_size may be */
#define NVMF_MAX_XFER	      (1024u * 1024) /* MDTS */
#define NVMF_REQ_IOVS	      (NVMF_MAX_XFER / IOBUF_LARGE_SIZE + 1)

enum nvmf_xfer { NVMF_XFER_NONE, NVMF_XFER_TO_HOST, NVMF_XFER_FROM_HOST };

enum nvmf_req_state {
	NVMF_REQ_FREE,	      /* the transport's */
	NVMF_REQ_NEED_BUFFER, /* waits in the buffer pool's queue */
	NVMF_REQ_NEED_DATA,   /* the transport fetches data from the host */
	NVMF_REQ_FUSED_WAIT,  /* first of a fused pair, waits for the second */
	NVMF_REQ_QUEUED,    /* not started: waits for a namespace or the other half; Abort ends it with 07h */
	NVMF_REQ_EXECUTING, /* a bdev or a fiber has it */
	NVMF_REQ_AER,	    /* an Asynchronous Event Request, held until there is an event */
	NVMF_REQ_COMPLETING, /* the transport sends the response */
};

/* Embedded in the transport's own request.  Owner: the connection's poll group thread. */
struct nvmf_req {
	struct nvmf_qpair *qpair; /* set once by the transport when it makes its requests */
	union nvme_cmd cmd;	  /* as received, little endian */
	struct nvme_cqe cqe;	  /* little endian; sqhd filled by nvmf before complete */
	enum nvmf_req_state state;
	enum nvmf_xfer xfer;
	uint32_t len;	  /* bytes of data to move; after execution of a to-host command what is to be sent */
	uint32_t sgl_len; /* what the host's SGL offers; set by parse_sgl */
	/*
	 * The data.  in_capsule: the transport's memory, pointed to by parse_sgl(); it lies where it was
	 * received, at any alignment, and a device that needs another copies it.  Else pool buffers of nvmf.
	 */
	bool in_capsule;
	bool zero_copy; /* iov points into memory that nvmf lends: it stays until release */
	uint8_t iovcnt;
	uint8_t iobuf_class; /* of the pool buffers in iov */
	uint8_t nr_iobufs;
	struct iovec iov[NVMF_REQ_IOVS];
	struct list link; /* the qpair's outstanding requests */
	struct list wait_link;
	struct iobuf_wait buffer_wait;
	uint64_t start_ticks;
	/* nvmf's own */
	const struct nvmf_op *op;
	struct nvmf_req *fused;	   /* the other half */
	struct nvmf_req *aborter;  /* the Abort that waits for this one's end */
	struct nvmf_group_ns *gns; /* while io is submitted */
	uint16_t end_status;	   /* not 0: it ends with this instead of starting */
	uint32_t step;		   /* of commands that take several operations */
	uint64_t step_blocks;
	struct bdev_io io;
	void *priv; /* the handler's */
};

struct nvmf_listen_opts {
	struct stream_addr addr; /* host, port, family */
	int backlog;
};

/* What a transport provides.  fiber_fn ones run on the app thread; the rest on the connection's poll group
 * thread. */
struct nvmf_transport_ops {
	const char *name; /* "TCP" */
	uint8_t trtype;
	uint32_t sgls;		 /* bits of Identify's SGLS: the descriptors that parse_sgl takes */
	uint8_t max_descriptors; /* of a command, where its capsule has room for them: MSDBD */
	uint8_t tsas[8];	 /* how a discovery log entry's TSAS begins */
	bool discovery_port;	 /* its hosts look for discovery on a port of its own */
	/* May be NULL.  Can it be created so on this machine?  0, or -errno with a sentence that names the remedy. */
	int (*check)(const struct nvmf_transport_opts *opts, char *ret_why, size_t size);
	void (*opts_default)(struct nvmf_transport_opts *opts);
	/* Makes and frees what a transport has in a group; on the group's thread. */
	int (*group_create)(struct nvmf_group *group, void **ret_tgroup);
	void (*group_destroy)(struct nvmf_group *group, void *tgroup); /* after its last connection is gone */
	fiber_fn int (*listen)(const struct nvmf_listen_opts *opts, struct nvmf_target *target,
			       void **ret_listener);
	fiber_fn void (*stop_listen)(void *listener); /* refuses new connections; existing ones stay */

	/* 0, or an NVMe status (nvme.h) for the command: bad descriptor type, offset, length.  Sets sgl_len,
	 * in_capsule, iov. */
	uint16_t (*parse_sgl)(struct nvmf_req *req);
	void (*receive_data)(struct nvmf_req *req);
	void (*complete)(struct nvmf_req *req);
	/* Ends the connection: what is queued to be sent goes out first when graceful.  The transport then
	 * calls nvmf_qpair_disconnect(), as for a connection lost.  Called once at most, never after that. */
	void (*close)(struct nvmf_qpair *qpair, bool graceful);
	/* May be NULL.  Does the transport hold back a command of that CID, not yet begun?  It then hands it
	 * to nvmf_req_begin_aborted() and says true. */
	bool (*abort_held)(struct nvmf_qpair *qpair, uint16_t cid);
	/* May be NULL.  What the idx-th device of a group's part has counted; -ENOENT past the last.  On the group's thread. */
	int (*device_stats)(void *tgroup, unsigned idx, struct nvmf_device_stats *ret_stats);
	void (*local_addr)(struct nvmf_qpair *qpair, struct stream_addr *ret_addr);
	void (*peer_addr)(struct nvmf_qpair *qpair, struct stream_addr *ret_addr);
};

/* What was said of a queue when its connection was made, where the transport has that: Connect must say the same. */
struct nvmf_announced {
	bool is_set;
	uint16_t qid;
	uint16_t cntlid; /* 0: not said */
	uint32_t depth;	 /* Connect may ask for less */
};

/* Embedded in the transport's connection.  Owner: the group's thread. */
struct nvmf_qpair {
	const struct nvmf_transport_ops *ops;
	const struct nvmf_transport_opts *opts;
	struct nvmf_group *group;
	void *listener; /* what ops->listen gave: which listener it came in by */
	struct list group_link;
	struct list outstanding; /* requests begun and not released */
	uint32_t nr_outstanding;
	bool header_digest, data_digest; /* for nvmf_subsystem_get_qpairs and logs */
	/* the transport may set them after nvmf_qpair_init(), before the first request */
	struct nvmf_announced announced;
	uint32_t max_queue_depth; /* that its device can serve; 0: whatever opts say */
	/* nvmf's own */
	bool closing;	   /* no command is begun any more */
	bool draining;	   /* closes once what executes is answered */
	bool close_asked;  /* ops->close was called */
	bool disconnected; /* nvmf_qpair_disconnect was called */
	bool gone_sent;
	void (*gone)(void *arg);
	void *gone_arg;
	struct timer timer;		/* before Connect: its deadline; while draining: how long */
	const struct nvmf_op *op_table; /* by opcode */
	/* from Connect on */
	struct nvmf_ctrlr *ctrlr;
	struct nvmf_group_subsystem *gsub;
	uint16_t qid, sq_size, sqhd; /* sq_size: entries */
	bool sq_flow_control_disabled;
	bool connecting, connected;
	struct nvmf_req *first_fused;
	bool first_fused_failed;
};

/* --- called by a transport ----------------------------------------------------------------- */

/* Picks the group that a new connection goes to.  Thread: any. */
struct nvmf_group *nvmf_target_pick_group(struct nvmf_target *target);
struct thread *nvmf_group_thread(struct nvmf_group *group);
void *nvmf_group_transport(struct nvmf_group *group,
			   const struct nvmf_transport_ops *ops); /* its ret_tgroup */
const struct nvmf_transport_opts *nvmf_target_transport_opts(struct nvmf_target *target,
							     const struct nvmf_transport_ops *ops);

/* Whether the transport has a controller of that CNTLID in some subsystem.  Thread: app. */
bool nvmf_target_has_ctrlr(struct nvmf_target *target, const struct nvmf_transport_ops *ops, uint16_t cntlid);

/* A connection exists: on the group's thread, with ops, opts and listener set.  Before Connect nothing is
 * known of the peer. */
void nvmf_qpair_init(struct nvmf_qpair *qpair, struct nvmf_group *group);
/* The largest number of commands the host may have outstanding: the queue's size as Connect gave it; before
 * that 1. */
uint32_t nvmf_qpair_max_outstanding(const struct nvmf_qpair *qpair);
/*
 * The connection is lost or to be ended by the transport (a fatal PDU error, the peer's close): no new
 * requests are begun. Requests the transport still holds are released by it; those nvmf holds come back
 * through ops->complete() (the transport then just releases them).  Once none is outstanding, gone(arg) runs
 * on the group's thread, never before this has returned, and the transport may free the connection.
 */
void nvmf_qpair_disconnect(struct nvmf_qpair *qpair, void (*gone)(void *arg), void *arg);

/* Whether requests wait for large pool buffers: a transport then gives up sooner on peers that sit on some.  Any thread. */
bool nvmf_buffers_short(void);

void nvmf_req_begin(struct nvmf_req *req);
void nvmf_req_begin_aborted(struct nvmf_req *req); /* begins it only to end it with 07h */
void nvmf_req_data_received(struct nvmf_req *req);
void nvmf_req_data_failed(struct nvmf_req *req, uint16_t status);
void nvmf_req_release(struct nvmf_req *req);

#endif
