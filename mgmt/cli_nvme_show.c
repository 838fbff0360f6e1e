/* discover, identify, smart: what a target says of itself, decoded for people or as JSON. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uuid/uuid.h>

#include "mgmt/cli_nvme.h"

#define MAX_LISTED_NS 4096u

static int print_json(json_t *root)
{
	json_dumpf(root, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	putchar('\n');
	json_decref(root);
	return 0;
}

/* For people: the same tree, a line each value. */
static void print_text(json_t *value, int depth)
{
	const char *key;
	json_t *child;
	size_t i;

	json_object_foreach (value, key, child) {
		printf("%*s%-*s", depth * 2, "", 26 - depth * 2, key);
		if (json_is_string(child))
			printf(" %s\n", json_string_value(child));
		else if (json_is_integer(child))
			printf(" %" JSON_INTEGER_FORMAT "\n", json_integer_value(child));
		else if (json_is_boolean(child))
			printf(" %s\n", json_is_true(child) ? "yes" : "no");
		else if (json_is_object(child)) {
			putchar('\n');
			print_text(child, depth + 1);
		} else if (json_is_array(child)) {
			json_t *element;

			putchar('\n');
			json_array_foreach (child, i, element) {
				if (i)
					putchar('\n');
				print_text(element, depth + 1);
			}
		} else {
			putchar('\n');
		}
	}
}

static int show(const struct cli_nvme_opts *opts, json_t *root)
{
	if (opts->json)
		return print_json(root);
	print_text(root, 0);
	json_decref(root);
	return 0;
}

static void set_int(json_t *o, const char *key, uint64_t value)
{
	json_object_set_new(o, key, json_integer((json_int_t)value));
}

static void set_bool(json_t *o, const char *key, bool value)
{
	json_object_set_new(o, key, json_boolean(value));
}

static void set_field(json_t *o, const char *key, const char *field, size_t len)
{
	char text[257];

	nvme_copy_field(text, sizeof(text), field, len);
	json_object_set_new(o, key, json_string(text));
}

static void set_format(json_t *o, const char *key, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void set_format(json_t *o, const char *key, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	json_object_set_new(o, key, json_string(text));
}

static int command_failed(const struct cli_nvme_opts *opts, struct nvme_ctrlr *ctrlr, int rc,
			  const char *what)
{
	if (rc < 0)
		return cli_nvme_fail(opts, "%s: %s", what,
				     nvme_qpair_is_live(nvme_ctrlr_admin(ctrlr))
					     ? strerror(-rc)
					     : nvme_qpair_error(nvme_ctrlr_admin(ctrlr))->text);
	return cli_nvme_fail(opts, "%s: %s (%03xh)", what, nvme_status_name((uint16_t)rc),
			     nvme_status_code((uint16_t)rc));
}

/* --- discover --------------------------------------------------------------------------------- */

static const char *name_of(uint8_t value, const char *const *names, unsigned nr)
{
	return value < nr && names[value] ? names[value] : "unknown";
}

static json_t *discovery_entry(const struct nvme_discovery_entry *e)
{
	static const char *const trtypes[255] = {[1] = "rdma", [2] = "fc", [3] = "tcp", [254] = "loop"};
	static const char *const adrfams[] = {NULL, "ipv4", "ipv6", "infiniband", "fibre-channel"};
	static const char *const subtypes[] = {NULL, "discovery referral", "nvme subsystem",
					       "current discovery subsystem"};
	static const char *const secures[] = {"not specified", "required", "not required", "reserved"};
	static const char *const sectypes[] = {"none", "tls1.2", "tls1.3"};
	json_t *o = json_object();

	json_object_set_new(o, "trtype", json_string(name_of(e->trtype, trtypes, 255)));
	json_object_set_new(o, "adrfam", json_string(name_of(e->adrfam, adrfams, 5)));
	json_object_set_new(o, "subtype", json_string(name_of(e->subtype, subtypes, 4)));
	set_field(o, "traddr", e->traddr, sizeof(e->traddr));
	set_field(o, "trsvcid", e->trsvcid, sizeof(e->trsvcid));
	set_field(o, "subnqn", e->subnqn, sizeof(e->subnqn));
	set_int(o, "portid", e->portid);
	set_format(o, "cntlid", "%04xh", e->cntlid);
	set_int(o, "asqsz", e->asqsz);
	json_object_set_new(o, "secure_channel", json_string(secures[e->treq & 3]));
	set_bool(o, "sq_flow_control_optional", e->treq & NVME_TREQ_NO_SQ_FLOW_CONTROL);
	set_int(o, "eflags", e->eflags);
	if (e->trtype == NVME_TRTYPE_TCP)
		json_object_set_new(o, "sectype", json_string(name_of(e->tcp.sectype, sectypes, 3)));
	return o;
}

fiber_fn int cli_nvme_discover(const struct cli_nvme_opts *opts)
{
	struct nvme_discovery_log *log;
	struct nvme_ctrlr *ctrlr;
	json_t *root, *entries;
	int rc;

	if (cli_nvme_connect(opts, &ctrlr))
		return 1;
	rc = nvme_discover(ctrlr, &log);
	if (rc)
		rc = command_failed(opts, ctrlr, rc, "reading the discovery log");
	nvme_ctrlr_disconnect(ctrlr);
	if (rc)
		return rc;
	root = json_object();
	entries = json_array();
	set_int(root, "genctr", log->genctr);
	for (uint64_t i = 0; i < log->numrec; i++)
		json_array_append_new(entries, discovery_entry(&log->entries[i]));
	json_object_set_new(root, "records", entries);
	free(log);
	return show(opts, root);
}

/* --- identify --------------------------------------------------------------------------------- */

struct flag_name {
	uint32_t bit;
	const char *name;
};

static void set_flags(json_t *o, const char *key, uint32_t value, const struct flag_name *names, unsigned nr)
{
	char text[256] = "";

	for (unsigned i = 0; i < nr; i++) {
		if (!(value & names[i].bit))
			continue;
		if (text[0])
			strcat(text, ", ");
		strcat(text, names[i].name);
	}
	set_format(o, key, "%xh%s%s%s", value, text[0] ? " (" : "", text, text[0] ? ")" : "");
}

#define SET_FLAGS(o, key, value, ...)                                                 \
	do {                                                                          \
		static const struct flag_name names_[] = {__VA_ARGS__};               \
		set_flags(o, key, value, names_, sizeof(names_) / sizeof(names_[0])); \
	} while (0)

static json_t *controller(struct nvme_ctrlr *ctrlr)
{
	const struct nvme_id_ctrlr *id = nvme_ctrlr_id(ctrlr);
	static const char *const types[] = {"not reported", "I/O", "discovery", "administrative"};
	uint32_t vs = nvme_ctrlr_vs(ctrlr), max = nvme_ctrlr_max_xfer_bytes(ctrlr);
	json_t *o = json_object();

	set_field(o, "subnqn", id->subnqn, sizeof(id->subnqn));
	set_field(o, "serial", id->sn, sizeof(id->sn));
	set_field(o, "model", id->mn, sizeof(id->mn));
	set_field(o, "firmware", id->fr, sizeof(id->fr));
	set_format(o, "version", "%u.%u.%u", vs >> 16, (vs >> 8) & 0xff, vs & 0xff);
	json_object_set_new(o, "type", json_string(name_of(id->cntrltype, types, 4)));
	set_int(o, "cntlid", id->cntlid);
	set_format(o, "cap", "%016" PRIx64 "h", nvme_ctrlr_cap(ctrlr));
	set_int(o, "max_queue_entries", NVME_CAP_MQES(nvme_ctrlr_cap(ctrlr)) + 1);
	set_int(o, "max_transfer_bytes", id->mdts ? max : 0);
	set_int(o, "max_commands", id->maxcmd);
	set_int(o, "max_namespaces", id->mnan ? id->mnan : id->nn);
	set_int(o, "keep_alive_granularity_ms", id->kas * 100u);
	set_int(o, "abort_limit", id->acl + 1u);
	set_int(o, "event_limit", id->aerl + 1u);
	SET_FLAGS(o, "cmic", id->cmic, {1, "several ports"}, {2, "several controllers"}, {8, "ANA"});
	SET_FLAGS(o, "oncs", id->oncs, {1, "compare"}, {2, "write uncorrectable"}, {4, "dataset management"},
		  {8, "write zeroes"}, {0x10, "save"}, {0x20, "reservations"}, {0x40, "timestamp"},
		  {0x80, "verify"}, {0x100, "copy"});
	SET_FLAGS(o, "fuses", id->fuses, {1, "compare and write"});
	SET_FLAGS(o, "oaes", id->oaes, {NVME_OAES_NS_ATTR, "namespace attributes"}, {NVME_OAES_ANA, "ANA"},
		  {NVME_OAES_DISCOVERY, "discovery log"});
	SET_FLAGS(o, "ctratt", id->ctratt, {1, "128-bit host identifier"},
		  {0x40, "traffic based keep alive"});
	SET_FLAGS(o, "lpa", id->lpa, {1, "SMART for each namespace"}, {2, "effects"}, {4, "extended"},
		  {0x20, "supported pages"});
	SET_FLAGS(o, "sgls", id->sgls, {1, "SGLs"}, {2, "SGLs in dwords"}, {4, "keyed"}, {1u << 20, "offset"},
		  {1u << 21, "transport"});
	set_bool(o, "volatile_write_cache", id->vwc & NVME_VWC_PRESENT);
	set_int(o, "atomic_write_blocks", id->awun + 1u);
	set_int(o, "atomic_write_power_fail_blocks", id->awupf + 1u);
	set_int(o, "command_capsule_bytes", (uint64_t)id->ioccsz * 16);
	set_int(o, "response_capsule_bytes", (uint64_t)id->iorcsz * 16);
	return o;
}

/* The firmware in each slot, and which runs; nothing of a controller that does not say. */
static fiber_fn json_t *firmware_slots(struct nvme_ctrlr *ctrlr)
{
	struct nvme_log_firmware_slot log;
	json_t *slots = json_array();

	if (nvme_get_log(ctrlr, NVME_LID_FIRMWARE_SLOT, 0, NVME_NSID_ALL, 0, &log, sizeof(log)))
		return slots;
	for (unsigned i = 0; i < sizeof(log.frs) / sizeof(log.frs[0]); i++) {
		json_t *o;

		if (!log.frs[i][0] && (log.afi & 7u) != i + 1)
			continue;
		o = json_object();
		set_int(o, "slot", i + 1);
		set_field(o, "revision", log.frs[i], sizeof(log.frs[i]));
		set_bool(o, "active", (log.afi & 7u) == i + 1);
		set_bool(o, "next", (log.afi >> 4 & 7u) == i + 1);
		json_array_append_new(slots, o);
	}
	return slots;
}

static json_t *name_space(struct nvme_ctrlr *ctrlr, const struct nvme_ns *ns)
{
	json_t *o = json_object();
	char uuid[UUID_STR_LEN], nguid[33] = "";

	set_int(o, "nsid", ns->nsid);
	set_int(o, "size_bytes", ns->nr_blocks * ns->block_size);
	set_int(o, "block_size", ns->block_size);
	set_int(o, "blocks", ns->id.nsze);
	set_int(o, "capacity_blocks", ns->id.ncap);
	set_int(o, "used_blocks", ns->id.nuse);
	if (ns->has_uuid) {
		uuid_unparse_lower(ns->uuid, uuid);
		json_object_set_new(o, "uuid", json_string(uuid));
	}
	for (unsigned i = 0; i < 16; i++)
		sprintf(nguid + 2 * i, "%02x", ns->id.nguid[i]);
	json_object_set_new(o, "nguid", json_string(nguid));
	SET_FLAGS(o, "nsfeat", ns->id.nsfeat, {1, "thin"}, {2, "own atomic units"}, {4, "deallocated errors"},
		  {8, "unique ids"}, {0x10, "preferred sizes"});
	set_bool(o, "shared", ns->id.nmic & NVME_NMIC_SHARED);
	set_bool(o, "deallocated_reads_zero", (ns->id.dlfeat & 7) == NVME_DLFEAT_READ_ZERO);
	set_bool(o, "write_protected", ns->id.nsattr & NVME_NSATTR_WRITE_PROTECTED);
	if (ns->id.nsfeat & NVME_NSFEAT_OPTPERF) {
		set_int(o, "preferred_write_blocks", ns->id.npwg + 1u);
		set_int(o, "preferred_deallocate_blocks", ns->id.npdg + 1u);
	}
	set_int(o, "max_transfer_blocks", ns->max_xfer_blocks);
	return o;
}

/* Appends each namespace asked for; 0, or 1 when one could not be had, which has been said. */
static fiber_fn int namespaces(const struct cli_nvme_opts *opts, struct nvme_ctrlr *ctrlr, json_t *array)
{
	uint32_t *nsids = calloc(MAX_LISTED_NS, sizeof(*nsids));
	struct nvme_error error = {0};
	struct nvme_ns *ns = calloc(1, sizeof(*ns));
	int nr = 1, rc = 0;

	if (!nsids || !ns) {
		rc = cli_nvme_fail(opts, "no memory");
		goto out_free;
	}
	nsids[0] = opts->nsid;
	if (!opts->nsid)
		nr = nvme_ns_list(ctrlr, 0, nsids, MAX_LISTED_NS);
	if (nr < 0) {
		rc = command_failed(opts, ctrlr, nr, "listing namespaces");
		goto out_free;
	}
	for (int i = 0; i < nr && !rc && !cli_nvme_interrupted(); i++) {
		if (nvme_ns_open(ctrlr, nsids[i], ns, &error))
			rc = cli_nvme_fail(opts, "%s", error.text);
		else
			json_array_append_new(array, name_space(ctrlr, ns));
	}
out_free:
	free(nsids);
	free(ns);
	return rc;
}

fiber_fn int cli_nvme_identify(const struct cli_nvme_opts *opts)
{
	struct nvme_ctrlr *ctrlr;
	json_t *root, *array;
	int rc = 0;

	if (cli_nvme_connect(opts, &ctrlr))
		return 1;
	root = json_object();
	array = json_array();
	json_object_set_new(root, "controller", controller(ctrlr));
	if (nvme_ctrlr_id(ctrlr)->cntrltype != NVME_CNTRLTYPE_DISCOVERY) {
		json_object_set_new(root, "firmware_slots", firmware_slots(ctrlr));
		set_int(root, "io_queues", nvme_ctrlr_nr_io_queues(ctrlr));
		rc = namespaces(opts, ctrlr, array);
	}
	json_object_set_new(root, "namespaces", array);
	nvme_ctrlr_disconnect(ctrlr);
	if (!rc)
		return show(opts, root);
	json_decref(root);
	return rc;
}

fiber_fn int cli_nvme_smart(const struct cli_nvme_opts *opts)
{
	struct nvme_log_smart smart;
	struct nvme_ctrlr *ctrlr;
	json_t *root;
	unsigned kelvin;
	int rc;

	if (cli_nvme_connect(opts, &ctrlr))
		return 1;
	rc = nvme_get_log(ctrlr, NVME_LID_SMART, 0, NVME_NSID_ALL, 0, &smart, sizeof(smart));
	if (rc)
		rc = command_failed(opts, ctrlr, rc, "reading the SMART log");
	nvme_ctrlr_disconnect(ctrlr);
	if (rc)
		return rc;
	root = json_object();
	kelvin = smart.temperature_k[0] | (unsigned)smart.temperature_k[1] << 8;
	SET_FLAGS(root, "critical_warning", smart.critical_warning, {1, "spare low"}, {2, "temperature"},
		  {4, "reliability"}, {8, "read only"}, {0x10, "backup failed"});
	set_int(root, "temperature_k", kelvin);
	set_int(root, "available_spare_percent", smart.avail_spare);
	set_int(root, "percent_used", smart.percent_used);
	set_int(root, "data_units_read", smart.data_units_read[0]);
	set_int(root, "data_units_written", smart.data_units_written[0]);
	set_int(root, "host_reads", smart.host_reads[0]);
	set_int(root, "host_writes", smart.host_writes[0]);
	set_int(root, "busy_minutes", smart.busy_minutes[0]);
	set_int(root, "power_cycles", smart.power_cycles[0]);
	set_int(root, "power_on_hours", smart.power_on_hours[0]);
	set_int(root, "unsafe_shutdowns", smart.unsafe_shutdowns[0]);
	set_int(root, "media_errors", smart.media_errors[0]);
	set_int(root, "error_log_entries", smart.nr_error_entries[0]);
	return show(opts, root);
}
