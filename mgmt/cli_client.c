/* The CLI's end of the management socket: one call at a time, blocking. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "mgmt/cli.h"
#include "mgmt/json_scan.h"
#include "mgmt/text.h"

#define READ_SIZE (256u * 1024)

void cli_error(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fputs("ferrule: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

static void default_socket(char *buf, size_t size)
{
	const char *env = getenv("FERRULE_SOCKET"), *runtime = getenv("XDG_RUNTIME_DIR"), *home = getenv("HOME");

	if (env && env[0])
		snprintf(buf, size, "%s", env);
	else if (geteuid() == 0)
		snprintf(buf, size, "/run/ferrule/rpc.sock");
	else if (runtime && runtime[0] == '/')
		snprintf(buf, size, "%s/ferrule.sock", runtime);
	else
		snprintf(buf, size, "%s/.local/state/ferrule/rpc.sock", home ? home : "");
}

static int connect_daemon(struct cli *cli)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	char path[sizeof(addr.sun_path)];

	if (cli->fd >= 0)
		return 0;
	if (cli->socket && strlen(cli->socket) >= sizeof(path)) {
		cli_error("%s: a socket's path has at most %zu bytes", cli->socket, sizeof(path) - 1);
		return -ENAMETOOLONG;
	}
	if (cli->socket)
		strcpy(path, cli->socket);
	else
		default_socket(path, sizeof(path));
	memcpy(addr.sun_path, path, sizeof(path));
	cli->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (cli->fd < 0 || connect(cli->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		int rc = -errno;

		cli_error("no daemon answers on %s: %s%s", path, strerror(-rc),
			  rc == -EACCES ? "; its group may use it" :
					  "; start ferruled, or name its socket with --socket or FERRULE_SOCKET");
		if (cli->fd >= 0)
			close(cli->fd);
		cli->fd = -1;
		return rc;
	}
	return 0;
}

static int send_all(int fd, const char *buf, size_t len)
{
	while (len) {
		ssize_t n = send(fd, buf, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		buf += n;
		len -= (size_t)n;
	}
	return 0;
}

/* One JSON text from the stream; NULL when it ends first. */
static json_t *receive(struct cli *cli)
{
	struct json_scan scan = { 0 };
	struct text t = { 0 };
	json_t *value = NULL;

	if (!cli->in)
		cli->in = malloc(READ_SIZE);
	while (cli->in && !value) {
		enum json_scan_event event;
		ssize_t got;
		size_t n;

		if (cli->in_pos == cli->in_len) {
			got = recv(cli->fd, cli->in, READ_SIZE, 0);
			if (got < 0 && errno == EINTR)
				continue;
			if (got <= 0)
				break;
			cli->in_pos = 0;
			cli->in_len = (size_t)got;
		}
		n = json_scan(&scan, cli->in + cli->in_pos, cli->in_len - cli->in_pos, &event);
		if ((event == JSON_SCAN_MORE || event == JSON_SCAN_TEXT) && text_append(&t, cli->in + cli->in_pos, n))
			break;
		cli->in_pos += n;
		if (event == JSON_SCAN_TEXT) {
			value = json_loadb(t.buf, t.len, 0, NULL);
			if (!value)
				break;
		}
	}
	free(t.buf);
	return value;
}

json_t *cli_try(struct cli *cli, const char *method, json_t *params, json_t **ret_error)
{
	json_t *request = json_pack("{s:s,s:i,s:s,s:o*}", "jsonrpc", "2.0", "id", 1, "method", method, "params", params);
	char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
	json_t *reply = NULL, *result = NULL;

	*ret_error = NULL;
	json_decref(request);
	if (!text) {
		cli_error("an argument is not valid UTF-8");
	} else if (connect_daemon(cli) == 0) {
		if (send_all(cli->fd, text, strlen(text)) == 0)
			reply = receive(cli);
		if (!reply)
			cli_error("the daemon ended the connection without an answer");
		result = json_incref(json_object_get(reply, "result"));
		if (!result)
			*ret_error = json_incref(json_object_get(reply, "error"));
	}
	json_decref(reply);
	free(text);
	return result;
}

json_t *cli_call(struct cli *cli, const char *method, json_t *params)
{
	const char *detail, *parameter;
	json_t *error, *result = cli_try(cli, method, params, &error);

	if (error && cli->json) {
		cli_show_json(error);
	} else if (error) {
		detail = json_string_value(cli_at(error, "data.detail"));
		parameter = json_string_value(cli_at(error, "data.parameter"));
		cli_error("%s: %s%s%s%s%s%s", method, json_string_value(json_object_get(error, "message")),
			  parameter ? " (" : "", parameter ? parameter : "", parameter ? ")" : "", detail ? "\n  " : "",
			  detail ? detail : "");
	}
	json_decref(error);
	return result;
}

void cli_close(struct cli *cli)
{
	if (cli->fd >= 0)
		close(cli->fd);
	cli->fd = -1;
	free(cli->in);
	cli->in = NULL;
}
