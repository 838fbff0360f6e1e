/* Bytes that grow as they are appended to: what is collected before it is sent, written or parsed. */
#ifndef MGMT_TEXT_H
#define MGMT_TEXT_H

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Begins as all zero.  Owner: whoever has it; frees buf. */
struct text {
	char *buf;
	size_t len, size;
};

/* 0 or -ENOMEM, and then nothing has changed. */
static inline int text_append(struct text *t, const char *buf, size_t len)
{
	if (len > t->size - t->len) {
		size_t size = (t->len + len) * 2;
		char *grown = realloc(t->buf, size);

		if (!grown)
			return -ENOMEM;
		t->buf = grown;
		t->size = size;
	}
	memcpy(t->buf + t->len, buf, len);
	t->len += len;
	return 0;
}

#endif
