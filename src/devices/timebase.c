// Exact conversion between processor cycles and device ticks, in 128-bit integers.
//
// Both directions round so that timebase_cycle(n) is the first cycle whose
// timebase_ticks() reaches n: one rounds down, the other up.
#include "devices/timebase.h"

uint64_t timebase_ticks(cycle_t cycles, uint64_t cycle_hz, uint64_t tick_hz)
{
    unsigned __int128 ticks = (unsigned __int128)cycles * tick_hz / cycle_hz;
    return ticks > UINT64_MAX ? UINT64_MAX : (uint64_t)ticks;
}

cycle_t timebase_cycle(uint64_t ticks, uint64_t cycle_hz, uint64_t tick_hz)
{
    unsigned __int128 cycles = ((unsigned __int128)ticks * cycle_hz + tick_hz - 1) / tick_hz;
    return cycles > UINT64_MAX ? CYCLE_NEVER : (cycle_t)cycles;
}
