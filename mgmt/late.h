/* Saved listeners that could not be had at start, since their address or device was not there yet: tried until they can. */
#ifndef MGMT_LATE_H
#define MGMT_LATE_H

#include <stdbool.h>

#include "runtime/fiber.h"

/* App thread. */
void late_note(const char *nqn, const char *key); /* one that failed, by its place in the saved state */
bool late_drop(const char *nqn, const char *key); /* it is there by now, or nobody wants it any more; false: it was none */
int late_start(void);				  /* 0 or -ENOMEM */
fiber_fn void late_stop(void);

#endif
