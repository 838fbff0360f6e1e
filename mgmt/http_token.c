/* The bearer token: made of the kernel's randomness, kept where only the daemon's user reads it, compared in constant time. */
#include "mgmt/http_token.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/log.h"

#define TOKEN_BYTES 32

static int make_token(int dir_fd, const char *state_dir)
{
	unsigned char random[TOKEN_BYTES];
	char text[2 * TOKEN_BYTES + 2];
	int fd, rc = 0;

	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return -EIO;
	for (int i = 0; i < TOKEN_BYTES; i++)
		snprintf(text + 2 * i, 3, "%02x", random[i]);
	text[2 * TOKEN_BYTES] = '\n';
	/* Under another name until it is whole: a crash here must not leave an empty token. */
	unlinkat(dir_fd, "token.new", 0);
	fd = openat(dir_fd, "token.new", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (write(fd, text, 2 * TOKEN_BYTES + 1) != 2 * TOKEN_BYTES + 1 || fsync(fd) < 0)
		rc = errno ? -errno : -EIO;
	close(fd);
	if (!rc && (renameat(dir_fd, "token.new", dir_fd, "token") < 0 || fsync(dir_fd) < 0))
		rc = -errno;
	if (!rc)
		log_notice("made %s/token, the bearer token for HTTP", state_dir);
	return rc;
}

static int read_token(int fd, const char *state_dir, char token[HTTP_TOKEN_MAX + 1])
{
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st) == 0 && (st.st_mode & 077))
		log_warning("%s/token can be read by others (mode %o): chmod 600 it", state_dir, (unsigned)st.st_mode & 07777);
	n = read(fd, token, HTTP_TOKEN_MAX);
	if (n < 0)
		return -errno;
	while (n > 0 && isspace((unsigned char)token[n - 1]))
		n--;
	token[n] = '\0';
	if (n < 16 || strlen(token) != (size_t)n) {
		log_error("%s/token has fewer than 16 characters or odd ones: remove it, and a new one is made", state_dir);
		return -EINVAL;
	}
	return 0;
}

int http_token_load(const char *state_dir, char token[HTTP_TOKEN_MAX + 1])
{
	int dir_fd = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd, rc = 0;

	if (dir_fd < 0) {
		rc = -errno;
		log_error("%s: %s", state_dir, strerror(-rc));
		return rc;
	}
	if (faccessat(dir_fd, "token", F_OK, 0) < 0 && errno == ENOENT)
		rc = make_token(dir_fd, state_dir);
	fd = rc ? -1 : openat(dir_fd, "token", O_RDONLY | O_CLOEXEC);
	if (!rc && fd < 0)
		rc = -errno;
	if (!rc)
		rc = read_token(fd, state_dir, token);
	if (rc)
		log_error("%s/token cannot be used: %s", state_dir, strerror(-rc));
	if (fd >= 0)
		close(fd);
	close(dir_fd);
	return rc;
}

bool http_token_matches(const char *token, const char *authorization)
{
	static const char scheme[] = "Bearer ";
	size_t len = strlen(token);

	if (!authorization || strncasecmp(authorization, scheme, sizeof(scheme) - 1) != 0)
		return false;
	authorization += sizeof(scheme) - 1;
	return strlen(authorization) == len && CRYPTO_memcmp(authorization, token, len) == 0;
}
