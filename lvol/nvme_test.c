/*
 * A store on an NVMe drive of software, in simulations: what was flushed is there after a power cut, at any moment, and I/O on a
 * volume outlives the drive's resets and ends when it is pulled out.
 */
#include "bdev/nvme.h"
#include "lvol/testing.h"
#include "nvme/soft/soft.h"

#define SEEDS	 4
#define STORE_MIB 48u
#define NR_SLOTS 64u  /* of the volume that are written, each of SLOT blocks */
#define SLOT	 16u

static struct soft_drive *drive;
static struct bdev_nvme_attach_opts opts;
static uint32_t newest[NR_SLOTS], durable[NR_SLOTS]; /* what a slot holds; what it must hold at least */
static struct bdev_desc *desc;
static struct bdev_channel *ch;

static int open_soft(const char *address, void *arg, struct nvme_bar **ret_bar, struct nvme_error *error)
{
	*ret_bar = soft_plug(drive, address);
	return 0;
}

static void attach(void)
{
	struct nvme_error error;

	bdev_nvme_attach_opts_init(&opts);
	opts.name = "Nvme0";
	opts.connect.trtype = NVME_TRTYPE_PCIE;
	opts.bar_open = open_soft;
	ck_assert_msg(!bdev_nvme_attach(&opts, &error), "%s", error.text);
	bdev_wait_for_examine();
}

static void make_all(void)
{
	const struct soft_opts sopts = { .nr_blocks = STORE_MIB * MIB / BS, .jitter_us = 50 };
	const struct lvol_store_create_opts create = { .name = "pool", .base_bdev = "Nvme0n1" };
	struct blob_reason reason = { "" };
	struct lvol_store *store;

	memset(newest, 0, sizeof(newest));
	memset(durable, 0, sizeof(durable));
	lvol_init();
	ck_assert_int_eq(soft_create(&sopts, &drive), 0);
	attach();
	ck_assert_msg(!lvol_store_create(&create, &store, &reason), "%s", reason.text);
	make_volume(store, "v", 16, true);
	ck_assert_int_eq(bdev_nvme_reset("Nvme0", NULL), 0);
}

static void open_volume(void)
{
	ck_assert_int_eq(bdev_open("pool/v", true, NULL, NULL, &desc), 0);
	ch = bdev_channel_get(desc);
	ck_assert_ptr_nonnull(ch);
}

static void close_volume(void)
{
	bdev_channel_put(ch);
	bdev_close(desc);
}

static void write_slot(uint32_t slot, uint32_t *buf)
{
	newest[slot]++;
	for (unsigned i = 0; i < SLOT * BS / 4; i++)
		buf[i] = newest[slot] * NR_SLOTS + slot;
	ck_assert_int_eq(bdev_write(ch, buf, slot * SLOT * 7, SLOT, 0), 0);
}

/* Each sector holds one version whole, between the durable and the newest one; 0 where nothing had to be. */
static void check_slots(uint32_t *buf)
{
	for (uint32_t slot = 0; slot < NR_SLOTS; slot++) {
		ck_assert_int_eq(bdev_read(ch, buf, slot * SLOT * 7, SLOT), 0);
		for (unsigned sector = 0; sector < SLOT; sector++) {
			const uint32_t *at = buf + sector * BS / 4;
			uint32_t version = *at / NR_SLOTS;

			ck_assert_msg(version >= durable[slot] && version <= newest[slot], "slot %u sector %u: version %u, durable %u",
				      slot, sector, version, durable[slot]);
			for (unsigned i = 0; i < BS / 4; i++)
				ck_assert_uint_eq(at[i], version ? version * NR_SLOTS + slot : 0);
		}
	}
}

static void cuts(void *arg)
{
	uint32_t *buf = dma_alloc(SLOT * BS, 4096);

	make_all();
	for (unsigned round = 0; round < 5; round++) {
		struct soft_drive *after;

		open_volume();
		for (unsigned n = 20 + rand_u64() % 100; n; n--) {
			write_slot(rand_u64() % NR_SLOTS, buf);
			if (rand_u64() % 16)
				continue;
			ck_assert_int_eq(bdev_flush(ch), 0);
			memcpy(durable, newest, sizeof(durable));
		}
		ck_assert_int_eq(soft_cut_copy(drive, &after), 0);
		close_volume();
		/* This daemon ends; the next one finds the drive as the cut left it. */
		ck_assert_int_eq(bdev_nvme_detach("Nvme0", NULL), 0);
		ck_assert_ptr_null(lvol_find("pool/v"));
		soft_destroy(drive);
		drive = after;
		attach();
		ck_assert_ptr_nonnull(lvol_find("pool/v"));
		open_volume();
		check_slots(buf);
		/* What is seen now is what there is. */
		for (uint32_t slot = 0; slot < NR_SLOTS; slot++)
			write_slot(slot, buf);
		ck_assert_int_eq(bdev_flush(ch), 0);
		memcpy(durable, newest, sizeof(durable));
		close_volume();
	}
	dma_free(buf);
	lvol_fini();
	bdev_nvme_detach_all();
	soft_destroy(drive);
}

START_TEST(what_was_flushed_to_a_volume_on_a_drive_survives_power_cuts)
{
	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		run_sim(seed, 1 + seed % 2, cuts, NULL);
}
END_TEST

static void resets(void *arg)
{
	uint32_t *buf = dma_alloc(SLOT * BS, 4096);
	const struct soft_fault fatal = { .kind = SOFT_FATAL, .opcode = SOFT_ANY_OPCODE, .skip = 40, .count = 3 };

	make_all();
	open_volume();
	soft_fault_add(drive, &fatal);
	for (unsigned n = 0; n < 300; n++) {
		write_slot(rand_u64() % NR_SLOTS, buf);
		if (n % 50 == 49)
			ck_assert_int_eq(bdev_nvme_reset("Nvme0", NULL), 0);
	}
	memcpy(durable, newest, sizeof(durable));
	check_slots(buf);
	close_volume();
	dma_free(buf);
	lvol_fini();
	bdev_nvme_detach_all();
	soft_destroy(drive);
}

START_TEST(a_volumes_writes_outlive_resets_and_fatal_statuses_of_its_drive)
{
	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		run_sim(seed, 1, resets, NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		what_was_flushed_to_a_volume_on_a_drive_survives_power_cuts,
		a_volumes_writes_outlive_resets_and_fatal_statuses_of_its_drive,
	};

	return run_suite_within("store on NVMe", tests, sizeof(tests) / sizeof(tests[0]), 240, NULL, NULL);
}
