/*
 * ledger - writes a block device and keeps account of what completed flushes cover, so that a crash can be
 * judged.
 *
 * `ledger run` has several threads that write, write with FUA, zero, discard, read and flush a device through
 * O_DIRECT. Operation k of thread t is a function of (seed, t, k) alone, and every sector written says which
 * operation wrote it. After each completed flush or FUA write a record, a mark, says which operations are
 * durable from here on.  `ledger check` reads the marks and then the device, and knows for each sector which
 * operations may have been the last:
 *
 *   - the newest durable operation on it, or any newer one: that one's data, or zeros for a write-zeroes;
 *   - zeros also after a discard not older than that, and where no durable operation was: never-written reads
 * zero;
 *   - anything else is a violation: lost, torn inside a sector, in the wrong place, or not ours at all.
 *
 * Sectors have one thread each, and a thread does one operation after another, so a sector's operations are
 * in order. doc/lab.md says how marks are tied to a write log, and how a run over a connection that breaks is
 * judged.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SECTOR         512
#define MAX_THREADS    16
#define MAX_OP_SECTORS 1024
#define MARK_SLOT      4096
#define WELL_UNDER_WAY 20
#define MAGIC          0x5245474445464c31ull

enum op_kind { OP_WRITE, OP_FUA, OP_ZERO, OP_DISCARD, OP_READ, OP_FLUSH };

struct op {
	enum op_kind kind;
	uint64_t lba; /* first sector */
	uint32_t nr;  /* sectors; 0 for a flush */
};

enum mark_kind { MARK_START = 1, MARK_FLUSH, MARK_FUA, MARK_END };

/* One mark on the medium.  Thread u's operations from[u] < k <= upto[u] are durable. */
struct mark {
	uint64_t magic;
	uint32_t kind, thread;
	uint64_t number, seed, nr_sectors;
	uint32_t nr_threads, pad;
	uint64_t from[MAX_THREADS], upto[MAX_THREADS];
	uint64_t submitted[MAX_THREADS]; /* when the mark was made */
	uint64_t sum;
};
_Static_assert(sizeof(struct mark) == 440, "a mark fits in a sector");

static struct {
	uint64_t seed, nr_sectors;
	unsigned nr_threads;
	int fd, marks_fd, kmsg_fd;
	bool strict;          /* a break excuses nothing */
	bool stop_at_break;   /* a round that ends with the target's death: nothing newer hides a loss */
	bool marks_are_slots; /* a block device: each thread has a slot; else a file: appended */
	time_t end;
	pthread_mutex_t lock;
	/* Under lock. */
	uint64_t nr_marks, nr_new_marks, nr_breaks, tainted[MAX_THREADS];
	/* Owned by thread t, read by all. */
	_Atomic uint64_t submitted[MAX_THREADS], completed[MAX_THREADS];
	/* Owned by the sector's thread: the last operation submitted on it that changes it. */
	uint64_t *last;
} G = {.lock = PTHREAD_MUTEX_INITIALIZER, .kmsg_fd = -1, .marks_fd = -1};

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "ledger: ");
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\n");
	va_end(ap);
	exit(2);
}

/* Operations and contents: functions of the seed. */

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

/* Regions have an odd number of sectors, so that threads meet inside 4 KiB blocks and inside clusters. */
static uint64_t region_size(void)
{
	return (G.nr_sectors / G.nr_threads - 1) | 1;
}

static struct op op_get(unsigned t, uint64_t k)
{
	uint64_t h = mix(mix(G.seed ^ ((uint64_t)t << 56)) ^ k), size = region_size(), span, at;
	struct op op = {0};
	unsigned r = h % 100;

	op.kind = r < 45   ? OP_WRITE
		  : r < 55 ? OP_FUA
		  : r < 63 ? OP_ZERO
		  : r < 70 ? OP_DISCARD
		  : r < 82 ? OP_READ
			   : OP_FLUSH;
	if (op.kind == OP_FLUSH)
		return op;
	h = mix(h);
	r = h % 100;
	h = mix(h);
	op.nr = r < 15   ? 1
		: r < 50 ? 8
		: r < 75 ? 1 + h % 32
		: r < 95 ? 32 + h % 97
			 : 129 + h % (MAX_OP_SECTORS - 128);
	if (op.nr > size / 2)
		op.nr = size / 2;
	h = mix(h);
	span = (h & 1) ? size : size / 8; /* half of it on an eighth of the region: overwrites */
	if (span < op.nr)
		span = size;
	at = mix(h) % (span - op.nr + 1);
	op.lba = t * size + at;
	if (op.nr == 8 && op.lba - t * size >= 8)
		op.lba &= ~7ull;
	return op;
}

static bool op_changes(const struct op *op)
{
	return op->kind <= OP_DISCARD;
}

static void sector_fill(void *buf, unsigned t, uint64_t k, uint64_t lba)
{
	uint64_t w[SECTOR / 8], h = mix(G.seed ^ mix(k ^ ((uint64_t)t << 56)) ^ mix(~lba));

	w[0] = MAGIC;
	w[1] = G.seed;
	w[2] = (uint64_t)t << 56 | k;
	w[3] = lba;
	for (unsigned i = 4; i < SECTOR / 8; i++)
		w[i] = h = h * 6364136223846793005ull + 1442695040888963407ull;
	memcpy(buf, w, SECTOR);
}

/* Returns 0 for zeros, 1 for a whole sector of ours (*ret_t, *ret_k), -1 for anything else. */
static int sector_parse(const void *buf, uint64_t lba, unsigned *ret_t, uint64_t *ret_k)
{
	static const uint8_t zeros[SECTOR];
	uint8_t want[SECTOR];
	uint64_t w[4];

	if (memcmp(buf, zeros, SECTOR) == 0)
		return 0;
	memcpy(w, buf, sizeof(w));
	*ret_t = w[2] >> 56;
	*ret_k = w[2] & 0xffffffffffffffull;
	if (w[0] != MAGIC || w[1] != G.seed || *ret_t >= G.nr_threads)
		return -1;
	sector_fill(want, *ret_t, *ret_k, lba);
	return memcmp(buf, want, SECTOR) == 0 ? 1 : -1;
}

/* Marks. */

static uint64_t mark_sum(const struct mark *m)
{
	uint64_t sum = 0, w;

	for (size_t i = 0; i < offsetof(struct mark, sum); i += 8) {
		memcpy(&w, (const char *)m + i, 8);
		sum = mix(sum ^ w);
	}
	return sum;
}

static void mark_put(enum mark_kind kind, unsigned t, const uint64_t *from, const uint64_t *upto)
{
	static _Thread_local void *slot;
	struct mark m = {.magic = MAGIC,
			 .kind = kind,
			 .thread = t,
			 .seed = G.seed,
			 .nr_sectors = G.nr_sectors,
			 .nr_threads = G.nr_threads};
	ssize_t n;

	if (!slot && posix_memalign(&slot, MARK_SLOT, MARK_SLOT))
		die("no memory");
	for (unsigned u = 0; u < G.nr_threads; u++) {
		m.from[u] = from ? from[u] : 0;
		m.upto[u] = upto ? upto[u] : 0;
		m.submitted[u] = G.submitted[u];
	}
	pthread_mutex_lock(&G.lock);
	m.number = G.nr_marks++;
	if (G.marks_are_slots)
		pthread_mutex_unlock(&G.lock);
	m.sum = mark_sum(&m);
	memset(slot, 0, MARK_SLOT);
	memcpy(slot, &m, sizeof(m));
	if (G.marks_are_slots) {
		n = pwrite(G.marks_fd, slot, MARK_SLOT, (off_t)t * MARK_SLOT);
		if (n != MARK_SLOT)
			die("writing a mark: %s", strerror(errno));
		return;
	}
	n = write(G.marks_fd, slot, SECTOR);
	if (++G.nr_new_marks == WELL_UNDER_WAY)
		printf("ledger: under way\n"); /* for whoever waits for that before it breaks something */
	pthread_mutex_unlock(&G.lock);
	if (n != SECTOR)
		die("writing a mark: %s", strerror(errno));
}

/*
 * Breaks.  A host that reconnects sends again what was in flight and says nothing of acknowledged writes that
 * the target's death may have lost.  The kernel logs a break before the first command of the next connection:
 * what was submitted before a break that we have just seen is tainted, and no later flush covers it. Returns
 * the number of breaks seen; called with the lock held.
 */
static uint64_t breaks_poll(void)
{
	char buf[8192];
	ssize_t n;

	while (G.kmsg_fd >= 0) {
		n = read(G.kmsg_fd, buf, sizeof(buf) - 1);
		if (n < 0 && errno == EPIPE) { /* overrun: something may have passed unseen */
			strcpy(buf, "nvme Reconnecting");
			n = strlen(buf);
		}
		if (n < 0)
			break;
		buf[n] = 0;
		if (!strstr(buf, "nvme") || (!strstr(buf, "econnecting") && !strstr(buf, "error recovery")))
			continue;
		G.nr_breaks++;
		for (unsigned u = 0; u < G.nr_threads && !G.strict; u++)
			G.tainted[u] = G.submitted[u];
	}
	return G.nr_breaks;
}

/* run */

static void do_flush(unsigned t)
{
	uint64_t before, after, from[MAX_THREADS], upto[MAX_THREADS];

	pthread_mutex_lock(&G.lock);
	before = breaks_poll();
	for (unsigned u = 0; u < G.nr_threads; u++) {
		upto[u] = G.completed[u];
		from[u] = G.tainted[u] < upto[u] ? G.tainted[u] : upto[u];
	}
	pthread_mutex_unlock(&G.lock);
	if (fsync(G.fd))
		die("thread %u: flush: %s", t, strerror(errno));
	pthread_mutex_lock(&G.lock);
	after = breaks_poll();
	pthread_mutex_unlock(&G.lock);
	if (before == after || G.strict)
		mark_put(MARK_FLUSH, t, from, upto);
}

static void do_read(unsigned t, uint64_t k, const struct op *op, char *buf)
{
	uint64_t tainted;

	if (pread(G.fd, buf, op->nr * SECTOR, op->lba * SECTOR) != op->nr * SECTOR)
		die("thread %u op %" PRIu64 ": read: %s", t, k, strerror(errno));
	pthread_mutex_lock(&G.lock);
	breaks_poll();
	tainted = G.tainted[t];
	pthread_mutex_unlock(&G.lock);
	for (uint32_t i = 0; i < op->nr; i++) {
		uint64_t last = G.last[op->lba + i], got = 0;
		struct op want = op_get(t, last);
		unsigned from = t;
		int what = sector_parse(buf + i * SECTOR, op->lba + i, &from, &got);

		if (last == 0 || last <= tainted || want.kind == OP_DISCARD)
			continue;
		if (want.kind == OP_ZERO ? what == 0 : what == 1 && from == t && got == last)
			continue;
		die("sector %" PRIu64 ": a read saw %s %u/%" PRIu64 " instead of operation %u/%" PRIu64,
		    op->lba + i,
		    what < 0 ? "foreign bytes"
		    : what   ? "operation"
			     : "zeros",
		    from, got, t, last);
	}
}

static int zero_range(const struct op *op, bool punch)
{
	uint64_t range[2] = {op->lba * SECTOR, (uint64_t)op->nr * SECTOR};

	if (punch && fallocate(G.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, range[0], range[1]) == 0)
		return 0;
	return ioctl(G.fd, BLKZEROOUT, range);
}

static void do_op(unsigned t, uint64_t k, char *buf)
{
	struct op op = op_get(t, k);
	uint64_t range[2] = {op.lba * SECTOR, (uint64_t)op.nr * SECTOR}, from[MAX_THREADS] = {0},
		 upto[MAX_THREADS] = {0};
	struct iovec iov = {.iov_base = buf, .iov_len = range[1]};
	int rc = 0;

	if (op_changes(&op))
		for (uint32_t i = 0; i < op.nr; i++) {
			if (op.kind <= OP_FUA)
				sector_fill(buf + i * SECTOR, t, k, op.lba + i);
			G.last[op.lba + i] = k;
		}
	G.submitted[t] = k;
	switch (op.kind) {
	case OP_FLUSH:
		do_flush(t);
		break;
	case OP_READ:
		do_read(t, k, &op, buf);
		break;
	case OP_WRITE:
	case OP_FUA:
		rc = pwritev2(G.fd, &iov, 1, range[0], op.kind == OP_FUA ? RWF_DSYNC : 0) == (ssize_t)range[1]
			     ? 0
			     : -1;
		break;
	case OP_ZERO:
		rc = zero_range(&op, k & 1);
		break;
	case OP_DISCARD:
		rc = ioctl(G.fd, BLKDISCARD, range);
		if (rc && errno == EOPNOTSUPP)
			rc = 0;
		break;
	}
	if (rc)
		die("thread %u op %" PRIu64 " (kind %d, sector %" PRIu64 "+%u): %s", t, k, op.kind, op.lba,
		    op.nr, strerror(errno));
	G.completed[t] = k;
	if (op.kind == OP_FUA) {
		from[t] = k - 1;
		upto[t] = k;
		mark_put(MARK_FUA, t, from, upto);
	}
}

static time_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

static bool breaks_seen(void)
{
	uint64_t nr;

	pthread_mutex_lock(&G.lock);
	nr = breaks_poll();
	pthread_mutex_unlock(&G.lock);
	return nr > 0;
}

static void *run_thread(void *arg)
{
	unsigned t = (uintptr_t)arg;
	char *buf;

	if (posix_memalign((void **)&buf, 4096, MAX_OP_SECTORS * SECTOR))
		die("no memory");
	while (now() < G.end && !(G.stop_at_break && breaks_seen()))
		do_op(t, G.submitted[t] + 1, buf);
	free(buf);
	return NULL;
}

static struct mark *marks_load(const char *path, size_t *ret_nr)
{
	int fd = open(path, O_RDONLY);
	struct stat st;
	struct mark *marks;
	char buf[SECTOR];

	*ret_nr = 0;
	if (fd < 0 || fstat(fd, &st))
		return NULL;
	marks = calloc(st.st_size / SECTOR + 1, sizeof(*marks));
	while (marks && read(fd, buf, SECTOR) == SECTOR) {
		memcpy(&marks[*ret_nr], buf, sizeof(*marks));
		if (marks[*ret_nr].magic != MAGIC || marks[*ret_nr].sum != mark_sum(&marks[*ret_nr]))
			die("%s: mark %zu is damaged", path, *ret_nr);
		++*ret_nr;
	}
	close(fd);
	return marks;
}

static int cmd_run(const char *dev, const char *marks_path, int seconds, bool watch)
{
	pthread_t threads[MAX_THREADS];
	struct stat st;
	uint64_t total = 0;

	G.fd = open(dev, O_RDWR | O_DIRECT);
	if (G.fd < 0 || fstat(G.fd, &st) || !S_ISBLK(st.st_mode))
		die("%s is not a block device that can be opened", dev);
	if (!G.nr_sectors && ioctl(G.fd, BLKGETSIZE64, &G.nr_sectors) == 0)
		G.nr_sectors /= SECTOR;
	if (watch) {
		G.kmsg_fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
		if (G.kmsg_fd < 0 || lseek(G.kmsg_fd, 0, SEEK_END) < 0)
			die("/dev/kmsg: %s", strerror(errno));
	}
	if (stat(marks_path, &st) == 0 && S_ISBLK(st.st_mode)) {
		G.marks_are_slots = true;
		G.marks_fd = open(marks_path, O_WRONLY | O_DIRECT);
	} else {
		size_t nr;
		struct mark *marks = marks_load(marks_path, &nr);

		/* A later round goes on where the last one ended; all of its operations may have been lost or
		 * not. */
		for (unsigned u = 0; nr && u < G.nr_threads; u++)
			G.submitted[u] = G.completed[u] = G.tainted[u] = marks[nr - 1].submitted[u];
		G.nr_marks = nr;
		free(marks);
		G.marks_fd = open(marks_path, O_WRONLY | O_CREAT | O_APPEND, 0644);
	}
	if (G.marks_fd < 0)
		die("%s: %s", marks_path, strerror(errno));
	G.last = calloc(G.nr_sectors, sizeof(*G.last));
	if (!G.last)
		die("no memory");
	if (G.nr_marks == 0)
		mark_put(MARK_START, 0, NULL, NULL);
	G.end = now() + seconds;
	for (uintptr_t t = 0; t < G.nr_threads; t++)
		if (pthread_create(&threads[t], NULL, run_thread, (void *)t))
			die("no thread");
	for (unsigned t = 0; t < G.nr_threads; t++)
		pthread_join(threads[t], NULL);
	do_flush(0);
	mark_put(MARK_END, 0, NULL, NULL);
	for (unsigned t = 0; t < G.nr_threads; t++)
		total += G.submitted[t];
	printf("ledger: %" PRIu64 " operations, %" PRIu64 " marks, %" PRIu64 " breaks\n", total, G.nr_marks,
	       G.nr_breaks);
	return 0;
}

/* check */

struct sector_account {
	uint64_t base;  /* newest durable operation that must show: 0 is none */
	uint64_t zeros; /* newest operation that may have left zeros */
};

static void account_durable(struct sector_account *acct, unsigned t, uint64_t k)
{
	struct op op = op_get(t, k);

	if (op.kind > OP_ZERO) /* a discard may do nothing, durable or not */
		return;
	for (uint32_t i = 0; i < op.nr; i++)
		if (acct[op.lba + i].base < k)
			acct[op.lba + i].base = k;
}

/*
 * The most that can have been submitted when mark `count` was not yet there: as that thread's second mark
 * after it says, for the first was perhaps made up before.
 */
static const uint64_t *submitted_limit(const struct mark *marks, size_t nr, size_t count)
{
	bool seen[MAX_THREADS] = {0};

	for (size_t i = count; i < nr; i++) {
		if (seen[marks[i].thread % MAX_THREADS])
			return marks[i].submitted;
		seen[marks[i].thread % MAX_THREADS] = true;
	}
	return marks[nr - 1].submitted;
}

static struct sector_account *account(const struct mark *marks, size_t nr, size_t count)
{
	struct sector_account *acct = calloc(G.nr_sectors, sizeof(*acct));
	const uint64_t *limit = submitted_limit(marks, nr, count);
	uint64_t done[MAX_THREADS] = {0};

	if (!acct)
		die("no memory");
	for (size_t i = 0; i < count; i++)
		for (unsigned t = 0; t < G.nr_threads; t++) {
			uint64_t k = marks[i].from[t];

			if (marks[i].kind == MARK_FLUSH && k < done[t])
				k = done[t];
			for (; k < marks[i].upto[t]; k++)
				account_durable(acct, t, k + 1);
			if (marks[i].kind == MARK_FLUSH && done[t] < k)
				done[t] = k;
		}
	for (unsigned t = 0; t < G.nr_threads; t++)
		for (uint64_t k = 1; k <= limit[t]; k++) {
			struct op op = op_get(t, k);

			for (uint32_t i = 0; (op.kind == OP_ZERO || op.kind == OP_DISCARD) && i < op.nr; i++)
				acct[op.lba + i].zeros = k;
		}
	return acct;
}

/* Why a sector's contents are wrong, or NULL. */
static const char *judge(const char *buf, uint64_t lba, const struct sector_account *a, unsigned *ret_t,
			 uint64_t *ret_k)
{
	struct op op;
	int what = sector_parse(buf, lba, ret_t, ret_k);

	if (what < 0)
		return "foreign bytes";
	if (what == 0)
		return a->base == 0 || a->zeros >= a->base ? NULL : "zeros where data was durable";
	op = op_get(*ret_t, *ret_k);
	if (op.kind > OP_FUA || lba < op.lba || lba - op.lba >= op.nr)
		return "an operation that never wrote here";
	return *ret_k >= a->base ? NULL : "older data than what was durable";
}

static int cmd_check(const char *dev, const char *marks_path, size_t count, uint64_t offset)
{
	size_t nr;
	struct mark *marks = marks_load(marks_path, &nr);
	struct stat st;
	int fd = open(dev, O_RDONLY | (stat(dev, &st) == 0 && S_ISBLK(st.st_mode) ? O_DIRECT : 0));
	struct sector_account *acct;
	uint64_t bad = 0, must = 0;
	enum { CHUNK = 2048 };
	char *buf;

	if (fd < 0 || posix_memalign((void **)&buf, 4096, CHUNK * SECTOR))
		die("%s: %s", dev, strerror(errno));
	if (nr == 0)
		die("%s has no marks", marks_path);
	if (count > nr)
		count = nr;
	G.seed = marks[0].seed;
	G.nr_sectors = marks[0].nr_sectors;
	G.nr_threads = marks[0].nr_threads;
	acct = account(marks, nr, count);
	for (uint64_t lba = 0; lba < G.nr_sectors; lba++) {
		unsigned t = 0;
		uint64_t k = 0;
		const char *why;

		if (lba % CHUNK == 0) {
			uint64_t len = (G.nr_sectors - lba < CHUNK ? G.nr_sectors - lba : CHUNK) * SECTOR;

			if (pread(fd, buf, len, offset + lba * SECTOR) != (ssize_t)len)
				die("%s: reading sector %" PRIu64 ": %s", dev, lba, strerror(errno));
		}
		must += acct[lba].base != 0;
		why = judge(buf + lba % CHUNK * SECTOR, lba, &acct[lba], &t, &k);
		if (!why)
			continue;
		if (bad++ < 5)
			printf("ledger: sector %" PRIu64 ": %s (found %u/%" PRIu64 ", durable %" PRIu64
			       ", zeros %" PRIu64 ")\n",
			       lba, why, t, k, acct[lba].base, acct[lba].zeros);
	}
	printf("ledger: %zu marks, %" PRIu64 " sectors with durable data, %" PRIu64 " wrong\n", count, must,
	       bad);
	return bad != 0;
}

int main(int argc, char **argv)
{
	const char *marks = NULL;
	uint64_t offset = 0;
	size_t count = SIZE_MAX;
	int seconds = 10, o;
	bool watch = false;

	G.seed = 1;
	G.nr_threads = 4;
	while ((o = getopt(argc, argv, "m:s:t:r:z:n:o:wbx")) != -1) {
		uint64_t v = optarg ? strtoull(optarg, NULL, 0) : 0;

		switch (o) {
		case 'm':
			marks = optarg;
			break;
		case 's':
			G.seed = v;
			break;
		case 't':
			G.nr_threads = v;
			break;
		case 'r':
			seconds = v;
			break;
		case 'z':
			G.nr_sectors = v / SECTOR;
			break;
		case 'n':
			count = v;
			break;
		case 'o':
			offset = v;
			break;
		case 'b':
			G.stop_at_break = true;
			break;
		case 'x':
			G.strict = true;
			break;
		case 'w':
			watch = true;
			break;
		default:
			return 2;
		}
	}
	if (argc - optind != 2 || !marks || G.nr_threads < 1 || G.nr_threads > MAX_THREADS)
		die("usage: ledger -m MARKS [-s seed] [-t threads] [-r seconds] [-z bytes] [-w [-b] [-x]] "
		    "run "
		    "DEVICE\n"
		    "       ledger -m MARKS [-n first marks only] [-o byte offset] check DEVICE");
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (strcmp(argv[optind], "run") == 0)
		return cmd_run(argv[optind + 1], marks, seconds, watch);
	if (strcmp(argv[optind], "check") == 0)
		return cmd_check(argv[optind + 1], marks, count, offset);
	die("unknown command %s", argv[optind]);
}
