/* Management as the daemon sees it: started last, stopped first. */
#ifndef MGMT_MGMT_H
#define MGMT_MGMT_H

#include "nvmf/nvmf.h"
#include "runtime/runtime.h"

struct mgmt;

/* Strings and arrays stay the caller's for as long as management runs. */
struct mgmt_opts {
	struct nvmf_target *target;
	const char *state_dir;	     /* exists; holds the HTTP token even when ephemeral */
	bool ephemeral;		     /* neither reads nor writes the saved state */
	const char *rpc_socket;
	const char *http_addr;	     /* "127.0.0.1:9480"; NULL: no HTTP */
	const char *const *file_dirs; /* where file-backed devices may live */
	unsigned nr_file_dirs;
};

/**
 * mgmt_start - apply the saved state, then take calls
 *
 * Thread: app, in a fiber.
 * Return: 0, or -errno with the reason in the log: another daemon has the state folder or the socket, the state is damaged.
 */
fiber_fn int mgmt_start(const struct mgmt_opts *opts, struct mgmt **ret_mgmt);

/* Takes no more calls, answers those under way, makes everything durable, frees it.  NULL is fine. */
fiber_fn void mgmt_stop(struct mgmt *mgmt);

#endif
