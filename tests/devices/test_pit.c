// The 8254 against a model that steps one tick at a time, and through its ports.
#include "device_fixture.h"

#include "devices/pit.h"

static struct pit pit;
enum { CHANNEL_0 = PIT_PORT, CHANNEL_2 = PIT_PORT + 2, CONTROL = PIT_PORT + 3, PORT_B = PIT_SYSTEM_PORT_B };

static void setup(void)
{
    fixture_setup();
    struct pit_env env = {&fx, fixture_now, fixture_line};
    pit_init(&pit, CYCLE_HZ, &env);
    pit_attach(&pit, &fx.bus);
}

static void go_to_tick(uint64_t tick)
{
    fx.now = timebase_cycle(tick, CYCLE_HZ, PIT_HZ);
    pit_advance(&pit, fx.now);
}

static void program(unsigned channel, unsigned mode, unsigned count)
{
    out8(CONTROL, channel << 6 | 0x30 | mode << 1);
    out8((uint16_t)(PIT_PORT + channel), count & 0xff);
    out8((uint16_t)(PIT_PORT + channel), count >> 8);
}

static unsigned latched_count(unsigned channel)
{
    out8(CONTROL, channel << 6);
    unsigned low = in8((uint16_t)(PIT_PORT + channel));
    return low | in8((uint16_t)(PIT_PORT + channel)) << 8;
}

START_TEST(timebase_directions_agree)
{
    for (uint64_t n = 0; n < 5000; n += 7) {
        cycle_t at = timebase_cycle(n, CYCLE_HZ, PIT_HZ);
        ck_assert_uint_eq(timebase_ticks(at, CYCLE_HZ, PIT_HZ), n);
        if (n)
            ck_assert_uint_eq(timebase_ticks(at - 1, CYCLE_HZ, PIT_HZ), n - 1);
    }
    uint64_t year = (uint64_t)CYCLE_HZ * 86400 * 365;
    ck_assert_uint_eq(timebase_ticks(year, CYCLE_HZ, PIT_HZ), (uint64_t)PIT_HZ * 86400 * 365);
    ck_assert_uint_eq(timebase_cycle(UINT64_MAX, CYCLE_HZ, 1), CYCLE_NEVER);
}
END_TEST

START_TEST(mode_0_raises_out_n_plus_1_ticks_after_the_write)
{
    go_to_tick(100);
    program(0, 0, 10);
    ck_assert_uint_eq(pit_next_event(&pit), timebase_cycle(111, CYCLE_HZ, PIT_HZ));
    go_to_tick(110);
    ck_assert(!fx.line);
    go_to_tick(111);
    ck_assert(fx.line);
    ck_assert_uint_eq(pit_next_event(&pit), CYCLE_NEVER);
}
END_TEST

START_TEST(mode_0_counts_on_through_zero)
{
    program(0, 0, 10);
    go_to_tick(14);
    ck_assert_uint_eq(latched_count(0), 0x10000 - 3);
}
END_TEST

START_TEST(mode_2_is_low_for_one_tick_of_each_period)
{
    program(0, 2, 5); // loaded at tick 1
    for (uint64_t tick = 1; tick < 40; tick++) {
        go_to_tick(tick);
        ck_assert_msg(pit_out(&pit, 0) == ((tick - 1) % 5 != 4), "tick %u", (unsigned)tick);
        ck_assert_uint_eq(latched_count(0), 5 - (tick - 1) % 5);
    }
}
END_TEST

START_TEST(mode_3_halves_even_and_odd_periods)
{
    static const uint16_t odd_counts[] = {4, 2, 0, 4, 2};
    program(0, 3, 5);
    for (uint64_t tick = 1; tick < 30; tick++) {
        go_to_tick(tick);
        ck_assert(pit_out(&pit, 0) == ((tick - 1) % 5 < 3));
        ck_assert_uint_eq(latched_count(0), odd_counts[(tick - 1) % 5]);
    }
    program(0, 3, 6);
    uint64_t start = 30;
    for (uint64_t tick = start; tick < 60; tick++) {
        go_to_tick(tick);
        ck_assert(pit_out(&pit, 0) == ((tick - start) % 6 < 3));
        ck_assert_uint_eq(latched_count(0), 6 - 2 * ((tick - start) % 3));
    }
}
END_TEST

START_TEST(mode_4_strobes_once)
{
    program(0, 4, 3);
    for (uint64_t tick = 1; tick < 20; tick++) {
        go_to_tick(tick);
        ck_assert(pit_out(&pit, 0) == (tick != 4));
    }
}
END_TEST

START_TEST(mode_1_is_a_retriggerable_one_shot)
{
    program(2, 1, 4);
    go_to_tick(10);
    ck_assert(pit_out(&pit, 2));
    out8(PORT_B, 1); // trigger: low from tick 11 to 14
    go_to_tick(11);
    ck_assert(!pit_out(&pit, 2));
    go_to_tick(13);
    out8(PORT_B, 0);
    out8(PORT_B, 1); // again: low to tick 17
    go_to_tick(17);
    ck_assert(!pit_out(&pit, 2));
    go_to_tick(18);
    ck_assert(pit_out(&pit, 2));
}
END_TEST

START_TEST(mode_5_strobes_after_its_trigger)
{
    program(2, 5, 4);
    go_to_tick(50);
    ck_assert(pit_out(&pit, 2));
    out8(PORT_B, 1);
    for (uint64_t tick = 51; tick < 60; tick++) {
        go_to_tick(tick);
        ck_assert(pit_out(&pit, 2) == (tick != 55));
    }
}
END_TEST

START_TEST(gate_holds_the_count_of_mode_0)
{
    out8(PORT_B, 1);
    program(2, 0, 100);
    go_to_tick(11); // 10 ticks counted
    out8(PORT_B, 0);
    go_to_tick(500);
    ck_assert_uint_eq(latched_count(2), 90);
    out8(PORT_B, 1);
    go_to_tick(501);
    ck_assert_uint_eq(latched_count(2), 89);
    go_to_tick(590);
    ck_assert_uint_eq(in8(PORT_B) & 0x20, 0x20);
}
END_TEST

START_TEST(gate_restarts_modes_2_and_3)
{
    out8(PORT_B, 1);
    program(2, 2, 100);
    go_to_tick(31);
    out8(PORT_B, 0);
    ck_assert(pit_out(&pit, 2));
    go_to_tick(60);
    out8(PORT_B, 1);
    go_to_tick(61);
    ck_assert_uint_eq(latched_count(2), 100);
}
END_TEST

START_TEST(new_count_of_mode_2_waits_for_the_period_to_end)
{
    program(0, 2, 10); // periods from tick 1
    go_to_tick(4);
    out8(CHANNEL_0, 20);
    out8(CHANNEL_0, 0);
    go_to_tick(10);
    ck_assert(!pit_out(&pit, 0));
    go_to_tick(11);
    ck_assert_uint_eq(latched_count(0), 20);
    ck_assert_uint_eq(pit_next_event(&pit), timebase_cycle(30, CYCLE_HZ, PIT_HZ));
}
END_TEST

START_TEST(new_count_of_mode_3_waits_for_the_half_period_to_end)
{
    program(0, 3, 10); // high from tick 1 to 5
    go_to_tick(3);
    out8(CHANNEL_0, 4);
    out8(CHANNEL_0, 0);
    for (uint64_t tick = 3; tick < 20; tick++) { // low 6 and 7, then high for two, low for two
        go_to_tick(tick);
        bool expected = tick < 6 || (tick >= 8 && (tick - 8) % 4 < 2);
        ck_assert_msg(pit_out(&pit, 0) == expected, "tick %u", (unsigned)tick);
    }
}
END_TEST

START_TEST(long_advance_still_shows_an_edge)
{
    program(0, 2, 5);
    unsigned before = fx.rises;
    go_to_tick(1001 + 3);
    ck_assert_uint_eq(fx.rises, before + 1);
    ck_assert(fx.line);
}
END_TEST

START_TEST(events_give_every_edge_without_drift)
{
    program(0, 2, 11932); // about 100 Hz
    unsigned before = fx.rises;
    while (pit_next_event(&pit) <= (cycle_t)CYCLE_HZ * 10) {
        fx.now = pit_next_event(&pit);
        pit_advance(&pit, fx.now);
    }
    ck_assert_uint_eq(fx.rises - before, (uint64_t)PIT_HZ * 10 / 11932);
}
END_TEST

START_TEST(bcd_counts_in_decimal)
{
    out8(CONTROL, 0x31); // mode 0, BCD
    out8(CHANNEL_0, 0x00);
    out8(CHANNEL_0, 0x10); // 1000
    go_to_tick(2);
    ck_assert_uint_eq(latched_count(0), 0x0999);
    go_to_tick(1002);
    ck_assert_uint_eq(latched_count(0), 0x9999);
}
END_TEST

START_TEST(count_zero_is_the_largest)
{
    program(0, 2, 0);
    ck_assert_uint_eq(pit_next_event(&pit), timebase_cycle(65536, CYCLE_HZ, PIT_HZ));
}
END_TEST

START_TEST(latch_holds_until_read)
{
    program(0, 2, 1000);
    go_to_tick(11);
    out8(CONTROL, 0x00);
    go_to_tick(100);
    out8(CONTROL, 0x00); // ignored: the first is not read yet
    unsigned low = in8(CHANNEL_0);
    ck_assert_uint_eq(low | in8(CHANNEL_0) << 8, 990);
}
END_TEST

START_TEST(read_back_gives_status_then_count)
{
    program(0, 2, 1000);
    out8(CONTROL, 0xe2); // status of channel 0, before the count is loaded
    ck_assert_uint_eq(in8(CHANNEL_0), 0x80 | 0x40 | 0x34);
    go_to_tick(11);
    out8(CONTROL, 0xc2); // status and count
    ck_assert_uint_eq(in8(CHANNEL_0), 0x80 | 0x34);
    unsigned low = in8(CHANNEL_0);
    ck_assert_uint_eq(low | in8(CHANNEL_0) << 8, 990);
}
END_TEST

START_TEST(first_byte_stops_mode_0)
{
    program(0, 0, 5);
    go_to_tick(3);
    out8(CHANNEL_0, 8);
    ck_assert_uint_eq(pit_next_event(&pit), CYCLE_NEVER);
    out8(CHANNEL_0, 0);
    ck_assert_uint_eq(pit_next_event(&pit), timebase_cycle(12, CYCLE_HZ, PIT_HZ));
}
END_TEST

START_TEST(port_61_keeps_its_bits_and_toggles_refresh)
{
    out8(PORT_B, 0xff);
    ck_assert_uint_eq(in8(PORT_B) & 0xcf, 0x0f);
    unsigned before = in8(PORT_B) & 0x10;
    go_to_tick(18);
    ck_assert_uint_ne(in8(PORT_B) & 0x10, before);
}
END_TEST

START_TEST(count_of_one_is_defined_in_every_mode)
{
    for (unsigned mode = 0; mode < 8; mode++) {
        program(0, mode, 1);
        go_to_tick((mode + 1) * 100);
        latched_count(0);
        ck_assert(pit_next_event(&pit) > fx.now);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pit");
    TCase *tests = tcase_create("pit");
    tcase_add_checked_fixture(tests, setup, fixture_teardown);
    tcase_add_test(tests, timebase_directions_agree);
    tcase_add_test(tests, mode_0_raises_out_n_plus_1_ticks_after_the_write);
    tcase_add_test(tests, mode_0_counts_on_through_zero);
    tcase_add_test(tests, mode_2_is_low_for_one_tick_of_each_period);
    tcase_add_test(tests, mode_3_halves_even_and_odd_periods);
    tcase_add_test(tests, mode_4_strobes_once);
    tcase_add_test(tests, mode_1_is_a_retriggerable_one_shot);
    tcase_add_test(tests, mode_5_strobes_after_its_trigger);
    tcase_add_test(tests, gate_holds_the_count_of_mode_0);
    tcase_add_test(tests, gate_restarts_modes_2_and_3);
    tcase_add_test(tests, new_count_of_mode_2_waits_for_the_period_to_end);
    tcase_add_test(tests, new_count_of_mode_3_waits_for_the_half_period_to_end);
    tcase_add_test(tests, long_advance_still_shows_an_edge);
    tcase_add_test(tests, events_give_every_edge_without_drift);
    tcase_add_test(tests, bcd_counts_in_decimal);
    tcase_add_test(tests, count_zero_is_the_largest);
    tcase_add_test(tests, latch_holds_until_read);
    tcase_add_test(tests, read_back_gives_status_then_count);
    tcase_add_test(tests, first_byte_stops_mode_0);
    tcase_add_test(tests, port_61_keeps_its_bits_and_toggles_refresh);
    tcase_add_test(tests, count_of_one_is_defined_in_every_mode);
    suite_add_tcase(suite, tests);
    return fixture_run(suite);
}
