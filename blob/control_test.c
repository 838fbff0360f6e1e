/* Operations on blobs and what a store says of itself: limits, space, promises, attributes, many of
 * everything. */
#include "blob/internal.h"
#include "blob/testing.h"

static void thousand(void *arg)
{
	struct bench b = {.disk_bytes = 64u << 20};
	struct blob_create_opts opts = {.size_bytes = 1 << 20};
	struct store_stats stats;
	struct blob *blob;
	char name[32];
	uint64_t start;
	unsigned nr = 0;

	b.create.journal_pages = 512;
	bench_start(&b);
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "volume-%u", i);
		opts.name = name;
		ck_assert_int_eq(blob_create(b.store, &opts, &blob), 0);
	}
	store_get_stats(b.store, &stats);
	ck_assert_uint_le(stats.nr_checkpoints, 12); /* at half a journal each, and one at the opening */
	ck_assert_uint_le(stats.nr_journal_pages, 1000);
	ck_assert_uint_eq(stats.nr_device_flushes, stats.nr_checkpoints); /* no data: nothing to flush */
	bench_close(&b);
	start = clock_now_us();
	bench_open(&b);
	ck_assert_uint_lt(clock_now_us() - start, 1000000);
	for (blob = store_first_blob(b.store); blob; blob = store_next_blob(blob)) {
		struct blob_info info;

		blob_get_info(blob, &info);
		snprintf(name, sizeof(name), "volume-%u", nr++);
		ck_assert_str_eq(info.name, name);
		ck_assert_ptr_eq(store_find_blob(b.store, name), blob);
		ck_assert_ptr_eq(store_find_blob_uuid(b.store, info.uuid), blob);
	}
	ck_assert_uint_eq(nr, 1000);
	while ((blob = store_first_blob(b.store)))
		ck_assert_int_eq(blob_delete(blob), 0);
	bench_close(&b);
	bench_check(&b);
	bench_end(&b);
}

START_TEST(a_thousand_blobs_are_made_without_a_checkpoint_each_and_found_again_in_order)
{
	run_sim(1, 1, thousand, NULL);
}
END_TEST

static void names(void *arg)
{
	struct bench b = {0};
	struct blob *one, *two;
	struct blob_create_opts opts = {.name = "one", .size_bytes = 1};
	char longest[BLOB_NAME_MAX + 2];
	struct blob_info info;

	bench_start(&b);
	ck_assert_int_eq(blob_create(b.store, &opts, &one), 0);
	blob_get_info(one, &info);
	ck_assert_uint_eq(info.nr_clusters, 1); /* rounded up */
	ck_assert_uint_eq(info.nr_allocated_clusters, 0);
	ck_assert(!uuid_is_null(info.uuid));
	ck_assert_int_eq(blob_create(b.store, &opts, &two), -EEXIST);
	opts.name = "two";
	uuid_copy(opts.uuid, info.uuid);
	ck_assert_int_eq(blob_create(b.store, &opts, &two), -EEXIST);
	uuid_clear(opts.uuid);
	opts.name = "";
	ck_assert_int_eq(blob_create(b.store, &opts, &two), -EINVAL);
	memset(longest, 'x', sizeof(longest));
	longest[BLOB_NAME_MAX + 1] = 0;
	opts.name = longest;
	ck_assert_int_eq(blob_create(b.store, &opts, &two), -EINVAL);
	longest[BLOB_NAME_MAX] = 0;
	ck_assert_int_eq(blob_create(b.store, &opts, &two), 0);
	ck_assert_int_eq(blob_rename(two, "one"), -EEXIST);
	ck_assert_int_eq(blob_rename(two, longest), 0);
	ck_assert_int_eq(blob_rename(two, "two"), 0);
	ck_assert_ptr_eq(store_find_blob(b.store, "two"), two);
	ck_assert_ptr_null(store_find_blob(b.store, longest));
	opts.name = "huge";
	opts.size_bytes = UINT64_MAX;
	ck_assert_int_eq(blob_create(b.store, &opts, &two), -EFBIG);
	ck_assert_int_eq(store_rename(b.store, "renamed"), 0);
	bench_close(&b);
	bench_open(&b);
	ck_assert_ptr_nonnull(store_find_blob(b.store, "one"));
	ck_assert_ptr_nonnull(store_find_blob(b.store, "two"));
	ck_assert_str_eq(b.store->super.name, "renamed");
	bench_end(&b);
}

START_TEST(names_and_uuids_are_unique_and_survive)
{
	run_sim(2, 1, names, NULL);
}
END_TEST

static void attributes(void *arg)
{
	struct bench b = {0};
	struct blob *blob;
	char big[BLOB_XATTR_MAX];
	const void *value;
	uint16_t len;

	memset(big, 'v', sizeof(big));
	bench_start(&b);
	blob = make_blob(&b, "one", 0);
	ck_assert_int_eq(blob_get_xattr(blob, "a", &value, &len), -ENODATA);
	ck_assert_int_eq(blob_set_xattr(blob, "", "1", 1), -EINVAL);
	ck_assert_int_eq(blob_set_xattr(blob, "a", big, BLOB_XATTR_MAX - 5), 0);
	ck_assert_int_eq(blob_set_xattr(blob, "b", "1", 1), -E2BIG);
	ck_assert_int_eq(blob_set_xattr(blob, "a", "123", 3), 0);
	ck_assert_int_eq(blob_set_xattr(blob, "b", "", 0), 0);
	ck_assert_int_eq(blob_set_xattr(blob, "c", "9", 1), 0);
	ck_assert_int_eq(blob_set_xattr(blob, "c", NULL, 0), 0);
	ck_assert_int_eq(blob_set_xattr(blob, "c", NULL, 0), -ENODATA);
	blob_close(blob);
	bench_close(&b);
	bench_open(&b);
	blob = store_find_blob(b.store, "one");
	ck_assert_int_eq(blob_get_xattr(blob, "a", &value, &len), 0);
	ck_assert_uint_eq(len, 3);
	ck_assert_mem_eq(value, "123", 3);
	ck_assert_int_eq(blob_get_xattr(blob, "b", &value, &len), 0);
	ck_assert_uint_eq(len, 0);
	ck_assert_int_eq(blob_get_xattr(blob, "c", &value, &len), -ENODATA);
	bench_end(&b);
}

START_TEST(attributes_are_set_changed_and_removed)
{
	run_sim(3, 1, attributes, NULL);
}
END_TEST

static uint64_t fill_up(struct bench *b, struct blob *blob, uint64_t nr_blocks)
{
	static uint8_t buf[CLUSTER_BYTES];
	uint64_t nr = 0;

	memset(buf, 0x77, sizeof(buf));
	for (uint64_t at = 0; at + 64 <= nr_blocks; at += 64, nr++) {
		int rc = blob_rw(b, blob, BLOB_WRITE, 0, at, 64, buf);

		if (rc) {
			ck_assert_int_eq(rc, -ENOSPC);
			break;
		}
	}
	return nr;
}

static void full(void *arg)
{
	struct bench b = {.disk_bytes = 8u << 20};
	static uint8_t buf[64 * BLOCK];
	struct store_info info;
	struct blob *blob, *other;
	uint64_t nr, again;

	b.create.journal_pages = 16;
	bench_start(&b);
	blob = make_blob(&b, "big", 64u << 20);
	nr = fill_up(&b, blob, 131072);
	ck_assert_uint_gt(nr, 150);
	store_get_info(b.store, &info);
	ck_assert(!info.read_only);
	/* Overwrites and reads go on; nothing written is lost. */
	for (uint64_t at = 0; at < nr * 64; at += 64) {
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, at, 64, buf), 0);
		assert_blocks(buf, 64, 0x77);
	}
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, BLOB_IO_FUA, 5, 1, buf), 0);
	/* Freeing works, in small steps, many times; what is freed can be had again. */
	for (unsigned round = 0; round < 40; round++) {
		uint64_t at = round % nr * 64;

		ck_assert_int_eq(blob_rw(&b, blob, BLOB_UNMAP, 0, at, 64, NULL), 0);
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, at, 64, buf), 0);
		assert_blocks(buf, 64, 0);
		memset(buf, 0x77, sizeof(buf));
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, 0, at, 64, buf), 0);
	}
	blob_close(blob);
	ck_assert_int_eq(blob_delete(blob), 0);
	other = make_blob(&b, "other", 64u << 20);
	again = fill_up(&b, other, 131072);
	ck_assert_uint_ge(again + 8, nr); /* it waited for all that was on its way back */
	blob_close(other);
	bench_close(&b);
	bench_check(&b);
	bench_end(&b);
}

START_TEST(a_full_store_says_so_keeps_everything_and_frees)
{
	for (unsigned seed = 4; seed < 8; seed++)
		run_sim(seed, 1, full, NULL);
}
END_TEST

static void promises(void *arg)
{
	struct bench b = {.disk_bytes = 8u << 20};
	struct blob_create_opts opts = {.name = "thick", .thick = true, .size_bytes = 3u << 20};
	struct store_info info;
	struct blob *thick, *thin, *more;
	uint64_t thick_blocks = (3u << 20) / BLOCK;

	b.create.journal_pages = 16;
	bench_start(&b);
	ck_assert_int_eq(blob_create(b.store, &opts, &thick), 0);
	blob_open(thick);
	store_get_info(b.store, &info);
	ck_assert_uint_ge(info.nr_reserved_clusters, (3u << 20) / CLUSTER_BYTES);
	opts.name = "too much";
	opts.size_bytes = 8u << 20;
	ck_assert_int_eq(blob_create(b.store, &opts, &more), -ENOSPC);
	ck_assert_int_eq(blob_resize(thick, 8u << 20), -ENOSPC);
	/* A thin blob takes all that is left; the thick one still gets all that it was promised. */
	thin = make_blob(&b, "thin", 64u << 20);
	(void)fill_up(&b, thin, 131072);
	ck_assert_uint_eq(fill_up(&b, thick, thick_blocks), thick_blocks / 64);
	blob_close(thick);
	blob_close(thin);
	bench_close(&b);
	bench_check(&b);
	bench_open(&b);
	store_get_info(b.store, &info);
	thick = store_find_blob(b.store, "thick");
	blob_open(thick);
	ck_assert_int_eq(blob_rw(&b, thick, BLOB_UNMAP, 0, 0, thick_blocks, NULL), 0);
	ck_assert_int_eq(store_wait_free(b.store), 0);
	ck_assert_uint_eq(fill_up(&b, thick, thick_blocks), thick_blocks / 64);
	blob_close(thick);
	bench_end(&b);
}

START_TEST(what_is_promised_to_a_thick_blob_nobody_else_gets)
{
	run_sim(5, 1, promises, NULL);
}
END_TEST

static void sizes(void *arg)
{
	struct bench b = {0};
	static uint8_t buf[64 * BLOCK];
	struct store_info before, after;
	struct blob *blob;

	bench_start(&b);
	blob = make_blob(&b, "one", 1u << 20);
	ck_assert_int_eq(store_wait_free(b.store), 0);
	store_get_info(b.store, &before);
	ck_assert_uint_eq(fill_up(&b, blob, 2048), 32);
	ck_assert_int_eq(blob_resize(blob, 256u << 10), 0);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 512, 1, buf), -ERANGE);
	ck_assert_int_eq(blob_resize(blob, 8u << 20), 0);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 448, 64, buf), 0);
	assert_blocks(buf, 64, 0x77);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 512, 64, buf), 0);
	assert_blocks(buf, 64, 0);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 16000, 64, buf), 0);
	assert_blocks(buf, 64, 0);
	ck_assert_int_eq(blob_resize(blob, 0), 0);
	ck_assert_int_eq(store_wait_free(b.store), 0);
	store_get_info(b.store, &after);
	ck_assert_uint_le(before.nr_free_clusters,
			  after.nr_free_clusters +
				  2 * (after.nr_metadata_clusters - before.nr_metadata_clusters));
	ck_assert_uint_eq(after.nr_coming_clusters, 0);
	blob_close(blob);
	bench_end(&b);
}

START_TEST(what_is_cut_off_is_freed_and_reads_zero_when_it_grows_again)
{
	run_sim(6, 1, sizes, NULL);
}
END_TEST

/* A first write that is on its way while what it writes is cut off. */
struct late_write {
	struct blob_io io;
	struct fiber_wait wait;
	bool over;
};

static void late_done(struct blob_io *io, int status)
{
	container_of(io, struct late_write, io)->over = true;
	fiber_wake(&container_of(io, struct late_write, io)->wait, status == -ERANGE ? 1 : status ? 2 : 0);
}

static void cut_under_write(void *arg)
{
	unsigned *refused = arg;
	struct bench b = {0};
	static uint8_t buf[8 * BLOCK];
	struct iovec iov = {buf, sizeof(buf)};
	struct store_info info;
	struct blob *blob;

	bench_start(&b);
	blob = make_blob(&b, "one", 1u << 20);
	for (unsigned turns = 0; turns < 16; turns++) {
		struct late_write w = {.io = {.done = late_done,
					      .blob = blob,
					      .op = BLOB_WRITE,
					      .iov = &iov,
					      .iovcnt = 1,
					      .offset_blocks = 1024,
					      .nr_blocks = 8}};
		int result;

		memset(buf, 0x55, sizeof(buf));
		fiber_wait_init(&w.wait);
		blob_submit(b.ch, &w.io);
		while (list_empty(&blob->locks) && !w.over) /* until its fill has begun */
			fiber_yield();
		ck_assert_int_eq(blob_resize(blob, 256u << 10), 0);
		result = fiber_wait(&w.wait);
		ck_assert_int_ne(result, 2); /* no other error */
		*refused += result;
		ck_assert_int_eq(blob_resize(blob, 1u << 20), 0);
		ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 1024, 8, buf), 0);
		assert_blocks(buf, 8, 0);
	}
	ck_assert_int_eq(store_wait_free(b.store), 0);
	store_get_info(b.store, &info);
	ck_assert_uint_eq(info.nr_coming_clusters, 0);
	blob_close(blob);
	bench_end(&b);
}

START_TEST(a_write_under_which_its_place_is_cut_off_leaves_nothing_behind)
{
	unsigned refused = 0;

	run_sim(9, 1, cut_under_write, &refused);
	ck_assert_uint_gt(refused, 0); /* the others were over before */
}
END_TEST

/* --- durability in numbers --- */

#define DEPTH 32u

struct fua {
	struct blob_io io;
	struct iovec iov;
	struct bench *b;
	unsigned *left, *more;
	struct fiber_wait *wait;
	uint8_t buf[4096];
};

static void fua_done(struct blob_io *io, int status)
{
	struct fua *f = container_of(io, struct fua, io);

	ck_assert_int_eq(status, 0);
	if (*f->more) {
		--*f->more;
		io->offset_blocks = (io->offset_blocks + DEPTH * 8) % 2048;
		blob_submit(f->b->ch, io);
	} else if (--*f->left == 0) {
		fiber_wake(f->wait, 0);
	}
}

static void fua_load(struct bench *b, struct blob *blob, unsigned total)
{
	struct fua *all = calloc(DEPTH, sizeof(*all));
	unsigned left = DEPTH, more = total - DEPTH;
	struct fiber_wait wait;

	fiber_wait_init(&wait);
	for (unsigned i = 0; i < DEPTH; i++) {
		struct fua *f = &all[i];

		*f = (struct fua){.b = b, .left = &left, .more = &more, .wait = &wait};
		f->iov = (struct iovec){f->buf, sizeof(f->buf)};
		f->io = (struct blob_io){.done = fua_done,
					 .blob = blob,
					 .iov = &f->iov,
					 .iovcnt = 1,
					 .op = BLOB_WRITE,
					 .flags = BLOB_IO_FUA,
					 .offset_blocks = i * 8,
					 .nr_blocks = 8};
		blob_submit(b->ch, &f->io);
	}
	fiber_wait(&wait);
	free(all);
}

static void grouping(void *arg)
{
	struct bench b = {0};
	struct crash_disk_stats before, after;
	struct blob *blob;

	b.create.journal_pages = 128;
	bench_start(&b);
	blob = make_blob(&b, "one", 1u << 20);
	crash_disk_get_stats(b.disk, &before);
	fua_load(&b, blob, 1024); /* first writes, then overwrites */
	crash_disk_get_stats(b.disk, &after);
	/* Flushes and writes through: what costs a device its time. */
	ck_assert_uint_lt(after.nr_flushes - before.nr_flushes + after.nr_fua_writes - before.nr_fua_writes,
			  1024 / 4);
	ck_assert_uint_lt(after.nr_flushes - before.nr_flushes, 1024 / 8);
	blob_close(blob);
	bench_end(&b);
}

START_TEST(fua_writes_at_depth_share_flushes)
{
	run_sim(7, 1, grouping, NULL);
}
END_TEST

static void failing(void *arg)
{
	struct bench b = {0};
	static uint8_t buf[64 * BLOCK];
	struct blob_create_opts opts = {.name = "two", .size_bytes = 1};
	struct store_info info;
	struct blob *blob, *two;

	bench_start(&b);
	blob = make_blob(&b, "one", 1u << 20);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, BLOB_IO_FUA, 0, 64, buf), 0);
	crash_disk_set_faults(b.disk, 0, 0, 1000000);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, 0, 0, 64, buf), 0);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_FLUSH, 0, 0, 0, NULL), -EIO);
	crash_disk_set_faults(b.disk, 0, 0, 0);
	/* Never retry and hope: what that flush should have covered may be gone. */
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_FLUSH, 0, 0, 0, NULL), -EIO);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_WRITE, 0, 0, 64, buf), -EROFS);
	ck_assert_int_eq(blob_rw(&b, blob, BLOB_READ, 0, 0, 64, buf), 0);
	ck_assert_int_eq(blob_create(b.store, &opts, &two), -EROFS);
	store_get_info(b.store, &info);
	ck_assert(info.read_only);
	ck_assert_ptr_nonnull(strstr(info.read_only_reason, "flush"));
	blob_close(blob);
	blob_channel_put(b.ch);
	ck_assert_int_eq(store_close(b.store), -EIO);
	b.store = NULL;
	b.ch = NULL;
	bench_open(&b);
	bench_end(&b);
}

START_TEST(a_failed_flush_makes_the_store_read_only)
{
	run_sim(8, 1, failing, NULL);
}
END_TEST

static void cancel_after_two(void *arg)
{
	struct progress *progress = arg;

	while (progress->done < 2)
		fiber_sleep(10);
	progress->cancel = true;
}

static void checking(void *arg)
{
	struct bench b = {0};
	struct blob_create_opts opts = {.size_bytes = 1 << 20};
	struct store_check_result result;
	struct progress progress = {0};
	char name[32];
	struct blob *blob;
	uint64_t whole;

	opts.name = name;
	bench_start(&b);
	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "volume-%u", i);
		ck_assert_int_eq(blob_create(b.store, &opts, &blob), 0);
	}
	ck_assert_int_eq(store_check_online(b.store, print_finding, NULL, &progress, &result), 0);
	ck_assert_uint_eq(result.nr_findings, 0);
	ck_assert_uint_eq(progress.done, result.nr_pages);
	whole = progress.done;
	progress.done = 0;
	ck_assert_int_eq(fiber_spawn(thread_current(), "cancel", cancel_after_two, &progress), 0);
	ck_assert_int_eq(store_check_online(b.store, print_finding, NULL, &progress, &result), -ECANCELED);
	ck_assert_uint_lt(progress.done, whole / 2);
	/* And what it held is free again. */
	ck_assert_int_eq(store_checkpoint(b.store), 0);
	while ((blob = store_first_blob(b.store)))
		ck_assert_int_eq(blob_delete(blob), 0);
	bench_close(&b);
	bench_check(&b);
	bench_end(&b);
}

START_TEST(an_online_check_ends_early_when_it_is_told_to)
{
	run_sim(9, 1, checking, NULL);
}
END_TEST

static void room_for_calls(void *arg)
{
	struct bench b = {0};
	struct blob *blob;
	struct store *s;
	struct admission data = {0}, call = {.control = true};
	char name[16];

	bench_start(&b);
	s = b.store;
	for (unsigned i = 0; i < 12; i++) {
		snprintf(name, sizeof(name), "volume-%u", i);
		blob = make_blob(&b, name, 1 << 20);
		blob_close(blob);
	}
	ck_assert_uint_ge(s->nr_dirty, 12);
	s->max_dirty = s->nr_dirty / 2;
	/* Nothing is waited for from here on. */
	ck_assert_int_eq(admit(s, &data, 1, OP_FREEING), -EAGAIN);
	ck_assert_int_eq(admit(s, &call, 1, OP_FREEING), 0);
	admit_release(s, &call);
	s->max_dirty = s->nr_dirty / 3;
	ck_assert_int_eq(admit(s, &call, 1, OP_FREEING), -EAGAIN);
	s->max_dirty = 4096;
	bench_end(&b);
}

START_TEST(a_call_does_not_wait_behind_data_writes_that_fill_the_next_checkpoint)
{
	run_sim(10, 1, room_for_calls, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_thousand_blobs_are_made_without_a_checkpoint_each_and_found_again_in_order,
		names_and_uuids_are_unique_and_survive,
		attributes_are_set_changed_and_removed,
		a_full_store_says_so_keeps_everything_and_frees,
		what_is_promised_to_a_thick_blob_nobody_else_gets,
		what_is_cut_off_is_freed_and_reads_zero_when_it_grows_again,
		a_write_under_which_its_place_is_cut_off_leaves_nothing_behind,
		fua_writes_at_depth_share_flushes,
		a_failed_flush_makes_the_store_read_only,
		an_online_check_ends_early_when_it_is_told_to,
		a_call_does_not_wait_behind_data_writes_that_fill_the_next_checkpoint};

	return run_tests("control", tests, sizeof(tests) / sizeof(tests[0]));
}
