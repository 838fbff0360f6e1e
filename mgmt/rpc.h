/*
 * The management calls: a table of methods, each a function that reads like blocking code, whoever brought the call (the
 * Unix socket, HTTP, the state that is replayed at start).
 *
 * A method gets its parameters decoded and checked against its table; what it changes is durable before it is answered.
 */
#ifndef MGMT_RPC_H
#define MGMT_RPC_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

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

/* One parameter: its key, and the older or longer names it also goes by. */
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

struct rpc_call {
	const struct rpc_method *method;
	json_t *params;	 /* an object, or NULL; borrowed by the method */
	bool replay;	 /* the saved state is being applied: do not save again */
	/* exactly one of these is set by the method before it returns */
	json_t *result;
	int error_code;
	char error_message[256];
	json_t *error_data;
};

struct rpc_method {
	const char *name;
	fiber_fn void (*handler)(struct rpc_call *call);
	const struct rpc_param *params; /* ends with a NULL key; NULL: the method takes none */
	enum rpc_decode_style style;
	bool unknown_ok; /* unknown top-level keys are ignored (SPDK does so for some nvmf calls) */
	bool changes;	 /* takes the configuration lock: such calls run one after another, in order of arrival */
	struct list link;
};

/* Thread: app.  The table stays the caller's; ends with a NULL name. */
void rpc_register(struct rpc_method *methods);
const struct rpc_method *rpc_find(const char *name);
void rpc_for_each(void (*fn)(const struct rpc_method *method, void *arg), void *arg);

/**
 * rpc_execute - run one call
 * @call: params given; result or error set on return.  The caller frees both with rpc_call_fini().
 */
fiber_fn void rpc_execute(const char *method, struct rpc_call *call);
void rpc_call_fini(struct rpc_call *call);

/* How a method ends. */
void rpc_ok(struct rpc_call *call, json_t *result); /* takes the reference; NULL: true */
/* message: SPDK's text.  data: what is wrong and what to do about it, in a sentence, for error.data; NULL: none. */
void rpc_fail(struct rpc_call *call, int code, const char *message, const char *data_fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* code -errno and strerror's text */
void rpc_fail_errno(struct rpc_call *call, int err, const char *data_fmt, ...) __attribute__((format(printf, 3, 4)));
/* the parameter's name goes into error.data as well */
void rpc_fail_param(struct rpc_call *call, const char *key, const char *data_fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Decoded parameters; the default when absent.  The types have been checked by then. */
const char *rpc_string(const struct rpc_call *call, const char *key, const char *fallback);
bool rpc_bool(const struct rpc_call *call, const char *key, bool fallback);
uint64_t rpc_u64(const struct rpc_call *call, const char *key, uint64_t fallback);
int64_t rpc_i64(const struct rpc_call *call, const char *key, int64_t fallback);
bool rpc_has(const struct rpc_call *call, const char *key);
json_t *rpc_json(const struct rpc_call *call, const char *key);

/* The whole of a JSON-RPC exchange: a request, notification or batch in; the reply text out, or NULL when none is owed. */
fiber_fn json_t *rpc_answer(json_t *request);

#endif
