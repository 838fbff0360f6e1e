/* Results that are long lists, made into text an element at a time; see struct rpc_list. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mgmt/rpc.h"
#include "runtime/fiber.h"

/* Elements between two steps aside: well under a millisecond's work. */
#define STEP 32u

static int append(const char *text, size_t len, void *arg)
{
	struct rpc_list *list = arg;

	if (len == 0)
		return 0;
	if (len > list->size - list->len) {
		size_t size = (list->len + len) * 2;
		char *grown = realloc(list->text, size);

		if (!grown) {
			list->no_memory = true;
			return -1;
		}
		list->text = grown;
		list->size = size;
	}
	memcpy(list->text + list->len, text, len);
	list->len += len;
	return 0;
}

void rpc_list_begin(struct rpc_list *list, struct rpc_call *call, const char *before)
{
	*list = (struct rpc_list){ .call = call };
	append(before, strlen(before), list);
	append("[", 1, list);
}

fiber_fn void rpc_list_add(struct rpc_list *list, json_t *element)
{
	if (list->nr)
		append(",", 1, list);
	if (json_dump_callback(element, append, list, JSON_COMPACT))
		list->no_memory = true;
	json_decref(element);
	if (++list->nr % STEP == 0)
		fiber_yield();
}

void rpc_list_end(struct rpc_list *list, const char *after)
{
	append("]", 1, list);
	append(after, strlen(after) + 1, list);
	if (list->no_memory) {
		free(list->text);
		rpc_fail_errno(list->call, -ENOMEM, NULL);
	} else {
		list->call->result_text = list->text;
	}
}
