/* CRC32C, for NVMe/TCP digests and for everything on disk, from ISA-L's fastest version for the processor. */
#ifndef NVME_CRC32C_H
#define NVME_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* The whole of it: initial value all ones, inverted at the end.  crc32c("123456789", 9) is E3069283h. */
uint32_t crc32c(const void *buf, size_t len_bytes);

/*
 * In parts: crc = crc32c_begin(); crc = crc32c_more(crc, …) as often as need be; crc32c_end(crc).  Thread:
 * any.
 */
static inline uint32_t crc32c_begin(void)
{
	return 0xffffffffu;
}

uint32_t crc32c_more(uint32_t crc, const void *buf, size_t len_bytes);
uint32_t crc32c_more_iov(uint32_t crc, const struct iovec *iov, unsigned iovcnt, size_t len_bytes);

static inline uint32_t crc32c_end(uint32_t crc)
{
	return ~crc;
}

#endif
