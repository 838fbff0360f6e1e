/* The command line of stores and volumes: rows, columns of lists, and what needs more than a call of its method. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mgmt/cli.h"

static const char *text_of(json_t *args, const char *key)
{
	return json_string_value(json_object_get(args, key));
}

static const struct cli_column store_columns[] = {
	{ "NAME", "name", CLI_TEXT },
	{ "DEVICE", "base_bdev", CLI_TEXT },
	{ "SIZE", "total_data_clusters*cluster_size", CLI_SIZE },
	{ "FREE", "free_clusters*cluster_size", CLI_SIZE },
	{ "CLUSTER", "cluster_size", CLI_SIZE },
	{ "CHECKSUMS", "checksums", CLI_YES_NO },
	{ "READ-ONLY", "read_only", CLI_YES_NO },
	{ "DEGRADED", "degraded", CLI_LENGTH },
	{ "UUID", "uuid", CLI_TEXT },
	{ NULL, NULL, 0 },
};

static const struct cli_column volume_columns[] = {
	{ "VOLUME", "alias", CLI_TEXT },
	{ "SIZE", "size_bytes", CLI_SIZE },
	{ "SPACE", "referenced_bytes", CLI_SIZE },
	{ "EXCLUSIVE", "exclusive_bytes", CLI_SIZE },
	{ "COUNTED", "exclusive_age_ms", CLI_AGE },
	{ "THIN", "is_thin_provisioned", CLI_YES_NO },
	{ "SNAPSHOT", "is_snapshot", CLI_YES_NO },
	{ "DEGRADED", "is_degraded", CLI_YES_NO },
	{ "PARENT", "parent", CLI_TEXT },
	{ "UUID", "uuid", CLI_TEXT },
	{ "HIDDEN", "hidden", CLI_TEXT },
	{ NULL, NULL, 0 },
};

/* "store/volume" in two; false with the reason said. */
static bool split_volume(const char *text, char store[256], const char **ret_volume)
{
	const char *slash = strchr(text, '/');

	if (!slash || slash == text || !slash[1] || slash - text > 255) {
		cli_error("\"%s\": a new volume is named STORE/VOLUME", text);
		return false;
	}
	snprintf(store, 256, "%.*s", (int)(slash - text), text);
	*ret_volume = slash + 1;
	return true;
}

static int create_volume(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	const char *volume;
	char store[256];

	if (!split_volume(text_of(args, "volume"), store, &volume))
		return 2;
	return cli_show(cli,
		    cli_call(cli, v->method,
			     json_pack("{s:s,s:s,s:O,s:b}", "lvs_name", store, "lvol_name", volume, "size_in_mib",
				       json_object_get(args, "size_in_mib"), "thin_provision",
				       !json_is_true(json_object_get(args, "thick")))),
		    v);
}

/* Whether a volume, given by its name or UUID, is in that store; false with the reason said. */
static bool is_in_store(struct cli *cli, const char *volume, const char *store, size_t len)
{
	json_t *bdevs = NULL, *error = NULL;
	const char *alias = volume, *slash;
	bool same;

	if (!strchr(volume, '/')) {
		bdevs = cli_try(cli, "bdev_get_bdevs", json_pack("{s:s}", "name", volume), &error);
		json_decref(error);
		alias = json_string_value(cli_at(bdevs, "0.aliases.0"));
	}
	slash = alias ? strchr(alias, '/') : NULL;
	same = slash && (size_t)(slash - alias) == len && strncmp(alias, store, len) == 0;
	if (!slash)
		cli_error("which store %s is in is not known: give the new name without a store", volume);
	else if (!same)
		cli_error("%s is in store %.*s, and stays or is copied in it: a new name in store %.*s cannot be had", volume,
			  (int)(slash - alias), alias, (int)len, store);
	json_decref(bdevs);
	return same;
}

/* A volume keeps its store, and a copy is in the store of what it is made of: the store may be named with the new name. */
static int name_volume(struct cli *cli, json_t *args, const struct cli_verb *v, const char *of, const char *key)
{
	const char *name = text_of(args, key), *slash = strchr(name, '/');
	json_t *params;

	if (slash && !is_in_store(cli, text_of(args, of), name, (size_t)(slash - name)))
		return EXIT_FAILURE;
	params = json_deep_copy(args);
	if (slash)
		json_object_set_new(params, key, json_string(slash + 1));
	return cli_show(cli, cli_call(cli, v->method, params), v);
}

static int rename_volume(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	return name_volume(cli, args, v, "old_name", "new_name");
}

static int snapshot_volume(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	return name_volume(cli, args, v, "lvol_name", "snapshot_name");
}

static int clone_volume(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	return name_volume(cli, args, v, "snapshot_name", "clone_name");
}

static int clone_device(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	const char *volume;
	char store[256];

	if (!split_volume(text_of(args, "volume"), store, &volume))
		return 2;
	return cli_show(cli,
			cli_call(cli, v->method,
				 json_pack("{s:s,s:s,s:s}", "bdev", text_of(args, "bdev"), "lvs_name", store, "clone_name", volume)),
			v);
}

/* All ranges, as many calls as that takes: a table, or with --json an array. */
static int diff_volumes(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	static const struct cli_column columns[] = {
		{ "OFFSET", "offset", CLI_COUNT },
		{ "LENGTH", "length", CLI_COUNT },
		{ "DATA", "mapped", CLI_YES_NO },
		{ NULL, NULL, 0 },
	};
	json_t *all = json_array(), *params = json_deep_copy(args), *part, *next;

	do {
		part = cli_call(cli, v->method, json_deep_copy(params));
		json_array_extend(all, json_object_get(part, "ranges"));
		next = json_object_get(part, "next_offset");
		if (json_is_integer(next))
			json_object_set(params, "offset", next);
		else
			next = NULL;
		json_decref(part);
	} while (part && next);
	if (part && cli->json)
		cli_show_json(all);
	else if (part)
		cli_show_table(all, columns, json_object_get(args, "base") ? "changes" : "data");
	json_decref(params);
	json_decref(all);
	return part ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int volume_space(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	json_t *space = cli_call(cli, v->method, json_incref(args)), *age;
	char buf[32];

	if (space && cli->json) {
		cli_show_json(space);
	} else if (space) {
		age = json_object_get(space, "exclusive_age_ms");
		printf("%-12s%s\n", "size", cli_format_size((uint64_t)json_integer_value(json_object_get(space, "size_bytes")), buf));
		printf("%-12s%s\n", "referenced",
		       cli_format_size((uint64_t)json_integer_value(json_object_get(space, "referenced_bytes")), buf));
		if (json_is_integer(age))
			printf("%-12s%s (%" JSON_INTEGER_FORMAT " s ago)\n", "exclusive",
			       cli_format_size((uint64_t)json_integer_value(json_object_get(space, "exclusive_bytes")), buf),
			       json_integer_value(age) / 1000);
		else
			printf("%-12s%s\n", "exclusive", "not counted yet: --exclusive");
	}
	json_decref(space);
	return space ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* A volume's attributes: all, one, or one set. */
static int volume_attribute(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	const char *name = text_of(args, "xattr_name"), *key;
	json_t *found, *attributes, *value;
	bool set = json_object_get(args, "xattr_value") != NULL, remove = json_object_get(args, "remove") != NULL;

	if (name && remove)
		return cli_show(cli,
				cli_call(cli, "bdev_lvol_remove_xattr",
					 json_pack("{s:s,s:s}", "name", text_of(args, "name"), "xattr_name", name)),
				v);
	if (name)
		return cli_show(cli, cli_call(cli, set ? "bdev_lvol_set_xattr" : "bdev_lvol_get_xattr", json_incref(args)), v);
	found = cli_call(cli, "bdev_get_bdevs", json_pack("{s:s}", "name", text_of(args, "name")));
	attributes = cli_at(found, "0.driver_specific.lvol.xattrs");
	if (found && cli->json)
		cli_show_json(attributes);
	else
		json_object_foreach(attributes, key, value)
			printf("%s = %s\n", key, json_string_value(value));
	json_decref(found);
	return found ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- stores --------------------------------------------------------------------------------------------------------- */

/* Shows the thresholds, or sets them: "80,90,95", or "none". */
static int store_thresholds(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	const char *text = text_of(args, "percents"), *name = text_of(args, "lvs_name");
	json_t *list, *space, *n;
	char *end;
	size_t i;

	if (!text) {
		space = cli_call(cli, "bdev_lvol_get_lvstore_space", json_incref(args));
		list = json_object_get(space, "threshold_percents");
		if (cli->json)
			cli_show_json(list);
		else
			json_array_foreach(list, i, n)
				printf("%" JSON_INTEGER_FORMAT " %%\n", json_integer_value(n));
		json_decref(space);
		return space ? EXIT_SUCCESS : EXIT_FAILURE;
	}
	list = json_array();
	while (strcmp(text, "none") != 0) {
		long percent = strtol(text, &end, 10);

		if (end == text || (*end && *end != ',')) {
			cli_error("PERCENTS: \"%s\" is no list such as 80,90,95, and not none", text_of(args, "percents"));
			json_decref(list);
			return 2;
		}
		json_array_append_new(list, json_integer(percent));
		if (!*end)
			break;
		text = end + 1;
	}
	return cli_show(cli, cli_call(cli, v->method, json_pack("{s:s,s:o}", "lvs_name", name, "percents", list)), v);
}

/* Status 1 when anything is bad, as with check. */
static int scrub_store(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	json_t *job, *result;
	json_int_t bad;

	if (json_object_get(args, "background"))
		return cli_job_verb(cli, args, v);
	job = cli_run_job(cli, v->method, json_deep_copy(args));
	if (!job)
		return EXIT_FAILURE;
	result = json_object_get(job, "result");
	bad = json_integer_value(json_object_get(result, "bad")) + json_integer_value(json_object_get(result, "unreadable"));
	if (cli->json) {
		cli_show_json(result);
	} else {
		char size[32];

		printf("%s: %s read, %" JSON_INTEGER_FORMAT " blocks of 4 KiB bad, %" JSON_INTEGER_FORMAT " unreadable, %"
		       JSON_INTEGER_FORMAT " unverified after a crash\n",
		       text_of(args, "lvs_name"),
		       cli_format_size((uint64_t)json_integer_value(json_object_get(result, "bytes")), size),
		       json_integer_value(json_object_get(result, "bad")),
		       json_integer_value(json_object_get(result, "unreadable")),
		       json_integer_value(json_object_get(result, "unverified")));
	}
	json_decref(job);
	return bad ? EXIT_FAILURE : EXIT_SUCCESS;
}

static void space_line(json_t *space, const char *what, const char *key)
{
	uint64_t cluster = (uint64_t)json_integer_value(json_object_get(space, "cluster_size"));
	char buf[32];

	printf("%-15s%s\n", what, cli_format_size((uint64_t)json_integer_value(json_object_get(space, key)) * cluster, buf));
}

static int store_space(struct cli *cli, json_t *args, const struct cli_verb *v)
{
	json_t *space = cli_call(cli, v->method, json_incref(args));

	if (space && cli->json) {
		cli_show_json(space);
	} else if (space) {
		space_line(space, "size", "total_clusters");
		space_line(space, "free", "free_clusters");
		space_line(space, "coming back", "coming_clusters");
		space_line(space, "reserved", "reserved_clusters");
		space_line(space, "metadata", "metadata_clusters");
		space_line(space, "overcommitted", "overcommitted_clusters");
		printf("%-15s%" JSON_INTEGER_FORMAT " %%\n", "used", json_integer_value(json_object_get(space, "used_percent")));
	}
	json_decref(space);
	return space ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- the rows ------------------------------------------------------------------------------------------------------- */

#define VOLUME(k) { "VOLUME", CLI_ARG_STRING, k, true, "STORE/VOLUME or a UUID" }

const struct cli_verb cli_storage_verbs[] = {
	{ "store", "list", "lists stores", { { 0 } }, .method = "bdev_lvol_get_lvstores", .columns = store_columns,
	  .what = "stores" },
	{ "store", "create", "makes an empty store on a device",
	  { { "NAME", CLI_ARG_STRING, "lvs_name", true, "of the store" },
	    { "DEVICE", CLI_ARG_STRING, "bdev_name", true, "that holds it" },
	    { "--cluster-size", CLI_ARG_BYTES, "cluster_sz", false, "32K to 16M, default 1M" },
	    { "--checksums", CLI_ARG_FLAG, "checksums", false, "a CRC32C of each 4 KiB of data, for the store's life" } },
	  .method = "bdev_lvol_create_lvstore" },
	{ "store", "delete", "deletes a store with its volumes", { { "NAME", CLI_ARG_STRING, "lvs_name", true, "of the store" } },
	  .method = "bdev_lvol_delete_lvstore" },
	{ "store", "rename", "renames a store; its volumes' names change with it",
	  { { "NAME", CLI_ARG_STRING, "old_name", true, "of the store" },
	    { "NEW", CLI_ARG_STRING, "new_name", true, "the new one" } },
	  .method = "bdev_lvol_rename_lvstore" },
	{ "store", "grow", "uses what a store's device has grown by",
	  { { "NAME", CLI_ARG_STRING, "lvs_name", true, "of the store" } },
	  .method = "bdev_lvol_grow_lvstore" },
	{ "store", "open", "opens a store that was refused when its device came",
	  { { "DEVICE", CLI_ARG_STRING, "bdev_name", true, "that holds it" },
	    { "--read-only", CLI_ARG_FLAG, "read_only", false, "writes nothing, and takes of a damaged one what can be read" } },
	  .method = "bdev_lvol_open_lvstore" },
	{ "store", "space", "shows where a store's space is", { { "NAME", CLI_ARG_STRING, "lvs_name", true, "of the store" } },
	  .method = "bdev_lvol_get_lvstore_space", .run = store_space },
	{ "store", "thresholds", "shows or sets how full a store is when an event tells of it",
	  { { "NAME", CLI_ARG_STRING, "lvs_name", true, "of the store" },
	    { "PERCENTS", CLI_ARG_STRING, "percents", false, "such as 80,90,95, or none" } },
	  .method = "bdev_lvol_set_lvstore_thresholds", .run = store_thresholds },
	{ "store", "scrub", "reads all data and compares it with its checksums",
	  { { "NAME", CLI_ARG_STRING, "lvs_name", true, "of the store" }, CLI_BACKGROUND },
	  .method = "bdev_lvol_scrub_lvstore", .run = scrub_store },
	{ "store", "check", "checks every page and count: of one of the daemon's stores, or of a file that no daemon uses",
	  { { "NAME|PATH", CLI_ARG_STRING, "path", true, "a store's name, or the path of a file or block device" } }, .run = cli_store_check },

	{ "volume", "list", "lists volumes, and what of the store they refer to",
	  { { "STORE", CLI_ARG_STRING, "lvs_name", false, "only of this store" } }, .method = "bdev_lvol_get_lvols",
	  .columns = volume_columns, .what = "volumes" },
	{ "volume", "create", "makes a volume, thin unless --thick",
	  { { "VOLUME", CLI_ARG_STRING, "volume", true, "STORE/VOLUME" }, { "SIZE", CLI_ARG_MIB, "size_in_mib", true, "such as 10G" },
	    { "--thick", CLI_ARG_FLAG, "thick", false, "reserves all of its space now" } },
	  .method = "bdev_lvol_create", .run = create_volume },
	{ "volume", "delete", "deletes a volume", { VOLUME("name") }, .method = "bdev_lvol_delete" },
	{ "volume", "resize", "makes a volume larger or smaller; what is cut off is lost",
	  { VOLUME("name"), { "SIZE", CLI_ARG_MIB, "size_in_mib", true, "such as 10G" } }, .method = "bdev_lvol_resize" },
	{ "volume", "rename", "renames a volume",
	  { VOLUME("old_name"), { "NAME", CLI_ARG_STRING, "new_name", true, "the new one" } }, .method = "bdev_lvol_rename",
	  .run = rename_volume },
	{ "volume", "snapshot", "keeps what a volume holds now, while it is in use",
	  { VOLUME("lvol_name"), { "NAME", CLI_ARG_STRING, "snapshot_name", true, "of the snapshot" } },
	  .method = "bdev_lvol_snapshot", .run = snapshot_volume },
	{ "volume", "clone", "makes a volume that begins with what a snapshot holds",
	  { { "SNAPSHOT", CLI_ARG_STRING, "snapshot_name", true, "STORE/SNAPSHOT or a UUID" },
	    { "NAME", CLI_ARG_STRING, "clone_name", true, "of the clone" } },
	  .method = "bdev_lvol_clone", .run = clone_volume },
	{ "volume", "clone-device", "makes a volume that begins with what another device holds; that must not change any more",
	  { { "DEVICE", CLI_ARG_STRING, "bdev", true, "its name or UUID" },
	    { "VOLUME", CLI_ARG_STRING, "volume", true, "STORE/VOLUME, the new one" } },
	  .method = "bdev_lvol_clone_bdev", .run = clone_device },
	{ "volume", "revert", "makes a volume what a snapshot holds, in place; what it held is lost",
	  { VOLUME("lvol_name"), { "SNAPSHOT", CLI_ARG_STRING, "snapshot_name", true, "STORE/SNAPSHOT or a UUID" } },
	  .method = "bdev_lvol_revert" },
	{ "volume", "inflate", "makes all that a volume shares its own, and it thick", { VOLUME("name"), CLI_BACKGROUND },
	  .method = "bdev_lvol_inflate", .run = cli_job_verb },
	{ "volume", "decouple", "gives a volume its parent's parent, or none", { VOLUME("name") },
	  .method = "bdev_lvol_decouple_parent" },
	{ "volume", "set-parent", "lets a volume have from a snapshot what it does not have itself",
	  { VOLUME("lvol_name"), { "SNAPSHOT", CLI_ARG_STRING, "parent_name", true, "STORE/SNAPSHOT or a UUID" } },
	  .method = "bdev_lvol_set_parent" },
	{ "volume", "set-parent-device", "lets a volume have from another device what it does not have itself",
	  { VOLUME("lvol_name"), { "DEVICE", CLI_ARG_STRING, "parent_name", true, "nobody may write it from then on" } },
	  .method = "bdev_lvol_set_parent_bdev" },
	{ "volume", "read-only", "lets nobody write a volume any more", { VOLUME("name") }, .method = "bdev_lvol_set_read_only" },
	{ "volume", "copy", "writes what a snapshot has itself, and not from its parent, to another device",
	  { { "SNAPSHOT", CLI_ARG_STRING, "src_lvol_name", true, "STORE/SNAPSHOT or a UUID" },
	    { "DEVICE", CLI_ARG_STRING, "dst_bdev_name", true, "at least as large" }, CLI_BACKGROUND },
	  .method = "bdev_lvol_start_shallow_copy", .run = cli_job_verb },
	{ "volume", "diff", "lists what differs from an older snapshot, or all that is written",
	  { VOLUME("name"), { "BASE", CLI_ARG_STRING, "base", false, "the older snapshot" } },
	  .method = "bdev_lvol_get_changed_ranges", .run = diff_volumes },
	{ "volume", "space", "shows what of the store a volume takes",
	  { VOLUME("name"),
	    { "--exclusive", CLI_ARG_FLAG, "exclusive", false, "counts what deleting it would give back" } },
	  .method = "bdev_lvol_get_space", .run = volume_space },
	{ "volume", "attribute", "shows a volume's attributes, or one, or sets it",
	  { VOLUME("name"), { "KEY", CLI_ARG_STRING, "xattr_name", false, "its name" },
	    { "VALUE", CLI_ARG_STRING, "xattr_value", false, "sets it" },
	    { "--remove", CLI_ARG_FLAG, "remove", false, "takes it away" } },
	  .run = volume_attribute },
	{ .noun = NULL },
};
