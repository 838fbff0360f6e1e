/*
 * Clusters: their reference counts, which may be allocated now, and what is promised to thick blobs.
 *
 * A cluster is available when its count is 0, nobody holds it for a first write, and it has come all the way
 * back after it was freed (grace.c).  Allocation is in memory only; the record that maps the cluster makes
 * its count 1.
 */
#include "blob/internal.h"

#define COMING_MIN 1024u /* freed clusters on their way back that there is always memory for */

static void avail_set(struct store *s, uint64_t c)
{
	assert(!(s->avail[c / 64] >> (c % 64) & 1));
	s->avail[c / 64] |= 1ull << (c % 64);
	s->avail_summary[c / 4096] |= 1ull << (c / 64 % 64);
	s->nr_avail++;
}

static void avail_clear(struct store *s, uint64_t c)
{
	s->avail[c / 64] &= ~(1ull << (c % 64));
	if (!s->avail[c / 64])
		s->avail_summary[c / 4096] &= ~(1ull << (c / 64 % 64));
	s->nr_avail--;
}

_Atomic uint32_t *counts_alloc(uint64_t nr)
{
	char *mem = calloc(1, sizeof(struct retired) + nr * sizeof(uint32_t));

	return mem ? (void *)(mem + sizeof(struct retired)) : NULL;
}

struct retired *counts_retired(_Atomic uint32_t *counts)
{
	return (void *)((char *)counts - sizeof(struct retired));
}

int avail_grow(struct store *s, uint64_t nr_clusters)
{
	uint64_t old = s->nr_clusters, nr = nr_clusters;
	uint64_t *avail, *summary;

	avail = realloc(s->avail, (nr / 64 + 1) * sizeof(*avail));
	if (!avail)
		return -ENOMEM;
	s->avail = avail;
	memset(avail + old / 64 + 1, 0, (nr / 64 - old / 64) * sizeof(*avail));
	summary = realloc(s->avail_summary, (nr / 4096 + 1) * sizeof(*summary));
	if (!summary)
		return -ENOMEM;
	s->avail_summary = summary;
	memset(summary + old / 4096 + 1, 0, (nr / 4096 - old / 4096) * sizeof(*summary));
	return 0;
}

void cluster_gained(struct store *s, uint64_t cluster)
{
	avail_set(s, cluster);
	s->nr_data_clusters++;
}

int alloc_init(struct store *s)
{
	s->counts = counts_alloc(s->nr_clusters);
	s->avail = calloc(s->nr_clusters / 64 + 1, sizeof(s->avail[0]));
	s->avail_summary = calloc(s->nr_clusters / 4096 + 1, sizeof(s->avail_summary[0]));
	s->coming_cap = COMING_MIN;
	s->coming = malloc(s->coming_cap * sizeof(*s->coming));
	s->spare_entry = malloc(sizeof(*s->spare_entry));
	if (!s->counts || !s->avail || !s->avail_summary || !s->coming || !s->spare_entry)
		return -ENOMEM;
	s->resident_bytes += s->nr_clusters * sizeof(s->counts[0]);
	s->nr_data_clusters = 0;
	for (uint64_t c = 0; c < s->nr_clusters; c++)
		s->nr_data_clusters += !super_cluster_reserved(&s->super, c);
	return 0;
}

void alloc_destroy(struct store *s)
{
	if (s->counts)
		free(counts_retired(s->counts));
	free(s->avail);
	free(s->avail_summary);
	free(s->coming);
	retired_free(s->retired, s->retired_entries);
	free(s->spare_entry);
}

void alloc_build_available(struct store *s)
{
	for (uint64_t c = 0; c < s->nr_clusters; c++)
		if (!s->counts[c] && !super_cluster_reserved(&s->super, c))
			avail_set(s, c);
	s->alloc_cursor = 0;
}

/* The first available cluster from @from on, or the last before it; nr_clusters: none. */
static uint64_t avail_find(const struct store *s, uint64_t from)
{
	uint64_t word = from / 64, bits, sum, nr_sums = s->nr_clusters / 4096 + 1;

	bits = s->avail[word] >> (from % 64) << (from % 64);
	if (bits)
		return word * 64 + __builtin_ctzll(bits);
	word++;
	for (uint64_t i = word / 64; i < nr_sums; i++) {
		sum = s->avail_summary[i];
		if (i == word / 64)
			sum = sum >> (word % 64) << (word % 64);
		if (sum) {
			word = i * 64 + __builtin_ctzll(sum);
			return word * 64 + __builtin_ctzll(s->avail[word]);
		}
	}
	return s->nr_clusters;
}

static uint64_t avail_find_last(const struct store *s)
{
	for (uint64_t i = s->nr_clusters / 4096 + 1; i-- > 0;)
		if (s->avail_summary[i]) {
			uint64_t word = i * 64 + 63 - __builtin_clzll(s->avail_summary[i]);

			return word * 64 + 63 - __builtin_clzll(s->avail[word]);
		}
	return s->nr_clusters;
}

uint64_t clusters_unpromised(const struct store *s)
{
	return s->nr_avail > s->nr_promised ? s->nr_avail - s->nr_promised : 0;
}

uint32_t cluster_alloc(struct store *s, struct blob *b)
{
	uint64_t c;

	bool thick = blob_is_thick(b);

	if (!s->nr_avail || (!thick && !clusters_unpromised(s)))
		return 0;
	c = avail_find(s, s->alloc_cursor);
	if (c >= s->nr_clusters)
		c = avail_find(s, 0);
	assert(c < s->nr_clusters);
	avail_clear(s, c);
	s->alloc_cursor = c + 1 < s->nr_clusters ? c + 1 : 0;
	b->nr_held++;
	blob_promise(b);
	return c;
}

void cluster_release(struct store *s, struct blob *b, uint32_t cluster)
{
	avail_set(s, cluster);
	b->nr_held--;
	blob_promise(b);
	waiters_kick(&s->space_waiters);
}

bool space_is_coming(const struct store *s)
{
	return s->coming_head != s->coming_tail || s->nr_freeing || s->nr_reap || s->nr_trimming;
}

void cluster_ref(struct store *s, uint32_t c)
{
	if (s->counts[c] >= COUNT_MAX)
		return; /* it is not known, and stays so */
	if (!(s->loading && BLOB_MUTANT(COUNT_NOT_REPLAYED))) {
		mpage_touch(s, TABLE_COUNTS, c / COUNTS_A_PAGE);
		if (!s->counts[c]++ && s->csum)
			csum_cluster_new(s, c);
	}
}

void cluster_unref(struct store *s, uint32_t c)
{
	mpage_touch(s, TABLE_COUNTS, c / COUNTS_A_PAGE);
	if (s->counts[c] == 2 && !s->loading)
		atomic_store(&s->unshared[c % UNSHARED_BUCKETS], s->journal.open_seq);
	if (s->csum && s->counts[c] == 1)
		csum_cluster_gone(s, c);
	if (s->counts[c] && s->counts[c] < COUNT_MAX && --s->counts[c] == 0 && !s->loading) {
		if (BLOB_MUTANT(EARLY_REUSE)) {
			cluster_available(s, c);
			waiters_kick(&s->space_waiters);
			return;
		}
		if (s->coming_tail - s->coming_head == s->coming_cap) {
			uint64_t cap = s->coming_cap * 2;
			struct freed *grown = malloc(cap * sizeof(*grown));

			if (!grown) { /* it is free again after the next open */
				log_error("store %s: no memory to give cluster %u back", s->super.name, c);
				return;
			}
			for (uint64_t i = s->coming_head; i != s->coming_tail; i++)
				grown[i & (cap - 1)] = s->coming[i & (s->coming_cap - 1)];
			free(s->coming);
			s->coming = grown;
			s->coming_cap = cap;
		}
		s->coming[s->coming_tail++ & (s->coming_cap - 1)] =
			(struct freed){.cluster = c, .seq = s->journal.open_seq};
		s->stats.nr_freed_clusters++;
		fiber_cond_signal(&s->free_wake);
	}
}

void cluster_available(struct store *s, uint32_t cluster)
{
	avail_set(s, cluster);
	/* Bugs of reuse show when there is reuse. */
	if (BLOB_MUTANT(EARLY_REUSE) || BLOB_MUTANT(FREE_UNDER_READ) || BLOB_MUTANT(UNMAP_RACES_REUSE))
		s->alloc_cursor = cluster;
}

/* --- metadata --- */

static void take_for_metadata(struct store *s, uint64_t c, uint32_t class_count)
{
	avail_clear(s, c);
	mpage_touch(s, TABLE_COUNTS, c / COUNTS_A_PAGE);
	s->counts[c] = class_count;
	s->nr_metadata++;
}

int meta_grow(struct store *s, enum op_kind kind)
{
	uint64_t a, b;

	if (s->nr_avail < 2 || (kind == OP_THIN && clusters_unpromised(s) < 2))
		return -ENOSPC;
	a = avail_find(s, 0);
	b = avail_find_last(s);
	if (vec_reserve(&s->free_slots[0], s->free_slots[0].nr + s->slots_a_cluster) ||
	    vec_reserve(&s->free_slots[1], s->free_slots[1].nr + s->slots_a_cluster))
		return -ENOMEM;
	take_for_metadata(s, a, COUNT_METADATA_A);
	take_for_metadata(s, b, COUNT_METADATA_B);
	slots_add_cluster(s, a, 0);
	slots_add_cluster(s, b, 1);
	return 0;
}

/* Clusters of metadata, in both copies and with what checkpoints need besides, for so many mapped clusters.
 */
uint64_t thick_overhead(const struct store *s, uint64_t nr_clusters)
{
	uint64_t nodes = 0, n = (nr_clusters + (1u << s->leaf_shift) - 1) >> s->leaf_shift;

	for (; n > 1; n = (n + (1u << s->inner_shift) - 1) >> s->inner_shift)
		nodes += n;
	nodes += n;
	nodes += nodes / COUNTS_A_PAGE + nodes / 64 + 2;
	return (nodes * 2 + s->slots_a_cluster - 1) / s->slots_a_cluster * 2;
}

/* What a thick blob of that size needs in all. */
uint64_t thick_promise(const struct store *s, uint64_t nr_clusters)
{
	return nr_clusters ? nr_clusters + thick_overhead(s, nr_clusters) : 0;
}

/* Sets what is promised to a blob but not used yet, and what it counts for. */
void blob_promise(struct blob *b)
{
	struct store *s = b->store;
	uint64_t size = b->nr_clusters, used = b->figures.nr_own + b->nr_held, want = 0;
	uint64_t logical = b->frozen || b->deleting ? 0 : size;

	/* While a tail is being cut off, nobody knows how much of what is allocated lies in front of it. */
	if (blob_is_thick(b) && !b->deleting)
		want = thick_promise(s, size) - (b->trimming ? 0 : used < size ? used : size);
	s->nr_promised += want - b->promised;
	b->promised = want;
	s->nr_logical += logical - b->logical;
	b->logical = logical;
}
