/* Operations of a workload; see ops.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/sim.h"
#include "test/crash/ops.h"

struct work work;

void workload_fail(const char *what)
{
	printf("  seed %lu: in the workload: %s\n", (unsigned long)work.h->seed, what);
	fflush(stdout);
	_exit(3);
}

void fail_errno(const char *what, int rc)
{
	char text[128];

	snprintf(text, sizeof(text), "%s: %s", what, strerror(-rc));
	workload_fail(text);
}

/* Whether a call failed because it was made to; ends the process when it failed otherwise. */
static bool has_failed(const char *what, int rc, bool may_lack_space)
{
	bool made_to = work.h->failing && (rc == -EIO || rc == -EROFS || rc == -ENOMEM || rc == -EPERM);

	if (rc && !made_to && !(may_lack_space && rc == -ENOSPC))
		fail_errno(what, rc);
	return made_to;
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

static void mark(const struct range *r, bool busy)
{
	struct oracle_block *blocks = oracle_blocks(work.h->oracle, r->slot);

	for (uint32_t b = r->first; b < r->first + r->nr; b++)
		blocks[b].busy = busy;
}

/* Changes keep out of each other's way; reads go anywhere. */
bool range_free(const struct range *r, bool reading)
{
	const struct oracle_block *blocks = oracle_blocks(work.h->oracle, r->slot);

	for (uint32_t b = r->first; b < r->first + r->nr && !reading; b++) {
		if (blocks[b].busy)
			return false;
	}
	return true;
}

/* NULL: no memory was to be had. */
static struct bdev_channel *use(unsigned slot)
{
	struct slot *s = &work.slots[slot];
	struct bdev_channel *ch;

	s->nr_users++;
	ch = bdev_channel_get(s->desc);
	if (!ch && !work.h->failing)
		workload_fail("no channel");
	if (!ch)
		s->nr_users--;
	return ch;
}

static void unuse(unsigned slot, struct bdev_channel *ch)
{
	bdev_channel_put(ch);
	work.slots[slot].nr_users--;
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

fiber_fn bool op_read(const struct range *r, char *buf)
{
	uint32_t per = work.slots[r->slot].per;
	struct oracle_least least[OPS_MAX_IO_BLOCKS];
	struct iovec iov[8];
	struct bdev_io io = { .op = BDEV_READ, .iov = iov, .offset_blocks = r->first / per, .nr_blocks = r->nr / per };
	struct bdev_channel *ch = use(r->slot);
	const char *wrong;
	int rc;

	if (!ch)
		return false;
	oracle_read_begin(work.h->oracle, r->slot, r->first, r->nr, least);
	io.iovcnt = scatter(iov, buf, (size_t)r->nr * ORACLE_BLOCK);
	rc = submit(ch, &io);
	wrong = oracle_read_end(work.h->oracle, r->slot, r->first, r->nr, least, buf);
	if (!has_failed("read", rc, false) && wrong)
		workload_fail(wrong);
	unuse(r->slot, ch);
	return !rc;
}

fiber_fn void op_change(const struct range *r, char *buf, enum bdev_op op, unsigned flags)
{
	uint32_t per = work.slots[r->slot].per, version;
	struct iovec iov[8];
	struct bdev_io io = { .op = op, .flags = flags, .iov = iov, .offset_blocks = r->first / per,
			      .nr_blocks = r->nr / per };
	struct bdev_channel *ch = use(r->slot);
	int rc;

	if (!ch)
		return;
	mark(r, true);
	version = oracle_change_begin(work.h->oracle, r->slot, r->first, r->nr, op != BDEV_WRITE);
	if (op == BDEV_WRITE) {
		oracle_fill(work.h->oracle, r->slot, r->first, r->nr, version, buf);
		io.iovcnt = scatter(iov, buf, (size_t)r->nr * ORACLE_BLOCK);
	}
	rc = submit(ch, &io);
	has_failed("change", rc, true);
	oracle_change_end(work.h->oracle, version, rc == 0, flags & BDEV_IO_FUA);
	mark(r, false);
	unuse(r->slot, ch);
}

fiber_fn void op_flush(unsigned slot)
{
	struct bdev_channel *ch = use(slot);
	uint64_t moment = oracle_flush_begin(work.h->oracle);
	struct bdev_io io = { .op = BDEV_FLUSH };
	int rc;

	if (!ch)
		return;
	rc = submit(ch, &io);
	if (!has_failed("flush", rc, false))
		oracle_flush_end(work.h->oracle, moment);
	unuse(slot, ch);
}

/* --- volumes --- */

void slot_open(unsigned i, struct lvol *lvol)
{
	struct slot *s = &work.slots[i];
	struct bdev *bdev = lvol_bdev(lvol);

	memset(s, 0, sizeof(*s));
	if (bdev_open_bdev(bdev, !bdev->read_only, NULL, NULL, &s->desc))
		workload_fail("a volume cannot be opened");
	s->lvol = lvol;
	s->per = bdev->block_size / ORACLE_BLOCK;
	s->usable = bdev->nr_blocks * s->per;
}

fiber_fn void slot_close(unsigned i)
{
	struct slot *s = &work.slots[i];

	s->closing = true;
	while (s->nr_users)
		fiber_sleep(5);
	bdev_close(s->desc);
	s->desc = NULL;
}

uint64_t cluster_blocks(void)
{
	struct store_info info;

	store_get_info(lvol_store_blobstore(lvol_store_first()), &info);
	return info.cluster_size_bytes / ORACLE_BLOCK;
}

static void new_name(char *name, char kind)
{
	snprintf(name, ORACLE_NAME_MAX, "%c%05lu-%03u", kind, (unsigned long)++work.h->oracle->next_name,
		 work.h->oracle->next_generation);
}

/* Names the call while it lasts, should it hang. */
static fiber_fn void call_begin(unsigned i, const char *what)
{
	while (work.slots[i].controlled)
		fiber_sleep(5);
	work.slots[i].controlled = true;
	work.volume_call = what;
	if (work.nr_calls++)
		work.h->oracle->parents_vague = true;
}

/* False: nobody knows whether it was done.  The volume then is left alone, and the oracle permits either. */
static bool call_end(unsigned i, int rc, bool may_lack_space)
{
	const char *what = work.volume_call;
	bool failed = has_failed(what ? what : "a call on a volume", rc, may_lack_space);

	work.slots[i].controlled = failed;
	work.volume_call = NULL;
	work.nr_calls--;
	witness->nr_calls++;
	return !failed;
}

fiber_fn void op_create(unsigned i, uint64_t clusters, bool thin)
{
	struct history *h = work.h;
	struct lvol_create_opts opts = { .thin = thin };
	char name[ORACLE_NAME_MAX];
	struct lvol *lvol;
	int rc;

	new_name(name, 'v');
	oracle_create_begin(h->oracle, i, name, clusters * cluster_blocks());
	uuid_copy(opts.uuid, h->oracle->volumes[i].uuid);
	opts.name = name;
	opts.size_bytes = clusters * cluster_blocks() * ORACLE_BLOCK;
	call_begin(i, "create");
	rc = lvol_create(lvol_store_first(), &opts, &lvol);
	if (!call_end(i, rc, true))
		return;
	oracle_create_end(h->oracle, i, rc == 0);
	if (!rc)
		slot_open(i, lvol);
}

fiber_fn void op_delete(unsigned i)
{
	int rc;

	call_begin(i, "delete");
	slot_close(i);
	oracle_delete_begin(work.h->oracle, i);
	rc = lvol_delete(work.slots[i].lvol);
	if (call_end(i, rc, false))
		oracle_delete_end(work.h->oracle, i, true);
}

fiber_fn void op_rename(unsigned i)
{
	char name[ORACLE_NAME_MAX];
	int rc;

	call_begin(i, "rename");
	new_name(name, 'r');
	oracle_rename_begin(work.h->oracle, i, name);
	rc = lvol_rename(work.slots[i].lvol, name);
	if (call_end(i, rc, false))
		oracle_rename_end(work.h->oracle, i, true);
}

fiber_fn void op_xattr(unsigned i)
{
	char value[ORACLE_XATTR_MAX];
	uint32_t len;
	int rc;

	call_begin(i, "set attribute");
	len = oracle_xattr_fill(oracle_xattr_begin(work.h->oracle, i), value);
	rc = lvol_set_xattr(work.slots[i].lvol, "lab", value, len);
	if (call_end(i, rc, false))
		oracle_xattr_end(work.h->oracle, i, true);
}

/* Waits until nothing is in flight beyond the new end. */
static fiber_fn void wait_tail(unsigned i, uint64_t blocks)
{
	const struct oracle_block *all = oracle_blocks(work.h->oracle, i);

	for (uint64_t b = blocks; b < work.h->oracle->max_blocks; b++) {
		while (all[b].busy || all[b].nr_readers)
			fiber_sleep(5);
	}
}

fiber_fn void op_resize(unsigned i, uint64_t clusters)
{
	struct slot *s = &work.slots[i];
	uint64_t old, blocks = clusters * cluster_blocks();
	int rc;

	call_begin(i, "resize");
	old = s->usable;
	if (blocks < old) {
		s->usable = blocks;
		wait_tail(i, blocks);
	}
	oracle_resize_begin(work.h->oracle, i, blocks);
	rc = lvol_resize(s->lvol, blocks * ORACLE_BLOCK);
	if (!call_end(i, rc, true))
		return;
	oracle_resize_end(work.h->oracle, i, rc == 0);
	s->usable = rc ? old : blocks;
}

/* --- snapshots --- */

bool slot_idle(unsigned i)
{
	const struct slot *s = &work.slots[i];

	return s->desc && !s->closing && !s->controlled;
}

int slot_snapshot_of(unsigned i, bool newest)
{
	const struct oracle_volume *all = work.h->oracle->volumes;
	int found = -1;

	for (unsigned k = 0; k < ORACLE_MAX_VOLUMES; k++)
		if (slot_idle(k) && all[k].snapshot && all[k].origin == all[i].generation &&
		    (found < 0 || (all[k].generation > all[found].generation) == newest))
			found = k;
	return found;
}

static int free_slot(void)
{
	for (int k = ORACLE_MAX_VOLUMES - 1; k > 1; k--)
		if (!work.slots[k].desc && !work.slots[k].controlled && !work.h->oracle->volumes[k].used)
			return k;
	return -1;
}

static fiber_fn void judge_snapshot(unsigned i)
{
	uint32_t nr = work.h->oracle->volumes[i].sizes[0], n;
	char *buf = aligned_alloc(4096, (size_t)nr * ORACLE_BLOCK);
	const char *wrong;
	bool seen = true;

	for (uint32_t b = 0; b < nr; b += n) {
		n = nr - b < OPS_MAX_IO_BLOCKS ? nr - b : OPS_MAX_IO_BLOCKS;
		seen &= op_read(&(struct range){ i, b, n }, buf + (size_t)b * ORACLE_BLOCK);
	}
	wrong = seen ? oracle_judge_snapshot(work.h->oracle, i, buf) : NULL;
	if (wrong)
		workload_fail(wrong);
	free(buf);
}

static fiber_fn int take(unsigned from, unsigned to, bool snapshot, struct lvol **ret_lvol)
{
	struct lvol_copy_opts opts = { 0 };
	char name[ORACLE_NAME_MAX];

	new_name(name, snapshot ? 's' : 'c');
	oracle_take_begin(work.h->oracle, to, from, snapshot, name);
	opts.name = name;
	uuid_copy(opts.uuid, work.h->oracle->volumes[to].uuid);
	return snapshot ? lvol_snapshot(work.slots[from].lvol, &opts, ret_lvol) :
			  lvol_clone(work.slots[from].lvol, &opts, ret_lvol);
}

static fiber_fn void take_into_slot(unsigned from, bool snapshot)
{
	struct lvol *lvol;
	int to, rc;

	call_begin(from, snapshot ? "snapshot" : "clone");
	to = free_slot();
	if (to < 0 || !oracle_can_take(work.h->oracle, from)) {
		call_end(from, 0, true);
		return;
	}
	rc = take(from, to, snapshot, &lvol);
	if (!call_end(from, rc, true))
		return;
	oracle_take_end(work.h->oracle, to, rc == 0);
	if (!rc) {
		slot_open(to, lvol);
		witness->nr_snapshots += snapshot;
		witness->nr_clones += !snapshot;
	}
	if (rc || !snapshot)
		return;
	/* Nobody else reads it before it is known what it caught. */
	work.slots[to].controlled = work.slots[to].closing = true;
	judge_snapshot(to);
	work.slots[to].controlled = work.slots[to].closing = false;
}

fiber_fn void op_snapshot(unsigned i)
{
	take_into_slot(i, true);
}

fiber_fn void op_clone(unsigned i)
{
	take_into_slot(i, false);
}

fiber_fn void op_revert(unsigned i, unsigned snapshot)
{
	struct slot *s = &work.slots[i];
	int rc;

	call_begin(i, "revert");
	call_begin(snapshot, "revert");
	work.nr_calls--; /* one call, on two */
	s->closing = true; /* nothing is in flight: what a write would do to which of the two is not for us to say */
	while (s->nr_users)
		fiber_sleep(5);
	oracle_revert_begin(work.h->oracle, i, snapshot);
	rc = lvol_revert(s->lvol, work.slots[snapshot].lvol);
	work.slots[snapshot].controlled = false;
	s->closing = false;
	if (!call_end(i, rc, true)) {
		s->usable = 0;
		return;
	}
	oracle_revert_end(work.h->oracle, i, rc == 0);
	witness->nr_reverts += rc == 0;
	s->usable = work.h->oracle->volumes[i].sizes[0];
}

/* Its parent is open meanwhile, and not to be deleted. */
fiber_fn void op_decouple(unsigned i)
{
	struct lvol *parent;
	struct lvol_info info;
	int rc, slot = -1;

	call_begin(i, "decouple");
	parent = lvol_parent(work.slots[i].lvol);
	if (parent) {
		lvol_get_info(parent, &info);
		slot = oracle_find(work.h->oracle, info.uuid);
	}
	if (slot < 0 || !slot_idle(slot)) {
		call_end(i, 0, false);
		return;
	}
	work.slots[slot].controlled = true;
	oracle_decouple_begin(work.h->oracle, i);
	rc = lvol_decouple(work.slots[i].lvol);
	work.slots[slot].controlled = false;
	if (call_end(i, rc, false))
		oracle_decouple_end(work.h->oracle, i, rc == 0);
}
