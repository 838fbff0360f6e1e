/* The methods that show jobs, wait for them and end them; and SPDK's view of a copy under way. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "mgmt/job.h"
#include "mgmt/methods.h"
#include "runtime/runtime.h"

static const struct rpc_param id_params[] = {
	{ "job_id", RPC_U64, RPC_REQUIRED | RPC_LOOSE, NULL },
	{ NULL, 0, 0, NULL },
};

static struct job *job_of_call(struct rpc_call *call)
{
	uint64_t id = rpc_u64(call, "job_id", 0);
	struct job *job = job_find(id);

	if (!job) {
		rpc_fail(call, -ENOENT, "No such job", "there is no job %llu, or it ended long ago; job_get_jobs lists them",
			 (unsigned long long)id);
		rpc_blame(call, "job_id");
	}
	return job;
}

static void answer_job(struct rpc_call *call)
{
	struct job *job = job_of_call(call);

	if (job)
		rpc_ok(call, job_json(job));
}

static const struct rpc_param get_jobs_params[] = {
	{ "job_id", RPC_U64, RPC_LOOSE, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void get_jobs(struct rpc_call *call)
{
	struct job *job;
	json_t *out;

	if (rpc_has(call, "job_id")) {
		job = job_of_call(call);
		if (job)
			rpc_ok(call, json_pack("[o]", job_json(job)));
		return;
	}
	out = json_array();
	for (job = job_first(); job; job = job_next(job))
		json_array_append_new(out, job_json(job));
	rpc_ok(call, out);
}

static const struct rpc_param wait_params[] = {
	{ "job_id", RPC_U64, RPC_REQUIRED | RPC_LOOSE, NULL },
	{ "timeout_ms", RPC_U64, 0, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void wait_job(struct rpc_call *call)
{
	if (!job_of_call(call))
		return;
	job_wait_end(rpc_u64(call, "job_id", 0), rpc_u64(call, "timeout_ms", UINT64_MAX));
	answer_job(call);
}

/* Answers when the job has ended: perhaps well, when the wish came late. */
static fiber_fn void cancel_job(struct rpc_call *call)
{
	struct job *job = job_of_call(call);

	if (!job)
		return;
	if (!job->ended)
		job->cancel_asked = job->progress.cancel = true;
	job_wait_end(job->id, UINT64_MAX);
	answer_job(call);
}

/* Forgets a job that has ended. */
static fiber_fn void forget(struct rpc_call *call)
{
	struct job *job = job_of_call(call);

	if (!job)
		return;
	if (!job->ended) {
		rpc_fail_errno(call, -EBUSY, "job %llu has not ended; job_cancel ends it", (unsigned long long)job->id);
		rpc_blame(call, "job_id");
		return;
	}
	job_forget(call, job);
	rpc_ok(call, NULL);
}

static const struct rpc_param check_copy_params[] = {
	{ "operation_id", RPC_U32, RPC_REQUIRED | RPC_LOOSE, NULL },
	{ NULL, 0, 0, NULL },
};

/* SPDK's view of a job that copies: the record vanishes with the answer that tells of its end. */
static fiber_fn void check_shallow_copy(struct rpc_call *call)
{
	struct job *job = job_find(rpc_u64(call, "operation_id", 0));
	json_t *out;

	if (!job || strcmp(job->kind_name, "shallow_copy") != 0) {
		rpc_fail_errno(call, -ENODEV, "there is no such operation, or its end has been told already");
		rpc_blame(call, "operation_id");
		return;
	}
	out = json_pack("{s:I,s:I,s:s}", "copied_clusters", (json_int_t)job->progress.done, "total_clusters",
			(json_int_t)job->progress.total, "state",
			!job->ended ? "in progress" : job->rc ? "error" : "complete");
	if (job->ended && job->rc)
		json_object_set_new(out, "error", json_string(strerror(-job->rc)));
	if (job->ended)
		job_forget(call, job);
	rpc_ok(call, out);
}

const struct rpc_method job_methods[] = {
	{ .name = "job_get_jobs", .handler = get_jobs, .params = get_jobs_params },
	{ .name = "job_wait", .handler = wait_job, .params = wait_params },
	{ .name = "job_cancel", .handler = cancel_job, .params = id_params },
	{ .name = "job_forget", .handler = forget, .params = id_params, .changes = true },
	{ .name = "bdev_lvol_check_shallow_copy", .handler = check_shallow_copy, .params = check_copy_params, .changes = true },
	{ .name = NULL },
};
