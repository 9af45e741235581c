// Floating-point arithmetic of SSE on bit patterns, exact to the SDM and the same on every host.
//
// SDM 1 4.8 (formats, NaNs), 11.5 "SSE, SSE2, and SSE3 Exceptions". Values are bit patterns of 32 or 64 bits in a
// uint64_t; `bits` is their width. Nothing depends on the host's floating-point environment.
#ifndef VMXON_CPU_SSE_FLOAT_H
#define VMXON_CPU_SSE_FLOAT_H

#include "base/types.h"
#include "cpu/mxcsr.h"

enum float_op { FLOAT_ADD, FLOAT_SUB, FLOAT_MUL, FLOAT_DIV, FLOAT_MIN, FLOAT_MAX, FLOAT_SQRT };

enum float_relation { FLOAT_LESS, FLOAT_EQUAL, FLOAT_GREATER, FLOAT_UNORDERED };

// One instruction's view of MXCSR.
struct float_env {
    uint32_t mxcsr; // controls; its flags are not looked at
    uint32_t flags; // MXCSR_IE .. MXCSR_PE raised so far, masked or not
};

// a op b. FLOAT_SQRT: of b; a is ignored.
uint64_t float_operate(struct float_env *env, unsigned bits, enum float_op op, uint64_t a, uint64_t b);

// signaling: a QNaN raises the invalid-operation exception too.
enum float_relation float_compare(struct float_env *env, unsigned bits, uint64_t a, uint64_t b, bool signaling);

// To a signed integer of int_bits (32, 64), zero-extended; NaNs and values out of range give the integer indefinite.
uint64_t float_to_integer(struct float_env *env, unsigned bits, uint64_t value, unsigned int_bits, bool truncate);
uint64_t float_from_integer(struct float_env *env, unsigned bits, int64_t value);

uint64_t float_widen(struct float_env *env, uint32_t value);  // 32 to 64 bits
uint32_t float_narrow(struct float_env *env, uint64_t value); // 64 to 32 bits

// DEVIATION(rcp): processors tabulate RCPPS and RSQRTPS, each model differently, with a relative error up to 1.5 * 2^-12. Here the
// result is the exact one rounded to a significand of 12 bits. Denormals count as zeros, as on processors, and no flag is raised.
uint32_t float_reciprocal(uint32_t value);
uint32_t float_reciprocal_sqrt(uint32_t value);

#endif
