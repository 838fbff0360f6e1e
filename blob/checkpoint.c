/*
 * Checkpoints: what is dirty at one moment is written to fresh places, then the tables that name it, then,
 * after a device flush, the superblocks; then the journal up to that moment is no longer needed.
 *
 * Places that a checkpoint replaced are written over only after the next one is durable.
 */
#include "blob/internal.h"

#define WRITE_DEPTH 32u
#define PACE_PAGES  16u /* written before hosts' turn */

/* One page on its way, in both copies. */
struct page_write {
	struct fifo_link link;
	struct page_writer *writer;
	struct bdev_io io[2];
	struct iovec iov[2];
	uint8_t *buf[2];
	unsigned left;
};

/* Owner: the store, one checkpoint at a time. */
struct page_writer {
	struct store *store;
	struct page_write write[WRITE_DEPTH];
	struct fifo free;
	unsigned nr_in_flight;
	int status;
	struct fiber_wait *wait;
	uint8_t *mem;
};

int page_writer_init(struct store *s)
{
	struct page_writer *w = calloc(1, sizeof(*w));

	s->writer = w;
	if (!w)
		return -ENOMEM;
	w->store = s;
	w->mem = dma_alloc((size_t)WRITE_DEPTH * 2 * PAGE_BYTES, PAGE_BYTES);
	if (!w->mem)
		return -ENOMEM;
	fifo_init(&w->free);
	for (unsigned i = 0; i < (BLOB_MUTANT(CHECKPOINT_NOT_FROZEN) ? 2 : WRITE_DEPTH); i++) {
		w->write[i].writer = w;
		w->write[i].buf[0] = w->mem + (size_t)i * 2 * PAGE_BYTES;
		w->write[i].buf[1] = w->write[i].buf[0] + PAGE_BYTES;
		fifo_push(&w->free, &w->write[i].link);
	}
	return 0;
}

void page_writer_destroy(struct store *s)
{
	if (s->writer && s->writer->mem)
		dma_free(s->writer->mem);
	free(s->writer);
}

static void copy_done(struct page_write *pw, int status)
{
	struct page_writer *w = pw->writer;

	if (status && !w->status && !BLOB_MUTANT(FAILED_PAGE_IGNORED))
		w->status = status;
	if (--pw->left)
		return;
	w->nr_in_flight--;
	fifo_push(&w->free, &pw->link);
	if (w->wait) {
		struct fiber_wait *wait = w->wait;

		w->wait = NULL;
		fiber_wake(wait, 0);
	}
}

static void copy_a_done(struct bdev_io *io, int status)
{
	copy_done(container_of(io, struct page_write, io[0]), status);
}

static void copy_b_done(struct bdev_io *io, int status)
{
	copy_done(container_of(io, struct page_write, io[1]), status);
}

static fiber_fn void writer_wait(struct page_writer *w)
{
	struct fiber_wait wait;

	fiber_wait_init(&wait);
	w->wait = &wait;
	fiber_wait(&wait);
}

static fiber_fn struct page_write *writer_get(struct page_writer *w)
{
	while (fifo_empty(&w->free))
		writer_wait(w);
	return container_of(fifo_pop(&w->free), struct page_write, link);
}

static fiber_fn int writer_drain(struct page_writer *w)
{
	int rc;

	while (w->nr_in_flight)
		writer_wait(w);
	rc = w->status;
	w->status = 0;
	return rc;
}

/* The payload is in buf[0]; seals both copies and sends them. */
static void writer_send(struct page_write *pw, struct page_id id, uint32_t used, const struct page_ref *ref)
{
	struct store *s = pw->writer->store;

	memcpy(page_payload(pw->buf[1]), page_payload(pw->buf[0]), used);
	pw->left = 2;
	pw->writer->nr_in_flight++;
	for (unsigned i = 0; i < 2; i++) {
		id.address = i ? ref->b : ref->a;
		page_seal(pw->buf[i], &id, used);
		pw->iov[i] = (struct iovec){.iov_base = pw->buf[i], .iov_len = PAGE_BYTES};
		pw->io[i].done = i ? copy_b_done : copy_a_done;
		pw->io[i].op = BDEV_WRITE;
		pw->io[i].flags = 0;
		pw->io[i].iov = &pw->iov[i];
		pw->io[i].iovcnt = 1;
		pw->io[i].offset_blocks = page_block(s, id.address);
		pw->io[i].nr_blocks = page_block(s, 1);
		bdev_submit(s->bch, &pw->io[i]);
	}
	s->stats.nr_checkpoint_pages++;
}

/* Gives a page a new place, or none; the old one may be written over after the next checkpoint. */
static int ref_move(struct store *s, struct page_ref *ref, uint64_t generation, bool present)
{
	if (ref->a && BLOB_MUTANT(SLOT_EARLY_REUSE)) {
		vec_push(&s->free_slots[0], ref->a);
		vec_push(&s->free_slots[1], ref->b);
	} else if (ref->a && (vec_push(&s->replaced, ref->a) || vec_push(&s->replaced, ref->b))) {
		return -ENOMEM;
	}
	*ref = (struct page_ref){0};
	if (!present)
		return 0;
	if (!pages_free(s))
		return -ENOSPC; /* admission sees to it that this cannot be */
	ref->a = s->free_slots[0].v[--s->free_slots[0].nr];
	ref->b = s->free_slots[1].v[--s->free_slots[1].nr];
	ref->generation = generation;
	return 0;
}

static int page_move(struct store *s, struct mpage *page, struct page_write *pw, uint64_t generation,
		     bool *ret_sent)
{
	uint8_t *payload = page_payload(pw->buf[0]);
	struct page_id id = {
		.store = s->id, .owner = table_owner(page->table, 0, page->index), .generation = generation};
	uint32_t used = page->image_used;
	bool present;
	int rc;

	if (page->image) {
		present = page->image_type != 0 && used;
		id.type = page->image_type;
		memcpy(payload, page->image, used);
		free(page->image);
		page->image = NULL;
	} else {
		present = mpage_encode(s, page, payload, &used, &id.type);
	}
	rc = ref_move(s, &page->ref, generation, present);
	if (rc)
		return rc;
	s->table[page->table].level[1][page->index / TABLE_FANOUT].dirty = true;
	page->lost = false;
	if (present)
		writer_send(pw, id, used, &page->ref);
	*ret_sent = present;
	return 0;
}

/* Whether somebody waits for it, or soon will: then it does not wait for anybody. */
static bool urgent(const struct store *s)
{
	const struct journal *j = &s->journal;

	return s->nr_ckpt_waiting || s->stopping || !list_empty(&s->admit_waiters) || !list_empty(&s->space_waiters) ||
	       j->open_seq - j->start_seq > s->super.journal_pages / 4 * 3;
}

static fiber_fn int write_frozen(struct store *s, uint64_t generation)
{
	unsigned nr = 0;

	while (!list_empty(&s->frozen)) {
		struct page_write *pw = writer_get(s->writer);
		struct mpage *page = list_entry(list_pop(&s->frozen), struct mpage, frozen_link);
		bool sent = false;
		int rc = page_move(s, page, pw, generation, &sent);

		s->nr_frozen--;
		if (!sent)
			fifo_push(&s->writer->free, &pw->link);
		if (rc)
			return rc;
		if (s->writer->status)
			return s->writer->status;
		if (++nr % PACE_PAGES == 0 && !urgent(s))
			pace_unless(s, 2ull * PACE_PAGES * PAGE_BYTES, urgent);
	}
	return 0;
}

static bool encode_tpage(struct store *s, unsigned table, uint32_t level, uint64_t index, uint8_t *payload)
{
	struct mtable *t = &s->table[table];
	bool any = false;

	memset(payload, 0, TABLE_PAGE_USED);
	put32(payload, level);
	for (uint64_t i = 0; i < TABLE_FANOUT; i++) {
		uint64_t child = index * TABLE_FANOUT + i;
		struct page_ref *ref = NULL;

		if (level == 1 && index < t->nr_chunks && t->chunks[index])
			ref = &t->chunks[index][i].ref;
		else if (level > 1 && child < t->nr_level[level - 1])
			ref = &t->level[level - 1][child].ref;
		if (!ref || !ref->a)
			continue;
		ref_encode(ref, payload + 8 + i * 24);
		any = true;
	}
	return any;
}

static int tpage_move(struct store *s, unsigned table, uint32_t level, uint64_t index, struct page_write *pw,
		      uint64_t generation, bool *ret_sent)
{
	struct mtable *t = &s->table[table];
	struct tpage *page = &t->level[level][index];
	struct page_id id = {.type = PAGE_TABLE,
			     .store = s->id,
			     .owner = table_owner(table, level, index),
			     .generation = generation};
	bool present = encode_tpage(s, table, level, index, page_payload(pw->buf[0]));
	int rc = ref_move(s, &page->ref, generation, present);

	if (rc)
		return rc;
	page->dirty = page->lost = false;
	if (level < t->height)
		t->level[level + 1][index / TABLE_FANOUT].dirty = true;
	if (present)
		writer_send(pw, id, TABLE_PAGE_USED, &page->ref);
	*ret_sent = present;
	return 0;
}

static fiber_fn int write_table(struct store *s, unsigned table, struct super *super)
{
	struct mtable *t = &s->table[table];
	uint32_t height = t->height;
	uint64_t capacity = 1;

	for (uint32_t level = 1; level <= height; level++) {
		capacity *= TABLE_FANOUT;
		for (uint64_t i = 0; i < t->nr_level[level]; i++) {
			struct page_write *pw;
			bool sent = false;
			int rc;

			if (!t->level[level][i].dirty)
				continue;
			pw = writer_get(s->writer);
			rc = tpage_move(s, table, level, i, pw, super->generation, &sent);
			if (!sent)
				fifo_push(&s->writer->free, &pw->link);
			if (rc)
				return rc;
		}
	}
	super->table[table] = (struct table_root){0};
	if (height && t->level[height][0].ref.a) {
		super->table[table].ref = t->level[height][0].ref;
		super->table[table].height = height;
		super->table[table].nr_pages = t->nr_pages < capacity ? t->nr_pages : capacity;
	}
	return 0;
}

fiber_fn int super_write(struct store *s, const struct super *super)
{
	uint8_t *buf = dma_alloc(PAGE_BYTES, PAGE_BYTES);
	unsigned flags = BLOB_MUTANT(SUPER_NO_FUA) ? 0 : BDEV_IO_FUA;
	int rc = buf ? 0 : -ENOMEM;

	for (unsigned i = 0; i < (BLOB_MUTANT(ONE_SUPERBLOCK) ? 1 : 2) && !rc; i++) {
		super_encode(super, i, buf);
		rc = bdev_write(s->bch, buf, page_block(s, i ? SUPER_PAGE_1 : SUPER_PAGE_0), page_block(s, 1),
				flags);
	}
	dma_free(buf);
	return rc;
}

/* The places that the checkpoint before this one replaced are free now. */
static void recycle(struct store *s)
{
	struct u64_vec *old = &s->replaced_before;

	if (s->hold) {
		for (size_t i = 0; i < s->replaced.nr; i++)
			vec_push(old, s->replaced.v[i]);
		s->replaced.nr = 0;
		return;
	}
	for (size_t i = 0; i + 1 < old->nr; i += 2) {
		/* In the order in which they are taken, so that a page may find an older self where its write is lost. */
		size_t at = BLOB_MUTANT(STALE_PAGE_TAKEN) ? old->nr - 2 - i : i;

		vec_push(&s->free_slots[0], old->v[at]);
		vec_push(&s->free_slots[1], old->v[at + 1]);
	}
	old->nr = 0;
	vec_free(old);
	*old = s->replaced;
	s->replaced = (struct u64_vec){0};
}

static fiber_fn int write_all(struct store *s, struct super *super)
{
	int rc, rc2;

	pace_begin(s);
	rc = write_frozen(s, super->generation);
	pace_end(s);
	for (unsigned i = 0; i < NR_TABLES && !rc; i++)
		rc = write_table(s, i, super);
	rc2 = writer_drain(s->writer);
	rc = rc ? rc : rc2;
	if (!rc && BLOB_MUTANT(FLIP_BEFORE_FLUSH))
		rc = super_write(s, super);
	if (!rc && s->has_cache) {
		s->stats.nr_device_flushes++;
		rc = bdev_flush(s->bch);
	}
	return rc ? rc : super_write(s, super);
}

fiber_fn int checkpoint_run(struct store *s, bool clean)
{
	struct super super;
	uint64_t cut;
	int rc;

	if (!store_writable(s))
		return -EIO;
	s->ckpt_running = true;
	s->nr_ckpt_begun++;
	cut = journal_cut(s);
	pages_freeze(s);
	if (BLOB_MUTANT(METADATA_CLUSTER_EARLY) && pages_free(s) < 2 * pages_needed(s))
		(void)meta_grow(s, OP_THIN); /* as somebody who is admitted just now may */
	super = s->super;
	super.generation++;
	super.journal_start = cut;
	super.epoch = s->journal.epoch;
	super.clean = clean;
	super.written_ms = clock_wall_ms();
	if (BLOB_MUTANT(CUT_BEFORE_ROOT))
		s->journal.start_seq = cut;
	rc = write_all(s, &super);
	s->ckpt_running = false;
	if (rc) {
		store_fail(s, rc, "a checkpoint failed");
		return rc;
	}
	s->super.generation = super.generation;
	s->super.journal_start = cut;
	s->super.written_ms = super.written_ms;
	memcpy(s->super.table, super.table, sizeof(super.table));
	s->journal.start_seq = cut;
	recycle(s);
	s->stats.nr_checkpoints++;
	s->nr_ckpt_ended = s->nr_ckpt_begun;
	cache_check(s);
	return 0;
}

void checkpoint_demand(struct store *s)
{
	s->ckpt_demanded = true;
	if (!s->ckpt_running)
		fiber_cond_signal(&s->ckpt_wake);
	else
		pace_hurry(s);
}

void checkpoint_fiber(void *arg)
{
	struct store *s = arg;

	while (!s->stopping_core) {
		if (!s->ckpt_demanded || !store_writable(s)) {
			fiber_cond_broadcast(&s->ckpt_done);
			fiber_cond_wait(&s->ckpt_wake);
			continue;
		}
		s->ckpt_demanded = false;
		checkpoint_run(s, false);
		fiber_cond_broadcast(&s->ckpt_done);
		waiters_kick(&s->admit_waiters);
	}
	fiber_cond_broadcast(&s->ckpt_done);
	store_core_over(s);
}

fiber_fn int checkpoint_wait(struct store *s)
{
	uint64_t target = s->nr_ckpt_begun + 1;

	s->nr_ckpt_waiting++;
	while (s->nr_ckpt_ended < target && store_writable(s)) {
		checkpoint_demand(s);
		fiber_cond_wait(&s->ckpt_done);
	}
	s->nr_ckpt_waiting--;
	return store_writable(s) ? 0 : -EIO;
}

fiber_fn int store_checkpoint(struct store *s)
{
	return s->opened_read_only ? -EROFS : checkpoint_wait(s);
}
