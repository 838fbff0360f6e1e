/*
 * NVMe status codes, in one encoding: status code type << 8 | status code, as the status field without its
 * phase bit.
 *
 * Source: NVM Express Base 2.0, 3.3.3.2.1 "Status Field Definition" and 6 (fabrics); NVM Command
 * Set 1.0, 3.1.
 */
#ifndef NVME_STATUS_H
#define NVME_STATUS_H

#include <stdbool.h>
#include <stdint.h>

/* Bits above the code.  A status travels as the CQE's status field shifted right by one: see
 * nvme_cqe_status(). */
#define NVME_SC_MASK      0x07ffu /* SCT and SC */
#define NVME_SC_CRD_SHIFT 11
#define NVME_SC_MORE      0x2000u
#define NVME_SC_DNR       0x4000u /* do not retry */

/* name, value, text of nvme_status_name() */
#define NVME_STATUS_LIST(X)                                                                               \
	/* generic, SCT 0 */                                                                              \
	X(SUCCESS, 0x000, "Success")                                                                      \
	X(INVALID_OPCODE, 0x001, "Invalid Command Opcode")                                                \
	X(INVALID_FIELD, 0x002, "Invalid Field in Command")                                               \
	X(CMD_ID_CONFLICT, 0x003, "Command ID Conflict")                                                  \
	X(DATA_TRANSFER_ERROR, 0x004, "Data Transfer Error")                                              \
	X(ABORTED_POWER_LOSS, 0x005, "Commands Aborted due to Power Loss Notification")                   \
	X(INTERNAL_ERROR, 0x006, "Internal Error")                                                        \
	X(ABORT_REQUESTED, 0x007, "Command Abort Requested")                                              \
	X(ABORTED_SQ_DELETION, 0x008, "Command Aborted due to SQ Deletion")                               \
	X(ABORTED_FAILED_FUSED, 0x009, "Command Aborted due to Failed Fused Command")                     \
	X(ABORTED_MISSING_FUSED, 0x00a, "Command Aborted due to Missing Fused Command")                   \
	X(INVALID_NS, 0x00b, "Invalid Namespace or Format")                                               \
	X(CMD_SEQUENCE_ERROR, 0x00c, "Command Sequence Error")                                            \
	X(INVALID_SGL_SEGMENT, 0x00d, "Invalid SGL Segment Descriptor")                                   \
	X(INVALID_SGL_COUNT, 0x00e, "Invalid Number of SGL Descriptors")                                  \
	X(SGL_LENGTH_INVALID, 0x00f, "Data SGL Length Invalid")                                           \
	X(METADATA_SGL_LENGTH_INVALID, 0x010, "Metadata SGL Length Invalid")                              \
	X(SGL_TYPE_INVALID, 0x011, "SGL Descriptor Type Invalid")                                         \
	X(CMB_INVALID, 0x012, "Invalid Use of Controller Memory Buffer")                                  \
	X(PRP_OFFSET_INVALID, 0x013, "PRP Offset Invalid")                                                \
	X(ATOMIC_UNIT_EXCEEDED, 0x014, "Atomic Write Unit Exceeded")                                      \
	X(OPERATION_DENIED, 0x015, "Operation Denied")                                                    \
	X(SGL_OFFSET_INVALID, 0x016, "SGL Offset Invalid")                                                \
	X(HOST_ID_INCONSISTENT, 0x018, "Host Identifier Inconsistent Format")                             \
	X(KEEP_ALIVE_EXPIRED, 0x019, "Keep Alive Timer Expired")                                          \
	X(KEEP_ALIVE_INVALID, 0x01a, "Keep Alive Timeout Invalid")                                        \
	X(ABORTED_PREEMPT, 0x01b, "Command Aborted due to Preempt and Abort")                             \
	X(SANITIZE_FAILED, 0x01c, "Sanitize Failed")                                                      \
	X(SANITIZE_IN_PROGRESS, 0x01d, "Sanitize In Progress")                                            \
	X(SGL_GRANULARITY_INVALID, 0x01e, "SGL Data Block Granularity Invalid")                           \
	X(NS_WRITE_PROTECTED, 0x020, "Namespace is Write Protected")                                      \
	X(COMMAND_INTERRUPTED, 0x021, "Command Interrupted")                                              \
	X(TRANSIENT_TRANSPORT_ERROR, 0x022, "Transient Transport Error")                                  \
	X(PROHIBITED_BY_LOCKDOWN, 0x023, "Command Prohibited by Command and Feature Lockdown")            \
	X(ADMIN_MEDIA_NOT_READY, 0x024, "Admin Command Media Not Ready")                                  \
	X(LBA_OUT_OF_RANGE, 0x080, "LBA Out of Range")                                                    \
	X(CAPACITY_EXCEEDED, 0x081, "Capacity Exceeded")                                                  \
	X(NS_NOT_READY, 0x082, "Namespace Not Ready")                                                     \
	X(RESERVATION_CONFLICT, 0x083, "Reservation Conflict")                                            \
	X(FORMAT_IN_PROGRESS, 0x084, "Format In Progress")                                                \
	/* command specific, SCT 1 */                                                                     \
	X(CQ_INVALID, 0x100, "Completion Queue Invalid")                                                  \
	X(INVALID_QID, 0x101, "Invalid Queue Identifier")                                                 \
	X(INVALID_QUEUE_SIZE, 0x102, "Invalid Queue Size")                                                \
	X(ABORT_LIMIT, 0x103, "Abort Command Limit Exceeded")                                             \
	X(AER_LIMIT, 0x105, "Asynchronous Event Request Limit Exceeded")                                  \
	X(INVALID_FIRMWARE_SLOT, 0x106, "Invalid Firmware Slot")                                          \
	X(INVALID_FIRMWARE_IMAGE, 0x107, "Invalid Firmware Image")                                        \
	X(INVALID_LOG_PAGE, 0x109, "Invalid Log Page")                                                    \
	X(INVALID_FORMAT, 0x10a, "Invalid Format")                                                        \
	X(FEATURE_NOT_SAVEABLE, 0x10d, "Feature Identifier Not Saveable")                                 \
	X(FEATURE_NOT_CHANGEABLE, 0x10e, "Feature Not Changeable")                                        \
	X(FEATURE_NOT_NS_SPECIFIC, 0x10f, "Feature Not Namespace Specific")                               \
	X(OVERLAPPING_RANGE, 0x114, "Overlapping Range")                                                  \
	X(NS_INSUFFICIENT_CAPACITY, 0x115, "Namespace Insufficient Capacity")                             \
	X(NSID_UNAVAILABLE, 0x116, "Namespace Identifier Unavailable")                                    \
	X(NS_ALREADY_ATTACHED, 0x118, "Namespace Already Attached")                                       \
	X(NS_PRIVATE, 0x119, "Namespace Is Private")                                                      \
	X(NS_NOT_ATTACHED, 0x11a, "Namespace Not Attached")                                               \
	X(THIN_PROVISIONING_UNSUPPORTED, 0x11b, "Thin Provisioning Not Supported")                        \
	X(CONTROLLER_LIST_INVALID, 0x11c, "Controller List Invalid")                                      \
	X(INVALID_CONTROLLER_ID, 0x11f, "Invalid Controller Identifier")                                  \
	/* command specific of fabrics commands: Connect; shares its values with the NVM command set's */ \
	X(CONNECT_INCOMPATIBLE_FORMAT, 0x180, "Connect Incompatible Format")                              \
	X(CONNECT_CTRLR_BUSY, 0x181, "Connect Controller Busy")                                           \
	X(CONNECT_INVALID_PARAMETERS, 0x182, "Connect Invalid Parameters")                                \
	X(CONNECT_RESTART_DISCOVERY, 0x183, "Connect Restart Discovery")                                  \
	X(CONNECT_INVALID_HOST, 0x184, "Connect Invalid Host")                                            \
	X(DISCONNECT_INVALID_QUEUE_TYPE, 0x185, "Invalid Queue Type")                                     \
	X(DISCOVER_RESTART, 0x190, "Discover Restart")                                                    \
	X(AUTH_REQUIRED, 0x191, "Authentication Required")                                                \
	/* media and data integrity, SCT 2 */                                                             \
	X(WRITE_FAULT, 0x280, "Write Fault")                                                              \
	X(UNRECOVERED_READ_ERROR, 0x281, "Unrecovered Read Error")                                        \
	X(GUARD_CHECK_ERROR, 0x282, "End-to-end Guard Check Error")                                       \
	X(APPTAG_CHECK_ERROR, 0x283, "End-to-end Application Tag Check Error")                            \
	X(REFTAG_CHECK_ERROR, 0x284, "End-to-end Reference Tag Check Error")                              \
	X(COMPARE_FAILURE, 0x285, "Compare Failure")                                                      \
	X(ACCESS_DENIED, 0x286, "Access Denied")                                                          \
	X(UNWRITTEN_BLOCK, 0x287, "Deallocated or Unwritten Logical Block")                               \
	/* path related, SCT 3 */                                                                         \
	X(INTERNAL_PATH_ERROR, 0x300, "Internal Path Error")                                              \
	X(ANA_PERSISTENT_LOSS, 0x301, "Asymmetric Access Persistent Loss")                                \
	X(ANA_INACCESSIBLE, 0x302, "Asymmetric Access Inaccessible")                                      \
	X(ANA_TRANSITION, 0x303, "Asymmetric Access Transition")                                          \
	X(CTRLR_PATH_ERROR, 0x360, "Controller Pathing Error")                                            \
	X(HOST_PATH_ERROR, 0x370, "Host Pathing Error")                                                   \
	X(HOST_ABORTED, 0x371, "Command Aborted By Host")

enum nvme_status {
#define NVME_STATUS_ENUM(name, value, text) NVME_SC_##name = value,
	NVME_STATUS_LIST(NVME_STATUS_ENUM)
#undef NVME_STATUS_ENUM
};

/* Second meanings of values above, for read and write commands (NVM Command Set 1.0, 3.2). */
#define NVME_SC_CONFLICTING_ATTRIBUTES  0x180u
#define NVME_SC_INVALID_PROTECTION_INFO 0x181u
#define NVME_SC_READ_ONLY_RANGE         0x182u
#define NVME_SC_CMD_SIZE_LIMIT          0x183u /* Copy: Command Size Limit Exceeded */

#define NVME_SCT(status) (((status) >> 8) & 0x7)
#define NVME_SC(status)  ((status)&0xff)

static inline uint16_t nvme_status_code(uint16_t status)
{
	return status & NVME_SC_MASK;
}

/* The specification's name of a status; flag bits are ignored.  Never NULL.  Thread: any. */
const char *nvme_status_name(uint16_t status);

/**
 * nvme_status_from_errno - the status that says what a 0 or -errno of a bdev operation means to a host
 *
 * Sets NVME_SC_DNR where trying again cannot help.  See bdev/bdev.h for the meaning of each errno.  Thread:
 * any.
 */
uint16_t nvme_status_from_errno(int err);

/* The other way, for those who use our initiator: 0 or the nearest -errno. */
int nvme_status_to_errno(uint16_t status);

#endif
