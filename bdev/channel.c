/*
 * Channels: a thread's way to a bdev, with its statistics.  Each channel's counters are written by its thread alone and
 * read by others without a lock; channels that go leave theirs to the core.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/internal.h"

#define LEAF_CTX_ALIGN 64u

static size_t leaf_ctx_offset(void)
{
	return (sizeof(struct bdev_channel) + LEAF_CTX_ALIGN - 1) & ~(size_t)(LEAF_CTX_ALIGN - 1);
}

size_t bdev_channel_size(const struct bdev *bdev)
{
	return leaf_ctx_offset() + bdev->ops->channel_ctx_size;
}

static void deferred_run(void *arg)
{
	struct bdev_channel *ch = arg;
	struct fifo_link *e = ch->deferred.head, *next;

	/* What completions submit waits for the next turn. */
	fifo_init(&ch->deferred);
	ch->deferred_running = false;
	for (; e; e = next) {
		struct bdev_io *io = container_of(e, struct bdev_io, leaf_link);
		int status;

		next = e->next;
		if (next)
			__builtin_prefetch(container_of(next, struct bdev_io, leaf_link));
		memcpy(&status, io->scratch.bytes, sizeof(status));
		bdev_io_complete(io, status);
	}
}

void bdev_io_complete_later(struct bdev_io *io, int status)
{
	struct bdev_channel *ch = io->channel;

	memcpy(io->scratch.bytes, &status, sizeof(status));
	fifo_push(&ch->deferred, &io->leaf_link);
	if (!ch->deferred_running) {
		ch->deferred_running = true;
		task_run_later(&ch->deferred_task, deferred_run, ch);
	}
}

int bdev_channel_init(void *device, void *ctx)
{
	struct bdev_core *core = device;
	struct bdev *bdev = core->bdev;
	struct bdev_channel *ch = ctx;
	int rc;

	memset(ch, 0, sizeof(*ch));
	ch->bdev = bdev;
	ch->core = core;
	ch->submit = bdev->ops->submit;
	ch->leaf_ctx = (char *)ctx + leaf_ctx_offset();
	ch->thread = thread_current();
	ch->native = bdev->ops->supported;
	ch->block_size = bdev->block_size;
	list_init(&ch->in_flight);
	list_init(&ch->drains);
	fifo_init(&ch->deferred);
	list_init(&ch->emul_free);
	list_init(&ch->emul_queue);
	memset(ch->leaf_ctx, 0, bdev->ops->channel_ctx_size);
	if (bdev->ops->channel_create) {
		rc = bdev->ops->channel_create(bdev, ch->leaf_ctx);
		if (rc)
			return rc;
	}
	pthread_mutex_lock(&core->mutex);
	list_add_tail(&core->channels, &ch->core_link);
	pthread_mutex_unlock(&core->mutex);
	return 0;
}

static void op_stats_add(struct bdev_op_stats *to, const struct bdev_op_stats *from)
{
	uint64_t min = __atomic_load_n(&from->min_latency_ticks, __ATOMIC_RELAXED);
	uint64_t max = __atomic_load_n(&from->max_latency_ticks, __ATOMIC_RELAXED);

	if (!__atomic_load_n(&from->nr_ops, __ATOMIC_RELAXED))
		return;
	if (!to->nr_ops || min < to->min_latency_ticks)
		to->min_latency_ticks = min;
	if (max > to->max_latency_ticks)
		to->max_latency_ticks = max;
	to->nr_ops += __atomic_load_n(&from->nr_ops, __ATOMIC_RELAXED);
	to->nr_bytes += __atomic_load_n(&from->nr_bytes, __ATOMIC_RELAXED);
	to->nr_errors += __atomic_load_n(&from->nr_errors, __ATOMIC_RELAXED);
	to->latency_ticks += __atomic_load_n(&from->latency_ticks, __ATOMIC_RELAXED);
}

void bdev_channel_fini(void *device, void *ctx)
{
	struct bdev_core *core = device;
	struct bdev_channel *ch = ctx;

	assert(list_empty(&ch->in_flight));
	pthread_mutex_lock(&core->mutex);
	list_del(&ch->core_link);
	for (int op = 0; op < BDEV_NR_OPS; op++) {
		op_stats_add(&core->gone.op[op], &ch->stats[op]);
		if (!core->gone_hist[op])
			core->gone_hist[op] = ch->hist[op];
		else if (ch->hist[op]) {
			histogram_sum(core->gone_hist[op], ch->hist[op]);
			free(ch->hist[op]);
		}
	}
	pthread_mutex_unlock(&core->mutex);
	if (core->bdev->ops->channel_destroy)
		core->bdev->ops->channel_destroy(core->bdev, ch->leaf_ctx);
	emulate_free(ch);
}

static inline void count(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static void __attribute__((noinline)) account_first(struct bdev_channel *ch, unsigned op)
{
	__atomic_store_n(&ch->hist[op], calloc(1, sizeof(*ch->hist[op])), __ATOMIC_RELEASE);
}

void bdev_channel_account(struct bdev_channel *ch, const struct bdev_io *io, int status)
{
	struct bdev_op_stats *s = &ch->stats[io->op];
	uint64_t ticks = clock_ticks() - io->start_ticks;

	if (unlikely(!ch->hist[io->op]))
		account_first(ch, io->op);
	if (likely(ch->hist[io->op]))
		histogram_add(ch->hist[io->op], ticks);
	if (unlikely(ticks < s->min_latency_ticks || !s->nr_ops))
		__atomic_store_n(&s->min_latency_ticks, ticks, __ATOMIC_RELAXED);
	if (unlikely(ticks > s->max_latency_ticks))
		__atomic_store_n(&s->max_latency_ticks, ticks, __ATOMIC_RELAXED);
	count(&s->latency_ticks, ticks);
	count(&s->nr_ops, 1);
	if (likely(!status))
		count(&s->nr_bytes, io->op == BDEV_FLUSH ? 0 : io->nr_blocks * ch->block_size);
	else
		count(&s->nr_errors, 1);
}

struct bdev_channel *bdev_channel_get(struct bdev_desc *desc)
{
	struct channel *channel = channel_get(bdev_desc_bdev(desc)->core);

	return channel ? channel_ctx(channel) : NULL;
}

void bdev_channel_put(struct bdev_channel *ch)
{
	assert(ch->thread == thread_current());
	channel_put(channel_from_ctx(ch));
}

struct bdev *bdev_channel_bdev(const struct bdev_channel *ch)
{
	return ch->bdev;
}

static void stats_add(struct bdev_stats *to, const struct bdev_channel *ch)
{
	for (int op = 0; op < BDEV_NR_OPS; op++)
		op_stats_add(&to->op[op], &ch->stats[op]);
	to->nr_in_flight += __atomic_load_n(&ch->nr_submitted, __ATOMIC_RELAXED) -
			    __atomic_load_n(&ch->nr_completed, __ATOMIC_RELAXED);
}

void bdev_get_stats(struct bdev *bdev, struct bdev_stats *ret_stats)
{
	struct bdev_core *core = bdev->core;
	struct list *it;

	pthread_mutex_lock(&core->mutex);
	*ret_stats = core->gone;
	list_for_each(it, &core->channels)
		stats_add(ret_stats, list_entry(it, struct bdev_channel, core_link));
	pthread_mutex_unlock(&core->mutex);
}

int bdev_get_channel_stats(struct bdev *bdev, struct bdev_channel_stats **ret_channels, unsigned *ret_nr)
{
	struct bdev_core *core = bdev->core;
	struct bdev_channel_stats *channels;
	unsigned nr = 0;
	struct list *it;
	int rc = 0;

	pthread_mutex_lock(&core->mutex);
	list_for_each(it, &core->channels)
		nr++;
	channels = calloc(nr + 1, sizeof(*channels));
	if (!channels) {
		rc = -ENOMEM;
		goto out;
	}
	*ret_channels = channels;
	*ret_nr = nr;
	list_for_each(it, &core->channels) {
		const struct bdev_channel *ch = list_entry(it, struct bdev_channel, core_link);

		channels->thread_id = thread_id(ch->thread);
		stats_add(&channels++->stats, ch);
	}
out:
	pthread_mutex_unlock(&core->mutex);
	return rc;
}

void bdev_get_histogram(struct bdev *bdev, enum bdev_op op, struct bdev_histogram *ret_histogram)
{
	struct bdev_core *core = bdev->core;
	struct list *it;

	memset(ret_histogram, 0, sizeof(*ret_histogram));
	pthread_mutex_lock(&core->mutex);
	if (core->gone_hist[op])
		histogram_sum(ret_histogram, core->gone_hist[op]);
	list_for_each(it, &core->channels) {
		const struct bdev_channel *ch = list_entry(it, struct bdev_channel, core_link);
		const struct bdev_histogram *h = __atomic_load_n(&ch->hist[op], __ATOMIC_ACQUIRE);

		if (h)
			histogram_sum(ret_histogram, h);
	}
	pthread_mutex_unlock(&core->mutex);
}

static void reset_extremes(struct bdev_stats *stats)
{
	for (int op = 0; op < BDEV_NR_OPS; op++) {
		stats->op[op].min_latency_ticks = UINT64_MAX;
		stats->op[op].max_latency_ticks = 0;
	}
}

static void reset_one(void *ctx, void *arg)
{
	struct bdev_channel *ch = ctx;

	memset(ch->stats, 0, sizeof(ch->stats));
	for (int op = 0; op < BDEV_NR_OPS; op++) {
		if (ch->hist[op])
			memset(ch->hist[op], 0, sizeof(*ch->hist[op]));
	}
}

static void reset_one_extremes(void *ctx, void *arg)
{
	struct bdev_channel *ch = ctx;

	for (int op = 0; op < BDEV_NR_OPS; op++) {
		__atomic_store_n(&ch->stats[op].min_latency_ticks, UINT64_MAX, __ATOMIC_RELAXED);
		__atomic_store_n(&ch->stats[op].max_latency_ticks, 0, __ATOMIC_RELAXED);
	}
}

static void reset_done(void *arg)
{
	fiber_wake(arg, 0);
}

fiber_fn void bdev_reset_stats(struct bdev *bdev, enum bdev_stats_reset what)
{
	struct bdev_core *core = bdev->core;
	struct fiber_wait wait;

	pthread_mutex_lock(&core->mutex);
	if (what == BDEV_RESET_EXTREMES)
		reset_extremes(&core->gone);
	else
		memset(&core->gone, 0, sizeof(core->gone));
	for (int op = 0; op < BDEV_NR_OPS && what == BDEV_RESET_ALL; op++) {
		free(core->gone_hist[op]);
		core->gone_hist[op] = NULL;
	}
	pthread_mutex_unlock(&core->mutex);
	fiber_wait_init(&wait);
	device_for_each_channel(core, what == BDEV_RESET_EXTREMES ? reset_one_extremes : reset_one, &wait, reset_done);
	fiber_wait(&wait);
}
