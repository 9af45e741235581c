/*
 * Ends in a VMX abort: a VM exit whose MSR-load list has an entry that cannot be loaded (SDM 3C 28.6 "Loading MSRs",
 * abort indicator 4). A processor enters the VMX-abort shutdown state; only RESET gets it out.
 */
#include <stdint.h>

#include "end.h"
#include "serial.h"
#include "vmx.h"
#include "vmx_setup.h"

struct msr_entry {
    uint32_t index, reserved;
    uint64_t value;
};

static struct vmx_region vmxon_region __attribute__((aligned(4096)));
static struct vmx_region vmcs __attribute__((aligned(4096)));
static uint8_t guest_stack[4096] __attribute__((aligned(16)));
static struct msr_entry exit_msr_load[1]
    __attribute__((aligned(16))) = {{.index = 0xC0000100}}; /* IA32_FS_BASE is barred */

static void guest(void)
{
    __asm__ volatile("vmcall");
    for (;;) {
    }
}

int main(void)
{
    if (!vmx_is_supported() || !vmx_enable()) {
        finish(1);
    }
    vmx_region_init(&vmxon_region);
    vmx_region_init(&vmcs);
    if (vmxon((uint64_t)&vmxon_region) != VMX_SUCCEED || vmclear((uint64_t)&vmcs) != VMX_SUCCEED ||
        vmptrld((uint64_t)&vmcs) != VMX_SUCCEED) {
        finish(1);
    }
    vmcs_write(VMCS_PIN_BASED_CONTROLS, vmx_controls_value(CONTROLS_PIN, 0));
    vmcs_write(VMCS_PRIMARY_PROC_BASED_CONTROLS, vmx_controls_value(CONTROLS_PRIMARY, 0));
    vmcs_write(VMCS_PRIMARY_EXIT_CONTROLS, vmx_controls_value(CONTROLS_EXIT, EXIT_HOST_ADDRESS_SPACE_SIZE));
    vmcs_write(VMCS_ENTRY_CONTROLS, vmx_controls_value(CONTROLS_ENTRY, ENTRY_IA32E_MODE_GUEST));
    vmx_write_host_state();
    vmx_write_guest_state_64((uint64_t)guest, (uint64_t)(guest_stack + sizeof guest_stack));
    vmcs_write(VMCS_EXIT_MSR_LOAD_COUNT, 1);
    vmcs_write(VMCS_EXIT_MSR_LOAD_ADDR, (uint64_t)exit_msr_load);
    struct guest_registers registers = {0};
    vmx_enter(&registers, VMX_VMLAUNCH);
    serial_puts("vmx-abort: the VM exit returned\n");
    return 1;
}
