/*
 * Commands from outside: admin commands on the first live path's admin queue, I/O commands on a queue of any of its channels.
 *
 * The controller's mutex keeps channels from going during an I/O command.  An admin command may take an hour and holds up nothing: it
 * ends with its path.  A command that changes namespaces has them scanned
 * afterwards, whether or not the controller tells of it.
 */
#include <errno.h>
#include <string.h>

#include "bdev/nvme_internal.h"

#define QUEUE_WAIT_US 5000000u
#define QUEUE_POLL_US 1000u
#define FORMAT_LIMIT_MS 3600000u

static struct bdev_nvme_path *live_path(const struct bdev_nvme_ctrlr *ctrlr)
{
	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
		struct bdev_nvme_path *path = ctrlr->paths[i];

		if (path && path->nvme && path->state == BDEV_NVME_LIVE)
			return path;
	}
	return NULL;
}

/* What a drive does to all of its medium while we wait. */
static uint32_t limit_ms(uint8_t opcode, uint32_t asked_ms)
{
	if (asked_ms)
		return asked_ms;
	return opcode == NVME_ADMIN_FORMAT_NVM ? FORMAT_LIMIT_MS : 0;
}

static bool changes_namespaces(uint8_t opcode)
{
	return opcode == NVME_ADMIN_FORMAT_NVM || opcode == NVME_ADMIN_NS_MANAGEMENT || opcode == NVME_ADMIN_NS_ATTACHMENT;
}

static void ask_for_scans(const struct bdev_nvme_ctrlr *ctrlr)
{
	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
		if (!ctrlr->paths[i])
			continue;
		ctrlr->paths[i]->rescan_asked = true;
		fiber_cond_signal(&ctrlr->paths[i]->asked);
	}
}

fiber_fn int bdev_nvme_admin(const char *name, const union nvme_cmd *cmd, void *buf, uint32_t len_bytes, uint32_t timeout_ms,
			     struct nvme_cqe *ret_cqe)
{
	struct bdev_nvme_ctrlr *ctrlr = bdev_nvme_find(name);
	struct bdev_nvme_path *path;
	int rc = -ENODEV;

	if (!ctrlr)
		return -ENODEV;
	ctrlr->nr_users++;
	path = live_path(ctrlr);
	if (path)
		rc = nvme_execute_guarded(nvme_ctrlr_admin(path->nvme), cmd, buf, len_bytes, limit_ms(cmd->opcode, timeout_ms),
					  ret_cqe);
	if (!rc && changes_namespaces(cmd->opcode))
		ask_for_scans(ctrlr);
	ctrlr->nr_users--;
	return rc;
}

fiber_fn int bdev_nvme_smart(const char *name, struct nvme_log_smart *ret_smart)
{
	union nvme_cmd cmd = { .opcode = NVME_ADMIN_GET_LOG_PAGE, .nsid = NVME_NSID_ALL };

	cmd.get_log.lid = NVME_LID_SMART;
	cmd.get_log.numdl = sizeof(*ret_smart) / 4 - 1;
	return bdev_nvme_admin(name, &cmd, ret_smart, sizeof(*ret_smart), 0, NULL);
}

/* --- I/O commands ----------------------------------------------------------------------------------- */

struct pass_call {
	struct bdev_nvme_channel *nch;
	unsigned path_idx;
	const union nvme_cmd *cmd;
	void *buf;
	uint32_t len_bytes, timeout_ms;
	struct nvme_cqe *ret_cqe;
};

/* On the channel's thread. */
static fiber_fn int pass(void *arg)
{
	const struct pass_call *call = arg;

	return nvme_execute_guarded(call->nch->qpairs[call->path_idx], call->cmd, call->buf, call->len_bytes, call->timeout_ms,
				    call->ret_cqe);
}

/* A channel that has a queue on a live path; false: none. */
static bool find_queue(const struct bdev_nvme_ctrlr *ctrlr, struct pass_call *call)
{
	const struct bdev_nvme_path *path = live_path(ctrlr);
	struct list *it;

	if (!path)
		return false;
	list_for_each(it, &ctrlr->channels) {
		struct bdev_nvme_channel *nch = list_entry(it, struct bdev_nvme_channel, link);

		if (!nch->qids[path->idx])
			continue;
		call->nch = nch;
		call->path_idx = path->idx;
		return true;
	}
	return false;
}

/* A channel of our own has a queue sooner or later, unless others have them all. */
static fiber_fn int pass_when_possible(struct bdev_nvme_ctrlr *ctrlr, struct pass_call *call)
{
	uint64_t until_us = clock_now_us() + QUEUE_WAIT_US;
	int rc;

	for (;;) {
		fiber_lock(&ctrlr->mutex);
		if (find_queue(ctrlr, call)) {
			rc = thread_call_fiber(call->nch->thread, pass, call);
			fiber_unlock(&ctrlr->mutex);
			return rc;
		}
		fiber_unlock(&ctrlr->mutex);
		if (ctrlr->ending || !live_path(ctrlr) || clock_now_us() >= until_us)
			return -ENODEV;
		fiber_sleep(QUEUE_POLL_US);
	}
}

fiber_fn int bdev_nvme_io(const char *name, const union nvme_cmd *cmd, void *buf, uint32_t len_bytes, uint32_t timeout_ms,
			  struct nvme_cqe *ret_cqe)
{
	struct pass_call call = { .cmd = cmd, .buf = buf, .len_bytes = len_bytes, .timeout_ms = timeout_ms, .ret_cqe = ret_cqe };
	struct bdev_nvme_ctrlr *ctrlr = bdev_nvme_find(name);
	struct channel *channel;
	int rc;

	if (!ctrlr || ctrlr->ending)
		return -ENODEV;
	channel = channel_get(ctrlr);
	if (!channel)
		return -ENOMEM;
	ctrlr->nr_users++;
	rc = pass_when_possible(ctrlr, &call);
	ctrlr->nr_users--;
	channel_put(channel);
	return rc;
}
