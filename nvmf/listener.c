/*
 * Listeners: the addresses a subsystem is reached by.  A transport's listener is shared by all subsystems on
 * its address, and the first on an address opens the discovery port beside it (discovery_port.c).
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvmf/internal.h"

static bool addr_equal(const struct stream_addr *a, const struct stream_addr *b)
{
	return a->port == b->port && a->family == b->family && !strcmp(a->host, b->host);
}

/* Brings the host into its one numeric form, so that equal addresses are equal. */
static int addr_normalise(const struct stream_addr *addr, struct stream_addr *ret_addr)
{
	uint8_t raw[16];

	*ret_addr = *addr;
	if (addr->family != AF_INET && addr->family != AF_INET6)
		return -EINVAL;
	if (!addr->port || inet_pton(addr->family, addr->host, raw) != 1)
		return -EINVAL;
	inet_ntop(addr->family, raw, ret_addr->host, sizeof(ret_addr->host));
	return 0;
}

static struct nvmf_listener *listener_find(struct nvmf_target *target, const struct nvmf_transport *transport,
					   const struct stream_addr *addr)
{
	struct list *it;

	list_for_each(it, &target->listeners) {
		struct nvmf_listener *listener = list_entry(it, struct nvmf_listener, link);

		if (listener->transport == transport && addr_equal(&listener->addr, addr))
			return listener;
	}
	return NULL;
}

struct nvmf_listener *nvmf_listener_by_handle(struct nvmf_target *target,
					      const struct nvmf_transport_ops *ops, void *handle)
{
	struct list *it;

	list_for_each(it, &target->listeners) {
		struct nvmf_listener *listener = list_entry(it, struct nvmf_listener, link);

		if (listener->transport->ops == ops && listener->handle == handle)
			return listener;
	}
	return NULL;
}

fiber_fn int nvmf_listener_open(struct nvmf_target *target, struct nvmf_transport *transport,
				  const struct stream_addr *addr, struct nvmf_listener **ret_listener)
{
	struct nvmf_listener *listener = listener_find(target, transport, addr);
	struct nvmf_listen_opts opts = { .addr = *addr, .backlog = (int)transport->opts.acceptor_backlog };
	int rc;

	if (listener) {
		listener->nr_users++;
		*ret_listener = listener;
		return 0;
	}
	listener = calloc(1, sizeof(*listener));
	if (!listener)
		return -ENOMEM;
	listener->transport = transport;
	listener->addr = *addr;
	listener->nr_users = 1;
	rc = transport->ops->listen(&opts, target, &listener->handle);
	if (rc) {
		free(listener);
		return rc;
	}
	listener->portid = target->next_portid++;
	list_add_tail(&target->listeners, &listener->link);
	*ret_listener = listener;
	return 0;
}

fiber_fn void nvmf_listener_close(struct nvmf_listener *listener)
{
	if (--listener->nr_users)
		return;
	list_del(&listener->link);
	listener->transport->ops->stop_listen(listener->handle);
	free(listener);
}

struct nvmf_sub_listener *nvmf_sub_listener_find(const struct nvmf_subsystem *sub,
						 const struct nvmf_listener *listener)
{
	struct list *it;

	list_for_each(it, &sub->listeners) {
		struct nvmf_sub_listener *sl = list_entry(it, struct nvmf_sub_listener, link);

		if (sl->listener == listener)
			return sl;
	}
	return NULL;
}

bool nvmf_subsystem_listens(const struct nvmf_subsystem *sub, const struct nvmf_listener *listener)
{
	return listener && (sub->discovery || nvmf_sub_listener_find(sub, listener));
}

/* --- a subsystem's ------------------------------------------------------------------------- */

fiber_fn static int add_listener(struct nvmf_subsystem *sub, struct nvmf_transport *transport,
				 const struct stream_addr *addr)
{
	struct nvmf_target *target = sub->target;
	struct nvmf_listener *listener = listener_find(target, transport, addr);
	struct nvmf_sub_listener *sl;
	int rc;

	if (target->stopping)
		return -EBUSY;
	if (listener && nvmf_sub_listener_find(sub, listener))
		return -EEXIST;
	sl = calloc(1, sizeof(*sl));
	if (!sl)
		return -ENOMEM;
	rc = nvmf_listener_open(target, transport, addr, &sl->listener);
	if (rc) {
		free(sl);
		return rc;
	}
	list_add_tail(&sub->listeners, &sl->link);
	if (!sub->discovery)
		nvmf_discovery_port_open(target, sl);
	nvmf_discovery_ports_retry(target);
	nvmf_discovery_changed(sub, nvmf_subsystem_allows);
	return 0;
}

fiber_fn int nvmf_subsystem_add_listener(struct nvmf_subsystem *sub, const char *trtype,
					 const struct stream_addr *addr)
{
	struct nvmf_target *target = sub->target;
	struct nvmf_transport *transport = nvmf_transport_find(target, trtype);
	struct stream_addr norm;
	int rc;

	if (!transport || !transport->created)
		return -ENOENT;
	rc = addr_normalise(addr, &norm);
	if (!rc)
		rc = nvmf_subsystem_lock(sub);
	if (rc)
		return rc;
	rc = add_listener(sub, transport, &norm);
	fiber_unlock(&target->config);
	return rc;
}

static bool ctrlr_came_by(struct nvmf_ctrlr *ctrlr, void *arg)
{
	return ctrlr->listener == arg;
}

fiber_fn static void remove_listener(struct nvmf_subsystem *sub, struct nvmf_sub_listener *sl)
{
	struct nvmf_listener *listener = sl->listener, *discovery = sl->discovery;

	nvmf_discovery_changed(sub, nvmf_subsystem_allows);
	list_del(&sl->link);
	free(sl);
	if (!sub->discovery)
		nvmf_subsystem_end_ctrlrs(sub, ctrlr_came_by, listener);
	nvmf_discovery_port_close(sub->target, discovery);
	nvmf_listener_close(listener);
	nvmf_discovery_ports_retry(sub->target);
}

fiber_fn int nvmf_subsystem_remove_listener(struct nvmf_subsystem *sub, const char *trtype,
					    const struct stream_addr *addr)
{
	struct nvmf_target *target = sub->target;
	struct nvmf_transport *transport = nvmf_transport_find(target, trtype);
	struct nvmf_listener *listener;
	struct nvmf_sub_listener *sl = NULL;
	struct stream_addr norm;

	if (!transport || addr_normalise(addr, &norm) || nvmf_subsystem_lock(sub))
		return -ENOENT;
	listener = listener_find(target, transport, &norm);
	if (listener)
		sl = nvmf_sub_listener_find(sub, listener);
	if (sl)
		remove_listener(sub, sl);
	fiber_unlock(&target->config);
	return sl ? 0 : -ENOENT;
}

fiber_fn void nvmf_listeners_remove_all(struct nvmf_subsystem *sub)
{
	struct list *it;

	/* What is left of the discovery subsystem's belongs to others: it goes with theirs. */
	if (sub->discovery && !sub->deleting)
		return;
	while ((it = list_first(&sub->listeners)))
		remove_listener(sub, list_entry(it, struct nvmf_sub_listener, link));
}

int nvmf_subsystem_listener(struct nvmf_subsystem *sub, unsigned idx, struct nvmf_listener_info *ret_info)
{
	struct list *it;

	list_for_each(it, &sub->listeners) {
		struct nvmf_sub_listener *sl = list_entry(it, struct nvmf_sub_listener, link);

		if (idx--)
			continue;
		*ret_info = (struct nvmf_listener_info){
			.trtype = sl->listener->transport->ops->name,
			.addr = sl->listener->addr,
		};
		return 0;
	}
	return -ENOENT;
}
