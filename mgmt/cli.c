/*
 * The CLI: finds the row for a noun and a verb, turns arguments into parameters, calls, and shows the result.  Help and the
 * words for completion are printed from the same rows.
 */
#include "mgmt/cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "mgmt/cli_nvme.h"

#define EXIT_USAGE 2

static bool is_option(const struct cli_arg *arg)
{
	return arg->name[0] == '-';
}

/* --- help ----------------------------------------------------------------------------------------------------------- */

static void print_synopsis(FILE *to, const struct cli_verb *v)
{
	fprintf(to, "ferrule %s%s%s", v->noun, v->verb[0] ? " " : "", v->verb);
	for (const struct cli_arg *a = v->args; a->name; a++) {
		if (!is_option(a))
			fprintf(to, a->required ? " %s" : " [%s]", a->name);
	}
	for (const struct cli_arg *a = v->args; a->name; a++) {
		if (is_option(a) && a->kind == CLI_ARG_FLAG)
			fprintf(to, " [%s]", a->name);
		else if (is_option(a))
			fprintf(to, a->required ? " %s VALUE" : " [%s VALUE]", a->name);
	}
	fputc('\n', to);
}

static int verb_help(const struct cli_verb *v)
{
	printf("Usage: ");
	print_synopsis(stdout, v);
	printf("%s.\n\n", v->help);
	for (const struct cli_arg *a = v->args; a->name; a++)
		printf("  %-18s %s\n", a->name, a->help);
	printf("  %-18s %s\n  %-18s %s\n", "--json", "prints the result as JSON", "--socket PATH",
	       "the daemon's socket (also: FERRULE_SOCKET)");
	return EXIT_SUCCESS;
}

static int noun_help(FILE *to, const char *noun)
{
	bool found = false;

	cli_for_each_verb(v) {
		if (strcmp(v->noun, noun) != 0)
			continue;
		found = true;
		fprintf(to, "  ");
		print_synopsis(to, v);
		fprintf(to, "      %s\n", v->help);
	}
	if (!found)
		cli_error("there is no noun \"%s\"; ferrule --help lists them", noun);
	return found && to == stdout ? EXIT_SUCCESS : EXIT_USAGE;
}

/* The verbs of a noun may stand in more than one table. */
static bool is_first_of_noun(const struct cli_verb *verb)
{
	cli_for_each_verb(v) {
		if (strcmp(v->noun, verb->noun) == 0)
			return v == verb;
	}
	return false;
}

static void noun_line(FILE *to, const char *noun)
{
	fprintf(to, "  %-12s", noun);
	cli_for_each_verb(v) {
		if (strcmp(v->noun, noun) == 0)
			fprintf(to, " %s", v->verb[0] ? v->verb : v->help);
	}
	fputc('\n', to);
}

static int help(FILE *to)
{
	fputs("Usage: ferrule NOUN VERB [ARGUMENT]... [--json] [--socket PATH]\n\n", to);
	cli_for_each_verb(v) {
		if (is_first_of_noun(v))
			noun_line(to, v->noun);
	}
	fputs("  nvme         the host's side, without a daemon: ferrule nvme --help\n\n"
	      "ferrule NOUN --help and ferrule NOUN VERB --help say more.  Sizes read 4096, 512M, 10G, 1.5T.\n",
	      to);
	return to == stdout ? EXIT_SUCCESS : EXIT_USAGE;
}

/* For shell completion: nouns, the verbs of a noun, or the options of a verb, one a line. */
static int complete(const char *noun, const char *verb)
{
	cli_for_each_verb(v) {
		if (!noun && is_first_of_noun(v))
			puts(v->noun);
		else if (noun && !verb && strcmp(v->noun, noun) == 0)
			puts(v->verb);
		for (const struct cli_arg *a = v->args; noun && verb && a->name; a++) {
			if (strcmp(v->noun, noun) == 0 && strcmp(v->verb, verb) == 0 && is_option(a))
				puts(a->name);
		}
	}
	if (!noun)
		puts("nvme");
	return EXIT_SUCCESS;
}

/* --- arguments ------------------------------------------------------------------------------------------------------ */

static int set_argument(json_t *params, const struct cli_arg *arg, const char *text)
{
	json_t *value = NULL;
	uint64_t n;
	char *end;

	switch (arg->kind) {
	case CLI_ARG_STRING:
		value = json_string(text);
		if (!value)
			cli_error("%s: \"%s\" is not valid UTF-8", arg->name, text);
		break;
	case CLI_ARG_NUMBER:
		errno = 0;
		n = strtoull(text, &end, 10);
		if (errno || *end || end == text || text[0] == '-' || n > INT64_MAX)
			cli_error("%s: \"%s\" is not a number", arg->name, text);
		else
			value = json_integer((json_int_t)n);
		break;
	case CLI_ARG_BYTES:
	case CLI_ARG_MIB:
		if (cli_parse_size(text, &n))
			cli_error("%s: \"%s\" is no size such as 4096, 512M or 10G", arg->name, text);
		else if (arg->kind == CLI_ARG_MIB && n % (1024 * 1024))
			cli_error("%s: \"%s\" is not a whole number of MiB", arg->name, text);
		else
			value = json_integer((json_int_t)(arg->kind == CLI_ARG_MIB ? n >> 20 : n));
		break;
	case CLI_ARG_FLAG:
		value = json_true();
		break;
	case CLI_ARG_ON_OFF:
		if (strcmp(text, "on") == 0 || strcmp(text, "off") == 0)
			value = json_boolean(text[1] == 'n');
		else
			cli_error("%s: give on or off, not \"%s\"", arg->name, text);
		break;
	}
	return value ? json_object_set_new(params, arg->key, value) : -1;
}

static const struct cli_arg *find_option(const struct cli_verb *v, const char *word, const char **ret_value)
{
	size_t len = strcspn(word, "=");

	*ret_value = word[len] ? word + len + 1 : NULL;
	for (const struct cli_arg *a = v->args; a->name; a++) {
		if (is_option(a) && strlen(a->name) == len && strncmp(a->name, word, len) == 0)
			return a;
	}
	return NULL;
}

static const struct cli_arg *next_positional(const struct cli_verb *v, json_t *params)
{
	for (const struct cli_arg *a = v->args; a->name; a++) {
		if (!is_option(a) && !json_object_get(params, a->key))
			return a;
	}
	return NULL;
}

/* 0, or the exit status. */
static int parse_arguments(const struct cli_verb *v, int argc, char **argv, json_t *params)
{
	const struct cli_arg *arg;
	const char *value;

	for (int i = 0; i < argc; i++) {
		if (argv[i][0] == '-' && argv[i][1] == '-' && argv[i][2]) {
			arg = find_option(v, argv[i], &value);
			if (!arg) {
				cli_error("there is no option %s here", argv[i]);
				goto out_usage;
			}
			if (arg->kind != CLI_ARG_FLAG && !value && ++i < argc)
				value = argv[i];
			if (arg->kind != CLI_ARG_FLAG && !value) {
				cli_error("%s needs a value", arg->name);
				goto out_usage;
			}
		} else {
			arg = next_positional(v, params);
			value = argv[i];
			if (!arg) {
				cli_error("\"%s\" is one argument too many", argv[i]);
				goto out_usage;
			}
		}
		if (set_argument(params, arg, value))
			return EXIT_USAGE;
	}
	for (arg = v->args; arg->name; arg++) {
		if (arg->required && !json_object_get(params, arg->key)) {
			cli_error("%s is missing: %s", arg->name, arg->help);
			goto out_usage;
		}
	}
	return 0;
out_usage:
	fputs("Usage: ", stderr);
	print_synopsis(stderr, v);
	return EXIT_USAGE;
}

/* --- running -------------------------------------------------------------------------------------------------------- */

static int run_method(struct cli *cli, const struct cli_verb *v, json_t *params)
{
	json_t *result = cli_call(cli, v->method, json_object_size(params) ? json_incref(params) : NULL);

	if (!result)
		return EXIT_FAILURE;
	if (cli->json)
		cli_show_json(result);
	else if (v->columns)
		cli_show_table(result, v->columns, v->what);
	else if (json_is_string(result))
		puts(json_string_value(result));
	else if (!json_is_true(result))
		cli_show_json(result);
	json_decref(result);
	return EXIT_SUCCESS;
}

static int run_verb(struct cli *cli, const struct cli_verb *v, int argc, char **argv)
{
	json_t *params = json_object();
	int status = parse_arguments(v, argc, argv, params);

	if (!status)
		status = v->run ? v->run(cli, params, v) : run_method(cli, v, params);
	json_decref(params);
	return status;
}

/* Takes --socket, --json and --help out of the words, wherever they stand. */
static int take_common(struct cli *cli, int argc, char **argv, bool *ret_help)
{
	int kept = 0;

	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			cli->json = true;
		else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			*ret_help = true;
		else if (strncmp(argv[i], "--socket=", 9) == 0)
			cli->socket = argv[i] + 9;
		else if (strcmp(argv[i], "--socket") == 0 && i + 1 < argc)
			cli->socket = argv[++i];
		else
			argv[kept++] = argv[i];
	}
	return kept;
}

/* A noun without a verb ("status") has the empty one. */
static const struct cli_verb *find_verb(const char *noun, const char *verb)
{
	cli_for_each_verb(v) {
		if (strcmp(v->noun, noun) == 0 && (!v->verb[0] || (verb && strcmp(v->verb, verb) == 0)))
			return v;
	}
	return NULL;
}

int cli_main(int argc, char **argv)
{
	struct cli cli = { .fd = -1 };
	const struct cli_verb *v;
	bool want_help = false;
	int status, skip;

	if (argc > 1 && strcmp(argv[1], "nvme") == 0)
		return cli_nvme(argc - 1, argv + 1);
	argc = take_common(&cli, argc, argv, &want_help);
	if (argc < 2)
		return help(want_help ? stdout : stderr);
	if (strcmp(argv[1], "nvme") == 0) {
		cli_error("nvme talks to no daemon: put it first, without --socket");
		return EXIT_USAGE;
	}
	if (strcmp(argv[1], "--version") == 0) {
		puts("ferrule " PACKAGE_VERSION);
		return EXIT_SUCCESS;
	}
	if (strcmp(argv[1], "--complete") == 0)
		return complete(argc > 2 ? argv[2] : NULL, argc > 3 ? argv[3] : NULL);
	v = find_verb(argv[1], argc > 2 ? argv[2] : NULL);
	if (!v && argc > 2)
		cli_error("%s has no verb \"%s\"", argv[1], argv[2]);
	if (!v)
		return noun_help(want_help ? stdout : stderr, argv[1]);
	if (want_help)
		return verb_help(v);
	skip = v->verb[0] ? 3 : 2;
	status = run_verb(&cli, v, argc - skip, argv + skip);
	cli_close(&cli);
	return status;
}
