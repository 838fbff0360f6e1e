/* `ferrule nvme`: the options of every verb in one table, from which parsing and help are made; and the
 * verbs' start. */
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "mgmt/cli_nvme.h"
#include "nvme/vfio.h"
#include "runtime/cores.h"

enum verb_bit {
	V_DISCOVER = 1 << 0,
	V_IDENTIFY = 1 << 1,
	V_SMART = 1 << 2,
	V_READ = 1 << 3,
	V_WRITE = 1 << 4,
	V_COMPARE = 1 << 5,
	V_ZERO = 1 << 6,
	V_TRIM = 1 << 7,
	V_FLUSH = 1 << 8,
	V_PERF = 1 << 9,
	V_VERIFY = 1 << 10,
	V_ALL = (1 << 11) - 1,
	V_RANGE = V_READ | V_WRITE | V_COMPARE | V_ZERO | V_TRIM | V_VERIFY,
	V_NS = V_ALL & ~(V_DISCOVER | V_SMART),
	V_JSON = V_DISCOVER | V_IDENTIFY | V_SMART | V_PERF,
};

static const struct verb {
	const char *name;
	enum verb_bit bit;
	fiber_fn int (*run)(const struct cli_nvme_opts *opts);
	const char *help;
} verbs[] = {
	{"discover", V_DISCOVER, cli_nvme_discover, "list what a discovery controller knows"},
	{"identify", V_IDENTIFY, cli_nvme_identify, "show a controller and its namespaces, decoded"},
	{"smart", V_SMART, cli_nvme_smart, "show the SMART / health log"},
	{"read", V_READ, cli_nvme_read, "read a range of bytes into a file or standard output"},
	{"write", V_WRITE, cli_nvme_write, "write a file or standard input to a range of bytes"},
	{"compare", V_COMPARE, cli_nvme_compare, "compare a range with a file, with NVMe's Compare"},
	{"zero", V_ZERO, cli_nvme_zero, "make a range of blocks read zero"},
	{"trim", V_TRIM, cli_nvme_trim, "deallocate a range of blocks"},
	{"verify", V_VERIFY, cli_nvme_verify, "have the controller read a range of blocks and keep it"},
	{"flush", V_FLUSH, cli_nvme_flush, "make all completed writes durable"},
	{"perf", V_PERF, cli_nvme_perf, "measure: operations a second and latencies"},
};

enum opt_id {
	O_TRADDR = 'a',
	O_TRSVCID = 's',
	O_NQN = 'n',
	O_TRANSPORT = 't',
	O_HELP = 'h',
	O_FIRST = 256,
	O_HOSTNQN,
	O_HOSTID,
	O_HDGST,
	O_DDGST,
	O_KATO,
	O_TIMEOUT,
	O_NSID,
	O_OFFSET,
	O_LENGTH,
	O_FILE,
	O_FUA,
	O_JSON,
	O_QD,
	O_BS,
	O_READ,
	O_SEQUENTIAL,
	O_RANDOM,
	O_ONCE,
	O_TIME,
	O_WARMUP,
	O_OPS,
	O_QUEUES,
	O_RANGE,
	O_VERIFY,
	O_SEED,
	O_CORE,
	O_PROGRESS,
	O_BATCH,
};

static const struct opt {
	const char *name, *value; /* value: its name in help; NULL: takes none */
	int id;
	unsigned verbs;
	const char *help;
} opts_table[] = {
	{"traddr", "ADDR", O_TRADDR, V_ALL, "the target's IPv4 or IPv6 address, or a drive's PCI address (-a; default 127.0.0.1)"},
	{"transport", "TYPE", O_TRANSPORT, V_ALL, "tcp or rdma (-t; default tcp)"},
	{"trsvcid", "PORT", O_TRSVCID, V_ALL, "its port (-s; default 4420, for discover over TCP 8009)"},
	{"nqn", "NQN", O_NQN, V_ALL, "the subsystem's name (-n)"},
	{"hostnqn", "NQN", O_HOSTNQN, V_ALL, "who we are; default: made of the host identifier"},
	{"hostid", "UUID", O_HOSTID, V_ALL, "the host identifier; default: a random one"},
	{"hdgst", NULL, O_HDGST, V_ALL, "ask for header digests"},
	{"ddgst", NULL, O_DDGST, V_ALL, "ask for data digests"},
	{"kato", "MS", O_KATO, V_ALL, "keep alive timeout; 0: none (default 10000)"},
	{"timeout", "SECONDS", O_TIMEOUT, V_ALL, "limit of connecting and of each command (default 30)"},
	{"nsid", "N", O_NSID, V_NS, "the namespace; default: the first"},
	{"offset", "BYTES", O_OFFSET, V_RANGE | V_PERF,
	 "where the range begins; K, M, G, T may follow (default 0)"},
	{"length", "BYTES", O_LENGTH, V_RANGE,
	 "how long it is; default: to the end of the file, or of the namespace"},
	{"file", "FILE", O_FILE, V_READ | V_WRITE | V_COMPARE,
	 "the file; - or none: standard input or output"},
	{"fua", NULL, O_FUA, V_WRITE | V_ZERO | V_PERF, "each write is durable when it completes"},
	{"qd", "N", O_QD, V_PERF, "operations in flight on each queue (default 1)"},
	{"bs", "BYTES", O_BS, V_PERF, "bytes of each (default 4K)"},
	{"read", "PERCENT", O_READ, V_PERF, "share of reads (default 100)"},
	{"sequential", NULL, O_SEQUENTIAL, V_PERF, "one after the other"},
	{"random", NULL, O_RANDOM, V_PERF, "anywhere (the default)"},
	{"once", NULL, O_ONCE, V_PERF, "each place once, in a random order, then end"},
	{"time", "SECONDS", O_TIME, V_PERF, "how long to measure (default 10)"},
	{"warmup", "SECONDS", O_WARMUP, V_PERF, "run so long before measuring (default 0)"},
	{"ops", "N", O_OPS, V_PERF, "end after so many operations"},
	{"queues", "N", O_QUEUES, V_PERF, "I/O queues, each with its connection (default 1)"},
	{"range", "BYTES", O_RANGE, V_PERF, "stay within so much from the offset (default: the namespace)"},
	{"verify", NULL, O_VERIFY, V_PERF,
	 "write stamped blocks, check them on reading, and read all of them again at the end"},
	{"seed", "N", O_SEED, V_PERF, "of the random places (default 1)"},
	{"core", "LIST", O_CORE, V_PERF, "pin to these cores, a thread each, such as 1 or 1,3"},
	{"batch", "BYTES", O_BATCH, V_PERF,
	 "data in one send, about (default 1M); which is fastest differs by target"},
	{"progress", NULL, O_PROGRESS, V_PERF,
	 "a line each second on standard error (the default on a terminal)"},
	{"json", NULL, O_JSON, V_JSON, "print JSON"},
	{"help", NULL, O_HELP, V_ALL, "this"},
};

#define NR_VERBS (sizeof(verbs) / sizeof(verbs[0]))
#define NR_OPTS  (sizeof(opts_table) / sizeof(opts_table[0]))

#define DRIVE_MEM_MIB 256u

static const struct verb *the_verb;
static struct cli_nvme_opts the_opts;
static struct nvme_bar *the_bar; /* of a drive; NULL: not opened */
static int the_result;
static volatile bool interrupted;

bool cli_nvme_interrupted(void)
{
	return interrupted;
}

int cli_nvme_fail(const struct cli_nvme_opts *opts, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "ferrule nvme %s: ", opts->verb);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return 1;
}

static void help_all(FILE *to)
{
	fprintf(to, "usage: ferrule nvme VERB --traddr ADDR --nqn NQN [options]\n\n");
	for (size_t i = 0; i < NR_VERBS; i++)
		fprintf(to, "  %-10s %s\n", verbs[i].name, verbs[i].help);
	fprintf(to, "\n`ferrule nvme VERB --help` lists a verb's options.\n");
}

static void help_verb(FILE *to, const struct verb *verb)
{
	fprintf(to, "usage: ferrule nvme %s [options]\n%s\n\n", verb->name, verb->help);
	for (size_t i = 0; i < NR_OPTS; i++) {
		char left[32];

		if (!(opts_table[i].verbs & verb->bit))
			continue;
		snprintf(left, sizeof(left), "--%s%s%s", opts_table[i].name, opts_table[i].value ? " " : "",
			 opts_table[i].value ? opts_table[i].value : "");
		fprintf(to, "  %-20s %s\n", left, opts_table[i].help);
	}
}

/* A number with K, M, G or T behind it; false: it is none, or out of range. */
static bool number(const char *text, uint64_t min, uint64_t max, uint64_t *ret_value)
{
	static const char units[] = "KMGT";
	char *end;
	const char *unit;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 0);
	if (end == text || errno || *text == '-')
		return false;
	if (*end && (unit = strchr(units, *end >= 'a' ? *end - 32 : *end)) != NULL) {
		unsigned shift = 10 * (unsigned)(unit - units + 1);

		if (value > UINT64_MAX >> shift)
			return false;
		value <<= shift;
		end++;
		if (!strcmp(end, "iB") || !strcmp(end, "B"))
			end += strlen(end);
	}
	*ret_value = value;
	return !*end && value >= min && value <= max;
}

static const struct opt *opt_by_id(int id)
{
	for (size_t i = 0; i < NR_OPTS; i++) {
		if (opts_table[i].id == id)
			return &opts_table[i];
	}
	return NULL;
}

static int bad_value(const struct opt *opt, const char *value, const char *wanted)
{
	fprintf(stderr, "ferrule nvme %s: --%s %s: wants %s\n", the_verb->name, opt->name, value, wanted);
	return 2;
}

static int set_text(const struct opt *opt, char *dst, size_t size, const char *value)
{
	if (strlen(value) >= size)
		return bad_value(opt, value, "something shorter");
	strcpy(dst, value);
	return 0;
}

/* Numbers: where they go and between what they must be. */
static int set_number(const struct opt *opt, const char *value)
{
	struct cli_nvme_opts *o = &the_opts;
	uint64_t n, min = 0, max = UINT64_MAX;
	char wanted[96];

	switch (opt->id) {
	case O_TRSVCID:
		min = 1, max = 65535;
		break;
	case O_KATO:
	case O_NSID:
		max = UINT32_MAX - 1;
		break;
	case O_TIMEOUT:
		min = 1, max = 86400;
		break;
	case O_LENGTH:
	case O_TIME:
	case O_OPS:
	case O_RANGE:
		min = 1;
		break;
	case O_QD:
		min = 1, max = 4095;
		break;
	case O_BATCH:
	case O_BS:
		min = 512, max = 1 << 30;
		break;
	case O_READ:
		max = 100;
		break;
	case O_QUEUES:
		min = 1, max = 1024;
		break;
	}
	if (!number(value, min, max, &n)) {
		snprintf(wanted, sizeof(wanted),
			 max == UINT64_MAX ? "a number of at least %llu" : "a number from %llu to %llu",
			 (unsigned long long)min, (unsigned long long)max);
		return bad_value(opt, value, wanted);
	}
	switch (opt->id) {
	case O_TRSVCID:
		o->connect.addr.port = (uint16_t)n;
		break;
	case O_KATO:
		o->connect.kato_ms = (uint32_t)n;
		break;
	case O_TIMEOUT:
		o->connect.timeout_us = n * 1000000;
		break;
	case O_NSID:
		o->nsid = (uint32_t)n;
		break;
	case O_OFFSET:
		o->offset_bytes = n;
		break;
	case O_LENGTH:
		o->len_bytes = n;
		o->has_len = true;
		break;
	case O_QD:
		o->queue_depth = (uint32_t)n;
		break;
	case O_BATCH:
		o->connect.batch_bytes = (uint32_t)n;
		break;
	case O_BS:
		o->io_bytes = (uint32_t)n;
		break;
	case O_READ:
		o->read_percent = (uint32_t)n;
		break;
	case O_TIME:
		o->seconds = n;
		break;
	case O_WARMUP:
		o->warmup_seconds = n;
		break;
	case O_OPS:
		o->nr_ops = n;
		break;
	case O_QUEUES:
		o->nr_queues = (uint32_t)n;
		break;
	case O_RANGE:
		o->range_bytes = n;
		break;
	case O_SEED:
		o->seed = n;
		break;
	}
	return 0;
}

/* The list must make sense, and this process must be allowed on each. */
static int set_cores(const struct opt *opt, const char *value)
{
	unsigned cores[64], nr;
	cpu_set_t set;

	if (cores_parse(value, cores, 64, &nr))
		return bad_value(opt, value, "a list of cores such as 1 or 0,2-3");
	if (sched_getaffinity(0, sizeof(set), &set))
		return 0;
	for (unsigned i = 0; i < nr; i++) {
		if (!CPU_ISSET(cores[i], &set))
			return bad_value(opt, value,
					 "cores on which this process may run (see nproc and taskset -p $$)");
	}
	the_opts.cores = value;
	return 0;
}

static int set_transport(const struct opt *opt, const char *value)
{
	if (!strcasecmp(value, "tcp"))
		the_opts.connect.trtype = NVME_TRTYPE_TCP;
	else if (!strcasecmp(value, "rdma"))
		the_opts.connect.trtype = NVME_TRTYPE_RDMA;
	else
		return bad_value(opt, value, "tcp or rdma");
	return 0;
}

static int set_option(const struct opt *opt, const char *value)
{
	struct cli_nvme_opts *o = &the_opts;

	switch (opt->id) {
	case O_TRADDR:
		o->connect.addr.family = strchr(value, ':') ? AF_INET6 : AF_INET;
		if (nvme_vfio_is_address(value))
			o->connect.trtype = NVME_TRTYPE_PCIE;
		return set_text(opt, o->connect.addr.host, sizeof(o->connect.addr.host), value);
	case O_TRANSPORT:
		return set_transport(opt, value);
	case O_NQN:
		o->has_nqn = true;
		return set_text(opt, o->connect.subnqn, NVME_NQN_MAX_LEN + 1, value);
	case O_HOSTNQN:
		return set_text(opt, o->connect.hostnqn, NVME_NQN_MAX_LEN + 1, value);
	case O_HOSTID:
		return uuid_parse(value, o->connect.hostid) ? bad_value(opt, value, "a UUID") : 0;
	case O_HDGST:
		o->connect.hdgst = true;
		return 0;
	case O_DDGST:
		o->connect.ddgst = true;
		return 0;
	case O_FILE:
		o->file = value;
		return 0;
	case O_FUA:
		o->fua = true;
		return 0;
	case O_JSON:
		o->json = true;
		return 0;
	case O_SEQUENTIAL:
		o->sequential = true;
		return 0;
	case O_RANDOM:
		o->sequential = false;
		return 0;
	case O_ONCE:
		o->once = true;
		return 0;
	case O_VERIFY:
		o->verify = true;
		return 0;
	case O_PROGRESS:
		o->progress = true;
		return 0;
	case O_CORE:
		return set_cores(opt, value);
	}
	return set_number(opt, value);
}

static void defaults(void)
{
	the_opts = (struct cli_nvme_opts){
		.verb = the_verb->name,
		.queue_depth = 1,
		.io_bytes = 4096,
		.read_percent = 100,
		.nr_queues = 1,
		.seconds = 10,
		.seed = 1,
	};
	nvme_connect_opts_init(&the_opts.connect);
	strcpy(the_opts.connect.addr.host, "127.0.0.1");
	the_opts.connect.addr.family = AF_INET;
}

/* What follows from the options together.  0, or the exit status plus one. */
static int settle(void)
{
	struct nvme_connect_opts *connect = &the_opts.connect;
	bool rdma = connect->trtype == NVME_TRTYPE_RDMA;

	if (connect->trtype == NVME_TRTYPE_PCIE)
		return 0;
	if (!connect->addr.port)
		connect->addr.port = the_verb->bit == V_DISCOVER && !rdma ? NVME_TCP_DISCOVERY_PORT : NVME_TCP_PORT;
	if (!rdma || !(connect->hdgst || connect->ddgst))
		return 0;
	fprintf(stderr, "ferrule nvme %s: digests are TCP's: RDMA checks what it carries by itself\n", the_verb->name);
	return 3;
}

/* 0, or the exit status plus one. */
static int parse(int argc, char **argv)
{
	struct option longs[NR_OPTS + 1] = {0};
	int c, rc;

	for (size_t i = 0; i < NR_OPTS; i++)
		longs[i] = (struct option){opts_table[i].name,
					   opts_table[i].value ? required_argument : no_argument, NULL,
					   opts_table[i].id};
	optind = 1;
	while ((c = getopt_long(argc, argv, "a:s:n:t:h", longs, NULL)) != -1) {
		const struct opt *opt = opt_by_id(c);

		if (c == O_HELP) {
			help_verb(stdout, the_verb);
			return 1;
		}
		if (opt && !(opt->verbs & the_verb->bit)) {
			fprintf(stderr, "ferrule nvme %s takes no --%s: see ferrule nvme %s --help\n",
				the_verb->name, opt->name, the_verb->name);
			return 3;
		}
		rc = opt ? set_option(opt, optarg) : 2;
		if (rc)
			return rc + 1;
	}
	if (optind != argc) {
		fprintf(stderr, "ferrule nvme %s: what is \"%s\"?  See ferrule nvme %s --help\n",
			the_verb->name, argv[optind], the_verb->name);
		return 3;
	}
	if (!the_opts.has_nqn && the_verb->bit != V_DISCOVER && the_opts.connect.trtype != NVME_TRTYPE_PCIE) {
		fprintf(stderr,
			"ferrule nvme %s: --nqn is missing: it names the subsystem (ferrule nvme discover "
			"lists them)\n",
			the_verb->name);
		return 3;
	}
	return settle();
}

fiber_fn int cli_nvme_connect(const struct cli_nvme_opts *opts, struct nvme_ctrlr **ret_ctrlr)
{
	struct nvme_connect_opts connect = opts->connect;
	struct nvme_error error = {0};

	if (connect.trtype == NVME_TRTYPE_PCIE) {
		if (!the_bar && nvme_vfio_open(connect.addr.host, NULL, &the_bar, &error))
			return cli_nvme_fail(opts, "%s", error.text);
		connect.bar = the_bar;
	}
	if (!nvme_ctrlr_connect(&connect, ret_ctrlr, &error))
		return 0;
	return cli_nvme_fail(opts, "%s", error.text);
}

/* A drive reaches only EAL's memory; hugepages when there are some. */
static void use_drive_memory(struct runtime_opts *ropts)
{
	static char prefix[32], dir[64];

	snprintf(prefix, sizeof(prefix), "ferrule-nvme-%d", (int)getpid());
	snprintf(dir, sizeof(dir), "/tmp/%s", prefix);
	ropts->eal = true;
	ropts->file_prefix = prefix;
	ropts->runtime_dir = dir;
	ropts->mem_mib = DRIVE_MEM_MIB;
}

static void terminate(void *arg)
{
	interrupted = true;
}

static void run_verb(void *arg)
{
	runtime_on_terminate(terminate, NULL);
	the_result = the_verb->run(&the_opts);
	fflush(stdout);
	if (the_bar)
		the_bar->ops->close(the_bar);
	runtime_stop(0);
}

int cli_nvme(int argc, char **argv)
{
	struct runtime_opts ropts = {.name = "ferrule"};
	int rc;

	if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		help_all(argc < 2 ? stderr : stdout);
		return argc < 2 ? 2 : 0;
	}
	for (size_t i = 0; i < NR_VERBS; i++) {
		if (!strcmp(verbs[i].name, argv[1]))
			the_verb = &verbs[i];
	}
	if (!the_verb) {
		fprintf(stderr, "ferrule nvme: there is no verb \"%s\"\n", argv[1]);
		help_all(stderr);
		return 2;
	}
	defaults();
	rc = parse(argc - 1, argv + 1);
	if (rc)
		return rc - 1;
	log_set_level(LOG_ERROR);
	ropts.cores = the_opts.cores;
	ropts.pin = the_opts.cores != NULL;
	ropts.poll = the_verb->bit == V_PERF;
	if (the_opts.connect.trtype == NVME_TRTYPE_PCIE)
		use_drive_memory(&ropts);
	rc = runtime_run(&ropts, run_verb, NULL);
	if (rc < 0) {
		fprintf(stderr, "ferrule nvme %s: starting failed: %s%s\n", the_verb->name, strerror(-rc),
			the_opts.cores ? ": may this process run on the cores of --core?" : "");
		return 1;
	}
	return the_result;
}
