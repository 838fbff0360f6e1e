/*
 * Nodes come into memory when somebody needs them.  A slot or a root that names a node which is not here is found on any thread;
 * the owner then reads the node's page, and who waited looks again.  All who miss one node wait for the same read; so many
 * reads run at once, and who comes then waits in a queue.
 *
 * A page with one bad copy is read from the other and written anew.  With both bad the node is lost: it is in memory as such, its
 * range answers -EIO, and the rest is served.
 */
#include "blob/cache.h"

struct node map_missing = {.lost = true, .count = 2};
static struct node no_memory = {.lost = true, .count = 2}; /* for a lost node; nothing points to it */

/* --- a page becomes a node --- */

static int decode_leaf(struct store *s, const uint8_t *payload, uint32_t used, struct node *node, struct blob_reason *why)
{
	struct leaf_format format = {.nr_entries = node_nr_slots(s, 0),
				     .mask_bytes = s->mask_bytes,
				     .nr_clusters = s->nr_clusters};
	struct leaf_reader r;
	struct leaf_entry e;
	int rc = leaf_read_begin(&r, payload, used, &format, why);

	while (!rc && (rc = leaf_read(&r, &e, why)) == 1) {
		uint64_t mask[BLOB_CLUSTER_MAX / BLOB_SUB_SIZE / 64] = {0}, raw;

		for (uint32_t i = 0; !e.full && i < s->mask_bytes; i++)
			mask[i / 8] |= (uint64_t)e.mask[i] << (i % 8 * 8);
		raw = entry_make(s, e.own, e.base, e.external, e.full ? NULL : mask);
		if (!raw)
			return -ENOMEM;
		node->slots[e.index] = raw;
		node->nr_present++;
		/* Who shared a cluster may not durably have ceased to. */
		node->maybe_shared |= e.base || (e.own && (s->counts[e.own] > 1 || !cluster_settled(s, e.own)));
		rc = 0;
	}
	return rc;
}

static int decode_inner(struct store *s, const uint32_t *children, struct node *node, struct blob_reason *why)
{
	for (uint32_t i = 0; i < node_nr_slots(s, node->level); i++) {
		if (children[i] >= s->nr_nodes)
			return refuse(why, "names node %u, which cannot be", children[i]);
		node->slots[i] = children[i] ? (uint64_t)children[i] << 1 | 1 : 0;
		node->nr_present += children[i] != 0;
	}
	return 0;
}

/* payload NULL: it is lost, as it is when it says what cannot be.  Not yet in the store. */
static int node_build(struct store *s, const struct page_read *read, const uint8_t *payload, uint32_t used, enum page_type type,
		      struct node **ret_node)
{
	uint32_t children[256], id = read->key;
	struct blob_reason why = {""};
	struct node *node;
	unsigned level = 0;
	int rc = 0;

	if (payload && type == PAGE_INNER)
		rc = inner_decode(payload, used, 1u << s->inner_shift, &level, children, &why);
	node = node_new(s, id, rc ? 0 : level);
	*ret_node = node;
	if (!node)
		return -ENOMEM;
	if (payload && !rc)
		rc = level ? decode_inner(s, children, node, &why) : decode_leaf(s, payload, used, node, &why);
	if (rc == -EUCLEAN) {
		struct mpage *page = mpage_get(s, TABLE_NODES, id);

		page_refused(s, read, &why);
		if (page)
			page->lost = true;
		node_free(s, node);
		return node_build(s, read, NULL, 0, 0, ret_node);
	}
	if (rc)
		node_free(s, node);
	else
		node->lost = !payload;
	return rc;
}

/* From now on it can be found. */
static int node_arrives(struct store *s, struct node *node)
{
	if (!s->node_counts[node->id]) { /* it is named, so it is: by how many nobody knows */
		s->node_counts[node->id] = COUNT_MAX;
		s->nr_live_nodes++;
	}
	atomic_store(&node->count, s->node_counts[node->id]);
	/* The same of who shared the node. */
	if (s->cache->unshared_seq && !BLOB_MUTANT(NODE_COMES_SETTLED) && s->cache->unshared_seq >= atomic_load(&s->journal.committed_seq))
		atomic_store(&node->unshared_seq, s->cache->unshared_seq);
	node->hot = true;
	return node_install(s, node);
}

/* Nothing says where it is, or where it was is known to be lost. */
static struct node *lost_node(struct store *s, uint32_t id)
{
	struct node *node = node_new(s, id, 0);

	if (!node)
		return NULL;
	node->lost = true;
	if (!node_arrives(s, node))
		return node;
	node_free(s, node);
	return NULL;
}

static struct mpage *node_page(struct store *s, uint32_t id)
{
	struct mtable *t = &s->table[TABLE_NODES];

	return id < t->nr_pages && t->chunks[id / TABLE_FANOUT] ? &t->chunks[id / TABLE_FANOUT][id % TABLE_FANOUT] : NULL;
}

static bool page_known(struct store *s, uint32_t id)
{
	struct mpage *page = node_page(s, id);

	if (page && page->ref.a && !page->lost)
		return true;
	if (!page || !page->lost) {
		store_degrade(s, "node %u is missing", id);
		check_found(s, STORE_FINDING_MAP, 0, "node %u is named but missing", id);
	}
	return false;
}

static struct page_read node_read(struct store *s, uint32_t id)
{
	return (struct page_read){.key = id, .ref = node_page(s, id)->ref, .owner = table_owner(TABLE_NODES, 0, id)};
}

/* --- slots --- */

struct node *node_resolve(struct store *s, _Atomic uint64_t *slot, struct node *parent)
{
	uint64_t raw = atomic_load_explicit(slot, memory_order_relaxed), id = raw >> 1;
	struct node *node;

	if (!(raw & 1))
		return slot_node(raw);
	node = id < s->nr_nodes ? s->nodes[id] : NULL;
	if (!node && id < s->nr_nodes && page_known(s, id))
		return &map_missing;
	if (!node && id < s->nr_nodes)
		node = lost_node(s, id);
	if (!node && id < s->nr_nodes)
		return &no_memory;
	if (parent && (!node || (!node->lost && node->level != parent->level - 1))) {
		store_degrade(s, "node %u of level %u names %llu as its child, which it cannot be", parent->id, parent->level,
			      (unsigned long long)id);
		check_found(s, STORE_FINDING_MAP, 0, "node %u of level %u names %llu as its child", parent->id, parent->level,
			    (unsigned long long)id);
		parent->lost = true;
		return parent;
	}
	if (node)
		map_slot_set(parent, slot, (uintptr_t)node);
	return node;
}

bool path_missing(struct blob *b, uint64_t index, struct node_wait *w)
{
	struct store *s = b->store;
	_Atomic uint64_t *slot = &b->root;
	struct node *parent = NULL, *node;

	while ((node = node_resolve(s, slot, parent))) {
		if (node == &map_missing) {
			w->id = atomic_load(slot) >> 1;
			w->level = parent ? parent->level - 1u : LEVEL_ANY;
			w->blob = b;
			w->parent = parent;
			w->slot = slot;
			return true;
		}
		b->degraded |= node->lost;
		if (node->lost || !node->level || (!parent && !map_height_fits(s, node, index)))
			return false;
		parent = node;
		slot = &node->slots[map_slot(s, index, node->level)];
	}
	return false;
}

/* --- pins --- */

void node_pin(struct node *node)
{
	node->nr_pins++;
}

void node_put(struct store *s, struct node *node)
{
	if (node && --node->nr_pins == 0 && node->gone)
		retire(s, &node->retired);
}

/* --- reads --- */

static void load_read_done(struct bdev_io *bio, int status);

static void load_submit(struct node_load *load)
{
	struct store *s = load->store;

	load->iov = (struct iovec){.iov_base = load->buf, .iov_len = PAGE_BYTES};
	load->bio.done = load_read_done;
	load->bio.op = BDEV_READ;
	load->bio.flags = 0;
	load->bio.iov = &load->iov;
	load->bio.iovcnt = 1;
	load->bio.offset_blocks = page_block(s, load->copy_b ? load->read.ref.b : load->read.ref.a);
	load->bio.nr_blocks = page_block(s, 1);
	s->stats.nr_node_reads++;
	bdev_submit(s->bch, &load->bio);
}

static void load_begin(struct store *s, struct node_load *load, struct node_wait *w)
{
	load->store = s;
	load->busy = true;
	load->copy_b = false;
	load->read = node_read(s, w->id);
	list_init(&load->waiters);
	list_add_tail(&load->waiters, &w->link);
	s->cache->nr_loading++;
	load_submit(load);
}

/* Waits with others for a read that is under way, begins one, or waits in the queue. */
static void node_wait_start(struct store *s, struct node_wait *w)
{
	struct map_cache *c = s->cache;
	struct node_load *none = NULL;

	if (w->parent)
		node_pin(w->parent);
	for (unsigned i = 0; i < NODE_LOADS; i++) {
		struct node_load *load = &c->load[i];

		if (load->busy && load->read.key == w->id) {
			list_add_tail(&load->waiters, &w->link);
			return;
		}
		if (!load->busy)
			none = load;
	}
	if (none && list_empty(&c->queue))
		load_begin(s, none, w);
	else
		list_add_tail(&c->queue, &w->link);
}

static void wait_over(struct store *s, struct node_wait *w, struct node *node, int status)
{
	struct node *parent = w->parent;

	/* The way to it is whole now, so that who waited for it comes further each time. */
	if (node && parent && !parent->gone && atomic_load(w->slot) == ((uint64_t)node->id << 1 | 1))
		(void)node_resolve(s, w->slot, parent);
	if (node && node->lost && w->blob)
		w->blob->degraded = true;
	w->done(w, node, status);
	node_put(s, parent);
}

static void queue_go_on(struct store *s)
{
	struct map_cache *c = s->cache;

	while (!list_empty(&c->queue) && c->nr_loading < NODE_LOADS) {
		struct node_wait *w = list_entry(list_pop(&c->queue), struct node_wait, link);
		struct node *parent = w->parent, *node = s->nodes[w->id];
		struct list rest;

		if (node) {
			wait_over(s, w, node, 0);
			continue;
		}
		list_init(&rest);
		list_splice_tail(&rest, &c->queue); /* this one is next */
		node_wait_start(s, w);
		node_put(s, parent);
		list_splice_tail(&c->queue, &rest);
	}
}

static void load_over(struct node_load *load, struct node *node, int status)
{
	struct store *s = load->store;
	struct list now, *it;

	list_init(&now);
	list_splice_tail(&now, &load->waiters);
	load->busy = false;
	s->cache->nr_loading--;
	if (node)
		node_pin(node);
	while ((it = list_pop(&now)))
		wait_over(s, list_entry(it, struct node_wait, link), node, status);
	node_put(s, node);
	queue_go_on(s);
	cache_check(s);
}

/* Written anew with the next checkpoint, if there is room. */
static void node_heal(struct store *s, uint32_t id)
{
	struct admission admission = {0};

	if (s->loading) {
		vec_push(&s->heal, table_owner(TABLE_NODES, 0, id));
	} else if (!s->checking && !admit(s, &admission, 1, OP_THIN)) {
		mpage_touch(s, TABLE_NODES, id);
		admit_release(s, &admission);
	}
}

static void load_read_done(struct bdev_io *bio, int status)
{
	struct node_load *load = container_of(bio, struct node_load, bio);
	struct store *s = load->store;
	struct blob_reason why = {""};
	struct node *node = NULL;
	enum page_type type = 0;
	uint32_t used = 0;
	int bad = copy_check(s, &load->read, load->copy_b, load->buf, status, &type, &used, &why), rc;
	bool heal = false;

	if (status == -ENODEV) {
		load_over(load, NULL, status);
		return;
	}
	if (bad && !load->copy_b) {
		load->why_a = why;
		load->copy_b = true;
		load_submit(load);
		return;
	}
	if (bad)
		copies_bad(s, &load->read, &load->why_a, &why);
	else if (load->copy_b)
		heal = copy_bad(s, &load->read, false, &load->why_a);
	rc = node_build(s, &load->read, bad ? NULL : page_payload(load->buf), used, type, &node);
	if (!rc && (rc = node_arrives(s, node))) {
		node_free(s, node);
		node = NULL;
	}
	if (heal && node && !node->lost)
		node_heal(s, node->id);
	load_over(load, rc ? NULL : node, rc);
}

/* --- read ahead --- */

struct ahead {
	struct fiber_wait over;
	unsigned nr_left;
	struct ahead_one {
		struct node_wait node_wait;
		struct ahead *all;
	} one[NODES_AHEAD];
};

static void ahead_came(struct node_wait *wait, struct node *node, int status)
{
	struct ahead *a = container_of(wait, struct ahead_one, node_wait)->all;

	if (!--a->nr_left)
		fiber_wake(&a->over, 0);
}

fiber_fn void nodes_ahead(struct store *s, const struct node_wait *miss)
{
	struct node *parent = miss->parent;
	uint32_t nr_slots = node_nr_slots(s, parent->level);
	struct ahead *a = calloc(1, sizeof(*a));
	unsigned nr = 0;

	if (!a)
		return; /* then one after another */
	fiber_wait_init(&a->over);
	a->nr_left = 1;
	miss->blob->nr_walks++;
	for (uint32_t i = miss->slot - parent->slots; i < nr_slots && nr < NODES_AHEAD; i++) {
		uint64_t raw = atomic_load(&parent->slots[i]);

		if (!(raw & 1) || node_count(s, raw >> 1) != 1 || s->nodes[raw >> 1])
			continue;
		a->one[nr].all = a;
		a->one[nr].node_wait = *miss;
		a->one[nr].node_wait.id = raw >> 1;
		a->one[nr].node_wait.slot = &parent->slots[i];
		a->one[nr].node_wait.done = ahead_came;
		a->nr_left++;
		node_wait_start(s, &a->one[nr++].node_wait);
	}
	if (--a->nr_left)
		fiber_wait(&a->over);
	miss->blob->nr_walks--;
	free(a);
}

/* --- who waits --- */

bool map_want(struct blob *b, uint64_t index, struct node_wait *w)
{
	bool shared;
	struct node *leaf = map_leaf(b, index, &shared);

	if (!leaf || !leaf->lost) /* &map_missing seems lost */
		return true;
	if (!path_missing(b, index, w))
		return true;
	node_wait_start(b->store, w);
	return false;
}

struct fiber_node {
	struct node_wait node_wait;
	struct fiber_wait wait;
	struct node *node;
};

static void wake_fiber(struct node_wait *w, struct node *node, int status)
{
	struct fiber_node *f = container_of(w, struct fiber_node, node_wait);

	f->node = node;
	if (node)
		node_pin(node);
	fiber_wake(&f->wait, status);
}

fiber_fn int node_wait_for(struct store *s, struct node_wait *wait, struct node **pinned)
{
	struct fiber_node f = {.node_wait = *wait};
	struct blob *b = wait->blob;
	int rc;

	f.node_wait.done = wake_fiber;
	fiber_wait_init(&f.wait);
	if (b)
		b->nr_walks++;
	node_wait_start(s, &f.node_wait);
	rc = fiber_wait(&f.wait);
	if (b)
		b->nr_walks--;
	node_put(s, *pinned);
	*pinned = f.node;
	return rc;
}

fiber_fn int map_load(struct blob *b, uint64_t index)
{
	struct node *pinned = NULL;
	struct node_wait w;
	int rc = 0;

	while (!rc && path_missing(b, index, &w))
		rc = node_wait_for(b->store, &w, &pinned);
	node_put(b->store, pinned);
	return rc;
}

fiber_fn int node_get(struct store *s, uint32_t id, struct node **ret_node)
{
	struct node_wait w = {.id = id, .level = LEVEL_ANY};
	struct node *node = id < s->nr_nodes ? s->nodes[id] : NULL;

	*ret_node = NULL;
	if (!node && id < s->nr_nodes && page_known(s, id))
		return node_wait_for(s, &w, ret_node);
	if (!node && id < s->nr_nodes)
		node = lost_node(s, id);
	if (!node)
		return -ENOMEM;
	node_pin(node);
	*ret_node = node;
	return 0;
}

/* --- many at once --- */

static int take_node(struct store *s, const struct page_read *read, const uint8_t *payload, uint32_t used, enum page_type type)
{
	struct node *node;
	int rc;

	if (s->nodes[read->key])
		return 0;
	rc = node_build(s, read, payload, used, type, &node);
	if (!rc && (rc = node_arrives(s, node)))
		node_free(s, node);
	return rc;
}

fiber_fn int nodes_load_many(struct store *s, const uint32_t *ids, uint64_t nr)
{
	struct page_read *reads = calloc(nr + 1, sizeof(*reads));
	uint64_t n = 0;
	int rc;

	if (!reads)
		return -ENOMEM;
	for (uint64_t i = 0; i < nr; i++)
		if (ids[i] < s->nr_nodes && !s->nodes[ids[i]] && page_known(s, ids[i]))
			reads[n++] = node_read(s, ids[i]);
	s->stats.nr_node_reads += n;
	rc = pages_read(s, reads, n, take_node);
	free(reads);
	return rc;
}

fiber_fn int nodes_load_all(struct store *s)
{
	bool again = true;

	while (again) {
		again = false;
		for (uint32_t id = 1; id < s->nr_nodes; id++) {
			struct node *node;
			int rc;

			if (s->nodes[id] || !s->node_counts[id])
				continue;
			rc = node_get(s, id, &node);
			if (rc)
				return rc;
			node_put(s, node);
			again = true;
		}
	}
	return 0;
}

struct visit {
	node_visit_fn visit;
	void *arg;
};

static int take_visit(struct store *s, const struct page_read *read, const uint8_t *payload, uint32_t used, enum page_type type)
{
	const struct visit *v = read->ctx;
	struct node *node;
	int rc = node_build(s, read, payload, used, type, &node);

	if (rc)
		return rc;
	rc = v->visit(s, node, v->arg);
	node_free(s, node);
	return rc;
}

fiber_fn int nodes_visit(struct store *s, node_visit_fn visit, void *arg)
{
	struct visit v = {visit, arg};
	struct page_read *reads = calloc(s->nr_nodes + 1, sizeof(*reads));
	struct node lost = {.lost = true};
	uint64_t nr = 0;
	int rc = reads ? 0 : -ENOMEM;

	for (uint32_t id = 1; id < s->nr_nodes && !rc; id++) {
		struct mpage *page = node_page(s, id);

		lost.id = id;
		if (s->nodes[id]) {
			rc = visit(s, s->nodes[id], arg);
		} else if (page && page->lost) {
			rc = visit(s, &lost, arg);
		} else if (page && page->ref.a && s->node_counts[id]) {
			reads[nr] = node_read(s, id);
			reads[nr++].ctx = &v;
		}
	}
	if (!rc)
		rc = pages_read(s, reads, nr, take_visit);
	free(reads);
	return rc;
}

/* --- the store's --- */

int cache_init(struct store *s, uint64_t max_bytes)
{
	struct map_cache *c = calloc(1, sizeof(*c));

	s->cache = c;
	if (!c)
		return -ENOMEM;
	list_init(&c->queue);
	fiber_cond_init(&c->wake);
	c->max_bytes = max_bytes;
	c->mem = dma_alloc((size_t)NODE_LOADS * PAGE_BYTES, PAGE_BYTES);
	if (!c->mem)
		return -ENOMEM;
	for (unsigned i = 0; i < NODE_LOADS; i++)
		c->load[i].buf = c->mem + (size_t)i * PAGE_BYTES;
	return 0;
}

fiber_fn void cache_destroy(struct store *s)
{
	struct map_cache *c = s->cache;

	while (c && (c->nr_loading || !list_empty(&c->queue)))
		fiber_yield();
	for (uint64_t id = 0; id < s->nr_nodes; id++)
		if (s->nodes && s->nodes[id])
			node_free(s, s->nodes[id]);
	free(s->nodes);
	free(s->node_counts);
	if (c && c->mem)
		dma_free(c->mem);
	free(c);
}
