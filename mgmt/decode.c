/*
 * Checks the parameters of a call against a table and makes an object with canonical keys and types out of them.
 *
 * Null counts as absent.  An error names the parameter, what was wrong with it and what is taken instead.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uuid/uuid.h>

#include "mgmt/rpc.h"

static const char *const type_names[] = {
	[RPC_STRING] = "a string",
	[RPC_BOOL] = "true or false",
	[RPC_U16] = "a number from 0 to 65535",
	[RPC_U32] = "a number from 0 to 4294967295",
	[RPC_U64] = "a number from 0 to 9223372036854775807",
	[RPC_I32] = "a number from -2147483648 to 2147483647",
	[RPC_UUID] = "a UUID in text",
	[RPC_OBJECT] = "an object",
	[RPC_ARRAY] = "an array",
	[RPC_ANY] = "a value",
};

static bool integer_of(json_t *v, bool loose, json_int_t *ret)
{
	if (json_is_integer(v)) {
		*ret = json_integer_value(v);
		return true;
	}
	if (json_is_real(v)) { /* 1e3 */
		double d = json_real_value(v);

		if (d != floor(d) || fabs(d) > 9e15)
			return false;
		*ret = (json_int_t)d;
		return true;
	}
	if (loose && json_is_string(v)) {
		const char *s = json_string_value(v);
		char *end;

		if (!isdigit((unsigned char)s[0]) && s[0] != '-')
			return false;
		errno = 0;
		*ret = strtoll(s, &end, 10);
		return errno == 0 && *end == '\0';
	}
	return false;
}

static json_t *decode_integer(json_t *v, const struct rpc_param *p)
{
	static const json_int_t max[] = {
		[RPC_U16] = UINT16_MAX, [RPC_U32] = UINT32_MAX, [RPC_U64] = INT64_MAX, [RPC_I32] = INT32_MAX
	};
	json_int_t n;

	if (!integer_of(v, p->flags & RPC_LOOSE, &n) || n > max[p->type] || n < (p->type == RPC_I32 ? INT32_MIN : 0))
		return NULL;
	return json_integer(n);
}

static json_t *decode_string(json_t *v, const struct rpc_param *p)
{
	char text[32];

	if (json_is_string(v))
		return json_incref(v);
	if (!(p->flags & RPC_LOOSE) || !json_is_integer(v))
		return NULL;
	snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT, json_integer_value(v));
	return json_string(text);
}

static json_t *decode_uuid(json_t *v)
{
	const char *s = json_string_value(v);
	char text[UUID_STR_LEN];
	uuid_t uuid;

	if (!s || uuid_parse(s, uuid))
		return NULL;
	uuid_unparse_lower(uuid, text);
	return json_string(text);
}

/* A new reference, or NULL when the value is not of the type. */
static json_t *decode_value(json_t *v, const struct rpc_param *p)
{
	switch (p->type) {
	case RPC_STRING:
		return decode_string(v, p);
	case RPC_BOOL:
		return json_is_boolean(v) ? json_incref(v) : NULL;
	case RPC_U16:
	case RPC_U32:
	case RPC_U64:
	case RPC_I32:
		return decode_integer(v, p);
	case RPC_UUID:
		return decode_uuid(v);
	case RPC_OBJECT:
		return json_is_object(v) ? json_incref(v) : NULL;
	case RPC_ARRAY:
		return json_is_array(v) ? json_incref(v) : NULL;
	case RPC_ANY:
		return json_incref(v);
	}
	return NULL;
}

static const struct rpc_param *find_param(const struct rpc_param *table, const char *key)
{
	for (const struct rpc_param *p = table; p->key; p++) {
		if (strcmp(p->key, key) == 0 || (p->alias && strcmp(p->alias, key) == 0))
			return p;
	}
	return NULL;
}

/* "where.key", or the key alone. */
static const char *full_name(char *buf, size_t size, const char *where, const char *key)
{
	if (!where)
		return key;
	snprintf(buf, size, "%s.%s", where, key);
	return buf;
}

static void fail_unknown(struct rpc_call *call, const struct rpc_param *table, const char *where, const char *key)
{
	char known[768], name[200];
	size_t len = 0;

	known[0] = '\0';
	for (const struct rpc_param *p = table; p->key && len < sizeof(known) - 1; p++) {
		int n = snprintf(known + len, sizeof(known) - len, "%s%s", len ? ", " : "", p->key);

		len += n > 0 ? (size_t)n : 0;
	}
	rpc_fail_param(call, full_name(name, sizeof(name), where, key), "there is no such parameter; known are: %s", known);
}

/* JSON can say a character of zero; nothing here has a name with one in it. */
static bool holds_nul(json_t *v)
{
	const char *key;
	json_t *member;
	size_t i;

	if (json_is_string(v))
		return strlen(json_string_value(v)) != json_string_length(v);
	json_array_foreach(v, i, member) {
		if (holds_nul(member))
			return true;
	}
	json_object_foreach(v, key, member) {
		if (holds_nul(member))
			return true;
	}
	return false;
}

static int decode_member(struct rpc_call *call, json_t *out, const struct rpc_param *p, const char *where, json_t *v)
{
	json_t *value = decode_value(v, p);
	char name[200];

	if (!value || holds_nul(v)) {
		rpc_fail_param(call, full_name(name, sizeof(name), where, p->key),
			       value ? "%s must not hold the character \\u0000" : "%s must be %s", p->key,
			       type_names[p->type]);
		json_decref(value);
		return -EINVAL;
	}
	if (json_object_get(out, p->key)) {
		json_decref(value);
		rpc_fail_param(call, full_name(name, sizeof(name), where, p->key), "%s is given twice (%s is its older name)",
			       p->key, p->alias ? p->alias : p->key);
		return -EINVAL;
	}
	return json_object_set_new(out, p->key, value) ? -ENOMEM : 0;
}

static int check_required(struct rpc_call *call, json_t *out, const struct rpc_param *table, const char *where)
{
	char name[200];

	for (const struct rpc_param *p = table; p->key; p++) {
		if ((p->flags & RPC_REQUIRED) && !json_object_get(out, p->key)) {
			rpc_fail_param(call, full_name(name, sizeof(name), where, p->key), "%s is missing: give %s", p->key,
				       type_names[p->type]);
			return -EINVAL;
		}
	}
	return 0;
}

json_t *rpc_decode(struct rpc_call *call, json_t *object, const struct rpc_param *table, const char *where, bool unknown_ok)
{
	json_t *out, *v;
	const char *key;

	if (object && !json_is_object(object) && !json_is_null(object)) {
		rpc_fail_param(call, where ? where : "params", "%s must be an object with named members",
			       where ? where : "params");
		return NULL;
	}
	out = json_object();
	json_object_foreach(object, key, v) {
		const struct rpc_param *p = find_param(table, key);

		if (!p && unknown_ok)
			continue;
		if (!p) {
			fail_unknown(call, table, where, key);
			goto out_free;
		}
		if (json_is_null(v) || (p->flags & RPC_IGNORED))
			continue;
		if (decode_member(call, out, p, where, v))
			goto out_free;
	}
	if (!check_required(call, out, table, where))
		return out;
out_free:
	json_decref(out);
	return NULL;
}
