/*
 * I/O on namespaces: an operation is cut into commands where the controller's limits ask for it; each command takes a path; what
 * no path takes, or what a path loses, is parked and tried again.
 *
 * Nothing is allocated on the way: a channel has a number of requests, and operations wait in order when they are all out.
 * A request: free -> in flight -> free; -> parked -> in flight, when its path was lost or the controller refused it for the
 * moment; parked -> free with an error, when the controller's fate or its own time says so.
 */
#include <errno.h>
#include <string.h>

#include "bdev/nvme_internal.h"

#define PARK_US	      20000u	/* between tries of what was refused */
#define LOSSES_MAX    32u /* of its path, with the command out */
#define PARK_LIMIT_US 60000000u /* without a usable path while one is connected, and none that may become usable */
#define READY_LIMIT_US 30000000u /* of a namespace that says it is not ready */

static struct bdev_nvme_io *io_state(struct bdev_io *io)
{
	return (struct bdev_nvme_io *)(void *)io->scratch.bytes;
}

/* --- paths ------------------------------------------------------------------------------------- */

static bool usable(const struct bdev_nvme_channel *nch, const struct bdev_nvme_ns *ns, unsigned i, uint8_t access)
{
	bool there = nch->qpairs[i] ? nvme_qpair_is_live(nch->qpairs[i]) : nch->lenders[i] != NULL;

	return there && __atomic_load_n(&ns->access[i], __ATOMIC_RELAXED) == access;
}

/* The path for the next command; -1: none can take it now.  Optimized ones come first; failover stays with the one it has, unless
 * another is preferred. */
static int pick_path(struct bdev_nvme_channel *nch, const struct bdev_nvme_ns *ns)
{
	unsigned start = nch->last_path, preferred = __atomic_load_n(&ns->preferred, __ATOMIC_RELAXED);

	if (__atomic_load_n(&nch->ctrlr->multipath, __ATOMIC_RELAXED) == BDEV_NVME_ACTIVE_ACTIVE)
		start++;
	else if (unlikely(preferred))
		start = preferred - 1;
	else if (likely(usable(nch, ns, start, ACCESS_OPTIMIZED)))
		return (int)start;
	for (uint8_t access = ACCESS_OPTIMIZED; access != ACCESS_NONE; access--) {
		for (unsigned n = 0; n < BDEV_NVME_MAX_PATHS; n++) {
			unsigned i = (start + n) % BDEV_NVME_MAX_PATHS;

			if (usable(nch, ns, i, access)) {
				nch->last_path = i;
				return (int)i;
			}
		}
	}
	return -1;
}

/* --- requests ---------------------------------------------------------------------------------- */

static void command_done(struct nvme_request *req, uint16_t status);

static void park(struct bdev_nvme_request *rq, uint64_t delay_us)
{
	struct bdev_nvme_channel *nch = rq->nch;

	if (!rq->parked_us)
		rq->parked_us = clock_now_us();
	list_add_tail(&nch->parked, &rq->link);
	if (!timer_armed(&nch->park_timer))
		timer_arm(&nch->park_timer, delay_us);
}

/* --- with a lender: a command goes to the thread that has a queue, and comes back with its status ----------- */

#define LENT_NOT_TAKEN (1u << 16) /* no status: the lender had no queue either */

static void lent_back(void *arg)
{
	struct bdev_nvme_request *rq = arg;

	rq->nch->nr_lent[rq->path]--;
	rq->lender = NULL;
	rq->req.done = command_done;
	if (rq->lent_status & LENT_NOT_TAKEN)
		park(rq, PARK_US);
	else
		command_done(&rq->req, (uint16_t)rq->lent_status);
}

/* On the lender's thread. */
static void lent_done(struct nvme_request *req, uint16_t status)
{
	struct bdev_nvme_request *rq = container_of(req, struct bdev_nvme_request, req);

	rq->lent_status = status;
	thread_send(rq->nch->thread, lent_back, rq);
}

static void lent_arrived(void *arg)
{
	struct bdev_nvme_request *rq = arg;
	struct nvme_qpair *qpair = rq->lender->qpairs[rq->path];

	if (qpair && nvme_qpair_is_live(qpair)) {
		nvme_qpair_submit(qpair, &rq->req);
		return;
	}
	rq->lent_status = LENT_NOT_TAKEN;
	thread_send(rq->nch->thread, lent_back, rq);
}

static void lend(struct bdev_nvme_request *rq)
{
	struct bdev_nvme_channel *nch = rq->nch;

	rq->lender = nch->lenders[rq->path];
	rq->req.done = lent_done;
	nch->nr_lent[rq->path]++;
	thread_send(rq->lender->thread, lent_arrived, rq);
}

static void send_command(struct bdev_nvme_request *rq)
{
	int path = pick_path(rq->nch, rq->ns);

	if (unlikely(path < 0)) {
		park(rq, PARK_US);
		return;
	}
	rq->path = (unsigned)path;
	rq->start_ticks = unlikely(bdev_nvme_options.path_stats) ? clock_ticks() : 0;
	if (likely(rq->nch->qpairs[path] != NULL))
		nvme_qpair_submit(rq->nch->qpairs[path], &rq->req);
	else
		lend(rq);
}

static void io_finish(struct bdev_io *io);
static void io_go_on(struct bdev_io *io);

static void request_end(struct bdev_nvme_request *rq, int status)
{
	struct bdev_nvme_channel *nch = rq->nch;
	struct bdev_io *io = rq->io;
	struct bdev_nvme_io *st = io_state(io);

	list_add_head(&nch->free, &rq->link);
	nch->nr_busy--;
	if (unlikely(status) && !st->status)
		st->status = status;
	st->nr_out--;
	if (likely(!st->nr_out && !st->queued))
		io_finish(io);
	/* One that waits takes the request, and queues itself again when it wants more. */
	while (unlikely(!fifo_empty(&nch->waiting)) && !list_empty(&nch->free)) {
		struct bdev_io *next = container_of(fifo_pop(&nch->waiting), struct bdev_io, leaf_link);

		io_state(next)->queued = false;
		io_go_on(next);
	}
}

/* The path does not serve the namespace now; another may. */
static bool is_refusal(uint16_t code)
{
	return code == NVME_SC_ANA_PERSISTENT_LOSS || code == NVME_SC_ANA_INACCESSIBLE || code == NVME_SC_ANA_TRANSITION;
}

/* Loading, say: it asks for time, not for a number of tries. */
static bool waits_for_ready(struct bdev_nvme_request *rq)
{
	uint64_t now_us = clock_now_us();

	if (!rq->unready_us)
		rq->unready_us = now_us;
	return now_us - rq->unready_us < READY_LIMIT_US;
}

/* Whether the command may be tried again: the path lost or refused it, or the controller asks for patience. */
static bool may_retry(struct bdev_nvme_request *rq, uint16_t status)
{
	uint16_t code = nvme_status_code(status);

	/* A command that takes its path down each time it is sent must not do so for ever. */
	if (NVME_SCT(status) == 3 || code == NVME_SC_ABORTED_SQ_DELETION)
		return rq->nr_losses++ < LOSSES_MAX;
	switch (code) {
	case NVME_SC_NS_NOT_READY:
		return !(status & NVME_SC_DNR) && waits_for_ready(rq);
	case NVME_SC_ABORT_REQUESTED:
	case NVME_SC_COMMAND_INTERRUPTED:
	case NVME_SC_TRANSIENT_TRANSPORT_ERROR:
	case NVME_SC_ABORTED_POWER_LOSS:
		return !(status & NVME_SC_DNR) && rq->nr_retries++ < bdev_nvme_options.retry_count;
	}
	return false;
}

static int fate_of(const struct bdev_nvme_channel *nch)
{
	switch (__atomic_load_n(&nch->ctrlr->fate, __ATOMIC_RELAXED)) {
	case BDEV_NVME_GONE:
		return -ENODEV;
	case BDEV_NVME_FAIL:
		return -EIO;
	default:
		return 0;
	}
}

static int errno_of(const struct bdev_nvme_request *rq, uint16_t status)
{
	int rc = nvme_status_to_errno(status);

	switch (rc) {
	case -EILSEQ:
	case -ENOSPC:
	case -ERANGE:
	case -EROFS:
	case -ENOTSUP:
	case -ENODEV:
		return rc;
	}
	log_warning("%s: %s at block %llu: %s (%03xh)", rq->ns->bdev.name, nvme_io_opcode_name(rq->req.cmd.opcode),
		    (unsigned long long)rq->req.cmd.rw.slba, nvme_status_name(status), nvme_status_code(status));
	return -EIO;
}

static void command_done(struct nvme_request *req, uint16_t status)
{
	struct bdev_nvme_request *rq = container_of(req, struct bdev_nvme_request, req);

	if (unlikely(rq->start_ticks))
		bdev_nvme_count(rq, nvme_status_code(status));
	if (likely(!nvme_status_code(status))) {
		request_end(rq, 0);
		return;
	}
	if (may_retry(rq, status)) {
		int rc = fate_of(rq->nch);

		if (is_refusal(nvme_status_code(status)))
			bdev_nvme_refused(rq->ns, rq->path, status);
		if (rc)
			request_end(rq, rc);
		else if (is_refusal(nvme_status_code(status)))
			send_command(rq);
		else
			park(rq, PARK_US);
		return;
	}
	request_end(rq, errno_of(rq, status));
}

/* --- cutting ----------------------------------------------------------------------------------- */

/* How many blocks the next command takes, for what concerns the controller. */
static uint64_t piece_blocks(const struct bdev_nvme_ns *ns, const struct bdev_io *io, uint64_t next)
{
	uint64_t left = io->nr_blocks - next, max = ns->max_blocks;
	uint64_t at = io->offset_blocks + next;

	if (io->op == BDEV_UNMAP)
		max = ns->max_unmap_blocks;
	else if (io->op == BDEV_WRITE_ZEROES)
		max = ns->max_zeroes_blocks;
	else if (io->op == BDEV_VERIFY)
		max = ns->max_verify_blocks;
	else if (io->op == BDEV_COPY)
		max = ns->max_copy_blocks;
	if (left > max)
		left = max;
	if (ns->boundary_blocks && io->op <= BDEV_WRITE && left > ns->boundary_blocks - at % ns->boundary_blocks)
		left = ns->boundary_blocks - at % ns->boundary_blocks;
	return left;
}

/* Takes up to *nr blocks of the operation's vector into the request's own; fewer when the pieces run out.  False: not one
 * block fits into so many pieces. */
static bool slice(struct bdev_nvme_request *rq, uint64_t *nr)
{
	struct bdev_nvme_io *st = io_state(rq->io);
	uint32_t bs = rq->ns->bdev.block_size, idx = st->iov_idx, skip = st->iov_skip, n = 0;
	uint64_t want = *nr * bs, got = 0;

	while (got < want && n < BDEV_NVME_IOVS) {
		const struct iovec *iov = &rq->io->iov[idx];
		uint64_t len = iov->iov_len - skip;

		if (len > want - got)
			len = want - got;
		if (len)
			rq->iov[n++] = (struct iovec){ (char *)iov->iov_base + skip, len };
		got += len;
		skip += (uint32_t)len;
		if (skip == iov->iov_len) {
			idx++;
			skip = 0;
		}
	}
	/* Whole blocks: what is over goes back. */
	for (uint64_t over = got % bs; over;) {
		struct iovec *last = &rq->iov[n - 1];
		uint64_t len = last->iov_len < over ? last->iov_len : over;

		last->iov_len -= len;
		over -= len;
		got -= len;
		if (!last->iov_len)
			n--;
	}
	*nr = got / bs;
	rq->req.iov = rq->iov;
	rq->req.iovcnt = n;
	rq->req.len = (uint32_t)got;
	/* Where the rest begins. */
	for (uint64_t left = got; left;) {
		uint64_t len = rq->io->iov[st->iov_idx].iov_len - st->iov_skip;

		if (len > left)
			len = left;
		st->iov_skip += (uint32_t)len;
		left -= len;
		if (st->iov_skip == rq->io->iov[st->iov_idx].iov_len) {
			st->iov_idx++;
			st->iov_skip = 0;
		}
	}
	return got;
}

static uint8_t opcode_of(uint8_t op)
{
	switch (op) {
	case BDEV_READ:
		return NVME_IO_READ;
	case BDEV_WRITE:
		return NVME_IO_WRITE;
	case BDEV_COMPARE:
		return NVME_IO_COMPARE;
	case BDEV_WRITE_ZEROES:
		return NVME_IO_WRITE_ZEROES;
	case BDEV_VERIFY:
		return NVME_IO_VERIFY;
	case BDEV_COPY:
		return NVME_IO_COPY;
	default:
		return NVME_IO_DSM;
	}
}

static void set_data(struct bdev_nvme_request *rq, void *data, uint32_t len)
{
	rq->range_iov = (struct iovec){ data, len };
	rq->req.iov = &rq->range_iov;
	rq->req.iovcnt = 1;
	rq->req.len = len;
}

static void build_unmap(struct bdev_nvme_request *rq, uint64_t at, uint64_t nr)
{
	rq->req.cmd = (union nvme_cmd){ .opcode = NVME_IO_DSM, .nsid = rq->ns->ns.nsid };
	rq->req.cmd.dsm.attributes = NVME_DSM_AD;
	rq->range = (struct nvme_dsm_range){ .nlb = (uint32_t)nr, .slba = at };
	set_data(rq, &rq->range, sizeof(rq->range));
}

static void build_copy(struct bdev_nvme_request *rq, uint64_t from, uint64_t to, uint64_t nr)
{
	rq->req.cmd = (union nvme_cmd){ .opcode = NVME_IO_COPY, .nsid = rq->ns->ns.nsid };
	rq->req.cmd.copy.sdlba = to;
	rq->req.cmd.copy.control = rq->io->flags & BDEV_IO_FUA ? NVME_RW_FUA : 0;
	rq->source = (struct nvme_copy_range){ .slba = from, .nlb = (uint16_t)(nr - 1) };
	set_data(rq, &rq->source, sizeof(rq->source));
}

/* Builds the command for the next piece.  Return: blocks, 0 when it cannot be built. */
static uint64_t build(struct bdev_nvme_request *rq)
{
	struct bdev_io *io = rq->io;
	struct bdev_nvme_io *st = io_state(io);
	uint64_t nr = piece_blocks(rq->ns, io, st->next), at = io->offset_blocks + st->next;

	if (io->op == BDEV_UNMAP) {
		build_unmap(rq, at, nr);
		return nr;
	}
	if (io->op == BDEV_COPY) {
		build_copy(rq, io->from_blocks + st->next, at, nr);
		return nr;
	}
	if (io->op == BDEV_WRITE_ZEROES || io->op == BDEV_VERIFY) {
		rq->req.iovcnt = rq->req.len = 0;
	} else if (likely(nr == io->nr_blocks && io->iovcnt <= NVME_REQUEST_MAX_IOVS)) {
		rq->req.iov = io->iov;
		rq->req.iovcnt = io->iovcnt;
		rq->req.len = (uint32_t)(nr * rq->ns->bdev.block_size);
	} else if (!slice(rq, &nr)) {
		return 0;
	}
	nvme_cmd_rw(&rq->req.cmd, opcode_of(io->op), rq->ns->ns.nsid, at, (uint32_t)nr);
	if ((io->flags & BDEV_IO_FUA) && io->op != BDEV_COMPARE && io->op != BDEV_VERIFY)
		rq->req.cmd.rw.control |= NVME_RW_FUA;
	if (io->op == BDEV_WRITE_ZEROES && (io->flags & BDEV_IO_UNMAP_OK) && rq->ns->zeroes_deac)
		rq->req.cmd.rw.control |= NVME_RW_DEAC;
	return nr;
}

/* --- operations -------------------------------------------------------------------------------- */

static struct bdev_nvme_request *request_take(struct bdev_nvme_channel *nch, struct bdev_io *io)
{
	struct list *l = list_pop(&nch->free);
	struct bdev_nvme_request *rq;

	if (unlikely(!l))
		return NULL;
	rq = list_entry(l, struct bdev_nvme_request, link);
	rq->io = io;
	rq->ns = io_state(io)->ch->ns;
	rq->nr_retries = rq->nr_losses = 0;
	rq->parked_us = rq->unready_us = 0;
	nch->nr_busy++;
	io_state(io)->nr_out++;
	return rq;
}

static void wait_for_request(struct bdev_nvme_channel *nch, struct bdev_io *io)
{
	io_state(io)->queued = true;
	fifo_push(&nch->waiting, &io->leaf_link);
}

static bool send_flush(struct bdev_nvme_channel *nch, struct bdev_io *io)
{
	struct bdev_nvme_request *rq = request_take(nch, io);

	if (!rq)
		return false;
	rq->req.cmd = (union nvme_cmd){ .opcode = NVME_IO_FLUSH, .nsid = rq->ns->ns.nsid };
	rq->req.iovcnt = rq->req.len = 0;
	send_command(rq);
	return true;
}

/* Issues as much of the operation as there are requests for. */
static void io_go_on(struct bdev_io *io)
{
	struct bdev_nvme_io *st = io_state(io);
	struct bdev_nvme_channel *nch = st->ch->nch;

	if (st->flushing || io->op == BDEV_FLUSH) {
		if (!send_flush(nch, io))
			wait_for_request(nch, io);
		return;
	}
	while (st->next < io->nr_blocks && !st->status) {
		struct bdev_nvme_request *rq = request_take(nch, io);
		uint64_t nr;

		if (!rq) {
			wait_for_request(nch, io);
			return;
		}
		nr = build(rq);
		if (unlikely(!nr)) {
			list_add_head(&nch->free, &rq->link);
			nch->nr_busy--;
			st->nr_out--;
			st->status = -EINVAL;
			break;
		}
		st->next += nr;
		send_command(rq);
	}
	if (unlikely(!st->nr_out))
		bdev_io_complete_later(io, st->status); /* nothing could be issued */
}

/* Dataset Management has no FUA of its own, and some drives have none at all. */
static bool wants_flush(struct bdev_io *io)
{
	const struct bdev_nvme_ns *ns = io_state(io)->ch->ns;
	bool changes = io->op == BDEV_WRITE || io->op == BDEV_WRITE_ZEROES || io->op == BDEV_COPY;

	return ns->bdev.has_write_cache && (io->op == BDEV_UNMAP || (ns->no_fua && changes));
}

static void io_finish(struct bdev_io *io)
{
	struct bdev_nvme_io *st = io_state(io);

	if (unlikely((io->flags & BDEV_IO_FUA) && wants_flush(io) && !st->flushing && !st->status)) {
		st->flushing = true;
		io_go_on(io);
		return;
	}
	bdev_io_complete(io, st->status);
}

void bdev_nvme_submit(struct bdev_io *io, void *channel_ctx)
{
	struct bdev_nvme_ns_channel *ch = channel_ctx;
	struct bdev_nvme_io *st = io_state(io);
	int rc = fate_of(ch->nch);

	if (unlikely(rc)) {
		bdev_io_complete_later(io, rc);
		return;
	}
	*st = (struct bdev_nvme_io){ .ch = ch };
	if (unlikely(!fifo_empty(&ch->nch->waiting)))
		wait_for_request(ch->nch, io);
	else
		io_go_on(io);
}

/* --- what is parked ---------------------------------------------------------------------------- */

static void parked_due(void *arg)
{
	bdev_nvme_channel_run(arg);
}

/*
 * How long a command waits for a path when one is connected but none can be used: not at all when all have lost the namespace for good;
 * else as long as I/O may wait for anything; and without such a limit, for as long as the access of a path may change.
 */
static uint64_t patience_us(const struct bdev_nvme_ns *ns)
{
	const struct bdev_nvme_ctrlr *ctrlr = ns->ctrlr;
	uint32_t fail_s = __atomic_load_n(&ctrlr->fast_io_fail_s, __ATOMIC_RELAXED);
	unsigned nr_lost = 0;
	bool changes = false;

	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
		uint8_t access = __atomic_load_n(&ns->access[i], __ATOMIC_RELAXED);

		nr_lost += access == ACCESS_LOST;
		changes = changes || access == ACCESS_INACCESSIBLE || access == ACCESS_CHANGE;
	}
	if (nr_lost && nr_lost >= __atomic_load_n(&ctrlr->nr_paths, __ATOMIC_RELAXED))
		return 0;
	if (fail_s)
		return fail_s * 1000000ull;
	return changes ? UINT64_MAX : PARK_LIMIT_US;
}

void bdev_nvme_channel_run(struct bdev_nvme_channel *nch)
{
	uint64_t now_us = clock_now_us();
	struct list parked = LIST_INIT(parked), *l;
	int rc = fate_of(nch);

	timer_cancel(&nch->park_timer);
	list_splice_tail(&parked, &nch->parked);
	while ((l = list_pop(&parked))) {
		struct bdev_nvme_request *rq = list_entry(l, struct bdev_nvme_request, link);

		if (rc) {
			request_end(rq, rc);
		} else if (pick_path(nch, rq->ns) >= 0) {
			rq->parked_us = 0;
			send_command(rq);
		} else if (__atomic_load_n(&nch->ctrlr->any_live, __ATOMIC_RELAXED) && rq->parked_us &&
			   now_us - rq->parked_us > patience_us(rq->ns)) {
			log_warning("%s: no path can be used for it: I/O fails", rq->ns->bdev.name);
			request_end(rq, -EIO);
		} else {
			list_add_tail(&nch->parked, &rq->link);
		}
	}
	if (!list_empty(&nch->parked) && !timer_armed(&nch->park_timer))
		timer_arm(&nch->park_timer, PARK_US);
	/* With a fate decided, what waited for requests goes the same way. */
	while (rc && !fifo_empty(&nch->waiting)) {
		struct bdev_io *io = container_of(fifo_pop(&nch->waiting), struct bdev_io, leaf_link);
		struct bdev_nvme_io *st = io_state(io);

		st->queued = false;
		st->status = st->status ? st->status : rc;
		if (!st->nr_out)
			bdev_io_complete(io, st->status);
	}
}

int bdev_nvme_channel_requests_init(struct bdev_nvme_channel *nch)
{
	list_init(&nch->free);
	list_init(&nch->parked);
	fifo_init(&nch->waiting);
	timer_init(&nch->park_timer, parked_due, nch);
	nch->requests = dma_alloc(BDEV_NVME_REQUESTS * sizeof(*nch->requests), 4096);
	if (!nch->requests)
		return -ENOMEM;
	for (unsigned i = 0; i < BDEV_NVME_REQUESTS; i++) {
		struct bdev_nvme_request *rq = &nch->requests[i];

		rq->nch = nch;
		rq->req.done = command_done;
		list_add_tail(&nch->free, &rq->link);
	}
	return 0;
}
