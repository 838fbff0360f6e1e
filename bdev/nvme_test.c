/*
 * Namespaces as bdevs, on drives of software in simulations: data, limits, caches, namespaces that come and go, commands from outside.
 */
#include "bdev/nvme_testing.h"

/* --- what a namespace is ------------------------------------------------------------------------------ */

SIM_TEST(a_namespace_is_a_bdev_with_its_limits)
{
	struct bdev *bdev;
	uint32_t nsid;

	sopts.awupf = 7;
	sopts.npwg = 15;
	attach();
	bdev = bdev_find("Nvme0n1");
	ck_assert_ptr_nonnull(bdev);
	ck_assert_str_eq(bdev->product_name, "NVMe disk");
	ck_assert_uint_eq(bdev->block_size, 512);
	ck_assert_uint_eq(bdev->nr_blocks, 8192);
	ck_assert_uint_eq(bdev->write_unit_blocks, 8);
	ck_assert_uint_eq(bdev->optimal_blocks, 16);
	ck_assert_uint_eq(bdev->unmap_granularity_blocks, 16);
	ck_assert(bdev->has_write_cache && !bdev->unmap_zeroes && !bdev->read_only);
	ck_assert(!uuid_is_null(bdev->uuid));
	ck_assert_ptr_eq(bdev_nvme_of(bdev, &nsid), bdev_nvme_find("Nvme0"));
	ck_assert_uint_eq(nsid, 1);
	shut();
}

SIM_TEST(a_drive_without_a_cache_is_one_without_a_cache)
{
	sopts.no_write_cache = true;
	attach();
	ck_assert(!bdev_find("Nvme0n1")->has_write_cache);
	ck_assert_int_eq(bdev_flush(ch), 0);
	shut();
}

SIM_TEST(transfers_of_any_size_read_back)
{
	static const unsigned lens[] = { 1, 8, 9, 255, 256, 257, 1024, 2048, 2051 };

	sopts.noiob = 100;
	attach();
	for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		unsigned at = 37 * i;

		ck_assert_int_eq(bdev_write(ch, data + i, at, lens[i], 0), 0);
		ck_assert(!memcmp(soft_ns_data(drive, 1) + at * BS, data + i, lens[i] * BS));
		memset(back, 0xa5, DATA_LEN);
		ck_assert_int_eq(bdev_read(ch, back + 3, at, lens[i]), 0);
		ck_assert(!memcmp(back + 3, data + i, lens[i] * BS));
	}
	shut();
}

SIM_TEST(transfers_are_cut_at_the_optimal_boundary_and_at_the_largest_transfer)
{
	struct soft_counters before, after;

	sopts.noiob = 100;
	attach();
	soft_get_counters(drive, &before);
	ck_assert_int_eq(bdev_write(ch, data, 50, 200, 0), 0);
	soft_get_counters(drive, &after);
	ck_assert_uint_eq(after.nr_io - before.nr_io, 3); /* to 100, to 200, to 250 */
	shut();
}

SIM_TEST(a_vector_of_many_pieces_is_cut_at_whole_blocks)
{
	struct iovec iov[1200];
	struct bdev_io io = { .op = BDEV_WRITE, .iov = iov, .iovcnt = 1200, .offset_blocks = 11 };
	uint64_t len = 0;

	attach();
	for (unsigned i = 0; i < 1200; i++) {
		iov[i] = (struct iovec){ data + len, 100 + i % 500 };
		len += iov[i].iov_len;
	}
	while (len % BS) {
		len--;
		if (!--iov[io.iovcnt - 1].iov_len)
			io.iovcnt--;
	}
	io.nr_blocks = len / BS;
	ck_assert_int_eq(bdev_submit_wait(ch, &io), 0);
	ck_assert(!memcmp(soft_ns_data(drive, 1) + 11 * BS, data, len));
	shut();
}

SIM_TEST(more_operations_than_requests_wait_in_order)
{
	attach();
	submit_many(MANY, BDEV_WRITE, data, 5);
	wait_many(60 * SECOND);
	ck_assert_uint_eq(nr_with_status(0), MANY);
	ck_assert(!memcmp(soft_ns_data(drive, 1), data, MANY * 5 * BS));
	submit_many(8, BDEV_READ, back, 1000);
	wait_many(60 * SECOND);
	ck_assert(!memcmp(back, data, MANY * 5 * BS));
	shut();
}

SIM_TEST(what_was_flushed_or_written_with_fua_survives_a_power_cut)
{
	attach();
	ck_assert_int_eq(bdev_write(ch, data, 0, 64, 0), 0);
	ck_assert_int_eq(bdev_flush(ch), 0);
	ck_assert_int_eq(bdev_write(ch, data, 100, 64, BDEV_IO_FUA), 0);
	shut();
	soft_power_cut(drive);
	ck_assert(!memcmp(soft_ns_data(drive, 1), data, 64 * BS));
	ck_assert(!memcmp(soft_ns_data(drive, 1) + 100 * BS, data, 64 * BS));
}

SIM_TEST(what_was_written_with_fua_survives_a_power_cut_of_a_drive_that_ignores_it)
{
	struct bdev_io io = { .op = BDEV_WRITE_ZEROES, .flags = BDEV_IO_FUA, .offset_blocks = 110, .nr_blocks = 4 };

	sopts.model = "QEMU NVMe Ctrl";
	sopts.no_fua = true;
	attach();
	ck_assert_int_eq(bdev_write(ch, data, 100, 64, BDEV_IO_FUA), 0);
	ck_assert_int_eq(bdev_submit_wait(ch, &io), 0);
	shut();
	soft_power_cut(drive);
	ck_assert(!memcmp(soft_ns_data(drive, 1) + 100 * BS, data, 10 * BS));
	ck_assert(all_bytes(soft_ns_data(drive, 1) + 110 * BS, 4 * BS, 0));
	ck_assert(!memcmp(soft_ns_data(drive, 1) + 114 * BS, data + 14 * BS, 50 * BS));
}

SIM_TEST(unmap_zeroes_and_compare_reach_the_drive)
{
	struct bdev_io io = { .op = BDEV_WRITE_ZEROES, .offset_blocks = 10, .nr_blocks = 20 };
	struct iovec iov = { data, 4 * BS };
	struct soft_counters c;

	attach();
	ck_assert_int_eq(bdev_write(ch, data, 0, 64, 0), 0);
	ck_assert_int_eq(bdev_submit_wait(ch, &io), 0);
	ck_assert(all_bytes(soft_ns_data(drive, 1) + 10 * BS, 20 * BS, 0));
	ck_assert_int_eq(bdev_unmap(ch, 40, 8), 0);
	ck_assert(all_bytes(soft_ns_data(drive, 1) + 40 * BS, 8 * BS, 0));
	io = (struct bdev_io){ .op = BDEV_COMPARE, .iov = &iov, .iovcnt = 1, .offset_blocks = 0, .nr_blocks = 4 };
	ck_assert_int_eq(bdev_submit_wait(ch, &io), 0);
	io.offset_blocks = 10;
	ck_assert_int_eq(bdev_submit_wait(ch, &io), -EILSEQ);
	/* Dataset Management knows no FUA: a flush comes behind it. */
	io = (struct bdev_io){ .op = BDEV_UNMAP, .flags = BDEV_IO_FUA, .offset_blocks = 0, .nr_blocks = 8 };
	ck_assert_int_eq(bdev_submit_wait(ch, &io), 0);
	soft_get_counters(drive, &c);
	ck_assert_uint_eq(c.nr_flushes, 1);
	shut();
}

static int run_op(enum bdev_op op, uint8_t flags, uint64_t from, uint64_t at, uint64_t nr)
{
	struct bdev_io io = { .op = op, .flags = flags, .from_blocks = from, .offset_blocks = at, .nr_blocks = nr };

	return bdev_submit_wait(ch, &io);
}

SIM_TEST(the_drive_verifies_and_copies_within_its_limits)
{
	struct soft_counters before, c;

	sopts.mssrl = 100;
	sopts.vsl = 3; /* 64 blocks */
	attach();
	ck_assert_int_eq(bdev_write(ch, data, 0, 1000, BDEV_IO_FUA), 0);
	soft_get_counters(drive, &before);
	ck_assert_int_eq(run_op(BDEV_VERIFY, 0, 0, 10, 200), 0);
	soft_get_counters(drive, &c);
	ck_assert_uint_eq(c.nr_verifies, 4);
	ck_assert_uint_eq(c.nr_io - before.nr_io, 4);
	ck_assert_int_eq(run_op(BDEV_COPY, 0, 5, 2000, 250), 0);
	ck_assert(!memcmp(soft_ns_data(drive, 1) + 2000 * BS, data + 5 * BS, 250 * BS));
	soft_get_counters(drive, &c);
	ck_assert_uint_eq(c.nr_copies, 3);
	ck_assert_uint_eq(c.nr_io - before.nr_io, 7);
	ck_assert_uint_eq(c.nr_fua, before.nr_fua);
	ck_assert_int_eq(run_op(BDEV_COPY, BDEV_IO_FUA, 7, 3000, 100), 0);
	fault(SOFT_STATUS, NVME_IO_VERIFY, 0, 1, NVME_SC_UNRECOVERED_READ_ERROR | NVME_SC_DNR);
	ck_assert_int_eq(run_op(BDEV_VERIFY, 0, 0, 0, 1), -EIO);
	fault(SOFT_STATUS, NVME_IO_COPY, 1, 1, NVME_SC_WRITE_FAULT | NVME_SC_DNR);
	ck_assert_int_eq(run_op(BDEV_COPY, 0, 0, 4000, 300), -EIO);
	shut();
	soft_power_cut(drive);
	ck_assert(!memcmp(soft_ns_data(drive, 1) + 3000 * BS, data + 7 * BS, 100 * BS));
}

SIM_TEST(a_drive_without_verify_and_copy_is_read_and_written_instead)
{
	struct soft_counters before, c;

	sopts.no_verify = true;
	attach();
	ck_assert_int_eq(bdev_write(ch, data, 0, 1000, 0), 0);
	soft_get_counters(drive, &before);
	ck_assert_int_eq(run_op(BDEV_VERIFY, 0, 0, 10, 200), 0);
	ck_assert_int_eq(run_op(BDEV_COPY, 0, 5, 2000, 250), 0);
	ck_assert(!memcmp(soft_ns_data(drive, 1) + 2000 * BS, data + 5 * BS, 250 * BS));
	soft_get_counters(drive, &c);
	ck_assert_uint_eq(c.nr_verifies + c.nr_copies, 0);
	ck_assert_uint_gt(c.nr_io, before.nr_io);
	fault(SOFT_STATUS, NVME_IO_READ, 0, 1, NVME_SC_UNRECOVERED_READ_ERROR | NVME_SC_DNR);
	ck_assert_int_eq(run_op(BDEV_VERIFY, 0, 0, 0, 1), -EIO);
	shut();
}

SIM_TEST(errors_of_the_medium_are_told_and_not_tried_again)
{
	struct soft_counters before, after;

	attach();
	soft_get_counters(drive, &before);
	fault(SOFT_STATUS, NVME_IO_READ, 0, 1, NVME_SC_UNRECOVERED_READ_ERROR | NVME_SC_DNR);
	ck_assert_int_eq(bdev_read(ch, back, 0, 8), -EIO);
	soft_get_counters(drive, &after);
	ck_assert_uint_eq(after.nr_io - before.nr_io, 1);
	fault(SOFT_STATUS, NVME_IO_WRITE, 0, 1, NVME_SC_CAPACITY_EXCEEDED);
	ck_assert_int_eq(bdev_write(ch, data, 0, 8, 0), -ENOSPC);
	shut();
}

SIM_TEST(what_the_drive_refuses_for_the_moment_is_tried_again)
{
	attach();
	fault(SOFT_STATUS, NVME_IO_READ, 0, 2, NVME_SC_COMMAND_INTERRUPTED);
	ck_assert_int_eq(bdev_read(ch, back, 0, 8), 0);
	fault(SOFT_STATUS, NVME_IO_READ, 0, 20, NVME_SC_COMMAND_INTERRUPTED);
	ck_assert_int_eq(bdev_read(ch, back, 0, 8), -EIO);
	shut();
}

/* --- namespaces come, go, grow -------------------------------------------------------------------------- */

SIM_TEST(namespaces_come_go_and_grow_while_the_controller_stays)
{
	attach();
	soft_ns_set(drive, 3, 2000);
	fiber_sleep(50 * MS);
	ck_assert_ptr_nonnull(bdev_find("Nvme0n3"));
	soft_ns_set(drive, 1, 9000);
	fiber_sleep(50 * MS);
	ck_assert_uint_eq(nr_resizes, 1);
	ck_assert_uint_eq(bdev_nr_blocks(bdev_find("Nvme0n1")), 9000);
	ck_assert_int_eq(bdev_write(ch, data, 8990, 10, 0), 0);
	soft_ns_set(drive, 1, 0);
	fiber_sleep(50 * MS);
	ck_assert_uint_eq(nr_removals, 1);
	ck_assert_ptr_null(bdev_find("Nvme0n1"));
	ck_assert_ptr_nonnull(bdev_find("Nvme0n3"));
	soft_ns_set(drive, 1, 100);
	fiber_sleep(50 * MS);
	ck_assert_ptr_nonnull(bdev_find("Nvme0n1"));
}

/* --- commands from outside --------------------------------------------------------------------------------- */

SIM_TEST(health_is_read_from_the_drive)
{
	struct nvme_log_smart smart;

	attach();
	ck_assert_int_eq(bdev_write(ch, data, 0, 8, 0), 0);
	ck_assert_int_eq(bdev_nvme_smart("Nvme0", &smart), 0);
	ck_assert_uint_eq(smart.host_writes[0], 1);
	ck_assert_uint_eq(smart.avail_spare, 100);
	ck_assert_int_eq(bdev_nvme_smart("Nvme1", &smart), -ENODEV);
	shut();
}

SIM_TEST(a_format_takes_its_time_and_other_commands_the_time_they_were_given)
{
	const struct soft_fault slow_format = { .kind = SOFT_DELAY, .admin = true, .opcode = NVME_ADMIN_FORMAT_NVM, .count = 1, .arg = 60 * SECOND };
	const struct soft_fault slow_log = { .kind = SOFT_DELAY, .admin = true, .opcode = NVME_ADMIN_GET_LOG_PAGE, .count = 3,
					     .arg = 4 * SECOND };
	union nvme_cmd format = { .opcode = NVME_ADMIN_FORMAT_NVM, .nsid = 1 };
	union nvme_cmd log = { .opcode = NVME_ADMIN_GET_LOG_PAGE, .nsid = NVME_NSID_ALL };
	struct bdev_nvme_path_info path;
	uint8_t page[512];

	opts.connect.timeout_us = 10 * SECOND;
	attach();
	ck_assert_int_eq(bdev_write(ch, data, 0, 64, BDEV_IO_FUA), 0);
	soft_fault_add(drive, &slow_format);
	soft_fault_add(drive, &slow_log); /* the scan that comes after a Format reads one, too */
	ck_assert_int_eq(bdev_nvme_admin("Nvme0", &format, NULL, 0, 0, NULL), 0);
	ck_assert(all_bytes(soft_ns_data(drive, 1), 64 * BS, 0));
	log.get_log.lid = NVME_LID_SMART;
	log.get_log.numdl = sizeof(page) / 4 - 1;
	ck_assert_int_eq(bdev_nvme_admin("Nvme0", &log, page, sizeof(page), 5000, NULL), 0);
	ck_assert(bdev_nvme_path(bdev_nvme_find("Nvme0"), 0, &path));
	ck_assert_uint_eq(path.nr_resets, 0);
	ck_assert_int_lt(bdev_nvme_admin("Nvme0", &log, page, sizeof(page), 1000, NULL), 0);
	fiber_sleep(10 * SECOND);
	ck_assert(bdev_nvme_path(bdev_nvme_find("Nvme0"), 0, &path));
	ck_assert_uint_eq(path.nr_resets, 1);
	shut();
}

/* A command goes by its own words.  What it moves beyond the buffer it was given with reaches nothing of ours. */
SIM_TEST(a_command_that_moves_more_than_its_buffer_touches_nothing_behind_it)
{
	static const uint32_t lens[] = { 0, 512, 4096, 8192, 12288 };
	union nvme_cmd identify = { .opcode = NVME_ADMIN_IDENTIFY }, read;
	uint8_t *arena;

	attach_only();
	arena = dma_alloc(1 << 20, 4096);
	memset(soft_ns_data(drive, 1), 0x77, 64 * 1024);
	identify.identify.cns = NVME_CNS_CTRLR;
	for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		uint8_t *buf = arena + (512 << 10);

		memset(arena, 0xa5, 1 << 20);
		ck_assert_int_eq(bdev_nvme_admin("Nvme0", &identify, buf, lens[i], 0, NULL), 0);
		ck_assert(all_bytes(arena, 512 << 10, 0xa5) && all_bytes(buf + lens[i], (512 << 10) - lens[i], 0xa5));
		for (unsigned blocks = 1; blocks <= 128; blocks *= 2) {
			memset(arena, 0xa5, 1 << 20);
			nvme_cmd_rw(&read, NVME_IO_READ, 1, 0, blocks);
			ck_assert_int_eq(bdev_nvme_io("Nvme0", &read, buf, lens[i], 0, NULL), 0);
			ck_assert(all_bytes(arena, 512 << 10, 0xa5) && all_bytes(buf + lens[i], (512 << 10) - lens[i], 0xa5));
			if (lens[i] == blocks * BS)
				ck_assert(all_bytes(buf, lens[i], 0x77));
		}
	}
	dma_free(arena);
}

SIM_TEST(io_commands_from_outside_need_no_channel_of_anybody)
{
	union nvme_cmd cmd;

	attach_only();
	nvme_cmd_rw(&cmd, NVME_IO_WRITE, 1, 16, 8);
	ck_assert_int_eq(bdev_nvme_io("Nvme0", &cmd, data, 8 * BS, 0, NULL), 0);
	ck_assert(!memcmp(soft_ns_data(drive, 1) + 16 * BS, data, 8 * BS));
	nvme_cmd_rw(&cmd, NVME_IO_READ, 1, 8192, 8);
	ck_assert_int_eq(nvme_status_code((uint16_t)bdev_nvme_io("Nvme0", &cmd, back, 8 * BS, 0, NULL)), NVME_SC_LBA_OUT_OF_RANGE);
	ck_assert_int_eq(bdev_nvme_io("Nvme1", &cmd, back, 8 * BS, 0, NULL), -ENODEV);
	soft_stick(drive, true);
	soft_set_fatal(drive);
	fiber_sleep(SECOND);
	ck_assert_int_eq(bdev_nvme_io("Nvme0", &cmd, back, 8 * BS, 0, NULL), -ENODEV);
	soft_stick(drive, false);
}

SIM_TEST(a_drive_that_is_detached_while_it_is_out_does_not_come_back)
{
	attach();
	present = false;
	soft_unplug(drive);
	fiber_sleep(3 * SECOND);
	ck_assert_ptr_null(bdev_find("Nvme0n1"));
	ck_assert_int_eq(bdev_nvme_detach("Nvme0", &(struct bdev_nvme_path_match){ .address = "0000:02:00.0" }), -ENODEV);
	ck_assert_int_eq(bdev_nvme_detach("Nvme0", NULL), 0);
	ck_assert_int_eq(bdev_nvme_detach("Nvme0", NULL), -ENODEV);
	present = true;
	fiber_sleep(5 * SECOND);
	ck_assert_ptr_null(bdev_nvme_find("Nvme0"));
}

int main(void)
{
	const TTest *const tests[] = {
		a_namespace_is_a_bdev_with_its_limits,
		a_drive_without_a_cache_is_one_without_a_cache,
		transfers_of_any_size_read_back,
		transfers_are_cut_at_the_optimal_boundary_and_at_the_largest_transfer,
		a_vector_of_many_pieces_is_cut_at_whole_blocks,
		more_operations_than_requests_wait_in_order,
		what_was_flushed_or_written_with_fua_survives_a_power_cut,
		what_was_written_with_fua_survives_a_power_cut_of_a_drive_that_ignores_it,
		unmap_zeroes_and_compare_reach_the_drive,
		the_drive_verifies_and_copies_within_its_limits,
		a_drive_without_verify_and_copy_is_read_and_written_instead,
		errors_of_the_medium_are_told_and_not_tried_again,
		what_the_drive_refuses_for_the_moment_is_tried_again,
		namespaces_come_go_and_grow_while_the_controller_stays,
		health_is_read_from_the_drive,
		a_format_takes_its_time_and_other_commands_the_time_they_were_given,
		a_command_that_moves_more_than_its_buffer_touches_nothing_behind_it,
		io_commands_from_outside_need_no_channel_of_anybody,
		a_drive_that_is_detached_while_it_is_out_does_not_come_back,
	};

	return nvme_suite("nvme bdev", tests, sizeof(tests) / sizeof(tests[0]));
}
