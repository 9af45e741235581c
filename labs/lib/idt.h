/*
 * The interrupt descriptor table. boot.S has called idt_init() before main() runs: all 256 vectors lead to a handler,
 * which reports what happened on the serial port and ends the run as failed, unless the guest installed its own.
 */
#ifndef LABS_LIB_IDT_H
#define LABS_LIB_IDT_H

#include <stdint.h>

enum exception_vector {
    VECTOR_DE = 0, /* divide error */
    VECTOR_DB = 1, /* debug */
    VECTOR_NMI = 2,
    VECTOR_BP = 3,  /* breakpoint */
    VECTOR_UD = 6,  /* invalid opcode */
    VECTOR_DF = 8,  /* double fault */
    VECTOR_GP = 13, /* general protection */
    VECTOR_PF = 14, /* page fault */
    VECTOR_COUNT = 256,
};

/* The interrupted program, as idt_stubs.S pushes it; the layout is known there. */
struct interrupt_frame {
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t vector;
    uint64_t error_code; /* 0 for a vector without one */
    uint64_t rip, cs, rflags, rsp, ss;
};

/* On return the program goes on with the registers of `frame`, which the handler may have changed. */
typedef void idt_handler(struct interrupt_frame *frame);

void idt_init(void);

/* NULL brings back the handler that reports and ends. */
void idt_set_handler(unsigned vector, idt_handler *handler);

#endif
