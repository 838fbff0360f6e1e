/* Reading latency histograms: sums, counts and percentiles.  Adding stands in the header, since every operation does it. */
#include "bdev/histogram.h"

uint64_t histogram_bucket_floor(unsigned idx)
{
	unsigned group = idx >> HISTOGRAM_SUB_BITS, sub = idx & ((1u << HISTOGRAM_SUB_BITS) - 1);

	if (group == 0)
		return sub;
	return (uint64_t)((1u << HISTOGRAM_SUB_BITS) + sub) << (group - 1);
}

void histogram_sum(struct bdev_histogram *into, const struct bdev_histogram *h)
{
	for (unsigned i = 0; i < HISTOGRAM_NR_BUCKETS; i++)
		into->buckets[i] += __atomic_load_n(&h->buckets[i], __ATOMIC_RELAXED);
}

uint64_t histogram_count(const struct bdev_histogram *h)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < HISTOGRAM_NR_BUCKETS; i++)
		n += __atomic_load_n(&h->buckets[i], __ATOMIC_RELAXED);
	return n;
}

uint64_t histogram_percentile(const struct bdev_histogram *h, double fraction)
{
	uint64_t total = histogram_count(h), seen = 0, rank;

	if (!total)
		return 0;
	rank = (uint64_t)(fraction * total);
	if (rank >= total)
		rank = total - 1;
	for (unsigned i = 0; i < HISTOGRAM_NR_BUCKETS; i++) {
		seen += h->buckets[i];
		if (seen > rank)
			return i + 1 < HISTOGRAM_NR_BUCKETS ? histogram_bucket_floor(i + 1) - 1 : histogram_bucket_floor(i);
	}
	return histogram_bucket_floor(HISTOGRAM_NR_BUCKETS - 1);
}
