/* Stores looked at twice a second, so that what happens to them by itself becomes events; and the thresholds of fullness. */
#ifndef MGMT_WATCH_H
#define MGMT_WATCH_H

#include "lvol/lvol.h"
#include "mgmt/rpc.h"

#define WATCH_MAX_THRESHOLDS 8u

int watch_start(void); /* 0 or -ENOMEM */
fiber_fn void watch_stop(void);

/* The store's thresholds, per cent in rising order; the defaults when none were set. */
unsigned watch_thresholds(const char *uuid, uint8_t percents[WATCH_MAX_THRESHOLDS]);
/* The store goes: what is saved of it, too. */
void watch_forget(struct rpc_call *call, struct lvol_store *store);

#endif
