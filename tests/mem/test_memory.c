// Guest RAM, page flags and the bus.
#include "mem/bus.h"
#include "mem/memory.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static struct memory memory;
static struct bus bus;

struct note {
    unsigned calls;
    hpa_t address[4];
    unsigned size[4];
    uint8_t first_byte; // of RAM, at the time of the call
};
static struct note note;

static void on_code_written(void *owner, hpa_t address, unsigned size)
{
    struct note *n = owner;
    if (n->calls < 4) {
        n->address[n->calls] = address;
        n->size[n->calls] = size;
    }
    n->first_byte = *memory_host(&memory, address);
    n->calls++;
}

static void setup(void)
{
    ck_assert_int_eq(memory_create(&memory, 64 * PAGE_SIZE), MEMORY_OK);
    memset(&note, 0, sizeof note);
    memory.code_written = on_code_written;
    memory.code_owner = &note;
    bus_init(&bus, &memory);
}

static void teardown(void) { memory_destroy(&memory); }

START_TEST(create_rejects_bad_sizes)
{
    struct memory m;
    ck_assert_int_eq(memory_create(&m, 0), MEMORY_BAD_SIZE);
    ck_assert_int_eq(memory_create(&m, 4097), MEMORY_BAD_SIZE);
    ck_assert_int_eq(memory_create(&m, MEMORY_MAX_SIZE + PAGE_SIZE), MEMORY_BAD_SIZE);
}
END_TEST

START_TEST(large_memory_continues_above_the_hole)
{
    struct memory m;
    ck_assert_int_eq(memory_create(&m, (uint64_t)5 << 30), MEMORY_OK);
    ck_assert(m.low_size == MEMORY_HOLE_START);
    ck_assert(m.low_size + m.high_size == (uint64_t)5 << 30);
    ck_assert(memory_is_ram(&m, MEMORY_HOLE_START - 1, 1));
    ck_assert(!memory_is_ram(&m, MEMORY_HOLE_START - 1, 2));
    ck_assert(!memory_host(&m, MEMORY_HOLE_START));
    ck_assert(!memory_host(&m, MEMORY_HIGH_START - 1));
    ck_assert_ptr_eq(memory_host(&m, MEMORY_HIGH_START), m.ram + MEMORY_HOLE_START);
    ck_assert(memory_is_ram(&m, MEMORY_HIGH_START, m.high_size));
    ck_assert(!memory_is_ram(&m, MEMORY_HIGH_START, m.high_size + 1));
    ck_assert(!memory_is_ram(&m, UINT64_MAX, 2));
    ck_assert(!memory_is_ram(&m, PAGE_SIZE, UINT64_MAX));
    for (hpa_t a = 0; a < MEMORY_HIGH_START + m.high_size; a += 0x3FFFF000) {
        uint64_t offset = memory_ram_offset(&m, a);
        if (offset != UINT64_MAX)
            ck_assert(memory_ram_address(&m, offset) == a);
    }
    memory_destroy(&m);
}
END_TEST

START_TEST(read_gives_what_write_stored_across_pages)
{
    uint8_t in[9000], out[9000];
    for (unsigned i = 0; i < sizeof in; i++)
        in[i] = (uint8_t)(i * 7);
    ck_assert(memory_write(&memory, 3000, in, sizeof in));
    ck_assert(memory_read(&memory, 3000, out, sizeof out));
    ck_assert_mem_eq(in, out, sizeof in);
}
END_TEST

START_TEST(access_that_leaves_ram_copies_nothing)
{
    uint8_t byte[2] = {1, 2};
    hpa_t last = 64 * PAGE_SIZE - 1;
    ck_assert(!memory_write(&memory, last, byte, 2));
    ck_assert_uint_eq(*memory_host(&memory, last), 0);
    ck_assert(!memory_read(&memory, last, byte, 2));
    ck_assert_uint_eq(byte[0], 1);
}
END_TEST

START_TEST(write_marks_exactly_the_written_pages_dirty)
{
    uint8_t bytes[PAGE_SIZE] = {0};
    ck_assert(memory_write(&memory, 2 * PAGE_SIZE + 8, bytes, sizeof bytes));
    for (unsigned page = 0; page < 64; page++)
        ck_assert_int_eq((memory.page_flags[page] & PAGE_DIRTY) != 0, page == 2 || page == 3);
}
END_TEST

START_TEST(code_owner_hears_of_writes_to_code_pages_before_they_happen)
{
    uint8_t bytes[16];
    memset(bytes, 0xEE, sizeof bytes);
    memory.page_flags[5] |= PAGE_CODE;
    memory_write(&memory, 5 * PAGE_SIZE - 8, bytes, sizeof bytes);
    ck_assert_uint_eq(note.calls, 1);
    ck_assert_uint_eq(note.address[0], 5 * PAGE_SIZE);
    ck_assert_uint_eq(note.size[0], 8);
    ck_assert_uint_eq(note.first_byte, 0);
    bus_write(&bus, 5 * PAGE_SIZE + 12, 4, 0x11223344);
    ck_assert_uint_eq(note.calls, 2);
    ck_assert_uint_eq(note.size[1], 4);
    bus_write(&bus, 7 * PAGE_SIZE, 4, 1);
    ck_assert_uint_eq(note.calls, 2);
}
END_TEST

// A device that stores bytes and logs the accesses made to it.
struct device {
    uint8_t bytes[64];
    unsigned reads, writes, last_size;
};
static struct device device_a, device_b;

static uint64_t device_read(void *opaque, uint64_t offset, unsigned size)
{
    struct device *device = opaque;
    uint64_t value = 0;
    memcpy(&value, device->bytes + offset, size);
    device->reads++;
    device->last_size = size;
    return value;
}

static void device_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct device *device = opaque;
    memcpy(device->bytes + offset, &value, size);
    device->writes++;
    device->last_size = size;
}

static void attach_devices(void)
{
    memset(&device_a, 0, sizeof device_a);
    memset(&device_b, 0, sizeof device_b);
    struct bus_region a = {0xF0000000, 16, device_read, device_write, &device_a, "a"};
    struct bus_region b = {0xF0000010, 16, device_read, device_write, &device_b, "b"};
    struct bus_region far_away = {0xE0000000, 8, device_read, device_write, &device_b, "far"};
    bus_register_mmio(&bus, &b);
    bus_register_mmio(&bus, &far_away);
    bus_register_mmio(&bus, &a);
    struct bus_region ports = {0x60, 2, device_read, device_write, &device_a, "ports"};
    struct bus_region last = {0xFFFF, 1, device_read, device_write, &device_b, "last"};
    bus_register_port(&bus, &last);
    bus_register_port(&bus, &ports);
}

START_TEST(regions_are_sorted_whatever_the_order_of_registration)
{
    attach_devices();
    ck_assert_uint_eq(bus.mmio_count, 3);
    for (unsigned i = 1; i < bus.mmio_count; i++)
        ck_assert(bus.mmio[i - 1].start < bus.mmio[i].start);
}
END_TEST

START_TEST(covered_access_reaches_the_device_whole)
{
    attach_devices();
    bus_write(&bus, 0xF0000008, 8, 0x1122334455667788);
    ck_assert_uint_eq(device_a.writes, 1);
    ck_assert_uint_eq(device_a.last_size, 8);
    ck_assert_uint_eq(bus_read(&bus, 0xF000000C, 4), 0x11223344);
    ck_assert_uint_eq(device_a.reads, 1);
}
END_TEST

START_TEST(access_over_two_regions_is_split_into_bytes)
{
    attach_devices();
    bus_write(&bus, 0xF000000E, 4, 0xDDCCBBAA);
    ck_assert_uint_eq(device_a.writes, 2);
    ck_assert_uint_eq(device_b.writes, 2);
    ck_assert_uint_eq(device_a.bytes[14], 0xAA);
    ck_assert_uint_eq(device_b.bytes[1], 0xDD);
    ck_assert_uint_eq(bus_read(&bus, 0xF000000E, 4), 0xDDCCBBAA);
    ck_assert_uint_eq(bus_read(&bus, 0xF000001E, 4), 0xFFFF0000); // half in nobody's land
}
END_TEST

START_TEST(unclaimed_addresses_read_as_ones_and_lose_writes)
{
    attach_devices();
    ck_assert_uint_eq(bus_read(&bus, 0xF0000020, 2), 0xFFFF);
    ck_assert_uint_eq(bus_read(&bus, 0xEFFFFFFF, 1), 0xFF);
    ck_assert(bus_read(&bus, (uint64_t)1 << 45, 8) == UINT64_MAX);
    bus_write(&bus, 0xF0000020, 4, 5);
    ck_assert_uint_eq(bus_port_read(&bus, 0x5F, 1), 0xFF);
    ck_assert_uint_eq(bus_port_read(&bus, 0x62, 4), 0xFFFFFFFF);
    bus_port_write(&bus, 0x62, 4, 0);
    ck_assert_uint_eq(device_a.writes + device_b.writes, 0);
}
END_TEST

START_TEST(port_access_past_a_device_is_split_and_does_not_wrap)
{
    attach_devices();
    bus_port_write(&bus, 0x60, 2, 0x1234);
    ck_assert_uint_eq(device_a.writes, 1);
    ck_assert_uint_eq(bus_port_read(&bus, 0x60, 4), 0xFFFF1234);
    bus_port_write(&bus, 0xFFFF, 2, 0x5577);
    ck_assert_uint_eq(device_b.bytes[0], 0x77);
    ck_assert_uint_eq(bus_port_read(&bus, 0xFFFF, 2), 0xFF77);
}
END_TEST

START_TEST(ram_answers_bus_accesses_little_endian)
{
    bus_write(&bus, 0x1001, 8, 0x0807060504030201);
    ck_assert_uint_eq(*memory_host(&memory, 0x1001), 1);
    ck_assert_uint_eq(bus_read(&bus, 0x1003, 2), 0x0403);
    ck_assert_uint_eq(bus_read(&bus, 0x1001, 1), 1);
    ck_assert(memory.page_flags[1] & PAGE_DIRTY);
}
END_TEST

// An assertion ends the process with status 70.
static void overlapping(void)
{
    attach_devices();
    struct bus_region c = {0xF000001F, 1, device_read, device_write, &device_a, "c"};
    bus_register_mmio(&bus, &c);
}

START_TEST(overlapping_regions_are_a_defect) { overlapping(); }
END_TEST

int main(void)
{
    Suite *suite = suite_create("mem");
    TCase *tests = tcase_create("mem");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, create_rejects_bad_sizes);
    tcase_add_test(tests, large_memory_continues_above_the_hole);
    tcase_add_test(tests, read_gives_what_write_stored_across_pages);
    tcase_add_test(tests, access_that_leaves_ram_copies_nothing);
    tcase_add_test(tests, write_marks_exactly_the_written_pages_dirty);
    tcase_add_test(tests, code_owner_hears_of_writes_to_code_pages_before_they_happen);
    tcase_add_test(tests, regions_are_sorted_whatever_the_order_of_registration);
    tcase_add_test(tests, covered_access_reaches_the_device_whole);
    tcase_add_test(tests, access_over_two_regions_is_split_into_bytes);
    tcase_add_test(tests, unclaimed_addresses_read_as_ones_and_lose_writes);
    tcase_add_test(tests, port_access_past_a_device_is_split_and_does_not_wrap);
    tcase_add_test(tests, ram_answers_bus_accesses_little_endian);
    if (getenv("CK_FORK") == NULL || strcmp(getenv("CK_FORK"), "no") != 0)
        tcase_add_exit_test(tests, overlapping_regions_are_a_defect, 70);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
