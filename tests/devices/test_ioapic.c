// The I/O APIC: redirection, level and edge inputs, EOI.
#include "device_fixture.h"

#include "devices/ioapic.h"

static struct ioapic ioapic;
static struct apic_message last;
static unsigned deliveries;
static bool accepting;

static bool on_deliver(void *user, const struct apic_message *message)
{
    (void)user;
    deliveries++;
    last = *message;
    return accepting;
}

static void setup(void)
{
    fixture_setup();
    deliveries = 0;
    accepting = true;
    struct ioapic_env env = {&fx, on_deliver};
    ioapic_init(&ioapic, &env);
    ioapic_attach(&ioapic, &fx.bus);
}

static unsigned get(unsigned index)
{
    bus_write(&fx.bus, IOAPIC_BASE, 4, index);
    return (unsigned)bus_read(&fx.bus, IOAPIC_BASE + 0x10, 4);
}

static void put(unsigned index, unsigned value)
{
    bus_write(&fx.bus, IOAPIC_BASE, 4, index);
    bus_write(&fx.bus, IOAPIC_BASE + 0x10, 4, value);
}

static void redirect(unsigned pin, unsigned high, unsigned low)
{
    put(0x11 + 2 * pin, high);
    put(0x10 + 2 * pin, low);
}

START_TEST(identification_has_24_entries)
{
    ck_assert_uint_eq(get(1), 0x00170020);
    put(0, 0xff000000);
    ck_assert_uint_eq(get(0), 0x0f000000);
    ck_assert_uint_eq(get(0x0f), 0);
    ck_assert_uint_eq(get(0x40), 0);
}
END_TEST

START_TEST(entries_start_masked_and_keep_writable_bits)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        ck_assert_uint_eq(get(0x10 + 2 * pin), 0x10000);
    redirect(3, 0xffffffff, 0xfffff0ff | 0x10000);
    ck_assert_uint_eq(get(0x16), 0x1a0ff);
    ck_assert_uint_eq(get(0x17), 0xff000000);
}
END_TEST

START_TEST(edge_sends_once_with_the_entrys_fields)
{
    redirect(4, 0x05000000, 0x0931);
    ioapic_set_pin(&ioapic, 4, true);
    ioapic_set_pin(&ioapic, 4, true);
    ck_assert_uint_eq(deliveries, 1);
    ck_assert_uint_eq(last.destination, 5);
    ck_assert_uint_eq(last.vector, 0x31);
    ck_assert_uint_eq(last.mode, APIC_LOWEST_PRIORITY);
    ck_assert(last.logical && !last.level_triggered && !last.wide);
    ioapic_set_pin(&ioapic, 4, false);
    ioapic_set_pin(&ioapic, 4, true);
    ck_assert_uint_eq(deliveries, 2);
}
END_TEST

START_TEST(edge_on_a_masked_input_is_lost)
{
    redirect(4, 0, 0x10031);
    ioapic_set_pin(&ioapic, 4, true);
    redirect(4, 0, 0x00031);
    ck_assert_uint_eq(deliveries, 0);
}
END_TEST

START_TEST(level_waits_for_unmask_and_sets_remote_irr)
{
    redirect(10, 0, 0x18041);
    ioapic_set_pin(&ioapic, 10, true);
    ck_assert_uint_eq(deliveries, 0);
    redirect(10, 0, 0x08041);
    ck_assert_uint_eq(deliveries, 1);
    ck_assert(last.level_triggered);
    ck_assert_uint_eq(get(0x24), 0xc041);
}
END_TEST

START_TEST(level_is_sent_again_after_eoi_while_asserted)
{
    redirect(10, 0, 0x8041);
    ioapic_set_pin(&ioapic, 10, true);
    ioapic_eoi(&ioapic, 0x42); // another vector
    ck_assert_uint_eq(deliveries, 1);
    ioapic_eoi(&ioapic, 0x41);
    ck_assert_uint_eq(deliveries, 2);
    ioapic_set_pin(&ioapic, 10, false);
    bus_write(&fx.bus, IOAPIC_BASE + 0x40, 4, 0x41);
    ck_assert_uint_eq(deliveries, 2);
    ck_assert_uint_eq(get(0x24), 0x8041);
}
END_TEST

START_TEST(level_that_nobody_takes_has_no_remote_irr)
{
    accepting = false;
    redirect(10, 0, 0x8041);
    ioapic_set_pin(&ioapic, 10, true);
    ck_assert_uint_eq(get(0x24), 0x8041);
}
END_TEST

START_TEST(change_to_edge_clears_remote_irr)
{
    redirect(10, 0, 0x8041);
    ioapic_set_pin(&ioapic, 10, true);
    redirect(10, 0, 0x10041);
    ck_assert_uint_eq(get(0x24), 0x10041);
}
END_TEST

START_TEST(nmi_is_an_edge_even_if_marked_level)
{
    redirect(2, 0, 0x8400);
    ioapic_set_pin(&ioapic, 2, true);
    ck_assert_uint_eq(deliveries, 1);
    ck_assert(!last.level_triggered);
    ck_assert_uint_eq(get(0x14), 0x8400);
}
END_TEST

START_TEST(foreign_widths_and_pins_are_harmless)
{
    bus_write(&fx.bus, IOAPIC_BASE + 0x10, 8, ~(uint64_t)0);
    ck_assert_uint_eq(bus_read(&fx.bus, IOAPIC_BASE + 0x18, 8), 0);
    ioapic_set_pin(&ioapic, 24, true);
    ck_assert_uint_eq(deliveries, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ioapic");
    TCase *tests = tcase_create("ioapic");
    tcase_add_checked_fixture(tests, setup, fixture_teardown);
    tcase_add_test(tests, identification_has_24_entries);
    tcase_add_test(tests, entries_start_masked_and_keep_writable_bits);
    tcase_add_test(tests, edge_sends_once_with_the_entrys_fields);
    tcase_add_test(tests, edge_on_a_masked_input_is_lost);
    tcase_add_test(tests, level_waits_for_unmask_and_sets_remote_irr);
    tcase_add_test(tests, level_is_sent_again_after_eoi_while_asserted);
    tcase_add_test(tests, level_that_nobody_takes_has_no_remote_irr);
    tcase_add_test(tests, change_to_edge_clears_remote_irr);
    tcase_add_test(tests, nmi_is_an_edge_even_if_marked_level);
    tcase_add_test(tests, foreign_widths_and_pins_are_harmless);
    suite_add_tcase(suite, tests);
    return fixture_run(suite);
}
