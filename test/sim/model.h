/*
 * What a namespace must hold: an oracle that knows nothing of the code under test.  It lives in memory shared between the
 * processes of a run, so that it outlives a power cut.
 *
 * Each change gets a version of its own, and what is written names its block and version, so that a block read back tells which
 * change it comes from.  A block may hold the last acknowledged change or any later one that was never answered; after a power
 * cut the last change that a completed flush (or FUA) covered, or any later one.
 */
#ifndef TEST_SIM_MODEL_H
#define TEST_SIM_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#define MODEL_BLOCK_SIZE 512u

struct model_block {
	uint32_t issued;      /* newest version sent; 0: never written */
	uint32_t zero_issued; /* newest of them that makes zeroes */
	uint32_t acked, durable;
	bool acked_zero, durable_zero;
};

struct model {
	uint64_t seed;
	uint32_t nr_blocks;
	uint32_t version;
	bool after_cut; /* the next look is the first after a power cut */
	/* what was done, in all runs of this seed */
	uint64_t nr_writes, nr_reads, nr_flushes, nr_failed, nr_reconnects, nr_cuts, nr_checked;
	struct model_block blocks[];
};

struct model *model_create(uint64_t seed, uint32_t nr_blocks); /* shared; NULL: no memory */
void model_destroy(struct model *model);

/* A change is sent; its version. */
uint32_t model_issue(struct model *model, uint32_t block, uint32_t nr_blocks, bool zero);
/* It has succeeded; durable: and survives from now on. */
void model_ack(struct model *model, uint32_t block, uint32_t nr_blocks, uint32_t version, bool zero, bool durable);

/* A flush is sent: notes what it must cover; snap has room for nr_blocks. */
void model_flush_begin(const struct model *model, uint32_t block, uint32_t nr_blocks, struct model_block *snap);
void model_flush_done(struct model *model, uint32_t block, uint32_t nr_blocks, const struct model_block *snap);

void model_fill(const struct model *model, void *buf, uint32_t block, uint32_t nr_blocks, uint32_t version);
/* Is this what may be there?  Says on standard error what is wrong.  settle: what was read is from now on what is there. */
bool model_check(struct model *model, const void *buf, uint32_t block, uint32_t nr_blocks, bool settle);

#endif
