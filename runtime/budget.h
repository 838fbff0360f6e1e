/* The memory budget of a process, computed from its options before anything is allocated. */
#ifndef RUNTIME_BUDGET_H
#define RUNTIME_BUDGET_H

#include "runtime/runtime.h"

struct budget {
	unsigned mem_mib; /* for EAL; 0 without it */
	unsigned nr_small, nr_large;
	bool no_huge; /* as the options say, or because no hugepage is free */
};

/* 0, -EINVAL when the options contradict each other, -ENOMEM when the machine has not got it; the log says why. */
int budget_compute(const struct runtime_opts *opts, struct budget *ret_budget);
uint64_t budget_free_hugepages_mib(void);

#endif
