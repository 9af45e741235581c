// VM exits: SDM 3C ch. 28 "VM Exits", and the host-state load of VM-entry failures (27.8).
//
// In the SDM's order: record information (28.2), save guest state (28.3), store MSRs (28.4), load host state (28.5), load MSRs
// (28.6). A failure after the first step is a VMX abort (28.7): the processor stops. Straight code over the region's fields: this
// is the hot path of a hypervisor. Leaves out: SMM exits, CET, PKRS, MPX, PT, LBR state (their controls cannot be set).
#include "vmx/transition.h"

#define CR0_EXIT_UNCHANGED    (CR0_ET | CR0_NW | CR0_CD | BITS(15, 6) | BIT(17) | BITS(28, 19) | BITS(63, 32))
#define DR7_HOST              0x400
#define SEGMENT_CODE_ACCESSED 11u // type: execute/read, accessed
#define SEGMENT_DATA_ACCESSED 3u  // type: read/write, accessed
#define SEGMENT_BUSY_TSS      11u // type
#define HOST_TSS_LIMIT        0x67

static enum exec_result abort_operation(struct cpu *cpu, enum vmx_abort code)
{
    struct vmx *vmx = cpu->vmx;
    vmx->current->abort = code;
    vmx->abort = code;
    cpu->activity = ACTIVITY_SHUTDOWN;
    cpu->stop_requested = true;
    return EXEC_STOP;
}

// --- Recording (28.2) ---------------------------------------------------------------------------------------------

static bool is_software_event(const struct event *event)
{
    return event->type == EVENT_SOFTWARE_INTERRUPT || event->type == EVENT_PRIVILEGED_SOFTWARE_EXCEPTION ||
           event->type == EVENT_SOFTWARE_EXCEPTION;
}

static void record_exit(struct vmcs_region *vmcs, const struct vm_exit *exit)
{
    vmcs_put(vmcs, VMCS_EXIT_REASON, exit->reason);
    vmcs_put(vmcs, VMCS_EXIT_QUALIFICATION, exit->qualification);
    vmcs_put(vmcs, VMCS_EXIT_INTERRUPTION_INFO, exit->interruption_info);
    if (exit->interruption_info & INTERRUPTION_ERROR_CODE)
        vmcs_put(vmcs, VMCS_EXIT_INTERRUPTION_ERROR_CODE, exit->interruption_error_code);
    const struct event *during = exit->during;
    if (likely(!during)) {
        vmcs_put(vmcs, VMCS_IDT_VECTORING_INFO, 0);
        return;
    }
    vmcs_put(vmcs, VMCS_IDT_VECTORING_INFO, event_information(during));
    if (during->has_error_code)
        vmcs_put(vmcs, VMCS_IDT_VECTORING_ERROR_CODE, during->error_code);
    if (is_software_event(during))
        vmcs_put(vmcs, VMCS_EXIT_INSTRUCTION_LENGTH, during->length);
}

// Fields that every VM exit, but no VM-entry failure, updates in the VM-entry controls.
static void update_entry_fields(const struct cpu *cpu, struct vmcs_region *vmcs)
{
    vmcs->field[VMCS_ENTRY_INTERRUPTION_INFO] &= ~INTERRUPTION_VALID;
    if (cpu->vmx->caps->misc & VMX_MISC_STORE_LMA) {
        uint64_t controls = vmcs_get(vmcs, VMCS_ENTRY_CONTROLS) & ~(uint64_t)ENTRY_IA32E_MODE_GUEST;
        vmcs_put(vmcs, VMCS_ENTRY_CONTROLS, controls | (cpu_long_mode(cpu) ? ENTRY_IA32E_MODE_GUEST : 0));
    }
}

// --- Saving guest state (28.3) ------------------------------------------------------------------------------------

static inline void save_segment(struct vmcs_region *vmcs, const struct segment *segment, enum vmcs_field selector,
                                enum vmcs_field base, enum vmcs_field limit, enum vmcs_field access_rights)
{
    vmcs_put(vmcs, selector, segment->selector);
    vmcs_put(vmcs, base, segment->base);
    vmcs_put(vmcs, limit, segment->limit);
    vmcs_put(vmcs, access_rights, segment->access_rights & (BITS(16, 12) | BITS(7, 0)));
}

static void save_segments(const struct cpu *cpu, struct vmcs_region *vmcs)
{
#define SAVE_SEGMENT(name)                                                                                 \
    save_segment(vmcs, &cpu->segments[SEG_##name], VMCS_GUEST_##name##_SELECTOR, VMCS_GUEST_##name##_BASE, \
                 VMCS_GUEST_##name##_LIMIT, VMCS_GUEST_##name##_ACCESS_RIGHTS)
    SAVE_SEGMENT(ES);
    SAVE_SEGMENT(CS);
    SAVE_SEGMENT(SS);
    SAVE_SEGMENT(DS);
    SAVE_SEGMENT(FS);
    SAVE_SEGMENT(GS);
    SAVE_SEGMENT(LDTR);
    SAVE_SEGMENT(TR);
#undef SAVE_SEGMENT
    vmcs_put(vmcs, VMCS_GUEST_GDTR_BASE, cpu->gdtr.base);
    vmcs_put(vmcs, VMCS_GUEST_GDTR_LIMIT, cpu->gdtr.limit);
    vmcs_put(vmcs, VMCS_GUEST_IDTR_BASE, cpu->idtr.base);
    vmcs_put(vmcs, VMCS_GUEST_IDTR_LIMIT, cpu->idtr.limit);
}

static void save_controls_and_msrs(const struct cpu *cpu, struct vmcs_region *vmcs)
{
    uint32_t controls = cpu->vmx->exit_controls;
    vmcs_put(vmcs, VMCS_GUEST_CR0, cpu->cr0);
    vmcs_put(vmcs, VMCS_GUEST_CR3, cpu->cr3);
    vmcs_put(vmcs, VMCS_GUEST_CR4, cpu->cr4);
    vmcs_put(vmcs, VMCS_GUEST_IA32_SYSENTER_CS, (uint32_t)cpu->sysenter_cs);
    vmcs_put(vmcs, VMCS_GUEST_IA32_SYSENTER_ESP, cpu->sysenter_esp);
    vmcs_put(vmcs, VMCS_GUEST_IA32_SYSENTER_EIP, cpu->sysenter_eip);
    if (controls & EXIT_SAVE_DEBUG_CONTROLS) {
        vmcs_put(vmcs, VMCS_GUEST_DR7, cpu->dr7);
        vmcs_put(vmcs, VMCS_GUEST_IA32_DEBUGCTL, cpu->debugctl);
    }
    if (controls & EXIT_SAVE_IA32_PAT)
        vmcs_put(vmcs, VMCS_GUEST_IA32_PAT, cpu->pat);
    if (controls & EXIT_SAVE_IA32_EFER)
        vmcs_put(vmcs, VMCS_GUEST_IA32_EFER, cpu->efer);
    if (controls & EXIT_SAVE_IA32_PERF_GLOBAL_CTRL)
        vmcs_put(vmcs, VMCS_GUEST_IA32_PERF_GLOBAL_CTRL, cpu->perf_global_ctrl);
    if (controls & EXIT_SAVE_PREEMPTION_TIMER)
        vmcs_put(vmcs, VMCS_PREEMPTION_TIMER_VALUE, preemption_timer_value(cpu));
}

static uint64_t saved_rflags(const struct cpu *cpu, enum saved_rf rf)
{
    uint64_t rflags = cpu_rflags(cpu);
    if (rf == RF_CLEAR)
        return rflags & ~RFLAGS_RF;
    return rf == RF_SET || (rf == RF_OF_EVENT && cpu->repeating) ? rflags | RFLAGS_RF : rflags;
}

// Interruptibility and activity as they were before the exit (28.3.4).
static void save_non_register_state(const struct cpu *cpu, struct vmcs_region *vmcs, const struct vm_exit *exit)
{
    const struct vmx *vmx = cpu->vmx;
    uint32_t interruptibility = cpu->interruptibility;
    if (exit->during)
        interruptibility &= (uint32_t) ~(BLOCKING_STI | BLOCKING_MOV_SS);
    if (vmx->pin & PIN_VIRTUAL_NMIS) {
        interruptibility &= (uint32_t)~BLOCKING_NMI;
        interruptibility |= vmx->virtual_nmi_blocking ? (uint32_t)BLOCKING_NMI : 0;
    }
    vmcs_put(vmcs, VMCS_GUEST_INTERRUPTIBILITY_STATE, interruptibility & (uint32_t)~BLOCKING_SMI);
    bool waits = cpu->activity == ACTIVITY_HLT && cpu->mwait; // a state that the field never reflects (25.4.2)
    vmcs_put(vmcs, VMCS_GUEST_ACTIVITY_STATE, waits ? ACTIVITY_ACTIVE : cpu->activity);

    bool held_by_mov_ss = (interruptibility & BLOCKING_MOV_SS) && !exit->is_debug_exception;
    bool saves = exit->saves_pending_debug || held_by_mov_ss;
    vmcs_put(vmcs, VMCS_GUEST_PENDING_DEBUG_EXCEPTIONS,
             saves ? cpu->pending_debug & (BITS(3, 0) | PENDING_DEBUG_ENABLED | PENDING_DEBUG_BS | BIT(16)) : 0);
}

static void save_pdptes(const struct cpu *cpu, struct vmcs_region *vmcs)
{
    if (!is_effective_ept(cpu->vmx) || !mmu_is_pae(cpu->cr0, cpu->cr4, cpu->efer))
        return;
    for (unsigned i = 0; i < 4; i++)
        vmcs->field[VMCS_GUEST_PDPTE0 + i] = cpu->mmu.pdpte[i];
}

static void save_guest_state(const struct cpu *cpu, struct vmcs_region *vmcs, const struct vm_exit *exit)
{
    save_controls_and_msrs(cpu, vmcs);
    save_segments(cpu, vmcs);
    vmcs_put(vmcs, VMCS_GUEST_RIP, cpu->regs[REG_RIP]);
    vmcs_put(vmcs, VMCS_GUEST_RSP, cpu->regs[REG_RSP]);
    vmcs_put(vmcs, VMCS_GUEST_RFLAGS, saved_rflags(cpu, exit->rf));
    save_non_register_state(cpu, vmcs, exit);
    save_pdptes(cpu, vmcs);
}

// --- Loading host state (28.5) ------------------------------------------------------------------------------------

static inline void load_flat_segment(struct segment *segment, uint16_t selector, uint64_t base, uint32_t access_rights)
{
    segment->selector = selector;
    segment->base = base;
    segment->limit = UINT32_MAX;
    segment->access_rights = access_rights;
}

static void load_data_segment(struct segment *segment, uint64_t selector, uint64_t base, uint32_t when_null)
{
    const uint32_t usable = SEGMENT_DATA_ACCESSED | (uint32_t)(SEGMENT_S | SEGMENT_P | SEGMENT_DB | SEGMENT_G);
    load_flat_segment(segment, (uint16_t)selector, base, selector ? usable : when_null);
}

static void load_segments(struct cpu *cpu, const struct vmcs_region *vmcs, bool host_64bit)
{
    const uint32_t unusable = (uint32_t)SEGMENT_UNUSABLE;
    unsigned width = cpu->vmx->caps->linear_width;
    uint64_t code_size = host_64bit ? SEGMENT_L : SEGMENT_DB;
    load_flat_segment(&cpu->segments[SEG_CS], (uint16_t)vmcs_get(vmcs, VMCS_HOST_CS_SELECTOR), 0,
                      SEGMENT_CODE_ACCESSED | (uint32_t)(SEGMENT_S | SEGMENT_P | SEGMENT_G | code_size));
    load_data_segment(&cpu->segments[SEG_SS], vmcs_get(vmcs, VMCS_HOST_SS_SELECTOR), 0,
                      unusable | (uint32_t)SEGMENT_DB);
    load_data_segment(&cpu->segments[SEG_DS], vmcs_get(vmcs, VMCS_HOST_DS_SELECTOR), 0, unusable);
    load_data_segment(&cpu->segments[SEG_ES], vmcs_get(vmcs, VMCS_HOST_ES_SELECTOR), 0, unusable);
    load_data_segment(&cpu->segments[SEG_FS], vmcs_get(vmcs, VMCS_HOST_FS_SELECTOR),
                      sign_extend(vmcs_get(vmcs, VMCS_HOST_FS_BASE), width), unusable);
    load_data_segment(&cpu->segments[SEG_GS], vmcs_get(vmcs, VMCS_HOST_GS_SELECTOR),
                      sign_extend(vmcs_get(vmcs, VMCS_HOST_GS_BASE), width), unusable);
    load_flat_segment(&cpu->segments[SEG_TR], (uint16_t)vmcs_get(vmcs, VMCS_HOST_TR_SELECTOR),
                      sign_extend(vmcs_get(vmcs, VMCS_HOST_TR_BASE), width), SEGMENT_BUSY_TSS | (uint32_t)SEGMENT_P);
    cpu->segments[SEG_TR].limit = HOST_TSS_LIMIT;
    load_flat_segment(&cpu->segments[SEG_LDTR], 0, 0, unusable);
    cpu->gdtr.base = sign_extend(vmcs_get(vmcs, VMCS_HOST_GDTR_BASE), width);
    cpu->gdtr.limit = 0xFFFF;
    cpu->idtr.base = sign_extend(vmcs_get(vmcs, VMCS_HOST_IDTR_BASE), width);
    cpu->idtr.limit = 0xFFFF;
}

// Whether the host fields make a state that can be entered. VM entry has checked more, but the VMCS is in memory: a guest that reaches
// it can have overwritten it since.
static bool host_registers_usable(const struct vmx *vmx, uint64_t cr0, uint64_t cr4, uint64_t efer, bool host_64bit)
{
    const struct vmx_caps *caps = vmx->caps;
    uint64_t mode = efer & (EFER_LMA | EFER_LME);
    if (mode != (host_64bit ? EFER_LMA | EFER_LME : 0))
        return false;
    return !(caps->cr0_fixed0 & ~cr0) && !(cr0 & ~caps->cr0_fixed1) && !(caps->cr4_fixed0 & ~cr4) &&
           !(cr4 & ~caps->cr4_fixed1);
}

// False: the host fields are corrupt, nothing was loaded.
static bool load_controls_and_msrs(struct cpu *cpu, const struct vmcs_region *vmcs, uint32_t controls)
{
    struct vmx *vmx = cpu->vmx;
    bool host_64bit = (controls & EXIT_HOST_ADDRESS_SPACE_SIZE) != 0;
    uint64_t cr0 = (cpu->cr0 & CR0_EXIT_UNCHANGED) | (vmcs_get(vmcs, VMCS_HOST_CR0) & ~CR0_EXIT_UNCHANGED);
    uint64_t cr3 = vmcs_get(vmcs, VMCS_HOST_CR3) & BITS(vmx->caps->maxphyaddr - 1, 0);
    uint64_t cr4 = vmcs_get(vmcs, VMCS_HOST_CR4);
    cr4 = host_64bit ? cr4 | CR4_PAE : cr4 & ~CR4_PCIDE;

    uint64_t efer = cpu->efer & ~(EFER_LMA | EFER_LME);
    if (host_64bit)
        efer |= EFER_LMA | EFER_LME;
    if (controls & EXIT_LOAD_IA32_EFER)
        efer = vmcs_get(vmcs, VMCS_HOST_IA32_EFER);
    if (unlikely(!host_registers_usable(vmx, cr0, cr4, efer, host_64bit)))
        return false;
    cpu_load_control_registers(cpu, cr0, cr3, cr4, efer);

    unsigned width = vmx->caps->linear_width;
    cpu->sysenter_cs = (uint32_t)vmcs_get(vmcs, VMCS_HOST_IA32_SYSENTER_CS);
    cpu->sysenter_esp = sign_extend(vmcs_get(vmcs, VMCS_HOST_IA32_SYSENTER_ESP), width);
    cpu->sysenter_eip = sign_extend(vmcs_get(vmcs, VMCS_HOST_IA32_SYSENTER_EIP), width);
    cpu->debugctl = 0;
    if (cpu->dr7 != DR7_HOST)
        cpu_write_dr7(cpu, DR7_HOST);
    if (controls & EXIT_LOAD_IA32_PAT)
        cpu->pat = vmcs_get(vmcs, VMCS_HOST_IA32_PAT);
    if (controls & EXIT_LOAD_IA32_PERF_GLOBAL_CTRL)
        cpu->perf_global_ctrl = vmcs_get(vmcs, VMCS_HOST_IA32_PERF_GLOBAL_CTRL);
    return true;
}

// Blocking by NMI alone survives; nothing is pending (28.5.5).
static void load_non_register_state(struct cpu *cpu)
{
    const uint32_t guest_only = PENDING_VMX | PENDING_DEBUG | PENDING_INHIBIT | PENDING_SINGLE_STEP;
    cpu->interruptibility &= (uint32_t)BLOCKING_NMI;
    cpu->pending_debug = 0;
    cpu->pending &= ~guest_only;
    cpu->activity = ACTIVITY_ACTIVE;
    cpu->repeating = cpu->monitor_armed = false;
}

static bool load_pdptes(struct cpu *cpu)
{
    if (likely(!mmu_is_pae(cpu->cr0, cpu->cr4, cpu->efer)))
        return true;
    struct mmu_fault fault;
    return mmu_read_pdptes(&cpu->mmu, cpu->cr3, cpu->mmu.pdpte, &fault) == MMU_OK;
}

static enum exec_result load_host_state(struct cpu *cpu, const struct vmcs_region *vmcs)
{
    struct vmx *vmx = cpu->vmx;
    uint32_t controls = vmx->exit_controls;
    bool host_64bit = (controls & EXIT_HOST_ADDRESS_SPACE_SIZE) != 0;
    if (cpu_long_mode(cpu) && !host_64bit)
        return abort_operation(cpu, ABORT_HOST_NOT_64BIT);

    cpu->non_root = false;
    cpu->intercepts = 0;
    vmx->mtf_pending = false;
    vmx->is_injecting = false;
    vmx->preemption_deadline = UINT64_MAX;
    mmu_set_vm(&cpu->mmu, 0, false, 0);
    if (!is_effective_vpid(vmx))
        mmu_invalidate_vpid(&cpu->mmu, 0, false);

    if (!load_controls_and_msrs(cpu, vmcs, controls))
        return abort_operation(cpu, ABORT_VMCS_CORRUPT);
    load_segments(cpu, vmcs, host_64bit);
    cpu->cpl = 0;
    cpu->regs[REG_RSP] = vmcs_get(vmcs, VMCS_HOST_RSP);
    cpu->regs[REG_RIP] = vmcs_get(vmcs, VMCS_HOST_RIP);
    cpu->rflags_system = (uint32_t)RFLAGS_ONE;
    cpu->lazy = (struct lazy_flags){.result = 1, .aux = 0}; // the six arithmetic flags are 0
    load_non_register_state(cpu);
    cpu_update_mode(cpu);
    if (!load_pdptes(cpu))
        return abort_operation(cpu, ABORT_HOST_PDPTE);

    uint32_t count = (uint32_t)vmcs_get(vmcs, VMCS_EXIT_MSR_LOAD_COUNT);
    if (unlikely(count) && msr_list_load(cpu, vmcs_get(vmcs, VMCS_EXIT_MSR_LOAD_ADDR), count))
        return abort_operation(cpu, ABORT_MSR_LOAD);
    return EXEC_VMEXIT;
}

// --- Interface ----------------------------------------------------------------------------------------------------

enum exec_result vmx_exit(struct cpu *cpu, const struct vm_exit *exit)
{
    struct vmx *vmx = cpu->vmx;
    struct vmcs_region *vmcs = vmx->current;
    ASSERT(cpu->non_root && vmcs, "only a guest that a VM entry started has VM exits");
    cpu_charge(cpu, TIMING_VM_EXIT);
    vmx->exits[exit->reason]++;
    memory_note_write(cpu->memory, vmx->current_pointer, sizeof *vmcs);

    record_exit(vmcs, exit);
    update_entry_fields(cpu, vmcs);
    save_guest_state(cpu, vmcs, exit);

    uint32_t count = (uint32_t)vmcs_get(vmcs, VMCS_EXIT_MSR_STORE_COUNT);
    if (unlikely(count)) {
        cpu->non_root = false; // IA32_TIME_STAMP_COUNTER is stored without the TSC offset
        if (msr_list_store(cpu, vmcs_get(vmcs, VMCS_EXIT_MSR_STORE_ADDR), count))
            return abort_operation(cpu, ABORT_MSR_STORE);
    }
    return load_host_state(cpu, vmcs);
}

enum exec_result vmx_exit_instruction(struct cpu *cpu, const struct insn *in, enum vmx_exit_reason reason,
                                      uint64_t qualification)
{
    vmcs_put(cpu->vmx->current, VMCS_EXIT_INSTRUCTION_LENGTH, in->length);
    const struct vm_exit exit = {.reason = reason, .rf = RF_CLEAR, .qualification = qualification};
    return vmx_exit(cpu, &exit);
}

enum exec_result vmx_exit_instruction_info(struct cpu *cpu, const struct insn *in, enum vmx_exit_reason reason,
                                           uint64_t qualification, uint32_t information)
{
    vmcs_put(cpu->vmx->current, VMCS_EXIT_INSTRUCTION_INFO, information);
    return vmx_exit_instruction(cpu, in, reason, qualification);
}

enum exec_result vmx_entry_failure(struct cpu *cpu, enum vmx_exit_reason reason, uint64_t qualification)
{
    struct vmx *vmx = cpu->vmx;
    struct vmcs_region *vmcs = vmx->current;
    cpu_charge(cpu, TIMING_ENTRY_FAILURE);
    vmx->entry_failures++;
    vmx->exits[reason]++;
    memory_note_write(cpu->memory, vmx->current_pointer, sizeof *vmcs);
    vmcs_put(vmcs, VMCS_EXIT_REASON, (uint32_t)reason | EXIT_REASON_ENTRY_FAILURE);
    vmcs_put(vmcs, VMCS_EXIT_QUALIFICATION, qualification);
    return load_host_state(cpu, vmcs);
}
