/*
 * From a write log to the remains of a power cut: what a completed flush covers and what completed with FUA is there, and of
 * everything else each atomic unit or none, as a seed decides.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bdev/crash_disk.h"
#include "bdev/writelog.h"
#include "nvme/crc32c.h"

/* A change in the log.  Owner: the replay. */
struct change {
	struct writelog_record r;
	uint64_t data_at;			/* in the file */
	uint64_t submitted_at, completed_at; /* record numbers; UINT64_MAX: not before the cut */
	bool failed;
};

struct replay {
	int fd;
	struct writelog_header header;
	struct change *changes; /* by number, from 1 */
	uint64_t nr_changes, nr_room;
	uint64_t *order; /* numbers in the order in which they reached the device */
	uint64_t nr_order;
	uint64_t nr_records;
	uint64_t flushed_before; /* a change that completed before this record is durable */
};

/* 1: a record; 0: the end; -EINVAL: damage. */
static int next_record(int fd, uint64_t *at, uint64_t size, struct writelog_record *r)
{
	uint32_t crc;

	if (sizeof(*r) > size - *at)
		return 0;
	if (pread(fd, r, sizeof(*r), *at) != sizeof(*r))
		return -EIO;
	crc = r->crc;
	r->crc = 0;
	if (r->magic != WRITELOG_RECORD_MAGIC || crc32c(r, sizeof(*r)) != crc)
		return -EINVAL;
	*at += sizeof(*r);
	if (r->data_bytes > size - *at)
		return 0;
	*at += r->data_bytes;
	return 1;
}

static int log_open(const char *path, struct writelog_header *ret_header, uint64_t *ret_size)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) || pread(fd, ret_header, sizeof(*ret_header), 0) != sizeof(*ret_header) ||
	    memcmp(ret_header->magic, WRITELOG_MAGIC, 8) || ret_header->version != 1 ||
	    ret_header->block_size < 512 || !ret_header->nr_blocks) {
		close(fd);
		return -EINVAL;
	}
	*ret_size = st.st_size;
	return fd;
}

int writelog_inspect(const char *log_path, struct writelog_info *ret_info)
{
	struct writelog_header h;
	struct writelog_record r;
	uint64_t size, at = sizeof(h);
	int fd = log_open(log_path, &h, &size), rc;

	if (fd < 0)
		return fd;
	*ret_info = (struct writelog_info){ .nr_blocks = h.nr_blocks, .block_size = h.block_size };
	while ((rc = next_record(fd, &at, size, &r)) > 0) {
		ret_info->nr_records++;
		if (r.kind == WRITELOG_SUBMITTED && r.op == BDEV_FLUSH)
			ret_info->nr_flushes++;
		else if (r.kind == WRITELOG_SUBMITTED)
			ret_info->nr_writes++;
	}
	close(fd);
	return rc;
}

static int add_submitted(struct replay *p, const struct writelog_record *r, uint64_t data_at)
{
	if (r->nr != p->nr_changes + 1)
		return -EINVAL;
	if (r->op != BDEV_FLUSH && (r->nr_blocks > p->header.nr_blocks ||
				    r->offset_blocks > p->header.nr_blocks - r->nr_blocks ||
				    (r->op == BDEV_WRITE && r->data_bytes != r->nr_blocks * p->header.block_size)))
		return -EINVAL;
	if (p->nr_room < r->nr + 1) {
		uint64_t room = p->nr_room ? 2 * p->nr_room : 1024;
		struct change *c = realloc(p->changes, room * sizeof(*c));
		uint64_t *o = c ? realloc(p->order, room * sizeof(*o)) : NULL;

		if (c)
			p->changes = c;
		if (!o)
			return -ENOMEM;
		p->order = o;
		p->nr_room = room;
	}
	p->changes[r->nr] = (struct change){ .r = *r, .data_at = data_at, .submitted_at = p->nr_records,
					     .completed_at = UINT64_MAX };
	p->nr_changes = r->nr;
	return 0;
}

static int add_completed(struct replay *p, const struct writelog_record *r)
{
	struct change *c;

	if (!r->nr || r->nr > p->nr_changes)
		return -EINVAL;
	c = &p->changes[r->nr];
	c->completed_at = p->nr_records;
	c->failed = r->status != 0;
	if (c->r.op != BDEV_FLUSH)
		p->order[p->nr_order++] = r->nr;
	else if (!c->failed && c->submitted_at > p->flushed_before)
		p->flushed_before = c->submitted_at;
	return 0;
}

static int load(struct replay *p, uint64_t size, uint64_t until_record)
{
	struct writelog_record r;
	uint64_t at = sizeof(p->header);
	int rc = 0;

	while (p->nr_records < until_record && (rc = next_record(p->fd, &at, size, &r)) > 0) {
		rc = r.kind == WRITELOG_SUBMITTED ? add_submitted(p, &r, at - r.data_bytes) : add_completed(p, &r);
		if (rc)
			return rc;
		p->nr_records++;
	}
	if (rc < 0)
		return rc;
	/* What was in flight comes last. */
	for (uint64_t nr = 1; nr <= p->nr_changes; nr++) {
		if (p->changes[nr].completed_at == UINT64_MAX && p->changes[nr].r.op != BDEV_FLUSH)
			p->order[p->nr_order++] = nr;
	}
	return 0;
}

static int apply_range(const struct replay *p, const struct change *c, int image, uint64_t block, uint64_t nr_blocks)
{
	uint64_t bs = p->header.block_size, done = 0, len = nr_blocks * bs;
	char buf[65536];

	while (done < len) {
		size_t n = len - done < sizeof(buf) ? len - done : sizeof(buf);

		if (c->r.op != BDEV_WRITE)
			memset(buf, 0, n);
		else if (pread(p->fd, buf, n, c->data_at + (block - c->r.offset_blocks) * bs + done) != (ssize_t)n)
			return -EIO;
		if (pwrite(image, buf, n, block * bs + done) != (ssize_t)n)
			return -errno;
		done += n;
	}
	return 0;
}

static int apply_units(const struct replay *p, const struct change *c, int image, uint32_t unit, uint64_t *rng)
{
	uint64_t end = c->r.offset_blocks + c->r.nr_blocks, next;
	int rc = 0;

	for (uint64_t b = c->r.offset_blocks; b < end && !rc; b = next) {
		next = (b / unit + 1) * unit;
		if (next > end)
			next = end;
		if (crash_rand(rng) % 2)
			rc = apply_range(p, c, image, b, next - b);
	}
	return rc;
}

static int apply_all(const struct replay *p, int image, const struct writelog_cut *cut)
{
	uint32_t unit = cut->atomic_blocks ? cut->atomic_blocks : 1;
	uint64_t rng = cut->seed;
	unsigned loss = crash_rand(&rng) % 4; /* in quarters: how much of the cache is lost */

	for (uint64_t i = 0; i < p->nr_order; i++) {
		const struct change *c = &p->changes[p->order[i]];
		bool completed = c->completed_at != UINT64_MAX && !c->failed;
		bool durable = completed && !cut->ignore_flushes &&
			       ((c->r.flags & BDEV_IO_FUA) || c->completed_at < p->flushed_before);
		int rc = 0;

		if (durable || (completed && cut->keep_all))
			rc = apply_range(p, c, image, c->r.offset_blocks, c->r.nr_blocks);
		else if (crash_rand(&rng) % 4 < loss)
			continue;
		else if (completed && crash_rand(&rng) % 2)
			rc = apply_range(p, c, image, c->r.offset_blocks, c->r.nr_blocks);
		else
			rc = apply_units(p, c, image, unit, &rng);
		if (rc)
			return rc;
	}
	return 0;
}

static int copy_file(const char *from, int to)
{
	int fd = open(from, O_RDONLY | O_CLOEXEC), rc = 0;
	char buf[65536];
	ssize_t n;

	if (fd < 0)
		return -errno;
	while (!rc && (n = read(fd, buf, sizeof(buf))) != 0) {
		if (n < 0 || write(to, buf, n) != n)
			rc = -EIO;
	}
	close(fd);
	return rc;
}

int writelog_make_image(const char *log_path, const char *image_base, const char *image_path, const struct writelog_cut *cut)
{
	struct replay p = { 0 };
	uint64_t size;
	int image, rc;

	p.fd = log_open(log_path, &p.header, &size);
	if (p.fd < 0)
		return p.fd;
	rc = load(&p, size, cut->record);
	if (rc)
		goto out_log;
	image = open(image_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	rc = image < 0 ? -errno : 0;
	if (rc)
		goto out_log;
	if (image_base)
		rc = copy_file(image_base, image);
	if (!rc && ftruncate(image, p.header.nr_blocks * p.header.block_size))
		rc = -errno;
	if (!rc)
		rc = apply_all(&p, image, cut);
	close(image);
out_log:
	close(p.fd);
	free(p.changes);
	free(p.order);
	return rc;
}
