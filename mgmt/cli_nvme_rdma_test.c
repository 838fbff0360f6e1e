/* The verbs of ferrule nvme with an RDMA address, against our target on the simulated fabric. */
#include "mgmt/cli_nvme.h"
#include "transport/rdma/world_test.h"

#define MIB (1u << 20)

static struct cli_nvme_opts verb(const char *name)
{
	struct cli_nvme_opts o = {.verb = name, .queue_depth = 16, .io_bytes = 4096, .read_percent = 50, .nr_queues = 2};

	nvme_connect_opts_init(&o.connect);
	o.connect.trtype = NVME_TRTYPE_RDMA;
	o.connect.addr = addr;
	strcpy(o.connect.subnqn, RAW_NQN);
	o.has_nqn = true;
	return o;
}

static void count(uint64_t nr[BDEV_NR_OPS])
{
	struct bdev_stats stats;

	bdev_get_stats(bdev_find("disk"), &stats);
	for (int op = 0; op < BDEV_NR_OPS; op++)
		nr[op] = stats.op[op].nr_ops;
}

SIM_TEST(perf_measures_and_verifies_over_rdma)
{
	static const uint32_t sizes[] = {512, 4096, 65536, MIB};
	uint64_t nr[BDEV_NR_OPS], before[BDEV_NR_OPS];

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct cli_nvme_opts o = verb("perf");

		o.io_bytes = sizes[i];
		o.range_bytes = 8 * MIB;
		o.nr_ops = 400;
		o.seconds = 100;
		o.seed = 7;
		o.verify = true;
		count(before);
		ck_assert_int_eq(cli_nvme_perf(&o), 0);
		count(nr);
		/* And what was written is read again at the end. */
		ck_assert_uint_ge(nr[BDEV_READ] + nr[BDEV_WRITE], before[BDEV_READ] + before[BDEV_WRITE] + 400);
		ck_assert_uint_gt(nr[BDEV_WRITE], before[BDEV_WRITE] + 100);
	}
}

/* A block that somebody else has changed under it is noticed. */
static void meddle(void *arg)
{
	static uint8_t other[512] = {1, 2, 3};
	struct bdev_desc *desc;
	struct bdev_channel *ch;

	ck_assert_int_eq(bdev_open("disk", true, NULL, NULL, &desc), 0);
	ch = bdev_channel_get(desc);
	fiber_sleep(20000);
	for (unsigned block = 0; block < 64; block++)
		ck_assert_int_eq(bdev_write(ch, other, block, 1, 0), 0);
	bdev_channel_put(ch);
	bdev_close(desc);
}

SIM_TEST(perf_notices_what_it_has_not_written)
{
	struct cli_nvme_opts o = verb("perf");

	o.io_bytes = 512;
	o.range_bytes = 64 * 512;
	o.seconds = 1;
	o.verify = true;
	o.nr_queues = 1;
	o.read_percent = 50;
	ck_assert_int_eq(fiber_spawn(runtime_app_thread(), "meddle", meddle, NULL), 0);
	ck_assert_int_eq(cli_nvme_perf(&o), 1);
}

SIM_TEST(zero_trim_verify_and_flush_go_over_rdma)
{
	fiber_fn int (*const verbs[])(const struct cli_nvme_opts *) = {cli_nvme_zero, cli_nvme_trim, cli_nvme_verify, cli_nvme_flush};
	static const enum bdev_op ops[] = {BDEV_WRITE_ZEROES, BDEV_UNMAP, BDEV_VERIFY, BDEV_FLUSH};

	for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		struct cli_nvme_opts o = verb("verb");
		uint64_t nr[BDEV_NR_OPS];

		o.has_len = true;
		o.len_bytes = 3 * MIB;
		ck_assert_int_eq(verbs[i](&o), 0);
		count(nr);
		ck_assert_uint_eq(nr[ops[i]], ops[i] == BDEV_FLUSH ? 1 : 3);
		o.connect.addr.port++;
		ck_assert_int_eq(verbs[i](&o), 1);
	}
}

int main(void)
{
	const TTest *const tests[] = {
		perf_measures_and_verifies_over_rdma,
		perf_notices_what_it_has_not_written,
		zero_trim_verify_and_flush_go_over_rdma,
	};

	return world_suite("ferrule nvme over RDMA", tests, sizeof(tests) / sizeof(tests[0]));
}
