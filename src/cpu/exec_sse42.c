// SSE4.2: string comparisons and PCMPGTQ, and PCLMULQDQ.
//
// SDM 2 4.1 "Imm8 Control Byte Operation for PCMPESTRI / PCMPESTRM / PCMPISTRI / PCMPISTRM". The engine of the reference executor
// does not bound the explicit lengths and lacks PCLMULQDQ, so these are native.
#include "cpu/sse.h"

// imm8 of the string comparisons:
//   7  6          5 4        3 2           1          0
//   -  most/mask  polarity   aggregation   signed     words
enum { IMM_WORDS = 1, IMM_SIGNED = 2, IMM_NEGATIVE = 0x10, IMM_MASKED = 0x20, IMM_MOST = 0x40 };
enum aggregation { EQUAL_ANY, RANGES, EQUAL_EACH, EQUAL_ORDERED };

// Elements of one operand, extended by sign or zero; those from `length` on are invalid.
struct text {
    int element[16];
    unsigned length;
};

static int element(const union vec *value, unsigned i, unsigned imm)
{
    switch (imm & (IMM_WORDS | IMM_SIGNED)) {
    case 0: return value->u8[i];
    case IMM_WORDS: return value->u16[i];
    case IMM_SIGNED: return value->s8[i];
    default: return value->s16[i];
    }
}

static unsigned element_count(unsigned imm) { return imm & IMM_WORDS ? 8 : 16; }

// The explicit length of a register: its absolute value, at most the number of elements.
static unsigned explicit_length(const struct cpu *cpu, const struct insn *in, unsigned number, unsigned count)
{
    uint64_t value = cpu->regs[number];
    if (in->size_log2 != 3)
        value = (uint64_t)(int64_t)(int32_t)value;
    if ((int64_t)value < 0)
        value = 0 - value;
    return value > count ? count : (unsigned)value;
}

// The implicit length: up to the first zero.
static unsigned implicit_length(const struct text *text, unsigned count)
{
    unsigned length = 0;
    while (length < count && text->element[length] != 0)
        length++;
    return length;
}

static bool in_set(const struct text *set, int value)
{
    for (unsigned i = 0; i < set->length; i++) {
        if (set->element[i] == value)
            return true;
    }
    return false;
}

static bool in_ranges(const struct text *ranges, int value)
{
    for (unsigned i = 0; i + 1 < ranges->length; i += 2) {
        if (ranges->element[i] <= value && value <= ranges->element[i + 1])
            return true;
    }
    return false;
}

static bool begins_with(const struct text *text, unsigned at, const struct text *pattern, unsigned count)
{
    for (unsigned i = 0; i < pattern->length && at + i < count; i++) {
        if (at + i >= text->length || text->element[at + i] != pattern->element[i])
            return false;
    }
    return true;
}

static bool matches(const struct text *first, const struct text *second, unsigned i, unsigned count,
                    enum aggregation aggregation)
{
    switch (aggregation) {
    case EQUAL_ANY: return i < second->length && in_set(first, second->element[i]);
    case RANGES: return i < second->length && in_ranges(first, second->element[i]);
    case EQUAL_EACH:
        if (i < first->length && i < second->length)
            return first->element[i] == second->element[i];
        return i >= first->length && i >= second->length;
    default: return begins_with(second, i, first, count);
    }
}

// IntRes2 of the SDM: a bit for each element of the second operand.
static unsigned compare_texts(const struct text *first, const struct text *second, unsigned imm)
{
    unsigned count = element_count(imm), result = 0;
    for (unsigned i = 0; i < count; i++) {
        bool bit = matches(first, second, i, count, (enum aggregation)(imm >> 2 & 3));
        if ((imm & IMM_NEGATIVE) && (!(imm & IMM_MASKED) || i < second->length))
            bit = !bit;
        result |= (unsigned)bit << i;
    }
    return result;
}

static void write_index(struct cpu *cpu, unsigned result, unsigned imm)
{
    unsigned index = element_count(imm);
    if (result)
        index = imm & IMM_MOST ? 31 - (unsigned)__builtin_clz(result) : (unsigned)__builtin_ctz(result);
    cpu->regs[REG_RCX] = index;
}

static void write_mask(struct cpu *cpu, unsigned result, unsigned imm)
{
    union vec mask = {.xmm = {result, 0}};
    for (unsigned i = 0; (imm & IMM_MOST) && i < element_count(imm); i++) {
        if (imm & IMM_WORDS)
            mask.u16[i] = result >> i & 1 ? 0xFFFF : 0;
        else
            mask.u8[i] = result >> i & 1 ? 0xFF : 0;
    }
    vec_set(cpu, 0, mask);
}

NEVER_INLINE bool compare_strings(struct cpu *cpu, const struct insn *in)
{
    const bool is_explicit = in->op == OP_PCMPESTRM || in->op == OP_PCMPESTRI;
    const unsigned imm = (unsigned)in->imm, count = element_count(imm);
    union vec operands[2] = {vec_get(cpu, in->reg)};
    struct text texts[2];
    if (!sse_check(cpu))
        return false;
    if (in->form == FORM_REG)
        operands[1] = vec_get(cpu, in->rm);
    else if (!sse_read_memory(cpu, in, 16, 1, &operands[1]))
        return false;
    for (unsigned n = 0; n < 2; n++) {
        for (unsigned i = 0; i < count; i++)
            texts[n].element[i] = element(&operands[n], i, imm);
        texts[n].length = is_explicit ? explicit_length(cpu, in, n == 0 ? REG_RAX : REG_RDX, count)
                                      : implicit_length(&texts[n], count);
    }
    unsigned result = compare_texts(&texts[0], &texts[1], imm);
    if (in->op == OP_PCMPESTRI || in->op == OP_PCMPISTRI)
        write_index(cpu, result, imm);
    else
        write_mask(cpu, result, imm);
    flags_set_arithmetic(cpu, (result ? RFLAGS_CF : 0) | (texts[1].length < count ? RFLAGS_ZF : 0) |
                                  (texts[0].length < count ? RFLAGS_SF : 0) | (result & 1 ? RFLAGS_OF : 0));
    return true;
}

enum exec_result exec_pcmpxstrx(struct cpu *cpu, const struct insn *in)
{
    return sse_complete(cpu, in, compare_strings(cpu, in));
}

// ---- Others ----

static union vec sse_pcmpgtq(union vec x, union vec y)
{
    for (unsigned i = 0; i < 2; i++)
        x.u64[i] = (int64_t)x.u64[i] > (int64_t)y.u64[i] ? UINT64_MAX : 0;
    return x;
}

NEVER_INLINE bool work_pcmpgtq(struct cpu *cpu, const struct insn *in) { return sse_binary_work(cpu, in, sse_pcmpgtq); }
enum exec_result exec_pcmpgtq(struct cpu *cpu, const struct insn *in)
{
    return sse_binary(cpu, in, sse_pcmpgtq, work_pcmpgtq);
}

static union vec sse_pclmulqdq(union vec x, union vec y, unsigned imm)
{
    unsigned __int128 a = x.u64[imm & 1], product = 0;
    uint64_t b = y.u64[imm >> 4 & 1];
    for (unsigned i = 0; i < 64; i++)
        product ^= (b >> i & 1) ? a << i : 0;
    return (union vec){.u64 = {(uint64_t)product, (uint64_t)(product >> 64)}};
}

NEVER_INLINE bool work_pclmulqdq(struct cpu *cpu, const struct insn *in)
{
    union vec source;
    if (!sse_check(cpu) || !sse_read(cpu, in, 16, &source))
        return false;
    vec_set(cpu, in->reg, sse_pclmulqdq(vec_get(cpu, in->reg), source, (unsigned)in->imm));
    return true;
}

enum exec_result exec_pclmulqdq(struct cpu *cpu, const struct insn *in)
{
    return sse_complete(cpu, in, work_pclmulqdq(cpu, in));
}
