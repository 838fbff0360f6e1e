/*
 * read, write, compare, zero, trim, verify, flush: exact ranges of bytes, though NVMe knows blocks only.  A block
 * that a range covers in part is read first and written whole.  Several operations are not in flight at once:
 * that is what perf is for.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mgmt/cli_nvme.h"

#define CHUNK_BYTES (1u << 20)

/* A namespace with a queue to it.  Owner: the verb that runs. */
struct data_session {
	const struct cli_nvme_opts *opts;
	struct nvme_ctrlr *ctrlr;
	struct nvme_qpair *qpair;
	struct nvme_ns ns;
	uint32_t chunk_blocks;
	uint8_t *buf, *other; /* chunk_blocks each */
	int fd;
};

static fiber_fn void session_close(struct data_session *s)
{
	nvme_qpair_disconnect(s->qpair);
	nvme_ctrlr_disconnect(s->ctrlr);
	dma_free(s->buf);
	dma_free(s->other);
	if (s->fd > 2)
		close(s->fd);
}

static int open_file(struct data_session *s, int flags)
{
	const char *file = s->opts->file;

	if (!file || !strcmp(file, "-")) {
		s->fd = flags & O_WRONLY ? 1 : 0;
		return 0;
	}
	s->fd = open(file, flags | O_CLOEXEC, 0666);
	if (s->fd < 0)
		return cli_nvme_fail(s->opts, "%s: %s", file, strerror(errno));
	return 0;
}

static fiber_fn int session_open(struct data_session *s, const struct cli_nvme_opts *opts)
{
	struct nvme_error error = {0};

	*s = (struct data_session){.opts = opts, .fd = -1};
	if (cli_nvme_connect(opts, &s->ctrlr))
		return 1;
	if (!nvme_ctrlr_nr_io_queues(s->ctrlr)) {
		cli_nvme_fail(opts, "%s has no I/O queues: is it a discovery controller?",
			      opts->connect.subnqn);
		goto out_close;
	}
	if (nvme_ns_open(s->ctrlr, opts->nsid, &s->ns, &error) ||
	    nvme_qpair_connect(s->ctrlr, 1, 32, &s->qpair, &error)) {
		cli_nvme_fail(opts, "%s", error.text);
		goto out_close;
	}
	s->chunk_blocks = CHUNK_BYTES / s->ns.block_size;
	if (s->chunk_blocks > s->ns.max_xfer_blocks)
		s->chunk_blocks = s->ns.max_xfer_blocks;
	s->buf = dma_alloc((size_t)s->chunk_blocks * s->ns.block_size, 4096);
	s->other = dma_alloc((size_t)s->chunk_blocks * s->ns.block_size, 4096);
	if (s->buf && s->other)
		return 0;
	cli_nvme_fail(opts, "no memory");
out_close:
	session_close(s);
	return 1;
}

/* What was asked for is not all done: whoever calls must know.  1 with that said, or 0. */
static int was_interrupted(const struct data_session *s, uint64_t left_bytes, uint64_t done_bytes)
{
	if (!left_bytes || !cli_nvme_interrupted())
		return 0;
	return cli_nvme_fail(s->opts, "interrupted after %llu bytes", (unsigned long long)done_bytes);
}

static int command_failed(const struct data_session *s, int rc, const char *what, uint64_t slba)
{
	if (rc < 0)
		return cli_nvme_fail(s->opts, "%s at block %llu: %s", what, (unsigned long long)slba,
				     nvme_qpair_error(s->qpair)->text);
	return cli_nvme_fail(s->opts, "%s at block %llu: %s (%03xh)", what, (unsigned long long)slba,
			     nvme_status_name((uint16_t)rc), nvme_status_code((uint16_t)rc));
}

static fiber_fn int blocks(struct data_session *s, uint8_t opcode, void *buf, uint64_t slba, uint32_t nr)
{
	union nvme_cmd cmd;

	nvme_cmd_rw(&cmd, opcode, s->ns.nsid, slba, nr);
	if (s->opts->fua && (opcode == NVME_IO_WRITE || opcode == NVME_IO_WRITE_ZEROES))
		cmd.rw.control |= NVME_RW_FUA;
	return nvme_execute(s->qpair, &cmd, buf, buf ? nr * s->ns.block_size : 0, NULL);
}

/* The part of a range that one chunk of blocks covers. */
struct piece {
	uint64_t slba;
	uint32_t nr_blocks;
	uint32_t skip_bytes, len_bytes; /* of the blocks, what belongs to the range */
};

static struct piece next_piece(const struct data_session *s, uint64_t offset, uint64_t left)
{
	uint32_t bs = s->ns.block_size;
	struct piece p = {.slba = offset / bs, .skip_bytes = (uint32_t)(offset % bs)};
	uint64_t room = (uint64_t)s->chunk_blocks * bs - p.skip_bytes;

	p.len_bytes = (uint32_t)(left < room ? left : room);
	p.nr_blocks = (p.skip_bytes + p.len_bytes + bs - 1) / bs;
	return p;
}

static bool is_whole(const struct data_session *s, const struct piece *p)
{
	return !p->skip_bytes && p->len_bytes == p->nr_blocks * s->ns.block_size;
}

/* The range's length: as asked for, or up to the namespace's end.  False: it does not fit, and that has been
 * said. */
static bool range_of(const struct data_session *s, uint64_t *ret_len)
{
	uint64_t size = s->ns.nr_blocks * s->ns.block_size, offset = s->opts->offset_bytes;

	*ret_len = s->opts->has_len ? s->opts->len_bytes : offset < size ? size - offset : 0;
	if (offset <= size && *ret_len <= size - offset)
		return true;
	cli_nvme_fail(s->opts, "the range of %llu bytes from %llu ends after the namespace's %llu bytes",
		      (unsigned long long)*ret_len, (unsigned long long)offset, (unsigned long long)size);
	return false;
}

static int write_out(const struct data_session *s, const uint8_t *buf, size_t len)
{
	while (len) {
		ssize_t n = write(s->fd, buf, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return cli_nvme_fail(s->opts, "%s: %s",
					     s->opts->file ? s->opts->file : "standard output",
					     strerror(errno));
		buf += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Fills buf as far as the file goes; -1 when reading failed, and that has been said. */
static ssize_t read_in(const struct data_session *s, uint8_t *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = read(s->fd, buf + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			cli_nvme_fail(s->opts, "%s: %s", s->opts->file ? s->opts->file : "standard input",
				      strerror(errno));
			return -1;
		}
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

fiber_fn int cli_nvme_read(const struct cli_nvme_opts *opts)
{
	uint64_t offset = opts->offset_bytes, left;
	struct data_session s;
	int rc = 1;

	if (session_open(&s, opts))
		return 1;
	if (!range_of(&s, &left) || open_file(&s, O_WRONLY | O_CREAT | O_TRUNC))
		goto out_close;
	for (rc = 0; !rc && left && !cli_nvme_interrupted();) {
		struct piece p = next_piece(&s, offset, left);

		rc = blocks(&s, NVME_IO_READ, s.buf, p.slba, p.nr_blocks);
		if (rc)
			rc = command_failed(&s, rc, "reading", p.slba);
		else
			rc = write_out(&s, s.buf + p.skip_bytes, p.len_bytes);
		offset += p.len_bytes;
		left -= p.len_bytes;
	}
out_close:
	session_close(&s);
	return rc || left ? 1 : 0;
}

/* What the range does not cover of its first and last block stays as it is. */
static fiber_fn int keep_edges(struct data_session *s, const struct piece *p)
{
	uint32_t bs = s->ns.block_size, end = p->skip_bytes + p->len_bytes, total = p->nr_blocks * bs;
	int rc;

	if (p->skip_bytes) {
		rc = blocks(s, NVME_IO_READ, s->other, p->slba, 1);
		if (rc)
			return command_failed(s, rc, "reading", p->slba);
		memcpy(s->buf, s->other, p->skip_bytes);
	}
	if (end != total) {
		rc = blocks(s, NVME_IO_READ, s->other, p->slba + p->nr_blocks - 1, 1);
		if (rc)
			return command_failed(s, rc, "reading", p->slba + p->nr_blocks - 1);
		memcpy(s->buf + end, s->other + bs - (total - end), total - end);
	}
	return 0;
}

fiber_fn int cli_nvme_write(const struct cli_nvme_opts *opts)
{
	uint64_t offset = opts->offset_bytes, left, written = 0;
	struct data_session s;
	int rc = 1;

	if (session_open(&s, opts))
		return 1;
	if (!range_of(&s, &left) || open_file(&s, O_RDONLY))
		goto out_close;
	for (rc = 0; !rc && left && !cli_nvme_interrupted();) {
		struct piece p = next_piece(&s, offset, left);
		ssize_t got = read_in(&s, s.buf + p.skip_bytes, p.len_bytes);

		if (got <= 0) {
			rc = got < 0;
			break;
		}
		p = next_piece(&s, offset, (uint64_t)got);
		rc = keep_edges(&s, &p);
		if (!rc && (rc = blocks(&s, NVME_IO_WRITE, s.buf, p.slba, p.nr_blocks)) != 0)
			rc = command_failed(&s, rc, "writing", p.slba);
		offset += p.len_bytes;
		left -= p.len_bytes;
		written += p.len_bytes;
	}
	if (!rc)
		rc = was_interrupted(&s, left, written);
	if (!rc && left && opts->has_len)
		rc = cli_nvme_fail(opts, "the input ended after %llu of %llu bytes",
				   (unsigned long long)written, (unsigned long long)opts->len_bytes);
	if (!rc && !left && !opts->has_len && read_in(&s, s.buf, 1) == 1)
		rc = cli_nvme_fail(opts, "the namespace ends before the input does: wrote %llu bytes",
				   (unsigned long long)written);
out_close:
	session_close(&s);
	return rc;
}

/* Says where they differ.  Gives 1. */
static fiber_fn int report_difference(struct data_session *s, const struct piece *p, uint64_t offset)
{
	int rc = blocks(s, NVME_IO_READ, s->other, p->slba, p->nr_blocks);

	if (rc)
		return command_failed(s, rc, "reading", p->slba);
	for (uint32_t i = 0; i < p->len_bytes; i++) {
		uint32_t at = p->skip_bytes + i;

		if (s->buf[at] != s->other[at])
			return cli_nvme_fail(
				s->opts, "they differ at byte %llu: the namespace has %02xh, the file %02xh",
				(unsigned long long)(offset + i), s->other[at], s->buf[at]);
	}
	return cli_nvme_fail(s->opts,
			     "the namespace's answer to Compare was \"different\", but it reads the same: "
			     "did someone write to it meanwhile?");
}

static fiber_fn int compare_piece(struct data_session *s, const struct piece *p, uint64_t offset)
{
	int rc;

	if (is_whole(s, p)) {
		rc = blocks(s, NVME_IO_COMPARE, s->buf, p->slba, p->nr_blocks);
		if (!rc)
			return 0;
		if (rc > 0 && nvme_status_code((uint16_t)rc) == NVME_SC_COMPARE_FAILURE)
			return report_difference(s, p, offset);
		return command_failed(s, rc, "comparing", p->slba);
	}
	rc = blocks(s, NVME_IO_READ, s->other, p->slba, p->nr_blocks);
	if (rc)
		return command_failed(s, rc, "reading", p->slba);
	if (memcmp(s->buf + p->skip_bytes, s->other + p->skip_bytes, p->len_bytes))
		return report_difference(s, p, offset);
	return 0;
}

fiber_fn int cli_nvme_compare(const struct cli_nvme_opts *opts)
{
	uint64_t offset = opts->offset_bytes, left;
	struct data_session s;
	int rc = 1;

	if (session_open(&s, opts))
		return 1;
	if (!range_of(&s, &left) || open_file(&s, O_RDONLY))
		goto out_close;
	for (rc = 0; !rc && left && !cli_nvme_interrupted();) {
		struct piece p = next_piece(&s, offset, left);
		ssize_t got = read_in(&s, s.buf + p.skip_bytes, p.len_bytes);

		if (got <= 0) {
			rc = got < 0;
			break;
		}
		p = next_piece(&s, offset, (uint64_t)got);
		rc = compare_piece(&s, &p, offset);
		offset += p.len_bytes;
		left -= p.len_bytes;
	}
	if (!rc)
		rc = was_interrupted(&s, left, offset - opts->offset_bytes);
	if (!rc && left && opts->has_len)
		rc = cli_nvme_fail(opts, "the file ended %llu bytes early", (unsigned long long)left);
	if (!rc && !opts->has_len && offset == opts->offset_bytes)
		rc = cli_nvme_fail(opts, "the file is empty: nothing was compared");
	if (!rc && !left && !opts->has_len && read_in(&s, s.buf, 1) == 1)
		rc = cli_nvme_fail(opts, "the namespace ends before the file does: %llu bytes are the same",
				   (unsigned long long)(offset - opts->offset_bytes));
out_close:
	session_close(&s);
	return rc;
}

/* zero, trim and verify take whole blocks: half a block cannot be deallocated. */
static fiber_fn int each_range(const struct cli_nvme_opts *opts,
			       fiber_fn int (*one)(struct data_session *s, uint64_t slba, uint32_t nr))
{
	struct data_session s;
	uint64_t left;
	int rc = 1;

	if (session_open(&s, opts))
		return 1;
	if (!range_of(&s, &left))
		goto out_close;
	if (opts->offset_bytes % s.ns.block_size || left % s.ns.block_size) {
		cli_nvme_fail(opts, "offset and length must be multiples of the block size, %u",
			      s.ns.block_size);
		goto out_close;
	}
	uint64_t slba = opts->offset_bytes / s.ns.block_size;

	left /= s.ns.block_size;
	for (rc = 0; !rc && left && !cli_nvme_interrupted();) {
		uint32_t nr = left < s.chunk_blocks ? (uint32_t)left : s.chunk_blocks;

		rc = one(&s, slba, nr);
		if (rc)
			rc = command_failed(&s, rc, opts->verb, slba);
		slba += nr;
		left -= nr;
	}
	if (!rc)
		rc = was_interrupted(&s, left, slba * s.ns.block_size - opts->offset_bytes);
out_close:
	session_close(&s);
	return rc;
}

static fiber_fn int zero_one(struct data_session *s, uint64_t slba, uint32_t nr)
{
	return blocks(s, NVME_IO_WRITE_ZEROES, NULL, slba, nr);
}

static fiber_fn int trim_one(struct data_session *s, uint64_t slba, uint32_t nr)
{
	struct nvme_dsm_range range = {.slba = slba, .nlb = nr};
	union nvme_cmd cmd = {0};

	cmd.opcode = NVME_IO_DSM;
	cmd.nsid = s->ns.nsid;
	cmd.dsm.attributes = NVME_DSM_AD;
	return nvme_execute(s->qpair, &cmd, &range, sizeof(range), NULL);
}

fiber_fn int cli_nvme_zero(const struct cli_nvme_opts *opts)
{
	return each_range(opts, zero_one);
}

fiber_fn int cli_nvme_trim(const struct cli_nvme_opts *opts)
{
	return each_range(opts, trim_one);
}

static fiber_fn int verify_one(struct data_session *s, uint64_t slba, uint32_t nr)
{
	return blocks(s, NVME_IO_VERIFY, NULL, slba, nr);
}

fiber_fn int cli_nvme_verify(const struct cli_nvme_opts *opts)
{
	return each_range(opts, verify_one);
}

fiber_fn int cli_nvme_flush(const struct cli_nvme_opts *opts)
{
	union nvme_cmd cmd = {0};
	struct data_session s;
	int rc;

	if (session_open(&s, opts))
		return 1;
	cmd.opcode = NVME_IO_FLUSH;
	cmd.nsid = s.ns.nsid;
	rc = nvme_execute(s.qpair, &cmd, NULL, 0, NULL);
	if (rc)
		rc = command_failed(&s, rc, "flush", 0);
	session_close(&s);
	return rc;
}
