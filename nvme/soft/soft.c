/*
 * The drive's outside: registers, doorbells, interrupts, plugging in and pulling out, loss of power.
 *
 * A write to CC or a doorbell is kept where any thread may put it and looked at on the drive's own thread: so nothing of the
 * host's memory is touched once CSTS.RDY has followed CC.EN, or soft_unplug() has returned.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/soft/internal.h"

#define DEFAULT_BLOCKS	8192u
#define DEFAULT_MDTS	5u
#define DEFAULT_ENTRIES 256u
#define CAP_TO		4u /* two seconds */

static struct soft_drive *drive_of(struct nvme_bar *bar)
{
	return container_of(bar, struct soft_drive, bar);
}

void soft_host_error(struct soft_drive *drive, const char *fmt, ...)
{
	va_list ap;

	drive->nr_host_errors++;
	va_start(ap, fmt);
	vsnprintf(drive->last_error, sizeof(drive->last_error), fmt, ap);
	va_end(ap);
	log_warning("soft drive: the host errs: %s", drive->last_error);
}

/* --- power, reset, ready ------------------------------------------------------------------------ */

void soft_reset(struct soft_drive *drive)
{
	struct list *l;

	while ((l = list_pop(&drive->commands)))
		soft_command_free(list_entry(l, struct soft_command, link));
	memset(drive->sq, 0, sizeof(drive->sq));
	memset(drive->cq, 0, sizeof(drive->cq));
	memset(drive->features, 0, sizeof(drive->features));
	drive->features[NVME_FID_VWC] = !drive->opts.no_write_cache;
	drive->nr_aers = 0;
	drive->pending_event = 0;
	drive->ns_event_masked = drive->ana_event_masked = drive->smart_event_masked = false;
	drive->shadow = drive->event = NULL;
	drive->silent = false;
	drive->epoch++;
	drive->counters.nr_resets++;
}

static void set_csts(struct soft_drive *drive, uint32_t csts)
{
	__atomic_store_n(&drive->csts, csts, __ATOMIC_RELEASE);
}

static void admin_queues(struct soft_drive *drive)
{
	uint32_t sq = (drive->aqa & 0xfff) + 1, cq = ((drive->aqa >> 16) & 0xfff) + 1;

	if (!drive->asq || !drive->acq || (drive->asq | drive->acq) % SOFT_PAGE || sq < 2 || cq < 2) {
		soft_host_error(drive, "enabled without admin queues (AQA %08x)", drive->aqa);
		set_csts(drive, NVME_CSTS_CFS);
		return;
	}
	for (unsigned i = 0; i < SOFT_NR_DOORBELLS; i++)
		__atomic_store_n(&drive->doorbells[i], 0, __ATOMIC_RELAXED);
	drive->sq[0] = (struct soft_queue){.used = true, .size = (uint16_t)sq, .addr = drive->asq};
	drive->cq[0] = (struct soft_queue){
		.used = true, .size = (uint16_t)cq, .addr = drive->acq, .phase = 1, .irq = true};
	set_csts(drive, NVME_CSTS_RDY);
}

static void take_cc(struct soft_drive *drive)
{
	uint32_t asked = __atomic_load_n(&drive->cc_asked, __ATOMIC_ACQUIRE), cc = drive->cc;

	if (asked == cc)
		return;
	__atomic_store_n(&drive->cc, asked, __ATOMIC_RELEASE);
	if ((cc ^ asked) & NVME_CC_EN) {
		if (drive->stuck)
			return;
		if (asked & NVME_CC_EN) {
			if (NVME_CC_MPS(asked) || NVME_CC_IOSQES(asked) != 6 || NVME_CC_IOCQES(asked) != 4)
				soft_host_error(drive, "enabled with CC %08x", asked);
			admin_queues(drive);
		} else {
			soft_reset(drive);
			set_csts(drive, 0);
		}
	}
	if (NVME_CC_SHN(asked) && !NVME_CC_SHN(cc)) {
		drive->counters.nr_shutdowns++;
		soft_flush(drive);
		set_csts(drive, drive->csts | NVME_CSTS_SHST_COMPLETE << NVME_CSTS_SHST_SHIFT);
	}
}

static void process_kick(void *arg)
{
	struct soft_drive *drive = arg;

	__atomic_store_n(&drive->kicked, false, __ATOMIC_SEQ_CST);
	if (drive->plugged && !__atomic_load_n(&drive->gone, __ATOMIC_ACQUIRE)) {
		take_cc(drive);
		if ((drive->csts & (NVME_CSTS_RDY | NVME_CSTS_CFS)) == NVME_CSTS_RDY)
			soft_process(drive);
	}
	__atomic_fetch_sub(&drive->nr_kicks, 1, __ATOMIC_RELEASE);
}

static void kick(struct soft_drive *drive)
{
	if (__atomic_exchange_n(&drive->kicked, true, __ATOMIC_SEQ_CST))
		return;
	__atomic_fetch_add(&drive->nr_kicks, 1, __ATOMIC_RELAXED);
	thread_send(drive->thread, process_kick, drive);
}

/* --- registers ---------------------------------------------------------------------------------- */

static uint64_t cap(const struct soft_drive *drive)
{
	return (uint64_t)(drive->opts.max_entries - 1) | NVME_CAP_CQR | (uint64_t)CAP_TO << NVME_CAP_TO_SHIFT |
	       (uint64_t)drive->opts.dstrd << NVME_CAP_DSTRD_SHIFT | NVME_CAP_CSS_NVM |
	       (drive->opts.cmb_bytes ? NVME_CAP_CMBS : 0); /* which one of the old kind may claim, too */
}

/* CMBLOC: BAR 2, from 8 KiB on.  Shown always, or when CMBMSC asks for it. */
static uint32_t cmb_register(const struct soft_drive *drive, uint32_t offset)
{
	if (!drive->opts.cmb_bytes || (!drive->opts.cmb_old && !(drive->cmbmsc & NVME_CMBMSC_CRE)))
		return 0;
	return offset == NVME_PROP_CMBLOC ? 2u << 12 | 2u : drive->opts.cmb_bytes / 4096 << 12 | NVME_CMBSZ_SQS;
}

/* The bus address of the buffer is nobody's memory.  One of the old kind that is told to by CMBMSC no longer answers to it. */
void *soft_queue_memory(struct soft_drive *drive, uint64_t addr, uint64_t len)
{
	uint64_t base = drive->opts.cmb_old ? SOFT_CMB_BUS_ADDR : drive->cmbmsc & NVME_CMBMSC_CBA_MASK;
	bool enabled = (drive->opts.cmb_old && !drive->cmbmsc) || (drive->cmbmsc & NVME_CMBMSC_CMSE);

	if (!drive->cmb)
		return soft_dma(addr);
	if (enabled && addr >= base && addr - base < drive->opts.cmb_bytes) {
		if (len > drive->opts.cmb_bytes - (addr - base)) {
			soft_host_error(drive, "a queue leads past the controller memory buffer");
			return NULL;
		}
		drive->counters.nr_cmb_queues++;
		return drive->cmb + (addr - base);
	}
	if (addr - (uintptr_t)drive->cmb < drive->opts.cmb_bytes) {
		soft_host_error(drive, "the controller memory buffer was not named so: CMBMSC %llx", (unsigned long long)drive->cmbmsc);
		return NULL;
	}
	return soft_dma(addr);
}

static uint64_t soft_read64(struct nvme_bar *bar, uint32_t offset)
{
	struct soft_drive *drive = drive_of(bar);

	if (__atomic_load_n(&drive->gone, __ATOMIC_ACQUIRE))
		return UINT64_MAX;
	switch (offset) {
	case NVME_PROP_CAP:
		return cap(drive);
	case NVME_PROP_ASQ:
		return drive->asq;
	case NVME_PROP_ACQ:
		return drive->acq;
	case NVME_PROP_CMBMSC:
		return drive->cmbmsc;
	}
	return 0;
}

static uint32_t soft_read32(struct nvme_bar *bar, uint32_t offset)
{
	struct soft_drive *drive = drive_of(bar);

	if (__atomic_load_n(&drive->gone, __ATOMIC_ACQUIRE))
		return UINT32_MAX;
	switch (offset) {
	case NVME_PROP_CAP:
		return (uint32_t)cap(drive);
	case NVME_PROP_CAP + 4:
		return (uint32_t)(cap(drive) >> 32);
	case NVME_PROP_VS:
		return NVME_VS(2, 0, 0);
	case NVME_PROP_CC:
		return __atomic_load_n(&drive->cc_asked, __ATOMIC_ACQUIRE);
	case NVME_PROP_CSTS:
		return __atomic_load_n(&drive->csts, __ATOMIC_ACQUIRE);
	case NVME_PROP_AQA:
		return drive->aqa;
	case NVME_PROP_CMBLOC:
	case NVME_PROP_CMBSZ:
		return cmb_register(drive, offset);
	}
	return 0;
}

static void soft_write64(struct nvme_bar *bar, uint32_t offset, uint64_t value)
{
	struct soft_drive *drive = drive_of(bar);

	if (offset == NVME_PROP_ASQ)
		drive->asq = value;
	else if (offset == NVME_PROP_ACQ)
		drive->acq = value;
	else if (offset == NVME_PROP_CMBMSC)
		drive->cmbmsc = value;
}

static void soft_write32(struct nvme_bar *bar, uint32_t offset, uint32_t value)
{
	struct soft_drive *drive = drive_of(bar);
	uint32_t idx;

	if (__atomic_load_n(&drive->gone, __ATOMIC_ACQUIRE))
		return;
	if (offset == NVME_PROP_AQA) {
		drive->aqa = value;
	} else if (offset == NVME_PROP_CC) {
		__atomic_store_n(&drive->cc_asked, value, __ATOMIC_RELEASE);
		kick(drive);
	} else if (offset >= 0x1000) {
		idx = (offset - 0x1000) / (4u << drive->opts.dstrd);
		__atomic_fetch_add(&drive->nr_doorbell_writes, 1, __ATOMIC_RELAXED);
		if (idx >= SOFT_NR_DOORBELLS || (offset - 0x1000) % (4u << drive->opts.dstrd))
			return;
		__atomic_store_n(&drive->doorbells[idx], value, __ATOMIC_RELEASE);
		kick(drive);
	}
}

static bool soft_dma_addr(struct nvme_bar *bar, const void *va, uint64_t *ret_addr)
{
	if (drive_of(bar)->out_of_reach)
		return false;
	*ret_addr = (uint64_t)(uintptr_t)va;
	return true;
}

/* --- interrupts --------------------------------------------------------------------------------- */

static void woken(void *arg)
{
}

/* Every queue that armed the vector is woken, once. */
void soft_interrupt(struct soft_drive *drive, uint16_t vector)
{
	bool told = false;

	pthread_mutex_lock(&drive->irq_mutex);
	for (unsigned i = 0; i < SOFT_MAX_IRQS; i++) {
		struct nvme_irq *irq = drive->irqs[i];

		if (!irq || irq->vector != vector)
			continue;
		drive->irqs[i] = NULL;
		irq->armed = false;
		drive->counters.nr_irqs++;
		thread_send(irq->thread, woken, NULL);
		told = true;
	}
	if (!told && vector < SOFT_MAX_QUEUES)
		drive->irq_pending[vector] = true;
	pthread_mutex_unlock(&drive->irq_mutex);
}

static void soft_irq_arm(struct nvme_bar *bar, struct nvme_irq *irq)
{
	struct soft_drive *drive = drive_of(bar);

	pthread_mutex_lock(&drive->irq_mutex);
	irq->thread = thread_current();
	if (irq->vector < SOFT_MAX_QUEUES && drive->irq_pending[irq->vector]) {
		drive->irq_pending[irq->vector] = false;
		thread_send(irq->thread, woken, NULL);
	}
	for (unsigned i = 0; i < SOFT_MAX_IRQS && !irq->armed; i++) {
		if (drive->irqs[i])
			continue;
		drive->irqs[i] = irq;
		irq->armed = true;
	}
	pthread_mutex_unlock(&drive->irq_mutex);
}

static fiber_fn void soft_irq_release(struct nvme_bar *bar, struct nvme_irq *irq)
{
	struct soft_drive *drive = drive_of(bar);

	pthread_mutex_lock(&drive->irq_mutex);
	for (unsigned i = 0; i < SOFT_MAX_IRQS; i++) {
		if (drive->irqs[i] == irq)
			drive->irqs[i] = NULL;
	}
	irq->armed = false;
	pthread_mutex_unlock(&drive->irq_mutex);
}

static uint8_t *soft_map_memory(struct nvme_bar *bar, unsigned bir, uint64_t offset, uint64_t len, uint64_t *ret_bus_addr)
{
	struct soft_drive *drive = drive_of(bar);

	if (bir != 2 || offset != 8192 || len > drive->opts.cmb_bytes)
		soft_host_error(drive, "BAR %u at %llu for the controller memory buffer", bir, (unsigned long long)offset);
	*ret_bus_addr = drive->opts.cmb_far ? 0 : SOFT_CMB_BUS_ADDR;
	return drive->cmb;
}

/* --- plugging ----------------------------------------------------------------------------------- */

/* A function level reset: all of it is off, and it may be enabled again. */
static fiber_fn int soft_stop(struct nvme_bar *bar)
{
	struct soft_drive *drive = drive_of(bar);

	if (__atomic_load_n(&drive->gone, __ATOMIC_ACQUIRE))
		return 0;
	drive->counters.nr_stops++;
	soft_reset(drive);
	__atomic_store_n(&drive->cc_asked, 0, __ATOMIC_RELEASE);
	drive->cc = 0;
	set_csts(drive, 0);
	drive->aqa = 0;
	drive->asq = drive->acq = drive->cmbmsc = 0;
	return 0;
}

static void soft_close(struct nvme_bar *bar)
{
	struct soft_drive *drive = drive_of(bar);

	soft_reset(drive);
	drive->plugged = false;
}

static const struct nvme_bar_ops soft_bar_ops = {
	.read32 = soft_read32,
	.read64 = soft_read64,
	.write32 = soft_write32,
	.write64 = soft_write64,
	.dma_addr = soft_dma_addr,
	.map_memory = soft_map_memory,
	.irq_arm = soft_irq_arm,
	.irq_release = soft_irq_release,
	.stop = soft_stop,
	.close = soft_close,
};

struct nvme_bar *soft_plug(struct soft_drive *drive, const char *name)
{
	assert(!drive->plugged && thread_current() == drive->thread);
	soft_reset(drive);
	drive->cc = drive->cc_asked = drive->csts = drive->aqa = 0;
	drive->asq = drive->acq = 0;
	drive->cmbmsc = drive->opts.cmb_left ? SOFT_CMB_BUS_ADDR | NVME_CMBMSC_CRE | NVME_CMBMSC_CMSE : 0;
	drive->stuck = drive->gone = false;
	memset(drive->irqs, 0, sizeof(drive->irqs));
	memset(drive->irq_pending, 0, sizeof(drive->irq_pending));
	drive->bar = (struct nvme_bar){
		.ops = &soft_bar_ops,
		.size = SOFT_BAR_SIZE,
		.nr_vectors = drive->opts.no_irq ? 0 : drive->opts.nr_io_queues + 1,
	};
	snprintf(drive->bar.name, sizeof(drive->bar.name), "%s", name);
	drive->plugged = true;
	return &drive->bar;
}

static void tell_removed(void *arg)
{
	struct soft_drive *drive = arg;

	if (drive->plugged && drive->bar.on_removed)
		drive->bar.on_removed(&drive->bar, drive->bar.on_removed_arg);
	__atomic_fetch_sub(&drive->nr_kicks, 1, __ATOMIC_RELEASE);
}

void soft_pull(struct soft_drive *drive)
{
	assert(thread_current() == drive->thread);
	__atomic_store_n(&drive->gone, true, __ATOMIC_RELEASE);
	soft_reset(drive);
}

void soft_unplug(struct soft_drive *drive)
{
	if (!drive->plugged || drive->gone)
		return;
	soft_pull(drive);
	__atomic_store_n(&drive->bar.removed, true, __ATOMIC_RELEASE);
	__atomic_fetch_add(&drive->nr_kicks, 1, __ATOMIC_RELAXED);
	thread_send(runtime_app_thread(), tell_removed, drive);
}

void soft_ask_back(struct soft_drive *drive)
{
	assert(thread_current() == drive->thread && drive->plugged && !drive->gone);
	__atomic_fetch_add(&drive->nr_kicks, 1, __ATOMIC_RELAXED);
	thread_send(runtime_app_thread(), tell_removed, drive);
}

void soft_power_cut(struct soft_drive *drive)
{
	uint32_t bs = drive->opts.block_size;

	for (uint32_t nsid = 1; nsid <= SOFT_MAX_NS; nsid++) {
		struct soft_ns *ns = &drive->ns[nsid];

		for (uint64_t i = 0; i < ns->nr_blocks; i++) {
			if (!ns->dirty[i])
				continue;
			if (rand_u64() & 1)
				memcpy(ns->durable + i * bs, ns->data + i * bs, bs);
			else
				memcpy(ns->data + i * bs, ns->durable + i * bs, bs);
			ns->dirty[i] = 0;
		}
	}
	soft_reset(drive);
	__atomic_store_n(&drive->cc_asked, 0, __ATOMIC_RELEASE);
	drive->cc = 0;
	set_csts(drive, 0);
}

void soft_stick(struct soft_drive *drive, bool stuck)
{
	drive->stuck = stuck;
}

void soft_set_reach(struct soft_drive *drive, bool reaches)
{
	drive->out_of_reach = !reaches;
}

void soft_set_fatal(struct soft_drive *drive)
{
	set_csts(drive, drive->csts | NVME_CSTS_CFS);
	drive->silent = true;
}

/* --- making and asking -------------------------------------------------------------------------- */

int soft_ns_set(struct soft_drive *drive, uint32_t nsid, uint64_t nr_blocks)
{
	struct soft_ns *ns = &drive->ns[nsid];
	uint32_t bs = drive->opts.block_size;

	if (nr_blocks > ns->size_blocks) {
		struct soft_ns bigger = {
			.data = calloc(nr_blocks, bs),
			.durable = calloc(nr_blocks, bs),
			.dirty = calloc(nr_blocks, 1),
			.size_blocks = nr_blocks,
		};

		if (!bigger.data || !bigger.durable || !bigger.dirty) {
			free(bigger.data);
			free(bigger.durable);
			free(bigger.dirty);
			return -ENOMEM;
		}
		if (ns->data) {
			memcpy(bigger.data, ns->data, ns->size_blocks * bs);
			memcpy(bigger.durable, ns->durable, ns->size_blocks * bs);
			memcpy(bigger.dirty, ns->dirty, ns->size_blocks);
		}
		free(ns->data);
		free(ns->durable);
		free(ns->dirty);
		*ns = bigger;
	}
	ns->nr_blocks = nr_blocks;
	for (unsigned i = 0; i < SOFT_MAX_NS; i++) {
		if (!drive->changed[i] || drive->changed[i] == nsid) {
			drive->changed[i] = nsid;
			break;
		}
	}
	if (!drive->ns_event_masked && (drive->features[NVME_FID_ASYNC_EVENT] & NVME_AEC_NS_ATTR)) {
		drive->ns_event_masked = true;
		soft_event(drive, NVME_AER_RESULT(NVME_AER_NOTICE, NVME_AER_NOTICE_NS_ATTR, NVME_LID_CHANGED_NS));
	}
	return 0;
}

void soft_warn(struct soft_drive *drive, uint8_t critical_warning)
{
	uint8_t more = critical_warning & ~drive->critical_warning & drive->features[NVME_FID_ASYNC_EVENT];

	drive->critical_warning = critical_warning;
	if (!more || drive->smart_event_masked)
		return;
	drive->smart_event_masked = true;
	soft_event(drive, NVME_AER_RESULT(NVME_AER_SMART, NVME_AER_SMART_TEMPERATURE, NVME_LID_SMART));
}

void soft_ana_set(struct soft_drive *drive, enum nvme_ana_state state)
{
	drive->ana_state = state;
	drive->ana_changes++;
	if (drive->ana_event_masked || !(drive->features[NVME_FID_ASYNC_EVENT] & NVME_AEC_ANA))
		return;
	drive->ana_event_masked = true;
	soft_event(drive, NVME_AER_RESULT(NVME_AER_NOTICE, NVME_AER_NOTICE_ANA, NVME_LID_ANA));
}

uint8_t *soft_ns_data(struct soft_drive *drive, uint32_t nsid)
{
	return nsid <= SOFT_MAX_NS ? drive->ns[nsid].data : NULL;
}

int soft_create(const struct soft_opts *opts, struct soft_drive **ret_drive)
{
	struct soft_drive *drive = calloc(1, sizeof(*drive));
	int rc;

	if (!drive)
		return -ENOMEM;
	drive->opts = *opts;
	drive->thread = thread_current();
	if (!drive->opts.serial)
		drive->opts.serial = "SOFT0001";
	if (!drive->opts.block_size)
		drive->opts.block_size = 512;
	if (!drive->opts.mdts)
		drive->opts.mdts = DEFAULT_MDTS;
	if (!drive->opts.max_entries)
		drive->opts.max_entries = DEFAULT_ENTRIES;
	if (!drive->opts.nr_io_queues)
		drive->opts.nr_io_queues = SOFT_MAX_QUEUES - 1;
	drive->ana_state = NVME_ANA_OPTIMIZED;
	list_init(&drive->commands);
	pthread_mutex_init(&drive->irq_mutex, NULL);
	rc = soft_ns_set(drive, 1, opts->nr_blocks ? opts->nr_blocks : DEFAULT_BLOCKS);
	drive->changed[0] = 0;
	if (opts->cmb_bytes && !(drive->cmb = aligned_alloc(SOFT_PAGE, opts->cmb_bytes)))
		rc = -ENOMEM;
	if (rc)
		soft_destroy(drive);
	else
		*ret_drive = drive;
	return rc;
}

int soft_cut_copy(struct soft_drive *drive, struct soft_drive **ret_drive)
{
	size_t bs = drive->opts.block_size;
	struct soft_drive *copy;
	int rc;

	rc = soft_create(&drive->opts, &copy);
	for (uint32_t nsid = 1; nsid <= SOFT_MAX_NS && !rc; nsid++) {
		const struct soft_ns *from = &drive->ns[nsid];

		rc = soft_ns_set(copy, nsid, from->nr_blocks);
		if (rc || !from->nr_blocks)
			continue;
		memcpy(copy->ns[nsid].data, from->data, from->nr_blocks * bs);
		memcpy(copy->ns[nsid].durable, from->durable, from->nr_blocks * bs);
		memcpy(copy->ns[nsid].dirty, from->dirty, from->nr_blocks);
	}
	if (rc) {
		soft_destroy(copy);
		return rc;
	}
	soft_power_cut(copy);
	*ret_drive = copy;
	return 0;
}

static void destroy_later(void *arg)
{
	soft_destroy(arg);
}

void soft_destroy(struct soft_drive *drive)
{
	if (!drive)
		return;
	assert(!drive->plugged);
	if (__atomic_load_n(&drive->nr_kicks, __ATOMIC_ACQUIRE)) {
		thread_send(drive->thread, destroy_later, drive);
		return;
	}
	for (unsigned i = 0; i <= SOFT_MAX_NS; i++) {
		free(drive->ns[i].data);
		free(drive->ns[i].durable);
		free(drive->ns[i].dirty);
	}
	pthread_mutex_destroy(&drive->irq_mutex);
	free(drive->cmb);
	free(drive);
}

void soft_get_counters(const struct soft_drive *drive, struct soft_counters *ret_counters)
{
	*ret_counters = drive->counters;
	ret_counters->nr_doorbells = __atomic_load_n(&drive->nr_doorbell_writes, __ATOMIC_RELAXED);
}

unsigned soft_host_errors(const struct soft_drive *drive)
{
	return drive->nr_host_errors;
}

const char *soft_last_host_error(const struct soft_drive *drive)
{
	return drive->last_error;
}

unsigned soft_nr_in_flight(const struct soft_drive *drive)
{
	const struct list *it;
	unsigned nr = 0;

	list_for_each(it, &drive->commands)
		nr++;
	return nr;
}
