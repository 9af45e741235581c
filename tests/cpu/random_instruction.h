// Random ordinary instructions and random states to run them in.
#ifndef VMXON_TESTS_RANDOM_INSTRUCTION_H
#define VMXON_TESTS_RANDOM_INSTRUCTION_H

#include "reference/engine.h"

enum {
    TRIAL_CODE = 0x6000,     // linear address of the instruction
    TRIAL_MEMORY = 512,      // bytes that memory operands may lie in
    TRIAL_WINDOW = 0x18000,  // their linear address, 32- and 64-bit code
    TRIAL_WINDOW16 = 0x8000, // 16-bit code
};

void random_seed(uint64_t seed);
uint64_t random64(void);

// An instruction and how it is tried.
struct trial {
    struct insn in; // RIP-relative displacements are relative to the instruction's start
    uint8_t bytes[INSN_MAX_LENGTH];
    unsigned code_size; // enum code_mode
    bool native;        // the core has a handler of its own
    bool in_place;      // oracles run it as it is, at the same addresses; otherwise its memory operand is moved
    uint32_t window;
};

// Random bytes that decode as an instruction with registers, a ModRM memory operand, or implicit memory operands. `mode`: cpu->mode.
// False: not this time.
bool random_trial(struct trial *trial, unsigned mode);

// Whether instructions of an operation are made.
bool random_trial_includes(unsigned op);

// A random state for it: registers of `cpu` (RIP too), the window's bytes in `memory`. Address registers are set so that all operands
// lie in the window. False: that cannot be.
bool random_state(const struct trial *trial, struct cpu *cpu, uint8_t memory[TRIAL_MEMORY]);

#endif
