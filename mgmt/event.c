/*
 * The ring of events, and the method that reads it and waits for the next.
 *
 * Numbers begin at the millisecond of the start times 1,024: a client that keeps the number it read last goes on with the
 * events of a new process, and is told when it missed some.
 */
#include "mgmt/event.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "mgmt/methods.h"
#include "runtime/runtime.h"

#define RING_SIZE 1024u

/* Owner: the app thread. */
static struct {
	json_t *ring[RING_SIZE]; /* event seq lies at seq % RING_SIZE */
	uint64_t first_seq, next_seq;
	bool open;
	struct fiber_cond more;
} events;

void events_init(void)
{
	struct timespec ts;
	uint64_t seq;

	clock_gettime(CLOCK_REALTIME, &ts);
	seq = ((uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000) << 10;
	if (seq > events.next_seq)
		events.next_seq = seq;
	events.first_seq = events.next_seq;
	events.open = true;
	fiber_cond_init(&events.more);
}

void events_quiesce(void)
{
	events.open = false;
	fiber_cond_broadcast(&events.more);
}

void events_fini(void)
{
	for (size_t i = 0; i < RING_SIZE; i++) {
		json_decref(events.ring[i]);
		events.ring[i] = NULL;
	}
}

void event_add(const char *type, const char *object, json_t *data, const char *fmt, ...)
{
	json_t **slot = &events.ring[events.next_seq % RING_SIZE];
	struct timespec ts;
	char text[512];
	json_t *event;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	clock_gettime(CLOCK_REALTIME, &ts);
	event = json_pack("{s:I,s:I,s:s,s:s,s:s,s:o*}", "seq", (json_int_t)events.next_seq, "time_ms",
			  (json_int_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000, "type", type, "object", object, "text", text,
			  "data", data);
	if (!event) {
		log_warning("an event is lost: %s", text);
		return;
	}
	json_decref(*slot);
	*slot = event;
	events.next_seq++;
	if (events.next_seq - events.first_seq > RING_SIZE)
		events.first_seq = events.next_seq - RING_SIZE;
	fiber_cond_broadcast(&events.more);
}

/* --- the method ----------------------------------------------------------------------------------------------------- */

static const struct rpc_param get_params[] = {
	{ "after", RPC_U64, RPC_LOOSE, NULL },
	{ "max", RPC_U32, 0, NULL },
	{ "timeout_ms", RPC_U64, 0, NULL },
	{ NULL, 0, 0, NULL },
};

/* Until there is one behind after, the time is over, or the daemon ends. */
static fiber_fn void wait_for_more(uint64_t after, uint64_t timeout_ms)
{
	uint64_t now_us = clock_now_us(), deadline_us;

	deadline_us = timeout_ms < (UINT64_MAX - now_us) / 1000 ? now_us + timeout_ms * 1000 : UINT64_MAX;
	while (events.open && events.next_seq <= after + 1 && now_us < deadline_us) {
		uint64_t left_us = deadline_us - now_us;

		fiber_cond_timedwait(&events.more, left_us < 3600000000u ? left_us : 3600000000u);
		now_us = clock_now_us();
	}
}

static fiber_fn void get_events(struct rpc_call *call)
{
	uint64_t after = rpc_u64(call, "after", 0), max = rpc_u64(call, "max", 100), timeout_ms = rpc_u64(call, "timeout_ms", 0);
	json_t *out = json_array();
	uint64_t seq;
	bool missed;

	missed = after >= events.next_seq; /* of a process whose clock was ahead of ours */
	if (missed)
		after = 0;
	if (max && timeout_ms)
		wait_for_more(after, timeout_ms);
	missed = missed || (rpc_has(call, "after") && after + 1 < events.first_seq);
	seq = after + 1 > events.first_seq ? after + 1 : events.first_seq;
	for (; seq < events.next_seq && json_array_size(out) < max; seq++)
		json_array_append(out, events.ring[seq % RING_SIZE]);
	/* last: what to give as after next time */
	rpc_ok(call, json_pack("{s:o,s:I,s:b}", "events", out, "last",
			       (json_int_t)(max && seq < events.next_seq ? seq - 1 : events.next_seq - 1), "missed", missed));
}

const struct rpc_method event_methods[] = {
	{ .name = "event_get_events", .handler = get_events, .params = get_params },
	{ .name = NULL },
};
