/* What hosts do, in fibers of one thread each. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/sim/host.h"

#define MAX_QUEUES 4u
#define MAX_OP_BLOCKS 256u /* 128 KiB */

/* Owner: the thread that host_work() runs on. */
struct host {
	const struct host_opts *opts;
	struct nvme_ctrlr *ctrlr;
	struct nvme_qpair *queues[MAX_QUEUES];
	struct fiber_cond cond;
	unsigned nr_running; /* workers with something still to do */
	unsigned nr_waiting; /* of them, for the connection to come back */
	unsigned generation; /* of the connection */
	bool up;
};

struct worker {
	struct host *host;
	unsigned idx;
	uint32_t first, nr; /* its blocks */
	uint8_t *buf;
	struct model_block *snap;
};

static void die(const char *what, int rc)
{
	fprintf(stderr, "%s: %d\n", what, rc);
	abort();
}

/* --- the connection ------------------------------------------------------------------------------------------------------------ */

static fiber_fn int host_connect(struct host *host)
{
	const struct host_opts *opts = host->opts;
	struct nvme_connect_opts connect;
	struct nvme_error error;
	int rc;

	nvme_connect_opts_init(&connect);
	connect.addr = opts->addr;
	snprintf(connect.subnqn, sizeof(connect.subnqn), "%s", opts->nqn);
	connect.hdgst = opts->hdgst;
	connect.ddgst = opts->ddgst;
	rc = nvme_ctrlr_connect(&connect, &host->ctrlr, &error);
	if (rc) {
		host->ctrlr = NULL;
		return rc;
	}
	for (unsigned i = 0; i < opts->nr_queues && !rc; i++) {
		rc = nvme_qpair_connect(host->ctrlr, i + 1, opts->queue_size, &host->queues[i], &error);
		if (rc)
			host->queues[i] = NULL;
	}
	if (rc && !opts->faults)
		die(error.text, rc);
	return rc;
}

static fiber_fn void host_disconnect(struct host *host)
{
	for (unsigned i = 0; i < MAX_QUEUES; i++) {
		nvme_qpair_disconnect(host->queues[i]);
		host->queues[i] = NULL;
	}
	nvme_ctrlr_disconnect(host->ctrlr);
	host->ctrlr = NULL;
}

static fiber_fn void host_up(struct host *host)
{
	for (unsigned tries = 0; host_connect(host); tries++) {
		if (!host->opts->faults || tries > 1000)
			die("cannot connect", (int)tries);
		host_disconnect(host);
		fiber_sleep(10000 + sim_rand() % 100000);
	}
	host->up = true;
	host->generation++;
}

/* --- operations ---------------------------------------------------------------------------------------------------------------- */

enum outcome { DONE, FAILED, LOST };

/* Executes on the worker's queue; LOST: the connection is gone, the command may have been done or not. */
static fiber_fn enum outcome execute(struct worker *w, union nvme_cmd *cmd, void *buf, uint32_t len)
{
	struct host *host = w->host;
	unsigned generation = host->generation;
	int rc;

	if (!host->up)
		return LOST;
	rc = nvme_execute(host->queues[w->idx % host->opts->nr_queues], cmd, buf, len, NULL);
	if (rc == 0)
		return DONE;
	if (!host->opts->faults)
		die("a command failed where nothing is broken", rc);
	host->opts->model->nr_failed++;
	if (rc > 0 && rc != NVME_SC_HOST_PATH_ERROR)
		return FAILED;
	if (host->generation == generation)
		host->up = false;
	return LOST;
}

static fiber_fn enum outcome do_write(struct worker *w, uint32_t block, uint32_t nr)
{
	struct model *model = w->host->opts->model;
	bool zero = sim_rand() % 8 == 0, fua = sim_rand() % 8 == 0;
	uint32_t version = model_issue(model, block, nr, zero);
	union nvme_cmd cmd;
	enum outcome outcome;

	nvme_cmd_rw(&cmd, zero ? NVME_IO_WRITE_ZEROES : NVME_IO_WRITE, 1, block, nr);
	if (fua)
		cmd.rw.control = NVME_RW_FUA;
	else if (zero && sim_rand() % 2)
		cmd.rw.control = NVME_RW_DEAC;
	if (!zero)
		model_fill(model, w->buf, block, nr, version);
	outcome = execute(w, &cmd, zero ? NULL : w->buf, zero ? 0 : nr * MODEL_BLOCK_SIZE);
	if (outcome == DONE) {
		model_ack(model, block, nr, version, zero, fua);
		model->nr_writes++;
	}
	return outcome;
}

static fiber_fn enum outcome do_read(struct worker *w, uint32_t block, uint32_t nr)
{
	struct model *model = w->host->opts->model;
	union nvme_cmd cmd;
	enum outcome outcome;

	nvme_cmd_rw(&cmd, NVME_IO_READ, 1, block, nr);
	memset(w->buf, 0x5a, nr * MODEL_BLOCK_SIZE);
	outcome = execute(w, &cmd, w->buf, nr * MODEL_BLOCK_SIZE);
	if (outcome != DONE)
		return outcome;
	model->nr_reads++;
	if (!model_check(model, w->buf, block, nr, false))
		die("a read gave what cannot be there", (int)block);
	return DONE;
}

static fiber_fn enum outcome do_compare(struct worker *w, uint32_t block)
{
	struct model *model = w->host->opts->model;
	const struct model_block *b = &model->blocks[block];
	union nvme_cmd cmd;

	/* only where one content is possible */
	if (b->issued != b->acked || b->acked == 0)
		return DONE;
	if (b->acked_zero)
		memset(w->buf, 0, MODEL_BLOCK_SIZE);
	else
		model_fill(model, w->buf, block, 1, b->acked);
	nvme_cmd_rw(&cmd, NVME_IO_COMPARE, 1, block, 1);
	return execute(w, &cmd, w->buf, MODEL_BLOCK_SIZE);
}

static fiber_fn enum outcome do_flush(struct worker *w)
{
	struct model *model = w->host->opts->model;
	union nvme_cmd cmd = { .opcode = NVME_IO_FLUSH, .nsid = 1 };
	enum outcome outcome;

	model_flush_begin(model, w->first, w->nr, w->snap);
	outcome = execute(w, &cmd, NULL, 0);
	if (outcome == DONE) {
		model_flush_done(model, w->first, w->nr, w->snap);
		model->nr_flushes++;
	}
	return outcome;
}

/* Deallocated blocks hold what they held, or zeroes: a change that is never acknowledged says just that. */
static fiber_fn enum outcome do_deallocate(struct worker *w, uint32_t block, uint32_t nr)
{
	struct nvme_dsm_range *range = (struct nvme_dsm_range *)w->buf;
	union nvme_cmd cmd = { .opcode = NVME_IO_DSM, .nsid = 1 };

	model_issue(w->host->opts->model, block, nr, true);
	*range = (struct nvme_dsm_range){ .nlb = nr, .slba = block };
	cmd.dsm.attributes = NVME_DSM_AD;
	return execute(w, &cmd, range, sizeof(*range));
}

/* --- a fused pair --------------------------------------------------------------------------------------------------------------- */

struct half {
	struct nvme_request req;
	struct iovec iov;
	uint16_t status;
	unsigned *nr_left;
	struct fiber_wait *wait;
};

static void half_done(struct nvme_request *req, uint16_t status)
{
	struct half *half = container_of(req, struct half, req);

	half->status = status;
	if (--*half->nr_left == 0)
		fiber_wake(half->wait, 0);
}

static void half_init(struct half *half, uint8_t opcode, uint32_t block, void *buf)
{
	*half = (struct half){ .iov = { buf, MODEL_BLOCK_SIZE } };
	nvme_cmd_rw(&half->req.cmd, opcode, 1, block, 1);
	half->req.iov = &half->iov;
	half->req.iovcnt = 1;
	half->req.len = MODEL_BLOCK_SIZE;
	half->req.done = half_done;
}

/* Compares a block whose content is known, or with something else when it is to fail, and writes it. */
static fiber_fn enum outcome do_compare_and_write(struct worker *w, uint32_t block)
{
	struct host *host = w->host;
	struct model *model = host->opts->model;
	const struct model_block *b = &model->blocks[block];
	struct nvme_qpair *queue = host->queues[w->idx % host->opts->nr_queues];
	unsigned generation = host->generation, nr_left = 2;
	bool miscompare = sim_rand() % 4 == 0;
	struct half compare, write;
	struct fiber_wait wait;
	uint32_t version;

	if (b->issued != b->acked || b->acked == 0 || b->acked_zero || !host->up || nvme_qpair_depth(queue) < 2)
		return DONE;
	model_fill(model, w->buf, block, 1, b->acked - miscompare);
	version = model_issue(model, block, 1, false);
	model_fill(model, w->buf + MODEL_BLOCK_SIZE, block, 1, version);
	half_init(&compare, NVME_IO_COMPARE, block, w->buf);
	half_init(&write, NVME_IO_WRITE, block, w->buf + MODEL_BLOCK_SIZE);
	compare.wait = write.wait = &wait;
	compare.nr_left = write.nr_left = &nr_left;
	fiber_wait_init(&wait);
	nvme_qpair_submit_fused(queue, &compare.req, &write.req);
	fiber_wait(&wait);
	if (write.status == NVME_SC_SUCCESS) {
		if (miscompare)
			die("a fused write went past a miscompare", (int)block);
		model_ack(model, block, 1, version, false, false);
		return DONE;
	}
	if (!host->opts->faults && !(miscompare && (compare.status & NVME_SC_MASK) == NVME_SC_COMPARE_FAILURE))
		die("a fused pair failed where nothing is broken", compare.status);
	if (compare.status != NVME_SC_HOST_PATH_ERROR && write.status != NVME_SC_HOST_PATH_ERROR)
		return FAILED;
	if (host->generation == generation)
		host->up = false;
	return LOST;
}

static fiber_fn enum outcome do_something(struct worker *w)
{
	static const uint32_t sizes[] = { 1, 8, 8, 8, 3, 16, 17, 64, 256 };
	uint32_t nr = sizes[sim_rand() % (sizeof(sizes) / sizeof(sizes[0]))];
	uint32_t block;

	if (nr > w->nr)
		nr = w->nr;
	block = w->first + (uint32_t)(sim_rand() % (w->nr - nr + 1));
	switch (sim_rand() % 16) {
	case 0:
		return do_flush(w);
	case 1:
		return do_compare(w, block);
	case 2:
		return do_compare_and_write(w, block);
	case 3:
		return do_deallocate(w, block, nr);
	case 4:
	case 5:
	case 6:
	case 7:
		return do_read(w, block, nr);
	default:
		return do_write(w, block, nr);
	}
}

static void worker_main(void *arg)
{
	struct worker *w = arg;
	struct host *host = w->host;

	for (unsigned i = 0; i < host->opts->nr_ops; i++) {
		if (do_something(w) != LOST)
			continue;
		host->nr_waiting++;
		fiber_cond_broadcast(&host->cond);
		while (!host->up)
			fiber_cond_wait(&host->cond);
	}
	host->nr_running--;
	fiber_cond_broadcast(&host->cond);
}

/* --- a host -------------------------------------------------------------------------------------------------------------------- */

static void worker_start(struct host *host, struct worker *w, unsigned idx)
{
	const struct host_opts *opts = host->opts;

	w->host = host;
	w->idx = idx;
	w->nr = opts->nr_blocks / opts->nr_workers;
	w->first = opts->first_block + idx * w->nr;
	w->buf = malloc(MAX_OP_BLOCKS * MODEL_BLOCK_SIZE);
	w->snap = malloc(w->nr * sizeof(*w->snap));
	host->nr_running++;
	if (!w->buf || !w->snap || fiber_spawn(thread_current(), "worker", worker_main, w))
		die("no memory", 0);
}

fiber_fn void host_work(const struct host_opts *opts)
{
	struct host host = { .opts = opts };
	struct worker *workers = calloc(opts->nr_workers, sizeof(*workers));

	fiber_cond_init(&host.cond);
	host_up(&host);
	for (unsigned i = 0; i < opts->nr_workers; i++)
		worker_start(&host, &workers[i], i);
	while (host.nr_running) {
		if (host.up || host.nr_waiting < host.nr_running) {
			fiber_cond_wait(&host.cond);
			continue;
		}
		opts->model->nr_reconnects++;
		host_disconnect(&host);
		fiber_sleep(opts->settle_us);
		host.nr_waiting = 0;
		host_up(&host);
		fiber_cond_broadcast(&host.cond);
	}
	host_disconnect(&host);
	for (unsigned i = 0; i < opts->nr_workers; i++) {
		free(workers[i].buf);
		free(workers[i].snap);
	}
	free(workers);
}

fiber_fn void host_verify(const struct host_opts *opts)
{
	struct host host = { .opts = opts };
	uint8_t *buf = malloc(MAX_OP_BLOCKS * MODEL_BLOCK_SIZE);

	host_up(&host);
	for (uint32_t at = 0; at < opts->nr_blocks; at += MAX_OP_BLOCKS) {
		uint32_t nr = opts->nr_blocks - at < MAX_OP_BLOCKS ? opts->nr_blocks - at : MAX_OP_BLOCKS;
		union nvme_cmd cmd;
		int rc;

		nvme_cmd_rw(&cmd, NVME_IO_READ, 1, opts->first_block + at, nr);
		rc = nvme_execute(host.queues[0], &cmd, buf, nr * MODEL_BLOCK_SIZE, NULL);
		if (rc)
			die("a read failed where nothing is broken", rc);
		if (!model_check(opts->model, buf, opts->first_block + at, nr, true))
			die("what must be there is not", (int)at);
	}
	host_disconnect(&host);
	free(buf);
}
