/* Lists of cores. */
#ifndef RUNTIME_CORES_H
#define RUNTIME_CORES_H

/* Reads a list such as "0,2-3".  0, -EINVAL when it is none (or names a core twice), -E2BIG. */
int cores_parse(const char *list, unsigned *cores, unsigned cores_max, unsigned *ret_nr);
/* The first core that the process may run on. */
int cores_default(unsigned *ret_core);

#endif
