/*
 * Folders.  Each process keeps DPDK's files in a folder of its own, with a lock that it holds while it lives; one that was
 * killed leaves its folder behind, and the next daemon, which finds the lock free, removes it.  A process number would not do:
 * containers share folders and not numbers.
 */
#include "target/places.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
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

/* Opens the folder's lock file and takes its lock if nobody has it.  The open file, or -errno; -EAGAIN: somebody has it. */
static int lock_dir(const char *dir, int flags)
{
	char path[700];
	int fd, rc;

	snprintf(path, sizeof(path), "%s/lock", dir);
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return fd;
	rc = -errno;
	close(fd);
	return rc;
}

/* PID.XXXXXX, as places_own_dir() makes them. */
static bool is_ours(const char *base, const char *name, char *path, size_t size)
{
	struct stat st;
	char *end;

	if (strtol(name, &end, 10) <= 0 || *end != '.' || strlen(end) != 7)
		return false;
	snprintf(path, size, "%s/%s", base, name);
	return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid();
}

static void remove_dead(const char *base)
{
	DIR *dir = opendir(base);
	struct dirent *entry;
	char path[600];
	int lock;

	while (dir && (entry = readdir(dir))) {
		if (!is_ours(base, entry->d_name, path, sizeof(path)))
			continue;
		lock = lock_dir(path, 0);
		if (lock < 0 && lock != -ENOENT)
			continue;
		places_remove_dir(path);
		if (lock >= 0)
			close(lock);
	}
	if (dir)
		closedir(dir);
}

int places_own_dir(const char *base, char *buf, size_t size)
{
	int base_fd, lock, n, rc = places_make_dir(base, 0700);

	if (rc)
		return rc;
	base_fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (base_fd < 0)
		return -errno;
	/* A folder without a lock is nobody's only while nobody is making one. */
	if (flock(base_fd, LOCK_EX) < 0) {
		rc = -errno;
		goto out_base;
	}
	remove_dead(base);
	n = snprintf(buf, size, "%s/%ld.XXXXXX", base, (long)getpid());
	if (n < 0 || (size_t)n >= size) {
		rc = -ENAMETOOLONG;
	} else if (!mkdtemp(buf)) {
		rc = -errno;
	} else {
		lock = lock_dir(buf, O_CREAT); /* stays open as long as the process lives */
		rc = lock < 0 ? lock : 0;
	}
out_base:
	close(base_fd);
	return rc;
}

int places_eal_dir(char *buf, size_t size)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	char base[256];
	int n;

	if (geteuid() == 0)
		n = snprintf(base, sizeof(base), "/run/ferrule/eal");
	else if (runtime && runtime[0] == '/')
		n = snprintf(base, sizeof(base), "%s/ferrule-eal", runtime);
	else
		n = snprintf(base, sizeof(base), "/tmp/ferrule-eal-%u", (unsigned)geteuid());
	if (n < 0 || (size_t)n >= sizeof(base))
		return -ENAMETOOLONG;
	return places_own_dir(base, buf, size);
}

static bool on_tmpfs(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

/* The first place for it that is on a tmpfs. */
static int keep_base(char *buf, size_t size)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");

	if (geteuid() == 0 && on_tmpfs("/run"))
		snprintf(buf, size, "/run/ferrule/kept");
	else if (geteuid() != 0 && runtime && runtime[0] == '/' && on_tmpfs(runtime))
		snprintf(buf, size, "%s/ferrule-kept", runtime);
	else if (on_tmpfs("/dev/shm"))
		snprintf(buf, size, "/dev/shm/ferrule-kept-%u", (unsigned)geteuid());
	else
		return -ENOENT;
	return 0;
}

/* In a folder that all may write in, another user may have been first. */
static int make_own(const char *path)
{
	int rc = places_make_dir(path, 0700);
	struct stat st;

	if (rc)
		return rc;
	return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() ? 0 : -EPERM;
}

int places_keep_dir(char *buf, size_t size, const char *given, const char *state_dir)
{
	char base[300], *state;
	int n, rc;

	if (!strcmp(given, "none"))
		return -ENOENT;
	if (given[0]) {
		n = snprintf(buf, size, "%s", given);
	} else {
		rc = keep_base(base, sizeof(base));
		if (!rc)
			rc = make_own(base);
		if (rc)
			return rc;
		state = realpath(state_dir, NULL);
		if (!state)
			return -errno;
		for (char *c = state + 1; *c; c++)
			if (*c == '/')
				*c = '-';
		n = snprintf(buf, size, "%s/%s", base, state + 1);
		free(state);
	}
	if (n < 0 || (size_t)n >= size)
		return -ENAMETOOLONG;
	return make_own(buf);
}
