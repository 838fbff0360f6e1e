/* The methods that tell what a volume holds: which clusters are its own, and which bytes differ from another's. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mgmt/methods.h"
#include "mgmt/methods_lvol.h"

/* Of changed ranges that one call is answered with. */
#define DEFAULT_RANGES 1000u
#define MAX_RANGES     10000u
#define RANGES_A_TURN  128u
/* Of clusters: an answer of three megabytes.  What is done to them at once takes some ten microseconds. */
#define MAX_FRAGMAP_CLUSTERS (16u << 20)
#define BYTES_AT_ONCE	     (48u << 10)

/* Calls fn for each range of to, from an offset on, that differs from base (NULL: that is mapped); until it gives false. */
struct walk {
	const char *to, *base; /* bdevs' names */
	bool whole_clusters;
	uint64_t at_bytes;
	fiber_fn bool (*fn)(const struct blob_range *range, void *arg);
	void *arg;
};

static fiber_fn int walk(struct walk *w)
{
	struct blob_range ranges[RANGES_A_TURN];
	uint32_t nr;
	int rc;

	do {
		/* Looked up each time: they may go meanwhile. */
		struct lvol_diff diff = { .from = w->base ? lvol_find(w->base) : NULL,
					  .to = lvol_find(w->to),
					  .whole_clusters = w->whole_clusters,
					  .at_bytes = w->at_bytes };

		if (!diff.to || (w->base && !diff.from))
			return -ENODEV;
		rc = lvol_diff_next(&diff, ranges, RANGES_A_TURN, &nr);
		if (rc)
			return rc;
		w->at_bytes = diff.at_bytes;
		for (uint32_t i = 0; i < nr; i++) {
			if (!w->fn(&ranges[i], w->arg))
				return 0;
		}
		fiber_yield();
	} while (nr == RANGES_A_TURN);
	return 0;
}

struct fragmap {
	uint8_t *bits;
	uint64_t offset_bytes, end_bytes, nr_allocated;
	uint32_t cluster_size_bytes;
};

static void mark_bits(struct fragmap *map, uint64_t byte, uint8_t bits)
{
	map->nr_allocated += __builtin_popcount(bits & ~map->bits[byte]);
	map->bits[byte] |= bits;
}

static fiber_fn bool mark(const struct blob_range *range, void *arg)
{
	struct fragmap *map = arg;
	uint64_t from = range->offset_bytes < map->offset_bytes ? map->offset_bytes : range->offset_bytes;
	uint64_t end = range->offset_bytes + range->len_bytes, i;

	if (from >= map->end_bytes)
		return false;
	end = (end < map->end_bytes ? end : map->end_bytes) - map->offset_bytes;
	end = (end + map->cluster_size_bytes - 1) / map->cluster_size_bytes;
	for (i = (from - map->offset_bytes) / map->cluster_size_bytes; i < end; i = (i / 8 + 1) * 8) {
		unsigned first = i % 8, last = end - i / 8 * 8 < 8 ? end % 8 : 8;

		mark_bits(map, i / 8, (uint8_t)((1u << last) - (1u << first)));
		if (i / 8 % BYTES_AT_ONCE == 0)
			fiber_yield();
	}
	return true;
}

/* free() it; NULL: no memory. */
static fiber_fn char *base64(const uint8_t *in, size_t len)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *out = malloc((len + 2) / 3 * 4 + 1), *at = out;

	for (size_t i = 0; out && i < len; i += 3) {
		if (i % BYTES_AT_ONCE == 0)
			fiber_yield();
		uint32_t v = (uint32_t)in[i] << 16 | (i + 1 < len ? (uint32_t)in[i + 1] << 8 : 0) | (i + 2 < len ? in[i + 2] : 0);

		*at++ = digits[v >> 18];
		*at++ = digits[v >> 12 & 63];
		*at++ = i + 1 < len ? digits[v >> 6 & 63] : '=';
		*at++ = i + 2 < len ? digits[v & 63] : '=';
	}
	if (out)
		*at = '\0';
	return out;
}

static const struct rpc_param fragmap_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "offset", RPC_U64, RPC_LOOSE, NULL },
	{ "size", RPC_U64, RPC_LOOSE, NULL },
	{ NULL, 0, 0, NULL },
};

/* False with the call failed: the range must be whole clusters of the volume. */
static bool fragmap_range(struct rpc_call *call, uint64_t size_bytes, struct fragmap *map)
{
	uint64_t offset = rpc_u64(call, "offset", 0), size = rpc_u64(call, "size", 0), cluster = map->cluster_size_bytes;
	char message[128];

	if (offset > size_bytes || size > size_bytes - offset) {
		snprintf(message, sizeof(message), "offset %llu and size %llu exceed lvol size %llu", (unsigned long long)offset,
			 (unsigned long long)size, (unsigned long long)size_bytes);
		rpc_fail(call, -EINVAL, message, "give a range inside of the volume");
		rpc_blame(call, offset > size_bytes ? "offset" : "size");
		return false;
	}
	if (!size)
		size = size_bytes - offset;
	if (offset % cluster || size % cluster) {
		snprintf(message, sizeof(message), "offset %llu and size %llu must be a multiple of cluster size %llu",
			 (unsigned long long)offset, (unsigned long long)size, (unsigned long long)cluster);
		rpc_fail(call, -EINVAL, message, "give a range of whole clusters");
		rpc_blame(call, offset % cluster ? "offset" : "size");
		return false;
	}
	if (size / cluster > MAX_FRAGMAP_CLUSTERS) {
		rpc_fail_errno(call, -EFBIG, "the range has %llu clusters; ask for at most %u at a time (%llu bytes), with offset and size",
			       (unsigned long long)(size / cluster), MAX_FRAGMAP_CLUSTERS,
			       (unsigned long long)MAX_FRAGMAP_CLUSTERS * cluster);
		rpc_blame(call, "size");
		return false;
	}
	map->offset_bytes = offset;
	map->end_bytes = offset + size;
	return true;
}

/* As JSON text: nothing in it wants escaping, and it is long. */
static fiber_fn int fragmap_answer(struct rpc_call *call, const struct fragmap *map, uint64_t nr)
{
	char *text = base64(map->bits, (nr + 7) / 8);
	int len = -1;

	if (text)
		len = asprintf(&call->result_text, "{\"cluster_size\":%u,\"num_clusters\":%llu,\"num_allocated_clusters\":%llu,"
			       "\"fragmap\":\"%s\"}", map->cluster_size_bytes, (unsigned long long)nr,
			       (unsigned long long)map->nr_allocated, text);
	free(text);
	if (len >= 0)
		return 0;
	call->result_text = NULL;
	return -ENOMEM;
}

/* Which clusters a volume or snapshot has itself, and not from its parent: one bit each, the lowest first. */
static fiber_fn void get_fragmap(struct rpc_call *call)
{
	struct lvol *lvol = lvol_of_call(call, "name"), *parent;
	char to[BDEV_NAME_MAX], base[BDEV_NAME_MAX];
	struct lvol_store_info store;
	struct fragmap map = { 0 };
	struct walk w = { .to = to, .whole_clusters = true, .fn = mark, .arg = &map };
	struct lvol_info info;
	uint64_t nr;
	int rc;

	if (!lvol)
		return;
	lvol_get_info(lvol, &info);
	lvol_store_get_info(lvol_get_store(lvol), &store);
	map.cluster_size_bytes = store.cluster_size_bytes;
	if (!fragmap_range(call, info.size_bytes, &map))
		return;
	snprintf(to, sizeof(to), "%s", lvol_bdev(lvol)->name);
	parent = lvol_parent(lvol);
	if (parent) {
		snprintf(base, sizeof(base), "%s", lvol_bdev(parent)->name);
		w.base = base;
	}
	nr = (map.end_bytes - map.offset_bytes) / map.cluster_size_bytes;
	w.at_bytes = map.offset_bytes;
	map.bits = calloc(nr / 8 + 1, 1);
	rc = map.bits ? walk(&w) : -ENOMEM;
	if (!rc)
		rc = fragmap_answer(call, &map, nr);
	if (rc)
		lvol_fail(call, rc, "name", lvol_rule(rc));
	free(map.bits);
}

struct ranges {
	json_t *list;
	size_t max;
	uint64_t next_bytes; /* behind the last; 0: that was all */
};

static fiber_fn bool add_range(const struct blob_range *range, void *arg)
{
	struct ranges *r = arg;

	if (json_array_size(r->list) == r->max) {
		r->next_bytes = range->offset_bytes;
		return false;
	}
	json_array_append_new(r->list, json_pack("{s:I,s:I,s:b}", "offset", (json_int_t)range->offset_bytes, "length",
						 (json_int_t)range->len_bytes, "mapped", range->mapped));
	return true;
}

static const struct rpc_param changed_params[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "base", RPC_STRING, 0, NULL },
	{ "offset", RPC_U64, RPC_LOOSE, NULL },
	{ "max", RPC_U32, 0, NULL },
	{ NULL, 0, 0, NULL },
};

/* Ours: which bytes differ from an older snapshot's, or without one, which are written at all. */
static fiber_fn void get_changed_ranges(struct rpc_call *call)
{
	struct lvol *lvol = lvol_of_call(call, "name"), *base = NULL;
	char to_name[BDEV_NAME_MAX], base_name[BDEV_NAME_MAX];
	struct ranges r = { .max = (size_t)rpc_u64(call, "max", DEFAULT_RANGES) };
	struct walk w = { .to = to_name, .fn = add_range, .arg = &r, .at_bytes = rpc_u64(call, "offset", 0) };
	struct lvol_info info;
	int rc;

	if (!lvol)
		return;
	if (w.at_bytes % BLOB_SUB_SIZE || !r.max || r.max > MAX_RANGES) {
		rpc_fail_param(call, w.at_bytes % BLOB_SUB_SIZE ? "offset" : "max",
			       "offset is a multiple of %u, max is from 1 to %u", BLOB_SUB_SIZE, MAX_RANGES);
		return;
	}
	snprintf(to_name, sizeof(to_name), "%s", lvol_bdev(lvol)->name);
	if (rpc_has(call, "base")) {
		base = lvol_of_call(call, "base");
		if (!base)
			return;
		if (lvol_get_store(base) != lvol_get_store(lvol)) {
			lvol_fail(call, -EXDEV, "base", "both must be of one store");
			return;
		}
		snprintf(base_name, sizeof(base_name), "%s", lvol_bdev(base)->name);
		w.base = base_name;
	}
	lvol_get_info(lvol, &info);
	r.list = json_array();
	rc = w.at_bytes < info.size_bytes ? walk(&w) : 0;
	if (rc) {
		json_decref(r.list);
		lvol_fail(call, rc, "name", lvol_rule(rc));
		return;
	}
	rpc_ok(call, json_pack("{s:I,s:o,s:o}", "size_bytes", (json_int_t)info.size_bytes, "ranges", r.list, "next_offset",
			       r.next_bytes ? json_integer((json_int_t)r.next_bytes) : json_null()));
}

const struct rpc_method lvol_ranges_methods[] = {
	{ .name = "bdev_lvol_get_fragmap", .handler = get_fragmap, .params = fragmap_params },
	{ .name = "bdev_lvol_get_changed_ranges", .handler = get_changed_ranges, .params = changed_params },
	{ .name = NULL },
};
