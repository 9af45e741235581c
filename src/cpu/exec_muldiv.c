// Multiplication and division: MUL IMUL DIV IDIV MULX (SDM 2).
//
// Flags that the SDM leaves undefined: after a multiplication SF, ZF and PF are of the low half and AF is 0; a division changes none.
#include "cpu/exec_fast.h"
#include "cpu/fast_handlers.h"

typedef unsigned __int128 wide;
typedef __int128 signed_wide;

// ---- One operand: the product goes to AX, DX:AX, EDX:EAX or RDX:RAX ----

NEVER_INLINE bool do_multiply(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    uint64_t a = reg_read(cpu, REG_RAX, size), b;
    if (!operand_read(cpu, in, size, &b))
        return false;
    wide product;
    if (in->op == OP_MUL)
        product = (wide)a * b;
    else
        product = (wide)((signed_wide)(int64_t)sign_extended(a, size) * (int64_t)sign_extended(b, size));
    uint64_t low = truncated((uint64_t)product, size), high = truncated((uint64_t)(product >> (8 * size)), size);
    bool overflow;
    if (in->op == OP_MUL)
        overflow = high != 0;
    else
        overflow = high != truncated(sign_of(low, size) ? ~(uint64_t)0 : 0, size);
    if (size == 1) {
        reg_write(cpu, REG_RAX, 2, low | high << 8);
    } else {
        reg_write(cpu, REG_RAX, size, low);
        reg_write(cpu, REG_RDX, size, high);
    }
    set_flags(cpu, low, size, aux_of(overflow, overflow));
    return true;
}

enum exec_result exec_multiply(struct cpu *cpu, const struct insn *in)
{
    return exec_complete(cpu, in, do_multiply(cpu, in));
}

// ---- Two and three operands ----

ALWAYS_INLINE uint64_t imul_compute(unsigned size, uint64_t a, uint64_t b, bool *overflow)
{
    if (size == 8) {
        int64_t product;
        *overflow = __builtin_mul_overflow((int64_t)a, (int64_t)b, &product);
        return (uint64_t)product;
    }
    uint64_t product = (uint64_t)((int64_t)sign_extended(a, size) * (int64_t)sign_extended(b, size));
    *overflow = sign_extended(product, size) != product;
    return product;
}

NEVER_INLINE bool do_imul(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    uint64_t a;
    if (!operand_read(cpu, in, size, &a))
        return false;
    uint64_t b = in->op == OP_IMUL3 ? (uint64_t)in->imm : reg_read(cpu, in->reg, size);
    bool overflow;
    uint64_t product = imul_compute(size, a, b, &overflow);
    reg_write(cpu, in->reg, size, product);
    set_flags(cpu, product, size, aux_of(overflow, overflow));
    return true;
}

enum exec_result exec_imul(struct cpu *cpu, const struct insn *in) { return exec_complete(cpu, in, do_imul(cpu, in)); }

ALWAYS_INLINE enum exec_result imul(struct cpu *cpu, const struct insn *in, unsigned op, enum insn_kind kind,
                                    unsigned size, unsigned variant)
{
    uint64_t a;
    if (kind == KIND_RM) {
        const void *source;
        if (unlikely(!fast_read(cpu, fast_linear(cpu, in, (enum insn_address)variant), size, &source)))
            return exec_imul(cpu, in);
        a = host_load(source, size);
    } else {
        a = reg_read(cpu, in->rm, size);
    }
    uint64_t b = op == OP_IMUL3 ? (uint64_t)in->imm : reg_read(cpu, in->reg, size);
    bool overflow;
    uint64_t product = imul_compute(size, a, b, &overflow);
    reg_write(cpu, in->reg, size, product);
    if (kind == KIND_RM || variant == 0)
        set_flags(cpu, product, size, aux_of(overflow, overflow));
    return exec_next(cpu, in);
}

#define DEFINE(op, kind, size, variant)                                                              \
    enum exec_result fast_##op##_##kind##_##size##_##variant(struct cpu *cpu, const struct insn *in) \
    {                                                                                                \
        return imul(cpu, in, OP_##op, KIND_##kind, 1u << size, variant);                             \
    }
#define IMUL(op, kind) DEFINE(op, kind, 2, 0) DEFINE(op, kind, 2, 1) DEFINE(op, kind, 3, 0) DEFINE(op, kind, 3, 1)
#include "cpu/handlers.def"
#undef DEFINE

// The high half goes last: it stays if both destinations are one register. The source beside the operand is EDX or RDX.
NEVER_INLINE bool do_mulx(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    uint64_t b;
    if (!operand_read(cpu, in, size, &b))
        return false;
    wide product = (wide)reg_read(cpu, REG_RDX, size) * b;
    reg_write(cpu, (unsigned)in->imm & 15, size, (uint64_t)product);
    reg_write(cpu, in->reg, size, (uint64_t)(product >> (8 * size)));
    return true;
}

enum exec_result exec_mulx(struct cpu *cpu, const struct insn *in) { return exec_complete(cpu, in, do_mulx(cpu, in)); }

// ---- Division ----

static bool divide_error(struct cpu *cpu)
{
    raise_exception(cpu, VECTOR_DE);
    return false;
}

// The dividend: AX, DX:AX, EDX:EAX or RDX:RAX.
static wide dividend(const struct cpu *cpu, unsigned size)
{
    if (size == 1)
        return (uint16_t)cpu->regs[REG_RAX];
    return (wide)reg_read(cpu, REG_RDX, size) << (8 * size) | reg_read(cpu, REG_RAX, size);
}

static void write_quotient(struct cpu *cpu, unsigned size, uint64_t quotient, uint64_t remainder)
{
    if (size == 1) {
        reg_write(cpu, REG_RAX, 2, (quotient & 0xFF) | (remainder & 0xFF) << 8);
        return;
    }
    reg_write(cpu, REG_RAX, size, quotient);
    reg_write(cpu, REG_RDX, size, remainder);
}

static bool divide_unsigned(struct cpu *cpu, unsigned size, uint64_t divisor)
{
    wide n = dividend(cpu, size);
    if (divisor == 0 || (n >> (8 * size)) >= divisor)
        return divide_error(cpu);
    if ((uint64_t)(n >> 64) == 0)
        write_quotient(cpu, size, (uint64_t)n / divisor, (uint64_t)n % divisor);
    else
        write_quotient(cpu, size, (uint64_t)(n / divisor), (uint64_t)(n % divisor));
    return true;
}

// On magnitudes, because the most negative dividend has no positive counterpart.
static bool divide_signed(struct cpu *cpu, unsigned size, uint64_t divisor)
{
    wide n = dividend(cpu, size);
    unsigned shift = 128 - 16 * size;
    n = (wide)((signed_wide)(n << shift) >> shift);
    bool negative_n = (signed_wide)n < 0, negative_d = sign_of(divisor, size);
    wide magnitude = negative_n ? -n : n;
    uint64_t d = truncated(negative_d ? 0 - divisor : divisor, size);
    if (d == 0)
        return divide_error(cpu);
    wide quotient = magnitude / d;
    uint64_t remainder = (uint64_t)(magnitude % d);
    bool negative = negative_n != negative_d;
    wide limit = (wide)1 << (8 * size - 1);
    if (quotient > (negative ? limit : limit - 1))
        return divide_error(cpu);
    uint64_t q = (uint64_t)quotient;
    write_quotient(cpu, size, negative ? 0 - q : q, negative_n ? 0 - remainder : remainder);
    return true;
}

NEVER_INLINE bool do_divide(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    uint64_t divisor;
    if (!operand_read(cpu, in, size, &divisor))
        return false;
    return in->op == OP_DIV ? divide_unsigned(cpu, size, divisor) : divide_signed(cpu, size, divisor);
}

enum exec_result exec_divide(struct cpu *cpu, const struct insn *in)
{
    return exec_complete(cpu, in, do_divide(cpu, in));
}
