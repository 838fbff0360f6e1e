/* Our initiator against our target, over RDMA, on the simulated fabric. */
#include <errno.h>

#include "nvme/initiator.h"
#include "transport/rdma/world_test.h"

#define NR_REQUESTS 64u

static struct nvme_connect_opts host_opts(const char *subnqn)
{
	struct nvme_connect_opts o;

	nvme_connect_opts_init(&o);
	o.trtype = NVME_TRTYPE_RDMA;
	o.addr = addr;
	strcpy(o.subnqn, subnqn);
	return o;
}

static fiber_fn struct nvme_ctrlr *connect_host(void)
{
	struct nvme_connect_opts o = host_opts(RAW_NQN);
	struct nvme_ctrlr *ctrlr = NULL;
	struct nvme_error error = { 0 };

	ck_assert_msg(nvme_ctrlr_connect(&o, &ctrlr, &error) == 0, "%s", error.text);
	return ctrlr;
}

static fiber_fn struct nvme_qpair *connect_queue(struct nvme_ctrlr *ctrlr, uint32_t size)
{
	struct nvme_qpair *qpair = NULL;
	struct nvme_error error = { 0 };

	ck_assert_uint_ge(nvme_ctrlr_nr_io_queues(ctrlr), 1);
	ck_assert_msg(nvme_qpair_connect(ctrlr, 1, size, &qpair, &error) == 0, "%s", error.text);
	return qpair;
}

static fiber_fn int rw(struct nvme_qpair *qpair, uint8_t opcode, uint32_t block, void *buf, uint32_t len)
{
	union nvme_cmd cmd;

	nvme_cmd_rw(&cmd, opcode, 1, block, len / 512);
	return nvme_execute(qpair, &cmd, buf, len, NULL);
}

SIM_TEST(what_is_written_is_read_in_every_size)
{
	static const uint32_t lens[] = { 512, 4096, 4608, 65536, 1048576 };
	struct nvme_ctrlr *ctrlr = connect_host();
	struct nvme_qpair *qpair = connect_queue(ctrlr, 32);
	uint8_t *back = malloc(1u << 20);

	ck_assert_uint_eq(nvme_ctrlr_max_xfer_bytes(ctrlr), 1u << 20);
	ck_assert_uint_ne(nvme_ctrlr_id(ctrlr)->sgls & NVME_SGLS_KEYED, 0);
	ck_assert_uint_eq(nvme_ctrlr_id(ctrlr)->msdbd, 16);
	for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		ck_assert_int_eq(rw(qpair, NVME_IO_WRITE, 8 * i, data + i, lens[i]), 0);
		memset(back, 0, lens[i]);
		ck_assert_int_eq(rw(qpair, NVME_IO_READ, 8 * i, back, lens[i]), 0);
		ck_assert_int_eq(memcmp(back, data + i, lens[i]), 0);
	}
	free(back);
	/* Each read, and each write that is larger than a capsule, had a key of its own, which went with the response. */
	ck_assert_uint_ge(rnic_sim_stats()->nr_invalidated, addr.family == AF_INET ? 8 : 0);
	ck_assert(addr.family == AF_INET || !rnic_sim_stats()->nr_invalidated);
	nvme_qpair_disconnect(qpair);
	nvme_ctrlr_disconnect(ctrlr);
}

struct load {
	struct nvme_request req;
	struct iovec iov[3];
	uint8_t *buf;
	uint16_t status;
	bool done;
};

static struct load loads[NR_REQUESTS];
static unsigned nr_done;

static void load_done(struct nvme_request *req, uint16_t status)
{
	struct load *load = container_of(req, struct load, req);

	ck_assert(!load->done);
	load->done = true;
	load->status = nvme_status_code(status);
	nr_done++;
}

/* Writes and reads of 300 KiB in three pieces, each to blocks of its own. */
static void load_start(struct nvme_qpair *qpair)
{
	nr_done = 0;
	for (unsigned i = 0; i < NR_REQUESTS; i++) {
		struct load *load = &loads[i];
		uint32_t len = 300 * 1024;

		free(load->buf);
		memset(load, 0, sizeof(*load));
		load->buf = malloc(len);
		memcpy(load->buf, data + i, len);
		load->iov[0] = (struct iovec){ load->buf, 1000 };
		load->iov[1] = (struct iovec){ load->buf + 1000, 100000 };
		load->iov[2] = (struct iovec){ load->buf + 101000, len - 101000 };
		nvme_cmd_rw(&load->req.cmd, i % 2 ? NVME_IO_READ : NVME_IO_WRITE, 1, i * 600, 600);
		load->req.iov = load->iov;
		load->req.iovcnt = 3;
		load->req.len = len;
		load->req.done = load_done;
		nvme_qpair_submit(qpair, &load->req);
	}
}

static fiber_fn void load_wait(void)
{
	while (nr_done < NR_REQUESTS)
		fiber_sleep(100);
}

static void load_free(void)
{
	for (unsigned i = 0; i < NR_REQUESTS; i++) {
		free(loads[i].buf);
		loads[i].buf = NULL;
	}
}

SIM_TEST(more_than_the_arena_holds_waits_its_turn)
{
	struct nvme_ctrlr *ctrlr = connect_host();
	struct nvme_qpair *qpair = connect_queue(ctrlr, 32);
	uint8_t *back = malloc(300 * 1024);

	load_start(qpair);
	load_wait();
	for (unsigned i = 0; i < NR_REQUESTS; i++)
		ck_assert_uint_eq(loads[i].status, 0);
	for (unsigned i = 0; i < NR_REQUESTS; i += 2) {
		ck_assert_int_eq(rw(qpair, NVME_IO_READ, i * 600, back, 300 * 1024), 0);
		ck_assert_int_eq(memcmp(back, data + i, 300 * 1024), 0);
	}
	free(back);
	load_free();
	nvme_qpair_disconnect(qpair);
	nvme_ctrlr_disconnect(ctrlr);
}

SIM_TEST(a_target_that_goes_ends_every_request_and_may_come_back)
{
	struct nvme_ctrlr *ctrlr = connect_host();
	struct nvme_qpair *qpair = connect_queue(ctrlr, 32);
	struct nvme_connect_opts o = host_opts(RAW_NQN);
	struct nvme_error error = { 0 };

	load_start(qpair);
	fiber_sleep(70);
	target_stop();
	load_wait();
	while (nvme_qpair_is_live(qpair) || nvme_qpair_is_live(nvme_ctrlr_admin(ctrlr)))
		fiber_sleep(100);
	for (unsigned i = 0; i < NR_REQUESTS; i++)
		ck_assert(loads[i].status == NVME_SC_SUCCESS || loads[i].status == NVME_SC_ABORTED_SQ_DELETION ||
			  loads[i].status == NVME_SC_HOST_PATH_ERROR);
	nvme_qpair_disconnect(qpair);
	nvme_ctrlr_disconnect(ctrlr);
	ck_assert_int_eq(nvme_ctrlr_connect(&o, &ctrlr, &error), -ECONNREFUSED);
	bdev_unregister_all();
	target_start();
	ctrlr = connect_host();
	qpair = connect_queue(ctrlr, 32);
	ck_assert_int_eq(rw(qpair, NVME_IO_WRITE, 0, data, 4096), 0);
	load_free();
	nvme_qpair_disconnect(qpair);
	nvme_ctrlr_disconnect(ctrlr);
}

/* Whatever happens to the queue pair, each request ends once and the controller can be had anew. */
static fiber_fn void ends_by(void (*blow)(void))
{
	struct nvme_ctrlr *ctrlr = connect_host();
	struct nvme_qpair *qpair = connect_queue(ctrlr, 32);

	load_start(qpair);
	fiber_sleep(60);
	blow();
	load_wait();
	ck_assert(!nvme_qpair_is_live(qpair));
	ck_assert_str_ne(nvme_qpair_error(qpair)->text, "");
	nvme_qpair_disconnect(qpair);
	nvme_ctrlr_disconnect(ctrlr);
	load_free();
	ctrlr = connect_host();
	nvme_ctrlr_disconnect(ctrlr);
}

static void breaks_every_queue_pair(void)
{
	rnic_sim_each(rnic_sim_break);
}

static void cuts_every_link(void)
{
	rnic_sim_each(rnic_sim_cut);
}

SIM_TEST(a_broken_queue_pair_ends_every_request)
{
	ends_by(breaks_every_queue_pair);
}

SIM_TEST(a_dead_link_ends_every_request)
{
	ends_by(cuts_every_link);
}

SIM_TEST(an_idle_connection_is_kept_alive)
{
	struct nvme_ctrlr *ctrlr = connect_host();
	struct nvme_qpair *qpair = connect_queue(ctrlr, 8);

	fiber_sleep(120ull * 1000000);
	ck_assert(nvme_qpair_is_live(nvme_ctrlr_admin(ctrlr)));
	ck_assert_int_eq(rw(qpair, NVME_IO_WRITE, 0, data, 4096), 0);
	nvme_qpair_disconnect(qpair);
	nvme_ctrlr_disconnect(ctrlr);
}

SIM_TEST(discovery_names_the_rdma_port)
{
	struct nvme_connect_opts o = host_opts(NVMF_DISCOVERY_NQN);
	struct nvme_discovery_log *log;
	struct nvme_error error = { 0 };
	struct nvme_ctrlr *ctrlr;
	bool found = false;

	ck_assert_msg(nvme_ctrlr_connect(&o, &ctrlr, &error) == 0, "%s", error.text);
	ck_assert_int_eq(nvme_discover(ctrlr, &log), 0);
	for (uint64_t i = 0; i < log->numrec; i++) {
		const struct nvme_discovery_entry *e = &log->entries[i];

		ck_assert_uint_eq(e->trtype, NVME_TRTYPE_RDMA);
		ck_assert_uint_eq(e->rdma.qptype, 1);
		ck_assert_uint_eq(e->rdma.prtype, 1);
		ck_assert_uint_eq(e->rdma.cms, 1);
		ck_assert_int_eq(memcmp(e->trsvcid, "4420 ", 5), 0);
		found = found || !strcmp(e->subnqn, RAW_NQN);
	}
	ck_assert(found);
	free(log);
	nvme_ctrlr_disconnect(ctrlr);
}

SIM_TEST(who_cannot_connect_is_told_why)
{
	struct nvme_connect_opts o = host_opts(RAW_NQN);
	struct nvme_error error = { 0 };
	struct nvme_ctrlr *ctrlr;

	o.addr.port = 4421;
	ck_assert_int_eq(nvme_ctrlr_connect(&o, &ctrlr, &error), -ECONNREFUSED);
	o.addr.port = addr.port;
	o.admin_queue_size = 256;
	ck_assert_int_eq(nvme_ctrlr_connect(&o, &ctrlr, &error), -ECONNREFUSED);
	ck_assert_ptr_nonnull(strstr(error.text, "Invalid HSQSIZE"));
	rnic_sim_no_devices();
	ck_assert_int_eq(nvme_ctrlr_connect(&o, &ctrlr, &error), -ENODEV);
	ck_assert_ptr_nonnull(strstr(error.text, "rdma link add"));
}

int main(void)
{
	const TTest *const tests[] = {
		what_is_written_is_read_in_every_size,
		more_than_the_arena_holds_waits_its_turn,
		a_target_that_goes_ends_every_request_and_may_come_back,
		a_broken_queue_pair_ends_every_request,
		a_dead_link_ends_every_request,
		an_idle_connection_is_kept_alive,
		discovery_names_the_rdma_port,
		who_cannot_connect_is_told_why,
	};

	return world_suite("rdma initiator", tests, sizeof(tests) / sizeof(tests[0]));
}
