/* The bearer token of the HTTP port: a file in the state folder, made on first start. */
#ifndef MGMT_HTTP_TOKEN_H
#define MGMT_HTTP_TOKEN_H

#include <stdbool.h>

#define HTTP_TOKEN_MAX 256 /* characters */

/* Reads STATE_DIR/token, or makes it with 256 random bits, mode 0600.  0 or -errno, logged. */
int http_token_load(const char *state_dir, char token[HTTP_TOKEN_MAX + 1]);

/* Whether an Authorization header's value is "Bearer " and the token; takes as long for any wrong one.  NULL: no header. */
bool http_token_matches(const char *token, const char *authorization);

#endif
