/* Get and Set Features. */
#include "nvmf/fake_transport_test.h"

STAGE_TEST(features_are_set_and_told_in_every_selection)
{
	static const struct {
		uint8_t fid;
		uint32_t value, fallback;
	} features[] = {
		{ NVME_FID_ARBITRATION, 0x01020307, 0 }, { NVME_FID_TEMPERATURE_THRESHOLD, 320, 343 },
		{ NVME_FID_WRITE_ATOMICITY, 1, 0 },
		{ NVME_FID_ASYNC_EVENT, 0x101, 0 },	 { NVME_FID_KEEP_ALIVE, 120000, 0 }
	};
	struct fake_host host;
	uint32_t dw0;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	for (unsigned i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
		uint8_t fid = features[i].fid;

		ck_assert_uint_eq(fake_get_feature(host.admin, fid, 0, 0, &dw0), 0);
		ck_assert_uint_eq(dw0, features[i].fallback);
		ck_assert_uint_eq(fake_set_feature(host.admin, fid, features[i].value), 0);
		ck_assert_uint_eq(fake_get_feature(host.admin, fid, 0, 0, &dw0), 0);
		ck_assert_uint_eq(dw0, features[i].value);
		ck_assert_uint_eq(fake_get_feature(host.admin, fid, 1, 0, &dw0), 0);
		ck_assert_uint_eq(dw0, features[i].fallback);
		ck_assert_uint_eq(fake_get_feature(host.admin, fid, 2, 0, &dw0), 0);
		ck_assert_uint_eq(dw0, features[i].fallback);
		ck_assert_uint_eq(fake_get_feature(host.admin, fid, 3, 0, &dw0), 0);
		ck_assert_uint_eq(dw0, NVME_FEATURE_CAP_CHANGEABLE);
		ck_assert_uint_eq(fake_get_feature(host.admin, fid, 4, 0, &dw0), NVME_SC_INVALID_FIELD);
		ck_assert_uint_eq(fake_set_feature(host.admin, fid | NVME_FEATURE_SAVE, 0),
				  NVME_SC_FEATURE_NOT_SAVEABLE);
	}
	fake_host_drop(&host);
}

STAGE_TEST(features_that_are_not_offered_are_invalid_fields)
{
	static const uint8_t offered[] = { 1, 2, 4, 5, 6, 7, 0xa, 0xb, 0xf, 0x16, 0x81 };
	struct fake_host host;
	uint32_t dw0;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	for (unsigned fid = 0; fid < 256; fid++) {
		bool is = memchr(offered, (int)fid, sizeof(offered)) != NULL;

		ck_assert_uint_eq(fake_get_feature(host.admin, (uint8_t)fid, 3, 0, &dw0),
				  is ? 0 : NVME_SC_INVALID_FIELD);
		if (!is)
			ck_assert_uint_eq(fake_set_feature(host.admin, fid, 0), NVME_SC_INVALID_FIELD);
	}
	ck_assert_uint_eq(fake_set_feature(host.admin, NVME_FID_POWER, 1), NVME_SC_INVALID_FIELD);
	fake_host_drop(&host);
}

fiber_fn static uint16_t recovery(struct fake_host *host, uint8_t opcode, uint32_t nsid, uint32_t *value)
{
	struct fake_cmd cmd = { 0 };
	uint16_t status;

	cmd.cmd.opcode = opcode;
	cmd.cmd.cdw10 = NVME_FID_ERROR_RECOVERY;
	cmd.cmd.cdw11 = *value;
	cmd.cmd.nsid = nsid;
	status = fake_run(host->admin, &cmd);
	*value = cmd.cqe.dw0;
	return status;
}

STAGE_TEST(error_recovery_is_a_namespaces)
{
	const uint8_t get = NVME_ADMIN_GET_FEATURES, set = NVME_ADMIN_SET_FEATURES;
	struct nvmf_ns_opts opts = { .bdev_name = "null", .nsid = 2 };
	struct fake_host host;
	uint32_t value, nsid;

	ck_assert_int_eq(bdev_null_create("null", NULL, 8, 512, NULL), 0);
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, &nsid), 0);
	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	ck_assert_uint_eq(recovery(&host, set, 1, &(uint32_t){ 7 }), 0);
	ck_assert_uint_eq(recovery(&host, get, 1, &value), 0);
	ck_assert_uint_eq(value, 7);
	ck_assert_uint_eq(recovery(&host, get, 2, &value), 0);
	ck_assert_uint_eq(value, 0);
	ck_assert_uint_eq(recovery(&host, set, NVME_NSID_ALL, &(uint32_t){ 9 }), 0);
	for (uint32_t i = 0; i < 3; i++) {
		ck_assert_uint_eq(recovery(&host, get, i, &value), 0);
		ck_assert_uint_eq(value, 9);
	}
	ck_assert_uint_eq(recovery(&host, set, 1, &(uint32_t){ 0x10000 }), NVME_SC_INVALID_FIELD);
	ck_assert_uint_eq(recovery(&host, set, 0, &(uint32_t){ 1 }), NVME_SC_INVALID_NS);
	ck_assert_uint_eq(recovery(&host, set, 3, &(uint32_t){ 1 }), NVME_SC_INVALID_NS);
	ck_assert_uint_eq(recovery(&host, get, 3, &value), NVME_SC_INVALID_NS);
	ck_assert_uint_eq(fake_get_feature(host.admin, NVME_FID_ERROR_RECOVERY, 3, 0, &value), 0);
	ck_assert_uint_eq(value, NVME_FEATURE_CAP_CHANGEABLE | NVME_FEATURE_CAP_NS_SPECIFIC);
	fake_host_drop(&host);
	ck_assert_int_eq(nvmf_subsystem_remove_ns(stage->sub, 2), 0);
	ck_assert_int_eq(bdev_unregister_wait(bdev_find("null")), 0);
}

STAGE_TEST(features_are_the_controllers_not_a_namespaces)
{
	struct fake_cmd cmd = { 0 };
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	cmd.cmd.opcode = NVME_ADMIN_SET_FEATURES;
	cmd.cmd.cdw10 = NVME_FID_ARBITRATION;
	cmd.cmd.nsid = 1;
	ck_assert_uint_eq(fake_run(host.admin, &cmd), NVME_SC_FEATURE_NOT_NS_SPECIFIC);
	cmd.cmd.nsid = 2;
	ck_assert_uint_eq(fake_run(host.admin, &cmd), NVME_SC_INVALID_NS);
	cmd.cmd.nsid = NVME_NSID_ALL;
	ck_assert_uint_eq(fake_run(host.admin, &cmd), 0);
	fake_host_drop(&host);
}

STAGE_TEST(the_number_of_queues_is_granted_before_there_are_any)
{
	struct fake_host host;
	struct fake_cmd cmd = { 0 };
	struct fake_connect how = { .qid = 4 };
	struct fake_conn *conn;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	cmd.cmd.opcode = NVME_ADMIN_SET_FEATURES;
	cmd.cmd.cdw10 = NVME_FID_NR_QUEUES;
	cmd.cmd.cdw11 = 999u << 16 | 999u;
	ck_assert_uint_eq(fake_run(host.admin, &cmd), 0);
	ck_assert_uint_eq(cmd.cqe.dw0, 126u << 16 | 126u);
	cmd.cmd.cdw11 = 2u << 16 | 7u;
	ck_assert_uint_eq(fake_run(host.admin, &cmd), 0);
	ck_assert_uint_eq(cmd.cqe.dw0, 2u << 16 | 2u);
	ck_assert_uint_eq(fake_set_feature(host.admin, NVME_FID_NR_QUEUES, 0xffff), NVME_SC_INVALID_FIELD);
	ck_assert_uint_eq(fake_set_feature(host.admin, NVME_FID_NR_QUEUES, 0xffff0000),
			  NVME_SC_INVALID_FIELD);
	conn = fake_open(stage->target, 4420);
	how.cntlid = host.cntlid;
	ck_assert_uint_eq(fake_connect(conn, &how, NULL), NVME_SC_CONNECT_INVALID_PARAMETERS);
	how.qid = 3;
	ck_assert_uint_eq(fake_connect(conn, &how, NULL), 0);
	ck_assert_uint_eq(fake_set_feature(host.admin, NVME_FID_NR_QUEUES, 0x10001),
			  NVME_SC_CMD_SEQUENCE_ERROR);
	fake_drop(conn);
	fake_host_drop(&host);
}

STAGE_TEST(the_host_identifier_is_that_of_connect_and_stays_it)
{
	struct fake_host host;
	struct fake_cmd cmd = { 0 };
	uint8_t id[16];

	fake_host_connect(&host, stage->target, &(struct fake_connect){ .host_id = 0x77 }, 0);
	cmd.cmd.opcode = NVME_ADMIN_GET_FEATURES;
	cmd.cmd.cdw10 = NVME_FID_HOST_ID;
	cmd.cmd.cdw11 = 1;
	cmd.data = id;
	cmd.len = sizeof(id);
	ck_assert_uint_eq(fake_run(host.admin, &cmd), 0);
	ck_assert(all_bytes_are(id, 0, 16, 0x77));
	cmd.cmd.cdw11 = 0;
	ck_assert_uint_eq(fake_run(host.admin, &cmd), NVME_SC_INVALID_FIELD);
	cmd.cmd.opcode = NVME_ADMIN_SET_FEATURES;
	cmd.cmd.cdw11 = 1;
	ck_assert_uint_eq(fake_run(host.admin, &cmd), NVME_SC_CMD_SEQUENCE_ERROR);
	fake_host_drop(&host);
}

STAGE_TEST(host_behavior_is_kept)
{
	struct nvme_host_behavior in = { .acre = 1 }, out;
	struct fake_host host;
	struct fake_cmd cmd = { .data = &in, .len = sizeof(in) };

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	cmd.cmd.opcode = NVME_ADMIN_SET_FEATURES;
	cmd.cmd.cdw10 = NVME_FID_HOST_BEHAVIOR;
	cmd.in_capsule = true;
	ck_assert_uint_eq(fake_run(host.admin, &cmd), 0);
	memset(&out, 0xaa, sizeof(out));
	cmd = (struct fake_cmd){ .data = &out, .len = sizeof(out) };
	cmd.cmd.opcode = NVME_ADMIN_GET_FEATURES;
	cmd.cmd.cdw10 = NVME_FID_HOST_BEHAVIOR;
	ck_assert_uint_eq(fake_run(host.admin, &cmd), 0);
	ck_assert_uint_eq(out.acre, 1);
	ck_assert(all_bytes_are(&out, 1, sizeof(out), 0));
	fake_host_drop(&host);
}

int main(void)
{
	const TTest *const tests[] = {
		features_are_set_and_told_in_every_selection,
		features_that_are_not_offered_are_invalid_fields,
		features_are_the_controllers_not_a_namespaces,
		error_recovery_is_a_namespaces,
		the_number_of_queues_is_granted_before_there_are_any,
		the_host_identifier_is_that_of_connect_and_stays_it,
		host_behavior_is_kept,
	};

	return STAGE_SUITE(tests);
}
