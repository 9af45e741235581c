// SSE moves: between XMM registers, memory and general registers; MXCSR; the access to operands that all SSE handlers use.
//
// SDM 2 (MOVxxx, LDDQU, MASKMOVDQU, PMOVMSKB, LDMXCSR, STMXCSR), SDM 3A 13.1 "Providing OS Support for SSE Extensions".
// Non-temporal hints have no effect: there is no cache to keep clean.
#include "cpu/mxcsr.h"
#include "cpu/sse.h"

bool sse_refuse(struct cpu *cpu)
{
    if ((cpu->cr0 & CR0_EM) || !(cpu->cr4 & CR4_OSFXSR))
        raise_exception(cpu, VECTOR_UD);
    else
        raise_exception(cpu, VECTOR_NM);
    return false;
}

bool sse_read_memory(struct cpu *cpu, const struct insn *in, unsigned size, unsigned alignment, union vec *value)
{
    gva_t linear;
    const void *host;
    value->xmm.hi = 0;
    if (sse_fast_linear(cpu, in, size == 16 ? alignment : size, &linear) && fast_read(cpu, linear, size, &host)) {
        if (size == 16)
            memcpy(value, host, 16);
        else
            value->xmm.lo = host_load(host, size);
        return true;
    }
    uint64_t offset = exec_offset(cpu, in);
    if (size == 16)
        return mem_read_bytes(cpu, in->segment, offset, value, 16, alignment);
    return mem_read(cpu, in->segment, offset, size, &value->xmm.lo);
}

bool sse_write_memory(struct cpu *cpu, const struct insn *in, unsigned size, unsigned alignment, const union vec *value)
{
    gva_t linear;
    void *host;
    if (sse_fast_linear(cpu, in, size == 16 ? alignment : size, &linear) && fast_write(cpu, linear, size, &host)) {
        memcpy(host, value, size);
        return true;
    }
    uint64_t offset = exec_offset(cpu, in);
    if (size == 16)
        return mem_write_bytes(cpu, in->segment, offset, value, 16, alignment);
    return mem_write(cpu, in->segment, offset, size, value->xmm.lo);
}

// ---- All 16 bytes ----

NEVER_INLINE bool move_memory(struct cpu *cpu, const struct insn *in, unsigned alignment)
{
    union vec value;
    if (!sse_check(cpu))
        return false;
    ASSERT(in->form == FORM_MEM, "of register forms only refused instructions come here");
    if (!in->to_reg) {
        value = vec_get(cpu, in->reg);
        return sse_write_memory(cpu, in, 16, alignment, &value);
    }
    if (!sse_read_memory(cpu, in, 16, alignment, &value))
        return false;
    vec_set(cpu, in->reg, value);
    return true;
}

ALWAYS_INLINE enum exec_result move(struct cpu *cpu, const struct insn *in, unsigned alignment)
{
    if (in->form == FORM_REG && sse_usable(cpu)) {
        unsigned to = in->to_reg ? in->reg : in->rm, from = in->to_reg ? in->rm : in->reg;
        vec_set(cpu, to, vec_get(cpu, from));
        return exec_next(cpu, in);
    }
    return sse_complete(cpu, in, move_memory(cpu, in, alignment));
}

enum exec_result exec_sse_move_aligned(struct cpu *cpu, const struct insn *in) { return move(cpu, in, 16); }
enum exec_result exec_sse_move_unaligned(struct cpu *cpu, const struct insn *in) { return move(cpu, in, 1); }

// ---- Scalars and halves ----

// MOVSS, MOVSD: from memory zero-extended, between registers merged.
NEVER_INLINE bool move_scalar(struct cpu *cpu, const struct insn *in, unsigned size)
{
    union vec value;
    if (!sse_check(cpu))
        return false;
    if (in->form == FORM_MEM) {
        if (!in->to_reg) {
            value = vec_get(cpu, in->reg);
            return sse_write_memory(cpu, in, size, 1, &value);
        }
        if (!sse_read_memory(cpu, in, size, 1, &value))
            return false;
        vec_set(cpu, in->reg, value);
        return true;
    }
    unsigned to = in->to_reg ? in->reg : in->rm, from = in->to_reg ? in->rm : in->reg;
    uint64_t mask = size == 8 ? UINT64_MAX : UINT32_MAX;
    cpu->xmm[to].lo = (cpu->xmm[to].lo & ~mask) | (cpu->xmm[from].lo & mask);
    return true;
}

enum exec_result exec_movss(struct cpu *cpu, const struct insn *in)
{
    return sse_complete(cpu, in, move_scalar(cpu, in, 4));
}
enum exec_result exec_movsd_sse(struct cpu *cpu, const struct insn *in)
{
    return sse_complete(cpu, in, move_scalar(cpu, in, 8));
}

// One half from or to memory, the other half kept.
NEVER_INLINE bool move_half(struct cpu *cpu, const struct insn *in, bool high)
{
    uint64_t *half = high ? &cpu->xmm[in->reg].hi : &cpu->xmm[in->reg].lo;
    uint64_t value;
    if (!sse_check(cpu))
        return false;
    if (!in->to_reg)
        return mem_write(cpu, in->segment, exec_offset(cpu, in), 8, *half);
    if (!mem_read(cpu, in->segment, exec_offset(cpu, in), 8, &value))
        return false;
    *half = value;
    return true;
}

enum exec_result exec_sse_move_low(struct cpu *cpu, const struct insn *in)
{
    return sse_complete(cpu, in, move_half(cpu, in, false));
}
enum exec_result exec_sse_move_high(struct cpu *cpu, const struct insn *in)
{
    return sse_complete(cpu, in, move_half(cpu, in, true));
}

enum exec_result exec_movhlps(struct cpu *cpu, const struct insn *in)
{
    if (!sse_check(cpu))
        return exec_fault(cpu, in);
    cpu->xmm[in->reg].lo = cpu->xmm[in->rm].hi;
    return exec_next(cpu, in);
}

enum exec_result exec_movlhps(struct cpu *cpu, const struct insn *in)
{
    if (!sse_check(cpu))
        return exec_fault(cpu, in);
    cpu->xmm[in->reg].hi = cpu->xmm[in->rm].lo;
    return exec_next(cpu, in);
}

// MOVQ between XMM registers or with 8 bytes of memory; the upper half becomes 0.
NEVER_INLINE bool move_quadword(struct cpu *cpu, const struct insn *in)
{
    union vec value;
    if (!sse_check(cpu))
        return false;
    if (in->to_reg) {
        if (!sse_read(cpu, in, 8, &value))
            return false;
        cpu->xmm[in->reg] = (struct xmm){.lo = value.xmm.lo};
        return true;
    }
    value = vec_get(cpu, in->reg);
    if (in->form == FORM_MEM)
        return sse_write_memory(cpu, in, 8, 1, &value);
    cpu->xmm[in->rm] = (struct xmm){.lo = value.xmm.lo};
    return true;
}

enum exec_result exec_sse_movq(struct cpu *cpu, const struct insn *in)
{
    return sse_complete(cpu, in, move_quadword(cpu, in));
}

// ---- General registers ----

NEVER_INLINE bool move_from_general(struct cpu *cpu, const struct insn *in)
{
    uint64_t value;
    if (!sse_check(cpu) || !operand_read(cpu, in, insn_size(in), &value))
        return false;
    cpu->xmm[in->reg] = (struct xmm){.lo = value};
    return true;
}

NEVER_INLINE bool move_to_general(struct cpu *cpu, const struct insn *in)
{
    return sse_check(cpu) && operand_write(cpu, in, insn_size(in), truncated(cpu->xmm[in->reg].lo, insn_size(in)));
}

enum exec_result exec_movd(struct cpu *cpu, const struct insn *in)
{
    return sse_complete(cpu, in, move_from_general(cpu, in));
}
enum exec_result exec_movd_store(struct cpu *cpu, const struct insn *in)
{
    return sse_complete(cpu, in, move_to_general(cpu, in));
}

// The sign bits of the lanes of `size` bytes.
ALWAYS_INLINE unsigned sign_mask(union vec value, unsigned size)
{
    unsigned mask = 0;
    for (unsigned lane = 0; lane < 16 / size; lane++)
        mask |= (unsigned)(value.u8[lane * size + size - 1] >> 7) << lane;
    return mask;
}

ALWAYS_INLINE enum exec_result move_mask(struct cpu *cpu, const struct insn *in, unsigned size)
{
    if (!sse_check(cpu))
        return exec_fault(cpu, in);
    reg_write(cpu, in->reg, 4, sign_mask(vec_get(cpu, in->rm), size));
    return exec_next(cpu, in);
}

enum exec_result exec_movmskps(struct cpu *cpu, const struct insn *in) { return move_mask(cpu, in, 4); }
enum exec_result exec_movmskpd(struct cpu *cpu, const struct insn *in) { return move_mask(cpu, in, 8); }
enum exec_result exec_pmovmskb(struct cpu *cpu, const struct insn *in) { return move_mask(cpu, in, 1); }

// ---- Byte-masked store ----

NEVER_INLINE bool masked_store(struct cpu *cpu, const struct insn *in)
{
    if (!sse_check(cpu))
        return false;
    union vec value = vec_get(cpu, in->reg);
    unsigned mask = sign_mask(vec_get(cpu, in->rm), 1);
    if (!mask)
        return true;
    uint64_t address_mask = cpu->addr_mask[in->addr_log2], offset = cpu->regs[REG_RDI];
    // All bytes are checked before any is written, so that a fault leaves memory as it was.
    for (unsigned i = 0; i < 16; i++)
        if ((mask >> i & 1) && !mem_check_write(cpu, in->segment, (offset + i) & address_mask, 1))
            return false;
    for (unsigned i = 0; i < 16; i++)
        if ((mask >> i & 1) && !mem_write(cpu, in->segment, (offset + i) & address_mask, 1, value.u8[i]))
            return false;
    return true;
}

enum exec_result exec_maskmovdqu(struct cpu *cpu, const struct insn *in)
{
    if (!masked_store(cpu, in))
        return exec_fault(cpu, in);
    return exec_next_slow(cpu, in);
}

// ---- MXCSR ----

NEVER_INLINE bool load_mxcsr(struct cpu *cpu, const struct insn *in)
{
    uint64_t value;
    if (!sse_check(cpu) || !mem_read(cpu, in->segment, exec_offset(cpu, in), 4, &value))
        return false;
    if (value & ~(uint64_t)MXCSR_MASK) {
        raise_error(cpu, VECTOR_GP, 0);
        return false;
    }
    cpu->mxcsr = (uint32_t)value;
    return true;
}

NEVER_INLINE bool store_mxcsr(struct cpu *cpu, const struct insn *in)
{
    return sse_check(cpu) && mem_write(cpu, in->segment, exec_offset(cpu, in), 4, cpu->mxcsr);
}

enum exec_result exec_ldmxcsr(struct cpu *cpu, const struct insn *in)
{
    return sse_complete(cpu, in, load_mxcsr(cpu, in));
}
enum exec_result exec_stmxcsr(struct cpu *cpu, const struct insn *in)
{
    return sse_complete(cpu, in, store_mxcsr(cpu, in));
}
