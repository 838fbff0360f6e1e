/*
 * Completion queues: enlarged where the device can (sim0), joined by others where it cannot (sim1) or where one is as large as it may
 * be; nothing in them is lost, and none overruns, which the fabric asserts.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/rnic_sim.h"
#include "transport/rdma/raw_host.h"
#include "transport/rdma/world_test.h"

#define DRAINED_US 3000000u
#define MAX_IO	   44u
#define DEPTH	   128u
#define CAN_GROW   (addr.family == AF_INET)

static struct raw_ctrlr c;
static struct raw_host io[MAX_IO];

static fiber_fn void ask(unsigned from, unsigned upto)
{
	for (unsigned i = from; i < upto; i++) {
		struct raw_request request = raw_request((uint16_t)(2 + i), DEPTH);

		raw_ask(&io[i], &addr, &request);
		ck_assert(raw_wait_cm(&io[i]));
	}
}

static fiber_fn void connect_all(unsigned from, unsigned upto)
{
	for (unsigned i = from; i < upto; i++) {
		union nvme_cmd cmd = raw_connect_cmd(&io[i], (uint16_t)(2 + i), DEPTH, c.cntlid);

		ck_assert_uint_eq(raw_execute(&io[i], &cmd, NULL), NVME_SC_SUCCESS);
	}
}

static fiber_fn void close_all(unsigned from, unsigned upto)
{
	for (unsigned i = from; i < upto; i++)
		raw_close(&io[i], true);
	fiber_sleep(DRAINED_US);
}

/* Completion queues of the target; each host has one too. */
static unsigned nr_cqs(unsigned nr_io)
{
	return rnic_sim_stats()->nr_cqs - 2 - nr_io;
}

static void send_writes(struct raw_host *host, unsigned first_cid, unsigned nr)
{
	for (unsigned i = first_cid; i < first_cid + nr; i++) {
		union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, (uint16_t)i, 64 * i, 8);

		cmd.sgl = (struct nvme_sgl){ .len = 4096, .type = NVME_SGL_IN_CAPSULE };
		ck_assert_int_eq(raw_send(host, &cmd, data, 4096), 0);
	}
}

static fiber_fn void wait_writes(struct raw_host *host, unsigned first_cid, unsigned nr)
{
	for (unsigned i = first_cid; i < first_cid + nr; i++)
		ck_assert_uint_eq(raw_wait(host, (uint16_t)i, NULL), NVME_SC_SUCCESS);
}

/* All at a time. */
static fiber_fn void use_all(unsigned nr_io, unsigned first_cid)
{
	for (unsigned i = 0; i < nr_io; i++)
		send_writes(&io[i], first_cid, 40);
	for (unsigned i = 0; i < nr_io; i++)
		wait_writes(&io[i], first_cid, 40);
}

SIM_TEST_WITH(more_connections_get_a_larger_queue_or_one_more_where_the_device_cannot_enlarge_it, .nr_reactors = 1)
{
	raw_up(&c, &addr, 16);
	ck_assert_uint_eq(nr_cqs(0), 1);
	ck_assert_uint_eq(rnic_sim_stats()->nr_cq_resizes, 0);
	ask(0, MAX_IO);
	connect_all(0, MAX_IO);
	/* 44 queues with 288 completions each; 130 more without shared receives. */
	ck_assert_uint_eq(nr_cqs(MAX_IO), CAN_GROW ? 1 : 3);
	ck_assert_uint_eq(rnic_sim_stats()->nr_cq_resizes, CAN_GROW ? 2 : 0);
	use_all(MAX_IO, 0);
	close_all(0, MAX_IO);
	ck_assert_uint_eq(nr_cqs(0), 1);
	ask(0, 20);
	connect_all(0, 20);
	use_all(20, 0);
	close_all(0, 20);
	raw_down(&c);
}

SIM_TEST_WITH(a_queue_as_large_as_the_device_has_them_is_joined_by_another, .nr_reactors = 1)
{
	rnic_sim_max_cqe(2048);
	raw_up(&c, &addr, 16);
	ask(0, MAX_IO);
	connect_all(0, MAX_IO);
	/* Beside 256 shared receives there is room for six, without them for four; one of each for the controller's first two. */
	ck_assert_uint_eq(nr_cqs(MAX_IO), CAN_GROW ? 8 : 11);
	ck_assert_uint_eq(rnic_sim_stats()->nr_cq_resizes, 0);
	use_all(MAX_IO, 0);
	/* Those in the middle. */
	close_all(10, 30);
	ck_assert_uint_lt(nr_cqs(MAX_IO - 20), CAN_GROW ? 8 : 11);
	use_all(10, 40);
	ask(10, 30);
	connect_all(10, 30);
	ck_assert_uint_eq(nr_cqs(MAX_IO), CAN_GROW ? 8 : 11);
	use_all(MAX_IO, 80);
	close_all(0, MAX_IO);
	raw_down(&c);
}

SIM_TEST_WITH(what_is_in_a_queue_stays_there_while_it_is_enlarged, .nr_reactors = 1)
{
	raw_up(&c, &addr, 16);
	ask(0, 1);
	connect_all(0, 1);
	rnic_sim_hold(rnic_sim_peer(io[0].conn), true);
	send_writes(&io[0], 0, 100);
	fiber_sleep(20000);
	ck_assert_uint_eq(io[0].nr_responses, 1);
	ask(1, MAX_IO);
	ck_assert_uint_eq(rnic_sim_stats()->nr_cq_resizes, CAN_GROW ? 2 : 0);
	rnic_sim_hold(rnic_sim_peer(io[0].conn), false);
	wait_writes(&io[0], 0, 100);
	connect_all(1, MAX_IO);
	use_all(MAX_IO, 200);
	close_all(0, MAX_IO);
	raw_down(&c);
}

SIM_TEST_WITH(a_device_that_fails_to_enlarge_a_queue_gets_another_and_is_asked_again, .nr_reactors = 1)
{
	if (!CAN_GROW)
		return;
	raw_up(&c, &addr, 16);
	rnic_sim_fail_cq_resize(1);
	ask(0, MAX_IO);
	connect_all(0, MAX_IO);
	ck_assert_uint_eq(nr_cqs(MAX_IO), 2);
	ck_assert_uint_eq(rnic_sim_stats()->nr_cq_resizes, 1);
	use_all(MAX_IO, 0);
	close_all(0, MAX_IO);
	raw_down(&c);
}

SIM_TEST_WITH(a_queue_pair_that_no_completion_queue_holds_is_refused_and_others_are_served, .nr_reactors = 1)
{
	struct raw_request request = raw_request(2, 512);

	rnic_sim_max_cqe(1024);
	target_stop();
	bdev_unregister_all();
	opts.max_queue_depth = 512;
	target_start();
	raw_up(&c, &addr, 16);
	for (unsigned i = 0; i < 3; i++) {
		raw_ask(&io[0], &addr, &request);
		ck_assert(!raw_wait_cm(&io[0]));
		ck_assert_uint_eq(io[0].reject_status, NVME_RDMA_CM_INVALID_HSQSIZE);
		raw_close(&io[0], false);
	}
	ask(0, 8);
	connect_all(0, 8);
	use_all(8, 0);
	close_all(0, 8);
	raw_down(&c);
}

/* Their queue pairs go into error at once, while each looks for what is left of its own among all that is there. */
SIM_TEST_WITH(a_device_that_is_taken_away_takes_all_its_queues_along, .nr_reactors = 1)
{
	rnic_sim_max_cqe(2048);
	raw_up(&c, &addr, 16);
	ask(0, 20);
	connect_all(0, 20);
	for (unsigned i = 0; i < 20; i++)
		send_writes(&io[i], 0, 20);
	rnic_sim_remove(addr.family);
	close_all(0, 20);
	raw_down(&c);
	fiber_sleep(DRAINED_US);
	ck_assert_uint_eq(rnic_sim_stats()->nr_cqs, 0);
}

int main(void)
{
	const TTest *const tests[] = {
		more_connections_get_a_larger_queue_or_one_more_where_the_device_cannot_enlarge_it,
		a_queue_as_large_as_the_device_has_them_is_joined_by_another,
		what_is_in_a_queue_stays_there_while_it_is_enlarged,
		a_device_that_fails_to_enlarge_a_queue_gets_another_and_is_asked_again,
		a_queue_pair_that_no_completion_queue_holds_is_refused_and_others_are_served,
		a_device_that_is_taken_away_takes_all_its_queues_along,
	};

	return world_suite("rdma completion queues", tests, sizeof(tests) / sizeof(tests[0]));
}
