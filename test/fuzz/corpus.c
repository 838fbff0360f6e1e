/* Scripts that a fuzzer begins with: what a good host does, and the beginnings of what a bad one might. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "nvme/nvme.h"
#include "test/fuzz/corpus.h"
#include "test/fuzz/script.h"

/* opcode, flags, cid, nsid, SGL choice, length choice, cdw10-15, data length choice */
#define CMD(opcode, cid, nsid, sgl, len, a, b, c, data) SCRIPT_COMMAND, opcode, 0, cid, nsid, sgl, len, a, b, c, 0, 0, 0, data
#define FUSED(opcode, fuse, cid, len, block) SCRIPT_COMMAND, opcode, fuse, cid, 1, 1, len, block, 0, 0, 0, 0, 0, len
#define UP(dgst)  SCRIPT_OPEN, SCRIPT_IC, dgst, 0, SCRIPT_CONNECT, 0, 31, 0, SCRIPT_PROPERTY, 1, 0x14, 1
#define UP_IO(dgst) UP(dgst), SCRIPT_OPEN, SCRIPT_IC, dgst, 0, SCRIPT_CONNECT, 1, 127, 0

#define SCRIPT(...) { sizeof((const uint8_t[]){ __VA_ARGS__ }), { __VA_ARGS__ } }

const struct corpus_entry corpus[] = {
	SCRIPT(1, 0, UP(0), SCRIPT_PROPERTY, 0, 0, 0, SCRIPT_PROPERTY, 0, 0x1c, 0),
	SCRIPT(2, 1, UP(3), CMD(NVME_ADMIN_IDENTIFY, 1, 0, 0, 7, 1, 0, 0, 0), CMD(NVME_ADMIN_IDENTIFY, 2, 1, 0, 7, 0, 0, 0, 0)),
	SCRIPT(3, 0, UP(1), CMD(NVME_ADMIN_GET_LOG_PAGE, 1, 255, 0, 4, 2, 0, 0, 0),
	       CMD(NVME_ADMIN_SET_FEATURES, 2, 0, 0, 0, 7, 3, 0, 0), CMD(NVME_ADMIN_GET_FEATURES, 3, 0, 0, 0, 15, 0, 0, 0)),
	SCRIPT(4, 0, UP(2), CMD(NVME_ADMIN_AER, 1, 0, 0, 0, 0, 0, 0, 0), CMD(NVME_ADMIN_ABORT, 2, 0, 0, 0, 0, 0, 0, 0),
	       CMD(NVME_ADMIN_KEEP_ALIVE, 3, 0, 0, 0, 0, 0, 0, 0), SCRIPT_CLOSE, 0),
	/* a write in the capsule, and one by R2T */
	SCRIPT(5, 1, UP_IO(3), CMD(NVME_IO_WRITE, 1, 1, 1, 7, 8, 0, 7, 7), CMD(NVME_IO_READ, 2, 1, 0, 7, 8, 0, 7, 0)),
	SCRIPT(6, 0, UP_IO(0), CMD(NVME_IO_WRITE, 1, 1, 0, 10, 8, 0, 127, 0), SCRIPT_WAIT, 5, SCRIPT_H2C, 0, 1, SCRIPT_WAIT, 5),
	SCRIPT(7, 0, UP_IO(3), CMD(NVME_IO_WRITE, 1, 1, 0, 8, 8, 0, 15, 0), SCRIPT_WAIT, 5, SCRIPT_H2C, 8, 7, SCRIPT_H2C, 4, 7),
	SCRIPT(8, 1, UP_IO(2), CMD(NVME_IO_FLUSH, 1, 1, 0, 0, 0, 0, 0, 0), CMD(NVME_IO_WRITE_ZEROES, 2, 1, 0, 0, 1, 0, 9, 0),
	       CMD(NVME_IO_DSM, 3, 1, 1, 2, 0, 4, 0, 2), CMD(NVME_IO_VERIFY, 4, 1, 0, 0, 1, 0, 3, 0),
	       CMD(NVME_IO_COMPARE, 5, 1, 1, 4, 0, 0, 0, 4), CMD(NVME_IO_COPY, 6, 1, 1, 2, 1, 0, 0, 0)),
	SCRIPT(9, 0, UP_IO(0), FUSED(NVME_IO_COMPARE, 1, 1, 4, 5), FUSED(NVME_IO_WRITE, 2, 2, 4, 5)),
	SCRIPT(10, 0, UP_IO(0), FUSED(NVME_IO_COMPARE, 1, 1, 4, 5), SCRIPT_CLOSE, 1),
	/* discovery */
	SCRIPT(11, 0, SCRIPT_OPEN, SCRIPT_IC, 0, 0, SCRIPT_CONNECT, 0, 31, 1, SCRIPT_PROPERTY, 1, 0x14, 1,
	       CMD(NVME_ADMIN_GET_LOG_PAGE, 1, 0, 0, 5, 0x70, 0, 0, 0)),
	/* Connect in ways that are refused */
	SCRIPT(12, 0, SCRIPT_OPEN, SCRIPT_IC, 0, 31, SCRIPT_CONNECT, 0, 31, 2, SCRIPT_CONNECT, 0, 0, 0, SCRIPT_CONNECT, 0, 31, 8,
	       SCRIPT_CONNECT, 0, 31, 16, SCRIPT_CONNECT, 1, 31, 32, 9),
	/* bytes that are wrong */
	SCRIPT(13, 0, SCRIPT_OPEN, SCRIPT_SPOIL, 2, 1, SCRIPT_IC, 0, 0),
	SCRIPT(14, 0, UP(3), SCRIPT_SPOIL, 80, 1, CMD(NVME_ADMIN_SET_FEATURES, 1, 0, 1, 4, 0x81, 0, 0, 4)),
	SCRIPT(15, 0, UP(0), SCRIPT_IC, 0, 0),
	SCRIPT(16, 0, UP_IO(0), SCRIPT_H2C, 0, 0),
	SCRIPT(17, 0, UP(0), SCRIPT_TERM, 1),
	SCRIPT(18, 0, SCRIPT_OPEN, SCRIPT_RAW, 8, 0, 0, 128, 0, 128, 0, 0, 0, SCRIPT_CLOSE, 1),
	SCRIPT(19, 1, UP_IO(1), CMD(NVME_IO_READ, 1, 1, 0, 10, 0, 0, 127, 0), CMD(NVME_IO_READ, 2, 1, 0, 10, 0, 0, 127, 0),
	       SCRIPT_CLOSE, 1, SCRIPT_USE, 0, SCRIPT_PROPERTY, 1, 0x14, 0),
};

const unsigned corpus_len = sizeof(corpus) / sizeof(corpus[0]);
