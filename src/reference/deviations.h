// The differences between the native core and an oracle that are known and explained.
//
// deviations.def lists those of the reference executor; tests/cpu/host_deviations.def those of a host processor. The rows'
// conditions use the functions below.
#ifndef VMXON_REFERENCE_DEVIATIONS_H
#define VMXON_REFERENCE_DEVIATIONS_H

#include "reference/engine.h"

// The row of deviations.def that allows the difference between the native core (`ours`) and the engine (`theirs`); -1: none does.
int deviation_find(const struct lockstep *step, const struct difference *difference);
unsigned deviation_count(void);
unsigned deviation_op(unsigned row);
const char *deviation_reason(unsigned row);

// They differ in these RFLAGS bits only.
bool differ_flags(const struct difference *difference, uint64_t flags);
// They differ in exception flags and C1 of the x87 status word only.
bool differ_x87_status(const struct difference *difference);
// F2XM1, FYL2X, FPTAN, FPATAN, FPREM1, FPREM, FYL2XP1, FSQRT, FSINCOS, FSIN, FCOS
bool x87_is_approximate(const struct lockstep *step);
// One executed it, the other raised an exception.
bool differ_exception(const struct difference *difference);
// A write of fewer than 64 bits left different bits above them, or a register is different in bits 63:32 only.
bool differ_upper_half(const struct difference *difference);
// Two NaNs meet in an SSE arithmetic instruction: in the same element of both operands, or, for the horizontal ones, in neighbours of one.
bool nans_meet(const struct lockstep *step);
// Value of the ModRM.reg field, without extension.
unsigned modrm_reg(const struct lockstep *step);
unsigned last_opcode(const struct lockstep *step);       // the last opcode byte
bool has_rex(const struct lockstep *step, uint8_t bits); // a REX prefix with one of these bits set (0: any)
uint64_t vex_source(const struct lockstep *step);        // the register that VEX.vvvv names
// The integer source operand (ModRM.rm) at its size.
uint64_t source_value(const struct lockstep *step);

#endif
