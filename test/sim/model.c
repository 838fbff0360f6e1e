/* The oracle: versions, and what a block may hold. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "test/sim/model.h"

struct content {
	uint64_t seed;
	uint32_t block, version;
	uint64_t rest[MODEL_BLOCK_SIZE / 8 - 2];
};

_Static_assert(sizeof(struct content) == MODEL_BLOCK_SIZE, "a block");

static size_t model_size(uint32_t nr_blocks)
{
	return sizeof(struct model) + nr_blocks * sizeof(struct model_block);
}

struct model *model_create(uint64_t seed, uint32_t nr_blocks)
{
	struct model *model = mmap(NULL, model_size(nr_blocks), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (model == MAP_FAILED)
		return NULL;
	model->seed = seed;
	model->nr_blocks = nr_blocks;
	return model;
}

void model_destroy(struct model *model)
{
	munmap(model, model_size(model->nr_blocks));
}

uint32_t model_issue(struct model *model, uint32_t block, uint32_t nr_blocks, bool zero)
{
	uint32_t version = ++model->version;

	for (uint32_t i = block; i < block + nr_blocks; i++) {
		model->blocks[i].issued = version;
		if (zero)
			model->blocks[i].zero_issued = version;
	}
	return version;
}

void model_ack(struct model *model, uint32_t block, uint32_t nr_blocks, uint32_t version, bool zero, bool durable)
{
	for (uint32_t i = block; i < block + nr_blocks; i++) {
		struct model_block *b = &model->blocks[i];

		b->acked = version;
		b->acked_zero = zero;
		if (durable) {
			b->durable = version;
			b->durable_zero = zero;
		}
	}
}

void model_flush_begin(const struct model *model, uint32_t block, uint32_t nr_blocks, struct model_block *snap)
{
	memcpy(snap, &model->blocks[block], nr_blocks * sizeof(*snap));
}

void model_flush_done(struct model *model, uint32_t block, uint32_t nr_blocks, const struct model_block *snap)
{
	for (uint32_t i = 0; i < nr_blocks; i++) {
		struct model_block *b = &model->blocks[block + i];

		if (snap[i].acked > b->durable) {
			b->durable = snap[i].acked;
			b->durable_zero = snap[i].acked_zero;
		}
	}
}

static void content_make(const struct model *model, struct content *c, uint32_t block, uint32_t version)
{
	uint64_t x = model->seed ^ (uint64_t)block << 32 ^ version;

	c->seed = model->seed;
	c->block = block;
	c->version = version;
	for (unsigned i = 0; i < sizeof(c->rest) / sizeof(c->rest[0]); i++) {
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		c->rest[i] = x;
	}
}

void model_fill(const struct model *model, void *buf, uint32_t block, uint32_t nr_blocks, uint32_t version)
{
	struct content *c = buf;

	for (uint32_t i = 0; i < nr_blocks; i++)
		content_make(model, &c[i], block + i, version);
}

static bool is_zero(const void *buf)
{
	const uint64_t *p = buf;

	for (unsigned i = 0; i < MODEL_BLOCK_SIZE / 8; i++)
		if (p[i])
			return false;
	return true;
}

static bool bad(const struct model *model, uint32_t block, const char *what, const struct content *c)
{
	const struct model_block *b = &model->blocks[block];

	fprintf(stderr,
		"block %u: %s (seed %llx block %u version %u); issued %u, zeroes %u, acknowledged %u%s, durable %u%s%s\n", block,
		what, (unsigned long long)c->seed, c->block, c->version, b->issued, b->zero_issued, b->acked,
		b->acked_zero ? " (zeroes)" : "", b->durable, b->durable_zero ? " (zeroes)" : "",
		model->after_cut ? ", after a power cut" : "");
	return false;
}

/* The version found, or 0 for zeroes, is right for the block or not. */
static bool check_one(const struct model *model, uint32_t block, const struct content *c, bool zero)
{
	const struct model_block *b = &model->blocks[block];
	uint32_t least = model->after_cut ? b->durable : b->acked;
	bool least_zero = model->after_cut ? b->durable_zero : b->acked_zero;
	struct content expected;

	if (zero) {
		if (least == 0 || least_zero || b->zero_issued > least)
			return true;
		return bad(model, block, "zeroes", c);
	}
	if (c->seed != model->seed || c->block != block)
		return bad(model, block, "foreign bytes", c);
	content_make(model, &expected, block, c->version);
	if (memcmp(&expected, c, sizeof(expected)))
		return bad(model, block, "damaged", c);
	if (c->version > b->issued)
		return bad(model, block, "from the future", c);
	if (c->version < least || (c->version == least && least_zero))
		return bad(model, block, "old", c);
	return true;
}

static void settle_one(struct model_block *b, uint32_t version, bool zero)
{
	/* Zeroes may be those of any version that makes them: the newest is the one that allows most. */
	if (zero)
		version = b->zero_issued;
	b->acked = version;
	b->acked_zero = zero;
	b->issued = version;
	b->zero_issued = zero ? version : 0;
	b->durable = version;
	b->durable_zero = zero;
}

bool model_check(struct model *model, const void *buf, uint32_t block, uint32_t nr_blocks, bool settle)
{
	const struct content *c = buf;

	for (uint32_t i = 0; i < nr_blocks; i++) {
		bool zero = is_zero(&c[i]);

		if (!check_one(model, block + i, &c[i], zero))
			return false;
		if (settle)
			settle_one(&model->blocks[block + i], c[i].version, zero);
		model->nr_checked++;
	}
	return true;
}
