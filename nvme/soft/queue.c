/*
 * The drive's queues: fetching commands, the script of faults, walking PRPs and SGLs, posting completions.
 *
 * A command is carried out when its time has come, not when it is fetched: the host's memory is read and written just before
 * the completion, so that a host that gave memory back too early is seen by the sanitizer.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/soft/internal.h"

/* --- completions ---------------------------------------------------------------------------------- */

static uint32_t doorbell(struct soft_drive *drive, unsigned idx)
{
	uint32_t at = idx * (4u << drive->opts.dstrd) / 4;

	if (drive->shadow && idx >= 2)
		return __atomic_load_n(&drive->shadow[at], __ATOMIC_ACQUIRE);
	return __atomic_load_n(&drive->doorbells[idx], __ATOMIC_ACQUIRE);
}

static void write_entry(struct soft_drive *drive, uint16_t cqid, struct nvme_cqe cqe, bool good_phase)
{
	struct soft_queue *cq = &drive->cq[cqid];
	struct nvme_cqe *at = (struct nvme_cqe *)soft_dma(cq->addr) + cq->tail;
	uint16_t field = (uint16_t)((cqe.status_field & ~1u) | (good_phase ? cq->phase : !cq->phase));

	memcpy(at, &cqe, offsetof(struct nvme_cqe, status_field));
	__atomic_store_n(&at->status_field, field, __ATOMIC_RELEASE);
	if (++cq->tail == cq->size) {
		cq->tail = 0;
		cq->phase ^= 1;
	}
}

static void post_entry(struct soft_drive *drive, uint16_t cqid, struct nvme_cqe cqe, bool good_phase)
{
	struct soft_queue *cq = &drive->cq[cqid];
	uint32_t head = doorbell(drive, 2u * cqid + 1), used;

	if (!cq->used || drive->silent || !drive->plugged || drive->gone)
		return;
	if (head >= cq->size) {
		soft_host_error(drive, "completion queue %u: head doorbell %u of %u", cqid, head, cq->size);
		return;
	}
	used = (cq->tail + cq->size - head) % cq->size;
	if (used == cq->size - 1u) {
		soft_host_error(drive, "completion queue %u overruns", cqid);
		return;
	}
	write_entry(drive, cqid, cqe, good_phase);
	if (cq->irq)
		soft_interrupt(drive, cq->vector);
}

void soft_post(struct soft_drive *drive, uint16_t sqid, uint16_t sqhd, uint16_t cid, uint16_t status, uint64_t result)
{
	struct nvme_cqe cqe = {.result = result, .sqhd = sqhd, .sqid = sqid, .cid = cid};

	nvme_cqe_set_status(&cqe, status);
	post_entry(drive, drive->sq[sqid].cqid, cqe, true);
}

void soft_command_free(struct soft_command *command)
{
	timer_cancel(&command->timer);
	list_del(&command->link);
	free(command);
}

void soft_complete(struct soft_command *command, uint16_t status, uint64_t result)
{
	struct soft_drive *drive = command->drive;
	uint16_t sqid = command->sqid, cqid = drive->sq[sqid].cqid;
	uint16_t cid = command->cmd.cid, sqhd = (uint16_t)drive->sq[sqid].head;
	struct nvme_cqe cqe = {.result = result, .sqhd = sqhd, .sqid = sqid, .cid = cid};
	enum soft_fault_kind kind = command->has_fault ? command->fault.kind : SOFT_DELAY;

	nvme_cqe_set_status(&cqe, status);
	if (kind == SOFT_WRONG_CID)
		cqe.cid = (uint16_t)(cid + command->fault.arg);
	if (kind == SOFT_WRONG_SQID)
		cqe.sqid = (uint16_t)(sqid + command->fault.arg);
	post_entry(drive, cqid, cqe, kind != SOFT_BAD_PHASE);
	if (kind == SOFT_TWICE)
		post_entry(drive, cqid, cqe, true);
	soft_command_free(command);
}

/* --- data ----------------------------------------------------------------------------------------- */

static bool data_add(struct soft_data *data, uint64_t addr, uint64_t len)
{
	if (data->nr == SOFT_MAX_XFER_IOVS)
		return false;
	data->iov[data->nr++] = (struct iovec){soft_dma(addr), len};
	data->len += len;
	return true;
}

static uint16_t map_prps(struct soft_drive *drive, const union nvme_cmd *cmd, uint64_t len, struct soft_data *data)
{
	uint64_t addr = cmd->prp1, n = SOFT_PAGE - addr % SOFT_PAGE;
	const uint64_t *list;
	unsigned idx = 0, room;

	if (!addr || addr % 4)
		goto bad;
	n = n < len ? n : len;
	data_add(data, addr, n);
	len -= n;
	if (!len)
		return 0;
	if (!cmd->prp2 || cmd->prp2 % (len > SOFT_PAGE ? 8 : SOFT_PAGE))
		goto bad;
	if (len <= SOFT_PAGE) {
		data_add(data, cmd->prp2, len);
		return 0;
	}
	list = soft_dma(cmd->prp2);
	room = (unsigned)((SOFT_PAGE - cmd->prp2 % SOFT_PAGE) / 8);
	while (len) {
		if (idx == room - 1 && len > SOFT_PAGE) { /* the last entry points at the next list */
			list = soft_dma(list[idx]);
			room = SOFT_PAGE / 8;
			idx = 0;
		}
		addr = list[idx++];
		n = len < SOFT_PAGE ? len : SOFT_PAGE;
		if (!addr || addr % SOFT_PAGE || !data_add(data, addr, n))
			goto bad;
		len -= n;
	}
	return 0;
bad:
	soft_host_error(drive, "opcode %02xh: bad PRP %llx, %llx", cmd->opcode, (unsigned long long)addr,
			(unsigned long long)cmd->prp2);
	return NVME_SC_PRP_OFFSET_INVALID;
}

static uint16_t map_sgl(struct soft_drive *drive, const union nvme_cmd *cmd, uint64_t len, struct soft_data *data)
{
	const struct nvme_sgl *list = &cmd->sgl;
	uint32_t nr = 1;

	drive->counters.nr_sgl++;
	if (cmd->sgl.type == NVME_SGL_TYPE(NVME_SGL_LAST_SEGMENT, 0)) {
		list = soft_dma(cmd->sgl.addr);
		nr = cmd->sgl.len / sizeof(*list);
	}
	for (uint32_t i = 0; i < nr; i++) {
		if (list[i].type || !data_add(data, list[i].addr, list[i].len)) {
			soft_host_error(drive, "opcode %02xh: SGL descriptor of type %02xh", cmd->opcode, list[i].type);
			return NVME_SC_SGL_TYPE_INVALID;
		}
	}
	if (data->len != len) {
		soft_host_error(drive, "opcode %02xh: SGL of %llu bytes for %llu", cmd->opcode,
				(unsigned long long)data->len, (unsigned long long)len);
		return NVME_SC_SGL_LENGTH_INVALID;
	}
	return 0;
}

uint16_t soft_data_map(struct soft_drive *drive, const union nvme_cmd *cmd, uint64_t len, struct soft_data *ret_data)
{
	ret_data->nr = 0;
	ret_data->len = 0;
	if (len > (uint64_t)SOFT_PAGE << drive->opts.mdts) {
		soft_host_error(drive, "opcode %02xh: %llu bytes are more than MDTS", cmd->opcode, (unsigned long long)len);
		return NVME_SC_INVALID_FIELD;
	}
	if (cmd->flags & NVME_CMD_PSDT_SGL) {
		if (drive->opts.sgl)
			return map_sgl(drive, cmd, len, ret_data);
		soft_host_error(drive, "an SGL where none is supported");
		return NVME_SC_INVALID_FIELD;
	}
	return map_prps(drive, cmd, len, ret_data);
}

uint16_t soft_data_out(struct soft_command *command, const void *from, uint64_t len)
{
	struct soft_data data;
	uint16_t status = soft_data_map(command->drive, &command->cmd, len, &data);
	const char *p = from;

	if (status)
		return status;
	for (unsigned i = 0; i < data.nr; i++) {
		if (command->has_fault && command->fault.kind == SOFT_GARBAGE)
			rand_bytes(data.iov[i].iov_base, data.iov[i].iov_len);
		else
			memcpy(data.iov[i].iov_base, p, data.iov[i].iov_len);
		p += data.iov[i].iov_len;
	}
	return 0;
}

/* --- fetching ------------------------------------------------------------------------------------- */

static bool fault_of(struct soft_drive *drive, const union nvme_cmd *cmd, bool admin, struct soft_fault *ret_fault)
{
	for (unsigned i = 0; i < drive->nr_faults; i++) {
		struct soft_fault *f = &drive->faults[i];

		if (f->admin != admin || !f->count || (f->opcode != SOFT_ANY_OPCODE && f->opcode != cmd->opcode))
			continue;
		if (f->cns && cmd->identify.cns != f->cns - 1)
			continue;
		if (f->skip) {
			f->skip--;
			continue;
		}
		f->count--;
		*ret_fault = *f;
		return true;
	}
	return false;
}

static void carry_out(void *arg)
{
	struct soft_command *command = arg;
	struct soft_drive *drive = command->drive;
	uint16_t status;

	if (command->epoch != drive->epoch) /* cannot be: a reset frees commands */
		return;
	if (command->has_fault && command->fault.kind == SOFT_STATUS) {
		soft_complete(command, (uint16_t)command->fault.arg, 0);
		return;
	}
	if (!command->sqid) {
		soft_admin(command);
		return;
	}
	status = soft_io(command);
	soft_complete(command, status, 0);
}

static uint64_t delay_of(const struct soft_command *command)
{
	const struct soft_opts *opts = &command->drive->opts;
	uint64_t delay_us = 0;

	if (command->sqid) {
		delay_us = opts->latency_us;
		if (opts->jitter_us)
			delay_us += rand_u64() % opts->jitter_us;
	}
	if (command->has_fault && command->fault.kind == SOFT_DELAY)
		delay_us += command->fault.arg;
	return delay_us;
}

/* Whether there are as many Aborts as the drive takes at a time; the new one is not among them. */
static bool too_many_aborts(const struct soft_drive *drive)
{
	unsigned nr = 0;
	struct list *it;

	list_for_each(it, &drive->commands) {
		const struct soft_command *command = list_entry(it, struct soft_command, link);

		nr += !command->sqid && command->cmd.opcode == NVME_ADMIN_ABORT;
	}
	return nr > SOFT_ACL;
}

static void begin(struct soft_drive *drive, uint16_t sqid, const union nvme_cmd *cmd)
{
	struct soft_command *command = calloc(1, sizeof(*command));
	uint64_t delay_us;

	if (!command)
		return;
	if (!sqid && cmd->opcode == NVME_ADMIN_ABORT && too_many_aborts(drive))
		soft_host_error(drive, "more than %u Aborts at a time", SOFT_ACL + 1);
	command->drive = drive;
	command->cmd = *cmd;
	command->sqid = sqid;
	command->epoch = drive->epoch;
	timer_init(&command->timer, carry_out, command);
	list_add_tail(&drive->commands, &command->link);
	command->has_fault = fault_of(drive, cmd, !sqid, &command->fault);
	if (command->has_fault) {
		switch (command->fault.kind) {
		case SOFT_DROP:
		case SOFT_STALL:
			command->held = true;
			return;
		case SOFT_FATAL:
			command->held = true;
			soft_set_fatal(drive);
			return;
		case SOFT_UNPLUG:
			if (command->fault.arg)
				soft_pull(drive);
			else
				soft_unplug(drive);
			return;
		default:
			break;
		}
	}
	delay_us = delay_of(command);
	if (delay_us)
		timer_arm(&command->timer, delay_us);
	else
		carry_out(command);
}

/* Takes what the tail doorbell announces.  False: the drive is not what it was. */
static bool fetch_queue(struct soft_drive *drive, uint16_t sqid)
{
	struct soft_queue *sq = &drive->sq[sqid];
	uint64_t epoch = drive->epoch;

	while (sq->used && !drive->silent) {
		uint32_t tail = doorbell(drive, 2u * sqid);
		union nvme_cmd cmd;

		if (tail >= sq->size) {
			soft_host_error(drive, "submission queue %u: tail doorbell %u of %u", sqid, tail, sq->size);
			return true;
		}
		if (tail == sq->head) {
			uint32_t at = 2u * sqid * (4u << drive->opts.dstrd) / 4;

			if (!drive->shadow || !sqid || drive->event[at] == tail)
				return true;
			/* Asks to be told of the next, and looks once more. */
			__atomic_store_n(&drive->event[at], tail, __ATOMIC_SEQ_CST);
			__atomic_thread_fence(__ATOMIC_SEQ_CST);
			continue;
		}
		memcpy(&cmd, (union nvme_cmd *)soft_dma(sq->addr) + sq->head, sizeof(cmd));
		if (++sq->head == sq->size)
			sq->head = 0;
		if (sqid)
			drive->counters.nr_io++;
		else
			drive->counters.nr_admin++;
		begin(drive, sqid, &cmd);
		if (drive->epoch != epoch)
			return false;
	}
	return true;
}

void soft_process(struct soft_drive *drive)
{
	for (uint16_t sqid = 0; sqid <= drive->opts.nr_io_queues; sqid++) {
		if (!fetch_queue(drive, sqid))
			return;
	}
}

void soft_fault_add(struct soft_drive *drive, const struct soft_fault *fault)
{
	assert(drive->nr_faults < SOFT_MAX_FAULTS);
	drive->faults[drive->nr_faults++] = *fault;
}

void soft_faults_clear(struct soft_drive *drive)
{
	drive->nr_faults = 0;
}
