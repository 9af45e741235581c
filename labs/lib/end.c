/* See end.h. */
#include "end.h"

#include "io.h"
#include "serial.h"

enum end_port {
    PORT_DEBUG_EXIT = 0xF4,
    PORT_BOCHS_SHUTDOWN = 0x8900,
};

void finish(int failed)
{
    serial_flush();
    if (failed) {
        outb(PORT_DEBUG_EXIT, 1);
    }
    for (const char *byte = "Shutdown"; *byte; byte++) {
        outb(PORT_BOCHS_SHUTDOWN, (uint8_t)*byte);
    }
    for (;;) { /* an NMI would end the HLT */
        __asm__ volatile("cli; hlt");
    }
}
