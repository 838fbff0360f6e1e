/* ferrule: the command line.  Finds the noun, hands over to its file. */
#include <stdio.h>
#include <string.h>

#include "mgmt/cli_nvme.h"

static int usage(FILE *to)
{
	fprintf(to, "usage: ferrule nvme VERB …\n`ferrule nvme --help` lists the verbs.\n");
	return to == stdout ? 0 : 2;
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return usage(stderr);
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return usage(stdout);
	if (!strcmp(argv[1], "nvme"))
		return cli_nvme(argc - 1, argv + 1);
	fprintf(stderr, "ferrule: there is no noun \"%s\"\n", argv[1]);
	return usage(stderr);
}
