/* Making a store: sizes are chosen, an older store's superblocks go, two new ones come; no other page is
 * needed. */
#include "blob/internal.h"

#include <stdio.h>

#define JOURNAL_DEFAULT_MAX (32u * 1024 * 1024 / PAGE_BYTES)

static int choose_journal(struct super *super, uint32_t wanted, struct blob_reason *reason)
{
	uint64_t most = super->nr_pages / 32, pages = wanted;
	unsigned shift = super->cluster_shift - PAGE_SHIFT_BITS;

	if (super_has_sums(super) && most >> shift > SUM_GROUP - 2) /* before the next group's checksums */
		most = (uint64_t)(SUM_GROUP - 2) << shift;

	if (!pages)
		pages = most < JOURNAL_DEFAULT_MAX ? most : JOURNAL_DEFAULT_MAX;
	if (pages < 8)
		pages = 8;
	if (wanted && wanted != pages) {
		refuse(reason, "a journal of %u pages is too small: at least 8", wanted);
		return -EINVAL;
	}
	if (pages > most) {
		refuse(reason, "a journal of %llu pages is more than 1/32 of the device's %llu",
		       (unsigned long long)pages, (unsigned long long)super->nr_pages);
		return wanted > 8 ? -EINVAL : -ENOSPC;
	}
	/* Before the second superblock if it fits there, else right behind it. */
	super->journal_page = pages <= SUPER_PAGE_1 - 1 ? 1 : SUPER_PAGE_1 + 1;
	if (super->cluster_shift >= 20)
		super->journal_page = SUPER_PAGE_1 + 1;
	if (super_has_sums(super))
		super->journal_page = (super->sums_first + 2ull) << shift;
	super->journal_pages = pages;
	return 0;
}

/* The first group's behind the second superblock; its other copy at the device's end. */
static void choose_sums(struct super *super)
{
	super->incompat |= FORMAT_INCOMPAT_SUMS;
	super->sums_first = (SUPER_PAGE_1 >> (super->cluster_shift - PAGE_SHIFT_BITS)) + 1;
	super->sums_b0 = super->nr_clusters - 1;
	while (super->sums_b0 > super->sums_first && (super->sums_b0 - super->sums_first) % SUM_GROUP < 2)
		super->sums_b0--;
}

static int choose(struct store *s, const struct store_create_opts *opts, struct blob_reason *reason)
{
	struct super *super = &s->super;
	uint32_t cluster = opts->cluster_size_bytes ? opts->cluster_size_bytes : BLOB_CLUSTER_DEFAULT;
	int rc;

	if (!opts->name || !opts->name[0] || strlen(opts->name) > BLOB_NAME_MAX) {
		refuse(reason, "the name must have 1 to %u bytes", BLOB_NAME_MAX);
		return -EINVAL;
	}
	if (cluster & (cluster - 1) || cluster < BLOB_CLUSTER_MIN || cluster > BLOB_CLUSTER_MAX) {
		refuse(reason, "a cluster size of %u bytes: must be a power of two, %u to %u", cluster,
		       BLOB_CLUSTER_MIN, BLOB_CLUSTER_MAX);
		return -EINVAL;
	}
	super->block_size = s->bdev->block_size;
	super->incompat = FORMAT_INCOMPAT_PRELIMINARY;
	super->cluster_shift = __builtin_ctz(cluster);
	super->leaf_shift = format_leaf_shift_max(super->cluster_shift);
	if (opts->leaf_shift && opts->leaf_shift < super->leaf_shift)
		super->leaf_shift = opts->leaf_shift;
	super->inner_shift = opts->inner_shift && opts->inner_shift < 8 ? opts->inner_shift : 8;
	super->nr_pages = bdev_nr_blocks(s->bdev) * s->bdev->block_size / PAGE_BYTES;
	super->nr_clusters = super->nr_pages >> (super->cluster_shift - PAGE_SHIFT_BITS);
	if (super->nr_clusters >= COUNT_MAX)
		super->nr_clusters = COUNT_MAX - 1;
	super->nr_pages = super->nr_clusters << (super->cluster_shift - PAGE_SHIFT_BITS);
	super->generation = 1;
	super->epoch = 1;
	super->journal_start = 1;
	super->next_blob_id = 1;
	super->clean = true;
	super->created_ms = super->written_ms = clock_wall_ms();
	uuid_copy(super->uuid, opts->uuid);
	if (uuid_is_null(super->uuid))
		store_new_uuid(super->uuid);
	snprintf(super->name, sizeof(super->name), "%s", opts->name);
	if (opts->checksums)
		choose_sums(super);
	rc = choose_journal(super, opts->journal_pages, reason);
	if (rc)
		return rc;
	if (super_check_geometry(super, super->nr_pages, reason) || super->nr_clusters < 8) {
		if (reason && !reason->text[0])
			refuse(reason, "%llu clusters are too few", (unsigned long long)super->nr_clusters);
		return -ENOSPC;
	}
	return 0;
}

#define ZERO_PAGES 256u

/* The whole ring, once: on a sparse file the places are then there, and a commit is spared the file system's own journal. */
static fiber_fn int clear_journal(struct store *s, const uint8_t *zeroes)
{
	uint64_t left = s->super.journal_pages, page = s->super.journal_page;

	while (left) {
		uint64_t nr = left < ZERO_PAGES ? left : ZERO_PAGES;
		int rc = bdev_write(s->bch, zeroes, page_block(s, page), page_block(s, nr), 0);

		if (rc)
			return rc;
		page += nr;
		left -= nr;
	}
	return s->has_cache ? bdev_flush(s->bch) : 0;
}

fiber_fn int sums_clear(struct store *s, const struct super *super, uint64_t from)
{
	uint64_t nr_groups = (super->nr_clusters + SUM_GROUP - 1) / SUM_GROUP;
	int rc = 0;

	for (uint64_t g = from; g < nr_groups && !rc; g++)
		for (unsigned copy = 0; copy < 2 && !rc; copy++) {
			struct bdev_io io = {.op = BDEV_WRITE_ZEROES,
					     .offset_blocks = cluster_block(s, sums_cluster(super, g, copy)),
					     .nr_blocks = cluster_block(s, 1)};

			if (sums_cluster(super, g, copy) < super->nr_clusters)
				rc = bdev_submit_wait(s->bch, &io);
		}
	return rc;
}

static fiber_fn int write_supers(struct store *s)
{
	uint8_t *zeroes = dma_alloc(ZERO_PAGES * PAGE_BYTES, PAGE_BYTES);
	int rc;

	if (!zeroes)
		return -ENOMEM;
	/* The second superblock of an older store must not outlive the first. */
	rc = bdev_write(s->bch, zeroes, page_block(s, SUPER_PAGE_1), page_block(s, 1), BDEV_IO_FUA);
	if (!rc)
		rc = bdev_write(s->bch, zeroes, page_block(s, SUPER_PAGE_0), page_block(s, 1), BDEV_IO_FUA);
	if (!rc && super_has_sums(&s->super))
		rc = sums_clear(s, &s->super, 0);
	if (!rc)
		rc = clear_journal(s, zeroes);
	dma_free(zeroes);
	return rc ? rc : super_write(s, &s->super);
}

static fiber_fn int format_device(const char *bdev_name, const struct store_create_opts *opts,
				  struct blob_reason *reason)
{
	struct store *s = store_new();
	int rc;

	if (!s)
		return -ENOMEM;
	rc = store_attach(s, bdev_name, true);
	if (!rc)
		rc = choose(s, opts, reason);
	if (!rc) {
		store_set_geometry(s);
		rc = write_supers(s);
	}
	store_free(s);
	return rc;
}

fiber_fn int store_create(const char *bdev_name, const struct store_create_opts *opts,
			  const struct store_open_opts *open_opts, struct store **ret_store,
			  struct blob_reason *reason)
{
	struct store_label label;
	struct blob_reason why = {""};
	int rc;

	if (reason)
		reason->text[0] = 0;
	rc = opts->overwrite ? 0 : store_probe(bdev_name, &label, &why);
	if (rc == -ENODEV || rc == -ENOMEM || rc == -EBUSY)
		return rc;
	if (!opts->overwrite && rc != -EILSEQ) {
		refuse(reason, "bdev %.80s holds a store already%s%.100s", bdev_name, why.text[0] ? ": " : "",
		       why.text);
		return -EEXIST;
	}
	rc = format_device(bdev_name, opts, reason);
	if (rc) {
		if (reason && !reason->text[0])
			refuse(reason, "bdev %.100s: %s", bdev_name, strerror(-rc));
		return rc;
	}
	return store_open(bdev_name, open_opts, ret_store, reason);
}
