/* The log: one line an event, to standard error (and the journal through it), with time, level, room and thread. */
#ifndef RUNTIME_LOG_H
#define RUNTIME_LOG_H

enum log_level { LOG_ERROR, LOG_WARNING, LOG_NOTICE, LOG_INFO, LOG_DEBUG };

/* Thread: any.  Names as SPDK's: ERROR WARNING NOTICE INFO DEBUG. */
void log_set_level(enum log_level level); /* default LOG_NOTICE */
enum log_level log_get_level(void);
const char *log_level_name(enum log_level level);
int log_level_from_name(const char *name, enum log_level *ret_level); /* 0 or -EINVAL; case-sensitive */

void log_write(enum log_level level, const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

extern enum log_level log_threshold; /* read only through log_at */

#define log_at(level, ...) \
	do { \
		if (__builtin_expect((level) <= log_threshold, 0)) \
			log_write(level, __FILE__, __LINE__, __VA_ARGS__); \
	} while (0)
#define log_error(...)	 log_at(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_at(LOG_WARNING, __VA_ARGS__)
#define log_notice(...)	 log_at(LOG_NOTICE, __VA_ARGS__)
#define log_info(...)	 log_at(LOG_INFO, __VA_ARGS__)
#define log_debug(...)	 log_at(LOG_DEBUG, __VA_ARGS__)

#endif
