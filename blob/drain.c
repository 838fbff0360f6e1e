/*
 * Waiting for writes in place: those that looked a blob's map up before something changed about it, and are still at the
 * device.  Each thread marks its own; whoever ends the last wakes the waiter.
 */
#include "blob/internal.h"

static void drained(struct drain *d)
{
	if (atomic_fetch_sub(&d->left, 1) == 1)
		fiber_wake(&d->wait, 0);
}

void drain_over(struct req *req)
{
	struct drain *d = req->drain;

	req->drain = NULL;
	drained(d);
}

static void collect(void *ctx, void *arg)
{
	struct blob_channel *ch = ctx;
	struct drain *d = arg;

	for (uint32_t i = 0; i < ch->nr_reqs; i++) {
		struct req *req = &ch->reqs[i];

		if (!req->counted || req->io->op != BLOB_WRITE || req->io->blob != d->blob)
			continue;
		assert(!req->drain);
		req->drain = d;
		atomic_fetch_add(&d->left, 1);
	}
}

static void collected(void *arg)
{
	drained(arg);
}

fiber_fn void drain_writes(struct blob *b)
{
	struct drain d = {.blob = b, .left = 1};

	fiber_wait_init(&d.wait);
	collect(&b->store->internal, &d);
	device_for_each_channel(b->store, collect, &d, collected);
	fiber_wait(&d.wait);
}
