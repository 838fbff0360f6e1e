/*
 * ferruled: the daemon.  main() reads the options, starts the runtime, and joins the rooms in a fiber of the app thread.
 *
 * Start: target and transport, then volumes, then management, which applies the saved state before it takes calls.  The end is
 * the same backwards: management answers what is under way, the target drains, stores close, devices go.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "bdev/nvme.h"
#include "lvol/lvol.h"
#include "mgmt/mgmt.h"
#include "nvmf/nvmf.h"
#include "runtime/keep.h"
#include "runtime/runtime.h"
#include "target/notify.h"
#include "target/options.h"
#include "target/places.h"
#include "transport/rdma/rdma.h"
#include "transport/tcp/tcp.h"

/* Owner: the app thread, once it runs. */
static struct {
	struct options opts;
	struct nvmf_target *target;
	struct mgmt *mgmt;
	bool started;  /* the start is over, well or not */
	bool ending;   /* asked to end */
	bool ended;    /* the end is under way */
	int result;
} daemon_state;

/* --- the end -------------------------------------------------------------------------------------------------------- */

static void unregistered(void *arg, int status)
{
	fiber_wake(arg, status);
}

/* Leaves only: what stood on them has gone. */
static fiber_fn void remove_devices(void)
{
	struct bdev *bdev;

	while ((bdev = bdev_first())) {
		struct fiber_wait wait;

		fiber_wait_init(&wait);
		bdev_unregister(bdev, unregistered, &wait);
		if (fiber_wait(&wait))
			break;
	}
}

static fiber_fn void end_main(void *arg)
{
	notify_manager("STOPPING=1");
	mgmt_stop(daemon_state.mgmt);
	if (daemon_state.target)
		nvmf_target_destroy(daemon_state.target);
	lvol_fini();
	bdev_nvme_detach_all(); /* drives are shut down, not left to their power-loss recovery */
	remove_devices();
	runtime_stop(daemon_state.result);
}

static void end_when_started(void)
{
	if (!daemon_state.started || daemon_state.ended)
		return;
	daemon_state.ended = true;
	if (fiber_spawn(thread_current(), "end", end_main, NULL))
		_exit(EXIT_FAILURE); /* not even memory for a stack */
}

static void on_terminate(void *arg)
{
	log_notice("ending: answering what is under way");
	daemon_state.ending = true;
	end_when_started();
}

/* --- the start ------------------------------------------------------------------------------------------------------ */

static fiber_fn int start_target(void)
{
	struct nvmf_target_opts opts = { 0 };
	int rc;

	rc = nvmf_target_create(&opts, &daemon_state.target);
	if (!rc)
		rc = nvmf_target_register_transport(daemon_state.target, &tcp_transport_ops);
	if (!rc)
		rc = nvmf_target_register_transport(daemon_state.target, &rdma_transport_ops);
	if (rc)
		log_error("the NVMe-oF target does not start: %s", strerror(-rc));
	return rc;
}

static fiber_fn int start_mgmt(void)
{
	const struct options *o = &daemon_state.opts;
	struct mgmt_opts opts = {
		.target = daemon_state.target,
		.state_dir = o->state_dir,
		.ephemeral = o->ephemeral,
		.rpc_socket = o->rpc_socket,
		.http_addr = o->http_addr,
		.file_dirs = o->file_dirs,
		.nr_file_dirs = o->nr_file_dirs,
	};
	int rc = mgmt_start(&opts, &daemon_state.mgmt);

	if (rc)
		log_error("management does not start: %s", strerror(-rc));
	else if (o->log_level_given)
		log_set_level(o->log_level); /* said now: wins over what was saved */
	return rc;
}

static fiber_fn void start_main(void *arg)
{
	int rc;

	runtime_on_terminate(on_terminate, NULL);
	rc = start_target();
	if (!rc) {
		lvol_init();
		rc = start_mgmt();
	}
	daemon_state.started = true;
	daemon_state.result = rc;
	if (rc || daemon_state.ending) {
		end_when_started();
		return;
	}
	printf("ready %s\n", daemon_state.opts.rpc_socket);
	fflush(stdout);
	notify_manager("READY=1");
	log_notice("ferruled %s is ready on %s%s%s", PACKAGE_VERSION, daemon_state.opts.rpc_socket,
		   daemon_state.opts.ephemeral ? "; ephemeral" : "; state in ",
		   daemon_state.opts.ephemeral ? "" : daemon_state.opts.state_dir);
}

/* Without it the daemon works, and its death is like a power cut's to what was not flushed. */
static void set_keep_folder(const struct options *o, char *dir, size_t size)
{
	int rc = places_keep_dir(dir, size, o->keep_dir, o->state_dir);

	if (!rc)
		rc = keep_set_folder(dir);
	if (rc)
		dir[0] = '\0';
	if (rc && strcmp(o->keep_dir, "none"))
		log_warning("no memory that outlives this process%s%s: %s; should it die alone, writes that were not "
			    "flushed are lost with it (see --keep-dir)", o->keep_dir[0] ? " in " : "", o->keep_dir,
			    rc == -ENOENT ? "no tmpfs is there for it" : strerror(-rc));
}

static int make_places(char *eal_dir, size_t size)
{
	const struct options *o = &daemon_state.opts;
	int rc = places_make_dir(o->state_dir, 0700);

	if (rc) {
		log_error("cannot make the state folder %s: %s", o->state_dir, strerror(-rc));
		return rc;
	}
	rc = places_make_parent(o->rpc_socket, 0755);
	if (rc) {
		log_error("cannot make the folder for %s: %s", o->rpc_socket, strerror(-rc));
		return rc;
	}
	rc = places_eal_dir(eal_dir, size);
	if (rc)
		log_error("cannot make a folder for memory files: %s", strerror(-rc));
	return rc;
}

int main(int argc, char **argv)
{
	struct options *o = &daemon_state.opts;
	char eal_dir[300], keep_dir[600] = "", prefix[32];
	struct runtime_opts opts = { .name = "ferruled", .eal = true };
	int rc;

	options_parse(o, argc, argv);
	if (o->log_level_given)
		log_set_level(o->log_level);
	rc = make_places(eal_dir, sizeof(eal_dir));
	if (rc)
		return EXIT_FAILURE;
	/* Hugepage files of all processes lie in one folder: theirs must be as unlike as their folders, whatever their numbers. */
	snprintf(prefix, sizeof(prefix), "ferrule-%s", strrchr(eal_dir, '/') + 1);
	set_keep_folder(o, keep_dir, sizeof(keep_dir));
	opts.cores = o->cores;
	opts.pin = o->cores != NULL;
	opts.no_huge = o->no_huge;
	opts.file_prefix = prefix;
	opts.runtime_dir = eal_dir;
	opts.mem_mib = o->mem_mib;
	lvol_set_map_cache((uint64_t)o->map_cache_mib << 20, false);
	opts.poll = o->poll;
	opts.idle_us = o->idle_us;
	rc = runtime_run(&opts, start_main, NULL);
	places_remove_dir(eal_dir);
	if (keep_dir[0])
		rmdir(keep_dir); /* unless a store that was not closed in order has left something */
	if (rc)
		log_error("ferruled ends: %s", strerror(-rc));
	return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}
