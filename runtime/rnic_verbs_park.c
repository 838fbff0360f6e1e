/*
 * Ends in silence, for soft-RoCE alone: its queue pair for connection management goes into error for good when it is to send while its
 * network interface is down, and from then on nobody can connect by the device until it is made again.  The kernel's own target
 * breaks it so as well.
 *
 * A connection that ends while the port is down, or whose queue pair broke, as it does a moment before the port's news come, is not
 * disconnected, and its identifier, whose destruction tells the peer, is parked until the port is up.  The queue pair and all that
 * is above it are gone meanwhile.
 */
#include "config.h"

#ifdef HAVE_RDMA

#include "runtime/rnic_verbs.h"

#define PARK_US 500000u

static bool port_is_up(const struct verbs_device *device)
{
	struct ibv_port_attr attr;

	return !ibv_query_port(device->context, device->port, &attr) && attr.state == IBV_PORT_ACTIVE;
}

static bool qp_is_broken(const struct verbs_conn *conn)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;

	return conn->id->qp && !ibv_query_qp(conn->id->qp, &attr, IBV_QP_STATE, &init) && attr.qp_state == IBV_QPS_ERR;
}

bool verbs_must_keep_silent(const struct verbs_conn *conn)
{
	const struct verbs_device *device = conn->conn.device ? device_of(conn->conn.device) : NULL;

	if (!device || !device->soft_roce || rnic_is_removed(&device->base) || !verbs_serves())
		return false;
	return qp_is_broken(conn) || !port_is_up(device);
}

static void unpark(struct verbs_conn *conn)
{
	list_del(&conn->park_link);
	verbs_id_destroy(conn);
	rnic_conn_put(&conn->conn);
}

static void park_over(void *arg)
{
	struct verbs_device *device = arg;
	struct list *link;

	if (!rnic_is_removed(&device->base) && verbs_serves() && !port_is_up(device)) {
		timer_arm(&device->park_timer, PARK_US);
		return;
	}
	while ((link = list_first(&device->parked)))
		unpark(list_entry(link, struct verbs_conn, park_link));
}

static void park_msg(void *arg)
{
	struct verbs_conn *conn = arg;
	struct verbs_device *device = device_of(conn->conn.device);

	if (list_empty(&device->parked))
		timer_arm(&device->park_timer, PARK_US);
	list_add_tail(&device->parked, &conn->park_link);
}

void verbs_park(struct verbs_conn *conn)
{
	atomic_store(&conn->parked, true);
	atomic_fetch_add(&conn->conn.refs, 1);
	thread_send(runtime_app_thread(), park_msg, conn);
}

void verbs_park_init(struct verbs_device *device)
{
	list_init(&device->parked);
	timer_init(&device->park_timer, park_over, device);
}

#endif
