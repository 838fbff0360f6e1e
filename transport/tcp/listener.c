/*
 * Listeners: connections are accepted on the app thread, and each is sent to the poll group that nvmf picks, where it lives.
 *
 * A listener outlives its closing until the last connection that came in by it is gone, because that is how nvmf tells which
 * listener a connection belongs to.
 */
#include <errno.h>
#include <stdlib.h>

#include "transport/tcp/internal.h"

/* On its way from the app thread to the group's. */
struct arrival {
	struct tcp_group *group;
	struct tcp_listener *listener;
	struct stream *stream;
};

void listener_put(struct tcp_listener *listener)
{
	if (atomic_fetch_sub(&listener->refs, 1) == 1)
		free(listener);
}

static void arrive(void *arg)
{
	struct arrival *arrival = arg;

	conn_start(arrival->group, arrival->listener, arrival->stream);
	free(arrival);
}

static void accepted(void *arg, struct stream *stream)
{
	struct tcp_listener *listener = arg;
	struct nvmf_group *group = nvmf_target_pick_group(listener->target);
	struct arrival *arrival = group ? malloc(sizeof(*arrival)) : NULL;

	if (!arrival) {
		log_warning("a connection is refused: %s", group ? "no memory" : "no poll group");
		stream_close(stream, true);
		return;
	}
	atomic_fetch_add(&listener->refs, 1);
	arrival->group = nvmf_group_transport(group, &tcp_transport_ops);
	arrival->listener = listener;
	arrival->stream = stream;
	thread_send(nvmf_group_thread(group), arrive, arrival);
}

fiber_fn int listener_listen(const struct nvmf_listen_opts *opts, struct nvmf_target *target, void **ret_listener)
{
	struct tcp_listener *listener = calloc(1, sizeof(*listener));
	int rc;

	if (!listener)
		return -ENOMEM;
	listener->target = target;
	atomic_store(&listener->refs, 1);
	rc = stream_listen(&opts->addr, opts->backlog, accepted, listener, &listener->stream_listener);
	if (rc) {
		free(listener);
		return rc;
	}
	*ret_listener = listener;
	return 0;
}

fiber_fn void listener_stop(void *arg)
{
	struct tcp_listener *listener = arg;

	stream_listener_close(listener->stream_listener);
	listener->stream_listener = NULL;
	listener_put(listener);
}
