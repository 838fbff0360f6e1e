/*
 * Payloads of metadata pages: tables, leaves, inner nodes, blobs, the reap list.  Each decoder checks every
 * number before it is used; none trusts that the page's CRC means that its writer was sane.
 */
#include <errno.h>

#include "blob/format.h"

void ref_encode(const struct page_ref *ref, uint8_t *p)
{
	put64(p, ref->a);
	put64(p + 8, ref->b);
	put64(p + 16, ref->generation);
}

struct page_ref ref_decode(const uint8_t *p)
{
	return (struct page_ref){.a = get64(p), .b = get64(p + 8), .generation = get64(p + 16)};
}

int table_decode(const uint8_t *payload, uint32_t used, unsigned level, uint64_t nr_pages,
		 struct page_ref *ret_refs, struct blob_reason *why)
{
	if (used != TABLE_PAGE_USED)
		return refuse(why, "a table page of %u bytes", used);
	if (get32(payload) != level)
		return refuse(why, "a table page of level %u, not %u", get32(payload), level);
	for (unsigned i = 0; i < TABLE_FANOUT; i++) {
		ret_refs[i] = ref_decode(payload + 8 + i * 24);
		if (ret_refs[i].a >= nr_pages || ret_refs[i].b >= nr_pages ||
		    (ret_refs[i].a == 0) != (ret_refs[i].b == 0))
			return refuse(why, "reference %u lies outside of the store", i);
	}
	return 0;
}

/* --- leaves --- */

#define ENTRY_FULL 1u
#define ENTRY_BASE 2u
#define ENTRY_EXTERNAL 4u

void leaf_write_begin(struct leaf_writer *w, uint8_t *payload, uint32_t mask_bytes)
{
	*w = (struct leaf_writer){.payload = payload, .used = 8, .mask_bytes = mask_bytes};
}

void leaf_write(struct leaf_writer *w, const struct leaf_entry *e)
{
	uint8_t *p = w->payload + w->used;

	put16(p, e->index);
	p[2] = (e->full ? ENTRY_FULL : 0) | (e->base ? ENTRY_BASE : 0) |
	       (e->external ? ENTRY_EXTERNAL : 0);
	p[3] = 0;
	put32(p + 4, e->own);
	p += 8;
	if (e->base) {
		put32(p, e->base);
		p += 4;
	}
	if (!e->full) {
		memcpy(p, e->mask, w->mask_bytes);
		p += w->mask_bytes;
	}
	w->used = p - w->payload;
	w->nr++;
}

uint32_t leaf_write_end(struct leaf_writer *w)
{
	memset(w->payload, 0, 8);
	put16(w->payload, w->nr);
	return w->used;
}

int leaf_read_begin(struct leaf_reader *r, const uint8_t *payload, uint32_t used,
		    const struct leaf_format *format, struct blob_reason *why)
{
	*r = (struct leaf_reader){
		.payload = payload, .used = used, .at = 8, .last_index = -1, .format = format};
	if (used < 8)
		return refuse(why, "a leaf of %u bytes", used);
	r->left = get16(payload);
	if (payload[2] != 0)
		return refuse(why, "a leaf of level %u", payload[2]);
	return 0;
}

static bool mask_empty(const uint8_t *mask, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++)
		if (mask[i])
			return false;
	return true;
}

int leaf_read(struct leaf_reader *r, struct leaf_entry *e, struct blob_reason *why)
{
	const uint8_t *p = r->payload + r->at;
	uint32_t len = 8;
	uint8_t flags;

	if (!r->left)
		return r->at == r->used ? 0 : refuse(why, "%u bytes after the last entry", r->used - r->at);
	if (r->used - r->at < len)
		return refuse(why, "the entries end early");
	flags = p[2];
	if (flags > ENTRY_EXTERNAL || flags == (ENTRY_FULL | ENTRY_BASE))
		return refuse(why, "an entry with flags %u", flags);
	len += (flags & ENTRY_BASE ? 4 : 0) + (flags & ENTRY_FULL ? 0 : r->format->mask_bytes);
	if (r->used - r->at < len)
		return refuse(why, "the entries end early");
	*e = (struct leaf_entry){.index = get16(p), .full = flags & ENTRY_FULL,
				  .external = flags & ENTRY_EXTERNAL, .own = get32(p + 4)};
	p += 8;
	if (flags & ENTRY_BASE) {
		e->base = get32(p);
		p += 4;
		if (!e->base)
			return refuse(why, "entry %u has base 0", e->index);
	}
	if (!e->full)
		e->mask = p;
	if (e->index >= r->format->nr_entries || e->index <= r->last_index)
		return refuse(why, "entry index %u out of order or range", e->index);
	if (e->own >= r->format->nr_clusters || e->base >= r->format->nr_clusters)
		return refuse(why, "entry %u names cluster %u, base %u: outside of the store", e->index,
			      e->own, e->base);
	if (!e->own && (e->full || !mask_empty(e->mask, r->format->mask_bytes)))
		return refuse(why, "entry %u has no own cluster but says that it is written", e->index);
	r->last_index = e->index;
	r->at += len;
	r->left--;
	return 1;
}

/* --- inner nodes --- */

uint32_t inner_encode(uint8_t *payload, unsigned level, const uint32_t *children, uint32_t nr_children)
{
	uint16_t nr = 0;

	memset(payload, 0, 8);
	for (uint32_t i = 0; i < nr_children; i++) {
		put32(payload + 8 + 4 * i, children[i]);
		nr += children[i] != 0;
	}
	put16(payload, nr);
	payload[2] = level;
	return 8 + 4 * nr_children;
}

int inner_decode(const uint8_t *payload, uint32_t used, uint32_t nr_children, unsigned *ret_level,
		 uint32_t *ret_children, struct blob_reason *why)
{
	uint32_t nr = 0;

	if (used != 8 + 4 * nr_children)
		return refuse(why, "an inner node of %u bytes", used);
	*ret_level = payload[2];
	if (*ret_level < 1 || *ret_level > 32)
		return refuse(why, "an inner node of level %u", *ret_level);
	for (uint32_t i = 0; i < nr_children; i++) {
		ret_children[i] = get32(payload + 8 + 4 * i);
		nr += ret_children[i] != 0;
	}
	if (nr != get16(payload))
		return refuse(why, "%u children where it says %u", nr, get16(payload));
	return 0;
}

/* --- blobs --- */

uint32_t blob_image_bytes(const struct blob_image *i)
{
	return BLOB_FIXED_BYTES + (i->flags & BLOB_FLAG_EXTERNAL ? BLOB_EXTERNAL_BYTES : 0) + i->name_len + i->xattr_len;
}

uint32_t blob_image_encode(const struct blob_image *i, uint8_t *p)
{
	uint8_t *rest = p + BLOB_FIXED_BYTES;

	memset(p, 0, BLOB_FIXED_BYTES);
	put64(p, i->id);
	memcpy(p + 8, i->uuid, 16);
	put64(p + 24, i->nr_clusters);
	put32(p + 32, i->root);
	p[36] = i->flags;
	p[37] = i->name_len;
	put16(p + 38, i->xattr_len);
	put64(p + 40, i->created_ms);
	put64(p + 48, i->parent_id);
	put32(p + 56, i->nr_entries);
	put32(p + 60, i->nr_named);
	put32(p + 64, i->nr_own);
	put32(p + 68, i->nr_differ);
	put32(p + 72, i->nr_exclusive);
	put32(p + 76, i->exclusive_s);
	if (i->flags & BLOB_FLAG_EXTERNAL) {
		memcpy(rest, i->external, 16);
		put64(rest + 16, i->external_clusters);
		rest += BLOB_EXTERNAL_BYTES;
	}
	memcpy(rest, i->name, i->name_len);
	if (i->xattr_len)
		memcpy(rest + i->name_len, i->xattrs, i->xattr_len);
	return blob_image_bytes(i);
}

static int check_xattrs(const uint8_t *p, uint32_t len, struct blob_reason *why)
{
	while (len) {
		uint32_t need;

		if (len < 4)
			return refuse(why, "attributes end early");
		need = 4 + p[0] + get16(p + 2);
		if (!p[0] || need > len)
			return refuse(why, "an attribute of %u and %u bytes in the last %u", p[0],
				      get16(p + 2), len);
		p += need;
		len -= need;
	}
	return 0;
}

int blob_image_decode(const uint8_t *p, uint32_t used, struct blob_image *i, struct blob_reason *why)
{
	const uint8_t *rest = p + BLOB_FIXED_BYTES;

	if (used < BLOB_FIXED_BYTES || (p[36] & BLOB_FLAG_EXTERNAL && used < BLOB_FIXED_BYTES + BLOB_EXTERNAL_BYTES))
		return refuse(why, "a blob of %u bytes", used);
	*i = (struct blob_image){
		.id = get64(p),
		.nr_clusters = get64(p + 24),
		.root = get32(p + 32),
		.flags = p[36],
		.name_len = p[37],
		.xattr_len = get16(p + 38),
		.created_ms = get64(p + 40),
		.parent_id = get64(p + 48),
		.nr_entries = get32(p + 56),
		.nr_named = get32(p + 60),
		.nr_own = get32(p + 64),
		.nr_differ = get32(p + 68),
		.nr_exclusive = get32(p + 72),
		.exclusive_s = get32(p + 76),
	};
	memcpy(i->uuid, p + 8, 16);
	if (i->flags & BLOB_FLAG_EXTERNAL) {
		memcpy(i->external, rest, 16);
		i->external_clusters = get64(rest + 16);
		rest += BLOB_EXTERNAL_BYTES;
	}
	i->name = (const char *)rest;
	i->xattrs = rest + i->name_len;
	if (!i->id || !i->name_len || i->flags & ~BLOB_FLAGS_KNOWN)
		return refuse(why, "a blob with id %llu, flags %x, a name of %u bytes",
			      (unsigned long long)i->id, i->flags, i->name_len);
	if (i->nr_clusters > UINT32_MAX || i->external_clusters > i->nr_clusters)
		return refuse(why, "a blob of %llu clusters", (unsigned long long)i->nr_clusters);
	if (i->xattr_len > BLOB_XATTR_MAX || used != blob_image_bytes(i))
		return refuse(why, "a blob of %u bytes with a name of %u and attributes of %u", used,
			      i->name_len, i->xattr_len);
	if (memchr(i->name, 0, i->name_len))
		return refuse(why, "a blob's name holds a zero byte");
	return check_xattrs(i->xattrs, i->xattr_len, why);
}

/* --- reap list --- */

uint32_t reap_encode(uint8_t *payload, const uint32_t *nodes, uint32_t nr)
{
	memset(payload, 0, 8);
	put32(payload, nr);
	for (uint32_t i = 0; i < nr; i++)
		put32(payload + 8 + 4 * i, nodes[i]);
	return 8 + 4 * nr;
}

int reap_decode(const uint8_t *payload, uint32_t used, uint32_t *ret_nodes, uint32_t *ret_nr,
		struct blob_reason *why)
{
	uint32_t nr;

	if (used < 8)
		return refuse(why, "a reap page of %u bytes", used);
	nr = get32(payload);
	if (!nr || nr > REAPS_A_PAGE || used != 8 + 4 * nr)
		return refuse(why, "%u nodes in a reap page of %u bytes", nr, used);
	for (uint32_t i = 0; i < nr; i++) {
		ret_nodes[i] = get32(payload + 8 + 4 * i);
		if (!ret_nodes[i])
			return refuse(why, "the reap list names node 0");
	}
	*ret_nr = nr;
	return 0;
}
