/*
 * The journal: records are put into pages in memory and become durable together, by commits.
 *
 * A commit takes all pages that hold records, flushes the device if a record relies on data (a record is only
 * made after its data write has completed, so a flush submitted now covers it), writes the pages with FUA,
 * and tells who waits.  One commit runs at a time; what comes meanwhile goes with the next.  A commit that
 * fails makes the store read-only.
 */
#include "blob/internal.h"

static uint8_t *ram_page(struct journal *j, uint64_t seq)
{
	return j->ram + seq % j->nr_ram * PAGE_BYTES;
}

static void timer_fired(void *arg)
{
	journal_demand(arg);
}

uint32_t journal_ram_pages(const struct store *s)
{
	return s->super.journal_pages < 512 ? s->super.journal_pages : 512;
}

int blob_journal_init(struct store *s)
{
	struct journal *j = &s->journal;

	j->nr_ram = journal_ram_pages(s);
	j->ram = dma_alloc((size_t)j->nr_ram * PAGE_BYTES, PAGE_BYTES);
	if (!j->ram)
		return -ENOMEM;
	list_init(&j->waiters);
	fiber_cond_init(&j->wake);
	timer_init(&j->timer, timer_fired, s);
	return 0;
}

void blob_journal_destroy(struct store *s)
{
	dma_free(s->journal.ram);
	s->journal.ram = NULL;
}

/* --- records --- */

static void page_close(struct store *s)
{
	struct journal *j = &s->journal;
	uint8_t *p = page_payload(ram_page(j, j->open_seq));

	put32(p + 8, j->open_records);
	put32(p + 12, j->open_used); /* until it is written: see pages_seal() */
	j->open_seq++;
	j->open_used = 0;
	j->open_records = 0;
}

uint64_t journal_cut(struct store *s)
{
	assert(!s->journal.in_op);
	if (s->journal.open_records)
		page_close(s);
	return s->journal.open_seq;
}

/* Mostly it is so already. */
static void set_pending(struct journal *j, uint64_t seq)
{
	if (atomic_load_explicit(&j->pending_seq, memory_order_relaxed) != seq)
		atomic_store(&j->pending_seq, seq);
}

void journal_begin(struct store *s, uint32_t max_bytes)
{
	struct journal *j = &s->journal;

	assert(!j->in_op && max_bytes <= JOURNAL_RECORDS_MAX);
	atomic_store_explicit(&j->in_op, true, memory_order_relaxed); /* seen by whoever sees what the records do */
	if (j->open_records && j->open_used + max_bytes > JOURNAL_RECORDS_MAX)
		page_close(s);
	if (!j->open_records)
		memset(page_payload(ram_page(j, j->open_seq)), 0, JOURNAL_PAYLOAD_HEADER);
	j->op_start = j->open_used;
	/* Other threads see each record at work before the operation ends: what relies on it must wait for its commit. */
	set_pending(j, j->open_seq + 1);
}

uint8_t *journal_record(struct store *s, uint8_t type, uint32_t body_bytes)
{
	struct journal *j = &s->journal;
	uint32_t len = (RECORD_HEADER + body_bytes + 3) & ~3u;
	uint8_t *p = page_payload(ram_page(j, j->open_seq)) + JOURNAL_PAYLOAD_HEADER + j->open_used;

	assert(j->in_op && j->open_used + len <= JOURNAL_RECORDS_MAX);
	memset(p, 0, len);
	p[0] = type;
	put16(p + 2, len);
	j->open_used += len;
	j->open_records++;
	s->stats.nr_records++;
	return p + RECORD_HEADER;
}

void journal_end(struct store *s)
{
	struct journal *j = &s->journal;

	assert(j->in_op);
	if (j->open_used > j->op_start)
		mirror_put(s, j->open_seq, page_payload(ram_page(j, j->open_seq)) + JOURNAL_PAYLOAD_HEADER, j->op_start,
			   j->open_used, j->open_records);
	atomic_store_explicit(&j->in_op, false, memory_order_release);
	set_pending(j, j->open_seq + (j->open_records ? 1 : 0));
	if (j->open_seq - j->start_seq >= s->super.journal_pages / 2)
		checkpoint_demand(s);
	if (j->open_seq - j->committed_seq >= j->nr_ram / 2)
		journal_demand(s);
	else if (!timer_armed(&j->timer))
		timer_arm(&j->timer, COMMIT_DELAY_US);
}

/* --- commits --- */

void journal_demand(struct store *s)
{
	s->journal.demanded = true;
	if (!s->journal.running)
		fiber_cond_signal(&s->journal.wake);
}

void journal_wait_add(struct store *s, struct commit_wait *wait)
{
	list_add_tail(&s->journal.waiters, &wait->link);
	journal_demand(s);
}

struct fiber_commit {
	struct commit_wait commit;
	struct fiber_wait wait;
};

static void wake_fiber(struct commit_wait *c, int status)
{
	fiber_wake(&container_of(c, struct fiber_commit, commit)->wait, status);
}

fiber_fn int journal_commit_wait(struct store *s, bool flush)
{
	struct fiber_commit w = {.commit = {.flush = flush, .done = wake_fiber}};

	fiber_wait_init(&w.wait);
	journal_wait_add(s, &w.commit);
	return fiber_wait(&w.wait);
}

static void pages_seal(struct store *s, uint64_t from, uint64_t to)
{
	struct journal *j = &s->journal;

	for (uint64_t seq = from; seq < to; seq++) {
		uint8_t *page = ram_page(j, seq), *p = page_payload(page);
		uint32_t used = JOURNAL_PAYLOAD_HEADER + get32(p + 12);

		put64(p, j->committed_seq);
		put32(p + 12, 0);
		page_seal(page,
			  &(struct page_id){.type = PAGE_JOURNAL,
					    .store = s->id,
					    .address = s->super.journal_page + seq % s->super.journal_pages,
					    .owner = seq,
					    .generation = j->epoch},
			  used);
	}
}

static fiber_fn int pages_write(struct store *s, uint64_t from, uint64_t to)
{
	struct journal *j = &s->journal;
	unsigned flags = BLOB_MUTANT(JOURNAL_NO_FUA) ? 0 : BDEV_IO_FUA;

	pages_seal(s, from, to);
	while (from < to) {
		uint64_t nr = to - from, ring = s->super.journal_pages - from % s->super.journal_pages;
		uint64_t ram = j->nr_ram - from % j->nr_ram;
		int rc;

		nr = nr < ring ? nr : ring;
		nr = nr < ram ? nr : ram;
		rc = bdev_write(s->bch, ram_page(j, from),
				page_block(s, s->super.journal_page + from % s->super.journal_pages),
				page_block(s, nr), flags);
		if (rc)
			return rc;
		s->stats.nr_journal_pages += nr;
		from += nr;
	}
	return 0;
}

static fiber_fn int device_flush(struct store *s, bool data, const struct list *waiters)
{
	const struct list *it;
	bool flush = data;

	list_for_each (it, waiters)
		flush |= list_entry(it, struct commit_wait, link)->flush;
	if (!flush || !s->has_cache || BLOB_MUTANT(NO_COMMIT_FLUSH))
		return 0;
	s->stats.nr_device_flushes++;
	return bdev_flush(s->bch);
}

static fiber_fn void commit_round(struct store *s)
{
	struct journal *j = &s->journal;
	struct list now, *it;
	bool data = j->has_data;
	uint64_t target, before = j->committed_seq;
	int rc = 0;

	list_init(&now);
	list_splice_tail(&now, &j->waiters);
	j->has_data = false;
	if (j->open_records)
		page_close(s);
	target = j->open_seq;
	timer_cancel(&j->timer);
	if (!store_writable(s))
		rc = -EIO;
	if (!rc)
		rc = device_flush(s, data, &now);
	if (BLOB_MUTANT(FLUSH_BEFORE_COMPLETION)) {
		if (j->open_records)
			page_close(s);
		target = j->open_seq;
		list_splice_tail(&now, &j->waiters);
	}
	if (BLOB_MUTANT(NODE_COMES_SETTLED))
		fiber_sleep(500); /* the crash that does harm falls between a sharing's end and its commit */
	if (!rc && target != j->committed_seq) {
		rc = pages_write(s, j->committed_seq, target);
		s->stats.nr_commits++;
	}
	if (BLOB_MUTANT(COMMIT_JOINS_RUNNING))
		list_splice_tail(&now, &j->waiters);
	if (rc)
		store_fail(s, rc, "a device flush or journal write failed");
	else {
		atomic_store(&j->committed_seq, target);
		mirror_committed(s, target);
	}
	while ((it = list_pop(&now)))
		list_entry(it, struct commit_wait, link)->done(list_entry(it, struct commit_wait, link), rc);
	fiber_cond_signal(&s->free_wake);
	if (rc || before != target)
		waiters_kick(&s->admit_waiters);
}

void commit_fiber(void *arg)
{
	struct store *s = arg;
	struct journal *j = &s->journal;

	while (!s->stopping_core || j->demanded || !list_empty(&j->waiters)) {
		if (!j->demanded && list_empty(&j->waiters)) {
			fiber_cond_wait(&j->wake);
			continue;
		}
		j->running = true;
		j->demanded = false;
		commit_round(s);
		j->running = false;
		fiber_yield(); /* a round without I/O does not suspend by itself */
		if (j->committed_seq != j->pending_seq && !timer_armed(&j->timer) && store_writable(s))
			timer_arm(&j->timer, COMMIT_DELAY_US);
	}
	timer_cancel(&j->timer);
	store_core_over(s);
}
