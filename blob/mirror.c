/*
 * The mirror: a copy of the journal's newest pages in memory that outlives the process.
 *
 * A first write is acknowledged before its record is in the journal; its data is then in the device's cache, which a
 * process's death does not touch.  The mirror makes the same true of the record, so that the next process knows all that
 * this one had acknowledged, and the host's next flush covers it.  A power cut takes mirror and cache together.
 *
 * It is believed only for the same epoch of the store, on a device that has lost nothing since (bdev.continuity), and when
 * the journal on the device holds all that the mirror says was committed.
 */
#include "blob/internal.h"
#include "nvme/crc32c.h"

#define SLOT_BYTES 4096u

/* Owner: the store that has the mirror open; numbers as this machine writes them. */
struct mirror_header {
	_Atomic uint64_t epoch; /* 0: nothing here counts */
	uint64_t continuity, nr_slots;
	_Atomic uint64_t committed_seq; /* the journal on the device holds all pages below */
};

/* One journal page's records. */
struct mirror_slot {
	_Atomic uint64_t seq;
	_Atomic uint64_t whole; /* operations that are whole: bytes in bits 0-15, records in 16-31, CRC32C in 32-63 */
	uint8_t records[SLOT_BYTES - 16];
};

_Static_assert(sizeof(struct mirror_slot) == SLOT_BYTES, "a slot is a page");
_Static_assert(JOURNAL_RECORDS_MAX <= sizeof(((struct mirror_slot *)0)->records), "a page's records fit a slot");

static struct mirror_header *mirror_header(struct store *s)
{
	return s->mirror.keep.mem;
}

static struct mirror_slot *mirror_slot(struct store *s, uint64_t seq)
{
	return (struct mirror_slot *)((uint8_t *)s->mirror.keep.mem + SLOT_BYTES) + seq % s->mirror.nr_slots;
}

void mirror_open(struct store *s)
{
	struct mirror *m = &s->mirror;
	char uuid[UUID_STR_LEN];
	int rc;

	if (s->opened_read_only || s->checking || !s->bdev->continuity)
		return;
	m->nr_slots = journal_ram_pages(s);
	uuid_unparse_lower(s->super.uuid, uuid);
	rc = keep_open(&m->keep, uuid, (m->nr_slots + 1) * SLOT_BYTES);
	if (rc && rc != -ENOENT)
		log_warning("store %s: no memory that outlives this process: %s; should it die alone, writes that were not "
			    "flushed are lost with it", s->super.name, strerror(-rc));
}

void mirror_invalidate(struct store *s)
{
	if (s->mirror.keep.mem)
		atomic_store(&mirror_header(s)->epoch, 0);
}

void mirror_close(struct store *s, bool forget)
{
	keep_close(&s->mirror.keep, forget);
}

/* --- what the process before left --- */

static bool believable(struct store *s, uint64_t journal_end)
{
	const struct mirror_header *h = mirror_header(s);

	if (!s->mirror.keep.found || h->epoch != s->super.epoch || BLOB_MUTANT(MIRROR_IGNORED))
		return false;
	if (h->continuity == s->bdev->continuity && h->nr_slots == s->mirror.nr_slots && h->committed_seq <= journal_end)
		return true;
	log_warning("store %s: what the process before this one kept does not fit %s: it is another copy, or was "
		    "changed since; only what had been flushed is there", s->super.name, s->bdev->name);
	return false;
}

/* The page's payload as the journal would have it; false: no such page. */
static bool slot_take(struct store *s, uint64_t seq, uint8_t *payload, uint32_t *ret_used)
{
	const struct mirror_slot *slot = mirror_slot(s, seq);
	uint64_t whole = slot->whole;
	uint32_t used = whole & 0xffff;

	if (slot->seq != seq || !used || used > JOURNAL_RECORDS_MAX || crc32c(slot->records, used) != whole >> 32)
		return false;
	put64(payload, 0);
	put32(payload + 8, whole >> 16 & 0xffff);
	put32(payload + 12, 0);
	memcpy(payload + JOURNAL_PAYLOAD_HEADER, slot->records, used);
	*ret_used = JOURNAL_PAYLOAD_HEADER + used;
	return true;
}

fiber_fn int mirror_replay(struct store *s, uint64_t *journal_end, struct blob_reason *reason)
{
	uint64_t nr = 0, begin = *journal_end;
	uint8_t payload[PAGE_PAYLOAD];
	uint32_t used;

	if (!s->mirror.keep.mem || !believable(s, begin))
		return 0;
	while (*journal_end - begin < s->mirror.nr_slots && slot_take(s, *journal_end, payload, &used)) {
		struct blob_reason why = {""};
		int rc = records_apply(s, payload, used, &nr, &why);

		if (rc == -EUCLEAN)
			return refuse(reason, "journal page %llu, kept by the process before this one as %s: %.120s",
				      (unsigned long long)*journal_end, s->mirror.keep.name, why.text);
		if (rc)
			return rc;
		++*journal_end;
	}
	s->stats.recovered_records += nr;
	if (nr)
		log_notice("store %s: %llu changes that the process before had acknowledged and not yet made durable are "
			   "taken over", s->super.name, (unsigned long long)nr);
	return 0;
}

/* --- what this one leaves --- */

void mirror_start(struct store *s)
{
	struct mirror_header *h = mirror_header(s);

	if (!h)
		return;
	atomic_store(&h->epoch, 0);
	for (uint64_t i = 0; i < s->mirror.nr_slots; i++) {
		atomic_store(&mirror_slot(s, i)->whole, 0);
		atomic_store(&mirror_slot(s, i)->seq, 0);
	}
	h->continuity = s->bdev->continuity;
	h->nr_slots = s->mirror.nr_slots;
	atomic_store(&h->committed_seq, s->journal.committed_seq);
	if (store_writable(s))
		atomic_store(&h->epoch, s->super.epoch);
}

void mirror_put(struct store *s, uint64_t seq, const uint8_t *records, uint32_t from, uint32_t to, uint32_t nr)
{
	struct mirror *m = &s->mirror;
	struct mirror_slot *slot;

	if (!m->keep.mem)
		return;
	slot = mirror_slot(s, seq);
	if (!from) {
		atomic_store_explicit(&slot->whole, 0, memory_order_release);
		atomic_store_explicit(&slot->seq, seq, memory_order_release);
		m->crc = crc32c_begin();
	}
	memcpy(slot->records + from, records + from, to - from);
	m->crc = crc32c_more(m->crc, records + from, to - from);
	atomic_store_explicit(&slot->whole, (uint64_t)crc32c_end(m->crc) << 32 | nr << 16 | to, memory_order_release);
}

void mirror_committed(struct store *s, uint64_t seq)
{
	if (s->mirror.keep.mem)
		atomic_store_explicit(&mirror_header(s)->committed_seq, seq, memory_order_release);
}
