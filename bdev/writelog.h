/*
 * The write log: a bdev that passes everything on to another and notes each change, with its data, in a file, in the order
 * in which it was submitted and completed.  From such a log the remains of a power cut at any moment can be made.
 *
 * The file: a header of 4096 bytes, then records.  All integers little-endian.
 *
 *   header  0  8  magic "FerruWLG"          record   0  4  magic 0x474c5746 "FWLG"
 *           8  4  version, 1                         4  1  kind: 1 submitted, 2 completed
 *          12  4  block size, bytes                  5  1  operation (enum bdev_op)
 *          16  8  device's size, blocks              6  1  flags (BDEV_IO_FUA, BDEV_IO_UNMAP_OK)
 *                                                    7  1  zero
 *                                                    8  8  operation's number, from 1; a completion has its submission's
 *                                                   16  8  first block
 *                                                   24  8  blocks
 *                                                   32  4  completions: status, 0 or -errno
 *                                                   36  4  CRC32C of the 64 bytes of the record with this field 0
 *                                                   40  8  bytes of data that follow: submitted writes' own
 *                                                   48  8  microseconds since the log was begun
 *                                                   56  8  zero
 *
 * A record cut short by the end of the file ends the log.
 */
#ifndef BDEV_WRITELOG_H
#define BDEV_WRITELOG_H

#include "bdev/bdev.h"

#define WRITELOG_MAGIC	      "FerruWLG"
#define WRITELOG_RECORD_MAGIC 0x474c5746u
#define WRITELOG_HEADER_SIZE  4096u

enum writelog_kind { WRITELOG_SUBMITTED = 1, WRITELOG_COMPLETED = 2 };

struct writelog_header {
	char magic[8];
	uint32_t version, block_size;
	uint64_t nr_blocks;
	uint8_t zero[4072];
};

struct writelog_record {
	uint32_t magic;
	uint8_t kind, op, flags, zero;
	uint64_t nr, offset_blocks, nr_blocks;
	int32_t status;
	uint32_t crc;
	uint64_t data_bytes, time_us, zero2;
};

_Static_assert(sizeof(struct writelog_header) == WRITELOG_HEADER_SIZE, "format");
_Static_assert(sizeof(struct writelog_record) == 64, "format");

/**
 * bdev_writelog_create - put a write log in front of a bdev
 * @base_name: claimed
 * @log_path:  made anew; it grows without bound, and writing it may block the reactor: for tests
 *
 * Thread: app.  Return: 0, or -EEXIST, -ENODEV, -EBUSY, -ENOMEM, or what open() gives.
 */
int bdev_writelog_create(const char *name, const char *base_name, const char *log_path, struct bdev **ret_bdev);

struct writelog_cut {
	uint64_t record;	/* the cut comes before this record, counted from 0; beyond the last: after all */
	uint64_t seed;		/* of what is kept, lost and torn */
	uint32_t atomic_blocks; /* 0: 1 */
	bool ignore_flushes;	/* as if flushes and FUA had done nothing: a test must fail on that */
	bool keep_all;		/* nothing completed is lost: as if the process alone had died */
};

struct writelog_info {
	uint64_t nr_records, nr_writes, nr_flushes, nr_blocks;
	uint32_t block_size;
};

/* Reads a whole log.  0, -EINVAL (no log, or damaged in the middle), or -errno. */
int writelog_inspect(const char *log_path, struct writelog_info *ret_info);

/* Makes at image_path what a power cut would have left of the device, which read image_base (NULL: zeroes) when the log was
 * begun.  What a flush completed before the cut covers is there, and FUA writes that completed; each other write, whole, in
 * part, or not at all.  0 or -errno. */
int writelog_make_image(const char *log_path, const char *image_base, const char *image_path, const struct writelog_cut *cut);

#endif
