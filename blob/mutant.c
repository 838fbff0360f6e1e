/* Names of the mutants, and the one that is alive in a build that has them. */
#include "blob/mutant.h"

#include <stddef.h>

#ifdef BLOB_MUTANTS
enum blob_mutant blob_mutant;

static uint64_t nr_allocs, fail_nr;

void mutant_alloc_fail_nth(uint64_t nr)
{
	nr_allocs = 0;
	fail_nr = nr;
}

bool mutant_alloc_has_failed(void)
{
	return fail_nr && nr_allocs >= fail_nr;
}

bool mutant_alloc_fails(void)
{
	return fail_nr && ++nr_allocs == fail_nr;
}
#endif

static const char *const names[BLOB_MUTANT_NR] = {
	[BLOB_MUTANT_NONE] = "none",
	[BLOB_MUTANT_NO_COMMIT_FLUSH] = "no-commit-flush",
	[BLOB_MUTANT_RECORD_BEFORE_DATA] = "record-before-data",
	[BLOB_MUTANT_JOURNAL_NO_FUA] = "journal-no-fua",
	[BLOB_MUTANT_EARLY_REUSE] = "early-reuse",
	[BLOB_MUTANT_FLIP_BEFORE_FLUSH] = "flip-before-flush",
	[BLOB_MUTANT_STALE_RECORDS] = "stale-records",
	[BLOB_MUTANT_NO_ZERO_FILL] = "no-zero-fill",
	[BLOB_MUTANT_EARLY_FLUSH_ACK] = "early-flush-ack",
	[BLOB_MUTANT_EARLY_FUA_ACK] = "early-fua-ack",
	[BLOB_MUTANT_SUPER_NO_FUA] = "super-no-fua",
	[BLOB_MUTANT_COUNT_NOT_REPLAYED] = "count-not-replayed",
	[BLOB_MUTANT_CUT_BEFORE_ROOT] = "cut-before-root",
	[BLOB_MUTANT_SLOT_EARLY_REUSE] = "slot-early-reuse",
	[BLOB_MUTANT_NO_RECOVERY_FLUSH] = "no-recovery-flush",
	[BLOB_MUTANT_JOURNAL_NO_CRC] = "journal-no-crc",
	[BLOB_MUTANT_FLUSH_BEFORE_COMPLETION] = "flush-before-completion",
	[BLOB_MUTANT_FREE_UNDER_READ] = "free-under-read",
	[BLOB_MUTANT_UNMAP_RACES_REUSE] = "unmap-races-reuse",
	[BLOB_MUTANT_RESIZE_KEEPS_TAIL] = "resize-keeps-tail",
	[BLOB_MUTANT_DELETE_BEFORE_COMMIT] = "delete-before-commit",
	[BLOB_MUTANT_MIRROR_IGNORED] = "mirror-ignored",
	[BLOB_MUTANT_SUMS_LATE_MARK] = "sums-late-mark",
	[BLOB_MUTANT_FUA_ON_VOLATILE_MAP] = "fua-on-volatile-map",
	[BLOB_MUTANT_FUA_DROPPED] = "fua-dropped",
	[BLOB_MUTANT_GROUP_FLUSH_SKIPPED] = "group-flush-skipped",
	[BLOB_MUTANT_FLUSH_JOINS_RUNNING] = "flush-joins-running",
	[BLOB_MUTANT_COMMIT_JOINS_RUNNING] = "commit-joins-running",
	[BLOB_MUTANT_JOURNAL_ANY_EPOCH] = "journal-any-epoch",
	[BLOB_MUTANT_JOURNAL_SKIPS_HOLE] = "journal-skips-hole",
	[BLOB_MUTANT_EPOCH_KEPT] = "epoch-kept",
	[BLOB_MUTANT_RECOVERY_CUTS_FIRST] = "recovery-cuts-first",
	[BLOB_MUTANT_ONE_SUPERBLOCK] = "one-superblock",
	[BLOB_MUTANT_CHECKPOINT_NOT_FROZEN] = "checkpoint-not-frozen",
	[BLOB_MUTANT_SNAPSHOT_BEFORE_COMMIT] = "snapshot-before-commit",
	[BLOB_MUTANT_SNAPSHOT_NO_DRAIN] = "snapshot-no-drain",
	[BLOB_MUTANT_SNAPSHOT_PASSES_SIBLING] = "snapshot-passes-sibling",
	[BLOB_MUTANT_SUMS_CLEANING_KEPT] = "sums-cleaning-kept",
	[BLOB_MUTANT_SNAPSHOT_NOT_CAUSAL] = "snapshot-not-causal",
	[BLOB_MUTANT_SNAPSHOT_COUNT_NOT_REPLAYED] = "snapshot-count-not-replayed",
	[BLOB_MUTANT_CLONE_UNCOUNTED] = "clone-uncounted",
	[BLOB_MUTANT_REVERT_UNCOUNTED] = "revert-uncounted",
	[BLOB_MUTANT_COPY_SHARES_UNCOUNTED] = "copy-shares-uncounted",
	[BLOB_MUTANT_DELETE_COUNTS_TWO] = "delete-counts-two",
	[BLOB_MUTANT_REAP_TWICE] = "reap-twice",
	[BLOB_MUTANT_SHARED_IN_PLACE] = "shared-in-place",
	[BLOB_MUTANT_UNSETTLED_IN_PLACE] = "unsettled-in-place",
	[BLOB_MUTANT_COPY_FORGETS_MASK] = "copy-forgets-mask",
	[BLOB_MUTANT_EDGE_WITHOUT_BASE] = "edge-without-base",
	[BLOB_MUTANT_PUNCH_SHOWS_BASE] = "punch-shows-base",
	[BLOB_MUTANT_PUNCH_UNLOCKED] = "punch-unlocked",
	[BLOB_MUTANT_TRIM_FORGOTTEN] = "trim-forgotten",
	[BLOB_MUTANT_ATTRIBUTES_BEFORE_COMMIT] = "attributes-before-commit",
	[BLOB_MUTANT_RESIZE_BEFORE_COMMIT] = "resize-before-commit",
	[BLOB_MUTANT_FAILED_PAGE_IGNORED] = "failed-page-ignored",
	[BLOB_MUTANT_STALE_PAGE_TAKEN] = "stale-page-taken",
	[BLOB_MUTANT_NODE_GOES_DIRTY] = "node-goes-dirty",
	[BLOB_MUTANT_NODE_GOES_EARLY] = "node-goes-early",
	[BLOB_MUTANT_NODE_COMES_SETTLED] = "node-comes-settled",
	[BLOB_MUTANT_BIT_BEFORE_DATA] = "bit-before-data",
	[BLOB_MUTANT_SUMS_CLEARED_EARLY] = "sums-cleared-early",
	[BLOB_MUTANT_THICK_TAKES_PROMISED] = "thick-takes-promised",
	[BLOB_MUTANT_CHECKPOINTS_CHASED] = "checkpoints-chased",
	[BLOB_MUTANT_METADATA_CLUSTER_EARLY] = "metadata-cluster-early",
};

const char *blob_mutant_name(enum blob_mutant mutant)
{
	return (unsigned)mutant < BLOB_MUTANT_NR ? names[mutant] : NULL;
}
