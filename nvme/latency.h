/*
 * A histogram of latencies with a bounded relative error, as HdrHistogram has it: 64 steps in every power of
 * two, so that a percentile is right to within 1.6 % from nanoseconds to hours, and recording is a few
 * instructions.
 */
#ifndef NVME_LATENCY_H
#define NVME_LATENCY_H

#include <stdint.h>

#define LATENCY_STEP_BITS 6
#define LATENCY_STEPS     (1u << LATENCY_STEP_BITS)
#define LATENCY_BUCKETS   ((64 - LATENCY_STEP_BITS + 1) * LATENCY_STEPS)

/* Values have whatever unit the caller gives them.  Owner: one thread at a time. */
struct latency {
	uint64_t count, sum, min, max;
	uint64_t buckets[LATENCY_BUCKETS];
};

void latency_init(struct latency *h);

static inline unsigned latency_bucket(uint64_t value)
{
	if (value < LATENCY_STEPS)
		return (unsigned)value;
	unsigned shift = 63u - (unsigned)__builtin_clzll(value) - LATENCY_STEP_BITS;

	return (shift + 1) * LATENCY_STEPS + (unsigned)(value >> shift) - LATENCY_STEPS;
}

static inline void latency_record(struct latency *h, uint64_t value)
{
	h->count++;
	h->sum += value;
	if (value < h->min)
		h->min = value;
	if (value > h->max)
		h->max = value;
	h->buckets[latency_bucket(value)]++;
}

void latency_add(struct latency *to, const struct latency *from);
/* The value that @percent of all are at or below: the middle of its step, never outside of min and max.  0
 * when empty. */
uint64_t latency_percentile(const struct latency *h, double percent);

#endif
