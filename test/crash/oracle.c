/* The oracle: permitted contents of every block, volume and name; see oracle.h. */
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "test/crash/oracle.h"

#define PATTERN_MAGIC 0x57a11ed5u

/* Repeated through a block. */
struct pattern {
	uint32_t magic, generation, block, version;
};

struct oracle *oracle_create(void)
{
	int fd = memfd_create("oracle", MFD_CLOEXEC);
	struct oracle *o;

	if (fd < 0)
		return NULL;
	o = ftruncate(fd, sizeof(*o)) ? MAP_FAILED : mmap(NULL, sizeof(*o), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (o == MAP_FAILED) {
		close(fd);
		return NULL;
	}
	o->memfd = fd;
	o->next_version = 1;
	o->next_generation = 1;
	o->may_lack_store = true;
	o->moment = 1;
	return o;
}

void oracle_destroy(struct oracle *o)
{
	close(o->memfd);
	munmap(o, sizeof(*o));
}

int oracle_make_private(struct oracle *o)
{
	void *map = mmap(o, sizeof(*o), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, o->memfd, 0);

	return map == MAP_FAILED ? -1 : 0;
}

/* --- data --- */

uint32_t oracle_change_begin(struct oracle *o, unsigned volume, uint32_t first, uint32_t nr, bool zero)
{
	struct oracle_volume *v = &o->volumes[volume];
	uint32_t version = o->next_version++;

	assert(version < ORACLE_MAX_CHANGES);
	assert(nr <= ORACLE_MAX_BLOCKS && first <= ORACLE_MAX_BLOCKS - nr);
	o->changes[version] = (struct oracle_change){ .volume = volume, .generation = v->generation, .first = first,
						      .nr = nr, .zero = zero };
	for (uint32_t b = first; b < first + nr; b++) {
		if (zero)
			v->blocks[b].zeroed = version;
	}
	return version;
}

static void harden(struct oracle *o, uint32_t version)
{
	struct oracle_change *c = &o->changes[version];
	struct oracle_volume *v = &o->volumes[c->volume];

	c->durable = true;
	if (v->generation != c->generation)
		return;
	for (uint32_t b = c->first; b < c->first + c->nr; b++) {
		if (v->blocks[b].floor > version)
			continue;
		v->blocks[b].floor = version;
		v->blocks[b].floor_zero = c->zero;
	}
}

void oracle_change_end(struct oracle *o, uint32_t version, bool ok, bool durable)
{
	struct oracle_change *c = &o->changes[version];
	struct oracle_volume *v = &o->volumes[c->volume];

	if (!ok || v->generation != c->generation)
		return; /* any part of it may be there */
	c->completed = o->moment++;
	for (uint32_t b = c->first; b < c->first + c->nr; b++) {
		if (v->blocks[b].latest > version)
			continue;
		v->blocks[b].latest = version;
		v->blocks[b].latest_zero = c->zero;
	}
	if (durable)
		harden(o, version);
}

uint64_t oracle_flush_begin(struct oracle *o)
{
	return o->moment++;
}

void oracle_flush_end(struct oracle *o, uint64_t moment)
{
	for (uint32_t version = o->epoch; version < o->next_version; version++) {
		const struct oracle_change *c = &o->changes[version];

		if (c->completed && !c->durable && c->completed < moment)
			harden(o, version);
	}
}

void oracle_fill(const struct oracle *o, unsigned volume, uint32_t first, uint32_t nr, uint32_t version, void *buf)
{
	struct pattern p = { PATTERN_MAGIC, o->volumes[volume].generation, 0, version }, *to = buf;

	for (uint32_t b = first; b < first + nr; b++) {
		p.block = b;
		for (unsigned i = 0; i < ORACLE_BLOCK / sizeof(p); i++)
			*to++ = p;
	}
}

/* --- volumes --- */

void oracle_create_begin(struct oracle *o, unsigned volume, const char *name, uint64_t blocks)
{
	struct oracle_volume *v = &o->volumes[volume];

	assert(blocks <= ORACLE_MAX_BLOCKS);
	memset(v, 0, sizeof(*v));
	v->used = true;
	v->generation = o->next_generation++;
	memset(v->uuid, 0x42, sizeof(v->uuid));
	memcpy(v->uuid, &v->generation, sizeof(v->generation));
	v->may_be_absent = v->may_be_present = true;
	snprintf(v->names[0], ORACLE_NAME_MAX, "%s", name);
	v->nr_names = 1;
	v->sizes[0] = blocks;
	v->nr_sizes = 1;
	for (unsigned b = 0; b < ORACLE_MAX_BLOCKS; b++)
		v->blocks[b].floor_zero = v->blocks[b].latest_zero = true;
}

void oracle_create_end(struct oracle *o, unsigned volume, bool ok)
{
	o->volumes[volume].may_be_absent = !ok;
	o->volumes[volume].may_be_present = ok;
	o->volumes[volume].used = ok;
}

void oracle_delete_begin(struct oracle *o, unsigned volume)
{
	o->volumes[volume].may_be_absent = true;
}

void oracle_delete_end(struct oracle *o, unsigned volume, bool ok)
{
	oracle_create_end(o, volume, !ok);
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

	assert(blocks <= ORACLE_MAX_BLOCKS);
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

/* --- judging --- */

static char complaint[512];

static const char *complain(const struct oracle *o, unsigned volume, uint32_t block, const struct pattern *p,
			    const char *what)
{
	const struct oracle_volume *v = &o->volumes[volume];
	const struct oracle_block *b = &v->blocks[block];
	int n = snprintf(complaint, sizeof(complaint),
			 "volume %s (generation %u) block %u: %s; durable is version %u%s, completed %u%s, last zeroed %u, "
			 "issued below %u, epoch %u; ",
			 v->names[0], v->generation, block, what, b->floor, b->floor_zero ? " (zero)" : "", b->latest,
			 b->latest_zero ? " (zero)" : "", b->zeroed, o->next_version, o->epoch);

	if (p->magic == PATTERN_MAGIC)
		snprintf(complaint + n, sizeof(complaint) - n, "it holds generation %u block %u version %u", p->generation,
			 p->block, p->version);
	else
		snprintf(complaint + n, sizeof(complaint) - n, "it holds %08x %08x %08x %08x", p->magic, p->generation,
			 p->block, p->version);
	return complaint;
}

static bool is_zero(const void *buf)
{
	const char *p = buf;

	return !*p && !memcmp(p, p + 1, ORACLE_BLOCK - 1);
}

static const char *judge_block(const struct oracle *o, unsigned volume, uint32_t block, const char *buf, bool after_crash)
{
	const struct oracle_volume *v = &o->volumes[volume];
	const struct oracle_block *b = &v->blocks[block];
	uint32_t least = after_crash ? b->floor : b->latest;
	bool least_zero = after_crash ? b->floor_zero : b->latest_zero;
	struct pattern p;

	memcpy(&p, buf, sizeof(p));
	if (is_zero(buf)) {
		if (least_zero || (b->zeroed > least && b->zeroed >= o->epoch))
			return NULL;
		return complain(o, volume, block, &p, "zeroes, but data was there");
	}
	if (p.magic != PATTERN_MAGIC || memcmp(buf, buf + sizeof(p), ORACLE_BLOCK - sizeof(p)))
		return complain(o, volume, block, &p, "foreign or torn bytes");
	if (p.generation != v->generation)
		return complain(o, volume, block, &p, "another volume's bytes");
	if (p.block != block)
		return complain(o, volume, block, &p, "another block's bytes");
	if (p.version == least && !least_zero)
		return NULL;
	if (p.version <= least)
		return complain(o, volume, block, &p, "older than what must be there");
	if (p.version < o->epoch)
		return complain(o, volume, block, &p, "came back after an earlier crash had lost it");
	if (p.version >= o->next_version)
		return complain(o, volume, block, &p, "from a future");
	return NULL;
}

const char *oracle_judge(const struct oracle *o, unsigned volume, uint32_t first, uint32_t nr, const void *buf,
			 bool after_crash)
{
	const char *wrong = NULL;

	for (uint32_t i = 0; i < nr && !wrong; i++)
		wrong = judge_block(o, volume, first + i, (const char *)buf + (uint64_t)i * ORACLE_BLOCK, after_crash);
	return wrong;
}

int oracle_find(const struct oracle *o, const uuid_t uuid)
{
	for (unsigned i = 0; i < ORACLE_MAX_VOLUMES; i++) {
		if (o->volumes[i].generation && !memcmp(o->volumes[i].uuid, uuid, sizeof(uuid_t)))
			return i;
	}
	return -1;
}

const char *oracle_judge_volume(const struct oracle *o, int volume, const char *name, uint64_t blocks)
{
	const struct oracle_volume *v;
	bool name_ok = false, size_ok = false;

	if (volume < 0) {
		snprintf(complaint, sizeof(complaint), "volume %s is nobody's: deleted long ago, or never made", name);
		return complaint;
	}
	v = &o->volumes[volume];
	if (!v->may_be_present) {
		snprintf(complaint, sizeof(complaint), "volume %s (generation %u) was deleted, and is there", name,
			 v->generation);
		return complaint;
	}
	for (unsigned i = 0; i < v->nr_names; i++)
		name_ok |= !strcmp(name, v->names[i]);
	for (unsigned i = 0; i < v->nr_sizes; i++)
		size_ok |= blocks == v->sizes[i];
	if (name_ok && size_ok)
		return NULL;
	snprintf(complaint, sizeof(complaint), "volume %s of %lu blocks should be %s of %lu, or %s of %lu", name,
		 (unsigned long)blocks, v->names[0], (unsigned long)v->sizes[0], v->names[v->nr_names - 1],
		 (unsigned long)v->sizes[v->nr_sizes - 1]);
	return complaint;
}

/* --- after a recovery --- */

void oracle_rebase_volume(struct oracle *o, unsigned volume, const char *name, uint64_t blocks, const void *seen)
{
	struct oracle_volume *v = &o->volumes[volume];

	v->used = v->may_be_present = seen != NULL;
	v->may_be_absent = !seen;
	if (!seen)
		return;
	snprintf(v->names[0], ORACLE_NAME_MAX, "%s", name);
	v->nr_names = v->nr_sizes = 1;
	v->sizes[0] = blocks;
	for (uint32_t i = 0; i < ORACLE_MAX_BLOCKS; i++) {
		struct oracle_block *b = &v->blocks[i];
		const char *buf = (const char *)seen + (uint64_t)i * ORACLE_BLOCK;
		struct pattern p;

		b->busy = false;
		b->floor_zero = i >= blocks || is_zero(buf);
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
