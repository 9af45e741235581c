// Debug registers at work: instruction, data and I/O breakpoints, single-stepping.
//
// SDM 3B 18.2 "Debug Registers", 18.3 "Debug Exceptions". DR7: L0 G0 .. L3 G3 in bits 7:0, then for breakpoint n R/W in bits 17+4n:16+4n
// and LEN in bits 19+4n:18+4n.
// DEVIATION(btf): with IA32_DEBUGCTL.BTF a taken branch is recognized by where RIP went, so one to within the 15 bytes that follow is missed.
#include "cpu/descriptor.h"
#include "cpu/system.h"

enum breakpoint_kind { BREAK_EXECUTE = 0, BREAK_WRITE = 1, BREAK_IO = 2, BREAK_ACCESS = 3 };

static bool breakpoint_enabled(const struct cpu *cpu, unsigned n) { return (cpu->dr7 >> (2 * n) & 3) != 0; }

static unsigned breakpoint_kind(const struct cpu *cpu, unsigned n) { return (unsigned)(cpu->dr7 >> (16 + 4 * n) & 3); }

// Bytes watched: LEN 0, 1, 2, 3 are 1, 2, 8, 4.
static unsigned breakpoint_length(const struct cpu *cpu, unsigned n)
{
    static const uint8_t length[4] = {1, 2, 8, 4};
    return length[cpu->dr7 >> (18 + 4 * n) & 3];
}

static bool breakpoint_overlaps(const struct cpu *cpu, unsigned n, uint64_t address, unsigned size)
{
    uint64_t length = breakpoint_length(cpu, n), start = cpu->dr[n] & ~(length - 1);
    return address < start + length && start < address + size;
}

void cpu_write_dr7(struct cpu *cpu, uint64_t value)
{
    bool watched = debug_watches_data(cpu);
    cpu->dr7 = (value & DR7_WRITABLE) | DR7_FIXED;
    cpu->pending &= ~(uint32_t)PENDING_BREAKPOINTS;
    for (unsigned n = 0; n < 4; n++)
        if (breakpoint_enabled(cpu, n) && breakpoint_kind(cpu, n) == BREAK_EXECUTE)
            cpu->pending |= PENDING_BREAKPOINTS;
    if (watched != debug_watches_data(cpu))
        cpu_update_mode(cpu);
}

bool debug_instruction_breakpoint(struct cpu *cpu)
{
    if ((cpu->rflags_system & RFLAGS_RF) || (cpu->interruptibility & BLOCKING_MOV_SS))
        return false;
    gva_t linear = cpu->segment_base[SEG_CS] + cpu->regs[REG_RIP];
    if (!cpu_64bit(cpu))
        linear = (uint32_t)linear;
    uint64_t bits = 0;
    for (unsigned n = 0; n < 4; n++)
        if (breakpoint_enabled(cpu, n) && breakpoint_kind(cpu, n) == BREAK_EXECUTE && cpu->dr[n] == linear)
            bits |= BIT(n);
    if (!bits)
        return false;
    cpu->event = (struct event){.vector = VECTOR_DB, .type = EVENT_HARDWARE_EXCEPTION, .cr2 = bits};
    return true;
}

// Makes the trap of every breakpoint whose kind is in `kinds` (one bit a kind) and that the access touches pending.
static void match_traps(struct cpu *cpu, uint64_t address, unsigned size, unsigned kinds)
{
    uint64_t bits = 0;
    for (unsigned n = 0; n < 4; n++) {
        if (!(kinds >> breakpoint_kind(cpu, n) & 1) || !breakpoint_overlaps(cpu, n, address, size))
            continue;
        bits |= BIT(n) | (breakpoint_enabled(cpu, n) ? PENDING_DEBUG_ENABLED : 0);
    }
    if (bits & PENDING_DEBUG_ENABLED)
        debug_trap(cpu, bits);
}

void debug_data_access(struct cpu *cpu, gva_t linear, unsigned size, bool write)
{
    match_traps(cpu, linear, size, write ? 1u << BREAK_WRITE | 1u << BREAK_ACCESS : 1u << BREAK_ACCESS);
}

void debug_io_access(struct cpu *cpu, uint16_t port, unsigned size)
{
    if ((cpu->cr4 & CR4_DE) && (cpu->dr7 & 0xFF))
        match_traps(cpu, port, size, 1u << BREAK_IO);
}

void debug_step_begin(struct cpu *cpu)
{
    cpu->event_delivered = false;
    cpu->step_rip = cpu->regs[REG_RIP];
}

void debug_step_end(struct cpu *cpu)
{
    if (cpu->event_delivered)
        return;
    bool sequential = cpu->regs[REG_RIP] - cpu->step_rip <= INSN_MAX_LENGTH;
    if (!(cpu->debugctl & DEBUGCTL_BTF) || !sequential)
        debug_trap(cpu, PENDING_DEBUG_BS);
}
