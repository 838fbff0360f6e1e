/*
 * Inflating: all that a blob shares becomes its own, a run of sub-blocks at a time, through the same first writes as a host's, so that
 * both may go on at once.  Its size is promised to it from the beginning; thick and without a parent it becomes in
 * one record at the end.  What has been copied stays copied, so asked again it goes on where it was.
 */
#include "blob/internal.h"

#define RUN_SUBS (ZERO_BYTES / BLOB_SUB_SIZE)

/* The next run of a cluster, from sub-block *first on, that the blob shares with others: how many; 0: none. */
static uint32_t shared_run(struct blob *b, uint64_t index, uint32_t *first)
{
	struct store *s = b->store;
	struct node *leaf;
	bool shared, exclusive;
	struct entry e = map_entry(b, index, &leaf, &shared);
	uint32_t nr = 0;

	exclusive = !shared && (!e.own || s->counts[e.own] == 1);
	for (uint32_t sub = *first; sub < s->subs_a_cluster && nr < RUN_SUBS; sub++) {
		bool has = entry_has(&e, sub), want = has ? !exclusive : e.base || e.external;

		if (nr && (!want || has != entry_has(&e, *first)))
			break;
		if (!want)
			continue;
		if (!nr)
			*first = sub;
		nr++;
	}
	return nr;
}

static fiber_fn int unshare_run(struct blob *b, uint64_t index, uint32_t first, uint32_t nr, uint8_t *buf)
{
	struct store *s = b->store;
	struct iovec iov = {.iov_base = buf, .iov_len = (size_t)nr * BLOB_SUB_SIZE};
	struct blob_io io = {.blob = b,
			     .op = BLOB_WRITE,
			     .flags = BLOB_IO_UNSHARE,
			     .iov = &iov,
			     .iovcnt = 1,
			     .offset_blocks = (index << s->cluster_block_shift) + first * s->blocks_a_sub,
			     .nr_blocks = nr * s->blocks_a_sub};

	return blob_submit_wait(&s->internal, &io);
}

static fiber_fn int unshare_cluster(struct blob *b, uint64_t index, uint8_t *buf, const struct progress *progress)
{
	struct store *s = b->store;
	uint32_t first = 0, nr;
	int rc = 0;

	while (!(rc = rc ? rc : map_load(b, index)) && index < b->nr_clusters && (nr = shared_run(b, index, &first))) {
		if (s->stopping || (progress && progress->cancel))
			return s->stopping ? -ESHUTDOWN : -ECANCELED;
		rc = unshare_run(b, index, first, nr, buf);
		pace(s, 2ull * nr * BLOB_SUB_SIZE);
	}
	return rc == -ERANGE ? 0 : rc; /* it shrank meanwhile */
}

static fiber_fn int unshare_all(struct blob *b, struct progress *progress)
{
	uint8_t *buf = dma_alloc(ZERO_BYTES, PAGE_BYTES);
	uint64_t index = 0;
	int rc = buf ? 0 : -ENOMEM;

	pace_begin(b->store);
	for (; !rc && !(rc = map_next(b, index, b->nr_clusters, &index)) && index < b->nr_clusters; index++) {
		struct node *leaf;
		bool shared;

		rc = map_load(b, index);
		if (rc)
			break;
		(void)map_entry(b, index, &leaf, &shared);
		rc = leaf && leaf->lost ? -EIO : unshare_cluster(b, index, buf, progress);
		if (progress) {
			progress->total = b->nr_clusters;
			progress->done = index + 1;
		}
	}
	pace_end(b->store);
	dma_free(buf);
	return rc;
}

/* From now on it counts as thick, as far as space goes. */
static fiber_fn int promise_size(struct blob *b)
{
	struct store *s = b->store;
	int rc;

	do {
		figures_recount(b);
		b->inflating = true;
		blob_promise(b);
		if (s->nr_promised <= s->nr_avail)
			return 0;
		b->inflating = false;
		blob_promise(b);
		rc = promise_wait(s, thick_promise(s, b->nr_clusters) - b->figures.nr_own);
	} while (!rc);
	return rc;
}

/* @first_new_id: of the blobs made since it began. */
static fiber_fn int become_thick(struct blob *b, uint64_t first_new_id)
{
	struct store *s = b->store;
	struct admission admission = {0};
	struct blob_image image;
	int rc = admit_wait(s, &admission, 2, OP_FREEING);

	if (rc)
		return rc;
	blob_to_image(b, &image);
	image.flags |= BLOB_FLAG_THICK;
	image.flags &= ~BLOB_FLAG_EXTERNAL; /* nothing of it shows any more */
	journal_begin(s, 64 + BLOB_PAYLOAD_MAX);
	rec_blob(s, REC_BLOB_ATTR, b->slot, &image);
	if (b->parent_id < first_new_id) /* not a snapshot that was taken meanwhile */
		rec_blob_parent(s, b, 0);
	journal_end(s);
	admit_release(s, &admission);
	return journal_commit_wait(s, false) ? -EIO : 0;
}

fiber_fn int blob_inflate(struct blob *b, struct progress *progress)
{
	uint64_t first_new_id = b->store->super.next_blob_id;
	int rc;

	if (b->frozen)
		return -EPERM;
	if (b->inflating)
		return -EBUSY;
	blob_open(b);
	fiber_lock(&b->mutex);
	rc = b->flags & BLOB_FLAG_THICK ? 0 : promise_size(b);
	fiber_unlock(&b->mutex);
	if (!rc)
		rc = unshare_all(b, progress);
	if (!rc) {
		fiber_lock(&b->mutex);
		rc = become_thick(b, first_new_id);
		fiber_unlock(&b->mutex);
	}
	b->inflating = false;
	blob_promise(b);
	blob_close(b);
	return rc;
}
