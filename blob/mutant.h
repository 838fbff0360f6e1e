/*
 * Mutants: classic bugs that can be put back in one at a time, to prove that the crash laboratory finds each.  They exist
 * only in libblob_mutants.a, built with BLOB_MUTANTS; in the library that ships BLOB_MUTANT() is a constant 0.
 */
#ifndef BLOB_MUTANT_H
#define BLOB_MUTANT_H

enum blob_mutant {
	BLOB_MUTANT_NONE,
	BLOB_MUTANT_NO_COMMIT_FLUSH,	     /* the journal is written without a device flush before it */
	BLOB_MUTANT_RECORD_BEFORE_DATA,	     /* a map record is made when its data write is submitted, not completed */
	BLOB_MUTANT_JOURNAL_NO_FUA,	     /* journal blocks go to the volatile cache */
	BLOB_MUTANT_EARLY_REUSE,	     /* a freed cluster is reused before its freeing is durable */
	BLOB_MUTANT_FLIP_BEFORE_FLUSH,	     /* superblocks are written before the pages they name are flushed */
	BLOB_MUTANT_STALE_RECORDS,	     /* recovery takes journal blocks of other epochs and laps */
	BLOB_MUTANT_NO_ZERO_FILL,	     /* a small write into a new sub-block leaves the rest of it as it was */
	BLOB_MUTANT_EARLY_FLUSH_ACK,	     /* a host's flush does not wait for the commit */
	BLOB_MUTANT_EARLY_FUA_ACK,	     /* a FUA write into new space does not wait for the commit */
	BLOB_MUTANT_SUPER_NO_FUA,	     /* superblocks go to the volatile cache */
	BLOB_MUTANT_COUNT_NOT_REPLAYED,	     /* replay of a map record forgets the cluster's reference count */
	BLOB_MUTANT_CUT_BEFORE_ROOT,	     /* the journal is cut when a checkpoint begins */
	BLOB_MUTANT_SLOT_EARLY_REUSE,	     /* metadata pages replaced by a checkpoint are reused by the same one */
	BLOB_MUTANT_NO_RECOVERY_FLUSH,	     /* recovery does not begin with a device flush */
	BLOB_MUTANT_JOURNAL_NO_CRC,	     /* a torn journal block is taken for whole */
	BLOB_MUTANT_FLUSH_BEFORE_COMPLETION, /* a commit takes in records whose data completed after its flush was submitted */
	BLOB_MUTANT_FREE_UNDER_READ,	     /* a freed cluster is reused under older reads and writes in flight */
	BLOB_MUTANT_UNMAP_RACES_REUSE,	     /* a freed cluster is reused before its unmap has completed */
	BLOB_MUTANT_RESIZE_KEEPS_TAIL,	     /* a shrink leaves the tail mapped, and a later growth shows it */
	BLOB_MUTANT_DELETE_BEFORE_COMMIT,    /* deletion is answered before it is durable */
	BLOB_MUTANT_MIRROR_IGNORED,	     /* what the process before had acknowledged is not taken over */
	BLOB_MUTANT_SUMS_LATE_MARK,	     /* a clean cluster is overwritten before its mark is durable */
	BLOB_MUTANT_NR
};

#ifdef BLOB_MUTANTS
extern enum blob_mutant blob_mutant; /* the one that is alive; set before the store is opened */
#define BLOB_MUTANT(which) (blob_mutant == BLOB_MUTANT_##which)
#else
#define BLOB_MUTANT(which) 0
#endif

/* Its name in lower case with dashes, NULL past the last. */
const char *blob_mutant_name(enum blob_mutant mutant);

#endif
