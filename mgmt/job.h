/*
 * Jobs: long operations behind management calls, with progress and a way to end them.  A call waits for its job as SPDK's
 * clients expect, or, with "background": true, is answered with the job's id at once.
 *
 * A background job is part of the saved state: one that has not ended is taken up again after a restart.  It is told to have
 * ended only once that is durable, so that what a client does next is never undone by work done twice.
 */
#ifndef MGMT_JOB_H
#define MGMT_JOB_H

#include "mgmt/rpc.h"
#include "runtime/progress.h"

struct job;

/* What a job does.  Constant, as long as the process. */
struct job_kind {
	const char *name; /* "inflate"; also in the saved state */
	const char *unit; /* of its progress: "clusters" */
	/*
	 * Puts into params where to go on, from what run left in job->at; NULL: it always begins anew.  Saved when the daemon's end cuts the
	 * job short, and each second besides.
	 */
	void (*keep_place)(struct job *job);
	bool (*is_there)(const struct job *job); /* what a background job works on: while it is not, the job waits for it */
	/*
	 * Does the work in a fiber of its own: looks up what params name, keeps job->progress true, ends when that asks it to.
	 * Again from the start after a restart, so what has been done already must be found done.  0 or -errno.
	 */
	fiber_fn int (*run)(struct job *job, json_t *params);
};

/*
 * A job.  Owner: the app thread.  Those that ended stay to be looked at, the newest of them; a pointer is good until the
 * fiber suspends.
 *
 *   running   a fiber works, or (when management stops, or before it starts) will
 *   ended     rc says how; a background job is shown as running until that is durable
 */
struct job {
	struct list link;
	uint64_t id;
	const struct job_kind *kind; /* NULL: of a newer or older program; only shown */
	char *kind_name, *object, *uuid;
	json_t *params;
	struct progress progress;
	struct rpc_call *call; /* a foreground job's */
	bool background;       /* saved */
	bool in_fiber;
	bool working;	       /* what its fiber does is not over */
	bool waiting;	       /* until what it works on is there again */
	bool kept;	       /* a second fiber saves its place */
	const void *at;	       /* run's, for keep_place; NULL: it does not run */
	bool ended;	       /* as everybody may know */
	bool resumed;	       /* begun before the last restart */
	bool cancel_asked;     /* by a client */
	int rc;
	char detail[512];
	json_t *result;
	int64_t started_ms, ended_ms;
};

/* What a job is about; copied. */
struct job_opts {
	const struct job_kind *kind;
	json_t *params;	    /* reference taken over; saved, so no passwords */
	const char *object; /* for people: "pool/v" */
	const char *uuid;   /* of the volume or store it works on */
	uint64_t total;	    /* of its progress, when that is known already */
	bool answer_id;	    /* a foreground call is none: the answer is the job's id at once, also as SPDK's operation_id */
};

/* "background": for the tables of parameters of methods that make jobs. */
#define JOB_BACKGROUND_PARAM { "background", RPC_BOOL, 0, NULL }

/* Before the replay: the kinds there are; ends with NULL. */
void jobs_init(const struct job_kind *const *kinds);
/* From now on jobs run: those of the saved state are taken up. */
void jobs_start(void);
/* Every job is asked to end and waited for, and none begins any more; calls that wait for one are answered. */
fiber_fn void jobs_stop(void);
void jobs_fini(void); /* forgets them all; after rpc_stop() */

/**
 * job_start - how a changing method ends whose work is long
 * @call: answered here, now (background) or when the job has ended
 *
 * Does not suspend; nothing may follow.
 */
void job_start(struct rpc_call *call, const struct job_opts *opts);

/* For the fiber of the job. */
void job_set_result(struct job *job, json_t *result); /* reference taken over; what a call is answered with, else true */
/* Why it fails, and what to do about it, in a sentence. */
void job_explain(struct job *job, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* For the methods that show them. */
struct job *job_find(uint64_t id); /* NULL: none */
struct job *job_first(void);	   /* in order of their ids */
struct job *job_next(struct job *job);
json_t *job_json(const struct job *job);
/* Until the job has ended, or the time is over, or the daemon ends. */
fiber_fn void job_wait_end(uint64_t id, uint64_t timeout_ms);
/* A job that has ended goes, from the saved state too. */
void job_forget(struct rpc_call *call, struct job *job);

/* A job that works on a volume or store; NULL: none. */
struct job *job_on(const char *uuid);
/* For those who delete it: asks such a job to end and waits for a moment; false: there is none.  Again until it is. */
fiber_fn bool jobs_end_on(const char *uuid);

#endif
