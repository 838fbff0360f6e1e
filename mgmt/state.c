/*
 * The saved state's file: its folder, its lock, and the fiber that writes the journal.
 *
 * Changes are applied in memory at once and their lines queue up; the writer takes all that wait, writes them, and does one
 * fdatasync for them all while the next ones queue.  A write or sync that failed is never trusted again: the writer then
 * makes a whole new file (new file, sync, rename, sync of the folder), which is also how a long journal is made short.
 */
#include "mgmt/state.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mgmt/rpc.h"
#include "runtime/runtime.h"

#define JOURNAL_NAME	 "state.journal"
#define JOURNAL_NEW_NAME "state.journal.new"
#define LOCK_NAME	 "lock"
/* A journal this much longer than what is live in it is rewritten. */
#define GARBAGE_MIN (1024u * 1024)

/* Owner: the app thread. */
struct state {
	char *dir;
	int dir_fd, lock_fd, fd;
	struct journal journal;
	off_t end_bytes;	/* of the journal's good part */
	size_t live_bytes;	/* of the last rewrite */
	bool rewrite;		/* the file is not to be trusted, or absent */
	char *pending;		/* lines not yet given to the file */
	size_t pending_len, pending_size;
	struct list waiting;	/* commits whose lines are pending */
	struct fiber_cond wake; /* the writer's */
	struct fiber_wait *ended;
	bool running, stopping;
};

/* --- opening -------------------------------------------------------------------------------------------------------- */

static int read_whole(int fd, char **ret_buf, size_t *ret_len)
{
	struct stat st;
	size_t len = 0;
	char *buf;

	if (fstat(fd, &st) < 0)
		return -errno;
	buf = malloc((size_t)st.st_size + 1);
	if (!buf)
		return -ENOMEM;
	while (len < (size_t)st.st_size) {
		ssize_t n = pread(fd, buf + len, (size_t)st.st_size - len, (off_t)len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			int rc = -errno;

			free(buf);
			return rc;
		}
		if (n == 0)
			break;
		len += (size_t)n;
	}
	*ret_buf = buf;
	*ret_len = len;
	return 0;
}

static int load_journal(struct state *s)
{
	struct journal_damage damage;
	size_t len = 0;
	char *buf = NULL;
	int rc;

	s->fd = openat(s->dir_fd, JOURNAL_NAME, O_RDWR | O_CLOEXEC);
	if (s->fd < 0 && errno == ENOENT) {
		s->rewrite = true;
		return 0;
	}
	rc = s->fd < 0 ? -errno : read_whole(s->fd, &buf, &len);
	if (rc) {
		log_error("%s/%s cannot be read: %s", s->dir, JOURNAL_NAME, strerror(-rc));
		return rc;
	}
	rc = journal_load(&s->journal, buf, len, &damage);
	free(buf);
	s->end_bytes = (off_t)len;
	if (rc) {
		log_error("%s/%s: line %llu (byte %zu) is damaged: %s; restore the file from a copy, or move it away to "
			  "start with an empty configuration",
			  s->dir, JOURNAL_NAME, (unsigned long long)damage.line, damage.offset,
			  damage.why ? damage.why : strerror(-rc));
		return rc;
	}
	if (damage.torn) {
		log_warning("%s/%s: line %llu was not written to its end (%s): it and what follows were never answered and "
			    "are left out",
			    s->dir, JOURNAL_NAME, (unsigned long long)damage.line, damage.why);
		s->rewrite = true;
	}
	return 0;
}

static int take_lock(struct state *s)
{
	int rc;

	s->lock_fd = openat(s->dir_fd, LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (s->lock_fd < 0) {
		rc = -errno;
		log_error("%s/%s: %s", s->dir, LOCK_NAME, strerror(-rc));
		return rc;
	}
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		rc = errno == EWOULDBLOCK ? -EBUSY : -errno;
		log_error("the state folder %s is %s", s->dir,
			  rc == -EBUSY ? "another daemon's: end it, or give --state-dir another folder" : strerror(-rc));
		return rc;
	}
	return 0;
}

int state_open(const char *dir, struct state **ret_state)
{
	struct state *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return -ENOMEM;
	s->dir_fd = s->lock_fd = s->fd = -1;
	list_init(&s->waiting);
	fiber_cond_init(&s->wake);
	s->dir = strdup(dir);
	rc = s->dir ? journal_init(&s->journal) : -ENOMEM;
	if (rc)
		goto out_close;
	s->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dir_fd < 0) {
		rc = -errno;
		log_error("the state folder %s cannot be opened: %s", dir, strerror(-rc));
		goto out_close;
	}
	rc = take_lock(s);
	if (!rc)
		rc = load_journal(s);
	if (rc)
		goto out_close;
	*ret_state = s;
	return 0;
out_close:
	state_close(s);
	return rc;
}

void state_close(struct state *s)
{
	if (!s)
		return;
	assert(!s->running);
	if (s->fd >= 0)
		close(s->fd);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	if (s->dir_fd >= 0)
		close(s->dir_fd);
	journal_fini(&s->journal);
	free(s->pending);
	free(s->dir);
	free(s);
}

/* --- writing -------------------------------------------------------------------------------------------------------- */

struct io_wait {
	struct ring_op op;
	struct fiber_wait wait;
};

static void io_done(struct ring_op *op, int res, bool more)
{
	struct io_wait *io = container_of(op, struct io_wait, op);

	fiber_wake(&io->wait, res);
}

static void io_init(struct io_wait *io)
{
	memset(io, 0, sizeof(*io));
	io->op.done = io_done;
	fiber_wait_init(&io->wait);
}

static fiber_fn int file_write(int fd, const char *buf, size_t len, off_t offset)
{
	while (len > 0) {
		struct iovec iov = { (void *)(uintptr_t)buf, len };
		struct io_wait io;
		int n;

		io_init(&io);
		ring_writev(&io.op, fd, &iov, 1, (uint64_t)offset, 0);
		n = fiber_wait(&io.wait);
		if (n == -EINTR || n == -EAGAIN)
			continue;
		if (n <= 0)
			return n < 0 ? n : -ENOSPC;
		buf += n;
		len -= (size_t)n;
		offset += n;
	}
	return 0;
}

static fiber_fn int file_sync(int fd)
{
	struct io_wait io;

	io_init(&io);
	ring_fdatasync(&io.op, fd);
	return fiber_wait(&io.wait);
}

/* A whole new journal in place of the old one.  What is live in memory now is in it. */
static fiber_fn int rewrite_journal(struct state *s)
{
	size_t len;
	char *buf = journal_dump(&s->journal, &len);
	int fd, rc;

	if (!buf)
		return -ENOMEM;
	fd = openat(s->dir_fd, JOURNAL_NEW_NAME, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0) {
		rc = -errno;
		goto out_free;
	}
	rc = file_write(fd, buf, len, 0);
	if (!rc)
		rc = file_sync(fd);
	if (!rc && renameat(s->dir_fd, JOURNAL_NEW_NAME, s->dir_fd, JOURNAL_NAME) < 0)
		rc = -errno;
	if (!rc)
		rc = file_sync(s->dir_fd);
	if (rc) {
		close(fd);
		unlinkat(s->dir_fd, JOURNAL_NEW_NAME, 0); /* on a full disk its part counts */
		goto out_free;
	}
	if (s->fd >= 0)
		close(s->fd);
	s->fd = fd;
	s->end_bytes = (off_t)len;
	s->live_bytes = len;
	s->rewrite = false;
out_free:
	free(buf);
	return rc;
}

/* Writes what is pending: at the journal's end, or with all the rest into a new file. */
static fiber_fn int write_pending(struct state *s)
{
	char *buf = s->pending;
	size_t len = s->pending_len;
	int rc;

	s->pending = NULL;
	s->pending_len = s->pending_size = 0;
	if (!s->rewrite && (size_t)s->end_bytes > 2 * s->live_bytes + GARBAGE_MIN)
		s->rewrite = true;
	if (s->rewrite) {
		free(buf);
		return rewrite_journal(s);
	}
	rc = file_write(s->fd, buf, len, s->end_bytes);
	if (!rc)
		rc = file_sync(s->fd);
	free(buf);
	if (!rc)
		s->end_bytes += (off_t)len;
	return rc;
}

static fiber_fn void commit_waiting(struct state *s)
{
	struct list batch, *e;
	uint64_t seq = s->journal.seq;
	int rc;

	list_init(&batch);
	list_splice_tail(&batch, &s->waiting);
	rc = write_pending(s);
	if (rc) {
		log_error("%s/%s cannot be written: %s; changes are in effect but will be lost at the next start until a "
			  "later change can be saved",
			  s->dir, JOURNAL_NAME, strerror(-rc));
		s->rewrite = true;
	} else {
		s->journal.durable_seq = seq;
	}
	while ((e = list_pop(&batch))) {
		struct state_commit *commit = list_entry(e, struct state_commit, link);

		commit->done(commit, rc);
	}
}

static fiber_fn void writer_main(void *arg)
{
	struct state *s = arg;

	for (;;) {
		if (!list_empty(&s->waiting))
			commit_waiting(s);
		else if (s->stopping)
			break;
		else
			fiber_cond_wait(&s->wake);
	}
	s->running = false;
	fiber_wake(s->ended, 0);
}

int state_start(struct state *s)
{
	int rc = fiber_spawn(thread_current(), "state", writer_main, s);

	s->running = rc == 0;
	return rc;
}

fiber_fn void state_stop(struct state *s)
{
	struct fiber_wait ended;

	if (!s || !s->running)
		return;
	fiber_wait_init(&ended);
	s->ended = &ended;
	s->stopping = true;
	fiber_cond_signal(&s->wake);
	fiber_wait(&ended);
}

static int queue_line(struct state *s, json_t *changes)
{
	size_t len;
	char *line = journal_line(&s->journal, changes, &len);

	if (!line)
		return -ENOMEM;
	if (len > s->pending_size - s->pending_len) {
		size_t size = (s->pending_len + len) * 2;
		char *grown = realloc(s->pending, size);

		if (!grown) {
			free(line);
			return -ENOMEM;
		}
		s->pending = grown;
		s->pending_size = size;
	}
	memcpy(s->pending + s->pending_len, line, len);
	s->pending_len += len;
	free(line);
	return 0;
}

void state_append(struct state *s, json_t *changes, struct state_commit *commit)
{
	/* A line that cannot be queued is made up for by a whole new file. */
	if (journal_apply(&s->journal, changes) || queue_line(s, changes))
		s->rewrite = true;
	commit->seq = s->journal.seq;
	list_add_tail(&s->waiting, &commit->link);
	fiber_cond_signal(&s->wake);
}

/* --- looking -------------------------------------------------------------------------------------------------------- */

void state_for_each(struct state *s, const char *class,
		    void (*fn)(void *arg, const char *parent, const char *name, const char *method, json_t *params), void *arg)
{
	const char *text;
	json_t *object;

	json_object_foreach(s->journal.objects, text, object) {
		json_t *key = json_object_get(object, "key");

		if (strcmp(json_string_value(json_array_get(key, 0)), class) == 0)
			fn(arg, json_string_value(json_array_get(key, 1)), json_string_value(json_array_get(key, 2)),
			   json_string_value(json_object_get(object, "method")), json_object_get(object, "params"));
	}
}

bool state_has(struct state *s, const struct state_key *key)
{
	char *text = journal_key_text(key->class, key->parent, key->name);
	bool has = text && json_object_get(s->journal.objects, text);

	free(text);
	return has;
}

size_t state_nr_objects(struct state *s)
{
	return json_object_size(s->journal.objects);
}
