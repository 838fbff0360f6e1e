/*
 * What each path has carried, by namespace: counted by the channels while the option io_path_stat is on, summed when somebody asks.
 */
#include <string.h>

#include "bdev/nvme_internal.h"

void bdev_nvme_count(struct bdev_nvme_request *rq, bool failed)
{
	const struct bdev_nvme_io *st = (struct bdev_nvme_io *)(void *)rq->io->scratch.bytes;
	struct bdev_op_stats *s = &st->ch->stats[rq->path].op[st->flushing ? BDEV_FLUSH : rq->io->op];
	uint64_t ticks = clock_ticks() - rq->start_ticks;

	if (failed) {
		s->nr_errors++;
		return;
	}
	if (!s->nr_ops || ticks < s->min_latency_ticks)
		s->min_latency_ticks = ticks;
	if (ticks > s->max_latency_ticks)
		s->max_latency_ticks = ticks;
	s->nr_ops++;
	s->nr_bytes += rq->req.cmd.opcode == NVME_IO_DSM ? (uint64_t)rq->range.nlb * rq->ns->bdev.block_size : rq->req.len;
	s->latency_ticks += ticks;
}

static void add(struct bdev_stats *into, const struct bdev_stats *from)
{
	for (unsigned op = 0; op < BDEV_NR_OPS; op++) {
		struct bdev_op_stats *a = &into->op[op];
		const struct bdev_op_stats *b = &from->op[op];

		if (b->nr_ops && (!a->nr_ops || b->min_latency_ticks < a->min_latency_ticks))
			a->min_latency_ticks = b->min_latency_ticks;
		if (b->max_latency_ticks > a->max_latency_ticks)
			a->max_latency_ticks = b->max_latency_ticks;
		a->nr_ops += b->nr_ops;
		a->nr_bytes += b->nr_bytes;
		a->nr_errors += b->nr_errors;
		a->latency_ticks += b->latency_ticks;
	}
}

void bdev_nvme_stats_leave(struct bdev_nvme_ns_channel *ch)
{
	struct bdev_nvme_ns *ns = ch->ns;

	pthread_mutex_lock(&ns->bdev.core->mutex);
	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++)
		add(&ns->left_stats[i], &ch->stats[i]);
	pthread_mutex_unlock(&ns->bdev.core->mutex);
}

/* --- asked for ---------------------------------------------------------------------------------------- */

struct collection {
	struct bdev_stats *sum;
	unsigned path_idx;
	struct fiber_wait wait;
};

/* On the channel's thread; one after the other. */
static void collect(void *ctx, void *arg)
{
	struct collection *c = arg;
	struct bdev_nvme_ns_channel *ch = ((struct bdev_channel *)ctx)->leaf_ctx;

	add(c->sum, &ch->stats[c->path_idx]);
}

static void collected(void *arg)
{
	fiber_wake(&((struct collection *)arg)->wait, 0);
}

fiber_fn void bdev_nvme_path_stats(struct bdev *bdev, unsigned path_idx, struct bdev_stats *ret_stats)
{
	struct bdev_nvme_ns *ns = container_of(bdev, struct bdev_nvme_ns, bdev);
	struct collection c = { .sum = ret_stats, .path_idx = path_idx };

	pthread_mutex_lock(&bdev->core->mutex);
	*ret_stats = ns->left_stats[path_idx];
	pthread_mutex_unlock(&bdev->core->mutex);
	fiber_wait_init(&c.wait);
	device_for_each_channel(bdev->core, collect, &c, collected);
	fiber_wait(&c.wait);
}
