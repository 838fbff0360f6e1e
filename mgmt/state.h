/*
 * The saved state: a set of keyed configuration objects, each a management call to be replayed at start, kept in an
 * append-only journal in the state folder.
 *
 * Every change is a line of the journal, durable before its call is answered; concurrent changes share one fdatasync,
 * done off the reactor.  doc/mgmt.md has the format, doc/adr the reasons.
 */
#ifndef MGMT_STATE_H
#define MGMT_STATE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/fiber.h"
#include "runtime/list.h"

/* A key: what kind of thing, whose it is ("" for nobody's), and its name there. */
struct state_key {
	const char *class, *parent, *name;
};

/* Classes, in the order in which they are replayed. */
#define STATE_LOG	"log"
#define STATE_STORE	"store"	   /* that the daemon has had open */
#define STATE_DELETION	"deletion" /* of exported volumes, begun */
#define STATE_BDEV	"bdev"
#define STATE_THRESHOLD "threshold" /* of a store's fullness */
#define STATE_TRANSPORT "transport"
#define STATE_SUBSYSTEM "subsystem"
#define STATE_HOST	"host"
#define STATE_NAMESPACE "namespace"
#define STATE_LISTENER	"listener"
#define STATE_JOB	"job"

struct state;

/* One change on its way to the disk.  Owner: the submitter until done runs, on the app thread. */
struct state_commit {
	struct list link;
	uint64_t seq;
	void (*done)(struct state_commit *commit, int status); /* 0, or why it is not durable: -ENOSPC, -EIO… */
};

/* --- the journal's bytes (journal.c); no I/O, any thread ----------------------------------------------------------- */

/* What a journal holds, in memory: the live objects by key, in order of their making. */
struct journal {
	json_t *objects;      /* key in text -> {"key":[c,p,n],"method":…,"params":…} */
	uint64_t seq;	      /* of the last line */
	uint64_t durable_seq; /* of the last line known to be on the medium */
	uint64_t nr_lines;
};

int journal_init(struct journal *j);
void journal_fini(struct journal *j);
/* The text under which an object stands in journal.objects; free() it. */
char *journal_key_text(const char *class, const char *parent, const char *name);
/* Applies one change, an array of {"put":key,"method":…,"params":…} and {"delete":key}.  0 or -EINVAL. */
int journal_apply(struct journal *j, json_t *changes);
/* The line for a change, newline included; takes the next sequence number.  NULL: no memory.  free() it. */
char *journal_line(struct journal *j, json_t *changes, size_t *ret_len);
/* A whole new journal with the live objects alone.  NULL: no memory.  free() it. */
char *journal_dump(struct journal *j, size_t *ret_len);

/* Where reading stopped short, for messages. */
struct journal_damage {
	uint64_t line;	 /* counted from 1; 0: none */
	size_t offset;	 /* of the line in the file, bytes */
	const char *why;
	bool torn;	 /* only the unfinished tail of the last write: nothing answered is lost */
};

/**
 * journal_load - read a journal
 *
 * A bad line that no later line calls durable, and everything behind it, is the torn tail of the last write: left out, and
 * told of in *ret_damage.  A bad line that was durable is damage.
 *
 * Return: 0, -EBADMSG for damage, -ENOTSUP for a format that is too new or not ours, -ENOMEM.
 */
int journal_load(struct journal *j, const char *buf, size_t len, struct journal_damage *ret_damage);

/* --- the file (state.c); app thread --------------------------------------------------------------------------------- */

/**
 * state_open - take the folder's lock and read its journal
 *
 * May block: at start only.  Errors are logged, with the line for damage.
 * Return: 0, -EBUSY when another daemon has the folder, -EBADMSG for damage, or what the system said.
 */
int state_open(const char *dir, struct state **ret_state);
/* Starts the writer's fiber; before the first state_append(). */
int state_start(struct state *state);
/* Ends the writer once everything appended has been written. */
fiber_fn void state_stop(struct state *state);
void state_close(struct state *state);

/* Applies the change in memory and queues its line; commit->done runs when it is durable, never before this returned. */
void state_append(struct state *state, json_t *changes, struct state_commit *commit);

/* The live objects of one class, in order of their making: fn(key's parent, key's name, method, params).  fn may not change
 * the state. */
void state_for_each(struct state *state, const char *class,
		    void (*fn)(void *arg, const char *parent, const char *name, const char *method, json_t *params),
		    void *arg);
bool state_has(struct state *state, const struct state_key *key);
size_t state_nr_objects(struct state *state);

/**
 * state_replay - apply the saved objects, class by class, through their methods
 *
 * What cannot be applied now is logged by name and kept.
 * Return: how many could not be applied.
 */
fiber_fn unsigned state_replay(struct state *state);

#endif
