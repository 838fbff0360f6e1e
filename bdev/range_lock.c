/*
 * Range locks: how compare-and-write excludes every other write to its range, on all threads, while ordinary writes pay
 * one predictable branch.
 *
 * Getting a lock: it goes onto the core's list (nr_locks tells every submitter to look there), then each thread that has a
 * channel is sent a message and counts the overlapping writes it has under way; the lock is had once all threads have none.
 * A write submitted after its thread has seen nr_locks waits on the lock's list, so nothing new is ever counted.  A channel
 * made while a lock is held takes the mutex to enter the core's list: either the lock's holder saw the channel, or the
 * channel sees nr_locks.
 *
 * Putting it: the held-back writes are sent home to their threads and submitted again, and the next locks in the queue that
 * overlap nothing held or queued before them are granted.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "bdev/internal.h"

static bool locks_overlap(const struct range_lock *a, const struct range_lock *b)
{
	return ranges_overlap(a->offset_blocks, a->nr_blocks, b->offset_blocks, b->nr_blocks);
}

static bool overlaps_io(const struct range_lock *lock, const struct bdev_io *io)
{
	return (OP_BIT(io->op) & OPS_LOCKED) && !(io->flags & IO_IDLE) &&
	       ranges_overlap(lock->offset_blocks, lock->nr_blocks, io->offset_blocks, io->nr_blocks);
}

static void acquired_msg(void *arg)
{
	struct range_lock *lock = arg;

	lock->acquired(lock, lock->status);
}

/* One thread, or the granter, has nothing in the way (any more). */
static void pending_done(struct range_lock *lock)
{
	if (__atomic_sub_fetch(&lock->nr_pending, 1, __ATOMIC_ACQ_REL))
		return;
	if (lock->drains != lock->few)
		free(lock->drains);
	thread_send(lock->channel->thread, acquired_msg, lock);
}

/* On a thread that has a channel, or had when the message was sent. */
static void drain_visit(void *arg)
{
	struct drain *d = arg;
	struct range_lock *lock = d->lock;
	struct bdev_core *core = lock->channel->core;
	struct bdev_channel *ch = NULL;
	struct list *it;

	pthread_mutex_lock(&core->mutex);
	list_for_each(it, &core->channels) {
		struct bdev_channel *c = list_entry(it, struct bdev_channel, core_link);

		if (c->thread == thread_current())
			ch = c;
	}
	pthread_mutex_unlock(&core->mutex);
	if (ch) {
		list_for_each(it, &ch->in_flight)
			d->nr_writes += overlaps_io(lock, list_entry(it, struct bdev_io, link));
	}
	if (d->nr_writes)
		list_add_tail(&ch->drains, &d->link);
	else
		pending_done(lock);
}

void range_lock_write_done(struct bdev_channel *ch, const struct bdev_io *io)
{
	struct list *it, *tmp;

	list_for_each_safe(it, tmp, &ch->drains) {
		struct drain *d = list_entry(it, struct drain, link);

		if (!overlaps_io(d->lock, io) || --d->nr_writes)
			continue;
		list_del(&d->link);
		pending_done(d->lock);
	}
}

/* Under the mutex.  Sends the visits; the last of them, or this, tells the taker. */
static void grant(struct bdev_core *core, struct range_lock *lock)
{
	unsigned nr = 0, i = 0;
	struct list *it;

	list_add_tail(&core->locks, &lock->link);
	__atomic_store_n(&core->nr_locks, core->nr_locks + 1, __ATOMIC_RELAXED);
	list_for_each(it, &core->channels)
		nr++;
	lock->nr_pending = nr + 1;
	lock->drains = nr <= DRAINS_INLINE ? lock->few : calloc(nr, sizeof(*lock->drains));
	if (!lock->drains) {
		lock->drains = lock->few;
		lock->status = -ENOMEM;
		lock->nr_pending = 1;
		nr = 0;
	}
	list_for_each(it, &core->channels) {
		if (i == nr)
			break;
		lock->drains[i] = (struct drain){ .lock = lock };
		/* Under the mutex, so that the thread cannot have put its channel and gone. */
		thread_send(list_entry(it, struct bdev_channel, core_link)->thread, drain_visit, &lock->drains[i++]);
	}
	pending_done(lock);
}

void range_lock_get(struct range_lock *lock)
{
	struct bdev_core *core = lock->channel->core;
	bool wait = false;
	struct list *it;

	list_init(&lock->waiters);
	lock->status = 0;
	pthread_mutex_lock(&core->mutex);
	list_for_each(it, &core->locks)
		wait |= locks_overlap(lock, list_entry(it, struct range_lock, link));
	list_for_each(it, &core->lock_queue)
		wait |= locks_overlap(lock, list_entry(it, struct range_lock, link));
	if (wait)
		list_add_tail(&core->lock_queue, &lock->link);
	else
		grant(core, lock);
	pthread_mutex_unlock(&core->mutex);
}

/* Under the mutex: grants what in the queue overlaps neither a held lock nor one queued before it. */
static void grant_next(struct bdev_core *core)
{
	struct list *it, *tmp, *other;

	list_for_each_safe(it, tmp, &core->lock_queue) {
		struct range_lock *lock = list_entry(it, struct range_lock, link);
		bool wait = false;

		list_for_each(other, &core->locks)
			wait |= locks_overlap(lock, list_entry(other, struct range_lock, link));
		for (other = core->lock_queue.next; other != it; other = other->next)
			wait |= locks_overlap(lock, list_entry(other, struct range_lock, link));
		if (wait)
			continue;
		list_del(&lock->link);
		grant(core, lock);
	}
}

static void resubmit(void *arg)
{
	struct bdev_io *io = arg;
	struct bdev_channel *ch = io->channel;

	list_add_tail(&ch->in_flight, &io->link);
	bdev_submit_dispatch(ch, io);
}

void range_lock_put(struct range_lock *lock)
{
	struct bdev_core *core = lock->channel->core;
	struct list *e;

	pthread_mutex_lock(&core->mutex);
	list_del(&lock->link);
	__atomic_store_n(&core->nr_locks, core->nr_locks - 1, __ATOMIC_RELAXED);
	while ((e = list_pop(&lock->waiters))) {
		struct bdev_io *io = list_entry(e, struct bdev_io, link);

		io->flags &= ~IO_BLOCKED;
		thread_send(io->channel->thread, resubmit, io);
	}
	grant_next(core);
	pthread_mutex_unlock(&core->mutex);
}

/* Return: whether the write waits now; it is submitted again when the lock is put. */
bool range_lock_holds_back(struct bdev_channel *ch, struct bdev_io *io)
{
	struct bdev_core *core = ch->core;
	bool blocked = false;
	struct list *it;

	pthread_mutex_lock(&core->mutex);
	list_for_each(it, &core->locks) {
		struct range_lock *lock = list_entry(it, struct range_lock, link);

		if (!overlaps_io(lock, io))
			continue;
		list_del(&io->link); /* from the channel's list: it must not be waited for */
		io->flags |= IO_BLOCKED;
		list_add_tail(&lock->waiters, &io->link);
		blocked = true;
		break;
	}
	pthread_mutex_unlock(&core->mutex);
	return blocked;
}

/* Return: whether the operation was waiting for a lock, and now is on no list. */
bool range_lock_abort(struct bdev_channel *ch, struct bdev_io *io)
{
	struct bdev_core *core = ch->core;
	bool was_blocked;

	if (!(OP_BIT(io->op) & OPS_LOCKED) || !__atomic_load_n(&core->nr_locks, __ATOMIC_RELAXED))
		return false;
	pthread_mutex_lock(&core->mutex);
	was_blocked = io->flags & IO_BLOCKED;
	if (was_blocked) {
		io->flags &= ~IO_BLOCKED;
		list_del(&io->link);
	}
	pthread_mutex_unlock(&core->mutex);
	return was_blocked;
}
