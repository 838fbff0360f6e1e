/* Subsystems, namespaces, hosts and listeners, and what hosts hear of their changes: by discovery and by
 * events. */
#include "nvmf/fake_transport_test.h"

#define OTHER "nqn.2024-01.example.ferrule:other"
#define HOST2 "nqn.2024-01.example.ferrule:host2"

static struct stream_addr at_port(uint16_t port)
{
	return (struct stream_addr){ .host = "192.0.2.1", .port = port, .family = AF_INET };
}

/* --- subsystems ---------------------------------------------------------------------------- */

STAGE_TEST(subsystems_are_created_found_and_deleted)
{
	struct nvmf_subsystem_opts opts = {
		.nqn = OTHER, .serial = "S1", .model = "M1", .max_namespaces = 4
	};
	struct nvmf_subsystem *other, *again;
	struct nvmf_subsystem_info info;

	ck_assert_int_eq(nvmf_subsystem_create(stage->target, &opts, &other), 0);
	ck_assert_int_eq(nvmf_subsystem_create(stage->target, &opts, &again), -EEXIST);
	ck_assert_ptr_eq(nvmf_subsystem_find(stage->target, OTHER), other);
	nvmf_subsystem_info(nvmf_subsystem_first(stage->target), &info);
	ck_assert(info.discovery);
	ck_assert_str_eq(info.nqn, NVMF_DISCOVERY_NQN);
	ck_assert_ptr_eq(nvmf_subsystem_next(nvmf_subsystem_next(nvmf_subsystem_first(stage->target))),
			 other);
	ck_assert_ptr_null(nvmf_subsystem_next(other));
	nvmf_subsystem_info(other, &info);
	ck_assert_str_eq(info.serial, "S1");
	ck_assert_str_eq(info.model, "M1");
	ck_assert_uint_eq(info.max_namespaces, 4);
	ck_assert_uint_eq(info.max_cntlid, 0xffef);
	ck_assert_int_eq(nvmf_subsystem_delete(other), 0);
	ck_assert_ptr_null(nvmf_subsystem_find(stage->target, OTHER));
	ck_assert_int_eq(nvmf_subsystem_delete(nvmf_subsystem_first(stage->target)), -EPERM);
}

STAGE_TEST(bad_subsystems_are_refused)
{
	static const struct nvmf_subsystem_opts bad[] = {
		{ .nqn = "" },
		{ .nqn = "nqn.2024-01.x"
			 "\x01"
			 "y" },
		{ .nqn = "iqn.2024-01.example:x" },
		{ .nqn = NVMF_DISCOVERY_NQN },
		{ .nqn = OTHER, .serial = "123456789012345678901" },
		{ .nqn = OTHER, .serial = "t\xc3\xa9t" },
		{ .nqn = OTHER, .model = "12345678901234567890123456789012345678901" },
		{ .nqn = OTHER, .max_namespaces = 65536 },
		{ .nqn = OTHER, .min_cntlid = 2, .max_cntlid = 1 },
		{ .nqn = OTHER, .max_cntlid = 0xfff0 },
	};
	struct nvmf_subsystem *sub;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_int_eq(nvmf_subsystem_create(stage->target, &bad[i], &sub), -EINVAL);
}

STAGE_TEST(a_default_serial_is_of_the_nqn_alone)
{
	struct nvmf_subsystem_opts opts = { .nqn = OTHER };
	struct nvmf_subsystem_info info, other;
	char serial[NVMF_SERIAL_MAX + 1];
	struct nvmf_subsystem *sub;

	ck_assert_int_eq(nvmf_subsystem_create(stage->target, &opts, &sub), 0);
	nvmf_subsystem_info(sub, &info);
	nvmf_subsystem_info(stage->sub, &other);
	ck_assert_uint_eq(strlen(info.serial), 20);
	ck_assert_str_ne(info.serial, other.serial);
	strcpy(serial, info.serial);
	ck_assert_int_eq(nvmf_subsystem_delete(sub), 0);
	ck_assert_int_eq(nvmf_subsystem_create(stage->target, &opts, &sub), 0);
	nvmf_subsystem_info(sub, &info);
	ck_assert_str_eq(info.serial, serial);
	/* And for ever: this one is in hosts' by-id links. */
	ck_assert_str_eq(other.serial, "48640268C791BE4A3707");
}

STAGE_TEST(a_deleted_subsystem_answers_what_is_in_flight_and_ends_its_associations)
{
	struct nvmf_ns_opts ns_opts = { .bdev_name = "gate" };
	struct nvmf_subsystem_opts opts = { .nqn = OTHER, .allow_any_host = true };
	struct stream_addr addr = at_port(4420);
	struct gate *gate = gate_create("gate", false);
	char buf[512] = { 0 };
	struct fake_cmd cmd = fake_rw(NVME_IO_WRITE, 1, 0, 1, buf, sizeof(buf));
	struct nvmf_subsystem *other;
	struct fake_host host;

	ck_assert_int_eq(nvmf_subsystem_create(stage->target, &opts, &other), 0);
	ck_assert_int_eq(nvmf_subsystem_add_ns(other, &ns_opts, NULL), 0);
	ck_assert_int_eq(nvmf_subsystem_add_listener(other, "TCP", &addr), 0);
	fake_host_connect(&host, stage->target, &(struct fake_connect){ .subnqn = OTHER }, 2);
	gate->hold = true;
	fake_submit(host.io[0], &cmd);
	while (!gate->nr_held)
		fiber_sleep(10);
	gate_open(gate, host.io[0]->qpair.group);
	ck_assert_int_eq(nvmf_subsystem_delete(other), 0);
	ck_assert_uint_eq(fake_wait(&cmd), 0);
	ck_assert(host.admin->close_was_graceful && host.io[0]->close_was_graceful &&
		  host.io[1]->close_was_graceful);
	ck_assert(!bdev_is_open(&gate->bdev));
	fake_host_drop(&host);
}

/* --- namespaces ---------------------------------------------------------------------------- */

STAGE_TEST(bad_namespaces_are_refused_each_with_its_own_error)
{
	struct nvmf_ns_opts opts = { .bdev_name = "nothing" };
	struct bdev *bdev;
	struct bdev_desc *desc;
	uint32_t nsid;

	ck_assert_int_eq(bdev_null_create("null", NULL, 8, 512, &bdev), 0);
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, &nsid), -ENODEV);
	opts.bdev_name = "null";
	opts.nsid = 1;
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, &nsid), -EEXIST);
	opts.nsid = 1025;
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, &nsid), -EINVAL);
	opts.nsid = 0;
	uuid_copy(opts.uuid, stage->malloc_bdev->uuid);
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, &nsid), -EEXIST);
	uuid_clear(opts.uuid);
	ck_assert_int_eq(bdev_open("null", true, NULL, NULL, &desc), 0);
	ck_assert_int_eq(bdev_claim(desc, "a store"), 0);
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, &nsid), -EBUSY);
	bdev_close(desc);
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, &nsid), 0);
	ck_assert_uint_eq(nsid, 2);
	ck_assert_int_eq(nvmf_subsystem_remove_ns(stage->sub, 3), -ENOENT);
	ck_assert_int_eq(nvmf_subsystem_remove_ns(stage->sub, 0), -ENOENT);
	ck_assert_int_eq(nvmf_subsystem_remove_ns(stage->sub, 0xffffffff), -ENOENT);
	ck_assert_int_eq(nvmf_subsystem_remove_ns(stage->sub, 2), 0);
	ck_assert(!bdev_is_open(bdev));
}

STAGE_TEST(a_namespace_shows_the_identities_it_was_given)
{
	struct nvmf_ns_opts opts = {
		.bdev_name = "null", .nsid = 5, .nguid = { 1 }, .eui64 = { 2 }, .uuid = { 3 }, .anagrpid = 4
	};
	struct nvmf_ns_info info;
	struct fake_host host;
	uint8_t page[4096];
	struct bdev *bdev;

	ck_assert_int_eq(bdev_null_create("null", NULL, 8, 512, &bdev), 0);
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	ck_assert_int_eq(nvmf_subsystem_next_ns(stage->sub, 1, &info), 0);
	ck_assert_uint_eq(info.nsid, 5);
	ck_assert(info.present && info.uuid_given && info.nguid_given && info.eui64_given);
	ck_assert_uint_eq(info.anagrpid, 4);
	ck_assert_str_eq(info.bdev_name, "null");
	ck_assert_int_eq(nvmf_subsystem_next_ns(stage->sub, 5, &info), -ENOENT);
	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 0);
	ck_assert_uint_eq(fake_identify(host.admin, NVME_CNS_NS_ID_DESCRIPTORS, 5, page), 0);
	ck_assert(page[0] == NVME_NIDT_EUI64 && page[4] == 2);
	ck_assert(page[12] == NVME_NIDT_NGUID && page[16] == 1);
	ck_assert(page[32] == NVME_NIDT_UUID && page[36] == 3);
	fake_host_drop(&host);
}

STAGE_TEST(a_namespace_whose_bdev_comes_late_appears_with_it)
{
	struct nvmf_ns_opts opts = { .bdev_name = "late", .nsid = 3, .wait_for_bdev = true };
	char buf[512];
	struct fake_cmd aer = { 0 };
	struct nvmf_ns_info info;
	struct fake_host host;
	struct bdev *bdev;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	ck_assert_uint_eq(fake_set_feature(host.admin, NVME_FID_ASYNC_EVENT, NVME_AEC_NS_ATTR), 0);
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	ck_assert_int_eq(nvmf_subsystem_next_ns(stage->sub, 2, &info), 0);
	ck_assert(!info.present);
	ck_assert_str_eq(info.bdev_name, "late");
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_READ, 3, 0, 1, buf), NVME_SC_INVALID_NS);
	ck_assert_int_eq(bdev_null_create("late", NULL, 8, 512, &bdev), 0);
	aer.cmd.opcode = NVME_ADMIN_AER;
	ck_assert_uint_eq(fake_run(host.admin, &aer), 0);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_READ, 3, 0, 1, buf), 0);
	ck_assert_int_eq(nvmf_subsystem_next_ns(stage->sub, 2, &info), 0);
	ck_assert(info.present);
	fake_host_drop(&host);
}

STAGE_TEST(another_bdev_of_the_name_is_not_taken_for_the_one_that_is_waited_for)
{
	struct nvmf_ns_opts opts = { .bdev_name = "late", .nsid = 3, .bdev_uuid = { 7 }, .wait_for_bdev = true };
	uuid_t other = { 8 };
	struct nvmf_ns_info info;
	struct bdev *bdev;

	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	ck_assert_int_eq(bdev_null_create("late", other, 8, 512, &bdev), 0);
	fiber_sleep(1000);
	ck_assert(!bdev_is_open(bdev));
	/* Nor when it is there already. */
	ck_assert_int_eq(nvmf_subsystem_remove_ns(stage->sub, 3), 0);
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	ck_assert(!bdev_is_open(bdev));
	opts.nsid = 4;
	opts.wait_for_bdev = false;
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), -ESTALE);
	ck_assert_int_eq(bdev_unregister_wait(bdev), 0);
	ck_assert_int_eq(bdev_null_create("late", opts.bdev_uuid, 8, 512, &bdev), 0);
	fiber_sleep(1000);
	ck_assert(bdev_is_open(bdev));
	ck_assert_int_eq(nvmf_subsystem_next_ns(stage->sub, 2, &info), 0);
	ck_assert(info.nsid == 3 && info.present);
}

STAGE_TEST(a_waiting_namespace_can_be_removed_and_its_bdev_then_stays_free)
{
	struct nvmf_ns_opts opts = { .bdev_name = "late", .wait_for_bdev = true };
	struct bdev *bdev;
	uint32_t nsid;

	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, &nsid), 0);
	ck_assert_int_eq(nvmf_subsystem_remove_ns(stage->sub, nsid), 0);
	ck_assert_int_eq(bdev_null_create("late", NULL, 8, 512, &bdev), 0);
	fiber_sleep(1000);
	ck_assert(!bdev_is_open(bdev));
}

static unsigned nr_gone;

static void ns_gone(struct nvmf_subsystem *subsystem, uint32_t nsid, const char *bdev_name, void *arg)
{
	ck_assert_ptr_eq(subsystem, arg);
	ck_assert_uint_eq(nsid, 2);
	ck_assert_str_eq(bdev_name, "gate");
	nr_gone++;
}

STAGE_TEST(a_namespace_vanishes_with_its_bdev_once_its_io_is_over)
{
	struct nvmf_ns_opts opts = { .bdev_name = "gate" };
	struct gate *gate = gate_create("gate", false);
	char buf[512] = { 0 };
	struct fake_cmd cmds[4];
	struct nvmf_ns_info info;
	struct fake_host host;

	nr_gone = 0;
	nvmf_target_on_ns_gone(stage->target, ns_gone, stage->sub);
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	gate->hold = true;
	for (unsigned i = 0; i < 4; i++) {
		cmds[i] = fake_rw(NVME_IO_READ, 2, i, 1, buf, sizeof(buf));
		fake_submit(host.io[0], &cmds[i]);
	}
	while (gate->nr_held < 4)
		fiber_sleep(10);
	bdev_unregister(&gate->bdev, NULL, NULL);
	fiber_sleep(1000);
	ck_assert_uint_eq(fake_io(host.io[0], NVME_IO_READ, 2, 0, 1, buf), NVME_SC_INVALID_NS);
	ck_assert_uint_eq(nr_gone, 0);
	gate_open(gate, host.io[0]->qpair.group);
	for (unsigned i = 0; i < 4; i++)
		ck_assert_uint_eq(fake_wait(&cmds[i]), 0);
	while (!nr_gone)
		fiber_sleep(10);
	ck_assert_int_eq(nvmf_subsystem_next_ns(stage->sub, 1, &info), -ENOENT);
	fake_host_drop(&host);
}

STAGE_TEST(io_goes_on_while_namespaces_come_and_go)
{
	struct fake_cmd cmds[16];
	char buf[16][4096] = { 0 };
	struct fake_host host;

	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 2);
	for (unsigned round = 0; round < 20; round++) {
		struct nvmf_ns_opts opts = { .bdev_name = "null" };
		struct bdev *bdev;
		uint32_t nsid;

		for (unsigned i = 0; i < 16; i++) {
			cmds[i] = fake_rw(i % 2 ? NVME_IO_READ : NVME_IO_WRITE, i % 4 ? 1 : 2, 8 * i, 8,
					  buf[i], 4096);
			fake_submit(host.io[i % 2], &cmds[i]);
		}
		ck_assert_int_eq(bdev_null_create("null", NULL, 1024, 512, &bdev), 0);
		ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, &nsid), 0);
		ck_assert_int_eq(nvmf_subsystem_remove_ns(stage->sub, nsid), 0);
		ck_assert_int_eq(bdev_unregister_wait(bdev), 0);
		for (unsigned i = 0; i < 16; i++) {
			uint16_t status = fake_wait(&cmds[i]);

			ck_assert(status == 0 || (i % 4 == 0 && status == NVME_SC_INVALID_NS));
		}
	}
	fake_host_drop(&host);
}

/* The data of a write arrives when its NSID is already another namespace, with another block size. */
STAGE_TEST(a_write_that_began_on_a_namespace_does_not_end_on_its_successor)
{
	struct nvmf_ns_opts opts = { .bdev_name = "small", .nsid = 2 };
	char buf[512] = { 0 };
	struct fake_cmd cmd = fake_rw(NVME_IO_WRITE, 2, 0, 1, buf, sizeof(buf));
	struct fake_host host;
	struct bdev *bdev;

	ck_assert_int_eq(bdev_malloc_create("small", NULL, 64, 512, &bdev), 0);
	ck_assert_int_eq(bdev_malloc_create("large", NULL, 64, 4096, &bdev), 0);
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	cmd.hold_data = true;
	fake_submit(host.io[0], &cmd);
	while (!cmd.data_wanted)
		fiber_sleep(10);
	ck_assert_int_eq(nvmf_subsystem_remove_ns(stage->sub, 2), 0);
	opts.bdev_name = "large";
	ck_assert_int_eq(nvmf_subsystem_add_ns(stage->sub, &opts, NULL), 0);
	ck_assert_int_eq(fake_send_data(&cmd), 0);
	ck_assert_uint_eq(fake_wait(&cmd), NVME_SC_INVALID_NS);
	fake_host_drop(&host);
}

/* --- hosts --------------------------------------------------------------------------------- */

STAGE_TEST(a_removed_host_loses_its_associations_and_others_keep_theirs)
{
	struct fake_host one, two;

	ck_assert_int_eq(nvmf_subsystem_allow_any_host(stage->sub, false), 0);
	ck_assert_int_eq(nvmf_subsystem_add_host(stage->sub, HOSTNQN), 0);
	ck_assert_int_eq(nvmf_subsystem_add_host(stage->sub, HOST2), 0);
	ck_assert_int_eq(nvmf_subsystem_add_host(stage->sub, HOST2), -EEXIST);
	ck_assert_int_eq(nvmf_subsystem_add_host(stage->sub, "host"), -EINVAL);
	ck_assert_str_eq(nvmf_subsystem_host(stage->sub, 1), HOST2);
	ck_assert_ptr_null(nvmf_subsystem_host(stage->sub, 2));
	fake_host_connect(&one, stage->target, &(struct fake_connect){ 0 }, 1);
	fake_host_connect(&two, stage->target, &(struct fake_connect){ .hostnqn = HOST2 }, 1);
	ck_assert_int_eq(nvmf_subsystem_remove_host(stage->sub, HOSTNQN), 0);
	ck_assert_int_eq(nvmf_subsystem_remove_host(stage->sub, HOSTNQN), -ENOENT);
	fake_wait_gone(one.admin);
	fake_wait_gone(one.io[0]);
	ck_assert(!two.admin->gone && !two.io[0]->gone);
	ck_assert_int_eq(nvmf_subsystem_allow_any_host(stage->sub, true), 0);
	fake_host_drop(&one);
	fake_host_connect(&one, stage->target, &(struct fake_connect){ 0 }, 1);
	ck_assert_int_eq(nvmf_subsystem_allow_any_host(stage->sub, false), 0);
	fake_wait_gone(one.admin);
	ck_assert(!two.admin->gone);
	fake_host_drop(&one);
	fake_host_drop(&two);
}

/* --- listeners ----------------------------------------------------------------------------- */

STAGE_TEST(the_first_listener_on_an_address_opens_discovery_and_the_last_takes_it_along)
{
	struct nvmf_subsystem *discovery = nvmf_subsystem_first(stage->target);
	struct stream_addr second = at_port(4421), first = at_port(4420);
	struct nvmf_listener_info info;

	ck_assert_uint_eq(fake_nr_listens, 2);
	ck_assert_int_eq(nvmf_subsystem_listener(discovery, 0, &info), 0);
	ck_assert_uint_eq(info.addr.port, 8009);
	ck_assert_int_eq(nvmf_subsystem_add_listener(stage->sub, "tcp", &second), 0);
	ck_assert_uint_eq(fake_nr_listens, 3);
	ck_assert_int_eq(nvmf_subsystem_remove_listener(stage->sub, "tcp", &first), 0);
	ck_assert_uint_eq(fake_nr_listens, 2);
	ck_assert_int_eq(nvmf_subsystem_listener(discovery, 0, &info), 0);
	ck_assert_int_eq(nvmf_subsystem_remove_listener(stage->sub, "tcp", &second), 0);
	ck_assert_uint_eq(fake_nr_listens, 0);
	ck_assert_int_eq(nvmf_subsystem_listener(discovery, 0, &info), -ENOENT);
	ck_assert_int_eq(nvmf_subsystem_remove_listener(stage->sub, "tcp", &second), -ENOENT);
}

STAGE_TEST(a_taken_discovery_port_is_no_reason_not_to_listen)
{
	struct stream_addr addr = { .host = "2001:db8::0:1", .port = 4420, .family = AF_INET6 }, equal = addr;
	struct nvmf_listener_info info;

	fake_taken_port = 8009;
	ck_assert_int_eq(nvmf_subsystem_add_listener(stage->sub, "TCP", &addr), 0);
	ck_assert_int_eq(nvmf_subsystem_listener(stage->sub, 1, &info), 0);
	ck_assert_str_eq(info.addr.host, "2001:db8::1");
	strcpy(equal.host, "2001:0db8:0::1");
	ck_assert_int_eq(nvmf_subsystem_add_listener(stage->sub, "TCP", &equal), -EEXIST);
	ck_assert_int_eq(nvmf_subsystem_remove_listener(stage->sub, "TCP", &equal), 0);
}

static bool discovery_listens(struct stage *stage)
{
	struct nvmf_listener_info info;

	return nvmf_subsystem_listener(nvmf_subsystem_first(stage->target), 0, &info) == 0 && info.addr.port == 8009;
}

STAGE_TEST(a_discovery_port_that_was_taken_is_opened_when_it_is_free)
{
	struct stream_addr addr = { .host = "2001:db8::2", .port = 4420, .family = AF_INET6 }, first = at_port(4420);

	ck_assert_int_eq(nvmf_subsystem_remove_listener(stage->sub, "TCP", &first), 0);
	ck_assert(!discovery_listens(stage));
	fake_taken_port = 8009;
	ck_assert_int_eq(nvmf_subsystem_add_listener(stage->sub, "TCP", &addr), 0);
	fiber_sleep(20000000);
	ck_assert(!discovery_listens(stage));
	fake_taken_port = 0;
	fiber_sleep(6000000);
	ck_assert(discovery_listens(stage));
	ck_assert_int_eq(nvmf_subsystem_remove_listener(stage->sub, "TCP", &addr), 0);
	ck_assert(!discovery_listens(stage));
	ck_assert_uint_eq(fake_nr_listens, 0);
}

STAGE_TEST(a_discovery_port_that_was_taken_is_tried_with_the_next_listener)
{
	struct stream_addr addr = { .host = "2001:db8::2", .port = 4420, .family = AF_INET6 }, other = at_port(4421);

	fake_taken_port = 8009;
	ck_assert_int_eq(nvmf_subsystem_add_listener(stage->sub, "TCP", &addr), 0);
	fake_taken_port = 0;
	ck_assert_uint_eq(fake_nr_listens, 3);
	ck_assert_int_eq(nvmf_subsystem_add_listener(stage->sub, "TCP", &other), 0);
	ck_assert_uint_eq(fake_nr_listens, 5);
	fake_taken_port = 8009; /* and one that stays taken is let go with its listener */
	strcpy(addr.host, "2001:db8::3");
	ck_assert_int_eq(nvmf_subsystem_add_listener(stage->sub, "TCP", &addr), 0);
	ck_assert_int_eq(nvmf_subsystem_remove_listener(stage->sub, "TCP", &addr), 0);
	ck_assert_uint_eq(fake_nr_listens, 5);
}

STAGE_TEST(bad_listeners_are_refused)
{
	struct stream_addr addr = at_port(4420);

	ck_assert_int_eq(nvmf_subsystem_add_listener(stage->sub, "RDMA", &addr), -ENOENT);
	ck_assert_int_eq(nvmf_subsystem_add_listener(stage->sub, "TCP", &addr), -EEXIST);
	addr.port = 0;
	ck_assert_int_eq(nvmf_subsystem_add_listener(stage->sub, "TCP", &addr), -EINVAL);
	addr = at_port(4421);
	strcpy(addr.host, "example");
	ck_assert_int_eq(nvmf_subsystem_add_listener(stage->sub, "TCP", &addr), -EINVAL);
	addr = at_port(4422);
	fake_taken_port = 4422;
	ck_assert_int_eq(nvmf_subsystem_add_listener(stage->sub, "TCP", &addr), -EADDRINUSE);
}

STAGE_TEST(a_removed_listener_ends_the_associations_that_came_by_it)
{
	struct stream_addr second = at_port(4421), first = at_port(4420);
	struct fake_host host;
	struct fake_conn *conn;

	ck_assert_int_eq(nvmf_subsystem_add_listener(stage->sub, "tcp", &second), 0);
	fake_host_connect(&host, stage->target, &(struct fake_connect){ 0 }, 1);
	conn = fake_open(stage->target, 4421);
	ck_assert_uint_eq(fake_connect(conn, &(struct fake_connect){ .hostnqn = HOST2 }, NULL), 0);
	ck_assert_int_eq(nvmf_subsystem_remove_listener(stage->sub, "tcp", &first), 0);
	fake_wait_gone(host.admin);
	ck_assert(!conn->gone);
	fake_drop(conn);
	fake_host_drop(&host);
}

STAGE_TEST(transports_are_created_once_and_within_limits)
{
	struct nvmf_transport_opts opts;
	struct nvmf_transport_info info;

	ck_assert_int_eq(nvmf_transport_default_opts(stage->target, "FC", &opts), -ENOENT);
	ck_assert_int_eq(nvmf_transport_default_opts(stage->target, "Tcp", &opts), 0);
	ck_assert_int_eq(nvmf_transport_create(stage->target, "TCP", &opts), -EEXIST);
	opts.max_io_size = NVMF_MAX_XFER * 2;
	ck_assert_int_eq(nvmf_transport_create(stage->target, "TCP", &opts), -EINVAL);
	opts.max_io_size = NVMF_MAX_XFER;
	opts.max_queue_depth = 1;
	ck_assert_int_eq(nvmf_transport_create(stage->target, "TCP", &opts), -EINVAL);
	ck_assert_int_eq(nvmf_transport_info(stage->target, 0, &info), 0);
	ck_assert_str_eq(info.trtype, "TCP");
	ck_assert_int_eq(nvmf_transport_info(stage->target, 1, &info), -ENOENT);
}

STAGE_TEST(controllers_and_queues_are_listed)
{
	struct nvmf_ctrlr_info *ctrlrs;
	struct nvmf_qpair_info *qpairs;
	struct fake_host one, two;
	unsigned nr;

	fake_host_connect(&one, stage->target, &(struct fake_connect){ 0 }, 3);
	fake_host_connect(&two, stage->target, &(struct fake_connect){ .hostnqn = HOST2, .host_id = 9 }, 1);
	ck_assert_int_eq(nvmf_subsystem_get_ctrlrs(stage->sub, &ctrlrs, &nr), 0);
	ck_assert_uint_eq(nr, 2);
	ck_assert_uint_eq(ctrlrs[0].cntlid, one.cntlid);
	ck_assert_uint_eq(ctrlrs[0].nr_queues, 4);
	ck_assert_str_eq(ctrlrs[1].host_nqn, HOST2);
	ck_assert_uint_eq(ctrlrs[1].host_id[15], 9);
	free(ctrlrs);
	ck_assert_int_eq(nvmf_subsystem_get_qpairs(stage->sub, &qpairs, &nr), 0);
	ck_assert_uint_eq(nr, 6);
	for (unsigned i = 0; i < 4; i++) {
		ck_assert_uint_eq(qpairs[i].qid, i);
		ck_assert_uint_eq(qpairs[i].cntlid, one.cntlid);
		ck_assert_str_eq(qpairs[i].state, "active");
		ck_assert_str_eq(qpairs[i].peer_addr.host, "192.0.2.99");
	}
	ck_assert_str_eq(qpairs[5].host_nqn, HOST2);
	free(qpairs);
	fake_host_drop(&one);
	fake_host_drop(&two);
}

/* --- discovery ----------------------------------------------------------------------------- */

fiber_fn static struct fake_conn *discover(struct stage *stage, const char *hostnqn, uint16_t port)
{
	struct fake_conn *conn = fake_open(stage->target, port);
	struct fake_connect how = { .subnqn = NVMF_DISCOVERY_NQN, .hostnqn = hostnqn };

	ck_assert_uint_eq(fake_connect(conn, &how, NULL), 0);
	ck_assert_uint_eq(fake_property_set(conn, NVME_PROP_CC, NVME_CC_EN), 0);
	return conn;
}

struct discovery_page {
	struct nvme_discovery_log head;
	struct nvme_discovery_entry entries[4];
};

static const struct nvme_discovery_entry *entry_of(const struct discovery_page *page, const char *nqn)
{
	for (unsigned i = 0; i < page->head.numrec && i < 4; i++) {
		if (!strcmp(page->entries[i].subnqn, nqn))
			return &page->entries[i];
	}
	return NULL;
}

STAGE_TEST(discovery_shows_each_host_what_it_may_use)
{
	struct nvmf_subsystem_opts opts = { .nqn = OTHER };
	struct stream_addr any = { .host = "0.0.0.0", .port = 4430, .family = AF_INET };
	const struct nvme_discovery_entry *entry;
	struct discovery_page page;
	struct nvmf_subsystem *other;
	struct fake_conn *one, *two;

	ck_assert_int_eq(nvmf_subsystem_create(stage->target, &opts, &other), 0);
	ck_assert_int_eq(nvmf_subsystem_add_listener(other, "tcp", &any), 0);
	ck_assert_int_eq(nvmf_subsystem_add_host(other, HOST2), 0);
	one = discover(stage, HOSTNQN, 8009);
	two = discover(stage, HOST2, 4420);
	ck_assert_uint_eq(fake_log(one, NVME_LID_DISCOVERY, 0, 0, &page, sizeof(page)), 0);
	ck_assert_uint_eq(page.head.numrec, 2);
	entry = entry_of(&page, SUBNQN);
	ck_assert_uint_eq(entry->trtype, 3);
	ck_assert_uint_eq(entry->adrfam, 1);
	ck_assert_uint_eq(entry->subtype, NVME_SUBTYPE_NVM);
	ck_assert_uint_eq(entry->cntlid, 0xffff);
	ck_assert_uint_ge(entry->asqsz, 32);
	ck_assert_mem_eq(entry->traddr, "192.0.2.1 ", 10);
	ck_assert_mem_eq(entry->trsvcid, "4420 ", 5);
	ck_assert_uint_eq(entry_of(&page, NVMF_DISCOVERY_NQN)->subtype, NVME_SUBTYPE_DISCOVERY);
	ck_assert_uint_eq(fake_log(two, NVME_LID_DISCOVERY, 0, 0, &page, sizeof(page)), 0);
	ck_assert_uint_eq(page.head.numrec, 3);
	/* A host cannot connect to any address: it is told the one it came by. */
	ck_assert_mem_eq(entry_of(&page, OTHER)->traddr, "192.0.2.1 ", 10);
	ck_assert_mem_eq(entry_of(&page, OTHER)->trsvcid, "4430 ", 5);
	fake_drop(one);
	fake_drop(two);
}

STAGE_TEST(the_discovery_log_is_read_in_parts_of_one_generation)
{
	struct fake_conn *conn = discover(stage, HOSTNQN, 8009);
	struct discovery_page whole, parts;
	struct nvme_discovery_log head;
	uint64_t generation;

	ck_assert_uint_eq(fake_log(conn, NVME_LID_DISCOVERY, 0, 0, &whole, sizeof(whole)), 0);
	for (uint32_t offset = 0; offset < 3072; offset += 512)
		ck_assert_uint_eq(fake_log(conn, NVME_LID_DISCOVERY, 0, offset, (char *)&parts + offset, 512),
				  0);
	ck_assert_mem_eq(&whole, &parts, 3072);
	ck_assert_uint_eq(fake_log(conn, NVME_LID_DISCOVERY, 0, 3072, &head, sizeof(head)), 0);
	ck_assert_uint_eq(fake_log(conn, NVME_LID_DISCOVERY, 0, 3076, &head, sizeof(head)),
			  NVME_SC_INVALID_FIELD);
	ck_assert_uint_eq(fake_log(conn, NVME_LID_DISCOVERY, 0, UINT64_MAX - 3, &head, sizeof(head)),
			  NVME_SC_INVALID_FIELD);
	generation = whole.head.genctr;
	ck_assert_int_eq(nvmf_subsystem_allow_any_host(stage->sub, false), 0);
	ck_assert_uint_eq(fake_log(conn, NVME_LID_DISCOVERY, 0, 0, &head, sizeof(head)), 0);
	ck_assert_uint_gt(head.genctr, generation);
	ck_assert_uint_eq(head.numrec, 1);
	fake_drop(conn);
}

STAGE_TEST(only_hosts_whose_view_changed_are_told)
{
	struct fake_conn *one = discover(stage, HOSTNQN, 8009), *two = discover(stage, HOST2, 8009);
	struct nvmf_subsystem_opts opts = { .nqn = OTHER };
	struct stream_addr addr = at_port(4421);
	struct fake_cmd aers[2] = { 0 };
	struct nvme_discovery_log head;
	struct nvmf_subsystem *other;

	for (unsigned i = 0; i < 2; i++) {
		ck_assert_uint_eq(fake_set_feature(i ? two : one, NVME_FID_ASYNC_EVENT, NVME_AEC_DISCOVERY),
				  0);
		aers[i].cmd.opcode = NVME_ADMIN_AER;
		fake_submit(i ? two : one, &aers[i]);
	}
	/* Nobody may use it, then nobody can reach it, then host two may and can. */
	ck_assert_int_eq(nvmf_subsystem_create(stage->target, &opts, &other), 0);
	ck_assert_int_eq(nvmf_subsystem_add_host(other, HOSTNQN), 0);
	ck_assert_int_eq(nvmf_subsystem_remove_host(other, HOSTNQN), 0);
	ck_assert_int_eq(nvmf_subsystem_add_listener(other, "TCP", &addr), 0);
	fiber_sleep(1000);
	ck_assert(!aers[0].done && !aers[1].done);
	ck_assert_int_eq(nvmf_subsystem_add_host(other, HOST2), 0);
	ck_assert_uint_eq(fake_wait(&aers[1]), 0);
	ck_assert_uint_eq(aers[1].cqe.dw0,
			  NVME_AER_RESULT(NVME_AER_NOTICE, NVME_AER_NOTICE_DISCOVERY, NVME_LID_DISCOVERY));
	ck_assert(!aers[0].done);
	ck_assert_uint_eq(fake_log(two, NVME_LID_DISCOVERY, 0, 0, &head, sizeof(head)), 0);
	fake_submit(two, &aers[1]);
	/* Any host may: that is news for host one alone. */
	ck_assert_int_eq(nvmf_subsystem_allow_any_host(other, true), 0);
	ck_assert_uint_eq(fake_wait(&aers[0]), 0);
	fiber_sleep(1000);
	ck_assert(!aers[1].done);
	ck_assert_int_eq(nvmf_subsystem_delete(other), 0);
	ck_assert_uint_eq(fake_wait(&aers[1]), 0);
	fake_drop(one);
	fake_drop(two);
}

STAGE_TEST(a_discovery_controller_does_discovery_and_nothing_else)
{
	static const uint8_t opcodes[] = { 0x02, 0x06, 0x09, 0x0a, 0x0c, 0x18, 0x7f };
	struct fake_conn *conn = discover(stage, HOSTNQN, 8009);
	struct nvme_id_ctrlr id;
	uint32_t dw0;

	ck_assert_uint_eq(fake_identify(conn, NVME_CNS_CTRLR, 0, &id), 0);
	ck_assert_uint_eq(id.cntrltype, 2);
	ck_assert_str_eq(id.subnqn, NVMF_DISCOVERY_NQN);
	for (unsigned cns = 0; cns < 256; cns++) {
		if (cns != NVME_CNS_CTRLR)
			ck_assert_uint_eq(fake_identify(conn, (uint8_t)cns, 1, &id), NVME_SC_INVALID_FIELD);
	}
	for (unsigned opcode = 0; opcode < 256; opcode++) {
		struct fake_cmd cmd = { 0 };

		cmd.cmd.opcode = (uint8_t)opcode;
		if (!memchr(opcodes, (int)opcode, sizeof(opcodes)))
			ck_assert_uint_eq(fake_run(conn, &cmd), NVME_SC_INVALID_OPCODE);
	}
	ck_assert_uint_eq(fake_log(conn, NVME_LID_SMART, 0, 0, &id, 512), NVME_SC_INVALID_LOG_PAGE);
	ck_assert_uint_eq(fake_get_feature(conn, NVME_FID_VWC, 0, 0, &dw0), NVME_SC_INVALID_FIELD);
	ck_assert_uint_eq(fake_get_feature(conn, NVME_FID_KEEP_ALIVE, 0, 0, &dw0), 0);
	ck_assert_uint_eq(dw0, 120000);
	fake_drop(conn);
}

STAGE_TEST(a_silent_discovery_host_goes_after_two_minutes)
{
	struct fake_conn *conn = discover(stage, HOSTNQN, 8009);
	uint64_t before_us = clock_now_us();

	fake_wait_gone(conn);
	ck_assert_uint_ge(clock_now_us() - before_us, 119000000);
	ck_assert_uint_le(clock_now_us() - before_us, 160000000);
}

int main(void)
{
	const TTest *const tests[] = {
		subsystems_are_created_found_and_deleted,
		bad_subsystems_are_refused,
		a_default_serial_is_of_the_nqn_alone,
		a_deleted_subsystem_answers_what_is_in_flight_and_ends_its_associations,
		bad_namespaces_are_refused_each_with_its_own_error,
		a_namespace_shows_the_identities_it_was_given,
		a_namespace_whose_bdev_comes_late_appears_with_it,
		another_bdev_of_the_name_is_not_taken_for_the_one_that_is_waited_for,
		a_waiting_namespace_can_be_removed_and_its_bdev_then_stays_free,
		a_namespace_vanishes_with_its_bdev_once_its_io_is_over,
		io_goes_on_while_namespaces_come_and_go,
		a_write_that_began_on_a_namespace_does_not_end_on_its_successor,
		a_removed_host_loses_its_associations_and_others_keep_theirs,
		the_first_listener_on_an_address_opens_discovery_and_the_last_takes_it_along,
		a_taken_discovery_port_is_no_reason_not_to_listen,
		a_discovery_port_that_was_taken_is_opened_when_it_is_free,
		a_discovery_port_that_was_taken_is_tried_with_the_next_listener,
		bad_listeners_are_refused,
		a_removed_listener_ends_the_associations_that_came_by_it,
		transports_are_created_once_and_within_limits,
		controllers_and_queues_are_listed,
		discovery_shows_each_host_what_it_may_use,
		the_discovery_log_is_read_in_parts_of_one_generation,
		only_hosts_whose_view_changed_are_told,
		a_discovery_controller_does_discovery_and_nothing_else,
		a_silent_discovery_host_goes_after_two_minutes,
	};

	return STAGE_SUITE(tests);
}
