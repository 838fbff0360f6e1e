/*
 * One JSON-RPC exchange: the text of a request, notification or batch in, the text that answers it out.
 */
#ifndef MGMT_EXCHANGE_H
#define MGMT_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>

/* The longest request taken, in bytes.  Answers have no limit. */
#define EXCHANGE_MAX_REQUEST (8u * 1024 * 1024)

/**
 * exchange_submit - run what a text asks for
 * @text: a JSON text of sane depth (json_scan.h); not kept
 * @done: called on the app thread, never before this has returned; text is the owner's to free(), or NULL when no answer
 *        is owed
 *
 * Thread: app.
 * Return: whether it is a batch.
 */
bool exchange_submit(const char *text, size_t len, void (*done)(void *arg, char *text, size_t len), void *arg);

/* The answer to what never became a request: the text to send, newline included; free() it.  NULL: no memory. */
char *exchange_error(int code, const char *message, const char *detail, size_t *ret_len);

#endif
