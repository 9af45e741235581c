// Destinations of interrupt messages (SDM 3A 11.6.2 "Determining IPI Destination").
//
// Lowest priority is decided by the PPR, as processors since the Pentium 4 do
// with their task priority; an APIC that is disabled by software takes no part.
#include "devices/apic_route.h"

static bool is_destination(const struct lapic *apic, const struct lapic *sender, const struct apic_message *message)
{
    switch (message->shorthand) {
    case APIC_SELF: return apic == sender;
    case APIC_ALL: return true;
    case APIC_ALL_BUT_SELF: return apic != sender;
    default: return lapic_matches(apic, message);
    }
}

static bool can_take_vectors(const struct lapic *apic)
{
    enum { SVR_SOFTWARE_ENABLE = 0x100 };
    return lapic_mode(apic) != LAPIC_DISABLED && (apic->svr & SVR_SOFTWARE_ENABLE);
}

static bool route_lowest_priority(struct lapic *const apics[], unsigned count, const struct lapic *sender,
                                  const struct apic_message *message)
{
    struct lapic *chosen = NULL;
    for (unsigned i = 0; i < count; i++) {
        if (!is_destination(apics[i], sender, message) || !can_take_vectors(apics[i]))
            continue;
        if (!chosen || lapic_ppr(apics[i]) < lapic_ppr(chosen))
            chosen = apics[i];
    }
    return chosen && lapic_deliver(chosen, message);
}

bool apic_route(struct lapic *const apics[], unsigned count, const struct lapic *sender,
                const struct apic_message *message)
{
    if (message->mode == APIC_LOWEST_PRIORITY)
        return route_lowest_priority(apics, count, sender, message);
    bool taken = false;
    for (unsigned i = 0; i < count; i++)
        if (is_destination(apics[i], sender, message) && lapic_deliver(apics[i], message))
            taken = true;
    return taken;
}
