/*
 * Looking at what a crash left: the store must open, every volume must be one that may be there, every block must hold what
 * it may; the store's own check must agree; and writing on must hurt nobody.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lvol/lvol.h"
#include "test/crash/history.h"

#define PIECE 128u /* blocks of 512 bytes read at once */

static char problem[1024];

uint64_t history_rand(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static uint64_t mix(uint64_t h, const void *data, size_t len)
{
	const unsigned char *p = data;
	uint64_t w;

	for (; len >= sizeof(w); len -= sizeof(w), p += sizeof(w)) {
		memcpy(&w, p, sizeof(w));
		h = (h ^ w) * 0x9fb21c651e98df25ull;
		h ^= h >> 29;
	}
	while (len--)
		h = (h ^ *p++) * 0x100000001b3ull;
	return h;
}

static const char *problem_errno(const char *what, int rc, const char *more)
{
	snprintf(problem, sizeof(problem), "%s: %s%s%s", what, strerror(-rc), *more ? ": " : "", more);
	return problem;
}

/* --- the store --- */

struct findings {
	unsigned nr;
	enum store_finding_kind kind;
	bool crashed;
	char first[320];
};

static void found(const struct store_finding *finding, void *arg)
{
	struct findings *f = arg;

	/* A torn page's other copy is good: that is what it is for. */
	if (f->crashed && finding->kind == STORE_FINDING_COPY)
		return;
	if (!f->nr++)
		f->kind = finding->kind;
	if (f->nr == 1)
		snprintf(f->first, sizeof(f->first), "kind %d, page %lu: %s", finding->kind, (unsigned long)finding->page,
			 finding->text);
}

static const char *verify_check(struct history *h, bool crashed)
{
	struct findings f = { .crashed = crashed || h->lies };
	struct store_check_result result;
	struct blob_reason reason = { "" };
	int rc = store_check("disk", found, &f, &result, &reason);

	if (rc == -EILSEQ && h->oracle->may_lack_store)
		return NULL;
	if (rc)
		return problem_errno("store check cannot look", rc, reason.text);
	if (!f.nr)
		return NULL;
	snprintf(problem, sizeof(problem), "%s: store check (%s) has %u findings, first: %s",
		 f.kind == STORE_FINDING_COUNT ? "invariant 3, one owner" :
		 f.kind == STORE_FINDING_MAP   ? "invariant 4, atomic operations" :
						 "invariant 5, containment",
		 crashed ? "after the crash" : "after recovery and close", f.nr, f.first);
	return problem;
}

bool verify_hides_any(struct history *h)
{
	struct store *store = lvol_store_blobstore(lvol_store_first());

	for (unsigned i = 0; i < ORACLE_MAX_VOLUMES; i++) {
		const struct oracle_volume *v = &h->oracle->volumes[i];
		char uuid[UUID_STR_LEN];

		uuid_unparse_lower(v->uuid, uuid);
		if (v->used && store_find_blob_uuid(store, v->uuid) && !lvol_find(uuid))
			return true;
	}
	return false;
}

const char *verify_open(struct history *h, bool rebase, bool *ret_no_store, uint64_t *ret_answer)
{
	struct blob_reason reason = { "" };
	const char *wrong;
	int rc;

	*ret_no_store = false;
	rc = lvol_store_open("disk", NULL, &reason);
	if (h->recovered)
		h->recovered(h);
	if (rc == -EILSEQ && h->oracle->may_lack_store) {
		*ret_no_store = true;
		return NULL;
	}
	if (rc)
		return problem_errno("invariant 5, containment: the store does not open", rc, reason.text);
	if (!h->oracle->may_have_store)
		return "invariant 4, atomic operations: there is a store that was never made";
	if (h->failing && verify_hides_any(h))
		return "there was no memory to show a volume";
	wrong = verify_volumes(h, h->oracle->power_lost, rebase, ret_answer);
	if (!wrong && store_degraded(lvol_store_blobstore(lvol_store_first()), 0)) {
		snprintf(problem, sizeof(problem), "invariant 5, containment: degraded: %s",
			 store_degraded(lvol_store_blobstore(lvol_store_first()), 0));
		wrong = problem;
	}
	return wrong;
}

/* --- volumes --- */

static const char *read_volume(struct bdev_channel *ch, struct bdev *bdev, const char *name, char *buf)
{
	uint32_t per = bdev->block_size / ORACLE_BLOCK;
	uint64_t nr = bdev->nr_blocks * per;
	int rc;

	for (uint64_t b = 0; b < nr; b += PIECE) {
		uint64_t n = nr - b < PIECE ? nr - b : PIECE;

		rc = bdev_read(ch, buf + b * ORACLE_BLOCK, b / per, n / per);
		if (rc) {
			snprintf(problem, sizeof(problem), "invariant 5, containment: volume %s cannot be read at block %lu: %s", name,
				 (unsigned long)b, strerror(-rc));
			return problem;
		}
	}
	return NULL;
}

static int parent_slot(const struct history *h, struct lvol *lvol)
{
	struct lvol *parent = lvol_parent(lvol);
	struct lvol_info info;

	if (!parent)
		return -1;
	lvol_get_info(parent, &info);
	return oracle_find(h->oracle, info.uuid);
}

static const char *judge_one(struct history *h, struct lvol *lvol, bool after_crash, bool rebase, char *buf, bool *present,
			     int *parents, uint64_t *answer)
{
	struct bdev *bdev = lvol_bdev(lvol);
	struct bdev_desc *desc = NULL;
	struct bdev_channel *ch;
	struct lvol_info info;
	uint64_t nr = bdev->nr_blocks * bdev->block_size / ORACLE_BLOCK;
	uint32_t xattr_number;
	struct oracle_sight sight = { .name = info.name, .blocks = nr };
	struct blob_info blob;
	uint16_t xattr_len;
	const char *wrong;
	int slot;

	lvol_get_info(lvol, &info);
	slot = oracle_find(h->oracle, info.uuid);
	sight.thick = !info.thin;
	blob_get_info(store_find_blob_uuid(lvol_store_blobstore(lvol_store_first()), info.uuid), &blob);
	sight.read_only = blob.read_only; /* not for the store's sake */
	if (!lvol_get_xattr(lvol, "lab", &sight.xattr, &xattr_len))
		sight.xattr_len = xattr_len;
	wrong = oracle_judge_volume(h->oracle, slot, &sight);
	if (wrong)
		return wrong;
	xattr_number = oracle_xattr_number(sight.xattr, sight.xattr_len);
	present[slot] = true;
	parents[slot] = parent_slot(h, lvol);
	if (bdev_open_bdev(bdev, false, NULL, NULL, &desc))
		return "a volume cannot be opened";
	ch = bdev_channel_get(desc);
	if (!ch) {
		bdev_close(desc);
		return "no channel for a volume";
	}
	wrong = read_volume(ch, bdev, info.name, buf);
	bdev_channel_put(ch);
	bdev_close(desc);
	if (!wrong)
		wrong = oracle_judge(h->oracle, slot, 0, nr, buf, after_crash);
	if (!wrong && rebase)
		oracle_rebase_volume(h->oracle, slot, &sight, buf);
	if (!answer)
		return wrong;
	/* The order of volumes is the store's, and the same for the same store. */
	*answer = mix(*answer, info.name, strlen(info.name));
	*answer = mix(*answer, &xattr_number, sizeof(xattr_number));
	*answer = mix(*answer, buf, nr * ORACLE_BLOCK);
	return wrong;
}

static const char *verify_store(struct history *h, bool rebase)
{
	struct lvol_store_info info;
	struct store_info blobs;
	const char *wrong;

	lvol_store_get_info(lvol_store_first(), &info);
	store_get_info(lvol_store_blobstore(lvol_store_first()), &blobs);
	wrong = oracle_judge_store(h->oracle, info.name, blobs.nr_clusters);
	if (!wrong && rebase)
		oracle_rebase_store(h->oracle, info.name, blobs.nr_clusters);
	return wrong;
}

const char *verify_volumes(struct history *h, bool after_crash, bool rebase, uint64_t *ret_answer)
{
	char *buf = aligned_alloc(4096, h->oracle->max_blocks * ORACLE_BLOCK);
	bool present[ORACLE_MAX_VOLUMES] = { false };
	int parents[ORACLE_MAX_VOLUMES];
	struct lvol_store *store = lvol_store_first();
	const char *wrong = verify_store(h, rebase);
	struct lvol *lvol;

	if (ret_answer)
		*ret_answer = 0;
	for (lvol = lvol_first(store); lvol && !wrong; lvol = lvol_next(lvol))
		wrong = judge_one(h, lvol, after_crash, rebase, buf, present, parents, ret_answer);
	for (unsigned i = 0; i < ORACLE_MAX_VOLUMES && !wrong; i++) {
		const struct oracle_volume *v = &h->oracle->volumes[i];

		if (present[i])
			continue;
		if (v->used && !v->may_be_absent) {
			snprintf(problem, sizeof(problem), "invariant 4, atomic operations: volume %s (generation %u) is lost",
				 v->names[0], v->generation);
			wrong = problem;
		} else if (rebase && v->used) {
			oracle_rebase_volume(h->oracle, i, NULL, NULL);
		}
	}
	if (!wrong)
		wrong = oracle_judge_parents(h->oracle, present, parents);
	if (!wrong && rebase) {
		oracle_rebase_parents(h->oracle, present, parents);
		oracle_rebase_end(h->oracle);
	}
	free(buf);
	return wrong;
}

/* --- using it --- */

static int write_some(struct history *h, struct lvol *lvol, unsigned slot, uint64_t *rng)
{
	struct bdev *bdev = lvol_bdev(lvol);
	uint32_t per = bdev->block_size / ORACLE_BLOCK, first, nr, version;
	struct bdev_desc *desc;
	struct bdev_channel *ch;
	char *buf;
	int rc;

	nr = (1 + history_rand(rng) % 24) * per;
	if (nr > bdev->nr_blocks * per)
		return 0;
	first = history_rand(rng) % (bdev->nr_blocks - nr / per + 1) * per;
	rc = bdev_open_bdev(bdev, true, NULL, NULL, &desc);
	if (rc)
		return rc;
	ch = bdev_channel_get(desc);
	buf = aligned_alloc(4096, (size_t)(nr + 8) / 8 * 8 * ORACLE_BLOCK);
	version = oracle_change_begin(h->oracle, slot, first, nr, false);
	oracle_fill(h->oracle, slot, first, nr, version, buf);
	rc = bdev_write(ch, buf, first / per, nr / per, 0);
	oracle_change_end(h->oracle, version, rc == 0, false);
	free(buf);
	bdev_channel_put(ch);
	bdev_close(desc);
	return rc;
}

/* A tail that was cut off once must not come back. */
static const char *grow(struct history *h, struct lvol *lvol, unsigned slot)
{
	uint64_t blocks = h->max_blocks;
	int rc;

	oracle_resize_begin(h->oracle, slot, blocks);
	rc = lvol_resize(lvol, blocks * ORACLE_BLOCK);
	oracle_resize_end(h->oracle, slot, rc == 0);
	return rc && rc != -ENOSPC ? problem_errno("invariant 4, atomic operations: a recovered volume cannot grow", rc, "") : NULL;
}

static const char *use_volume(struct history *h, struct lvol *lvol, uint64_t *rng, bool grows)
{
	struct lvol_info info;
	unsigned slot;
	int rc;

	lvol_get_info(lvol, &info);
	slot = oracle_find(h->oracle, info.uuid);
	if (info.snapshot || info.read_only)
		return NULL;
	if (grows && history_rand(rng) % 4 == 0)
		return grow(h, lvol, slot);
	rc = write_some(h, lvol, slot, rng);
	return rc && rc != -ENOSPC ? problem_errno("invariant 4, atomic operations: a recovered volume cannot be written", rc, info.name) : NULL;
}

static int flush(struct history *h, struct lvol *lvol)
{
	uint64_t moment = oracle_flush_begin(h->oracle);
	struct bdev_desc *desc;
	struct bdev_channel *ch;
	int rc = bdev_open_bdev(lvol_bdev(lvol), false, NULL, NULL, &desc);

	if (rc)
		return rc;
	ch = bdev_channel_get(desc);
	rc = bdev_flush(ch);
	if (!rc)
		oracle_flush_end(h->oracle, moment);
	bdev_channel_put(ch);
	bdev_close(desc);
	return rc;
}

/* Writes here and there; a cluster that recovery took for free shows in another volume's bytes. */
static const char *verify_use(struct history *h, uint64_t seed)
{
	uint64_t rng = seed, nr_rounds = 1 + seed % 4;
	struct lvol *lvol;
	const char *wrong;

	for (unsigned round = 0; round < nr_rounds; round++)
		for (lvol = lvol_first(lvol_store_first()); lvol; lvol = lvol_next(lvol))
			/* Without growing, which is a commit each, all of it is one. */
			if ((wrong = use_volume(h, lvol, &rng, seed % 3 == 0)))
				return wrong;
	if (lvol_first(lvol_store_first()) && flush(h, lvol_first(lvol_store_first())))
		return "invariant 1, durability: a recovered store cannot be flushed";
	return verify_volumes(h, false, false, NULL);
}

/* One bad copy is what a disk that lies leaves, and what the other copy is for. */
static void count_finding(const struct store_finding *finding, void *arg)
{
	*(unsigned *)arg += finding->kind != STORE_FINDING_COPY;
}

fiber_fn uint64_t verify_lost_clusters(struct history *h, uint64_t unknown)
{
	struct store *store = lvol_store_blobstore(lvol_store_first());
	struct store_check_result result;
	struct store_info info;
	unsigned nr_wrong = 0;
	int64_t lost;
	int rc = store_wait_free(store);

	if (!rc)
		rc = store_check_online(store, count_finding, &nr_wrong, NULL, &result);
	store_get_info(store, &info);
	if (rc || info.read_only)
		return unknown; /* it has failed, and serves nobody's writes */
	if (nr_wrong)
		workload_fail("invariant 3, one owner: the store's check in memory has findings");
	if (h->verbose)
		printf("  clusters: %lu, used %lu, metadata %lu, free %lu, promised %lu, coming %lu\n", (unsigned long)info.nr_clusters,
		       (unsigned long)result.nr_used_clusters, (unsigned long)info.nr_metadata_clusters,
		       (unsigned long)info.nr_free_clusters, (unsigned long)info.nr_reserved_clusters,
		       (unsigned long)info.nr_coming_clusters);
	lost = (int64_t)(info.nr_clusters - result.nr_used_clusters - info.nr_metadata_clusters - info.nr_free_clusters -
			 info.nr_reserved_clusters);
	/* What a thick volume was promised is for its metadata, too: a pair of clusters of it, taken when nothing else was left. */
	return lost < 0 && lost >= -2 && !info.nr_free_clusters ? 0 : (uint64_t)lost;
}

/* --- a whole look --- */

static const char *look(struct verification *v)
{
	struct history *h = v->h;
	const char *wrong = verify_check(h, true);
	bool no_store;
	int rc;

	if (!wrong)
		wrong = verify_open(h, true, &no_store, v->wants_answer ? &v->answer : NULL);
	if (wrong || no_store)
		return wrong;
	if (v->use)
		wrong = verify_use(h, v->seed);
	if (wrong)
		return wrong;
	if (v->use && v->used)
		v->used(h);
	rc = lvol_store_close(lvol_store_first());
	if (rc)
		return problem_errno("the store does not close", rc, "");
	return verify_check(h, false);
}

void verify_main(void *arg)
{
	struct verification *v = arg;

	const char *wrong = "the disk cannot be shown";

	crash_disk_show(v->h->disk, v->h->oracle->store.disk_blocks);
	if (!outside_create(v->h->max_blocks) && !bdev_crash_create("disk", v->h->disk, NULL))
		wrong = look(v);
	if (wrong)
		v->failed(v->fate, wrong);
	bdev_unregister_all();
	runtime_stop(0);
}
