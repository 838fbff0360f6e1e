/*
 * BLKDISCARD for block devices that can discard but not zero: the ring has no such operation, and the ioctl blocks, so one
 * OS thread for each such device does them in order.
 */
#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "bdev/uring.h"

/* Owner: app thread; the queue stands under mutex. */
struct uring_discarder {
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	struct fifo queue; /* bdev_io.leaf_link */
	bool stop;
	int fd;
	uint32_t block_size;
};


static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;

static void discard_ok(void *arg)
{
	uring_discarded(arg, 0);
}

static void discard_failed(void *arg)
{
	uring_discarded(arg, -EIO);
}

static void discard_unsupported(void *arg)
{
	uring_discarded(arg, -EOPNOTSUPP);
}

static void *discard_main(void *arg)
{
	struct uring_discarder *d = arg;

	pthread_mutex_lock(&d->mutex);
	for (;;) {
		struct fifo_link *e = fifo_pop(&d->queue);
		struct bdev_io *io;
		uint64_t range[2];
		msg_fn tell = discard_ok;

		if (!e) {
			if (d->stop)
				break;
			pthread_cond_wait(&d->cond, &d->mutex);
			continue;
		}
		pthread_mutex_unlock(&d->mutex);
		io = container_of(e, struct bdev_io, leaf_link);
		range[0] = io->offset_blocks * d->block_size;
		range[1] = io->nr_blocks * d->block_size;
		if (ioctl(d->fd, BLKDISCARD, range))
			tell = errno == EOPNOTSUPP ? discard_unsupported : discard_failed;
		thread_send(io->channel->thread, tell, io);
		pthread_mutex_lock(&d->mutex);
	}
	pthread_mutex_unlock(&d->mutex);
	return NULL;
}

static struct uring_discarder *discarder(struct uring_bdev *u)
{
	struct uring_discarder *d;

	pthread_mutex_lock(&making);
	d = u->discarder;
	if (!d) {
		d = calloc(1, sizeof(*d));
		if (!d)
			goto out;
		fifo_init(&d->queue);
		d->fd = u->fd;
		d->block_size = u->bdev.block_size;
		pthread_mutex_init(&d->mutex, NULL);
		pthread_cond_init(&d->cond, NULL);
		if (pthread_create(&d->thread, NULL, discard_main, d)) {
			free(d);
			d = NULL;
			goto out;
		}
		u->discarder = d;
	}
out:
	pthread_mutex_unlock(&making);
	return d;
}

void uring_discard(struct uring_bdev *u, struct bdev_io *io)
{
	struct uring_discarder *d = discarder(u);

	if (!d) {
		bdev_io_complete_later(io, -ENOMEM);
		return;
	}
	pthread_mutex_lock(&d->mutex);
	fifo_push(&d->queue, &io->leaf_link);
	pthread_cond_signal(&d->cond);
	pthread_mutex_unlock(&d->mutex);
}

void uring_discard_stop(struct uring_bdev *u)
{
	struct uring_discarder *d = u->discarder;

	if (!d)
		return;
	pthread_mutex_lock(&d->mutex);
	d->stop = true;
	pthread_cond_signal(&d->cond);
	pthread_mutex_unlock(&d->mutex);
	pthread_join(d->thread, NULL);
	pthread_mutex_destroy(&d->mutex);
	pthread_cond_destroy(&d->cond);
	free(d);
	u->discarder = NULL;
}
