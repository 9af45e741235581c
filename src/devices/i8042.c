// 8042 commands and a keyboard that answers but never types.
//
// PC/AT technical reference, "Keyboard Controller Commands". Bytes to the
// auxiliary device find no mouse and are dropped without an answer.
#include "devices/i8042.h"

#include <string.h>

enum { STATUS_OUTPUT_FULL = 0x01, STATUS_SYSTEM = 0x04, STATUS_COMMAND = 0x08, STATUS_NOT_LOCKED = 0x10 };
enum { BYTE_KEYBOARD_IRQ = 0x01, BYTE_SYSTEM = 0x04, BYTE_KEYBOARD_OFF = 0x10, BYTE_AUX_OFF = 0x20 };
enum { OUTPUT_NOT_RESET = 0x01, OUTPUT_A20 = 0x02, PORT_92_RESET = 0x01, PORT_92_A20 = 0x02 };
enum {
    CMD_READ_BYTE = 0x20,
    CMD_WRITE_BYTE = 0x60,
    CMD_AUX_OFF = 0xa7,
    CMD_AUX_ON = 0xa8,
    CMD_AUX_TEST = 0xa9,
    CMD_SELF_TEST = 0xaa,
    CMD_KEYBOARD_TEST = 0xab,
    CMD_KEYBOARD_OFF = 0xad,
    CMD_KEYBOARD_ON = 0xae,
    CMD_READ_INPUT_PORT = 0xc0,
    CMD_READ_OUTPUT_PORT = 0xd0,
    CMD_WRITE_OUTPUT_PORT = 0xd1,
    CMD_WRITE_KEYBOARD_BUFFER = 0xd2,
    CMD_WRITE_AUX_BUFFER = 0xd3,
    CMD_WRITE_AUX = 0xd4,
    CMD_A20_OFF = 0xdd,
    CMD_A20_ON = 0xdf,
    CMD_PULSE = 0xf0 // 0xf0 to 0xff: pulse output port bits 3:0 that are 0 in the command
};
enum { SELF_TEST_PASSED = 0x55, AUX_ABSENT = 0x03, INPUT_PORT = 0x80 };
enum {
    KEYBOARD_SET_LEDS = 0xed,
    KEYBOARD_ECHO = 0xee,
    KEYBOARD_SCAN_SET = 0xf0,
    KEYBOARD_IDENTIFY = 0xf2,
    KEYBOARD_SET_RATE = 0xf3,
    KEYBOARD_RESET = 0xff,
    KEYBOARD_ACK = 0xfa,
    KEYBOARD_TEST_PASSED = 0xaa,
    KEYBOARD_RESEND = 0xfe
};

static void update_irq(struct i8042 *device)
{
    bool level = device->queue_count && (device->command_byte & BYTE_KEYBOARD_IRQ);
    if (level == device->irq_level)
        return;
    device->irq_level = level;
    device->env.set_irq(device->env.user, level);
}

static void update_a20(struct i8042 *device)
{
    bool enabled = (device->output_port & OUTPUT_A20) || (device->port_92 & PORT_92_A20);
    if (enabled == device->a20)
        return;
    device->a20 = enabled;
    device->env.set_a20(device->env.user, enabled);
}

static void push(struct i8042 *device, uint8_t byte)
{
    if (device->queue_count == I8042_QUEUE_SIZE)
        return; // the guest does not read: further answers are lost
    device->queue[(device->queue_head + device->queue_count) % I8042_QUEUE_SIZE] = byte;
    device->queue_count++;
    update_irq(device);
}

static uint8_t read_data(struct i8042 *device)
{
    uint8_t byte = device->queue[device->queue_head];
    if (device->queue_count == 0)
        return byte; // the output buffer keeps its last byte
    if (device->queue_count > 1)
        device->queue_head = (uint8_t)((device->queue_head + 1) % I8042_QUEUE_SIZE);
    device->queue_count--;
    if (device->irq_level) { // a further byte makes a new edge
        device->irq_level = false;
        device->env.set_irq(device->env.user, false);
    }
    update_irq(device);
    return byte;
}

static uint8_t read_status(const struct i8042 *device)
{
    unsigned status = STATUS_NOT_LOCKED | (device->command_byte & BYTE_SYSTEM ? STATUS_SYSTEM : 0);
    status |= device->queue_count ? STATUS_OUTPUT_FULL : 0;
    status |= device->last_was_command ? STATUS_COMMAND : 0;
    return (uint8_t)status;
}

static void write_output_port(struct i8042 *device, uint8_t value)
{
    device->output_port = value | OUTPUT_NOT_RESET;
    update_a20(device);
    if (!(value & OUTPUT_NOT_RESET))
        device->env.request_reset(device->env.user);
}

static void change_command_byte(struct i8042 *device, uint8_t value)
{
    device->command_byte = value;
    update_irq(device);
}

static void write_command(struct i8042 *device, uint8_t command)
{
    device->pending_command = 0;
    switch (command) {
    case CMD_READ_BYTE: push(device, device->command_byte); break;
    case CMD_AUX_OFF: change_command_byte(device, device->command_byte | BYTE_AUX_OFF); break;
    case CMD_AUX_ON: change_command_byte(device, device->command_byte & (uint8_t)~BYTE_AUX_OFF); break;
    case CMD_AUX_TEST: push(device, AUX_ABSENT); break;
    case CMD_SELF_TEST:
        change_command_byte(device, device->command_byte | BYTE_SYSTEM);
        push(device, SELF_TEST_PASSED);
        break;
    case CMD_KEYBOARD_TEST: push(device, 0); break;
    case CMD_KEYBOARD_OFF: change_command_byte(device, device->command_byte | BYTE_KEYBOARD_OFF); break;
    case CMD_KEYBOARD_ON: change_command_byte(device, device->command_byte & (uint8_t)~BYTE_KEYBOARD_OFF); break;
    case CMD_READ_INPUT_PORT: push(device, INPUT_PORT); break;
    case CMD_READ_OUTPUT_PORT: push(device, device->output_port); break;
    case CMD_WRITE_BYTE:
    case CMD_WRITE_OUTPUT_PORT:
    case CMD_WRITE_KEYBOARD_BUFFER:
    case CMD_WRITE_AUX_BUFFER:
    case CMD_WRITE_AUX: device->pending_command = command; break;
    case CMD_A20_OFF: write_output_port(device, device->output_port & (uint8_t)~OUTPUT_A20); break;
    case CMD_A20_ON: write_output_port(device, device->output_port | OUTPUT_A20); break;
    default:
        if (command >= CMD_PULSE && !(command & OUTPUT_NOT_RESET))
            device->env.request_reset(device->env.user);
        break;
    }
}

static void write_keyboard(struct i8042 *device, uint8_t value)
{
    if (device->pending_keyboard) {
        bool asks_scan_set = device->pending_keyboard == KEYBOARD_SCAN_SET && value == 0;
        device->pending_keyboard = 0;
        push(device, KEYBOARD_ACK);
        if (asks_scan_set)
            push(device, 2);
        return;
    }
    if (value == KEYBOARD_ECHO) {
        push(device, KEYBOARD_ECHO);
        return;
    }
    if (value < KEYBOARD_SET_LEDS) {
        push(device, KEYBOARD_RESEND);
        return;
    }
    push(device, KEYBOARD_ACK);
    switch (value) {
    case KEYBOARD_SET_LEDS:
    case KEYBOARD_SCAN_SET:
    case KEYBOARD_SET_RATE: device->pending_keyboard = value; break;
    case KEYBOARD_IDENTIFY: // an MF2 keyboard behind a translating controller
        push(device, 0xab);
        push(device, 0x41);
        break;
    case KEYBOARD_RESET: push(device, KEYBOARD_TEST_PASSED); break;
    default: break; // enable, disable, defaults: nothing but the acknowledgement
    }
}

static void write_data(struct i8042 *device, uint8_t value)
{
    uint8_t command = device->pending_command;
    device->pending_command = 0;
    switch (command) {
    case 0: write_keyboard(device, value); break;
    case CMD_WRITE_BYTE: change_command_byte(device, value); break;
    case CMD_WRITE_OUTPUT_PORT: write_output_port(device, value); break;
    case CMD_WRITE_KEYBOARD_BUFFER:
    case CMD_WRITE_AUX_BUFFER: push(device, value); break;
    default: break; // CMD_WRITE_AUX: no mouse listens
    }
}

static uint64_t data_port_read(void *device, uint64_t offset, unsigned size)
{
    (void)offset, (void)size;
    return read_data(device);
}

static void data_port_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    (void)offset, (void)size;
    struct i8042 *i8042 = device;
    i8042->last_was_command = 0;
    write_data(i8042, (uint8_t)value);
}

static uint64_t command_port_read(void *device, uint64_t offset, unsigned size)
{
    (void)offset, (void)size;
    return read_status(device);
}

static void command_port_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    (void)offset, (void)size;
    struct i8042 *i8042 = device;
    i8042->last_was_command = 1;
    write_command(i8042, (uint8_t)value);
}

static uint64_t port_92_read(void *device, uint64_t offset, unsigned size)
{
    (void)offset, (void)size;
    const struct i8042 *i8042 = device;
    return i8042->port_92;
}

static void port_92_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    (void)offset, (void)size;
    struct i8042 *i8042 = device;
    bool reset = (value & PORT_92_RESET) && !(i8042->port_92 & PORT_92_RESET); // the rising edge counts
    i8042->port_92 = value & (PORT_92_RESET | PORT_92_A20);
    update_a20(i8042);
    if (reset)
        i8042->env.request_reset(i8042->env.user);
}

void i8042_reset(struct i8042 *device)
{
    struct i8042_env env = device->env;
    bool irq_level = device->irq_level, a20 = device->a20;
    memset(device, 0, sizeof *device);
    device->env = env;
    device->command_byte = BYTE_SYSTEM;
    device->output_port = OUTPUT_NOT_RESET | OUTPUT_A20;
    device->irq_level = irq_level;
    device->a20 = a20;
    update_irq(device);
    update_a20(device);
}

void i8042_init(struct i8042 *device, const struct i8042_env *env)
{
    memset(device, 0, sizeof *device);
    device->env = *env;
    i8042_reset(device);
}

void i8042_attach(struct i8042 *device, struct bus *bus)
{
    struct bus_region data = {I8042_DATA_PORT, 1, data_port_read, data_port_write, device, "keyboard-data"};
    struct bus_region command = {I8042_COMMAND_PORT, 1,      command_port_read,
                                 command_port_write, device, "keyboard-command"};
    struct bus_region port_92 = {I8042_PORT_92, 1, port_92_read, port_92_write, device, "port-92"};
    bus_register_port(bus, &data);
    bus_register_port(bus, &command);
    bus_register_port(bus, &port_92);
}
