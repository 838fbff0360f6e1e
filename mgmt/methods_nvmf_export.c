/* The methods that export devices: namespaces and listeners of a subsystem. */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "bdev/nvme.h"
#include "mgmt/late.h"
#include "mgmt/methods_nvmf.h"

/* --- namespaces ----------------------------------------------------------------------------------------------------- */

static const struct rpc_param add_ns_params[] = {
	{ "nqn", RPC_STRING, RPC_REQUIRED, NULL },
	{ "namespace", RPC_OBJECT, RPC_REQUIRED, NULL },
	{ "tgt_name", RPC_STRING, 0, NULL },
	{ NULL, 0, 0, NULL },
};

static const struct rpc_param namespace_params[] = {
	{ "bdev_name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "bdev_uuid", RPC_UUID, 0, NULL },
	{ "nsid", RPC_U32, RPC_LOOSE, NULL },
	{ "nguid", RPC_STRING, 0, NULL },
	{ "eui64", RPC_STRING, 0, NULL },
	{ "uuid", RPC_UUID, 0, NULL },
	{ "ptpl_file", RPC_STRING, 0, NULL },
	{ "anagrpid", RPC_U32, RPC_LOOSE, NULL },
	{ "no_auto_visible", RPC_BOOL, 0, NULL },
	{ "hide_metadata", RPC_BOOL, RPC_IGNORED, NULL },
	{ NULL, 0, 0, NULL },
};

/* Exactly len bytes in hexadecimal digits. */
static int hex_decode(const char *text, uint8_t *bytes, size_t len)
{
	if (strlen(text) != 2 * len)
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		unsigned value;

		if (!isxdigit((unsigned char)text[2 * i]) || !isxdigit((unsigned char)text[2 * i + 1]) ||
		    sscanf(text + 2 * i, "%2x", &value) != 1)
			return -EINVAL;
		bytes[i] = (uint8_t)value;
	}
	return 0;
}

static int ns_opts_of(struct rpc_call *call, json_t *ns, struct nvmf_ns_opts *opts)
{
	const char *nguid = json_string_value(json_object_get(ns, "nguid"));
	const char *eui64 = json_string_value(json_object_get(ns, "eui64"));
	const char *uuid = json_string_value(json_object_get(ns, "uuid"));
	const char *bdev_uuid = json_string_value(json_object_get(ns, "bdev_uuid"));

	memset(opts, 0, sizeof(*opts));
	opts->bdev_name = json_string_value(json_object_get(ns, "bdev_name"));
	opts->nsid = (uint32_t)json_integer_value(json_object_get(ns, "nsid"));
	opts->anagrpid = (uint32_t)json_integer_value(json_object_get(ns, "anagrpid"));
	opts->wait_for_bdev = call->replay;
	if (uuid)
		uuid_parse(uuid, opts->uuid);
	if (bdev_uuid)
		uuid_parse(bdev_uuid, opts->bdev_uuid);
	if (nguid && hex_decode(nguid, opts->nguid, sizeof(opts->nguid))) {
		rpc_fail_param(call, "namespace.nguid", "nguid is 32 hexadecimal digits");
		return -EINVAL;
	}
	if (eui64 && hex_decode(eui64, opts->eui64, sizeof(opts->eui64))) {
		rpc_fail_param(call, "namespace.eui64", "eui64 is 16 hexadecimal digits");
		return -EINVAL;
	}
	if (json_is_true(json_object_get(ns, "no_auto_visible"))) {
		rpc_fail_param(call, "namespace.no_auto_visible",
			       "namespaces hidden from some hosts are not offered: leave it out");
		return -EINVAL;
	}
	if (json_object_get(ns, "ptpl_file") && !call->replay) { /* a cluster must not count on what it asks for here */
		rpc_fail_param(call, "namespace.ptpl_file", "reservations are not offered, so none can persist: leave it out");
		return -EINVAL;
	}
	return 0;
}

static void add_ns_failed(struct rpc_call *call, const struct nvmf_ns_opts *opts, int rc)
{
	switch (rc) {
	case -ENODEV:
		rpc_fail_param(call, "namespace.bdev_name", "there is no device %.200s; bdev_get_bdevs lists them",
			       opts->bdev_name);
		break;
	case -ESTALE:
		rpc_fail_param(call, "namespace.bdev_uuid", "%.200s is a device with another UUID; bdev_get_bdevs shows it",
			       opts->bdev_name);
		break;
	case -EEXIST:
		rpc_fail_param(call, "namespace.nsid", "the NSID, UUID, NGUID or EUI64 is in use by another namespace");
		break;
	case -EINVAL:
		rpc_fail_param(call, "namespace.nsid", "the NSID is beyond the subsystem's max_namespaces");
		break;
	case -ENOSPC:
		rpc_fail_param(call, "namespace.nsid", "the subsystem has all the namespaces it may have (max_namespaces)");
		break;
	case -EBUSY:
		rpc_fail_param(call, "namespace.bdev_name",
			       "%.200s is in use: by a store, or volumes were cloned from it (bdev_get_bdevs, claim_type); or the "
			       "subsystem is being deleted", opts->bdev_name);
		break;
	default:
		nvmf_failed(call, "namespace", rc);
	}
}

/* What is saved of a device: it and no other, whatever has its name after a restart.  Discovered ones may have another name then. */
static void save_bdev(json_t *ns, const char *bdev_name)
{
	const struct bdev *bdev = bdev_find(bdev_name);
	char uuid[UUID_STR_LEN];

	json_object_set_new(ns, "bdev_name", json_string(bdev_name));
	if (!bdev || uuid_is_null(bdev->uuid))
		return;
	uuid_unparse_lower(bdev->uuid, uuid);
	json_object_set_new(ns, "bdev_uuid", json_string(uuid));
	if (bdev_nvme_is_discovered(bdev))
		json_object_set_new(ns, "bdev_name", json_string(uuid));
}

/* What is saved names everything that a host can see, so that it is the same after a restart. */
static void save_ns(struct rpc_call *call, struct nvmf_subsystem *subsystem, json_t *ns, uint32_t nsid)
{
	struct nvmf_ns_info info;
	char name[16], uuid[UUID_STR_LEN];
	json_t *saved;

	if (nvmf_subsystem_next_ns(subsystem, nsid - 1, &info) == 0 && info.nsid == nsid && info.present) {
		uuid_unparse_lower(info.uuid, uuid);
		if (!uuid_is_null(info.uuid))
			json_object_set_new(ns, "uuid", json_string(uuid));
		save_bdev(ns, info.bdev_name);
	}
	json_object_set_new(ns, "nsid", json_integer(nsid));
	snprintf(name, sizeof(name), "%u", nsid);
	saved = json_pack("{s:s,s:O}", "nqn", rpc_string(call, "nqn", ""), "namespace", ns);
	rpc_save_as(call, &(struct state_key){ STATE_NAMESPACE, rpc_string(call, "nqn", ""), name }, call->method->name,
		    saved);
}

static fiber_fn void add_ns(struct rpc_call *call)
{
	struct nvmf_subsystem *subsystem = subsystem_of_call(call);
	struct nvmf_ns_opts opts;
	uint32_t nsid;
	json_t *ns;
	int rc;

	if (!subsystem)
		return;
	ns = rpc_decode(call, rpc_json(call, "namespace"), namespace_params, "namespace", false);
	if (!ns)
		return;
	if (ns_opts_of(call, ns, &opts))
		goto out_free;
	rc = nvmf_subsystem_add_ns(subsystem, &opts, &nsid);
	if (rc) {
		add_ns_failed(call, &opts, rc);
		goto out_free;
	}
	save_ns(call, subsystem, ns, nsid);
	rpc_ok(call, json_integer(nsid));
out_free:
	json_decref(ns);
}

static const struct rpc_param remove_ns_params[] = {
	{ "nqn", RPC_STRING, RPC_REQUIRED, NULL },
	{ "nsid", RPC_U32, RPC_REQUIRED | RPC_LOOSE, NULL },
	{ "tgt_name", RPC_STRING, 0, NULL },
	{ NULL, 0, 0, NULL },
};

static fiber_fn void remove_ns(struct rpc_call *call)
{
	struct nvmf_subsystem *subsystem = subsystem_of_call(call);
	uint32_t nsid = (uint32_t)rpc_u64(call, "nsid", 0);
	char name[16];
	int rc;

	if (!subsystem)
		return;
	rc = nvmf_subsystem_remove_ns(subsystem, nsid);
	if (rc == -ENOENT) {
		rpc_fail_param(call, "nsid", "the subsystem has no namespace %u", nsid);
	} else if (rc) {
		nvmf_failed(call, "nsid", rc);
	} else {
		snprintf(name, sizeof(name), "%u", nsid);
		rpc_forget(call, STATE_NAMESPACE, rpc_string(call, "nqn", ""), name);
		rpc_ok(call, NULL);
	}
}

/* --- listeners ------------------------------------------------------------------------------------------------------ */

static const struct rpc_param listener_params[] = {
	{ "nqn", RPC_STRING, RPC_REQUIRED, NULL },
	{ "listen_address", RPC_OBJECT, RPC_REQUIRED, NULL },
	{ "tgt_name", RPC_STRING, 0, NULL },
	{ "secure_channel", RPC_BOOL, 0, NULL },
	{ "ana_state", RPC_STRING, 0, NULL },
	{ "sock_impl", RPC_STRING, RPC_IGNORED, NULL },
	{ "numa_id", RPC_I32, RPC_IGNORED, NULL },
	{ NULL, 0, 0, NULL },
};

static const struct rpc_param address_params[] = {
	{ "trtype", RPC_STRING, RPC_REQUIRED, NULL },
	{ "traddr", RPC_STRING, RPC_REQUIRED, NULL },
	{ "adrfam", RPC_STRING, 0, NULL },
	{ "trsvcid", RPC_STRING, RPC_LOOSE, NULL },
	{ NULL, 0, 0, NULL },
};

const char *adrfam_name(const struct stream_addr *addr)
{
	return addr->family == AF_INET6 ? "IPv6" : "IPv4";
}

json_t *address_json(const char *trtype, const struct stream_addr *addr)
{
	char port[8];

	snprintf(port, sizeof(port), "%u", addr->port);
	return json_pack("{s:s,s:s,s:s,s:s}", "trtype", trtype, "adrfam", adrfam_name(addr), "traddr", addr->host, "trsvcid",
			 port);
}

static int parse_port(const char *text, uint16_t *ret_port)
{
	unsigned long port;
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	port = strtoul(text, &end, 10);
	if (*end || port == 0 || port > UINT16_MAX)
		return -EINVAL;
	*ret_port = (uint16_t)port;
	return 0;
}

/* The address that a call names, and its transport; -EINVAL with the call failed.  Free *ret_address, which owns trtype. */
static int address_of_call(struct rpc_call *call, json_t **ret_address, const char **ret_trtype, struct stream_addr *ret_addr)
{
	json_t *a = rpc_decode(call, rpc_json(call, "listen_address"), address_params, "listen_address", false);
	const char *traddr, *adrfam, *trsvcid;
	uint8_t bytes[16];

	if (!a)
		return -EINVAL;
	traddr = json_string_value(json_object_get(a, "traddr"));
	adrfam = json_string_value(json_object_get(a, "adrfam"));
	trsvcid = json_string_value(json_object_get(a, "trsvcid"));
	memset(ret_addr, 0, sizeof(*ret_addr));
	ret_addr->family = strchr(traddr, ':') ? AF_INET6 : AF_INET;
	snprintf(ret_addr->host, sizeof(ret_addr->host), "%s", traddr);
	if (adrfam && strcasecmp(adrfam, adrfam_name(ret_addr)) != 0) {
		rpc_fail_param(call, "listen_address.adrfam", "adrfam is IPv4 or IPv6, and must be the family of traddr");
	} else if (inet_pton(ret_addr->family, traddr, bytes) != 1) {
		rpc_fail_param(call, "listen_address.traddr", "traddr must be a numeric IPv4 or IPv6 address, without brackets");
	} else if (parse_port(trsvcid ? trsvcid : "4420", &ret_addr->port)) {
		rpc_fail_param(call, "listen_address.trsvcid", "trsvcid is a port, 1 to 65535");
	} else {
		*ret_trtype = json_string_value(json_object_get(a, "trtype"));
		*ret_address = a;
		return 0;
	}
	json_decref(a);
	return -EINVAL;
}

static void add_listener_failed(struct rpc_call *call, const char *trtype, const struct stream_addr *addr, int rc)
{
	switch (rc) {
	case -ENOENT:
		rpc_fail_param(call, "listen_address.trtype", "there is no transport %.32s; nvmf_create_transport makes it",
			       trtype);
		break;
	case -EEXIST:
		rpc_fail_param(call, "listen_address", "the subsystem listens on this address already");
		break;
	case -EADDRINUSE:
		rpc_fail_param(call, "listen_address.trsvcid", "%s port %u is another process's", addr->host, addr->port);
		break;
	case -EADDRNOTAVAIL:
		rpc_fail_param(call, "listen_address.traddr", "%s is no address of this machine", addr->host);
		break;
	case -ENODEV:
		rpc_fail_param(call, "listen_address.traddr", "no RDMA device has the address %s; rdma link shows them", addr->host);
		break;
	default:
		nvmf_failed(call, "listen_address", rc);
	}
}

static bool listener_options_ok(struct rpc_call *call)
{
	if (rpc_bool(call, "secure_channel", false)) {
		rpc_fail_param(call, "secure_channel", "TLS is not offered: leave it out");
		return false;
	}
	if (strcmp(rpc_string(call, "ana_state", "optimized"), "optimized") != 0) {
		rpc_fail_param(call, "ana_state", "every listener is optimized: leave it out");
		return false;
	}
	return true;
}

/* A key that is the same however the address was written.  That of TCP names no transport: there was no other once. */
static void listener_key(char *key, size_t size, const char *trtype, const struct stream_addr *addr)
{
	snprintf(key, size, "%s %u%s", addr->host, addr->port, strcasecmp(trtype, "TCP") ? " RDMA" : "");
}

static fiber_fn void add_listener(struct rpc_call *call)
{
	struct nvmf_subsystem *subsystem = subsystem_of_call(call);
	struct stream_addr addr;
	const char *trtype;
	char key[128];
	json_t *address;
	int rc;

	if (!subsystem || !listener_options_ok(call) || address_of_call(call, &address, &trtype, &addr))
		return;
	rc = nvmf_subsystem_add_listener(subsystem, trtype, &addr);
	if (rc) {
		add_listener_failed(call, trtype, &addr, rc);
		goto out_free;
	}
	json_object_set_new(call->params, "listen_address", address_json(trtype, &addr));
	listener_key(key, sizeof(key), trtype, &addr);
	late_drop(rpc_string(call, "nqn", ""), key);
	rpc_save(call, STATE_LISTENER, rpc_string(call, "nqn", ""), key);
	rpc_ok(call, NULL);
out_free:
	json_decref(address);
}

static fiber_fn void remove_listener(struct rpc_call *call)
{
	struct nvmf_subsystem *subsystem = subsystem_of_call(call);
	struct stream_addr addr;
	const char *trtype;
	json_t *address;
	char key[128];
	int rc;

	if (!subsystem || address_of_call(call, &address, &trtype, &addr))
		return;
	listener_key(key, sizeof(key), trtype, &addr);
	rc = nvmf_subsystem_remove_listener(subsystem, trtype, &addr);
	if (late_drop(rpc_string(call, "nqn", ""), key) && rc == -ENOENT)
		rc = 0;
	if (rc == -ENOENT) {
		rpc_fail_param(call, "listen_address", "the subsystem does not listen on this address");
	} else if (rc) {
		nvmf_failed(call, "listen_address", rc);
	} else {
		rpc_forget(call, STATE_LISTENER, rpc_string(call, "nqn", ""), key);
		rpc_ok(call, NULL);
	}
	json_decref(address);
}

const struct rpc_method nvmf_export_methods[] = {
	{ .name = "nvmf_subsystem_add_ns", .handler = add_ns, .params = add_ns_params, .style = RPC_DECODE_NVMF,
	  .unknown_ok = true, .changes = true },
	{ .name = "nvmf_subsystem_remove_ns", .handler = remove_ns, .params = remove_ns_params, .style = RPC_DECODE_NVMF,
	  .changes = true },
	{ .name = "nvmf_subsystem_add_listener", .handler = add_listener, .params = listener_params,
	  .style = RPC_DECODE_NVMF, .unknown_ok = true, .changes = true },
	{ .name = "nvmf_subsystem_remove_listener", .handler = remove_listener, .params = listener_params,
	  .style = RPC_DECODE_NVMF, .changes = true },
	{ .name = NULL },
};
