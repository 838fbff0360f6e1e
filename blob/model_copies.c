/*
 * The model's operations on blobs as wholes.  One that a power cut kept from being answered is pending: afterwards it must have
 * happened whole, or not at all, and what is there tells which.
 */
#include "blob/model.h"

#define STATES_BYTES (MAX_BLOCKS * sizeof(struct state))

static struct model_blob *some_blob(struct model *m)
{
	return &m->blobs[model_pick(NR_BLOBS)];
}

static struct state *states_of(const struct model_blob *mb)
{
	struct state *states = malloc(STATES_BYTES);

	memcpy(states, mb->block, STATES_BYTES);
	return states;
}

static bool pend(struct model *m, struct pending pending)
{
	if (m->cutting)
		m->pending = pending;
	else
		free(pending.after);
	return m->cutting;
}

/* --- made --- */

static void made(struct model_blob *mb, uint64_t nr_blocks, struct state *states)
{
	mb->nr_blocks = nr_blocks;
	mb->block = states;
}

static void copied(struct model *m, struct model_blob *from, struct model_blob *to, int rc)
{
	struct pending pending = {.kind = PENDING_MADE,
				  .mb = to,
				  .after = states_of(from),
				  .nr_blocks_after = from->nr_blocks};

	if (rc) {
		to->blob = NULL;
		if (!pend(m, pending))
			ck_assert_int_eq(rc, -ENOSPC);
		return;
	}
	blob_open(to->blob);
	made(to, from->nr_blocks, pending.after);
}

bool model_snapshot(struct model *m)
{
	struct model_blob *from = some_blob(m), *to = some_blob(m);
	int rc;

	if (!from->blob || to->blob || from->snapshot)
		return false;
	if (model_pick(2))
		model_verify(m, from, 0, from->nr_blocks, false);
	snprintf(to->name, sizeof(to->name), "snap-%u", m->nr_names++);
	rc = blob_snapshot(from->blob, &(struct blob_copy_opts){.name = to->name}, &to->blob);
	if (!rc)
		model_flushed(m); /* a snapshot is durable with what it holds */
	to->snapshot = true;
	copied(m, from, to, rc);
	return true;
}

bool model_clone(struct model *m)
{
	struct model_blob *from = some_blob(m), *to = some_blob(m);
	int rc;

	if (!from->blob || to->blob)
		return false;
	snprintf(to->name, sizeof(to->name), "clone-%u", m->nr_names++);
	rc = blob_clone(from->blob, &(struct blob_copy_opts){.name = to->name}, &to->blob);
	if (!from->snapshot) {
		ck_assert_int_eq(rc, -EPERM);
		to->blob = NULL;
		return false;
	}
	to->snapshot = false;
	copied(m, from, to, rc);
	return true;
}

/* --- changed --- */

static void changed(struct model *m, struct pending pending, int rc)
{
	if (rc) {
		if (!pend(m, pending))
			ck_assert_int_eq(rc, -ENOSPC);
		return;
	}
	free(pending.mb->block);
	made(pending.mb, pending.nr_blocks_after, pending.after);
}

bool model_revert(struct model *m)
{
	struct model_blob *to = some_blob(m), *from = some_blob(m);
	struct pending pending = {.kind = PENDING_REVERTED, .mb = to};

	if (!from->blob || !to->blob || to == from || !from->snapshot || to->snapshot)
		return false;
	pending.parent_after = from->blob->id;
	if (m->cutting && (to->blob->parent_id == pending.parent_after || !store_writable(m->b.store)))
		return false; /* nothing would tell whether it happened: memory may be ahead of what is durable */
	pending.nr_blocks_after = from->nr_blocks;
	pending.after = states_of(from);
	changed(m, pending, blob_revert(to->blob, from->blob));
	return true;
}

bool model_set_parent(struct model *m)
{
	struct model_blob *mb = some_blob(m), *to = some_blob(m);
	struct pending pending = {.kind = PENDING_REVERTED, .mb = mb, .nr_blocks_after = mb->nr_blocks};
	struct blob_diff diff = {.to = mb->blob, .whole_clusters = true};
	struct blob_range range;
	uint32_t nr;

	if (!mb->blob || !to->blob || mb->snapshot || !to->snapshot || mb->nr_blocks != to->nr_blocks ||
	    blob_is_thick(mb->blob) || blob_parent(mb->blob) == to->blob || (m->cutting && !store_writable(m->b.store)))
		return false;
	pending.parent_after = to->blob->id;
	pending.after = states_of(to);
	diff.from = blob_parent(mb->blob);
	while (!blob_diff_next(&diff, &range, 1, &nr) && nr)
		memcpy(pending.after + range.offset_bytes / BLOCK, mb->block + range.offset_bytes / BLOCK,
		       range.len_bytes / BLOCK * sizeof(struct state));
	changed(m, pending, blob_set_parent(mb->blob, to->blob));
	return true;
}

bool model_resize(struct model *m)
{
	struct model_blob *mb = some_blob(m);
	struct pending pending = {.kind = PENDING_RESIZED, .mb = mb};

	if (!mb->blob || mb->snapshot)
		return false;
	pending.nr_blocks_after = (1 + model_pick(MAX_BLOCKS / 64)) * 64;
	pending.after = states_of(mb);
	for (uint64_t i = pending.nr_blocks_after; i < MAX_BLOCKS; i++)
		pending.after[i] = (struct state){0};
	changed(m, pending, blob_resize(mb->blob, pending.nr_blocks_after * BLOCK));
	return true;
}

bool model_inflate(struct model *m)
{
	struct model_blob *mb = some_blob(m);
	struct progress progress = {.cancel = !model_pick(4)};
	uint64_t exclusive;
	struct blob_info info;
	int rc;

	if (!mb->blob || mb->snapshot)
		return false;
	rc = blob_inflate(mb->blob, &progress);
	if (rc) {
		ck_assert(rc == -ENOSPC || (rc == -ECANCELED && progress.cancel) || m->cutting);
		if (m->cutting) /* whatever follows fails, and would hide what this left */
			m->pending.kind = PENDING_SAME;
		return true;
	}
	blob_get_info(mb->blob, &info);
	ck_assert(info.thick && !info.parent_id);
	rc = blob_exclusive(mb->blob, &exclusive);
	ck_assert(!rc || (rc == -EIO && m->cutting)); /* then nodes cannot be read */
	if (!m->cutting)
		ck_assert_uint_eq(exclusive, info.nr_named_clusters);
	return true;
}

bool model_decouple(struct model *m)
{
	struct model_blob *mb = some_blob(m);
	int rc;

	if (!mb->blob)
		return false;
	rc = blob_parent(mb->blob) ? 0 : -EINVAL;
	if (blob_decouple(mb->blob) != rc) {
		ck_assert(m->cutting);
		m->pending.kind = PENDING_SAME;
	}
	return true;
}

/* --- gone --- */

static void gone(struct model_blob *mb)
{
	mb->blob = NULL;
	free(mb->block);
	mb->block = NULL;
}

bool model_delete(struct model *m)
{
	struct model_blob *mb = some_blob(m);
	int rc;

	if (!mb->blob)
		return false;
	ck_assert_int_eq(blob_delete(mb->blob), -EBUSY);
	blob_close(mb->blob);
	rc = blob_delete(mb->blob);
	if (!rc) {
		gone(mb);
		return true;
	}
	ck_assert(m->cutting);
	m->pending = (struct pending){.kind = PENDING_DELETED, .mb = mb};
	mb->blob = NULL;
	return true;
}

void model_operation(struct model *m)
{
	/* Those that need much to be there more often. */
	static bool (*const operations[])(struct model *m) = {
		model_snapshot,	  model_clone,	    model_revert,  model_revert,   model_set_parent, model_set_parent,
		model_set_parent, model_set_parent, model_inflate, model_decouple, model_delete,     model_resize};

	for (unsigned i = 0; i < 100; i++)
		if (operations[model_pick(sizeof(operations) / sizeof(operations[0]))](m))
			break;
}

void model_resolve(struct model *m)
{
	struct pending p = m->pending;
	struct blob *blob;

	m->pending.kind = PENDING_NONE;
	if (p.kind <= PENDING_SAME)
		return;
	blob = store_find_blob(m->b.store, p.mb->name);
	switch (p.kind) {
	case PENDING_MADE:
		p.mb->blob = blob;
		if (!blob)
			break;
		made(p.mb, p.nr_blocks_after, p.after);
		return;
	case PENDING_DELETED:
		p.mb->blob = blob;
		if (!blob)
			gone(p.mb);
		return;
	case PENDING_REVERTED:
		ck_assert_ptr_nonnull(blob);
		if (blob->parent_id != p.parent_after)
			break;
		free(p.mb->block);
		made(p.mb, p.nr_blocks_after, p.after);
		return;
	default:
		ck_assert_ptr_nonnull(blob);
		if (blob_nr_blocks(blob) != p.nr_blocks_after)
			break;
		free(p.mb->block);
		made(p.mb, p.nr_blocks_after, p.after);
		return;
	}
	free(p.after);
}
