// Exact conversion between processor cycles and the ticks of a device's clock.
//
// A device clock of tick_hz ticks floor(cycles * tick_hz / cycle_hz) times in
// `cycles` cycles. The product has 128 bits, so nothing drifts or overflows
// however long a machine runs. All rates are in hertz and above zero.
#ifndef VMXON_DEVICES_TIMEBASE_H
#define VMXON_DEVICES_TIMEBASE_H

#include "base/types.h"

// "No event": later than every cycle a machine reaches.
#define CYCLE_NEVER UINT64_MAX

// Ticks completed at cycle `cycles`. tick_hz may not exceed 2^32 times cycle_hz; the result saturates.
uint64_t timebase_ticks(cycle_t cycles, uint64_t cycle_hz, uint64_t tick_hz);

// First cycle at which timebase_ticks() is at least `ticks`; CYCLE_NEVER if it lies beyond 2^64.
cycle_t timebase_cycle(uint64_t ticks, uint64_t cycle_hz, uint64_t tick_hz);

#endif
