/*
 * Connect: what makes a connection a queue, and of the first queue a controller.
 *
 * On the connection's thread the command and its data are checked by themselves.  The app thread then looks
 * at subsystem, listener and host, and makes the controller or finds it; for an I/O queue the controller's
 * thread gives the QID.  Back on the connection's thread the queue is bound.
 *
 * Source: NVM Express Base 2.0, 6.3.
 */
#include <stdlib.h>
#include <string.h>

#include "nvmf/internal.h"

/* A Connect under way.  Owner: whichever thread has the message; the qpair stays, since its request is
 * outstanding. */
struct connect {
	struct nvmf_req *req;
	struct nvmf_qpair *qpair;
	struct nvme_connect_data data;
	uint16_t qid;
	uint32_t sq_size, kato_ms;
	uint16_t status;
	uint8_t iattr;
	uint16_t ipo;
	struct nvmf_ctrlr *ctrlr; /* with a reference for the qpair */
};

/* Connect Invalid Parameters: which field was wrong. */
static uint16_t wrong_in_command(struct connect *c, size_t offset)
{
	c->iattr = 0;
	c->ipo = (uint16_t)offset;
	return NVME_SC_CONNECT_INVALID_PARAMETERS | NVME_SC_DNR;
}

static uint16_t wrong_in_data(struct connect *c, size_t offset)
{
	c->iattr = 1;
	c->ipo = (uint16_t)offset;
	return NVME_SC_CONNECT_INVALID_PARAMETERS | NVME_SC_DNR;
}

#define WRONG_COMMAND(c, field) wrong_in_command(c, offsetof(union nvme_cmd, connect.field))
#define WRONG_DATA(c, field)	wrong_in_data(c, offsetof(struct nvme_connect_data, field))

/* --- the end, on the connection's thread --------------------------------------------------- */

/* What a stranger calls itself goes into the log only when it is a name. */
static const char *nqn_for_log(const char nqn[NVME_NQN_FIELD_SIZE])
{
	return nvme_nqn_is_valid(nqn, NVME_NQN_FIELD_SIZE) ? nqn : "(no NQN)";
}

static void connect_finish(struct connect *c)
{
	struct nvmf_req *req = c->req;
	uint16_t status = c->status;

	c->qpair->connecting = false;
	if (nvme_status_code(status) == NVME_SC_CONNECT_INVALID_PARAMETERS) {
		req->cqe.connect_invalid.ipo = c->ipo;
		req->cqe.connect_invalid.iattr = c->iattr;
	}
	if (nvmf_status_is_error(status))
		log_info("Connect of %s to %s, queue %u: %s", nqn_for_log(c->data.hostnqn),
			 nqn_for_log(c->data.subnqn), c->qid, nvme_status_name(status));
	free(c);
	nvmf_req_complete(req, status);
}

static void connect_bind(struct connect *c)
{
	struct nvmf_qpair *qpair = c->qpair;
	struct nvmf_ctrlr *ctrlr = c->ctrlr;

	timer_cancel(&qpair->timer);
	qpair->ctrlr = ctrlr;
	qpair->gsub = ctrlr->subsystem->gsubs[qpair->group->idx];
	qpair->qid = c->qid;
	qpair->sq_size = (uint16_t)c->sq_size;
	qpair->sqhd = 0;
	qpair->sq_flow_control_disabled = c->req->cmd.connect.cattr & NVME_CONNECT_NO_SQ_FLOW_CONTROL;
	qpair->connected = true;
	if (c->qid)
		qpair->group->nr_io_qpairs++;
	else
		qpair->group->nr_admin_qpairs++;
	if (c->qid)
		qpair->op_table = nvmf_ops_io;
	else
		qpair->op_table = ctrlr->discovery ? nvmf_ops_discovery : nvmf_ops_admin;
	c->req->cqe.connect.cntlid = ctrlr->cntlid;
}

static void connect_done(void *arg)
{
	struct connect *c = arg;

	/* Also when the connection has gone in the meantime: its end, which waits for this request, then
	 * undoes it. */
	if (!nvmf_status_is_error(c->status)) {
		connect_bind(c);
		if (!c->qid)
			nvmf_ctrlr_bind_admin(c->ctrlr, c->qpair, c->kato_ms);
	}
	connect_finish(c);
}

static void connect_reply(struct connect *c, uint16_t status)
{
	c->status = status;
	thread_send(c->qpair->group->thread, connect_done, c);
}

/* --- an I/O queue, on the controller's thread ---------------------------------------------- */

static uint16_t connect_io_check(struct connect *c)
{
	struct nvmf_ctrlr *ctrlr = c->ctrlr;

	if (ctrlr->state == NVMF_CTRLR_DEAD || ctrlr->state == NVMF_CTRLR_ENDING)
		return WRONG_DATA(c, cntlid);
	if (!(ctrlr->csts & NVME_CSTS_RDY) || ctrlr->state != NVMF_CTRLR_LIVE || NVME_CSTS_SHST(ctrlr->csts))
		return NVME_SC_CMD_SEQUENCE_ERROR;
	if (c->qid > ctrlr->nr_queues)
		return WRONG_COMMAND(c, qid);
	/* The one before may be on its way out: trying again can help. */
	if (!nvmf_ctrlr_queue_take(ctrlr, c->qid, c->qpair->group))
		return NVME_SC_CMD_SEQUENCE_ERROR;
	return NVME_SC_SUCCESS;
}

static void connect_io(void *arg)
{
	struct connect *c = arg;
	uint16_t status = connect_io_check(c);

	if (nvmf_status_is_error(status))
		nvmf_ctrlr_put(c->ctrlr);
	connect_reply(c, status);
}

/* --- on the app thread --------------------------------------------------------------------- */

static struct nvmf_ctrlr *find_ctrlr(struct nvmf_subsystem *sub, uint16_t cntlid)
{
	struct list *it;

	list_for_each(it, &sub->ctrlrs) {
		struct nvmf_ctrlr *ctrlr = list_entry(it, struct nvmf_ctrlr, sub_link);

		if (ctrlr->cntlid == cntlid)
			return ctrlr;
	}
	return NULL;
}

/* The next free one in turn, so that a CNTLID is not used again soon; 0: none. */
static uint16_t pick_cntlid(struct nvmf_subsystem *sub)
{
	unsigned nr = sub->max_cntlid - sub->min_cntlid + 1u;

	if (sub->nr_ctrlrs >= nr)
		return 0;
	for (;;) {
		uint16_t cntlid = sub->next_cntlid;

		sub->next_cntlid = cntlid == sub->max_cntlid ? sub->min_cntlid : cntlid + 1;
		if (!find_ctrlr(sub, cntlid))
			return cntlid;
	}
}

bool nvmf_target_has_ctrlr(struct nvmf_target *target, const struct nvmf_transport_ops *ops, uint16_t cntlid)
{
	struct list *it;

	list_for_each(it, &target->subsystems) {
		const struct nvmf_ctrlr *ctrlr = find_ctrlr(list_entry(it, struct nvmf_subsystem, link), cntlid);

		if (ctrlr && ctrlr->ops == ops)
			return true;
	}
	return false;
}

static uint32_t depth_within(const struct nvmf_qpair *qpair, uint32_t depth)
{
	return qpair->max_queue_depth && qpair->max_queue_depth < depth ? qpair->max_queue_depth : depth;
}

static uint16_t connect_admin_app(struct connect *c, struct nvmf_subsystem *sub,
				  struct nvmf_listener *listener)
{
	struct nvmf_ctrlr *ctrlr;
	uint16_t cntlid;

	if (c->data.cntlid != NVME_CNTLID_DYNAMIC)
		return WRONG_DATA(c, cntlid);
	cntlid = pick_cntlid(sub);
	if (!cntlid)
		return NVME_SC_CONNECT_CTRLR_BUSY;
	ctrlr = calloc(1, sizeof(*ctrlr));
	if (!ctrlr)
		return NVME_SC_CONNECT_CTRLR_BUSY;
	ctrlr->subsystem = sub;
	ctrlr->group = c->qpair->group;
	ctrlr->listener = listener;
	ctrlr->opts = c->qpair->opts;
	ctrlr->ops = c->qpair->ops;
	ctrlr->cntlid = cntlid;
	ctrlr->max_queue_depth = depth_within(c->qpair, c->qpair->opts->max_queue_depth);
	ctrlr->discovery = sub->discovery;
	memcpy(ctrlr->host_nqn, c->data.hostnqn, sizeof(ctrlr->host_nqn));
	memcpy(ctrlr->host_id, c->data.hostid, sizeof(ctrlr->host_id));
	atomic_init(&ctrlr->refs, 2); /* the subsystem's and the qpair's */
	list_add_tail(&sub->ctrlrs, &ctrlr->sub_link);
	sub->nr_ctrlrs++;
	c->ctrlr = ctrlr;
	return NVME_SC_SUCCESS;
}

static uint16_t connect_io_app(struct connect *c, struct nvmf_subsystem *sub)
{
	struct nvmf_ctrlr *ctrlr;

	if (sub->discovery)
		return WRONG_COMMAND(c, qid);
	ctrlr = find_ctrlr(sub, c->data.cntlid);
	if (!ctrlr || ctrlr->ending)
		return WRONG_DATA(c, cntlid);
	if (strcmp(ctrlr->host_nqn, c->data.hostnqn))
		return WRONG_DATA(c, hostnqn);
	if (memcmp(ctrlr->host_id, c->data.hostid, sizeof(ctrlr->host_id)))
		return WRONG_DATA(c, hostid);
	c->ctrlr = nvmf_ctrlr_get(ctrlr);
	return NVME_SC_SUCCESS;
}

static void connect_app(void *arg)
{
	struct connect *c = arg;
	struct nvmf_target *target = c->qpair->group->target;
	struct nvmf_subsystem *sub = nvmf_subsystem_find(target, c->data.subnqn);
	struct nvmf_listener *listener = nvmf_listener_by_handle(target, c->qpair->ops, c->qpair->listener);
	uint16_t status;

	if (!sub || target->stopping || !nvmf_subsystem_listens(sub, listener))
		status = WRONG_DATA(c, subnqn);
	else if (!nvmf_subsystem_allows(sub, c->data.hostnqn))
		status = NVME_SC_CONNECT_INVALID_HOST | NVME_SC_DNR;
	else if (c->qid)
		status = connect_io_app(c, sub);
	else
		status = connect_admin_app(c, sub, listener);
	if (!nvmf_status_is_error(status) && sub->discovery && !c->kato_ms)
		c->kato_ms = NVMF_DISCOVERY_KATO_MS;
	if (nvmf_status_is_error(status) || !c->qid)
		connect_reply(c, status);
	else
		thread_send(c->ctrlr->group->thread, connect_io, c);
}

/* --- the beginning, on the connection's thread --------------------------------------------- */

uint16_t nvmf_connect_prepare(struct nvmf_req *req)
{
	if (req->qpair->connected || req->qpair->connecting)
		return NVME_SC_CMD_SEQUENCE_ERROR | NVME_SC_DNR;
	if (req->cmd.connect.recfmt)
		return NVME_SC_CONNECT_INCOMPATIBLE_FORMAT | NVME_SC_DNR;
	req->len = sizeof(struct nvme_connect_data);
	return NVME_SC_SUCCESS;
}

static uint16_t connect_check(struct connect *c)
{
	const struct nvmf_announced *announced = &c->qpair->announced;
	const union nvme_cmd *cmd = &c->req->cmd;
	const struct nvmf_transport_opts *opts = c->qpair->opts;
	uint32_t max = c->qid ? opts->max_queue_depth : opts->max_aq_depth;

	if (announced->is_set && announced->depth < max)
		max = announced->depth;
	if (c->qid > opts->max_io_qpairs_per_ctrlr || (announced->is_set && c->qid != announced->qid))
		return WRONG_COMMAND(c, qid);
	if (!cmd->connect.sqsize || c->sq_size > max)
		return WRONG_COMMAND(c, sqsize);
	if (announced->cntlid && c->data.cntlid != announced->cntlid)
		return WRONG_DATA(c, cntlid);
	if (!nvme_nqn_is_valid(c->data.subnqn, sizeof(c->data.subnqn)))
		return WRONG_DATA(c, subnqn);
	if (uuid_is_null(c->data.hostid))
		return WRONG_DATA(c, hostid);
	/* Hosts that do not say who they are exist (SPDK's perf is one); only where any host may come are
	 * they let in: doc/adr/0041-a-host-without-a-name.md. */
	if (c->data.hostnqn[0] && !nvme_nqn_is_valid(c->data.hostnqn, sizeof(c->data.hostnqn)))
		return WRONG_DATA(c, hostnqn);
	return NVME_SC_SUCCESS;
}

void nvmf_connect_execute(struct nvmf_req *req)
{
	struct connect *c = calloc(1, sizeof(*c));

	if (!c) {
		nvmf_req_complete(req, NVME_SC_CONNECT_CTRLR_BUSY);
		return;
	}
	c->req = req;
	c->qpair = req->qpair;
	c->qid = req->cmd.connect.qid;
	c->sq_size = req->cmd.connect.sqsize + 1u;
	c->kato_ms = req->cmd.connect.kato_ms;
	nvmf_req_get(req, 0, &c->data, sizeof(c->data));
	c->qpair->connecting = true;
	c->status = connect_check(c);
	if (nvmf_status_is_error(c->status))
		connect_finish(c);
	else
		thread_send(runtime_app_thread(), connect_app, c);
}

/* --- fabrics commands ---------------------------------------------------------------------- */

static void disconnect_execute(struct nvmf_req *req)
{
	struct nvmf_qpair *qpair = req->qpair;

	if (!qpair->qid) {
		nvmf_req_complete(req, NVME_SC_DISCONNECT_INVALID_QUEUE_TYPE | NVME_SC_DNR);
		return;
	}
	if (req->cmd.disconnect.recfmt) {
		nvmf_req_complete(req, NVME_SC_CONNECT_INCOMPATIBLE_FORMAT | NVME_SC_DNR);
		return;
	}
	nvmf_req_complete(req, NVME_SC_SUCCESS);
	nvmf_qpair_drain(qpair);
}

uint16_t nvmf_fabrics_prepare(struct nvmf_req *req)
{
	uint8_t fctype = req->cmd.fabrics.fctype;

	if (fctype == NVME_FCTYPE_CONNECT)
		return nvmf_connect_prepare(req);
	if (!req->qpair->connected)
		return NVME_SC_CMD_SEQUENCE_ERROR | NVME_SC_DNR;
	if (fctype == NVME_FCTYPE_DISCONNECT)
		return NVME_SC_SUCCESS;
	if (!req->qpair->qid && (fctype == NVME_FCTYPE_PROPERTY_GET || fctype == NVME_FCTYPE_PROPERTY_SET))
		return NVME_SC_SUCCESS;
	return NVME_SC_INVALID_OPCODE | NVME_SC_DNR;
}

void nvmf_fabrics_execute(struct nvmf_req *req)
{
	switch (req->cmd.fabrics.fctype) {
	case NVME_FCTYPE_CONNECT:
		nvmf_connect_execute(req);
		break;
	case NVME_FCTYPE_PROPERTY_GET:
		nvmf_property_get(req);
		break;
	case NVME_FCTYPE_PROPERTY_SET:
		nvmf_property_set(req);
		break;
	default:
		disconnect_execute(req);
	}
}

const struct nvmf_op nvmf_ops_unconnected[256] = {
	[NVME_OPC_FABRICS] = { nvmf_fabrics_prepare, nvmf_fabrics_execute, NVMF_OP_ANYTIME },
};
