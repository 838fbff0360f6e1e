/* The methods of devices that delay what goes through them. */
#include <errno.h>
#include <string.h>

#include "bdev/delay.h"
#include "mgmt/methods.h"

static const char *const latency_keys[DELAY_NR] = {
	[DELAY_AVG_READ] = "avg_read_latency",
	[DELAY_P99_READ] = "p99_read_latency",
	[DELAY_AVG_WRITE] = "avg_write_latency",
	[DELAY_P99_WRITE] = "p99_write_latency",
};

static const struct rpc_param create_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "base_bdev_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "avg_read_latency", RPC_U64, RPC_REQUIRED, NULL },
	{ "p99_read_latency", RPC_U64, RPC_REQUIRED, NULL },
	{ "avg_write_latency", RPC_U64, RPC_REQUIRED, NULL },
	{ "p99_write_latency", RPC_U64, RPC_REQUIRED, NULL },
	{ "uuid", RPC_UUID, 0, NULL },
	{ NULL, 0, 0, NULL },
};

static void save(struct rpc_call *call, const struct bdev *bdev)
{
	const struct state_key key = { .class = STATE_BDEV, .parent = "", .name = bdev->name };
	json_t *params = json_pack("{s:s,s:s}", "name", bdev->name, "base_bdev_name", bdev_delay_base(bdev));
	uint64_t us[DELAY_NR];
	char uuid[UUID_STR_LEN];

	bdev_delay_get(bdev, us);
	for (unsigned i = 0; i < DELAY_NR; i++)
		json_object_set_new(params, latency_keys[i], json_integer((json_int_t)us[i]));
	uuid_unparse_lower(bdev->uuid, uuid);
	json_object_set_new(params, "uuid", json_string(uuid));
	rpc_save_as(call, &key, "bdev_delay_create", params);
}

static fiber_fn void delay_create(struct rpc_call *call)
{
	const char *name = rpc_string(call, "name", ""), *base = rpc_string(call, "base_bdev_name", "");
	uint64_t us[DELAY_NR];
	struct bdev *bdev;
	uuid_t uuid;
	int rc;

	for (unsigned i = 0; i < DELAY_NR; i++)
		us[i] = rpc_u64(call, latency_keys[i], 0);
	if (uuid_parse(rpc_string(call, "uuid", ""), uuid))
		uuid_clear(uuid);
	if (call->replay && !bdev_find(base))
		bdev_wait_for_examine(); /* a volume's store may be opening yet */
	rc = bdev_delay_create(name, base, us, uuid, &bdev);
	switch (rc) {
	case 0:
		save(call, bdev);
		rpc_ok(call, json_string(name));
		return;
	case -ENODEV:
		rpc_fail_errno(call, rc, "there is no device %.200s; bdev_get_bdevs lists them", base);
		rpc_blame(call, "base_bdev_name");
		return;
	case -EBUSY:
		rpc_fail_errno(call, rc, "%.200s is in use by something that writes to it", base);
		rpc_blame(call, "base_bdev_name");
		return;
	case -EEXIST:
		rpc_fail_errno(call, rc, "a device of the name %.200s or with this UUID exists already", name);
		rpc_blame(call, "name");
		return;
	case -EINVAL:
		rpc_fail_errno(call, rc, "the name has 1 to %d bytes, and a p99 latency is at least the average", BDEV_NAME_MAX - 1);
		return;
	default:
		rpc_fail_errno(call, rc, NULL);
	}
}

static struct bdev *delay_of_call(struct rpc_call *call, const char *key)
{
	struct bdev *bdev = bdev_of_call(call, key);

	if (!bdev || !strcmp(bdev->module, "delay"))
		return bdev;
	rpc_fail_errno(call, -ENODEV, "%s is a %s, not a delay", bdev->name, bdev->product_name);
	rpc_blame(call, key);
	return NULL;
}

static const struct rpc_param delete_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void delay_delete(struct rpc_call *call)
{
	struct bdev *bdev = delay_of_call(call, "name");
	int rc;

	if (!bdev)
		return;
	forget_namespaces_of(call, bdev);
	rpc_forget(call, STATE_BDEV, "", bdev->name);
	rc = bdev_unregister_wait(bdev);
	if (rc)
		rpc_fail_errno(call, rc, NULL);
	else
		rpc_ok(call, NULL);
}

static const struct rpc_param update_params[] = {
	{ "delay_bdev_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "latency_type", RPC_STRING, RPC_REQUIRED, NULL },
	{ "latency_us", RPC_U64, RPC_REQUIRED, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void delay_update(struct rpc_call *call)
{
	static const char *const types[DELAY_NR] = { "avg_read", "p99_read", "avg_write", "p99_write" };
	const char *type = rpc_string(call, "latency_type", "");
	struct bdev *bdev = delay_of_call(call, "delay_bdev_name");
	unsigned which = 0;

	if (!bdev)
		return;
	while (which < DELAY_NR && strcmp(type, types[which]))
		which++;
	if (which == DELAY_NR) {
		rpc_fail_param(call, "latency_type", "latency_type is avg_read, p99_read, avg_write or p99_write");
		return;
	}
	if (bdev_delay_set(bdev, which, rpc_u64(call, "latency_us", 0))) {
		rpc_fail_errno(call, -EINVAL, "a p99 latency is at least the average: change the other one first");
		rpc_blame(call, "latency_us");
		return;
	}
	save(call, bdev);
	rpc_ok(call, NULL);
}

const struct rpc_method delay_methods[] = {
	{ .name = "bdev_delay_create", .handler = delay_create, .params = create_params, .changes = true },
	{ .name = "bdev_delay_delete", .handler = delay_delete, .params = delete_params, .changes = true },
	{ .name = "bdev_delay_update_latency", .handler = delay_update, .params = update_params, .changes = true },
	{ .name = NULL },
};

json_t *delay_specific_json(const struct bdev *bdev)
{
	uint64_t us[DELAY_NR];
	json_t *out;

	if (strcmp(bdev->module, "delay"))
		return NULL;
	out = json_pack("{s:s}", "base_bdev_name", bdev_delay_base(bdev));
	bdev_delay_get(bdev, us);
	for (unsigned i = 0; i < DELAY_NR; i++)
		json_object_set_new(out, latency_keys[i], json_integer((json_int_t)us[i]));
	return out;
}
