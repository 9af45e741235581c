// The host processor as an oracle: runs one ordinary 64-bit instruction natively. Only where the host is x86-64.
#ifndef VMXON_TESTS_HOST_ORACLE_H
#define VMXON_TESTS_HOST_ORACLE_H

#include "reference/engine.h"

bool host_oracle_available(void);

// Runs the instruction on the host: state in, state out (general registers, flags, XMM, the memory operand). False: the host raised an
// exception, or the instruction cannot be run so.
bool host_oracle_run(const struct insn *in, const uint8_t *bytes, struct reference_state *state);

#endif
