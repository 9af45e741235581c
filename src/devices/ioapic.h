// A 24-input I/O APIC at 0xfec00000.
//
// Source: Intel 82093AA data sheet (290566), and the EOI register of the ICH
// (version 0x20). Inputs are given as asserted or not, so the polarity bit is
// stored and has no effect. Edges on a masked input are lost, as in the data sheet.
#ifndef VMXON_DEVICES_IOAPIC_H
#define VMXON_DEVICES_IOAPIC_H

#include "base/types.h"
#include "devices/apic_message.h"
#include "mem/bus.h"

#define IOAPIC_BASE ((hpa_t)0xfec00000)

enum {
    IOAPIC_PINS = 24,
    IOAPIC_MMIO_SIZE = 4096,
};

struct ioapic_env {
    void *user;
    // Sends an interrupt message; returns true if a local APIC took it (apic_route).
    bool (*deliver)(void *user, const struct apic_message *message);
};

struct ioapic {
    uint8_t id;     // 4 bits
    uint8_t index;  // IOREGSEL
    uint32_t lines; // asserted inputs, one bit a pin
    uint64_t redirection[IOAPIC_PINS];
    struct ioapic_env env;
};

void ioapic_init(struct ioapic *ioapic, const struct ioapic_env *env);
// All inputs masked; the state of the lines stays.
void ioapic_reset(struct ioapic *ioapic);
// Registers the MMIO page at IOAPIC_BASE.
void ioapic_attach(struct ioapic *ioapic, struct bus *bus);

// Drives an input (0..23). The machine maps IRQ 0 to input 2, the other ISA IRQs to the input of their number.
void ioapic_set_pin(struct ioapic *ioapic, unsigned pin, bool asserted);
// An EOI message for a vector from a local APIC, or a write of the EOI register.
void ioapic_eoi(struct ioapic *ioapic, uint8_t vector);

#endif
