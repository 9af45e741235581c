/*
 * The three MSR lists of VM entry and VM exit. SDM 3C "VM-Exit Controls for MSRs", "VM-Entry Controls for MSRs",
 * "Loading MSRs" (at entry and at exit), "Saving MSRs". A VM-exit load that fails is a VMX abort: vmx-abort.c.
 */
#include "check.h"
#include "cpu.h"
#include "trap.h"
#include "vm.h"

struct msr_entry {
    uint32_t index, reserved;
    uint64_t value;
};

enum {
    LIST_ENTRIES = 3,
};
#define MSR_IA32_STAR           UINT32_C(0xC0000081)
#define MSR_IA32_LSTAR          UINT32_C(0xC0000082)
#define MSR_IA32_KERNEL_GS_BASE UINT32_C(0xC0000102)

static struct msr_entry entry_load[LIST_ENTRIES] __attribute__((aligned(16)));
static struct msr_entry exit_store[LIST_ENTRIES] __attribute__((aligned(16)));
static struct msr_entry exit_load[LIST_ENTRIES] __attribute__((aligned(16)));

extern const uint8_t guest_code[];
__asm__("guest_code: mov $0xC0000082, %ecx; rdmsr; mov %eax, %r8d\n"
        "mov $0xC0000081, %ecx; rdmsr; mov %edx, %r9d\n"
        "mov $0xC0000102, %ecx; mov $0x5555, %eax; xor %edx, %edx; wrmsr; vmcall");

static void create(void)
{
    static uint8_t bitmap[4096] __attribute__((aligned(4096)));
    vm_create((struct vm_controls){.primary = PRIMARY_USE_MSR_BITMAPS});
    vmcs_write(VMCS_MSR_BITMAP, (uint64_t)bitmap);
    vmcs_write(VMCS_ENTRY_MSR_LOAD_ADDR, (uint64_t)entry_load);
    vmcs_write(VMCS_EXIT_MSR_STORE_ADDR, (uint64_t)exit_store);
    vmcs_write(VMCS_EXIT_MSR_LOAD_ADDR, (uint64_t)exit_load);
}

static void test_lists(void)
{
    create();
    wrmsr(MSR_IA32_LSTAR, 0x1000);
    wrmsr(MSR_IA32_STAR, UINT64_C(0x1111) << 32);
    wrmsr(MSR_IA32_KERNEL_GS_BASE, 0x7777);
    entry_load[0] = (struct msr_entry){MSR_IA32_LSTAR, 0, 0x2000};
    entry_load[1] = (struct msr_entry){MSR_IA32_STAR, 0, UINT64_C(0x2222) << 32};
    entry_load[2] = (struct msr_entry){MSR_IA32_LSTAR, 0, 0x3000};
    exit_store[0] = (struct msr_entry){MSR_IA32_KERNEL_GS_BASE, 0, 1};
    exit_store[1] = (struct msr_entry){MSR_IA32_LSTAR, 0, 1};
    exit_load[0] = (struct msr_entry){MSR_IA32_LSTAR, 0, 0x4000};
    exit_load[1] = (struct msr_entry){MSR_IA32_KERNEL_GS_BASE, 0, 0x8888};
    vmcs_write(VMCS_ENTRY_MSR_LOAD_COUNT, 3);
    vmcs_write(VMCS_EXIT_MSR_STORE_COUNT, 2);
    vmcs_write(VMCS_EXIT_MSR_LOAD_COUNT, 2);
    check(vm_run(guest_code) == EXIT_VMCALL, "a guest with three lists runs");
    check(vm_registers.r8 == 0x3000, "entry load: of two values for one MSR the later counts");
    check(vm_registers.r9 == 0x2222, "entry load: another MSR");
    check(exit_store[0].value == 0x5555, "exit store: what the guest wrote");
    check(exit_store[1].value == 0x3000, "exit store: before the exit load");
    check(rdmsr(MSR_IA32_LSTAR) == 0x4000 && rdmsr(MSR_IA32_KERNEL_GS_BASE) == 0x8888, "exit load");
    check(rdmsr(MSR_IA32_STAR) == UINT64_C(0x2222) << 32, "what no list names stays as the guest left it");
    vmcs_write(VMCS_ENTRY_MSR_LOAD_COUNT, 1);
    vmcs_write(VMCS_EXIT_MSR_STORE_COUNT, 1);
    vmcs_write(VMCS_EXIT_MSR_LOAD_COUNT, 0);
    exit_store[1].value = 1;
    check(vm_run(guest_code) == EXIT_VMCALL && vm_registers.r8 == 0x2000, "the counts count: one entry loaded");
    check(exit_store[1].value == 1, "and one stored");
    check(rdmsr(MSR_IA32_LSTAR) == 0x2000, "and none loaded at exit");
}

/* The entry fails in the list's entry `number`, counted from 1, after the guest state was loaded. */
static void check_fails(unsigned number, const char *what)
{
    vmcs_write(VMCS_GUEST_RIP, (uint64_t)guest_code);
    bool entered = vm_enter() == VMX_SUCCEED;
    check(entered && (uint32_t)vmcs_read(VMCS_EXIT_REASON) == (EXIT_REASON_ENTRY_FAILURE | EXIT_ENTRY_FAIL_MSR_LOAD) &&
              vmcs_read(VMCS_EXIT_QUALIFICATION) == number,
          "entry load of %s: entry failure 34, qualification %u", what, number);
}

static void test_failing_loads(void)
{
    static const struct {
        struct msr_entry entry;
        const char *what;
    } bad[] = {
        {{MSR_IA32_FS_BASE, 0, 0}, "FS base"},
        {{MSR_IA32_GS_BASE, 0, 0}, "GS base"},
        {{MSR_IA32_LSTAR, 0, UINT64_C(1) << 47}, "a value that WRMSR refuses"},
        {{MSR_IA32_LSTAR, 1, 0}, "an entry with a reserved bit"},
        {{0x800, 0, 0}, "an x2APIC register"},
        {{MSR_IA32_VMX_BASIC, 0, 0}, "a read-only MSR"},
        {{0x4000FFFF, 0, 0}, "an MSR that does not exist"},
    };
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        create();
        wrmsr(MSR_IA32_LSTAR, 0x1000);
        entry_load[0] = (struct msr_entry){MSR_IA32_LSTAR, 0, 0x9000};
        entry_load[1] = bad[i].entry;
        exit_load[0] = (struct msr_entry){MSR_IA32_KERNEL_GS_BASE, 0, 0x100 + i};
        exit_store[0] = (struct msr_entry){MSR_IA32_LSTAR, 0, 1};
        vmcs_write(VMCS_ENTRY_MSR_LOAD_COUNT, 2);
        vmcs_write(VMCS_EXIT_MSR_LOAD_COUNT, 1);
        vmcs_write(VMCS_EXIT_MSR_STORE_COUNT, 1);
        check_fails(2, bad[i].what);
        check(rdmsr(MSR_IA32_KERNEL_GS_BASE) == 0x100 + i && exit_store[0].value == 1,
              "the exit-load list was loaded, the store list not stored");
        vmcs_write(VMCS_ENTRY_MSR_LOAD_COUNT, 0);
        check(vm_enter() == VMX_SUCCEED && (uint32_t)vmcs_read(VMCS_EXIT_REASON) == EXIT_VMCALL,
              "the VMCS was not launched by it: VMLAUNCH works");
    }
}

int main(void)
{
    vm_begin("vmx-msr-lists", "MSR lists of VM entry and VM exit");
    test_lists();
    test_failing_loads();
    return check_verdict("%u checks", check_count());
}
