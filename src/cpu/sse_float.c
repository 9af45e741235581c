// The arithmetic behind sse_float.h, in integers: unpack, compute with 64 bits and a sticky bit, round once.
//
// SDM 1 4.8.4 "Rounding", 4.9.1 "Floating-Point Exception Conditions" (tininess is detected after rounding), table 4-7
// "Rules for Handling NaNs"; appendix E has Intel's own model of the exceptions.
#include "cpu/sse_float.h"

#include "base/assert.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum rounding { ROUND_NEAREST, ROUND_DOWN, ROUND_UP, ROUND_ZERO }; // as MXCSR.RC

// A finite value: significand / 2^63 * 2^exponent; bit 63 of the significand is set, or it is 0.
struct parts {
    bool sign;
    int exponent;
    uint64_t significand;
};

// ---- Formats ----

ALWAYS_INLINE unsigned precision_of(unsigned bits) { return bits == 32 ? 24 : 53; }
ALWAYS_INLINE int bias_of(unsigned bits) { return bits == 32 ? 127 : 1023; }
ALWAYS_INLINE uint64_t sign_bit(unsigned bits) { return BIT(bits - 1); }
ALWAYS_INLINE uint64_t fraction_mask(unsigned bits) { return BIT(precision_of(bits) - 1) - 1; }
ALWAYS_INLINE uint64_t infinity_of(unsigned bits) { return (sign_bit(bits) - 1) & ~fraction_mask(bits); }
ALWAYS_INLINE uint64_t quiet_bit(unsigned bits) { return BIT(precision_of(bits) - 2); }
ALWAYS_INLINE uint64_t default_nan(unsigned bits) { return sign_bit(bits) | infinity_of(bits) | quiet_bit(bits); }

ALWAYS_INLINE uint64_t magnitude(unsigned bits, uint64_t value) { return value & (sign_bit(bits) - 1); }
ALWAYS_INLINE bool is_negative(unsigned bits, uint64_t value) { return (value & sign_bit(bits)) != 0; }
ALWAYS_INLINE bool is_nan(unsigned bits, uint64_t value) { return magnitude(bits, value) > infinity_of(bits); }
ALWAYS_INLINE bool is_snan(unsigned bits, uint64_t value) { return is_nan(bits, value) && !(value & quiet_bit(bits)); }
ALWAYS_INLINE bool is_infinite(unsigned bits, uint64_t value) { return magnitude(bits, value) == infinity_of(bits); }
ALWAYS_INLINE bool is_zero(unsigned bits, uint64_t value) { return magnitude(bits, value) == 0; }
ALWAYS_INLINE bool is_denormal(unsigned bits, uint64_t value)
{
    return magnitude(bits, value) - 1 < fraction_mask(bits);
}

ALWAYS_INLINE uint64_t signed_as(unsigned bits, bool sign, uint64_t value)
{
    return sign ? value | sign_bit(bits) : value;
}

// An operand as the instruction sees it under MXCSR.DAZ.
ALWAYS_INLINE uint64_t operand(const struct float_env *env, unsigned bits, uint64_t value)
{
    return (env->mxcsr & MXCSR_DAZ) && is_denormal(bits, value) ? value & sign_bit(bits) : value;
}

ALWAYS_INLINE struct parts unpack(unsigned bits, uint64_t value)
{
    struct parts parts = {.sign = is_negative(bits, value)};
    unsigned shift = 64 - precision_of(bits);
    uint64_t fraction = value & fraction_mask(bits);
    int exponent = (int)(magnitude(bits, value) >> (precision_of(bits) - 1));
    if (exponent) {
        parts.significand = (fraction | (fraction_mask(bits) + 1)) << shift;
        parts.exponent = exponent - bias_of(bits);
    } else if (fraction) {
        unsigned zeros = (unsigned)__builtin_clzll(fraction);
        parts.significand = fraction << zeros;
        parts.exponent = 1 - bias_of(bits) + (int)shift - (int)zeros;
    }
    return parts;
}

// ---- Rounding ----

ALWAYS_INLINE enum rounding rounding_of(const struct float_env *env) { return env->mxcsr >> MXCSR_RC_SHIFT & 3; }

ALWAYS_INLINE uint64_t shift_right_sticky(uint64_t value, unsigned count)
{
    if (count == 0)
        return value;
    return count > 63 ? value != 0 : value >> count | ((value << (64 - count)) != 0);
}

// value >> drop (1 to 63), rounded.
ALWAYS_INLINE uint64_t round_shift(enum rounding rounding, bool sign, uint64_t value, unsigned drop)
{
    uint64_t result = value >> drop, rest = value & (BIT(drop) - 1), half = BIT(drop - 1);
    bool up = false;
    switch (rounding) {
    case ROUND_NEAREST: up = rest > half || (rest == half && (result & 1)); break;
    case ROUND_DOWN: up = sign && rest; break;
    case ROUND_UP: up = !sign && rest; break;
    case ROUND_ZERO: break;
    }
    return result + up;
}

ALWAYS_INLINE uint64_t overflowed(struct float_env *env, unsigned bits, bool sign, bool inexact)
{
    enum rounding rounding = rounding_of(env);
    bool largest = rounding == ROUND_ZERO || (rounding == ROUND_DOWN && !sign) || (rounding == ROUND_UP && sign);
    env->flags |= MXCSR_OE | (inexact || (env->mxcsr & MXCSR_OM) ? MXCSR_PE : 0);
    return signed_as(bits, sign, infinity_of(bits) - largest);
}

ALWAYS_INLINE uint64_t tiny(struct float_env *env, unsigned bits, struct parts value, bool inexact)
{
    unsigned drop = 64 - precision_of(bits);
    bool masked = (env->mxcsr & MXCSR_UM) != 0;
    if (masked && (env->mxcsr & MXCSR_FTZ)) {
        env->flags |= MXCSR_UE | MXCSR_PE;
        return signed_as(bits, value.sign, 0);
    }
    uint64_t significand = shift_right_sticky(value.significand, (unsigned)(1 - bias_of(bits) - value.exponent));
    // Unmasked, underflow is signaled for exact results too, and what counts as inexact is the result with an unbounded exponent.
    if (masked)
        inexact = (significand & (BIT(drop) - 1)) != 0;
    env->flags |= (inexact || !masked ? MXCSR_UE : 0) | (inexact ? MXCSR_PE : 0);
    // Rounding up to the smallest normal number makes its encoding.
    return signed_as(bits, value.sign, round_shift(rounding_of(env), value.sign, significand, drop));
}

// The value, not zero, rounded to the format. Bit 0 of the significand is sticky.
ALWAYS_INLINE uint64_t round_pack(struct float_env *env, unsigned bits, struct parts value)
{
    unsigned precision = precision_of(bits), drop = 64 - precision;
    uint64_t rounded = round_shift(rounding_of(env), value.sign, value.significand, drop);
    bool inexact = (value.significand & (BIT(drop) - 1)) != 0;
    int exponent = value.exponent;
    if (rounded >> precision) {
        rounded >>= 1;
        exponent++;
    }
    if (exponent < 1 - bias_of(bits))
        return tiny(env, bits, value, inexact);
    if (exponent > bias_of(bits))
        return overflowed(env, bits, value.sign, inexact);
    env->flags |= inexact ? MXCSR_PE : 0;
    return signed_as(bits, value.sign,
                     (uint64_t)(exponent + bias_of(bits)) << (precision - 1) | (rounded & fraction_mask(bits)));
}

// ---- Arithmetic ----

ALWAYS_INLINE uint64_t invalid(struct float_env *env, unsigned bits)
{
    env->flags |= MXCSR_IE;
    return default_nan(bits);
}

// One of a and b is a NaN: the first operand goes before the second, whichever is signaling.
ALWAYS_INLINE uint64_t propagate(struct float_env *env, unsigned bits, uint64_t a, uint64_t b)
{
    if (is_snan(bits, a) || is_snan(bits, b))
        env->flags |= MXCSR_IE;
    return (is_nan(bits, a) ? a : b) | quiet_bit(bits);
}

ALWAYS_INLINE void note_denormal(struct float_env *env, unsigned bits, uint64_t value)
{
    if (is_denormal(bits, value))
        env->flags |= MXCSR_DE;
}

ALWAYS_INLINE uint64_t add(struct float_env *env, unsigned bits, uint64_t a, uint64_t b)
{
    if (is_infinite(bits, a) || is_infinite(bits, b)) {
        if (is_infinite(bits, a) && is_infinite(bits, b) && a != b)
            return invalid(env, bits);
        note_denormal(env, bits, a);
        note_denormal(env, bits, b);
        return is_infinite(bits, a) ? a : b;
    }
    note_denormal(env, bits, a);
    note_denormal(env, bits, b);
    struct parts x = unpack(bits, a), y = unpack(bits, b);
    if (!x.significand && !y.significand)
        return x.sign == y.sign ? a : signed_as(bits, rounding_of(env) == ROUND_DOWN, 0);
    if (!x.significand || !y.significand)
        return round_pack(env, bits, x.significand ? x : y);
    if (x.exponent < y.exponent) {
        struct parts swap = x;
        x = y;
        y = swap;
    }
    // At least 11 low bits are 0: two go to the carry, the others hold what is shifted out.
    uint64_t larger = x.significand >> 2,
             smaller = shift_right_sticky(y.significand >> 2, (unsigned)(x.exponent - y.exponent));
    struct parts sum = {x.sign, x.exponent + 2, larger + smaller};
    if (x.sign != y.sign) {
        sum.significand = larger - smaller;
        if (larger < smaller) {
            sum.significand = smaller - larger;
            sum.sign = y.sign;
        }
    }
    if (!sum.significand)
        return signed_as(bits, rounding_of(env) == ROUND_DOWN, 0);
    unsigned zeros = (unsigned)__builtin_clzll(sum.significand);
    sum.significand <<= zeros;
    sum.exponent -= (int)zeros;
    return round_pack(env, bits, sum);
}

ALWAYS_INLINE uint64_t multiply(struct float_env *env, unsigned bits, uint64_t a, uint64_t b)
{
    bool sign = is_negative(bits, a) != is_negative(bits, b);
    if ((is_infinite(bits, a) && is_zero(bits, b)) || (is_zero(bits, a) && is_infinite(bits, b)))
        return invalid(env, bits);
    note_denormal(env, bits, a);
    note_denormal(env, bits, b);
    if (is_infinite(bits, a) || is_infinite(bits, b))
        return signed_as(bits, sign, infinity_of(bits));
    if (is_zero(bits, a) || is_zero(bits, b))
        return signed_as(bits, sign, 0);
    struct parts x = unpack(bits, a), y = unpack(bits, b);
    unsigned __int128 product = (unsigned __int128)x.significand * y.significand;
    struct parts result = {sign, x.exponent + y.exponent + 1, 0};
    if (!(product >> 127)) {
        product <<= 1;
        result.exponent--;
    }
    result.significand = (uint64_t)(product >> 64) | ((uint64_t)product != 0);
    return round_pack(env, bits, result);
}

ALWAYS_INLINE uint64_t divide(struct float_env *env, unsigned bits, uint64_t a, uint64_t b)
{
    bool sign = is_negative(bits, a) != is_negative(bits, b);
    if ((is_infinite(bits, a) && is_infinite(bits, b)) || (is_zero(bits, a) && is_zero(bits, b)))
        return invalid(env, bits);
    if (is_zero(bits, b)) {
        if (!is_infinite(bits, a))
            env->flags |= MXCSR_ZE;
        return signed_as(bits, sign, infinity_of(bits));
    }
    note_denormal(env, bits, a);
    note_denormal(env, bits, b);
    if (is_infinite(bits, a))
        return signed_as(bits, sign, infinity_of(bits));
    if (is_infinite(bits, b) || is_zero(bits, a))
        return signed_as(bits, sign, 0);
    struct parts x = unpack(bits, a), y = unpack(bits, b);
    bool below_one = x.significand < y.significand;
    unsigned __int128 dividend = (unsigned __int128)x.significand << (below_one ? 64 : 63);
    uint64_t quotient = (uint64_t)(dividend / y.significand);
    bool rest = (unsigned __int128)quotient * y.significand != dividend;
    struct parts result = {sign, x.exponent - y.exponent - below_one, quotient | rest};
    return round_pack(env, bits, result);
}

// The square root of value, 2^126 to 2^128 - 1, to `precision` + 2 bits from bit 63 down; bit 0 is sticky.
ALWAYS_INLINE uint64_t integer_root(unsigned __int128 value, unsigned precision)
{
    uint64_t root = 0;
    for (unsigned bit = 63; bit > 61 - precision; bit--) {
        uint64_t trial = root | BIT(bit);
        if ((unsigned __int128)trial * trial <= value)
            root = trial;
    }
    return root | ((unsigned __int128)root * root != value);
}

ALWAYS_INLINE uint64_t square_root(struct float_env *env, unsigned bits, uint64_t value)
{
    if (is_zero(bits, value))
        return value;
    if (is_negative(bits, value))
        return invalid(env, bits);
    note_denormal(env, bits, value);
    if (is_infinite(bits, value))
        return value;
    struct parts x = unpack(bits, value);
    bool odd = (x.exponent & 1) != 0;
    unsigned __int128 square = (unsigned __int128)x.significand << (odd ? 64 : 63);
    struct parts root = {false, (x.exponent - odd) / 2, integer_root(square, precision_of(bits))};
    return round_pack(env, bits, root);
}

ALWAYS_INLINE enum float_relation compare(struct float_env *env, unsigned bits, uint64_t a, uint64_t b, bool signaling)
{
    a = operand(env, bits, a);
    b = operand(env, bits, b);
    if (is_nan(bits, a) || is_nan(bits, b)) {
        if (signaling || is_snan(bits, a) || is_snan(bits, b))
            env->flags |= MXCSR_IE;
        return FLOAT_UNORDERED;
    }
    note_denormal(env, bits, a);
    note_denormal(env, bits, b);
    if (a == b || (is_zero(bits, a) && is_zero(bits, b)))
        return FLOAT_EQUAL;
    if (is_negative(bits, a) != is_negative(bits, b))
        return is_negative(bits, a) ? FLOAT_LESS : FLOAT_GREATER;
    return (magnitude(bits, a) < magnitude(bits, b)) != is_negative(bits, a) ? FLOAT_LESS : FLOAT_GREATER;
}

ALWAYS_INLINE uint64_t operate(struct float_env *env, unsigned bits, enum float_op op, uint64_t a, uint64_t b)
{
    a = operand(env, bits, a);
    b = operand(env, bits, b);
    if (op == FLOAT_MIN)
        return compare(env, bits, a, b, true) == FLOAT_LESS ? a : b;
    if (op == FLOAT_MAX)
        return compare(env, bits, a, b, true) == FLOAT_GREATER ? a : b;
    if (op == FLOAT_SQRT)
        a = b;
    if (is_nan(bits, a) || is_nan(bits, b))
        return propagate(env, bits, a, b);
    switch (op) {
    case FLOAT_ADD: return add(env, bits, a, b);
    case FLOAT_SUB: return add(env, bits, a, b ^ sign_bit(bits));
    case FLOAT_MUL: return multiply(env, bits, a, b);
    case FLOAT_DIV: return divide(env, bits, a, b);
    case FLOAT_SQRT: return square_root(env, bits, b);
    case FLOAT_MIN:
    case FLOAT_MAX: break;
    }
    ASSERT(false, "minimum and maximum are done above");
    return 0;
}

uint64_t float_operate(struct float_env *env, unsigned bits, enum float_op op, uint64_t a, uint64_t b)
{
    return bits == 32 ? operate(env, 32, op, a, b) : operate(env, 64, op, a, b);
}

enum float_relation float_compare(struct float_env *env, unsigned bits, uint64_t a, uint64_t b, bool signaling)
{
    return bits == 32 ? compare(env, 32, a, b, signaling) : compare(env, 64, a, b, signaling);
}

// ---- Conversions ----

uint64_t float_to_integer(struct float_env *env, unsigned bits, uint64_t value, unsigned int_bits, bool truncate)
{
    uint64_t indefinite = BIT(int_bits - 1);
    value = operand(env, bits, value);
    if (is_zero(bits, value))
        return 0;
    struct parts x = unpack(bits, value);
    // NaNs and infinities have the largest exponent.
    if (x.exponent > 63) {
        env->flags |= MXCSR_IE;
        return indefinite;
    }
    enum rounding rounding = truncate ? ROUND_ZERO : rounding_of(env);
    uint64_t result = x.significand;
    bool inexact = false;
    if (x.exponent < 63) {
        // One bit below the binary point and a sticky bit are kept; at exponent 62 the bit shifted out is 0.
        uint64_t fixed = shift_right_sticky(x.significand, x.exponent > 61 ? 0 : (unsigned)(61 - x.exponent));
        unsigned drop = x.exponent > 61 ? 1 : 2;
        inexact = (fixed & (BIT(drop) - 1)) != 0;
        result = round_shift(rounding, x.sign, fixed, drop);
    }
    if (result > indefinite - !x.sign) {
        env->flags |= MXCSR_IE;
        return indefinite;
    }
    env->flags |= inexact ? MXCSR_PE : 0;
    return (x.sign ? -result : result) & (indefinite | (indefinite - 1));
}

uint64_t float_from_integer(struct float_env *env, unsigned bits, int64_t value)
{
    if (!value)
        return 0;
    struct parts x = {value < 0, 63, value < 0 ? -(uint64_t)value : (uint64_t)value};
    unsigned zeros = (unsigned)__builtin_clzll(x.significand);
    x.significand <<= zeros;
    x.exponent -= (int)zeros;
    return bits == 32 ? round_pack(env, 32, x) : round_pack(env, 64, x);
}

uint64_t float_widen(struct float_env *env, uint32_t value)
{
    uint64_t source = operand(env, 32, value);
    bool sign = is_negative(32, source);
    if (is_nan(32, source)) {
        env->flags |= is_snan(32, source) ? MXCSR_IE : 0;
        return signed_as(64, sign, infinity_of(64) | quiet_bit(64) | (source & fraction_mask(32)) << 29);
    }
    if (is_infinite(32, source))
        return signed_as(64, sign, infinity_of(64));
    if (is_zero(32, source))
        return signed_as(64, sign, 0);
    note_denormal(env, 32, source);
    return round_pack(env, 64, unpack(32, source));
}

uint32_t float_narrow(struct float_env *env, uint64_t value)
{
    uint64_t source = operand(env, 64, value);
    bool sign = is_negative(64, source);
    if (is_nan(64, source)) {
        env->flags |= is_snan(64, source) ? MXCSR_IE : 0;
        return (uint32_t)signed_as(32, sign, infinity_of(32) | quiet_bit(32) | (source & fraction_mask(64)) >> 29);
    }
    if (is_infinite(64, source))
        return (uint32_t)signed_as(32, sign, infinity_of(32));
    if (is_zero(64, source))
        return (uint32_t)signed_as(32, sign, 0);
    note_denormal(env, 64, source);
    return (uint32_t)round_pack(env, 32, unpack(64, source));
}

// ---- Approximations ----

// significand, bit 63 set, to the nearest value of 12 bits (ties away from zero) as a number with that exponent.
static uint32_t pack_approximation(bool sign, int exponent, uint64_t significand)
{
    uint64_t rounded = (significand >> 52) + (significand >> 51 & 1);
    if (rounded >> 12) {
        rounded >>= 1;
        exponent++;
    }
    if (exponent < -126)
        return (uint32_t)signed_as(32, sign, 0);
    return (uint32_t)signed_as(32, sign, (uint64_t)(exponent + 127) << 23 | ((rounded & 0x7FF) << 12));
}

uint32_t float_reciprocal(uint32_t value)
{
    if (is_nan(32, value))
        return value | (uint32_t)quiet_bit(32);
    bool sign = is_negative(32, value);
    if (is_infinite(32, value))
        return (uint32_t)signed_as(32, sign, 0);
    if (is_zero(32, value) || is_denormal(32, value))
        return (uint32_t)signed_as(32, sign, infinity_of(32));
    struct parts x = unpack(32, value);
    if (x.significand == BIT(63))
        return pack_approximation(sign, -x.exponent, BIT(63));
    return pack_approximation(sign, -x.exponent - 1, (uint64_t)(((unsigned __int128)1 << 127) / x.significand));
}

uint32_t float_reciprocal_sqrt(uint32_t value)
{
    if (is_nan(32, value))
        return value | (uint32_t)quiet_bit(32);
    if (is_zero(32, value) || is_denormal(32, value))
        return (uint32_t)signed_as(32, is_negative(32, value), infinity_of(32));
    if (is_negative(32, value))
        return (uint32_t)default_nan(32);
    if (is_infinite(32, value))
        return 0;
    struct parts x = unpack(32, value);
    bool odd = (x.exponent & 1) != 0;
    uint64_t root = integer_root((unsigned __int128)x.significand << (odd ? 64 : 63), 53);
    int exponent = -(x.exponent - odd) / 2;
    if (root == BIT(63))
        return pack_approximation(false, exponent, BIT(63));
    return pack_approximation(false, exponent - 1, (uint64_t)(((unsigned __int128)1 << 127) / root));
}
