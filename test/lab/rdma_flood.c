/*
 * A flood of connection requests on a real (or software) RDMA device: rdma_flood ADDRESS PORT CALLERS ROUNDS.  A quarter of the callers of
 * a round are gone before they are answered, a quarter leave without a word when they are connected, a quarter disconnect, and the rest
 * stay half open: they never take the answer, and are there until the process dies.  It prints how many got which answer.
 */
#include "config.h"

#include <stdio.h>

#ifndef HAVE_RDMA

int main(void)
{
	fprintf(stderr, "rdma_flood: this build has no RDMA\n");
	return 2;
}

#else

#include <arpa/inet.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rdma/rdma_cma.h>

#include "nvme/nvme.h"
#include "nvme/rdma_cm.h"

#define RESOLVE_MS 5000
#define ANSWER_MS  30000

enum kind { GONE_BEFORE_THE_ANSWER, GONE_WITHOUT_A_WORD, DISCONNECTS, HALF_OPEN, NR_KINDS };

struct caller {
	struct rdma_event_channel *channel;
	struct rdma_cm_id *id;
};

static unsigned nr_connected, nr_rejected, nr_unanswered;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* The next event's type; -1: none came. */
static int next_event(struct caller *caller)
{
	struct pollfd pfd = { .fd = caller->channel->fd, .events = POLLIN };
	struct rdma_cm_event *event;
	int type;

	if (poll(&pfd, 1, ANSWER_MS) <= 0 || rdma_get_cm_event(caller->channel, &event))
		return -1;
	type = (int)event->event;
	rdma_ack_cm_event(event);
	return type;
}

static void leave(struct caller *caller)
{
	if (caller->id->qp)
		rdma_destroy_qp(caller->id);
	rdma_destroy_id(caller->id);
	rdma_destroy_event_channel(caller->channel);
}

/* Half of the controllers' admin queues, half of the I/O queues of no controller. */
static void ask(struct caller *caller, struct sockaddr_in *to, unsigned nr)
{
	struct nvme_rdma_cm_request request = { .qid = nr % 2, .hrqsize = 32, .hsqsize = 31 };
	struct rdma_conn_param param = { .private_data = &request, .private_data_len = sizeof(request), .responder_resources = 8,
					 .initiator_depth = 1, .retry_count = 7, .rnr_retry_count = 7 };
	struct ibv_qp_init_attr attr = { .qp_type = IBV_QPT_RC, .cap = { .max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1 } };

	caller->channel = rdma_create_event_channel();
	if (!caller->channel || rdma_create_id(caller->channel, &caller->id, NULL, RDMA_PS_TCP))
		die("rdma_create_id");
	if (rdma_resolve_addr(caller->id, NULL, (struct sockaddr *)to, RESOLVE_MS) || next_event(caller) != RDMA_CM_EVENT_ADDR_RESOLVED)
		die("rdma_resolve_addr");
	if (rdma_resolve_route(caller->id, RESOLVE_MS) || next_event(caller) != RDMA_CM_EVENT_ROUTE_RESOLVED)
		die("rdma_resolve_route");
	if (rdma_create_qp(caller->id, NULL, &attr))
		die("rdma_create_qp");
	if (rdma_connect(caller->id, &param))
		die("rdma_connect");
}

static void answered(struct caller *caller, bool disconnect)
{
	switch (next_event(caller)) {
	case RDMA_CM_EVENT_ESTABLISHED:
		nr_connected++;
		if (disconnect)
			rdma_disconnect(caller->id);
		break;
	case RDMA_CM_EVENT_REJECTED:
		nr_rejected++;
		break;
	default:
		nr_unanswered++;
		break;
	}
}

static void flood(struct caller *callers, unsigned nr, struct sockaddr_in *to)
{
	for (unsigned i = 0; i < nr; i++) {
		ask(&callers[i], to, i / NR_KINDS);
		if (i % NR_KINDS == GONE_BEFORE_THE_ANSWER)
			leave(&callers[i]);
	}
	for (unsigned i = 0; i < nr; i++) {
		if (i % NR_KINDS != GONE_WITHOUT_A_WORD && i % NR_KINDS != DISCONNECTS)
			continue;
		answered(&callers[i], i % NR_KINDS == DISCONNECTS);
		leave(&callers[i]);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	struct caller *callers;
	unsigned nr, rounds;

	if (argc != 5 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1) {
		fprintf(stderr, "usage: rdma_flood IPV4-ADDRESS PORT CALLERS ROUNDS\n");
		return 2;
	}
	to.sin_port = htons((uint16_t)atoi(argv[2]));
	nr = (unsigned)atoi(argv[3]);
	rounds = (unsigned)atoi(argv[4]);
	callers = calloc(nr, sizeof(*callers));
	if (!callers)
		die("calloc");
	for (unsigned i = 0; i < rounds; i++)
		flood(callers, nr, &to);
	printf("%u connected, %u rejected, %u not answered, %u half open\n", nr_connected, nr_rejected, nr_unanswered, rounds * (nr / NR_KINDS));
	fflush(stdout);
	sleep(5);
	_exit(0); /* what is half open dies with the process */
}

#endif
