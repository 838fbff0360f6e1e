/* The folders that the daemon makes, and the one that it removes again. */
#ifndef TARGET_PLACES_H
#define TARGET_PLACES_H

#include <stddef.h>
#include <sys/types.h>

/* Makes a folder and those above it that are missing.  0 or -errno. */
int places_make_dir(const char *path, mode_t mode);
/* The same for the folder that will hold @path. */
int places_make_parent(const char *path, mode_t mode);

/**
 * places_eal_dir - a folder for the memory files of this process
 *
 * Removes those left behind by daemons that were killed.
 * Return: 0, or -errno.
 */
int places_eal_dir(char *buf, size_t size);
/* Removes a folder and what is in it. */
void places_remove_dir(const char *path);

#endif
