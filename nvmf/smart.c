/*
 * Log page 02h: the subsystem's counters, summed over the groups, and the temperature of the hottest drive of
 * the pool.  The app thread, which may look at every bdev, fills it in.
 */
#include "nvmf/internal.h"

int nvmf_pool_temperature_k(void)
{
	int hottest_k = 0;

	for (struct bdev *bdev = bdev_first(); bdev; bdev = bdev_next(bdev)) {
		int k = bdev->ops->temperature_k ? bdev->ops->temperature_k(bdev) : 0;

		if (k > hottest_k)
			hottest_k = k;
	}
	return hottest_k;
}

bool nvmf_temperature_is_bad(int temperature_k, uint32_t over_k, uint32_t under_k)
{
	return temperature_k && ((uint32_t)temperature_k >= over_k || (uint32_t)temperature_k <= under_k);
}

/* The event is about crossing a threshold, not about being beyond it. */
void nvmf_temperature_check(struct nvmf_ctrlr *ctrlr)
{
	int temperature_k =
		atomic_load_explicit(&ctrlr->subsystem->target->temperature_k, memory_order_relaxed);
	bool bad =
		nvmf_temperature_is_bad(temperature_k, ctrlr->temperature_over_k, ctrlr->temperature_under_k);

	if (bad && !ctrlr->too_warm)
		nvmf_aer_raise(ctrlr, NVMF_EVENT_TEMPERATURE);
	ctrlr->too_warm = bad;
}

static struct nvmf_counters sum_counters(const struct nvmf_subsystem *sub)
{
	struct nvmf_counters sum = { 0 };

	for (unsigned i = 0; i < sub->target->nr_groups; i++) {
		const struct nvmf_counters *part = &sub->gsubs[i]->counters;

		sum.nr_reads += nvmf_counter_read(&part->nr_reads);
		sum.nr_writes += nvmf_counter_read(&part->nr_writes);
		sum.blocks512_read += nvmf_counter_read(&part->blocks512_read);
		sum.blocks512_written += nvmf_counter_read(&part->blocks512_written);
		sum.media_errors += nvmf_counter_read(&part->media_errors);
		sum.busy_ticks += nvmf_counter_read(&part->busy_ticks);
		sum.unsafe_shutdowns += nvmf_counter_read(&part->unsafe_shutdowns);
	}
	return sum;
}

static void smart_done(void *arg)
{
	nvmf_req_complete(arg, NVME_SC_SUCCESS);
}

static void smart_collect(void *arg)
{
	struct nvmf_req *req = arg;
	struct nvmf_ctrlr *ctrlr = req->qpair->ctrlr;
	struct nvmf_subsystem *sub = ctrlr->subsystem;
	struct nvmf_counters sum = sum_counters(sub);
	int temperature_k = nvmf_pool_temperature_k();
	struct nvme_log_smart log = {
		.avail_spare = 100,
		.spare_threshold = 10,
		.data_units_read = { (sum.blocks512_read + 999) / 1000 },
		.data_units_written = { (sum.blocks512_written + 999) / 1000 },
		.host_reads = { sum.nr_reads },
		.host_writes = { sum.nr_writes },
		.busy_minutes = { sum.busy_ticks / clock_tick_rate() / 60 },
		.power_cycles = { 1 },
		.power_on_hours = { (clock_now_us() - sub->target->start_us) / 3600000000ull },
		.unsafe_shutdowns = { sum.unsafe_shutdowns },
		.media_errors = { sum.media_errors },
		.nr_error_entries = { (uintptr_t)req->priv },
	};

	log.temperature_k[0] = (uint8_t)temperature_k;
	log.temperature_k[1] = (uint8_t)(temperature_k >> 8);
	if (nvmf_temperature_is_bad(temperature_k, req->step, (uint32_t)req->step_blocks))
		log.critical_warning |= NVMF_SMART_TEMPERATURE;
	nvmf_log_put(req, 0, &log, sizeof(log));
	thread_send(ctrlr->group->thread, smart_done, req);
}

void nvmf_log_page_smart(struct nvmf_req *req)
{
	struct nvmf_ctrlr *ctrlr = req->qpair->ctrlr;

	/* What belongs to the controller's thread is taken along. */
	req->priv = (void *)(uintptr_t)ctrlr->error_count;
	req->step = ctrlr->temperature_over_k;
	req->step_blocks = ctrlr->temperature_under_k;
	thread_send(runtime_app_thread(), smart_collect, req);
}
