/* Blobs as objects: found by name and UUID, put into bytes and taken from them, opened and closed. */
#include "blob/internal.h"

#include <stdio.h>

static uint32_t hash_bytes(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 16777619u;
	return h % NAME_BUCKETS;
}

struct blob *store_find_blob(struct store *s, const char *name)
{
	struct list *it, *bucket = &s->by_name[hash_bytes(name, strlen(name))];

	list_for_each (it, bucket)
		if (!strcmp(list_entry(it, struct blob, name_link)->name, name))
			return list_entry(it, struct blob, name_link);
	return NULL;
}

struct blob *store_find_blob_uuid(struct store *s, const uuid_t uuid)
{
	struct list *it, *bucket = &s->by_uuid[hash_bytes(uuid, 16)];

	list_for_each (it, bucket)
		if (!uuid_compare(list_entry(it, struct blob, uuid_link)->uuid, uuid))
			return list_entry(it, struct blob, uuid_link);
	return NULL;
}

struct blob *blob_by_id(struct store *s, uint64_t id)
{
	struct list *it, *bucket = &s->by_id[id % NAME_BUCKETS];

	list_for_each (it, bucket)
		if (list_entry(it, struct blob, id_link)->id == id)
			return list_entry(it, struct blob, id_link);
	return NULL;
}

/* --- parents --- */

static struct blob *parent_of(const struct blob *b)
{
	return b->parent_id ? blob_by_id(b->store, b->parent_id) : NULL;
}

static void unrelate(struct blob *b)
{
	struct blob *parent = parent_of(b);

	if (parent && !list_empty(&b->child_link)) {
		list_del(&b->child_link);
		parent->nr_children--;
	}
}

void blob_relate(struct blob *b, uint64_t parent_id)
{
	struct blob *parent;

	unrelate(b);
	b->parent_id = parent_id;
	parent = parent_of(b);
	b->figures.differ_known = false;
	if (!parent || parent == b)
		return;
	list_add_tail(&parent->children, &b->child_link);
	parent->nr_children++;
}

void blobs_relate(struct store *s)
{
	struct list *it;

	list_for_each (it, &s->blobs) {
		struct blob *b = list_entry(it, struct blob, link);
		bool known = b->figures.differ_known;

		blob_relate(b, b->parent_id);
		b->figures.differ_known = known;
	}
}

struct blob *blob_parent(const struct blob *b)
{
	return parent_of(b);
}

struct blob *blob_first_child(const struct blob *b)
{
	return list_empty(&b->children) ? NULL : list_entry(b->children.next, struct blob, child_link);
}

struct blob *blob_next_child(const struct blob *child)
{
	struct blob *parent = parent_of(child);

	return !parent || child->child_link.next == &parent->children
		       ? NULL
		       : list_entry(child->child_link.next, struct blob, child_link);
}

/* --- all of them --- */

/* From a place in the list on, but for those that belong to an operation. */
static struct blob *shown(struct store *s, struct list *it)
{
	while (it != &s->blobs && list_entry(it, struct blob, link)->flags & BLOB_FLAG_TEMPORARY)
		it = it->next;
	return it == &s->blobs ? NULL : list_entry(it, struct blob, link);
}

struct blob *store_first_blob(struct store *s)
{
	return shown(s, s->blobs.next);
}

struct blob *store_next_blob(struct blob *b)
{
	return shown(b->store, b->link.next);
}

/* --- images --- */

int blob_take_attrs(struct blob *b, const struct blob_image *image)
{
	struct store *s = b->store;
	char *name = strndup(image->name, image->name_len);
	uint8_t *xattrs = malloc(image->xattr_len + 1u);

	if (!name || !xattrs) {
		free(name);
		free(xattrs);
		return -ENOMEM;
	}
	memcpy(xattrs, image->xattrs, image->xattr_len);
	list_del(&b->name_link);
	free(b->name);
	free(b->xattrs);
	b->name = name;
	b->xattrs = xattrs;
	b->xattr_len = image->xattr_len;
	b->flags = image->flags;
	if (image->flags & BLOB_FLAG_EXTERNAL) {
		if (blob_take_external(b, image->external, image->external_clusters))
			return -ENOMEM;
	} else {
		atomic_store(&b->external_clusters, 0);
	}
	atomic_store(&b->frozen, (image->flags & (BLOB_FLAG_READ_ONLY | BLOB_FLAG_SNAPSHOT)) != 0);
	list_add_tail(&s->by_name[hash_bytes(name, image->name_len)], &b->name_link);
	return 0;
}

int blob_from_image(struct store *s, uint32_t slot, const struct blob_image *image, uint32_t root,
		    struct blob **ret_blob)
{
	struct blob *b = calloc(1, sizeof(*b));

	if (!b)
		return -ENOMEM;
	b->store = s;
	b->slot = slot;
	b->id = image->id;
	uuid_copy(b->uuid, image->uuid);
	b->created_ms = image->created_ms;
	b->nr_clusters = image->nr_clusters;
	b->figures = (struct blob_figures){.nr_entries = image->nr_entries,
					   .nr_named = image->nr_named,
					   .nr_own = image->nr_own};
	list_init(&b->link);
	list_init(&b->name_link);
	list_init(&b->uuid_link);
	list_init(&b->id_link);
	list_init(&b->children);
	list_init(&b->child_link);
	list_init(&b->locks);
	list_init(&b->lock_waiters);
	list_init(&b->own_waiters);
	list_init(&b->drain_waiters);
	fiber_cond_init(&b->own_idle);
	fiber_mutex_init(&b->mutex);
	if (blob_take_attrs(b, image) ||
	    array_grow(&s->slots, &s->slots_cap, (uint64_t)slot + 1, sizeof(s->slots[0])) ||
	    !mpage_get(s, TABLE_BLOBS, slot)) {
		list_del(&b->name_link);
		free(b->name);
		free(b->xattrs);
		free(b);
		return -ENOMEM;
	}
	list_add_tail(&s->by_uuid[hash_bytes(b->uuid, 16)], &b->uuid_link);
	list_add_tail(&s->by_id[b->id % NAME_BUCKETS], &b->id_link);
	list_add_tail(&s->blobs, &b->link);
	blob_relate(b, image->parent_id);
	b->exclusive_clusters = image->nr_exclusive;
	b->exclusive_s = image->exclusive_s;
	b->figures.nr_differ = image->nr_differ;
	b->figures.differ_known = image->nr_differ != UINT32_MAX;
	s->slots[slot] = b;
	if (slot >= s->nr_slots)
		s->nr_slots = (uint64_t)slot + 1;
	s->nr_blobs++;
	if (root) {
		map_slot_set(NULL, &b->root, (uint64_t)root << 1 | 1);
		if (s->nodes[root])
			(void)node_resolve(s, &b->root, NULL);
	}
	*ret_blob = b;
	return 0;
}

void blob_to_image(const struct blob *b, struct blob_image *image)
{
	*image = (struct blob_image){
		.id = b->id,
		.nr_clusters = b->nr_clusters,
		.root = slot_id(b->root),
		.flags = b->flags,
		.name_len = strlen(b->name),
		.xattr_len = b->xattr_len,
		.created_ms = b->created_ms,
		.parent_id = b->parent_id,
		.nr_entries = b->figures.nr_entries,
		.nr_named = b->figures.nr_named,
		.nr_own = b->figures.nr_own,
		.nr_differ = b->figures.differ_known ? b->figures.nr_differ : UINT32_MAX,
		.nr_exclusive = b->exclusive_clusters,
		.exclusive_s = b->exclusive_s,
		.name = b->name,
		.xattrs = b->xattrs,
	};
	if (b->flags & BLOB_FLAG_EXTERNAL && b->external) {
		image->external_clusters = b->external_clusters;
		uuid_copy(image->external, b->external->uuid);
	}
	uuid_copy(image->uuid, b->uuid);
}

void blob_free(struct blob *b)
{
	unrelate(b);
	while (list_pop(&b->children))
		; /* those of a store that is being freed */
	list_del(&b->link);
	list_del(&b->name_link);
	list_del(&b->uuid_link);
	list_del(&b->id_link);
	ext_put(b->external);
	free(b->name);
	free(b->xattrs);
	free(b);
}

void blob_forget(struct blob *b)
{
	struct store *s = b->store;

	b->deleting = true;
	blob_promise(b);
	s->slots[b->slot] = NULL;
	s->nr_blobs--;
	map_slot_set(NULL, &b->root, 0);
	blob_free(b);
}

static int compare_ids(const void *a, const void *b)
{
	const struct blob *x = *(struct blob *const *)a, *y = *(struct blob *const *)b;

	return x->id < y->id ? -1 : x->id > y->id;
}

int blobs_sort(struct store *s)
{
	struct blob **all = calloc(s->nr_blobs + 1, sizeof(struct blob *));
	uint32_t nr = 0;
	struct list *it;

	if (!all)
		return -ENOMEM;
	while ((it = list_pop(&s->blobs)))
		all[nr++] = list_entry(it, struct blob, link);
	qsort(all, nr, sizeof(all[0]), compare_ids);
	for (uint32_t i = 0; i < nr; i++)
		list_add_tail(&s->blobs, &all[i]->link);
	free(all);
	return 0;
}

/* --- what others see --- */

/* Across restarts the wall clock tells, to the second; it may have been set back. */
static uint64_t exclusive_age_us(const struct blob *b)
{
	uint64_t now_s = clock_wall_ms() / 1000;

	if (b->exclusive_us)
		return clock_now_us() - b->exclusive_us;
	if (!b->exclusive_s)
		return UINT64_MAX;
	return now_s > b->exclusive_s ? (now_s - b->exclusive_s) * 1000000 : 0;
}

void blob_get_info(struct blob *b, struct blob_info *info)
{
	memset(info, 0, sizeof(*info));
	info->id = b->id;
	uuid_copy(info->uuid, b->uuid);
	snprintf(info->name, sizeof(info->name), "%s", b->name);
	info->nr_clusters = b->nr_clusters;
	info->cluster_size_bytes = 1u << b->store->cluster_shift;
	info->size_bytes = info->nr_clusters << b->store->cluster_shift;
	info->nr_allocated_clusters = b->figures.nr_entries;
	info->nr_differing_clusters = figures_differ(b);
	info->counting = blob_parent(b) && !b->figures.differ_known;
	info->nr_named_clusters = b->figures.nr_named;
	info->exclusive_clusters = b->exclusive_clusters;
	info->exclusive_age_us = exclusive_age_us(b);
	info->parent_id = b->parent_id;
	info->nr_children = b->nr_children;
	info->created_ms = b->created_ms;
	info->thick = b->flags & BLOB_FLAG_THICK;
	info->read_only = b->flags & BLOB_FLAG_READ_ONLY;
	info->snapshot = b->flags & BLOB_FLAG_SNAPSHOT;
	info->degraded = b->degraded;
	info->external = b->external_clusters;
	if (info->external) {
		uuid_copy(info->external_uuid, b->external->uuid);
		info->external_missing = !b->external->ready;
	}
}

void blob_open(struct blob *b)
{
	b->nr_open++;
}

void blob_close(struct blob *b)
{
	assert(b->nr_open);
	b->nr_open--;
}

uint64_t blob_nr_blocks(const struct blob *b)
{
	return atomic_load_explicit(&b->nr_clusters, memory_order_relaxed) << b->store->cluster_block_shift;
}

struct store *blob_store(const struct blob *b)
{
	return b->store;
}

void *blob_user(const struct blob *b)
{
	return b->user;
}

void blob_set_user(struct blob *b, void *user)
{
	b->user = user;
}

bool blob_xattr_at(const struct blob *b, uint32_t idx, const char **ret_key, uint8_t *ret_key_len,
		   const void **ret_value, uint16_t *ret_len)
{
	uint32_t at = 0;

	while (at < b->xattr_len) {
		const uint8_t *p = b->xattrs + at;

		if (!idx--) {
			*ret_key = (const char *)p + 4;
			*ret_key_len = p[0];
			*ret_value = p + 4 + p[0];
			*ret_len = get16(p + 2);
			return true;
		}
		at += 4 + p[0] + get16(p + 2);
	}
	return false;
}

int blob_get_xattr(const struct blob *b, const char *key, const void **ret_value, uint16_t *ret_len)
{
	const char *k;
	uint8_t key_len;

	for (uint32_t i = 0; blob_xattr_at(b, i, &k, &key_len, ret_value, ret_len); i++)
		if (key_len == strlen(key) && !memcmp(k, key, key_len))
			return 0;
	return -ENODATA;
}
