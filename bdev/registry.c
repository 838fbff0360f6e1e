/*
 * The registry: names, opening, closing, claims, removal and resizing.  All of it belongs to the app thread.
 *
 * Removal in order: the bdev is no longer found, its openers are told (in a later message), they put their channels and
 * close; with the last descriptor gone the channels' device is unregistered, which waits for the last channel; then the
 * device frees itself, the name is free again, and the unregisterer hears.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bdev/internal.h"
#include "bdev/registry.h"

#define NR_BUCKETS 65536u

/* Owner: the opener; app thread. */
struct bdev_desc {
	struct list link; /* bdev_core.descs */
	struct bdev *bdev;
	bool write, told_removal;
	bool still; /* counted in bdev_core.nr_still */
	bdev_event_fn event;
	void *event_arg;
};

static struct list cores = LIST_INIT(cores);
static struct list buckets[NR_BUCKETS];

/* --- names --- */

static uint32_t hash_text(const char *text)
{
	uint32_t h = 2166136261u;

	while (*text)
		h = (h ^ (uint8_t)*text++) * 16777619u;
	return h;
}

static struct list *bucket(uint32_t hash)
{
	struct list *b = &buckets[hash % NR_BUCKETS];

	if (!b->next)
		list_init(b);
	return b;
}

static struct bdev_name *name_find(const char *text)
{
	uint32_t hash = hash_text(text);
	struct list *it, *head = bucket(hash);

	list_for_each(it, head) {
		struct bdev_name *n = list_entry(it, struct bdev_name, link);

		if (n->hash == hash && !strcmp(n->text, text))
			return n;
	}
	return NULL;
}

static void name_add(struct bdev_name *n, struct bdev *bdev, const char *text)
{
	list_init(&n->link);
	if (!*text)
		return;
	n->text = text;
	n->bdev = bdev;
	n->hash = hash_text(text);
	list_add_tail(bucket(n->hash), &n->link);
}

/* Taken by another than owner. */
static bool name_taken(const char *text, const struct bdev *owner)
{
	const struct bdev_name *n = *text ? name_find(text) : NULL;

	return n && n->bdev != owner;
}

/* --- registering --- */

static struct bdev_core *core_create(struct bdev *bdev)
{
	struct bdev_core *core = calloc(1, sizeof(*core));

	if (!core)
		return NULL;
	core->bdev = bdev;
	core->supported = emulate_supported(bdev->ops->supported);
	if (bdev->has_write_cache && !(bdev->ops->supported & OP_BIT(BDEV_FLUSH)))
		core->supported &= ~OP_BIT(BDEV_FLUSH);
	list_init(&core->descs);
	list_init(&core->channels);
	list_init(&core->locks);
	list_init(&core->lock_queue);
	pthread_mutex_init(&core->mutex, NULL);
	core->device_ops.ctx_size = bdev_channel_size(bdev);
	core->device_ops.channel_create = bdev_channel_init;
	core->device_ops.channel_destroy = bdev_channel_fini;
	return core;
}

int bdev_register(struct bdev *bdev)
{
	struct bdev_core *core;
	int rc;

	assert(thread_current() == runtime_app_thread());
	assert(bdev->block_size >= 512 && !(bdev->block_size & (bdev->block_size - 1)));
	assert(!(bdev->ops->supported & OP_BIT(BDEV_COMPARE_AND_WRITE)));
	if (!*bdev->name)
		return -EINVAL;
	if (name_taken(bdev->name, NULL) || name_taken(bdev->alias, NULL))
		return -EEXIST;
	rc = emulate_prepare();
	if (rc)
		return rc;
	core = core_create(bdev);
	if (!core)
		return -ENOMEM;
	if (!bdev->write_unit_blocks)
		bdev->write_unit_blocks = 1;
	bdev->core = core;
	uuid_unparse_lower(bdev->uuid, core->uuid_text);
	name_add(&core->name, bdev, bdev->name);
	name_add(&core->alias, bdev, bdev->alias);
	list_init(&core->uuid.link);
	if (!uuid_is_null(bdev->uuid) && !name_taken(core->uuid_text, NULL))
		name_add(&core->uuid, bdev, core->uuid_text);
	list_add_tail(&cores, &core->link);
	device_register(core, &core->device_ops, bdev->name);
	examine_registered(bdev);
	return 0;
}

static struct {
	void (*fn)(void *arg);
	void *arg;
} name_free;

void bdev_on_name_free(void (*fn)(void *arg), void *arg)
{
	name_free.fn = fn;
	name_free.arg = arg;
}

static void tell_name_free(void *arg)
{
	if (name_free.fn)
		name_free.fn(name_free.arg);
}

int bdev_rename_alias(struct bdev *bdev, const char *alias)
{
	if (strlen(alias) >= BDEV_NAME_MAX)
		return -ENAMETOOLONG;
	if (name_taken(alias, bdev))
		return -EEXIST;
	list_del(&bdev->core->alias.link);
	strcpy(bdev->alias, alias);
	if (strcmp(alias, bdev->name))
		name_add(&bdev->core->alias, bdev, bdev->alias);
	thread_send(runtime_app_thread(), tell_name_free, NULL);
	return 0;
}

static void unregister_told(void *arg)
{
	struct bdev_core *core = arg;

	if (core->done)
		core->done(core->done_arg, 0);
	pthread_mutex_destroy(&core->mutex);
	for (int op = 0; op < BDEV_NR_OPS; op++)
		free(core->gone_hist[op]);
	free(core);
	tell_name_free(NULL);
}

void bdev_destroy_done(struct bdev *bdev)
{
	struct bdev_core *core = bdev->core;

	list_del(&core->name.link);
	list_del(&core->alias.link);
	list_del(&core->uuid.link);
	list_del(&core->link);
	bdev->core = NULL;
	thread_send(runtime_app_thread(), unregister_told, core);
}

static void channels_gone(void *arg)
{
	struct bdev_core *core = arg;

	core->bdev->ops->destroy(core->bdev);
}

static void destroy_if_closed(struct bdev_core *core)
{
	if (!core->unregistering || core->destroying || !list_empty(&core->descs))
		return;
	core->destroying = true;
	device_unregister(core, channels_gone, core);
}

/* Tells each descriptor once; an event function may close any of them. */
static void tell_removal(void *arg)
{
	struct bdev_core *core = arg;
	struct list *it;

again:
	list_for_each(it, &core->descs) {
		struct bdev_desc *desc = list_entry(it, struct bdev_desc, link);

		if (desc->told_removal)
			continue;
		desc->told_removal = true;
		if (desc->event) {
			desc->event(core->bdev, BDEV_EVENT_REMOVE, desc->event_arg);
			goto again;
		}
	}
	core->unregistering = true;
	destroy_if_closed(core);
}

void bdev_unregister(struct bdev *bdev, void (*done)(void *arg, int status), void *arg)
{
	struct bdev_core *core = bdev->core;

	assert(thread_current() == runtime_app_thread());
	assert(!core->removed);
	core->removed = true;
	core->done = done;
	core->done_arg = arg;
	thread_send(runtime_app_thread(), tell_removal, core);
}

static void unregister_wake(void *arg, int status)
{
	fiber_wake(arg, status);
}

fiber_fn int bdev_unregister_wait(struct bdev *bdev)
{
	struct fiber_wait wait;

	fiber_wait_init(&wait);
	bdev_unregister(bdev, unregister_wake, &wait);
	return fiber_wait(&wait);
}

fiber_fn void bdev_unregister_all(void)
{
	while (!list_empty(&cores)) {
		struct bdev_core *core = list_entry(cores.prev, struct bdev_core, link);

		if (core->removed)
			fiber_sleep(1000); /* somebody else's unregistration ends it */
		else
			bdev_unregister_wait(core->bdev);
	}
}

void bdev_notify_resize(struct bdev *bdev, uint64_t nr_blocks)
{
	struct list *it, *tmp;

	assert(thread_current() == runtime_app_thread());
	__atomic_store_n(&bdev->nr_blocks, nr_blocks, __ATOMIC_RELAXED);
	list_for_each_safe(it, tmp, &bdev->core->descs) {
		struct bdev_desc *desc = list_entry(it, struct bdev_desc, link);

		if (desc->event)
			desc->event(bdev, BDEV_EVENT_RESIZE, desc->event_arg);
	}
}

/* --- opening --- */

/* Whether anybody but one has it open for writing; who claims it for itself has. */
static bool is_written(const struct bdev_core *core, const struct bdev_desc *but)
{
	struct list *it;

	list_for_each(it, &core->descs) {
		const struct bdev_desc *desc = list_entry(it, struct bdev_desc, link);

		if (desc != but && desc->write)
			return true;
	}
	return false;
}

static struct {
	void (*fn)(void *arg);
	void *arg;
} writers_gone;

void bdev_on_writers_gone(void (*fn)(void *arg), void *arg)
{
	writers_gone.fn = fn;
	writers_gone.arg = arg;
}

static void tell_writers_gone(void *arg)
{
	if (writers_gone.fn)
		writers_gone.fn(writers_gone.arg);
}

int bdev_open_bdev(struct bdev *bdev, bool write, bdev_event_fn event, void *arg, struct bdev_desc **ret_desc)
{
	struct bdev_core *core = bdev->core;
	struct bdev_desc *desc;

	assert(thread_current() == runtime_app_thread());
	if (core->removed)
		return -ENODEV;
	if (write && (core->claim || core->nr_still))
		return -EBUSY;
	desc = calloc(1, sizeof(*desc));
	if (!desc)
		return -ENOMEM;
	desc->bdev = bdev;
	desc->write = write;
	desc->event = event;
	desc->event_arg = arg;
	list_add_tail(&core->descs, &desc->link);
	*ret_desc = desc;
	return 0;
}

int bdev_open(const char *name, bool write, bdev_event_fn event, void *arg, struct bdev_desc **ret_desc)
{
	struct bdev *bdev = bdev_find(name);

	return bdev ? bdev_open_bdev(bdev, write, event, arg, ret_desc) : -ENODEV;
}

void bdev_close(struct bdev_desc *desc)
{
	struct bdev_core *core = desc->bdev->core;

	assert(thread_current() == runtime_app_thread());
	if (core->claim == desc)
		core->claim = NULL;
	core->nr_still -= desc->still;
	list_del(&desc->link);
	if (desc->write && !core->removed && !is_written(core, NULL))
		thread_send(runtime_app_thread(), tell_writers_gone, NULL);
	free(desc);
	destroy_if_closed(core);
}

struct bdev *bdev_desc_bdev(struct bdev_desc *desc)
{
	return desc->bdev;
}

int bdev_claim(struct bdev_desc *desc, const char *claimer)
{
	struct bdev_core *core = desc->bdev->core;

	if (core->claim)
		return core->claim == desc ? 0 : -EBUSY;
	if (core->nr_still || is_written(core, desc))
		return -EBUSY;
	desc->write = true;
	core->claim = desc;
	strncpy(core->claimer, claimer, sizeof(core->claimer) - 1);
	return 0;
}

int bdev_claim_still(struct bdev_desc *desc, const char *claimer)
{
	struct bdev_core *core = desc->bdev->core;

	if (is_written(core, NULL))
		return -EBUSY;
	if (!desc->still)
		core->nr_still++;
	desc->still = true;
	strncpy(core->claimer, claimer, sizeof(core->claimer) - 1);
	return 0;
}

/* --- looking --- */

struct bdev *bdev_find(const char *name)
{
	const struct bdev_name *n = name_find(name);
	uuid_t uuid;
	char text[UUID_STR_LEN];

	if (!n && strlen(name) == UUID_STR_LEN - 1 && !uuid_parse(name, uuid)) {
		uuid_unparse_lower(uuid, text); /* capitals are as good */
		n = name_find(text);
	}
	return n && !n->bdev->core->removed ? n->bdev : NULL;
}

static struct bdev *from(struct list *it)
{
	for (; it != &cores; it = it->next) {
		struct bdev_core *core = list_entry(it, struct bdev_core, link);

		if (!core->removed)
			return core->bdev;
	}
	return NULL;
}

struct bdev *bdev_first(void)
{
	return from(cores.next);
}

struct bdev *bdev_next(struct bdev *bdev)
{
	return from(bdev->core->link.next);
}

bool bdev_is_removed(const struct bdev *bdev)
{
	return bdev->core->removed;
}

bool bdev_is_open(const struct bdev *bdev)
{
	return !list_empty(&bdev->core->descs);
}

bool bdev_is_claimed(const struct bdev *bdev, const char **ret_claimer)
{
	if (ret_claimer)
		*ret_claimer = bdev_claim_of(bdev) ? bdev->core->claimer : NULL;
	return bdev_claim_of(bdev) != BDEV_CLAIM_NONE;
}

enum bdev_claim bdev_claim_of(const struct bdev *bdev)
{
	if (bdev->core->claim)
		return BDEV_CLAIM_WRITER;
	return bdev->core->nr_still ? BDEV_CLAIM_STILL : BDEV_CLAIM_NONE;
}

bool bdev_supports(const struct bdev *bdev, enum bdev_op op)
{
	return bdev->core->supported & OP_BIT(op);
}

uint64_t bdev_nr_blocks(const struct bdev *bdev)
{
	return __atomic_load_n(&bdev->nr_blocks, __ATOMIC_RELAXED);
}
