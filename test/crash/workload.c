/*
 * What runs until the power goes: several threads of seeded I/O on several volumes, and one fiber that creates, deletes,
 * resizes and renames them.  Everything is told to the oracle before it is asked of the store, and again when it is done;
 * reads are judged as they come.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lvol/lvol.h"
#include "runtime/sim.h"
#include "test/crash/history.h"

#define MAX_IO_BLOCKS 160u /* of 512 bytes */

/* A volume as the workload sees it.  Owner: app thread opens and closes; users are counted (one OS thread). */
struct slot {
	struct bdev_desc *desc;
	struct lvol *lvol;
	unsigned nr_users;
	bool closing;
	uint64_t usable; /* blocks of 512 bytes that I/O may touch: the lesser size while it is resized */
	uint32_t per;	 /* 512-byte blocks of an LBA */
};

static struct {
	struct history *h;
	struct slot slots[ORACLE_MAX_VOLUMES];
	unsigned ops_left, nr_running;
	struct fiber_wait over;
	/* what each kind of call is waiting for now, should it never end */
	unsigned nr_waiting[BDEV_NR_OPS];
	const char *volume_call;
} work;

/* Ends this process at once: the driver sees that the history is broken. */
static void fail(const char *what)
{
	printf("  seed %lu: in the workload: %s\n", (unsigned long)work.h->seed, what);
	fflush(stdout);
	_exit(3);
}

static void fail_errno(const char *what, int rc)
{
	char text[128];

	snprintf(text, sizeof(text), "%s: %s", what, strerror(-rc));
	fail(text);
}

void workload_print_waiting(void)
{
	static const char *const names[] = { "read", "write", "flush", "unmap", "write zeroes", "compare", "compare-and-write" };

	printf("  waiting: %s", work.volume_call ? work.volume_call : "no call on a volume");
	for (unsigned op = 0; op < BDEV_NR_OPS; op++) {
		if (work.nr_waiting[op])
			printf(", %u of %s", work.nr_waiting[op], names[op]);
	}
	printf("; %u operations to go\n", work.ops_left);
}

static fiber_fn int submit(struct bdev_channel *ch, struct bdev_io *io)
{
	int rc;

	work.nr_waiting[io->op]++;
	rc = bdev_submit_wait(ch, io);
	work.nr_waiting[io->op]--;
	return rc;
}

/* --- I/O --- */

struct range {
	unsigned slot;
	uint32_t first, nr;
};

static void mark(const struct range *r, bool busy)
{
	for (uint32_t b = r->first; b < r->first + r->nr; b++)
		work.h->oracle->volumes[r->slot].blocks[b].busy = busy;
}

/* A range that nobody is changing; false: not found this time. */
static bool pick(struct range *r)
{
	struct oracle_volume *v;
	struct slot *s;
	uint32_t max;

	r->slot = sim_rand() % ORACLE_MAX_VOLUMES;
	s = &work.slots[r->slot];
	v = &work.h->oracle->volumes[r->slot];
	if (!s->desc || s->closing || s->usable < s->per)
		return false;
	max = sim_rand() % 4 ? 12 : MAX_IO_BLOCKS;
	r->nr = (1 + sim_rand() % max + s->per - 1) / s->per * s->per;
	if (r->nr > s->usable)
		r->nr = s->usable;
	r->first = sim_rand() % ((s->usable - r->nr) / s->per + 1) * s->per;
	if (sim_rand() % 3 == 0) /* often the same places */
		r->first = r->first % (64 * s->per) / s->per * s->per;
	if (r->first + r->nr > s->usable)
		return false;
	for (uint32_t b = r->first; b < r->first + r->nr; b++) {
		if (v->blocks[b].busy)
			return false;
	}
	return true;
}

/* Cuts the buffer into a few pieces, as a host would. */
static uint32_t scatter(struct iovec *iov, char *buf, size_t len)
{
	uint32_t n = 0;

	while (len) {
		size_t piece = n < 3 && len > 512 && sim_rand() % 2 ? 512 * (1 + sim_rand() % (len / 512)) : len;

		iov[n++] = (struct iovec){ buf, piece };
		buf += piece;
		len -= piece;
	}
	return n;
}

static fiber_fn void one_read(struct bdev_channel *ch, const struct range *r, char *buf)
{
	uint32_t per = work.slots[r->slot].per;
	struct iovec iov[8];
	struct bdev_io io = { .op = BDEV_READ, .iov = iov, .offset_blocks = r->first / per, .nr_blocks = r->nr / per };
	const char *wrong;
	int rc;

	io.iovcnt = scatter(iov, buf, (size_t)r->nr * ORACLE_BLOCK);
	rc = submit(ch, &io);
	if (rc)
		fail_errno("read", rc);
	wrong = oracle_judge(work.h->oracle, r->slot, r->first, r->nr, buf, false);
	if (wrong)
		fail(wrong);
}

static fiber_fn void one_change(struct bdev_channel *ch, const struct range *r, char *buf, enum bdev_op op, unsigned flags)
{
	uint32_t per = work.slots[r->slot].per, version;
	struct iovec iov[8];
	struct bdev_io io = { .op = op, .flags = flags, .iov = iov, .offset_blocks = r->first / per,
			      .nr_blocks = r->nr / per };
	int rc;

	version = oracle_change_begin(work.h->oracle, r->slot, r->first, r->nr, op != BDEV_WRITE);
	if (op == BDEV_WRITE) {
		oracle_fill(work.h->oracle, r->slot, r->first, r->nr, version, buf);
		io.iovcnt = scatter(iov, buf, (size_t)r->nr * ORACLE_BLOCK);
	}
	rc = submit(ch, &io);
	if (rc && rc != -ENOSPC)
		fail_errno("change", rc);
	oracle_change_end(work.h->oracle, version, rc == 0, flags & BDEV_IO_FUA);
}

static fiber_fn void one_flush(struct bdev_channel *ch)
{
	uint64_t moment = oracle_flush_begin(work.h->oracle);
	struct bdev_io io = { .op = BDEV_FLUSH };
	int rc = submit(ch, &io);

	if (rc)
		fail_errno("flush", rc);
	oracle_flush_end(work.h->oracle, moment);
}

static fiber_fn void one_op(char *buf)
{
	unsigned what = sim_rand() % 100, fua = sim_rand() % work.h->fua_one_in ? 0 : BDEV_IO_FUA;
	bool flush = sim_rand() % 100 < work.h->flush_percent;
	struct bdev_channel *ch;
	struct range r;
	struct slot *s;

	if (!pick(&r)) {
		fiber_sleep(1 + sim_rand() % 50);
		return;
	}
	if (work.ops_left)
		work.ops_left--;
	s = &work.slots[r.slot];
	s->nr_users++;
	ch = bdev_channel_get(s->desc);
	if (!ch)
		fail("no channel");
	if (!flush)
		mark(&r, true);
	if (flush)
		one_flush(ch);
	else if (what < 20)
		one_read(ch, &r, buf);
	else if (what < 31)
		one_change(ch, &r, buf, BDEV_UNMAP, fua);
	else if (what < 37)
		one_change(ch, &r, buf, BDEV_WRITE_ZEROES, fua);
	else
		one_change(ch, &r, buf, BDEV_WRITE, fua);
	if (!flush)
		mark(&r, false);
	bdev_channel_put(ch);
	s->nr_users--;
}

static void ended(void *arg)
{
	if (--work.nr_running == 0)
		fiber_wake(&work.over, 0);
}

static void io_main(void *arg)
{
	char *buf = aligned_alloc(4096, MAX_IO_BLOCKS * ORACLE_BLOCK);

	while (work.ops_left) {
		one_op(buf);
		if (sim_rand() % 4 == 0 || work.h->pause_us > 200)
			fiber_sleep(sim_rand() % work.h->pause_us);
	}
	free(buf);
	thread_send(runtime_app_thread(), ended, NULL);
}

/* --- volumes --- */

static void slot_open(unsigned i, struct lvol *lvol)
{
	struct slot *s = &work.slots[i];
	struct bdev *bdev = lvol_bdev(lvol);

	memset(s, 0, sizeof(*s));
	if (bdev_open_bdev(bdev, true, NULL, NULL, &s->desc))
		fail("a volume cannot be opened");
	s->lvol = lvol;
	s->per = bdev->block_size / ORACLE_BLOCK;
	s->usable = bdev->nr_blocks * s->per;
}

static fiber_fn void slot_close(unsigned i)
{
	struct slot *s = &work.slots[i];

	s->closing = true;
	while (s->nr_users)
		fiber_sleep(5);
	bdev_close(s->desc);
	s->desc = NULL;
}

static fiber_fn void one_create(unsigned i)
{
	struct history *h = work.h;
	struct lvol_create_opts opts = { .thin = sim_rand() % 4 };
	struct store_info info;
	uint64_t clusters, per;
	char name[ORACLE_NAME_MAX];
	struct lvol *lvol;
	int rc;

	store_get_info(lvol_store_blobstore(lvol_store_first()), &info);
	per = info.cluster_size_bytes / ORACLE_BLOCK;
	clusters = 1 + sim_rand() % (h->max_blocks / per);
	snprintf(name, sizeof(name), "v%lu-%u", (unsigned long)++h->oracle->next_name, h->oracle->next_generation);
	oracle_create_begin(h->oracle, i, name, clusters * per);
	uuid_copy(opts.uuid, h->oracle->volumes[i].uuid);
	opts.name = name;
	opts.size_bytes = clusters * info.cluster_size_bytes;
	work.volume_call = "create";
	rc = lvol_create(lvol_store_first(), &opts, &lvol);
	work.volume_call = NULL;
	if (rc && rc != -ENOSPC)
		fail_errno("create", rc);
	oracle_create_end(h->oracle, i, rc == 0);
	if (!rc)
		slot_open(i, lvol);
}

static fiber_fn void one_delete(unsigned i)
{
	int rc;

	slot_close(i);
	oracle_delete_begin(work.h->oracle, i);
	work.volume_call = "delete";
	rc = lvol_delete(work.slots[i].lvol);
	work.volume_call = NULL;
	if (rc)
		fail_errno("delete", rc);
	oracle_delete_end(work.h->oracle, i, true);
}

static fiber_fn void one_rename(unsigned i)
{
	char name[ORACLE_NAME_MAX];
	int rc;

	snprintf(name, sizeof(name), "r%lu-%u", (unsigned long)++work.h->oracle->next_name,
		 work.h->oracle->next_generation);
	oracle_rename_begin(work.h->oracle, i, name);
	work.volume_call = "rename";
	rc = lvol_rename(work.slots[i].lvol, name);
	work.volume_call = NULL;
	if (rc)
		fail_errno("rename", rc);
	oracle_rename_end(work.h->oracle, i, true);
}

/* Waits until nothing is in flight beyond the new end. */
static fiber_fn void wait_tail(unsigned i, uint64_t blocks)
{
	const struct oracle_volume *v = &work.h->oracle->volumes[i];

	for (uint64_t b = blocks; b < ORACLE_MAX_BLOCKS; b++) {
		while (v->blocks[b].busy)
			fiber_sleep(5);
	}
}

static fiber_fn void one_resize(unsigned i, bool grow)
{
	struct slot *s = &work.slots[i];
	uint64_t old = s->usable, blocks, per;
	struct store_info info;
	int rc;

	store_get_info(lvol_store_blobstore(lvol_store_first()), &info);
	per = info.cluster_size_bytes / ORACLE_BLOCK;
	blocks = (1 + sim_rand() % (work.h->max_blocks / per)) * per;
	if (grow && blocks < old)
		blocks = work.h->max_blocks;
	if (blocks < old) {
		s->usable = blocks;
		wait_tail(i, blocks);
	}
	oracle_resize_begin(work.h->oracle, i, blocks);
	work.volume_call = "resize";
	rc = lvol_resize(s->lvol, blocks * ORACLE_BLOCK);
	work.volume_call = NULL;
	if (rc && rc != -ENOSPC)
		fail_errno("resize", rc);
	oracle_resize_end(work.h->oracle, i, rc == 0);
	s->usable = rc ? old : blocks;
}

/* What was cut off must not be seen again. */
static fiber_fn void shrink_and_grow(unsigned i)
{
	one_resize(i, false);
	if (sim_rand() % 2)
		one_resize(i, true);
}

static void control_main(void *arg)
{
	while (work.ops_left) {
		unsigned i = sim_rand() % ORACLE_MAX_VOLUMES, what = sim_rand() % 100;

		if (!work.slots[i].desc)
			one_create(i);
		else if (what < 30)
			one_delete(i);
		else if (what < 60)
			shrink_and_grow(i);
		else if (what < 75)
			one_rename(i);
		fiber_sleep(sim_rand() % 400);
	}
	ended(NULL);
}

/* --- a phase --- */

static fiber_fn void begin_store(struct history *h)
{
	const struct store_create_opts create = { .name = "store", .cluster_size_bytes = h->cluster_bytes,
						  .journal_pages = h->journal_pages, .leaf_shift = h->leaf_shift,
						  .inner_shift = h->inner_shift, .overwrite = true };
	struct blob_reason reason = { "" };
	struct store *store;
	int rc;

	h->oracle->may_have_store = true;
	rc = store_create("disk", &create, NULL, &store, &reason);
	if (rc) {
		printf("  %s\n", reason.text);
		fail_errno("store create", rc);
	}
	h->oracle->may_lack_store = false;
	rc = store_close(store);
	if (rc)
		fail_errno("store close", rc);
	rc = lvol_store_open("disk", NULL, &reason);
	if (rc)
		fail_errno("store open", rc);
}

static fiber_fn void begin_again(struct history *h)
{
	const char *wrong;
	bool no_store;

	wrong = verify_open(h, true, &no_store);
	if (wrong)
		fail(wrong);
	if (no_store) {
		begin_store(h);
		return;
	}
	for (struct lvol *lvol = lvol_first(lvol_store_first()); lvol; lvol = lvol_next(lvol)) {
		struct lvol_info info;

		lvol_get_info(lvol, &info);
		slot_open(oracle_find(h->oracle, info.uuid), lvol);
	}
}

static fiber_fn void run_workers(struct history *h)
{
	struct thread *threads[8];

	assert(h->nr_threads <= 8);
	work.ops_left = h->nr_ops;
	work.nr_running = 1 + h->nr_threads * h->nr_fibers;
	fiber_wait_init(&work.over);
	fiber_spawn(runtime_app_thread(), "control", control_main, NULL);
	for (unsigned i = 0; i < h->nr_threads; i++) {
		threads[i] = thread_create("io", i % runtime_nr_reactors());
		for (unsigned f = 0; f < h->nr_fibers; f++)
			fiber_spawn(threads[i], "io", io_main, NULL);
	}
	fiber_wait(&work.over);
	for (unsigned i = 0; i < h->nr_threads; i++)
		thread_exit(threads[i]);
}

void workload_main(void *arg)
{
	struct workload *w = arg;
	struct history *h = w->h;
	int rc;

	memset(&work, 0, sizeof(work));
	work.h = h;
	if (bdev_crash_create("disk", h->disk, NULL))
		fail("the disk cannot be shown");
	if (w->phase == 0)
		begin_store(h);
	else
		begin_again(h);
	run_workers(h);
	for (unsigned i = 0; i < ORACLE_MAX_VOLUMES; i++) {
		if (work.slots[i].desc)
			slot_close(i);
	}
	rc = lvol_store_close(lvol_store_first());
	if (rc)
		fail_errno("store close", rc);
	/* Closing makes everything durable. */
	oracle_flush_end(h->oracle, oracle_flush_begin(h->oracle));
	bdev_unregister_all();
	w->clean = true;
	runtime_stop(0);
}
