// What the parts of the local APIC share: register bits and internal calls.
//
// SDM 3A 11.4.1 "The Local APIC Block Diagram", table 11-1 "Local APIC Register
// Address Map". A register number is its xAPIC offset divided by 16, which is
// also its x2APIC MSR number minus 0x800.
#ifndef VMXON_DEVICES_LAPIC_INTERNAL_H
#define VMXON_DEVICES_LAPIC_INTERNAL_H

#include "devices/lapic.h"

enum lapic_register {
    LAPIC_ID = 0x02,
    LAPIC_VERSION = 0x03,
    LAPIC_TPR = 0x08,
    LAPIC_APR = 0x09,
    LAPIC_PPR = 0x0a,
    LAPIC_EOI = 0x0b,
    LAPIC_REMOTE_READ = 0x0c,
    LAPIC_LDR = 0x0d,
    LAPIC_DFR = 0x0e,
    LAPIC_SVR = 0x0f,
    LAPIC_ISR = 0x10, // 8 registers
    LAPIC_TMR = 0x18, // 8 registers
    LAPIC_IRR = 0x20, // 8 registers
    LAPIC_ESR = 0x28,
    LAPIC_ICR_LOW = 0x30,
    LAPIC_ICR_HIGH = 0x31,
    LAPIC_LVT_FIRST = 0x32,
    LAPIC_LVT_LAST = 0x37,
    LAPIC_INITIAL_COUNT = 0x38,
    LAPIC_CURRENT_COUNT = 0x39,
    LAPIC_DIVIDE = 0x3e,
    LAPIC_SELF_IPI = 0x3f,
};

enum {
    LVT_VECTOR = 0xff,
    LVT_MODE_SHIFT = 8, // 3 bits
    LVT_REMOTE_IRR = 1 << 14,
    LVT_LEVEL = 1 << 15,
    LVT_MASKED = 1 << 16,
    LVT_PERIODIC = 1 << 17,
    LVT_TSC_DEADLINE = 1 << 18,
    SVR_ENABLE = 1 << 8,
    SVR_SUPPRESS_EOI = 1 << 12,
    ESR_SEND_ILLEGAL_VECTOR = 1 << 5,
    ESR_RECEIVE_ILLEGAL_VECTOR = 1 << 6,
    ESR_ILLEGAL_REGISTER = 1 << 7,
    ICR_LOGICAL = 1 << 11,
    ICR_LEVEL_ASSERT = 1 << 14,
    ICR_TRIGGER_LEVEL = 1 << 15,
    ICR_SHORTHAND_SHIFT = 18, // 2 bits
    ICR_WRITABLE = 0xccfff,   // low half
    FIRST_LEGAL_VECTOR = 16,
};

// Registers as after power-up (SDM 3A 11.4.7.1).
void lapic_power_up_registers(struct lapic *apic);
// Records errors (bits of the ESR) and raises the error interrupt.
void lapic_report_error(struct lapic *apic, uint32_t errors);
// Takes a vectored interrupt into the IRR. False for the illegal vectors 0..15.
bool lapic_accept_vector(struct lapic *apic, uint8_t vector, bool level_triggered);
void lapic_end_of_interrupt(struct lapic *apic);
// Looks again at a level-sensitive LINT pin, after its line or LVT entry changed.
void lapic_update_lint(struct lapic *apic, unsigned pin);

// Register values by number. Reads of what does not exist give false; writes take legal bits only.
bool lapic_read_register(struct lapic *apic, unsigned number, uint32_t *value);
bool lapic_write_register(struct lapic *apic, unsigned number, uint32_t value);
// Bits a write of a register may set; all others are reserved.
uint32_t lapic_writable_bits(const struct lapic *apic, unsigned number);
// Sends the interprocessor interrupt that apic->icr describes.
void lapic_send_ipi(struct lapic *apic);
// The self-IPI register of x2APIC mode (SDM 3A 11.12.11).
void lapic_send_self_ipi(struct lapic *apic, uint8_t vector);

// Timer registers. Each call needs an APIC advanced to the present cycle.
void lapic_timer_write_initial(struct lapic *apic, uint32_t value);
void lapic_timer_write_divide(struct lapic *apic, uint32_t value);
void lapic_timer_write_lvt(struct lapic *apic, uint32_t value);
uint32_t lapic_timer_current(const struct lapic *apic);
void lapic_timer_write_deadline(struct lapic *apic, uint64_t tsc);

#endif
