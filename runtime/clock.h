/* Time and randomness: the part of the seam (virtual and seeded in a simulation) that everything uses. */
#ifndef RUNTIME_CLOCK_H
#define RUNTIME_CLOCK_H

#include <stddef.h>
#include <stdint.h>

uint64_t clock_now_us(void);	 /* monotonic; microseconds */
uint64_t clock_now_ns(void);	 /* monotonic; nanoseconds */
uint64_t clock_wall_ms(void);	 /* since 1970-01-01 UTC; milliseconds */
uint64_t clock_ticks(void);	 /* the cheapest clock there is (TSC), for latencies */
uint64_t clock_tick_rate(void); /* ticks a second */

uint64_t rand_u64(void);	       /* not for keys */
void rand_bytes(void *buf, size_t len); /* good enough for keys outside a simulation */

#endif
