/*
 * Applying the saved state at start: each object is the management call that made it, run again class by class, so that
 * what depends on something comes after it.
 */
#include <inttypes.h>
#include <string.h>

#include "bdev/bdev.h"
#include "mgmt/late.h"
#include "mgmt/rpc.h"
#include "mgmt/state.h"
#include "runtime/runtime.h"

static const char *const classes[] = {
	STATE_LOG,	 STATE_STORE, STATE_DELETION,  STATE_BDEV,     STATE_THRESHOLD, STATE_TRANSPORT,
	STATE_SUBSYSTEM, STATE_HOST,  STATE_NAMESPACE, STATE_LISTENER, STATE_JOB,
};

struct replay {
	const char *class;
	unsigned nr_applied, nr_failed;
};

static fiber_fn void replay_one(void *arg, const char *parent, const char *name, const char *method, json_t *params)
{
	struct replay *replay = arg;
	struct rpc_call call = { 0 };

	rpc_replay(&call, method, json_deep_copy(params));
	if (rpc_failed(&call)) {
		const char *detail = json_string_value(json_object_get(call.error_data, "detail"));
		bool late = !strcmp(replay->class, STATE_LISTENER);

		log_error("saved state: %s of %s%s%s failed: %s%s%s; it is kept and tried again %s", method, parent,
			  *parent ? " " : "", name, call.error_message, detail ? ": " : "", detail ? detail : "",
			  late ? "each second" : "at the next start");
		if (late)
			late_note(parent, name);
		replay->nr_failed++;
	} else {
		replay->nr_applied++;
	}
	rpc_call_fini(&call);
}

fiber_fn unsigned state_replay(struct state *state)
{
	struct replay replay = { 0 };
	uint64_t start_us = clock_now_us();

	for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
		replay.class = classes[i];
		state_for_each(state, classes[i], replay_one, &replay);
		/* Stores open themselves when their devices appear; namespaces come after that. */
		if (strcmp(classes[i], STATE_BDEV) == 0)
			bdev_wait_for_examine();
	}
	if (state_nr_objects(state))
		log_notice("saved state: %u objects applied, %u not, in %" PRIu64 " ms", replay.nr_applied, replay.nr_failed,
			   (clock_now_us() - start_us) / 1000);
	return replay.nr_failed;
}
