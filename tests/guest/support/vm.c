/* See vm.h. */
#include "vm.h"

#include "check.h"
#include "cpu.h"
#include "trap.h"

enum { EPT_SMALL_TABLES = 4 };

struct guest_registers vm_registers;
uint8_t vm_stack[8192] __attribute__((aligned(16)));

static struct vmx_region vmxon_region, vmcs;
static bool launched;
static uint64_t ept_pml4[512] __attribute__((aligned(4096)));
static uint64_t ept_pdpt[512] __attribute__((aligned(4096)));
static uint64_t ept_directories[4][512] __attribute__((aligned(4096)));
static uint64_t ept_tables[EPT_SMALL_TABLES][512] __attribute__((aligned(4096)));

void vm_begin(const char *name, const char *title)
{
    check_begin(name, title);
    trap_init();
    require_quietly(vmx_is_supported() && vmx_enable(), "the processor has VMX");
    vmx_region_init(&vmxon_region);
    require_quietly(vmxon((uint64_t)&vmxon_region) == VMX_SUCCEED, "VMXON succeeds");
}

void vm_set_controls(struct vm_controls controls)
{
    uint32_t primary = controls.primary | (controls.secondary ? PRIMARY_ACTIVATE_SECONDARY_CONTROLS : 0);
    vmcs_write(VMCS_PIN_BASED_CONTROLS, vmx_controls_value(CONTROLS_PIN, controls.pin));
    vmcs_write(VMCS_PRIMARY_PROC_BASED_CONTROLS, vmx_controls_value(CONTROLS_PRIMARY, primary));
    if (controls.secondary) {
        vmcs_write(VMCS_SECONDARY_PROC_BASED_CONTROLS, vmx_controls_value(CONTROLS_SECONDARY, controls.secondary));
    }
    vmcs_write(VMCS_PRIMARY_EXIT_CONTROLS,
               vmx_controls_value(CONTROLS_EXIT, controls.exit | EXIT_HOST_ADDRESS_SPACE_SIZE | EXIT_LOAD_IA32_EFER |
                                                     EXIT_SAVE_IA32_EFER | EXIT_SAVE_DEBUG_CONTROLS));
    vmcs_write(VMCS_ENTRY_CONTROLS,
               vmx_controls_value(CONTROLS_ENTRY, controls.entry | ENTRY_IA32E_MODE_GUEST | ENTRY_LOAD_IA32_EFER |
                                                      ENTRY_LOAD_DEBUG_CONTROLS));
}

void vm_create(struct vm_controls controls)
{
    vmx_region_init(&vmcs);
    require_quietly(vmclear((uint64_t)&vmcs) == VMX_SUCCEED && vmptrld((uint64_t)&vmcs) == VMX_SUCCEED,
                    "VMCLEAR and VMPTRLD succeed");
    launched = false;
    vm_set_controls(controls);
    vmx_write_host_state();
    vmx_write_guest_state_64(0, 0);
    vmcs_write(VMCS_HOST_IA32_EFER, rdmsr(MSR_IA32_EFER));
    vmcs_write(VMCS_GUEST_IA32_EFER, rdmsr(MSR_IA32_EFER));
}

enum vmx_result vm_enter(void)
{
    enum vmx_result result = vmx_enter(&vm_registers, launched ? VMX_VMRESUME : VMX_VMLAUNCH);
    if (result == VMX_SUCCEED && !(vmcs_read(VMCS_EXIT_REASON) & EXIT_REASON_ENTRY_FAILURE)) {
        launched = true;
    }
    return result;
}

uint32_t vm_resume(void)
{
    enum vmx_result result = vm_enter();
    if (result != VMX_SUCCEED) {
        require(false, "the VM entry succeeds: VM-instruction error %lu",
                result == VMX_FAIL_VALID ? vmcs_read(VMCS_VM_INSTRUCTION_ERROR) : 0);
    }
    return (uint32_t)vmcs_read(VMCS_EXIT_REASON);
}

uint32_t vm_run(const void *code) { return vm_run_with(code, RFLAGS_FIXED); }

uint32_t vm_run_with(const void *code, uint64_t rflags)
{
    vmcs_write(VMCS_GUEST_RIP, (uint64_t)code);
    vmcs_write(VMCS_GUEST_RSP, (uint64_t)(vm_stack + sizeof vm_stack));
    vmcs_write(VMCS_GUEST_RFLAGS, rflags);
    vmcs_write(VMCS_GUEST_INTERRUPTIBILITY_STATE, 0);
    vmcs_write(VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_ACTIVE);
    vmcs_write(VMCS_GUEST_PENDING_DEBUG_EXCEPTIONS, 0);
    return vm_resume();
}

uint32_t vm_skip(void)
{
    vmcs_write(VMCS_GUEST_RIP, vmcs_read(VMCS_GUEST_RIP) + vmcs_read(VMCS_EXIT_INSTRUCTION_LENGTH));
    return vm_resume();
}

static void note_exit(void)
{
    note("exit reason 0x%lx, qualification 0x%lx, interruption 0x%lx, RIP 0x%lx", vmcs_read(VMCS_EXIT_REASON),
         vmcs_read(VMCS_EXIT_QUALIFICATION), vmcs_read(VMCS_EXIT_INTERRUPTION_INFO), vmcs_read(VMCS_GUEST_RIP));
}

void check_exit(uint32_t reason, const char *what)
{
    if (!check((uint32_t)vmcs_read(VMCS_EXIT_REASON) == reason, "%s: exit %u", what, reason & 0xFFFF)) {
        note_exit();
    }
}

void check_exit_at(uint32_t reason, const void *rip, const char *what)
{
    if (!check((uint32_t)vmcs_read(VMCS_EXIT_REASON) == reason && vmcs_read(VMCS_GUEST_RIP) == (uint64_t)rip,
               "%s: exit %u", what, reason & 0xFFFF)) {
        note_exit();
        note("want reason %u, RIP 0x%lx", reason, (uint64_t)rip);
    }
}

void check_field(enum vmcs_field field, uint64_t expected, const char *what)
{
    uint64_t value = vmcs_read(field);
    if (!check(value == expected, "%s: 0x%lx", what, expected)) {
        note("it is 0x%lx", value);
    }
}

bool vm_allows(enum control_field field, uint32_t controls, const char *what)
{
    bool allowed = vmx_controls_allow(field, controls);
    if (!allowed) {
        note("left out: %s, which this processor does not have", what);
    }
    return allowed;
}

uint64_t vm_eptp(void)
{
    for (uint64_t i = 0; i < 4; i++) {
        for (uint64_t j = 0; j < 512; j++) {
            ept_directories[i][j] = (i << 30 | j << 21) | EPT_ALL | 1 << 7;
        }
        ept_pdpt[i] = (uint64_t)ept_directories[i] | 7;
    }
    for (uint64_t i = 0; i < EPT_SMALL_TABLES; i++) {
        for (uint64_t j = 0; j < 512; j++) {
            ept_tables[i][j] = (i << 21 | j << 12) | EPT_ALL;
        }
        ept_directories[0][i] = (uint64_t)ept_tables[i] | 7;
    }
    ept_pml4[0] = (uint64_t)ept_pdpt | 7;
    return (uint64_t)ept_pml4 | 3 << 3 | 6;
}

volatile uint64_t *vm_ept_entry(const volatile void *address)
{
    uint64_t page = (uint64_t)address >> 12;
    return &ept_tables[page >> 9][page & 511];
}
