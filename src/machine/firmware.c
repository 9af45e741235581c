// What firmware leaves in low memory: the BIOS data area, which kernels look at for the end of base memory and the serial ports.
//
// Source: the IBM PC/AT BIOS data area, as SeaBIOS fills it. There are no BIOS services: every real-mode vector leads to an IRET at
// the traditional place of the dummy handler, F000:FF53, so a service that is asked for changes nothing.
#include "machine/machine.h"

enum {
    BDA_COM1 = 0x400,         // 16 bits: port of the first serial port
    BDA_EBDA_SEGMENT = 0x40e, // 16 bits: segment of the extended BIOS data area
    BDA_BASE_MEMORY = 0x413,  // 16 bits: KiB below it
    BDA_VIDEO_MODE = 0x449,   // 8 bits
    BDA_COLUMNS = 0x44a,      // 16 bits
    BDA_CRT_PORT = 0x463,     // 16 bits
    BDA_ROWS_MINUS_1 = 0x484, // 8 bits
    EBDA_ADDRESS = 0x9fc00,   // its first byte: size in KiB
    DUMMY_HANDLER = 0xfff53,
    INTERRUPT_VECTORS = 256,
    OPCODE_IRET = 0xcf,
};

void firmware_init(struct machine *machine)
{
    static const struct {
        hpa_t address;
        unsigned size;
        uint64_t value;
    } words[] = {
        {BDA_COM1, 2, UART_COM1_PORT},
        {BDA_EBDA_SEGMENT, 2, EBDA_ADDRESS >> 4},
        {BDA_BASE_MEMORY, 2, EBDA_ADDRESS >> 10},
        {BDA_VIDEO_MODE, 1, 3},
        {BDA_COLUMNS, 2, 80},
        {BDA_CRT_PORT, 2, 0x3d4},
        {BDA_ROWS_MINUS_1, 1, 24},
        {EBDA_ADDRESS, 1, 1},
        {DUMMY_HANDLER, 1, OPCODE_IRET},
    };
    for (unsigned vector = 0; vector < INTERRUPT_VECTORS; vector++)
        bus_write(&machine->bus, vector * 4, 4, 0xf000ff53);
    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (memory_is_ram(&machine->memory, words[i].address, words[i].size))
            bus_write(&machine->bus, words[i].address, words[i].size, words[i].value);
    }
}
