/* A polled 16550 UART; register layout as in the National Semiconductor PC16550D data sheet. */
#include "serial.h"

#include <stdbool.h>
#include <stdint.h>

#include "io.h"

enum uart_port {
    COM1_DATA = 0x3F8,             /* with LCR_DLAB: divisor, low byte */
    COM1_INTERRUPT_ENABLE = 0x3F9, /* with LCR_DLAB: divisor, high byte */
    COM1_FIFO_CONTROL = 0x3FA,
    COM1_LINE_CONTROL = 0x3FB,
    COM1_MODEM_CONTROL = 0x3FC,
    COM1_LINE_STATUS = 0x3FD,
};

enum uart_bits {
    FCR_ENABLE_AND_CLEAR = 0x07,
    LCR_8_BITS = 0x03,
    LCR_DLAB = 0x80,
    LSR_TRANSMITTER_HOLDING_EMPTY = 0x20,
    LSR_TRANSMITTER_EMPTY = 0x40,
    MCR_DTR_RTS = 0x03,
};

enum { DIGITS_MAX = 20 }; /* of an unsigned 64-bit number, in decimal */

void serial_init(void)
{
    outb(COM1_INTERRUPT_ENABLE, 0);
    outb(COM1_LINE_CONTROL, LCR_DLAB);
    outb(COM1_DATA, 1); /* divisor 1: 115200 baud */
    outb(COM1_INTERRUPT_ENABLE, 0);
    outb(COM1_LINE_CONTROL, LCR_8_BITS);
    outb(COM1_FIFO_CONTROL, FCR_ENABLE_AND_CLEAR);
    outb(COM1_MODEM_CONTROL, MCR_DTR_RTS);
}

void serial_putc(char byte)
{
    while (!(inb(COM1_LINE_STATUS) & LSR_TRANSMITTER_HOLDING_EMPTY)) {
    }
    outb(COM1_DATA, (uint8_t)byte);
}

void serial_flush(void)
{
    while (!(inb(COM1_LINE_STATUS) & LSR_TRANSMITTER_EMPTY)) {
    }
}

void serial_puts(const char *string)
{
    while (*string) {
        serial_putc(*string++);
    }
}

struct number_format {
    unsigned base;
    unsigned width;
    char pad;
};

static void put_number(uint64_t magnitude, bool negative, struct number_format format)
{
    char digits[DIGITS_MAX];
    unsigned count = 0;

    do {
        digits[count++] = "0123456789abcdef"[magnitude % format.base];
        magnitude /= format.base;
    } while (magnitude);

    if (negative && format.pad == '0') {
        serial_putc('-');
    }
    for (unsigned column = count + negative; column < format.width; column++) {
        serial_putc(format.pad);
    }
    if (negative && format.pad != '0') {
        serial_putc('-');
    }
    while (count) {
        serial_putc(digits[--count]);
    }
}

static void put_signed(int64_t value, struct number_format format)
{
    uint64_t magnitude = (uint64_t)value;
    put_number(value < 0 ? 0 - magnitude : magnitude, value < 0, format);
}

void serial_vprintf(const char *format, va_list arguments)
{
    for (; *format; format++) {
        if (*format != '%') {
            serial_putc(*format);
            continue;
        }
        format++;

        struct number_format number = {.base = 10, .width = 0, .pad = ' '};
        if (*format == '0') {
            number.pad = '0';
            format++;
        }
        for (; *format >= '0' && *format <= '9'; format++) {
            number.width = 10 * number.width + (unsigned)(*format - '0');
        }
        bool is_long = *format == 'l';
        if (is_long) {
            format++;
        }

        switch (*format) {
        case 'c': serial_putc((char)va_arg(arguments, int)); break;
        case 's': serial_puts(va_arg(arguments, const char *)); break;
        case 'd': put_signed(is_long ? va_arg(arguments, long) : va_arg(arguments, int), number); break;
        case 'x':
            number.base = 16;
            /* fall through */
        case 'u':
            put_number(is_long ? va_arg(arguments, unsigned long) : va_arg(arguments, unsigned), false, number);
            break;
        case '\0': /* a lone % at the end */ return;
        default: serial_putc(*format);
        }
    }
}

void serial_printf(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    serial_vprintf(format, arguments);
    va_end(arguments);
}
