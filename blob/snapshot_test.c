/*
 * Snapshots of a blob that threads are writing: each holds what had completed before it was asked for, nothing that was
 * submitted after it was answered, and no write without those that had completed before that one was submitted;
 * and what it holds never changes.
 *
 * A clock ticks at each submission and completion.  Each block has one writer, who writes one block at a time; what lies in a
 * block is the number of its write.
 */
#include "blob/internal.h"
#include "blob/testing.h"

#define NR_THREADS   3u
#define NR_WRITERS   8u /* on each thread */
#define NR_ALL	     (NR_THREADS * NR_WRITERS)
#define NR_BLOCKS    (NR_ALL * 4)
#define MAX_WRITES   4000u
#define SPREAD	     3u /* blocks lie so far apart: some share a sub-block, some a cluster */
#define NR_SNAPSHOTS 8u

struct write {
	uint64_t submitted, completed;
};

struct history {
	struct write write[MAX_WRITES]; /* 0: never written */
	_Atomic uint32_t nr;
};

struct world {
	struct bench b;
	struct blob *blob;
	_Atomic uint64_t clock;
	_Atomic bool stop;
	uint64_t longest_us; /* that a write without FUA took */
	_Atomic unsigned nr_running;
	struct fiber_wait all_done;
	struct history blocks[NR_BLOCKS];
};

struct writer {
	struct world *w;
	unsigned id;
	uint64_t seed;
};

static uint64_t next(struct writer *wr)
{
	wr->seed = wr->seed * 6364136223846793005ull + 1442695040888963407ull;
	return wr->seed >> 33;
}

static void one_read(struct writer *wr, struct blob_channel *ch, unsigned block, uint8_t *buf)
{
	struct iovec iov = {buf, BLOCK};
	struct blob_io io = {.blob = wr->w->blob,
			     .op = BLOB_READ,
			     .iov = &iov,
			     .iovcnt = 1,
			     .offset_blocks = block * SPREAD,
			     .nr_blocks = 1};
	int rc = blob_submit_wait(ch, &io);

	if (rc || *(uint32_t *)(void *)buf != wr->w->blocks[block].nr)
		ck_abort_msg("block %u holds %u after write %u; %d", block, *(uint32_t *)(void *)buf,
			     wr->w->blocks[block].nr, rc);
}

static void one_write(struct writer *wr, struct blob_channel *ch, uint8_t *buf)
{
	struct world *w = wr->w;
	unsigned block = next(wr) % (NR_BLOCKS / NR_ALL) * NR_ALL + wr->id;
	struct history *h = &w->blocks[block];
	struct iovec iov = {buf, BLOCK};
	struct blob_io io = {.blob = w->blob,
			     .op = BLOB_WRITE,
			     .flags = next(wr) % 8 ? 0 : BLOB_IO_FUA,
			     .iov = &iov,
			     .iovcnt = 1,
			     .offset_blocks = block * SPREAD,
			     .nr_blocks = 1};
	uint32_t nr = h->nr + 1;
	uint64_t start_us = clock_now_us();
	int rc;

	if (nr >= MAX_WRITES) {
		w->stop = true;
		return;
	}
	for (unsigned i = 0; i < BLOCK / 4; i++)
		((uint32_t *)(void *)buf)[i] = nr;
	h->write[nr].completed = UINT64_MAX;
	h->write[nr].submitted = atomic_fetch_add(&w->clock, 1);
	h->nr = nr;
	rc = blob_submit_wait(ch, &io);
	if (rc)
		ck_abort_msg("write %u of block %u: %d", nr, block, rc);
	h->write[nr].completed = atomic_fetch_add(&w->clock, 1);
	if (!(io.flags & BLOB_IO_FUA) && clock_now_us() - start_us > w->longest_us)
		w->longest_us = clock_now_us() - start_us;
	if (next(wr) % 2)
		one_read(wr, ch, block, buf);
}

static void writer_over(void *arg)
{
	struct world *w = arg;

	if (atomic_fetch_sub(&w->nr_running, 1) == 1)
		fiber_wake(&w->all_done, 0);
}

static void writer_fiber(void *arg)
{
	struct writer *wr = arg;
	struct blob_channel *ch = blob_channel_get(wr->w->b.store);
	uint8_t *buf = aligned_alloc(4096, 4096);

	ck_assert_ptr_nonnull(ch);
	while (!wr->w->stop) {
		one_write(wr, ch, buf);
		fiber_yield();
	}
	free(buf);
	blob_channel_put(ch);
	writer_over(wr->w);
}

/* --- snapshots --- */

struct shot {
	struct blob *blob;
	uint64_t asked, answered;
	uint32_t found[NR_BLOCKS];
};

static void read_all(struct world *w, struct blob *blob, uint32_t *found)
{
	uint8_t *buf = aligned_alloc(4096, 4096);

	for (unsigned i = 0; i < NR_BLOCKS; i++) {
		ck_assert_int_eq(blob_rw(&w->b, blob, BLOB_READ, 0, i * SPREAD, 1, buf), 0);
		memcpy(&found[i], buf, 4);
		for (unsigned k = 1; k < BLOCK / 4; k++)
			if (((uint32_t *)(void *)buf)[k] != found[i])
				ck_abort_msg("block %u is torn", i);
	}
	free(buf);
}

static void judge(struct world *w, const struct shot *s)
{
	uint64_t newest = s->asked;

	for (unsigned i = 0; i < NR_BLOCKS; i++) {
		const struct write *write = w->blocks[i].write;

		if (!s->found[i])
			continue;
		ck_assert_uint_le(s->found[i], w->blocks[i].nr);
		if (write[s->found[i]].submitted > s->answered)
			ck_abort_msg("block %u: write %u was submitted after the snapshot", i, s->found[i]);
		if (write[s->found[i]].submitted > newest)
			newest = write[s->found[i]].submitted;
	}
	for (unsigned i = 0; i < NR_BLOCKS; i++) {
		const struct write *write = w->blocks[i].write;

		if (s->found[i] < w->blocks[i].nr && write[s->found[i] + 1].completed < newest)
			ck_abort_msg("block %u: write %u is missing, which had completed at %lu; the snapshot has one "
				     "of %lu, asked at %lu",
				     i, s->found[i] + 1, (unsigned long)write[s->found[i] + 1].completed,
				     (unsigned long)newest, (unsigned long)s->asked);
	}
}

static void take(struct world *w, struct shot *s, unsigned nr)
{
	char name[16];

	snprintf(name, sizeof(name), "snap-%u", nr);
	s->asked = atomic_fetch_add(&w->clock, 1);
	ck_assert_int_eq(blob_snapshot(w->blob, &(struct blob_copy_opts){.name = name}, &s->blob), 0);
	s->answered = atomic_fetch_add(&w->clock, 1);
	blob_open(s->blob);
	read_all(w, s->blob, s->found);
}

static void look_again(struct world *w, struct shot *s)
{
	uint32_t found[NR_BLOCKS];

	read_all(w, s->blob, found);
	for (unsigned i = 0; i < NR_BLOCKS; i++)
		ck_assert_msg(found[i] == s->found[i], "block %u of a snapshot became %u from %u", i, found[i],
			      s->found[i]);
}

struct inflater {
	struct world *w;
	struct fiber_wait over;
};

static void inflate_fiber(void *arg)
{
	struct inflater *i = arg;

	fiber_wake(&i->over, blob_inflate(i->w->blob, NULL));
}

static void run_world(void *arg)
{
	struct world *w = calloc(1, sizeof(*w));
	static struct shot shots[NR_SNAPSHOTS];
	struct writer writers[NR_ALL];
	struct thread *threads[NR_THREADS];
	struct inflater inflater = {.w = w};
	bool inflating = false;

	w->b.create.journal_pages = 64;
	w->b.create.leaf_shift = 2;
	w->b.create.inner_shift = 2;
	bench_start(&w->b);
	fiber_wait_init(&inflater.over);
	w->blob = make_blob(&w->b, "written", NR_BLOCKS * SPREAD * BLOCK);
	fiber_wait_init(&w->all_done);
	w->nr_running = NR_ALL;
	for (unsigned t = 0; t < NR_THREADS; t++)
		threads[t] = thread_create("io", t % runtime_nr_reactors());
	for (unsigned i = 0; i < NR_ALL; i++) {
		writers[i] = (struct writer){.w = w, .id = i};
		rand_bytes(&writers[i].seed, sizeof(writers[i].seed));
		ck_assert_int_eq(fiber_spawn(threads[i % NR_THREADS], "writer", writer_fiber, &writers[i]), 0);
	}
	for (unsigned i = 0; i < NR_SNAPSHOTS && !w->stop; i++) {
		fiber_sleep(1000 + i * 500);
		take(w, &shots[i], i);
		judge(w, &shots[i]);
		if (i % 3 == 2) { /* what was shared may become the blob's own again */
			blob_close(shots[i - 1].blob);
			ck_assert_int_eq(blob_delete(shots[i - 1].blob), 0);
			shots[i - 1].blob = NULL;
		}
		if (i != 4)
			continue;
		/* What first writes do, inflating does as well. */
		ck_assert_int_eq(fiber_spawn(thread_current(), "inflate", inflate_fiber, &inflater), 0);
		inflating = true;
	}
	if (inflating)
		ck_assert_int_eq(fiber_wait(&inflater.over), 0);
	w->stop = true;
	fiber_wait(&w->all_done);
	if (arg) /* virtual time, in which a device operation takes up to 50 us */
		ck_assert_uint_lt(w->longest_us, 2000);
	for (unsigned t = 0; t < NR_THREADS; t++)
		thread_exit(threads[t]);
	for (unsigned i = 0; i < NR_SNAPSHOTS; i++) {
		if (!shots[i].blob)
			continue;
		look_again(w, &shots[i]);
		blob_close(shots[i].blob);
		shots[i].blob = NULL;
	}
	read_all(w, w->blob, shots[0].found);
	for (unsigned i = 0; i < NR_BLOCKS; i++)
		ck_assert_uint_eq(shots[0].found[i], w->blocks[i].nr);
	ck_assert_uint_eq(store_check_memory(w->b.store, print_finding, NULL), 0);
	blob_close(w->blob);
	bench_close(&w->b);
	bench_check(&w->b);
	bench_end(&w->b);
	free(w);
}

/* While it is inflated its parent goes, and the grandparent becomes its parent for a while. */
static void parent_deleted(void *arg)
{
	struct world *w = calloc(1, sizeof(*w));
	struct inflater inflater = {.w = w};
	struct blob *grandparent, *parent;
	static uint8_t buf[512 * BLOCK];

	bench_start(&w->b);
	w->blob = make_blob(&w->b, "heir", 2 << 20);
	fill_blocks(buf, 512, 3);
	for (unsigned i = 0; i < 8; i++)
		ck_assert_int_eq(blob_rw(&w->b, w->blob, BLOB_WRITE, 0, i * 512, 512, buf), 0);
	ck_assert_int_eq(blob_snapshot(w->blob, &(struct blob_copy_opts){.name = "grandparent"}, &grandparent), 0);
	ck_assert_int_eq(blob_snapshot(w->blob, &(struct blob_copy_opts){.name = "parent"}, &parent), 0);
	fiber_wait_init(&inflater.over);
	ck_assert_int_eq(fiber_spawn(thread_current(), "inflate", inflate_fiber, &inflater), 0);
	while (!w->blob->inflating)
		fiber_yield();
	ck_assert_int_eq(blob_delete(parent), 0);
	ck_assert(w->blob->inflating);
	ck_assert_ptr_eq(blob_parent(w->blob), grandparent);
	ck_assert_int_eq(fiber_wait(&inflater.over), 0);
	ck_assert_ptr_null(blob_parent(w->blob));
	blob_close(w->blob);
	bench_end(&w->b);
	free(w);
}

START_TEST(an_inflated_blob_has_no_parent_though_it_lost_one_meanwhile)
{
	run_sim(1, 1, parent_deleted, NULL);
}
END_TEST

START_TEST(snapshots_of_a_blob_under_load_are_causal_and_whole_simulated)
{
	bool simulated = true;
	const char *text = getenv("SNAPSHOT_SEEDS");
	const char *only = getenv("SNAPSHOT_SEED");
	unsigned nr = text ? atoi(text) : 20;

	for (unsigned seed = only ? atoi(only) : 1; seed <= (only ? (unsigned)atoi(only) : nr); seed++)
		run_sim(seed, 3, run_world, &simulated);
}
END_TEST

START_TEST(snapshots_of_a_blob_under_load_are_causal_and_whole_on_two_cores)
{
	run_real("0,1", run_world, NULL);
}
END_TEST

/* --- what is shared becomes the blob's own while it is being copied --- */

struct copier {
	struct bench b;
	struct blob *blob;
	struct fiber_wait over;
};

/* The last sub-block of a shared cluster of which every fourth is written: all those are copied first, one by one. */
static void copier_fiber(void *arg)
{
	struct copier *c = arg;
	uint8_t *buf = aligned_alloc(4096, 4096);

	memset(buf, 3, 4096);
	fiber_wake(&c->over, blob_rw(&c->b, c->blob, BLOB_WRITE, 0, 1016, 8, buf));
	free(buf);
}

static void run_unshared(void *arg)
{
	struct copier *c = calloc(1, sizeof(*c));
	uint8_t *buf = aligned_alloc(4096, 1016 * BLOCK);
	struct store_stats stats;
	struct blob *snapshot;
	uint64_t nr_slow;

	c->b.create.cluster_size_bytes = 512 * 1024;
	bench_start(&c->b);
	c->blob = make_blob(&c->b, "copied", 1 << 20);
	memset(buf, 1, 1016 * BLOCK);
	for (unsigned i = 0; i < 1016; i += 32)
		ck_assert_int_eq(blob_rw(&c->b, c->blob, BLOB_WRITE, 0, i, 8, buf), 0);
	ck_assert_int_eq(blob_snapshot(c->blob, &(struct blob_copy_opts){.name = "s"}, &snapshot), 0);
	fiber_wait_init(&c->over);
	ck_assert_int_eq(fiber_spawn(thread_current(), "copier", copier_fiber, c), 0);
	fiber_sleep(100);
	ck_assert_int_eq(blob_delete(snapshot), 0);
	while (c->b.store->nr_reap)
		fiber_yield();
	ck_assert_int_eq(blob_rw(&c->b, c->blob, BLOB_FLUSH, 0, 0, 0, NULL), 0);
	store_get_stats(c->b.store, &stats);
	nr_slow = stats.nr_slow_writes;
	memset(buf, 2, BLOCK);
	ck_assert_int_eq(blob_rw(&c->b, c->blob, BLOB_WRITE, 0, 1, 1, buf), 0);
	store_get_stats(c->b.store, &stats);
	ck_assert_uint_eq(stats.nr_slow_writes, nr_slow);
	ck_assert(!c->over.done); /* else the test proves nothing */
	ck_assert_int_eq(fiber_wait(&c->over), 0);
	ck_assert_int_eq(blob_rw(&c->b, c->blob, BLOB_READ, 0, 0, 3, buf), 0);
	assert_blocks(buf, 1, 1);
	assert_blocks(buf + BLOCK, 1, 2);
	assert_blocks(buf + 2 * BLOCK, 1, 1);
	ck_assert_int_eq(blob_rw(&c->b, c->blob, BLOB_READ, 0, 1016, 8, buf), 0);
	assert_blocks(buf, 8, 3);
	free(buf);
	blob_close(c->blob);
	bench_end(&c->b);
	free(c);
}

START_TEST(a_write_in_place_while_its_cluster_is_copied_is_not_lost)
{
	for (unsigned seed = 1; seed <= 4; seed++)
		run_sim(seed, 1, run_unshared, NULL);
}
END_TEST

/* --- two first writes share a new cluster, and one is slow --- */

static void slow_writer(void *arg)
{
	struct copier *c = arg;
	uint8_t *buf = aligned_alloc(4096, 4096);

	memset(buf, 1, 4096);
	fiber_wake(&c->over, blob_rw(&c->b, c->blob, BLOB_WRITE, 0, 32, 8, buf));
	free(buf);
}

static void run_sibling(void *arg)
{
	struct copier *c = calloc(1, sizeof(*c));
	uint8_t *buf = aligned_alloc(4096, 4096);
	struct blob *snapshot;

	bench_start(&c->b);
	c->blob = make_blob(&c->b, "volume", CLUSTER_BYTES);
	fiber_wait_init(&c->over);
	crash_disk_set_delays(c->b.disk, 1000000, 0);
	ck_assert_int_eq(fiber_spawn(thread_current(), "slow", slow_writer, c), 0);
	fiber_sleep(20);
	crash_disk_set_delays(c->b.disk, 10, 0);
	memset(buf, 2, 4096);
	ck_assert_int_eq(blob_rw(&c->b, c->blob, BLOB_WRITE, 0, 8, 8, buf), 0);
	ck_assert(!c->over.done); /* else the test proves nothing */
	ck_assert_int_eq(blob_snapshot(c->blob, &(struct blob_copy_opts){.name = "s"}, &snapshot), 0);
	ck_assert(c->over.done); /* what the snapshot shares is written by nobody any more */
	ck_assert_int_eq(fiber_wait(&c->over), 0);
	memset(buf, 3, 4096);
	ck_assert_int_eq(blob_rw(&c->b, c->blob, BLOB_WRITE, 0, 8, 8, buf), 0);
	for (unsigned i = 0; i < 4; i++) {
		ck_assert_int_eq(blob_rw(&c->b, i / 2 ? snapshot : c->blob, BLOB_READ, 0, i % 2 ? 32 : 8, 8, buf), 0);
		assert_blocks(buf, 8, i % 2 ? 1 : i ? 2 : 3);
	}
	free(buf);
	blob_close(c->blob);
	bench_close(&c->b);
	bench_check(&c->b);
	bench_end(&c->b);
	free(c);
}

START_TEST(a_snapshot_waits_for_a_first_write_whose_cluster_another_one_has_mapped)
{
	for (unsigned seed = 1; seed <= 4; seed++)
		run_sim(seed, 1, run_sibling, NULL);
}
END_TEST

/* --- copies --- */

#define NR_COPIED 24u

struct copying {
	struct bench b;
	struct blob *blob;
	unsigned nr_left, next;
	uint32_t most; /* copies at once */
	struct fiber_wait over;
};

static void write_into_shared(void *arg)
{
	struct copying *c = arg;
	unsigned cluster = c->next++;
	uint8_t *buf = malloc(8 * BLOCK);

	memset(buf, 2, 8 * BLOCK);
	ck_assert_int_eq(blob_rw(&c->b, c->blob, BLOB_WRITE, 0, cluster * 64ull + 16, 8, buf), 0);
	free(buf);
	if (!--c->nr_left)
		fiber_wake(&c->over, 0);
}

static void see_copies(struct crash_disk *disk, uint64_t event, void *arg)
{
	struct copying *c = arg;

	if (c->b.store && c->b.store->nr_copies > c->most)
		c->most = c->b.store->nr_copies;
}

/* Of each cluster three sub-blocks are there, apart; each first write after the snapshot takes them along. */
static void run_copying(void *arg)
{
	struct copying *c = calloc(1, sizeof(*c));
	struct blob_copy_opts opts = {.name = "snapshot"};
	uint8_t *buf = malloc(8 * BLOCK);
	struct blob *snapshot;

	bench_start(&c->b);
	c->blob = make_blob(&c->b, "volume", NR_COPIED * CLUSTER_BYTES);
	for (unsigned i = 0; i < NR_COPIED * 3; i++) {
		memset(buf, 1, 8 * BLOCK);
		ck_assert_int_eq(blob_rw(&c->b, c->blob, BLOB_WRITE, 0, i / 3 * 64ull + i % 3 * 24, 8, buf), 0);
	}
	ck_assert_int_eq(blob_snapshot(c->blob, &opts, &snapshot), 0);
	crash_disk_on_event(c->b.disk, see_copies, c);
	fiber_wait_init(&c->over);
	c->nr_left = NR_COPIED;
	for (unsigned i = 0; i < NR_COPIED; i++)
		ck_assert_int_eq(fiber_spawn(thread_current(), "writer", write_into_shared, c), 0);
	fiber_wait(&c->over);
	crash_disk_on_event(c->b.disk, NULL, NULL);
	ck_assert_uint_ge(c->most, 2);
	ck_assert_uint_le(c->most, 4);
	ck_assert_uint_eq(c->b.store->nr_copies, 0);
	for (unsigned i = 0; i < NR_COPIED * 4; i++) {
		unsigned at = i % 4 == 3 ? 16 : i % 4 * 24;

		ck_assert_int_eq(blob_rw(&c->b, c->blob, BLOB_READ, 0, i / 4 * 64ull + at, 8, buf), 0);
		assert_blocks(buf, 8, i % 4 == 3 ? 2 : 1);
	}
	free(buf);
	blob_close(c->blob);
	bench_close(&c->b);
	bench_check(&c->b);
	bench_end(&c->b);
	free(c);
}

START_TEST(few_clusters_are_copied_at_a_time_and_all_writes_that_wait_for_one_end)
{
	run_sim(5, 1, run_copying, NULL);
}
END_TEST

/* --- a child that parts with its parent while that is deleted ------------------------------------------------------------ */

static void decouple_child(void *arg)
{
	struct copying *c = arg;

	c->nr_left = blob_decouple(c->blob) != 0;
	fiber_wake(&c->over, 0);
}

static void run_parting(void *arg)
{
	const struct blob_copy_opts opts = {.name = "s"};
	struct copying *c = calloc(1, sizeof(*c));
	struct blob *snapshot;

	bench_start(&c->b);
	c->blob = make_blob(&c->b, "blob", 1u << 20);
	ck_assert_int_eq(blob_snapshot(c->blob, &opts, &snapshot), 0);
	fiber_wait_init(&c->over);
	ck_assert_int_eq(fiber_spawn(thread_current(), "decouple", decouple_child, c), 0);
	while (blob_parent(c->blob))
		fiber_yield();
	/* The record is made, its commit is under way. */
	ck_assert_int_eq(blob_delete(snapshot), 0);
	fiber_wait(&c->over);
	ck_assert_uint_eq(c->nr_left, 0);
	ck_assert_ptr_null(store_find_blob(c->b.store, "s"));
	blob_close(c->blob);
	bench_close(&c->b);
	bench_check(&c->b);
	bench_end(&c->b);
	free(c);
}

START_TEST(a_deletion_waits_for_a_child_that_parts_with_the_snapshot)
{
	run_sim(1, 1, run_parting, NULL);
}
END_TEST

struct family {
	struct bench b;
	struct blob *blob, *grandparent;
	struct fiber_wait deleted, decoupled;
};

static void delete_grandparent(void *arg)
{
	struct family *f = arg;

	fiber_wake(&f->deleted, blob_delete(f->grandparent));
}

static void decouple_grandchild(void *arg)
{
	struct family *f = arg;

	fiber_wake(&f->decoupled, blob_decouple(f->blob));
}

/* Both wait for room in the journal, and the deletion gets it first. */
static void run_family(void *arg)
{
	struct family *f = calloc(1, sizeof(*f));
	struct blob *parent;

	bench_start(&f->b);
	f->blob = make_blob(&f->b, "blob", 1u << 20);
	ck_assert_int_eq(blob_snapshot(f->blob, &(struct blob_copy_opts){.name = "grandparent"}, &f->grandparent), 0);
	ck_assert_int_eq(blob_snapshot(f->blob, &(struct blob_copy_opts){.name = "parent"}, &parent), 0);
	ck_assert_ptr_eq(blob_parent(parent), f->grandparent);
	fiber_wait_init(&f->deleted);
	fiber_wait_init(&f->decoupled);
	f->b.store->journal.nr_admitted += 1u << 20;
	ck_assert_int_eq(fiber_spawn(thread_current(), "delete", delete_grandparent, f), 0);
	fiber_sleep(1000);
	ck_assert_int_eq(fiber_spawn(thread_current(), "decouple", decouple_grandchild, f), 0);
	fiber_sleep(1000);
	f->b.store->journal.nr_admitted -= 1u << 20;
	waiters_kick(&f->b.store->admit_waiters);
	ck_assert_int_eq(fiber_wait(&f->deleted), 0);
	ck_assert_int_eq(fiber_wait(&f->decoupled), 0);
	ck_assert_uint_eq(f->blob->parent_id, 0);
	ck_assert_uint_eq(parent->parent_id, 0);
	blob_close(f->blob);
	bench_close(&f->b);
	bench_check(&f->b);
	bench_end(&f->b);
	free(f);
}

START_TEST(a_child_is_not_given_a_parent_that_was_deleted_meanwhile)
{
	run_sim(1, 1, run_family, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {a_child_is_not_given_a_parent_that_was_deleted_meanwhile,
				      a_deletion_waits_for_a_child_that_parts_with_the_snapshot,
				      few_clusters_are_copied_at_a_time_and_all_writes_that_wait_for_one_end,
				      a_write_in_place_while_its_cluster_is_copied_is_not_lost,
				      a_snapshot_waits_for_a_first_write_whose_cluster_another_one_has_mapped,
				      an_inflated_blob_has_no_parent_though_it_lost_one_meanwhile,
				      snapshots_of_a_blob_under_load_are_causal_and_whole_simulated,
				      snapshots_of_a_blob_under_load_are_causal_and_whole_on_two_cores};

	return run_tests("snapshot", tests, sizeof(tests) / sizeof(tests[0]));
}
