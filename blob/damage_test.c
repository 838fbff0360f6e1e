/*
 * Damage: every metadata page of a store with shared maps loses one copy, then both; superblocks and journal
 * pages go bad; pages with a right CRC say nonsense.  Nothing may be read that was not written, and what is
 * whole must be served.
 */
#include "blob/internal.h"
#include "blob/testing.h"

#define NR_BLOBS    5u
#define BLOB_BLOCKS 1024u

static struct crash_disk *spare(void)
{
	struct crash_disk_opts opts = {.nr_blocks = DISK_BYTES / BLOCK,
				       .block_size = BLOCK,
				       .atomic_blocks = 1,
				       .unmap_keeps = true,
				       .seed = 7,
				       .garbage = true};

	return crash_disk_create(&opts);
}

/* Block i of blob k, and of the snapshot taken of it, hold these. */
static uint8_t stamp(unsigned k, uint64_t i, bool snapshot)
{
	if (i % 7 == 3)
		return 0; /* never written */
	if (!snapshot && i % 5 == 1)
		return 100 + k;
	return 1 + k * 10 + i % 10;
}

static void write_stamps(struct bench *b, struct blob *blob, unsigned k, bool again)
{
	uint8_t buf[BLOCK];

	for (uint64_t i = 0; i < BLOB_BLOCKS; i += again ? 1 : 1) {
		if (!stamp(k, i, !again) || (again && i % 5 != 1))
			continue;
		memset(buf, stamp(k, i, !again), BLOCK);
		ck_assert_int_eq(blob_rw(b, blob, BLOB_WRITE, 0, i, 1, buf), 0);
	}
}

static void build(struct bench *b)
{
	b->create.leaf_shift = 2;
	b->create.inner_shift = 1;
	b->create.journal_pages = 32;
	bench_start(b);
	for (unsigned k = 0; k < NR_BLOBS; k++) {
		char name[32];
		struct blob *blob, *snap;

		snprintf(name, sizeof(name), "b%u", k);
		blob = make_blob(b, name, BLOB_BLOCKS * BLOCK);
		write_stamps(b, blob, k, false);
		if (k % 2) {
			snprintf(name, sizeof(name), "s%u", k);
			ck_assert_int_eq(blob_snapshot(blob, &(struct blob_copy_opts){ .name = name }, &snap), 0);
		}
		write_stamps(b, blob, k, true);
		blob_close(blob);
	}
}

/* Reads everything: each block is right, or, if allowed, cannot be read. How many could not. */
static unsigned read_all(struct bench *b, bool may_fail)
{
	struct blob *blob;
	uint8_t buf[8 * BLOCK];
	unsigned failed = 0;

	for (blob = store_first_blob(b->store); blob; blob = store_next_blob(blob)) {
		struct blob_info info;

		blob_get_info(blob, &info);
		if (info.name[0] == 'x')
			continue;
		blob_open(blob);
		for (uint64_t i = 0; i < BLOB_BLOCKS; i += 8) {
			int rc = blob_rw(b, blob, BLOB_READ, 0, i, 8, buf);

			failed += rc != 0;
			ck_assert_msg(rc == 0 || (rc == -EIO && may_fail), "read %d", rc);
			for (unsigned k = 0; k < 8 && !rc; k++)
				assert_blocks(buf + k * BLOCK, 1,
					      stamp(info.name[1] - '0', i + k, info.name[0] == 's'));
		}
		blob_close(blob);
	}
	return failed;
}

static void collect(struct store *s, struct u64_vec *refs)
{
	for (unsigned t = 0; t < NR_TABLES; t++) {
		struct mtable *table = &s->table[t];

		for (uint32_t l = 1; l <= table->height; l++)
			for (uint64_t i = 0; i < table->nr_level[l]; i++)
				if (table->level[l][i].ref.a) {
					vec_push(refs, table->level[l][i].ref.a);
					vec_push(refs, table->level[l][i].ref.b);
				}
		for (uint64_t c = 0; c < table->nr_chunks; c++)
			for (unsigned p = 0; table->chunks[c] && p < TABLE_FANOUT; p++)
				if (table->chunks[c][p].ref.a) {
					vec_push(refs, table->chunks[c][p].ref.a);
					vec_push(refs, table->chunks[c][p].ref.b);
				}
	}
}

static void spoil(struct bench *b, uint64_t page, unsigned at)
{
	uint8_t buf[PAGE_BYTES];

	memcpy(buf, (const uint8_t *)crash_disk_image(b->disk) + page * PAGE_BYTES, PAGE_BYTES);
	buf[at % PAGE_BYTES] ^= 0x40;
	crash_disk_poke(b->disk, page * PAGE_BYTES, buf, PAGE_BYTES);
}

struct found {
	unsigned nr[5];
	uint64_t page;
};

static void count_finding(const struct store_finding *finding, void *arg)
{
	struct found *f = arg;

	f->nr[finding->kind]++;
	f->page = finding->page;
	ck_assert(finding->text[0]);
}

static void check(struct bench *b, struct found *f)
{
	struct store_check_result result;
	struct blob_reason why;

	*f = (struct found){{0}, 0};
	(void)store_check("disk", count_finding, f, &result, &why);
}

static void shut(struct bench *b)
{
	bench_close(b);
}

static void one_copy_each(void *arg)
{
	struct bench b = {0};
	struct crash_disk *keep = spare();
	struct u64_vec refs = {0};
	struct store_info info;
	struct found f;

	log_set_level(LOG_ERROR);
	build(&b);
	ck_assert_uint_eq(read_all(&b, false), 0);
	ck_assert_int_eq(store_checkpoint(b.store), 0);
	shut(&b);
	bench_open(&b);
	shut(&b);
	bench_open(&b);
	collect(b.store, &refs);
	shut(&b);
	crash_disk_copy(keep, b.disk);
	for (size_t i = 0; i < refs.nr; i++) {
		crash_disk_copy(b.disk, keep);
		spoil(&b, refs.v[i], i * 97);
		check(&b, &f);
		ck_assert_uint_eq(f.nr[STORE_FINDING_COPY], 1);
		ck_assert_uint_eq(f.page, refs.v[i]);
		bench_open(&b);
		ck_assert_uint_eq(read_all(&b, false), 0); /* nodes of maps are read, and healed, when they are needed */
		store_get_info(b.store, &info);
		ck_assert_uint_eq(info.nr_degraded, 0);
		shut(&b);
		/* Opening reads copy B only where A is bad; where B is, the check says so, and the next
		 * opening... */
		if (i % 2 == 0) {
			check(&b, &f);
			ck_assert_uint_eq(f.nr[STORE_FINDING_COPY], 0);
		}
	}
	vec_free(&refs);
	crash_disk_destroy(keep);
	bench_end(&b);
}

START_TEST(one_bad_copy_of_any_page_costs_nothing_and_is_healed)
{
	run_sim(11, 1, one_copy_each, NULL);
}
END_TEST

static void both_copies_each(void *arg)
{
	struct bench b = {0};
	struct crash_disk *keep = spare();
	struct u64_vec refs = {0};
	struct store_info info;
	struct found f;
	unsigned nr_partly = 0;

	log_set_level(LOG_ERROR - 1);
	build(&b);
	shut(&b);
	bench_open(&b);
	shut(&b);
	bench_open(&b);
	collect(b.store, &refs);
	shut(&b);
	crash_disk_copy(keep, b.disk);
	for (size_t i = 0; i + 1 < refs.nr; i += 2) {
		unsigned failed;

		crash_disk_copy(b.disk, keep);
		spoil(&b, refs.v[i], i * 31 + 5);
		spoil(&b, refs.v[i + 1], i * 17 + 70);
		check(&b, &f);
		ck_assert_uint_ge(f.nr[STORE_FINDING_LOST], 1);
		bench_open(&b);
		failed = read_all(&b, true);
		store_get_info(b.store, &info);
		ck_assert_uint_ge(info.nr_degraded, 1);
		ck_assert_ptr_nonnull(store_degraded(b.store, 0));
		nr_partly += failed && failed < BLOB_BLOCKS / 8;
		shut(&b);
	}
	ck_assert_uint_gt(nr_partly, 0);
	vec_free(&refs);
	crash_disk_destroy(keep);
	bench_end(&b);
}

START_TEST(with_both_copies_of_a_page_gone_the_rest_is_served)
{
	run_sim(12, 1, both_copies_each, NULL);
}
END_TEST

/* Half of the blobs are deleted and taken apart, one gets a snapshot, and a new one takes all the space there is. */
static void go_on(struct bench *b, unsigned round)
{
	struct blob *blob = store_first_blob(b->store), *next, *snap;
	struct store_info info;
	uint8_t buf[BLOCK];
	int rc = 0;

	for (unsigned n = round; blob; blob = next, n++) {
		next = store_next_blob(blob);
		if (n % 2)
			ck_assert_int_eq(blob_delete(blob), 0);
	}
	while (b->store->nr_reap)
		fiber_sleep(100);
	blob = store_first_blob(b->store);
	if (blob)
		(void)blob_snapshot(blob, &(struct blob_copy_opts){.name = "x-snapshot"}, &snap);
	blob = make_blob(b, "x-new", BLOB_BLOCKS * 16 * BLOCK);
	memset(buf, 250, sizeof(buf));
	for (uint64_t i = 0; i < BLOB_BLOCKS * 16 && !rc; i += CLUSTER_BYTES / BLOCK)
		rc = blob_rw(b, blob, BLOB_WRITE, 0, i, 1, buf);
	ck_assert_msg(rc == 0 || rc == -ENOSPC, "write %d", rc);
	blob_close(blob);
	store_get_info(b->store, &info);
	ck_assert_msg(!info.read_only, "the store has failed");
}

static void lose_and_go_on(void *arg)
{
	struct bench b = {0};
	struct crash_disk *keep = spare();
	struct u64_vec refs = {0};
	struct blob *snap, *clone;

	log_set_level(LOG_ERROR - 1);
	build(&b);
	for (snap = store_first_blob(b.store); snap; snap = store_next_blob(snap)) {
		struct blob_info info;
		char name[32];

		blob_get_info(snap, &info);
		for (unsigned i = 0; i < 3 && !strcmp(info.name, "s1"); i++) {
			snprintf(name, sizeof(name), "s1c%u", i);
			ck_assert_int_eq(blob_clone(snap, &(struct blob_copy_opts){.name = name}, &clone), 0);
		}
	}
	shut(&b);
	bench_open(&b);
	collect(b.store, &refs);
	shut(&b);
	crash_disk_copy(keep, b.disk);
	for (size_t i = 0; i + 1 < refs.nr; i += 2) {
		const uint8_t *page = (const uint8_t *)crash_disk_image(keep) + refs.v[i] * PAGE_BYTES;
		bool node_counts = (get32(page + 4) & 0xff) == PAGE_NODE_COUNTS;

		for (unsigned half = 0; half < 2; half++) {
			crash_disk_copy(b.disk, keep);
			spoil(&b, refs.v[i], 5);
			spoil(&b, refs.v[i + 1], 70);
			bench_open(&b);
			go_on(&b, half);
			ck_assert(!read_all(&b, true) || !node_counts);
			bench_crash(&b, CRASH_FATE_KEEP_ALL, i);
			ck_assert(!read_all(&b, true) || !node_counts);
			shut(&b);
			if (node_counts)
				bench_check(&b); /* counted again, exactly */
		}
	}
	vec_free(&refs);
	crash_disk_destroy(keep);
	bench_end(&b);
}

START_TEST(with_both_copies_of_a_page_gone_deletes_free_nothing_that_others_have)
{
	run_sim(16, 1, lose_and_go_on, NULL);
}
END_TEST

static void superblocks(void *arg)
{
	struct bench b = {0};
	struct crash_disk *keep = spare();
	struct blob_reason why;
	struct store *s;

	log_set_level(LOG_ERROR - 1);
	build(&b);
	shut(&b);
	crash_disk_copy(keep, b.disk);
	for (unsigned i = 0; i < 2; i++) {
		crash_disk_copy(b.disk, keep);
		spoil(&b, i ? SUPER_PAGE_1 : SUPER_PAGE_0, 200);
		bench_open(&b);
		ck_assert_uint_eq(read_all(&b, false), 0);
		shut(&b);
		bench_check(&b); /* both are whole again */
	}
	crash_disk_copy(b.disk, keep);
	spoil(&b, SUPER_PAGE_0, 200);
	spoil(&b, SUPER_PAGE_1, 200);
	ck_assert_int_eq(store_open("disk", NULL, &s, &why), -EUCLEAN);
	ck_assert_ptr_nonnull(strstr(why.text, "superblock 0"));
	ck_assert_ptr_nonnull(strstr(why.text, "CRC"));
	crash_disk_destroy(keep);
	bench_end(&b);
}

START_TEST(one_superblock_is_enough_and_none_is_refused)
{
	run_sim(13, 1, superblocks, NULL);
}
END_TEST

static void reseal_super(struct bench *b, void (*change)(struct super *super, uint8_t *page))
{
	uint8_t page[PAGE_BYTES];
	struct super super;

	for (unsigned i = 0; i < 2; i++) {
		uint64_t at = (uint64_t)(i ? SUPER_PAGE_1 : SUPER_PAGE_0) * PAGE_BYTES;

		memcpy(page, (const uint8_t *)crash_disk_image(b->disk) + at, PAGE_BYTES);
		ck_assert_int_eq(super_decode(page, i, &super, NULL), 0);
		change(&super, page);
		super_encode(&super, i, page);
		crash_disk_poke(b->disk, at, page, PAGE_BYTES);
	}
}

static void too_new(struct super *super, uint8_t *page)
{
	super->incompat |= 1ull << 40;
}

static void too_big(struct super *super, uint8_t *page)
{
	super->nr_pages *= 2;
}

static void new_read_only_bit(struct super *super, uint8_t *page)
{
	super->ro_compat |= 2;
}

static void refusals(void *arg)
{
	struct bench b = {0};
	struct crash_disk *keep = spare();
	struct blob_reason why;
	struct store_label label;
	struct store_info info;
	struct store *s;

	log_set_level(LOG_ERROR - 1);
	bench_disk(&b);
	ck_assert_int_eq(store_open("disk", NULL, &s, &why), -EILSEQ);
	ck_assert_int_eq(store_probe("disk", &label, &why), -EILSEQ);
	ck_assert_int_eq(store_open("no such disk", NULL, &s, &why), -ENODEV);
	bdev_unregister_all();
	crash_disk_destroy(b.disk);
	build(&b);
	ck_assert_int_eq(store_open("disk", NULL, &s, &why), -EBUSY);
	shut(&b);
	crash_disk_copy(keep, b.disk);
	ck_assert_int_eq(store_probe("disk", &label, &why), 0);
	ck_assert_str_eq(label.name, "store");
	ck_assert_int_eq(store_create("disk", &b.create, NULL, &s, &why), -EEXIST);
	reseal_super(&b, too_new);
	ck_assert_int_eq(store_open("disk", NULL, &s, &why), -ENOTSUP);
	ck_assert_ptr_nonnull(strstr(why.text, "incompat"));
	crash_disk_copy(b.disk, keep);
	reseal_super(&b, too_big);
	ck_assert_int_eq(store_open("disk", NULL, &s, &why), -EUCLEAN);
	ck_assert_ptr_nonnull(strstr(why.text, "pages"));
	crash_disk_copy(b.disk, keep);
	reseal_super(&b, new_read_only_bit);
	bench_open(&b);
	store_get_info(b.store, &info);
	ck_assert(info.read_only);
	ck_assert_uint_eq(read_all(&b, false), 0);
	shut(&b);
	crash_disk_destroy(keep);
	bench_end(&b);
}

START_TEST(what_is_not_ours_too_new_or_damaged_is_refused_with_a_reason)
{
	run_sim(14, 1, refusals, NULL);
}
END_TEST

static void journal_damage(void *arg)
{
	struct bench b = {0};
	struct blob_reason why;
	struct store_info info;
	uint8_t buf[BLOCK] = {9};
	uint64_t first, last, page;
	struct blob *blob;
	struct found f;
	struct store *s;

	log_set_level(LOG_ERROR - 1);
	b.create.journal_pages = 64;
	bench_start(&b);
	blob = make_blob(&b, "b0", BLOB_BLOCKS * BLOCK);
	ck_assert_int_eq(store_checkpoint(b.store), 0);
	first = b.store->journal.start_seq;
	for (unsigned i = 0; i < 8; i++)
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, BLOB_IO_FUA, i * 64, 1, buf), 0);
	last = b.store->journal.open_seq;
	ck_assert_uint_ge(last - first, 8);
	page = b.store->super.journal_page + (first + 3) % 64;
	blob_close(blob);
	/* The process dies: no checkpoint. */
	crash_disk_cut_at(b.disk, crash_disk_nr_events(b.disk) + 1);
	blob_channel_put(b.ch);
	store_close(b.store);
	b.store = NULL;
	bdev_unregister_all();
	crash_disk_lose_power(b.disk, CRASH_FATE_KEEP_ALL, 1);
	crash_disk_cut_at(b.disk, 0);
	ck_assert_int_eq(bdev_crash_create("disk", b.disk, &b.bdev), 0);
	spoil(&b, page, 300);
	ck_assert_int_eq(store_open("disk", NULL, &s, &why), -EUCLEAN);
	ck_assert_msg(strstr(why.text, "journal page"), "%s", why.text);
	check(&b, &f);
	ck_assert_uint_eq(f.nr[STORE_FINDING_JOURNAL], 1);
	/* For reading, up to the damage. */
	b.open.read_only = true;
	bench_open(&b);
	store_get_info(b.store, &info);
	ck_assert(info.read_only);
	ck_assert_uint_eq(info.nr_degraded, 1);
	blob = store_first_blob(b.store);
	ck_assert_ptr_nonnull(blob);
	blob_open(blob);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 64, 1, buf), 0);
	ck_assert_uint_eq(buf[0], 9);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, 0, 64, 1, buf), -EROFS);
	blob_close(blob);
	bench_end(&b);
}

START_TEST(a_gap_in_what_was_durable_is_damage_not_a_torn_tail)
{
	run_sim(15, 1, journal_damage, NULL);
}
END_TEST

/* Changes a few bytes of one page and seals both copies again, so that only its sense can give it away. */
static void write_nonsense(struct bench *b, uint64_t a, uint64_t other)
{
	uint8_t page[PAGE_BYTES];
	uint64_t at[2] = {a, other};
	unsigned nr = 1 + sim_rand() % 4, where[4];
	uint8_t what[4];

	for (unsigned i = 0; i < nr; i++) {
		where[i] = PAGE_HEADER_BYTES + sim_rand() % (sim_rand() % 2 ? 64 : PAGE_PAYLOAD);
		what[i] = sim_rand();
	}
	for (unsigned c = 0; c < 2; c++) {
		struct page_id id;

		memcpy(page, (const uint8_t *)crash_disk_image(b->disk) + at[c] * PAGE_BYTES, PAGE_BYTES);
		id = (struct page_id){.type = get32(page + 4) & 0xff,
				      .store = get64(page + 8),
				      .address = get64(page + 16),
				      .owner = get64(page + 24),
				      .generation = get64(page + 32)};
		for (unsigned i = 0; i < nr; i++)
			page[where[i]] = what[i];
		page_seal(page, &id, get32(page + 40));
		crash_disk_poke(b->disk, at[c] * PAGE_BYTES, page, PAGE_BYTES);
	}
}

static void nonsense(void *arg)
{
	struct bench b = {0};
	struct crash_disk *keep = spare();
	struct u64_vec refs = {0};
	unsigned nr_refused = 0, nr_found = 0;
	struct blob_reason why;
	struct found f;

	log_set_level(LOG_ERROR - 1);
	build(&b);
	shut(&b);
	bench_open(&b);
	collect(b.store, &refs);
	shut(&b);
	crash_disk_copy(keep, b.disk);
	for (unsigned round = 0; round < 150; round++) {
		size_t i = sim_rand() % (refs.nr / 2) * 2;
		uint8_t buf[8 * BLOCK];
		struct blob *blob;

		crash_disk_copy(b.disk, keep);
		write_nonsense(&b, refs.v[i], refs.v[i + 1]);
		check(&b, &f);
		for (unsigned k = 0; k < 5; k++)
			nr_found += f.nr[k] != 0;
		b.open.read_only = round % 2;
		if (store_open("disk", &b.open, &b.store, &why)) {
			ck_assert(why.text[0]);
			nr_refused++;
			b.store = NULL;
			continue;
		}
		b.ch = blob_channel_get(b.store);
		for (blob = store_first_blob(b.store); blob; blob = store_next_blob(blob)) {
			blob_open(blob);
			for (uint64_t at = 0; at + 8 <= blob_nr_blocks(blob) && at < BLOB_BLOCKS; at += 8)
				(void)blob_rw(&b, blob, BLOB_READ, 0, at, 8, buf);
			blob_close(blob);
		}
		blob_channel_put(b.ch);
		(void)store_close(b.store);
		b.store = NULL;
	}
	ck_assert_uint_gt(nr_found, 40);
	(void)nr_refused;
	vec_free(&refs);
	crash_disk_destroy(keep);
	bench_end(&b);
}

START_TEST(nonsense_under_a_right_crc_is_survived_and_found)
{
	for (unsigned seed = 1; seed <= 3; seed++)
		run_sim(seed, 1, nonsense, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {one_bad_copy_of_any_page_costs_nothing_and_is_healed,
				      with_both_copies_of_a_page_gone_the_rest_is_served,
				      with_both_copies_of_a_page_gone_deletes_free_nothing_that_others_have,
				      one_superblock_is_enough_and_none_is_refused,
				      what_is_not_ours_too_new_or_damaged_is_refused_with_a_reason,
				      a_gap_in_what_was_durable_is_damage_not_a_torn_tail,
				      nonsense_under_a_right_crc_is_survived_and_found};

	return run_tests("damage", tests, sizeof(tests) / sizeof(tests[0]));
}
