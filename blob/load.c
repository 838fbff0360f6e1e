/*
 * Loading a checkpoint: tables, counts, blobs, the reap list, each in large parallel reads; nodes come when they are needed
 * (nodes.c).  A page of
 * which one copy is bad is read from the other and marked to be written anew; of what is lost with both
 * copies, the store says so and serves the rest.
 */
#include "blob/internal.h"

#define READ_BATCH 128u

typedef int (*take_fn)(struct store *s, const struct page_read *read, const uint8_t *payload, uint32_t used,
		       enum page_type type);

/* --- reading pages --- */

struct batch {
	struct store *store;
	uint8_t *buf;
	unsigned left;
	struct fiber_wait *wait;
	struct batch_read {
		struct batch *batch;
		struct bdev_io io;
		struct iovec iov;
		int status;
	} read[READ_BATCH];
};

static void batch_done(struct bdev_io *io, int status)
{
	struct batch_read *r = container_of(io, struct batch_read, io);

	r->status = status;
	if (--r->batch->left == 0)
		fiber_wake(r->batch->wait, 0);
}

/* One copy of each of nr pages. */
static fiber_fn void batch_run(struct batch *b, const struct page_read *reads, unsigned nr, bool copy_b)
{
	struct fiber_wait wait;

	fiber_wait_init(&wait);
	b->wait = &wait;
	b->left = nr;
	for (unsigned i = 0; i < nr; i++) {
		struct batch_read *r = &b->read[i];

		r->batch = b;
		r->iov = (struct iovec){.iov_base = b->buf + (size_t)i * PAGE_BYTES, .iov_len = PAGE_BYTES};
		r->io.done = batch_done;
		r->io.op = BDEV_READ;
		r->io.flags = 0;
		r->io.iov = &r->iov;
		r->io.iovcnt = 1;
		r->io.offset_blocks = page_block(b->store, copy_b ? reads[i].ref.b : reads[i].ref.a);
		r->io.nr_blocks = page_block(b->store, 1);
		bdev_submit(b->store->bch, &r->io);
	}
	if (nr)
		fiber_wait(&wait);
}

int copy_check(struct store *s, const struct page_read *read, bool copy_b, const uint8_t *page, int status,
	       enum page_type *ret_type, uint32_t *ret_used, struct blob_reason *why)
{
	struct page_id id = {.type = read->type,
			     .store = s->id,
			     .address = copy_b ? read->ref.b : read->ref.a,
			     .owner = read->owner,
			     .generation = read->ref.generation};

	if (status)
		return refuse(why, "cannot be read: %s", strerror(-status));
	if (!id.type) /* a node: a leaf or an inner one */
		id.type = (get32(page + 4) & 0xff) == PAGE_INNER ? PAGE_INNER : PAGE_LEAF;
	*ret_type = id.type;
	return page_check(page, &id, ret_used, why);
}

/* The table's page that was read; NULL: it is one of the table's own. */
static struct mpage *page_of(struct store *s, const struct page_read *read)
{
	return read->owner >> 48 & 0xff ? NULL : mpage_get(s, read->owner >> 56, read->key);
}

bool copy_bad(struct store *s, const struct page_read *read, bool copy_b, const struct blob_reason *why)
{
	uint64_t page = copy_b ? read->ref.b : read->ref.a;
	struct mpage *of = page_of(s, read);

	if (of && of->seen)
		return true;
	s->nr_healed++;
	if (s->checking)
		check_found(s, STORE_FINDING_COPY, page, "copy %c of %llx: %s", copy_b ? 'B' : 'A',
			    (unsigned long long)read->owner, why->text);
	else
		log_warning("store %s: page %llu, copy %c of %llx: %s; the other copy is used", s->super.name,
			    (unsigned long long)page, copy_b ? 'B' : 'A', (unsigned long long)read->owner,
			    why->text);
	return true;
}

void copies_bad(struct store *s, const struct page_read *read, const struct blob_reason *why_a, const struct blob_reason *why_b)
{
	struct mpage *of = page_of(s, read);

	if (of)
		of->lost = true;
	if (of && of->seen)
		return;
	store_degrade(s, "page %llu and its copy %llu, of %llx: %.80s; %.80s", (unsigned long long)read->ref.a,
		      (unsigned long long)read->ref.b, (unsigned long long)read->owner, why_a->text, why_b->text);
	check_found(s, STORE_FINDING_LOST, read->ref.a, "both copies of %llx: %.80s; %.80s",
		    (unsigned long long)read->owner, why_a->text, why_b->text);
}

/* The other copy of one page. */
static fiber_fn int other_copy(struct store *s, const struct page_read *read, uint8_t *buf,
			       enum page_type *ret_type, uint32_t *ret_used, struct blob_reason *why)
{
	int status = bdev_read(s->bch, buf, page_block(s, read->ref.b), page_block(s, 1));

	return copy_check(s, read, true, buf, status, ret_type, ret_used, why);
}

static fiber_fn int page_taken(struct store *s, const struct page_read *read, uint8_t *page, int status,
			       take_fn take)
{
	struct blob_reason why_a = {""}, why_b = {""};
	enum page_type type, type_b;
	uint32_t used, used_b;
	int a = copy_check(s, read, false, page, status, &type, &used, &why_a), b;
	struct mpage *of = page_of(s, read);
	uint8_t *other;

	if (s->check_result && !(of && of->seen))
		s->check_result->nr_pages++;
	if (!a && !s->checking) {
		if (of)
			of->seen = true;
		return take(s, read, page_payload(page), used, type);
	}
	other = dma_alloc(PAGE_BYTES, PAGE_BYTES);
	if (!other)
		return -ENOMEM;
	b = other_copy(s, read, other, &type_b, &used_b, &why_b);
	if (a && b) {
		copies_bad(s, read, &why_a, &why_b);
		b = take(s, read, NULL, 0, 0);
	} else if (a) {
		copy_bad(s, read, false, &why_a);
		vec_push(&s->heal, read->owner);
		b = take(s, read, page_payload(other), used_b, type_b);
	} else {
		if (b)
			copy_bad(s, read, true, &why_b);
		if (b)
			vec_push(&s->heal, read->owner);
		b = take(s, read, page_payload(page), used, type);
	}
	dma_free(other);
	if (of)
		of->seen = true;
	return b;
}

fiber_fn int pages_read(struct store *s, const struct page_read *reads, uint64_t nr, take_fn take)
{
	struct batch *b = calloc(1, sizeof(*b));
	int rc = 0;

	if (!b)
		return -ENOMEM;
	b->store = s;
	b->buf = dma_alloc((size_t)READ_BATCH * PAGE_BYTES, PAGE_BYTES);
	if (!b->buf)
		rc = -ENOMEM;
	for (uint64_t at = 0; at < nr && !rc; at += READ_BATCH) {
		unsigned n = nr - at < READ_BATCH ? nr - at : READ_BATCH;

		batch_run(b, reads + at, n, false);
		for (unsigned i = 0; i < n && !rc; i++) {
			if (s->progress && s->progress->cancel)
				rc = -ECANCELED;
			else
				rc = page_taken(s, &reads[at + i], b->buf + (size_t)i * PAGE_BYTES,
						b->read[i].status, take);
			if (s->progress)
				s->progress->done++;
		}
	}
	if (b->buf)
		dma_free(b->buf);
	free(b);
	return rc;
}

/* A page that is whole says what cannot be: as bad as lost. */
void page_refused(struct store *s, const struct page_read *read, const struct blob_reason *why)
{
	struct mpage *of = page_of(s, read);

	if (of && of->lost)
		return; /* told before */
	store_degrade(s, "page %llu (%llx): %.160s", (unsigned long long)read->ref.a,
		      (unsigned long long)read->owner, why->text);
	check_found(s, STORE_FINDING_MAP, read->ref.a, "%llx: %.160s", (unsigned long long)read->owner,
		    why->text);
}

/* --- tables --- */

static void mark_lost(struct store *s, unsigned table, uint32_t level, uint64_t index)
{
	struct mtable *t = &s->table[table];

	for (uint64_t i = index * TABLE_FANOUT; i < (index + 1) * TABLE_FANOUT; i++) {
		if (level > 1 && i < t->nr_level[level - 1]) {
			t->level[level - 1][i].lost = true;
			mark_lost(s, table, level - 1, i);
		} else if (level == 1 && i < t->nr_pages) {
			struct mpage *page = mpage_get(s, table, i);

			if (page)
				page->lost = true;
		}
	}
}

static int take_tpage(struct store *s, const struct page_read *read, const uint8_t *payload, uint32_t used,
		      enum page_type type)
{
	unsigned table = read->owner >> 56, level = read->owner >> 48 & 0xff;
	uint64_t index = read->key;
	struct mtable *t = &s->table[table];
	struct page_ref refs[TABLE_FANOUT];
	struct blob_reason why = {""};

	if (payload && table_decode(payload, used, level, s->super.nr_pages, refs, &why)) {
		page_refused(s, read, &why);
		payload = NULL;
	}
	if (!payload) {
		t->level[level][index].lost = true;
		mark_lost(s, table, level, index);
		return 0;
	}
	for (unsigned i = 0; i < TABLE_FANOUT; i++) {
		uint64_t child = index * TABLE_FANOUT + i;

		if (!refs[i].a)
			continue;
		if (level > 1 && child < t->nr_level[level - 1]) {
			t->level[level - 1][child].ref = refs[i];
		} else if (level == 1 && child < t->nr_pages) {
			struct mpage *page = mpage_get(s, table, child);

			if (!page)
				return -ENOMEM;
			page->ref = refs[i];
		} else {
			refuse(&why, "names page %llu of a table of %llu", (unsigned long long)child,
			       (unsigned long long)t->nr_pages);
			page_refused(s, read, &why);
		}
	}
	return 0;
}

static fiber_fn int load_table(struct store *s, unsigned table)
{
	const struct table_root *root = &s->super.table[table];
	struct mtable *t = &s->table[table];
	int rc = mtable_grow(s, table, root->nr_pages);

	if (rc)
		return rc;
	if (t->height != root->height)
		return -EUCLEAN;
	for (uint32_t l = 1; l <= t->height; l++)
		for (uint64_t i = 0; i < t->nr_level[l]; i++)
			t->level[l][i].dirty = false;
	if (t->height)
		t->level[t->height][0].ref = root->ref;
	for (uint32_t l = t->height; l >= 1 && !rc; l--) {
		struct page_read *reads = calloc(t->nr_level[l], sizeof(*reads));
		uint64_t nr = 0;

		if (!reads)
			return -ENOMEM;
		for (uint64_t i = 0; i < t->nr_level[l]; i++)
			if (t->level[l][i].ref.a)
				reads[nr++] = (struct page_read){.key = i,
								 .ref = t->level[l][i].ref,
								 .type = PAGE_TABLE,
								 .owner = table_owner(table, l, i)};
		rc = pages_read(s, reads, nr, take_tpage);
		free(reads);
	}
	return rc;
}

fiber_fn int load_tables(struct store *s)
{
	int rc = 0;

	for (unsigned i = 0; i < NR_TABLES && !rc; i++)
		rc = load_table(s, i);
	return rc;
}

/* Hands every page of a table to take. */
static fiber_fn int load_pages(struct store *s, unsigned table, enum page_type type, take_fn take)
{
	struct mtable *t = &s->table[table];
	struct page_read *reads = calloc(t->nr_pages + 1, sizeof(*reads));
	uint64_t nr = 0;
	int rc;

	if (!reads)
		return -ENOMEM;
	for (uint64_t i = 0; i < t->nr_pages; i++) {
		struct mpage *page = i / TABLE_FANOUT < t->nr_chunks && t->chunks[i / TABLE_FANOUT]
					     ? &t->chunks[i / TABLE_FANOUT][i % TABLE_FANOUT]
					     : NULL;

		if (page && page->ref.a)
			reads[nr++] = (struct page_read){
				.key = i, .ref = page->ref, .type = type, .owner = table_owner(table, 0, i)};
	}
	rc = pages_read(s, reads, nr, take);
	free(reads);
	return rc;
}

static void lose(struct store *s, const struct page_read *read)
{
	struct mpage *page = mpage_get(s, read->owner >> 56, read->key);

	if (page)
		page->lost = true;
}

/* --- counts --- */

static int take_counts(struct store *s, const struct page_read *read, const uint8_t *payload, uint32_t used,
		       enum page_type type)
{
	uint64_t first = read->key * COUNTS_A_PAGE;

	if (!payload)
		lose(s, read);
	for (uint64_t i = 0; payload && i < COUNTS_A_PAGE && first + i < s->nr_clusters; i++) {
		uint32_t v = get32(payload + 4 * i);

		if (s->csum && v & COUNT_MARK && v < COUNT_MAX) {
			v &= ~COUNT_MARK;
			csum_load_mark(s, first + i);
		}
		s->counts[first + i] = v;
	}
	return 0;
}

static int take_node_counts(struct store *s, const struct page_read *read, const uint8_t *payload,
			    uint32_t used, enum page_type type)
{
	uint64_t first = read->key * COUNTS_A_PAGE;

	if (!payload)
		lose(s, read);
	for (uint64_t i = 0; payload && i < COUNTS_A_PAGE && first + i < s->nr_nodes; i++)
		s->node_counts[first + i] = get32(payload + 4 * i);
	return 0;
}

static bool page_is(struct store *s, unsigned table, uint64_t index, bool lost)
{
	struct mtable *t = &s->table[table];
	const struct mpage *chunk = index / TABLE_FANOUT < t->nr_chunks ? t->chunks[index / TABLE_FANOUT] : NULL;

	return chunk && (lost ? chunk[index % TABLE_FANOUT].lost : chunk[index % TABLE_FANOUT].ref.a != 0);
}

static bool any_page_lost(struct store *s, unsigned table)
{
	for (uint64_t i = 0; i < s->table[table].nr_pages; i++)
		if (page_is(s, table, i, true))
			return true;
	return false;
}

/* Of a node that is there but not counted, or may be, nobody knows who has it: nobody writes in place below it, and it is never freed. */
static void count_uncounted(struct store *s)
{
	for (uint64_t id = 1; id < s->nr_nodes; id++) {
		bool here = page_is(s, TABLE_NODES, id, false) || page_is(s, TABLE_NODES, id, true);

		if (s->node_counts[id] >= COUNT_MAX || (!s->node_counts[id] && here))
			s->node_counts[id] = COUNT_MAX;
		s->nr_live_nodes += s->node_counts[id] != 0;
	}
}

/* --- blobs and the reap list --- */

static int take_blob(struct store *s, const struct page_read *read, const uint8_t *payload, uint32_t used,
		     enum page_type type)
{
	struct blob_reason why = {""};
	struct blob_image image;
	struct blob *b;
	bool bad_root;
	int rc;

	if (payload && blob_image_decode(payload, used, &image, &why)) {
		page_refused(s, read, &why);
		payload = NULL;
	}
	if (!payload) {
		lose(s, read);
		return 0;
	}
	bad_root = image.root >= s->nr_nodes && image.root;
	rc = blob_from_image(s, read->key, &image, bad_root ? 0 : image.root, &b);
	if (rc)
		return rc;
	if (bad_root) {
		refuse(&why, "names root %u, which is none", image.root);
		page_refused(s, read, &why);
		b->degraded = true;
	}
	return 0;
}

static int take_reap(struct store *s, const struct page_read *read, const uint8_t *payload, uint32_t used,
		     enum page_type type)
{
	uint32_t nodes[REAPS_A_PAGE], nr = 0;
	struct blob_reason why = {""};

	if (payload && reap_decode(payload, used, nodes, &nr, &why)) {
		page_refused(s, read, &why);
		payload = NULL;
	}
	if (!payload) {
		lose(s, read);
		return 0;
	}
	if (array_grow(&s->reap, &s->reap_cap, s->nr_reap + nr, sizeof(s->reap[0])))
		return -ENOMEM;
	for (uint32_t i = 0; i < nr; i++)
		if (nodes[i] && nodes[i] < s->nr_nodes)
			s->reap[s->nr_reap++] = nodes[i];
		else
			lose(s, read);
	return 0;
}

/* What is there of a list with a gap moves down: all its pages are written anew, so that none is read twice. */
static void reap_list_whole(struct store *s)
{
	bool gap = any_page_lost(s, TABLE_REAP);

	for (uint64_t i = 0; gap && i < s->table[TABLE_REAP].nr_pages; i++)
		vec_push(&s->heal, table_owner(TABLE_REAP, 0, i));
}

/* Of which nodes are lost the tables may know already; of which are roots, the blobs do. */
static void blobs_degraded(struct store *s)
{
	struct list *it;

	list_for_each (it, &s->blobs) {
		struct blob *b = list_entry(it, struct blob, link);
		uint32_t root = slot_id(b->root);

		b->degraded |= root && page_is(s, TABLE_NODES, root, true);
	}
}

/* --- places --- */

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int use_ref(struct store *s, struct u64_vec *used, const struct page_ref *ref)
{
	if (!ref->a)
		return 0;
	return vec_push(&used[0], ref->a) || vec_push(&used[1], ref->b) ? -ENOMEM : 0;
}

static int collect_used(struct store *s, struct u64_vec *used)
{
	int rc = 0;

	for (unsigned i = 0; i < NR_TABLES; i++) {
		struct mtable *t = &s->table[i];

		for (uint32_t l = 1; l <= t->height; l++)
			for (uint64_t k = 0; k < t->nr_level[l]; k++)
				rc |= use_ref(s, used, &t->level[l][k].ref);
		for (uint64_t k = 0; k < t->nr_chunks; k++)
			for (unsigned p = 0; t->chunks[k] && p < TABLE_FANOUT; p++)
				rc |= use_ref(s, used, &t->chunks[k][p].ref);
	}
	return rc ? -ENOMEM : 0;
}

/* Clusters that hold pages are metadata, whatever a lost page of counts would have said. */
static void mark_metadata(struct store *s, const struct u64_vec *used, unsigned class)
{
	uint32_t mark = class ? COUNT_METADATA_B : COUNT_METADATA_A;

	for (size_t i = 0; i < used->nr; i++) {
		uint64_t c = used->v[i] / s->slots_a_cluster;

		if (i && used->v[i] == used->v[i - 1])
			check_found(s, STORE_FINDING_MAP, used->v[i], "two pages of metadata lie here");
		if (s->counts[c] == mark)
			continue;
		if (!mpage_get(s, TABLE_COUNTS, c / COUNTS_A_PAGE)->lost) {
			store_degrade(s, "page %llu lies in a cluster that is not metadata",
				      (unsigned long long)used->v[i]);
			check_found(s, STORE_FINDING_COUNT, used->v[i],
				    "metadata in cluster %llu, whose count is %u", (unsigned long long)c,
				    s->counts[c]);
		}
		s->counts[c] = mark;
	}
}

static int build_slots(struct store *s, const struct u64_vec *used, unsigned class)
{
	uint32_t mark = class ? COUNT_METADATA_B : COUNT_METADATA_A;
	size_t at = 0;

	for (uint64_t c = 0; c < s->nr_clusters; c++) {
		uint64_t first = cluster_page(s, c), end = first + s->slots_a_cluster;

		if (s->counts[c] != mark)
			continue;
		s->nr_metadata++;
		while (at < used->nr && used->v[at] < first)
			at++;
		for (uint64_t p = first; p < end; p++) {
			bool is_used = at < used->nr && used->v[at] == p;

			while (at < used->nr && used->v[at] == p)
				at++;
			if (!is_used && vec_push(&s->free_slots[class], p))
				return -ENOMEM;
		}
	}
	return 0;
}

static int load_slots(struct store *s)
{
	struct u64_vec used[2] = {{0}};
	int rc = collect_used(s, used);

	for (unsigned i = 0; i < 2 && !rc; i++) {
		if (used[i].nr)
			qsort(used[i].v, used[i].nr, sizeof(uint64_t), compare_u64);
		mark_metadata(s, &used[i], i);
		rc = build_slots(s, &used[i], i);
	}
	vec_free(&used[0]);
	vec_free(&used[1]);
	return rc;
}

static void count_again(struct store *s, uint32_t cluster)
{
	if (!cluster || !mpage_get(s, TABLE_COUNTS, cluster / COUNTS_A_PAGE)->lost)
		return;
	s->counts[cluster]++;
	if (s->csum)
		csum_load_mark(s, cluster); /* nobody knows */
}

static int count_leaf_again(struct store *s, const struct node *node, void *arg)
{
	bool *any_lost = arg;

	*any_lost |= node->lost;
	for (uint32_t i = 0; !node->level && !node->lost && i < node_nr_slots(s, 0); i++) {
		struct entry e = entry_decode(node->slots[i]);

		count_again(s, e.own);
		count_again(s, e.base);
	}
	return 0;
}

/* Who names nodes, counted anew. */
struct recount {
	uint32_t *nodes; /* by id */
	bool any_lost;
};

static void name_again(struct store *s, struct recount *r, uint32_t id)
{
	if (id && id < s->nr_nodes)
		r->nodes[id]++;
}

static int count_children_again(struct store *s, const struct node *node, void *arg)
{
	struct recount *r = arg;

	r->any_lost |= node->lost;
	for (uint32_t i = 0; node->level && !node->lost && i < node_nr_slots(s, node->level); i++)
		name_again(s, r, slot_id(node->slots[i]));
	return 0;
}

/* What is known of the nodes whose counts were lost, if all is there that names nodes; what is named by nothing that is there stays. */
static unsigned take_recount(struct store *s, const struct recount *r)
{
	unsigned nr_unknown = 0;

	for (uint64_t id = 1; id < s->nr_nodes; id++) {
		if (!page_is(s, TABLE_NODE_COUNTS, id / COUNTS_A_PAGE, true))
			continue;
		if (!s->node_counts[id] && r->nodes[id]) { /* named but missing */
			s->node_counts[id] = COUNT_MAX;
			s->nr_live_nodes++;
		} else if (r->nodes[id] && !r->any_lost) {
			s->node_counts[id] = r->nodes[id];
		}
		nr_unknown += s->node_counts[id] == COUNT_MAX;
	}
	for (uint64_t i = 0; i < s->table[TABLE_NODE_COUNTS].nr_pages; i++)
		if (page_is(s, TABLE_NODE_COUNTS, i, true))
			vec_push(&s->heal, table_owner(TABLE_NODE_COUNTS, 0, i));
	return nr_unknown;
}

/* Counts of nodes that are lost are made again from all that names nodes: blobs, the reap list, inner nodes.  This reads every node. */
static fiber_fn int rebuild_node_counts(struct store *s)
{
	struct recount r = {.any_lost = any_page_lost(s, TABLE_BLOBS) || any_page_lost(s, TABLE_REAP)};
	struct list *it;
	int rc;

	if (!any_page_lost(s, TABLE_NODE_COUNTS))
		return 0;
	r.nodes = calloc(s->nr_nodes + 1, sizeof(r.nodes[0]));
	if (!r.nodes)
		return -ENOMEM;
	if (!s->checking)
		log_warning("store %s: counts of nodes are lost: reading %llu nodes to count again", s->super.name,
			    (unsigned long long)s->nr_live_nodes);
	list_for_each (it, &s->blobs)
		name_again(s, &r, slot_id(list_entry(it, struct blob, link)->root));
	for (uint64_t i = 0; i < s->nr_reap; i++)
		name_again(s, &r, s->reap[i]);
	rc = nodes_visit(s, count_children_again, &r);
	if (!rc) {
		unsigned nr_unknown = take_recount(s, &r);

		if (!s->checking)
			log_warning("store %s: nodes are counted again; %u of which it is not known who has them are never freed",
				    s->super.name, nr_unknown);
	}
	free(r.nodes);
	return rc;
}

/* Counts that are lost are made again from the maps, if all maps are there; else nothing of that range is
 * reused. */
static fiber_fn int rebuild_counts(struct store *s)
{
	bool any_lost_node = false, any = false;
	struct mtable *t = &s->table[TABLE_COUNTS];
	int rc;

	for (uint64_t i = 0; i < t->nr_pages; i++)
		any |= mpage_get(s, TABLE_COUNTS, i)->lost;
	if (!any)
		return 0;
	rc = nodes_visit(s, count_leaf_again, &any_lost_node);
	if (rc)
		return rc;
	for (uint64_t c = 0; c < s->nr_clusters; c++)
		if (any_lost_node && c / COUNTS_A_PAGE < t->nr_pages &&
		    mpage_get(s, TABLE_COUNTS, c / COUNTS_A_PAGE)->lost && s->counts[c] <= COUNT_MAX)
			s->counts[c] = COUNT_MAX; /* in use by nobody knows how many */
	return 0;
}

fiber_fn int load_all(struct store *s)
{
	uint64_t nr_nodes = s->table[TABLE_NODES].nr_pages;
	int rc;

	if (array_grow(&s->nodes, &s->nodes_cap, nr_nodes + 1, sizeof(s->nodes[0])) ||
	    array_grow(&s->node_counts, &s->node_counts_cap, nr_nodes + 1, sizeof(s->node_counts[0])))
		return -ENOMEM;
	s->nr_nodes = nr_nodes;
	rc = load_pages(s, TABLE_COUNTS, PAGE_COUNTS, take_counts);
	if (!rc)
		rc = load_slots(s);
	if (!rc)
		rc = load_pages(s, TABLE_NODE_COUNTS, PAGE_NODE_COUNTS, take_node_counts);
	if (!rc)
		count_uncounted(s);
	if (!rc)
		rc = load_pages(s, TABLE_BLOBS, PAGE_BLOB, take_blob);
	if (!rc)
		rc = load_pages(s, TABLE_REAP, PAGE_REAP, take_reap);
	if (!rc)
		reap_list_whole(s);
	if (!rc)
		rc = rebuild_node_counts(s);
	if (!rc)
		rc = rebuild_counts(s);
	if (!rc)
		blobs_degraded(s);
	blobs_relate(s);
	return rc;
}
