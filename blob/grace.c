/*
 * Grace periods, and the way back of freed clusters.
 *
 * What a record freed may be used again when (1) the record is durable, (2) no I/O is left that may have
 * looked up the old map, on any thread, and (3) its unmap has completed.  For (2) every channel counts its
 * I/O by parity: a grace period flips the parity on each channel and waits until what began under the old one
 * is over.  Memory that other threads may be reading (nodes, entries) waits for the same.
 */
#include "blob/internal.h"

#define BATCH       4096u /* sorted: what lies side by side is unmapped together */
#define RUN_MAX     256u  /* clusters in one unmap: a file system may take milliseconds for each extent */
#define UNMAP_DEPTH 8u

void retire(struct store *s, struct retired *mem)
{
	mem->next = s->retired;
	s->retired = mem;
	if (++s->nr_retired == 256)
		fiber_cond_signal(&s->free_wake);
}

/* One is kept for when there is no memory for another. */
void retire_entry(struct store *s, struct partial *partial)
{
	struct retired_entry *r = malloc(sizeof(*r));

	if (!r) {
		r = s->spare_entry;
		s->spare_entry = NULL;
	} else if (!s->spare_entry) {
		s->spare_entry = malloc(sizeof(*r));
	}
	if (!r) {
		log_error("store %s: no memory to free an entry of a map", s->super.name);
		return;
	}
	r->partial = partial;
	r->next = s->retired_entries;
	s->retired_entries = r;
	if (++s->nr_retired == 256)
		fiber_cond_signal(&s->free_wake);
}

static void grace_over(struct store *s)
{
	if (atomic_fetch_sub(&s->grace_left, 1) == 1)
		fiber_wake(s->grace_wait, 0);
}

void channel_drained(struct blob_channel *ch)
{
	ch->draining = false;
	grace_over(ch->store);
}

static void channel_flip(void *ctx, void *arg)
{
	struct blob_channel *ch = ctx;

	ch->parity ^= 1;
	if (ch->in_flight[ch->parity ^ 1]) {
		atomic_fetch_add(&ch->store->grace_left, 1);
		ch->draining = true;
	}
}

static void flipped(void *arg)
{
	grace_over(arg);
}

fiber_fn void grace_wait(struct store *s)
{
	struct fiber_wait wait;

	assert(!s->grace_wait);
	fiber_wait_init(&wait);
	s->grace_wait = &wait;
	atomic_store(&s->grace_left, 1);
	channel_flip(&s->internal, NULL);
	device_for_each_channel(s, channel_flip, s, flipped);
	fiber_wait(&wait);
	s->grace_wait = NULL;
}

/* --- unmapping what is freed --- */

struct unmaps {
	struct store *store;
	struct fiber_wait wait;
	uint32_t *clusters;
	unsigned nr, next, in_flight;
	bool waiting;
	struct unmap_io {
		struct bdev_io bio;
		struct unmaps *all;
	} io[UNMAP_DEPTH];
};

static void unmap_next(struct unmap_io *io)
{
	struct unmaps *u = io->all;
	struct store *s = u->store;
	unsigned first = u->next, end = first + 1;

	while (end < u->nr && end - first < RUN_MAX && u->clusters[end] == u->clusters[end - 1] + 1)
		end++;
	u->next = end;
	u->in_flight++;
	io->bio.op = BDEV_UNMAP;
	io->bio.flags = 0;
	io->bio.offset_blocks = cluster_block(s, u->clusters[first]);
	io->bio.nr_blocks = cluster_block(s, end - first);
	bdev_submit(s->bch, &io->bio);
}

static void unmap_done(struct bdev_io *bio, int status)
{
	struct unmap_io *io = container_of(bio, struct unmap_io, bio);
	struct unmaps *u = io->all;

	/* A failed unmap costs the device space, nothing else: nobody reads a cluster before writing it. */
	u->in_flight--;
	if (u->next < u->nr)
		unmap_next(io);
	else if (!u->in_flight && u->waiting)
		fiber_wake(&u->wait, 0);
}

static int compare_clusters(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static fiber_fn void unmap_clusters(struct store *s, uint32_t *clusters, unsigned nr)
{
	struct unmaps *u;

	qsort(clusters, nr, sizeof(clusters[0]), compare_clusters);
	if (!s->can_unmap || !nr || !(u = calloc(1, sizeof(*u))))
		return;
	u->store = s;
	u->clusters = clusters;
	u->nr = nr;
	fiber_wait_init(&u->wait);
	for (unsigned i = 0; i < UNMAP_DEPTH && u->next < nr; i++) {
		u->io[i].all = u;
		u->io[i].bio.done = unmap_done;
		unmap_next(&u->io[i]);
	}
	if (BLOB_MUTANT(UNMAP_RACES_REUSE))
		for (unsigned i = 0; i < nr; i++)
			cluster_available(s, clusters[i]);
	if (u->in_flight) {
		u->waiting = true;
		fiber_wait(&u->wait);
	}
	free(u);
}

/* --- the fiber --- */

/* Takes what is durably freed, at most BATCH; how many. */
static unsigned take_freed(struct store *s, uint32_t *batch)
{
	unsigned nr = 0;

	while (nr < BATCH && s->coming_head != s->coming_tail) {
		struct freed *f = &s->coming[s->coming_head & (s->coming_cap - 1)];

		if (f->seq >= atomic_load(&s->journal.committed_seq))
			break;
		batch[nr++] = f->cluster;
		s->coming_head++;
	}
	s->nr_freeing = nr;
	return nr;
}

void retired_free(struct retired *memory, struct retired_entry *entries)
{
	while (memory) {
		struct retired *next = memory->next;

		free(memory);
		memory = next;
	}
	while (entries) {
		struct retired_entry *next = entries->next;

		free(entries->partial);
		free(entries);
		entries = next;
	}
}

static fiber_fn void free_round(struct store *s, uint32_t *batch)
{
	struct retired *memory = BLOB_MUTANT(FREE_UNDER_READ) ? NULL : s->retired;
	struct retired_entry *entries = BLOB_MUTANT(FREE_UNDER_READ) ? NULL : s->retired_entries;
	unsigned nr;

	/* Nobody waits a second for space because nobody asks for a commit. */
	if (s->coming_head != s->coming_tail && !list_empty(&s->space_waiters))
		journal_demand(s);
	nr = take_freed(s, batch);
	s->retired = NULL;
	s->retired_entries = NULL;
	s->nr_retired = 0;
	if (!BLOB_MUTANT(FREE_UNDER_READ))
		grace_wait(s);
	retired_free(memory, entries);
	unmap_clusters(s, batch, nr);
	if (!(BLOB_MUTANT(UNMAP_RACES_REUSE) && s->can_unmap))
		for (unsigned i = 0; i < nr; i++)
			cluster_available(s, batch[i]);
	s->nr_freeing = 0;
}

static bool work_to_do(struct store *s)
{
	if (s->coming_head != s->coming_tail) {
		if (s->coming[s->coming_head & (s->coming_cap - 1)].seq <
		    atomic_load(&s->journal.committed_seq))
			return true;
		if (!list_empty(&s->space_waiters))
			journal_demand(s);
	}
	return s->nr_retired >= 256;
}

void free_fiber(void *arg)
{
	struct store *s = arg;
	uint32_t *batch = calloc(BATCH, sizeof(*batch));

	while (batch && !s->stopping) {
		if (!work_to_do(s)) {
			/* The last waiter of space that does not come after all must hear of it. */
			waiters_kick(&s->space_waiters);
			fiber_cond_broadcast(&s->freed_cond);
			fiber_cond_wait(&s->free_wake);
			continue;
		}
		free_round(s, batch);
		fiber_cond_broadcast(&s->freed_cond);
		waiters_kick(&s->space_waiters);
		waiters_kick(&s->admit_waiters);
	}
	free(batch);
	store_fiber_over(s);
}
