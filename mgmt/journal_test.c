/* The saved state's journal gives back what was written; a torn tail loses only what was never answered, damage is refused. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mgmt/state.h"
#include "runtime/suite.h"

/* A file in memory, as the writer makes it. */
struct file {
	struct journal journal;
	char *buf;
	size_t len;
	size_t line_end[64]; /* where each change line ends */
	unsigned nr_lines;
};

static struct file file;

static void append(char *text, size_t len)
{
	file.buf = realloc(file.buf, file.len + len);
	memcpy(file.buf + file.len, text, len);
	file.len += len;
	free(text);
}

static void change(json_t *changes, bool durable)
{
	size_t len;
	char *line;

	ck_assert_int_eq(journal_apply(&file.journal, changes), 0);
	line = journal_line(&file.journal, changes, &len);
	ck_assert_ptr_nonnull(line);
	append(line, len);
	file.line_end[file.nr_lines++] = file.len;
	json_decref(changes);
	if (durable)
		file.journal.durable_seq = file.journal.seq;
}

static json_t *put(const char *name, int value)
{
	return json_pack("[{s:[s,s,s],s:s,s:{s:i}}]", "put", "bdev", "", name, "method", "bdev_malloc_create", "params", "n",
			 value);
}

static json_t *forget(const char *name)
{
	return json_pack("[{s:[s,s,s]}]", "delete", "bdev", "", name);
}

static void setup(void)
{
	json_t *first = put("first", 1);
	char *dump;
	size_t len;

	memset(&file, 0, sizeof(file));
	ck_assert_int_eq(journal_init(&file.journal), 0);
	ck_assert_int_eq(journal_apply(&file.journal, first), 0);
	json_decref(first);
	dump = journal_dump(&file.journal, &len);
	append(dump, len);
}

static void teardown(void)
{
	journal_fini(&file.journal);
	free(file.buf);
}

/* How many objects a load of the first @len bytes gives, or the error. */
static int load(size_t len, struct journal_damage *ret_damage)
{
	struct journal j;
	int rc;

	ck_assert_int_eq(journal_init(&j), 0);
	rc = journal_load(&j, file.buf, len, ret_damage);
	if (!rc)
		rc = (int)json_object_size(j.objects);
	journal_fini(&j);
	return rc;
}

START_TEST(what_was_written_comes_back_in_order)
{
	struct journal_damage damage;
	const char *key, *names[] = { "first", "b" };
	struct journal j;
	json_t *object;
	int i = 0;

	change(put("a", 1), true);
	change(put("b", 2), true);
	change(put("first", 9), true);
	change(forget("a"), true);
	ck_assert_int_eq(journal_init(&j), 0);
	ck_assert_int_eq(journal_load(&j, file.buf, file.len, &damage), 0);
	ck_assert_uint_eq(damage.line, 0);
	ck_assert_uint_eq(j.seq, file.journal.seq);
	json_object_foreach(j.objects, key, object) {
		ck_assert_str_eq(json_string_value(json_array_get(json_object_get(object, "key"), 2)), names[i]);
		i++;
	}
	ck_assert_int_eq(i, 2);
	object = json_array_get(json_object_get(json_object_iter_value(json_object_iter(j.objects)), "key"), 2);
	ck_assert_int_eq(json_integer_value(json_object_get(
				 json_object_get(json_object_iter_value(json_object_iter(j.objects)), "params"), "n")),
			 9);
	journal_fini(&j);
}
END_TEST

START_TEST(a_rewritten_journal_says_the_same)
{
	struct journal_damage damage;
	size_t len;
	char *dump;

	change(put("a", 1), true);
	change(forget("first"), true);
	dump = journal_dump(&file.journal, &len);
	file.len = 0;
	append(dump, len);
	ck_assert_int_eq(load(file.len, &damage), 1);
	change(put("c", 1), true);
	ck_assert_int_eq(load(file.len, &damage), 2);
	ck_assert_uint_eq(damage.line, 0);
}
END_TEST

START_TEST(a_tail_torn_at_any_byte_loses_only_the_unfinished_line)
{
	struct journal_damage damage;
	size_t base = file.len;

	change(put("a", 1), false);
	change(put("b", 2), false);
	change(put("c", 3), false);
	for (size_t len = base; len <= file.len; len++) {
		int whole = 1 + (len >= file.line_end[0]) + (len >= file.line_end[1]) + (len >= file.line_end[2]);
		bool cut = len != base && len != file.line_end[0] && len != file.line_end[1] && len != file.line_end[2];

		ck_assert_int_eq(load(len, &damage), whole);
		ck_assert_int_eq(damage.torn, cut);
	}
}
END_TEST

START_TEST(a_hole_in_what_was_never_durable_is_a_torn_tail)
{
	struct journal_damage damage;

	change(put("a", 1), false);
	change(put("b", 2), false);
	change(put("c", 3), false);
	memset(file.buf + file.line_end[0] + 3, 0, 8); /* the page with line b was lost, that with c was not */
	ck_assert_int_eq(load(file.len, &damage), 2);
	ck_assert(damage.torn);
	ck_assert_uint_eq(damage.line, 4);
}
END_TEST

START_TEST(damage_to_what_was_durable_is_refused_with_its_line)
{
	struct journal_damage damage;
	size_t base = file.len;

	change(put("a", 1), true);
	change(put("b", 2), true);
	/* every byte of everything but the last line, which nobody called durable later */
	for (size_t i = 0; i < file.line_end[0]; i++) {
		file.buf[i] ^= 0x04;
		ck_assert_msg(load(file.len, &damage) < 0, "byte %zu", i);
		ck_assert_uint_gt(damage.line, 0);
		ck_assert_uint_le(damage.line, i < base ? 3 : 4);
		ck_assert(!damage.torn);
		ck_assert_ptr_nonnull(damage.why);
		file.buf[i] ^= 0x04;
	}
}
END_TEST

START_TEST(a_header_that_is_cut_or_another_formats_is_refused)
{
	struct journal_damage damage;
	static char other[] = "00000000 {}\n";
	struct journal j;

	for (size_t len = 0; len < file.len; len++)
		ck_assert_int_lt(load(len, &damage), 0);
	ck_assert_int_eq(journal_init(&j), 0);
	ck_assert_int_lt(journal_load(&j, other, sizeof(other) - 1, &damage), 0);
	journal_fini(&j);
}
END_TEST

START_TEST(a_change_is_whole_or_not_there)
{
	struct journal_damage damage;
	size_t base = file.len;
	json_t *both = put("x", 1), *second = forget("first");

	json_array_extend(both, second);
	json_decref(second);
	change(both, false);
	for (size_t len = base; len < file.len; len++)
		ck_assert_int_eq(load(len, &damage), 1);
	ck_assert_int_eq(load(file.len, &damage), 1);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		what_was_written_comes_back_in_order,
		a_rewritten_journal_says_the_same,
		a_tail_torn_at_any_byte_loses_only_the_unfinished_line,
		a_hole_in_what_was_never_durable_is_a_torn_tail,
		damage_to_what_was_durable_is_refused_with_its_line,
		a_header_that_is_cut_or_another_formats_is_refused,
		a_change_is_whole_or_not_there,
	};

	return run_suite_within("journal", tests, sizeof(tests) / sizeof(tests[0]), 60, setup, teardown);
}
