/* Sizes as people write and read them: powers of 1024, with K, M, G, T, P behind. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mgmt/cli.h"

static const char units[] = "KMGTP";

int cli_parse_size(const char *text, uint64_t *ret_bytes)
{
	const char *unit;
	double value, bytes;
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	value = strtod(text, &end);
	if (errno || !isfinite(value) || strpbrk(text, "xX"))
		return -EINVAL;
	bytes = value;
	if (*end && (unit = strchr(units, toupper((unsigned char)*end)))) {
		bytes = ldexp(value, 10 * (int)(unit - units + 1));
		end++;
		if (*end == 'i')
			end++;
	}
	if (*end == 'B')
		end++;
	if (*end || bytes != floor(bytes) || bytes >= 0x1p63)
		return -EINVAL;
	/* Whole numbers are exact, however large. */
	*ret_bytes = value == bytes ? strtoull(text, NULL, 10) : (uint64_t)bytes;
	return 0;
}

const char *cli_format_size(uint64_t bytes, char buf[32])
{
	double value = (double)bytes;
	int unit = -1;

	while (value >= 1024 && units[unit + 1]) {
		value /= 1024;
		unit++;
	}
	if (unit < 0)
		snprintf(buf, 32, "%" PRIu64 " B", bytes);
	else if (value == floor(value))
		snprintf(buf, 32, "%.0f %ciB", value, units[unit]);
	else
		snprintf(buf, 32, "%.2f %ciB", value, units[unit]);
	return buf;
}
