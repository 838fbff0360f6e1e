/*
 * The methods for whole stores beyond making and deleting them: renaming, space, growing, opening, and the long ones,
 * check and scrub.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "mgmt/known.h"
#include "mgmt/methods.h"
#include "mgmt/methods_lvol.h"
#include "mgmt/watch.h"

/* --- renaming ------------------------------------------------------------------------------------------------------- */

/* Done, and known as it is now. */
static void saved_ok(struct rpc_call *call, const char *name)
{
	struct lvol_store *store = lvol_store_find(name);
	struct lvol_store_info info;

	if (store) {
		lvol_store_get_info(store, &info);
		known_save(call, store, known_read_only(info.uuid));
	}
	rpc_ok(call, NULL);
}

static const struct rpc_param rename_params[] = {
	{ "old_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "new_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void rename_lvstore(struct rpc_call *call)
{
	const char *name = rpc_string(call, "old_name", "");
	struct lvol_store *store = lvol_store_find(name);
	char message[128];
	int rc;

	if (!store) {
		snprintf(message, sizeof(message), "Lvol store %.64s not found", name);
		rpc_fail(call, -ENOENT, message, "bdev_lvol_get_lvstores lists the stores");
		rpc_blame(call, "old_name");
		return;
	}
	rc = lvol_store_rename(store, rpc_string(call, "new_name", ""));
	if (rc)
		lvol_fail(call, rc, rc == -EEXIST || rc == -EINVAL ? "new_name" : NULL, lvol_rule(rc));
	else
		saved_ok(call, rpc_string(call, "new_name", ""));
}

/* --- space ---------------------------------------------------------------------------------------------------------- */

static const struct rpc_param store_params[] = {
	{ "uuid", RPC_STRING, 0, NULL },
	{ "lvs_name", RPC_STRING, 0, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void get_lvstore_space(struct rpc_call *call)
{
	struct lvol_store *store = store_of_call(call, "uuid");
	uint8_t percents[WATCH_MAX_THRESHOLDS];
	struct lvol_store_info info;
	char uuid[UUID_STR_LEN];
	json_t *thresholds;
	uint64_t used;
	unsigned nr;

	if (!store)
		return;
	lvol_store_get_info(store, &info);
	uuid_unparse_lower(info.uuid, uuid);
	used = info.total_data_clusters - info.free_clusters;
	nr = watch_thresholds(uuid, percents);
	thresholds = json_array();
	for (unsigned i = 0; i < nr; i++)
		json_array_append_new(thresholds, json_integer(percents[i]));
	rpc_ok(call,
	       json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "uuid", uuid, "name", info.name, "cluster_size",
			 (json_int_t)info.cluster_size_bytes, "total_clusters", (json_int_t)info.total_data_clusters,
			 "free_clusters", (json_int_t)info.free_clusters, "coming_clusters", (json_int_t)info.coming_clusters,
			 "reserved_clusters", (json_int_t)info.reserved_clusters, "metadata_clusters",
			 (json_int_t)info.metadata_clusters, "logical_clusters", (json_int_t)info.logical_clusters,
			 "overcommitted_clusters", (json_int_t)info.overcommitted_clusters, "used_percent",
			 (json_int_t)(info.total_data_clusters ? used * 100 / info.total_data_clusters : 0),
			 "threshold_percents", thresholds));
}

/* --- growing, opening ----------------------------------------------------------------------------------------------- */

static fiber_fn void grow_lvstore(struct rpc_call *call)
{
	struct lvol_store *store = store_of_call(call, "uuid");
	int rc;

	if (!store)
		return;
	rc = lvol_store_grow(store);
	if (rc)
		lvol_fail(call, rc, NULL, lvol_rule(rc));
	else
		rpc_ok(call, NULL);
}

static const struct rpc_param open_params[] = {
	{ "bdev_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "read_only", RPC_BOOL, 0, NULL },
	{ NULL, 0, 0, NULL },
};

static void open_failed(struct rpc_call *call, int rc, const struct bdev *bdev, const struct blob_reason *reason)
{
	char missing[512], text[512];

	if (rc == -EPERM || rc == -EBUSY) {
		lvol_fail(call, -EPERM, "bdev_name", "the device is in use: by a store, or exported as a namespace");
	} else if (rc == -EILSEQ) {
		/* Bytes that are no store: the error's own text speaks of characters. */
		if (bdev && known_missing_on(bdev, missing, sizeof(missing)))
			rpc_fail_errno(call, -EINVAL, "%s", missing);
		else
			rpc_fail_errno(call, -EINVAL, "%s", reason->text[0] ? reason->text : "the device holds no store");
		rpc_blame(call, "bdev_name");
	} else if (rc == -EUCLEAN && !rpc_bool(call, "read_only", false)) {
		snprintf(text, sizeof(text), "%s; with read_only true what is left of it is shown", reason->text);
		lvol_fail(call, rc, "bdev_name", text);
	} else {
		lvol_fail(call, rc, "bdev_name", reason->text[0] ? reason->text : lvol_rule(rc));
	}
}

static struct lvol_store *store_on(const struct bdev *bdev)
{
	struct lvol_store *store = lvol_store_first();
	struct lvol_store_info info;

	for (; store; store = lvol_store_next(store)) {
		lvol_store_get_info(store, &info);
		if (bdev_find(info.base_bdev) == bdev)
			break;
	}
	return store;
}

/* One that was opened read-only by hand is closed, to be opened for writing: 0, or an error with the call failed. */
static fiber_fn int close_read_only(struct rpc_call *call, struct lvol_store *store)
{
	struct lvol_store_info info;
	struct lvol *lvol;
	char uuid[UUID_STR_LEN];

	for (lvol = lvol_first(store); lvol; lvol = lvol_next(lvol)) {
		if (bdev_is_open(lvol_bdev(lvol))) {
			lvol_fail(call, -EBUSY, "bdev_name", "volumes of the store are in use: remove their namespaces and what else "
				  "stands on them first");
			return -EBUSY;
		}
	}
	lvol_store_get_info(store, &info);
	uuid_unparse_lower(info.uuid, uuid);
	known_set_read_only(uuid, false);
	lvol_store_close(store);
	return 0;
}

/* Ours: a store that is not open, since it was damaged or refused when its device came. */
static fiber_fn void open_lvstore(struct rpc_call *call)
{
	bool read_only = rpc_bool(call, "read_only", false), was_read_only = false;
	const char *name = rpc_string(call, "bdev_name", "");
	struct bdev *bdev = bdev_find(name);
	struct lvol_store *store = bdev ? store_on(bdev) : NULL;
	struct blob_reason reason = { "" };
	struct lvol_store_info info = { 0 };
	char uuid[UUID_STR_LEN];
	int rc;

	if (!bdev) {
		rpc_fail_errno(call, -ENODEV, "there is no device %.200s; bdev_get_bdevs lists them", name);
		rpc_blame(call, "bdev_name");
		return;
	}
	if (store)
		lvol_store_get_info(store, &info);
	was_read_only = store && !read_only && known_read_only(info.uuid);
	if (was_read_only && close_read_only(call, store))
		return;
	bdev = bdev_find(name);
	if (!bdev || bdev_is_claimed(bdev, NULL))
		rc = -EPERM;
	else if (read_only)
		rc = lvol_store_open_read_only(name, &store, &reason);
	else
		rc = lvol_store_open(name, &store, &reason);
	if (rc) {
		open_failed(call, rc, bdev_find(name), &reason);
		uuid_unparse_lower(info.uuid, uuid);
		if (was_read_only && !lvol_store_open_read_only(name, NULL, NULL)) /* as it was */
			known_set_read_only(uuid, true);
		return;
	}
	lvol_store_get_info(store, &info);
	uuid_unparse_lower(info.uuid, uuid);
	known_save(call, store, read_only);
	rpc_ok(call, json_string(uuid));
}

/* --- jobs ----------------------------------------------------------------------------------------------------------- */

/* Of a job's params; NULL with the reason told. */
static struct lvol_store *store_of_job(struct job *job, json_t *params)
{
	const char *uuid = json_string_value(json_object_get(params, "uuid"));
	struct lvol_store *store = uuid ? lvol_store_find(uuid) : NULL;

	if (!store)
		job_explain(job, "store %s is not open", job->object);
	return store;
}

static void start_store_job(struct rpc_call *call, const struct job_kind *kind)
{
	struct lvol_store *store = store_of_call(call, "uuid");
	struct job_opts opts = { .kind = kind };
	struct lvol_store_info info;
	char uuid[UUID_STR_LEN];

	if (!store || !store_is_idle(call, store))
		return;
	lvol_store_get_info(store, &info);
	uuid_unparse_lower(info.uuid, uuid);
	opts.object = info.name;
	opts.uuid = uuid;
	opts.params = json_pack("{s:s}", "uuid", uuid);
	job_start(call, &opts);
}

static const struct rpc_param job_params[] = {
	{ "uuid", RPC_STRING, 0, NULL },
	{ "lvs_name", RPC_STRING, 0, NULL },
	JOB_BACKGROUND_PARAM,
	{ NULL, 0, 0, NULL },
};

static const char *const finding_kinds[] = {
	[STORE_FINDING_COPY] = "copy",	 [STORE_FINDING_LOST] = "lost",	      [STORE_FINDING_COUNT] = "count",
	[STORE_FINDING_MAP] = "map",	 [STORE_FINDING_JOURNAL] = "journal",
};

static void add_finding(const struct store_finding *finding, void *arg)
{
	if (json_array_size(arg) < 1000)
		json_array_append_new(arg, json_pack("{s:s,s:I,s:s}", "kind", finding_kinds[finding->kind], "page",
						     (json_int_t)finding->page, "text", finding->text));
}

static fiber_fn int run_check(struct job *job, json_t *params)
{
	struct lvol_store *store = store_of_job(job, params);
	struct store_check_result result;
	json_t *findings;
	int rc;

	if (!store)
		return -ENODEV;
	rc = lvol_store_hold(store);
	if (rc)
		return rc;
	findings = json_array();
	memset(&result, 0, sizeof(result));
	rc = store_check_online(lvol_store_blobstore(store), add_finding, findings, &job->progress, &result);
	lvol_store_release(store);
	if (!rc)
		job->progress.done = job->progress.total = result.nr_pages;
	if (!rc)
		job_set_result(job, json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:O}", "generation", (json_int_t)result.generation,
					      "pages", (json_int_t)result.nr_pages, "volumes", (json_int_t)result.nr_blobs,
					      "nodes", (json_int_t)result.nr_nodes, "used_clusters",
					      (json_int_t)result.nr_used_clusters, "records", (json_int_t)result.nr_records,
					      "nr_findings", (json_int_t)result.nr_findings, "findings", findings));
	json_decref(findings);
	return rc;
}

static bool store_is_there(const struct job *job)
{
	return lvol_store_find(job->uuid);
}

static const struct job_kind store_check_job = { .name = "check", .unit = "pages", .is_there = store_is_there, .run = run_check };

/* Ours, not SPDK's: a check while I/O goes on. */
static fiber_fn void check_lvstore(struct rpc_call *call)
{
	start_store_job(call, &store_check_job);
}

/* --- scrub ---------------------------------------------------------------------------------------------------------- */

static uint64_t member(json_t *params, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(params, key));
}

static json_t *scrub_json(const struct store_scrub_result *result)
{
	return json_pack("{s:I,s:I,s:I,s:I}", "bytes", (json_int_t)result->nr_bytes, "bad", (json_int_t)result->nr_bad,
			 "unverified", (json_int_t)result->nr_unverified, "unreadable", (json_int_t)result->nr_unreadable);
}

struct scrubbing {
	struct store_scrub_cursor cursor;
	struct store_scrub_result result;
};

static void keep_scrub_place(struct job *job)
{
	const struct scrubbing *at = job->at;
	json_t *found = scrub_json(&at->result);

	json_object_set_new(job->params, "blob_id", json_integer((json_int_t)at->cursor.blob_id));
	json_object_set_new(job->params, "cluster", json_integer((json_int_t)at->cursor.cluster));
	json_object_update(job->params, found);
	json_decref(found);
}

/* params say where to go on after the daemon's end, and what had been found by then. */
static fiber_fn int run_scrub(struct job *job, json_t *params)
{
	struct scrubbing at = {
		.cursor = { member(params, "blob_id"), member(params, "cluster") },
		.result = { member(params, "bytes"), member(params, "bad"), member(params, "unverified"), member(params, "unreadable") },
	};
	struct lvol_store *store = store_of_job(job, params);
	int rc;

	if (!store)
		return -ENODEV;
	job->at = &at;
	rc = store_scrub(lvol_store_blobstore(store), &at.cursor, &at.result, &job->progress);
	keep_scrub_place(job);
	job->at = NULL;
	job_set_result(job, scrub_json(&at.result));
	if (rc == -ENOTSUP)
		job_explain(job, "the store was made without checksums");
	return rc;
}

static const struct job_kind store_scrub_job = { .name = "scrub", .unit = "clusters", .is_there = store_is_there,
						   .keep_place = keep_scrub_place, .run = run_scrub };

/* Ours, not SPDK's: reads all data and compares it with its checksums, while I/O goes on. */
static fiber_fn void scrub_lvstore(struct rpc_call *call)
{
	start_store_job(call, &store_scrub_job);
}

const struct rpc_method store_methods[] = {
	{ .name = "bdev_lvol_rename_lvstore", .handler = rename_lvstore, .params = rename_params, .changes = true },
	{ .name = "bdev_lvol_grow_lvstore", .handler = grow_lvstore, .params = store_params, .changes = true },
	{ .name = "bdev_lvol_open_lvstore", .handler = open_lvstore, .params = open_params, .changes = true },
	{ .name = "bdev_lvol_get_lvstore_space", .handler = get_lvstore_space, .params = store_params },
	{ .name = "bdev_lvol_check_lvstore", .handler = check_lvstore, .params = job_params, .changes = true },
	{ .name = "bdev_lvol_scrub_lvstore", .handler = scrub_lvstore, .params = job_params, .changes = true },
	{ .name = NULL },
};

/* Everything a saved job may ask for. */
const struct job_kind *const lvol_job_kinds[] = { &store_check_job, &store_scrub_job, &inflate_job, &shallow_copy_job, NULL };
