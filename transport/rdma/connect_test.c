/*
 * What a connection request says of a queue, and what Connect and the controller say of it later: they must agree, and none of them
 * may promise what capsule or device cannot hold.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/rnic_sim.h"
#include "transport/rdma/raw_host.h"
#include "transport/rdma/world_test.h"

static struct raw_ctrlr c;

/* Made anew with the options as they are now. */
static fiber_fn void target_again(void)
{
	target_stop();
	bdev_unregister_all();
	target_start();
}

static fiber_fn void identify(struct raw_host *admin, struct nvme_id_ctrlr *ret_id)
{
	union nvme_cmd cmd = { .opcode = NVME_ADMIN_IDENTIFY, .flags = NVME_CMD_PSDT_SGL };

	cmd.cdw10 = NVME_CNS_CTRLR;
	raw_keyed(admin, &cmd, 0, sizeof(*ret_id));
	ck_assert_uint_eq(raw_execute(admin, &cmd, NULL), NVME_SC_SUCCESS);
	memcpy(ret_id, admin->mem, sizeof(*ret_id));
}

/* MQES + 1 */
static fiber_fn uint32_t deepest_queue(struct raw_host *admin)
{
	union nvme_cmd cmd = { .opcode = NVME_OPC_FABRICS, .flags = NVME_CMD_PSDT_SGL };
	struct nvme_cqe cqe;

	cmd.property.fctype = NVME_FCTYPE_PROPERTY_GET;
	cmd.property.attrib = NVME_PROP_SIZE_8;
	cmd.property.ofst = NVME_PROP_CAP;
	ck_assert_uint_eq(raw_execute(admin, &cmd, &cqe), NVME_SC_SUCCESS);
	return (cqe.dw0 & 0xffff) + 1;
}

/* --- the controller that it names ----------------------------------------------------------------------------------------------------- */

/* 0: accepted */
static fiber_fn uint16_t answer_to(uint16_t qid, uint16_t cntlid)
{
	struct raw_request request = raw_request(qid, 32);
	static struct raw_host host;
	uint16_t status = 0;

	request.cm.cntlid = cntlid;
	raw_ask(&host, &addr, &request);
	if (!raw_wait_cm(&host)) {
		ck_assert(host.rejected);
		status = host.reject_status;
	}
	raw_close(&host, true);
	return status;
}

SIM_TEST(a_queue_of_a_controller_that_is_none_is_rejected)
{
	raw_up(&c, &addr, 16);
	ck_assert_uint_eq(answer_to(2, c.cntlid), 0);
	ck_assert_uint_eq(answer_to(2, c.cntlid + 1), NVME_RDMA_CM_INVALID_CNTLID);
	ck_assert_uint_eq(answer_to(2, 4711), NVME_RDMA_CM_INVALID_CNTLID);
	ck_assert_uint_eq(answer_to(2, NVME_CNTLID_DYNAMIC), NVME_RDMA_CM_INVALID_CNTLID);
	ck_assert_uint_eq(answer_to(2, NVME_CNTLID_STATIC_ANY), NVME_RDMA_CM_INVALID_CNTLID);
	ck_assert_uint_eq(answer_to(2, NVME_CNTLID_MAX + 1), NVME_RDMA_CM_INVALID_CNTLID);
	raw_down(&c);
	fiber_sleep(5000000);
	ck_assert_uint_eq(answer_to(2, c.cntlid), NVME_RDMA_CM_INVALID_CNTLID); /* gone */
}

SIM_TEST(hosts_that_name_no_controller_are_accepted)
{
	raw_up(&c, &addr, 16);
	ck_assert_uint_eq(answer_to(2, 0), 0);
	ck_assert_uint_eq(answer_to(0, 0), 0);
	ck_assert_uint_eq(answer_to(0, NVME_CNTLID_DYNAMIC), 0);
	ck_assert_uint_eq(answer_to(0, 4711), 0); /* of a connection before */
	raw_down(&c);
}

/* --- Connect ---------------------------------------------------------------------------------------------------------------------------- */

static fiber_fn void expect_invalid(struct raw_host *host, union nvme_cmd cmd, uint8_t iattr, size_t ipo)
{
	struct nvme_cqe cqe;

	ck_assert_uint_eq(raw_execute(host, &cmd, &cqe), NVME_SC_CONNECT_INVALID_PARAMETERS);
	ck_assert_uint_eq(cqe.connect_invalid.iattr, iattr);
	ck_assert_uint_eq(cqe.connect_invalid.ipo, ipo);
}

SIM_TEST(connect_for_another_queue_than_the_request_named_is_refused_and_may_be_tried_again)
{
	struct raw_request request = raw_request(1, 32);
	struct raw_ctrlr *other = calloc(1, sizeof(*other));
	static struct raw_host host;
	union nvme_cmd cmd;

	raw_up(&c, &addr, 16);
	raw_up(other, &addr, 16);
	request.cm.cntlid = c.cntlid;
	request.cm.qid = 2;
	raw_ask(&host, &addr, &request);
	ck_assert(raw_wait_cm(&host));
	expect_invalid(&host, raw_connect_cmd(&host, 2, 33, c.cntlid), 0, offsetof(union nvme_cmd, connect.sqsize));
	expect_invalid(&host, raw_connect_cmd(&host, 3, 32, c.cntlid), 0, offsetof(union nvme_cmd, connect.qid));
	expect_invalid(&host, raw_connect_cmd(&host, 0, 32, NVME_CNTLID_DYNAMIC), 0, offsetof(union nvme_cmd, connect.qid));
	expect_invalid(&host, raw_connect_cmd(&host, 2, 32, other->cntlid), 1, offsetof(struct nvme_connect_data, cntlid));
	cmd = raw_connect_cmd(&host, 2, 31, c.cntlid);
	ck_assert_uint_eq(raw_execute(&host, &cmd, NULL), NVME_SC_SUCCESS);
	raw_close(&host, true);
	raw_down(other);
	raw_down(&c);
	free(other);
}

/* --- what the controller promises --------------------------------------------------------------------------------------------------------- */

SIM_TEST(no_more_descriptors_are_promised_than_fit_a_capsule)
{
	static const struct {
		uint32_t in_capsule;
		uint8_t msdbd;
	} cases[] = { { 0, 1 }, { 16, 1 }, { 48, 3 }, { 256, 16 }, { 8192, 16 } };
	struct nvme_keyed_sgl list[16];

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		unsigned nr = cases[i].msdbd;
		struct nvme_id_ctrlr id;
		union nvme_cmd cmd = raw_rw(NVME_IO_READ, 7, 0, nr);

		opts.in_capsule_data_size = cases[i].in_capsule;
		target_again();
		raw_up(&c, &addr, 16);
		identify(&c.admin, &id);
		ck_assert_uint_eq(id.msdbd, nr);
		ck_assert_uint_eq(id.ioccsz, 4 + cases[i].in_capsule / 16);
		for (unsigned k = 0; k < nr; k++)
			nvme_keyed_sgl_set(&list[k], (uintptr_t)c.io.mem + k * 4096, 512, rnic_mr_rkey(c.io.mr), NVME_SGL_KEYED);
		cmd.sgl = (struct nvme_sgl){ .len = nr * 16, .type = NVME_SGL_LIST_IN_CAPSULE };
		if (!cases[i].in_capsule)
			raw_keyed(&c.io, &cmd, 0, 512);
		ck_assert_int_eq(raw_send(&c.io, &cmd, list, cases[i].in_capsule ? nr * 16 : 0), 0);
		ck_assert_uint_eq(raw_wait(&c.io, 7, NULL), NVME_SC_SUCCESS);
		raw_down(&c);
	}
}

/* The promise can be taken, and not one more. */
static fiber_fn void expect_deepest(uint32_t depth)
{
	struct raw_request request;
	struct nvme_id_ctrlr id;
	static struct raw_host host;
	union nvme_cmd cmd;

	raw_up(&c, &addr, 16);
	ck_assert_uint_eq(deepest_queue(&c.admin), depth);
	identify(&c.admin, &id);
	ck_assert_uint_eq(id.maxcmd, depth);
	request = raw_request(2, (uint16_t)depth);
	raw_ask(&host, &addr, &request);
	ck_assert(raw_wait_cm(&host));
	cmd = raw_connect_cmd(&host, 2, (uint16_t)depth, c.cntlid);
	ck_assert_uint_eq(raw_execute(&host, &cmd, NULL), NVME_SC_SUCCESS);
	raw_close(&host, true);
	request = raw_request(3, (uint16_t)(depth + 1));
	raw_ask(&host, &addr, &request);
	ck_assert(!raw_wait_cm(&host));
	ck_assert_uint_eq(host.reject_status, NVME_RDMA_CM_INVALID_HSQSIZE);
	raw_close(&host, true);
	raw_down(&c);
	fiber_sleep(5000000);
}

SIM_TEST(no_deeper_queue_is_promised_than_the_device_can_serve)
{
	opts.max_queue_depth = 2048;
	target_again();
	expect_deepest(addr.family == AF_INET ? 2048 : 1024);
	target_stop();
	bdev_unregister_all();
	/* Both queues of a pair, and 256 shared receives, in one completion queue. */
	rnic_sim_max_cqe(1000);
	target_start();
	expect_deepest(addr.family == AF_INET ? (1000 - 256 - 32) / 2 : (1000 - 34) / 3);
}

SIM_TEST(more_shared_receives_than_a_completion_queue_holds_are_not_made)
{
	opts.max_srq_depth = 4096;
	target_stop();
	bdev_unregister_all();
	rnic_sim_max_cqe(2048);
	target_start();
	expect_deepest(128);
}

int main(void)
{
	const TTest *const tests[] = {
		a_queue_of_a_controller_that_is_none_is_rejected,
		hosts_that_name_no_controller_are_accepted,
		connect_for_another_queue_than_the_request_named_is_refused_and_may_be_tried_again,
		no_more_descriptors_are_promised_than_fit_a_capsule,
		no_deeper_queue_is_promised_than_the_device_can_serve,
		more_shared_receives_than_a_completion_queue_holds_are_not_made,
	};

	return world_suite("rdma connects", tests, sizeof(tests) / sizeof(tests[0]));
}
