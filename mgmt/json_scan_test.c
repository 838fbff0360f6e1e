/* The scanner finds each text of a stream, however it was cut into pieces, and survives what is no JSON. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "mgmt/json_scan.h"
#include "runtime/suite.h"

#define MAX_EVENTS 64

/* What a stream was taken for: 't' a text, 'g' garbage; and the texts themselves. */
struct seen {
	char events[MAX_EVENTS];
	char texts[MAX_EVENTS][128];
	unsigned nr;
};

/* Feeds the stream in pieces of @step bytes. */
static void feed(struct seen *seen, const char *stream, size_t step)
{
	struct json_scan scan = { 0 };
	size_t len = strlen(stream), pos = 0, end = 0, text_len = 0;
	char text[4096];

	memset(seen, 0, sizeof(*seen));
	while (pos < len) {
		enum json_scan_event event;
		size_t n;

		if (pos == end)
			end = end + step < len ? end + step : len;
		n = json_scan(&scan, stream + pos, end - pos, &event);
		ck_assert_uint_gt(n, 0);
		ck_assert_uint_le(n, end - pos);
		if (event == JSON_SCAN_MORE || event == JSON_SCAN_TEXT) {
			memcpy(text + text_len, stream + pos, n);
			text_len += n;
		}
		pos += n;
		if (event == JSON_SCAN_TEXT) {
			memcpy(seen->texts[seen->nr], text, text_len < 127 ? text_len : 127);
			seen->events[seen->nr++] = 't';
			text_len = 0;
		} else if (event == JSON_SCAN_GARBAGE) {
			/* one run of garbage may come in pieces */
			if (!seen->nr || seen->events[seen->nr - 1] != 'g')
				seen->events[seen->nr++] = 'g';
			text_len = 0;
		}
	}
}

static void expect(const char *stream, const char *events, const char *first)
{
	struct seen seen;

	for (size_t step = 1; step <= strlen(stream); step++) {
		feed(&seen, stream, step);
		ck_assert_msg(strcmp(seen.events, events) == 0, "\"%s\" by %zu: saw %s, not %s", stream, step, seen.events,
			      events);
		if (first)
			ck_assert_str_eq(seen.texts[0], first);
	}
}

START_TEST(texts_without_anything_between_them_are_told_apart)
{
	expect("{\"a\":1}{\"b\":[2]}[{}]", "ttt", "{\"a\":1}");
	expect("  {}\n\t[]\r\n", "tt", "{}");
}
END_TEST

START_TEST(brackets_and_quotes_in_strings_do_not_count)
{
	expect("{\"a\":\"}]{[\\\"}\\\\\"}{}", "tt", "{\"a\":\"}]{[\\\"}\\\\\"}");
	expect("{\"\\u007b\":\"\\\\\"}[]", "tt", NULL);
}
END_TEST

START_TEST(garbage_between_texts_is_told_and_skipped)
{
	expect("nonsense {\"a\":1}", "gt", NULL);
	expect("{} }]x, {}", "tgt", "{}");
	expect("\"a string\"", "g", NULL);
	expect("17", "g", NULL);
}
END_TEST

START_TEST(a_quote_left_open_does_not_swallow_the_next_line)
{
	expect("{\"a\":\"b}\n{\"c\":1}", "gt", NULL);
}
END_TEST

START_TEST(a_text_too_deep_ends_where_it_ends_and_is_not_sane)
{
	struct json_scan scan = { 0 };
	char text[201];
	enum json_scan_event event;
	const char *why = NULL;

	memset(text, '[', 100);
	memset(text + 100, ']', 100);
	text[200] = '\0';
	ck_assert_uint_eq(json_scan(&scan, text, 200, &event), 200);
	ck_assert_int_eq(event, JSON_SCAN_TEXT);
	ck_assert(!json_scan_sane(&scan, &why));
	ck_assert_ptr_nonnull(why);
	ck_assert_uint_eq(json_scan(&scan, "[[]]", 4, &event), 4);
	ck_assert(json_scan_sane(&scan, &why));
}
END_TEST

START_TEST(a_text_of_too_many_values_is_not_sane)
{
	struct json_scan scan = { 0 };
	size_t len = JSON_SCAN_MAX_VALUES * 2 + 16;
	char *text = malloc(len);
	enum json_scan_event event;
	const char *why = NULL;

	for (size_t i = 0; i < len; i++)
		text[i] = i % 2 ? '0' : ',';
	text[0] = '[';
	text[len - 1] = ']';
	ck_assert_uint_eq(json_scan(&scan, text, len, &event), len);
	ck_assert_int_eq(event, JSON_SCAN_TEXT);
	ck_assert(!json_scan_sane(&scan, &why));
	free(text);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		texts_without_anything_between_them_are_told_apart,
		brackets_and_quotes_in_strings_do_not_count,
		garbage_between_texts_is_told_and_skipped,
		a_quote_left_open_does_not_swallow_the_next_line,
		a_text_too_deep_ends_where_it_ends_and_is_not_sane,
		a_text_of_too_many_values_is_not_sane,
	};

	return run_suite("json_scan", tests, sizeof(tests) / sizeof(tests[0]));
}
