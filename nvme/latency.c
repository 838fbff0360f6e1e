/* Adding histograms up, and asking them for percentiles. */
#include <math.h>
#include <string.h>

#include "nvme/latency.h"

void latency_init(struct latency *h)
{
	memset(h, 0, sizeof(*h));
	h->min = UINT64_MAX;
}

void latency_add(struct latency *to, const struct latency *from)
{
	to->count += from->count;
	to->sum += from->sum;
	if (from->min < to->min)
		to->min = from->min;
	if (from->max > to->max)
		to->max = from->max;
	for (unsigned i = 0; i < LATENCY_BUCKETS; i++)
		to->buckets[i] += from->buckets[i];
}

static uint64_t middle_of(unsigned bucket)
{
	if (bucket < 2 * LATENCY_STEPS)
		return bucket;
	unsigned shift = bucket / LATENCY_STEPS - 1;
	uint64_t low = (uint64_t)(bucket % LATENCY_STEPS + LATENCY_STEPS) << shift;

	return low + ((1ull << shift) - 1) / 2;
}

uint64_t latency_percentile(const struct latency *h, double percent)
{
	uint64_t rank = (uint64_t)ceil((double)h->count * percent / 100.0), seen = 0;

	if (!h->count)
		return 0;
	if (!rank)
		rank = 1;
	for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
		seen += h->buckets[i];
		if (seen < rank)
			continue;
		uint64_t value = middle_of(i);

		return value < h->min ? h->min : value > h->max ? h->max : value;
	}
	return h->max;
}
