/*
 * The management calls: a table of methods, each a function that reads like blocking code, whoever brought the call (the
 * Unix socket, HTTP, the state that is replayed at start).
 *
 * A method gets its parameters decoded and checked against its table; what it changes is durable before it is answered.
 * Everything here belongs to the app thread.
 */
#ifndef MGMT_RPC_H
#define MGMT_RPC_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "mgmt/state.h"
#include "runtime/fiber.h"
#include "runtime/list.h"

#define RPC_PARSE_ERROR	     (-32700)
#define RPC_INVALID_REQUEST  (-32600)
#define RPC_METHOD_NOT_FOUND (-32601)
#define RPC_INVALID_PARAMS   (-32602)
#define RPC_INTERNAL_ERROR   (-32603)
#define RPC_INVALID_STATE    (-1)

enum rpc_type {
	RPC_STRING,
	RPC_BOOL,
	RPC_U16,
	RPC_U32,
	RPC_U64,
	RPC_I32,
	RPC_UUID,
	RPC_OBJECT, /* further decoded by the method */
	RPC_ARRAY,
	RPC_ANY,
};

#define RPC_REQUIRED 0x1u
#define RPC_LOOSE    0x2u /* a number may come as a string and a string as a number (orchestrators send both) */
#define RPC_IGNORED  0x4u /* accepted from older clients, has no effect */

/* One parameter: its key, and the older name it also goes by. */
struct rpc_param {
	const char *key;
	enum rpc_type type;
	unsigned flags;
	const char *alias;
};

/* SPDK's families fail differently on bad parameters; see the table in doc/mgmt.md. */
enum rpc_decode_style {
	RPC_DECODE_BDEV, /* -32603 "spdk_json_decode_object failed" */
	RPC_DECODE_NVMF, /* -32602 "Invalid parameters" */
};

/*
 * One call.  Owner: the submitter; the app thread has it from rpc_submit() until done runs.  params is taken over by
 * rpc_submit() and replaced by the decoded object: canonical keys, numbers as numbers, UUIDs in lower case.
 */
struct rpc_call {
	const struct rpc_method *method;
	json_t *params;
	bool replay;   /* the saved state is being applied: nothing is saved again */
	bool detached; /* see rpc_detach() */
	/* exactly one of result, result_text and error_code is set by the method before it returns */
	json_t *result;
	char *result_text; /* JSON already, of a long list; see struct rpc_list */
	int error_code;
	char error_message[256];
	json_t *error_data;
	json_t *changes; /* of the saved state, made by rpc_save() and rpc_forget(); NULL: none */
	void (*done)(struct rpc_call *call, void *arg);
	void *arg;
	struct list link;
	struct state_commit commit;
};

#define RPC_LANE_MAX 256

struct rpc_method {
	const char *name;
	fiber_fn void (*handler)(struct rpc_call *call);
	const struct rpc_param *params; /* ends with a NULL key; NULL: the method takes none */
	enum rpc_decode_style style;
	bool unknown_ok; /* unknown top-level keys are ignored (SPDK does so for some nvmf calls) */
	bool internal;	 /* not for clients: neither listed nor called by them */
	bool changes;	 /* changes the configuration: such calls run one after another, in order of arrival */
	/*
	 * A change that is about one thing alone names it here ("" when it is not), in its decoded parameters' words: changes of
	 * different things run side by side, so that they share what they wait for.  NULL: it is about everything.
	 */
	void (*lane)(const struct rpc_call *call, char lane[RPC_LANE_MAX]);
};

/* The table stays the caller's; ends with a NULL name. */
void rpc_register(const struct rpc_method *methods);
const struct rpc_method *rpc_find(const char *name); /* internal ones too */
/* All but internal ones. */
void rpc_for_each(void (*fn)(const struct rpc_method *method, void *arg), void *arg);

/* state: where changes go; NULL: nowhere (--ephemeral).  Starts the fiber that runs the changing calls. */
int rpc_start(struct state *state);
/* Refuses new calls and suspends until every call under way has been answered. */
fiber_fn void rpc_stop(void);
bool rpc_is_stopping(void);

/**
 * rpc_submit - run one call
 * @name:   of the method
 * @params: reference taken over; NULL: none
 * @done:   runs on the app thread with result or error set, never before this has returned; the changes of the call are
 *          durable by then.  The owner then frees what the call holds with rpc_call_fini().
 */
void rpc_submit(struct rpc_call *call, const char *name, json_t *params, void (*done)(struct rpc_call *call, void *arg),
		void *arg);
void rpc_call_fini(struct rpc_call *call);

/* Runs the method in the calling fiber, beside the queue of changes and with nothing saved: for the replay at start. */
fiber_fn void rpc_replay(struct rpc_call *call, const char *name, json_t *params);

/**
 * rpc_change - run a changing method for ourselves, in order with all others
 * @params: reference taken over
 *
 * Return: 0 once what it changed is durable, or the call's error code.
 */
fiber_fn int rpc_change(const char *name, json_t *params);

/*
 * A changing method whose work is long gives the queue of changes free: it detaches the call, and returns without a result.
 * Another fiber ends the call later, with one of the functions below and then rpc_finish().  Nothing may be saved by it.
 */
void rpc_detach(struct rpc_call *call);
void rpc_finish(struct rpc_call *call);

/* How a method ends. */
void rpc_ok(struct rpc_call *call, json_t *result); /* takes the reference; NULL: true */
/* message: SPDK's text.  data: what is wrong and what to do about it, in a sentence, for error.data; NULL: none. */
void rpc_fail(struct rpc_call *call, int code, const char *message, const char *data_fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* code is err, a negative errno, and the message strerror's text */
void rpc_fail_errno(struct rpc_call *call, int err, const char *data_fmt, ...) __attribute__((format(printf, 3, 4)));
/* Bad parameters, in the words of the method's family; the parameter's name goes into error.data as well. */
void rpc_fail_param(struct rpc_call *call, const char *key, const char *data_fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Adds the name of a parameter to the data of an error set before. */
void rpc_blame(struct rpc_call *call, const char *key);
bool rpc_failed(const struct rpc_call *call);

/*
 * A result that is a long list: each element becomes text as it is added and is freed at once, and the fiber steps aside now
 * and then, so that a list of thousands holds up nobody.  Owner: the handler, on its stack.
 */
struct rpc_list {
	struct rpc_call *call;
	char *text;
	size_t len, size;
	unsigned nr;
	bool no_memory;
};

/* before: the text in front of the array, such as "{\"a\":1,\"list\":"; "" for a bare array. */
void rpc_list_begin(struct rpc_list *list, struct rpc_call *call, const char *before);
/* Takes the reference.  May suspend: look again at what you looked up. */
fiber_fn void rpc_list_add(struct rpc_list *list, json_t *element);
void rpc_list_end(struct rpc_list *list, const char *after); /* sets the call's result */

/* Decoded parameters; the fallback when absent.  The types have been checked by then. */
const char *rpc_string(const struct rpc_call *call, const char *key, const char *fallback);
bool rpc_bool(const struct rpc_call *call, const char *key, bool fallback);
uint64_t rpc_u64(const struct rpc_call *call, const char *key, uint64_t fallback);
int64_t rpc_i64(const struct rpc_call *call, const char *key, int64_t fallback);
bool rpc_has(const struct rpc_call *call, const char *key);
json_t *rpc_json(const struct rpc_call *call, const char *key); /* borrowed */

/**
 * rpc_decode - check an object against a table
 * @where: how error.data calls the object, such as "listen_address"; NULL: the call's params themselves
 *
 * Return: a new object with canonical keys and types, or NULL with the call's error set.
 */
json_t *rpc_decode(struct rpc_call *call, json_t *object, const struct rpc_param *table, const char *where,
		   bool unknown_ok);

/*
 * What is to be there after a restart.  Saves the call itself (its method and decoded params) under a key, or forgets keys.
 * parent: "" for what stands alone.  See state.h for the classes and their order.
 */
void rpc_save(struct rpc_call *call, const char *class, const char *parent, const char *name);
/* The same with other params (reference taken over) or another method. */
void rpc_save_as(struct rpc_call *call, const struct state_key *key, const char *method, json_t *params);
/* Makes what the call has saved and forgotten so far durable now, before it goes on.  0, or why it is not (in memory it is so). */
fiber_fn int rpc_commit(struct rpc_call *call);
void rpc_forget(struct rpc_call *call, const char *class, const char *parent, const char *name);
void rpc_forget_children(struct rpc_call *call, const char *class, const char *parent);
/* state_for_each() on the state that calls are saved in; nothing with --ephemeral and during the replay. */
void rpc_saved_for_each(const char *class,
			void (*fn)(void *arg, const char *parent, const char *name, const char *method, json_t *params),
			void *arg);

#endif
