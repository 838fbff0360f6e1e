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
 * places_own_dir - a new folder below @base that belongs to this process while it lives
 * @ret:  its path, in @size bytes
 *
 * Removes those whose processes are gone, however they ended.
 * Return: 0, or -errno.
 */
int places_own_dir(const char *base, char *ret, size_t size);
/* The same for this process's memory files, where this user keeps such. */
int places_eal_dir(char *buf, size_t size);
/**
 * places_keep_dir - the folder for memory that outlives the daemon, made if need be
 * @given:     what the command line says, or empty
 * @state_dir: tells daemons of one user apart; exists
 *
 * Return: 0, -ENOENT (none is wanted, or there is no tmpfs for it), or -errno.
 */
int places_keep_dir(char *buf, size_t size, const char *given, const char *state_dir);
/* Removes a folder and what is in it. */
void places_remove_dir(const char *path);

#endif
