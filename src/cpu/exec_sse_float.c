// SSE floating-point arithmetic, compares and approximations.
//
// SDM 1 11.5.4 "Handling SIMD Floating-Point Exceptions in Software", SDM 2. The arithmetic is in sse_float.c; the host's is used where
// it is certain to give the same: default rounding, nothing to signal that is not signaled already, no special values.
#include "cpu/sse.h"

enum shape { PACKED, SCALAR, HORIZONTAL, ALTERNATING };

#define PRE_COMPUTATION (MXCSR_IE | MXCSR_DE | MXCSR_ZE)

bool sse_settle(struct cpu *cpu, uint32_t flags)
{
    uint32_t unmasked = flags & ~(cpu->mxcsr >> MXCSR_MASKS_SHIFT) & MXCSR_FLAGS;
    // All lanes are checked for these before any is computed.
    if (unmasked & PRE_COMPUTATION)
        flags &= PRE_COMPUTATION;
    cpu->mxcsr |= flags;
    if (likely(!unmasked))
        return true;
    raise_exception(cpu, cpu->cr4 & CR4_OSXMMEXCPT ? VECTOR_XM : VECTOR_UD);
    return false;
}

// ---- Arithmetic on the host ----

// Rounding to nearest, and an inexact result would change nothing.
ALWAYS_INLINE bool host_arithmetic_allowed(uint32_t mxcsr)
{
    return (mxcsr & (3u << MXCSR_RC_SHIFT | MXCSR_PE | MXCSR_PM)) == (MXCSR_PE | MXCSR_PM);
}

ALWAYS_INLINE unsigned exponent_field(unsigned bits, uint64_t value)
{
    return (unsigned)(bits == 32 ? value >> 23 & 0xFF : value >> 52 & 0x7FF);
}

// A normal number or zero.
ALWAYS_INLINE bool is_plain(unsigned bits, uint64_t value)
{
    unsigned exponent = exponent_field(bits, value), largest = bits == 32 ? 0xFF : 0x7FF;
    return exponent - 1 < largest - 1 || value << (65 - bits) == 0;
}

// A normal number that no rounding took out of the tiny ones.
ALWAYS_INLINE bool is_clear_of_tiny(unsigned bits, uint64_t value)
{
    return exponent_field(bits, value) - 2 < (bits == 32 ? 0xFFu : 0x7FFu) - 2;
}

ALWAYS_INLINE uint64_t host_operate(unsigned bits, enum float_op op, uint64_t a, uint64_t b)
{
    uint64_t result = 0;
    if (bits == 32) {
        uint32_t a32 = (uint32_t)a, b32 = (uint32_t)b;
        float x, y;
        memcpy(&x, &a32, 4);
        memcpy(&y, &b32, 4);
        x = op == FLOAT_ADD ? x + y : op == FLOAT_SUB ? x - y : op == FLOAT_MUL ? x * y : x / y;
        memcpy(&a32, &x, 4);
        result = a32;
    } else {
        double x, y;
        memcpy(&x, &a, 8);
        memcpy(&y, &b, 8);
        x = op == FLOAT_ADD ? x + y : op == FLOAT_SUB ? x - y : op == FLOAT_MUL ? x * y : x / y;
        memcpy(&result, &x, 8);
    }
    return result;
}

ALWAYS_INLINE uint64_t lane_operate(struct float_env *env, unsigned bits, enum float_op op, uint64_t a, uint64_t b)
{
    if (op <= FLOAT_DIV && likely(host_arithmetic_allowed(env->mxcsr) && is_plain(bits, a) && is_plain(bits, b))) {
        uint64_t result = host_operate(bits, op, a, b);
        if (likely(is_clear_of_tiny(bits, result)))
            return result;
    }
    return float_operate(env, bits, op, a, b);
}

// ---- Arithmetic ----

ALWAYS_INLINE union vec arithmetic(struct float_env *env, union vec a, union vec b, enum float_op op, unsigned bits,
                                   enum shape shape)
{
    union vec result = a;
    unsigned count = shape == SCALAR ? 1 : 128 / bits;
    for (unsigned i = 0; i < count; i++) {
        uint64_t x = vec_lane(&a, bits, i), y = vec_lane(&b, bits, i);
        enum float_op lane_op = op;
        if (shape == HORIZONTAL) {
            const union vec *pairs = i < count / 2 ? &a : &b;
            unsigned first = 2 * i % count;
            x = vec_lane(pairs, bits, first);
            y = vec_lane(pairs, bits, first + 1);
        } else if (shape == ALTERNATING && !(i & 1)) {
            lane_op = FLOAT_SUB;
        }
        vec_set_lane(&result, bits, i, lane_operate(env, bits, lane_op, x, y));
    }
    return result;
}

ALWAYS_INLINE bool arithmetic_work(struct cpu *cpu, const struct insn *in, enum float_op op, unsigned bits,
                                   enum shape shape)
{
    union vec source;
    if (!sse_check(cpu) || !sse_read(cpu, in, shape == SCALAR ? bits / 8 : 16, &source))
        return false;
    struct float_env env = {.mxcsr = cpu->mxcsr};
    union vec result = arithmetic(&env, vec_get(cpu, in->reg), source, op, bits, shape);
    if (unlikely(env.flags) && !sse_settle(cpu, env.flags))
        return false;
    vec_set(cpu, in->reg, result);
    return true;
}

// ---- Compares ----

// Predicates 0 to 7 of CMPPS (SDM 2 table "Comparison Predicate for CMPPD and CMPPS").
enum predicate { PREDICATE_EQ, PREDICATE_LT, PREDICATE_LE, PREDICATE_UNORD, PREDICATE_NEGATED = 4 };

ALWAYS_INLINE bool predicate_holds(unsigned predicate, enum float_relation relation)
{
    bool holds = false;
    switch (predicate & 3) {
    case PREDICATE_EQ: holds = relation == FLOAT_EQUAL; break;
    case PREDICATE_LT: holds = relation == FLOAT_LESS; break;
    case PREDICATE_LE: holds = relation == FLOAT_LESS || relation == FLOAT_EQUAL; break;
    default: holds = relation == FLOAT_UNORDERED; break;
    }
    return holds != ((predicate & PREDICATE_NEGATED) != 0);
}

ALWAYS_INLINE bool compare_work(struct cpu *cpu, const struct insn *in, unsigned bits, enum shape shape)
{
    union vec source;
    if (!sse_check(cpu) || !sse_read(cpu, in, shape == SCALAR ? bits / 8 : 16, &source))
        return false;
    struct float_env env = {.mxcsr = cpu->mxcsr};
    union vec result = vec_get(cpu, in->reg);
    unsigned predicate = (unsigned)in->imm & 7;
    bool signaling = (predicate & 3) == PREDICATE_LT || (predicate & 3) == PREDICATE_LE;
    for (unsigned i = 0; i < (shape == SCALAR ? 1 : 128 / bits); i++) {
        enum float_relation relation =
            float_compare(&env, bits, vec_lane(&result, bits, i), vec_lane(&source, bits, i), signaling);
        vec_set_lane(&result, bits, i, predicate_holds(predicate, relation) ? UINT64_MAX : 0);
    }
    if (env.flags && !sse_settle(cpu, env.flags))
        return false;
    vec_set(cpu, in->reg, result);
    return true;
}

ALWAYS_INLINE bool flags_work(struct cpu *cpu, const struct insn *in, unsigned bits, bool signaling)
{
    static const uint64_t flags_of[] = {[FLOAT_LESS] = RFLAGS_CF,
                                        [FLOAT_EQUAL] = RFLAGS_ZF,
                                        [FLOAT_GREATER] = 0,
                                        [FLOAT_UNORDERED] = RFLAGS_ZF | RFLAGS_PF | RFLAGS_CF};
    union vec source, first = vec_get(cpu, in->reg);
    if (!sse_check(cpu) || !sse_read(cpu, in, bits / 8, &source))
        return false;
    struct float_env env = {.mxcsr = cpu->mxcsr};
    enum float_relation relation =
        float_compare(&env, bits, vec_lane(&first, bits, 0), vec_lane(&source, bits, 0), signaling);
    if (env.flags && !sse_settle(cpu, env.flags))
        return false;
    flags_set_arithmetic(cpu, flags_of[relation]);
    return true;
}

// ---- Approximations ----

ALWAYS_INLINE bool approximation_work(struct cpu *cpu, const struct insn *in, uint32_t (*function)(uint32_t),
                                      enum shape shape)
{
    union vec source;
    if (!sse_check(cpu) || !sse_read(cpu, in, shape == SCALAR ? 4 : 16, &source))
        return false;
    union vec result = vec_get(cpu, in->reg);
    for (unsigned i = 0; i < (shape == SCALAR ? 1 : 4); i++)
        result.u32[i] = function(source.u32[i]);
    vec_set(cpu, in->reg, result);
    return true;
}

// ---- Handlers ----

#define WORK(name, call)                                                                   \
    NEVER_INLINE bool work_##name(struct cpu *cpu, const struct insn *in) { return call; } \
    enum exec_result exec_##name(struct cpu *cpu, const struct insn *in)                   \
    {                                                                                      \
        return sse_complete(cpu, in, work_##name(cpu, in));                                \
    }
#define ARITHMETIC(name, op, bits, shape)    WORK(name, arithmetic_work(cpu, in, op, bits, shape))
#define COMPARE(name, bits, shape)           WORK(name, compare_work(cpu, in, bits, shape))
#define FLAGS(name, bits, signaling)         WORK(name, flags_work(cpu, in, bits, signaling))
#define APPROXIMATION(name, function, shape) WORK(name, approximation_work(cpu, in, function, shape))
#include "cpu/sse_float.def"
#undef WORK
#undef ARITHMETIC
#undef COMPARE
#undef FLAGS
#undef APPROXIMATION
