/*
 * Volumes: creating, deleting, resizing, renaming, and showing a blob as a bdev.  Operations on one volume wait for each
 * other; those on different volumes run side by side, so that their commits are shared.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lvol/internal.h"

static void make_alias(char *alias, const char *store, const char *volume)
{
	static_assert(BDEV_NAME_MAX > 2 * LVOL_NAME_MAX + 1, "an alias has room for both");

	snprintf(alias, BDEV_NAME_MAX, "%.*s/%.*s", (int)LVOL_NAME_MAX, store, (int)LVOL_NAME_MAX, volume);
}

static void lvol_unref(struct lvol *lvol)
{
	if (--lvol->nr_refs == 0)
		free(lvol);
}

static void describe(struct lvol *lvol)
{
	struct store_info store;
	struct blob_info blob;
	struct bdev *bdev = &lvol->bdev;

	store_get_info(lvol->store->store, &store);
	blob_get_info(lvol->blob, &blob);
	memset(bdev, 0, sizeof(*bdev));
	snprintf(lvol->name, sizeof(lvol->name), "%.*s", (int)LVOL_NAME_MAX, blob.name);
	uuid_copy(bdev->uuid, blob.uuid);
	uuid_unparse_lower(blob.uuid, bdev->name);
	make_alias(bdev->alias, lvol->store->name, lvol->name);
	bdev->product_name = "Logical Volume";
	bdev->module = "lvol";
	bdev->module_ctx = lvol;
	bdev->block_size = store.block_size;
	bdev->nr_blocks = blob.size_bytes / store.block_size;
	bdev->write_unit_blocks = store.write_unit_blocks;
	bdev->optimal_blocks = BLOB_SUB_SIZE / store.block_size;
	bdev->unmap_granularity_blocks = BLOB_SUB_SIZE / store.block_size;
	bdev->has_write_cache = store.has_write_cache;
	bdev->unmap_zeroes = true;
	bdev->read_only = store.read_only || blob.read_only || blob.snapshot;
	bdev->thin = !blob.thick;
	bdev->ops = &lvol_ops;
}

static struct lvol *lvol_new(struct lvol_store *store, struct blob *blob)
{
	struct lvol *lvol = calloc(1, sizeof(*lvol));

	if (!lvol)
		return NULL;
	lvol->store = store;
	lvol->blob = blob;
	lvol->nr_refs = 1;
	fiber_mutex_init(&lvol->mutex);
	fiber_cond_init(&lvol->unused);
	describe(lvol);
	blob_open(blob);
	blob_set_user(blob, lvol);
	return lvol;
}

int lvol_attach(struct lvol_store *store, struct blob *blob, struct lvol **ret_lvol)
{
	struct lvol *lvol = lvol_new(store, blob);
	int rc = lvol ? bdev_register(&lvol->bdev) : -ENOMEM;

	if (rc && lvol) {
		blob_set_user(blob, NULL);
		blob_close(blob);
		free(lvol);
	}
	if (rc)
		return rc;
	list_add_tail(&store->lvols, &lvol->link);
	if (ret_lvol)
		*ret_lvol = lvol;
	return 0;
}

/* --- volumes whose name is another's --- */

int lvol_attach_or_hide(struct lvol_store *store, struct blob *blob)
{
	struct lvol *lvol = lvol_new(store, blob);

	if (!lvol)
		return -ENOMEM;
	lvol->hidden = bdev_register(&lvol->bdev) != 0;
	list_add_tail(&store->lvols, &lvol->link);
	if (lvol->hidden) {
		store->nr_hidden++;
		lvol_tell_hidden(lvol);
	}
	return 0;
}

void lvol_show_hidden(struct lvol_store *store)
{
	struct list *it;

	if (!store->nr_hidden)
		return;
	list_for_each(it, &store->lvols) {
		struct lvol *lvol = list_entry(it, struct lvol, link);

		if (!lvol->hidden || lvol->gone || lvol->renaming)
			continue;
		describe(lvol);
		if (bdev_register(&lvol->bdev))
			continue;
		lvol->hidden = false;
		store->nr_hidden--;
		lvol_tell_hidden(lvol);
	}
}

bool lvol_is_hidden(const struct lvol *lvol)
{
	return lvol->hidden;
}

void lvol_why_hidden(const struct lvol *lvol, char *text, size_t size)
{
	const struct bdev *of_uuid = bdev_find(lvol->bdev.name), *of_alias = bdev_find(lvol->bdev.alias);

	if (of_uuid)
		snprintf(text, size, "device %.128s has its UUID, %s; it is shown when that device is gone", of_uuid->name,
			 lvol->bdev.name);
	else if (of_alias)
		snprintf(text, size, "device %.128s has its name; it is shown when that device is gone, or when it gets another "
			 "name, by its UUID %s", of_alias->name, lvol->bdev.name);
	else
		snprintf(text, size, "there was no memory for it; it is shown when another device goes");
}

static struct lvol *hidden_from(struct lvol_store *store, struct list *it)
{
	for (; store->nr_hidden && it != &store->lvols; it = it->next) {
		struct lvol *lvol = list_entry(it, struct lvol, link);

		if (lvol->hidden && !lvol->gone)
			return lvol;
	}
	return NULL;
}

struct lvol *lvol_first_hidden(struct lvol_store *store)
{
	return hidden_from(store, store->lvols.next);
}

struct lvol *lvol_next_hidden(struct lvol *lvol)
{
	return hidden_from(lvol->store, lvol->link.next);
}

struct lvol *lvol_find_hidden(const char *name)
{
	for (struct lvol_store *store = lvol_store_first(); store; store = lvol_store_next(store)) {
		for (struct lvol *lvol = lvol_first_hidden(store); lvol; lvol = lvol_next_hidden(lvol)) {
			if (!strcasecmp(lvol->bdev.name, name) || !strcmp(lvol->bdev.alias, name))
				return lvol;
		}
	}
	return NULL;
}

/* Its bdev goes, if it has one; its openers are told and waited for. */
static fiber_fn void conceal(struct lvol *lvol)
{
	if (!lvol->hidden)
		bdev_unregister_wait(&lvol->bdev);
	else
		lvol->store->nr_hidden--;
}

/* --- operations --- */

fiber_fn int lvol_begin(struct lvol *lvol)
{
	int rc = lvol->gone ? -ENODEV : lvol_op_begin(lvol->store);

	if (rc)
		return rc;
	lvol->nr_refs++;
	fiber_lock(&lvol->mutex);
	if (!lvol->gone)
		return 0;
	fiber_unlock(&lvol->mutex);
	lvol_op_end(lvol->store);
	lvol_unref(lvol);
	return -ENODEV;
}

void lvol_end(struct lvol *lvol)
{
	struct lvol_store *store = lvol->store;

	fiber_unlock(&lvol->mutex);
	lvol_unref(lvol);
	lvol_op_end(store);
}

int lvol_use(struct lvol *lvol)
{
	int rc = lvol->gone ? -ENODEV : lvol_op_begin(lvol->store);

	if (rc)
		return rc;
	lvol->nr_refs++;
	lvol->nr_users++;
	blob_open(lvol->blob);
	return 0;
}

void lvol_unuse(struct lvol *lvol)
{
	struct lvol_store *store = lvol->store;

	blob_close(lvol->blob);
	if (--lvol->nr_users == 0)
		fiber_cond_broadcast(&lvol->unused);
	lvol_unref(lvol);
	lvol_op_end(store);
}

bool store_is_read_only(const struct lvol_store *store)
{
	struct store_info info;

	store_get_info(store->store, &info);
	return info.read_only;
}

bool lvol_must_stay(const struct lvol *lvol)
{
	return !lvol->gone && !lvol->bdev.read_only && bdev_claim_of(&lvol->bdev) == BDEV_CLAIM_STILL;
}

int lvol_alias_free(const struct lvol_store *store, const char *name, const uuid_t uuid)
{
	char alias[BDEV_NAME_MAX], uuid_text[UUID_STR_LEN];

	if (!lvol_name_ok(name))
		return -EINVAL;
	make_alias(alias, store->name, name);
	uuid_unparse_lower(uuid, uuid_text);
	return bdev_find(alias) || (!uuid_is_null(uuid) && bdev_find(uuid_text)) ? -EEXIST : 0;
}

fiber_fn int lvol_create(struct lvol_store *store, const struct lvol_create_opts *opts, struct lvol **ret_lvol)
{
	struct blob_create_opts blob_opts = { .name = opts->name, .size_bytes = opts->size_bytes, .thick = !opts->thin };
	struct blob *blob;
	int rc = lvol_alias_free(store, opts->name, opts->uuid);

	if (rc || !opts->size_bytes)
		return rc ? rc : -EINVAL;
	rc = lvol_op_begin(store);
	if (rc)
		return rc;
	uuid_copy(blob_opts.uuid, opts->uuid);
	rc = blob_create(store->store, &blob_opts, &blob);
	if (rc)
		goto out_op;
	rc = lvol_attach(store, blob, ret_lvol);
	if (rc)
		blob_delete(blob);
out_op:
	lvol_op_end(store);
	return rc;
}

fiber_fn int lvol_clone_bdev(struct lvol_store *store, const char *bdev_name, const char *name, const uuid_t uuid,
			     struct lvol **ret_lvol)
{
	struct blob_create_opts blob_opts = { .name = name, .external = bdev_name };
	struct blob *blob;
	int rc = lvol_alias_free(store, name, uuid);

	if (rc)
		return rc;
	rc = lvol_op_begin(store);
	if (rc)
		return rc;
	uuid_copy(blob_opts.uuid, uuid);
	rc = blob_create(store->store, &blob_opts, &blob);
	if (!rc) {
		rc = lvol_attach(store, blob, ret_lvol);
		if (rc)
			blob_delete(blob);
	}
	lvol_op_end(store);
	return rc;
}

fiber_fn int lvol_delete(struct lvol *lvol)
{
	struct lvol_store *store = lvol->store;
	struct blob *blob = lvol->blob;
	int rc = lvol_begin(lvol);
	uuid_t uuid;

	if (rc)
		return rc;
	/* Asked first, since a volume that cannot be deleted should not vanish from its users. */
	rc = store_is_read_only(store) ? -EROFS : blob_leave(blob);
	if (rc) {
		lvol_end(lvol);
		return rc;
	}
	lvol->gone = true;
	conceal(lvol);
	lvol_cancel(lvol);
	while (lvol->nr_users)
		fiber_cond_wait(&lvol->unused);
	list_del(&lvol->link);
	blob_set_user(blob, NULL);
	blob_close(blob);
	lvol_unref(lvol); /* the list's */
	uuid_copy(uuid, lvol->bdev.uuid);
	rc = blob_delete(blob);
	if (rc) {
		/* When only its commit failed the blob is gone, as far as this process knows. */
		int again = (blob = store_find_blob_uuid(store->store, uuid)) ? lvol_attach_or_hide(store, blob) : -ENOENT;

		log_error("%s: volume %s could not be deleted: %s; it is %s", store->name, lvol->name, strerror(-rc),
			  again ? "not shown until the store is opened again" : "shown again");
	}
	lvol_end(lvol);
	return rc;
}

fiber_fn int lvol_resize(struct lvol *lvol, uint64_t size_bytes)
{
	uint64_t before = bdev_nr_blocks(&lvol->bdev), cluster, wanted;
	struct store_info info;
	struct blob_info blob;
	int rc;

	if (!size_bytes || size_bytes > INT64_MAX)
		return -EINVAL;
	rc = lvol_begin(lvol);
	if (rc)
		return rc;
	store_get_info(lvol->store->store, &info);
	blob_get_info(lvol->blob, &blob);
	cluster = info.cluster_size_bytes;
	wanted = (size_bytes + cluster - 1) / cluster * cluster / info.block_size;
	before = bdev_nr_blocks(&lvol->bdev);
	if (blob.snapshot || blob.read_only)
		rc = -EPERM;
	else if (wanted < before && bdev_claim_of(&lvol->bdev) != BDEV_CLAIM_NONE)
		rc = -EBUSY;
	if (rc) {
		lvol_end(lvol);
		return rc;
	}
	/* When it shrinks, nobody may write what is being cut off. */
	if (wanted < before)
		bdev_notify_resize(&lvol->bdev, wanted);
	rc = blob_resize(lvol->blob, size_bytes);
	if (rc ? wanted < before : wanted > before)
		bdev_notify_resize(&lvol->bdev, rc ? before : blob_nr_blocks(lvol->blob));
	lvol_end(lvol);
	return rc;
}

fiber_fn int lvol_rename(struct lvol *lvol, const char *name)
{
	char alias[BDEV_NAME_MAX], old[BDEV_NAME_MAX];
	int rc;

	if (!lvol_name_ok(name))
		return -EINVAL;
	rc = lvol_begin(lvol);
	if (rc)
		return rc;
	make_alias(alias, lvol->store->name, name);
	rc = -EEXIST;
	if (bdev_find(alias))
		goto out;
	/* Taken before the store is changed, so that two renames cannot both succeed. */
	strcpy(old, lvol->bdev.alias);
	rc = lvol->hidden ? 0 : bdev_rename_alias(&lvol->bdev, alias);
	if (rc)
		goto out;
	lvol->renaming = true;
	rc = blob_rename(lvol->blob, name);
	lvol->renaming = false;
	if (!rc)
		strcpy(lvol->name, name);
	else if (!lvol->hidden)
		bdev_rename_alias(&lvol->bdev, old);
	lvol_show_hidden(lvol->store);
out:
	lvol_end(lvol);
	return rc;
}

int lvol_rename_aliases(struct lvol_store *store, const char *store_name)
{
	char alias[BDEV_NAME_MAX];
	struct list *it;
	int rc = 0;

	list_for_each(it, &store->lvols) {
		struct lvol *lvol = list_entry(it, struct lvol, link);

		if (lvol->gone || lvol->hidden)
			continue;
		make_alias(alias, store_name, lvol->name);
		rc = rc ? rc : bdev_rename_alias(&lvol->bdev, alias);
	}
	return rc;
}

struct detaching {
	struct fiber_wait wait;
	unsigned nr_left;
};

static void detached(void *arg, int status)
{
	struct detaching *d = arg;

	if (--d->nr_left == 0)
		fiber_wake(&d->wait, 0);
}

/* No operation is under way.  All at once, since each waits for its openers. */
fiber_fn void lvol_detach_all(struct lvol_store *store)
{
	struct detaching d = { .nr_left = 1 };
	struct list *it, *e;

	fiber_wait_init(&d.wait);
	list_for_each(it, &store->lvols) {
		struct lvol *lvol = list_entry(it, struct lvol, link);

		lvol->gone = true;
		if (lvol->hidden)
			continue;
		d.nr_left++;
		bdev_unregister(&lvol->bdev, detached, &d);
	}
	detached(&d, 0);
	fiber_wait(&d.wait);
	while ((e = list_pop(&store->lvols))) {
		struct lvol *lvol = list_entry(e, struct lvol, link);

		blob_set_user(lvol->blob, NULL);
		blob_close(lvol->blob);
		lvol_unref(lvol);
	}
	store->nr_hidden = 0;
}

/* --- looking --- */

struct lvol *lvol_from_bdev(const struct bdev *bdev)
{
	return bdev && bdev->ops == &lvol_ops ? container_of(bdev, struct lvol, bdev) : NULL;
}

struct lvol *lvol_find(const char *name)
{
	return lvol_from_bdev(bdev_find(name));
}

static struct lvol *from(struct lvol_store *store, struct list *it)
{
	for (; it != &store->lvols; it = it->next) {
		struct lvol *lvol = list_entry(it, struct lvol, link);

		if (!lvol->gone && !lvol->hidden)
			return lvol;
	}
	return NULL;
}

struct lvol *lvol_first(struct lvol_store *store)
{
	return from(store, store->lvols.next);
}

struct lvol *lvol_next(struct lvol *lvol)
{
	return from(lvol->store, lvol->link.next);
}

struct bdev *lvol_bdev(struct lvol *lvol)
{
	return &lvol->bdev;
}

struct lvol_store *lvol_get_store(struct lvol *lvol)
{
	return lvol->store;
}

static void name_external(const uuid_t uuid, char *name)
{
	char text[UUID_STR_LEN];
	struct bdev *bdev;

	uuid_unparse_lower(uuid, text);
	bdev = bdev_find(text);
	snprintf(name, BDEV_NAME_MAX, "%s", bdev ? bdev->name : text);
}

void lvol_get_info(const struct lvol *lvol, struct lvol_info *ret_info)
{
	struct blob_info blob;

	blob_get_info(lvol->blob, &blob);
	memset(ret_info, 0, sizeof(*ret_info));
	uuid_copy(ret_info->uuid, blob.uuid);
	uuid_copy(ret_info->store_uuid, lvol->store->uuid);
	strcpy(ret_info->name, lvol->name);
	strcpy(ret_info->store_name, lvol->store->name);
	strcpy(ret_info->base_bdev, lvol->store->base_bdev);
	ret_info->size_bytes = blob.size_bytes;
	ret_info->num_allocated_clusters = blob.nr_differing_clusters;
	ret_info->counting = blob.counting;
	ret_info->created_ms = blob.created_ms;
	ret_info->referenced_bytes = blob.nr_named_clusters * blob.cluster_size_bytes;
	ret_info->exclusive_bytes = blob.exclusive_clusters * blob.cluster_size_bytes;
	ret_info->exclusive_age_us = blob.exclusive_age_us;
	ret_info->clone = blob.parent_id != 0;
	ret_info->nr_clones = blob.nr_children;
	ret_info->thin = !blob.thick;
	ret_info->hidden = lvol->hidden;
	ret_info->snapshot = blob.snapshot;
	ret_info->read_only = lvol->bdev.read_only;
	ret_info->degraded = blob.degraded || blob.external_missing;
	if (blob.external)
		name_external(blob.external_uuid, ret_info->external);
}
