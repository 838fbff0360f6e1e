/*
 * The block-device interface: what every store, volume, file and drive looks like to those above it.
 *
 * Registry, opening, closing and claims belong to the app thread.  I/O goes through a channel of the calling thread, on a
 * struct bdev_io that the caller owns and embeds in its own request; nothing is allocated for it.
 */
#ifndef BDEV_BDEV_H
#define BDEV_BDEV_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include <uuid/uuid.h>

#include "runtime/runtime.h"

struct bdev;
struct bdev_desc;
struct bdev_channel;
struct bdev_io;
struct bdev_histogram;

enum bdev_op {
	BDEV_READ,
	BDEV_WRITE,
	BDEV_FLUSH,
	BDEV_UNMAP,	       /* afterwards the range reads zero or what it held; see bdev.unmap_zeroes */
	BDEV_WRITE_ZEROES,     /* afterwards the range reads zero */
	BDEV_COMPARE,	       /* -EILSEQ when the range differs from the buffer */
	BDEV_COMPARE_AND_WRITE, /* atomic against every other write to the range, on any thread */
	BDEV_VERIFY,	       /* the range can be read from the medium; its data goes nowhere */
	BDEV_COPY,	       /* from from_blocks on to the range; the two must not overlap (-EINVAL) */
	BDEV_NR_OPS
};

#define BDEV_IO_FUA   0x1u /* what changes blocks: durable when completed; READ: from the medium */
#define BDEV_IO_UNMAP_OK 0x2u /* WRITE_ZEROES: may deallocate (NVMe's DEAC) */

#define BDEV_IO_SCRATCH 96

/*
 * One operation.  Owner: the submitter, from bdev_submit() until done runs the device's.  done runs on the submitting
 * thread, never before bdev_submit() has returned; status is 0 or:
 *   -EILSEQ  compare found a difference        -ENOSPC  no space: Capacity Exceeded
 *   -ERANGE  outside of the device             -EROFS   the device cannot be written
 *   -EIO     the medium failed                 -ENODEV  removed
 *   -ENOTSUP the device has no such operation  -ECANCELED aborted before it started
 */
struct bdev_io {
	/* the submitter's; iov and what it points to must stay until done */
	void (*done)(struct bdev_io *io, int status);
	const struct iovec *iov;
	union {
		const struct iovec *compare_iov; /* COMPARE_AND_WRITE: what must be there; iov is what is written */
		uint64_t from_blocks;		 /* COPY: where its data is */
	};
	uint32_t iovcnt, compare_iovcnt;
	uint64_t offset_blocks, nr_blocks;
	uint8_t op;
	uint8_t flags;
	/* the bdev core's */
	bool in_flight;
	struct bdev_channel *channel;
	uint64_t start_ticks;
	struct list link;
	/* the device's, while it has the operation */
	struct fifo_link leaf_link;
	union {
		char bytes[BDEV_IO_SCRATCH];
		uint64_t align;
	} scratch;
};

enum bdev_event { BDEV_EVENT_REMOVE, BDEV_EVENT_RESIZE };

/* On the app thread.  After BDEV_EVENT_REMOVE the opener must put its channels and close. */
typedef void (*bdev_event_fn)(struct bdev *bdev, enum bdev_event event, void *arg);

/* Return: 0, -ENODEV, -EBUSY (claimed by another for writing), -ENOMEM.  Thread: app. */
int bdev_open(const char *name, bool write, bdev_event_fn event, void *arg, struct bdev_desc **ret_desc);
int bdev_open_bdev(struct bdev *bdev, bool write, bdev_event_fn event, void *arg, struct bdev_desc **ret_desc);
void bdev_close(struct bdev_desc *desc);
struct bdev *bdev_desc_bdev(struct bdev_desc *desc);

enum bdev_claim {
	BDEV_CLAIM_NONE,
	BDEV_CLAIM_WRITER, /* one alone may write: a store on the device */
	BDEV_CLAIM_STILL,  /* nobody may write, so that what is read stays as it is: volumes cloned from the device */
};

/* Makes this the only opener that may write.  -EBUSY when another has it claimed or open for writing.  Closing releases it.
 * Thread: app. */
int bdev_claim(struct bdev_desc *desc, const char *claimer);
/* Keeps everybody from opening it for writing; any number may.  -EBUSY when one has it claimed for itself, or open for writing
 * (this one too).  Closing releases it.  Thread: app. */
int bdev_claim_still(struct bdev_desc *desc, const char *claimer);

/* Any thread; one channel a thread.  Put it on the thread that got it. */
struct bdev_channel *bdev_channel_get(struct bdev_desc *desc);
void bdev_channel_put(struct bdev_channel *channel);

struct bdev *bdev_channel_bdev(const struct bdev_channel *channel);

/* Submits; errors come through done like everything else.  The vectors' lengths add up to exactly nr_blocks blocks, or it is
 * -EINVAL; no blocks at all is a success that does nothing; a flush has no range.  io->flags is set before each submission. */
void bdev_submit(struct bdev_channel *channel, struct bdev_io *io);
/* Asks that an operation not yet started complete with -ECANCELED; one that has started completes as it will. */
void bdev_abort(struct bdev_channel *channel, struct bdev_io *io);

/* Fibers' way: submits and waits.  buf is one buffer of nr_blocks blocks. */
fiber_fn int bdev_read(struct bdev_channel *ch, void *buf, uint64_t offset_blocks, uint64_t nr_blocks);
fiber_fn int bdev_write(struct bdev_channel *ch, const void *buf, uint64_t offset_blocks, uint64_t nr_blocks, unsigned flags);
fiber_fn int bdev_flush(struct bdev_channel *ch);
fiber_fn int bdev_unmap(struct bdev_channel *ch, uint64_t offset_blocks, uint64_t nr_blocks);
fiber_fn int bdev_submit_wait(struct bdev_channel *ch, struct bdev_io *io); /* sets done itself */

/* --- for devices ------------------------------------------------------------------------------------------------ */

struct bdev_ops {
	/* On the channel's thread.  Completes with bdev_io_complete(), never before it has returned (see task_run_later). */
	void (*submit)(struct bdev_io *io, void *channel_ctx);
	void (*abort)(struct bdev_io *io, void *channel_ctx); /* may be NULL */
	/* Frees what the device is, after the last close; calls bdev_destroy_done().  App thread. */
	void (*destroy)(struct bdev *bdev);
	int (*channel_create)(struct bdev *bdev, void *channel_ctx);
	void (*channel_destroy)(struct bdev *bdev, void *channel_ctx);
	int (*temperature_k)(struct bdev *bdev); /* kelvin; 0 or no function: not reported */
	uint64_t (*allocated_blocks)(struct bdev *bdev); /* thin ones: those with storage behind them; app thread; may be NULL */
	/* 1 << enum bdev_op for each it does itself.  The core adds compare, verify, compare-and-write (always the core's, so
	 * that it is atomic), copy and write zeroes to whoever reads and writes, and flush to whoever has no cache. */
	uint32_t supported;
	size_t channel_ctx_size;
};

#define BDEV_NAME_MAX 256

/* Embedded in the device's own struct.  Owner: app thread; what the hot path reads is constant while registered, but for
 * nr_blocks, which is read atomically and changes through bdev_notify_resize(). */
struct bdev {
	char name[BDEV_NAME_MAX];
	char alias[BDEV_NAME_MAX]; /* empty: none; "store/volume" */
	const char *product_name;  /* SPDK's: "Malloc disk", "Null disk", "AIO disk", "Logical Volume" */
	uuid_t uuid;		   /* stable across restarts when the device has one of its own */
	uint32_t block_size;	   /* bytes; 512 or 4096 */
	uint64_t nr_blocks;
	uint32_t write_unit_blocks;	/* atomic at power failure: at least 1 */
	uint32_t optimal_blocks;	/* preferred write granularity; 0: none */
	uint32_t unmap_granularity_blocks; /* preferred; 0: none */
	bool has_write_cache;	   /* exactly when a completed write may be lost by a power cut before a flush */
	bool unmap_zeroes;	   /* unmapped blocks read zero */
	bool read_only;
	/* Changes whenever a completed write may have been lost, flushed or not, without the machine having stopped; equal
	 * in two processes, one after the other, if none was.  0: no such promise, as for what goes with its process. */
	uint64_t continuity;
	bool thin;		   /* fewer blocks may be had than promised */
	const struct bdev_ops *ops;
	const char *module;	   /* "malloc", "null", "uring", "lvol", … */
	void *module_ctx;
	/* the core's */
	struct bdev_core *core;
};

/* Registers and examines.  -EEXIST when name or alias is taken.  Thread: app. */
int bdev_register(struct bdev *bdev);
/* Tells openers, refuses new ones, and once all have closed calls ops->destroy, then done(arg).  Thread: app. */
void bdev_unregister(struct bdev *bdev, void (*done)(void *arg, int status), void *arg);
fiber_fn int bdev_unregister_wait(struct bdev *bdev);
/* Called by ops->destroy before it frees the bdev. */
void bdev_destroy_done(struct bdev *bdev);
int bdev_rename_alias(struct bdev *bdev, const char *alias); /* -EEXIST */
void bdev_notify_resize(struct bdev *bdev, uint64_t nr_blocks);
void bdev_io_complete(struct bdev_io *io, int status); /* on the submitting thread */
/* The same in a later task, all of a channel's in one: for devices that know the result within submit.  Uses the scratch. */
void bdev_io_complete_later(struct bdev_io *io, int status);
/* From submit or later: has the core carry out by reads and writes what it adds to devices, for one that cannot after all. */
void bdev_emulate(struct bdev_io *io);
/* Whether len_bytes of the vector from skip_bytes on equal buf. */
bool bdev_iov_equals(const struct iovec *iov, uint32_t iovcnt, uint64_t skip_bytes, const void *buf, uint64_t len_bytes);

/* --- registry ---------------------------------------------------------------------------------------------------- */

/* By name, alias or UUID in text; NULL: none.  Valid until the fiber suspends.  Thread: app. */
struct bdev *bdev_find(const char *name);
struct bdev *bdev_first(void);
struct bdev *bdev_next(struct bdev *bdev);
/* Whether bdev_unregister() was called; it must not be called again. */
bool bdev_is_removed(const struct bdev *bdev);
/* Whether anybody has it open. */
bool bdev_is_open(const struct bdev *bdev);
/* Unregisters everything, those registered last first, and waits.  Openers must close when told. */
fiber_fn void bdev_unregister_all(void);
bool bdev_is_claimed(const struct bdev *bdev, const char **ret_claimer);
enum bdev_claim bdev_claim_of(const struct bdev *bdev);
/* fn hears, in a later message, that the last who could write a bdev has closed it: it may be claimed now.  App thread. */
void bdev_on_writers_gone(void (*fn)(void *arg), void *arg);
/* fn hears, in a later message, that a bdev is gone or has another alias: a name may be taken now.  App thread. */
void bdev_on_name_free(void (*fn)(void *arg), void *arg);
bool bdev_supports(const struct bdev *bdev, enum bdev_op op);
uint64_t bdev_nr_blocks(const struct bdev *bdev); /* any thread */

/*
 * Examine: a module that lives on other devices (lvol) looks at each new one in a fiber on the app thread.
 */
struct bdev_examiner {
	const char *name;
	fiber_fn void (*examine)(const char *bdev_name);
	struct list link;
};

void bdev_examiner_register(struct bdev_examiner *examiner);
/* Suspends until every examine under way is over. */
fiber_fn void bdev_wait_for_examine(void);
/* Called for every registered bdev, now and later (namespaces whose device comes late).  App thread. */
void bdev_on_register(void (*fn)(struct bdev *bdev, void *arg), void *arg);

/* --- statistics -------------------------------------------------------------------------------------------------- */

struct bdev_op_stats {
	uint64_t nr_ops, nr_bytes, nr_errors;
	uint64_t latency_ticks, min_latency_ticks, max_latency_ticks; /* min without nr_ops, or UINT64_MAX: none */
};

struct bdev_stats {
	struct bdev_op_stats op[BDEV_NR_OPS];
	uint64_t nr_in_flight;
};

/* Sums the channels of all threads and those gone.  Does not suspend. */
void bdev_get_stats(struct bdev *bdev, struct bdev_stats *ret_stats);
/* Latencies in ticks; see bdev/histogram.h.  Does not suspend. */
void bdev_get_histogram(struct bdev *bdev, enum bdev_op op, struct bdev_histogram *ret_histogram);

struct bdev_channel_stats {
	uint64_t thread_id;
	struct bdev_stats stats;
};

/* The same of each channel by itself.  0 or -ENOMEM; free *ret_channels. */
int bdev_get_channel_stats(struct bdev *bdev, struct bdev_channel_stats **ret_channels, unsigned *ret_nr);

enum bdev_stats_reset {
	BDEV_RESET_ALL,
	BDEV_RESET_EXTREMES, /* the smallest and the largest latency alone */
};

fiber_fn void bdev_reset_stats(struct bdev *bdev, enum bdev_stats_reset what);

/* --- leaves -------------------------------------------------------------------------------------------------------- */

/* App thread.  0 or: -EEXIST name taken, -EINVAL sizes, -ENOMEM, and for files what open() gives. */
int bdev_malloc_create(const char *name, const uuid_t uuid, uint64_t nr_blocks, uint32_t block_size, struct bdev **ret_bdev);
int bdev_null_create(const char *name, const uuid_t uuid, uint64_t nr_blocks, uint32_t block_size, struct bdev **ret_bdev);

struct bdev_uring_opts {
	const char *name, *filename;
	uuid_t uuid;	     /* null: one made from the file's identity */
	uint32_t block_size; /* 0: the device's logical block size, 512 for a file */
	bool read_only;
	bool allow_punch;    /* hand unmap to the file system or device */
	const char *product_name; /* NULL: "URING bdev" */
};

/* In a fiber: opening may take time.  -EBUSY: another bdev or daemon has the file open for writing. */
fiber_fn int bdev_uring_create(const struct bdev_uring_opts *opts, struct bdev **ret_bdev);
/* Takes the size that the file or device has now; openers are told.  -EBUSY: it has shrunk, and is open.  App thread. */
int bdev_uring_rescan(struct bdev *bdev);
const char *bdev_uring_filename(const struct bdev *bdev); /* of a bdev whose module is "uring" */
uint64_t bdev_uring_nr_flushes(const struct bdev *bdev);  /* fdatasyncs so far */
uint64_t bdev_uring_nr_dsyncs(const struct bdev *bdev);	 /* writes that carried their own flush */

#endif
