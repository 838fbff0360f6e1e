/*
 * What a target must do whatever the transport: one table of commands with their verdicts, and one of scenarios, run over TCP in one
 * program and over RDMA on the simulated fabric in the other.  What belongs to one transport alone (PDUs, keys, connection requests)
 * is in that transport's own tests.
 *
 * Source: NVM Express Base 2.0, NVM Command Set 1.0; section numbers stand at the tables.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/bdev.h"
#include "nvmf/nvmf.h"
#include "runtime/sim.h"
#include "transport/conformance_host.h"

#define SEEDS	6
#define BLOCKS	65536u

static struct nvmf_target *target;
static uint8_t data[2u << 20];

/* --- the world ------------------------------------------------------------------------------------------------------------------ */

static void world(void *arg)
{
	const struct nvmf_subsystem_opts subsystem_opts = { .nqn = SUBNQN, .allow_any_host = true, .max_namespaces = 8 };
	const struct nvmf_ns_opts ns_opts = { .bdev_name = "disk" };
	void (*body)(void) = (void (*)(void))(uintptr_t)arg;
	const struct nvmf_target_opts target_opts = { 0 };
	struct nvmf_transport_opts opts;
	struct nvmf_subsystem *subsystem;
	uuid_t none = { 0 };
	struct bdev *bdev;
	uint32_t nsid;

	wire_transport->opts_default(&opts);
	opts.max_srq_depth = 256;
	ck_assert_int_eq(bdev_malloc_create("disk", none, BLOCKS, 512, &bdev), 0);
	ck_assert_int_eq(nvmf_target_create(&target_opts, &target), 0);
	ck_assert_int_eq(nvmf_target_register_transport(target, wire_transport), 0);
	ck_assert_int_eq(nvmf_transport_create(target, wire_transport->name, &opts), 0);
	ck_assert_int_eq(nvmf_subsystem_create(target, &subsystem_opts, &subsystem), 0);
	ck_assert_int_eq(nvmf_subsystem_add_ns(subsystem, &ns_opts, &nsid), 0);
	ck_assert_int_eq(nvmf_subsystem_add_listener(subsystem, wire_transport->name, &host_addr), 0);
	ck_assert_int_eq(nvmf_subsystem_add_listener(nvmf_subsystem_find(target, NVMF_DISCOVERY_NQN), wire_transport->name, &host_addr), 0);
	body();
	nvmf_target_destroy(target);
	bdev_unregister_all();
	runtime_stop(0);
}

/* Odd rounds are over IPv6, which on the simulated fabric is another device; the first two without delays. */
static void in_sim(void (*body)(void), int i, struct sim_opts sim)
{
	sim.seed = 500 + (uint64_t)i;
	sim.nr_reactors = 2;
	if (i >= 2) {
		sim.short_io_ppm = 300000;
		sim.again_ppm = 100000;
		sim.max_delay_us = 100;
	}
	host_addr = (struct stream_addr){ .port = 4420, .family = i % 2 ? AF_INET6 : AF_INET };
	strcpy(host_addr.host, i % 2 ? "::1" : "127.0.0.1");
	for (size_t k = 0; k < sizeof(data); k++)
		data[k] = (uint8_t)((k * 2654435761u + (unsigned)i) >> 13);
	ck_assert_int_eq(sim_run(&sim, world, (void *)(uintptr_t)body), 0);
}

#define SCENARIO_WITH(name, ...) \
	static void name##_body(void); \
	START_TEST(name) \
	{ \
		in_sim(name##_body, _i, (struct sim_opts){ __VA_ARGS__ }); \
	} \
	END_TEST \
	static void name##_body(void)
#define SCENARIO(name) SCENARIO_WITH(name, 0)

/* --- single commands ---------------------------------------------------------------------------------------------------------------- */

struct verdict {
	uint8_t opcode, flags;
	uint32_t nsid, cdw10, cdw11, cdw12;
	uint32_t len; /* of the data, which goes the way that the opcode says */
	uint16_t status;
};

/* Base 2.0, 5 */
static const struct verdict admin_verdicts[] = {
	{ NVME_ADMIN_IDENTIFY, 0, 0, NVME_CNS_CTRLR, 0, 0, 4096, OK },
	{ NVME_ADMIN_IDENTIFY, 0, 1, NVME_CNS_NS, 0, 0, 4096, OK },
	{ NVME_ADMIN_IDENTIFY, 0, 0, NVME_CNS_NS, 0, 0, 4096, NVME_SC_INVALID_NS },
	{ NVME_ADMIN_IDENTIFY, 0, 9, NVME_CNS_NS, 0, 0, 4096, NVME_SC_INVALID_NS },
	{ NVME_ADMIN_IDENTIFY, 0, 0, 0xfe, 0, 0, 4096, NVME_SC_INVALID_FIELD },
	{ NVME_ADMIN_IDENTIFY, 0, 0, NVME_CNS_CTRLR, 0, 0, 512, NVME_SC_SGL_LENGTH_INVALID },
	{ NVME_ADMIN_IDENTIFY, NVME_CMD_FUSE_FIRST, 0, NVME_CNS_CTRLR, 0, 0, 4096, NVME_SC_INVALID_FIELD },
	{ NVME_ADMIN_GET_LOG_PAGE, 0, NVME_NSID_ALL, 127u << 16 | NVME_LID_SMART, 0, 0, 512, OK },
	{ NVME_ADMIN_GET_LOG_PAGE, 0, NVME_NSID_ALL, 127u << 16 | NVME_LID_SMART, 0, 0, 256, NVME_SC_SGL_LENGTH_INVALID },
	{ NVME_ADMIN_GET_LOG_PAGE, 0, NVME_NSID_ALL, 127u << 16 | NVME_LID_SMART, 0, 2, 512, NVME_SC_INVALID_FIELD },
	{ NVME_ADMIN_GET_LOG_PAGE, 0, NVME_NSID_ALL, 127u << 16 | 0xbe, 0, 0, 512, NVME_SC_INVALID_LOG_PAGE },
	{ NVME_ADMIN_GET_FEATURES, 0, 0, 0xff, 0, 0, 0, NVME_SC_INVALID_FIELD },
	{ NVME_ADMIN_GET_FEATURES, 0, 0, NVME_FID_NR_QUEUES, 0, 0, 0, OK },
	{ NVME_ADMIN_SET_FEATURES, 0, 0, 0xff, 0, 0, 0, NVME_SC_INVALID_FIELD },
	{ NVME_ADMIN_KEEP_ALIVE, 0, 0, 0, 0, 0, 0, OK },
	{ NVME_ADMIN_ABORT, 0, 0, 0xffff0001, 0, 0, 0, OK },
	{ NVME_ADMIN_CREATE_IO_SQ, 0, 0, 0, 0, 0, 0, NVME_SC_INVALID_OPCODE },
	{ NVME_ADMIN_DELETE_IO_CQ, 0, 0, 0, 0, 0, 0, NVME_SC_INVALID_OPCODE },
	{ 0xc4, 0, 0, 0, 0, 0, 0, NVME_SC_INVALID_OPCODE },
};

/* NVM Command Set 1.0, 3 */
static const struct verdict io_verdicts[] = {
	{ NVME_IO_READ, 0, 1, 0, 0, 7, 4096, OK },
	{ NVME_IO_WRITE, 0, 1, 0, 0, 7, 4096, OK },
	{ NVME_IO_READ, 0, 1, BLOCKS - 8, 0, 7, 4096, OK },
	{ NVME_IO_READ, 0, 1, BLOCKS - 7, 0, 7, 4096, NVME_SC_LBA_OUT_OF_RANGE },
	{ NVME_IO_WRITE, 0, 1, BLOCKS, 0, 0, 512, NVME_SC_LBA_OUT_OF_RANGE },
	{ NVME_IO_READ, 0, 1, 0xfffffffc, 0xffffffff, 7, 4096, NVME_SC_LBA_OUT_OF_RANGE },
	{ NVME_IO_READ, 0, 0, 0, 0, 0, 512, NVME_SC_INVALID_NS },
	{ NVME_IO_READ, 0, 2, 0, 0, 0, 512, NVME_SC_INVALID_NS },
	{ NVME_IO_WRITE, 0, NVME_NSID_ALL, 0, 0, 0, 512, NVME_SC_INVALID_NS },
	{ NVME_IO_READ, 0, 1, 0, 0, 7, 4095, NVME_SC_SGL_LENGTH_INVALID },
	{ NVME_IO_WRITE, 0, 1, 0, 0, 7, 2048, NVME_SC_SGL_LENGTH_INVALID },
	{ NVME_IO_WRITE, 0, 1, 0, 0, 15, 4096, NVME_SC_SGL_LENGTH_INVALID },
	{ NVME_IO_READ, 0, 1, 0, 0, 0xffff, 4096, NVME_SC_INVALID_FIELD }, /* more than MDTS */
	{ NVME_IO_READ, NVME_CMD_FUSE_MASK, 1, 0, 0, 7, 4096, NVME_SC_INVALID_FIELD },
	{ NVME_IO_FLUSH, 0, 1, 0, 0, 0, 0, OK },
	{ NVME_IO_FLUSH, 0, 3, 0, 0, 0, 0, NVME_SC_INVALID_NS },
	{ NVME_IO_WRITE_ZEROES, 0, 1, 0, 0, 7, 0, OK },
	{ NVME_IO_WRITE_ZEROES, 0, 1, BLOCKS, 0, 7, 0, NVME_SC_LBA_OUT_OF_RANGE },
	{ NVME_IO_VERIFY, 0, 1, 0, 0, 7, 0, OK },
	{ NVME_IO_WRITE_UNCORRECTABLE, 0, 1, 0, 0, 7, 0, NVME_SC_INVALID_OPCODE },
	{ NVME_IO_DSM, 0, 1, 0, NVME_DSM_AD, 0, 16, OK },
	{ NVME_IO_DSM, 0, 1, 1, NVME_DSM_AD, 0, 16, NVME_SC_SGL_LENGTH_INVALID },
	{ NVME_IO_COPY, 0, 1, 16, 0, 0, 32, OK }, /* a range of zeroes: block 0 */
	{ NVME_IO_COPY, 0, 1, 16, 0, 1, 32, NVME_SC_SGL_LENGTH_INVALID },
	{ NVME_IO_COPY, 0, 1, 16, 0, 0x100, 32, NVME_SC_INVALID_FIELD },
	{ NVME_IO_COPY, 0, 1, 0, 0, 0, 32, NVME_SC_INVALID_FIELD }, /* onto itself */
	{ NVME_IO_COPY, 0, 1, BLOCKS, 0, 0, 32, NVME_SC_LBA_OUT_OF_RANGE },
	{ 0xf0, 0, 1, 0, 0, 0, 0, NVME_SC_INVALID_OPCODE },
};

static fiber_fn void try_verdicts(struct wire *wire, const struct verdict *verdicts, unsigned nr, enum wire_place place)
{
	memset(host_back, 0, 4096);
	for (unsigned i = 0; i < nr; i++) {
		const struct verdict *v = &verdicts[i];
		struct wire_cmd c = { .buf = host_back, .len = v->len, .place = place };
		uint16_t status;

		c.cmd.opcode = v->opcode;
		c.cmd.flags = v->flags;
		c.cmd.nsid = v->nsid;
		c.cmd.cdw10 = v->cdw10;
		c.cmd.cdw11 = v->cdw11;
		c.cmd.cdw12 = v->cdw12;
		if (v->len)
			c.xfer = nvme_opcode_xfer(v->opcode) == NVME_XFER_TO_HOST ? NVMF_XFER_TO_HOST : NVMF_XFER_FROM_HOST;
		if (place == WIRE_CAPSULE && c.xfer == NVMF_XFER_TO_HOST)
			continue;
		status = wire_run(wire, &c);
		ck_assert_msg(status == v->status, "command %u, opcode %02xh: status %03xh", i, v->opcode, status);
	}
}

SCENARIO(each_admin_command_gets_its_verdict)
{
	struct host host;

	host_up(&host, 0);
	try_verdicts(host.admin, admin_verdicts, sizeof(admin_verdicts) / sizeof(admin_verdicts[0]), WIRE_AWAY);
	host_down(&host);
}

SCENARIO(each_io_command_gets_its_verdict)
{
	struct host host;

	host_up(&host, 0);
	try_verdicts(host.io, io_verdicts, sizeof(io_verdicts) / sizeof(io_verdicts[0]), WIRE_AWAY);
	try_verdicts(host.io, io_verdicts, sizeof(io_verdicts) / sizeof(io_verdicts[0]), WIRE_CAPSULE);
	host_down(&host);
}

/* Base 2.0, 6.3: what is wrong is named by its offset, in the command or in the data. */
SCENARIO(each_bad_connect_is_told_what_was_wrong_and_a_good_one_may_follow)
{
	static const struct {
		struct host_connect how;
		uint16_t status;
		uint8_t iattr;
		uint16_t ipo;
	} cases[] = {
		{ { .recfmt = 1 }, NVME_SC_CONNECT_INCOMPATIBLE_FORMAT, 0, 0 },
		{ { .cntlid = 7 }, NVME_SC_CONNECT_INVALID_PARAMETERS, 1, 16 },
		{ { .subnqn = "nqn.2024-01.example.ferrule:suc" }, NVME_SC_CONNECT_INVALID_PARAMETERS, 1, 256 },
		{ { .hostnqn = "host" }, NVME_SC_CONNECT_INVALID_PARAMETERS, 1, 512 },
		{ { .sqsize = 4096 }, NVME_SC_CONNECT_INVALID_PARAMETERS, 0, 44 },
		{ { .sqsize = 0xffff }, NVME_SC_CONNECT_INVALID_PARAMETERS, 0, 44 },
		{ { .qid = 999 }, NVME_SC_CONNECT_INVALID_PARAMETERS, 0, 42 },
		{ { .len = 512 }, NVME_SC_SGL_LENGTH_INVALID, 0, 0 },
	};
	struct wire *wire = host_open_queue(0);

	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct nvme_cqe cqe;
		uint16_t status = host_connect(wire, &cases[i].how, &cqe);

		ck_assert_msg(status == cases[i].status, "Connect %u: status %03xh", i, status);
		if (status == NVME_SC_CONNECT_INVALID_PARAMETERS)
			ck_assert_msg(cqe.connect_invalid.iattr == cases[i].iattr && cqe.connect_invalid.ipo == cases[i].ipo,
				      "Connect %u: %u %u", i, cqe.connect_invalid.iattr, cqe.connect_invalid.ipo);
	}
	ck_assert_uint_eq(host_connect(wire, &(struct host_connect){ 0 }, NULL), OK);
	wire_close(wire, true);
}

SCENARIO(nothing_but_connect_is_answered_before_connect)
{
	struct wire_cmd identify = { .cmd = { .opcode = NVME_ADMIN_IDENTIFY, .cdw10 = NVME_CNS_CTRLR }, .buf = host_back, .len = 4096,
				     .xfer = NVMF_XFER_TO_HOST };
	struct wire *wire = host_open_queue(0);
	uint64_t value;

	ck_assert_uint_eq(wire_run(wire, &identify), NVME_SC_CMD_SEQUENCE_ERROR);
	ck_assert_uint_eq(host_property(wire, NVME_FCTYPE_PROPERTY_GET, NVME_PROP_CAP, NVME_PROP_SIZE_8, 0, &value), NVME_SC_CMD_SEQUENCE_ERROR);
	ck_assert_uint_eq(host_connect(wire, &(struct host_connect){ 0 }, NULL), OK);
	ck_assert_uint_eq(host_connect(wire, &(struct host_connect){ 0 }, NULL), NVME_SC_CMD_SEQUENCE_ERROR);
	wire_close(wire, true);
}

SCENARIO(a_connection_without_a_connect_is_closed)
{
	struct wire *wire = host_open_queue(0);
	uint64_t before_us = clock_now_us();

	wire_wait_end(wire);
	ck_assert_uint_ge(clock_now_us() - before_us, 9 * 1000 * 1000);
	ck_assert_uint_le(clock_now_us() - before_us, 20 * 1000 * 1000);
	wire_close(wire, true);
}

/* --- the controller -------------------------------------------------------------------------------------------------------------------- */

/* Base 2.0, 3.1.3 and 3.6.2 */
SCENARIO(properties_bring_a_controller_up_and_down)
{
	struct wire *admin = host_open_queue(0);
	uint64_t cap, vs, csts = 0;

	ck_assert_uint_eq(host_connect(admin, &(struct host_connect){ 0 }, NULL), OK);
	ck_assert_uint_eq(host_property(admin, NVME_FCTYPE_PROPERTY_GET, NVME_PROP_CAP, NVME_PROP_SIZE_8, 0, &cap), OK);
	ck_assert_uint_eq(NVME_CAP_MQES(cap), 127);
	ck_assert(cap & NVME_CAP_CQR);
	ck_assert(cap & NVME_CAP_CSS_NVM);
	ck_assert_uint_eq(host_property(admin, NVME_FCTYPE_PROPERTY_GET, NVME_PROP_VS, NVME_PROP_SIZE_4, 0, &vs), OK);
	ck_assert_uint_ge(vs, NVME_VS(1, 4, 0));
	ck_assert_uint_eq(host_property(admin, NVME_FCTYPE_PROPERTY_GET, NVME_PROP_ASQ, NVME_PROP_SIZE_8, 0, &cap), NVME_SC_INVALID_FIELD);
	ck_assert_uint_eq(host_property(admin, NVME_FCTYPE_PROPERTY_GET, NVME_PROP_CAP, NVME_PROP_SIZE_4, 0, &cap), NVME_SC_INVALID_FIELD);
	ck_assert_uint_eq(host_property(admin, NVME_FCTYPE_PROPERTY_SET, NVME_PROP_CSTS, NVME_PROP_SIZE_4, 0, NULL), NVME_SC_INVALID_FIELD);
	host_enable(admin);
	ck_assert_uint_eq(host_property(admin, NVME_FCTYPE_PROPERTY_SET, NVME_PROP_CC, NVME_PROP_SIZE_4,
				   NVME_CC_EN | NVME_CC_SHN_NORMAL << NVME_CC_SHN_SHIFT | 6u << NVME_CC_IOSQES_SHIFT | 4u << NVME_CC_IOCQES_SHIFT,
				   NULL), OK);
	while (NVME_CSTS_SHST(csts) != NVME_CSTS_SHST_COMPLETE)
		ck_assert_uint_eq(host_property(admin, NVME_FCTYPE_PROPERTY_GET, NVME_PROP_CSTS, NVME_PROP_SIZE_4, 0, &csts), OK);
	wire_close(admin, true);
}

SCENARIO(identify_says_what_this_transport_takes)
{
	struct wire_cmd c = { .cmd = { .opcode = NVME_ADMIN_IDENTIFY, .cdw10 = NVME_CNS_CTRLR }, .buf = host_back, .len = 4096,
			      .xfer = NVMF_XFER_TO_HOST };
	const struct nvme_id_ctrlr *id = (const void *)host_back;
	struct host host;

	host_up(&host, 0);
	ck_assert_uint_eq(wire_run(host.admin, &c), OK);
	ck_assert_uint_eq(id->ioccsz, (64 + WIRE_MAX_CAPSULE) / 16);
	ck_assert_uint_eq(id->iorcsz, 1);
	ck_assert_uint_eq(id->icdoff, 0);
	ck_assert_uint_eq(id->msdbd, wire_transport->max_descriptors);
	ck_assert_uint_eq(id->sgls & wire_transport->sgls, wire_transport->sgls);
	ck_assert_uint_eq(id->sgls & 3, 1);
	ck_assert_uint_eq(id->cntlid, host.cntlid);
	ck_assert_uint_eq(4096u << id->mdts, NVMF_MAX_XFER);
	ck_assert_uint_le(id->kas, 100);
	ck_assert_str_eq((const char *)id->subnqn, SUBNQN);
	host_down(&host);
}

/* Base 2.0, 5.16.1.23 */
SCENARIO(discovery_names_the_listener)
{
	struct wire_cmd c = { .cmd = { .opcode = NVME_ADMIN_GET_LOG_PAGE }, .buf = host_back, .len = 4096, .xfer = NVMF_XFER_TO_HOST };
	const struct nvme_discovery_log *log = (const void *)host_back;
	struct wire *admin = host_open_queue(0);
	const struct nvme_discovery_entry *entry;
	bool found = false;

	ck_assert_uint_eq(host_connect(admin, &(struct host_connect){ .subnqn = NVMF_DISCOVERY_NQN }, NULL), OK);
	host_enable(admin);
	c.cmd.get_log.lid = NVME_LID_DISCOVERY;
	c.cmd.get_log.numdl = 1023;
	ck_assert_uint_eq(wire_run(admin, &c), OK);
	ck_assert_uint_le(log->numrec, 3);
	for (unsigned i = 0; i < log->numrec; i++) {
		entry = &log->entries[i];
		ck_assert_uint_eq(entry->trtype, wire_transport->trtype);
		ck_assert_uint_eq(entry->adrfam, host_addr.family == AF_INET6 ? NVME_ADRFAM_IPV6 : NVME_ADRFAM_IPV4);
		ck_assert_int_eq(strncmp(entry->traddr, host_addr.host, strlen(host_addr.host)), 0);
		ck_assert_int_eq(strncmp(entry->trsvcid, "4420", 4), 0);
		ck_assert_int_eq(memcmp(entry->tsas, wire_transport->tsas, sizeof(wire_transport->tsas)), 0);
		found = found || !strcmp(entry->subnqn, SUBNQN);
	}
	ck_assert(found);
	wire_close(admin, true);
}

/* --- data -------------------------------------------------------------------------------------------------------------------------------- */

SCENARIO(data_of_every_size_comes_through_either_way)
{
	static const uint32_t lens[] = { 512, 4096, 8192, 65536, 131072, 131584, 524288, 1048576 };
	struct host host;

	host_up(&host, 0);
	for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		host_write(host.io, 64 + i, data + i, lens[i], WIRE_AWAY);
		host_expect(host.io, 64 + i, data + i, lens[i]);
	}
	for (uint32_t len = 512; len <= WIRE_MAX_CAPSULE; len += 512) {
		host_write(host.io, 8, data + len, len, WIRE_CAPSULE);
		host_expect(host.io, 8, data + len, len);
	}
	host_down(&host);
}

SCENARIO(more_data_than_a_capsule_holds_costs_the_command_and_not_the_connection)
{
	struct wire_cmd c = host_rw(NVME_IO_WRITE, 0, data, 4096, WIRE_CAPSULE);
	struct host host;

	host_up(&host, 0);
	/* The descriptor says more than came. */
	c.sgl_is_set = true;
	c.cmd.sgl = (struct nvme_sgl){ .addr = 512, .len = 4096, .type = NVME_SGL_IN_CAPSULE };
	ck_assert_uint_ne(wire_run(host.io, &c), OK);
	c.cmd.sgl = (struct nvme_sgl){ .addr = 1ull << 63, .len = 4096, .type = NVME_SGL_IN_CAPSULE };
	ck_assert_uint_eq(wire_run(host.io, &c), NVME_SC_SGL_OFFSET_INVALID);
	c = host_rw(NVME_IO_READ, 0, data, 4096, WIRE_AWAY);
	c.sgl_is_set = true;
	c.cmd.sgl = (struct nvme_sgl){ .len = 4096, .type = 0xf0 };
	ck_assert_uint_eq(wire_run(host.io, &c), NVME_SC_SGL_TYPE_INVALID);
	c = host_rw(NVME_IO_READ, 0, data, 4096, WIRE_AWAY);
	c.prp = true;
	ck_assert_uint_eq(wire_run(host.io, &c), NVME_SC_INVALID_FIELD);
	host_write(host.io, 8, data, 4096, WIRE_CAPSULE);
	host_expect(host.io, 8, data, 4096);
	host_down(&host);
}

SCENARIO(compare_tells_what_differs)
{
	struct wire_cmd c = host_rw(NVME_IO_COMPARE, 16, data, 8192, WIRE_AWAY);
	struct host host;

	host_up(&host, 0);
	host_write(host.io, 16, data, 8192, WIRE_AWAY);
	ck_assert_uint_eq(wire_run(host.io, &c), OK);
	c.buf = data + 1;
	ck_assert_uint_eq(wire_run(host.io, &c), NVME_SC_COMPARE_FAILURE);
	host_down(&host);
}

SCENARIO(a_full_queue_is_served_and_its_head_is_told)
{
	struct wire_cmd cmds[DEPTH - 1];
	struct host host;
	uint16_t first_sqhd = 0;

	host_up(&host, 0);
	for (unsigned round = 0; round < 4; round++) {
		uint32_t heads = 0;

		for (unsigned i = 0; i < DEPTH - 1; i++) {
			bool in_capsule = i % 3 == 0;

			cmds[i] = host_rw(NVME_IO_WRITE, 256 * i, data + i, in_capsule ? 4096 : 65536, in_capsule ? WIRE_CAPSULE : WIRE_AWAY);
			wire_send(host.io, &cmds[i]);
		}
		for (unsigned i = 0; i < DEPTH - 1; i++) {
			ck_assert_uint_eq(wire_wait(host.io, &cmds[i]), OK);
			ck_assert_uint_lt(cmds[i].cqe.sqhd, DEPTH);
			heads |= 1u << cmds[i].cqe.sqhd;
		}
		ck_assert_uint_ne(heads, 1u << first_sqhd);
		for (unsigned i = 0; i < DEPTH - 1; i++)
			host_expect(host.io, 256 * i, data + i, cmds[i].len);
	}
	host_down(&host);
}

/* Base 2.0, 5.2 and 5.1: requests for events are held, some, and Abort takes one back. */
SCENARIO(event_requests_are_held_and_abort_takes_them_back)
{
	struct wire_cmd aer[2] = { { .cmd = { .opcode = NVME_ADMIN_AER } }, { .cmd = { .opcode = NVME_ADMIN_AER } } };
	struct wire_cmd abort = { .cmd = { .opcode = NVME_ADMIN_ABORT } };
	struct wire_cmd events = { .cmd = { .opcode = NVME_ADMIN_SET_FEATURES, .cdw10 = NVME_FID_ASYNC_EVENT } };
	const struct nvmf_ns_opts ns_opts = { .bdev_name = "second" };
	struct bdev *bdev;
	uuid_t none = { 0 };
	struct host host;
	uint32_t nsid;

	host_up(&host, 0);
	events.cmd.cdw11 = NVME_AEC_NS_ATTR;
	ck_assert_uint_eq(wire_run(host.admin, &events), OK);
	wire_send(host.admin, &aer[0]);
	wire_send(host.admin, &aer[1]);
	abort.cmd.abort.sqid = 0;
	abort.cmd.abort.cid = aer[0].cmd.cid;
	ck_assert_uint_eq(wire_run(host.admin, &abort), OK);
	ck_assert_uint_eq(abort.cqe.dw0 & 1, 0);
	ck_assert_uint_eq(wire_wait(host.admin, &aer[0]), NVME_SC_ABORT_REQUESTED);
	ck_assert(!aer[1].done);
	/* The other one is answered when there is something to tell. */
	ck_assert_int_eq(bdev_malloc_create("second", none, 1024, 512, &bdev), 0);
	ck_assert_int_eq(nvmf_subsystem_add_ns(nvmf_subsystem_find(target, SUBNQN), &ns_opts, &nsid), 0);
	ck_assert_uint_eq(wire_wait(host.admin, &aer[1]), OK);
	ck_assert_uint_eq(aer[1].cqe.dw0 & 7, 2); /* notice */
	host_down(&host);
}

/* --- queues and their ends --------------------------------------------------------------------------------------------------------------- */

SCENARIO(an_io_queue_belongs_to_its_controller_and_its_number_is_taken_once)
{
	struct nvme_cqe cqe;
	struct wire *wire;
	struct host host;

	host_up(&host, 0);
	wire = host_open_queue(1);
	ck_assert_uint_eq(host_connect(wire, &(struct host_connect){ .qid = 1, .cntlid = host.cntlid }, NULL), NVME_SC_CMD_SEQUENCE_ERROR);
	wire_close(wire, true);
	wire = host_open_queue(2);
	ck_assert_uint_eq(host_connect(wire, &(struct host_connect){ .qid = 2, .cntlid = 4711 }, &cqe), NVME_SC_CONNECT_INVALID_PARAMETERS);
	ck_assert_uint_eq(cqe.connect_invalid.iattr, 1);
	ck_assert_uint_eq(cqe.connect_invalid.ipo, 16);
	ck_assert_uint_eq(host_connect(wire, &(struct host_connect){ .qid = 2, .cntlid = host.cntlid, .host_id = 0x22 }, NULL),
			  NVME_SC_CONNECT_INVALID_PARAMETERS);
	ck_assert_uint_eq(host_connect(wire, &(struct host_connect){ .qid = 2, .cntlid = host.cntlid }, NULL), OK);
	host_write(wire, 0, data, 4096, WIRE_AWAY);
	host_expect(host.io, 0, data, 4096);
	wire_close(wire, true);
	host_down(&host);
}

SCENARIO(disconnect_ends_a_queue_whose_number_is_free_again)
{
	struct wire_cmd c = { 0 };
	struct host host;

	host_up(&host, 0);
	for (unsigned i = 0; i < 3; i++) {
		c.cmd.disconnect.opcode = NVME_OPC_FABRICS;
		c.cmd.disconnect.fctype = NVME_FCTYPE_DISCONNECT;
		ck_assert_uint_eq(wire_run(host.io, &c), OK);
		wire_wait_end(host.io);
		wire_close(host.io, true);
		fiber_sleep(3000000);
		host.io = host_io_queue(&host, 1);
		host_write(host.io, 8 * i, data, 4096, WIRE_CAPSULE);
	}
	ck_assert_uint_eq(wire_run(host.admin, &c), NVME_SC_DISCONNECT_INVALID_QUEUE_TYPE);
	host_down(&host);
}

SCENARIO(the_end_of_the_admin_queue_ends_the_others)
{
	struct host host;

	for (unsigned i = 0; i < 2; i++) {
		host_up(&host, 0);
		wire_close(host.admin, i % 2);
		wire_wait_end(host.io);
		wire_close(host.io, true);
	}
}

SCENARIO(a_host_that_falls_silent_is_let_go)
{
	struct host host;
	uint64_t before_us;

	host_up(&host, 10000);
	before_us = clock_now_us();
	wire_wait_end(host.io);
	wire_wait_end(host.admin);
	ck_assert_uint_ge(clock_now_us() - before_us, 9 * 1000 * 1000);
	ck_assert_uint_le(clock_now_us() - before_us, 40 * 1000 * 1000);
	host_down(&host);
}

SCENARIO(a_host_that_breaks_the_transports_rules_loses_its_connection_alone)
{
	struct host host, other;

	host_up(&other, 0);
	host_up(&host, 0);
	wire_offend(host.io);
	wire_wait_end(host.io);
	host_write(other.io, 0, data, 131072, WIRE_AWAY);
	host_expect(other.io, 0, data, 131072);
	host_down(&host);
	host_down(&other);
}

SCENARIO(hosts_that_go_under_load_leave_room_for_the_next)
{
	struct wire_cmd cmds[DEPTH - 1];
	struct host host;

	for (unsigned round = 0; round < 6; round++) {
		host_up(&host, 0);
		for (unsigned i = 0; i < DEPTH - 1; i++) {
			cmds[i] = host_rw(i % 2 ? NVME_IO_READ : NVME_IO_WRITE, 256 * i, host_back, 65536, WIRE_AWAY);
			wire_send(host.io, &cmds[i]);
		}
		fiber_sleep(round * round * 40);
		wire_close(host.io, round % 2);
		wire_close(host.admin, round % 2);
	}
	host_up(&host, 0);
	host_write(host.io, 0, data, 65536, WIRE_AWAY);
	host_expect(host.io, 0, data, 65536);
	host_down(&host);
}

/* The pool holds less than its queue asks for. */
SCENARIO_WITH(a_host_that_takes_no_answers_is_let_go_and_others_get_the_buffers, .nr_small = 16, .nr_large = 16)
{
	struct wire_cmd cmds[DEPTH - 1], read;
	struct host host, other;
	uint64_t before_us;

	host_up(&other, 0);
	host_up(&host, 0);
	host_write(other.io, 0, data, 65536, WIRE_AWAY);
	wire_stop_taking(host.io);
	for (unsigned i = 0; i < DEPTH - 1; i++) {
		cmds[i] = host_rw(NVME_IO_READ, 256 * i, host_back, 131072, WIRE_AWAY);
		wire_send(host.io, &cmds[i]);
	}
	fiber_sleep(100000);
	before_us = clock_now_us();
	for (unsigned i = 0; i < 8; i++) {
		read = host_rw(NVME_IO_READ, 0, host_back, 65536, WIRE_AWAY);
		ck_assert_uint_eq(wire_run(other.io, &read), OK);
		ck_assert_int_eq(memcmp(host_back, data, 65536), 0);
	}
	ck_assert_uint_le(clock_now_us() - before_us, 10 * 1000 * 1000);
	fiber_sleep(40 * 1000 * 1000);
	wire_wait_end(host.io);
	host_down(&host);
	host_down(&other);
}

/* --- the table ----------------------------------------------------------------------------------------------------------------------------- */

int main(void)
{
	const TTest *const scenarios[] = {
		each_admin_command_gets_its_verdict,
		each_io_command_gets_its_verdict,
		each_bad_connect_is_told_what_was_wrong_and_a_good_one_may_follow,
		nothing_but_connect_is_answered_before_connect,
		a_connection_without_a_connect_is_closed,
		properties_bring_a_controller_up_and_down,
		identify_says_what_this_transport_takes,
		discovery_names_the_listener,
		data_of_every_size_comes_through_either_way,
		more_data_than_a_capsule_holds_costs_the_command_and_not_the_connection,
		compare_tells_what_differs,
		a_full_queue_is_served_and_its_head_is_told,
		event_requests_are_held_and_abort_takes_them_back,
		an_io_queue_belongs_to_its_controller_and_its_number_is_taken_once,
		disconnect_ends_a_queue_whose_number_is_free_again,
		the_end_of_the_admin_queue_ends_the_others,
		a_host_that_falls_silent_is_let_go,
		a_host_that_breaks_the_transports_rules_loses_its_connection_alone,
		hosts_that_go_under_load_leave_room_for_the_next,
		a_host_that_takes_no_answers_is_let_go_and_others_get_the_buffers,
	};
	Suite *suite = suite_create(wire_transport->name);
	TCase *tcase = tcase_create("conformance");
	SRunner *runner;
	int nr_failed;

	log_set_level(LOG_ERROR);
	tcase_set_timeout(tcase, 120);
	for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++)
		tcase_add_loop_test(tcase, scenarios[i], 0, SEEDS);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	nr_failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return nr_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
