/*
 * Shallow copies: what a blob has itself, and not from the snapshot it was made from, is written to another bdev, each cluster in its
 * place.  What the blob no longer has and the snapshot does is written as zeros, so that over a copy of the snapshot it makes the blob.
 */
#include "blob/internal.h"

#define COPY_RANGES 64u
#define COPY_BYTES  ZERO_BYTES

struct copy {
	struct blob *b;
	struct bdev_desc *desc;
	struct bdev_channel *ch;
	struct progress *progress;
	uint8_t *buf;
	bool target_goes; /* who unregisters it waits for us */
};

static bool ended(const struct copy *c)
{
	return c->b->store->stopping || (c->progress && c->progress->cancel);
}

static fiber_fn int copy_piece(struct copy *c, uint64_t block, uint64_t nr)
{
	struct store *s = c->b->store;
	struct iovec iov = {.iov_base = c->buf, .iov_len = nr << s->block_shift};
	struct blob_io io = {
		.blob = c->b, .op = BLOB_READ, .iov = &iov, .iovcnt = 1, .offset_blocks = block, .nr_blocks = nr};
	int rc = blob_submit_wait(&s->internal, &io);

	return rc ? rc : bdev_write(c->ch, c->buf, block, nr, 0);
}

static fiber_fn int copy_range(struct copy *c, const struct blob_range *range)
{
	struct store *s = c->b->store;
	uint64_t block = range->offset_bytes >> s->block_shift, end = block + (range->len_bytes >> s->block_shift);
	uint64_t a_cluster = 1ull << s->cluster_block_shift, most = COPY_BYTES >> s->block_shift;
	int rc = 0;

	while (!rc && block < end) {
		uint64_t left = a_cluster - block % a_cluster, nr = left < most ? left : most;
		struct bdev_io zero = {.op = BDEV_WRITE_ZEROES, .offset_blocks = block, .nr_blocks = nr};

		if (c->target_goes)
			return -ENODEV;
		if (ended(c))
			return -ECANCELED;
		rc = range->mapped ? copy_piece(c, block, nr) : bdev_submit_wait(c->ch, &zero);
		block += nr;
		if (!rc && c->progress && range->mapped && block % a_cluster == 0)
			c->progress->done++;
		pace(s, 2 * nr << s->block_shift);
	}
	return rc;
}

static fiber_fn int copy_all(struct copy *c)
{
	struct blob_diff diff = {.to = c->b, .from = blob_parent(c->b), .whole_clusters = true};
	struct blob_range ranges[COPY_RANGES];
	uint32_t nr = COPY_RANGES;
	int rc = blob_need(diff.from);

	if (rc)
		return rc;
	while (!rc && nr == COPY_RANGES) {
		rc = blob_diff_next(&diff, ranges, COPY_RANGES, &nr);
		for (uint32_t i = 0; i < nr && !rc; i++)
			rc = copy_range(c, &ranges[i]);
	}
	blob_unneed(diff.from);
	if (rc == -ESHUTDOWN)
		rc = -ECANCELED;
	return rc ? rc : bdev_flush(c->ch);
}

static void target_event(struct bdev *bdev, enum bdev_event event, void *arg)
{
	struct copy *c = arg;

	if (event == BDEV_EVENT_REMOVE)
		c->target_goes = true;
}

static int open_target(struct copy *c, const char *bdev_name)
{
	struct store *s = c->b->store;
	struct bdev *bdev;
	int rc = bdev_open(bdev_name, true, target_event, c, &c->desc);

	if (rc)
		return rc;
	bdev = bdev_desc_bdev(c->desc);
	if (bdev == s->bdev || bdev->block_size != s->super.block_size || bdev_nr_blocks(bdev) < blob_nr_blocks(c->b))
		return -EINVAL;
	if (bdev->read_only)
		return -EROFS;
	rc = bdev_claim(c->desc, "shallow copy");
	if (rc)
		return rc;
	c->ch = bdev_channel_get(c->desc);
	return c->ch ? 0 : -ENOMEM;
}

fiber_fn int blob_shallow_copy(struct blob *b, const char *bdev_name, struct progress *progress)
{
	struct copy c = {.b = b, .progress = progress};
	struct store *s = b->store;
	int rc;

	if (!b->frozen)
		return -EPERM;
	if (s->stopping)
		return -ECANCELED;
	blob_open(b);
	s->nr_fibers++; /* the store waits for it before it closes */
	pace_begin(s);
	if (progress)
		progress->total = figures_differ(b);
	c.buf = dma_alloc(COPY_BYTES, PAGE_BYTES);
	rc = c.buf ? open_target(&c, bdev_name) : -ENOMEM;
	if (!rc)
		rc = copy_all(&c);
	if (!rc && progress)
		progress->total = progress->done;
	if (c.ch)
		bdev_channel_put(c.ch);
	if (c.desc)
		bdev_close(c.desc);
	if (c.buf)
		dma_free(c.buf);
	pace_end(s);
	blob_close(b);
	store_fiber_over(s);
	return rc;
}
