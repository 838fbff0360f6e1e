/*
 * Keep alive, traffic based: any command on any queue of the association proves the host; a host unheard of
 * for KATO ends it.
 *
 * The timer looks eight times in a KATO whether a command came.  When the time is up it looks once more a
 * little later: what the host sent may lie in a socket that a busy thread has not got to yet.
 *
 * Source: NVM Express Base 2.0, 3.9.
 */
#include "nvmf/internal.h"

#define TICKS_IN_KATO 8
#define MIN_TICK_US   10000u

static uint64_t tick_us(const struct nvmf_ctrlr *ctrlr)
{
	uint64_t us = (uint64_t)ctrlr->kato_ms * 1000 / TICKS_IN_KATO;

	return us < MIN_TICK_US ? MIN_TICK_US : us;
}

static void expired(struct nvmf_ctrlr *ctrlr)
{
	log_notice("%s: controller %u: %s was not heard of for %u ms: its association ends",
		   ctrlr->subsystem->nqn, ctrlr->cntlid, ctrlr->host_nqn, ctrlr->kato_ms);
	ctrlr->csts |= NVME_CSTS_CFS;
	/* The admin connection's end is the association's. */
	nvmf_qpair_close(ctrlr->admin, false);
	nvmf_ctrlr_close_io(ctrlr, false);
}

static void tick(void *arg)
{
	struct nvmf_ctrlr *ctrlr = arg;
	uint64_t now_us = clock_now_us();

	if (atomic_exchange_explicit(&ctrlr->traffic, false, memory_order_relaxed)) {
		ctrlr->last_seen_us = now_us;
		ctrlr->grace = false;
	} else if (now_us - ctrlr->last_seen_us >= ctrlr->kato_ms * 1000ull) {
		if (ctrlr->grace) {
			expired(ctrlr);
			return;
		}
		ctrlr->grace = true;
	}
	timer_arm(&ctrlr->keep_alive, tick_us(ctrlr));
}

void nvmf_keep_alive_init(struct nvmf_ctrlr *ctrlr)
{
	timer_init(&ctrlr->keep_alive, tick, ctrlr);
}

void nvmf_keep_alive_start(struct nvmf_ctrlr *ctrlr, uint32_t kato_ms)
{
	timer_cancel(&ctrlr->keep_alive);
	ctrlr->kato_ms = kato_ms;
	ctrlr->last_seen_us = clock_now_us();
	ctrlr->grace = false;
	if (kato_ms)
		timer_arm(&ctrlr->keep_alive, tick_us(ctrlr));
}

void nvmf_keep_alive_stop(struct nvmf_ctrlr *ctrlr)
{
	timer_cancel(&ctrlr->keep_alive);
}

/* That it came is all there is to it: nvmf_req_begin() has noted the traffic. */
void nvmf_keep_alive_execute(struct nvmf_req *req)
{
	nvmf_req_complete(req, NVME_SC_SUCCESS);
}
