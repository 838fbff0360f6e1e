/*
 * The crash disk as a bdev: operations take a seeded while, fail by a seeded chance, and reach the disk's cache in the order
 * in which they complete.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/crash_disk.h"
#include "bdev/leaf.h"

/* Owner: app thread; in_flight under the disk's mutex. */
struct crash_bdev {
	struct bdev bdev;
	struct crash_disk *disk;
	struct list in_flight; /* crash_flight.link */
};

/* In bdev_io.scratch. */
struct crash_io {
	struct crash_flight flight;
	struct crash_bdev *c;
	uint64_t flush_seq; /* what had reached the cache when the flush was submitted */
	struct timer timer;
};

static_assert(sizeof(struct crash_io) <= BDEV_IO_SCRATCH, "the scratch holds it");

static struct crash_io *crash_io(struct bdev_io *io)
{
	return (struct crash_io *)(void *)io->scratch.bytes;
}

static bool chance(struct crash_disk *disk, unsigned ppm)
{
	return ppm && crash_rand(&disk->rng) % 1000000 < ppm;
}

/* One of the operations that were picked to fail. */
static bool refuses(struct crash_disk *disk)
{
	return disk->fail_nr && ++disk->nr_performed >= disk->fail_nr && disk->nr_performed < disk->fail_end;
}

/* Whether the write was acknowledged, and is elsewhere or nowhere. */
static bool lied(struct crash_disk *disk, const struct bdev_io *io, bool durable)
{
	struct bdev_io strayed = *io;
	enum crash_lie lie = disk->on_write(io, &strayed.offset_blocks, disk->on_write_arg);
	uint64_t tape_io = ((const struct crash_flight *)(const void *)io->scratch.bytes)->tape_io;

	if (lie == CRASH_LOST)
		crash_tape_done(disk, tape_io, false, false, false, 0);
	if (lie == CRASH_MISDIRECTED) {
		crash_tape_strayed(disk, tape_io, durable, strayed.offset_blocks);
		crash_disk_put(disk, &strayed, durable, false);
	}
	return lie != CRASH_HONEST;
}

static int perform(struct crash_bdev *c, struct bdev_io *io)
{
	struct crash_disk *disk = c->disk;
	bool durable = (io->flags & BDEV_IO_FUA) || disk->opts.write_through, fails;
	uint64_t tape_io = crash_io(io)->flight.tape_io, flush_seq = crash_io(io)->flush_seq;

	if (disk->cut)
		return -EIO;
	switch (io->op) {
	case BDEV_READ:
		disk->stats.nr_reads++;
		if (chance(disk, disk->opts.read_error_ppm) || refuses(disk))
			return -EIO;
		leaf_copy_out(io->iov, io->iovcnt, disk->cache + io->offset_blocks * disk->opts.block_size);
		return 0;
	case BDEV_FLUSH:
		disk->stats.nr_flushes++;
		fails = chance(disk, disk->opts.flush_error_ppm) || refuses(disk);
		crash_tape_done(disk, tape_io, !fails, false, false, flush_seq);
		if (fails)
			return -EIO;
		crash_disk_flush_to(disk, flush_seq);
		return 0;
	default:
		if (io->op == BDEV_UNMAP)
			disk->stats.nr_unmaps++;
		else
			disk->stats.nr_writes++;
		if (io->flags & BDEV_IO_FUA)
			disk->stats.nr_fua_writes++;
		fails = chance(disk, disk->opts.write_error_ppm) || refuses(disk);
		if (!fails && io->op == BDEV_WRITE && disk->on_write && lied(disk, io, durable))
			return 0;
		crash_tape_done(disk, tape_io, true, durable, fails, 0);
		crash_disk_put(disk, io, durable, fails);
		return fails ? -EIO : 0;
	}
}

static int take(struct bdev_io *io)
{
	struct crash_io *cio = crash_io(io);
	struct crash_disk *disk = cio->c->disk;
	int status;

	pthread_mutex_lock(&disk->mutex);
	list_del(&cio->flight.link);
	status = perform(cio->c, io);
	pthread_mutex_unlock(&disk->mutex);
	return status;
}

static void crash_timer(void *arg)
{
	struct bdev_io *io = arg;

	bdev_io_complete(io, take(io));
}

static uint64_t delay_us(struct crash_disk *disk, const struct bdev_io *io)
{
	const struct crash_disk_opts *o = &disk->opts;
	uint64_t us = o->max_delay_us ? crash_rand(&disk->rng) % o->max_delay_us : 0;

	if (o->straggler_one_in && o->straggler_ops >> io->op & 1 && crash_rand(&disk->rng) % o->straggler_one_in == 0)
		us += crash_rand(&disk->rng) % o->straggler_us;
	return us;
}

static void event(struct crash_disk *disk)
{
	uint64_t nr = ++disk->nr_events;

	if (disk->cut_at && nr >= disk->cut_at && !disk->cut) {
		crash_disk_capture(disk);
		disk->cut = true;
	}
	if (disk->on_event)
		disk->on_event(disk, nr, disk->on_event_arg);
}

static void crash_submit(struct bdev_io *io, void *channel_ctx)
{
	struct crash_bdev *c = *(struct crash_bdev **)channel_ctx;
	struct crash_disk *disk = c->disk;
	struct crash_io *cio = crash_io(io);
	uint64_t us;

	pthread_mutex_lock(&disk->mutex);
	cio->c = c;
	cio->flush_seq = disk->seq;
	list_add_tail(&c->in_flight, &cio->flight.link);
	if (io->op != BDEV_READ) {
		crash_tape_submit(disk, io);
		event(disk);
	}
	us = delay_us(disk, io);
	pthread_mutex_unlock(&disk->mutex);
	timer_init(&cio->timer, crash_timer, io);
	timer_arm(&cio->timer, us);
}

static int crash_channel_create(struct bdev *bdev, void *channel_ctx)
{
	*(struct crash_bdev **)channel_ctx = container_of(bdev, struct crash_bdev, bdev);
	return 0;
}

static void crash_destroy(struct bdev *bdev)
{
	struct crash_bdev *c = container_of(bdev, struct crash_bdev, bdev);

	c->disk->in_flight = NULL;
	c->disk->bdev = NULL;
	bdev_destroy_done(bdev);
	free(c);
}

static const struct bdev_ops crash_ops = {
	.submit = crash_submit,
	.destroy = crash_destroy,
	.channel_create = crash_channel_create,
	.channel_ctx_size = sizeof(struct crash_bdev *),
	.supported = 1u << BDEV_READ | 1u << BDEV_WRITE | 1u << BDEV_FLUSH | 1u << BDEV_UNMAP | 1u << BDEV_WRITE_ZEROES,
};

void crash_disk_show(struct crash_disk *disk, uint64_t nr_blocks)
{
	assert(nr_blocks <= disk->opts.nr_blocks);
	disk->nr_shown = nr_blocks;
	if (disk->bdev)
		bdev_notify_resize(disk->bdev, nr_blocks);
}

int bdev_crash_create(const char *name, struct crash_disk *disk, struct bdev **ret_bdev)
{
	static const uuid_t uuid = { 0x63, 0x72, 0x61, 0x73, 0x68, 0x21, 0x40, 0x01, 0x80, 1 };
	struct crash_bdev *c;
	int rc;

	rc = leaf_check(name, disk->opts.nr_blocks, disk->opts.block_size);
	if (rc)
		return rc;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->disk = disk;
	list_init(&c->in_flight);
	strcpy(c->bdev.name, name);
	leaf_uuid(c->bdev.uuid, uuid);
	c->bdev.product_name = "Crash disk";
	c->bdev.module = "crash";
	c->bdev.block_size = disk->opts.block_size;
	c->bdev.nr_blocks = disk->nr_shown ? disk->nr_shown : disk->opts.nr_blocks;
	c->bdev.write_unit_blocks = disk->opts.atomic_blocks;
	c->bdev.continuity = 1; /* who takes its power away clears what is kept */
	c->bdev.has_write_cache = !disk->opts.write_through;
	c->bdev.unmap_zeroes = !disk->opts.unmap_keeps;
	c->bdev.ops = &crash_ops;
	rc = bdev_register(&c->bdev);
	if (rc) {
		free(c);
		return rc;
	}
	disk->in_flight = &c->in_flight;
	disk->bdev = &c->bdev;
	if (ret_bdev)
		*ret_bdev = &c->bdev;
	return 0;
}
