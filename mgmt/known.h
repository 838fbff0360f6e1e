/*
 * Stores that this daemon has had open: each is an object of the saved state, so that one that is not found on its bdev any more is
 * told of, and one that was opened read-only by hand stays so.
 */
#ifndef MGMT_KNOWN_H
#define MGMT_KNOWN_H

#include "lvol/lvol.h"
#include "mgmt/rpc.h"

/* Before any bdev is there: what the saved state says is taken, and lvol asked to tell of stores. */
void known_init(void);
/* Once calls run: what has been opened meanwhile is saved, and what deletions have left is settled. */
fiber_fn void known_start(void);
void known_fini(void);

/* Saved with the call's other changes. */
void known_save(struct rpc_call *call, struct lvol_store *store, bool read_only);
void known_forget(struct rpc_call *call, const char *uuid);
void known_expect_no_more(const char *uuid); /* it may have been deleted */
/* The bdev goes, or gets another store, because somebody wants it so. */
void known_forget_on(struct rpc_call *call, const struct bdev *bdev);
/* Whether it is to be opened read-only; set by hand. */
bool known_read_only(const uuid_t uuid);
void known_set_read_only(const char *uuid, bool read_only);
/* False: none; else what is wrong in a sentence, since the bdev holds no store and should. */
bool known_missing_on(const struct bdev *bdev, char *text, size_t size);

extern const struct rpc_method known_methods[];

#endif
