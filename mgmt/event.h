/*
 * Events: what happened by itself and somebody may want to know - a store that fills, degrades or stops taking writes, a block
 * whose checksum is wrong, a job that ended.  The newest are kept in memory under numbers that rise, across restarts too.
 */
#ifndef MGMT_EVENT_H
#define MGMT_EVENT_H

#include <jansson.h>

#include "runtime/fiber.h"

/**
 * event_add - tell of something
 * @type:   "store_threshold", "store_read_only", "store_degraded", "checksum_mismatch", "drive_health", "drive_event", "job_ended"; clients compare it
 * @object: what it happened to: "pool" or "pool/v"
 * @data:   reference taken over; NULL: none
 * @fmt:    a sentence for people
 *
 * Thread: app.
 */
void event_add(const char *type, const char *object, json_t *data, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

void events_init(void);
void events_quiesce(void); /* clients that wait for one are answered */
void events_fini(void);	   /* after rpc_stop() */

#endif
