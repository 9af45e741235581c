// See sse_host.h.
#include "sse_host.h"

#if defined(__x86_64__)

#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

_Static_assert(offsetof(struct sse_host_state, rcx) == 32 && offsetof(struct sse_host_state, mxcsr) == 72,
               "as the assembly has it");

void sse_host_call(struct sse_host_state *state, void *code);

__asm__(".text\n"
        ".globl sse_host_call\n"
        "sse_host_call:\n"
        "    push %rbx\n"
        "    push %rbp\n"
        "    push %r12\n"
        "    sub $16, %rsp\n"
        "    stmxcsr (%rsp)\n"
        "    mov %rdi, %rbp\n"
        "    mov %rsi, %r12\n"
        "    movups (%rbp), %xmm1\n"
        "    movups 16(%rbp), %xmm2\n"
        "    mov 32(%rbp), %rcx\n"
        "    mov 40(%rbp), %rdx\n"
        "    mov 48(%rbp), %rbx\n"
        "    mov 56(%rbp), %rdi\n"
        "    ldmxcsr 72(%rbp)\n"
        "    pushq 64(%rbp)\n"
        "    popfq\n"
        "    call *%r12\n"
        "    pushfq\n"
        "    popq 64(%rbp)\n"
        "    cld\n"
        "    movups %xmm1, (%rbp)\n"
        "    movups %xmm2, 16(%rbp)\n"
        "    mov %rcx, 32(%rbp)\n"
        "    mov %rdx, 40(%rbp)\n"
        "    mov %rbx, 48(%rbp)\n"
        "    mov %rdi, 56(%rbp)\n"
        "    stmxcsr 72(%rbp)\n"
        "    ldmxcsr (%rsp)\n"
        "    add $16, %rsp\n"
        "    pop %r12\n"
        "    pop %rbp\n"
        "    pop %rbx\n"
        "    ret\n");

static volatile sig_atomic_t faulted;

// Returns from the code page as its RET would; the kernel restores MXCSR, flags included.
static void on_fault(int number, siginfo_t *info, void *context)
{
    ucontext_t *u = context;
    greg_t *stack = (greg_t *)(uintptr_t)u->uc_mcontext.gregs[REG_RSP];
    (void)number, (void)info;
    faulted = 1;
    u->uc_mcontext.gregs[REG_RIP] = *stack;
    u->uc_mcontext.gregs[REG_RSP] += 8;
}

enum sse_host_result sse_host_run(const uint8_t *code, unsigned length, struct sse_host_state *state)
{
    static uint8_t *page;
    if (!page) {
        page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED) {
            page = NULL;
            return SSE_HOST_UNAVAILABLE;
        }
        struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
        sigaction(SIGFPE, &action, NULL);
    }
    memcpy(page, code, length);
    page[length] = 0xC3; // RET
    faulted = 0;
    sse_host_call(state, page);
    return faulted ? SSE_HOST_FAULT : SSE_HOST_DONE;
}

#else

enum sse_host_result sse_host_run(const uint8_t *code, unsigned length, struct sse_host_state *state)
{
    (void)code, (void)length, (void)state;
    return SSE_HOST_UNAVAILABLE;
}

#endif
