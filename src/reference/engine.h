// Between the files of the reference executor, and for the tests that use it directly: state in and out of an engine, comparison.
#ifndef VMXON_REFERENCE_ENGINE_H
#define VMXON_REFERENCE_ENGINE_H

#include "reference/encode.h"
#include "reference/reference.h"

enum { REFERENCE_DATA_SIZE = 0x20000 }; // bytes of an engine's memory, from address 0, that implicit operands may use

// What an ordinary instruction may read or write.
struct reference_state {
    uint64_t gpr[16];
    uint64_t rflags; // arithmetic flags, DF, bit 1
    struct xmm xmm[16];
    uint32_t mxcsr;
    uint16_t fpu_control, fpu_status, fpu_tag;
    uint8_t st[8][10];    // physical registers
    uint8_t memory[576];  // the memory operand
    unsigned memory_size; // bytes, 0: none
    uint32_t
        memory_address; // 0: the operand is the one that ModRM or moffs names, and is moved. Otherwise the instruction is run
                        // as it is, with `memory` at this address of the engine (below REFERENCE_DATA_SIZE).
};

struct lockstep {
    struct insn in;
    uint8_t bytes[INSN_MAX_LENGTH];
    unsigned code_size; // enum code_mode
    uint64_t next_rip;
    gva_t linear;     // of before.memory
    unsigned operand; // offset in before.memory of the operand that ModRM names
    struct reference_state before, after;
};
struct lockstep *reference_lockstep(struct reference *reference);

void reference_state_from(struct reference_state *state, const struct cpu *cpu);

// Executes the instruction on the engine of the code size (enum code_mode): state in, state out. False: the engine refused it
// (undefined instruction or exception); state is then unspecified. The engine does not report MXCSR flags.
bool reference_run(struct reference *reference, const struct insn *in, const uint8_t *bytes, unsigned code_size,
                   struct reference_state *state);

// BT, BTS, BTR, BTC with a register bit offset: bytes from the operand that ModRM names to the one that is accessed; others 0.
int64_t reference_operand_shift(const struct insn *in, const struct reference_state *state);

// Fills `in`, `bytes`, `next_rip`, `linear` and `before` from the instruction at RIP. False: its bytes or its operand cannot be read.
bool lockstep_prepare(struct lockstep *step, struct cpu *cpu);

enum difference_kind {
    SAME,
    DIFFERENT_GPR,
    DIFFERENT_FLAGS,
    DIFFERENT_XMM,
    DIFFERENT_MEMORY,
    DIFFERENT_X87,
    DIFFERENT_MXCSR,
    DIFFERENT_EXCEPTION, // one raised an exception that the other did not
};
enum { X87_CONTROL = 8, X87_STATUS, X87_TAG, X87_EXPONENT = 16 };
struct difference {
    enum difference_kind kind;
    unsigned index; // register number; byte of memory. x87: physical register, X87_EXPONENT + it, or one of the above
    uint64_t ours, theirs; // flags: only those that are defined. Exceptions: vector + 1, 0 none
};
// The first difference between two states after step->in; MXCSR is compared last.
struct difference lockstep_compare(const struct lockstep *step, const struct reference_state *ours,
                                   const struct reference_state *theirs);
// Its description: "RAX is 0x1 here and 0x2 on <who>".
void lockstep_describe(const struct difference *difference, const char *who, char *text, size_t size);

#endif
