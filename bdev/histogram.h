/*
 * Latency histograms: log-linear buckets in the manner of HDR, sixteen to each doubling, so that a percentile read from
 * one is at most one sixteenth off.  One thread writes; others may read at any time.
 */
#ifndef BDEV_HISTOGRAM_H
#define BDEV_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_SUB_BITS   4
#define HISTOGRAM_NR_BUCKETS ((40 - HISTOGRAM_SUB_BITS) << HISTOGRAM_SUB_BITS) /* the last also takes all beyond 2^39 */

struct bdev_histogram {
	uint64_t buckets[HISTOGRAM_NR_BUCKETS];
};

static inline unsigned histogram_bucket(uint64_t value)
{
	unsigned shift, idx;

	if (value < 1u << HISTOGRAM_SUB_BITS)
		return value;
	shift = 63 - __builtin_clzll(value) - HISTOGRAM_SUB_BITS;
	idx = (shift << HISTOGRAM_SUB_BITS) + (value >> shift);
	return idx < HISTOGRAM_NR_BUCKETS ? idx : HISTOGRAM_NR_BUCKETS - 1;
}

static inline void histogram_add(struct bdev_histogram *h, uint64_t value)
{
	uint64_t *b = &h->buckets[histogram_bucket(value)];

	__atomic_store_n(b, *b + 1, __ATOMIC_RELAXED);
}

/* The smallest value that falls into bucket idx. */
uint64_t histogram_bucket_floor(unsigned idx);
void histogram_sum(struct bdev_histogram *into, const struct bdev_histogram *h);
uint64_t histogram_count(const struct bdev_histogram *h);
/* The value that a share of fraction (0 to 1) does not exceed, within a sixteenth; 0 when empty. */
uint64_t histogram_percentile(const struct bdev_histogram *h, double fraction);

#endif
