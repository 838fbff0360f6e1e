/*
 * A histogram of latencies with a bounded relative error, as HdrHistogram has it: 64 steps in every power of two, so that a
 * percentile is right to within 1.6 % from nanoseconds to hours, and recording is a few instructions.
 */
#ifndef NVME_HISTOGRAM_H
#define NVME_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEP_BITS 6
#define HISTOGRAM_STEPS	    (1u << HISTOGRAM_STEP_BITS)
#define HISTOGRAM_BUCKETS   ((64 - HISTOGRAM_STEP_BITS + 1) * HISTOGRAM_STEPS)

/* Values have whatever unit the caller gives them.  Owner: one thread at a time. */
struct histogram {
	uint64_t count, sum, min, max;
	uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_init(struct histogram *h);

static inline unsigned histogram_bucket(uint64_t value)
{
	if (value < HISTOGRAM_STEPS)
		return (unsigned)value;
	unsigned shift = 63u - (unsigned)__builtin_clzll(value) - HISTOGRAM_STEP_BITS;

	return (shift + 1) * HISTOGRAM_STEPS + (unsigned)(value >> shift) - HISTOGRAM_STEPS;
}

static inline void histogram_record(struct histogram *h, uint64_t value)
{
	h->count++;
	h->sum += value;
	if (value < h->min)
		h->min = value;
	if (value > h->max)
		h->max = value;
	h->buckets[histogram_bucket(value)]++;
}

void histogram_add(struct histogram *to, const struct histogram *from);
/* The value that @percent of all are at or below: the middle of its step, never outside of min and max.  0 when empty. */
uint64_t histogram_percentile(const struct histogram *h, double percent);

#endif
