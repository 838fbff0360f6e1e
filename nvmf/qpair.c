/*
 * Connections as nvmf sees them: from the transport's accept to the last request's release.
 *
 *   new        known to the group; Connect is awaited, until a deadline
 *   connected  bound to a controller
 *   draining   no command is begun; what executes is answered, for five seconds at most -> closing
 *   closing    the transport was asked to end it
 *   gone       nvmf_qpair_disconnect(): what nvmf held is given back; once nothing is outstanding and the
 * controller knows, the transport may free it
 */
#include "nvmf/internal.h"

static void connect_deadline(void *arg)
{
	struct nvmf_qpair *qpair = arg;

	log_info("a connection without a Connect is closed");
	nvmf_qpair_close(qpair, false);
}

void nvmf_qpair_init(struct nvmf_qpair *qpair, struct nvmf_group *group)
{
	const struct nvmf_transport_ops *ops = qpair->ops;
	const struct nvmf_transport_opts *opts = qpair->opts;
	void *listener = qpair->listener;

	*qpair = (struct nvmf_qpair){ .ops = ops, .opts = opts, .listener = listener, .group = group };
	qpair->op_table = nvmf_ops_unconnected;
	list_init(&qpair->outstanding);
	list_add_tail(&group->qpairs, &qpair->group_link);
	atomic_fetch_add_explicit(&group->nr_qpairs, 1, memory_order_relaxed);
	timer_init(&qpair->timer, connect_deadline, qpair);
	timer_arm(&qpair->timer, group->target->connect_timeout_us);
	if (group->empty) /* the group is being stopped */
		nvmf_qpair_close(qpair, false);
}

uint32_t nvmf_qpair_max_outstanding(const struct nvmf_qpair *qpair)
{
	return qpair->connected ? qpair->sq_size : 1;
}

void nvmf_qpair_close(struct nvmf_qpair *qpair, bool graceful)
{
	qpair->closing = true;
	if (qpair->close_asked || qpair->disconnected)
		return;
	qpair->close_asked = true;
	timer_cancel(&qpair->timer);
	qpair->ops->close(qpair, graceful);
}

static void drain_deadline(void *arg)
{
	nvmf_qpair_close(arg, false);
}

void nvmf_qpair_drain(struct nvmf_qpair *qpair)
{
	if (qpair->draining || qpair->close_asked || qpair->disconnected)
		return;
	qpair->closing = true;
	qpair->draining = true;
	timer_init(&qpair->timer, drain_deadline, qpair);
	timer_arm(&qpair->timer, NVMF_DRAIN_TIMEOUT_US);
	nvmf_qpair_check(qpair);
}

/* Is there anything to be answered yet?  What waits for the host, or for something to happen, is not. */
static bool qpair_is_busy(const struct nvmf_qpair *qpair)
{
	struct list *it;

	list_for_each(it, &qpair->outstanding) {
		switch (list_entry(it, struct nvmf_req, link)->state) {
		case NVMF_REQ_QUEUED:
		case NVMF_REQ_EXECUTING:
		case NVMF_REQ_COMPLETING:
			return true;
		default:
			break;
		}
	}
	return false;
}

static void qpair_gone(void *arg)
{
	struct nvmf_qpair *qpair = arg;

	qpair->gone(qpair->gone_arg);
}

/* Out of the group, and the transport hears in a message of its own. */
void nvmf_qpair_unbound(struct nvmf_qpair *qpair)
{
	struct nvmf_group *group = qpair->group;

	list_del(&qpair->group_link);
	atomic_fetch_sub_explicit(&group->nr_qpairs, 1, memory_order_relaxed);
	thread_send(group->thread, qpair_gone, qpair);
	if (group->empty && list_empty(&group->qpairs))
		fiber_wake(group->empty, 0);
}

void nvmf_qpair_check(struct nvmf_qpair *qpair)
{
	if (qpair->disconnected) {
		if (!list_empty(&qpair->outstanding) || qpair->gone_sent)
			return;
		qpair->gone_sent = true;
		if (qpair->ctrlr)
			nvmf_ctrlr_qpair_gone(qpair);
		else
			nvmf_qpair_unbound(qpair);
	} else if (qpair->draining && !qpair->close_asked && !qpair_is_busy(qpair)) {
		nvmf_qpair_close(qpair, true);
	}
}

/* What waits here is given back; what a bdev has comes back when it is done, which an abort may hasten. */
static void qpair_give_back(struct nvmf_qpair *qpair)
{
	struct list *it, *tmp;
	bool again;

	do {
		again = false;
		list_for_each_safe(it, tmp, &qpair->outstanding) {
			struct nvmf_req *req = list_entry(it, struct nvmf_req, link);

			/* Ending one may end its other half too: then the walk begins anew. */
			if (nvmf_req_cancel(req, NVME_SC_ABORTED_SQ_DELETION)) {
				again = true;
				break;
			}
		}
	} while (again);
	list_for_each(it, &qpair->outstanding) {
		struct nvmf_req *req = list_entry(it, struct nvmf_req, link);

		if (req->state == NVMF_REQ_EXECUTING && req->gns)
			bdev_abort(req->gns->channel, &req->io);
	}
}

void nvmf_qpair_disconnect(struct nvmf_qpair *qpair, void (*gone)(void *arg), void *arg)
{
	assert(!qpair->disconnected);
	qpair->disconnected = true;
	qpair->closing = true;
	qpair->gone = gone;
	qpair->gone_arg = arg;
	timer_cancel(&qpair->timer);
	qpair_give_back(qpair);
	nvmf_qpair_check(qpair);
}
