/*
 * The bytes of the saved state's journal: reading it, applying changes, and making new lines.  No I/O here.
 *
 * A line is eight hexadecimal digits, the CRC32C of the rest, one space, a JSON object, a newline:
 *
 *   header  {"format":"ferrule-state","version":1,"seq":S,"lines":L}
 *   object  {"key":[class,parent,name],"method":M,"params":P}              L of them: what was live at change S
 *   change  {"seq":N,"durable":D,"changes":[{"put":key,"method":M,"params":P} | {"delete":key}, …]}
 *
 * The header and its objects are one file written whole and renamed into place, so damage there is damage.  Change lines
 * follow with consecutive numbers; D is the newest change known durable when the line was made.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mgmt/state.h"
#include "mgmt/text.h"
#include "nvme/crc32c.h"

#define FORMAT_NAME    "ferrule-state"
#define FORMAT_VERSION 1
#define CRC_DIGITS     8
#define KEY_SEPARATOR  '\x1f'

int journal_init(struct journal *j)
{
	memset(j, 0, sizeof(*j));
	j->objects = json_object();
	return j->objects ? 0 : -ENOMEM;
}

void journal_fini(struct journal *j)
{
	json_decref(j->objects);
	memset(j, 0, sizeof(*j));
}

char *journal_key_text(const char *class, const char *parent, const char *name)
{
	char *text;

	if (asprintf(&text, "%s%c%s%c%s", class, KEY_SEPARATOR, parent, KEY_SEPARATOR, name) < 0)
		return NULL;
	return text;
}

static char *key_text_of(json_t *key)
{
	const char *part[3];

	if (!json_is_array(key) || json_array_size(key) != 3)
		return NULL;
	for (size_t i = 0; i < 3; i++) {
		part[i] = json_string_value(json_array_get(key, i));
		if (!part[i])
			return NULL;
	}
	return journal_key_text(part[0], part[1], part[2]);
}

static int put_object(struct journal *j, json_t *key, json_t *method, json_t *params)
{
	char *text = key_text_of(key);
	int rc;

	if (!text || !json_is_string(method) || !(json_is_object(params) || json_is_null(params))) {
		free(text);
		return -EINVAL;
	}
	rc = json_object_set_new(j->objects, text,
				 json_pack("{s:O,s:O,s:O}", "key", key, "method", method, "params", params));
	free(text);
	return rc ? -ENOMEM : 0;
}

static int apply_one(struct journal *j, json_t *change)
{
	json_t *key = json_object_get(change, "delete");
	char *text;

	if (!key)
		return put_object(j, json_object_get(change, "put"), json_object_get(change, "method"),
				  json_object_get(change, "params"));
	text = key_text_of(key);
	if (!text)
		return -EINVAL;
	json_object_del(j->objects, text);
	free(text);
	return 0;
}

int journal_apply(struct journal *j, json_t *changes)
{
	if (!json_is_array(changes))
		return -EINVAL;
	for (size_t i = 0; i < json_array_size(changes); i++) {
		int rc = apply_one(j, json_array_get(changes, i));

		if (rc)
			return rc;
	}
	return 0;
}

/* --- writing -------------------------------------------------------------------------------------------------------- */

/* Takes over the reference. */
static int append_line(struct text *t, json_t *object)
{
	char *body = object ? json_dumps(object, JSON_COMPACT) : NULL;
	char crc[CRC_DIGITS + 2];
	size_t len;
	int rc = -ENOMEM;

	json_decref(object);
	if (!body)
		return rc;
	len = strlen(body);
	snprintf(crc, sizeof(crc), "%08x ", crc32c(body, len));
	if (!text_append(t, crc, CRC_DIGITS + 1) && !text_append(t, body, len) && !text_append(t, "\n", 1))
		rc = 0;
	free(body);
	return rc;
}

char *journal_line(struct journal *j, json_t *changes, size_t *ret_len)
{
	struct text t = { 0 };
	json_t *line = json_pack("{s:I,s:I,s:O}", "seq", (json_int_t)(j->seq + 1), "durable",
				 (json_int_t)j->durable_seq, "changes", changes);

	if (append_line(&t, line)) {
		free(t.buf);
		return NULL;
	}
	j->seq++;
	j->nr_lines++;
	*ret_len = t.len;
	return t.buf;
}

char *journal_dump(struct journal *j, size_t *ret_len)
{
	struct text t = { 0 };
	const char *key;
	json_t *object;
	int rc;

	rc = append_line(&t, json_pack("{s:s,s:i,s:I,s:I}", "format", FORMAT_NAME, "version", FORMAT_VERSION, "seq",
				       (json_int_t)j->seq, "lines", (json_int_t)json_object_size(j->objects)));
	json_object_foreach(j->objects, key, object) {
		if (!rc)
			rc = append_line(&t, json_incref(object));
	}
	if (rc) {
		free(t.buf);
		return NULL;
	}
	*ret_len = t.len;
	return t.buf;
}

/* --- reading -------------------------------------------------------------------------------------------------------- */

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/* One line without its newline; NULL with *ret_why when its bytes are not what was written. */
static json_t *parse_line(const char *line, size_t len, const char **ret_why)
{
	uint32_t crc = 0;
	json_t *object;

	if (len < CRC_DIGITS + 1 || line[CRC_DIGITS] != ' ') {
		*ret_why = "it does not begin with a checksum";
		return NULL;
	}
	for (int i = 0; i < CRC_DIGITS; i++) {
		int digit = hex_value(line[i]);

		if (digit < 0) {
			*ret_why = "it does not begin with a checksum";
			return NULL;
		}
		crc = crc << 4 | (uint32_t)digit;
	}
	line += CRC_DIGITS + 1;
	len -= CRC_DIGITS + 1;
	if (crc32c(line, len) != crc) {
		*ret_why = "its checksum is wrong";
		return NULL;
	}
	object = json_loadb(line, len, 0, NULL);
	if (!json_is_object(object)) {
		json_decref(object);
		*ret_why = "it is no JSON object";
		return NULL;
	}
	return object;
}

static uint64_t member_u64(json_t *object, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(object, key));

	return v < 0 ? 0 : (uint64_t)v;
}

struct reader {
	const char *buf;
	size_t len, pos;
	uint64_t line; /* number of the line last taken */
	size_t line_pos;
	const char *why;
};

/* The next line, or NULL with why set; at the end of the bytes NULL without. */
static json_t *read_line(struct reader *r)
{
	const char *start = r->buf + r->pos, *end;

	r->why = NULL;
	if (r->pos == r->len)
		return NULL;
	r->line++;
	r->line_pos = r->pos;
	end = memchr(start, '\n', r->len - r->pos);
	if (!end) {
		r->pos = r->len;
		r->why = "it has no end";
		return NULL;
	}
	r->pos += (size_t)(end - start) + 1;
	return parse_line(start, (size_t)(end - start), &r->why);
}

static int read_header(struct reader *r, struct journal *j, uint64_t *ret_nr_objects)
{
	json_t *header = read_line(r);
	const char *format = json_string_value(json_object_get(header, "format"));
	int rc = 0;

	if (!header) {
		r->line = 1;
		if (!r->why)
			r->why = "the file is empty";
		return -EBADMSG;
	}
	if (!format || strcmp(format, FORMAT_NAME) != 0) {
		r->why = "it is not the header of a ferrule state file";
		rc = -ENOTSUP;
	} else if (member_u64(header, "version") != FORMAT_VERSION) {
		r->why = "its version is newer than this program";
		rc = -ENOTSUP;
	}
	j->seq = j->durable_seq = member_u64(header, "seq");
	*ret_nr_objects = member_u64(header, "lines");
	json_decref(header);
	return rc;
}

static int read_objects(struct reader *r, struct journal *j, uint64_t nr_objects)
{
	for (uint64_t i = 0; i < nr_objects; i++) {
		json_t *object = read_line(r);
		int rc;

		if (!object) {
			if (!r->why) {
				r->line++;
				r->why = "it is missing";
			}
			return -EBADMSG;
		}
		rc = put_object(j, json_object_get(object, "key"), json_object_get(object, "method"),
				json_object_get(object, "params"));
		json_decref(object);
		if (rc) {
			r->why = "it is no object of the state";
			return rc == -ENOMEM ? rc : -EBADMSG;
		}
	}
	return 0;
}

static int read_change(struct reader *r, struct journal *j, json_t *line)
{
	int rc;

	if (member_u64(line, "seq") != j->seq + 1) {
		r->why = "its sequence number does not follow";
		return -EBADMSG;
	}
	rc = journal_apply(j, json_object_get(line, "changes"));
	if (rc) {
		r->why = "it is no change of the state";
		return rc == -ENOMEM ? rc : -EBADMSG;
	}
	j->seq++;
	return 0;
}

/*
 * Whether anything behind the start of the bad line calls @seq durable.  Lines are looked for at every byte, since the damage
 * may be to the newline before one.
 */
static bool durable_behind(const struct reader *r, uint64_t seq)
{
	static const char begin[] = " {\"seq\"";
	const char *at = r->buf + r->line_pos, *end = r->buf + r->len, *newline, *why;
	bool found = false;

	while (!found && (at = memmem(at, (size_t)(end - at), begin, sizeof(begin) - 1))) {
		const char *line = at - CRC_DIGITS;

		newline = memchr(at, '\n', (size_t)(end - at));
		if (newline && line >= r->buf + r->line_pos) {
			json_t *object = parse_line(line, (size_t)(newline - line), &why);

			found = object && member_u64(object, "durable") >= seq;
			json_decref(object);
		}
		at++;
	}
	return found;
}

static int damaged(struct reader *r, struct journal_damage *ret_damage, int rc)
{
	ret_damage->line = r->line;
	ret_damage->offset = r->line_pos;
	ret_damage->why = r->why;
	return rc;
}

int journal_load(struct journal *j, const char *buf, size_t len, struct journal_damage *ret_damage)
{
	struct reader r = { .buf = buf, .len = len };
	uint64_t nr_objects = 0;
	int rc;

	memset(ret_damage, 0, sizeof(*ret_damage));
	rc = read_header(&r, j, &nr_objects);
	if (!rc)
		rc = read_objects(&r, j, nr_objects);
	if (rc)
		return damaged(&r, ret_damage, rc);
	while (r.pos < r.len) {
		json_t *line = read_line(&r);

		rc = line ? read_change(&r, j, line) : -EBADMSG;
		if (rc == -EBADMSG && !durable_behind(&r, j->seq + 1)) {
			ret_damage->torn = true;
			rc = 0;
			json_decref(line);
			damaged(&r, ret_damage, 0);
			break;
		}
		json_decref(line);
		if (rc)
			return damaged(&r, ret_damage, rc);
		j->nr_lines++;
	}
	j->durable_seq = j->seq;
	return 0;
}
