/*
 * Maps: radix trees of nodes that blobs share.  The upper half finds entries, on any thread and without
 * locks; the lower half is what records do to a map, the same when they are made and when they are replayed.
 *
 * A record may come from a damaged journal, so what it asks for is checked; what was checked is then changed
 * in an order that shows other threads either the old or the new map.
 */
#include "blob/internal.h"

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
	struct node *node = atomic_load_explicit(&b->root, memory_order_acquire);
	bool shared = false;
	uint64_t newest = 0, seq;

	*ret_shared = false;
	*ret_unshared_seq = 0;
	if (!node ||
	    (!map_height_fits(s, node, index) && !node->lost)) /* how high a lost root was nobody knows */
		return NULL;
	for (;;) {
		shared |= atomic_load_explicit(&node->count, memory_order_acquire) != 1;
		seq = atomic_load_explicit(&node->unshared_seq, memory_order_relaxed);
		newest = seq > newest ? seq : newest;
		if (!node->level || node->lost)
			break;
		node = slot_node(atomic_load_explicit(&node->slots[map_slot(s, index, node->level)],
						      memory_order_acquire));
		if (!node)
			break;
	}
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
	struct node *leaf = map_leaf(b, index, ret_shared);

	uint64_t raw = 0;
	struct entry e;

	*ret_leaf = leaf;
	if (leaf && leaf->lost)
		return (struct entry){0};
	if (leaf)
		raw = atomic_load_explicit(&leaf->slots[map_slot(b->store, index, 0)], memory_order_acquire);
	e = entry_decode(raw);
	if (!raw)
		e.external = index < atomic_load_explicit(&b->external_clusters, memory_order_relaxed);
	return e;
}

uint64_t map_next(const struct blob *b, uint64_t first, uint64_t end)
{
	const struct store *s = b->store;

	while (first < end) {
		struct node *node = b->root;
		unsigned shift;

		if (first < b->external_clusters)
			return first;

		if (!node || (!map_height_fits(s, node, first) && !node->lost))
			return end;
		for (;;) {
			if (!node->level || node->lost)
				return first;
			shift = s->leaf_shift + (node->level - 1) * s->inner_shift;
			node = slot_node(node->slots[map_slot(s, first, node->level)]);
			if (!node)
				break;
		}
		first = ((first >> shift) + 1) << shift;
	}
	return end;
}

uint32_t map_path_pages(const struct blob *b, uint64_t index)
{
	const struct store *s = b->store;
	struct node *root = b->root;
	unsigned levels = 1;
	bool shared;

	if (map_leaf(b, index, &shared) && !shared)
		return 5;
	while (levels < MAX_LEVELS && s->leaf_shift + (levels - 1) * s->inner_shift < 63 &&
	       (b->nr_clusters | index) >> (s->leaf_shift + (levels - 1) * s->inner_shift))
		levels++;
	if (root && root->level + 1u > levels)
		levels = root->level + 1;
	return 2 * levels + 7 + (shared ? freeing_pages(s) * levels : 0);
}

void map_prepare_path(struct store *s, struct blob *b, uint64_t index)
{
	struct node *root = b->root, *node;
	unsigned level = 0;

	if (!root) {
		uint64_t last = b->nr_clusters > index ? b->nr_clusters - 1 : index;

		while (s->leaf_shift + level * s->inner_shift < 63 &&
		       last >> (s->leaf_shift + level * s->inner_shift))
			level++;
		rec_node(s, REC_NODE_NEW, b, index, level, node_id_alloc(s));
	}
	while ((root = b->root) && !map_height_fits(s, root, index))
		rec_root_grow(s, b, node_id_alloc(s));
	for (node = root; node; node = slot_node(node->slots[map_slot(s, index, node->level)])) {
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
	}
}

/* --- what records do --- */

static uint64_t seq_now(const struct store *s)
{
	return s->loading ? 0 : s->journal.open_seq;
}

static void slot_set(struct store *s, struct node *node, unsigned slot, uint64_t raw)
{
	mpage_touch(s, TABLE_NODES, node->id);
	node->nr_present += (raw != 0) - (node->slots[slot] != 0);
	atomic_store_explicit(&node->last_seq, seq_now(s), memory_order_relaxed);
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
	atomic_store_explicit(&b->root, node, memory_order_release);
}

int map_take_root(struct blob *b, struct node *root)
{
	struct node *old = b->root;

	if (old && reap_push(b->store, old->id))
		return -ENOMEM;
	root_set(b, root);
	return 0;
}

/* The path to an index, root first; how many nodes there are of it. */
static unsigned path_find(struct blob *b, uint64_t index, struct node **path)
{
	struct store *s = b->store;
	struct node *node = b->root;
	unsigned nr = 0;

	if (!node || (!map_height_fits(s, node, index) && !node->lost))
		return 0;
	while (node && nr < MAX_LEVELS) {
		path[nr++] = node;
		if (!node->level || node->lost)
			break;
		node = slot_node(node->slots[map_slot(s, index, node->level)]);
	}
	return nr;
}

/* The leaf of an index, if the whole path is there and belongs to this blob alone. */
static int own_leaf(struct blob *b, uint64_t index, struct node **ret_leaf, struct blob_reason *why)
{
	struct node *path[MAX_LEVELS];
	unsigned nr = path_find(b, index, path);

	if (!nr || path[nr - 1]->level || path[nr - 1]->lost)
		return refuse(why, "cluster %llu of blob %llu has no leaf", (unsigned long long)index,
			      (unsigned long long)b->id);
	for (unsigned i = 0; i < nr; i++)
		if (path[i]->count != 1)
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
	if (s->counts[c] >= COUNT_MAX)
		return refuse(why, "names cluster %u, which is metadata", c);
	return 0;
}

static int fill_present(struct blob *b, struct node *leaf, uint64_t index, uint32_t first, uint32_t nr)
{
	struct store *s = b->store;
	unsigned slot = map_slot(s, index, 0);
	uint64_t raw = leaf->slots[slot], mask[BLOB_CLUSTER_MAX / BLOB_SUB_SIZE / 64];
	struct entry e = entry_decode(raw);

	if (e.full)
		return 0;
	mpage_touch(s, TABLE_NODES, leaf->id);
	account(b, index, raw, false);
	entry_get_mask(s, &e, mask);
	mask_set_range(mask, first, nr, true);
	if (mask_is_full(s, mask)) {
		slot_set(s, leaf, slot, entry_make(s, e.own, 0, false, NULL));
		if (e.base)
			cluster_unref(s, e.base);
		account(b, index, leaf->slots[slot], true);
		entry_free(s, raw);
		return 0;
	}
	atomic_store_explicit(&leaf->last_seq, seq_now(s), memory_order_relaxed);
	for (uint32_t i = 0; i < s->mask_words; i++)
		atomic_store_explicit(&e.partial->mask[i], mask[i], memory_order_release);
	account(b, index, raw, true);
	return 0;
}

int map_apply_fill(struct blob *b, uint64_t index, uint32_t own, uint32_t first, uint32_t nr,
		   struct blob_reason *why)
{
	struct store *s = b->store;
	uint64_t mask[BLOB_CLUSTER_MAX / BLOB_SUB_SIZE / 64] = {0}, raw;
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
	if (!rc && (b == from || (source && source->lost) || !nr || nr > node_nr_slots(s, 0) - slot))
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

	if (!id || (id < s->nr_nodes && s->nodes[id]) || level >= MAX_LEVELS || id > s->nr_nodes + (1u << 20))
		return refuse(why, "node %u, level %u, cannot be new", id, level);
	node = node_new(s, id, level);
	if (!node)
		return -ENOMEM;
	/* A checkpoint under way may still have to see that there is no such node. */
	mpage_touch(s, TABLE_NODES, id);
	mpage_touch(s, TABLE_NODE_COUNTS, id / COUNTS_A_PAGE);
	if (node_install(s, node)) {
		free(node);
		return -ENOMEM;
	}
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
			      path[nr - 1]->count != 1
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
	struct node *old = b->root, *node;
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
		if (path[i++]->count != 1)
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
		struct node *child = slot_node(old->slots[c]);

		if (!child)
			continue;
		if (!BLOB_MUTANT(COPY_SHARES_UNCOUNTED))
			node_set_count(s, child, child->count + 1);
		slot_set(s, node, c, (uintptr_t)child);
	}
	if (i)
		slot_set(s, path[i - 1], map_slot(s, index, level + 1), (uintptr_t)node);
	else
		root_set(b, node);
	node_set_count(s, old, old->count - 1);
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

	if (!s->nr_reap || s->reap[s->nr_reap - 1] != id || !node)
		return refuse(why, "reaps node %u, which is not on top of the reap list", id);
	mpage_touch(s, TABLE_REAP, (s->nr_reap - 1) / REAPS_A_PAGE);
	s->nr_reap--;
	if (node->lost)
		return 0; /* what it maps stays in use: nobody knows what it is */
	node_set_count(s, node, node->count - (BLOB_MUTANT(DELETE_COUNTS_TWO) && node->count > 1 ? 2 : 1));
	if (node->count && BLOB_MUTANT(REAP_TWICE))
		return reap_push(s, id);
	if (node->count)
		return 0;
	mpage_touch(s, TABLE_NODES, node->id);
	for (uint32_t i = 0; i < node_nr_slots(s, node->level); i++) {
		uint64_t raw = node->slots[i];
		struct entry e = {0};

		if (raw && node->level && reap_push(s, slot_node(raw)->id))
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
