// VMX of one vCPU: initialisation, the table that connects it to the core, capability MSRs, fixed bits of CR0 and CR4.
//
// SDM 3C 24.7, 24.8 "Restrictions on VMX Operation"; SDM 3D appendix A.
#include <string.h>

#include "vmx/transition.h"

// SDM 3C 24.8: in VMX operation; an unrestricted guest may clear PE and PG.
static bool cr0_allowed(const struct cpu *cpu, uint64_t value)
{
    const struct vmx *vmx = cpu->vmx;
    uint64_t must = vmx->caps->cr0_fixed0;
    if (cpu->non_root && (vmx->secondary & SECONDARY_UNRESTRICTED_GUEST))
        must &= ~(CR0_PE | CR0_PG);
    return !(must & ~value) && !(value & ~vmx->caps->cr0_fixed1);
}

static bool cr4_allowed(const struct cpu *cpu, uint64_t value)
{
    const struct vmx_caps *caps = cpu->vmx->caps;
    return !(caps->cr4_fixed0 & ~value) && !(value & ~caps->cr4_fixed1);
}

static bool read_msr(struct cpu *cpu, uint32_t index, uint64_t *value)
{
    const struct vmx_caps *caps = cpu->vmx->caps;
    if (index == MSR_IA32_FEATURE_CONTROL) {
        *value = cpu->feature_control;
        return true;
    }
    if (index < MSR_IA32_VMX_BASIC || index > MSR_IA32_VMX_VMFUNC || !caps->msr_present[index - MSR_IA32_VMX_BASIC])
        return false;
    *value = caps->msr[index - MSR_IA32_VMX_BASIC];
    return true;
}

// The capability MSRs are read-only. IA32_FEATURE_CONTROL can be written until its lock bit is set.
static bool write_msr(struct cpu *cpu, uint32_t index, uint64_t value)
{
    if (index != MSR_IA32_FEATURE_CONTROL || (cpu->feature_control & FEATURE_CONTROL_LOCK))
        return false;
    if (value & ~(FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMXON))
        return false;
    cpu->feature_control = value;
    return true;
}

const struct vmx_ops vmx_cpu_ops = {
    .instruction = vmx_instruction,
    .intercept = intercept_instruction,
    .exception = event_exception,
    .ept_exit = ept_exit,
    .triple_fault = event_triple_fault,
    .task_switch = event_task_switch,
    .boundary = event_boundary,
    .cr0_allowed = cr0_allowed,
    .cr4_allowed = cr4_allowed,
    .read_cr0 = intercept_read_cr0,
    .read_cr4 = intercept_read_cr4,
    .merge_cr0 = intercept_merge_cr0,
    .merge_cr4 = intercept_merge_cr4,
    .rdmsr = read_msr,
    .wrmsr = write_msr,
    .guest_tsc = intercept_guest_tsc,
};

void vmx_init(struct vmx *vmx, struct cpu *cpu, const struct vmx_caps *caps)
{
    memset(vmx, 0, sizeof *vmx);
    vmx->caps = caps;
    vmx_caps_fields(caps, &vmx->fields);
    vmx->has_rtm = cpu_has(cpu, FEATURE_RTM);
    vmx->has_sgx = cpu_has(cpu, FEATURE_SGX);
    cpu->vmx = vmx;
    cpu->vmx_ops = &vmx_cpu_ops;
    cpu->mmu.ept_caps = caps->ept;
    vmx_reset(vmx, cpu);
}

// As RESET leaves it: outside VMX operation. Statistics stay.
void vmx_reset(struct vmx *vmx, struct cpu *cpu)
{
    cpu->feature_control = vmx->caps->feature_control;
    cpu->vmx_operation = false;
    cpu->non_root = false;
    cpu->intercepts = 0;
    cpu->pending &= ~(uint32_t)PENDING_VMX;
    vmx->vmxon_pointer = VMCS_NO_POINTER;
    vmx->current_pointer = VMCS_NO_POINTER;
    vmx->current = NULL;
    vmx->shadow = NULL;
    vmx->mtf_pending = false;
    vmx->virtual_nmi_blocking = false;
    vmx->is_injecting = false;
    vmx->preemption_deadline = UINT64_MAX;
    vmx->last_failure = (struct vmx_failure){.check_id = -1};
    vmx->abort = 0;
}

void vmx_rebind(struct cpu *cpu)
{
    struct vmx *vmx = cpu->vmx;
    bool has_current = cpu->vmx_operation && vmx->current_pointer != VMCS_NO_POINTER;
    vmx->current = has_current ? vmcs_region_at(cpu->memory, vmx->current_pointer) : NULL;
    vmx->shadow = NULL;
    if (!cpu->non_root || !vmx->current)
        return;
    hpa_t link = vmcs_get(vmx->current, VMCS_VMCS_LINK_POINTER);
    if ((vmx->secondary & SECONDARY_VMCS_SHADOWING) && link != VMCS_NO_POINTER)
        vmx->shadow = vmcs_region_at(cpu->memory, link);
    intercept_update(cpu);
}
