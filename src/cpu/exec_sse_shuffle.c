// SSE shuffles, unpacks, packs with saturation, and single words in and out of XMM registers.
//
// SDM 1 10.4.4, 11.4.1.3; SDM 2. The MMX forms are the reference executor's.
#include "cpu/sse.h"

// In the index of a lane: taken from the source, not from the destination.
#define FROM_B 16u

#define SHUFFLE(name, lane, size, index)                                             \
    static union vec sse_##name(union vec a, union vec b, unsigned imm)              \
    {                                                                                \
        union vec result;                                                            \
        (void)imm;                                                                   \
        for (unsigned i = 0; i < 16 / sizeof(lane); i++) {                           \
            unsigned from = (index);                                                 \
            const lane *lanes = from & FROM_B ? (const lane *)&b : (const lane *)&a; \
            ((lane *)&result)[i] = lanes[from & (FROM_B - 1)];                       \
        }                                                                            \
        return result;                                                               \
    }
#include "cpu/sse_shuffle.def"
#undef SHUFFLE

ALWAYS_INLINE bool shuffle_work(struct cpu *cpu, const struct insn *in, unsigned size, sse_immediate_fn *op)
{
    union vec source;
    if (!sse_check(cpu) || !sse_read(cpu, in, size, &source))
        return false;
    vec_set(cpu, in->reg, op(vec_get(cpu, in->reg), source, (unsigned)in->imm));
    return true;
}

#define SHUFFLE(name, lane, size, index)                                  \
    NEVER_INLINE bool work_##name(struct cpu *cpu, const struct insn *in) \
    {                                                                     \
        return shuffle_work(cpu, in, size, sse_##name);                   \
    }                                                                     \
    enum exec_result exec_##name(struct cpu *cpu, const struct insn *in)  \
    {                                                                     \
        return sse_complete(cpu, in, work_##name(cpu, in));               \
    }
#include "cpu/sse_shuffle.def"
#undef SHUFFLE

// ---- Packs: the lanes of a, then those of b, in lanes of half the size with saturation ----

ALWAYS_INLINE int clamp(int value, int low, int high) { return value < low ? low : value > high ? high : value; }

static union vec sse_packsswb(union vec a, union vec b)
{
    union vec result;
    for (unsigned i = 0; i < 16; i++)
        result.s8[i] = (int8_t)clamp(i < 8 ? a.s16[i] : b.s16[i - 8], INT8_MIN, INT8_MAX);
    return result;
}

static union vec sse_packuswb(union vec a, union vec b)
{
    union vec result;
    for (unsigned i = 0; i < 16; i++)
        result.u8[i] = (uint8_t)clamp(i < 8 ? a.s16[i] : b.s16[i - 8], 0, UINT8_MAX);
    return result;
}

static union vec sse_packssdw(union vec a, union vec b)
{
    union vec result;
    for (unsigned i = 0; i < 8; i++)
        result.s16[i] = (int16_t)clamp(i < 4 ? a.s32[i] : b.s32[i - 4], INT16_MIN, INT16_MAX);
    return result;
}

NEVER_INLINE bool work_packsswb(struct cpu *cpu, const struct insn *in)
{
    return sse_binary_work(cpu, in, sse_packsswb);
}
NEVER_INLINE bool work_packuswb(struct cpu *cpu, const struct insn *in)
{
    return sse_binary_work(cpu, in, sse_packuswb);
}
NEVER_INLINE bool work_packssdw(struct cpu *cpu, const struct insn *in)
{
    return sse_binary_work(cpu, in, sse_packssdw);
}

enum exec_result exec_packsswb(struct cpu *cpu, const struct insn *in)
{
    return sse_binary(cpu, in, sse_packsswb, work_packsswb);
}
enum exec_result exec_packuswb(struct cpu *cpu, const struct insn *in)
{
    return sse_binary(cpu, in, sse_packuswb, work_packuswb);
}
enum exec_result exec_packssdw(struct cpu *cpu, const struct insn *in)
{
    return sse_binary(cpu, in, sse_packssdw, work_packssdw);
}

// ---- Single words ----

NEVER_INLINE bool insert_word(struct cpu *cpu, const struct insn *in)
{
    uint64_t word;
    if (!sse_check(cpu) || !operand_read(cpu, in, 2, &word))
        return false;
    union vec value = vec_get(cpu, in->reg);
    value.u16[in->imm & 7] = (uint16_t)word;
    vec_set(cpu, in->reg, value);
    return true;
}

enum exec_result exec_pinsrw(struct cpu *cpu, const struct insn *in)
{
    return sse_complete(cpu, in, insert_word(cpu, in));
}

enum exec_result exec_pextrw(struct cpu *cpu, const struct insn *in)
{
    if (!sse_check(cpu))
        return exec_fault(cpu, in);
    unsigned lane = (unsigned)in->imm & 7;
    uint64_t half = lane < 4 ? cpu->xmm[in->rm].lo : cpu->xmm[in->rm].hi;
    reg_write(cpu, in->reg, 4, half >> 16 * (lane & 3) & 0xFFFF);
    return exec_next(cpu, in);
}
