/*
 * JSON-RPC 2.0 exchanges, in the dialect of SPDK's clients: "jsonrpc" may be missing, and an id of null makes a notification,
 * which is answered only when it fails.
 *
 * A batch runs a window of its calls at a time, started in order, and is answered whole.
 *
 * JSON that the parser cannot take whole is still answered by its id: see parse().
 */
#include "mgmt/exchange.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mgmt/rpc.h"
#include "runtime/runtime.h"

#define BATCH_WINDOW 64u

/* Owner: the app thread; freed when the last of its requests has been answered. */
struct exchange {
	json_t *requests; /* an array, also for a single one; NULL: not even JSON */
	const char *refusal; /* why none of them may run */
	char refusal_text[256];
	bool reals; /* all numbers were parsed as reals */
	size_t next;
	unsigned nr_running;
	bool batch, starting;
	char *out;
	size_t out_len, out_size;
	void (*done)(void *arg, char *text, size_t len);
	void *arg;
	struct task task;
};

struct request {
	struct exchange *x;
	json_t *id; /* NULL: a notification */
	struct rpc_call call;
};

static void advance(void *arg);

static void out_append(struct exchange *x, const char *text, size_t len)
{
	if (len > x->out_size - x->out_len) {
		size_t size = x->out_size ? (x->out_len + len) * 2 : x->out_len + len;
		char *grown = realloc(x->out, size);

		if (!grown)
			return; /* an answer is lost: the client's timeout tells it */
		x->out = grown;
		x->out_size = size;
	}
	memcpy(x->out + x->out_len, text, len);
	x->out_len += len;
}

static void add_reply(struct exchange *x, json_t *id, const char *key, json_t *value)
{
	json_t *reply = json_pack("{s:s,s:o,s:o}", "jsonrpc", "2.0", "id", id ? json_incref(id) : json_null(), key, value);
	char *text = reply ? json_dumps(reply, JSON_COMPACT) : NULL;

	json_decref(reply);
	if (!text) { /* no memory, or a text that is none: an answer is owed all the same */
		reply = json_pack("{s:s,s:O?,s:{s:i,s:s}}", "jsonrpc", "2.0", "id", id, "error", "code", RPC_INTERNAL_ERROR,
				  "message", "Internal error");
		text = reply ? json_dumps(reply, JSON_COMPACT) : NULL;
		json_decref(reply);
	}
	if (!text)
		return;
	if (x->batch)
		out_append(x, x->out_len ? "," : "[", 1);
	out_append(x, text, strlen(text));
	free(text);
}

/* The same for a result that is text already. */
static void add_text_reply(struct exchange *x, json_t *id, const char *result)
{
	char *id_text = json_dumps(id, JSON_COMPACT | JSON_ENCODE_ANY);
	static const char begin[] = "{\"jsonrpc\":\"2.0\",\"id\":", middle[] = ",\"result\":";

	if (!id_text)
		return;
	if (x->batch)
		out_append(x, x->out_len ? "," : "[", 1);
	out_append(x, begin, sizeof(begin) - 1);
	out_append(x, id_text, strlen(id_text));
	out_append(x, middle, sizeof(middle) - 1);
	out_append(x, result, strlen(result));
	out_append(x, "}", 1);
	free(id_text);
}

static json_t *error_object(int code, const char *message, json_t *data)
{
	json_t *error = json_pack("{s:i,s:s}", "code", code, "message", message);

	if (error && data)
		json_object_set(error, "data", data);
	return error;
}

static void add_error(struct exchange *x, json_t *id, int code, const char *message, const char *detail)
{
	json_t *data = detail ? json_pack("{s:s}", "detail", detail) : NULL;

	add_reply(x, id, "error", error_object(code, message, data));
	json_decref(data);
}

char *exchange_error(int code, const char *message, const char *detail, size_t *ret_len)
{
	struct exchange x = { 0 };

	add_error(&x, NULL, code, message, detail);
	out_append(&x, "\n", 1);
	*ret_len = x.out_len;
	return x.out;
}

static void request_done(struct rpc_call *call, void *arg)
{
	struct request *r = arg;
	struct exchange *x = r->x;

	if (call->error_code)
		add_reply(x, r->id, "error", error_object(call->error_code, call->error_message, call->error_data));
	else if (r->id && call->result_text)
		add_text_reply(x, r->id, call->result_text);
	else if (r->id)
		add_reply(x, r->id, "result", json_incref(call->result));
	rpc_call_fini(call);
	json_decref(r->id);
	free(r);
	x->nr_running--;
	if (!x->starting)
		advance(x);
}

static bool id_ok(json_t *id)
{
	return !id || json_is_null(id) || json_is_string(id) || json_is_number(id);
}

/* The id as it was sent, a new reference; NULL: none, or one that cannot be told. */
static json_t *id_of(const struct exchange *x, json_t *object)
{
	json_t *id = json_object_get(object, "id");
	double d = json_real_value(id);

	if (!x->reals || !json_is_real(id))
		return json_incref(id);
	return fabs(d) <= 9007199254740992.0 && d == floor(d) ? json_integer((json_int_t)d) : NULL;
}

/* The text of a string without a character of zero in it, or NULL. */
static const char *plain_string(json_t *v)
{
	const char *text = json_string_value(v);

	return text && strlen(text) == json_string_length(v) ? text : NULL;
}

static void start_request(struct exchange *x, json_t *object)
{
	json_t *params = json_object_get(object, "params"), *id = id_of(x, object);
	const char *version = plain_string(json_object_get(object, "jsonrpc"));
	const char *method = plain_string(json_object_get(object, "method"));
	const char *why = x->refusal;
	struct request *r;

	if (why)
		;
	else if (!json_is_object(object))
		why = "a request is an object with jsonrpc, method, params and id";
	else if (!id_ok(id) || (!id && json_object_get(object, "id")))
		why = "id must be a string or a number of at most 9007199254740992";
	else if (json_object_get(object, "jsonrpc") && (!version || strcmp(version, "2.0") != 0))
		why = "jsonrpc must be \"2.0\"";
	else if (!method)
		why = "method is missing or no string";
	else if (rpc_find(method) && rpc_find(method)->internal)
		why = "this method is the daemon's own";
	else if (params && !json_is_object(params) && !json_is_array(params) && !json_is_null(params))
		why = "params must be an object";
	r = why ? NULL : calloc(1, sizeof(*r));
	if (!r) {
		add_error(x, id_ok(id) ? id : NULL, why ? RPC_INVALID_REQUEST : RPC_INTERNAL_ERROR,
			  why ? "Invalid request" : "Internal error", why ? why : "out of memory");
		json_decref(id);
		return;
	}
	r->x = x;
	r->id = json_is_null(id) ? NULL : id;
	x->nr_running++;
	rpc_submit(&r->call, method, json_incref(params), request_done, r);
}

static void end_exchange(struct exchange *x)
{
	if (x->out_len) {
		if (x->batch)
			out_append(x, "]", 1);
		out_append(x, "\n", 1);
	}
	x->done(x->arg, x->out, x->out_len);
	json_decref(x->requests);
	free(x);
}

static void advance(void *arg)
{
	struct exchange *x = arg;

	x->starting = true;
	while (x->next < json_array_size(x->requests) && x->nr_running < BATCH_WINDOW)
		start_request(x, json_array_get(x->requests, x->next++));
	x->starting = false;
	if (x->next == json_array_size(x->requests) && x->nr_running == 0)
		end_exchange(x);
}

/* A copy in which no key holds a character of zero, which the parser cannot take; keys and strings are not what they were. */
static json_t *parse_without_nul(const char *text, size_t len)
{
	static const char nul[] = "\\u0000";
	char *copy = malloc(len), *at;
	json_t *root;

	if (!copy)
		return NULL;
	memcpy(copy, text, len);
	for (at = copy; (at = memmem(at, len - (size_t)(at - copy), nul, sizeof(nul) - 1)); at += sizeof(nul) - 1)
		at[sizeof(nul) - 2] = '1';
	root = json_loadb(copy, len, 0, NULL);
	free(copy);
	return root;
}

/* A copy in which numbers beyond the greatest real are only very large; NULL: not JSON all the same. */
static json_t *parse_with_finite_reals(const char *text, size_t len, json_error_t *error)
{
	char *copy = malloc(len + 1), *at;
	json_t *root;

	if (!copy)
		return NULL;
	memcpy(copy, text, len);
	copy[len] = '\0';
	for (at = copy; at < copy + len;) {
		size_t n = strspn(at, "+-.0123456789eE");

		if (*at == '"') {
			for (at++; at < copy + len && *at != '"'; at++)
				at += *at == '\\';
			at++;
		} else if (n >= 5 && (*at == '-' || (*at >= '0' && *at <= '9')) && isinf(strtod(at, NULL))) {
			memset(at, ' ', n);
			memcpy(at, "9e99", 4);
			at += n;
		} else {
			at += n ? n : 1;
		}
	}
	root = json_loadb(copy, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, error);
	free(copy);
	return root;
}

/*
 * The requests of a text, or NULL.  Three kinds of it are JSON and yet more than the parser takes at first; their ids must be
 * known for the answer, and where it can be, the parameter that is to blame:
 *
 *   a number beyond 64 bits    taken as a real, which no parameter accepts, so that the method's answer names it; beyond the greatest
 *                              real as another one
 *   a key given twice          none of the text runs: who reads it as the first may mean another than who reads the last
 *   \u0000 in a key            none of the text runs; in a string it is the parameters' affair
 */
static json_t *parse(struct exchange *x, const char *text, size_t len, json_error_t *error)
{
	json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, error);
	enum json_error_code code = root ? json_error_unknown : json_error_code(error);

	if (root)
		return root;
	if (code == json_error_numeric_overflow) {
		x->reals = true;
		root = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, error);
		code = root ? code : json_error_code(error);
		if (!root && code == json_error_numeric_overflow) {
			root = parse_with_finite_reals(text, len, error);
			code = root ? code : json_error_code(error);
		}
		if (root)
			return root;
	}
	if (code == json_error_duplicate_key) {
		root = json_loadb(text, len, JSON_ALLOW_NUL | (x->reals ? JSON_DECODE_INT_AS_REAL : 0), NULL);
		snprintf(x->refusal_text, sizeof(x->refusal_text), "%s: give each key once", error->text);
	} else if (code == json_error_null_byte_in_key) {
		root = parse_without_nul(text, len);
		snprintf(x->refusal_text, sizeof(x->refusal_text), "a key holds the character \\u0000");
	}
	x->refusal = x->refusal_text;
	return root;
}

bool exchange_submit(const char *text, size_t len, void (*done)(void *arg, char *text, size_t len), void *arg)
{
	struct exchange *x = calloc(1, sizeof(*x));
	json_error_t error;
	json_t *root;
	bool batch;

	if (!x)
		abort(); /* a few dozen bytes: nothing else would work either */
	x->done = done;
	x->arg = arg;
	root = parse(x, text, len, &error);
	if (!root) {
		add_error(x, NULL, RPC_PARSE_ERROR, "Parse error", error.text);
	} else if (json_is_array(root) && json_array_size(root) > 0) {
		x->batch = true;
		x->requests = root;
	} else {
		x->requests = json_array();
		json_array_append_new(x->requests, json_is_array(root) ? json_null() : json_incref(root));
		json_decref(root);
	}
	batch = x->batch;
	/* Calls of a single request are taken up now: the order of arrival is that of rpc_submit(). */
	if (x->requests && !batch && json_is_object(json_array_get(x->requests, 0))) {
		x->starting = true;
		start_request(x, json_array_get(x->requests, 0));
		x->starting = false;
		x->next = 1;
	}
	if (x->nr_running == 0)
		task_run_later(&x->task, advance, x);
	return batch;
}
