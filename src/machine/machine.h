// The machine: the one struct that owns memory, bus, processors and devices.
//
// Design D9: no globals; several machines may run in one process. Files:
// machine.c (making and unmaking), board.c (which device is wired where),
// run.c (time, the order of processors and events, how a run ends),
// state_hash.c, api.c (the public API of include/vmxon/vmxon.h).
#ifndef VMXON_MACHINE_MACHINE_H
#define VMXON_MACHINE_MACHINE_H

#include "cpu/cpu.h"
#include "cpu/profile.h"
#include "devices/acpi_pm.h"
#include "devices/debug_exit.h"
#include "devices/i8042.h"
#include "devices/ioapic.h"
#include "devices/lapic.h"
#include "devices/pic.h"
#include "devices/pit.h"
#include "devices/rtc.h"
#include "devices/uart.h"
#include "mem/bus.h"
#include "mem/memory.h"
#include "reference/reference.h"
#include "vmx/vmx.h"
#include "vmxon/vmxon.h"

// Processors of one machine take turns of this many cycles.
enum { MACHINE_TURN_CYCLES = 2000 };

struct machine;

struct processor {
    struct machine *machine;
    struct cpu cpu;
    struct vmx vmx;
    struct lapic lapic;
};

struct machine {
    struct memory memory;
    struct bus bus;
    struct processor *processor[VMXON_MAX_CPUS];
    unsigned processor_count;
    unsigned running; // index of the processor that runs, or ran last
    const struct cpu_profile *profile;
    struct vmx_caps vmx_caps;
    uint64_t cycle_hz;

    struct uart com1;
    struct debug_exit debug_exit;
    struct pic pic;
    struct pit pit;
    struct rtc rtc;
    struct ioapic ioapic;
    struct i8042 i8042;
    struct acpi_pm acpi_pm;
    bool a20_enabled;

    // The turn (run.c): every processor runs to its end before devices are advanced again.
    cycle_t turn_start, turn_end;
    unsigned turn_next;  // index of the processor whose part it is; processor_count: the turn is over
    bool turn_idle;      // no processor has run in it yet
    cycle_t slept_until; // time passed while all processors slept
    bool loaded;
    bool ended; // `outcome` says how; further runs end at once
    struct vmxon_outcome outcome;

    struct reference *reference;
    bool lockstep;
    void (*serial_output)(void *user, const uint8_t *bytes, size_t n);
    void *user;
};

// Wires the devices to the bus, to each other and to the processors. Called once, after the processors exist.
void board_init(struct machine *machine, const struct vmxon_config *config);
// Puts into memory what firmware leaves there. Called once, before an image is loaded.
void firmware_init(struct machine *machine);
// Makes a processor the one that runs: the bus shows its local APIC.
void board_select(struct machine *machine, unsigned index);
// First cycle at which some device wants board_advance, or CYCLE_NEVER.
cycle_t board_next_event(const struct machine *machine);
void board_advance(struct machine *machine, cycle_t now);
// True if a device can send an NMI or INIT, which wake processors that do not take interrupts.
bool board_may_signal(const struct machine *machine);

// The clock as devices see it: that of the processor whose turn it is.
static inline cycle_t machine_now(const struct machine *machine)
{
    return cpu_now(&machine->processor[machine->running]->cpu);
}

// Ends the run after the current instruction; the first reason given stands.
void machine_end(struct machine *machine, enum vmxon_end end, uint32_t status, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

void machine_run(struct machine *machine, const struct vmxon_limits *limits, bool one_step);

#endif
