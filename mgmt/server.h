/* The Unix socket of the management calls: a stream of JSON texts each way, without framing. */
#ifndef MGMT_SERVER_H
#define MGMT_SERVER_H

#include "runtime/fiber.h"

struct server;

/**
 * server_start - listen on a Unix socket, mode 0660
 *
 * PATH.lock is locked for as long as it is open, so that two daemons never share a path; a socket left behind by one that
 * is gone is replaced.
 * Thread: app.  Return: 0, -EADDRINUSE when another daemon has it, or what the system said; logged.
 */
int server_start(const char *path, struct server **ret_server);

/* Takes no more connections and requests; what is under way goes on. */
void server_quiesce(struct server *server);

/* Sends what is owed (for at most timeout_us), closes every connection, removes the socket. */
fiber_fn void server_stop(struct server *server, uint64_t timeout_us);

#endif
