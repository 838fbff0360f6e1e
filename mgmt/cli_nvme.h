/* The host's side of the command line: `ferrule nvme VERB …`, on our own initiator.  Needs no daemon of ours.
 */
#ifndef MGMT_CLI_NVME_H
#define MGMT_CLI_NVME_H

#include <stdbool.h>
#include <stdint.h>

#include "nvme/initiator.h"

/**
 * cli_nvme - run one of the verbs
 * @argv: argv[0] is "nvme", argv[1] the verb
 *
 * Starts and ends a runtime of its own.  Return: the process's exit status: 0, 1 for what failed (said on
 * standard error), 2 for a command line that makes no sense.
 */
int cli_nvme(int argc, char **argv);

/* --- shared by its files ---------------------------------------------------------------------- */

/* What the command line said.  Owner: cli_nvme(); constant while a verb runs. */
struct cli_nvme_opts {
	const char *verb;
	struct nvme_connect_opts connect;
	bool has_nqn;
	bool json;
	uint32_t nsid; /* 0: the first */
	const char *cores;
	/* read, write, compare, zero, trim, verify */
	uint64_t offset_bytes, len_bytes;
	bool has_len, fua;
	const char *file; /* NULL or "-": standard input or output */
	/* perf */
	uint32_t queue_depth, io_bytes, read_percent, nr_queues;
	uint64_t seconds, warmup_seconds, nr_ops, range_bytes, seed;
	bool sequential, once, verify, progress;
};

fiber_fn int cli_nvme_discover(const struct cli_nvme_opts *opts);
fiber_fn int cli_nvme_identify(const struct cli_nvme_opts *opts);
fiber_fn int cli_nvme_smart(const struct cli_nvme_opts *opts);
fiber_fn int cli_nvme_read(const struct cli_nvme_opts *opts);
fiber_fn int cli_nvme_write(const struct cli_nvme_opts *opts);
fiber_fn int cli_nvme_compare(const struct cli_nvme_opts *opts);
fiber_fn int cli_nvme_zero(const struct cli_nvme_opts *opts);
fiber_fn int cli_nvme_trim(const struct cli_nvme_opts *opts);
fiber_fn int cli_nvme_verify(const struct cli_nvme_opts *opts);
fiber_fn int cli_nvme_flush(const struct cli_nvme_opts *opts);
fiber_fn int cli_nvme_perf(const struct cli_nvme_opts *opts);

/* The reason on standard error, with the verb before it; gives 1. */
int cli_nvme_fail(const struct cli_nvme_opts *opts, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* Connected and identified, or the reason said and 1 returned. */
fiber_fn int cli_nvme_connect(const struct cli_nvme_opts *opts, struct nvme_ctrlr **ret_ctrlr);
/* SIGINT or SIGTERM has come. */
bool cli_nvme_interrupted(void);

#endif
