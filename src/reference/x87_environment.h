// The instruction and data pointers in an x87 environment in memory (SDM 1 8.1.10 "Saving the x87 FPU's State with FSTENV/FNSTENV and FSAVE/FNSAVE").
//
// The engine has pointers of its own, into its private memory; the guest's are in struct cpu.
#ifndef VMXON_REFERENCE_X87_ENVIRONMENT_H
#define VMXON_REFERENCE_X87_ENVIRONMENT_H

#include "cpu/cpu.h"

// FNSTENV, FNSAVE, FLDENV, FRSTOR.
bool x87_is_environment(const struct insn *in);

// FNSTENV, FNSAVE: puts the pointers of `cpu` into the operand, `size` bytes (14, 28, 94 or 108). Nothing for other instructions.
void x87_environment_store(const struct cpu *cpu, const struct insn *in, uint8_t *memory, unsigned size);
// FLDENV, FRSTOR: takes the pointers from the operand.
void x87_environment_load(struct cpu *cpu, const struct insn *in, const uint8_t *memory, unsigned size);

#endif
