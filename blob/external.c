/*
 * External bdevs: a blob may show the bytes of another bdev where it has none itself.  The bdev is known by its UUID, opened for reading
 * when it is there, as long as blobs show it, and nobody writes it (nor may anybody from then on).  Without it, or with less of it than
 * they show, reads of what is its fail.
 *
 * Every thread that reads from it has a channel to it, kept with the thread's channel to the store.
 */
#include "blob/internal.h"

/* A thread's way to an external bdev.  Owner: its blob_channel. */
struct ext_channel {
	struct list link;
	struct external *ext;
	struct bdev_channel *bch;
	uint32_t in_flight;
	struct leaving *leaving; /* who waits until nothing is in flight */
};

struct leaving {
	struct external *ext;
	struct fiber_wait wait;
	_Atomic uint32_t left;
};

/* --- reading, on any thread --- */

struct ext_channel *ext_begin(struct blob_channel *ch, struct external *ext)
{
	struct ext_channel *xc;
	struct list *it;

	if (!ext || !atomic_load_explicit(&ext->ready, memory_order_acquire))
		return NULL;
	list_for_each (it, &ch->externals) {
		xc = list_entry(it, struct ext_channel, link);
		if (xc->ext == ext) {
			xc->in_flight++;
			return xc;
		}
	}
	xc = calloc(1, sizeof(*xc)); /* the first read of a thread */
	if (!xc)
		return NULL;
	xc->bch = bdev_channel_get(ext->desc);
	if (!xc->bch) {
		free(xc);
		return NULL;
	}
	xc->ext = ext;
	xc->in_flight = 1;
	list_add_tail(&ch->externals, &xc->link);
	return xc;
}

static void channel_drop(struct ext_channel *xc)
{
	list_del(&xc->link);
	bdev_channel_put(xc->bch);
	free(xc);
}

static void left_one(struct leaving *l)
{
	if (atomic_fetch_sub(&l->left, 1) == 1)
		fiber_wake(&l->wait, 0);
}

void ext_end(struct ext_channel *xc)
{
	struct leaving *l = xc->leaving;

	if (--xc->in_flight || !l)
		return;
	channel_drop(xc);
	left_one(l);
}

void ext_submit(struct ext_channel *xc, struct bdev_io *bio)
{
	bio->offset_blocks <<= xc->ext->block_shift;
	bio->nr_blocks <<= xc->ext->block_shift;
	bdev_submit(xc->bch, bio);
}

void ext_channels_fini(struct blob_channel *ch)
{
	while (!list_empty(&ch->externals))
		channel_drop(list_entry(list_first(&ch->externals), struct ext_channel, link));
}

/* --- letting go --- */

static void channel_leave(void *ctx, void *arg)
{
	struct blob_channel *ch = ctx;
	struct leaving *l = arg;
	struct list *it, *next;

	list_for_each_safe (it, next, &ch->externals) {
		struct ext_channel *xc = list_entry(it, struct ext_channel, link);

		if (xc->ext != l->ext)
			continue;
		if (!xc->in_flight) {
			channel_drop(xc);
		} else {
			atomic_fetch_add(&l->left, 1);
			xc->leaving = l;
		}
	}
}

static void all_told(void *arg)
{
	left_one(arg);
}

/* Another thread may have found it with a blob that has let it go since. */
static void forget(struct external *ext)
{
	list_del(&ext->link);
	retire(ext->store, &ext->retired);
}

static void leave_fiber(void *arg)
{
	struct external *ext = arg;
	struct store *s = ext->store;
	struct leaving l = {.ext = ext, .left = 1};

	fiber_wait_init(&l.wait);
	channel_leave(&s->internal, &l);
	device_for_each_channel(s, channel_leave, &l, all_told);
	fiber_wait(&l.wait);
	bdev_close(ext->desc);
	ext->desc = NULL;
	ext->leaving = false;
	if (!ext->refs) {
		forget(ext);
	} else if (!s->stopping) {
		ext_find(s); /* another of that UUID may have come meanwhile */
	}
	store_fiber_over(s);
}

static void leave(struct external *ext)
{
	struct store *s = ext->store;

	if (ext->leaving || !ext->desc)
		return;
	ext->leaving = true;
	atomic_store(&ext->ready, false);
	s->nr_fibers++;
	if (fiber_spawn(s->owner, "blob-external", leave_fiber, ext)) {
		s->nr_fibers--; /* it stays open, unused, until the store is closed */
		log_error("store %s: no memory to let an external bdev go", s->super.name);
	}
}

static uint64_t clusters_of(const struct store *s, const struct bdev *bdev)
{
	return (bdev_nr_blocks(bdev) * bdev->block_size + (1ull << s->cluster_shift) - 1) >> s->cluster_shift;
}

/* Where it should have bytes and ends is not zero: nobody knows what was there. */
static bool is_cut(const struct external *ext, const struct bdev *bdev)
{
	uint64_t nr = clusters_of(ext->store, bdev);
	struct list *it;

	list_for_each (it, &ext->store->blobs) {
		const struct blob *b = list_entry(it, struct blob, link);

		if (b->external != ext || b->external_clusters <= nr)
			continue;
		log_error("store %s: bdev %s is shorter than volume %s shows of it (%llu bytes, not %llu); what shows it is degraded until "
			  "the bdev has its size again", ext->store->super.name, bdev->name, b->name,
			  (unsigned long long)(bdev_nr_blocks(bdev) * bdev->block_size),
			  (unsigned long long)b->external_clusters << ext->store->cluster_shift);
		return true;
	}
	return false;
}

static void ext_event(struct bdev *bdev, enum bdev_event event, void *arg)
{
	struct external *ext = arg;

	if (event == BDEV_EVENT_REMOVE)
		log_warning("store %s: bdev %s is gone; volumes that show it are degraded", ext->store->super.name, bdev->name);
	else if (!is_cut(ext, bdev))
		return;
	leave(ext);
}

/* --- finding --- */

static int ext_open(struct external *ext)
{
	struct store *s = ext->store;
	char text[UUID_STR_LEN];
	struct bdev *bdev;
	int rc;

	if (ext->leaving)
		return -EBUSY;
	if (ext->desc)
		return 0;
	uuid_unparse_lower(ext->uuid, text);
	rc = bdev_open(text, false, ext_event, ext, &ext->desc);
	if (rc)
		return rc;
	bdev = bdev_desc_bdev(ext->desc);
	if (bdev->block_size > s->super.block_size)
		rc = -EINVAL;
	else if (is_cut(ext, bdev))
		rc = -ERANGE;
	else
		rc = bdev_claim_still(ext->desc, "external snapshot");
	if (rc) {
		bdev_close(ext->desc);
		ext->desc = NULL;
		return rc;
	}
	ext->block_shift = s->block_shift - __builtin_ctz(bdev->block_size);
	ext->nr_blocks = bdev_nr_blocks(bdev) >> ext->block_shift;
	atomic_store_explicit(&ext->ready, true, memory_order_release);
	return 0;
}

void ext_find(struct store *s)
{
	char text[UUID_STR_LEN];
	struct list *it;

	list_for_each (it, &s->externals) {
		struct external *ext = list_entry(it, struct external, link);

		/* What is not there is missing until it comes. */
		if (ext->refs && !ext->desc && !ext->leaving && ext_open(ext) == -EBUSY) {
			uuid_unparse_lower(ext->uuid, text);
			log_error("store %s: bdev %s may be written by others, so the volumes that show it are degraded until they "
				  "let it go", s->super.name, text);
		}
	}
}

void store_find_externals(struct store *s)
{
	if (!s->stopping)
		ext_find(s);
}

struct external *ext_get(struct store *s, const uuid_t uuid)
{
	struct external *ext;
	struct list *it;

	list_for_each (it, &s->externals) {
		ext = list_entry(it, struct external, link);
		if (!uuid_compare(ext->uuid, uuid)) {
			ext->refs++;
			return ext;
		}
	}
	ext = calloc(1, sizeof(*ext));
	if (!ext)
		return NULL;
	ext->store = s;
	ext->refs = 1;
	uuid_copy(ext->uuid, uuid);
	list_add_tail(&s->externals, &ext->link);
	return ext;
}

void ext_put(struct external *ext)
{
	if (!ext || --ext->refs)
		return;
	if (ext->desc && !ext->store->stopping) {
		leave(ext);
	} else if (!ext->desc) {
		forget(ext);
	} /* else it goes with the store */
}

void ext_destroy_all(struct store *s)
{
	struct list *it;

	while ((it = list_pop(&s->externals))) {
		struct external *ext = list_entry(it, struct external, link);

		if (ext->desc)
			bdev_close(ext->desc);
		free(ext);
	}
}

fiber_fn void ext_wait_left(struct store *s, const char *bdev_name)
{
	struct list *it;

again:
	list_for_each (it, &s->externals) {
		struct external *ext = list_entry(it, struct external, link);
		struct bdev *bdev = ext->leaving ? bdev_find(bdev_name) : NULL;

		if (bdev && !uuid_compare(ext->uuid, bdev->uuid)) {
			fiber_sleep(1000); /* whoever reads from it ends soon, or the bdev is of no use */
			goto again;
		}
	}
}

int ext_choose(struct store *s, const char *bdev_name, struct blob_image *image, struct external **ret_ext)
{
	struct bdev *bdev = bdev_find(bdev_name);
	uint64_t nr;
	int rc;

	*ret_ext = NULL;
	if (!bdev)
		return -ENODEV;
	if (bdev == s->bdev || bdev->block_size > s->super.block_size || uuid_is_null(bdev->uuid))
		return -EINVAL;
	if (bdev_claim_of(bdev) == BDEV_CLAIM_WRITER)
		return -EBUSY;
	nr = clusters_of(s, bdev);
	if (!image->nr_clusters)
		image->nr_clusters = nr;
	image->flags |= BLOB_FLAG_EXTERNAL;
	image->external_clusters = nr < image->nr_clusters ? nr : image->nr_clusters;
	uuid_copy(image->external, bdev->uuid);
	*ret_ext = ext_get(s, image->external);
	rc = *ret_ext ? ext_open(*ret_ext) : -ENOMEM;
	if (!rc)
		return 0;
	ext_put(*ret_ext);
	*ret_ext = NULL;
	return rc;
}

/* --- of a blob --- */

int blob_take_external(struct blob *b, const uuid_t uuid, uint64_t nr_clusters)
{
	struct external *old = b->external, *ext = NULL;

	if (nr_clusters && (!old || uuid_compare(old->uuid, uuid))) {
		ext = ext_get(b->store, uuid);
		if (!ext)
			return -ENOMEM;
		atomic_store(&b->external, ext);
	}
	atomic_store(&b->external_clusters, nr_clusters);
	if (ext)
		ext_put(old); /* else it is kept: another thread may just be reading there */
	return 0;
}

bool blob_same_external(const struct blob *a, const struct blob *b)
{
	struct external *x = a->external, *y = b->external;

	if (!a->external_clusters || !b->external_clusters)
		return !a->external_clusters == !b->external_clusters;
	return x == y && a->external_clusters == b->external_clusters;
}

/* What of an external bdev blocks of a blob are: *ret_nr of them; false: zeros, since it ends before them. */
bool ext_range(const struct external *ext, uint64_t offset, uint64_t nr, uint64_t *ret_nr)
{
	*ret_nr = nr;
	if (offset >= ext->nr_blocks)
		return false;
	if (nr > ext->nr_blocks - offset)
		*ret_nr = ext->nr_blocks - offset;
	return true;
}

fiber_fn int ext_read_wait(struct blob *b, void *buf, uint64_t offset, uint64_t nr)
{
	struct store *s = b->store;
	struct external *ext = b->external;
	struct ext_channel *xc = ext_begin(&s->internal, ext);
	struct iovec iov = {.iov_base = buf};
	struct bdev_io bio = {.op = BDEV_READ, .iov = &iov, .iovcnt = 1, .offset_blocks = offset << (xc ? ext->block_shift : 0)};
	uint64_t some;
	int rc = 0;

	if (!xc)
		return -EIO;
	memset(buf, 0, nr << s->block_shift);
	if (ext_range(ext, offset, nr, &some)) {
		iov.iov_len = some << s->block_shift;
		bio.nr_blocks = some << ext->block_shift;
		rc = bdev_submit_wait(xc->bch, &bio);
	}
	ext_end(xc);
	return rc;
}
