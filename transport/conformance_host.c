/* The conformance table's host. */
#include <check.h>
#include <string.h>

#include "transport/conformance_host.h"

struct stream_addr host_addr;
uint8_t host_back[2u << 20];

fiber_fn uint16_t host_connect(struct wire *wire, const struct host_connect *how, struct nvme_cqe *ret_cqe)
{
	struct nvme_connect_data connect = { .cntlid = how->cntlid ? how->cntlid : NVME_CNTLID_DYNAMIC };
	struct wire_cmd c = { .xfer = NVMF_XFER_FROM_HOST, .place = wire_connect_place, .buf = &connect };
	uint16_t status;

	memset(connect.hostid, how->host_id ? how->host_id : 0x11, sizeof(connect.hostid));
	strcpy(connect.subnqn, how->subnqn ? how->subnqn : SUBNQN);
	strcpy(connect.hostnqn, how->hostnqn ? how->hostnqn : HOSTNQN);
	c.len = how->len ? how->len : sizeof(connect);
	c.cmd.connect.opcode = NVME_OPC_FABRICS;
	c.cmd.connect.fctype = NVME_FCTYPE_CONNECT;
	c.cmd.connect.recfmt = how->recfmt;
	c.cmd.connect.qid = how->qid;
	c.cmd.connect.sqsize = how->sqsize ? how->sqsize : (how->qid ? DEPTH : 32) - 1;
	c.cmd.connect.kato_ms = how->kato_ms;
	status = wire_run(wire, &c);
	if (ret_cqe)
		*ret_cqe = c.cqe;
	return status;
}

fiber_fn uint16_t host_property(struct wire *wire, uint8_t fctype, uint32_t ofst, uint8_t attrib, uint64_t value, uint64_t *ret_value)
{
	struct wire_cmd c = { 0 };
	uint16_t status;

	c.cmd.property.opcode = NVME_OPC_FABRICS;
	c.cmd.property.fctype = fctype;
	c.cmd.property.attrib = attrib;
	c.cmd.property.ofst = ofst;
	c.cmd.property.value = value;
	status = wire_run(wire, &c);
	if (ret_value)
		*ret_value = c.cqe.result;
	return status;
}

fiber_fn void host_enable(struct wire *admin)
{
	uint64_t csts = 0;

	ck_assert_uint_eq(host_property(admin, NVME_FCTYPE_PROPERTY_SET, NVME_PROP_CC, NVME_PROP_SIZE_4,
				   NVME_CC_EN | 6u << NVME_CC_IOSQES_SHIFT | 4u << NVME_CC_IOCQES_SHIFT, NULL), OK);
	while (!(csts & NVME_CSTS_RDY))
		ck_assert_uint_eq(host_property(admin, NVME_FCTYPE_PROPERTY_GET, NVME_PROP_CSTS, NVME_PROP_SIZE_4, 0, &csts), OK);
}

fiber_fn struct wire *host_open_queue(uint16_t qid)
{
	struct wire *wire = wire_open(&host_addr, qid, qid ? DEPTH : 32);

	ck_assert_ptr_nonnull(wire);
	return wire;
}

fiber_fn struct wire *host_io_queue(struct host *host, uint16_t qid)
{
	struct wire *wire = host_open_queue(qid);

	ck_assert_uint_eq(host_connect(wire, &(struct host_connect){ .qid = qid, .cntlid = host->cntlid }, NULL), OK);
	return wire;
}

fiber_fn void host_up(struct host *host, uint32_t kato_ms)
{
	struct wire_cmd c = { .cmd = { .opcode = NVME_ADMIN_SET_FEATURES, .cdw10 = NVME_FID_NR_QUEUES, .cdw11 = 3u << 16 | 3 } };
	struct nvme_cqe cqe;

	host->admin = host_open_queue(0);
	ck_assert_uint_eq(host_connect(host->admin, &(struct host_connect){ .kato_ms = kato_ms }, &cqe), OK);
	host->cntlid = cqe.connect.cntlid;
	host_enable(host->admin);
	ck_assert_uint_eq(wire_run(host->admin, &c), OK);
	ck_assert_uint_ge(c.cqe.dw0 & 0xffff, 3);
	host->io = host_io_queue(host, 1);
}

fiber_fn void host_down(struct host *host)
{
	wire_close(host->io, true);
	wire_close(host->admin, true);
}

struct wire_cmd host_rw(uint8_t opcode, uint32_t block, void *buf, uint32_t len, enum wire_place place)
{
	struct wire_cmd c = { .buf = buf, .len = len, .place = place };

	c.xfer = nvme_opcode_xfer(opcode) == NVME_XFER_TO_HOST ? NVMF_XFER_TO_HOST : NVMF_XFER_FROM_HOST;
	c.cmd.opcode = opcode;
	c.cmd.nsid = 1;
	c.cmd.rw.slba = block;
	c.cmd.rw.nlb = (uint16_t)(len / 512 - 1);
	return c;
}

fiber_fn void host_write(struct wire *io, uint32_t block, void *buf, uint32_t len, enum wire_place place)
{
	struct wire_cmd c = host_rw(NVME_IO_WRITE, block, buf, len, place);

	ck_assert_uint_eq(wire_run(io, &c), OK);
}

fiber_fn void host_expect(struct wire *io, uint32_t block, const void *what, uint32_t len)
{
	struct wire_cmd c = host_rw(NVME_IO_READ, block, host_back, len, WIRE_AWAY);

	memset(host_back, 0x5a, len);
	ck_assert_uint_eq(wire_run(io, &c), OK);
	ck_assert_int_eq(memcmp(host_back, what, len), 0);
}
