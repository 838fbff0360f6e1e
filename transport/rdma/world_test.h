/*
 * For this folder's tests: a whole target with the RDMA transport on the simulated fabric, and a loop over devices and seeds.  Odd
 * rounds are on the device without shared receive queues, the first two without delays; at the end of each nothing may be left of
 * any queue or registration.
 */
#ifndef TRANSPORT_RDMA_WORLD_TEST_H
#define TRANSPORT_RDMA_WORLD_TEST_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/bdev.h"
#include "nvmf/nvmf.h"
#include "runtime/rnic_sim.h"
#include "runtime/sim.h"
#include "transport/rdma/raw_host.h"
#include "transport/rdma/rdma.h"

#define SEEDS 6
#define DISK  (32u << 20)

static struct stream_addr addr;
static struct nvmf_target *target;
static struct nvmf_transport_opts opts;
static uint8_t data[2u << 20];

static fiber_fn void target_start(void)
{
	const struct nvmf_subsystem_opts subsystem_opts = { .nqn = RAW_NQN, .allow_any_host = true };
	const struct nvmf_ns_opts ns_opts = { .bdev_name = "disk" };
	const struct nvmf_target_opts target_opts = { 0 };
	struct nvmf_subsystem *subsystem;
	uuid_t none = { 0 };
	struct bdev *bdev;
	uint32_t nsid;

	ck_assert_int_eq(bdev_malloc_create("disk", none, DISK / 512, 512, &bdev), 0);
	ck_assert_int_eq(nvmf_target_create(&target_opts, &target), 0);
	ck_assert_int_eq(nvmf_target_register_transport(target, &rdma_transport_ops), 0);
	ck_assert_int_eq(nvmf_transport_create(target, "rdma", &opts), 0);
	ck_assert_int_eq(nvmf_subsystem_create(target, &subsystem_opts, &subsystem), 0);
	ck_assert_int_eq(nvmf_subsystem_add_ns(subsystem, &ns_opts, &nsid), 0);
	ck_assert_int_eq(nvmf_subsystem_add_listener(subsystem, "RDMA", &addr), 0);
}

static fiber_fn void target_stop(void)
{
	if (target)
		nvmf_target_destroy(target);
	target = NULL;
}

static void world(void *arg)
{
	void (*body)(void) = (void (*)(void))(uintptr_t)arg;
	const struct rnic_sim_stats *stats = rnic_sim_stats();

	target_start();
	body();
	target_stop();
	bdev_unregister_all();
	fiber_sleep(5000000);
	ck_assert_uint_eq(stats->nr_qps, 0);
	ck_assert_uint_eq(stats->nr_cqs, 0);
	ck_assert_uint_eq(stats->nr_srqs, 0);
	ck_assert_uint_eq(stats->nr_conns, 0);
	ck_assert_uint_le(stats->nr_mrs, 1); /* the buffer pool's */
	runtime_stop(0);
}

static void in_sim(void (*body)(void), int i, struct sim_opts sim)
{
	sim.seed = 100 + (uint64_t)i;
	sim.nr_reactors = sim.nr_reactors ? sim.nr_reactors : 2;
	sim.max_delay_us = i < 2 ? 0 : 50;
	strcpy(addr.host, i % 2 ? "::1" : "127.0.0.1");
	addr.family = i % 2 ? AF_INET6 : AF_INET;
	addr.port = 4420;
	opts = (struct nvmf_transport_opts){ 0 };
	rdma_transport_ops.opts_default(&opts);
	opts.max_srq_depth = 256;
	for (size_t k = 0; k < sizeof(data); k++)
		data[k] = (uint8_t)((k * 2654435761u + (unsigned)i) >> 13);
	ck_assert_int_eq(sim_run(&sim, world, (void *)(uintptr_t)body), 0);
}

#define SIM_TEST_WITH(name, ...) \
	static void name##_body(void); \
	START_TEST(name) \
	{ \
		in_sim(name##_body, _i, (struct sim_opts){ __VA_ARGS__ }); \
	} \
	END_TEST \
	static void name##_body(void)
#define SIM_TEST(name) SIM_TEST_WITH(name, 0)

static inline int world_suite(const char *name, const TTest *const *tests, size_t nr)
{
	Suite *suite = suite_create(name);
	TCase *tcase = tcase_create(name);
	SRunner *runner;
	int nr_failed;

	tcase_set_timeout(tcase, 120);
	for (size_t i = 0; i < nr; i++)
		tcase_add_loop_test(tcase, tests[i], 0, SEEDS);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	nr_failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return nr_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
