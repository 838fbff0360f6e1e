/*
 * Switching stacks.  On x86-64 a switch saves what the System V ABI makes the callee's: six registers and the control
 * words of SSE and x87.  Signal masks stay as they are, which is what makes this a hundred times cheaper than swapcontext().
 */
#include "runtime/fiber_switch.h"

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && !defined(FIBER_UCONTEXT)

void fiber_switch_sp(void **save_sp, void *load_sp);

__asm__(".text\n"
	".p2align 4\n"
	".type fiber_switch_sp, @function\n"
	"fiber_switch_sp:\n"
	"	.cfi_startproc\n"
	"	pushq %rbp\n"
	"	pushq %rbx\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	subq $8, %rsp\n"
	"	stmxcsr (%rsp)\n"
	"	fnstcw 4(%rsp)\n"
	"	movq %rsp, (%rdi)\n"
	"	movq %rsi, %rsp\n"
	"	ldmxcsr (%rsp)\n"
	"	fldcw 4(%rsp)\n"
	"	addq $8, %rsp\n"
	"	popq %r15\n"
	"	popq %r14\n"
	"	popq %r13\n"
	"	popq %r12\n"
	"	popq %rbx\n"
	"	popq %rbp\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size fiber_switch_sp, . - fiber_switch_sp\n");

/* The stack as fiber_switch_sp() leaves it, lowest address first. */
struct saved_frame {
	uint32_t mxcsr;
	uint16_t x87_control, pad;
	uint64_t r15, r14, r13, r12, rbx, rbp;
	uint64_t return_address;
	uint64_t end; /* what entry() would return to: ends a backtrace */
};

void fiber_context_init(struct fiber_context *context, void *stack, size_t len, void (*entry)(void))
{
	struct saved_frame *frame = (struct saved_frame *)((char *)stack + len - sizeof(*frame));

	memset(frame, 0, sizeof(*frame));
	__asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(frame->mxcsr), "=m"(frame->x87_control));
	frame->return_address = (uint64_t)(uintptr_t)entry;
	context->sp = frame;
}

void fiber_context_switch(struct fiber_context *from, struct fiber_context *to)
{
	fiber_switch_sp(&from->sp, to->sp);
}

#else

void fiber_context_init(struct fiber_context *context, void *stack, size_t len, void (*entry)(void))
{
	getcontext(&context->context);
	context->context.uc_stack.ss_sp = stack;
	context->context.uc_stack.ss_size = len;
	context->context.uc_link = NULL;
	makecontext(&context->context, entry, 0);
}

void fiber_context_switch(struct fiber_context *from, struct fiber_context *to)
{
	swapcontext(&from->context, &to->context);
}

#endif
