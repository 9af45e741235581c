// Comparing the fields that checks read. SDM 3C 27.2, 27.3.1; the rows are in entry_checks.def.
//
// Left out of the comparison: the VM-exit information fields and RSP, which no check reads, and the low bits of RIP and the arithmetic
// flags, on which no check depends.
#include "vmx/entry_memo.h"

#include <string.h>

#include "cpu/cpu.h"
#include "vmx/controls.h"

// RIP checks look at bits 63:31 at the most.
#define RIP_CHECKED BITS(63, 31)

static uint64_t checked_rflags(const struct vmcs_region *vmcs)
{
    return vmcs_get(vmcs, VMCS_GUEST_RFLAGS) & ~RFLAGS_ARITHMETIC;
}

// Fields from `first` up to but without `end`.
static bool same_fields(const struct entry_memo *memo, const struct vmcs_region *vmcs, enum vmcs_field first,
                        enum vmcs_field end)
{
    return memcmp(memo->field + first, vmcs->field + first, (size_t)(end - first) * sizeof memo->field[0]) == 0;
}

// fields.def is in the order of encodings: within a width control, exit information, guest, host.
static_assert(VMCS_GUEST_RIP == VMCS_GUEST_RSP + 1 && VMCS_GUEST_RFLAGS == VMCS_GUEST_RIP + 1, "left out together");
static_assert(VMCS_GUEST_PHYSICAL_ADDRESS < VMCS_VMCS_LINK_POINTER && VMCS_VM_INSTRUCTION_ERROR < VMCS_GUEST_ES_LIMIT &&
                  VMCS_EXIT_QUALIFICATION < VMCS_GUEST_CR0,
              "the exit information of a width comes before its guest state");

bool entry_memo_knows(const struct entry_memo *memo, const struct entry_context *context)
{
    const struct vmcs_region *vmcs = context->vmcs;
    return memo->valid && memo->efer == context->efer && memo->field[VMCS_GUEST_RFLAGS] == checked_rflags(vmcs) &&
           !((memo->field[VMCS_GUEST_RIP] ^ vmcs_get(vmcs, VMCS_GUEST_RIP)) & RIP_CHECKED) &&
           same_fields(memo, vmcs, 0, VMCS_GUEST_PHYSICAL_ADDRESS) &&
           same_fields(memo, vmcs, VMCS_VMCS_LINK_POINTER, VMCS_VM_INSTRUCTION_ERROR) &&
           same_fields(memo, vmcs, VMCS_GUEST_ES_LIMIT, VMCS_EXIT_QUALIFICATION) &&
           same_fields(memo, vmcs, VMCS_GUEST_CR0, VMCS_GUEST_RSP) &&
           same_fields(memo, vmcs, VMCS_GUEST_RFLAGS + 1, VMCS_FIELD_COUNT);
}

// Checks that read memory: the TPR in the virtual-APIC page, the VMCS at the link pointer, PDPTEs.
static bool reads_memory(const struct vmcs_region *vmcs)
{
    bool pae = (vmcs_get(vmcs, VMCS_GUEST_CR0) & CR0_PG) && (vmcs_get(vmcs, VMCS_GUEST_CR4) & CR4_PAE) &&
               !(vmcs_get(vmcs, VMCS_ENTRY_CONTROLS) & ENTRY_IA32E_MODE_GUEST);
    return pae || (vmcs_get(vmcs, VMCS_PRIMARY_PROC_BASED_CONTROLS) & PRIMARY_USE_TPR_SHADOW) ||
           vmcs_get(vmcs, VMCS_VMCS_LINK_POINTER) != VMCS_NO_POINTER;
}

void entry_memo_store(struct entry_memo *memo, const struct entry_context *context)
{
    memo->valid = !reads_memory(context->vmcs);
    memo->efer = context->efer;
    memcpy(memo->field, context->vmcs->field, sizeof memo->field);
    memo->field[VMCS_GUEST_RFLAGS] = checked_rflags(context->vmcs);
}
