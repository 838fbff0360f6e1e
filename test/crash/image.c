/* Reading a store's metadata from its image; see image.h. */
#include "test/crash/image.h"

#include <string.h>

#define PAYLOAD 64u
#define FANOUT	128u

static uint64_t get(const uint8_t *p, unsigned bytes)
{
	uint64_t v = 0;

	while (bytes--)
		v = v << 8 | p[bytes];
	return v;
}

static const uint8_t *payload(const struct image *im, uint64_t page)
{
	return im->bytes + page * IMAGE_PAGE + PAYLOAD;
}

static bool walk(struct image *im, unsigned table, unsigned level, uint64_t index, const uint8_t *ref)
{
	const uint8_t *p;

	if (!get(ref, 8))
		return true;
	if (im->nr_pages == IMAGE_MAX_PAGES)
		return false;
	im->page[im->nr_pages++] = (struct image_page){ table, level, index, { get(ref, 8), get(ref + 8, 8) } };
	p = payload(im, get(ref, 8));
	for (unsigned i = 0; level && i < FANOUT; i++)
		if (!walk(im, table, level - 1, index * FANOUT + i, p + 8 + i * 24))
			return false;
	return true;
}

bool image_read(struct image *im, const void *bytes)
{
	const uint8_t *super[2] = { bytes, (const uint8_t *)bytes + (1u << 20) }, *p;

	im->bytes = bytes;
	im->nr_pages = 0;
	p = super[get(super[1] + 32, 8) > get(super[0] + 32, 8)] + PAYLOAD;
	if (memcmp(p, "FERRULE", 8))
		return false;
	im->cluster_shift = p[64];
	im->leaf_shift = p[65];
	im->inner_shift = p[66];
	for (unsigned t = 0; t < IMAGE_TABLES; t++) {
		const uint8_t *root = p + 144 + t * 40;

		if (get(root + 32, 4) && !walk(im, t, get(root + 32, 4), 0, root))
			return false;
	}
	return true;
}

bool image_leads_to(const struct image_page *above, const struct image_page *page)
{
	uint64_t index = page->index;

	if (above->table != page->table || above->level < page->level)
		return false;
	for (unsigned level = page->level; level < above->level; level++)
		index /= FANOUT;
	return index == above->index;
}

static const struct image_page *find(const struct image *im, unsigned table, uint64_t index)
{
	for (unsigned i = 0; i < im->nr_pages; i++)
		if (im->page[i].table == table && !im->page[i].level && im->page[i].index == index)
			return &im->page[i];
	return NULL;
}

struct losing {
	const struct image *im;
	const struct image_page *lost;
	bool *marks;
	unsigned nr;
};

/* What a node maps begins at cluster first. */
static void lose_below(const struct losing *l, uint64_t node, uint64_t first)
{
	const struct image_page *page = find(l->im, IMAGE_NODES, node);
	const uint8_t *p = page ? payload(l->im, page->copy[0]) : NULL;
	unsigned level, shift;

	if (!page)
		return;
	level = p[2];
	shift = l->im->leaf_shift + (level ? (level - 1) * l->im->inner_shift : 0);
	if (image_leads_to(l->lost, page)) {
		for (uint64_t i = first; i < l->nr && i < first + ((uint64_t)1 << (shift + (level ? l->im->inner_shift : 0))); i++)
			l->marks[i] = true;
		return;
	}
	for (unsigned c = 0; level && c < 1u << l->im->inner_shift; c++)
		if (get(p + 8 + 4 * c, 4))
			lose_below(l, get(p + 8 + 4 * c, 4), first + ((uint64_t)c << shift));
}

bool image_losses(const struct image *im, const uuid_t blob, const struct image_page *lost, bool *marks, unsigned nr)
{
	struct losing l = { im, lost, marks, nr };

	memset(marks, 0, nr * sizeof(*marks));
	for (unsigned i = 0; i < im->nr_pages; i++) {
		const struct image_page *page = &im->page[i];
		const uint8_t *p = payload(im, page->copy[0]);

		if (page->table != IMAGE_BLOBS || page->level || memcmp(p + 8, blob, sizeof(uuid_t)))
			continue;
		if (image_leads_to(lost, page))
			memset(marks, 1, nr * sizeof(*marks));
		else if (get(p + 32, 4))
			lose_below(&l, get(p + 32, 4), 0);
		return true;
	}
	return false;
}
