/* What storebench's files share. */
#ifndef TOOLS_STOREBENCH_H
#define TOOLS_STOREBENCH_H

#include "blob/blob.h"

#define DEPTH 32u
#define MIB   (1ull << 20)

extern char *data;	 /* what is written, and the device drops */
extern bool dead;	 /* nothing reaches the device any more */
extern bool hold_supers; /* superblocks wait, so that no checkpoint ends */
extern uint64_t nr_pages_read, nr_reads;
extern uint64_t places_max; /* random writes stay in front */

int sparse_create(uint64_t bytes);
int sparse_register(void);
void device_dies(void); /* nothing that is under way arrives */

enum order { IN_ORDER, RANDOM, ONCE }; /* once: in a random order, each place once */

/* Operations of a block each, DEPTH in flight, a stride apart: how many a second. */
fiber_fn double run(struct blob *blob, struct blob_channel *ch, enum blob_op op, uint64_t nr, uint64_t stride_bytes, enum order order);

/* Microseconds from begin() to end(), which prints them and what of them the process had a CPU; check() ends it. */
void begin(void);
uint64_t end(const char *what);
void check(const char *what, int rc);
fiber_fn struct blob *copy(struct blob *from, const char *name, bool snapshot);
fiber_fn void memory_now(struct store *store, const char *when);

/* storebench_modes.c */
fiber_fn void writes(struct store *store, struct blob_channel *ch, uint64_t gib);
fiber_fn void deletes(struct store *store, struct blob_channel *ch, uint64_t tib);
fiber_fn void recovery(struct store *store, struct blob_channel *ch, uint64_t tib, const struct store_open_opts *open);

#endif
