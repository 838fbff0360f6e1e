/* The methods that show the NVMe-oF target. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mgmt/methods_nvmf.h"

static const struct rpc_param nqn_params[] = {
	{ "nqn", RPC_STRING, RPC_REQUIRED, NULL },
	{ "tgt_name", RPC_STRING, 0, NULL },
	{ NULL, 0, 0, NULL },
};

/* --- transports ----------------------------------------------------------------------------------------------------- */

static const struct rpc_param get_transports_params[] = {
	{ "tgt_name", RPC_STRING, 0, NULL },
	{ "trtype", RPC_STRING, 0, NULL },
	{ NULL, 0, 0, NULL },
};

/* With the keys that older clients read: io_unit_size, num_shared_buffers, buf_cache_size. */
static json_t *transport_json(const struct nvmf_transport_info *info)
{
	const struct nvmf_transport_opts *o = info->opts;
	struct iobuf_stats bufs;
	json_t *out;

	iobuf_get_stats(&bufs);
	out = json_pack("{s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:b,s:b,s:b,s:i,s:i,s:b,s:i,s:i,s:i,s:i,s:i}", "trtype",
			 info->trtype,
			 "max_queue_depth", o->max_queue_depth, "max_io_qpairs_per_ctrlr", o->max_io_qpairs_per_ctrlr,
			 "in_capsule_data_size", o->in_capsule_data_size, "max_io_size", o->max_io_size, "io_unit_size",
			 (int)IOBUF_LARGE_SIZE, "max_aq_depth", o->max_aq_depth, "num_shared_buffers",
			 (int)(bufs.nr_small + bufs.nr_large), "buf_cache_size", (int)(bufs.nr_small_cached + bufs.nr_large_cached),
			 "iobuf_small_cache_size", (int)bufs.nr_small_cached, "iobuf_large_cache_size",
			 (int)bufs.nr_large_cached, "dif_insert_or_strip", 0, "zcopy", 0, "c2h_success", o->c2h_success,
			 "sock_priority", o->sock_priority, "abort_timeout_sec", o->abort_timeout_sec,
			 "disable_command_passthru", 0, "ack_timeout", 0, "data_wr_pool_size", 0, "control_msg_num", 32, "kas", 1,
			 "min_kato", 0);
	if (out && o->max_srq_depth) {
		json_object_set_new(out, "max_srq_depth", json_integer(o->max_srq_depth));
		json_object_set_new(out, "no_srq", json_boolean(o->no_srq));
	}
	return out;
}

static fiber_fn void get_transports(struct rpc_call *call)
{
	struct nvmf_target *target = target_of_call(call);
	const char *trtype = rpc_string(call, "trtype", NULL);
	struct nvmf_transport_info info;
	json_t *out;

	if (!target)
		return;
	out = json_array();
	for (unsigned i = 0; nvmf_transport_info(target, i, &info) == 0; i++) {
		if (!trtype || strcasecmp(trtype, info.trtype) == 0)
			json_array_append_new(out, transport_json(&info));
	}
	if (trtype && json_array_size(out) == 0) {
		json_decref(out);
		rpc_fail_errno(call, -ENODEV, "there is no transport %.32s; nvmf_create_transport makes it", trtype);
		rpc_blame(call, "trtype");
		return;
	}
	rpc_ok(call, out);
}

/* --- statistics ----------------------------------------------------------------------------------------------------- */

static const struct rpc_param get_stats_params[] = {
	{ "tgt_name", RPC_STRING, 0, NULL },
	{ NULL, 0, 0, NULL },
};

static json_t *device_stats_json(const struct nvmf_device_stats *stats)
{
	json_t *out = json_pack("{s:s}", "name", stats->name);

	for (unsigned i = 0; i < stats->nr; i++)
		json_object_set_new(out, stats->counters[i].key, json_integer((json_int_t)stats->counters[i].value));
	return out;
}

static json_t *transport_stats_json(const struct nvmf_transport_stats *stats)
{
	json_t *out = json_pack("{s:s}", "trtype", stats->trtype), *devices = json_array();

	for (unsigned i = 0; i < stats->nr_devices; i++)
		json_array_append_new(devices, device_stats_json(&stats->devices[i]));
	if (strcmp(stats->trtype, "RDMA") == 0) {
		json_object_set_new(out, "pending_data_buffer", json_integer((json_int_t)stats->nr_buffer_waits));
		json_object_set(out, "devices", devices);
	}
	json_decref(devices);
	return out;
}

static json_t *group_stats_json(const struct nvmf_group_stats *stats)
{
	json_t *transports = json_array();

	for (unsigned i = 0; i < stats->nr_transports; i++)
		json_array_append_new(transports, transport_stats_json(&stats->transports[i]));
	return json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "name", stats->name, "admin_qpairs",
			 (json_int_t)stats->nr_admin_qpairs, "io_qpairs", (json_int_t)stats->nr_io_qpairs, "current_admin_qpairs",
			 (json_int_t)stats->nr_current_admin_qpairs, "current_io_qpairs", (json_int_t)stats->nr_current_io_qpairs,
			 "pending_bdev_io", (json_int_t)stats->nr_pending_bdev_io, "completed_nvme_io",
			 (json_int_t)stats->nr_completed, "transports", transports);
}

static fiber_fn void get_stats(struct rpc_call *call)
{
	struct nvmf_target *target = target_of_call(call);
	struct nvmf_group_stats *stats;
	json_t *groups;
	unsigned nr;

	if (!target)
		return;
	if (nvmf_get_stats(target, &stats, &nr)) {
		rpc_fail_errno(call, -ENOMEM, "no memory for the statistics");
		return;
	}
	groups = json_array();
	for (unsigned i = 0; i < nr; i++)
		json_array_append_new(groups, group_stats_json(&stats[i]));
	nvmf_stats_free(stats, nr);
	rpc_ok(call, json_pack("{s:I,s:o}", "tick_rate", (json_int_t)clock_tick_rate(), "poll_groups", groups));
}

/* --- subsystems ----------------------------------------------------------------------------------------------------- */

static void hex_encode(char *text, const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sprintf(text + 2 * i, "%02X", bytes[i]);
}

static bool all_zero(const uint8_t *bytes, size_t len)
{
	while (len && !bytes[len - 1])
		len--;
	return len == 0;
}

static json_t *namespace_json(const struct nvmf_ns_info *info)
{
	json_t *out = json_pack("{s:I,s:s,s:s}", "nsid", (json_int_t)info->nsid, "bdev_name", info->bdev_name, "name",
				info->bdev_name);
	char text[UUID_STR_LEN];

	if (!all_zero(info->nguid, sizeof(info->nguid))) {
		hex_encode(text, info->nguid, sizeof(info->nguid));
		json_object_set_new(out, "nguid", json_string(text));
	}
	if (!all_zero(info->eui64, sizeof(info->eui64))) {
		hex_encode(text, info->eui64, sizeof(info->eui64));
		json_object_set_new(out, "eui64", json_string(text));
	}
	if (!uuid_is_null(info->uuid)) {
		uuid_unparse_lower(info->uuid, text);
		json_object_set_new(out, "uuid", json_string(text));
	}
	json_object_set_new(out, "anagrpid", json_integer(info->anagrpid));
	if (!info->present) /* ours: it waits for its device */
		json_object_set_new(out, "present", json_false());
	return out;
}

static json_t *listeners_json(struct nvmf_subsystem *subsystem)
{
	struct nvmf_listener_info info;
	json_t *out = json_array();

	for (unsigned i = 0; nvmf_subsystem_listener(subsystem, i, &info) == 0; i++)
		json_array_append_new(out, address_json(info.trtype, &info.addr));
	return out;
}

static void add_nvme_members(json_t *out, struct nvmf_subsystem *subsystem, const struct nvmf_subsystem_info *info)
{
	json_t *namespaces = json_array();
	struct nvmf_ns_info ns = { .nsid = 0 };

	json_object_set_new(out, "serial_number", json_string(info->serial));
	json_object_set_new(out, "model_number", json_string(info->model));
	json_object_set_new(out, "max_namespaces", json_integer(info->max_namespaces));
	json_object_set_new(out, "passthrough", json_false());
	json_object_set_new(out, "min_cntlid", json_integer(info->min_cntlid));
	json_object_set_new(out, "max_cntlid", json_integer(info->max_cntlid));
	json_object_set_new(out, "dmrsl", json_integer(info->dmrsl));
	json_object_set_new(out, "wzsl", json_integer(info->wzsl));
	while (nvmf_subsystem_next_ns(subsystem, ns.nsid, &ns) == 0)
		json_array_append_new(namespaces, namespace_json(&ns));
	json_object_set_new(out, "namespaces", namespaces);
}

static json_t *subsystem_json(struct nvmf_subsystem *subsystem)
{
	struct nvmf_subsystem_info info;
	json_t *hosts = json_array(), *out;
	const char *host;

	nvmf_subsystem_info(subsystem, &info);
	for (unsigned i = 0; (host = nvmf_subsystem_host(subsystem, i)); i++)
		json_array_append_new(hosts, json_pack("{s:s}", "nqn", host));
	out = json_pack("{s:s,s:s,s:o,s:b,s:o}", "nqn", info.nqn, "subtype", info.discovery ? "Discovery" : "NVMe",
			"listen_addresses", listeners_json(subsystem), "allow_any_host", info.allow_any_host, "hosts", hosts);
	if (!info.discovery)
		add_nvme_members(out, subsystem, &info);
	return out;
}

static const struct rpc_param get_subsystems_params[] = {
	{ "nqn", RPC_STRING, 0, NULL },
	{ "tgt_name", RPC_STRING, 0, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void get_subsystems(struct rpc_call *call)
{
	struct nvmf_target *target = target_of_call(call);
	const char *nqn = rpc_string(call, "nqn", NULL);
	struct nvmf_subsystem *subsystem;
	char message[300];
	json_t *out;

	if (!target)
		return;
	subsystem = nqn ? nvmf_subsystem_find(target, nqn) : nvmf_subsystem_first(target);
	if (nqn && !subsystem) {
		snprintf(message, sizeof(message), "Subsystem with NQN '%.223s' not found", nqn);
		rpc_fail(call, RPC_INVALID_PARAMS, message, "nvmf_get_subsystems without parameters lists them");
		rpc_blame(call, "nqn");
		return;
	}
	out = json_array();
	for (; subsystem; subsystem = nqn ? NULL : nvmf_subsystem_next(subsystem))
		json_array_append_new(out, subsystem_json(subsystem));
	rpc_ok(call, out);
}

static fiber_fn void get_listeners(struct rpc_call *call)
{
	struct nvmf_subsystem *subsystem = subsystem_of_call(call);
	struct nvmf_listener_info info;
	json_t *out;

	if (!subsystem)
		return;
	out = json_array();
	/* ana_states is left out where there is no ANA; ana_state is what older clients read. */
	for (unsigned i = 0; nvmf_subsystem_listener(subsystem, i, &info) == 0; i++)
		json_array_append_new(out, json_pack("{s:o,s:s}", "address", address_json(info.trtype, &info.addr), "ana_state",
						     "optimized"));
	rpc_ok(call, out);
}

/* --- controllers and queues ----------------------------------------------------------------------------------------- */

static fiber_fn void get_controllers(struct rpc_call *call)
{
	struct nvmf_subsystem *subsystem = subsystem_of_call(call);
	struct nvmf_ctrlr_info *infos = NULL;
	unsigned nr = 0;
	json_t *out;
	int rc;

	if (!subsystem)
		return;
	rc = nvmf_subsystem_get_ctrlrs(subsystem, &infos, &nr);
	if (rc) {
		nvmf_failed(call, "nqn", rc);
		return;
	}
	out = json_array();
	for (unsigned i = 0; i < nr; i++) {
		char host_id[UUID_STR_LEN];

		uuid_unparse_lower(infos[i].host_id, host_id);
		json_array_append_new(out, json_pack("{s:i,s:s,s:s,s:s,s:i}", "cntlid", infos[i].cntlid, "cntrltype", "io",
						     "hostnqn", infos[i].host_nqn, "hostid", host_id, "num_io_qpairs",
						     infos[i].nr_queues));
	}
	free(infos);
	rpc_ok(call, out);
}

static fiber_fn void get_qpairs(struct rpc_call *call)
{
	struct nvmf_subsystem *subsystem = subsystem_of_call(call);
	struct nvmf_qpair_info *infos = NULL;
	unsigned nr = 0;
	json_t *out;
	int rc;

	if (!subsystem)
		return;
	rc = nvmf_subsystem_get_qpairs(subsystem, &infos, &nr);
	if (rc) {
		nvmf_failed(call, "nqn", rc);
		return;
	}
	out = json_array();
	for (unsigned i = 0; i < nr; i++) {
		const struct nvmf_qpair_info *q = &infos[i];

		json_array_append_new(out, json_pack("{s:i,s:i,s:s,s:s,s:s,s:o,s:o}", "cntlid", q->cntlid, "qid", q->qid, "state",
						     q->state, "thread", q->thread, "hostnqn", q->host_nqn, "listen_address",
						     address_json(q->trtype, &q->local_addr), "peer_address",
						     address_json(q->trtype, &q->peer_addr)));
	}
	free(infos);
	rpc_ok(call, out);
}

const struct rpc_method nvmf_show_methods[] = {
	{ .name = "nvmf_get_transports", .handler = get_transports, .params = get_transports_params,
	  .style = RPC_DECODE_NVMF },
	{ .name = "nvmf_get_stats", .handler = get_stats, .params = get_stats_params,
	  .style = RPC_DECODE_NVMF },
	{ .name = "nvmf_get_subsystems", .handler = get_subsystems, .params = get_subsystems_params,
	  .style = RPC_DECODE_NVMF },
	{ .name = "nvmf_subsystem_get_listeners", .handler = get_listeners, .params = nqn_params,
	  .style = RPC_DECODE_NVMF },
	{ .name = "nvmf_subsystem_get_controllers", .handler = get_controllers, .params = nqn_params,
	  .style = RPC_DECODE_NVMF },
	{ .name = "nvmf_subsystem_get_qpairs", .handler = get_qpairs, .params = nqn_params, .style = RPC_DECODE_NVMF },
	{ .name = NULL },
};
