/*
 * One history: a disk, a store on it, an oracle, and the processes that take turns with them.  Shared by the crash
 * laboratory's files.
 */
#ifndef TEST_CRASH_HISTORY_H
#define TEST_CRASH_HISTORY_H

#include "bdev/crash.h"
#include "test/crash/oracle.h"

#define HISTORY_NO_SCRIPT UINT64_MAX

/* What the disk does besides, to one copy of a metadata page. */
enum lies { LIES_NONE, LIES_LOST, LIES_MISDIRECTED, LIES_ROT };

/* What the operations on volumes are mostly. */
enum taste { TASTE_ALL, TASTE_FEW, TASTE_SNAPSHOTS, TASTE_COPIES, TASTE_ATTRIBUTES };

/* What a seed makes of a history; the same in all its phases. */
struct history {
	uint64_t seed;
	struct crash_disk *disk;
	struct oracle *oracle;
	struct crash_disk_opts disk_opts;
	uint32_t cluster_bytes, journal_pages;
	uint8_t leaf_shift, inner_shift;
	bool checksums;
	uint64_t map_cache_bytes; /* for nodes of maps: from next to nothing to all of them */
	unsigned nr_threads, nr_fibers, nr_ops; /* nr_ops: of all fibers in one phase */
	uint64_t max_blocks;			/* of a volume */
	unsigned flush_percent, fua_one_in;	/* of operations; of changes */
	unsigned nr_controls;			/* fibers that operate on volumes */
	unsigned io_blocks, near_percent;	/* at most, of most I/O; of it, how much goes to the same few places */
	unsigned unmap_percent, unmap_blocks;	/* of operations; at most, where not whole clusters are hit */
	unsigned cluster_one_in;		/* so many changes are of a whole cluster */
	enum taste taste;
	enum lies lies;
	unsigned pause_us;			/* between a fiber's operations, at most */
	unsigned control_pause_us;		/* between operations on volumes */
	bool small_io, verbose;
	bool failing; /* an operation may fail with other errors than -ENOSPC, and what it did is then not known */
	struct kept *died; /* what the process before left, which died without the machine; NULL: power was lost */
	/* May be NULL: the store's opening has returned; the work is about to begin; all of it is done. */
	void (*recovered)(struct history *h);
	void (*begins)(struct history *h);
	void (*over)(struct history *h);
};

/* workload.c: one phase.  Phase 0 makes the store; later ones open what is left, judge it and go on. */
struct workload {
	struct history *h;
	unsigned phase;
	uint64_t script; /* HISTORY_NO_SCRIPT: threads of random I/O, and a fiber of random control */
	bool clean;	 /* it ended, and the store was closed */
};

void workload_main(void *workload);
void workload_print_waiting(void); /* what it waits for, should it hang */
void workload_wind_down(void);	   /* nothing new is begun: the rest will not be looked at */
/* Judges what is left of the last workload, ended or not.  Ends the process when something is wrong. */
_Noreturn void workload_fail(const char *what);

/* outside.c: a bdev that volumes are cloned from, and one that they are copied to.  In a fiber. */
int outside_create(uint64_t max_blocks);
uint64_t outside_blocks(uint64_t max_blocks); /* of 512 bytes: of the one to clone from, which is no whole number of clusters */
char *outside_target(void);		      /* what the other holds */

/* lies.c */
void lies_begin(struct history *h); /* of a phase */
void lies_rot(const struct history *h, struct crash_disk *disk, uint64_t seed); /* of what a power cut left */

/* script.c */
uint64_t script_nr_single(void); /* operations on either volume */
uint64_t script_single(uint64_t i); /* the script of nothing else */
uint64_t script_count(void); /* of all sequences of up to three operations, one after another or at once */
void script_name(uint64_t script, char *buf, size_t size);
void script_run(struct history *h, uint64_t script); /* in a fiber of a workload */

/* verify.c */
struct verification {
	struct history *h;
	uint64_t seed;
	bool use;	/* go on using the store, and judge again */
	void (*used)(struct history *h); /* it was used, and what that did was flushed; may be NULL */
	const char *fate;
	void (*failed)(const char *fate, const char *wrong); /* does not return */
	bool wants_answer;
	uint64_t answer; /* hash of all that was seen */
};

/* In a fiber: opens the store, judges everything on it.  Returns NULL or what is wrong.  rebase: the oracle takes what it sees
 * for what is. */
const char *verify_open(struct history *h, bool rebase, bool *ret_no_store, uint64_t *ret_answer);
/* Whether a volume is in the store and not shown: its log says that there was no memory, and the next process shows it. */
bool verify_hides_any(struct history *h);
const char *verify_volumes(struct history *h, bool after_crash, bool rebase, uint64_t *ret_answer);
/* Clusters that are neither free nor in use, nor promised; what is promised twice counts against them.  unknown: the answer where the
 * store has failed. */
fiber_fn uint64_t verify_lost_clusters(struct history *h, uint64_t unknown);
void verify_main(void *verification);

uint64_t history_rand(uint64_t *state);

/* history.c */
enum { LOOK_KINDS = 3 };

/* How closely histories are looked at. */
struct scrutiny {
	uint64_t only_event; /* 0: all */
	unsigned every, nr_looks, nr_phases;
	unsigned nested_one_in; /* so many looks also look at crashes within their recovery; 0: none */
	bool verbose;
};

/* What outlives the children: counts, and where the one at work is. */
struct witness {
	uint64_t nr_events, nr_looks, nr_distinct, nr_histories, nr_scripts, nr_phases, nr_nested, nr_again, nr_skipped;
	uint64_t nr_calls; /* on volumes and the store, of any kind, in work; some of them: */
	uint64_t nr_snapshots, nr_clones, nr_reverts, nr_inflates, nr_set_parents, nr_copies, nr_outsides, nr_grows;
	uint64_t seed, script, event;
	unsigned phase, look;
	bool nested;
	char wrong[640]; /* in the child that failed last: what is wrong */
	uint64_t nr_lies;
	uint64_t nr_failures; /* what was made to fail */
	uint64_t nr_seen;     /* images, in the table after this */
	uint64_t seen[];
};

#define WITNESS_SEEN_CAP (1ull << 23)

extern struct witness *witness;
struct witness *witness_create(void);
void history_make(struct history *h, uint64_t seed, bool verbose);
void history_unmake(struct history *h);
/* Each runs in a process of its own, and ends it: 0 when all is well. */
_Noreturn void history_run(uint64_t seed, const struct scrutiny *scrutiny);
/* As history_run_scripts(), with each operation of the device failing in turn, and each allocation of the store's (in a build
 * with mutants), in the scripts or in the recovery before them. */
_Noreturn void history_run_failures(uint64_t age, uint64_t first, uint64_t nr, uint64_t stride, uint64_t end_s,
				    const struct scrutiny *scrutiny);
/* damage.c, in a process of its own: of every step-th metadata page, from the first on. */
_Noreturn void damage_run(unsigned first, unsigned step);
_Noreturn void history_run_scripts(uint64_t age, uint64_t first, uint64_t nr, uint64_t stride, uint64_t end_s,
				   const struct scrutiny *scrutiny);

#endif
