/*
 * What nvmf's files share.  Two planes: the app thread owns the configuration (target, subsystem, namespace,
 * host, listener); each group's thread owns its connections, its copy of every subsystem's namespaces, and
 * the controllers whose admin queue came to it.
 */
#ifndef NVMF_INTERNAL_H
#define NVMF_INTERNAL_H

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>

#include "nvme/nvme.h"
#include "nvmf/nvmf.h"
#include "nvmf/transport.h"

#define NVMF_MAX_TRANSPORTS    4
#define NVMF_MAX_GROUPS	       64
#define NVMF_PAGE_SIZE	       4096u
#define NVMF_MDTS	       8   /* 2^8 pages of 4 KiB */
#define NVMF_AERL	       3   /* 0's based: four event requests */
#define NVMF_ACL	       3   /* 0's based: four Aborts at a time */
#define NVMF_ACWU	       255 /* blocks, 0's based */
#define NVMF_NR_ERRORS	       64
#define NVMF_CHANGED_NS_MAX    1024u
#define NVMF_SMART_TEMPERATURE 0x02u /* of the critical warnings, and so of feature 0Bh */
#define NVMF_KAS_100MS	       1
#define NVMF_DISCOVERY_KATO_MS 120000u
#define NVMF_CAP_TO_500MS      30

static_assert(NVMF_MAX_XFER == NVMF_PAGE_SIZE << NVMF_MDTS, "MDTS");

/* A host that does not send the data of a write it began is cut off after this. */
#define NVMF_DATA_TIMEOUT_US  (30ull * 1000 * 1000)
#define NVMF_DRAIN_TIMEOUT_US (5ull * 1000 * 1000)

/* --- app thread ---------------------------------------------------------------------------- */

struct nvmf_transport {
	const struct nvmf_transport_ops *ops;
	struct nvmf_transport_opts opts;
	bool created;
};

/* One address that a transport listens on, shared by the subsystems reached there.  Owner: app thread; ops,
 * addr and handle are constant. */
struct nvmf_listener {
	struct list link;
	struct nvmf_transport *transport;
	struct stream_addr addr;
	void *handle; /* the transport's */
	uint16_t portid;
	unsigned nr_users; /* subsystems, and for a discovery port the listeners of its address */
	bool lacks_discovery; /* its discovery port is another's, for now */
};

/* Owner: app thread. */
struct nvmf_target {
	struct list link; /* all targets */
	char model[NVMF_MODEL_MAX + 1];
	uint16_t discovery_port;
	bool no_discovery_port;
	struct timer discovery_timer; /* armed: some listener lacks it */
	uint64_t connect_timeout_us; /* constant, read by groups */
	uint64_t start_us;
	struct fiber_mutex config; /* held by whoever changes the configuration */
	struct nvmf_transport transports[NVMF_MAX_TRANSPORTS];
	unsigned nr_transports;
	struct nvmf_group *groups[NVMF_MAX_GROUPS]; /* constant while the target is */
	unsigned nr_groups;
	struct list subsystems;
	struct nvmf_subsystem *discovery;
	struct list listeners;
	uint16_t next_portid;
	uint64_t genctr;
	struct poller *thermometer;
	atomic_int temperature_k; /* of the pool's hottest bdev, for any thread; 0: none reports */
	nvmf_ns_gone_fn ns_gone;
	void *ns_gone_arg;
	unsigned nr_events; /* fibers about bdevs that come or go, and discovery ports */
	struct fiber_cond events_over;
	bool stopping;
};

struct nvmf_host {
	struct list link;
	char nqn[NVMF_NQN_SIZE];
};

struct nvmf_sub_listener {
	struct list link;
	struct nvmf_listener *listener;
	struct nvmf_listener *discovery; /* the discovery port it holds; NULL: none */
};

/* Owner: app thread; what says "constant" is read by groups too. */
struct nvmf_subsystem {
	struct list link;
	struct nvmf_target *target; /* constant, as are the next ones */
	char nqn[NVMF_NQN_SIZE];
	char serial[NVMF_SERIAL_MAX + 1];
	char model[NVMF_MODEL_MAX + 1];
	uint32_t max_namespaces;
	uint16_t min_cntlid, max_cntlid;
	uint32_t dmrsl;
	uint8_t wzsl;
	bool discovery;
	struct nvmf_group_subsystem
		*gsubs[NVMF_MAX_GROUPS]; /* constant; each belongs to its group, counters are read by all */
	atomic_ushort *error_recovery; /* constant; by NSID, 0: what was last set for all; any thread */
	bool allow_any_host;
	bool deleting, deleted;
	unsigned nr_lockers; /* fibers that wait for the configuration's lock and will look here */
	struct list hosts;
	struct list listeners;
	struct nvmf_ns **ns;		    /* by NSID, max_namespaces + 1 of them */
	unsigned nr_namespaces, nr_waiting; /* waiting: for their bdev */
	struct list ctrlrs;
	unsigned nr_ctrlrs;
	struct fiber_cond ctrlr_gone;
	uint16_t next_cntlid;
};

/* A namespace.  Owner: app thread; constant once groups have it. */
struct nvmf_ns {
	struct nvmf_subsystem *subsystem;
	uint32_t nsid;
	char bdev_name[BDEV_NAME_MAX]; /* as given */
	uuid_t bdev_uuid;	       /* as given; null: any */
	struct bdev_desc *desc;	       /* NULL: waits for the bdev */
	struct bdev *bdev;
	uint32_t block_size;
	uint8_t block_shift;
	uuid_t uuid;
	uint8_t nguid[16], eui64[8];
	bool uuid_given, nguid_given, eui64_given;
	uint32_t anagrpid;
	uint64_t id; /* never used again in this process: what an event about a bdev names it by */
};

/* --- group threads ------------------------------------------------------------------------- */

/* Single writer (the group's thread), read by any with nvmf_counter_read(). */
struct nvmf_counters {
	uint64_t nr_reads, nr_writes;
	uint64_t blocks512_read, blocks512_written; /* in 512 bytes */
	uint64_t media_errors;
	uint64_t busy_ticks;
	uint64_t unsafe_shutdowns;
};

static inline void nvmf_counter_add(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static inline uint64_t nvmf_counter_read(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* A namespace in a group.  Owner: the group's thread. */
struct nvmf_group_ns {
	const struct nvmf_ns *ns;
	struct bdev *bdev;
	struct bdev_channel *channel;
	uint32_t block_shift;
	bool has_write_cache;
	uint32_t nr_inflight;	 /* submitted and not completed */
	struct fiber_wait *idle; /* removal waits for nr_inflight 0 */
};

/* A subsystem in a group.  Owner: the group's thread. */
struct nvmf_group_subsystem {
	struct nvmf_subsystem *subsystem;
	struct nvmf_group *group;
	struct nvmf_group_ns **ns; /* by NSID */
	uint32_t nr_slots;
	struct list ctrlrs; /* those whose admin queue is here */
	uint32_t nr_io;	    /* I/O commands at bdevs */
	uint64_t busy_since_ticks;
	struct nvmf_counters counters;
};

/* Owner: its thread. */
struct nvmf_group {
	struct nvmf_target *target;
	struct thread *thread;
	unsigned idx;
	atomic_uint nr_qpairs; /* of any thread's interest: placement */
	struct list qpairs;
	uint64_t nr_admin_qpairs, nr_io_qpairs; /* connected, ever */
	uint64_t nr_completed;			/* I/O commands */
	void *tgroups[NVMF_MAX_TRANSPORTS]; /* by index of target->transports */
	uint64_t nr_buffer_waits[NVMF_MAX_TRANSPORTS]; /* commands that found no pool buffer, ever */
	struct list large_waiters;	    /* requests that wait for their turn to take large buffers */
	struct nvmf_req *large_taker;
	struct poller *sweeper;
	struct fiber_wait *empty; /* stopping waits for the last connection */
};

enum nvmf_ctrlr_state {
	NVMF_CTRLR_LIVE,
	NVMF_CTRLR_RESETTING,	  /* EN went to 0: I/O queues end, then RDY goes to 0 */
	NVMF_CTRLR_SHUTTING_DOWN, /* SHN was set: I/O queues end, caches are flushed, then SHST says so */
	NVMF_CTRLR_ENDING,	  /* told to end: I/O queues are drained, then the admin queue is */
	NVMF_CTRLR_DEAD,	  /* the admin queue is gone: I/O queues end, then the CNTLID is free */
};

/*
 * A controller: one association.  Owner: its admin queue's group thread, but for what is said below.  Born on
 * the app thread during Connect; every queue and message that names it holds a reference.
 */
struct nvmf_ctrlr {
	/* constant */
	struct nvmf_subsystem *subsystem;
	struct nvmf_group *group;
	struct nvmf_listener *listener; /* compared only; it may be gone */
	const struct nvmf_transport_opts *opts;
	const struct nvmf_transport_ops *ops;
	uint16_t cntlid;
	uint32_t max_queue_depth; /* of its I/O queues: what options and device allow */
	char host_nqn[NVMF_NQN_SIZE];
	uint8_t host_id[16];
	bool discovery;
	/* any thread */
	atomic_uint refs;
	atomic_bool traffic;	   /* a command came since the keep-alive timer last looked */
	atomic_bool write_through; /* WCE is 0: every write is a FUA write */
	/* app thread */
	struct list sub_link;
	bool ending; /* told to end */
	/* the group's thread */
	struct list gsub_link;
	struct nvmf_group_subsystem *gsub;
	struct nvmf_qpair *admin; /* NULL when gone */
	enum nvmf_ctrlr_state state;
	uint64_t cap;
	uint32_t cc, csts;
	uint64_t io_queues[2]; /* bit of each QID in use */
	struct nvmf_group *queue_groups[NVMF_MAX_IO_QUEUES + 1];
	unsigned nr_io_queues; /* and what else holds the association's end back */
	bool clean_shutdown;
	/* features */
	bool wce;
	uint32_t arbitration, temperature_over_k, temperature_under_k, write_atomicity,
		async_events;
	uint16_t nr_queues; /* granted; I/O queues 1 to nr_queues */
	struct nvme_host_behavior behavior;
	/* keep alive */
	uint32_t kato_ms;
	uint64_t last_seen_us;
	bool grace;
	struct timer keep_alive;
	/* events */
	struct list aers;
	unsigned nr_aers;
	uint32_t events_pending, events_masked; /* bits of enum nvmf_event */
	bool too_warm;				/* outside of the thresholds when last looked */
	uint32_t changed_ns[NVMF_CHANGED_NS_MAX];
	unsigned nr_changed_ns; /* 1025: more than the list can say */
	unsigned nr_aborts;
	/* error log: a ring, the newest at (error_count - 1) % NVMF_NR_ERRORS */
	uint64_t error_count;
	struct nvme_log_error errors[NVMF_NR_ERRORS];
};

enum nvmf_event {
	NVMF_EVENT_NS_CHANGED,
	NVMF_EVENT_DISCOVERY_CHANGED,
	NVMF_EVENT_TEMPERATURE,
	NVMF_NR_EVENTS
};

/* --- request.c: the one machine ------------------------------------------------------------ */

#define NVMF_OP_FUSED	0x01u /* may be half of a Compare-and-Write */
#define NVMF_OP_ANYTIME 0x02u /* before CC.EN too */
#define NVMF_OP_IO	0x04u /* on a namespace's blocks */

/* What an opcode needs.  prepare checks the command and sets req->len; execute runs once the data is there
 * and ends, now or later, in nvmf_req_complete(). */
struct nvmf_op {
	uint16_t (*prepare)(struct nvmf_req *req); /* NVMe status; NULL: no data, nothing to check */
	void (*execute)(struct nvmf_req *req);
	uint32_t flags;
};

void nvmf_req_complete(struct nvmf_req *req, uint16_t status);
void nvmf_req_set_state(struct nvmf_req *req, enum nvmf_req_state state);
void nvmf_req_buffers_ready(struct nvmf_req *req);
/*
 * Ends a request that has not started, wherever it waits.  False when it has started or is not nvmf's to end.
 */
bool nvmf_req_cancel(struct nvmf_req *req, uint16_t status);
/* Copies into or out of req->iov at an offset, within req->len. */
void nvmf_req_put(struct nvmf_req *req, uint32_t offset, const void *src, uint32_t len);
void nvmf_req_get(struct nvmf_req *req, uint32_t offset, void *dst, uint32_t len);
void nvmf_req_zero(struct nvmf_req *req);

/* buffer.c: true: all there; false: nvmf_req_buffers_ready() comes later. */
bool nvmf_buffers_get(struct nvmf_req *req);
void nvmf_buffers_put(struct nvmf_req *req);
bool nvmf_buffers_cancel(struct nvmf_req *req);

/* tables */
extern const struct nvmf_op nvmf_ops_unconnected[256]; /* connect.c */
extern const struct nvmf_op nvmf_ops_admin[256];       /* admin.c */
extern const struct nvmf_op nvmf_ops_discovery[256];   /* admin.c */
extern const struct nvmf_op nvmf_ops_io[256];	       /* io.c */
uint8_t nvmf_io_fua(struct nvmf_req *req, const struct nvmf_group_ns *gns);

/* connect.c */
uint16_t nvmf_connect_prepare(struct nvmf_req *req);
void nvmf_connect_execute(struct nvmf_req *req);
uint16_t nvmf_fabrics_prepare(struct nvmf_req *req); /* any fabrics command, by its type */
void nvmf_fabrics_execute(struct nvmf_req *req);

/* property.c */
void nvmf_property_get(struct nvmf_req *req);
void nvmf_property_set(struct nvmf_req *req);
uint64_t nvmf_ctrlr_cap(const struct nvmf_ctrlr *ctrlr);

/* identify.c */
uint16_t nvmf_identify_prepare(struct nvmf_req *req);
void nvmf_identify_execute(struct nvmf_req *req);

/* log_page.c, effects.c, smart.c */
uint16_t nvmf_log_page_prepare(struct nvmf_req *req);
void nvmf_log_page_execute(struct nvmf_req *req);
/* Writes what falls into the asked window of a page of @size bytes of which @part stands at @at. */
void nvmf_log_put(struct nvmf_req *req, uint64_t at, const void *part, uint32_t len);
void nvmf_log_page_smart(struct nvmf_req *req);
int nvmf_pool_temperature_k(void); /* of the hottest bdev; 0: none reports.  App thread */
bool nvmf_temperature_is_bad(int temperature_k, uint32_t over_k, uint32_t under_k);
void nvmf_temperature_check(struct nvmf_ctrlr *ctrlr); /* now and then, on its thread: raises the event */
void nvmf_error_log_add(struct nvmf_req *req, uint16_t status);
void nvmf_log_effects_fill(struct nvme_log_effects *log);

/* features.c */
uint16_t nvmf_get_features_prepare(struct nvmf_req *req);
void nvmf_get_features_execute(struct nvmf_req *req);
uint16_t nvmf_set_features_prepare(struct nvmf_req *req);
void nvmf_set_features_execute(struct nvmf_req *req);
void nvmf_features_reset(struct nvmf_ctrlr *ctrlr);
void nvmf_log_feature_effects_fill(const struct nvmf_ctrlr *ctrlr, struct nvme_log_feature_effects *log);

/* abort.c */
void nvmf_abort_execute(struct nvmf_req *req);
void nvmf_abort_victim_done(struct nvmf_req *victim, uint16_t status);

/* aer.c */
void nvmf_aer_execute(struct nvmf_req *req);
void nvmf_aer_raise(struct nvmf_ctrlr *ctrlr, enum nvmf_event event);
void nvmf_aer_log_read(struct nvmf_ctrlr *ctrlr, uint8_t lid); /* with RAE 0 */
void nvmf_aer_reset(struct nvmf_ctrlr *ctrlr);
void nvmf_aer_ns_changed(struct nvmf_ctrlr *ctrlr, uint32_t nsid);

/* keep_alive.c */
void nvmf_keep_alive_execute(struct nvmf_req *req);
void nvmf_keep_alive_init(struct nvmf_ctrlr *ctrlr);
void nvmf_keep_alive_start(struct nvmf_ctrlr *ctrlr, uint32_t kato_ms); /* 0: off */
void nvmf_keep_alive_stop(struct nvmf_ctrlr *ctrlr);

/* io.c */
uint8_t nvmf_io_fua(struct nvmf_req *req, const struct nvmf_group_ns *gns);
void nvmf_io_submit(struct nvmf_req *req, struct nvmf_group_ns *gns, uint8_t op,
		    void (*done)(struct bdev_io *io, int status));
void nvmf_io_start(struct nvmf_req *req, struct nvmf_group_ns *gns,
		   void (*done)(struct bdev_io *io, int status));
void nvmf_io_end(struct nvmf_req *req); /* takes the request from its namespace; every done begins with it */
struct nvmf_group_ns *nvmf_io_ns(struct nvmf_req *req, uint16_t *ret_status);
bool nvmf_io_range_ok(const struct nvmf_group_ns *gns, uint64_t slba, uint64_t nr_blocks);
uint16_t nvmf_io_write_prepare(struct nvmf_req *req);
uint16_t nvmf_io_status(struct nvmf_req *req, int err);

/* io_long.c: those without data on the wire */
void nvmf_flush_execute(struct nvmf_req *req);
uint16_t nvmf_write_zeroes_prepare(struct nvmf_req *req);
void nvmf_write_zeroes_execute(struct nvmf_req *req);
uint16_t nvmf_verify_prepare(struct nvmf_req *req);
void nvmf_verify_execute(struct nvmf_req *req);

/* fused.c */
uint16_t nvmf_fused_begin(struct nvmf_req *req,
			  uint16_t status);  /* before prepare: finds its other half, or ends a lone one */
void nvmf_fused_ready(struct nvmf_req *req); /* its data is there */
void nvmf_fused_failed(struct nvmf_req *req, uint16_t status); /* it ends without having started */

/* copy.c */
#define NVMF_COPY_MAX_RANGES 128u
uint32_t nvmf_copy_max_blocks(unsigned block_shift);
uint16_t nvmf_copy_prepare(struct nvmf_req *req);
void nvmf_copy_execute(struct nvmf_req *req);

/* dsm.c */
uint16_t nvmf_dsm_prepare(struct nvmf_req *req);
void nvmf_dsm_execute(struct nvmf_req *req);

/* discovery.c */
void nvmf_discovery_log_execute(struct nvmf_req *req);
/* What hosts see of a subsystem has changed: tells those for whom @affects says so.  App thread. */
void nvmf_discovery_changed(struct nvmf_subsystem *subsystem,
			    bool (*affects)(const struct nvmf_subsystem *, const char *host_nqn));
void nvmf_discovery_changed_for(struct nvmf_subsystem *subsystem, const char *host_nqn);

/* qpair.c */
void nvmf_qpair_close(struct nvmf_qpair *qpair, bool graceful);
void nvmf_qpair_drain(struct nvmf_qpair *qpair);   /* answers what executes, then closes */
void nvmf_qpair_check(struct nvmf_qpair *qpair);   /* after a release: is a drain or a disconnect over? */
void nvmf_qpair_unbound(struct nvmf_qpair *qpair); /* its controller knows that it is gone */

/* ctrlr.c */
struct nvmf_ctrlr *nvmf_ctrlr_get(struct nvmf_ctrlr *ctrlr);
void nvmf_ctrlr_put(struct nvmf_ctrlr *ctrlr);
void nvmf_ctrlr_bind_admin(struct nvmf_ctrlr *ctrlr, struct nvmf_qpair *qpair,
			   uint32_t kato_ms); /* group's thread */
void nvmf_ctrlr_qpair_gone(
	struct nvmf_qpair *qpair); /* on the qpair's thread; ends in nvmf_qpair_unbound() */
bool nvmf_ctrlr_queue_take(struct nvmf_ctrlr *ctrlr, uint16_t qid,
			   struct nvmf_group *group);		    /* controller's thread */
void nvmf_ctrlr_queue_free(struct nvmf_ctrlr *ctrlr, uint16_t qid); /* the same; qid 0: another hold */
void nvmf_ctrlr_close_io(struct nvmf_ctrlr *ctrlr, bool drain);
void nvmf_ctrlr_die(struct nvmf_ctrlr *ctrlr); /* the admin queue is gone, or never was */
struct nvmf_qpair *nvmf_group_find_qpair(struct nvmf_group *group, const struct nvmf_ctrlr *ctrlr,
					 uint16_t qid);
void nvmf_ctrlr_end_from_app(struct nvmf_ctrlr *ctrlr);
void nvmf_ctrlr_unlist(struct nvmf_ctrlr *ctrlr); /* app thread: its CNTLID is free */
/* Runs fn(ctrlr) on its thread with a reference that fn puts.  Thread: any. */
void nvmf_ctrlr_send(struct nvmf_ctrlr *ctrlr, msg_fn fn);
void nvmf_ctrlr_queues_over(
	struct nvmf_ctrlr *ctrlr); /* property.c: the last I/O queue of a reset or shutdown is gone */

/* group.c */
int nvmf_group_create(struct nvmf_target *target, unsigned reactor,
		      struct nvmf_group **ret_group); /* fiber_fn */
fiber_fn void nvmf_group_destroy(struct nvmf_group *group);
fiber_fn int nvmf_groups_add_subsystem(struct nvmf_subsystem *subsystem);
fiber_fn void nvmf_groups_remove_subsystem(struct nvmf_subsystem *subsystem);
fiber_fn int nvmf_groups_add_ns(struct nvmf_ns *ns);
fiber_fn void nvmf_groups_remove_ns(struct nvmf_ns *ns); /* waits for its I/O */
void nvmf_groups_ns_changed(struct nvmf_ns *ns);	 /* tells the controllers */

/* subsystem.c */
bool nvmf_subsystem_allows(const struct nvmf_subsystem *subsystem, const char *host_nqn);
bool nvmf_subsystem_lists_not(const struct nvmf_subsystem *subsystem, const char *host_nqn);
bool nvmf_subsystem_listens(const struct nvmf_subsystem *subsystem, const struct nvmf_listener *listener);
fiber_fn void nvmf_subsystem_end_ctrlrs(struct nvmf_subsystem *subsystem,
					bool (*ends)(struct nvmf_ctrlr *, void *), void *arg);
fiber_fn int nvmf_subsystem_lock(struct nvmf_subsystem *subsystem); /* unlock: target->config */
fiber_fn int nvmf_subsystem_delete_locked(struct nvmf_subsystem *subsystem);
fiber_fn int nvmf_subsystem_create_locked(struct nvmf_target *target, const struct nvmf_subsystem_opts *opts,
					  bool discovery, struct nvmf_subsystem **ret_subsystem);

/* namespace.c */
void nvmf_ns_bdev_registered(struct nvmf_target *target, struct bdev *bdev); /* not in a fiber */
fiber_fn void nvmf_ns_remove_all(struct nvmf_subsystem *subsystem);

/* listener.c */
struct nvmf_listener *nvmf_listener_by_handle(struct nvmf_target *target,
					      const struct nvmf_transport_ops *ops, void *handle);
fiber_fn void nvmf_listeners_remove_all(struct nvmf_subsystem *subsystem);
/* Opens an address or shares it; each open has its close.  Under target->config, as are the next ones. */
fiber_fn int nvmf_listener_open(struct nvmf_target *target, struct nvmf_transport *transport,
				const struct stream_addr *addr, struct nvmf_listener **ret_listener);
fiber_fn void nvmf_listener_close(struct nvmf_listener *listener);
struct nvmf_sub_listener *nvmf_sub_listener_find(const struct nvmf_subsystem *sub,
						 const struct nvmf_listener *listener);

/* discovery_port.c: app thread, under target->config */
void nvmf_discovery_ports_init(struct nvmf_target *target);
/* Has discovery answered beside a subsystem's new listener, or tries again later. */
fiber_fn void nvmf_discovery_port_open(struct nvmf_target *target, struct nvmf_sub_listener *sl);
fiber_fn void nvmf_discovery_port_close(struct nvmf_target *target, struct nvmf_listener *listener);
/* The listeners have changed: a port that was taken may be free. */
fiber_fn void nvmf_discovery_ports_retry(struct nvmf_target *target);

/* stats.c */
void nvmf_group_count_buffer_wait(struct nvmf_group *group, const struct nvmf_transport_ops *ops);

/* target.c */
/* The end of a fiber that nr_events counts. */
void nvmf_target_event_over(struct nvmf_target *target);
struct nvmf_transport *nvmf_transport_find(struct nvmf_target *target, const char *trtype);

/* derive.c: identities that stay the same because they are made from names */
void nvmf_derive_serial(const char *nqn, char ret_serial[NVMF_SERIAL_MAX + 1]);
void nvmf_derive_uuid(const char *nqn, uint32_t nsid, uuid_t ret_uuid);

static inline bool nvmf_status_is_error(uint16_t status)
{
	return nvme_status_code(status) != NVME_SC_SUCCESS;
}

#endif
