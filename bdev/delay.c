/*
 * The delaying device: passes each operation to its base and holds the completion back.  Completions of one latency come due
 * in the order in which they were held, so each latency has a queue of its own, and a channel one timer for the first of all.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/delay.h"
#include "bdev/leaf.h"

/* Owner: app thread, but for latency_us, which channels read. */
struct delay {
	struct bdev bdev;
	struct bdev_desc *base;
	_Atomic uint64_t latency_us[DELAY_NR];
};

/* Owner: its thread. */
struct delay_channel {
	struct delay *d;
	struct bdev_channel *base;
	struct list free;	   /* of struct held */
	struct list due[DELAY_NR]; /* held, by rising due_us while a latency stays as it is */
	struct timer timer;
	uint32_t nr_read, nr_written;
};

/* What the base has, or what is held back after it.  Owner: its channel's thread; kept for reuse. */
struct held {
	struct list link;
	struct bdev_io io;
	struct bdev_io *parent;
	struct delay_channel *ch;
	uint64_t due_us;
	int status;
};

static struct delay *delay_of(const struct bdev *bdev)
{
	return container_of((struct bdev *)(uintptr_t)bdev, struct delay, bdev);
}

static struct held *first_held(struct delay_channel *ch)
{
	struct held *first = NULL;

	for (unsigned i = 0; i < DELAY_NR; i++) {
		struct list *l = list_first(&ch->due[i]);
		struct held *h = l ? list_entry(l, struct held, link) : NULL;

		if (h && (!first || h->due_us < first->due_us))
			first = h;
	}
	return first;
}

static void give_back(struct held *h)
{
	struct bdev_io *parent = h->parent;
	int status = h->status;

	list_add_head(&h->ch->free, &h->link);
	bdev_io_complete(parent, status);
}

static void arm(struct delay_channel *ch, uint64_t now_us)
{
	struct held *first = first_held(ch);

	if (first)
		timer_arm(&ch->timer, first->due_us > now_us ? first->due_us - now_us : 0);
}

static void timer_fired(void *arg)
{
	struct delay_channel *ch = arg;
	uint64_t now_us = clock_now_us();
	struct held *h;

	while ((h = first_held(ch)) && h->due_us <= now_us) {
		list_del(&h->link);
		give_back(h);
	}
	arm(ch, now_us);
}

/* Which latency this operation gets; DELAY_NR: none. */
static enum delay_latency choose(struct delay_channel *ch, const struct bdev_io *io)
{
	if (io->op == BDEV_FLUSH)
		return DELAY_NR;
	if (io->op == BDEV_READ)
		return ++ch->nr_read % 100 ? DELAY_AVG_READ : DELAY_P99_READ;
	return ++ch->nr_written % 100 ? DELAY_AVG_WRITE : DELAY_P99_WRITE;
}

static void base_done(struct bdev_io *io, int status)
{
	struct held *h = container_of(io, struct held, io);
	struct delay_channel *ch = h->ch;
	enum delay_latency which = choose(ch, io);
	uint64_t latency_us = which < DELAY_NR ? atomic_load_explicit(&ch->d->latency_us[which], memory_order_relaxed) : 0;
	bool first;

	h->status = status;
	if (!latency_us || status) {
		give_back(h);
		return;
	}
	h->due_us = clock_now_us() + latency_us;
	first = !timer_armed(&ch->timer) || first_held(ch)->due_us > h->due_us;
	list_add_tail(&ch->due[which], &h->link);
	if (first)
		timer_arm(&ch->timer, latency_us);
}

static void delay_submit(struct bdev_io *io, void *channel_ctx)
{
	struct delay_channel *ch = channel_ctx;
	struct list *l = list_pop(&ch->free);
	struct held *h = l ? list_entry(l, struct held, link) : calloc(1, sizeof(*h));

	if (!h) {
		bdev_io_complete_later(io, -ENOMEM);
		return;
	}
	list_init(&h->link);
	h->parent = io;
	h->ch = ch;
	h->io = (struct bdev_io){ .done = base_done, .iov = io->iov, .iovcnt = io->iovcnt, .offset_blocks = io->offset_blocks,
				  .nr_blocks = io->nr_blocks, .op = io->op,
				  .flags = io->flags & (BDEV_IO_FUA | BDEV_IO_UNMAP_OK) };
	bdev_submit(ch->base, &h->io);
}

static int delay_channel_create(struct bdev *bdev, void *channel_ctx)
{
	struct delay_channel *ch = channel_ctx;

	ch->d = delay_of(bdev);
	list_init(&ch->free);
	for (unsigned i = 0; i < DELAY_NR; i++)
		list_init(&ch->due[i]);
	timer_init(&ch->timer, timer_fired, ch);
	ch->base = bdev_channel_get(ch->d->base);
	return ch->base ? 0 : -ENOMEM;
}

static void delay_channel_destroy(struct bdev *bdev, void *channel_ctx)
{
	struct delay_channel *ch = channel_ctx;
	struct list *l;

	timer_cancel(&ch->timer);
	while ((l = list_pop(&ch->free)))
		free(list_entry(l, struct held, link));
	bdev_channel_put(ch->base);
}

static void delay_destroy(struct bdev *bdev)
{
	struct delay *d = delay_of(bdev);

	bdev_close(d->base);
	bdev_destroy_done(bdev);
	free(d);
}

static int delay_temperature_k(struct bdev *bdev)
{
	struct bdev *base = bdev_desc_bdev(delay_of(bdev)->base);

	return base->ops->temperature_k ? base->ops->temperature_k(base) : 0;
}

#define DELAY_OPS(unmap)                                                                                                  \
	{                                                                                                                 \
		.submit = delay_submit, .destroy = delay_destroy, .channel_create = delay_channel_create,                 \
		.channel_destroy = delay_channel_destroy, .channel_ctx_size = sizeof(struct delay_channel),              \
		.temperature_k = delay_temperature_k,                                                                     \
		.supported = 1u << BDEV_READ | 1u << BDEV_WRITE | 1u << BDEV_FLUSH | 1u << BDEV_WRITE_ZEROES | (unmap),   \
	}

static const struct bdev_ops delay_ops = DELAY_OPS(1u << BDEV_UNMAP), delay_ops_no_unmap = DELAY_OPS(0);

static void base_event(struct bdev *base, enum bdev_event event, void *arg)
{
	struct delay *d = arg;

	if (event == BDEV_EVENT_RESIZE)
		bdev_notify_resize(&d->bdev, base->nr_blocks);
	else if (!bdev_is_removed(&d->bdev))
		bdev_unregister(&d->bdev, NULL, NULL);
}

static bool latencies_fit(const uint64_t us[DELAY_NR])
{
	return us[DELAY_AVG_READ] <= us[DELAY_P99_READ] && us[DELAY_AVG_WRITE] <= us[DELAY_P99_WRITE];
}

int bdev_delay_create(const char *name, const char *base_name, const uint64_t latency_us[DELAY_NR], const uuid_t uuid,
		      struct bdev **ret_bdev)
{
	struct delay *d;
	struct bdev *base;
	int rc = leaf_check(name, 1, 512);

	if (rc || !latencies_fit(latency_us))
		return rc ? rc : -EINVAL;
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	rc = bdev_open(base_name, true, base_event, d, &d->base);
	if (rc)
		goto out_free;
	rc = bdev_claim(d->base, "delay");
	if (rc)
		goto out_close;
	base = bdev_desc_bdev(d->base);
	d->bdev = (struct bdev){ .product_name = "delay", .module = "delay", .block_size = base->block_size,
				 .nr_blocks = base->nr_blocks, .write_unit_blocks = base->write_unit_blocks,
				 .optimal_blocks = base->optimal_blocks, .unmap_zeroes = base->unmap_zeroes,
				 .unmap_granularity_blocks = base->unmap_granularity_blocks,
				 .has_write_cache = base->has_write_cache, .read_only = base->read_only,
				 .continuity = base->continuity, .thin = base->thin,
				 .ops = bdev_supports(base, BDEV_UNMAP) ? &delay_ops : &delay_ops_no_unmap };
	strcpy(d->bdev.name, name);
	uuid_copy(d->bdev.uuid, uuid);
	if (uuid_is_null(uuid)) {
		uuid_copy(d->bdev.uuid, base->uuid);
		d->bdev.uuid[15] ^= 0xd1;
	}
	for (unsigned i = 0; i < DELAY_NR; i++)
		atomic_init(&d->latency_us[i], latency_us[i]);
	rc = bdev_register(&d->bdev);
	if (rc)
		goto out_close;
	if (ret_bdev)
		*ret_bdev = &d->bdev;
	return 0;

out_close:
	bdev_close(d->base);
out_free:
	free(d);
	return rc;
}

int bdev_delay_set(struct bdev *bdev, enum delay_latency which, uint64_t latency_us)
{
	uint64_t us[DELAY_NR];

	bdev_delay_get(bdev, us);
	us[which] = latency_us;
	if (!latencies_fit(us))
		return -EINVAL;
	atomic_store(&delay_of(bdev)->latency_us[which], latency_us);
	return 0;
}

void bdev_delay_get(const struct bdev *bdev, uint64_t ret_latency_us[DELAY_NR])
{
	for (unsigned i = 0; i < DELAY_NR; i++)
		ret_latency_us[i] = atomic_load(&delay_of(bdev)->latency_us[i]);
}

const char *bdev_delay_base(const struct bdev *bdev)
{
	return bdev_desc_bdev(delay_of(bdev)->base)->name;
}
