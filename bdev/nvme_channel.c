/*
 * Channels: for each thread that uses a controller's namespaces, a queue on each of its paths.
 *
 * A channel has a fiber on its own thread for its whole life: it joins the controller's list on the app thread, which gives it
 * queues on the paths that are up; waits until nobody uses the channel any more; leaves, which takes the queues away; and ends.
 * All passes over the list hold the controller's mutex, so a path's coming or going and a channel's do not cross.
 *
 * A controller may have fewer queues than there are threads.  A channel that gets none borrows: its commands go to the thread of
 * another that has one, as messages, and come back so (nvme_io.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/nvme_internal.h"

#define LOAN_POLL_US 100u

/* --- a queue on a path, made and taken away on the channel's thread ------------------------------ */

struct queue_call {
	struct bdev_nvme_channel *nch;
	struct bdev_nvme_path *path;
	uint16_t qid;
	struct nvme_error error;
};

static void kick(struct bdev_nvme_channel *nch);

static fiber_fn int connect_queue(void *arg)
{
	struct queue_call *call = arg;
	const struct bdev_nvme_attach_opts *opts = &call->path->opts;
	uint32_t size = opts->queue_size ? opts->queue_size : BDEV_NVME_QUEUE_SIZE;
	struct nvme_qpair *qpair = NULL;
	int rc;

	rc = nvme_qpair_connect(call->path->nvme, call->qid, size, &qpair, &call->error);
	if (rc)
		return rc;
	call->nch->qpairs[call->path->idx] = qpair;
	kick(call->nch);
	return 0;
}

/* What is in flight completes on the way, and is parked. */
static fiber_fn int disconnect_queue(void *arg)
{
	struct queue_call *call = arg;
	struct nvme_qpair *qpair = call->nch->qpairs[call->path->idx];

	call->nch->qpairs[call->path->idx] = NULL;
	nvme_qpair_disconnect(qpair);
	return 0;
}

static uint16_t qid_take(struct bdev_nvme_path *path)
{
	for (unsigned qid = 1; qid <= path->nr_queues && qid < BDEV_NVME_MAX_QID; qid++) {
		if (path->qid_used[qid])
			continue;
		path->qid_used[qid] = 1;
		return (uint16_t)qid;
	}
	return 0;
}

/* --- queues that are shared: there are fewer than threads ----------------------------------------- */

struct loan {
	struct bdev_nvme_channel *nch, *lender;
	unsigned idx;
};

static fiber_fn int loan_begins(void *arg)
{
	struct loan *loan = arg;

	loan->nch->lenders[loan->idx] = loan->lender;
	kick(loan->nch);
	return 0;
}

/* What is with the lender comes back first: its queue completes it, or fails it. */
static fiber_fn int loan_ends(void *arg)
{
	struct loan *loan = arg;

	loan->nch->lenders[loan->idx] = NULL;
	while (loan->nch->nr_lent[loan->idx])
		fiber_sleep(LOAN_POLL_US);
	return 0;
}

/* The channel with a queue on the path that has the fewest borrowers; NULL: none has one. */
static struct bdev_nvme_channel *find_lender(const struct bdev_nvme_path *path)
{
	struct bdev_nvme_channel *best = NULL;
	struct list *it;

	list_for_each(it, &path->ctrlr->channels) {
		struct bdev_nvme_channel *c = list_entry(it, struct bdev_nvme_channel, link);

		if (c->qids[path->idx] && (!best || c->nr_borrowers[path->idx] < best->nr_borrowers[path->idx]))
			best = c;
	}
	return best;
}

static fiber_fn void borrow(struct bdev_nvme_channel *nch, struct bdev_nvme_path *path)
{
	struct loan loan = { .nch = nch, .lender = find_lender(path), .idx = path->idx };

	if (nch->lent_by[path->idx])
		return;
	if (!loan.lender) { /* one of those that have no queue yet may get one */
		path->queues_missing = true;
		fiber_cond_signal(&path->asked);
		return;
	}
	nch->lent_by[path->idx] = loan.lender;
	loan.lender->nr_borrowers[path->idx]++;
	thread_call_fiber(nch->thread, loan_begins, &loan);
}

static fiber_fn void give_back(struct bdev_nvme_channel *nch, unsigned idx)
{
	struct loan loan = { .nch = nch, .idx = idx };

	if (!nch->lent_by[idx])
		return;
	thread_call_fiber(nch->thread, loan_ends, &loan);
	nch->lent_by[idx]->nr_borrowers[idx]--;
	nch->lent_by[idx] = NULL;
}

static fiber_fn void channel_connect(struct bdev_nvme_channel *nch, struct bdev_nvme_path *path)
{
	struct queue_call call = { .nch = nch, .path = path };
	int rc;

	if (nch->qids[path->idx])
		return;
	call.qid = qid_take(path);
	if (!call.qid) {
		if (!path->shares)
			log_notice("%s: path %u has only %u I/O queues: threads share them", nch->ctrlr->name, path->idx,
				   path->nr_queues);
		path->shares = true;
		borrow(nch, path);
		return;
	}
	rc = thread_call_fiber(nch->thread, connect_queue, &call);
	if (!rc) {
		nch->qids[path->idx] = call.qid;
		nch->refused = false;
		give_back(nch, path->idx);
		return;
	}
	path->qid_used[call.qid] = 0;
	path->queues_missing = true;
	fiber_cond_signal(&path->asked);
	if (!nch->refused)
		log_warning("%s: an I/O queue cannot be made: %s", nch->ctrlr->name, call.error.text);
	nch->refused = true;
	borrow(nch, path);
}

static fiber_fn void channel_disconnect(struct bdev_nvme_channel *nch, struct bdev_nvme_path *path)
{
	struct queue_call call = { .nch = nch, .path = path };

	give_back(nch, path->idx);
	if (!nch->qids[path->idx])
		return;
	thread_call_fiber(nch->thread, disconnect_queue, &call);
	path->qid_used[nch->qids[path->idx]] = 0;
	nch->qids[path->idx] = 0;
}

fiber_fn void bdev_nvme_channels_connect(struct bdev_nvme_path *path)
{
	struct list *it;

	list_for_each(it, &path->ctrlr->channels)
		channel_connect(list_entry(it, struct bdev_nvme_channel, link), path);
}

fiber_fn void bdev_nvme_channels_disconnect(struct bdev_nvme_path *path)
{
	struct list *it;

	list_for_each(it, &path->ctrlr->channels)
		give_back(list_entry(it, struct bdev_nvme_channel, link), path->idx);
	list_for_each(it, &path->ctrlr->channels)
		channel_disconnect(list_entry(it, struct bdev_nvme_channel, link), path);
}

/* --- kicking ------------------------------------------------------------------------------------- */

static void run_task(void *arg)
{
	struct bdev_nvme_channel *nch = arg;

	nch->kicking = false;
	bdev_nvme_channel_run(nch);
}

static void kick(struct bdev_nvme_channel *nch)
{
	if (nch->kicking)
		return;
	nch->kicking = true;
	task_run_later(&nch->kick_task, run_task, nch);
}

static void kick_one(void *ctx, void *arg)
{
	kick(*(struct bdev_nvme_channel **)ctx);
}

static void kicked(void *arg)
{
}

void bdev_nvme_channels_kick(struct bdev_nvme_ctrlr *ctrlr)
{
	device_for_each_channel(ctrlr, kick_one, NULL, kicked);
}

/* --- life ---------------------------------------------------------------------------------------- */

static fiber_fn int join(void *arg)
{
	struct bdev_nvme_channel *nch = arg;
	struct bdev_nvme_ctrlr *ctrlr = nch->ctrlr;

	fiber_lock(&ctrlr->mutex);
	list_add_tail(&ctrlr->channels, &nch->link);
	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
		if (ctrlr->paths[i] && ctrlr->paths[i]->accepting)
			channel_connect(nch, ctrlr->paths[i]);
	}
	fiber_unlock(&ctrlr->mutex);
	return 0;
}

static fiber_fn void take_from_borrowers(struct bdev_nvme_channel *nch, unsigned idx)
{
	struct list *it;

	list_for_each(it, &nch->ctrlr->channels) {
		struct bdev_nvme_channel *c = list_entry(it, struct bdev_nvme_channel, link);

		if (c->lent_by[idx] == nch)
			give_back(c, idx);
	}
}

static fiber_fn int leave(void *arg)
{
	struct bdev_nvme_channel *nch = arg;
	struct bdev_nvme_ctrlr *ctrlr = nch->ctrlr;

	fiber_lock(&ctrlr->mutex);
	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
		take_from_borrowers(nch, i);
		if (ctrlr->paths[i])
			channel_disconnect(nch, ctrlr->paths[i]);
	}
	list_del(&nch->link);
	/* Those who shared its queue have the next one, or its own. */
	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
		if (ctrlr->paths[i] && ctrlr->paths[i]->accepting && ctrlr->paths[i]->shares)
			bdev_nvme_channels_connect(ctrlr->paths[i]);
	}
	fiber_unlock(&ctrlr->mutex);
	return 0;
}

/* The controller waits for its list to be empty before it goes. */
static fiber_fn void channel_life(void *arg)
{
	struct bdev_nvme_channel *nch = arg;

	thread_call_fiber(runtime_app_thread(), join, nch);
	while (!nch->dying || nch->kicking)
		fiber_cond_timedwait(&nch->wake, nch->dying ? 1000 : UINT32_MAX);
	thread_call_fiber(runtime_app_thread(), leave, nch);
	timer_cancel(&nch->park_timer);
	assert(!nch->nr_busy);
	dma_free(nch->requests);
	__atomic_fetch_sub(&nch->ctrlr->nr_channels, 1, __ATOMIC_RELEASE);
	free(nch);
}

static int channel_create(void *device, void *ctx)
{
	struct bdev_nvme_channel *nch = calloc(1, sizeof(*nch));
	int rc;

	if (!nch)
		return -ENOMEM;
	list_init(&nch->link);
	fiber_cond_init(&nch->wake);
	nch->ctrlr = device;
	nch->thread = thread_current();
	__atomic_fetch_add(&nch->ctrlr->nr_channels, 1, __ATOMIC_RELAXED);
	rc = bdev_nvme_channel_requests_init(nch);
	if (!rc)
		rc = fiber_spawn(nch->thread, "nvme-channel", channel_life, nch);
	if (rc) {
		__atomic_fetch_sub(&nch->ctrlr->nr_channels, 1, __ATOMIC_RELEASE);
		dma_free(nch->requests);
		free(nch);
		return rc;
	}
	*(struct bdev_nvme_channel **)ctx = nch;
	return 0;
}

static void channel_destroy(void *device, void *ctx)
{
	struct bdev_nvme_channel *nch = *(struct bdev_nvme_channel **)ctx;

	nch->dying = true;
	fiber_cond_signal(&nch->wake);
}

const struct device_ops bdev_nvme_device_ops = {
	.ctx_size = sizeof(struct bdev_nvme_channel *),
	.channel_create = channel_create,
	.channel_destroy = channel_destroy,
};
