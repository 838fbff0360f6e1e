/*
 * Jobs: their table, the fibers that run them, and how they are saved and taken up again.
 */
#include "mgmt/job.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mgmt/event.h"
#include "mgmt/methods.h"
#include "runtime/runtime.h"

#define WAIT_US	     500000u
#define PLACE_US     1000000u
#define MAX_ENDED    100u		 /* of each sort that stay to be looked at */
#define METHOD_SAVED "ferrule_job"	 /* a job of the saved state */
#define METHOD_LAST  "ferrule_job_last"	 /* the newest id given, in the saved state */
#define METHOD_SAVE  "ferrule_job_save"	 /* a job has ended, or leaves off: said to the state */

/* Owner: the app thread. */
static struct {
	const struct job_kind *const *kinds;
	struct list all; /* in order of their ids */
	uint64_t last_id;
	bool running; /* from jobs_start() to jobs_stop() */
	unsigned nr_fibers;
	struct fiber_cond changed; /* a job's work is done, it ended, or the daemon ends */
} jobs;

static int64_t wall_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* --- the table ------------------------------------------------------------------------------------------------------ */

struct job *job_find(uint64_t id)
{
	struct list *e;

	list_for_each(e, &jobs.all) {
		struct job *job = list_entry(e, struct job, link);

		if (job->id == id)
			return job;
	}
	return NULL;
}

static struct job *from(struct list *e)
{
	return e != &jobs.all ? list_entry(e, struct job, link) : NULL;
}

struct job *job_first(void)
{
	return from(jobs.all.next);
}

struct job *job_next(struct job *job)
{
	return from(job->link.next);
}

static const struct job_kind *kind_find(const char *name)
{
	for (const struct job_kind *const *k = jobs.kinds; *k; k++) {
		if (strcmp((*k)->name, name) == 0)
			return *k;
	}
	return NULL;
}

/* Takes params over, whatever comes of it. */
static struct job *job_new(uint64_t id, const char *kind, const char *object, const char *uuid, json_t *params)
{
	struct job *job = calloc(1, sizeof(*job));

	if (job) {
		job->kind_name = strdup(kind);
		job->object = strdup(object);
		job->uuid = strdup(uuid);
	}
	if (!job || !job->kind_name || !job->object || !job->uuid) {
		json_decref(params);
		if (job) {
			free(job->kind_name);
			free(job->object);
			free(job->uuid);
			free(job);
		}
		return NULL;
	}
	job->id = id;
	job->kind = kind_find(kind);
	job->params = params;
	job->started_ms = wall_ms();
	list_add_tail(&jobs.all, &job->link);
	if (id > jobs.last_id)
		jobs.last_id = id;
	return job;
}

static void job_free(struct job *job)
{
	assert(!job->in_fiber);
	list_del(&job->link);
	json_decref(job->params);
	json_decref(job->result);
	free(job->kind_name);
	free(job->object);
	free(job->uuid);
	free(job);
}

struct job *job_on(const char *uuid)
{
	struct list *e;

	list_for_each(e, &jobs.all) {
		struct job *job = list_entry(e, struct job, link);

		if (job->working && strcmp(job->uuid, uuid) == 0)
			return job;
	}
	return NULL;
}

fiber_fn bool jobs_end_on(const char *uuid)
{
	struct job *job = job_on(uuid);

	if (!job)
		return false;
	job->progress.cancel = job->cancel_asked = true;
	job_explain(job, "what it worked on was deleted");
	fiber_cond_wait(&jobs.changed);
	return true;
}

/* --- shown and saved ------------------------------------------------------------------------------------------------ */

static const char *state_name(const struct job *job)
{
	if (!job->ended)
		return job->cancel_asked ? "canceling" : job->waiting ? "waiting" : "running";
	return job->rc == 0 ? "complete" : job->rc == -ECANCELED ? "canceled" : "error";
}

static json_t *error_json(const struct job *job)
{
	return json_pack("{s:i,s:s,s:s*}", "code", job->rc, "message", strerror(-job->rc), "detail",
			 job->detail[0] ? job->detail : NULL);
}

json_t *job_json(const struct job *job)
{
	json_t *out = json_pack("{s:I,s:s,s:s,s:s,s:s,s:b,s:I,s:I,s:s,s:I}", "job_id", (json_int_t)job->id, "kind", job->kind_name,
				"object", job->object, "uuid", job->uuid, "state", state_name(job), "background",
				job->background, "done", (json_int_t)job->progress.done, "total",
				(json_int_t)job->progress.total, "unit", job->kind ? job->kind->unit : "", "started_ms",
				(json_int_t)job->started_ms);

	if (job->resumed)
		json_object_set_new(out, "resumed", json_true());
	if (job->ended) {
		json_object_set_new(out, "ended_ms", json_integer(job->ended_ms));
		if (job->rc)
			json_object_set_new(out, "error", error_json(job));
		if (job->result)
			json_object_set(out, "result", job->result);
	}
	return out;
}

static json_t *saved_json(const struct job *job)
{
	json_t *out = json_pack("{s:I,s:s,s:s,s:s,s:O,s:I}", "job_id", (json_int_t)job->id, "kind", job->kind_name, "object",
				job->object, "uuid", job->uuid, "params", job->params, "started_ms",
				(json_int_t)job->started_ms);

	if (job->ended_ms) {
		json_object_set_new(out, "ended_ms", json_integer(job->ended_ms));
		json_object_set_new(out, "rc", json_integer(job->rc));
		json_object_set_new(out, "done", json_integer((json_int_t)job->progress.done));
		json_object_set_new(out, "total", json_integer((json_int_t)job->progress.total));
		json_object_set_new(out, "detail", json_string(job->detail));
		if (job->result)
			json_object_set(out, "result", job->result);
	}
	return out;
}

static void save_job(struct rpc_call *call, const struct job *job)
{
	char name[24];
	struct state_key key = { STATE_JOB, "", name };

	snprintf(name, sizeof(name), "%llu", (unsigned long long)job->id);
	rpc_save_as(call, &key, METHOD_SAVED, saved_json(job));
}

void job_forget(struct rpc_call *call, struct job *job)
{
	char name[24];

	snprintf(name, sizeof(name), "%llu", (unsigned long long)job->id);
	rpc_forget(call, STATE_JOB, "", name);
	job_free(job);
}

/* --- running -------------------------------------------------------------------------------------------------------- */

static void tell_end(struct job *job)
{
	log_info("job %llu (%s of %s): %s%s%s", (unsigned long long)job->id, job->kind_name, job->object, state_name(job),
		 job->detail[0] ? ": " : "", job->detail);
	event_add("job_ended", job->object,
		  json_pack("{s:I,s:s,s:s,s:i}", "job_id", (json_int_t)job->id, "kind", job->kind_name, "state", state_name(job),
			    "code", job->rc),
		  "%s of %s: %s%s%s", job->kind_name, job->object, state_name(job), job->rc ? ": " : "",
		  job->rc ? job->detail[0] ? job->detail : strerror(-job->rc) : "");
}

static void answer_call(struct job *job)
{
	struct rpc_call *call = job->call;

	if (job->rc == 0)
		rpc_ok(call, job->result ? json_incref(job->result) : NULL);
	else if (job->detail[0])
		rpc_fail(call, RPC_INVALID_PARAMS, strerror(-job->rc), "%s", job->detail);
	else
		rpc_fail(call, RPC_INVALID_PARAMS, strerror(-job->rc), NULL);
	job->call = NULL;
	rpc_finish(call);
}

/* Forgets the oldest of those that ended, when there are too many of its sort. */
static void prune(struct rpc_call *call, bool background)
{
	struct job *oldest = NULL;
	unsigned nr = 0;
	struct list *e;

	list_for_each(e, &jobs.all) {
		struct job *job = list_entry(e, struct job, link);

		if (job->ended && job->background == background && ++nr == 1)
			oldest = job;
	}
	if (nr >= MAX_ENDED)
		job_forget(call, oldest);
}

static fiber_fn void save_now(struct job *job)
{
	rpc_change(METHOD_SAVE, json_pack("{s:I}", "job_id", (json_int_t)job->id));
}

/* A device that went, or has not come since the start, takes a job's volume along: that is not its end.  Who deletes a volume ends its
 * jobs first. */
static fiber_fn bool comes_back(struct job *job)
{
	if (!job->background || !job->rc)
		return false;
	/* Its store may be about to go: then it was ended, and nobody had asked for that. */
	if (job->kind->is_there(job) && (job->rc != -ECANCELED || job->progress.cancel))
		return false;
	job->waiting = true;
	log_notice("job %llu (%s of %s) waits until that is there", (unsigned long long)job->id, job->kind_name, job->object);
	do
		fiber_cond_timedwait(&jobs.changed, WAIT_US);
	while (jobs.running && !job->progress.cancel && !job->kind->is_there(job));
	job->waiting = false;
	return jobs.running && !job->progress.cancel;
}

/* Who is killed goes on from where this one saved it. */
static void place_main(void *arg)
{
	struct job *job = arg;
	uint64_t saved_us = clock_now_us();

	while (job->working) {
		fiber_cond_timedwait(&jobs.changed, PLACE_US);
		if (!job->working || !job->at || clock_now_us() - saved_us < PLACE_US)
			continue;
		job->kind->keep_place(job);
		save_now(job);
		saved_us = clock_now_us();
	}
	job->kept = false;
	fiber_cond_broadcast(&jobs.changed);
}

static fiber_fn void job_main(void *arg)
{
	struct job *job = arg;
	bool cut_short;

	/* Without memory for it, the place is as good as the last one saved. */
	job->kept = job->background && job->kind->keep_place && !fiber_spawn(thread_current(), "job-place", place_main, job);
	do
		job->rc = job->kind->run(job, job->params);
	while (comes_back(job));
	job->working = false;
	if (!job->rc)
		job->detail[0] = '\0';
	fiber_cond_broadcast(&jobs.changed);
	while (job->kept)
		fiber_cond_wait(&jobs.changed);
	/* What the daemon's end cut short goes on after the next start. */
	cut_short = job->background && job->rc && !jobs.running && !job->cancel_asked;
	if (!cut_short) {
		job->ended_ms = wall_ms();
		/* A client that knows of the end relies on its not being done again. */
		if (job->background)
			save_now(job);
		else
			prune(job->call, false);
		job->ended = true;
		tell_end(job);
		if (job->call)
			answer_call(job);
	} else if (job->kind->keep_place) {
		save_now(job);
	}
	job->in_fiber = false;
	jobs.nr_fibers--;
	fiber_cond_broadcast(&jobs.changed);
}

static int job_spawn(struct job *job)
{
	int rc = fiber_spawn(thread_current(), job->kind_name, job_main, job);

	if (!rc) {
		job->in_fiber = job->working = true;
		jobs.nr_fibers++;
	}
	return rc;
}

void job_start(struct rpc_call *call, const struct job_opts *opts)
{
	bool background = opts->answer_id || rpc_bool(call, "background", false);
	struct job *job = job_new(jobs.last_id + 1, opts->kind->name, opts->object, opts->uuid, opts->params);
	struct state_key last = { STATE_JOB, "", "last" };

	if (!job) {
		rpc_fail_errno(call, -ENOMEM, NULL);
		return;
	}
	job->background = background;
	job->progress.total = opts->total;
	if (!background && !jobs.running) {
		job_free(job);
		rpc_fail(call, RPC_INVALID_STATE, "The target is shutting down", NULL);
		return;
	}
	if (jobs.running && job_spawn(job)) {
		job_free(job);
		rpc_fail_errno(call, -ENOMEM, NULL);
		return;
	}
	if (!background) {
		job->call = call;
		rpc_detach(call);
		return;
	}
	save_job(call, job);
	rpc_save_as(call, &last, METHOD_LAST, json_pack("{s:I}", "job_id", (json_int_t)job->id));
	rpc_ok(call, json_pack("{s:I}", "job_id", (json_int_t)job->id));
	if (opts->answer_id)
		json_object_set_new(call->result, "operation_id", json_integer((json_int_t)job->id));
}

void job_set_result(struct job *job, json_t *result)
{
	json_decref(job->result);
	job->result = result;
}

void job_explain(struct job *job, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(job->detail, sizeof(job->detail), fmt, ap);
	va_end(ap);
}

/* --- start and stop ------------------------------------------------------------------------------------------------- */

void jobs_init(const struct job_kind *const *kinds)
{
	jobs.kinds = kinds;
	jobs.last_id = 0;
	jobs.running = false;
	list_init(&jobs.all);
	fiber_cond_init(&jobs.changed);
}

/* Ends a job that no fiber runs. */
static void end_unrun(struct job *job, int rc, const char *why)
{
	job->rc = rc;
	job->ended_ms = wall_ms();
	job->ended = true;
	job_explain(job, "%s", why);
	tell_end(job);
}

void jobs_start(void)
{
	struct list *e;

	jobs.running = true;
	list_for_each(e, &jobs.all) {
		struct job *job = list_entry(e, struct job, link);

		if (job->ended)
			continue;
		if (!job->kind)
			end_unrun(job, -ENOTSUP, "this program knows no such kind of job");
		else if (job_spawn(job))
			end_unrun(job, -ENOMEM, "there was no memory to take it up again after a restart");
		else
			log_notice("job %llu (%s of %s) goes on after a restart", (unsigned long long)job->id, job->kind_name,
				   job->object);
	}
}

fiber_fn void jobs_stop(void)
{
	struct list *e;

	jobs.running = false;
	list_for_each(e, &jobs.all)
		list_entry(e, struct job, link)->progress.cancel = true;
	fiber_cond_broadcast(&jobs.changed);
	while (jobs.nr_fibers)
		fiber_cond_wait(&jobs.changed);
}

void jobs_fini(void)
{
	while (!list_empty(&jobs.all))
		job_free(list_entry(list_first(&jobs.all), struct job, link));
}

/* Until the job has ended, or the time is over, or the daemon ends; nothing is kept across the wait but the id. */
fiber_fn void job_wait_end(uint64_t id, uint64_t timeout_ms)
{
	uint64_t deadline_us, now_us = clock_now_us();
	struct job *job;

	deadline_us = timeout_ms < (UINT64_MAX - now_us) / 1000 ? now_us + timeout_ms * 1000 : UINT64_MAX;
	while ((job = job_find(id)) && !job->ended && jobs.running && now_us < deadline_us) {
		uint64_t left_us = deadline_us - now_us;

		fiber_cond_timedwait(&jobs.changed, left_us < 3600000000u ? left_us : 3600000000u);
		now_us = clock_now_us();
	}
}

/* --- methods of the saved state -------------------------------------------------------------------------------------- */

static const struct rpc_param saved_params[] = {
	{ "job_id", RPC_U64, RPC_REQUIRED, NULL },   { "kind", RPC_STRING, RPC_REQUIRED, NULL },
	{ "object", RPC_STRING, RPC_REQUIRED, NULL }, { "uuid", RPC_STRING, RPC_REQUIRED, NULL },
	{ "params", RPC_ANY, RPC_REQUIRED, NULL },   { "started_ms", RPC_U64, RPC_REQUIRED, NULL },
	{ "ended_ms", RPC_U64, 0, NULL },	     { "rc", RPC_I32, 0, NULL },
	{ "done", RPC_U64, 0, NULL },		     { "total", RPC_U64, 0, NULL },
	{ "detail", RPC_STRING, 0, NULL },	     { "result", RPC_ANY, 0, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void saved(struct rpc_call *call)
{
	struct job *job = job_new(rpc_u64(call, "job_id", 0), rpc_string(call, "kind", ""), rpc_string(call, "object", ""),
				  rpc_string(call, "uuid", ""), json_incref(rpc_json(call, "params")));

	if (!job) {
		rpc_fail_errno(call, -ENOMEM, NULL);
		return;
	}
	job->background = true;
	job->started_ms = rpc_i64(call, "started_ms", 0);
	job->ended_ms = rpc_i64(call, "ended_ms", 0);
	job->ended = job->ended_ms != 0;
	job->resumed = !job->ended;
	job->rc = (int)rpc_i64(call, "rc", 0);
	job->progress.done = rpc_u64(call, "done", 0);
	job->progress.total = rpc_u64(call, "total", 0);
	job->result = rpc_has(call, "result") ? json_incref(rpc_json(call, "result")) : NULL;
	snprintf(job->detail, sizeof(job->detail), "%s", rpc_string(call, "detail", ""));
	rpc_ok(call, NULL);
}

static const struct rpc_param id_params[] = {
	{ "job_id", RPC_U64, RPC_REQUIRED, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void saved_last(struct rpc_call *call)
{
	uint64_t id = rpc_u64(call, "job_id", 0);

	if (id > jobs.last_id)
		jobs.last_id = id;
	rpc_ok(call, NULL);
}

static fiber_fn void save_again(struct rpc_call *call)
{
	struct job *job = job_find(rpc_u64(call, "job_id", 0));

	if (job && job->ended_ms)
		prune(call, true);
	if (job)
		save_job(call, job);
	rpc_ok(call, NULL);
}

/* Not offered to clients. */
const struct rpc_method job_state_methods[] = {
	{ .name = METHOD_SAVED, .handler = saved, .params = saved_params, .internal = true },
	{ .name = METHOD_LAST, .handler = saved_last, .params = id_params, .internal = true },
	{ .name = METHOD_SAVE, .handler = save_again, .params = id_params, .internal = true, .changes = true },
	{ .name = NULL },
};
