/*
 * A controller from Connect to shutdown: the list of steps of message-based initialization, the admin
 * commands that everybody needs, keep alive, and asynchronous events.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <uuid/uuid.h>

#include "nvme/bar.h"
#include "nvme/internal.h"

#define ADMIN_QUEUE_SIZE  32u
#define DEFAULT_KATO_MS   10000u
#define READY_POLL_US     1000u
#define SHUTDOWN_LIMIT_US 2000000u
#define SHUTDOWN_MAX_US   30000000u
#define MAX_XFER_BYTES    (1u << 30)
#define LOG_CHUNK_BYTES   4096u

void nvme_connect_opts_init(struct nvme_connect_opts *opts)
{
	static uint8_t identity[16];

	if (uuid_is_null(identity)) {
		rand_bytes(identity, sizeof(identity));
		identity[6] = (identity[6] & 0x0f) | 0x40; /* a random UUID: version 4, variant 1 */
		identity[8] = (identity[8] & 0x3f) | 0x80;
	}
	*opts = (struct nvme_connect_opts){.kato_ms = DEFAULT_KATO_MS, .cntlid = NVME_CNTLID_DYNAMIC};
	memcpy(opts->hostid, identity, sizeof(identity));
	strcpy(opts->subnqn, NVME_DISCOVERY_NQN);
}

/* --- Connect ---------------------------------------------------------------------------------- */

/* What a person can do about a refused Connect. */
static const char *connect_remedy(uint16_t status, const struct nvme_cqe *cqe)
{
	switch (nvme_status_code(status)) {
	case NVME_SC_CONNECT_INVALID_HOST:
		return "this host may not: add its host NQN to the subsystem, or allow any host";
	case NVME_SC_CONNECT_CTRLR_BUSY:
		return "the target has no controller or queue left for this host: try again later";
	case NVME_SC_AUTH_REQUIRED:
		return "the target asks for authentication, which this initiator does not do";
	case NVME_SC_CONNECT_INVALID_PARAMETERS:
		break;
	default:
		return "see the target's log";
	}
	if (!cqe->connect_invalid.iattr)
		return "a field of the command is wrong: a smaller queue may do";
	switch (cqe->connect_invalid.ipo) {
	case offsetof(struct nvme_connect_data, subnqn):
		return "there is no such subsystem at this address: see what nvme discover lists";
	case offsetof(struct nvme_connect_data, hostnqn):
		return "the host NQN is not acceptable";
	case offsetof(struct nvme_connect_data, hostid):
		return "the host identifier is not acceptable";
	case offsetof(struct nvme_connect_data, cntlid):
		return "there is no such controller";
	}
	return "a field of the data is wrong";
}

/* Connect's statuses share their values with those of the NVM command set, so they have a mapping of their
 * own. */
static int connect_errno(uint16_t status)
{
	switch (nvme_status_code(status)) {
	case NVME_SC_CONNECT_CTRLR_BUSY:
		return -EAGAIN;
	case NVME_SC_CONNECT_INVALID_PARAMETERS:
	case NVME_SC_CONNECT_INCOMPATIBLE_FORMAT:
		return -EINVAL;
	case NVME_SC_CONNECT_INVALID_HOST:
		return -EACCES;
	}
	return nvme_status_to_errno(status);
}

/* Source: NVM Express Base 2.0, 6.3 "Connect Command and Response". */
static fiber_fn int fabrics_connect(struct nvme_ctrlr *ctrlr, struct nvme_qpair *qpair,
				    struct nvme_cqe *ret_cqe, struct nvme_error *error)
{
	struct nvme_connect_data *data = calloc(1, sizeof(*data));
	union nvme_cmd cmd = {0};
	int rc;

	if (!data) {
		nvme_error_set(error, -ENOMEM, 0, "no memory");
		return -ENOMEM;
	}
	cmd.opcode = NVME_OPC_FABRICS;
	cmd.connect.fctype = NVME_FCTYPE_CONNECT;
	cmd.connect.qid = qpair->qid;
	cmd.connect.sqsize = (uint16_t)qpair->depth;
	cmd.connect.kato_ms = qpair->qid ? 0 : ctrlr->opts.kato_ms;
	/* We never look at SQHD; and C2HData's SUCCESS, which saves a response for each read, is only for
	 * those who do not. */
	cmd.connect.cattr = NVME_CONNECT_NO_SQ_FLOW_CONTROL;
	memcpy(data->hostid, ctrlr->opts.hostid, sizeof(data->hostid));
	data->cntlid = qpair->qid ? ctrlr->cntlid : ctrlr->opts.cntlid;
	memcpy(data->subnqn, ctrlr->opts.subnqn, sizeof(data->subnqn));
	memcpy(data->hostnqn, ctrlr->opts.hostnqn, sizeof(data->hostnqn));
	rc = nvme_execute(qpair, &cmd, data, sizeof(*data), ret_cqe);
	free(data);
	if (rc < 0) {
		*error = *nvme_qpair_error(qpair);
	} else if (rc > 0) {
		nvme_error_set(error, connect_errno((uint16_t)rc), (uint16_t)rc,
			       "%s refuses Connect of queue %u as %s: %s (%03xh): %s", ctrlr->opts.subnqn,
			       qpair->qid, ctrlr->opts.hostnqn, nvme_status_name((uint16_t)rc),
			       nvme_status_code((uint16_t)rc), connect_remedy((uint16_t)rc, ret_cqe));
		rc = error->err;
	} else if (ret_cqe->connect.authreq) {
		nvme_error_set(error, -EACCES, NVME_SC_AUTH_REQUIRED,
			       "%s asks for authentication, which this initiator does not do",
			       ctrlr->opts.subnqn);
		rc = -EACCES;
	}
	return rc;
}

fiber_fn int nvme_qpair_connect(struct nvme_ctrlr *ctrlr, uint16_t qid, uint32_t size,
				struct nvme_qpair **ret_qpair, struct nvme_error *error)
{
	uint32_t limit = NVME_CAP_MQES(ctrlr->cap) + 1;
	struct nvme_error scratch;
	struct nvme_cqe cqe;
	int rc;

	error = error ? error : &scratch;
	if (ctrlr->transport->qpair_create)
		return ctrlr->transport->qpair_create(ctrlr, qid, size, ret_qpair, error);
	if (size > QPAIR_MAX_SIZE)
		size = QPAIR_MAX_SIZE;
	if (size > limit)
		size = limit;
	if (size < 2 || !qid) {
		nvme_error_set(error, -EINVAL, 0,
			       "queue %u of %u entries: wants at least queue 1 and two entries", qid, size);
		return -EINVAL;
	}
	rc = ctrlr->transport->qpair_open(ctrlr, qid, size, ret_qpair, error);
	if (rc)
		return rc;
	struct nvme_qpair *qpair = *ret_qpair;

	if (ctrlr->transport->qpair_set_limits)
		ctrlr->transport->qpair_set_limits(qpair);
	rc = fabrics_connect(ctrlr, qpair, &cqe, error);
	if (rc) {
		nvme_qpair_disconnect(qpair);
		*ret_qpair = NULL;
	}
	return rc;
}

/* --- properties and enabling ------------------------------------------------------------------ */

static uint8_t property_size(uint32_t offset)
{
	bool wide = offset == NVME_PROP_CAP || offset == NVME_PROP_ASQ || offset == NVME_PROP_ACQ;

	return wide ? NVME_PROP_SIZE_8 : NVME_PROP_SIZE_4;
}

fiber_fn int nvme_property_get(struct nvme_ctrlr *ctrlr, uint32_t offset, uint64_t *ret_value)
{
	union nvme_cmd cmd = {0};
	struct nvme_cqe cqe;
	int rc;

	if (ctrlr->transport->property_get)
		return ctrlr->transport->property_get(ctrlr, offset, ret_value);
	cmd.opcode = NVME_OPC_FABRICS;
	cmd.property.fctype = NVME_FCTYPE_PROPERTY_GET;
	cmd.property.attrib = property_size(offset);
	cmd.property.ofst = offset;
	rc = nvme_execute(ctrlr->admin, &cmd, NULL, 0, &cqe);
	*ret_value = property_size(offset) == NVME_PROP_SIZE_8 ? cqe.result : cqe.dw0;
	return rc;
}

fiber_fn int nvme_property_set(struct nvme_ctrlr *ctrlr, uint32_t offset, uint64_t value)
{
	union nvme_cmd cmd = {0};

	if (ctrlr->transport->property_set)
		return ctrlr->transport->property_set(ctrlr, offset, value);
	cmd.opcode = NVME_OPC_FABRICS;
	cmd.property.fctype = NVME_FCTYPE_PROPERTY_SET;
	cmd.property.attrib = property_size(offset);
	cmd.property.ofst = offset;
	cmd.property.value = value;
	return nvme_execute(ctrlr->admin, &cmd, NULL, 0, NULL);
}

const char *ctrlr_name(const struct nvme_ctrlr *ctrlr)
{
	return ctrlr->opts.bar ? ctrlr->opts.bar->name : ctrlr->opts.subnqn;
}

/* For a step of initialization: 0, or -errno with *error saying which step it was. */
static int step(const struct nvme_ctrlr *ctrlr, int rc, const char *what, struct nvme_error *error)
{
	if (rc == 0)
		return 0;
	if (rc < 0) {
		*error = *nvme_qpair_error(ctrlr->admin);
		return rc;
	}
	nvme_error_set(error, nvme_status_to_errno((uint16_t)rc), (uint16_t)rc, "%s: %s failed: %s (%03xh)",
		       ctrlr_name(ctrlr), what, nvme_status_name((uint16_t)rc),
		       nvme_status_code((uint16_t)rc));
	return error->err;
}

/* What CC is to be for an enabled controller: all command sets it has, our sizes of queue entries, pages of 4 KiB. */
uint32_t ctrlr_cc(const struct nvme_ctrlr *ctrlr)
{
	uint32_t css = ctrlr->cap & NVME_CAP_CSS_IOCSS ? NVME_CC_CSS_ALL : NVME_CC_CSS_NVM;

	return NVME_CC_EN | css << NVME_CC_CSS_SHIFT | 6u << NVME_CC_IOSQES_SHIFT | 4u << NVME_CC_IOCQES_SHIFT;
}

/* Source: NVM Express Base 2.0, 3.1.3 (CAP.TO). */
static fiber_fn int wait_ready(struct nvme_ctrlr *ctrlr, struct nvme_error *error)
{
	uint64_t limit_us = clock_now_us() + (NVME_CAP_TO(ctrlr->cap) + 1) * 500000;
	uint64_t csts;
	int rc;

	for (;;) {
		rc = step(ctrlr, nvme_property_get(ctrlr, NVME_PROP_CSTS, &csts), "reading CSTS", error);
		if (rc)
			return rc;
		if (csts & NVME_CSTS_CFS) {
			nvme_error_set(error, -EIO, 0, "%s: the controller reports a fatal status",
				       ctrlr_name(ctrlr));
			return -EIO;
		}
		if (csts & NVME_CSTS_RDY)
			return 0;
		if (clock_now_us() >= limit_us) {
			nvme_error_set(error, -ETIMEDOUT, 0, "%s: the controller did not become ready",
				       ctrlr_name(ctrlr));
			return -ETIMEDOUT;
		}
		fiber_sleep(READY_POLL_US);
	}
}

/* Source: NVM Express Base 2.0, 3.5.2 "Message-based Controller Initialization". */
static fiber_fn int enable(struct nvme_ctrlr *ctrlr, struct nvme_error *error)
{
	uint32_t cc = ctrlr_cc(ctrlr);
	uint64_t value;
	int rc;

	rc = step(ctrlr, nvme_property_get(ctrlr, NVME_PROP_VS, &value), "reading VS", error);
	if (rc)
		return rc;
	ctrlr->vs = (uint32_t)value;
	rc = step(ctrlr, nvme_property_set(ctrlr, NVME_PROP_CC, cc), "enabling the controller", error);
	if (!rc)
		rc = wait_ready(ctrlr, error);
	return rc;
}

/* --- admin commands --------------------------------------------------------------------------- */

fiber_fn int nvme_identify(struct nvme_ctrlr *ctrlr, uint8_t cns, uint32_t nsid, uint8_t csi, void *buf_4096)
{
	union nvme_cmd cmd = {0};

	cmd.opcode = NVME_ADMIN_IDENTIFY;
	cmd.nsid = nsid;
	cmd.identify.cns = cns;
	cmd.identify.csi = csi;
	if (cns == NVME_CNS_IOCS_VECTORS)
		cmd.identify.cntid = 0xffff; /* the controller that is asked */
	return nvme_execute(ctrlr->admin, &cmd, buf_4096, NVME_IDENTIFY_SIZE, NULL);
}

fiber_fn int nvme_get_log(struct nvme_ctrlr *ctrlr, uint8_t lid, uint8_t lsp, uint32_t nsid,
			  uint64_t offset_bytes, void *buf, uint32_t len_bytes)
{
	for (uint32_t done = 0; done < len_bytes;) {
		uint32_t len = len_bytes - done < LOG_CHUNK_BYTES ? len_bytes - done : LOG_CHUNK_BYTES;
		uint64_t offset = offset_bytes + done;
		union nvme_cmd cmd = {0};
		int rc;

		cmd.opcode = NVME_ADMIN_GET_LOG_PAGE;
		cmd.nsid = nsid;
		cmd.get_log.lid = lid;
		/* An event stays masked until the last part has been read. */
		cmd.get_log.lsp = lsp | (len_bytes - done > len ? NVME_LOG_RAE : 0);
		cmd.get_log.numdl = (uint16_t)(len / 4 - 1);
		cmd.get_log.numdu = (uint16_t)((len / 4 - 1) >> 16);
		cmd.get_log.lpol = (uint32_t)offset;
		cmd.get_log.lpou = (uint32_t)(offset >> 32);
		rc = nvme_execute(ctrlr->admin, &cmd, (uint8_t *)buf + done, len, NULL);
		if (rc)
			return rc;
		done += len;
	}
	return 0;
}

static fiber_fn int feature(struct nvme_ctrlr *ctrlr, uint8_t opcode, uint8_t fid, uint32_t cdw11,
			    struct iovec data, uint32_t *ret_dw0)
{
	union nvme_cmd cmd = {0};
	struct nvme_cqe cqe;
	int rc;

	cmd.opcode = opcode;
	cmd.cdw10 = fid;
	cmd.cdw11 = cdw11;
	rc = nvme_execute(ctrlr->admin, &cmd, data.iov_base, (uint32_t)data.iov_len, &cqe);
	if (ret_dw0)
		*ret_dw0 = cqe.dw0;
	return rc;
}

fiber_fn int nvme_set_feature(struct nvme_ctrlr *ctrlr, uint8_t fid, uint32_t cdw11, void *buf,
			      uint32_t len_bytes, uint32_t *ret_dw0)
{
	return feature(ctrlr, NVME_ADMIN_SET_FEATURES, fid, cdw11, (struct iovec){buf, len_bytes}, ret_dw0);
}

fiber_fn int nvme_abort(struct nvme_ctrlr *ctrlr, struct nvme_qpair *qpair, const struct nvme_request *req,
			bool *ret_aborted)
{
	union nvme_cmd cmd = {0};
	struct nvme_cqe cqe;
	int rc;

	*ret_aborted = false;
	if (req->state != NVME_REQUEST_IN_FLIGHT)
		return 0;
	while (ctrlr->nr_aborts > ctrlr->id.acl)
		fiber_sleep(READY_POLL_US);
	if (req->state != NVME_REQUEST_IN_FLIGHT)
		return 0;
	cmd.opcode = NVME_ADMIN_ABORT;
	cmd.abort.sqid = qpair->qid;
	cmd.abort.cid = req->cmd.cid;
	ctrlr->nr_aborts++;
	rc = nvme_execute(ctrlr->admin, &cmd, NULL, 0, &cqe);
	ctrlr->nr_aborts--;
	*ret_aborted = !rc && !(cqe.dw0 & 1);
	return rc;
}

fiber_fn unsigned nvme_ctrlr_nr_io_queues(struct nvme_ctrlr *ctrlr)
{
	uint32_t dw0;

	if (ctrlr->queues_asked || ctrlr->id.cntrltype == NVME_CNTRLTYPE_DISCOVERY)
		return ctrlr->nr_io_queues;
	ctrlr->queues_asked = true;
	if (nvme_set_feature(ctrlr, NVME_FID_NR_QUEUES, 0xfffefffe, NULL, 0, &dw0))
		return 0;
	ctrlr->nr_io_queues = ((dw0 & 0xffff) < (dw0 >> 16) ? dw0 & 0xffff : dw0 >> 16) + 1;
	return ctrlr->nr_io_queues;
}

/* --- keep alive and events -------------------------------------------------------------------- */

static void keep_alive_done(struct nvme_request *req, uint16_t status)
{
	struct nvme_ctrlr *ctrlr = container_of(req, struct nvme_ctrlr, keep_alive);

	ctrlr->keep_alive_busy = false;
	ctrlr->nr_keep_alives_missed = 0;
}

/* Twice in each KATO.  One that has not been answered for a KATO ends the queue: by then the target has given us up, too. */
static void keep_alive_due(void *arg)
{
	struct nvme_ctrlr *ctrlr = arg;

	if (!nvme_qpair_is_live(ctrlr->admin))
		return;
	timer_arm(&ctrlr->keep_alive_timer, ctrlr->opts.kato_ms * 500ull);
	if (ctrlr->keep_alive_busy) {
		if (++ctrlr->nr_keep_alives_missed >= 2)
			qpair_fail(ctrlr->admin, -ETIMEDOUT, "the target did not answer Keep Alive for %u ms",
				   ctrlr->opts.kato_ms);
		return;
	}
	ctrlr->keep_alive_busy = true;
	ctrlr->keep_alive.cmd = (union nvme_cmd){.opcode = NVME_ADMIN_KEEP_ALIVE};
	ctrlr->keep_alive.done = keep_alive_done;
	nvme_qpair_submit(ctrlr->admin, &ctrlr->keep_alive);
}

static void aer_submit(struct nvme_ctrlr *ctrlr);

static void aer_done(struct nvme_request *req, uint16_t status)
{
	struct nvme_ctrlr *ctrlr = container_of(req, struct nvme_ctrlr, aer);

	ctrlr->aer_busy = false;
	if (status)
		return;
	ctrlr->opts.event(ctrlr, req->cqe.dw0, ctrlr->opts.event_arg);
	aer_submit(ctrlr);
}

static void aer_submit(struct nvme_ctrlr *ctrlr)
{
	ctrlr->aer_busy = true;
	ctrlr->aer.cmd = (union nvme_cmd){.opcode = NVME_ADMIN_AER};
	ctrlr->aer.done = aer_done;
	ctrlr->aer.never_expires = true;
	nvme_qpair_submit(ctrlr->admin, &ctrlr->aer);
}

/* --- the whole -------------------------------------------------------------------------------- */

static void default_hostnqn(struct nvme_connect_opts *opts)
{
	char text[UUID_STR_LEN];

	if (uuid_is_null(opts->hostid)) {
		struct nvme_connect_opts fresh;

		nvme_connect_opts_init(&fresh);
		memcpy(opts->hostid, fresh.hostid, sizeof(opts->hostid));
	}
	if (opts->hostnqn[0])
		return;
	uuid_unparse_lower(opts->hostid, text);
	strcpy(opts->hostnqn, "nqn.2014-08.org.nvmexpress:uuid:");
	strcat(opts->hostnqn, text);
}

/* Fabrics.  Source: NVM Express Base 2.0, 3.5.2 "Message-based Controller Initialization". */
static fiber_fn int connect_admin(struct nvme_ctrlr *ctrlr, uint32_t size, struct nvme_error *error)
{
	struct nvme_cqe cqe;
	int rc;

	rc = ctrlr->transport->qpair_open(ctrlr, 0, size, &ctrlr->admin, error);
	if (!rc)
		rc = fabrics_connect(ctrlr, ctrlr->admin, &cqe, error);
	if (rc)
		return rc;
	ctrlr->cntlid = cqe.connect.cntlid;
	rc = step(ctrlr, nvme_property_get(ctrlr, NVME_PROP_CAP, &ctrlr->cap), "reading CAP", error);
	return rc ? rc : enable(ctrlr, error);
}

static fiber_fn int initialize(struct nvme_ctrlr *ctrlr, struct nvme_error *error)
{
	uint32_t size = ctrlr->opts.admin_queue_size ? ctrlr->opts.admin_queue_size : ADMIN_QUEUE_SIZE;
	int rc;

	if (size < 3)
		size = 3;
	if (ctrlr->transport->enable) {
		rc = ctrlr->transport->enable(ctrlr, size, error);
		if (!rc)
			rc = wait_ready(ctrlr, error);
	} else {
		rc = connect_admin(ctrlr, size, error);
	}
	if (!rc)
		rc = step(ctrlr, nvme_identify(ctrlr, NVME_CNS_CTRLR, 0, 0, &ctrlr->id),
			  "Identify Controller", error);
	if (!rc && ctrlr->transport->identified)
		rc = ctrlr->transport->identified(ctrlr, error);
	if (rc)
		return rc;
	if (ctrlr->opts.kato_ms && !ctrlr->transport->enable)
		timer_arm(&ctrlr->keep_alive_timer, ctrlr->opts.kato_ms * 500ull);
	if (ctrlr->opts.event)
		aer_submit(ctrlr);
	return 0;
}

static const struct nvme_transport *transport_of(enum nvme_trtype trtype)
{
	switch ((unsigned)trtype) {
	case 0:
	case NVME_TRTYPE_TCP:
		return &nvme_transport_tcp;
	case NVME_TRTYPE_RDMA:
		return &nvme_transport_rdma;
	case NVME_TRTYPE_PCIE:
		return &nvme_transport_pcie;
	default:
		return NULL;
	}
}

static void ctrlr_free(struct nvme_ctrlr *ctrlr)
{
	if (ctrlr->transport->close)
		ctrlr->transport->close(ctrlr);
	free(ctrlr);
}

fiber_fn int nvme_ctrlr_connect(const struct nvme_connect_opts *opts, struct nvme_ctrlr **ret_ctrlr,
				struct nvme_error *error)
{
	struct nvme_ctrlr *ctrlr = calloc(1, sizeof(*ctrlr));
	struct nvme_error scratch;
	int rc;

	error = error ? error : &scratch;
	if (!ctrlr) {
		nvme_error_set(error, -ENOMEM, 0, "no memory for a controller");
		return -ENOMEM;
	}
	ctrlr->transport = transport_of(opts->trtype);
	if (!ctrlr->transport) {
		nvme_error_set(error, -ENOTSUP, 0, "this initiator does not do transport type %u", opts->trtype);
		free(ctrlr);
		return -ENOTSUP;
	}
	ctrlr->thread = thread_current();
	list_init(&ctrlr->aborts);
	ctrlr->opts = *opts;
	ctrlr->failed = true; /* until it is up, the caller hears by our result */
	timer_init(&ctrlr->keep_alive_timer, keep_alive_due, ctrlr);
	default_hostnqn(&ctrlr->opts);
	rc = ctrlr->transport->open ? ctrlr->transport->open(ctrlr, error) : 0;
	if (!rc)
		rc = initialize(ctrlr, error);
	if (rc) {
		timer_cancel(&ctrlr->keep_alive_timer);
		nvme_ctrlr_disable(ctrlr);
		nvme_qpair_disconnect(ctrlr->admin);
		ctrlr_wait_untold(ctrlr);
		ctrlr_free(ctrlr);
		return rc;
	}
	ctrlr->failed = false;
	if (!nvme_qpair_is_live(ctrlr->admin))
		ctrlr_queue_failed(ctrlr->admin);
	*ret_ctrlr = ctrlr;
	return 0;
}

/* A target that does not answer does not keep us: the queue's end comes anyway. */
static fiber_fn void shut_down(struct nvme_ctrlr *ctrlr)
{
	/* What a drive says its shutdown takes; a target has nothing of its own to bring to rest. */
	uint64_t takes_us = ctrlr->opts.bar ? ctrlr->id.rtd3e : 0;
	uint64_t limit_us = clock_now_us() + SHUTDOWN_LIMIT_US +
			    (takes_us < SHUTDOWN_MAX_US ? takes_us : SHUTDOWN_MAX_US);
	uint64_t cc, csts;

	if (nvme_property_get(ctrlr, NVME_PROP_CC, &cc) ||
	    nvme_property_set(ctrlr, NVME_PROP_CC, cc | NVME_CC_SHN_NORMAL << NVME_CC_SHN_SHIFT))
		return;
	while (!nvme_property_get(ctrlr, NVME_PROP_CSTS, &csts) &&
	       NVME_CSTS_SHST(csts) != NVME_CSTS_SHST_COMPLETE && clock_now_us() < limit_us)
		fiber_sleep(READY_POLL_US);
}

fiber_fn void nvme_ctrlr_disable(struct nvme_ctrlr *ctrlr)
{
	timer_cancel(&ctrlr->keep_alive_timer);
	ctrlr->failed = true;
	if (ctrlr->transport->disable)
		ctrlr->transport->disable(ctrlr);
	else if (ctrlr->admin && ctrlr->admin->state < QPAIR_ENDING)
		qpair_fail(ctrlr->admin, -ECONNABORTED, "the controller was disabled");
}

fiber_fn void nvme_ctrlr_disconnect(struct nvme_ctrlr *ctrlr)
{
	if (!ctrlr)
		return;
	timer_cancel(&ctrlr->keep_alive_timer);
	if (nvme_qpair_is_live(ctrlr->admin))
		shut_down(ctrlr);
	timer_cancel(&ctrlr->keep_alive_timer);
	ctrlr->failed = true;
	if (ctrlr->transport->disable)
		ctrlr->transport->disable(ctrlr);
	nvme_qpair_disconnect(ctrlr->admin);
	ctrlr_wait_untold(ctrlr);
	ctrlr_free(ctrlr);
}

const struct nvme_error *nvme_ctrlr_error(const struct nvme_ctrlr *ctrlr)
{
	return &ctrlr->error;
}

struct nvme_qpair *nvme_ctrlr_admin(struct nvme_ctrlr *ctrlr)
{
	return ctrlr->admin;
}

const struct nvme_id_ctrlr *nvme_ctrlr_id(const struct nvme_ctrlr *ctrlr)
{
	return &ctrlr->id;
}

uint64_t nvme_ctrlr_cap(const struct nvme_ctrlr *ctrlr)
{
	return ctrlr->cap;
}

uint32_t nvme_ctrlr_vs(const struct nvme_ctrlr *ctrlr)
{
	return ctrlr->vs;
}

uint16_t nvme_ctrlr_cntlid(const struct nvme_ctrlr *ctrlr)
{
	return ctrlr->cntlid;
}

uint32_t nvme_ctrlr_max_xfer_bytes(const struct nvme_ctrlr *ctrlr)
{
	unsigned shift = ctrlr->id.mdts + 12 + (unsigned)((ctrlr->cap >> NVME_CAP_MPSMIN_SHIFT) & 0xf);
	uint32_t limit = ctrlr->transport->max_xfer_bytes ? ctrlr->transport->max_xfer_bytes : MAX_XFER_BYTES;

	return ctrlr->id.mdts && shift < 30 && 1u << shift < limit ? 1u << shift : limit;
}
