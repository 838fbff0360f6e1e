/*
 * A device that takes longer than the one below it: each read and write completes so much later.  For finding out what a
 * slower drive would do to what stands on it.
 */
#ifndef BDEV_DELAY_H
#define BDEV_DELAY_H

#include "bdev/bdev.h"

/* In the order of SPDK's names avg_read, p99_read, avg_write, p99_write.  One operation in a hundred takes the p99 latency, the
 * others the average.  Write zeroes and unmap count as writes; a flush is not delayed. */
enum delay_latency { DELAY_AVG_READ, DELAY_P99_READ, DELAY_AVG_WRITE, DELAY_P99_WRITE, DELAY_NR };

/* latency_us: what is added after the base has completed, microseconds.  uuid null: one made of the base's, the same after a
 * restart.  The base is claimed.  0, -EEXIST, -EINVAL (name; p99 below average), -ENODEV, -EBUSY, -ENOMEM.  Thread: app. */
int bdev_delay_create(const char *name, const char *base_name, const uint64_t latency_us[DELAY_NR], const uuid_t uuid,
		      struct bdev **ret_bdev);
/* Takes effect for what completes from now on.  -EINVAL: p99 would be below average.  Of a bdev whose module is "delay". */
int bdev_delay_set(struct bdev *bdev, enum delay_latency which, uint64_t latency_us);
void bdev_delay_get(const struct bdev *bdev, uint64_t ret_latency_us[DELAY_NR]);
const char *bdev_delay_base(const struct bdev *bdev); /* name of the base */

#endif
