/*
 * A fuzzer's bytes as the doings of hosts and of management: connections that come and go, commands of any
 * content, data that is held back, namespaces that vanish.  Whatever they say, every command is answered or
 * its connection is gone, nothing is sent that a host may not see, and the target can be ended.
 *
 * With --enable-fuzz it is a libFuzzer target; otherwise main() makes inputs from seeds, for make check.
 */
#include <stdio.h>
#include <stdlib.h>

#define NVMF_FUZZ
#define ck_assert(cond)                                                            \
	do {                                                                       \
		if (!(cond)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond); \
			abort();                                                   \
		}                                                                  \
	} while (0)
#define ck_assert_msg(cond, ...) ck_assert(cond)
#define ck_assert_int_eq(a, b)	 ck_assert((a) == (b))
#define ck_assert_uint_eq(a, b)	 ck_assert((a) == (b))
#define ck_assert_uint_le(a, b)	 ck_assert((a) <= (b))
#define ck_assert_uint_lt(a, b)	 ck_assert((a) < (b))
#define ck_assert_ptr_eq(a, b)	 ck_assert((a) == (b))

#include "nvmf/fake_transport_test.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#define NR_CONNS 6
#define NR_CMDS	 48
#define MINE	 0x5a /* what is written to namespace 1 */
#define FOREIGN	 0xc3 /* what is written elsewhere, and so lies about in buffers */

struct fuzz_cmd {
	struct fake_cmd cmd;
	bool used;
	unsigned conn;
};

/* One input's run.  Owner: the app thread's fiber. */
static struct {
	const uint8_t *bytes;
	size_t left;
	struct stage *stage;
	struct gate *gate;
	struct fake_conn *conns[NR_CONNS];
	uint16_t cntlids[NR_CONNS];
	struct fuzz_cmd cmds[NR_CMDS];
	unsigned nr_cmds;
	bool any_host_taken;
} run;

static uint8_t next8(void)
{
	if (!run.left)
		return 0;
	run.left--;
	return *run.bytes++;
}

static uint32_t next32(void)
{
	uint32_t value = 0;

	for (unsigned i = 0; i < 4; i++)
		value = value << 8 | next8();
	return value;
}

/* A number near where things go wrong. */
static uint64_t next_number(void)
{
	static const uint64_t interesting[] = { 0,	    1,	       2,	  7,	      8,
						255,	    256,       2047,	  2048,	      4095,
						4096,	    8191,      8192,	  32767,      32768,
						65535,	    1u << 20,  INT32_MAX, UINT32_MAX, 1ull << 32,
						1ull << 63, UINT64_MAX };
	uint8_t kind = next8();

	if (kind < 200)
		return interesting[kind % (sizeof(interesting) / sizeof(interesting[0]))] +
		       (kind >= 100 ? kind % 3 - 1 : 0);
	return (uint64_t)next32() << 32 | next32();
}

static uint32_t next_nsid(void)
{
	uint8_t kind = next8();

	return kind < 120 ? 1 : kind < 200 ? 2 : (uint32_t)next_number();
}

/* --- what came back ------------------------------------------------------------------------ */

static void check_read(const struct fake_cmd *cmd)
{
	const uint8_t *data = cmd->data;

	ck_assert(cmd->received % 512 == 0 && cmd->received / 512 == cmd->cmd.rw.nlb + 1u);
	for (uint32_t i = 0; i < cmd->received && cmd->cmd.nsid == 1; i++)
		ck_assert(data[i] == 0 || data[i] == MINE);
}

static void check_answer(const struct fuzz_cmd *fuzz)
{
	const struct fake_cmd *cmd = &fuzz->cmd;
	const struct fake_conn *conn = run.conns[fuzz->conn];
	const uint8_t *data = cmd->data;

	if (cmd->status == FAKE_LOST || nvme_status_code(cmd->status)) {
		ck_assert(cmd->received == 0);
		return;
	}
	if (conn && conn->qpair.connected && conn->qpair.qid && cmd->cmd.opcode == NVME_IO_READ)
		check_read(cmd);
	/* Nothing but namespaces holds the foreign byte in any length. */
	if (cmd->cmd.opcode == NVME_ADMIN_IDENTIFY && cmd->received == 4096) {
		unsigned nr = 0;

		for (uint32_t i = 0; i < 4096; i++)
			nr += data[i] == FOREIGN;
		ck_assert(nr < 64);
	}
}

static void cmd_free(struct fuzz_cmd *fuzz)
{
	check_answer(fuzz);
	free(fuzz->cmd.data);
	memset(fuzz, 0, sizeof(*fuzz));
}

static struct fuzz_cmd *cmd_new(unsigned conn, uint32_t len)
{
	for (unsigned i = 0; i < NR_CMDS; i++) {
		struct fuzz_cmd *fuzz = &run.cmds[i];

		if (fuzz->used && fuzz->cmd.done)
			cmd_free(fuzz);
		if (fuzz->used)
			continue;
		fuzz->used = true;
		fuzz->conn = conn;
		fuzz->cmd.len = len;
		fuzz->cmd.data = malloc(len ? len : 1);
		return fuzz;
	}
	return NULL;
}

/* --- commands ------------------------------------------------------------------------------ */

/* Lengths that fit the command, most of the time. */
static uint32_t fitting_len(const union nvme_cmd *cmd, bool io)
{
	if (cmd->opcode == NVME_OPC_FABRICS)
		return cmd->fabrics.fctype == NVME_FCTYPE_CONNECT ? 1024 : 0;
	if (io) {
		if (cmd->opcode == NVME_IO_DSM)
			return (cmd->dsm.nr + 1u) * 16;
		if (cmd->opcode == NVME_IO_COPY)
			return (cmd->copy.nr + 1u) * 32;
		return cmd->opcode == NVME_IO_READ || cmd->opcode == NVME_IO_WRITE ||
				       cmd->opcode == NVME_IO_COMPARE ?
			       (cmd->rw.nlb + 1u) * 512 :
			       0;
	}
	switch (cmd->opcode) {
	case NVME_ADMIN_IDENTIFY:
		return 4096;
	case NVME_ADMIN_GET_LOG_PAGE:
		return (uint32_t)nvme_get_log_len_bytes(cmd);
	case NVME_ADMIN_GET_FEATURES:
	case NVME_ADMIN_SET_FEATURES:
		return (cmd->cdw10 & 0xff) == NVME_FID_HOST_BEHAVIOR ? 512 :
		       (cmd->cdw10 & 0xff) == NVME_FID_HOST_ID	     ? 16 :
								       0;
	}
	return 0;
}

static uint8_t next_opcode(bool io)
{
	static const uint8_t io_opcodes[] = { 0x00, 0x01, 0x02, 0x05, 0x08, 0x09, 0x0c, 0x01, 0x02 };
	static const uint8_t admin_opcodes[] = { 0x02, 0x06, 0x08, 0x09, 0x0a, 0x0c, 0x18, 0x7f };
	uint8_t kind = next8();

	if (kind >= 240)
		return next8();
	return io ? io_opcodes[kind % sizeof(io_opcodes)] : admin_opcodes[kind % sizeof(admin_opcodes)];
}

static void fill_command(union nvme_cmd *cmd, bool io)
{
	uint8_t shape = next8();

	cmd->opcode = next_opcode(io);
	cmd->nsid = next_nsid();
	if (cmd->opcode == NVME_OPC_FABRICS) {
		static const uint8_t fctypes[] = { 0, 4, 8, 1, 5, 6 };

		cmd->nsid = 0;
		cmd->fabrics.fctype = fctypes[shape % sizeof(fctypes)];
	}
	cmd->cdw10 = shape & 1 ? next8() | (uint32_t)next8() << 8 : (uint32_t)next_number();
	cmd->cdw11 = shape & 2 ? 0 : (uint32_t)next_number();
	cmd->cdw12 = shape & 4 ? next8() : (uint32_t)next_number();
	cmd->cdw13 = shape & 8 ? 0 : (uint32_t)next_number();
	cmd->cdw14 = shape & 16 ? 0 : (uint32_t)next_number();
	if (io && shape & 0x60) {
		cmd->rw.slba = next_number() % 32768;
		cmd->rw.nlb = next8() % 32;
		cmd->rw.control &= 0xc200;
	}
}

static void do_command(unsigned slot)
{
	struct fake_conn *conn = run.conns[slot];
	bool io = conn->qpair.qid != 0;
	union nvme_cmd cmd = { 0 };
	struct fuzz_cmd *fuzz;
	uint8_t how = next8();
	uint32_t len;

	fill_command(&cmd, io);
	len = how & 1 && how & 2 ? (uint32_t)next_number() : fitting_len(&cmd, io);
	cmd.sgl.type = how & 4 ? NVME_SGL_IN_CAPSULE : how >= 250 ? next8() : NVME_SGL_TRANSPORT;
	cmd.sgl.len = len;
	if (cmd.sgl.type == NVME_SGL_IN_CAPSULE && len > 8192)
		cmd.sgl.len = len = 8192;
	/* No host has more memory than that for one command; nor may more be asked of it. */
	fuzz = cmd_new(slot, len > NVMF_MAX_XFER + 4096 ? NVMF_MAX_XFER + 4096 : len);
	if (!fuzz)
		return;
	memset(fuzz->cmd.data, cmd.nsid == 1 ? MINE : FOREIGN, fuzz->cmd.len ? fuzz->cmd.len : 1);
	if (io && cmd.opcode == NVME_IO_DSM) {
		struct nvme_dsm_range *ranges = fuzz->cmd.data;

		for (uint32_t i = 0; i < fuzz->cmd.len / 16; i++)
			ranges[i] = (struct nvme_dsm_range){ .nlb = (uint32_t)next_number(),
							     .slba = next_number() };
	}
	if (io && cmd.opcode == NVME_IO_COPY) {
		struct nvme_copy_range *ranges = fuzz->cmd.data;

		for (uint32_t i = 0; i < fuzz->cmd.len / 32; i++)
			ranges[i] = (struct nvme_copy_range){ .nlb = (uint16_t)next_number(), .slba = next_number() };
	}
	fuzz->cmd.cmd = cmd;
	fuzz->cmd.in_capsule = cmd.sgl.type == NVME_SGL_IN_CAPSULE;
	fuzz->cmd.split = how & 8 ? 100 : 0;
	fuzz->cmd.hold_data = how & 16 && how & 32;
	fuzz->cmd.fail_data = how & 64 && how & 32;
	if (io && how & 128)
		fuzz->cmd.cmd.flags = next8() & NVME_CMD_FUSE_MASK;
	fake_submit(conn, &fuzz->cmd);
}

/* Compare and Write as they should be, or nearly. */
static void do_fused(unsigned slot)
{
	uint8_t how = next8();
	uint64_t slba = next8();

	for (unsigned half = 0; half < 2; half++) {
		struct fuzz_cmd *fuzz = cmd_new(slot, 512);

		if (!fuzz)
			return;
		memset(fuzz->cmd.data, how & 1 ? 0 : MINE, 512);
		fuzz->cmd.cmd.opcode = half ? NVME_IO_WRITE : NVME_IO_COMPARE;
		fuzz->cmd.cmd.nsid = 1;
		fuzz->cmd.cmd.flags = half ? NVME_CMD_FUSE_SECOND : NVME_CMD_FUSE_FIRST;
		fuzz->cmd.cmd.rw.slba = slba + (how & 2 && half);
		fuzz->cmd.in_capsule = how & 4;
		fuzz->cmd.hold_data = half ? how & 8 : how & 16;
		fuzz->cmd.fail_data = half ? how & 32 : how & 64;
		fake_submit(run.conns[slot], &fuzz->cmd);
	}
}

static void do_abort(unsigned slot)
{
	const struct fuzz_cmd *victim = &run.cmds[next8() % NR_CMDS];
	struct fuzz_cmd *fuzz = cmd_new(slot, 0);

	if (!fuzz)
		return;
	fuzz->cmd.cmd.opcode = NVME_ADMIN_ABORT;
	if (victim->used && run.conns[victim->conn]) {
		fuzz->cmd.cmd.abort.sqid = run.conns[victim->conn]->qpair.qid;
		fuzz->cmd.cmd.abort.cid = victim->cmd.cmd.cid;
	}
	fake_submit(run.conns[slot], &fuzz->cmd);
}

static void do_connect(unsigned slot)
{
	uint8_t how = next8();
	struct fake_connect connect = { .sqsize = how & 1 ? (uint16_t)next_number() : 63,
					.kato_ms = how & 2 ? (uint32_t)next_number() : 0,
					.cattr = how & 4 ? next8() : 0,
					.host_id = how & 8 ? next8() : 0 };
	struct fuzz_cmd *fuzz = cmd_new(slot, 1024);
	struct nvme_connect_data *data;

	if (!fuzz)
		return;
	if (how & 16) {
		connect.qid = how & 32 ? (uint16_t)next_number() : next8() % 4 + 1;
		connect.cntlid = how & 64 ? (uint16_t)next_number() : run.cntlids[next8() % NR_CONNS];
	}
	if (how >= 224)
		connect.subnqn = NVMF_DISCOVERY_NQN;
	data = fuzz->cmd.data;
	fake_connect_fill(&fuzz->cmd, data, &connect);
	if ((how & 0x81) == 0x81)
		memset((char *)data + next32() % 900, next8(), 100);
	fake_submit(run.conns[slot], &fuzz->cmd);
	fiber_sleep(next8());
	if (fuzz->cmd.done && !nvme_status_code(fuzz->cmd.status) && !connect.qid)
		run.cntlids[slot] = fuzz->cmd.cqe.connect.cntlid;
}

/* That of a controller, if there is one. */
static uint16_t some_cntlid(unsigned from)
{
	for (unsigned i = 0; i < NR_CONNS; i++) {
		const struct fake_conn *conn = run.conns[(from + i) % NR_CONNS];

		if (conn && !conn->gone && conn->qpair.connected && !conn->qpair.qid &&
		    run.cntlids[(from + i) % NR_CONNS])
			return run.cntlids[(from + i) % NR_CONNS];
	}
	return 0;
}

/* A controller or an I/O queue without any nonsense, so that the rest has something to talk to. */
static void do_host(unsigned slot)
{
	struct fake_connect connect = { .sqsize = 63 };
	uint8_t how = next8();

	if (how & 3) {
		connect.qid = how / 4 % 4 + 1;
		connect.cntlid = some_cntlid(how / 16);
	}
	if (fake_connect(run.conns[slot], &connect, &connect.cntlid) || connect.qid)
		return;
	run.cntlids[slot] = connect.cntlid;
	fake_property_set(run.conns[slot], NVME_PROP_CC, FAKE_CC_ENABLE);
}

/* --- management ---------------------------------------------------------------------------- */

static void do_manage(void)
{
	struct nvmf_ns_opts opts = { .bdev_name = "gate", .nsid = 2 };

	switch (next8() % 10) {
	case 0:
		nvmf_subsystem_remove_ns(run.stage->sub, 2);
		break;
	case 1:
		nvmf_subsystem_add_ns(run.stage->sub, &opts, NULL);
		break;
	case 2:
		nvmf_subsystem_allow_any_host(run.stage->sub, false);
		break;
	case 3:
		nvmf_subsystem_allow_any_host(run.stage->sub, true);
		break;
	case 4:
		nvmf_subsystem_add_host(run.stage->sub, HOSTNQN);
		break;
	case 5:
		nvmf_subsystem_remove_host(run.stage->sub, HOSTNQN);
		break;
	case 6:
		bdev_notify_resize(&run.gate->bdev, next8() % 2 ? GATE_BLOCKS : GATE_BLOCKS / 2);
		break;
	case 7:
		run.gate->fail = next8() % 2 ? -EIO : 0;
		break;
	case 8:
		run.gate->bdev.read_only = next8() % 2;
		break;
	case 9: {
		struct nvmf_qpair_info *infos;
		unsigned nr;

		if (!nvmf_subsystem_get_qpairs(run.stage->sub, &infos, &nr))
			free(infos);
		break;
	}
	}
}

/* --- the run ------------------------------------------------------------------------------- */

static void step(void)
{
	uint8_t what = next8();
	unsigned slot = next8() % NR_CONNS;

	if (!run.conns[slot] || run.conns[slot]->gone) {
		run.conns[slot] = fake_open(run.stage->target, 4420);
		return;
	}
	switch (what % 16) {
	case 0:
		do_connect(slot);
		break;
	case 1:
	case 2:
		do_host(slot);
		break;
	case 3:
		fake_drop(run.conns[slot]);
		break;
	case 4:
		do_manage();
		break;
	case 5:
		do_fused(slot);
		break;
	case 6:
		do_abort(slot);
		break;
	case 7:
		fiber_sleep(next8() * (uint64_t)next8());
		break;
	case 8: {
		struct fuzz_cmd *fuzz = &run.cmds[next8() % NR_CMDS];

		if (fuzz->used && !fuzz->cmd.done && fuzz->cmd.hold_data)
			fake_send_data(&fuzz->cmd);
		break;
	}
	default:
		/* Most connections are good for something. */
		if (!run.conns[slot]->qpair.connected && what & 0x30)
			do_host(slot);
		else
			do_command(slot);
	}
}

/* Whatever is still to come is sent; then all but event requests must be answered. */
static void finish(void)
{
	for (unsigned pass = 0; pass < 40; pass++) {
		for (unsigned i = 0; i < NR_CMDS; i++) {
			if (run.cmds[i].used && !run.cmds[i].cmd.done)
				fake_send_data(&run.cmds[i].cmd);
		}
		fiber_sleep(100000);
	}
	for (unsigned i = 0; i < NR_CMDS; i++) {
		const struct fake_cmd *cmd = &run.cmds[i].cmd;
		bool is_half = cmd->cmd.flags & NVME_CMD_FUSE_FIRST;

		/* A first half waits for what is to come after it, and nothing will. */
		ck_assert(!run.cmds[i].used || cmd->done || cmd->cmd.opcode == NVME_ADMIN_AER || is_half);
	}
	for (unsigned i = 0; i < NR_CONNS; i++)
		fake_drop(run.conns[i]);
	for (unsigned i = 0; i < NR_CMDS; i++) {
		if (!run.cmds[i].used)
			continue;
		fake_wait(&run.cmds[i].cmd);
		cmd_free(&run.cmds[i]);
	}
}

fiber_fn static void body(struct stage *stage)
{
	struct nvmf_ns_opts opts = { .bdev_name = "gate", .nsid = 2 };

	run.stage = stage;
	run.gate = gate_create("gate", true);
	memset(run.gate->data, FOREIGN, GATE_BLOCKS * 512);
	ck_assert(nvmf_subsystem_add_ns(stage->sub, &opts, NULL) == 0);
	while (run.left)
		step();
	finish();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct sim_opts opts = { .nr_reactors = 2, .nr_small = 32, .nr_large = 24 };

	if (size < 8)
		return 0;
	log_set_level(LOG_ERROR);
	memset(&run, 0, sizeof(run));
	memcpy(&opts.seed, bytes, sizeof(opts.seed));
	run.bytes = bytes + 8;
	run.left = size - 8;
	stage_body = body;
	ck_assert(sim_run(&opts, stage_main, NULL) == 0);
	return 0;
}

#ifdef NVMF_FUZZ_REPLAY
static uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15ull;
	return x ^ x >> 29;
}

/* Inputs from seeds: FIRST and COUNT as arguments, or a file to replay. */
int main(int argc, char **argv)
{
	static uint8_t bytes[4096];
	unsigned first = argc > 2 ? (unsigned)atoi(argv[1]) : 1,
		 nr = argc > 2 ? (unsigned)atoi(argv[2]) : 150;

	if (argc == 2) {
		FILE *file = fopen(argv[1], "rb");
		size_t len = file ? fread(bytes, 1, sizeof(bytes), file) : 0;

		if (file)
			fclose(file);
		return LLVMFuzzerTestOneInput(bytes, len);
	}
	for (unsigned seed = first; seed < first + nr; seed++) {
		uint64_t x = mix(seed + 1);

		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (uint8_t)((x = mix(x + i)) >> 24);
		/* A conversation begins as it should: a controller with two I/O queues. */
		memcpy(bytes + 8, "\0\0\1\0\0\0\1\1\1\1\1\0\2\1\2\1", 16);
		if (getenv("FUZZ_VERBOSE"))
			fprintf(stderr, "seed %u\n", seed);
		LLVMFuzzerTestOneInput(bytes, 512 + seed * 37 % (sizeof(bytes) - 512));
	}
	return 0;
}
#endif
