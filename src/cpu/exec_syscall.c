// Calls into the system: SYSCALL, SYSRET, SYSENTER, SYSEXIT, INT n, INT3, INTO, INT1 and BOUND.
//
// SDM 3A 5.8.7 "Performing Fast Calls to System Procedures", 21.3 (INT n in virtual-8086 mode), SDM 2.
#include "cpu/descriptor.h"
#include "cpu/handlers.h"
#include "cpu/profile.h"
#include "cpu/system.h"

// Flags that SYSRET loads from R11.
#define SYSRET_FLAGS UINT64_C(0x3C7FD7)

// Flat segments as the fast calls load them; nothing is read from a descriptor table.
static void load_flat_code(struct cpu *cpu, uint16_t selector, unsigned dpl, bool code64)
{
    cpu->segments[SEG_CS] = (struct segment){
        .selector = selector,
        .limit = 0xFFFFFFFF,
        .access_rights = 0x9B | dpl << SEGMENT_DPL_SHIFT | (uint32_t)(SEGMENT_G | (code64 ? SEGMENT_L : SEGMENT_DB)),
    };
}

static void load_flat_stack(struct cpu *cpu, uint16_t selector, unsigned dpl)
{
    cpu->segments[SEG_SS] = (struct segment){
        .selector = selector,
        .limit = 0xFFFFFFFF,
        .access_rights = 0x93 | dpl << SEGMENT_DPL_SHIFT | (uint32_t)(SEGMENT_G | SEGMENT_DB),
    };
}

static enum exec_result finish(struct cpu *cpu, const struct insn *in, uint64_t rip)
{
    cpu->regs[REG_RIP] = rip;
    cpu_update_mode(cpu);
    exec_retire(cpu, in);
    return EXEC_DONE;
}

enum exec_result exec_syscall(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    if (!cpu_64bit(cpu) || !(cpu->efer & EFER_SCE))
        return raise_exception(cpu, VECTOR_UD);
    uint64_t rflags = cpu_rflags(cpu);
    uint16_t selector = (uint16_t)(cpu->star >> 32) & 0xFFFC;
    cpu->regs[REG_RCX] = system_next_rip(cpu, in);
    cpu->regs[REG_R11] = rflags & ~RFLAGS_RF;
    load_flat_code(cpu, selector, 0, true);
    load_flat_stack(cpu, (uint16_t)(selector + 8), 0);
    cpu_set_rflags(cpu, rflags & ~(cpu->fmask | RFLAGS_RF));
    return finish(cpu, in, cpu->lstar);
}

enum exec_result exec_sysret(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    if (!cpu_64bit(cpu) || !(cpu->efer & EFER_SCE))
        return raise_exception(cpu, VECTOR_UD);
    bool to64 = insn_size(in) == 8;
    uint64_t rip = to64 ? cpu->regs[REG_RCX] : (uint32_t)cpu->regs[REG_RCX];
    if (cpu->cpl != 0 || !is_canonical(rip, cpu->profile->linear_width))
        return raise_error(cpu, VECTOR_GP, 0);
    uint16_t selector = (uint16_t)(cpu->star >> 48);
    load_flat_code(cpu, (uint16_t)((selector + (to64 ? 16 : 0)) | 3), 3, to64);
    load_flat_stack(cpu, (uint16_t)((selector + 8) | 3), 3);
    cpu_set_rflags(cpu, cpu->regs[REG_R11] & SYSRET_FLAGS);
    return finish(cpu, in, rip);
}

enum exec_result exec_sysenter(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    if (!(cpu->cr0 & CR0_PE) || (cpu->sysenter_cs & 0xFFFC) == 0)
        return raise_error(cpu, VECTOR_GP, 0);
    bool long_mode = cpu_long_mode(cpu);
    uint64_t mask = long_mode ? ~(uint64_t)0 : 0xFFFFFFFF;
    uint16_t selector = cpu->sysenter_cs & 0xFFFC;
    cpu->regs[REG_RSP] = cpu->sysenter_esp & mask;
    load_flat_code(cpu, selector, 0, long_mode);
    load_flat_stack(cpu, (uint16_t)(selector + 8), 0);
    cpu_set_rflags(cpu, cpu_rflags(cpu) & ~(RFLAGS_VM | RFLAGS_IF | RFLAGS_RF));
    return finish(cpu, in, cpu->sysenter_eip & mask);
}

enum exec_result exec_sysexit(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    if (!(cpu->cr0 & CR0_PE) || (cpu->sysenter_cs & 0xFFFC) == 0 || cpu->cpl != 0)
        return raise_error(cpu, VECTOR_GP, 0);
    bool to64 = cpu_64bit(cpu) && insn_size(in) == 8;
    uint64_t mask = to64 ? ~(uint64_t)0 : 0xFFFFFFFF, rsp = cpu->regs[REG_RCX] & mask, rip = cpu->regs[REG_RDX] & mask;
    if (!is_canonical(rsp, cpu->profile->linear_width) || !is_canonical(rip, cpu->profile->linear_width))
        return raise_error(cpu, VECTOR_GP, 0);
    uint16_t selector = (uint16_t)((cpu->sysenter_cs & 0xFFFC) + (to64 ? 32 : 16));
    load_flat_code(cpu, (uint16_t)(selector | 3), 3, to64);
    load_flat_stack(cpu, (uint16_t)((selector + 8) | 3), 3);
    cpu->regs[REG_RSP] = rsp;
    return finish(cpu, in, rip);
}

// Ends an INT instruction whose event was delivered, with `r`.
static enum exec_result delivered(struct cpu *cpu, const struct insn *in, enum exec_result r)
{
    if (r == EXEC_DONE)
        exec_retire(cpu, in);
    return r;
}

enum exec_result exec_int(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    uint8_t vector = (uint8_t)in->imm;
    if (cpu_v8086(cpu) && (cpu->rflags_system & RFLAGS_IOPL) != RFLAGS_IOPL) {
        bool redirected;
        if (!v8086_redirection(cpu, vector, &redirected))
            return EXEC_FAULT;
        if (!redirected)
            return raise_error(cpu, VECTOR_GP, 0);
    }
    const struct event event = {.vector = vector, .type = EVENT_SOFTWARE_INTERRUPT, .length = in->length};
    return delivered(cpu, in, cpu_deliver_event(cpu, &event));
}

static enum exec_result software_exception(struct cpu *cpu, const struct insn *in, enum vector vector,
                                           enum event_type type)
{
    const struct event event = {.vector = (uint8_t)vector, .type = (uint8_t)type, .length = in->length};
    return delivered(cpu, in, event_raise(cpu, &event));
}

enum exec_result exec_int3(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    return software_exception(cpu, in, VECTOR_BP, EVENT_SOFTWARE_EXCEPTION);
}

enum exec_result exec_int1(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    return software_exception(cpu, in, VECTOR_DB, EVENT_PRIVILEGED_SOFTWARE_EXCEPTION);
}

enum exec_result exec_into(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    if (!flag_of(cpu))
        return exec_end_system(cpu, in);
    return software_exception(cpu, in, VECTOR_OF, EVENT_SOFTWARE_EXCEPTION);
}

enum exec_result exec_bound(struct cpu *cpu, const struct insn *in)
{
    uint64_t offset = begin_system_operand(cpu, in), lower, upper;
    unsigned size = insn_size(in);
    if (!mem_read(cpu, in->segment, offset, size, &lower) ||
        !mem_read(cpu, in->segment, (offset + size) & cpu->addr_mask[in->addr_log2], size, &upper))
        return EXEC_FAULT;
    int64_t index = (int64_t)sign_extend(reg_read(cpu, in->reg, size), 8 * size);
    if (index < (int64_t)sign_extend(lower, 8 * size) || index > (int64_t)sign_extend(upper, 8 * size))
        return raise_exception(cpu, VECTOR_BR);
    return exec_end_system(cpu, in);
}
