/*
 * What devices may do to the target: completions that come late or of queue pairs that nobody knows, numbers that are used again,
 * hosts with few receives, and a device that goes while nobody is connected.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/rnic_sim.h"
#include "transport/rdma/raw_host.h"
#include "transport/rdma/world_test.h"

#define DRAINED_US 3000000u /* after which everything of a connection is gone */

static struct raw_ctrlr c;

static fiber_fn void still_works(struct raw_host *host)
{
	union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, 0, 8192, 8);

	memcpy(host->mem, data, 4096);
	raw_keyed(host, &cmd, 0, 4096);
	ck_assert_uint_eq(raw_execute(host, &cmd, NULL), NVME_SC_SUCCESS);
	memset(host->mem, 0, 4096);
	cmd = raw_rw(NVME_IO_READ, 0, 8192, 8);
	raw_keyed(host, &cmd, 0, 4096);
	ck_assert_uint_eq(raw_execute(host, &cmd, NULL), NVME_SC_SUCCESS);
	ck_assert_int_eq(memcmp(host->mem, data, 4096), 0);
}

static void send_writes(struct raw_host *host, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, (uint16_t)i, 64, 8);

		cmd.sgl = (struct nvme_sgl){ .len = 4096, .type = NVME_SGL_IN_CAPSULE };
		ck_assert_int_eq(raw_send(host, &cmd, data, 4096), 0);
	}
}

/* One poll group, so that the next connection has the same completion queue, and gets the number that has become free. */
SIM_TEST_WITH(who_gets_the_number_of_one_that_is_gone_gets_nothing_of_its_completions, .nr_reactors = 1)
{
	struct raw_request request = raw_request(0, 32);
	static struct raw_host next;
	union nvme_cmd cmd;

	raw_up(&c, &addr, 16);
	rnic_sim_hold(rnic_sim_peer(c.io.conn), true);
	send_writes(&c.io, 8);
	fiber_sleep(1000);
	raw_close(&c.io, true);
	fiber_sleep(DRAINED_US);
	raw_ask(&next, &addr, &request);
	ck_assert(raw_wait_cm(&next));
	rnic_sim_hold(rnic_sim_peer(next.conn), false);
	fiber_sleep(1000);
	cmd = raw_connect_cmd(&next, 0, 32, NVME_CNTLID_DYNAMIC);
	ck_assert_uint_eq(raw_execute(&next, &cmd, NULL), NVME_SC_SUCCESS);
	raw_close(&next, true);
	raw_close(&c.admin, true);
}

SIM_TEST(completions_of_queue_pairs_that_nobody_knows_touch_nothing_and_cost_nothing)
{
	raw_up(&c, &addr, 16);
	/* More than there are shared receives. */
	for (unsigned i = 0; i < 600; i++) {
		rnic_sim_stray(rnic_sim_peer(c.io.conn), i % 2 ? RNIC_OK : RNIC_FLUSHED);
		fiber_sleep(10);
	}
	still_works(&c.io);
	raw_down(&c);
}

static void send_reads(struct raw_host *host, unsigned first, unsigned nr)
{
	for (unsigned i = first; i < first + nr; i++) {
		union nvme_cmd cmd = raw_rw(NVME_IO_READ, (uint16_t)i, 64, 16);

		raw_keyed(host, &cmd, 1u << 20, 8192);
		ck_assert_int_eq(raw_send(host, &cmd, NULL, 0), 0);
	}
}

SIM_TEST(no_more_responses_are_on_their_way_than_the_host_has_receives)
{
	struct raw_request request = raw_request(1, 16);
	const struct rnic_sim_stats *stats = rnic_sim_stats();
	union nvme_cmd cmd;

	raw_up(&c, &addr, 16);
	raw_close(&c.io, true);
	fiber_sleep(DRAINED_US);
	ck_assert_uint_gt(stats->max_responses, 0);
	request.cm.hrqsize = 2;
	raw_ask(&c.io, &addr, &request);
	ck_assert(raw_wait_cm(&c.io));
	cmd = raw_connect_cmd(&c.io, 1, 16, c.cntlid);
	ck_assert_uint_eq(raw_execute(&c.io, &cmd, NULL), NVME_SC_SUCCESS);
	for (unsigned round = 0; round < 4; round++) {
		send_writes(&c.io, 7);
		send_reads(&c.io, 7, 8);
		for (unsigned i = 0; i < 15; i++)
			ck_assert_uint_eq(raw_wait(&c.io, (uint16_t)i, NULL), NVME_SC_SUCCESS);
		while (c.io.nr_responses < 1 + 15 * (round + 1))
			fiber_cond_wait(&c.io.cond);
		ck_assert_uint_le(stats->max_responses, 2);
	}
	ck_assert_uint_eq(stats->max_responses, 2);
	still_works(&c.io);
	raw_down(&c);
}

SIM_TEST(a_device_that_is_taken_away_while_nobody_is_connected_is_let_go)
{
	const struct rnic_sim_stats *stats = rnic_sim_stats();

	raw_up(&c, &addr, 16);
	raw_down(&c);
	fiber_sleep(DRAINED_US);
	ck_assert_uint_gt(stats->nr_cqs, 0);
	rnic_sim_remove(addr.family);
	fiber_sleep(1000);
	ck_assert_uint_eq(stats->nr_cqs, 0);
	ck_assert_uint_eq(stats->nr_srqs, 0);
	ck_assert_uint_le(stats->nr_mrs, 1); /* the buffer pool's */
}

/* Those that are up, and one that is on its way out. */
static fiber_fn void survives(void (*break_queue)(struct rnic_conn *conn))
{
	static struct raw_ctrlr other, next;

	raw_up(&c, &addr, 16);
	raw_up(&other, &addr, 16);
	send_reads(&other.io, 0, 15);
	send_writes(&c.io, 15);
	raw_close(&c.io, false);
	break_queue(rnic_sim_peer(c.admin.conn));
	raw_wait_end(&c.admin);
	raw_wait_end(&other.admin);
	raw_wait_end(&other.io);
	raw_up(&next, &addr, 16);
	still_works(&next.io);
	raw_close(&c.admin, true);
	raw_down(&other);
	raw_down(&next);
}

SIM_TEST_WITH(a_completion_queue_in_error_ends_its_connections_and_the_next_get_another, .nr_reactors = 1)
{
	survives(rnic_sim_break_cq);
}

SIM_TEST_WITH(a_shared_receive_queue_in_error_ends_its_connections_and_the_next_get_another, .nr_reactors = 1)
{
	if (addr.family == AF_INET)
		survives(rnic_sim_break_srq);
}

SIM_TEST(a_completion_queue_in_error_goes_with_its_last_connection)
{
	const struct rnic_sim_stats *stats = rnic_sim_stats();
	struct raw_request request = raw_request(0, 32);
	static struct raw_host host;

	raw_ask(&host, &addr, &request);
	ck_assert(raw_wait_cm(&host));
	ck_assert_uint_eq(stats->nr_cqs, 2);
	rnic_sim_break_cq(rnic_sim_peer(host.conn));
	raw_close(&host, true);
	fiber_sleep(DRAINED_US);
	ck_assert_uint_eq(stats->nr_cqs, 0);
	ck_assert_uint_eq(stats->nr_srqs, 0);
}

int main(void)
{
	const TTest *const tests[] = {
		who_gets_the_number_of_one_that_is_gone_gets_nothing_of_its_completions,
		completions_of_queue_pairs_that_nobody_knows_touch_nothing_and_cost_nothing,
		no_more_responses_are_on_their_way_than_the_host_has_receives,
		a_device_that_is_taken_away_while_nobody_is_connected_is_let_go,
		a_completion_queue_in_error_ends_its_connections_and_the_next_get_another,
		a_shared_receive_queue_in_error_ends_its_connections_and_the_next_get_another,
		a_completion_queue_in_error_goes_with_its_last_connection,
	};

	return world_suite("rdma devices", tests, sizeof(tests) / sizeof(tests[0]));
}
