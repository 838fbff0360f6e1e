/* The fake's request machine: decode, take buffers, fetch data, execute, complete; each as nvmf/transport.h says. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "transport/tcp/fake_nvmf.h"

struct fake_nvmf fake;

/* What the fake knows of a connection, beside the fields that are nvmf's own. */
static struct fake_qpair {
	struct nvmf_qpair *qpair; /* NULL: unused */
	bool disconnected, gone_sent;
	void (*gone)(void *arg);
	void *gone_arg;
} qpairs[2048];

static struct fake_qpair *find(const struct nvmf_qpair *qpair)
{
	for (unsigned i = 0; i < sizeof(qpairs) / sizeof(qpairs[0]); i++)
		if (qpairs[i].qpair == qpair)
			return &qpairs[i];
	assert(!"no such connection");
	return NULL;
}

struct nvmf_group *nvmf_target_pick_group(struct nvmf_target *target)
{
	return (struct nvmf_group *)&fake;
}

struct thread *nvmf_group_thread(struct nvmf_group *group)
{
	return fake.thread;
}

void *nvmf_group_transport(struct nvmf_group *group, const struct nvmf_transport_ops *ops)
{
	return fake.tgroup;
}

const struct nvmf_transport_opts *nvmf_target_transport_opts(struct nvmf_target *target, const struct nvmf_transport_ops *ops)
{
	return &fake.opts;
}

void nvmf_qpair_init(struct nvmf_qpair *qpair, struct nvmf_group *group)
{
	qpair->group = group;
	list_init(&qpair->outstanding);
	list_init(&qpair->group_link);
	*find(NULL) = (struct fake_qpair){ .qpair = qpair };
	fake.nr_qpairs++;
	fake.last_qpair = qpair;
}

bool nvmf_buffers_short(void)
{
	return fake.buffers_short;
}

uint32_t nvmf_qpair_max_outstanding(const struct nvmf_qpair *qpair)
{
	return qpair->connected ? qpair->sq_size : 1;
}

/* --- requests ------------------------------------------------------------------------------------------------------------------ */

static void finish(struct nvmf_req *req, uint16_t status)
{
	if (status)
		req->len = 0;
	req->cqe.cid = req->cmd.cid;
	nvme_cqe_set_status(&req->cqe, status);
	req->state = NVMF_REQ_COMPLETING;
	req->qpair->ops->complete(req);
}

static void do_connect(struct nvmf_req *req)
{
	if (fake.connect_fails) {
		finish(req, NVME_SC_CONNECT_INVALID_HOST);
		return;
	}
	req->qpair->qid = req->cmd.connect.qid;
	req->qpair->sq_size = req->cmd.connect.sqsize + 1;
	req->qpair->sq_flow_control_disabled = req->cmd.connect.cattr & NVME_CONNECT_NO_SQ_FLOW_CONTROL;
	req->qpair->connected = true;
	req->cqe.connect.cntlid = 1;
	finish(req, NVME_SC_SUCCESS);
}

static void move(struct nvmf_req *req, bool to_disk)
{
	uint8_t *disk = fake.disk + req->cmd.rw.slba * FAKE_BLOCK_SIZE;

	for (unsigned i = 0; i < req->iovcnt; i++) {
		if (to_disk)
			memcpy(disk, req->iov[i].iov_base, req->iov[i].iov_len);
		else
			memcpy(req->iov[i].iov_base, disk, req->iov[i].iov_len);
		disk += req->iov[i].iov_len;
	}
}

static void execute(struct nvmf_req *req)
{
	if (req->cmd.opcode == NVME_OPC_FABRICS) {
		do_connect(req);
		return;
	}
	if (req->cmd.opcode == NVME_IO_WRITE || req->cmd.opcode == NVME_IO_READ)
		move(req, req->cmd.opcode == NVME_IO_WRITE);
	finish(req, NVME_SC_SUCCESS);
}

static void execute_or_hold(struct nvmf_req *req)
{
	req->state = NVMF_REQ_EXECUTING;
	if (fake.hold && req->cmd.opcode != NVME_OPC_FABRICS)
		list_add_tail(&fake.held, &req->wait_link);
	else
		execute(req);
}

static void get_buffers(struct nvmf_req *req)
{
	uint32_t left = req->len;

	fake.buffer_bytes += left;
	if (fake.buffer_bytes > fake.max_buffer_bytes)
		fake.max_buffer_bytes = fake.buffer_bytes;
	req->nr_iobufs = 0;
	while (left) {
		struct iovec *iov = &req->iov[req->nr_iobufs++];

		iov->iov_len = left < IOBUF_LARGE_SIZE ? left : IOBUF_LARGE_SIZE;
		iov->iov_base = malloc(iov->iov_len);
		assert(iov->iov_base);
		left -= iov->iov_len;
	}
	req->iovcnt = req->nr_iobufs;
}

/* What the command moves; false: out of bounds. */
static bool decode(struct nvmf_req *req)
{
	req->xfer = NVMF_XFER_NONE;
	req->len = 0;
	if (req->cmd.opcode == NVME_OPC_FABRICS) {
		req->xfer = NVMF_XFER_FROM_HOST;
		req->len = 1024;
	} else if (req->cmd.opcode == NVME_IO_WRITE || req->cmd.opcode == NVME_IO_READ) {
		req->xfer = req->cmd.opcode == NVME_IO_WRITE ? NVMF_XFER_FROM_HOST : NVMF_XFER_TO_HOST;
		req->len = (req->cmd.rw.nlb + 1) * FAKE_BLOCK_SIZE;
		return req->cmd.rw.slba < FAKE_DISK_SIZE / FAKE_BLOCK_SIZE && req->len <= NVMF_MAX_XFER &&
		       req->len <= FAKE_DISK_SIZE - req->cmd.rw.slba * FAKE_BLOCK_SIZE;
	}
	return true;
}

void nvmf_req_begin(struct nvmf_req *req)
{
	struct nvmf_qpair *qpair = req->qpair;
	uint16_t status;

	assert(req->state == NVMF_REQ_FREE);
	assert(!find(qpair)->disconnected);
	memset(&req->cqe, 0, sizeof(req->cqe));
	req->nr_iobufs = 0;
	list_add_tail(&qpair->outstanding, &req->link);
	fake.nr_begun++;
	if (++fake.nr_outstanding > fake.max_outstanding)
		fake.max_outstanding = fake.nr_outstanding;
	if (qpair->connected == (req->cmd.opcode == NVME_OPC_FABRICS)) {
		finish(req, NVME_SC_CMD_SEQUENCE_ERROR);
		return;
	}
	if (!decode(req)) {
		finish(req, NVME_SC_LBA_OUT_OF_RANGE);
		return;
	}
	if (req->xfer != NVMF_XFER_NONE) {
		status = qpair->ops->parse_sgl(req);
		if (!status && req->sgl_len != req->len)
			status = NVME_SC_SGL_LENGTH_INVALID;
		if (status) {
			finish(req, status);
			return;
		}
		if (!req->in_capsule)
			get_buffers(req);
		if (!req->in_capsule && req->xfer == NVMF_XFER_FROM_HOST) {
			req->state = NVMF_REQ_NEED_DATA;
			qpair->ops->receive_data(req);
			return;
		}
	}
	execute_or_hold(req);
}

void nvmf_req_begin_aborted(struct nvmf_req *req)
{
	assert(req->state == NVMF_REQ_FREE);
	memset(&req->cqe, 0, sizeof(req->cqe));
	req->nr_iobufs = 0;
	req->xfer = NVMF_XFER_NONE;
	list_add_tail(&req->qpair->outstanding, &req->link);
	fake.nr_outstanding++;
	finish(req, NVME_SC_ABORT_REQUESTED);
}

void nvmf_req_data_received(struct nvmf_req *req)
{
	assert(req->state == NVMF_REQ_NEED_DATA);
	execute_or_hold(req);
}

void nvmf_req_data_failed(struct nvmf_req *req, uint16_t status)
{
	assert(req->state == NVMF_REQ_NEED_DATA);
	fake.last_failure = status;
	fake.nr_failures++;
	finish(req, status);
}

static void qpair_gone(void *arg)
{
	struct fake_qpair *fq = arg;

	fake.nr_qpairs--;
	fq->qpair = NULL;
	fq->gone(fq->gone_arg);
}

static void check_gone(struct nvmf_qpair *qpair)
{
	struct fake_qpair *fq = find(qpair);

	if (fq->disconnected && list_empty(&qpair->outstanding) && !fq->gone_sent) {
		fq->gone_sent = true;
		thread_send(fake.thread, qpair_gone, fq);
	}
}

void nvmf_req_release(struct nvmf_req *req)
{
	while (req->nr_iobufs) {
		fake.buffer_bytes -= req->iov[--req->nr_iobufs].iov_len;
		free(req->iov[req->nr_iobufs].iov_base);
	}
	list_del(&req->link);
	fake.nr_outstanding--;
	req->state = NVMF_REQ_FREE;
	check_gone(req->qpair);
}

void nvmf_qpair_disconnect(struct nvmf_qpair *qpair, void (*gone)(void *arg), void *arg)
{
	struct fake_qpair *fq = find(qpair);
	struct list *it, *tmp;

	assert(!fq->disconnected);
	fq->disconnected = true;
	fq->gone = gone;
	fq->gone_arg = arg;
	list_for_each_safe(it, tmp, &fake.held) {
		struct nvmf_req *req = container_of(it, struct nvmf_req, wait_link);

		if (req->qpair == qpair) {
			list_del(it);
			finish(req, NVME_SC_ABORTED_SQ_DELETION);
		}
	}
	check_gone(qpair);
}

/* --- the test's handles --------------------------------------------------------------------------------------------------------- */

static int make_group(void *arg)
{
	const struct nvmf_transport_ops *ops = arg;

	return ops->group_create((struct nvmf_group *)&fake, &fake.tgroup);
}

fiber_fn void fake_start(const struct nvmf_transport_ops *ops)
{
	int rc;

	memset(&fake, 0, sizeof(fake));
	memset(qpairs, 0, sizeof(qpairs));
	list_init(&fake.held);
	ops->opts_default(&fake.opts);
	fake.thread = thread_create("group", runtime_nr_reactors() - 1);
	assert(fake.thread);
	rc = thread_call(fake.thread, make_group, (void *)(uintptr_t)ops);
	assert(!rc);
	(void)rc;
}

fiber_fn void fake_wait_for(const unsigned *number, unsigned wanted)
{
	while (__atomic_load_n(number, __ATOMIC_RELAXED) != wanted)
		fiber_sleep(1000);
}

static int end_group(void *arg)
{
	const struct nvmf_transport_ops *ops = arg;

	ops->group_destroy((struct nvmf_group *)&fake, fake.tgroup);
	return 0;
}

fiber_fn void fake_stop(const struct nvmf_transport_ops *ops)
{
	fake_wait_for(&fake.nr_qpairs, 0);
	fiber_sleep(10000); /* the last connection is freed by a task */
	thread_call(fake.thread, end_group, (void *)(uintptr_t)ops);
	thread_exit(fake.thread);
}

static int release_held(void *arg)
{
	struct list *link;

	fake.hold = false;
	while ((link = list_pop(&fake.held)))
		execute(container_of(link, struct nvmf_req, wait_link));
	return 0;
}

fiber_fn void fake_release(void)
{
	thread_call(fake.thread, release_held, NULL);
}

static int close_last(void *arg)
{
	fake.last_qpair->ops->close(fake.last_qpair, arg != NULL);
	return 0;
}

fiber_fn void fake_close_last(bool graceful)
{
	thread_call(fake.thread, close_last, graceful ? &fake : NULL);
}
