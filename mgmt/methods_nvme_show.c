/* The methods that show NVMe controllers: their paths, their namespaces, their health. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/nvme.h"
#include "mgmt/methods.h"

static const char *state_name(enum bdev_nvme_path_state state)
{
	switch (state) {
	case BDEV_NVME_LIVE:
		return "enabled";
	case BDEV_NVME_CONNECTING:
		return "resetting";
	case BDEV_NVME_DOWN:
		return "reconnect_is_delayed";
	case BDEV_NVME_DISABLED:
		return "disabled";
	default:
		return "deleting";
	}
}

static json_t *trid_json(const struct bdev_nvme_path_info *path)
{
	json_t *trid;

	if (path->connect->trtype == NVME_TRTYPE_PCIE)
		return json_pack("{s:s,s:s}", "trtype", "PCIe", "traddr", path->address);
	trid = address_json(path->connect->trtype == NVME_TRTYPE_RDMA ? "RDMA" : "TCP", &path->connect->addr);
	json_object_set_new(trid, "subnqn", json_string(path->connect->subnqn));
	return trid;
}

static json_t *path_json(const struct bdev_nvme_path_info *path)
{
	json_t *out = json_pack("{s:s,s:o,s:i,s:{s:s,s:s,s:s},s:I}", "state", state_name(path->state), "trid", trid_json(path),
				"cntlid", path->cntlid, "host", "nqn", path->connect->hostnqn, "addr", "", "svcid", "",
				"resets", (json_int_t)path->nr_resets);

	if (*path->error)
		json_object_set_new(out, "error", json_string(path->error));
	return out;
}

static json_t *paths_json(const struct bdev_nvme_ctrlr *ctrlr)
{
	json_t *paths = json_array();
	struct bdev_nvme_path_info path;

	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
		if (bdev_nvme_path(ctrlr, i, &path))
			json_array_append_new(paths, path_json(&path));
	}
	return paths;
}

static const struct rpc_param get_params[] = {
	{ "name", RPC_STRING, 0, NULL },
	{ NULL, 0, 0, NULL },
};

static const struct rpc_param name_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void get_controllers(struct rpc_call *call)
{
	const char *name = rpc_string(call, "name", NULL);
	json_t *list;

	if (name && !bdev_nvme_find(name)) {
		rpc_fail_errno(call, -ENODEV, "there is no NVMe controller %.200s", name);
		rpc_blame(call, "name");
		return;
	}
	list = json_array();
	for (struct bdev_nvme_ctrlr *c = bdev_nvme_first(); c; c = bdev_nvme_next(c)) {
		if (!name || !strcmp(name, bdev_nvme_name(c)))
			json_array_append_new(list,
					      json_pack("{s:s,s:o}", "name", bdev_nvme_name(c), "ctrlrs", paths_json(c)));
	}
	rpc_ok(call, list);
}

/* --- driver_specific.nvme of bdev_get_bdevs ---------------------------------------------------------------------------- */

static json_t *field_json(const char *field, size_t len)
{
	char text[257];

	nvme_copy_field(text, sizeof(text), field, len);
	return json_string(text);
}

static json_t *ctrlr_data_json(const struct bdev_nvme_path_info *path)
{
	const struct nvme_id_ctrlr *id = path->id;
	char vendor[16];

	snprintf(vendor, sizeof(vendor), "0x%04x", id->vid);
	return json_pack("{s:i,s:s,s:o,s:o,s:o,s:o,s:{s:i,s:i,s:i,s:i},s:b,s:b}", "cntlid", path->cntlid, "vendor_id", vendor,
			 "model_number", field_json(id->mn, sizeof(id->mn)), "serial_number", field_json(id->sn, sizeof(id->sn)),
			 "firmware_revision", field_json(id->fr, sizeof(id->fr)), "subnqn",
			 field_json(id->subnqn, sizeof(id->subnqn)), "oacs", "security", id->oacs & 1, "format",
			 id->oacs >> 1 & 1, "firmware", id->oacs >> 2 & 1, "ns_manage", id->oacs >> 3 & 1, "multi_ctrlr",
			 !!(id->cmic & NVME_CMIC_MULTI_CTRLR), "ana_reporting", !!(id->cmic & NVME_CMIC_ANA));
}

json_t *nvme_specific_json(const struct bdev *bdev)
{
	struct bdev_nvme_path_info path;
	struct bdev_nvme_ctrlr *ctrlr;
	json_t *list, *one;
	char version[32];
	uint32_t nsid;

	ctrlr = bdev_nvme_of(bdev, &nsid);
	if (!ctrlr)
		return NULL;
	list = json_array();
	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
		if (!bdev_nvme_path(ctrlr, i, &path) || !path.id)
			continue;
		one = json_object();
		if (path.connect->trtype == NVME_TRTYPE_PCIE)
			json_object_set_new(one, "pci_address", json_string(path.address));
		json_object_set_new(one, "trid", trid_json(&path));
		json_object_set_new(one, "ctrlr_data", ctrlr_data_json(&path));
		snprintf(version, sizeof(version), "%u.%u", path.vs >> 16, path.vs >> 8 & 0xff);
		json_object_set_new(one, "vs", json_pack("{s:s}", "nvme_version", version));
		json_object_set_new(one, "ns_data",
				    json_pack("{s:I,s:s,s:b}", "id", (json_int_t)nsid, "ana_state",
					      bdev_nvme_access_name(bdev, i), "can_share",
					      !!(bdev_nvme_ns_of(bdev)->id.nmic & NVME_NMIC_SHARED)));
		json_array_append_new(list, one);
	}
	return list;
}

const char *nvme_policy_name(const struct bdev *bdev)
{
	uint32_t nsid;

	return bdev_nvme_policy(bdev_nvme_of(bdev, &nsid)) == BDEV_NVME_ACTIVE_ACTIVE ? "active_active" : "active_passive";
}

/* --- which way I/O goes ------------------------------------------------------------------------------------------------ */

static bool is_usable(struct bdev *bdev, struct bdev_nvme_ctrlr *ctrlr, int idx, const char *access)
{
	struct bdev_nvme_path_info path;

	return idx >= 0 && bdev_nvme_path(ctrlr, (unsigned)idx, &path) && path.state == BDEV_NVME_LIVE &&
	       !strcmp(bdev_nvme_access_name(bdev, (unsigned)idx), access);
}

/* Of those that can be used best: the preferred one, or the first. */
static int current_path(struct bdev *bdev, struct bdev_nvme_ctrlr *ctrlr)
{
	static const char *const accesses[] = { "optimized", "non_optimized" };

	for (unsigned a = 0; a < 2; a++) {
		if (is_usable(bdev, ctrlr, bdev_nvme_preferred(bdev), accesses[a]))
			return bdev_nvme_preferred(bdev);
		for (int i = 0; i < (int)BDEV_NVME_MAX_PATHS; i++) {
			if (is_usable(bdev, ctrlr, i, accesses[a]))
				return i;
		}
	}
	return -1;
}

/* One bdev's paths.  current: the one that takes I/O, or each of them. */
static void add_io_paths(json_t *list, struct bdev *bdev, struct bdev_nvme_ctrlr *ctrlr)
{
	bool all = bdev_nvme_policy(ctrlr) == BDEV_NVME_ACTIVE_ACTIVE;
	struct bdev_nvme_path_info path;
	int current = current_path(bdev, ctrlr);

	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
		const char *access = bdev_nvme_access_name(bdev, i);
		bool usable;

		if (!bdev_nvme_path(ctrlr, i, &path))
			continue;
		usable = path.state == BDEV_NVME_LIVE && strcmp(access, "inaccessible") != 0;
		json_array_append_new(list, json_pack("{s:s,s:i,s:b,s:b,s:b,s:s,s:o}", "bdev_name", bdev->name, "cntlid",
						      path.cntlid, "current", usable && (all || current == (int)i), "connected",
						      path.state == BDEV_NVME_LIVE, "accessible", usable, "ana_state", access,
						      "transport", trid_json(&path)));
	}
}

static fiber_fn void get_io_paths(struct rpc_call *call)
{
	const char *name = rpc_string(call, "name", NULL);
	struct bdev_nvme_ctrlr *ctrlr;
	json_t *list;
	uint32_t nsid;

	if (name && !bdev_of_call(call, "name"))
		return;
	list = json_array();
	for (struct bdev *bdev = bdev_first(); bdev; bdev = bdev_next(bdev)) {
		ctrlr = bdev_nvme_of(bdev, &nsid);
		if (ctrlr && (!name || bdev_find(name) == bdev))
			add_io_paths(list, bdev, ctrlr);
	}
	rpc_ok(call, json_pack("{s:[{s:s,s:o}]}", "poll_groups", "thread", "app_thread", "io_paths", list));
}

/* --- what each way has carried ------------------------------------------------------------------------------------------ */

static fiber_fn void get_path_iostat(struct rpc_call *call)
{
	struct bdev *bdev = bdev_of_call(call, "name");
	struct bdev_nvme_options options;
	struct bdev_nvme_path_info path;
	struct bdev_nvme_ctrlr *ctrlr;
	json_t *list, *stat, *name;
	struct bdev_stats stats;
	uint32_t nsid;

	if (!bdev)
		return;
	bdev_nvme_get_options(&options);
	ctrlr = bdev_nvme_of(bdev, &nsid);
	if (!ctrlr || !options.path_stats) {
		rpc_fail_errno(call, ctrlr ? -EPERM : -ENODEV,
			       ctrlr ? "nothing is counted: bdev_nvme_set_options sets io_path_stat" : "the device is no NVMe namespace");
		rpc_blame(call, "name");
		return;
	}
	list = json_array();
	name = json_string(bdev->name);
	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
		/* Both may go while threads are asked. */
		bdev = bdev_find(json_string_value(name));
		ctrlr = bdev ? bdev_nvme_of(bdev, &nsid) : NULL;
		if (!ctrlr || !bdev_nvme_path(ctrlr, i, &path))
			continue;
		json_array_append_new(list, json_pack("{s:o,s:o}", "trid", trid_json(&path), "stat", stat = json_object()));
		bdev_nvme_path_stats(bdev, i, &stats);
		stats_into(stat, &stats);
	}
	rpc_ok(call, json_pack("{s:o,s:o}", "name", name, "stats", list));
}

/* --- health ------------------------------------------------------------------------------------------------------------ */

static void set_u64(json_t *object, const char *key, uint64_t value)
{
	json_object_set_new(object, key, json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value));
}

static json_t *smart_json(const struct nvme_log_smart *s)
{
	json_t *out = json_object();
	int kelvin = s->temperature_k[0] | s->temperature_k[1] << 8;

	set_u64(out, "critical_warning", s->critical_warning);
	json_object_set_new(out, "temperature_celsius", json_integer(kelvin - 273));
	set_u64(out, "available_spare_percentage", s->avail_spare);
	set_u64(out, "available_spare_threshold_percentage", s->spare_threshold);
	set_u64(out, "percentage_used", s->percent_used);
	set_u64(out, "data_units_read", s->data_units_read[0]);
	set_u64(out, "data_units_written", s->data_units_written[0]);
	set_u64(out, "host_read_commands", s->host_reads[0]);
	set_u64(out, "host_write_commands", s->host_writes[0]);
	set_u64(out, "controller_busy_time", s->busy_minutes[0]);
	set_u64(out, "power_cycles", s->power_cycles[0]);
	set_u64(out, "power_on_hours", s->power_on_hours[0]);
	set_u64(out, "unsafe_shutdowns", s->unsafe_shutdowns[0]);
	set_u64(out, "media_errors", s->media_errors[0]);
	set_u64(out, "num_err_log_entries", s->nr_error_entries[0]);
	set_u64(out, "warning_temperature_time_minutes", s->warning_temp_minutes);
	set_u64(out, "critical_composite_temperature_time_minutes", s->critical_temp_minutes);
	return out;
}

static fiber_fn void get_health(struct rpc_call *call)
{
	const char *name = rpc_string(call, "name", "");
	struct bdev_nvme_path_info path;
	struct bdev_nvme_ctrlr *ctrlr;
	struct nvme_log_smart smart;
	json_t *out;
	int rc = bdev_nvme_smart(name, &smart);

	ctrlr = bdev_nvme_find(name);
	if (rc || !ctrlr) {
		rpc_fail_errno(call, rc > 0 ? -EIO : -ENODEV,
			       rc > 0 ? "the controller does not give its health log"
				      : "there is no NVMe controller %.200s that is connected", name);
		rpc_blame(call, "name");
		return;
	}
	out = smart_json(&smart);
	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
		if (!bdev_nvme_path(ctrlr, i, &path) || !path.id)
			continue;
		json_object_set_new(out, "model_number", field_json(path.id->mn, sizeof(path.id->mn)));
		json_object_set_new(out, "serial_number", field_json(path.id->sn, sizeof(path.id->sn)));
		json_object_set_new(out, "firmware_revision", field_json(path.id->fr, sizeof(path.id->fr)));
		json_object_set_new(out, "traddr",
				    json_string(path.connect->trtype == NVME_TRTYPE_PCIE ? path.address
											  : path.connect->addr.host));
		break;
	}
	rpc_ok(call, out);
}

const struct rpc_method nvme_show_methods[] = {
	{ .name = "bdev_nvme_get_controllers", .handler = get_controllers, .params = get_params },
	{ .name = "bdev_nvme_get_io_paths", .handler = get_io_paths, .params = get_params },
	{ .name = "bdev_nvme_get_path_iostat", .handler = get_path_iostat, .params = name_params },
	{ .name = "bdev_nvme_get_controller_health_info", .handler = get_health, .params = name_params },
	{ .name = NULL },
};
