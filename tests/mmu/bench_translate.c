// Measures the MMU: nanoseconds a TLB miss, a hit of the slow path, MOV CR3, VM entry and exit. Not a test.
#include "mmu/mmu.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define ROOT     0x100000u
#define EPT_ROOT 0x180000u
#define PAGES    64u
#define ROUNDS   20000u

static struct memory memory;
static struct bus bus;
static struct mmu mmu;

static void put64(hpa_t address, uint64_t value) { memory_write(&memory, address, &value, 8); }

// One chain of tables for the first 2 MBytes: 4-KByte pages, one to one, accessed and dirty.
static void build(hpa_t root, uint64_t link, uint64_t leaf)
{
    for (unsigned level = 0; level < 3; level++)
        put64(root + level * PAGE_SIZE, (root + (level + 1) * PAGE_SIZE) | link);
    for (unsigned i = 0; i < 512; i++)
        put64(root + 3 * PAGE_SIZE + i * 8, i * PAGE_SIZE | leaf);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static void report(const char *name, double start, unsigned operations)
{
    printf("%-44s %6.1f ns\n", name, (now() - start) / operations);
}

static void touch_pages(void)
{
    struct mmu_fault fault;
    hpa_t hpa;
    for (unsigned i = 0; i < PAGES; i++) {
        mmu_translate(&mmu, i * PAGE_SIZE, MMU_READ, MMU_SUPERVISOR, &hpa, &fault);
        mmu_fill_fast(&mmu, i * PAGE_SIZE, MMU_SUPERVISOR);
    }
}

static void measure_misses(const char *name, bool forget_guest_physical)
{
    double start = now();
    for (unsigned round = 0; round < ROUNDS; round++) {
        mmu_invalidate_pcid(&mmu, 0);
        if (forget_guest_physical)
            mmu_invalidate_eptp(&mmu, EPT_ROOT);
        touch_pages();
    }
    report(name, start, ROUNDS * PAGES);
}

static void measure_cr3(void)
{
    struct mmu_fault fault;
    hpa_t hpa;
    double start = now();
    for (unsigned i = 0; i < ROUNDS * 50; i++) {
        mmu_set_control(&mmu, mmu.cr0, ROOT, mmu.cr4, mmu.efer);
        mmu_invalidate_pcid(&mmu, 0);
    }
    report("MOV CR3", start, ROUNDS * 50);
    start = now();
    for (unsigned i = 0; i < ROUNDS * 50; i++) {
        mmu_set_control(&mmu, mmu.cr0, ROOT, mmu.cr4, mmu.efer);
        mmu_invalidate_pcid(&mmu, 0);
        mmu_translate(&mmu, 0, MMU_READ, MMU_SUPERVISOR, &hpa, &fault);
        mmu_fill_fast(&mmu, 0, MMU_SUPERVISOR);
    }
    report("MOV CR3 and the first access after it", start, ROUNDS * 50);
}

static void measure_vm_switch(void)
{
    uint64_t cr0 = mmu.cr0, cr4 = mmu.cr4, efer = mmu.efer;
    double start = now();
    for (unsigned i = 0; i < ROUNDS * 50; i++) {
        mmu_set_vm(&mmu, 1, true, EPT_ROOT | 0x1E);
        mmu_set_control(&mmu, cr0, ROOT + 0x1000, cr4, efer);
        mmu_set_vm(&mmu, 0, false, 0);
        mmu_set_control(&mmu, cr0, ROOT, cr4 | CR4_SMEP, efer);
    }
    report("VM entry and exit (both), VPID 1", start, ROUNDS * 50);
}

int main(void)
{
    if (memory_create(&memory, 4u << 20) != MEMORY_OK)
        return 1;
    bus_init(&bus, &memory);
    mmu_init(&mmu, &bus, 40);
    build(ROOT, 0x67, 0x67);
    build(EPT_ROOT, 7, 7 | 6 << 3);
    mmu_set_control(&mmu, CR0_PE | CR0_PG | CR0_WP, ROOT, CR4_PAE, EFER_LME | EFER_LMA | EFER_NXE);
    measure_misses("TLB miss, 4-level, with fast fill", false);
    measure_cr3();
    measure_vm_switch();
    mmu_set_vm(&mmu, 1, true, EPT_ROOT | 0x1E);
    measure_misses("TLB miss, guest-physical mappings cached", false);
    measure_misses("TLB miss, guest-physical mappings forgotten", true);
    double start = now();
    for (unsigned i = 0; i < ROUNDS; i++)
        touch_pages();
    report("TLB hit of the slow path, with fast fill", start, ROUNDS * PAGES);
    start = now();
    for (unsigned i = 0; i < ROUNDS; i++)
        mmu_protect_frame(&mmu, 0x5000);
    report("mmu_protect_frame", start, ROUNDS);
    memory_destroy(&memory);
    return 0;
}
