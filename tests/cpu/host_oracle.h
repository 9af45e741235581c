// The host processor as an oracle: runs one ordinary 64-bit instruction natively. Only where the host is x86-64.
#ifndef VMXON_TESTS_HOST_ORACLE_H
#define VMXON_TESTS_HOST_ORACLE_H

#include "reference/engine.h"

enum {
    HOST_DONE = -1,
    HOST_UNAVAILABLE = -2,
    HOST_DATA =
        0x18000, // address of `memory` for instructions with implicit memory operands (reference_state.memory_address)
};

bool host_oracle_available(void);

// Runs the instruction on the host: state in, state out (general registers, flags, XMM, MXCSR, x87, the memory operand). HOST_DONE, or the
// vector of the exception (13 for every memory fault), or HOST_UNAVAILABLE.
int host_oracle_run(const struct insn *in, const uint8_t *bytes, struct reference_state *state);

#endif
