/*
 * Abort: ends a command that has not started with status 07h; one that a bdev has is asked for, and its end
 * awaited for a while.  One whose data the transport awaits cannot end before that is over, but is marked and
 * never starts: it is aborted from then on, and only for the order of the responses its end is awaited too.
 *
 * The Abort lives on the admin queue's thread; its victim on that of its own queue, which does the work and
 * sends back whether the command was aborted (result bit 0 clear).
 */
#include <stdlib.h>

#include "nvmf/internal.h"

/* An Abort under way.  Owner: the victim's thread, then, with the reply, the admin queue's. */
struct abort {
	struct nvmf_req *req;
	struct nvmf_ctrlr *ctrlr;
	struct nvmf_group *group; /* the victim's */
	struct nvmf_req *victim;  /* while its end is awaited */
	struct timer timer;
	bool aborted;
};

static void abort_reply(void *arg)
{
	struct abort *abort = arg;
	struct nvmf_req *req = abort->req;

	abort->ctrlr->nr_aborts--;
	req->cqe.dw0 = abort->aborted ? 0 : 1;
	nvmf_ctrlr_put(abort->ctrlr);
	free(abort);
	nvmf_req_complete(req, NVME_SC_SUCCESS);
}

/* By message even on the same thread: the victim's response goes out first. */
static void abort_over(struct abort *abort, bool aborted)
{
	abort->aborted = aborted;
	thread_send(abort->ctrlr->group->thread, abort_reply, abort);
}

/* Marked, while its data was awaited, to end with 07h. */
static bool is_marked(const struct nvmf_req *victim)
{
	return victim->end_status == NVME_SC_ABORT_REQUESTED;
}

void nvmf_abort_victim_done(struct nvmf_req *victim, uint16_t status)
{
	struct abort *abort = victim->aborter->priv;

	victim->aborter = NULL;
	timer_cancel(&abort->timer);
	abort_over(abort, is_marked(victim) || nvme_status_code(status) == NVME_SC_ABORT_REQUESTED);
}

static void abort_timeout(void *arg)
{
	struct abort *abort = arg;

	abort->victim->aborter = NULL;
	abort_over(abort, is_marked(abort->victim));
}

static struct nvmf_req *find_victim(struct abort *abort, struct nvmf_qpair *qpair)
{
	struct list *it;

	list_for_each(it, &qpair->outstanding) {
		struct nvmf_req *victim = list_entry(it, struct nvmf_req, link);

		if (victim->cmd.cid == abort->req->cmd.abort.cid && victim != abort->req &&
		    victim->state != NVMF_REQ_COMPLETING)
			return victim;
	}
	return NULL;
}

static void abort_victim(void *arg)
{
	struct abort *abort = arg;
	struct nvmf_qpair *qpair =
		nvmf_group_find_qpair(abort->group, abort->ctrlr, abort->req->cmd.abort.sqid);
	struct nvmf_req *victim = qpair ? find_victim(abort, qpair) : NULL;
	uint32_t timeout_sec = abort->ctrlr->opts->abort_timeout_sec;

	if (!victim) {
		abort_over(abort, qpair && !qpair->disconnected && qpair->ops->abort_held &&
					  qpair->ops->abort_held(qpair, abort->req->cmd.abort.cid));
		return;
	}
	if (nvmf_req_cancel(victim, NVME_SC_ABORT_REQUESTED)) {
		abort_over(abort, true);
		return;
	}
	/* Another Abort awaits its end already, or nobody can be asked for it. */
	if (victim->aborter || (victim->state != NVMF_REQ_NEED_DATA && !victim->gns)) {
		abort_over(abort, is_marked(victim));
		return;
	}
	abort->victim = victim;
	victim->aborter = abort->req;
	timer_init(&abort->timer, abort_timeout, abort);
	timer_arm(&abort->timer, (timeout_sec ? timeout_sec : 1) * 1000000ull);
	if (victim->state == NVMF_REQ_NEED_DATA)
		victim->end_status = NVME_SC_ABORT_REQUESTED;
	else
		bdev_abort(victim->gns->channel, &victim->io);
}

void nvmf_abort_execute(struct nvmf_req *req)
{
	struct nvmf_ctrlr *ctrlr = req->qpair->ctrlr;
	uint16_t sqid = req->cmd.abort.sqid;
	struct nvmf_group *group = sqid ? NULL : ctrlr->group;
	struct abort *abort;

	if (ctrlr->nr_aborts > NVMF_ACL) {
		nvmf_req_complete(req, NVME_SC_ABORT_LIMIT | NVME_SC_DNR);
		return;
	}
	if (sqid && sqid <= NVMF_MAX_IO_QUEUES)
		group = ctrlr->queue_groups[sqid];
	abort = group ? calloc(1, sizeof(*abort)) : NULL;
	if (!abort) {
		req->cqe.dw0 = 1;
		nvmf_req_complete(req, NVME_SC_SUCCESS);
		return;
	}
	abort->req = req;
	abort->ctrlr = nvmf_ctrlr_get(ctrlr);
	abort->group = group;
	req->priv = abort;
	ctrlr->nr_aborts++;
	thread_send(group->thread, abort_victim, abort);
}
