/*
 * Log pages, features, and asynchronous events.
 *
 * Source: NVM Express Base 2.0, 5.2 (events), 5.16 (log pages), 5.27 (features).
 */
#ifndef NVME_LOG_PAGE_H
#define NVME_LOG_PAGE_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

enum nvme_lid {
	NVME_LID_SUPPORTED = 0x00,
	NVME_LID_ERROR = 0x01,
	NVME_LID_SMART = 0x02,
	NVME_LID_FIRMWARE_SLOT = 0x03,
	NVME_LID_CHANGED_NS = 0x04, /* struct nvme_ns_list */
	NVME_LID_EFFECTS = 0x05,
	NVME_LID_SELF_TEST = 0x06,
	NVME_LID_ANA = 0x0c,
	NVME_LID_FEATURE_EFFECTS = 0x12,
	NVME_LID_DISCOVERY = 0x70,
	NVME_LID_RESERVATION = 0x80,
};

/* 00h */
struct nvme_log_supported {
	uint32_t page[256];
};

#define NVME_LOG_SUPP_LSUPP 0x1u
#define NVME_LOG_SUPP_IOS   0x2u /* takes an index as its offset */

static_assert(sizeof(struct nvme_log_supported) == 1024, "supported log pages");

/* 01h: one entry */
struct nvme_log_error {
	uint64_t error_count; /* 0: no entry */
	uint16_t sqid;
	uint16_t cid;
	uint16_t status_field;
	uint16_t param_location; /* byte in bits 7:0, bit in 10:8 */
	uint64_t lba;
	uint32_t nsid;
	uint8_t vs;
	uint8_t trtype;
	uint8_t rsvd30[2];
	uint64_t specific;
	uint16_t trtype_specific;
	uint8_t rsvd42[22];
};

static_assert(sizeof(struct nvme_log_error) == 64, "error log entry");
static_assert(offsetof(struct nvme_log_error, lba) == 16, "LBA");
static_assert(offsetof(struct nvme_log_error, specific) == 32, "command specific");

/* 02h; 16-byte counters are little endian */
struct nvme_log_smart {
	uint8_t critical_warning;
	uint8_t temperature_k[2]; /* little endian, not aligned */
	uint8_t avail_spare, spare_threshold, percent_used;
	uint8_t endurance_group_warning;
	uint8_t rsvd7[25];
	uint64_t data_units_read[2], data_units_written[2]; /* in 1000 * 512 bytes, rounded up */
	uint64_t host_reads[2], host_writes[2];
	uint64_t busy_minutes[2];
	uint64_t power_cycles[2];
	uint64_t power_on_hours[2];
	uint64_t unsafe_shutdowns[2];
	uint64_t media_errors[2];
	uint64_t nr_error_entries[2];
	uint32_t warning_temp_minutes, critical_temp_minutes;
	uint16_t sensor_k[8];
	uint32_t tmt_count[2], tmt_seconds[2];
	uint8_t rsvd232[280];
};

static_assert(sizeof(struct nvme_log_smart) == 512, "SMART log");
static_assert(offsetof(struct nvme_log_smart, data_units_read) == 32, "data units read");
static_assert(offsetof(struct nvme_log_smart, sensor_k) == 200, "temperature sensors");

/* critical_warning */
#define NVME_SMART_SPARE       0x01u
#define NVME_SMART_TEMPERATURE 0x02u
#define NVME_SMART_RELIABILITY 0x04u
#define NVME_SMART_READ_ONLY   0x08u

/* 03h */
struct nvme_log_firmware_slot {
	uint8_t afi;
	uint8_t rsvd[7];
	char frs[7][8];
	uint8_t rsvd64[448];
};

static_assert(sizeof(struct nvme_log_firmware_slot) == 512, "firmware slot log");

/* 05h */
struct nvme_log_effects {
	uint32_t admin[256];
	uint32_t io[256];
	uint8_t rsvd[2048];
};

static_assert(sizeof(struct nvme_log_effects) == 4096, "commands supported and effects");

#define NVME_EFFECTS_CSUPP     (1u << 0)
#define NVME_EFFECTS_LBCC      (1u << 1) /* changes logical block contents */
#define NVME_EFFECTS_NCC       (1u << 2)
#define NVME_EFFECTS_NIC       (1u << 3)
#define NVME_EFFECTS_CCC       (1u << 4)
#define NVME_EFFECTS_CSP_NS    (1u << 20) /* scope: namespace */
#define NVME_EFFECTS_CSP_CTRLR (1u << 21) /* scope: controller */

/* 12h */
struct nvme_log_feature_effects {
	uint32_t feature[256];
};

static_assert(sizeof(struct nvme_log_feature_effects) == 1024, "feature identifiers supported and effects");

#define NVME_FEATURE_EFFECTS_FSUPP       (1u << 0)
#define NVME_FEATURE_EFFECTS_UDCC        (1u << 1)
#define NVME_FEATURE_EFFECTS_NCC         (1u << 2)
#define NVME_FEATURE_EFFECTS_NIC         (1u << 3)
#define NVME_FEATURE_EFFECTS_CCC         (1u << 4)
#define NVME_FEATURE_EFFECTS_SCOPE_NS    (1u << 20)
#define NVME_FEATURE_EFFECTS_SCOPE_CTRLR (1u << 21)

/* 0Ch: a head, and groups one after the other, each with its namespaces behind it */
struct nvme_log_ana {
	uint64_t change_count;
	uint16_t nr_groups;
	uint8_t rsvd10[6];
};

static_assert(sizeof(struct nvme_log_ana) == 16, "ANA log");

struct nvme_ana_group {
	uint32_t grpid;
	uint32_t nr_nsids;
	uint64_t change_count;
	uint8_t state; /* four bits */
	uint8_t rsvd17[15];
	uint32_t nsids[];
};

static_assert(sizeof(struct nvme_ana_group) == 32, "ANA group descriptor");

enum nvme_ana_state {
	NVME_ANA_OPTIMIZED = 1,
	NVME_ANA_NON_OPTIMIZED = 2,
	NVME_ANA_INACCESSIBLE = 3,
	NVME_ANA_PERSISTENT_LOSS = 4,
	NVME_ANA_CHANGE = 15,
};

/* --- features (Base 2.0, 5.27.1) -------------------------------------------------------------- */

enum nvme_fid {
	NVME_FID_ARBITRATION = 0x01,
	NVME_FID_POWER = 0x02,
	NVME_FID_LBA_RANGE = 0x03,	   /* 4096 bytes of data */
	NVME_FID_TEMPERATURE_THRESHOLD = 0x04,
	NVME_FID_ERROR_RECOVERY = 0x05,
	NVME_FID_VWC = 0x06,
	NVME_FID_NR_QUEUES = 0x07,
	NVME_FID_INTERRUPT_COALESCING = 0x08,
	NVME_FID_INTERRUPT_VECTOR = 0x09,
	NVME_FID_WRITE_ATOMICITY = 0x0a,
	NVME_FID_ASYNC_EVENT = 0x0b,
	NVME_FID_POWER_TRANSITIONS = 0x0c, /* 256 bytes */
	NVME_FID_HOST_MEMORY = 0x0d,	   /* Get: 4096 bytes; Set: none */
	NVME_FID_TIMESTAMP = 0x0e,	   /* 8 bytes */
	NVME_FID_KEEP_ALIVE = 0x0f,
	NVME_FID_HOST_BEHAVIOR = 0x16, /* 512 bytes of data */
	NVME_FID_HOST_ID = 0x81,       /* 16 bytes of data with EXHID (cdw11 bit 0), else 8 */
	NVME_FID_RESERVATION_MASK = 0x82,
	NVME_FID_RESERVATION_PERSISTENCE = 0x83,
};

enum nvme_feature_sel {
	NVME_FEATURE_SEL_CURRENT = 0,
	NVME_FEATURE_SEL_DEFAULT = 1,
	NVME_FEATURE_SEL_SAVED = 2,
	NVME_FEATURE_SEL_SUPPORTED = 3,
};

/* dw0 of Get Features with SEL 3 */
#define NVME_FEATURE_CAP_SAVEABLE    0x1u
#define NVME_FEATURE_CAP_NS_SPECIFIC 0x2u
#define NVME_FEATURE_CAP_CHANGEABLE  0x4u

struct nvme_host_behavior {
	uint8_t acre;
	uint8_t etdas;
	uint8_t lbafee;
	uint8_t rsvd[509];
};

static_assert(sizeof(struct nvme_host_behavior) == 512, "host behavior support");

/* --- asynchronous events (Base 2.0, 5.2.1) ---------------------------------------------------- */

/* dw0 of the completion */
#define NVME_AER_RESULT(type, info, lid) ((uint32_t)(type) | (uint32_t)(info) << 8 | (uint32_t)(lid) << 16)
#define NVME_AER_TYPE(dw0)               ((dw0)&0x7)
#define NVME_AER_INFO(dw0)               (((dw0) >> 8) & 0xff)
#define NVME_AER_LID(dw0)                (((dw0) >> 16) & 0xff)

enum nvme_aer_type {
	NVME_AER_ERROR = 0,
	NVME_AER_SMART = 1,
	NVME_AER_NOTICE = 2,
	NVME_AER_IO = 6,
};

enum nvme_aer_smart {
	NVME_AER_SMART_RELIABILITY = 0x00,
	NVME_AER_SMART_TEMPERATURE = 0x01,
	NVME_AER_SMART_SPARE = 0x02,
};

enum nvme_aer_notice {
	NVME_AER_NOTICE_NS_ATTR = 0x00,
	NVME_AER_NOTICE_ANA = 0x03,
	NVME_AER_NOTICE_DISCOVERY = 0xf0,
};

/* cdw11 of feature 0Bh; the same bits as OAES above bit 7, SMART's critical warnings below */
#define NVME_AEC_SMART_MASK 0xffu
#define NVME_AEC_NS_ATTR    (1u << 8)
#define NVME_AEC_ANA        (1u << 11)
#define NVME_AEC_DISCOVERY  (1u << 31)

#endif
