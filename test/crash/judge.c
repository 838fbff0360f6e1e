/* The oracle's judgement: what a block, a volume or a snapshot shows, against what is permitted. */
#include <stdio.h>
#include <string.h>

#include "test/crash/oracle.h"

#define DURABILITY "invariant 1, durability: "
#define FOREIGN	   "invariant 2, no foreign bytes: "
#define ATOMIC	   "invariant 4, atomic operations: "

static char complaint[640];

static const char *complain(const struct oracle *o, unsigned volume, uint32_t block, const struct oracle_stamp *p,
			    const char *what)
{
	const struct oracle_volume *v = &o->volumes[volume];
	const struct oracle_block *b = &oracle_blocks(o, volume)[block];
	int n = snprintf(complaint, sizeof(complaint),
			 "%s: %s %s (generation %u) block %u; durable is version %u%s, completed %u%s, last zeroed %u, "
			 "issued below %u, epoch %u; ",
			 what, v->snapshot ? "snapshot" : "volume", v->names[0], v->generation, block, b->floor,
			 b->floor_zero ? " (zero)" : "", b->latest, b->latest_zero ? " (zero)" : "", b->zeroed, o->next_version,
			 o->epoch);

	if (oracle_stamp_ok(p))
		snprintf(complaint + n, sizeof(complaint) - n, "it holds generation %u block %u version %u", p->generation,
			 p->block, p->version);
	else
		snprintf(complaint + n, sizeof(complaint) - n, "it holds %08x %08x %08x %08x", p->crc, p->generation,
			 p->block, p->version);
	return complaint;
}

/* Whether a version is one that this volume may show at all, sometime. */
static bool belongs(const struct oracle_volume *v, const struct oracle_block *b, const struct oracle_change *c, uint32_t version)
{
	if (c->generation == v->generation)
		return version >= b->from;
	for (unsigned i = 0; i < v->nr_windows; i++)
		if (c->generation == v->windows[i].generation && version < v->windows[i].end)
			return !v->snapshot || c->generation != v->origin || version >= b->from;
	return false;
}

/* volume: who complains; as: whose blocks it may show. */
static const char *judge_block(const struct oracle *o, unsigned volume, unsigned as, uint32_t block, const char *buf,
			       struct oracle_least least)
{
	const struct oracle_volume *v = &o->volumes[as];
	const struct oracle_block *b = &oracle_blocks(o, as)[block];
	const struct oracle_change *c;
	struct oracle_stamp p;
	uint32_t zeroed = b->zeroed;

	/* While it is taken it may catch what goes on in its origin. */
	if (v->taken_from >= 0 && oracle_blocks(o, v->taken_from)[block].zeroed > zeroed)
		zeroed = oracle_blocks(o, v->taken_from)[block].zeroed;
	memcpy(&p, buf, sizeof(p));
	if (oracle_is_zero(buf)) {
		if (least.zero || (zeroed > least.version && zeroed >= o->epoch))
			return NULL;
		return complain(o, volume, block, &p, DURABILITY "zeroes, but data was there");
	}
	if (!oracle_stamp_ok(&p) || memcmp(buf, buf + sizeof(p), ORACLE_BLOCK - sizeof(p)))
		return complain(o, volume, block, &p, FOREIGN "foreign or torn bytes");
	if (p.version >= o->next_version)
		return complain(o, volume, block, &p, FOREIGN "from a future");
	c = &o->changes[p.version];
	if (p.block != block || c->generation != p.generation || block < c->first || block - c->first >= c->nr)
		return complain(o, volume, block, &p, FOREIGN "another block's bytes");
	if (p.version == least.version && !least.zero)
		return NULL;
	if (!belongs(v, b, c, p.version))
		return complain(o, volume, block, &p, FOREIGN "another volume's bytes");
	if (p.version <= least.version)
		return complain(o, volume, block, &p, DURABILITY "older than what must be there");
	if (p.version < o->epoch)
		return complain(o, volume, block, &p, FOREIGN "came back after an earlier crash had lost it");
	return NULL;
}

static const char *judge_as(const struct oracle *o, unsigned volume, unsigned as, uint32_t first, uint32_t nr, const char *buf,
			    bool after_crash)
{
	const struct oracle_block *b = oracle_blocks(o, as) + first;
	const char *wrong = NULL;

	for (uint32_t i = 0; i < nr && !wrong; i++) {
		struct oracle_least least = { after_crash ? b[i].floor : b[i].latest,
					      after_crash ? b[i].floor_zero : b[i].latest_zero };

		wrong = judge_block(o, volume, as, first + i, buf + (uint64_t)i * ORACLE_BLOCK, least);
	}
	return wrong;
}

/* --- what is being altered --- */

/* A block of a volume by what the other makes of it. */
static const char *judge_other(const struct oracle *o, unsigned volume, uint32_t block, const char *buf, bool after_crash)
{
	const struct oracle_volume *v = &o->volumes[volume];
	const struct oracle_block *own = &oracle_blocks(o, volume)[block], *other = &oracle_blocks(o, v->altering)[block];
	struct oracle_least least = { after_crash ? own->floor : own->latest, after_crash ? own->floor_zero : own->latest_zero };
	struct oracle_stamp p;

	/* Zeroes where there was nothing leave nothing: then the other's may show. */
	if (v->keeps && oracle_in_window(o, v, least.version) && !(least.zero && !oracle_is_zero(buf)))
		return judge_block(o, volume, volume, block, buf, least);
	memcpy(&p, buf, sizeof(p));
	if (oracle_is_zero(buf) && oracle_in_window(o, v, own->zeroed))
		return NULL;
	if (oracle_stamp_ok(&p) && p.version < o->next_version && p.generation == v->generation &&
	    oracle_in_window(o, v, p.version)) {
		least.version = p.version - 1;
		return judge_block(o, volume, volume, block, buf, least);
	}
	least = (struct oracle_least){ after_crash ? other->floor : other->latest,
				       after_crash ? other->floor_zero : other->latest_zero };
	return judge_block(o, volume, v->altering, block, buf, least);
}

static const char *judge_others(const struct oracle *o, unsigned volume, uint32_t first, uint32_t nr, const char *buf,
				bool after_crash)
{
	const char *wrong = NULL;

	for (uint32_t i = 0; i < nr && !wrong; i++)
		wrong = judge_other(o, volume, first + i, buf + (uint64_t)i * ORACLE_BLOCK, after_crash);
	return wrong;
}

/* By the rules of another parent. */
static const char *judge_cluster(const struct oracle *o, unsigned volume, uint32_t first, const char *buf, bool after_crash,
				 bool *ret_goes)
{
	enum oracle_rule rule = o->volumes[volume].rules[first / o->cluster_blocks];
	const char *wrong = NULL;

	*ret_goes = false;
	if (rule != ORACLE_GOES)
		wrong = judge_as(o, volume, volume, first, o->cluster_blocks, buf, after_crash);
	if (rule == ORACLE_STAYS || (rule == ORACLE_EITHER && !wrong))
		return wrong;
	*ret_goes = true;
	return judge_others(o, volume, first, o->cluster_blocks, buf, after_crash);
}

const char *oracle_judge_altered(const struct oracle *o, unsigned volume, uint32_t first, const void *buf, bool *ret_goes)
{
	return judge_cluster(o, volume, first, buf, false, ret_goes);
}

bool oracle_altered_unclear(const struct oracle *o, unsigned volume, const void *buf)
{
	const struct oracle_volume *v = &o->volumes[volume];

	for (uint32_t i = 0; i < v->sizes[0]; i += o->cluster_blocks) {
		const char *at = (const char *)buf + (uint64_t)i * ORACLE_BLOCK;

		if (v->rules[i / o->cluster_blocks] == ORACLE_EITHER && !judge_as(o, volume, volume, i, o->cluster_blocks, at, false) &&
		    !judge_others(o, volume, i, o->cluster_blocks, at, false))
			return true;
	}
	return false;
}

/* All of a volume as it is once it has been altered. */
static const char *judge_after(const struct oracle *o, unsigned volume, uint32_t nr, const char *buf, bool after_crash)
{
	const char *wrong = NULL;
	bool goes;

	if (!o->volumes[volume].keeps)
		return judge_others(o, volume, 0, nr, buf, after_crash);
	for (uint32_t i = 0; i < nr && !wrong; i += o->cluster_blocks)
		wrong = judge_cluster(o, volume, i, buf + (uint64_t)i * ORACLE_BLOCK, after_crash, &goes);
	return wrong;
}

const char *oracle_judge(const struct oracle *o, unsigned volume, uint32_t first, uint32_t nr, const void *buf,
			 bool after_crash)
{
	const char *wrong = judge_as(o, volume, volume, first, nr, buf, after_crash);

	if (wrong && !first && o->volumes[volume].altering >= 0 && !judge_after(o, volume, nr, buf, after_crash))
		return NULL;
	return wrong;
}

/* --- reads --- */

uint32_t oracle_read_begin(struct oracle *o, unsigned volume, uint32_t first, uint32_t nr, struct oracle_least *least)
{
	struct oracle_block *b = oracle_blocks(o, volume) + first;

	for (uint32_t i = 0; i < nr; i++) {
		b[i].nr_readers++;
		least[i] = (struct oracle_least){ b[i].latest, b[i].latest_zero };
	}
	return o->volumes[volume].altering < 0 ? o->volumes[volume].nr_alterations : UINT32_MAX;
}

/* While a volume is altered, which of two a read sees is not for us to say: but each block is one that was written there. */
static const char *judge_by_sight(const struct oracle *o, unsigned volume, uint32_t block, const char *buf)
{
	const struct oracle_change *c;
	struct oracle_stamp p;

	memcpy(&p, buf, sizeof(p));
	if (oracle_is_zero(buf))
		return NULL;
	if (!oracle_stamp_ok(&p) || memcmp(buf, buf + sizeof(p), ORACLE_BLOCK - sizeof(p)))
		return complain(o, volume, block, &p, FOREIGN "foreign or torn bytes");
	c = &o->changes[p.version < o->next_version ? p.version : 0];
	if (p.block != block || c->generation != p.generation || block < c->first || block - c->first >= c->nr)
		return complain(o, volume, block, &p, FOREIGN "another block's bytes");
	return NULL;
}

const char *oracle_read_end(struct oracle *o, unsigned volume, uint32_t first, uint32_t nr, const struct oracle_least *least,
			    uint32_t begun, const void *buf)
{
	const struct oracle_volume *v = &o->volumes[volume];
	struct oracle_block *b = oracle_blocks(o, volume) + first;
	bool altered = v->altering >= 0 || v->nr_alterations != begun;
	const char *wrong = NULL;

	for (uint32_t i = 0; i < nr; i++) {
		const char *at = (const char *)buf + (uint64_t)i * ORACLE_BLOCK;

		b[i].nr_readers--;
		if (!wrong)
			wrong = altered ? judge_by_sight(o, volume, first + i, at) : judge_block(o, volume, volume, first + i, at, least[i]);
	}
	return wrong;
}

/* --- snapshots --- */

static uint32_t seen_version(const char *buf)
{
	struct oracle_stamp p;

	memcpy(&p, buf, sizeof(p));
	return oracle_stamp_ok(&p) ? p.version : 0;
}

/* The moment at which the newest change in it was issued. */
static uint64_t newest_moment(const struct oracle *o, unsigned volume, const char *buf)
{
	uint64_t newest = 0;

	for (uint32_t i = 0; i < o->volumes[volume].sizes[0]; i++) {
		uint32_t version = seen_version(buf + (uint64_t)i * ORACLE_BLOCK);

		if (version && version < o->next_version && version >= o->epoch && o->changes[version].issued > newest)
			newest = o->changes[version].issued;
	}
	return newest;
}

const char *oracle_judge_snapshot(struct oracle *o, unsigned volume, const void *seen)
{
	struct oracle_volume *v = &o->volumes[volume];
	struct oracle_block *b = oracle_blocks(o, volume);
	uint64_t newest = newest_moment(o, volume, seen);
	uint32_t end = v->nr_windows ? v->windows[v->nr_windows - 1].end : 0;

	for (uint32_t n = o->epoch; n < end && n < o->next_version; n++) {
		const struct oracle_change *c = &o->changes[n];

		if (c->generation != v->origin || !c->completed || c->completed >= newest || c->zero || c->vague)
			continue;
		for (uint32_t i = c->first; i < c->first + c->nr && i < v->sizes[0]; i++) {
			const char *at = (const char *)seen + (uint64_t)i * ORACLE_BLOCK;
			struct oracle_stamp p;

			memcpy(&p, at, sizeof(p));
			if (seen_version(at) < n && n >= b[i].from && !(oracle_is_zero(at) && b[i].zeroed > n))
				return complain(o, volume, i, &p,
						ATOMIC "the snapshot misses a write that had completed before another in it "
						       "was issued");
		}
	}
	for (uint32_t i = 0; i < v->sizes[0]; i++) {
		const char *at = (const char *)seen + (uint64_t)i * ORACLE_BLOCK;

		b[i].latest_zero = oracle_is_zero(at);
		b[i].latest = b[i].latest_zero ? (b[i].zeroed > b[i].latest ? b[i].zeroed : b[i].latest) : seen_version(at);
		b[i].floor = b[i].latest;
		b[i].floor_zero = b[i].latest_zero;
		b[i].zeroed = 0;
	}
	v->nr_windows = 0; /* nothing else may show in it from now on */
	return NULL;
}

/* --- volumes --- */

int oracle_find(const struct oracle *o, const uuid_t uuid)
{
	for (unsigned i = 0; i < ORACLE_MAX_VOLUMES; i++)
		if (o->volumes[i].generation && !memcmp(o->volumes[i].uuid, uuid, sizeof(uuid_t)))
			return i;
	return -1;
}

static const char *judge_parent(const struct oracle *o, unsigned i, int parent)
{
	const struct oracle_volume *v = &o->volumes[i];
	uint32_t generation = parent < 0 ? 0 : o->volumes[parent].generation;

	for (unsigned k = 0; k < v->nr_parents; k++)
		if (v->parents[k] == generation)
			return NULL;
	snprintf(complaint, sizeof(complaint), ATOMIC "the parent of %s should be generation %u or %u, not %u", v->names[0],
		 v->parents[0], v->parents[v->nr_parents - 1], generation);
	return complaint;
}

const char *oracle_judge_parents(const struct oracle *o, const bool *present, const int *parents)
{
	for (unsigned i = 0; i < ORACLE_MAX_VOLUMES && !o->parents_vague; i++) {
		const struct oracle_volume *v = &o->volumes[i];
		const char *wrong = present[i] ? judge_parent(o, i, parents[i]) : NULL;

		if (wrong)
			return wrong;
		if (v->used && v->snapshot && v->taken_from >= 0 && present[v->taken_from] &&
		    present[i] != (parents[v->taken_from] == (int)i))
			return ATOMIC "a snapshot is there, and its volume has another parent; or the other way round";
	}
	return NULL;
}

static bool xattr_is(uint32_t number, const void *xattr, uint32_t len)
{
	char want[ORACLE_XATTR_MAX];

	if (!number)
		return !len;
	return oracle_xattr_fill(number, want) == len && !memcmp(want, xattr, len);
}

static bool flag_is(enum oracle_flag flag, bool is)
{
	return flag == ORACLE_MAYBE || (flag == ORACLE_YES) == is;
}

const char *oracle_judge_volume(const struct oracle *o, int volume, const struct oracle_sight *sight)
{
	const struct oracle_volume *v;
	bool name_ok = false, size_ok = false, xattr_ok = false;

	if (volume < 0) {
		snprintf(complaint, sizeof(complaint), ATOMIC "volume %s is nobody's: deleted long ago, or never made", sight->name);
		return complaint;
	}
	v = &o->volumes[volume];
	if (!v->may_be_present) {
		snprintf(complaint, sizeof(complaint), ATOMIC "volume %s (generation %u) was deleted, and is there", sight->name,
			 v->generation);
		return complaint;
	}
	for (unsigned i = 0; i < v->nr_names; i++)
		name_ok |= !strcmp(sight->name, v->names[i]);
	for (unsigned i = 0; i < v->nr_sizes; i++)
		size_ok |= sight->blocks == v->sizes[i];
	for (unsigned i = 0; i < v->nr_xattrs; i++)
		xattr_ok |= xattr_is(v->xattrs[i], sight->xattr, sight->xattr_len);
	if (name_ok && size_ok && xattr_ok && flag_is(v->read_only, sight->read_only) &&
	    (v->snapshot || flag_is(v->thick, sight->thick)))
		return NULL;
	snprintf(complaint, sizeof(complaint), ATOMIC "volume %s of %lu blocks%s%s should be %s of %lu, or %s of %lu, %s, %s%s", sight->name,
		 (unsigned long)sight->blocks, sight->thick ? ", thick" : "", sight->read_only ? ", read-only" : "", v->names[0],
		 (unsigned long)v->sizes[0], v->names[v->nr_names - 1], (unsigned long)v->sizes[v->nr_sizes - 1],
		 flag_is(v->thick, true) ? "thick" : "thin", flag_is(v->read_only, true) ? "read-only" : "writable",
		 xattr_ok ? "" : "; its attribute is none of those it was given");
	return complaint;
}

/* Its own are those of two superblocks, a journal of 32 pages and the first group's checksums, twice; it grows by more at a time. */
bool oracle_store_fits(uint64_t disk_clusters, uint64_t nr_clusters)
{
	return nr_clusters <= disk_clusters && disk_clusters - nr_clusters <= 2 + 5 + 4;
}

const char *oracle_judge_store(const struct oracle *o, const char *name, uint64_t nr_clusters)
{
	const struct oracle_store *s = &o->store;
	bool name_ok = false, size_ok = false;

	for (unsigned i = 0; i < s->nr_names; i++)
		name_ok |= !strcmp(name, s->names[i]);
	for (unsigned i = 0; i < s->nr_sizes; i++)
		size_ok |= oracle_store_fits(s->sizes[i] / o->cluster_blocks, nr_clusters);
	if (name_ok && size_ok)
		return NULL;
	snprintf(complaint, sizeof(complaint), ATOMIC "store %s of %lu clusters should be %s or %s, of %lu or %lu", name,
		 (unsigned long)nr_clusters, s->names[0], s->names[s->nr_names - 1], (unsigned long)(s->sizes[0] / o->cluster_blocks),
		 (unsigned long)(s->sizes[s->nr_sizes - 1] / o->cluster_blocks));
	return complaint;
}
