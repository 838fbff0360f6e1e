/*
 * For the tests of the PCIe driver: a drive of software in a simulation, a queue to it, and many requests at a time.  Include it once
 * a program.
 */
#ifndef NVME_PCIE_TESTING_H
#define NVME_PCIE_TESTING_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/initiator.h"
#include "nvme/soft/soft.h"
#include "runtime/testing.h"

#define SEEDS	 6
#define DATA_LEN (2u << 20)
#define MS	 1000ull
#define SECOND	 1000000ull

static struct soft_opts sopts;
static struct soft_drive *drive;
static struct nvme_bar *bar;
static struct nvme_connect_opts opts;
static struct nvme_ctrlr *ctrlr;
static struct nvme_qpair *qpair;
static struct nvme_error error;
static uint8_t *data, *back;
static unsigned nr_failed;
static bool host_may_err;
static void (*test_body)(void);

static inline void on_failed(struct nvme_ctrlr *c, void *arg)
{
	nr_failed++;
}

static inline void world(void *arg)
{
	data = dma_alloc(DATA_LEN, 4096);
	back = dma_alloc(DATA_LEN, 4096);
	for (uint32_t i = 0; i < DATA_LEN; i++)
		data[i] = (uint8_t)((i * 2654435761u) >> 11);
	memset(back, 0xa5, DATA_LEN);
	sopts = (struct soft_opts){.jitter_us = 50};
	nvme_connect_opts_init(&opts);
	opts.trtype = NVME_TRTYPE_PCIE;
	opts.failed = on_failed;
	nr_failed = 0;
	host_may_err = false;
	drive = NULL;
	test_body();
	ck_assert_msg(host_may_err || !soft_host_errors(drive), "%s", soft_last_host_error(drive));
	soft_destroy(drive);
	dma_free(data);
	dma_free(back);
	runtime_stop(0);
}

static inline void in_sim(void (*body)(void), uint64_t seed)
{
	struct sim_opts simopts = {.seed = 500 + seed, .nr_reactors = 1};
	int rc;

	test_body = body;
	rc = sim_run(&simopts, world, NULL);
	ck_assert_msg(rc == 0, "seed %llu: result %d", (unsigned long long)simopts.seed, rc);
}

#define SIM_TEST(name)                                        \
	static void name##_body(void);                        \
	START_TEST(name)                                      \
	{                                                     \
		for (uint64_t seed = 0; seed < SEEDS; seed++) \
			in_sim(name##_body, seed);            \
	}                                                     \
	END_TEST                                              \
	static void name##_body(void)

static inline void plug(void)
{
	ck_assert_int_eq(soft_create(&sopts, &drive), 0);
	bar = soft_plug(drive, "0000:01:00.0");
	opts.bar = bar;
}

static inline int start(uint32_t queue_size)
{
	int rc = nvme_ctrlr_connect(&opts, &ctrlr, &error);

	if (!rc)
		nvme_ctrlr_nr_io_queues(ctrlr);
	return rc ? rc : nvme_qpair_connect(ctrlr, 1, queue_size, &qpair, &error);
}

static inline void start_ok(uint32_t queue_size)
{
	plug();
	ck_assert_msg(!start(queue_size), "%s", error.text);
}

static inline void stop(void)
{
	nvme_qpair_disconnect(qpair);
	nvme_ctrlr_disconnect(ctrlr);
	bar->ops->close(bar);
}

static inline int io(uint8_t opcode, uint64_t slba, void *buf, uint32_t len)
{
	union nvme_cmd cmd;

	nvme_cmd_rw(&cmd, opcode, 1, slba, len / 512);
	return nvme_execute(qpair, &cmd, buf, len, NULL);
}

static inline void write_and_read_back(uint32_t at)
{
	static const uint32_t lens[] = {512, 4096, 4608, 8192, 12288, 65536, 131072};
	uint64_t slba = 3;

	for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		ck_assert_int_eq(io(NVME_IO_WRITE, slba, data + at, lens[i]), 0);
		ck_assert(!memcmp(soft_ns_data(drive, 1) + slba * 512, data + at, lens[i]));
		memset(back, 0xa5, DATA_LEN);
		ck_assert_int_eq(io(NVME_IO_READ, slba, back + at, lens[i]), 0);
		ck_assert(!memcmp(back + at, data + at, lens[i]));
		ck_assert_uint_eq(back[at + lens[i]], 0xa5);
		slba += lens[i] / 512;
	}
}

/* --- many at a time --------------------------------------------------------------------------------- */

struct many {
	struct nvme_request req;
	struct iovec iov[4];
	bool done;
	uint16_t status;
};

static struct many many[300];
static unsigned nr_many_done;
static struct fiber_wait *many_wait;
static unsigned many_want;

static inline void many_done(struct nvme_request *req, uint16_t status)
{
	struct many *m = container_of(req, struct many, req);

	ck_assert(!m->done);
	m->done = true;
	m->status = status;
	if (++nr_many_done == many_want && many_wait)
		fiber_wake(many_wait, 0);
}

static inline void submit_many(unsigned nr, uint8_t opcode, uint8_t *buf)
{
	memset(many, 0, sizeof(many));
	nr_many_done = 0;
	many_want = nr;
	for (unsigned i = 0; i < nr; i++) {
		struct many *m = &many[i];

		nvme_cmd_rw(&m->req.cmd, opcode, 1, i * 8, 8);
		m->iov[0] = (struct iovec){buf + i * 4096, 4096};
		m->req.iov = m->iov;
		m->req.iovcnt = 1;
		m->req.len = 4096;
		m->req.done = many_done;
		nvme_qpair_submit(qpair, &m->req);
	}
}

static inline void wait_many(void)
{
	struct fiber_wait wait;

	if (nr_many_done == many_want)
		return;
	fiber_wait_init(&wait);
	many_wait = &wait;
	fiber_wait(&wait);
	many_wait = NULL;
}

static inline int pcie_suite(const char *name, const TTest *const *tests, size_t nr)
{
	Suite *suite = suite_create(name);
	TCase *tcase = tcase_create("pcie");
	SRunner *runner = srunner_create(suite);
	int nr_wrong;

	tcase_set_timeout(tcase, 120);
	for (size_t i = 0; i < nr; i++)
		tcase_add_test(tcase, tests[i]);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_NORMAL);
	nr_wrong = srunner_ntests_failed(runner);
	srunner_free(runner);
	return nr_wrong ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
