// A small machine for MMU tests: 16 MBytes of RAM, one MMU, and ways to build tables and make accesses.
#ifndef VMXON_TESTS_MMU_FIXTURE_H
#define VMXON_TESTS_MMU_FIXTURE_H

#include "mmu/mmu.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define FIXTURE_RAM (16u << 20)
#define P           BIT(0)
#define RW          BIT(1)
#define US          BIT(2)
#define ACC         BIT(5)
#define DIRTY       BIT(6)
#define PS          BIT(7)
#define GLOBAL      BIT(8)
#define XD          BIT(63)
#define EPT_RWX     EPT_PERMISSIONS
#define EPT_LEAF    (EPT_PERMISSIONS | (6u << 3))
#define LONG_CR0    (CR0_PE | CR0_PG | CR0_WP)
#define LONG_CR4    (CR4_PAE)
#define LONG_EFER   (EFER_LME | EFER_LMA | EFER_NXE)

static struct memory memory;
static struct bus bus;
static struct mmu mmu;
static struct mmu_fault fault;
static hpa_t hpa;
static hpa_t next_table; // tables are handed out upwards from here

__attribute__((unused)) static void fixture_setup(void)
{
    ck_assert_int_eq(memory_create(&memory, FIXTURE_RAM), MEMORY_OK);
    bus_init(&bus, &memory);
    mmu_init(&mmu, &bus, 40);
    next_table = 0x100000;
}

__attribute__((unused)) static void fixture_teardown(void) { memory_destroy(&memory); }

// ck_assert tells the parent process of every call, which costs too much where tables are filled.
__attribute__((unused)) static void require(bool condition)
{
    if (!condition)
        ck_abort_msg("a test left its memory");
}

__attribute__((unused)) static uint64_t get64(hpa_t address)
{
    uint64_t value;
    require(memory_read(&memory, address, &value, 8));
    return value;
}

__attribute__((unused)) static void put64(hpa_t address, uint64_t value)
{
    require(memory_write(&memory, address, &value, 8));
}

__attribute__((unused)) static uint32_t get32(hpa_t address)
{
    uint32_t value;
    require(memory_read(&memory, address, &value, 4));
    return value;
}

__attribute__((unused)) static void put32(hpa_t address, uint32_t value)
{
    require(memory_write(&memory, address, &value, 4));
}

__attribute__((unused)) static hpa_t new_table(void)
{
    hpa_t table = next_table;
    next_table += PAGE_SIZE;
    require(next_table <= FIXTURE_RAM);
    return table;
}

// Puts `leaf` into the 8-byte tables under `root`, at the level that covers 1 << shift bytes, making tables on
// the way with `link` as their flags. The same for guest tables and for EPT. Returns the address of the leaf.
__attribute__((unused)) static hpa_t map_page(hpa_t root, uint64_t address, unsigned shift, uint64_t leaf,
                                              uint64_t link)
{
    hpa_t table = root;
    for (unsigned level = 39; level > shift; level -= 9) {
        hpa_t at = table + ((address >> level) & 0x1FF) * 8;
        if (!get64(at))
            put64(at, new_table() | link);
        table = get64(at) & BITS(51, 12);
    }
    hpa_t at = table + ((address >> shift) & 0x1FF) * 8;
    put64(at, leaf);
    return at;
}

__attribute__((unused)) static hpa_t map_4k(hpa_t root, gva_t gva, uint64_t frame_and_flags)
{
    return map_page(root, gva, 12, frame_and_flags, P | RW | US);
}

// Maps guest-physical 0 to 16 MBytes one to one with 4-KByte EPT pages.
__attribute__((unused)) static uint64_t identity_ept(void)
{
    hpa_t root = new_table();
    for (gpa_t gpa = 0; gpa < FIXTURE_RAM; gpa += PAGE_SIZE)
        map_page(root, gpa, 12, gpa | EPT_LEAF, EPT_RWX);
    return root | (3u << 3) | 6u;
}

__attribute__((unused)) static hpa_t ept_leaf_address(uint64_t eptp, gpa_t gpa)
{
    hpa_t table = eptp & BITS(51, 12);
    for (unsigned shift = 39; shift > 12; shift -= 9)
        table = get64(table + ((gpa >> shift) & 0x1FF) * 8) & BITS(51, 12);
    return table + ((gpa >> 12) & 0x1FF) * 8;
}

__attribute__((unused)) static void enter_long_mode(hpa_t root)
{
    mmu_set_control(&mmu, LONG_CR0, root, LONG_CR4, LONG_EFER);
    mmu_invalidate_everything(&mmu);
}

__attribute__((unused)) static enum mmu_status access_as(gva_t gva, enum mmu_access access, enum mmu_mode mode)
{
    memset(&fault, 0xAA, sizeof fault);
    hpa = UINT64_MAX;
    return mmu_translate(&mmu, gva, access, mode, &hpa, &fault);
}

__attribute__((unused)) static enum mmu_status read_page(gva_t gva) { return access_as(gva, MMU_READ, MMU_SUPERVISOR); }

__attribute__((unused)) static int run_cases(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
