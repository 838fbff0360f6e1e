/* Background work that bdevbench does beside its load, on the store of its volume. */
#ifndef TOOLS_BDEVBENCH_WORK_H
#define TOOLS_BDEVBENCH_WORK_H

#include "lvol/lvol.h"

enum work_kind { WORK_NONE, WORK_SCRUB, WORK_INFLATE, WORK_FREE, WORK_CHECKPOINT, WORK_SNAPSHOT, NR_WORKS };

#define WORK_SNAPSHOT_US 100000u /* between two */

extern const char *const work_names[NR_WORKS];

/* What the work needs is there: not measured.  @bytes: of the volume.  Fiber. */
fiber_fn int work_prepare(enum work_kind kind, struct lvol *volume, uint64_t bytes);
/* Begins, again and again, until work_stop(), which says how often it was done, or how many MiB for those that may not end: -errno. */
int work_start(void);
fiber_fn int64_t work_stop(void);

#endif
