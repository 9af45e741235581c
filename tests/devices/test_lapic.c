// Local APICs in xAPIC and x2APIC mode, alone and sending to each other.
#include "device_fixture.h"

#include "devices/apic_route.h"
#include "devices/lapic.h"

enum { CPUS = 4, TIMER_HZ = 100000000 };
enum {
    ID = 0x20,
    VERSION = 0x30,
    TPR = 0x80,
    APR = 0x90,
    PPR = 0xa0,
    EOI = 0xb0,
    LDR = 0xd0,
    DFR = 0xe0,
    SVR = 0xf0,
    ISR = 0x100,
    TMR = 0x180,
    IRR = 0x200,
    ESR = 0x280,
    ICR = 0x300,
    ICR_HIGH = 0x310,
    LVT_TIMER = 0x320,
    LVT_PERF = 0x340,
    LVT_LINT0 = 0x350,
    LVT_LINT1 = 0x360,
    LVT_ERROR = 0x370,
    INITIAL = 0x380,
    CURRENT = 0x390,
    DIVIDE = 0x3e0
};
static struct lapic apics[CPUS];
static struct lapic *const list[CPUS] = {&apics[0], &apics[1], &apics[2], &apics[3]};
static struct {
    unsigned events[4], eois, changes, base_changes;
    uint8_t last_vector, last_eoi;
    bool taken;
    uint64_t tsc_offset;
} seen;

static cycle_t tsc_to_cycle(void *user, uint64_t tsc)
{
    (void)user;
    return tsc > seen.tsc_offset ? tsc - seen.tsc_offset : 0;
}

static void on_send(void *user, const struct apic_message *message)
{
    seen.taken = apic_route(list, CPUS, user, message);
}

static void on_eoi(void *user, uint8_t vector)
{
    (void)user;
    seen.eois++;
    seen.last_eoi = vector;
}

static void on_event(void *user, enum lapic_event event, uint8_t vector)
{
    (void)user;
    seen.events[event]++;
    seen.last_vector = vector;
}

static void on_changed(void *user)
{
    (void)user;
    seen.changes++;
}

static void on_base(void *user, hpa_t base, enum lapic_mode mode)
{
    (void)user, (void)base, (void)mode;
    seen.base_changes++;
}

static cycle_t now(void *user)
{
    (void)user;
    return fx.now;
}

static unsigned get(unsigned cpu, unsigned offset) { return (unsigned)lapic_mmio_read(&apics[cpu], offset, 4); }

static void put(unsigned cpu, unsigned offset, unsigned value) { lapic_mmio_write(&apics[cpu], offset, 4, value); }

static uint64_t msr(unsigned cpu, uint32_t number)
{
    uint64_t value = 0;
    ck_assert_int_eq(lapic_msr_read(&apics[cpu], number, &value), LAPIC_OK);
    return value;
}

static enum lapic_status wrmsr(unsigned cpu, uint32_t number, uint64_t value)
{
    return lapic_msr_write(&apics[cpu], number, value);
}

static bool rdmsr_faults(unsigned cpu, uint32_t number)
{
    uint64_t value;
    return lapic_msr_read(&apics[cpu], number, &value) == LAPIC_GP;
}

static void enter_x2apic(unsigned cpu) { ck_assert_int_eq(wrmsr(cpu, 0x1b, msr(cpu, 0x1b) | 0xc00), LAPIC_OK); }

static void setup(void)
{
    fixture_setup();
    for (unsigned i = 0; i < CPUS; i++) {
        struct lapic_config config = {i, i == 0, true, true, 40, CYCLE_HZ, TIMER_HZ};
        struct lapic_env env = {&apics[i], now, tsc_to_cycle, on_send, on_eoi, on_event, on_changed, on_base};
        lapic_init(&apics[i], &config, &env);
        put(i, SVR, 0x1ff);
    }
    memset(&seen, 0, sizeof seen);
}

static void advance_all(cycle_t to)
{
    fx.now = to;
    for (unsigned i = 0; i < CPUS; i++)
        lapic_advance(&apics[i], to);
}

static void send_fixed(unsigned from, unsigned to, unsigned vector)
{
    put(from, ICR_HIGH, to << 24);
    put(from, ICR, vector);
}

START_TEST(reset_state_is_the_sdms)
{
    lapic_reset(&apics[2]);
    ck_assert_uint_eq(msr(2, 0x1b), 0xfee00800);
    ck_assert_uint_eq(msr(0, 0x1b), 0xfee00900);
    ck_assert_uint_eq(get(2, ID), 2u << 24);
    ck_assert_uint_eq(get(2, VERSION), 0x01050014);
    ck_assert_uint_eq(get(2, SVR), 0xff);
    ck_assert_uint_eq(get(2, DFR), 0xffffffff);
    for (unsigned offset = LVT_TIMER; offset <= LVT_ERROR; offset += 16)
        ck_assert_uint_eq(get(2, offset), 0x10000);
}
END_TEST

START_TEST(interrupt_goes_through_irr_isr_eoi)
{
    send_fixed(0, 1, 0x51);
    ck_assert_uint_eq(get(1, IRR + 0x20), 1u << (0x51 - 0x40));
    ck_assert_int_eq(lapic_pending_vector(&apics[1]), 0x51);
    ck_assert_uint_eq(lapic_acknowledge(&apics[1]), 0x51);
    ck_assert_uint_eq(get(1, IRR + 0x20), 0);
    ck_assert_uint_eq(get(1, ISR + 0x20), 1u << (0x51 - 0x40));
    ck_assert_uint_eq(get(1, PPR), 0x50);
    put(1, EOI, 0);
    ck_assert_uint_eq(get(1, ISR + 0x20), 0);
    ck_assert_uint_eq(seen.eois, 0); // edge: the I/O APIC hears nothing
}
END_TEST

START_TEST(priority_class_in_service_holds_back_its_class)
{
    send_fixed(0, 1, 0x51);
    lapic_acknowledge(&apics[1]);
    send_fixed(0, 1, 0x5f);
    ck_assert_int_eq(lapic_pending_vector(&apics[1]), -1);
    send_fixed(0, 1, 0x60);
    ck_assert_int_eq(lapic_pending_vector(&apics[1]), 0x60);
    lapic_acknowledge(&apics[1]);
    put(1, EOI, 0); // ends 0x60
    ck_assert_int_eq(lapic_pending_vector(&apics[1]), -1);
    put(1, EOI, 0); // ends 0x51
    ck_assert_int_eq(lapic_pending_vector(&apics[1]), 0x5f);
}
END_TEST

START_TEST(task_priority_holds_back_and_lowering_it_delivers)
{
    put(1, TPR, 0x6f);
    send_fixed(0, 1, 0x6a);
    ck_assert_int_eq(lapic_pending_vector(&apics[1]), -1);
    ck_assert_uint_eq(get(1, PPR), 0x6f);
    lapic_set_tpr(&apics[1], 0x50);
    ck_assert_int_eq(lapic_pending_vector(&apics[1]), 0x6a);
    ck_assert_uint_eq(get(1, TPR), 0x50);
}
END_TEST

START_TEST(acknowledge_without_request_gives_the_spurious_vector)
{
    put(1, SVR, 0x1ef);
    ck_assert_uint_eq(lapic_acknowledge(&apics[1]), 0xef);
    ck_assert_uint_eq(get(1, ISR + 0x70), 0);
}
END_TEST

START_TEST(illegal_vectors_are_reported_and_not_sent)
{
    put(1, LVT_ERROR, 0xe0);
    put(1, ICR_HIGH, 0);
    put(1, ICR, 0x0f);
    ck_assert_int_eq(lapic_pending_vector(&apics[1]), 0xe0);
    ck_assert_uint_eq(get(1, ESR), 0);
    put(1, ESR, 0);
    ck_assert_uint_eq(get(1, ESR), 0x20);
    put(1, ESR, 0);
    ck_assert_uint_eq(get(1, ESR), 0);
    struct apic_message bad = {.vector = 3, .mode = APIC_FIXED};
    ck_assert(!lapic_deliver(&apics[1], &bad));
    put(1, ESR, 0);
    ck_assert_uint_eq(get(1, ESR), 0x40);
}
END_TEST

START_TEST(illegal_error_vector_does_not_recurse)
{
    put(1, LVT_ERROR, 0x05);
    put(1, ICR, 0x01);
    put(1, ESR, 0);
    ck_assert_uint_eq(get(1, ESR), 0x60);
}
END_TEST

START_TEST(illegal_register_is_reported)
{
    get(1, 0x040);
    put(1, ESR, 0);
    ck_assert_uint_eq(get(1, ESR), 0x80);
    put(1, 0x3f0, 0x55); // self IPI exists in x2APIC mode only
    put(1, ESR, 0);
    ck_assert_uint_eq(get(1, ESR), 0x80);
}
END_TEST

START_TEST(odd_accesses_are_harmless)
{
    lapic_mmio_write(&apics[1], TPR, 1, 0x77);
    lapic_mmio_write(&apics[1], TPR + 4, 4, 0x77);
    lapic_mmio_write(&apics[1], TPR, 8, 0x77);
    ck_assert_uint_eq(get(1, TPR), 0);
    ck_assert_uint_eq(lapic_mmio_read(&apics[1], VERSION + 2, 1), 0x05);
    ck_assert_uint_eq(lapic_mmio_read(&apics[1], VERSION + 4, 4), 0);
    ck_assert_uint_eq(lapic_mmio_read(&apics[1], VERSION, 8), 0);
}
END_TEST

START_TEST(shorthands_reach_their_sets)
{
    put(1, ICR, 0x40000 | 0x41); // self
    put(1, ICR, 0x80000 | 0x42); // all
    put(1, ICR, 0xc0000 | 0x43); // all but self
    for (unsigned i = 0; i < CPUS; i++)
        ck_assert_uint_eq(get(i, IRR + 0x20), (i == 1 ? 0x2u : 0x8u) | 0x4u);
}
END_TEST

START_TEST(physical_broadcast_reaches_all)
{
    send_fixed(2, 0xff, 0x44);
    for (unsigned i = 0; i < CPUS; i++)
        ck_assert_uint_eq(get(i, IRR + 0x20), 0x10);
}
END_TEST

START_TEST(flat_logical_destination_is_a_bit_set)
{
    for (unsigned i = 0; i < CPUS; i++)
        put(i, LDR, 1u << (24 + i));
    put(0, ICR_HIGH, 0x0a000000);
    put(0, ICR, 0x800 | 0x45);
    for (unsigned i = 0; i < CPUS; i++)
        ck_assert_uint_eq(get(i, IRR + 0x20), i & 1 ? 0x20 : 0);
}
END_TEST

START_TEST(cluster_logical_destination_needs_the_cluster)
{
    for (unsigned i = 0; i < CPUS; i++) {
        put(i, DFR, 0x0fffffff);
        put(i, LDR, (i / 2) << 28 | 1u << (24 + i % 2));
    }
    put(0, ICR_HIGH, 0x13000000); // cluster 1, members 0 and 1
    put(0, ICR, 0x800 | 0x46);
    for (unsigned i = 0; i < CPUS; i++)
        ck_assert_uint_eq(get(i, IRR + 0x20), i >= 2 ? 0x40 : 0);
}
END_TEST

START_TEST(lowest_priority_picks_the_idlest_and_the_first_of_equals)
{
    for (unsigned i = 0; i < CPUS; i++)
        put(i, LDR, 1u << (24 + i));
    put(0, TPR, 0x40);
    put(1, TPR, 0x20);
    put(2, TPR, 0x20);
    put(3, TPR, 0x30);
    put(0, ICR_HIGH, 0x0f000000);
    put(0, ICR, 0x900 | 0x47);
    for (unsigned i = 0; i < CPUS; i++)
        ck_assert_uint_eq(get(i, IRR + 0x20), i == 1 ? 0x80 : 0);
}
END_TEST

START_TEST(software_disabled_apic_takes_events_but_no_vectors)
{
    put(1, SVR, 0x0ff);
    send_fixed(0, 1, 0x50);
    ck_assert(!seen.taken);
    put(0, ICR, 0x400);
    ck_assert_uint_eq(seen.events[LAPIC_EVENT_NMI], 1);
    put(1, LVT_TIMER, 0x40);
    ck_assert_uint_eq(get(1, LVT_TIMER), 0x10040); // the mask cannot be cleared
}
END_TEST

START_TEST(init_and_sipi_are_events)
{
    put(0, ICR_HIGH, 1u << 24);
    put(0, ICR, 0xc500);
    ck_assert_uint_eq(seen.events[LAPIC_EVENT_INIT], 1);
    put(0, ICR, 0x8500); // de-assert: nothing
    ck_assert_uint_eq(seen.events[LAPIC_EVENT_INIT], 1);
    put(0, ICR, 0x4608);
    ck_assert_uint_eq(seen.events[LAPIC_EVENT_STARTUP], 1);
    ck_assert_uint_eq(seen.last_vector, 0x08);
}
END_TEST

START_TEST(invalid_icr_combinations_send_nothing)
{
    put(0, ICR, 0x40400); // NMI to self
    put(0, ICR, 0x80500); // INIT to all including self
    put(0, ICR, 0x700);   // ExtINT
    ck_assert_uint_eq(seen.events[LAPIC_EVENT_NMI] + seen.events[LAPIC_EVENT_INIT], 0);
}
END_TEST

START_TEST(level_vector_sends_eoi_unless_suppressed)
{
    struct apic_message level = {.vector = 0x61, .mode = APIC_FIXED, .level_triggered = true, .assert = true};
    lapic_deliver(&apics[1], &level);
    ck_assert_uint_eq(get(1, TMR + 0x30), 2);
    lapic_acknowledge(&apics[1]);
    put(1, EOI, 0);
    ck_assert_uint_eq(seen.eois, 1);
    ck_assert_uint_eq(seen.last_eoi, 0x61);
    put(1, SVR, 0x11ff);
    lapic_deliver(&apics[1], &level);
    lapic_acknowledge(&apics[1]);
    put(1, EOI, 0);
    ck_assert_uint_eq(seen.eois, 1);
}
END_TEST

START_TEST(extint_follows_lint0_in_virtual_wire_mode)
{
    lapic_reset(&apics[0]);
    lapic_set_lint(&apics[0], 0, true);
    ck_assert(!lapic_extint_pending(&apics[0]));
    lapic_enter_virtual_wire(&apics[0]);
    ck_assert(lapic_extint_pending(&apics[0]));
    put(0, LVT_LINT0, 0x18700);
    ck_assert(!lapic_extint_pending(&apics[0]));
    ck_assert_int_eq(wrmsr(0, 0x1b, 0xfee00100), LAPIC_OK); // disabled: LINT0 is INTR
    ck_assert(lapic_extint_pending(&apics[0]));
    lapic_set_lint(&apics[0], 0, false);
    ck_assert(!lapic_extint_pending(&apics[0]));
}
END_TEST

START_TEST(extint_message_waits_until_acknowledged)
{
    struct apic_message message = {.mode = APIC_EXTINT, .assert = true};
    ck_assert(lapic_deliver(&apics[1], &message));
    ck_assert(lapic_extint_pending(&apics[1]));
    lapic_acknowledge_extint(&apics[1]);
    ck_assert(!lapic_extint_pending(&apics[1]));
}
END_TEST

START_TEST(lint1_nmi_fires_on_its_edge)
{
    put(0, LVT_LINT1, 0x400);
    lapic_set_lint(&apics[0], 1, true);
    lapic_set_lint(&apics[0], 1, true);
    ck_assert_uint_eq(seen.events[LAPIC_EVENT_NMI], 1);
}
END_TEST

START_TEST(level_lint0_refires_after_eoi_while_asserted)
{
    put(0, LVT_LINT0, 0x8055);
    lapic_set_lint(&apics[0], 0, true);
    ck_assert_uint_eq(get(0, LVT_LINT0), 0xc055);
    ck_assert_uint_eq(lapic_acknowledge(&apics[0]), 0x55);
    ck_assert_int_eq(lapic_pending_vector(&apics[0]), -1);
    put(0, EOI, 0);
    ck_assert_int_eq(lapic_pending_vector(&apics[0]), 0x55);
    lapic_set_lint(&apics[0], 0, false);
    lapic_acknowledge(&apics[0]);
    put(0, EOI, 0);
    ck_assert_uint_eq(get(0, LVT_LINT0), 0x8055);
}
END_TEST

START_TEST(performance_interrupt_masks_its_entry)
{
    put(0, LVT_PERF, 0xee);
    lapic_trigger_lvt(&apics[0], LAPIC_LVT_PERF);
    ck_assert_int_eq(lapic_pending_vector(&apics[0]), 0xee);
    ck_assert_uint_eq(get(0, LVT_PERF), 0x100ee);
}
END_TEST

START_TEST(one_shot_timer_fires_once_at_its_cycle)
{
    put(0, DIVIDE, 0x3); // by 16
    put(0, LVT_TIMER, 0x70);
    put(0, INITIAL, 1000);
    cycle_t due = 1000u * 16 * (CYCLE_HZ / TIMER_HZ);
    ck_assert_uint_eq(lapic_next_event(&apics[0]), due);
    advance_all(due - 1);
    ck_assert_uint_eq(get(0, CURRENT), 1);
    ck_assert_int_eq(lapic_pending_vector(&apics[0]), -1);
    advance_all(due);
    ck_assert_int_eq(lapic_pending_vector(&apics[0]), 0x70);
    ck_assert_uint_eq(get(0, CURRENT), 0);
    ck_assert_uint_eq(lapic_next_event(&apics[0]), CYCLE_NEVER);
}
END_TEST

START_TEST(periodic_timer_keeps_its_phase)
{
    put(0, DIVIDE, 0xb); // by 1
    put(0, LVT_TIMER, 0x20070);
    put(0, INITIAL, 100);
    cycle_t period = 100 * (CYCLE_HZ / TIMER_HZ);
    advance_all(period * 7 + 30); // seven periods at once: one request
    ck_assert_uint_eq(lapic_next_event(&apics[0]), period * 8);
    ck_assert_uint_eq(get(0, CURRENT), 97);
    ck_assert_uint_eq(lapic_acknowledge(&apics[0]), 0x70);
    put(0, INITIAL, 0);
    ck_assert_uint_eq(lapic_next_event(&apics[0]), CYCLE_NEVER);
}
END_TEST

START_TEST(every_divide_code_divides)
{
    static const struct {
        unsigned code, divisor;
    } rows[] = {{0, 2}, {1, 4}, {2, 8}, {3, 16}, {8, 32}, {9, 64}, {10, 128}, {11, 1}};
    put(0, LVT_TIMER, 0x70);
    for (unsigned i = 0; i < 8; i++) {
        put(0, DIVIDE, rows[i].code);
        put(0, INITIAL, 10);
        ck_assert_uint_eq(lapic_next_event(&apics[0]), 10 * rows[i].divisor * (CYCLE_HZ / TIMER_HZ));
    }
}
END_TEST

START_TEST(new_divisor_keeps_the_rest_of_the_count)
{
    put(0, DIVIDE, 0xb);
    put(0, LVT_TIMER, 0x70);
    put(0, INITIAL, 100);
    advance_all(400);
    put(0, DIVIDE, 0x0);
    ck_assert_uint_eq(get(0, CURRENT), 60);
    ck_assert_uint_eq(lapic_next_event(&apics[0]), 400 + 60 * 2 * 10);
}
END_TEST

START_TEST(masked_timer_counts_without_interrupt)
{
    put(0, DIVIDE, 0xb);
    put(0, LVT_TIMER, 0x10070);
    put(0, INITIAL, 100);
    ck_assert_uint_eq(lapic_next_event(&apics[0]), CYCLE_NEVER);
    advance_all(500);
    ck_assert_uint_eq(get(0, CURRENT), 50);
    advance_all(5000);
    put(0, LVT_TIMER, 0x70);
    ck_assert_int_eq(lapic_pending_vector(&apics[0]), -1);
}
END_TEST

START_TEST(tsc_deadline_fires_and_disarms)
{
    ck_assert_int_eq(wrmsr(0, 0x6e0, 500), LAPIC_OK);
    ck_assert_uint_eq(msr(0, 0x6e0), 0); // ignored outside the mode
    put(0, LVT_TIMER, 0x40070);
    put(0, INITIAL, 7);
    ck_assert_uint_eq(get(0, CURRENT), 0);
    seen.tsc_offset = 100;
    wrmsr(0, 0x6e0, 600);
    ck_assert_uint_eq(lapic_next_event(&apics[0]), 500);
    advance_all(499);
    ck_assert_uint_eq(msr(0, 0x6e0), 600);
    advance_all(500);
    ck_assert_int_eq(lapic_pending_vector(&apics[0]), 0x70);
    ck_assert_uint_eq(msr(0, 0x6e0), 0);
    lapic_acknowledge(&apics[0]);
    put(0, EOI, 0);
    wrmsr(0, 0x6e0, 10); // in the past
    ck_assert_int_eq(lapic_pending_vector(&apics[0]), 0x70);
}
END_TEST

START_TEST(leaving_deadline_mode_disarms)
{
    put(0, LVT_TIMER, 0x40070);
    wrmsr(0, 0x6e0, 600);
    put(0, LVT_TIMER, 0x70);
    ck_assert_uint_eq(lapic_next_event(&apics[0]), CYCLE_NEVER);
    ck_assert_uint_eq(msr(0, 0x6e0), 0);
}
END_TEST

START_TEST(apic_base_transitions_follow_the_sdm)
{
    enum { OFF, INVALID, X, X2 };
    static const unsigned bits[4] = {0, 0x400, 0x800, 0xc00};
    static const bool legal[4][4] = {
        [OFF] = {[OFF] = true, [X] = true},
        [X] = {[OFF] = true, [X] = true, [X2] = true},
        [X2] = {[OFF] = true, [X2] = true},
    };
    for (unsigned from = 0; from < 4; from++) {
        for (unsigned to = 0; to < 4 && from != INVALID; to++) {
            lapic_reset(&apics[0]);
            ck_assert_int_eq(wrmsr(0, 0x1b, 0xfee00100 | bits[from]), LAPIC_OK);
            enum lapic_status status = wrmsr(0, 0x1b, 0xfee00100 | bits[to]);
            ck_assert_int_eq(status, legal[from][to] ? LAPIC_OK : LAPIC_GP);
            ck_assert_uint_eq(msr(0, 0x1b), 0xfee00100 | bits[legal[from][to] ? to : from]);
        }
    }
}
END_TEST

START_TEST(apic_base_rejects_reserved_bits)
{
    ck_assert_int_eq(wrmsr(0, 0x1b, 0xfee00901), LAPIC_GP);
    ck_assert_int_eq(wrmsr(0, 0x1b, 0xfee00b00), LAPIC_GP);
    ck_assert_int_eq(wrmsr(0, 0x1b, BIT(40) | 0x800), LAPIC_GP);
    ck_assert_int_eq(wrmsr(0, 0x1b, BIT(39) | 0x800), LAPIC_OK);
    ck_assert_uint_eq(lapic_base(&apics[0]), BIT(39));
    apics[0].config.x2apic = false;
    ck_assert_int_eq(wrmsr(0, 0x1b, 0xfee00c00), LAPIC_GP);
}
END_TEST

START_TEST(disabled_apic_can_be_enabled_again_fresh)
{
    put(0, TPR, 0x20);
    ck_assert_int_eq(wrmsr(0, 0x1b, 0xfee00100), LAPIC_OK);
    ck_assert_uint_eq(get(0, TPR), 0xffffffff); // nothing answers
    ck_assert_int_eq(wrmsr(0, 0x1b, 0xfee00900), LAPIC_OK);
    ck_assert_uint_eq(get(0, TPR), 0);
    ck_assert_uint_eq(get(0, SVR), 0xff);
}
END_TEST

START_TEST(x2apic_registers_exist_in_x2apic_mode_only)
{
    ck_assert(rdmsr_faults(0, 0x802));
    ck_assert_int_eq(wrmsr(0, 0x808, 0), LAPIC_GP);
    enter_x2apic(3);
    ck_assert_uint_eq(msr(3, 0x802), 3);
    ck_assert_uint_eq(msr(3, 0x803), 0x01050014);
    ck_assert_uint_eq(msr(3, 0x80d), 1u << 3);
    static const uint16_t absent[] = {0x800, 0x801, 0x809, 0x80b, 0x80c, 0x80e,
                                      0x82f, 0x831, 0x83a, 0x83f, 0x840, 0x8ff};
    for (unsigned i = 0; i < sizeof absent / sizeof absent[0]; i++)
        ck_assert_msg(rdmsr_faults(3, absent[i]), "MSR 0x%x", absent[i]);
    ck_assert_uint_eq(get(3, ID), 0xffffffff); // the page is gone
}
END_TEST

START_TEST(x2apic_rejects_reserved_bits_and_read_only_registers)
{
    static const struct {
        uint32_t number;
        uint64_t good, bad;
    } rows[] = {
        {0x808, 0xff, 0x100},         {0x80b, 0, 1},           {0x80f, 0x11ff, 0x21ff},   {0x828, 0, 1},
        {0x832, 0x700ff, 0x100},      {0x833, 0x107ff, 0x800}, {0x835, 0x1f7ff, 0x20000}, {0x837, 0x100ff, 0x200},
        {0x838, 0xffffffff, BIT(32)}, {0x83e, 0xb, 4},         {0x83f, 0xff, 0x100},      {0x830, 0x40ff, BIT(13)},
        {0x830, 0x40ff, BIT(20)}};
    enter_x2apic(0);
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        ck_assert_msg(wrmsr(0, rows[i].number, rows[i].good) == LAPIC_OK, "MSR 0x%x", rows[i].number);
        ck_assert_msg(wrmsr(0, rows[i].number, rows[i].bad) == LAPIC_GP, "MSR 0x%x", rows[i].number);
    }
    static const uint16_t read_only[] = {0x802, 0x803, 0x80a, 0x80d, 0x80e, 0x810, 0x820, 0x831, 0x839};
    for (unsigned i = 0; i < sizeof read_only / sizeof read_only[0]; i++)
        ck_assert_msg(wrmsr(0, read_only[i], 0) == LAPIC_GP, "MSR 0x%x", read_only[i]);
}
END_TEST

START_TEST(x2apic_icr_and_self_ipi_send)
{
    for (unsigned i = 0; i < CPUS; i++)
        enter_x2apic(i);
    wrmsr(0, 0x830, (uint64_t)2 << 32 | 0x48);
    ck_assert_int_eq(lapic_pending_vector(&apics[2]), 0x48);
    wrmsr(1, 0x83f, 0x49);
    ck_assert_int_eq(lapic_pending_vector(&apics[1]), 0x49);
    wrmsr(0, 0x830, (uint64_t)0x9 << 32 | 0x850); // logical, cluster 0, members 0 and 3
    ck_assert_int_eq(lapic_pending_vector(&apics[0]), 0x50);
    ck_assert_int_eq(lapic_pending_vector(&apics[3]), 0x50);
    wrmsr(0, 0x830, (uint64_t)0xffffffff << 32 | 0x60);
    ck_assert_int_eq(lapic_pending_vector(&apics[1]), 0x60);
}
END_TEST

START_TEST(requests_survive_the_change_to_x2apic)
{
    send_fixed(0, 1, 0x51);
    enter_x2apic(1);
    ck_assert_int_eq(lapic_pending_vector(&apics[1]), 0x51);
}
END_TEST

START_TEST(init_signal_keeps_the_mode)
{
    enter_x2apic(1);
    wrmsr(1, 0x808, 0x30);
    lapic_init_signal(&apics[1]);
    ck_assert_int_eq(lapic_mode(&apics[1]), LAPIC_X2APIC);
    ck_assert_uint_eq(msr(1, 0x808), 0);
    ck_assert_uint_eq(msr(1, 0x80d), 2);
}
END_TEST

START_TEST(arbitration_priority_is_the_highest_class)
{
    put(1, TPR, 0x35);
    ck_assert_uint_eq(get(1, APR), 0x35);
    send_fixed(0, 1, 0x62);
    ck_assert_uint_eq(get(1, APR), 0x60);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lapic");
    TCase *tests = tcase_create("lapic");
    tcase_add_checked_fixture(tests, setup, fixture_teardown);
    tcase_add_test(tests, reset_state_is_the_sdms);
    tcase_add_test(tests, interrupt_goes_through_irr_isr_eoi);
    tcase_add_test(tests, priority_class_in_service_holds_back_its_class);
    tcase_add_test(tests, task_priority_holds_back_and_lowering_it_delivers);
    tcase_add_test(tests, acknowledge_without_request_gives_the_spurious_vector);
    tcase_add_test(tests, illegal_vectors_are_reported_and_not_sent);
    tcase_add_test(tests, illegal_error_vector_does_not_recurse);
    tcase_add_test(tests, illegal_register_is_reported);
    tcase_add_test(tests, odd_accesses_are_harmless);
    tcase_add_test(tests, shorthands_reach_their_sets);
    tcase_add_test(tests, physical_broadcast_reaches_all);
    tcase_add_test(tests, flat_logical_destination_is_a_bit_set);
    tcase_add_test(tests, cluster_logical_destination_needs_the_cluster);
    tcase_add_test(tests, lowest_priority_picks_the_idlest_and_the_first_of_equals);
    tcase_add_test(tests, software_disabled_apic_takes_events_but_no_vectors);
    tcase_add_test(tests, init_and_sipi_are_events);
    tcase_add_test(tests, invalid_icr_combinations_send_nothing);
    tcase_add_test(tests, level_vector_sends_eoi_unless_suppressed);
    tcase_add_test(tests, extint_follows_lint0_in_virtual_wire_mode);
    tcase_add_test(tests, extint_message_waits_until_acknowledged);
    tcase_add_test(tests, lint1_nmi_fires_on_its_edge);
    tcase_add_test(tests, level_lint0_refires_after_eoi_while_asserted);
    tcase_add_test(tests, performance_interrupt_masks_its_entry);
    tcase_add_test(tests, one_shot_timer_fires_once_at_its_cycle);
    tcase_add_test(tests, periodic_timer_keeps_its_phase);
    tcase_add_test(tests, every_divide_code_divides);
    tcase_add_test(tests, new_divisor_keeps_the_rest_of_the_count);
    tcase_add_test(tests, masked_timer_counts_without_interrupt);
    tcase_add_test(tests, tsc_deadline_fires_and_disarms);
    tcase_add_test(tests, leaving_deadline_mode_disarms);
    tcase_add_test(tests, apic_base_transitions_follow_the_sdm);
    tcase_add_test(tests, apic_base_rejects_reserved_bits);
    tcase_add_test(tests, disabled_apic_can_be_enabled_again_fresh);
    tcase_add_test(tests, x2apic_registers_exist_in_x2apic_mode_only);
    tcase_add_test(tests, x2apic_rejects_reserved_bits_and_read_only_registers);
    tcase_add_test(tests, x2apic_icr_and_self_ipi_send);
    tcase_add_test(tests, requests_survive_the_change_to_x2apic);
    tcase_add_test(tests, init_signal_keeps_the_mode);
    tcase_add_test(tests, arbitration_priority_is_the_highest_class);
    suite_add_tcase(suite, tests);
    return fixture_run(suite);
}
