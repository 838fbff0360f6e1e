/* Entries of leaves, and nodes as objects in memory: made, shared, and freed once no thread can see them. */
#include "blob/cache.h"

void mask_set_range(uint64_t *mask, uint32_t first, uint32_t nr, bool on)
{
	while (nr) {
		uint32_t bit = first % 64, n = nr < 64 - bit ? nr : 64 - bit;
		uint64_t bits = UINT64_MAX >> (64 - n) << bit;

		if (on)
			mask[first / 64] |= bits;
		else
			mask[first / 64] &= ~bits;
		first += n;
		nr -= n;
	}
}

bool mask_is_full(const struct store *s, const uint64_t *mask)
{
	uint64_t last = s->subs_a_cluster % 64 ? (1ull << (s->subs_a_cluster % 64)) - 1 : UINT64_MAX;

	for (uint32_t i = 0; i + 1 < s->mask_words; i++)
		if (mask[i] != UINT64_MAX)
			return false;
	return mask[s->mask_words - 1] == last;
}

bool mask_is_empty(const struct store *s, const uint64_t *mask)
{
	for (uint32_t i = 0; i < s->mask_words; i++)
		if (mask[i])
			return false;
	return true;
}

bool entry_has_range(const struct entry *e, uint32_t first, uint32_t nr)
{
	if (e->full)
		return true;
	for (uint32_t i = first; i < first + nr; i++)
		if (!entry_has(e, i))
			return false;
	return true;
}

void entry_get_mask(const struct store *s, const struct entry *e, uint64_t *mask)
{
	for (uint32_t i = 0; i < s->mask_words; i++)
		mask[i] = e->partial ? e->partial->mask[i] : 0;
	if (e->full)
		mask_set_range(mask, 0, s->subs_a_cluster, true);
}

/* What the allocator takes for it. */
static size_t with_overhead(size_t bytes)
{
	return (bytes + 8 + 15) & ~(size_t)15;
}

static size_t partial_bytes(const struct store *s)
{
	return with_overhead(sizeof(struct partial) + s->mask_words * sizeof(uint64_t));
}

struct partial *partial_new(struct store *s, uint32_t own, uint32_t base)
{
	struct partial *p = calloc(1, sizeof(struct partial) + s->mask_words * sizeof(uint64_t));

	if (!p)
		return NULL;
	p->own = own;
	p->base = base;
	s->map_bytes += partial_bytes(s);
	return p;
}

void partial_free(struct store *s, struct partial *p)
{
	s->map_bytes -= partial_bytes(s);
	free(p);
}

uint64_t entry_make(struct store *s, uint32_t own, uint32_t base, bool external, const uint64_t *mask)
{
	struct partial *p;

	if (!mask || mask_is_full(s, mask))
		return (uint64_t)own << 1 | 1;
	p = partial_new(s, own, external ? BASE_EXTERNAL : base);
	if (!p)
		return 0;
	for (uint32_t i = 0; i < s->mask_words; i++)
		p->mask[i] = mask[i];
	return (uintptr_t)p;
}

void entry_free(struct store *s, uint64_t raw)
{
	if (raw && !(raw & 1)) {
		s->map_bytes -= partial_bytes(s);
		retire_entry(s, entry_decode(raw).partial);
	}
}

/* --- nodes --- */

size_t node_bytes(const struct store *s, unsigned level)
{
	return with_overhead(sizeof(struct node) + node_nr_slots(s, level) * sizeof(uint64_t));
}

uint32_t node_id_alloc(struct store *s)
{
	while (s->free_node_ids.nr) {
		uint32_t id = s->free_node_ids.v[--s->free_node_ids.nr];

		if (!node_count(s, id)) /* else a damaged map has named it since */
			return id;
	}
	return s->nr_nodes ? s->nr_nodes : 1;
}

int node_install(struct store *s, struct node *node)
{
	if (array_grow(&s->nodes, &s->nodes_cap, (uint64_t)node->id + 1, sizeof(s->nodes[0])) ||
	    array_grow(&s->node_counts, &s->node_counts_cap, (uint64_t)node->id + 1, sizeof(s->node_counts[0])) ||
	    !mpage_get(s, TABLE_NODES, node->id))
		return -ENOMEM;
	s->nodes[node->id] = node;
	if (node->id >= s->nr_nodes)
		s->nr_nodes = (uint64_t)node->id + 1;
	return 0;
}

struct node *node_new(struct store *s, uint32_t id, unsigned level)
{
	struct node *node = calloc(1, sizeof(*node) + node_nr_slots(s, level) * sizeof(uint64_t));

	if (!node)
		return NULL;
	node->id = id;
	node->level = level;
	node->count = 1;
	node->hot = true;
	s->map_bytes += node_bytes(s, level);
	return node;
}

void node_set_count(struct store *s, uint32_t id, uint32_t count)
{
	struct node *node;
	bool unshared;

	if (node_count(s, id) >= COUNT_MAX)
		return; /* it is not known, and stays so */
	node = s->nodes[id];
	unshared = count == 1 && s->node_counts[id] > 1 && !s->loading;
	mpage_touch(s, TABLE_NODE_COUNTS, id / COUNTS_A_PAGE);
	s->node_counts[id] = count;
	if (unshared && !node)
		s->cache->unshared_seq = s->journal.open_seq;
	if (!node)
		return;
	if (unshared)
		atomic_store_explicit(&node->unshared_seq, s->journal.open_seq, memory_order_relaxed);
	atomic_store_explicit(&node->count, count, memory_order_release);
}

/* Nodes that it points to are not pointed to by it any more. */
static void unlink_children(struct store *s, struct node *node)
{
	for (uint32_t i = 0; node->level && node->nr_linked && i < node_nr_slots(s, node->level); i++) {
		uint64_t raw = node->slots[i];

		if (raw && !(raw & 1))
			map_slot_set(node, &node->slots[i], (uint64_t)slot_id(raw) << 1 | 1);
	}
}

void node_discard(struct store *s, struct node *node)
{
	mpage_touch(s, TABLE_NODES, node->id);
	node_set_count(s, node->id, 0);
	unlink_children(s, node);
	s->nodes[node->id] = NULL;
	s->nr_live_nodes--;
	s->map_bytes -= node_bytes(s, node->level);
	if (!s->loading)
		vec_push(
			&s->free_node_ids,
			node->id); /* an id that is lost for want of memory is found again by the next open */
	node->gone = true;
	if (!node->nr_pins)
		retire(s, &node->retired);
}
