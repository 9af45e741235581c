// 82093AA I/O APIC: the redirection table and its index/data window.
//
// Data sheet 3.0 "Register Description". DEVIATION(ioapic_eoi_register): EOIR
// at offset 0x40 exists although the 82093AA has none; version 0x20 says so.
#include "devices/ioapic.h"

#include <string.h>

enum { OFFSET_SELECT = 0x00, OFFSET_WINDOW = 0x10, OFFSET_EOI = 0x40 };
enum { INDEX_ID = 0, INDEX_VERSION = 1, INDEX_ARBITRATION = 2, INDEX_TABLE = 0x10 };
enum { VERSION = 0x20, VERSION_MAX_ENTRY_SHIFT = 16 };

// Redirection entry: 63:56 destination, 16 mask, 15 level, 14 remote IRR, 13 polarity, 12 delivery status,
// 11 logical, 10:8 delivery mode, 7:0 vector.
#define ENTRY_MASKED     BIT(16)
#define ENTRY_LEVEL      BIT(15)
#define ENTRY_REMOTE_IRR BIT(14)
#define ENTRY_LOGICAL    BIT(11)
#define ENTRY_READ_ONLY  (BIT(14) | BIT(12))
#define ENTRY_WRITABLE   (BITS(63, 56) | BITS(16, 0))

static unsigned entry_mode(uint64_t entry) { return (unsigned)bits_get(entry, 10, 8); }

// Only fixed and lowest-priority interrupts can be level triggered; the others are edges whatever the entry says.
static bool is_level(uint64_t entry) { return (entry & ENTRY_LEVEL) && entry_mode(entry) <= APIC_LOWEST_PRIORITY; }

static bool send(struct ioapic *ioapic, uint64_t entry)
{
    struct apic_message message = {
        .destination = (uint32_t)bits_get(entry, 63, 56),
        .vector = (uint8_t)entry,
        .mode = (uint8_t)entry_mode(entry),
        .logical = entry & ENTRY_LOGICAL,
        .level_triggered = is_level(entry),
        .assert = true,
    };
    return ioapic->env.deliver(ioapic->env.user, &message);
}

// Sends a level-triggered interrupt that is asserted and not yet in a local APIC.
static void service_level(struct ioapic *ioapic, unsigned pin)
{
    uint64_t *entry = &ioapic->redirection[pin];
    if (!(ioapic->lines >> pin & 1) || !is_level(*entry) || (*entry & (ENTRY_MASKED | ENTRY_REMOTE_IRR)))
        return;
    if (send(ioapic, *entry))
        *entry |= ENTRY_REMOTE_IRR;
}

void ioapic_set_pin(struct ioapic *ioapic, unsigned pin, bool asserted)
{
    if (pin >= IOAPIC_PINS)
        return;
    uint32_t bit = 1u << pin;
    bool rising = asserted && !(ioapic->lines & bit);
    ioapic->lines = asserted ? ioapic->lines | bit : ioapic->lines & ~bit;
    uint64_t entry = ioapic->redirection[pin];
    if (is_level(entry))
        service_level(ioapic, pin);
    else if (rising && !(entry & ENTRY_MASKED))
        send(ioapic, entry);
}

void ioapic_eoi(struct ioapic *ioapic, uint8_t vector)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t *entry = &ioapic->redirection[pin];
        if (!is_level(*entry) || (uint8_t)*entry != vector || !(*entry & ENTRY_REMOTE_IRR))
            continue;
        *entry &= ~ENTRY_REMOTE_IRR;
        service_level(ioapic, pin);
    }
}

static uint32_t read_register(const struct ioapic *ioapic)
{
    unsigned index = ioapic->index;
    if (index == INDEX_ID || index == INDEX_ARBITRATION)
        return (uint32_t)ioapic->id << 24;
    if (index == INDEX_VERSION)
        return VERSION | (IOAPIC_PINS - 1) << VERSION_MAX_ENTRY_SHIFT;
    if (index < INDEX_TABLE || index >= INDEX_TABLE + 2 * IOAPIC_PINS)
        return 0;
    uint64_t entry = ioapic->redirection[(index - INDEX_TABLE) / 2];
    return (uint32_t)(index & 1 ? entry >> 32 : entry);
}

static void write_register(struct ioapic *ioapic, uint32_t value)
{
    unsigned index = ioapic->index;
    if (index == INDEX_ID)
        ioapic->id = value >> 24 & 15;
    if (index < INDEX_TABLE || index >= INDEX_TABLE + 2 * IOAPIC_PINS)
        return;
    unsigned pin = (index - INDEX_TABLE) / 2;
    uint64_t old = ioapic->redirection[pin];
    uint64_t merged = index & 1 ? (old & BITS(31, 0)) | (uint64_t)value << 32 : (old & BITS(63, 32)) | value;
    merged = (merged & ENTRY_WRITABLE & ~ENTRY_READ_ONLY) | (old & ENTRY_READ_ONLY);
    if (!(merged & ENTRY_LEVEL))
        merged &= ~ENTRY_REMOTE_IRR; // as processors without a directed EOI clear it
    ioapic->redirection[pin] = merged;
    service_level(ioapic, pin);
}

static uint64_t mmio_read(void *device, uint64_t offset, unsigned size)
{
    const struct ioapic *ioapic = device;
    uint64_t value = 0;
    if ((offset & 15) + size > 4) // registers are 32 bits wide
        return 0;
    if ((offset & ~(uint64_t)15) == OFFSET_SELECT)
        value = ioapic->index;
    else if ((offset & ~(uint64_t)15) == OFFSET_WINDOW)
        value = read_register(ioapic);
    return value >> (8 * (offset & 15)) & BITS(8 * size - 1, 0);
}

static void mmio_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct ioapic *ioapic = device;
    if (offset == OFFSET_SELECT && size <= 4)
        ioapic->index = (uint8_t)value;
    else if (offset == OFFSET_WINDOW && size == 4)
        write_register(ioapic, (uint32_t)value);
    else if (offset == OFFSET_EOI && size == 4)
        ioapic_eoi(ioapic, (uint8_t)value);
}

void ioapic_reset(struct ioapic *ioapic)
{
    ioapic->id = ioapic->index = 0;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        ioapic->redirection[pin] = ENTRY_MASKED;
}

void ioapic_init(struct ioapic *ioapic, const struct ioapic_env *env)
{
    memset(ioapic, 0, sizeof *ioapic);
    ioapic->env = *env;
    ioapic_reset(ioapic);
}

void ioapic_attach(struct ioapic *ioapic, struct bus *bus)
{
    struct bus_region region = {IOAPIC_BASE, IOAPIC_MMIO_SIZE, mmio_read, mmio_write, ioapic, "ioapic"};
    bus_register_mmio(bus, &region);
}
