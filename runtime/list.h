/* Intrusive doubly linked list, and a singly linked FIFO for hot paths.  Neither allocates. */
#ifndef RUNTIME_LIST_H
#define RUNTIME_LIST_H

#include <stdbool.h>
#include <stddef.h>

/* DPDK's headers and <sys/queue.h> have macros of these names: ours hold after ours is included. */
#undef container_of
#undef LIST_INIT

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

struct list {
	struct list *next, *prev;
};

#define LIST_INIT(name) { &(name), &(name) }

static inline void list_init(struct list *l)
{
	l->next = l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_insert_between(struct list *e, struct list *prev, struct list *next)
{
	e->prev = prev;
	e->next = next;
	prev->next = e;
	next->prev = e;
}

static inline void list_add_tail(struct list *l, struct list *e)
{
	list_insert_between(e, l->prev, l);
}

static inline void list_add_head(struct list *l, struct list *e)
{
	list_insert_between(e, l, l->next);
}

/* Leaves the entry an empty list of its own: deleting twice is harmless, and list_empty(e) says "not on any list". */
static inline void list_del(struct list *e)
{
	e->prev->next = e->next;
	e->next->prev = e->prev;
	list_init(e);
}

static inline struct list *list_first(const struct list *l)
{
	return list_empty(l) ? NULL : l->next;
}

static inline struct list *list_pop(struct list *l)
{
	struct list *e = list_first(l);

	if (e)
		list_del(e);
	return e;
}

/* Moves everything on @from to the tail of @to. */
static inline void list_splice_tail(struct list *to, struct list *from)
{
	if (list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

#define list_entry(e, type, member)	  container_of(e, type, member)
#define list_for_each(it, head)		  for ((it) = (head)->next; (it) != (head); (it) = (it)->next)
#define list_for_each_safe(it, tmp, head) \
	for ((it) = (head)->next, (tmp) = (it)->next; (it) != (head); (it) = (tmp), (tmp) = (it)->next)

/* First in, first out, one pointer an entry. */
struct fifo_link {
	struct fifo_link *next;
};

struct fifo {
	struct fifo_link *head, **tail;
};

static inline void fifo_init(struct fifo *f)
{
	f->head = NULL;
	f->tail = &f->head;
}

static inline bool fifo_empty(const struct fifo *f)
{
	return !f->head;
}

static inline void fifo_push(struct fifo *f, struct fifo_link *e)
{
	e->next = NULL;
	*f->tail = e;
	f->tail = &e->next;
}

/* In front of all others: what was used last, and is still in the cache, is taken next. */
static inline void fifo_push_first(struct fifo *f, struct fifo_link *e)
{
	e->next = f->head;
	if (!f->head)
		f->tail = &e->next;
	f->head = e;
}

static inline struct fifo_link *fifo_pop(struct fifo *f)
{
	struct fifo_link *e = f->head;

	if (e && !(f->head = e->next))
		f->tail = &f->head;
	return e;
}

#endif
