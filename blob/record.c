/*
 * Records: what each looks like in a journal page, and what it does.  Whoever changes a store makes a record
 * and applies it with the same function that replays it, so that memory after a recovery is what it was
 * before.
 */
#include "blob/internal.h"

static int get_blob(struct store *s, const uint8_t *body, uint32_t len, struct blob **ret_blob,
		    struct blob_reason *why)
{
	uint32_t slot;

	if (len < 4)
		return refuse(why, "a record of %u bytes", len);
	slot = get32(body);
	if (slot >= s->nr_slots || !s->slots[slot])
		return refuse(why, "names blob slot %u, which is empty", slot);
	*ret_blob = s->slots[slot];
	return 0;
}

static int apply_put(struct blob *b, const uint8_t *body, uint32_t len, struct blob_reason *why)
{
	struct store *s = b->store;
	uint64_t mask[BLOB_CLUSTER_MAX / BLOB_SUB_SIZE / 64] = {0};
	uint32_t mask_bytes;

	if (len < 20)
		return refuse(why, "a map record of %u bytes", len);
	mask_bytes = get16(body + 16);
	if (mask_bytes != 0 && (mask_bytes != s->mask_bytes || len - 20 < mask_bytes))
		return refuse(why, "a map record with a mask of %u bytes", mask_bytes);
	memcpy(mask, body + 20, mask_bytes);
	for (uint32_t i = 0; i < s->mask_words; i++)
		mask[i] = le64toh(mask[i]);
	return map_apply_put(b, get32(body + 4), get32(body + 8), get32(body + 12), mask_bytes ? mask : NULL,
			     get16(body + 18) & PUT_EXTERNAL, why);
}

static int apply_map(struct store *s, uint8_t type, const uint8_t *body, uint32_t len,
		     struct blob_reason *why)
{
	static const uint8_t need[] = {[REC_MAP_FILL] = 16, [REC_MAP_PUT] = 20,   [REC_MAP_CLEAR] = 12,
				       [REC_NODE_NEW] = 16, [REC_NODE_COPY] = 16, [REC_ROOT_GROW] = 8};
	struct blob *b = NULL;
	int rc = get_blob(s, body, len, &b, why);

	if (rc)
		return rc;
	if (len < need[type])
		return refuse(why, "a map record of %u bytes", len);
	switch (type) {
	case REC_MAP_FILL:
		return map_apply_fill(b, get32(body + 4), get32(body + 8), get16(body + 12), get16(body + 14),
				      why);
	case REC_MAP_PUT:
		return apply_put(b, body, len, why);
	case REC_MAP_CLEAR:
		return map_apply_clear(b, get32(body + 4), get32(body + 8), why);
	case REC_NODE_NEW:
		return map_apply_node_new(b, get32(body + 4), body[8], get32(body + 12), why);
	case REC_NODE_COPY:
		return map_apply_node_copy(b, get32(body + 4), body[8], get32(body + 12), why);
	default:
		return map_apply_root_grow(b, get32(body + 4), why);
	}
}

/* A blob's image has no length of its own in a record: it says how long name and attributes are. */
static int get_image(const uint8_t *p, uint32_t len, struct blob_image *image, struct blob_reason *why)
{
	uint32_t used;

	if (len < BLOB_FIXED_BYTES)
		return refuse(why, "a blob record of %u bytes", len);
	used = BLOB_FIXED_BYTES + (p[36] & BLOB_FLAG_EXTERNAL ? BLOB_EXTERNAL_BYTES : 0) + p[37] + get16(p + 38);
	if (used > len)
		return refuse(why, "a blob record of %u bytes for a blob of %u", len, used);
	return blob_image_decode(p, used, image, why);
}

/* @from: whose map it shares from now on; NULL: nobody's. */
static int apply_create(struct store *s, uint32_t slot, const struct blob_image *image, struct blob *from,
			struct blob_reason *why)
{
	uint32_t root = from ? slot_id(from->root) : 0;
	struct blob *b = NULL;
	int rc;

	if (slot > s->nr_slots + (1u << 20) || (slot < s->nr_slots && s->slots[slot]))
		return refuse(why, "creates a blob in slot %u, which it cannot", slot);
	mpage_touch(s, TABLE_BLOBS, slot); /* a checkpoint under way may still have to see the slot empty */
	rc = blob_from_image(s, slot, image, root, &b);
	if (rc)
		return rc;
	if (image->id >= s->super.next_blob_id)
		s->super.next_blob_id = image->id + 1;
	if (root && !BLOB_MUTANT(CLONE_UNCOUNTED) && !(s->loading && BLOB_MUTANT(SNAPSHOT_COUNT_NOT_REPLAYED)))
		node_set_count(s, root, node_count(s, root) + 1);
	if (!from)
		return 0;
	figures_share(b, from);
	if (image->flags & BLOB_FLAG_SNAPSHOT) {
		mpage_touch(s, TABLE_BLOBS, from->slot);
		from->figures.nr_own = 0;
		blob_relate(from, image->id);
		figures_same(from);
	}
	return 0;
}

static int apply_delete(struct store *s, struct blob *b)
{
	uint32_t root = slot_id(b->root);
	struct blob *child;

	if (root && reap_push(s, root))
		return -ENOMEM;
	while ((child = blob_first_child(b))) {
		mpage_touch(s, TABLE_BLOBS, child->slot);
		blob_relate(child, b->parent_id);
	}
	mpage_touch(s, TABLE_BLOBS, b->slot);
	blob_forget(b);
	return 0;
}

static int apply_revert(struct store *s, struct blob *b, const uint8_t *body, uint32_t len,
			struct blob_reason *why)
{
	struct blob *snapshot = NULL;
	uint32_t root;
	int rc = len < 8 ? refuse(why, "a revert record of %u bytes", len)
			 : get_blob(s, body + 4, len - 4, &snapshot, why);

	if (rc)
		return rc;
	if (snapshot == b)
		return refuse(why, "reverts blob %llu to itself", (unsigned long long)b->id);
	root = slot_id(snapshot->root);
	if (root && !BLOB_MUTANT(REVERT_UNCOUNTED))
		node_set_count(s, root, node_count(s, root) + 1);
	rc = map_take_root(b, root);
	if (rc)
		return rc;
	s->nr_reverts++;
	mpage_touch(s, TABLE_BLOBS, b->slot);
	atomic_store(&b->nr_clusters, snapshot->nr_clusters);
	rc = blob_take_external(b, snapshot->external ? snapshot->external->uuid : b->uuid, snapshot->external_clusters);
	if (rc)
		return rc;
	b->flags = (b->flags & ~BLOB_FLAG_EXTERNAL) | (snapshot->flags & BLOB_FLAG_EXTERNAL);
	b->flags = (b->flags & ~BLOB_FLAG_TAIL) | (snapshot->flags & BLOB_FLAG_TAIL);
	blob_relate(b, snapshot->id);
	figures_share(b, snapshot);
	return 0;
}

static int apply_resize(struct blob *b, const uint8_t *body, uint32_t len, struct blob_reason *why)
{
	if (len < 16 || get64(body + 8) > UINT32_MAX)
		return refuse(why, "resizes a blob to what cannot be");
	mpage_touch(b->store, TABLE_BLOBS, b->slot);
	if (get64(body + 8) < b->nr_clusters && !BLOB_MUTANT(RESIZE_KEEPS_TAIL))
		b->flags |= BLOB_FLAG_TAIL;
	atomic_store(&b->nr_clusters, get64(body + 8));
	if (b->external_clusters > b->nr_clusters) /* should it grow again, it reads zero there */
		atomic_store(&b->external_clusters, b->nr_clusters);
	return 0;
}

static int apply_parent(struct blob *b, const uint8_t *body, uint32_t len, struct blob_reason *why)
{
	if (len < 16 || get64(body + 8) == b->id)
		return refuse(why, "gives a blob a parent that cannot be");
	mpage_touch(b->store, TABLE_BLOBS, b->slot);
	blob_relate(b, get64(body + 8));
	return 0;
}

static int apply_share(struct store *s, const uint8_t *body, uint32_t len, struct blob_reason *why)
{
	struct blob *b = NULL, *from = NULL;
	int rc = len < 16 ? refuse(why, "a map record of %u bytes", len) : get_blob(s, body, len, &b, why);

	if (!rc)
		rc = get_blob(s, body + 12, len - 12, &from, why);
	return rc ? rc : map_apply_share(b, get32(body + 4), get32(body + 8), from, why);
}

/* One blob's map, instead of its own, becomes another's, and the one is no more. */
static int apply_take(struct store *s, struct blob *b, const uint8_t *body, uint32_t len, struct blob_reason *why)
{
	struct blob *from = NULL;
	int rc = len < 16 ? refuse(why, "a record of %u bytes", len) : get_blob(s, body + 4, len - 4, &from, why);

	if (rc)
		return rc;
	if (from == b || !(from->flags & BLOB_FLAG_TEMPORARY) || from->nr_children)
		return refuse(why, "takes the map of blob %llu, which it cannot", (unsigned long long)from->id);
	rc = map_take_root(b, slot_id(from->root));
	if (rc)
		return rc;
	s->nr_reverts++;
	mpage_touch(s, TABLE_BLOBS, b->slot);
	mpage_touch(s, TABLE_BLOBS, from->slot);
	rc = blob_take_external(b, from->external ? from->external->uuid : b->uuid, from->external_clusters);
	if (rc)
		return rc;
	b->flags = (b->flags & ~BLOB_FLAG_EXTERNAL) | (from->flags & BLOB_FLAG_EXTERNAL);
	b->flags = (b->flags & ~BLOB_FLAG_TAIL) | (from->flags & BLOB_FLAG_TAIL);
	figures_share(b, from);
	blob_relate(b, get64(body + 8));
	blob_forget(from);
	return 0;
}

static int apply_blob(struct store *s, uint8_t type, const uint8_t *body, uint32_t len,
		      struct blob_reason *why)
{
	struct blob_image image;
	struct blob *b = NULL;
	uint32_t skip = type == REC_BLOB_SNAPSHOT ? 8 : 4;
	int rc;

	if (len < skip)
		return refuse(why, "a blob record of %u bytes", len);
	if (type != REC_BLOB_CREATE) {
		rc = get_blob(s, body, len, &b, why);
		if (rc)
			return rc;
	}
	if (type == REC_BLOB_DELETE)
		return apply_delete(s, b);
	if (type == REC_BLOB_RESIZE)
		return apply_resize(b, body, len, why);
	if (type == REC_BLOB_REVERT)
		return apply_revert(s, b, body, len, why);
	if (type == REC_BLOB_PARENT)
		return apply_parent(b, body, len, why);
	if (type == REC_BLOB_TAKE)
		return apply_take(s, b, body, len, why);
	rc = get_image(body + skip, len - skip, &image, why);
	if (rc)
		return rc;
	if (type == REC_BLOB_ATTR) {
		mpage_touch(s, TABLE_BLOBS, b->slot);
		return blob_take_attrs(b, &image);
	}
	return apply_create(s, get32(body + skip - 4), &image, b, why);
}

static int apply_store_name(struct store *s, const uint8_t *body, uint32_t len, struct blob_reason *why)
{
	uint32_t n = len < 4 ? 0 : get32(body);

	if (!n || n > BLOB_NAME_MAX || n > len - 4 || memchr(body + 4, 0, n))
		return refuse(why, "a store name of %u bytes", n);
	memset(s->super.name, 0, sizeof(s->super.name));
	memcpy(s->super.name, body + 4, n);
	return 0;
}

static int apply_sums(struct store *s, uint8_t type, const uint8_t *body, uint32_t len, struct blob_reason *why)
{
	uint32_t nr = len < 4 ? 0 : get32(body);

	if (!nr || nr > (len - 4) / 4 || !s->csum)
		return refuse(why, "a record about the checksums of %u clusters", nr);
	for (uint32_t i = 0; i < nr; i++) {
		uint32_t cluster = get32(body + 4 + 4 * i);

		if (cluster >= s->nr_clusters || super_cluster_reserved(&s->super, cluster))
			return refuse(why, "names cluster %u, which holds no data", cluster);
		if (type == REC_SUMS_MARK)
			csum_mark(s, cluster);
		else
			csum_clean(s, cluster);
	}
	return 0;
}

int record_apply(struct store *s, const uint8_t *record, uint32_t len, struct blob_reason *why)
{
	const uint8_t *body = record + RECORD_HEADER;

	len -= RECORD_HEADER;
	switch (record[0]) {
	case REC_MAP_FILL:
	case REC_MAP_PUT:
	case REC_MAP_CLEAR:
	case REC_NODE_NEW:
	case REC_NODE_COPY:
	case REC_ROOT_GROW:
		return apply_map(s, record[0], body, len, why);
	case REC_BLOB_CREATE:
	case REC_BLOB_DELETE:
	case REC_BLOB_RESIZE:
	case REC_BLOB_ATTR:
	case REC_BLOB_SNAPSHOT:
	case REC_BLOB_REVERT:
	case REC_BLOB_PARENT:
	case REC_BLOB_TAKE:
		return apply_blob(s, record[0], body, len, why);
	case REC_MAP_SHARE:
		return apply_share(s, body, len, why);
	case REC_REAP:
		return len < 4 ? refuse(why, "a reap record of %u bytes", len)
			       : map_apply_reap(s, get32(body), why);
	case REC_STORE_NAME:
		return apply_store_name(s, body, len, why);
	case REC_SUMS_MARK:
	case REC_SUMS_CLEAN:
		return apply_sums(s, record[0], body, len, why);
	}
	return refuse(why, "a record of type %u", record[0]);
}

/* --- replay --- */

static bool changes_map(uint8_t type)
{
	return (type >= REC_MAP_FILL && type <= REC_ROOT_GROW) || type == REC_MAP_SHARE;
}

/* The blob and index whose path a record needs; NULL: none. */
static struct blob *record_path(struct store *s, const uint8_t *record, uint32_t len, uint64_t *ret_index)
{
	const uint8_t *body = record + RECORD_HEADER;
	uint32_t slot;

	if (!changes_map(record[0]) || len < RECORD_HEADER + 8)
		return NULL;
	slot = get32(body);
	*ret_index = record[0] == REC_ROOT_GROW ? 0 : get32(body + 4);
	return slot < s->nr_slots ? s->slots[slot] : NULL;
}

/* What a record changes comes into memory; *ret_pinned stays until it is applied. */
static fiber_fn int record_load(struct store *s, const uint8_t *record, uint32_t len, struct node **ret_pinned)
{
	uint64_t index;
	struct blob *b = record_path(s, record, len, &index);
	uint32_t id;

	if (b && record[0] == REC_MAP_SHARE && len >= RECORD_HEADER + 16 && get32(record + RECORD_HEADER + 12) < s->nr_slots) {
		struct blob *from = s->slots[get32(record + RECORD_HEADER + 12)];
		int rc = from ? map_load(from, index) : 0;

		if (rc)
			return rc;
	}
	if (b)
		return map_load(b, index); /* nothing goes while a journal is replayed */
	if (record[0] != REC_REAP || len < RECORD_HEADER + 4)
		return 0;
	id = get32(record + RECORD_HEADER);
	return node_count(s, id) == 1 ? node_get(s, id, ret_pinned) : 0;
}

struct wanted {
	uint32_t *ids;
	uint64_t nr, cap;
};

static int want_page(struct store *s, const uint8_t *payload, uint32_t used, struct wanted *w)
{
	uint32_t at = JOURNAL_PAYLOAD_HEADER;

	while (used - at >= RECORD_HEADER) {
		uint32_t len = get16(payload + at + 2);
		struct node_wait miss;
		struct blob *b;
		uint64_t index;

		if (len < RECORD_HEADER || len > used - at)
			break;
		b = record_path(s, payload + at, len, &index);
		at += len;
		if (!b || !path_missing(b, index, &miss) || (w->nr && w->ids[w->nr - 1] == miss.id))
			continue;
		if (array_grow(&w->ids, &w->cap, w->nr + 1, sizeof(w->ids[0])))
			return -ENOMEM;
		w->ids[w->nr++] = miss.id;
	}
	return 0;
}

static int compare_ids(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

fiber_fn int records_prefetch(struct store *s, const uint8_t *pages, uint64_t seq, uint64_t nr_pages)
{
	struct wanted w = {0};
	int rc = 0;

	do { /* one level of the maps each time */
		uint64_t nr = 0;

		w.nr = 0;
		for (uint64_t i = 0; i < nr_pages && !rc; i++) {
			const uint8_t *page = pages + i * PAGE_BYTES;
			uint32_t used = get32(page + 40);

			/* Whether it is whole is looked at when it is applied. */
			if (get64(page + 24) == seq + i && get64(page + 32) == s->super.epoch &&
			    used >= JOURNAL_PAYLOAD_HEADER && used <= PAGE_PAYLOAD)
				rc = want_page(s, page + PAGE_HEADER_BYTES, used, &w);
		}
		if (w.nr)
			qsort(w.ids, w.nr, sizeof(w.ids[0]), compare_ids);
		for (uint64_t i = 0; i < w.nr; i++)
			if (!i || w.ids[i] != w.ids[i - 1])
				w.ids[nr++] = w.ids[i];
		w.nr = nr;
		if (!rc && nr)
			rc = nodes_load_many(s, w.ids, nr);
	} while (!rc && w.nr);
	free(w.ids);
	return rc;
}

fiber_fn int records_apply(struct store *s, const uint8_t *payload, uint32_t used, uint64_t *ret_nr,
		  struct blob_reason *why)
{
	uint32_t nr, at = JOURNAL_PAYLOAD_HEADER;

	if (used < JOURNAL_PAYLOAD_HEADER)
		return refuse(why, "a journal page of %u bytes", used);
	nr = get32(payload + 8);
	for (uint32_t i = 0; i < nr; i++) {
		uint32_t len = used - at < RECORD_HEADER ? 0 : get16(payload + at + 2);
		struct blob_reason inner = {""};
		struct node *pinned = NULL;
		int rc;

		if (len < RECORD_HEADER || len % 4 || len > used - at)
			return refuse(why, "record %u has %u bytes where %u are left", i, len, used - at);
		rc = record_load(s, payload + at, len, &pinned);

		if (!rc)
			rc = record_apply(s, payload + at, len, &inner);
		node_put(s, pinned);
		if (rc == -EUCLEAN)
			return refuse(why, "record %u (type %u): %.180s", i, payload[at], inner.text);
		if (rc)
			return rc;
		at += len;
		(*ret_nr)++;
	}
	return at == used ? 0 : refuse(why, "%u bytes after the last record", used - at);
}

/* --- making them --- */

static void apply_own(struct store *s, const uint8_t *body)
{
	const uint8_t *record = body - RECORD_HEADER;
	struct blob_reason why = {"no memory"};
	int rc = record_apply(s, record, get16(record + 2), &why);

	if (rc)
		store_fail(s, rc, why.text);
}

void rec_map_fill(struct store *s, struct blob *b, uint64_t index, uint32_t own, uint32_t first_sub,
		  uint32_t nr_subs)
{
	uint8_t *p = journal_record(s, REC_MAP_FILL, 16);

	put32(p, b->slot);
	put32(p + 4, index);
	put32(p + 8, own);
	put16(p + 12, first_sub);
	put16(p + 14, nr_subs);
	s->journal.has_data = true;
	apply_own(s, p);
}

void rec_map_put(struct store *s, struct blob *b, uint64_t index, uint32_t own, uint32_t base, bool external,
		 const uint64_t *mask)
{
	bool full = !mask || mask_is_full(s, mask);
	uint8_t *p = journal_record(s, REC_MAP_PUT, 20 + (full ? 0 : s->mask_bytes));

	put32(p, b->slot);
	put32(p + 4, index);
	put32(p + 8, own);
	put32(p + 12, full ? 0 : base);
	if (!full) {
		uint64_t le[BLOB_CLUSTER_MAX / BLOB_SUB_SIZE / 64];

		for (uint32_t i = 0; i < s->mask_words; i++)
			le[i] = htole64(mask[i]);
		put16(p + 16, s->mask_bytes);
		put16(p + 18, external ? PUT_EXTERNAL : 0);
		memcpy(p + 20, le, s->mask_bytes);
	}
	s->journal.has_data = true;
	apply_own(s, p);
}

void rec_map_clear(struct store *s, struct blob *b, uint64_t first, uint32_t nr)
{
	uint8_t *p = journal_record(s, REC_MAP_CLEAR, 12);

	put32(p, b->slot);
	put32(p + 4, first);
	put32(p + 8, nr);
	apply_own(s, p);
}

void rec_node(struct store *s, uint8_t type, struct blob *b, uint64_t index, unsigned level, uint32_t node)
{
	uint8_t *p = journal_record(s, type, 16);

	put32(p, b->slot);
	put32(p + 4, index);
	p[8] = level;
	put32(p + 12, node);
	apply_own(s, p);
}

void rec_root_grow(struct store *s, struct blob *b, uint32_t node)
{
	uint8_t *p = journal_record(s, REC_ROOT_GROW, 8);

	put32(p, b->slot);
	put32(p + 4, node);
	apply_own(s, p);
}

void rec_blob(struct store *s, uint8_t type, uint32_t slot, const struct blob_image *image)
{
	uint8_t *p = journal_record(s, type, 4 + blob_image_bytes(image));

	put32(p, slot);
	blob_image_encode(image, p + 4);
	apply_own(s, p);
}

void rec_blob_delete(struct store *s, struct blob *b)
{
	uint8_t *p = journal_record(s, REC_BLOB_DELETE, 4);

	put32(p, b->slot);
	apply_own(s, p);
}

void rec_blob_resize(struct store *s, struct blob *b, uint64_t nr_clusters)
{
	uint8_t *p = journal_record(s, REC_BLOB_RESIZE, 16);

	put32(p, b->slot);
	put64(p + 8, nr_clusters);
	apply_own(s, p);
}

void rec_reap(struct store *s, uint32_t node)
{
	uint8_t *p = journal_record(s, REC_REAP, 4);

	put32(p, node);
	apply_own(s, p);
}

void rec_store_name(struct store *s, const char *name)
{
	uint32_t len = strlen(name);
	uint8_t *p = journal_record(s, REC_STORE_NAME, 4 + len);

	put32(p, len);
	memcpy(p + 4, name, len);
	apply_own(s, p);
}

void rec_sums(struct store *s, uint8_t type, const uint32_t *clusters, uint32_t nr)
{
	uint8_t *p = journal_record(s, type, 4 + 4 * nr);

	put32(p, nr);
	for (uint32_t i = 0; i < nr; i++)
		put32(p + 4 + 4 * i, clusters[i]);
	apply_own(s, p);
}

void rec_blob_snapshot(struct store *s, struct blob *b, uint32_t slot, const struct blob_image *image)
{
	uint8_t *p = journal_record(s, REC_BLOB_SNAPSHOT,
				    8 + blob_image_bytes(image));

	put32(p, b->slot);
	put32(p + 4, slot);
	blob_image_encode(image, p + 8);
	apply_own(s, p);
}

void rec_blob_revert(struct store *s, struct blob *b, const struct blob *snapshot)
{
	uint8_t *p = journal_record(s, REC_BLOB_REVERT, 8);

	put32(p, b->slot);
	put32(p + 4, snapshot->slot);
	apply_own(s, p);
}

void rec_blob_parent(struct store *s, struct blob *b, uint64_t parent_id)
{
	uint8_t *p = journal_record(s, REC_BLOB_PARENT, 16);

	put32(p, b->slot);
	put64(p + 8, parent_id);
	apply_own(s, p);
}

void rec_map_share(struct store *s, struct blob *b, uint64_t first, uint32_t nr, const struct blob *from)
{
	uint8_t *p = journal_record(s, REC_MAP_SHARE, 16);

	put32(p, b->slot);
	put32(p + 4, first);
	put32(p + 8, nr);
	put32(p + 12, from->slot);
	apply_own(s, p);
}

void rec_blob_take(struct store *s, struct blob *b, const struct blob *from, uint64_t parent_id)
{
	uint8_t *p = journal_record(s, REC_BLOB_TAKE, 16);

	put32(p, b->slot);
	put32(p + 4, from->slot);
	put64(p + 8, parent_id);
	apply_own(s, p);
}
