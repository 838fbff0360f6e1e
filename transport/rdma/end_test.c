/*
 * What may still be under way when a connection ends: capsules that nobody has looked at, commands that are with their drive, other
 * queue pairs that break in the same moment.  One poll group, so that all of it meets in one completion queue.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "nvmf/gate_bdev_test.h"
#include "runtime/rnic_sim.h"
#include "transport/rdma/raw_host.h"
#include "transport/rdma/world_test.h"

#define DRAINED_US 3000000u /* after which a queue pair is gone */
#define GATE_NSID  2u

static struct raw_ctrlr c, other;
static struct gate *gate;
static struct bdev_ops stubborn; /* of a drive that aborts nothing */

static fiber_fn void add_gate(void)
{
	const struct nvmf_ns_opts ns_opts = { .bdev_name = "gate" };
	uint32_t nsid;

	gate = gate_create("gate", false);
	stubborn = gate_ops;
	stubborn.abort = NULL;
	gate->bdev.ops = &stubborn;
	ck_assert_int_eq(nvmf_subsystem_add_ns(nvmf_subsystem_find(target, RAW_NQN), &ns_opts, &nsid), 0);
	ck_assert_uint_eq(nsid, GATE_NSID);
	gate->hold = true;
}

static void open_gate(void)
{
	gate_open(gate, nvmf_target_pick_group(target));
}

static void send_write(struct raw_host *host, uint16_t cid, uint32_t nsid)
{
	union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, cid, 0, 8);

	cmd.nsid = nsid;
	raw_keyed(host, &cmd, 0, 4096);
	ck_assert_int_eq(raw_send(host, &cmd, NULL, 0), 0);
}

/* One command of the host's waits in the gate. */
static fiber_fn void write_into_gate(struct raw_host *host)
{
	send_write(host, 5, GATE_NSID);
	fiber_sleep(10000);
	ck_assert_uint_eq(gate->nr_held, 1);
}

SIM_TEST_WITH(a_capsule_that_nobody_has_looked_at_when_its_connection_ends_touches_nothing, .nr_reactors = 1)
{
	for (unsigned i = 0; i < 8; i++) {
		raw_up(&c, &addr, 16);
		rnic_sim_hold(rnic_sim_peer(c.io.conn), true);
		for (unsigned k = 0; k < i; k++)
			send_write(&c.io, (uint16_t)k, 1);
		fiber_sleep(1 + 60 * i);
		raw_close(&c.io, i % 2);
		fiber_sleep(2 * DRAINED_US);
		rnic_sim_hold(rnic_sim_peer(c.admin.conn), false);
		raw_close(&c.admin, true);
		fiber_sleep(DRAINED_US);
	}
}

SIM_TEST_WITH(capsules_of_hosts_that_go_while_the_thread_is_busy_touch_nothing, .nr_reactors = 1)
{
	static struct raw_ctrlr hosts[6];

	for (unsigned i = 0; i < 6; i++)
		raw_up(&hosts[i], &addr, 64);
	rnic_sim_hold(rnic_sim_peer(hosts[5].admin.conn), true);
	for (unsigned i = 0; i < 6 * 50; i++)
		send_write(&hosts[i % 6].io, (uint16_t)(i / 6), 1);
	fiber_sleep(3000);
	for (unsigned i = 0; i < 5; i++)
		raw_close(&hosts[i].io, true);
	fiber_sleep(20);
	rnic_sim_hold(rnic_sim_peer(hosts[5].admin.conn), false);
	fiber_sleep(2 * DRAINED_US);
	raw_close(&hosts[5].io, true);
	for (unsigned i = 0; i < 6; i++)
		raw_close(&hosts[i].admin, true);
}

/* Its receives come back flushed; whoever posted them again at once would see them at once again. */
SIM_TEST_WITH(a_queue_pair_that_breaks_while_another_is_taken_away_does_not_keep_the_thread, .nr_reactors = 1)
{
	union nvme_cmd keep_alive = { .opcode = NVME_ADMIN_KEEP_ALIVE, .flags = NVME_CMD_PSDT_SGL };

	add_gate();
	raw_up(&other, &addr, 16);
	raw_up(&c, &addr, 16);
	write_into_gate(&other.io);
	rnic_sim_hold(rnic_sim_peer(c.io.conn), true);
	rnic_sim_fail_next(rnic_sim_peer(other.io.conn), RNIC_RETRIES);
	raw_close(&c.io, true);
	fiber_sleep(1000);
	open_gate();
	fiber_sleep(3 * DRAINED_US);
	rnic_sim_hold(rnic_sim_peer(c.admin.conn), false);
	ck_assert_uint_eq(raw_execute(&c.admin, &keep_alive, NULL), NVME_SC_SUCCESS);
	raw_close(&c.admin, true);
	raw_down(&other);
}

SIM_TEST_WITH(a_number_is_the_next_ones_though_a_drive_still_has_commands_of_the_one_before, .nr_reactors = 1)
{
	struct raw_request request = raw_request(0, 32);
	static struct raw_host next;
	union nvme_cmd cmd;

	add_gate();
	raw_up(&c, &addr, 16);
	write_into_gate(&c.io);
	raw_close(&c.io, true);
	fiber_sleep(DRAINED_US);
	raw_ask(&next, &addr, &request);
	ck_assert(raw_wait_cm(&next));
	cmd = raw_connect_cmd(&next, 0, 32, NVME_CNTLID_DYNAMIC);
	ck_assert_uint_eq(raw_execute(&next, &cmd, NULL), NVME_SC_SUCCESS);
	ck_assert_uint_eq(gate->nr_held, 1);
	open_gate();
	fiber_sleep(DRAINED_US);
	raw_close(&next, true);
	raw_close(&c.admin, true);
}

int main(void)
{
	const TTest *const tests[] = {
		a_capsule_that_nobody_has_looked_at_when_its_connection_ends_touches_nothing,
		capsules_of_hosts_that_go_while_the_thread_is_busy_touch_nothing,
		a_queue_pair_that_breaks_while_another_is_taken_away_does_not_keep_the_thread,
		a_number_is_the_next_ones_though_a_drive_still_has_commands_of_the_one_before,
	};

	return world_suite("rdma ends", tests, sizeof(tests) / sizeof(tests[0]));
}
