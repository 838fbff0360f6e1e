/*
 * Deletions of exported volumes: a durable word of what is about to go is in the saved state before the store begins, so that a
 * daemon that dies in between forgets at its next start the namespaces of what is gone, and keeps those of what is not.
 */
#ifndef MGMT_DELETION_H
#define MGMT_DELETION_H

#include "lvol/lvol.h"
#include "mgmt/rpc.h"

/* Owner: the handler, on its stack, in this order: one of the first two, begin, and when it is done, end. */
struct deletion {
	char key[UUID_STR_LEN];
	json_t *params; /* NULL: nothing that is saved depends on it, or there was no memory */
};

void deletion_of_lvol(struct deletion *d, struct lvol *lvol);
void deletion_of_store(struct deletion *d, struct lvol_store *store);
/* Suspends until it is durable; look again at what you looked up.  0, or -errno: nothing may be deleted, and the call has failed. */
fiber_fn int deletion_begin(struct rpc_call *call, struct deletion *d);
/* Has the namespaces forgotten with the call's other changes. */
void deletion_end(struct rpc_call *call, struct deletion *d);
/* What has failed may have happened all the same: the next start sees. */
void deletion_fini(struct deletion *d);

/* Forgets what is gone, as far as it can be seen now, and what is not to go any more.  From a handler that changes. */
fiber_fn void deletions_settle(struct rpc_call *call);

extern const struct rpc_method deletion_methods[];

#endif
