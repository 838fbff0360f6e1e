/*
 * Maps: radix trees of nodes that blobs share.  The upper half finds entries, on any thread and without
 * locks; the lower half is what records do to a map, the same when they are made and when they are replayed.
 *
 * A record may come from a damaged journal, so what it asks for is checked; what was checked is then changed
 * in an order that shows other threads either the old or the new map.
 */
#include "blob/cache.h"

#define MAX_LEVELS 34u

bool map_height_fits(const struct store *s, const struct node *root, uint64_t index)
{
	unsigned bits = s->leaf_shift + root->level * s->inner_shift;

	return bits >= 63 || !(index >> bits);
}

static inline struct node *find_leaf(const struct blob *b, uint64_t index, bool *ret_shared,
				     uint64_t *ret_unshared_seq)
{
	const struct store *s = b->store;
	uint64_t raw = atomic_load_explicit(&b->root, memory_order_acquire), newest = 0, seq;
	struct node *node = slot_node(raw);
	bool shared = false;

	*ret_shared = false;
	*ret_unshared_seq = 0;
	if (__builtin_expect(raw & 1, 0)) {
		*ret_shared = true;
		return &map_missing;
	}
	if (!node ||
	    (!map_height_fits(s, node, index) && !node->lost)) /* how high a lost root was nobody knows */
		return NULL;
	for (;;) {
		shared |= atomic_load_explicit(&node->count, memory_order_acquire) != 1;
		seq = atomic_load_explicit(&node->unshared_seq, memory_order_relaxed);
		newest = seq > newest ? seq : newest;
		if (!node->level || node->lost)
			break;
		raw = atomic_load_explicit(&node->slots[map_slot(s, index, node->level)], memory_order_acquire);
		if (__builtin_expect(raw & 1, 0)) {
			*ret_shared = true;
			return &map_missing;
		}
		node = slot_node(raw);
		if (!node)
			break;
	}
	if (node && !atomic_load_explicit(&node->hot, memory_order_relaxed))
		atomic_store_explicit(&node->hot, true, memory_order_relaxed);
	*ret_shared = shared;
	*ret_unshared_seq = newest;
	return node;
}

struct node *map_leaf(const struct blob *b, uint64_t index, bool *ret_shared)
{
	uint64_t seq;

	return find_leaf(b, index, ret_shared, &seq);
}

struct node *map_leaf_settled(const struct blob *b, uint64_t index, bool *ret_shared, bool *ret_settled)
{
	uint64_t seq;
	struct node *leaf = find_leaf(b, index, ret_shared, &seq);

	*ret_settled = BLOB_MUTANT(UNSETTLED_IN_PLACE) || !seq || seq < atomic_load(&b->store->journal.committed_seq);
	return leaf;
}

struct entry map_entry(const struct blob *b, uint64_t index, struct node **ret_leaf, bool *ret_shared)
{
	*ret_leaf = map_leaf(b, index, ret_shared);
	return leaf_entry(b, index, *ret_leaf);
}

/* The way to an index, as far as it must be known to say whether there is a leaf: *ret_next is the index, or where to go on. */
static bool leaf_exists(struct blob *b, uint64_t index, struct node_wait *w, uint64_t *ret_next)
{
	struct store *s = b->store;
	_Atomic uint64_t *slot = &b->root;
	struct node *node = node_resolve(s, slot, NULL), *parent = NULL;
	unsigned shift;

	*w = (struct node_wait){.level = LEVEL_ANY, .blob = b, .slot = slot};
	*ret_next = index;
	if (index < b->external_clusters)
		return true;
	while (node && node != &map_missing) {
		if (!parent && !node->lost && !map_height_fits(s, node, index))
			break;
		*ret_next = index;
		if (!node->level || node->lost)
			return true;
		parent = node;
		shift = s->leaf_shift + (node->level - 1) * s->inner_shift;
		slot = &node->slots[map_slot(s, index, node->level)];
		if (*slot && node->level == 1)
			return true; /* whether it is in memory or not */
		node = node_resolve(s, slot, parent);
		*ret_next = ((index >> shift) + 1) << shift;
		if (!node)
			return false;
	}
	if (node == &map_missing) {
		w->id = *slot >> 1;
		w->parent = parent;
		w->slot = slot;
		*ret_next = index;
	} else {
		*ret_next = UINT64_MAX;
	}
	return false;
}

fiber_fn int map_next(struct blob *b, uint64_t first, uint64_t end, uint64_t *ret_index)
{
	struct node *pinned = NULL;
	struct node_wait w;
	int rc = 0;

	while (!rc && first < end && !leaf_exists(b, first, &w, &first))
		if (w.id)
			rc = node_wait_for(b->store, &w, &pinned);
	node_put(b->store, pinned);
	*ret_index = first < end ? first : end;
	return rc;
}

uint32_t map_path_pages(const struct blob *b, uint64_t index)
{
	const struct store *s = b->store;
	struct node *root = b->root & 1 ? NULL : slot_node(b->root);
	unsigned levels = 1;
	bool shared;

	if (map_leaf(b, index, &shared) && !shared)
		return OWN_LEAF_PAGES;
	while (levels < MAX_LEVELS && s->leaf_shift + (levels - 1) * s->inner_shift < 63 &&
	       (b->nr_clusters | index) >> (s->leaf_shift + (levels - 1) * s->inner_shift))
		levels++;
	if (root && root->level + 1u > levels)
		levels = root->level + 1;
	return 2 * levels + 7 + (shared ? freeing_pages(s) * levels : 0);
}

/* What a slot names, if it is in memory. */
static struct node *slot_here(struct store *s, _Atomic uint64_t *slot, struct node *parent)
{
	struct node *node = node_resolve(s, slot, parent);

	return node == &map_missing ? NULL : node;
}

void map_prepare_path(struct store *s, struct blob *b, uint64_t index)
{
	struct node *root, *node, *parent = NULL;
	_Atomic uint64_t *slot = &b->root;
	unsigned level = 0;

	if (!b->root) {
		uint64_t last = b->nr_clusters > index ? b->nr_clusters - 1 : index;

		while (s->leaf_shift + level * s->inner_shift < 63 &&
		       last >> (s->leaf_shift + level * s->inner_shift))
			level++;
		rec_node(s, REC_NODE_NEW, b, index, level, node_id_alloc(s));
	}
	while ((root = slot_here(s, &b->root, NULL)) && !map_height_fits(s, root, index))
		rec_root_grow(s, b, node_id_alloc(s));
	while ((node = slot_here(s, slot, parent))) {
		level = node->level;
		if (node->count > 1) {
			uint32_t id = node_id_alloc(s);

			rec_node(s, REC_NODE_COPY, b, index, level, id);
			node = id < s->nr_nodes ? s->nodes[id] : NULL;
			if (!node)
				return; /* no memory: the store has failed */
		}
		if (!level)
			return;
		if (!node->slots[map_slot(s, index, level)])
			rec_node(s, REC_NODE_NEW, b, index, level - 1, node_id_alloc(s));
		parent = node;
		slot = &node->slots[map_slot(s, index, level)];
	}
}

/* --- what records do --- */

static uint64_t seq_now(const struct store *s)
{
	return s->loading ? 0 : s->journal.open_seq;
}

static struct node *linked_node(uint64_t raw)
{
	return raw && !(raw & 1) ? slot_node(raw) : NULL;
}

void map_slot_set(struct node *parent, _Atomic uint64_t *slot, uint64_t raw)
{
	struct node *old = linked_node(*slot), *now = linked_node(raw);

	if (old)
		old->nr_links--;
	if (now)
		now->nr_links++;
	if (parent)
		parent->nr_linked += (now != NULL) - (old != NULL);
	atomic_store_explicit(slot, raw, memory_order_release);
}

static void slot_set(struct store *s, struct node *node, unsigned slot, uint64_t raw)
{
	mpage_touch(s, TABLE_NODES, node->id);
	node->nr_present += (raw != 0) - (node->slots[slot] != 0);
	atomic_store_explicit(&node->last_seq, seq_now(s), memory_order_relaxed);
	if (node->level)
		map_slot_set(node, &node->slots[slot], raw);
	else
		atomic_store_explicit(&node->slots[slot], raw, memory_order_release);
}

/* What the map amounts to loses an entry's share (before it changes), or gains it (after). */
static void account(struct blob *b, uint64_t index, uint64_t raw, bool gain)
{
	mpage_touch(b->store, TABLE_BLOBS, b->slot);
	figures_change(b, index, raw, gain);
}

static void root_set(struct blob *b, struct node *node)
{
	mpage_touch(b->store, TABLE_BLOBS, b->slot);
	map_slot_set(NULL, &b->root, (uintptr_t)node);
}

int map_take_root(struct blob *b, uint32_t root)
{
	uint32_t old = slot_id(b->root);

	if (old && reap_push(b->store, old))
		return -ENOMEM;
	mpage_touch(b->store, TABLE_BLOBS, b->slot);
	map_slot_set(NULL, &b->root, root ? (uint64_t)root << 1 | 1 : 0);
	(void)node_resolve(b->store, &b->root, NULL);
	return 0;
}

/* The path to an index, root first; how many nodes there are of it.  What is not in memory ends it: callers see to it that
 * nothing is missing. */
static unsigned path_find(struct blob *b, uint64_t index, struct node **path)
{
	struct store *s = b->store;
	_Atomic uint64_t *slot = &b->root;
	struct node *node = slot_here(s, slot, NULL), *parent = NULL;
	unsigned nr = 0;

	if (!node || (!map_height_fits(s, node, index) && !node->lost))
		return 0;
	while (node && nr < MAX_LEVELS) {
		path[nr++] = node;
		if (!node->level || node->lost)
			break;
		parent = node;
		slot = &node->slots[map_slot(s, index, node->level)];
		node = slot_here(s, slot, parent);
	}
	return nr;
}

/* A record that changed a node says that it had it alone, if its count was lost since. */
static bool is_own(const struct store *s, const struct node *node)
{
	return node->count == 1 || (s->loading && node->count >= COUNT_MAX);
}

/* The leaf of an index, if the whole path is there and belongs to this blob alone. */
static int own_leaf(struct blob *b, uint64_t index, struct node **ret_leaf, struct blob_reason *why)
{
	struct node *path[MAX_LEVELS], *leaf;
	bool shared;
	unsigned nr;

	leaf = map_leaf(b, index, &shared);
	if (leaf && !leaf->lost && !leaf->level && !shared) {
		*ret_leaf = leaf;
		return 0;
	}
	nr = path_find(b, index, path);
	if (!nr || path[nr - 1]->level || path[nr - 1]->lost)
		return refuse(why, "cluster %llu of blob %llu has no leaf", (unsigned long long)index,
			      (unsigned long long)b->id);
	for (unsigned i = 0; i < nr; i++)
		if (!is_own(b->store, path[i]))
			return refuse(why, "node %u of blob %llu is shared", path[i]->id,
				      (unsigned long long)b->id);
	*ret_leaf = path[nr - 1];
	return 0;
}

/* Whether a record may name a cluster: one that is for data, and free unless @used. */
static int check_cluster(struct store *s, uint32_t c, struct blob_reason *why)
{
	if (!c || c >= s->nr_clusters || super_cluster_reserved(&s->super, c))
		return refuse(why, "names cluster %u, which holds no data", c);
	if (s->counts[c] > COUNT_MAX)
		return refuse(why, "names cluster %u, which is metadata", c);
	return 0;
}

/* An entry that is its blob's alone amounts to the same with more sub-blocks in it, as long as some are missing. */
static bool amounts_to_same(const struct blob *b, const struct entry *e)
{
	return b->store->counts[e->own] == 1 && b->figures.nr_own && list_empty(&b->children);
}

static int fill_present(struct blob *b, struct node *leaf, uint64_t index, uint32_t first, uint32_t nr)
{
	struct store *s = b->store;
	unsigned slot = map_slot(s, index, 0);
	uint64_t raw = leaf->slots[slot], mask[BLOB_CLUSTER_MAX / BLOB_SUB_SIZE / 64];
	struct entry e = entry_decode(raw);
	bool full, same;

	if (e.full)
		return 0;
	mpage_touch(s, TABLE_NODES, leaf->id);
	entry_get_mask(s, &e, mask);
	mask_set_range(mask, first, nr, true);
	full = mask_is_full(s, mask);
	same = !full && amounts_to_same(b, &e);
	if (!same)
		account(b, index, raw, false);
	if (full) {
		slot_set(s, leaf, slot, entry_make(s, e.own, 0, false, NULL));
		if (e.base)
			cluster_unref(s, e.base);
		account(b, index, leaf->slots[slot], true);
		entry_free(s, raw);
		return 0;
	}
	atomic_store_explicit(&leaf->last_seq, seq_now(s), memory_order_relaxed);
	for (uint32_t i = first / 64; i <= (first + nr - 1) / 64; i++)
		atomic_store_explicit(&e.partial->mask[i], mask[i], memory_order_release);
	if (!same)
		account(b, index, raw, true);
	return 0;
}

int map_apply_fill(struct blob *b, uint64_t index, uint32_t own, uint32_t first, uint32_t nr,
		   struct blob_reason *why)
{
	struct store *s = b->store;
	uint64_t mask[BLOB_CLUSTER_MAX / BLOB_SUB_SIZE / 64], raw;
	unsigned slot = map_slot(s, index, 0);
	struct node *leaf;
	struct entry e;
	int rc = own_leaf(b, index, &leaf, why);

	if (rc)
		return rc;
	if (!nr || nr > s->subs_a_cluster || first > s->subs_a_cluster - nr)
		return refuse(why, "fills sub-blocks %u to %u", first, first + nr);
	rc = check_cluster(s, own, why);
	if (rc)
		return rc;
	raw = leaf->slots[slot];
	e = entry_decode(raw);
	if (raw && e.own != own)
		return refuse(why, "fills cluster %u where the map has %u", own, e.own);
	if (raw)
		return fill_present(b, leaf, index, first, nr);
	if (s->counts[own] && !BLOB_MUTANT(STALE_RECORDS))
		return refuse(why, "fills cluster %u, which is in use", own);
	memset(mask, 0, s->mask_words * sizeof(mask[0]));
	mask_set_range(mask, first, nr, true);
	raw = entry_make(s, own, 0, false, mask);
	if (!raw)
		return -ENOMEM;
	cluster_ref(s, own);
	slot_set(s, leaf, slot, raw);
	account(b, index, raw, true);
	return 0;
}

int map_apply_put(struct blob *b, uint64_t index, uint32_t own, uint32_t base, const uint64_t *mask,
		  bool external, struct blob_reason *why)
{
	struct store *s = b->store;
	unsigned slot = map_slot(s, index, 0);
	struct node *leaf;
	uint64_t raw, old;
	struct entry e;
	int rc = own_leaf(b, index, &leaf, why);

	if (!rc && base && external)
		rc = refuse(why, "an entry with a base and the external bdev");
	if (!rc && (own || (!base && !external)))
		rc = check_cluster(s, own, why);
	if (!rc && base)
		rc = check_cluster(s, base, why);
	if (rc)
		return rc;
	old = leaf->slots[slot];
	e = entry_decode(old);
	if ((own && own != e.own && s->counts[own] && !BLOB_MUTANT(STALE_RECORDS)) ||
	    (base && base != e.own && base != e.base))
		return refuse(why, "maps cluster %u on base %u over %u on base %u", own, base, e.own, e.base);
	raw = entry_make(s, own, base, external, mask);
	if (!raw)
		return -ENOMEM;
	account(b, index, old, false);
	if (own)
		cluster_ref(s, own);
	if (base && !(raw & 1))
		cluster_ref(s, base);
	slot_set(s, leaf, slot, raw);
	if (e.own)
		cluster_unref(s, e.own);
	if (e.base)
		cluster_unref(s, e.base);
	account(b, index, raw, true);
	entry_free(s, old);
	return 0;
}

/* Nodes without anything below them go, from the leaf up. */
static void prune(struct blob *b, uint64_t index)
{
	struct store *s = b->store;
	struct node *path[MAX_LEVELS];
	unsigned nr = path_find(b, index, path);

	while (nr && !path[nr - 1]->nr_present) {
		struct node *node = path[--nr];

		if (nr)
			slot_set(s, path[nr - 1], map_slot(s, index, path[nr - 1]->level), 0);
		else
			root_set(b, NULL);
		node_discard(s, node);
	}
}

int map_apply_clear(struct blob *b, uint64_t first, uint32_t nr, struct blob_reason *why)
{
	struct store *s = b->store;
	static const uint64_t none[BLOB_CLUSTER_MAX / BLOB_SUB_SIZE / 64];
	unsigned slot = map_slot(s, first, 0);
	struct node *leaf;
	int rc = own_leaf(b, first, &leaf, why);

	if (rc)
		return rc;
	if (!nr || nr > node_nr_slots(s, 0) - slot)
		return refuse(why, "clears %u entries from %u on", nr, slot);
	for (uint32_t i = slot; i < slot + nr; i++) {
		uint64_t raw = leaf->slots[i], index = first - slot + i, cleared = 0;
		struct entry e = entry_decode(raw);

		/* Nothing there would show the external bdev. */
		if (index < b->external_clusters)
			cleared = entry_make(s, 0, 0, false, none);
		if (index < b->external_clusters && !cleared)
			return -ENOMEM;
		if (!raw && !cleared)
			continue;
		account(b, index, raw, false);
		slot_set(s, leaf, i, cleared);
		account(b, index, cleared, true);
		if (e.own)
			cluster_unref(s, e.own);
		if (e.base)
			cluster_unref(s, e.base);
		entry_free(s, raw);
	}
	prune(b, first);
	return 0;
}

/* An entry of another leaf for one's own; false: no memory. */
static bool entry_copy(struct store *s, uint64_t from, uint64_t *ret_raw)
{
	uint64_t mask[BLOB_CLUSTER_MAX / BLOB_SUB_SIZE / 64];
	struct entry e = entry_decode(from);

	*ret_raw = from;
	if (!e.partial)
		return true;
	entry_get_mask(s, &e, mask);
	*ret_raw = entry_make(s, e.own, e.base, e.external, mask);
	return *ret_raw;
}

int map_apply_share(struct blob *b, uint64_t first, uint32_t nr, struct blob *from, struct blob_reason *why)
{
	struct store *s = b->store;
	unsigned slot = map_slot(s, first, 0);
	struct node *leaf, *source;
	bool shared;
	int rc = own_leaf(b, first, &leaf, why);

	source = map_leaf(from, first, &shared);
	if (!rc && (b == from || (source && source->lost /* or not in memory */) || !nr || nr > node_nr_slots(s, 0) - slot))
		rc = refuse(why, "shares %u entries from %u on with a blob that it cannot", nr, slot);
	if (rc)
		return rc;
	for (uint32_t i = slot; i < slot + nr; i++) {
		uint64_t old = leaf->slots[i], raw = 0, index = first - slot + i;
		struct entry was = entry_decode(old), is;

		if (source && !entry_copy(s, source->slots[i], &raw))
			return -ENOMEM;
		is = entry_decode(raw);
		if (is.own)
			cluster_ref(s, is.own);
		if (is.base)
			cluster_ref(s, is.base);
		account(b, index, old, false);
		slot_set(s, leaf, i, raw);
		if (was.own)
			cluster_unref(s, was.own);
		if (was.base)
			cluster_unref(s, was.base);
		account(b, index, raw, true);
		entry_free(s, old);
	}
	leaf->maybe_shared = true;
	if (source)
		source->maybe_shared = true;
	prune(b, first);
	return 0;
}

/* A new node with an id that is free. */
static int node_make(struct store *s, uint32_t id, unsigned level, struct node **ret_node,
		     struct blob_reason *why)
{
	struct node *node;

	if (!id || (id < s->nr_nodes && s->node_counts[id]) || level >= MAX_LEVELS || id > s->nr_nodes + (1u << 20))
		return refuse(why, "node %u, level %u, cannot be new", id, level);
	node = node_new(s, id, level);
	if (!node)
		return -ENOMEM;
	/* A checkpoint under way may still have to see that there is no such node. */
	mpage_touch(s, TABLE_NODES, id);
	mpage_touch(s, TABLE_NODE_COUNTS, id / COUNTS_A_PAGE);
	if (node_install(s, node)) {
		node_free(s, node);
		return -ENOMEM;
	}
	s->node_counts[id] = 1;
	s->nr_live_nodes++;
	cache_check(s);
	*ret_node = node;
	return 0;
}

int map_apply_node_new(struct blob *b, uint64_t index, unsigned level, uint32_t id, struct blob_reason *why)
{
	struct store *s = b->store;
	struct node *path[MAX_LEVELS], *node;
	unsigned nr = path_find(b, index, path);
	int rc;

	if (b->root ? !nr || path[nr - 1]->level != level + 1 || path[nr - 1]->lost ||
			      !is_own(s, path[nr - 1])
		    : 0)
		return refuse(why, "a node of level %u has no place on the way to cluster %llu of blob %llu",
			      level, (unsigned long long)index, (unsigned long long)b->id);
	rc = node_make(s, id, level, &node, why);
	if (rc)
		return rc;
	atomic_store(&node->last_seq, seq_now(s));
	if (nr)
		slot_set(s, path[nr - 1], map_slot(s, index, level + 1), (uintptr_t)node);
	else
		root_set(b, node);
	return 0;
}

int map_apply_root_grow(struct blob *b, uint32_t id, struct blob_reason *why)
{
	struct node *old = slot_here(b->store, &b->root, NULL), *node;
	int rc;

	if (!old)
		return refuse(why, "blob %llu has no root that could grow", (unsigned long long)b->id);
	rc = node_make(b->store, id, old->level + 1u, &node, why);
	if (rc)
		return rc;
	slot_set(b->store, node, 0, (uintptr_t)old);
	root_set(b, node);
	return 0;
}

static int copy_leaf(struct store *s, struct node *from, struct node *to)
{
	for (uint32_t i = 0; i < node_nr_slots(s, 0); i++) {
		uint64_t raw = from->slots[i];
		struct entry e = entry_decode(raw);

		if (!raw)
			continue;
		if (!entry_copy(s, from->slots[i], &raw))
			return -ENOMEM;
		if (e.own)
			cluster_ref(s, e.own);
		if (e.base)
			cluster_ref(s, e.base);
		slot_set(s, to, i, raw);
	}
	from->maybe_shared = to->maybe_shared = true;
	return 0;
}

int map_apply_node_copy(struct blob *b, uint64_t index, unsigned level, uint32_t id, struct blob_reason *why)
{
	struct store *s = b->store;
	struct node *path[MAX_LEVELS], *old = NULL, *node;
	unsigned nr = path_find(b, index, path), i = 0;
	int rc;

	while (i < nr && path[i]->level != level)
		if (!is_own(s, path[i++]))
			return refuse(why, "a node above the one to copy is shared");
	if (i == nr || path[i]->lost || path[i]->count < 2)
		return refuse(why, "no shared node of level %u on the way to cluster %llu of blob %llu",
			      level, (unsigned long long)index, (unsigned long long)b->id);
	old = path[i];
	rc = node_make(s, id, level, &node, why);
	if (rc)
		return rc;
	atomic_store(&node->last_seq, seq_now(s));
	if (!level) {
		rc = copy_leaf(s, old, node);
		if (rc)
			return rc;
	}
	for (uint32_t c = 0; level && c < node_nr_slots(s, level); c++) {
		uint64_t raw = old->slots[c];

		if (!raw)
			continue;
		if (!BLOB_MUTANT(COPY_SHARES_UNCOUNTED))
			node_set_count(s, slot_id(raw), node_count(s, slot_id(raw)) + 1);
		slot_set(s, node, c, raw);
	}
	if (i)
		slot_set(s, path[i - 1], map_slot(s, index, level + 1), (uintptr_t)node);
	else
		root_set(b, node);
	node_set_count(s, old->id, old->count - 1);
	return 0;
}

/* --- the reap list --- */

int reap_push(struct store *s, uint32_t id)
{
	if (array_grow(&s->reap, &s->reap_cap, s->nr_reap + 1, sizeof(s->reap[0])))
		return -ENOMEM;
	mpage_touch(s, TABLE_REAP, s->nr_reap / REAPS_A_PAGE);
	s->reap[s->nr_reap++] = id;
	if (!s->loading)
		fiber_cond_signal(&s->reap_wake);
	return 0;
}

int map_apply_reap(struct store *s, uint32_t id, struct blob_reason *why)
{
	struct node *node = id < s->nr_nodes ? s->nodes[id] : NULL;
	uint32_t by;

	if (!s->nr_reap || s->reap[s->nr_reap - 1] != id || (!node && node_count(s, id) == 1))
		return refuse(why, "reaps node %u, which is not on top of the reap list", id);
	mpage_touch(s, TABLE_REAP, (s->nr_reap - 1) / REAPS_A_PAGE);
	s->nr_reap--;
	if ((node && node->lost) || node_count(s, id) >= COUNT_MAX)
		return 0; /* what it maps stays in use: nobody knows what it is, or whose */
	if (!node_count(s, id) || (node_count(s, id) == 1 && node->nr_links)) {
		store_degrade(s, "node %u was to be freed, and is %s", id, node_count(s, id) ? "still named" : "no more");
		if (node)
			node_set_count(s, id, COUNT_MAX);
		return 0;
	}
	by = BLOB_MUTANT(DELETE_COUNTS_TWO) && node && s->node_counts[id] > 1 ? 2 : 1;
	node_set_count(s, id, s->node_counts[id] - by);
	if (s->node_counts[id] && BLOB_MUTANT(REAP_TWICE))
		return reap_push(s, id);
	if (s->node_counts[id])
		return 0;
	mpage_touch(s, TABLE_NODES, node->id);
	for (uint32_t i = 0; i < node_nr_slots(s, node->level); i++) {
		uint64_t raw = node->slots[i];
		struct entry e = {0};

		if (raw && node->level && reap_push(s, slot_id(raw)))
			return -ENOMEM;
		if (node->level)
			continue;
		e = entry_decode(raw);
		if (e.own)
			cluster_unref(s, e.own);
		if (e.base)
			cluster_unref(s, e.base);
		entry_free(s, raw);
		atomic_store_explicit(&node->slots[i], 0, memory_order_relaxed);
	}
	node_discard(s, node);
	s->stats.nr_reaped_nodes++;
	return 0;
}
