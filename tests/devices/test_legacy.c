// Debug exit, keyboard controller, port 0x92 and ACPI power off.
#include "device_fixture.h"

#include "devices/acpi_pm.h"
#include "devices/debug_exit.h"
#include "devices/i8042.h"

static struct debug_exit debug_exit;
static struct i8042 i8042;
static struct acpi_pm pm;
static unsigned resets, power_offs;
static bool a20;

static void on_exit_request(void *user, uint32_t status)
{
    struct fixture *f = user;
    f->calls++;
    f->last = status;
}

static void on_a20(void *user, bool enabled)
{
    (void)user;
    ck_assert(enabled != a20);
    a20 = enabled;
}

static void on_reset(void *user)
{
    (void)user;
    resets++;
}

static void on_power_off(void *user)
{
    (void)user;
    power_offs++;
}

static void setup(void)
{
    fixture_setup();
    resets = power_offs = 0;
    a20 = false;
    struct debug_exit_env exit_env = {&fx, on_exit_request};
    debug_exit_init(&debug_exit, &exit_env);
    debug_exit_attach(&debug_exit, &fx.bus);
    struct i8042_env keyboard_env = {&fx, fixture_line, on_a20, on_reset};
    i8042_init(&i8042, &keyboard_env);
    i8042_attach(&i8042, &fx.bus);
    struct acpi_pm_env pm_env = {&fx, fixture_now, on_power_off};
    acpi_pm_init(&pm, CYCLE_HZ, &pm_env);
    acpi_pm_attach(&pm, &fx.bus);
}

START_TEST(debug_exit_status_is_odd_for_every_width)
{
    out8(0xf4, 0x10);
    ck_assert_uint_eq(fx.last, 0x21);
    bus_port_write(&fx.bus, 0xf4, 2, 0x1234);
    ck_assert_uint_eq(fx.last, 0x2469);
    bus_port_write(&fx.bus, 0xf4, 4, 0x80000001);
    ck_assert_uint_eq(fx.last, 0x00000003);
    ck_assert_uint_eq(fx.calls, 3);
    ck_assert_uint_eq(in8(0xf4), 0);
}
END_TEST

START_TEST(self_tests_pass)
{
    out8(0x64, 0xaa);
    ck_assert_uint_eq(in8(0x64) & 1, 1);
    ck_assert_uint_eq(in8(0x60), 0x55);
    ck_assert_uint_eq(in8(0x64) & 1, 0);
    out8(0x64, 0xab);
    ck_assert_uint_eq(in8(0x60), 0);
}
END_TEST

START_TEST(command_byte_is_kept_and_gates_irq_1)
{
    out8(0x64, 0x60);
    out8(0x60, 0x45);
    out8(0x64, 0x20);
    ck_assert(fx.line);
    ck_assert_uint_eq(in8(0x60), 0x45);
    ck_assert(!fx.line);
}
END_TEST

START_TEST(each_byte_of_an_answer_raises_irq_1)
{
    out8(0x64, 0x60);
    out8(0x60, 0x01);
    out8(0x60, 0xff); // keyboard reset: two bytes
    ck_assert_uint_eq(in8(0x60), 0xfa);
    ck_assert(fx.line);
    ck_assert_uint_eq(in8(0x60), 0xaa);
    ck_assert(!fx.line);
    ck_assert_uint_eq(fx.rises, 2);
}
END_TEST

START_TEST(keyboard_identifies_itself)
{
    out8(0x60, 0xf2);
    ck_assert_uint_eq(in8(0x60), 0xfa);
    ck_assert_uint_eq(in8(0x60), 0xab);
    ck_assert_uint_eq(in8(0x60), 0x41);
    out8(0x60, 0xed);
    out8(0x60, 0x07);
    ck_assert_uint_eq(in8(0x60), 0xfa);
    ck_assert_uint_eq(in8(0x60), 0xfa);
    ck_assert_uint_eq(in8(0x64) & 1, 0);
}
END_TEST

START_TEST(unread_answers_are_bounded)
{
    for (unsigned i = 0; i < 100; i++)
        out8(0x60, 0xf2);
    for (unsigned i = 0; i < I8042_QUEUE_SIZE; i++)
        in8(0x60);
    ck_assert_uint_eq(in8(0x64) & 1, 0);
}
END_TEST

START_TEST(a20_is_on_after_reset_and_follows_both_ports)
{
    ck_assert(a20);
    out8(0x64, 0xd1);
    out8(0x60, 0xdd);
    ck_assert(!a20);
    out8(0x92, 0x02);
    ck_assert(a20);
    out8(0x64, 0xdf);
    out8(0x92, 0x00);
    ck_assert(a20);
    out8(0x64, 0xd0);
    ck_assert_uint_eq(in8(0x60) & 3, 3);
    out8(0x64, 0xdd);
    ck_assert(!a20);
    i8042_reset(&i8042);
    ck_assert(a20);
}
END_TEST

START_TEST(reset_is_requested_by_pulse_output_port_and_port_92)
{
    out8(0x64, 0xff);
    ck_assert_uint_eq(resets, 0);
    out8(0x64, 0xfe);
    ck_assert_uint_eq(resets, 1);
    out8(0x64, 0xd1);
    out8(0x60, 0x02);
    ck_assert_uint_eq(resets, 2);
    out8(0x92, 0x01);
    ck_assert_uint_eq(resets, 3);
    out8(0x92, 0x01); // no new edge
    ck_assert_uint_eq(resets, 3);
}
END_TEST

START_TEST(sleep_type_s5_powers_off)
{
    bus_port_write(&fx.bus, 0x604, 2, 0x2400); // another sleep type
    ck_assert_uint_eq(power_offs, 0);
    bus_port_write(&fx.bus, 0x604, 2, 0x2000);
    ck_assert_uint_eq(power_offs, 1);
    ck_assert_uint_eq(bus_port_read(&fx.bus, 0x604, 2), 0x0000);
}
END_TEST

START_TEST(power_off_works_byte_by_byte)
{
    out8(0x604, 0x00);
    out8(0x605, 0x20);
    ck_assert_uint_eq(power_offs, 1);
}
END_TEST

START_TEST(power_management_timer_has_24_bits)
{
    fx.now = CYCLE_HZ;
    ck_assert_uint_eq(bus_port_read(&fx.bus, 0x608, 4), 3579545);
    fx.now = (cycle_t)CYCLE_HZ * 10;
    ck_assert_uint_eq(bus_port_read(&fx.bus, 0x608, 4), 35795450 & 0xffffff);
    ck_assert_uint_eq(in8(0x609), 35795450 >> 8 & 0xff);
}
END_TEST

START_TEST(pm1_enable_is_kept_and_status_is_clear)
{
    bus_port_write(&fx.bus, 0x602, 2, 0x0321);
    ck_assert_uint_eq(bus_port_read(&fx.bus, 0x600, 4), 0x03210000);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("legacy");
    TCase *tests = tcase_create("legacy");
    tcase_add_checked_fixture(tests, setup, fixture_teardown);
    tcase_add_test(tests, debug_exit_status_is_odd_for_every_width);
    tcase_add_test(tests, self_tests_pass);
    tcase_add_test(tests, command_byte_is_kept_and_gates_irq_1);
    tcase_add_test(tests, each_byte_of_an_answer_raises_irq_1);
    tcase_add_test(tests, keyboard_identifies_itself);
    tcase_add_test(tests, unread_answers_are_bounded);
    tcase_add_test(tests, a20_is_on_after_reset_and_follows_both_ports);
    tcase_add_test(tests, reset_is_requested_by_pulse_output_port_and_port_92);
    tcase_add_test(tests, sleep_type_s5_powers_off);
    tcase_add_test(tests, power_off_works_byte_by_byte);
    tcase_add_test(tests, power_management_timer_has_24_bits);
    tcase_add_test(tests, pm1_enable_is_kept_and_status_is_clear);
    suite_add_tcase(suite, tests);
    return fixture_run(suite);
}
