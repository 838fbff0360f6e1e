/*
 * Namespaces: a bdev under an NSID.  One whose bdev is not there yet waits for it; one whose bdev goes away
 * vanishes.
 *
 * Events about bdevs arrive outside of fibers and name a namespace by its id: by the time a fiber has the
 * configuration's lock, it may be another's NSID.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "nvmf/internal.h"

static uint64_t next_id = 1;

struct bdev_went {
	struct nvmf_target *target;
	char nqn[NVMF_NQN_SIZE];
	uint32_t nsid;
	uint64_t id;
	void (*handle)(struct nvmf_ns *ns);
};

/* The end of the fiber of an event. */
static void event_over(struct bdev_went *event)
{
	struct nvmf_target *target = event->target;

	free(event);
	nvmf_target_event_over(target);
}

fiber_fn static void event_fiber(void *arg)
{
	struct bdev_went *event = arg;
	struct nvmf_target *target = event->target;
	struct nvmf_subsystem *sub;
	struct nvmf_ns *ns;

	fiber_lock(&target->config);
	sub = nvmf_subsystem_find(target, event->nqn);
	ns = sub ? sub->ns[event->nsid] : NULL;
	if (ns && ns->id == event->id)
		event->handle(ns);
	fiber_unlock(&target->config);
	event_over(event);
}

/* In a fiber with the lock, and if the namespace is there still: handle(ns). */
static void event_start(struct nvmf_ns *ns, void (*handle)(struct nvmf_ns *ns))
{
	struct nvmf_target *target = ns->subsystem->target;
	struct bdev_went *event = calloc(1, sizeof(*event));

	if (!event) {
		log_error("no memory to follow bdev %s of %s namespace %u", ns->bdev_name, ns->subsystem->nqn,
			  ns->nsid);
		return;
	}
	event->target = target;
	event->nsid = ns->nsid;
	event->id = ns->id;
	event->handle = handle;
	memcpy(event->nqn, ns->subsystem->nqn, sizeof(event->nqn));
	target->nr_events++;
	if (fiber_spawn(runtime_app_thread(), "nvmf_ns_event", event_fiber, event)) {
		log_error("no memory to follow bdev %s of %s namespace %u", ns->bdev_name, ns->subsystem->nqn,
			  ns->nsid);
		event_over(event);
	}
}

fiber_fn static void ns_delete(struct nvmf_ns *ns);

fiber_fn static void ns_bdev_removed(struct nvmf_ns *ns)
{
	struct nvmf_subsystem *sub = ns->subsystem;
	struct nvmf_target *target = sub->target;
	char name[BDEV_NAME_MAX];
	uint32_t nsid = ns->nsid;

	snprintf(name, sizeof(name), "%s", ns->bdev->name);
	log_notice("bdev %s is gone: namespace %u of %s vanishes", name, nsid, sub->nqn);
	ns_delete(ns);
	if (target->ns_gone)
		target->ns_gone(sub, nsid, name, target->ns_gone_arg);
}

static void ns_bdev_event(struct bdev *bdev, enum bdev_event event, void *arg)
{
	struct nvmf_ns *ns = arg;

	if (event == BDEV_EVENT_REMOVE)
		event_start(ns, ns_bdev_removed);
	else if (event == BDEV_EVENT_RESIZE)
		event_start(ns, nvmf_groups_ns_changed);
}

/* --- identities ---------------------------------------------------------------------------- */

static bool is_zero(const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (bytes[i])
			return false;
	}
	return true;
}

/* Two namespaces of a subsystem must not look like one. */
static bool ids_collide(const struct nvmf_subsystem *sub, const struct nvmf_ns *ns)
{
	for (uint32_t nsid = 1; nsid <= sub->max_namespaces; nsid++) {
		const struct nvmf_ns *other = sub->ns[nsid];

		if (!other || other == ns)
			continue;
		if (!uuid_is_null(ns->uuid) && !uuid_compare(ns->uuid, other->uuid))
			return true;
		if (!is_zero(ns->nguid, 16) && !memcmp(ns->nguid, other->nguid, 16))
			return true;
		if (ns->eui64_given && !memcmp(ns->eui64, other->eui64, 8))
			return true;
	}
	return false;
}

static void ns_derive_ids(struct nvmf_ns *ns)
{
	if (!ns->uuid_given) {
		if (uuid_is_null(ns->bdev->uuid))
			nvmf_derive_uuid(ns->subsystem->nqn, ns->nsid, ns->uuid);
		else
			uuid_copy(ns->uuid, ns->bdev->uuid);
	}
	if (!ns->nguid_given)
		memcpy(ns->nguid, ns->uuid, 16);
}

/* --- attaching a bdev ---------------------------------------------------------------------- */

/* Opens the bdev and shows the namespace to every group.  On error the namespace is as before. */
fiber_fn static int ns_attach(struct nvmf_ns *ns, struct bdev *bdev)
{
	uint32_t block_size = bdev->block_size;
	int rc;

	if (block_size < 512 || block_size > NVMF_PAGE_SIZE || (block_size & (block_size - 1)))
		return -EINVAL;
	rc = bdev_open_bdev(bdev, !bdev->read_only, ns_bdev_event, ns, &ns->desc);
	if (rc)
		return rc;
	ns->bdev = bdev;
	ns->block_size = block_size;
	ns->block_shift = (uint8_t)__builtin_ctz(block_size);
	ns_derive_ids(ns);
	rc = ids_collide(ns->subsystem, ns) ? -EEXIST : nvmf_groups_add_ns(ns);
	if (rc) {
		bdev_close(ns->desc);
		ns->desc = NULL;
		ns->bdev = NULL;
		if (!ns->uuid_given)
			uuid_clear(ns->uuid);
		if (!ns->nguid_given)
			memset(ns->nguid, 0, sizeof(ns->nguid));
		return rc;
	}
	ns->subsystem->nr_waiting--;
	return 0;
}

/* A name may be another device's by now: hosts must not get its bytes for those of the one that was exported. */
static bool is_wanted(const struct nvmf_ns *ns, const struct bdev *bdev)
{
	char is[UUID_STR_LEN], was[UUID_STR_LEN];

	if (uuid_is_null(ns->bdev_uuid) || !uuid_compare(ns->bdev_uuid, bdev->uuid))
		return true;
	uuid_unparse_lower(bdev->uuid, is);
	uuid_unparse_lower(ns->bdev_uuid, was);
	log_error("namespace %u of %s is not shown: bdev %s is another device than the one that was exported (its UUID is %s, and was "
		  "%s); bring that one back, or remove the namespace and add it again", ns->nsid, ns->subsystem->nqn, ns->bdev_name,
		  is, was);
	return false;
}

fiber_fn static void ns_bdev_came(struct nvmf_ns *ns)
{
	struct bdev *bdev = ns->desc ? NULL : bdev_find(ns->bdev_name);
	int rc;

	if (!bdev || ns->subsystem->target->stopping || !is_wanted(ns, bdev))
		return;
	rc = ns_attach(ns, bdev);
	if (rc)
		log_error("namespace %u of %s cannot have bdev %s: %s", ns->nsid, ns->subsystem->nqn,
			  ns->bdev_name, strerror(-rc));
}

static bool bdev_is_called(const struct bdev *bdev, const char *uuid, const char *name)
{
	return !strcmp(bdev->name, name) || (bdev->alias[0] && !strcmp(bdev->alias, name)) ||
	       !strcasecmp(uuid, name);
}

static void sub_bdev_registered(struct nvmf_subsystem *sub, struct bdev *bdev, const char *uuid)
{
	unsigned left = sub->nr_namespaces;

	for (uint32_t nsid = 1; nsid <= sub->max_namespaces && left; nsid++) {
		struct nvmf_ns *ns = sub->ns[nsid];

		if (!ns)
			continue;
		left--;
		if (!ns->desc && bdev_is_called(bdev, uuid, ns->bdev_name))
			event_start(ns, ns_bdev_came);
	}
}

void nvmf_ns_bdev_registered(struct nvmf_target *target, struct bdev *bdev)
{
	char uuid[UUID_STR_LEN];
	struct list *it;

	if (target->stopping)
		return;
	uuid_unparse_lower(bdev->uuid, uuid);
	list_for_each(it, &target->subsystems) {
		struct nvmf_subsystem *sub = list_entry(it, struct nvmf_subsystem, link);

		if (sub->nr_waiting)
			sub_bdev_registered(sub, bdev, uuid);
	}
}

/* --- management ---------------------------------------------------------------------------- */

static uint32_t lowest_free_nsid(const struct nvmf_subsystem *sub)
{
	for (uint32_t nsid = 1; nsid <= sub->max_namespaces; nsid++) {
		if (!sub->ns[nsid])
			return nsid;
	}
	return 0;
}

static struct nvmf_ns *ns_alloc(struct nvmf_subsystem *sub, uint32_t nsid, const struct nvmf_ns_opts *opts)
{
	struct nvmf_ns *ns = calloc(1, sizeof(*ns));

	if (!ns)
		return NULL;
	ns->id = next_id++;
	ns->subsystem = sub;
	ns->nsid = nsid;
	snprintf(ns->bdev_name, sizeof(ns->bdev_name), "%s", opts->bdev_name);
	uuid_copy(ns->bdev_uuid, opts->bdev_uuid);
	uuid_copy(ns->uuid, opts->uuid);
	memcpy(ns->nguid, opts->nguid, sizeof(ns->nguid));
	memcpy(ns->eui64, opts->eui64, sizeof(ns->eui64));
	ns->uuid_given = !uuid_is_null(ns->uuid);
	ns->nguid_given = !is_zero(ns->nguid, sizeof(ns->nguid));
	ns->eui64_given = !is_zero(ns->eui64, sizeof(ns->eui64));
	ns->anagrpid = opts->anagrpid ? opts->anagrpid : 1;
	return ns;
}

static void ns_list(struct nvmf_ns *ns)
{
	ns->subsystem->ns[ns->nsid] = ns;
	ns->subsystem->nr_namespaces++;
	ns->subsystem->nr_waiting += !ns->desc;
}

fiber_fn static int add_ns(struct nvmf_subsystem *sub, uint32_t nsid, const struct nvmf_ns_opts *opts)
{
	struct bdev *bdev = bdev_find(opts->bdev_name);
	struct nvmf_ns *ns;
	int rc;

	if (!bdev && !opts->wait_for_bdev)
		return -ENODEV;
	ns = ns_alloc(sub, nsid, opts);
	if (!ns)
		return -ENOMEM;
	if (ids_collide(sub, ns)) {
		free(ns);
		return -EEXIST;
	}
	if (bdev && !is_wanted(ns, bdev)) {
		if (!opts->wait_for_bdev) {
			free(ns);
			return -ESTALE;
		}
		bdev = NULL;
	}
	/* Listed before it is attached: the bdev may go while groups are told. */
	ns_list(ns);
	if (!bdev)
		return 0;
	rc = ns_attach(ns, bdev);
	if (rc) {
		sub->ns[nsid] = NULL;
		sub->nr_namespaces--;
		sub->nr_waiting--;
		free(ns);
	}
	return rc;
}

fiber_fn int nvmf_subsystem_add_ns(struct nvmf_subsystem *sub, const struct nvmf_ns_opts *opts,
				   uint32_t *ret_nsid)
{
	struct nvmf_target *target = sub->target;
	uint32_t nsid = opts->nsid;
	int rc;

	if (sub->discovery || nsid > sub->max_namespaces || strlen(opts->bdev_name) >= BDEV_NAME_MAX)
		return -EINVAL;
	rc = nvmf_subsystem_lock(sub);
	if (rc)
		return rc;
	if (!nsid)
		nsid = lowest_free_nsid(sub);
	if (!nsid)
		rc = -ENOSPC;
	else if (sub->ns[nsid])
		rc = -EEXIST;
	else
		rc = add_ns(sub, nsid, opts);
	fiber_unlock(&target->config);
	if (!rc && ret_nsid)
		*ret_nsid = nsid;
	return rc;
}

fiber_fn static void ns_delete(struct nvmf_ns *ns)
{
	struct nvmf_subsystem *sub = ns->subsystem;

	if (ns->desc) {
		nvmf_groups_remove_ns(ns);
		bdev_close(ns->desc);
	} else {
		sub->nr_waiting--;
	}
	sub->ns[ns->nsid] = NULL;
	atomic_store(&sub->error_recovery[ns->nsid], 0);
	sub->nr_namespaces--;
	free(ns);
}

fiber_fn int nvmf_subsystem_remove_ns(struct nvmf_subsystem *sub, uint32_t nsid)
{
	struct nvmf_target *target = sub->target;
	struct nvmf_ns *ns;

	if (!nsid || nsid > sub->max_namespaces || nvmf_subsystem_lock(sub))
		return -ENOENT;
	ns = sub->ns[nsid];
	if (ns)
		ns_delete(ns);
	fiber_unlock(&target->config);
	return ns ? 0 : -ENOENT;
}

fiber_fn void nvmf_ns_remove_all(struct nvmf_subsystem *sub)
{
	for (uint32_t nsid = 1; nsid <= sub->max_namespaces; nsid++) {
		if (sub->ns[nsid])
			ns_delete(sub->ns[nsid]);
	}
}

int nvmf_subsystem_next_ns(struct nvmf_subsystem *sub, uint32_t after, struct nvmf_ns_info *ret_info)
{
	const struct nvmf_ns *ns = NULL;

	while (after < sub->max_namespaces && !ns)
		ns = sub->ns[++after];
	if (!ns)
		return -ENOENT;
	*ret_info = (struct nvmf_ns_info){
		.nsid = ns->nsid,
		.bdev_name = ns->bdev ? ns->bdev->name : ns->bdev_name,
		.present = ns->desc != NULL,
		.uuid_given = ns->uuid_given,
		.nguid_given = ns->nguid_given,
		.eui64_given = ns->eui64_given,
		.anagrpid = ns->anagrpid,
	};
	uuid_copy(ret_info->uuid, ns->uuid);
	memcpy(ret_info->nguid, ns->nguid, sizeof(ns->nguid));
	memcpy(ret_info->eui64, ns->eui64, sizeof(ns->eui64));
	return 0;
}
