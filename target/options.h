/* The daemon's options, and the places it uses when none are named. */
#ifndef TARGET_OPTIONS_H
#define TARGET_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/log.h"

#define OPTIONS_PATH_MAX 256
#define OPTIONS_MAX_FILE_DIRS 64

/* Filled once by options_parse(); constant afterwards. */
struct options {
	const char *cores; /* NULL: one reactor, not pinned */
	unsigned mem_mib;  /* 0: computed */
	unsigned map_cache_mib; /* of each store; 0: computed */
	bool no_huge, ephemeral, poll;
	uint32_t idle_us; /* 0: the default */
	bool log_level_given;
	enum log_level log_level;
	char state_dir[OPTIONS_PATH_MAX];
	char rpc_socket[OPTIONS_PATH_MAX];
	char keep_dir[OPTIONS_PATH_MAX]; /* empty: chosen by places_keep_dir(); "none": nothing is kept */
	const char *http_addr; /* NULL: no HTTP */
	const char *file_dirs[OPTIONS_MAX_FILE_DIRS];
	unsigned nr_file_dirs;
};

/* Reads the command line.  Ends the process for --help, --version (status 0) and errors (status 2). */
void options_parse(struct options *opts, int argc, char **argv);

#endif
