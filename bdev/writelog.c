/*
 * The write log's bdev: notes submission and completion of each change and passes it on.  For tests: noting may block.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bdev/leaf.h"
#include "bdev/writelog.h"
#include "nvme/crc32c.h"

/* Owner: app thread; fd and next_nr under mutex. */
struct writelog {
	struct bdev bdev;
	struct bdev_desc *base;
	pthread_mutex_t mutex;
	int fd;
	uint64_t next_nr, begun_us;
	int error; /* of the log itself: from then on changes fail */
};

/* Owner: its thread. */
struct writelog_channel {
	struct writelog *w;
	struct bdev_channel *base;
	struct list free; /* passed.link */
};

/* What the base has.  Owner: its channel's thread; kept for reuse. */
struct passed {
	struct list link;
	struct bdev_io io;
	struct bdev_io *parent;
	struct writelog_channel *ch;
	uint64_t nr;
};

static bool changes(const struct bdev_io *io)
{
	return io->op != BDEV_READ && io->op != BDEV_COMPARE;
}

static int write_all(int fd, const void *buf, size_t len)
{
	const char *p = buf;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0)
			return -errno;
		p += n;
		len -= n;
	}
	return 0;
}

/* Under the mutex. */
static int note(struct writelog *w, enum writelog_kind kind, const struct bdev_io *io, uint64_t nr, int status)
{
	struct writelog_record r = { .magic = WRITELOG_RECORD_MAGIC, .kind = kind, .op = io->op,
				     .flags = io->flags & (BDEV_IO_FUA | BDEV_IO_UNMAP_OK), .nr = nr,
				     .offset_blocks = io->offset_blocks, .nr_blocks = io->nr_blocks, .status = status,
				     .time_us = clock_now_us() - w->begun_us };
	int rc;

	if (kind == WRITELOG_SUBMITTED && io->op == BDEV_WRITE)
		r.data_bytes = io->nr_blocks * w->bdev.block_size;
	r.crc = crc32c(&r, sizeof(r));
	rc = write_all(w->fd, &r, sizeof(r));
	for (uint32_t i = 0; !rc && r.data_bytes && i < io->iovcnt; i++)
		rc = write_all(w->fd, io->iov[i].iov_base, io->iov[i].iov_len);
	if (rc && !w->error) {
		w->error = rc;
		log_error("%s: the write log cannot be written: %s; changes fail from now on", w->bdev.name, strerror(-rc));
	}
	return w->error;
}

static void passed_done(struct bdev_io *io, int status)
{
	struct passed *p = container_of(io, struct passed, io);
	struct bdev_io *parent = p->parent;
	struct writelog *w = p->ch->w;

	if (changes(io)) {
		pthread_mutex_lock(&w->mutex);
		note(w, WRITELOG_COMPLETED, io, p->nr, status);
		pthread_mutex_unlock(&w->mutex);
	}
	list_add_head(&p->ch->free, &p->link);
	bdev_io_complete(parent, status);
}

static void writelog_submit(struct bdev_io *io, void *channel_ctx)
{
	struct writelog_channel *ch = channel_ctx;
	struct writelog *w = ch->w;
	struct list *l = list_pop(&ch->free);
	struct passed *p = l ? list_entry(l, struct passed, link) : calloc(1, sizeof(*p));
	int rc = 0;

	if (!p) {
		bdev_io_complete_later(io, -ENOMEM);
		return;
	}
	list_init(&p->link);
	p->parent = io;
	p->ch = ch;
	p->io = (struct bdev_io){ .done = passed_done, .iov = io->iov, .iovcnt = io->iovcnt,
				  .offset_blocks = io->offset_blocks, .nr_blocks = io->nr_blocks, .op = io->op,
				  .flags = io->flags & (BDEV_IO_FUA | BDEV_IO_UNMAP_OK) };
	if (changes(io)) {
		pthread_mutex_lock(&w->mutex);
		p->nr = ++w->next_nr;
		rc = note(w, WRITELOG_SUBMITTED, io, p->nr, 0);
		pthread_mutex_unlock(&w->mutex);
	}
	if (rc) {
		list_add_head(&ch->free, &p->link);
		bdev_io_complete_later(io, -EIO);
		return;
	}
	bdev_submit(ch->base, &p->io);
}

static int writelog_channel_create(struct bdev *bdev, void *channel_ctx)
{
	struct writelog_channel *ch = channel_ctx;

	ch->w = container_of(bdev, struct writelog, bdev);
	list_init(&ch->free);
	ch->base = bdev_channel_get(ch->w->base);
	return ch->base ? 0 : -ENOMEM;
}

static void writelog_channel_destroy(struct bdev *bdev, void *channel_ctx)
{
	struct writelog_channel *ch = channel_ctx;
	struct list *l;

	while ((l = list_pop(&ch->free)))
		free(list_entry(l, struct passed, link));
	bdev_channel_put(ch->base);
}

static void writelog_destroy(struct bdev *bdev)
{
	struct writelog *w = container_of(bdev, struct writelog, bdev);

	bdev_close(w->base);
	bdev_destroy_done(bdev);
	close(w->fd);
	free(w);
}

static const struct bdev_ops writelog_ops = {
	.submit = writelog_submit,
	.destroy = writelog_destroy,
	.channel_create = writelog_channel_create,
	.channel_destroy = writelog_channel_destroy,
	.channel_ctx_size = sizeof(struct writelog_channel),
	.supported = 1u << BDEV_READ | 1u << BDEV_WRITE | 1u << BDEV_FLUSH | 1u << BDEV_UNMAP | 1u << BDEV_WRITE_ZEROES,
};

static void base_event(struct bdev *base, enum bdev_event event, void *arg)
{
	struct writelog *w = arg;

	if (event == BDEV_EVENT_RESIZE)
		bdev_notify_resize(&w->bdev, base->nr_blocks);
	else if (!bdev_is_removed(&w->bdev))
		bdev_unregister(&w->bdev, NULL, NULL);
}

static int log_begin(struct writelog *w, const char *log_path)
{
	struct writelog_header h = { .version = 1, .block_size = w->bdev.block_size, .nr_blocks = w->bdev.nr_blocks };
	int rc;

	w->fd = open(log_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (w->fd < 0)
		return -errno;
	memcpy(h.magic, WRITELOG_MAGIC, sizeof(h.magic));
	rc = write_all(w->fd, &h, sizeof(h));
	if (rc)
		close(w->fd);
	w->begun_us = clock_now_us();
	return rc;
}

int bdev_writelog_create(const char *name, const char *base_name, const char *log_path, struct bdev **ret_bdev)
{
	struct writelog *w;
	struct bdev *base;
	int rc;

	rc = leaf_check(name, 1, 512);
	if (rc)
		return rc;
	w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	rc = bdev_open(base_name, true, base_event, w, &w->base);
	if (rc)
		goto out_free;
	rc = bdev_claim(w->base, "write log");
	if (rc)
		goto out_close;
	base = bdev_desc_bdev(w->base);
	w->bdev = (struct bdev){ .product_name = "Write log", .module = "writelog", .block_size = base->block_size,
				 .nr_blocks = base->nr_blocks, .write_unit_blocks = base->write_unit_blocks,
				 .optimal_blocks = base->optimal_blocks, .unmap_zeroes = base->unmap_zeroes,
				 .unmap_granularity_blocks = base->unmap_granularity_blocks,
				 /* A log is for power cuts: what was not flushed counts as lost even where the base is memory. */
				 .has_write_cache = true, .thin = base->thin, .ops = &writelog_ops };
	strcpy(w->bdev.name, name);
	/* Its own, but made of the base's: the same after a restart. */
	uuid_copy(w->bdev.uuid, base->uuid);
	w->bdev.uuid[15] ^= 0xff;
	pthread_mutex_init(&w->mutex, NULL);
	rc = log_begin(w, log_path);
	if (rc)
		goto out_close;
	rc = bdev_register(&w->bdev);
	if (rc)
		goto out_log;
	if (ret_bdev)
		*ret_bdev = &w->bdev;
	return 0;

out_log:
	close(w->fd);
out_close:
	bdev_close(w->base);
out_free:
	free(w);
	return rc;
}
