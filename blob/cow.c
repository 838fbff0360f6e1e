/*
 * Copying on a write to a shared cluster that is not full.  Its new cluster can have one base only, so what
 * the shared one holds itself is copied into the new one, and the old base (or nothing) remains the base.
 */
#include "blob/fill.h"

bool fill_must_copy(const struct store *s, const struct entry *e, bool exclusive)
{
	return !exclusive && e->own && !e->full;
}

static fiber_fn int copy_run(struct fill *f, uint8_t *buf, uint32_t first, uint32_t nr)
{
	struct store *s = f->blob->store;
	uint64_t in = (uint64_t)first * s->blocks_a_sub, blocks = (uint64_t)nr * s->blocks_a_sub;
	int rc = bdev_read(s->bch, buf, cluster_block(s, f->old_own) + in, blocks);

	s->stats.nr_copied_subs += nr;
	if (!rc)
		rc = bdev_write(s->bch, buf, cluster_block(s, f->own) + in, blocks, 0);
	if (!rc && s->csum)
		rc = csum_copied(f->blob, f->index, f->old_own, f->own, first, nr, buf);
	return rc;
}

static void copy_fiber(void *arg)
{
	struct fill *f = arg;
	struct store *s = f->blob->store;
	uint32_t max = ZERO_BYTES / BLOB_SUB_SIZE;
	uint8_t *buf = dma_alloc(ZERO_BYTES, PAGE_BYTES);
	int rc = buf ? 0 : -ENOMEM;

	for (uint32_t sub = 0, nr; !rc && sub < s->subs_a_cluster; sub += nr) {
		bool has = fill_old_has(f, sub);

		for (nr = 1; nr < max && sub + nr < s->subs_a_cluster && fill_old_has(f, sub + nr) == has;
		     nr++)
			;
		if (has)
			rc = copy_run(f, buf, sub, nr);
	}
	if (buf)
		dma_free(buf);
	if (rc)
		fill_over(f, rc);
	else
		fill_go_on(f);
}

void fill_copy_start(struct fill *f)
{
	struct store *s = f->blob->store;

	if (fiber_spawn(s->owner, "blob-copy", copy_fiber, f))
		fill_over(f, -ENOMEM);
}
