/*
 * For the tests of connections: a host that says what it likes, over simulated streams that cut, delay and reorder by a seed,
 * with a fake nvmf behind.  Include it once a program.
 */
#ifndef TRANSPORT_TCP_CONN_TESTING_H
#define TRANSPORT_TCP_CONN_TESTING_H

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/crc32c.h"
#include "runtime/sim.h"
#include "transport/tcp/fake_nvmf.h"
#include "transport/tcp/raw_host.h"
#include "transport/tcp/tcp.h"

#define SEEDS 4
#define HDR_FIELD NVME_TCP_FES_INVALID_HEADER
#define SEQ NVME_TCP_FES_SEQUENCE

static struct stream_addr addr = { .host = "127.0.0.1", .port = 4420, .family = AF_INET };
static uint8_t data[2u << 20], back[2u << 20], pdus[3u << 20];

static inline void fill_data(uint32_t seed)
{
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)((i * 2654435761u + seed) >> 13);
}

static inline void world(void *arg)
{
	void (*body)(void) = (void (*)(void))(uintptr_t)arg;
	const struct nvmf_listen_opts opts = { .addr = addr, .backlog = 16 };
	void *listener;

	fake_start(&tcp_transport_ops);
	ck_assert_int_eq(tcp_transport_ops.listen(&opts, NULL, &listener), 0);
	body();
	tcp_transport_ops.stop_listen(listener);
	fake_stop(&tcp_transport_ops);
	ck_assert_uint_eq(fake.nr_outstanding, 0);
	ck_assert_uint_eq(fake.buffer_bytes, 0);
	runtime_stop(0);
}

static inline void in_sim_of(void (*body)(void), int seed, const struct sim_opts *more)
{
	struct sim_opts opts = *more;

	opts.seed = 1000 + (uint64_t)seed;
	opts.nr_reactors = 2;
	if (seed) { /* the first without trouble */
		opts.short_io_ppm = 300000;
		opts.again_ppm = 100000;
		opts.max_delay_us = 200;
	}
	fill_data((uint32_t)seed);
	ck_assert_int_eq(sim_run(&opts, world, (void *)(uintptr_t)body), 0);
}

#define SIM_TEST(name) \
	static void name##_body(void); \
	START_TEST(name) \
	{ \
		in_sim_of(name##_body, _i, &(struct sim_opts){ 0 }); \
	} \
	END_TEST \
	static void name##_body(void)

static inline fiber_fn void write_in_capsule(struct raw_host *host, uint16_t cid, uint32_t block, const void *buf, uint32_t len)
{
	union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, cid, block, len / 512, true);

	ck_assert(raw_send_cmd(host, &cmd, buf, len));
	ck_assert_uint_eq(raw_expect_resp(host, cid), NVME_SC_SUCCESS);
}

static inline fiber_fn bool read_back(struct raw_host *host, uint16_t cid, uint32_t block, uint32_t len)
{
	union nvme_cmd cmd = raw_rw(NVME_IO_READ, cid, block, len / 512, false);
	bool success;

	ck_assert(raw_send_cmd(host, &cmd, NULL, 0));
	success = raw_expect_data(host, cid, back, len);
	if (!success)
		ck_assert_uint_eq(raw_expect_resp(host, cid), NVME_SC_SUCCESS);
	return success;
}

/* Runs each test under several seeds; gives the status of the process. */
static inline int run_sim_tests(const char *name, const TTest *const *tests, size_t nr)
{
	Suite *suite = suite_create(name);
	TCase *tc = tcase_create("simulated");
	SRunner *runner;
	int failed;

	log_set_level(LOG_ERROR);
	tcase_set_timeout(tc, 120);
	for (size_t i = 0; i < nr; i++)
		tcase_add_loop_test(tc, tests[i], 0, SEEDS);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
