// IN and OUT, and the permission check that INS and OUTS share.
//
// SDM 1 19.5 "Protected-Mode I/O": IOPL, then the I/O permission bitmap of the TSS.
#include "cpu/descriptor.h"
#include "cpu/handlers.h"
#include "cpu/system.h"

enum {
    TSS_IO_BASE = 102, // offset of the bitmap's offset
    TSS_IO_MINIMUM_LIMIT = 103,
};

// Reads two bytes of the bitmap always, as processors do: that is why it ends with a byte of ones.
static bool bitmap_allows(struct cpu *cpu, uint16_t port, unsigned size)
{
    const struct segment *tr = &cpu->segments[SEG_TR];
    unsigned type = tr->access_rights & SEGMENT_TYPE;
    uint64_t base, bits;
    bool wide = type == SYSTEM_TSS_AVAILABLE || type == SYSTEM_TSS_BUSY;
    if (!wide || (tr->access_rights & SEGMENT_UNUSABLE) || tr->limit < TSS_IO_MINIMUM_LIMIT) {
        raise_error(cpu, VECTOR_GP, 0);
        return false;
    }
    if (!lin_read(cpu, tr->base + TSS_IO_BASE, 2, &base, MMU_SUPERVISOR))
        return false;
    uint64_t offset = base + port / 8;
    if (offset + 1 > tr->limit) {
        raise_error(cpu, VECTOR_GP, 0);
        return false;
    }
    if (!lin_read(cpu, tr->base + offset, 2, &bits, MMU_SUPERVISOR))
        return false;
    if (bits >> (port & 7) & ((1u << size) - 1)) {
        raise_error(cpu, VECTOR_GP, 0);
        return false;
    }
    return true;
}

enum exec_result io_access_check(struct cpu *cpu, const struct insn *in, uint16_t port, unsigned size)
{
    unsigned iopl = (cpu->rflags_system & RFLAGS_IOPL) >> RFLAGS_IOPL_SHIFT;
    bool bitmap = (cpu->cr0 & CR0_PE) && (cpu_v8086(cpu) || cpu->cpl > iopl);
    if (bitmap && !bitmap_allows(cpu, port, size))
        return EXEC_FAULT;
    return exec_intercept(cpu, in, INTERCEPT_IO, port);
}

static void tell_access(struct cpu *cpu, uint16_t port, unsigned size)
{
    debug_io_access(cpu, port, size);
    if (cpu->env.rescheduled)
        cpu->env.rescheduled(cpu->env.owner);
}

uint64_t io_read(struct cpu *cpu, uint16_t port, unsigned size)
{
    uint64_t value = bus_port_read(cpu->bus, port, size);
    tell_access(cpu, port, size);
    return value;
}

void io_write(struct cpu *cpu, uint16_t port, unsigned size, uint64_t value)
{
    bus_port_write(cpu->bus, port, size, value);
    tell_access(cpu, port, size);
}

static uint16_t port_operand(const struct cpu *cpu, const struct insn *in)
{
    return (uint16_t)(in->has_imm ? (uint64_t)in->imm & 0xFF : cpu->regs[REG_RDX]);
}

enum exec_result exec_in(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    uint16_t port = port_operand(cpu, in);
    enum exec_result r = io_access_check(cpu, in, port, insn_size(in));
    if (r != EXEC_NEXT)
        return r;
    reg_write(cpu, REG_RAX, insn_size(in), io_read(cpu, port, insn_size(in)));
    return exec_end_system(cpu, in);
}

enum exec_result exec_out(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    uint16_t port = port_operand(cpu, in);
    enum exec_result r = io_access_check(cpu, in, port, insn_size(in));
    if (r != EXEC_NEXT)
        return r;
    io_write(cpu, port, insn_size(in), reg_read(cpu, REG_RAX, insn_size(in)));
    return exec_end_system(cpu, in);
}
