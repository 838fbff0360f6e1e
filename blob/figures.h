/* Two maps side by side, as figures.c walks them. */
#ifndef BLOB_FIGURES_H
#define BLOB_FIGURES_H

#include "blob/cache.h"

/* The leaves of two maps at one index; a root or leaf may be NULL.  Good until the walker suspends. */
struct leaf_pair {
	struct blob *map_a, *map_b; /* b may be NULL */
	struct node *a, *b;
	bool lost;	      /* of one of them nobody knows what is there */
	struct node_wait miss; /* id not 0: a node that is not in memory is needed first */
};

/* The next index from @index on below @end where the maps do not share their nodes, and their leaves there; end: none. */
uint64_t pair_next(struct store *s, struct leaf_pair *pair, uint64_t index, uint64_t end);
/* The same, with both leaves in memory until the owner does something else. */
fiber_fn int pair_load(struct store *s, struct leaf_pair *pair, uint64_t index, uint64_t end, uint64_t *ret_next);
bool entries_same(const struct store *s, uint64_t raw_a, uint64_t raw_b);

#endif
