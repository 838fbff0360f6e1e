/*
 * What a controller tells of itself by asynchronous events: errors, and its health.  The controller holds back further events of the
 * kind until the event's log page has been read; what that says goes to the log and to whoever listens.
 */
#include <stdio.h>
#include <string.h>

#include "bdev/nvme_internal.h"

#define TELL_AGAIN_US 60000000ull /* the same, of a controller that says nothing else */

static void (*listener)(const struct bdev_nvme_event *event);

void bdev_nvme_listen(void (*fn)(const struct bdev_nvme_event *event))
{
	listener = fn;
}

void bdev_nvme_event_came(struct bdev_nvme_path *path, uint32_t dw0)
{
	for (unsigned i = 0; i < path->nr_events; i++) {
		if (path->events[i] == dw0)
			return;
	}
	if (path->nr_events < BDEV_NVME_MAX_EVENTS)
		path->events[path->nr_events++] = dw0;
}

/* Source: NVM Express Base 2.0, 5.16.1.3, critical warnings. */
static void warning_text(const struct nvme_log_smart *smart, char *text, size_t size)
{
	static const char *const bits[] = {
		"its spare blocks are running out",  "its temperature is out of bounds", "it is less reliable after errors of its medium",
		"it has become read-only",	     "its volatile memory's backup has failed", "its persistent memory is read-only",
	};
	size_t len = 0;

	*text = '\0';
	for (unsigned i = 0; i < sizeof(bits) / sizeof(bits[0]) && len < size; i++) {
		if (smart->critical_warning & 1u << i)
			len += (size_t)snprintf(text + len, size - len, "%s%s", len ? ", " : "", bits[i]);
	}
	if (!len)
		snprintf(text, size, "its warnings are over");
}

/* Each state of its warnings once, and again after a while; likewise errors and the rest, so that a mad drive floods nobody. */
static bool is_news(struct bdev_nvme_path *path, const struct bdev_nvme_event *event)
{
	uint64_t now_us = clock_now_us(), *told_us = &path->told_us[event->type];
	bool changed = event->smart && event->smart->critical_warning != path->told_warning;

	if (!changed && *told_us && now_us - *told_us < TELL_AGAIN_US)
		return false;
	*told_us = now_us;
	if (event->smart)
		path->told_warning = event->smart->critical_warning;
	return true;
}

static void tell(struct bdev_nvme_path *path, struct bdev_nvme_event *event, const char *text)
{
	if (!is_news(path, event))
		return;
	log_warning("%s: path %u: %s", path->ctrlr->name, path->idx, text);
	event->ctrlr = path->ctrlr->name;
	event->address = path->opts.connect.trtype == NVME_TRTYPE_PCIE ? path->opts.address : path->opts.connect.addr.host;
	event->text = text;
	if (listener)
		listener(event);
}

/* Reads the page, so that the next event comes, and says what is in it. */
static fiber_fn void read_page(struct bdev_nvme_path *path, uint32_t dw0)
{
	struct bdev_nvme_event event = { .type = NVME_AER_TYPE(dw0), .info = NVME_AER_INFO(dw0), .lid = NVME_AER_LID(dw0) };
	union {
		struct nvme_log_smart smart;
		struct nvme_log_error error;
		uint8_t bytes[512];
	} page = { 0 };
	uint32_t len = event.lid == NVME_LID_ERROR ? sizeof(page.error) : sizeof(page);
	char text[320];
	int rc = nvme_get_log(path->nvme, event.lid, 0, NVME_NSID_ALL, 0, &page, len);

	if (!rc && event.lid == NVME_LID_SMART) {
		event.smart = &page.smart;
		warning_text(&page.smart, text, sizeof(text));
	} else if (!rc && event.lid == NVME_LID_ERROR) {
		event.error = &page.error;
		snprintf(text, sizeof(text), "it reports an error (%02xh): number %llu, queue %u, command %04xh, %s, block %llu of namespace %u",
			 event.info, (unsigned long long)page.error.error_count, page.error.sqid, page.error.cid,
			 nvme_status_name(page.error.status_field >> 1), (unsigned long long)page.error.lba, page.error.nsid);
	} else {
		snprintf(text, sizeof(text), "it reports an event: type %u, information %02xh, log page %02xh%s", event.type, event.info,
			 event.lid, rc ? ", which cannot be read" : "");
	}
	tell(path, &event, text);
}

fiber_fn void bdev_nvme_read_events(struct bdev_nvme_path *path)
{
	while (path->nr_events && !path->failed && !path->removed) {
		uint32_t dw0 = path->events[0];

		path->nr_events--;
		memmove(path->events, path->events + 1, path->nr_events * sizeof(path->events[0]));
		read_page(path, dw0);
	}
}
