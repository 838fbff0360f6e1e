/*
 * Listeners by librdmacm, on a library of this file's own: events that no software device gives at a wish.  It has no devices, so
 * listeners here are on addresses that any device may have.
 */
#include "config.h"

#include "runtime/testing.h"

#ifndef HAVE_RDMA

int main(void)
{
	return 77; /* skipped */
}

#else

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <rdma/rdma_cma.h>

#include "runtime/rnic.h"

#define MAX_EVENTS 8u

/* --- the library --------------------------------------------------------------------------------------------------------------------- */

static struct {
	struct rdma_event_channel channel;
	struct rdma_cm_event events[MAX_EVENTS];
	unsigned nr_events, nr_read, nr_acked;
	struct rdma_cm_id *id; /* the last that was made */
	unsigned nr_ids, nr_listens, nr_bind_fails;
} fake;

static void fake_event(enum rdma_cm_event_type type)
{
	ck_assert_uint_lt(fake.nr_events, MAX_EVENTS);
	fake.events[fake.nr_events++] = (struct rdma_cm_event){ .id = fake.id, .event = type };
	ck_assert_int_eq(eventfd_write(fake.channel.fd, 1), 0);
}

struct rdma_event_channel *rdma_create_event_channel(void)
{
	fake.channel.fd = eventfd(0, EFD_NONBLOCK);
	return &fake.channel;
}

void rdma_destroy_event_channel(struct rdma_event_channel *channel)
{
	close(channel->fd);
}

int rdma_get_cm_event(struct rdma_event_channel *channel, struct rdma_cm_event **ret_event)
{
	eventfd_t value;

	if (fake.nr_read == fake.nr_events) {
		eventfd_read(channel->fd, &value);
		errno = EAGAIN;
		return -1;
	}
	*ret_event = &fake.events[fake.nr_read++];
	return 0;
}

int rdma_ack_cm_event(struct rdma_cm_event *event)
{
	fake.nr_acked++;
	return 0;
}

int rdma_create_id(struct rdma_event_channel *channel, struct rdma_cm_id **ret_id, void *context, enum rdma_port_space ps)
{
	fake.id = *ret_id = calloc(1, sizeof(**ret_id));
	fake.id->context = context;
	fake.nr_ids++;
	return 0;
}

/* The real one waits for that. */
int rdma_destroy_id(struct rdma_cm_id *id)
{
	ck_assert_uint_eq(fake.nr_acked, fake.nr_read);
	fake.nr_ids--;
	free(id);
	return 0;
}

int rdma_set_option(struct rdma_cm_id *id, int level, int optname, void *optval, size_t optlen)
{
	return 0;
}

int rdma_bind_addr(struct rdma_cm_id *id, struct sockaddr *addr)
{
	if (!fake.nr_bind_fails)
		return 0;
	fake.nr_bind_fails--;
	errno = EADDRNOTAVAIL;
	return -1;
}

int rdma_listen(struct rdma_cm_id *id, int backlog)
{
	fake.nr_listens++;
	return 0;
}

/* --- what is asked of a listener ------------------------------------------------------------------------------------------------------------ */

static enum rdma_cm_event_type event_to_give;
static unsigned nr_binds_to_fail;

static void request(void *arg, struct rnic_conn *conn, const struct rnic_params *params)
{
	ck_abort_msg("nobody asked");
}

static fiber_fn void wait_for_events(void)
{
	while (fake.nr_acked < fake.nr_events)
		fiber_sleep(100);
}

static fiber_fn void listens_again(void *arg)
{
	const struct stream_addr addr = { .family = AF_INET, .host = "0.0.0.0", .port = 4420 };
	struct rnic_listener *listener;

	ck_assert_int_eq(rnic_listen(&addr, 10, request, NULL, &listener), 0);
	ck_assert_uint_eq(fake.nr_listens, 1);
	fake.nr_bind_fails = nr_binds_to_fail;
	fake_event(event_to_give);
	wait_for_events();
	while (fake.nr_listens < 2)
		fiber_sleep(1000);
	ck_assert_uint_eq(fake.nr_ids, 1);
	/* And it can move again. */
	fake_event(event_to_give);
	wait_for_events();
	while (fake.nr_listens < 3)
		fiber_sleep(1000);
	rnic_listener_close(listener);
	ck_assert_uint_eq(fake.nr_ids, 0);
	runtime_stop(0);
}

START_TEST(a_listener_whose_address_moves_listens_where_it_is_now)
{
	event_to_give = RDMA_CM_EVENT_ADDR_CHANGE;
	run_real(1, listens_again);
}
END_TEST

START_TEST(an_address_that_is_nowhere_for_a_while_is_tried_again)
{
	event_to_give = RDMA_CM_EVENT_ADDR_CHANGE;
	nr_binds_to_fail = 1;
	run_real(1, listens_again);
}
END_TEST

START_TEST(a_listener_whose_device_goes_listens_again_when_it_is_back)
{
	event_to_give = RDMA_CM_EVENT_DEVICE_REMOVAL;
	run_real(1, listens_again);
}
END_TEST

static fiber_fn void is_closed_meanwhile(void *arg)
{
	const struct stream_addr addr = { .family = AF_INET6, .host = "::", .port = 4420 };
	struct rnic_listener *listener;

	ck_assert_int_eq(rnic_listen(&addr, 10, request, NULL, &listener), 0);
	fake.nr_bind_fails = 1000;
	fake_event(RDMA_CM_EVENT_ADDR_CHANGE);
	wait_for_events();
	rnic_listener_close(listener);
	ck_assert_uint_eq(fake.nr_ids, 0);
	runtime_stop(0);
}

START_TEST(a_listener_that_is_nowhere_can_be_closed)
{
	run_real(1, is_closed_meanwhile);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		a_listener_whose_address_moves_listens_where_it_is_now,
		an_address_that_is_nowhere_for_a_while_is_tried_again,
		a_listener_whose_device_goes_listens_again_when_it_is_back,
		a_listener_that_is_nowhere_can_be_closed,
	};

	return run_suite("rnic_verbs", tests, sizeof(tests) / sizeof(tests[0]));
}

#endif
