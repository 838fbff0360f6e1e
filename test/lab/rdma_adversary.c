/*
 * A host on a real (or software) RDMA device that breaks every rule it can: rdma_adversary ADDRESS [PORT].  The target must answer
 * as the specification says, cut off whom it must, and serve the next; it must have the subsystem RAW_NQN with namespace 1.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/rdma/raw_host.h"

static struct stream_addr addr = { .port = 4420, .family = AF_INET };
static struct raw_ctrlr c;
static uint8_t data[8192];

static fiber_fn uint16_t rw(struct raw_host *host, uint8_t opcode, uint32_t at, uint32_t len)
{
	union nvme_cmd cmd = raw_rw(opcode, 0, 64, len / 512);

	raw_keyed(host, &cmd, at, len);
	return raw_execute(host, &cmd, NULL);
}

static fiber_fn void works(struct raw_host *host)
{
	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = host->mem[i] = (uint8_t)rand();
	ck_assert_uint_eq(rw(host, NVME_IO_WRITE, 0, sizeof(data)), 0);
	ck_assert_uint_eq(rw(host, NVME_IO_READ, 1u << 20, sizeof(data)), 0);
	ck_assert_int_eq(memcmp(host->mem + (1u << 20), data, sizeof(data)), 0);
}

static fiber_fn void up(void)
{
	raw_up(&c, &addr, 16);
	works(&c.io);
}

/* Private data that is short is padded by some transports: its length is not tried here. */
static fiber_fn void bad_requests(void)
{
	static const struct {
		struct nvme_rdma_cm_request cm;
		uint8_t peer_reads;
		uint16_t status;
	} cases[] = {
		{ { .recfmt = 1, .hrqsize = 32, .hsqsize = 31 }, 16, NVME_RDMA_CM_INVALID_RECFMT },
		{ { .qid = 65535, .hrqsize = 32, .hsqsize = 31 }, 16, NVME_RDMA_CM_INVALID_QID },
		{ { .qid = 1, .hrqsize = 32, .hsqsize = 0 }, 16, NVME_RDMA_CM_INVALID_HSQSIZE },
		{ { .qid = 1, .hrqsize = 32, .hsqsize = 65535 }, 16, NVME_RDMA_CM_INVALID_HSQSIZE },
		{ { .qid = 1, .hrqsize = 0, .hsqsize = 31 }, 16, NVME_RDMA_CM_INVALID_HRQSIZE },
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct raw_request request = raw_request(0, 32);

		request.cm = cases[i].cm;
		raw_ask(&c.admin, &addr, &request);
		ck_assert(!raw_wait_cm(&c.admin));
		ck_assert_uint_eq(c.admin.reject_status, cases[i].status);
		raw_close(&c.admin, false);
	}
}

static void load(struct raw_host *host, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		union nvme_cmd cmd = raw_rw(i % 2 ? NVME_IO_READ : NVME_IO_WRITE, (uint16_t)i, 64 * i, 128);

		raw_keyed(host, &cmd, i % 2 ? 2u << 20 : 0, 65536);
		raw_send(host, &cmd, NULL, 0);
	}
}

static void wrong_key(struct raw_host *host)
{
	union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, 1, 0, 8);

	nvme_keyed_sgl_set(&cmd.keyed_sgl, (uintptr_t)host->mem, 4096, rnic_mr_rkey(host->mr) ^ 0xff, NVME_SGL_KEYED);
	raw_send(host, &cmd, NULL, 0);
}

static void beyond_its_memory(struct raw_host *host)
{
	union nvme_cmd cmd = raw_rw(NVME_IO_READ, 1, 0, 256);

	nvme_keyed_sgl_set(&cmd.keyed_sgl, (uintptr_t)host->mem + (64u << 20), 131072, rnic_mr_rkey(host->mr), NVME_SGL_KEYED);
	raw_send(host, &cmd, NULL, 0);
}

static void half_a_command(struct raw_host *host)
{
	raw_send_len(host, data, 63);
}

static void more_than_a_capsule(struct raw_host *host)
{
	raw_send_len(host, data, 64 + 4096 + 1);
}

static void more_than_its_queue(struct raw_host *host)
{
	load(host, 64);
}

static fiber_fn void cut_off(void)
{
	static void (*const crimes[])(struct raw_host *) = { wrong_key, beyond_its_memory, half_a_command, more_than_a_capsule,
							     more_than_its_queue };

	for (unsigned i = 0; i < sizeof(crimes) / sizeof(crimes[0]); i++) {
		up();
		load(&c.io, 4);
		crimes[i](&c.io);
		raw_wait_end(&c.io);
		raw_down(&c);
		printf("crime %u: cut off\n", i);
	}
}

static fiber_fn void gone_in_every_state(void)
{
	for (unsigned i = 0; i < 16; i++) {
		struct raw_request request = raw_request(0, 32);

		raw_ask(&c.admin, &addr, &request);
		if (i % 4 == 3 && raw_wait_cm(&c.admin)) {
			union nvme_cmd cmd = raw_connect_cmd(&c.admin, 0, 32, NVME_CNTLID_DYNAMIC);

			raw_send(&c.admin, &cmd, NULL, 0);
		}
		fiber_sleep(i * 700);
		raw_close(&c.admin, i % 2);
	}
	for (unsigned i = 0; i < 8; i++) {
		up();
		load(&c.io, 15);
		fiber_sleep(i * i * 300);
		raw_close(&c.io, i % 2);
		raw_close(&c.admin, i % 2);
	}
}

static void run(void *arg)
{
	bad_requests();
	printf("bad requests: rejected\n");
	up();
	raw_try_bad_sgls(&c.io);
	works(&c.io);
	raw_down(&c);
	printf("bad descriptors: answered\n");
	cut_off();
	gone_in_every_state();
	printf("gone in every state\n");
	up();
	raw_down(&c);
	fiber_sleep(100000);
	runtime_stop(0);
}

START_TEST(the_target_stands)
{
	struct runtime_opts opts = { .name = "rdma_adversary" };

	ck_assert_int_eq(runtime_run(&opts, run, NULL), 0);
}
END_TEST

int main(int argc, char **argv)
{
	Suite *suite = suite_create("adversary");
	TCase *tcase = tcase_create("adversary");
	SRunner *runner;
	int nr_failed;

	if (argc < 2 || strlen(argv[1]) >= sizeof(addr.host)) {
		fprintf(stderr, "usage: rdma_adversary ADDRESS [PORT]\n");
		return 2;
	}
	strcpy(addr.host, argv[1]);
	addr.family = strchr(argv[1], ':') ? AF_INET6 : AF_INET;
	if (argc > 2)
		addr.port = (uint16_t)atoi(argv[2]);
	setvbuf(stdout, NULL, _IOLBF, 0);
	tcase_set_timeout(tcase, 0);
	tcase_add_test(tcase, the_target_stands);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_set_fork_status(runner, CK_NOFORK);
	srunner_run_all(runner, CK_NORMAL);
	nr_failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return nr_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
