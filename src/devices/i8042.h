// The keyboard controller (8042) and port 0x92: A20, reset, and a quiet keyboard.
//
// Source: PC/AT technical reference, "Keyboard Controller"; PS/2 technical
// reference, system control port A. Enough for boot code: self tests, command
// byte, output port, reset pulse, keyboard identification. No keys and no
// mouse are modelled. The A20 line is on while either port asks for it.
#ifndef VMXON_DEVICES_I8042_H
#define VMXON_DEVICES_I8042_H

#include "base/types.h"
#include "mem/bus.h"

enum {
    I8042_DATA_PORT = 0x60,
    I8042_COMMAND_PORT = 0x64, // reads give the status
    I8042_PORT_92 = 0x92,
    I8042_QUEUE_SIZE = 16,
};

struct i8042_env {
    void *user;
    void (*set_irq)(void *user, bool level);   // IRQ 1, on every change
    void (*set_a20)(void *user, bool enabled); // on every change; on after reset
    void (*request_reset)(void *user);         // reset of the processor
};

struct i8042 {
    uint8_t command_byte;
    uint8_t output_port;             // bit 0: not reset, bit 1: A20
    uint8_t port_92;                 // bit 0: reset, bit 1: A20
    uint8_t pending_command;         // controller command that waits for its data byte, or 0
    uint8_t pending_keyboard;        // keyboard command that waits for its data byte, or 0
    uint8_t last_was_command;        // status bit 3
    uint8_t queue[I8042_QUEUE_SIZE]; // bytes for port 0x60
    uint8_t queue_head, queue_count;
    bool irq_level, a20; // as last reported
    struct i8042_env env;
};

void i8042_init(struct i8042 *device, const struct i8042_env *env);
// Queue empty, A20 on (as firmware leaves it), keyboard enabled, its interrupt off.
void i8042_reset(struct i8042 *device);
// Registers ports 0x60, 0x64 and 0x92.
void i8042_attach(struct i8042 *device, struct bus *bus);

#endif
