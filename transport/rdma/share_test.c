/*
 * What no host can take from the others, whatever it does and however slow its drive is: receives, room in completion queues,
 * memory, and the data that they have on its way.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "nvmf/gate_bdev_test.h"
#include "runtime/rnic_sim.h"
#include "transport/rdma/internal.h"
#include "transport/rdma/raw_host.h"
#include "transport/rdma/world_test.h"

#define SLOW_NSID 2u

static struct raw_ctrlr c, other;
static struct gate *gate;

/* Its status, if it comes in time. */
static fiber_fn bool is_answered(struct raw_host *host, uint16_t cid, uint64_t within_us)
{
	uint64_t end_us = clock_now_us() + within_us;

	while (clock_now_us() < end_us && !host->over) {
		for (unsigned i = 0; i < host->nr_responses; i++) {
			if (host->responses[i].cid == cid)
				return nvme_cqe_status(&host->responses[i]) == NVME_SC_SUCCESS;
		}
		fiber_sleep(1000);
	}
	return false;
}

static fiber_fn void expect_served(struct raw_ctrlr *ctrlr)
{
	static uint16_t cid = 0x1000;
	union nvme_cmd cmd = { .opcode = NVME_ADMIN_KEEP_ALIVE, .flags = NVME_CMD_PSDT_SGL, .cid = ++cid };

	ck_assert_int_eq(raw_send(&ctrlr->admin, &cmd, NULL, 0), 0);
	ck_assert(is_answered(&ctrlr->admin, cid, 1000000));
	cmd = raw_rw(NVME_IO_READ, ++cid, 0, 16);
	raw_keyed(&ctrlr->io, &cmd, 0, 8192);
	ck_assert_int_eq(raw_send(&ctrlr->io, &cmd, NULL, 0), 0);
	ck_assert(is_answered(&ctrlr->io, cid, 1000000));
}

static fiber_fn void target_restart(void)
{
	target_stop();
	bdev_unregister_all();
	target_start();
}

static fiber_fn void add_slow_drive(void)
{
	const struct nvmf_ns_opts ns_opts = { .bdev_name = "gate" };
	uint32_t nsid;

	gate = gate_create("gate", false);
	ck_assert_int_eq(nvmf_subsystem_add_ns(nvmf_subsystem_find(target, RAW_NQN), &ns_opts, &nsid), 0);
	ck_assert_uint_eq(nsid, SLOW_NSID);
}

static void let_go(void)
{
	gate->hold = false;
	while (gate->nr_held)
		gate_do(gate, gate->held[--gate->nr_held]);
}

static void send_slow_write(struct raw_host *host, uint16_t i)
{
	union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, i, 8u * i, 8);

	cmd.nsid = SLOW_NSID;
	cmd.sgl = (struct nvme_sgl){ .len = 4096, .type = NVME_SGL_IN_CAPSULE };
	ck_assert_int_eq(raw_send(host, &cmd, data + 4096u * i, 4096), 0);
}

/* --- receives -------------------------------------------------------------------------------------------------------------------- */

/* One poll group, so that all have the same shared receives. */
SIM_TEST_WITH(a_slow_drive_keeps_no_other_host_from_being_answered, .nr_reactors = 1)
{
	opts.max_srq_depth = 32;
	target_restart();
	add_slow_drive();
	raw_up(&other, &addr, 16);
	raw_up(&c, &addr, 64);
	for (unsigned round = 0; round < 2; round++) {
		gate->hold = true;
		for (uint16_t i = 0; i < 50; i++)
			send_slow_write(&c.io, i);
		fiber_sleep(100000);
		for (unsigned i = 0; i < 20; i++)
			expect_served(&other);
		ck_assert_uint_eq(gate->nr_held, 50);
		let_go();
		for (uint16_t i = 0; i < 50; i++)
			ck_assert_uint_eq(raw_wait(&c.io, i, NULL), NVME_SC_SUCCESS);
		ck_assert_int_eq(memcmp(gate->data, data, 50 * 4096), 0);
		c.io.nr_responses = 0;
		memset(gate->data, 0, 50 * 4096);
	}
	raw_down(&c);
	raw_down(&other);
}

SIM_TEST_WITH(who_sends_more_in_capsules_than_there_is_room_for_is_alone_in_losing_its_connection, .nr_reactors = 1)
{
	bool shared = addr.family == AF_INET;

	opts.max_srq_depth = 16;
	target_restart();
	add_slow_drive();
	raw_up(&other, &addr, 16);
	raw_up(&c, &addr, 64);
	gate->hold = true;
	for (uint16_t i = 0; i < 60; i++)
		send_slow_write(&c.io, i);
	fiber_sleep(100000);
	ck_assert(c.io.over == shared);
	expect_served(&other);
	raw_down(&c);
	let_go();
	fiber_sleep(3000000);
	raw_up(&c, &addr, 64);
	send_slow_write(&c.io, 1);
	ck_assert_uint_eq(raw_wait(&c.io, 1, NULL), NVME_SC_SUCCESS);
	expect_served(&other);
	raw_down(&c);
	raw_down(&other);
}

SIM_TEST_WITH(a_device_has_fewer_shared_receives_where_there_is_no_memory_for_all, .nr_reactors = 1)
{
	struct raw_request request = raw_request(0, 32);
	union nvme_cmd cmd;

	raw_ask(&c.admin, &addr, &request);
	/* On the device with shared receives: those. */
	if (addr.family == AF_INET)
		rnic_sim_fail_mr_create(2);
	ck_assert(raw_wait_cm(&c.admin));
	cmd = raw_connect_cmd(&c.admin, 0, 32, NVME_CNTLID_DYNAMIC);
	ck_assert_uint_eq(raw_execute(&c.admin, &cmd, NULL), NVME_SC_SUCCESS);
	raw_close(&c.admin, true);
}

START_TEST(more_shared_receives_than_there_is_memory_for_are_an_error_that_names_the_remedy)
{
	struct nvmf_transport_opts o = { .max_srq_depth = 4096, .in_capsule_data_size = 65536 };
	char why[256] = "";

	ck_assert_int_eq(rdma_check_memory(&o, 400u << 20, why, sizeof(why)), -ENOMEM);
	ck_assert_ptr_nonnull(strstr(why, "256 MiB for each poll group"));
	ck_assert_ptr_nonnull(strstr(why, "in_capsule_data_size"));
	ck_assert_int_eq(rdma_check_memory(&o, 600u << 20, why, sizeof(why)), 0);
	ck_assert_int_eq(rdma_check_memory(&o, UINT64_MAX, why, sizeof(why)), 0);
	o.in_capsule_data_size = 4096;
	ck_assert_int_eq(rdma_check_memory(&o, 40u << 20, why, sizeof(why)), 0);
	ck_assert_int_eq(rdma_check_memory(&o, 30u << 20, why, sizeof(why)), -ENOMEM);
	o.no_srq = true;
	ck_assert_int_eq(rdma_check_memory(&o, 0, why, sizeof(why)), 0);
}
END_TEST

/* --- before Connect ---------------------------------------------------------------------------------------------------------------- */

#define STRANGERS 500u

/* One poll group: the share is each group's. */
SIM_TEST_WITH(those_who_ask_for_queues_and_say_nothing_make_room_for_those_who_connect, .nr_reactors = 1)
{
	static struct raw_host strangers[STRANGERS];
	struct raw_request request = raw_request(0, 128);
	unsigned nr_left = 0;

	request.nr_recvs = 0;
	raw_up(&other, &addr, 16);
	for (unsigned i = 0; i < STRANGERS; i++) {
		raw_ask(&strangers[i], &addr, &request);
		ck_assert(raw_wait_cm(&strangers[i]));
		fiber_sleep(1000);
	}
	raw_up(&c, &addr, 16);
	expect_served(&c);
	expect_served(&other);
	for (unsigned i = 0; i < STRANGERS; i++)
		nr_left += !strangers[i].over;
	/* 65,536 completions, two for each command and some more. */
	ck_assert_uint_gt(nr_left, 100);
	ck_assert_uint_le(nr_left, 65536 / 256);
	ck_assert(!strangers[STRANGERS - 1].over);
	for (unsigned i = 0; i < STRANGERS; i++)
		raw_close(&strangers[i], true);
	raw_down(&c);
	raw_down(&other);
}

SIM_TEST_WITH(nobody_has_more_memory_before_connect_by_asking_for_a_longer_queue, .nr_reactors = 1)
{
	const struct rnic_sim_stats *stats = rnic_sim_stats();
	static struct raw_host strangers[2];
	uint64_t before, cost[2];

	opts.max_aq_depth = 512;
	target_restart();
	raw_up(&other, &addr, 16);
	for (unsigned i = 0; i < 2; i++) {
		struct raw_request request = raw_request(0, i ? 512 : 2);

		before = stats->mr_bytes;
		raw_ask(&strangers[i], &addr, &request);
		ck_assert(raw_wait_cm(&strangers[i]));
		cost[i] = stats->mr_bytes - before;
	}
	ck_assert_uint_eq(cost[0], cost[1]);
	raw_close(&strangers[0], true);
	raw_close(&strangers[1], true);
	raw_down(&other);
}

/* --- data ----------------------------------------------------------------------------------------------------------------------------- */

static void write_there(struct raw_host *host, const void *where, uint32_t key)
{
	struct rnic_sge sge = { (uintptr_t)host->mem, 512, rnic_mr_lkey(host->mr) };
	struct rnic_send send = { .op = RNIC_WRITE, .sge = &sge, .nr_sge = 1, .signaled = true, .remote_key = key };

	send.remote_addr = (uintptr_t)where;
	ck_assert_int_eq(rnic_post_send(host->conn, &send), 0);
}

SIM_TEST_WITH(nobody_reaches_data_of_another_host_that_waits_for_its_drive, .nr_reactors = 1)
{
	union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, 5, 0, 256);
	uint32_t key;

	add_slow_drive();
	raw_up(&other, &addr, 16);
	raw_up(&c, &addr, 16);
	gate->hold = true;
	memcpy(other.io.mem, data, 131072);
	cmd.nsid = SLOW_NSID;
	raw_keyed(&other.io, &cmd, 0, 131072);
	ck_assert_int_eq(raw_send(&other.io, &cmd, NULL, 0), 0);
	fiber_sleep(100000);
	ck_assert_uint_eq(gate->nr_held, 1);
	/* The worst case: it knows the key of all buffers, and where that data is. */
	ck_assert_int_eq(rnic_pool_lkey(rnic_conn_device(c.io.conn), &key), 0);
	memset(c.io.mem, 'x', 512);
	write_there(&c.io, gate->held[0]->iov[0].iov_base, key);
	raw_wait_end(&c.io);
	let_go();
	ck_assert_uint_eq(raw_wait(&other.io, 5, NULL), NVME_SC_SUCCESS);
	ck_assert_int_eq(memcmp(gate->data, data, 131072), 0);
	expect_served(&other);
	raw_down(&c);
	raw_down(&other);
}

int main(void)
{
	const TTest *const tests[] = {
		a_slow_drive_keeps_no_other_host_from_being_answered,
		who_sends_more_in_capsules_than_there_is_room_for_is_alone_in_losing_its_connection,
		a_device_has_fewer_shared_receives_where_there_is_no_memory_for_all,
		more_shared_receives_than_there_is_memory_for_are_an_error_that_names_the_remedy,
		those_who_ask_for_queues_and_say_nothing_make_room_for_those_who_connect,
		nobody_has_more_memory_before_connect_by_asking_for_a_longer_queue,
		nobody_reaches_data_of_another_host_that_waits_for_its_drive,
	};

	return world_suite("rdma shares", tests, sizeof(tests) / sizeof(tests[0]));
}
