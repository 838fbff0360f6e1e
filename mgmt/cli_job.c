/* The command line of jobs and events: lists, waiting with a bar on the terminal, and following what happens. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mgmt/cli.h"

#define BAR_WIDTH	30
#define LOOK_TTY_MS	200
#define LOOK_MS		60000
#define EVENT_WAIT_MS	600000
#define EXIT_INTERRUPTED 130

/* --- waiting -------------------------------------------------------------------------------------------------------- */

/* What an interrupt says; set while a job is waited for. */
static char interrupt_text[160];

static void interrupted(int number)
{
	ssize_t rc = write(STDERR_FILENO, interrupt_text, strlen(interrupt_text));

	_exit(rc < 0 ? EXIT_FAILURE : EXIT_INTERRUPTED);
}

static void draw(json_t *job)
{
	json_int_t done = json_integer_value(json_object_get(job, "done"));
	json_int_t total = json_integer_value(json_object_get(job, "total"));
	int filled = total > 0 ? (int)((double)(done < total ? done : total) * BAR_WIDTH / (double)total) : 0;
	char bar[BAR_WIDTH + 1];

	memset(bar, '-', BAR_WIDTH);
	memset(bar, '#', (size_t)filled);
	bar[BAR_WIDTH] = '\0';
	fprintf(stderr, "\r%s %s [%s] %3d %% %" JSON_INTEGER_FORMAT "/%" JSON_INTEGER_FORMAT " %s\033[K",
		json_string_value(json_object_get(job, "kind")), json_string_value(json_object_get(job, "object")), bar,
		total > 0 ? (int)((double)done * 100 / (double)total) : 0, done, total,
		json_string_value(json_object_get(job, "unit")));
}

static bool has_ended(json_t *job)
{
	return json_object_get(job, "ended_ms") != NULL;
}

/* The job when it has ended; NULL with the reason said. */
static json_t *wait_job(struct cli *cli, json_int_t id)
{
	bool tty = isatty(STDERR_FILENO) && !cli->json;
	json_t *job = NULL;

	snprintf(interrupt_text, sizeof(interrupt_text),
		 "%sjob %" JSON_INTEGER_FORMAT " goes on; ferrule job cancel %" JSON_INTEGER_FORMAT " ends it\n", tty ? "\n" : "", id,
		 id);
	signal(SIGINT, interrupted);
	do {
		json_decref(job);
		job = cli_call(cli, "job_wait",
			       json_pack("{s:I,s:i}", "job_id", id, "timeout_ms", tty ? LOOK_TTY_MS : LOOK_MS));
		if (job && tty)
			draw(job);
	} while (job && !has_ended(job));
	if (tty)
		fputc('\n', stderr);
	signal(SIGINT, SIG_DFL);
	return job;
}

/* Says why a job failed, if it has. */
static bool ended_well(struct cli *cli, json_t *job)
{
	const char *detail = json_string_value(cli_at(job, "error.detail"));

	if (!json_object_get(job, "error"))
		return true;
	if (!cli->json)
		cli_error("%s of %s: %s%s%s", json_string_value(json_object_get(job, "kind")),
			  json_string_value(json_object_get(job, "object")), json_string_value(cli_at(job, "error.message")),
			  detail ? "\n  " : "", detail ? detail : "");
	return false;
}

json_t *cli_run_job(struct cli *cli, const char *method, json_t *params)
{
	json_t *started, *job;

	json_object_set_new(params, "background", json_true());
	started = cli_call(cli, method, params);
	if (!started)
		return NULL;
	job = wait_job(cli, json_integer_value(json_object_get(started, "job_id")));
	json_decref(started);
	if (job && !ended_well(cli, job)) {
		if (cli->json)
			cli_show_json(job);
		json_decref(job);
		return NULL;
	}
	return job;
}

int cli_job_verb(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	json_t *params = json_deep_copy(args), *job, *id;

	if (json_object_get(args, "background")) {
		job = cli_call(cli, v->method, params);
		id = json_object_get(job, "job_id");
		if (job && cli->json)
			cli_show_json(job);
		else if (job)
			printf("%" JSON_INTEGER_FORMAT "\n", json_integer_value(id));
	} else {
		job = cli_run_job(cli, v->method, params);
		if (job && cli->json)
			cli_show_json(job);
	}
	json_decref(job);
	return job ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- jobs ----------------------------------------------------------------------------------------------------------- */

static const struct cli_column job_columns[] = {
	{ "JOB", "job_id", CLI_COUNT },
	{ "KIND", "kind", CLI_TEXT },
	{ "OBJECT", "object", CLI_TEXT },
	{ "STATE", "state", CLI_TEXT },
	{ "DONE", "done", CLI_COUNT },
	{ "OF", "total", CLI_COUNT },
	{ "UNIT", "unit", CLI_TEXT },
	{ NULL, NULL, 0 },
};

static int show_job(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	json_t *jobs = cli_call(cli, v->method, json_incref(args));

	if (jobs)
		cli_show_json(json_array_get(jobs, 0));
	json_decref(jobs);
	return jobs ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int wait_verb(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	json_t *job = wait_job(cli, json_integer_value(json_object_get(args, "job_id")));
	bool well = job && ended_well(cli, job);

	if (job && cli->json)
		cli_show_json(job);
	json_decref(job);
	return well ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int cancel_verb(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	json_t *job = cli_call(cli, v->method, json_incref(args));

	if (job && cli->json)
		cli_show_json(job);
	else if (job)
		printf("%s\n", json_string_value(json_object_get(job, "state")));
	json_decref(job);
	return job ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- events --------------------------------------------------------------------------------------------------------- */

static void show_event(struct cli *cli, json_t *event)
{
	json_int_t ms = json_integer_value(json_object_get(event, "time_ms"));
	time_t seconds = (time_t)(ms / 1000);
	char when[32], *text;
	struct tm tm;

	if (cli->json) {
		text = json_dumps(event, JSON_COMPACT);
		puts(text ? text : "null");
		free(text);
		return;
	}
	localtime_r(&seconds, &tm);
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
	printf("%s.%03d  %-18s %s\n", when, (int)(ms % 1000), json_string_value(json_object_get(event, "type")),
	       json_string_value(json_object_get(event, "text")));
}

/* Those there are, and with --follow each as it comes.  As JSON: one a line. */
static int events_verb(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	bool follow = json_is_true(json_object_get(args, "follow")), more;
	json_t *params = json_pack("{s:i}", "max", 500), *read, *event;
	size_t i;

	if (json_object_get(args, "after"))
		json_object_set(params, "after", json_object_get(args, "after"));
	do {
		read = cli_call(cli, v->method, json_incref(params));
		if (json_is_true(json_object_get(read, "missed")))
			fputs("ferrule: some events before these are lost\n", stderr);
		json_array_foreach(json_object_get(read, "events"), i, event)
			show_event(cli, event);
		fflush(stdout);
		more = json_array_size(json_object_get(read, "events")) > 0;
		json_object_set(params, "after", json_object_get(read, "last"));
		if (follow)
			json_object_set_new(params, "timeout_ms", json_integer(EVENT_WAIT_MS));
		json_decref(read);
	} while (read && (more || follow));
	json_decref(params);
	return read ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- the rows ------------------------------------------------------------------------------------------------------- */

#define JOB { "JOB", CLI_ARG_NUMBER, "job_id", true, "its number" }

const struct cli_verb cli_job_verbs[] = {
	{ "job", "list", "lists long operations under way, and the newest that ended", { { 0 } }, .method = "job_get_jobs",
	  .columns = job_columns, .what = "jobs" },
	{ "job", "show", "shows all of a job", { JOB }, .method = "job_get_jobs", .run = show_job },
	{ "job", "wait", "waits for a job's end; status 1 when it ends badly", { JOB }, .run = wait_verb },
	{ "job", "cancel", "ends a job; what it has done stays done", { JOB }, .method = "job_cancel", .run = cancel_verb },
	{ "job", "forget", "takes a job that ended off the list", { JOB }, .method = "job_forget" },

	{ "events", "", "shows what happened: stores that fill or fail, jobs that ended",
	  { { "--follow", CLI_ARG_FLAG, "follow", false, "goes on as they come" },
	    { "--after", CLI_ARG_NUMBER, "after", false, "only those behind this number" } },
	  .method = "event_get_events", .run = events_verb },
	{ .noun = NULL },
};
