/* Parameters are checked against their table, and errors name the parameter; sizes and ports read as people write them. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mgmt/cli.h"
#include "mgmt/rpc.h"
#include "runtime/suite.h"

static const struct rpc_param table[] = {
	{ "name", RPC_STRING, RPC_REQUIRED, NULL },
	{ "size", RPC_U64, 0, "old_size" },
	{ "small", RPC_U16, 0, NULL },
	{ "delta", RPC_I32, 0, NULL },
	{ "loose", RPC_U32, RPC_LOOSE, NULL },
	{ "port", RPC_STRING, RPC_LOOSE, NULL },
	{ "flag", RPC_BOOL, 0, NULL },
	{ "uuid", RPC_UUID, 0, NULL },
	{ "gone", RPC_U32, RPC_IGNORED, NULL },
	{ NULL, 0, 0, NULL },
};

static const struct rpc_method bdev_like = { .name = "m", .style = RPC_DECODE_BDEV };
static const struct rpc_method nvmf_like = { .name = "m", .style = RPC_DECODE_NVMF };

static struct rpc_call call;

static json_t *decode(const char *text, bool unknown_ok)
{
	json_t *object = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL), *out;

	ck_assert_ptr_nonnull(object);
	out = rpc_decode(&call, object, table, NULL, unknown_ok);
	json_decref(object);
	return out;
}

static void expect_blamed(const char *text, const char *key)
{
	ck_assert_ptr_null(decode(text, false));
	ck_assert_int_eq(call.error_code, RPC_INTERNAL_ERROR);
	ck_assert_str_eq(call.error_message, "spdk_json_decode_object failed");
	ck_assert_str_eq(json_string_value(json_object_get(call.error_data, "parameter")), key);
	ck_assert_ptr_nonnull(json_string_value(json_object_get(call.error_data, "detail")));
}

static void setup(void)
{
	memset(&call, 0, sizeof(call));
	call.method = &bdev_like;
}

static void teardown(void)
{
	rpc_call_fini(&call);
}

START_TEST(good_parameters_come_out_canonical)
{
	json_t *out = decode("{\"name\":\"x\",\"old_size\":1e3,\"loose\":\"17\",\"port\":4420,\"flag\":false,"
			     "\"uuid\":\"AAAAAAAA-bbbb-cccc-dddd-eeeeeeeeeeee\",\"gone\":\"whatever\",\"small\":null}",
			     false);

	ck_assert_ptr_nonnull(out);
	ck_assert_int_eq(json_integer_value(json_object_get(out, "size")), 1000);
	ck_assert_int_eq(json_integer_value(json_object_get(out, "loose")), 17);
	ck_assert_str_eq(json_string_value(json_object_get(out, "port")), "4420");
	ck_assert_str_eq(json_string_value(json_object_get(out, "uuid")), "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee");
	ck_assert(json_is_false(json_object_get(out, "flag")));
	ck_assert_ptr_null(json_object_get(out, "gone"));
	ck_assert_ptr_null(json_object_get(out, "small"));
	json_decref(out);
}
END_TEST

START_TEST(a_bad_parameter_is_named)
{
	static const struct {
		const char *text, *key;
	} bad[] = {
		{ "{}", "name" },
		{ "{\"name\":null}", "name" },
		{ "{\"name\":7}", "name" },
		{ "{\"name\":\"a\\u0000b\"}", "name" },
		{ "{\"name\":\"x\",\"size\":-1}", "size" },
		{ "{\"name\":\"x\",\"size\":1.5}", "size" },
		{ "{\"name\":\"x\",\"size\":\"12\"}", "size" },
		{ "{\"name\":\"x\",\"size\":1,\"old_size\":1}", "size" },
		{ "{\"name\":\"x\",\"small\":65536}", "small" },
		{ "{\"name\":\"x\",\"delta\":-2147483649}", "delta" },
		{ "{\"name\":\"x\",\"loose\":\"12x\"}", "loose" },
		{ "{\"name\":\"x\",\"loose\":\" 12\"}", "loose" },
		{ "{\"name\":\"x\",\"loose\":\"99999999999999999999\"}", "loose" },
		{ "{\"name\":\"x\",\"flag\":1}", "flag" },
		{ "{\"name\":\"x\",\"uuid\":\"aaaa\"}", "uuid" },
		{ "{\"name\":\"x\",\"nonsense\":1}", "nonsense" },
		{ "[1]", "params" },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		expect_blamed(bad[i].text, bad[i].key);
}
END_TEST

START_TEST(nvmf_methods_fail_in_their_own_words_and_may_ignore_unknown_keys)
{
	json_t *out;

	call.method = &nvmf_like;
	ck_assert_ptr_null(decode("{}", true));
	ck_assert_int_eq(call.error_code, RPC_INVALID_PARAMS);
	ck_assert_str_eq(call.error_message, "Invalid parameters");
	out = decode("{\"name\":\"x\",\"nonsense\":1}", true);
	ck_assert_ptr_nonnull(out);
	ck_assert_uint_eq(json_object_size(out), 1);
	json_decref(out);
}
END_TEST

START_TEST(sizes_read_as_people_write_them)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{ "0", 0 },		  { "4096", 4096 },	     { "1K", 1024 },
		{ "512M", 512ull << 20 }, { "10G", 10ull << 30 },    { "10GiB", 10ull << 30 },
		{ "1.5T", 3ull << 39 },	  { "9007199254740993", 9007199254740993ull },
		{ "2p", 2ull << 50 },
	};
	static const char *const bad[] = { "", "-1", "G", "1X", "1.3", "10GG", "1e40", "0x10", "9E18K", " 1", "7b" };
	uint64_t bytes;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		ck_assert_msg(cli_parse_size(good[i].text, &bytes) == 0, "%s", good[i].text);
		ck_assert_uint_eq(bytes, good[i].bytes);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(cli_parse_size(bad[i], &bytes) == -EINVAL, "%s", bad[i]);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		good_parameters_come_out_canonical,
		a_bad_parameter_is_named,
		nvmf_methods_fail_in_their_own_words_and_may_ignore_unknown_keys,
		sizes_read_as_people_write_them,
	};

	return run_suite_within("decode", tests, sizeof(tests) / sizeof(tests[0]), 60, setup, teardown);
}
