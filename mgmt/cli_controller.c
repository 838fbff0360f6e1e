/* The command line of NVMe controllers: drives here, and namespaces of other targets; and of the host's drives (host). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mgmt/cli.h"
#include "mgmt/cli_host.h"

#define NAME { "NAME", CLI_ARG_STRING, "name", true, "of the controller, such as Nvme0" }
#define CNTLID { "--cntlid", CLI_ARG_NUMBER, "cntlid", false, "of the path with this controller identifier; default: all" }

/* One row for each path. */
static int list_controllers(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	static const struct cli_column columns[] = {
		{ "NAME", "name", CLI_TEXT },
		{ "STATE", "path.state", CLI_TEXT },
		{ "CNTLID", "path.cntlid", CLI_COUNT },
		{ "TYPE", "path.trid.trtype", CLI_TEXT },
		{ "ADDRESS", "path.trid.traddr", CLI_TEXT },
		{ "SERVICE", "path.trid.trsvcid", CLI_TEXT },
		{ "SUBSYSTEM", "path.trid.subnqn", CLI_TEXT },
		{ "RESETS", "path.resets", CLI_COUNT },
		{ NULL, NULL, 0 },
	};
	json_t *controllers = cli_call(cli, v->method, json_incref(args)), *rows, *controller, *path;
	size_t i, j;

	if (!controllers)
		return EXIT_FAILURE;
	if (cli->json) {
		cli_show_json(controllers);
	} else {
		rows = json_array();
		json_array_foreach(controllers, i, controller)
			json_array_foreach(json_object_get(controller, "ctrlrs"), j, path)
				json_array_append_new(rows, json_pack("{s:O,s:O}", "name", json_object_get(controller, "name"),
								      "path", path));
		cli_show_table(rows, columns, "controllers");
		json_decref(rows);
	}
	json_decref(controllers);
	return EXIT_SUCCESS;
}

/* "0000:01:00.0" is a drive; everything else is an address on the network. */
static int attach_controller(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	const char *address = json_string_value(json_object_get(args, "traddr"));
	unsigned domain, bus, device, function;
	json_t *params = json_deep_copy(args);
	bool pcie = sscanf(address, "%4x:%2x:%2x.%1x", &domain, &bus, &device, &function) == 4;

	if (pcie || !json_object_get(args, "trtype"))
		json_object_set_new(params, "trtype", json_string(pcie ? "PCIe" : "TCP"));
	return cli_show(cli, cli_call(cli, v->method, params), v);
}

static int start_discovery(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	json_t *params = json_deep_copy(args);

	if (!json_object_get(args, "trtype"))
		json_object_set_new(params, "trtype", json_string("TCP"));
	return cli_show(cli, cli_call(cli, v->method, params), v);
}

static const struct cli_column discovery_columns[] = {
	{ "NAME", "name", CLI_TEXT },	      { "TYPE", "trid.trtype", CLI_TEXT },  { "ADDRESS", "trid.traddr", CLI_TEXT },
	{ "SERVICE", "trid.trsvcid", CLI_TEXT }, { "CONNECTED", "connected", CLI_YES_NO }, { "PATHS", "attached", CLI_COUNT },
	{ "REFERRALS", "referrals", CLI_LENGTH }, { NULL, NULL, 0 },
};

const struct cli_verb cli_controller_verbs[] = {
	{ "controller", "list", "lists NVMe controllers and the paths to them",
	  { { "NAME", CLI_ARG_STRING, "name", false, "only this one" } },
	  .method = "bdev_nvme_get_controllers", .run = list_controllers },
	{ "controller", "attach", "attaches a drive by its PCI address, or a subsystem of another target, or a further path to it",
	  { NAME, { "ADDRESS", CLI_ARG_STRING, "traddr", true, "such as 0000:01:00.0 or 10.0.0.7" },
	    { "--transport", CLI_ARG_STRING, "trtype", false, "to the target: tcp (default) or rdma" },
	    { "--port", CLI_ARG_STRING, "trsvcid", false, "of the target; default 4420" },
	    { "--nqn", CLI_ARG_STRING, "subnqn", false, "the subsystem's name there" },
	    { "--hostnqn", CLI_ARG_STRING, "hostnqn", false, "who we are" },
	    { "--multipath", CLI_ARG_STRING, "multipath", false, "disable, failover or multipath" },
	    { "--loss-timeout", CLI_ARG_NUMBER, "ctrlr_loss_timeout_sec", false, "seconds until it is given up" },
	    { "--fast-fail", CLI_ARG_NUMBER, "fast_io_fail_timeout_sec", false, "seconds until waiting I/O fails" },
	    { "--reconnect-delay", CLI_ARG_NUMBER, "reconnect_delay_sec", false, "seconds between tries" },
	    { "--hdgst", CLI_ARG_FLAG, "hdgst", false, "TCP: digests of headers" },
	    { "--ddgst", CLI_ARG_FLAG, "ddgst", false, "TCP: digests of data" } },
	  .method = "bdev_nvme_attach_controller", .run = attach_controller },
	{ "controller", "policy", "says which paths I/O takes",
	  { { "DEVICE", CLI_ARG_STRING, "name", true, "one of its namespaces, such as Nvme0n1" },
	    { "POLICY", CLI_ARG_STRING, "policy", true, "active_passive or active_active" } },
	  .method = "bdev_nvme_set_multipath_policy" },
	{ "controller", "discover", "attaches all that a discovery controller lists, and follows its changes",
	  { { "NAME", CLI_ARG_STRING, "name", true, "its controllers are called NAME0, NAME1, ..." },
	    { "ADDRESS", CLI_ARG_STRING, "traddr", true, "of the discovery controller" },
	    { "--transport", CLI_ARG_STRING, "trtype", false, "tcp (default) or rdma" },
	    { "--port", CLI_ARG_STRING, "trsvcid", false, "default 8009, of RDMA 4420" },
	    { "--hostnqn", CLI_ARG_STRING, "hostnqn", false, "who we are" },
	    { "--loss-timeout", CLI_ARG_NUMBER, "ctrlr_loss_timeout_sec", false, "seconds until a path is given up" },
	    { "--fast-fail", CLI_ARG_NUMBER, "fast_io_fail_timeout_sec", false, "seconds until waiting I/O fails" },
	    { "--reconnect-delay", CLI_ARG_NUMBER, "reconnect_delay_sec", false, "seconds between tries" } },
	  .method = "bdev_nvme_start_discovery", .run = start_discovery },
	{ "controller", "undiscover", "lets go of all that a discovery has attached", { NAME }, .method = "bdev_nvme_stop_discovery" },
	{ "controller", "discoveries", "lists the discoveries, and the referrals that they found", { { 0 } },
	  .method = "bdev_nvme_get_discovery_info", .columns = discovery_columns, .what = "discoveries" },
	{ "controller", "options", "sets what holds for all that is attached from now on; what is not named is as by default",
	  { { "--timeout-us", CLI_ARG_NUMBER, "timeout_us", false, "of a command, until it is aborted" },
	    { "--keep-alive-ms", CLI_ARG_NUMBER, "keep_alive_timeout_ms", false, "of fabrics" },
	    { "--retries", CLI_ARG_NUMBER, "bdev_retry_count", false, "of what a controller refused for the moment" },
	    { "--loss-timeout", CLI_ARG_NUMBER, "ctrlr_loss_timeout_sec", false, "seconds until a path is given up" },
	    { "--fast-fail", CLI_ARG_NUMBER, "fast_io_fail_timeout_sec", false, "seconds until waiting I/O fails" },
	    { "--reconnect-delay", CLI_ARG_NUMBER, "reconnect_delay_sec", false, "seconds between tries" },
	    { "--path-stat", CLI_ARG_FLAG, "io_path_stat", false, "counts what each path carries" } },
	  .method = "bdev_nvme_set_options" },
	{ "controller", "hotplug", "says whether drives that were pulled out come back by themselves",
	  { { "ON|OFF", CLI_ARG_ON_OFF, "enable", true, "on or off" },
	    { "--period-us", CLI_ARG_NUMBER, "period_us", false, "how often they are looked for" } },
	  .method = "bdev_nvme_set_hotplug" },
	{ "controller", "detach", "lets a controller go, or one path to it",
	  { NAME, { "--address", CLI_ARG_STRING, "traddr", false, "of the path" },
	    { "--port", CLI_ARG_STRING, "trsvcid", false, "of the path" } },
	  .method = "bdev_nvme_detach_controller" },
	{ "controller", "reset", "resets a controller; I/O waits", { NAME }, .method = "bdev_nvme_reset_controller" },
	{ "controller", "disable", "disconnects a controller, or one path to it, and leaves it so; I/O takes the other paths, or fails",
	  { NAME, CNTLID }, .method = "bdev_nvme_disable_controller" },
	{ "controller", "enable", "connects again what was disabled", { NAME, CNTLID }, .method = "bdev_nvme_enable_controller" },
	{ "controller", "prefer", "has a namespace's I/O take one of its paths while it is good",
	  { { "DEVICE", CLI_ARG_STRING, "name", true, "such as Nvme0n1" },
	    { "CNTLID", CLI_ARG_NUMBER, "cntlid", true, "the identifier of the path's controller" } },
	  .method = "bdev_nvme_set_preferred_path" },
	{ "controller", "health", "shows what a controller says of its health", { NAME },
	  .method = "bdev_nvme_get_controller_health_info" },

	{ "host", "status", "shows this machine's hugepages, IOMMU and NVMe drives; asks no daemon", { { 0 } }, .run = cli_host_status },
	{ "host", "setup", "reserves hugepages and gives drives to a driver for user space; --dry-run shows what would be done",
	  { { "ADDRESS", CLI_ARG_STRING, "address", false, "of one drive, such as 0000:01:00.0; default: all that nobody uses" },
	    { "--all", CLI_ARG_FLAG, "all", false, "with --hugepages: all drives that nobody uses, too" },
	    { "--hugepages", CLI_ARG_BYTES, "hugepages", false,
	      "at least so much memory in hugepages of 2 MiB on each NUMA node; without ADDRESS or --all, that alone" },
	    { "--driver", CLI_ARG_STRING, "driver", false, "vfio-pci (default); uio_pci_generic where there is no VFIO" },
	    { "--dry-run", CLI_ARG_FLAG, "dry_run", false, "changes nothing" } },
	  .run = cli_host_setup },
	{ "host", "reset", "gives drives back to the kernel's driver",
	  { { "ADDRESS", CLI_ARG_STRING, "address", false, "of one drive; default: all" },
	    { "--dry-run", CLI_ARG_FLAG, "dry_run", false, "changes nothing" } },
	  .run = cli_host_reset },
	{ .noun = NULL },
};
