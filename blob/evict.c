/*
 * Nodes go from memory when it holds more than the map cache may.  A hand goes round over what can point to nodes: inner nodes by
 * their number, then the roots of blobs.  What was looked at since it came by last stays; else its slot names the node instead of
 * pointing to it, and a node to which nothing points any more goes, once no thread can still be reading it.
 *
 * Only what the newest durable checkpoint has can go, and what nothing in the journal waits for; inner nodes after their
 * children.  So a node in memory is always found from the root on, and reading it again gives what it was.
 */
#include "blob/cache.h"

#define LOOKS_A_TURN 512u
#define STEPS_A_TURN 8192u

void node_free(struct store *s, struct node *node)
{
	for (uint32_t i = 0; !node->level && i < node_nr_slots(s, 0); i++)
		if (entry_decode(node->slots[i]).partial)
			partial_free(s, entry_decode(node->slots[i]).partial);
	s->map_bytes -= node_bytes(s, node->level);
	free(node);
}

void node_drop(struct store *s, struct node *node)
{
	assert(!node->nr_links && !node->nr_linked && !node->nr_pins);
	for (uint32_t i = 0; !node->level && i < node_nr_slots(s, 0); i++)
		entry_free(s, node->slots[i]);
	s->nodes[node->id] = NULL;
	s->map_bytes -= node_bytes(s, node->level);
	s->stats.nr_node_evictions++;
	retire(s, &node->retired);
}

static bool may_go(struct store *s, const struct node *node)
{
	const struct mpage *page = mpage_get(s, TABLE_NODES, node->id);
	uint64_t durable = atomic_load(&s->journal.committed_seq);

	if (s->journal.start_seq > durable)
		durable = s->journal.start_seq; /* the checkpoint has what was never written to the journal */
	return page && !node->nr_pins && !node->lost && !node->nr_linked &&
	       (list_empty(&page->dirty_link) || BLOB_MUTANT(NODE_GOES_DIRTY)) && list_empty(&page->frozen_link) &&
	       !page->image && page->ref.a &&
	       (page->ref.generation <= s->super.generation || BLOB_MUTANT(NODE_GOES_EARLY)) &&
	       atomic_load(&node->last_seq) < durable && atomic_load(&node->unshared_seq) < durable;
}

/* Whether it goes: it may, and nobody has looked at it since the last time. */
static bool goes(struct store *s, struct node *node)
{
	if (!may_go(s, node))
		return false;
	return !atomic_exchange_explicit(&node->hot, false, memory_order_relaxed);
}

static void look_at_slot(struct store *s, _Atomic uint64_t *slot, struct node *parent)
{
	uint64_t raw = atomic_load_explicit(slot, memory_order_relaxed);
	struct node *node;

	if (!raw || raw & 1)
		return;
	node = slot_node(raw);
	if (!goes(s, node))
		return;
	map_slot_set(parent, slot, (uint64_t)node->id << 1 | 1);
	if (!node->nr_links)
		node_drop(s, node);
}

/* How many places it looked at. */
static unsigned look_at_node(struct store *s, struct node *node)
{
	unsigned looks = 1;

	for (uint32_t i = 0; node->level && node->nr_linked && i < node_nr_slots(s, node->level); i++, looks++)
		look_at_slot(s, &node->slots[i], node);
	if (!node->nr_links && goes(s, node))
		node_drop(s, node);
	return looks;
}

static bool over(const struct store *s)
{
	return s->map_bytes > s->cache->max_bytes && !s->cache->nr_holds;
}

static void turn(struct store *s)
{
	struct map_cache *c = s->cache;

	for (unsigned looks = 0, steps = 0; looks < LOOKS_A_TURN && steps < STEPS_A_TURN && over(s); steps++) {
		uint64_t at = c->hand++;

		if (at < s->nr_nodes) {
			if (!s->nodes[at])
				continue;
			looks += look_at_node(s, s->nodes[at]);
		} else if (at - s->nr_nodes < s->nr_slots) {
			struct blob *b = s->slots[at - s->nr_nodes];

			if (!b)
				continue;
			look_at_slot(s, &b->root, NULL);
			looks++;
		} else {
			c->hand = 0;
			c->nr_rounds++;
			looks++;
		}
	}
}

void cache_check(struct store *s)
{
	if (s->cache && over(s))
		fiber_cond_signal(&s->cache->wake);
}

void cache_hold(struct store *s, bool on)
{
	if (on)
		s->cache->nr_holds++;
	else if (!--s->cache->nr_holds)
		cache_check(s);
}

void evict_fiber(void *arg)
{
	struct store *s = arg;
	struct map_cache *c = s->cache;
	uint64_t bytes = 0;
	unsigned begun = 0;

	while (!s->stopping) {
		/* Two rounds without anything that could go: what is changed must be written first. */
		if (over(s) && c->nr_rounds - begun > 2 && s->map_bytes >= bytes && s->nr_dirty && store_writable(s))
			checkpoint_demand(s);
		if (!over(s) || (c->nr_rounds - begun > 2 && s->map_bytes >= bytes)) {
			fiber_cond_wait(&c->wake);
			begun = c->nr_rounds;
			bytes = s->map_bytes;
			continue;
		}
		if (s->map_bytes < bytes) {
			begun = c->nr_rounds;
			bytes = s->map_bytes;
		}
		turn(s);
		fiber_yield();
	}
	store_fiber_over(s);
}
