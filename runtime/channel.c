/*
 * Channels: per-thread state of devices.  The table of devices is global and locked; a thread's channels are its own.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/internal.h"

#define BUCKET_BITS 16 /* a device for each volume */

/* Owner: the table, under its lock. */
struct device {
	struct list link;
	void *address;
	const struct device_ops *ops;
	char name[NAME_LEN];
	unsigned nr_channels;
	bool unregistered;
	struct thread *unregister_thread;
	msg_fn unregister_done;
	void *unregister_arg;
};

/* Owner: its thread.  The context that the device asked for follows it. */
struct channel {
	struct list link;
	struct thread *thread;
	struct device *device;
	unsigned nr_refs;
	bool destroying; /* a message to look at nr_refs again is on its way */
	_Alignas(64) uint8_t ctx[];
};

static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list table[1u << BUCKET_BITS];

static struct list *bucket(void *address)
{
	struct list *head = &table[((uintptr_t)address >> 4) * 0x9e3779b97f4a7c15ull >> (64 - BUCKET_BITS)];

	if (!head->next)
		list_init(head);
	return head;
}

/* The registered device at an address; one that is being unregistered does not count. */
static struct device *find_locked(void *address)
{
	struct list *head = bucket(address), *it;

	list_for_each (it, head) {
		struct device *device = list_entry(it, struct device, link);

		if (device->address == address && !device->unregistered)
			return device;
	}
	return NULL;
}

void device_register(void *address, const struct device_ops *ops, const char *name)
{
	struct device *device = calloc(1, sizeof(*device));

	if (!device) {
		log_error("no memory to register device %s; ending", name);
		abort();
	}
	device->address = address;
	device->ops = ops;
	snprintf(device->name, sizeof(device->name), "%s", name);
	pthread_mutex_lock(&table_lock);
	assert(!find_locked(address));
	list_add_tail(bucket(address), &device->link);
	pthread_mutex_unlock(&table_lock);
}

struct unregistered {
	struct thread *thread;
	msg_fn done;
	void *arg;
};

static void unregister_msg(void *arg)
{
	struct unregistered *call = arg;

	call->thread->nr_visits--;
	call->done(call->arg);
	free(call);
}

/* The last step of a device: nobody can reach it any more. */
static void device_gone(struct device *device)
{
	struct unregistered *call = malloc(sizeof(*call));

	if (!call) {
		log_error("no memory to unregister device %s; ending", device->name);
		abort();
	}
	*call = (struct unregistered){ device->unregister_thread, device->unregister_done, device->unregister_arg };
	free(device);
	thread_send(call->thread, unregister_msg, call);
}

void device_unregister(void *address, msg_fn done, void *arg)
{
	struct device *device;
	bool gone;

	assert(thread_running);
	thread_running->nr_visits++;
	pthread_mutex_lock(&table_lock);
	device = find_locked(address);
	assert(device);
	device->unregistered = true;
	device->unregister_thread = thread_running;
	device->unregister_done = done;
	device->unregister_arg = arg;
	gone = !device->nr_channels;
	if (gone)
		list_del(&device->link);
	pthread_mutex_unlock(&table_lock);
	if (gone)
		device_gone(device);
}

static void device_put(struct device *device)
{
	bool gone;

	pthread_mutex_lock(&table_lock);
	gone = !--device->nr_channels && device->unregistered;
	if (gone)
		list_del(&device->link);
	pthread_mutex_unlock(&table_lock);
	if (gone)
		device_gone(device);
}

static struct channel *find_channel(const struct device *device)
{
	struct list *it;

	list_for_each (it, &thread_running->channels) {
		struct channel *channel = list_entry(it, struct channel, link);

		if (channel->device == device)
			return channel;
	}
	return NULL;
}

static struct channel *channel_create(struct device *device)
{
	size_t len = (sizeof(struct channel) + device->ops->ctx_size + 63) & ~(size_t)63;
	struct channel *channel = aligned_alloc(64, len);

	if (!channel)
		return NULL;
	__builtin_memset(channel, 0, len);
	channel->thread = thread_running;
	channel->device = device;
	channel->nr_refs = 1;
	list_add_tail(&thread_running->channels, &channel->link);
	if (device->ops->channel_create && device->ops->channel_create(device->address, channel->ctx)) {
		list_del(&channel->link);
		free(channel);
		return NULL;
	}
	return channel;
}

struct channel *channel_get(void *address)
{
	struct channel *channel;
	struct device *device;

	assert(thread_running);
	pthread_mutex_lock(&table_lock);
	device = find_locked(address);
	if (device)
		device->nr_channels++; /* held while we look */
	pthread_mutex_unlock(&table_lock);
	if (!device)
		return NULL;
	channel = find_channel(device);
	if (channel) {
		channel->nr_refs++;
		device_put(device);
		return channel;
	}
	channel = channel_create(device);
	if (!channel)
		device_put(device);
	return channel;
}

static void destroy_msg(void *arg)
{
	struct channel *channel = arg;
	struct device *device = channel->device;

	channel->destroying = false;
	if (channel->nr_refs)
		return;
	list_del(&channel->link);
	if (device->ops->channel_destroy)
		device->ops->channel_destroy(device->address, channel->ctx);
	free(channel);
	device_put(device);
}

/* The context goes by message: whoever put it may be in the middle of a callback of the device. */
void channel_put(struct channel *channel)
{
	assert(channel->thread == thread_running && channel->nr_refs);
	if (--channel->nr_refs || channel->destroying)
		return;
	channel->destroying = true;
	thread_send(channel->thread, destroy_msg, channel);
}

void *channel_ctx(struct channel *channel)
{
	return channel->ctx;
}

struct thread *channel_thread(struct channel *channel)
{
	return channel->thread;
}

struct channel *channel_from_ctx(void *ctx)
{
	return container_of(ctx, struct channel, ctx);
}

struct channel_visit {
	void *address;
	void (*fn)(void *ctx, void *arg);
	msg_fn done;
	void *arg;
};

static void visit_channel(void *arg)
{
	struct channel_visit *visit = arg;
	struct list *it;

	list_for_each (it, &thread_running->channels) {
		struct channel *channel = list_entry(it, struct channel, link);

		if (channel->device->address == visit->address && channel->nr_refs) {
			visit->fn(channel->ctx, visit->arg);
			return;
		}
	}
}

static void visit_channels_done(void *arg)
{
	struct channel_visit *visit = arg;

	visit->done(visit->arg);
	free(visit);
}

void device_for_each_channel(void *address, void (*fn)(void *ctx, void *arg), void *arg, msg_fn done)
{
	struct channel_visit *visit = malloc(sizeof(*visit));

	if (!visit) {
		log_error("no memory to visit channels; ending");
		abort();
	}
	*visit = (struct channel_visit){ .address = address, .fn = fn, .done = done, .arg = arg };
	thread_for_each(visit_channel, visit, visit_channels_done);
}
