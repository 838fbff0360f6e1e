/*
 * Static probes: TRACE(room, name, ...) is a USDT probe "room__name" of the provider "ferrule", with up to twelve
 * arguments.  It costs one no-op while nobody looks (perf, bpftrace, SystemTap).
 */
#ifndef RUNTIME_TRACE_H
#define RUNTIME_TRACE_H

#ifdef __clang_analyzer__
#define TRACE(room, name, ...) ((void)0)
#else
#ifndef SDT_USE_VARIADIC
#define SDT_USE_VARIADIC 1
#endif
#include <sys/sdt.h>
#define TRACE(room, name, ...) STAP_PROBEV(ferrule, room##__##name, ##__VA_ARGS__)
#endif

#endif
