// Decimal adjustment DAA DAS AAA AAS AAM AAD, and single flags CLC STC CMC CLD STD LAHF SAHF (SDM 2).
//
// Flags that the SDM leaves undefined: DAA and DAS clear OF; AAA and AAS change CF and AF only; AAM and AAD clear CF, OF and AF.
#include "cpu/exec_fast.h"

static uint8_t low(const struct cpu *cpu) { return (uint8_t)cpu->regs[REG_RAX]; }

static void set_flags_of_al(struct cpu *cpu, bool carry, bool adjust)
{
    set_flags(cpu, low(cpu), 1, aux_of(carry, false) | (adjust ? (uint32_t)AUX_AF : 0));
}

enum exec_result exec_decimal_adjust(struct cpu *cpu, const struct insn *in)
{
    unsigned al = low(cpu), old = al;
    bool old_carry = flag_cf(cpu), carry = false, subtract = in->op == OP_DAS;
    bool adjust = (al & 15) > 9 || flag_af(cpu);
    if (adjust) {
        carry = subtract ? old_carry || al < 6 : old_carry || al + 6 > 0xFF;
        al = subtract ? al - 6 : al + 6;
    }
    if (old > 0x99 || old_carry) {
        al = subtract ? al - 0x60 : al + 0x60;
        carry = true;
    } else if (!subtract) {
        carry = false;
    }
    reg_write(cpu, 0, 1, al);
    set_flags_of_al(cpu, carry, adjust);
    return exec_next(cpu, in);
}

enum exec_result exec_ascii_adjust(struct cpu *cpu, const struct insn *in)
{
    unsigned ax = (uint16_t)cpu->regs[REG_RAX];
    bool adjust = (ax & 15) > 9 || flag_af(cpu);
    if (adjust)
        ax = in->op == OP_AAA ? ax + 0x106 : ax - 0x106;
    reg_write(cpu, REG_RAX, 2, ax & 0xFF0F);
    uint64_t flags = flags_arithmetic(cpu) & ~(RFLAGS_CF | RFLAGS_AF);
    flags_set_arithmetic(cpu, adjust ? flags | RFLAGS_CF | RFLAGS_AF : flags);
    return exec_next(cpu, in);
}

enum exec_result exec_aam(struct cpu *cpu, const struct insn *in)
{
    unsigned base = (uint8_t)in->imm, al = low(cpu);
    if (base == 0) {
        raise_exception(cpu, VECTOR_DE);
        return exec_fault(cpu, in);
    }
    reg_write(cpu, REG_RAX, 2, al / base << 8 | al % base);
    set_flags_of_al(cpu, false, false);
    return exec_next(cpu, in);
}

enum exec_result exec_aad(struct cpu *cpu, const struct insn *in)
{
    unsigned ax = (uint16_t)cpu->regs[REG_RAX];
    reg_write(cpu, REG_RAX, 2, ((ax & 0xFF) + (ax >> 8) * (uint8_t)in->imm) & 0xFF);
    set_flags_of_al(cpu, false, false);
    return exec_next(cpu, in);
}

enum exec_result exec_flag(struct cpu *cpu, const struct insn *in)
{
    switch (in->op) {
    case OP_CLC: set_cf_of(cpu, false, flag_of(cpu)); break;
    case OP_STC: set_cf_of(cpu, true, flag_of(cpu)); break;
    case OP_CMC: set_cf_of(cpu, !flag_cf(cpu), flag_of(cpu)); break;
    case OP_CLD: cpu->rflags_system &= ~(uint32_t)RFLAGS_DF; break;
    default: cpu->rflags_system |= (uint32_t)RFLAGS_DF; break;
    }
    return exec_next(cpu, in);
}

// AH = SF:ZF:0:AF:0:PF:1:CF.
enum exec_result exec_lahf(struct cpu *cpu, const struct insn *in)
{
    reg_write(cpu, 1, 1, (flags_arithmetic(cpu) & 0xFF) | RFLAGS_ONE);
    return exec_next(cpu, in);
}

enum exec_result exec_sahf(struct cpu *cpu, const struct insn *in)
{
    const uint64_t loaded = RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF;
    uint64_t ah = reg_read(cpu, 1, 1);
    flags_set_arithmetic(cpu, (flags_arithmetic(cpu) & ~loaded) | (ah & loaded));
    return exec_next(cpu, in);
}
