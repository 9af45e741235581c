// Arithmetic flags: between the lazy form and RFLAGS (SDM 1 3.4.3.1).
#include "cpu/exec.h"

uint32_t flags_arithmetic(const struct cpu *cpu)
{
    uint64_t flags = 0;
    flags |= flag_cf(cpu) ? RFLAGS_CF : 0;
    flags |= flag_pf(cpu) ? RFLAGS_PF : 0;
    flags |= flag_af(cpu) ? RFLAGS_AF : 0;
    flags |= flag_zf(cpu) ? RFLAGS_ZF : 0;
    flags |= flag_sf(cpu) ? RFLAGS_SF : 0;
    flags |= flag_of(cpu) ? RFLAGS_OF : 0;
    return (uint32_t)flags;
}

// ZF decides the result; what SF and PF then lack goes into aux as differences.
void flags_set_arithmetic(struct cpu *cpu, uint64_t rflags)
{
    bool zero = rflags & RFLAGS_ZF, sign = rflags & RFLAGS_SF, parity = rflags & RFLAGS_PF;
    bool carry = rflags & RFLAGS_CF, overflow = rflags & RFLAGS_OF;
    cpu->lazy.result = zero ? 0 : sign ? BIT(63) : BIT(8);
    uint64_t aux = parity ? 0 : BIT(8);
    aux |= zero && sign ? AUX_SD : 0;
    aux |= rflags & RFLAGS_AF ? AUX_AF : 0;
    aux |= carry ? AUX_CF : 0;
    aux |= carry != overflow ? AUX_PO : 0;
    cpu->lazy.aux = (uint32_t)aux;
}
