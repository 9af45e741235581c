// The registers of a 16550A UART (PC16550D data sheet, section 8 "Registers").
//
// Interrupt priority, from the highest: line status, received data or
// character timeout, transmitter empty, modem status. Without line speed the
// character timeout is due as soon as fewer bytes than the trigger level wait.
// On a PC the OUT2 pin gates the interrupt line, and loopback disconnects it.
#include "devices/uart.h"

#include "devices/port_bytes.h"

#include <string.h>

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };

enum { IER_RECEIVED = 0x01, IER_THR_EMPTY = 0x02, IER_LINE = 0x04, IER_MODEM = 0x08, IER_MASK = 0x0f };
enum {
    IIR_NONE = 0x01,
    IIR_MODEM = 0x00,
    IIR_THR_EMPTY = 0x02,
    IIR_RECEIVED = 0x04,
    IIR_LINE = 0x06,
    IIR_TIMEOUT = 0x0c,
    IIR_FIFO = 0xc0
};
enum { FCR_ENABLE = 0x01, FCR_CLEAR_RECEIVE = 0x02, FCR_KEEP = 0xc9 };
enum { LCR_DLAB = 0x80 };
enum { MCR_DTR = 0x01, MCR_RTS = 0x02, MCR_OUT1 = 0x04, MCR_OUT2 = 0x08, MCR_LOOP = 0x10, MCR_MASK = 0x1f };
enum { LSR_DATA_READY = 0x01, LSR_OVERRUN = 0x02, LSR_THRE = 0x20, LSR_TEMT = 0x40 };
enum { MSR_DELTAS = 0x0f, MSR_TERI = 0x04, MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80 };

static bool fifo_enabled(const struct uart *uart) { return uart->fcr & FCR_ENABLE; }

static unsigned fifo_capacity(const struct uart *uart) { return fifo_enabled(uart) ? UART_FIFO_SIZE : 1; }

static unsigned trigger_level(const struct uart *uart)
{
    static const uint8_t levels[4] = {1, 4, 8, 14};
    return fifo_enabled(uart) ? levels[uart->fcr >> 6] : 1;
}

static uint8_t interrupt_identity(const struct uart *uart)
{
    if ((uart->ier & IER_LINE) && uart->lsr_errors)
        return IIR_LINE;
    if ((uart->ier & IER_RECEIVED) && uart->fifo_count)
        return uart->fifo_count >= trigger_level(uart) ? IIR_RECEIVED : IIR_TIMEOUT;
    if ((uart->ier & IER_THR_EMPTY) && uart->thr_empty_pending)
        return IIR_THR_EMPTY;
    if ((uart->ier & IER_MODEM) && (uart->msr & MSR_DELTAS))
        return IIR_MODEM;
    return IIR_NONE;
}

static void update_irq(struct uart *uart)
{
    bool gate = (uart->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;
    bool level = gate && interrupt_identity(uart) != IIR_NONE;
    if (level == uart->irq_level)
        return;
    uart->irq_level = level;
    uart->env.set_irq(uart->env.user, level);
}

static void fifo_push(struct uart *uart, uint8_t byte)
{
    if (uart->fifo_count == fifo_capacity(uart)) {
        uart->lsr_errors |= LSR_OVERRUN;
        // With the FIFO the new byte is lost, without it the old one (data sheet, LSR bit 1).
        if (!fifo_enabled(uart))
            uart->fifo[uart->fifo_head] = byte;
        return;
    }
    uart->fifo[(uart->fifo_head + uart->fifo_count) % UART_FIFO_SIZE] = byte;
    uart->fifo_count++;
}

static uint8_t fifo_pop(struct uart *uart)
{
    if (!uart->fifo_count)
        return 0;
    uint8_t byte = uart->fifo[uart->fifo_head];
    uart->fifo_head = (uint8_t)((uart->fifo_head + 1) % UART_FIFO_SIZE);
    uart->fifo_count--;
    return byte;
}

// Moves waiting bytes into the FIFO; in loopback the receiver is cut off from the line.
static void refill(struct uart *uart)
{
    if (uart->mcr & MCR_LOOP)
        return;
    while (uart->queue_count && uart->fifo_count < fifo_capacity(uart)) {
        fifo_push(uart, uart->queue[uart->queue_head]);
        uart->queue_head = (uint16_t)((uart->queue_head + 1) % UART_QUEUE_SIZE);
        uart->queue_count--;
    }
}

// Modem inputs: a connected terminal, or in loopback the modem outputs.
static uint8_t modem_inputs(const struct uart *uart)
{
    if (!(uart->mcr & MCR_LOOP))
        return MSR_CTS | MSR_DSR | MSR_DCD;
    unsigned inputs = 0;
    inputs |= uart->mcr & MCR_RTS ? MSR_CTS : 0;
    inputs |= uart->mcr & MCR_DTR ? MSR_DSR : 0;
    inputs |= uart->mcr & MCR_OUT1 ? MSR_RI : 0;
    inputs |= uart->mcr & MCR_OUT2 ? MSR_DCD : 0;
    return (uint8_t)inputs;
}

static void update_modem(struct uart *uart)
{
    unsigned old = uart->msr, inputs = modem_inputs(uart);
    unsigned changed = (old ^ inputs) & (MSR_CTS | MSR_DSR | MSR_DCD);
    if ((old & MSR_RI) && !(inputs & MSR_RI)) // only the trailing edge of RI counts
        changed |= MSR_RI;
    uart->msr = (uint8_t)(inputs | (old & MSR_DELTAS) | changed >> 4);
}

static void write_fcr(struct uart *uart, uint8_t value)
{
    bool toggled = (uart->fcr ^ value) & FCR_ENABLE;
    if (toggled || (value & FCR_CLEAR_RECEIVE))
        uart->fifo_head = uart->fifo_count = 0;
    // The other bits are only programmed together with the enable bit.
    uart->fcr = value & FCR_ENABLE ? value & FCR_KEEP : 0;
    refill(uart);
}

static void write_mcr(struct uart *uart, uint8_t value)
{
    uart->mcr = value & MCR_MASK;
    update_modem(uart);
    refill(uart);
}

static void transmit(struct uart *uart, uint8_t byte)
{
    if (uart->mcr & MCR_LOOP)
        fifo_push(uart, byte);
    else
        uart->env.write(uart->env.user, &byte, 1);
    uart->thr_empty_pending = true;
}

static void write_ier(struct uart *uart, uint8_t value)
{
    // Enabling the THRE interrupt while the register is empty raises it at once.
    if ((value & IER_THR_EMPTY) && !(uart->ier & IER_THR_EMPTY))
        uart->thr_empty_pending = true;
    uart->ier = value & IER_MASK;
}

static uint8_t read_iir(struct uart *uart)
{
    uint8_t identity = interrupt_identity(uart);
    if (identity == IIR_THR_EMPTY)
        uart->thr_empty_pending = false;
    return (uint8_t)(identity | (fifo_enabled(uart) ? IIR_FIFO : 0));
}

static uint8_t read_lsr(struct uart *uart)
{
    unsigned value = LSR_THRE | LSR_TEMT | uart->lsr_errors | (uart->fifo_count ? LSR_DATA_READY : 0);
    uart->lsr_errors = 0;
    return (uint8_t)value;
}

static uint8_t read_register(struct uart *uart, unsigned offset)
{
    bool dlab = uart->lcr & LCR_DLAB;
    uint8_t value;
    switch (offset) {
    case REG_DATA:
        if (dlab)
            return (uint8_t)uart->divisor;
        value = fifo_pop(uart);
        refill(uart);
        return value;
    case REG_IER: return dlab ? (uint8_t)(uart->divisor >> 8) : uart->ier;
    case REG_IIR_FCR: return read_iir(uart);
    case REG_LCR: return uart->lcr;
    case REG_MCR: return uart->mcr;
    case REG_LSR: return read_lsr(uart);
    case REG_MSR:
        value = uart->msr;
        uart->msr &= (uint8_t)~MSR_DELTAS;
        return value;
    default: return uart->scr;
    }
}

uint8_t uart_read(struct uart *uart, unsigned offset)
{
    uint8_t value = read_register(uart, offset);
    update_irq(uart);
    return value;
}

static void write_data(struct uart *uart, uint8_t value)
{
    if (uart->lcr & LCR_DLAB)
        uart->divisor = (uint16_t)((uart->divisor & 0xff00) | value);
    else
        transmit(uart, value);
}

void uart_write(struct uart *uart, unsigned offset, uint8_t value)
{
    switch (offset) {
    case REG_DATA: write_data(uart, value); break;
    case REG_IER:
        if (uart->lcr & LCR_DLAB)
            uart->divisor = (uint16_t)((uart->divisor & 0xff) | value << 8);
        else
            write_ier(uart, value);
        break;
    case REG_IIR_FCR: write_fcr(uart, value); break;
    case REG_LCR: uart->lcr = value; break;
    case REG_MCR: write_mcr(uart, value); break;
    case REG_SCR: uart->scr = value; break;
    default: break; // LSR and MSR writes are for factory tests
    }
    update_irq(uart);
}

size_t uart_receive_space(const struct uart *uart) { return UART_QUEUE_SIZE - (size_t)uart->queue_count; }

size_t uart_receive(struct uart *uart, const uint8_t *bytes, size_t n)
{
    size_t taken = n < uart_receive_space(uart) ? n : uart_receive_space(uart);
    for (size_t i = 0; i < taken; i++) {
        uart->queue[(uart->queue_head + uart->queue_count) % UART_QUEUE_SIZE] = bytes[i];
        uart->queue_count++;
    }
    refill(uart);
    update_irq(uart);
    return taken;
}

void uart_reset(struct uart *uart)
{
    struct uart_env env = uart->env;
    bool was_high = uart->irq_level;
    memset(uart, 0, sizeof *uart);
    uart->env = env;
    uart->divisor = 1;
    uart->msr = modem_inputs(uart);
    if (was_high)
        env.set_irq(env.user, false);
}

void uart_init(struct uart *uart, const struct uart_env *env)
{
    memset(uart, 0, sizeof *uart);
    uart->env = *env;
    uart_reset(uart);
}

static uint8_t byte_read(void *device, unsigned offset) { return uart_read(device, offset); }

static void byte_write(void *device, unsigned offset, uint8_t value) { uart_write(device, offset, value); }

static uint64_t port_read(void *device, uint64_t offset, unsigned size)
{
    return port_bytes_read(byte_read, device, offset, size);
}

static void port_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    port_bytes_write(byte_write, device, offset, size, value);
}

void uart_attach(struct uart *uart, struct bus *bus, uint16_t first_port)
{
    struct bus_region region = {first_port, UART_PORTS, port_read, port_write, uart, "uart"};
    bus_register_port(bus, &region);
}
