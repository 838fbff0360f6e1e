/* ferrule: the command line.  cli.c finds the noun and the verb. */
#include "mgmt/cli.h"

int main(int argc, char **argv)
{
	return cli_main(argc, argv);
}
