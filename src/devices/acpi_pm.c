// PM1a event and control registers, and the 24-bit power-management timer.
//
// ACPI 6.4, 4.8.3. The status register reads 0: no event source is modelled.
#include "devices/acpi_pm.h"

#include "devices/port_bytes.h"

enum { CONTROL_SCI_EN = 0x0001, CONTROL_SLP_TYP = 0x1c00, CONTROL_SLP_EN = 0x2000 };
enum { TIMER_MASK = 0xffffff };

static uint8_t event_byte_read(void *device, unsigned offset)
{
    const struct acpi_pm *pm = device;
    return offset < 2 ? 0 : (uint8_t)(pm->enable >> (8 * (offset - 2)));
}

static void event_byte_write(void *device, unsigned offset, uint8_t value)
{
    struct acpi_pm *pm = device;
    if (offset == 2)
        pm->enable = (uint16_t)((pm->enable & 0xff00) | value);
    else if (offset == 3)
        pm->enable = (uint16_t)((pm->enable & 0xff) | value << 8);
}

static uint64_t event_read(void *device, uint64_t offset, unsigned size)
{
    return port_bytes_read(event_byte_read, device, offset, size);
}

static void event_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    port_bytes_write(event_byte_write, device, offset, size, value);
}

static uint64_t control_read(void *device, uint64_t offset, unsigned size)
{
    const struct acpi_pm *pm = device;
    uint64_t value = (uint64_t)pm->control >> (8 * offset);
    return size == 1 ? value & 0xff : value;
}

static void control_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct acpi_pm *pm = device;
    unsigned shift = 8 * (unsigned)offset, mask = (size == 1 ? 0xffu : 0xffffu) << shift;
    unsigned merged = (pm->control & ~mask) | ((unsigned)value << shift & mask);
    pm->control = merged & (CONTROL_SCI_EN | CONTROL_SLP_TYP); // SLP_EN always reads 0
    if ((merged & CONTROL_SLP_EN) && !(merged & CONTROL_SLP_TYP))
        pm->env.request_power_off(pm->env.user);
}

static uint64_t timer_read(void *device, uint64_t offset, unsigned size)
{
    const struct acpi_pm *pm = device;
    uint64_t count = timebase_ticks(pm->env.now(pm->env.user), pm->cycle_hz, ACPI_PM_TIMER_HZ) & TIMER_MASK;
    return count >> (8 * offset) & BITS(8 * size - 1, 0);
}

static void timer_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    (void)device, (void)offset, (void)size, (void)value; // read only
}

void acpi_pm_reset(struct acpi_pm *pm)
{
    pm->enable = 0;
    pm->control = CONTROL_SCI_EN; // in ACPI mode: no firmware would answer the SMI command port
}

void acpi_pm_init(struct acpi_pm *pm, uint64_t cycle_hz, const struct acpi_pm_env *env)
{
    pm->cycle_hz = cycle_hz;
    pm->env = *env;
    acpi_pm_reset(pm);
}

void acpi_pm_attach(struct acpi_pm *pm, struct bus *bus)
{
    struct bus_region event = {ACPI_PM_EVENT_PORT, 4, event_read, event_write, pm, "acpi-pm1-event"};
    struct bus_region control = {ACPI_PM_CONTROL_PORT, 2, control_read, control_write, pm, "acpi-pm1-control"};
    struct bus_region timer = {ACPI_PM_TIMER_PORT, 4, timer_read, timer_write, pm, "acpi-pm-timer"};
    bus_register_port(bus, &event);
    bus_register_port(bus, &control);
    bus_register_port(bus, &timer);
}
