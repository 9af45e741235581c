// SSE conversions between integers, single and double precision.
//
// SDM 1 11.4.1.6, SDM 2. Those from and to MMX registers are the reference executor's.
#include "cpu/sse.h"

enum lane_kind { F32, F64, I32, T32 };

ALWAYS_INLINE unsigned bits_of(enum lane_kind kind) { return kind == F64 ? 64 : 32; }

ALWAYS_INLINE uint64_t convert(struct float_env *env, enum lane_kind from, enum lane_kind to, uint64_t value)
{
    if (from == I32)
        return float_from_integer(env, bits_of(to), (int32_t)value);
    if (to == I32 || to == T32)
        return float_to_integer(env, bits_of(from), value, 32, to == T32);
    return from == F32 ? float_widen(env, (uint32_t)value) : float_narrow(env, value);
}

// Of `size` bytes in memory; lanes from `lanes` on: kept if `merge`, else cleared.
ALWAYS_INLINE bool convert_work(struct cpu *cpu, const struct insn *in, enum lane_kind from, enum lane_kind to,
                                unsigned lanes, unsigned size, bool merge)
{
    union vec source;
    if (!sse_check(cpu) || !sse_read(cpu, in, size, &source))
        return false;
    struct float_env env = {.mxcsr = cpu->mxcsr};
    union vec result = {.xmm = {0, 0}};
    if (merge)
        result = vec_get(cpu, in->reg);
    for (unsigned i = 0; i < lanes; i++)
        vec_set_lane(&result, bits_of(to), i, convert(&env, from, to, vec_lane(&source, bits_of(from), i)));
    if (env.flags && !sse_settle(cpu, env.flags))
        return false;
    vec_set(cpu, in->reg, result);
    return true;
}

ALWAYS_INLINE bool to_general_work(struct cpu *cpu, const struct insn *in, unsigned bits, bool truncate)
{
    union vec source;
    if (!sse_check(cpu) || !sse_read(cpu, in, bits / 8, &source))
        return false;
    struct float_env env = {.mxcsr = cpu->mxcsr};
    unsigned size = in->size_log2 == 3 ? 8 : 4;
    uint64_t result = float_to_integer(&env, bits, vec_lane(&source, bits, 0), size * 8, truncate);
    if (env.flags && !sse_settle(cpu, env.flags))
        return false;
    reg_write(cpu, in->reg, size, result);
    return true;
}

ALWAYS_INLINE bool from_general_work(struct cpu *cpu, const struct insn *in, unsigned bits)
{
    uint64_t value;
    unsigned size = in->size_log2 == 3 ? 8 : 4;
    if (!sse_check(cpu) || !operand_read(cpu, in, size, &value))
        return false;
    struct float_env env = {.mxcsr = cpu->mxcsr};
    union vec result = vec_get(cpu, in->reg);
    vec_set_lane(&result, bits, 0, float_from_integer(&env, bits, (int64_t)sign_extended(value, size)));
    if (env.flags && !sse_settle(cpu, env.flags))
        return false;
    vec_set(cpu, in->reg, result);
    return true;
}

#define WORK(name, call)                                                                   \
    NEVER_INLINE bool work_##name(struct cpu *cpu, const struct insn *in) { return call; } \
    enum exec_result exec_##name(struct cpu *cpu, const struct insn *in)                   \
    {                                                                                      \
        return sse_complete(cpu, in, work_##name(cpu, in));                                \
    }
#define TO_GENERAL(name, bits, truncate)    WORK(name, to_general_work(cpu, in, bits, truncate))
#define FROM_GENERAL(name, bits)            WORK(name, from_general_work(cpu, in, bits))
#define SCALAR(name, from, to)              WORK(name, convert_work(cpu, in, from, to, 1, bits_of(from) / 8, true))
#define PACKED(name, from, to, lanes, size) WORK(name, convert_work(cpu, in, from, to, lanes, size, false))
#include "cpu/sse_convert.def"
#undef WORK
#undef TO_GENERAL
#undef FROM_GENERAL
#undef SCALAR
#undef PACKED
