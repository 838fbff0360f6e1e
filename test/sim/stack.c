/* Starting and stopping the target in the order in which the daemon does it. */
#include <stdio.h>
#include <stdlib.h>

#include "lvol/lvol.h"
#include "test/sim/stack.h"
#include "transport/tcp/tcp.h"

static struct nvmf_target *target;
static struct stack_opts stack_opts;

static void must(int rc, const char *what)
{
	if (rc == 0)
		return;
	fprintf(stderr, "%s: %d\n", what, rc);
	abort();
}

static fiber_fn void open_store(const struct stack_opts *opts)
{
	const struct lvol_store_create_opts store_opts = {
		.name = "pool", .base_bdev = "disk", .cluster_size_bytes = 128 * 1024
	};
	const struct lvol_create_opts volume_opts = { .name = "vol", .size_bytes = opts->volume_bytes, .thin = true };
	struct lvol_store *store;
	struct lvol *lvol;

	if (opts->create) {
		must(lvol_store_create(&store_opts, &store, NULL), "create the store");
		must(lvol_create(store, &volume_opts, &lvol), "create the volume");
	}
	bdev_wait_for_examine();
	must(bdev_find("pool/vol") ? 0 : -1, "find the volume");
}

fiber_fn void stack_start(const struct stack_opts *opts, struct crash_disk *disk)
{
	const struct nvmf_subsystem_opts subsystem_opts = { .nqn = STACK_NQN, .allow_any_host = true };
	const struct nvmf_target_opts target_opts = { 0 };
	const struct stream_addr addr = { .host = "127.0.0.1", .port = STACK_PORT, .family = AF_INET };
	struct nvmf_ns_opts ns_opts = { .bdev_name = opts->store ? "pool/vol" : "disk" };
	struct nvmf_transport_opts transport_opts;
	struct nvmf_subsystem *subsystem;
	struct bdev *bdev;
	uint32_t nsid;

	stack_opts = *opts;
	if (opts->store)
		lvol_init();
	must(bdev_crash_create("disk", disk, &bdev), "show the disk");
	if (opts->store)
		open_store(opts);
	must(nvmf_target_create(&target_opts, &target), "create the target");
	must(nvmf_target_register_transport(target, &tcp_transport_ops), "register TCP");
	must(nvmf_transport_default_opts(target, "tcp", &transport_opts), "TCP's defaults");
	transport_opts.in_capsule_data_size = opts->in_capsule_data_size;
	transport_opts.max_queue_depth = opts->max_queue_depth;
	transport_opts.c2h_success = opts->c2h_success;
	must(nvmf_transport_create(target, "tcp", &transport_opts), "create TCP");
	must(nvmf_subsystem_create(target, &subsystem_opts, &subsystem), "create the subsystem");
	must(nvmf_subsystem_add_ns(subsystem, &ns_opts, &nsid), "add the namespace");
	must(nvmf_subsystem_add_listener(subsystem, "tcp", &addr), "listen");
}

fiber_fn void stack_stop(void)
{
	nvmf_target_destroy(target);
	if (stack_opts.store)
		lvol_fini();
	bdev_unregister_all();
}
