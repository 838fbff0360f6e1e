/*
 * DPDK's environment: started for its memory alone, with files of its own, as an ordinary user.
 *
 * No PCI scan, no telemetry; virtual addresses as I/O addresses, since those are all that an ordinary user has.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <rte_eal.h>
#include <rte_errno.h>

#include "runtime/internal.h"

#define ARGS_MAX 24

/* DPDK keeps pointers into its arguments. */
static char arg_text[ARGS_MAX][128];
static char *arg_list[ARGS_MAX + 1];
static int nr_args;

static void add_arg(const char *text)
{
	snprintf(arg_text[nr_args], sizeof(arg_text[nr_args]), "%s", text);
	arg_list[nr_args] = arg_text[nr_args];
	arg_list[++nr_args] = NULL;
}

static void build_args(const struct runtime_opts *opts, unsigned mem_mib, unsigned main_core)
{
	char text[128];

	nr_args = 0;
	add_arg(opts->name ? opts->name : "ferrule");
	snprintf(text, sizeof(text), "0@%u", main_core);
	add_arg("--lcores");
	add_arg(text);
	snprintf(text, sizeof(text), "%u", mem_mib);
	add_arg("-m");
	add_arg(text);
	if (opts->no_huge)
		add_arg("--no-huge");
	else
		add_arg("--huge-unlink"); /* or what a process had stays taken when it has ended, killed or not */
	if (opts->file_prefix) {
		add_arg("--file-prefix");
		add_arg(opts->file_prefix);
	}
	add_arg("--iova-mode=va");
	add_arg("--no-pci");
	add_arg("--no-telemetry");
	add_arg("--log-level=error");
}

static int make_runtime_dir(const char *dir)
{
	if (mkdir(dir, 0700) && errno != EEXIST) {
		int rc = -errno;

		log_error("cannot make the runtime folder %s: %s", dir, strerror(-rc));
		return rc;
	}
	return 0;
}

/* DPDK takes the folder for its files from the environment. */
static int eal_init_in(const char *dir)
{
	const char *before = getenv("RUNTIME_DIRECTORY");
	char *saved = before ? strdup(before) : NULL;
	int rc;

	if (dir)
		setenv("RUNTIME_DIRECTORY", dir, 1);
	rc = rte_eal_init(nr_args, arg_list);
	if (dir && saved)
		setenv("RUNTIME_DIRECTORY", saved, 1);
	else if (dir)
		unsetenv("RUNTIME_DIRECTORY");
	free(saved);
	return rc < 0 ? -(rte_errno ? rte_errno : EIO) : 0;
}

int eal_start(const struct runtime_opts *opts, unsigned mem_mib, unsigned main_core)
{
	cpu_set_t affinity;
	int rc;

	if (opts->runtime_dir) {
		rc = make_runtime_dir(opts->runtime_dir);
		if (rc)
			return rc;
	}
	build_args(opts, mem_mib, main_core);
	/* EAL pins the caller; whether reactors are pinned is for the options to say. */
	sched_getaffinity(0, sizeof(affinity), &affinity);
	rc = eal_init_in(opts->runtime_dir);
	sched_setaffinity(0, sizeof(affinity), &affinity);
	if (rc) {
		log_error("DPDK does not start with %u MiB %s hugepages: %s", mem_mib, opts->no_huge ? "without" : "of",
			  strerror(-rc));
		return rc;
	}
	memory_use_eal(true);
	return 0;
}

void eal_stop(void)
{
	memory_use_eal(false);
	rte_eal_cleanup();
}
