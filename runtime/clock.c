/* Time and randomness.  In a simulation both come from the run: virtual time, and the generator of the seed. */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "runtime/internal.h"

#define SIM_EPOCH_MS	    1700000000000ull
#define CALIBRATION_NS	    2000000ull
#define NS_PER_SECOND	    1000000000ull

static uint64_t tick_rate;
static pthread_once_t calibrated = PTHREAD_ONCE_INIT;

static uint64_t read_clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SECOND + (uint64_t)ts.tv_nsec;
}

uint64_t clock_now_ns(void)
{
	if (unlikely(sim_on))
		return sim_now_ns;
	return read_clock_ns(CLOCK_MONOTONIC);
}

uint64_t clock_now_us(void)
{
	return clock_now_ns() / 1000;
}

uint64_t clock_wall_ms(void)
{
	if (unlikely(sim_on))
		return SIM_EPOCH_MS + sim_now_ns / 1000000;
	return read_clock_ns(CLOCK_REALTIME) / 1000000;
}

uint64_t clock_ticks(void)
{
	if (unlikely(sim_on))
		return sim_now_ns;
#ifdef __x86_64__
	return __builtin_ia32_rdtsc();
#else
	return read_clock_ns(CLOCK_MONOTONIC);
#endif
}

/* Watches both clocks for two milliseconds: good to about 50 parts per million. */
static void calibrate(void)
{
#ifdef __x86_64__
	uint64_t ns = read_clock_ns(CLOCK_MONOTONIC), ticks = __builtin_ia32_rdtsc();
	uint64_t end_ns, end_ticks;

	do {
		end_ns = read_clock_ns(CLOCK_MONOTONIC);
		end_ticks = __builtin_ia32_rdtsc();
	} while (end_ns - ns < CALIBRATION_NS);
	tick_rate = (uint64_t)((double)(end_ticks - ticks) * (double)NS_PER_SECOND / (double)(end_ns - ns));
#else
	tick_rate = NS_PER_SECOND;
#endif
}

void clock_init(void)
{
	pthread_once(&calibrated, calibrate);
}

uint64_t clock_tick_rate(void)
{
	if (unlikely(sim_on))
		return NS_PER_SECOND;
	clock_init();
	return tick_rate;
}

/* One step of splitmix64: a counter, well mixed. */
static uint64_t mix(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

uint64_t rand_u64(void)
{
	static __thread uint64_t state;

	if (unlikely(sim_on))
		return sim_rand();
	if (unlikely(!state))
		rand_bytes(&state, sizeof(state));
	return mix(&state);
}

static void rand_bytes_sim(uint8_t *bytes, size_t len)
{
	while (len) {
		uint64_t word = sim_rand();
		size_t part = len < sizeof(word) ? len : sizeof(word);

		memcpy(bytes, &word, part);
		bytes += part;
		len -= part;
	}
}

void rand_bytes(void *buf, size_t len)
{
	uint8_t *bytes = buf;

	if (unlikely(sim_on)) {
		rand_bytes_sim(bytes, len);
		return;
	}
	while (len) {
		ssize_t got = getrandom(bytes, len, 0);

		if (got < 0) {
			if (errno == EINTR)
				continue;
			log_error("the kernel gives no random bytes: %s; ending", strerror(errno));
			abort();
		}
		bytes += got;
		len -= (size_t)got;
	}
}
