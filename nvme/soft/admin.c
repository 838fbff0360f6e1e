/* Admin commands: Identify, queues, features, log pages, events, Abort, Doorbell Buffer Config, Format. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/soft/internal.h"

static void put_text(char *field, size_t len, const char *text)
{
	memset(field, ' ', len);
	memcpy(field, text, strlen(text) < len ? strlen(text) : len);
}

/* --- Identify ------------------------------------------------------------------------------------- */

static uint16_t nr_groups(const struct soft_opts *opts)
{
	return opts->ana_groups ? opts->ana_groups : 1;
}

static void identify_ctrlr(const struct soft_drive *drive, struct nvme_id_ctrlr *id)
{
	const struct soft_opts *opts = &drive->opts;

	id->vid = 0x1b36;
	put_text(id->sn, sizeof(id->sn), opts->serial);
	put_text(id->mn, sizeof(id->mn), opts->model ? opts->model : "Ferrule software drive");
	put_text(id->fr, sizeof(id->fr), "1.0");
	id->mdts = opts->mdts;
	id->cntlid = opts->cntlid ? opts->cntlid : 7;
	id->ver = NVME_VS(2, 0, 0);
	id->oaes = NVME_OAES_NS_ATTR | (opts->ana ? NVME_OAES_ANA : 0);
	if (opts->ana) {
		id->cmic = NVME_CMIC_MULTI_CTRLR | NVME_CMIC_ANA;
		id->anatt = 10;
		id->anagrpmax = id->nanagrpid = nr_groups(opts);
		id->mnan = SOFT_MAX_NS;
	}
	id->cntrltype = NVME_CNTRLTYPE_IO;
	id->oacs = NVME_OACS_FORMAT | (opts->shadow ? NVME_OACS_DOORBELL_BUFFER : 0);
	id->acl = SOFT_ACL;
	id->aerl = SOFT_MAX_AERS - 1;
	id->frmw = 0x02; /* one slot, written */
	id->lpa = NVME_LPA_EXTENDED;
	id->wctemp_k = 343;
	id->cctemp_k = 353;
	id->sqes = 0x66;
	id->cqes = 0x44;
	id->nn = SOFT_MAX_NS;
	id->oncs = NVME_ONCS_COMPARE | NVME_ONCS_DSM | NVME_ONCS_WRITE_ZEROES | (opts->no_verify ? 0 : NVME_ONCS_VERIFY) |
		   (opts->mssrl ? NVME_ONCS_COPY : 0);
	id->cdfs = opts->mssrl ? NVME_CDFS_FORMAT_0 : 0;
	id->vwc = (uint8_t)((opts->no_write_cache ? 0 : NVME_VWC_PRESENT) | NVME_VWC_FLUSH_ALL_YES);
	id->awupf = opts->awupf;
	id->awun = opts->awupf;
	id->sgls = opts->sgl ? NVME_SGLS_SUPPORTED : 0;
	if (opts->ids == SOFT_IDS_NEW)
		snprintf(id->subnqn, sizeof(id->subnqn), "nqn.2026-11.test:soft:%s", opts->serial);
}

static void identify_ns(const struct soft_drive *drive, uint32_t nsid, struct nvme_id_ns *id)
{
	const struct soft_ns *ns = nsid <= SOFT_MAX_NS ? &drive->ns[nsid] : NULL;
	uint8_t lbads = 0;

	if (!ns || !ns->nr_blocks)
		return;
	while (1u << lbads < drive->opts.block_size)
		lbads++;
	id->nsze = id->ncap = id->nuse = ns->nr_blocks;
	id->dlfeat = NVME_DLFEAT_READ_ZERO | NVME_DLFEAT_WZ_DEAC;
	id->anagrpid = drive->opts.ana ? nr_groups(&drive->opts) : 0;
	id->noiob = drive->opts.noiob;
	id->mssrl = drive->opts.mssrl;
	id->mcl = drive->opts.mssrl;
	id->msrc = SOFT_MAX_SOURCES - 1;
	if (drive->opts.npwg) {
		id->nsfeat |= NVME_NSFEAT_OPTPERF;
		id->npwg = id->npdg = drive->opts.npwg;
	}
	id->lbaf[0].lbads = lbads;
	if (drive->opts.ids == SOFT_IDS_NEW) {
		memcpy(id->nguid, drive->opts.serial, strlen(drive->opts.serial) < 12 ? strlen(drive->opts.serial) : 12);
		id->nguid[15] = (uint8_t)nsid;
	} else if (drive->opts.ids == SOFT_IDS_OLD) {
		memcpy(id->eui64, drive->opts.serial, strlen(drive->opts.serial) < 7 ? strlen(drive->opts.serial) : 7);
		id->eui64[7] = (uint8_t)nsid;
	}
}

static void identify_descriptors(const struct soft_drive *drive, uint32_t nsid, uint8_t *page)
{
	struct nvme_id_ns id = {0};

	identify_ns(drive, nsid, &id);
	if (drive->opts.ids == SOFT_IDS_NEW) {
		page[0] = NVME_NIDT_NGUID;
		page[1] = 16;
		memcpy(page + 4, id.nguid, 16);
		page += 20;
	}
	if (drive->opts.csi) {
		page[0] = NVME_NIDT_CSI;
		page[1] = 1;
		page[4] = drive->opts.csi;
	}
}

static void identify_active(const struct soft_drive *drive, uint32_t after, struct nvme_ns_list *list)
{
	unsigned nr = 0;

	for (uint32_t nsid = after + 1; nsid && nsid <= SOFT_MAX_NS; nsid++) {
		if (drive->ns[nsid].nr_blocks)
			list->nsid[nr++] = nsid;
	}
}

static uint16_t identify(struct soft_command *command)
{
	union {
		struct nvme_id_ctrlr ctrlr;
		struct nvme_id_ns ns;
		struct nvme_id_ctrlr_nvm nvm;
		struct nvme_ns_list list;
		uint8_t bytes[NVME_IDENTIFY_SIZE];
	} *page = calloc(1, sizeof(*page));
	const union nvme_cmd *cmd = &command->cmd;
	uint16_t status = 0;

	if (!page)
		return NVME_SC_INTERNAL_ERROR;
	switch (cmd->identify.cns) {
	case NVME_CNS_NS:
		if (!cmd->nsid || cmd->nsid > SOFT_MAX_NS)
			status = NVME_SC_INVALID_NS | NVME_SC_DNR;
		else
			identify_ns(command->drive, cmd->nsid, &page->ns);
		break;
	case NVME_CNS_CTRLR:
		identify_ctrlr(command->drive, &page->ctrlr);
		break;
	case NVME_CNS_IOCS_CTRLR:
		page->nvm.vsl = command->drive->opts.vsl;
		break;
	case NVME_CNS_ACTIVE_NS_LIST:
		identify_active(command->drive, cmd->nsid, &page->list);
		break;
	case NVME_CNS_NS_ID_DESCRIPTORS:
		identify_descriptors(command->drive, cmd->nsid, page->bytes);
		break;
	default:
		status = NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	}
	if (!status)
		status = soft_data_out(command, page, sizeof(*page));
	free(page);
	return status;
}

/* --- queues --------------------------------------------------------------------------------------- */

static uint16_t create_queue(struct soft_drive *drive, const union nvme_cmd *cmd, bool is_sq)
{
	uint16_t qid = cmd->queue.qid, other = cmd->queue.vector_or_cqid;
	uint32_t size = cmd->queue.qsize + 1u;
	struct soft_queue *q = is_sq ? drive->sq : drive->cq;
	void *memory;

	if (!qid || qid > drive->opts.nr_io_queues || q[qid].used)
		return NVME_SC_INVALID_QID | NVME_SC_DNR;
	if (size < 2 || size > drive->opts.max_entries)
		return NVME_SC_INVALID_QUEUE_SIZE | NVME_SC_DNR;
	if (is_sq && (!other || other > drive->opts.nr_io_queues || !drive->cq[other].used))
		return NVME_SC_CQ_INVALID | NVME_SC_DNR;
	if (!(cmd->queue.flags & NVME_QUEUE_CONTIGUOUS) || !cmd->prp1 || cmd->prp1 % SOFT_PAGE) {
		soft_host_error(drive, "queue %u at %llx", qid, (unsigned long long)cmd->prp1);
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	}
	memory = soft_queue_memory(drive, cmd->prp1, size * (uint64_t)(is_sq ? sizeof(union nvme_cmd) : sizeof(struct nvme_cqe)));
	if (!memory)
		return NVME_SC_CMB_INVALID | NVME_SC_DNR;
	__atomic_store_n(&drive->doorbells[2 * qid + !is_sq], 0, __ATOMIC_RELAXED);
	q[qid] = (struct soft_queue){.used = true, .size = (uint16_t)size, .addr = (uintptr_t)memory, .phase = 1};
	if (is_sq) {
		q[qid].cqid = other;
	} else {
		q[qid].vector = other;
		q[qid].irq = cmd->queue.flags & NVME_QUEUE_INTERRUPT;
	}
	return 0;
}

static uint16_t delete_queue(struct soft_drive *drive, uint16_t qid, bool is_sq)
{
	struct soft_queue *q = is_sq ? drive->sq : drive->cq;
	struct list *it, *tmp;

	if (!qid || qid > drive->opts.nr_io_queues || !q[qid].used)
		return NVME_SC_INVALID_QID | NVME_SC_DNR;
	for (unsigned i = 1; !is_sq && i < SOFT_MAX_QUEUES; i++) {
		if (drive->sq[i].used && drive->sq[i].cqid == qid) {
			soft_host_error(drive, "completion queue %u deleted before its submission queue", qid);
			return NVME_SC_INVALID_QID | NVME_SC_DNR;
		}
	}
	list_for_each_safe(it, tmp, &drive->commands) {
		struct soft_command *command = list_entry(it, struct soft_command, link);

		if (is_sq && command->sqid == qid)
			soft_complete(command, NVME_SC_ABORTED_SQ_DELETION, 0);
	}
	q[qid].used = false;
	return 0;
}

/* dw0 bit 0: not aborted.  A command that a fault has swallowed for good is not there to be aborted. */
static void abort_command(struct soft_command *command)
{
	struct soft_drive *drive = command->drive;
	struct list *it;
	bool aborted = false;

	drive->counters.nr_aborts++;
	list_for_each(it, &drive->commands) {
		struct soft_command *other = list_entry(it, struct soft_command, link);

		if (other == command || other->sqid != command->cmd.abort.sqid ||
		    other->cmd.cid != command->cmd.abort.cid)
			continue;
		if (other->has_fault && other->fault.kind == SOFT_DROP)
			break;
		aborted = true;
		soft_complete(other, NVME_SC_ABORT_REQUESTED, 0);
		break;
	}
	soft_complete(command, 0, !aborted);
}

/* --- features, logs, events ----------------------------------------------------------------------- */

static uint16_t features(struct soft_drive *drive, const union nvme_cmd *cmd, uint32_t *ret_dw0)
{
	uint8_t fid = (uint8_t)cmd->cdw10;
	bool set = cmd->opcode == NVME_ADMIN_SET_FEATURES;

	if (!fid || fid >= SOFT_MAX_FEATURES || (fid == NVME_FID_VWC && drive->opts.no_write_cache))
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (set && fid == NVME_FID_NR_QUEUES)
		drive->features[fid] = (drive->opts.nr_io_queues - 1u) << 16 | (drive->opts.nr_io_queues - 1u);
	else if (set)
		drive->features[fid] = cmd->cdw11;
	if (set && fid == NVME_FID_VWC && !(cmd->cdw11 & 1))
		soft_flush(drive);
	*ret_dw0 = drive->features[fid];
	return 0;
}

/* The last group has all the namespaces in it. */
static void fill_ana(struct soft_drive *drive, uint8_t *to)
{
	struct nvme_log_ana head = {.change_count = drive->ana_changes, .nr_groups = nr_groups(&drive->opts)};
	struct nvme_ana_group group = {.change_count = drive->ana_changes, .state = NVME_ANA_OPTIMIZED};

	memcpy(to, &head, sizeof(head));
	to += sizeof(head);
	for (group.grpid = 1; group.grpid < head.nr_groups; group.grpid++, to += sizeof(group))
		memcpy(to, &group, sizeof(group));
	group.state = (uint8_t)drive->ana_state;
	for (uint32_t nsid = 1; nsid <= SOFT_MAX_NS; nsid++) {
		if (drive->ns[nsid].nr_blocks)
			memcpy(to + sizeof(group) + 4 * group.nr_nsids++, &nsid, 4);
	}
	memcpy(to, &group, sizeof(group));
}

static uint16_t get_log(struct soft_command *command)
{
	struct soft_drive *drive = command->drive;
	const union nvme_cmd *cmd = &command->cmd;
	uint64_t len = nvme_get_log_len_bytes(cmd), offset = nvme_get_log_offset_bytes(cmd);
	union {
		struct nvme_log_smart smart;
		struct nvme_ns_list changed;
		uint8_t bytes[4 * 4096];
	} *log = calloc(1, sizeof(*log));
	uint16_t status;

	if (!log)
		return NVME_SC_INTERNAL_ERROR;
	switch (cmd->get_log.lid) {
	case NVME_LID_ERROR:
		break;
	case NVME_LID_SMART:
		drive->smart_event_masked = drive->smart_event_masked && (cmd->get_log.lsp & NVME_LOG_RAE);
		log->smart.critical_warning = drive->critical_warning;
		log->smart.temperature_k[0] = 313 & 0xff;
		log->smart.temperature_k[1] = 313 >> 8;
		log->smart.avail_spare = 100;
		log->smart.spare_threshold = 10;
		log->smart.data_units_read[0] = (drive->units_read + 999) / 1000;
		log->smart.data_units_written[0] = (drive->units_written + 999) / 1000;
		log->smart.host_reads[0] = drive->nr_reads;
		log->smart.host_writes[0] = drive->nr_writes;
		break;
	case NVME_LID_FIRMWARE_SLOT:
		log->bytes[0] = 1;
		memcpy(log->bytes + 8, "1.0     ", 8);
		break;
	case NVME_LID_CHANGED_NS:
		memcpy(log->changed.nsid, drive->changed, sizeof(drive->changed));
		if (!(cmd->get_log.lsp & NVME_LOG_RAE)) {
			memset(drive->changed, 0, sizeof(drive->changed));
			drive->ns_event_masked = false;
		}
		break;
	case NVME_LID_ANA:
		fill_ana(drive, log->bytes);
		drive->ana_event_masked = drive->ana_event_masked && (cmd->get_log.lsp & NVME_LOG_RAE);
		break;
	default:
		free(log);
		return NVME_SC_INVALID_LOG_PAGE | NVME_SC_DNR;
	}
	status = NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (offset <= sizeof(*log) && len <= sizeof(*log) - offset)
		status = soft_data_out(command, log->bytes + offset, len);
	free(log);
	return status;
}

void soft_event(struct soft_drive *drive, uint32_t dw0)
{
	if (!drive->nr_aers) {
		drive->pending_event = dw0 + 1;
		return;
	}
	union nvme_cmd cmd = drive->aers[--drive->nr_aers];

	soft_post(drive, 0, (uint16_t)drive->sq[0].head, cmd.cid, 0, dw0);
}

static void take_aer(struct soft_command *command)
{
	struct soft_drive *drive = command->drive;
	uint32_t pending = drive->pending_event;

	if (drive->nr_aers == SOFT_MAX_AERS) {
		soft_complete(command, NVME_SC_AER_LIMIT | NVME_SC_DNR, 0);
		return;
	}
	drive->aers[drive->nr_aers++] = command->cmd;
	soft_command_free(command);
	drive->pending_event = 0;
	if (pending)
		soft_event(drive, pending - 1);
}

static uint16_t doorbell_buffer(struct soft_drive *drive, const union nvme_cmd *cmd)
{
	if (!drive->opts.shadow || !cmd->prp1 || !cmd->prp2 || (cmd->prp1 | cmd->prp2) % SOFT_PAGE)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	drive->shadow = soft_dma(cmd->prp1);
	drive->event = soft_dma(cmd->prp2);
	return 0;
}

static uint16_t format(struct soft_drive *drive, const union nvme_cmd *cmd)
{
	for (uint32_t nsid = 1; nsid <= SOFT_MAX_NS; nsid++) {
		struct soft_ns *ns = &drive->ns[nsid];

		if (!ns->nr_blocks || (cmd->nsid != NVME_NSID_ALL && cmd->nsid != nsid))
			continue;
		memset(ns->data, 0, ns->size_blocks * drive->opts.block_size);
		memset(ns->durable, 0, ns->size_blocks * drive->opts.block_size);
		memset(ns->dirty, 0, ns->size_blocks);
	}
	return 0;
}

void soft_admin(struct soft_command *command)
{
	struct soft_drive *drive = command->drive;
	const union nvme_cmd *cmd = &command->cmd;
	uint32_t dw0 = 0;
	uint16_t status;

	switch (cmd->opcode) {
	case NVME_ADMIN_AER:
		take_aer(command);
		return;
	case NVME_ADMIN_ABORT:
		abort_command(command);
		return;
	case NVME_ADMIN_IDENTIFY:
		status = identify(command);
		break;
	case NVME_ADMIN_CREATE_IO_SQ:
	case NVME_ADMIN_CREATE_IO_CQ:
		status = create_queue(drive, cmd, cmd->opcode == NVME_ADMIN_CREATE_IO_SQ);
		break;
	case NVME_ADMIN_DELETE_IO_SQ:
	case NVME_ADMIN_DELETE_IO_CQ:
		status = delete_queue(drive, cmd->queue.qid, cmd->opcode == NVME_ADMIN_DELETE_IO_SQ);
		break;
	case NVME_ADMIN_SET_FEATURES:
	case NVME_ADMIN_GET_FEATURES:
		status = features(drive, cmd, &dw0);
		break;
	case NVME_ADMIN_GET_LOG_PAGE:
		status = get_log(command);
		break;
	case NVME_ADMIN_DOORBELL_BUFFER:
		status = doorbell_buffer(drive, cmd);
		break;
	case NVME_ADMIN_FORMAT_NVM:
		status = format(drive, cmd);
		break;
	default:
		status = NVME_SC_INVALID_OPCODE | NVME_SC_DNR;
	}
	soft_complete(command, status, dw0);
}
