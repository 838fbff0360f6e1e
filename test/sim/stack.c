/* Starting and stopping the target in the order in which the daemon does it. */
#include <stdio.h>
#include <stdlib.h>

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
	must(bdev_crash_create("disk", disk, &bdev), "show the disk");
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
	bdev_unregister_all();
}
