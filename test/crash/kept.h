/*
 * Memory that outlives a process of a history but not its machine (runtime/keep.h): what of it there was at each event, put
 * back for who comes after.
 */
#ifndef TEST_CRASH_KEPT_H
#define TEST_CRASH_KEPT_H

#include <stdbool.h>

struct kept; /* a copy of it at one moment */

bool kept_init(void); /* makes a folder for it, which goes when the process that called this exits in order */
void kept_begin(void); /* empty, and used from now on */
void kept_off(void);   /* nothing is kept from now on: power was lost, or nobody asks */
struct kept *kept_copy(void);
void kept_put_back(const struct kept *kept); /* it is as it was then, and used from now on */
void kept_free(struct kept *kept);

#endif
