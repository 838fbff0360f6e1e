/* Stores: opening, closing, failing, and what they tell about themselves. */
#include "blob/cache.h"

#include <stdarg.h>
#include <stdio.h>

#define DIRTY_MIN 64u /* pages, before a checkpoint is due for the map cache's sake */

/* --- small things --- */

void waiters_kick(struct list *waiters)
{
	struct list now, *it;

	if (list_empty(waiters))
		return;
	list_init(&now);
	list_splice_tail(&now, waiters);
	while ((it = list_pop(&now))) {
		struct waiter *w = list_entry(it, struct waiter, link);

		w->retry(w);
	}
}

void store_degrade(struct store *s, const char *fmt, ...)
{
	char text[320];
	va_list ap;
	char **grown;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!s->checking)
		log_error("store %s: degraded: %s", s->super.name, text);
	grown = realloc(s->degraded, (s->nr_degraded + 1) * sizeof(char *));
	if (!grown)
		return;
	s->degraded = grown;
	s->degraded[s->nr_degraded] = strdup(text);
	if (s->degraded[s->nr_degraded])
		s->nr_degraded++;
}

static void tell_failed(void *arg)
{
	struct store *s = arg;

	s->nr_tasks--;
	if (s->event)
		s->event(s, s->failed == -ENODEV ? STORE_EVENT_REMOVED : STORE_EVENT_READ_ONLY, s->event_arg);
}

/* Those who wait for space or room hear from their next try that the store has failed. */
static void kick_all(struct store *s)
{
	waiters_kick(&s->space_waiters);
	waiters_kick(&s->admit_waiters);
	fiber_cond_broadcast(&s->ckpt_done);
	fiber_cond_broadcast(&s->freed_cond);
	fiber_cond_signal(&s->journal.wake);
}

static void kick_task(void *arg)
{
	struct store *s = arg;

	s->nr_tasks--;
	kick_all(s);
}

void store_fail_now(struct store *s, int status)
{
	int none = 0;

	if (status == -ENODEV)
		atomic_store(&s->failed, -ENODEV);
	else
		atomic_compare_exchange_strong(&s->failed, &none, -EIO);
	mirror_invalidate(s);
}

void store_fail(struct store *s, int status, const char *what)
{
	store_fail_now(s, status);
	if (s->nr_tasks || s->failed == s->failed_told || (s->opened_read_only && status != -ENODEV))
		return;
	s->failed_told = s->failed;
	snprintf(s->read_only_reason, sizeof(s->read_only_reason), "%s: %s", what, strerror(-status));
	if (*s->super.name)
		log_error("store %s is read-only from now on: %s", s->super.name, s->read_only_reason);
	else /* it is still being looked for, and there may be none */
		log_error("%s: %s", s->bdev->name, s->read_only_reason);
	s->nr_tasks = 2;
	task_run_later(&s->kick_task, kick_task, s);
	task_run_later(&s->event_task, tell_failed, s);
}

void store_fiber_start(struct store *s, const char *name, void (*fn)(void *arg))
{
	s->nr_fibers++;
	if (fiber_spawn(s->owner, name, fn, s)) {
		s->nr_fibers--;
		store_fail(s, -ENOMEM, "no memory for a fiber");
	}
}

void store_fiber_over(struct store *s)
{
	if (--s->nr_fibers == 0)
		fiber_cond_broadcast(&s->fibers_gone);
}

void store_core_over(struct store *s)
{
	if (--s->nr_core_fibers == 0)
		fiber_cond_broadcast(&s->fibers_gone);
}

static void core_start(struct store *s, const char *name, void (*fn)(void *arg))
{
	s->nr_core_fibers++;
	if (fiber_spawn(s->owner, name, fn, s)) {
		s->nr_core_fibers--;
		store_fail(s, -ENOMEM, "no memory for a fiber");
	}
}

void store_start_fibers(struct store *s)
{
	core_start(s, "blob-commit", commit_fiber);
	core_start(s, "blob-checkpoint", checkpoint_fiber);
	store_fiber_start(s, "blob-pace", pace_fiber);
	if (s->csum)
		store_fiber_start(s, "blob-sums", csum_fiber);
	if (s->csum && csum_unsettled(s) && !s->opened_read_only)
		store_fiber_start(s, "blob-settle", settle_fiber);
	store_fiber_start(s, "blob-free", free_fiber);
	store_fiber_start(s, "blob-reap", reap_fiber);
	store_fiber_start(s, "blob-evict", evict_fiber);
}

fiber_fn void store_stop_fibers(struct store *s)
{
	s->stopping = true;
	while (s->nr_fibers) {
		fiber_cond_broadcast(&s->free_wake);
		fiber_cond_broadcast(&s->reap_wake);
		fiber_cond_broadcast(&s->cache->wake);
		if (s->csum)
			csum_kick(s);
		pace_stop(s);
		kick_all(s);
		fiber_cond_timedwait(&s->fibers_gone, 1000);
	}
	s->stopping_core = true;
	while (s->nr_core_fibers) {
		fiber_cond_broadcast(&s->ckpt_wake);
		fiber_cond_broadcast(&s->journal.wake);
		fiber_cond_timedwait(&s->fibers_gone, 1000);
	}
}

/* --- making and freeing --- */

struct store *store_new(void)
{
	struct store *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->owner = thread_current();
	list_init(&s->space_waiters);
	list_init(&s->copy_waiters);
	list_init(&s->admit_waiters);
	list_init(&s->dirty);
	list_init(&s->frozen);
	list_init(&s->blobs);
	list_init(&s->externals);
	list_init(&s->fill_waiters);
	list_init(&s->punches);
	list_init(&s->journal.waiters);
	fifo_init(&s->free_fills);
	fiber_cond_init(&s->free_wake);
	fiber_cond_init(&s->freed_cond);
	fiber_cond_init(&s->ckpt_wake);
	fiber_cond_init(&s->ckpt_done);
	fiber_cond_init(&s->reap_wake);
	fiber_cond_init(&s->fibers_gone);
	fiber_cond_init(&s->journal.wake);
	pace_init(s);
	s->by_name = calloc(NAME_BUCKETS, sizeof(struct list));
	s->by_uuid = calloc(NAME_BUCKETS, sizeof(struct list));
	s->by_id = calloc(NAME_BUCKETS, sizeof(struct list));
	for (unsigned i = 0; s->by_name && s->by_uuid && s->by_id && i < NAME_BUCKETS; i++) {
		list_init(&s->by_name[i]);
		list_init(&s->by_uuid[i]);
		list_init(&s->by_id[i]);
	}
	return s;
}

void store_set_geometry(struct store *s)
{
	s->id = super_store(&s->super);
	s->block_shift = __builtin_ctz(s->super.block_size);
	s->cluster_shift = s->super.cluster_shift;
	s->cluster_block_shift = s->cluster_shift - s->block_shift;
	s->leaf_shift = s->super.leaf_shift;
	s->inner_shift = s->super.inner_shift;
	s->subs_a_cluster = 1u << (s->cluster_shift - PAGE_SHIFT_BITS);
	s->slots_a_cluster = s->subs_a_cluster;
	s->mask_words = (s->subs_a_cluster + 63) / 64;
	s->mask_bytes = s->subs_a_cluster / 8;
	s->blocks_a_sub = BLOB_SUB_SIZE >> s->block_shift;
	s->sub_shift = s->cluster_shift - PAGE_SHIFT_BITS;
	s->sub_block_shift = PAGE_SHIFT_BITS - s->block_shift;
	s->nr_clusters = s->super.nr_clusters;
}

fiber_fn void store_free(struct store *s)
{
	struct list *it;

	while (s->nr_tasks)
		fiber_yield();
	while ((it = list_first(&s->blobs)))
		blob_free(list_entry(it, struct blob, link));
	if (s->internal.reqs)
		blob_channel_fini(&s->internal);
	ext_destroy_all(s);
	cache_destroy(s);
	vec_free(&s->free_node_ids);
	pages_destroy(s);
	csum_destroy(s);
	alloc_destroy(s);
	mirror_close(s, false);
	if (s->journal.ram)
		blob_journal_destroy(s);
	fills_destroy(s);
	page_writer_destroy(s);
	if (s->bch)
		bdev_channel_put(s->bch);
	if (s->desc)
		bdev_close(s->desc);
	for (uint32_t i = 0; i < s->nr_degraded; i++)
		free(s->degraded[i]);
	free(s->degraded);
	free(s->by_name);
	free(s->by_uuid);
	free(s->by_id);
	free(s->slots);
	free(s->reap);
	vec_free(&s->heal);
	free(s);
}

static void bdev_event(struct bdev *bdev, enum bdev_event event, void *arg)
{
	struct store *s = arg;

	if (event == BDEV_EVENT_REMOVE)
		store_fail(s, -ENODEV, "the device was removed");
}

int store_attach(struct store *s, const char *bdev_name, bool write)
{
	int rc = bdev_open(bdev_name, write, bdev_event, s, &s->desc);

	if (rc)
		return rc;
	s->bdev = bdev_desc_bdev(s->desc);
	if (write) {
		if (s->bdev->read_only)
			return -EROFS;
		rc = bdev_claim(s->desc, "blobstore");
		if (rc)
			return rc;
	}
	if (s->bdev->block_size != 512 && s->bdev->block_size != 4096)
		return -EINVAL;
	s->bch = bdev_channel_get(s->desc);
	s->has_cache = s->bdev->has_write_cache;
	s->can_unmap = bdev_supports(s->bdev, BDEV_UNMAP);
	return s->bch ? 0 : -ENOMEM;
}

/* --- open --- */

/* What one copy of is bad becomes dirty, so that the next checkpoint writes both anew. */
void store_heal(struct store *s, const struct u64_vec *owners)
{
	for (size_t i = 0; i < owners->nr; i++) {
		unsigned table = owners->v[i] >> 56, level = owners->v[i] >> 48 & 0xff;
		uint64_t index = owners->v[i] & 0xFFFFFFFFFFFFull;

		if (table >= NR_TABLES)
			continue;
		if (level == 0 && table == TABLE_NODES && (index >= s->nr_nodes || !s->nodes[index] || s->nodes[index]->lost))
			continue; /* when it is needed */
		if (level == 0)
			mpage_touch(s, table, index);
		else if (level <= s->table[table].height && index < s->table[table].nr_level[level])
			s->table[table].level[level][index].dirty = true;
	}
}

static void loaded(struct store *s)
{
	struct list *it;

	for (uint64_t id = s->nr_nodes; id-- > 1;)
		if (!s->node_counts[id])
			vec_push(&s->free_node_ids, id);
	if (s->csum)
		csum_loaded(s);
	alloc_build_available(s);
	list_for_each (it, &s->blobs) {
		struct blob *b = list_entry(it, struct blob, link);

		blob_promise(b);
	}
	store_heal(s, &s->heal);
}

static uint64_t map_cache_bytes(struct store *s)
{
	uint64_t gib = (s->super.nr_clusters << s->cluster_shift) >> 30, bytes = s->map_cache_bytes;

	if (!bytes)
		bytes = gib * 56 * 1024; /* 56 MiB for each TiB: what it takes mapped, each entry with a mask */
	return bytes < MAP_CACHE_MIN && !s->map_cache_tiny ? MAP_CACHE_MIN : bytes;
}

/* What is dirty cannot leave the cache. */
static void limit_dirty(struct store *s, uint64_t cache_bytes)
{
	uint64_t leaf = node_bytes(s, 0) + node_nr_slots(s, 0) * (sizeof(struct partial) + s->mask_words * 8 + 16);
	uint64_t most = cache_bytes / 2 / leaf;

	most = most > DIRTY_MIN ? most : DIRTY_MIN;
	if (most < s->max_dirty)
		s->max_dirty = most;
}

/* Everything from the device to memory, but nodes; writes nothing. */
fiber_fn int store_load(struct store *s, bool journal, struct blob_reason *reason)
{
	int rc = supers_read(s, reason);

	if (rc)
		return rc;
	if (s->super.ro_compat)
		s->opened_read_only = true;
	mirror_open(s);
	if (!s->opened_read_only && s->has_cache && !BLOB_MUTANT(NO_RECOVERY_FLUSH)) {
		/* After a mere process death the cache may still hold journal that we are about to rely on.
		 */
		rc = bdev_flush(s->bch);
		if (rc) {
			mirror_invalidate(s); /* the next flush may succeed without what this one lost */
			refuse(reason, "the device cannot be flushed: %s", strerror(-rc));
			return -EIO;
		}
	}
	store_set_geometry(s);
	s->loading = true;
	limit_dirty(s, map_cache_bytes(s));
	rc = cache_init(s, map_cache_bytes(s));
	if (!rc)
		rc = alloc_init(s);
	if (!rc && super_has_sums(&s->super))
		rc = csum_init(s);
	if (!rc)
		rc = load_tables(s);
	if (!rc)
		rc = load_all(s);
	if (!rc && journal)
		rc = journal_replay(s, reason);
	if (!rc && s->failed)
		rc = -ENOMEM;
	if (!rc)
		rc = blobs_sort(s);
	if (rc == -EUCLEAN && reason && !reason->text[0])
		refuse(reason, "the tables do not fit the superblock");
	else if (rc && reason && !reason->text[0])
		refuse(reason, "%s", strerror(-rc));
	if (!rc)
		loaded(s);
	s->loading = false;
	return rc;
}

/* Halves of operations that a crash ended. */
static fiber_fn void delete_temporary(struct store *s)
{
	struct list *it = s->blobs.next;

	while (it != &s->blobs) {
		struct blob *b = list_entry(it, struct blob, link);
		bool is = b->flags & BLOB_FLAG_TEMPORARY;

		it = it->next;
		if (is && blob_delete(b))
			return; /* the next open tries again */
		if (is)
			it = s->blobs.next; /* others may have come and gone */
	}
}

static fiber_fn int start_serving(struct store *s)
{
	struct list *it, *next;
	int rc = blob_journal_init(s);

	if (!rc)
		rc = fills_init(s);
	if (!rc)
		rc = page_writer_init(s);
	if (!rc)
		rc = blob_channel_init(&s->internal, s, 64);
	if (rc)
		return rc;
	if (s->opened_read_only) {
		atomic_store(&s->failed, -EROFS);
		snprintf(s->read_only_reason, sizeof(s->read_only_reason), "opened read-only");
	} else {
		while (!rc && pages_free(s) < pages_needed(s) + 1)
			rc = meta_grow(s, OP_FREEING);
		if (!rc && BLOB_MUTANT(RECOVERY_CUTS_FIRST)) {
			s->super.journal_start = s->journal.open_seq;
			rc = super_write(s, &s->super);
		}
		if (!rc)
			rc = checkpoint_run(
				s,
				false); /* under a new epoch, so that the old journal is never read again */
		if (rc)
			return rc;
		s->super.epoch = s->journal.epoch;
		mirror_start(s);
	}
	device_register(s, &blob_channel_ops, s->super.name);
	store_start_fibers(s);
	ext_find(s);
	if (s->opened_read_only)
		return 0;
	list_for_each_safe (it, next, &s->blobs) {
		struct blob *b = list_entry(it, struct blob, link);

		if (b->flags & BLOB_FLAG_TAIL && !(b->flags & BLOB_FLAG_SNAPSHOT) && !BLOB_MUTANT(TRIM_FORGOTTEN))
			blob_trim_start(b);
	}
	delete_temporary(s);
	return 0;
}

fiber_fn int store_open(const char *bdev_name, const struct store_open_opts *opts, struct store **ret_store,
			struct blob_reason *reason)
{
	uint64_t start = clock_now_us();
	struct store *s = store_new();
	int rc;

	if (reason)
		reason->text[0] = 0;
	if (!s || !s->by_name || !s->by_uuid || !s->by_id) {
		free(s);
		return -ENOMEM;
	}
	s->opened_read_only = opts && opts->read_only;
	s->sum_cache_bytes = opts ? opts->checksum_cache_bytes : 0;
	s->map_cache_bytes = opts ? opts->map_cache_bytes : 0;
	s->map_cache_tiny = opts && opts->map_cache_tiny;
	s->max_dirty = opts && opts->max_dirty_pages ? opts->max_dirty_pages : 4096;
	s->event = opts ? opts->event : NULL;
	s->event_arg = opts ? opts->event_arg : NULL;
	rc = store_attach(s, bdev_name, !s->opened_read_only);
	if (!rc && s->opened_read_only)
		rc = bdev_claim_still(s->desc, "blobstore, read-only");
	if (!rc)
		rc = store_load(s, true, reason);
	if (!rc)
		rc = start_serving(s);
	if (rc) {
		if (reason && !reason->text[0])
			refuse(reason, "bdev %.100s: %s", bdev_name, strerror(-rc));
		store_free(s);
		return rc;
	}
	s->stats.recovery_us = clock_now_us() - start;
	*ret_store = s;
	return 0;
}

fiber_fn int store_probe(const char *bdev_name, struct store_label *ret_label, struct blob_reason *reason)
{
	struct store *s = store_new();
	int rc;

	if (reason)
		reason->text[0] = 0;
	if (!s)
		return -ENOMEM;
	s->checking = true;	    /* says nothing in the log */
	s->opened_read_only = true; /* one that is shorter than it should be has a name too */
	rc = store_attach(s, bdev_name, false);
	if (!rc)
		rc = supers_read(s, reason);
	if (!rc) {
		uuid_copy(ret_label->uuid, s->super.uuid);
		snprintf(ret_label->name, sizeof(ret_label->name), "%s", s->super.name);
	}
	store_free(s);
	return rc;
}

/* --- close --- */

static void unregistered(void *arg)
{
	fiber_wake(arg, 0);
}

static fiber_fn int shut_down(struct store *s, bool wipe)
{
	struct fiber_wait wait;
	int rc = 0;

	fiber_wait_init(&wait);
	device_unregister(s, unregistered, &wait);
	fiber_wait(&wait);
	if (s->csum)
		csum_clean_all(s);
	store_stop_fibers(s);
	if (s->opened_read_only)
		return 0;
	if (wipe) {
		uint8_t *zeroes = s->zeroes;

		for (unsigned i = 0; i < 2 && !rc; i++)
			rc = bdev_write(s->bch, zeroes, page_block(s, i ? SUPER_PAGE_1 : SUPER_PAGE_0),
					page_block(s, 1), BDEV_IO_FUA);
		if (!rc)
			mirror_close(s, true);
		return rc;
	}
	if (checkpoint_run(s, true))
		return -EIO;
	mirror_close(s, true); /* all that it holds is in the checkpoint */
	return 0;
}

fiber_fn int store_close(struct store *s)
{
	int rc = shut_down(s, false);

	store_free(s);
	return rc;
}

fiber_fn int store_destroy(struct store *s)
{
	struct list *it;
	int rc;

	if (s->opened_read_only)
		return -EROFS;
	list_for_each (it, &s->blobs) {
		struct blob *b = list_entry(it, struct blob, link);

		if (b->nr_open > b->trimming)
			return -EBUSY;
	}
	rc = shut_down(s, true);
	store_free(s);
	return rc;
}

fiber_fn int store_rename(struct store *s, const char *name)
{
	struct admission admission = {.control = true};
	int rc;

	if (!name[0] || strlen(name) > BLOB_NAME_MAX)
		return -EINVAL;
	rc = admit_wait(s, &admission, 1, OP_FREEING);
	if (rc)
		return rc;
	journal_begin(s, 512);
	rec_store_name(s, name);
	journal_end(s);
	admit_release(s, &admission);
	return journal_commit_wait(s, false);
}

fiber_fn int store_wait_free(struct store *s)
{
	s->nr_space_urgent++;
	pace_hurry(s);
	while ((s->coming_head != s->coming_tail || s->nr_freeing || s->nr_reap || s->nr_trimming) &&
	       store_writable(s)) {
		journal_demand(s);
		fiber_cond_signal(&s->free_wake);
		fiber_cond_timedwait(&s->freed_cond, 1000);
	}
	s->nr_space_urgent--;
	return store_writable(s) ? 0 : -EIO;
}

/* --- what they tell --- */

void store_get_info(struct store *s, struct store_info *info)
{
	memset(info, 0, sizeof(*info));
	uuid_copy(info->uuid, s->super.uuid);
	snprintf(info->name, sizeof(info->name), "%s", s->super.name);
	snprintf(info->bdev_name, sizeof(info->bdev_name), "%s", s->bdev->name);
	info->nr_clusters = s->nr_data_clusters;
	info->nr_free_clusters = clusters_unpromised(s);
	info->nr_coming_clusters = s->coming_tail - s->coming_head + s->nr_freeing;
	info->nr_reserved_clusters = s->nr_promised;
	info->nr_metadata_clusters = s->nr_metadata;
	info->nr_logical_clusters = s->nr_logical;
	info->block_size = s->super.block_size;
	info->cluster_size_bytes = 1u << s->cluster_shift;
	info->nr_blobs = s->nr_blobs;
	info->journal_pages = s->super.journal_pages;
	info->journal_used_pages = s->journal.open_seq - s->journal.start_seq;
	info->generation = s->super.generation;
	info->read_only = !store_writable(s);
	info->opened_read_only = s->opened_read_only;
	snprintf(info->read_only_reason, sizeof(info->read_only_reason), "%s", s->read_only_reason);
	info->nr_degraded = s->nr_degraded;
	info->nr_healed = s->nr_healed;
	info->write_unit_blocks = s->bdev->write_unit_blocks;
	info->has_write_cache = s->has_cache;
	csum_get_info(s, info);
}

const char *store_degraded(struct store *s, uint32_t idx)
{
	return idx < s->nr_degraded ? s->degraded[idx] : NULL;
}

struct gather {
	struct store_stats *stats;
	struct fiber_wait wait;
};

static void gather_channel(void *ctx, void *arg)
{
	struct gather *g = arg;
	struct blob_channel *ch = ctx;

	g->stats->nr_reads += ch->nr_ops[BLOB_READ];
	g->stats->nr_writes += ch->nr_ops[BLOB_WRITE];
	g->stats->nr_flushes += ch->nr_ops[BLOB_FLUSH];
	g->stats->nr_unmaps += ch->nr_ops[BLOB_UNMAP] + ch->nr_ops[BLOB_WRITE_ZEROES];
	g->stats->nr_pool_waits += ch->nr_pool_waits;
	g->stats->nr_device_flushes += ch->nr_flushes;
}

static void gathered(void *arg)
{
	fiber_wake(&((struct gather *)arg)->wait, 0);
}

fiber_fn void store_get_stats(struct store *s, struct store_stats *ret_stats)
{
	struct gather g = {.stats = ret_stats};

	*ret_stats = s->stats;
	ret_stats->map_bytes = s->map_bytes;
	ret_stats->resident_bytes = s->resident_bytes + s->map_bytes + s->nodes_cap * sizeof(s->nodes[0]) +
				    s->node_counts_cap * sizeof(s->node_counts[0]);
	fiber_wait_init(&g.wait);
	device_for_each_channel(s, gather_channel, &g, gathered);
	fiber_wait(&g.wait);
}
