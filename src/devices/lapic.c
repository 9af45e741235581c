// Local APIC: accepting, prioritising, acknowledging and ending interrupts.
//
// SDM 3A 11.8 "Handling Interrupts", 11.5 "Handling Local Interrupts", 11.6.2
// "Determining IPI Destination". Priority classes are bits 7:4 of a vector.
#include "devices/lapic_internal.h"

#include <string.h>

enum { PRIORITY_CLASS = 0xf0, BROADCAST_8 = 0xff };
#define BROADCAST_32 UINT32_MAX

static int highest_vector(const uint32_t bits[8])
{
    for (int word = 7; word >= 0; word--)
        if (bits[word])
            return word * 32 + 31 - __builtin_clz(bits[word]);
    return -1;
}

static void set_bit(uint32_t bits[8], unsigned vector, bool on)
{
    uint32_t bit = 1u << (vector & 31);
    if (on)
        bits[vector >> 5] |= bit;
    else
        bits[vector >> 5] &= ~bit;
}

static bool test_bit(const uint32_t bits[8], unsigned vector) { return bits[vector >> 5] >> (vector & 31) & 1; }

static bool software_enabled(const struct lapic *apic)
{
    return lapic_mode(apic) != LAPIC_DISABLED && (apic->svr & SVR_ENABLE);
}

enum lapic_mode lapic_mode(const struct lapic *apic)
{
    if (!(apic->apic_base & LAPIC_BASE_EN))
        return LAPIC_DISABLED;
    return apic->apic_base & LAPIC_BASE_EXTD ? LAPIC_X2APIC : LAPIC_XAPIC;
}

hpa_t lapic_base(const struct lapic *apic) { return apic->apic_base & PAGE_FRAME_MASK; }

uint8_t lapic_tpr(const struct lapic *apic) { return (uint8_t)apic->tpr; }

void lapic_set_tpr(struct lapic *apic, uint8_t tpr)
{
    apic->tpr = tpr;
    apic->env.changed(apic->env.user);
}

// SDM 3A 11.8.3.1 "Task and Processor Priorities".
uint8_t lapic_ppr(const struct lapic *apic)
{
    int in_service = highest_vector(apic->isr);
    unsigned service_class = in_service < 0 ? 0 : (unsigned)in_service & PRIORITY_CLASS;
    return (uint8_t)((apic->tpr & PRIORITY_CLASS) >= service_class ? apic->tpr : service_class);
}

int lapic_pending_vector(const struct lapic *apic)
{
    if (lapic_mode(apic) == LAPIC_DISABLED)
        return -1;
    int requested = highest_vector(apic->irr);
    if (requested < 0 || ((unsigned)requested & PRIORITY_CLASS) <= (lapic_ppr(apic) & PRIORITY_CLASS))
        return -1;
    return requested;
}

uint8_t lapic_acknowledge(struct lapic *apic)
{
    int vector = lapic_pending_vector(apic);
    if (vector < 0)
        return (uint8_t)apic->svr; // SDM 3A 11.9 "Spurious Interrupt"
    set_bit(apic->irr, (unsigned)vector, false);
    set_bit(apic->isr, (unsigned)vector, true);
    apic->env.changed(apic->env.user);
    return (uint8_t)vector;
}

bool lapic_accept_vector(struct lapic *apic, uint8_t vector, bool level_triggered)
{
    if (vector < FIRST_LEGAL_VECTOR) {
        lapic_report_error(apic, ESR_RECEIVE_ILLEGAL_VECTOR);
        return false;
    }
    set_bit(apic->irr, vector, true);
    set_bit(apic->tmr, vector, level_triggered);
    apic->env.changed(apic->env.user);
    return true;
}

void lapic_report_error(struct lapic *apic, uint32_t errors)
{
    apic->esr_pending |= errors;
    uint32_t entry = apic->lvt[LAPIC_LVT_ERROR];
    uint8_t vector = entry & LVT_VECTOR;
    if (entry & LVT_MASKED)
        return;
    if (vector < FIRST_LEGAL_VECTOR) // an illegal error vector must not report itself for ever
        apic->esr_pending |= ESR_RECEIVE_ILLEGAL_VECTOR;
    else
        lapic_accept_vector(apic, vector, false);
}

void lapic_end_of_interrupt(struct lapic *apic)
{
    int vector = highest_vector(apic->isr);
    if (vector < 0)
        return;
    set_bit(apic->isr, (unsigned)vector, false);
    if (test_bit(apic->tmr, (unsigned)vector)) {
        uint32_t *lint0 = &apic->lvt[LAPIC_LVT_LINT0];
        if ((*lint0 & LVT_REMOTE_IRR) && (*lint0 & LVT_VECTOR) == (unsigned)vector) {
            *lint0 &= ~(uint32_t)LVT_REMOTE_IRR;
            lapic_update_lint(apic, 0);
        }
        if (!(apic->svr & SVR_SUPPRESS_EOI))
            apic->env.eoi(apic->env.user, (uint8_t)vector);
    }
    apic->env.changed(apic->env.user);
}

bool lapic_extint_pending(const struct lapic *apic)
{
    if (lapic_mode(apic) == LAPIC_DISABLED)
        return apic->lint[0]; // LINT0 is the INTR pin then (SDM 3A 11.4.3)
    uint32_t entry = apic->lvt[LAPIC_LVT_LINT0];
    bool through_lint0 = apic->lint[0] && !(entry & LVT_MASKED) && (entry >> LVT_MODE_SHIFT & 7) == APIC_EXTINT;
    return through_lint0 || apic->extint_latched;
}

void lapic_acknowledge_extint(struct lapic *apic)
{
    apic->extint_latched = false;
    apic->env.changed(apic->env.user);
}

// Delivers one assertion through an LVT entry that has a delivery mode field.
static void deliver_local(struct lapic *apic, enum lapic_lvt index)
{
    uint32_t entry = apic->lvt[index];
    uint8_t vector = entry & LVT_VECTOR;
    if (entry & LVT_MASKED)
        return;
    switch (entry >> LVT_MODE_SHIFT & 7) {
    case APIC_FIXED: lapic_accept_vector(apic, vector, false); break;
    case APIC_SMI: apic->env.event(apic->env.user, LAPIC_EVENT_SMI, 0); break;
    case APIC_NMI: apic->env.event(apic->env.user, LAPIC_EVENT_NMI, 0); break;
    case APIC_INIT: apic->env.event(apic->env.user, LAPIC_EVENT_INIT, 0); break;
    default: break; // ExtINT follows the line; the others are reserved
    }
}

void lapic_trigger_lvt(struct lapic *apic, enum lapic_lvt index)
{
    if (lapic_mode(apic) == LAPIC_DISABLED)
        return;
    bool was_masked = apic->lvt[index] & LVT_MASKED;
    deliver_local(apic, index);
    // The processor masks the entry when it delivers a PMI (SDM 3B 20.6.3.5.8 "Generating an Interrupt on Overflow").
    if (index == LAPIC_LVT_PERF && !was_masked)
        apic->lvt[index] |= LVT_MASKED;
}

static bool lint_is_level_triggered(const struct lapic *apic, unsigned pin)
{
    uint32_t entry = apic->lvt[LAPIC_LVT_LINT0 + pin];
    return pin == 0 && (entry & LVT_LEVEL) && (entry >> LVT_MODE_SHIFT & 7) == APIC_FIXED; // LINT1 is always edge
}

void lapic_update_lint(struct lapic *apic, unsigned pin)
{
    uint32_t *entry = &apic->lvt[LAPIC_LVT_LINT0 + pin];
    apic->env.changed(apic->env.user);
    if (!apic->lint[pin] || !lint_is_level_triggered(apic, pin) || (*entry & (LVT_MASKED | LVT_REMOTE_IRR)))
        return;
    if (lapic_accept_vector(apic, *entry & LVT_VECTOR, true))
        *entry |= LVT_REMOTE_IRR;
}

void lapic_set_lint(struct lapic *apic, unsigned pin, bool asserted)
{
    bool rising = asserted && !apic->lint[pin];
    apic->lint[pin] = asserted;
    if (lapic_mode(apic) == LAPIC_DISABLED) {
        if (pin == 1 && rising)
            apic->env.event(apic->env.user, LAPIC_EVENT_NMI, 0);
        apic->env.changed(apic->env.user);
        return;
    }
    if (rising && !lint_is_level_triggered(apic, pin))
        deliver_local(apic, LAPIC_LVT_LINT0 + pin);
    lapic_update_lint(apic, pin);
}

// SDM 3A 11.6.2.2 "Logical Destination Mode", 11.12.10.2 for x2APIC.
static bool matches_logical(const struct lapic *apic, uint32_t destination)
{
    if (lapic_mode(apic) == LAPIC_X2APIC)
        return destination >> 16 == apic->ldr >> 16 && (destination & apic->ldr & 0xffff);
    uint32_t own = apic->ldr >> 24;
    bool flat = apic->dfr >> 28 == 0xf;
    if (flat)
        return destination & own & 0xff;
    return (destination >> 4 & 15) == own >> 4 && (destination & own & 15);
}

bool lapic_matches(const struct lapic *apic, const struct apic_message *message)
{
    uint32_t destination = message->destination;
    if (lapic_mode(apic) == LAPIC_DISABLED)
        return false;
    if (message->wide ? destination == BROADCAST_32 : destination == BROADCAST_8)
        return true;
    // An APIC in xAPIC mode cannot be named by more than 8 bits.
    if (lapic_mode(apic) == LAPIC_XAPIC && destination > 0xff)
        return false;
    if (message->logical)
        return matches_logical(apic, destination);
    return destination == (lapic_mode(apic) == LAPIC_X2APIC ? apic->config.id : apic->config.id & 0xff);
}

bool lapic_deliver(struct lapic *apic, const struct apic_message *message)
{
    if (lapic_mode(apic) == LAPIC_DISABLED)
        return false;
    switch (message->mode) {
    case APIC_FIXED:
    case APIC_LOWEST_PRIORITY:
        return software_enabled(apic) && lapic_accept_vector(apic, message->vector, message->level_triggered);
    case APIC_SMI: apic->env.event(apic->env.user, LAPIC_EVENT_SMI, 0); return true;
    case APIC_NMI: apic->env.event(apic->env.user, LAPIC_EVENT_NMI, 0); return true;
    case APIC_INIT:
        if (message->assert) // the de-assert only synchronised arbitration IDs, on older processors
            apic->env.event(apic->env.user, LAPIC_EVENT_INIT, 0);
        return true;
    case APIC_STARTUP: apic->env.event(apic->env.user, LAPIC_EVENT_STARTUP, message->vector); return true;
    case APIC_EXTINT:
        if (!software_enabled(apic))
            return false;
        apic->extint_latched = true;
        apic->env.changed(apic->env.user);
        return true;
    default: return false;
    }
}

void lapic_power_up_registers(struct lapic *apic)
{
    memset(apic->irr, 0, sizeof apic->irr);
    memset(apic->isr, 0, sizeof apic->isr);
    memset(apic->tmr, 0, sizeof apic->tmr);
    for (unsigned i = 0; i < LAPIC_LVT_COUNT; i++)
        apic->lvt[i] = LVT_MASKED;
    apic->tpr = apic->esr = apic->esr_pending = 0;
    apic->icr = 0;
    apic->dfr = UINT32_MAX;
    apic->svr = LVT_VECTOR;
    apic->ldr = 0;
    if (lapic_mode(apic) == LAPIC_X2APIC) // the logical ID follows from the ID (SDM 3A 11.12.10.2)
        apic->ldr = apic->config.id >> 4 << 16 | 1u << (apic->config.id & 15);
    apic->timer_initial = apic->timer_divide = apic->timer_count = 0;
    apic->timer_running = false;
    apic->tsc_deadline = 0;
    apic->extint_latched = false;
    apic->env.changed(apic->env.user);
}

void lapic_init_signal(struct lapic *apic) { lapic_power_up_registers(apic); }

void lapic_reset(struct lapic *apic)
{
    apic->apic_base = LAPIC_DEFAULT_BASE | LAPIC_BASE_EN | (apic->config.bootstrap ? LAPIC_BASE_BSP : 0);
    lapic_power_up_registers(apic);
    apic->env.base_changed(apic->env.user, LAPIC_DEFAULT_BASE, LAPIC_XAPIC);
}

void lapic_init(struct lapic *apic, const struct lapic_config *config, const struct lapic_env *env)
{
    memset(apic, 0, sizeof *apic);
    apic->config = *config;
    apic->env = *env;
    lapic_reset(apic);
}

void lapic_enter_virtual_wire(struct lapic *apic)
{
    apic->svr |= SVR_ENABLE;
    apic->lvt[LAPIC_LVT_LINT0] = LVT_LEVEL | APIC_EXTINT << LVT_MODE_SHIFT;
    apic->lvt[LAPIC_LVT_LINT1] = APIC_NMI << LVT_MODE_SHIFT;
    apic->env.changed(apic->env.user);
}
