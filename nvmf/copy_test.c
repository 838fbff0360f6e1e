/* Copy: ranges into one destination, what a command may ask for, and what none may do. */
#include "nvmf/fake_transport_test.h"

#define MEM_BLOCKS 32768u /* of the stage's namespace 1 */

static void fill(char *buf, uint32_t len, unsigned seed)
{
	for (uint32_t i = 0; i < len; i++)
		buf[i] = (char)(i * 31 + i / 509 + seed);
}

static struct fake_cmd copy(uint32_t nsid, struct nvme_copy_range *ranges, unsigned nr, uint64_t to)
{
	struct fake_cmd cmd = {.data = ranges, .len = nr * 32};

	cmd.cmd.opcode = NVME_IO_COPY;
	cmd.cmd.nsid = nsid;
	cmd.cmd.copy.sdlba = to;
	cmd.cmd.copy.nr = (uint8_t)(nr - 1);
	return cmd;
}

static uint16_t copy_one(struct fake_conn *conn, uint64_t from, uint32_t nr_blocks, uint64_t to)
{
	struct nvme_copy_range range = {.slba = from, .nlb = (uint16_t)(nr_blocks - 1)};
	struct fake_cmd cmd = copy(1, &range, 1, to);

	return fake_run(conn, &cmd);
}

STAGE_TEST(ranges_are_copied_one_after_the_other_to_the_destination)
{
	struct nvme_copy_range ranges[128] = {0};
	char *buf = malloc(512 * 512), *in = malloc(512 * 512);
	struct fake_host host;
	struct nvme_id_ns id;
	struct fake_cmd cmd;

	fake_host_connect(&host, stage->target, &(struct fake_connect){0}, 1);
	ck_assert_uint_eq(fake_identify(host.admin, NVME_CNS_NS, 1, &id), 0);
	ck_assert_uint_eq(id.msrc, 127);
	ck_assert_uint_eq(id.mssrl, 16384);
	ck_assert_uint_eq(id.mcl, 16384);
	fill(buf, 512 * 512, 1);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_WRITE, 1, 0, 512, buf), 0);
	for (unsigned i = 0; i < 128; i++)
		ranges[i] = (struct nvme_copy_range){.slba = (i * 37) % 500, .nlb = (uint16_t)(i % 4)};
	cmd = copy(1, ranges, 128, 1000);
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), 0);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_READ, 1, 1000, 320, in), 0);
	for (unsigned i = 0, at = 0; i < 128; at += ranges[i++].nlb + 1u)
		ck_assert_mem_eq(in + at * 512, buf + ranges[i].slba * 512, (ranges[i].nlb + 1u) * 512);
	/* Not a block more than that. */
	memset(buf, 0, 512);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_READ, 1, 1320, 1, in), 0);
	ck_assert_mem_eq(in, buf, 512);
	free(buf);
	free(in);
	fake_host_drop(&host);
}

STAGE_TEST(a_copy_whose_ranges_are_wrong_changes_nothing)
{
	struct nvme_copy_range ranges[129] = {{.slba = 0, .nlb = 7}, {.slba = 100, .nlb = 7}};
	char out[4096], in[4096];
	struct fake_host host;
	struct fake_cmd cmd;

	fake_host_connect(&host, stage->target, &(struct fake_connect){0}, 1);
	fill(out, sizeof(out), 5);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_WRITE, 1, 0, 8, out), 0);
	ranges[1].slba = MEM_BLOCKS - 7;
	cmd = copy(1, ranges, 2, 200);
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_LBA_OUT_OF_RANGE);
	ranges[1].slba = UINT64_MAX;
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_LBA_OUT_OF_RANGE);
	/* The destination of both, where each alone would fit; and one that wraps. */
	ranges[1].slba = 100;
	cmd = copy(1, ranges, 2, MEM_BLOCKS - 15);
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_LBA_OUT_OF_RANGE);
	cmd = copy(1, ranges, 2, UINT64_MAX - 3);
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_LBA_OUT_OF_RANGE);
	/* The second is read from where the first goes. */
	cmd = copy(1, ranges, 2, 92);
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_INVALID_FIELD);
	cmd = copy(1, ranges, 2, 107);
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_INVALID_FIELD);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_READ, 1, 200, 8, in), 0);
	memset(out, 0, sizeof(out));
	ck_assert_mem_eq(in, out, sizeof(out));
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_READ, 1, 107, 8, in), 0);
	ck_assert_mem_eq(in, out, sizeof(out));
	fake_host_drop(&host);
}

STAGE_TEST(a_copy_keeps_to_the_limits_that_identify_names)
{
	struct nvme_copy_range ranges[129] = {0};
	struct fake_host host;
	struct fake_cmd cmd;

	fake_host_connect(&host, stage->target, &(struct fake_connect){0}, 1);
	ck_assert_uint_eq(copy_one(host.io[0], 0, 16384, 16384), 0);
	ck_assert_uint_eq(copy_one(host.io[0], 0, 16385, 16385), NVME_SC_CMD_SIZE_LIMIT);
	ranges[0].nlb = 16383;
	cmd = copy(1, ranges, 2, 16384);
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_CMD_SIZE_LIMIT);
	cmd = copy(1, ranges, 129, 1000);
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_CMD_SIZE_LIMIT);
	cmd = copy(1, ranges, 2, 1000);
	cmd.len = 32;
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_SGL_LENGTH_INVALID);
	ranges[0].nlb = 0;
	cmd = copy(1, ranges, 1, 1000);
	cmd.cmd.copy.format = 1;
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_INVALID_FIELD);
	cmd = copy(1, ranges, 1, 1000);
	cmd.cmd.copy.control = 0x10; /* a directive */
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_INVALID_FIELD);
	cmd = copy(1, ranges, 1, 1000);
	cmd.cmd.copy.control = NVME_RW_PRINFO_MASK;
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_INVALID_FIELD);
	cmd = copy(7, ranges, 1, 1000);
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_INVALID_NS);
	fake_host_drop(&host);
}

STAGE_TEST(a_copy_with_fua_is_durable_and_one_that_fails_is_a_write_fault)
{
	struct nvme_copy_range ranges[2] = {{.slba = 0, .nlb = 3}, {.slba = 10, .nlb = 0}};
	struct nvmf_ns_opts opts = {.bdev_name = "gate"};
	struct gate *gate = gate_create("gate", true);
	struct fake_host host;
	struct fake_cmd cmd;

	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	fake_host_connect(&host, stage->target, &(struct fake_connect){0}, 1);
	fill(gate->data, 4096 * 2, 3);
	cmd = copy(2, ranges, 2, 100);
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), 0);
	ck_assert_uint_eq(gate->last_flags, 0);
	ck_assert_uint_eq(gate->nr_writes, 2);
	ck_assert_mem_eq(gate->data + 100 * 512, gate->data, 4 * 512);
	ck_assert_mem_eq(gate->data + 104 * 512, gate->data + 10 * 512, 512);
	cmd.cmd.copy.control = NVME_RW_FUA;
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), 0);
	ck_assert_uint_eq(gate->last_flags, BDEV_IO_FUA);
	gate->fail = -EIO;
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_WRITE_FAULT);
	gate->fail = 0;
	gate->bdev.read_only = true;
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_NS_WRITE_PROTECTED);
	fake_host_drop(&host);
}

int main(void)
{
	const TTest *const tests[] = {
		ranges_are_copied_one_after_the_other_to_the_destination,
		a_copy_whose_ranges_are_wrong_changes_nothing,
		a_copy_keeps_to_the_limits_that_identify_names,
		a_copy_with_fua_is_durable_and_one_that_fails_is_a_write_fault,
	};

	return STAGE_SUITE(tests);
}
