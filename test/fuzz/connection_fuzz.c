/*
 * A fuzz target for whole connections: an input is a script of what a few hosts do (script.h), the real nvmf on a malloc bdev
 * stands behind the TCP transport, and all that the target answers is checked.  After each script a well-behaved host must be
 * served as ever, and the target must end.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/crc32c.h"
#include "nvmf/nvmf.h"
#include "runtime/sim.h"
#include "test/fuzz/script.h"
#include "transport/tcp/raw_host.h"
#include "transport/tcp/tcp.h"

#define NQN	  "nqn.2025-01.invalid.ferrule:fuzz"
#define MAX_CONNS 4u
#define MAX_R2TS  8u
#define RX_SIZE	  (2u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define check(cond, ...) \
	do { \
		if (!(cond)) { \
			fprintf(stderr, __VA_ARGS__); \
			fprintf(stderr, ": %s\n", #cond); \
			abort(); \
		} \
	} while (0)

struct conn {
	struct raw_host host; /* stream, digests */
	bool ic_sent, established, ended, termed;
	uint16_t cntlid;
	uint8_t outstanding[1 << 16]; /* commands sent, by CID; saturating */
	struct nvme_tcp_r2t r2ts[MAX_R2TS];
	unsigned nr_r2ts;
};

static struct conn conns[MAX_CONNS];
static unsigned nr_conns, using;
static uint16_t last_cntlid;
static const uint8_t *input;
static size_t input_left;
static uint8_t spoil_mask;
static unsigned spoil_at;
static bool slow; /* the network takes its time */
static uint8_t out[64 * 1024], zeroes[16 * 1024];

static uint8_t next(void)
{
	if (!input_left)
		return 0;
	input_left--;
	return *input++;
}

/* --- answers ------------------------------------------------------------------------------------------------------------------------ */

static void answered(struct conn *c, uint16_t cid)
{
	check(c->outstanding[cid], "CID %u was not asked for", cid);
	if (c->outstanding[cid] < 255)
		c->outstanding[cid]--;
}

static void check_hdgst(const struct conn *c, const struct nvme_tcp_hdr *hdr)
{
	uint32_t crc;

	check(!!(hdr->flags & NVME_TCP_FLAG_HDGST) == c->host.hdgst, "type %u", hdr->type);
	if (!c->host.hdgst)
		return;
	memcpy(&crc, (const uint8_t *)hdr + hdr->hlen, 4);
	check(crc == crc32c(hdr, hdr->hlen), "header digest of type %u", hdr->type);
}

static void check_c2h_data(struct conn *c, const struct nvme_tcp_data *pdu)
{
	const uint8_t *data = (const uint8_t *)pdu + pdu->hdr.pdo;
	uint32_t crc;

	check_hdgst(c, &pdu->hdr);
	check(c->outstanding[pdu->cccid], "data for CID %u", pdu->cccid);
	check(pdu->hdr.flags & NVME_TCP_FLAG_LAST, "C2HData");
	check(pdu->datal > 0 && pdu->datal <= 1u << 20, "DATAL %u", pdu->datal);
	check(pdu->hdr.pdo >= 24 + (c->host.hdgst ? 4 : 0) && pdu->hdr.pdo % ((c->host.hpda + 1u) * 4) == 0, "PDO %u",
	      pdu->hdr.pdo);
	check(pdu->hdr.plen == pdu->hdr.pdo + pdu->datal + (c->host.ddgst ? 4 : 0), "PLEN %u", pdu->hdr.plen);
	if (c->host.ddgst) {
		memcpy(&crc, data + pdu->datal, 4);
		check(crc == crc32c(data, pdu->datal), "data digest");
	}
	if (pdu->hdr.flags & NVME_TCP_FLAG_SUCCESS)
		answered(c, pdu->cccid);
}

static void check_resp(struct conn *c, const struct nvme_tcp_capsule_resp *resp)
{
	check_hdgst(c, &resp->hdr);
	check(resp->hdr.plen == (c->host.hdgst ? 28 : 24), "PLEN %u", resp->hdr.plen);
	check(!(resp->cqe.status_field & 1), "the phase bit");
	answered(c, resp->cqe.cid);
	if (nvme_cqe_status(&resp->cqe) == 0 && resp->cqe.cid == 0xc0)
		last_cntlid = resp->cqe.connect.cntlid;
}

static void check_r2t(struct conn *c, const struct nvme_tcp_r2t *r2t)
{
	check_hdgst(c, &r2t->hdr);
	check(c->outstanding[r2t->cccid], "R2T for CID %u", r2t->cccid);
	check(r2t->r2to == 0 && r2t->r2tl > 0 && r2t->r2tl <= 1u << 20, "R2TL %u", r2t->r2tl);
	if (c->nr_r2ts < MAX_R2TS)
		c->r2ts[c->nr_r2ts++] = *r2t;
}

static void check_pdu(struct conn *c, const struct nvme_tcp_hdr *hdr)
{
	const struct nvme_tcp_term_req *term = (const void *)hdr;

	check(!c->termed, "type %u after C2HTermReq", hdr->type);
	check(hdr->hlen == nvme_tcp_hlen(hdr->type), "HLEN %u of type %u", hdr->hlen, hdr->type);
	switch (hdr->type) {
	case NVME_TCP_IC_RESP:
		check(c->ic_sent && !c->established && hdr->plen == 128, "ICResp");
		c->established = true;
		break;
	case NVME_TCP_C2H_TERM_REQ:
		check(hdr->plen <= 152, "PLEN %u", hdr->plen);
		check(term->fes >= 1 && term->fes <= 6, "FES %u", term->fes);
		c->termed = true;
		break;
	case NVME_TCP_CAPSULE_RESP:
		check_resp(c, (const void *)hdr);
		break;
	case NVME_TCP_C2H_DATA:
		check_c2h_data(c, (const void *)hdr);
		break;
	case NVME_TCP_R2T:
		check_r2t(c, (const void *)hdr);
		break;
	default:
		check(false, "type %u", hdr->type);
	}
}

/* Nobody reads it any more: the simulation must not turn for that. */
static void end(struct conn *c)
{
	c->ended = true;
	stream_pause(c->host.stream, true);
}

static void receive(struct conn *c)
{
	struct raw_host *host = &c->host;

	while (host->stream && !c->ended) {
		const struct nvme_tcp_hdr *hdr = (const struct nvme_tcp_hdr *)host->rx;
		size_t want = host->rx_len < sizeof(*hdr) ? sizeof(*hdr) : hdr->plen;
		ssize_t n;

		check(want >= sizeof(*hdr) && want <= RX_SIZE, "PLEN %zu", want);
		if (host->rx_len == want) {
			check_pdu(c, hdr);
			host->rx_len = 0;
			continue;
		}
		n = stream_recv(host->stream, host->rx + host->rx_len, want - host->rx_len);
		if (n == -EAGAIN)
			return;
		if (n > 0) {
			host->rx_len += n;
			continue;
		}
		end(c);
	}
}

static void ready(void *arg, unsigned events)
{
	struct conn *c = arg;

	if (events & STREAM_READABLE)
		receive(c);
	if (events & STREAM_WRITABLE)
		c->host.writable = true;
	fiber_cond_broadcast(&c->host.cond);
}

/* --- what hosts do -------------------------------------------------------------------------------------------------------------------- */

static fiber_fn void send_pdu(struct conn *c, uint8_t *buf, size_t len)
{
	if (spoil_mask && len)
		buf[spoil_at % len] ^= spoil_mask;
	spoil_mask = 0;
	while (len && c->host.stream && !c->ended) {
		const struct iovec iov = { buf, len };
		ssize_t n = stream_sendv(c->host.stream, &iov, 1);

		if (n > 0) {
			buf += n;
			len -= n;
		} else if (n == -EAGAIN) {
			c->host.writable = false;
			stream_want_write(c->host.stream);
			while (!c->host.writable && !c->ended)
				fiber_cond_wait(&c->host.cond);
		} else {
			end(c);
		}
	}
}

static fiber_fn void do_open(void)
{
	const struct stream_addr addr = { .host = "127.0.0.1", .port = 4420, .family = AF_INET };
	struct conn *c;

	if (nr_conns == MAX_CONNS)
		return;
	c = &conns[nr_conns];
	memset(c, 0, sizeof(*c));
	fiber_cond_init(&c->host.cond);
	c->host.rx = malloc(RX_SIZE);
	check(c->host.rx, "memory");
	if (stream_connect(&addr, 1000000, &c->host.stream)) {
		free(c->host.rx);
		return;
	}
	stream_set_ready(c->host.stream, ready, c);
	using = nr_conns++;
}

static void do_close(struct conn *c, bool abort_it)
{
	if (c->host.stream)
		stream_close(c->host.stream, abort_it);
	c->host.stream = NULL;
	c->ended = true;
}

static fiber_fn void do_ic(struct conn *c, uint8_t dgst, uint8_t hpda)
{
	struct nvme_tcp_ic_req req = { .hdr = { .type = NVME_TCP_IC_REQ, .hlen = 128, .plen = 128 },
				       .dgst = dgst & 3,
				       .hpda = hpda % 34 };

	if (!c->ic_sent && !spoil_mask) {
		c->host.hdgst = dgst & NVME_TCP_DGST_HEADER;
		c->host.ddgst = dgst & NVME_TCP_DGST_DATA;
		c->host.hpda = req.hpda;
	}
	c->ic_sent = true;
	send_pdu(c, (uint8_t *)&req, sizeof(req));
}

static fiber_fn void send_command(struct conn *c, const union nvme_cmd *cmd, const void *data, uint32_t len)
{
	size_t pdu_len = raw_make_capsule(&c->host, out, cmd, data, len);

	/* What is spoilt may be taken for any CID; what is not complete may yet become a command. */
	if (spoil_mask)
		memset(c->outstanding, 255, sizeof(c->outstanding));
	else if (c->outstanding[cmd->cid] < 255)
		c->outstanding[cmd->cid]++;
	send_pdu(c, out, pdu_len);
}

static fiber_fn void do_connect(struct conn *c, uint8_t qid, uint8_t sqsize, uint8_t choice)
{
	static const char *const nqns[] = { NQN, NVMF_DISCOVERY_NQN, "nqn.2025-01.invalid.ferrule:none", "" };
	union nvme_cmd cmd = { .connect = { .opcode = NVME_OPC_FABRICS,
					    .flags = NVME_CMD_PSDT_SGL,
					    .cid = 0xc0,
					    .fctype = NVME_FCTYPE_CONNECT,
					    .sgl = { .len = 1024, .type = NVME_SGL_IN_CAPSULE },
					    .qid = qid % 4,
					    .sqsize = sqsize,
					    .kato_ms = (choice & 0x80) ? 1000 : 0 } };
	struct nvme_connect_data data = { .cntlid = cmd.connect.qid ? last_cntlid : 0xffff };

	memset(data.hostid, 1 + (choice >> 2 & 1), sizeof(data.hostid));
	memcpy(data.subnqn, nqns[choice & 3], strlen(nqns[choice & 3]));
	memcpy(data.hostnqn, NQN, sizeof(NQN));
	if (choice & 8)
		memset(data.hostnqn, 'x', sizeof(data.hostnqn)); /* no end */
	if (choice & 16)
		memset(data.subnqn, 'x', sizeof(data.subnqn));
	if (choice & 32)
		data.cntlid = next();
	send_command(c, &cmd, &data, sizeof(data));
}

static uint32_t choose_len(uint8_t choice)
{
	static const uint32_t lens[] = { 0,	4,    16,   511,     512,	 1024,	 4095,	 4096,
					 8192, 8193, 65536, 131072, 1u << 20, (1u << 20) + 1, 1u << 31, 0xffffffff };

	return choice < 128 ? lens[choice & 15] : (choice & 127) * 512u;
}

static fiber_fn void do_command(struct conn *c)
{
	static const uint8_t types[] = { NVME_SGL_TRANSPORT, NVME_SGL_IN_CAPSULE, 0x00, 0x40 };
	union nvme_cmd cmd = { .opcode = next() };
	uint8_t choice;
	uint32_t len;

	cmd.flags = next() ^ NVME_CMD_PSDT_SGL;
	cmd.cid = next();
	cmd.nsid = next();
	if (cmd.nsid == 255)
		cmd.nsid = NVME_NSID_ALL;
	choice = next();
	cmd.sgl.type = choice < 0xf0 ? types[choice & 3] : choice;
	if (choice & 0x10)
		cmd.sgl.addr = (choice & 0x20) ? 0xfffffffffffffe00ull : choose_len(choice >> 3);
	cmd.sgl.len = choose_len(next());
	for (unsigned i = 10; i < 16; i++) {
		uint8_t byte = next();

		cmd.dwords[i] = byte < 0xf8 ? byte : (uint32_t)byte << 24 | next() << 8 | next();
	}
	len = choose_len(next() & 15);
	if (len > sizeof(zeroes))
		len = 0;
	send_command(c, &cmd, zeroes, len);
}

static fiber_fn void do_h2c(struct conn *c, uint8_t choice, uint8_t len_choice)
{
	struct nvme_tcp_r2t r2t = { .r2tl = 4096 };
	uint32_t len, piece, off = 0;

	if (c->nr_r2ts) {
		r2t = c->r2ts[0];
		memmove(&c->r2ts[0], &c->r2ts[1], --c->nr_r2ts * sizeof(r2t));
	}
	if (choice & 1)
		r2t.ttag += choice >> 4;
	if (choice & 2)
		r2t.cccid++;
	if (choice & 4)
		off = choose_len(choice >> 4);
	len = choice & 8 ? choose_len(len_choice & 15) : r2t.r2tl;
	if (len > 1u << 20)
		len = 1u << 20;
	piece = len_choice % 5 ? 32768 : 16384;
	for (uint32_t done = 0; done < len && !c->ended; done += piece) {
		uint32_t n = len - done < piece ? len - done : piece;
		static uint8_t data[32768];
		size_t pdu_len = raw_make_h2c(&c->host, out, r2t.cccid, r2t.ttag, off + done, data, n, done + n == len);

		send_pdu(c, out, pdu_len);
	}
}

static fiber_fn void do_property(struct conn *c, bool write, uint8_t offset, uint8_t value)
{
	union nvme_cmd cmd = { .property = { .opcode = NVME_OPC_FABRICS,
					     .flags = NVME_CMD_PSDT_SGL,
					     .cid = 0xd0,
					     .fctype = write ? NVME_FCTYPE_PROPERTY_SET : NVME_FCTYPE_PROPERTY_GET,
					     .attrib = offset == 0,
					     .ofst = offset,
					     .value = value == 1 ? 0x460001 : value } };

	send_command(c, &cmd, NULL, 0);
}

static fiber_fn void do_raw(struct conn *c, uint8_t len)
{
	memset(c->outstanding, 255, sizeof(c->outstanding));
	c->ic_sent = true;
	for (unsigned i = 0; i < len; i++)
		out[i] = next();
	send_pdu(c, out, len);
}

static fiber_fn void do_term(struct conn *c, uint8_t fes)
{
	struct nvme_tcp_term_req term = { .hdr = { .type = NVME_TCP_H2C_TERM_REQ, .hlen = 24, .plen = 24 },
					  .fes = (uint16_t)(fes * 257) };

	send_pdu(c, (uint8_t *)&term, sizeof(term));
}

static fiber_fn void do_op(uint8_t op)
{
	struct conn *c = &conns[using];
	uint8_t a, b;

	if (op == SCRIPT_OPEN || !nr_conns) {
		do_open();
		return;
	}
	switch (op) {
	case SCRIPT_USE:
		using = next() % nr_conns;
		break;
	case SCRIPT_RAW:
		do_raw(c, next());
		break;
	case SCRIPT_IC:
		a = next();
		do_ic(c, a, next());
		break;
	case SCRIPT_CONNECT:
		a = next();
		b = next();
		do_connect(c, a, b, next());
		break;
	case SCRIPT_COMMAND:
		do_command(c);
		break;
	case SCRIPT_H2C:
		a = next();
		do_h2c(c, a, next());
		break;
	case SCRIPT_PROPERTY:
		a = next();
		b = next();
		do_property(c, a & 1, b, next());
		break;
	case SCRIPT_TERM:
		do_term(c, next());
		break;
	case SCRIPT_WAIT:
		a = next();
		fiber_sleep(a * a * 10u);
		break;
	case SCRIPT_CLOSE:
		do_close(c, next() & 1);
		break;
	case SCRIPT_SPOIL:
		spoil_at = next();
		spoil_mask = next();
		break;
	}
	fiber_sleep(slow ? 400 : 20); /* answers have a chance to come, and R2Ts to be seen */
}

/* --- one input ---------------------------------------------------------------------------------------------------------------------- */

/* Connects as a host that does everything right, and must be let in. */
static fiber_fn void probe(void)
{
	struct conn *c;

	nr_conns = using = 0;
	do_open();
	c = &conns[0];
	check(c->host.stream, "nobody is let in any more");
	spoil_mask = 0;
	do_ic(c, 3, 0);
	while (!c->established && !c->ended)
		fiber_cond_wait(&c->host.cond);
	do_connect(c, 0, 31, 0);
	while (c->outstanding[0xc0] && !c->ended)
		fiber_cond_wait(&c->host.cond);
	check(!c->ended, "a good host is turned away");
	do_close(c, false);
	free(c->host.rx);
}

static void must(int rc, const char *what)
{
	check(rc == 0, "%s: %d", what, rc);
}

static fiber_fn struct nvmf_target *start_target(void)
{
	const struct nvmf_subsystem_opts subsystem_opts = { .nqn = NQN, .allow_any_host = true };
	const struct nvmf_target_opts target_opts = { .no_discovery_port = true };
	const struct stream_addr addr = { .host = "127.0.0.1", .port = 4420, .family = AF_INET };
	const struct nvmf_ns_opts ns_opts = { .bdev_name = "malloc" };
	struct nvmf_transport_opts opts;
	struct nvmf_subsystem *subsystem;
	struct nvmf_target *target;
	struct bdev *bdev;
	uuid_t uuid = { 7 };
	uint32_t nsid;

	must(bdev_malloc_create("malloc", uuid, 4096, 512, &bdev), "malloc");
	must(nvmf_target_create(&target_opts, &target), "target");
	must(nvmf_target_register_transport(target, &tcp_transport_ops), "register");
	must(nvmf_transport_default_opts(target, "tcp", &opts), "defaults");
	must(nvmf_transport_create(target, "tcp", &opts), "transport");
	must(nvmf_subsystem_create(target, &subsystem_opts, &subsystem), "subsystem");
	must(nvmf_subsystem_add_ns(subsystem, &ns_opts, &nsid), "namespace");
	must(nvmf_subsystem_add_listener(subsystem, "tcp", &addr), "listener");
	return target;
}

static void fuzz_main(void *arg)
{
	struct nvmf_target *target = start_target();

	nr_conns = using = 0;
	last_cntlid = 0xffff;
	spoil_mask = 0;
	while (input_left)
		do_op(next() % SCRIPT_NR_OPS);
	fiber_sleep(1000);
	for (unsigned i = 0; i < nr_conns; i++) {
		do_close(&conns[i], i & 1);
		free(conns[i].host.rx);
	}
	probe();
	nvmf_target_destroy(target);
	bdev_unregister_all();
	runtime_stop(0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sim_opts opts = { .nr_reactors = 1, .nr_small = 32, .nr_large = 24 };

	if (size < 2)
		return 0;
	opts.seed = data[0];
	slow = data[1] & 1;
	if (slow) {
		opts.short_io_ppm = 300000;
		opts.again_ppm = 50000;
		opts.max_delay_us = 100;
	}
	input = data + 2;
	input_left = size - 2;
	log_set_level(LOG_ERROR);
	must(sim_run(&opts, fuzz_main, NULL), "the simulation");
	return 0;
}
