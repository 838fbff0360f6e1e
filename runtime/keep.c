/*
 * Kept memory: files mapped and shared, of which the page cache outlives the process.  The first page of each says of which
 * boot of the machine it is and how long; the rest is the caller's.
 */
#include "runtime/keep.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/log.h"

#define HEADER_BYTES 4096u
#define BOOT_ID_MAX  64u

struct keep_header {
	char magic[8];
	uint64_t bytes;
	char boot_id[BOOT_ID_MAX]; /* written last */
};

static const char magic[8] = "FRLKEEP1";
static int folder = -1;

int keep_set_folder(const char *path)
{
	struct stat st;
	int fd = -1;

	if (path) {
		fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return -errno;
		if (fstat(fd, &st) || st.st_uid != geteuid() || st.st_mode & (S_IWGRP | S_IWOTH)) {
			close(fd);
			return -EPERM;
		}
	}
	if (folder >= 0)
		close(folder);
	folder = fd;
	return 0;
}

/* Empty when the machine does not say: then nothing that is found is believed. */
static void get_boot_id(char id[BOOT_ID_MAX])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, id, BOOT_ID_MAX - 1) : 0;

	memset(id + (n > 0 ? n : 0), 0, BOOT_ID_MAX - (n > 0 ? n : 0));
	if (fd >= 0)
		close(fd);
}

static int open_file(const char *name)
{
	struct stat st;
	int fd = openat(folder, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	int rc = 0;

	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB))
		rc = errno == EWOULDBLOCK ? -EBUSY : -errno;
	else if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_nlink > 1)
		rc = -EPERM;
	if (rc) {
		close(fd);
		return rc;
	}
	return fd;
}

static bool is_ours(const struct keep_header *h, size_t bytes, const char *boot_id)
{
	return !memcmp(h->magic, magic, sizeof(magic)) && h->bytes == bytes && boot_id[0] &&
	       !memcmp(h->boot_id, boot_id, BOOT_ID_MAX);
}

/* All its memory is taken now: a later touch that finds none would be the end of the process. */
static int resize(int fd, size_t bytes, bool *ret_same)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	*ret_same = (size_t)st.st_size == bytes;
	if (!*ret_same && (ftruncate(fd, 0) || ftruncate(fd, (off_t)bytes)))
		return -errno;
	return -posix_fallocate(fd, 0, (off_t)bytes);
}

int keep_open(struct keep *k, const char *name, size_t bytes)
{
	char boot_id[BOOT_ID_MAX];
	struct keep_header *h;
	bool same = false;
	int rc;

	memset(k, 0, sizeof(*k));
	k->fd = -1;
	if (folder < 0)
		return -ENOENT;
	if (!name[0] || strlen(name) >= sizeof(k->name) || strchr(name, '/') || bytes > SSIZE_MAX - HEADER_BYTES)
		return -EINVAL;
	k->fd = open_file(name);
	if (k->fd < 0)
		return k->fd;
	rc = resize(k->fd, bytes + HEADER_BYTES, &same);
	if (rc)
		goto out_close;
	h = mmap(NULL, bytes + HEADER_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, k->fd, 0);
	if (h == MAP_FAILED) {
		rc = -ENOMEM;
		goto out_close;
	}
	get_boot_id(boot_id);
	k->found = same && is_ours(h, bytes, boot_id);
	if (!k->found) {
		memset(h, 0, bytes + HEADER_BYTES);
		memcpy(h->magic, magic, sizeof(magic));
		h->bytes = bytes;
		memcpy(h->boot_id, boot_id, BOOT_ID_MAX);
	}
	k->mem = (uint8_t *)h + HEADER_BYTES;
	k->bytes = bytes;
	strcpy(k->name, name);
	return 0;
out_close:
	close(k->fd);
	k->fd = -1;
	return rc;
}

void keep_close(struct keep *k, bool forget)
{
	if (!k->mem)
		return;
	if (forget && folder >= 0 && unlinkat(folder, k->name, 0) && errno != ENOENT)
		log_warning("kept memory %s cannot be removed: %s", k->name, strerror(errno));
	munmap((uint8_t *)k->mem - HEADER_BYTES, k->bytes + HEADER_BYTES);
	close(k->fd); /* not before: whoever opens it next must not find it half gone */
	memset(k, 0, sizeof(*k));
	k->fd = -1;
}
