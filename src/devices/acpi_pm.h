// ACPI power management: the PM1a registers and the power-management timer.
//
// Source: ACPI 6.4, 4.8.3.1 "PM1 Event Grouping", 4.8.3.2 "PM1 Control
// Grouping", 4.8.3.3 "Power Management Timer". Ports as in QEMU's PIIX4:
// writing 0x2000 (SLP_EN, type 0 = S5) to port 0x604 powers off. No SCI is
// raised; other sleep types are stored and ignored.
#ifndef VMXON_DEVICES_ACPI_PM_H
#define VMXON_DEVICES_ACPI_PM_H

#include "base/types.h"
#include "devices/timebase.h"
#include "mem/bus.h"

enum {
    ACPI_PM_EVENT_PORT = 0x600,   // 4 ports: PM1a status, PM1a enable
    ACPI_PM_CONTROL_PORT = 0x604, // 2 ports
    ACPI_PM_TIMER_PORT = 0x608,   // 4 ports: 24-bit count
    ACPI_PM_TIMER_HZ = 3579545,
};

struct acpi_pm_env {
    void *user;
    cycle_t (*now)(void *user);
    void (*request_power_off)(void *user);
};

struct acpi_pm {
    uint16_t enable, control;
    uint64_t cycle_hz;
    struct acpi_pm_env env;
};

// cycle_hz: processor cycles a second.
void acpi_pm_init(struct acpi_pm *pm, uint64_t cycle_hz, const struct acpi_pm_env *env);
void acpi_pm_reset(struct acpi_pm *pm);
void acpi_pm_attach(struct acpi_pm *pm, struct bus *bus);

#endif
