// Local APIC registers, and the register page of xAPIC mode.
//
// SDM 3A 11.4.1, table 11-1 "Local APIC Register Address Map"; 11.6.1
// "Interrupt Command Register (ICR)". The APIC ID is read only, as on
// processors that have x2APIC.
#include "devices/lapic_internal.h"

enum { VERSION = 0x14, VERSION_MAX_LVT_SHIFT = 16, VERSION_EOI_SUPPRESSION = 1 << 24 };
enum { DFR_RESERVED_ONES = 0x0fffffff, CLASS = 0xf0 };
enum { LVT_LOCAL_BITS = 0x107ff, LVT_LINT_BITS = 0x1a7ff, LVT_PLAIN_BITS = 0x100ff };

static uint32_t lvt_writable_bits(const struct lapic *apic, enum lapic_lvt entry)
{
    switch (entry) {
    case LAPIC_LVT_TIMER: return LVT_PLAIN_BITS | LVT_PERIODIC | (apic->config.tsc_deadline ? LVT_TSC_DEADLINE : 0);
    case LAPIC_LVT_THERMAL:
    case LAPIC_LVT_PERF: return LVT_LOCAL_BITS;
    case LAPIC_LVT_LINT0:
    case LAPIC_LVT_LINT1: return LVT_LINT_BITS;
    default: return LVT_PLAIN_BITS;
    }
}

uint32_t lapic_writable_bits(const struct lapic *apic, unsigned number)
{
    if (number >= LAPIC_LVT_FIRST && number <= LAPIC_LVT_LAST)
        return lvt_writable_bits(apic, number - LAPIC_LVT_FIRST);
    switch (number) {
    case LAPIC_TPR: return 0xff;
    case LAPIC_LDR: return 0xff000000;
    case LAPIC_DFR: return 0xf0000000;
    case LAPIC_SVR: return SVR_SUPPRESS_EOI | SVR_ENABLE | LVT_VECTOR;
    case LAPIC_ICR_LOW: return ICR_WRITABLE;
    case LAPIC_ICR_HIGH: return 0xff000000;
    case LAPIC_INITIAL_COUNT: return UINT32_MAX;
    case LAPIC_DIVIDE: return 0xb;
    default: return 0;
    }
}

static uint32_t highest_class(const uint32_t bits[8])
{
    for (int word = 7; word >= 0; word--)
        if (bits[word])
            return (uint32_t)(word * 32 + 31 - __builtin_clz(bits[word])) & CLASS;
    return 0;
}

// SDM 3A 11.6.2.4 "Lowest Priority Delivery Mode": the arbitration priority register.
static uint32_t arbitration_priority(const struct lapic *apic)
{
    uint32_t task = apic->tpr & CLASS, request = highest_class(apic->irr), service = highest_class(apic->isr);
    if (task >= request && task > service)
        return apic->tpr;
    uint32_t highest = task > request ? task : request;
    return highest > service ? highest : service;
}

bool lapic_read_register(struct lapic *apic, unsigned number, uint32_t *value)
{
    bool x2apic = lapic_mode(apic) == LAPIC_X2APIC;
    *value = 0;
    if (number >= LAPIC_ISR && number < LAPIC_TMR)
        *value = apic->isr[number - LAPIC_ISR];
    else if (number >= LAPIC_TMR && number < LAPIC_IRR)
        *value = apic->tmr[number - LAPIC_TMR];
    else if (number >= LAPIC_IRR && number < LAPIC_ESR)
        *value = apic->irr[number - LAPIC_IRR];
    else if (number >= LAPIC_LVT_FIRST && number <= LAPIC_LVT_LAST)
        *value = apic->lvt[number - LAPIC_LVT_FIRST];
    else
        switch (number) {
        case LAPIC_ID: *value = x2apic ? apic->config.id : apic->config.id << 24; break;
        case LAPIC_VERSION:
            *value = VERSION | (LAPIC_LVT_COUNT - 1) << VERSION_MAX_LVT_SHIFT | VERSION_EOI_SUPPRESSION;
            break;
        case LAPIC_TPR: *value = apic->tpr; break;
        case LAPIC_APR: *value = arbitration_priority(apic); break;
        case LAPIC_PPR: *value = lapic_ppr(apic); break;
        case LAPIC_EOI:
        case LAPIC_REMOTE_READ: break; // write only; never filled
        case LAPIC_LDR: *value = apic->ldr; break;
        case LAPIC_DFR: *value = apic->dfr; break;
        case LAPIC_SVR: *value = apic->svr; break;
        case LAPIC_ESR: *value = apic->esr; break;
        case LAPIC_ICR_LOW: *value = (uint32_t)apic->icr; break;
        case LAPIC_ICR_HIGH: *value = (uint32_t)(apic->icr >> 32); break;
        case LAPIC_INITIAL_COUNT: *value = apic->timer_initial; break;
        case LAPIC_CURRENT_COUNT: *value = lapic_timer_current(apic); break;
        case LAPIC_DIVIDE: *value = apic->timer_divide; break;
        default: return false;
        }
    return true;
}

static void write_svr(struct lapic *apic, uint32_t value)
{
    apic->svr = value;
    if (value & SVR_ENABLE)
        return;
    for (unsigned i = 0; i < LAPIC_LVT_COUNT; i++) // SDM 3A 11.4.7.2: all mask bits are set
        apic->lvt[i] |= LVT_MASKED;
}

static void write_lvt(struct lapic *apic, enum lapic_lvt entry, uint32_t value)
{
    if (!(apic->svr & SVR_ENABLE))
        value |= LVT_MASKED;
    if (entry == LAPIC_LVT_TIMER) {
        lapic_timer_write_lvt(apic, value);
        return;
    }
    apic->lvt[entry] = value;
    if (entry == LAPIC_LVT_LINT0 || entry == LAPIC_LVT_LINT1)
        lapic_update_lint(apic, entry - LAPIC_LVT_LINT0);
}

// SDM 3A table 11-3 "Valid Combinations for the Pentium 4 and Intel Xeon Processors' Local xAPIC ICR".
static bool combination_is_valid(const struct apic_message *message)
{
    bool includes_self = message->shorthand == APIC_SELF || message->shorthand == APIC_ALL;
    bool sendable = message->mode != APIC_EXTINT && message->mode != 3;
    return sendable && (!includes_self || message->mode == APIC_FIXED);
}

void lapic_send_ipi(struct lapic *apic)
{
    bool wide = lapic_mode(apic) == LAPIC_X2APIC;
    struct apic_message message = {
        .destination = (uint32_t)(apic->icr >> (wide ? 32 : 56)),
        .vector = apic->icr & LVT_VECTOR,
        .mode = apic->icr >> LVT_MODE_SHIFT & 7,
        .shorthand = apic->icr >> ICR_SHORTHAND_SHIFT & 3,
        .logical = apic->icr & ICR_LOGICAL,
        .wide = wide,
        .assert = true,
    };
    if (message.mode == APIC_INIT && (apic->icr & ICR_TRIGGER_LEVEL))
        message.assert = apic->icr & ICR_LEVEL_ASSERT;
    bool vectored = message.mode == APIC_FIXED || message.mode == APIC_LOWEST_PRIORITY;
    if (vectored && message.vector < FIRST_LEGAL_VECTOR) {
        lapic_report_error(apic, ESR_SEND_ILLEGAL_VECTOR);
        return;
    }
    if (combination_is_valid(&message))
        apic->env.send(apic->env.user, &message);
}

void lapic_send_self_ipi(struct lapic *apic, uint8_t vector)
{
    struct apic_message message = {
        .vector = vector, .mode = APIC_FIXED, .shorthand = APIC_SELF, .wide = true, .assert = true};
    if (vector < FIRST_LEGAL_VECTOR)
        lapic_report_error(apic, ESR_SEND_ILLEGAL_VECTOR);
    else
        apic->env.send(apic->env.user, &message);
}

bool lapic_write_register(struct lapic *apic, unsigned number, uint32_t value)
{
    value &= lapic_writable_bits(apic, number);
    lapic_advance(apic, apic->env.now(apic->env.user));
    if (number >= LAPIC_LVT_FIRST && number <= LAPIC_LVT_LAST) {
        uint32_t remote_irr = apic->lvt[number - LAPIC_LVT_FIRST] & LVT_REMOTE_IRR;
        write_lvt(apic, number - LAPIC_LVT_FIRST, value | remote_irr);
        return true;
    }
    switch (number) {
    case LAPIC_TPR: lapic_set_tpr(apic, (uint8_t)value); break;
    case LAPIC_EOI: lapic_end_of_interrupt(apic); break;
    case LAPIC_LDR: apic->ldr = value; break;
    case LAPIC_DFR: apic->dfr = value | DFR_RESERVED_ONES; break;
    case LAPIC_SVR: write_svr(apic, value); break;
    case LAPIC_ESR: // a write shows the errors since the one before (SDM 3A 11.5.3)
        apic->esr = apic->esr_pending;
        apic->esr_pending = 0;
        break;
    case LAPIC_ICR_LOW:
        apic->icr = (apic->icr & BITS(63, 32)) | value;
        lapic_send_ipi(apic);
        break;
    case LAPIC_ICR_HIGH: apic->icr = (uint64_t)value << 32 | (uint32_t)apic->icr; break;
    case LAPIC_INITIAL_COUNT: lapic_timer_write_initial(apic, value); break;
    case LAPIC_DIVIDE: lapic_timer_write_divide(apic, value); break;
    case LAPIC_ID:
    case LAPIC_VERSION:
    case LAPIC_APR:
    case LAPIC_PPR:
    case LAPIC_REMOTE_READ:
    case LAPIC_CURRENT_COUNT: break;                           // read only
    default: return number >= LAPIC_ISR && number < LAPIC_ESR; // read only too, or absent
    }
    return true;
}

uint64_t lapic_mmio_read(struct lapic *apic, uint64_t offset, unsigned size)
{
    if (lapic_mode(apic) != LAPIC_XAPIC)
        return BITS(8 * size - 1, 0); // nothing answers
    unsigned byte = offset & 15;
    if (byte + size > 4)
        return 0;
    uint32_t value;
    lapic_advance(apic, apic->env.now(apic->env.user));
    if (!lapic_read_register(apic, (unsigned)(offset >> 4), &value))
        lapic_report_error(apic, ESR_ILLEGAL_REGISTER);
    return value >> (8 * byte) & BITS(8 * size - 1, 0);
}

void lapic_mmio_write(struct lapic *apic, uint64_t offset, unsigned size, uint64_t value)
{
    if (lapic_mode(apic) != LAPIC_XAPIC || size != 4 || (offset & 15))
        return;
    if (!lapic_write_register(apic, (unsigned)(offset >> 4), (uint32_t)value))
        lapic_report_error(apic, ESR_ILLEGAL_REGISTER);
}
