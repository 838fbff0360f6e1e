/*
 * Watching stores: how full they are against their thresholds, whether they degrade, whether they stop taking writes.
 *
 * A threshold is crossed upward when as much is used, and downward when a whole per cent less is: a store that hovers there does
 * not flood anybody.  A new process tells first of all what is so.
 */
#include "mgmt/watch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/nvme.h"
#include "mgmt/event.h"
#include "mgmt/methods.h"
#include "mgmt/methods_lvol.h"
#include "runtime/runtime.h"

#define PERIOD_US 500000u

static const uint8_t default_percents[] = { 80, 90, 95 };

/* A store, open or only known by its thresholds.  Owner: the app thread. */
struct watched {
	struct list link;
	char uuid[UUID_STR_LEN];
	uint8_t percents[WATCH_MAX_THRESHOLDS];
	unsigned nr_percents;
	bool set;	     /* its thresholds are its own */
	bool seen;	     /* it is open */
	unsigned nr_crossed; /* of its thresholds, from the lowest */
	bool read_only;
	uint32_t nr_degraded;
};

static struct {
	struct list stores;
	struct fiber_cond wake;
	struct fiber_wait *ended; /* somebody waits for the end */
	bool running;
} watch = { .stores = LIST_INIT(watch.stores) };

/* --- the table ------------------------------------------------------------------------------------------------------ */

static struct watched *find(const char *uuid)
{
	struct list *e;

	list_for_each(e, &watch.stores) {
		struct watched *w = list_entry(e, struct watched, link);

		if (strcasecmp(w->uuid, uuid) == 0)
			return w;
	}
	return NULL;
}

static struct watched *find_or_add(const char *uuid)
{
	struct watched *w = find(uuid);

	if (w)
		return w;
	w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	snprintf(w->uuid, sizeof(w->uuid), "%s", uuid);
	memcpy(w->percents, default_percents, sizeof(default_percents));
	w->nr_percents = sizeof(default_percents);
	list_add_tail(&watch.stores, &w->link);
	return w;
}

static void drop(struct watched *w)
{
	list_del(&w->link);
	free(w);
}

unsigned watch_thresholds(const char *uuid, uint8_t percents[WATCH_MAX_THRESHOLDS])
{
	struct watched *w = find(uuid);

	if (!w) {
		memcpy(percents, default_percents, sizeof(default_percents));
		return sizeof(default_percents);
	}
	memcpy(percents, w->percents, w->nr_percents);
	return w->nr_percents;
}

/* --- looking -------------------------------------------------------------------------------------------------------- */

static void tell_threshold(const struct watched *w, const struct store_info *info, unsigned threshold, bool above)
{
	uint64_t used = info->nr_clusters - info->nr_free_clusters;
	unsigned percent = (unsigned)(used * 100 / info->nr_clusters);

	if (above)
		log_warning("store %s is %u %% full", info->name, percent);
	event_add("store_threshold", info->name,
		  json_pack("{s:s,s:i,s:s,s:i,s:I,s:I}", "store_uuid", w->uuid, "threshold_percent", (int)threshold, "direction",
			    above ? "above" : "below", "used_percent", (int)percent, "free_clusters",
			    (json_int_t)info->nr_free_clusters, "total_clusters", (json_int_t)info->nr_clusters),
		  "store %s is %u %% full, %s its threshold of %u %%", info->name, percent,
		  above ? "at or above" : "below", threshold);
}

static void look_at_space(struct watched *w, const struct store_info *info)
{
	uint64_t total = info->nr_clusters, used = total - info->nr_free_clusters;
	unsigned nr = w->nr_crossed;

	if (!total)
		return;
	for (; nr < w->nr_percents && used * 100 >= total * w->percents[nr]; nr++)
		tell_threshold(w, info, w->percents[nr], true);
	for (; nr && used * 100 < total * (w->percents[nr - 1] - 1u); nr--)
		tell_threshold(w, info, w->percents[nr - 1], false);
	w->nr_crossed = nr;
}

static void look_at(struct lvol_store *store)
{
	struct store *blobs = lvol_store_blobstore(store);
	struct store_info info;
	char uuid[UUID_STR_LEN];
	struct watched *w;

	store_get_info(blobs, &info);
	uuid_unparse_lower(info.uuid, uuid);
	w = find_or_add(uuid);
	if (!w)
		return;
	w->seen = true;
	look_at_space(w, &info);
	if (info.read_only && !w->read_only)
		event_add("store_read_only", info.name, json_pack("{s:s}", "store_uuid", uuid), "store %s takes no writes: %s",
			  info.name, info.read_only_reason[0] ? info.read_only_reason : "its device is read-only");
	w->read_only = info.read_only;
	for (; w->nr_degraded < info.nr_degraded; w->nr_degraded++) {
		const char *lost = store_degraded(blobs, w->nr_degraded);

		event_add("store_degraded", info.name, json_pack("{s:s}", "store_uuid", uuid), "store %s is degraded: %s",
			  info.name, lost ? lost : "a page is lost");
	}
}

static void look_at_all(void)
{
	struct lvol_store *store;
	struct list *e, *tmp;

	list_for_each(e, &watch.stores)
		list_entry(e, struct watched, link)->seen = false;
	for (store = lvol_store_first(); store; store = lvol_store_next(store))
		look_at(store);
	list_for_each_safe(e, tmp, &watch.stores) {
		struct watched *w = list_entry(e, struct watched, link);

		if (w->seen)
			continue;
		w->nr_crossed = w->nr_degraded = 0;
		w->read_only = false;
		if (!w->set)
			drop(w);
	}
}

static void tell_bad(struct lvol_store *store, const struct store_bad *bad)
{
	char object[2 * BDEV_NAME_MAX];
	struct lvol_store_info info;
	char uuid[UUID_STR_LEN];

	lvol_store_get_info(store, &info);
	uuid_unparse_lower(info.uuid, uuid);
	snprintf(object, sizeof(object), "%s/%.*s", info.name, (int)BLOB_NAME_MAX, bad->blob_name);
	event_add("checksum_mismatch", object,
		  json_pack("{s:s,s:s,s:I,s:I}", "store_uuid", uuid, "volume", bad->blob_name, "lba",
			    (json_int_t)bad->offset_blocks, "nr_blocks", (json_int_t)bad->nr_blocks),
		  "volume %s, LBA %llu: %llu blocks do not match their checksum", object, (unsigned long long)bad->offset_blocks,
		  (unsigned long long)bad->nr_blocks);
}

static void tell_drive(const struct bdev_nvme_event *event)
{
	json_t *data = json_pack("{s:s,s:i,s:i,s:i}", "address", event->address, "event_type", (int)event->type, "event_info",
				 (int)event->info, "log_page", (int)event->lid);

	if (event->smart && data)
		json_object_set_new(data, "critical_warning", json_integer(event->smart->critical_warning));
	event_add(event->smart ? "drive_health" : "drive_event", event->ctrlr, data, "drive %s (%s): %s", event->ctrlr, event->address,
		  event->text);
}

static fiber_fn void watch_main(void *arg)
{
	while (!watch.ended) {
		look_at_all();
		fiber_cond_timedwait(&watch.wake, PERIOD_US);
	}
	fiber_wake(watch.ended, 0);
}

int watch_start(void)
{
	int rc;

	watch.ended = NULL;
	fiber_cond_init(&watch.wake);
	rc = fiber_spawn(thread_current(), "watch", watch_main, NULL);
	watch.running = rc == 0;
	lvol_on_bad(tell_bad);
	bdev_nvme_listen(tell_drive);
	return rc;
}

fiber_fn void watch_stop(void)
{
	struct fiber_wait ended;

	lvol_on_bad(NULL);
	bdev_nvme_listen(NULL);
	if (watch.running) {
		fiber_wait_init(&ended);
		watch.ended = &ended;
		fiber_cond_broadcast(&watch.wake);
		fiber_wait(&ended);
		watch.running = false;
	}
	while (!list_empty(&watch.stores))
		drop(list_entry(list_first(&watch.stores), struct watched, link));
}

/* --- methods -------------------------------------------------------------------------------------------------------- */

#define METHOD_SAVED "ferrule_store_thresholds"

/* Rising whole numbers; false with the call failed. */
static bool thresholds_of_call(struct rpc_call *call, uint8_t percents[WATCH_MAX_THRESHOLDS], unsigned *ret_nr)
{
	json_t *list = rpc_json(call, "percents"), *v;
	json_int_t last = 1;
	size_t i;

	json_array_foreach(list, i, v) {
		json_int_t n = json_is_integer(v) ? json_integer_value(v) : 0;

		if (i >= WATCH_MAX_THRESHOLDS || n <= last || n > 100) {
			rpc_fail_param(call, "percents", "percents are at most %u rising whole numbers from 2 to 100",
				       WATCH_MAX_THRESHOLDS);
			return false;
		}
		percents[i] = (uint8_t)n;
		last = n;
	}
	*ret_nr = (unsigned)json_array_size(list);
	return true;
}

static void set_thresholds(struct rpc_call *call, const char *uuid)
{
	struct state_key key = { STATE_THRESHOLD, "", uuid };
	uint8_t percents[WATCH_MAX_THRESHOLDS];
	struct watched *w;
	unsigned nr;

	if (!thresholds_of_call(call, percents, &nr))
		return;
	w = find_or_add(uuid);
	if (!w) {
		rpc_fail_errno(call, -ENOMEM, NULL);
		return;
	}
	memcpy(w->percents, percents, nr);
	w->nr_percents = nr;
	w->nr_crossed = 0; /* what it is above is told anew */
	w->set = true;
	rpc_save_as(call, &key, METHOD_SAVED, json_pack("{s:s,s:O}", "uuid", uuid, "percents", rpc_json(call, "percents")));
	rpc_ok(call, NULL);
}

static const struct rpc_param set_params[] = {
	{ "uuid", RPC_STRING, 0, NULL },
	{ "lvs_name", RPC_STRING, 0, NULL },
	{ "percents", RPC_ARRAY, RPC_REQUIRED, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void set_lvstore_thresholds(struct rpc_call *call)
{
	struct lvol_store *store = store_of_call(call, "uuid");
	struct lvol_store_info info;
	char uuid[UUID_STR_LEN];

	if (!store)
		return;
	lvol_store_get_info(store, &info);
	uuid_unparse_lower(info.uuid, uuid);
	set_thresholds(call, uuid);
}

/* The store need not be open. */
static fiber_fn void saved_thresholds(struct rpc_call *call)
{
	set_thresholds(call, rpc_string(call, "uuid", ""));
}

void watch_forget(struct rpc_call *call, struct lvol_store *store)
{
	struct lvol_store_info info;
	char uuid[UUID_STR_LEN];

	lvol_store_get_info(store, &info);
	uuid_unparse_lower(info.uuid, uuid);
	rpc_forget(call, STATE_THRESHOLD, "", uuid);
	if (find(uuid))
		drop(find(uuid));
}

const struct rpc_method watch_methods[] = {
	{ .name = "bdev_lvol_set_lvstore_thresholds", .handler = set_lvstore_thresholds, .params = set_params, .changes = true },
	{ .name = METHOD_SAVED, .handler = saved_thresholds, .params = set_params, .internal = true },
	{ .name = NULL },
};
