/* Lists of cores, such as "0,2-3", and the first core that the process may run on. */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "runtime/cores.h"
#include "runtime/internal.h"

static int parse_number(const char **text, unsigned *ret_number)
{
	unsigned long number;
	char *end;

	if (**text < '0' || **text > '9')
		return -EINVAL;
	number = strtoul(*text, &end, 10);
	if (number >= CPU_SETSIZE)
		return -EINVAL;
	*text = end;
	*ret_number = (unsigned)number;
	return 0;
}

static int add_range(unsigned first, unsigned last, unsigned *cores, unsigned cores_max, unsigned *nr)
{
	if (last < first)
		return -EINVAL;
	for (unsigned core = first; core <= last; core++) {
		for (unsigned i = 0; i < *nr; i++) {
			if (cores[i] == core)
				return -EINVAL;
		}
		if (*nr == cores_max)
			return -E2BIG;
		cores[(*nr)++] = core;
	}
	return 0;
}

int cores_parse(const char *list, unsigned *cores, unsigned cores_max, unsigned *ret_nr)
{
	unsigned nr = 0;

	for (;;) {
		unsigned first, last;
		int rc = parse_number(&list, &first);

		if (rc)
			return rc;
		last = first;
		if (*list == '-') {
			list++;
			rc = parse_number(&list, &last);
			if (rc)
				return rc;
		}
		rc = add_range(first, last, cores, cores_max, &nr);
		if (rc)
			return rc;
		if (!*list)
			break;
		if (*list++ != ',')
			return -EINVAL;
	}
	*ret_nr = nr;
	return 0;
}

int cores_default(unsigned *ret_core)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	if (sched_getaffinity(0, sizeof(set), &set))
		return -errno;
	for (unsigned core = 0; core < CPU_SETSIZE; core++) {
		if (CPU_ISSET(core, &set)) {
			*ret_core = core;
			return 0;
		}
	}
	return -ENODEV;
}
