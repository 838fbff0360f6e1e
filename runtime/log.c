/* The log: formats one line an event and writes it with one system call, so that lines of threads never mix. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/internal.h"

#define LINE_MAX_LEN 2048

enum log_level log_threshold = LOG_NOTICE;

static const char *const level_names[] = {
	[LOG_ERROR] = "ERROR", [LOG_WARNING] = "WARNING", [LOG_NOTICE] = "NOTICE",
	[LOG_INFO] = "INFO",   [LOG_DEBUG] = "DEBUG",
};

#define NR_LEVELS (sizeof(level_names) / sizeof(level_names[0]))

void log_set_level(enum log_level level)
{
	__atomic_store_n(&log_threshold, level, __ATOMIC_RELAXED);
}

enum log_level log_get_level(void)
{
	return __atomic_load_n(&log_threshold, __ATOMIC_RELAXED);
}

const char *log_level_name(enum log_level level)
{
	return (unsigned)level < NR_LEVELS ? level_names[level] : "?";
}

int log_level_from_name(const char *name, enum log_level *ret_level)
{
	for (unsigned i = 0; i < NR_LEVELS; i++) {
		if (!strcmp(name, level_names[i])) {
			*ret_level = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

/* The last two parts of a path: room and file. */
static const char *short_path(const char *file)
{
	const char *slash = strrchr(file, '/');

	while (slash && slash > file && slash[-1] != '/')
		slash--;
	return slash ? slash : file;
}

static size_t format_time(char *buf, size_t size)
{
	uint64_t now_ms = clock_wall_ms();
	time_t seconds = (time_t)(now_ms / 1000);
	struct tm tm;
	size_t len;

	gmtime_r(&seconds, &tm);
	len = strftime(buf, size, "%Y-%m-%dT%H:%M:%S", &tm);
	return len + (size_t)snprintf(buf + len, size - len, ".%03uZ", (unsigned)(now_ms % 1000));
}

/* Control characters of a peer's making would forge lines: each becomes a question mark. */
static void make_printable(char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
			text[i] = '?';
	}
}

void log_write(enum log_level level, const char *file, int line, const char *fmt, ...)
{
	int saved_errno = errno;
	const char *thread = thread_running ? thread_running->name : "-";
	char buf[LINE_MAX_LEN];
	size_t len = format_time(buf, sizeof(buf)), start;
	va_list args;
	int n;

	n = snprintf(buf + len, sizeof(buf) - len, " %-7s %s:%d [%s] ", log_level_name(level), short_path(file), line,
		     thread);
	start = len += (size_t)n;
	va_start(args, fmt);
	n = vsnprintf(buf + len, sizeof(buf) - len, fmt, args);
	va_end(args);
	if (n > 0)
		len += (size_t)n;
	if (len > sizeof(buf) - 2)
		len = sizeof(buf) - 2;
	make_printable(buf + start, len - start);
	buf[len++] = '\n';
	while (write(STDERR_FILENO, buf, len) < 0 && errno == EINTR)
		;
	errno = saved_errno;
}
