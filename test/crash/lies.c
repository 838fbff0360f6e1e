/*
 * Lies of a disk in the work of a phase, told of one copy of a metadata page only, so that nothing may be lost by them: a write
 * that is acknowledged and lost, or that lands on another page's copy; and bits that rot in one copy afterwards.
 */
#include <stddef.h>
#include <string.h>

#include "test/crash/history.h"

#define PAGE	  4096u
#define SET_SIZE 4096u

/* What doc/format-blob.md says of the head of a page: its type, and for whom and of which checkpoint it is. */
struct head {
	uint32_t crc, type;
	uint64_t store, address, owner, generation;
};

/* Pages by owner and generation: those of which a copy has come by, and those of which one copy is bad. */
static struct {
	struct history *h;
	uint64_t rng;
	uint64_t seen[SET_SIZE], bad[SET_SIZE];
} lies;

static uint64_t key(const struct head *head)
{
	return (head->owner * 31 + head->generation) * 2 + 1;
}

/* False: it is there already, or there is no place for it. */
static bool add(uint64_t *set, const struct head *head)
{
	uint64_t *slot = &set[key(head) % SET_SIZE];

	if (*slot)
		return false;
	*slot = key(head);
	return true;
}

/* Tables, nodes, counts, blobs, reap lists: what there are two copies of, and no superblock. */
static bool is_metadata(const struct head *head)
{
	return head->type >> 8 == 0x424C42 && (head->type & 0xff) >= 2 && (head->type & 0xff) <= 8;
}

static void head_at(const struct crash_disk *disk, uint64_t page, struct head *head)
{
	memcpy(head, (const char *)crash_disk_image(disk) + page * PAGE, sizeof(*head));
}

static bool has_twin(const struct crash_disk *disk, uint64_t nr, uint64_t page, const struct head *head)
{
	for (uint64_t i = 0; i < nr; i++) {
		struct head other;

		head_at(disk, i, &other);
		if (i != page && !memcmp(&other.owner, &head->owner, sizeof(other) - offsetof(struct head, owner)) &&
		    other.type == head->type && other.address == i)
			return true;
	}
	return false;
}

/* Another page's copy, of which the other copy is good; it counts as bad from now on.  0: none found. */
static uint64_t other_copy(const struct crash_disk *disk, uint64_t not_this)
{
	uint64_t nr = lies.h->disk_opts.nr_blocks * lies.h->disk_opts.block_size / PAGE, at = history_rand(&lies.rng) % nr;

	for (uint64_t i = 0; i < nr; i++) {
		uint64_t page = (at + i) % nr;
		struct head head;

		head_at(disk, page, &head);
		if (page && page != not_this && is_metadata(&head) && head.address == page && has_twin(disk, nr, page, &head) &&
		    add(lies.bad, &head))
			return page;
	}
	return 0;
}

static enum crash_lie on_write(const struct bdev_io *io, uint64_t *ret_offset_blocks, void *arg)
{
	uint32_t per_page = PAGE / lies.h->disk_opts.block_size;
	struct head head;
	uint64_t other;

	if (io->nr_blocks != per_page || io->iovcnt != 1 || io->iov[0].iov_len < sizeof(head))
		return CRASH_HONEST;
	memcpy(&head, io->iov[0].iov_base, sizeof(head));
	if (!is_metadata(&head) || !add(lies.seen, &head) || history_rand(&lies.rng) % 4 == 0 || !add(lies.bad, &head))
		return CRASH_HONEST;
	witness->nr_lies++;
	if (lies.h->lies == LIES_LOST)
		return CRASH_LOST;
	other = other_copy(lies.h->disk, head.address);
	if (!other)
		return CRASH_HONEST;
	*ret_offset_blocks = other * per_page;
	return CRASH_MISDIRECTED;
}

void lies_begin(struct history *h)
{
	lies.h = h;
	lies.rng = h->seed;
	if (h->lies == LIES_LOST || h->lies == LIES_MISDIRECTED)
		crash_disk_on_write(h->disk, on_write, NULL);
}

void lies_rot(const struct history *h, struct crash_disk *disk, uint64_t seed)
{
	char byte;
	uint64_t page, at;

	if (h->lies != LIES_ROT)
		return;
	lies.h = (struct history *)h;
	lies.rng = seed;
	memset(lies.bad, 0, sizeof(lies.bad)); /* each remains' own */
	page = other_copy(disk, 0);
	if (!page)
		return;
	at = page * PAGE + seed % PAGE;
	byte = ((const char *)crash_disk_image(disk))[at] ^ (1 << seed % 7);
	crash_disk_poke(disk, at, &byte, 1);
	witness->nr_lies++;
}
