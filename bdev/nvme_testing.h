/*
 * For the tests of namespaces as bdevs: a drive of software in a simulation, attached and open, and many operations on it at a time.
 * Include it once a program.
 */
#ifndef BDEV_NVME_TESTING_H
#define BDEV_NVME_TESTING_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/nvme.h"
#include "bdev/testing.h"
#include "nvme/soft/soft.h"

#define SEEDS	 4
#define DATA_LEN (4u << 20)
#define BS	 512u
#define MS	 1000ull
#define SECOND	 1000000ull

static struct soft_opts sopts;
static struct soft_drive *drive;
static bool present;
static bool mad; /* the drive breaks the rules: what it counts as the host's errors may be its own */
static struct bdev_nvme_attach_opts opts;
static struct nvme_error error;
static struct bdev_desc *desc;
static struct bdev_channel *ch;
static unsigned nr_removals, nr_resizes;
static unsigned nr_done, nr_want; /* of many operations at a time */
static uint8_t *data, *back;
static void (*test_body)(void);

static inline int open_soft(const char *address, void *arg, struct nvme_bar **ret_bar, struct nvme_error *ret_error)
{
	if (!present) {
		nvme_error_set(ret_error, -ENOENT, 0, "%s is not there", address);
		return -ENOENT;
	}
	*ret_bar = soft_plug(drive, address);
	return 0;
}

static inline void world(void *arg)
{
	data = dma_alloc(DATA_LEN, 4096);
	back = dma_alloc(DATA_LEN, 4096);
	for (uint32_t i = 0; i < DATA_LEN; i++)
		data[i] = (uint8_t)((i * 2654435761u) >> 13);
	sopts = (struct soft_opts){ .jitter_us = 100 };
	bdev_nvme_attach_opts_init(&opts);
	opts.name = "Nvme0";
	opts.connect.trtype = NVME_TRTYPE_PCIE;
	opts.bar_open = open_soft;
	strcpy(opts.address, "0000:01:00.0");
	present = true;
	mad = false;
	nr_removals = nr_resizes = nr_done = nr_want = 0;
	drive = NULL;
	desc = NULL;
	ch = NULL;
	test_body();
	bdev_nvme_detach_all();
	ck_assert_msg(mad || !soft_host_errors(drive), "%s", soft_last_host_error(drive));
	soft_destroy(drive);
	dma_free(data);
	dma_free(back);
}

#define SIM_TEST(name)                                              \
	static void name##_body(void);                              \
	START_TEST(name)                                            \
	{                                                           \
		for (uint64_t seed = 0; seed < SEEDS; seed++) {     \
			test_body = name##_body;                    \
			run_sim(900 + seed, 1 + seed % 2, world, NULL); \
		}                                                   \
	}                                                           \
	END_TEST                                                    \
	static void name##_body(void)

static inline void shut(void)
{
	if (ch)
		bdev_channel_put(ch);
	if (desc)
		bdev_close(desc);
	ch = NULL;
	desc = NULL;
}

/* A channel is put when its last operation has ended. */
static inline void shut_when_idle(void *arg)
{
	while (nr_done < nr_want)
		fiber_sleep(100);
	shut();
}

static inline void on_event(struct bdev *bdev, enum bdev_event event, void *arg)
{
	if (event == BDEV_EVENT_RESIZE) {
		nr_resizes++;
		return;
	}
	nr_removals++;
	ck_assert_int_eq(fiber_spawn(runtime_app_thread(), "shut", shut_when_idle, NULL), 0);
}

static inline void open_ns(const char *name)
{
	ck_assert_int_eq(bdev_open(name, true, on_event, NULL, &desc), 0);
	ch = bdev_channel_get(desc);
	ck_assert_ptr_nonnull(ch);
}

static inline void attach_only(void)
{
	ck_assert_int_eq(soft_create(&sopts, &drive), 0);
	ck_assert_msg(!bdev_nvme_attach(&opts, &error), "%s", error.text);
}

static inline void attach(void)
{
	attach_only();
	open_ns("Nvme0n1");
}

static inline void fault(enum soft_fault_kind kind, unsigned opcode, unsigned skip, unsigned count, uint64_t arg)
{
	struct soft_fault f = { .kind = kind, .opcode = (uint16_t)opcode, .skip = skip, .count = count, .arg = arg };

	soft_fault_add(drive, &f);
}

/* --- many at a time --------------------------------------------------------------------------------- */

#define MANY 1500u

struct many {
	struct bdev_io io;
	struct iovec iov;
	int status;
	bool done;
};

static struct many *many;

static inline void many_done(struct bdev_io *io, int status)
{
	struct many *m = container_of(io, struct many, io);

	if (m->done) /* an assertion costs a system call */
		ck_abort_msg("an operation has ended twice");
	m->done = true;
	m->status = status;
	nr_done++;
}

static inline void submit_many(unsigned nr, enum bdev_op op, uint8_t *buf, unsigned blocks)
{
	free(many);
	many = calloc(nr, sizeof(*many));
	nr_done = 0;
	nr_want = nr;
	for (unsigned i = 0; i < nr; i++) {
		struct many *m = &many[i];

		m->iov = (struct iovec){ buf + (size_t)i * blocks * BS, blocks * BS };
		m->io = (struct bdev_io){ .op = op,
					  .iov = &m->iov,
					  .iovcnt = 1,
					  .offset_blocks = (uint64_t)i * blocks,
					  .nr_blocks = blocks,
					  .done = many_done };
		bdev_submit(ch, &m->io);
		if (m->done)
			ck_abort_msg("an operation has ended within its submission");
	}
}

static inline void wait_many(uint64_t limit_us)
{
	uint64_t until_us = clock_now_us() + limit_us;

	while (nr_done < nr_want) {
		if (clock_now_us() >= until_us)
			ck_abort_msg("%u of %u done", nr_done, nr_want);
		fiber_sleep(100);
	}
}

static inline unsigned nr_with_status(int status)
{
	unsigned n = 0;

	for (unsigned i = 0; i < nr_want; i++)
		n += many[i].status == status;
	return n;
}

static inline int nvme_suite(const char *name, const TTest *const *tests, size_t nr)
{
	Suite *suite = suite_create(name);
	TCase *tcase = tcase_create("nvme");
	SRunner *runner = srunner_create(suite);
	int nr_failed;

	tcase_set_timeout(tcase, 240);
	for (size_t i = 0; i < nr; i++)
		tcase_add_test(tcase, tests[i]);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_NORMAL);
	nr_failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return nr_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
