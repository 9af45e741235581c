// A 16550A UART: the serial port of a PC.
//
// Source: National Semiconductor PC16550D data sheet, section 8 "Registers".
// Transmission takes no time: a byte written leaves at once through
// env.write, so LSR.THRE and LSR.TEMT are always set. Reception has no line
// speed either: bytes wait in a queue and enter the FIFO as the guest makes
// room. The divisor latch is stored and means nothing. DMA mode is left out.
#ifndef VMXON_DEVICES_UART_H
#define VMXON_DEVICES_UART_H

#include "base/types.h"
#include "mem/bus.h"

enum {
    UART_PORTS = 8,         // size of the port range
    UART_FIFO_SIZE = 16,    // bytes the guest can see waiting
    UART_QUEUE_SIZE = 4096, // bytes waiting behind the FIFO
    UART_COM1_PORT = 0x3f8, // IRQ 4 on a PC
};

struct uart_env {
    void *user;
    void (*write)(void *user, const uint8_t *bytes, size_t n); // bytes transmitted
    void (*set_irq)(void *user, bool level);                   // called on a change only
};

struct uart {
    uint8_t ier, fcr, lcr, mcr, msr, scr;
    uint8_t lsr_errors; // LSR bits that a read clears: overrun
    uint16_t divisor;
    bool thr_empty_pending; // the THRE interrupt is waiting for service
    bool irq_level;         // as last reported to env.set_irq
    uint8_t fifo[UART_FIFO_SIZE];
    uint8_t fifo_head, fifo_count;
    uint8_t queue[UART_QUEUE_SIZE];
    uint16_t queue_head, queue_count;
    struct uart_env env;
};

// Sets up a UART in its reset state. `env` is copied; both callbacks are required.
void uart_init(struct uart *uart, const struct uart_env *env);
// Master reset: registers as in table 1 of the data sheet, FIFO and queue emptied, interrupt line low.
void uart_reset(struct uart *uart);
// Registers UART_PORTS ports from first_port on.
void uart_attach(struct uart *uart, struct bus *bus, uint16_t first_port);

// Register access; offset 0..7.
uint8_t uart_read(struct uart *uart, unsigned offset);
void uart_write(struct uart *uart, unsigned offset, uint8_t value);

// Offers n received bytes; returns how many the queue took (the rest is the caller's to offer again).
size_t uart_receive(struct uart *uart, const uint8_t *bytes, size_t n);
// Bytes uart_receive would take now.
size_t uart_receive_space(const struct uart *uart);

#endif
