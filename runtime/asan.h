/* AddressSanitizer, when the build has it (gcc's and clang's way of saying so differ); otherwise its macros
 * do nothing. */
#ifndef RUNTIME_ASAN_H
#define RUNTIME_ASAN_H

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif

#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define WITH_ASAN                             0
#define ASAN_POISON_MEMORY_REGION(buf, len)   ((void)(buf), (void)(len))
#define ASAN_UNPOISON_MEMORY_REGION(buf, len) ((void)(buf), (void)(len))
#endif

#endif
