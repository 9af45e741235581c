/* The IDT of the 32-bit guests, and recovery from exceptions: start.h. */
#include "check.h"
#include "end.h"
#include "serial.h"
#include "start.h"

enum { STUB_BYTES = 16, INTERRUPT_GATE = 0x8E };

extern const uint8_t idt_stubs[];
void idt_dispatch(struct frame *frame); /* called by every stub */

static uint64_t idt[256] __attribute__((aligned(8)));
volatile struct trap32 trap;
volatile uint32_t trap_resume_eip, trap_resume_esp, trap_first_eip;

void idt_init(void)
{
    for (unsigned vector = 0; vector < 256; vector++) {
        idt[vector] = gate(KERNEL_CS, (uint32_t)&idt_stubs[vector * STUB_BYTES], INTERRUPT_GATE, 0);
    }
    struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) idtr = {sizeof idt - 1, (uint32_t)idt};
    __asm__ volatile("lidt %0" : : "m"(idtr));
}

void idt_write(unsigned vector, uint64_t value) { idt[vector] = value; }
uint64_t idt_read(unsigned vector) { return idt[vector]; }

void idt_dispatch(struct frame *frame)
{
    if (!trap_resume_eip) {
        serial_printf("\nunexpected vector %u, error code 0x%x, EIP 0x%x, CS 0x%x, EFLAGS 0x%x\n", frame->vector,
                      frame->error_code, frame->eip, frame->cs, frame->eflags);
        finish(1);
    }
    trap.taken = true;
    trap.frame = *frame;
    trap.offset = frame->eip - trap_first_eip;
    frame->eip = trap_resume_eip;
    trap_resume_eip = 0;
    /* Every general register but ESP becomes what it was at the fault: the operands of TRY() are still there. */
    __asm__ volatile("mov %0, %%esp\n"
                     "pushl 56(%1)\n" /* eip */
                     "pushl $2\n"
                     "popfl\n"
                     "mov %2, %%eax\n"
                     "mov %%eax, %%ds\n"
                     "mov %%eax, %%es\n"
                     "mov %%eax, %%fs\n"
                     "mov %%eax, %%gs\n"
                     "mov %%eax, %%ss\n"
                     "mov 16(%1), %%edi\n"
                     "mov 20(%1), %%esi\n"
                     "mov 24(%1), %%ebp\n"
                     "mov 32(%1), %%ebx\n"
                     "mov 40(%1), %%ecx\n"
                     "mov 44(%1), %%eax\n"
                     "mov 36(%1), %%edx\n" /* last: %1 */
                     "ret"
                     :
                     : "r"(trap_resume_esp), "d"(frame), "i"(KERNEL_DS));
    __builtin_unreachable();
}

bool trapped(unsigned vector, uint32_t error_code)
{
    return trap.taken && trap.frame.vector == vector && trap.frame.error_code == error_code;
}

void check_trap(unsigned vector, uint32_t error_code, uint32_t offset, const char *what)
{
    if (!check(trapped(vector, error_code) && trap.offset == offset, "%s", what)) {
        note("taken %u: vector %u, error code 0x%x, offset %d; want %u, 0x%x, %u", trap.taken, trap.frame.vector,
             trap.frame.error_code, (int)trap.offset, vector, error_code, offset);
    }
}

/* The 64-bit division that serial.c asks of the compiler's library. */
uint64_t __udivmoddi4(uint64_t dividend, uint64_t divisor, uint64_t *remainder);
uint64_t __udivdi3(uint64_t dividend, uint64_t divisor);
uint64_t __umoddi3(uint64_t dividend, uint64_t divisor);

uint64_t __udivmoddi4(uint64_t dividend, uint64_t divisor, uint64_t *remainder)
{
    uint64_t quotient = 0, rest = 0;
    for (int bit = 63; bit >= 0; bit--) {
        rest = rest << 1 | (dividend >> bit & 1);
        if (rest >= divisor) {
            rest -= divisor;
            quotient |= UINT64_C(1) << bit;
        }
    }
    if (remainder) {
        *remainder = rest;
    }
    return quotient;
}

uint64_t __udivdi3(uint64_t dividend, uint64_t divisor) { return __udivmoddi4(dividend, divisor, 0); }

uint64_t __umoddi3(uint64_t dividend, uint64_t divisor)
{
    uint64_t rest;
    __udivmoddi4(dividend, divisor, &rest);
    return rest;
}
