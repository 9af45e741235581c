// An interrupt message between APICs: an IPI, an I/O APIC's interrupt or an MSI.
//
// Source: SDM 3A 11.6.1 "Interrupt Command Register (ICR)", 11.11.1 "Message
// Address Register Format". Delivery modes have the encoding of the ICR, the
// LVT and the redirection table.
#ifndef VMXON_DEVICES_APIC_MESSAGE_H
#define VMXON_DEVICES_APIC_MESSAGE_H

#include "base/types.h"

enum apic_delivery_mode {
    APIC_FIXED = 0,
    APIC_LOWEST_PRIORITY = 1,
    APIC_SMI = 2,
    APIC_NMI = 4,
    APIC_INIT = 5,
    APIC_STARTUP = 6,
    APIC_EXTINT = 7,
};

enum apic_shorthand {
    APIC_NO_SHORTHAND = 0,
    APIC_SELF = 1,
    APIC_ALL = 2,
    APIC_ALL_BUT_SELF = 3,
};

struct apic_message {
    uint32_t destination; // APIC ID or logical destination, if no shorthand
    uint8_t vector;
    uint8_t mode;      // enum apic_delivery_mode
    uint8_t shorthand; // enum apic_shorthand
    bool logical;      // destination is a logical one
    bool wide;         // destination has 32 bits (sent in x2APIC mode), else 8
    bool level_triggered;
    bool assert; // false only for INIT level de-assert
};

#endif
