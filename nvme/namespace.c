/* Finding namespaces, and what one must know of a namespace to read and write it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/internal.h"

#define MAX_XFER_BLOCKS	 65536u /* NLB has sixteen bits */
#define NVME_VERSION_1_3 0x10300u

fiber_fn int nvme_ns_list(struct nvme_ctrlr *ctrlr, uint32_t nsid, uint32_t *ret_nsids, unsigned max)
{
	struct nvme_ns_list *list = malloc(sizeof(*list));
	unsigned nr = 0, got = 1024;
	int rc = 0;

	if (!list)
		return -ENOMEM;
	while (nr < max && got == 1024) {
		rc = nvme_identify(ctrlr, NVME_CNS_ACTIVE_NS_LIST, nsid, 0, list);
		if (rc)
			break;
		for (got = 0; got < 1024 && nr < max && list->nsid[got]; got++) {
			/* A list that does not ascend would have no end. */
			if (list->nsid[got] <= nsid) {
				rc = -EPROTO;
				goto out;
			}
			nsid = ret_nsids[nr++] = list->nsid[got];
		}
	}
out:
	free(list);
	if (rc > 0)
		rc = nvme_status_to_errno((uint16_t)rc);
	return rc ? rc : (int)nr;
}

/* The descriptors are a list of lengths that the target made: every one is compared with what is left of the
 * page. */
static void read_descriptors(struct nvme_ns *ns, const uint8_t *page, uint8_t *ret_csi)
{
	for (uint32_t at = 0; NVME_IDENTIFY_SIZE - at >= sizeof(struct nvme_ns_id_descriptor);) {
		uint8_t type = page[at], len = page[at + 1];

		at += sizeof(struct nvme_ns_id_descriptor);
		if (!len || len > NVME_IDENTIFY_SIZE - at)
			return;
		if (type == NVME_NIDT_UUID && len == sizeof(ns->uuid)) {
			memcpy(ns->uuid, page + at, len);
			ns->has_uuid = true;
		} else if (type == NVME_NIDT_EUI64 && len == sizeof(ns->eui64)) {
			memcpy(ns->eui64, page + at, len);
		} else if (type == NVME_NIDT_CSI && len == 1) {
			*ret_csi = page[at];
		} else if (type == NVME_NIDT_NGUID && len == sizeof(ns->nguid)) {
			memcpy(ns->nguid, page + at, len);
		}
		at += len;
	}
}

static int check_id(const struct nvme_id_ns *id, uint32_t nsid, struct nvme_error *error)
{
	uint8_t lbads = id->lbaf[NVME_FLBAS_INDEX(id->flbas)].lbads;

	if (!id->nsze) {
		nvme_error_set(error, -ENODEV, 0, "namespace %u is not active: see what nvme identify lists",
			       nsid);
		return -ENODEV;
	}
	if (lbads < 9 || lbads > 16) {
		nvme_error_set(error, -ENOTSUP, 0,
			       "namespace %u has blocks of 2^%u bytes, which this initiator does not know",
			       nsid, lbads);
		return -ENOTSUP;
	}
	if (id->lbaf[NVME_FLBAS_INDEX(id->flbas)].ms) {
		nvme_error_set(error, -ENOTSUP, 0,
			       "namespace %u has metadata, which this initiator does not do", nsid);
		return -ENOTSUP;
	}
	return 0;
}

static int identify_error(struct nvme_ctrlr *ctrlr, int rc, uint32_t nsid, struct nvme_error *error)
{
	if (rc < 0) {
		if (nvme_qpair_is_live(ctrlr->admin))
			nvme_error_set(error, rc, 0, "identifying namespace %u: %s", nsid, strerror(-rc));
		else
			*error = *nvme_qpair_error(ctrlr->admin);
		return rc;
	}
	nvme_error_set(error, nvme_status_to_errno((uint16_t)rc), (uint16_t)rc,
		       "Identify of namespace %u: %s (%03xh)", nsid, nvme_status_name((uint16_t)rc),
		       nvme_status_code((uint16_t)rc));
	return error->err;
}

static bool is_zero(const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (bytes[i])
			return false;
	}
	return true;
}

/* Who it is.  Controllers from before version 1.3 have no descriptors: what they know is in the namespace's Identify. */
static fiber_fn int read_identity(struct nvme_ctrlr *ctrlr, struct nvme_ns *ns, struct nvme_error *error)
{
	uint8_t *page = malloc(NVME_IDENTIFY_SIZE), csi = NVME_CSI_NVM;
	int rc;

	if (!page) {
		nvme_error_set(error, -ENOMEM, 0, "no memory for what identifies namespace %u", ns->nsid);
		return -ENOMEM;
	}
	memcpy(ns->nguid, ns->id.nguid, sizeof(ns->nguid));
	memcpy(ns->eui64, ns->id.eui64, sizeof(ns->eui64));
	rc = nvme_identify(ctrlr, NVME_CNS_NS_ID_DESCRIPTORS, ns->nsid, 0, page);
	if (!rc)
		read_descriptors(ns, page, &csi);
	free(page);
	if (rc < 0 || (rc > 0 && nvme_status_code((uint16_t)rc) != NVME_SC_INVALID_FIELD && ctrlr->vs >= NVME_VERSION_1_3))
		return identify_error(ctrlr, rc, ns->nsid, error);
	if (csi != NVME_CSI_NVM) {
		nvme_error_set(error, -ENOTSUP, 0,
			       "namespace %u has I/O command set %u: this initiator does the NVM command set alone", ns->nsid, csi);
		return -ENOTSUP;
	}
	ns->has_nguid = !is_zero(ns->nguid, sizeof(ns->nguid));
	ns->has_eui64 = !is_zero(ns->eui64, sizeof(ns->eui64));
	return 0;
}

fiber_fn int nvme_ns_open(struct nvme_ctrlr *ctrlr, uint32_t nsid, struct nvme_ns *ret_ns,
			  struct nvme_error *error)
{
	struct nvme_ns *ns = ret_ns;
	struct nvme_error scratch;
	int rc;

	error = error ? error : &scratch;
	*ns = (struct nvme_ns){.nsid = nsid};
	if (!nsid) {
		rc = nvme_ns_list(ctrlr, 0, &ns->nsid, 1);
		if (rc < 0)
			return identify_error(ctrlr, rc, 0, error);
		if (rc == 0) {
			nvme_error_set(error, -ENODEV, 0, "%s has no namespace: add one to the subsystem",
				       ctrlr_name(ctrlr));
			return -ENODEV;
		}
	}
	rc = nvme_identify(ctrlr, NVME_CNS_NS, ns->nsid, 0, &ns->id);
	if (rc)
		return identify_error(ctrlr, rc, ns->nsid, error);
	rc = check_id(&ns->id, ns->nsid, error);
	if (rc)
		return rc;
	ns->block_size = 1u << ns->id.lbaf[NVME_FLBAS_INDEX(ns->id.flbas)].lbads;
	ns->nr_blocks = ns->id.nsze;
	ns->max_xfer_blocks = nvme_ctrlr_max_xfer_bytes(ctrlr) / ns->block_size;
	if (ns->max_xfer_blocks > MAX_XFER_BLOCKS)
		ns->max_xfer_blocks = MAX_XFER_BLOCKS;
	return read_identity(ctrlr, ns, error);
}
