// The computation of the two- and one-operand arithmetic operations, for their handlers and for the fused ones.
//
// SDM 2: ADC ADD AND CMP DEC INC NEG NOT OR SBB SUB TEST XOR. `op` and `size` are constants in the specialised handlers.
#ifndef VMXON_CPU_EXEC_ALU_H
#define VMXON_CPU_EXEC_ALU_H

#include "cpu/exec_fast.h"

// Result and aux word of a two-operand operation. Bits of a, b and the result beyond the size have no meaning.
ALWAYS_INLINE uint64_t alu_compute(const struct cpu *cpu, unsigned op, unsigned size, uint64_t a, uint64_t b,
                                   uint32_t *aux)
{
    uint64_t result;
    *aux = 0;
    switch (op) {
    case OP_ADD:
    case OP_ADC:
        result = a + b + (op == OP_ADC ? flag_cf(cpu) : 0);
        *aux = aux_of_carries(carries_of_add(a, b, result), size);
        return result;
    case OP_SUB:
    case OP_SBB:
    case OP_CMP:
        result = a - b - (op == OP_SBB ? flag_cf(cpu) : 0);
        *aux = aux_of_carries(borrows_of_sub(a, b, result), size);
        return result;
    case OP_AND:
    case OP_TEST: return a & b;
    case OP_OR: return a | b;
    default: return a ^ b;
    }
}

ALWAYS_INLINE bool alu_writes(unsigned op) { return op != OP_CMP && op != OP_TEST; }

// The aux word of INC and DEC, which keep CF. changed: the bits that differ between operand and result; bit 4 tells of
// a carry out of bit 3.
ALWAYS_INLINE uint32_t aux_keeping_carry(const struct cpu *cpu, uint64_t changed, bool overflow)
{
    uint32_t carry = cpu->lazy.aux & (uint32_t)AUX_CF;
    return carry | (carry >> 1 ^ (uint32_t)overflow << 30) | ((uint32_t)changed >> 1 & (uint32_t)AUX_AF);
}

// INC, DEC, NEG; for NOT, which changes no flags, *aux has no meaning.
ALWAYS_INLINE uint64_t unary_compute(const struct cpu *cpu, unsigned op, unsigned size, uint64_t a, uint32_t *aux)
{
    uint64_t result, least = (uint64_t)1 << (8 * size - 1); // the most negative number
    switch (op) {
    case OP_INC:
        result = a + 1;
        *aux = aux_keeping_carry(cpu, a ^ result, truncated(result, size) == least);
        return result;
    case OP_DEC:
        result = a - 1;
        *aux = aux_keeping_carry(cpu, a ^ result, truncated(a, size) == least);
        return result;
    case OP_NEG:
        result = 0 - a;
        *aux = aux_of_carries(borrows_of_sub(0, a, result), size);
        return result;
    default: *aux = 0; return ~a;
    }
}

#endif
