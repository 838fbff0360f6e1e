/*
 * Namespaces: what Identify says of one becomes a bdev's limits, honestly; a scan finds those that came, went or changed their
 * size.  Which path may be used for which: nvme_ana.c.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/leaf.h"
#include "bdev/nvme_internal.h"

#define LIST_PIECE 1024
#define LIST_MAX   65536
#define NLB_MAX	   65536u

/* --- as a bdev ------------------------------------------------------------------------------------ */

static int ns_channel_create(struct bdev *bdev, void *ctx)
{
	struct bdev_nvme_ns_channel *ch = ctx;

	ch->ns = container_of(bdev, struct bdev_nvme_ns, bdev);
	ch->channel = channel_get(ch->ns->ctrlr);
	if (!ch->channel)
		return -ENOMEM;
	ch->nch = *(struct bdev_nvme_channel **)channel_ctx(ch->channel);
	return 0;
}

static void ns_channel_destroy(struct bdev *bdev, void *channel_ctx)
{
	bdev_nvme_stats_leave(channel_ctx);
	channel_put(((struct bdev_nvme_ns_channel *)channel_ctx)->channel);
}

static void ns_destroy(struct bdev *bdev)
{
	struct bdev_nvme_ns *ns = container_of(bdev, struct bdev_nvme_ns, bdev);

	bdev_destroy_done(bdev);
	list_del(&ns->link);
	if (list_empty(&ns->ctrlr->namespaces))
		fiber_cond_broadcast(&ns->ctrlr->gone);
	free(ns);
}

static const struct bdev_ops ns_ops = {
	.submit = bdev_nvme_submit,
	.destroy = ns_destroy,
	.channel_create = ns_channel_create,
	.channel_destroy = ns_channel_destroy,
	.channel_ctx_size = sizeof(struct bdev_nvme_ns_channel),
	.supported = OP_BIT(BDEV_READ) | OP_BIT(BDEV_WRITE),
};

/* --- limits --------------------------------------------------------------------------------------- */

/*
 * The unit that a power failure does not tear: the namespace's own when it has one, else the controller's; never more than a
 * boundary lets through, and one block where boundaries do not begin at block 0.
 * Source: NVM Command Set 1.0, 2.1.4 "Atomic Operation".
 */
static uint32_t atomic_blocks(const struct nvme_id_ctrlr *id, const struct nvme_id_ns *ns)
{
	uint32_t unit = id->awupf + 1u, boundary = 0;

	if (ns->nsfeat & NVME_NSFEAT_NSABP) {
		unit = ns->nawupf + 1u;
		boundary = ns->nabspf ? ns->nabspf + 1u : 0;
		if (boundary && ns->nabo)
			return 1;
	}
	if (boundary && boundary < unit)
		unit = boundary;
	/* Those above align to it: a power of two. */
	while (unit & (unit - 1))
		unit &= unit - 1;
	return unit;
}

/* A limit of so many pages, as a power of two, for a command with the usual count of blocks. */
static uint32_t limit_blocks(uint8_t power, unsigned page_shift, uint32_t block_size)
{
	uint64_t blocks;

	if (!power || power + page_shift >= 48)
		return NLB_MAX;
	blocks = (1ull << (power + page_shift)) / block_size;
	if (!blocks)
		return 1;
	return blocks < NLB_MAX ? (uint32_t)blocks : NLB_MAX;
}

/* Copies go out with one source range each; 0: the namespace takes none. */
static uint32_t copy_blocks(const struct nvme_id_ctrlr *id, const struct nvme_id_ns *ns)
{
	if (!(id->oncs & NVME_ONCS_COPY) || !(id->cdfs & NVME_CDFS_FORMAT_0))
		return 0;
	return ns->mssrl < ns->mcl ? ns->mssrl : ns->mcl;
}

/* What commands without data take; a controller that does not say has no limit but the fields' own. */
static fiber_fn void read_limits(struct bdev_nvme_path *path, struct bdev_nvme_ns *ns)
{
	struct nvme_id_ctrlr_nvm *nvm = calloc(1, sizeof(*nvm));
	unsigned page_shift = 12 + (unsigned)((nvme_ctrlr_cap(path->nvme) >> NVME_CAP_MPSMIN_SHIFT) & 0xf);
	uint32_t bs = ns->bdev.block_size;

	ns->max_zeroes_blocks = ns->max_verify_blocks = NLB_MAX;
	ns->max_unmap_blocks = 1u << 30;
	if (nvm && !nvme_identify(path->nvme, NVME_CNS_IOCS_CTRLR, 0, NVME_CSI_NVM, nvm)) {
		ns->max_zeroes_blocks = limit_blocks(nvm->wzsl, page_shift, bs);
		ns->max_verify_blocks = limit_blocks(nvm->vsl, page_shift, bs);
		if (nvm->dmrsl && nvm->dmrsl < ns->max_unmap_blocks)
			ns->max_unmap_blocks = nvm->dmrsl;
	}
	free(nvm);
}

static void set_identity(struct bdev_nvme_ns *ns, const struct nvme_id_ctrlr *id)
{
	static const uuid_t space = { 0x9e, 0x51, 0x3f, 0x02, 0x6a, 0x77, 0x45, 0x1c,
				      0x8d, 0x0e, 0x2b, 0x94, 0xc3, 0x18, 0xe5, 0x60 };
	static const uint8_t none[16];
	char text[128];

	if (ns->ns.has_uuid && memcmp(ns->ns.uuid, none, 16)) {
		memcpy(ns->bdev.uuid, ns->ns.uuid, 16);
	} else if (ns->ns.has_nguid && memcmp(ns->ns.nguid, none, 16)) {
		memcpy(ns->bdev.uuid, ns->ns.nguid, 16);
	} else {
		snprintf(text, sizeof(text), "%.20s:%.40s:%u", id->sn, id->mn, ns->ns.nsid);
		uuid_generate_sha1(ns->bdev.uuid, space, text, strlen(text));
	}
}

/* QEMU 7.2's drive completes writes with FUA as it does others (doc/nvme.md). */
static bool ignores_fua(const struct nvme_id_ctrlr *id)
{
	static const char model[] = "QEMU NVMe Ctrl";

	return !memcmp(id->mn, model, sizeof(model) - 1);
}

static fiber_fn void describe(struct bdev_nvme_path *path, struct bdev_nvme_ns *ns)
{
	const struct nvme_id_ctrlr *id = nvme_ctrlr_id(path->nvme);
	const struct nvme_id_ns *nid = &ns->ns.id;
	bool optperf = nid->nsfeat & NVME_NSFEAT_OPTPERF;

	ns->bdev.product_name = "NVMe disk";
	ns->bdev.module = "nvme";
	ns->bdev.block_size = ns->ns.block_size;
	ns->bdev.nr_blocks = ns->ns.nr_blocks;
	ns->bdev.write_unit_blocks = atomic_blocks(id, nid);
	ns->bdev.optimal_blocks = optperf ? nid->npwg + 1u : nid->noiob;
	ns->bdev.unmap_granularity_blocks = optperf ? nid->npdg + 1u : 0;
	ns->bdev.has_write_cache = id->vwc & NVME_VWC_PRESENT;
	ns->bdev.unmap_zeroes = false; /* Dataset Management is a hint: what it leaves alone reads as before */
	ns->bdev.read_only = nid->nsattr & NVME_NSATTR_WRITE_PROTECTED;
	ns->bdev.thin = nid->nsfeat & NVME_NSFEAT_THIN;
	ns->max_blocks = ns->ns.max_xfer_blocks ? ns->ns.max_xfer_blocks : 1;
	ns->boundary_blocks = nid->noiob;
	ns->zeroes_deac = nid->dlfeat & NVME_DLFEAT_WZ_DEAC;
	ns->no_fua = ignores_fua(id);
	ns->ops = ns_ops;
	if (ns->bdev.has_write_cache)
		ns->ops.supported |= OP_BIT(BDEV_FLUSH);
	if (id->oncs & NVME_ONCS_DSM)
		ns->ops.supported |= OP_BIT(BDEV_UNMAP);
	if (id->oncs & NVME_ONCS_WRITE_ZEROES)
		ns->ops.supported |= OP_BIT(BDEV_WRITE_ZEROES);
	if (id->oncs & NVME_ONCS_COMPARE)
		ns->ops.supported |= OP_BIT(BDEV_COMPARE);
	if (id->oncs & NVME_ONCS_VERIFY)
		ns->ops.supported |= OP_BIT(BDEV_VERIFY);
	ns->max_copy_blocks = copy_blocks(id, nid);
	if (ns->max_copy_blocks)
		ns->ops.supported |= OP_BIT(BDEV_COPY);
	ns->bdev.ops = &ns->ops;
	set_identity(ns, id);
	read_limits(path, ns);
}

/* --- scanning ------------------------------------------------------------------------------------- */

static struct bdev_nvme_ns *find_ns(struct bdev_nvme_ctrlr *ctrlr, uint32_t nsid)
{
	struct list *it;

	list_for_each(it, &ctrlr->namespaces) {
		struct bdev_nvme_ns *ns = list_entry(it, struct bdev_nvme_ns, link);

		if (ns->ns.nsid == nsid && !ns->unregistering)
			return ns;
	}
	return NULL;
}

static void ns_unregister(struct bdev_nvme_ns *ns)
{
	ns->unregistering = true;
	log_notice("%s: the namespace is gone", ns->bdev.name);
	bdev_unregister(&ns->bdev, NULL, NULL);
}

/* The others are scanning, too: one that was made known meanwhile is left to them. */
static fiber_fn void add_ns(struct bdev_nvme_path *path, const struct nvme_ns *found)
{
	const struct nvme_id_ctrlr *id = nvme_ctrlr_id(path->nvme);
	struct bdev_nvme_ctrlr *ctrlr = path->ctrlr;
	struct bdev_nvme_ns *ns = calloc(1, sizeof(*ns));
	int rc = -ENOMEM;

	if (ns) {
		ns->ns = *found;
		ns->ctrlr = ctrlr;
		ns->seen[path->idx] = true;
		memcpy(ns->serial, id->sn, sizeof(ns->serial));
		memcpy(ns->model, id->mn, sizeof(ns->model));
		snprintf(ns->bdev.name, sizeof(ns->bdev.name), "%.200sn%u", ctrlr->name, found->nsid);
		describe(path, ns);
		rc = leaf_check(ns->bdev.name, ns->bdev.nr_blocks, ns->bdev.block_size);
	}
	if (!rc && find_ns(ctrlr, found->nsid))
		rc = -EEXIST;
	if (!rc) {
		ns->access[path->idx] = bdev_nvme_ana_access(path, found);
		list_add_tail(&ctrlr->namespaces, &ns->link);
		rc = bdev_register(&ns->bdev);
		if (rc)
			list_del(&ns->link);
	}
	if (!rc)
		return;
	/* Another path has just added it, or its predecessor is not gone yet: its openers are closing. */
	if (rc == -EEXIST)
		path->look_again = true;
	else
		log_error("%sn%u: the namespace cannot be shown: %s", ctrlr->name, found->nsid, strerror(-rc));
	free(ns);
}

/* The same namespace as before, by what it says of itself; one that says nothing is that of the same drive. */
static bool is_same(const struct bdev_nvme_path *path, const struct bdev_nvme_ns *ns, const struct nvme_ns *found)
{
	const struct nvme_id_ctrlr *id = nvme_ctrlr_id(path->nvme);
	const struct nvme_ns *known = &ns->ns;

	if (known->block_size != found->block_size || known->has_uuid != found->has_uuid ||
	    known->has_nguid != found->has_nguid || known->has_eui64 != found->has_eui64)
		return false;
	if (!known->has_uuid && !known->has_nguid && !known->has_eui64)
		return !memcmp(ns->serial, id->sn, sizeof(ns->serial)) && !memcmp(ns->model, id->mn, sizeof(ns->model));
	return !memcmp(known->uuid, found->uuid, 16) && !memcmp(known->nguid, found->nguid, 16) &&
	       !memcmp(known->eui64, found->eui64, 8);
}

/* Whether another path than this shows the namespace. */
static bool elsewhere(const struct bdev_nvme_ns *ns, unsigned idx)
{
	for (unsigned i = 0; i < BDEV_NVME_MAX_PATHS; i++) {
		if (i != idx && ns->ctrlr->paths[i] && ns->ctrlr->paths[i]->accepting && ns->access[i])
			return true;
	}
	return false;
}

/*
 * Another namespace has the NSID now.  While other paths show the one that we know, it is this path that leads elsewhere; else what
 * we know is gone: its name is taken until its openers have closed, and a later scan adds the other.
 */
static void take_stranger(struct bdev_nvme_path *path, struct bdev_nvme_ns *ns)
{
	bool said = ns->strangers & 1u << path->idx;

	bdev_nvme_set_access(ns, path->idx, ACCESS_NONE);
	ns->strangers |= 1u << path->idx;
	path->look_again = true;
	if (!elsewhere(ns, path->idx)) {
		log_warning("%s: another namespace is there now", ns->bdev.name);
		ns_unregister(ns);
	} else if (!said) {
		log_error("%s: path %u has another namespace of this NSID: no I/O goes there", ns->bdev.name, path->idx);
	}
}

/* One that did not answer, or that we cannot show.  One that we have is listed, and so is there: it does not go for want of an answer. */
static void take_failure(struct bdev_nvme_path *path, uint32_t nsid, const struct nvme_error *error)
{
	struct bdev_nvme_ns *ns = find_ns(path->ctrlr, nsid);

	if (!ns || !ns->unanswered)
		log_warning("%sn%u: %s", path->ctrlr->name, nsid, error->text);
	if (ns && error->err == -ENOTSUP && !error->status)
		take_stranger(path, ns);
	if (ns)
		ns->seen[path->idx] = ns->unanswered = path->look_again = true;
}

static fiber_fn void take_ns(struct bdev_nvme_path *path, uint32_t nsid)
{
	struct bdev_nvme_ns *ns;
	struct nvme_ns found;
	struct nvme_error error;

	if (nvme_ns_open(path->nvme, nsid, &found, &error)) {
		take_failure(path, nsid, &error);
		return;
	}
	ns = find_ns(path->ctrlr, nsid);
	if (!ns) {
		add_ns(path, &found);
		return;
	}
	ns->seen[path->idx] = true;
	ns->unanswered = false;
	if (!is_same(path, ns, &found)) {
		take_stranger(path, ns);
		return;
	}
	ns->strangers &= ~(1u << path->idx);
	/* What is known of its access stays so: only one that is new here has it by the log. */
	if (!ns->access[path->idx])
		bdev_nvme_set_access(ns, path->idx, bdev_nvme_ana_access(path, &found));
	if (found.max_xfer_blocks && found.max_xfer_blocks < ns->max_blocks)
		ns->max_blocks = found.max_xfer_blocks;
	if (found.nr_blocks != ns->ns.nr_blocks) {
		log_notice("%s: %llu blocks, and were %llu", ns->bdev.name, (unsigned long long)found.nr_blocks,
			   (unsigned long long)ns->ns.nr_blocks);
		ns->ns.nr_blocks = found.nr_blocks;
		bdev_notify_resize(&ns->bdev, found.nr_blocks);
	}
}

/* What has changed is seen by the scan; reading the page lets the controller tell of the next change. */
static fiber_fn void read_changed(struct bdev_nvme_path *path)
{
	struct nvme_ns_list *list;

	if (!(nvme_ctrlr_id(path->nvme)->oaes & NVME_OAES_NS_ATTR))
		return;
	list = calloc(1, sizeof(*list));
	if (list)
		nvme_get_log(path->nvme, NVME_LID_CHANGED_NS, 0, NVME_NSID_ALL, 0, list, sizeof(*list));
	free(list);
}

/* All active namespaces' identifiers.  Return: their number, with *ret_nsids to be freed, or -errno. */
static fiber_fn int list_nsids(struct bdev_nvme_path *path, uint32_t **ret_nsids)
{
	uint32_t *nsids = NULL;
	int nr = 0, got;

	do {
		uint32_t *more = realloc(nsids, (nr + LIST_PIECE) * sizeof(*nsids));

		if (!more) {
			free(nsids);
			return -ENOMEM;
		}
		nsids = more;
		got = nvme_ns_list(path->nvme, nr ? nsids[nr - 1] : 0, nsids + nr, LIST_PIECE);
		if (got < 0) {
			free(nsids);
			return got;
		}
		nr += got;
	} while (got == LIST_PIECE && nr < LIST_MAX);
	if (got == LIST_PIECE)
		log_warning("%s: only its first %d namespaces are shown", path->ctrlr->name, nr);
	*ret_nsids = nsids;
	return nr;
}

/* Those that were not listed any more go, unless another path shows them. */
static void drop_unseen(struct bdev_nvme_path *path)
{
	struct list *it, *tmp;

	list_for_each_safe(it, tmp, &path->ctrlr->namespaces) {
		struct bdev_nvme_ns *ns = list_entry(it, struct bdev_nvme_ns, link);

		if (ns->seen[path->idx] || ns->unregistering)
			continue;
		bdev_nvme_set_access(ns, path->idx, ACCESS_NONE);
		if (!elsewhere(ns, path->idx))
			ns_unregister(ns);
	}
}

/* The access comes first: a scan takes its time, and I/O goes on by what is known of it. */
fiber_fn int bdev_nvme_scan(struct bdev_nvme_path *path)
{
	uint32_t *nsids;
	struct list *it;
	int nr;

	bdev_nvme_read_ana(path);
	read_changed(path);
	nr = list_nsids(path, &nsids);
	if (nr < 0)
		return nr;
	list_for_each(it, &path->ctrlr->namespaces)
		list_entry(it, struct bdev_nvme_ns, link)->seen[path->idx] = false;
	for (int i = 0; i < nr && nvme_qpair_is_live(nvme_ctrlr_admin(path->nvme)); i++) {
		take_ns(path, nsids[i]);
		bdev_nvme_attend(path);
	}
	free(nsids);
	if (!nvme_qpair_is_live(nvme_ctrlr_admin(path->nvme)))
		return -ENODEV; /* what was not seen may well be there */
	drop_unseen(path);
	if (path->ana_log)
		path->ana_asked = true; /* for those that came after it was read */
	return 0;
}

void bdev_nvme_path_access_none(struct bdev_nvme_path *path)
{
	struct list *it;

	list_for_each(it, &path->ctrlr->namespaces) {
		struct bdev_nvme_ns *ns = list_entry(it, struct bdev_nvme_ns, link);

		bdev_nvme_set_access(ns, path->idx, ACCESS_NONE);
	}
}

fiber_fn void bdev_nvme_unregister_all(struct bdev_nvme_ctrlr *ctrlr)
{
	struct list *it, *tmp;

	list_for_each_safe(it, tmp, &ctrlr->namespaces) {
		struct bdev_nvme_ns *ns = list_entry(it, struct bdev_nvme_ns, link);

		if (!ns->unregistering && !bdev_is_removed(&ns->bdev)) {
			ns->unregistering = true;
			bdev_unregister(&ns->bdev, NULL, NULL);
		}
	}
	while (!list_empty(&ctrlr->namespaces))
		fiber_cond_wait(&ctrlr->gone);
}
