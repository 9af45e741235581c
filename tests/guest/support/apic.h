/* The local APIC by memory-mapped registers (xAPIC mode), at its address after reset. SDM 3A "Local APIC". */
#ifndef GUEST_SUPPORT_APIC_H
#define GUEST_SUPPORT_APIC_H

#include <stdint.h>

enum apic_register {
    APIC_ID = 0x20,
    APIC_VERSION = 0x30,
    APIC_TPR = 0x80,
    APIC_PPR = 0xA0,
    APIC_EOI = 0xB0,
    APIC_LDR = 0xD0,
    APIC_DFR = 0xE0,
    APIC_SPURIOUS = 0xF0,
    APIC_ISR = 0x100, /* 8 registers of 32 vectors, 0x10 apart; TMR and IRR likewise */
    APIC_TMR = 0x180,
    APIC_IRR = 0x200,
    APIC_ERROR = 0x280,
    APIC_ICR_LOW = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_LVT_TIMER = 0x320,
    APIC_LVT_LINT0 = 0x350,
    APIC_LVT_ERROR = 0x370,
    APIC_TIMER_INITIAL = 0x380,
    APIC_TIMER_CURRENT = 0x390,
    APIC_TIMER_DIVIDE = 0x3E0,
};

enum {
    APIC_SOFTWARE_ENABLE = 1 << 8,
    APIC_SPURIOUS_VECTOR = 0xFF,
    APIC_LVT_MASKED = 1 << 16,
    APIC_LVT_PERIODIC = 1 << 17,
    APIC_LVT_TSC_DEADLINE = 2 << 17,
    APIC_LVT_EXTINT = 7 << 8,
    ICR_NMI = 4 << 8,
    ICR_ASSERT = 1 << 14,
    ICR_SELF = 1 << 18,
    APIC_ADDRESS = 0xFEE00000,
};
#define APIC_BASE ((uint64_t)(uint32_t)APIC_ADDRESS)

static inline uint32_t apic_read(enum apic_register offset) { return *(volatile uint32_t *)(APIC_BASE + offset); }

static inline void apic_write(enum apic_register offset, uint32_t value)
{
    *(volatile uint32_t *)(APIC_BASE + offset) = value;
}

static inline void apic_enable(void) { apic_write(APIC_SPURIOUS, APIC_SOFTWARE_ENABLE | APIC_SPURIOUS_VECTOR); }

static inline void apic_self_ipi(uint8_t vector) { apic_write(APIC_ICR_LOW, ICR_SELF | ICR_ASSERT | vector); }

/* To itself by number: an NMI has no shorthand for that. */
static inline void apic_self_nmi(void)
{
    apic_write(APIC_ICR_HIGH, apic_read(APIC_ID));
    apic_write(APIC_ICR_LOW, ICR_NMI | ICR_ASSERT);
}

static inline void apic_eoi(void) { apic_write(APIC_EOI, 0); }

/* Whether `vector` is set in the register group that begins at `first`. */
static inline int apic_bit(enum apic_register first, uint8_t vector)
{
    return apic_read((enum apic_register)(first + vector / 32 * 0x10)) >> vector % 32 & 1;
}

#endif
