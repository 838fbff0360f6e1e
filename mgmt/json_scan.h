/*
 * Finds where one JSON text ends in a stream that has no framing.  It looks at each byte once, keeps a few words between
 * calls, and does not judge the grammar: the parser does that, on a text whose depth and size are known to be sane.
 */
#ifndef MGMT_JSON_SCAN_H
#define MGMT_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_SCAN_MAX_DEPTH  64u
#define JSON_SCAN_MAX_VALUES (512u * 1024)

enum json_scan_event {
	JSON_SCAN_MORE,	   /* all bytes taken, no end yet */
	JSON_SCAN_SPACE,   /* bytes between texts: skip them */
	JSON_SCAN_TEXT,	   /* the last byte taken ends an object or array */
	JSON_SCAN_GARBAGE, /* the bytes taken are no part of any text; or the text begun cannot be one */
};

struct json_scan {
	uint32_t depth;
	uint32_t max_depth;
	uint32_t nr_values;
	bool in_string, escaped;
};

/* Takes up to @len bytes; returns how many, with what they were in *ret_event. */
size_t json_scan(struct json_scan *scan, const char *buf, size_t len, enum json_scan_event *ret_event);
/* After a text: whether it may be given to the parser. */
bool json_scan_sane(const struct json_scan *scan, const char **ret_why);
void json_scan_reset(struct json_scan *scan);

#endif
