/* writelog: looks into a write log (bdev/writelog.h), and makes of it what a power cut would have left. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/writelog.h"

static void usage(void)
{
	fputs("usage: writelog info LOG\n"
	      "       writelog cut LOG IMAGE [--record N] [--seed N] [--atomic BLOCKS] [--base IMAGE]\n"
	      "                              [--ignore-flushes] [--keep-all]\n"
	      "cut writes to IMAGE what is left of the device when power goes before record N (default: after the last).\n",
	      stderr);
	exit(2);
}

static int info(const char *log)
{
	struct writelog_info i;
	int rc = writelog_inspect(log, &i);

	if (rc) {
		fprintf(stderr, "writelog: %s: %s\n", log, strerror(-rc));
		return 1;
	}
	printf("{\"records\":%lu,\"changes\":%lu,\"flushes\":%lu,\"blocks\":%lu,\"block_size\":%u}\n",
	       (unsigned long)i.nr_records, (unsigned long)i.nr_writes, (unsigned long)i.nr_flushes,
	       (unsigned long)i.nr_blocks, i.block_size);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "record", 1, NULL, 'r' },	      { "seed", 1, NULL, 's' },	    { "atomic", 1, NULL, 'a' },
		{ "base", 1, NULL, 'b' }, { "ignore-flushes", 0, NULL, 'i' }, { "keep-all", 0, NULL, 'k' },
		{ 0 },
	};
	struct writelog_cut cut = { .record = UINT64_MAX };
	const char *base = NULL;
	int c, rc;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'r':
			cut.record = strtoull(optarg, NULL, 0);
			break;
		case 's':
			cut.seed = strtoull(optarg, NULL, 0);
			break;
		case 'a':
			cut.atomic_blocks = strtoul(optarg, NULL, 0);
			break;
		case 'b':
			base = optarg;
			break;
		case 'i':
			cut.ignore_flushes = true;
			break;
		case 'k':
			cut.keep_all = true;
			break;
		default:
			usage();
		}
	}
	if (argc - optind == 2 && !strcmp(argv[optind], "info"))
		return info(argv[optind + 1]);
	if (argc - optind != 3 || strcmp(argv[optind], "cut"))
		usage();
	rc = writelog_make_image(argv[optind + 1], base, argv[optind + 2], &cut);
	if (rc)
		fprintf(stderr, "writelog: %s: %s\n", argv[optind + 1], strerror(-rc));
	return rc ? 1 : 0;
}
