/* Two maps side by side, as figures.c walks them. */
#ifndef BLOB_FIGURES_H
#define BLOB_FIGURES_H

#include "blob/internal.h"

/* The leaves of two maps at one index; a root or leaf may be NULL.  Good until the walker suspends. */
struct leaf_pair {
	struct node *root_a, *root_b; /* set by the walker, before each step */
	struct node *a, *b;
	bool lost; /* of one of them nobody knows what is there */
};

/* The next index from @index on below @end where the maps do not share their nodes, and their leaves there; end: none. */
uint64_t pair_next(const struct store *s, struct leaf_pair *pair, uint64_t index, uint64_t end);
bool entries_same(const struct store *s, uint64_t raw_a, uint64_t raw_b);

#endif
