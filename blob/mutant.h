/*
 * Mutants: classic bugs that can be put back in one at a time, to prove that the crash laboratory finds each.  They exist
 * only in libblob_mutants.a, built with BLOB_MUTANTS; in the library that ships BLOB_MUTANT() is a constant 0.
 */
#ifndef BLOB_MUTANT_H
#define BLOB_MUTANT_H

#include <stdbool.h>
#include <stdint.h>

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
	BLOB_MUTANT_FUA_ON_VOLATILE_MAP, /* a FUA overwrite does not wait for the commit of a map that somebody else has just made */
	BLOB_MUTANT_FUA_DROPPED, /* a FUA overwrite goes to the volatile cache */
	BLOB_MUTANT_GROUP_FLUSH_SKIPPED, /* FUA writes that are to share a flush are answered without it */
	BLOB_MUTANT_FLUSH_JOINS_RUNNING, /* a host's flush is answered by a device flush that was submitted before it */
	BLOB_MUTANT_COMMIT_JOINS_RUNNING, /* who asks for a commit while one is written is answered by that one */
	BLOB_MUTANT_JOURNAL_ANY_EPOCH, /* recovery takes journal pages in sequence that an earlier epoch wrote */
	BLOB_MUTANT_JOURNAL_SKIPS_HOLE, /* recovery goes on behind the first missing journal page */
	BLOB_MUTANT_EPOCH_KEPT, /* recovery does not begin a new epoch */
	BLOB_MUTANT_RECOVERY_CUTS_FIRST, /* recovery cuts the journal before its checkpoint is durable */
	BLOB_MUTANT_ONE_SUPERBLOCK, /* only the first superblock is written */
	BLOB_MUTANT_CHECKPOINT_NOT_FROZEN, /* a checkpoint takes in what changed after its cut */
	BLOB_MUTANT_SNAPSHOT_BEFORE_COMMIT, /* a snapshot is answered before it is durable */
	BLOB_MUTANT_SNAPSHOT_NO_DRAIN, /* a snapshot is answered while writes to what it shares are in flight */
	BLOB_MUTANT_SNAPSHOT_PASSES_SIBLING, /* a snapshot does not wait for a first write into a cluster that another one has mapped */
	BLOB_MUTANT_SUMS_CLEANING_KEPT, /* a write that begins while a cluster's mark is taken back does not keep the mark */
	BLOB_MUTANT_SNAPSHOT_NOT_CAUSAL, /* until a snapshot is answered, overwrites go into it that began after what it misses */
	BLOB_MUTANT_SNAPSHOT_COUNT_NOT_REPLAYED, /* replay of a snapshot or clone forgets the map's reference count */
	BLOB_MUTANT_CLONE_UNCOUNTED, /* a snapshot or clone does not count in the map that it shares */
	BLOB_MUTANT_REVERT_UNCOUNTED, /* a reverted volume does not count in the map that it shares */
	BLOB_MUTANT_COPY_SHARES_UNCOUNTED, /* a copied inner node does not count in its children */
	BLOB_MUTANT_DELETE_COUNTS_TWO, /* the deletion of what is shared takes two references off */
	BLOB_MUTANT_REAP_TWICE, /* a node that is still shared is reaped until it is not */
	BLOB_MUTANT_SHARED_IN_PLACE, /* a cluster that others share is written in place */
	BLOB_MUTANT_UNSETTLED_IN_PLACE, /* a cluster is written in place before the end of its sharing is durable */
	BLOB_MUTANT_COPY_FORGETS_MASK, /* copying on a write, the map forgets what was copied */
	BLOB_MUTANT_EDGE_WITHOUT_BASE, /* a small write over a base fills the rest of its sub-block with zeros */
	BLOB_MUTANT_PUNCH_SHOWS_BASE, /* what is unmapped over a base shows the base again */
	BLOB_MUTANT_PUNCH_UNLOCKED, /* an unmap frees a cluster under a first write into it */
	BLOB_MUTANT_TRIM_FORGOTTEN, /* a tail whose cutting off was interrupted by a crash stays */
	BLOB_MUTANT_ATTRIBUTES_BEFORE_COMMIT, /* a rename or attribute is answered before it is durable */
	BLOB_MUTANT_RESIZE_BEFORE_COMMIT, /* a resize is answered before it is durable */
	BLOB_MUTANT_FAILED_PAGE_IGNORED, /* a checkpoint goes on, and frees, though a page of it could not be written */
	BLOB_MUTANT_STALE_PAGE_TAKEN, /* a page of an earlier generation is taken for the one that was to be there */
	BLOB_MUTANT_NODE_GOES_DIRTY, /* a node leaves the map cache though no checkpoint has what changed in it */
	BLOB_MUTANT_NODE_GOES_EARLY, /* a node leaves the map cache before the checkpoint that has it is durable */
	BLOB_MUTANT_NODE_COMES_SETTLED, /* a node that comes back is written in place below before the end of its sharing is durable */
	BLOB_MUTANT_BIT_BEFORE_DATA, /* a sub-block's bit is set when its data write is submitted */
	BLOB_MUTANT_SUMS_CLEARED_EARLY, /* a cluster's mark is taken back before its data and checksums are durable */
	BLOB_MUTANT_THICK_TAKES_PROMISED, /* writes to thick blobs take for metadata what is promised for data */
	BLOB_MUTANT_CHECKPOINTS_CHASED, /* who finds no place for pages asks for checkpoint after checkpoint, and never hears that there is none */
	BLOB_MUTANT_METADATA_CLUSTER_EARLY, /* a checkpoint that is running takes places in a cluster that its counts do not have */
	BLOB_MUTANT_NR
};

#ifdef BLOB_MUTANTS
extern enum blob_mutant blob_mutant; /* the one that is alive; set before the store is opened */
/* The nr-th allocation of this room from now on fails.  0: none does. */
void mutant_alloc_fail_nth(uint64_t nr);
bool mutant_alloc_has_failed(void); /* that one has come */
bool mutant_alloc_fails(void);	    /* counts one: see mutant_alloc.h */
#define BLOB_MUTANT(which) (blob_mutant == BLOB_MUTANT_##which)
#else
#define BLOB_MUTANT(which) 0
#endif

/* Its name in lower case with dashes, NULL past the last. */
const char *blob_mutant_name(enum blob_mutant mutant);

#endif
