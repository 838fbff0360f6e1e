/* For the tests of this room: a store on memory, volumes in it, and I/O by name. */
#ifndef LVOL_TESTING_H
#define LVOL_TESTING_H

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/testing.h"
#include "lvol/lvol.h"
#include "runtime/suite.h"

#define BS  512u
#define MIB (1024ull * 1024)

static inline struct lvol_store *make_store(uint64_t mib)
{
	const struct lvol_store_create_opts opts = { .name = "pool", .base_bdev = "base" };
	struct blob_reason reason = { "" };
	struct lvol_store *store = NULL;

	ck_assert_int_eq(bdev_malloc_create("base", NULL, mib * MIB / BS, BS, NULL), 0);
	ck_assert_msg(lvol_store_create(&opts, &store, &reason) == 0, "%s", reason.text);
	return store;
}

static inline struct lvol *make_volume(struct lvol_store *store, const char *name, uint64_t mib, bool thin)
{
	const struct lvol_create_opts opts = { .name = name, .size_bytes = mib * MIB, .thin = thin };
	struct lvol *lvol = NULL;

	ck_assert_int_eq(lvol_create(store, &opts, &lvol), 0);
	return lvol;
}

static inline struct lvol *snapshot_of(struct lvol *lvol, const char *name)
{
	const struct lvol_copy_opts opts = { .name = name };
	struct lvol *snapshot = NULL;

	ck_assert_int_eq(lvol_snapshot(lvol, &opts, &snapshot), 0);
	return snapshot;
}

static inline struct lvol *clone_of(struct lvol *lvol, const char *name)
{
	const struct lvol_copy_opts opts = { .name = name };
	struct lvol *clone = NULL;

	ck_assert_int_eq(lvol_clone(lvol, &opts, &clone), 0);
	return clone;
}

static inline fiber_fn int io(const char *name, enum bdev_op op, char fill, uint64_t block, uint64_t nr)
{
	struct bdev_desc *desc;
	struct bdev_channel *ch;
	char *buf = aligned_alloc(4096, (nr * BS + 4095) / 4096 * 4096);
	int rc;

	ck_assert_int_eq(bdev_open(name, true, NULL, NULL, &desc), 0);
	ch = bdev_channel_get(desc);
	memset(buf, op == BDEV_WRITE ? fill : ~fill, nr * BS);
	if (op == BDEV_WRITE)
		rc = bdev_write(ch, buf, block, nr, 0);
	else if (op == BDEV_READ)
		rc = bdev_read(ch, buf, block, nr);
	else if (op == BDEV_FLUSH)
		rc = bdev_flush(ch);
	else
		rc = bdev_unmap(ch, block, nr);
	if (!rc && op == BDEV_READ)
		ck_assert(all_bytes(buf, nr * BS, fill));
	free(buf);
	bdev_channel_put(ch);
	bdev_close(desc);
	return rc;
}

#endif
