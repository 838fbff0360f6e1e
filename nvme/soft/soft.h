/*
 * A drive of software: an NVMe controller with registers, doorbells, queues, namespaces and a volatile cache, in memory, behind
 * the same struct nvme_bar as a real PCIe function.  It does what a test's script of faults says.
 *
 * It belongs to the thread that made it: all of soft_*() is called there, and its commands are carried out there, so that a
 * simulation of it is deterministic.  Registers are read and doorbells rung from any thread.  What a host does that no host
 * may do is counted in soft_host_errors(): a test of an honest driver ends with zero.
 */
#ifndef NVME_SOFT_SOFT_H
#define NVME_SOFT_SOFT_H

#include "nvme/bar.h"
#include "nvme/nvme.h"

struct soft_drive;

#define SOFT_MAX_NS	16u
#define SOFT_MAX_QUEUES 17u /* the admin queue among them */

/* What a drive tells apart by: a subsystem NQN and an NGUID a namespace; as one from before those, an EUI-64 a namespace; nothing. */
enum soft_ids { SOFT_IDS_NEW, SOFT_IDS_OLD, SOFT_IDS_NONE };

struct soft_opts {
	const char *serial;	 /* NULL: "SOFT0001" */
	const char *model;	 /* NULL: its own */
	uint16_t cntlid;	 /* 0: 7 */
	uint32_t block_size;	 /* bytes; 0: 512 */
	uint64_t nr_blocks;	 /* of namespace 1; 0: 4 MiB of them; more are made by soft_ns_set() */
	uint8_t mdts;		 /* 0: 5, which is 128 KiB */
	uint16_t max_entries;	 /* of a queue; 0: 256 */
	uint16_t nr_io_queues;	 /* at most SOFT_MAX_QUEUES - 1; 0: that */
	uint16_t awupf;		 /* 0's based, of the controller */
	uint16_t noiob, npwg;	 /* blocks; npwg 0's based as on the wire; 0: neither is reported */
	bool no_write_cache;
	bool no_fua;		 /* it takes FUA, and does nothing about it */
	uint16_t mssrl;		 /* blocks that Copy takes, in one range or all; 0: there is no Copy */
	bool no_verify;		 /* there is no Verify */
	uint8_t vsl;		 /* Verify's limit: a power of two, in pages; 0: none */
	bool sgl, shadow;	 /* it takes SGLs; it has Doorbell Buffer Config */
	bool ana;		 /* it reports Asymmetric Namespace Access, optimized at first */
	uint16_t ana_groups;	 /* in its log; the namespaces are in the last; 0: 1 */
	enum soft_ids ids;
	uint8_t csi;		 /* the I/O command set its namespaces say they have */
	bool no_irq;
	uint32_t cmb_bytes;	 /* of controller memory buffer for submission queues; 0: none */
	bool cmb_old;		 /* its address on the bus means it, whatever CMBMSC names */
	bool cmb_far;		 /* its address on the bus is none that the host can use */
	bool cmb_left;		 /* who had it before has left CMBMSC set, to its address on the bus */
	uint8_t dstrd;
	uint64_t latency_us;	 /* of each I/O command */
	uint64_t jitter_us;	 /* up to so much more, at random: completions come in any order */
};

int soft_create(const struct soft_opts *opts, struct soft_drive **ret_drive);
/* Its bar must be closed.  NULL is fine. */
void soft_destroy(struct soft_drive *drive);
/* The function of the drive, as if just plugged in; one at a time.  close() of it leaves the drive. */
struct nvme_bar *soft_plug(struct soft_drive *drive, const char *name);
/* Pulls it out, whatever it is doing: registers read all ones, nothing completes any more, on_removed is told. */
void soft_unplug(struct soft_drive *drive);
/* Somebody asks to have it, as the kernel does before it takes a function away: it goes on working. */
void soft_ask_back(struct soft_drive *drive);
/* soft_unplug() without a word to anybody: the driver has to find out. */
void soft_pull(struct soft_drive *drive);
/* Power fails: what was neither flushed nor written with FUA is, block by block, kept or lost at random; the controller is as
 * after power on. */
void soft_power_cut(struct soft_drive *drive);

/* Another drive, as this one would be after a power cut now; this one goes on. */
int soft_cut_copy(struct soft_drive *drive, struct soft_drive **ret_drive);

/* nr_blocks 0: the namespace goes.  What there was stays as far as it fits.  Hosts that asked for it hear by an event. */
int soft_ns_set(struct soft_drive *drive, uint32_t nsid, uint64_t nr_blocks);
/* An event whatever was said before, as a mad drive does: completes an AER, or waits for one. */
void soft_event(struct soft_drive *drive, uint32_t dw0);
/* Its critical warnings (Base 2.0, 5.16.1.3) from now on; hosts that asked for new ones hear by an event, once until they have read
 * the log page. */
void soft_warn(struct soft_drive *drive, uint8_t critical_warning);
/* All namespaces' access from now on; hosts that asked for it hear by an event. */
void soft_ana_set(struct soft_drive *drive, enum nvme_ana_state state);
/* Tells an event as it stands: completes an AER, or remembers. */
void soft_event(struct soft_drive *drive, uint32_t dw0);
/* The medium itself, as the last write left it; NULL: no such namespace. */
uint8_t *soft_ns_data(struct soft_drive *drive, uint32_t nsid);

/* --- faults ------------------------------------------------------------------------------------- */

enum soft_fault_kind {
	SOFT_DELAY,	 /* arg: microseconds more */
	SOFT_DROP,	 /* never completes; an Abort of it does nothing */
	SOFT_STALL,	 /* never completes by itself; an Abort completes it */
	SOFT_STATUS,	 /* arg: the status it ends with, nothing done */
	SOFT_WRONG_CID,	 /* carried out, and completed with the CID plus arg */
	SOFT_WRONG_SQID,
	SOFT_TWICE,	 /* completed twice */
	SOFT_BAD_PHASE,	 /* an entry whose phase is wrong comes in its stead, and the completion after it */
	SOFT_FATAL,	 /* CSTS.CFS, and nothing completes any more */
	SOFT_UNPLUG,	 /* arg 1: without a word */
	SOFT_GARBAGE,	 /* to the host: the data is random bytes */
};

#define SOFT_ANY_OPCODE 0x100u

/* Matches commands on the admin queue, or on the I/O queues, by opcode; after @skip of them, @count times. */
struct soft_fault {
	enum soft_fault_kind kind;
	bool admin;
	uint16_t opcode;
	uint16_t cns; /* of Identify: 1 + CNS; 0: any */
	unsigned skip, count;
	uint64_t arg;
};

#define SOFT_MAX_FAULTS 16u

void soft_fault_add(struct soft_drive *drive, const struct soft_fault *fault);
void soft_faults_clear(struct soft_drive *drive);
/* CSTS.RDY does not follow CC.EN any more. */
void soft_stick(struct soft_drive *drive, bool stuck);
/* Whether memory can be made known to the drive at all: as if there were none left for bounce buffers. */
void soft_set_reach(struct soft_drive *drive, bool reaches);
void soft_set_fatal(struct soft_drive *drive);

/* --- what it has seen --------------------------------------------------------------------------- */

struct soft_counters {
	uint64_t nr_admin, nr_io, nr_flushes, nr_fua, nr_copies, nr_verifies, nr_aborts, nr_resets, nr_shutdowns;
	uint64_t nr_doorbells; /* writes of doorbell registers */
	uint64_t nr_irqs;
	uint64_t nr_sgl; /* commands with an SGL */
	uint64_t nr_stops;
	uint64_t nr_cmb_queues; /* submission queues made in its buffer */
};

void soft_get_counters(const struct soft_drive *drive, struct soft_counters *ret_counters);
unsigned soft_host_errors(const struct soft_drive *drive);
const char *soft_last_host_error(const struct soft_drive *drive);
/* Commands fetched and not completed. */
unsigned soft_nr_in_flight(const struct soft_drive *drive);

#endif
