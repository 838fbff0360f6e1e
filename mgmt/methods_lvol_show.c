/* The methods that show volumes: what they are, what of the store is theirs; and their extended attributes. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mgmt/methods.h"
#include "mgmt/methods_lvol.h"

static void lvol_alias(const struct lvol_info *info, char *buf, size_t size)
{
	snprintf(buf, size, "%s/%s", info->store_name, info->name);
}

/* --- lists ---------------------------------------------------------------------------------------------------------- */

static json_t *age_json(const struct lvol_info *info)
{
	return info->exclusive_age_us == UINT64_MAX ? json_null() : json_integer((json_int_t)(info->exclusive_age_us / 1000));
}

static json_t *exclusive_json(const struct lvol_info *info)
{
	return info->exclusive_age_us == UINT64_MAX ? json_null() : json_integer((json_int_t)info->exclusive_bytes);
}

/* Of the snapshot that a volume comes from; null: none. */
static json_t *parent_json(struct lvol *lvol)
{
	struct lvol *parent = lvol_parent(lvol);
	struct lvol_info info;

	if (!parent)
		return json_null();
	lvol_get_info(parent, &info);
	return json_string(info.name);
}

/* Why it is no bdev; null: it is one. */
static json_t *hidden_json(const struct lvol *lvol)
{
	char why[512];

	if (!lvol_is_hidden(lvol))
		return json_null();
	lvol_why_hidden(lvol, why, sizeof(why));
	return json_string(why);
}

static json_t *lvol_json(struct lvol *lvol)
{
	char uuid[UUID_STR_LEN], store_uuid[UUID_STR_LEN], alias[BDEV_NAME_MAX * 2];
	struct lvol_info info;
	json_t *out;

	lvol_get_info(lvol, &info);
	uuid_unparse_lower(info.uuid, uuid);
	uuid_unparse_lower(info.store_uuid, store_uuid);
	lvol_alias(&info, alias, sizeof(alias));
	out = json_pack("{s:s,s:s,s:s,s:b,s:b,s:b,s:b,s:b,s:I,s:{s:s,s:s}}", "alias", alias, "uuid", uuid, "name", info.name,
			"is_thin_provisioned", info.thin, "is_snapshot", info.snapshot, "is_clone", info.clone,
			"is_esnap_clone", info.external[0] != '\0', "is_degraded", info.degraded, "num_allocated_clusters",
			(json_int_t)info.num_allocated_clusters, "lvs", "name", info.store_name, "uuid", store_uuid);
	/* ours, not SPDK's */
	json_object_set_new(out, "hidden", hidden_json(lvol));
	json_object_set_new(out, "counting", json_boolean(info.counting));
	json_object_set_new(out, "parent", parent_json(lvol));
	json_object_set_new(out, "size_bytes", json_integer((json_int_t)info.size_bytes));
	json_object_set_new(out, "referenced_bytes", json_integer((json_int_t)info.referenced_bytes));
	json_object_set_new(out, "exclusive_bytes", exclusive_json(&info));
	json_object_set_new(out, "exclusive_age_ms", age_json(&info));
	return out;
}

static json_t *clones_json(struct lvol *lvol)
{
	json_t *names = json_array();
	struct lvol_info info;

	for (struct lvol *clone = lvol_first_clone(lvol); clone; clone = lvol_next_clone(clone)) {
		lvol_get_info(clone, &info);
		json_array_append_new(names, json_string(info.name));
	}
	return names;
}

/* Values that are no text are left out. */
static json_t *xattrs_json(struct lvol *lvol)
{
	const char *key;
	const void *value;
	uint8_t key_len;
	uint16_t len;
	json_t *out = json_object();

	for (uint32_t i = 0; lvol_xattr_at(lvol, i, &key, &key_len, &value, &len); i++) {
		json_t *v = json_stringn(value, len);
		char name[256];

		snprintf(name, sizeof(name), "%.*s", key_len, key);
		if (v)
			json_object_set_new(out, name, v);
	}
	return out;
}

json_t *lvol_specific_json(const struct bdev *bdev)
{
	struct lvol *lvol = lvol_from_bdev(bdev);
	struct lvol_info info;
	char uuid[UUID_STR_LEN];
	json_t *out;

	if (!lvol)
		return NULL;
	lvol_get_info(lvol, &info);
	uuid_unparse_lower(info.store_uuid, uuid);
	out = json_pack("{s:s,s:s,s:b,s:I,s:b,s:b}", "lvol_store_uuid", uuid, "base_bdev", info.base_bdev, "thin_provision",
			info.thin, "num_allocated_clusters", (json_int_t)info.num_allocated_clusters, "snapshot", info.snapshot,
			"clone", info.clone);
	if (info.clone)
		json_object_set_new(out, "base_snapshot", parent_json(lvol));
	if (info.snapshot)
		json_object_set_new(out, "clones", clones_json(lvol));
	json_object_set_new(out, "esnap_clone", json_boolean(info.external[0]));
	if (info.external[0])
		json_object_set_new(out, "external_snapshot_name", json_string(info.external));
	json_object_set_new(out, "counting", json_boolean(info.counting)); /* ours: num_allocated_clusters is an upper bound until then */
	json_object_set_new(out, "xattrs", xattrs_json(lvol));
	return out;
}

json_t *lvol_creation_time_json(const struct bdev *bdev)
{
	struct lvol *lvol = lvol_from_bdev(bdev);
	struct lvol_info info;
	char text[32];
	time_t seconds;
	struct tm tm;

	if (!lvol)
		return NULL;
	lvol_get_info(lvol, &info);
	seconds = (time_t)(info.created_ms / 1000);
	gmtime_r(&seconds, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	return json_string(text);
}

static const struct rpc_param get_lvols_params[] = {
	{ "lvs_uuid", RPC_STRING, 0, NULL },
	{ "lvs_name", RPC_STRING, 0, NULL },
	{ NULL, 0, 0, NULL },
};

static void add_names(json_t *names, struct lvol_store *store)
{
	struct lvol *lvol;

	for (lvol = lvol_first(store); lvol; lvol = lvol_next(lvol))
		json_array_append_new(names, json_string(lvol_bdev(lvol)->name));
	for (lvol = lvol_first_hidden(store); lvol; lvol = lvol_next_hidden(lvol))
		json_array_append_new(names, json_string(lvol_bdev(lvol)->name));
}

static fiber_fn void get_lvols(struct rpc_call *call)
{
	struct lvol_store *store = NULL;
	json_t *names, *name;
	struct rpc_list list;
	struct lvol *lvol;
	size_t i;

	if (rpc_has(call, "lvs_uuid") || rpc_has(call, "lvs_name")) {
		store = store_of_call(call, "lvs_uuid");
		if (!store)
			return;
	}
	/* Names first: volumes may come and go while a long list is made. */
	names = json_array();
	if (store) {
		add_names(names, store);
	} else {
		for (store = lvol_store_first(); store; store = lvol_store_next(store))
			add_names(names, store);
	}
	rpc_list_begin(&list, call, "");
	json_array_foreach(names, i, name) {
		lvol = lvol_find(json_string_value(name));
		if (!lvol)
			lvol = lvol_find_hidden(json_string_value(name));
		if (lvol)
			rpc_list_add(&list, lvol_json(lvol));
	}
	rpc_list_end(&list, "");
	json_decref(names);
}

/* --- space ---------------------------------------------------------------------------------------------------------- */

static const struct rpc_param space_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "exclusive", RPC_BOOL, 0, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void get_space(struct rpc_call *call)
{
	struct lvol *lvol = lvol_of_call(call, "name");
	char alias[BDEV_NAME_MAX * 2];
	struct lvol_info info;
	uint64_t exclusive;
	int rc;

	if (lvol && rpc_bool(call, "exclusive", false)) {
		rc = lvol_exclusive(lvol, &exclusive);
		if (rc) {
			lvol_fail(call, rc, "name", lvol_rule(rc));
			return;
		}
		lvol = lvol_of_call(call, "name");
	}
	if (!lvol)
		return;
	lvol_get_info(lvol, &info);
	lvol_alias(&info, alias, sizeof(alias));
	rpc_ok(call, json_pack("{s:s,s:s,s:I,s:I,s:o,s:o}", "name", lvol_bdev(lvol)->name, "alias", alias, "size_bytes",
			       (json_int_t)info.size_bytes, "referenced_bytes", (json_int_t)info.referenced_bytes,
			       "exclusive_bytes", exclusive_json(&info), "exclusive_age_ms", age_json(&info)));
}

/* --- extended attributes -------------------------------------------------------------------------------------------- */

static const struct rpc_param set_xattr_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "xattr_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "xattr_value", RPC_STRING, RPC_REQUIRED, NULL },
	{ NULL, 0, 0, NULL },
};

static void xattr_failed(struct rpc_call *call, int rc)
{
	if (rc == -ENODATA)
		lvol_fail(call, -ENOENT, "xattr_name", "the volume has no such attribute");
	else if (rc == -E2BIG)
		lvol_fail(call, rc, "xattr_value", "a volume's attributes have at most 2,048 bytes, names included");
	else if (rc == -EINVAL)
		lvol_fail(call, rc, "xattr_name", "an attribute's name has 1 to 255 bytes");
	else
		lvol_fail(call, rc, NULL, lvol_rule(rc));
}

static bool attributes_change(struct rpc_call *call, struct lvol *lvol)
{
	struct lvol_info info;

	lvol_get_info(lvol, &info);
	if (info.snapshot)
		lvol_fail(call, -EPERM, "name", "a snapshot does not change; give attributes when it is made (xattrs)");
	return !info.snapshot;
}

static fiber_fn void set_xattr(struct rpc_call *call)
{
	struct lvol *lvol = idle_lvol_of_call(call, "name");
	json_t *value = rpc_json(call, "xattr_value");
	int rc = -E2BIG;

	if (!lvol || !attributes_change(call, lvol))
		return;
	if (json_string_length(value) <= BLOB_XATTR_MAX)
		rc = lvol_set_xattr(lvol, rpc_string(call, "xattr_name", ""), json_string_value(value),
				    (uint16_t)json_string_length(value));
	if (rc)
		xattr_failed(call, rc);
	else
		rpc_ok(call, NULL);
}

static const struct rpc_param xattr_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "xattr_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void get_xattr(struct rpc_call *call)
{
	struct lvol *lvol = lvol_of_call(call, "name");
	const void *value;
	json_t *text;
	uint16_t len;

	if (!lvol)
		return;
	/* This one's code is not like the others'. */
	if (lvol_get_xattr(lvol, rpc_string(call, "xattr_name", ""), &value, &len)) {
		rpc_fail(call, RPC_INTERNAL_ERROR, strerror(ENOENT), "the volume has no such attribute");
		rpc_blame(call, "xattr_name");
		return;
	}
	text = json_stringn(value, len);
	if (text)
		rpc_ok(call, text);
	else
		lvol_fail(call, -EILSEQ, "xattr_name", "its value is no text");
}

static fiber_fn void remove_xattr(struct rpc_call *call)
{
	struct lvol *lvol = idle_lvol_of_call(call, "name");
	int rc;

	if (!lvol || !attributes_change(call, lvol))
		return;
	rc = lvol_set_xattr(lvol, rpc_string(call, "xattr_name", ""), NULL, 0);
	if (rc)
		xattr_failed(call, rc);
	else
		rpc_ok(call, NULL);
}

const struct rpc_method lvol_show_methods[] = {
	{ .name = "bdev_lvol_get_lvols", .handler = get_lvols, .params = get_lvols_params },
	{ .name = "bdev_lvol_get_space", .handler = get_space, .params = space_params },
	{ .name = "bdev_lvol_get_xattr", .handler = get_xattr, .params = xattr_params },
	{ .name = "bdev_lvol_set_xattr", .handler = set_xattr, .params = set_xattr_params, .changes = true },
	{ .name = "bdev_lvol_remove_xattr", .handler = remove_xattr, .params = xattr_params, .changes = true },
	{ .name = NULL },
};
