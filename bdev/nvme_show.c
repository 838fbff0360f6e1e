/* What others see of controllers, paths and namespaces; all of it on the app thread. */
#include <errno.h>
#include <string.h>

#include "bdev/nvme_internal.h"

bool bdev_nvme_path(const struct bdev_nvme_ctrlr *ctrlr, unsigned idx, struct bdev_nvme_path_info *ret_info)
{
	const struct bdev_nvme_path *path = idx < BDEV_NVME_MAX_PATHS ? ctrlr->paths[idx] : NULL;

	if (!path)
		return false;
	*ret_info = (struct bdev_nvme_path_info){
		.state = path->state,
		.connect = &path->opts.connect,
		.address = path->opts.address,
		.nr_resets = path->nr_resets,
		.error = path->error.text,
		.cntlid = path->cntlid,
	};
	if (path->nvme && path->state == BDEV_NVME_LIVE) {
		ret_info->id = nvme_ctrlr_id(path->nvme);
		ret_info->vs = nvme_ctrlr_vs(path->nvme);
	}
	return true;
}

struct bdev_nvme_ctrlr *bdev_nvme_of(const struct bdev *bdev, uint32_t *ret_nsid)
{
	const struct bdev_nvme_ns *ns;

	if (!bdev->module || strcmp(bdev->module, "nvme"))
		return NULL;
	ns = container_of(bdev, struct bdev_nvme_ns, bdev);
	*ret_nsid = ns->ns.nsid;
	return ns->ctrlr;
}

const struct nvme_ns *bdev_nvme_ns_of(const struct bdev *bdev)
{
	uint32_t nsid;

	return bdev_nvme_of(bdev, &nsid) ? &container_of((struct bdev *)(uintptr_t)bdev, struct bdev_nvme_ns, bdev)->ns : NULL;
}

const char *bdev_nvme_access_name(const struct bdev *bdev, unsigned path_idx)
{
	const struct bdev_nvme_ns *ns = container_of((struct bdev *)(uintptr_t)bdev, struct bdev_nvme_ns, bdev);

	switch (path_idx < BDEV_NVME_MAX_PATHS ? ns->access[path_idx] : ACCESS_NONE) {
	case ACCESS_OPTIMIZED:
		return "optimized";
	case ACCESS_NON_OPTIMIZED:
		return "non_optimized";
	default:
		return "inaccessible";
	}
}

enum bdev_nvme_multipath bdev_nvme_policy(const struct bdev_nvme_ctrlr *ctrlr)
{
	return ctrlr->multipath;
}

int bdev_nvme_set_policy(struct bdev_nvme_ctrlr *ctrlr, enum bdev_nvme_multipath policy)
{
	if (policy == BDEV_NVME_SINGLE || ctrlr->multipath == BDEV_NVME_SINGLE)
		return -EINVAL;
	__atomic_store_n(&ctrlr->multipath, policy, __ATOMIC_RELAXED);
	return 0;
}
