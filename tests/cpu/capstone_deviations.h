// Where Capstone 4 and our decoder differ, and why ours stands; shared by the unit test and the fuzz target.
#ifndef VMXON_TESTS_CPU_CAPSTONE_DEVIATIONS_H
#define VMXON_TESTS_CPU_CAPSTONE_DEVIATIONS_H

#include "cpu/insn.h"

struct capstone_answer {
    bool valid;
    unsigned length; // bytes, if valid
};

// The reason why the two may differ on `bytes` (available: at least 15 bytes, or the end of the input), or NULL: one of them is
// wrong. `mode` has no MODE_REAL. status and *in: what decode() said; answer: what Capstone said of the same bytes.
const char *capstone_deviation(const uint8_t *bytes, unsigned available, unsigned mode, enum decode_status status,
                               const struct insn *in, struct capstone_answer answer);

// True if they agree: both refuse, or both accept with the same length.
bool capstone_agrees(enum decode_status status, const struct insn *in, struct capstone_answer answer);

#endif
