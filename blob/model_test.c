/*
 * Random operations on a few blobs of a small store, compared block by block with an array in memory: through
 * reopens, checks, snapshots and power cuts.  Every block is stamped with the number of its write; a block
 * may hold its newest stamp or, after a power cut, any that it had since the last flush.
 */
#include "blob/csum.h"
#include "blob/model.h"

uint64_t model_pick(uint64_t n)
{
	return n ? sim_rand() % n : 0;
}

void model_flushed(struct model *m)
{
	for (unsigned i = 0; i < NR_BLOBS; i++)
		for (unsigned k = 0; m->blobs[i].block && k < MAX_BLOCKS; k++)
			m->blobs[i].block[k].nr_old = 0;
}

int model_flush(struct model *m)
{
	struct model_blob *mb = &m->blobs[model_pick(NR_BLOBS)];
	int rc = mb->blob ? blob_rw(&m->b, mb->blob, BLOB_FLUSH, 0, 0, 0, NULL) : 0;

	if (!rc && mb->blob)
		model_flushed(m);
	else if (rc)
		ck_assert(m->cutting);
	return rc;
}

static void note(struct state *st, uint32_t stamp)
{
	if (st->nr_old >= NR_OLD)
		ck_abort_msg("too many stamps of a block");
	st->old[st->nr_old++] = st->now;
	st->now = stamp;
}

static bool room(struct model_blob *mb, uint64_t at, uint64_t nr)
{
	for (uint64_t i = at; i < at + nr; i++)
		if (mb->block[i].nr_old >= NR_OLD - 1)
			return false;
	return true;
}

/* One of several writes at once. */
struct shot {
	struct blob_io io;
	struct iovec iov[3];
	uint8_t *buf;
	uint64_t at, nr;
	uint32_t stamp;
	int status;
	unsigned *left;
	struct fiber_wait *wait;
};

static void shot_done(struct blob_io *io, int status)
{
	struct shot *s = container_of(io, struct shot, io);

	s->status = status;
	if (--*s->left == 0)
		fiber_wake(s->wait, 0);
}

static void shot_load(struct shot *s, struct model_blob *mb, enum blob_op op, unsigned flags)
{
	uint64_t cut = model_pick(s->nr * BLOCK), rest;

	s->buf = malloc(s->nr * BLOCK);
	for (uint64_t i = 0; i < s->nr * BLOCK / 4; i++)
		((uint32_t *)(void *)s->buf)[i] = s->stamp;
	s->iov[0] = (struct iovec){s->buf, cut};
	rest = s->nr * BLOCK - cut;
	s->iov[1] = (struct iovec){s->buf + cut, rest / 2};
	s->iov[2] = (struct iovec){s->buf + cut + rest / 2, rest - rest / 2};
	s->io = (struct blob_io){.done = shot_done,
				 .blob = mb->blob,
				 .iov = s->iov,
				 .iovcnt = 3,
				 .op = op,
				 .flags = flags,
				 .offset_blocks = s->at,
				 .nr_blocks = s->nr};
}

static void shot_settle(struct model *m, struct model_blob *mb, struct shot *s)
{
	bool fua = s->io.flags & BLOB_IO_FUA;

	if (s->status == -ENOSPC)
		m->nr_full++;
	else if (s->status)
		ck_assert_msg(m->cutting, "status %d", s->status);
	for (uint64_t i = s->at; i < s->at + s->nr; i++) {
		struct state *st = &mb->block[i];

		if (!s->status && fua)
			st->nr_old = 0;
		/* One that failed may have written some, or may do so in the remains of a power cut. */
		if (s->status) {
			uint32_t was = st->old[st->nr_old - 1];

			st->old[st->nr_old - 1] = st->now;
			st->now = was;
		}
	}
	/* A write that found no space in its second cluster has changed its first. */
	if (s->status == -ENOSPC && !blob_rw(&m->b, mb->blob, BLOB_READ, 0, s->at, s->nr, s->buf))
		for (uint64_t i = 0; i < s->nr; i++) {
			struct state *st = &mb->block[s->at + i];
			uint32_t got = *(uint32_t *)(void *)(s->buf + i * BLOCK),
				 *last = &st->old[st->nr_old - 1];

			if (got == *last) {
				*last = st->now;
				st->now = got;
			}
		}
	free(s->buf);
}

static void burst(struct model *m)
{
	struct model_blob *mb = &m->blobs[model_pick(NR_BLOBS)];
	struct shot shots[BURST];
	unsigned nr = 1 + model_pick(BURST), left = 0, used = 0;
	uint64_t at = mb->nr_blocks ? model_pick(mb->nr_blocks) : 0;
	struct fiber_wait wait;

	if (!mb->blob || mb->snapshot || !mb->nr_blocks)
		return;
	fiber_wait_init(&wait);
	for (unsigned i = 0; i < nr && at < mb->nr_blocks; i++) {
		struct shot *s = &shots[used];
		unsigned kind = model_pick(10);
		enum blob_op op = kind == 0 ? BLOB_UNMAP : kind == 1 ? BLOB_WRITE_ZEROES : BLOB_WRITE;

		s->at = at;
		s->nr = 1 + model_pick(model_pick(4) ? 12 : 150);
		if (s->nr > mb->nr_blocks - at)
			s->nr = mb->nr_blocks - at;
		at += s->nr + model_pick(2) * model_pick(20);
		if (!room(mb, s->at, s->nr))
			continue;
		s->stamp = op == BLOB_WRITE ? ++m->stamp : 0;
		s->left = &left;
		s->wait = &wait;
		shot_load(s, mb, op, model_pick(6) ? 0 : BLOB_IO_FUA);
		for (uint64_t k = s->at; k < s->at + s->nr; k++)
			note(&mb->block[k], s->stamp);
		used++;
	}
	left = used;
	for (unsigned i = 0; i < used; i++)
		blob_submit(m->b.ch, &shots[i].io);
	if (used)
		fiber_wait(&wait);
	for (unsigned i = 0; i < used; i++)
		shot_settle(m, mb, &shots[i]);
}

/* Reads a range and compares; after a power cut, learns which of the stamps it may have it has. */
void model_verify(struct model *m, struct model_blob *mb, uint64_t at, uint64_t nr, bool learn)
{
	uint32_t *buf = malloc(nr * BLOCK);
	int rc = blob_rw(&m->b, mb->blob, BLOB_READ, 0, at, nr, buf);

	ck_assert_msg(rc == 0 || m->cutting, "read %d", rc);
	for (uint64_t i = 0; i < nr && !rc; i++) {
		struct state *st = &mb->block[at + i];
		uint32_t got = buf[i * BLOCK / 4];
		bool ok = got == st->now;

		for (unsigned k = 1; k < BLOCK / 4; k++)
			if (buf[i * BLOCK / 4 + k] != got)
				ck_abort_msg("%s block %lu is torn: %u %u", mb->name, (unsigned long)(at + i),
					     got, buf[i * BLOCK / 4 + k]);
		/* A failed write may show as well. */
		for (unsigned k = 0; k < st->nr_old && !ok; k++)
			ok = (learn || m->nr_full || m->cutting) && got == st->old[k];
		if (!ok)
			ck_abort_msg("%s block %lu has %u, should have %u (%u older)", mb->name,
				     (unsigned long)(at + i), got, st->now, st->nr_old);
		if (learn) {
			st->now = got;
			st->nr_old = 0;
		}
	}
	free(buf);
}

static void verify_all(struct model *m, bool learn)
{
	for (unsigned i = 0; i < NR_BLOBS; i++)
		if (m->blobs[i].blob && m->blobs[i].nr_blocks)
			model_verify(m, &m->blobs[i], 0, m->blobs[i].nr_blocks, learn);
}

static void some_read(struct model *m)
{
	struct model_blob *mb = &m->blobs[model_pick(NR_BLOBS)];
	uint64_t at, nr;

	if (!mb->blob || !mb->nr_blocks)
		return;
	at = model_pick(mb->nr_blocks);
	nr = 1 + model_pick(mb->nr_blocks - at);
	model_verify(m, mb, at, nr, false);
}

static void some_create(struct model *m)
{
	struct model_blob *mb = &m->blobs[model_pick(NR_BLOBS)];
	struct blob_create_opts opts = {.name = mb->name, .thick = !model_pick(4)};
	int rc;

	if (mb->blob)
		return;
	snprintf(mb->name, sizeof(mb->name), "blob-%u", m->nr_names++);
	mb->nr_blocks = (1 + model_pick(MAX_BLOCKS / 64)) * 64;
	opts.size_bytes = mb->nr_blocks * BLOCK;
	rc = blob_create(m->b.store, &opts, &mb->blob);
	if (rc == -ENOSPC) {
		mb->blob = NULL;
		return;
	}
	ck_assert_int_eq(rc, 0);
	blob_open(mb->blob);
	mb->snapshot = false;
	mb->block = calloc(MAX_BLOCKS, sizeof(struct state));
}

static void some_attributes(struct model *m)
{
	struct model_blob *mb = &m->blobs[model_pick(NR_BLOBS)];
	char value[40];
	const void *got;
	uint16_t len;

	if (!mb->blob)
		return;
	if (model_pick(2)) {
		snprintf(mb->name, sizeof(mb->name), "renamed-%u", m->nr_names++);
		ck_assert_int_eq(blob_rename(mb->blob, mb->name), 0);
		return;
	}
	snprintf(value, sizeof(value), "v%u", m->nr_names++);
	ck_assert_int_eq(blob_set_xattr(mb->blob, "key", value, strlen(value)), 0);
	ck_assert_int_eq(blob_get_xattr(mb->blob, "key", &got, &len), 0);
	ck_assert_uint_eq(len, strlen(value));
	ck_assert_mem_eq(got, value, len);
}

static void checkpoint_behind(void *arg)
{
	struct model *m = arg;

	(void)store_checkpoint(m->b.store);
	m->nr_background--;
}

/* Nothing rots on this disk: what does not match is either a crash's, or a bug. */
static void check_sums(struct model *m)
{
	struct store_info info;

	store_get_info(m->b.store, &info);
	ck_assert_uint_eq(info.nr_bad, 0);
	ck_assert_uint_eq(info.nr_unknown, 0);
}

static void shut_blobs(struct model *m)
{
	check_sums(m);
	while (m->nr_background)
		fiber_sleep(100);
	for (unsigned i = 0; i < NR_BLOBS; i++)
		if (m->blobs[i].blob)
			blob_close(m->blobs[i].blob);
}

/* Marks are taken back while the short life of a simulated store lasts. */
static void hurry(struct model *m)
{
	if (m->b.store->csum)
		m->b.store->csum->tick_us = 1 + model_pick(3000);
}

static void find_blobs(struct model *m)
{
	hurry(m);
	ck_assert_uint_eq(store_check_memory(m->b.store, print_finding, NULL), 0);
	model_resolve(m);
	for (unsigned i = 0; i < NR_BLOBS; i++) {
		struct model_blob *mb = &m->blobs[i];

		if (!mb->blob)
			continue;
		mb->blob = store_find_blob(m->b.store, mb->name);
		ck_assert_msg(mb->blob, "%s is gone", mb->name);
		ck_assert_uint_eq(blob_nr_blocks(mb->blob), mb->nr_blocks);
		blob_open(mb->blob);
	}
}

static void reopen(struct model *m)
{
	ck_assert_uint_eq(store_check_memory(m->b.store, print_finding, NULL), 0);
	shut_blobs(m);
	bench_close(&m->b);
	bench_check(&m->b);
	bench_open(&m->b);
	find_blobs(m);
	model_flushed(m);
	verify_all(m, false);
}

static void crash(struct model *m)
{
	unsigned nr = 1 + model_pick(8);

	m->nr_crashes++;
	m->cutting = true;
	crash_disk_cut_at(m->b.disk, crash_disk_nr_events(m->b.disk) + 1 + model_pick(model_pick(2) ? 8 : 60));
	for (unsigned i = 0; i < nr && !m->pending.kind; i++) {
		unsigned what = model_pick(5);

		if (what == 0)
			model_flush(m);
		else if (what <= 2)
			model_operation(m);
		else
			burst(m);
	}
	shut_blobs(m);
	bench_crash(&m->b, CRASH_FATE_SEEDED, sim_rand());
	m->cutting = false;
	find_blobs(m);
	verify_all(m, true);
	m->nr_full = 0;
}

static void step(struct model *m)
{
	struct store_check_result result;

	switch (model_pick(40)) {
	case 0:
	case 1:
	case 2:
		some_create(m);
		break;
	case 3:
		model_delete(m);
		break;
	case 4:
		model_resize(m);
		break;
	case 5:
		model_snapshot(m);
		break;
	case 6:
		some_attributes(m);
		break;
	case 22:
		model_clone(m);
		break;
	case 23:
		model_revert(m);
		break;
	case 24:
		model_inflate(m);
		break;
	case 25:
		model_decouple(m);
		break;
	case 26:
		model_set_parent(m);
		break;
	case 7:
		if (!model_pick(8))
			reopen(m);
		break;
	case 8:
		ck_assert_int_eq(store_check_online(m->b.store, print_finding, NULL, NULL, &result), 0);
		ck_assert_uint_eq(result.nr_findings, 0);
		break;
	case 9:
		ck_assert_int_eq(store_checkpoint(m->b.store), 0);
		break;
	case 19:
	case 20:
	case 21:
		m->nr_background++;
		ck_assert_int_eq(fiber_spawn(thread_current(), "behind", checkpoint_behind, m), 0);
		fiber_sleep(model_pick(300));
		break;
	case 10:
		ck_assert_int_eq(store_wait_free(m->b.store), 0);
		break;
	case 11:
		crash(m);
		break;
	case 12:
	case 13:
	case 14:
		model_flush(m);
		break;
	case 15:
	case 16:
	case 17:
	case 18:
		some_read(m);
		break;
	default:
		burst(m);
	}
}

struct geometry {
	uint32_t disk_bytes, journal_pages;
	uint8_t leaf_shift, inner_shift;
	bool checksums;
	unsigned nr_steps;
};

static void run_model(void *arg)
{
	const struct geometry *g = arg;
	struct model *m = calloc(1, sizeof(*m));

	m->b.disk_bytes = g->disk_bytes;
	m->b.create.journal_pages = g->journal_pages;
	m->b.create.leaf_shift = g->leaf_shift;
	m->b.create.inner_shift = g->inner_shift;
	m->b.create.checksums = g->checksums;
	m->b.open.checksum_cache_bytes = 1;
	/* With all of the maps in memory, with next to nothing, and in between. */
	m->b.open.map_cache_tiny = true;
	m->b.open.map_cache_bytes = (uint64_t[]){16u << 20, 1, 1000, 4000}[model_pick(4)];
	bench_start(&m->b);
	hurry(m);
	for (unsigned i = 0; i < g->nr_steps; i++)
		step(m);
	reopen(m);
	shut_blobs(m);
	for (unsigned i = 0; i < NR_BLOBS; i++) {
		if (m->blobs[i].blob)
			ck_assert_int_eq(blob_delete(m->blobs[i].blob), 0);
		free(m->blobs[i].block);
	}
	ck_assert_int_eq(store_wait_free(m->b.store), 0);
	bench_close(&m->b);
	bench_check(&m->b);
	bench_end(&m->b);
	free(m);
}

static unsigned nr_seeds(void)
{
	const char *text = getenv("MODEL_SEEDS");

	return text ? atoi(text) : 3;
}

static void run_seeds(struct geometry g)
{
	const char *only = getenv("MODEL_SEED");

	for (unsigned seed = 1; seed <= nr_seeds() && !only; seed++)
		run_sim(seed, 1 + seed % 2, run_model, &g);
	if (only)
		run_sim(atoi(only), 1 + atoi(only) % 2, run_model, &g);
}

START_TEST(a_small_store_is_what_its_model_is)
{
	run_seeds((struct geometry){.disk_bytes = 10u << 20,
				    .journal_pages = 64,
				    .leaf_shift = 2,
				    .inner_shift = 2,
				    .nr_steps = 300});
}
END_TEST

START_TEST(a_store_with_a_tiny_journal_is_what_its_model_is)
{
	run_seeds((struct geometry){.disk_bytes = 10u << 20,
				    .journal_pages = 8,
				    .leaf_shift = 1,
				    .inner_shift = 1,
				    .nr_steps = 200});
}
END_TEST

START_TEST(a_store_that_is_often_full_is_what_its_model_is)
{
	run_seeds((struct geometry){.disk_bytes = 6u << 20,
				    .journal_pages = 16,
				    .leaf_shift = 2,
				    .inner_shift = 2,
				    .nr_steps = 300});
}
END_TEST

START_TEST(a_store_with_checksums_is_what_its_model_is)
{
	run_seeds((struct geometry){.disk_bytes = 10u << 20,
				    .journal_pages = 32,
				    .leaf_shift = 2,
				    .inner_shift = 2,
				    .checksums = true,
				    .nr_steps = 400});
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {a_small_store_is_what_its_model_is,
				      a_store_with_a_tiny_journal_is_what_its_model_is,
				      a_store_that_is_often_full_is_what_its_model_is,
				      a_store_with_checksums_is_what_its_model_is};

	return run_tests("model", tests, sizeof(tests) / sizeof(tests[0]));
}
