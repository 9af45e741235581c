// Which arithmetic flags an instruction leaves undefined; for comparisons with other executors.
#ifndef VMXON_REFERENCE_UNDEFINED_FLAGS_H
#define VMXON_REFERENCE_UNDEFINED_FLAGS_H

#include "cpu/cpu.h"

// RFLAGS bits; rcx: RCX before the instruction (shift counts).
static inline uint64_t undefined_flags(const struct insn *in, uint64_t rcx)
{
    uint64_t flags = 0;
    switch (in->op) {
#define UNDEFINED(op, undefined)    \
    case OP_##op:                   \
        flags = RFLAGS_##undefined; \
        break;
#include "reference/undefined_flags.def"
#undef UNDEFINED
    default: return 0;
    }
    switch (in->op) {
    case OP_SHL:
    case OP_SHR:
    case OP_SAR:
    case OP_ROL:
    case OP_ROR:
    case OP_RCL:
    case OP_RCR:
    case OP_SHLD:
    case OP_SHRD: {
        unsigned bits = 8u << in->size_log2;
        unsigned count = (unsigned)(in->has_imm ? (uint64_t)in->imm : rcx) & (bits == 64 ? 63 : 31);
        if (count == 0)
            return 0;
        if (count == 1)
            flags &= ~RFLAGS_OF;
        if (count >= bits && (in->op == OP_SHL || in->op == OP_SHR))
            flags |= RFLAGS_CF;
        if (count > bits && (in->op == OP_SHLD || in->op == OP_SHRD))
            flags = RFLAGS_ARITHMETIC;
        return flags;
    }
    default: return flags;
    }
}

#endif
