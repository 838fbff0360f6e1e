/*
 * Damage: a store of fifty volumes that share snapshots; each metadata page loses one copy, then the other, then both.  With
 * one, nothing is degraded and the page is healed; with both, only the volumes that share what it maps lose anything, and
 * only there; the store is served all the same.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lvol/lvol.h"
#include "runtime/sim.h"
#include "test/crash/history.h"
#include "test/crash/image.h"
#include "test/crash/kept.h"

#define MIB	     (1024u * 1024u)
#define CLUSTER	     32768u
#define NR_CLUSTERS  12u /* of a volume */
#define NR_BASES     5u
#define NR_CLONES    9u /* of each base's snapshot */
#define MAX_VOLUMES  (NR_BASES * (2 + NR_CLONES))
#define BLOCK	     512u
#define BLOCKS	     (CLUSTER / BLOCK)
#define NR_BAD_COPIES 3u /* A, B, both */

static const struct crash_disk_opts disk_opts = { .nr_blocks = 24 * MIB / BLOCK, .block_size = BLOCK, .seed = 50,
						   .garbage = true, .max_cache_bytes = 4 * MIB };

static struct damage {
	struct crash_disk *whole, *disk;
	struct image image;
	unsigned nr_volumes;
	struct {
		uuid_t uuid;
		char *bytes;
	} volume[MAX_VOLUMES];
	const struct image_page *page;
	unsigned bad_copies; /* 1: A, 2: B, 3: both */
	unsigned nr_lost_volumes, nr_lost_clusters;
} damage;

static void fail(const char *what, int rc)
{
	const struct image_page *p = damage.page;

	if (p)
		printf("  table %u, level %u, page %lu, copies %s bad: ", p->table, p->level, (unsigned long)p->index,
		       damage.bad_copies == 3 ? "A and B" : damage.bad_copies == 2 ? "B" : "A");
	printf("%s%s%s\n", what, rc ? ": " : "", rc ? strerror(-rc) : "");
	fflush(stdout);
	_exit(1);
}

static void check(const char *what, int rc)
{
	if (rc)
		fail(what, rc);
}

static void run(void (*body)(void *arg), uint64_t seed)
{
	const struct sim_opts sim = { .seed = seed, .nr_reactors = 1, .nr_small = 8, .nr_large = 4 };

	check("the simulation", sim_run(&sim, body, NULL));
}

/* --- making the store --- */

static fiber_fn void write_clusters(struct lvol *lvol, unsigned seed)
{
	struct bdev_desc *desc;
	struct bdev_channel *ch;
	char *buf = aligned_alloc(4096, CLUSTER);
	uint64_t rng = seed;

	check("open", bdev_open_bdev(lvol_bdev(lvol), true, NULL, NULL, &desc));
	ch = bdev_channel_get(desc);
	for (unsigned c = 0; c < NR_CLUSTERS; c++) {
		uint64_t r = history_rand(&rng);
		uint32_t first = r % 4 ? 0 : 8 * (r / 4 % 7), nr = r % 4 ? BLOCKS : 8;

		if (seed >= NR_BASES && r / 64 % 4) /* a clone's own are few */
			continue;
		memset(buf, 1 + (seed * 16 + c) % 255, CLUSTER);
		check("write", bdev_write(ch, buf, c * BLOCKS + first, nr, 0));
	}
	bdev_channel_put(ch);
	bdev_close(desc);
	free(buf);
}

static fiber_fn void make_base(unsigned n)
{
	struct lvol_create_opts create = { .size_bytes = NR_CLUSTERS * CLUSTER, .thin = true };
	struct lvol_copy_opts copy = { 0 };
	struct lvol *base, *snapshot, *clone;
	char name[32];

	snprintf(name, sizeof(name), "base%u", n);
	create.name = name;
	check("create", lvol_create(lvol_store_first(), &create, &base));
	write_clusters(base, n);
	copy.name = name;
	snprintf(name, sizeof(name), "snapshot%u", n);
	check("snapshot", lvol_snapshot(base, &copy, &snapshot));
	for (unsigned i = 0; i < NR_CLONES; i++) {
		snprintf(name, sizeof(name), "clone%u.%u", n, i);
		check("clone", lvol_clone(snapshot, &copy, &clone));
		write_clusters(clone, NR_BASES + n * NR_CLONES + i);
	}
	write_clusters(base, NR_BASES + 100 + n);
}

static fiber_fn int read_cluster(struct bdev_channel *ch, unsigned cluster, char *buf)
{
	return bdev_read(ch, buf, (uint64_t)cluster * BLOCKS, BLOCKS);
}

static fiber_fn void remember(struct lvol *lvol)
{
	struct bdev_desc *desc;
	struct bdev_channel *ch;
	struct lvol_info info;
	char *bytes = aligned_alloc(4096, NR_CLUSTERS * CLUSTER);

	lvol_get_info(lvol, &info);
	uuid_copy(damage.volume[damage.nr_volumes].uuid, info.uuid);
	check("open", bdev_open_bdev(lvol_bdev(lvol), false, NULL, NULL, &desc));
	ch = bdev_channel_get(desc);
	for (unsigned c = 0; c < NR_CLUSTERS; c++)
		check("read", read_cluster(ch, c, bytes + c * CLUSTER));
	bdev_channel_put(ch);
	bdev_close(desc);
	damage.volume[damage.nr_volumes++].bytes = bytes;
}

static void make_main(void *arg)
{
	const struct store_create_opts create = { .name = "store", .cluster_size_bytes = CLUSTER, .journal_pages = 64,
						  .leaf_shift = 1, .inner_shift = 1, .overwrite = true };
	struct blob_reason reason = { "" };
	struct store *store;

	check("disk", bdev_crash_create("disk", damage.whole, NULL));
	check("store create", store_create("disk", &create, NULL, &store, &reason));
	check("store close", store_close(store));
	check("store open", lvol_store_open("disk", NULL, &reason));
	for (unsigned n = 0; n < NR_BASES; n++)
		make_base(n);
	for (struct lvol *l = lvol_first(lvol_store_first()); l; l = lvol_next(l))
		remember(l);
	check("store close", lvol_store_close(lvol_store_first()));
	bdev_unregister_all();
	runtime_stop(0);
}

/* --- looking at it damaged --- */

static void found(const struct store_finding *finding, void *arg)
{
	if (damage.bad_copies != 3)
		fail(finding->text, 0);
}

/* Every cluster is right; or, where it may be lost, cannot be read. */
static fiber_fn void judge_volume(struct lvol *lvol, unsigned n, const bool *marks)
{
	char *buf = aligned_alloc(4096, CLUSTER);
	struct bdev_desc *desc;
	struct bdev_channel *ch;

	check("open", bdev_open_bdev(lvol_bdev(lvol), false, NULL, NULL, &desc));
	ch = bdev_channel_get(desc);
	for (unsigned c = 0; c < NR_CLUSTERS; c++) {
		int rc = read_cluster(ch, c, buf);

		if (rc && !marks[c])
			fail("invariant 5, containment: a volume that has nothing to do with it cannot be read", rc);
		if (!rc && memcmp(buf, damage.volume[n].bytes + c * CLUSTER, CLUSTER))
			fail("invariant 5, containment: a volume shows what it does not hold", 0);
		damage.nr_lost_clusters += rc != 0;
	}
	bdev_channel_put(ch);
	bdev_close(desc);
	free(buf);
}

/* Once all of it has been read, a volume that has lost something says so, and no other does. */
static void judge_degraded(struct lvol *lvol, const bool *marks)
{
	struct lvol_info info;
	bool loses = false;

	for (unsigned c = 0; c < NR_CLUSTERS; c++)
		loses |= marks[c];
	lvol_get_info(lvol, &info);
	if (info.degraded != loses)
		fail(loses ? "invariant 5, containment: a volume has lost something, and does not say so" :
			     "invariant 5, containment: a volume that has nothing to do with it is degraded", 0);
}

static fiber_fn void judge_volumes(void)
{
	static const bool none[NR_CLUSTERS];
	bool marks[NR_CLUSTERS];

	for (unsigned n = 0; n < damage.nr_volumes; n++) {
		char uuid[UUID_STR_LEN];
		struct lvol *lvol;
		bool all = true;

		if (damage.bad_copies == 3)
			image_losses(&damage.image, damage.volume[n].uuid, damage.page, marks, NR_CLUSTERS);
		else
			memcpy(marks, none, sizeof(marks));
		for (unsigned c = 0; c < NR_CLUSTERS; c++)
			all &= marks[c];
		uuid_unparse_lower(damage.volume[n].uuid, uuid);
		lvol = lvol_find(uuid);
		if (lvol) {
			judge_volume(lvol, n, marks);
			judge_degraded(lvol, marks);
		} else if (all && damage.page->table == IMAGE_BLOBS) {
			damage.nr_lost_volumes++;
		} else {
			fail("invariant 5, containment: a volume is not there", 0);
		}
	}
}

static void look_main(void *arg)
{
	struct blob_reason reason = { "" };
	struct store_check_result result;
	struct store_info info;

	check("disk", bdev_crash_create("disk", damage.disk, NULL));
	if (lvol_store_open("disk", NULL, &reason))
		fail(reason.text, 0);
	store_get_info(lvol_store_blobstore(lvol_store_first()), &info);
	if (damage.bad_copies != 3 && (info.nr_degraded || info.read_only))
		fail("invariant 5, containment: degraded, with one copy bad", 0);
	judge_volumes();
	check("store close", lvol_store_close(lvol_store_first()));
	/* Both copies are read here: the bad one must have been written anew. */
	check("store check", store_check("disk", found, NULL, &result, &reason));
	bdev_unregister_all();
	runtime_stop(0);
}

/* Opened once, every page was read and nothing is wrong: only who reads copy B can know that it is bad. */
static void scrub_main(void *arg)
{
	struct blob_reason reason = { "" };
	struct store_check_result result;

	check("disk", bdev_crash_create("disk", damage.disk, NULL));
	check("store open", lvol_store_open("disk", NULL, &reason));
	check("store check", store_check_online(lvol_store_blobstore(lvol_store_first()), NULL, NULL, NULL, &result));
	check("store close", lvol_store_close(lvol_store_first()));
	bdev_unregister_all();
	runtime_stop(0);
}

static void spoil(uint64_t page, uint64_t seed)
{
	unsigned char bytes[64];

	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = history_rand(&seed);
	crash_disk_poke(damage.disk, page * IMAGE_PAGE + seed % 8 * 512, bytes, sizeof(bytes));
}

static void one_case(unsigned page, unsigned bad_copies)
{
	damage.page = &damage.image.page[page];
	damage.bad_copies = bad_copies;
	crash_disk_copy(damage.disk, damage.whole);
	for (unsigned k = 0; k < 2; k++)
		if (bad_copies >> k & 1)
			spoil(damage.page->copy[k], page * 2 + k);
	if (bad_copies == 2)
		run(scrub_main, page);
	run(look_main, page * 4 + bad_copies);
}

void damage_run(unsigned first, unsigned step)
{
	unsigned nr[2] = { 0, 0 };

	kept_off();
	damage.whole = crash_disk_create(&disk_opts);
	damage.disk = crash_disk_create(&disk_opts);
	run(make_main, 1);
	crash_disk_lose_power(damage.whole, CRASH_FATE_KEEP_ALL, 1);
	if (!image_read(&damage.image, crash_disk_image(damage.whole)))
		fail("the image cannot be read", 0);
	for (unsigned page = first; page < damage.image.nr_pages; page += step) {
		for (unsigned bad = 1; bad <= NR_BAD_COPIES; bad++) {
			alarm(20);
			one_case(page, bad);
		}
		nr[damage.image.page[page].level != 0]++;
	}
	printf("%u volumes and snapshots, %u metadata pages: of %u, and of %u of the tables themselves, one copy, the other, and both "
	       "were bad; with both, %u volumes and %u clusters were lost in all\n",
	       damage.nr_volumes, damage.image.nr_pages, nr[0], nr[1], damage.nr_lost_volumes, damage.nr_lost_clusters);
	fflush(stdout);
	_exit(0);
}
