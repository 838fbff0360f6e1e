/* The methods that attach NVMe controllers, drives here and namespaces of other targets, and let them go. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "bdev/nvme.h"
#include "mgmt/methods.h"
#include "nvme/vfio.h"

#define REPLAY_WAIT_US	  5000000u
#define DISCOVERY_WAIT_MS 5000u
#define DRIVE_FAIL_S	  30u
#define DEFAULT_PORT	  "4420"

static const struct rpc_param attach_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "trtype", RPC_STRING, RPC_REQUIRED, NULL },
	{ "traddr", RPC_STRING, RPC_REQUIRED, NULL },
	{ "adrfam", RPC_STRING, 0, NULL },
	{ "trsvcid", RPC_STRING, RPC_LOOSE, NULL },
	{ "priority", RPC_STRING, RPC_IGNORED | RPC_LOOSE, NULL },
	{ "subnqn", RPC_STRING, 0, NULL },
	{ "hostnqn", RPC_STRING, 0, NULL },
	{ "hostaddr", RPC_STRING, 0, NULL },
	{ "hostsvcid", RPC_STRING, RPC_LOOSE, NULL },
	{ "prchk_reftag", RPC_BOOL, RPC_IGNORED, NULL },
	{ "prchk_guard", RPC_BOOL, RPC_IGNORED, NULL },
	{ "hdgst", RPC_BOOL, 0, NULL },
	{ "ddgst", RPC_BOOL, 0, NULL },
	{ "fabrics_connect_timeout_us", RPC_U64, RPC_IGNORED, NULL },
	{ "multipath", RPC_STRING, 0, NULL },
	{ "num_io_queues", RPC_U32, 0, NULL },
	{ "ctrlr_loss_timeout_sec", RPC_I32, 0, NULL },
	{ "reconnect_delay_sec", RPC_U32, 0, NULL },
	{ "fast_io_fail_timeout_sec", RPC_U32, 0, NULL },
	{ "psk", RPC_STRING, 0, NULL },
	{ "max_bdevs", RPC_U32, RPC_IGNORED, NULL },
	{ "dhchap_key", RPC_STRING, 0, NULL },
	{ "dhchap_ctrlr_key", RPC_STRING, 0, NULL },
	{ "allow_unrecognized_csi", RPC_BOOL, RPC_IGNORED, NULL },
	{ "multipath_opts", RPC_OBJECT, RPC_IGNORED, NULL },
	{ "disable_sq_flow_control", RPC_BOOL, RPC_IGNORED, NULL },
	{ NULL, 0, 0, NULL },
};

static const struct rpc_param detach_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "trtype", RPC_STRING, 0, NULL },
	{ "traddr", RPC_STRING, 0, NULL },
	{ "adrfam", RPC_STRING, RPC_IGNORED, NULL },
	{ "trsvcid", RPC_STRING, RPC_LOOSE, NULL },
	{ "subnqn", RPC_STRING, 0, NULL },
	{ "hostaddr", RPC_STRING, RPC_IGNORED, NULL },
	{ "hostsvcid", RPC_STRING, RPC_IGNORED | RPC_LOOSE, NULL },
	{ NULL, 0, 0, NULL },
};

static const struct rpc_param reset_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "cntlid", RPC_U16, 0, NULL },
	{ NULL, 0, 0, NULL },
};

static const struct rpc_param options_params[] = {
	{ "action_on_timeout", RPC_STRING, 0, NULL },
	{ "timeout_us", RPC_U64, 0, NULL },
	{ "timeout_admin_us", RPC_U64, RPC_IGNORED, NULL },
	{ "keep_alive_timeout_ms", RPC_U32, 0, NULL },
	{ "arbitration_burst", RPC_U32, RPC_IGNORED, NULL },
	{ "low_priority_weight", RPC_U32, RPC_IGNORED, NULL },
	{ "medium_priority_weight", RPC_U32, RPC_IGNORED, NULL },
	{ "high_priority_weight", RPC_U32, RPC_IGNORED, NULL },
	{ "nvme_adminq_poll_period_us", RPC_U64, RPC_IGNORED, NULL },
	{ "nvme_ioq_poll_period_us", RPC_U64, RPC_IGNORED, NULL },
	{ "io_queue_requests", RPC_U32, RPC_IGNORED, NULL },
	{ "delay_cmd_submit", RPC_BOOL, RPC_IGNORED, NULL },
	{ "transport_retry_count", RPC_U32, RPC_IGNORED, NULL },
	{ "bdev_retry_count", RPC_I32, 0, NULL },
	{ "transport_ack_timeout", RPC_U16, RPC_IGNORED, NULL },
	{ "ctrlr_loss_timeout_sec", RPC_I32, 0, NULL },
	{ "reconnect_delay_sec", RPC_U32, 0, NULL },
	{ "fast_io_fail_timeout_sec", RPC_U32, 0, NULL },
	{ "disable_auto_failback", RPC_BOOL, RPC_IGNORED, NULL },
	{ "generate_uuids", RPC_BOOL, RPC_IGNORED, NULL },
	{ "transport_tos", RPC_U16, RPC_IGNORED, NULL },
	{ "nvme_error_stat", RPC_BOOL, RPC_IGNORED, NULL },
	{ "rdma_srq_size", RPC_U32, RPC_IGNORED, NULL },
	{ "io_path_stat", RPC_BOOL, 0, NULL },
	{ "allow_accel_sequence", RPC_BOOL, RPC_IGNORED, NULL },
	{ "rdma_max_cq_size", RPC_U32, RPC_IGNORED, NULL },
	{ "rdma_cm_event_timeout_ms", RPC_U16, RPC_IGNORED, NULL },
	{ "dhchap_digests", RPC_ARRAY, RPC_IGNORED, NULL },
	{ "dhchap_dhgroups", RPC_ARRAY, RPC_IGNORED, NULL },
	{ "rdma_umr_per_io", RPC_BOOL, RPC_IGNORED, NULL },
	{ "tcp_connect_timeout_ms", RPC_U32, RPC_IGNORED, NULL },
	{ "enable_flush", RPC_BOOL, RPC_IGNORED, NULL },
	{ NULL, 0, 0, NULL },
};

static const struct rpc_param hotplug_params[] = {
	{ "enable", RPC_BOOL, RPC_REQUIRED, NULL },
	{ "period_us", RPC_U64, 0, NULL },
	{ NULL, 0, 0, NULL },
};

/* --- attaching ------------------------------------------------------------------------------------------------------ */

/* What SPDK's clients may ask for and we have not got.  True: the call has failed. */
static bool asks_for_more(struct rpc_call *call)
{
	static const char *const keys[] = { "psk", "dhchap_key", "dhchap_ctrlr_key", "hostaddr", "hostsvcid" };

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const char *value = rpc_string(call, keys[i], "");

		if (!*value)
			continue;
		rpc_fail_errno(call, -ENOTSUP, "our host does not do %s: leave it out", keys[i]);
		rpc_blame(call, keys[i]);
		return true;
	}
	return false;
}

static int decode_loss(struct rpc_call *call, struct bdev_nvme_loss *loss)
{
	int64_t given_loss = rpc_i64(call, "ctrlr_loss_timeout_sec", 0);

	if (rpc_has(call, "reconnect_delay_sec"))
		loss->reconnect_delay_s = (uint32_t)rpc_u64(call, "reconnect_delay_sec", 0);
	if (rpc_has(call, "fast_io_fail_timeout_sec"))
		loss->fast_io_fail_s = (uint32_t)rpc_u64(call, "fast_io_fail_timeout_sec", 0);
	if (rpc_has(call, "ctrlr_loss_timeout_sec"))
		loss->ctrlr_loss_s = (int32_t)given_loss;
	/* SPDK's way to say that nothing is to be tried again. */
	loss->never_reconnect = rpc_has(call, "ctrlr_loss_timeout_sec") && !given_loss && !loss->reconnect_delay_s;
	if (given_loss < -1) {
		rpc_fail_param(call, "ctrlr_loss_timeout_sec", "ctrlr_loss_timeout_sec is a number of seconds, or -1 for never");
		return -EINVAL;
	}
	if (loss->ctrlr_loss_s > 0 && loss->reconnect_delay_s > (uint32_t)loss->ctrlr_loss_s) {
		rpc_fail_param(call, "reconnect_delay_sec", "reconnect_delay_sec is no longer than ctrlr_loss_timeout_sec");
		return -EINVAL;
	}
	if (loss->ctrlr_loss_s > 0 && loss->fast_io_fail_s > (uint32_t)loss->ctrlr_loss_s) {
		rpc_fail_param(call, "fast_io_fail_timeout_sec",
			       "fast_io_fail_timeout_sec is no longer than ctrlr_loss_timeout_sec");
		return -EINVAL;
	}
	return 0;
}

static int decode_multipath(struct rpc_call *call, enum bdev_nvme_multipath *ret_multipath)
{
	const char *text = rpc_string(call, "multipath", "failover");

	if (!strcmp(text, "disable")) {
		*ret_multipath = BDEV_NVME_SINGLE;
	} else if (!strcmp(text, "failover")) {
		*ret_multipath = BDEV_NVME_FAILOVER;
	} else if (!strcmp(text, "multipath")) {
		*ret_multipath = BDEV_NVME_ACTIVE_ACTIVE;
	} else {
		rpc_fail_param(call, "multipath", "multipath is disable, failover or multipath");
		return -EINVAL;
	}
	return 0;
}

/* Copies a text that the wire gives 223 bytes. */
static int copy_nqn(struct rpc_call *call, const char *key, char to[NVME_NQN_FIELD_SIZE])
{
	const char *text = rpc_string(call, key, "");

	if (!*text)
		return 0;
	if (strlen(text) > NVME_NQN_MAX_LEN) {
		rpc_fail_param(call, key, "%s has 1 to %u bytes", key, NVME_NQN_MAX_LEN);
		return -EINVAL;
	}
	memset(to, 0, NVME_NQN_FIELD_SIZE);
	strcpy(to, text);
	return 0;
}

static int decode_address(struct rpc_call *call, struct nvme_connect_opts *connect, enum nvme_trtype trtype, const char *default_port)
{
	const char *host = rpc_string(call, "traddr", ""), *port = rpc_string(call, "trsvcid", default_port);
	const char *family = strchr(host, ':') ? "IPv6" : "IPv4";
	unsigned long number = strtoul(port, NULL, 10);
	uint8_t bytes[16];

	connect->trtype = trtype;
	connect->addr.family = strchr(host, ':') ? AF_INET6 : AF_INET;
	if (strlen(host) >= sizeof(connect->addr.host) || inet_pton(connect->addr.family, host, bytes) != 1) {
		rpc_fail_param(call, "traddr", "traddr must be a numeric IPv4 or IPv6 address, without brackets");
		return -EINVAL;
	}
	strcpy(connect->addr.host, host);
	if (strcasecmp(rpc_string(call, "adrfam", family), family)) {
		rpc_fail_param(call, "adrfam", "adrfam is IPv4 or IPv6, and must be the family of traddr");
		return -EINVAL;
	}
	if (strspn(port, "0123456789") != strlen(port) || !number || number > 65535) {
		rpc_fail_param(call, "trsvcid", "trsvcid is a port, 1 to 65535");
		return -EINVAL;
	}
	connect->addr.port = (uint16_t)number;
	return 0;
}

static int decode_fabrics(struct rpc_call *call, struct nvme_connect_opts *connect, enum nvme_trtype trtype)
{
	if (decode_address(call, connect, trtype, DEFAULT_PORT))
		return -EINVAL;
	if (!*rpc_string(call, "subnqn", "")) {
		rpc_fail_param(call, "subnqn", "a target has many subsystems: subnqn says which");
		return -EINVAL;
	}
	return 0;
}

static int decode_attach(struct rpc_call *call, struct bdev_nvme_attach_opts *opts)
{
	const char *trtype = rpc_string(call, "trtype", ""), *traddr = rpc_string(call, "traddr", "");
	int rc = 0;

	bdev_nvme_attach_opts_init(opts);
	opts->name = rpc_string(call, "name", "");
	opts->nr_io_queues = (unsigned)rpc_u64(call, "num_io_queues", 0);
	opts->connect.hdgst = rpc_bool(call, "hdgst", false);
	opts->connect.ddgst = rpc_bool(call, "ddgst", false);
	if (!strcasecmp(trtype, "tcp")) {
		rc = decode_fabrics(call, &opts->connect, NVME_TRTYPE_TCP);
	} else if (!strcasecmp(trtype, "rdma")) {
		rc = decode_fabrics(call, &opts->connect, NVME_TRTYPE_RDMA);
	} else if (!strcasecmp(trtype, "pcie")) {
		opts->connect.trtype = NVME_TRTYPE_PCIE;
		opts->bar_open = nvme_vfio_open;
		if (!nvme_vfio_is_address(traddr)) {
			rpc_fail_param(call, "traddr", "traddr of a PCIe drive is such as 0000:01:00.0");
			rc = -EINVAL;
		}
		snprintf(opts->address, sizeof(opts->address), "%s", traddr);
	} else {
		rpc_fail_param(call, "trtype", "trtype is PCIe, TCP or RDMA");
		rc = -EINVAL;
	}
	if (!rc)
		rc = copy_nqn(call, "subnqn", opts->connect.subnqn);
	if (!rc)
		rc = copy_nqn(call, "hostnqn", opts->connect.hostnqn);
	if (!rc)
		rc = decode_loss(call, &opts->loss);
	/* A drive in this machine that does not come back within seconds is broken, not away. */
	if (opts->connect.trtype == NVME_TRTYPE_PCIE && !opts->loss.fast_io_fail_s && !rpc_has(call, "fast_io_fail_timeout_sec"))
		opts->loss.fast_io_fail_s = DRIVE_FAIL_S;
	return rc ? rc : decode_multipath(call, &opts->multipath);
}

static bool is_up(const char *name)
{
	struct bdev_nvme_ctrlr *ctrlr = bdev_nvme_find(name);
	struct bdev_nvme_path_info info;

	for (unsigned i = 0; ctrlr && i < BDEV_NVME_MAX_PATHS; i++) {
		if (bdev_nvme_path(ctrlr, i, &info) && info.state == BDEV_NVME_LIVE)
			return true;
	}
	return false;
}

/* At start a target may be late: it is waited for a little, so that stores on it are there for what comes after, and
 * tried on and on after that. */
static fiber_fn int attach_replayed(struct bdev_nvme_attach_opts *opts, struct nvme_error *error)
{
	uint64_t until_us = clock_now_us() + REPLAY_WAIT_US;
	int rc;

	opts->background = true;
	rc = bdev_nvme_attach(opts, error);
	while (!rc && !is_up(opts->name) && clock_now_us() < until_us)
		fiber_sleep(10000);
	return rc;
}

static void path_key(const struct bdev_nvme_attach_opts *opts, char *key, size_t size)
{
	if (opts->connect.trtype == NVME_TRTYPE_PCIE)
		snprintf(key, size, "%s %s", opts->name, opts->address);
	else
		snprintf(key, size, "%s %s %u %s", opts->name, opts->connect.addr.host, opts->connect.addr.port,
			 opts->connect.subnqn);
}

static json_t *bdev_names_json(const struct bdev_nvme_ctrlr *ctrlr)
{
	json_t *names = json_array();
	uint32_t nsid;

	for (struct bdev *bdev = bdev_first(); bdev; bdev = bdev_next(bdev)) {
		if (bdev_nvme_of(bdev, &nsid) == ctrlr)
			json_array_append_new(names, json_string(bdev->name));
	}
	return names;
}

static fiber_fn void attach(struct rpc_call *call)
{
	struct bdev_nvme_attach_opts opts;
	struct nvme_error error;
	char key[2 * BDEV_NAME_MAX + NVME_NQN_FIELD_SIZE];
	int rc;

	if (asks_for_more(call) || decode_attach(call, &opts))
		return;
	rc = call->replay ? attach_replayed(&opts, &error) : bdev_nvme_attach(&opts, &error);
	if (rc) {
		rpc_fail_errno(call, rc, "%s", error.text);
		return;
	}
	path_key(&opts, key, sizeof(key));
	rpc_save(call, STATE_BDEV, "nvme", key);
	rpc_ok(call, bdev_names_json(bdev_nvme_find(opts.name)));
}

/* --- letting go ----------------------------------------------------------------------------------------------------- */

struct saved_paths {
	struct rpc_call *call; /* NULL: they are counted */
	const char *name, *trtype;
	struct bdev_nvme_path_match match;
	unsigned nr_found;
};

static bool is_text(json_t *params, const char *key, const char *want)
{
	const char *is = json_string_value(json_object_get(params, key));

	return !want || !*want || (is && !strcmp(is, want));
}

/* As the call that attached it may have left it out. */
static bool is_service(json_t *params, const char *want)
{
	const char *is = json_string_value(json_object_get(params, "trsvcid"));

	return !want || strtoul(is ? is : DEFAULT_PORT, NULL, 10) == strtoul(want, NULL, 10);
}

static void saved_path(void *arg, const char *parent, const char *name, const char *method, json_t *params)
{
	struct saved_paths *p = arg;
	const char *trtype = json_string_value(json_object_get(params, "trtype"));

	if (strcmp(parent, "nvme") || !is_text(params, "name", p->name) ||
	    (*p->trtype && (!trtype || strcasecmp(trtype, p->trtype))) || !is_text(params, "traddr", p->match.address) || !is_service(params, p->match.service) ||
	    !is_text(params, "subnqn", p->match.subnqn))
		return;
	p->nr_found++;
	if (p->call)
		rpc_forget(p->call, STATE_BDEV, parent, name);
}

/* With the last path the bdevs go, and the namespaces that export them. */
static void forget_exports(struct rpc_call *call, const char *name)
{
	struct bdev_nvme_ctrlr *ctrlr = bdev_nvme_find(name);
	uint32_t nsid;

	for (struct bdev *bdev = bdev_first(); ctrlr && bdev; bdev = bdev_next(bdev)) {
		if (bdev_nvme_of(bdev, &nsid) == ctrlr)
			forget_namespaces_of(call, bdev);
	}
}

/* Which path a call means. */
static int decode_match(struct rpc_call *call, const char *trtype, struct bdev_nvme_path_match *match)
{
	const char *service = rpc_string(call, "trsvcid", "");

	match->address = rpc_string(call, "traddr", NULL);
	match->subnqn = rpc_string(call, "subnqn", NULL);
	if (!strcasecmp(trtype, "tcp")) {
		match->trtype = NVME_TRTYPE_TCP;
	} else if (!strcasecmp(trtype, "rdma")) {
		match->trtype = NVME_TRTYPE_RDMA;
	} else if (!strcasecmp(trtype, "pcie")) {
		match->trtype = NVME_TRTYPE_PCIE;
	} else if (*trtype) {
		rpc_fail_param(call, "trtype", "trtype is TCP, RDMA or PCIe");
		return -EINVAL;
	}
	if (strspn(service, "0123456789") != strlen(service)) {
		rpc_fail_param(call, "trsvcid", "trsvcid is a port, 1 to 65535");
		return -EINVAL;
	}
	while (service[0] == '0' && service[1])
		service++;
	if (*service && match->trtype != NVME_TRTYPE_PCIE)
		match->service = service;
	return 0;
}

static fiber_fn void detach(struct rpc_call *call)
{
	struct saved_paths saved = { .name = rpc_string(call, "name", ""), .trtype = rpc_string(call, "trtype", "") };
	struct bdev_nvme_path_match *match = &saved.match;
	unsigned nr;
	int rc;

	if (decode_match(call, saved.trtype, match))
		return;
	nr = bdev_nvme_nr_paths(saved.name, match);
	rpc_saved_for_each(STATE_BDEV, saved_path, &saved);
	if (nr && nr == bdev_nvme_nr_paths(saved.name, NULL))
		forget_exports(call, saved.name);
	saved.call = call;
	if (saved.nr_found)
		rpc_saved_for_each(STATE_BDEV, saved_path, &saved);
	rc = bdev_nvme_detach(saved.name, match);
	if (!rc && !bdev_nvme_find(saved.name))
		rpc_forget(call, STATE_BDEV, "nvme policy", saved.name);
	if (!rc || saved.nr_found) {
		rpc_ok(call, NULL); /* one that is away at the moment is forgotten as well */
		return;
	}
	rpc_fail_errno(call, rc, "there is no such controller, or no such path of it: bdev_nvme_get_controllers lists them");
	rpc_blame(call, "name");
}

static fiber_fn void reset(struct rpc_call *call)
{
	uint16_t cntlid = (uint16_t)rpc_u64(call, "cntlid", 0);
	int rc = bdev_nvme_reset(rpc_string(call, "name", ""), rpc_has(call, "cntlid") ? &cntlid : NULL);

	if (!rc) {
		rpc_ok(call, NULL);
		return;
	}
	rpc_fail_errno(call, rc, rc == -ENODEV ? "there is no such controller: bdev_nvme_get_controllers lists them"
					       : "the controller was reset and is not back; it is tried again as it was attached to be");
	rpc_blame(call, "name");
}

static fiber_fn void set_enabled(struct rpc_call *call, bool enabled)
{
	uint16_t cntlid = (uint16_t)rpc_u64(call, "cntlid", 0);
	int rc = bdev_nvme_set_enabled(rpc_string(call, "name", ""), rpc_has(call, "cntlid") ? &cntlid : NULL, enabled);

	if (!rc) {
		rpc_ok(call, NULL);
		return;
	}
	rpc_fail_errno(call, rc, rc == -ENODEV	   ? "there is no such controller: bdev_nvme_get_controllers lists them"
				 : rc == -EALREADY ? "the controller is %s already"
				 : rc == -EBUSY	   ? "the controller is just being attached"
						   : "the controller is %s and not there; it is tried again as it was attached to be",
		       enabled ? "enabled" : "disabled");
	rpc_blame(call, "name");
}

static fiber_fn void enable(struct rpc_call *call)
{
	set_enabled(call, true);
}

static fiber_fn void disable(struct rpc_call *call)
{
	set_enabled(call, false);
}

/* --- options -------------------------------------------------------------------------------------------------------- */

static fiber_fn void set_options(struct rpc_call *call)
{
	struct bdev_nvme_options o;
	const char *action = rpc_string(call, "action_on_timeout", "");

	bdev_nvme_get_options(&o);
	if (*action && strcmp(action, "none") && strcmp(action, "reset") && strcmp(action, "abort")) {
		rpc_fail_param(call, "action_on_timeout", "action_on_timeout is none, reset or abort");
		return;
	}
	if (rpc_u64(call, "timeout_us", 0))
		o.timeout_us = rpc_u64(call, "timeout_us", 0);
	if (!strcmp(action, "none"))
		o.timeout_us = UINT32_MAX * 1000ull; /* seven weeks */
	else if (*action)
		o.abort_timeout_us = !strcmp(action, "reset") ? 0 : 5000000;
	if (rpc_u64(call, "keep_alive_timeout_ms", 0))
		o.keep_alive_ms = (uint32_t)rpc_u64(call, "keep_alive_timeout_ms", 0);
	o.path_stats = rpc_bool(call, "io_path_stat", o.path_stats);
	if (rpc_has(call, "bdev_retry_count"))
		o.retry_count = rpc_i64(call, "bdev_retry_count", 0) < 0 ? UINT32_MAX
									   : (unsigned)rpc_i64(call, "bdev_retry_count", 0);
	if (decode_loss(call, &o.loss))
		return;
	bdev_nvme_set_options(&o);
	rpc_save(call, STATE_BDEV, "", "nvme options");
	rpc_ok(call, NULL);
}

static fiber_fn void set_hotplug(struct rpc_call *call)
{
	bdev_nvme_set_hotplug(rpc_bool(call, "enable", false), rpc_u64(call, "period_us", 0));
	rpc_save(call, STATE_BDEV, "", "nvme hotplug");
	rpc_ok(call, NULL);
}

/* --- discovery ------------------------------------------------------------------------------------------------------ */

static const struct rpc_param discovery_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "trtype", RPC_STRING, RPC_REQUIRED, NULL },
	{ "traddr", RPC_STRING, RPC_REQUIRED, NULL },
	{ "adrfam", RPC_STRING, 0, NULL },
	{ "trsvcid", RPC_STRING, RPC_LOOSE, NULL },
	{ "hostnqn", RPC_STRING, 0, NULL },
	{ "wait_for_attach", RPC_BOOL, 0, NULL },
	{ "attach_timeout_ms", RPC_U64, 0, NULL },
	{ "ctrlr_loss_timeout_sec", RPC_I32, 0, NULL },
	{ "reconnect_delay_sec", RPC_U32, 0, NULL },
	{ "fast_io_fail_timeout_sec", RPC_U32, 0, NULL },
	{ NULL, 0, 0, NULL },
};

static const struct rpc_param discovery_name_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void start_discovery(struct rpc_call *call)
{
	const char *trtype = rpc_string(call, "trtype", ""), *name = rpc_string(call, "name", "");
	uint64_t timeout_ms = rpc_u64(call, "attach_timeout_ms", DISCOVERY_WAIT_MS);
	bool wait = rpc_bool(call, "wait_for_attach", false) || rpc_has(call, "attach_timeout_ms") || call->replay;
	struct bdev_nvme_attach_opts opts;
	struct nvme_error error;
	int rc;

	bdev_nvme_attach_opts_init(&opts);
	opts.name = name;
	if (strcasecmp(trtype, "tcp") && strcasecmp(trtype, "rdma")) {
		rpc_fail_param(call, "trtype", "trtype is TCP or RDMA");
		return;
	}
	if (decode_address(call, &opts.connect, strcasecmp(trtype, "rdma") ? NVME_TRTYPE_TCP : NVME_TRTYPE_RDMA,
			   strcasecmp(trtype, "rdma") ? "8009" : DEFAULT_PORT) ||
	    copy_nqn(call, "hostnqn", opts.connect.hostnqn) || decode_loss(call, &opts.loss))
		return;
	rc = bdev_nvme_discovery_start(&opts, wait ? timeout_ms * 1000 : 0, &error);
	if (rc) {
		rpc_fail_errno(call, rc, "%s", error.text);
		rpc_blame(call, "name");
		return;
	}
	rpc_save(call, STATE_BDEV, "nvme discovery", name);
	rpc_ok(call, NULL);
}

static fiber_fn void stop_discovery(struct rpc_call *call)
{
	const char *name = rpc_string(call, "name", "");
	int rc = bdev_nvme_discovery_stop(name);

	if (rc) {
		rpc_fail_errno(call, rc, "there is no discovery %.200s: bdev_nvme_get_discovery_info lists them", name);
		rpc_blame(call, "name");
		return;
	}
	rpc_forget(call, STATE_BDEV, "nvme discovery", name);
	rpc_ok(call, NULL);
}

static json_t *referrals_json(const struct bdev_nvme_discovery_info *info)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < info->nr_referrals; i++) {
		const struct bdev_nvme_referral *r = &info->referrals[i];
		json_t *trid = address_json(r->trtype == NVME_TRTYPE_RDMA ? "RDMA" : "TCP", &r->addr);

		json_object_set_new(trid, "subnqn", json_string(r->subnqn));
		json_array_append_new(list, json_pack("{s:o}", "trid", trid));
	}
	return list;
}

static fiber_fn void get_discovery_info(struct rpc_call *call)
{
	struct bdev_nvme_discovery_info info;
	json_t *list = json_array();

	for (unsigned i = 0; bdev_nvme_discovery_info(i, &info); i++)
		json_array_append_new(list,
				      json_pack("{s:s,s:o,s:o,s:b,s:i}", "name", info.name, "trid",
						address_json(info.connect->trtype == NVME_TRTYPE_RDMA ? "RDMA" : "TCP",
							     &info.connect->addr),
						"referrals", referrals_json(&info), "connected", info.connected, "attached", (int)info.nr_attached));
	rpc_ok(call, list);
}

/* --- which paths I/O takes ------------------------------------------------------------------------------------------ */

static const struct rpc_param policy_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "policy", RPC_STRING, RPC_REQUIRED, NULL },
	{ "selector", RPC_STRING, RPC_IGNORED, NULL },
	{ "rr_min_io", RPC_U32, RPC_IGNORED, NULL },
	{ NULL, 0, 0, NULL },
};

/* The name is a namespace's; the policy is the controller's, for all of its namespaces. */
static fiber_fn void set_policy(struct rpc_call *call)
{
	const char *policy = rpc_string(call, "policy", "");
	struct bdev_nvme_ctrlr *ctrlr;
	struct bdev *bdev;
	uint32_t nsid;
	int rc;

	if (strcmp(policy, "active_passive") && strcmp(policy, "active_active")) {
		rpc_fail_param(call, "policy", "policy is active_passive or active_active");
		return;
	}
	bdev = bdev_of_call(call, "name");
	if (!bdev)
		return;
	ctrlr = bdev_nvme_of(bdev, &nsid);
	rc = ctrlr ? bdev_nvme_set_policy(ctrlr, !strcmp(policy, "active_active") ? BDEV_NVME_ACTIVE_ACTIVE : BDEV_NVME_FAILOVER)
		   : -ENODEV;
	if (rc) {
		rpc_fail_errno(call, rc, ctrlr ? "the controller was attached with multipath off"
					       : "the device is no NVMe namespace");
		rpc_blame(call, "name");
		return;
	}
	rpc_save(call, STATE_BDEV, "nvme policy", bdev_nvme_name(ctrlr));
	rpc_ok(call, NULL);
}

static const struct rpc_param preferred_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "cntlid", RPC_U16, RPC_REQUIRED, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void set_preferred(struct rpc_call *call)
{
	struct bdev *bdev = bdev_of_call(call, "name");
	int rc;

	if (!bdev)
		return;
	rc = bdev_nvme_set_preferred(bdev, (uint16_t)rpc_u64(call, "cntlid", 0));
	if (!rc) {
		rpc_ok(call, NULL);
		return;
	}
	rpc_fail_errno(call, -ENODEV, rc == -ENOENT ? "no path leads to a controller with this identifier: bdev_nvme_get_io_paths lists them"
						    : "the device is no NVMe namespace");
	rpc_blame(call, rc == -ENOENT ? "cntlid" : "name");
}

const struct rpc_method nvme_methods[] = {
	{ .name = "bdev_nvme_attach_controller", .handler = attach, .params = attach_params, .changes = true },
	{ .name = "bdev_nvme_detach_controller", .handler = detach, .params = detach_params, .changes = true },
	{ .name = "bdev_nvme_reset_controller", .handler = reset, .params = reset_params },
	{ .name = "bdev_nvme_enable_controller", .handler = enable, .params = reset_params },
	{ .name = "bdev_nvme_disable_controller", .handler = disable, .params = reset_params },
	{ .name = "bdev_nvme_set_preferred_path", .handler = set_preferred, .params = preferred_params },
	{ .name = "bdev_nvme_set_options", .handler = set_options, .params = options_params, .changes = true },
	{ .name = "bdev_nvme_start_discovery", .handler = start_discovery, .params = discovery_params, .changes = true },
	{ .name = "bdev_nvme_stop_discovery", .handler = stop_discovery, .params = discovery_name_params, .changes = true },
	{ .name = "bdev_nvme_get_discovery_info", .handler = get_discovery_info },
	{ .name = "bdev_nvme_set_multipath_policy", .handler = set_policy, .params = policy_params, .changes = true },
	{ .name = "bdev_nvme_set_hotplug", .handler = set_hotplug, .params = hotplug_params, .changes = true },
	{ .name = NULL },
};
