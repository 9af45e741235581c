// The real-time clock and CMOS memory of a PC (MC146818A), and the NMI mask.
//
// Source: Motorola MC146818A data sheet; PC/AT technical reference for the
// CMOS layout. The date starts at a configured second and follows the cycles,
// never the host. The century is byte 0x32, in BCD or binary like the others.
// Daylight saving and square-wave output are left out.
#ifndef VMXON_DEVICES_RTC_H
#define VMXON_DEVICES_RTC_H

#include "base/types.h"
#include "devices/timebase.h"
#include "mem/bus.h"

enum {
    RTC_HZ = 32768,
    RTC_PORT = 0x70,     // 2 ports: index (bit 7: NMI mask), data
    RTC_CMOS_SIZE = 128, // bytes
};

struct rtc_config {
    int64_t epoch_seconds; // date at cycle 0: seconds since 1970-01-01 00:00:00, years 1970 to 9999
    uint64_t cycle_hz;     // processor cycles a second
    uint64_t memory_low;   // bytes of RAM below 4 GiB
    uint64_t memory_high;  // bytes of RAM from 4 GiB on
    unsigned cpus;         // 1..256
};

struct rtc_env {
    void *user;
    cycle_t (*now)(void *user);
    void (*set_irq)(void *user, bool level);       // IRQ 8, on every change
    void (*set_nmi_mask)(void *user, bool masked); // bit 7 of port 0x70, on every change
};

struct rtc {
    struct rtc_config config;
    uint8_t cmos[RTC_CMOS_SIZE]; // 0x00 to 0x09 hold the time while reg_b.SET, alarms always
    uint8_t index;
    uint8_t reg_a, reg_b, flags; // flags: AF, PF, UF of register C
    bool nmi_masked, irq_level;
    uint8_t weekday_shift; // guest's day of the week minus the calendar's, modulo 7
    uint64_t tick;         // of RTC_HZ, everything is advanced to it
    int64_t seconds;       // date at second_start
    uint64_t second_start; // tick at which that second began
    struct rtc_env env;
};

void rtc_init(struct rtc *rtc, const struct rtc_config *config, const struct rtc_env *env);
// A system reset: interrupts disabled, flags cleared; date and CMOS memory stay, as a battery keeps them.
void rtc_reset(struct rtc *rtc);
void rtc_attach(struct rtc *rtc, struct bus *bus);

// First cycle at which an enabled interrupt becomes due, or CYCLE_NEVER.
cycle_t rtc_next_event(const struct rtc *rtc);
// Brings the device to cycle `now` (never backwards).
void rtc_advance(struct rtc *rtc, cycle_t now);

// A CMOS register by index (0..127), as ports 0x70 and 0x71 reach it.
uint8_t rtc_read_cmos(struct rtc *rtc, unsigned index);
void rtc_write_cmos(struct rtc *rtc, unsigned index, uint8_t value);

#endif
