/* The scripts that fuzzing begins with. */
#ifndef TEST_FUZZ_CORPUS_H
#define TEST_FUZZ_CORPUS_H

#include <stddef.h>
#include <stdint.h>

struct corpus_entry {
	size_t len;
	uint8_t bytes[256];
};

extern const struct corpus_entry corpus[];
extern const unsigned corpus_len;

#endif
