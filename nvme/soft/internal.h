/* What the files of the software drive share. */
#ifndef NVME_SOFT_INTERNAL_H
#define NVME_SOFT_INTERNAL_H

#include <pthread.h>

#include "nvme/soft/soft.h"

#define SOFT_MAX_AERS	   4u
#define SOFT_ACL	   3u /* 0's based: Aborts at a time */
#define SOFT_MAX_FEATURES  0x20u
#define SOFT_BAR_SIZE	   0x4000u
#define SOFT_PAGE	   4096u
#define SOFT_NR_DOORBELLS  (2 * SOFT_MAX_QUEUES)
#define SOFT_MAX_IRQS	   32u
#define SOFT_MAX_XFER_IOVS 1024u
#define SOFT_MAX_SOURCES   4u /* of a Copy */
#define SOFT_CMB_BUS_ADDR  0xfe800000ull

struct soft_ns {
	uint64_t nr_blocks; /* 0: there is none */
	uint8_t *data, *durable;
	uint8_t *dirty; /* a byte for each block: not yet in durable */
	uint64_t size_blocks; /* of the memory */
};

struct soft_queue {
	bool used;
	uint16_t size;
	uint32_t head, tail; /* a completion queue's tail is ours, its head the host's */
	uint16_t phase;
	uint16_t cqid, vector;
	bool irq;
	uint64_t addr;
};

/* A command that was fetched.  On drive->commands until it is completed. */
struct soft_command {
	struct list link;
	struct soft_drive *drive;
	union nvme_cmd cmd;
	uint16_t sqid, sqhd;
	uint64_t epoch; /* the drive's when it was fetched */
	struct timer timer;
	struct soft_fault fault;
	bool has_fault, held; /* held: does not complete by itself */
};

struct soft_drive {
	struct nvme_bar bar;
	struct soft_opts opts;
	struct thread *thread;
	bool plugged;
	bool out_of_reach;
	bool gone; /* atomic: pulled out */
	/* any thread, atomic */
	uint32_t cc, csts;
	uint32_t cc_asked;
	uint32_t doorbells[SOFT_NR_DOORBELLS];
	uint32_t nr_doorbell_writes;
	bool kicked;
	/* under irq_mutex */
	pthread_mutex_t irq_mutex;
	struct nvme_irq *irqs[SOFT_MAX_IRQS];
	bool irq_pending[SOFT_MAX_QUEUES];
	/* its own thread's */
	uint32_t aqa;
	uint64_t asq, acq;
	uint64_t cmbmsc;
	uint8_t *cmb;
	struct soft_queue sq[SOFT_MAX_QUEUES], cq[SOFT_MAX_QUEUES];
	uint64_t epoch; /* goes up with each reset */
	struct list commands;
	unsigned nr_kicks; /* messages under way; destroying waits for none */
	uint32_t *shadow, *event;
	union nvme_cmd aers[SOFT_MAX_AERS];
	unsigned nr_aers;
	uint32_t pending_event; /* dw0 + 1; 0: none */
	bool ns_event_masked, ana_event_masked, smart_event_masked;
	uint8_t critical_warning;
	enum nvme_ana_state ana_state;
	uint64_t ana_changes;
	uint32_t changed[SOFT_MAX_NS];
	uint32_t features[SOFT_MAX_FEATURES];
	bool stuck, silent; /* silent: after a fatal status */
	struct soft_ns ns[SOFT_MAX_NS + 1];
	struct soft_fault faults[SOFT_MAX_FAULTS];
	unsigned nr_faults;
	struct soft_counters counters;
	uint64_t units_read, units_written, nr_reads, nr_writes; /* 512 bytes; commands */
	unsigned nr_host_errors;
	char last_error[160];
};

/* The pieces of a command's data in the host's memory. */
struct soft_data {
	struct iovec iov[SOFT_MAX_XFER_IOVS];
	unsigned nr;
	uint64_t len;
};

/* soft.c */
void soft_host_error(struct soft_drive *drive, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void soft_reset(struct soft_drive *drive); /* all queues and commands go */
void soft_interrupt(struct soft_drive *drive, uint16_t vector);
static inline void *soft_dma(uint64_t addr) /* addresses are the host's own */
{
	return (void *)(uintptr_t)addr; /* NOLINT(performance-no-int-to-ptr) */
}

/* The host's memory at an address, or the drive's own that the address means; NULL: it means nothing. */
void *soft_queue_memory(struct soft_drive *drive, uint64_t addr, uint64_t len);

/* soft_queue.c */
void soft_process(struct soft_drive *drive); /* fetches and begins everything that the doorbells announce */
void soft_complete(struct soft_command *command, uint16_t status, uint64_t result);
void soft_post(struct soft_drive *drive, uint16_t sqid, uint16_t sqhd, uint16_t cid, uint16_t status, uint64_t result);
void soft_command_free(struct soft_command *command);
/* len bytes of data; a status. */
uint16_t soft_data_map(struct soft_drive *drive, const union nvme_cmd *cmd, uint64_t len, struct soft_data *ret_data);
uint16_t soft_data_out(struct soft_command *command, const void *from, uint64_t len); /* to the host */

/* soft_admin.c */
void soft_admin(struct soft_command *command);

/* soft_io.c */
uint16_t soft_io(struct soft_command *command);
void soft_flush(struct soft_drive *drive);

#endif
