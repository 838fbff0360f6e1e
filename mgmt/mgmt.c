/*
 * Starting and stopping management: the tables of methods, the saved state, the socket and HTTP.
 *
 * A namespace that vanishes because its device was removed, and not through a call that forgot it, is forgotten by a change
 * of its own, in order with all others.
 */
#include "mgmt/mgmt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mgmt/deletion.h"
#include "mgmt/event.h"
#include "mgmt/http.h"
#include "mgmt/job.h"
#include "mgmt/known.h"
#include "mgmt/late.h"
#include "mgmt/methods.h"
#include "mgmt/methods_lvol.h"
#include "mgmt/server.h"
#include "mgmt/watch.h"

/* What is still owed to clients is given this long when the daemon ends. */
#define STOP_FLUSH_US (5u * 1000 * 1000)

/* Owner: the app thread. */
struct mgmt {
	struct nvmf_target *target;
	struct state *state;
	struct server *server;
	struct http *http;
};

/* --- namespaces that vanish ----------------------------------------------------------------------------------------- */

#define METHOD_NS_GONE "ferrule_namespace_gone"

static const struct rpc_param ns_gone_params[] = {
	{ "nqn", RPC_STRING, RPC_REQUIRED, NULL },
	{ "nsid", RPC_U32, RPC_REQUIRED, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void ns_gone(struct rpc_call *call)
{
	const char *nqn = rpc_string(call, "nqn", "");
	uint32_t nsid = (uint32_t)rpc_u64(call, "nsid", 0);
	struct nvmf_subsystem *subsystem = nvmf_subsystem_find(target_of_call(call), nqn);
	struct nvmf_ns_info info;
	char name[16];

	/* Its number may have been given to another since. */
	if (!nsid || !subsystem || nvmf_subsystem_next_ns(subsystem, nsid - 1, &info) || info.nsid != nsid) {
		snprintf(name, sizeof(name), "%u", nsid);
		rpc_forget(call, STATE_NAMESPACE, nqn, name);
	}
	rpc_ok(call, NULL);
}

/* Not offered to clients: it only tells the state what is so. */
static const struct rpc_method internal_methods[] = {
	{ .name = METHOD_NS_GONE, .handler = ns_gone, .params = ns_gone_params, .internal = true, .changes = true },
	{ .name = NULL },
};

static void ns_gone_done(struct rpc_call *call, void *arg)
{
	rpc_call_fini(call);
	free(call);
}

static void on_ns_gone(struct nvmf_subsystem *subsystem, uint32_t nsid, const char *bdev_name, void *arg)
{
	struct nvmf_subsystem_info info;
	struct rpc_call *call;

	if (rpc_is_stopping()) /* the daemon ends: that is no change */
		return;
	nvmf_subsystem_info(subsystem, &info);
	log_debug("namespace %u of %s is gone with %s: forgotten", nsid, info.nqn, bdev_name);
	call = calloc(1, sizeof(*call));
	if (call)
		rpc_submit(call, METHOD_NS_GONE, json_pack("{s:s,s:I}", "nqn", info.nqn, "nsid", (json_int_t)nsid),
			   ns_gone_done, NULL);
}

/* --- start and stop ------------------------------------------------------------------------------------------------- */

static void register_methods(void)
{
	static bool done;

	if (done)
		return;
	done = true;
	rpc_register(app_methods);
	rpc_register(bdev_methods);
	rpc_register(bdev_show_methods);
	rpc_register(delay_methods);
	rpc_register(nvme_methods);
	rpc_register(nvme_show_methods);
	rpc_register(nvme_pass_methods);
	rpc_register(lvol_methods);
	rpc_register(copy_methods);
	rpc_register(lvol_show_methods);
	rpc_register(lvol_ranges_methods);
	rpc_register(store_methods);
	rpc_register(watch_methods);
	rpc_register(job_state_methods);
	rpc_register(job_methods);
	rpc_register(event_methods);
	rpc_register(nvmf_methods);
	rpc_register(nvmf_export_methods);
	rpc_register(nvmf_show_methods);
	rpc_register(deletion_methods);
	rpc_register(known_methods);
	rpc_register(internal_methods);
	bdev_show_init();
}

static fiber_fn int start_state(struct mgmt *mgmt, const struct mgmt_opts *opts)
{
	int rc;

	if (opts->ephemeral)
		return 0;
	rc = state_open(opts->state_dir, &mgmt->state);
	if (rc)
		return rc;
	rc = state_start(mgmt->state);
	if (rc)
		return rc;
	state_replay(mgmt->state);
	return 0;
}

/* While calls still run: jobs say to the state how they ended, and who waits for jobs and events is answered. */
static fiber_fn void stop_background(void)
{
	events_quiesce();
	late_stop();
	watch_stop();
	jobs_stop();
}

fiber_fn int mgmt_start(const struct mgmt_opts *opts, struct mgmt **ret_mgmt)
{
	struct mgmt *mgmt = calloc(1, sizeof(*mgmt));
	int rc;

	if (!mgmt)
		return -ENOMEM;
	mgmt->target = opts->target;
	register_methods();
	nvmf_methods_init(opts->target);
	file_dirs_init(opts->file_dirs, opts->nr_file_dirs);
	events_init();
	known_init();
	jobs_init(lvol_job_kinds);
	rc = start_state(mgmt, opts);
	if (!rc)
		rc = rpc_start(mgmt->state);
	if (rc)
		goto out_state;
	jobs_start();
	nvmf_target_on_ns_gone(opts->target, on_ns_gone, mgmt);
	known_start();
	rc = watch_start();
	if (!rc)
		rc = late_start();
	if (!rc)
		rc = server_start(opts->rpc_socket, &mgmt->server);
	if (!rc && opts->http_addr)
		rc = http_start(opts->http_addr, opts->state_dir, &mgmt->http);
	if (!rc) {
		*ret_mgmt = mgmt;
		return 0;
	}
	stop_background();
	rpc_stop();
	server_stop(mgmt->server, 0);
out_state:
	jobs_fini();
	known_fini();
	events_fini();
	state_stop(mgmt->state);
	state_close(mgmt->state);
	free(mgmt);
	return rc;
}

fiber_fn void mgmt_stop(struct mgmt *mgmt)
{
	if (!mgmt)
		return;
	server_quiesce(mgmt->server);
	http_quiesce(mgmt->http);
	stop_background();
	rpc_stop();
	jobs_fini();
	known_fini();
	events_fini();
	http_stop(mgmt->http);
	server_stop(mgmt->server, STOP_FLUSH_US);
	state_stop(mgmt->state);
	state_close(mgmt->state);
	free(mgmt);
}
