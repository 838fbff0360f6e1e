/* I/O commands: data, ranges, fused pairs, deallocation, and what a host must never see. */
#include "nvmf/fake_transport_test.h"

#define MEM_BLOCKS 32768u /* of the stage's namespace 1 */

static void fill(char *buf, uint32_t len, unsigned seed)
{
	for (uint32_t i = 0; i < len; i++)
		buf[i] = (char)(i * 31 + i / 509 + seed);
}

STAGE_TEST(what_is_written_is_read_back_at_every_size)
{
	static const uint32_t sizes[] = { 1, 2, 8, 16, 17, 256, 257, 511, 1024, 2048 };
	char *out = malloc(NVMF_MAX_XFER), *in = malloc(NVMF_MAX_XFER);
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 2);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		fill(out, sizes[i] * 512, i);
		memset(in, 0xee, sizes[i] * 512);
		ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_WRITE, 1, 100 + i, sizes[i], out), 0);
		ck_assert_uint_eq(fake_io(host.io[1], NVME_IO_READ, 1, 100 + i, sizes[i], in), 0);
		ck_assert_mem_eq(in, out, sizes[i] * 512);
	}
	free(out);
	free(in);
	fake_host_drop(&host);
}

STAGE_TEST(a_write_in_the_capsule_is_taken_from_all_its_pieces)
{
	char out[4096], in[4096];
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	for (uint32_t split = 0; split < 4096; split += 1000) {
		struct fake_cmd cmd = fake_rw(NVME_IO_WRITE, 1, 8, 8, out, sizeof(out));

		fill(out, sizeof(out), split);
		cmd.in_capsule = true;
		cmd.split = split;
		ck_assert_uint_eq(fake_run(host.io[0], &cmd), 0);
		ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_READ, 1, 8, 8, in), 0);
		ck_assert_mem_eq(in, out, sizeof(out));
	}
	fake_host_drop(&host);
}

STAGE_TEST(a_range_past_the_end_is_out_of_range_however_it_wraps)
{
	static const uint64_t slbas[] = { MEM_BLOCKS,	  MEM_BLOCKS - 1, UINT64_MAX,
					  UINT64_MAX - 1, 1ull << 63,	  1ull << 55 };
	static const uint8_t opcodes[] = { NVME_IO_READ, NVME_IO_WRITE, NVME_IO_COMPARE, NVME_IO_WRITE_ZEROES,
					   NVME_IO_VERIFY };
	char buf[1024] = { 0 };
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	for (unsigned i = 0; i < sizeof(slbas) / sizeof(slbas[0]); i++) {
		for (unsigned j = 0; j < sizeof(opcodes); j++)
			ck_assert_uint_eq(fake_io(host.io[0], opcodes[j], 1, slbas[i], 2, buf),
					  NVME_SC_LBA_OUT_OF_RANGE);
	}
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_READ, 1, MEM_BLOCKS - 2, 2, buf), 0);
	fake_host_drop(&host);
}

STAGE_TEST(a_transfer_larger_than_mdts_is_an_invalid_field_and_takes_no_buffer)
{
	struct fake_cmd cmd = fake_rw(NVME_IO_WRITE, 1, 0, 2049, NULL, 0);
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_INVALID_FIELD);
	cmd = fake_rw(NVME_IO_READ, 1, 0, 65536, NULL, 0);
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_INVALID_FIELD);
	fake_host_drop(&host);
}

/* The host's SGL and the command's length must agree: neither more nor less is moved than both say. */
STAGE_TEST(an_sgl_of_another_length_is_refused)
{
	static const uint32_t lens[] = { 0, 1, 511, 513, 1024, 0xfffffe00, 0xffffffff };
	struct fake_host host;
	char buf[1024] = { 0 };

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		struct fake_cmd cmd = fake_rw(NVME_IO_WRITE, 1, 0, 1, buf, sizeof(buf));

		cmd.cmd.sgl.type = NVME_SGL_TRANSPORT;
		cmd.cmd.sgl.len = lens[i];
		ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_SGL_LENGTH_INVALID);
		cmd.cmd.opcode = NVME_IO_READ;
		ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_SGL_LENGTH_INVALID);
	}
	fake_host_drop(&host);
}

STAGE_TEST(a_read_into_the_capsule_is_refused)
{
	char buf[512];
	struct fake_cmd cmd = fake_rw(NVME_IO_READ, 1, 0, 1, buf, sizeof(buf));
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	cmd.in_capsule = true;
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_SGL_TYPE_INVALID);
	fake_host_drop(&host);
}

STAGE_TEST(namespaces_that_are_not_there_are_invalid)
{
	static const uint32_t nsids[] = { 0, 2, 7, 8, 1024, 1025, 0x7fffffff, 0xfffffffe, 0xffffffff };
	char buf[512] = { 0 };
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	for (unsigned i = 0; i < sizeof(nsids) / sizeof(nsids[0]); i++) {
		ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_READ, nsids[i], 0, 1, buf), NVME_SC_INVALID_NS);
		ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_WRITE_ZEROES, nsids[i], 0, 1, NULL),
				  NVME_SC_INVALID_NS);
		ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_FLUSH, nsids[i], 0, 1, NULL),
				  nsids[i] == NVME_NSID_ALL ? 0 : NVME_SC_INVALID_NS);
	}
	fake_host_drop(&host);
}

STAGE_TEST(opcodes_that_are_not_offered_are_invalid)
{
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	for (unsigned opcode = 0; opcode < 256; opcode++) {
		struct fake_cmd cmd = { 0 };

		if (nvmf_ops_io[opcode].execute)
			continue;
		cmd.cmd.opcode = (uint8_t)opcode;
		cmd.cmd.nsid = 1;
		ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_INVALID_OPCODE);
	}
	fake_host_drop(&host);
}

STAGE_TEST(a_command_with_prps_is_an_invalid_field)
{
	char buf[512];
	struct fake_cmd cmd = fake_rw(NVME_IO_READ, 1, 0, 1, buf, sizeof(buf));
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	cmd.conn = host.io[0];
	cmd.cmd.sgl.type = NVME_SGL_TRANSPORT;
	cmd.cmd.sgl.len = 512;
	thread_send(nvmf_group_thread(host.io[0]->qpair.group), fake_arrive, &cmd);
	ck_assert_uint_eq(fake_wait(&cmd), NVME_SC_INVALID_FIELD);
	fake_host_drop(&host);
}

STAGE_TEST(compare_tells_equal_from_different)
{
	char buf[4096];
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	fill(buf, sizeof(buf), 1);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_WRITE, 1, 0, 8, buf), 0);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_COMPARE, 1, 0, 8, buf), 0);
	buf[4095] ^= 1;
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_COMPARE, 1, 0, 8, buf), NVME_SC_COMPARE_FAILURE);
	fake_host_drop(&host);
}

STAGE_TEST(write_zeroes_and_verify_do_what_they_say)
{
	char buf[8192], zero[8192] = { 0 };
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	fill(buf, sizeof(buf), 1);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_WRITE, 1, 0, 16, buf), 0);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_WRITE_ZEROES, 1, 4, 8, NULL), 0);
	memset(buf + 4 * 512, 0, 8 * 512);
	memset(zero, 1, sizeof(zero));
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_READ, 1, 0, 16, zero), 0);
	ck_assert_mem_eq(zero, buf, sizeof(buf));
	/* More than one buffer's worth, to the very end. */
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_VERIFY, 1, 0, 1, NULL), 0);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_VERIFY, 1, 3, MEM_BLOCKS - 3, NULL), 0);
	fake_host_drop(&host);
}

STAGE_TEST(a_failing_verify_and_read_are_read_errors_and_a_failing_write_is_a_write_fault)
{
	struct nvmf_ns_opts opts = { .bdev_name = "gate" };
	struct gate *gate = gate_create("gate", false);
	char buf[512] = { 0 };
	struct nvme_log_smart smart;
	struct fake_host host;

	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	gate->fail = -EIO;
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_READ, 2, 0, 1, buf), NVME_SC_UNRECOVERED_READ_ERROR);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_VERIFY, 2, 0, 1, NULL), NVME_SC_UNRECOVERED_READ_ERROR);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_WRITE, 2, 0, 1, buf), NVME_SC_WRITE_FAULT);
	ck_assert_uint_eq(fake_log(host.admin, NVME_LID_SMART, 0, 0, &smart, sizeof(smart)), 0);
	ck_assert_uint_eq(smart.media_errors[0], 3);
	gate->fail = -ENOSPC;
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_WRITE, 2, 0, 1, buf), NVME_SC_CAPACITY_EXCEEDED);
	fake_host_drop(&host);
}

STAGE_TEST(a_read_only_bdev_is_a_write_protected_namespace)
{
	struct nvmf_ns_opts opts = { .bdev_name = "gate" };
	struct gate *gate = gate_create("gate", false);
	struct nvme_id_ns id;
	char buf[512] = { 0 };
	struct fake_host host;

	gate->bdev.read_only = true;
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_READ, 2, 0, 1, buf), 0);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_WRITE, 2, 0, 1, buf), NVME_SC_NS_WRITE_PROTECTED);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_WRITE_ZEROES, 2, 0, 1, NULL),
			  NVME_SC_NS_WRITE_PROTECTED);
	ck_assert_uint_eq(fake_identify(host.admin, NVME_CNS_NS, 2, &id), 0);
	ck_assert_uint_eq(id.nsattr, NVME_NSATTR_WRITE_PROTECTED);
	fake_host_drop(&host);
}

/* --- durability ---------------------------------------------------------------------------- */

STAGE_TEST(fua_reaches_the_bdev_and_so_does_a_disabled_cache)
{
	struct nvmf_ns_opts opts = { .bdev_name = "gate" };
	struct gate *gate = gate_create("gate", true);
	struct nvme_id_ctrlr id;
	struct fake_host host;
	struct fake_cmd cmd;
	char buf[512] = { 0 };
	uint32_t dw0;

	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	ck_assert_uint_eq(fake_identify(host.admin, NVME_CNS_CTRLR, 0, &id), 0);
	ck_assert(id.vwc & NVME_VWC_PRESENT);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_WRITE, 2, 0, 1, buf), 0);
	ck_assert_uint_eq(gate->last_flags, 0);
	cmd = fake_rw(NVME_IO_WRITE, 2, 0, 1, buf, sizeof(buf));
	cmd.cmd.rw.control = NVME_RW_FUA;
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), 0);
	ck_assert_uint_eq(gate->last_flags, BDEV_IO_FUA);
	ck_assert_uint_eq(fake_get_feature(host.admin, NVME_FID_VWC, 0, 0, &dw0), 0);
	ck_assert_uint_eq(dw0, 1);
	ck_assert_uint_eq(fake_set_feature(host.admin, NVME_FID_VWC, 0), 0);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_WRITE, 2, 0, 1, buf), 0);
	ck_assert_uint_eq(gate->last_flags, BDEV_IO_FUA);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_WRITE_ZEROES, 2, 0, 1, NULL), 0);
	ck_assert_uint_eq(gate->last_flags, BDEV_IO_FUA);
	cmd = fake_rw(NVME_IO_WRITE_ZEROES, 2, 0, 1, NULL, 0);
	cmd.cmd.rw.control = NVME_RW_DEAC;
	ck_assert_uint_eq(fake_set_feature(host.admin, NVME_FID_VWC, 1), 0);
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), 0);
	ck_assert_uint_eq(gate->last_flags, BDEV_IO_UNMAP_OK);
	fake_host_drop(&host);
}

STAGE_TEST(a_cache_is_reported_before_a_namespace_that_has_one_comes)
{
	struct nvmf_ns_opts opts = { .bdev_name = "gate" };
	struct nvme_id_ctrlr id;
	struct fake_host host;
	struct gate *gate;
	char buf[512] = { 0 };
	uint32_t dw0;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	ck_assert_uint_eq(fake_identify(host.admin, NVME_CNS_CTRLR, 0, &id), 0);
	ck_assert(id.vwc & NVME_VWC_PRESENT);
	ck_assert_uint_eq(fake_get_feature(host.admin, NVME_FID_VWC, 0, 0, &dw0), 0);
	ck_assert_uint_eq(dw0, 1);
	ck_assert_uint_eq(fake_set_feature(host.admin, NVME_FID_VWC, 0), 0);
	gate = gate_create("gate", true);
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_WRITE, 2, 0, 1, buf), 0);
	ck_assert_uint_eq(gate->last_flags, BDEV_IO_FUA);
	ck_assert_uint_eq(fake_set_feature(host.admin, NVME_FID_VWC, 1), 0);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_WRITE, 2, 0, 1, buf), 0);
	ck_assert_uint_eq(gate->last_flags, 0);
	fake_host_drop(&host);
}

STAGE_TEST(a_flush_of_all_namespaces_flushes_each)
{
	struct gate *one = gate_create("one", true), *two = gate_create("two", true);
	struct nvmf_ns_opts opts = { .bdev_name = "one", .nsid = 9 };
	struct fake_host host;

	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	opts = (struct nvmf_ns_opts){ .bdev_name = "two", .nsid = 1000 };
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_FLUSH, NVME_NSID_ALL, 0, 1, NULL), 0);
	ck_assert_uint_eq(one->nr_flushes, 1);
	ck_assert_uint_eq(two->nr_flushes, 1);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_FLUSH, 9, 0, 1, NULL), 0);
	ck_assert_uint_eq(one->nr_flushes, 2);
	fake_host_drop(&host);
}

/* --- what is in a buffer ------------------------------------------------------------------- */

STAGE_TEST(a_failed_read_sends_no_data)
{
	struct nvmf_ns_opts opts = { .bdev_name = "gate" };
	struct gate *gate = gate_create("gate", false);
	char secret[4096], buf[4096];
	struct fake_host host;
	struct fake_cmd cmd;

	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	memset(secret, 's', sizeof(secret));
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_WRITE, 1, 0, 8, secret), 0);
	gate->fail = -EIO;
	memset(buf, 0, sizeof(buf));
	cmd = fake_rw(NVME_IO_READ, 2, 0, 8, buf, sizeof(buf));
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_UNRECOVERED_READ_ERROR);
	ck_assert_uint_eq(cmd.received, 0);
	ck_assert_int_eq(buf[0], 0);
	fake_host_drop(&host);
}

STAGE_TEST(more_io_than_there_are_buffers_waits_and_all_of_it_is_done)
{
	struct fake_cmd cmds[128];
	struct fake_host host;
	char *buf = malloc(NVMF_MAX_XFER);

	/* 256 large buffers' worth of 64: a queue that holds some while it waits for more would never end. */
	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 2);
	fill(buf, NVMF_MAX_XFER, 3);
	for (unsigned i = 0; i < 64; i++) {
		cmds[i] = fake_rw(NVME_IO_WRITE, 1, i * 8, i % 3 ? 2048 : 300, buf,
				  i % 3 ? 2048 * 512 : 300 * 512);
		fake_submit(host.io[i % 2], &cmds[i]);
	}
	for (unsigned i = 0; i < 64; i++)
		ck_assert_uint_eq(fake_wait(&cmds[i]), 0);
	free(buf);
	fake_host_drop(&host);
}

/* Each of many transfers takes eight buffers of the pool's 64; were all to hold some while they wait for
 * more, none would end. */
STAGE_TEST(transfers_that_hold_buffers_while_data_is_awaited_do_not_starve_each_other)
{
	static struct fake_cmd cmds[60];
	char *buf = calloc(1, NVMF_MAX_XFER);
	unsigned nr_done = 0;
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 2);
	for (unsigned i = 0; i < 60; i++) {
		cmds[i] = fake_rw(NVME_IO_WRITE, 1, 0, 2048, buf, NVMF_MAX_XFER);
		cmds[i].hold_data = true;
		fake_submit(host.io[i % 2], &cmds[i]);
	}
	fiber_sleep(2000);
	ck_assert(nvmf_buffers_short());
	for (unsigned round = 0; round < 200 && nr_done < 60; round++) {
		fiber_sleep(2000);
		nr_done = 0;
		for (unsigned i = 0; i < 60; i++) {
			if (!cmds[i].done)
				fake_send_data(&cmds[i]);
			nr_done += cmds[i].done;
		}
	}
	for (unsigned i = 0; i < 60; i++)
		ck_assert_uint_eq(cmds[i].done ? cmds[i].status : FAKE_LOST, 0);
	ck_assert(!nvmf_buffers_short());
	free(buf);
	fake_host_drop(&host);
}

STAGE_TEST(a_host_that_vanishes_while_waiting_for_buffers_gives_its_turn_away)
{
	struct fake_cmd cmds[64], others[8];
	char *buf = calloc(1, NVMF_MAX_XFER);
	struct fake_host host, other;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 2);
	fake_host_connect(&other, stage->target, &(struct fake_connect){ 0 }, 2);
	for (unsigned i = 0; i < 64; i++) {
		cmds[i] = fake_rw(NVME_IO_WRITE, 1, 0, 2048, buf, NVMF_MAX_XFER);
		cmds[i].hold_data = i < 12;
		fake_submit(host.io[i % 2], &cmds[i]);
	}
	for (unsigned i = 0; i < 8; i++) {
		others[i] = fake_rw(NVME_IO_READ, 1, 0, 2048, buf, NVMF_MAX_XFER);
		fake_submit(other.io[i % 2], &others[i]);
	}
	fiber_sleep(5000);
	fake_host_drop(&host);
	for (unsigned i = 0; i < 8; i++)
		ck_assert_uint_eq(fake_wait(&others[i]), 0);
	for (unsigned i = 0; i < 64; i++)
		fake_wait(&cmds[i]);
	free(buf);
	fake_host_drop(&other);
}

/* A WRITE parked on data that never comes must not hold its buffers for ever. */
STAGE_TEST(a_host_that_does_not_send_its_data_is_cut_off)
{
	char buf[8192] = { 0 };
	struct fake_cmd cmd = fake_rw(NVME_IO_WRITE, 1, 0, 16, buf, sizeof(buf));
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	cmd.hold_data = true;
	fake_submit(host.io[0], &cmd);
	fake_wait_gone(host.io[0]);
	ck_assert_uint_eq(fake_wait(&cmd), FAKE_LOST);
	ck_assert(!host.admin->gone);
	fake_host_drop(&host);
}

STAGE_TEST(data_that_fails_its_digest_fails_its_command_alone)
{
	char buf[8192] = { 0 };
	struct fake_cmd cmd = fake_rw(NVME_IO_WRITE, 1, 0, 16, buf, sizeof(buf));
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	cmd.fail_data = true;
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_TRANSIENT_TRANSPORT_ERROR);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_WRITE, 1, 0, 16, buf), 0);
	fake_host_drop(&host);
}

/* --- fused --------------------------------------------------------------------------------- */

static struct fake_cmd fused(uint8_t opcode, unsigned fuse, uint64_t slba, void *block)
{
	struct fake_cmd cmd = fake_rw(opcode, 1, slba, 1, block, 512);

	cmd.cmd.flags = (uint8_t)fuse;
	return cmd;
}

STAGE_TEST(a_fused_pair_writes_when_equal_and_not_when_different)
{
	char old[512], new[512], in[512];
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	for (unsigned i = 0; i < 4; i++) {
		struct fake_cmd compare = fused(NVME_IO_COMPARE, NVME_CMD_FUSE_FIRST, 5, old);
		struct fake_cmd write = fused(NVME_IO_WRITE, NVME_CMD_FUSE_SECOND, 5, new);

		fill(old, 512, i);
		fill(new, 512, i + 50);
		compare.in_capsule = i & 1;
		write.in_capsule = i & 2;
		ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_WRITE, 1, 5, 1, old), 0);
		fake_submit(host.io[0], &compare);
		fake_submit(host.io[0], &write);
		ck_assert_uint_eq(fake_wait(&compare), 0);
		ck_assert_uint_eq(fake_wait(&write), 0);
		ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_READ, 1, 5, 1, in), 0);
		ck_assert_mem_eq(in, new, 512);
		fake_submit(host.io[0], &compare);
		fake_submit(host.io[0], &write);
		ck_assert_uint_eq(fake_wait(&compare), NVME_SC_COMPARE_FAILURE);
		ck_assert_uint_eq(fake_wait(&write), NVME_SC_ABORTED_FAILED_FUSED);
	}
	fake_host_drop(&host);
}

/* SPDK f0935084bd: the first of a pair that never was completed with another's CID.  fake_complete() asserts
 * each CID. */
STAGE_TEST(halves_without_their_other_half_fail_and_touch_nobody_else)
{
	char block[512] = { 0 };
	struct fake_cmd aer = { 0 }, first, second, other;
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	aer.cmd.opcode = NVME_ADMIN_AER;
	fake_submit(host.admin, &aer);
	/* A first and then anything else. */
	for (unsigned capsule = 0; capsule < 2; capsule++) {
		first = fused(NVME_IO_COMPARE, NVME_CMD_FUSE_FIRST, 0, block);
		first.in_capsule = capsule;
		other = fake_rw(NVME_IO_WRITE, 1, 0, 1, block, 512);
		fake_submit(host.io[0], &first);
		fake_submit(host.io[0], &other);
		ck_assert_uint_eq(fake_wait(&first), NVME_SC_ABORTED_MISSING_FUSED);
		ck_assert_uint_eq(fake_wait(&other), 0);
		/* Two firsts, then a second. */
		other = first;
		fake_submit(host.io[0], &first);
		fake_submit(host.io[0], &other);
		second = fused(NVME_IO_WRITE, NVME_CMD_FUSE_SECOND, 0, block);
		fake_submit(host.io[0], &second);
		ck_assert_uint_eq(fake_wait(&first), NVME_SC_ABORTED_MISSING_FUSED);
		ck_assert_uint_eq(fake_wait(&other), 0);
		ck_assert_uint_eq(fake_wait(&second), 0);
	}
	/* A second alone, twice. */
	ck_assert_uint_eq(fake_run(host.io[0], &second), NVME_SC_ABORTED_MISSING_FUSED);
	ck_assert_uint_eq(fake_run(host.io[0], &second), NVME_SC_ABORTED_MISSING_FUSED);
	/* A pair about different ranges: both are invalid, whether the first's data is there or not. */
	for (unsigned i = 0; i < 4; i++) {
		first = fused(NVME_IO_COMPARE, NVME_CMD_FUSE_FIRST, 0, block);
		first.in_capsule = i & 1;
		first.hold_data = !first.in_capsule;
		second = fused(NVME_IO_WRITE, NVME_CMD_FUSE_SECOND, i & 2 ? 0 : 1, block);
		second.cmd.rw.nlb = i & 2 ? 1 : 0;
		fake_submit(host.io[0], &first);
		fake_submit(host.io[0], &second);
		ck_assert_uint_eq(fake_wait(&second), NVME_SC_INVALID_FIELD);
		if (first.hold_data)
			fake_send_data(&first);
		ck_assert_uint_eq(fake_wait(&first), NVME_SC_INVALID_FIELD);
	}
	/* No pair at all: the second is what is wrong with it. */
	first = fused(NVME_IO_COMPARE, NVME_CMD_FUSE_FIRST, 0, block);
	second = fused(NVME_IO_COMPARE, NVME_CMD_FUSE_SECOND, 0, block);
	fake_submit(host.io[0], &first);
	fake_submit(host.io[0], &second);
	ck_assert_uint_eq(fake_wait(&first), NVME_SC_ABORTED_FAILED_FUSED);
	ck_assert_uint_eq(fake_wait(&second), NVME_SC_INVALID_FIELD);
	/* A first that fails by itself takes its second along. */
	first = fused(NVME_IO_COMPARE, NVME_CMD_FUSE_FIRST, MEM_BLOCKS, block);
	second = fused(NVME_IO_WRITE, NVME_CMD_FUSE_SECOND, MEM_BLOCKS, block);
	fake_submit(host.io[0], &first);
	fake_submit(host.io[0], &second);
	ck_assert_uint_eq(fake_wait(&first), NVME_SC_LBA_OUT_OF_RANGE);
	ck_assert_uint_eq(fake_wait(&second), NVME_SC_ABORTED_FAILED_FUSED);
	/* One larger than the atomic unit. */
	first.cmd.rw.slba = second.cmd.rw.slba = 0;
	first.cmd.rw.nlb = second.cmd.rw.nlb = 256;
	fake_submit(host.io[0], &first);
	fake_submit(host.io[0], &second);
	ck_assert_uint_eq(fake_wait(&first), NVME_SC_ATOMIC_UNIT_EXCEEDED);
	ck_assert_uint_eq(fake_wait(&second), NVME_SC_ABORTED_FAILED_FUSED);
	/* FUSE 11b, and commands that cannot be fused. */
	first = fused(NVME_IO_COMPARE, 3, 0, block);
	ck_assert_uint_eq(fake_run(host.io[0], &first), NVME_SC_INVALID_FIELD);
	first = fused(NVME_IO_WRITE, NVME_CMD_FUSE_FIRST, 0, block);
	ck_assert_uint_eq(fake_run(host.io[0], &first), NVME_SC_INVALID_FIELD);
	first = fused(NVME_IO_READ, NVME_CMD_FUSE_FIRST, 0, block);
	ck_assert_uint_eq(fake_run(host.io[0], &first), NVME_SC_INVALID_FIELD);
	ck_assert(!aer.done);
	fake_host_drop(&host);
	fake_wait(&aer);
}

STAGE_TEST(a_first_half_does_not_wait_for_ever)
{
	char block[512] = { 0 };
	struct fake_cmd first = fused(NVME_IO_COMPARE, NVME_CMD_FUSE_FIRST, 0, block);
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	ck_assert_uint_eq(fake_run(host.io[0], &first), NVME_SC_ABORTED_MISSING_FUSED);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_READ, 1, 0, 1, block), 0);
	fake_host_drop(&host);
}

STAGE_TEST(a_half_whose_data_fails_takes_the_other_along)
{
	char block[512] = { 0 };
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	for (unsigned i = 0; i < 4; i++) {
		struct fake_cmd first = fused(NVME_IO_COMPARE, NVME_CMD_FUSE_FIRST, 0, block);
		struct fake_cmd second = fused(NVME_IO_WRITE, NVME_CMD_FUSE_SECOND, 0, block);
		struct fake_cmd *bad = i & 1 ? &first : &second, *good = i & 1 ? &second : &first;

		bad->fail_data = true;
		good->hold_data = i & 2;
		fake_submit(host.io[0], &first);
		fake_submit(host.io[0], &second);
		ck_assert_uint_eq(fake_wait(bad), NVME_SC_TRANSIENT_TRANSPORT_ERROR);
		if (good->hold_data)
			fake_send_data(good);
		ck_assert_uint_eq(fake_wait(good), NVME_SC_ABORTED_FAILED_FUSED);
	}
	fake_host_drop(&host);
}

STAGE_TEST(a_connection_that_goes_between_the_halves_leaves_nothing)
{
	char block[512] = { 0 };

	for (unsigned i = 0; i < 4; i++) {
		struct fake_cmd first = fused(NVME_IO_COMPARE, NVME_CMD_FUSE_FIRST, 0, block);
		struct fake_cmd second = fused(NVME_IO_WRITE, NVME_CMD_FUSE_SECOND, 0, block);
		struct fake_host host;

		fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
		first.hold_data = i & 1;
		second.hold_data = true;
		fake_submit(host.io[0], &first);
		if (i & 2)
			fake_submit(host.io[0], &second);
		fiber_sleep(1000);
		fake_host_drop(&host);
		ck_assert_uint_eq(fake_wait(&first), FAKE_LOST);
		if (i & 2)
			ck_assert_uint_eq(fake_wait(&second), FAKE_LOST);
	}
}

/* One counter, incremented by compare-and-write from hosts on two threads: none of the increments may be
 * lost. */
struct increments {
	struct fake_host *host;
	unsigned queue, left, nr_won;
	struct fiber_wait *over;
	unsigned *nr_running;
};

fiber_fn static void increment_fiber(void *arg)
{
	struct increments *inc = arg;
	struct fake_conn *conn = inc->host->io[inc->queue];
	uint32_t old[128], new[128];

	while (inc->left) {
		struct fake_cmd compare = fused(NVME_IO_COMPARE, NVME_CMD_FUSE_FIRST, 77, old);
		struct fake_cmd write = fused(NVME_IO_WRITE, NVME_CMD_FUSE_SECOND, 77, new);

		ck_assert_uint_eq(fake_io(conn, NVME_IO_READ, 1, 77, 1, old), 0);
		memcpy(new, old, sizeof(new));
		new[0]++;
		fake_submit(conn, &compare);
		fake_submit(conn, &write);
		if (fake_wait(&compare) == 0) {
			ck_assert_uint_eq(fake_wait(&write), 0);
			inc->left--;
			inc->nr_won++;
		} else {
			ck_assert_uint_eq(fake_wait(&write), NVME_SC_ABORTED_FAILED_FUSED);
		}
	}
	if (!--*inc->nr_running)
		fiber_wake(inc->over, 0);
}

STAGE_TEST(compare_and_write_is_atomic_across_controllers)
{
	struct fake_host hosts[2];
	struct increments inc[4];
	unsigned nr_running = 4;
	uint32_t block[128];
	struct fiber_wait over;

	fiber_wait_init(&over);
	for (unsigned i = 0; i < 2; i++)
		fake_host_connect(&hosts[i], stage->target, &(struct fake_connect){ 0 }, 2);
	for (unsigned i = 0; i < 4; i++) {
		inc[i] = (struct increments){ &hosts[i / 2], i % 2, 20, 0, &over, &nr_running };
		fiber_spawn(runtime_app_thread(), "increment", increment_fiber, &inc[i]);
	}
	fiber_wait(&over);
	ck_assert_uint_eq(fake_io(hosts[0].io[0], NVME_IO_READ, 1, 77, 1, block), 0);
	ck_assert_uint_eq(block[0], 80);
	for (unsigned i = 0; i < 2; i++)
		fake_host_drop(&hosts[i]);
}

/* --- dataset management -------------------------------------------------------------------- */

static struct fake_cmd dsm(struct nvme_dsm_range *ranges, unsigned nr, uint32_t attributes)
{
	struct fake_cmd cmd = { .data = ranges, .len = nr * 16, .in_capsule = true };

	cmd.cmd.opcode = NVME_IO_DSM;
	cmd.cmd.nsid = 1;
	cmd.cmd.dsm.nr = (uint8_t)(nr - 1);
	cmd.cmd.dsm.attributes = attributes;
	return cmd;
}

STAGE_TEST(deallocate_takes_256_ranges_and_touches_none_when_one_is_wrong)
{
	struct nvme_dsm_range ranges[256] = { 0 };
	char *buf = malloc(512 * 512), *in = malloc(512 * 512);
	struct fake_host host;
	struct fake_cmd cmd;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	fill(buf, 512 * 512, 1);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_WRITE, 1, 0, 512, buf), 0);
	for (unsigned i = 0; i < 256; i++)
		ranges[i] = (struct nvme_dsm_range){ .nlb = 1, .slba = i * 2 };
	ranges[255].slba = MEM_BLOCKS;
	cmd = dsm(ranges, 256, NVME_DSM_AD);
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_LBA_OUT_OF_RANGE);
	ranges[255] = (struct nvme_dsm_range){ .nlb = UINT32_MAX, .slba = UINT64_MAX - 5 };
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_LBA_OUT_OF_RANGE);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_READ, 1, 0, 512, in), 0);
	ck_assert_mem_eq(in, buf, 512 * 512);
	ranges[255] = (struct nvme_dsm_range){ .nlb = 0, .slba = 510 };
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), 0);
	for (unsigned i = 0; i < 255; i++)
		memset(buf + i * 1024, 0, 512);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_READ, 1, 0, 512, in), 0);
	ck_assert_mem_eq(in, buf, 512 * 512);
	/* Hints without deallocation are taken and nothing happens. */
	cmd = dsm(ranges, 256, 0x3);
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), 0);
	/* Linux gives room for 256 ranges whatever their number; fewer bytes than ranges are refused. */
	for (unsigned capsule = 0; capsule < 2; capsule++) {
		cmd = dsm(ranges, 1, NVME_DSM_AD);
		cmd.in_capsule = capsule;
		cmd.len = 4096;
		ck_assert_uint_eq(fake_run(host.io[0], &cmd), 0);
	}
	cmd = dsm(ranges, 256, NVME_DSM_AD);
	cmd.len = 16;
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), NVME_SC_SGL_LENGTH_INVALID);
	free(buf);
	free(in);
	fake_host_drop(&host);
}

int main(void)
{
	const TTest *const tests[] = {
		what_is_written_is_read_back_at_every_size,
		a_write_in_the_capsule_is_taken_from_all_its_pieces,
		a_range_past_the_end_is_out_of_range_however_it_wraps,
		a_transfer_larger_than_mdts_is_an_invalid_field_and_takes_no_buffer,
		an_sgl_of_another_length_is_refused,
		a_read_into_the_capsule_is_refused,
		namespaces_that_are_not_there_are_invalid,
		opcodes_that_are_not_offered_are_invalid,
		a_command_with_prps_is_an_invalid_field,
		compare_tells_equal_from_different,
		write_zeroes_and_verify_do_what_they_say,
		a_failing_verify_and_read_are_read_errors_and_a_failing_write_is_a_write_fault,
		a_read_only_bdev_is_a_write_protected_namespace,
		fua_reaches_the_bdev_and_so_does_a_disabled_cache,
		a_cache_is_reported_before_a_namespace_that_has_one_comes,
		a_flush_of_all_namespaces_flushes_each,
		a_failed_read_sends_no_data,
		more_io_than_there_are_buffers_waits_and_all_of_it_is_done,
		transfers_that_hold_buffers_while_data_is_awaited_do_not_starve_each_other,
		a_host_that_vanishes_while_waiting_for_buffers_gives_its_turn_away,
		a_host_that_does_not_send_its_data_is_cut_off,
		data_that_fails_its_digest_fails_its_command_alone,
		a_fused_pair_writes_when_equal_and_not_when_different,
		halves_without_their_other_half_fail_and_touch_nobody_else,
		a_first_half_does_not_wait_for_ever,
		a_half_whose_data_fails_takes_the_other_along,
		a_connection_that_goes_between_the_halves_leaves_nothing,
		compare_and_write_is_atomic_across_controllers,
		deallocate_takes_256_ranges_and_touches_none_when_one_is_wrong,
	};

	return STAGE_SUITE(tests);
}
