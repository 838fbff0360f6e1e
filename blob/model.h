/* The model of a few blobs, as model_test.c drives it; model_copies.c: operations that make, delete and change blobs as wholes. */
#ifndef BLOB_MODEL_H
#define BLOB_MODEL_H

#include "blob/internal.h"
#include "blob/testing.h"

#define NR_BLOBS   7u
#define MAX_BLOCKS 2048u
#define NR_OLD     6u
#define BURST      12u

struct state {
	uint32_t now, old[NR_OLD];
	uint8_t nr_old;
};

struct model_blob {
	struct blob *blob;
	char name[32];
	uint64_t nr_blocks;
	bool snapshot;
	struct state *block;
};

/* An operation that was not answered before power went: it happened whole, or not at all. */
struct pending {
	enum { PENDING_NONE, PENDING_SAME, PENDING_MADE, PENDING_DELETED, PENDING_REVERTED, PENDING_RESIZED } kind;
	struct model_blob *mb;
	struct state *after; /* what it holds then */
	uint64_t nr_blocks_after, parent_after;
};

struct model {
	struct bench b;
	struct model_blob blobs[NR_BLOBS];
	uint32_t stamp, nr_names;
	bool cutting;
	unsigned nr_background;
	uint64_t nr_crashes, nr_full;
	struct pending pending;
};

/* model_test.c */
uint64_t model_pick(uint64_t n);
void model_flushed(struct model *m); /* all that was written is durable */
int model_flush(struct model *m);
void model_verify(struct model *m, struct model_blob *mb, uint64_t at, uint64_t nr, bool learn);

/* model_copies.c: each on random blobs; false: there was nothing to do it on */
bool model_snapshot(struct model *m);
bool model_clone(struct model *m);
bool model_revert(struct model *m);
bool model_set_parent(struct model *m);
bool model_inflate(struct model *m);
bool model_decouple(struct model *m);
bool model_delete(struct model *m);
bool model_resize(struct model *m);
void model_operation(struct model *m); /* one of those that finds something */
void model_resolve(struct model *m);   /* after a power cut: whether the pending one happened */

#endif
