/*
 * Admission: before an operation makes records, the metadata pages that the next checkpoint will need because
 * of it are set aside, and room in the journal.  So a checkpoint never fails for want of space, and a full
 * store can still free.
 */
#include "blob/internal.h"

/* Clusters of a leaf may be counted anywhere, each on its own page. */
uint32_t freeing_pages(const struct store *s)
{
	uint64_t counts = (s->nr_clusters + COUNTS_A_PAGE - 1) / COUNTS_A_PAGE;
	uint64_t leaf = 2u << s->leaf_shift, inner = 1u << s->inner_shift;
	uint64_t node_counts = s->nr_nodes / COUNTS_A_PAGE + 1;

	return (counts < leaf ? counts : leaf) + (node_counts < inner ? node_counts : inner) + 8;
}

/* Kept for deletes and discards: what one takes, in the two checkpoints until the first's pages come back. */
static uint64_t freeing_reserve(const struct store *s)
{
	return 3 * ((uint64_t)freeing_pages(s) + (s->nr_tpages < 64 ? s->nr_tpages : 64) + 4);
}

static bool pages_fit(const struct store *s, uint32_t nr_pages, enum op_kind kind)
{
	uint64_t need = pages_needed(s) + nr_pages + nr_pages / 64 + 1;

	if (kind != OP_FREEING)
		need += freeing_reserve(s);
	return pages_free(s) >= need;
}

/* Each operation admitted may begin one more page. */
static int admit_journal(struct store *s, const struct admission *a, enum op_kind kind)
{
	struct journal *j = &s->journal;
	uint64_t used = j->open_seq + 1 - j->start_seq, in_ram = j->open_seq + 1 - j->committed_seq;
	/* The last eighth is for freeing, so that first writes cannot crowd it out; half of that for calls. */
	uint64_t kept = kind == OP_FREEING ? 0 : s->super.journal_pages / (a->control ? 16 : 8);
	uint64_t ring = s->super.journal_pages - kept;

	if (used + j->nr_admitted + 1 > ring) {
		if (used > ring / 2 || !j->nr_admitted)
			checkpoint_demand(s);
		return -EAGAIN;
	}
	if (in_ram + j->nr_admitted + 1 > j->nr_ram) {
		if (in_ram > 1)
			journal_demand(s);
		return -EAGAIN;
	}
	return 0;
}

/*
 * What a recovery would have to read, and what cannot leave the map cache, stays bounded.  A call that makes a few pages dirty goes on
 * where data writes, of which there is no end, wait for a checkpoint.
 */
static bool too_dirty(const struct store *s, const struct admission *a)
{
	return s->nr_dirty && s->nr_dirty + s->nr_frozen >= (a->control ? 3 : 2) * s->max_dirty;
}

/* Two checkpoints bring back every page that is not live; one that runs, what is set aside for it. */
static bool next_brings_pages(const struct store *s)
{
	return s->nr_dirty || s->replaced.nr || s->replaced_before.nr || (s->ckpt_running && BLOB_MUTANT(CHECKPOINTS_CHASED));
}

static bool pages_are_coming(const struct store *s)
{
	return s->ckpt_running || next_brings_pages(s);
}

/* What thick blobs were promised is for their data: their writes take it for metadata only when no page comes back otherwise. */
static enum op_kind grows_as(const struct store *s, enum op_kind kind)
{
	return kind == OP_THICK && !BLOB_MUTANT(THICK_TAKES_PROMISED) && (pages_are_coming(s) || s->pages_admitted) ? OP_THIN : kind;
}

int admit(struct store *s, struct admission *a, uint32_t nr_pages, enum op_kind kind)
{
	int rc = atomic_load(&s->failed);

	if (rc)
		return rc == -ENODEV ? rc : -EROFS;
	if (s->stopping)
		return -ESHUTDOWN;
	rc = admit_journal(s, a, kind);
	if (!rc && too_dirty(s, a)) {
		checkpoint_demand(s);
		rc = -EAGAIN;
	}
	if (rc)
		goto out_wait;
	while (!pages_fit(s, nr_pages, kind)) {
		rc = meta_grow(s, grows_as(s, kind));
		if (rc == -ENOMEM)
			return rc;
		if (!rc)
			continue;
		if (next_brings_pages(s))
			checkpoint_demand(s);
		else if (s->ckpt_running)
			; /* its end calls us again; to ask for one more that brings nothing would never end */
		else if (!s->pages_admitted && !space_is_coming(s))
			return -ENOSPC;
		else
			journal_demand(s);
		rc = -EAGAIN;
		goto out_wait;
	}
	a->nr_pages = nr_pages;
	a->held = true;
	s->pages_admitted += nr_pages;
	s->journal.nr_admitted++;
	return 0;
out_wait:
	s->stats.nr_admit_waits++;
	pace_hurry(s); /* a checkpoint under way is waited for from now on */
	return rc;
}

void admit_release(struct store *s, struct admission *a)
{
	if (!a->held)
		return;
	a->held = false;
	s->pages_admitted -= a->nr_pages;
	s->journal.nr_admitted--;
	if (s->nr_dirty >= s->max_dirty)
		checkpoint_demand(s);
	if (!list_empty(&s->admit_waiters))
		waiters_kick(&s->admit_waiters);
}

struct fiber_waiter {
	struct waiter waiter;
	struct fiber_wait wait;
};

static void wake_fiber(struct waiter *w)
{
	fiber_wake(&container_of(w, struct fiber_waiter, waiter)->wait, 0);
}

fiber_fn void waiters_wait(struct list *waiters)
{
	struct fiber_waiter w = {.waiter.retry = wake_fiber};

	fiber_wait_init(&w.wait);
	list_add_tail(waiters, &w.waiter.link);
	fiber_wait(&w.wait);
}

fiber_fn int admit_wait(struct store *s, struct admission *a, uint32_t nr_pages, enum op_kind kind)
{
	int rc;

	while ((rc = admit(s, a, nr_pages, kind)) == -EAGAIN)
		waiters_wait(&s->admit_waiters);
	return rc;
}
