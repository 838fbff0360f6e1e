/*
 * A namespace of a target over RDMA as a device of ours, on the simulated fabric: data, connections that break under load, and a
 * target that is away for a while.
 */
#include <errno.h>

#include "bdev/nvme.h"
#include "transport/rdma/world_test.h"

#define NR     40u
#define BLOCKS 100u /* of 512 bytes: more than a capsule, and no multiple of a page */
#define LEN    (BLOCKS * 512)
#define SECOND 1000000ull

static struct bdev_desc *desc;
static struct bdev_channel *ch;

/* A desc that is told of removal closes; here nothing is in flight then. */
static void on_event(struct bdev *bdev, enum bdev_event event, void *arg)
{
	if (event != BDEV_EVENT_REMOVE)
		return;
	bdev_channel_put(ch);
	bdev_close(desc);
	ch = NULL;
}

static fiber_fn void attach(void)
{
	struct bdev_nvme_attach_opts o;
	struct nvme_error error = { 0 };

	bdev_nvme_attach_opts_init(&o);
	o.name = "Far";
	o.connect.trtype = NVME_TRTYPE_RDMA;
	o.connect.addr = addr;
	o.connect.kato_ms = 2000;
	strcpy(o.connect.subnqn, RAW_NQN);
	o.loss = (struct bdev_nvme_loss){ .reconnect_delay_s = 1, .ctrlr_loss_s = -1 };
	ck_assert_msg(!bdev_nvme_attach(&o, &error), "%s", error.text);
	ck_assert_int_eq(bdev_open("Farn1", true, on_event, NULL, &desc), 0);
	ch = bdev_channel_get(desc);
	ck_assert_ptr_nonnull(ch);
}

static fiber_fn void detach(void)
{
	ck_assert_int_eq(bdev_nvme_detach("Far", NULL), 0);
	ck_assert_ptr_null(ch);
}

struct one {
	struct bdev_io io;
	struct iovec iov[2];
	int status;
	bool done;
};

static struct one ones[NR];
static unsigned nr_done;

static void one_done(struct bdev_io *io, int status)
{
	struct one *o = container_of(io, struct one, io);

	ck_assert(!o->done);
	o->done = true;
	o->status = status;
	nr_done++;
}

/* Each of two pieces that no page divides. */
static void start_all(enum bdev_op op, uint8_t *buf)
{
	nr_done = 0;
	for (unsigned i = 0; i < NR; i++) {
		struct one *o = &ones[i];
		uint8_t *at = buf + (size_t)i * LEN;

		o->done = false;
		o->iov[0] = (struct iovec){ at, 1001 };
		o->iov[1] = (struct iovec){ at + 1001, LEN - 1001 };
		o->io = (struct bdev_io){ .op = op,
					  .iov = o->iov,
					  .iovcnt = 2,
					  .offset_blocks = (uint64_t)i * BLOCKS,
					  .nr_blocks = BLOCKS,
					  .done = one_done };
		bdev_submit(ch, &o->io);
	}
}

static fiber_fn void wait_all(void)
{
	uint64_t until_us = clock_now_us() + 60 * SECOND;

	while (nr_done < NR) {
		ck_assert_msg(clock_now_us() < until_us, "%u of %u done", nr_done, NR);
		fiber_sleep(1000);
	}
	for (unsigned i = 0; i < NR; i++)
		ck_assert_int_eq(ones[i].status, 0);
}

static fiber_fn void read_back(const uint8_t *want)
{
	uint8_t *back = calloc(NR, LEN);

	start_all(BDEV_READ, back);
	wait_all();
	ck_assert_int_eq(memcmp(back, want, (size_t)NR * LEN), 0);
	free(back);
}

static_assert(NR * LEN <= sizeof(data) - 64, "the data is enough");

SIM_TEST(a_namespace_over_rdma_is_a_device)
{
	struct bdev_nvme_path_info path;

	attach();
	ck_assert_uint_eq(bdev_nr_blocks(bdev_find("Farn1")), DISK / 512);
	ck_assert(bdev_nvme_path(bdev_nvme_find("Far"), 0, &path));
	ck_assert_uint_eq(path.connect->trtype, NVME_TRTYPE_RDMA);
	start_all(BDEV_WRITE, data);
	wait_all();
	read_back(data);
	ck_assert_int_eq(bdev_flush(ch), 0);
	ck_assert_int_eq(bdev_unmap(ch, 0, 8), 0);
	detach();
}

SIM_TEST(queue_pairs_that_break_under_load_cost_no_operation)
{
	struct bdev_nvme_path_info path;

	attach();
	for (unsigned round = 0; round < 6; round++) {
		start_all(BDEV_WRITE, data + round);
		fiber_sleep(50 * round);
		rnic_sim_each(rnic_sim_break);
		wait_all();
		read_back(data + round);
	}
	ck_assert(bdev_nvme_path(bdev_nvme_find("Far"), 0, &path));
	ck_assert_uint_ge(path.nr_resets, 6);
	detach();
}

SIM_TEST(a_target_that_is_away_for_a_while_is_waited_for)
{
	struct nvmf_subsystem *subsystem = nvmf_subsystem_find(target, RAW_NQN);

	attach();
	ck_assert_int_eq(nvmf_subsystem_remove_listener(subsystem, "RDMA", &addr), 0);
	rnic_sim_each(rnic_sim_break);
	start_all(BDEV_WRITE, data + 9);
	fiber_sleep(10 * SECOND);
	ck_assert_uint_eq(nr_done, 0);
	ck_assert_int_eq(nvmf_subsystem_add_listener(subsystem, "RDMA", &addr), 0);
	wait_all();
	read_back(data + 9);
	detach();
}

SIM_TEST(a_link_that_is_dead_without_a_word_is_given_up_and_made_anew)
{
	attach();
	rnic_sim_each(rnic_sim_cut);
	start_all(BDEV_WRITE, data + 5);
	wait_all();
	read_back(data + 5);
	detach();
}

int main(void)
{
	const TTest *const tests[] = {
		a_namespace_over_rdma_is_a_device,
		queue_pairs_that_break_under_load_cost_no_operation,
		a_target_that_is_away_for_a_while_is_waited_for,
		a_link_that_is_dead_without_a_word_is_given_up_and_made_anew,
	};

	return world_suite("rdma leaf", tests, sizeof(tests) / sizeof(tests[0]));
}
