// What the device tests share: a bus without RAM in the way, a clock set by the test, and recorded callbacks.
//
// The clock runs at 1 GHz, so that a cycle is a nanosecond.
#ifndef VMXON_TESTS_DEVICES_DEVICE_FIXTURE_H
#define VMXON_TESTS_DEVICES_DEVICE_FIXTURE_H

#include "mem/bus.h"
#include "mem/memory.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define CYCLE_HZ 1000000000u

struct fixture {
    struct memory memory;
    struct bus bus;
    cycle_t now;
    bool line;        // last level reported
    unsigned rises;   // false to true
    unsigned calls;   // of any other callback
    uint64_t last;    // its last argument
    uint8_t sent[64]; // bytes transmitted
    unsigned sent_count;
};
static struct fixture fx;

static inline cycle_t fixture_now(void *user) { return ((struct fixture *)user)->now; }

static inline void fixture_line(void *user, bool level)
{
    struct fixture *f = user;
    ck_assert_msg(level != f->line, "a line is reported on a change only");
    f->rises += level;
    f->line = level;
}

static inline void fixture_setup(void)
{
    memset(&fx, 0, sizeof fx);
    ck_assert_int_eq(memory_create(&fx.memory, 16 * PAGE_SIZE), MEMORY_OK);
    bus_init(&fx.bus, &fx.memory);
}

static inline void fixture_teardown(void) { memory_destroy(&fx.memory); }

static inline void out8(uint16_t port, unsigned value) { bus_port_write(&fx.bus, port, 1, value); }

static inline unsigned in8(uint16_t port) { return (unsigned)bus_port_read(&fx.bus, port, 1); }

static inline int fixture_run(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
