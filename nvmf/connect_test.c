/* Connect, properties, keep alive and the ends of associations. */
#include "nvmf/fake_transport_test.h"

/* Changes a good Connect and asks for a Connect Invalid Parameters that names the field. */
struct bad_connect {
	void (*spoil)(struct fake_cmd *cmd, struct nvme_connect_data *data);
	uint8_t iattr;
	uint16_t ipo;
};

static void spoil_subnqn_nul(struct fake_cmd *cmd, struct nvme_connect_data *data)
{
	memset(data->subnqn + 30, 'x', sizeof(data->subnqn) - 30);
}

static void spoil_hostnqn_nul(struct fake_cmd *cmd, struct nvme_connect_data *data)
{
	memset(data->hostnqn + 30, 'x', sizeof(data->hostnqn) - 30);
}

static void spoil_subnqn_unknown(struct fake_cmd *cmd, struct nvme_connect_data *data)
{
	data->subnqn[strlen(data->subnqn) - 1] ^= 1;
}

static void spoil_hostnqn_utf8(struct fake_cmd *cmd, struct nvme_connect_data *data)
{
	strcpy(data->hostnqn, "nqn.2014-08.org.example:\xc3(");
}

static void spoil_hostid(struct fake_cmd *cmd, struct nvme_connect_data *data)
{
	memset(data->hostid, 0, sizeof(data->hostid));
}

static void spoil_hostnqn_form(struct fake_cmd *cmd, struct nvme_connect_data *data)
{
	strcpy(data->hostnqn, "host");
}

static void spoil_cntlid(struct fake_cmd *cmd, struct nvme_connect_data *data)
{
	data->cntlid = 7;
}

static void spoil_static_cntlid(struct fake_cmd *cmd, struct nvme_connect_data *data)
{
	data->cntlid = NVME_CNTLID_STATIC_ANY;
}

static void spoil_sqsize_zero(struct fake_cmd *cmd, struct nvme_connect_data *data)
{
	cmd->cmd.connect.sqsize = 0;
}

static void spoil_sqsize_large(struct fake_cmd *cmd, struct nvme_connect_data *data)
{
	cmd->cmd.connect.sqsize = 128;
}

static void spoil_sqsize_wraps(struct fake_cmd *cmd, struct nvme_connect_data *data)
{
	cmd->cmd.connect.sqsize = 0xffff;
}

static void spoil_qid_large(struct fake_cmd *cmd, struct nvme_connect_data *data)
{
	cmd->cmd.connect.qid = 128;
}

/* CVE-2026-4652: an I/O queue of a controller that never was. */
static void spoil_io_bogus_cntlid(struct fake_cmd *cmd, struct nvme_connect_data *data)
{
	cmd->cmd.connect.qid = 1;
	data->cntlid = 4711;
}

static void spoil_io_dynamic_cntlid(struct fake_cmd *cmd, struct nvme_connect_data *data)
{
	cmd->cmd.connect.qid = 1;
	data->cntlid = 0xffff;
}

static void spoil_discovery_io(struct fake_cmd *cmd, struct nvme_connect_data *data)
{
	cmd->cmd.connect.qid = 1;
	data->cntlid = 1;
	strcpy(data->subnqn, NVMF_DISCOVERY_NQN);
}

STAGE_TEST(a_bad_connect_is_told_which_field_was_wrong)
{
	static const struct bad_connect bad[] = {
		{ spoil_subnqn_nul, 1, 256 },	  { spoil_hostnqn_nul, 1, 512 },
		{ spoil_subnqn_unknown, 1, 256 }, { spoil_hostnqn_form, 1, 512 },
		{ spoil_cntlid, 1, 16 },	  { spoil_static_cntlid, 1, 16 },
		{ spoil_sqsize_zero, 0, 44 },	  { spoil_sqsize_large, 0, 44 },
		{ spoil_sqsize_wraps, 0, 44 },	  { spoil_qid_large, 0, 42 },
		{ spoil_io_bogus_cntlid, 1, 16 }, { spoil_io_dynamic_cntlid, 1, 16 },
		{ spoil_discovery_io, 0, 42 },	  { spoil_hostnqn_utf8, 1, 512 },
		{ spoil_hostid, 1, 0 },
	};
	struct fake_conn *conn = fake_open(stage->target, 4420);
	struct nvme_connect_data data;
	struct fake_cmd cmd;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		fake_connect_fill(&cmd, &data, &(struct fake_connect){ 0 });
		bad[i].spoil(&cmd, &data);
		ck_assert_uint_eq(fake_run(conn, &cmd), NVME_SC_CONNECT_INVALID_PARAMETERS);
		ck_assert_msg(cmd.cqe.connect_invalid.iattr == bad[i].iattr &&
				      cmd.cqe.connect_invalid.ipo == bad[i].ipo,
			      "case %u: %u %u", i, cmd.cqe.connect_invalid.iattr,
			      cmd.cqe.connect_invalid.ipo);
		ck_assert(cmd.status & NVME_SC_DNR);
	}
	/* And the connection is as good as new. */
	ck_assert_uint_eq(fake_connect(conn, &(struct fake_connect){ 0 }, NULL), 0);
	fake_drop(conn);
}

STAGE_TEST(a_host_without_a_name_is_let_in_only_where_any_host_may_come)
{
	struct fake_connect how = { .hostnqn = "" };
	struct fake_conn *conn = fake_open(stage->target, 4420);

	ck_assert_int_eq(nvmf_subsystem_allow_any_host(stage->sub, false), 0);
	ck_assert_uint_eq(fake_connect(conn, &how, NULL), NVME_SC_CONNECT_INVALID_HOST);
	ck_assert_int_eq(nvmf_subsystem_allow_any_host(stage->sub, true), 0);
	ck_assert_uint_eq(fake_connect(conn, &how, NULL), 0);
	fake_drop(conn);
}

STAGE_TEST(a_connect_of_another_format_is_incompatible)
{
	struct fake_conn *conn = fake_open(stage->target, 4420);
	struct nvme_connect_data data;
	struct fake_cmd cmd;

	fake_connect_fill(&cmd, &data, &(struct fake_connect){ 0 });
	cmd.cmd.connect.recfmt = 1;
	ck_assert_uint_eq(fake_run(conn, &cmd), NVME_SC_CONNECT_INCOMPATIBLE_FORMAT);
	fake_drop(conn);
}

STAGE_TEST(connect_data_that_is_short_is_refused_and_data_in_pieces_is_read_whole)
{
	struct fake_conn *conn = fake_open(stage->target, 4420);
	struct nvme_connect_data data;
	struct fake_cmd cmd;

	for (uint32_t len = 0; len < 1024; len += 511) {
		fake_connect_fill(&cmd, &data, &(struct fake_connect){ 0 });
		cmd.len = len;
		ck_assert_uint_eq(fake_run(conn, &cmd), NVME_SC_SGL_LENGTH_INVALID);
	}
	fake_connect_fill(&cmd, &data, &(struct fake_connect){ 0 });
	cmd.split = 300;
	ck_assert_uint_eq(fake_run(conn, &cmd), 0);
	fake_drop(conn);
}

STAGE_TEST(nothing_but_connect_is_answered_before_connect)
{
	struct fake_conn *conn = fake_open(stage->target, 4420);
	char page[4096];
	uint64_t value;

	ck_assert_uint_eq(fake_identify(conn, NVME_CNS_CTRLR, 0, page), NVME_SC_CMD_SEQUENCE_ERROR);
	ck_assert_uint_eq(fake_property_get(conn, NVME_PROP_CAP, true, &value), NVME_SC_CMD_SEQUENCE_ERROR);
	ck_assert_uint_eq(fake_io(conn, NVME_IO_FLUSH, 1, 0, 1, NULL), NVME_SC_CMD_SEQUENCE_ERROR);
	fake_drop(conn);
}

STAGE_TEST(a_second_connect_on_a_queue_is_a_sequence_error)
{
	struct fake_conn *conn = fake_open(stage->target, 4420);

	ck_assert_uint_eq(fake_connect(conn, &(struct fake_connect){ 0 }, NULL), 0);
	ck_assert_uint_eq(fake_connect(conn, &(struct fake_connect){ 0 }, NULL), NVME_SC_CMD_SEQUENCE_ERROR);
	fake_drop(conn);
}

STAGE_TEST(a_host_that_is_not_listed_is_refused)
{
	struct fake_conn *conn = fake_open(stage->target, 4420);

	ck_assert_int_eq(nvmf_subsystem_allow_any_host(stage->sub, false), 0);
	ck_assert_uint_eq(fake_connect(conn, &(struct fake_connect){ 0 }, NULL),
			  NVME_SC_CONNECT_INVALID_HOST);
	ck_assert_int_eq(nvmf_subsystem_add_host(stage->sub, HOSTNQN), 0);
	ck_assert_uint_eq(fake_connect(conn, &(struct fake_connect){ 0 }, NULL), 0);
	fake_drop(conn);
}

STAGE_TEST(a_subsystem_is_not_reached_by_an_address_it_does_not_listen_on)
{
	struct nvmf_subsystem_opts opts = { .nqn = "nqn.2024-01.example.ferrule:other",
					    .allow_any_host = true };
	struct fake_connect how = { .subnqn = "nqn.2024-01.example.ferrule:other" };
	struct stream_addr addr = { .host = "192.0.2.1", .port = 4421, .family = AF_INET };
	struct fake_conn *wrong, *right;
	struct nvmf_subsystem *other;

	ck_assert_int_eq(nvmf_subsystem_create(stage->target, &opts, &other), 0);
	ck_assert_int_eq(nvmf_subsystem_add_listener(other, "TCP", &addr), 0);
	wrong = fake_open(stage->target, 4420);
	right = fake_open(stage->target, 4421);
	ck_assert_uint_eq(fake_connect(wrong, &how, NULL), NVME_SC_CONNECT_INVALID_PARAMETERS);
	ck_assert_uint_eq(fake_connect(right, &how, NULL), 0);
	fake_drop(wrong);
	fake_drop(right);
}

STAGE_TEST(an_io_queue_must_be_of_the_host_that_made_the_controller)
{
	struct fake_connect how = { 0 };
	struct nvme_connect_data data;
	struct fake_host host;
	struct fake_conn *conn;
	struct fake_cmd cmd;

	fake_host_connect(&host, stage->target, &how, 1);
	conn = fake_open(stage->target, 4420);
	how.qid = 2;
	how.cntlid = host.cntlid;
	how.hostnqn = "nqn.2024-01.example.ferrule:thief";
	fake_connect_fill(&cmd, &data, &how);
	ck_assert_uint_eq(fake_run(conn, &cmd), NVME_SC_CONNECT_INVALID_PARAMETERS);
	ck_assert_uint_eq(cmd.cqe.connect_invalid.ipo, 512);
	how.hostnqn = NULL;
	how.host_id = 0x22;
	fake_connect_fill(&cmd, &data, &how);
	ck_assert_uint_eq(fake_run(conn, &cmd), NVME_SC_CONNECT_INVALID_PARAMETERS);
	ck_assert_uint_eq(cmd.cqe.connect_invalid.ipo, 0);
	ck_assert_uint_eq(cmd.cqe.connect_invalid.iattr, 1);
	how.host_id = 0;
	how.qid = 1;
	ck_assert_uint_eq(fake_connect(conn, &how, NULL), NVME_SC_CMD_SEQUENCE_ERROR);
	how.qid = 2;
	ck_assert_uint_eq(fake_connect(conn, &how, NULL), 0);
	fake_drop(conn);
	fake_host_drop(&host);
}

/* SPDK 414f91a0c7: what a refused duplicate leaves behind must not be touched by the I/O that follows. */
STAGE_TEST(a_qid_is_free_again_when_its_connection_is_gone)
{
	struct fake_connect how = { 0 };
	struct fake_host host;
	char block[512] = { 0 };

	fake_host_connect(&host, stage->target, &how, 1);
	how.qid = 1;
	how.cntlid = host.cntlid;
	for (unsigned i = 0; i < 3; i++) {
		struct fake_conn *conn = fake_open(stage->target, 4420);

		ck_assert_uint_eq(fake_connect(conn, &how, NULL), NVME_SC_CMD_SEQUENCE_ERROR);
		fake_drop(host.io[0]);
		ck_assert_uint_eq(fake_connect(conn, &how, NULL), 0);
		ck_assert_uint_eq(fake_io(conn, NVME_IO_WRITE, 1, 0, 1, block), 0);
		host.io[0] = conn;
	}
	fake_host_drop(&host);
}

STAGE_TEST(an_io_queue_before_the_controller_is_enabled_is_a_sequence_error)
{
	struct fake_conn *admin = fake_open(stage->target, 4420), *conn = fake_open(stage->target, 4420);
	struct fake_connect how = { 0 };

	ck_assert_uint_eq(fake_connect(admin, &how, &how.cntlid), 0);
	how.qid = 1;
	ck_assert_uint_eq(fake_connect(conn, &how, NULL), NVME_SC_CMD_SEQUENCE_ERROR);
	ck_assert_uint_eq(fake_property_set(admin, NVME_PROP_CC, FAKE_CC_ENABLE), 0);
	ck_assert_uint_eq(fake_connect(conn, &how, NULL), 0);
	fake_drop(conn);
	fake_drop(admin);
}

STAGE_TEST(a_connection_without_a_connect_is_closed)
{
	struct fake_conn *conn = fake_open(stage->target, 4420);
	uint64_t before_us = clock_now_us();

	fake_wait_gone(conn);
	ck_assert(conn->close_called);
	ck_assert_uint_ge(clock_now_us() - before_us, 14000000);
	ck_assert_uint_le(clock_now_us() - before_us, 17000000);
	fake_drop(conn);
}

STAGE_TEST(cntlids_differ_and_are_not_used_again_soon)
{
	struct fake_conn *conn[3];
	uint16_t cntlid[3], again;

	for (unsigned i = 0; i < 3; i++) {
		conn[i] = fake_open(stage->target, 4420);
		ck_assert_uint_eq(fake_connect(conn[i], &(struct fake_connect){ 0 }, &cntlid[i]), 0);
	}
	ck_assert(cntlid[0] != cntlid[1] && cntlid[1] != cntlid[2] && cntlid[0] != cntlid[2]);
	fake_drop(conn[1]);
	conn[1] = fake_open(stage->target, 4420);
	ck_assert_uint_eq(fake_connect(conn[1], &(struct fake_connect){ 0 }, &again), 0);
	ck_assert(again != cntlid[0] && again != cntlid[1] && again != cntlid[2]);
	for (unsigned i = 0; i < 3; i++)
		fake_drop(conn[i]);
}

STAGE_TEST(a_full_range_of_cntlids_is_busy_and_frees_up)
{
	struct nvmf_subsystem_opts opts = { .nqn = "nqn.2024-01.example.ferrule:few",
					    .allow_any_host = true,
					    .min_cntlid = 5,
					    .max_cntlid = 6 };
	struct stream_addr addr = { .host = "192.0.2.1", .port = 4420, .family = AF_INET };
	struct fake_connect how = { .subnqn = opts.nqn };
	struct fake_conn *conn[3];
	struct nvmf_subsystem *few;
	uint16_t cntlid;

	ck_assert_int_eq(nvmf_subsystem_create(stage->target, &opts, &few), 0);
	ck_assert_int_eq(nvmf_subsystem_add_listener(few, "TCP", &addr), 0);
	for (unsigned i = 0; i < 3; i++)
		conn[i] = fake_open(stage->target, 4420);
	ck_assert_uint_eq(fake_connect(conn[0], &how, &cntlid), 0);
	ck_assert_uint_eq(cntlid, 5);
	ck_assert_uint_eq(fake_connect(conn[1], &how, &cntlid), 0);
	ck_assert_uint_eq(cntlid, 6);
	ck_assert_uint_eq(fake_connect(conn[2], &how, NULL), NVME_SC_CONNECT_CTRLR_BUSY);
	fake_drop(conn[0]);
	/* Its end reaches the subsystem in messages. */
	while (fake_connect(conn[2], &how, &cntlid) == NVME_SC_CONNECT_CTRLR_BUSY)
		fiber_sleep(100);
	ck_assert_uint_eq(cntlid, 5);
	fake_drop(conn[1]);
	fake_drop(conn[2]);
}

/* --- properties ---------------------------------------------------------------------------- */

STAGE_TEST(properties_say_what_the_controller_is)
{
	struct fake_conn *conn = fake_open(stage->target, 4420);
	uint64_t value;

	ck_assert_uint_eq(fake_connect(conn, &(struct fake_connect){ 0 }, NULL), 0);
	ck_assert_uint_eq(fake_property_get(conn, NVME_PROP_CAP, true, &value), 0);
	ck_assert_uint_eq(NVME_CAP_MQES(value), 127);
	ck_assert(value & NVME_CAP_CQR && value & NVME_CAP_CSS_NVM && value & NVME_CAP_CRWMS);
	ck_assert_uint_eq(fake_property_get(conn, NVME_PROP_VS, false, &value), 0);
	ck_assert_uint_eq(value, 0x20000);
	ck_assert_uint_eq(fake_property_get(conn, NVME_PROP_CRTO, false, &value), 0);
	ck_assert_uint_gt(NVME_CRTO_CRWMT(value), 0);
	ck_assert_uint_eq(fake_property_get(conn, NVME_PROP_CSTS, false, &value), 0);
	ck_assert_uint_eq(value, 0);
	ck_assert_uint_eq(fake_property_get(conn, NVME_PROP_CAP, false, &value), NVME_SC_INVALID_FIELD);
	ck_assert_uint_eq(fake_property_get(conn, NVME_PROP_VS, true, &value), NVME_SC_INVALID_FIELD);
	ck_assert_uint_eq(fake_property_get(conn, 0x1234, false, &value), NVME_SC_INVALID_FIELD);
	ck_assert_uint_eq(fake_property_set(conn, NVME_PROP_CSTS, 1), NVME_SC_INVALID_FIELD);
	ck_assert_uint_eq(fake_property_set(conn, NVME_PROP_NSSR, 0x4e564d65), NVME_SC_INVALID_FIELD);
	fake_drop(conn);
}

fiber_fn static uint64_t csts(struct fake_conn *conn)
{
	uint64_t value;

	ck_assert_uint_eq(fake_property_get(conn, NVME_PROP_CSTS, false, &value), 0);
	return value;
}

STAGE_TEST(a_controller_is_ready_when_enabled_and_failed_when_enabled_wrongly)
{
	struct fake_conn *conn = fake_open(stage->target, 4420);
	char page[4096];

	ck_assert_uint_eq(fake_connect(conn, &(struct fake_connect){ 0 }, NULL), 0);
	ck_assert_uint_eq(fake_identify(conn, NVME_CNS_CTRLR, 0, page), NVME_SC_CMD_SEQUENCE_ERROR);
	ck_assert_uint_eq(fake_property_set(conn, NVME_PROP_CC, FAKE_CC_ENABLE), 0);
	ck_assert_uint_eq(csts(conn), NVME_CSTS_RDY);
	ck_assert_uint_eq(fake_identify(conn, NVME_CNS_CTRLR, 0, page), 0);
	fake_drop(conn);
	conn = fake_open(stage->target, 4420);
	ck_assert_uint_eq(fake_connect(conn, &(struct fake_connect){ 0 }, NULL), 0);
	ck_assert_uint_eq(fake_property_set(conn, NVME_PROP_CC, FAKE_CC_ENABLE | 1u << 7), 0);
	ck_assert_uint_eq(csts(conn), NVME_CSTS_CFS);
	fake_drop(conn);
}

STAGE_TEST(a_reset_ends_the_io_queues_and_keeps_the_association)
{
	struct fake_connect how = { 0 };
	struct fake_host host;
	uint32_t dw0;

	fake_host_connect(&host, stage->target, &how, 3);
	ck_assert_uint_eq(fake_set_feature(host.admin, NVME_FID_ASYNC_EVENT, NVME_AEC_NS_ATTR), 0);
	ck_assert_uint_eq(fake_property_set(host.admin, NVME_PROP_CC, FAKE_CC_ENABLE & ~NVME_CC_EN), 0);
	for (unsigned i = 0; i < 3; i++)
		fake_wait_gone(host.io[i]);
	while (csts(host.admin) & NVME_CSTS_RDY)
		fiber_sleep(100);
	ck_assert_uint_eq(fake_property_set(host.admin, NVME_PROP_CC, FAKE_CC_ENABLE), 0);
	ck_assert_uint_eq(fake_get_feature(host.admin, NVME_FID_ASYNC_EVENT, 0, 0, &dw0), 0);
	ck_assert_uint_eq(dw0, 0);
	fake_drop(host.io[0]);
	host.io[0] = fake_open(stage->target, 4420);
	how.qid = 1;
	how.cntlid = host.cntlid;
	ck_assert_uint_eq(fake_connect(host.io[0], &how, NULL), 0);
	fake_host_drop(&host);
}

STAGE_TEST(a_normal_shutdown_flushes_the_caches_before_it_is_complete)
{
	struct nvmf_ns_opts opts = { .bdev_name = "gate" };
	struct gate *gate = gate_create("gate", true);
	struct fake_host host;

	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 2);
	ck_assert_uint_eq(gate->nr_flushes, 0);
	ck_assert_uint_eq(fake_property_set(host.admin, NVME_PROP_CC,
					    FAKE_CC_ENABLE | NVME_CC_SHN_NORMAL << NVME_CC_SHN_SHIFT),
			  0);
	while (NVME_CSTS_SHST(csts(host.admin)) != NVME_CSTS_SHST_COMPLETE)
		fiber_sleep(100);
	ck_assert_uint_eq(gate->nr_flushes, 1);
	ck_assert(host.io[0]->close_called && host.io[1]->close_called);
	fake_host_drop(&host);
}

/* --- keep alive ---------------------------------------------------------------------------- */

STAGE_TEST(a_silent_host_loses_its_association_after_kato)
{
	struct fake_connect how = { .kato_ms = 2000 };
	struct fake_host host;
	uint64_t before_us;

	fake_host_connect(&host, stage->target, &how, 2);
	before_us = clock_now_us();
	fake_wait_gone(host.admin);
	fake_wait_gone(host.io[0]);
	fake_wait_gone(host.io[1]);
	ck_assert_uint_ge(clock_now_us() - before_us, 1900000);
	ck_assert_uint_le(clock_now_us() - before_us, 3000000);
	fake_host_drop(&host);
}

fiber_fn static uint16_t keep_alive(struct fake_conn *conn)
{
	struct fake_cmd cmd = { 0 };

	cmd.cmd.opcode = NVME_ADMIN_KEEP_ALIVE;
	return fake_run(conn, &cmd);
}

STAGE_TEST(keep_alives_and_io_both_keep_an_association)
{
	struct fake_connect how = { .kato_ms = 1000 };
	struct fake_host host;
	char block[512];

	fake_host_connect(&host, stage->target, &how, 1);
	for (unsigned i = 0; i < 10; i++) {
		fiber_sleep(800000);
		ck_assert_uint_eq(keep_alive(host.admin), 0);
	}
	for (unsigned i = 0; i < 10; i++) {
		fiber_sleep(800000);
		ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_READ, 1, 0, 1, block), 0);
	}
	ck_assert(!host.admin->gone);
	ck_assert_uint_eq(fake_set_feature(host.admin, NVME_FID_KEEP_ALIVE, 0), 0);
	fiber_sleep(60000000);
	ck_assert(!host.admin->gone);
	ck_assert_uint_eq(fake_set_feature(host.admin, NVME_FID_KEEP_ALIVE, 450), 0);
	fiber_sleep(2000000);
	ck_assert(host.admin->gone);
	fake_host_drop(&host);
}

/* --- ends ---------------------------------------------------------------------------------- */

STAGE_TEST(the_admin_connection_takes_the_io_queues_along)
{
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 3);
	fake_drop(host.admin);
	host.admin = NULL;
	for (unsigned i = 0; i < 3; i++)
		fake_wait_gone(host.io[i]);
	fake_host_drop(&host);
}

STAGE_TEST(disconnect_ends_an_io_queue_and_not_the_admin_queue)
{
	struct fake_cmd cmd = { 0 };
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	cmd.cmd.opcode = NVME_OPC_FABRICS;
	cmd.cmd.disconnect.fctype = NVME_FCTYPE_DISCONNECT;
	ck_assert_uint_eq(fake_run(host.admin, &cmd), NVME_SC_DISCONNECT_INVALID_QUEUE_TYPE);
	ck_assert_uint_eq(fake_run(host.io[0], &cmd), 0);
	fake_wait_gone(host.io[0]);
	ck_assert(host.io[0]->close_was_graceful);
	ck_assert(!host.admin->gone);
	fake_host_drop(&host);
}

/* CVE-2024-46737, CVE-2026-46135 and kin: connections that go at any moment of their Connect. */
STAGE_TEST(connections_that_vanish_during_connect_leave_nothing_behind)
{
	struct nvme_connect_data data[40];
	struct fake_cmd cmds[40];
	struct fake_conn *conns[40];
	struct nvmf_subsystem_info info;
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	for (unsigned i = 0; i < 40; i++) {
		struct fake_connect how = { .qid = i % 2 ? (uint16_t)(i + 1) : 0, .cntlid = host.cntlid };

		conns[i] = fake_open(stage->target, 4420);
		fake_connect_fill(&cmds[i], &data[i], &how);
		fake_submit(conns[i], &cmds[i]);
		if (i % 3 == 0)
			fiber_sleep(rand_u64() % 20);
		thread_send(nvmf_group_thread(conns[i]->qpair.group), fake_disconnect, conns[i]);
	}
	for (unsigned i = 0; i < 40; i++) {
		fake_wait(&cmds[i]);
		fake_drop(conns[i]);
	}
	for (;;) {
		nvmf_subsystem_info(stage->sub, &info);
		if (info.nr_ctrlrs == 1)
			break;
		fiber_sleep(100);
	}
	/* Every QID is free again. */
	for (unsigned i = 0; i < 3; i++) {
		struct fake_connect how = { .qid = (uint16_t)(i * 2 + 2), .cntlid = host.cntlid };

		host.io[i] = fake_open(stage->target, 4420);
		ck_assert_uint_eq(fake_connect(host.io[i], &how, NULL), 0);
	}
	fake_host_drop(&host);
}

STAGE_TEST(sqhd_follows_the_commands_unless_flow_control_is_off)
{
	struct fake_connect how = { .sqsize = 31, .cattr = NVME_CONNECT_NO_SQ_FLOW_CONTROL };
	struct fake_conn *conn = fake_open(stage->target, 4420), *off = fake_open(stage->target, 4420);
	struct nvme_connect_data data;
	struct fake_cmd cmd;

	fake_connect_fill(&cmd, &data, &(struct fake_connect){ .sqsize = 31 });
	ck_assert_uint_eq(fake_run(conn, &cmd), 0);
	ck_assert_uint_eq(cmd.cqe.sqhd, 1);
	memset(&cmd, 0, sizeof(cmd));
	cmd.cmd.opcode = NVME_OPC_FABRICS;
	cmd.cmd.property.fctype = NVME_FCTYPE_PROPERTY_GET;
	cmd.cmd.property.ofst = NVME_PROP_VS;
	for (unsigned i = 2; i < 100; i++) {
		ck_assert_uint_eq(fake_run(conn, &cmd), 0);
		ck_assert_uint_eq(cmd.cqe.sqhd, i % 32);
	}
	ck_assert_uint_eq(fake_connect(off, &how, NULL), 0);
	ck_assert_uint_eq(fake_run(off, &cmd), 0);
	ck_assert_uint_eq(cmd.cqe.sqhd, 0xffff);
	fake_drop(conn);
	fake_drop(off);
}

int main(void)
{
	const TTest *const tests[] = {
		a_bad_connect_is_told_which_field_was_wrong,
		a_host_without_a_name_is_let_in_only_where_any_host_may_come,
		a_connect_of_another_format_is_incompatible,
		connect_data_that_is_short_is_refused_and_data_in_pieces_is_read_whole,
		nothing_but_connect_is_answered_before_connect,
		a_second_connect_on_a_queue_is_a_sequence_error,
		a_host_that_is_not_listed_is_refused,
		a_subsystem_is_not_reached_by_an_address_it_does_not_listen_on,
		an_io_queue_must_be_of_the_host_that_made_the_controller,
		a_qid_is_free_again_when_its_connection_is_gone,
		an_io_queue_before_the_controller_is_enabled_is_a_sequence_error,
		a_connection_without_a_connect_is_closed,
		cntlids_differ_and_are_not_used_again_soon,
		a_full_range_of_cntlids_is_busy_and_frees_up,
		properties_say_what_the_controller_is,
		a_controller_is_ready_when_enabled_and_failed_when_enabled_wrongly,
		a_reset_ends_the_io_queues_and_keeps_the_association,
		a_normal_shutdown_flushes_the_caches_before_it_is_complete,
		a_silent_host_loses_its_association_after_kato,
		keep_alives_and_io_both_keep_an_association,
		the_admin_connection_takes_the_io_queues_along,
		disconnect_ends_an_io_queue_and_not_the_admin_queue,
		connections_that_vanish_during_connect_leave_nothing_behind,
		sqhd_follows_the_commands_unless_flow_control_is_off,
	};

	return STAGE_SUITE(tests);
}
