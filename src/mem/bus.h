// The bus: MMIO regions and I/O ports, each with an owner's read and write callback.
//
// Physical addresses that are not RAM, and all I/O ports, come here. Where no
// device answers, reads give all ones and writes are lost, as on a PC.
// Lookup is by a sorted array; devices register once, before the machine runs. One region may move: the page of the local APIC.
#ifndef VMXON_MEM_BUS_H
#define VMXON_MEM_BUS_H

#include "base/types.h"
#include "mem/memory.h"

#define BUS_MAX_REGIONS 64

// offset: bytes from the start of the region. size: 1, 2, 4 or 8 bytes. Values are little-endian, zero-extended.
typedef uint64_t bus_read_fn(void *device, uint64_t offset, unsigned size);
typedef void bus_write_fn(void *device, uint64_t offset, unsigned size, uint64_t value);

struct bus_region {
    uint64_t start;
    uint64_t size; // bytes, or number of ports
    bus_read_fn *read;
    bus_write_fn *write;
    void *device;
    const char *name;
};

struct bus {
    struct memory *memory;
    struct bus_region mmio[BUS_MAX_REGIONS];
    struct bus_region port[BUS_MAX_REGIONS];
    struct bus_region window; // an MMIO region that moves, before all others; size 0: none
    unsigned mmio_count;
    unsigned port_count;
};

void bus_init(struct bus *bus, struct memory *memory);

// Registers a region; two regions of one space may not overlap (a defect, asserted).
void bus_register_mmio(struct bus *bus, const struct bus_region *region);
void bus_register_port(struct bus *bus, const struct bus_region *region);

// Places, moves or (size 0) removes the one MMIO region that may move. It hides registered regions, but not RAM.
void bus_set_window(struct bus *bus, const struct bus_region *region);

// Access to I/O ports; size 1, 2 or 4. An access that no single region covers is split into bytes.
uint64_t bus_port_read(struct bus *bus, uint16_t port, unsigned size);
void bus_port_write(struct bus *bus, uint16_t port, unsigned size, uint64_t value);

// Physical access of 1, 2, 4 or 8 bytes within one 4-KiB page, RAM or MMIO, as the processor's memory accesses make it.
uint64_t bus_read(struct bus *bus, hpa_t address, unsigned size);
void bus_write(struct bus *bus, hpa_t address, unsigned size, uint64_t value);

#endif
