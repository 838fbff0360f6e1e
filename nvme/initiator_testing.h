/*
 * For the tests of the initiator: one connected to a fake target, over simulated streams that cut, delay and reorder by a seed.
 * Include it once a program.
 */
#ifndef NVME_INITIATOR_TESTING_H
#define NVME_INITIATOR_TESTING_H

#include <errno.h>
#include <string.h>

#include "nvme/fake_target.h"
#include "nvme/initiator.h"
#include "runtime/testing.h"

#define SEEDS    12
#define DATA_LEN (1u << 20)

static const struct stream_addr addr = {.host = "127.0.0.1", .port = 4420, .family = AF_INET};
static struct nvme_connect_opts opts;
static struct nvme_ctrlr *ctrlr;
static struct nvme_qpair *qpair;
static uint8_t data[DATA_LEN], back[DATA_LEN];
static void (*test_body)(void);

static inline void world(void *arg)
{
	for (uint32_t i = 0; i < DATA_LEN; i++)
		data[i] = (uint8_t)((i * 2654435761u) >> 11);
	memset(back, 0xa5, sizeof(back));
	nvme_connect_opts_init(&opts);
	opts.addr = addr;
	opts.kato_ms = 0;
	strcpy(opts.subnqn, "nqn.2026-11.test:fake");
	fake_reset();
	test_body();
	fake_stop();
	runtime_stop(0);
}

static inline void in_sim(void (*body)(void), uint64_t seed)
{
	struct sim_opts sopts = {.seed = 77 + seed, .nr_reactors = 1};
	int rc;

	if (seed) { /* the first one without trouble */
		sopts.short_io_ppm = 300000;
		sopts.again_ppm = 150000;
		sopts.max_delay_us = 200;
	}
	test_body = body;
	rc = sim_run(&sopts, world, NULL);
	ck_assert_msg(rc == 0, "seed %llu: result %d", (unsigned long long)sopts.seed, rc);
}

/* A test that runs its body in a simulation of each seed. */
#define SIM_TEST(name)                                        \
	static void name##_body(void);                        \
	START_TEST(name)                                      \
	{                                                     \
		for (uint64_t seed = 0; seed < SEEDS; seed++) \
			in_sim(name##_body, seed);            \
	}                                                     \
	END_TEST                                              \
	static void name##_body(void)

static inline void connect_ok(uint32_t queue_size)
{
	struct nvme_error error = {0};

	fake_start(&addr);
	ck_assert_msg(!nvme_ctrlr_connect(&opts, &ctrlr, &error), "%s", error.text);
	ck_assert_msg(!nvme_qpair_connect(ctrlr, 1, queue_size, &qpair, &error), "%s", error.text);
}

static inline void disconnect(void)
{
	nvme_qpair_disconnect(qpair);
	nvme_ctrlr_disconnect(ctrlr);
}

static inline int io(uint8_t opcode, uint64_t slba, void *buf, uint32_t len)
{
	union nvme_cmd cmd;

	nvme_cmd_rw(&cmd, opcode, FAKE_NSID, slba, len / FAKE_BLOCK_SIZE);
	return nvme_execute(qpair, &cmd, buf, len, NULL);
}

/* Requests of the tests below: a buffer each, and what became of it. */
struct test_req {
	struct nvme_request req;
	struct iovec iov[3];
	uint8_t buf[8192];
	bool done;
	uint16_t status;
};

static struct test_req reqs[300];
static struct fiber_wait all_done;
static unsigned nr_left;

static inline void test_done(struct nvme_request *req, uint16_t status)
{
	struct test_req *r = container_of(req, struct test_req, req);

	ck_assert(!r->done);
	r->done = true;
	r->status = status;
	if (--nr_left == 0)
		fiber_wake(&all_done, 0);
}

static inline void prepare(struct test_req *r, uint8_t opcode, uint64_t slba, uint32_t len)
{
	*r = (struct test_req){.req = {.done = test_done, .len = len, .iov = r->iov, .iovcnt = 3}};
	/* three odd pieces */
	r->iov[0] = (struct iovec){r->buf, 13};
	r->iov[1] = (struct iovec){r->buf + 13, 300};
	r->iov[2] = (struct iovec){r->buf + 313, len - 313};
	nvme_cmd_rw(&r->req.cmd, opcode, FAKE_NSID, slba, len / FAKE_BLOCK_SIZE);
}

static inline void begin(unsigned nr)
{
	fiber_wait_init(&all_done);
	nr_left = nr;
}

#endif
