/*
 * The RDMA transport with the real nvmf behind it, on the simulated fabric: what works, what a host may do wrong, and every way in
 * which a connection can end.  Each test runs on a device with shared receive queues and on one without, under several seeds; at
 * its end nothing may be left of any queue or registration.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/rnic_sim.h"
#include "transport/rdma/raw_host.h"
#include "transport/rdma/world_test.h"

#define WORKS NVME_SC_SUCCESS

/* --- what works ------------------------------------------------------------------------------------------------------------- */

static fiber_fn uint16_t rw(struct raw_host *host, uint8_t opcode, uint32_t block, uint32_t at, uint32_t len)
{
	union nvme_cmd cmd = raw_rw(opcode, 0, block, len / 512);

	raw_keyed(host, &cmd, at, len);
	return raw_execute(host, &cmd, NULL);
}

/* What was written with some commands is there, read with another. */
static fiber_fn void expect_on_disk(struct raw_host *host, uint32_t block, const void *what, uint32_t len)
{
	memset(host->mem + (2u << 20), 0x5a, len);
	ck_assert_uint_eq(rw(host, NVME_IO_READ, block, 2u << 20, len), WORKS);
	ck_assert_int_eq(memcmp(host->mem + (2u << 20), what, len), 0);
}

static fiber_fn void still_works(struct raw_host *host)
{
	memcpy(host->mem, data, 4096);
	ck_assert_uint_eq(rw(host, NVME_IO_WRITE, 8192, 0, 4096), WORKS);
	expect_on_disk(host, 8192, data, 4096);
}

/* The target serves somebody new. */
static fiber_fn void others_are_served(void)
{
	struct raw_ctrlr *c = calloc(1, sizeof(*c));

	raw_up(c, &addr, 16);
	still_works(&c->io);
	raw_down(c);
	free(c);
}

static struct raw_ctrlr c;

SIM_TEST(writes_and_reads_of_all_sizes_come_through)
{
	static const uint32_t lens[] = { 512, 4096, 8192, 8704, 65536, 131072, 131584, 300032, 1048576 };

	raw_up(&c, &addr, 16);
	for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		memcpy(c.io.mem + 4096, data + i, lens[i]);
		ck_assert_uint_eq(rw(&c.io, NVME_IO_WRITE, 16 * i, 4096, lens[i]), WORKS);
		expect_on_disk(&c.io, 16 * i, data + i, lens[i]);
	}
	raw_down(&c);
}

SIM_TEST(data_in_the_capsule_is_taken_from_where_its_offset_says)
{
	static const struct {
		uint32_t offset, len;
	} cases[] = { { 0, 4096 }, { 0, 512 }, { 512, 3584 }, { 3584, 512 }, { 13, 1024 } };

	raw_up(&c, &addr, 16);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, (uint16_t)i, 100, cases[i].len / 512);

		cmd.sgl = (struct nvme_sgl){ .addr = cases[i].offset, .len = cases[i].len, .type = NVME_SGL_IN_CAPSULE };
		ck_assert_int_eq(raw_send(&c.io, &cmd, data + i, 4096), 0);
		ck_assert_uint_eq(raw_wait(&c.io, (uint16_t)i, NULL), WORKS);
		expect_on_disk(&c.io, 100, data + i + cases[i].offset, cases[i].len);
	}
	raw_down(&c);
}

/* Cuts len bytes at mem into nr descriptors of odd lengths; gives the list's bytes. */
static uint32_t make_list(const struct raw_host *host, struct nvme_keyed_sgl *list, unsigned nr, uint32_t at, uint32_t len)
{
	uint32_t piece = len / nr + 1;

	for (unsigned i = 0; i < nr; i++) {
		uint32_t n = i == nr - 1 ? len : piece;

		nvme_keyed_sgl_set(&list[i], (uintptr_t)host->mem + at, n, rnic_mr_rkey(host->mr), NVME_SGL_KEYED);
		at += n + 64; /* with gaps between */
		len -= n;
	}
	return nr * (uint32_t)sizeof(list[0]);
}

SIM_TEST(a_list_of_up_to_sixteen_descriptors_is_followed)
{
	static const uint32_t lens[] = { 8192, 131072, 1048576 };
	struct nvme_keyed_sgl list[16];

	raw_up(&c, &addr, 16);
	for (unsigned i = 0; i < 9; i++) {
		unsigned nr = i % 3 == 0 ? 1 : i % 3 == 1 ? 7 : 16;
		uint32_t len = lens[i / 3], at = 0;
		union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, (uint16_t)i, 64, len / 512);
		uint32_t bytes = make_list(&c.io, list, nr, 0, len);

		for (unsigned k = 0; k < nr; k++) {
			memcpy((void *)(uintptr_t)list[k].addr, data + i + at, nvme_keyed_sgl_len(&list[k]));
			at += nvme_keyed_sgl_len(&list[k]);
		}
		cmd.sgl = (struct nvme_sgl){ .len = bytes, .type = NVME_SGL_LIST_IN_CAPSULE };
		ck_assert_int_eq(raw_send(&c.io, &cmd, list, bytes), 0);
		ck_assert_uint_eq(raw_wait(&c.io, (uint16_t)i, NULL), WORKS);
		expect_on_disk(&c.io, 64, data + i, len);

		/* And the other way, from an offset. */
		memset(c.io.mem, 0, 2u << 20);
		cmd = raw_rw(NVME_IO_READ, (uint16_t)(100 + i), 64, len / 512);
		cmd.sgl = (struct nvme_sgl){ .addr = 16, .len = bytes - 16, .type = NVME_SGL_LIST_IN_CAPSULE };
		if (nr == 1)
			cmd.sgl.addr = 0, cmd.sgl.len = bytes;
		else
			nvme_keyed_sgl_set(&list[1], list[1].addr, nvme_keyed_sgl_len(&list[1]) + nvme_keyed_sgl_len(&list[0]),
					   rnic_mr_rkey(c.io.mr), NVME_SGL_KEYED);
		if (nr > 2)
			continue; /* the pieces would overlap */
		ck_assert_int_eq(raw_send(&c.io, &cmd, list, bytes), 0);
		ck_assert_uint_eq(raw_wait(&c.io, (uint16_t)(100 + i), NULL), WORKS);
		ck_assert_int_eq(memcmp(c.io.mem, data + i, len), 0);
	}
	raw_down(&c);
}

SIM_TEST(reads_scatter_over_a_list)
{
	struct nvme_keyed_sgl list[16];
	union nvme_cmd cmd = raw_rw(NVME_IO_READ, 7, 0, 600000 / 512);
	uint32_t bytes, at = 0, len = 600000 / 512 * 512;

	raw_up(&c, &addr, 16);
	memcpy(c.io.mem, data, len);
	ck_assert_uint_eq(rw(&c.io, NVME_IO_WRITE, 0, 0, len), WORKS);
	memset(c.io.mem, 0, 1u << 20);
	bytes = make_list(&c.io, list, 16, 0, len);
	cmd.sgl = (struct nvme_sgl){ .len = bytes, .type = NVME_SGL_LIST_IN_CAPSULE };
	ck_assert_int_eq(raw_send(&c.io, &cmd, list, bytes), 0);
	ck_assert_uint_eq(raw_wait(&c.io, 7, NULL), WORKS);
	for (unsigned k = 0; k < 16; k++) {
		ck_assert_int_eq(memcmp((void *)(uintptr_t)list[k].addr, data + at, nvme_keyed_sgl_len(&list[k])), 0);
		ck_assert_uint_eq(*(uint8_t *)(uintptr_t)(list[k].addr + nvme_keyed_sgl_len(&list[k])), 0);
		at += nvme_keyed_sgl_len(&list[k]);
	}
	raw_down(&c);
}

SIM_TEST(a_key_is_invalidated_with_the_response_when_the_host_asks)
{
	union nvme_cmd cmd = raw_rw(NVME_IO_READ, 7, 0, 8);
	struct rnic_mr *mr;

	raw_up(&c, &addr, 16);
	ck_assert_int_eq(rnic_mr_create(rnic_conn_device(c.io.conn), c.io.mem, 4096, RNIC_LOCAL_WRITE | RNIC_REMOTE_WRITE, &mr), 0);
	nvme_keyed_sgl_set(&cmd.keyed_sgl, (uintptr_t)c.io.mem, 4096, rnic_mr_rkey(mr), NVME_SGL_KEYED_INVALIDATE);
	ck_assert_int_eq(raw_send(&c.io, &cmd, NULL, 0), 0);
	ck_assert_uint_eq(raw_wait(&c.io, 7, NULL), WORKS);
	ck_assert_uint_eq(c.io.invalidated[c.io.nr_responses - 1], rnic_mr_rkey(mr));
	rnic_mr_free(mr);
	still_works(&c.io);
	ck_assert_uint_eq(c.io.invalidated[c.io.nr_responses - 1], 0);
	raw_down(&c);
}

SIM_TEST(a_full_queue_of_large_commands_waits_for_room_and_credits)
{
	const struct rnic_sim_stats *stats = rnic_sim_stats();

	opts.max_queue_depth = 128;
	raw_up(&c, &addr, 128);
	memcpy(c.io.mem, data, 1u << 20);
	for (unsigned i = 0; i < 128; i++) {
		union nvme_cmd cmd = raw_rw(i % 2 ? NVME_IO_READ : NVME_IO_WRITE, (uint16_t)i, 0, 2048);

		raw_keyed(&c.io, &cmd, i % 2 ? 2u << 20 : 0, 1u << 20);
		ck_assert_int_eq(raw_send(&c.io, &cmd, NULL, 0), 0);
	}
	for (unsigned i = 0; i < 128; i++)
		ck_assert_uint_eq(raw_wait(&c.io, (uint16_t)i, NULL), WORKS);
	ck_assert_uint_le(stats->max_reads, addr.family == AF_INET ? 16 : 4);
	ck_assert_uint_gt(stats->max_reads, 1);
	raw_down(&c);
}

SIM_TEST_WITH(commands_wait_for_buffers_when_the_pool_is_dry, .nr_small = 8, .nr_large = 24)
{
	struct nvmf_group_stats *stats;
	uint64_t nr_waits = 0;
	unsigned nr;

	raw_up(&c, &addr, 64);
	memcpy(c.io.mem, data, 1u << 20);
	for (unsigned i = 0; i < 64; i++) {
		union nvme_cmd cmd = raw_rw(i % 3 ? NVME_IO_READ : NVME_IO_WRITE, (uint16_t)i, i, i % 4 ? 16 : 1024);

		raw_keyed(&c.io, &cmd, i % 3 ? 2u << 20 : 0, i % 4 ? 8192 : 512 * 1024);
		ck_assert_int_eq(raw_send(&c.io, &cmd, NULL, 0), 0);
	}
	for (unsigned i = 0; i < 64; i++)
		ck_assert_uint_eq(raw_wait(&c.io, (uint16_t)i, NULL), WORKS);
	ck_assert_int_eq(nvmf_get_stats(target, &stats, &nr), 0);
	for (unsigned i = 0; i < nr; i++)
		nr_waits += stats[i].transports[0].nr_buffer_waits;
	ck_assert_uint_gt(nr_waits, 20);
	ck_assert_uint_le(nr_waits, 64);
	nvmf_stats_free(stats, nr);
	raw_down(&c);
}

SIM_TEST(a_host_that_answers_each_response_with_a_command_never_waits_for_a_receive)
{
	unsigned nr_sent = 16, nr_seen = 0;

	raw_up(&c, &addr, 16);
	c.io.nr_responses = 0;
	for (unsigned i = 0; i < 16; i++) {
		union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, (uint16_t)i, 8 * i, 8);

		cmd.sgl = (struct nvme_sgl){ .len = 4096, .type = NVME_SGL_IN_CAPSULE };
		ck_assert_int_eq(raw_send(&c.io, &cmd, data, 4096), 0);
	}
	while (nr_seen < 400) {
		ck_assert(!c.io.over);
		fiber_cond_wait(&c.io.cond);
		for (; nr_seen < c.io.nr_responses; nr_seen++) {
			union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, c.io.responses[nr_seen].cid, nr_seen, 8);

			ck_assert_uint_eq(nvme_cqe_status(&c.io.responses[nr_seen]), 0);
			if (nr_sent++ >= 400)
				continue;
			cmd.sgl = (struct nvme_sgl){ .len = 4096, .type = NVME_SGL_IN_CAPSULE };
			ck_assert_int_eq(raw_send(&c.io, &cmd, data, 4096), 0);
		}
	}
	ck_assert_uint_eq(rnic_sim_stats()->nr_not_ready, 0);
	raw_down(&c);
}

SIM_TEST(a_send_queue_that_is_too_short_for_all_lists_is_shared)
{
	struct nvme_keyed_sgl list[16];

	opts.max_queue_depth = 128;
	raw_up(&c, &addr, 128);
	for (unsigned i = 0; i < 128; i++) {
		union nvme_cmd cmd = raw_rw(NVME_IO_READ, (uint16_t)i, 0, 16);
		uint32_t bytes = make_list(&c.io, list, 16, 0, 8192);

		cmd.sgl = (struct nvme_sgl){ .len = bytes, .type = NVME_SGL_LIST_IN_CAPSULE };
		ck_assert_int_eq(raw_send(&c.io, &cmd, list, bytes), 0);
	}
	for (unsigned i = 0; i < 128; i++)
		ck_assert_uint_eq(raw_wait(&c.io, (uint16_t)i, NULL), WORKS);
	raw_down(&c);
}

SIM_TEST(what_responses_say_of_the_queues_head_never_goes_back)
{
	struct nvme_keyed_sgl list[16];
	unsigned nr = 127, first;

	raw_up(&c, &addr, 128);
	first = c.io.nr_responses;
	ck_assert_uint_eq(c.io.responses[first - 1].sqhd, 1); /* Connect's */
	for (unsigned i = 0; i < nr; i++) {
		union nvme_cmd cmd = raw_rw(NVME_IO_READ, (uint16_t)i, 0, i % 3 ? 16 : 512);
		uint32_t bytes = make_list(&c.io, list, 16, 0, i % 3 ? 8192 : 262144);

		cmd.sgl = (struct nvme_sgl){ .len = bytes, .type = NVME_SGL_LIST_IN_CAPSULE };
		ck_assert_int_eq(raw_send(&c.io, &cmd, list, bytes), 0);
	}
	for (unsigned i = 0; i < nr; i++)
		ck_assert_uint_eq(raw_wait(&c.io, (uint16_t)i, NULL), WORKS);
	for (unsigned i = 0; i < nr; i++)
		ck_assert_uint_eq(c.io.responses[first + i].sqhd, (2 + i) % 128);
	raw_down(&c);
}

/* --- connection requests ---------------------------------------------------------------------------------------------------------- */

SIM_TEST(a_bad_connection_request_is_rejected_with_the_number_of_what_is_wrong)
{
	static const struct {
		uint16_t recfmt, qid, hrqsize, hsqsize;
		uint8_t len, peer_reads;
		uint16_t status;
	} cases[] = {
		{ 0, 0, 32, 31, 0, 16, NVME_RDMA_CM_INVALID_LEN },
		{ 0, 0, 32, 31, 31, 16, NVME_RDMA_CM_INVALID_LEN },
		{ 1, 0, 32, 31, 32, 16, NVME_RDMA_CM_INVALID_RECFMT },
		{ 0, 128, 32, 31, 32, 16, NVME_RDMA_CM_INVALID_QID },
		{ 0, 65535, 32, 31, 32, 16, NVME_RDMA_CM_INVALID_QID },
		{ 0, 1, 32, 0, 32, 16, NVME_RDMA_CM_INVALID_HSQSIZE },
		{ 0, 1, 32, 128, 32, 16, NVME_RDMA_CM_INVALID_HSQSIZE },
		{ 0, 0, 32, 65535, 32, 16, NVME_RDMA_CM_INVALID_HSQSIZE },
		{ 0, 1, 0, 31, 32, 16, NVME_RDMA_CM_INVALID_HRQSIZE },
		{ 0, 1, 32, 31, 32, 0, NVME_RDMA_CM_INVALID_IRD },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct raw_request request = {
			.cm = { .recfmt = cases[i].recfmt, .qid = cases[i].qid, .hrqsize = cases[i].hrqsize, .hsqsize = cases[i].hsqsize },
			.len = cases[i].len,
			.peer_reads = cases[i].peer_reads,
			.nr_recvs = 1,
		};

		raw_ask(&c.admin, &addr, &request);
		ck_assert(!raw_wait_cm(&c.admin));
		ck_assert(c.admin.rejected);
		ck_assert_uint_eq(c.admin.reject_status, cases[i].status);
		raw_close(&c.admin, false);
	}
	others_are_served();
}

SIM_TEST(a_target_without_room_rejects_and_goes_on)
{
	struct raw_request request = raw_request(0, 32);

	rnic_sim_fail_qp_create(0);
	for (unsigned i = 0; i < 3; i++) {
		raw_ask(&c.admin, &addr, &request);
		rnic_sim_fail_qp_create(1);
		ck_assert(!raw_wait_cm(&c.admin));
		ck_assert_uint_eq(c.admin.reject_status, NVME_RDMA_CM_NO_RESOURCES);
		raw_close(&c.admin, false);
	}
	others_are_served();
}

/* --- what a host may do wrong -------------------------------------------------------------------------------------------------------- */

SIM_TEST(a_bad_sgl_costs_its_command_a_status_and_nobody_the_connection)
{
	raw_up(&c, &addr, 16);
	raw_try_bad_sgls(&c.io);
	still_works(&c.io);
	raw_down(&c);
}

/* A host whose queue pair breaks loses its connection; the other one does not notice. */
static fiber_fn void breaks_itself(void (*crime)(struct raw_host *host))
{
	struct raw_ctrlr *other = calloc(1, sizeof(*other));

	raw_up(other, &addr, 16);
	raw_up(&c, &addr, 16);
	for (unsigned i = 0; i < 4; i++) {
		union nvme_cmd cmd = raw_rw(NVME_IO_READ, (uint16_t)(0x100 + i), 0, 256);

		raw_keyed(&c.io, &cmd, 1u << 20, 256 * 512);
		ck_assert_int_eq(raw_send(&c.io, &cmd, NULL, 0), 0);
	}
	crime(&c.io);
	raw_wait_end(&c.io);
	still_works(&other->io);
	raw_down(&c);
	raw_down(other);
	free(other);
	others_are_served();
}

static void writes_with_a_wrong_key(struct raw_host *host)
{
	union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, 1, 0, 8);

	nvme_keyed_sgl_set(&cmd.keyed_sgl, (uintptr_t)host->mem, 4096, 0xdeadbeef, NVME_SGL_KEYED);
	raw_send(host, &cmd, NULL, 0);
}

static void reads_to_beyond_its_memory(struct raw_host *host)
{
	union nvme_cmd cmd = raw_rw(NVME_IO_READ, 1, 0, 2048);

	nvme_keyed_sgl_set(&cmd.keyed_sgl, (uintptr_t)host->mem + (8u << 20), 1u << 20, rnic_mr_rkey(host->mr), NVME_SGL_KEYED);
	raw_send(host, &cmd, NULL, 0);
}

static void asks_for_a_wrong_key_to_be_invalidated(struct raw_host *host)
{
	union nvme_cmd cmd = raw_rw(NVME_IO_FLUSH, 1, 0, 1);

	nvme_keyed_sgl_set(&cmd.keyed_sgl, 0, 0, 0xdeadbeef, NVME_SGL_KEYED_INVALIDATE);
	raw_send(host, &cmd, NULL, 0);
}

static void sends_half_a_command(struct raw_host *host)
{
	raw_send_len(host, data, 63);
}

static void sends_more_than_a_capsule(struct raw_host *host)
{
	raw_send_len(host, data, 64 + 4096 + 1);
}

static void sends_more_commands_than_its_queue_holds(struct raw_host *host)
{
	for (unsigned i = 0; i < 64; i++) {
		union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, (uint16_t)i, 0, 256);

		raw_keyed(host, &cmd, 0, 256 * 512);
		raw_send(host, &cmd, NULL, 0);
	}
}

static void breaks_its_queue_pair(struct raw_host *host)
{
	rnic_sim_break(host->conn);
}

static void breaks_the_targets_queue_pair(struct raw_host *host)
{
	rnic_sim_break(rnic_sim_peer(host->conn));
}

static void fails_the_targets_work(struct raw_host *host)
{
	rnic_sim_fail_next(rnic_sim_peer(host->conn), RNIC_LOCAL_ERROR);
}

static void fails_the_targets_work_otherwise(struct raw_host *host)
{
	rnic_sim_fail_next(rnic_sim_peer(host->conn), RNIC_NOT_READY);
}

#define BREAKS(crime) \
	SIM_TEST(a_host_that_##crime##_hurts_nobody_else) \
	{ \
		breaks_itself(crime); \
	}

BREAKS(writes_with_a_wrong_key)
BREAKS(reads_to_beyond_its_memory)
BREAKS(asks_for_a_wrong_key_to_be_invalidated)
BREAKS(sends_half_a_command)
BREAKS(sends_more_than_a_capsule)
BREAKS(sends_more_commands_than_its_queue_holds)
BREAKS(breaks_its_queue_pair)
BREAKS(breaks_the_targets_queue_pair)
BREAKS(fails_the_targets_work)
BREAKS(fails_the_targets_work_otherwise)

/* --- ends ------------------------------------------------------------------------------------------------------------------------------ */

/* Commands of all kinds, on their way in every state. */
static void start_load(struct raw_host *host, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		union nvme_cmd cmd = raw_rw(i % 2 ? NVME_IO_READ : NVME_IO_WRITE, (uint16_t)i, 64 * i, i % 5 ? 16 : 1024);

		raw_keyed(host, &cmd, i % 2 ? 2u << 20 : 0, i % 5 ? 8192 : 512 * 1024);
		if (raw_send(host, &cmd, NULL, 0))
			return;
	}
}

static fiber_fn void ends_at(unsigned when_us, bool disconnect)
{
	raw_up(&c, &addr, 32);
	start_load(&c.io, 32);
	fiber_sleep(when_us);
	raw_close(&c.io, disconnect);
	raw_close(&c.admin, disconnect);
}

SIM_TEST(a_host_may_go_at_any_moment_under_load)
{
	static const unsigned moments_us[] = { 1, 5, 20, 60, 100, 150, 250, 400, 700, 1500, 4000 };

	for (unsigned i = 0; i < 2 * sizeof(moments_us) / sizeof(moments_us[0]); i++)
		ends_at(moments_us[i / 2], i % 2);
	others_are_served();
}

SIM_TEST(a_host_may_go_at_any_moment_while_it_connects)
{
	for (unsigned i = 0; i < 40; i++) {
		struct raw_request request = raw_request(0, 32);
		union nvme_cmd cmd;

		raw_ask(&c.admin, &addr, &request);
		if (i % 4 == 3 && raw_wait_cm(&c.admin)) {
			cmd = raw_connect_cmd(&c.admin, 0, 32, NVME_CNTLID_DYNAMIC);
			raw_send(&c.admin, &cmd, NULL, 0);
		}
		fiber_sleep(1 + i * i % 190);
		raw_close(&c.admin, i % 2);
	}
	others_are_served();
}

SIM_TEST(a_link_that_goes_dead_ends_the_connection_and_frees_all_it_held)
{
	struct raw_ctrlr *dead = calloc(1, sizeof(*dead));

	raw_up(dead, &addr, 32);
	start_load(&dead->io, 32);
	fiber_sleep(30);
	rnic_sim_cut(dead->io.conn);
	rnic_sim_cut(dead->admin.conn);
	fiber_sleep(3000000);
	others_are_served();
	/* The admin queue is silent: its keep alive finds out. */
	fiber_sleep(300ull * 1000000);
	raw_down(dead);
	free(dead);
	others_are_served();
}

SIM_TEST(a_device_that_is_taken_away_takes_its_connections_and_nothing_else)
{
	raw_up(&c, &addr, 32);
	start_load(&c.io, 32);
	fiber_sleep(60);
	rnic_sim_remove(addr.family);
	raw_wait_end(&c.io);
	raw_wait_end(&c.admin);
	raw_down(&c);
	fiber_sleep(3000000);
	ck_assert_uint_eq(rnic_sim_stats()->nr_qps, 0);
	ck_assert_uint_eq(rnic_sim_stats()->nr_cqs, 0);
}

SIM_TEST(a_flood_of_requests_is_answered_one_by_one)
{
	static struct raw_host hosts[40];
	struct raw_request request = raw_request(0, 32);

	request.nr_recvs = 2;
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < 40; i++)
			raw_ask(&hosts[i], &addr, &request);
		for (unsigned i = 0; i < 40; i++) {
			if (i % 3)
				raw_wait_cm(&hosts[i]);
			raw_close(&hosts[i], i % 2);
		}
	}
	others_are_served();
}

SIM_TEST(a_connection_that_never_connects_is_closed)
{
	struct raw_request request = raw_request(0, 32);

	raw_ask(&c.admin, &addr, &request);
	ck_assert(raw_wait_cm(&c.admin));
	raw_wait_end(&c.admin);
	raw_close(&c.admin, true);
}

SIM_TEST(more_hosts_than_shared_receives_all_come_through)
{
	static struct raw_ctrlr many[6];

	/* Made anew with hardly any. */
	target_stop();
	bdev_unregister_all();
	opts.max_srq_depth = 4;
	target_start();
	for (unsigned i = 0; i < 6; i++)
		raw_up(&many[i], &addr, 16);
	for (unsigned i = 0; i < 6; i++)
		start_load(&many[i].io, 16);
	for (unsigned i = 0; i < 6; i++) {
		for (unsigned k = 0; k < 16; k++)
			ck_assert_uint_eq(raw_wait(&many[i].io, (uint16_t)k, NULL), WORKS);
	}
	for (unsigned i = 0; i < 6; i++)
		raw_down(&many[i]);
}

SIM_TEST(the_target_may_end_under_load)
{
	raw_up(&c, &addr, 32);
	start_load(&c.io, 32);
	fiber_sleep(50);
	target_stop();
	raw_wait_end(&c.io);
	raw_wait_end(&c.admin);
	raw_down(&c);
}

SIM_TEST(a_listener_that_is_closed_accepts_nobody)
{
	struct nvmf_subsystem *subsystem = nvmf_subsystem_find(target, RAW_NQN);
	struct raw_request request = raw_request(0, 32);

	ck_assert_int_eq(nvmf_subsystem_remove_listener(subsystem, "rdma", &addr), 0);
	raw_ask(&c.admin, &addr, &request);
	ck_assert(!raw_wait_cm(&c.admin));
	raw_close(&c.admin, false);
	ck_assert_int_eq(nvmf_subsystem_add_listener(subsystem, "rdma", &addr), 0);
	others_are_served();
}

SIM_TEST(without_a_device_the_remedy_is_named)
{
	char why[200] = "";

	ck_assert_int_eq(nvmf_transport_check(target, "rdma", &opts, why, sizeof(why)), 0);
	rnic_sim_no_devices();
	ck_assert_int_eq(nvmf_transport_check(target, "rdma", &opts, why, sizeof(why)), -ENODEV);
	ck_assert_ptr_nonnull(strstr(why, "rdma link add"));
}

int main(void)
{
	const TTest *const tests[] = {
		writes_and_reads_of_all_sizes_come_through,
		data_in_the_capsule_is_taken_from_where_its_offset_says,
		a_list_of_up_to_sixteen_descriptors_is_followed,
		reads_scatter_over_a_list,
		a_key_is_invalidated_with_the_response_when_the_host_asks,
		a_full_queue_of_large_commands_waits_for_room_and_credits,
		commands_wait_for_buffers_when_the_pool_is_dry,
		a_host_that_answers_each_response_with_a_command_never_waits_for_a_receive,
		a_send_queue_that_is_too_short_for_all_lists_is_shared,
		what_responses_say_of_the_queues_head_never_goes_back,
		a_bad_connection_request_is_rejected_with_the_number_of_what_is_wrong,
		a_target_without_room_rejects_and_goes_on,
		a_bad_sgl_costs_its_command_a_status_and_nobody_the_connection,
		a_host_that_writes_with_a_wrong_key_hurts_nobody_else,
		a_host_that_reads_to_beyond_its_memory_hurts_nobody_else,
		a_host_that_asks_for_a_wrong_key_to_be_invalidated_hurts_nobody_else,
		a_host_that_sends_half_a_command_hurts_nobody_else,
		a_host_that_sends_more_than_a_capsule_hurts_nobody_else,
		a_host_that_sends_more_commands_than_its_queue_holds_hurts_nobody_else,
		a_host_that_breaks_its_queue_pair_hurts_nobody_else,
		a_host_that_breaks_the_targets_queue_pair_hurts_nobody_else,
		a_host_that_fails_the_targets_work_hurts_nobody_else,
		a_host_that_fails_the_targets_work_otherwise_hurts_nobody_else,
		a_host_may_go_at_any_moment_under_load,
		a_host_may_go_at_any_moment_while_it_connects,
		a_link_that_goes_dead_ends_the_connection_and_frees_all_it_held,
		a_device_that_is_taken_away_takes_its_connections_and_nothing_else,
		a_flood_of_requests_is_answered_one_by_one,
		a_connection_that_never_connects_is_closed,
		more_hosts_than_shared_receives_all_come_through,
		the_target_may_end_under_load,
		a_listener_that_is_closed_accepts_nobody,
		without_a_device_the_remedy_is_named,
	};

	return world_suite("rdma", tests, sizeof(tests) / sizeof(tests[0]));
}
