/* Admin commands: Identify, log pages, Abort, events. */
#include "nvmf/fake_transport_test.h"

/* --- Identify ------------------------------------------------------------------------------ */

STAGE_TEST(identify_controller_says_what_a_host_relies_on)
{
	struct nvme_id_ctrlr id;
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	ck_assert_uint_eq(fake_identify(host.admin, NVME_CNS_CTRLR, 0, &id), 0);
	ck_assert_mem_eq(id.mn, "Model                                   ", 40);
	ck_assert(memchr(id.sn, 0, sizeof(id.sn)) == NULL);
	ck_assert_uint_eq(id.mdts, 8);
	ck_assert_uint_eq(id.cntlid, host.cntlid);
	ck_assert_uint_eq(id.ver, 0x20000);
	ck_assert_uint_eq(id.cntrltype, 1);
	ck_assert_uint_eq(id.sqes, 0x66);
	ck_assert_uint_eq(id.cqes, 0x44);
	ck_assert_uint_eq(id.nn, 1024);
	ck_assert_uint_eq(id.mnan, 1024);
	ck_assert_uint_eq(id.maxcmd, 128);
	ck_assert_uint_eq(id.ioccsz, (64 + 4096) / 16);
	ck_assert_uint_eq(id.iorcsz, 1);
	ck_assert_uint_gt(id.kas, 0);
	ck_assert_uint_eq(id.fuses & 1, 1);
	ck_assert_uint_eq(id.oaes & NVME_OAES_NS_ATTR, NVME_OAES_NS_ATTR);
	ck_assert_uint_eq(id.ctratt & (NVME_CTRATT_HIDS | NVME_CTRATT_TBKAS),
			  NVME_CTRATT_HIDS | NVME_CTRATT_TBKAS);
	ck_assert_uint_eq(id.sgls & 3, 1);
	ck_assert(id.sgls & NVME_SGLS_OFFSET && id.sgls & NVME_SGLS_TRANSPORT);
	ck_assert_uint_eq(id.oncs, NVME_ONCS_COMPARE | NVME_ONCS_DSM | NVME_ONCS_WRITE_ZEROES | NVME_ONCS_SAVE |
					   NVME_ONCS_VERIFY | NVME_ONCS_COPY);
	ck_assert_uint_eq(id.cdfs, 1);
	ck_assert_str_eq(id.subnqn, SUBNQN);
	fake_host_drop(&host);
}

STAGE_TEST(identify_namespace_says_size_format_and_identity)
{
	struct nvme_id_ns_independent independent;
	uint8_t page[4096], uuid[16];
	struct nvme_id_ns id;
	struct fake_host host;

	for (unsigned i = 0; i < 16; i++)
		uuid[i] = (uint8_t)(i + 1);
	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	ck_assert_uint_eq(fake_identify(host.admin, NVME_CNS_NS, 1, &id), 0);
	ck_assert_uint_eq(id.nsze, 32768);
	ck_assert_uint_eq(id.ncap, 32768);
	ck_assert_uint_eq(id.lbaf[0].lbads, 9);
	ck_assert_uint_eq(id.nmic, 1);
	ck_assert_uint_eq(id.dlfeat, NVME_DLFEAT_READ_ZERO | NVME_DLFEAT_WZ_DEAC);
	ck_assert_mem_eq(id.nguid, uuid, 16);
	ck_assert_uint_eq(fake_identify(host.admin, NVME_CNS_NS_ID_DESCRIPTORS, 1, page), 0);
	ck_assert(page[0] == NVME_NIDT_NGUID && page[1] == 16);
	ck_assert(page[20] == NVME_NIDT_UUID && page[21] == 16);
	ck_assert_mem_eq(page + 24, uuid, 16);
	ck_assert(page[40] == NVME_NIDT_CSI && page[41] == 1 && page[44] == NVME_CSI_NVM);
	ck_assert(all_bytes_are(page, 45, 4096, 0));
	ck_assert_uint_eq(fake_identify(host.admin, NVME_CNS_IOCS_INDEPENDENT_NS, 1, &independent), 0);
	ck_assert_uint_eq(independent.nstat, NVME_NSTAT_READY);
	ck_assert_uint_eq(independent.nmic, 1);
	fake_host_drop(&host);
}

STAGE_TEST(a_thin_namespace_tells_what_it_uses_and_what_it_prefers)
{
	struct nvmf_ns_opts opts = { .bdev_name = "gate" };
	struct gate *gate = gate_create("gate", true);
	struct nvme_id_ns id;
	struct fake_host host;

	gate->bdev.thin = true;
	gate->bdev.optimal_blocks = 8;
	gate->bdev.unmap_granularity_blocks = 16;
	gate->allocated_blocks = 77;
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	ck_assert_uint_eq(fake_identify(host.admin, NVME_CNS_NS, 2, &id), 0);
	ck_assert_uint_eq(id.nsfeat, NVME_NSFEAT_THIN | NVME_NSFEAT_OPTPERF);
	ck_assert_uint_eq(id.nsze, GATE_BLOCKS);
	ck_assert_uint_eq(id.nuse, 77);
	ck_assert_uint_eq(id.npwg, 7);
	ck_assert_uint_eq(id.npdg, 15);
	gate->allocated_blocks = GATE_BLOCKS + 5;
	ck_assert_uint_eq(fake_identify(host.admin, NVME_CNS_NS, 2, &id), 0);
	ck_assert_uint_eq(id.nuse, GATE_BLOCKS);
	ck_assert_uint_eq(fake_identify(host.admin, NVME_CNS_NS, 1, &id), 0);
	ck_assert_uint_eq(id.nuse, id.nsze);
	fake_host_drop(&host);
}

STAGE_TEST(an_inactive_namespace_is_zeroes_and_an_invalid_one_is_an_error)
{
	static const uint8_t pages[] = { NVME_CNS_NS, NVME_CNS_IOCS_NS, NVME_CNS_IOCS_INDEPENDENT_NS };
	static const uint32_t invalid[] = { 0, 1025, 0xfffffffe, 0xffffffff };
	struct fake_host host;
	uint8_t page[4096];

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	for (unsigned i = 0; i < sizeof(pages); i++) {
		ck_assert_uint_eq(fake_identify(host.admin, pages[i], 2, page), 0);
		ck_assert(all_bytes_are(page, 0, 4096, 0));
		ck_assert_uint_eq(fake_identify(host.admin, pages[i], 1024, page), 0);
		for (unsigned j = 0; j < 4; j++)
			ck_assert_uint_eq(fake_identify(host.admin, pages[i], invalid[j], page),
					  NVME_SC_INVALID_NS);
	}
	ck_assert_uint_eq(fake_identify(host.admin, NVME_CNS_NS_ID_DESCRIPTORS, 2, page), NVME_SC_INVALID_NS);
	ck_assert(all_bytes_are(page, 0, 4096, 0xaa));
	fake_host_drop(&host);
}

STAGE_TEST(the_list_of_a_thousand_namespaces_is_whole_and_sorted)
{
	struct nvme_ns_list list;
	struct fake_host host;

	for (unsigned i = 2; i <= 1024; i++) {
		struct nvmf_ns_opts opts = { .nsid = 1026 - i };
		struct bdev *bdev;
		char name[16];

		snprintf(name, sizeof(name), "null%u", i);
		ck_assert_int_eq(bdev_null_create(name, NULL, 8, 512, &bdev), 0);
		opts.bdev_name = name;
		ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	}
	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	ck_assert_uint_eq(fake_identify(host.admin, NVME_CNS_ACTIVE_NS_LIST, 0, &list), 0);
	for (unsigned i = 0; i < 1024; i++)
		ck_assert_uint_eq(list.nsid[i], i + 1);
	ck_assert_uint_eq(fake_identify(host.admin, NVME_CNS_IOCS_ACTIVE_NS_LIST, 1000, &list), 0);
	ck_assert_uint_eq(list.nsid[0], 1001);
	ck_assert_uint_eq(list.nsid[23], 1024);
	ck_assert_uint_eq(list.nsid[24], 0);
	ck_assert_uint_eq(fake_identify(host.admin, NVME_CNS_ACTIVE_NS_LIST, 0xfffffffd, &list), 0);
	ck_assert_uint_eq(list.nsid[0], 0);
	ck_assert_uint_eq(fake_identify(host.admin, NVME_CNS_ACTIVE_NS_LIST, 0xfffffffe, &list),
			  NVME_SC_INVALID_NS);
	ck_assert_uint_eq(fake_identify(host.admin, NVME_CNS_ACTIVE_NS_LIST, 0xffffffff, &list),
			  NVME_SC_INVALID_NS);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_READ, 1024, 0, 8, &list), 0);
	fake_host_drop(&host);
}

STAGE_TEST(identify_pages_that_are_not_offered_are_invalid_fields)
{
	static const uint8_t offered[] = { 0, 1, 2, 3, 5, 6, 7, 8, 0x1c };
	struct fake_host host;
	uint8_t page[4096];

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	for (unsigned cns = 0; cns < 256; cns++) {
		uint16_t status = fake_identify(host.admin, (uint8_t)cns, 1, page);

		ck_assert_uint_eq(status,
				  memchr(offered, (int)cns, sizeof(offered)) ? 0 : NVME_SC_INVALID_FIELD);
	}
	ck_assert_uint_eq(fake_identify(host.admin, NVME_CNS_IOCS_VECTORS, 0, page), 0);
	ck_assert_uint_eq(page[0], 1);
	ck_assert(all_bytes_are(page, 1, 4096, 0));
	fake_host_drop(&host);
}

/* SPDK acc4d1766c, f513182217: the page is exactly 4096 bytes, whatever buffer it goes into. */
STAGE_TEST(identify_fills_4096_bytes_of_a_larger_buffer_and_refuses_a_smaller)
{
	struct fake_cmd cmd = { 0 };
	struct fake_host host;
	uint8_t page[8192];

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	memset(page, 0xaa, sizeof(page));
	cmd.cmd.opcode = NVME_ADMIN_IDENTIFY;
	cmd.cmd.identify.cns = NVME_CNS_CTRLR;
	cmd.data = page;
	cmd.len = sizeof(page);
	ck_assert_uint_eq(fake_run(host.admin, &cmd), 0);
	ck_assert_uint_eq(cmd.received, 4096);
	ck_assert(all_bytes_are(page, 4096, 8192, 0xaa));
	memset(&cmd.cmd.sgl, 0, sizeof(cmd.cmd.sgl));
	cmd.len = 4092;
	ck_assert_uint_eq(fake_run(host.admin, &cmd), NVME_SC_SGL_LENGTH_INVALID);
	fake_host_drop(&host);
}

/* --- log pages ----------------------------------------------------------------------------- */

STAGE_TEST(log_pages_are_those_that_page_00h_says)
{
	static const uint8_t offered[] = { 0, 1, 2, 3, 4, 5, 0x12 };
	struct nvme_log_supported supported;
	struct fake_host host;
	uint8_t page[512];

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	ck_assert_uint_eq(fake_log(host.admin, NVME_LID_SUPPORTED, 0, 0, &supported, sizeof(supported)), 0);
	for (unsigned lid = 0; lid < 256; lid++) {
		bool is = memchr(offered, (int)lid, sizeof(offered)) != NULL;

		ck_assert_uint_eq(supported.page[lid] & 1, is);
		ck_assert_uint_eq(fake_log(host.admin, (uint8_t)lid, 0, 0, page, sizeof(page)),
				  is ? 0 : NVME_SC_INVALID_LOG_PAGE);
	}
	fake_host_drop(&host);
}

/* QEMU CVE-2021-3947, SPDK 7a2a588c62: offsets past the page, and those that wrap. */
STAGE_TEST(a_log_page_is_read_from_any_offset_within_it_and_none_beyond)
{
	static const struct {
		uint8_t lid;
		uint32_t size;
	} pages[] = { { NVME_LID_SUPPORTED, 1024 },	 { NVME_LID_ERROR, 4096 },
		      { NVME_LID_SMART, 512 },		 { NVME_LID_FIRMWARE_SLOT, 512 },
		      { NVME_LID_CHANGED_NS, 4096 },	 { NVME_LID_EFFECTS, 4096 },
		      { NVME_LID_FEATURE_EFFECTS, 1024 } };
	static const uint64_t beyond[] = { 4, 4096, 1ull << 32, 1ull << 63, UINT64_MAX - 3 };
	uint8_t whole[4096], part[8192];
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	for (unsigned i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		uint32_t size = pages[i].size;

		ck_assert_uint_eq(fake_log(host.admin, pages[i].lid, 0x80, 0, whole, size), 0);
		for (uint32_t offset = 0; offset <= size; offset += size / 8) {
			ck_assert_uint_eq(
				fake_log(host.admin, pages[i].lid, 0x80, offset, part, sizeof(part)), 0);
			ck_assert(all_bytes_are(part, size - offset, sizeof(part), 0));
			/* An error entry more, or a counter, is no matter here. */
			if (pages[i].lid != NVME_LID_ERROR && pages[i].lid != NVME_LID_SMART)
				ck_assert_mem_eq(part, whole + offset, size - offset);
		}
		for (unsigned j = 0; j < 5; j++)
			ck_assert_uint_eq(
				fake_log(host.admin, pages[i].lid, 0x80,
					 size + beyond[j] < beyond[j] ? beyond[j] : size + beyond[j], part,
					 16),
				NVME_SC_INVALID_FIELD);
		ck_assert_uint_eq(fake_log(host.admin, pages[i].lid, 0x80, 2, part, 16),
				  NVME_SC_INVALID_FIELD);
	}
	fake_host_drop(&host);
}

/* SPDK e749fa9c27: the answer's buffer is several pieces, and each is to be zeroed by itself. */
STAGE_TEST(a_log_page_that_takes_several_buffers_is_zero_beyond_its_end)
{
	char *secret = malloc(NVMF_MAX_XFER), *log = malloc(NVMF_MAX_XFER);
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	memset(secret, 's', NVMF_MAX_XFER);
	for (unsigned i = 0; i < 16; i++)
		ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_WRITE, 1, 0, 2048, secret), 0);
	ck_assert_uint_eq(fake_log(host.admin, NVME_LID_EFFECTS, 0, 0, log, 300 * 1024), 0);
	ck_assert(all_bytes_are(log, 4096, 300 * 1024, 0));
	ck_assert_uint_eq(fake_log(host.admin, NVME_LID_EFFECTS, 0, 4096, log, NVMF_MAX_XFER), 0);
	ck_assert(all_bytes_are(log, 0, NVMF_MAX_XFER, 0));
	free(secret);
	free(log);
	fake_host_drop(&host);
}

STAGE_TEST(a_log_page_longer_than_mdts_or_by_index_is_an_invalid_field)
{
	struct fake_host host;
	struct fake_cmd cmd = { 0 };

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	cmd.cmd.opcode = NVME_ADMIN_GET_LOG_PAGE;
	cmd.cmd.get_log.lid = NVME_LID_ERROR;
	cmd.cmd.get_log.numdl = 0xffff;
	cmd.cmd.get_log.numdu = 0xffff;
	ck_assert_uint_eq(fake_run(host.admin, &cmd), NVME_SC_INVALID_FIELD);
	cmd.cmd.get_log.numdu = 3;
	cmd.cmd.get_log.numdl = 0xffff;
	ck_assert_uint_eq(fake_run(host.admin, &cmd), NVME_SC_SGL_LENGTH_INVALID);
	cmd.cmd.get_log.numdu = 4;
	cmd.cmd.get_log.numdl = 0;
	ck_assert_uint_eq(fake_run(host.admin, &cmd), NVME_SC_INVALID_FIELD);
	cmd.cmd.get_log.numdu = cmd.cmd.get_log.numdl = 0;
	cmd.cmd.get_log.ot = 0x80;
	ck_assert_uint_eq(fake_run(host.admin, &cmd), NVME_SC_INVALID_FIELD);
	cmd.cmd.get_log.ot = 0;
	cmd.cmd.nsid = 1;
	ck_assert_uint_eq(fake_run(host.admin, &cmd), NVME_SC_INVALID_FIELD);
	fake_host_drop(&host);
}

STAGE_TEST(smart_counts_what_was_done_and_tells_the_hottest_drive)
{
	struct gate *warm = gate_create("warm", false), *hot = gate_create("hot", false);
	struct nvme_log_smart smart;
	struct fake_host host;
	char buf[8192] = { 0 };

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 2);
	ck_assert_uint_eq(fake_log(host.admin, NVME_LID_SMART, 0, 0, &smart, sizeof(smart)), 0);
	ck_assert_uint_eq(smart.temperature_k[0] | smart.temperature_k[1] << 8, 0);
	ck_assert_uint_eq(smart.host_reads[0], 0);
	ck_assert_uint_eq(smart.data_units_read[0], 0);
	for (unsigned i = 0; i < 126; i++)
		ck_assert_uint_eq(fake_io(host.io[i % 2], NVME_IO_WRITE, 1, 0, 16, buf), 0);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_uint_eq(fake_io(host.io[i % 2], NVME_IO_READ, 1, 0, 16, buf), 0);
	warm->temperature_k = 300;
	hot->temperature_k = 345;
	ck_assert_uint_eq(fake_log(host.admin, NVME_LID_SMART, 0, 0, &smart, sizeof(smart)), 0);
	ck_assert_uint_eq(smart.temperature_k[0] | smart.temperature_k[1] << 8, 345);
	ck_assert_uint_eq(smart.critical_warning, 0x02);
	ck_assert_uint_eq(smart.host_writes[0], 126);
	ck_assert_uint_eq(smart.host_reads[0], 3);
	ck_assert_uint_eq(smart.data_units_written[0], 3); /* 2016 of 512 bytes, in thousands, rounded up */
	ck_assert_uint_eq(smart.data_units_read[0], 1);
	ck_assert_uint_eq(smart.avail_spare, 100);
	fake_host_drop(&host);
	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	ck_assert_uint_eq(fake_log(host.admin, NVME_LID_SMART, 0, 0, &smart, sizeof(smart)), 0);
	ck_assert_uint_eq(smart.unsafe_shutdowns[0], 1);
	fake_host_drop(&host);
}

STAGE_TEST(the_error_log_has_the_newest_error_first)
{
	struct nvme_log_error log[64];
	struct fake_host host;
	char buf[512];

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 2);
	for (unsigned i = 0; i < 70; i++)
		ck_assert_uint_eq(fake_io(host.io[1], NVME_IO_READ, 1, 1000000 + i, 1, buf),
				  NVME_SC_LBA_OUT_OF_RANGE);
	fiber_sleep(1000); /* another thread's errors come in messages */
	ck_assert_uint_eq(fake_log(host.admin, NVME_LID_ERROR, 0, 0, log, sizeof(log)), 0);
	for (unsigned i = 0; i < 64; i++) {
		ck_assert_uint_eq(log[i].error_count, 70 - i);
		ck_assert_uint_eq(log[i].lba, 1000069 - i);
		ck_assert_uint_eq(log[i].sqid, 2);
		ck_assert_uint_eq(log[i].nsid, 1);
		ck_assert_uint_eq(nvme_status_code(log[i].status_field >> 1), NVME_SC_LBA_OUT_OF_RANGE);
	}
	fake_host_drop(&host);
}

STAGE_TEST(the_effects_log_names_every_command_there_is)
{
	struct nvme_log_effects log;
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	ck_assert_uint_eq(fake_log(host.admin, NVME_LID_EFFECTS, 0, 0, &log, sizeof(log)), 0);
	ck_assert_uint_eq(log.admin[NVME_ADMIN_IDENTIFY], NVME_EFFECTS_CSUPP);
	ck_assert_uint_eq(log.admin[NVME_ADMIN_FORMAT_NVM], 0);
	ck_assert_uint_eq(log.io[NVME_IO_READ], NVME_EFFECTS_CSUPP);
	ck_assert_uint_eq(log.io[NVME_IO_WRITE], NVME_EFFECTS_CSUPP | NVME_EFFECTS_LBCC);
	ck_assert_uint_eq(log.io[NVME_IO_COPY], NVME_EFFECTS_CSUPP | NVME_EFFECTS_LBCC);
	ck_assert_uint_eq(log.io[NVME_IO_WRITE_UNCORRECTABLE], 0);
	fake_host_drop(&host);
}

STAGE_TEST(admin_opcodes_that_are_not_offered_are_invalid)
{
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	for (unsigned opcode = 0; opcode < 256; opcode++) {
		struct fake_cmd cmd = { 0 };

		if (nvmf_ops_admin[opcode].execute)
			continue;
		cmd.cmd.opcode = (uint8_t)opcode;
		ck_assert_uint_eq(fake_run(host.admin, &cmd), NVME_SC_INVALID_OPCODE);
	}
	fake_host_drop(&host);
}

/* --- Abort --------------------------------------------------------------------------------- */

fiber_fn static uint32_t abort_cmd(struct fake_conn *admin, uint16_t sqid, uint16_t cid)
{
	struct fake_cmd cmd = { 0 };

	cmd.cmd.opcode = NVME_ADMIN_ABORT;
	cmd.cmd.abort.sqid = sqid;
	cmd.cmd.abort.cid = cid;
	ck_assert_uint_eq(fake_run(admin, &cmd), 0);
	return cmd.cqe.dw0;
}

STAGE_TEST(abort_ends_what_a_bdev_has_not_begun_on_any_thread)
{
	struct nvmf_ns_opts opts = { .bdev_name = "gate" };
	struct gate *gate = gate_create("gate", false);
	char buf[512] = { 0 };
	struct fake_host host;

	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 3);
	gate->hold = true;
	for (uint16_t qid = 1; qid <= 3; qid++) {
		struct fake_cmd cmd = fake_rw(NVME_IO_READ, 2, 0, 1, buf, sizeof(buf));

		fake_submit(host.io[qid - 1], &cmd);
		while (!gate->nr_held)
			fiber_sleep(10);
		ck_assert_uint_eq(abort_cmd(host.admin, qid, cmd.cmd.cid), 0);
		ck_assert_uint_eq(fake_wait(&cmd), NVME_SC_ABORT_REQUESTED);
		ck_assert_uint_eq(gate->nr_held, 0);
	}
	fake_host_drop(&host);
}

STAGE_TEST(abort_of_what_cannot_be_stopped_says_so_in_time)
{
	static struct bdev_ops stubborn;
	struct nvmf_ns_opts opts = { .bdev_name = "gate" };
	struct gate *gate = gate_create("gate", false);
	char buf[512] = { 0 };
	struct fake_cmd cmd = fake_rw(NVME_IO_READ, 2, 0, 1, buf, sizeof(buf));
	struct fake_host host;

	stubborn = gate_ops;
	stubborn.abort = NULL;
	gate->bdev.ops = &stubborn;
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	gate->hold = true;
	fake_submit(host.io[0], &cmd);
	while (!gate->nr_held)
		fiber_sleep(10);
	ck_assert_uint_eq(abort_cmd(host.admin, 1, cmd.cmd.cid), 1);
	ck_assert(!cmd.done);
	gate_open(gate, host.io[0]->qpair.group);
	ck_assert_uint_eq(fake_wait(&cmd), 0);
	fake_host_drop(&host);
}

STAGE_TEST(abort_ends_a_write_whose_data_is_awaited_an_event_request_and_a_lone_half)
{
	char buf[512] = { 0 };
	struct fake_cmd write = fake_rw(NVME_IO_WRITE, 1, 0, 1, buf, sizeof(buf));
	struct fake_cmd half = fake_rw(NVME_IO_COMPARE, 1, 0, 1, buf, sizeof(buf));
	struct fake_cmd aer = { 0 }, abort = { 0 };
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	write.hold_data = true;
	fake_submit(host.io[0], &write);
	while (!write.data_wanted)
		fiber_sleep(10);
	abort.cmd.opcode = NVME_ADMIN_ABORT;
	abort.cmd.abort.sqid = 1;
	abort.cmd.abort.cid = write.cmd.cid;
	fake_submit(host.admin, &abort);
	fiber_sleep(1000);
	ck_assert_int_eq(fake_send_data(&write), 0);
	ck_assert_uint_eq(fake_wait(&write), NVME_SC_ABORT_REQUESTED);
	ck_assert_uint_eq(fake_wait(&abort), 0);
	ck_assert_uint_eq(abort.cqe.dw0, 0);
	aer.cmd.opcode = NVME_ADMIN_AER;
	fake_submit(host.admin, &aer);
	ck_assert_uint_eq(abort_cmd(host.admin, 0, aer.cmd.cid), 0);
	ck_assert_uint_eq(fake_wait(&aer), NVME_SC_ABORT_REQUESTED);
	half.cmd.flags = NVME_CMD_FUSE_FIRST;
	half.in_capsule = true;
	fake_submit(host.io[0], &half);
	fiber_sleep(1000);
	ck_assert_uint_eq(abort_cmd(host.admin, 1, half.cmd.cid), 0);
	ck_assert_uint_eq(fake_wait(&half), NVME_SC_ABORT_REQUESTED);
	fake_host_drop(&host);
}

/* What is marked never starts: no answer may call it not aborted, however late its data is, or bad. */
STAGE_TEST(abort_of_a_write_whose_data_stays_away_says_what_will_become_of_it)
{
	char old[512] = { 0 }, buf[512], in[512];
	struct fake_host host;

	memset(buf, 0x5a, sizeof(buf));
	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_WRITE, 1, 0, 1, old), 0);
	for (unsigned bad = 0; bad < 2; bad++) {
		struct fake_cmd write = fake_rw(NVME_IO_WRITE, 1, 0, 1, buf, sizeof(buf));
		struct fake_cmd aborts[2] = { 0 };

		write.hold_data = true;
		fake_submit(host.io[0], &write);
		while (!write.data_wanted)
			fiber_sleep(10);
		for (unsigned i = 0; i < 2; i++) {
			aborts[i].cmd.opcode = NVME_ADMIN_ABORT;
			aborts[i].cmd.abort.sqid = 1;
			aborts[i].cmd.abort.cid = write.cmd.cid;
			fake_submit(host.admin, &aborts[i]);
		}
		for (unsigned i = 0; i < 2; i++) {
			ck_assert_uint_eq(fake_wait(&aborts[i]), 0);
			ck_assert_uint_eq(aborts[i].cqe.dw0, 0);
		}
		ck_assert(!write.done);
		write.fail_data = bad;
		ck_assert_int_eq(fake_send_data(&write), 0);
		ck_assert_uint_eq(fake_wait(&write), NVME_SC_ABORT_REQUESTED);
		ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_READ, 1, 0, 1, in), 0);
		ck_assert_mem_eq(in, old, sizeof(in));
	}
	fake_host_drop(&host);
}

STAGE_TEST(abort_ends_what_the_transport_has_not_begun)
{
	char buf[512] = { 0 };
	struct fake_cmd held = fake_rw(NVME_IO_WRITE, 1, 0, 1, buf, sizeof(buf)), other = held;
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 2);
	held.hold_back = true;
	fake_submit(host.io[1], &held);
	ck_assert_uint_eq(fake_run(host.io[1], &other), 0);
	ck_assert_uint_eq(abort_cmd(host.admin, 1, held.cmd.cid), 1);
	ck_assert_uint_eq(abort_cmd(host.admin, 2, held.cmd.cid), 0);
	ck_assert_uint_eq(fake_wait(&held), NVME_SC_ABORT_REQUESTED);
	fake_host_drop(&host);
}

STAGE_TEST(abort_of_nothing_aborts_nothing)
{
	static const uint16_t sqids[] = { 0, 1, 2, 127, 128, 0xffff };
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	for (unsigned i = 0; i < sizeof(sqids) / sizeof(sqids[0]); i++)
		ck_assert_uint_eq(abort_cmd(host.admin, sqids[i], 0x9999), 1);
	fake_host_drop(&host);
}

STAGE_TEST(a_fifth_abort_at_a_time_is_one_too_many)
{
	static struct bdev_ops stubborn;
	struct nvmf_ns_opts opts = { .bdev_name = "gate" };
	struct gate *gate = gate_create("gate", false);
	struct fake_cmd cmds[5], aborts[5];
	char buf[512] = { 0 };
	struct fake_host host;

	stubborn = gate_ops;
	stubborn.abort = NULL;
	gate->bdev.ops = &stubborn;
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	gate->hold = true;
	for (unsigned i = 0; i < 5; i++) {
		cmds[i] = fake_rw(NVME_IO_READ, 2, i, 1, buf, sizeof(buf));
		fake_submit(host.io[0], &cmds[i]);
	}
	while (gate->nr_held < 5)
		fiber_sleep(10);
	for (unsigned i = 0; i < 5; i++) {
		aborts[i] = (struct fake_cmd){ 0 };
		aborts[i].cmd.opcode = NVME_ADMIN_ABORT;
		aborts[i].cmd.abort.sqid = 1;
		aborts[i].cmd.abort.cid = cmds[i].cmd.cid;
		fake_submit(host.admin, &aborts[i]);
	}
	ck_assert_uint_eq(fake_wait(&aborts[4]), NVME_SC_ABORT_LIMIT);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_uint_eq(fake_wait(&aborts[i]), 0);
	gate_open(gate, host.io[0]->qpair.group);
	for (unsigned i = 0; i < 5; i++)
		ck_assert_uint_eq(fake_wait(&cmds[i]), 0);
	fake_host_drop(&host);
}

/* --- events -------------------------------------------------------------------------------- */

STAGE_TEST(a_namespace_change_is_told_once_until_the_list_is_read)
{
	struct nvmf_ns_opts opts = { .bdev_name = "null" };
	struct fake_cmd aers[5];
	struct nvme_ns_list list;
	struct fake_host host;
	struct bdev *bdev;

	ck_assert_int_eq(bdev_null_create("null", NULL, 8, 512, &bdev), 0);
	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	for (unsigned i = 0; i < 5; i++) {
		aers[i] = (struct fake_cmd){ 0 };
		aers[i].cmd.opcode = NVME_ADMIN_AER;
		fake_submit(host.admin, &aers[i]);
	}
	ck_assert_uint_eq(fake_wait(&aers[4]), NVME_SC_AER_LIMIT);
	/* Not asked for: not told, but in the list. */
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	fiber_sleep(1000);
	ck_assert(!aers[0].done);
	ck_assert_uint_eq(fake_log(host.admin, NVME_LID_CHANGED_NS, 0, 0, &list, sizeof(list)), 0);
	ck_assert_uint_eq(list.nsid[0], 2);
	ck_assert_uint_eq(fake_set_feature(host.admin, NVME_FID_ASYNC_EVENT, NVME_AEC_NS_ATTR), 0);
	ck_assert_int_eq(nvmf_subsystem_remove_ns(stage->sub, 2), 0);
	ck_assert_uint_eq(fake_wait(&aers[0]), 0);
	ck_assert_uint_eq(aers[0].cqe.dw0,
			  NVME_AER_RESULT(NVME_AER_NOTICE, NVME_AER_NOTICE_NS_ATTR, NVME_LID_CHANGED_NS));
	/* Masked: a second change says nothing, whether the log was read with RAE or not at all. */
	opts.nsid = 7;
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	ck_assert_uint_eq(fake_log(host.admin, NVME_LID_CHANGED_NS, NVME_LOG_RAE, 0, &list, sizeof(list)), 0);
	ck_assert_uint_eq(list.nsid[0], 2);
	ck_assert_uint_eq(list.nsid[1], 7);
	ck_assert_uint_eq(list.nsid[2], 0);
	bdev_notify_resize(bdev, 16);
	fiber_sleep(1000);
	ck_assert(!aers[1].done);
	ck_assert_uint_eq(fake_log(host.admin, NVME_LID_CHANGED_NS, 0, 0, &list, sizeof(list)), 0);
	ck_assert_uint_eq(list.nsid[1], 7);
	ck_assert_uint_eq(fake_log(host.admin, NVME_LID_CHANGED_NS, 0, 0, &list, sizeof(list)), 0);
	ck_assert_uint_eq(list.nsid[0], 0);
	bdev_notify_resize(bdev, 24);
	ck_assert_uint_eq(fake_wait(&aers[1]), 0);
	fake_host_drop(&host);
	for (unsigned i = 2; i < 4; i++)
		fake_wait(&aers[i]);
}

STAGE_TEST(an_event_without_a_request_waits_for_one)
{
	struct nvmf_ns_opts opts = { .bdev_name = "null" };
	struct fake_cmd aer = { 0 };
	struct fake_host host;
	struct bdev *bdev;

	ck_assert_int_eq(bdev_null_create("null", NULL, 8, 512, &bdev), 0);
	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	ck_assert_uint_eq(fake_set_feature(host.admin, NVME_FID_ASYNC_EVENT, NVME_AEC_NS_ATTR), 0);
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	fiber_sleep(1000);
	aer.cmd.opcode = NVME_ADMIN_AER;
	ck_assert_uint_eq(fake_run(host.admin, &aer), 0);
	fake_host_drop(&host);
}

STAGE_TEST(a_drive_that_becomes_too_warm_is_told_once)
{
	struct gate *gate = gate_create("gate", false);
	struct fake_cmd aers[2] = { 0 };
	struct nvme_log_smart smart;
	struct fake_host host;

	gate->temperature_k = 310;
	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	ck_assert_uint_eq(fake_set_feature(host.admin, NVME_FID_ASYNC_EVENT, 0x02), 0);
	ck_assert_uint_eq(fake_set_feature(host.admin, NVME_FID_TEMPERATURE_THRESHOLD, 320), 0);
	for (unsigned i = 0; i < 2; i++) {
		aers[i].cmd.opcode = NVME_ADMIN_AER;
		fake_submit(host.admin, &aers[i]);
	}
	fiber_sleep(30000000);
	ck_assert(!aers[0].done);
	gate->temperature_k = 320;
	fiber_sleep(15000000);
	ck_assert(aers[0].done);
	ck_assert_uint_eq(aers[0].cqe.dw0, NVME_AER_RESULT(NVME_AER_SMART, 1, NVME_LID_SMART));
	ck_assert_uint_eq(fake_log(host.admin, NVME_LID_SMART, 0, 0, &smart, sizeof(smart)), 0);
	ck_assert_uint_eq(smart.critical_warning, 0x02);
	fiber_sleep(30000000);
	ck_assert(!aers[1].done);
	fake_host_drop(&host);
	fake_wait(&aers[1]);
}

STAGE_TEST(a_reset_takes_the_event_requests_back)
{
	struct fake_cmd aer = { 0 };
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	aer.cmd.opcode = NVME_ADMIN_AER;
	fake_submit(host.admin, &aer);
	ck_assert_uint_eq(fake_property_set(host.admin, NVME_PROP_CC, 0), 0);
	ck_assert_uint_eq(fake_wait(&aer), NVME_SC_ABORTED_SQ_DELETION);
	fake_host_drop(&host);
}

int main(void)
{
	const TTest *const tests[] = {
		identify_controller_says_what_a_host_relies_on,
		identify_namespace_says_size_format_and_identity,
		a_thin_namespace_tells_what_it_uses_and_what_it_prefers,
		an_inactive_namespace_is_zeroes_and_an_invalid_one_is_an_error,
		the_list_of_a_thousand_namespaces_is_whole_and_sorted,
		identify_pages_that_are_not_offered_are_invalid_fields,
		identify_fills_4096_bytes_of_a_larger_buffer_and_refuses_a_smaller,
		log_pages_are_those_that_page_00h_says,
		a_log_page_is_read_from_any_offset_within_it_and_none_beyond,
		a_log_page_that_takes_several_buffers_is_zero_beyond_its_end,
		a_log_page_longer_than_mdts_or_by_index_is_an_invalid_field,
		smart_counts_what_was_done_and_tells_the_hottest_drive,
		the_error_log_has_the_newest_error_first,
		the_effects_log_names_every_command_there_is,
		admin_opcodes_that_are_not_offered_are_invalid,
		abort_ends_what_a_bdev_has_not_begun_on_any_thread,
		abort_of_what_cannot_be_stopped_says_so_in_time,
		abort_ends_a_write_whose_data_is_awaited_an_event_request_and_a_lone_half,
		abort_of_a_write_whose_data_stays_away_says_what_will_become_of_it,
		abort_ends_what_the_transport_has_not_begun,
		abort_of_nothing_aborts_nothing,
		a_fifth_abort_at_a_time_is_one_too_many,
		a_namespace_change_is_told_once_until_the_list_is_read,
		an_event_without_a_request_waits_for_one,
		a_drive_that_becomes_too_warm_is_told_once,
		a_reset_takes_the_event_requests_back,
	};

	return STAGE_SUITE(tests);
}
