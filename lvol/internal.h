/* What the files of lvol/ share. */
#ifndef LVOL_INTERNAL_H
#define LVOL_INTERNAL_H

#include "lvol/lvol.h"

/*
 * An open store.  Owner: app thread.  Life: until it has no volume, no operation and no reference left after closing began.
 */
struct lvol_store {
	struct list link; /* stores */
	struct store *store;
	char name[LVOL_NAME_MAX + 1];
	char base_bdev[BDEV_NAME_MAX];
	char uuid_text[UUID_STR_LEN];
	uuid_t uuid;
	struct list lvols;
	bool opening;	  /* on the list of those instead */
	bool closing;	  /* no operation begins any more */
	bool removed;	  /* the base went away */
	unsigned nr_hidden; /* of its volumes */
	unsigned nr_ops;  /* operations under way */
	struct fiber_cond idle; /* nr_ops became 0 */
};

/* A volume.  Owner: app thread; what I/O reads of it (blob) is constant while the bdev is registered. */
struct lvol {
	struct bdev bdev;
	struct list link; /* lvol_store.lvols */
	struct lvol_store *store;
	struct blob *blob;
	char name[LVOL_NAME_MAX + 1];
	bool gone; /* deleted: of no use to who waited for the mutex */
	bool renaming; /* what it is to be called is not settled: it stays hidden */
	bool hidden; /* another bdev has its name or alias: its own is not registered until that is free */
	unsigned nr_refs;
	unsigned nr_users;	  /* who need its blob without holding the mutex */
	struct fiber_cond unused; /* nr_users became 0 */
	struct progress *working; /* of the long operation under way; NULL: none.  Cancelled when the volume goes */
	struct fiber_mutex mutex; /* one operation at a time */
};

/* store.c */
int lvol_op_begin(struct lvol_store *store); /* -ENODEV: closing */
void lvol_op_end(struct lvol_store *store);
void lvol_tell_hidden(struct lvol *lvol); /* log and hooks: it is, or is not any more */

/* volume.c */
int lvol_attach(struct lvol_store *store, struct blob *blob, struct lvol **ret_lvol); /* shows a blob as a bdev */
int lvol_attach_or_hide(struct lvol_store *store, struct blob *blob); /* the same, perhaps later; -ENOMEM */
void lvol_show_hidden(struct lvol_store *store);			/* those that can be shown by now */
fiber_fn void lvol_detach_all(struct lvol_store *store);
fiber_fn int lvol_begin(struct lvol *lvol); /* an operation: it and its store stay.  -ENODEV: it went, or goes */
void lvol_end(struct lvol *lvol);
int lvol_use(struct lvol *lvol); /* its blob stays.  -ENODEV */
void lvol_unuse(struct lvol *lvol);
bool store_is_read_only(const struct lvol_store *store);
bool lvol_must_stay(const struct lvol *lvol); /* others show its bytes, and rely on them */
void lvol_cancel(struct lvol *lvol); /* long operations on it end soon */
int lvol_alias_free(const struct lvol_store *store, const char *name, const uuid_t uuid); /* -EEXIST, -EINVAL */
int lvol_rename_aliases(struct lvol_store *store, const char *store_name);

/* bdev.c */
extern const struct bdev_ops lvol_ops;

/* last: from here on this room's own allocations can be told to fail, in a build for that */
#include "blob/mutant.h"
#include "blob/mutant_alloc.h"

#endif
