/*
 * Snapshots, clones, and what follows from shared maps: revert, decouple, read-only.
 *
 * The moment of a snapshot is when its record makes the count of the map's root 2: one store to memory, which all threads
 * read before they write in place.  A write that looked the map up before goes to the shared cluster and is
 * in the snapshot; any that begins after it, on whatever thread, finds the root shared, goes to the owner and
 * is copied on write.  So no write is in the snapshot without those that had completed before it began.  The
 * snapshot is answered when the former have drained and all is durable; nothing else waits, but first writes
 * into clusters of the blob's own for those before them, and those that complete a sub-block from what is
 * still being drained.
 */
#include "blob/internal.h"

#define PAGES_A_COPY	  6u
#define CHILDREN_A_RECORD 16u /* that the deletion of their parent changes itself */

static int put_xattrs(const struct blob_copy_opts *opts, uint8_t *out)
{
	uint32_t at = 0;

	for (uint32_t i = 0; i < opts->nr_xattrs; i++) {
		const struct blob_xattr *x = &opts->xattrs[i];
		size_t key_len = x->key ? strlen(x->key) : 0;

		if (!key_len || key_len > 255)
			return -EINVAL;
		if (4 + key_len + x->value_len > BLOB_XATTR_MAX - at)
			return -E2BIG;
		out[at] = key_len;
		out[at + 1] = 0;
		put16(out + at + 2, x->value_len);
		memcpy(out + at + 4, x->key, key_len);
		memcpy(out + at + 4 + key_len, x->value, x->value_len);
		at += 4 + key_len + x->value_len;
	}
	return at;
}

static int check_copy(struct store *s, const struct blob_copy_opts *opts)
{
	int rc = blob_check_name(s, opts->name, NULL);

	if (!rc && !uuid_is_null(opts->uuid) && store_find_blob_uuid(s, opts->uuid))
		rc = -EEXIST;
	return rc;
}

struct blob *blob_make_copy(struct blob *from, const struct blob_copy_opts *opts, uint8_t flags,
			    uint64_t parent_id, const uint8_t *xattrs, uint16_t xattr_len)
{
	struct store *s = from->store;
	struct blob_image image = {
		.id = s->super.next_blob_id,
		.nr_clusters = from->nr_clusters,
		.flags = flags | (from->flags & BLOB_FLAG_TAIL),
		.name_len = strlen(opts->name),
		.xattr_len = xattr_len,
		.created_ms = clock_wall_ms(),
		.parent_id = parent_id,
		.nr_differ = UINT32_MAX,
		.name = opts->name,
		.xattrs = xattrs,
	};
	uint32_t slot = blob_free_slot(s);

	if (from->external_clusters) {
		image.flags |= BLOB_FLAG_EXTERNAL;
		image.external_clusters = from->external_clusters;
		uuid_copy(image.external, from->external->uuid);
	}

	uuid_copy(image.uuid, opts->uuid);
	if (uuid_is_null(image.uuid))
		store_new_uuid(image.uuid);
	journal_begin(s, 16 + BLOB_PAYLOAD_MAX);
	rec_blob_snapshot(s, from, slot, &image);
	journal_end(s);
	if (!store_writable(s))
		return NULL;
	blob_promise(s->slots[slot]);
	return s->slots[slot];
}

/* --- snapshots --- */

/* What a thick blob has of its own becomes shared, and is promised to it a second time. */
static uint64_t promise_again(const struct blob *b)
{
	return blob_is_thick(b) ? thick_promise(b->store, b->nr_clusters) - b->promised : 0;
}

/* First writes into the blob's own clusters are over, and none begins. */
static fiber_fn void own_begin(struct blob *b)
{
	b->snapshotting = true;
	while (b->nr_in_own)
		fiber_cond_wait(&b->own_idle);
}

static void own_end(struct blob *b)
{
	b->snapshotting = false;
	waiters_kick(&b->own_waiters);
}

static fiber_fn int take_snapshot(struct blob *b, const struct blob_copy_opts *opts, const uint8_t *xattrs,
				  uint16_t xattr_len, struct blob **ret_blob)
{
	struct blob *snapshot = NULL;
	int rc;

	own_begin(b);
	rc = check_copy(b->store, opts);
	if (!rc && clusters_unpromised(b->store) < promise_again(b))
		rc = -ENOSPC;
	if (!rc) {
		snapshot = blob_make_copy(b, opts, BLOB_FLAG_SNAPSHOT, b->parent_id, xattrs, xattr_len);
		rc = snapshot ? 0 : -EIO;
		b->map_seq++;
		b->draining = true;
		blob_promise(b);
	}
	own_end(b);
	if (b->draining && !BLOB_MUTANT(SNAPSHOT_NO_DRAIN))
		drain_writes(b);
	b->draining = false;
	waiters_kick(&b->drain_waiters);
	*ret_blob = snapshot;
	return rc;
}

fiber_fn int blob_snapshot(struct blob *b, const struct blob_copy_opts *opts, struct blob **ret_blob)
{
	struct store *s = b->store;
	struct admission admission = {.control = true};
	uint8_t xattrs[BLOB_XATTR_MAX];
	int len = put_xattrs(opts, xattrs), rc;

	rc = len < 0 ? len : check_copy(s, opts);
	if (rc)
		return rc;
	if (b->flags & BLOB_FLAG_SNAPSHOT)
		return -EPERM;
	blob_open(b);
	fiber_lock(&b->mutex);
	rc = blob_wait_trimmed(b);
	if (!rc)
		rc = promise_wait(s, promise_again(b));
	if (!rc)
		rc = admit_wait(s, &admission, PAGES_A_COPY, OP_THIN);
	if (!rc)
		rc = take_snapshot(b, opts, xattrs, len, ret_blob);
	admit_release(s, &admission);
	if (!rc) {
		blob_open(*ret_blob); /* nobody deletes it before its maker knows it */
		rc = !BLOB_MUTANT(SNAPSHOT_BEFORE_COMMIT) && journal_commit_wait(s, true) ? -EIO : 0;
		blob_close(*ret_blob);
	}
	fiber_unlock(&b->mutex);
	blob_close(b);
	return rc;
}

/* --- clones --- */

fiber_fn int blob_clone(struct blob *from, const struct blob_copy_opts *opts, struct blob **ret_blob)
{
	struct store *s = from->store;
	struct admission admission = {.control = true};
	uint8_t xattrs[BLOB_XATTR_MAX];
	int len = put_xattrs(opts, xattrs), rc;

	rc = len < 0 ? len : check_copy(s, opts);
	if (rc)
		return rc;
	if (!from->frozen)
		return -EPERM;
	blob_open(from);
	rc = admit_wait(s, &admission, PAGES_A_COPY, OP_THIN);
	if (!rc)
		rc = check_copy(s, opts);
	if (!rc) {
		*ret_blob = blob_make_copy(from, opts, 0, from->id, xattrs, len);
		rc = *ret_blob ? 0 : -EIO;
	}
	admit_release(s, &admission);
	if (!rc) {
		blob_open(*ret_blob);
		rc = journal_commit_wait(s, false) ? -EIO : 0;
		blob_close(*ret_blob);
	}
	blob_close(from);
	return rc;
}

/* --- revert --- */

fiber_fn int blob_revert(struct blob *b, struct blob *snapshot)
{
	struct store *s = b->store;
	struct admission admission = {.control = true};
	struct range_lock lock;
	uint64_t need;
	int rc;

	if (snapshot == b || snapshot->store != s || !(snapshot->flags & BLOB_FLAG_SNAPSHOT))
		return -EINVAL;
	if (b->frozen)
		return -EPERM;
	blob_open(b);
	blob_open(snapshot);
	fiber_lock(&b->mutex);
	rc = blob_wait_trimmed(b);
	need = blob_is_thick(b) ? thick_promise(s, snapshot->nr_clusters) : 0;
	if (!rc)
		rc = promise_wait(s, need > b->promised ? need - b->promised : 0);
	range_lock_init(&lock, 0, UINT64_MAX, NULL);
	range_lock_wait(b, &lock);
	if (!rc)
		rc = admit_wait(s, &admission, PAGES_A_COPY, OP_FREEING);
	need = blob_is_thick(b) ? thick_promise(s, snapshot->nr_clusters) : 0;
	if (!rc && need > b->promised && clusters_unpromised(s) < need - b->promised)
		rc = -ENOSPC;
	if (!rc) {
		journal_begin(s, 64);
		rec_blob_revert(s, b, snapshot);
		journal_end(s);
		b->map_seq++;
		b->degraded = snapshot->degraded;
		blob_promise(b);
	}
	admit_release(s, &admission);
	range_unlock(b, &lock);
	if (!rc)
		rc = journal_commit_wait(s, false) ? -EIO : 0;
	fiber_unlock(&b->mutex);
	blob_close(snapshot);
	blob_close(b);
	return rc;
}

/* --- parents --- */

/* Children of a blob, if they still are, become its parent's: whoever that is when there is room to say so. */
static fiber_fn int part(struct blob *parent, struct blob **children, uint32_t nr)
{
	struct store *s = parent->store;
	struct admission admission = {.control = true};
	int rc = admit_wait(s, &admission, nr + 1, OP_FREEING);

	if (rc)
		return rc;
	journal_begin(s, nr * 24);
	for (uint32_t i = 0; i < nr; i++)
		if (children[i]->parent_id == parent->id)
			rec_blob_parent(s, children[i], parent->parent_id);
	journal_end(s);
	admit_release(s, &admission);
	return store_writable(s) ? 0 : -EIO;
}

fiber_fn int blob_part_children(struct blob *b)
{
	struct blob *child, *some[CHILDREN_A_RECORD];
	int rc = 0;

	while (!rc && b->nr_children > CHILDREN_A_RECORD) {
		uint32_t nr = 0;

		for (child = blob_first_child(b); nr < CHILDREN_A_RECORD; child = blob_next_child(child)) {
			some[nr++] = child;
			child->nr_walks++;
		}
		rc = part(b, some, nr);
		for (uint32_t i = 0; i < nr; i++)
			some[i]->nr_walks--;
	}
	return rc;
}

fiber_fn int blob_decouple(struct blob *b)
{
	uint64_t parent_id = b->parent_id;
	struct blob *parent;
	int rc = -EINVAL;

	blob_open(b);
	fiber_lock(&b->mutex);
	parent = b->parent_id == parent_id ? blob_parent(b) : NULL;
	if (parent) {
		parent->nr_walks++; /* it is not deleted meanwhile */
		rc = part(parent, &b, 1);
		if (!rc)
			rc = journal_commit_wait(b->store, false) ? -EIO : 0;
		parent->nr_walks--;
	}
	fiber_unlock(&b->mutex);
	blob_close(b);
	return rc;
}

/* --- read-only --- */

fiber_fn int blob_set_read_only(struct blob *b)
{
	struct store *s = b->store;
	struct admission admission = {.control = true};
	struct range_lock lock;
	struct blob_image image;
	int rc;

	if (b->frozen)
		return 0;
	blob_open(b);
	fiber_lock(&b->mutex);
	atomic_store(&b->frozen, true);
	rc = blob_wait_trimmed(b);
	range_lock_init(&lock, 0, UINT64_MAX, NULL);
	range_lock_wait(b, &lock); /* first writes and unmaps that began before */
	drain_writes(b);
	if (!rc)
		rc = admit_wait(s, &admission, 2, OP_FREEING);
	range_unlock(b, &lock);
	if (!rc) {
		blob_to_image(b, &image);
		image.flags |= BLOB_FLAG_READ_ONLY;
		rc = blob_set_attrs(b, &image);
	}
	admit_release(s, &admission);
	atomic_store(&b->frozen, (b->flags & (BLOB_FLAG_READ_ONLY | BLOB_FLAG_SNAPSHOT)) != 0);
	blob_promise(b);
	fiber_unlock(&b->mutex);
	blob_close(b);
	return rc;
}
