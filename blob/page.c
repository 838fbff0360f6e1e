/*
 * Metadata pages in memory: which are dirty, where each lies on the device, and how its content is put into
 * bytes.
 *
 * A checkpoint freezes what is dirty at one moment.  A frozen page that changes before it was written is put
 * into bytes first (mpage_touch), so that the checkpoint sees it as it was, and nothing waits for the
 * checkpoint.
 */
#include "blob/internal.h"

int mtable_grow(struct store *s, enum table_id table, uint64_t nr_pages)
{
	struct mtable *t = &s->table[table];
	uint64_t nr = nr_pages, chunks = (nr_pages + TABLE_FANOUT - 1) / TABLE_FANOUT;

	if (nr_pages <= t->nr_pages)
		return 0;
	if (array_grow(&t->chunks, &t->nr_chunks, chunks, sizeof(t->chunks[0])))
		return -ENOMEM;
	for (uint32_t l = 1; l <= TABLE_LEVELS; l++) {
		uint64_t cap = t->nr_level[l], now;

		nr = (nr + TABLE_FANOUT - 1) / TABLE_FANOUT;
		now = nr;
		if (now > cap) {
			struct tpage *grown = realloc(t->level[l], now * sizeof(*grown));

			if (!grown)
				return -ENOMEM;
			memset(grown + cap, 0, (now - cap) * sizeof(*grown));
			t->level[l] = grown;
			t->nr_level[l] = now;
			s->nr_tpages += now - cap;
			/* The old root becomes the first child of a level that begins now. */
			if (cap == 0 && l > 1)
				grown[0].dirty = true;
		}
		if (l > t->height)
			t->height = l;
		if (nr == 1 && l >= t->height)
			break;
	}
	t->nr_pages = nr_pages;
	return 0;
}

struct mpage *mpage_get(struct store *s, enum table_id table, uint64_t index)
{
	struct mtable *t = &s->table[table];
	uint64_t chunk = index / TABLE_FANOUT;

	if (index >= t->nr_pages && mtable_grow(s, table, index + 1))
		return NULL;
	if (!t->chunks[chunk]) {
		struct mpage *pages = calloc(TABLE_FANOUT, sizeof(*pages));

		if (!pages)
			return NULL;
		for (unsigned i = 0; i < TABLE_FANOUT; i++) {
			list_init(&pages[i].dirty_link);
			list_init(&pages[i].frozen_link);
			pages[i].index = chunk * TABLE_FANOUT + i;
			pages[i].table = table;
		}
		t->chunks[chunk] = pages;
		s->resident_bytes += TABLE_FANOUT * sizeof(*pages);
	}
	return &t->chunks[chunk][index % TABLE_FANOUT];
}

static void image_take(struct store *s, struct mpage *page)
{
	enum page_type type = 0;

	page->image = malloc(PAGE_PAYLOAD);
	if (!page->image) {
		store_fail(s, -ENOMEM, "no memory for a metadata page");
		return;
	}
	if (!mpage_encode(s, page, page->image, &page->image_used, &type))
		page->image_used = 0;
	page->image_type = type;
}

void mpage_touch(struct store *s, enum table_id table, uint64_t index)
{
	struct mpage *page = mpage_get(s, table, index);

	if (!page) {
		store_fail(s, -ENOMEM, "no memory for a metadata page");
		return;
	}
	if (!list_empty(&page->frozen_link) && !page->image && !BLOB_MUTANT(CHECKPOINT_NOT_FROZEN))
		image_take(s, page);
	if (list_empty(&page->dirty_link)) {
		list_add_tail(&s->dirty, &page->dirty_link);
		s->nr_dirty++;
	}
}

void pages_freeze(struct store *s)
{
	struct list *it;

	assert(list_empty(&s->frozen));
	while ((it = list_pop(&s->dirty))) {
		struct mpage *page = list_entry(it, struct mpage, dirty_link);

		list_add_tail(&s->frozen, &page->frozen_link);
	}
	s->nr_frozen = s->nr_dirty;
	s->nr_dirty = 0;
}

/* --- content to bytes --- */

static bool encode_counts(struct store *s, uint64_t index, uint8_t *payload)
{
	uint64_t first = index * COUNTS_A_PAGE;
	uint32_t any = 0;

	for (uint32_t i = 0; i < COUNTS_A_PAGE; i++) {
		uint32_t v = first + i < s->nr_clusters ? s->counts[first + i] : 0;

		any |= v;
		if (s->csum && v && v < COUNT_MARK && csum_is_marked(s, first + i))
			v |= COUNT_MARK;
		put32(payload + 4 * i, v);
	}
	return any;
}

static bool encode_node_counts(struct store *s, uint64_t index, uint8_t *payload)
{
	uint64_t first = index * COUNTS_A_PAGE;
	uint32_t any = 0;

	for (uint32_t i = 0; i < COUNTS_A_PAGE; i++) {
		uint32_t v = first + i < s->nr_nodes ? s->node_counts[first + i] : 0;

		any |= v;
		put32(payload + 4 * i, v);
	}
	return any;
}

static uint32_t encode_leaf(struct store *s, const struct node *node, uint8_t *payload)
{
	struct leaf_writer w;
	uint64_t mask[BLOB_CLUSTER_MAX / BLOB_SUB_SIZE / 64];

	leaf_write_begin(&w, payload, s->mask_bytes);
	for (uint32_t i = 0; i < node_nr_slots(s, 0); i++) {
		uint64_t raw = node->slots[i];
		struct entry e = entry_decode(raw);

		if (!raw)
			continue;
		if (e.partial)
			for (uint32_t m = 0; m < s->mask_words; m++)
				mask[m] = htole64(e.partial->mask[m]);
		leaf_write(&w, &(struct leaf_entry){.index = i,
						    .full = e.full,
						    .own = e.own,
						    .base = e.base,
						    .external = e.external,
						    .mask = e.full ? NULL : (const uint8_t *)mask});
	}
	return leaf_write_end(&w);
}

static uint32_t encode_inner(struct store *s, const struct node *node, uint8_t *payload)
{
	uint32_t children[256];

	for (uint32_t i = 0; i < node_nr_slots(s, node->level); i++)
		children[i] = slot_id(node->slots[i]);
	return inner_encode(payload, node->level, children, node_nr_slots(s, node->level));
}

static bool encode_node(struct store *s, uint64_t index, uint8_t *payload, uint32_t *ret_used,
			enum page_type *ret_type)
{
	struct node *node = index < s->nr_nodes ? s->nodes[index] : NULL;

	assert(node || index >= s->nr_nodes || !s->node_counts[index] || BLOB_MUTANT(NODE_GOES_DIRTY)); /* what changes is in memory */
	if (!node || node->lost)
		return false;
	*ret_type = node->level ? PAGE_INNER : PAGE_LEAF;
	*ret_used = node->level ? encode_inner(s, node, payload) : encode_leaf(s, node, payload);
	return true;
}

static bool encode_blob(struct store *s, uint64_t index, uint8_t *payload, uint32_t *ret_used)
{
	struct blob_image image;

	if (index >= s->nr_slots || !s->slots[index])
		return false;
	blob_to_image(s->slots[index], &image);
	*ret_used = blob_image_encode(&image, payload);
	return true;
}

bool mpage_encode(struct store *s, const struct mpage *page, uint8_t *payload, uint32_t *ret_used,
		  enum page_type *ret_type)
{
	uint64_t first = (uint64_t)page->index * REAPS_A_PAGE;

	*ret_used = PAGE_PAYLOAD;
	switch (page->table) {
	case TABLE_COUNTS:
		*ret_type = PAGE_COUNTS;
		return encode_counts(s, page->index, payload);
	case TABLE_NODE_COUNTS:
		*ret_type = PAGE_NODE_COUNTS;
		return encode_node_counts(s, page->index, payload);
	case TABLE_NODES:
		return encode_node(s, page->index, payload, ret_used, ret_type);
	case TABLE_BLOBS:
		*ret_type = PAGE_BLOB;
		return encode_blob(s, page->index, payload, ret_used);
	case TABLE_REAP:
		*ret_type = PAGE_REAP;
		if (first >= s->nr_reap)
			return false;
		*ret_used =
			reap_encode(payload, s->reap + first,
				    s->nr_reap - first < REAPS_A_PAGE ? s->nr_reap - first : REAPS_A_PAGE);
		return true;
	}
	assert(!"a table that is not there");
	return false;
}

/* --- places on the device --- */

/* Table pages that a checkpoint may write at most: those there are, and those that new pages may need. */
static uint64_t tables_bound(const struct store *s, uint64_t nr_pages)
{
	uint64_t bound = nr_pages * 2 + NR_TABLES * 2;

	return bound < s->nr_tpages + nr_pages / 64 + 12 ? bound : s->nr_tpages + nr_pages / 64 + 12;
}

uint64_t pages_needed(const struct store *s)
{
	uint64_t now = s->nr_dirty + s->pages_admitted;

	if (s->ckpt_running)
		now += s->nr_frozen + s->nr_tpages + 12;
	return now + tables_bound(s, s->nr_dirty + s->pages_admitted);
}

uint64_t pages_free(const struct store *s)
{
	return s->free_slots[0].nr < s->free_slots[1].nr ? s->free_slots[0].nr : s->free_slots[1].nr;
}

/* They are taken last: a checkpoint that is running has what it needs without them, and its counts do not have the cluster. */
int slots_add_cluster(struct store *s, uint32_t cluster, unsigned class)
{
	struct u64_vec *vec = &s->free_slots[class];
	uint32_t nr = s->slots_a_cluster;
	uint64_t *at;

	if (vec_reserve(vec, vec->nr + nr))
		return -ENOMEM;
	at = vec->v + (BLOB_MUTANT(METADATA_CLUSTER_EARLY) ? vec->nr : 0);
	memmove(at + nr, at, (vec->v + vec->nr - at) * sizeof(*at));
	for (uint32_t i = 0; i < nr; i++)
		at[i] = cluster_page(s, cluster) + nr - 1 - i;
	vec->nr += nr;
	return 0;
}

void pages_destroy(struct store *s)
{
	for (unsigned i = 0; i < NR_TABLES; i++) {
		struct mtable *t = &s->table[i];

		for (uint64_t c = 0; c < t->nr_chunks; c++) {
			for (unsigned p = 0; t->chunks[c] && p < TABLE_FANOUT; p++)
				free(t->chunks[c][p].image);
			free(t->chunks[c]);
		}
		free(t->chunks);
		for (uint32_t l = 0; l <= TABLE_LEVELS; l++)
			free(t->level[l]);
	}
	vec_free(&s->free_slots[0]);
	vec_free(&s->free_slots[1]);
	vec_free(&s->replaced);
	vec_free(&s->replaced_before);
}
