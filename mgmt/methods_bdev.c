/* The methods that make and delete the devices at the bottom: malloc, null, and files through the ring. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "mgmt/known.h"
#include "mgmt/methods.h"

#define BLOCK_SIZE_MAX 65536u

/* --- what they share ------------------------------------------------------------------------------------------------ */

struct bdev *bdev_of_call(struct rpc_call *call, const char *key)
{
	const char *name = rpc_string(call, key, "");
	struct bdev *bdev = bdev_find(name);

	if (!bdev) {
		rpc_fail_errno(call, -ENODEV, "there is no device %.200s; bdev_get_bdevs lists them", name);
		rpc_blame(call, key);
	}
	return bdev;
}

struct forget {
	struct rpc_call *call;
	const char *name, *alias;
	unsigned nr_found;
};

bool namespace_is_on(const json_t *params, const char *name, const char *alias)
{
	const char *on = json_string_value(json_object_get(json_object_get(params, "namespace"), "bdev_name"));

	return on && (strcasecmp(on, name) == 0 || (*alias && strcmp(on, alias) == 0));
}

static void forget_if_on(void *arg, const char *parent, const char *name, const char *method, json_t *params)
{
	struct forget *f = arg;

	if (!namespace_is_on(params, f->name, f->alias))
		return;
	f->nr_found++;
	if (f->call)
		rpc_forget(f->call, STATE_NAMESPACE, parent, name);
}

void forget_namespaces_called(struct rpc_call *call, const char *uuid, const char *alias)
{
	struct forget f = { call, uuid, alias, 0 };

	rpc_saved_for_each(STATE_NAMESPACE, forget_if_on, &f);
}

bool namespaces_are_on(const char *uuid, const char *alias)
{
	struct forget f = { NULL, uuid, alias, 0 };

	rpc_saved_for_each(STATE_NAMESPACE, forget_if_on, &f);
	return f.nr_found;
}

void forget_namespaces_of(struct rpc_call *call, const struct bdev *bdev)
{
	char uuid[UUID_STR_LEN];

	uuid_unparse_lower(bdev->uuid, uuid);
	forget_namespaces_called(call, bdev->name, bdev->alias);
	forget_namespaces_called(call, uuid, "");
	known_forget_on(call, bdev);
}

static void uuid_of_call(const struct rpc_call *call, uuid_t ret_uuid)
{
	const char *text = rpc_string(call, "uuid", NULL);

	if (!text || uuid_parse(text, ret_uuid))
		uuid_clear(ret_uuid);
}

/* The params of each device made here, for driver_specific.  Owner: the app thread. */
static json_t *made;

json_t *driver_specific_json(const struct bdev *bdev)
{
	json_t *params = json_object_get(made, bdev->name), *out = json_object(), *one;

	one = lvol_specific_json(bdev);
	if (one) {
		json_object_set_new(out, "lvol", one);
	} else if ((one = nvme_specific_json(bdev))) {
		json_object_set_new(out, "nvme", one);
		json_object_set_new(out, "mp_policy", json_string(nvme_policy_name(bdev)));
	} else if ((one = delay_specific_json(bdev))) {
		json_object_set_new(out, "delay", one);
	} else if (strcmp(bdev->product_name, "AIO disk") == 0) {
		one = json_pack("{s:O*,s:b,s:b,s:b}", "filename", json_object_get(params, "filename"), "block_size_override",
				json_object_get(params, "block_size") != NULL, "readonly", bdev->read_only, "fallocate",
				json_is_true(json_object_get(params, "fallocate")));
		json_object_set_new(out, "aio", one);
	} else if (params && json_object_get(params, "filename")) {
		json_object_set_new(out, "uring", json_pack("{s:O}", "filename", json_object_get(params, "filename")));
	}
	return out;
}

/* The UUID goes into what is saved, so that a restart makes the same device again. */
static void created(struct rpc_call *call, const struct bdev *bdev)
{
	char uuid[UUID_STR_LEN];

	uuid_unparse_lower(bdev->uuid, uuid);
	json_object_set_new(call->params, "uuid", json_string(uuid));
	json_object_set_new(call->params, "name", json_string(bdev->name));
	if (!made)
		made = json_object();
	json_object_set(made, bdev->name, call->params);
	rpc_save(call, STATE_BDEV, "", bdev->name);
	rpc_ok(call, json_string(bdev->name));
}

static bool block_size_ok(uint64_t size)
{
	return size >= 512 && size <= BLOCK_SIZE_MAX && !(size & (size - 1));
}

/* The name or block size that made a device be refused as invalid; false when neither did.  Zero stands for none given. */
static bool blame_name_or_block_size(struct rpc_call *call, bool zero_ok)
{
	const char *name = rpc_string(call, "name", NULL);
	uint64_t block_size = rpc_u64(call, "block_size", 0);

	if (name && (!name[0] || strlen(name) >= BDEV_NAME_MAX)) {
		rpc_fail_errno(call, -EINVAL, "the name must have 1 to %d bytes", BDEV_NAME_MAX - 1);
		rpc_blame(call, "name");
		return true;
	}
	if (!block_size_ok(block_size) && !(zero_ok && !block_size)) {
		rpc_fail_errno(call, -EINVAL, "block_size must be 512, 4096 or another power of two up to %u", BLOCK_SIZE_MAX);
		rpc_blame(call, "block_size");
		return true;
	}
	return false;
}

static void create_failed(struct rpc_call *call, int rc)
{
	unsigned long long nr_blocks = rpc_u64(call, "num_blocks", 0), block_size = rpc_u64(call, "block_size", 0);
	const char *name = rpc_string(call, "name", "");

	switch (rc) {
	case -EEXIST:
		rpc_fail_errno(call, rc, "a device of the name %.200s or with this UUID exists already", name);
		rpc_blame(call, bdev_find(name) || !rpc_has(call, "uuid") ? "name" : "uuid");
		break;
	case -EINVAL:
		if (blame_name_or_block_size(call, false))
			break;
		if (nr_blocks)
			rpc_fail_errno(call, rc, "num_blocks is too large: at most %llu blocks of %llu bytes",
				       (unsigned long long)INT64_MAX / block_size, block_size);
		else
			rpc_fail_errno(call, rc, "num_blocks must be at least 1");
		rpc_blame(call, "num_blocks");
		break;
	case -ENOMEM:
		rpc_fail_errno(call, rc, "num_blocks is too large: there is no memory for %llu blocks of %llu bytes", nr_blocks,
			       block_size);
		rpc_blame(call, "num_blocks");
		break;
	default:
		rpc_fail_errno(call, rc, NULL);
	}
}

static void unregistered(void *arg, int status)
{
	fiber_wake(arg, status);
}

static fiber_fn void delete_bdev(struct rpc_call *call, const char *const *modules)
{
	struct bdev *bdev = bdev_of_call(call, "name");
	char name[BDEV_NAME_MAX];
	struct fiber_wait wait;
	bool ours = false;
	int rc;

	if (!bdev)
		return;
	for (; *modules; modules++)
		ours = ours || strcmp(bdev->module, *modules) == 0;
	if (!ours) {
		rpc_fail_errno(call, -ENODEV, "%s is a %s: it is deleted by another method", bdev->name, bdev->product_name);
		rpc_blame(call, "name");
		return;
	}
	strcpy(name, bdev->name);
	forget_namespaces_of(call, bdev);
	rpc_forget(call, STATE_BDEV, "", name);
	json_object_del(made, name);
	fiber_wait_init(&wait);
	bdev_unregister(bdev, unregistered, &wait);
	rc = fiber_wait(&wait);
	if (rc)
		rpc_fail_errno(call, rc, "%s could not be ended", name);
	else
		rpc_ok(call, NULL);
}

static const struct rpc_param name_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ NULL, 0, 0, NULL },
};

/* --- malloc and null ------------------------------------------------------------------------------------------------ */

static const struct rpc_param malloc_params[] = {
	{ "name", RPC_STRING, 0, NULL },
	{ "block_size", RPC_U32, RPC_REQUIRED, NULL },
	{ "num_blocks", RPC_U64, RPC_REQUIRED, NULL },
	{ "uuid", RPC_UUID, 0, NULL },
	{ "optimal_io_boundary", RPC_U32, RPC_IGNORED, NULL },
	{ "md_size", RPC_U32, 0, NULL },
	{ "md_interleave", RPC_BOOL, RPC_IGNORED, NULL },
	{ "dif_type", RPC_I32, 0, NULL },
	{ "dif_is_head_of_md", RPC_BOOL, RPC_IGNORED, NULL },
	{ "physical_block_size", RPC_U32, RPC_IGNORED, NULL },
	{ "dif_pi_format", RPC_U32, RPC_IGNORED, NULL },
	{ "numa_id", RPC_I32, RPC_IGNORED, NULL },
	{ NULL, 0, 0, NULL },
};

static const struct rpc_param null_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "block_size", RPC_U32, RPC_REQUIRED, NULL },
	{ "num_blocks", RPC_U64, RPC_REQUIRED, NULL },
	{ "uuid", RPC_UUID, 0, NULL },
	{ "physical_block_size", RPC_U32, RPC_IGNORED, NULL },
	{ "md_size", RPC_U32, 0, NULL },
	{ "dif_type", RPC_I32, 0, NULL },
	{ "dif_pi_format", RPC_U32, RPC_IGNORED, NULL },
	{ "dif_is_head_of_md", RPC_BOOL, RPC_IGNORED, NULL },
	{ "preferred_write_granularity", RPC_U32, RPC_IGNORED, NULL },
	{ "preferred_write_alignment", RPC_U32, RPC_IGNORED, NULL },
	{ "optimal_write_size", RPC_U32, RPC_IGNORED, NULL },
	{ "preferred_unmap_granularity", RPC_U32, RPC_IGNORED, NULL },
	{ "preferred_unmap_alignment", RPC_U32, RPC_IGNORED, NULL },
	{ NULL, 0, 0, NULL },
};

static bool asks_for_metadata(struct rpc_call *call)
{
	const char *key = rpc_u64(call, "md_size", 0) ? "md_size" : rpc_i64(call, "dif_type", 0) ? "dif_type" : NULL;

	if (!key)
		return false;
	rpc_fail_errno(call, -EINVAL, "devices have no metadata here: leave %s out or give 0", key);
	rpc_blame(call, key);
	return true;
}

static fiber_fn void malloc_create(struct rpc_call *call)
{
	static unsigned next;
	const char *name = rpc_string(call, "name", NULL);
	uint64_t block_size = rpc_u64(call, "block_size", 0);
	struct bdev *bdev;
	char generated[32];
	uuid_t uuid;
	int rc;

	if (asks_for_metadata(call))
		return;
	while (!name || !name[0]) {
		snprintf(generated, sizeof(generated), "Malloc%u", next++);
		if (!bdev_find(generated))
			name = generated;
	}
	uuid_of_call(call, uuid);
	rc = bdev_malloc_create(name, uuid, rpc_u64(call, "num_blocks", 0), (uint32_t)block_size, &bdev);
	if (rc == -EINVAL && block_size == 0) {
		/* What SPDK answers, whose clients know it. */
		rpc_fail_errno(call, -ENOMEM, "block_size must be 512 or 4096");
		rpc_blame(call, "block_size");
	} else if (rc) {
		create_failed(call, rc);
	} else {
		created(call, bdev);
	}
}

static fiber_fn void malloc_delete(struct rpc_call *call)
{
	static const char *const modules[] = { "malloc", NULL };

	delete_bdev(call, modules);
}

static fiber_fn void null_create(struct rpc_call *call)
{
	struct bdev *bdev;
	uuid_t uuid;
	int rc;

	if (asks_for_metadata(call))
		return;
	uuid_of_call(call, uuid);
	rc = bdev_null_create(rpc_string(call, "name", ""), uuid, rpc_u64(call, "num_blocks", 0),
			      (uint32_t)rpc_u64(call, "block_size", 0), &bdev);
	if (rc)
		create_failed(call, rc);
	else
		created(call, bdev);
}

static fiber_fn void null_delete(struct rpc_call *call)
{
	static const char *const modules[] = { "null", NULL };

	delete_bdev(call, modules);
}

/* --- files: two names for one device -------------------------------------------------------------------------------- */

static const struct rpc_param aio_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "filename", RPC_STRING, RPC_REQUIRED, NULL },
	{ "block_size", RPC_U32, 0, NULL },
	{ "readonly", RPC_BOOL, 0, NULL },
	{ "fallocate", RPC_BOOL, 0, NULL },
	{ "uuid", RPC_UUID, 0, NULL },
	{ "nowait", RPC_BOOL, RPC_IGNORED, NULL },
	{ NULL, 0, 0, NULL },
};

static const struct rpc_param uring_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "filename", RPC_STRING, RPC_REQUIRED, NULL },
	{ "block_size", RPC_U32, 0, NULL },
	{ "uuid", RPC_UUID, 0, NULL },
	{ NULL, 0, 0, NULL },
};

static void file_invalid(struct rpc_call *call, const char *path)
{
	struct stat st;
	bool is_block = stat(path, &st) == 0 && S_ISBLK(st.st_mode);

	if (blame_name_or_block_size(call, true))
		return;
	rpc_fail_errno(call, -EINVAL, "%s must hold at least one block, and block_size be no less than the device's own", path);
	/* Only a drive has a block size of its own, which the one asked for can fall short of. */
	rpc_blame(call, is_block && rpc_u64(call, "block_size", 0) ? "block_size" : "filename");
}

static fiber_fn void file_create(struct rpc_call *call, const char *product_name, bool allow_punch)
{
	struct bdev_uring_opts opts = {
		.name = rpc_string(call, "name", ""),
		.block_size = (uint32_t)rpc_u64(call, "block_size", 0),
		.read_only = rpc_bool(call, "readonly", false),
		.allow_punch = allow_punch,
		.product_name = product_name,
	};
	const char *filename = rpc_string(call, "filename", "");
	struct bdev *bdev;
	char *path;
	int rc;

	if (file_dirs_resolve(call, "filename", filename, &path))
		return;
	uuid_of_call(call, opts.uuid);
	opts.filename = path;
	rc = bdev_uring_create(&opts, &bdev);
	if (rc == 0) {
		json_object_set_new(call->params, "filename", json_string(path));
		created(call, bdev);
	} else if (rc == -EINVAL) {
		file_invalid(call, path);
	} else if (rc == -EEXIST) {
		create_failed(call, rc);
	} else if (rc == -EBUSY) {
		rpc_fail_errno(call, rc, "%s is in use: by another device, another daemon, or the kernel (mounted, or with a volume on it)", path);
		rpc_blame(call, "filename");
	} else {
		rpc_fail_errno(call, rc, "%s cannot be used", path);
		rpc_blame(call, "filename");
	}
	free(path);
}

static fiber_fn void aio_create(struct rpc_call *call)
{
	file_create(call, "AIO disk", rpc_bool(call, "fallocate", false));
}

static fiber_fn void uring_create(struct rpc_call *call)
{
	file_create(call, NULL, true);
}

static fiber_fn void file_delete(struct rpc_call *call)
{
	static const char *const modules[] = { "uring", "aio", NULL };

	delete_bdev(call, modules);
}

/* The file has grown: truncate -s, lvextend. */
static fiber_fn void file_rescan(struct rpc_call *call)
{
	struct bdev *bdev = bdev_of_call(call, "name");
	int rc;

	if (!bdev)
		return;
	if (strcmp(bdev->module, "uring") != 0) {
		rpc_fail_errno(call, -ENODEV, "%s is no device of a file", bdev->name);
		rpc_blame(call, "name");
		return;
	}
	rc = bdev_uring_rescan(bdev);
	if (rc) {
		rpc_fail_errno(call, rc, rc == -EBUSY ? "its file has shrunk while it is in use" : "its file cannot be looked at");
		rpc_blame(call, "name");
	} else {
		rpc_ok(call, NULL);
	}
}

static fiber_fn void wait_for_examine(struct rpc_call *call)
{
	bdev_wait_for_examine();
	rpc_ok(call, NULL);
}

const struct rpc_method bdev_methods[] = {
	{ .name = "bdev_malloc_create", .handler = malloc_create, .params = malloc_params, .changes = true },
	{ .name = "bdev_malloc_delete", .handler = malloc_delete, .params = name_params, .changes = true },
	{ .name = "bdev_null_create", .handler = null_create, .params = null_params, .changes = true },
	{ .name = "bdev_null_delete", .handler = null_delete, .params = name_params, .changes = true },
	{ .name = "bdev_aio_create", .handler = aio_create, .params = aio_params, .changes = true },
	{ .name = "bdev_aio_delete", .handler = file_delete, .params = name_params, .changes = true },
	{ .name = "bdev_aio_rescan", .handler = file_rescan, .params = name_params, .changes = true },
	{ .name = "bdev_uring_rescan", .handler = file_rescan, .params = name_params, .changes = true },
	{ .name = "bdev_uring_create", .handler = uring_create, .params = uring_params, .changes = true },
	{ .name = "bdev_uring_delete", .handler = file_delete, .params = name_params, .changes = true },
	{ .name = "bdev_wait_for_examine", .handler = wait_for_examine },
	{ .name = NULL },
};
