/* Stores that this daemon has had open; see known.h. */
#include "mgmt/known.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mgmt/deletion.h"
#include "mgmt/event.h"
#include "runtime/runtime.h"

#define METHOD_KNOWN  "ferrule_store"
#define METHOD_SETTLE "ferrule_stores_settle"

/* UUID in text -> {"name", "bdev", "bdev_uuid", "read_only"}.  Owner: the app thread. */
static json_t *known;
static bool running; /* calls run: what is opened is saved at once */

static const char *member(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static json_t *describe(struct lvol_store *store, char uuid[UUID_STR_LEN])
{
	struct lvol_store_info info;
	char bdev_uuid[UUID_STR_LEN];
	struct bdev *bdev;

	lvol_store_get_info(store, &info);
	uuid_unparse_lower(info.uuid, uuid);
	bdev = bdev_find(info.base_bdev);
	if (!bdev)
		return NULL;
	uuid_unparse_lower(bdev->uuid, bdev_uuid);
	return json_pack("{s:s,s:s,s:s,s:s,s:b}", "uuid", uuid, "name", info.name, "bdev", info.base_bdev, "bdev_uuid", bdev_uuid,
			 "read_only", json_is_true(json_object_get(json_object_get(known, uuid), "read_only")));
}

void known_save(struct rpc_call *call, struct lvol_store *store, bool read_only)
{
	char uuid[UUID_STR_LEN];
	json_t *is = describe(store, uuid);
	struct state_key key = { STATE_STORE, "", uuid };

	if (!is)
		return;
	json_object_set_new(is, "read_only", json_boolean(read_only));
	json_object_set(known, uuid, is);
	rpc_save_as(call, &key, METHOD_KNOWN, is);
}

/* As it is found, if that is not known already. */
static void meet(struct rpc_call *call, struct lvol_store *store)
{
	char uuid[UUID_STR_LEN];
	json_t *is = describe(store, uuid);

	if (is && !json_equal(is, json_object_get(known, uuid)))
		known_save(call, store, json_is_true(json_object_get(is, "read_only")));
	json_decref(is);
}

void known_forget(struct rpc_call *call, const char *uuid)
{
	rpc_forget(call, STATE_STORE, "", uuid);
	json_object_del(known, uuid);
}

void known_forget_on(struct rpc_call *call, const struct bdev *bdev)
{
	char bdev_uuid[UUID_STR_LEN];
	const char *uuid;
	json_t *store;
	void *next;

	uuid_unparse_lower(bdev->uuid, bdev_uuid);
	json_object_foreach_safe(known, next, uuid, store) {
		if (strcmp(member(store, "bdev_uuid"), bdev_uuid) == 0) {
			rpc_forget(call, STATE_STORE, "", uuid);
			json_object_del(known, uuid);
		}
	}
}

void known_expect_no_more(const char *uuid)
{
	json_object_del(known, uuid);
}

bool known_read_only(const uuid_t uuid)
{
	char text[UUID_STR_LEN];

	uuid_unparse_lower(uuid, text);
	return json_is_true(json_object_get(json_object_get(known, text), "read_only"));
}

void known_set_read_only(const char *uuid, bool read_only)
{
	json_t *store = json_object_get(known, uuid);

	if (store)
		json_object_set_new(store, "read_only", json_boolean(read_only));
}

bool known_missing_on(const struct bdev *bdev, char *text, size_t size)
{
	char bdev_uuid[UUID_STR_LEN];
	const char *uuid;
	json_t *store;

	/* What goes with the process is empty at each start. */
	if (!bdev->continuity)
		return false;
	uuid_unparse_lower(bdev->uuid, bdev_uuid);
	json_object_foreach(known, uuid, store) {
		if (strcmp(member(store, "bdev_uuid"), bdev_uuid) || lvol_store_find(uuid))
			continue;
		snprintf(text, size,
			 "%.64s should hold store %.64s (%s), but both of its superblocks are gone: something has written over its "
			 "beginning.  Nothing was changed.  Bring back the first 2 MiB of the device from a copy, and call "
			 "bdev_lvol_open_lvstore; if it was wiped on purpose, delete the device or make a new store on it",
			 bdev->name, member(store, "name"), uuid);
		return true;
	}
	return false;
}

/* --- what lvol tells ------------------------------------------------------------------------------------------------ */

static void call_done(struct rpc_call *call, void *arg)
{
	rpc_call_fini(call);
	free(call);
}

static void on_opened(struct lvol_store *store)
{
	struct rpc_call *call;

	if (!running || rpc_is_stopping())
		return;
	call = calloc(1, sizeof(*call));
	if (call)
		rpc_submit(call, METHOD_SETTLE, NULL, call_done, NULL);
}

static void on_refused(const char *bdev_name, int rc, const char *reason)
{
	struct bdev *bdev = bdev_find(bdev_name);
	char text[512];

	if (rc != -EILSEQ) {
		event_add("store_refused", bdev_name, NULL, "%s holds a store that is not opened: %s", bdev_name, reason);
	} else if (bdev && known_missing_on(bdev, text, sizeof(text))) {
		log_error("%s", text);
		event_add("store_missing", bdev_name, NULL, "%s", text);
	}
}

static void on_hidden(struct lvol *lvol)
{
	char name[2 * BDEV_NAME_MAX], uuid[UUID_STR_LEN], why[512];
	struct lvol_info info;

	lvol_get_info(lvol, &info);
	uuid_unparse_lower(info.uuid, uuid);
	snprintf(name, sizeof(name), "%s/%s", info.store_name, info.name);
	if (!info.hidden) {
		event_add("volume_shown", name, json_pack("{s:s}", "uuid", uuid), "volume %s is shown: its name is free", name);
		return;
	}
	lvol_why_hidden(lvol, why, sizeof(why));
	event_add("volume_hidden", name, json_pack("{s:s}", "uuid", uuid), "volume %s is not shown: %s", name, why);
}

void known_init(void)
{
	static const struct lvol_hooks hooks = { .opened = on_opened, .refused = on_refused, .hidden = on_hidden,
						 .is_read_only = known_read_only };

	known = json_object();
	running = false;
	lvol_set_hooks(&hooks);
}

fiber_fn void known_start(void)
{
	running = true;
	rpc_change(METHOD_SETTLE, NULL);
}

void known_fini(void)
{
	lvol_set_hooks(NULL);
	json_decref(known);
	known = NULL;
	running = false;
}

/* --- methods, for ourselves ------------------------------------------------------------------------------------------ */

static const struct rpc_param known_params[] = {
	{ "uuid", RPC_STRING, RPC_REQUIRED, NULL },	 { "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "bdev", RPC_STRING, RPC_REQUIRED, NULL },	 { "bdev_uuid", RPC_STRING, RPC_REQUIRED, NULL },
	{ "read_only", RPC_BOOL, RPC_REQUIRED, NULL },	 { NULL, 0, 0, NULL },
};

/* Of the saved state: before its bdev comes. */
static fiber_fn void saved(struct rpc_call *call)
{
	json_object_set(known, rpc_string(call, "uuid", ""), call->params);
	rpc_ok(call, NULL);
}

static fiber_fn void settle(struct rpc_call *call)
{
	struct lvol_store *store;

	deletions_settle(call);
	for (store = lvol_store_first(); store; store = lvol_store_next(store))
		meet(call, store);
	rpc_ok(call, NULL);
}

const struct rpc_method known_methods[] = {
	{ .name = METHOD_KNOWN, .handler = saved, .params = known_params, .internal = true },
	{ .name = METHOD_SETTLE, .handler = settle, .internal = true, .changes = true },
	{ .name = NULL },
};
