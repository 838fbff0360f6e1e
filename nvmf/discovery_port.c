/*
 * The discovery port: beside the listeners on an address discovery is answered on port 8009, from the first of them until the
 * last is gone.
 *
 * A port that is another's does not keep a listener from its work, since any listener answers discovery; it is tried again
 * with each change of the listeners, and every few seconds.
 *
 * All of it runs on the app thread, under target->config.
 */
#include <stdlib.h>
#include <string.h>

#include "nvmf/internal.h"

#define RETRY_PERIOD_US 5000000u

static bool wants_port(const struct nvmf_target *target, const struct nvmf_sub_listener *sl)
{
	return !target->no_discovery_port && sl->listener->transport->ops->discovery_port &&
	       sl->listener->addr.port != target->discovery_port;
}

/* Opens, or shares, discovery beside @sl. */
fiber_fn static int port_open(struct nvmf_target *target, struct nvmf_sub_listener *sl)
{
	struct nvmf_subsystem *discovery = target->discovery;
	struct stream_addr addr = sl->listener->addr;
	struct nvmf_sub_listener *own;
	struct nvmf_listener *listener;
	int rc;

	addr.port = target->discovery_port;
	rc = nvmf_listener_open(target, sl->listener->transport, &addr, &listener);
	if (rc)
		return rc;
	if (!nvmf_sub_listener_find(discovery, listener)) {
		own = calloc(1, sizeof(*own));
		if (!own) {
			nvmf_listener_close(listener);
			return -ENOMEM;
		}
		own->listener = listener;
		list_add_tail(&discovery->listeners, &own->link);
	}
	sl->discovery = listener;
	return 0;
}

/* Whether the log says already that this address has no discovery. */
static bool is_known(const struct nvmf_target *target, const struct stream_addr *addr)
{
	struct list *it;

	list_for_each(it, &target->listeners) {
		const struct nvmf_listener *listener = list_entry(it, struct nvmf_listener, link);

		if (listener->lacks_discovery && listener->addr.family == addr->family &&
		    !strcmp(listener->addr.host, addr->host))
			return true;
	}
	return false;
}

static void port_opened(struct nvmf_target *target, struct nvmf_sub_listener *sl)
{
	if (!sl->listener->lacks_discovery)
		return;
	sl->listener->lacks_discovery = false;
	if (sl->discovery->nr_users == 1)
		log_notice("discovery is offered on %s port %u now", sl->listener->addr.host, target->discovery_port);
}

static void port_failed(struct nvmf_target *target, struct nvmf_sub_listener *sl, int rc)
{
	const struct stream_addr *addr = &sl->listener->addr;

	if (!is_known(target, addr))
		log_warning("discovery is not offered on %s port %u: %s; it is answered on port %u, and the port will "
			    "be tried again",
			    addr->host, target->discovery_port, strerror(-rc), addr->port);
	sl->listener->lacks_discovery = true;
	if (!timer_armed(&target->discovery_timer))
		timer_arm(&target->discovery_timer, RETRY_PERIOD_US);
}

fiber_fn void nvmf_discovery_port_open(struct nvmf_target *target, struct nvmf_sub_listener *sl)
{
	int rc;

	if (!wants_port(target, sl))
		return;
	rc = port_open(target, sl);
	if (rc)
		port_failed(target, sl, rc);
	else
		port_opened(target, sl);
}

fiber_fn void nvmf_discovery_port_close(struct nvmf_target *target, struct nvmf_listener *listener)
{
	struct nvmf_sub_listener *own;

	if (!listener)
		return;
	own = nvmf_sub_listener_find(target->discovery, listener);
	if (listener->nr_users == 1 && own) {
		list_del(&own->link);
		free(own);
	}
	nvmf_listener_close(listener);
}

/* Whether any of them still lacks it afterwards. */
fiber_fn static bool retry_subsystem(struct nvmf_subsystem *sub)
{
	bool lacking = false;
	struct list *it;

	list_for_each(it, &sub->listeners) {
		struct nvmf_sub_listener *sl = list_entry(it, struct nvmf_sub_listener, link);

		if (!sl->discovery)
			nvmf_discovery_port_open(sub->target, sl);
		lacking |= !sl->discovery && wants_port(sub->target, sl);
	}
	return lacking;
}

fiber_fn void nvmf_discovery_ports_retry(struct nvmf_target *target)
{
	bool lacking = false;
	struct list *it;

	if (!timer_armed(&target->discovery_timer) || target->stopping)
		return;
	list_for_each(it, &target->subsystems) {
		struct nvmf_subsystem *sub = list_entry(it, struct nvmf_subsystem, link);

		if (!sub->discovery)
			lacking |= retry_subsystem(sub);
	}
	if (!lacking)
		timer_cancel(&target->discovery_timer);
}

fiber_fn static void retry_fiber(void *arg)
{
	struct nvmf_target *target = arg;

	fiber_lock(&target->config);
	if (!target->stopping) {
		timer_arm(&target->discovery_timer, RETRY_PERIOD_US);
		nvmf_discovery_ports_retry(target);
	}
	fiber_unlock(&target->config);
	nvmf_target_event_over(target);
}

static void retry(void *arg)
{
	struct nvmf_target *target = arg;

	target->nr_events++;
	if (fiber_spawn(runtime_app_thread(), "nvmf_discovery_retry", retry_fiber, target)) {
		timer_arm(&target->discovery_timer, RETRY_PERIOD_US);
		nvmf_target_event_over(target);
	}
}

void nvmf_discovery_ports_init(struct nvmf_target *target)
{
	timer_init(&target->discovery_timer, retry, target);
}
