/*
 * SGL descriptors as NVMe/TCP allows them (data in the capsule at an offset, or data that the transport moves), and slices of
 * scatter lists.
 */
#include "transport/tcp/internal.h"

unsigned iov_slice(const struct iovec *iov, unsigned iovcnt, uint32_t offset, uint32_t len, struct iovec *ret_iov)
{
	unsigned n = 0;

	for (unsigned i = 0; i < iovcnt && len > 0; i++) {
		uint32_t here;

		if (offset >= iov[i].iov_len) {
			offset -= iov[i].iov_len;
			continue;
		}
		here = iov[i].iov_len - offset;
		if (here > len)
			here = len;
		ret_iov[n].iov_base = (uint8_t *)iov[i].iov_base + offset;
		ret_iov[n++].iov_len = here;
		len -= here;
		offset = 0;
	}
	return n;
}

uint16_t sgl_parse(const struct nvme_sgl *sgl, bool from_host, uint32_t capsule_len, bool *ret_in_capsule,
		   uint32_t *ret_offset, uint32_t *ret_len)
{
	*ret_in_capsule = false;
	*ret_offset = 0;
	*ret_len = sgl->len;
	if (sgl->type == NVME_SGL_TRANSPORT)
		return NVME_SC_SUCCESS;
	if (sgl->type != NVME_SGL_IN_CAPSULE || !from_host)
		return NVME_SC_SGL_TYPE_INVALID;
	if (sgl->addr > capsule_len)
		return NVME_SC_SGL_OFFSET_INVALID;
	if (sgl->len > capsule_len - (uint32_t)sgl->addr)
		return NVME_SC_SGL_LENGTH_INVALID;
	*ret_in_capsule = true;
	*ret_offset = (uint32_t)sgl->addr;
	return NVME_SC_SUCCESS;
}
