// The real-time clock: date, update cycle, interrupts, CMOS memory.
#include "device_fixture.h"

#include "devices/rtc.h"

#include <time.h>

static struct rtc rtc;
enum { INDEX = RTC_PORT, DATA = RTC_PORT + 1, GIB = 1 << 30 };
#define START ((int64_t)951782399) // 2000-02-28 23:59:59 UTC, a Monday

static void on_nmi_mask(void *user, bool masked)
{
    struct fixture *f = user;
    f->calls++;
    f->last = masked;
}

static void setup(void)
{
    fixture_setup();
    struct rtc_config config = {START, CYCLE_HZ, (uint64_t)3 * GIB, (uint64_t)2 * GIB, 4};
    struct rtc_env env = {&fx, fixture_now, fixture_line, on_nmi_mask};
    rtc_init(&rtc, &config, &env);
    rtc_attach(&rtc, &fx.bus);
}

static unsigned get(unsigned index)
{
    out8(INDEX, index);
    return in8(DATA);
}

static void put(unsigned index, unsigned value)
{
    out8(INDEX, index);
    out8(DATA, value);
}

static void go_to(cycle_t now)
{
    fx.now = now;
    rtc_advance(&rtc, now);
}

static void go_to_next_event(void)
{
    ck_assert_uint_ne(rtc_next_event(&rtc), CYCLE_NEVER);
    go_to(rtc_next_event(&rtc));
}

START_TEST(date_starts_as_configured_in_bcd)
{
    ck_assert_uint_eq(get(0x00), 0x59);
    ck_assert_uint_eq(get(0x02), 0x59);
    ck_assert_uint_eq(get(0x04), 0x23);
    ck_assert_uint_eq(get(0x06), 2); // Monday
    ck_assert_uint_eq(get(0x07), 0x28);
    ck_assert_uint_eq(get(0x08), 0x02);
    ck_assert_uint_eq(get(0x09), 0x00);
    ck_assert_uint_eq(get(0x32), 0x20);
    ck_assert_uint_eq(get(0x0d), 0x80);
}
END_TEST

START_TEST(leap_day_follows_the_second)
{
    go_to(CYCLE_HZ - 1);
    ck_assert_uint_eq(get(0x07), 0x28);
    go_to(CYCLE_HZ);
    ck_assert_uint_eq(get(0x00), 0x00);
    ck_assert_uint_eq(get(0x07), 0x29);
    ck_assert_uint_eq(get(0x06), 3);
}
END_TEST

START_TEST(calendar_agrees_with_the_c_library)
{
    put(0x0b, 0x06); // binary, 24 hours
    for (int64_t at = 0; at < (int64_t)400 * 366 * 86400; at += 86400 * 29 + 3607) {
        time_t seconds = (time_t)at;
        struct tm tm;
        gmtime_r(&seconds, &tm);
        rtc.seconds = at;
        rtc.second_start = rtc.tick;
        ck_assert_uint_eq(get(0x00), (unsigned)tm.tm_sec);
        ck_assert_uint_eq(get(0x04), (unsigned)tm.tm_hour);
        ck_assert_uint_eq(get(0x06), (unsigned)tm.tm_wday + 1);
        ck_assert_uint_eq(get(0x07), (unsigned)tm.tm_mday);
        ck_assert_uint_eq(get(0x08), (unsigned)tm.tm_mon + 1);
        ck_assert_uint_eq(get(0x32) * 100 + get(0x09), (unsigned)tm.tm_year + 1900);
        put(0x00, get(0x00)); // writing what was read changes nothing
        ck_assert_int_eq(rtc.seconds, at);
    }
}
END_TEST

START_TEST(twelve_hour_mode_has_noon_and_midnight)
{
    static const uint8_t expected[24] = {0x12, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x10, 0x11,
                                         0x92, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x90, 0x91};
    put(0x0b, 0x00);
    for (unsigned hour = 0; hour < 24; hour++) {
        put(0x04, expected[hour]);
        ck_assert_int_eq(rtc.seconds / 3600 % 24, (int)hour);
        ck_assert_uint_eq(get(0x04), expected[hour]);
    }
}
END_TEST

START_TEST(set_stops_the_date_until_it_is_cleared)
{
    put(0x0b, 0x82);
    put(0x00, 0x30);
    go_to((cycle_t)CYCLE_HZ * 10);
    ck_assert_uint_eq(get(0x00), 0x30);
    put(0x0b, 0x02);
    go_to((cycle_t)CYCLE_HZ * 11);
    ck_assert_uint_eq(get(0x00), 0x31);
}
END_TEST

START_TEST(update_in_progress_precedes_the_new_second)
{
    ck_assert_uint_eq(get(0x0a), 0x26);
    go_to(CYCLE_HZ - 1000000);
    ck_assert_uint_eq(get(0x0a), 0xa6);
    ck_assert_uint_eq(get(0x00), 0x59);
    go_to(CYCLE_HZ);
    ck_assert_uint_eq(get(0x0a), 0x26);
}
END_TEST

START_TEST(divider_out_of_reset_updates_after_half_a_second)
{
    go_to((cycle_t)CYCLE_HZ * 3 / 4);
    put(0x0a, 0x66);
    go_to((cycle_t)CYCLE_HZ * 5);
    ck_assert_uint_eq(get(0x00), 0x59);
    put(0x0a, 0x26);
    go_to((cycle_t)CYCLE_HZ * 5 + CYCLE_HZ / 2 - 100000);
    ck_assert_uint_eq(get(0x00), 0x59);
    go_to((cycle_t)CYCLE_HZ * 5 + CYCLE_HZ / 2);
    ck_assert_uint_eq(get(0x00), 0x00);
}
END_TEST

START_TEST(periodic_interrupt_has_its_rate_and_waits_for_register_c)
{
    put(0x0b, 0x42);
    unsigned count = 0;
    while (rtc_next_event(&rtc) <= CYCLE_HZ) {
        go_to_next_event();
        ck_assert(fx.line);
        ck_assert_uint_eq(rtc_next_event(&rtc), CYCLE_NEVER);
        ck_assert_uint_eq(get(0x0c) & 0xc0, 0xc0);
        ck_assert(!fx.line);
        count++;
    }
    ck_assert_uint_eq(count, 1024);
}
END_TEST

START_TEST(periodic_rates_follow_the_table)
{
    static const unsigned hz[16] = {0, 256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2};
    put(0x0b, 0x42);
    for (unsigned rate = 1; rate < 16; rate++) {
        go_to((cycle_t)CYCLE_HZ * rate * 2);
        put(0x0a, 0x20 | rate);
        get(0x0c);
        ck_assert_uint_eq(rtc_next_event(&rtc),
                          timebase_cycle((uint64_t)RTC_HZ * rate * 2 + RTC_HZ / hz[rate], CYCLE_HZ, RTC_HZ));
    }
    put(0x0a, 0x20);
    ck_assert_uint_eq(rtc_next_event(&rtc), CYCLE_NEVER);
}
END_TEST

START_TEST(update_interrupt_comes_with_each_second)
{
    put(0x0b, 0x12);
    go_to_next_event();
    ck_assert_uint_eq(fx.now, CYCLE_HZ);
    ck_assert_uint_eq(get(0x0c) & 0x90, 0x90);
    ck_assert_uint_eq(rtc_next_event(&rtc), (cycle_t)CYCLE_HZ * 2);
}
END_TEST

START_TEST(alarm_fires_at_its_time)
{
    put(0x01, 0x05);
    put(0x03, 0x02);
    put(0x05, 0x01);
    put(0x0b, 0x22);
    go_to_next_event();
    ck_assert_uint_eq(fx.now, (cycle_t)CYCLE_HZ * (1 + 3600 + 125));
    ck_assert(fx.line);
    ck_assert_uint_eq(get(0x04), 0x01);
    ck_assert_uint_eq(get(0x0c) & 0xa0, 0xa0);
    ck_assert_uint_eq(rtc_next_event(&rtc), (cycle_t)CYCLE_HZ * (1 + 3600 + 125 + 86400));
}
END_TEST

START_TEST(alarm_wildcards_match_everything)
{
    put(0x01, 0x30);
    put(0x03, 0xff);
    put(0x05, 0xc0);
    put(0x0b, 0x22);
    ck_assert_uint_eq(rtc_next_event(&rtc), (cycle_t)CYCLE_HZ * 31);
    put(0x01, 0xff);
    ck_assert_uint_eq(rtc_next_event(&rtc), (cycle_t)CYCLE_HZ);
}
END_TEST

START_TEST(impossible_alarm_never_fires)
{
    put(0x05, 0x77);
    put(0x0b, 0x22);
    ck_assert_uint_eq(rtc_next_event(&rtc), CYCLE_NEVER);
    go_to((cycle_t)CYCLE_HZ * 200000);
    ck_assert(!fx.line);
}
END_TEST

START_TEST(impossible_dates_are_clamped)
{
    put(0x0b, 0x86);
    put(0x08, 99);
    put(0x07, 99);
    put(0x04, 99);
    put(0x00, 200);
    put(0x0b, 0x06);
    ck_assert_uint_eq(get(0x08), 12);
    ck_assert_uint_eq(get(0x07), 31);
    ck_assert_uint_eq(get(0x04), 23);
    ck_assert_uint_eq(get(0x00), 59);
}
END_TEST

START_TEST(memory_sizes_are_in_cmos)
{
    ck_assert_uint_eq(get(0x15) | get(0x16) << 8, 640);
    ck_assert_uint_eq(get(0x17) | get(0x18) << 8, 0xffff);
    ck_assert_uint_eq(get(0x34) | get(0x35) << 8, (3 * 1024 - 16) * 16);
    ck_assert_uint_eq(get(0x5b) | get(0x5c) << 8 | get(0x5d) << 16, 2 * 1024 * 16);
    ck_assert_uint_eq(get(0x5f), 3);
}
END_TEST

START_TEST(cmos_memory_survives_reset)
{
    put(0x40, 0x77);
    put(0x0b, 0x42);
    go_to((cycle_t)CYCLE_HZ / 100);
    ck_assert(fx.line);
    rtc_reset(&rtc);
    ck_assert(!fx.line);
    ck_assert_uint_eq(get(0x40), 0x77);
    ck_assert_uint_eq(get(0x0b), 0x02);
}
END_TEST

START_TEST(bit_7_of_the_index_masks_nmi)
{
    out8(INDEX, 0x80);
    ck_assert_uint_eq(fx.calls, 1);
    ck_assert_uint_eq(fx.last, 1);
    out8(INDEX, 0x8d);
    ck_assert_uint_eq(fx.calls, 1);
    ck_assert_uint_eq(in8(DATA), 0x80);
    out8(INDEX, 0x0d);
    ck_assert_uint_eq(fx.last, 0);
}
END_TEST

START_TEST(word_write_sets_index_and_data)
{
    bus_port_write(&fx.bus, INDEX, 2, 0x5541);
    ck_assert_uint_eq(get(0x41), 0x55);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("rtc");
    TCase *tests = tcase_create("rtc");
    tcase_add_checked_fixture(tests, setup, fixture_teardown);
    tcase_add_test(tests, date_starts_as_configured_in_bcd);
    tcase_add_test(tests, leap_day_follows_the_second);
    tcase_add_test(tests, calendar_agrees_with_the_c_library);
    tcase_add_test(tests, twelve_hour_mode_has_noon_and_midnight);
    tcase_add_test(tests, set_stops_the_date_until_it_is_cleared);
    tcase_add_test(tests, update_in_progress_precedes_the_new_second);
    tcase_add_test(tests, divider_out_of_reset_updates_after_half_a_second);
    tcase_add_test(tests, periodic_interrupt_has_its_rate_and_waits_for_register_c);
    tcase_add_test(tests, periodic_rates_follow_the_table);
    tcase_add_test(tests, update_interrupt_comes_with_each_second);
    tcase_add_test(tests, alarm_fires_at_its_time);
    tcase_add_test(tests, alarm_wildcards_match_everything);
    tcase_add_test(tests, impossible_alarm_never_fires);
    tcase_add_test(tests, impossible_dates_are_clamped);
    tcase_add_test(tests, memory_sizes_are_in_cmos);
    tcase_add_test(tests, cmos_memory_survives_reset);
    tcase_add_test(tests, bit_7_of_the_index_masks_nmi);
    tcase_add_test(tests, word_write_sets_index_and_data);
    suite_add_tcase(suite, tests);
    return fixture_run(suite);
}
