/*
 * The scanner for JSON texts in a stream; see json_scan.h.
 *
 * Outside of a text white space is skipped and anything but { and [ is garbage, up to the next white space or opening.  In
 * a text only strings, brackets and commas matter.  A control character in a string is never JSON: the text ends there as
 * garbage, so that one unclosed quote does not swallow everything that follows its line.
 */
#include "mgmt/json_scan.h"

#include <string.h>

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_open(char c)
{
	return c == '{' || c == '[';
}

static size_t scan_between(const char *buf, size_t len, enum json_scan_event *ret_event)
{
	size_t i = 0;

	if (is_space(buf[0])) {
		while (i < len && is_space(buf[i]))
			i++;
		*ret_event = JSON_SCAN_SPACE;
	} else {
		while (i < len && !is_space(buf[i]) && !is_open(buf[i]))
			i++;
		*ret_event = JSON_SCAN_GARBAGE;
	}
	return i;
}

/* Up to the end of the string or of the bytes; false for a byte that no string may hold. */
static bool scan_string(struct json_scan *scan, const char *buf, size_t len, size_t *pos)
{
	size_t i = *pos;
	bool ok = true;

	for (; i < len; i++) {
		unsigned char c = (unsigned char)buf[i];

		if (c < 0x20) {
			i++;
			ok = false;
			break;
		}
		if (scan->escaped) {
			scan->escaped = false;
		} else if (c == '\\') {
			scan->escaped = true;
		} else if (c == '"') {
			scan->in_string = false;
			i++;
			break;
		}
	}
	*pos = i;
	return ok;
}

size_t json_scan(struct json_scan *scan, const char *buf, size_t len, enum json_scan_event *ret_event)
{
	size_t i = 0;

	*ret_event = JSON_SCAN_MORE;
	if (len == 0)
		return 0;
	if (scan->depth == 0) {
		if (!is_open(buf[0]))
			return scan_between(buf, len, ret_event);
		json_scan_reset(scan);
	}
	while (i < len) {
		if (scan->in_string) {
			if (!scan_string(scan, buf, len, &i)) {
				json_scan_reset(scan);
				*ret_event = JSON_SCAN_GARBAGE;
				return i;
			}
			continue;
		}
		switch (buf[i++]) {
		case '"':
			scan->in_string = true;
			break;
		case ',':
		case ':':
			scan->nr_values++;
			break;
		case '{':
		case '[':
			scan->nr_values++;
			if (++scan->depth > scan->max_depth)
				scan->max_depth = scan->depth;
			break;
		case '}':
		case ']':
			if (--scan->depth == 0) {
				*ret_event = JSON_SCAN_TEXT;
				return i;
			}
			break;
		}
	}
	return i;
}

bool json_scan_sane(const struct json_scan *scan, const char **ret_why)
{
	if (scan->max_depth > JSON_SCAN_MAX_DEPTH) {
		*ret_why = "the request is nested more than 64 deep";
		return false;
	}
	if (scan->nr_values > JSON_SCAN_MAX_VALUES) {
		*ret_why = "the request holds more than 524288 values";
		return false;
	}
	return true;
}

void json_scan_reset(struct json_scan *scan)
{
	memset(scan, 0, sizeof(*scan));
}
