/*
 * Growing: the store takes what its bdev has gained.  Memory for the new clusters comes first, then a checkpoint writes superblocks that know
 * of them, and only then may they be used: no record names a cluster that the superblock of its time does not have.
 */
#include "blob/internal.h"

/* Counts are read by other threads: the old array goes when none of them can be looking. */
static int counts_grow(struct store *s, uint64_t nr_clusters)
{
	_Atomic uint32_t *grown = counts_alloc(nr_clusters), *old = s->counts;

	if (!grown)
		return -ENOMEM;
	for (uint64_t i = 0; i < s->nr_clusters; i++)
		atomic_store_explicit(&grown[i], atomic_load_explicit(&old[i], memory_order_relaxed), memory_order_relaxed);
	atomic_store_explicit(&s->counts, grown, memory_order_release);
	retire(s, counts_retired(old));
	s->resident_bytes += (nr_clusters - s->nr_clusters) * sizeof(grown[0]);
	return 0;
}

static int memory_grow(struct store *s, uint64_t nr_clusters)
{
	int rc = avail_grow(s, nr_clusters);

	if (!rc && s->csum)
		rc = csum_resize(s, nr_clusters);
	return rc ? rc : counts_grow(s, nr_clusters);
}

/* The first group whose checksums have no place yet. */
static uint64_t groups_placed(const struct super *super)
{
	uint64_t group = 0;

	while (sums_cluster(super, group, false) < super->nr_clusters)
		group++;
	return group;
}

static fiber_fn int clear_new_sums(struct store *s, const struct super *super)
{
	int rc = sums_clear(s, super, groups_placed(&s->super));

	return rc || !s->has_cache ? rc : bdev_flush(s->bch);
}

static fiber_fn int grow_to(struct store *s, uint64_t nr_clusters)
{
	struct super super = s->super;
	uint64_t before = s->nr_clusters, unusable = before;
	int rc = 0;

	super.nr_clusters = nr_clusters;
	super.nr_pages = cluster_page(s, 1) * nr_clusters;
	if (super_has_sums(&super))
		rc = clear_new_sums(s, &super);
	if (!rc)
		rc = memory_grow(s, nr_clusters);
	if (rc)
		return rc;
	/* The last clusters may have been without a place for their checksums. */
	while (unusable && super_cluster_reserved(&s->super, unusable - 1))
		unusable--;
	s->super.nr_clusters = s->nr_clusters = nr_clusters;
	s->super.nr_pages = super.nr_pages;
	rc = checkpoint_wait(s);
	if (rc)
		return rc;
	for (uint64_t c = unusable; c < nr_clusters; c++)
		if (!super_cluster_reserved(&s->super, c))
			cluster_gained(s, c);
	log_notice("store %s: grown from %llu to %llu clusters", s->super.name, (unsigned long long)before,
		   (unsigned long long)nr_clusters);
	waiters_kick(&s->space_waiters);
	waiters_kick(&s->admit_waiters);
	return 0;
}

fiber_fn int store_grow(struct store *s)
{
	uint64_t nr_clusters = bdev_nr_blocks(s->bdev) >> s->cluster_block_shift;
	int rc = 0;

	if (!store_writable(s))
		return s->failed == -ENODEV ? -ENODEV : -EROFS;
	if (nr_clusters >= COUNT_MAX)
		nr_clusters = COUNT_MAX - 1;
	if (s->growing)
		return -EBUSY;
	s->growing = true;
	if (nr_clusters > s->nr_clusters)
		rc = grow_to(s, nr_clusters);
	s->growing = false;
	return rc;
}
