// Byte-wide ports: a wider access is a sequence of byte accesses to rising ports.
//
// That is how the ISA bus carries it, and boot code relies on it (OUT DX, AX
// to port 0x70 writes index and data). The lowest port is accessed first.
#ifndef VMXON_DEVICES_PORT_BYTES_H
#define VMXON_DEVICES_PORT_BYTES_H

#include "base/types.h"

typedef uint8_t port_byte_read_fn(void *device, unsigned offset);
typedef void port_byte_write_fn(void *device, unsigned offset, uint8_t value);

// size: bytes, 1 to 8. The bus keeps offset + size within the region.
static inline uint64_t port_bytes_read(port_byte_read_fn *read, void *device, uint64_t offset, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)read(device, (unsigned)offset + i) << (8 * i);
    return value;
}

static inline void port_bytes_write(port_byte_write_fn *write, void *device, uint64_t offset, unsigned size,
                                    uint64_t value)
{
    for (unsigned i = 0; i < size; i++)
        write(device, (unsigned)offset + i, (uint8_t)(value >> (8 * i)));
}

#endif
