/*
 * What clients and a damaged disk may send, without a daemon: bytes through the scanner, in pieces, then the parser and every
 * method's table of parameters; and bytes as the saved state's journal.
 *
 * With libFuzzer the inputs are its own; without, this replays mutations of good texts, in make check.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mgmt/json_scan.h"
#include "mgmt/methods.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void require(bool what, const char *text)
{
	if (!what) {
		fprintf(stderr, "json_fuzz: %s\n", text);
		abort();
	}
}

static const struct rpc_method *const tables[] = {
	app_methods, bdev_methods, bdev_show_methods, lvol_methods, nvmf_methods, nvmf_export_methods, nvmf_show_methods,
	nvme_methods, nvme_show_methods, nvme_pass_methods,
};

/* Every table looks at the object; what comes out has only known keys. */
static void decode_everywhere(json_t *object)
{
	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
		for (const struct rpc_method *m = tables[i]; m->name; m++) {
			struct rpc_call call = { .method = m };
			json_t *out = m->params ? rpc_decode(&call, object, m->params, NULL, m->unknown_ok) : NULL;

			require(!m->params || !out == !!call.error_code, "a decode neither failed nor succeeded");
			require(!call.error_code || call.error_data, "an error says nothing");
			json_decref(out);
			rpc_call_fini(&call);
		}
	}
}

static void take_text(const char *text, size_t len)
{
	json_t *object = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);

	if (object)
		decode_everywhere(json_is_object(object) && json_object_get(object, "params") ?
					  json_object_get(object, "params") :
					  object);
	json_decref(object);
}

/* Scans in pieces of @step bytes; gives a digest of what was seen. */
static uint64_t scan(const char *data, size_t len, size_t step, bool parse)
{
	struct json_scan s = { 0 };
	char *text = malloc(len + 1);
	size_t pos = 0, end = 0, text_len = 0;
	uint64_t digest = 0;

	while (pos < len) {
		enum json_scan_event event;
		const char *why;
		size_t n;

		if (pos == end)
			end = step < len - end ? end + step : len;
		n = json_scan(&s, data + pos, end - pos, &event);
		require(n > 0 && n <= end - pos, "the scanner took nothing, or too much");
		if (event == JSON_SCAN_MORE || event == JSON_SCAN_TEXT) {
			memcpy(text + text_len, data + pos, n);
			text_len += n;
		} else if (event == JSON_SCAN_GARBAGE) {
			text_len = 0;
		}
		pos += n;
		if (event == JSON_SCAN_TEXT) {
			digest = digest * 31 + pos * 7 + text_len;
			if (json_scan_sane(&s, &why) && parse)
				take_text(text, text_len);
			text_len = 0;
		}
	}
	free(text);
	return digest;
}

static void load_journal(const char *data, size_t len)
{
	struct journal_damage damage;
	struct journal j;
	size_t out_len;
	char *out;

	if (journal_init(&j))
		return;
	if (journal_load(&j, data, len, &damage) == 0) {
		struct journal again;

		/* What was understood can be written and read. */
		out = journal_dump(&j, &out_len);
		require(out && journal_init(&again) == 0, "no memory");
		require(journal_load(&again, out, out_len, &damage) == 0 && !damage.line, "a journal of ours is damaged");
		require(json_equal(j.objects, again.objects), "a journal of ours says something else");
		journal_fini(&again);
		free(out);
	}
	journal_fini(&j);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	const char *text = (const char *)data + 1;

	if (len < 2)
		return 0;
	if (data[0] & 0x80) {
		load_journal(text, len - 1);
	} else {
		uint64_t whole = scan(text, len - 1, len, true);

		require(scan(text, len - 1, 1 + data[0], false) == whole, "pieces give other texts than the whole");
	}
	return 0;
}

#ifdef JSON_FUZZ_REPLAY

static const char *const good[] = {
	" {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"bdev_get_bdevs\",\"params\":{\"name\":\"x\",\"timeout\":10}}"
	"{\"id\":\"\\\"}\",\"method\":\"bdev_malloc_create\",\"params\":{\"num_blocks\":1e3,\"block_size\":512}}[{},[1,2.5]]",
	" {\"params\":{\"nqn\":\"nqn.2026-01.io.ferrule:a\",\"namespace\":{\"bdev_name\":\"m\",\"nsid\":\"7\"}}}\n"
	"{\"params\":{\"trtype\":\"TCP\",\"max_queue_depth\":65536,\"listen_address\":null}}",
	" [{\"lvs_name\":\"p\",\"size\":9223372036854775807,\"size_in_mib\":-1,\"uuid\":\"11111111-2222-3333-4444-55555555\"}]",
	/* a journal, as journal_dump() and journal_line() make it */
	"\x80" "4838823a {\"format\":\"ferrule-state\",\"version\":1,\"seq\":1,\"lines\":1}\n"
	"77040951 {\"key\":[\"transport\",\"\",\"TCP\"],\"method\":\"nvmf_create_transport\",\"params\":{\"trtype\":\"TCP\"}}\n"
	"83703480 {\"seq\":3,\"durable\":2,\"changes\":[{\"delete\":[\"bdev\",\"\",\"n0\"]}]}\n",
};

static uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	x *= 0x9e3779b97f4a7c15ull;
	return x ^ x >> 29;
}

/* One mutation: a byte changed, a piece cut out or doubled, or JSON's own marks put in. */
static size_t mutate(uint8_t *bytes, size_t len, size_t size, uint64_t x)
{
	static const char marks[] = "{}[]\",:\\\n\0019eu";
	size_t at = 1 + x % (len - 1), n = 1 + (x >> 16) % 12;

	switch ((x >> 32) % 4) {
	case 0:
		bytes[at] = (uint8_t)(x >> 40);
		break;
	case 1:
		if (n > len - at)
			n = len - at;
		memmove(bytes + at, bytes + at + n, len - at - n);
		len -= n;
		break;
	case 2:
		if (len + n <= size && n <= len - at) {
			memmove(bytes + at + n, bytes + at, len - at);
			len += n;
		}
		break;
	default:
		bytes[at] = (uint8_t)marks[(x >> 40) % (sizeof(marks) - 1)];
	}
	return len > 2 ? len : 2;
}

/* A file to replay, or a number of rounds. */
int main(int argc, char **argv)
{
	static uint8_t bytes[65536];
	unsigned nr_rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 4000;
	FILE *file = argc > 1 && !nr_rounds ? fopen(argv[1], "rb") : NULL;

	if (file) {
		size_t len = fread(bytes, 1, sizeof(bytes), file);

		fclose(file);
		return LLVMFuzzerTestOneInput(bytes, len);
	}
	for (unsigned round = 0; round < nr_rounds; round++) {
		const char *text = good[round % (sizeof(good) / sizeof(good[0]))];
		size_t len = strlen(text);
		uint64_t x = mix(round + 1);

		memcpy(bytes, text, len);
		if (!(bytes[0] & 0x80))
			bytes[0] = (uint8_t)(round % 40);
		for (unsigned i = 0; i < round % 7; i++) {
			x = mix(x + i);
			len = mutate(bytes, len, sizeof(bytes), x);
		}
		LLVMFuzzerTestOneInput(bytes, len);
	}
	return 0;
}

#endif
