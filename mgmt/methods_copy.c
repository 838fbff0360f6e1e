/*
 * The methods that make volumes of volumes, and change what a volume comes from: snapshot, clone, revert, decouple, inflate,
 * parents.  Each is durable in the store when it is answered.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "mgmt/methods.h"
#include "mgmt/methods_lvol.h"

#define MAX_XATTRS	32u
#define BASE_IS_WRITTEN "the device is in use by others who may write it: a store, or a namespace.  What volumes are cloned from must not change"
#define PARENT_LEAVES	"the snapshot that it comes from is just being deleted: ask again"
#define BASE_IS_SHORT "volumes cloned from the device before show more than it has now (see the log): give it its size back first"

static void answer_uuid(struct rpc_call *call, struct lvol *lvol)
{
	rpc_ok(call, json_string(lvol_bdev(lvol)->name));
}

/* --- snapshots ------------------------------------------------------------------------------------------------------ */

/* Strings by name; false with the call failed. */
static bool xattrs_of_call(struct rpc_call *call, struct blob_xattr xattrs[MAX_XATTRS], uint32_t *ret_nr)
{
	json_t *object = rpc_json(call, "xattrs"), *v;
	const char *key;
	uint32_t nr = 0;

	json_object_foreach(object, key, v) {
		if (strlen(key) > 255) {
			rpc_fail_param(call, "xattrs", "the name of an attribute has at most 255 bytes");
			return false;
		}
		if (nr == MAX_XATTRS || !*key || !json_is_string(v) || json_string_length(v) > BLOB_XATTR_MAX) {
			rpc_fail_param(call, "xattrs", "xattrs is an object of at most %u strings, %u bytes in all", MAX_XATTRS,
				       BLOB_XATTR_MAX);
			return false;
		}
		xattrs[nr++] = (struct blob_xattr){ key, json_string_value(v), (uint16_t)json_string_length(v) };
	}
	*ret_nr = nr;
	return true;
}

static const struct rpc_param snapshot_params[] = {
	{ "lvol_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "snapshot_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "xattrs", RPC_OBJECT, 0, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void snapshot(struct rpc_call *call)
{
	struct lvol_copy_opts opts = { .name = rpc_string(call, "snapshot_name", "") };
	struct blob_xattr xattrs[MAX_XATTRS];
	struct lvol *lvol, *made;
	int rc;

	if (!xattrs_of_call(call, xattrs, &opts.nr_xattrs))
		return;
	opts.xattrs = xattrs;
	lvol = idle_lvol_of_call(call, "lvol_name");
	if (!lvol)
		return;
	rc = lvol_snapshot(lvol, &opts, &made);
	if (rc == -EPERM)
		lvol_fail(call, -EINVAL, "lvol_name", "a volume that cannot be written needs no snapshot: clone it");
	else if (rc == -E2BIG)
		lvol_fail(call, rc, "xattrs", "they are too long");
	else if (rc)
		lvol_fail(call, rc, rc == -EEXIST || rc == -EINVAL ? "snapshot_name" : NULL, lvol_rule(rc));
	else
		answer_uuid(call, made);
}

static const struct rpc_param clone_params[] = {
	{ "snapshot_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "clone_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void clone_lvol(struct rpc_call *call)
{
	struct lvol_copy_opts opts = { .name = rpc_string(call, "clone_name", "") };
	struct lvol *lvol = idle_lvol_of_call(call, "snapshot_name"), *made;
	int rc;

	if (!lvol)
		return;
	rc = lvol_clone(lvol, &opts, &made);
	if (rc == -EPERM)
		lvol_fail(call, -EINVAL, "snapshot_name", "only what cannot be written is cloned: snapshot the volume first");
	else if (rc)
		lvol_fail(call, rc, rc == -EEXIST || rc == -EINVAL ? "clone_name" : NULL, lvol_rule(rc));
	else
		answer_uuid(call, made);
}

/* --- what a volume comes from --------------------------------------------------------------------------------------- */

static const struct rpc_param revert_params[] = {
	{ "lvol_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "snapshot_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ NULL, 0, 0, NULL },
};

/* What a volume holds was to become something else. */
static void change_failed(struct rpc_call *call, int rc)
{
	if (rc == -EBUSY)
		lvol_fail(call, rc, "lvol_name", "volumes cloned from this one (bdev_lvol_clone_bdev) rely on what it holds: inflate "
			  "or delete them first, or work on a clone of a snapshot of it");
	else
		lvol_fail(call, rc, NULL, lvol_rule(rc));
}

/* Ours, not SPDK's. */
static fiber_fn void revert(struct rpc_call *call)
{
	struct lvol *lvol = idle_lvol_of_call(call, "lvol_name"), *from;
	int rc;

	from = lvol ? lvol_of_call(call, "snapshot_name") : NULL;
	if (!from)
		return;
	rc = lvol_revert(lvol, from);
	if (rc == -EINVAL)
		lvol_fail(call, rc, "snapshot_name", "it is no snapshot, or one of another store; bdev_lvol_get_lvols lists them");
	else if (rc == -EPERM)
		lvol_fail(call, rc, "lvol_name", "the volume is read-only for good; clone the snapshot instead (bdev_lvol_clone)");
	else if (rc)
		change_failed(call, rc);
	else
		rpc_ok(call, NULL);
}

static const struct rpc_param name_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void decouple_parent(struct rpc_call *call)
{
	struct lvol *lvol = idle_lvol_of_call(call, "name");
	int rc;

	if (!lvol)
		return;
	rc = lvol_decouple(lvol);
	if (rc)
		lvol_fail(call, rc, rc == -EINVAL ? "name" : NULL,
			  rc == -EINVAL ? "the volume comes from no snapshot" : lvol_rule(rc));
	else
		rpc_ok(call, NULL);
}

static const struct rpc_param set_parent_params[] = {
	{ "lvol_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "parent_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void set_parent(struct rpc_call *call)
{
	struct lvol *lvol = idle_lvol_of_call(call, "lvol_name"), *parent;
	int rc;

	parent = lvol ? lvol_of_call(call, "parent_name") : NULL;
	if (!parent)
		return;
	rc = lvol_set_parent(lvol, parent);
	if (rc == -EINVAL)
		lvol_fail(call, rc, "parent_name", "it is no snapshot, of another size, or of another store");
	else if (rc == -EEXIST)
		lvol_fail(call, rc, "parent_name", "it is the parent already");
	else if (rc == -EPERM)
		lvol_fail(call, -EINVAL, "lvol_name", "the volume is read-only, or thick");
	else if (rc == -EAGAIN)
		lvol_fail(call, rc, "lvol_name", PARENT_LEAVES);
	else if (rc)
		change_failed(call, rc);
	else
		rpc_ok(call, NULL);
}

static fiber_fn void set_parent_bdev(struct rpc_call *call)
{
	struct lvol *lvol = idle_lvol_of_call(call, "lvol_name"), *of;
	const char *name = rpc_string(call, "parent_name", "");
	int rc;

	if (!lvol)
		return;
	of = lvol_find(name);
	if (of && lvol_get_store(of) == lvol_get_store(lvol)) {
		lvol_fail(call, -EINVAL, "parent_name", "it is a volume of the same store; bdev_lvol_set_parent takes a snapshot");
		return;
	}
	if (bdev_is_claimed(lvol_bdev(lvol), NULL) && !lvol_bdev(lvol)->read_only) {
		lvol_fail(call, -EBUSY, "lvol_name", "another device, a store or volumes stand on this volume and rely on what it holds");
		return;
	}
	rc = lvol_set_parent_bdev(lvol, name);
	if (rc == -ENODEV && !bdev_find(name))
		lvol_fail(call, rc, "parent_name", "there is no such device; bdev_get_bdevs lists them");
	else if (rc == -EBUSY)
		lvol_fail(call, -EPERM, "parent_name", BASE_IS_WRITTEN);
	else if (rc == -ERANGE)
		lvol_fail(call, rc, "parent_name", BASE_IS_SHORT);
	else if (rc == -EINVAL)
		lvol_fail(call, rc, "parent_name", "the device is the store's own, or has larger blocks than the store's volumes");
	else if (rc == -EEXIST)
		lvol_fail(call, rc, "parent_name", "it is the parent already");
	else if (rc == -EPERM)
		lvol_fail(call, -EINVAL, "lvol_name", "the volume is read-only, or thick");
	else if (rc == -EAGAIN)
		lvol_fail(call, rc, "lvol_name", PARENT_LEAVES);
	else if (rc)
		lvol_fail(call, rc, NULL, lvol_rule(rc));
	else
		rpc_ok(call, NULL);
}

/* Starts a job on the volume that a parameter names. */
static void start_lvol_job(struct rpc_call *call, const char *key, const struct job_kind *kind)
{
	struct lvol *lvol = idle_lvol_of_call(call, key);
	struct job_opts opts = { .kind = kind };

	if (!lvol)
		return;
	opts.object = lvol_bdev(lvol)->alias;
	opts.uuid = lvol_bdev(lvol)->name;
	opts.params = json_pack("{s:s}", "uuid", opts.uuid);
	job_start(call, &opts);
}

static fiber_fn int run_inflate(struct job *job, json_t *params)
{
	struct lvol *lvol = lvol_find(json_string_value(json_object_get(params, "uuid")));
	int rc = lvol ? lvol_inflate(lvol, &job->progress) : -ENODEV;
	char why[512];

	if (!lvol)
		job_explain(job, "the volume is not there");
	else if (rc == -EROFS && (lvol = lvol_find(job->uuid)) && store_is_refusing(lvol_get_store(lvol), why, sizeof(why)))
		job_explain(job, "%s", why);
	else if (rc && rc != -ECANCELED)
		job_explain(job, "%s", lvol_rule(rc));
	return rc;
}

static bool lvol_is_there(const struct job *job)
{
	return lvol_find(job->uuid);
}

const struct job_kind inflate_job = { .name = "inflate", .unit = "clusters", .is_there = lvol_is_there, .run = run_inflate };

static const struct rpc_param inflate_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	JOB_BACKGROUND_PARAM,
	{ NULL, 0, 0, NULL },
};

static fiber_fn void inflate(struct rpc_call *call)
{
	start_lvol_job(call, "name", &inflate_job);
}

static fiber_fn void set_read_only(struct rpc_call *call)
{
	struct lvol *lvol = idle_lvol_of_call(call, "name");
	int rc;

	if (!lvol)
		return;
	rc = lvol_set_read_only(lvol);
	if (rc)
		lvol_fail(call, rc, NULL, lvol_rule(rc));
	else
		rpc_ok(call, NULL);
}

/* --- other devices -------------------------------------------------------------------------------------------------- */

static const struct rpc_param clone_bdev_params[] = {
	{ "bdev", RPC_STRING, RPC_REQUIRED, NULL },
	{ "lvs_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "clone_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void clone_bdev(struct rpc_call *call)
{
	const char *name = rpc_string(call, "bdev", ""), *store_name = rpc_string(call, "lvs_name", "");
	struct lvol_store *store = lvol_store_find(store_name);
	struct bdev *bdev = bdev_find(name);
	struct lvol *of = lvol_from_bdev(bdev), *made;
	uuid_t uuid;
	int rc;

	if (!store) {
		rpc_fail(call, RPC_INVALID_PARAMS, "lvs does not exist",
			 "there is no store %.200s; bdev_lvol_get_lvstores lists them", store_name);
		rpc_blame(call, "lvs_name");
		return;
	}
	if (!bdev) {
		rpc_fail(call, RPC_INVALID_PARAMS, "bdev does not exist",
			 "there is no device %.200s; bdev_get_bdevs lists them", name);
		rpc_blame(call, "bdev");
		return;
	}
	if (of && lvol_get_store(of) == store) {
		rpc_fail(call, RPC_INVALID_PARAMS, "bdev is an lvol in same lvs as clone; use bdev_lvol_clone instead",
			 "a snapshot of the same store is cloned without copying or depending on anything");
		rpc_blame(call, "bdev");
		return;
	}
	uuid_clear(uuid);
	rc = lvol_clone_bdev(store, name, rpc_string(call, "clone_name", ""), uuid, &made);
	if (rc == -EBUSY || rc == -EPERM)
		lvol_fail(call, -EPERM, "bdev", BASE_IS_WRITTEN);
	else if (rc == -ERANGE)
		lvol_fail(call, rc, "bdev", BASE_IS_SHORT);
	else if (rc == -EINVAL && lvol_name_ok(rpc_string(call, "clone_name", "")))
		lvol_fail(call, rc, "bdev",
			  "the device is the store's own, or has blocks or a size that the store's volumes cannot have");
	else if (rc)
		lvol_fail(call, rc, rc == -EEXIST || rc == -EINVAL ? "clone_name" : NULL, lvol_rule(rc));
	else
		answer_uuid(call, made);
}

static fiber_fn int run_shallow_copy(struct job *job, json_t *params)
{
	struct lvol *lvol = lvol_find(json_string_value(json_object_get(params, "uuid")));
	const char *to = json_string_value(json_object_get(params, "dst_bdev_name"));
	int rc = lvol ? lvol_shallow_copy(lvol, to, &job->progress) : -ENODEV;

	if (!lvol)
		job_explain(job, "the volume is not there");
	else if (rc == -EPERM)
		job_explain(job, "only a snapshot or read-only volume is copied");
	else if (rc == -EINVAL)
		job_explain(job, "%s is smaller than the volume, or has blocks of another size", to);
	else if (rc == -ENODEV || rc == -EBUSY)
		job_explain(job, "%s is gone, or in use", to);
	else if (rc == -EAGAIN)
		job_explain(job, "the snapshot that it comes from was just being deleted: copy again");
	else if (rc && rc != -ECANCELED)
		job_explain(job, "%s", lvol_rule(rc));
	return rc;
}

const struct job_kind shallow_copy_job = { .name = "shallow_copy", .unit = "clusters", .is_there = lvol_is_there,
					    .run = run_shallow_copy };

static const struct rpc_param shallow_copy_params[] = {
	{ "src_lvol_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "dst_bdev_name", RPC_STRING, RPC_REQUIRED, NULL },
	JOB_BACKGROUND_PARAM, /* it always is */
	{ NULL, 0, 0, NULL },
};

/* What is wrong with the pair is found by the copy itself, and told by bdev_lvol_check_shallow_copy. */
static fiber_fn void start_shallow_copy(struct rpc_call *call)
{
	struct lvol *lvol = idle_lvol_of_call(call, "src_lvol_name");
	const char *to = rpc_string(call, "dst_bdev_name", ""), *claimer;
	struct job_opts opts = { .kind = &shallow_copy_job, .answer_id = true };
	struct bdev *bdev = bdev_find(to);
	struct lvol_info info;

	if (!lvol)
		return;
	if (!bdev || bdev_is_claimed(bdev, &claimer)) {
		lvol_fail(call, bdev ? -EPERM : -ENODEV, "dst_bdev_name",
			  bdev ? "the target is in use, by a store or by volumes cloned from it; give one that nobody uses" :
				 "there is no such device; bdev_get_bdevs lists them");
		return;
	}
	lvol_get_info(lvol, &info);
	opts.object = lvol_bdev(lvol)->alias;
	opts.uuid = lvol_bdev(lvol)->name;
	opts.params = json_pack("{s:s,s:s}", "uuid", lvol_bdev(lvol)->name, "dst_bdev_name", to);
	opts.total = info.num_allocated_clusters;
	job_start(call, &opts);
}

const struct rpc_method copy_methods[] = {
	{ .name = "bdev_lvol_snapshot", .handler = snapshot, .params = snapshot_params, .changes = true },
	{ .name = "bdev_lvol_clone", .handler = clone_lvol, .params = clone_params, .changes = true },
	{ .name = "bdev_lvol_clone_bdev", .handler = clone_bdev, .params = clone_bdev_params, .changes = true },
	{ .name = "bdev_lvol_start_shallow_copy", .handler = start_shallow_copy, .params = shallow_copy_params, .changes = true },
	{ .name = "bdev_lvol_revert", .handler = revert, .params = revert_params, .changes = true },
	{ .name = "bdev_lvol_inflate", .handler = inflate, .params = inflate_params, .changes = true },
	{ .name = "bdev_lvol_decouple_parent", .handler = decouple_parent, .params = name_params, .changes = true },
	{ .name = "bdev_lvol_detach_parent", .handler = decouple_parent, .params = name_params, .changes = true },
	{ .name = "bdev_lvol_set_parent", .handler = set_parent, .params = set_parent_params, .changes = true },
	{ .name = "bdev_lvol_set_parent_bdev", .handler = set_parent_bdev, .params = set_parent_params, .changes = true },
	{ .name = "bdev_lvol_set_read_only", .handler = set_read_only, .params = name_params, .changes = true },
	{ .name = NULL },
};
