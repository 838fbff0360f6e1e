/* Shared by the files of the uring device: uring.c (I/O), uring_open.c (making one), uring_discard.c (BLKDISCARD). */
#ifndef BDEV_URING_H
#define BDEV_URING_H

#include <assert.h>
#include <pthread.h>

#include "bdev/bdev.h"
#include "bdev/internal.h"

/* Owner: app thread; what I/O reads is constant but for zero_range, which only ever becomes false. */
struct uring_bdev {
	struct bdev bdev;
	int fd;
	int lock_fd; /* keeps other daemons, and a second bdev, from writing to the same file; -1: read-only */
	char *filename;
	uint32_t mem_align; /* of buffers and their lengths, bytes; 1: any */
	bool is_block;
	bool zero_range;       /* FALLOC_FL_ZERO_RANGE works, as far as is known */
	bool punch_zeroes;     /* FALLOC_FL_PUNCH_HOLE works, and the hole reads zero */
	bool discard_by_ioctl; /* unmap is BLKDISCARD, which only a thread that may block can do */
	uint64_t nr_flushes;   /* atomic; fdatasyncs submitted */
	uint64_t nr_dsyncs;    /* atomic; writes with RWF_DSYNC submitted */
	struct uring_discarder *discarder;
};

extern const struct bdev_ops uring_ops, uring_ops_no_unmap;

/* uring_discard.c: hands the range to a thread of its own; uring_discarded() is called on the submitting thread. */
void uring_discard(struct uring_bdev *u, struct bdev_io *io);
void uring_discard_stop(struct uring_bdev *u);
/* uring.c */
void uring_discarded(struct bdev_io *io, int res);

#endif
