/* I/O commands on the drive's namespaces: the volatile cache is a second copy of the medium, and what differs in it. */
#include <string.h>

#include "nvme/soft/internal.h"

static uint32_t block_size(const struct soft_command *command)
{
	return command->drive->opts.block_size;
}

static struct soft_ns *ns_of(const struct soft_command *command)
{
	uint32_t nsid = command->cmd.nsid;

	return nsid && nsid <= SOFT_MAX_NS && command->drive->ns[nsid].nr_blocks ? &command->drive->ns[nsid] : NULL;
}

static void flush_ns(struct soft_drive *drive, struct soft_ns *ns)
{
	uint32_t bs = drive->opts.block_size;

	for (uint64_t i = 0; i < ns->size_blocks; i++) {
		if (ns->dirty[i])
			memcpy(ns->durable + i * bs, ns->data + i * bs, bs);
		ns->dirty[i] = 0;
	}
}

void soft_flush(struct soft_drive *drive)
{
	for (unsigned i = 1; i <= SOFT_MAX_NS; i++) {
		if (drive->ns[i].data)
			flush_ns(drive, &drive->ns[i]);
	}
}

static bool cached(const struct soft_drive *drive)
{
	return drive->features[NVME_FID_VWC] & 1;
}

/* The range has new contents. */
static void changed(struct soft_command *command, struct soft_ns *ns, uint64_t slba, uint64_t nr, bool fua)
{
	uint32_t bs = block_size(command);

	command->drive->counters.nr_fua += fua;
	if (cached(command->drive) && (!fua || command->drive->opts.no_fua)) {
		memset(ns->dirty + slba, 1, nr);
		return;
	}
	memcpy(ns->durable + slba * bs, ns->data + slba * bs, nr * bs);
	memset(ns->dirty + slba, 0, nr);
}

static uint16_t move(struct soft_command *command, struct soft_ns *ns, uint64_t slba, uint64_t nr)
{
	uint64_t len = nr * block_size(command);
	uint8_t *at = ns->data + slba * block_size(command);
	struct soft_data data;
	uint16_t status;

	if (command->cmd.opcode == NVME_IO_READ)
		return soft_data_out(command, at, len);
	status = soft_data_map(command->drive, &command->cmd, len, &data);
	if (status)
		return status;
	for (unsigned i = 0; i < data.nr; i++) {
		if (command->cmd.opcode == NVME_IO_WRITE)
			memcpy(at, data.iov[i].iov_base, data.iov[i].iov_len);
		else if (memcmp(at, data.iov[i].iov_base, data.iov[i].iov_len))
			return NVME_SC_COMPARE_FAILURE | NVME_SC_DNR;
		at += data.iov[i].iov_len;
	}
	return 0;
}

static bool in_range(const struct soft_ns *ns, uint64_t slba, uint64_t nr)
{
	return slba <= ns->nr_blocks && nr <= ns->nr_blocks - slba;
}

/* What the host sends with the command, which is small. */
static uint16_t fetch(struct soft_command *command, void *to, uint64_t len)
{
	struct soft_data data;
	uint16_t status = soft_data_map(command->drive, &command->cmd, len, &data);
	char *p = to;

	for (unsigned i = 0; !status && i < data.nr; i++) {
		memcpy(p, data.iov[i].iov_base, data.iov[i].iov_len);
		p += data.iov[i].iov_len;
	}
	return status;
}

static uint16_t copy(struct soft_command *command, struct soft_ns *ns)
{
	struct nvme_copy_range sources[SOFT_MAX_SOURCES];
	const union nvme_cmd *cmd = &command->cmd;
	unsigned nr = cmd->copy.nr + 1u;
	uint64_t all = 0, to = cmd->copy.sdlba;
	uint32_t bs = block_size(command), max = command->drive->opts.mssrl;
	uint16_t status;

	if (!max)
		return NVME_SC_INVALID_OPCODE | NVME_SC_DNR;
	if (cmd->copy.format)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (nr > SOFT_MAX_SOURCES)
		return NVME_SC_CMD_SIZE_LIMIT | NVME_SC_DNR;
	status = fetch(command, sources, nr * sizeof(sources[0]));
	if (status)
		return status;
	for (unsigned i = 0; i < nr; i++) {
		if (!in_range(ns, sources[i].slba, sources[i].nlb + 1ull))
			return NVME_SC_LBA_OUT_OF_RANGE | NVME_SC_DNR;
		all += sources[i].nlb + 1ull;
	}
	if (all > max)
		return NVME_SC_CMD_SIZE_LIMIT | NVME_SC_DNR;
	if (!in_range(ns, to, all))
		return NVME_SC_LBA_OUT_OF_RANGE | NVME_SC_DNR;
	for (unsigned i = 0; i < nr; i++) {
		memmove(ns->data + to * bs, ns->data + sources[i].slba * bs, (sources[i].nlb + 1ull) * bs);
		to += sources[i].nlb + 1ull;
	}
	command->drive->counters.nr_copies++;
	changed(command, ns, cmd->copy.sdlba, all, cmd->copy.control & NVME_RW_FUA);
	return 0;
}

static uint16_t deallocate(struct soft_command *command, struct soft_ns *ns)
{
	struct nvme_dsm_range ranges[NVME_DSM_MAX_RANGES];
	unsigned nr = command->cmd.dsm.nr + 1u;
	uint16_t status = fetch(command, ranges, nr * sizeof(ranges[0]));

	if (status)
		return status;
	for (unsigned i = 0; i < nr; i++) {
		if (!in_range(ns, ranges[i].slba, ranges[i].nlb))
			return NVME_SC_LBA_OUT_OF_RANGE | NVME_SC_DNR;
		if (!(command->cmd.dsm.attributes & NVME_DSM_AD))
			continue;
		memset(ns->data + ranges[i].slba * block_size(command), 0, (uint64_t)ranges[i].nlb * block_size(command));
		changed(command, ns, ranges[i].slba, ranges[i].nlb, false);
	}
	return 0;
}

static uint16_t verify(struct soft_command *command, uint64_t nr)
{
	const struct soft_opts *opts = &command->drive->opts;

	if (opts->no_verify)
		return NVME_SC_INVALID_OPCODE | NVME_SC_DNR;
	if (opts->vsl && nr * opts->block_size > (uint64_t)SOFT_PAGE << opts->vsl) {
		soft_host_error(command->drive, "%llu blocks are more than VSL", (unsigned long long)nr);
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	}
	command->drive->counters.nr_verifies++;
	return 0;
}

uint16_t soft_io(struct soft_command *command)
{
	struct soft_drive *drive = command->drive;
	const union nvme_cmd *cmd = &command->cmd;
	struct soft_ns *ns = ns_of(command);
	uint64_t nr = cmd->rw.nlb + 1ull;
	bool fua = cmd->rw.control & NVME_RW_FUA;
	uint16_t status = 0;

	if (cmd->opcode == NVME_IO_FLUSH && cmd->nsid == NVME_NSID_ALL) {
		drive->counters.nr_flushes++;
		soft_flush(drive);
		return 0;
	}
	if (!ns)
		return NVME_SC_INVALID_NS | NVME_SC_DNR;
	if (drive->ana_state == NVME_ANA_INACCESSIBLE)
		return NVME_SC_ANA_INACCESSIBLE;
	if (drive->ana_state == NVME_ANA_PERSISTENT_LOSS)
		return NVME_SC_ANA_PERSISTENT_LOSS;
	switch (cmd->opcode) {
	case NVME_IO_FLUSH:
		drive->counters.nr_flushes++;
		flush_ns(drive, ns);
		return 0;
	case NVME_IO_DSM:
		return deallocate(command, ns);
	case NVME_IO_COPY:
		return copy(command, ns);
	case NVME_IO_READ:
	case NVME_IO_WRITE:
	case NVME_IO_COMPARE:
	case NVME_IO_VERIFY:
	case NVME_IO_WRITE_ZEROES:
		break;
	default:
		return NVME_SC_INVALID_OPCODE | NVME_SC_DNR;
	}
	if (!in_range(ns, cmd->rw.slba, nr))
		return NVME_SC_LBA_OUT_OF_RANGE | NVME_SC_DNR;
	switch (cmd->opcode) {
	case NVME_IO_WRITE_ZEROES:
		memset(ns->data + cmd->rw.slba * block_size(command), 0, nr * block_size(command));
		break;
	case NVME_IO_VERIFY:
		return verify(command, nr);
	default:
		status = move(command, ns, cmd->rw.slba, nr);
	}
	if (cmd->opcode == NVME_IO_READ) {
		drive->nr_reads++;
		drive->units_read += nr * block_size(command) / 512;
		return status;
	}
	if (cmd->opcode == NVME_IO_COMPARE || status)
		return status;
	drive->nr_writes++;
	drive->units_written += nr * block_size(command) / 512;
	changed(command, ns, cmd->rw.slba, nr, fua);
	return 0;
}
