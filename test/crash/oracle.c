/* The oracle: permitted contents of every block, volume and name; see oracle.h. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/crc32c.h"
#include "test/crash/oracle.h"

#define SPARE_CHANGES 256u

static struct oracle *make(uint32_t max_blocks, uint32_t max_changes)
{
	struct oracle *o = calloc(1, sizeof(*o));

	if (!o || !(o->blocks = calloc((size_t)max_blocks * ORACLE_MAX_VOLUMES, sizeof(o->blocks[0]))) ||
	    !(o->changes = calloc(max_changes, sizeof(o->changes[0]))))
		abort();
	o->max_blocks = max_blocks;
	o->max_changes = max_changes;
	return o;
}

struct oracle *oracle_create(uint32_t max_blocks, uint32_t max_changes)
{
	struct oracle *o = make(max_blocks, max_changes);

	o->next_xattr = 1;
	o->may_lack_store = true;
	o->changes[ORACLE_OUTSIDE] = (struct oracle_change){ .volume = ORACLE_MAX_VOLUMES, .generation = ORACLE_OUTSIDE, .nr = max_blocks,
							      .issued = 1, .completed = 1, .durable = true };
	o->next_version = o->next_generation = ORACLE_OUTSIDE + 1;
	o->moment = 2;
	return o;
}

void oracle_copy(struct oracle *to, const struct oracle *from)
{
	struct oracle_block *blocks = to->blocks;
	struct oracle_change *changes = to->changes;
	uint32_t max_changes = to->max_changes;

	assert(to->max_blocks == from->max_blocks && from->next_version <= max_changes);
	*to = *from;
	to->blocks = blocks;
	to->changes = changes;
	to->max_changes = max_changes;
	for (unsigned i = 0; i < ORACLE_MAX_VOLUMES; i++)
		if (from->volumes[i].generation)
			memcpy(oracle_blocks(to, i), oracle_blocks(from, i), from->max_blocks * sizeof(blocks[0]));
	memcpy(changes, from->changes, from->next_version * sizeof(changes[0]));
}

struct oracle *oracle_dup(const struct oracle *o)
{
	struct oracle *copy = make(o->max_blocks, o->next_version + SPARE_CHANGES);

	oracle_copy(copy, o);
	return copy;
}

void oracle_destroy(struct oracle *o)
{
	if (!o)
		return;
	free(o->blocks);
	free(o->changes);
	free(o);
}

static uint64_t hash(uint64_t h, const void *data, size_t len)
{
	const unsigned char *p = data;
	uint64_t w;

	for (; len >= sizeof(w); len -= sizeof(w), p += sizeof(w)) {
		memcpy(&w, p, sizeof(w));
		h = (h ^ w) * 0x9fb21c651e98df25ull;
		h ^= h >> 29;
	}
	while (len--)
		h = (h ^ *p++) * 0x100000001b3ull;
	return h;
}

uint64_t oracle_hash(const struct oracle *o)
{
	uint64_t h = o->next_version + ((uint64_t)o->epoch << 32) + o->may_lack_store + 2 * o->power_lost;

	h = hash(h, &o->store, sizeof(o->store));
	for (unsigned i = 0; i < ORACLE_MAX_VOLUMES; i++) {
		const struct oracle_volume *v = &o->volumes[i];

		if (!v->used)
			continue;
		h = hash(h, v, sizeof(*v));
		h = hash(h, oracle_blocks(o, i), o->max_blocks * sizeof(o->blocks[0]));
	}
	return h;
}

/* --- data --- */

uint32_t oracle_change_begin(struct oracle *o, unsigned volume, uint32_t first, uint32_t nr, bool zero)
{
	struct oracle_volume *v = &o->volumes[volume];
	struct oracle_block *blocks = oracle_blocks(o, volume);
	uint32_t version = o->next_version++;

	assert(version < o->max_changes);
	assert(nr <= o->max_blocks && first <= o->max_blocks - nr);
	o->changes[version] = (struct oracle_change){ .volume = volume, .generation = v->generation, .first = first,
						      .nr = nr, .zero = zero, .issued = o->moment++ };
	for (uint32_t b = first; zero && b < first + nr; b++)
		blocks[b].zeroed = version;
	return version;
}

static void harden(struct oracle *o, uint32_t version)
{
	struct oracle_change *c = &o->changes[version];
	struct oracle_block *blocks = oracle_blocks(o, c->volume);

	c->durable = true;
	if (o->volumes[c->volume].generation != c->generation || c->vague)
		return;
	for (uint32_t b = c->first; b < c->first + c->nr; b++) {
		if (blocks[b].floor > version || version < blocks[b].from || (c->completed && c->completed < blocks[b].replaced_at))
			continue;
		blocks[b].floor = version;
		blocks[b].floor_zero = c->zero;
	}
}

void oracle_change_end(struct oracle *o, uint32_t version, bool ok, bool durable)
{
	struct oracle_change *c = &o->changes[version];
	struct oracle_block *blocks = oracle_blocks(o, c->volume);

	if (!ok || o->volumes[c->volume].generation != c->generation)
		return; /* any part of it may be there */
	c->completed = o->moment++;
	if (c->vague)
		return; /* it may have come before what replaced it */
	for (uint32_t b = c->first; b < c->first + c->nr; b++) {
		if (blocks[b].latest > version)
			continue;
		blocks[b].latest = version;
		blocks[b].latest_zero = c->zero;
	}
	if (durable)
		harden(o, version);
}

uint64_t oracle_flush_begin(struct oracle *o)
{
	return o->moment++;
}

/* What snapshots and clones hold of others' changes is durable with those. */
static void harden_inherited(struct oracle *o, unsigned volume)
{
	struct oracle_block *blocks = oracle_blocks(o, volume);

	for (uint32_t b = 0; b < o->volumes[volume].sizes[0]; b++) {
		struct oracle_block *k = &blocks[b];

		if (k->latest <= k->floor || !o->changes[k->latest].durable ||
		    o->changes[k->latest].generation == o->volumes[volume].generation)
			continue;
		k->floor = k->latest;
		k->floor_zero = k->latest_zero;
	}
}

void oracle_flush_end(struct oracle *o, uint64_t moment)
{
	for (uint32_t version = o->epoch; version < o->next_version; version++) {
		const struct oracle_change *c = &o->changes[version];

		if (c->completed && !c->durable && c->completed < moment)
			harden(o, version);
	}
	for (unsigned i = 0; i < ORACLE_MAX_VOLUMES; i++)
		if (o->volumes[i].used && o->volumes[i].nr_windows && o->volumes[i].taken_from < 0)
			harden_inherited(o, i);
}

static uint32_t stamp_crc(const struct oracle_stamp *p)
{
	return crc32c(&p->generation, sizeof(*p) - sizeof(p->crc));
}

bool oracle_stamp_ok(const struct oracle_stamp *p)
{
	return p->crc == stamp_crc(p);
}

static void fill(uint32_t generation, uint32_t first, uint32_t nr, uint32_t version, void *buf)
{
	struct oracle_stamp p = { 0, generation, 0, version }, *to = buf;

	for (uint32_t b = first; b < first + nr; b++) {
		p.block = b;
		p.crc = stamp_crc(&p);
		for (unsigned i = 0; i < ORACLE_BLOCK / sizeof(p); i++)
			*to++ = p;
	}
}

void oracle_fill(const struct oracle *o, unsigned volume, uint32_t first, uint32_t nr, uint32_t version, void *buf)
{
	fill(o->volumes[volume].generation, first, nr, version, buf);
}

void oracle_fill_outside(uint32_t first, uint32_t nr, void *buf)
{
	fill(ORACLE_OUTSIDE, first, nr, ORACLE_OUTSIDE, buf);
}

/* --- volumes --- */

struct oracle_volume *oracle_volume_init(struct oracle *o, unsigned volume, const char *name, uint64_t blocks)
{
	struct oracle_volume *v = &o->volumes[volume];

	assert(blocks <= o->max_blocks);
	memset(v, 0, sizeof(*v));
	v->used = true;
	v->generation = o->next_generation++;
	v->may_be_absent = v->may_be_present = true;
	snprintf(v->names[0], ORACLE_NAME_MAX, "%s", name);
	v->sizes[0] = blocks;
	memset(v->uuid, 0x42, sizeof(v->uuid));
	memcpy(v->uuid, &v->generation, sizeof(v->generation));
	v->nr_names = v->nr_sizes = v->nr_xattrs = v->nr_parents = 1;
	v->thick = v->read_only = ORACLE_NO;
	v->altering = v->taken_from = -1;
	return v;
}

void oracle_create_begin(struct oracle *o, unsigned volume, const char *name, uint64_t blocks, bool thick)
{
	struct oracle_block *b = oracle_blocks(o, volume);

	oracle_volume_init(o, volume, name, blocks)->thick = thick ? ORACLE_YES : ORACLE_NO;
	memset(b, 0, o->max_blocks * sizeof(*b));
	for (unsigned i = 0; i < o->max_blocks; i++)
		b[i].floor_zero = b[i].latest_zero = true;
}

void oracle_create_outside_begin(struct oracle *o, unsigned volume, const char *name, uint64_t blocks, uint64_t outside_blocks)
{
	struct oracle_block *b = oracle_blocks(o, volume);

	oracle_create_begin(o, volume, name, blocks, false);
	for (unsigned i = 0; i < outside_blocks; i++)
		b[i] = (struct oracle_block){ .floor = ORACLE_OUTSIDE, .latest = ORACLE_OUTSIDE };
}

void oracle_create_end(struct oracle *o, unsigned volume, bool ok)
{
	o->volumes[volume].may_be_absent = !ok;
	o->volumes[volume].may_be_present = ok;
	o->volumes[volume].used = ok;
}

void oracle_delete_begin(struct oracle *o, unsigned volume)
{
	struct oracle_volume *v = &o->volumes[volume];

	v->may_be_absent = true;
	for (unsigned i = 0; i < ORACLE_MAX_VOLUMES; i++)
		if (o->volumes[i].used && o->volumes[i].parents[0] == v->generation)
			oracle_parent_may(&o->volumes[i], v->parents[0]);
}

void oracle_delete_end(struct oracle *o, unsigned volume, bool ok)
{
	oracle_create_end(o, volume, !ok);
	for (unsigned i = 0; i < ORACLE_MAX_VOLUMES; i++)
		if (o->volumes[i].used && o->volumes[i].parents[0] == o->volumes[volume].generation)
			oracle_parent_is(&o->volumes[i], ok);
}

void oracle_rename_begin(struct oracle *o, unsigned volume, const char *name)
{
	struct oracle_volume *v = &o->volumes[volume];

	snprintf(v->names[1], ORACLE_NAME_MAX, "%s", name);
	v->nr_names = 2;
}

void oracle_rename_end(struct oracle *o, unsigned volume, bool ok)
{
	struct oracle_volume *v = &o->volumes[volume];

	if (ok)
		memcpy(v->names[0], v->names[1], ORACLE_NAME_MAX);
	v->nr_names = 1;
}

void oracle_resize_begin(struct oracle *o, unsigned volume, uint64_t blocks)
{
	struct oracle_volume *v = &o->volumes[volume];

	assert(blocks <= o->max_blocks);
	v->sizes[1] = blocks;
	v->nr_sizes = 2;
}

void oracle_resize_end(struct oracle *o, unsigned volume, bool ok)
{
	struct oracle_volume *v = &o->volumes[volume];
	uint64_t old = v->sizes[0];

	v->nr_sizes = 1;
	if (!ok)
		return;
	v->sizes[0] = v->sizes[1];
	if (v->sizes[0] < old) /* what was cut off reads zero should the volume grow again */
		oracle_change_end(o, oracle_change_begin(o, volume, v->sizes[0], old - v->sizes[0], true), true, true);
}

void oracle_read_only_begin(struct oracle *o, unsigned volume)
{
	o->volumes[volume].read_only = ORACLE_MAYBE;
}

void oracle_read_only_end(struct oracle *o, unsigned volume, bool ok)
{
	o->volumes[volume].read_only = ok ? ORACLE_YES : ORACLE_NO;
}

uint32_t oracle_xattr_begin(struct oracle *o, unsigned volume)
{
	struct oracle_volume *v = &o->volumes[volume];

	v->xattrs[1] = o->next_xattr++;
	v->nr_xattrs = 2;
	return v->xattrs[1];
}

void oracle_xattr_end(struct oracle *o, unsigned volume, bool ok)
{
	struct oracle_volume *v = &o->volumes[volume];

	if (ok)
		v->xattrs[0] = v->xattrs[1];
	v->nr_xattrs = 1;
}

/* Few lengths, so that an old value often lies where the new one does on a torn page. */
uint32_t oracle_xattr_fill(uint32_t number, void *buf)
{
	uint32_t len = number % 4 == 0 ? 64 : number % 4 == 1 ? 700 : ORACLE_XATTR_MAX;

	for (uint32_t i = 0; i + sizeof(number) <= len; i += sizeof(number))
		memcpy((char *)buf + i, &number, sizeof(number));
	return len;
}

uint32_t oracle_xattr_number(const void *value, uint32_t len)
{
	uint32_t number = 0;

	if (len >= sizeof(number))
		memcpy(&number, value, sizeof(number));
	return number;
}

/* --- the store --- */

void oracle_store_init(struct oracle *o, const char *name, uint64_t disk_blocks, uint64_t outside_blocks)
{
	struct oracle_volume *outside = &o->volumes[ORACLE_OUTSIDE_SLOT];

	o->outside = calloc(o->max_blocks, sizeof(o->outside[0]));
	if (!o->outside)
		abort();
	*outside = (struct oracle_volume){ .snapshot = true, .generation = ORACLE_OUTSIDE, .altering = -1, .taken_from = -1 };
	snprintf(outside->names[0], ORACLE_NAME_MAX, "outside");
	for (uint32_t b = 0; b < o->max_blocks; b++) {
		o->outside[b].floor = o->outside[b].latest = b < outside_blocks ? ORACLE_OUTSIDE : 0;
		o->outside[b].floor_zero = o->outside[b].latest_zero = b >= outside_blocks;
	}
	snprintf(o->store.names[0], ORACLE_NAME_MAX, "%s", name);
	o->store.sizes[0] = o->store.disk_blocks = disk_blocks;
	o->store.nr_names = o->store.nr_sizes = 1;
}

void oracle_store_rename_begin(struct oracle *o, const char *name)
{
	snprintf(o->store.names[1], ORACLE_NAME_MAX, "%s", name);
	o->store.nr_names = 2;
}

void oracle_store_rename_end(struct oracle *o, bool ok)
{
	if (ok)
		memcpy(o->store.names[0], o->store.names[1], ORACLE_NAME_MAX);
	o->store.nr_names = 1;
}

void oracle_store_grow_begin(struct oracle *o, uint64_t disk_blocks)
{
	o->store.sizes[1] = o->store.disk_blocks = disk_blocks;
	o->store.nr_sizes = 2;
}

void oracle_store_grow_end(struct oracle *o, bool ok)
{
	if (ok)
		o->store.sizes[0] = o->store.sizes[1];
	o->store.nr_sizes = 1;
}

/* --- after a recovery --- */

bool oracle_is_zero(const void *buf)
{
	const char *p = buf;

	return !*p && !memcmp(p, p + 1, ORACLE_BLOCK - 1);
}

void oracle_rebase_parents(struct oracle *o, const bool *present, const int *parents)
{
	for (unsigned i = 0; i < ORACLE_MAX_VOLUMES; i++) {
		if (!present[i])
			continue;
		o->volumes[i].parents[0] = parents[i] < 0 ? 0 : o->volumes[parents[i]].generation;
		o->volumes[i].nr_parents = 1;
	}
	o->parents_vague = false;
}

/* Of its sizes the one that makes so many clusters. */
void oracle_rebase_store(struct oracle *o, const char *name, uint64_t nr_clusters)
{
	snprintf(o->store.names[0], ORACLE_NAME_MAX, "%s", name);
	if (o->store.nr_sizes == 2 && oracle_store_fits(o->store.sizes[1] / o->cluster_blocks, nr_clusters))
		o->store.sizes[0] = o->store.sizes[1];
	o->store.nr_names = o->store.nr_sizes = 1;
}

void oracle_rebase_volume(struct oracle *o, unsigned volume, const struct oracle_sight *sight, const void *seen)
{
	struct oracle_volume *v = &o->volumes[volume];
	struct oracle_block *all = oracle_blocks(o, volume);

	v->used = v->may_be_present = seen != NULL;
	v->may_be_absent = !seen;
	v->altering = v->taken_from = -1;
	v->nr_windows = 0;
	if (!seen)
		return;
	snprintf(v->names[0], ORACLE_NAME_MAX, "%s", sight->name);
	v->nr_names = v->nr_sizes = v->nr_xattrs = 1;
	v->sizes[0] = sight->blocks;
	v->xattrs[0] = oracle_xattr_number(sight->xattr, sight->xattr_len);
	v->thick = sight->thick ? ORACLE_YES : ORACLE_NO;
	v->read_only = sight->read_only ? ORACLE_YES : ORACLE_NO;
	for (uint32_t i = 0; i < o->max_blocks; i++) {
		struct oracle_block *b = &all[i];
		const char *buf = (const char *)seen + (uint64_t)i * ORACLE_BLOCK;
		struct oracle_stamp p;

		b->busy = false;
		b->nr_readers = 0;
		b->from = 0;
		b->floor_zero = i >= sight->blocks || oracle_is_zero(buf);
		if (b->floor_zero) {
			if (b->zeroed > b->floor)
				b->floor = b->zeroed;
		} else {
			memcpy(&p, buf, sizeof(p));
			b->floor = p.version;
		}
		b->latest = b->floor;
		b->latest_zero = b->floor_zero;
	}
}

void oracle_rebase_end(struct oracle *o)
{
	o->epoch = o->next_version;
	o->may_lack_store = false;
	o->power_lost = false;
}
