/*
 * The command line: nouns and verbs, each a row of a table that says which method it calls, what arguments it takes and how
 * the result is shown.  Parsing, help and completion are made from the tables.
 */
#ifndef MGMT_CLI_H
#define MGMT_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- cli_client.c: asking the daemon -------------------------------------------------------------------------------- */

struct cli {
	const char *socket; /* NULL: the default of who runs it */
	bool json;
	int fd; /* -1: not connected */
	char *in;
	size_t in_len, in_pos;
};

/* The exit status of a failed call has been decided and its reason said when NULL is returned: leave with status 1. */
json_t *cli_call(struct cli *cli, const char *method, json_t *params); /* takes params; a new reference */
/* The same without a word: *ret_error gets the error object, or NULL when there was no answer at all (that is said). */
json_t *cli_try(struct cli *cli, const char *method, json_t *params, json_t **ret_error);
void cli_close(struct cli *cli);
void cli_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* --- cli_size.c: sizes for people ----------------------------------------------------------------------------------- */

/* "10G", "512MiB", "1.5T", "4096": bytes, in powers of 1024.  0 or -EINVAL. */
int cli_parse_size(const char *text, uint64_t *ret_bytes);
/* "10 GiB", "1.50 TiB"; exact bytes below 1 KiB. */
const char *cli_format_size(uint64_t bytes, char buf[32]);

/* --- cli_show.c: tables --------------------------------------------------------------------------------------------- */

enum cli_column_kind { CLI_TEXT, CLI_COUNT, CLI_SIZE, CLI_YES_NO, CLI_AGE /* in ms */, CLI_LENGTH /* of an array */ };

struct cli_column {
	const char *title;
	const char *path; /* members separated by dots, a number indexes an array; "a*b" multiplies two numbers */
	enum cli_column_kind kind;
};

/* Aligned columns of the elements of an array; says so when there is none. */
void cli_show_table(json_t *array, const struct cli_column *columns, const char *what);
void cli_show_json(json_t *value);
/* The member at a dotted path; NULL: none.  Borrowed. */
json_t *cli_at(json_t *value, const char *path);

/* --- cli_verbs.c: the tables ---------------------------------------------------------------------------------------- */

enum cli_arg_kind {
	CLI_ARG_STRING,
	CLI_ARG_NUMBER,
	CLI_ARG_BYTES, /* a size; the key gets bytes */
	CLI_ARG_MIB,   /* a size; the key gets MiB, and it must be whole */
	CLI_ARG_FLAG,  /* an option without a value; the key gets true */
	CLI_ARG_ON_OFF,
};

/* An argument.  name "NAME" in capitals is positional, "--name" an option. */
struct cli_arg {
	const char *name;
	enum cli_arg_kind kind;
	const char *key; /* in the parameters */
	bool required;
	const char *help;
};

#define CLI_MAX_ARGS 14

struct cli_verb {
	const char *noun, *verb;
	const char *help;
	struct cli_arg args[CLI_MAX_ARGS]; /* ends with a NULL name */
	/* either a method whose parameters are the arguments' keys … */
	const char *method;
	const struct cli_column *columns; /* how its result is shown; NULL: as it is, true as nothing */
	const char *what;		  /* what is listed */
	/* … or a function; gives the exit status.  args: an object of the arguments' keys; borrowed */
	int (*run)(struct cli *cli, json_t *args, const struct cli_verb *verb);
};

/* Tables of verbs in the order of the help; each ends with a NULL noun, the last pointer is NULL. */
extern const struct cli_verb *const cli_tables[];

#define cli_for_each_verb(v)                                                     \
	for (const struct cli_verb *const *cli_table = cli_tables; *cli_table; cli_table++) \
		for (const struct cli_verb *v = *cli_table; v->noun; v++)

extern const struct cli_verb cli_storage_verbs[]; /* cli_storage.c: stores and volumes */
extern const struct cli_verb cli_controller_verbs[]; /* cli_controller.c: NVMe controllers, the host's drives */
extern const struct cli_verb cli_job_verbs[];	  /* cli_job.c: jobs and events */

/* Shows what a verb's method has answered, if it has: the exit status.  Takes result. */
int cli_show(struct cli *cli, json_t *result, const struct cli_verb *v);

/* cli_job.c: calls a method that makes a job, and waits for its end with a bar on the terminal.  The job as it ended (params taken; a
 * new reference); NULL with the reason said. */
json_t *cli_run_job(struct cli *cli, const char *method, json_t *params);
/* For rows: as --background says, the job's number at once, or its end. */
int cli_job_verb(struct cli *cli, json_t *args, const struct cli_verb *v);
#define CLI_BACKGROUND { "--background", CLI_ARG_FLAG, "background", false, "prints the job's number instead of waiting" }

/* cli_store.c: looks at the store in a file or device, without a daemon */
int cli_store_check(struct cli *cli, json_t *args, const struct cli_verb *verb);

/* --- cli.c ---------------------------------------------------------------------------------------------------------- */

int cli_main(int argc, char **argv);

#endif
