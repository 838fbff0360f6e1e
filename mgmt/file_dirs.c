/*
 * The folders in which file-backed devices may live (--file-dir).  A name is resolved to its true path first, links and
 * dots included, and what is not beneath one of the folders is refused.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mgmt/methods.h"

static char **true_dirs;
static unsigned nr_true_dirs;

void file_dirs_init(const char *const *dirs, unsigned nr_dirs)
{
	for (unsigned i = 0; i < nr_true_dirs; i++)
		free(true_dirs[i]);
	free(true_dirs);
	nr_true_dirs = 0;
	true_dirs = calloc(nr_dirs + 1, sizeof(*true_dirs));
	for (unsigned i = 0; true_dirs && i < nr_dirs; i++) {
		char *path = realpath(dirs[i], NULL);

		if (path)
			true_dirs[nr_true_dirs++] = path;
		else
			log_warning("--file-dir %s: %s; no device can use it", dirs[i], strerror(errno));
	}
}

static bool beneath(const char *path)
{
	for (unsigned i = 0; i < nr_true_dirs; i++) {
		size_t len = strlen(true_dirs[i]);

		if (strcmp(true_dirs[i], "/") == 0)
			return true;
		if (strncmp(path, true_dirs[i], len) == 0 && path[len] == '/')
			return true;
	}
	return false;
}

/* Whether the folder that would hold a missing file is one of ours, so that its absence may be told. */
static bool parent_beneath(const char *path)
{
	char *copy = strdup(path), *slash = copy ? strrchr(copy, '/') : NULL, *parent;
	bool ours = false;

	if (slash) {
		slash[1] = '\0';
		parent = realpath(copy, NULL);
		for (unsigned i = 0; parent && i < nr_true_dirs; i++)
			ours = ours || strcmp(parent, true_dirs[i]) == 0;
		ours = ours || (parent && beneath(parent));
		free(parent);
	}
	free(copy);
	return ours;
}

static int fail_outside(struct rpc_call *call, const char *key, const char *filename)
{
	if (nr_true_dirs)
		rpc_fail_errno(call, -EACCES, "%s is outside of the folders for file-backed devices; the first of them is %s",
			       filename, true_dirs[0]);
	else
		rpc_fail_errno(call, -EACCES, "no folder for file-backed devices was given; start ferruled with --file-dir DIR");
	rpc_blame(call, key);
	return -EACCES;
}

static int fail_missing(struct rpc_call *call, const char *key, const char *path)
{
	rpc_fail_errno(call, -ENOENT, "%s does not exist; make it first, with its size: truncate -s 10G %s", path, path);
	rpc_blame(call, key);
	return -ENOENT;
}

static int resolve_absolute(struct rpc_call *call, const char *key, const char *filename, char **ret_path)
{
	char *path = realpath(filename, NULL);
	int rc;

	if (!path) {
		rc = -errno;
		if (!parent_beneath(filename))
			return fail_outside(call, key, filename);
		if (rc == -ENOENT)
			return fail_missing(call, key, filename);
		rpc_fail_errno(call, rc, "%s cannot be resolved", filename);
		rpc_blame(call, key);
		return rc;
	}
	if (!beneath(path)) {
		free(path);
		return fail_outside(call, key, filename);
	}
	*ret_path = path;
	return 0;
}

int file_dirs_resolve(struct rpc_call *call, const char *key, const char *filename, char **ret_path)
{
	char *name = NULL;
	int rc;

	if (filename[0] == '/')
		return resolve_absolute(call, key, filename, ret_path);
	for (unsigned i = 0; i < nr_true_dirs; i++) {
		if (asprintf(&name, "%s/%s", true_dirs[i], filename) < 0)
			break;
		rc = resolve_absolute(call, key, name, ret_path);
		free(name);
		if (rc != -ENOENT || i + 1 == nr_true_dirs)
			return rc;
		json_decref(call->error_data);
		call->error_data = NULL;
		call->error_code = 0;
	}
	return fail_outside(call, key, filename);
}
