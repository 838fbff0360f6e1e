/* Switching stacks: in assembly on x86-64, with ucontext elsewhere. */
#ifndef RUNTIME_FIBER_SWITCH_H
#define RUNTIME_FIBER_SWITCH_H

#include <stddef.h>

#if !defined(__x86_64__) || defined(FIBER_UCONTEXT)
#include <ucontext.h>
struct fiber_context {
	ucontext_t context;
};
#else
struct fiber_context {
	void *sp;
};
#endif

/* Prepares a context that runs entry(), which never returns, on a stack. */
void fiber_context_init(struct fiber_context *context, void *stack, size_t len, void (*entry)(void));
/* Saves where we are in @from and goes on where @to was saved. */
void fiber_context_switch(struct fiber_context *from, struct fiber_context *to);

#endif
