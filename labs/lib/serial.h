/*
 * The first serial port (COM1, 0x3F8), 115200 8N1, polled: the only console of the guests here. boot.S has called
 * serial_init() before main() runs. A newline is sent as one line feed, so that outputs can be compared byte by byte.
 */
#ifndef LABS_LIB_SERIAL_H
#define LABS_LIB_SERIAL_H

#include <stdarg.h>

void serial_init(void);

/* Waits until the transmitter can take a byte, then sends it. */
void serial_putc(char byte);

/* Waits until the last byte has left the transmitter. */
void serial_flush(void);

/* Sends the string as it is, without adding a newline. */
void serial_puts(const char *string);

/*
 * A small printf. Conversions: %c %s %d %u %x and their l forms (%ld %lu %lx), %%; a minimum width in decimal pads on
 * the left, with zeros if it begins with 0 (%016lx). Anything else is sent as it stands.
 */
__attribute__((format(printf, 1, 2))) void serial_printf(const char *format, ...);

__attribute__((format(printf, 1, 0))) void serial_vprintf(const char *format, va_list arguments);

#endif
