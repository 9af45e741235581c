// Local APIC timer: one-shot, periodic and TSC-deadline.
//
// SDM 3A 11.5.4 "APIC Timer". The count is computed: a count at a start tick,
// less the ticks since, divided. Nothing runs between events.
#include "devices/lapic_internal.h"

static unsigned divisor(const struct lapic *apic)
{
    // Bits 3, 1 and 0: 000 divides by 2, each step doubles, 111 divides by 1.
    unsigned code = (apic->timer_divide & 3) | (apic->timer_divide >> 1 & 4);
    return code == 7 ? 1 : 2u << code;
}

static bool is_deadline_mode(const struct lapic *apic) { return apic->lvt[LAPIC_LVT_TIMER] & LVT_TSC_DEADLINE; }

static uint64_t tick_at(const struct lapic *apic, cycle_t now)
{
    return timebase_ticks(now, apic->config.cycle_hz, apic->config.timer_hz);
}

static uint64_t tick_now(const struct lapic *apic) { return tick_at(apic, apic->env.now(apic->env.user)); }

static void expire(struct lapic *apic)
{
    uint32_t entry = apic->lvt[LAPIC_LVT_TIMER];
    if (!(entry & LVT_MASKED))
        lapic_accept_vector(apic, entry & LVT_VECTOR, false);
}

static void advance_count(struct lapic *apic, uint64_t tick)
{
    uint64_t counted = tick < apic->timer_start ? 0 : (tick - apic->timer_start) / divisor(apic);
    if (!apic->timer_running || counted < apic->timer_count)
        return;
    if (apic->lvt[LAPIC_LVT_TIMER] & LVT_PERIODIC) {
        uint64_t periods = (counted - apic->timer_count) / apic->timer_initial;
        apic->timer_start += (apic->timer_count + periods * apic->timer_initial) * divisor(apic);
        apic->timer_count = apic->timer_initial;
    } else {
        apic->timer_running = false;
        apic->timer_count = 0;
    }
    expire(apic); // however many periods passed, the IRR holds one request
}

void lapic_advance(struct lapic *apic, cycle_t now)
{
    if (apic->tsc_deadline && apic->env.tsc_to_cycle(apic->env.user, apic->tsc_deadline) <= now) {
        apic->tsc_deadline = 0;
        expire(apic);
    }
    if (apic->timer_running)
        advance_count(apic, tick_at(apic, now));
}

cycle_t lapic_next_event(const struct lapic *apic)
{
    if (apic->lvt[LAPIC_LVT_TIMER] & LVT_MASKED)
        return CYCLE_NEVER; // a masked expiry shows in no state that is not computed on access
    if (apic->tsc_deadline)
        return apic->env.tsc_to_cycle(apic->env.user, apic->tsc_deadline);
    if (!apic->timer_running)
        return CYCLE_NEVER;
    uint64_t tick = apic->timer_start + (uint64_t)apic->timer_count * divisor(apic);
    return timebase_cycle(tick, apic->config.cycle_hz, apic->config.timer_hz);
}

uint32_t lapic_timer_current(const struct lapic *apic)
{
    if (!apic->timer_running)
        return 0;
    uint64_t counted = (tick_now(apic) - apic->timer_start) / divisor(apic);
    return counted < apic->timer_count ? apic->timer_count - (uint32_t)counted : 0;
}

void lapic_timer_write_initial(struct lapic *apic, uint32_t value)
{
    if (is_deadline_mode(apic))
        return;
    apic->timer_initial = apic->timer_count = value;
    apic->timer_start = tick_now(apic);
    apic->timer_running = value != 0;
}

void lapic_timer_write_divide(struct lapic *apic, uint32_t value)
{
    apic->timer_count = lapic_timer_current(apic); // the rest of the count goes on at the new rate
    apic->timer_start = tick_now(apic);
    apic->timer_divide = value;
}

void lapic_timer_write_lvt(struct lapic *apic, uint32_t value)
{
    bool was_deadline = is_deadline_mode(apic);
    apic->lvt[LAPIC_LVT_TIMER] = value;
    if (is_deadline_mode(apic) != was_deadline) { // a change to or from the deadline mode disarms the timer
        apic->timer_running = false;
        apic->timer_initial = apic->timer_count = 0;
        apic->tsc_deadline = 0;
    }
}

void lapic_timer_write_deadline(struct lapic *apic, uint64_t tsc)
{
    if (is_deadline_mode(apic))
        apic->tsc_deadline = tsc;
}
