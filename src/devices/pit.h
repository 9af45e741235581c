// An 8254 interval timer with its three channels, and port 0x61 of the PC/AT.
//
// Source: Intel 8254 data sheet (231164), "Mode Definitions"; PC/AT technical
// reference for port 0x61. Channel 0 drives IRQ 0, channel 1 is the memory
// refresh, channel 2 the speaker, gated by port 0x61. Counts are computed from
// the processor's cycles at 1193182 Hz, exactly, so nothing runs between events.
#ifndef VMXON_DEVICES_PIT_H
#define VMXON_DEVICES_PIT_H

#include "base/types.h"
#include "devices/timebase.h"
#include "mem/bus.h"

enum {
    PIT_HZ = 1193182,
    PIT_CHANNELS = 3,
    PIT_PORT = 0x40,          // 4 ports: channels 0 to 2, control word
    PIT_SYSTEM_PORT_B = 0x61, // 1 port
};

struct pit_env {
    void *user;
    cycle_t (*now)(void *user);              // current cycle, for register accesses
    void (*set_irq)(void *user, bool level); // channel 0's OUT, on every change
};

// Times in ticks of PIT_HZ since cycle 0. "Elapsed" is the number of ticks since the counting
// element was loaded; while the gate holds the counter it stays at `held`.
struct pit_channel {
    uint8_t mode;   // 0..5
    uint8_t access; // 1 low byte, 2 high byte, 3 low then high
    bool bcd;
    bool gate;
    bool armed;          // a complete count was written since the control word
    bool counting;       // `start` is valid
    bool paused;         // the gate holds the counter
    bool out_before;     // OUT until `start`, and while not counting
    bool reload_pending; // modes 2 and 3: count_register takes effect at reload_at
    bool write_high_next, read_high_next;
    bool count_latched, status_latched;
    uint8_t low_byte; // first byte of a two-byte count
    uint8_t latched_status;
    uint16_t latched_count;
    uint16_t idle_count;     // counting element before `start`, as read
    uint32_t count_register; // last complete count written: 1..65536
    uint32_t period;         // count the counting element was loaded with
    int64_t start, held, reload_at;
    int64_t loaded_at; // status bit "null count" is 1 before this tick
};

struct pit {
    struct pit_channel channel[PIT_CHANNELS];
    uint8_t port_b; // bits 3:0 of port 0x61
    bool irq_level; // as last reported to env.set_irq
    int64_t tick;   // the tick everything is advanced to
    uint64_t cycle_hz;
    struct pit_env env;
};

// cycle_hz: processor cycles a second. Starts as pit_reset leaves it.
void pit_init(struct pit *pit, uint64_t cycle_hz, const struct pit_env *env);
// All channels wait for a control word (mode 0, OUT low); gates of channels 0 and 1 high.
void pit_reset(struct pit *pit);
// Registers PIT_PORT and PIT_SYSTEM_PORT_B.
void pit_attach(struct pit *pit, struct bus *bus);

// First cycle at which channel 0's OUT changes, or CYCLE_NEVER.
cycle_t pit_next_event(const struct pit *pit);
// Brings the device to cycle `now` (never backwards) and reports changes of OUT.
void pit_advance(struct pit *pit, cycle_t now);

// OUT of a channel (0..2) at the cycle of the last advance.
bool pit_out(const struct pit *pit, unsigned channel);

#endif
