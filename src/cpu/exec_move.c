// Moving data: MOV MOVZX MOVSX MOVSXD LEA XCHG XADD CMPXCHG CMPXCHG8B CMPXCHG16B BSWAP MOVBE MOVNTI XLAT CBW CWD CMOVcc SETcc,
// and the instructions that do nothing (SDM 2).
#include "cpu/exec_alu.h"
#include "cpu/fast_handlers.h"

// ---- MOV ----

NEVER_INLINE bool do_mov(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    uint64_t value;
    if (in->moffs) {
        uint64_t offset = (uint64_t)in->imm & cpu->addr_mask[in->addr_log2];
        if (!in->to_reg)
            return mem_write(cpu, in->segment, offset, size, reg_read(cpu, in->reg, size));
        if (!mem_read(cpu, in->segment, offset, size, &value))
            return false;
        reg_write(cpu, in->reg, size, value);
        return true;
    }
    if (in->to_reg) {
        if (!operand_read(cpu, in, size, &value))
            return false;
        reg_write(cpu, in->reg, size, value);
        return true;
    }
    value = in->has_imm ? (uint64_t)in->imm : reg_read(cpu, in->reg, size);
    return operand_write(cpu, in, size, value);
}

enum exec_result exec_mov(struct cpu *cpu, const struct insn *in) { return exec_complete(cpu, in, do_mov(cpu, in)); }

ALWAYS_INLINE enum exec_result move(struct cpu *cpu, const struct insn *in, unsigned op, enum insn_kind kind,
                                    unsigned size, unsigned variant)
{
    if (op == OP_XCHG) {
        uint64_t value = reg_read(cpu, in->rm, size);
        reg_write(cpu, in->rm, size, reg_read(cpu, in->reg, size));
        reg_write(cpu, in->reg, size, value);
        return exec_next(cpu, in);
    }
    if (kind == KIND_RM) {
        const void *source;
        if (unlikely(!fast_read(cpu, fast_linear(cpu, in, (enum insn_address)variant), size, &source)))
            return exec_mov(cpu, in);
        reg_write(cpu, in->reg, size, host_load(source, size));
        return exec_next(cpu, in);
    }
    if (kind == KIND_RR || kind == KIND_RI) {
        reg_write(cpu, in->rm, size, kind == KIND_RI ? (uint64_t)in->imm : reg_read(cpu, in->reg, size));
        return exec_next(cpu, in);
    }
    void *target;
    if (unlikely(!fast_write(cpu, fast_linear(cpu, in, (enum insn_address)variant), size, &target)))
        return exec_mov(cpu, in);
    host_store(target, size, kind == KIND_MI ? (uint64_t)in->imm : reg_read(cpu, in->reg, size));
    return exec_next(cpu, in);
}

// ---- MOVZX, MOVSX, MOVSXD: the source's size in bytes is in imm ----

NEVER_INLINE bool do_extend(struct cpu *cpu, const struct insn *in)
{
    unsigned source = (unsigned)in->imm;
    uint64_t value;
    if (!operand_read(cpu, in, source, &value))
        return false;
    reg_write(cpu, in->reg, insn_size(in), in->op == OP_MOVZX ? value : sign_extended(value, source));
    return true;
}

enum exec_result exec_extend(struct cpu *cpu, const struct insn *in)
{
    return exec_complete(cpu, in, do_extend(cpu, in));
}

ALWAYS_INLINE enum exec_result extend(struct cpu *cpu, const struct insn *in, unsigned op, enum insn_kind kind,
                                      unsigned size, unsigned source, unsigned variant)
{
    uint64_t value;
    if (kind == KIND_RM) {
        const void *host;
        if (unlikely(!fast_read(cpu, fast_linear(cpu, in, (enum insn_address)variant), source, &host)))
            return exec_extend(cpu, in);
        value = host_load(host, source);
    } else {
        value = reg_read(cpu, in->rm, source);
    }
    reg_write(cpu, in->reg, size, op == OP_MOVZX ? value : sign_extended(value, source));
    return exec_next(cpu, in);
}

// ---- LEA ----

enum exec_result exec_lea(struct cpu *cpu, const struct insn *in)
{
    reg_write(cpu, in->reg, insn_size(in), exec_offset(cpu, in));
    return exec_next(cpu, in);
}

ALWAYS_INLINE enum exec_result lea(struct cpu *cpu, const struct insn *in, unsigned size, unsigned variant)
{
    uint64_t offset = cpu->regs[in->base] + (uint64_t)(int64_t)in->disp;
    if (variant == ADDRESS_GENERAL)
        offset = (offset + (cpu->regs[in->index] << in->scale)) & cpu->addr_mask[in->addr_log2];
    reg_write(cpu, in->reg, size, offset);
    return exec_next(cpu, in);
}

// ---- Conditional moves ----

// A 32-bit CMOV clears bits 63:32 even if the condition is false; the memory operand is read in any case.
NEVER_INLINE bool do_cmov(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    uint64_t value;
    if (!operand_read(cpu, in, size, &value))
        return false;
    if (!condition(cpu, (unsigned)in->op - OP_CMOVO))
        value = reg_read(cpu, in->reg, size);
    reg_write(cpu, in->reg, size, value);
    return true;
}

enum exec_result exec_cmov(struct cpu *cpu, const struct insn *in) { return exec_complete(cpu, in, do_cmov(cpu, in)); }

ALWAYS_INLINE enum exec_result cmov(struct cpu *cpu, const struct insn *in, unsigned code, enum insn_kind kind,
                                    unsigned size, unsigned variant)
{
    uint64_t value;
    if (kind == KIND_RM) {
        const void *source;
        if (unlikely(!fast_read(cpu, fast_linear(cpu, in, (enum insn_address)variant), size, &source)))
            return exec_cmov(cpu, in);
        value = host_load(source, size);
    } else {
        value = reg_read(cpu, in->rm, size);
    }
    uint64_t old = reg_read(cpu, in->reg, size);
    reg_write(cpu, in->reg, size, condition(cpu, code) ? value : old);
    return exec_next(cpu, in);
}

NEVER_INLINE bool do_setcc(struct cpu *cpu, const struct insn *in)
{
    return operand_write(cpu, in, 1, condition(cpu, (unsigned)in->op - OP_SETO));
}

enum exec_result exec_setcc(struct cpu *cpu, const struct insn *in)
{
    return exec_complete(cpu, in, do_setcc(cpu, in));
}

ALWAYS_INLINE enum exec_result setcc(struct cpu *cpu, const struct insn *in, unsigned code)
{
    reg_write(cpu, in->rm, 1, condition(cpu, code));
    return exec_next(cpu, in);
}

// ---- The rows ----

#define DEFINE_1(name, call) \
    enum exec_result name(struct cpu *cpu, const struct insn *in) { return call; }
#define DEFINE(op, kind, size)                                                                    \
    DEFINE_1(fast_##op##_##kind##_##size##_0, move(cpu, in, OP_##op, KIND_##kind, 1u << size, 0)) \
    DEFINE_1(fast_##op##_##kind##_##size##_1, move(cpu, in, OP_##op, KIND_##kind, 1u << size, 1))
#define MOVE(op, kind) DEFINE(op, kind, 0) DEFINE(op, kind, 1) DEFINE(op, kind, 2) DEFINE(op, kind, 3)
#define EXTEND(op, kind, size, source)                                           \
    DEFINE_1(fast_##op##_##kind##source##_##size##_0,                            \
             extend(cpu, in, OP_##op, KIND_##kind, 1u << size, 1u << source, 0)) \
    DEFINE_1(fast_##op##_##kind##source##_##size##_1,                            \
             extend(cpu, in, OP_##op, KIND_##kind, 1u << size, 1u << source, 1))
#define LEA(op, kind)                            \
    DEFINE_1(fast_LEA_M_2_0, lea(cpu, in, 4, 0)) \
    DEFINE_1(fast_LEA_M_2_1, lea(cpu, in, 4, 1)) \
    DEFINE_1(fast_LEA_M_3_0, lea(cpu, in, 8, 0)) DEFINE_1(fast_LEA_M_3_1, lea(cpu, in, 8, 1))
#define DEFINE_CMOV(code, op, kind, size)                                                      \
    DEFINE_1(fast_##op##_##kind##_##size##_0, cmov(cpu, in, code, KIND_##kind, 1u << size, 0)) \
    DEFINE_1(fast_##op##_##kind##_##size##_1, cmov(cpu, in, code, KIND_##kind, 1u << size, 1))
#define CONDITION(code, jcc, set, mov)                 \
    DEFINE_1(fast_##set##_R_0_0, setcc(cpu, in, code)) \
    DEFINE_1(fast_##set##_R_0_1, setcc(cpu, in, code)) \
    DEFINE_CMOV(code, mov, RR, 2)                      \
    DEFINE_CMOV(code, mov, RR, 3) DEFINE_CMOV(code, mov, RM, 2) DEFINE_CMOV(code, mov, RM, 3)
#include "cpu/handlers.def"
#undef DEFINE_1
#undef DEFINE
#undef DEFINE_CMOV

// ---- Exchanges ----

NEVER_INLINE bool do_xchg(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    uint64_t value;
    uint64_t given = reg_read(cpu, in->reg, size);
    if (!operand_read_for_write(cpu, in, size, &value) || !operand_write(cpu, in, size, given))
        return false;
    reg_write(cpu, in->reg, size, value);
    return true;
}

enum exec_result exec_xchg(struct cpu *cpu, const struct insn *in) { return exec_complete(cpu, in, do_xchg(cpu, in)); }

// With two registers the sum goes to rm last, so that XADD of a register with itself doubles it.
NEVER_INLINE bool do_xadd(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    uint64_t a, b = reg_read(cpu, in->reg, size);
    uint32_t aux;
    if (!operand_read_for_write(cpu, in, size, &a))
        return false;
    uint64_t sum = alu_compute(cpu, OP_ADD, size, a, b, &aux);
    if (in->form == FORM_MEM && !operand_write(cpu, in, size, sum))
        return false;
    reg_write(cpu, in->reg, size, a);
    if (in->form == FORM_REG)
        reg_write(cpu, in->rm, size, sum);
    set_flags(cpu, sum, size, aux);
    return true;
}

enum exec_result exec_xadd(struct cpu *cpu, const struct insn *in) { return exec_complete(cpu, in, do_xadd(cpu, in)); }

// The memory operand is written in either case: with its old value if the comparison fails.
NEVER_INLINE bool do_cmpxchg(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    uint64_t old, accumulator = reg_read(cpu, REG_RAX, size); // AL has byte offset 0
    uint32_t aux;
    if (!operand_read_for_write(cpu, in, size, &old))
        return false;
    uint64_t difference = alu_compute(cpu, OP_CMP, size, accumulator, old, &aux);
    bool equal = old == accumulator;
    uint64_t stored = equal ? reg_read(cpu, in->reg, size) : old;
    if (!(in->form == FORM_REG && !equal) && !operand_write(cpu, in, size, stored))
        return false;
    if (!equal)
        reg_write(cpu, REG_RAX, size, old);
    set_flags(cpu, difference, size, aux);
    return true;
}

enum exec_result exec_cmpxchg(struct cpu *cpu, const struct insn *in)
{
    return exec_complete(cpu, in, do_cmpxchg(cpu, in));
}

static void set_zf(struct cpu *cpu, bool zero)
{
    uint32_t flags = flags_arithmetic(cpu) & ~(uint32_t)RFLAGS_ZF;
    flags_set_arithmetic(cpu, zero ? flags | RFLAGS_ZF : flags);
}

NEVER_INLINE bool do_cmpxchg8b(struct cpu *cpu, const struct insn *in)
{
    uint64_t old, offset = exec_offset(cpu, in);
    if (!mem_read_for_write(cpu, in->segment, offset, 8, &old))
        return false;
    bool equal = old == (cpu->regs[REG_RDX] << 32 | (uint32_t)cpu->regs[REG_RAX]);
    uint64_t stored = equal ? cpu->regs[REG_RCX] << 32 | (uint32_t)cpu->regs[REG_RBX] : old;
    if (!mem_write(cpu, in->segment, offset, 8, stored))
        return false;
    if (!equal) {
        cpu->regs[REG_RAX] = (uint32_t)old;
        cpu->regs[REG_RDX] = old >> 32;
    }
    set_zf(cpu, equal);
    return true;
}

enum exec_result exec_cmpxchg8b(struct cpu *cpu, const struct insn *in)
{
    return exec_complete(cpu, in, do_cmpxchg8b(cpu, in));
}

NEVER_INLINE bool do_cmpxchg16b(struct cpu *cpu, const struct insn *in)
{
    uint64_t old[2], offset = exec_offset(cpu, in);
    if (!mem_check_write(cpu, in->segment, offset, 16) || !mem_read_bytes(cpu, in->segment, offset, old, 16, 16))
        return false;
    bool equal = old[0] == cpu->regs[REG_RAX] && old[1] == cpu->regs[REG_RDX];
    uint64_t stored[2] = {equal ? cpu->regs[REG_RBX] : old[0], equal ? cpu->regs[REG_RCX] : old[1]};
    if (!mem_write_bytes(cpu, in->segment, offset, stored, 16, 16))
        return false;
    if (!equal) {
        cpu->regs[REG_RAX] = old[0];
        cpu->regs[REG_RDX] = old[1];
    }
    set_zf(cpu, equal);
    return true;
}

enum exec_result exec_cmpxchg16b(struct cpu *cpu, const struct insn *in)
{
    return exec_complete(cpu, in, do_cmpxchg16b(cpu, in));
}

// ---- Byte order, tables, sign extension of the accumulator ----

static uint64_t byte_swapped(uint64_t value, unsigned size) { return __builtin_bswap64(value) >> (64 - 8 * size); }

// With a 16-bit operand the SDM leaves the result undefined; processors clear the register.
enum exec_result exec_bswap(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    reg_write(cpu, in->rm, size, size == 2 ? 0 : byte_swapped(reg_read(cpu, in->rm, size), size));
    return exec_next(cpu, in);
}

NEVER_INLINE bool do_movbe(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    uint64_t value;
    if (!in->to_reg)
        return operand_write(cpu, in, size, byte_swapped(reg_read(cpu, in->reg, size), size));
    if (!operand_read(cpu, in, size, &value))
        return false;
    reg_write(cpu, in->reg, size, byte_swapped(value, size));
    return true;
}

enum exec_result exec_movbe(struct cpu *cpu, const struct insn *in)
{
    return exec_complete(cpu, in, do_movbe(cpu, in));
}

NEVER_INLINE bool do_xlat(struct cpu *cpu, const struct insn *in)
{
    uint64_t offset = (cpu->regs[REG_RBX] + (uint8_t)cpu->regs[REG_RAX]) & cpu->addr_mask[in->addr_log2], value;
    if (!mem_read(cpu, in->segment, offset, 1, &value))
        return false;
    reg_write(cpu, 0, 1, value);
    return true;
}

enum exec_result exec_xlat(struct cpu *cpu, const struct insn *in) { return exec_complete(cpu, in, do_xlat(cpu, in)); }

// CBW, CWDE, CDQE.
enum exec_result exec_cbw(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    reg_write(cpu, REG_RAX, size, sign_extended(cpu->regs[REG_RAX], size / 2));
    return exec_next(cpu, in);
}

// CWD, CDQ, CQO.
enum exec_result exec_cwd(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    reg_write(cpu, REG_RDX, size, sign_of(cpu->regs[REG_RAX], size) ? ~(uint64_t)0 : 0);
    return exec_next(cpu, in);
}

// ---- Nothing ----

// NOP, prefetches, cache-line flushes and fences: no caches are modelled and memory is always in order.
// DEVIATION(clflush_faults): CLFLUSH, CLFLUSHOPT and CLWB do not check their address.
enum exec_result exec_nop(struct cpu *cpu, const struct insn *in) { return exec_next(cpu, in); }

enum exec_result exec_pause(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    enum exec_result result = exec_intercept(cpu, in, INTERCEPT_PAUSE, 0);
    if (result != EXEC_NEXT)
        return result;
    return exec_end_system(cpu, in);
}

// SDM 1 8.6 "x87 FPU Exception Handling": #MF for a pending exception, #NM if the task's x87 state is not loaded.
enum exec_result exec_fwait(struct cpu *cpu, const struct insn *in)
{
    const unsigned exception_summary = 1 << 7;
    enum vector vector;
    if ((cpu->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
        vector = VECTOR_NM;
    else if ((cpu->fpu.status & exception_summary) && (cpu->cr0 & CR0_NE))
        vector = VECTOR_MF;
    else
        return exec_next(cpu, in);
    raise_exception(cpu, vector);
    return exec_fault(cpu, in);
}
