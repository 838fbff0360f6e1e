/*
 * Runs the fuzz target without a fuzzer, for make check and for looking at what a fuzzer has found.
 *
 *   replay                  the corpus, and some thousands of mutations of it, the same each time
 *   replay FILE...          these inputs
 *   replay --write DIR      writes the corpus into a folder
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/fuzz/corpus.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUTATIONS 60u /* of each entry */

static uint64_t rng = 1;

static uint32_t pick(uint32_t below)
{
	rng = rng * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(rng >> 33) % below;
}

static size_t mutate(uint8_t *buf, size_t len, size_t size)
{
	const struct corpus_entry *other = &corpus[pick(corpus_len)];
	size_t at = pick((uint32_t)len);

	switch (pick(4)) {
	case 0: /* a byte is another */
		buf[at] = (uint8_t)pick(256);
		return len;
	case 1: /* a bit */
		buf[at] ^= (uint8_t)(1u << pick(8));
		return len;
	case 2: /* cut */
		return at < 3 ? len : at;
	default: /* and then another */
		if (other->len - 2 > size - len)
			return len;
		memcpy(buf + len, other->bytes + 2, other->len - 2);
		return len + other->len - 2;
	}
}

static void run_mutations(void)
{
	for (unsigned i = 0; i < corpus_len * MUTATIONS; i++) {
		const struct corpus_entry *entry = &corpus[i % corpus_len];
		uint8_t buf[1024];
		size_t len = entry->len;

		memcpy(buf, entry->bytes, len);
		for (unsigned n = i < corpus_len ? 0 : 1 + pick(6); n; n--)
			len = mutate(buf, len, sizeof(buf));
		LLVMFuzzerTestOneInput(buf, len);
	}
}

static int run_file(const char *name)
{
	static uint8_t buf[1 << 20];
	FILE *file = fopen(name, "rb");
	size_t len;

	if (!file) {
		perror(name);
		return EXIT_FAILURE;
	}
	len = fread(buf, 1, sizeof(buf), file);
	fclose(file);
	LLVMFuzzerTestOneInput(buf, len);
	return EXIT_SUCCESS;
}

static int write_corpus(const char *dir)
{
	for (unsigned i = 0; i < corpus_len; i++) {
		char name[4096];
		FILE *file;

		snprintf(name, sizeof(name), "%s/seed-%02u", dir, i);
		file = fopen(name, "wb");
		if (!file || fwrite(corpus[i].bytes, 1, corpus[i].len, file) != corpus[i].len || fclose(file)) {
			perror(name);
			return EXIT_FAILURE;
		}
	}
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "--write"))
		return write_corpus(argv[2]);
	for (int i = 1; i < argc; i++)
		if (run_file(argv[i]))
			return EXIT_FAILURE;
	if (argc == 1)
		run_mutations();
	return EXIT_SUCCESS;
}
