/* Setting a machine up for drives of its own: what is found in sysfs, and what is changed there. */
#ifndef MGMT_CLI_HOST_H
#define MGMT_CLI_HOST_H

#include "mgmt/cli.h"

int cli_host_status(struct cli *cli, json_t *args, const struct cli_verb *verb);
int cli_host_setup(struct cli *cli, json_t *args, const struct cli_verb *verb);
int cli_host_reset(struct cli *cli, json_t *args, const struct cli_verb *verb);

/* host_drives.c: where /sys, /proc and /dev are; "" for this machine's, or a folder that stands for them in tests */
struct host_drive {
	char address[16];
	char driver[32]; /* "": none */
	char override[32]; /* the only driver that may have it; "": any */
	char group[16];	 /* IOMMU group; "": none */
	int numa_node;	 /* -1: not said */
	char used[128];	 /* why it must not be taken from the kernel; "": nobody uses it */
};

#define HOST_MAX_DRIVES 128u

/* Return: how many there are. */
unsigned host_find_drives(const char *root, struct host_drive drives[HOST_MAX_DRIVES]);
void host_driver_of(const char *root, const char *address, char *ret_driver, size_t size); /* "": none */
bool host_has_iommu(const char *root);
bool host_no_iommu_enabled(const char *root);

#endif
