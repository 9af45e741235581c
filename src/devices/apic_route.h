// Finds the local APICs a message is for and delivers it.
//
// Source: SDM 3A 11.6.2 "Determining IPI Destination". Lowest-priority
// messages go to the one destination whose processor priority is lowest; of
// equals, the first in the array, so that the choice is deterministic.
#ifndef VMXON_DEVICES_APIC_ROUTE_H
#define VMXON_DEVICES_APIC_ROUTE_H

#include "devices/lapic.h"

// apics: all local APICs of the machine, `count` pointers. sender: the APIC that sends, or NULL for an I/O APIC or
// MSI (which have no shorthand). Returns true if any APIC took the message.
bool apic_route(struct lapic *const apics[], unsigned count, const struct lapic *sender,
                const struct apic_message *message);

#endif
