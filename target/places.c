/*
 * Folders.  Each process keeps DPDK's files in a folder of its own, named by its process number; one that was killed leaves
 * its folder behind, and the next daemon removes it.
 */
#include "target/places.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A new folder must not vanish with the power, or what is kept in it does. */
static int make_one(const char *path, mode_t mode)
{
	const char *slash = strrchr(path, '/');
	char parent[512];
	int fd, rc = 0;

	if (mkdir(path, mode) < 0)
		return errno == EEXIST ? 0 : -errno;
	snprintf(parent, sizeof(parent), "%.*s", slash && slash != path ? (int)(slash - path) : 1, slash ? path : ".");
	fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return 0; /* it may be made but not read */
	if (fsync(fd) < 0 && errno != EINVAL)
		rc = -errno;
	close(fd);
	return rc;
}

int places_make_dir(const char *path, mode_t mode)
{
	char *copy = strdup(path), *slash;
	int rc = 0;

	if (!copy)
		return -ENOMEM;
	for (size_t len = strlen(copy); len > 1 && copy[len - 1] == '/'; len--)
		copy[len - 1] = '\0'; /* "dir/" is dir, made with its own mode */
	for (slash = strchr(copy + 1, '/'); slash && !rc; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		rc = make_one(copy, 0755);
		*slash = '/';
	}
	if (!rc)
		rc = make_one(copy, mode);
	free(copy);
	return rc;
}

int places_make_parent(const char *path, mode_t mode)
{
	char *copy = strdup(path), *slash = copy ? strrchr(copy, '/') : NULL;
	int rc = 0;

	if (!copy)
		return -ENOMEM;
	if (slash && slash != copy) {
		*slash = '\0';
		rc = places_make_dir(copy, mode);
	}
	free(copy);
	return rc;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	remove(path);
	return 0;
}

void places_remove_dir(const char *path)
{
	nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

static void remove_dead(const char *base)
{
	DIR *dir = opendir(base);
	struct dirent *entry;
	char path[600], *end;
	struct stat st;
	long pid;

	while (dir && (entry = readdir(dir))) {
		errno = 0;
		pid = strtol(entry->d_name, &end, 10);
		if (pid <= 0 || *end || (kill((pid_t)pid, 0) == 0 && pid != getpid()) || errno == EPERM)
			continue;
		snprintf(path, sizeof(path), "%s/%s", base, entry->d_name);
		if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid())
			places_remove_dir(path);
	}
	if (dir)
		closedir(dir);
}

int places_eal_dir(char *buf, size_t size)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	char base[256];
	int rc, n;

	if (geteuid() == 0)
		n = snprintf(base, sizeof(base), "/run/ferrule/eal");
	else if (runtime && runtime[0] == '/')
		n = snprintf(base, sizeof(base), "%s/ferrule-eal", runtime);
	else
		n = snprintf(base, sizeof(base), "/tmp/ferrule-eal-%u", (unsigned)geteuid());
	if (n < 0 || (size_t)n >= sizeof(base))
		return -ENAMETOOLONG;
	rc = places_make_dir(base, 0700);
	if (rc)
		return rc;
	remove_dead(base);
	n = snprintf(buf, size, "%s/%ld", base, (long)getpid());
	return n > 0 && (size_t)n < size ? 0 : -ENAMETOOLONG;
}
