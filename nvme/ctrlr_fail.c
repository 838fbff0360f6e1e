/*
 * What a controller's queues, on whatever thread, have to tell it: that one has failed, or that a command has had its time
 * and wants an Abort.  Neither is on anybody's hot path.
 */
#include <stdlib.h>

#include "nvme/internal.h"

#define UNTOLD_POLL_US 1000u

struct failure {
	struct nvme_ctrlr *ctrlr;
	struct nvme_error error;
};

struct abortion {
	struct nvme_ctrlr *ctrlr;
	struct list link; /* of ctrlr->aborts */
	struct nvme_request req;
};

static void told(struct nvme_ctrlr *ctrlr)
{
	__atomic_fetch_sub(&ctrlr->nr_told, 1, __ATOMIC_RELEASE);
}

static void failure_arrived(void *arg)
{
	struct failure *f = arg;
	struct nvme_ctrlr *ctrlr = f->ctrlr;

	if (!ctrlr->failed) {
		ctrlr->failed = true;
		ctrlr->error = f->error;
		ctrlr->opts.failed(ctrlr, ctrlr->opts.failed_arg);
	}
	free(f);
	told(ctrlr);
}

void ctrlr_queue_failed(struct nvme_qpair *qpair)
{
	struct failure *f;

	if (!qpair->ctrlr->opts.failed || !(f = malloc(sizeof(*f))))
		return;
	f->ctrlr = qpair->ctrlr;
	f->error = qpair->error;
	__atomic_fetch_add(&f->ctrlr->nr_told, 1, __ATOMIC_RELAXED);
	thread_send(f->ctrlr->thread, failure_arrived, f);
}

static void abort_over(struct abortion *a)
{
	told(a->ctrlr);
	free(a);
}

/* As many at a time as the controller takes; the others wait.  Source: NVM Express Base 2.0, 5.1 and figure 275 (ACL). */
static void send_aborts(struct nvme_ctrlr *ctrlr)
{
	bool live = ctrlr->admin && nvme_qpair_is_live(ctrlr->admin);

	while (!list_empty(&ctrlr->aborts) && (!live || ctrlr->nr_aborts <= ctrlr->id.acl)) {
		struct abortion *a = list_entry(list_pop(&ctrlr->aborts), struct abortion, link);

		if (!live) {
			abort_over(a);
			continue;
		}
		ctrlr->nr_aborts++;
		nvme_qpair_submit(ctrlr->admin, &a->req);
	}
}

/* A command that was aborted completes by itself; one that was not has the rest of its time. */
static void abort_done(struct nvme_request *req, uint16_t status)
{
	struct abortion *a = container_of(req, struct abortion, req);
	struct nvme_ctrlr *ctrlr = a->ctrlr;

	ctrlr->nr_aborts--;
	send_aborts(ctrlr);
	abort_over(a);
}

static void abort_arrived(void *arg)
{
	struct abortion *a = arg;

	list_add_tail(&a->ctrlr->aborts, &a->link);
	send_aborts(a->ctrlr);
}

void ctrlr_abort_later(struct nvme_qpair *qpair, const struct nvme_request *req)
{
	struct abortion *a = calloc(1, sizeof(*a));

	if (!a)
		return;
	a->ctrlr = qpair->ctrlr;
	a->req.cmd.opcode = NVME_ADMIN_ABORT;
	a->req.cmd.abort.sqid = qpair->qid;
	a->req.cmd.abort.cid = req->cmd.cid;
	a->req.done = abort_done;
	__atomic_fetch_add(&a->ctrlr->nr_told, 1, __ATOMIC_RELAXED);
	thread_send(a->ctrlr->thread, abort_arrived, a);
}

fiber_fn void ctrlr_wait_untold(struct nvme_ctrlr *ctrlr)
{
	while (__atomic_load_n(&ctrlr->nr_told, __ATOMIC_ACQUIRE))
		fiber_sleep(UNTOLD_POLL_US);
}
