/* The metadata of a store as doc/format-blob.md has it, read from an image of its device without the store's code. */
#ifndef TEST_CRASH_IMAGE_H
#define TEST_CRASH_IMAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <uuid/uuid.h>

#define IMAGE_PAGE	 4096u
#define IMAGE_MAX_PAGES	 4096u
#define IMAGE_MAX_LEVELS 16u

enum { IMAGE_COUNTS, IMAGE_NODE_COUNTS, IMAGE_NODES, IMAGE_BLOBS, IMAGE_REAP, IMAGE_TABLES };

/* One metadata page that the newest superblock leads to. */
struct image_page {
	uint8_t table, level; /* level 0: one of the table's pages; above: a page of the table itself */
	uint64_t index;
	uint64_t copy[2]; /* page addresses */
};

struct image {
	const uint8_t *bytes;
	uint8_t leaf_shift, inner_shift, cluster_shift;
	unsigned nr_pages;
	struct image_page page[IMAGE_MAX_PAGES];
};

bool image_read(struct image *image, const void *bytes); /* false: there is no store, or more than fits */
/* Whether a page lies below another: the other is it, or leads to it. */
bool image_leads_to(const struct image_page *above, const struct image_page *page);
/* Marks which of its first nr clusters a blob loses with a page; all, when its own page goes.  False: there is no such blob. */
bool image_losses(const struct image *image, const uuid_t blob, const struct image_page *lost, bool *marks, unsigned nr);

#endif
