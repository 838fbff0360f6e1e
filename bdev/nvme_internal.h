/* What the files of the nvme device share: see doc/bdev.md. */
#ifndef BDEV_NVME_INTERNAL_H
#define BDEV_NVME_INTERNAL_H

#include "bdev/internal.h"
#include "bdev/nvme.h"

#define BDEV_NVME_IOVS	     64u  /* of a piece of an operation */
#define BDEV_NVME_REQUESTS   512u /* a channel's */
#define BDEV_NVME_QUEUE_SIZE 256u
#define BDEV_NVME_MAX_QID    1024u
#define BDEV_NVME_MAX_EVENTS 8u

enum bdev_nvme_fate {
	BDEV_NVME_WAIT, /* I/O without a path waits */
	BDEV_NVME_FAIL, /* -EIO */
	BDEV_NVME_GONE, /* -ENODEV */
};

/* Of a namespace by a path.  The first: the path does not show it; the last three: it does, but takes no I/O for it, at least now. */
enum bdev_nvme_access {
	ACCESS_NONE,
	ACCESS_NON_OPTIMIZED,
	ACCESS_OPTIMIZED,
	ACCESS_INACCESSIBLE,
	ACCESS_CHANGE,
	ACCESS_LOST, /* for good, as far as the controller knows */
};

/* One way to the subsystem.  Owner: its fiber on the app thread; others set what it is asked and signal. */
struct bdev_nvme_path {
	struct bdev_nvme_ctrlr *ctrlr;
	unsigned idx;
	struct bdev_nvme_attach_opts opts;
	char name[BDEV_NAME_MAX]; /* what opts.name points to */
	enum bdev_nvme_path_state state;
	struct nvme_ctrlr *nvme;
	struct nvme_bar *bar;
	unsigned nr_queues; /* that the controller gives */
	uint8_t qid_used[BDEV_NVME_MAX_QID];
	struct nvme_error error;
	uint64_t nr_resets, down_since_us, live_since_us;
	bool was_live; /* ever */
	bool disabled; /* by an administrator, until told otherwise */
	uint16_t cntlid; /* of the controller that was there last */
	bool accepting; /* channels get queues on it; under the controller's mutex */
	/* asked of the fiber */
	bool failed, removed, reset_asked, rescan_asked, end_asked;
	bool shares; /* some channels had no queue of their own on it, which was said; under the controller's mutex */
	/* nvme_ana.c: the log as it was read last; it is to be read; it was not to be had; some namespace is not accessible */
	uint8_t *ana_log;
	uint32_t ana_len;
	bool ana_asked, ana_unread, look_at_ana, ana_moving;
	uint64_t ana_moving_since_us;
	bool queues_missing, look_again; /* a channel got no queue; a namespace did not answer: tried again in a second */
	uint32_t events[BDEV_NVME_MAX_EVENTS]; /* whose log pages are to be read */
	unsigned nr_events;
	uint64_t told_us[8]; /* by type of event: when it was last told of */
	uint8_t told_warning;
	struct fiber_cond asked;
	struct fiber_cond changed; /* state, nr_tries */
	unsigned nr_tries;
	struct bdev_nvme_attaching *attaching; /* whoever waits for the first try; NULL: nobody */
};

/* A namespace.  Owner: app thread; what I/O reads is constant but for access. */
struct bdev_nvme_ns {
	struct bdev bdev;
	struct bdev_ops ops; /* what this one supports */
	struct list link;    /* bdev_nvme_ctrlr.namespaces */
	struct bdev_nvme_ctrlr *ctrlr;
	struct nvme_ns ns;
	bool seen[BDEV_NVME_MAX_PATHS]; /* by the path's scan under way */
	char serial[20], model[40]; /* of the controller that showed it first */
	uint32_t strangers; /* paths by which another namespace has this NSID, which was said */
	bool unanswered; /* Identify of it failed, and that was said */
	bool unregistering;
	uint32_t max_blocks, boundary_blocks;
	uint32_t max_zeroes_blocks, max_unmap_blocks, max_verify_blocks, max_copy_blocks;
	bool zeroes_deac;
	bool no_fua; /* the drive takes it and does nothing: a flush comes behind what asks for it */
	uint8_t access[BDEV_NVME_MAX_PATHS]; /* atomic; enum bdev_nvme_access */
	uint8_t preferred; /* atomic; a path's index and 1; 0: none */
	uint64_t refused_us[BDEV_NVME_MAX_PATHS]; /* atomic; when a command was refused for its access */
	struct bdev_stats left_stats[BDEV_NVME_MAX_PATHS]; /* of channels that are gone; under the core's mutex */
};

struct bdev_nvme_ctrlr {
	struct list link;
	char name[BDEV_NAME_MAX];
	char subnqn[NVME_NQN_FIELD_SIZE], serial[20], model[40]; /* of the first controller */
	bool identified;
	uint32_t refused;	  /* atomic: paths that refused a command for its access; nvme_ana.c reads their logs */
	uint32_t nr_paths;	  /* atomic */
	uint32_t fast_io_fail_s;  /* atomic; of the path that came last */
	enum bdev_nvme_multipath multipath; /* atomic */
	struct bdev_nvme_path *paths[BDEV_NVME_MAX_PATHS];
	struct list namespaces;
	struct list channels; /* bdev_nvme_channel.link */
	uint32_t nr_channels; /* atomic: with those that are on their way in or out */
	struct fiber_mutex mutex; /* passes over channels, scans */
	uint32_t fate;		  /* atomic */
	bool any_live;		  /* atomic: a path is connected */
	struct timer fail_timer;
	unsigned nr_users; /* fibers that hold on to it for a command */
	bool ending;
	struct fiber_cond gone; /* a namespace is, or the whole */
};

/* A thread's queues to a controller's paths.  Owner: its thread; the app thread lists it. */
struct bdev_nvme_channel {
	struct list link; /* ctrlr->channels; app thread */
	struct bdev_nvme_ctrlr *ctrlr;
	struct thread *thread;
	struct nvme_qpair *qpairs[BDEV_NVME_MAX_PATHS];
	uint16_t qids[BDEV_NVME_MAX_PATHS]; /* app thread's */
	/* Whose queue takes our commands while we have none of our own: more threads than queues share.  The second is the app
	 * thread's, who also counts those that borrow from us. */
	struct bdev_nvme_channel *lenders[BDEV_NVME_MAX_PATHS], *lent_by[BDEV_NVME_MAX_PATHS];
	unsigned nr_lent[BDEV_NVME_MAX_PATHS]; /* our commands that are with the lender */
	unsigned nr_borrowers[BDEV_NVME_MAX_PATHS];
	unsigned last_path;
	struct list free;	/* bdev_nvme_request.link */
	struct list parked;	/* requests that wait for a path, or for a while */
	struct fifo waiting;	/* bdev_io.leaf_link: wait for requests */
	struct timer park_timer;
	struct bdev_nvme_request *requests;
	unsigned nr_busy;
	bool dying;
	bool refused; /* its last queue could not be made, and that was said */
	struct fiber_cond wake;
	struct task kick_task;
	bool kicking;
};

struct bdev_nvme_ns_channel {
	struct bdev_nvme_ns *ns;
	struct channel *channel;
	struct bdev_nvme_channel *nch;
	struct bdev_stats stats[BDEV_NVME_MAX_PATHS]; /* by the path that took the command, while that is asked for */
};

/*
 * One command of an operation.  States: free; in flight, perhaps with a lender; parked, until a path is usable or its time is up.
 */
struct bdev_nvme_request {
	struct nvme_request req;
	struct list link;
	struct bdev_nvme_channel *nch;
	struct bdev_nvme_ns *ns;
	struct bdev_io *io;
	unsigned path, nr_retries, nr_losses;
	struct bdev_nvme_channel *lender; /* while it is with one */
	uint32_t lent_status;
	uint64_t start_ticks; /* 0: nobody counts */
	uint64_t parked_us; /* since when nothing took it; 0: it was taken */
	uint64_t unready_us; /* since when its namespace says that it is not ready; 0: it did not */
	struct iovec iov[BDEV_NVME_IOVS];
	union { /* the request's memory is DMA memory */
		struct nvme_dsm_range range;
		struct nvme_copy_range source;
	};
	struct iovec range_iov;
};

/* In bdev_io.scratch: an operation cut into commands. */
struct bdev_nvme_io {
	struct bdev_nvme_ns_channel *ch;
	uint64_t next; /* blocks given to commands so far */
	uint32_t nr_out;
	int status;
	uint32_t iov_idx, iov_skip; /* where next is in the vector */
	bool flushing;		    /* the flush that ends an operation with FUA, where the drive has none for it */
	bool queued;
};

static_assert(sizeof(struct bdev_nvme_io) <= BDEV_IO_SCRATCH, "the scratch holds it");

extern struct bdev_nvme_options bdev_nvme_options;

/* Whoever waits for the first try of a path, on his stack. */
struct bdev_nvme_attaching {
	struct fiber_wait wait;
	struct nvme_error *error;
};

/* nvme.c */
bool bdev_nvme_opts_match(const struct bdev_nvme_attach_opts *opts, const struct bdev_nvme_path_match *match);
fiber_fn void bdev_nvme_ctrlr_end(struct bdev_nvme_ctrlr *ctrlr); /* after its last path: the bdevs go, then it is freed */

/* nvme_path.c */
fiber_fn void bdev_nvme_attend(struct bdev_nvme_path *path); /* to what has come meanwhile and cannot wait */
fiber_fn void bdev_nvme_path_life(void *path);
void bdev_nvme_set_fate(struct bdev_nvme_ctrlr *ctrlr, enum bdev_nvme_fate fate);
void bdev_nvme_io_fail_due(void *ctrlr); /* of its fail_timer */

/* nvme_event.c */
void bdev_nvme_event_came(struct bdev_nvme_path *path, uint32_t dw0);
fiber_fn void bdev_nvme_read_events(struct bdev_nvme_path *path);

/* nvme_hotplug.c */
void bdev_nvme_remember_removed(const struct bdev_nvme_path *path);
/* Those that are not to come back any more; their number. */
unsigned bdev_nvme_forget_removed(const char *name, const struct bdev_nvme_path_match *match);
fiber_fn bool bdev_nvme_hotplug_stop(void); /* forgets all; whether it was on */

/* nvme_stat.c */
void bdev_nvme_count(struct bdev_nvme_request *rq, bool failed);
void bdev_nvme_stats_leave(struct bdev_nvme_ns_channel *ch);

/* nvme_choice.c */
void bdev_nvme_forget_preferred(struct bdev_nvme_path *path);
bool bdev_nvme_all_disabled(const struct bdev_nvme_ctrlr *ctrlr);
fiber_fn void bdev_nvme_stay_disabled(struct bdev_nvme_path *path);

/* nvme_channel.c */
extern const struct device_ops bdev_nvme_device_ops;
/* On the app thread, with the controller's mutex held: gives each channel a queue on the path, or takes it away. */
fiber_fn void bdev_nvme_channels_connect(struct bdev_nvme_path *path);
fiber_fn void bdev_nvme_channels_disconnect(struct bdev_nvme_path *path);
/* Has every channel look at what waits; app thread. */
void bdev_nvme_channels_kick(struct bdev_nvme_ctrlr *ctrlr);

/* nvme_ana.c; app thread */
void bdev_nvme_set_access(struct bdev_nvme_ns *ns, unsigned idx, enum bdev_nvme_access access);
fiber_fn void bdev_nvme_read_ana(struct bdev_nvme_path *path); /* and has it hold for what the path shows */
enum bdev_nvme_access bdev_nvme_ana_access(const struct bdev_nvme_path *path, const struct nvme_ns *ns); /* by the log read last */
void bdev_nvme_forget_ana(struct bdev_nvme_path *path);
/* A command was refused so: from now on none goes there, until the log says otherwise.  Any channel's thread. */
void bdev_nvme_refused(struct bdev_nvme_ns *ns, unsigned idx, uint16_t status);

/* nvme_ns.c */
fiber_fn int bdev_nvme_scan(struct bdev_nvme_path *path);
void bdev_nvme_path_access_none(struct bdev_nvme_path *path);
fiber_fn void bdev_nvme_unregister_all(struct bdev_nvme_ctrlr *ctrlr);

/* nvme_io.c */
void bdev_nvme_submit(struct bdev_io *io, void *channel_ctx);
void bdev_nvme_channel_run(struct bdev_nvme_channel *nch); /* parked and waiting ones, as far as they can go */
int bdev_nvme_channel_requests_init(struct bdev_nvme_channel *nch);

#endif
