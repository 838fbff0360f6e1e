/*
 * Recovery: which superblock is the newest, and what the journal says happened since.
 *
 * The ring is read once, from the checkpoint's first page on.  Pages are applied as long as they are whole,
 * of the epoch and in sequence.  The first that is not ends the journal: it is the torn tail, unless a later
 * page of the epoch knew it to be durable; then the journal is damaged, and the store is refused rather than
 * taken back in time.
 */
#include "blob/internal.h"

#define CHUNK_PAGES 256u

static fiber_fn int super_read(struct store *s, unsigned which, uint8_t *buf, struct super *super,
			       struct blob_reason *why)
{
	int rc;

	if (which &&
	    bdev_nr_blocks(s->bdev) < (uint64_t)(SUPER_PAGE_1 + 1) * PAGE_BYTES / s->bdev->block_size) {
		refuse(why, "the device ends before it");
		return -EILSEQ;
	}
	rc = bdev_read(s->bch, buf,
		       (uint64_t)(which ? SUPER_PAGE_1 : SUPER_PAGE_0) * PAGE_BYTES / s->bdev->block_size,
		       PAGE_BYTES / s->bdev->block_size);
	if (rc) {
		refuse(why, "cannot be read: %s", strerror(-rc));
		return rc == -ENODEV ? rc : -EIO;
	}
	return super_decode(buf, which, super, why);
}

/* Of two superblocks that do not count, the one whose fault says most. */
static unsigned super_worst(const int rc[2])
{
	static const int order[] = {-ENOTSUP, -EUCLEAN, -ENODEV, -EIO};

	for (unsigned i = 0; i < sizeof(order) / sizeof(order[0]); i++)
		for (unsigned which = 0; which < 2; which++)
			if (rc[which] == order[i])
				return which;
	return 0;
}

/* Both superblocks, and which of them counts: 0, 1, or an error. */
static int super_choose(const int rc[2], const struct super super[2], const struct blob_reason why[2],
			struct blob_reason *reason)
{
	unsigned worst = super_worst(rc);

	if (rc[worst] == -ENOTSUP || (rc[0] && rc[1])) {
		refuse(reason, "page %u, superblock %u: %.200s", worst ? SUPER_PAGE_1 : SUPER_PAGE_0, worst,
		       why[worst].text);
		return rc[worst];
	}
	if (rc[0])
		return 1;
	if (rc[1] || uuid_compare(super[0].uuid, super[1].uuid))
		return 0;
	return super[1].generation > super[0].generation;
}

/* The device is shorter than the store, which nobody is going to write: what lies behind its end is lost, and said to be. */
static void say_cut(struct store *s, uint64_t device_pages)
{
	store_degrade(s, "the device ends after %llu of %llu pages: what lies behind its end is lost", (unsigned long long)device_pages,
		      (unsigned long long)s->super.nr_pages);
	check_found(s, STORE_FINDING_LOST, device_pages, "the device ends before page %llu, and the store only at page %llu",
		    (unsigned long long)device_pages, (unsigned long long)s->super.nr_pages);
	if (s->super.journal_page + s->super.journal_pages > device_pages)
		store_degrade(s, "a part of the journal lies behind the device's end: what was recorded there is lost");
}

fiber_fn int supers_read(struct store *s, struct blob_reason *reason)
{
	uint64_t device_pages = bdev_nr_blocks(s->bdev) * s->bdev->block_size / PAGE_BYTES;
	struct blob_reason why[2] = {{""}, {""}}, geometry = {""};
	struct super super[2];
	uint8_t *buf = dma_alloc(PAGE_BYTES, PAGE_BYTES);
	int rc[2], which;
	bool cut;

	if (!buf)
		return -ENOMEM;
	for (unsigned i = 0; i < 2; i++)
		rc[i] = super_read(s, i, buf, &super[i], &why[i]);
	dma_free(buf);
	which = super_choose(rc, super, why, reason);
	if (which < 0)
		return which;
	for (unsigned i = 0; i < 2; i++)
		if (rc[i]) {
			s->nr_healed++; /* every checkpoint writes both */
			if (!s->checking)
				log_warning("%s: superblock %u, page %u: %.160s; the other one serves",
					    s->bdev->name, i, i ? SUPER_PAGE_1 : SUPER_PAGE_0, why[i].text);
			check_found(s, STORE_FINDING_COPY, i ? SUPER_PAGE_1 : SUPER_PAGE_0,
				    "superblock %u: %.160s", i, why[i].text);
		}
	cut = s->opened_read_only && super[which].nr_pages > device_pages;
	if (super_check_geometry(&super[which], cut ? super[which].nr_pages : device_pages, &geometry))
		return refuse(reason, "page %u, superblock %d: %.200s", which ? SUPER_PAGE_1 : SUPER_PAGE_0,
			      which, geometry.text);
	if (super[which].block_size != s->bdev->block_size)
		return refuse(reason, "page %u, superblock %d: block size %u on a device with %u",
			      which ? SUPER_PAGE_1 : SUPER_PAGE_0, which, super[which].block_size,
			      s->bdev->block_size);
	s->super = super[which];
	if (cut)
		say_cut(s, device_pages);
	return 0;
}

/* --- the journal --- */

struct replay {
	struct store *s;
	uint64_t start, stop; /* stop: the first page that is not there */
	bool stopped, damaged;
	struct blob_reason why_stop; /* what is wrong with it */
	uint64_t witness;            /* the page that knew it was durable */
};

static fiber_fn int take_page(struct replay *r, uint64_t seq, const uint8_t *page)
{
	struct store *s = r->s;
	struct page_id id = {.type = PAGE_JOURNAL,
			     .store = s->id,
			     .address = s->super.journal_page + seq % s->super.journal_pages};
	struct blob_reason why = {""};
	uint32_t used;
	int rc = page_identify(page, &id, &used, &why);
	bool stale = BLOB_MUTANT(STALE_RECORDS) && !rc &&
		     id.owner % s->super.journal_pages == seq % s->super.journal_pages;

	if (!rc && !stale && (id.owner != seq || (id.generation != s->super.epoch && !BLOB_MUTANT(JOURNAL_ANY_EPOCH))))
		rc = refuse(&why, "holds page %llu of epoch %llu, not page %llu of epoch %llu",
			    (unsigned long long)id.owner, (unsigned long long)id.generation,
			    (unsigned long long)seq, (unsigned long long)s->super.epoch);
	if (rc && !r->stopped && !BLOB_MUTANT(JOURNAL_SKIPS_HOLE)) {
		r->stopped = true;
		r->stop = seq;
		r->why_stop = why;
	}
	if (rc)
		return 0;
	if (r->stopped) {
		if (used >= JOURNAL_PAYLOAD_HEADER &&
		    get64(page_payload((void *)(uintptr_t)page)) > r->stop) {
			r->damaged = true;
			r->witness = seq;
		}
		return 0;
	}
	rc = records_apply(s, page_payload((void *)(uintptr_t)page), used, &s->stats.recovered_records, &why);
	if (rc == -EUCLEAN && (BLOB_MUTANT(STALE_RECORDS) || BLOB_MUTANT(JOURNAL_NO_CRC)))
		return 0;
	if (rc == -EUCLEAN) {
		check_found(s, STORE_FINDING_JOURNAL, id.address, "journal page %llu: %.160s",
			    (unsigned long long)seq, why.text);
		if (!s->nr_degraded && !s->opened_read_only) {
			r->why_stop = why;
			r->stop = seq;
			return rc;
		}
		/* What the record changes may be what is lost: the rest goes on. */
		store_degrade(s, "journal page %llu: %.160s", (unsigned long long)seq, why.text);
		rc = 0;
	}
	return rc;
}

static fiber_fn int replay_chunk(struct replay *r, uint64_t seq, uint64_t nr, uint8_t *buf)
{
	struct store *s = r->s;
	uint64_t first = s->super.journal_page + seq % s->super.journal_pages;
	int rc = bdev_read(s->bch, buf, page_block(s, first), page_block(s, nr));

	for (uint64_t i = 0; i < nr; i++) {
		uint8_t *page = buf + i * PAGE_BYTES;
		int rc2 = rc ? bdev_read(s->bch, page, page_block(s, first + i), page_block(s, 1)) : 0;

		if (rc2)
			memset(page, 0, PAGE_BYTES); /* cannot be read: as good as torn */
	}
	rc = r->stopped ? 0 : records_prefetch(s, buf, seq, nr);
	for (uint64_t i = 0; i < nr && !rc; i++)
		rc = take_page(r, seq + i, buf + i * PAGE_BYTES);
	if (rc)
		return rc;
	return 0;
}

fiber_fn int journal_replay(struct store *s, struct blob_reason *reason)
{
	struct replay r = {.s = s, .start = s->super.journal_start};
	uint64_t n = s->super.journal_pages, end = r.start + n;
	uint8_t *buf = dma_alloc(CHUNK_PAGES * PAGE_BYTES, PAGE_BYTES);
	int rc = buf ? 0 : -ENOMEM;

	for (uint64_t seq = r.start; seq < end && !rc;) {
		uint64_t nr = end - seq < CHUNK_PAGES ? end - seq : CHUNK_PAGES, ring = n - seq % n;

		nr = nr < ring ? nr : ring;
		rc = replay_chunk(&r, seq, nr, buf);
		seq += nr;
	}
	if (buf)
		dma_free(buf);
	if (!r.stopped && !rc)
		r.stop = end;
	if (!rc && r.damaged) {
		check_found(s, STORE_FINDING_JOURNAL, s->super.journal_page + r.stop % n,
			    "journal page %llu: %.80s; page %llu knew it to be durable",
			    (unsigned long long)r.stop, r.why_stop.text, (unsigned long long)r.witness);
		if (!s->opened_read_only)
			rc = -EUCLEAN;
		else
			store_degrade(s, "journal page %llu is lost, and all after it",
				      (unsigned long long)r.stop);
	}
	if (rc == -EUCLEAN)
		refuse(reason, "page %llu, journal page %llu: %.170s",
		       (unsigned long long)(s->super.journal_page + r.stop % n), (unsigned long long)r.stop,
		       r.why_stop.text);
	if (!rc)
		rc = mirror_replay(s, &r.stop, reason);
	s->journal.open_seq = s->journal.start_seq = r.stop;
	s->journal.committed_seq = s->journal.pending_seq = r.stop;
	s->journal.epoch = s->super.epoch + !BLOB_MUTANT(EPOCH_KEPT);
	return rc;
}
