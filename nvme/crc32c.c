/* CRC32C through ISA-L, which picks the fastest version for the processor at run time. */
#include <isa-l/crc.h>
#include <limits.h>

#include "nvme/crc32c.h"

uint32_t crc32c_more(uint32_t crc, const void *buf, size_t len_bytes)
{
	unsigned char *p = (unsigned char *)(uintptr_t)buf; /* ISA-L's prototype lacks the const */

	while (len_bytes > INT_MAX) {
		crc = crc32_iscsi(p, 1 << 30, crc);
		p += 1 << 30;
		len_bytes -= 1 << 30;
	}
	return crc32_iscsi(p, (int)len_bytes, crc);
}

uint32_t crc32c(const void *buf, size_t len_bytes)
{
	return crc32c_end(crc32c_more(crc32c_begin(), buf, len_bytes));
}

uint32_t crc32c_more_iov(uint32_t crc, const struct iovec *iov, unsigned iovcnt, size_t len_bytes)
{
	for (unsigned i = 0; i < iovcnt && len_bytes; i++) {
		size_t len = iov[i].iov_len < len_bytes ? iov[i].iov_len : len_bytes;

		crc = crc32c_more(crc, iov[i].iov_base, len);
		len_bytes -= len;
	}
	return crc;
}
