/* The target: what owns everything, made when the daemon starts and ended, in order, when it stops. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "nvmf/internal.h"

#define THERMOMETER_PERIOD_US 10000000u

/* Targets of this process, for the bdevs that come. */
static struct list targets = LIST_INIT(targets);

static void bdev_registered(struct bdev *bdev, void *arg)
{
	struct list *it;

	list_for_each(it, &targets)
		nvmf_ns_bdev_registered(list_entry(it, struct nvmf_target, link), bdev);
}

static enum poll_result read_thermometer(void *arg)
{
	struct nvmf_target *target = arg;

	atomic_store_explicit(&target->temperature_k, nvmf_pool_temperature_k(), memory_order_relaxed);
	return POLL_IDLE;
}

static void target_free(struct nvmf_target *target)
{
	for (unsigned i = 0; i < target->nr_groups; i++)
		nvmf_group_destroy(target->groups[i]);
	free(target);
}

/* Each group may have one request that holds some of its buffers while it waits for the rest: all of them
 * must get theirs. */
static int check_pool(unsigned nr_groups)
{
	unsigned need = nr_groups * (NVMF_MAX_XFER / IOBUF_LARGE_SIZE);
	struct iobuf_stats stats;

	iobuf_get_stats(&stats);
	if (stats.nr_large >= need)
		return 0;
	log_error("%u cores need %u large buffers of %u KiB at least, the pool has %llu: give more memory",
		  nr_groups, need, IOBUF_LARGE_SIZE / 1024, (unsigned long long)stats.nr_large);
	return -ENOMEM;
}

static int target_start_groups(struct nvmf_target *target)
{
	unsigned nr = runtime_nr_reactors();
	int rc = check_pool(nr < NVMF_MAX_GROUPS ? nr : NVMF_MAX_GROUPS);

	for (unsigned i = 0; i < nr && i < NVMF_MAX_GROUPS && !rc; i++) {
		rc = nvmf_group_create(target, i, &target->groups[i]);
		if (!rc)
			target->nr_groups++;
	}
	return rc;
}

void nvmf_target_event_over(struct nvmf_target *target)
{
	if (!--target->nr_events)
		fiber_cond_broadcast(&target->events_over);
}

fiber_fn int nvmf_target_create(const struct nvmf_target_opts *opts, struct nvmf_target **ret_target)
{
	static bool watching;
	struct nvmf_subsystem_opts discovery = { .nqn = NVMF_DISCOVERY_NQN,
						 .allow_any_host = true,
						 .max_namespaces = 1 };
	struct nvmf_target *target = calloc(1, sizeof(*target));
	int rc;

	if (!target)
		return -ENOMEM;
	snprintf(target->model, sizeof(target->model), "%s", opts->model ? opts->model : "Ferrule");
	target->discovery_port = opts->discovery_port ? opts->discovery_port : NVMF_DISCOVERY_PORT;
	target->no_discovery_port = opts->no_discovery_port;
	target->connect_timeout_us = (opts->connect_timeout_ms ? opts->connect_timeout_ms : 15000) * 1000ull;
	target->start_us = clock_now_us();
	target->genctr = 1;
	target->next_portid = 1;
	fiber_mutex_init(&target->config);
	fiber_cond_init(&target->events_over);
	nvmf_discovery_ports_init(target);
	list_init(&target->subsystems);
	list_init(&target->listeners);
	rc = target_start_groups(target);
	if (!rc)
		rc = nvmf_subsystem_create_locked(target, &discovery, true, &target->discovery);
	if (rc) {
		target_free(target);
		return rc;
	}
	target->thermometer =
		poller_start("nvmf_thermometer", read_thermometer, target, THERMOMETER_PERIOD_US);
	if (!target->thermometer)
		log_warning("no memory to watch the temperature: hosts get no events about it");
	list_add_tail(&targets, &target->link);
	if (!watching) {
		watching = true;
		bdev_on_register(bdev_registered, NULL);
	}
	*ret_target = target;
	return 0;
}

fiber_fn void nvmf_target_destroy(struct nvmf_target *target)
{
	struct list *it;

	if (!target)
		return;
	list_del(&target->link);
	target->stopping = true;
	if (target->thermometer)
		poller_stop(target->thermometer);
	timer_cancel(&target->discovery_timer);
	while (target->nr_events)
		fiber_cond_wait(&target->events_over);
	fiber_lock(&target->config);
	/* First nobody new, everywhere; then one subsystem after the other. */
	list_for_each(it, &target->subsystems)
		nvmf_listeners_remove_all(list_entry(it, struct nvmf_subsystem, link));
	while ((it = target->subsystems.prev) != &target->subsystems)
		nvmf_subsystem_delete_locked(list_entry(it, struct nvmf_subsystem, link));
	fiber_unlock(&target->config);
	target_free(target);
}

void nvmf_target_on_ns_gone(struct nvmf_target *target, nvmf_ns_gone_fn fn, void *arg)
{
	target->ns_gone = fn;
	target->ns_gone_arg = arg;
}

/* --- transports ---------------------------------------------------------------------------- */

struct nvmf_transport *nvmf_transport_find(struct nvmf_target *target, const char *trtype)
{
	for (unsigned i = 0; i < target->nr_transports; i++) {
		if (!strcasecmp(target->transports[i].ops->name, trtype))
			return &target->transports[i];
	}
	return NULL;
}

int nvmf_target_register_transport(struct nvmf_target *target, const struct nvmf_transport_ops *ops)
{
	if (nvmf_transport_find(target, ops->name))
		return -EEXIST;
	if (target->nr_transports == NVMF_MAX_TRANSPORTS)
		return -ENOSPC;
	target->transports[target->nr_transports++].ops = ops;
	return 0;
}

int nvmf_transport_default_opts(struct nvmf_target *target, const char *trtype,
				struct nvmf_transport_opts *ret_opts)
{
	struct nvmf_transport *transport = nvmf_transport_find(target, trtype);

	if (!transport)
		return -ENOENT;
	memset(ret_opts, 0, sizeof(*ret_opts));
	transport->ops->opts_default(ret_opts);
	return 0;
}

int nvmf_transport_check(struct nvmf_target *target, const char *trtype, const struct nvmf_transport_opts *opts, char *ret_why,
			 size_t size)
{
	struct nvmf_transport *transport = nvmf_transport_find(target, trtype);

	if (!transport)
		return -ENOENT;
	return transport->ops->check ? transport->ops->check(opts, ret_why, size) : 0;
}

static bool opts_are_valid(const struct nvmf_transport_opts *opts)
{
	return opts->max_queue_depth >= 2 && opts->max_queue_depth <= 4096 &&
	       opts->max_aq_depth >= NVME_ASQSZ_MIN && opts->max_aq_depth <= 4096 &&
	       opts->max_io_qpairs_per_ctrlr >= 1 && opts->max_io_qpairs_per_ctrlr <= NVMF_MAX_IO_QUEUES &&
	       opts->max_io_size >= NVMF_PAGE_SIZE && opts->max_io_size <= NVMF_MAX_XFER &&
	       (opts->max_io_size & (opts->max_io_size - 1)) == 0 &&
	       opts->in_capsule_data_size <= NVMF_MAX_CAPSULE_DATA && opts->in_capsule_data_size % 16 == 0;
}

struct tgroup_args {
	struct nvmf_group *group;
	unsigned idx;
};

static int tgroup_create(void *arg)
{
	struct tgroup_args *args = arg;
	const struct nvmf_transport_ops *ops = args->group->target->transports[args->idx].ops;

	return ops->group_create(args->group, &args->group->tgroups[args->idx]);
}

static int tgroup_destroy(void *arg)
{
	struct tgroup_args *args = arg;

	args->group->target->transports[args->idx].ops->group_destroy(args->group,
								      args->group->tgroups[args->idx]);
	args->group->tgroups[args->idx] = NULL;
	return 0;
}

fiber_fn int nvmf_transport_create(struct nvmf_target *target, const char *trtype,
				   const struct nvmf_transport_opts *opts)
{
	struct nvmf_transport *transport = nvmf_transport_find(target, trtype);
	struct tgroup_args args;
	unsigned i;
	int rc = 0;

	if (!transport)
		return -ENOENT;
	if (!opts_are_valid(opts))
		return -EINVAL;
	fiber_lock(&target->config);
	if (transport->created) {
		rc = -EEXIST;
		goto out;
	}
	transport->opts = *opts;
	args.idx = transport - target->transports;
	for (i = 0; i < target->nr_groups && !rc; i++) {
		args.group = target->groups[i];
		rc = thread_call(args.group->thread, tgroup_create, &args);
	}
	if (rc) {
		/* The last one failed: it has nothing to destroy. */
		for (i--; i-- > 0;) {
			args.group = target->groups[i];
			thread_call(args.group->thread, tgroup_destroy, &args);
		}
		goto out;
	}
	transport->created = true;
out:
	fiber_unlock(&target->config);
	return rc;
}

int nvmf_transport_info(struct nvmf_target *target, unsigned idx, struct nvmf_transport_info *ret_info)
{
	for (unsigned i = 0; i < target->nr_transports; i++) {
		struct nvmf_transport *transport = &target->transports[i];

		if (!transport->created || idx--)
			continue;
		*ret_info = (struct nvmf_transport_info){ .trtype = transport->ops->name,
							  .opts = &transport->opts };
		return 0;
	}
	return -ENOENT;
}

const struct nvmf_transport_opts *nvmf_target_transport_opts(struct nvmf_target *target,
							     const struct nvmf_transport_ops *ops)
{
	for (unsigned i = 0; i < target->nr_transports; i++) {
		if (target->transports[i].ops == ops)
			return &target->transports[i].opts;
	}
	return NULL;
}
