/*
 * VMREAD and VMWRITE: fields of each width, the two halves of 64-bit fields, memory operands, read-only and unsupported
 * fields, what VMCLEAR keeps. SDM 3C "VMREAD", "VMWRITE", "VMCLEAR"; App. B "Field Encoding in VMCS".
 */
#include "check.h"
#include "cpu.h"
#include "trap.h"
#include "vm.h"

enum {
    HIGH_HALF = 1,
    FIELD_OF_NO_VMCS = 0x3FFE,
    MISC_WRITE_ALL = 1 << 29,
};
#define PATTERN UINT64_C(0xFEDCBA9876543210)

static struct vmx_region other;

static uint64_t written_and_read(enum vmcs_field field)
{
    vmcs_write(field, PATTERN);
    return vmcs_read(field);
}

static void test_widths(void)
{
    check(written_and_read(VMCS_GUEST_ES_SELECTOR) == 0x3210, "a 16-bit field keeps 16 bits");
    check(written_and_read(VMCS_GUEST_ES_LIMIT) == 0x76543210, "a 32-bit field keeps 32 bits");
    check(written_and_read(VMCS_TSC_OFFSET) == PATTERN, "a 64-bit field keeps 64 bits");
    check(written_and_read(VMCS_GUEST_RSP) == PATTERN, "a natural-width field keeps 64 bits");

    check(vmcs_read(VMCS_TSC_OFFSET + HIGH_HALF) == PATTERN >> 32, "the high half of a 64-bit field");
    vmcs_write(VMCS_TSC_OFFSET + HIGH_HALF, UINT64_C(0x1122334455667788));
    check(vmcs_read(VMCS_TSC_OFFSET) == UINT64_C(0x5566778876543210), "written alone, it leaves the low half");
    vmcs_write(VMCS_TSC_OFFSET, 1);
    check(vmcs_read(VMCS_TSC_OFFSET + HIGH_HALF) == 0, "the full write writes both");
    vmcs_write(VMCS_TSC_OFFSET, 0);
}

static void test_operands(void)
{
    uint64_t memory[2] = {0, PATTERN};
    vmcs_write(VMCS_GUEST_ES_SELECTOR, 0x1234);
    __asm__ volatile("vmread %1, %0" : "=m"(memory[0]) : "r"((uint64_t)VMCS_GUEST_ES_SELECTOR) : "cc", "memory");
    check(memory[0] == 0x1234 && memory[1] == PATTERN, "VMREAD to memory writes 8 bytes, zero-extended");
    __asm__ volatile("vmwrite %0, %1" : : "m"(memory[1]), "r"((uint64_t)VMCS_GUEST_RSP) : "cc", "memory");
    check(vmcs_read(VMCS_GUEST_RSP) == PATTERN, "VMWRITE from memory");
    bool carry, zero;
    __asm__ volatile("stc; vmread %2, %%rax" : "=@ccc"(carry), "=@ccz"(zero) : "r"((uint64_t)VMCS_VPID) : "rax");
    check(!carry && !zero, "success clears CF and ZF");
    TRY("vmread %0, (%1)", : : "r"((uint64_t)VMCS_VPID), "r"(UINT64_C(1) << 47) : "memory", "cc");
    check_trap(VECTOR_GP, 0, 0, "VMREAD to a non-canonical address: #GP(0)");
    uint64_t value;
    check(vmread((enum vmcs_field)FIELD_OF_NO_VMCS, &value) == VMX_FAIL_VALID, "VMREAD of no field: VMfailValid");
    check_field(VMCS_VM_INSTRUCTION_ERROR, VM_ERROR_UNSUPPORTED_FIELD, "VM-instruction error");
    bool bits_63_32;
    __asm__ volatile("vmread %1, %%rax" : "=@ccz"(bits_63_32) : "r"(UINT64_C(1) << 32 | VMCS_GUEST_RSP) : "rax", "cc");
    check(bits_63_32, "VMREAD with a bit above 31 in the encoding: VMfailValid");
}

static void test_refused(void)
{
    check(vmwrite((enum vmcs_field)FIELD_OF_NO_VMCS, 0) == VMX_FAIL_VALID, "VMWRITE of no field: VMfailValid");
    check_field(VMCS_VM_INSTRUCTION_ERROR, VM_ERROR_UNSUPPORTED_FIELD, "VM-instruction error");
    if (!(rdmsr(MSR_IA32_VMX_MISC) & MISC_WRITE_ALL)) {
        check(vmwrite(VMCS_EXIT_REASON, 0) == VMX_FAIL_VALID, "VMWRITE of a read-only field: VMfailValid");
        check_field(VMCS_VM_INSTRUCTION_ERROR, VM_ERROR_READ_ONLY_FIELD, "VM-instruction error");
    } else {
        vmcs_write(VMCS_EXIT_REASON, 5);
        check_field(VMCS_EXIT_REASON, 5, "IA32_VMX_MISC[29]: exit-information fields can be written");
    }
    uint64_t highest = rdmsr(MSR_IA32_VMX_VMCS_ENUM) >> 1 & 0x1FF;
    check(highest >= 0x16, "IA32_VMX_VMCS_ENUM: the highest index is at least that of guest_rip's group");

    uint64_t value;
    check(vmclear(vmptrst()) == VMX_SUCCEED && vmptrst() == UINT64_MAX, "VMCLEAR of the current VMCS: none is current");
    check(vmread(VMCS_GUEST_RSP, &value) == VMX_FAIL_INVALID, "VMREAD without a current VMCS: VMfailInvalid");
    check(vmwrite(VMCS_GUEST_RSP, 0) == VMX_FAIL_INVALID, "VMWRITE too");
}

static void test_two(void)
{
    vm_create((struct vm_controls){0});
    uint64_t first = vmptrst();
    vmcs_write(VMCS_GUEST_RSP, 1);
    vmx_region_init(&other);
    require_quietly(vmclear((uint64_t)&other) == VMX_SUCCEED && vmptrld((uint64_t)&other) == VMX_SUCCEED,
                    "a second VMCS");
    vmcs_write(VMCS_GUEST_RSP, 2);
    vmptrld(first);
    check_field(VMCS_GUEST_RSP, 1, "each VMCS keeps its own: the first");
    vmptrld((uint64_t)&other);
    check_field(VMCS_GUEST_RSP, 2, "and the second");
    vmclear((uint64_t)&other);
    vmptrld((uint64_t)&other);
    check_field(VMCS_GUEST_RSP, 2, "VMCLEAR keeps what was written");
    uint64_t pointer = 0;
    __asm__ volatile("vmptrst %0" : "=m"(pointer) : : "cc");
    check(pointer == (uint64_t)&other, "VMPTRST");
    check(vmptrld(first + 8) == VMX_FAIL_VALID, "VMPTRLD of an unaligned address: VMfailValid");
    check_field(VMCS_VM_INSTRUCTION_ERROR, VM_ERROR_VMPTRLD_INVALID_ADDRESS, "VM-instruction error");
    check(vmptrst() == (uint64_t)&other, "the current VMCS stays");
    other.revision ^= 1;
    vmptrld(first);
    check(vmptrld((uint64_t)&other) == VMX_FAIL_VALID, "VMPTRLD of another revision: VMfailValid");
    check_field(VMCS_VM_INSTRUCTION_ERROR, VM_ERROR_VMPTRLD_WRONG_REVISION, "VM-instruction error");
}

int main(void)
{
    vm_begin("vmx-fields", "VMREAD, VMWRITE and the current VMCS");
    vm_create((struct vm_controls){0});
    test_widths();
    test_operands();
    test_refused();
    test_two();
    return check_verdict("%u checks", check_count());
}
