/* Results for people: aligned tables made of JSON arrays by a list of columns. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mgmt/cli.h"

#define MAX_COLUMNS 12

json_t *cli_at(json_t *value, const char *path)
{
	char part[64];

	while (value && *path) {
		size_t len = strcspn(path, ".");

		snprintf(part, sizeof(part), "%.*s", (int)len, path);
		if (json_is_array(value))
			value = json_array_get(value, strtoul(part, NULL, 10));
		else
			value = json_object_get(value, part);
		path += len;
		if (*path == '.')
			path++;
	}
	return value;
}

static uint64_t number_at(json_t *row, const char *path)
{
	const char *times = strchr(path, '*');
	char left[64];

	if (!times)
		return (uint64_t)json_integer_value(cli_at(row, path));
	snprintf(left, sizeof(left), "%.*s", (int)(times - path), path);
	return number_at(row, left) * number_at(row, times + 1);
}

/* As asprintf(). */
static int format_age(uint64_t seconds, char **ret_text)
{
	if (seconds < 120)
		return asprintf(ret_text, "%" PRIu64 " s ago", seconds);
	if (seconds < 120 * 60)
		return asprintf(ret_text, "%" PRIu64 " min ago", seconds / 60);
	return asprintf(ret_text, "%" PRIu64 " h ago", seconds / 3600);
}

/* The text of a cell; free() it. */
static char *cell(json_t *row, const struct cli_column *column)
{
	json_t *v = strchr(column->path, '*') ? NULL : cli_at(row, column->path);
	char buf[32], *text = NULL;
	int rc = 0;

	switch (column->kind) {
	case CLI_TEXT:
		if (json_is_string(v))
			rc = asprintf(&text, "%s", json_string_value(v));
		else
			text = v && !json_is_null(v) ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY) : strdup("-");
		break;
	case CLI_COUNT:
		if (json_is_integer(v) && json_integer_value(v) < 0) { /* -1: not said */
			text = strdup("-");
			break;
		}
		rc = asprintf(&text, "%" PRIu64, number_at(row, column->path));
		break;
	case CLI_SIZE:
		if (json_is_null(v))
			text = strdup("-");
		else
			rc = asprintf(&text, "%s", cli_format_size(number_at(row, column->path), buf));
		break;
	case CLI_YES_NO:
		text = strdup(json_is_true(v) ? "yes" : "no");
		break;
	case CLI_AGE:
		if (!json_is_integer(v))
			text = strdup("-");
		else
			rc = format_age((uint64_t)json_integer_value(v) / 1000, &text);
		break;
	case CLI_LENGTH:
		rc = asprintf(&text, "%zu", json_array_size(v));
		break;
	}
	if (rc < 0 || !text)
		abort(); /* no memory for a word */
	return text;
}

void cli_show_table(json_t *array, const struct cli_column *columns, const char *what)
{
	size_t nr_rows = json_array_size(array), nr_columns = 0, width[MAX_COLUMNS];
	char **cells;

	if (!nr_rows) {
		printf("no %s\n", what);
		return;
	}
	while (columns[nr_columns].title)
		nr_columns++;
	cells = calloc(nr_rows * nr_columns, sizeof(*cells));
	if (!cells)
		abort();
	for (size_t c = 0; c < nr_columns; c++) {
		width[c] = strlen(columns[c].title);
		for (size_t r = 0; r < nr_rows; r++) {
			char *text = cell(json_array_get(array, r), &columns[c]);

			cells[r * nr_columns + c] = text;
			if (strlen(text) > width[c])
				width[c] = strlen(text);
		}
	}
	for (size_t c = 0; c < nr_columns; c++)
		printf("%-*s", c + 1 < nr_columns ? (int)width[c] + 2 : 0, columns[c].title);
	putchar('\n');
	for (size_t i = 0; i < nr_rows * nr_columns; i++) {
		bool last = i % nr_columns + 1 == nr_columns;

		printf("%-*s%s", last ? 0 : (int)width[i % nr_columns] + 2, cells[i], last ? "\n" : "");
		free(cells[i]);
	}
	free(cells);
}

void cli_show_json(json_t *value)
{
	char *text = json_dumps(value, JSON_INDENT(2) | JSON_ENCODE_ANY);

	if (text)
		puts(text);
	free(text);
}

int cli_show(struct cli *cli, json_t *result, const struct cli_verb *v)
{
	if (!result)
		return EXIT_FAILURE;
	if (cli->json)
		cli_show_json(result);
	else if (v->columns)
		cli_show_table(result, v->columns, v->what);
	else if (json_is_string(result))
		puts(json_string_value(result));
	else if (json_is_integer(result))
		printf("%" JSON_INTEGER_FORMAT "\n", json_integer_value(result));
	json_decref(result);
	return EXIT_SUCCESS;
}
