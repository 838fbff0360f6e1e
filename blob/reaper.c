/* The reaper: takes deleted maps apart, one node a record, so that deleting answers at once and freeing is
 * paced. */
#include "blob/internal.h"

#define REAP_BYTES 65536u /* what taking a node apart is counted as: unmaps, pages, records */
#define COMING_MAX 8192u /* clusters on their way back before it waits */

/* The node on top of the list, if its record will take it apart. */
static fiber_fn int load_top(struct store *s, struct node **ret_node)
{
	uint32_t id = 0;
	int rc = 0;

	while (!rc && s->nr_reap && id != s->reap[s->nr_reap - 1]) { /* another delete may have put its own there meanwhile */
		id = s->reap[s->nr_reap - 1];
		node_put(s, *ret_node);
		*ret_node = NULL;
		if (node_count(s, id) == 1 || BLOB_MUTANT(DELETE_COUNTS_TWO))
			rc = node_get(s, id, ret_node);
	}
	return rc;
}

static fiber_fn void reap_one(struct store *s)
{
	struct admission admission = {0};
	struct node *node = NULL;
	uint32_t pages = freeing_pages(s) + (1u << s->inner_shift) / REAPS_A_PAGE + 2;

	if (admit_wait(s, &admission, pages, OP_FREEING)) {
		fiber_cond_wait(&s->reap_wake); /* the store has failed, or is full beyond its reserve: try
						   when something happens */
		return;
	}
	if (s->nr_reap && !load_top(s, &node)) {
		journal_begin(s, 64);
		rec_reap(s, s->reap[s->nr_reap - 1]);
		journal_end(s);
	}
	node_put(s, node);
	admit_release(s, &admission);
}

/* What others shared with a thick blob is its own again, and no longer promised to it. */
static void recount_thick(struct store *s)
{
	struct list *it;

	list_for_each (it, &s->blobs) {
		struct blob *b = list_entry(it, struct blob, link);

		if (blob_is_thick(b) && b->figures.nr_own < b->figures.nr_entries) {
			figures_recount(b);
			blob_promise(b);
			figures_keep(b);
		}
	}
}

static void reap_pace(struct store *s, bool working)
{
	if (working && !s->reaping)
		pace_begin(s);
	else if (!working && s->reaping)
		pace_end(s);
	s->reaping = working;
}

/* Who waits for space waits for hosts' sake. */
static bool urgent(const struct store *s)
{
	return !list_empty(&s->space_waiters) || !list_empty(&s->admit_waiters) || s->nr_space_urgent;
}

void reap_fiber(void *arg)
{
	struct store *s = arg;

	recount_thick(s); /* a crash may have forgotten what was counted last */
	while (!s->stopping) {
		if (!s->nr_reap || !store_writable(s)) {
			reap_pace(s, false);
			fiber_cond_broadcast(&s->freed_cond);
			fiber_cond_signal(&s->free_wake);
			fiber_cond_wait(&s->reap_wake);
			continue;
		}
		if (s->coming_tail - s->coming_head > COMING_MAX) {
			journal_demand(s);
			fiber_cond_timedwait(&s->freed_cond, 10000);
			continue;
		}
		reap_pace(s, true);
		reap_one(s);
		if (!s->nr_reap)
			recount_thick(s);
		pace_unless(s, REAP_BYTES, urgent);
	}
	reap_pace(s, false);
	store_fiber_over(s);
}
