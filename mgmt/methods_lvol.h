/* What the methods for stores and volumes share. */
#ifndef MGMT_METHODS_LVOL_H
#define MGMT_METHODS_LVOL_H

#include "lvol/lvol.h"
#include "mgmt/job.h"
#include "mgmt/rpc.h"

/* By "uuid" (or what uuid_key says) or "lvs_name", exactly one of which must be given; NULL with the call failed. */
struct lvol_store *store_of_call(struct rpc_call *call, const char *uuid_key);
/* By UUID or "store/volume"; NULL with the call failed. */
struct lvol *lvol_of_call(struct rpc_call *call, const char *key);
struct lvol *any_lvol_of_call(struct rpc_call *call, const char *key); /* a hidden one too (lvol_find_hidden()) */
/* The same, failed also when a job works on it: a change would wait for the job's end, and hold up all others. */
struct lvol *idle_lvol_of_call(struct rpc_call *call, const char *key);
/* False with the call failed when a job works on the store. */
bool store_is_idle(struct rpc_call *call, struct lvol_store *store);

/* Failures that come while the work is done have one code in SPDK, and strerror's text.  key: the parameter to blame, or NULL.  -EROFS of
 * a store that takes no writes is told with the store's name and its own reason, whatever detail says. */
void lvol_fail(struct rpc_call *call, int rc, const char *key, const char *detail);
/* Whether it takes no writes; then why, and what to do about it, in a sentence. */
bool store_is_refusing(struct lvol_store *store, char *text, size_t size);
/* What an error usually means here, in a sentence. */
const char *lvol_rule(int rc);

/* What jobs on stores and volumes do; ends with NULL. */
extern const struct job_kind *const lvol_job_kinds[];
extern const struct job_kind inflate_job, shallow_copy_job;

#endif
