/* The rows of the command line: every noun and verb, the arguments, the method behind, and the columns of lists. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mgmt/cli.h"

static const char *text_of(json_t *args, const char *key)
{
	return json_string_value(json_object_get(args, key));
}

/* --- devices -------------------------------------------------------------------------------------------------------- */

static const struct cli_column bdev_columns[] = {
	{ "NAME", "name", CLI_TEXT },
	{ "ALIAS", "aliases.0", CLI_TEXT },
	{ "KIND", "product_name", CLI_TEXT },
	{ "SIZE", "block_size*num_blocks", CLI_SIZE },
	{ "BLOCK", "block_size", CLI_COUNT },
	{ "IN USE", "claimed", CLI_YES_NO },
	{ NULL, NULL, 0 },
};

static const struct cli_column stat_columns[] = {
	{ "NAME", "name", CLI_TEXT },
	{ "READS", "num_read_ops", CLI_COUNT },
	{ "READ", "bytes_read", CLI_SIZE },
	{ "WRITES", "num_write_ops", CLI_COUNT },
	{ "WRITTEN", "bytes_written", CLI_SIZE },
	{ "UNMAPS", "num_unmap_ops", CLI_COUNT },
	{ "UNMAPPED", "bytes_unmapped", CLI_SIZE },
	{ NULL, NULL, 0 },
};

/* A size becomes a number of blocks. */
static int create_sized(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	json_int_t size = json_integer_value(json_object_get(args, "size"));
	json_int_t block = json_integer_value(json_object_get(args, "block_size"));
	json_t *params = json_deep_copy(args);

	if (!block)
		block = 512;
	if (size % block) {
		cli_error("SIZE is no multiple of the block size, %" JSON_INTEGER_FORMAT, block);
		json_decref(params);
		return 2;
	}
	json_object_del(params, "size");
	json_object_set_new(params, "block_size", json_integer(block));
	json_object_set_new(params, "num_blocks", json_integer(size / block));
	return cli_show(cli, cli_call(cli, v->method, params), v);
}

/* Devices are deleted by the method of their kind. */
static int delete_bdev(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	static const struct {
		const char *product_name, *method;
	} kinds[] = {
		{ "Malloc disk", "bdev_malloc_delete" },     { "Null disk", "bdev_null_delete" },
		{ "AIO disk", "bdev_aio_delete" },	     { "URING bdev", "bdev_uring_delete" },
		{ "Logical Volume", "bdev_lvol_delete" },
	};
	json_t *found = cli_call(cli, "bdev_get_bdevs", json_incref(args));
	const char *kind = json_string_value(cli_at(found, "0.product_name"));
	const char *method = NULL;

	for (size_t i = 0; kind && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strcmp(kinds[i].product_name, kind) == 0)
			method = kinds[i].method;
	}
	if (found && !method)
		cli_error("%s is a %s: it cannot be deleted here", text_of(args, "name"), kind ? kind : "device of its own");
	json_decref(found);
	return method ? cli_show(cli, cli_call(cli, method, json_incref(args)), v) : EXIT_FAILURE;
}

static int stat_bdevs(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	json_t *params = text_of(args, "names") ? json_pack("{s:[s]}", "names", text_of(args, "names")) : NULL;
	json_t *result = cli_call(cli, v->method, params), *bdevs;

	if (!result || cli->json)
		return cli_show(cli, result, v);
	bdevs = json_incref(json_object_get(result, "bdevs"));
	json_decref(result);
	return cli_show(cli, bdevs, v);
}

/* --- exports -------------------------------------------------------------------------------------------------------- */

static const struct cli_column transport_columns[] = {
	{ "TRANSPORT", "trtype", CLI_TEXT },
	{ "QUEUE DEPTH", "max_queue_depth", CLI_COUNT },
	{ "QUEUES", "max_io_qpairs_per_ctrlr", CLI_COUNT },
	{ "IN CAPSULE", "in_capsule_data_size", CLI_SIZE },
	{ "LARGEST I/O", "max_io_size", CLI_SIZE },
	{ NULL, NULL, 0 },
};

static const struct cli_column subsystem_columns[] = {
	{ "NQN", "nqn", CLI_TEXT },
	{ "KIND", "subtype", CLI_TEXT },
	{ "SERIAL", "serial_number", CLI_TEXT },
	{ "NAMESPACES", "namespaces", CLI_LENGTH },
	{ "LISTENERS", "listen_addresses", CLI_LENGTH },
	{ "HOSTS", "hosts", CLI_LENGTH },
	{ "ANY HOST", "allow_any_host", CLI_YES_NO },
	{ NULL, NULL, 0 },
};

static const struct cli_column controller_columns[] = {
	{ "CNTLID", "cntlid", CLI_COUNT },
	{ "HOST", "hostnqn", CLI_TEXT },
	{ "QUEUES", "num_io_qpairs", CLI_COUNT },
	{ "HOST ID", "hostid", CLI_TEXT },
	{ NULL, NULL, 0 },
};

static const struct cli_column queue_columns[] = {
	{ "CNTLID", "cntlid", CLI_COUNT },
	{ "QID", "qid", CLI_COUNT },
	{ "STATE", "state", CLI_TEXT },
	{ "THREAD", "thread", CLI_TEXT },
	{ "PEER", "peer_address.traddr", CLI_TEXT },
	{ "PORT", "peer_address.trsvcid", CLI_TEXT },
	{ "HOST", "hostnqn", CLI_TEXT },
	{ NULL, NULL, 0 },
};

static const struct cli_column namespace_columns[] = {
	{ "NSID", "nsid", CLI_COUNT },
	{ "DEVICE", "bdev_name", CLI_TEXT },
	{ "UUID", "uuid", CLI_TEXT },
	{ NULL, NULL, 0 },
};

static const struct cli_column listener_columns[] = {
	{ "TRANSPORT", "trtype", CLI_TEXT },
	{ "ADDRESS", "traddr", CLI_TEXT },
	{ "PORT", "trsvcid", CLI_TEXT },
	{ NULL, NULL, 0 },
};

static const struct cli_column host_columns[] = {
	{ "HOST", "nqn", CLI_TEXT },
	{ NULL, NULL, 0 },
};

/* A member of the one subsystem asked for: what names it. */
static int list_of_subsystem(struct cli *cli, json_t *args, const struct cli_verb *v, const char *member)
{
	json_t *result = cli_call(cli, "nvmf_get_subsystems", json_incref(args)), *list;

	if (!result)
		return EXIT_FAILURE;
	list = json_incref(json_object_get(json_array_get(result, 0), member));
	json_decref(result);
	return cli_show(cli, list ? list : json_array(), v);
}

static int list_namespaces(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	return list_of_subsystem(cli, args, v, "namespaces");
}

static int list_listeners(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	return list_of_subsystem(cli, args, v, "listen_addresses");
}

static int list_hosts(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	return list_of_subsystem(cli, args, v, "hosts");
}

static int show_subsystem(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	json_t *result = cli_call(cli, v->method, json_incref(args));

	if (result)
		cli_show_json(json_array_get(result, 0));
	json_decref(result);
	return result ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int add_namespace(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	json_t *ns = json_deep_copy(args);

	json_object_del(ns, "nqn");
	return cli_show(cli, cli_call(cli, v->method, json_pack("{s:s,s:o}", "nqn", text_of(args, "nqn"), "namespace", ns)), v);
}

/* "ADDR", "ADDR:PORT", "[V6ADDR]:PORT", "V6ADDR". */
static json_t *parse_address(const char *text, const char *trtype)
{
	const char *colon = strrchr(text, ':'), *port = "4420";
	char host[128];

	if (text[0] == '[' && colon && colon > text + 2 && colon[-1] == ']') {
		snprintf(host, sizeof(host), "%.*s", (int)(colon - text - 2), text + 1);
		port = colon + 1;
	} else if (colon && strchr(text, ':') == colon) {
		snprintf(host, sizeof(host), "%.*s", (int)(colon - text), text);
		port = colon + 1;
	} else {
		snprintf(host, sizeof(host), "%s", text);
	}
	return json_pack("{s:s,s:s,s:s,s:s}", "trtype", trtype ? trtype : "TCP", "adrfam", strchr(host, ':') ? "IPv6" : "IPv4",
			 "traddr", host, "trsvcid", port);
}

static int call_listener(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	return cli_show(cli,
		    cli_call(cli, v->method,
			     json_pack("{s:s,s:o}", "nqn", text_of(args, "nqn"), "listen_address",
				       parse_address(text_of(args, "address"), text_of(args, "trtype")))),
		    v);
}

/* --- the daemon ----------------------------------------------------------------------------------------------------- */

static int log_level(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	if (text_of(args, "level"))
		return cli_show(cli, cli_call(cli, "log_set_level", json_incref(args)), v);
	return cli_show(cli, cli_call(cli, "log_get_level", NULL), v);
}

static int rpc(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	const char *text = text_of(args, "params");
	json_t *params = NULL, *result;
	json_error_t error;

	if (text) {
		params = json_loads(text, 0, &error);
		if (!params) {
			cli_error("PARAMS is no JSON: %s (column %d)", error.text, error.column);
			return 2;
		}
	}
	result = cli_call(cli, text_of(args, "method"), params);
	if (result)
		cli_show_json(result);
	json_decref(result);
	return result ? EXIT_SUCCESS : EXIT_FAILURE;
}

static size_t count(json_t *bdevs, const char *path)
{
	size_t i, n = 0;
	json_t *v;

	json_array_foreach(bdevs, i, v)
		n += cli_at(v, path) != NULL;
	return n;
}

static size_t total_length(json_t *array, const char *path)
{
	size_t i, n = 0;
	json_t *v;

	json_array_foreach(array, i, v) {
		if (cli_at(v, "serial_number")) /* discovery has none */
			n += json_array_size(cli_at(v, path));
	}
	return n;
}

static void show_reactors(json_t *reactors)
{
	double rate = (double)json_integer_value(json_object_get(reactors, "tick_rate"));
	json_t *list = json_object_get(reactors, "reactors"), *r;
	size_t i;

	json_array_foreach(list, i, r) {
		double busy = (double)json_integer_value(json_object_get(r, "busy")) / rate;
		double idle = (double)json_integer_value(json_object_get(r, "idle")) / rate;

		printf("  core %-4" JSON_INTEGER_FORMAT " %.1f s busy of %.1f s, %zu threads\n",
		       json_integer_value(json_object_get(r, "lcore")), busy, busy + idle,
		       json_array_size(json_object_get(r, "lw_threads")));
	}
}

static int status(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	json_t *version = cli_call(cli, "spdk_get_version", NULL);
	json_t *reactors = version ? cli_call(cli, "framework_get_reactors", NULL) : NULL;
	json_t *bdevs = reactors ? cli_call(cli, "bdev_get_bdevs", NULL) : NULL;
	json_t *stores = bdevs ? cli_call(cli, "bdev_lvol_get_lvstores", NULL) : NULL;
	json_t *subsystems = stores ? cli_call(cli, "nvmf_get_subsystems", NULL) : NULL;
	size_t volumes = count(bdevs, "driver_specific.lvol");
	json_t *all = json_pack("{s:o*,s:o*,s:o*,s:o*,s:o*}", "version", version, "reactors", reactors, "bdevs", bdevs, "stores",
				stores, "subsystems", subsystems);

	if (subsystems && cli->json) {
		cli_show_json(all);
	} else if (subsystems) {
		printf("ferruled %s, process %" JSON_INTEGER_FORMAT "\n", json_string_value(json_object_get(version, "ferrule")),
		       json_integer_value(json_object_get(reactors, "pid")));
		show_reactors(reactors);
		printf("  %zu devices, %zu stores, %zu volumes\n", json_array_size(bdevs) - volumes, json_array_size(stores),
		       volumes);
		printf("  %zu subsystems, %zu namespaces, %zu listeners\n", count(subsystems, "serial_number"),
		       total_length(subsystems, "namespaces"), total_length(subsystems, "listen_addresses"));
	}
	json_decref(all);
	return subsystems ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- the rows ------------------------------------------------------------------------------------------------------- */

#define NQN	  { "NQN", CLI_ARG_STRING, "nqn", true, "the subsystem" }
#define BLOCK	  { "--block-size", CLI_ARG_BYTES, "block_size", false, "512 or 4096" }
#define UUID	  { "--uuid", CLI_ARG_STRING, "uuid", false, "instead of one made up" }

static const struct cli_verb device_verbs[] = {
	{ "status", "", "shows the daemon and what it holds", { { 0 } }, .run = status },

	{ "bdev", "list", "lists devices", { { "NAME", CLI_ARG_STRING, "name", false, "only this one" } },
	  .method = "bdev_get_bdevs", .columns = bdev_columns, .what = "devices" },
	{ "bdev", "create-malloc", "makes a device in memory",
	  { { "NAME", CLI_ARG_STRING, "name", true, "of the device" }, { "SIZE", CLI_ARG_BYTES, "size", true, "such as 512M" },
	    BLOCK, UUID },
	  .method = "bdev_malloc_create", .run = create_sized },
	{ "bdev", "create-null", "makes a device that keeps nothing and reads zero",
	  { { "NAME", CLI_ARG_STRING, "name", true, "of the device" }, { "SIZE", CLI_ARG_BYTES, "size", true, "such as 1T" },
	    BLOCK, UUID },
	  .method = "bdev_null_create", .run = create_sized },
	{ "bdev", "create-file", "makes a device of a file or block device, in a folder given with ferruled --file-dir",
	  { { "NAME", CLI_ARG_STRING, "name", true, "of the device" },
	    { "FILE", CLI_ARG_STRING, "filename", true, "must exist: truncate -s 10G FILE" }, BLOCK, UUID },
	  .method = "bdev_uring_create" },
	{ "bdev", "delete", "deletes a device; a file's contents stay",
	  { { "NAME", CLI_ARG_STRING, "name", true, "of the device" } }, .run = delete_bdev },
	{ "bdev", "rescan", "looks how large a device's file is now",
	  { { "NAME", CLI_ARG_STRING, "name", true, "of the device" } }, .method = "bdev_uring_rescan" },
	{ "bdev", "stat", "shows what devices have done", { { "NAME", CLI_ARG_STRING, "names", false, "only this one" } },
	  .method = "bdev_get_iostat", .columns = stat_columns, .what = "devices", .run = stat_bdevs },
	{ .noun = NULL },
};

static const struct cli_verb export_verbs[] = {
	{ "transport", "list", "lists transports", { { 0 } }, .method = "nvmf_get_transports", .columns = transport_columns,
	  .what = "transports" },
	{ "transport", "create", "makes a transport",
	  { { "TYPE", CLI_ARG_STRING, "trtype", true, "TCP or RDMA" },
	    { "--in-capsule-data-size", CLI_ARG_BYTES, "in_capsule_data_size", false, "on I/O queues" },
	    { "--max-queue-depth", CLI_ARG_NUMBER, "max_queue_depth", false, "entries of an I/O queue" },
	    { "--max-io-size", CLI_ARG_BYTES, "max_io_size", false, "of one command" },
	    { "--max-srq-depth", CLI_ARG_NUMBER, "max_srq_depth", false, "RDMA: receives that a reactor's connections share" },
	    { "--no-srq", CLI_ARG_FLAG, "no_srq", false, "RDMA: each connection has receives of its own" } },
	  .method = "nvmf_create_transport" },

	{ "subsystem", "list", "lists subsystems", { { 0 } }, .method = "nvmf_get_subsystems", .columns = subsystem_columns,
	  .what = "subsystems" },
	{ "subsystem", "show", "shows all of a subsystem", { NQN }, .method = "nvmf_get_subsystems", .run = show_subsystem },
	{ "subsystem", "create", "makes a subsystem",
	  { { "NQN", CLI_ARG_STRING, "nqn", true, "such as nqn.2026-01.com.example:name" },
	    { "--serial", CLI_ARG_STRING, "serial_number", false, "at most 20 characters" },
	    { "--model", CLI_ARG_STRING, "model_number", false, "at most 40 characters" },
	    { "--max-namespaces", CLI_ARG_NUMBER, "max_namespaces", false, "default 1024" },
	    { "--allow-any-host", CLI_ARG_FLAG, "allow_any_host", false, "lets every host in" } },
	  .method = "nvmf_create_subsystem" },
	{ "subsystem", "delete", "deletes a subsystem, ending its hosts' connections", { NQN },
	  .method = "nvmf_delete_subsystem" },
	{ "subsystem", "controllers", "lists the controllers of connected hosts", { NQN },
	  .method = "nvmf_subsystem_get_controllers", .columns = controller_columns, .what = "controllers" },
	{ "subsystem", "queues", "lists the queues of connected hosts", { NQN }, .method = "nvmf_subsystem_get_qpairs",
	  .columns = queue_columns, .what = "queues" },

	{ "namespace", "list", "lists the namespaces of a subsystem", { NQN }, .columns = namespace_columns,
	  .what = "namespaces", .run = list_namespaces },
	{ "namespace", "add", "exports a device; prints the namespace's number",
	  { NQN, { "DEVICE", CLI_ARG_STRING, "bdev_name", true, "name, STORE/VOLUME or UUID" },
	    { "--nsid", CLI_ARG_NUMBER, "nsid", false, "default: the lowest free" }, UUID,
	    { "--nguid", CLI_ARG_STRING, "nguid", false, "32 hexadecimal digits" },
	    { "--eui64", CLI_ARG_STRING, "eui64", false, "16 hexadecimal digits" } },
	  .method = "nvmf_subsystem_add_ns", .run = add_namespace },
	{ "namespace", "remove", "takes a namespace back",
	  { NQN, { "NSID", CLI_ARG_NUMBER, "nsid", true, "the namespace" } }, .method = "nvmf_subsystem_remove_ns" },

	{ "listener", "list", "lists the addresses of a subsystem", { NQN }, .columns = listener_columns, .what = "listeners",
	  .run = list_listeners },
	{ "listener", "add", "offers a subsystem on an address",
	  { NQN, { "ADDRESS", CLI_ARG_STRING, "address", true, "ADDR[:PORT], default port 4420" },
	    { "--transport", CLI_ARG_STRING, "trtype", false, "tcp (default) or rdma" } },
	  .method = "nvmf_subsystem_add_listener", .run = call_listener },
	{ "listener", "remove", "ends an offer, and the connections that came by it",
	  { NQN, { "ADDRESS", CLI_ARG_STRING, "address", true, "ADDR[:PORT], default port 4420" },
	    { "--transport", CLI_ARG_STRING, "trtype", false, "tcp (default) or rdma" } },
	  .method = "nvmf_subsystem_remove_listener", .run = call_listener },

	{ "host", "list", "lists the hosts that a subsystem lets in", { NQN }, .columns = host_columns, .what = "hosts",
	  .run = list_hosts },
	{ "host", "add", "lets a host in", { NQN, { "HOST", CLI_ARG_STRING, "host", true, "the host's NQN" } },
	  .method = "nvmf_subsystem_add_host" },
	{ "host", "remove", "ends a host's connections and lets it in no more",
	  { NQN, { "HOST", CLI_ARG_STRING, "host", true, "the host's NQN" } }, .method = "nvmf_subsystem_remove_host" },
	{ "host", "allow-any", "lets every host in, or only those listed",
	  { NQN, { "ON|OFF", CLI_ARG_ON_OFF, "allow_any_host", true, "on or off" } },
	  .method = "nvmf_subsystem_allow_any_host" },
	{ .noun = NULL },
};

static const struct cli_verb daemon_verbs[] = {
	{ "log", "level", "shows or sets how much is logged",
	  { { "LEVEL", CLI_ARG_STRING, "level", false, "ERROR, WARNING, NOTICE, INFO or DEBUG" } }, .run = log_level },

	{ "rpc", "", "makes any JSON-RPC call",
	  { { "METHOD", CLI_ARG_STRING, "method", true, "such as rpc_get_methods" },
	    { "PARAMS", CLI_ARG_STRING, "params", false, "a JSON object" } },
	  .run = rpc },
	{ .noun = NULL },
};

const struct cli_verb *const cli_tables[] = {
	device_verbs, cli_controller_verbs, cli_storage_verbs, export_verbs, cli_job_verbs, daemon_verbs, NULL,
};
