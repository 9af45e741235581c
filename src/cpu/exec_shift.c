// Shifts and rotates: ROL ROR RCL RCR SHL SHR SAR SHLD SHRD (SDM 2).
//
// Flags that the SDM leaves undefined: AF is 0; OF of counts above 1 is what the last step of one bit would give.
#include "cpu/exec_fast.h"
#include "cpu/fast_handlers.h"

ALWAYS_INLINE unsigned masked_count(uint64_t count, unsigned size) { return (unsigned)count & (size == 8 ? 63 : 31); }

// SHL, SHR, SAR by a count of 1 or more. `value` is zero-extended. Counts may exceed the width of 8- and 16-bit operands.
ALWAYS_INLINE uint64_t shift_compute(unsigned op, unsigned size, uint64_t value, unsigned count, uint32_t *aux)
{
    unsigned bits = 8 * size;
    uint64_t before, result; // before: all steps but the last
    bool carry;
    if (op == OP_SHL) {
        before = value << (count - 1);
        result = before << 1;
        carry = before >> (bits - 1) & 1;
        *aux = aux_of(carry, sign_of(before ^ result, size));
        return result;
    }
    if (op == OP_SAR)
        before = (uint64_t)((int64_t)sign_extended(value, size) >> (count - 1));
    else
        before = value >> (count - 1);
    result = op == OP_SAR ? (uint64_t)((int64_t)before >> 1) : before >> 1;
    carry = before & 1;
    *aux = aux_of(carry, sign_of(before ^ result, size));
    return result;
}

// ROL and ROR by a masked count of 1 or more.
ALWAYS_INLINE uint64_t rotate_compute(unsigned op, unsigned size, uint64_t value, unsigned count, bool *carry,
                                      bool *overflow)
{
    unsigned bits = 8 * size;
    unsigned left = (op == OP_ROL ? count : bits - count) & (bits - 1);
    uint64_t result = value << left | value >> ((bits - left) & (bits - 1));
    result = truncated(result, size);
    bool top = sign_of(result, size);
    if (op == OP_ROL) {
        *carry = result & 1;
        *overflow = top != *carry;
    } else {
        *carry = top;
        *overflow = top != (result >> (bits - 2) & 1);
    }
    return result;
}

// RCL and RCR by one bit at a time: they are rare. count is below the width + 1.
static uint64_t rotate_through_carry(unsigned op, unsigned size, uint64_t value, unsigned count, bool *carry,
                                     bool *overflow)
{
    unsigned bits = 8 * size;
    for (unsigned i = 0; i < count; i++) {
        bool in = *carry;
        if (op == OP_RCL) {
            *carry = sign_of(value, size);
            value = truncated(value << 1, size) | in;
        } else {
            *carry = value & 1;
            value = value >> 1 | (uint64_t)in << (bits - 1);
        }
    }
    bool top = sign_of(value, size);
    *overflow = op == OP_RCL ? top != *carry : top != (value >> (bits - 2) & 1);
    return value;
}

NEVER_INLINE bool do_shift(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in), op = in->op;
    unsigned count = masked_count(in->has_imm ? (uint64_t)in->imm : cpu->regs[REG_RCX], size);
    uint64_t value;
    if (!operand_read_for_write(cpu, in, size, &value))
        return false;
    if (op == OP_RCL || op == OP_RCR) {
        bool carry = flag_cf(cpu), overflow = flag_of(cpu);
        unsigned steps = count % (8 * size + 1);
        if (steps)
            value = rotate_through_carry(op, size, value, steps, &carry, &overflow);
        if (!operand_write(cpu, in, size, value))
            return false;
        set_cf_of(cpu, carry, overflow);
        return true;
    }
    if (count == 0)
        return operand_write(cpu, in, size, value);
    if (op == OP_ROL || op == OP_ROR) {
        bool carry, overflow;
        value = rotate_compute(op, size, value, count, &carry, &overflow);
        if (!operand_write(cpu, in, size, value))
            return false;
        set_cf_of(cpu, carry, overflow);
        return true;
    }
    uint32_t aux;
    value = shift_compute(op, size, value, count, &aux);
    if (!operand_write(cpu, in, size, value))
        return false;
    set_flags(cpu, value, size, aux);
    return true;
}

enum exec_result exec_shift(struct cpu *cpu, const struct insn *in)
{
    return exec_complete(cpu, in, do_shift(cpu, in));
}

// The result alone of a shift or rotate by any masked count, for the handlers that leave the flags.
ALWAYS_INLINE uint64_t shift_result(unsigned op, unsigned size, uint64_t value, unsigned count)
{
    switch (op) {
    case OP_SHL: return value << count;
    case OP_SHR: return value >> count;
    case OP_SAR: return (uint64_t)((int64_t)sign_extended(value, size) >> count);
    default: {
        bool carry, overflow;
        return rotate_compute(op, size, value, count, &carry, &overflow);
    }
    }
}

// KIND_RI has a row for masked counts of 1 or more only (select.c).
ALWAYS_INLINE enum exec_result shift(struct cpu *cpu, const struct insn *in, unsigned op, enum insn_kind kind,
                                     unsigned size, unsigned variant)
{
    unsigned count = masked_count(kind == KIND_RI ? (uint64_t)in->imm : cpu->regs[REG_RCX], size);
    uint64_t value = reg_read(cpu, in->rm, size);
    if (variant == 1) {
        reg_write(cpu, in->rm, size, shift_result(op, size, value, count));
    } else if (kind == KIND_RC && unlikely(count == 0)) {
        reg_write(cpu, in->rm, size, value); // a 32-bit operand is extended in any case
    } else if (op == OP_ROL || op == OP_ROR) {
        bool carry, overflow;
        reg_write(cpu, in->rm, size, rotate_compute(op, size, value, count, &carry, &overflow));
        set_cf_of(cpu, carry, overflow);
    } else {
        uint32_t aux;
        uint64_t result = shift_compute(op, size, value, count, &aux);
        reg_write(cpu, in->rm, size, result);
        set_flags(cpu, result, size, aux);
    }
    return exec_next(cpu, in);
}

#define DEFINE_1(op, kind, size, variant)                                                            \
    enum exec_result fast_##op##_##kind##_##size##_##variant(struct cpu *cpu, const struct insn *in) \
    {                                                                                                \
        return shift(cpu, in, OP_##op, KIND_##kind, 1u << size, variant);                            \
    }
#define DEFINE(op, kind, size) DEFINE_1(op, kind, size, 0) DEFINE_1(op, kind, size, 1)
#define SHIFT(op, kind)        DEFINE(op, kind, 0) DEFINE(op, kind, 1) DEFINE(op, kind, 2) DEFINE(op, kind, 3)
#include "cpu/handlers.def"
#undef DEFINE_1
#undef DEFINE

// SHLD or SHRD by a masked count of 1 or more, with the bits of `filler` coming in.
static uint64_t double_shift(unsigned op, unsigned size, uint64_t value, uint64_t filler, unsigned count, uint32_t *aux)
{
    unsigned bits = 8 * size;
    bool carry;
    uint64_t result;
    if (size == 2) {
        // Counts of 17 to 31 are undefined; here, as on processors, the value follows its filler once more.
        uint64_t wide = value << 32 | filler << 16 | value;
        if (op == OP_SHLD) {
            result = wide << count >> 32;
            carry = wide >> (48 - count) & 1;
        } else {
            result = wide >> count;
            carry = wide >> (count - 1) & 1;
        }
    } else if (op == OP_SHLD) {
        result = value << count | filler >> (bits - count);
        carry = value >> (bits - count) & 1;
    } else {
        result = value >> count | filler << (bits - count);
        carry = value >> (count - 1) & 1;
    }
    *aux = aux_of(carry, sign_of(value ^ result, size));
    return result;
}

NEVER_INLINE bool do_double_shift(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    unsigned count = masked_count(in->has_imm ? (uint64_t)in->imm : cpu->regs[REG_RCX], size);
    uint64_t value;
    uint32_t aux;
    if (!operand_read_for_write(cpu, in, size, &value))
        return false;
    if (count == 0)
        return operand_write(cpu, in, size, value);
    value = double_shift(in->op, size, value, reg_read(cpu, in->reg, size), count, &aux);
    if (!operand_write(cpu, in, size, value))
        return false;
    set_flags(cpu, value, size, aux);
    return true;
}

enum exec_result exec_double_shift(struct cpu *cpu, const struct insn *in)
{
    return exec_complete(cpu, in, do_double_shift(cpu, in));
}
