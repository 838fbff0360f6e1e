/* Names of the mutants, and the one that is alive in a build that has them. */
#include "blob/mutant.h"

#include <stddef.h>

#ifdef BLOB_MUTANTS
enum blob_mutant blob_mutant;
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
};

const char *blob_mutant_name(enum blob_mutant mutant)
{
	return (unsigned)mutant < BLOB_MUTANT_NR ? names[mutant] : NULL;
}
