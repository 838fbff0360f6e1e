/*
 * Deletions of exported volumes; see deletion.h.  An object of class "deletion" names the volumes, and, when a whole store goes,
 * the bdev that it lies on.
 *
 *   the store is open, a volume is there      it was not deleted: its namespace stays
 *   the store is open, a volume is not there  it was: its namespace goes
 *   the bdev is there and holds no such store all are gone
 *   else                                      nobody knows yet: the object stays
 */
#include "mgmt/deletion.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mgmt/known.h"
#include "mgmt/methods.h"
#include "runtime/runtime.h"

#define METHOD_DELETION "ferrule_deletion"

static const char *member(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static json_t *volume_json(struct lvol *lvol)
{
	return json_pack("{s:s,s:s}", "uuid", lvol_bdev(lvol)->name, "alias", lvol_bdev(lvol)->alias);
}

static void store_uuid_text(struct lvol_store *store, char *text)
{
	struct lvol_store_info info;

	lvol_store_get_info(store, &info);
	uuid_unparse_lower(info.uuid, text);
}

void deletion_of_lvol(struct deletion *d, struct lvol *lvol)
{
	char store[UUID_STR_LEN];

	d->params = NULL;
	/* What has the name of one that is hidden is another device, and so are the namespaces on it. */
	if (lvol_is_hidden(lvol) || !namespaces_are_on(lvol_bdev(lvol)->name, lvol_bdev(lvol)->alias))
		return;
	store_uuid_text(lvol_get_store(lvol), store);
	snprintf(d->key, sizeof(d->key), "%.*s", UUID_STR_LEN - 1, lvol_bdev(lvol)->name);
	d->params = json_pack("{s:s,s:[o]}", "store", store, "volumes", volume_json(lvol));
}

void deletion_of_store(struct deletion *d, struct lvol_store *store)
{
	json_t *volumes = json_array();
	struct lvol_store_info info;
	char bdev_uuid[UUID_STR_LEN];
	struct bdev *bdev;

	d->params = NULL;
	for (struct lvol *lvol = lvol_first(store); lvol; lvol = lvol_next(lvol)) {
		if (namespaces_are_on(lvol_bdev(lvol)->name, lvol_bdev(lvol)->alias))
			json_array_append_new(volumes, volume_json(lvol));
	}
	lvol_store_get_info(store, &info);
	bdev = bdev_find(info.base_bdev);
	if (json_array_size(volumes) && bdev) {
		uuid_unparse_lower(bdev->uuid, bdev_uuid);
		uuid_unparse_lower(info.uuid, d->key);
		d->params = json_pack("{s:s,s:O,s:s}", "store", d->key, "volumes", volumes, "bdev", bdev_uuid);
	}
	json_decref(volumes);
}

fiber_fn int deletion_begin(struct rpc_call *call, struct deletion *d)
{
	struct state_key key = { STATE_DELETION, "", d->key };
	int rc;

	if (!d->params)
		return 0;
	rpc_save_as(call, &key, METHOD_DELETION, json_incref(d->params));
	rc = rpc_commit(call);
	if (rc)
		rpc_fail_errno(call, rc, "nothing was deleted: what is exported is deleted only once that is noted in the saved state, "
			       "which could not be written; see to the state folder, or remove its namespaces first");
	return rc;
}

static void forget_volume(struct rpc_call *call, const json_t *volume)
{
	forget_namespaces_called(call, member(volume, "uuid"), member(volume, "alias"));
}

void deletion_end(struct rpc_call *call, struct deletion *d)
{
	json_t *volume;
	size_t i;

	json_array_foreach(json_object_get(d->params, "volumes"), i, volume)
		forget_volume(call, volume);
	if (d->params)
		rpc_forget(call, STATE_DELETION, "", d->key);
}

void deletion_fini(struct deletion *d)
{
	json_decref(d->params);
}

/* --- settling ------------------------------------------------------------------------------------------------------- */

static void collect(void *arg, const char *parent, const char *name, const char *method, json_t *params)
{
	json_array_append_new(arg, json_pack("{s:s,s:O}", "name", name, "params", params));
}

struct found {
	const json_t *volume;
	json_t *namespaces;
};

static void collect_namespace(void *arg, const char *parent, const char *name, const char *method, json_t *params)
{
	struct found *f = arg;

	if (namespace_is_on(params, member(f->volume, "uuid"), member(f->volume, "alias")))
		json_array_append_new(f->namespaces, json_pack("[s,s]", parent, name));
}

/* Its namespaces, which wait for it in vain. */
static fiber_fn void drop_namespaces(struct rpc_call *call, const json_t *volume)
{
	struct found f = { volume, json_array() };
	json_t *ns;
	size_t i;

	rpc_saved_for_each(STATE_NAMESPACE, collect_namespace, &f);
	json_array_foreach(f.namespaces, i, ns) {
		const char *nqn = json_string_value(json_array_get(ns, 0)), *nsid = json_string_value(json_array_get(ns, 1));
		struct nvmf_subsystem *subsystem = nvmf_subsystem_find(target_of_call(call), nqn);

		log_notice("volume %s was being deleted when the daemon died: namespace %s of %s goes with it", member(volume, "alias"),
			   nsid, nqn);
		if (subsystem)
			nvmf_subsystem_remove_ns(subsystem, (uint32_t)strtoul(nsid, NULL, 10));
		rpc_forget(call, STATE_NAMESPACE, nqn, nsid);
	}
	json_decref(f.namespaces);
}

/* 1: it is open, and what is not there is gone; 0: it is gone; -EAGAIN: nobody knows. */
static fiber_fn int look_for_store(const json_t *params)
{
	const char *uuid = member(params, "store");
	struct lvol_store *store = lvol_store_find(uuid);
	struct bdev *bdev = bdev_find(member(params, "bdev"));
	struct lvol_store_info info;
	struct store_label label;
	char found[UUID_STR_LEN];
	int rc;

	if (store) {
		lvol_store_get_info(store, &info);
		return info.read_only ? -EAGAIN : 1; /* what it has failed to write may be there again */
	}
	if (!bdev)
		return -EAGAIN;
	rc = store_probe(bdev->name, &label, NULL);
	if (rc == -EILSEQ)
		return 0;
	if (rc)
		return -EAGAIN;
	uuid_unparse_lower(label.uuid, found);
	return strcasecmp(found, uuid) ? 0 : -EAGAIN;
}

static fiber_fn void settle_one(struct rpc_call *call, const json_t *deletion)
{
	json_t *params = json_object_get(deletion, "params"), *volume;
	int rc = look_for_store(params);
	size_t i;

	if (rc < 0)
		return;
	json_array_foreach(json_object_get(params, "volumes"), i, volume) {
		if (!rc || (!lvol_find(member(volume, "uuid")) && !lvol_find_hidden(member(volume, "uuid"))))
			drop_namespaces(call, volume);
	}
	if (!rc && json_object_get(params, "bdev")) {
		known_forget(call, member(params, "store"));
		rpc_forget(call, STATE_THRESHOLD, "", member(params, "store"));
	}
	rpc_forget(call, STATE_DELETION, "", member(deletion, "name"));
}

fiber_fn void deletions_settle(struct rpc_call *call)
{
	json_t *all = json_array(), *deletion;
	size_t i;

	rpc_saved_for_each(STATE_DELETION, collect, all);
	json_array_foreach(all, i, deletion)
		settle_one(call, deletion);
	json_decref(all);
}

/* --- the saved object's method: it is settled once calls run -------------------------------------------------------- */

static const struct rpc_param saved_params[] = {
	{ "store", RPC_STRING, RPC_REQUIRED, NULL },
	{ "volumes", RPC_ARRAY, RPC_REQUIRED, NULL },
	{ "bdev", RPC_STRING, 0, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void saved(struct rpc_call *call)
{
	if (rpc_has(call, "bdev"))
		known_expect_no_more(rpc_string(call, "store", ""));
	rpc_ok(call, NULL);
}

const struct rpc_method deletion_methods[] = {
	{ .name = METHOD_DELETION, .handler = saved, .params = saved_params, .internal = true },
	{ .name = NULL },
};
