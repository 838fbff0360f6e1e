/*
 * Giving a blob another parent: what it has as its old parent has it becomes what the new one has; entries that differ stay.  A temporary
 * blob is made that shares the new parent's map (or, of an external bdev, has an empty one), the entries that differ are shared into it,
 * and in one record the blob takes its map.  First writes and unmaps wait meanwhile; a crash before that record leaves only the temporary
 * blob, which the next opening deletes.
 */
#include "blob/figures.h"

#include <stdio.h>

#define RUNS_A_RECORD 64u

struct overlay {
	struct blob *b, *old_parent, *to;
};

static bool entry_stays(const struct overlay *o, const struct leaf_pair *pair, uint64_t index)
{
	struct store *s = o->b->store;
	unsigned slot = map_slot(s, index, 0);

	return !entries_same(s, pair->a ? pair->a->slots[slot] : 0, pair->b ? pair->b->slots[slot] : 0);
}

/* Nothing of its own, and not what the old external bdev has there: that must not become what the new one has. */
static bool reads_zero(const struct overlay *o, const struct leaf_pair *pair, uint64_t index)
{
	return o->to->external_clusters && index >= o->b->external_clusters &&
	       !(pair->a && pair->a->slots[map_slot(o->b->store, index, 0)]);
}

/* Records for one leaf, from *index on: as many runs as fit one operation. */
static void overlay_leaf(struct overlay *o, const struct leaf_pair *pair, uint64_t *index, uint64_t leaf_end)
{
	struct store *s = o->b->store;
	unsigned nr_runs = 0;
	bool shared;

	journal_begin(s, 1400 + RUNS_A_RECORD * 20);
	while (*index < leaf_end && nr_runs < RUNS_A_RECORD) {
		bool zero = reads_zero(o, pair, *index);
		uint64_t first = *index;

		while (*index < leaf_end && entry_stays(o, pair, *index) && reads_zero(o, pair, *index) == zero)
			(*index)++;
		if (first == *index) {
			(*index)++;
			continue;
		}
		/* Empty entries, where the new parent has none either. */
		if (!zero && !pair->a && !map_leaf(o->to, first, &shared))
			continue;
		map_prepare_path(s, o->to, first);
		if (zero)
			rec_map_clear(s, o->to, first, *index - first);
		else
			rec_map_share(s, o->to, first, *index - first, o->b);
		nr_runs++;
	}
	journal_end(s);
}

/* The next leaf that differs, with the way to where it is shared into: all in memory until the owner does something else. */
static fiber_fn int overlay_next(struct overlay *o, struct leaf_pair *pair, uint64_t *index, uint64_t end)
{
	struct store *s = o->b->store;
	struct node_wait miss;
	int rc;

	cache_hold(s, true);
	rc = pair_load(s, pair, *index, end, index);
	while (!rc && *index < end && path_missing(o->to, *index, &miss)) {
		rc = map_load(o->to, *index);
		if (!rc)
			rc = pair_load(s, pair, *index, end, index);
	}
	cache_hold(s, false);
	return rc;
}

static fiber_fn int overlay(struct overlay *o)
{
	struct store *s = o->b->store;
	uint64_t index = 0, end = o->b->nr_clusters;
	struct admission admission = {0};
	int rc = 0;

	while (!rc && !s->stopping) {
		struct leaf_pair pair = {.map_a = o->b, .map_b = o->old_parent};
		uint64_t leaf_end;

		rc = overlay_next(o, &pair, &index, end);
		if (rc || index >= end)
			return rc;
		if (pair.lost)
			return -EIO;
		rc = admit_wait(s, &admission, 2 * freeing_pages(s) + map_path_pages(o->to, index), OP_THIN);
		if (rc)
			return rc;
		/* Both maps stand still, but not their memory. */
		rc = overlay_next(o, &pair, &index, end);
		if (rc) {
			admit_release(s, &admission);
			return rc;
		}
		leaf_end = ((index >> s->leaf_shift) + 1) << s->leaf_shift;
		overlay_leaf(o, &pair, &index, leaf_end < end ? leaf_end : end);
		admit_release(s, &admission);
		if (!store_writable(s))
			rc = -EIO;
		fiber_yield();
	}
	return rc ? rc : -ESHUTDOWN;
}

/* --- zeros that no entry says --- */

static fiber_fn int load_both(struct overlay *o, uint64_t index)
{
	struct node_wait miss;
	int rc = 0;

	cache_hold(o->b->store, true);
	while (!rc && (path_missing(o->b, index, &miss) || path_missing(o->to, index, &miss))) {
		rc = map_load(o->b, index);
		if (!rc)
			rc = map_load(o->to, index);
	}
	cache_hold(o->b->store, false);
	return rc;
}

/* Within one leaf, from *index on: runs of what neither map has an entry for, as many as fit one operation. */
static int zeros_of_leaf(struct overlay *o, uint64_t *ret_index, uint64_t end)
{
	struct store *s = o->b->store;
	uint64_t index = *ret_index;
	struct node *b, *to;
	unsigned nr_runs = 0;
	bool shared;

	if ((b = map_leaf(o->b, index, &shared)) && b->lost)
		return -EIO;
	journal_begin(s, 1400 + RUNS_A_RECORD * 20);
	while (index < end && nr_runs < RUNS_A_RECORD) {
		uint64_t first = index;

		to = map_leaf(o->to, index, &shared);
		while (index < end && !leaf_entry(o->b, index, b).partial && !leaf_entry(o->b, index, b).own &&
		       !(to && to->slots[map_slot(s, index, 0)]))
			index++;
		if (first == index) {
			index++;
			continue;
		}
		map_prepare_path(s, o->to, first);
		rec_map_clear(s, o->to, first, index - first);
		nr_runs++;
	}
	journal_end(s);
	*ret_index = index;
	return store_writable(s) ? 0 : -EIO;
}

/* Where the old parent shows more of its external bdev than the blob, equal entries are not equal bytes: what reads zero there stays so. */
static fiber_fn int keep_zeros(struct overlay *o)
{
	struct store *s = o->b->store;
	uint64_t index = o->b->external_clusters, end = o->b->nr_clusters;
	struct admission admission = {0};
	int rc = 0;

	if (!o->old_parent)
		return 0;
	if (end > o->old_parent->external_clusters)
		end = o->old_parent->external_clusters;
	if (end > o->to->external_clusters)
		end = o->to->external_clusters;
	while (!rc && index < end) {
		uint64_t leaf_end = ((index >> s->leaf_shift) + 1) << s->leaf_shift;

		if (s->stopping)
			return -ESHUTDOWN;
		rc = load_both(o, index);
		if (!rc)
			rc = admit_wait(s, &admission, 2 * freeing_pages(s) + map_path_pages(o->to, index), OP_THIN);
		if (rc)
			return rc;
		rc = load_both(o, index);
		if (!rc)
			rc = zeros_of_leaf(o, &index, leaf_end < end ? leaf_end : end);
		admit_release(s, &admission);
		fiber_yield();
	}
	return rc;
}

static fiber_fn int take(struct blob *b, struct blob *from, uint64_t parent_id)
{
	struct store *s = b->store;
	struct admission admission = {0};
	int rc = admit_wait(s, &admission, 8, OP_FREEING);

	if (rc)
		return rc;
	if (from->slot < s->slot_hint)
		s->slot_hint = from->slot;
	blob_close(from);
	journal_begin(s, 64);
	rec_blob_take(s, b, from, parent_id);
	journal_end(s);
	b->map_seq++;
	blob_promise(b);
	admit_release(s, &admission);
	return store_writable(s) ? 0 : -EIO;
}

/* A blob without a map that shows the external bdev that an image names. */
static struct blob *make_empty(struct store *s, struct blob_image *image, const char *name)
{
	uint32_t slot = blob_free_slot(s);

	image->id = s->super.next_blob_id;
	image->flags = BLOB_FLAG_TEMPORARY | BLOB_FLAG_EXTERNAL;
	image->created_ms = clock_wall_ms();
	image->nr_differ = UINT32_MAX;
	image->name = name;
	image->name_len = strlen(name);
	image->xattrs = (const uint8_t *)"";
	store_new_uuid(image->uuid);
	journal_begin(s, 8 + BLOB_PAYLOAD_MAX);
	rec_blob(s, REC_BLOB_CREATE, slot, image);
	journal_end(s);
	return store_writable(s) ? s->slots[slot] : NULL;
}

/* snapshot: the new parent; NULL: image names an external bdev. */
static fiber_fn int make_temporary(struct blob *b, struct blob *snapshot, struct blob_image *image, struct blob **ret_blob)
{
	struct store *s = b->store;
	struct admission admission = {0};
	struct blob_copy_opts opts = {0};
	char name[64];
	int rc = admit_wait(s, &admission, 6, OP_THIN);

	if (rc)
		return rc;
	snprintf(name, sizeof(name), "/parent/%llu", (unsigned long long)b->id);
	opts.name = name;
	rc = blob_check_name(s, name, NULL);
	if (!rc) {
		*ret_blob = snapshot ? blob_make_copy(snapshot, &opts, BLOB_FLAG_TEMPORARY, 0, (const uint8_t *)"", 0)
				     : make_empty(s, image, name);
		rc = *ret_blob ? 0 : -EIO;
	}
	admit_release(s, &admission);
	if (!rc)
		blob_open(*ret_blob);
	return rc;
}

static fiber_fn int set_parent(struct blob *b, struct blob *snapshot, struct blob_image *image)
{
	struct overlay o = {.b = b, .old_parent = blob_parent(b)};
	int rc = blob_need(o.old_parent);

	if (rc)
		return rc;
	rc = make_temporary(b, snapshot, image, &o.to);
	if (!rc) {
		rc = overlay(&o);
		if (!rc)
			rc = keep_zeros(&o);
		if (!rc)
			rc = take(b, o.to, snapshot ? snapshot->id : 0);
		else {
			blob_close(o.to);
			(void)blob_delete(o.to); /* else the next opening does */
		}
	}
	blob_unneed(o.old_parent);
	return rc;
}

fiber_fn int blob_set_parent(struct blob *b, struct blob *snapshot)
{
	struct store *s = b->store;
	struct range_lock lock;
	int rc;

	if (snapshot == b || snapshot->store != s || !(snapshot->flags & BLOB_FLAG_SNAPSHOT) ||
	    snapshot->nr_clusters != b->nr_clusters || !blob_same_external(b, snapshot))
		return -EINVAL;
	if (b->frozen || blob_is_thick(b))
		return -EPERM;
	if (b->parent_id == snapshot->id)
		return -EEXIST;
	blob_open(b);
	blob_open(snapshot);
	fiber_lock(&b->mutex);
	rc = blob_wait_trimmed(b);
	range_lock_init(&lock, 0, UINT64_MAX, NULL);
	range_lock_wait(b, &lock);
	if (!rc && (snapshot->nr_clusters != b->nr_clusters || blob_is_thick(b) || !blob_same_external(b, snapshot)))
		rc = -EINVAL;
	if (!rc)
		rc = set_parent(b, snapshot, NULL);
	range_unlock(b, &lock);
	if (!rc)
		rc = journal_commit_wait(s, false) ? -EIO : 0;
	fiber_unlock(&b->mutex);
	blob_close(snapshot);
	blob_close(b);
	return rc;
}

/* --- an external bdev --- */

/* What a blob without a parent does not have becomes the bdev's: no entry changes. */
static fiber_fn int show_external(struct blob *b, const struct blob_image *with)
{
	struct store *s = b->store;
	struct admission admission = {0};
	struct blob_image image;
	int rc = admit_wait(s, &admission, 2, OP_FREEING);

	if (rc)
		return rc;
	blob_to_image(b, &image);
	image.flags |= BLOB_FLAG_EXTERNAL;
	image.external_clusters = with->external_clusters;
	uuid_copy(image.external, with->external);
	journal_begin(s, 8 + BLOB_PAYLOAD_MAX);
	rec_blob(s, REC_BLOB_ATTR, b->slot, &image);
	journal_end(s);
	b->map_seq++;
	admit_release(s, &admission);
	return store_writable(s) ? 0 : -EIO;
}

static bool shows(const struct blob *b, const struct blob_image *image)
{
	const struct external *ext = b->external;

	return !b->parent_id && ext && b->external_clusters == image->external_clusters && !uuid_compare(ext->uuid, image->external);
}

/* First writes and unmaps are kept out. */
static fiber_fn int set_external(struct blob *b, const char *bdev_name)
{
	struct blob_image image = {.nr_clusters = b->nr_clusters};
	struct external *ext;
	int rc;

	if (!b->nr_clusters)
		return -EINVAL;
	rc = ext_choose(b->store, bdev_name, &image, &ext);
	if (rc)
		return rc;
	if (shows(b, &image))
		rc = -EEXIST;
	else
		rc = b->parent_id ? set_parent(b, NULL, &image) : show_external(b, &image);
	ext_put(ext); /* the blob has one of its own */
	return rc;
}

fiber_fn int blob_set_external(struct blob *b, const char *bdev_name)
{
	struct store *s = b->store;
	struct range_lock lock;
	int rc;

	if (b->frozen || blob_is_thick(b))
		return -EPERM;
	if (!store_writable(s))
		return -EROFS;
	blob_open(b);
	fiber_lock(&b->mutex);
	rc = blob_wait_trimmed(b);
	range_lock_init(&lock, 0, UINT64_MAX, NULL);
	range_lock_wait(b, &lock);
	ext_wait_left(s, bdev_name); /* last: another volume may let the bdev go at any time */
	if (!rc)
		rc = b->frozen || blob_is_thick(b) ? -EPERM : set_external(b, bdev_name);
	range_unlock(b, &lock);
	if (!rc)
		rc = journal_commit_wait(s, false) ? -EIO : 0;
	fiber_unlock(&b->mutex);
	blob_close(b);
	return rc;
}
