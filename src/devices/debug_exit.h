// The debug-exit port: a guest ends the run by writing its result.
//
// Source: QEMU hw/misc/debugexit.c ("isa-debug-exit"). A write of V of any
// size ends the run with status (V << 1) | 1, which is always odd. Reads give 0.
#ifndef VMXON_DEVICES_DEBUG_EXIT_H
#define VMXON_DEVICES_DEBUG_EXIT_H

#include "base/types.h"
#include "mem/bus.h"

enum {
    DEBUG_EXIT_PORT = 0xf4,
    DEBUG_EXIT_PORTS = 4, // 1-, 2- and 4-byte writes reach the device whole
};

struct debug_exit_env {
    void *user;
    void (*request_exit)(void *user, uint32_t status); // status: (V << 1) | 1, modulo 2^32
};

struct debug_exit {
    struct debug_exit_env env;
};

void debug_exit_init(struct debug_exit *device, const struct debug_exit_env *env);
// Nothing to reset: the device keeps no state. For symmetry with the others.
void debug_exit_reset(struct debug_exit *device);
// Registers DEBUG_EXIT_PORTS ports from DEBUG_EXIT_PORT on.
void debug_exit_attach(struct debug_exit *device, struct bus *bus);

#endif
