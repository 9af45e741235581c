// The local APIC of one processor: xAPIC and x2APIC mode.
//
// Source: SDM 3A chapter 11 "Advanced Programmable Interrupt Controller
// (APIC)". All devices are edge-exact: the timer fires at the first cycle at
// which its count is zero. Left out: CMCI, extended LVT entries, the bus
// arbitration of the P6 family. After any call the machine asks
// lapic_next_event again.
#ifndef VMXON_DEVICES_LAPIC_H
#define VMXON_DEVICES_LAPIC_H

#include "base/types.h"
#include "devices/apic_message.h"
#include "devices/timebase.h"

#define LAPIC_DEFAULT_BASE ((hpa_t)0xfee00000)
#define LAPIC_BASE_BSP     BIT(8)
#define LAPIC_BASE_EXTD    BIT(10)
#define LAPIC_BASE_EN      BIT(11)

enum {
    LAPIC_MMIO_SIZE = 4096,
    LAPIC_LVT_COUNT = 6,
    LAPIC_MSR_APIC_BASE = 0x1b,
    LAPIC_MSR_TSC_DEADLINE = 0x6e0,
    LAPIC_MSR_X2APIC_FIRST = 0x800,
    LAPIC_MSR_X2APIC_LAST = 0x8ff,
};

enum lapic_mode { LAPIC_DISABLED, LAPIC_XAPIC, LAPIC_X2APIC };

enum lapic_status {
    LAPIC_OK,
    LAPIC_GP, // the access raises #GP(0); nothing was changed
};

enum lapic_lvt {
    LAPIC_LVT_TIMER,
    LAPIC_LVT_THERMAL,
    LAPIC_LVT_PERF,
    LAPIC_LVT_LINT0,
    LAPIC_LVT_LINT1,
    LAPIC_LVT_ERROR
};

// What a local APIC tells its processor besides vectored interrupts.
enum lapic_event { LAPIC_EVENT_NMI, LAPIC_EVENT_SMI, LAPIC_EVENT_INIT, LAPIC_EVENT_STARTUP };

struct lapic_config {
    uint32_t id;         // x2APIC ID; its low 8 bits are the xAPIC ID
    bool bootstrap;      // BSP
    bool x2apic;         // CPUID.1:ECX[21]
    bool tsc_deadline;   // CPUID.1:ECX[24]
    unsigned maxphyaddr; // bits, 36 to 52
    uint64_t cycle_hz;   // processor cycles a second
    uint64_t timer_hz;   // input of the divide configuration register, CPUID.15H:ECX
};

struct lapic_env {
    void *user;
    cycle_t (*now)(void *user);
    // First cycle at which the time-stamp counter is at least `tsc`; any cycle up to now if that is past.
    cycle_t (*tsc_to_cycle)(void *user, uint64_t tsc);
    // Sends a message to the APICs it names, this one included (apic_route).
    void (*send)(void *user, const struct apic_message *message);
    // EOI of a level-triggered vector, for the I/O APICs.
    void (*eoi)(void *user, uint8_t vector);
    // NMI, SMI, INIT or SIPI (vector: start page) for the processor. On INIT the receiver calls lapic_init_signal.
    void (*event)(void *user, enum lapic_event event, uint8_t vector);
    // lapic_pending_vector or lapic_extint_pending may have changed.
    void (*changed)(void *user);
    // IA32_APIC_BASE changed: the 4-KiB register page lies at `base` if mode is LAPIC_XAPIC.
    void (*base_changed)(void *user, hpa_t base, enum lapic_mode mode);
};

struct lapic {
    struct lapic_config config;
    uint64_t apic_base; // IA32_APIC_BASE
    uint32_t tpr, ldr, dfr, svr;
    uint32_t esr, esr_pending; // as read; errors since the last write of ESR
    uint64_t icr;
    uint32_t lvt[LAPIC_LVT_COUNT];        // by enum lapic_lvt
    uint32_t irr[8], isr[8], tmr[8];      // 256 bits each, vector v at [v / 32] bit v % 32
    uint32_t timer_initial, timer_divide; // registers
    bool timer_running;
    uint32_t timer_count;  // count at timer_start
    uint64_t timer_start;  // tick of config.timer_hz
    uint64_t tsc_deadline; // 0: not armed
    bool lint[2];          // asserted inputs
    bool extint_latched;   // an ExtINT message waits
    struct lapic_env env;
};

// All callbacks are required. Starts as lapic_reset leaves it.
void lapic_init(struct lapic *apic, const struct lapic_config *config, const struct lapic_env *env);
// Power-up or reset: IA32_APIC_BASE too. Inputs LINT0 and LINT1 keep their state.
void lapic_reset(struct lapic *apic);
// The INIT signal: registers as after power-up, but IA32_APIC_BASE stays (SDM 3A 11.4.7.3).
void lapic_init_signal(struct lapic *apic);
// What firmware leaves on the BSP of a PC: enabled, LINT0 ExtINT, LINT1 NMI (MultiProcessor Specification 3.6.2.2).
void lapic_enter_virtual_wire(struct lapic *apic);

enum lapic_mode lapic_mode(const struct lapic *apic);
hpa_t lapic_base(const struct lapic *apic);

// The register page in xAPIC mode; offset 0..4095. Only aligned 32-bit accesses at multiples of 16 are defined by
// the SDM. Narrower reads inside such a register give its bytes; other reads give 0 and other writes are lost.
uint64_t lapic_mmio_read(struct lapic *apic, uint64_t offset, unsigned size);
void lapic_mmio_write(struct lapic *apic, uint64_t offset, unsigned size, uint64_t value);

// RDMSR and WRMSR of IA32_APIC_BASE, IA32_TSC_DEADLINE and 0x800..0x8ff; any other number is LAPIC_GP.
enum lapic_status lapic_msr_read(struct lapic *apic, uint32_t msr, uint64_t *value);
enum lapic_status lapic_msr_write(struct lapic *apic, uint32_t msr, uint64_t value);

// Task priority as a byte; CR8 is its bits 7:4.
uint8_t lapic_tpr(const struct lapic *apic);
void lapic_set_tpr(struct lapic *apic, uint8_t tpr);
uint8_t lapic_ppr(const struct lapic *apic);

// The vector that would be delivered now (16..255), or -1.
int lapic_pending_vector(const struct lapic *apic);
// Takes the pending vector into service and returns it; the spurious vector if none is pending.
uint8_t lapic_acknowledge(struct lapic *apic);
// True if the processor should run an INTA cycle with the 8259A: LINT0 in ExtINT mode (or the APIC disabled), or an
// ExtINT message. lapic_acknowledge_extint consumes the message, before or after pic_acknowledge.
bool lapic_extint_pending(const struct lapic *apic);
void lapic_acknowledge_extint(struct lapic *apic);

// True if the message, which has no shorthand, names this APIC.
bool lapic_matches(const struct lapic *apic, const struct apic_message *message);
// Gives the message to this APIC whatever its destination. False if the APIC does not take it.
bool lapic_deliver(struct lapic *apic, const struct apic_message *message);
// Drives LINT0 or LINT1 (pin 0, 1). `asserted` already takes the pin's polarity into account.
void lapic_set_lint(struct lapic *apic, unsigned pin, bool asserted);
// An event of the performance counters or the thermal sensor: delivers through that LVT entry.
void lapic_trigger_lvt(struct lapic *apic, enum lapic_lvt entry);

// First cycle at which the timer interrupts, or CYCLE_NEVER.
cycle_t lapic_next_event(const struct lapic *apic);
// Brings the timer to cycle `now` (never backwards).
void lapic_advance(struct lapic *apic, cycle_t now);

#endif
