/*
 * What first writes copy.  A write to a shared cluster that is not full: its new cluster can have one base only, so either what the
 * shared one holds itself is copied into the new one, and the old base (or nothing) remains the base; or what it does
 * not hold, and it becomes the base: whichever is less, without what is being written.  And runs that are made a blob's own for their
 * own sake (inflate.c): their data is read where the map has it.
 */
#include "blob/csum.h"
#include "blob/fill.h"

#define COPY_FIBERS 16u
#define COPIES_MAX  4u /* at once: more would all end late, and with them every write that waits for one */
#define COPY_BYTES  (4 * BLOB_SUB_SIZE)

void fill_plan(struct fill *f, const struct entry *e, bool exclusive)
{
	struct store *s = f->blob->store;
	uint32_t nr_valid = 0, nr_missing;
	uint64_t rest[BLOB_CLUSTER_MAX / BLOB_SUB_SIZE / 64];

	f->copy = COPY_NOTHING;
	f->new_base = e->full ? e->own : e->base;
	f->new_external = e->external;
	if (exclusive || !e->own || e->full)
		return;
	entry_get_mask(s, e, rest);
	mask_set_range(rest, f->first_sub, f->nr_subs, false);
	for (uint32_t i = 0; i < s->mask_words; i++)
		nr_valid += __builtin_popcountll(rest[i]);
	nr_missing = s->subs_a_cluster - f->nr_subs - nr_valid;
	if (!nr_valid)
		return; /* all it has is written over */
	/* Zeros have no checksum to be taken over, and the external bdev is not asked here. */
	if (nr_valid <= nr_missing || (nr_missing && (e->external || (!e->base && s->csum)))) {
		f->copy = COPY_VALID;
		return;
	}
	f->new_base = e->own;
	f->new_external = false;
	f->copy = nr_missing ? COPY_MISSING : COPY_NOTHING;
}

static bool wants_copy(const struct fill *f, uint32_t sub)
{
	return (sub < f->first_sub || sub >= f->first_sub + f->nr_subs) && fill_old_has(f, sub) == (f->copy == COPY_VALID);
}

static fiber_fn int copy_run(struct fill *f, uint8_t *buf, uint32_t first, uint32_t nr)
{
	struct store *s = f->blob->store;
	uint32_t from = f->copy == COPY_VALID ? f->old_own : f->old_base;
	uint64_t in = (uint64_t)first * s->blocks_a_sub, blocks = (uint64_t)nr * s->blocks_a_sub;
	int rc = from ? bdev_read(s->bch, buf, cluster_block(s, from) + in, blocks) : 0;

	s->stats.nr_copied_subs += nr;
	if (!rc)
		rc = bdev_write(s->bch, from ? buf : s->zeroes, cluster_block(s, f->own) + in, blocks, 0);
	if (!rc && s->csum)
		rc = csum_copied(f->blob, f->index, from, f->own, first, nr, buf);
	return rc;
}

/* A copy that several fibers make, run by run: what a cluster has may be a hundred pieces.  Owner: the last of them. */
struct copy {
	struct fill *f;
	uint32_t next; /* sub-block from which on nobody has begun */
	unsigned nr_left;
	int rc;
};

/* The next run, of as much as fits a buffer; false: there is none. */
static bool copy_next(struct copy *c, uint32_t *ret_first, uint32_t *ret_nr)
{
	uint32_t end = c->f->blob->store->subs_a_cluster, nr = 0;

	while (c->next < end && !wants_copy(c->f, c->next))
		c->next++;
	*ret_first = c->next;
	while (nr < COPY_BYTES / BLOB_SUB_SIZE && c->next < end && wants_copy(c->f, c->next)) {
		c->next++;
		nr++;
	}
	*ret_nr = nr;
	return nr;
}

static void copy_start(struct fill *f);

static void copy_over(struct copy *c)
{
	struct fill *f = c->f;
	struct store *s = f->blob->store;
	struct list *it;
	int rc = c->rc;

	if (--c->nr_left)
		return;
	free(c);
	s->nr_copies--;
	while (s->nr_copies < COPIES_MAX && (it = list_pop(&s->copy_waiters)))
		copy_start(container_of(list_entry(it, struct waiter, link), struct fill, waiter));
	if (rc)
		fill_over(f, rc);
	else
		fill_go_on(f);
}

static void copy_fiber(void *arg)
{
	struct copy *c = arg;
	uint8_t *buf = dma_alloc(COPY_BYTES, PAGE_BYTES);
	uint32_t first, nr;

	while (!c->rc && (buf || c->nr_left == 1) && copy_next(c, &first, &nr)) {
		int rc = buf ? copy_run(c->f, buf, first, nr) : -ENOMEM; /* the last one has nobody to leave it to */

		if (rc)
			c->rc = rc;
	}
	if (buf)
		dma_free(buf);
	copy_over(c);
}

static void copy_start(struct fill *f)
{
	struct store *s = f->blob->store;
	struct copy *c = calloc(1, sizeof(*c)), runs = {.f = f};
	uint32_t first, nr, nr_fibers = 0;

	if (!c) {
		fill_over(f, -ENOMEM);
		return;
	}
	*c = (struct copy){.f = f, .nr_left = 1};
	s->nr_copies++;
	while (nr_fibers < COPY_FIBERS && copy_next(&runs, &first, &nr)) {
		c->nr_left++;
		if (fiber_spawn(s->owner, "blob-copy", copy_fiber, c)) {
			c->nr_left--;
			if (!nr_fibers)
				c->rc = -ENOMEM;
			break;
		}
		nr_fibers++;
	}
	copy_over(c);
}

void fill_copy_start(struct fill *f)
{
	struct store *s = f->blob->store;

	if (s->nr_copies < COPIES_MAX)
		copy_start(f);
	else
		list_add_tail(&s->copy_waiters, &f->waiter.link);
}

uint32_t fill_unshare_source(const struct fill *f, bool exclusive)
{
	bool has = fill_old_has(f, f->first_sub);

	for (uint32_t i = 1; i < f->nr_subs; i++)
		if (fill_old_has(f, f->first_sub + i) != has)
			return 0;
	if (has)
		return exclusive ? 0 : f->old_own;
	return f->old_base;
}

static void source_judge(struct fill *f);

static void retry_judge(struct waiter *w)
{
	source_judge(container_of(w, struct fill, waiter));
}

static void source_judge(struct fill *f)
{
	struct store *s = f->blob->store;
	int rc = 0;

	for (; s->csum && f->source != SOURCE_EXTERNAL && !rc && f->nr_judged < f->nr_subs; f->nr_judged++) {
		const uint8_t *sub = (const uint8_t *)f->iov[1].iov_base + f->nr_judged * BLOB_SUB_SIZE;

		rc = csum_edge(f, f->source, f->first_sub + f->nr_judged, sub, retry_judge);
		if (rc == -EAGAIN)
			return;
	}
	if (rc)
		fill_over(f, rc);
	else
		fill_write(f);
}

static void source_read(struct bdev_io *bio, int status)
{
	struct fill *f = container_of(bio, struct fill, bio);

	if (f->ext)
		fill_external_over(f);
	f->nr_judged = 0;
	if (status)
		fill_over(f, status);
	else
		source_judge(f);
}

void fill_read_source(struct fill *f)
{
	struct store *s = f->blob->store;

	f->read_own |= f->source == f->old_own;
	s->stats.nr_copied_subs += f->nr_subs;
	f->bio.done = source_read;
	f->bio.op = BDEV_READ;
	f->bio.flags = 0;
	f->bio.iov = f->iov + 1;
	f->bio.iovcnt = f->nr_iov;
	f->bio.offset_blocks = cluster_block(s, f->source) + f->in_block;
	f->bio.nr_blocks = f->nr_blocks;
	if (f->source == SOURCE_EXTERNAL)
		fill_read_external(f, f->in_block);
	else
		bdev_submit(s->bch, &f->bio);
}

/* --- what comes from an external bdev --- */

static void external_missing(void *arg)
{
	struct fill *f = arg;

	f->bio.done(&f->bio, -EIO);
}

static void external_ended(void *arg)
{
	struct fill *f = arg;

	f->bio.done(&f->bio, 0);
}

void fill_read_external(struct fill *f, uint64_t in_cluster)
{
	struct store *s = f->blob->store;
	struct external *ext = f->blob->external;
	uint64_t nr;

	assert(f->bio.iovcnt == 1);
	f->ext = ext_begin(&s->internal, ext);
	if (!f->ext) {
		task_run_later(&f->task, external_missing, f);
		return;
	}
	memset(f->bio.iov->iov_base, 0, f->bio.iov->iov_len);
	f->bio.offset_blocks = (f->index << s->cluster_block_shift) + in_cluster;
	if (!ext_range(ext, f->bio.offset_blocks, f->bio.nr_blocks, &nr)) {
		task_run_later(&f->task, external_ended, f);
		return;
	}
	f->edge_iov = (struct iovec){.iov_base = f->bio.iov->iov_base, .iov_len = nr << s->block_shift};
	f->bio.iov = &f->edge_iov;
	f->bio.nr_blocks = nr;
	ext_submit(f->ext, &f->bio);
}

void fill_external_over(struct fill *f)
{
	ext_end(f->ext);
	f->ext = NULL;
}

