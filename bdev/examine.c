/*
 * Examine and late arrival: modules that live on other bdevs look at each new one, after those who wait for a name have been told
 * that it is there.  A few fibers do so for all: a hundred thousand volumes can come at once, and one that waits for its disk holds
 * up no other disk.
 */
#include <stdlib.h>
#include <string.h>

#include "bdev/internal.h"
#include "bdev/registry.h"

/* One who wants to hear of every bdev.  Owner: app thread; for as long as the process. */
struct watcher {
	struct list link;
	void (*fn)(struct bdev *bdev, void *arg);
	void *arg;
};

#define MAX_LOOKERS 64u

/* One look at one bdev.  Owner: the queue, then the fiber that looks. */
struct look {
	struct list link; /* queue */
	char name[BDEV_NAME_MAX];
	struct bdev_examiner *examiner; /* NULL: all of them, and the watchers */
};

static struct list examiners = LIST_INIT(examiners);
static struct list watchers = LIST_INIT(watchers);
static struct fiber_cond over;
static struct list queue = LIST_INIT(queue);
static unsigned nr_looking; /* looks that are not over, queued or under way */
static unsigned nr_lookers; /* fibers */

static void tell_watchers(const char *name)
{
	struct list *it, *tmp;

	list_for_each_safe(it, tmp, &watchers) {
		struct watcher *w = list_entry(it, struct watcher, link);
		struct bdev *bdev = bdev_find(name);

		if (bdev)
			w->fn(bdev, w->arg);
	}
}

static fiber_fn void look_at(struct look *look)
{
	struct list *it;

	if (look->examiner) {
		look->examiner->examine(look->name);
		return;
	}
	tell_watchers(look->name);
	for (it = examiners.next; it != &examiners; it = it->next) {
		if (bdev_find(look->name))
			list_entry(it, struct bdev_examiner, link)->examine(look->name);
	}
}

static fiber_fn void looker_main(void *arg)
{
	struct list *e;

	while ((e = list_pop(&queue))) {
		struct look *look = list_entry(e, struct look, link);

		look_at(look);
		free(look);
		if (--nr_looking == 0)
			fiber_cond_broadcast(&over);
	}
	nr_lookers--;
}

static void look_start(const char *name, struct bdev_examiner *examiner)
{
	struct look *look = calloc(1, sizeof(*look));

	if (!over.waiters.next)
		fiber_cond_init(&over);
	if (!look)
		goto out_no_memory;
	if (nr_lookers < MAX_LOOKERS && fiber_spawn(runtime_app_thread(), "examine", looker_main, NULL) == 0)
		nr_lookers++;
	if (!nr_lookers)
		goto out_no_memory;
	strcpy(look->name, name);
	look->examiner = examiner;
	list_add_tail(&queue, &look->link);
	nr_looking++;
	return;

out_no_memory:
	log_error("bdev %s: not examined: no memory; what lives on it is found when it is registered again", name);
	free(look);
}

void examine_registered(struct bdev *bdev)
{
	look_start(bdev->name, NULL);
}

void bdev_examiner_register(struct bdev_examiner *examiner)
{
	struct bdev *bdev;
	struct list *it;

	list_for_each(it, &examiners) {
		if (it == &examiner->link)
			return;
	}
	list_add_tail(&examiners, &examiner->link);
	for (bdev = bdev_first(); bdev; bdev = bdev_next(bdev))
		look_start(bdev->name, examiner);
}

fiber_fn void bdev_wait_for_examine(void)
{
	while (nr_looking)
		fiber_cond_wait(&over);
}

void bdev_on_register(void (*fn)(struct bdev *bdev, void *arg), void *arg)
{
	struct watcher *w = calloc(1, sizeof(*w));
	struct bdev *bdev, *next;

	if (!w) {
		log_error("no memory for a watcher of bdevs: what waits for a late device will not see it");
		return;
	}
	w->fn = fn;
	w->arg = arg;
	list_add_tail(&watchers, &w->link);
	for (bdev = bdev_first(); bdev; bdev = next) {
		next = bdev_next(bdev);
		fn(bdev, arg);
	}
}
