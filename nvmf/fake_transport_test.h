/*
 * For this room's tests: a transport without a network, whose hosts are fibers on the app thread, and a bdev
 * that can be held, failed and asked what it was given.
 *
 * A host's command goes to its connection's thread in a message and its completion comes back in one, as over
 * a wire; what is in between is nvmf alone.
 */
#ifndef NVMF_FAKE_TRANSPORT_TEST_H
#define NVMF_FAKE_TRANSPORT_TEST_H

#ifndef NVMF_FUZZ /* the fuzzer brings its own ck_assert */
#include "runtime/suite.h"
#endif
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/bdev.h"
#include "nvmf/gate_bdev_test.h"
#include "nvmf/internal.h"
#include "runtime/sim.h"

#define FAKE_NR_REQS 160
#define FAKE_LOST    0x7ffu /* status of a command whose connection went before its response */

#define SUBNQN	"nqn.2024-01.example.ferrule:sub"
#define HOSTNQN "nqn.2024-01.example.ferrule:host"

struct fake_conn;

/* A command of a host.  Owner: the host's fiber, but while it is submitted. */
struct fake_cmd {
	union nvme_cmd cmd;
	void *data; /* the host's memory, either way */
	uint32_t len;
	bool in_capsule;
	uint32_t split; /* in-capsule data comes in pieces of so many bytes; 0: in one */
	bool hold_data; /* do not send the data of a write until fake_send_data() */
	bool fail_data; /* the data's digest is wrong */
	bool hold_back; /* the transport does not begin it until it is aborted */
	/* filled in */
	struct nvme_cqe cqe;
	uint16_t status;
	uint32_t received; /* bytes that came */
	bool done;
	struct fiber_wait wait;
	bool waited;
	struct fake_conn *conn;
	struct nvmf_req *req;
	bool data_wanted; /* the target asked for the held data */
};

struct fake_req {
	struct nvmf_req req;
	struct fake_cmd *cmd;
};

struct fake_conn {
	struct nvmf_qpair qpair;
	struct fake_req reqs[FAKE_NR_REQS];
	void *listener;
	bool gone, close_called, close_was_graceful, disconnecting, dropped;
	uint16_t next_cid;
	struct fake_conn *next; /* all of a run; freed at its end, since messages may still name them */
	struct fake_cmd *held_back;
	struct fiber_wait *gone_wait;
	struct fiber_wait ready;
};

/* What the fake transport listens on, so that a test can connect "to an address". */
struct fake_listener {
	struct nvmf_target *target;
	struct stream_addr addr;
};

static uint16_t fake_taken_port; /* listening there fails */
static unsigned fake_nr_listens;
static struct fake_listener *fake_listeners[16];
static struct fake_conn *fake_conns;

/* --- the transport ------------------------------------------------------------------------- */

static void fake_opts_default(struct nvmf_transport_opts *opts)
{
	*opts = (struct nvmf_transport_opts){
		.max_queue_depth = 128,
		.max_io_qpairs_per_ctrlr = 127,
		.in_capsule_data_size = 4096,
		.max_io_size = NVMF_MAX_XFER,
		.max_aq_depth = 128,
		.abort_timeout_sec = 1,
	};
}

static int fake_group_create(struct nvmf_group *group, void **ret_tgroup)
{
	*ret_tgroup = group;
	return 0;
}

static void fake_group_destroy(struct nvmf_group *group, void *tgroup)
{
	ck_assert_ptr_eq(group, tgroup);
}

fiber_fn static int fake_listen(const struct nvmf_listen_opts *opts, struct nvmf_target *target,
				void **ret_listener)
{
	struct fake_listener *listener;

	if (opts->addr.port == fake_taken_port)
		return -EADDRINUSE;
	listener = calloc(1, sizeof(*listener));
	listener->target = target;
	listener->addr = opts->addr;
	for (unsigned i = 0; i < 16; i++) {
		if (!fake_listeners[i]) {
			fake_listeners[i] = listener;
			break;
		}
	}
	fake_nr_listens++;
	*ret_listener = listener;
	return 0;
}

fiber_fn static void fake_stop_listen(void *listener)
{
	for (unsigned i = 0; i < 16; i++) {
		if (fake_listeners[i] == listener)
			fake_listeners[i] = NULL;
	}
	fake_nr_listens--;
	free(listener);
}

static struct fake_listener *fake_listener_at(uint16_t port)
{
	for (unsigned i = 0; i < 16; i++) {
		if (fake_listeners[i] && fake_listeners[i]->addr.port == port)
			return fake_listeners[i];
	}
	return NULL;
}

static uint16_t fake_parse_sgl(struct nvmf_req *req)
{
	struct fake_cmd *cmd = container_of(req, struct fake_req, req)->cmd;
	uint32_t off = 0;

	req->sgl_len = req->cmd.sgl.len;
	req->in_capsule = req->cmd.sgl.type == NVME_SGL_IN_CAPSULE;
	if (req->cmd.sgl.type == NVME_SGL_TRANSPORT)
		return NVME_SC_SUCCESS;
	if (!req->in_capsule)
		return NVME_SC_SGL_TYPE_INVALID;
	if (req->cmd.sgl.addr || req->sgl_len != cmd->len)
		return NVME_SC_SGL_OFFSET_INVALID;
	for (req->iovcnt = 0; off < cmd->len; req->iovcnt++) {
		uint32_t n = cmd->split && cmd->split < cmd->len - off && req->iovcnt < NVMF_REQ_IOVS - 1 ?
				     cmd->split :
				     cmd->len - off;

		req->iov[req->iovcnt] = (struct iovec){ (char *)cmd->data + off, n };
		off += n;
	}
	return NVME_SC_SUCCESS;
}

static void fake_copy(struct nvmf_req *req, struct fake_cmd *cmd, bool to_host)
{
	uint32_t off = 0;

	ck_assert_uint_le(req->len, cmd->len);
	for (unsigned i = 0; off < req->len; i++) {
		uint32_t n = req->iov[i].iov_len < req->len - off ? req->iov[i].iov_len : req->len - off;

		ck_assert_uint_lt(i, req->iovcnt);
		if (to_host)
			memcpy((char *)cmd->data + off, req->iov[i].iov_base, n);
		else
			memcpy(req->iov[i].iov_base, (char *)cmd->data + off, n);
		off += n;
	}
}

static void fake_host_done(void *arg)
{
	struct fake_cmd *cmd = arg;

	ck_assert(!cmd->done);
	cmd->done = true;
	if (cmd->waited)
		fiber_wake(&cmd->wait, 0);
}

static void fake_end(struct fake_cmd *cmd, uint16_t status)
{
	cmd->status = status;
	cmd->req = NULL;
	thread_send(runtime_app_thread(), fake_host_done, cmd);
}

static void fake_receive_data(struct nvmf_req *req)
{
	struct fake_cmd *cmd = container_of(req, struct fake_req, req)->cmd;

	cmd->data_wanted = true;
	if (cmd->hold_data)
		return;
	if (cmd->fail_data) {
		nvmf_req_data_failed(req, NVME_SC_TRANSIENT_TRANSPORT_ERROR);
		return;
	}
	fake_copy(req, cmd, false);
	nvmf_req_data_received(req);
}

static void fake_complete(struct nvmf_req *req)
{
	struct fake_conn *conn = container_of(req->qpair, struct fake_conn, qpair);
	struct fake_cmd *cmd = container_of(req, struct fake_req, req)->cmd;
	uint16_t status = nvme_cqe_status(&req->cqe);

	ck_assert_int_eq(req->cqe.cid, cmd->cmd.cid);
	if (req->xfer == NVMF_XFER_TO_HOST && !nvme_status_code(status) && !conn->disconnecting) {
		fake_copy(req, cmd, true);
		cmd->received = req->len;
	} else if (nvme_status_code(status)) {
		ck_assert_uint_eq(req->len, 0);
	}
	cmd->cqe = req->cqe;
	nvmf_req_release(req);
	fake_end(cmd, conn->disconnecting ? FAKE_LOST : status);
}

static void fake_conn_gone_msg(void *arg)
{
	struct fake_conn *conn = arg;

	conn->gone = true;
	if (conn->gone_wait)
		fiber_wake(conn->gone_wait, 0);
}

static void fake_gone(void *arg)
{
	struct fake_conn *conn = arg;

	for (unsigned i = 0; i < FAKE_NR_REQS; i++)
		ck_assert_int_eq(conn->reqs[i].req.state, NVMF_REQ_FREE);
	thread_send(runtime_app_thread(), fake_conn_gone_msg, conn);
}

/* The connection ends, on its thread: data that was awaited does not come any more. */
static void fake_disconnect(void *arg)
{
	struct fake_conn *conn = arg;

	if (conn->disconnecting)
		return;
	conn->disconnecting = true;
	nvmf_qpair_disconnect(&conn->qpair, fake_gone, conn);
	for (unsigned i = 0; i < FAKE_NR_REQS; i++) {
		struct nvmf_req *req = &conn->reqs[i].req;

		if (req->state == NVMF_REQ_NEED_DATA) {
			nvmf_req_release(req);
			fake_end(conn->reqs[i].cmd, FAKE_LOST);
		}
	}
}

static void fake_close(struct nvmf_qpair *qpair, bool graceful)
{
	struct fake_conn *conn = container_of(qpair, struct fake_conn, qpair);

	ck_assert(!conn->close_called);
	conn->close_called = true;
	conn->close_was_graceful = graceful;
	thread_send(thread_current(), fake_disconnect, conn);
}

static bool fake_abort_held(struct nvmf_qpair *qpair, uint16_t cid)
{
	struct fake_conn *conn = container_of(qpair, struct fake_conn, qpair);
	struct fake_cmd *cmd = conn->held_back;

	if (!cmd || cmd->cmd.cid != cid)
		return false;
	conn->held_back = NULL;
	nvmf_req_begin_aborted(cmd->req);
	return true;
}

static void fake_local_addr(struct nvmf_qpair *qpair, struct stream_addr *ret_addr)
{
	*ret_addr = (struct stream_addr){ .host = "192.0.2.1", .port = 4420, .family = AF_INET };
}

static void fake_peer_addr(struct nvmf_qpair *qpair, struct stream_addr *ret_addr)
{
	*ret_addr = (struct stream_addr){ .host = "192.0.2.99", .port = 40000, .family = AF_INET };
}

static const struct nvmf_transport_ops fake_ops = {
	.name = "TCP",
	.trtype = NVME_TRTYPE_TCP,
	.sgls = NVME_SGLS_OFFSET | NVME_SGLS_TRANSPORT,
	.max_descriptors = 1,
	.discovery_port = true,
	.opts_default = fake_opts_default,
	.group_create = fake_group_create,
	.group_destroy = fake_group_destroy,
	.listen = fake_listen,
	.stop_listen = fake_stop_listen,
	.parse_sgl = fake_parse_sgl,
	.receive_data = fake_receive_data,
	.complete = fake_complete,
	.close = fake_close,
	.abort_held = fake_abort_held,
	.local_addr = fake_local_addr,
	.peer_addr = fake_peer_addr,
};

/* --- hosts --------------------------------------------------------------------------------- */

static void fake_accept(void *arg)
{
	struct fake_conn *conn = arg;
	struct nvmf_group *group = conn->qpair.group;

	conn->qpair.ops = &fake_ops;
	conn->qpair.opts = nvmf_target_transport_opts(group->target, &fake_ops);
	conn->qpair.listener = conn->listener;
	nvmf_qpair_init(&conn->qpair, group);
	for (unsigned i = 0; i < FAKE_NR_REQS; i++)
		conn->reqs[i].req.qpair = &conn->qpair;
	fiber_wake(&conn->ready, 0);
}

/* A connection on which nothing has been said. */
fiber_fn static inline struct fake_conn *fake_open(struct nvmf_target *target, uint16_t port)
{
	struct fake_conn *conn = calloc(1, sizeof(*conn));

	conn->next = fake_conns;
	fake_conns = conn;
	conn->listener = fake_listener_at(port);
	conn->qpair.group = nvmf_target_pick_group(target);
	fiber_wait_init(&conn->ready);
	thread_send(nvmf_group_thread(conn->qpair.group), fake_accept, conn);
	fiber_wait(&conn->ready);
	return conn;
}

static struct fake_req *fake_take(struct fake_cmd *cmd)
{
	struct fake_conn *conn = cmd->conn;

	for (unsigned i = 0; i < FAKE_NR_REQS && !conn->disconnecting; i++) {
		struct fake_req *freq = &conn->reqs[i];

		if (freq->req.state != NVMF_REQ_FREE ||
		    (conn->held_back && conn->held_back->req == &freq->req))
			continue;
		freq->cmd = cmd;
		freq->req.cmd = cmd->cmd;
		cmd->req = &freq->req;
		return freq;
	}
	return NULL;
}

static void fake_arrive(void *arg)
{
	struct fake_cmd *cmd = arg;
	struct fake_conn *conn = cmd->conn;

	struct fake_req *freq = fake_take(cmd);

	if (!freq)
		fake_end(cmd, FAKE_LOST);
	else if (cmd->hold_back)
		conn->held_back = cmd;
	else
		nvmf_req_begin(&freq->req);
}

/* Sends a command without waiting; opcode, NSID and what is particular are set, with data, len and
 * in_capsule. */
fiber_fn static inline void fake_submit(struct fake_conn *conn, struct fake_cmd *cmd)
{
	cmd->conn = conn;
	cmd->done = cmd->waited = cmd->data_wanted = false;
	cmd->received = 0;
	cmd->cmd.cid = conn->next_cid++;
	cmd->cmd.flags = (cmd->cmd.flags & NVME_CMD_FUSE_MASK) | NVME_CMD_PSDT_SGL;
	if (!cmd->cmd.sgl.type) {
		cmd->cmd.sgl.type = cmd->in_capsule ? NVME_SGL_IN_CAPSULE : NVME_SGL_TRANSPORT;
		cmd->cmd.sgl.len = cmd->len;
	}
	thread_send(nvmf_group_thread(conn->qpair.group), fake_arrive, cmd);
}

fiber_fn static inline uint16_t fake_wait(struct fake_cmd *cmd)
{
	if (!cmd->done) {
		fiber_wait_init(&cmd->wait);
		cmd->waited = true;
		fiber_wait(&cmd->wait);
	}
	return nvme_status_code(cmd->status);
}

fiber_fn static inline uint16_t fake_run(struct fake_conn *conn, struct fake_cmd *cmd)
{
	fake_submit(conn, cmd);
	return fake_wait(cmd);
}

static int fake_send_data_fn(void *arg)
{
	struct fake_cmd *cmd = arg;

	if (!cmd->req || cmd->req->state != NVMF_REQ_NEED_DATA)
		return -ENOENT;
	if (cmd->fail_data) {
		nvmf_req_data_failed(cmd->req, NVME_SC_TRANSIENT_TRANSPORT_ERROR);
		return 0;
	}
	fake_copy(cmd->req, cmd, false);
	nvmf_req_data_received(cmd->req);
	return 0;
}

/* The data of a write that was held. */
fiber_fn static inline int fake_send_data(struct fake_cmd *cmd)
{
	return thread_call(nvmf_group_thread(cmd->conn->qpair.group), fake_send_data_fn, cmd);
}

fiber_fn static inline void fake_wait_gone(struct fake_conn *conn)
{
	struct fiber_wait wait;

	if (!conn->gone) {
		fiber_wait_init(&wait);
		conn->gone_wait = &wait;
		fiber_wait(&wait);
		conn->gone_wait = NULL;
	}
}

/* The host drops the connection, and it is gone. */
fiber_fn static inline void fake_drop(struct fake_conn *conn)
{
	if (!conn)
		return;
	if (!conn->gone)
		thread_send(nvmf_group_thread(conn->qpair.group), fake_disconnect, conn);
	fake_wait_gone(conn);
}

/* --- a host that knows its way ------------------------------------------------------------- */

struct fake_connect {
	const char *subnqn, *hostnqn;
	uint16_t qid, cntlid;
	uint16_t sqsize; /* 0's based; 0: 31 */
	uint32_t kato_ms;
	uint8_t host_id; /* every byte of it */
	uint8_t cattr;
};

static inline void fake_connect_fill(struct fake_cmd *cmd, struct nvme_connect_data *data,
				     const struct fake_connect *how)
{
	memset(cmd, 0, sizeof(*cmd));
	memset(data, 0, sizeof(*data));
	cmd->cmd.opcode = NVME_OPC_FABRICS;
	cmd->cmd.connect.fctype = NVME_FCTYPE_CONNECT;
	cmd->cmd.connect.qid = how->qid;
	cmd->cmd.connect.sqsize = how->sqsize ? how->sqsize : 31;
	cmd->cmd.connect.kato_ms = how->kato_ms;
	cmd->cmd.connect.cattr = how->cattr;
	cmd->data = data;
	cmd->len = sizeof(*data);
	cmd->in_capsule = true;
	memset(data->hostid, how->host_id ? how->host_id : 0x11, sizeof(data->hostid));
	data->cntlid = how->qid ? how->cntlid : 0xffff;
	snprintf(data->subnqn, sizeof(data->subnqn), "%s", how->subnqn ? how->subnqn : SUBNQN);
	snprintf(data->hostnqn, sizeof(data->hostnqn), "%s", how->hostnqn ? how->hostnqn : HOSTNQN);
}

/* Connect as it should be; the status. */
fiber_fn static inline uint16_t fake_connect(struct fake_conn *conn, const struct fake_connect *how,
					     uint16_t *ret_cntlid)
{
	struct nvme_connect_data data;
	struct fake_cmd cmd;
	uint16_t status;

	fake_connect_fill(&cmd, &data, how);
	status = fake_run(conn, &cmd);
	if (ret_cntlid)
		*ret_cntlid = cmd.cqe.connect.cntlid;
	return status;
}

fiber_fn static inline uint16_t fake_property_set(struct fake_conn *conn, uint32_t offset, uint32_t value)
{
	struct fake_cmd cmd = { 0 };

	cmd.cmd.opcode = NVME_OPC_FABRICS;
	cmd.cmd.property.fctype = NVME_FCTYPE_PROPERTY_SET;
	cmd.cmd.property.ofst = offset;
	cmd.cmd.property.value = value;
	return fake_run(conn, &cmd);
}

fiber_fn static inline uint16_t fake_property_get(struct fake_conn *conn, uint32_t offset, bool wide,
						  uint64_t *ret_value)
{
	struct fake_cmd cmd = { 0 };
	uint16_t status;

	cmd.cmd.opcode = NVME_OPC_FABRICS;
	cmd.cmd.property.fctype = NVME_FCTYPE_PROPERTY_GET;
	cmd.cmd.property.ofst = offset;
	cmd.cmd.property.attrib = wide;
	status = fake_run(conn, &cmd);
	*ret_value = cmd.cqe.result;
	return status;
}

#define FAKE_CC_ENABLE (NVME_CC_EN | 6u << NVME_CC_IOSQES_SHIFT | 4u << NVME_CC_IOCQES_SHIFT)

struct fake_host {
	struct fake_conn *admin, *io[4];
	uint16_t cntlid;
};

/* An enabled controller with so many I/O queues; queue i is io[i - 1]. */
fiber_fn static inline void fake_host_connect(struct fake_host *host, struct nvmf_target *target,
					      const struct fake_connect *how, unsigned nr_io)
{
	struct fake_connect io = *how;

	memset(host, 0, sizeof(*host));
	host->admin = fake_open(target, 4420);
	ck_assert_uint_eq(fake_connect(host->admin, how, &host->cntlid), 0);
	ck_assert_uint_eq(fake_property_set(host->admin, NVME_PROP_CC, FAKE_CC_ENABLE), 0);
	io.cntlid = host->cntlid;
	io.sqsize = 127;
	for (unsigned i = 0; i < nr_io; i++) {
		io.qid = (uint16_t)(i + 1);
		host->io[i] = fake_open(target, 4420);
		ck_assert_uint_eq(fake_connect(host->io[i], &io, NULL), 0);
	}
}

fiber_fn static inline void fake_host_drop(struct fake_host *host)
{
	for (unsigned i = 0; i < 4; i++)
		fake_drop(host->io[i]);
	fake_drop(host->admin);
}

static inline struct fake_cmd fake_rw(uint8_t opcode, uint32_t nsid, uint64_t slba, uint32_t nr_blocks,
				      void *data, uint32_t len)
{
	struct fake_cmd cmd = { .data = data, .len = len };

	cmd.cmd.opcode = opcode;
	cmd.cmd.nsid = nsid;
	cmd.cmd.rw.slba = slba;
	cmd.cmd.rw.nlb = (uint16_t)(nr_blocks - 1);
	return cmd;
}

fiber_fn static inline uint16_t fake_io(struct fake_conn *conn, uint8_t opcode, uint32_t nsid, uint64_t slba,
					uint32_t nr_blocks, void *data)
{
	bool has_data = opcode == NVME_IO_READ || opcode == NVME_IO_WRITE || opcode == NVME_IO_COMPARE;
	struct fake_cmd cmd = fake_rw(opcode, nsid, slba, nr_blocks, data, has_data ? nr_blocks * 512 : 0);

	return fake_run(conn, &cmd);
}

fiber_fn static inline uint16_t fake_identify(struct fake_conn *conn, uint8_t cns, uint32_t nsid, void *page)
{
	struct fake_cmd cmd = { .data = page, .len = 4096 };

	cmd.cmd.opcode = NVME_ADMIN_IDENTIFY;
	cmd.cmd.nsid = nsid;
	cmd.cmd.identify.cns = cns;
	cmd.cmd.identify.cntid = 0xffff;
	memset(page, 0xaa, 4096);
	return fake_run(conn, &cmd);
}

fiber_fn static inline uint16_t fake_log(struct fake_conn *conn, uint8_t lid, uint8_t lsp, uint64_t offset,
					 void *page, uint32_t len)
{
	struct fake_cmd cmd = { .data = page, .len = len };

	cmd.cmd.opcode = NVME_ADMIN_GET_LOG_PAGE;
	cmd.cmd.nsid = NVME_NSID_ALL;
	cmd.cmd.get_log.lid = lid;
	cmd.cmd.get_log.lsp = lsp;
	cmd.cmd.get_log.numdl = (uint16_t)(len / 4 - 1);
	cmd.cmd.get_log.numdu = (uint16_t)((len / 4 - 1) >> 16);
	cmd.cmd.get_log.lpol = (uint32_t)offset;
	cmd.cmd.get_log.lpou = (uint32_t)(offset >> 32);
	memset(page, 0xaa, len);
	return fake_run(conn, &cmd);
}

fiber_fn static inline uint16_t fake_get_feature(struct fake_conn *conn, uint8_t fid, unsigned sel,
						 uint32_t cdw11, uint32_t *ret_dw0)
{
	struct fake_cmd cmd = { 0 };
	uint16_t status;

	cmd.cmd.opcode = NVME_ADMIN_GET_FEATURES;
	cmd.cmd.cdw10 = fid | sel << NVME_FEATURE_SEL_SHIFT;
	cmd.cmd.cdw11 = cdw11;
	status = fake_run(conn, &cmd);
	*ret_dw0 = cmd.cqe.dw0;
	return status;
}

fiber_fn static inline uint16_t fake_set_feature(struct fake_conn *conn, uint32_t cdw10, uint32_t cdw11)
{
	struct fake_cmd cmd = { 0 };

	cmd.cmd.opcode = NVME_ADMIN_SET_FEATURES;
	cmd.cmd.cdw10 = cdw10;
	cmd.cmd.cdw11 = cdw11;
	return fake_run(conn, &cmd);
}

/* --- the stage ----------------------------------------------------------------------------- */

struct stage {
	struct nvmf_target *target;
	struct nvmf_subsystem *sub;
	struct bdev *malloc_bdev;
};

static void (*stage_body)(struct stage *stage);

/* A target on two reactors with the fake transport, and a subsystem that anyone may use: namespace 1 is 16
 * MiB of malloc. */
fiber_fn static void stage_main(void *arg)
{
	static const uuid_t uuid = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
	struct nvmf_target_opts target_opts = { .model = "Model" };
	struct nvmf_subsystem_opts sub_opts = { .nqn = SUBNQN, .allow_any_host = true };
	struct nvmf_ns_opts ns_opts = { .bdev_name = "mem" };
	struct stream_addr addr = { .host = "192.0.2.1", .port = 4420, .family = AF_INET };
	struct nvmf_transport_opts opts;
	struct stage stage = { 0 };
	uint32_t nsid;

	fake_taken_port = 0;
	fake_nr_listens = 0;
	ck_assert_int_eq(nvmf_target_create(&target_opts, &stage.target), 0);
	ck_assert_int_eq(nvmf_target_register_transport(stage.target, &fake_ops), 0);
	ck_assert_int_eq(nvmf_transport_default_opts(stage.target, "tcp", &opts), 0);
	ck_assert_int_eq(nvmf_transport_create(stage.target, "TCP", &opts), 0);
	ck_assert_int_eq(bdev_malloc_create("mem", uuid, 32768, 512, &stage.malloc_bdev), 0);
	ck_assert_int_eq(nvmf_subsystem_create(stage.target, &sub_opts, &stage.sub), 0);
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage.sub, &ns_opts, &nsid), 0);
	ck_assert_uint_eq(nsid, 1);
	ck_assert_int_eq(nvmf_subsystem_add_listener(stage.sub, "tcp", &addr), 0);
	stage_body(&stage);
	nvmf_target_destroy(stage.target);
	ck_assert_uint_eq(fake_nr_listens, 0);
	bdev_unregister_all();
	while (fake_conns) {
		struct fake_conn *conn = fake_conns;

		fake_conns = conn->next;
		free(conn);
	}
	runtime_stop(0);
}

#ifndef NVMF_FUZZ

static inline void stage_run(void (*body)(struct stage *stage))
{
	for (uint64_t seed = 1; seed <= 5; seed++) {
		const struct sim_opts opts = { .seed = seed, .nr_reactors = 2 };

		stage_body = body;
		ck_assert_msg(sim_run(&opts, stage_main, NULL) == 0, "seed %lu", (unsigned long)seed);
	}
}

/* A test whose body runs on the stage, with five orders of events. */
#define STAGE_TEST(name)                                       \
	fiber_fn static void name##_body(struct stage *stage); \
	START_TEST(name)                                       \
	{                                                      \
		stage_run(name##_body);                        \
	}                                                      \
	END_TEST                                               \
	fiber_fn static void name##_body(struct stage *stage)

static inline int stage_suite(const char *name, const TTest *const *tests, size_t nr)
{
	log_set_level(LOG_ERROR);
	return run_suite(name, tests, nr);
}

static inline bool all_bytes_are(const void *buf, size_t from, size_t to, uint8_t byte)
{
	for (size_t i = from; i < to; i++) {
		if (((const uint8_t *)buf)[i] != byte)
			return false;
	}
	return true;
}

#define STAGE_SUITE(tests) stage_suite(__FILE__, tests, sizeof(tests) / sizeof(tests[0]))

#endif
#endif
