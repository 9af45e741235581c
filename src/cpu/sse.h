// What the SSE handlers (exec_sse_*.c) share: XMM values, the check before every instruction, operands.
//
// A handler has a work function that is never inlined: it may pass pointers to its locals, which a handler that ends in a
// tail call must not. Where the operands are registers and the operation is pure, the handler does without it.
#ifndef VMXON_CPU_SSE_H
#define VMXON_CPU_SSE_H

#include "cpu/exec_fast.h"
#include "cpu/sse_float.h"

union vec {
    struct xmm xmm;
    uint8_t u8[16];
    int8_t s8[16];
    uint16_t u16[8];
    int16_t s16[8];
    uint32_t u32[4];
    int32_t s32[4];
    uint64_t u64[2];
};
static_assert(sizeof(union vec) == 16, "an XMM register");

typedef union vec sse_binary_fn(union vec a, union vec b);
typedef union vec sse_immediate_fn(union vec a, union vec b, unsigned imm);

// Raises what an SSE instruction raises in the present state of CR0 and CR4. Returns false.
bool sse_refuse(struct cpu *cpu);

ALWAYS_INLINE bool sse_usable(const struct cpu *cpu)
{
    return likely(!(cpu->cr0 & (CR0_EM | CR0_TS)) && (cpu->cr4 & CR4_OSFXSR));
}

// False: #UD or #NM is in cpu->event.
ALWAYS_INLINE bool sse_check(struct cpu *cpu) { return sse_usable(cpu) || sse_refuse(cpu); }

ALWAYS_INLINE union vec vec_get(const struct cpu *cpu, unsigned number) { return (union vec){.xmm = cpu->xmm[number]}; }

ALWAYS_INLINE void vec_set(struct cpu *cpu, unsigned number, union vec value) { cpu->xmm[number] = value.xmm; }

// Ends a handler whose work function returned `done`. Unlike exec_complete it goes on in the block after an access, too: no
// local of the handler has its address taken.
ALWAYS_INLINE enum exec_result sse_complete(struct cpu *cpu, const struct insn *in, bool done)
{
    if (unlikely(!done))
        return exec_fault(cpu, in);
    if (in->form != FORM_REG && unlikely(cpu->stop_block || cpu->cycles_left < 0))
        return exec_leave_after(cpu, in);
    return exec_next(cpu, in);
}

// The linear address of a memory operand that may be looked up in the fast TLB: no segment or alignment check can fail.
// alignment: bytes; also of a scalar, so that alignment checks (#AC) are left to the complete way.
ALWAYS_INLINE bool sse_fast_linear(const struct cpu *cpu, const struct insn *in, unsigned alignment, gva_t *linear)
{
    *linear = fast_linear(cpu, in, ADDRESS_GENERAL);
    bool flat = (cpu->mode & MODE_FLAT) && !(in->flags & INSN_RIP_WRAP) &&
                (cpu_64bit(cpu) || (in->segment < SEG_FS && in->segment != SEG_CS));
    return likely(flat && !(*linear & (alignment - 1)));
}

// The rm operand: an XMM register in full, or `size` bytes of memory (2, 4, 8, 16), zero-extended. alignment: bytes; 1: none.
bool sse_read_memory(struct cpu *cpu, const struct insn *in, unsigned size, unsigned alignment, union vec *value);
bool sse_write_memory(struct cpu *cpu, const struct insn *in, unsigned size, unsigned alignment,
                      const union vec *value);

ALWAYS_INLINE bool sse_read(struct cpu *cpu, const struct insn *in, unsigned size, union vec *value)
{
    if (in->form == FORM_MEM)
        return sse_read_memory(cpu, in, size, size == 16 ? 16 : 1, value);
    *value = vec_get(cpu, in->rm);
    return true;
}

// The work of reg = op(reg, rm).
ALWAYS_INLINE bool sse_binary_work(struct cpu *cpu, const struct insn *in, sse_binary_fn *op)
{
    union vec source;
    if (!sse_check(cpu) || !sse_read(cpu, in, 16, &source))
        return false;
    vec_set(cpu, in->reg, op(vec_get(cpu, in->reg), source));
    return true;
}

// The handler of reg = op(reg, rm), if `work` does the same with all checks.
ALWAYS_INLINE enum exec_result sse_binary(struct cpu *cpu, const struct insn *in, sse_binary_fn *op,
                                          bool (*work)(struct cpu *, const struct insn *))
{
    if (likely(in->form == FORM_REG && sse_usable(cpu))) {
        vec_set(cpu, in->reg, op(vec_get(cpu, in->reg), vec_get(cpu, in->rm)));
        return exec_next(cpu, in);
    }
    return sse_complete(cpu, in, work(cpu, in));
}

// ---- Floating point ----

ALWAYS_INLINE uint64_t vec_lane(const union vec *value, unsigned bits, unsigned lane)
{
    return bits == 32 ? value->u32[lane] : value->u64[lane];
}

ALWAYS_INLINE void vec_set_lane(union vec *value, unsigned bits, unsigned lane, uint64_t content)
{
    if (bits == 32)
        value->u32[lane] = (uint32_t)content;
    else
        value->u64[lane] = content;
}

// Adds the flags of an instruction to MXCSR. False: one is unmasked and its exception in cpu->event; nothing else may be committed.
bool sse_settle(struct cpu *cpu, uint32_t flags);

#endif
