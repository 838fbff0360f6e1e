/*
 * Drives that were pulled out: what they were attached with is kept, and each is looked for again and again until it is back, or
 * until it is detached, there or not.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/nvme_internal.h"
#include "nvme/bar.h"

/* What to attach again when it is back.  Owner: app thread. */
struct removed_path {
	struct list link;
	struct bdev_nvme_attach_opts opts;
	char name[BDEV_NAME_MAX];
	bool forgotten; /* while it was being tried */
};

static struct list removed_paths = LIST_INIT(removed_paths);
static struct removed_path *trying;
static bool hotplug = true, hotplug_running;
static uint64_t hotplug_period_us = 1000000;
static struct timer hotplug_timer;

static void hotplug_due(void *arg);

static void hotplug_arm(void)
{
	if (!hotplug || list_empty(&removed_paths) || hotplug_running)
		return;
	timer_cancel(&hotplug_timer);
	timer_init(&hotplug_timer, hotplug_due, NULL);
	timer_arm(&hotplug_timer, hotplug_period_us);
}

void bdev_nvme_remember_removed(const struct bdev_nvme_path *path)
{
	struct removed_path *r = calloc(1, sizeof(*r));

	if (!r)
		return;
	r->opts = path->opts;
	snprintf(r->name, sizeof(r->name), "%s", path->name);
	r->opts.name = r->name;
	r->opts.background = false;
	list_add_tail(&removed_paths, &r->link);
	hotplug_arm();
}

static void forget(struct removed_path *r)
{
	list_del(&r->link);
	free(r);
}

unsigned bdev_nvme_forget_removed(const char *name, const struct bdev_nvme_path_match *match)
{
	struct list *it, *tmp;
	unsigned nr = 0;

	list_for_each_safe(it, tmp, &removed_paths) {
		struct removed_path *r = list_entry(it, struct removed_path, link);

		if (strcmp(r->name, name) || !bdev_nvme_opts_match(&r->opts, match))
			continue;
		nr++;
		if (r == trying)
			r->forgotten = true;
		else
			forget(r);
	}
	return nr;
}

/* Return: whether it is back, or nobody asks for it any more. */
static fiber_fn bool try_once(struct removed_path *r)
{
	struct bdev_nvme_ctrlr *ctrlr = bdev_nvme_find(r->name);
	struct nvme_bar *bar;
	struct nvme_error error;
	int rc;

	if (ctrlr && ctrlr->ending)
		return false;
	/* Cheap, and quiet, while there is no such function. */
	rc = r->opts.bar_open(r->opts.address, r->opts.bar_arg, &bar, &error);
	if (rc)
		return false;
	bar->ops->close(bar);
	rc = bdev_nvme_attach(&r->opts, &error);
	if (!r->forgotten && (!rc || rc == -EEXIST))
		log_notice("%s: %s is back", r->name, r->opts.address);
	return r->forgotten || !rc || rc == -EEXIST;
}

/* Tries each once; those that are not back stay. */
static fiber_fn void hotplug_look(void *arg)
{
	unsigned nr = 0;
	struct list *it;

	list_for_each(it, &removed_paths)
		nr++;
	while (nr-- && hotplug && !list_empty(&removed_paths)) {
		struct list *l = list_pop(&removed_paths);

		list_add_tail(&removed_paths, l);
		trying = list_entry(l, struct removed_path, link);
		if (try_once(trying))
			forget(trying);
		trying = NULL;
	}
	hotplug_running = false;
	hotplug_arm();
}

static void hotplug_due(void *arg)
{
	hotplug_running = true;
	if (fiber_spawn(runtime_app_thread(), "nvme-hotplug", hotplug_look, NULL)) {
		hotplug_running = false;
		hotplug_arm();
	}
}

void bdev_nvme_set_hotplug(bool enable, uint64_t period_us)
{
	hotplug = enable;
	if (period_us)
		hotplug_period_us = period_us;
	if (!enable)
		timer_cancel(&hotplug_timer);
	hotplug_arm();
}

fiber_fn bool bdev_nvme_hotplug_stop(void)
{
	bool was = hotplug;

	hotplug = false;
	timer_cancel(&hotplug_timer);
	while (hotplug_running)
		fiber_sleep(1000);
	while (!list_empty(&removed_paths))
		forget(list_entry(removed_paths.next, struct removed_path, link));
	return was;
}
