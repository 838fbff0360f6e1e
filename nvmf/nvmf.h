/*
 * The NVMe-oF target as management sees it: a target with transports, subsystems, their namespaces, hosts and
 * listeners, and what can be asked about controllers and queues.
 *
 * Everything here runs on the app thread.  Functions marked fiber_fn may suspend; the others answer at once.
 * Errors are -errno.  A change is visible to every host when the call has returned, and I/O never stops for
 * it.  Pointers to subsystems are good until nvmf_subsystem_delete(); what an info struct points to is good
 * until the caller suspends or changes the subsystem.
 */
#ifndef NVMF_NVMF_H
#define NVMF_NVMF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uuid/uuid.h>

#include "bdev/bdev.h"
#include "runtime/runtime.h"

struct nvmf_target;
struct nvmf_subsystem;
struct nvmf_transport_ops;

#define NVMF_NQN_MAX		    223 /* characters, without the NUL */
#define NVMF_NQN_SIZE		    256 /* bytes with it, as Connect carries them */
#define NVMF_SERIAL_MAX		    20
#define NVMF_MODEL_MAX		    40
#define NVMF_MAX_IO_QUEUES	    127
#define NVMF_DEFAULT_MAX_NAMESPACES 1024u
#define NVMF_DISCOVERY_NQN	    "nqn.2014-08.org.nvmexpress.discovery"
#define NVMF_DISCOVERY_PORT	    8009

/* --- target -------------------------------------------------------------------------------- */

struct nvmf_target_opts {
	const char *model;	 /* of subsystems created without one; NULL: "Ferrule" */
	uint16_t discovery_port; /* opened beside the first listener on an address; 0: NVMF_DISCOVERY_PORT */
	bool no_discovery_port;	 /* open none */
	uint32_t connect_timeout_ms; /* a connection without a Connect is closed after this; 0: 15 s */
};

/**
 * nvmf_target_create - make the target, with one poll group thread on each reactor and the discovery
 * subsystem
 *
 * Return: 0, or -ENOMEM (also when the buffer pool is too small for the cores; the log says by how much).
 */
fiber_fn int nvmf_target_create(const struct nvmf_target_opts *opts, struct nvmf_target **ret_target);
/* Stops listening, answers what is in flight, ends every association, closes every bdev, ends the groups'
 * threads. */
fiber_fn void nvmf_target_destroy(struct nvmf_target *target);

/*
 * A namespace has vanished because its bdev was removed (not through nvmf_subsystem_remove_ns): whoever keeps
 * the configuration forgets it.  Called on the app thread, in a fiber.
 */
typedef void (*nvmf_ns_gone_fn)(struct nvmf_subsystem *subsystem, uint32_t nsid, const char *bdev_name,
				void *arg);
void nvmf_target_on_ns_gone(struct nvmf_target *target, nvmf_ns_gone_fn fn, void *arg);

/* --- transports ---------------------------------------------------------------------------- */

/*
 * Limits and choices of nvmf_create_transport; one for each transport in the target.  Constant once created.
 */
struct nvmf_transport_opts {
	uint32_t max_queue_depth;	  /* 128; entries in an I/O queue */
	uint32_t max_io_qpairs_per_ctrlr; /* 127 */
	uint32_t in_capsule_data_size;	  /* 4096; bytes in an I/O capsule; admin queues take 8192 always */
	uint32_t max_io_size;		  /* 1 MiB */
	uint32_t max_aq_depth;		  /* 128 */
	uint32_t abort_timeout_sec;	  /* how long Abort waits for its victim */
	uint32_t acceptor_backlog;
	uint32_t sock_priority; /* SO_PRIORITY of its connections; 0: the system's */
	bool c2h_success;
	/* RDMA */
	uint32_t max_srq_depth; /* receives shared by the connections of a poll group and device */
	bool no_srq;		/* receives for each connection */
};

/* Makes a transport known, before any is created; "TCP" is then found by name, in any case.  0 or -EEXIST. */
int nvmf_target_register_transport(struct nvmf_target *target, const struct nvmf_transport_ops *ops);
/* The defaults of a transport by name; -ENOENT: no such. */
int nvmf_transport_default_opts(struct nvmf_target *target, const char *trtype,
				struct nvmf_transport_opts *ret_opts);
/* Can it be created so here?  0, or -errno with a sentence that names the remedy; -ENOENT: no such. */
int nvmf_transport_check(struct nvmf_target *target, const char *trtype, const struct nvmf_transport_opts *opts, char *ret_why,
			 size_t size);
/* 0, -ENOENT (no such transport), -EEXIST, -EINVAL (a limit out of range), -ENOMEM. */
fiber_fn int nvmf_transport_create(struct nvmf_target *target, const char *trtype,
				   const struct nvmf_transport_opts *opts);

struct nvmf_transport_info {
	const char *trtype; /* "TCP" */
	const struct nvmf_transport_opts *opts;
};

/* The idx-th created transport; -ENOENT past the last. */
int nvmf_transport_info(struct nvmf_target *target, unsigned idx, struct nvmf_transport_info *ret_info);

/* --- statistics ---------------------------------------------------------------------------- */

#define NVMF_DEVICE_COUNTERS 16

/* What a transport counts for a device, by name. */
struct nvmf_device_stats {
	char name[64];
	unsigned nr;
	struct {
		const char *key;
		uint64_t value;
	} counters[NVMF_DEVICE_COUNTERS];
};

struct nvmf_transport_stats {
	const char *trtype;
	uint64_t nr_buffer_waits; /* commands that had to wait for pool buffers, ever */
	unsigned nr_devices;
	struct nvmf_device_stats *devices;
};

/* Of one poll group. */
struct nvmf_group_stats {
	char name[32];
	uint64_t nr_admin_qpairs, nr_io_qpairs; /* ever */
	unsigned nr_current_admin_qpairs, nr_current_io_qpairs;
	uint64_t nr_pending_bdev_io; /* commands at a bdev now */
	uint64_t nr_completed;	     /* I/O commands, ever */
	unsigned nr_transports;
	struct nvmf_transport_stats transports[4];
};

/* Collected over the groups' threads; to be freed with nvmf_stats_free().  0 or -ENOMEM. */
fiber_fn int nvmf_get_stats(struct nvmf_target *target, struct nvmf_group_stats **ret_stats, unsigned *ret_nr);
void nvmf_stats_free(struct nvmf_group_stats *stats, unsigned nr);

/* --- subsystems ---------------------------------------------------------------------------- */

struct nvmf_subsystem_opts {
	const char *nqn;
	const char *serial;	 /* NULL: 20 characters derived from the NQN, the same each time */
	const char *model;	 /* NULL: the target's */
	uint32_t max_namespaces; /* 0: 1024; up to 65535 */
	bool allow_any_host;
	uint16_t min_cntlid; /* 0: 1 */
	uint16_t max_cntlid; /* 0: FFEFh */
	uint32_t dmrsl;	     /* most blocks in one range of Dataset Management; 0: no limit */
	uint8_t wzsl;	     /* log2 of the most 4 KiB units in one Write Zeroes; 0: no limit */
};

/* Is it an NQN: "nqn.yyyy-mm.reverse.domain:anything", or "nqn.2014-08.org.nvmexpress:uuid:…", at most 223
 * bytes of UTF-8? */
bool nvmf_nqn_is_valid(const char *nqn);

/* 0, -EINVAL (NQN, serial, model or numbers), -EEXIST, -ENOMEM. */
fiber_fn int nvmf_subsystem_create(struct nvmf_target *target, const struct nvmf_subsystem_opts *opts,
				   struct nvmf_subsystem **ret_subsystem);
/* Ends its associations, waits for what is in flight, frees it.  -EBUSY: being deleted already; -EPERM:
 * discovery. */
fiber_fn int nvmf_subsystem_delete(struct nvmf_subsystem *subsystem);

struct nvmf_subsystem *nvmf_subsystem_find(struct nvmf_target *target, const char *nqn); /* NULL: none */
/* In order of creation; the discovery subsystem is always first. */
struct nvmf_subsystem *nvmf_subsystem_first(struct nvmf_target *target);
struct nvmf_subsystem *nvmf_subsystem_next(struct nvmf_subsystem *subsystem);

struct nvmf_subsystem_info {
	const char *nqn, *serial, *model;
	bool discovery;
	bool allow_any_host;
	uint32_t max_namespaces;
	uint16_t min_cntlid, max_cntlid;
	uint32_t dmrsl;
	uint8_t wzsl;
	unsigned nr_hosts, nr_listeners, nr_namespaces, nr_ctrlrs;
};

void nvmf_subsystem_info(struct nvmf_subsystem *subsystem, struct nvmf_subsystem_info *ret_info);

/* --- namespaces ---------------------------------------------------------------------------- */

struct nvmf_ns_opts {
	const char *bdev_name; /* name, alias or UUID */
	uuid_t bdev_uuid;      /* not null: a bdev of that name with another UUID is not the one */
	uint32_t nsid;	       /* 0: the lowest free */
	uuid_t uuid;	       /* null: the bdev's, or one derived from NQN and NSID when that has none */
	uint8_t nguid[16];     /* zero: the UUID's bytes */
	uint8_t eui64[8];      /* zero: none */
	uint32_t anagrpid;     /* 0: 1 */
	bool wait_for_bdev;    /* no such bdev yet is no error: the namespace appears with it (for saved
				  configurations) */
};

/* 0, -ENODEV (no such bdev), -ESTALE (it has another UUID), -EEXIST (NSID in use, or UUID/NGUID/EUI64 used by another), -EINVAL (NSID out of
 * range, block size), -EBUSY (bdev claimed by another, or subsystem being deleted), -ENOSPC (no NSID free),
 * -ENOMEM. */
fiber_fn int nvmf_subsystem_add_ns(struct nvmf_subsystem *subsystem, const struct nvmf_ns_opts *opts,
				   uint32_t *ret_nsid);
/* Waits for its I/O in flight; no command starts on it any more.  0, -ENOENT. */
fiber_fn int nvmf_subsystem_remove_ns(struct nvmf_subsystem *subsystem, uint32_t nsid);

struct nvmf_ns_info {
	uint32_t nsid;
	const char *bdev_name; /* the bdev's own name when it is there, else as given */
	bool present;	       /* false: waits for its bdev */
	uuid_t uuid;	       /* null while it waits and none was given */
	uint8_t nguid[16], eui64[8];
	bool uuid_given, nguid_given, eui64_given;
	uint32_t anagrpid;
};

/* The namespace with the lowest NSID above @after; -ENOENT past the last. */
int nvmf_subsystem_next_ns(struct nvmf_subsystem *subsystem, uint32_t after, struct nvmf_ns_info *ret_info);

/* --- hosts --------------------------------------------------------------------------------- */

/* 0, -EEXIST, -EINVAL (not an NQN), -ENOMEM. */
fiber_fn int nvmf_subsystem_add_host(struct nvmf_subsystem *subsystem, const char *host_nqn);
/* Ends the host's associations unless any host is allowed.  0, -ENOENT. */
fiber_fn int nvmf_subsystem_remove_host(struct nvmf_subsystem *subsystem, const char *host_nqn);
/* Taking it back ends the associations of hosts that are not listed. */
fiber_fn int nvmf_subsystem_allow_any_host(struct nvmf_subsystem *subsystem, bool allow);
const char *nvmf_subsystem_host(struct nvmf_subsystem *subsystem, unsigned idx); /* NULL past the last */

/* --- listeners ----------------------------------------------------------------------------- */

struct nvmf_listener_info {
	const char *trtype; /* "TCP" */
	struct stream_addr addr;
};

/* Also opens discovery on the address with its first listener.  0, -ENOENT (transport not created), -EEXIST,
 * -EINVAL, and what listening gives: -EADDRINUSE, -EADDRNOTAVAIL, -EACCES… */
fiber_fn int nvmf_subsystem_add_listener(struct nvmf_subsystem *subsystem, const char *trtype,
					 const struct stream_addr *addr);
/* Ends the subsystem's associations that came in by it.  0, -ENOENT. */
fiber_fn int nvmf_subsystem_remove_listener(struct nvmf_subsystem *subsystem, const char *trtype,
					    const struct stream_addr *addr);
/* The idx-th; -ENOENT past the last. */
int nvmf_subsystem_listener(struct nvmf_subsystem *subsystem, unsigned idx,
			    struct nvmf_listener_info *ret_info);

/* --- controllers and queues ---------------------------------------------------------------- */

struct nvmf_ctrlr_info {
	uint16_t cntlid;
	char host_nqn[NVMF_NQN_SIZE];
	uint8_t host_id[16];
	uint32_t kato_ms;
	unsigned nr_queues; /* with the admin queue, as SPDK counts num_io_qpairs */
};

struct nvmf_qpair_info {
	uint16_t cntlid, qid;
	const char *state; /* "active", "connecting", "deactivating" */
	char thread[32];
	char host_nqn[NVMF_NQN_SIZE];
	const char *trtype;
	struct stream_addr local_addr, peer_addr;
	bool header_digest, data_digest;
	uint16_t sq_size;
	uint32_t nr_outstanding;
};

/* Arrays to be freed with free(); collected over the groups' threads.  0 or -ENOMEM. */
fiber_fn int nvmf_subsystem_get_ctrlrs(struct nvmf_subsystem *subsystem, struct nvmf_ctrlr_info **ret_infos,
				       unsigned *ret_nr);
fiber_fn int nvmf_subsystem_get_qpairs(struct nvmf_subsystem *subsystem, struct nvmf_qpair_info **ret_infos,
				       unsigned *ret_nr);

#endif
