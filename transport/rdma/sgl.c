/*
 * SGLs as NVMe/RDMA allows them: one keyed descriptor, a list of them in the capsule, or data in the capsule; and their cutting
 * into pieces of work that the device can do.
 *
 * Nothing here believes a number: offsets and lengths are compared by subtraction, and lists are bounded before they are read.
 */
#include <string.h>

#include "transport/rdma/internal.h"

static uint16_t add_descriptor(struct rdma_sgl *sgl, const struct nvme_keyed_sgl *keyed)
{
	struct rdma_descriptor *d = &sgl->descriptors[sgl->nr];

	d->addr = keyed->addr;
	d->len = nvme_keyed_sgl_len(keyed);
	d->key = nvme_keyed_sgl_key(keyed);
	if (d->addr > UINT64_MAX - d->len)
		return NVME_SC_SGL_LENGTH_INVALID;
	if (keyed->type == NVME_SGL_KEYED_INVALIDATE && !sgl->invalidate) {
		sgl->invalidate = true;
		sgl->invalidate_key = d->key;
	}
	sgl->len += d->len; /* sixteen times 24 bits */
	if (d->len)
		sgl->nr++;
	return NVME_SC_SUCCESS;
}

static bool is_keyed(uint8_t type)
{
	return type == NVME_SGL_KEYED || type == NVME_SGL_KEYED_INVALIDATE;
}

/* The capsule's data holds the list; what came may be unaligned, so each is copied. */
static uint16_t parse_list(const struct nvme_sgl *list, const uint8_t *capsule, uint32_t capsule_len, struct rdma_sgl *sgl)
{
	uint32_t nr = list->len / sizeof(struct nvme_keyed_sgl);

	if (!nr || list->len % sizeof(struct nvme_keyed_sgl))
		return NVME_SC_INVALID_SGL_SEGMENT;
	if (list->addr > capsule_len)
		return NVME_SC_SGL_OFFSET_INVALID;
	if (list->len > capsule_len - (uint32_t)list->addr)
		return NVME_SC_INVALID_SGL_SEGMENT;
	if (nr > RDMA_MAX_DESCRIPTORS)
		return NVME_SC_INVALID_SGL_COUNT;
	for (uint32_t i = 0; i < nr; i++) {
		struct nvme_keyed_sgl keyed;
		uint16_t status;

		memcpy(&keyed, capsule + list->addr + i * sizeof(keyed), sizeof(keyed));
		status = is_keyed(keyed.type) ? add_descriptor(sgl, &keyed) : NVME_SC_SGL_TYPE_INVALID;
		if (status != NVME_SC_SUCCESS)
			return status;
	}
	return NVME_SC_SUCCESS;
}

uint16_t rdma_sgl_parse(const union nvme_cmd *cmd, const void *capsule, uint32_t capsule_len, struct rdma_sgl *ret_sgl)
{
	const struct nvme_sgl *sgl = &cmd->sgl;

	ret_sgl->len = 0;
	ret_sgl->nr = 0;
	ret_sgl->in_capsule = ret_sgl->invalidate = false;
	if (is_keyed(sgl->type))
		return add_descriptor(ret_sgl, &cmd->keyed_sgl);
	if (sgl->type == NVME_SGL_LIST_IN_CAPSULE)
		return parse_list(sgl, capsule, capsule_len, ret_sgl);
	if (sgl->type != NVME_SGL_IN_CAPSULE)
		return NVME_SC_SGL_TYPE_INVALID;
	if (sgl->addr > capsule_len)
		return NVME_SC_SGL_OFFSET_INVALID;
	if (sgl->len > capsule_len - (uint32_t)sgl->addr)
		return NVME_SC_SGL_LENGTH_INVALID;
	ret_sgl->in_capsule = true;
	ret_sgl->offset = (uint32_t)sgl->addr;
	ret_sgl->len = sgl->len;
	return NVME_SC_SUCCESS;
}

static uint32_t min3(uint32_t a, uint32_t b, uint32_t c)
{
	a = a < b ? a : b;
	return a < c ? a : c;
}

void rdma_sgl_next_work(const struct rdma_sgl *sgl, const struct iovec *iov, struct rdma_cursor *at, uint32_t max_sge,
		   uint32_t max_bytes, uint32_t lkey, struct rnic_send *send)
{
	const struct rdma_descriptor *d = &sgl->descriptors[at->descriptor];
	uint32_t room = min3(d->len - at->descriptor_offset, at->left, max_bytes);

	send->remote_addr = d->addr + at->descriptor_offset;
	send->remote_key = d->key;
	send->nr_sge = 0;
	while (room && send->nr_sge < max_sge) {
		const struct iovec *here = &iov[at->iov];
		uint32_t n = min3(room, (uint32_t)here->iov_len - at->iov_offset, UINT32_MAX);

		send->sge[send->nr_sge++] =
			(struct rnic_sge){ (uintptr_t)here->iov_base + at->iov_offset, n, lkey };
		room -= n;
		at->left -= n;
		at->descriptor_offset += n;
		at->iov_offset += n;
		if (at->iov_offset == here->iov_len) {
			at->iov++;
			at->iov_offset = 0;
		}
	}
	if (at->descriptor_offset == d->len) {
		at->descriptor++;
		at->descriptor_offset = 0;
	}
}
