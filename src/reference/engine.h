// Between the files of the reference executor: state in and out of an engine, and what lockstep keeps.
#ifndef VMXON_REFERENCE_ENGINE_H
#define VMXON_REFERENCE_ENGINE_H

#include "reference/encode.h"
#include "reference/reference.h"

// What an ordinary instruction may read or write.
struct reference_state {
    uint64_t gpr[16];
    uint64_t rflags;          // arithmetic flags, DF, bit 1
    struct xmm xmm[16];
    uint32_t mxcsr;
    uint16_t fpu_control, fpu_status, fpu_tag;
    uint8_t st[8][10];        // physical registers
    uint8_t memory[576];      // the memory operand
    unsigned memory_size;     // bytes, 0: none
};

struct lockstep {
    struct insn in;
    uint8_t bytes[INSN_MAX_LENGTH];
    uint64_t next_rip;
    gva_t linear;             // of the memory operand
    struct reference_state before, after;
};
struct lockstep *reference_lockstep(struct reference *reference);

void reference_state_from(struct reference_state *state, const struct cpu *cpu);

// Executes the instruction on the engine of the code size (enum code_mode): state in, state out. False: the engine refused it
// (undefined instruction or exception); state is then unspecified.
bool reference_run(struct reference *reference, const struct insn *in, const uint8_t *bytes, unsigned code_size,
                   struct reference_state *state);

#endif
