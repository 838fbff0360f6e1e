/* The methods that change the NVMe-oF target: transports, subsystems, hosts. */
#include "mgmt/methods_nvmf.h"
#include "nvmf/transport.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TARGET_NAME    "nvmf_tgt"
#define MAX_IN_CAPSULE (64u * 1024)

static struct nvmf_target *the_target;

/* --- what they share ------------------------------------------------------------------------------------------------ */

void nvmf_methods_init(struct nvmf_target *target)
{
	the_target = target;
}

struct nvmf_target *target_of_call(struct rpc_call *call)
{
	const char *name = rpc_string(call, "tgt_name", TARGET_NAME);

	if (strcmp(name, TARGET_NAME) == 0)
		return the_target;
	rpc_fail(call, RPC_INTERNAL_ERROR, "Unable to find a target.", "there is one target, of the name " TARGET_NAME);
	rpc_blame(call, "tgt_name");
	return NULL;
}

struct nvmf_subsystem *subsystem_of_call(struct rpc_call *call)
{
	struct nvmf_target *target = target_of_call(call);
	const char *nqn = rpc_string(call, "nqn", "");
	struct nvmf_subsystem *subsystem = target ? nvmf_subsystem_find(target, nqn) : NULL;

	if (target && !subsystem)
		rpc_fail_param(call, "nqn", "there is no subsystem %.223s; nvmf_get_subsystems lists them", nqn);
	return subsystem;
}

/* What all of them may get besides their own errors. */
void nvmf_failed(struct rpc_call *call, const char *key, int rc)
{
	switch (rc) {
	case -EBUSY:
		rpc_fail_param(call, key, "the subsystem is being deleted, or the device is another's");
		break;
	case -EPERM:
		rpc_fail_param(call, key, "the discovery subsystem cannot be changed");
		break;
	case -ENOMEM:
		rpc_fail(call, RPC_INTERNAL_ERROR, "Internal error", "out of memory");
		break;
	default:
		rpc_fail_param(call, key, "%s", strerror(-rc));
	}
}

/* --- transports ----------------------------------------------------------------------------------------------------- */

static const struct rpc_param create_transport_params[] = {
	{ "trtype", RPC_STRING, RPC_REQUIRED, NULL },
	{ "tgt_name", RPC_STRING, 0, NULL },
	{ "max_queue_depth", RPC_U16, 0, NULL },
	{ "max_io_qpairs_per_ctrlr", RPC_U16, 0, NULL },
	{ "in_capsule_data_size", RPC_U32, 0, NULL },
	{ "max_io_size", RPC_U32, 0, NULL },
	{ "max_aq_depth", RPC_U32, 0, NULL },
	{ "abort_timeout_sec", RPC_U32, 0, NULL },
	{ "acceptor_backlog", RPC_U32, 0, NULL },
	{ "sock_priority", RPC_U32, 0, NULL },
	{ "c2h_success", RPC_BOOL, 0, NULL },
	{ "max_srq_depth", RPC_U32, 0, NULL },
	{ "no_srq", RPC_BOOL, 0, NULL },
	{ NULL, 0, 0, NULL },
};

/* A limit below its range is refused; one above is what the target can do at most, since clients ask for other targets'. */
static bool take_limit(struct rpc_call *call, const char *key, uint32_t min, uint32_t max, uint32_t *limit)
{
	uint64_t value = rpc_u64(call, key, *limit);

	if (value < min) {
		rpc_fail_param(call, key, "%s is at least %u", key, min);
		return false;
	}
	*limit = value > max ? max : (uint32_t)value;
	return true;
}

/* A transport that was created before stays, whatever this daemon may do; its connections say so. */
static bool take_priority(struct rpc_call *call, uint32_t *priority)
{
	*priority = (uint32_t)rpc_u64(call, "sock_priority", *priority);
	if (*priority > INT_MAX) {
		rpc_fail_param(call, "sock_priority", "sock_priority is at most %d", INT_MAX);
		return false;
	}
	if (*priority && !call->replay && stream_check_priority((int)*priority)) {
		rpc_fail_param(call, "sock_priority",
			       "the daemon may not set SO_PRIORITY to %u: above 6 it needs CAP_NET_ADMIN", *priority);
		return false;
	}
	return true;
}

static bool transport_opts_of_call(struct rpc_call *call, struct nvmf_transport_opts *o)
{
	o->abort_timeout_sec = (uint32_t)rpc_u64(call, "abort_timeout_sec", o->abort_timeout_sec);
	o->acceptor_backlog = (uint32_t)rpc_u64(call, "acceptor_backlog", o->acceptor_backlog);
	o->c2h_success = rpc_bool(call, "c2h_success", o->c2h_success);
	o->no_srq = rpc_bool(call, "no_srq", o->no_srq);
	if (!take_priority(call, &o->sock_priority) || !take_limit(call, "max_queue_depth", 2, 4096, &o->max_queue_depth) ||
	    !take_limit(call, "max_io_qpairs_per_ctrlr", 1, NVMF_MAX_IO_QUEUES, &o->max_io_qpairs_per_ctrlr) ||
	    !take_limit(call, "in_capsule_data_size", 0, MAX_IN_CAPSULE, &o->in_capsule_data_size) ||
	    !take_limit(call, "max_io_size", 4096, NVMF_MAX_XFER, &o->max_io_size) ||
	    !take_limit(call, "max_aq_depth", 32, 4096, &o->max_aq_depth) ||
	    (o->max_srq_depth && !take_limit(call, "max_srq_depth", 16, 32768, &o->max_srq_depth)))
		return false;
	if (o->in_capsule_data_size % 16) {
		rpc_fail_param(call, "in_capsule_data_size", "in_capsule_data_size is a multiple of 16");
		return false;
	}
	if (o->max_io_size & (o->max_io_size - 1)) {
		rpc_fail_param(call, "max_io_size", "max_io_size is a power of two");
		return false;
	}
	return true;
}

/* A transport that was created before stays, whatever this machine has got now: its listeners say so. */
static bool transport_is_possible(struct rpc_call *call, struct nvmf_target *target, const char *trtype,
				  const struct nvmf_transport_opts *opts)
{
	char message[128], why[256];

	if (call->replay || nvmf_transport_check(target, trtype, opts, why, sizeof(why)) == 0)
		return true;
	snprintf(message, sizeof(message), "Transport type '%.64s' create failed", trtype);
	rpc_fail(call, RPC_INTERNAL_ERROR, message, "%s", why);
	return false;
}

static fiber_fn void create_transport(struct rpc_call *call)
{
	struct nvmf_target *target = target_of_call(call);
	const char *trtype = rpc_string(call, "trtype", "");
	struct nvmf_transport_opts opts;
	char message[128];
	int rc;

	if (!target)
		return;
	rc = nvmf_transport_default_opts(target, trtype, &opts);
	if (rc) {
		snprintf(message, sizeof(message), "Invalid transport type '%.64s'", trtype);
		rpc_fail(call, RPC_INVALID_PARAMS, message, "trtype is TCP or RDMA");
		rpc_blame(call, "trtype");
		return;
	}
	if (!transport_opts_of_call(call, &opts) || !transport_is_possible(call, target, trtype, &opts))
		return;
	rc = nvmf_transport_create(target, trtype, &opts);
	if (rc == 0) {
		char key[16] = "";

		for (size_t i = 0; i < sizeof(key) - 1 && trtype[i]; i++)
			key[i] = (char)(trtype[i] >= 'a' && trtype[i] <= 'z' ? trtype[i] - 32 : trtype[i]);
		rpc_save(call, STATE_TRANSPORT, "", key);
		rpc_ok(call, NULL);
	} else if (rc == -EEXIST) {
		snprintf(message, sizeof(message), "Transport type '%.64s' already exists", trtype);
		rpc_fail(call, RPC_INVALID_PARAMS, message, "its limits are those of its first creation");
		rpc_blame(call, "trtype");
	} else {
		snprintf(message, sizeof(message), "Transport type '%.64s' create failed", trtype);
		rpc_fail(call, RPC_INTERNAL_ERROR, message, "%s", strerror(-rc));
	}
}

/* --- subsystems ----------------------------------------------------------------------------------------------------- */

static const struct rpc_param create_subsystem_params[] = {
	{ "nqn", RPC_STRING, RPC_REQUIRED, NULL },
	{ "tgt_name", RPC_STRING, 0, NULL },
	{ "serial_number", RPC_STRING, 0, NULL },
	{ "model_number", RPC_STRING, 0, NULL },
	{ "admin_label", RPC_STRING, RPC_IGNORED, NULL },
	{ "max_namespaces", RPC_U32, RPC_LOOSE, NULL },
	{ "allow_any_host", RPC_BOOL, 0, NULL },
	{ "ana_reporting", RPC_BOOL, RPC_IGNORED, NULL }, /* every orchestrator asks for it */
	{ "min_cntlid", RPC_U16, 0, NULL },
	{ "max_cntlid", RPC_U16, 0, NULL },
	{ "dmrsl", RPC_U32, 0, NULL },
	{ "wzsl", RPC_U16, 0, NULL },
	{ "max_discard_size_kib", RPC_U64, 0, NULL },
	{ "max_write_zeroes_size_kib", RPC_U64, 0, NULL },
	{ "passthrough", RPC_BOOL, 0, NULL },
	{ "enable_nssr", RPC_BOOL, RPC_IGNORED, NULL },
	{ NULL, 0, 0, NULL },
};

/* Older clients give sizes in KiB: DMRSL is in blocks of 512 bytes then, WZSL a power of two of 4 KiB. */
static void old_size_limits(const struct rpc_call *call, struct nvmf_subsystem_opts *opts)
{
	uint64_t discard_kib = rpc_u64(call, "max_discard_size_kib", 0);
	uint64_t zeroes_kib = rpc_u64(call, "max_write_zeroes_size_kib", 0);

	if (!opts->dmrsl && discard_kib)
		opts->dmrsl = discard_kib > UINT32_MAX / 2 ? UINT32_MAX : (uint32_t)(discard_kib * 2);
	if (!opts->wzsl && zeroes_kib >= 8)
		opts->wzsl = (uint8_t)(63 - __builtin_clzll(zeroes_kib / 4));
}

static bool printable(const char *text, size_t max)
{
	size_t len = strlen(text);

	for (size_t i = 0; i < len; i++) {
		if (text[i] < 0x20 || text[i] > 0x7e)
			return false;
	}
	return len && len <= max;
}

/* Refuses what nvmf would refuse without saying which. */
static int check_subsystem(struct rpc_call *call, const struct nvmf_subsystem_opts *opts)
{
	uint16_t max_cntlid = opts->max_cntlid ? opts->max_cntlid : 0xffef;
	char message[512];

	if (opts->serial && !printable(opts->serial, NVMF_SERIAL_MAX)) {
		snprintf(message, sizeof(message), "Subsystem %.223s: invalid serial number '%.64s'", opts->nqn, opts->serial);
		rpc_fail(call, RPC_INVALID_PARAMS, message, "serial_number is 1 to %d printable ASCII characters",
			 NVMF_SERIAL_MAX);
		rpc_blame(call, "serial_number");
		return -EINVAL;
	}
	if (opts->model && !printable(opts->model, NVMF_MODEL_MAX)) {
		snprintf(message, sizeof(message), "Subsystem %.223s: invalid model number '%.64s'", opts->nqn, opts->model);
		rpc_fail(call, RPC_INVALID_PARAMS, message, "model_number is 1 to %d printable ASCII characters",
			 NVMF_MODEL_MAX);
		rpc_blame(call, "model_number");
		return -EINVAL;
	}
	if (opts->max_namespaces > 65535 || (rpc_has(call, "max_namespaces") && !opts->max_namespaces)) {
		rpc_fail_param(call, "max_namespaces", "max_namespaces is 1 to 65535");
		return -EINVAL;
	}
	if (opts->min_cntlid > max_cntlid || max_cntlid > 0xffef) {
		snprintf(message, sizeof(message), "Subsystem %.223s: invalid cntlid range [%u-%u]", opts->nqn,
			 opts->min_cntlid ? opts->min_cntlid : 1, max_cntlid);
		rpc_fail(call, RPC_INVALID_PARAMS, message, "min_cntlid is at least 1, max_cntlid no less and at most 65519");
		rpc_blame(call, "max_cntlid");
		return -EINVAL;
	}
	if (rpc_bool(call, "passthrough", false)) {
		rpc_fail_param(call, "passthrough", "passthrough subsystems are not offered: leave it out");
		return -EINVAL;
	}
	return 0;
}

static fiber_fn void create_subsystem(struct rpc_call *call)
{
	struct nvmf_target *target = target_of_call(call);
	struct nvmf_subsystem_opts opts = {
		.nqn = rpc_string(call, "nqn", ""),
		.serial = rpc_string(call, "serial_number", NULL),
		.model = rpc_string(call, "model_number", NULL),
		.max_namespaces = (uint32_t)rpc_u64(call, "max_namespaces", 0),
		.allow_any_host = rpc_bool(call, "allow_any_host", false),
		.min_cntlid = (uint16_t)rpc_u64(call, "min_cntlid", 0),
		.max_cntlid = (uint16_t)rpc_u64(call, "max_cntlid", 0),
		.dmrsl = (uint32_t)rpc_u64(call, "dmrsl", 0),
		.wzsl = (uint8_t)rpc_u64(call, "wzsl", 0),
	};
	struct nvmf_subsystem *subsystem;
	char message[300];
	int rc;

	if (!target || check_subsystem(call, &opts))
		return;
	old_size_limits(call, &opts);
	snprintf(message, sizeof(message), "Unable to create subsystem %.223s", opts.nqn);
	if (!nvmf_nqn_is_valid(opts.nqn)) {
		rpc_fail(call, RPC_INTERNAL_ERROR, message,
			 "the NQN must read nqn.yyyy-mm.reverse.domain:name, or nqn.2014-08.org.nvmexpress:uuid:UUID, "
			 "and have at most %d bytes",
			 NVMF_NQN_MAX);
		rpc_blame(call, "nqn");
		return;
	}
	rc = nvmf_subsystem_create(target, &opts, &subsystem);
	if (rc == 0) {
		rpc_save(call, STATE_SUBSYSTEM, "", opts.nqn);
		rpc_ok(call, NULL);
	} else if (rc == -EEXIST) {
		rpc_fail(call, RPC_INTERNAL_ERROR, message, "a subsystem of this NQN exists already");
		rpc_blame(call, "nqn");
	} else {
		rpc_fail(call, RPC_INTERNAL_ERROR, message, "%s", strerror(-rc));
	}
}

static const struct rpc_param nqn_params[] = {
	{ "nqn", RPC_STRING, RPC_REQUIRED, NULL },
	{ "tgt_name", RPC_STRING, 0, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void delete_subsystem(struct rpc_call *call)
{
	struct nvmf_subsystem *subsystem = subsystem_of_call(call);
	const char *nqn = rpc_string(call, "nqn", "");
	int rc;

	if (!subsystem)
		return;
	rc = nvmf_subsystem_delete(subsystem);
	if (rc) {
		nvmf_failed(call, "nqn", rc);
		return;
	}
	rpc_forget_children(call, STATE_LISTENER, nqn);
	rpc_forget_children(call, STATE_NAMESPACE, nqn);
	rpc_forget_children(call, STATE_HOST, nqn);
	rpc_forget(call, STATE_SUBSYSTEM, "", nqn);
	rpc_ok(call, NULL);
}

/* --- hosts ---------------------------------------------------------------------------------------------------------- */

static const struct rpc_param host_params[] = {
	{ "nqn", RPC_STRING, RPC_REQUIRED, NULL },
	{ "host", RPC_STRING, RPC_REQUIRED, NULL },
	{ "tgt_name", RPC_STRING, 0, NULL },
	{ "psk", RPC_STRING, 0, NULL },
	{ "dhchap_key", RPC_STRING, 0, NULL },
	{ "dhchap_ctrlr_key", RPC_STRING, 0, NULL },
	{ "timeout_ms", RPC_U64, RPC_IGNORED, NULL },
	{ NULL, 0, 0, NULL },
};

/* Names in the state: a host's is its NQN, and of the rule for all hosts this. */
#define ANY_HOST "*"

static fiber_fn void add_host(struct rpc_call *call)
{
	static const char *const keys[] = { "psk", "dhchap_key", "dhchap_ctrlr_key" };
	struct nvmf_subsystem *subsystem = subsystem_of_call(call);
	const char *host = rpc_string(call, "host", "");
	int rc;

	if (!subsystem)
		return;
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (rpc_has(call, keys[i])) { /* a host that asks for keys must not be let in without */
			rpc_fail_param(call, keys[i], "keys are not offered; add the host without %s", keys[i]);
			return;
		}
	}
	rc = nvmf_subsystem_add_host(subsystem, host);
	if (rc == 0) {
		rpc_save(call, STATE_HOST, rpc_string(call, "nqn", ""), host);
		rpc_ok(call, NULL);
		return;
	}
	rpc_fail(call, RPC_INTERNAL_ERROR, "Internal error", "%s",
		 rc == -EEXIST ? "the host has been added before" :
		 rc == -EINVAL ? "host must be an NQN: nqn.yyyy-mm.reverse.domain:name, or nqn.2014-08.org.nvmexpress:uuid:UUID" :
				 strerror(-rc));
	rpc_blame(call, "host");
}

static fiber_fn void remove_host(struct rpc_call *call)
{
	struct nvmf_subsystem *subsystem = subsystem_of_call(call);
	const char *host = rpc_string(call, "host", "");
	int rc;

	if (!subsystem)
		return;
	rc = nvmf_subsystem_remove_host(subsystem, host);
	if (rc) {
		rpc_fail(call, RPC_INTERNAL_ERROR, "Internal error", "%s",
			 rc == -ENOENT ? "no such host has been added" : strerror(-rc));
		rpc_blame(call, "host");
		return;
	}
	rpc_forget(call, STATE_HOST, rpc_string(call, "nqn", ""), host);
	rpc_ok(call, NULL);
}

static const struct rpc_param allow_any_host_params[] = {
	{ "nqn", RPC_STRING, RPC_REQUIRED, NULL },
	{ "allow_any_host", RPC_BOOL, RPC_REQUIRED, NULL },
	{ "tgt_name", RPC_STRING, 0, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void allow_any_host(struct rpc_call *call)
{
	struct nvmf_subsystem *subsystem = subsystem_of_call(call);
	int rc;

	if (!subsystem)
		return;
	rc = nvmf_subsystem_allow_any_host(subsystem, rpc_bool(call, "allow_any_host", false));
	if (rc) {
		nvmf_failed(call, "nqn", rc);
		return;
	}
	rpc_save(call, STATE_HOST, rpc_string(call, "nqn", ""), ANY_HOST);
	rpc_ok(call, NULL);
}

const struct rpc_method nvmf_methods[] = {
	{ .name = "nvmf_create_transport", .handler = create_transport, .params = create_transport_params,
	  .style = RPC_DECODE_NVMF, .unknown_ok = true, .changes = true },
	{ .name = "nvmf_create_subsystem", .handler = create_subsystem, .params = create_subsystem_params,
	  .style = RPC_DECODE_NVMF, .changes = true },
	{ .name = "nvmf_delete_subsystem", .handler = delete_subsystem, .params = nqn_params, .style = RPC_DECODE_NVMF,
	  .changes = true },
	{ .name = "nvmf_subsystem_add_host", .handler = add_host, .params = host_params, .style = RPC_DECODE_NVMF,
	  .unknown_ok = true, .changes = true },
	{ .name = "nvmf_subsystem_remove_host", .handler = remove_host, .params = host_params, .style = RPC_DECODE_NVMF,
	  .changes = true },
	{ .name = "nvmf_subsystem_allow_any_host", .handler = allow_any_host, .params = allow_any_host_params,
	  .style = RPC_DECODE_NVMF, .changes = true },
	{ .name = NULL },
};
