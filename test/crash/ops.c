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
	snprintf(witness->wrong, sizeof(witness->wrong), "%s", what);
	printf("  seed %lu: in the workload: %s\n", (unsigned long)work.h->seed, what);
	fflush(stdout);
	_exit(3);
}

void fail_errno(const char *what, int rc)
{
	char text[128];

	snprintf(text, sizeof(text), "invariant 5, containment: %s: %s", what, strerror(-rc));
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
	uint32_t begun;
	struct iovec iov[8];
	struct bdev_io io = { .op = BDEV_READ, .iov = iov, .offset_blocks = r->first / per, .nr_blocks = r->nr / per };
	struct bdev_channel *ch = use(r->slot);
	const char *wrong;
	int rc;

	if (!ch)
		return false;
	begun = oracle_read_begin(work.h->oracle, r->slot, r->first, r->nr, least);
	io.iovcnt = scatter(iov, buf, (size_t)r->nr * ORACLE_BLOCK);
	rc = submit(ch, &io);
	wrong = oracle_read_end(work.h->oracle, r->slot, r->first, r->nr, least, begun, buf);
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
	if (rc != -EROFS || work.h->oracle->volumes[r->slot].read_only == ORACLE_NO) /* it may just have become so */
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

bool slot_is_free(unsigned i)
{
	return !work.slots[i].desc && !work.slots[i].controlled && !work.h->oracle->volumes[i].used;
}

bool slot_frozen(unsigned i)
{
	return work.h->oracle->volumes[i].snapshot || work.h->oracle->volumes[i].read_only != ORACLE_NO;
}

int slot_free(void)
{
	for (int k = ORACLE_MAX_VOLUMES - 1; k > 1; k--)
		if (slot_is_free(k))
			return k;
	return -1;
}

void slot_new_name(char *name, char kind)
{
	snprintf(name, ORACLE_NAME_MAX, "%c%05lu-%03u", kind, (unsigned long)++work.h->oracle->next_name,
		 work.h->oracle->next_generation);
}

fiber_fn void call_begin(unsigned i, const char *what)
{
	while (work.slots[i].controlled)
		fiber_sleep(5);
	work.slots[i].controlled = true;
	work.volume_call = what;
	if (work.nr_calls++)
		work.h->oracle->parents_vague = true;
}

bool call_end(unsigned i, int rc, bool may_lack_space)
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

	slot_new_name(name, 'v');
	oracle_create_begin(h->oracle, i, name, clusters * cluster_blocks(), !thin);
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
	slot_new_name(name, 'r');
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

fiber_fn void slot_wait_tail(unsigned i, uint64_t blocks)
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
		slot_wait_tail(i, blocks);
	}
	oracle_resize_begin(work.h->oracle, i, blocks);
	rc = lvol_resize(s->lvol, blocks * ORACLE_BLOCK);
	if (!call_end(i, rc, true))
		return;
	oracle_resize_end(work.h->oracle, i, rc == 0);
	s->usable = rc ? old : blocks;
}

fiber_fn void op_set_read_only(unsigned i)
{
	int rc;

	call_begin(i, "set read-only");
	oracle_read_only_begin(work.h->oracle, i);
	rc = lvol_set_read_only(work.slots[i].lvol);
	if (call_end(i, rc, false))
		oracle_read_only_end(work.h->oracle, i, true);
}

/* --- the store --- */

/* False: another is under way, or nobody knows what one has done. */
static bool store_call_begin(const char *what)
{
	if (work.store_controlled)
		return false;
	work.store_controlled = true;
	work.volume_call = what;
	return true;
}

static bool store_call_end(int rc)
{
	work.store_controlled = has_failed(work.volume_call ? work.volume_call : "a call on the store", rc, false);
	work.volume_call = NULL;
	witness->nr_calls++;
	return !work.store_controlled;
}

fiber_fn void op_rename_store(void)
{
	char name[ORACLE_NAME_MAX];
	int rc;

	if (!store_call_begin("rename the store"))
		return;
	slot_new_name(name, 'p');
	oracle_store_rename_begin(work.h->oracle, name);
	rc = lvol_store_rename(lvol_store_first(), name);
	if (store_call_end(rc))
		oracle_store_rename_end(work.h->oracle, true);
}

fiber_fn void op_grow_store(void)
{
	const struct history *h = work.h;
	uint64_t all = h->disk_opts.nr_blocks, now = h->oracle->store.disk_blocks, more = all / 8 + cluster_blocks() / 2;
	int rc;

	if (!store_call_begin("grow the store"))
		return;
	now = all - now < 2 * more ? all : now + more;
	oracle_store_grow_begin(h->oracle, now);
	crash_disk_show(h->disk, now);
	rc = lvol_store_grow(lvol_store_first());
	if (!store_call_end(rc))
		return;
	oracle_store_grow_end(h->oracle, true);
	witness->nr_grows++;
}
