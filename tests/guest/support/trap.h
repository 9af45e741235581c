/*
 * Running an instruction that may fault, and looking at what the processor reported. Also the boot IDT's gates.
 *
 *     TRY("mov %%eax, (%0)", : : "r"(pointer) : "memory");
 *     check(trap.taken && trap.frame.vector == VECTOR_PF, ...);
 *
 * SDM 3A "Interrupt and Exception Handling".
 */
#ifndef GUEST_SUPPORT_TRAP_H
#define GUEST_SUPPORT_TRAP_H

#include <stdbool.h>
#include <stdint.h>

#include "idt.h"

enum {
    VECTOR_OF = 4,
    VECTOR_BR = 5,
    VECTOR_NM = 7,
    VECTOR_TS = 10,
    VECTOR_NP = 11,
    VECTOR_SS = 12,
    VECTOR_MF = 16,
    VECTOR_AC = 17,
    VECTOR_XM = 19,
    EXCEPTION_VECTORS = 32,
};

#define RFLAGS_PF   (UINT64_C(1) << 2)
#define RFLAGS_AF   (UINT64_C(1) << 4)
#define RFLAGS_SF   (UINT64_C(1) << 7)
#define RFLAGS_DF   (UINT64_C(1) << 10)
#define RFLAGS_OF   (UINT64_C(1) << 11)
#define RFLAGS_IOPL (UINT64_C(3) << 12)
#define RFLAGS_NT   (UINT64_C(1) << 14)
#define RFLAGS_RF   (UINT64_C(1) << 16)
#define RFLAGS_AC   (UINT64_C(1) << 18)

/* The exception that ended the last TRY() or user_run(). */
struct trap {
    bool taken;
    struct interrupt_frame frame;
    uint64_t stack; /* RSP as the processor's pushes began: the frame's end */
    uint64_t cr2, dr6;
    uint64_t offset; /* of the frame's RIP, from the first instruction of TRY() */
};
extern volatile struct trap trap;

/* Where the handler goes on, and what it looks like there; 0: an exception is reported and ends the run. */
extern volatile uint64_t trap_resume_rip, trap_resume_rsp, trap_first_rip;

/* Makes all 32 exception vectors, and those given, end a TRY(); masks the 8259s. A TRY() must not contain another. */
void trap_init(void);
void trap_on_vector(unsigned vector);

/*
 * Runs the instructions; the first exception ends them, with RFLAGS then 2. The operand lists follow as in an asm
 * statement, beginning with a colon.
 */
#define TRY(instructions, ...)                                          \
    do {                                                                \
        trap.taken = false;                                             \
        __asm__ volatile("movq $77f, trap_resume_rip\n"                 \
                         "movq %%rsp, trap_resume_rsp\n"                \
                         "movq $76f, trap_first_rip\n"                  \
                         "76: " instructions "\n"                       \
                         "77: movq $0, trap_resume_rip\n" __VA_ARGS__); \
    } while (0)

/* Whether the last TRY() ended in this exception, with this error code, at this offset from its first instruction. */
bool trapped(unsigned vector, uint64_t error_code, uint64_t offset);

/* A statement that the last TRY() ended so; prints what it saw instead. */
void check_trap(unsigned vector, uint64_t error_code, uint64_t offset, const char *what);

/* A statement that the last TRY() ended in no exception. */
void check_no_trap(const char *what);

/* A gate of the boot IDT, by its vector. */
struct gate64 {
    uint16_t offset_15_0;
    uint16_t selector;
    uint8_t ist;
    uint8_t type; /* P, DPL, type */
    uint16_t offset_31_16;
    uint32_t offset_63_32;
    uint32_t reserved;
};
enum {
    GATE_DPL_3 = 3 << 5,
    GATE_PRESENT = 1 << 7,
    GATE_INTERRUPT_64 = GATE_PRESENT | 14,
    GATE_TRAP_64 = GATE_PRESENT | 15,
};
struct gate64 *idt_gate(unsigned vector);

#endif
