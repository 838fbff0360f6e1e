/* What the files of bdev/ share: the core's side of a bdev, its channels, range locks and emulation. */
#ifndef BDEV_INTERNAL_H
#define BDEV_INTERNAL_H

#include <pthread.h>

#include "bdev/bdev.h"
#include "bdev/histogram.h"

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define OP_BIT(op) (1u << (op))
#define OPS_DATA   (OP_BIT(BDEV_READ) | OP_BIT(BDEV_WRITE) | OP_BIT(BDEV_COMPARE) | OP_BIT(BDEV_COMPARE_AND_WRITE))
#define OPS_CHANGE                                                                                              \
	(OP_BIT(BDEV_WRITE) | OP_BIT(BDEV_UNMAP) | OP_BIT(BDEV_WRITE_ZEROES) | OP_BIT(BDEV_COMPARE_AND_WRITE) | \
	 OP_BIT(BDEV_COPY))
/* What a range lock holds back and waits for; compare-and-writes hold each other back through their locks. */
#define OPS_LOCKED (OPS_CHANGE & ~OP_BIT(BDEV_COMPARE_AND_WRITE))

/* The core's bits of bdev_io.flags; clear before submission and after completion. */
#define IO_CHILD    0x80u /* submitted by the core itself on behalf of another */
#define IO_BLOCKED  0x40u /* waits for a range lock; changes under core->mutex */
#define IO_QUEUED   0x20u /* waits for an emulation context of its channel */
#define IO_EMULATED 0x10u /* the core carries it out; the device does not know it */
#define IO_IDLE	    0x08u /* ends without having reached the device: no range lock counts it */
#define IO_CORE	    0xf8u

/* A name in the registry's hash table.  Owner: app thread. */
struct bdev_name {
	struct list link; /* empty: not in the table */
	uint32_t hash;
	const char *text;
	struct bdev *bdev;
};

/*
 * The core's side of a registered bdev.  Owner: app thread, but for what stands under mutex.  Life: bdev_register() to the
 * message that tells the unregisterer.
 */
struct bdev_core {
	struct bdev *bdev;
	uint32_t nr_locks;  /* range locks held; written under mutex, read by every write */
	uint32_t supported; /* by the device or by emulation */
	struct list link;   /* registry */
	struct bdev_name name, alias, uuid;
	char uuid_text[UUID_STR_LEN];
	struct list descs;
	struct bdev_desc *claim; /* the only writer; NULL: none */
	unsigned nr_still;	 /* openers who claim that nobody writes; then there is no writer */
	char claimer[64];
	struct device_ops device_ops;
	bool removed;	    /* no longer found or opened */
	bool unregistering; /* all openers were told */
	bool destroying;
	void (*done)(void *arg, int status);
	void *done_arg;

	pthread_mutex_t mutex;
	/* under mutex */
	struct list channels; /* bdev_channel.core_link */
	struct list locks, lock_queue; /* range_lock.link: held; waiting, in order */
	struct bdev_stats gone;	       /* of channels that are no more */
	struct bdev_histogram *gone_hist[BDEV_NR_OPS];
};

/* Per thread and bdev.  Owner: its thread; core_link under core->mutex; statistics are read by others without a lock. */
struct bdev_channel {
	struct bdev *bdev;
	struct bdev_core *core;
	void (*submit)(struct bdev_io *io, void *channel_ctx);
	void *leaf_ctx;
	struct thread *thread;
	uint32_t native;
	uint32_t block_size;
	struct list in_flight;	/* bdev_io.link */
	struct list drains;	/* drain.link: range locks that wait for writes of this channel */
	struct fifo deferred;	/* bdev_io.leaf_link: to complete in deferred_task */
	struct task deferred_task;
	bool deferred_running;
	struct bdev_op_stats stats[BDEV_NR_OPS];
	struct bdev_histogram *hist[BDEV_NR_OPS]; /* made at the first operation of its kind */
	uint64_t nr_submitted, nr_completed;
	struct list core_link;
	struct list emul_free;	/* emul.link */
	struct list emul_queue; /* bdev_io.link */
	unsigned nr_emuls;
};

static inline bool ranges_overlap(uint64_t a, uint64_t nr_a, uint64_t b, uint64_t nr_b)
{
	return a < b ? b - a < nr_a : a - b < nr_b;
}

/* channel.c */
int bdev_channel_init(void *device, void *ctx);
void bdev_channel_fini(void *device, void *ctx);
size_t bdev_channel_size(const struct bdev *bdev);
void bdev_channel_account(struct bdev_channel *ch, const struct bdev_io *io, int status);

/* submit.c */
void bdev_submit_dispatch(struct bdev_channel *ch, struct bdev_io *io);

/* range_lock.c */
#define DRAINS_INLINE 8

struct range_lock;

/* One thread's part in getting a range lock.  Owner: that thread, from the message until its writes are done. */
struct drain {
	struct list link; /* bdev_channel.drains */
	struct range_lock *lock;
	uint32_t nr_writes;
};

/* Owner: the channel that takes it; embedded in what takes it. */
struct range_lock {
	struct list link;
	struct bdev_channel *channel;
	uint64_t offset_blocks, nr_blocks;
	struct list waiters; /* bdev_io.link: writes held back; under core->mutex */
	uint32_t nr_pending; /* atomic: threads still draining, and the one that grants */
	int status;
	void (*acquired)(struct range_lock *lock, int status); /* by message, on the channel's thread */
	struct drain *drains, few[DRAINS_INLINE];
};

void range_lock_get(struct range_lock *lock);
void range_lock_put(struct range_lock *lock);
bool range_lock_holds_back(struct bdev_channel *ch, struct bdev_io *io);
void range_lock_write_done(struct bdev_channel *ch, const struct bdev_io *io);
bool range_lock_abort(struct bdev_channel *ch, struct bdev_io *io);

/* emulate.c */
#define OPS_EMULATED                                                                                              \
	(OP_BIT(BDEV_COMPARE) | OP_BIT(BDEV_COMPARE_AND_WRITE) | OP_BIT(BDEV_WRITE_ZEROES) | OP_BIT(BDEV_VERIFY) | \
	 OP_BIT(BDEV_COPY))
uint32_t emulate_supported(uint32_t native);
int emulate_prepare(void); /* app thread, before the first operation */
void emulate_start(struct bdev_channel *ch, struct bdev_io *io);
bool emulate_abort(struct bdev_channel *ch, struct bdev_io *io);
void emulate_free(struct bdev_channel *ch);

#endif
