/* See trap.h. */
#include "trap.h"

#include "boot.h"
#include "check.h"
#include "cpu.h"
#include "io.h"

enum {
    PIC_MASTER_DATA = 0x21,
    PIC_SLAVE_DATA = 0xA1,
};

volatile struct trap trap;
volatile uint64_t trap_resume_rip, trap_resume_rsp, trap_first_rip;

static void take(struct interrupt_frame *frame)
{
    if (!trap_resume_rip) {
        idt_set_handler((unsigned)frame->vector, 0); /* a fault comes again, and is reported */
        return;
    }
    trap.taken = true;
    trap.frame = *frame;
    trap.stack = (uint64_t)(frame + 1);
    trap.cr2 = read_cr2();
    __asm__ volatile("mov %%dr6, %0" : "=r"(trap.dr6));
    trap.offset = frame->rip - trap_first_rip;

    frame->rip = trap_resume_rip;
    frame->cs = BOOT_CS;
    frame->rflags = RFLAGS_FIXED;
    frame->rsp = trap_resume_rsp;
    frame->ss = BOOT_DS;
    trap_resume_rip = 0;
}

void trap_on_vector(unsigned vector) { idt_set_handler(vector, take); }

void trap_init(void)
{
    for (unsigned vector = 0; vector < EXCEPTION_VECTORS; vector++) {
        trap_on_vector(vector);
    }
    outb(PIC_MASTER_DATA, 0xFF); /* firmware may have left lines unmasked */
    outb(PIC_SLAVE_DATA, 0xFF);
}

bool trapped(unsigned vector, uint64_t error_code, uint64_t offset)
{
    return trap.taken && trap.frame.vector == vector && trap.frame.error_code == error_code && trap.offset == offset;
}

void check_trap(unsigned vector, uint64_t error_code, uint64_t offset, const char *what)
{
    if (!check(trapped(vector, error_code, offset), "%s", what)) {
        if (trap.taken) {
            note("vector %lu, error code 0x%lx, offset %ld; want %u, 0x%lx, %ld", trap.frame.vector,
                 trap.frame.error_code, (long)trap.offset, vector, error_code, (long)offset);
        } else {
            note("there was no exception; want vector %u, error code 0x%lx, offset %ld", vector, error_code,
                 (long)offset);
        }
    }
}

void check_no_trap(const char *what)
{
    if (!check(!trap.taken, "%s", what)) {
        note("vector %lu, error code 0x%lx, offset %ld", trap.frame.vector, trap.frame.error_code, (long)trap.offset);
    }
}

struct gate64 *idt_gate(unsigned vector) { return (struct gate64 *)sidt().base + vector; }
