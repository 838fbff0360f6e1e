/* Bytes: what is written is read back; what is not whole, not sane or not expected is refused, with a reason.
 */
#include <errno.h>

#include "blob/internal.h"
#include "blob/testing.h"

static void sample_page(uint8_t *page, struct page_id *id)
{
	*id = (struct page_id){.type = PAGE_LEAF,
			       .store = 77,
			       .address = 1234,
			       .owner = table_owner(TABLE_NODES, 0, 9),
			       .generation = 5};
	memset(page_payload(page), 0x5a, 100);
	page_seal(page, id, 100);
}

START_TEST(a_sealed_page_is_believed_and_any_flipped_bit_is_not)
{
	uint8_t page[PAGE_BYTES];
	struct page_id id;
	struct blob_reason why;
	uint32_t used;

	sample_page(page, &id);
	ck_assert_int_eq(page_check(page, &id, &used, &why), 0);
	ck_assert_uint_eq(used, 100);
	for (unsigned i = 0; i < PAGE_BYTES; i++) {
		page[i] ^= 1u << (i % 8);
		if (page_check(page, &id, &used, &why) != -EUCLEAN)
			ck_abort_msg("byte %u flipped unnoticed", i);
		page[i] ^= 1u << (i % 8);
	}
}
END_TEST

START_TEST(a_page_of_another_place_owner_generation_type_or_store_is_not_believed)
{
	uint8_t page[PAGE_BYTES];
	struct page_id id, other;
	struct blob_reason why;
	uint32_t used;

	sample_page(page, &id);
	other = id;
	other.address++;
	ck_assert_int_eq(page_check(page, &other, &used, &why), -EUCLEAN);
	ck_assert_ptr_nonnull(strstr(why.text, "1234"));
	other = id;
	other.owner++;
	ck_assert_int_eq(page_check(page, &other, &used, &why), -EUCLEAN);
	other = id;
	other.generation++;
	ck_assert_int_eq(page_check(page, &other, &used, &why), -EUCLEAN);
	ck_assert_ptr_nonnull(strstr(why.text, "generation 5"));
	other = id;
	other.type = PAGE_INNER;
	ck_assert_int_eq(page_check(page, &other, &used, &why), -EUCLEAN);
	other = id;
	other.store++;
	ck_assert_int_eq(page_check(page, &other, &used, &why), -EUCLEAN);
}
END_TEST

static struct super sample_super(void)
{
	struct super s = {.generation = 9,
			  .block_size = 512,
			  .incompat = FORMAT_INCOMPAT_PRELIMINARY,
			  .nr_pages = 4096,
			  .cluster_shift = 15,
			  .leaf_shift = 8,
			  .inner_shift = 8,
			  .nr_clusters = 512,
			  .journal_page = 1,
			  .journal_pages = 8,
			  .epoch = 3,
			  .journal_start = 100,
			  .next_blob_id = 7,
			  .name = "a name"};

	memset(s.uuid, 0xab, 16);
	s.table[TABLE_NODES] = (struct table_root){.ref = {300, 3000, 8}, .nr_pages = 200, .height = 2};
	return s;
}

START_TEST(a_superblock_is_read_back_as_it_was_written)
{
	struct super in = sample_super(), out;
	struct blob_reason why;
	uint8_t page[PAGE_BYTES];

	for (unsigned i = 0; i < 2; i++) {
		super_encode(&in, i, page);
		ck_assert_int_eq(super_decode(page, i, &out, &why), 0);
		ck_assert_uint_eq(out.generation, 9);
		ck_assert_str_eq(out.name, "a name");
		ck_assert_uint_eq(out.journal_start, 100);
		ck_assert_uint_eq(out.table[TABLE_NODES].ref.b, 3000);
		ck_assert_uint_eq(out.table[TABLE_NODES].height, 2);
		ck_assert_int_eq(super_check_geometry(&out, 4096, &why), 0);
		ck_assert_int_eq(super_check_geometry(&out, 4095, &why), -EUCLEAN);
		ck_assert_int_eq(super_decode(page, !i, &out, &why), -EUCLEAN);
	}
	memset(page, 0, sizeof(page));
	ck_assert_int_eq(super_decode(page, 0, &out, &why), -EILSEQ);
}
END_TEST

START_TEST(sizes_that_do_not_go_together_are_refused)
{
	struct blob_reason why;
	struct super s;

#define REFUSED(field, value)                                                     \
	do {                                                                      \
		s = sample_super();                                               \
		s.field = value;                                                  \
		ck_assert_int_eq(super_check_geometry(&s, 4096, &why), -EUCLEAN); \
	} while (0)
	REFUSED(block_size, 1024);
	REFUSED(cluster_shift, 14);
	REFUSED(cluster_shift, 25);
	REFUSED(leaf_shift, 9);
	REFUSED(inner_shift, 0);
	REFUSED(inner_shift, 9);
	REFUSED(nr_clusters, 513);
	REFUSED(nr_clusters, UINT64_MAX);
	REFUSED(nr_pages, UINT64_MAX);
	REFUSED(journal_pages, 7);
	REFUSED(journal_pages, UINT64_MAX);
	REFUSED(journal_page, 0);
	REFUSED(journal_page, UINT64_MAX - 4);
	REFUSED(journal_page, SUPER_PAGE_1 - 3);
	REFUSED(table[TABLE_NODES].height, 1);
	REFUSED(table[TABLE_NODES].height, 7);
	REFUSED(table[TABLE_NODES].ref.a, 4096);
	REFUSED(table[TABLE_NODES].ref.b, 0);
	REFUSED(table[TABLE_COUNTS].nr_pages, 2);
#undef REFUSED
}
END_TEST

START_TEST(a_leaf_is_read_back_in_order_and_every_cut_of_it_refused)
{
	const uint8_t mask[8] = {1, 0, 0, 0x80, 0, 0, 0, 0};
	struct leaf_format format = {.nr_entries = 64, .mask_bytes = 8, .nr_clusters = 1000};
	uint8_t payload[PAGE_PAYLOAD];
	struct leaf_writer w;
	struct leaf_reader r;
	struct leaf_entry e;
	struct blob_reason why;
	uint32_t used;

	leaf_write_begin(&w, payload, 8);
	leaf_write(&w, &(struct leaf_entry){.index = 0, .full = true, .own = 999});
	leaf_write(&w, &(struct leaf_entry){.index = 7, .own = 5, .base = 6, .mask = mask});
	leaf_write(&w, &(struct leaf_entry){.index = 63, .own = 8, .mask = mask});
	used = leaf_write_end(&w);
	ck_assert_int_eq(leaf_read_begin(&r, payload, used, &format, &why), 0);
	ck_assert_int_eq(leaf_read(&r, &e, &why), 1);
	ck_assert(e.full && e.own == 999 && e.index == 0);
	ck_assert_int_eq(leaf_read(&r, &e, &why), 1);
	ck_assert(!e.full && e.own == 5 && e.base == 6 && e.index == 7);
	ck_assert_mem_eq(e.mask, mask, 8);
	ck_assert_int_eq(leaf_read(&r, &e, &why), 1);
	ck_assert(e.own == 8 && !e.base && e.index == 63);
	ck_assert_int_eq(leaf_read(&r, &e, &why), 0);
	for (uint32_t cut = 0; cut < used; cut++) {
		int rc = leaf_read_begin(&r, payload, cut, &format, &why);

		while (!rc && (rc = leaf_read(&r, &e, &why)) == 1)
			rc = 0;
		ck_assert_int_eq(rc, -EUCLEAN);
	}
	format.nr_clusters = 999;
	ck_assert_int_eq(leaf_read_begin(&r, payload, used, &format, &why), 0);
	ck_assert_int_eq(leaf_read(&r, &e, &why), -EUCLEAN);
	ck_assert_ptr_nonnull(strstr(why.text, "999"));
}
END_TEST

START_TEST(the_fullest_leaf_of_every_cluster_size_fits_its_page)
{
	for (uint8_t shift = 15; shift <= 24; shift++) {
		uint32_t mask_bytes = (1u << (shift - 12)) / 8;
		uint32_t entries = 1u << format_leaf_shift_max(shift);

		ck_assert_uint_ge(entries, 4);
		ck_assert_uint_le(8 + entries * (12 + mask_bytes), PAGE_PAYLOAD);
	}
}
END_TEST

START_TEST(a_blob_is_read_back_and_every_cut_of_it_refused)
{
	const uint8_t xattrs[] = {1, 0, 2, 0, 'k', 'v', 'w'};
	struct blob_image in = {.id = 3,
				.nr_clusters = 17,
				.root = 4,
				.flags = BLOB_FLAG_THICK,
				.name_len = 4,
				.xattr_len = sizeof(xattrs),
				.created_ms = 99,
				.parent_id = 2,
				.nr_exclusive = 11,
				.exclusive_s = 12,
				.name = "name",
				.xattrs = xattrs},
			  out;
	uint8_t payload[PAGE_PAYLOAD];
	struct blob_reason why;
	uint32_t used = blob_image_encode(&in, payload);

	ck_assert_int_eq(blob_image_decode(payload, used, &out, &why), 0);
	ck_assert_uint_eq(out.nr_clusters, 17);
	ck_assert_uint_eq(out.root, 4);
	ck_assert_uint_eq(out.nr_exclusive, 11);
	ck_assert_uint_eq(out.exclusive_s, 12);
	ck_assert_mem_eq(out.name, "name", 4);
	ck_assert_mem_eq(out.xattrs, xattrs, sizeof(xattrs));
	for (uint32_t cut = 0; cut < used; cut++)
		ck_assert_int_eq(blob_image_decode(payload, cut, &out, &why), -EUCLEAN);
	payload[BLOB_FIXED_BYTES + 4] = 9; /* the key's length */
	ck_assert_int_eq(blob_image_decode(payload, used, &out, &why), -EUCLEAN);
}
END_TEST

START_TEST(segments_are_cut_where_asked)
{
	char a[100], c[50];
	struct iovec iov[3] = {{a, 100}, {NULL, 0}, {c, 50}}, out[3];
	uint64_t bytes;

	ck_assert_uint_eq(blob_iov_slice(iov, 3, 90, 20, out, 3, &bytes), 2);
	ck_assert_uint_eq(bytes, 20);
	ck_assert_ptr_eq(out[0].iov_base, a + 90);
	ck_assert_uint_eq(out[1].iov_len, 10);
	ck_assert_uint_eq(blob_iov_slice(iov, 3, 90, 60, out, 1, &bytes), 1);
	ck_assert_uint_eq(bytes, 10);
	ck_assert_uint_eq(blob_iov_slice(iov, 3, 150, 10, out, 3, &bytes), 0);
	ck_assert_uint_eq(bytes, 0);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {a_sealed_page_is_believed_and_any_flipped_bit_is_not,
				      a_page_of_another_place_owner_generation_type_or_store_is_not_believed,
				      a_superblock_is_read_back_as_it_was_written,
				      sizes_that_do_not_go_together_are_refused,
				      a_leaf_is_read_back_in_order_and_every_cut_of_it_refused,
				      the_fullest_leaf_of_every_cluster_size_fits_its_page,
				      a_blob_is_read_back_and_every_cut_of_it_refused,
				      segments_are_cut_where_asked};

	return run_tests("format", tests, sizeof(tests) / sizeof(tests[0]));
}
