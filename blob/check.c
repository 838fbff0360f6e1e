/*
 * The check: loads a store as an opening does, but reads both copies of every page and tells what it finds;
 * then counts what the maps name and compares it with the stored counts, for the checkpoint and again with
 * the journal applied.
 */
#include "blob/internal.h"

#include <stdarg.h>
#include <stdio.h>

void check_found(struct store *s, enum store_finding_kind kind, uint64_t page, const char *fmt, ...)
{
	struct store_finding finding = {.kind = kind, .page = page};
	va_list ap;

	if (!s->found && !s->check_result)
		return;
	va_start(ap, fmt);
	vsnprintf(finding.text, sizeof(finding.text), fmt, ap);
	va_end(ap);
	if (s->check_result)
		s->check_result->nr_findings++;
	if (s->found)
		s->found(&finding, s->found_arg);
}

/* What the map below a node amounts to. */
struct sum {
	uint64_t nr_entries, nr_named;
	uint32_t first_child, nr_children; /* in census.children */
	uint8_t level;
	bool here, added_up, unknown;
};

struct census {
	struct store *s;
	uint32_t *clusters, *nodes;
	struct sum *sums;
	uint32_t *children;
	uint64_t nr_children, children_cap;
};

static void count_cluster(struct census *c, const struct node *node, uint32_t cluster, const char *what)
{
	struct store *s = c->s;

	if (!cluster)
		return;
	if (super_cluster_reserved(&s->super, cluster) || s->counts[cluster] > COUNT_MAX)
		check_found(s, STORE_FINDING_MAP, cluster_page(s, cluster),
			    "node %u names cluster %u as %s, which holds no data", node->id, cluster, what);
	c->clusters[cluster]++;
}

static int count_child(struct census *c, struct sum *sum, uint32_t id)
{
	c->nodes[id]++;
	if (array_grow(&c->children, &c->children_cap, c->nr_children + 1, sizeof(c->children[0])))
		return -ENOMEM;
	c->children[c->nr_children++] = id;
	sum->nr_children++;
	return 0;
}

static int count_node(struct store *s, const struct node *node, void *arg)
{
	struct census *c = arg;
	struct sum *sum = &c->sums[node->id];
	uint32_t present = 0;

	*sum = (struct sum){.first_child = c->nr_children, .level = node->level, .here = true, .unknown = node->lost};
	for (uint32_t i = 0; !node->lost && i < node_nr_slots(s, node->level); i++) {
		uint64_t raw = node->slots[i];
		struct entry e;

		if (!raw)
			continue;
		present++;
		if (node->level) {
			if (count_child(c, sum, slot_id(raw)))
				return -ENOMEM;
			continue;
		}
		e = entry_decode(raw);
		sum->nr_entries++;
		sum->nr_named += (e.own != 0) + (e.base != 0);
		count_cluster(c, node, e.own, "its own");
		count_cluster(c, node, e.base, "a base");
		if (e.own && e.own == e.base)
			check_found(s, STORE_FINDING_MAP, 0, "node %u has cluster %u as its own and its base",
				    node->id, e.own);
	}
	if (!node->lost && present != node->nr_present)
		check_found(s, STORE_FINDING_MAP, 0, "node %u has %u entries, not %u", node->id, present,
			    node->nr_present);
	return 0;
}

/* What a node and all below it amount to, each added up once. */
static const struct sum *add_up(struct census *c, uint32_t id)
{
	struct sum *sum = &c->sums[id];

	if (!sum->here && !sum->added_up)
		check_found(c->s, STORE_FINDING_MAP, 0, "node %u is named but missing", id);
	sum->unknown |= !sum->here;
	for (uint32_t i = 0; !sum->added_up && i < sum->nr_children; i++) {
		uint32_t child_id = c->children[sum->first_child + i];
		const struct sum *child = &c->sums[child_id];

		if (child->here && !child->unknown && child->level != sum->level - 1) {
			check_found(c->s, STORE_FINDING_MAP, 0, "node %u of level %u names %u as its child", id, sum->level, child_id);
			sum->unknown = true;
			continue;
		}
		child = add_up(c, child_id);
		sum->nr_entries += child->nr_entries;
		sum->nr_named += child->nr_named;
		sum->unknown |= child->unknown;
	}
	sum->added_up = true;
	return sum;
}

static void compare_figures(struct census *c, const struct blob *b, uint32_t root, const char *when)
{
	const struct blob_figures *f = &b->figures;
	const struct sum *sum = root ? add_up(c, root) : &(struct sum){0};

	if (!sum->unknown && (sum->nr_entries != f->nr_entries || sum->nr_named != f->nr_named))
		check_found(c->s, STORE_FINDING_COUNT, 0,
			    "blob %.100s: %llu entries, %llu clusters named, but its map has %llu and %llu%s", b->name,
			    (unsigned long long)f->nr_entries, (unsigned long long)f->nr_named,
			    (unsigned long long)sum->nr_entries, (unsigned long long)sum->nr_named, when);
}

static void check_blobs(struct census *c, const char *when)
{
	struct store *s = c->s;
	struct list *it, *other;

	list_for_each (it, &s->blobs) {
		struct blob *b = list_entry(it, struct blob, link);
		uint32_t root = slot_id(b->root);

		if (root)
			c->nodes[root]++;
		compare_figures(c, b, root, when);
		if (b->id >= s->super.next_blob_id)
			check_found(s, STORE_FINDING_MAP, 0, "blob %llu, but the next id is %llu",
				    (unsigned long long)b->id, (unsigned long long)s->super.next_blob_id);
		if (store_find_blob(s, b->name) != b)
			check_found(s, STORE_FINDING_MAP, 0, "two blobs are called %.100s", b->name);
		if (store_find_blob_uuid(s, b->uuid) != b)
			check_found(s, STORE_FINDING_MAP, 0, "two blobs have the UUID of %.100s", b->name);
		other = it->next;
		if (other != &s->blobs && list_entry(other, struct blob, link)->id == b->id)
			check_found(s, STORE_FINDING_MAP, 0, "two blobs have id %llu",
				    (unsigned long long)b->id);
	}
	for (uint64_t i = 0; i < s->nr_reap; i++)
		c->nodes[s->reap[i]]++;
}

static void compare_counts(struct census *c, const char *when)
{
	struct store *s = c->s;

	for (uint64_t i = 0; i < s->nr_clusters; i++) {
		if (s->counts[i] > COUNT_MAX || (s->nr_degraded && s->counts[i] == COUNT_MAX))
			continue;
		if (s->counts[i] != c->clusters[i] && !(s->nr_degraded && s->counts[i] > c->clusters[i]))
			check_found(s, STORE_FINDING_COUNT, cluster_page(s, i),
				    "cluster %llu: count %u, but the maps name it %u times%s",
				    (unsigned long long)i, s->counts[i], c->clusters[i], when);
	}
	for (uint64_t id = 1; id < s->nr_nodes; id++) {
		uint32_t count = s->node_counts[id];

		if (!count && c->nodes[id])
			check_found(s, STORE_FINDING_MAP, 0, "node %llu is named, but there is none%s",
				    (unsigned long long)id, when);
		else if (count != c->nodes[id] && count != COUNT_MAX && !s->nr_degraded)
			check_found(s, STORE_FINDING_COUNT, 0,
				    "node %llu: count %u, but it is named %u times%s", (unsigned long long)id,
				    count, c->nodes[id], when);
	}
}

static fiber_fn int census(struct store *s, const char *when)
{
	struct census c = {.s = s,
			   .clusters = calloc(s->nr_clusters, sizeof(uint32_t)),
			   .nodes = calloc(s->nr_nodes + 1, sizeof(uint32_t)),
			   .sums = calloc(s->nr_nodes + 1, sizeof(struct sum))};
	int rc = c.clusters && c.nodes && c.sums ? 0 : -ENOMEM;

	if (!rc)
		rc = nodes_visit(s, count_node, &c);
	if (!rc) {
		check_blobs(&c, when);
		compare_counts(&c, when);
	}
	free(c.clusters);
	free(c.nodes);
	free(c.sums);
	free(c.children);
	return rc;
}

fiber_fn uint64_t store_check_memory(struct store *s, store_finding_fn found, void *arg)
{
	struct store_check_result result = {0};

	cache_hold(s, true);
	if (nodes_load_all(s)) {
		cache_hold(s, false);
		return 1;
	}
	s->found = found;
	s->found_arg = arg;
	s->check_result = &result;
	census(s, " (in memory)");
	s->found = NULL;
	s->check_result = NULL;
	cache_hold(s, false);
	return result.nr_findings;
}

/* --- from the device --- */

static void summarize(struct store *s, struct store_check_result *result)
{
	result->nr_blobs = s->nr_blobs;
	result->nr_nodes = s->nr_live_nodes;
	result->nr_records = s->stats.recovered_records;
	result->generation = s->super.generation;
	for (uint64_t i = 0; i < s->nr_clusters; i++)
		result->nr_used_clusters += s->counts[i] && s->counts[i] <= COUNT_MAX;
}

static fiber_fn int check_device(struct store *s, bool journal, struct store_check_result *result,
				 struct blob_reason *reason)
{
	int rc;

	s->checking = true;
	s->opened_read_only = true;
	s->check_result = result;
	rc = store_load(s, false, reason);
	if (!rc)
		rc = census(s, "");
	if (!rc && journal) {
		s->loading = true;
		rc = journal_replay(s, reason);
		s->loading = false;
		if (!rc)
			rc = census(s, " after the journal");
	}
	if (!rc)
		summarize(s, result);
	return rc;
}

fiber_fn int store_check(const char *bdev_name, store_finding_fn found, void *arg,
			 struct store_check_result *ret_result, struct blob_reason *reason)
{
	struct store *s = store_new();
	int rc;

	memset(ret_result, 0, sizeof(*ret_result));
	if (reason)
		reason->text[0] = 0;
	if (!s)
		return -ENOMEM;
	s->found = found;
	s->found_arg = arg;
	rc = store_attach(s, bdev_name, false);
	if (!rc)
		rc = check_device(s, true, ret_result, reason);
	store_free(s);
	return rc;
}

/* A node's page is written anew from the node in memory. */
static fiber_fn void load_nodes_of(struct store *s, const struct u64_vec *owners)
{
	for (size_t i = 0; i < owners->nr; i++) {
		uint32_t id = owners->v[i];
		struct node *node;

		if (owners->v[i] >> 48 != (uint64_t)TABLE_NODES << 8 || id >= s->nr_nodes || !s->node_counts[id])
			continue;
		if (!node_get(s, id, &node))
			node_put(s, node);
	}
}

fiber_fn int store_check_online(struct store *live, store_finding_fn found, void *arg, struct progress *progress,
				struct store_check_result *ret_result)
{
	struct blob_reason reason = {""};
	struct store *s;
	int rc;

	memset(ret_result, 0, sizeof(*ret_result));
	live->hold++; /* what the checkpoint names stays in its place until we are done */
	rc = live->opened_read_only ? 0 : checkpoint_wait(live);
	s = rc ? NULL : store_new();
	if (!rc && !s)
		rc = -ENOMEM;
	if (s) {
		s->found = found;
		s->found_arg = arg;
		s->progress = progress;
		rc = store_attach(s, live->bdev->name, false);
		if (!rc)
			rc = check_device(s, false, ret_result, &reason);
		cache_hold(live, true);
		load_nodes_of(live, &s->heal);
		/* As long as they have room: pages of what was admitted come first. */
		if (!live->opened_read_only && store_writable(live) &&
		    pages_free(live) > pages_needed(live) + s->heal.nr) {
			live->nr_healed += s->heal.nr;
			store_heal(live, &s->heal);
		}
		cache_hold(live, false);
		store_free(s);
	}
	live->hold--;
	return rc;
}
