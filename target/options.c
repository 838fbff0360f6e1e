/* Reads the daemon's command line, and chooses places by who runs it: the system's for root, the user's own otherwise. */
#include "target/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"

#define DEFAULT_HTTP "127.0.0.1:9480"

static const char help[] =
	"Usage: ferruled [OPTION]...\n"
	"NVMe-over-Fabrics target: exports volumes of crash-safe stores over NVMe/TCP and NVMe/RDMA.\n"
	"\n"
	"      --cores LIST       cores to run on, such as 0,2-3 (default: one, wherever the kernel puts it)\n"
	"      --mem MiB          memory for I/O buffers (default: computed)\n"
	"      --map-cache MiB    memory for the maps of each store, at least 16 (default: 56 for each TiB of its device)\n"
	"      --no-huge          no hugepages, even where there are some\n"
	"      --state-dir DIR    where the configuration is kept\n"
	"      --keep-dir DIR     memory that outlives the daemon but not the machine, so that even unflushed writes survive\n"
	"                         the daemon's death; a folder of its own on a tmpfs (default: chosen; none: nowhere)\n"
	"      --rpc-socket PATH  Unix socket for JSON-RPC\n"
	"      --http ADDR:PORT   where JSON-RPC over HTTP is offered (default: " DEFAULT_HTTP "; none: nowhere)\n"
	"      --file-dir DIR     folder in which file-backed devices may live; repeatable\n"
	"      --ephemeral        neither reads nor writes the saved configuration\n"
	"      --poll             never sleeps\n"
	"      --idle-us N        polls for so long without work before it sleeps (default: 100)\n"
	"      --log-level LEVEL  ERROR, WARNING, NOTICE, INFO or DEBUG (default: NOTICE)\n"
	"      --help             prints this\n"
	"      --version          prints the version\n"
	"\n"
	"State and socket are /var/lib/ferrule and /run/ferrule/rpc.sock for root; for others\n"
	"~/.local/state/ferrule and $XDG_RUNTIME_DIR/ferrule.sock.  Prints \"ready PATH\" when it takes calls.\n";

static void __attribute__((noreturn, format(printf, 1, 2))) usage(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "ferruled: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nTry 'ferruled --help'.\n");
	exit(2);
}

static unsigned long number(const char *option, const char *text, unsigned long max)
{
	unsigned long value;
	char *end;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno || *end || end == text || *text == '-' || value > max)
		usage("--%s takes a number up to %lu, not \"%s\"", option, max, text);
	return value;
}

static void set_path(char *to, const char *option, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static void set_path(char *to, const char *option, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(to, OPTIONS_PATH_MAX, fmt, ap);
	va_end(ap);
	if (n <= 0 || n >= OPTIONS_PATH_MAX)
		usage("--%s: a path of 1 to %d bytes is needed", option, OPTIONS_PATH_MAX - 1);
}

static void set_places(struct options *opts)
{
	const char *home = getenv("HOME"), *runtime = getenv("XDG_RUNTIME_DIR"), *state = getenv("XDG_STATE_HOME");
	bool root = geteuid() == 0;

	if (!opts->state_dir[0] && root)
		set_path(opts->state_dir, "state-dir", "/var/lib/ferrule");
	else if (!opts->state_dir[0] && state && state[0] == '/')
		set_path(opts->state_dir, "state-dir", "%s/ferrule", state);
	else if (!opts->state_dir[0] && home && home[0] == '/')
		set_path(opts->state_dir, "state-dir", "%s/.local/state/ferrule", home);
	else if (!opts->state_dir[0])
		usage("HOME is not set: give --state-dir");
	if (!opts->rpc_socket[0] && root)
		set_path(opts->rpc_socket, "rpc-socket", "/run/ferrule/rpc.sock");
	else if (!opts->rpc_socket[0] && runtime && runtime[0] == '/')
		set_path(opts->rpc_socket, "rpc-socket", "%s/ferrule.sock", runtime);
	else if (!opts->rpc_socket[0])
		set_path(opts->rpc_socket, "rpc-socket", "%s/rpc.sock", opts->state_dir);
}

enum { O_CORES = 256, O_MEM, O_MAP_CACHE, O_NO_HUGE, O_STATE_DIR, O_KEEP_DIR, O_RPC_SOCKET, O_HTTP, O_FILE_DIR, O_EPHEMERAL, O_POLL, O_IDLE_US,
       O_LOG_LEVEL, O_HELP, O_VERSION };

static const struct option long_options[] = {
	{ "cores", required_argument, NULL, O_CORES },
	{ "mem", required_argument, NULL, O_MEM },
	{ "map-cache", required_argument, NULL, O_MAP_CACHE },
	{ "no-huge", no_argument, NULL, O_NO_HUGE },
	{ "state-dir", required_argument, NULL, O_STATE_DIR },
	{ "keep-dir", required_argument, NULL, O_KEEP_DIR },
	{ "rpc-socket", required_argument, NULL, O_RPC_SOCKET },
	{ "http", required_argument, NULL, O_HTTP },
	{ "file-dir", required_argument, NULL, O_FILE_DIR },
	{ "ephemeral", no_argument, NULL, O_EPHEMERAL },
	{ "poll", no_argument, NULL, O_POLL },
	{ "idle-us", required_argument, NULL, O_IDLE_US },
	{ "log-level", required_argument, NULL, O_LOG_LEVEL },
	{ "help", no_argument, NULL, O_HELP },
	{ "version", no_argument, NULL, O_VERSION },
	{ NULL, 0, NULL, 0 },
};

static void take_option(struct options *opts, int option)
{
	switch (option) {
	case O_CORES:
		opts->cores = optarg;
		break;
	case O_MEM:
		opts->mem_mib = (unsigned)number("mem", optarg, 16ul * 1024 * 1024);
		break;
	case O_MAP_CACHE:
		opts->map_cache_mib = (unsigned)number("map-cache", optarg, 1024ul * 1024);
		if (opts->map_cache_mib < 16)
			usage("--map-cache takes at least 16 MiB, not \"%s\"", optarg);
		break;
	case O_NO_HUGE:
		opts->no_huge = true;
		break;
	case O_STATE_DIR:
		set_path(opts->state_dir, "state-dir", "%s", optarg);
		break;
	case O_KEEP_DIR:
		set_path(opts->keep_dir, "keep-dir", "%s", optarg);
		break;
	case O_RPC_SOCKET:
		set_path(opts->rpc_socket, "rpc-socket", "%s", optarg);
		break;
	case O_HTTP:
		opts->http_addr = strcmp(optarg, "none") == 0 ? NULL : optarg;
		break;
	case O_FILE_DIR:
		if (opts->nr_file_dirs == OPTIONS_MAX_FILE_DIRS)
			usage("--file-dir may be given %d times", OPTIONS_MAX_FILE_DIRS);
		opts->file_dirs[opts->nr_file_dirs++] = optarg;
		break;
	case O_EPHEMERAL:
		opts->ephemeral = true;
		break;
	case O_POLL:
		opts->poll = true;
		break;
	case O_IDLE_US:
		opts->idle_us = (uint32_t)number("idle-us", optarg, 1000000);
		break;
	case O_LOG_LEVEL:
		if (log_level_from_name(optarg, &opts->log_level))
			usage("--log-level is ERROR, WARNING, NOTICE, INFO or DEBUG, not \"%s\"", optarg);
		opts->log_level_given = true;
		break;
	case O_HELP:
		fputs(help, stdout);
		exit(0);
	case O_VERSION:
		puts("ferruled " PACKAGE_VERSION);
		exit(0);
	default:
		fprintf(stderr, "Try 'ferruled --help'.\n");
		exit(2);
	}
}

void options_parse(struct options *opts, int argc, char **argv)
{
	int option;

	memset(opts, 0, sizeof(*opts));
	opts->http_addr = DEFAULT_HTTP;
	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		take_option(opts, option);
	if (optind < argc)
		usage("\"%s\" is not an option", argv[optind]);
	set_places(opts);
}
