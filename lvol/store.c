/*
 * Stores: creating, opening when their bdev appears, closing when it goes, deleting, renaming.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lvol/internal.h"

static struct list stores = LIST_INIT(stores);
static struct list opening = LIST_INIT(opening); /* so that of two copies that appear at once one is refused */

bool lvol_name_ok(const char *name)
{
	if (!name || !*name || strlen(name) > LVOL_NAME_MAX || strchr(name, '/'))
		return false;
	for (const char *c = name; *c; c++) {
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			return false;
	}
	return true;
}

int lvol_op_begin(struct lvol_store *store)
{
	if (store->closing)
		return -ENODEV;
	store->nr_ops++;
	return 0;
}

void lvol_op_end(struct lvol_store *store)
{
	if (--store->nr_ops == 0)
		fiber_cond_broadcast(&store->idle);
}

int lvol_store_hold(struct lvol_store *store)
{
	return lvol_op_begin(store);
}

void lvol_store_release(struct lvol_store *store)
{
	lvol_op_end(store);
}

static fiber_fn void removed_main(void *arg)
{
	struct list *it;

	/* Looked for among the open: somebody may have closed it meanwhile. */
	list_for_each(it, &stores) {
		struct lvol_store *store = list_entry(it, struct lvol_store, link);

		if (store != arg || store->closing)
			continue;
		log_warning("store %s: %s is gone; its volumes go too", store->name, store->base_bdev);
		lvol_store_close(store);
		return;
	}
}

static lvol_bad_fn on_bad;
static const struct lvol_hooks *hooks;

void lvol_set_hooks(const struct lvol_hooks *of)
{
	hooks = of;
}

void lvol_on_bad(lvol_bad_fn fn)
{
	on_bad = fn;
}

void lvol_tell_hidden(struct lvol *lvol)
{
	char why[512];

	if (lvol->hidden) {
		lvol_why_hidden(lvol, why, sizeof(why));
		log_error("store %s: volume %s is not shown: %s", lvol->store->name, lvol->name, why);
	} else {
		log_notice("store %s: volume %s is shown at last", lvol->store->name, lvol->name);
	}
	if (hooks && hooks->hidden)
		hooks->hidden(lvol);
}

static void store_event(struct store *blobs, enum store_event event, void *arg)
{
	struct lvol_store *store = arg;
	struct store_info info;
	struct store_bad bad;
	struct list *it;

	if (event == STORE_EVENT_CHECKSUM) {
		while (on_bad && !store->opening && !list_empty(&store->link) && store_take_bad(blobs, &bad))
			on_bad(store, &bad);
		return;
	}

	if (event == STORE_EVENT_REMOVED) {
		if (store->removed)
			return;
		store->removed = true;
		/* While it is being opened, opened() sees to it. */
		if (!store->opening && !list_empty(&store->link) &&
		    fiber_spawn(runtime_app_thread(), "store removal", removed_main, store))
			log_error("store %s: no memory to close it after %s went", store->name, store->base_bdev);
		return;
	}
	store_get_info(blobs, &info);
	log_error("store %s on %s is read-only from now on: %s", store->name, store->base_bdev, info.read_only_reason);
	list_for_each(it, &store->lvols)
		list_entry(it, struct lvol, link)->bdev.read_only = true;
}

static struct lvol_store *store_new(void)
{
	struct lvol_store *store = calloc(1, sizeof(*store));

	if (!store)
		return NULL;
	list_init(&store->link);
	list_init(&store->lvols);
	fiber_cond_init(&store->idle);
	return store;
}

static void store_fill(struct lvol_store *store)
{
	struct store_info info;

	store_get_info(store->store, &info);
	snprintf(store->name, sizeof(store->name), "%.*s", (int)LVOL_NAME_MAX, info.name);
	snprintf(store->base_bdev, sizeof(store->base_bdev), "%.*s", BDEV_NAME_MAX - 1, info.bdev_name);
	uuid_copy(store->uuid, info.uuid);
	uuid_unparse_lower(info.uuid, store->uuid_text);
}

static void attach_all(struct lvol_store *store)
{
	struct blob *blob;

	for (blob = store_first_blob(store->store); blob; blob = store_next_blob(blob)) {
		struct blob_info info;
		int rc = lvol_attach_or_hide(store, blob);

		if (!rc)
			continue;
		blob_get_info(blob, &info);
		log_error("store %s: volume %s is not shown until the store is opened again: %s", store->name, info.name,
			  strerror(-rc));
	}
}

static int opened(struct lvol_store *store, struct lvol_store **ret_store)
{
	if (store->removed) {
		store_close(store->store);
		free(store);
		return -ENODEV;
	}
	list_add_tail(&stores, &store->link);
	attach_all(store);
	if (ret_store)
		*ret_store = store;
	if (hooks)
		hooks->opened(store);
	return 0;
}

static uint64_t map_cache_bytes;
static bool map_cache_tiny;

void lvol_set_map_cache(uint64_t bytes, bool tiny)
{
	map_cache_bytes = bytes;
	map_cache_tiny = tiny;
}

fiber_fn int lvol_store_create(const struct lvol_store_create_opts *opts, struct lvol_store **ret_store,
			       struct blob_reason *reason)
{
	struct store_create_opts create = { .name = opts->name, .cluster_size_bytes = opts->cluster_size_bytes,
					    .journal_pages = opts->journal_pages, .overwrite = opts->overwrite,
					    .checksums = opts->checksums };
	struct store_open_opts open = { .event = store_event, .map_cache_bytes = map_cache_bytes, .map_cache_tiny = map_cache_tiny };
	struct bdev *base = bdev_find(opts->base_bdev);
	char uuid_text[UUID_STR_LEN];
	struct lvol_store *store;
	int rc;

	if (!lvol_name_ok(opts->name))
		return -EINVAL;
	uuid_unparse_lower(opts->uuid, uuid_text);
	if (lvol_store_find(opts->name) || (!uuid_is_null(opts->uuid) && lvol_store_find(uuid_text)))
		return -EEXIST;
	if (base && bdev_is_claimed(base, NULL))
		return -EPERM;
	store = store_new();
	if (!store)
		return -ENOMEM;
	uuid_copy(create.uuid, opts->uuid);
	open.event_arg = store;
	rc = store_create(opts->base_bdev, &create, &open, &store->store, reason);
	if (rc) {
		free(store);
		return rc == -EBUSY ? -EPERM : rc;
	}
	store_fill(store);
	return opened(store, ret_store);
}

/* Who has the name or UUID of a store that is about to be opened: one that is open, or is being opened just now. */
static struct lvol_store *rival_of(const struct store_label *label, const char *uuid_text)
{
	struct lvol_store *other = lvol_store_find(uuid_text);
	struct list *it;

	list_for_each(it, &opening) {
		struct lvol_store *store = list_entry(it, struct lvol_store, link);

		if (!strcmp(store->uuid_text, uuid_text) || !strcmp(store->name, label->name))
			return store;
	}
	return other ? other : lvol_store_find(label->name);
}

static int refuse_rival(const struct lvol_store *rival, const struct store_label *label, const char *uuid_text,
			struct blob_reason *reason)
{
	if (reason && !strcmp(rival->uuid_text, uuid_text))
		snprintf(reason->text, sizeof(reason->text),
			 "it is a copy of store %.64s on %.64s: both have UUID %s; one of them must go before the other is opened",
			 rival->name, rival->base_bdev, uuid_text);
	else if (reason)
		snprintf(reason->text, sizeof(reason->text), "another store named %.64s is open, on %.64s", label->name,
			 rival->base_bdev);
	return -EEXIST;
}

static fiber_fn int open_store(const char *base_bdev, bool read_only, struct lvol_store **ret_store, struct blob_reason *reason)
{
	struct store_open_opts open = { .event = store_event, .map_cache_bytes = map_cache_bytes,
					.map_cache_tiny = map_cache_tiny };
	struct lvol_store *store, *rival;
	struct store_label label;
	char uuid_text[UUID_STR_LEN];
	int rc;

	rc = store_probe(base_bdev, &label, reason);
	if (rc)
		return rc;
	uuid_unparse_lower(label.uuid, uuid_text);
	rival = rival_of(&label, uuid_text);
	if (rival)
		return refuse_rival(rival, &label, uuid_text, reason);
	store = store_new();
	if (!store)
		return -ENOMEM;
	open.event_arg = store;
	open.read_only = read_only || (hooks && hooks->is_read_only(label.uuid));
	snprintf(store->name, sizeof(store->name), "%.*s", (int)LVOL_NAME_MAX, label.name);
	snprintf(store->base_bdev, sizeof(store->base_bdev), "%.*s", BDEV_NAME_MAX - 1, base_bdev);
	strcpy(store->uuid_text, uuid_text);
	store->opening = true;
	list_add_tail(&opening, &store->link);
	rc = store_open(base_bdev, &open, &store->store, reason);
	list_del(&store->link);
	store->opening = false;
	if (rc) {
		free(store);
		return rc;
	}
	store_fill(store);
	return opened(store, ret_store);
}

fiber_fn int lvol_store_open(const char *base_bdev, struct lvol_store **ret_store, struct blob_reason *reason)
{
	return open_store(base_bdev, false, ret_store, reason);
}

fiber_fn int lvol_store_open_read_only(const char *base_bdev, struct lvol_store **ret_store, struct blob_reason *reason)
{
	return open_store(base_bdev, true, ret_store, reason);
}

fiber_fn int lvol_store_grow(struct lvol_store *store)
{
	int rc = lvol_op_begin(store);

	if (rc)
		return rc;
	rc = store_grow(store->store);
	lvol_op_end(store);
	return rc;
}

/* Ends operations and volumes; the blobs' store is all that is left. */
static fiber_fn int quiesce(struct lvol_store *store)
{
	struct list *it;

	if (store->closing)
		return -ENODEV;
	store->closing = true;
	list_for_each(it, &store->lvols)
		lvol_cancel(list_entry(it, struct lvol, link));
	while (store->nr_ops)
		fiber_cond_wait(&store->idle);
	lvol_detach_all(store);
	return 0;
}

fiber_fn int lvol_store_close(struct lvol_store *store)
{
	int rc = quiesce(store);

	if (rc)
		return rc;
	rc = store_close(store->store);
	list_del(&store->link);
	free(store);
	return rc;
}

fiber_fn int lvol_store_delete(struct lvol_store *store)
{
	int rc = quiesce(store);

	if (rc)
		return rc;
	rc = store_destroy(store->store);
	if (rc == -EBUSY || rc == -EROFS) {
		/* Opened read-only; or a volume is left, which cannot be: rather show what is there than lose it. */
		store->closing = false;
		attach_all(store);
		return rc;
	}
	list_del(&store->link);
	free(store);
	return rc;
}

fiber_fn int lvol_store_rename(struct lvol_store *store, const char *name)
{
	struct lvol_store *other;
	int rc;

	if (!lvol_name_ok(name))
		return -EINVAL;
	other = lvol_store_find(name);
	if (other)
		return other == store ? 0 : -EEXIST;
	rc = lvol_op_begin(store);
	if (rc)
		return rc;
	rc = lvol_rename_aliases(store, name);
	if (!rc)
		rc = store_rename(store->store, name);
	if (rc)
		lvol_rename_aliases(store, store->name);
	else
		strcpy(store->name, name);
	lvol_show_hidden(store);
	lvol_op_end(store);
	return rc;
}

/* --- examine --- */

/* There may be now what a volume shows and was missing. */
static void find_externals(void *arg)
{
	struct list *it;

	list_for_each(it, &stores) {
		if (!list_entry(it, struct lvol_store, link)->closing)
			store_find_externals(list_entry(it, struct lvol_store, link)->store);
	}
}

static fiber_fn void examine(const char *bdev_name)
{
	struct bdev *bdev = bdev_find(bdev_name);
	struct blob_reason reason = { "" };
	int rc;

	find_externals(NULL);

	/* A store on a volume of ours is its user's affair. */
	if (!bdev || lvol_from_bdev(bdev) || bdev_is_claimed(bdev, NULL))
		return;
	rc = lvol_store_open(bdev_name, NULL, &reason);
	if (rc && rc != -ENODEV && rc != -EBUSY && hooks)
		hooks->refused(bdev_name, rc, reason.text[0] ? reason.text : strerror(-rc));
	if (rc && rc != -EILSEQ && rc != -ENODEV && rc != -EBUSY)
		log_error("%s holds a store that is not opened: %s%s%s", bdev_name, strerror(-rc), *reason.text ? ": " : "",
			  reason.text);
}

/* Another bdev has let a name go. */
static void show_hidden(void *arg)
{
	struct list *it;

	list_for_each(it, &stores) {
		if (!list_entry(it, struct lvol_store, link)->closing)
			lvol_show_hidden(list_entry(it, struct lvol_store, link));
	}
}

void lvol_init(void)
{
	static struct bdev_examiner examiner = { .name = "lvol", .examine = examine };

	bdev_examiner_register(&examiner);
	bdev_on_writers_gone(find_externals, NULL);
	bdev_on_name_free(show_hidden, NULL);
}

fiber_fn void lvol_fini(void)
{
	while (!list_empty(&stores)) {
		struct lvol_store *store = list_entry(stores.next, struct lvol_store, link);

		if (lvol_store_close(store) == -ENODEV)
			fiber_sleep(1000); /* another closes it */
	}
}

/* --- looking --- */

struct lvol_store *lvol_store_find(const char *name_or_uuid)
{
	struct list *it;

	list_for_each(it, &stores) {
		struct lvol_store *store = list_entry(it, struct lvol_store, link);

		if (!store->closing &&
		    (!strcmp(store->name, name_or_uuid) || !strcasecmp(store->uuid_text, name_or_uuid)))
			return store;
	}
	return NULL;
}

static struct lvol_store *from(struct list *it)
{
	for (; it != &stores; it = it->next) {
		if (!list_entry(it, struct lvol_store, link)->closing)
			return list_entry(it, struct lvol_store, link);
	}
	return NULL;
}

struct lvol_store *lvol_store_first(void)
{
	return from(stores.next);
}

struct lvol_store *lvol_store_next(struct lvol_store *store)
{
	return from(store->link.next);
}

struct store *lvol_store_blobstore(struct lvol_store *store)
{
	return store->store;
}

void lvol_store_get_info(struct lvol_store *store, struct lvol_store_info *ret_info)
{
	struct store_info info;

	store_get_info(store->store, &info);
	memset(ret_info, 0, sizeof(*ret_info));
	uuid_copy(ret_info->uuid, store->uuid);
	strcpy(ret_info->name, store->name);
	strcpy(ret_info->base_bdev, store->base_bdev);
	ret_info->total_data_clusters = info.nr_clusters;
	ret_info->free_clusters = info.nr_free_clusters;
	ret_info->coming_clusters = info.nr_coming_clusters;
	ret_info->reserved_clusters = info.nr_reserved_clusters;
	ret_info->metadata_clusters = info.nr_metadata_clusters;
	ret_info->logical_clusters = info.nr_logical_clusters;
	if (info.nr_logical_clusters > info.nr_clusters)
		ret_info->overcommitted_clusters = info.nr_logical_clusters - info.nr_clusters;
	ret_info->block_size = info.block_size;
	ret_info->cluster_size_bytes = info.cluster_size_bytes;
	ret_info->nr_lvols = info.nr_blobs;
	ret_info->nr_hidden = store->nr_hidden;
	ret_info->read_only = info.read_only;
	ret_info->checksums = info.checksums;
}
