/*
 * Asymmetric Namespace Access: which path may be used for which namespace, by the controller's log, and by the statuses with which it
 * refuses commands before its log or its event has said so.
 *
 * A refusal counts at once; it stands until the log shows a change, or for a second where the log says otherwise without one.
 * Source: NVM Express Base 2.0, 5.16.1.13 "Asymmetric Namespace Access", 8.1 "Asymmetric Namespace Access Reporting".
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/nvme_internal.h"

#define LOG_MAX	     (1u << 20)
#define LOG_PIECE    4096u
#define LOG_TRIES    4u
#define REFUSAL_US   1000000u /* that a refusal stands against a log that has not changed */
#define ANATT_DEFAULT_S 30u

void bdev_nvme_set_access(struct bdev_nvme_ns *ns, unsigned idx, enum bdev_nvme_access access)
{
	__atomic_store_n(&ns->access[idx], access, __ATOMIC_RELAXED);
}

/* --- the log ---------------------------------------------------------------------------------------- */

static void log_free(struct bdev_nvme_path *path)
{
	free(path->ana_log);
	path->ana_log = NULL;
	path->ana_len = 0;
}

void bdev_nvme_forget_ana(struct bdev_nvme_path *path)
{
	log_free(path);
	path->ana_asked = path->ana_moving = false;
}

/* The log up to @want bytes, a piece at a time.  0, -EPROTO when it has no end, or as nvme_execute. */
static fiber_fn int log_need(struct bdev_nvme_path *path, uint8_t **log, uint32_t *len, uint64_t want)
{
	while (*len < want) {
		uint8_t *more;
		int rc;

		if (want > LOG_MAX)
			return -EPROTO;
		more = realloc(*log, *len + LOG_PIECE);
		if (!more)
			return -ENOMEM;
		*log = more;
		rc = nvme_get_log(path->nvme, NVME_LID_ANA, 0, 0, *len, more + *len, LOG_PIECE);
		if (rc)
			return rc;
		*len += LOG_PIECE;
	}
	return 0;
}

/* The whole log as the controller gives it now, every length of it within what was read. */
static fiber_fn int log_pieces(struct bdev_nvme_path *path, uint8_t **log, uint32_t *len)
{
	struct nvme_log_ana head;
	struct nvme_ana_group group;
	uint64_t at = sizeof(head);
	int rc;

	rc = log_need(path, log, len, at);
	if (rc)
		return rc;
	memcpy(&head, *log, sizeof(head));
	for (unsigned i = 0; i < head.nr_groups; i++) {
		rc = log_need(path, log, len, at + sizeof(group));
		if (rc)
			return rc;
		memcpy(&group, *log + at, sizeof(group));
		at += sizeof(group) + (uint64_t)group.nr_nsids * 4;
		rc = log_need(path, log, len, at);
		if (rc)
			return rc;
	}
	return 0;
}

static uint64_t change_count(const uint8_t *log)
{
	struct nvme_log_ana head;

	memcpy(&head, log, sizeof(head));
	return head.change_count;
}

/* Pieces of one log: read again when it changed under way. */
static fiber_fn int log_read(struct bdev_nvme_path *path, uint8_t **log, uint32_t *len)
{
	for (unsigned i = 0; i < LOG_TRIES; i++) {
		uint8_t head[sizeof(struct nvme_log_ana)];
		int rc;

		*len = 0;
		rc = log_pieces(path, log, len);
		if (rc || *len <= LOG_PIECE)
			return rc;
		rc = nvme_get_log(path->nvme, NVME_LID_ANA, 0, 0, 0, head, sizeof(head));
		if (rc || change_count(head) == change_count(*log))
			return rc;
	}
	return -EAGAIN;
}

/* --- what it says ------------------------------------------------------------------------------------ */

static enum bdev_nvme_access access_of(uint8_t state)
{
	switch (state & 0xf) {
	case NVME_ANA_OPTIMIZED:
		return ACCESS_OPTIMIZED;
	case NVME_ANA_NON_OPTIMIZED:
		return ACCESS_NON_OPTIMIZED;
	case NVME_ANA_PERSISTENT_LOSS:
		return ACCESS_LOST;
	case NVME_ANA_CHANGE:
		return ACCESS_CHANGE;
	default:
		return ACCESS_INACCESSIBLE;
	}
}

/* By its NSID, or where no group lists that, by its group. */
enum bdev_nvme_access bdev_nvme_ana_access(const struct bdev_nvme_path *path, const struct nvme_ns *ns)
{
	enum bdev_nvme_access by_group = ACCESS_INACCESSIBLE; /* in no group that we know: a later reading says */
	struct nvme_log_ana head;
	struct nvme_ana_group group;
	uint64_t at = sizeof(head);

	if (!(nvme_ctrlr_id(path->nvme)->cmic & NVME_CMIC_ANA))
		return ACCESS_OPTIMIZED;
	if (!path->ana_log)
		return ACCESS_NON_OPTIMIZED; /* nobody knows: after those that are known to be good */
	memcpy(&head, path->ana_log, sizeof(head));
	for (unsigned i = 0; i < head.nr_groups; i++) {
		memcpy(&group, path->ana_log + at, sizeof(group));
		at += sizeof(group);
		for (uint32_t n = 0; n < group.nr_nsids; n++, at += 4) {
			uint32_t nsid;

			memcpy(&nsid, path->ana_log + at, sizeof(nsid));
			if (nsid == ns->nsid)
				return access_of(group.state);
		}
		if (ns->id.anagrpid && group.grpid == ns->id.anagrpid)
			by_group = access_of(group.state);
	}
	return by_group;
}

/* Those that the path shows have what the log says; a refusal that is fresh holds against a log that has not changed. */
static void apply(struct bdev_nvme_path *path, bool changed)
{
	bool moving = false, watching = false;
	struct list *it;

	list_for_each(it, &path->ctrlr->namespaces) {
		struct bdev_nvme_ns *ns = list_entry(it, struct bdev_nvme_ns, link);
		uint64_t refused_us = __atomic_load_n(&ns->refused_us[path->idx], __ATOMIC_RELAXED);
		enum bdev_nvme_access access;

		if (ns->access[path->idx] == ACCESS_NONE)
			continue;
		access = bdev_nvme_ana_access(path, &ns->ns);
		moving = moving || access == ACCESS_CHANGE;
		watching = watching || access > ACCESS_OPTIMIZED;
		if (access <= ACCESS_OPTIMIZED && !changed && refused_us && clock_now_us() - refused_us < REFUSAL_US)
			watching = true;
		else
			bdev_nvme_set_access(ns, path->idx, access);
	}
	if (moving && !path->ana_moving)
		path->ana_moving_since_us = clock_now_us();
	path->ana_moving = moving;
	path->look_at_ana = watching;
}

/* What takes longer than the controller says it takes at most is a path that has failed. */
static void check_transition(struct bdev_nvme_path *path)
{
	unsigned limit_s = nvme_ctrlr_id(path->nvme)->anatt;

	if (!limit_s)
		limit_s = ANATT_DEFAULT_S;
	if (!path->ana_moving || clock_now_us() - path->ana_moving_since_us <= limit_s * 1000000ull)
		return;
	log_warning("%s: path %u changes its access for more than %u s: it is reset", path->ctrlr->name, path->idx, limit_s);
	path->reset_asked = true;
}

fiber_fn void bdev_nvme_read_ana(struct bdev_nvme_path *path)
{
	uint8_t *log = NULL;
	bool changed;
	uint32_t len;
	int rc;

	path->ana_asked = false;
	if (!(nvme_ctrlr_id(path->nvme)->cmic & NVME_CMIC_ANA)) {
		apply(path, false);
		return;
	}
	rc = log_read(path, &log, &len);
	if (rc) {
		free(log);
		if (!path->ana_unread && nvme_qpair_is_live(nvme_ctrlr_admin(path->nvme)))
			log_warning("%s: path %u does not give its ANA log (%d): what is known of it stays so", path->ctrlr->name,
				    path->idx, rc);
		path->ana_unread = path->look_at_ana = true;
		return;
	}
	changed = path->ana_log && change_count(path->ana_log) != change_count(log);
	log_free(path);
	path->ana_log = log;
	path->ana_len = len;
	path->ana_unread = false;
	apply(path, changed);
	check_transition(path);
	bdev_nvme_channels_kick(path->ctrlr);
}

/* --- refusals ---------------------------------------------------------------------------------------- */

/* On the app thread.  The channel that sent this is still there, and with it the controller. */
static void refusals_arrived(void *arg)
{
	struct bdev_nvme_ctrlr *ctrlr = arg;
	uint32_t refused = __atomic_exchange_n(&ctrlr->refused, 0, __ATOMIC_ACQUIRE);

	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
		if (!(refused & 1u << i) || !ctrlr->paths[i])
			continue;
		ctrlr->paths[i]->ana_asked = true;
		fiber_cond_signal(&ctrlr->paths[i]->asked);
	}
}

void bdev_nvme_refused(struct bdev_nvme_ns *ns, unsigned idx, uint16_t status)
{
	uint8_t access = ACCESS_INACCESSIBLE, was = __atomic_load_n(&ns->access[idx], __ATOMIC_RELAXED);

	if (nvme_status_code(status) == NVME_SC_ANA_PERSISTENT_LOSS)
		access = ACCESS_LOST;
	else if (nvme_status_code(status) == NVME_SC_ANA_TRANSITION)
		access = ACCESS_CHANGE;
	__atomic_store_n(&ns->refused_us[idx], clock_now_us(), __ATOMIC_RELAXED);
	/* A path that is going has nothing to be said of. */
	do {
		if (was == ACCESS_NONE)
			return;
	} while (!__atomic_compare_exchange_n(&ns->access[idx], &was, access, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	if (!(__atomic_fetch_or(&ns->ctrlr->refused, 1u << idx, __ATOMIC_RELEASE) & 1u << idx))
		thread_send(runtime_app_thread(), refusals_arrived, ns->ctrlr);
}
