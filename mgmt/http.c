/*
 * The HTTP port: libmicrohttpd on an OS thread of its own, in front of the same exchanges as the socket's.
 *
 * A request is refused before its body is read when its path, method, token or length is wrong.  When the body is there the
 * connection is suspended and the call sent to the app thread, which wakes the connection with the answer.
 *
 *   RECEIVING -> RUNNING   the body is whole: suspended, a message is on its way
 *   RUNNING   -> ANSWERED  the app thread has set reply and resumed the connection
 */
#include "mgmt/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mgmt/exchange.h"
#include "mgmt/http_token.h"
#include "mgmt/json_scan.h"
#include "mgmt/rpc.h"
#include "runtime/runtime.h"

#define PATH		   "/v1/rpc"
#define MAX_CONNS	   128u
#define IDLE_TIMEOUT_SEC   10u
#define BODY_TIMEOUT_US	   (60ull * 1000 * 1000)
#define STOP_SEND_US	   (2u * 1000 * 1000)
#define CONN_MEMORY_BYTES  (32u * 1024)

struct http {
	struct MHD_Daemon *daemon;
	struct thread *app;
	char token[HTTP_TOKEN_MAX + 1];
	atomic_bool quiesced;
	atomic_uint nr_running; /* with the app thread */
	atomic_uint nr_unsent;	/* begun and not completed, towards the client */
};

/* Owner: the HTTP thread, but while RUNNING the app thread. */
struct http_call {
	struct http *http;
	struct MHD_Connection *connection;
	enum { RECEIVING, RUNNING, ANSWERED } state;
	char *body;
	size_t len, size;
	bool too_long;
	uint64_t start_us;
	char *reply;
	size_t reply_len;
};

/* --- answers -------------------------------------------------------------------------------------------------------- */

static enum MHD_Result respond(struct MHD_Connection *connection, unsigned status, char *text, size_t len)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE);
	enum MHD_Result rc;

	if (!response) {
		free(text);
		return MHD_NO;
	}
	MHD_add_response_header(response, "Content-Type", "application/json");
	MHD_add_response_header(response, "Cache-Control", "no-store");
	if (status == MHD_HTTP_UNAUTHORIZED)
		MHD_add_response_header(response, "WWW-Authenticate", "Bearer realm=\"ferrule\"");
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(response, "Allow", "POST");
	rc = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return rc;
}

static enum MHD_Result respond_error(struct MHD_Connection *connection, unsigned status, const char *message,
				     const char *detail)
{
	size_t len;
	char *text = exchange_error(RPC_INVALID_REQUEST, message, detail, &len);

	return text ? respond(connection, status, text, len) : MHD_NO;
}

static enum MHD_Result respond_reply(struct http_call *call)
{
	char *text = call->reply;

	call->reply = NULL;
	if (!text)
		return respond(call->connection, MHD_HTTP_NO_CONTENT, NULL, 0);
	return respond(call->connection, MHD_HTTP_OK, text, call->reply_len);
}

/* --- over to the app thread and back -------------------------------------------------------------------------------- */

static void exchange_done(void *arg, char *text, size_t len)
{
	struct http_call *call = arg;
	struct http *http = call->http;

	call->reply = text;
	call->reply_len = len;
	call->state = ANSWERED;
	MHD_resume_connection(call->connection);
	/* Not before: http_stop() may free everything at zero. */
	atomic_fetch_sub(&http->nr_running, 1);
}

static void call_arrived(void *arg)
{
	struct http_call *call = arg;

	exchange_submit(call->body, call->len, exchange_done, call);
}

/* The body must be one JSON text of sane depth. */
static const char *check_body(const struct http_call *call)
{
	struct json_scan scan = { 0 };
	enum json_scan_event event;
	const char *why = NULL;
	size_t pos = 0;

	while (pos < call->len) {
		pos += json_scan(&scan, call->body + pos, call->len - pos, &event);
		if (event == JSON_SCAN_TEXT) {
			json_scan_sane(&scan, &why);
			return why;
		}
		if (event == JSON_SCAN_GARBAGE)
			break;
	}
	return "expected a JSON object in the body";
}

static enum MHD_Result run_call(struct http_call *call)
{
	struct http *http = call->http;
	const char *why;

	if (call->too_long)
		return respond_error(call->connection, MHD_HTTP_CONTENT_TOO_LARGE, "Content Too Large",
				     "the request is longer than 8 MiB");
	why = check_body(call);
	if (why)
		return respond_error(call->connection, MHD_HTTP_BAD_REQUEST, "Bad Request", why);
	atomic_fetch_add(&http->nr_running, 1);
	if (atomic_load(&http->quiesced)) {
		atomic_fetch_sub(&http->nr_running, 1);
		return respond_error(call->connection, MHD_HTTP_SERVICE_UNAVAILABLE, "Service Unavailable",
				     "the daemon is ending");
	}
	call->state = RUNNING;
	MHD_suspend_connection(call->connection);
	thread_send(http->app, call_arrived, call);
	return MHD_YES;
}

/* --- requests ------------------------------------------------------------------------------------------------------- */

static void append_body(struct http_call *call, const char *data, size_t len)
{
	if (call->too_long)
		return;
	if (len > EXCHANGE_MAX_REQUEST - call->len) {
		call->too_long = true;
		return;
	}
	if (len > call->size - call->len) {
		size_t size = (call->len + len) * 2;
		char *grown = realloc(call->body, size);

		if (!grown) {
			call->too_long = true;
			return;
		}
		call->body = grown;
		call->size = size;
	}
	memcpy(call->body + call->len, data, len);
	call->len += len;
}

/* With the headers alone: MHD_NO with nothing queued means go on. */
static bool refused(struct http *http, struct MHD_Connection *connection, const char *url, const char *method,
		    enum MHD_Result *ret_rc)
{
	const char *auth = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Authorization");
	const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Length");

	if (!http_token_matches(http->token, auth))
		*ret_rc = respond_error(connection, MHD_HTTP_UNAUTHORIZED, "Unauthorized",
					"send Authorization: Bearer TOKEN; the token is in the file token of the state folder");
	else if (strcmp(url, PATH) != 0)
		*ret_rc = respond_error(connection, MHD_HTTP_NOT_FOUND, "Not Found", "calls go to POST " PATH);
	else if (strcmp(method, "POST") != 0)
		*ret_rc = respond_error(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "Method Not Allowed", "calls go to POST " PATH);
	else if (length && strtoull(length, NULL, 10) > EXCHANGE_MAX_REQUEST)
		*ret_rc = respond_error(connection, MHD_HTTP_CONTENT_TOO_LARGE, "Content Too Large",
					"the request is longer than 8 MiB");
	else
		return false;
	return true;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url, const char *method,
				  const char *version, const char *data, size_t *data_len, void **con_cls)
{
	struct http *http = arg;
	struct http_call *call = *con_cls;
	enum MHD_Result rc;

	if (!call) {
		if (refused(http, connection, url, method, &rc))
			return rc;
		call = calloc(1, sizeof(*call));
		if (!call)
			return MHD_NO;
		call->http = http;
		call->connection = connection;
		call->start_us = clock_now_us();
		*con_cls = call;
		atomic_fetch_add(&http->nr_unsent, 1);
		return MHD_YES;
	}
	if (*data_len) {
		append_body(call, data, *data_len);
		*data_len = 0;
		/* A body that trickles in for a minute is given up. */
		return clock_now_us() - call->start_us < BODY_TIMEOUT_US ? MHD_YES : MHD_NO;
	}
	return call->state == ANSWERED ? respond_reply(call) : run_call(call);
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **con_cls,
			 enum MHD_RequestTerminationCode why)
{
	struct http_call *call = *con_cls;

	if (!call)
		return;
	atomic_fetch_sub(&call->http->nr_unsent, 1);
	free(call->body);
	free(call->reply);
	free(call);
	*con_cls = NULL;
}

/* --- start and stop ------------------------------------------------------------------------------------------------- */

static int parse_addr(const char *text, struct sockaddr_storage *ret_sa)
{
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret_sa;
	struct sockaddr_in *in = (struct sockaddr_in *)ret_sa;
	const char *colon = strrchr(text, ':');
	char host[64], *end;
	unsigned long port;
	size_t len;

	if (!colon || (len = (size_t)(colon - text)) >= sizeof(host))
		return -EINVAL;
	port = strtoul(colon + 1, &end, 10);
	if (end == colon + 1 || *end || port > UINT16_MAX)
		return -EINVAL;
	memset(ret_sa, 0, sizeof(*ret_sa));
	if (len > 2 && text[0] == '[' && colon[-1] == ']') {
		snprintf(host, sizeof(host), "%.*s", (int)len - 2, text + 1);
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons((uint16_t)port);
		return inet_pton(AF_INET6, host, &in6->sin6_addr) == 1 ? 0 : -EINVAL;
	}
	snprintf(host, sizeof(host), "%.*s", (int)len, text);
	in->sin_family = AF_INET;
	in->sin_port = htons((uint16_t)port);
	return inet_pton(AF_INET, host, &in->sin_addr) == 1 ? 0 : -EINVAL;
}

/* The thread that libmicrohttpd starts inherits where its maker may run: anywhere, not on the reactor's core alone. */
static struct MHD_Daemon *start_unpinned(struct http *http, struct sockaddr_storage *sa)
{
	unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC;
	struct MHD_Daemon *daemon;
	cpu_set_t pinned, all;

	if (sa->ss_family == AF_INET6)
		flags |= MHD_USE_IPv6;
	pthread_getaffinity_np(pthread_self(), sizeof(pinned), &pinned);
	memset(&all, 0xff, sizeof(all));
	pthread_setaffinity_np(pthread_self(), sizeof(all), &all);
	daemon = MHD_start_daemon(flags, 0, NULL, NULL, on_request, http, MHD_OPTION_SOCK_ADDR, (struct sockaddr *)sa,
				  MHD_OPTION_CONNECTION_LIMIT, MAX_CONNS, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_TIMEOUT_SEC,
				  MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONN_MEMORY_BYTES,
				  MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL, MHD_OPTION_END);
	pthread_setaffinity_np(pthread_self(), sizeof(pinned), &pinned);
	return daemon;
}

int http_start(const char *addr, const char *state_dir, struct http **ret_http)
{
	struct sockaddr_storage sa;
	struct http *http;
	int rc;

	if (parse_addr(addr, &sa)) {
		log_error("\"%s\" is no ADDR:PORT such as 127.0.0.1:9480 or [::1]:9480", addr);
		return -EINVAL;
	}
	http = calloc(1, sizeof(*http));
	if (!http)
		return -ENOMEM;
	http->app = thread_current();
	rc = http_token_load(state_dir, http->token);
	if (rc)
		goto out_free;
	errno = 0;
	http->daemon = start_unpinned(http, &sa);
	if (!http->daemon) {
		rc = errno ? -errno : -EADDRINUSE;
		log_error("cannot listen for HTTP on %s: %s; give --http another address, or none", addr, strerror(-rc));
		goto out_free;
	}
	log_notice("HTTP on %s (port %u)", addr,
		   (unsigned)MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_BIND_PORT)->port);
	*ret_http = http;
	return 0;
out_free:
	free(http);
	return rc;
}

void http_quiesce(struct http *http)
{
	if (http && !atomic_exchange(&http->quiesced, true))
		close(MHD_quiesce_daemon(http->daemon));
}

fiber_fn void http_stop(struct http *http)
{
	uint64_t deadline_us = clock_now_us() + STOP_SEND_US;

	if (!http)
		return;
	http_quiesce(http);
	/* Calls are answered by now, or refused when their message arrives. */
	while (atomic_load(&http->nr_running))
		fiber_sleep(1000);
	while (atomic_load(&http->nr_unsent) && clock_now_us() < deadline_us)
		fiber_sleep(1000);
	MHD_stop_daemon(http->daemon);
	free(http);
}
