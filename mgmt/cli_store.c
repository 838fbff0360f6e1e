/*
 * `ferrule store check`: reads the store in a file or block device and proves it, in a runtime of its own, without a daemon;
 * or has the daemon check one of its stores while I/O goes on.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bdev/bdev.h"
#include "blob/blob.h"
#include "mgmt/cli.h"
#include "runtime/runtime.h"

#define DEVICE "checked"

/* The least there can be: the second superblock lies at 1 MiB, and the smallest cluster holds it. */
#define STORE_MIN_BYTES (1024 * 1024 + BLOB_CLUSTER_MIN)

static const char *const kinds[] = {
	[STORE_FINDING_COPY] = "copy",	 [STORE_FINDING_LOST] = "lost",	      [STORE_FINDING_COUNT] = "count",
	[STORE_FINDING_MAP] = "map",	 [STORE_FINDING_JOURNAL] = "journal",
};

struct check {
	const char *path;
	bool json;
	json_t *findings;
	struct store_check_result result;
	struct blob_reason reason;
	int rc;
};

static void found(const struct store_finding *finding, void *arg)
{
	struct check *check = arg;

	if (check->json)
		json_array_append_new(check->findings, json_pack("{s:s,s:I,s:s}", "kind", kinds[finding->kind], "page",
								 (json_int_t)finding->page, "text", finding->text));
	else
		printf("%-8s page %" PRIu64 ": %s\n", kinds[finding->kind], finding->page, finding->text);
}

static void unregistered(void *arg, int status)
{
	fiber_wake(arg, status);
}

static fiber_fn void check_main(void *arg)
{
	struct check *check = arg;
	struct bdev_uring_opts opts = { .name = DEVICE, .filename = check->path, .read_only = true };
	struct fiber_wait wait;
	struct bdev *bdev;

	check->rc = bdev_uring_create(&opts, &bdev);
	if (check->rc) {
		snprintf(check->reason.text, sizeof(check->reason.text), "it cannot be opened");
		runtime_stop(0);
		return;
	}
	check->rc = store_check(DEVICE, found, check, &check->result, &check->reason);
	fiber_wait_init(&wait);
	bdev_unregister(bdev, unregistered, &wait);
	fiber_wait(&wait);
	runtime_stop(0);
}

static void show(struct check *check)
{
	const struct store_check_result *r = &check->result;

	if (check->json) {
		json_t *out = json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:O}", "generation", (json_int_t)r->generation, "pages",
					(json_int_t)r->nr_pages, "volumes", (json_int_t)r->nr_blobs, "nodes",
					(json_int_t)r->nr_nodes, "used_clusters", (json_int_t)r->nr_used_clusters, "records",
					(json_int_t)r->nr_records, "nr_findings", (json_int_t)r->nr_findings, "findings",
					check->findings);

		cli_show_json(out);
		json_decref(out);
		return;
	}
	printf("%s: %" PRIu64 " findings; generation %" PRIu64 ", %" PRIu64 " pages, %" PRIu64 " volumes, %" PRIu64
	       " map nodes, %" PRIu64 " used clusters, %" PRIu64 " journal records\n",
	       check->path, r->nr_findings, r->generation, r->nr_pages, r->nr_blobs, r->nr_nodes, r->nr_used_clusters,
	       r->nr_records);
}

static int check_online(struct cli *cli, const char *name)
{
	json_t *job = cli_run_job(cli, "bdev_lvol_check_lvstore", json_pack("{s:s}", "lvs_name", name)), *result, *f;
	json_int_t nr_findings;
	size_t i;

	if (!job)
		return EXIT_FAILURE;
	result = json_object_get(job, "result");
	nr_findings = json_integer_value(json_object_get(result, "nr_findings"));
	if (cli->json) {
		cli_show_json(result);
	} else {
		json_array_foreach(json_object_get(result, "findings"), i, f)
			printf("%-8s page %" JSON_INTEGER_FORMAT ": %s\n", json_string_value(json_object_get(f, "kind")),
			       json_integer_value(json_object_get(f, "page")), json_string_value(json_object_get(f, "text")));
		printf("%s: %" JSON_INTEGER_FORMAT " findings in %" JSON_INTEGER_FORMAT " pages\n", name, nr_findings,
		       json_integer_value(json_object_get(result, "pages")));
	}
	json_decref(job);
	return nr_findings ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* Of a file that was found to be no store, or could not even be looked at: whether it is just too short for one. */
static bool too_short(const struct check *check)
{
	struct stat st;

	if (check->rc == -EUCLEAN || stat(check->path, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size >= STORE_MIN_BYTES)
		return false;
	/* A whole page can be read: what fails then is the drive below. */
	if (check->rc != -EINVAL && check->rc != -EILSEQ && st.st_size >= 4096)
		return false;
	cli_error("%s: it is too short for a store: %lld bytes, and the smallest has %lld", check->path, (long long)st.st_size,
		  (long long)STORE_MIN_BYTES);
	return true;
}

int cli_store_check(struct cli *cli, json_t *args, const struct cli_verb *verb)
{
	struct runtime_opts opts = { .name = "ferrule" };
	struct check check = {
		.path = json_string_value(json_object_get(args, "path")),
		.json = cli->json,
		.findings = json_array(),
	};
	int status = EXIT_FAILURE;

	/* Stores' names have no slash; a file in this folder is ./NAME. */
	if (!strchr(check.path, '/') && access(check.path, F_OK) < 0) {
		json_decref(check.findings);
		return check_online(cli, check.path);
	}
	log_set_level(LOG_ERROR);
	if (runtime_run(&opts, check_main, &check)) {
		cli_error("store check: the runtime does not start");
	} else if (check.rc && !too_short(&check)) {
		/* EILSEQ stands for bytes that are no store: its own text speaks of characters. */
		cli_error("%s: %s%s%s", check.path, check.reason.text[0] ? check.reason.text : "it could not be checked",
			  check.rc == -EILSEQ ? "" : ": ", check.rc == -EILSEQ ? "" : strerror(-check.rc));
	} else if (!check.rc) {
		show(&check);
		status = check.result.nr_findings ? EXIT_FAILURE : EXIT_SUCCESS;
	}
	json_decref(check.findings);
	return status;
}
