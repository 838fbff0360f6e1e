/* The methods about the process: which methods there are, versions, reactors, threads, and the log. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "mgmt/methods.h"
#include "runtime/runtime.h"

/* The release whose names and shapes we speak. */
#define DIALECT_MAJOR 26
#define DIALECT_MINOR 9

static void add_name(const struct rpc_method *method, void *arg)
{
	json_array_append_new(arg, json_string(method->name));
}

static const struct rpc_param get_methods_params[] = {
	{ "current", RPC_BOOL, 0, NULL },
	{ "include_aliases", RPC_BOOL, 0, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void get_methods(struct rpc_call *call)
{
	json_t *names = json_array();

	rpc_for_each(add_name, names);
	rpc_ok(call, names);
}

static fiber_fn void get_version(struct rpc_call *call)
{
	char version[64];

	snprintf(version, sizeof(version), "SPDK v%d.%02d-pre (Ferrule %s)", DIALECT_MAJOR, DIALECT_MINOR, PACKAGE_VERSION);
	rpc_ok(call, json_pack("{s:s,s:{s:i,s:i,s:i,s:s},s:s}", "version", version, "fields", "major", DIALECT_MAJOR, "minor",
			       DIALECT_MINOR, "patch", 0, "suffix", "-pre", "ferrule", PACKAGE_VERSION));
}

/* --- reactors and threads ------------------------------------------------------------------------------------------- */

static json_t *cpumask_json(unsigned reactor)
{
	char text[40];
	unsigned core = runtime_reactor_core(reactor);

	if (core < 64)
		snprintf(text, sizeof(text), "%llx", 1ull << core);
	else
		snprintf(text, sizeof(text), "%llx%0*d", 1ull << core % 4, (int)(core / 4), 0);
	return json_string(text);
}

struct collect {
	json_t *array;
	unsigned reactor;
};

static void add_lw_thread(const struct thread_info *info, void *arg)
{
	struct collect *c = arg;

	if (info->reactor == c->reactor)
		json_array_append_new(c->array, json_pack("{s:s,s:I,s:o,s:I}", "name", info->name, "id", (json_int_t)info->id,
							  "cpumask", cpumask_json(info->reactor), "elapsed",
							  (json_int_t)info->elapsed_ticks));
}

/* What the kernel has counted for a core, in its clock ticks: user, system, and interrupts. */
static void read_core_times(unsigned core, unsigned long long *usr, unsigned long long *sys, unsigned long long *irq)
{
	unsigned long long v[7];
	char line[512], name[16];
	FILE *f = fopen("/proc/stat", "re");

	*usr = *sys = *irq = 0;
	snprintf(name, sizeof(name), "cpu%u ", core);
	while (f && fgets(line, sizeof(line), f)) {
		if (strncmp(line, name, strlen(name)) == 0 &&
		    sscanf(line + strlen(name), "%llu %llu %llu %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5],
			   &v[6]) == 7) {
			*usr = v[0] + v[1];
			*sys = v[2];
			*irq = v[5] + v[6];
			break;
		}
	}
	if (f)
		fclose(f);
}

/* The node that a core belongs to, by the link nodeN in its folder; 0 when the kernel does not tell. */
static int numa_id_of(unsigned core)
{
	struct dirent *entry;
	char path[64];
	int node = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%u", core);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		if (sscanf(entry->d_name, "node%d", &node) == 1)
			break;
	}
	if (dir)
		closedir(dir);
	return node;
}

static fiber_fn void get_reactors(struct rpc_call *call)
{
	json_t *reactors = json_array();
	struct reactor_info info;

	for (unsigned i = 0; runtime_reactor_info(i, &info) == 0; i++) {
		struct collect c = { json_array(), i };
		unsigned long long usr, sys, irq;

		read_core_times(info.core, &usr, &sys, &irq);
		thread_walk(add_lw_thread, &c);
		json_array_append_new(reactors,
				      json_pack("{s:I,s:i,s:I,s:I,s:I,s:b,s:I,s:I,s:I,s:o}", "lcore", (json_int_t)info.core,
						"numa_id", numa_id_of(info.core), "tid", (json_int_t)info.tid, "busy",
						(json_int_t)info.busy_ticks, "idle",
						(json_int_t)(info.idle_ticks + info.sleep_ticks), "in_interrupt", info.asleep,
						"irq", (json_int_t)irq, "sys", (json_int_t)sys, "usr", (json_int_t)usr,
						"lw_threads", c.array));
	}
	rpc_ok(call, json_pack("{s:I,s:i,s:o}", "tick_rate", (json_int_t)clock_tick_rate(), "pid", (int)getpid(), "reactors",
			       reactors));
}

static void add_thread(const struct thread_info *info, void *arg)
{
	const struct thread_stats *s = &info->stats;

	json_array_append_new(arg, json_pack("{s:s,s:I,s:o,s:I,s:I,s:i,s:i,s:i}", "name", info->name, "id",
					     (json_int_t)info->id, "cpumask", cpumask_json(info->reactor), "busy",
					     (json_int_t)s->busy_ticks, "idle", (json_int_t)s->idle_ticks,
					     "active_pollers_count", s->nr_active_pollers, "timed_pollers_count",
					     s->nr_timed_pollers, "paused_pollers_count", s->nr_paused_pollers));
}

static fiber_fn void get_thread_stats(struct rpc_call *call)
{
	json_t *threads = json_array();

	thread_walk(add_thread, threads);
	rpc_ok(call, json_pack("{s:I,s:o}", "tick_rate", (json_int_t)clock_tick_rate(), "threads", threads));
}

/* --- log ------------------------------------------------------------------------------------------------------------ */

static const struct rpc_param set_level_params[] = {
	{ "level", RPC_STRING, RPC_REQUIRED, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void set_level(struct rpc_call *call)
{
	enum log_level level;

	if (log_level_from_name(rpc_string(call, "level", ""), &level)) {
		rpc_fail_param(call, "level", "level is one of ERROR, WARNING, NOTICE, INFO, DEBUG, in capitals");
		return;
	}
	log_set_level(level);
	rpc_save(call, STATE_LOG, "", "level");
	rpc_ok(call, NULL);
}

static fiber_fn void get_level(struct rpc_call *call)
{
	rpc_ok(call, json_string(log_level_name(log_get_level())));
}

const struct rpc_method app_methods[] = {
	{ .name = "rpc_get_methods", .handler = get_methods, .params = get_methods_params },
	{ .name = "spdk_get_version", .handler = get_version },
	{ .name = "framework_get_reactors", .handler = get_reactors },
	{ .name = "thread_get_stats", .handler = get_thread_stats },
	{ .name = "log_set_level", .handler = set_level, .params = set_level_params, .changes = true },
	{ .name = "log_get_level", .handler = get_level },
	{ .name = NULL },
};
