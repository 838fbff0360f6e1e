/*
 * storebench's other modes: first writes beside overwrites, deletes beside first writes, and recovery.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/bdev.h"
#include "tools/storebench.h"

/* --- first writes --- */

static void compare(const char *what, double rate, double overwrites)
{
	printf("%-48s %12.0f /s, overwrites %.2f times as fast\n", what, rate, overwrites / rate);
	fflush(stdout);
}

/* 4 KiB each, all of some GiB in a random order, on a core that does nothing else. */
fiber_fn void writes(struct store *store, struct blob_channel *ch, uint64_t gib)
{
	uint64_t nr = gib << 18;

	for (unsigned round = 0; round < 3; round++) {
		char name[32], snapshot[32];
		struct blob_create_opts opts = { .name = name, .size_bytes = gib << 30 };
		struct blob *volume;
		double first, after, over;

		snprintf(name, sizeof(name), "volume-%u", round);
		snprintf(snapshot, sizeof(snapshot), "snapshot-%u", round);
		check("create", blob_create(store, &opts, &volume));
		blob_open(volume);
		first = run(volume, ch, BLOB_WRITE, nr, 4096, ONCE);
		over = run(volume, ch, BLOB_WRITE, nr, 4096, ONCE);
		compare("first writes", first, over);
		copy(volume, snapshot, true);
		after = run(volume, ch, BLOB_WRITE, nr, 4096, ONCE);
		over = run(volume, ch, BLOB_WRITE, nr, 4096, ONCE);
		compare("first writes after a snapshot", after, over);
		blob_close(volume);
	}
}

/* --- recovery --- */

struct filler {
	struct blob *blob;
	struct blob_channel *ch;
	uint64_t nr_done, rng;
	unsigned nr_left;
	bool over;
	struct fiber_wait wait;
};

/* First writes to random places, until one fails. */
static void filler_fiber(void *arg)
{
	struct filler *f = arg;
	int rc = 0;

	while (!rc && !f->over) {
		struct iovec iov = { .iov_base = data, .iov_len = 4096 };
		struct blob_io io = { .blob = f->blob, .op = BLOB_WRITE, .iov = &iov, .iovcnt = 1, .nr_blocks = 1 };

		f->rng = f->rng * 6364136223846793005ull + 1442695040888963407ull;
		io.offset_blocks = (f->rng >> 16) % blob_nr_blocks(f->blob);
		rc = blob_submit_wait(f->ch, &io);
		f->nr_done += !rc;
	}
	if (!--f->nr_left)
		fiber_wake(&f->wait, 0);
}

static fiber_fn void fillers_start(struct filler *f)
{
	f->over = false;
	fiber_wait_init(&f->wait);
	f->nr_left = DEPTH;
	for (unsigned i = 0; i < DEPTH; i++)
		check("fiber", fiber_spawn(thread_current(), "filler", filler_fiber, f));
}

/* The journal as full as it gets: no write goes on. */
static fiber_fn void fill_journal(struct filler *f)
{
	uint64_t before = UINT64_MAX;

	hold_supers = true;
	f->rng = 1;
	fillers_start(f);
	while (before != f->nr_done) {
		before = f->nr_done;
		fiber_sleep(1000000);
	}
}

/* --- deletes --- */

/* Answers, while as many first writes wait for a checkpoint as may; and the space back. */
fiber_fn void deletes(struct store *store, struct blob_channel *ch, uint64_t tib)
{
	struct blob_create_opts opts = { .name = "other", .size_bytes = tib << 40 };
	struct filler f = { .ch = ch, .rng = 1 };
	uint64_t worst = 0;

	check("create", blob_create(store, &opts, &f.blob));
	blob_open(f.blob);
	for (unsigned round = 0; round < 5; round++) {
		struct blob *volume, *snapshot;
		uint64_t took;

		opts.name = "volume";
		check("create", blob_create(store, &opts, &volume));
		blob_open(volume);
		run(volume, ch, BLOB_WRITE, tib << 20, MIB, IN_ORDER);
		snapshot = copy(volume, "snapshot", true);
		blob_close(volume);
		check("delete", blob_delete(volume));
		fillers_start(&f);
		fiber_sleep(300000);
		begin();
		check("delete", blob_delete(snapshot));
		took = end("delete, beside first writes: answer");
		worst = took > worst ? took : worst;
		f.over = true;
		fiber_wait(&f.wait);
		begin();
		check("wait", store_wait_free(store));
		end("... space back");
		check("resize", blob_resize(f.blob, 0));
		check("wait", store_wait_free(store));
		check("resize", blob_resize(f.blob, tib << 40));
	}
	printf("%-48s %12llu\n", "the slowest answer", (unsigned long long)worst);
	blob_close(f.blob);
}

/* The process dies: nothing that is under way arrives. */
static fiber_fn void die(struct store *store, struct filler *f)
{
	device_dies();
	f->over = true;
	fiber_wait(&f->wait);
	blob_close(f->blob);
	blob_channel_put(f->ch);
	(void)store_close(store);
	bdev_unregister_all();
	check("device", sparse_register());
	dead = false;
}

fiber_fn void recovery(struct store *store, struct blob_channel *ch, uint64_t tib, const struct store_open_opts *open)
{
	struct blob_create_opts opts = { .name = "volume", .size_bytes = tib << 40 };
	struct filler f = { .ch = ch };
	struct store_stats stats;
	struct store_info info;
	uint64_t exclusive;

	check("create", blob_create(store, &opts, &f.blob));
	blob_open(f.blob);
	printf("%-48s %12.0f /s\n", "first writes, a cluster each", run(f.blob, ch, BLOB_WRITE, tib << 20, MIB, IN_ORDER));
	memory_now(store, "mapped, 4 KiB in each cluster");
	check("checkpoint", store_checkpoint(store));
	fill_journal(&f);
	store_get_info(store, &info);
	printf("%-48s %12llu\n", "random first writes without a checkpoint", (unsigned long long)f.nr_done);
	printf("%-48s %12u of %u\n", "pages of the journal in use", info.journal_used_pages, info.journal_pages);
	die(store, &f);
	nr_reads = nr_pages_read = 0;
	begin();
	check("open", store_open("sparse", open, &store, NULL));
	end("open after a kill");
	printf("%-48s %12llu in %llu reads\n", "pages read", (unsigned long long)nr_pages_read, (unsigned long long)nr_reads);
	store_get_stats(store, &stats);
	printf("%-48s %12llu, %llu nodes read\n", "records replayed", (unsigned long long)stats.recovered_records,
	       (unsigned long long)stats.nr_node_reads);
	memory_now(store, "after it");
	f.ch = blob_channel_get(store);
	f.blob = store_find_blob(store, "volume");
	blob_open(f.blob);
	begin();
	check("exclusive", blob_exclusive(f.blob, &exclusive));
	end("exclusive space, most of the map not in memory");
	printf("%-48s %12.0f /s\n", "random reads", run(f.blob, f.ch, BLOB_READ, 1000000, MIB, RANDOM));
	memory_now(store, "after those");
	blob_close(f.blob);
	blob_channel_put(f.ch);
	check("close", store_close(store));
}

