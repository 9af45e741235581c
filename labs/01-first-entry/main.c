/*
 * Lab 01, first entry: from a processor outside VMX operation to a guest whose every sensitive instruction we emulate,
 * and back. README.md tells what to look at; guest.S is the guest, exits.c handles its VM exits.
 *
 * What is printed is the same on every processor with VMX: no addresses, no model, no time.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "check.h"
#include "cpu.h"
#include "exits.h"
#include "guest.h"
#include "idt.h"
#include "multiboot.h"
#include "serial.h"
#include "vmx.h"
#include "vmx_setup.h"

enum { GUEST_STACK_BYTES = 4096 };

static struct vmx_region vmxon_region;
static struct vmx_region vmcs;
static struct vmx_region foreign_vmcs; /* with a revision identifier that is not this processor's */
static uint8_t guest_stack[GUEST_STACK_BYTES] __attribute__((aligned(16)));

/* Linear address = physical address, see boot.h. */
static uint64_t physical_address(const void *object) { return (uint64_t)object; }

static void check_fails_invalid(enum vmx_result result, const char *what)
{
    check(result == VMX_FAIL_INVALID, "%s: VMfailInvalid", what);
}

static void check_fails_valid(enum vmx_result result, enum vm_instruction_error error, const char *what)
{
    uint64_t reported = 0;
    if (!check_quietly(result == VMX_FAIL_VALID, "%s: VMfailValid", what)) {
        return;
    }
    vmread(VMCS_VM_INSTRUCTION_ERROR, &reported);
    check(reported == error, "%s: VMfailValid, VM-instruction error %lu", what, reported);
}

static void enter_vmx_operation(void)
{
    serial_puts("1. Enter VMX operation\n");
    require(vmx_is_supported(), "CPUID.1:ECX.VMX is 1");
    require(vmx_enable(), "IA32_FEATURE_CONTROL is locked and permits VMXON; CR4.VMXE is 1");

    vmx_region_init(&vmxon_region);
    require(vmxon(physical_address(&vmxon_region)) == VMX_SUCCEED, "VMXON succeeds");
    check(vmptrst() == UINT64_MAX, "VMPTRST: there is no current VMCS");
    check_fails_invalid(vmxon(physical_address(&vmxon_region)), "VMXON again");
    uint64_t value;
    check_fails_invalid(vmread(VMCS_GUEST_RIP, &value), "VMREAD without a current VMCS");
}

static void make_vmcs_current(void)
{
    serial_puts("2. Make a VMCS current\n");
    vmx_region_init(&vmcs);
    require(vmclear(physical_address(&vmcs)) == VMX_SUCCEED, "VMCLEAR succeeds: the launch state is clear");
    require(vmptrld(physical_address(&vmcs)) == VMX_SUCCEED, "VMPTRLD succeeds");
    check(vmptrst() == physical_address(&vmcs), "VMPTRST: it is the current VMCS");
}

static void provoke_instruction_errors(void)
{
    serial_puts("3. Errors that a current VMCS reports by number\n");
    uint64_t vmxon_pointer = physical_address(&vmxon_region);
    vmx_region_init(&foreign_vmcs);
    foreign_vmcs.revision ^= 1;
    uint64_t value;

    check_fails_valid(vmclear(physical_address(&vmcs) + 1), VM_ERROR_VMCLEAR_INVALID_ADDRESS,
                      "VMCLEAR of an address that is not 4-KiB aligned");
    check_fails_valid(vmclear(vmxon_pointer), VM_ERROR_VMCLEAR_VMXON_POINTER, "VMCLEAR of the VMXON pointer");
    check_fails_valid(vmptrld(physical_address(&vmcs) + 1), VM_ERROR_VMPTRLD_INVALID_ADDRESS,
                      "VMPTRLD of an address that is not 4-KiB aligned");
    check_fails_valid(vmptrld(vmxon_pointer), VM_ERROR_VMPTRLD_VMXON_POINTER, "VMPTRLD of the VMXON pointer");
    check_fails_valid(vmptrld(physical_address(&foreign_vmcs)), VM_ERROR_VMPTRLD_WRONG_REVISION,
                      "VMPTRLD of a region with another revision identifier");
    check(vmptrst() == physical_address(&vmcs), "VMPTRST: the VMCS is still the current one");
    check_fails_valid(vmread((enum vmcs_field)UINT32_MAX, &value), VM_ERROR_UNSUPPORTED_FIELD,
                      "VMREAD of a field that does not exist");
    check_fails_valid(vmwrite((enum vmcs_field)UINT32_MAX, 0), VM_ERROR_UNSUPPORTED_FIELD,
                      "VMWRITE of a field that does not exist");
    check_fails_valid(vmxon(vmxon_pointer), VM_ERROR_VMXON_IN_ROOT, "VMXON in VMX root operation");
}

static void write_controls(void)
{
    vmcs_write(VMCS_PIN_BASED_CONTROLS, vmx_controls_value(CONTROLS_PIN, 0));
    vmcs_write(VMCS_PRIMARY_PROC_BASED_CONTROLS,
               vmx_controls_value(CONTROLS_PRIMARY, PRIMARY_HLT_EXITING | PRIMARY_CR3_LOAD_EXITING |
                                                        PRIMARY_CR3_STORE_EXITING | PRIMARY_UNCONDITIONAL_IO_EXITING));
    vmcs_write(VMCS_PRIMARY_EXIT_CONTROLS, vmx_controls_value(CONTROLS_EXIT, EXIT_HOST_ADDRESS_SPACE_SIZE));
    vmcs_write(VMCS_ENTRY_CONTROLS, vmx_controls_value(CONTROLS_ENTRY, ENTRY_IA32E_MODE_GUEST));
}

static void fill_vmcs(void)
{
    serial_puts("4. Fill the VMCS\n");
    write_controls();
    vmx_write_host_state();
    vmx_write_guest_state_64((uint64_t)guest_start, (uint64_t)(guest_stack + sizeof guest_stack));

    /* CR0.TS and CR4.VMXE are ours. The guest finds both 0. */
    vmcs_write(VMCS_CR0_GUEST_HOST_MASK, CR0_TS);
    vmcs_write(VMCS_CR0_READ_SHADOW, read_cr0() & ~CR0_TS);
    vmcs_write(VMCS_CR4_GUEST_HOST_MASK, CR4_VMXE);
    vmcs_write(VMCS_CR4_READ_SHADOW, read_cr4() & ~CR4_VMXE);
    check(true, "controls, host state and guest state are written");
}

/* Tries VMLAUNCH with one field spoilt, and repairs the field. */
static enum vmx_result launch_with(enum vmcs_field field, uint64_t bad_value)
{
    struct guest_registers registers = {0};
    uint64_t good_value = vmcs_read(field);
    vmcs_write(field, bad_value);
    enum vmx_result result = vmx_enter(&registers, VMX_VMLAUNCH);
    vmcs_write(field, good_value);
    return result;
}

/* A VM entry that fails on guest state ends as a VM exit, with bit 31 of the exit reason set. */
static void check_entry_failure(enum vmx_result result, uint64_t qualification, const char *what)
{
    if (!check_quietly(result == VMX_SUCCEED, "%s: VMLAUNCH loads host state, as a VM exit does", what)) {
        return;
    }
    uint32_t reason = (uint32_t)vmcs_read(VMCS_EXIT_REASON);
    uint64_t reported = vmcs_read(VMCS_EXIT_QUALIFICATION);
    check(reason == (EXIT_REASON_ENTRY_FAILURE | EXIT_ENTRY_FAIL_GUEST_STATE) && reported == qualification,
          "%s: exit reason 0x%x, qualification %lu", what, reason, reported);
}

static void provoke_entry_failures(void)
{
    serial_puts("5. VM entries that fail\n");
    struct guest_registers registers = {0};
    check_fails_valid(vmx_enter(&registers, VMX_VMRESUME), VM_ERROR_VMRESUME_NOT_LAUNCHED, "VMRESUME before VMLAUNCH");
    check_fails_valid(launch_with(VMCS_CR3_TARGET_COUNT, 0xFFFF), VM_ERROR_ENTRY_INVALID_CONTROL,
                      "VMLAUNCH with 65535 CR3 targets");
    check_fails_valid(launch_with(VMCS_HOST_CS_SELECTOR, 0), VM_ERROR_ENTRY_INVALID_HOST_STATE,
                      "VMLAUNCH with a null selector for the host's CS");
    check_entry_failure(launch_with(VMCS_GUEST_RFLAGS, 0), 0, "VMLAUNCH with bit 1 of the guest's RFLAGS 0");
    check_entry_failure(launch_with(VMCS_LINK_POINTER, 1), 4, "VMLAUNCH with an unaligned VMCS link pointer");
    check_fails_valid(vmx_enter(&registers, VMX_VMRESUME), VM_ERROR_VMRESUME_NOT_LAUNCHED,
                      "VMRESUME: a failed VMLAUNCH leaves the launch state clear");
}

/* Returns the number of VM exits. */
static unsigned run_guest(void)
{
    serial_puts("6. Run the guest\n");
    static struct virtual_machine machine;
    enum vmx_entry_instruction instruction = VMX_VMLAUNCH;

    while (!machine.done) {
        enum vmx_result result = vmx_enter(&machine.registers, instruction);
        require_quietly(result == VMX_SUCCEED, "VM entry after %u exits", machine.exits);
        instruction = VMX_VMRESUME;
        exits_handle(&machine);
    }

    check(machine.exits == exits_expected(), "the guest made %u exits, and no other", exits_expected());
    check(machine.complaints == 0, "the guest has no complaint about what it saw");
    check_fails_valid(vmx_enter(&machine.registers, VMX_VMLAUNCH), VM_ERROR_VMLAUNCH_NOT_CLEAR,
                      "VMLAUNCH of a VMCS already launched");
    return machine.exits;
}

enum { VMXOFF_BYTES = 3 };

static unsigned invalid_opcodes;

static void skip_vmxoff(struct interrupt_frame *frame)
{
    invalid_opcodes++;
    frame->rip += VMXOFF_BYTES;
}

static void leave_vmx_operation(void)
{
    serial_puts("7. Leave VMX operation\n");
    check(vmclear(physical_address(&vmcs)) == VMX_SUCCEED, "VMCLEAR writes the VMCS back to memory");
    check(vmptrst() == UINT64_MAX, "VMPTRST: there is no current VMCS");
    check(vmxoff() == VMX_SUCCEED, "VMXOFF succeeds");

    idt_set_handler(VECTOR_UD, skip_vmxoff);
    vmxoff();
    idt_set_handler(VECTOR_UD, NULL);
    check(invalid_opcodes == 1, "VMXOFF again: invalid-opcode exception");

    write_cr4(read_cr4() & ~CR4_VMXE);
    check((read_cr4() & CR4_VMXE) == 0, "CR4.VMXE can be cleared");
}

int main(const struct multiboot_info *mbi)
{
    (void)mbi;
    check_begin("lab 01", "first entry");
    enter_vmx_operation();
    make_vmcs_current();
    provoke_instruction_errors();
    fill_vmcs();
    provoke_entry_failures();
    unsigned exits = run_guest();
    leave_vmx_operation();
    return check_verdict("%u exits", exits);
}
