/*
 * Locks on ranges of a blob's sub-blocks, held by what changes a map there.  First writes lock the sub-blocks
 * they fill, so that two fills of one serialise; unmaps lock whole clusters, so that no fill's cluster is
 * freed under it.  In order of arrival: nobody overtakes one who waits for an overlapping range.
 *
 * Nearly all lie in one cluster where there is no other: counts by clusters' hashes say so without a look at the lists.
 */
#include "blob/internal.h"

void range_lock_init(struct range_lock *l, uint64_t first, uint64_t end,
		     void (*ready)(struct range_lock *lock))
{
	list_init(&l->link);
	list_init(&l->ready_link);
	l->first = first;
	l->end = end;
	l->held = false;
	l->ready = ready;
}

/* The count of those who lock something in the same cluster; NULL: it is more than one. */
static uint16_t *bucket_of(const struct blob *b, const struct range_lock *l)
{
	struct store *s = b->store;
	uint64_t cluster = l->first >> s->sub_shift;

	if ((l->end - 1) >> s->sub_shift != cluster)
		return NULL;
	return &s->nr_locks[((b->id * 0x9e3779b97f4a7c15ull >> 40) + cluster) % LOCK_BUCKETS];
}

/* Before it is counted itself. */
static bool is_alone(const struct blob *b, const struct range_lock *l)
{
	const uint16_t *bucket = bucket_of(b, l);

	return bucket && !*bucket && !b->nr_wide_locks;
}

static void count(struct blob *b, const struct range_lock *l, int by)
{
	uint16_t *bucket = bucket_of(b, l);

	if (bucket)
		*bucket += by;
	else
		b->nr_wide_locks += by;
}

static bool overlaps(const struct list *locks, const struct range_lock *l, const struct range_lock *up_to)
{
	const struct list *it;

	list_for_each (it, locks) {
		const struct range_lock *o = list_entry(it, struct range_lock, link);

		if (o == up_to)
			break;
		if (o->first < l->end && l->first < o->end)
			return true;
	}
	return false;
}

bool range_lock(struct blob *b, struct range_lock *l)
{
	bool alone = is_alone(b, l);

	count(b, l, 1);
	if (!alone && (overlaps(&b->locks, l, NULL) || overlaps(&b->lock_waiters, l, NULL))) {
		list_add_tail(&b->lock_waiters, &l->link);
		return false;
	}
	list_add_tail(&b->locks, &l->link);
	l->held = true;
	return true;
}

void range_unlock(struct blob *b, struct range_lock *l)
{
	struct list ready, *it, *next;

	if (!l->held)
		return;
	l->held = false;
	count(b, l, -1);
	list_del(&l->link);
	list_init(&ready);
	list_for_each_safe (it, next, &b->lock_waiters) {
		struct range_lock *w = list_entry(it, struct range_lock, link);

		if (overlaps(&b->locks, w, NULL) || overlaps(&b->lock_waiters, w, w))
			continue;
		list_del(&w->link);
		list_add_tail(&b->locks, &w->link);
		w->held = true;
		list_add_tail(&ready, &w->ready_link);
	}
	while ((it = list_pop(&ready))) {
		struct range_lock *w = list_entry(it, struct range_lock, ready_link);

		w->ready(w);
	}
}

static void wake_fiber(struct range_lock *l)
{
	fiber_wake(l->wait, 0);
}

fiber_fn void range_lock_wait(struct blob *b, struct range_lock *l)
{
	struct fiber_wait wait;

	fiber_wait_init(&wait);
	l->wait = &wait;
	l->ready = wake_fiber;
	if (!range_lock(b, l))
		fiber_wait(&wait);
}
