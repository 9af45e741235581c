/*
 * The benchmark guest: the command line names a loop and how often it runs, as in "integer 1000000".
 *
 * Timing is the host's: bench/compare runs each loop with two counts and takes the slope. Ends through the debug-exit port
 * with 0 (status 1) on success. Memory from 32 MiB on, 34 MiB of it, is the loops' buffer, mapped by 4-KiB pages.
 */
#include <stdbool.h>
#include <stddef.h>

#include "boot.h"
#include "cpu.h"
#include "end.h"
#include "io.h"
#include "loops.h"
#include "multiboot.h"
#include "serial.h"
#include "vmx.h"
#include "vmx_setup.h"

enum {
    BUFFER_ADDRESS = 0x2000000,
    BUFFER_TABLES = 17, /* page tables of 2 MiB each */
    PAGE = 4096,
    DEBUG_EXIT_PORT = 0xF4,
};

#define PAGE_PRESENT UINT64_C(1)
#define PAGE_WRITE   UINT64_C(2)
#define PAGE_LARGE   UINT64_C(0x80)
#define ADDRESS_MASK UINT64_C(0x000FFFFFFFFFF000)
#define EPT_ALL      UINT64_C(7)
#define EPT_WB       UINT64_C(0x30)

static uint64_t page_tables[BUFFER_TABLES][512] __attribute__((aligned(4096)));
static uint64_t ept_pml4[512] __attribute__((aligned(4096)));
static uint64_t ept_pdpt[512] __attribute__((aligned(4096)));
static uint64_t ept_pd[512] __attribute__((aligned(4096)));
static uint64_t ept_pt[64][512] __attribute__((aligned(4096))); /* the first 128 MiB */
static struct vmx_region vmxon_region __attribute__((aligned(4096)));
static struct vmx_region vmcs __attribute__((aligned(4096)));
static uint8_t guest_stack[4096] __attribute__((aligned(16)));

static uint64_t *buffer_page_directory(void)
{
    uint64_t *pml4 = (uint64_t *)(read_cr3() & ADDRESS_MASK);
    uint64_t *pdpt = (uint64_t *)(pml4[0] & ADDRESS_MASK);
    return (uint64_t *)(pdpt[0] & ADDRESS_MASK);
}

static void map_buffer_by_4k(void)
{
    uint64_t *directory = buffer_page_directory();
    for (size_t table = 0; table < BUFFER_TABLES; table++) {
        for (size_t page = 0; page < 512; page++) {
            page_tables[table][page] = (BUFFER_ADDRESS + (table * 512 + page) * PAGE) | PAGE_PRESENT | PAGE_WRITE;
        }
        directory[BUFFER_ADDRESS / 0x200000 + table] = (uint64_t)page_tables[table] | PAGE_PRESENT | PAGE_WRITE;
    }
    write_cr3(read_cr3());
}

static void build_ept(void)
{
    for (size_t table = 0; table < 64; table++) {
        for (size_t page = 0; page < 512; page++) {
            ept_pt[table][page] = (table * 512 + page) * PAGE | EPT_ALL | EPT_WB;
        }
        ept_pd[table] = (uint64_t)ept_pt[table] | EPT_ALL;
    }
    ept_pdpt[0] = (uint64_t)ept_pd | EPT_ALL;
    ept_pml4[0] = (uint64_t)ept_pdpt | EPT_ALL;
}

static void expect(bool ok, const char *what)
{
    if (!ok) {
        serial_printf("bench: %s failed\n", what);
        finish(1);
    }
}

static void prepare_guest(const void *entry, bool with_ept)
{
    expect(vmx_is_supported() && vmx_enable(), "enabling VMX");
    vmx_region_init(&vmxon_region);
    vmx_region_init(&vmcs);
    expect(vmxon((uint64_t)&vmxon_region) == VMX_SUCCEED, "VMXON");
    expect(vmclear((uint64_t)&vmcs) == VMX_SUCCEED, "VMCLEAR");
    expect(vmptrld((uint64_t)&vmcs) == VMX_SUCCEED, "VMPTRLD");
    vmcs_write(VMCS_PIN_BASED_CONTROLS, vmx_controls_value(CONTROLS_PIN, 0));
    vmcs_write(VMCS_PRIMARY_PROC_BASED_CONTROLS,
               vmx_controls_value(CONTROLS_PRIMARY, with_ept ? PRIMARY_ACTIVATE_SECONDARY_CONTROLS : 0));
    vmcs_write(VMCS_PRIMARY_EXIT_CONTROLS, vmx_controls_value(CONTROLS_EXIT, EXIT_HOST_ADDRESS_SPACE_SIZE));
    vmcs_write(VMCS_ENTRY_CONTROLS, vmx_controls_value(CONTROLS_ENTRY, ENTRY_IA32E_MODE_GUEST));
    if (with_ept) {
        build_ept();
        vmcs_write(VMCS_SECONDARY_PROC_BASED_CONTROLS,
                   vmx_controls_value(CONTROLS_SECONDARY, SECONDARY_ENABLE_EPT | SECONDARY_ENABLE_VPID));
        vmcs_write(VMCS_EPTP, (uint64_t)ept_pml4 | 0x1E); /* write-back, four levels */
        vmcs_write(VMCS_VPID, 1);
    }
    vmx_write_host_state();
    vmx_write_guest_state_64((uint64_t)entry, (uint64_t)(guest_stack + sizeof guest_stack));
}

static void run_round_trip(const void *entry, bool with_ept, uint64_t count)
{
    prepare_guest(entry, with_ept);
    expect(loop_round_trip(count) == 0, "VM entry");
}

static void run_in_guest(void (*function)(uint64_t, const void *), uint64_t count)
{
    guest_function = function;
    guest_count = count;
    guest_buffer = (const void *)BUFFER_ADDRESS;
    run_round_trip(guest_call_function, true, 1);
}

static uint8_t *const buffer = (uint8_t *)BUFFER_ADDRESS;

static void run_walk(uint64_t count) { loop_walk(count, buffer); }
static void run_tlb(uint64_t count) { loop_tlb(count, buffer); }
static void run_rep(uint64_t count) { loop_rep(count, buffer); }
static void run_invlpg(uint64_t count) { loop_invlpg(count, buffer, &page_tables[0][0]); }
static void run_cr3(uint64_t count) { loop_cr3(count, buffer); }
static void run_cpuid_exit(uint64_t count) { run_round_trip(guest_cpuid, false, count); }
static void run_cpuid_exit_ept(uint64_t count) { run_round_trip(guest_cpuid, true, count); }
static void run_vmcall_exit(uint64_t count) { run_round_trip(guest_vmcall, false, count); }
static void run_vmcall_exit_ept(uint64_t count) { run_round_trip(guest_vmcall, true, count); }
static void run_walk_in_guest(uint64_t count) { run_in_guest(loop_walk, count); }
static void run_tlb_in_guest(uint64_t count) { run_in_guest(loop_tlb, count); }

static const struct {
    const char *name;
    void (*run)(uint64_t count);
} loops[] = {
    {"integer", loop_integer},
    {"call", loop_call},
    {"walk", run_walk},
    {"tlb", run_tlb},
    {"rep", run_rep},
    {"invlpg", run_invlpg},
    {"cr3", run_cr3},
    {"cpuid-exit", run_cpuid_exit},
    {"cpuid-exit-ept", run_cpuid_exit_ept},
    {"vmcall-exit", run_vmcall_exit},
    {"vmcall-exit-ept", run_vmcall_exit_ept},
    {"walk-in-guest", run_walk_in_guest},
    {"tlb-in-guest", run_tlb_in_guest},
};

/* Whether the word at `text`, which a space or the end of the string ends, is `word`. */
static bool is_word(const char *text, const char *word)
{
    while (*word && *text == *word) {
        text++;
        word++;
    }
    return *word == '\0' && (*text == ' ' || *text == '\0');
}

static uint64_t parse_number(const char *digit)
{
    uint64_t number = 0;
    for (; *digit >= '0' && *digit <= '9'; digit++) {
        number = number * 10 + (uint64_t)(*digit - '0');
    }
    return number;
}

/* The command line is "IMAGE LOOP COUNT". */
static const char *next_word(const char *text)
{
    while (*text && *text != ' ') {
        text++;
    }
    while (*text == ' ') {
        text++;
    }
    return text;
}

int main(const struct multiboot_info *information)
{
    const char *name = next_word((const char *)(uintptr_t)information->cmdline);
    uint64_t count = parse_number(next_word(name));
    expect(count > 0, "reading the command line");
    map_buffer_by_4k();
    for (size_t i = 0; i < sizeof loops / sizeof loops[0]; i++) {
        if (is_word(name, loops[i].name)) {
            loops[i].run(count);
            outb(DEBUG_EXIT_PORT, 0);
            return 0;
        }
    }
    expect(false, "finding the loop");
    return 1;
}
