/*
 * Allocations that can be told to fail, the n-th of them, in libblob_mutants.a; everywhere else this changes nothing.
 * Included last by blob/internal.h and lvol/internal.h, so that it is only those rooms' own calls that it is about.
 */
#ifndef BLOB_MUTANT_ALLOC_H
#define BLOB_MUTANT_ALLOC_H

#ifdef BLOB_MUTANTS

#define malloc(...)	   (mutant_alloc_fails() ? NULL : malloc(__VA_ARGS__))
#define calloc(...)	   (mutant_alloc_fails() ? NULL : calloc(__VA_ARGS__))
#define realloc(...)	   (mutant_alloc_fails() ? NULL : realloc(__VA_ARGS__))
#define strdup(...)	   (mutant_alloc_fails() ? NULL : strdup(__VA_ARGS__))
#define strndup(...)	   (mutant_alloc_fails() ? NULL : strndup(__VA_ARGS__))
#define dma_alloc(...)	   (mutant_alloc_fails() ? NULL : dma_alloc(__VA_ARGS__))
#define dma_alloc_dirty(...) (mutant_alloc_fails() ? NULL : dma_alloc_dirty(__VA_ARGS__))
#define fiber_spawn(...)   (mutant_alloc_fails() ? -ENOMEM : fiber_spawn(__VA_ARGS__))

#endif
#endif
