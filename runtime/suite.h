/* A test program's suite of libcheck tests, and its end as main() gives it. */
#ifndef RUNTIME_SUITE_H
#define RUNTIME_SUITE_H

#include <check.h>
#include <stdlib.h>

/* setup and teardown, around each test, may be NULL.  Gives the status of the process. */
static inline int run_suite_within(const char *name, const TTest *const *tests, size_t nr, double timeout_s, SFun setup,
				   SFun teardown)
{
	Suite *suite = suite_create(name);
	TCase *tcase = tcase_create(name);
	SRunner *runner;
	int nr_failed;

	tcase_set_timeout(tcase, timeout_s);
	if (setup || teardown)
		tcase_add_checked_fixture(tcase, setup, teardown);
	for (size_t i = 0; i < nr; i++)
		tcase_add_test(tcase, tests[i]);
	suite_add_tcase(suite, tcase);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	nr_failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return nr_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

static inline int run_suite(const char *name, const TTest *const *tests, size_t nr)
{
	return run_suite_within(name, tests, nr, 60, NULL, NULL);
}

#endif
