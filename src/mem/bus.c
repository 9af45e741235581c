// The bus: which device answers an address, and how an access reaches it.
//
// Regions of one space are kept sorted by start, so a lookup is a binary
// search. An access that no single region covers is made byte by byte, lowest
// address first; bytes nobody claims read as FFH and swallow writes.
#include "mem/bus.h"

#include "base/assert.h"

#include <string.h>

void bus_init(struct bus *bus, struct memory *memory)
{
    memset(bus, 0, sizeof *bus);
    bus->memory = memory;
}

static void insert_region(struct bus_region *regions, unsigned *count, const struct bus_region *region)
{
    ASSERT(*count < BUS_MAX_REGIONS, "more devices than the bus has room for");
    ASSERT(region->size && region->start + region->size - 1 >= region->start, "a bus region is empty or wraps");
    ASSERT(region->read && region->write, "a bus region needs both callbacks");
    unsigned at = *count;
    while (at > 0 && regions[at - 1].start > region->start)
        at--;
    ASSERT(at == 0 || region->start - regions[at - 1].start >= regions[at - 1].size, "two bus regions overlap");
    ASSERT(at == *count || regions[at].start - region->start >= region->size, "two bus regions overlap");
    memmove(&regions[at + 1], &regions[at], (*count - at) * sizeof *regions);
    regions[at] = *region;
    (*count)++;
}

void bus_register_mmio(struct bus *bus, const struct bus_region *region)
{
    insert_region(bus->mmio, &bus->mmio_count, region);
}

void bus_register_port(struct bus *bus, const struct bus_region *region)
{
    ASSERT(region->start <= 0xFFFF && region->size <= 0x10000 - region->start, "a port region passes port FFFFH");
    insert_region(bus->port, &bus->port_count, region);
}

// The region that holds all of [address, address + size), or NULL.
static const struct bus_region *find_region(const struct bus_region *regions, unsigned count, uint64_t address,
                                            unsigned size)
{
    unsigned low = 0, high = count; // the last region with start <= address is in [low - 1, high - 1]
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (regions[middle].start <= address)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return NULL;
    const struct bus_region *region = &regions[low - 1];
    uint64_t offset = address - region->start;
    return offset < region->size && size <= region->size - offset ? region : NULL;
}

// All ones in the low `size` bytes.
static uint64_t size_mask(unsigned size) { return ~(uint64_t)0 >> (64 - 8 * size); }

static uint64_t regions_read(const struct bus_region *regions, unsigned count, uint64_t address, unsigned size)
{
    const struct bus_region *region = find_region(regions, count, address, size);
    if (region)
        return region->read(region->device, address - region->start, size) & size_mask(size);
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++) {
        region = find_region(regions, count, address + i, 1);
        uint64_t byte = region ? region->read(region->device, address + i - region->start, 1) & 0xFF : 0xFF;
        value |= byte << (8 * i);
    }
    return value;
}

static void regions_write(const struct bus_region *regions, unsigned count, uint64_t address, unsigned size,
                          uint64_t value)
{
    const struct bus_region *region = find_region(regions, count, address, size);
    if (region) {
        region->write(region->device, address - region->start, size, value & size_mask(size));
        return;
    }
    for (unsigned i = 0; i < size; i++) {
        region = find_region(regions, count, address + i, 1);
        if (region)
            region->write(region->device, address + i - region->start, 1, (value >> (8 * i)) & 0xFF);
    }
}

uint64_t bus_port_read(struct bus *bus, uint16_t port, unsigned size)
{
    return regions_read(bus->port, bus->port_count, port, size);
}

void bus_port_write(struct bus *bus, uint16_t port, unsigned size, uint64_t value)
{
    regions_write(bus->port, bus->port_count, port, size, value);
}

void bus_set_window(struct bus *bus, const struct bus_region *region)
{
    ASSERT(((region->start | region->size) & PAGE_OFFSET_MASK) == 0,
           "the window is whole pages, so no access crosses its edge");
    bus->window = *region;
}

static bool in_window(const struct bus *bus, hpa_t address) { return address - bus->window.start < bus->window.size; }

uint64_t bus_read(struct bus *bus, hpa_t address, unsigned size)
{
    const uint8_t *host = memory_host(bus->memory, address);
    if (!host && in_window(bus, address))
        return bus->window.read(bus->window.device, address - bus->window.start, size) & size_mask(size);
    if (!host)
        return regions_read(bus->mmio, bus->mmio_count, address, size);
    uint64_t value = 0;
    memcpy(&value, host, size);
    return value;
}

void bus_write(struct bus *bus, hpa_t address, unsigned size, uint64_t value)
{
    uint8_t *host = memory_host(bus->memory, address);
    if (!host && in_window(bus, address)) {
        bus->window.write(bus->window.device, address - bus->window.start, size, value & size_mask(size));
        return;
    }
    if (!host) {
        regions_write(bus->mmio, bus->mmio_count, address, size, value);
        return;
    }
    memory_note_write(bus->memory, address, size);
    memcpy(host, &value, size);
}
