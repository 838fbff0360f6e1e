/* Management calls over HTTP: POST /v1/rpc, with a bearer token. */
#ifndef MGMT_HTTP_H
#define MGMT_HTTP_H

#include "runtime/fiber.h"

struct http;

/**
 * http_start - listen on "ADDR:PORT" or "[ADDR]:PORT"
 * @state_dir: holds the token, in the file "token", mode 0600, made when it is missing
 *
 * HTTP has an OS thread of its own, which hands calls to the app thread by message.
 * Thread: app.  Return: 0, -EINVAL, -EADDRINUSE…; logged.
 */
int http_start(const char *addr, const char *state_dir, struct http **ret_http);
/* Takes no more connections and calls; those under way go on.  NULL is fine. */
void http_quiesce(struct http *http);
/* Sends what is owed, for a bounded time, then ends the thread and every connection.  NULL is fine. */
fiber_fn void http_stop(struct http *http);

#endif
