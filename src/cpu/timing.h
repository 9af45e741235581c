// The costs of timing.def as constants: TIMING_<name>, in cycles.
#ifndef VMXON_CPU_TIMING_H
#define VMXON_CPU_TIMING_H

enum timing {
#define TIMING(name, cycles, mark, source) TIMING_##name = (cycles),
#include "cpu/timing.def"
};

#endif
