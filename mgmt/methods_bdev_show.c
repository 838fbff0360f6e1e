/* The methods that show devices: what they are, and what they have done. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mgmt/methods.h"

/* --- bdev_get_bdevs ------------------------------------------------------------------------------------------------- */

static json_t *io_types_json(const struct bdev *bdev)
{
	static const struct {
		const char *key;
		int op; /* -1: never */
	} types[] = {
		{ "read", BDEV_READ },		   { "write", BDEV_WRITE },	{ "unmap", BDEV_UNMAP },
		{ "flush", BDEV_FLUSH },	   { "reset", -1 },		{ "nvme_admin", -1 },
		{ "nvme_io", -1 },		   { "nvme_io_md", -1 },	{ "write_zeroes", BDEV_WRITE_ZEROES },
		{ "zcopy", -1 },		   { "get_zone_info", -1 },	{ "zone_management", -1 },
		{ "zone_append", -1 },		   { "compare", BDEV_COMPARE }, { "compare_and_write", BDEV_COMPARE_AND_WRITE },
		{ "abort", -1 },		   { "seek_hole", -1 },		{ "seek_data", -1 },
		{ "copy", BDEV_COPY },		   { "nvme_iov_md", -1 },
	};
	json_t *out = json_object();

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		bool has = types[i].op >= 0 ? bdev_supports(bdev, types[i].op) : strcmp(types[i].key, "abort") == 0;

		json_object_set_new(out, types[i].key, json_boolean(has));
	}
	return out;
}

static void set_u64(json_t *object, const char *key, uint64_t value)
{
	json_object_set_new(object, key, json_integer((json_int_t)value));
}

static json_t *bdev_json(struct bdev *bdev)
{
	json_t *out = json_object(), *aliases = json_array();
	char uuid[UUID_STR_LEN];

	uuid_unparse_lower(bdev->uuid, uuid);
	if (bdev->alias[0])
		json_array_append_new(aliases, json_string(bdev->alias));
	if (strcmp(uuid, bdev->name) != 0)
		json_array_append_new(aliases, json_string(uuid));
	json_object_set_new(out, "name", json_string(bdev->name));
	json_object_set_new(out, "aliases", aliases);
	json_object_set_new(out, "product_name", json_string(bdev->product_name));
	set_u64(out, "block_size", bdev->block_size);
	set_u64(out, "num_blocks", bdev_nr_blocks(bdev));
	if (bdev->optimal_blocks) {
		set_u64(out, "preferred_write_alignment", bdev->optimal_blocks);
		set_u64(out, "preferred_write_granularity", bdev->optimal_blocks);
		set_u64(out, "optimal_write_size", bdev->optimal_blocks);
	}
	if (bdev->unmap_granularity_blocks) {
		set_u64(out, "preferred_unmap_alignment", bdev->unmap_granularity_blocks);
		set_u64(out, "preferred_unmap_granularity", bdev->unmap_granularity_blocks);
	}
	json_object_set_new(out, "uuid", json_string(uuid));
	json_object_set_new(out, "creation_time", lvol_creation_time_json(bdev)); /* of volumes; else nothing is set */
	json_object_set_new(out, "assigned_rate_limits",
			    json_pack("{s:i,s:i,s:i,s:i}", "rw_ios_per_sec", 0, "rw_mbytes_per_sec", 0, "r_mbytes_per_sec", 0,
				      "w_mbytes_per_sec", 0));
	json_object_set_new(out, "claimed", json_boolean(bdev_is_claimed(bdev, NULL)));
	if (bdev_is_claimed(bdev, NULL))
		json_object_set_new(out, "claim_type", json_string(bdev_claim_of(bdev) == BDEV_CLAIM_STILL ?
								   "read_many_write_none" : "exclusive_write"));
	json_object_set_new(out, "zoned", json_false());
	json_object_set_new(out, "supported_io_types", io_types_json(bdev));
	json_object_set_new(out, "driver_specific", driver_specific_json(bdev));
	return out;
}

static const struct rpc_param get_bdevs_params[] = {
	{ "name", RPC_STRING, 0, NULL },
	{ "timeout", RPC_U64, 0, NULL },
	{ NULL, 0, 0, NULL },
};

/* Owner: the app thread; on the stack of the fiber that waits. */
struct late {
	struct list link;
	const char *name;
	struct fiber_cond cond;
};

static struct list lates = LIST_INIT(lates);

static void registered(struct bdev *bdev, void *arg)
{
	struct list *e;

	list_for_each(e, &lates)
		fiber_cond_signal(&list_entry(e, struct late, link)->cond);
}

void bdev_show_init(void)
{
	bdev_on_register(registered, NULL);
}

/* Waits for a device to appear.  -ENODEV without a timeout, -ETIMEDOUT after it. */
static fiber_fn int wait_for_bdev(const char *name, uint64_t timeout_ms)
{
	uint64_t deadline_us = clock_now_us() + timeout_ms * 1000, now_us;
	struct late late = { .name = name };
	int rc = 0;

	if (bdev_find(name))
		return 0;
	if (!timeout_ms)
		return -ENODEV;
	fiber_cond_init(&late.cond);
	list_add_tail(&lates, &late.link);
	while (!bdev_find(name)) {
		now_us = clock_now_us();
		if (rpc_is_stopping() || now_us >= deadline_us) {
			rc = -ETIMEDOUT;
			break;
		}
		/* Woken by each new device; a look now and then sees a stop. */
		fiber_cond_timedwait(&late.cond, deadline_us - now_us < 200000 ? deadline_us - now_us : 200000);
	}
	list_del(&late.link);
	return rc;
}

/* Names first: devices may come and go while a long list is made. */
static json_t *all_names(void)
{
	json_t *names = json_array();

	for (struct bdev *bdev = bdev_first(); bdev; bdev = bdev_next(bdev))
		json_array_append_new(names, json_string(bdev->name));
	return names;
}

static fiber_fn void list_all(struct rpc_call *call)
{
	json_t *names = all_names(), *name;
	struct rpc_list list;
	struct bdev *bdev;
	size_t i;

	rpc_list_begin(&list, call, "");
	json_array_foreach(names, i, name) {
		bdev = bdev_find(json_string_value(name));
		if (bdev)
			rpc_list_add(&list, bdev_json(bdev));
	}
	rpc_list_end(&list, "");
	json_decref(names);
}

static fiber_fn void get_bdevs(struct rpc_call *call)
{
	const char *name = rpc_string(call, "name", NULL);
	uint64_t timeout_ms = rpc_u64(call, "timeout", 0);
	int rc;

	if (timeout_ms > UINT64_MAX / 2000)
		timeout_ms = UINT64_MAX / 2000;
	rc = name ? wait_for_bdev(name, timeout_ms) : 0;
	if (rc) {
		rpc_fail_errno(call, rc, "there is no device %.200s%s", name,
			       rc == -ETIMEDOUT ? " and none came in time" : "; timeout waits for one");
		rpc_blame(call, "name");
		return;
	}
	if (name)
		rpc_ok(call, json_pack("[o]", bdev_json(bdev_find(name))));
	else
		list_all(call);
}

/* --- bdev_get_iostat ------------------------------------------------------------------------------------------------ */

static const struct {
	int op; /* -1: there is no such operation here */
	const char *bytes, *ops, *total, *max, *min;
} stat_ops[] = {
	{ BDEV_READ, "bytes_read", "num_read_ops", "read_latency_ticks", "max_read_latency_ticks", "min_read_latency_ticks" },
	{ BDEV_WRITE, "bytes_written", "num_write_ops", "write_latency_ticks", "max_write_latency_ticks",
	  "min_write_latency_ticks" },
	{ BDEV_UNMAP, "bytes_unmapped", "num_unmap_ops", "unmap_latency_ticks", "max_unmap_latency_ticks",
	  "min_unmap_latency_ticks" },
	{ BDEV_COPY, "bytes_copied", "num_copy_ops", "copy_latency_ticks", "max_copy_latency_ticks", "min_copy_latency_ticks" },
};

void stats_into(json_t *out, const struct bdev_stats *stats)
{
	static const struct bdev_op_stats none;
	uint64_t nr_errors = 0;

	for (size_t i = 0; i < sizeof(stat_ops) / sizeof(stat_ops[0]); i++) {
		const struct bdev_op_stats *s = stat_ops[i].op < 0 ? &none : &stats->op[stat_ops[i].op];

		set_u64(out, stat_ops[i].bytes, s->nr_bytes);
		set_u64(out, stat_ops[i].ops, s->nr_ops);
		set_u64(out, stat_ops[i].total, s->latency_ticks);
		set_u64(out, stat_ops[i].max, s->max_latency_ticks);
		set_u64(out, stat_ops[i].min, s->nr_ops && s->min_latency_ticks != UINT64_MAX ? s->min_latency_ticks : 0);
	}
	for (int op = 0; op < BDEV_NR_OPS; op++)
		nr_errors += stats->op[op].nr_errors;
	json_object_set_new(out, "io_error", json_object());
	if (nr_errors)
		set_u64(json_object_get(out, "io_error"), "failed", nr_errors);
}

static const struct rpc_param get_iostat_params[] = {
	{ "names", RPC_ANY, 0, NULL },
	{ "name", RPC_STRING, 0, NULL },
	{ "per_channel", RPC_BOOL, 0, NULL },
	{ "reset_mode", RPC_STRING, 0, NULL },
	{ NULL, 0, 0, NULL },
};

/* The devices asked for, as an array of names; NULL with the call failed. */
static json_t *iostat_names(struct rpc_call *call)
{
	/* Two parameters rather than one with two names, so that an error blames the one that was given. */
	const char *key = rpc_has(call, "name") ? "name" : "names";
	json_t *names = rpc_json(call, key), *out, *v;
	size_t i;

	if (rpc_has(call, "name") && rpc_has(call, "names")) {
		rpc_fail_param(call, "names", "give either name or names");
		return NULL;
	}
	if (!names)
		return all_names();
	out = json_array();
	if (json_is_string(names))
		json_array_append(out, names);
	else if (json_is_array(names))
		json_array_extend(out, names);
	json_array_foreach(out, i, v) {
		if (!json_is_string(v))
			json_array_clear(out);
	}
	if (json_array_size(out) == 0 && !(json_is_array(names) && json_array_size(names) == 0)) {
		rpc_fail_param(call, "names", "names must be a name or an array of names");
		goto out_free;
	}
	json_array_foreach(out, i, v) {
		if (!bdev_find(json_string_value(v))) {
			rpc_fail_errno(call, -ENODEV, "there is no device %.200s", json_string_value(v));
			rpc_blame(call, key);
			goto out_free;
		}
	}
	return out;
out_free:
	json_decref(out);
	return NULL;
}

enum reset_mode { RESET_NONE, RESET_ALL, RESET_MAXMIN };

static int reset_mode_of_call(struct rpc_call *call, enum reset_mode *ret_mode)
{
	static const char *const names[] = { [RESET_NONE] = "none", [RESET_ALL] = "all", [RESET_MAXMIN] = "maxmin" };
	const char *name = rpc_string(call, "reset_mode", "none");

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(name, names[i]) == 0) {
			*ret_mode = (enum reset_mode)i;
			return 0;
		}
	}
	rpc_fail_param(call, "reset_mode", "reset_mode is none, all or maxmin");
	return -EINVAL;
}

static fiber_fn void reset(struct bdev *bdev, enum reset_mode mode)
{
	if (mode != RESET_NONE)
		bdev_reset_stats(bdev, mode == RESET_ALL ? BDEV_RESET_ALL : BDEV_RESET_EXTREMES);
}

/* What one device has done; and set back when asked. */
static fiber_fn json_t *iostat_json(struct bdev *bdev, enum reset_mode mode)
{
	json_t *out = json_pack("{s:s}", "name", bdev->name);
	struct bdev_stats stats;

	bdev_get_stats(bdev, &stats);
	stats_into(out, &stats);
	reset(bdev, mode);
	return out;
}

/* The same by threads. */
static fiber_fn void iostat_of_channels(struct rpc_call *call, struct bdev *bdev, enum reset_mode mode, json_t *head)
{
	struct bdev_channel_stats *channels;
	json_t *out = json_array();
	unsigned nr;

	if (bdev_get_channel_stats(bdev, &channels, &nr)) {
		json_decref(out);
		json_decref(head);
		rpc_fail_errno(call, -ENOMEM, "no memory for the channels of %.200s", bdev->name);
		return;
	}
	for (unsigned i = 0; i < nr; i++) {
		json_t *channel = json_pack("{s:I}", "thread_id", (json_int_t)channels[i].thread_id);

		stats_into(channel, &channels[i].stats);
		json_array_append_new(out, channel);
	}
	free(channels);
	json_object_set_new(head, "name", json_string(bdev->name));
	json_object_set_new(head, "channels", out);
	reset(bdev, mode);
	rpc_ok(call, head);
}

static fiber_fn void iostat_of_all(struct rpc_call *call, json_t *names, enum reset_mode mode, const char *before)
{
	struct rpc_list list;
	json_t *name;
	size_t i;

	rpc_list_begin(&list, call, before);
	json_array_foreach(names, i, name) {
		struct bdev *bdev = bdev_find(json_string_value(name));

		if (bdev) /* not deleted while others were asked */
			rpc_list_add(&list, iostat_json(bdev, mode));
	}
	rpc_list_end(&list, "}");
}

static fiber_fn void get_iostat(struct rpc_call *call)
{
	unsigned long long rate = clock_tick_rate(), now = clock_ticks();
	enum reset_mode mode;
	json_t *names;
	char before[80];

	if (reset_mode_of_call(call, &mode))
		return;
	names = iostat_names(call);
	if (!names)
		return;
	if (!rpc_bool(call, "per_channel", false)) {
		snprintf(before, sizeof(before), "{\"tick_rate\":%llu,\"ticks\":%llu,\"bdevs\":", rate, now);
		iostat_of_all(call, names, mode, before);
	} else if (json_array_size(names) == 1) {
		iostat_of_channels(call, bdev_find(json_string_value(json_array_get(names, 0))), mode,
				   json_pack("{s:I,s:I}", "tick_rate", (json_int_t)rate, "ticks", (json_int_t)now));
	} else {
		rpc_fail(call, -EINVAL, "Invalid argument", "per_channel needs the name of one device");
		rpc_blame(call, "names");
	}
	json_decref(names);
}

const struct rpc_method bdev_show_methods[] = {
	{ .name = "bdev_get_bdevs", .handler = get_bdevs, .params = get_bdevs_params },
	{ .name = "bdev_get_iostat", .handler = get_iostat, .params = get_iostat_params },
	{ .name = NULL },
};
