/*
 * Page headers and superblocks: sealed when written, and believed only when everything in them is as it must
 * be.
 */
#include "blob/format.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include <isa-l/crc.h>

#include "blob/mutant.h"

#define TYPE_BASE 0x424C4200u
#define MAGIC     "FERRULE"

int refuse(struct blob_reason *why, const char *fmt, ...)
{
	va_list ap;

	if (why) {
		va_start(ap, fmt);
		vsnprintf(why->text, sizeof(why->text), fmt, ap);
		va_end(ap);
	}
	return -EUCLEAN;
}

static uint32_t page_crc(const void *page)
{
	/* ISA-L takes no const pointer, though it only reads. */
	return ~crc32_iscsi((unsigned char *)(uintptr_t)page + 4, PAGE_BYTES - 4, 0xFFFFFFFFu);
}

void page_seal(void *page, const struct page_id *id, uint32_t used_bytes)
{
	uint8_t *p = page;

	memset(p, 0, PAGE_HEADER_BYTES);
	memset(p + PAGE_HEADER_BYTES + used_bytes, 0, PAGE_PAYLOAD - used_bytes);
	put32(p + 4, TYPE_BASE + id->type);
	put64(p + 8, id->store);
	put64(p + 16, id->address);
	put64(p + 24, id->owner);
	put64(p + 32, id->generation);
	put32(p + 40, used_bytes);
	put32(p, page_crc(p));
}

static const char *type_name(uint32_t type)
{
	static const char *const names[] = {"?",      "superblock",  "table", "leaf",      "inner",
					    "counts", "node counts", "blob",  "reap list", "journal"};

	type -= TYPE_BASE;
	return type < sizeof(names) / sizeof(names[0]) ? names[type] : "unknown";
}

int page_identify(const void *page, struct page_id *id, uint32_t *ret_used_bytes, struct blob_reason *why)
{
	const uint8_t *p = page;
	bool check_crc = !(BLOB_MUTANT(JOURNAL_NO_CRC) && id->type == PAGE_JOURNAL);

	if (check_crc && get32(p) != page_crc(p))
		return refuse(why, "wrong CRC: says %08x, is %08x", get32(p), page_crc(p));
	if (get32(p + 4) != TYPE_BASE + id->type)
		return refuse(why, "is a %s page, not a %s page", type_name(get32(p + 4)),
			      type_name(TYPE_BASE + id->type));
	if (get64(p + 8) != id->store)
		return refuse(why, "is a page of another store");
	if (get64(p + 16) != id->address)
		return refuse(why, "was written for page %llu", (unsigned long long)get64(p + 16));
	if (get32(p + 40) > PAGE_PAYLOAD)
		return refuse(why, "says that %u bytes of it are used", get32(p + 40));
	id->owner = get64(p + 24);
	id->generation = get64(p + 32);
	*ret_used_bytes = get32(p + 40);
	return 0;
}

int page_check(const void *page, const struct page_id *expect, uint32_t *ret_used_bytes,
	       struct blob_reason *why)
{
	struct page_id id = *expect;
	int rc = page_identify(page, &id, ret_used_bytes, why);

	if (rc)
		return rc;
	if (id.owner != expect->owner)
		return refuse(why, "belongs to %llx, not to %llx", (unsigned long long)id.owner,
			      (unsigned long long)expect->owner);
	if (id.generation != expect->generation && !(BLOB_MUTANT(STALE_PAGE_TAKEN) && id.generation < expect->generation))
		return refuse(why, "is of generation %llu, not %llu", (unsigned long long)id.generation,
			      (unsigned long long)expect->generation);
	return 0;
}

/* --- superblock --- */

#define SUPER_TABLES 144u
#define SUPER_NAME   344u
#define SUPER_USED   (SUPER_NAME + BLOB_NAME_MAX)

_Static_assert(SUPER_TABLES + NR_TABLES * 40 == SUPER_NAME, "table roots end where the name begins");
_Static_assert(TABLE_PAGE_USED <= PAGE_PAYLOAD, "a table page holds its references");
_Static_assert(COUNTS_A_PAGE * 4 == PAGE_PAYLOAD, "a page of counts is full");
_Static_assert(8 + REAPS_A_PAGE * 4 <= PAGE_PAYLOAD, "a page of the reap list fits");
_Static_assert(BLOB_PAYLOAD_MAX + 8 <= JOURNAL_RECORDS_MAX, "a blob fits a record");

static uint64_t super_page(unsigned which)
{
	return which ? SUPER_PAGE_1 : SUPER_PAGE_0;
}

void super_encode(const struct super *s, unsigned which, void *page)
{
	uint8_t *p = page_payload(page);
	size_t name_len = strlen(s->name);

	memset(page, 0, PAGE_BYTES);
	memcpy(p, MAGIC, 8);
	put32(p + 8, FORMAT_VERSION);
	put32(p + 12, s->block_size);
	put64(p + 16, s->compat);
	put64(p + 24, s->ro_compat);
	put64(p + 32, s->incompat);
	memcpy(p + 40, s->uuid, 16);
	put64(p + 56, s->nr_pages);
	p[64] = s->cluster_shift;
	p[65] = s->leaf_shift;
	p[66] = s->inner_shift;
	p[67] = s->clean;
	put32(p + 68, NR_TABLES);
	put64(p + 72, s->nr_clusters);
	put64(p + 80, s->journal_page);
	put64(p + 88, s->journal_pages);
	put64(p + 96, s->epoch);
	put64(p + 104, s->journal_start);
	put64(p + 112, s->next_blob_id);
	put64(p + 120, s->created_ms);
	put64(p + 128, s->written_ms);
	put16(p + 136, name_len);
	put16(p + 138, s->sums_first);
	put32(p + 140, s->sums_b0);
	for (unsigned i = 0; i < NR_TABLES; i++) {
		uint8_t *t = p + SUPER_TABLES + i * 40;

		ref_encode(&s->table[i].ref, t);
		put64(t + 24, s->table[i].nr_pages);
		put32(t + 32, s->table[i].height);
	}
	memcpy(p + SUPER_NAME, s->name, name_len);
	page_seal(page,
		  &(struct page_id){.type = PAGE_SUPER,
				    .store = super_store(s),
				    .address = super_page(which),
				    .owner = which,
				    .generation = s->generation},
		  SUPER_USED);
}

static void super_take(const uint8_t *p, struct super *s)
{
	s->block_size = get32(p + 12);
	s->compat = get64(p + 16);
	s->ro_compat = get64(p + 24);
	s->incompat = get64(p + 32);
	memcpy(s->uuid, p + 40, 16);
	s->nr_pages = get64(p + 56);
	s->cluster_shift = p[64];
	s->leaf_shift = p[65];
	s->inner_shift = p[66];
	s->clean = p[67] & 1;
	s->nr_clusters = get64(p + 72);
	s->journal_page = get64(p + 80);
	s->journal_pages = get64(p + 88);
	s->epoch = get64(p + 96);
	s->journal_start = get64(p + 104);
	s->next_blob_id = get64(p + 112);
	s->created_ms = get64(p + 120);
	s->written_ms = get64(p + 128);
	s->sums_first = get16(p + 138);
	s->sums_b0 = get32(p + 140);
	for (unsigned i = 0; i < NR_TABLES; i++) {
		const uint8_t *t = p + SUPER_TABLES + i * 40;

		s->table[i].ref = ref_decode(t);
		s->table[i].nr_pages = get64(t + 24);
		s->table[i].height = get32(t + 32);
	}
}

int super_decode(const void *page, unsigned which, struct super *s, struct blob_reason *why)
{
	const uint8_t *h = page, *p = h + PAGE_HEADER_BYTES;
	struct page_id id = {.type = PAGE_SUPER, .address = super_page(which), .store = get64(p + 40)};
	uint32_t used;

	memset(s, 0, sizeof(*s));
	if (memcmp(p, MAGIC, 8) || get32(h + 4) != TYPE_BASE + PAGE_SUPER) {
		refuse(why, "is no superblock");
		return -EILSEQ;
	}
	if (page_identify(page, &id, &used, why))
		return -EUCLEAN;
	if (get32(p + 8) != FORMAT_VERSION) {
		refuse(why, "format version %u; this program knows version %u", get32(p + 8), FORMAT_VERSION);
		return -ENOTSUP;
	}
	super_take(p, s);
	s->generation = id.generation;
	if (s->incompat & ~FORMAT_INCOMPAT_KNOWN) {
		refuse(why, "needs features that this program does not have: incompat bits %llx",
		       (unsigned long long)(s->incompat & ~FORMAT_INCOMPAT_KNOWN));
		return -ENOTSUP;
	}
	if (id.owner != which || used != SUPER_USED || get32(p + 68) != NR_TABLES)
		return refuse(why, "number, length or table count is wrong");
	if (get16(p + 136) > BLOB_NAME_MAX || get16(p + 136) == 0)
		return refuse(why, "the name has %u bytes", get16(p + 136));
	memcpy(s->name, p + SUPER_NAME, get16(p + 136));
	return 0;
}

uint8_t format_leaf_shift_max(uint8_t cluster_shift)
{
	uint32_t entry = 12 + (1u << (cluster_shift - PAGE_SHIFT_BITS)) / 8;
	uint8_t shift = 0;

	while (shift < 8 && (entry << (shift + 1)) <= PAGE_PAYLOAD - 8)
		shift++;
	return shift;
}

static bool sums_reserve(const struct super *s, uint64_t cluster)
{
	if (cluster == s->sums_b0)
		return true;
	if (cluster >= s->sums_first && (cluster - s->sums_first) % SUM_GROUP < 2)
		return true;
	return sums_cluster(s, cluster / SUM_GROUP, false) >= s->nr_clusters;
}

bool super_cluster_reserved(const struct super *s, uint64_t cluster)
{
	unsigned pages_shift = s->cluster_shift - PAGE_SHIFT_BITS;

	if (cluster == SUPER_PAGE_0 >> pages_shift || cluster == SUPER_PAGE_1 >> pages_shift)
		return true;
	if (super_has_sums(s) && sums_reserve(s, cluster))
		return true;
	return cluster >= s->journal_page >> pages_shift &&
	       cluster <= (s->journal_page + s->journal_pages - 1) >> pages_shift;
}

static int check_tables(const struct super *s, struct blob_reason *why)
{
	for (unsigned i = 0; i < NR_TABLES; i++) {
		const struct table_root *t = &s->table[i];
		uint64_t capacity = 1;

		if (t->height > TABLE_LEVELS || t->nr_pages >> 40)
			return refuse(why, "table %u has height %u and %llu pages", i, t->height,
				      (unsigned long long)t->nr_pages);
		for (uint32_t l = 0; l < t->height; l++)
			capacity *= TABLE_FANOUT;
		if ((t->height == 0) != (t->nr_pages == 0) || (t->height && t->nr_pages > capacity))
			return refuse(why, "table %u has height %u and %llu pages", i, t->height,
				      (unsigned long long)t->nr_pages);
		if (t->ref.a >= s->nr_pages || t->ref.b >= s->nr_pages || (t->ref.a == 0) != (t->ref.b == 0))
			return refuse(why, "the root of table %u lies outside of the store", i);
	}
	if (s->table[TABLE_COUNTS].nr_pages > (s->nr_clusters + COUNTS_A_PAGE - 1) / COUNTS_A_PAGE)
		return refuse(why, "more counts than clusters");
	if (s->table[TABLE_NODES].nr_pages > UINT32_MAX || s->table[TABLE_BLOBS].nr_pages > UINT32_MAX)
		return refuse(why, "too many nodes or blobs");
	return 0;
}

static int check_sums(const struct super *s, struct blob_reason *why)
{
	unsigned shift = s->cluster_shift - PAGE_SHIFT_BITS;
	uint64_t journal = s->journal_page >> shift, journal_end = (s->journal_page + s->journal_pages - 1) >> shift;

	if (s->sums_first <= SUPER_PAGE_1 >> shift || s->sums_first + 2u > s->nr_clusters ||
	    journal < s->sums_first + 2u || journal_end >= s->sums_first + SUM_GROUP ||
	    s->sums_b0 <= s->sums_first || s->sums_b0 >= s->nr_clusters ||
	    (s->sums_b0 >= journal && s->sums_b0 <= journal_end) || (s->sums_b0 - s->sums_first) % SUM_GROUP < 2)
		return refuse(why, "the checksums, from cluster %u on and in %u, lie where they cannot", s->sums_first,
			      s->sums_b0);
	return 0;
}

int super_check_geometry(const struct super *s, uint64_t device_pages, struct blob_reason *why)
{
	uint64_t pages_a_cluster;

	if (s->block_size != 512 && s->block_size != 4096)
		return refuse(why, "block size %u", s->block_size);
	if (s->cluster_shift < 15 || s->cluster_shift > 24)
		return refuse(why, "cluster shift %u", s->cluster_shift);
	if (s->inner_shift < 1 || s->inner_shift > 8 ||
	    s->leaf_shift > format_leaf_shift_max(s->cluster_shift))
		return refuse(why, "leaf shift %u, inner shift %u", s->leaf_shift, s->inner_shift);
	if (s->nr_pages > device_pages)
		return refuse(why, "the store has %llu pages, the device only %llu",
			      (unsigned long long)s->nr_pages, (unsigned long long)device_pages);
	pages_a_cluster = 1ull << (s->cluster_shift - PAGE_SHIFT_BITS);
	if (s->nr_clusters > s->nr_pages / pages_a_cluster || s->nr_clusters > COUNT_MAX ||
	    s->nr_clusters < 2)
		return refuse(why, "%llu clusters do not fit", (unsigned long long)s->nr_clusters);
	if (s->nr_pages <= SUPER_PAGE_1)
		return refuse(why, "no room for the second superblock");
	if (s->journal_pages < 8 || s->journal_page == 0 || s->journal_pages > s->nr_pages ||
	    s->journal_page > s->nr_pages - s->journal_pages ||
	    (s->journal_page <= SUPER_PAGE_1 && s->journal_page + s->journal_pages > SUPER_PAGE_1))
		return refuse(why, "the journal, %llu pages at %llu, lies where it cannot",
			      (unsigned long long)s->journal_pages, (unsigned long long)s->journal_page);
	if (super_has_sums(s) && check_sums(s, why))
		return -EUCLEAN;
	return check_tables(s, why);
}

/* --- checksums --- */

void sum_unit_encode(uint8_t *unit, uint64_t store, uint64_t index, const uint32_t sums[SUMS_A_UNIT])
{
	put32(unit + 4, store);
	put64(unit + 8, index);
	for (unsigned i = 0; i < SUMS_A_UNIT; i++)
		put32(unit + 16 + 4 * i, sums[i]);
	put32(unit, ~crc32_iscsi(unit + 4, SUM_UNIT_BYTES - 4, 0xFFFFFFFFu));
}

static bool is_zero(const uint8_t *p, size_t n)
{
	return !p[0] && !memcmp(p, p + 1, n - 1);
}

int sum_unit_decode(const uint8_t *unit, uint64_t store, uint64_t index, uint32_t ret_sums[SUMS_A_UNIT])
{
	if (is_zero(unit, SUM_UNIT_BYTES))
		return -ENODATA;
	if (get32(unit) != (uint32_t)~crc32_iscsi((unsigned char *)(uintptr_t)unit + 4, SUM_UNIT_BYTES - 4, 0xFFFFFFFFu) ||
	    get32(unit + 4) != (uint32_t)store || get64(unit + 8) != index)
		return -EUCLEAN;
	for (unsigned i = 0; i < SUMS_A_UNIT; i++)
		ret_sums[i] = get32(unit + 16 + 4 * i);
	return 0;
}
