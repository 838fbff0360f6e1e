/*
 * Pacing: background work waits its turn, so that hosts hardly notice it.  How fast it may go is not guessed but measured: while there
 * is any, hosts' I/O is timed, in short windows without background work and in longer ones with it.  If the 99th percentile is worse with
 * it, the rate is halved; if not, it grows.  Hosts that do nothing are not waited for.
 *
 *   who works in the background:  pace_begin(), then pace() after each step, then pace_end()
 *   the control fiber:            quiet window, working window, judgement, as long as anybody works
 */
#include "blob/internal.h"

#define QUIET_US    20000u
#define WORKING_US  80000u
#define SETTLE_US   2000u /* what background work had in flight is over */
#define RATE_MIN    (1u << 20) /* bytes a second: it ends one day */
#define RATE_START  (32u << 20)
#define RATE_MAX    (16ull << 30)
#define BURST_US    4000u /* of work done at once */
#define ENOUGH	    200u /* I/Os, for a percentile to mean something */

/* An eighth of an octave each. */
static unsigned bucket_of(uint64_t ticks)
{
	unsigned octave = ticks < 8 ? 3 : 63 - __builtin_clzll(ticks);

	return octave * 8 + (ticks >> (octave - 3) & 7);
}

void pace_note(struct blob_channel *ch, uint64_t ticks)
{
	ch->latencies[bucket_of(ticks)]++;
}

/* --- what hosts get --- */

struct gather {
	struct fiber_wait wait;
	uint32_t sum[PACE_BUCKETS];
};

/* On each channel's thread in turn. */
static void gather_channel(void *ctx, void *arg)
{
	struct blob_channel *ch = ctx;
	struct gather *g = arg;

	for (unsigned i = 0; i < PACE_BUCKETS; i++) {
		g->sum[i] += ch->latencies[i];
		ch->latencies[i] = 0;
	}
}

static void gathered(void *arg)
{
	fiber_wake(&((struct gather *)arg)->wait, 0);
}

/* Adds what was noted since the last time, and forgets half of what is old; how many I/Os. */
static fiber_fn uint64_t take(struct store *s, struct gather *g, uint32_t *into)
{
	uint64_t nr = 0;

	memset(g, 0, sizeof(*g));
	fiber_wait_init(&g->wait);
	device_for_each_channel(s, gather_channel, g, gathered);
	fiber_wait(&g->wait);
	for (unsigned i = 0; i < PACE_BUCKETS; i++) {
		nr += g->sum[i];
		if (into)
			into[i] = into[i] / 2 + g->sum[i];
	}
	return nr;
}

static unsigned percentile_99(const uint32_t *counts, uint64_t *ret_nr)
{
	uint64_t nr = 0, seen = 0;

	for (unsigned i = 0; i < PACE_BUCKETS; i++)
		nr += counts[i];
	*ret_nr = nr;
	for (unsigned i = 0; i < PACE_BUCKETS; i++) {
		seen += counts[i];
		if (nr && seen * 100 >= nr * 99)
			return i;
	}
	return 0;
}

uint64_t pace_judge(uint64_t rate, const uint32_t *quiet, const uint32_t *working)
{
	uint64_t nr_quiet, nr_working;
	unsigned without = percentile_99(quiet, &nr_quiet), with = percentile_99(working, &nr_working);

	if (nr_quiet < ENOUGH || nr_working < ENOUGH)
		return rate; /* nothing can be said yet */
	if (with > without + 1) /* an eighth to a quarter more */
		rate /= 2;
	else
		rate += rate / 4;
	return rate < RATE_MIN ? RATE_MIN : rate > RATE_MAX ? RATE_MAX : rate;
}

/* --- the control fiber --- */

static fiber_fn void one_turn(struct store *s, struct gather *g)
{
	struct pace *p = &s->pace;

	if (p->idle) {
		fiber_sleep(QUIET_US);
		p->idle = !take(s, g, NULL);
		if (!p->idle && p->rate > RATE_START)
			p->rate = RATE_START; /* they have come back: carefully */
		return;
	}
	p->quiet = true;
	fiber_sleep(SETTLE_US);
	take(s, g, NULL);
	fiber_sleep(QUIET_US);
	p->idle = !take(s, g, p->without);
	p->quiet = false;
	fiber_cond_broadcast(&p->go);
	fiber_sleep(WORKING_US);
	take(s, g, p->with);
	p->rate = pace_judge(p->rate, p->without, p->with);
}

void pace_fiber(void *arg)
{
	struct store *s = arg;
	struct pace *p = &s->pace;
	struct gather *g = calloc(1, sizeof(*g));

	while (g && !s->stopping) {
		if (!p->nr_active) {
			atomic_store_explicit(&s->timing, false, memory_order_relaxed);
			fiber_cond_wait(&p->wake);
			continue;
		}
		atomic_store_explicit(&s->timing, true, memory_order_relaxed);
		one_turn(s, g);
	}
	p->over = true;
	p->quiet = false;
	fiber_cond_broadcast(&p->go);
	free(g);
	store_fiber_over(s);
}

void pace_init(struct store *s)
{
	struct pace *p = &s->pace;

	fiber_cond_init(&p->wake);
	fiber_cond_init(&p->go);
	p->rate = RATE_START;
	p->idle = true;
}

void pace_stop(struct store *s)
{
	fiber_cond_broadcast(&s->pace.wake);
	fiber_cond_broadcast(&s->pace.go);
}

/* --- who works --- */

void pace_begin(struct store *s)
{
	struct pace *p = &s->pace;

	if (!p->nr_active++) {
		p->refilled_us = clock_now_us();
		p->tokens = 0;
		fiber_cond_signal(&p->wake);
	}
}

void pace_end(struct store *s)
{
	assert(s->pace.nr_active);
	s->pace.nr_active--;
}

static void refill(struct pace *p)
{
	uint64_t now = clock_now_us(), burst = p->rate * BURST_US / 1000000;

	p->tokens += (int64_t)((now - p->refilled_us) * p->rate / 1000000);
	p->refilled_us = now;
	if (p->tokens > (int64_t)burst)
		p->tokens = burst;
}

void pace_hurry(struct store *s)
{
	fiber_cond_broadcast(&s->pace.go);
}

fiber_fn void pace(struct store *s, uint64_t bytes)
{
	pace_unless(s, bytes, NULL);
}

fiber_fn void pace_unless(struct store *s, uint64_t bytes, bool (*urgent)(const struct store *s))
{
	struct pace *p = &s->pace;

	if (p->idle || p->over) {
		fiber_yield();
		return;
	}
	p->tokens -= (int64_t)bytes;
	for (;;) {
		uint64_t delay_us;

		if (urgent && urgent(s)) {
			p->tokens = 0; /* what is done now is nobody's debt */
			break;
		}
		if (p->idle || p->over || s->stopping)
			break;
		if (p->quiet) {
			(void)fiber_cond_timedwait(&p->go, QUIET_US + SETTLE_US);
			p->refilled_us = clock_now_us();
			continue;
		}
		refill(p);
		if (p->tokens >= 0)
			break;
		delay_us = (uint64_t)-p->tokens * 1000000 / p->rate + 1;
		(void)fiber_cond_timedwait(&p->go, delay_us < WORKING_US ? delay_us : WORKING_US);
	}
	fiber_yield();
}
