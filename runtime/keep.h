/*
 * Kept memory: it outlives the process, but not the machine.  What a daemon has acknowledged and not yet made durable can
 * stand in it, so that the next daemon finds it after a mere death of this one, as it finds the data in the kernel's cache.
 *
 * A piece is a file of the kept folder, mapped and shared; the folder is meant to be on a tmpfs.  Contents of another boot
 * of the machine are never shown.  What is stored is seen by the next process in the order in which it was stored.
 * Thread: app.  Nothing here suspends; files on a tmpfs take microseconds.
 */
#ifndef RUNTIME_KEEP_H
#define RUNTIME_KEEP_H

#include <stdbool.h>
#include <stddef.h>

/* From now on pieces are files of this folder, which is there already; NULL: nothing is kept (so it is at first).
 * Return: 0, -EPERM (the folder belongs to somebody else, or others may write in it), or what opening it gives. */
int keep_set_folder(const char *path);

struct keep {
	void *mem;   /* 4096-aligned; NULL: not open */
	size_t bytes;
	bool found;  /* holds what an earlier process left; otherwise all zeroes */
	int fd;	     /* locked while open */
	char name[64];
};

/**
 * keep_open - map the piece called name, making it if it is not there or does not fit
 * @name: at most 63 bytes, no '/'
 *
 * Owner of what is filled in: the caller, until keep_close().
 * Return: 0, or -ENOENT (nothing is kept), -EBUSY (another process has it open), -ENOSPC, -ENOMEM, -EPERM (somebody else's).
 */
int keep_open(struct keep *keep, const char *name, size_t bytes);
/* forget: its contents are of no use to anybody.  Harmless when not open. */
void keep_close(struct keep *keep, bool forget);

#endif
