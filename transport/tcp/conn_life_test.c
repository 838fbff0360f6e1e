/* Comings and goings of connections: hosts that vanish, say nothing, stop in the middle, or do not read. */
#include "transport/tcp/conn_testing.h"

SIM_TEST(a_host_may_vanish_at_any_byte)
{
	union nvme_cmd write = raw_rw(NVME_IO_WRITE, 9, 0, 256, false), read = raw_rw(NVME_IO_READ, 3, 0, 256, false);
	struct nvme_tcp_ic_req ic = { .hdr = { .type = NVME_TCP_IC_REQ, .hlen = 128, .plen = 128 }, .dgst = 3 };

	for (unsigned i = 0; i < 2; i++) { /* FIN, RST */
		struct raw_host host;
		size_t len;

		raw_open(&host, &addr); /* before ICReq */
		raw_close(&host, i);
		for (size_t n = 1; n <= 128; n += 127) { /* in it, and right after it */
			raw_open(&host, &addr);
			ck_assert(raw_send(&host, &ic, n));
			raw_close(&host, i);
		}
		raw_open(&host, &addr); /* after ICResp */
		raw_ic(&host, 3, 0);
		raw_close(&host, i);
		raw_up(&host, &addr, 3, 8); /* while its data is being sent, and a read is held */
		fake.hold = true;
		ck_assert(raw_send_cmd(&host, &read, NULL, 0));
		ck_assert(raw_send_cmd(&host, &write, NULL, 0));
		len = raw_make_h2c(&host, pdus, 9, raw_expect_r2t(&host, 9, 131072), 0, data, 131072, true);
		ck_assert(raw_send(&host, pdus, len / 2));
		raw_close(&host, i);
		fake_wait_for(&fake.nr_qpairs, 0);
		fake.hold = false;
		raw_up(&host, &addr, 0, 8); /* before it has read its answer */
		ck_assert(raw_send_cmd(&host, &read, NULL, 0));
		raw_close(&host, i);
	}
}

SIM_TEST(a_connection_without_icreq_or_connect_is_closed_in_time)
{
	struct raw_host silent, half, shy;

	raw_open(&silent, &addr);
	raw_open(&half, &addr);
	ck_assert(raw_send(&half, "\0\0\200", 3));
	raw_open(&shy, &addr);
	raw_ic(&shy, 0, 0);
	raw_expect_end(&silent);
	raw_expect_end(&half);
	raw_expect_end(&shy);
	ck_assert_uint_le(clock_now_us(), 20000000);
	fake_wait_for(&fake.nr_qpairs, 0);
	raw_close(&silent, false);
	raw_close(&half, false);
	raw_close(&shy, false);
}

SIM_TEST(an_icreq_or_connect_that_has_begun_has_two_seconds_however_it_trickles)
{
	struct nvme_tcp_ic_req ic = { .hdr = { .type = NVME_TCP_IC_REQ, .hlen = 128, .plen = 128 } };
	struct raw_host silent, icreq, connect, trickle, late;

	raw_open(&silent, &addr);
	raw_open(&icreq, &addr);
	raw_open(&connect, &addr);
	raw_ic(&connect, 0, 0);
	raw_open(&trickle, &addr);
	fiber_sleep(2500000); /* to say nothing is another matter */
	ck_assert(raw_send(&icreq, &ic, 3));
	ck_assert(raw_send(&connect, "\4\0\110\110\110\4\0\0", 8));
	raw_open(&late, &addr);
	ck_assert(raw_send(&late, &ic, 100));
	for (unsigned i = 0; i < 9; i++) {
		ck_assert(raw_send(&trickle, (uint8_t *)&ic + i, 1));
		fiber_sleep(200000);
	}
	ck_assert_uint_eq(fake.nr_qpairs, 5);
	ck_assert(raw_send(&late, (uint8_t *)&ic + 100, 28)); /* who ends it in time goes on */
	ck_assert_ptr_nonnull(raw_recv(&late));
	raw_next(&late);
	fiber_sleep(400000);
	ck_assert_uint_eq(fake.nr_qpairs, 2); /* the silent and the late one */
	raw_expect_end(&icreq);
	raw_expect_end(&connect);
	raw_expect_end(&trickle);
	ck_assert_uint_eq(raw_connect(&late, 1, 8), NVME_SC_SUCCESS);
	raw_close(&silent, false);
	raw_close(&icreq, false);
	raw_close(&connect, false);
	raw_close(&trickle, false);
	raw_close(&late, false);
}

SIM_TEST(a_flood_of_connections_that_say_nothing_costs_only_the_oldest)
{
	static struct raw_host hosts[1100];
	struct raw_host good;

	raw_up(&good, &addr, 0, 8);
	for (unsigned i = 0; i < 1100; i++) {
		raw_open(&hosts[i], &addr);
		free(hosts[i].rx);
		hosts[i].rx = NULL;
	}
	fiber_sleep(50000);
	ck_assert_uint_le(fake.nr_qpairs, 1026);
	write_in_capsule(&good, 1, 0, data, 4096);
	for (unsigned i = 0; i < 1100; i++)
		stream_close(hosts[i].stream, true);
	raw_close(&good, false);
}

SIM_TEST(a_host_that_stops_in_the_middle_is_given_up)
{
	struct raw_host capsule, payload, no_data, good;
	union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, 9, 0, 256, false);
	size_t len;

	raw_up(&good, &addr, 0, 8);
	raw_up(&capsule, &addr, 0, 8);
	ck_assert(raw_send(&capsule, "\4\0\110\0\110\0\0\0", 8));
	raw_up(&payload, &addr, 0, 8);
	ck_assert(raw_send_cmd(&payload, &cmd, NULL, 0));
	len = raw_make_h2c(&payload, pdus, 9, raw_expect_r2t(&payload, 9, 131072), 0, data, 131072, true);
	ck_assert(raw_send(&payload, pdus, len - 5));
	raw_up(&no_data, &addr, 0, 8);
	ck_assert(raw_send_cmd(&no_data, &cmd, NULL, 0));
	raw_expect_r2t(&no_data, 9, 131072);
	for (unsigned i = 0; i < 60; i++) { /* an idle minute, but not in silence */
		union nvme_cmd flush = raw_rw(NVME_IO_FLUSH, 1, 0, 1, false);

		fiber_sleep(1000000);
		if (i < 20) {
			ck_assert(raw_send_cmd(&no_data, &flush, NULL, 0));
			ck_assert_uint_eq(raw_expect_resp(&no_data, 1), NVME_SC_SUCCESS);
		}
		if (i == 7)
			ck_assert_uint_eq(fake.nr_qpairs, 4); /* a lost segment may come again after 6.4 s */
		else if (i == 12)
			ck_assert_uint_eq(fake.nr_qpairs, 2); /* nobody is in the middle of a PDU any more */
	}
	ck_assert_uint_eq(fake.nr_qpairs, 1);
	write_in_capsule(&good, 1, 0, data, 4096);
	raw_close(&good, false);
	raw_close(&capsule, false);
	raw_close(&payload, false);
	raw_close(&no_data, false);
}

SIM_TEST(a_host_that_does_not_read_holds_bounded_memory_and_hurts_nobody)
{
	struct raw_host bad, good;
	union nvme_cmd cmd = raw_rw(NVME_IO_READ, 1, 0, 2048, false);

	raw_up(&good, &addr, 0, 8);
	raw_up(&bad, &addr, 0, 128);
	for (unsigned i = 0; i < 127; i++)
		ck_assert(raw_send_cmd(&bad, &cmd, NULL, 0));
	for (unsigned i = 0; i < 60; i++) {
		fiber_sleep(1000000);
		write_in_capsule(&good, 1, 0, data, 4096);
		ck_assert(read_back(&good, 1, 0, 4096));
	}
	ck_assert_uint_le(fake.max_buffer_bytes, (16u << 20) + 4096);
	ck_assert_uint_eq(fake.nr_qpairs, 1); /* it was given up */
	raw_close(&bad, false);
	raw_close(&good, false);
}

SIM_TEST(hosts_that_sit_on_buffers_others_wait_for_are_given_up_soon)
{
	struct raw_host no_data, no_read, good;
	union nvme_cmd write = raw_rw(NVME_IO_WRITE, 9, 0, 256, false), read = raw_rw(NVME_IO_READ, 1, 0, 2048, false);

	raw_up(&good, &addr, 0, 8);
	raw_up(&no_data, &addr, 0, 8);
	ck_assert(raw_send_cmd(&no_data, &write, NULL, 0));
	raw_expect_r2t(&no_data, 9, 131072);
	raw_up(&no_read, &addr, 0, 128);
	for (unsigned i = 0; i < 127; i++)
		ck_assert(raw_send_cmd(&no_read, &read, NULL, 0));
	fiber_sleep(5000000);
	ck_assert_uint_eq(fake.nr_qpairs, 3); /* nobody waits for what they have */
	fake.buffers_short = true;
	fiber_sleep(4000000);
	ck_assert_uint_eq(fake.nr_qpairs, 1);
	write_in_capsule(&good, 1, 0, data, 4096);
	ck_assert(read_back(&good, 1, 0, 4096));
	raw_close(&no_read, false);
	raw_close(&no_data, false);
	raw_close(&good, false);
}

SIM_TEST(a_host_that_reads_late_gets_everything_in_order)
{
	struct raw_host host;
	union nvme_cmd cmd;

	memcpy(fake.disk, data, sizeof(fake.disk));
	raw_up(&host, &addr, 2, 64);
	for (uint16_t i = 0; i < 63; i++) {
		cmd = raw_rw(NVME_IO_READ, i, i, 2048, false);
		ck_assert(raw_send_cmd(&host, &cmd, NULL, 0));
	}
	fiber_sleep(10000000);
	for (uint16_t i = 0; i < 63; i++) {
		ck_assert(raw_expect_data(&host, i, back, 1u << 20));
		ck_assert_int_eq(memcmp(back, data + 512 * i, 1u << 20), 0);
	}
	raw_close(&host, false);
}

SIM_TEST(a_graceful_close_sends_what_is_queued_first)
{
	struct raw_host host;
	union nvme_cmd cmd = raw_rw(NVME_IO_READ, 1, 0, 2048, false);

	memcpy(fake.disk, data, sizeof(fake.disk));
	fake.hold = true;
	raw_up(&host, &addr, 0, 8);
	ck_assert(raw_send_cmd(&host, &cmd, NULL, 0));
	fake_wait_for(&fake.nr_begun, 2);
	fake_release();
	fake_close_last(true);
	ck_assert(raw_expect_data(&host, 1, back, 1u << 20));
	ck_assert_int_eq(memcmp(back, data, 1u << 20), 0);
	raw_expect_end(&host);
	raw_close(&host, false);
}

SIM_TEST(nvmf_may_close_at_any_time)
{
	struct raw_host host;
	union nvme_cmd cmd = raw_rw(NVME_IO_WRITE, 1, 0, 256, false);

	raw_up(&host, &addr, 0, 8);
	ck_assert(raw_send_cmd(&host, &cmd, NULL, 0));
	raw_expect_r2t(&host, 1, 131072);
	fake_close_last(false);
	raw_expect_end(&host);
	raw_close(&host, false);
	raw_open(&host, &addr);
	fake_wait_for(&fake.nr_qpairs, 1);
	fake_close_last(true);
	raw_expect_end(&host);
	raw_close(&host, false);
}

int main(void)
{
	const TTest *const tests[] = {
		a_host_may_vanish_at_any_byte,
		a_connection_without_icreq_or_connect_is_closed_in_time,
		an_icreq_or_connect_that_has_begun_has_two_seconds_however_it_trickles,
		a_flood_of_connections_that_say_nothing_costs_only_the_oldest,
		a_host_that_stops_in_the_middle_is_given_up,
		a_host_that_does_not_read_holds_bounded_memory_and_hurts_nobody,
		hosts_that_sit_on_buffers_others_wait_for_are_given_up_soon,
		a_host_that_reads_late_gets_everything_in_order,
		a_graceful_close_sends_what_is_queued_first,
		nvmf_may_close_at_any_time,
	};

	return run_sim_tests("tcp connections' lives", tests, sizeof(tests) / sizeof(tests[0]));
}
