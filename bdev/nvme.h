/*
 * NVMe namespaces as bdevs: drives over PCIe and namespaces of other targets over fabrics, Nvme0n1 and so on.
 *
 * A controller here is a name (Nvme0) with one or more paths to the same subsystem.  Each path is a fiber on the app thread
 * that connects, watches, and connects anew; I/O waits meanwhile, in order, until a path is back or the time is up.
 */
#ifndef BDEV_NVME_H
#define BDEV_NVME_H

#include "bdev/bdev.h"
#include "nvme/initiator.h"

struct bdev_nvme_ctrlr;
struct nvme_bar;

#define BDEV_NVME_MAX_PATHS 8u

enum bdev_nvme_multipath {
	BDEV_NVME_FAILOVER,	 /* one path at a time */
	BDEV_NVME_ACTIVE_ACTIVE, /* all usable paths in turn */
	BDEV_NVME_SINGLE,	 /* a second path of the same name is refused */
};

/*
 * What to do when a path is lost.  Seconds; all of it counted from the loss of the last path that could take I/O.
 */
struct bdev_nvme_loss {
	bool never_reconnect;
	uint32_t reconnect_delay_s; /* between tries; 0: one second */
	uint32_t fast_io_fail_s;    /* then waiting I/O fails with -EIO; 0: never before the controller is given up */
	int32_t ctrlr_loss_s;	    /* then the path is given up, and with the last of them the bdevs; -1: never */
};

struct bdev_nvme_attach_opts {
	const char *name; /* of the controller; its bdevs are called name + "n" + NSID */
	struct nvme_connect_opts connect; /* its event, failed and bar are filled here */
	struct bdev_nvme_loss loss;
	enum bdev_nvme_multipath multipath;
	unsigned nr_io_queues; /* at most; 0: as many as there are threads */
	uint32_t queue_size;   /* entries; 0: 256 */
	bool background;       /* do not wait for the first connection, and keep trying */
	/* PCIe: finds and opens the function, now and again after it was removed.  address is copied. */
	int (*bar_open)(const char *address, void *arg, struct nvme_bar **ret_bar, struct nvme_error *error);
	void *bar_arg;
	char address[64];
};

/* Defaults: reconnect each two seconds, give up after ten minutes, failover. */
void bdev_nvme_attach_opts_init(struct bdev_nvme_attach_opts *opts);

/**
 * bdev_nvme_attach - connect, and show the namespaces as bdevs
 *
 * Another path of the same subsystem when the name is there already: -EEXIST for the same path again, -EALREADY where one
 * path is all there may be, -EINVAL for another subsystem.
 * Thread: app.  Return: 0, or -errno with *error filled.
 */
fiber_fn int bdev_nvme_attach(const struct bdev_nvme_attach_opts *opts, struct nvme_error *error);

/* Which path; NULL or empty members match any. */
struct bdev_nvme_path_match {
	enum nvme_trtype trtype; /* 0: any */
	const char *address, *service, *subnqn;
};

unsigned bdev_nvme_nr_paths(const char *name, const struct bdev_nvme_path_match *match); /* of a controller; NULL: all */
/* Lets go of a controller, or of the paths that match.  Bdevs go with the last path; returns when they are gone.  -ENODEV. */
fiber_fn int bdev_nvme_detach(const char *name, const struct bdev_nvme_path_match *match);
/* Resets all paths one after the other, or that of the controller with this identifier; I/O waits.  0, -ENODEV, -EIO: it is not
 * back; -EALREADY: it is disabled. */
fiber_fn int bdev_nvme_reset(const char *name, const uint16_t *cntlid);
/* Disconnects all paths, or that of the controller with this identifier, and leaves it so until enabled again.  With none left that may
 * come back, I/O fails.  0, -ENODEV, -EALREADY, -EBUSY (it is just being attached), -EIO: enabled, and tried again until it is there. */
fiber_fn int bdev_nvme_set_enabled(const char *name, const uint16_t *cntlid, bool enabled);
/* At shutdown: everything goes. */
fiber_fn void bdev_nvme_detach_all(void);

/*
 * Discovery: keeps connected to the discovery controller at opts->connect's address, and has what its log lists attached, each
 * subsystem as name + number, as opts says otherwise.  Waits up to wait_us for the first reading of the log; goes on trying
 * after that.  0, -EEXIST, -ENOMEM.  Stopping lets go of all it has attached: 0 or -ENODEV.
 */
fiber_fn int bdev_nvme_discovery_start(const struct bdev_nvme_attach_opts *opts, uint64_t wait_us, struct nvme_error *error);
fiber_fn int bdev_nvme_discovery_stop(const char *name);
fiber_fn void bdev_nvme_discovery_stop_all(void);
bool bdev_nvme_is_discovered(const struct bdev *bdev); /* the number in its name is as good as the log's order */

#define BDEV_NVME_MAX_REFERRALS 16u

/* Another discovery controller that the log lists.  It is not followed. */
struct bdev_nvme_referral {
	enum nvme_trtype trtype;
	struct stream_addr addr;
	char subnqn[NVME_NQN_FIELD_SIZE];
};

struct bdev_nvme_discovery_info {
	const char *name;
	const struct nvme_connect_opts *connect;
	unsigned nr_attached; /* paths */
	bool connected;
	const struct bdev_nvme_referral *referrals;
	unsigned nr_referrals;
};

bool bdev_nvme_discovery_info(unsigned idx, struct bdev_nvme_discovery_info *ret_info); /* false past the last */

/* --- looking: all on the app thread, valid until the fiber suspends --------------------------------------------- */

enum bdev_nvme_path_state { BDEV_NVME_CONNECTING, BDEV_NVME_LIVE, BDEV_NVME_DOWN, BDEV_NVME_DISABLED, BDEV_NVME_ENDING };

struct bdev_nvme_path_info {
	enum bdev_nvme_path_state state;
	const struct nvme_connect_opts *connect;
	const char *address; /* PCIe */
	uint16_t cntlid; /* of the controller that is or was there; 0: there was none */
	const struct nvme_id_ctrlr *id; /* NULL while there is no controller */
	uint32_t vs;
	uint64_t nr_resets;
	const char *error; /* why it is down; "" */
};

struct bdev_nvme_ctrlr *bdev_nvme_find(const char *name);
struct bdev_nvme_ctrlr *bdev_nvme_first(void);
struct bdev_nvme_ctrlr *bdev_nvme_next(struct bdev_nvme_ctrlr *ctrlr);
const char *bdev_nvme_name(const struct bdev_nvme_ctrlr *ctrlr);
bool bdev_nvme_path(const struct bdev_nvme_ctrlr *ctrlr, unsigned idx, struct bdev_nvme_path_info *ret_info);
/* Of a bdev whose module is "nvme". */
struct bdev_nvme_ctrlr *bdev_nvme_of(const struct bdev *bdev, uint32_t *ret_nsid);
/* What Identify says of the namespace behind such a bdev; NULL for others.  Constant while the bdev is registered. */
const struct nvme_ns *bdev_nvme_ns_of(const struct bdev *bdev);
/* How much may be used of a path now: "optimized", "non_optimized", "inaccessible"; for a bdev of this leaf. */
const char *bdev_nvme_access_name(const struct bdev *bdev, unsigned path_idx);
/* Which paths I/O takes, and by which it goes from now on; -ENODEV, -EINVAL. */
enum bdev_nvme_multipath bdev_nvme_policy(const struct bdev_nvme_ctrlr *ctrlr);
int bdev_nvme_set_policy(struct bdev_nvme_ctrlr *ctrlr, enum bdev_nvme_multipath policy);
/* With failover a namespace's I/O takes the path of the controller with this identifier, whenever ANA has none that is better.  -ENODEV: no
 * NVMe namespace, -ENOENT: no such path.  The second gives the path's index, or -1. */
int bdev_nvme_set_preferred(struct bdev *bdev, uint16_t cntlid);
int bdev_nvme_preferred(const struct bdev *bdev);
/* The SMART log of a live path's controller; status as nvme_execute, -ENODEV when none is live. */
fiber_fn int bdev_nvme_smart(const char *name, struct nvme_log_smart *ret_smart);
/* A command on the admin queue, or on an I/O queue, of a live path; as nvme_execute_guarded, but Format has an hour.  Namespaces are
 * scanned after one that may have changed them. */
fiber_fn int bdev_nvme_admin(const char *name, const union nvme_cmd *cmd, void *buf, uint32_t len_bytes, uint32_t timeout_ms,
			     struct nvme_cqe *ret_cqe);
fiber_fn int bdev_nvme_io(const char *name, const union nvme_cmd *cmd, void *buf, uint32_t len_bytes, uint32_t timeout_ms,
			  struct nvme_cqe *ret_cqe);
/* What a path has carried for a bdev of this leaf while options.path_stats was on. */
fiber_fn void bdev_nvme_path_stats(struct bdev *bdev, unsigned path_idx, struct bdev_stats *ret_stats);

/* What a controller has told of itself, its log page read.  Valid during the call. */
struct bdev_nvme_event {
	const char *ctrlr, *address;
	unsigned type, info, lid;	    /* enum nvme_aer_type, and what Base 2.0, 5.2.1 says of it */
	const struct nvme_log_smart *smart; /* of its health; else NULL */
	const struct nvme_log_error *error; /* the newest entry of an error's; else NULL */
	const char *text;		    /* a sentence for people, about the drive */
};

/* Who hears of them, on the app thread; NULL: nobody. */
void bdev_nvme_listen(void (*fn)(const struct bdev_nvme_event *event));

/* For all that is attached from now on.  Microseconds, milliseconds. */
struct bdev_nvme_options {
	uint64_t timeout_us;	   /* of a command, until it is aborted */
	uint64_t abort_timeout_us; /* after the Abort, until the controller is reset; 0: at once, without an Abort */
	uint32_t keep_alive_ms;
	bool path_stats; /* what each path carries is counted */
	unsigned retry_count; /* of what a live controller refused for the moment */
	struct bdev_nvme_loss loss;
};

void bdev_nvme_get_options(struct bdev_nvme_options *ret_options);
void bdev_nvme_set_options(const struct bdev_nvme_options *options);
/* Whether drives that were pulled out are attached again when they are back, and how often that is looked for. */
void bdev_nvme_set_hotplug(bool enable, uint64_t period_us);

#endif
