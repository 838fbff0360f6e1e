/* The host for tests: connection, capsules, responses, and the few commands that bring a controller up. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/rdma/raw_host.h"

#define CAPSULES_AT  RAW_MEM_SIZE
#define RESPONSES_AT (CAPSULES_AT + RAW_CAPSULES * RAW_CAPSULE)
#define CQ_SIZE	     512u
#define NR_RECVS     256u
#define MEM_ALL	     (RESPONSES_AT + NR_RECVS * 16u)

static void post_recv(struct raw_host *host, unsigned i)
{
	struct rnic_sge sge = { (uintptr_t)host->mem + RESPONSES_AT + i * 16u, 16, rnic_mr_lkey(host->mr) };
	struct rnic_recv recv = { .id = 1u << 16 | i, .sge = &sge, .nr_sge = 1 };

	ck_assert_int_eq(rnic_post_recv(host->conn, &recv), 0);
}

static void completed(struct raw_host *host, const struct rnic_wc *wc)
{
	unsigned i = (unsigned)wc->id & 0xffff;

	if (!(wc->id >> 16)) {
		host->nr_sends_done++;
		host->nr_sends_failed += wc->status != RNIC_OK;
		return;
	}
	if (wc->status != RNIC_OK)
		return;
	ck_assert_uint_eq(wc->len, 16);
	ck_assert_uint_lt(host->nr_responses, 512);
	memcpy(&host->responses[host->nr_responses], host->mem + RESPONSES_AT + i * 16u, 16);
	host->invalidated[host->nr_responses++] = wc->invalidated ? wc->key : 0;
	post_recv(host, i);
}

static bool ready(void *arg)
{
	struct raw_host *host = arg;
	struct rnic_wc wc;
	bool any = false;

	while (rnic_cq_poll(host->cq, &wc, 1)) {
		completed(host, &wc);
		any = true;
	}
	fiber_cond_broadcast(&host->cond);
	return any;
}

static void event(void *arg, const struct rnic_event *ev)
{
	struct raw_host *host = arg;
	struct nvme_rdma_cm_reject reject = { 0 };
	struct nvme_rdma_cm_accept accept;

	switch (ev->type) {
	case RNIC_ESTABLISHED:
		host->established = true;
		ck_assert_uint_ge(ev->params.private_len, sizeof(accept));
		memcpy(&accept, ev->params.private_data, sizeof(accept));
		ck_assert_uint_eq(accept.recfmt, 0);
		host->crqsize = accept.crqsize;
		break;
	case RNIC_REJECTED:
		host->rejected = host->over = true;
		if (ev->params.private_len >= sizeof(reject))
			memcpy(&reject, ev->params.private_data, sizeof(reject));
		host->reject_status = reject.sts;
		break;
	case RNIC_RECVS_DRAINED:
		break;
	default:
		host->over = true;
		break;
	}
	fiber_cond_broadcast(&host->cond);
}

struct raw_request raw_request(uint16_t qid, uint16_t depth)
{
	return (struct raw_request){
		.cm = { .qid = qid, .hrqsize = depth, .hsqsize = depth - 1 },
		.len = sizeof(struct nvme_rdma_cm_request),
		.peer_reads = 16,
		.nr_recvs = NR_RECVS,
	};
}

fiber_fn void raw_ask(struct raw_host *host, const struct stream_addr *addr, const struct raw_request *request)
{
	struct rnic_params params = { .private_len = request->len, .peer_reads = request->peer_reads };
	struct rnic_qp_opts opts = { .max_send = RAW_CAPSULES, .max_recv = NR_RECVS, .max_send_sge = 1, .max_recv_sge = 1 };
	struct rnic_device *device;
	uint32_t qp_num;

	memset(host, 0, sizeof(*host));
	fiber_cond_init(&host->cond);
	host->mem = calloc(1, MEM_ALL);
	ck_assert_ptr_nonnull(host->mem);
	ck_assert_int_eq(rnic_resolve(addr, 10000000, &host->conn), 0);
	rnic_conn_attach(host->conn, event, host);
	device = rnic_conn_device(host->conn);
	ck_assert_int_eq(rnic_mr_create(device, host->mem, MEM_ALL, RNIC_LOCAL_WRITE | RNIC_REMOTE_READ | RNIC_REMOTE_WRITE, &host->mr), 0);
	ck_assert_int_eq(rnic_cq_create(device, CQ_SIZE, ready, host, &host->cq), 0);
	opts.cq = host->cq;
	ck_assert_int_eq(rnic_qp_create(host->conn, &opts, &qp_num), 0);
	for (unsigned i = 0; i < request->nr_recvs; i++)
		post_recv(host, i);
	memcpy(params.private_data, &request->cm, sizeof(request->cm));
	ck_assert_int_eq(rnic_connect(host->conn, &params), 0);
}

fiber_fn bool raw_wait_cm(struct raw_host *host)
{
	while (!host->established && !host->over)
		fiber_cond_wait(&host->cond);
	return host->established;
}

fiber_fn void raw_wait_end(struct raw_host *host)
{
	while (!host->over)
		fiber_cond_wait(&host->cond);
}

fiber_fn void raw_close(struct raw_host *host, bool disconnect)
{
	if (!host->conn)
		return;
	if (disconnect)
		rnic_disconnect(host->conn);
	rnic_conn_destroy(host->conn);
	rnic_cq_destroy(host->cq);
	rnic_mr_free(host->mr);
	free(host->mem);
	host->conn = NULL;
	host->mem = NULL;
}

int raw_send_len(struct raw_host *host, const void *capsule, uint32_t len)
{
	uint8_t *at = host->mem + CAPSULES_AT + host->next_capsule++ % RAW_CAPSULES * RAW_CAPSULE;
	struct rnic_sge sge = { (uintptr_t)at, len, rnic_mr_lkey(host->mr) };
	struct rnic_send send = { .op = RNIC_SEND, .sge = &sge, .nr_sge = 1, .signaled = true };

	ck_assert_uint_le(len, RAW_CAPSULE);
	memcpy(at, capsule, len);
	return rnic_post_send(host->conn, &send);
}

int raw_send(struct raw_host *host, const union nvme_cmd *cmd, const void *data, uint32_t data_len)
{
	uint8_t capsule[RAW_CAPSULE];

	ck_assert_uint_le(data_len, RAW_CAPSULE - 64);
	memcpy(capsule, cmd, 64);
	if (data_len)
		memcpy(capsule + 64, data, data_len);
	return raw_send_len(host, capsule, 64 + data_len);
}

fiber_fn uint16_t raw_wait(struct raw_host *host, uint16_t cid, struct nvme_cqe *ret_cqe)
{
	for (;;) {
		for (unsigned i = 0; i < host->nr_responses; i++) {
			if (host->responses[i].cid != cid)
				continue;
			if (ret_cqe)
				*ret_cqe = host->responses[i];
			return nvme_cqe_status(&host->responses[i]) & 0x7ff;
		}
		if (host->over || host->nr_sends_failed)
			return RAW_LOST;
		fiber_cond_wait(&host->cond);
	}
}

fiber_fn uint16_t raw_execute(struct raw_host *host, union nvme_cmd *cmd, struct nvme_cqe *ret_cqe)
{
	static uint16_t next_cid = 0x4000;

	cmd->cid = next_cid++ | 0x4000;
	ck_assert_int_eq(raw_send(host, cmd, NULL, 0), 0);
	return raw_wait(host, cmd->cid, ret_cqe);
}

union nvme_cmd raw_rw(uint8_t opcode, uint16_t cid, uint32_t block, uint32_t nr_blocks)
{
	union nvme_cmd cmd = { .opcode = opcode, .flags = NVME_CMD_PSDT_SGL, .cid = cid, .nsid = 1 };

	cmd.rw.slba = block;
	cmd.rw.nlb = (uint16_t)(nr_blocks - 1);
	return cmd;
}

void raw_keyed(const struct raw_host *host, union nvme_cmd *cmd, uint32_t at, uint32_t len)
{
	nvme_keyed_sgl_set(&cmd->keyed_sgl, (uintptr_t)host->mem + at, len, rnic_mr_rkey(host->mr), NVME_SGL_KEYED);
}

union nvme_cmd raw_connect_cmd(struct raw_host *host, uint16_t qid, uint16_t depth, uint16_t cntlid)
{
	struct nvme_connect_data data = { .cntlid = cntlid };
	union nvme_cmd cmd = { .connect = { .opcode = NVME_OPC_FABRICS,
					    .flags = NVME_CMD_PSDT_SGL,
					    .fctype = NVME_FCTYPE_CONNECT,
					    .qid = qid,
					    .sqsize = depth - 1,
					    .kato_ms = qid ? 0 : 120000 } };

	memset(data.hostid, 0x11, sizeof(data.hostid));
	strcpy(data.subnqn, RAW_NQN);
	strcpy(data.hostnqn, RAW_HOSTNQN);
	memcpy(host->mem, &data, sizeof(data));
	raw_keyed(host, &cmd, 0, sizeof(data));
	return cmd;
}

static fiber_fn void enable(struct raw_host *admin)
{
	union nvme_cmd cmd = { .opcode = NVME_OPC_FABRICS, .flags = NVME_CMD_PSDT_SGL };
	struct nvme_cqe cqe = { 0 };

	cmd.property.fctype = NVME_FCTYPE_PROPERTY_SET;
	cmd.property.ofst = NVME_PROP_CC;
	cmd.property.value = NVME_CC_EN | 6u << NVME_CC_IOSQES_SHIFT | 4u << NVME_CC_IOCQES_SHIFT;
	ck_assert_uint_eq(raw_execute(admin, &cmd, NULL), 0);
	cmd.property.fctype = NVME_FCTYPE_PROPERTY_GET;
	cmd.property.ofst = NVME_PROP_CSTS;
	cmd.property.value = 0;
	while (!(cqe.dw0 & NVME_CSTS_RDY))
		ck_assert_uint_eq(raw_execute(admin, &cmd, &cqe), 0);
	cmd = (union nvme_cmd){ .opcode = NVME_ADMIN_SET_FEATURES, .flags = NVME_CMD_PSDT_SGL };
	cmd.cdw10 = NVME_FID_NR_QUEUES;
	cmd.cdw11 = 63u << 16 | 63;
	ck_assert_uint_eq(raw_execute(admin, &cmd, NULL), 0);
}

fiber_fn void raw_up(struct raw_ctrlr *ctrlr, const struct stream_addr *addr, uint16_t depth)
{
	struct raw_request request = raw_request(0, 32);
	struct nvme_cqe cqe;
	union nvme_cmd cmd;

	raw_ask(&ctrlr->admin, addr, &request);
	ck_assert(raw_wait_cm(&ctrlr->admin));
	ck_assert_uint_eq(ctrlr->admin.crqsize, 32);
	cmd = raw_connect_cmd(&ctrlr->admin, 0, 32, NVME_CNTLID_DYNAMIC);
	ck_assert_uint_eq(raw_execute(&ctrlr->admin, &cmd, &cqe), 0);
	ctrlr->cntlid = cqe.connect.cntlid;
	enable(&ctrlr->admin);
	request = raw_request(1, depth);
	request.cm.cntlid = ctrlr->cntlid;
	raw_ask(&ctrlr->io, addr, &request);
	ck_assert(raw_wait_cm(&ctrlr->io));
	cmd = raw_connect_cmd(&ctrlr->io, 1, depth, ctrlr->cntlid);
	ck_assert_uint_eq(raw_execute(&ctrlr->io, &cmd, NULL), 0);
}

fiber_fn void raw_down(struct raw_ctrlr *ctrlr)
{
	raw_close(&ctrlr->io, true);
	raw_close(&ctrlr->admin, true);
}

/* --- what no host should say ------------------------------------------------------------------------------------------------------ */

struct bad_sgl {
	struct nvme_sgl sgl;
	uint8_t opcode;
	uint32_t capsule_len;
	uint16_t status;
};

static const struct bad_sgl bad_sgls[] = {
	/* in the capsule */
	{ { .addr = 0xfffffffffffffe00, .len = 4096, .type = NVME_SGL_IN_CAPSULE }, NVME_IO_WRITE, 4096, NVME_SC_SGL_OFFSET_INVALID },
	{ { .addr = 4097, .len = 4096, .type = NVME_SGL_IN_CAPSULE }, NVME_IO_WRITE, 4096, NVME_SC_SGL_OFFSET_INVALID },
	{ { .addr = 1, .len = 4096, .type = NVME_SGL_IN_CAPSULE }, NVME_IO_WRITE, 4096, NVME_SC_SGL_LENGTH_INVALID },
	{ { .addr = 0, .len = 4096, .type = NVME_SGL_IN_CAPSULE }, NVME_IO_WRITE, 4095, NVME_SC_SGL_LENGTH_INVALID },
	{ { .addr = 0, .len = 4096, .type = NVME_SGL_IN_CAPSULE }, NVME_IO_WRITE, 0, NVME_SC_SGL_LENGTH_INVALID },
	{ { .addr = 0, .len = 4096, .type = NVME_SGL_IN_CAPSULE }, NVME_IO_READ, 4096, NVME_SC_SGL_TYPE_INVALID },
	{ { .addr = 0, .len = 0xffffffff, .type = NVME_SGL_IN_CAPSULE }, NVME_IO_WRITE, 4096, NVME_SC_SGL_LENGTH_INVALID },
	/* lists */
	{ { .addr = 0, .len = 17 * 16, .type = NVME_SGL_LIST_IN_CAPSULE }, NVME_IO_WRITE, 4096, NVME_SC_INVALID_SGL_COUNT },
	{ { .addr = 0, .len = 0xfffffff0, .type = NVME_SGL_LIST_IN_CAPSULE }, NVME_IO_WRITE, 4096, NVME_SC_INVALID_SGL_SEGMENT },
	{ { .addr = 0xfffffffffffffff0, .len = 32, .type = NVME_SGL_LIST_IN_CAPSULE }, NVME_IO_WRITE, 4096, NVME_SC_SGL_OFFSET_INVALID },
	{ { .addr = 32, .len = 16, .type = NVME_SGL_LIST_IN_CAPSULE }, NVME_IO_READ, 47, NVME_SC_INVALID_SGL_SEGMENT },
	{ { .addr = 0, .len = 0, .type = NVME_SGL_LIST_IN_CAPSULE }, NVME_IO_READ, 4096, NVME_SC_INVALID_SGL_SEGMENT },
	{ { .addr = 0, .len = 24, .type = NVME_SGL_LIST_IN_CAPSULE }, NVME_IO_READ, 4096, NVME_SC_INVALID_SGL_SEGMENT },
	{ { .addr = 0, .len = 16, .type = NVME_SGL_LIST_IN_CAPSULE }, NVME_IO_READ, 4096, NVME_SC_SGL_TYPE_INVALID }, /* of zeros */
	/* other types */
	{ { .addr = 0, .len = 4096, .type = NVME_SGL_TRANSPORT }, NVME_IO_READ, 0, NVME_SC_SGL_TYPE_INVALID },
	{ { .addr = 0, .len = 4096, .type = 0x00 }, NVME_IO_READ, 0, NVME_SC_SGL_TYPE_INVALID },
	{ { .addr = 0, .len = 4096, .type = 0x20 }, NVME_IO_READ, 0, NVME_SC_SGL_TYPE_INVALID },
	{ { .addr = 0, .len = 16, .type = 0x30 }, NVME_IO_READ, 4096, NVME_SC_SGL_TYPE_INVALID },
	/* keyed: the length stands in three bytes, the key behind it */
	{ { .addr = 0xffffffffffffff00, .len = 4096, .type = NVME_SGL_KEYED }, NVME_IO_READ, 0, NVME_SC_SGL_LENGTH_INVALID },
	{ { .addr = 0x1000, .len = 4095, .type = NVME_SGL_KEYED }, NVME_IO_READ, 0, NVME_SC_SGL_LENGTH_INVALID },
	{ { .addr = 0x1000, .len = 0, .type = NVME_SGL_KEYED }, NVME_IO_WRITE, 0, NVME_SC_SGL_LENGTH_INVALID },
	{ { .addr = 0x1000, .len = 8192, .type = NVME_SGL_KEYED }, NVME_IO_WRITE, 0, NVME_SC_SGL_LENGTH_INVALID },
};

fiber_fn void raw_try_bad_sgls(struct raw_host *host)
{
	static const uint8_t zeros[4096];

	for (unsigned i = 0; i < sizeof(bad_sgls) / sizeof(bad_sgls[0]); i++) {
		union nvme_cmd cmd = raw_rw(bad_sgls[i].opcode, (uint16_t)i, 0, 8);
		uint16_t status;

		cmd.sgl = bad_sgls[i].sgl;
		ck_assert_int_eq(raw_send(host, &cmd, zeros, bad_sgls[i].capsule_len), 0);
		status = raw_wait(host, (uint16_t)i, NULL);
		ck_assert_msg(status == bad_sgls[i].status, "case %u: status %03xh", i, status);
	}
}
