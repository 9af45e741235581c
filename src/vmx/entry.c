// VM entries: SDM 3C ch. 27 "VM Entries".
//
// In the SDM's order: basic checks (27.1), checks on controls and host state (27.2), checks on guest state (27.3.1), loading guest
// state (27.3.2), loading MSRs (27.4), the launch state, event injection (27.6). What follows the entry (27.7) is decided at the
// first instruction boundary, by events.c. Straight code over the region's fields: this is the hot path of a hypervisor.
// Leaves out: entries to SMM, CET, PKRS, MPX, PT, LBR state (their controls cannot be set).
#include "vmx/entry_checks.h"
#include "vmx/transition.h"

#define CR0_ENTRY_UNCHANGED   (CR0_ET | CR0_NW | CR0_CD | BITS(15, 6) | BIT(17) | BITS(28, 19))
#define DR7_ENTRY_CLEAR       (BIT(12) | BITS(15, 14))
#define DR7_ENTRY_SET         BIT(10)
#define PENDING_DEBUG_DEFINED (BITS(3, 0) | PENDING_DEBUG_ENABLED | PENDING_DEBUG_BS | BIT(16))

// --- Checks -------------------------------------------------------------------------------------------------------

// The basic checks from the current VMCS on (27.1). EXEC_NEXT: they hold; else the instruction has ended.
static enum exec_result check_basics(struct cpu *cpu, const struct insn *in, bool launch)
{
    struct vmx *vmx = cpu->vmx;
    if (!vmx->current || (vmx->current->revision & VMCS_SHADOW_INDICATOR))
        return vmx_fail_invalid(cpu, in);
    if (cpu->interruptibility & BLOCKING_MOV_SS)
        return vmx_fail_valid(cpu, in, ERROR_EVENTS_BLOCKED_BY_MOV_SS);
    if (launch && vmx->current->launch_state != LAUNCH_STATE_CLEAR)
        return vmx_fail_valid(cpu, in, ERROR_VMLAUNCH_NOT_CLEAR);
    if (!launch && vmx->current->launch_state != LAUNCH_STATE_LAUNCHED)
        return vmx_fail_valid(cpu, in, ERROR_VMRESUME_NOT_LAUNCHED);
    return EXEC_NEXT;
}

static struct entry_context make_context(const struct cpu *cpu)
{
    const struct vmx *vmx = cpu->vmx;
    return (struct entry_context){
        .caps = vmx->caps,
        .vmcs = vmx->current,
        .current_pointer = vmx->current_pointer,
        .memory = cpu->memory,
        .efer = cpu->efer,
        .rtm = vmx->has_rtm,
        .sgx = vmx->has_sgx,
    };
}

// --- Loading guest state (27.3.2) ---------------------------------------------------------------------------------

// The controls in effect, as the checks have accepted them.
static void load_controls(struct vmx *vmx, const struct vmcs_region *vmcs)
{
    vmx->pin = (uint32_t)vmcs_get(vmcs, VMCS_PIN_BASED_CONTROLS);
    vmx->primary = (uint32_t)vmcs_get(vmcs, VMCS_PRIMARY_PROC_BASED_CONTROLS);
    bool has_secondary = (vmx->primary & PRIMARY_ACTIVATE_SECONDARY_CONTROLS) != 0;
    vmx->secondary = has_secondary ? (uint32_t)vmcs_get(vmcs, VMCS_SECONDARY_PROC_BASED_CONTROLS) : 0;
    vmx->exit_controls = (uint32_t)vmcs_get(vmcs, VMCS_PRIMARY_EXIT_CONTROLS);
    vmx->entry_controls = (uint32_t)vmcs_get(vmcs, VMCS_ENTRY_CONTROLS);
    vmx->exception_bitmap = (uint32_t)vmcs_get(vmcs, VMCS_EXCEPTION_BITMAP);
    vmx->cr0_mask = vmcs_get(vmcs, VMCS_CR0_GUEST_HOST_MASK);
    vmx->cr0_shadow = vmcs_get(vmcs, VMCS_CR0_READ_SHADOW);
    vmx->cr4_mask = vmcs_get(vmcs, VMCS_CR4_GUEST_HOST_MASK);
    vmx->cr4_shadow = vmcs_get(vmcs, VMCS_CR4_READ_SHADOW);
    vmx->tsc_offset = vmx->primary & PRIMARY_USE_TSC_OFFSETTING ? vmcs_get(vmcs, VMCS_TSC_OFFSET) : 0;
}

static void load_control_registers_and_msrs(struct cpu *cpu, const struct vmcs_region *vmcs)
{
    uint32_t controls = cpu->vmx->entry_controls;
    uint64_t cr0 = (cpu->cr0 & CR0_ENTRY_UNCHANGED) | (vmcs_get(vmcs, VMCS_GUEST_CR0) & ~CR0_ENTRY_UNCHANGED);
    uint64_t efer = cpu->efer;
    if (controls & ENTRY_LOAD_IA32_EFER) {
        efer = vmcs_get(vmcs, VMCS_GUEST_IA32_EFER);
    } else {
        uint64_t follows = cr0 & CR0_PG ? EFER_LMA | EFER_LME : EFER_LMA;
        efer = controls & ENTRY_IA32E_MODE_GUEST ? efer | follows : efer & ~follows;
    }
    cpu_load_control_registers(cpu, cr0, vmcs_get(vmcs, VMCS_GUEST_CR3), vmcs_get(vmcs, VMCS_GUEST_CR4), efer);

    cpu->sysenter_cs = (uint32_t)vmcs_get(vmcs, VMCS_GUEST_IA32_SYSENTER_CS);
    cpu->sysenter_esp = vmcs_get(vmcs, VMCS_GUEST_IA32_SYSENTER_ESP);
    cpu->sysenter_eip = vmcs_get(vmcs, VMCS_GUEST_IA32_SYSENTER_EIP);
    if (controls & ENTRY_LOAD_DEBUG_CONTROLS) {
        uint64_t dr7 = (vmcs_get(vmcs, VMCS_GUEST_DR7) & ~DR7_ENTRY_CLEAR) | DR7_ENTRY_SET;
        if (dr7 != cpu->dr7)
            cpu_write_dr7(cpu, dr7);
        cpu->debugctl = vmcs_get(vmcs, VMCS_GUEST_IA32_DEBUGCTL);
    }
    if (controls & ENTRY_LOAD_IA32_PAT)
        cpu->pat = vmcs_get(vmcs, VMCS_GUEST_IA32_PAT);
    if (controls & ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL)
        cpu->perf_global_ctrl = vmcs_get(vmcs, VMCS_GUEST_IA32_PERF_GLOBAL_CTRL);
}

static inline void load_segment(struct segment *segment, const struct vmcs_region *vmcs, enum vmcs_field selector,
                                enum vmcs_field base, enum vmcs_field limit, enum vmcs_field access_rights)
{
    segment->selector = (uint16_t)vmcs_get(vmcs, selector);
    segment->base = vmcs_get(vmcs, base);
    segment->limit = (uint32_t)vmcs_get(vmcs, limit);
    segment->access_rights = (uint32_t)vmcs_get(vmcs, access_rights) & (uint32_t)(BITS(16, 12) | BITS(7, 0));
}

static void load_segments(struct cpu *cpu, const struct vmcs_region *vmcs)
{
#define LOAD_SEGMENT(name)                                                                                 \
    load_segment(&cpu->segments[SEG_##name], vmcs, VMCS_GUEST_##name##_SELECTOR, VMCS_GUEST_##name##_BASE, \
                 VMCS_GUEST_##name##_LIMIT, VMCS_GUEST_##name##_ACCESS_RIGHTS)
    LOAD_SEGMENT(ES);
    LOAD_SEGMENT(CS);
    LOAD_SEGMENT(SS);
    LOAD_SEGMENT(DS);
    LOAD_SEGMENT(FS);
    LOAD_SEGMENT(GS);
    LOAD_SEGMENT(LDTR);
    LOAD_SEGMENT(TR);
#undef LOAD_SEGMENT
    // Of an unusable ES, SS or DS the base is loaded with bits 63:32 cleared; SS.B is then 1. CS is used even if marked unusable.
    cpu->segments[SEG_ES].base &= UINT32_MAX;
    cpu->segments[SEG_SS].base &= UINT32_MAX;
    cpu->segments[SEG_DS].base &= UINT32_MAX;
    if (cpu->segments[SEG_SS].access_rights & SEGMENT_UNUSABLE)
        cpu->segments[SEG_SS].access_rights |= (uint32_t)SEGMENT_DB;
    cpu->segments[SEG_CS].access_rights &= (uint32_t)~SEGMENT_UNUSABLE;
    cpu->gdtr.base = vmcs_get(vmcs, VMCS_GUEST_GDTR_BASE);
    cpu->gdtr.limit = (uint16_t)vmcs_get(vmcs, VMCS_GUEST_GDTR_LIMIT);
    cpu->idtr.base = vmcs_get(vmcs, VMCS_GUEST_IDTR_BASE);
    cpu->idtr.limit = (uint16_t)vmcs_get(vmcs, VMCS_GUEST_IDTR_LIMIT);
}

// The PDPTE registers of a PAE guest: from the fields with EPT, else from memory. False: a reserved bit is set.
static bool load_pdptes(struct cpu *cpu, const struct vmcs_region *vmcs)
{
    if (likely(!mmu_is_pae(cpu->cr0, cpu->cr4, cpu->efer)))
        return true;
    uint64_t pdpte[4];
    if (is_effective_ept(cpu->vmx)) {
        for (unsigned i = 0; i < 4; i++)
            pdpte[i] = vmcs->field[VMCS_GUEST_PDPTE0 + i];
    } else {
        struct mmu_fault fault;
        if (mmu_read_pdptes(&cpu->mmu, cpu->cr3, pdpte, &fault) != MMU_OK)
            return false;
    }
    mmu_set_pdptes(&cpu->mmu, pdpte);
    return true;
}

// Interruptibility, activity (27.3.2.5), and MONITOR, which VM entry clears.
static void load_non_register_state(struct cpu *cpu, const struct vmcs_region *vmcs)
{
    struct vmx *vmx = cpu->vmx;
    uint32_t interruptibility = (uint32_t)vmcs_get(vmcs, VMCS_GUEST_INTERRUPTIBILITY_STATE);
    vmx->virtual_nmi_blocking = false;
    if (vmx->pin & PIN_VIRTUAL_NMIS) {
        vmx->virtual_nmi_blocking = (interruptibility & BLOCKING_NMI) != 0;
        interruptibility &= (uint32_t)~BLOCKING_NMI;
    }
    cpu->interruptibility = interruptibility & (uint32_t)(BLOCKING_STI | BLOCKING_MOV_SS | BLOCKING_NMI);
    cpu->pending &= ~(uint32_t)(PENDING_INHIBIT | PENDING_DEBUG | PENDING_SINGLE_STEP);
    if ((interruptibility & (BLOCKING_STI | BLOCKING_MOV_SS)) || (cpu->rflags_system & RFLAGS_RF))
        cpu->pending |= PENDING_INHIBIT;
    cpu->pending_debug = 0;
    cpu->activity = (enum activity_state)vmcs_get(vmcs, VMCS_GUEST_ACTIVITY_STATE);
    cpu->repeating = cpu->monitor_armed = cpu->mwait = cpu->mwait_unmasked = false;
}

static void load_guest_state(struct cpu *cpu, const struct vmcs_region *vmcs)
{
    struct vmx *vmx = cpu->vmx;
    cpu->non_root = true;
    mmu_set_vm(&cpu->mmu, is_effective_vpid(vmx) ? (uint16_t)vmcs_get(vmcs, VMCS_VPID) : 0, is_effective_ept(vmx),
               vmcs_get(vmcs, VMCS_EPTP));
    if (!is_effective_vpid(vmx))
        mmu_invalidate_vpid(&cpu->mmu, 0, false);
    load_control_registers_and_msrs(cpu, vmcs);
    load_segments(cpu, vmcs);
    cpu->regs[REG_RIP] = vmcs_get(vmcs, VMCS_GUEST_RIP);
    cpu->regs[REG_RSP] = vmcs_get(vmcs, VMCS_GUEST_RSP);
    uint64_t rflags = vmcs_get(vmcs, VMCS_GUEST_RFLAGS);
    cpu->rflags_system = (uint32_t)(rflags & ~RFLAGS_ARITHMETIC);
    flags_set_arithmetic(cpu, rflags);
    load_non_register_state(cpu, vmcs);
    cpu_update_mode(cpu);
}

// The shadow VMCS that the link pointer names, once the entry is certain.
static void bind_shadow(struct cpu *cpu, const struct vmcs_region *vmcs)
{
    struct vmx *vmx = cpu->vmx;
    hpa_t link = vmcs_get(vmcs, VMCS_VMCS_LINK_POINTER);
    bool shadowing = (vmx->secondary & SECONDARY_VMCS_SHADOWING) && link != VMCS_NO_POINTER;
    vmx->shadow = shadowing ? vmcs_region_at(cpu->memory, link) : NULL;
}

// --- After loading ------------------------------------------------------------------------------------------------

// Pending debug exceptions that the entry establishes (27.7.3). Called after a vectoring injection was delivered.
static void load_pending_debug(struct cpu *cpu, const struct vmcs_region *vmcs, uint32_t info)
{
    uint64_t pending = vmcs_get(vmcs, VMCS_GUEST_PENDING_DEBUG_EXCEPTIONS) & PENDING_DEBUG_DEFINED;
    if (likely(!(pending & (PENDING_DEBUG_ENABLED | PENDING_DEBUG_BS))))
        return;
    unsigned type = (unsigned)bits_get(info, 10, 8);
    bool injecting = (info & INTERRUPTION_VALID) && type != EVENT_OTHER;
    if (injecting) {
        bool software = type == EVENT_SOFTWARE_INTERRUPT || type == EVENT_SOFTWARE_EXCEPTION;
        if (!software || !(vmcs_get(vmcs, VMCS_GUEST_INTERRUPTIBILITY_STATE) & BLOCKING_MOV_SS))
            return;
    } else if (cpu->activity == ACTIVITY_SHUTDOWN || cpu->activity == ACTIVITY_WAIT_FOR_SIPI) {
        return;
    }
    cpu->pending_debug = pending;
    cpu->pending |= PENDING_DEBUG;
}

// What is in the VM-entry interruption-information field, and the state of the guest at its first instruction boundary.
static enum exec_result start_guest(struct cpu *cpu, const struct vmcs_region *vmcs)
{
    struct vmx *vmx = cpu->vmx;
    uint32_t info = (uint32_t)vmcs_get(vmcs, VMCS_ENTRY_INTERRUPTION_INFO);
    vmx->mtf_pending = false;
    vmx->pause_loop = false;
    vmx->preemption_deadline = UINT64_MAX;
    if (vmx->pin & PIN_ACTIVATE_PREEMPTION_TIMER)
        preemption_timer_start(cpu, (uint32_t)vmcs_get(vmcs, VMCS_PREEMPTION_TIMER_VALUE));

    enum exec_result result = EXEC_VMEXIT;
    if (unlikely(info & INTERRUPTION_VALID)) {
        result = event_inject(cpu, info);
        if (!cpu->non_root || result != EXEC_VMEXIT)
            return result;
    }
    load_pending_debug(cpu, vmcs, info);
    event_arm(cpu);
    if (cpu->activity == ACTIVITY_ACTIVE)
        return EXEC_VMEXIT;
    cpu->event_delivered =
        true; // no single-step trap follows a VM entry, although EXEC_HALT looks like a completed instruction
    return EXEC_HALT;
}

// --- Interface ----------------------------------------------------------------------------------------------------

static enum exec_result fail_check(struct cpu *cpu, const struct insn *in, int check)
{
    enum exec_result result = vmx_fail_valid(cpu, in, entry_check_instruction_error(entry_checks[check].outcome));
    cpu->vmx->last_failure.check_id = check;
    return result;
}

static enum exec_result fail_guest_state(struct cpu *cpu, uint64_t qualification, int check)
{
    cpu->vmx->last_failure = (struct vmx_failure){.check_id = check};
    return vmx_entry_failure(cpu, EXIT_ENTRY_FAIL_GUEST_STATE, qualification);
}

// A failure after guest state was loaded leaves blocking by NMI as it was before the entry (27.8).
static enum exec_result fail_loaded(struct cpu *cpu, enum vmx_exit_reason reason, uint64_t qualification,
                                    uint32_t nmi_blocking)
{
    cpu->interruptibility = nmi_blocking;
    cpu->vmx->last_failure = (struct vmx_failure){.check_id = -1};
    return vmx_entry_failure(cpu, reason, qualification);
}

enum exec_result vmx_enter(struct cpu *cpu, const struct insn *in, bool launch)
{
    struct vmx *vmx = cpu->vmx;
    enum exec_result basics = check_basics(cpu, in, launch);
    if (basics != EXEC_NEXT)
        return basics;
    const struct entry_context context = make_context(cpu);
    const bool known = entry_memo_knows(&vmx->memo, &context);
    int failed = known ? -1 : entry_check_controls_and_host(&context);
    if (failed >= 0)
        return fail_check(cpu, in, failed);

    struct vmcs_region *vmcs = vmx->current;
    exec_retire(cpu, in);
    load_controls(vmx, vmcs);
    failed = known ? -1 : entry_check_guest(&context);
    if (failed >= 0)
        return fail_guest_state(cpu, entry_check_exit_qualification(entry_checks[failed].outcome), failed);
    if (!known)
        entry_memo_store(&vmx->memo, &context);

    uint32_t nmi_blocking = cpu->interruptibility & (uint32_t)BLOCKING_NMI;
    cpu_charge(cpu, TIMING_VM_ENTRY);
    load_guest_state(cpu, vmcs);
    if (!load_pdptes(cpu, vmcs))
        return fail_loaded(cpu, EXIT_ENTRY_FAIL_GUEST_STATE, entry_check_exit_qualification(FAIL_GUEST_PDPTE),
                           nmi_blocking);
    uint32_t count = (uint32_t)vmcs_get(vmcs, VMCS_ENTRY_MSR_LOAD_COUNT);
    if (unlikely(count)) {
        uint32_t failing = msr_list_load(cpu, vmcs_get(vmcs, VMCS_ENTRY_MSR_LOAD_ADDR), count);
        if (failing)
            return fail_loaded(cpu, EXIT_ENTRY_FAIL_MSR_LOAD, failing, nmi_blocking);
    }
    bind_shadow(cpu, vmcs);
    intercept_update(cpu);
    vmx->entries++;
    if (launch) {
        vmcs->launch_state = LAUNCH_STATE_LAUNCHED;
        memory_note_write(cpu->memory, vmx->current_pointer, sizeof *vmcs);
    }
    return start_guest(cpu, vmcs);
}
