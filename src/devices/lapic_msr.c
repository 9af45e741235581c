// Local APIC MSRs: IA32_APIC_BASE, IA32_TSC_DEADLINE and the x2APIC registers.
//
// SDM 3A 11.12 "Extended XAPIC (x2APIC)": 11.12.1.2 "x2APIC Register Address
// Space", 11.12.1.3 "Reserved Bit Checking", 11.12.5 "x2APIC State Transitions".
#include "devices/lapic_internal.h"

enum { READ_ONLY_BITS = 1 << 12 | LVT_REMOTE_IRR }; // delivery status and remote IRR: ignored on a write

static enum lapic_mode mode_of(uint64_t apic_base)
{
    if (!(apic_base & LAPIC_BASE_EN))
        return LAPIC_DISABLED;
    return apic_base & LAPIC_BASE_EXTD ? LAPIC_X2APIC : LAPIC_XAPIC;
}

// SDM 3A 11.12.5, figure 11-27 "Local APIC State Transitions with IA32_APIC_BASE, INIT, and RESET".
static bool transition_is_legal(enum lapic_mode from, uint64_t apic_base)
{
    if ((apic_base & LAPIC_BASE_EXTD) && !(apic_base & LAPIC_BASE_EN))
        return false;
    enum lapic_mode to = mode_of(apic_base);
    return !(from == LAPIC_DISABLED && to == LAPIC_X2APIC) && !(from == LAPIC_X2APIC && to == LAPIC_XAPIC);
}

static enum lapic_status write_apic_base(struct lapic *apic, uint64_t value)
{
    uint64_t writable = LAPIC_BASE_BSP | LAPIC_BASE_EN | (apic->config.x2apic ? LAPIC_BASE_EXTD : 0);
    writable |= BITS(apic->config.maxphyaddr - 1, PAGE_SHIFT);
    enum lapic_mode from = lapic_mode(apic);
    if ((value & ~writable) || !transition_is_legal(from, value))
        return LAPIC_GP;
    enum lapic_mode to = mode_of(value);
    lapic_advance(apic, apic->env.now(apic->env.user));
    apic->apic_base = value;
    if (to == LAPIC_DISABLED && from != LAPIC_DISABLED) {
        lapic_power_up_registers(apic); // nothing survives (SDM 3A 11.4.3)
    } else if (to == LAPIC_X2APIC && from == LAPIC_XAPIC) {
        apic->ldr = apic->config.id >> 4 << 16 | 1u << (apic->config.id & 15);
        apic->icr &= BITS(31, 0);
    }
    apic->env.base_changed(apic->env.user, lapic_base(apic), to);
    apic->env.changed(apic->env.user);
    return LAPIC_OK;
}

static enum lapic_status read_x2apic(struct lapic *apic, unsigned number, uint64_t *value)
{
    uint32_t low;
    switch (number) {
    case LAPIC_APR: // these exist in xAPIC mode only, or are write only
    case LAPIC_EOI:
    case LAPIC_REMOTE_READ:
    case LAPIC_DFR:
    case LAPIC_ICR_HIGH:
    case LAPIC_SELF_IPI: return LAPIC_GP;
    case LAPIC_ICR_LOW: *value = apic->icr; return LAPIC_OK;
    default:
        lapic_advance(apic, apic->env.now(apic->env.user));
        if (!lapic_read_register(apic, number, &low))
            return LAPIC_GP;
        *value = low;
        return LAPIC_OK;
    }
}

static enum lapic_status write_icr(struct lapic *apic, uint64_t value)
{
    if (value & BITS(31, 0) & ~(uint64_t)(ICR_WRITABLE | READ_ONLY_BITS))
        return LAPIC_GP;
    apic->icr = value & (BITS(63, 32) | ICR_WRITABLE);
    lapic_send_ipi(apic);
    return LAPIC_OK;
}

static enum lapic_status write_x2apic(struct lapic *apic, unsigned number, uint64_t value)
{
    uint64_t allowed = lapic_writable_bits(apic, number);
    switch (number) {
    case LAPIC_ICR_LOW: return write_icr(apic, value);
    case LAPIC_SELF_IPI:
        if (value > LVT_VECTOR)
            return LAPIC_GP;
        lapic_send_self_ipi(apic, (uint8_t)value);
        return LAPIC_OK;
    case LAPIC_EOI:
    case LAPIC_ESR: break; // only zero may be written: `allowed` is 0
    case LAPIC_TPR:
    case LAPIC_SVR:
    case LAPIC_INITIAL_COUNT:
    case LAPIC_DIVIDE: break;
    default:
        if (number < LAPIC_LVT_FIRST || number > LAPIC_LVT_LAST)
            return LAPIC_GP; // read only or absent
        allowed |= READ_ONLY_BITS;
    }
    if (value & ~allowed)
        return LAPIC_GP;
    lapic_write_register(apic, number, (uint32_t)value);
    return LAPIC_OK;
}

enum lapic_status lapic_msr_read(struct lapic *apic, uint32_t msr, uint64_t *value)
{
    if (msr == LAPIC_MSR_APIC_BASE) {
        *value = apic->apic_base;
        return LAPIC_OK;
    }
    if (msr == LAPIC_MSR_TSC_DEADLINE && apic->config.tsc_deadline) {
        lapic_advance(apic, apic->env.now(apic->env.user));
        *value = apic->tsc_deadline;
        return LAPIC_OK;
    }
    if (msr < LAPIC_MSR_X2APIC_FIRST || msr > LAPIC_MSR_X2APIC_LAST || lapic_mode(apic) != LAPIC_X2APIC)
        return LAPIC_GP;
    return read_x2apic(apic, msr - LAPIC_MSR_X2APIC_FIRST, value);
}

enum lapic_status lapic_msr_write(struct lapic *apic, uint32_t msr, uint64_t value)
{
    if (msr == LAPIC_MSR_APIC_BASE)
        return write_apic_base(apic, value);
    if (msr == LAPIC_MSR_TSC_DEADLINE && apic->config.tsc_deadline) {
        lapic_advance(apic, apic->env.now(apic->env.user));
        lapic_timer_write_deadline(apic, value);
        lapic_advance(apic, apic->env.now(apic->env.user)); // a deadline in the past fires at once
        return LAPIC_OK;
    }
    if (msr < LAPIC_MSR_X2APIC_FIRST || msr > LAPIC_MSR_X2APIC_LAST || lapic_mode(apic) != LAPIC_X2APIC)
        return LAPIC_GP;
    return write_x2apic(apic, msr - LAPIC_MSR_X2APIC_FIRST, value);
}
