// MC146818A: date, alarm, periodic and update interrupts; CMOS memory of a PC.
//
// Data sheet sections "Address Map", "Update Cycle", "Interrupts". The date is
// a number of seconds since 1970, split into registers on access. UIP is set
// for the 244 + 1984 microseconds before a new second appears. Values out of
// range (a thirteenth month, second 75) are clamped when the clock resumes.
#include "devices/rtc.h"

#include "devices/port_bytes.h"

#include <string.h>

enum {
    REG_SECONDS,
    REG_SECONDS_ALARM,
    REG_MINUTES,
    REG_MINUTES_ALARM,
    REG_HOURS,
    REG_HOURS_ALARM,
    REG_WEEKDAY,
    REG_DAY,
    REG_MONTH,
    REG_YEAR,
    REG_A,
    REG_B,
    REG_C,
    REG_D,
    REG_CENTURY = 0x32
};
enum { A_RATE = 0x0f, A_DIVIDER = 0x70, A_DIVIDER_RUN = 0x20, A_DIVIDER_RESET = 0x60, A_UIP = 0x80 };
enum { B_24_HOUR = 0x02, B_BINARY = 0x04, B_UIE = 0x10, B_AIE = 0x20, B_PIE = 0x40, B_SET = 0x80 };
enum { C_UF = 0x10, C_AF = 0x20, C_PF = 0x40, C_IRQF = 0x80 };
enum { D_VALID = 0x80, HOUR_PM = 0x80, ALARM_ANY = 0xc0, INDEX_NMI = 0x80 };
enum { UIP_TICKS = 73 }; // 244 us before the update and 1984 us of it
enum { DAY_SECONDS = 86400 };

struct civil { // fields as a calendar has them: month 1..12, weekday 1 = Sunday
    int64_t year;
    unsigned month, day, hour, minute, second, weekday;
};

static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

// Days since 1970-01-01 of a date of the Gregorian calendar (years from 0 on).
static int64_t days_from_date(int64_t year, unsigned month, unsigned day)
{
    int64_t y = month <= 2 ? year - 1 : year; // a year begins in March: the leap day comes last
    int64_t era = floor_div(y, 400);
    int64_t year_of_era = y - era * 400;
    int64_t day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

static struct civil civil_from_seconds(int64_t seconds)
{
    int64_t days = floor_div(seconds, DAY_SECONDS);
    unsigned in_day = (unsigned)(seconds - days * DAY_SECONDS);
    int64_t shifted = days + 719468;
    int64_t era = floor_div(shifted, 146097);
    int64_t day_of_era = shifted - era * 146097;
    int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t march_month = (5 * day_of_year + 2) / 153;
    struct civil civil = {
        .day = (unsigned)(day_of_year - (153 * march_month + 2) / 5 + 1),
        .month = (unsigned)(march_month < 10 ? march_month + 3 : march_month - 9),
        .hour = in_day / 3600,
        .minute = in_day / 60 % 60,
        .second = in_day % 60,
        .weekday = (unsigned)((days % 7 + 7 + 4) % 7) + 1, // 1970-01-01 was a Thursday
    };
    civil.year = year_of_era + era * 400 + (civil.month <= 2);
    return civil;
}

static unsigned month_days(int64_t year, unsigned month)
{
    static const uint8_t days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return days[month - 1] + (month == 2 && leap ? 1u : 0u);
}

static unsigned clamp(unsigned value, unsigned low, unsigned high)
{
    return value < low ? low : value > high ? high : value;
}

static uint8_t encode(const struct rtc *rtc, unsigned value)
{
    return (uint8_t)(rtc->reg_b & B_BINARY ? value : value / 10 << 4 | value % 10);
}

static unsigned decode(const struct rtc *rtc, uint8_t value)
{
    return rtc->reg_b & B_BINARY ? value : (value >> 4) * 10u + (value & 15);
}

static uint8_t encode_hour(const struct rtc *rtc, unsigned hour)
{
    if (rtc->reg_b & B_24_HOUR)
        return encode(rtc, hour);
    unsigned twelve = hour % 12 == 0 ? 12 : hour % 12;
    return (uint8_t)(encode(rtc, twelve) | (hour >= 12 ? HOUR_PM : 0));
}

static unsigned decode_hour(const struct rtc *rtc, uint8_t value)
{
    if (rtc->reg_b & B_24_HOUR)
        return decode(rtc, value);
    return decode(rtc, value & (uint8_t)~HOUR_PM) % 12 + (value & HOUR_PM ? 12 : 0);
}

static bool is_time_register(unsigned index)
{
    return index == REG_SECONDS || index == REG_MINUTES || index == REG_HOURS ||
           (index >= REG_WEEKDAY && index <= REG_YEAR) || index == REG_CENTURY;
}

static bool divider_running(const struct rtc *rtc) { return (rtc->reg_a & A_DIVIDER) == A_DIVIDER_RUN; }

static bool clock_running(const struct rtc *rtc) { return divider_running(rtc) && !(rtc->reg_b & B_SET); }

// The date of the present second.
static int64_t current_seconds(const struct rtc *rtc)
{
    return rtc->seconds + (clock_running(rtc) ? (int64_t)((rtc->tick - rtc->second_start) / RTC_HZ) : 0);
}

// Splits the date into the time registers.
static void store_time(struct rtc *rtc, int64_t seconds)
{
    struct civil now = civil_from_seconds(seconds);
    rtc->cmos[REG_SECONDS] = encode(rtc, now.second);
    rtc->cmos[REG_MINUTES] = encode(rtc, now.minute);
    rtc->cmos[REG_HOURS] = encode_hour(rtc, now.hour);
    rtc->cmos[REG_WEEKDAY] = encode(rtc, (now.weekday - 1 + rtc->weekday_shift) % 7 + 1);
    rtc->cmos[REG_DAY] = encode(rtc, now.day);
    rtc->cmos[REG_MONTH] = encode(rtc, now.month);
    rtc->cmos[REG_YEAR] = encode(rtc, (unsigned)(now.year % 100));
    rtc->cmos[REG_CENTURY] = encode(rtc, (unsigned)(now.year / 100 % 100));
}

// Makes the date from the time registers; what no calendar has is clamped.
static int64_t load_time(struct rtc *rtc)
{
    const uint8_t *cmos = rtc->cmos;
    int64_t year = clamp(decode(rtc, cmos[REG_CENTURY]), 0, 99) * 100 + clamp(decode(rtc, cmos[REG_YEAR]), 0, 99);
    unsigned month = clamp(decode(rtc, cmos[REG_MONTH]), 1, 12);
    unsigned day = clamp(decode(rtc, cmos[REG_DAY]), 1, month_days(year, month));
    int64_t seconds = days_from_date(year, month, day) * DAY_SECONDS;
    seconds += clamp(decode_hour(rtc, cmos[REG_HOURS]), 0, 23) * 3600;
    seconds += clamp(decode(rtc, cmos[REG_MINUTES]), 0, 59) * 60;
    seconds += clamp(decode(rtc, cmos[REG_SECONDS]), 0, 59);
    unsigned weekday = clamp(decode(rtc, cmos[REG_WEEKDAY]), 1, 7);
    rtc->weekday_shift = (uint8_t)((weekday + 7 - civil_from_seconds(seconds).weekday) % 7);
    return seconds;
}

// Ticks between periodic interrupts, 0 if off (data sheet, table 5).
static uint64_t periodic_ticks(const struct rtc *rtc)
{
    unsigned rate = rtc->reg_a & A_RATE;
    if (rate == 0 || !divider_running(rtc))
        return 0;
    return rate <= 2 ? (uint64_t)1 << (rate + 6) : (uint64_t)1 << (rate - 1);
}

static bool alarm_byte_matches(uint8_t alarm, uint8_t now) { return (alarm & ALARM_ANY) == ALARM_ANY || alarm == now; }

// Seconds from `seconds` to the next alarm after it (1..86400), or 0 if no time of day matches.
static unsigned seconds_to_alarm(const struct rtc *rtc, int64_t seconds)
{
    unsigned in_day = (unsigned)(seconds - floor_div(seconds, DAY_SECONDS) * DAY_SECONDS);
    unsigned ahead = 1;
    while (ahead <= DAY_SECONDS) { // skips whole hours and minutes: at most 24 + 60 + 60 steps a match
        unsigned at = (in_day + ahead) % DAY_SECONDS;
        if (!alarm_byte_matches(rtc->cmos[REG_HOURS_ALARM], encode_hour(rtc, at / 3600)))
            ahead += 3600 - at % 3600;
        else if (!alarm_byte_matches(rtc->cmos[REG_MINUTES_ALARM], encode(rtc, at / 60 % 60)))
            ahead += 60 - at % 60;
        else if (!alarm_byte_matches(rtc->cmos[REG_SECONDS_ALARM], encode(rtc, at % 60)))
            ahead++;
        else
            return ahead;
    }
    return 0;
}

static void update_irq(struct rtc *rtc)
{
    bool level = rtc->flags & rtc->reg_b & (B_UIE | B_AIE | B_PIE); // enables and flags share their places
    if (level == rtc->irq_level)
        return;
    rtc->irq_level = level;
    rtc->env.set_irq(rtc->env.user, level);
}

static void advance_to_tick(struct rtc *rtc, uint64_t tick)
{
    if (tick <= rtc->tick)
        return;
    uint64_t period = periodic_ticks(rtc);
    if (period && tick / period != rtc->tick / period)
        rtc->flags |= C_PF;
    int64_t before = current_seconds(rtc);
    rtc->tick = tick;
    int64_t passed = current_seconds(rtc) - before;
    if (passed > 0) {
        rtc->flags |= C_UF;
        unsigned alarm = seconds_to_alarm(rtc, before);
        if (alarm && alarm <= passed)
            rtc->flags |= C_AF;
    }
    update_irq(rtc);
}

void rtc_advance(struct rtc *rtc, cycle_t now)
{
    advance_to_tick(rtc, timebase_ticks(now, rtc->config.cycle_hz, RTC_HZ));
}

cycle_t rtc_next_event(const struct rtc *rtc)
{
    if (rtc->irq_level)
        return CYCLE_NEVER; // the line stays until register C is read
    uint64_t next = UINT64_MAX, period = periodic_ticks(rtc);
    if ((rtc->reg_b & B_PIE) && period)
        next = (rtc->tick / period + 1) * period;
    uint64_t seconds_ahead = rtc->reg_b & B_UIE ? 1 : 0;
    int64_t seconds = current_seconds(rtc);
    if (!seconds_ahead && (rtc->reg_b & B_AIE))
        seconds_ahead = seconds_to_alarm(rtc, seconds);
    if (seconds_ahead && clock_running(rtc)) {
        uint64_t at = rtc->second_start + ((uint64_t)(seconds - rtc->seconds) + seconds_ahead) * RTC_HZ;
        next = at < next ? at : next;
    }
    return next == UINT64_MAX ? CYCLE_NEVER : timebase_cycle(next, rtc->config.cycle_hz, RTC_HZ);
}

static bool update_in_progress(const struct rtc *rtc)
{
    return clock_running(rtc) && (rtc->tick - rtc->second_start) % RTC_HZ >= RTC_HZ - UIP_TICKS;
}

// Stops or resumes the date around a change of registers A and B.
static void freeze_date(struct rtc *rtc)
{
    if (!clock_running(rtc))
        return;
    uint64_t whole = (rtc->tick - rtc->second_start) / RTC_HZ;
    rtc->seconds += (int64_t)whole;
    rtc->second_start += whole * RTC_HZ;
}

static void write_reg_a(struct rtc *rtc, uint8_t value)
{
    freeze_date(rtc);
    bool was_reset = (rtc->reg_a & A_DIVIDER_RESET) == A_DIVIDER_RESET;
    bool was_running = divider_running(rtc);
    rtc->reg_a = value & (uint8_t)~A_UIP;
    if (divider_running(rtc) && !was_running) // out of reset the first update comes after half a second
        rtc->second_start = was_reset && rtc->tick >= RTC_HZ / 2 ? rtc->tick - RTC_HZ / 2 : rtc->tick;
}

static void write_reg_b(struct rtc *rtc, uint8_t value)
{
    freeze_date(rtc);
    bool was_set = rtc->reg_b & B_SET;
    if (value & B_SET) {
        value &= (uint8_t)~B_UIE; // setting SET clears UIE
        if (!was_set)
            store_time(rtc, rtc->seconds);
    }
    rtc->reg_b = value;
    if (was_set && !(value & B_SET)) {
        rtc->seconds = load_time(rtc);
        // Updates kept their phase meanwhile: resume in the second the divider is in.
        rtc->second_start += (rtc->tick - rtc->second_start) / RTC_HZ * RTC_HZ;
    }
    update_irq(rtc);
}

static uint8_t read_reg_c(struct rtc *rtc)
{
    uint8_t value = (uint8_t)(rtc->flags | (rtc->irq_level ? C_IRQF : 0));
    rtc->flags = 0;
    update_irq(rtc);
    return value;
}

static void advance_to_now(struct rtc *rtc) { rtc_advance(rtc, rtc->env.now(rtc->env.user)); }

uint8_t rtc_read_cmos(struct rtc *rtc, unsigned index)
{
    index %= RTC_CMOS_SIZE;
    advance_to_now(rtc);
    if (is_time_register(index) && !(rtc->reg_b & B_SET))
        store_time(rtc, current_seconds(rtc));
    switch (index) {
    case REG_A: return (uint8_t)(rtc->reg_a | (update_in_progress(rtc) ? A_UIP : 0));
    case REG_B: return rtc->reg_b;
    case REG_C: return read_reg_c(rtc);
    case REG_D: return D_VALID;
    default: return rtc->cmos[index];
    }
}

void rtc_write_cmos(struct rtc *rtc, unsigned index, uint8_t value)
{
    index %= RTC_CMOS_SIZE;
    advance_to_now(rtc);
    if (is_time_register(index) && !(rtc->reg_b & B_SET)) {
        freeze_date(rtc);
        store_time(rtc, rtc->seconds);
        rtc->cmos[index] = value;
        rtc->seconds = load_time(rtc);
        return;
    }
    switch (index) {
    case REG_A: write_reg_a(rtc, value); break;
    case REG_B: write_reg_b(rtc, value); break;
    case REG_C:
    case REG_D: break; // read only
    default: rtc->cmos[index] = value; break;
    }
}

static uint8_t byte_read(void *device, unsigned offset)
{
    struct rtc *rtc = device;
    return offset == 0 ? 0xff : rtc_read_cmos(rtc, rtc->index); // the index is write only
}

static void byte_write(void *device, unsigned offset, uint8_t value)
{
    struct rtc *rtc = device;
    if (offset != 0) {
        rtc_write_cmos(rtc, rtc->index, value);
        return;
    }
    rtc->index = value & (uint8_t)~INDEX_NMI;
    bool masked = value & INDEX_NMI;
    if (masked != rtc->nmi_masked) {
        rtc->nmi_masked = masked;
        rtc->env.set_nmi_mask(rtc->env.user, masked);
    }
}

static uint64_t port_read(void *device, uint64_t offset, unsigned size)
{
    return port_bytes_read(byte_read, device, offset, size);
}

static void port_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    port_bytes_write(byte_write, device, offset, size, value);
}

static void store_units(uint8_t *cmos, unsigned index, unsigned bytes, uint64_t value)
{
    uint64_t limit = ((uint64_t)1 << (8 * bytes)) - 1;
    value = value < limit ? value : limit;
    for (unsigned i = 0; i < bytes; i++)
        cmos[index + i] = (uint8_t)(value >> (8 * i));
}

// What a PC's firmware leaves in CMOS memory: sizes, equipment, checksum.
static void fill_cmos(struct rtc *rtc)
{
    enum { BASE_KIB = 0x15, EXTENDED_KIB = 0x17, EXTENDED_KIB_COPY = 0x30, ABOVE_16M = 0x34, ABOVE_4G = 0x5b };
    enum { EQUIPMENT = 0x14, CPUS_LESS_ONE = 0x5f, CHECKSUM_FIRST = 0x10, CHECKSUM_LAST = 0x2d, CHECKSUM = 0x2e };
    enum { EQUIPMENT_FPU = 0x02, EQUIPMENT_MOUSE = 0x04 };
    const uint64_t kib = 1024, mib = 1024 * 1024, unit_64k = 65536;
    uint64_t low = rtc->config.memory_low;
    uint8_t *cmos = rtc->cmos;
    store_units(cmos, BASE_KIB, 2, low / kib < 640 ? low / kib : 640);
    store_units(cmos, EXTENDED_KIB, 2, low > mib ? (low - mib) / kib : 0);
    store_units(cmos, EXTENDED_KIB_COPY, 2, low > mib ? (low - mib) / kib : 0);
    store_units(cmos, ABOVE_16M, 2, low > 16 * mib ? (low - 16 * mib) / unit_64k : 0);
    store_units(cmos, ABOVE_4G, 3, rtc->config.memory_high / unit_64k);
    cmos[EQUIPMENT] = EQUIPMENT_FPU | EQUIPMENT_MOUSE;
    cmos[CPUS_LESS_ONE] = (uint8_t)(rtc->config.cpus - 1);
    unsigned sum = 0;
    for (unsigned i = CHECKSUM_FIRST; i <= CHECKSUM_LAST; i++)
        sum += cmos[i];
    cmos[CHECKSUM] = (uint8_t)(sum >> 8); // high byte first
    cmos[CHECKSUM + 1] = (uint8_t)sum;
}

void rtc_reset(struct rtc *rtc)
{
    rtc->reg_b &= (uint8_t) ~(B_UIE | B_AIE | B_PIE);
    rtc->flags = 0;
    rtc->index = 0;
    update_irq(rtc);
    if (rtc->nmi_masked) {
        rtc->nmi_masked = false;
        rtc->env.set_nmi_mask(rtc->env.user, false);
    }
}

void rtc_init(struct rtc *rtc, const struct rtc_config *config, const struct rtc_env *env)
{
    memset(rtc, 0, sizeof *rtc);
    rtc->config = *config;
    rtc->env = *env;
    rtc->seconds = config->epoch_seconds;
    rtc->reg_a = A_DIVIDER_RUN | 6; // 1024 Hz, as a BIOS leaves it
    rtc->reg_b = B_24_HOUR;
    fill_cmos(rtc);
    rtc_reset(rtc);
}

void rtc_attach(struct rtc *rtc, struct bus *bus)
{
    struct bus_region region = {RTC_PORT, 2, port_read, port_write, rtc, "rtc"};
    bus_register_port(bus, &region);
}
