/* The histogram is right to within its step, for every size of value. */
#include <check.h>
#include <stdlib.h>

#include "nvme/latency.h"
#include "runtime/suite.h"

START_TEST(every_value_has_a_bucket_and_buckets_ascend)
{
	unsigned last = 0;

	for (uint64_t v = 1; v < UINT64_MAX / 9 * 8; v += v / 200 + 1) {
		unsigned b = latency_bucket(v);

		ck_assert_uint_ge(b, last);
		ck_assert_uint_le(b - last, 1);
		last = b;
	}
	ck_assert_uint_eq(latency_bucket(UINT64_MAX), LATENCY_BUCKETS - 1);
}
END_TEST

START_TEST(a_percentile_is_right_to_within_a_step)
{
	struct latency *h = malloc(sizeof(*h));
	static const double percents[] = {1, 50, 90, 99, 99.9, 100};

	latency_init(h);
	for (uint64_t v = 1; v <= 1000000; v++)
		latency_record(h, v);
	for (unsigned i = 0; i < sizeof(percents) / sizeof(percents[0]); i++) {
		double want = percents[i] * 10000, got = (double)latency_percentile(h, percents[i]);

		ck_assert_double_ge(got, want * (1 - 1.0 / LATENCY_STEPS));
		ck_assert_double_le(got, want * (1 + 1.0 / LATENCY_STEPS));
	}
	ck_assert_uint_eq(h->min, 1);
	ck_assert_uint_eq(h->max, 1000000);
	free(h);
}
END_TEST

START_TEST(one_value_is_every_percentile)
{
	struct latency *h = malloc(sizeof(*h));

	latency_init(h);
	ck_assert_uint_eq(latency_percentile(h, 50), 0);
	latency_record(h, 123456789);
	ck_assert_uint_eq(latency_percentile(h, 0), 123456789);
	ck_assert_uint_eq(latency_percentile(h, 99.99), 123456789);
	free(h);
}
END_TEST

START_TEST(the_sum_of_two_is_as_if_recorded_in_one)
{
	struct latency *h = calloc(3, sizeof(*h));

	for (int i = 0; i < 3; i++)
		latency_init(&h[i]);
	for (uint64_t v = 1; v < 100000; v++) {
		latency_record(&h[v % 3 == 0], v * v);
		latency_record(&h[2], v * v);
	}
	latency_add(&h[0], &h[1]);
	ck_assert_mem_eq(&h[0], &h[2], sizeof(h[0]));
	free(h);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		every_value_has_a_bucket_and_buckets_ascend,
		a_percentile_is_right_to_within_a_step,
		one_value_is_every_percentile,
		the_sum_of_two_is_as_if_recorded_in_one,
	};

	return run_suite("latency", tests, sizeof(tests) / sizeof(tests[0]));
}
