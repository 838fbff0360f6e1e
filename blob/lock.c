/*
 * Locks on ranges of a blob's sub-blocks, held by what changes a map there.  First writes lock the sub-blocks
 * they fill, so that two fills of one serialise; unmaps lock whole clusters, so that no fill's cluster is
 * freed under it.  In order of arrival: nobody overtakes one who waits for an overlapping range.
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
	if (overlaps(&b->locks, l, NULL) || overlaps(&b->lock_waiters, l, NULL)) {
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
