// Bits: BT BTS BTR BTC, BSF BSR TZCNT LZCNT POPCNT, BMI1 and BMI2, CRC32 (SDM 2).
//
// Flags that the SDM leaves undefined: BT and its group change CF only; BSF and BSR set the flags as a logic operation on
// the source does; LZCNT and TZCNT set CF and ZF and clear the others; BMI as a logic operation on the result.
#include "cpu/exec_fast.h"

// A bit offset in a register reaches beyond a memory operand, in steps of the operand's size.
static uint64_t bit_test_offset(const struct cpu *cpu, const struct insn *in, unsigned size)
{
    int64_t index = (int64_t)sign_extended(reg_read(cpu, in->reg, size), size);
    int64_t units = index >> (in->size_log2 + 3);
    return (exec_offset(cpu, in) + (uint64_t)units * size) & cpu->addr_mask[in->addr_log2];
}

NEVER_INLINE bool do_bit_test(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    bool writes = in->op != OP_BT;
    uint64_t value, offset = 0;
    if (in->form == FORM_MEM) {
        offset = in->has_imm ? exec_offset(cpu, in) : bit_test_offset(cpu, in, size);
        if (writes ? !mem_read_for_write(cpu, in->segment, offset, size, &value)
                   : !mem_read(cpu, in->segment, offset, size, &value))
            return false;
    } else {
        value = reg_read(cpu, in->rm, size);
    }
    uint64_t index = in->has_imm ? (uint64_t)in->imm : reg_read(cpu, in->reg, size);
    uint64_t bit = BIT(index & (8 * size - 1));
    bool carry = value & bit;
    if (writes) {
        value = in->op == OP_BTS ? value | bit : in->op == OP_BTR ? value & ~bit : value ^ bit;
        if (in->form == FORM_MEM) {
            if (!mem_write(cpu, in->segment, offset, size, value))
                return false;
        } else {
            reg_write(cpu, in->rm, size, value);
        }
    }
    set_cf_of(cpu, carry, flag_of(cpu));
    return true;
}

enum exec_result exec_bit_test(struct cpu *cpu, const struct insn *in)
{
    return exec_complete(cpu, in, do_bit_test(cpu, in));
}

static unsigned leading_zeros(uint64_t value, unsigned bits)
{
    return value ? (unsigned)__builtin_clzll(value) - (64 - bits) : bits;
}

static unsigned trailing_zeros(uint64_t value, unsigned bits)
{
    return value ? (unsigned)__builtin_ctzll(value) : bits;
}

NEVER_INLINE bool do_bit_count(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in), bits = 8 * size;
    uint64_t value;
    if (!operand_read(cpu, in, size, &value))
        return false;
    switch (in->op) {
    case OP_BSF:
    case OP_BSR:
        if (value) // else the destination is unchanged, as on every processor
            reg_write(cpu, in->reg, size,
                      in->op == OP_BSF ? trailing_zeros(value, bits) : bits - 1 - leading_zeros(value, bits));
        set_flags(cpu, value, size, 0);
        return true;
    case OP_POPCNT:
        reg_write(cpu, in->reg, size, (uint64_t)__builtin_popcountll(value));
        flags_set_arithmetic(cpu, value ? 0 : RFLAGS_ZF);
        return true;
    default: {
        unsigned count = in->op == OP_TZCNT ? trailing_zeros(value, bits) : leading_zeros(value, bits);
        reg_write(cpu, in->reg, size, count);
        flags_set_arithmetic(cpu, (value ? 0 : RFLAGS_CF) | (count ? 0 : RFLAGS_ZF));
        return true;
    }
    }
}

enum exec_result exec_bit_count(struct cpu *cpu, const struct insn *in)
{
    return exec_complete(cpu, in, do_bit_count(cpu, in));
}

static uint64_t deposit(uint64_t source, uint64_t mask)
{
    uint64_t result = 0;
    for (; mask; mask &= mask - 1, source >>= 1) {
        if (source & 1)
            result |= mask & (0 - mask);
    }
    return result;
}

static uint64_t extract(uint64_t source, uint64_t mask)
{
    uint64_t result = 0;
    for (unsigned n = 0; mask; mask &= mask - 1, n++) {
        if (source & mask & (0 - mask))
            result |= BIT(n);
    }
    return result;
}

static uint64_t bit_field(uint64_t value, unsigned start, unsigned length)
{
    value = start < 64 ? value >> start : 0;
    return length < 64 ? value & (BIT(length) - 1) : value;
}

// BMI: destination ModRM.reg or VEX.vvvv, sources ModRM.rm and VEX.vvvv (imm). RORX, SARX, SHLX, SHRX, PDEP, PEXT change no flags.
NEVER_INLINE bool do_bmi(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in), bits = 8 * size;
    uint64_t a;
    if (!operand_read(cpu, in, size, &a))
        return false;
    unsigned other = (unsigned)in->imm & 15;
    uint64_t b = reg_read(cpu, other, size);
    unsigned count = (unsigned)(in->op == OP_RORX ? (uint64_t)in->imm : b) & (bits - 1);
    uint64_t result;
    switch (in->op) {
    case OP_RORX: result = count ? a >> count | a << (bits - count) : a; break;
    case OP_SARX: result = (uint64_t)((int64_t)sign_extended(a, size) >> count); break;
    case OP_SHLX: result = a << count; break;
    case OP_SHRX: result = a >> count; break;
    case OP_PDEP: result = deposit(b, a); break;
    case OP_PEXT: result = extract(b, a); break;
    case OP_ANDN: result = ~b & a; break;
    case OP_BEXTR: result = bit_field(a, (unsigned)b & 0xFF, (unsigned)(b >> 8) & 0xFF); break;
    case OP_BZHI: result = bit_field(a, 0, (unsigned)b & 0xFF); break;
    case OP_BLSI: result = a & (0 - a); break;
    case OP_BLSR: result = a & (a - 1); break;
    default: result = a ^ (a - 1); break; // BLSMSK
    }
    result = truncated(result, size);
    bool carry = false;
    switch (in->op) {
    case OP_RORX:
    case OP_SARX:
    case OP_SHLX:
    case OP_SHRX:
    case OP_PDEP:
    case OP_PEXT: reg_write(cpu, in->reg, size, result); return true;
    case OP_BLSI: carry = a != 0; break;
    case OP_BLSR:
    case OP_BLSMSK: carry = a == 0; break;
    case OP_BZHI: carry = (b & 0xFF) >= bits; break;
    default: break;
    }
    bool to_vvvv = in->op == OP_BLSI || in->op == OP_BLSR || in->op == OP_BLSMSK;
    reg_write(cpu, to_vvvv ? other : in->reg, size, result);
    set_flags(cpu, result, size, aux_of(carry, false));
    return true;
}

enum exec_result exec_bmi(struct cpu *cpu, const struct insn *in) { return exec_complete(cpu, in, do_bmi(cpu, in)); }

// CRC-32C, reflected polynomial 82F63B78H; no inversion before or after.
NEVER_INLINE bool do_crc32(struct cpu *cpu, const struct insn *in)
{
    unsigned source = (unsigned)in->imm & 15;
    uint64_t value;
    if (!operand_read(cpu, in, source, &value))
        return false;
    uint32_t crc = (uint32_t)cpu->regs[in->reg];
    for (unsigned i = 0; i < source; i++, value >>= 8) {
        crc ^= (uint8_t)value;
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
    }
    cpu->regs[in->reg] = crc;
    return true;
}

enum exec_result exec_crc32(struct cpu *cpu, const struct insn *in)
{
    return exec_complete(cpu, in, do_crc32(cpu, in));
}
