// EPT violations and misconfigurations as VM exits: SDM 3C 28.2.1, 29.3.3 "EPT-Induced VM Exits".
//
// The walk has made the qualification; here it meets the rules of recording: which addresses are valid, IDT vectoring, RF.
// Leaves out: #VE, page-modification logging, sub-page permissions (their controls cannot be set).
#include "vmx/transition.h"

static enum exec_result exit_violation(struct cpu *cpu, const struct event *event, const struct event *during,
                                       enum saved_rf rf)
{
    const struct mmu_fault *fault = &event->fault;
    struct vmcs_region *vmcs = cpu->vmx->current;
    uint64_t qualification = fault->qualification & BITS(11, 0);
    vmcs_put(vmcs, VMCS_GUEST_PHYSICAL_ADDRESS, fault->gpa);
    if (fault->gva_valid) // the qualification says so as well
        vmcs_put(vmcs, VMCS_GUEST_LINEAR_ADDRESS, fault->gva);
    if (cpu->nmi_unblocked_by_iret && !during)
        qualification |= EPT_QUAL_NMI_UNBLOCKED;
    const struct vm_exit exit = {
        .reason = EXIT_EPT_VIOLATION, .rf = rf, .qualification = qualification, .during = during};
    return vmx_exit(cpu, &exit);
}

static enum exec_result exit_misconfiguration(struct cpu *cpu, const struct event *event, const struct event *during,
                                              enum saved_rf rf)
{
    vmcs_put(cpu->vmx->current, VMCS_GUEST_PHYSICAL_ADDRESS, event->fault.gpa);
    const struct vm_exit exit = {.reason = EXIT_EPT_MISCONFIGURATION, .rf = rf, .during = during};
    return vmx_exit(cpu, &exit);
}

enum exec_result ept_exit(struct cpu *cpu, const struct event *event, const struct event *during)
{
    // RF is 1 unless an event was being delivered: then what would have been pushed.
    enum saved_rf rf = during ? RF_OF_EVENT : RF_SET;
    if (during && during->type == EVENT_HARDWARE_EXCEPTION && !cpu->vmx->is_injecting && during->vector != VECTOR_DB &&
        during->vector != VECTOR_DF && during->vector != VECTOR_MC)
        rf = RF_SET;
    if (event->ept_status == MMU_EPT_MISCONFIGURATION)
        return exit_misconfiguration(cpu, event, during, rf);
    return exit_violation(cpu, event, during, rf);
}
