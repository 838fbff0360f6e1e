/*
 * The cache of checksum pages.  A page is 8 units of 512 bytes, each whole or not by itself, so that a torn write harms nothing
 * that did not change; it lies in two places, and a unit that is bad in one is taken from the other.
 *
 * Pages are found by any thread without locks, and changed by the owner.  A page that changed is written to both its places
 * before it leaves the cache, or when the marks of its clusters are taken back.
 */
#include "blob/csum.h"

#include <isa-l/crc.h>

uint32_t csum_crc(uint32_t seed, const void *buf, size_t len)
{
	/* ISA-L takes no const pointer, though it only reads. */
	return crc32_iscsi((unsigned char *)(uintptr_t)buf, len, seed);
}

uint32_t csum_of_sub(const void *buf)
{
	uint32_t crc = ~csum_crc(~0u, buf, BLOB_SUB_SIZE);

	return crc ? crc : 1;
}

/* --- memory --- */

int csum_init(struct store *s)
{
	struct csums *c = calloc(1, sizeof(*c));

	s->csum = c;
	if (!c)
		return -ENOMEM;
	c->store = s;
	c->tick_us = SUM_TICK_US;
	list_init(&c->lru);
	list_init(&c->dirty);
	list_init(&c->no_load);
	fiber_cond_init(&c->wake);
	fiber_cond_init(&c->cleaned);
	for (unsigned i = 0; i < SUM_LOADS; i++)
		list_init(&c->load[i].waiters);
	c->max_cached = (s->sum_cache_bytes ? s->sum_cache_bytes : 64ull << 20) / sizeof(struct sum_page);
	if (c->max_cached < SUM_PAGES_MIN)
		c->max_cached = SUM_PAGES_MIN;
	return csum_resize(s, s->nr_clusters);
}

static int bits_grow(uint64_t **bits, uint64_t nr_words, uint64_t old_words)
{
	uint64_t *grown = calloc(nr_words, sizeof(uint64_t));

	if (!grown)
		return -ENOMEM;
	if (*bits)
		memcpy(grown, *bits, old_words * sizeof(uint64_t));
	free(*bits);
	*bits = grown;
	return 0;
}

int csum_resize(struct store *s, uint64_t nr_clusters)
{
	struct csums *c = s->csum;
	uint64_t **bits[] = {&c->marked, &c->marking, &c->touched, &c->cleaning, &c->unsettled};
	uint64_t nr_pages = (nr_clusters + SUM_GROUP - 1) / SUM_GROUP * s->subs_a_cluster;
	uint64_t old_words = c->marked ? s->nr_clusters / 64 + 1 : 0;
	_Atomic(struct sum_page *) *pages, *old = c->pages;

	for (unsigned i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
		if (bits_grow(bits[i], nr_clusters / 64 + 1, old_words))
			return -ENOMEM;
	if (nr_pages <= c->nr_pages)
		return 0;
	/* Other threads may be looking: the old array goes once they have looked. */
	pages = calloc(1, sizeof(struct retired) + nr_pages * sizeof(*pages));
	if (!pages)
		return -ENOMEM;
	pages = (void *)((char *)pages + sizeof(struct retired));
	for (uint64_t i = 0; i < c->nr_pages; i++)
		pages[i] = old[i];
	atomic_thread_fence(memory_order_release);
	c->pages = pages;
	c->nr_pages = nr_pages;
	if (old)
		retire(s, (struct retired *)(void *)((char *)old - sizeof(struct retired)));
	return 0;
}

void csum_destroy(struct store *s)
{
	struct csums *c = s->csum;
	struct list *it;

	if (!c)
		return;
	while ((it = list_pop(&c->lru)))
		free(list_entry(it, struct sum_page, lru));
	for (unsigned i = 0; i < SUM_LOADS; i++)
		if (c->load[i].buf[0])
			dma_free(c->load[i].buf[0]);
	if (c->pages)
		free((char *)c->pages - sizeof(struct retired));
	free(c->marked);
	free(c->marking);
	free(c->touched);
	free(c->cleaning);
	free(c->unsettled);
	free(c);
}

/* --- bytes --- */

static uint64_t page_place(const struct store *s, uint64_t index, bool copy_b)
{
	uint64_t group = index >> s->sub_shift;
	uint32_t cluster = sums_cluster(&s->super, group, copy_b);

	return cluster_page(s, cluster) + (index & (s->subs_a_cluster - 1));
}

static void page_encode(const struct store *s, const struct sum_page *page, uint8_t *buf)
{
	uint32_t sums[SUMS_A_UNIT];

	for (unsigned u = 0; u < UNITS_A_PAGE; u++) {
		for (unsigned i = 0; i < SUMS_A_UNIT; i++)
			sums[i] = atomic_load_explicit(&page->sum[u * SUMS_A_UNIT + i], memory_order_relaxed);
		sum_unit_encode(buf + u * SUM_UNIT_BYTES, s->id, page->index * UNITS_A_PAGE + u, sums);
	}
}

/* --- eviction --- */

static void page_drop(struct csums *c, struct sum_page *page)
{
	atomic_store_explicit(&c->pages[page->index], NULL, memory_order_release);
	list_del(&page->lru);
	c->nr_cached--;
	c->nr_broken -= page->broken;
	c->store->resident_bytes -= sizeof(*page);
	retire(c->store, &page->retired);
}

/* Makes room for one more; false: all that could go must be written first. */
static bool make_room(struct csums *c)
{
	for (uint64_t looked = 0; c->nr_cached >= c->max_cached && looked < 2 * c->max_cached + 2; looked++) {
		struct sum_page *page = list_entry(list_first(&c->lru), struct sum_page, lru);

		list_del(&page->lru);
		list_add_tail(&c->lru, &page->lru);
		if (page->nr_pins || page->writing || !list_empty(&page->dirty_link))
			continue;
		if (atomic_exchange_explicit(&page->used, false, memory_order_relaxed))
			continue;
		page_drop(c, page);
	}
	/* What is dirty is written while there is room yet. */
	if (c->nr_dirty_pages > c->max_cached / 2)
		fiber_cond_signal(&c->wake);
	return c->nr_cached < c->max_cached;
}

void sum_pages_drop_broken(struct csums *c)
{
	struct list *it, *next;

	list_for_each_safe (it, next, &c->lru) {
		struct sum_page *page = list_entry(it, struct sum_page, lru);

		if (page->broken && !page->nr_pins)
			page_drop(c, page);
	}
}

void sum_page_changed(struct csums *c, struct sum_page *page)
{
	if (!list_empty(&page->dirty_link))
		return;
	list_add_tail(&c->dirty, &page->dirty_link);
	c->nr_dirty_pages++;
	if (c->nr_dirty_pages > c->max_cached / 2)
		fiber_cond_signal(&c->wake);
}

void sum_page_mend(struct csums *c, struct sum_page *page)
{
	c->nr_mend += !page->mend;
	page->mend = true;
	sum_page_changed(c, page);
	fiber_cond_signal(&c->wake);
}

fiber_fn int sum_page_write(struct csums *c, struct sum_page *page)
{
	struct store *s = c->store;
	uint8_t *buf = dma_alloc(PAGE_BYTES, PAGE_BYTES);
	int rc = buf ? 0 : -ENOMEM;

	page->writing = true;
	if (!rc) {
		page_encode(s, page, buf);
		list_del(&page->dirty_link);
		c->nr_dirty_pages--;
		c->nr_mend -= page->mend;
		page->mend = false;
	}
	for (unsigned i = 0; i < 2 && !rc; i++) {
		rc = bdev_write(s->bch, buf, page_block(s, page_place(s, page->index, i)), page_block(s, 1), 0);
		if (rc)
			sum_page_changed(c, page);
	}
	if (buf)
		dma_free(buf);
	page->writing = false;
	if (!rc)
		s->stats.nr_sum_writes++;
	waiters_kick(&c->no_load);
	return rc;
}

/* --- loading --- */

static void load_read(struct sum_load *l);

static void load_over(struct sum_load *l)
{
	struct csums *c = l->all;
	struct list waiters;

	list_init(&waiters);
	list_splice_tail(&waiters, &l->waiters);
	l->busy = false;
	waiters_kick(&waiters);
	waiters_kick(&c->no_load);
}

static void page_insert(struct csums *c, struct sum_page *page)
{
	list_add_tail(&c->lru, &page->lru);
	c->nr_cached++;
	c->store->resident_bytes += sizeof(*page);
	atomic_store_explicit(&page->used, true, memory_order_relaxed);
	atomic_store_explicit(&c->pages[page->index], page, memory_order_release);
}

/* Of both copies what is good; a unit that neither has says nothing about its blocks. */
static void load_take(struct sum_load *l, bool have_b)
{
	struct csums *c = l->all;
	struct store *s = c->store;
	struct sum_page *page = calloc(1, sizeof(*page));
	unsigned nr_blank = 0, nr_lost = 0, nr_healed = 0;

	if (!page) {
		store_fail(s, -ENOMEM, "no memory for a page of checksums");
		load_over(l);
		return;
	}
	list_init(&page->lru);
	list_init(&page->dirty_link);
	page->index = l->index;
	for (unsigned u = 0; u < UNITS_A_PAGE; u++) {
		uint64_t unit = l->index * UNITS_A_PAGE + u;
		uint32_t sums[SUMS_A_UNIT] = {0};
		int a = -EIO, b = 0;

		if (!l->failed[0])
			a = sum_unit_decode(l->buf[0] + u * SUM_UNIT_BYTES, s->id, unit, sums);
		if (a && have_b)
			b = l->failed[1] ? -EIO : sum_unit_decode(l->buf[1] + u * SUM_UNIT_BYTES, s->id, unit, sums);
		page->broken |= a && b && (a == -EIO || b == -EIO);
		nr_blank += a == -ENODATA && b == -ENODATA;
		nr_healed += a && !b;
		nr_lost += a && b && !(a == -ENODATA && b == -ENODATA);
		for (unsigned i = 0; i < SUMS_A_UNIT; i++)
			atomic_store_explicit(&page->sum[u * SUMS_A_UNIT + i], sums[i], memory_order_relaxed);
	}
	page_insert(c, page);
	if (page->broken) {
		c->nr_broken++;
		fiber_cond_signal(&c->wake);
		load_over(l);
		return;
	}
	if (nr_healed) {
		log_warning("store %s: page %llu of checksums: %u units are bad; the copy at page %llu is used", s->super.name,
			    (unsigned long long)page_place(s, l->index, false), nr_healed,
			    (unsigned long long)page_place(s, l->index, true));
		s->nr_healed++;
	}
	if (nr_lost)
		store_degrade(s, "page %llu of checksums and its copy %llu: %u units are lost; their blocks are unverified",
			      (unsigned long long)page_place(s, l->index, false),
			      (unsigned long long)page_place(s, l->index, true), nr_lost);
	if ((nr_healed || nr_lost) && store_writable(s))
		sum_page_mend(c, page);
	load_over(l);
}

static void load_done(struct bdev_io *bio, int status)
{
	struct sum_load *l = container_of(bio, struct sum_load, bio);
	struct store *s = l->all->store;
	uint32_t sums[SUMS_A_UNIT];
	bool whole = !status;

	if (status == -ERANGE) { /* behind the end of a device that is shorter than its store: bad, and not to be tried again */
		memset(l->buf[l->copy_b], 0xff, PAGE_BYTES);
		status = 0;
	}
	l->failed[l->copy_b] = status;
	if (l->copy_b) {
		load_take(l, true);
		return;
	}
	for (unsigned u = 0; u < UNITS_A_PAGE && whole; u++)
		whole = !sum_unit_decode(l->buf[0] + u * SUM_UNIT_BYTES, s->id, l->index * UNITS_A_PAGE + u, sums);
	if (whole) {
		load_take(l, false);
		return;
	}
	l->copy_b = true;
	load_read(l);
}

static void load_read(struct sum_load *l)
{
	struct store *s = l->all->store;

	l->iov = (struct iovec){.iov_base = l->buf[l->copy_b], .iov_len = PAGE_BYTES};
	l->bio.done = load_done;
	l->bio.op = BDEV_READ;
	l->bio.flags = 0;
	l->bio.iov = &l->iov;
	l->bio.iovcnt = 1;
	l->bio.offset_blocks = page_block(s, page_place(s, l->index, l->copy_b));
	l->bio.nr_blocks = page_block(s, 1);
	s->stats.nr_sum_reads++;
	bdev_submit(s->bch, &l->bio);
}

struct sum_page *sum_page_get(struct csums *c, uint64_t index, struct waiter *w)
{
	struct sum_page *page = sum_page_find(c, index);
	struct sum_load *free_one = NULL;

	if (page) {
		atomic_store_explicit(&page->used, true, memory_order_relaxed);
		return page;
	}
	for (unsigned i = 0; i < SUM_LOADS; i++) {
		struct sum_load *l = &c->load[i];

		if (l->busy && l->index == index) {
			list_add_tail(&l->waiters, &w->link);
			return NULL;
		}
		if (!l->busy && !free_one)
			free_one = l;
	}
	if (free_one && !free_one->buf[0])
		free_one->buf[0] = dma_alloc(2 * PAGE_BYTES, PAGE_BYTES); /* kept for the next time */
	if (!free_one || !make_room(c) || !free_one->buf[0]) {
		fiber_cond_signal(&c->wake);
		list_add_tail(&c->no_load, &w->link);
		return NULL;
	}
	free_one->buf[1] = free_one->buf[0] + PAGE_BYTES;
	free_one->all = c;
	free_one->busy = true;
	free_one->copy_b = free_one->failed[0] = free_one->failed[1] = false;
	free_one->index = index;
	list_add_tail(&free_one->waiters, &w->link);
	load_read(free_one);
	return NULL;
}

struct fiber_load {
	struct waiter waiter;
	struct fiber_wait wait;
};

static void wake_loader(struct waiter *w)
{
	fiber_wake(&container_of(w, struct fiber_load, waiter)->wait, 0);
}

fiber_fn struct sum_page *sum_page_wait(struct csums *c, uint64_t index)
{
	for (;;) {
		struct fiber_load w = {.waiter.retry = wake_loader};
		struct sum_page *page;

		fiber_wait_init(&w.wait);
		page = sum_page_get(c, index, &w.waiter);
		if (page)
			return page;
		fiber_wait(&w.wait);
	}
}

/* --- both copies --- */

static unsigned units_bad(const struct store *s, const uint8_t *buf, uint64_t index)
{
	uint32_t sums[SUMS_A_UNIT];
	unsigned nr = 0;

	for (unsigned u = 0; u < UNITS_A_PAGE; u++)
		nr += sum_unit_decode(buf + u * SUM_UNIT_BYTES, s->id, index * UNITS_A_PAGE + u, sums) == -EUCLEAN;
	return nr;
}

fiber_fn int sum_page_compare(struct csums *c, uint64_t index, uint8_t *buf_a, uint8_t *buf_b)
{
	struct store *s = c->store;
	struct sum_page *page = sum_page_find(c, index);
	int a = bdev_read(s->bch, buf_a, page_block(s, page_place(s, index, false)), page_block(s, 1));
	int b = bdev_read(s->bch, buf_b, page_block(s, page_place(s, index, true)), page_block(s, 1));

	if (a == -ENODEV)
		return a;
	/* Copies that are being written, or differ because one was not yet when power went, are as good as each other. */
	if ((!a && !units_bad(s, buf_a, index) && !b && !units_bad(s, buf_b, index)) || (page && page->writing) ||
	    !store_writable(s))
		return 0;
	log_warning("store %s: page %llu of checksums or its copy %llu is bad; both are written anew", s->super.name,
		    (unsigned long long)page_place(s, index, false), (unsigned long long)page_place(s, index, true));
	page = sum_page_wait(c, index); /* which heals copy A from copy B, if it was not here */
	if (page->broken)
		return 0;
	s->nr_healed++;
	sum_page_mend(c, page);
	return 0;
}
