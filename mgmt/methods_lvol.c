/*
 * The methods for stores and volumes.  What they change is durable in the store itself when they return: only the
 * namespaces that go with a deleted volume are a matter of the saved state.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lvol/lvol.h"
#include "mgmt/deletion.h"
#include "mgmt/job.h"
#include "mgmt/known.h"
#include "mgmt/methods.h"
#include "mgmt/methods_lvol.h"
#include "mgmt/watch.h"

#define MIB	     (1024ull * 1024)
#define MAX_DEGRADED 64u /* lines of what is lost that a list shows; the log has all */

/* --- finding -------------------------------------------------------------------------------------------------------- */

struct lvol_store *store_of_call(struct rpc_call *call, const char *uuid_key)
{
	const char *uuid = rpc_string(call, uuid_key, NULL), *name = rpc_string(call, "lvs_name", NULL);
	struct lvol_store *store;

	if (!uuid == !name) {
		rpc_fail(call, -EINVAL, "Invalid argument", "give either %s or lvs_name", uuid_key);
		rpc_blame(call, uuid ? uuid_key : "lvs_name");
		return NULL;
	}
	store = lvol_store_find(uuid ? uuid : name);
	if (!store) {
		rpc_fail_errno(call, -ENODEV, "there is no store %.200s; bdev_lvol_get_lvstores lists them", uuid ? uuid : name);
		rpc_blame(call, uuid ? uuid_key : "lvs_name");
	}
	return store;
}

struct lvol *lvol_of_call(struct rpc_call *call, const char *key)
{
	const char *name = rpc_string(call, key, "");
	struct lvol *lvol = lvol_find(name), *hidden;
	char why[512];

	if (lvol)
		return lvol;
	hidden = lvol_find_hidden(name);
	if (hidden)
		lvol_why_hidden(hidden, why, sizeof(why));
	if (hidden)
		rpc_fail_errno(call, -ENODEV, "volume %.140s is not shown: %s", name, why);
	else
		rpc_fail_errno(call, -ENODEV, "there is no volume %.200s; give its UUID or store/volume", name);
	rpc_blame(call, key);
	return NULL;
}

struct lvol *any_lvol_of_call(struct rpc_call *call, const char *key)
{
	const char *name = rpc_string(call, key, "");
	struct lvol *hidden = lvol_find(name) ? NULL : lvol_find_hidden(name);

	return hidden ? hidden : lvol_of_call(call, key);
}

static bool object_is_idle(struct rpc_call *call, const char *uuid, const char *what)
{
	struct job *job = job_on(uuid);

	if (!job)
		return true;
	rpc_fail(call, RPC_INVALID_PARAMS, strerror(EBUSY), "job %llu (%s) works on %.200s: wait for it (job_wait) or end it "
		 "(job_cancel)", (unsigned long long)job->id, job->kind_name, what);
	return false;
}

struct lvol *idle_lvol_of_call(struct rpc_call *call, const char *key)
{
	struct lvol *lvol = lvol_of_call(call, key);

	if (!lvol || object_is_idle(call, lvol_bdev(lvol)->name, lvol_bdev(lvol)->alias))
		return lvol;
	rpc_blame(call, key);
	return NULL;
}

bool store_is_idle(struct rpc_call *call, struct lvol_store *store)
{
	struct lvol_store_info info;
	char uuid[UUID_STR_LEN];

	lvol_store_get_info(store, &info);
	uuid_unparse_lower(info.uuid, uuid);
	return object_is_idle(call, uuid, info.name);
}

/* The store that a call is about, whatever its parameters are called; NULL: none. */
static struct lvol_store *store_about(const struct rpc_call *call)
{
	static const char *const keys[] = { "uuid", "lvs_uuid", "lvs_name", "name", "lvol_name", "snapshot_name", "old_name" };

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const char *name = rpc_string(call, keys[i], NULL);
		struct lvol *lvol = name ? lvol_find(name) : NULL;
		struct lvol_store *store = lvol ? lvol_get_store(lvol) : name ? lvol_store_find(name) : NULL;

		if (store)
			return store;
	}
	return NULL;
}

bool store_is_refusing(struct lvol_store *store, char *text, size_t size)
{
	struct store_info info;

	store_get_info(lvol_store_blobstore(store), &info);
	if (info.opened_read_only)
		snprintf(text, size, "store %.64s on %.64s was opened read-only, so nothing in it changes: bdev_lvol_open_lvstore with "
			 "read_only false opens it for writing, once nothing uses its volumes", info.name, info.bdev_name);
	else if (info.read_only)
		snprintf(text, size, "store %.64s on %.64s takes no writes any more (%.200s): see to the device, then start the daemon "
			 "again", info.name, info.bdev_name,
			 info.read_only_reason[0] ? info.read_only_reason : "its device is read-only");
	return info.read_only;
}

void lvol_fail(struct rpc_call *call, int rc, const char *key, const char *detail)
{
	struct lvol_store *store = rc == -EROFS ? store_about(call) : NULL;
	char why[512];

	if (store && store_is_refusing(store, why, sizeof(why))) {
		rpc_fail(call, RPC_INVALID_PARAMS, strerror(EROFS), "%s", why);
		return;
	}
	rpc_fail(call, RPC_INVALID_PARAMS, strerror(-rc), "%s", detail);
	if (key)
		rpc_blame(call, key);
}

const char *lvol_rule(int rc)
{
	switch (rc) {
	case -EEXIST:
		return "the name is taken";
	case -ENOSPC:
		return "the store has not enough free clusters; a thin volume needs none (thin_provision), and deleting or "
		       "discarding gives some back";
	case -EINVAL:
		return "names have 1 to 63 bytes, no slash and no control characters";
	case -EROFS:
		return "the store or the volume takes no writes; the daemon's log says why";
	case -EPERM:
		return "it is a snapshot, or read-only for good: clone it, and work on the clone";
	case -EFBIG:
		return "that is too large: a volume has at most 4294967294 clusters of its store";
	case -ENODEV:
		return "the store is being closed";
	case -EIO:
		return "its device failed or went away, or a page of its map is lost; the daemon's log says which";
	default:
		return "see the daemon's log";
	}
}

/* --- stores --------------------------------------------------------------------------------------------------------- */

static const struct rpc_param create_lvstore_params[] = {
	{ "bdev_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "lvs_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "cluster_sz", RPC_U32, 0, NULL },
	{ "clear_method", RPC_STRING, RPC_IGNORED, NULL },
	{ "num_md_pages_per_cluster_ratio", RPC_U32, RPC_IGNORED, NULL },
	{ "md_page_size", RPC_U32, RPC_IGNORED, NULL },
	{ "checksums", RPC_BOOL, 0, NULL },    /* ours */
	{ "journal_pages", RPC_U32, 0, NULL }, /* ours */
	{ NULL, 0, 0, NULL },
};

/* Eight clusters, and one behind the second superblock, which lies at 1 MiB. */
static uint64_t lvstore_min_bytes(uint64_t cluster)
{
	return 8 * cluster > MIB + cluster ? 8 * cluster : MIB + cluster;
}

/* Whether the device is the reason: ENOSPC may also be that of the file system below it. */
static bool lvstore_too_small(struct rpc_call *call, int rc)
{
	const char *base = rpc_string(call, "bdev_name", "");
	uint64_t cluster = rpc_u64(call, "cluster_sz", 0);
	struct bdev *bdev = bdev_find(base);
	uint64_t have = bdev ? bdev_nr_blocks(bdev) * bdev->block_size : 0;
	uint64_t need = lvstore_min_bytes(cluster ? cluster : BLOB_CLUSTER_DEFAULT);

	/* What is shorter than one page cannot be probed, and is taken for a store that cannot be read. */
	if (!bdev || have >= need || (rc != -ENOSPC && !(rc == -EEXIST && have < 4096)))
		return false;
	rpc_fail(call, RPC_INVALID_PARAMS, strerror(ENOSPC), "%.100s is too small: it has %llu bytes, and a store with clusters "
		 "of %llu bytes needs at least %llu", base, (unsigned long long)have,
		 (unsigned long long)(cluster ? cluster : BLOB_CLUSTER_DEFAULT), (unsigned long long)need);
	rpc_blame(call, "bdev_name");
	return true;
}

static void create_lvstore_failed(struct rpc_call *call, int rc, const struct blob_reason *reason)
{
	const char *base = rpc_string(call, "bdev_name", "");

	if (lvstore_too_small(call, rc))
		return;
	switch (rc) {
	case -ENODEV:
		rpc_fail_errno(call, rc, "there is no device %.200s; bdev_get_bdevs lists them", base);
		rpc_blame(call, "bdev_name");
		break;
	case -EPERM:
	case -EBUSY:
		rpc_fail(call, -EPERM, strerror(EPERM), "%.200s is in use: by a store, or exported as a namespace", base);
		rpc_blame(call, "bdev_name");
		break;
	case -EEXIST:
		rpc_fail(call, RPC_INVALID_PARAMS, strerror(EEXIST), "%s",
			 reason->text[0] ? reason->text : "a store of this name is open already");
		rpc_blame(call, "lvs_name");
		break;
	default:
		rpc_fail(call, RPC_INVALID_PARAMS, strerror(-rc), "%s", reason->text[0] ? reason->text : lvol_rule(rc));
	}
}

static fiber_fn void create_lvstore(struct rpc_call *call)
{
	struct lvol_store_create_opts opts = {
		.name = rpc_string(call, "lvs_name", ""),
		.base_bdev = rpc_string(call, "bdev_name", ""),
		.cluster_size_bytes = (uint32_t)rpc_u64(call, "cluster_sz", 0),
		.checksums = rpc_bool(call, "checksums", false),
		.journal_pages = (uint32_t)rpc_u64(call, "journal_pages", 0),
	};
	uint32_t cluster = opts.cluster_size_bytes;
	struct blob_reason reason = { "" };
	struct lvol_store_info info;
	struct lvol_store *store;
	char uuid[UUID_STR_LEN];
	const char *claimer;
	struct bdev *bdev;
	int rc;

	if (cluster && (cluster < BLOB_CLUSTER_MIN || cluster > BLOB_CLUSTER_MAX || (cluster & (cluster - 1)))) {
		rpc_fail(call, RPC_INVALID_PARAMS, strerror(EINVAL), "cluster_sz is a power of two from %u to %u",
			 BLOB_CLUSTER_MIN, BLOB_CLUSTER_MAX);
		rpc_blame(call, "cluster_sz");
		return;
	}
	bdev = bdev_find(opts.base_bdev);
	/* What is in use is told before what is on it. */
	rc = bdev && bdev_is_claimed(bdev, &claimer) ? -EPERM : lvol_store_create(&opts, &store, &reason);
	if (rc) {
		create_lvstore_failed(call, rc, &reason);
		return;
	}
	lvol_store_get_info(store, &info);
	uuid_unparse_lower(info.uuid, uuid);
	known_forget_on(call, bdev_find(info.base_bdev));
	known_save(call, store, false);
	rpc_ok(call, json_string(uuid));
}

static const struct rpc_param lvstore_params[] = {
	{ "uuid", RPC_STRING, 0, NULL },
	{ "lvs_name", RPC_STRING, 0, NULL },
	{ NULL, 0, 0, NULL },
};

/* Whether it has waited for one. */
static fiber_fn bool end_jobs_of_store(struct lvol_store *store)
{
	struct lvol_store_info info;
	char uuid[UUID_STR_LEN];
	struct lvol *lvol;

	lvol_store_get_info(store, &info);
	uuid_unparse_lower(info.uuid, uuid);
	if (jobs_end_on(uuid))
		return true;
	for (lvol = lvol_first(store); lvol; lvol = lvol_next(lvol)) {
		if (jobs_end_on(lvol_bdev(lvol)->name))
			return true;
	}
	return false;
}

static fiber_fn void delete_lvstore(struct rpc_call *call)
{
	struct lvol_store *store;
	struct lvol_store_info info;
	struct deletion deletion;
	char uuid[UUID_STR_LEN];
	int rc;

	/* Looked up again after each wait. */
	while ((store = store_of_call(call, "uuid")) && end_jobs_of_store(store))
		;
	if (!store)
		return;
	lvol_store_get_info(store, &info);
	if (info.read_only) {
		lvol_fail(call, -EROFS, NULL, lvol_rule(-EROFS));
		return;
	}
	uuid_unparse_lower(info.uuid, uuid);
	deletion_of_store(&deletion, store);
	if (!deletion_begin(call, &deletion) && (store = store_of_call(call, "uuid"))) {
		watch_forget(call, store);
		rc = lvol_store_delete(store);
		deletion_end(call, &deletion);
		if (rc) {
			lvol_fail(call, rc, NULL, lvol_rule(rc));
		} else {
			known_forget(call, uuid);
			rpc_ok(call, NULL);
		}
	}
	deletion_fini(&deletion);
}

/* What of it is lost, in words. */
static json_t *degraded_json(struct lvol_store *store)
{
	json_t *lines = json_array();
	const char *line;

	for (uint32_t i = 0; i < MAX_DEGRADED && (line = store_degraded(lvol_store_blobstore(store), i)); i++)
		json_array_append_new(lines, json_string(line));
	return lines;
}

static json_t *store_json(struct lvol_store *store)
{
	struct lvol_store_info info;
	char uuid[UUID_STR_LEN];

	lvol_store_get_info(store, &info);
	uuid_unparse_lower(info.uuid, uuid);
	return json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:b,s:b,s:I,s:o}", "uuid", uuid, "name", info.name, "base_bdev", info.base_bdev,
			 "total_data_clusters", (json_int_t)info.total_data_clusters, "free_clusters",
			 (json_int_t)info.free_clusters, "block_size", (json_int_t)info.block_size, "cluster_size",
			 (json_int_t)info.cluster_size_bytes, "max_growable_size",
			 (json_int_t)(info.total_data_clusters * info.cluster_size_bytes), "checksums", info.checksums,
			 "read_only", info.read_only, "hidden_volumes", (json_int_t)info.nr_hidden, "degraded", degraded_json(store));
}

static fiber_fn void get_lvstores(struct rpc_call *call)
{
	struct lvol_store *store;
	json_t *out;

	if (rpc_has(call, "uuid") || rpc_has(call, "lvs_name")) {
		store = store_of_call(call, "uuid");
		if (store)
			rpc_ok(call, json_pack("[o]", store_json(store)));
		return;
	}
	out = json_array();
	for (store = lvol_store_first(); store; store = lvol_store_next(store))
		json_array_append_new(out, store_json(store));
	rpc_ok(call, out);
}

/* --- volumes -------------------------------------------------------------------------------------------------------- */

static const struct rpc_param create_params[] = {
	{ "lvol_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "size_in_mib", RPC_U64, RPC_LOOSE, NULL },
	{ "size", RPC_U64, RPC_LOOSE, NULL }, /* bytes: older clients */
	{ "thin_provision", RPC_BOOL, 0, NULL },
	{ "uuid", RPC_STRING, 0, NULL },
	{ "lvs_name", RPC_STRING, 0, NULL },
	{ "clear_method", RPC_STRING, 0, NULL },
	{ NULL, 0, 0, NULL },
};

/* Of size_in_mib, or size in bytes; false with the call failed. */
static bool size_of_call(struct rpc_call *call, uint64_t *ret_bytes)
{
	uint64_t mib = rpc_u64(call, "size_in_mib", 0);

	if (rpc_has(call, "size_in_mib") == rpc_has(call, "size")) {
		rpc_fail_param(call, "size_in_mib", "size_in_mib is missing: give a number of MiB");
		return false;
	}
	if (mib > INT64_MAX / MIB) {
		rpc_fail_param(call, "size_in_mib", "size_in_mib is more than any device holds");
		return false;
	}
	*ret_bytes = rpc_has(call, "size") ? rpc_u64(call, "size", 0) : mib * MIB;
	if (!*ret_bytes) {
		rpc_fail(call, RPC_INVALID_PARAMS, strerror(EINVAL), "a volume has at least one byte");
		rpc_blame(call, rpc_has(call, "size") ? "size" : "size_in_mib");
		return false;
	}
	return true;
}

static bool clear_method_ok(struct rpc_call *call)
{
	const char *method = rpc_string(call, "clear_method", "default");

	if (strcmp(method, "default") == 0 || strcmp(method, "none") == 0 || strcmp(method, "unmap") == 0 ||
	    strcmp(method, "write_zeroes") == 0)
		return true;
	rpc_fail(call, -EINVAL, "Invalid clear_method parameter", "clear_method is default, none, unmap or write_zeroes");
	rpc_blame(call, "clear_method");
	return false;
}

/* A volume that is to be is about its name alone. */
static void create_lane(const struct rpc_call *call, char lane[RPC_LANE_MAX])
{
	const char *name = rpc_string(call, "lvs_name", rpc_string(call, "uuid", ""));
	struct lvol_store *store = lvol_store_find(name);
	struct lvol_store_info info;

	if (!store)
		return;
	lvol_store_get_info(store, &info);
	snprintf(lane, RPC_LANE_MAX, "%s/%s", info.name, rpc_string(call, "lvol_name", ""));
}

/* So is one that shares with no other; one that is not there yet may be on its way. */
static void name_lane(const struct rpc_call *call, char lane[RPC_LANE_MAX])
{
	const char *name = rpc_string(call, "name", "");
	struct lvol *lvol = lvol_find(name);

	if (!lvol)
		snprintf(lane, RPC_LANE_MAX, "%s", strchr(name, '/') ? name : "");
	else if (!lvol_parent(lvol) && !lvol_first_clone(lvol))
		snprintf(lane, RPC_LANE_MAX, "%s", lvol_bdev(lvol)->alias);
}

static void create_is_taken(struct rpc_call *call, struct lvol_store *store, const char *name)
{
	struct lvol_store_info info;
	char alias[LVOL_NAME_MAX * 2 + 2];
	const struct bdev *bdev;

	lvol_store_get_info(store, &info);
	snprintf(alias, sizeof(alias), "%s/%s", info.name, name);
	bdev = bdev_find(alias);
	if (bdev && !lvol_from_bdev(bdev))
		rpc_fail_errno(call, -EEXIST, "a %.60s has the name %.140s: delete it, or give the volume another", bdev->product_name, alias);
	else
		rpc_fail_errno(call, -EEXIST, "the store has a volume %.200s already", name);
	rpc_blame(call, "lvol_name");
}

static fiber_fn void create(struct rpc_call *call)
{
	struct lvol_create_opts opts = {
		.name = rpc_string(call, "lvol_name", ""),
		.thin = rpc_bool(call, "thin_provision", false),
	};
	struct lvol_store *store;
	struct lvol_info info;
	struct lvol *lvol;
	char uuid[UUID_STR_LEN];
	int rc;

	if (!size_of_call(call, &opts.size_bytes) || !clear_method_ok(call))
		return;
	store = store_of_call(call, "uuid");
	if (!store)
		return;
	rc = lvol_create(store, &opts, &lvol);
	if (rc == -EEXIST) {
		create_is_taken(call, store, opts.name);
	} else if (rc) {
		const char *size = rpc_has(call, "size_in_mib") ? "size_in_mib" : "size";

		lvol_fail(call, rc, rc == -EINVAL ? "lvol_name" : rc == -ENOSPC || rc == -EFBIG ? size : NULL, lvol_rule(rc));
	} else {
		lvol_get_info(lvol, &info);
		uuid_unparse_lower(info.uuid, uuid);
		rpc_ok(call, json_string(uuid));
	}
}

static const struct rpc_param name_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void delete(struct rpc_call *call)
{
	struct deletion deletion;
	struct lvol *lvol;
	int rc;

	while ((lvol = any_lvol_of_call(call, "name")) && jobs_end_on(lvol_bdev(lvol)->name))
		;
	if (!lvol)
		return;
	deletion_of_lvol(&deletion, lvol);
	if (!deletion_begin(call, &deletion) && (lvol = any_lvol_of_call(call, "name"))) {
		rc = lvol_delete(lvol);
		deletion_end(call, &deletion);
		if (rc == -EBUSY)
			lvol_fail(call, rc, "name", "a volume that comes from this one is being copied (bdev_lvol_start_shallow_copy), or "
				  "is getting another parent: wait for that, or end the job (job_cancel)");
		else if (rc)
			lvol_fail(call, rc, "name", lvol_rule(rc));
		else
			rpc_ok(call, NULL);
	}
	deletion_fini(&deletion);
}

static const struct rpc_param resize_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "size_in_mib", RPC_U64, RPC_LOOSE, NULL },
	{ "size", RPC_U64, RPC_LOOSE, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void resize(struct rpc_call *call)
{
	uint64_t size_bytes;
	struct lvol *lvol;
	int rc;

	if (!size_of_call(call, &size_bytes))
		return;
	lvol = idle_lvol_of_call(call, "name");
	if (!lvol)
		return;
	rc = lvol_resize(lvol, size_bytes);
	if (rc == -EPERM)
		lvol_fail(call, rc, "name", "the volume is read-only, or a snapshot: it keeps its size");
	else if (rc == -EBUSY)
		lvol_fail(call, rc, "size_in_mib", "volumes cloned from this one (bdev_lvol_clone_bdev), or a store or a copy that uses all "
			  "of it, rely on what it holds: it can only grow until they are gone");
	else if (rc)
		lvol_fail(call, rc, "size_in_mib", lvol_rule(rc));
	else
		rpc_ok(call, NULL);
}

static const struct rpc_param rename_params[] = {
	{ "old_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "new_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void rename_lvol(struct rpc_call *call)
{
	struct lvol *lvol = any_lvol_of_call(call, "old_name");
	int rc;

	if (!lvol || (!lvol_is_hidden(lvol) && !idle_lvol_of_call(call, "old_name")))
		return;
	rc = lvol_rename(lvol, rpc_string(call, "new_name", ""));
	if (rc)
		lvol_fail(call, rc, "new_name", lvol_rule(rc));
	else
		rpc_ok(call, NULL);
}

const struct rpc_method lvol_methods[] = {
	{ .name = "bdev_lvol_create_lvstore", .handler = create_lvstore, .params = create_lvstore_params, .changes = true },
	{ .name = "bdev_lvol_delete_lvstore", .handler = delete_lvstore, .params = lvstore_params, .changes = true },
	{ .name = "bdev_lvol_get_lvstores", .handler = get_lvstores, .params = lvstore_params },
	{ .name = "bdev_lvol_create", .handler = create, .params = create_params, .changes = true, .lane = create_lane },
	{ .name = "bdev_lvol_delete", .handler = delete, .params = name_params, .changes = true, .lane = name_lane },
	{ .name = "bdev_lvol_resize", .handler = resize, .params = resize_params, .changes = true, .lane = name_lane },
	{ .name = "bdev_lvol_rename", .handler = rename_lvol, .params = rename_params, .changes = true },
	{ .name = NULL },
};
