// The debug-exit port (QEMU hw/misc/debugexit.c, "isa-debug-exit").
//
// As in QEMU, a write to any byte of the range counts, whatever its size.
#include "devices/debug_exit.h"

static uint64_t port_read(void *device, uint64_t offset, unsigned size)
{
    (void)device, (void)offset, (void)size;
    return 0;
}

static void port_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    (void)offset, (void)size;
    struct debug_exit *debug_exit = device;
    debug_exit->env.request_exit(debug_exit->env.user, (uint32_t)value << 1 | 1);
}

void debug_exit_init(struct debug_exit *device, const struct debug_exit_env *env) { device->env = *env; }

void debug_exit_reset(struct debug_exit *device) { (void)device; }

void debug_exit_attach(struct debug_exit *device, struct bus *bus)
{
    struct bus_region region = {DEBUG_EXIT_PORT, DEBUG_EXIT_PORTS, port_read, port_write, device, "debug-exit"};
    bus_register_port(bus, &region);
}
