/* Copies of kept memory; see kept.h. */
#include "test/crash/kept.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/keep.h"

#define MAX_FILES 4u

struct kept {
	unsigned nr;
	struct {
		char name[256];
		size_t len;
		char *data;
	} file[MAX_FILES];
};

static char path[64];
static int dir_fd = -1;
static pid_t maker;

static void clear(void)
{
	DIR *d = opendir(path);
	struct dirent *entry;

	while (d && (entry = readdir(d)))
		if (entry->d_name[0] != '.')
			unlinkat(dir_fd, entry->d_name, 0);
	if (d)
		closedir(d);
}

static void remove_folder(void)
{
	if (getpid() != maker)
		return;
	clear();
	rmdir(path);
}

bool kept_init(void)
{
	strcpy(path, "/dev/shm/crash_lab.XXXXXX");
	if (!mkdtemp(path)) {
		strcpy(path, "/var/tmp/crash_lab.XXXXXX");
		if (!mkdtemp(path))
			return false;
	}
	maker = getpid();
	dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return dir_fd >= 0 && !atexit(remove_folder);
}

static void use(void)
{
	if (keep_set_folder(path))
		abort();
}

void kept_begin(void)
{
	clear();
	use();
}

void kept_off(void)
{
	keep_set_folder(NULL);
}

static void copy_file(struct kept *k, const char *name)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *data;

	if (fd < 0 || fstat(fd, &st) || !(data = malloc(st.st_size + 1)) || read(fd, data, st.st_size) != st.st_size ||
	    k->nr == MAX_FILES)
		abort();
	close(fd);
	snprintf(k->file[k->nr].name, sizeof(k->file[0].name), "%s", name);
	k->file[k->nr].data = data;
	k->file[k->nr++].len = st.st_size;
}

struct kept *kept_copy(void)
{
	struct kept *k = calloc(1, sizeof(*k));
	DIR *d = opendir(path);
	struct dirent *entry;

	if (!k || !d)
		abort();
	while ((entry = readdir(d)))
		if (entry->d_name[0] != '.')
			copy_file(k, entry->d_name);
	closedir(d);
	return k;
}

void kept_put_back(const struct kept *k)
{
	clear();
	for (unsigned i = 0; i < k->nr; i++) {
		int fd = openat(dir_fd, k->file[i].name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

		if (fd < 0 || write(fd, k->file[i].data, k->file[i].len) != (ssize_t)k->file[i].len)
			abort();
		close(fd);
	}
	use();
}

void kept_free(struct kept *k)
{
	for (unsigned i = 0; k && i < k->nr; i++)
		free(k->file[i].data);
	free(k);
}
