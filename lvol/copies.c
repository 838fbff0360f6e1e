/*
 * Snapshots, clones and what follows from them.  The data's part is the blobstore's; here they become volumes, and openers hear of
 * sizes.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lvol/internal.h"

static void copy_opts(const struct lvol_copy_opts *opts, struct blob_copy_opts *ret)
{
	*ret = (struct blob_copy_opts){ .name = opts->name, .xattrs = opts->xattrs, .nr_xattrs = opts->nr_xattrs };
	uuid_copy(ret->uuid, opts->uuid);
}

static fiber_fn int attach_copy(struct lvol_store *store, struct blob *blob, struct lvol **ret_lvol)
{
	int rc = lvol_attach(store, blob, ret_lvol);

	if (rc)
		blob_delete(blob);
	return rc;
}

fiber_fn int lvol_snapshot(struct lvol *lvol, const struct lvol_copy_opts *opts, struct lvol **ret_snapshot)
{
	struct blob_copy_opts copy;
	struct blob *blob;
	int rc = lvol_alias_free(lvol->store, opts->name, opts->uuid);

	if (!rc)
		rc = lvol_begin(lvol);
	if (rc)
		return rc;
	copy_opts(opts, &copy);
	rc = blob_snapshot(lvol->blob, &copy, &blob);
	if (!rc)
		rc = attach_copy(lvol->store, blob, ret_snapshot);
	lvol_end(lvol);
	return rc;
}

/* Many clones of one snapshot are made side by side, so its mutex is not taken. */
fiber_fn int lvol_clone(struct lvol *snapshot, const struct lvol_copy_opts *opts, struct lvol **ret_clone)
{
	struct blob_copy_opts copy;
	struct blob *blob;
	int rc = lvol_alias_free(snapshot->store, opts->name, opts->uuid);

	if (!rc)
		rc = lvol_use(snapshot);
	if (rc)
		return rc;
	copy_opts(opts, &copy);
	rc = blob_clone(snapshot->blob, &copy, &blob);
	if (!rc)
		rc = attach_copy(snapshot->store, blob, ret_clone);
	lvol_unuse(snapshot);
	return rc;
}

static fiber_fn int revert(struct lvol *lvol, struct lvol *snapshot)
{
	uint64_t before = bdev_nr_blocks(&lvol->bdev), wanted = bdev_nr_blocks(&snapshot->bdev);
	int rc;

	/* When it shrinks, nobody may write what is being cut off. */
	if (wanted < before)
		bdev_notify_resize(&lvol->bdev, wanted);
	rc = blob_revert(lvol->blob, snapshot->blob);
	if (rc ? wanted < before : wanted > before)
		bdev_notify_resize(&lvol->bdev, rc ? before : blob_nr_blocks(lvol->blob));
	return rc;
}

fiber_fn int lvol_revert(struct lvol *lvol, struct lvol *snapshot)
{
	int rc;

	if (lvol->store != snapshot->store || lvol == snapshot)
		return -EINVAL;
	rc = lvol_use(snapshot);
	if (rc)
		return rc;
	rc = lvol_begin(lvol);
	if (!rc) {
		if (store_is_read_only(lvol->store))
			rc = -EROFS;
		else if (lvol_must_stay(lvol))
			rc = -EBUSY;
		else
			rc = lvol->bdev.read_only ? -EPERM : revert(lvol, snapshot);
		lvol_end(lvol);
	}
	lvol_unuse(snapshot);
	return rc;
}

fiber_fn int lvol_set_parent(struct lvol *lvol, struct lvol *snapshot)
{
	int rc;

	if (lvol->store != snapshot->store || lvol == snapshot)
		return -EINVAL;
	rc = lvol_use(snapshot);
	if (rc)
		return rc;
	rc = lvol_begin(lvol);
	if (!rc) {
		if (store_is_read_only(lvol->store))
			rc = -EROFS;
		else if (lvol_must_stay(lvol))
			rc = -EBUSY;
		else
			rc = blob_set_parent(lvol->blob, snapshot->blob);
		lvol_end(lvol);
	}
	lvol_unuse(snapshot);
	return rc;
}

fiber_fn int lvol_set_parent_bdev(struct lvol *lvol, const char *bdev_name)
{
	struct lvol *of = lvol_find(bdev_name);
	int rc;

	if (of && of->store == lvol->store)
		return -EINVAL;
	rc = lvol_begin(lvol);
	if (rc)
		return rc;
	/* What stands on the volume could be what it is to show. */
	if (store_is_read_only(lvol->store))
		rc = -EROFS;
	else if (bdev_is_claimed(&lvol->bdev, NULL) && !lvol->bdev.read_only)
		rc = -EBUSY;
	else
		rc = blob_set_external(lvol->blob, bdev_name);
	lvol_end(lvol);
	return rc;
}

fiber_fn int lvol_decouple(struct lvol *lvol)
{
	int rc = lvol_begin(lvol);

	if (rc)
		return rc;
	rc = blob_decouple(lvol->blob);
	lvol_end(lvol);
	return rc;
}

void lvol_cancel(struct lvol *lvol)
{
	if (lvol->working)
		lvol->working->cancel = true;
}

/* It takes long, so other operations go on, and its deletion ends it. */
fiber_fn int lvol_inflate(struct lvol *lvol, struct progress *progress)
{
	struct progress own = { 0 };
	int rc = lvol->working ? -EBUSY : lvol_use(lvol);

	if (rc)
		return rc;
	lvol->working = progress ? progress : &own;
	rc = blob_inflate(lvol->blob, lvol->working);
	lvol->working = NULL;
	if (!rc)
		lvol->bdev.thin = false;
	lvol_unuse(lvol);
	return rc;
}

fiber_fn int lvol_shallow_copy(struct lvol *lvol, const char *bdev_name, struct progress *progress)
{
	struct progress own = { 0 };
	int rc = lvol->working ? -EBUSY : lvol_use(lvol);

	if (rc)
		return rc;
	lvol->working = progress ? progress : &own;
	rc = blob_shallow_copy(lvol->blob, bdev_name, lvol->working);
	lvol->working = NULL;
	lvol_unuse(lvol);
	return rc;
}

fiber_fn int lvol_set_read_only(struct lvol *lvol)
{
	bool before;
	int rc = lvol_begin(lvol);

	if (rc)
		return rc;
	before = lvol->bdev.read_only;
	lvol->bdev.read_only = true;
	rc = blob_set_read_only(lvol->blob);
	if (rc)
		lvol->bdev.read_only = before;
	lvol_end(lvol);
	return rc;
}

/* --- attributes --- */

fiber_fn int lvol_set_xattr(struct lvol *lvol, const char *key, const void *value, uint16_t value_len)
{
	int rc = lvol_begin(lvol);

	if (rc)
		return rc;
	rc = blob_set_xattr(lvol->blob, key, value, value_len);
	lvol_end(lvol);
	return rc;
}

int lvol_get_xattr(const struct lvol *lvol, const char *key, const void **ret_value, uint16_t *ret_len)
{
	return blob_get_xattr(lvol->blob, key, ret_value, ret_len);
}

bool lvol_xattr_at(const struct lvol *lvol, uint32_t idx, const char **ret_key, uint8_t *ret_key_len, const void **ret_value,
		   uint16_t *ret_len)
{
	return blob_xattr_at(lvol->blob, idx, ret_key, ret_key_len, ret_value, ret_len);
}

/* --- space and differences --- */

fiber_fn int lvol_exclusive(struct lvol *lvol, uint64_t *ret_bytes)
{
	struct blob_info info;
	uint64_t clusters = 0;
	int rc = lvol_use(lvol);

	if (rc)
		return rc;
	rc = blob_exclusive(lvol->blob, &clusters);
	blob_get_info(lvol->blob, &info);
	*ret_bytes = clusters * info.cluster_size_bytes;
	lvol_unuse(lvol);
	return rc;
}

fiber_fn int lvol_diff_next(struct lvol_diff *diff, struct blob_range *ranges, uint32_t max, uint32_t *ret_nr)
{
	struct blob_diff blobs = { .whole_clusters = diff->whole_clusters, .at_bytes = diff->at_bytes };
	int rc;

	if (diff->from && diff->from->store != diff->to->store)
		return -EINVAL;
	rc = lvol_use(diff->to);
	if (rc)
		return rc;
	rc = diff->from ? lvol_use(diff->from) : 0;
	if (!rc) {
		blobs.to = diff->to->blob;
		blobs.from = diff->from ? diff->from->blob : NULL;
		rc = blob_diff_next(&blobs, ranges, max, ret_nr);
		diff->at_bytes = blobs.at_bytes;
		if (diff->from)
			lvol_unuse(diff->from);
	}
	lvol_unuse(diff->to);
	return rc;
}

/* --- relations --- */

static struct lvol *of_blob(struct blob *blob)
{
	struct lvol *lvol = blob ? blob_user(blob) : NULL;

	return lvol && !lvol->gone ? lvol : NULL;
}

struct lvol *lvol_parent(const struct lvol *lvol)
{
	return of_blob(blob_parent(lvol->blob));
}

/* The first of these that is shown. */
static struct lvol *shown(struct blob *blob)
{
	while (blob && !of_blob(blob))
		blob = blob_next_child(blob);
	return of_blob(blob);
}

struct lvol *lvol_first_clone(const struct lvol *lvol)
{
	return shown(blob_first_child(lvol->blob));
}

struct lvol *lvol_next_clone(const struct lvol *clone)
{
	return shown(blob_next_child(clone->blob));
}
