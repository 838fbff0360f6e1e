/*
 * The table of management methods, and how calls are run: those that change the configuration one after another in order
 * of arrival by one fiber (but those about different things alone, side by side), all others each in a fiber of its own.
 *
 * A change that has run gives way to the next while its line of the saved state is on its way to the disk, so that many
 * calls share one sync; it is answered when that has come back.
 */
#include "mgmt/rpc.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/nvme.h"
#include "runtime/runtime.h"

#define MAX_TABLES 32
#define MAX_SIDE   64u

/* Owner: the app thread. */
static struct {
	const struct rpc_method *tables[MAX_TABLES];
	unsigned nr_tables;
	json_t *by_name; /* name -> address as an integer */
	struct state *state;
	struct list changes; /* calls waiting for the fiber that runs them */
	struct fiber_cond wake;
	struct list side; /* changes that run beside each other */
	unsigned nr_side;
	struct fiber_cond side_ended;
	unsigned nr_running;
	bool stopping;
	struct fiber_wait *idle;	  /* rpc_stop waits */
	struct fiber_wait *changes_ended; /* the changes fiber is to end */
} rpc;

/* --- the table ------------------------------------------------------------------------------------------------------ */

void rpc_register(const struct rpc_method *methods)
{
	if (!rpc.by_name)
		rpc.by_name = json_object();
	assert(rpc.nr_tables < MAX_TABLES && rpc.by_name);
	rpc.tables[rpc.nr_tables++] = methods;
	for (; methods->name; methods++)
		json_object_set_new(rpc.by_name, methods->name, json_integer((json_int_t)(uintptr_t)methods));
}

const struct rpc_method *rpc_find(const char *name)
{
	return (const void *)(uintptr_t)json_integer_value(json_object_get(rpc.by_name, name));
}

void rpc_for_each(void (*fn)(const struct rpc_method *method, void *arg), void *arg)
{
	for (unsigned i = 0; i < rpc.nr_tables; i++) {
		for (const struct rpc_method *m = rpc.tables[i]; m->name; m++) {
			if (!m->internal)
				fn(m, arg);
		}
	}
}

/* --- results -------------------------------------------------------------------------------------------------------- */

void rpc_ok(struct rpc_call *call, json_t *result)
{
	assert(!call->result && !call->error_code);
	call->result = result ? result : json_true();
}

bool rpc_failed(const struct rpc_call *call)
{
	return call->error_code != 0;
}

/* A name that was cut in the midst of a character would make the whole answer impossible: what is no character becomes '?'. */
static void repair_utf8(char *text)
{
	for (size_t left = strlen(text), n; left; text += n, left -= n) {
		n = nvme_utf8_char_len(text, left);
		if (!n) {
			*text = '?';
			n = 1;
		}
	}
}

static void set_error(struct rpc_call *call, int code, const char *message, const char *data_fmt, va_list ap)
{
	char detail[1024];

	json_decref(call->result);
	json_decref(call->error_data);
	free(call->result_text);
	call->result = call->error_data = NULL;
	call->result_text = NULL;
	call->error_code = code;
	snprintf(call->error_message, sizeof(call->error_message), "%s", message);
	repair_utf8(call->error_message);
	if (data_fmt) {
		vsnprintf(detail, sizeof(detail), data_fmt, ap);
		repair_utf8(detail);
		call->error_data = json_pack("{s:s}", "detail", detail);
	}
}

void rpc_fail(struct rpc_call *call, int code, const char *message, const char *data_fmt, ...)
{
	va_list ap;

	va_start(ap, data_fmt);
	set_error(call, code, message, data_fmt, ap);
	va_end(ap);
}

void rpc_fail_errno(struct rpc_call *call, int err, const char *data_fmt, ...)
{
	va_list ap;

	assert(err < 0);
	va_start(ap, data_fmt);
	set_error(call, err, strerror(-err), data_fmt, ap);
	va_end(ap);
}

void rpc_fail_param(struct rpc_call *call, const char *key, const char *data_fmt, ...)
{
	bool nvmf = call->method && call->method->style == RPC_DECODE_NVMF;
	va_list ap;

	va_start(ap, data_fmt);
	set_error(call, nvmf ? RPC_INVALID_PARAMS : RPC_INTERNAL_ERROR,
		  nvmf ? "Invalid parameters" : "spdk_json_decode_object failed", data_fmt, ap);
	va_end(ap);
	rpc_blame(call, key);
}

void rpc_blame(struct rpc_call *call, const char *key)
{
	char name[256];

	snprintf(name, sizeof(name), "%s", key);
	repair_utf8(name);
	if (!call->error_data)
		call->error_data = json_object();
	json_object_set_new(call->error_data, "parameter", json_string(name));
}

/* --- parameters ----------------------------------------------------------------------------------------------------- */

json_t *rpc_json(const struct rpc_call *call, const char *key)
{
	return json_object_get(call->params, key);
}

bool rpc_has(const struct rpc_call *call, const char *key)
{
	return rpc_json(call, key) != NULL;
}

const char *rpc_string(const struct rpc_call *call, const char *key, const char *fallback)
{
	json_t *v = rpc_json(call, key);

	return v ? json_string_value(v) : fallback;
}

bool rpc_bool(const struct rpc_call *call, const char *key, bool fallback)
{
	json_t *v = rpc_json(call, key);

	return v ? json_is_true(v) : fallback;
}

uint64_t rpc_u64(const struct rpc_call *call, const char *key, uint64_t fallback)
{
	json_t *v = rpc_json(call, key);

	return v ? (uint64_t)json_integer_value(v) : fallback;
}

int64_t rpc_i64(const struct rpc_call *call, const char *key, int64_t fallback)
{
	json_t *v = rpc_json(call, key);

	return v ? (int64_t)json_integer_value(v) : fallback;
}

/* --- what is saved -------------------------------------------------------------------------------------------------- */

static void add_change(struct rpc_call *call, json_t *change)
{
	if (!call->changes)
		call->changes = json_array();
	json_array_append_new(call->changes, change);
}

void rpc_save_as(struct rpc_call *call, const struct state_key *key, const char *method, json_t *params)
{
	if (call->replay || !rpc.state)
		json_decref(params);
	else
		add_change(call, json_pack("{s:[s,s,s],s:s,s:o}", "put", key->class, key->parent, key->name, "method", method,
					   "params", params));
}

void rpc_save(struct rpc_call *call, const char *class, const char *parent, const char *name)
{
	struct state_key key = { class, parent, name };

	rpc_save_as(call, &key, call->method->name, call->params ? json_incref(call->params) : json_null());
}

void rpc_forget(struct rpc_call *call, const char *class, const char *parent, const char *name)
{
	struct state_key key = { class, parent, name };

	if (!call->replay && rpc.state && state_has(rpc.state, &key))
		add_change(call, json_pack("{s:[s,s,s]}", "delete", class, parent, name));
}

struct forget {
	struct rpc_call *call;
	const char *class, *parent;
};

static void forget_child(void *arg, const char *parent, const char *name, const char *method, json_t *params)
{
	struct forget *f = arg;

	if (strcmp(parent, f->parent) == 0)
		add_change(f->call, json_pack("{s:[s,s,s]}", "delete", f->class, parent, name));
}

void rpc_forget_children(struct rpc_call *call, const char *class, const char *parent)
{
	struct forget f = { call, class, parent };

	if (!call->replay)
		rpc_saved_for_each(class, forget_child, &f);
}

void rpc_saved_for_each(const char *class,
			void (*fn)(void *arg, const char *parent, const char *name, const char *method, json_t *params),
			void *arg)
{
	if (rpc.state)
		state_for_each(rpc.state, class, fn, arg);
}

struct commit_wait {
	struct state_commit commit;
	struct fiber_wait wait;
};

static void commit_waited(struct state_commit *commit, int status)
{
	fiber_wake(&container_of(commit, struct commit_wait, commit)->wait, status);
}

fiber_fn int rpc_commit(struct rpc_call *call)
{
	struct commit_wait c = { .commit.done = commit_waited };
	int rc;

	if (!call->changes || !rpc.state)
		return 0;
	fiber_wait_init(&c.wait);
	state_append(rpc.state, call->changes, &c.commit);
	json_decref(call->changes);
	call->changes = NULL;
	rc = fiber_wait(&c.wait);
	return rc;
}

/* --- running -------------------------------------------------------------------------------------------------------- */

/* Decodes the parameters; false with the call failed. */
static bool prepare(struct rpc_call *call)
{
	const struct rpc_method *m = call->method;
	json_t *params = call->params;

	if (!m->params) {
		if (params && !json_is_null(params)) {
			char message[128];

			snprintf(message, sizeof(message), "%s requires no parameters", m->name);
			rpc_fail(call, RPC_INVALID_PARAMS, message, "leave params out");
			return false;
		}
		call->params = NULL;
		json_decref(params);
	} else {
		call->params = rpc_decode(call, params, m->params, NULL, m->unknown_ok);
		json_decref(params);
	}
	return !call->error_code;
}

static fiber_fn void handle(struct rpc_call *call)
{
	call->method->handler(call);
	assert(call->detached || call->result || call->result_text || call->error_code);
}

static fiber_fn void run_method(struct rpc_call *call)
{
	if (prepare(call))
		handle(call);
}

void rpc_detach(struct rpc_call *call)
{
	assert(call->method->changes && !call->replay && !call->changes);
	call->detached = true;
}

static void finish(struct rpc_call *call)
{
	if (--rpc.nr_running == 0 && rpc.idle)
		fiber_wake(rpc.idle, 0);
	call->done(call, call->arg);
}

void rpc_finish(struct rpc_call *call)
{
	assert(call->detached && (call->result || call->result_text || call->error_code));
	log_info("%s: %s", call->method->name, call->error_code ? call->error_message : "done");
	finish(call);
}

static void commit_done(struct state_commit *commit, int status)
{
	struct rpc_call *call = container_of(commit, struct rpc_call, commit);

	if (status && !call->error_code)
		rpc_fail_errno(call, status,
			       "the change is in effect but could not be saved: it is lost at the next start unless a later "
			       "change can be saved; see to the state folder");
	finish(call);
}

/* Of a call that is prepared. */
static fiber_fn void run_change(struct rpc_call *call)
{
	if (!call->error_code)
		handle(call);
	if (call->detached)
		return;
	log_info("%s: %s", call->method->name, call->error_code ? call->error_message : "done");
	/* What a method meant to save or forget goes for nothing when it failed. */
	if (call->changes && rpc.state && !call->error_code) {
		call->commit.done = commit_done;
		state_append(rpc.state, call->changes, &call->commit);
	} else {
		finish(call);
	}
}

/* A change that runs beside others.  Owner: its fiber. */
struct side_change {
	struct list link; /* rpc.side */
	struct rpc_call *call;
	char lane[RPC_LANE_MAX];
};

static fiber_fn void side_main(void *arg)
{
	struct side_change *side = arg;

	run_change(side->call);
	list_del(&side->link);
	rpc.nr_side--;
	free(side);
	fiber_cond_broadcast(&rpc.side_ended);
}

static bool lane_is_taken(const char *lane)
{
	struct list *e;

	list_for_each(e, &rpc.side) {
		if (strcmp(list_entry(e, struct side_change, link)->lane, lane) == 0)
			return true;
	}
	return false;
}

/* Begins a change beside those that run, once none of them is about the same; false: it is to run alone. */
static fiber_fn bool run_beside(struct rpc_call *call)
{
	struct side_change *side = call->method->lane && !call->error_code ? calloc(1, sizeof(*side)) : NULL;

	if (!side)
		return false;
	call->method->lane(call, side->lane);
	while (side->lane[0] && (rpc.nr_side == MAX_SIDE || lane_is_taken(side->lane)))
		fiber_cond_wait(&rpc.side_ended);
	side->call = call;
	if (!side->lane[0] || fiber_spawn(thread_current(), call->method->name, side_main, side)) {
		free(side);
		return false;
	}
	list_add_tail(&rpc.side, &side->link);
	rpc.nr_side++;
	return true;
}

static fiber_fn void changes_main(void *arg)
{
	struct rpc_call *call;
	struct list *e;

	while (!rpc.changes_ended) {
		e = list_pop(&rpc.changes);
		if (!e) {
			fiber_cond_wait(&rpc.wake);
			continue;
		}
		call = list_entry(e, struct rpc_call, link);
		if (call->error_code) { /* there was no memory to answer it elsewhere */
			finish(call);
			continue;
		}
		if (prepare(call) && run_beside(call))
			continue;
		while (rpc.nr_side)
			fiber_cond_wait(&rpc.side_ended);
		run_change(call);
	}
	fiber_wake(rpc.changes_ended, 0);
}

static fiber_fn void call_main(void *arg)
{
	struct rpc_call *call = arg;

	if (call->method && !call->error_code)
		run_method(call);
	finish(call);
}

void rpc_submit(struct rpc_call *call, const char *name, json_t *params, void (*done)(struct rpc_call *call, void *arg),
		void *arg)
{
	call->method = rpc_find(name);
	call->params = params;
	call->done = done;
	call->arg = arg;
	rpc.nr_running++;
	if (!call->method)
		rpc_fail(call, RPC_METHOD_NOT_FOUND, "Method not found", "there is no method %.100s; rpc_get_methods lists them",
			 name);
	else if (rpc.stopping)
		rpc_fail(call, RPC_INVALID_STATE, "The target is shutting down", NULL);
	if (!call->error_code && call->method->changes) {
		list_add_tail(&rpc.changes, &call->link);
		fiber_cond_signal(&rpc.wake);
		return;
	}
	if (fiber_spawn(thread_current(), name, call_main, call)) {
		/* No memory for a stack: wait for the fiber there is. */
		log_warning("%s: no memory for a fiber", name);
		list_add_tail(&rpc.changes, &call->link);
		fiber_cond_signal(&rpc.wake);
	}
}

static void change_done(struct rpc_call *call, void *arg)
{
	fiber_wake(arg, call->error_code);
}

fiber_fn int rpc_change(const char *name, json_t *params)
{
	struct rpc_call call = { 0 };
	struct fiber_wait wait;
	int rc;

	fiber_wait_init(&wait);
	rpc_submit(&call, name, params, change_done, &wait);
	rc = fiber_wait(&wait);
	rpc_call_fini(&call);
	return rc;
}

fiber_fn void rpc_replay(struct rpc_call *call, const char *name, json_t *params)
{
	call->method = rpc_find(name);
	call->params = params;
	call->replay = true;
	if (call->method)
		run_method(call);
	else
		rpc_fail(call, RPC_METHOD_NOT_FOUND, "Method not found", NULL);
}

void rpc_call_fini(struct rpc_call *call)
{
	json_decref(call->params);
	json_decref(call->result);
	free(call->result_text);
	json_decref(call->error_data);
	json_decref(call->changes);
}

int rpc_start(struct state *state)
{
	rpc.state = state;
	rpc.stopping = false;
	rpc.changes_ended = rpc.idle = NULL;
	list_init(&rpc.changes);
	list_init(&rpc.side);
	fiber_cond_init(&rpc.wake);
	fiber_cond_init(&rpc.side_ended);
	return fiber_spawn(thread_current(), "changes", changes_main, NULL);
}

fiber_fn void rpc_stop(void)
{
	struct fiber_wait wait;

	rpc.stopping = true;
	if (rpc.nr_running) {
		fiber_wait_init(&wait);
		rpc.idle = &wait;
		fiber_wait(&wait);
		rpc.idle = NULL;
	}
	fiber_wait_init(&wait);
	rpc.changes_ended = &wait;
	fiber_cond_signal(&rpc.wake);
	fiber_wait(&wait);
	rpc.state = NULL;
}

bool rpc_is_stopping(void)
{
	return rpc.stopping;
}
