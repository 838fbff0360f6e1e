/*
 * Operations on blobs: create, delete, resize, rename, attributes.  Each looks at what may be done, makes its
 * record in one step, and answers when that is durable.
 */
#include "blob/internal.h"

/* Makes a version 4 UUID from the runtime's randomness, so that a simulation's seed decides it. */
void store_new_uuid(uuid_t uuid)
{
	rand_bytes(uuid, 16);
	uuid[6] = (uuid[6] & 0x0f) | 0x40;
	uuid[8] = (uuid[8] & 0x3f) | 0x80;
}

int blob_check_name(struct store *s, const char *name, const struct blob *but)
{
	struct blob *other;

	if (!name || !name[0] || strlen(name) > BLOB_NAME_MAX)
		return -EINVAL;
	other = store_find_blob(s, name);
	return other && other != but ? -EEXIST : 0;
}

uint32_t blob_free_slot(struct store *s)
{
	for (; s->slot_hint < s->nr_slots; s->slot_hint++)
		if (!s->slots[s->slot_hint])
			return s->slot_hint;
	return s->nr_slots;
}

static int size_in_clusters(const struct store *s, uint64_t size_bytes, uint64_t *ret_nr)
{
	uint64_t nr =
		(size_bytes >> s->cluster_shift) + ((size_bytes & ((1ull << s->cluster_shift) - 1)) != 0);

	*ret_nr = nr;
	return nr > UINT32_MAX - 1 ? -EFBIG : 0;
}

fiber_fn int promise_wait(struct store *s, uint64_t nr)
{
	int rc = 0;

	s->nr_space_urgent++;
	pace_hurry(s);
	while (!rc && clusters_unpromised(s) < nr) {
		if (!space_is_coming(s) || nr > s->nr_data_clusters)
			rc = -ENOSPC;
		else if (!store_writable(s))
			rc = -EROFS;
		if (rc)
			break;
		journal_demand(s);
		fiber_cond_signal(&s->free_wake);
		fiber_cond_timedwait(&s->freed_cond, 1000);
	}
	s->nr_space_urgent--;
	return rc;
}

static int check_create(struct store *s, const struct blob_create_opts *opts)
{
	int rc = blob_check_name(s, opts->name, NULL);

	if (!rc && !uuid_is_null(opts->uuid) && store_find_blob_uuid(s, opts->uuid))
		rc = -EEXIST;
	return rc;
}

static void create_image(struct store *s, const struct blob_create_opts *opts, uint64_t nr_clusters,
			 struct blob_image *image)
{
	*image = (struct blob_image){
		.id = s->super.next_blob_id,
		.nr_clusters = nr_clusters,
		.flags = opts->thick ? BLOB_FLAG_THICK : 0,
		.name_len = strlen(opts->name),
		.created_ms = clock_wall_ms(),
		.name = opts->name,
		.xattrs = (const uint8_t *)"",
	};
	uuid_copy(image->uuid, opts->uuid);
	if (uuid_is_null(image->uuid))
		store_new_uuid(image->uuid);
}

fiber_fn int blob_create(struct store *s, const struct blob_create_opts *opts, struct blob **ret_blob)
{
	struct admission admission = {.control = true};
	struct external *ext = NULL;
	struct blob_image image;
	uint64_t nr_clusters;
	uint32_t slot;
	int rc;

	rc = check_create(s, opts);
	if (!rc)
		rc = size_in_clusters(s, opts->size_bytes, &nr_clusters);
	if (!rc)
		rc = admit_wait(s, &admission, 4, opts->thick ? OP_THICK : OP_THIN);
	if (rc)
		return rc;
	if (opts->thick)
		rc = promise_wait(s, thick_promise(s, nr_clusters));
	if (!rc && opts->external)
		ext_wait_left(s, opts->external); /* last: another volume may let the bdev go at any time */
	if (!rc)
		rc = check_create(s, opts); /* somebody may have taken the name meanwhile */
	if (rc) {
		admit_release(s, &admission);
		return rc;
	}
	create_image(s, opts, nr_clusters, &image);
	if (opts->external)
		rc = opts->thick ? -EINVAL : ext_choose(s, opts->external, &image, &ext);
	if (rc) {
		admit_release(s, &admission);
		return rc;
	}
	slot = blob_free_slot(s);
	journal_begin(s, 8 + BLOB_PAYLOAD_MAX);
	rec_blob(s, REC_BLOB_CREATE, slot, &image);
	journal_end(s);
	ext_put(ext); /* the blob has one of its own */
	admit_release(s, &admission);
	if (!store_writable(s))
		return -EIO;
	*ret_blob = s->slots[slot];
	blob_promise(*ret_blob);
	blob_open(*ret_blob); /* nobody deletes it before its creator knows it */
	rc = journal_commit_wait(s, false);
	blob_close(*ret_blob);
	return rc ? -EIO : 0;
}

/* A tail that is still being cut off belongs to the past: what comes next waits for it. */
fiber_fn int blob_wait_trimmed(struct blob *b)
{
	struct store *s = b->store;

	while (b->trimming) {
		if (!store_writable(s))
			return -EROFS;
		fiber_cond_timedwait(&s->freed_cond, 1000);
	}
	return 0;
}

int blob_need(struct blob *b)
{
	if (b && b->leaving)
		return -EAGAIN;
	if (b)
		b->nr_needs++;
	return 0;
}

void blob_unneed(struct blob *b)
{
	if (b)
		b->nr_needs--;
}

int blob_leave(struct blob *b)
{
	if (b->nr_needs)
		return -EBUSY;
	b->leaving = true;
	return 0;
}

fiber_fn int blob_delete(struct blob *b)
{
	struct store *s = b->store;
	struct admission admission = {.control = true};
	int rc;

	if (b->nr_open > b->trimming || b->nr_needs || b->deleting) {
		b->leaving = false;
		return -EBUSY;
	}
	blob_open(b);
	b->leaving = true;
	rc = blob_wait_trimmed(b);
	if (!rc)
		rc = blob_part_children(b);
	do {
		admit_release(s, &admission);
		while (b->nr_walks)
			fiber_cond_timedwait(&s->freed_cond, 1000);
		if (!rc)
			rc = admit_wait(s, &admission, 4 + b->nr_children, OP_FREEING);
	} while (b->nr_walks);
	blob_close(b);
	b->leaving = false;
	if (!rc && b->nr_open)
		rc = -EBUSY;
	if (rc) {
		admit_release(s, &admission);
		return rc;
	}
	if (b->slot < s->slot_hint)
		s->slot_hint = b->slot;
	journal_begin(s, 64);
	rec_blob_delete(s, b);
	journal_end(s);
	admit_release(s, &admission);
	if (BLOB_MUTANT(DELETE_BEFORE_COMMIT))
		return 0;
	return journal_commit_wait(s, false) ? -EIO : 0;
}

fiber_fn int blob_resize(struct blob *b, uint64_t size_bytes)
{
	struct store *s = b->store;
	struct admission admission = {.control = true};
	uint64_t nr, old;
	int rc = size_in_clusters(s, size_bytes, &nr);

	if (rc)
		return rc;
	blob_open(b);
	fiber_lock(&b->mutex);
	rc = b->frozen ? -EPERM : blob_wait_trimmed(b);
	old = b->nr_clusters;
	if (!rc)
		rc = admit_wait(s, &admission, 2, nr <= old ? OP_FREEING : OP_THICK);
	old = b->nr_clusters;
	if (!rc && blob_is_thick(b) && nr > old)
		rc = promise_wait(s, thick_promise(s, nr) - thick_promise(s, old));
	old = b->nr_clusters; /* after the last suspension */
	if (!rc && b->trimming)
		rc = -EBUSY; /* another shrink came in between */
	if (!rc && b->flags & BLOB_FLAG_TAIL && nr > old)
		rc = -EIO; /* an old tail is still there and could not be cut off */
	if (rc || nr == old)
		goto out_close;
	journal_begin(s, 64);
	rec_blob_resize(s, b, nr);
	journal_end(s);
	if (nr < old) {
		blob_trim_start(b);
		/* First writes to what is cut off must not wait for the space that cutting it off would give.
		 */
		waiters_kick(&s->space_waiters);
		waiters_kick(&s->admit_waiters);
	}
	blob_promise(b);
	admit_release(s, &admission);
	rc = !BLOB_MUTANT(RESIZE_BEFORE_COMMIT) && journal_commit_wait(s, false) ? -EIO : 0;
out_close:
	admit_release(s, &admission);
	fiber_unlock(&b->mutex);
	blob_close(b);
	return rc;
}

fiber_fn int blob_set_attrs(struct blob *b, const struct blob_image *change)
{
	struct store *s = b->store;

	journal_begin(s, 8 + BLOB_PAYLOAD_MAX);
	rec_blob(s, REC_BLOB_ATTR, b->slot, change);
	journal_end(s);
	if (BLOB_MUTANT(ATTRIBUTES_BEFORE_COMMIT))
		return 0;
	return journal_commit_wait(s, false) ? -EIO : 0;
}

fiber_fn int blob_rename(struct blob *b, const char *name)
{
	struct store *s = b->store;
	struct admission admission = {.control = true};
	struct blob_image image;
	int rc = blob_check_name(s, name, b);

	if (rc)
		return rc;
	blob_open(b);
	rc = admit_wait(s, &admission, 2, OP_FREEING);
	if (!rc)
		rc = blob_check_name(s, name, b);
	if (!rc) {
		blob_to_image(b, &image);
		image.name = name;
		image.name_len = strlen(name);
		rc = blob_set_attrs(b, &image);
	}
	admit_release(s, &admission);
	blob_close(b);
	return rc;
}

/* The blob's attributes with one set, or removed when value is NULL; the new length or -errno. */
int blob_xattrs_with(const struct blob *b, const char *key, const void *value, uint16_t value_len,
		       uint8_t *out)
{
	uint8_t key_len = strlen(key), len;
	uint32_t at = 0;
	bool found = false;
	const void *v;
	const char *k;
	uint16_t n;

	for (uint32_t i = 0; blob_xattr_at(b, i, &k, &len, &v, &n); i++) {
		if (len == key_len && !memcmp(k, key, len)) {
			found = true;
			continue;
		}
		memcpy(out + at, k - 4, 4u + len + n);
		at += 4u + len + n;
	}
	if (!value)
		return found ? (int)at : -ENODATA;
	if (at + 4u + key_len + value_len > BLOB_XATTR_MAX)
		return -E2BIG;
	out[at] = key_len;
	out[at + 1] = 0;
	put16(out + at + 2, value_len);
	memcpy(out + at + 4, key, key_len);
	memcpy(out + at + 4 + key_len, value, value_len);
	return at + 4 + key_len + value_len;
}

fiber_fn int blob_set_xattr(struct blob *b, const char *key, const void *value, uint16_t value_len)
{
	struct store *s = b->store;
	struct admission admission = {.control = true};
	uint8_t xattrs[BLOB_XATTR_MAX];
	struct blob_image image;
	int rc;

	if (!key || !key[0] || strlen(key) > 255)
		return -EINVAL;
	blob_open(b);
	rc = admit_wait(s, &admission, 2, OP_FREEING);
	if (!rc)
		rc = blob_xattrs_with(b, key, value, value_len, xattrs);
	if (rc >= 0) {
		blob_to_image(b, &image);
		image.xattrs = xattrs;
		image.xattr_len = rc;
		rc = blob_set_attrs(b, &image);
	}
	admit_release(s, &admission);
	blob_close(b);
	return rc;
}
