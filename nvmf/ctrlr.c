/*
 * Controllers: an association from the admin queue's Connect to its end.  The CNTLID is free again only when
 * the last queue is gone.
 *
 *   LIVE           queues come and go.  CC.EN to 0 -> RESETTING; CC.SHN -> SHUTTING_DOWN; told to end ->
 * ENDING RESETTING      I/O queues are closed; the last gone -> LIVE, not ready SHUTTING_DOWN  I/O queues are
 * closed, caches flushed -> LIVE, shutdown complete ENDING         I/O queues are drained, then the admin
 * queue is DEAD           from any: the admin connection is gone.  I/O queues are closed; the last gone:
 * unlisted on the app thread
 */
#include <stdlib.h>
#include <string.h>

#include "nvmf/internal.h"

struct nvmf_ctrlr *nvmf_ctrlr_get(struct nvmf_ctrlr *ctrlr)
{
	atomic_fetch_add_explicit(&ctrlr->refs, 1, memory_order_relaxed);
	return ctrlr;
}

void nvmf_ctrlr_put(struct nvmf_ctrlr *ctrlr)
{
	if (atomic_fetch_sub_explicit(&ctrlr->refs, 1, memory_order_acq_rel) == 1)
		free(ctrlr);
}

void nvmf_ctrlr_send(struct nvmf_ctrlr *ctrlr, msg_fn fn)
{
	thread_send(ctrlr->group->thread, fn, nvmf_ctrlr_get(ctrlr));
}

/* --- app thread ---------------------------------------------------------------------------- */

void nvmf_ctrlr_unlist(struct nvmf_ctrlr *ctrlr)
{
	list_del(&ctrlr->sub_link);
	ctrlr->subsystem->nr_ctrlrs--;
	fiber_cond_broadcast(&ctrlr->subsystem->ctrlr_gone);
	nvmf_ctrlr_put(ctrlr);
}

static void unlist_msg(void *arg)
{
	nvmf_ctrlr_unlist(arg);
}

static void end_msg(void *arg)
{
	struct nvmf_ctrlr *ctrlr = arg;

	if (ctrlr->state != NVMF_CTRLR_DEAD && ctrlr->state != NVMF_CTRLR_ENDING) {
		ctrlr->state = NVMF_CTRLR_ENDING;
		ctrlr->clean_shutdown = true; /* it is ours, not the host's failing */
		if (ctrlr->nr_io_queues)
			nvmf_ctrlr_close_io(ctrlr, true);
		else
			nvmf_qpair_drain(ctrlr->admin);
	}
	nvmf_ctrlr_put(ctrlr);
}

void nvmf_ctrlr_end_from_app(struct nvmf_ctrlr *ctrlr)
{
	nvmf_ctrlr_send(ctrlr, end_msg);
}

/* --- I/O queues ---------------------------------------------------------------------------- */

bool nvmf_ctrlr_queue_take(struct nvmf_ctrlr *ctrlr, uint16_t qid, struct nvmf_group *group)
{
	uint64_t *word = &ctrlr->io_queues[qid / 64], bit = 1ull << qid % 64;

	if (*word & bit)
		return false;
	*word |= bit;
	ctrlr->queue_groups[qid] = group;
	ctrlr->nr_io_queues++;
	return true;
}

void nvmf_ctrlr_queue_free(struct nvmf_ctrlr *ctrlr, uint16_t qid)
{
	if (qid) {
		ctrlr->io_queues[qid / 64] &= ~(1ull << qid % 64);
		ctrlr->queue_groups[qid] = NULL;
	}
	if (--ctrlr->nr_io_queues)
		return;
	switch (ctrlr->state) {
	case NVMF_CTRLR_LIVE:
		break;
	case NVMF_CTRLR_RESETTING:
	case NVMF_CTRLR_SHUTTING_DOWN:
		nvmf_ctrlr_queues_over(ctrlr);
		break;
	case NVMF_CTRLR_ENDING:
		nvmf_qpair_drain(ctrlr->admin);
		break;
	case NVMF_CTRLR_DEAD:
		thread_send(runtime_app_thread(), unlist_msg, ctrlr);
		break;
	}
}

/* A group's share of closing a controller's I/O queues.  Owner: the message. */
struct close_io {
	struct nvmf_ctrlr *ctrlr;
	struct nvmf_group *group;
	bool drain;
};

static void close_io_msg(void *arg)
{
	struct close_io *msg = arg;
	struct list *it, *tmp;

	list_for_each_safe(it, tmp, &msg->group->qpairs) {
		struct nvmf_qpair *qpair = list_entry(it, struct nvmf_qpair, group_link);

		if (qpair->ctrlr != msg->ctrlr || !qpair->qid)
			continue;
		if (msg->drain)
			nvmf_qpair_drain(qpair);
		else
			nvmf_qpair_close(qpair, false);
	}
	nvmf_ctrlr_put(msg->ctrlr);
	free(msg);
}

void nvmf_ctrlr_close_io(struct nvmf_ctrlr *ctrlr, bool drain)
{
	struct nvmf_target *target = ctrlr->subsystem->target;

	for (unsigned i = 0; i < target->nr_groups; i++) {
		struct close_io *msg = malloc(sizeof(*msg));

		if (!msg) {
			log_error("no memory to close the queues of controller %u of %s", ctrlr->cntlid,
				  ctrlr->subsystem->nqn);
			return;
		}
		*msg = (struct close_io){ nvmf_ctrlr_get(ctrlr), target->groups[i], drain };
		thread_send(target->groups[i]->thread, close_io_msg, msg);
	}
}

/* --- the admin queue ----------------------------------------------------------------------- */

void nvmf_ctrlr_bind_admin(struct nvmf_ctrlr *ctrlr, struct nvmf_qpair *qpair, uint32_t kato_ms)
{
	ctrlr->admin = qpair;
	ctrlr->gsub = ctrlr->subsystem->gsubs[ctrlr->group->idx];
	list_add_tail(&ctrlr->gsub->ctrlrs, &ctrlr->gsub_link);
	list_init(&ctrlr->aers);
	ctrlr->cap = nvmf_ctrlr_cap(ctrlr);
	nvmf_features_reset(ctrlr);
	nvmf_keep_alive_init(ctrlr);
	nvmf_keep_alive_start(ctrlr, kato_ms);
	log_info("%s: controller %u of %s", ctrlr->subsystem->nqn, ctrlr->cntlid, ctrlr->host_nqn);
}

void nvmf_ctrlr_die(struct nvmf_ctrlr *ctrlr)
{
	ctrlr->state = NVMF_CTRLR_DEAD;
	ctrlr->admin = NULL;
	if (ctrlr->gsub) {
		list_del(&ctrlr->gsub_link);
		nvmf_keep_alive_stop(ctrlr);
		if (!ctrlr->clean_shutdown && ctrlr->csts & NVME_CSTS_RDY)
			nvmf_counter_add(&ctrlr->gsub->counters.unsafe_shutdowns, 1);
	}
	if (ctrlr->nr_io_queues)
		nvmf_ctrlr_close_io(ctrlr, false);
	else
		thread_send(runtime_app_thread(), unlist_msg, ctrlr);
}

/* --- the end of a queue -------------------------------------------------------------------- */

static void unbound_msg(void *arg)
{
	struct nvmf_qpair *qpair = arg;
	struct nvmf_ctrlr *ctrlr = qpair->ctrlr;

	nvmf_qpair_unbound(qpair);
	nvmf_ctrlr_put(ctrlr);
}

static void queue_gone_msg(void *arg)
{
	struct nvmf_qpair *qpair = arg;

	nvmf_ctrlr_queue_free(qpair->ctrlr, qpair->qid);
	thread_send(qpair->group->thread, unbound_msg, qpair);
}

void nvmf_ctrlr_qpair_gone(struct nvmf_qpair *qpair)
{
	struct nvmf_ctrlr *ctrlr = qpair->ctrlr;

	if (qpair->qid) {
		thread_send(ctrlr->group->thread, queue_gone_msg, qpair);
		return;
	}
	nvmf_ctrlr_die(ctrlr);
	unbound_msg(qpair);
}
