/* Reading the discovery log page so that what is read is one state of it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nvme/internal.h"

#define MAX_ENTRIES 4096u
#define MAX_TRIES   10

void nvme_copy_field(char *dst, size_t dst_size, const char *field, size_t field_len)
{
	size_t len = strnlen(field, field_len);

	while (len && field[len - 1] == ' ')
		len--;
	if (len > dst_size - 1)
		len = dst_size - 1;
	for (size_t i = 0; i < len; i++)
		dst[i] = (unsigned char)field[i] < 0x20 || (unsigned char)field[i] >= 0x7f ? '?' : field[i];
	dst[len] = 0;
}

/* One try: header, entries, header again.  -EAGAIN: it changed under way. */
static fiber_fn int read_once(struct nvme_ctrlr *ctrlr, struct nvme_discovery_log **ret_log)
{
	struct nvme_discovery_log head, *log;
	size_t len;
	int rc;

	rc = nvme_get_log(ctrlr, NVME_LID_DISCOVERY, NVME_LOG_RAE, 0, 0, &head, sizeof(head));
	if (rc)
		return rc;
	if (head.recfmt || head.numrec > MAX_ENTRIES)
		return -EPROTO;
	len = sizeof(*log) + head.numrec * sizeof(log->entries[0]);
	log = malloc(len);
	if (!log)
		return -ENOMEM;
	*log = head;
	rc = 0;
	if (head.numrec)
		rc = nvme_get_log(ctrlr, NVME_LID_DISCOVERY, NVME_LOG_RAE, 0, sizeof(*log), log->entries,
				  (uint32_t)(len - sizeof(*log)));
	if (!rc)
		rc = nvme_get_log(ctrlr, NVME_LID_DISCOVERY, 0, 0, 0, &head, sizeof(head));
	if (!rc && (head.genctr != log->genctr || head.numrec != log->numrec))
		rc = -EAGAIN;
	if (rc) {
		free(log);
		return rc;
	}
	*ret_log = log;
	return 0;
}

fiber_fn int nvme_discover(struct nvme_ctrlr *ctrlr, struct nvme_discovery_log **ret_log)
{
	int rc = -EAGAIN;

	for (int i = 0; i < MAX_TRIES && rc == -EAGAIN; i++)
		rc = read_once(ctrlr, ret_log);
	return rc;
}
