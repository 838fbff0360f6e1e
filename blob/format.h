/*
 * The bytes on the device, as doc/format-blob.md lays them out: encoders, and decoders that take nothing for granted.
 * Decoders return 0 or -EUCLEAN (superblock: see there) and say in *why what is wrong; the caller adds which page.
 */
#ifndef BLOB_FORMAT_H
#define BLOB_FORMAT_H

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <uuid/uuid.h>

#include "blob/blob.h"

#define PAGE_BYTES	  4096u
#define PAGE_SHIFT_BITS	  12u
#define PAGE_HEADER_BYTES 64u
#define PAGE_PAYLOAD	  (PAGE_BYTES - PAGE_HEADER_BYTES)

#define SUPER_PAGE_0 0u
#define SUPER_PAGE_1 (1048576u / PAGE_BYTES)

enum page_type {
	PAGE_SUPER = 1,
	PAGE_TABLE,
	PAGE_LEAF,
	PAGE_INNER,
	PAGE_COUNTS,
	PAGE_NODE_COUNTS,
	PAGE_BLOB,
	PAGE_REAP,
	PAGE_JOURNAL
};

enum table_id { TABLE_COUNTS, TABLE_NODE_COUNTS, TABLE_NODES, TABLE_BLOBS, TABLE_REAP, NR_TABLES };

#define COUNT_METADATA_A 0xFFFFFFFEu
#define COUNT_METADATA_B 0xFFFFFFFDu
#define COUNT_MAX	 0xFFFFFFF0u /* of references; greater values mean something else */

#define COUNTS_A_PAGE 1008u
#define REAPS_A_PAGE  1000u
#define TABLE_FANOUT  128u
#define TABLE_LEVELS  6u

static inline uint16_t get16(const void *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return le16toh(v);
}

static inline uint32_t get32(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

static inline uint64_t get64(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return le64toh(v);
}

static inline void put16(void *p, uint16_t v)
{
	v = htole16(v);
	memcpy(p, &v, sizeof(v));
}

static inline void put32(void *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, sizeof(v));
}

static inline void put64(void *p, uint64_t v)
{
	v = htole64(v);
	memcpy(p, &v, sizeof(v));
}

static inline uint8_t *page_payload(void *page)
{
	return (uint8_t *)page + PAGE_HEADER_BYTES;
}

__attribute__((format(printf, 2, 3))) int refuse(struct blob_reason *why, const char *fmt, ...); /* returns -EUCLEAN */

/* --- the header --- */

/* What a page says of itself, and what a reader expects. */
struct page_id {
	enum page_type type;
	uint64_t store, address, owner, generation;
};

static inline uint64_t table_owner(enum table_id table, unsigned level, uint64_t index)
{
	return (uint64_t)table << 56 | (uint64_t)level << 48 | index;
}

/* Fills in the header, zeroes what follows the payload, and seals it with the CRC. */
void page_seal(void *page, const struct page_id *id, uint32_t used_bytes);
/* Whether the page is whole and what was expected. */
int page_check(const void *page, const struct page_id *expect, uint32_t *ret_used_bytes, struct blob_reason *why);
/* The same without knowing owner and generation, which it returns: journal pages. */
int page_identify(const void *page, struct page_id *id, uint32_t *ret_used_bytes, struct blob_reason *why);

/* --- superblock --- */

#define FORMAT_VERSION		    1u
#define FORMAT_INCOMPAT_PRELIMINARY 1ull
#define FORMAT_INCOMPAT_SUMS	    2ull /* checksums of data */
#define FORMAT_INCOMPAT_KNOWN	    (FORMAT_INCOMPAT_PRELIMINARY | FORMAT_INCOMPAT_SUMS)

struct page_ref {
	uint64_t a, b, generation; /* page addresses; a 0: none */
};

struct table_root {
	struct page_ref ref;
	uint64_t nr_pages;
	uint32_t height;
};

struct super {
	uint64_t generation;
	uint32_t block_size;
	uint64_t compat, ro_compat, incompat;
	uuid_t uuid;
	uint64_t nr_pages;
	uint8_t cluster_shift, leaf_shift, inner_shift;
	bool clean;
	uint64_t nr_clusters;
	uint64_t journal_page, journal_pages;
	uint64_t epoch, journal_start;
	uint64_t next_blob_id;
	uint64_t created_ms, written_ms;
	uint16_t sums_first; /* clusters of checksums: see sums_cluster() */
	uint32_t sums_b0;
	struct table_root table[NR_TABLES];
	char name[BLOB_NAME_MAX + 1];
};

static inline uint64_t super_store(const struct super *super)
{
	return get64(super->uuid);
}

void super_encode(const struct super *super, unsigned which, void *page);
/* 0, -EILSEQ (not ours), -EUCLEAN (damaged), -ENOTSUP (too new). */
int super_decode(const void *page, unsigned which, struct super *ret_super, struct blob_reason *why);
/* Whether the sizes make sense together, and fit a device of so many pages: 0 or -EUCLEAN. */
int super_check_geometry(const struct super *super, uint64_t device_pages, struct blob_reason *why);
/* The greatest leaf shift that fits a page. */
uint8_t format_leaf_shift_max(uint8_t cluster_shift);
/* Whether a cluster holds a superblock, a part of the journal or checksums, or has no place for its checksums. */
bool super_cluster_reserved(const struct super *super, uint64_t cluster);

/* --- checksums --- */

#define SUM_UNIT_BYTES 512u
#define SUMS_A_UNIT    124u
#define UNITS_A_PAGE   (PAGE_BYTES / SUM_UNIT_BYTES)
#define SUMS_A_PAGE    (SUMS_A_UNIT * UNITS_A_PAGE)
#define SUM_GROUP      SUMS_A_PAGE /* clusters whose checksums fill a cluster */
#define COUNT_MARK     0x80000000u /* in a stored count: the cluster's checksums may lag behind its data */

static inline bool super_has_sums(const struct super *super)
{
	return super->incompat & FORMAT_INCOMPAT_SUMS;
}

/* The cluster that holds the checksums of a group of clusters, in copy A or B. */
static inline uint32_t sums_cluster(const struct super *super, uint64_t group, bool copy_b)
{
	if (!copy_b)
		return super->sums_first + group * SUM_GROUP;
	return group ? super->sums_first + 1 + (group - 1) * SUM_GROUP : super->sums_b0;
}

void sum_unit_encode(uint8_t *unit, uint64_t store, uint64_t index, const uint32_t sums[SUMS_A_UNIT]);
/* 0; -ENODATA (never written: all zero); -EUCLEAN.  Without 0, sums are left alone. */
int sum_unit_decode(const uint8_t *unit, uint64_t store, uint64_t index, uint32_t ret_sums[SUMS_A_UNIT]);

/* --- payloads --- */

void ref_encode(const struct page_ref *ref, uint8_t *p);
struct page_ref ref_decode(const uint8_t *p);

#define TABLE_PAGE_USED (8 + TABLE_FANOUT * 24)

/* Decodes into TABLE_FANOUT references; addresses below nr_pages only. */
int table_decode(const uint8_t *payload, uint32_t used, unsigned level, uint64_t nr_pages, struct page_ref *ret_refs,
		 struct blob_reason *why);

struct leaf_entry {
	uint16_t index;
	bool full;
	bool external; /* the rest is the external bdev's */
	uint32_t own, base;
	const uint8_t *mask; /* NULL when full */
};

/* What a decoder of maps must know. */
struct leaf_format {
	uint32_t nr_entries, mask_bytes;
	uint64_t nr_clusters;
};

struct leaf_writer {
	uint8_t *payload;
	uint32_t used, mask_bytes;
	uint16_t nr;
};

void leaf_write_begin(struct leaf_writer *w, uint8_t *payload, uint32_t mask_bytes);
void leaf_write(struct leaf_writer *w, const struct leaf_entry *entry);
uint32_t leaf_write_end(struct leaf_writer *w); /* bytes used */

struct leaf_reader {
	const uint8_t *payload;
	uint32_t used, at;
	uint16_t left;
	int32_t last_index;
	const struct leaf_format *format;
};

int leaf_read_begin(struct leaf_reader *r, const uint8_t *payload, uint32_t used, const struct leaf_format *format,
		    struct blob_reason *why);
/* 1: an entry; 0: the end; -EUCLEAN */
int leaf_read(struct leaf_reader *r, struct leaf_entry *ret_entry, struct blob_reason *why);

uint32_t inner_encode(uint8_t *payload, unsigned level, const uint32_t *children, uint32_t nr_children);
int inner_decode(const uint8_t *payload, uint32_t used, uint32_t nr_children, unsigned *ret_level, uint32_t *ret_children,
		 struct blob_reason *why);

#define BLOB_FLAG_THICK	    1u
#define BLOB_FLAG_READ_ONLY 2u
#define BLOB_FLAG_SNAPSHOT  4u
#define BLOB_FLAG_TAIL	    8u /* entries beyond the size may still be mapped */
#define BLOB_FLAG_TEMPORARY 16u /* half of an operation: whoever opens the store deletes it */
#define BLOB_FLAG_EXTERNAL  32u /* what it does not map is another bdev's */
#define BLOB_FLAGS_KNOWN    63u
#define BLOB_EXTERNAL_BYTES 24u
#define BLOB_FIXED_BYTES    80u
#define BLOB_PAYLOAD_MAX    (BLOB_FIXED_BYTES + BLOB_EXTERNAL_BYTES + BLOB_NAME_MAX + BLOB_XATTR_MAX)

struct blob_image {
	uint64_t id;
	uuid_t uuid;
	uint64_t nr_clusters;
	uint32_t root;
	uint8_t flags, name_len;
	uint16_t xattr_len;
	uint64_t created_ms, parent_id;
	uint32_t nr_entries, nr_named, nr_own; /* figures of its map */
	uint32_t nr_differ;		       /* UINT32_MAX: not known */
	uint32_t nr_exclusive, exclusive_s;    /* as counted last, and when: wall clock; 0: never */
	uuid_t external;	    /* with BLOB_FLAG_EXTERNAL: the bdev */
	uint64_t external_clusters; /* and how far it shows */
	const char *name; /* not terminated */
	const uint8_t *xattrs;
};

uint32_t blob_image_bytes(const struct blob_image *image);

uint32_t blob_image_encode(const struct blob_image *image, uint8_t *payload);
int blob_image_decode(const uint8_t *payload, uint32_t used, struct blob_image *ret_image, struct blob_reason *why);

int reap_decode(const uint8_t *payload, uint32_t used, uint32_t *ret_nodes, uint32_t *ret_nr, struct blob_reason *why);
uint32_t reap_encode(uint8_t *payload, const uint32_t *nodes, uint32_t nr);

#define JOURNAL_PAYLOAD_HEADER 16u
#define JOURNAL_RECORDS_MAX    (PAGE_PAYLOAD - JOURNAL_PAYLOAD_HEADER)

#endif
