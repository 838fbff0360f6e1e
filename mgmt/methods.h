/* The methods of each file, and what they share. */
#ifndef MGMT_METHODS_H
#define MGMT_METHODS_H

#include <stdbool.h>
#include <uuid/uuid.h>

#include "bdev/bdev.h"
#include "mgmt/rpc.h"
#include "nvmf/nvmf.h"

/* methods_app.c: the process itself */
extern const struct rpc_method app_methods[];

/* methods_bdev.c, methods_bdev_show.c */
extern const struct rpc_method bdev_methods[];
extern const struct rpc_method bdev_show_methods[];
void bdev_show_init(void);
/* What bdev_get_bdevs shows under driver_specific. */
json_t *driver_specific_json(const struct bdev *bdev);
/* Fails the call with "No such device" unless there is one; key is the parameter that named it. */
struct bdev *bdev_of_call(struct rpc_call *call, const char *key);
/* Forgets the saved namespaces that are on a bdev of this name, alias or UUID; and which store is on it. */
void forget_namespaces_of(struct rpc_call *call, const struct bdev *bdev);
/* The same by a volume's UUID and alias; whether there are any; whether one with these saved params is. */
void forget_namespaces_called(struct rpc_call *call, const char *uuid, const char *alias);
bool namespaces_are_on(const char *uuid, const char *alias);
bool namespace_is_on(const json_t *params, const char *uuid, const char *alias);

/* methods_nvme.c, methods_nvme_show.c, methods_nvme_pass.c */
extern const struct rpc_method nvme_methods[];
extern const struct rpc_method nvme_show_methods[];
extern const struct rpc_method nvme_pass_methods[];
/* driver_specific.nvme of a namespace; NULL: the device is none. */
json_t *nvme_specific_json(const struct bdev *bdev);
const char *nvme_policy_name(const struct bdev *bdev); /* of a namespace: SPDK's "active_passive" or "active_active" */

/* methods_bdev_show.c: adds what SPDK's statistics say of operations */
void stats_into(json_t *out, const struct bdev_stats *stats);

/* methods_delay.c */
extern const struct rpc_method delay_methods[];
/* driver_specific.delay; NULL: the device is none. */
json_t *delay_specific_json(const struct bdev *bdev);

/* methods_lvol.c, methods_copy.c, methods_lvol_show.c, methods_lvol_ranges.c, methods_store.c, watch.c */
extern const struct rpc_method lvol_methods[];
extern const struct rpc_method copy_methods[];
extern const struct rpc_method lvol_show_methods[];
extern const struct rpc_method lvol_ranges_methods[];
extern const struct rpc_method store_methods[];
extern const struct rpc_method watch_methods[];
/* driver_specific.lvol of a volume; NULL: the device is none. */
json_t *lvol_specific_json(const struct bdev *bdev);
json_t *lvol_creation_time_json(const struct bdev *bdev); /* NULL: the device is no volume */

/* job.c, methods_job.c, event.c */
extern const struct rpc_method job_state_methods[];
extern const struct rpc_method job_methods[];
extern const struct rpc_method event_methods[];

/* methods_nvmf.c, methods_nvmf_export.c, methods_nvmf_show.c; the target is set before any call */
extern const struct rpc_method nvmf_methods[];
extern const struct rpc_method nvmf_export_methods[];
extern const struct rpc_method nvmf_show_methods[];
void nvmf_methods_init(struct nvmf_target *target);
struct nvmf_target *target_of_call(struct rpc_call *call); /* NULL with the call failed when tgt_name is another's */
json_t *address_json(const char *trtype, const struct stream_addr *addr);

/* file_dirs.c: where file-backed devices may live */
void file_dirs_init(const char *const *dirs, unsigned nr_dirs);
/**
 * file_dirs_resolve - the true path of a file that a device may use
 * @ret_path: free() it
 *
 * Follows symbolic links; a relative name is looked for in the folders.
 * Return: 0, or -EACCES, -ENOENT… with the call failed.
 */
int file_dirs_resolve(struct rpc_call *call, const char *key, const char *filename, char **ret_path);

#endif
