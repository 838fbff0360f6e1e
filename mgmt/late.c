/*
 * Late listeners: what a machine has no address or RDMA device for when the daemon starts, as when the network comes up after it,
 * is tried again until it is there, or is removed.
 */
#include "mgmt/late.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mgmt/rpc.h"
#include "mgmt/state.h"
#include "runtime/list.h"
#include "runtime/runtime.h"

#define RETRY_US 1000000u

struct late_listener {
	struct list link;
	char *nqn, *key;
	bool tried; /* in this round */
};

static struct {
	struct list all;
	struct fiber_cond wake;
	struct fiber_wait *ended; /* of who stops it */
	bool running;
} late = { .all = LIST_INIT(late.all) };

static void drop(struct late_listener *l)
{
	list_del(&l->link);
	free(l->nqn);
	free(l->key);
	free(l);
}

static struct late_listener *find(const char *nqn, const char *key)
{
	struct list *it;

	list_for_each(it, &late.all) {
		struct late_listener *l = list_entry(it, struct late_listener, link);

		if (!strcmp(l->nqn, nqn) && !strcmp(l->key, key))
			return l;
	}
	return NULL;
}

void late_note(const char *nqn, const char *key)
{
	struct late_listener *l = calloc(1, sizeof(*l));

	if (!l || !(l->nqn = strdup(nqn)) || !(l->key = strdup(key))) {
		if (l)
			free(l->nqn);
		free(l);
		log_error("no memory to try listener %s of %s again", key, nqn);
		return;
	}
	list_add_tail(&late.all, &l->link);
}

bool late_drop(const char *nqn, const char *key)
{
	struct late_listener *l = find(nqn, key);

	if (l)
		drop(l);
	return l;
}

/* --- trying again --------------------------------------------------------------------------------------------------- */

struct wanted {
	const struct late_listener *listener;
	char *method;
	json_t *params;
};

static void take_saved(void *arg, const char *parent, const char *name, const char *method, json_t *params)
{
	struct wanted *w = arg;

	if (strcmp(parent, w->listener->nqn) || strcmp(name, w->listener->key))
		return;
	w->method = strdup(method);
	w->params = json_deep_copy(params);
}

/* As a call that anybody makes: it waits for its turn among the changes.  A success drops it, in the call itself. */
static fiber_fn void try_again(const struct late_listener *l)
{
	struct wanted w = { .listener = l };
	char *name = strdup(l->key);

	rpc_saved_for_each(STATE_LISTENER, take_saved, &w);
	if (!w.method || !w.params) {
		late_drop(l->nqn, l->key); /* it went with its subsystem */
	} else if (!rpc_change(w.method, w.params)) {
		log_notice("listener %s is there at last", name ? name : "");
	}
	free(name);
	free(w.method);
}

static struct late_listener *next_untried(void)
{
	struct list *it;

	list_for_each(it, &late.all) {
		struct late_listener *l = list_entry(it, struct late_listener, link);

		if (!l->tried)
			return l;
	}
	return NULL;
}

static void late_main(void *arg)
{
	while (!late.ended && !list_empty(&late.all)) {
		struct late_listener *l;
		struct list *it;

		fiber_cond_timedwait(&late.wake, RETRY_US);
		list_for_each(it, &late.all)
			list_entry(it, struct late_listener, link)->tried = false;
		while (!late.ended && (l = next_untried())) {
			l->tried = true;
			try_again(l);
		}
	}
	late.running = false;
	if (late.ended)
		fiber_wake(late.ended, 0);
}

int late_start(void)
{
	late.ended = NULL;
	if (list_empty(&late.all))
		return 0;
	fiber_cond_init(&late.wake);
	late.running = true;
	if (!fiber_spawn(thread_current(), "late-listeners", late_main, NULL))
		return 0;
	late.running = false;
	return -ENOMEM;
}

fiber_fn void late_stop(void)
{
	struct fiber_wait ended;

	if (late.running) {
		fiber_wait_init(&ended);
		late.ended = &ended;
		fiber_cond_signal(&late.wake);
		fiber_wait(&ended);
	}
	while (!list_empty(&late.all))
		drop(list_entry(list_first(&late.all), struct late_listener, link));
}
