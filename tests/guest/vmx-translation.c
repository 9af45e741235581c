/*
 * What invalidates translations under VPID and EPT: INVVPID and INVEPT of each type, INVLPG and MOV to CR3 in the guest, VM
 * entries and exits without VPID, EPT violations; and the operands that the two instructions refuse.
 * SDM 3C "Caching Translation Information", "INVEPT", "INVVPID". Stale translations are allowed, so none is expected.
 */
#include "check.h"
#include "cpu.h"
#include "pages.h"
#include "trap.h"
#include "vm.h"

enum {
    PAGE = 2,
    INVVPID_KEEP_GLOBALS = 3,
    VPID_CAP_KEEP_GLOBALS_BIT = 43,
};

static volatile uint64_t frames[3][512] __attribute__((aligned(4096)));
static volatile uint64_t *const window = (volatile uint64_t *)(PAGES_BASE + PAGE * 4096);

#define SNIPPET(name, code)      \
    extern const uint8_t name[]; \
    __asm__(#name ": " code "; vmcall")
SNIPPET(guest_read, "mov (%rbx), %rax");
SNIPPET(guest_read_invlpg_read, "mov (%rbx), %r8; mov %rcx, (%rdx); invlpg (%rbx); mov (%rbx), %rax");
SNIPPET(guest_read_cr3_read, "mov (%rbx), %r8; mov %rcx, (%rdx); mov %cr3, %rdi; mov %rdi, %cr3; mov (%rbx), %rax");

static uint64_t frame(unsigned i) { return (uint64_t)frames[i]; }

static void map(unsigned i) { *(volatile uint64_t *)&pages_table[PAGE] = frame(i) | PTE_P | PTE_W; }

/* What the guest reads from the window; 0 if it does not come to its end. */
static uint64_t read_in_guest(void)
{
    vm_registers.rbx = (uint64_t)window;
    return vm_run(guest_read) == EXIT_VMCALL ? vm_registers.rax : 0;
}

static void test_guest_invalidations(const char *how)
{
    vm_registers.rbx = (uint64_t)window;
    vm_registers.rdx = (uint64_t)&pages_table[PAGE];
    map(0);
    invlpg((uint64_t)window);
    vm_registers.rcx = frame(1) | PTE_P | PTE_W;
    check(vm_run(guest_read_invlpg_read) == EXIT_VMCALL && vm_registers.rax == 101, "%s: INVLPG in the guest", how);
    vm_registers.rcx = frame(2) | PTE_P | PTE_W;
    check(vm_run(guest_read_cr3_read) == EXIT_VMCALL && vm_registers.rax == 102, "%s: MOV to CR3 in the guest", how);
}

static void test_without_vpid(void)
{
    vm_create((struct vm_controls){0});
    map(0);
    check(read_in_guest() == 100, "without VPID");
    map(1);
    check(read_in_guest() == 101, "a VM entry invalidates");
    check(window[0] == 101, "so does a VM exit");
    test_guest_invalidations("without VPID");
}

static void test_vpid(void)
{
    if (!vm_allows(CONTROLS_SECONDARY, SECONDARY_ENABLE_VPID, "VPIDs")) {
        return;
    }
    vm_create((struct vm_controls){.secondary = SECONDARY_ENABLE_VPID});
    vmcs_write(VMCS_VPID, 7);
    map(0);
    check(read_in_guest() == 100, "VPID 7");
    map(1);
    invvpid(INVVPID_INDIVIDUAL_ADDRESS, 7, (uint64_t)window);
    check(read_in_guest() == 101, "INVVPID of an address");
    map(2);
    invvpid(INVVPID_SINGLE_CONTEXT, 7, 0);
    check(read_in_guest() == 102, "INVVPID of a VPID");
    map(0);
    invvpid(INVVPID_ALL_CONTEXTS, 0, 0);
    check(read_in_guest() == 100, "INVVPID of all");
    map(1);
    if (rdmsr(MSR_IA32_VMX_EPT_VPID_CAP) & UINT64_C(1) << VPID_CAP_KEEP_GLOBALS_BIT) {
        invvpid((enum invvpid_type)INVVPID_KEEP_GLOBALS, 7, 0);
        check(read_in_guest() == 101, "INVVPID of a VPID but its globals");
    }
    map(2);
    vmcs_write(VMCS_VPID, 8);
    check(read_in_guest() == 102, "VPID 8 has translations of its own");
    test_guest_invalidations("VPID 8");
    vmcs_write(VMCS_VPID, 0);
    vmcs_write(VMCS_GUEST_RIP, (uint64_t)guest_read);
    check(vm_enter() == VMX_FAIL_VALID, "VPID 0 with the control: VMfailValid");
    check_field(VMCS_VM_INSTRUCTION_ERROR, VM_ERROR_ENTRY_INVALID_CONTROL, "VM-instruction error");

    check(invvpid((enum invvpid_type)4, 1, 0) == VMX_FAIL_VALID, "INVVPID of type 4: VMfailValid");
    check_field(VMCS_VM_INSTRUCTION_ERROR, VM_ERROR_INVALIDATE_INVALID_OPERAND, "VM-instruction error");
    check(invvpid(INVVPID_SINGLE_CONTEXT, 0, 0) == VMX_FAIL_VALID, "INVVPID of VPID 0: VMfailValid");
    check(invvpid(INVVPID_INDIVIDUAL_ADDRESS, 1, UINT64_C(1) << 47) == VMX_FAIL_VALID,
          "INVVPID of a non-canonical address: VMfailValid");
    bool zero;
    struct {
        uint64_t vpid, address;
    } reserved = {UINT64_C(1) << 16 | 1, 0};
    __asm__ volatile("invvpid %1, %2"
                     : "=@ccz"(zero)
                     : "m"(reserved), "r"((uint64_t)INVVPID_SINGLE_CONTEXT)
                     : "cc", "memory");
    check(zero, "INVVPID with a reserved bit: VMfailValid");
}

static void set_ept(unsigned page, unsigned to, uint64_t rights)
{
    *vm_ept_entry(frames[page]) = frame(to) | (rights & EPT_ALL);
}

static void test_ept(void)
{
    enum { NO_RIGHTS = 0, READ_ONLY = 0x31 };
    if (!vm_allows(CONTROLS_SECONDARY, SECONDARY_ENABLE_EPT, "EPT")) {
        return;
    }
    bool vpid = vmx_controls_allow(CONTROLS_SECONDARY, SECONDARY_ENABLE_VPID);
    uint64_t eptp = vm_eptp();
    vm_create((struct vm_controls){.secondary = SECONDARY_ENABLE_EPT | (vpid ? SECONDARY_ENABLE_VPID : 0)});
    vmcs_write(VMCS_EPTP, eptp);
    vmcs_write(VMCS_VPID, 9);
    map(0);
    set_ept(0, 0, EPT_ALL);
    check(read_in_guest() == 100, "under EPT");
    set_ept(0, 1, EPT_ALL);
    invept(INVEPT_SINGLE_CONTEXT, eptp);
    check(read_in_guest() == 101, "INVEPT of one EPTP");
    set_ept(0, 2, EPT_ALL);
    invept(INVEPT_ALL_CONTEXTS, 0);
    check(read_in_guest() == 102, "INVEPT of all");
    set_ept(0, 0, NO_RIGHTS);
    invept(INVEPT_SINGLE_CONTEXT, eptp);
    vm_run(guest_read);
    check_exit_at(EXIT_EPT_VIOLATION, guest_read, "the page taken away");
    check_field(VMCS_GUEST_PHYSICAL_ADDRESS, frame(0), "guest-physical address");
    set_ept(0, 0, EPT_ALL);
    check(read_in_guest() == 100, "put back: no invalidation is needed");
    map(1);
    vm_registers.rbx = (uint64_t)window;
    invvpid(INVVPID_SINGLE_CONTEXT, 9, 0);
    check(read_in_guest() == 101, "the guest's table changed, INVVPID");
    test_guest_invalidations("EPT and VPID");

    check(invept((enum invept_type)3, eptp) == VMX_FAIL_VALID, "INVEPT of type 3: VMfailValid");
    check_field(VMCS_VM_INSTRUCTION_ERROR, VM_ERROR_INVALIDATE_INVALID_OPERAND, "VM-instruction error");
    check(invept(INVEPT_SINGLE_CONTEXT, eptp | 0x80 << 4) == VMX_FAIL_VALID, "INVEPT of an EPTP with a reserved bit");
    check(invept(INVEPT_SINGLE_CONTEXT, eptp & ~UINT64_C(0x38)) == VMX_FAIL_VALID, "INVEPT of an EPTP of one level");
    check(invept(INVEPT_ALL_CONTEXTS, eptp | 0x800) == VMX_SUCCEED, "INVEPT of all does not look at the EPTP");
    TRY("invept (%0), %1", : : "r"(UINT64_C(1) << 47), "r"(UINT64_C(1)) : "cc", "memory");
    check_trap(VECTOR_GP, 0, 0, "INVEPT with a non-canonical descriptor: #GP(0)");
}

int main(void)
{
    vm_begin("vmx-translation", "VPID, EPT and their invalidations");
    pages_init();
    for (unsigned i = 0; i < 3; i++) {
        frames[i][0] = 100 + i;
    }
    test_without_vpid();
    test_vpid();
    test_ept();
    return check_verdict("%u checks", check_count());
}
