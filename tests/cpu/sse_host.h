// The host processor as an oracle for SSE: runs one instruction on xmm1, xmm2 and a few general registers.
//
// Unlike host_oracle.h it returns MXCSR after an unmasked exception. In a file of its own: <ucontext.h> and cpu/insn.h
// name registers alike.
#ifndef VMXON_TESTS_SSE_HOST_H
#define VMXON_TESTS_SSE_HOST_H

#include <stdbool.h>
#include <stdint.h>

// The layout is known to the assembly in sse_host.c.
struct sse_host_state {
    uint64_t xmm1[2], xmm2[2];
    uint64_t rcx, rdx, rbx, rdi;
    uint64_t rflags;
    uint32_t mxcsr;
};

enum sse_host_result {
    SSE_HOST_DONE,
    SSE_HOST_FAULT,       // SIMD floating-point exception: of the state only mxcsr is meaningful
    SSE_HOST_UNAVAILABLE, // not an x86-64 host
};

// code: `length` bytes of one instruction that names no other registers.
enum sse_host_result sse_host_run(const uint8_t *code, unsigned length, struct sse_host_state *state);

#endif
