/*
 * Tapes: what happened to a crash disk while it was recorded, and players that do it again to a copy of the disk.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/crash_disk.h"
#include "bdev/leaf.h"

/* An operation that was submitted, or one that was done. */
struct step {
	bool done;
	bool quiet; /* submitted before the recording began: no event */
	bool puts, durable, torn; /* done: see crash_tape_done() */
	uint8_t op, flags;
	uint64_t io; /* number of the operation: of its submission's step */
	uint64_t offset_blocks, nr_blocks;
	uint64_t rng, flush_seq; /* of the disk when it was done */
	bool strayed;		 /* done: it arrived at offset_blocks instead */
	void *data;
};

struct crash_tape {
	struct step *steps;
	size_t nr, cap;
};

/* One that is in flight on the copy, as crash_disk_capture() expects it: its link comes first in the scratch. */
struct again {
	struct bdev_io io;
	struct iovec iov;
};

struct crash_player {
	const struct crash_tape *tape;
	struct crash_disk *disk;
	size_t at;
	struct list in_flight;
	struct again **again; /* by number */
};

struct crash_tape *crash_tape_create(void)
{
	return calloc(1, sizeof(struct crash_tape));
}

void crash_tape_destroy(struct crash_tape *tape)
{
	if (!tape)
		return;
	for (size_t i = 0; i < tape->nr; i++)
		free(tape->steps[i].data);
	free(tape->steps);
	free(tape);
}

uint64_t crash_tape_nr_events(const struct crash_tape *tape)
{
	uint64_t nr = 0;

	for (size_t i = 0; i < tape->nr; i++)
		nr += !tape->steps[i].done && !tape->steps[i].quiet;
	return nr;
}

static struct step *step_add(struct crash_tape *tape)
{
	if (tape->nr == tape->cap) {
		tape->cap = tape->cap ? 2 * tape->cap : 256;
		tape->steps = realloc(tape->steps, tape->cap * sizeof(tape->steps[0]));
		if (!tape->steps)
			abort(); /* a test that has no memory */
	}
	tape->steps[tape->nr] = (struct step){ 0 };
	return &tape->steps[tape->nr++];
}

static struct crash_flight *flight(struct bdev_io *io)
{
	return (struct crash_flight *)(void *)io->scratch.bytes;
}

void crash_tape_submit(struct crash_disk *disk, struct bdev_io *io)
{
	uint64_t len = io->nr_blocks * disk->opts.block_size;
	struct step *s;

	if (!disk->tape)
		return;
	flight(io)->tape_io = disk->tape->nr;
	s = step_add(disk->tape);
	s->op = io->op;
	s->flags = io->flags;
	s->offset_blocks = io->offset_blocks;
	s->nr_blocks = io->nr_blocks;
	if (io->op != BDEV_WRITE)
		return;
	s->data = malloc(len);
	if (!s->data)
		abort();
	leaf_copy_in(s->data, io->iov, io->iovcnt);
}

void crash_disk_record(struct crash_disk *disk, struct crash_tape *tape)
{
	struct list *it;

	disk->tape = tape;
	if (!tape || !disk->in_flight)
		return;
	list_for_each(it, disk->in_flight) {
		struct bdev_io *io = container_of((char *)it, struct bdev_io, scratch.bytes[0]);

		if (io->op == BDEV_READ)
			continue;
		crash_tape_submit(disk, io);
		tape->steps[tape->nr - 1].quiet = true;
	}
}

void crash_tape_done(struct crash_disk *disk, uint64_t tape_io, bool puts, bool durable, bool torn, uint64_t flush_seq)
{
	struct step *s;

	if (!disk->tape)
		return;
	s = step_add(disk->tape);
	s->done = true;
	s->io = tape_io;
	s->puts = puts;
	s->durable = durable;
	s->torn = torn;
	s->flush_seq = flush_seq;
	s->rng = disk->rng;
}

void crash_tape_strayed(struct crash_disk *disk, uint64_t tape_io, bool durable, uint64_t offset_blocks)
{
	if (!disk->tape)
		return;
	crash_tape_done(disk, tape_io, true, durable, false, 0);
	disk->tape->steps[disk->tape->nr - 1].strayed = true;
	disk->tape->steps[disk->tape->nr - 1].offset_blocks = offset_blocks;
}

/* --- playing --- */

struct crash_player *crash_player_create(const struct crash_tape *tape, struct crash_disk *copy)
{
	struct crash_player *p = calloc(1, sizeof(*p));

	if (!p || !(p->again = calloc(tape->nr + 1, sizeof(p->again[0]))))
		abort();
	p->tape = tape;
	p->disk = copy;
	list_init(&p->in_flight);
	copy->in_flight = &p->in_flight;
	return p;
}

void crash_player_destroy(struct crash_player *p)
{
	for (size_t i = 0; i < p->tape->nr; i++)
		free(p->again[i]);
	free(p->again);
	p->disk->in_flight = NULL;
	free(p);
}

static void play_submit(struct crash_player *p, const struct step *s)
{
	struct again *a = calloc(1, sizeof(*a));

	if (!a)
		abort();
	p->again[s - p->tape->steps] = a;
	a->iov = (struct iovec){ s->data, s->nr_blocks * p->disk->opts.block_size };
	a->io.op = s->op;
	a->io.flags = s->flags;
	a->io.offset_blocks = s->offset_blocks;
	a->io.nr_blocks = s->nr_blocks;
	a->io.iov = &a->iov;
	a->io.iovcnt = s->data ? 1 : 0;
	list_add_tail(&p->in_flight, &flight(&a->io)->link);
	if (!s->quiet)
		p->disk->nr_events++;
}

static void play_done(struct crash_player *p, const struct step *s)
{
	struct again *a = p->again[s->io];

	list_del(&flight(&a->io)->link);
	p->disk->rng = s->rng;
	if (s->strayed)
		a->io.offset_blocks = s->offset_blocks;
	if (s->puts && a->io.op == BDEV_FLUSH)
		crash_disk_flush_to(p->disk, s->flush_seq);
	else if (s->puts)
		crash_disk_put(p->disk, &a->io, s->durable, s->torn);
	free(a);
	p->again[s->io] = NULL;
}

uint64_t crash_player_next(struct crash_player *p)
{
	while (p->at < p->tape->nr) {
		const struct step *s = &p->tape->steps[p->at++];

		if (s->done) {
			play_done(p, s);
			continue;
		}
		play_submit(p, s);
		if (s->quiet)
			continue;
		return p->disk->nr_events;
	}
	return 0;
}

bool crash_player_at_root(const struct crash_player *p)
{
	const struct step *s = p->at ? &p->tape->steps[p->at - 1] : NULL;

	return s && s->flags & BDEV_IO_FUA && !s->offset_blocks;
}

bool crash_player_at_flush(const struct crash_player *p)
{
	return p->at && p->tape->steps[p->at - 1].op == BDEV_FLUSH;
}
