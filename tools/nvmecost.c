/*
 * nvmecost OPS read|write: so many 4 KiB operations at depth 32 on a drive of software, for counting the PCIe driver's
 * instructions; tools/nvme-instructions runs it and does the sum.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/initiator.h"
#include "nvme/soft/soft.h"

#define DEPTH 32u
#define LEN   4096u

static struct {
	struct nvme_qpair *qpair;
	uint64_t left, nr_done, nr_ops;
	uint8_t opcode;
	struct fiber_wait wait;
	int result;
} bench;

struct op {
	struct nvme_request req;
	struct iovec iov;
};

static void submit(struct op *op)
{
	nvme_cmd_rw(&op->req.cmd, bench.opcode, 1, (bench.left-- % 1024) * 8, 8);
	nvme_qpair_submit(bench.qpair, &op->req);
}

static void done(struct nvme_request *req, uint16_t status)
{
	if (status)
		bench.result = -EIO;
	if (++bench.nr_done == bench.nr_ops)
		fiber_wake(&bench.wait, 0);
	else if (bench.left)
		submit(container_of(req, struct op, req));
}

static fiber_fn void run(struct nvme_ctrlr *ctrlr)
{
	static struct op ops[DEPTH];
	uint8_t *data = dma_alloc(DEPTH * LEN, 4096);
	struct nvme_error error;

	bench.result = data ? nvme_qpair_connect(ctrlr, 1, 64, &bench.qpair, &error) : -ENOMEM;
	if (bench.result)
		return;
	fiber_wait_init(&bench.wait);
	for (unsigned i = 0; i < DEPTH; i++) {
		struct op *op = &ops[i];

		op->iov = (struct iovec){ data + i * LEN, LEN };
		op->req.iov = &op->iov;
		op->req.iovcnt = 1;
		op->req.len = LEN;
		op->req.done = done;
		submit(op);
	}
	fiber_wait(&bench.wait);
	nvme_qpair_disconnect(bench.qpair);
	dma_free(data);
}

static void bench_main(void *arg)
{
	const struct soft_opts opts = { .no_irq = true };
	struct nvme_connect_opts connect;
	struct soft_drive *drive;
	struct nvme_ctrlr *ctrlr;
	struct nvme_error error = { 0 };

	nvme_connect_opts_init(&connect);
	connect.trtype = NVME_TRTYPE_PCIE;
	bench.result = soft_create(&opts, &drive);
	if (!bench.result) {
		connect.bar = soft_plug(drive, "soft");
		bench.result = nvme_ctrlr_connect(&connect, &ctrlr, &error);
		if (!bench.result) {
			run(ctrlr);
			nvme_ctrlr_disconnect(ctrlr);
		}
		connect.bar->ops->close(connect.bar);
		soft_destroy(drive);
	}
	runtime_stop(0);
}

int main(int argc, char **argv)
{
	const struct runtime_opts opts = { .name = "nvmecost", .poll = true };
	int rc;

	if (argc != 3 || (strcmp(argv[2], "read") && strcmp(argv[2], "write"))) {
		fprintf(stderr, "usage: nvmecost OPS read|write\n");
		return 2;
	}
	bench.nr_ops = bench.left = strtoull(argv[1], NULL, 10);
	bench.opcode = strcmp(argv[2], "read") ? NVME_IO_WRITE : NVME_IO_READ;
	if (bench.nr_ops < DEPTH) {
		fprintf(stderr, "nvmecost: at least %u operations\n", DEPTH);
		return 2;
	}
	rc = runtime_run(&opts, bench_main, NULL);
	if (!rc)
		rc = bench.result;
	if (rc)
		fprintf(stderr, "nvmecost: %s\n", strerror(-rc));
	return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}
