/* Identities that stay the same across restarts without being stored, because they are made from names. */
#include <stdio.h>
#include <string.h>

#include "nvmf/internal.h"

/* The UUID name space of Ferrule's derived identities: any constant will do, as long as it stays. */
static const uuid_t derive_space = { 0x8a, 0x5e, 0x1b, 0x0c, 0x4f, 0x0d, 0x4c, 0x55,
				     0x9b, 0x21, 0x6d, 0xe3, 0x70, 0xfe, 0x42, 0x17 };

void nvmf_derive_serial(const char *nqn, char ret_serial[NVMF_SERIAL_MAX + 1])
{
	uuid_t hash;

	uuid_generate_sha1(hash, derive_space, nqn, strlen(nqn));
	/* Bytes 6 and 8 hold the UUID's version and variant: the others are the hash. */
	snprintf(ret_serial, NVMF_SERIAL_MAX + 1, "%02X%02X%02X%02X%02X%02X%02X%02X%02X%02X", hash[0],
		 hash[1], hash[2], hash[3], hash[4], hash[5], hash[9], hash[10], hash[11], hash[12]);
}

void nvmf_derive_uuid(const char *nqn, uint32_t nsid, uuid_t ret_uuid)
{
	char name[NVMF_NQN_SIZE + 16];
	int len = snprintf(name, sizeof(name), "%s#%u", nqn, nsid);

	uuid_generate_sha1(ret_uuid, derive_space, name, len);
}
