// The stack: PUSH POP PUSHA POPA PUSHF POPF ENTER LEAVE (SDM 2, SDM 1 6.2).
//
// The width of the stack pointer is that of the stack segment, not of the operand. POPF obeys SDM 2 "POPF", table 4-15.
#include "cpu/exec_stack.h"

#include "cpu/fast_handlers.h"
#include "cpu/system.h"

// ---- PUSH and POP ----

NEVER_INLINE bool do_push(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    uint64_t value;
    if (in->has_imm)
        value = (uint64_t)in->imm;
    else if (!operand_read(cpu, in, size, &value))
        return false;
    return stack_push_value(cpu, size, value);
}

enum exec_result exec_push(struct cpu *cpu, const struct insn *in)
{
    return do_push(cpu, in) ? exec_next_slow(cpu, in) : exec_fault(cpu, in);
}

// A destination in memory that is addressed through the stack pointer is addressed after the pop.
NEVER_INLINE bool do_pop(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    uint64_t value, rsp = cpu->regs[REG_RSP];
    if (!stack_peek(cpu, 0, size, &value))
        return false;
    stack_set(cpu, rsp + size);
    if (operand_write(cpu, in, size, value))
        return true;
    cpu->regs[REG_RSP] = rsp;
    return false;
}

enum exec_result exec_pop(struct cpu *cpu, const struct insn *in)
{
    return do_pop(cpu, in) ? exec_next_slow(cpu, in) : exec_fault(cpu, in);
}

ALWAYS_INLINE enum exec_result push(struct cpu *cpu, const struct insn *in, enum insn_kind kind, unsigned size)
{
    uint64_t rsp = truncated(cpu->regs[REG_RSP] - size, size);
    void *target;
    if (unlikely(!fast_write(cpu, rsp, size, &target)))
        return exec_push(cpu, in);
    host_store(target, size, kind == KIND_I ? (uint64_t)in->imm : cpu->regs[in->rm]);
    cpu->regs[REG_RSP] = rsp;
    return exec_next(cpu, in);
}

ALWAYS_INLINE enum exec_result pop(struct cpu *cpu, const struct insn *in, unsigned size)
{
    uint64_t rsp = truncated(cpu->regs[REG_RSP], size);
    const void *source;
    if (unlikely(!fast_read(cpu, rsp, size, &source)))
        return exec_pop(cpu, in);
    cpu->regs[REG_RSP] = truncated(rsp + size, size);
    cpu->regs[in->rm] = host_load(source, size);
    return exec_next(cpu, in);
}

ALWAYS_INLINE enum exec_result leave(struct cpu *cpu, const struct insn *in, unsigned size)
{
    uint64_t rbp = truncated(cpu->regs[REG_RBP], size);
    const void *source;
    if (unlikely(!fast_read(cpu, rbp, size, &source)))
        return exec_leave(cpu, in);
    cpu->regs[REG_RSP] = truncated(rbp + size, size);
    cpu->regs[REG_RBP] = host_load(source, size);
    return exec_next(cpu, in);
}

ALWAYS_INLINE enum exec_result stack(struct cpu *cpu, const struct insn *in, unsigned op, enum insn_kind kind,
                                     unsigned size)
{
    return op == OP_PUSH ? push(cpu, in, kind, size) : op == OP_POP ? pop(cpu, in, size) : leave(cpu, in, size);
}

#define DEFINE(op, kind, size, variant)                                                              \
    enum exec_result fast_##op##_##kind##_##size##_##variant(struct cpu *cpu, const struct insn *in) \
    {                                                                                                \
        return stack(cpu, in, OP_##op, KIND_##kind, 1u << size);                                     \
    }
#define STACK(op, kind, size) DEFINE(op, kind, size, 0) DEFINE(op, kind, size, 1)
#include "cpu/handlers.def"
#undef DEFINE

// ---- PUSHA and POPA ----

// RSP as it was is stored between RBX and RBP.
NEVER_INLINE bool do_pusha(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    uint64_t rsp = cpu->regs[REG_RSP];
    for (unsigned n = 0; n < 8; n++) {
        uint64_t offset = (rsp - (n + 1) * size) & stack_mask(cpu);
        if (!mem_write(cpu, SEG_SS, offset, size, cpu->regs[n]))
            return false;
    }
    stack_set(cpu, rsp - 8 * size);
    return true;
}

enum exec_result exec_pusha(struct cpu *cpu, const struct insn *in)
{
    return do_pusha(cpu, in) ? exec_next_slow(cpu, in) : exec_fault(cpu, in);
}

NEVER_INLINE bool do_popa(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    uint64_t value[8];
    for (unsigned n = 0; n < 8; n++) {
        if (!stack_peek(cpu, n * size, size, &value[n]))
            return false;
    }
    for (unsigned n = 0; n < 8; n++) {
        if (7 - n != REG_RSP)
            reg_write(cpu, 7 - n, size, value[n]);
    }
    stack_set(cpu, cpu->regs[REG_RSP] + 8 * size);
    return true;
}

enum exec_result exec_popa(struct cpu *cpu, const struct insn *in)
{
    return do_popa(cpu, in) ? exec_next_slow(cpu, in) : exec_fault(cpu, in);
}

// ---- ENTER and LEAVE ----

NEVER_INLINE bool do_enter(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    uint64_t space = (uint64_t)in->imm & 0xFFFF, mask = stack_mask(cpu);
    unsigned level = (unsigned)(in->imm >> 16) & 31;
    uint64_t rsp = cpu->regs[REG_RSP] - size, rbp = cpu->regs[REG_RBP], frame = rsp;
    if (!mem_write(cpu, SEG_SS, rsp & mask, size, rbp))
        return false;
    for (unsigned n = 1; n < level; n++) {
        uint64_t value;
        rbp -= size;
        rsp -= size;
        if (!mem_read(cpu, SEG_SS, rbp & mask, size, &value) || !mem_write(cpu, SEG_SS, rsp & mask, size, value))
            return false;
    }
    if (level > 0) {
        rsp -= size;
        if (!mem_write(cpu, SEG_SS, rsp & mask, size, frame))
            return false;
    }
    rsp -= space;
    if (!mem_check_write(cpu, SEG_SS, rsp & mask, size))
        return false;
    reg_write(cpu, REG_RBP, size, frame);
    stack_set(cpu, rsp);
    return true;
}

enum exec_result exec_enter(struct cpu *cpu, const struct insn *in)
{
    return do_enter(cpu, in) ? exec_next_slow(cpu, in) : exec_fault(cpu, in);
}

NEVER_INLINE bool do_leave(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    uint64_t value, rbp = cpu->regs[REG_RBP];
    if (!mem_read(cpu, SEG_SS, rbp & stack_mask(cpu), size, &value))
        return false;
    stack_set(cpu, rbp + size);
    reg_write(cpu, REG_RBP, size, value);
    return true;
}

enum exec_result exec_leave(struct cpu *cpu, const struct insn *in)
{
    return do_leave(cpu, in) ? exec_next_slow(cpu, in) : exec_fault(cpu, in);
}

// ---- PUSHF and POPF ----

static bool iopl_below_3(const struct cpu *cpu) { return (cpu->rflags_system & RFLAGS_IOPL) != RFLAGS_IOPL; }

// Virtual-8086 mode below IOPL 3: allowed with CR4.VME and 16 bits only (SDM 3A 21.3.3.3).
static bool v8086_virtual_if(const struct cpu *cpu, unsigned size) { return (cpu->cr4 & CR4_VME) && size == 2; }

NEVER_INLINE bool do_pushf(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    uint64_t image = cpu_rflags(cpu) & ~(RFLAGS_VM | RFLAGS_RF);
    if (cpu_v8086(cpu) && iopl_below_3(cpu)) {
        if (!v8086_virtual_if(cpu, size)) {
            raise_error(cpu, VECTOR_GP, 0);
            return false;
        }
        image = (image & ~RFLAGS_IF) | RFLAGS_IOPL | (image & RFLAGS_VIF ? RFLAGS_IF : 0);
    }
    return stack_push_value(cpu, size, image);
}

enum exec_result exec_pushf(struct cpu *cpu, const struct insn *in)
{
    return do_pushf(cpu, in) ? exec_next_slow(cpu, in) : exec_fault(cpu, in);
}

// The bits of RFLAGS that POPF of this size may change here.
static uint64_t popf_changeable(const struct cpu *cpu, unsigned size)
{
    uint64_t bits = RFLAGS_ARITHMETIC | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT;
    if (size != 2)
        bits |= RFLAGS_AC | RFLAGS_ID;
    unsigned iopl = (unsigned)((cpu->rflags_system & RFLAGS_IOPL) >> RFLAGS_IOPL_SHIFT);
    if (cpu->cpl == 0)
        bits |= RFLAGS_IOPL;
    if (cpu->cpl <= iopl)
        bits |= RFLAGS_IF;
    return bits;
}

static uint64_t popf_merged(const struct cpu *cpu, unsigned size, uint64_t popped)
{
    uint64_t changeable = popf_changeable(cpu, size);
    uint64_t rflags = (cpu_rflags(cpu) & ~changeable) | (popped & changeable);
    if (size != 2) {
        rflags &= ~RFLAGS_RF;
        if (cpu_protected(cpu))
            rflags &= ~(RFLAGS_VIP | RFLAGS_VIF);
    }
    return rflags;
}

// POPF in virtual-8086 mode with virtual interrupts: IF goes to VIF.
static bool popf_virtual(struct cpu *cpu, uint64_t popped, uint64_t *rflags)
{
    if (((popped & RFLAGS_IF) && (cpu->rflags_system & RFLAGS_VIP)) || (popped & RFLAGS_TF)) {
        raise_error(cpu, VECTOR_GP, 0);
        return false;
    }
    uint64_t changeable = RFLAGS_ARITHMETIC | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT;
    *rflags =
        (cpu_rflags(cpu) & ~(changeable | RFLAGS_VIF)) | (popped & changeable) | (popped & RFLAGS_IF ? RFLAGS_VIF : 0);
    return true;
}

enum exec_result exec_popf(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    uint64_t popped, rflags;
    exec_begin_system(cpu, in);
    bool virtual_if = cpu_v8086(cpu) && iopl_below_3(cpu);
    if (virtual_if && !v8086_virtual_if(cpu, size))
        return raise_error(cpu, VECTOR_GP, 0);
    if (!stack_peek(cpu, 0, size, &popped))
        return EXEC_FAULT;
    rflags = popf_merged(cpu, size, popped);
    if (virtual_if && !popf_virtual(cpu, popped, &rflags))
        return EXEC_FAULT;
    stack_set(cpu, cpu->regs[REG_RSP] + size);
    cpu_set_rflags(cpu, rflags);
    return exec_end_system(cpu, in);
}
