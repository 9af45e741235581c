// SSE2 packed integer arithmetic, logic (also of floating-point vectors), compares and shifts.
//
// SDM 1 11.4.2, SDM 2. One row of sse_integer.def is one operation; the MMX forms are the reference executor's.
#include "cpu/sse.h"

ALWAYS_INLINE int clamp(int value, int low, int high) { return value < low ? low : value > high ? high : value; }

static union vec sse_pmaddwd(union vec x, union vec y)
{
    union vec result;
    for (unsigned i = 0; i < 4; i++)
        result.u32[i] = (uint32_t)(x.s16[2 * i] * y.s16[2 * i]) + (uint32_t)(x.s16[2 * i + 1] * y.s16[2 * i + 1]);
    return result;
}

static union vec sse_psadbw(union vec x, union vec y)
{
    union vec result = {.xmm = {0, 0}};
    for (unsigned i = 0; i < 16; i++)
        result.u64[i / 8] += (uint64_t)(x.u8[i] < y.u8[i] ? y.u8[i] - x.u8[i] : x.u8[i] - y.u8[i]);
    return result;
}

// A loop over the lanes of x and y, in place.
#define LANES(name, lane, result)                                \
    static union vec sse_##name(union vec x, union vec y)        \
    {                                                            \
        for (unsigned i = 0; i < 16 / sizeof(lane); i++) {       \
            lane a = ((lane *)&x)[i], b = ((const lane *)&y)[i]; \
            ((lane *)&x)[i] = (lane)(result);                    \
        }                                                        \
        return x;                                                \
    }
#define VECTOR(name)
#define SHIFT(name, lane, limit, beyond, result)                              \
    static union vec sse_##name(union vec x, uint64_t count)                  \
    {                                                                         \
        for (unsigned i = 0; i < 16 / sizeof(lane); i++) {                    \
            lane a = ((lane *)&x)[i];                                         \
            ((lane *)&x)[i] = (lane)(count >= (limit) ? (beyond) : (result)); \
        }                                                                     \
        return x;                                                             \
    }
#include "cpu/sse_integer.def"
#undef LANES
#undef VECTOR
#undef SHIFT

// reg = shift(reg, low 64 bits of rm), or rm = shift(rm, imm).
ALWAYS_INLINE bool shift_work(struct cpu *cpu, const struct insn *in, union vec (*shift)(union vec, uint64_t))
{
    union vec count = {.xmm = {(uint64_t)in->imm, 0}};
    if (!sse_check(cpu) || (!in->has_imm && !sse_read(cpu, in, 16, &count)))
        return false;
    unsigned number = in->has_imm ? in->rm : in->reg;
    vec_set(cpu, number, shift(vec_get(cpu, number), count.u64[0]));
    return true;
}

#define LANES(name, lane, result) VECTOR(name)
#define VECTOR(name)                                                      \
    NEVER_INLINE bool work_##name(struct cpu *cpu, const struct insn *in) \
    {                                                                     \
        return sse_binary_work(cpu, in, sse_##name);                      \
    }                                                                     \
    enum exec_result exec_##name(struct cpu *cpu, const struct insn *in)  \
    {                                                                     \
        return sse_binary(cpu, in, sse_##name, work_##name);              \
    }
#define SHIFT(name, lane, limit, beyond, result)                                                                      \
    NEVER_INLINE bool work_##name(struct cpu *cpu, const struct insn *in) { return shift_work(cpu, in, sse_##name); } \
    enum exec_result exec_##name(struct cpu *cpu, const struct insn *in)                                              \
    {                                                                                                                 \
        return sse_complete(cpu, in, work_##name(cpu, in));                                                           \
    }
#include "cpu/sse_integer.def"
#undef LANES
#undef VECTOR
#undef SHIFT

// ---- Shifts of the whole register by bytes: immediate only ----

ALWAYS_INLINE unsigned __int128 whole(struct xmm value) { return (unsigned __int128)value.hi << 64 | value.lo; }

ALWAYS_INLINE enum exec_result shift_bytes(struct cpu *cpu, const struct insn *in, bool left)
{
    if (!sse_check(cpu))
        return exec_fault(cpu, in);
    unsigned __int128 value = whole(cpu->xmm[in->rm]);
    unsigned bits = (unsigned)in->imm * 8;
    if (in->imm > 15)
        value = 0;
    else
        value = left ? value << bits : value >> bits;
    cpu->xmm[in->rm] = (struct xmm){(uint64_t)value, (uint64_t)(value >> 64)};
    return exec_next(cpu, in);
}

enum exec_result exec_pslldq(struct cpu *cpu, const struct insn *in) { return shift_bytes(cpu, in, true); }
enum exec_result exec_psrldq(struct cpu *cpu, const struct insn *in) { return shift_bytes(cpu, in, false); }
