// Events in VMX non-root operation: which of them exit, injection by VM entry, and the boundary between two instructions.
//
// SDM 3C 26.2 "Other Causes of VM Exits", 26.5 (preemption timer, MTF), 27.6 "Event Injection", 27.7 "Special Features of VM Entry",
// 28.2.2 to 28.2.4 (interruption information); the priorities are those of 7.9 and 27.7. Leaves out: SMM, APIC virtualization.
#include "vmx/transition.h"

// --- Exceptions and other events about to be delivered ------------------------------------------------------------

// SDM 3C 26.2: bits of the error code are compared under a mask, and the sense of the exception-bitmap bit is inverted if they differ.
static bool page_fault_exits(const struct vmx *vmx, uint32_t error_code)
{
    uint64_t mask = vmcs_get(vmx->current, VMCS_PAGE_FAULT_ERROR_CODE_MASK);
    bool match = (error_code & mask) == vmcs_get(vmx->current, VMCS_PAGE_FAULT_ERROR_CODE_MATCH);
    return match == ((vmx->exception_bitmap & BIT(VECTOR_PF)) != 0);
}

static bool is_exception(const struct event *event)
{
    return event->type == EVENT_HARDWARE_EXCEPTION || event->type == EVENT_PRIVILEGED_SOFTWARE_EXCEPTION ||
           event->type == EVENT_SOFTWARE_EXCEPTION;
}

static bool exception_exits(const struct vmx *vmx, const struct event *event)
{
    if (!is_exception(event) || event->vector >= 32)
        return false;
    if (event->vector == VECTOR_PF && event->type == EVENT_HARDWARE_EXCEPTION)
        return page_fault_exits(vmx, event->error_code);
    return (vmx->exception_bitmap & BIT(event->vector)) != 0;
}

// A #DB is a trap if it reports a single step or a data breakpoint, a fault for general detect; with an instruction breakpoint RF is
// left alone (28.3.3). #DF and #MC are aborts.
static enum saved_rf exception_rf(const struct event *event)
{
    if (event->type != EVENT_HARDWARE_EXCEPTION || event->vector == VECTOR_DF || event->vector == VECTOR_MC)
        return RF_OF_EVENT;
    if (event->vector == VECTOR_DB)
        return event->cr2 & BIT(13) ? RF_SET : RF_OF_EVENT;
    return RF_SET;
}

static uint64_t exception_qualification(const struct event *event)
{
    if (event->type != EVENT_HARDWARE_EXCEPTION && event->vector != VECTOR_DB)
        return 0;
    if (event->vector == VECTOR_DB)
        return event->cr2 & (BITS(3, 0) | BIT(13) | BIT(14) | BIT(16));
    return event->vector == VECTOR_PF ? event->cr2 : 0;
}

// "NMI unblocking due to IRET": the fault is an IRET's that ended blocking by NMI. Undefined with IDT vectoring; 0 here.
static bool unblocked_by_iret(const struct cpu *cpu, const struct event *during)
{
    return cpu->nmi_unblocked_by_iret && !during;
}

enum exec_result event_exception(struct cpu *cpu, const struct event *event, const struct event *during)
{
    struct vmx *vmx = cpu->vmx;
    if (!exception_exits(vmx, event))
        return EXEC_NEXT;
    bool double_fault = event->vector == VECTOR_DF && event->type == EVENT_HARDWARE_EXCEPTION;
    struct vm_exit exit = {
        .reason = EXIT_EXCEPTION_OR_NMI,
        .rf = exception_rf(event),
        .is_debug_exception = event->vector == VECTOR_DB,
        .interruption_info = event_information(event),
        .interruption_error_code = event->error_code,
        .qualification = exception_qualification(event),
        .during = during, // the core gives none if the original event led to a #DF directly
    };
    if (!double_fault && unblocked_by_iret(cpu, during))
        exit.interruption_info |= (uint32_t)INTERRUPTION_NMI_UNBLOCKED;
    if (event->type != EVENT_HARDWARE_EXCEPTION)
        vmcs_put(vmx->current, VMCS_EXIT_INSTRUCTION_LENGTH, event->length);
    return vmx_exit(cpu, &exit);
}

enum exec_result event_triple_fault(struct cpu *cpu)
{
    const struct vm_exit exit = {.reason = EXIT_TRIPLE_FAULT};
    return vmx_exit(cpu, &exit);
}

enum exec_result event_task_switch(struct cpu *cpu, uint16_t selector, unsigned source, unsigned length,
                                   const struct event *during)
{
    if (length)
        vmcs_put(cpu->vmx->current, VMCS_EXIT_INSTRUCTION_LENGTH, length);
    const struct vm_exit exit = {
        .reason = EXIT_TASK_SWITCH,
        .rf = during ? exception_rf(during) : RF_AS_IT_IS, // as the old TSS would have it
        .qualification = selector | ((uint64_t)source << 30),
        .during = during,
    };
    return vmx_exit(cpu, &exit);
}

// --- Injection (27.6) ---------------------------------------------------------------------------------------------

// EXEC_VMEXIT: the guest is at the handler (or a VM exit occurred on the way: then not in non-root operation).
enum exec_result event_inject(struct cpu *cpu, uint32_t info)
{
    struct vmx *vmx = cpu->vmx;
    const struct vmcs_region *vmcs = vmx->current;
    unsigned type = (unsigned)bits_get(info, 10, 8);
    if (type == EVENT_OTHER) {
        vmx->mtf_pending = true; // the only event of this type: a pending MTF VM exit, whatever the control says
        return EXEC_VMEXIT;
    }
    vmx->injecting = (struct event){
        .vector = (uint8_t)(info & INTERRUPTION_VECTOR),
        .type = (uint8_t)type,
        .has_error_code = (info & INTERRUPTION_ERROR_CODE) != 0,
        .error_code = (uint32_t)vmcs_get(vmcs, VMCS_ENTRY_EXCEPTION_ERROR_CODE),
        .length = (uint8_t)vmcs_get(vmcs, VMCS_ENTRY_INSTRUCTION_LENGTH),
    };
    // Whatever the field said: no blocking by STI or MOV SS afterwards, and the processor is active.
    cpu->interruptibility &= (uint32_t) ~(BLOCKING_STI | BLOCKING_MOV_SS);
    if (!(cpu->rflags_system & RFLAGS_RF))
        cpu->pending &= ~(uint32_t)PENDING_INHIBIT;
    cpu->activity = ACTIVITY_ACTIVE;
    if (type == EVENT_NMI) {
        if (vmx->pin & PIN_VIRTUAL_NMIS)
            vmx->virtual_nmi_blocking = true;
        else
            cpu->interruptibility |= (uint32_t)BLOCKING_NMI;
    }
    vmx->is_injecting = true;
    enum exec_result result = cpu_deliver_event(cpu, &vmx->injecting);
    vmx->is_injecting = false;
    if (result != EXEC_DONE)
        return result;
    vmx->mtf_pending = (vmx->primary & PRIMARY_MONITOR_TRAP_FLAG) != 0;
    return EXEC_VMEXIT;
}

// --- VMX-preemption timer (26.5.1) --------------------------------------------------------------------------------

static unsigned timer_shift(const struct vmx *vmx)
{
    return (unsigned)(vmx->caps->misc & VMX_MISC_PREEMPTION_TIMER_RATE);
}

// The timer counts down each time bit X of the TSC changes, X being IA32_VMX_MISC bits 4:0. It keeps its rate if the guest writes the TSC.
void preemption_timer_start(struct cpu *cpu, uint32_t value)
{
    struct vmx *vmx = cpu->vmx;
    uint64_t tsc = cpu_tsc(cpu);
    unsigned shift = timer_shift(vmx);
    uint64_t wait = value ? (((tsc >> shift) + value) << shift) - tsc : 0;
    vmx->preemption_deadline = cpu_now(cpu) + wait;
    // The deadline of this turn may lie beyond.
    if (vmx->preemption_deadline < cpu->deadline) {
        cpu->cycles_left -= (int64_t)(cpu->deadline - vmx->preemption_deadline);
        cpu->deadline = vmx->preemption_deadline;
    }
}

static bool timer_expired(const struct cpu *cpu) { return cpu_now(cpu) >= cpu->vmx->preemption_deadline; }

uint32_t preemption_timer_value(const struct cpu *cpu)
{
    const struct vmx *vmx = cpu->vmx;
    if (vmx->preemption_deadline == UINT64_MAX)
        return (uint32_t)vmcs_get(vmx->current, VMCS_PREEMPTION_TIMER_VALUE);
    uint64_t tick = BIT(timer_shift(vmx));
    return timer_expired(cpu) ? 0 : (uint32_t)((vmx->preemption_deadline - cpu_now(cpu) + tick - 1) / tick);
}

cycle_t vmx_next_event(const struct cpu *cpu)
{
    return cpu->non_root && cpu->activity != ACTIVITY_WAIT_FOR_SIPI ? cpu->vmx->preemption_deadline : UINT64_MAX;
}

// --- The boundary between two instructions ------------------------------------------------------------------------

static bool is_trap_due(const struct cpu *cpu)
{
    return (cpu->pending & PENDING_DEBUG) && (cpu->pending_debug & (PENDING_DEBUG_ENABLED | PENDING_DEBUG_BS)) &&
           !(cpu->interruptibility & BLOCKING_MOV_SS) && cpu->activity != ACTIVITY_SHUTDOWN;
}

// In an inactive state: the core will deliver an event now.
static bool is_event_due(const struct cpu *cpu)
{
    bool nmi = (cpu->pending & PENDING_NMI) && !(cpu->interruptibility & BLOCKING_NMI);
    bool interrupt =
        (cpu->pending & PENDING_INTERRUPT) && (cpu->rflags_system & RFLAGS_IF) && cpu->activity != ACTIVITY_SHUTDOWN;
    return nmi || interrupt || is_trap_due(cpu);
}

// PENDING_VMX stays set while something may become due at a boundary that nothing else would make the run loop look at.
void event_arm(struct cpu *cpu)
{
    const struct vmx *vmx = cpu->vmx;
    bool accepts_interrupts = cpu->activity != ACTIVITY_SHUTDOWN;
    bool interrupt_window =
        (vmx->primary & PRIMARY_INTERRUPT_WINDOW_EXITING) && (cpu->rflags_system & RFLAGS_IF) && accepts_interrupts;
    bool nmi_window = (vmx->primary & PRIMARY_NMI_WINDOW_EXITING) && !vmx->virtual_nmi_blocking;
    bool mtf = (vmx->mtf_pending && (accepts_interrupts || is_event_due(cpu))) ||
               ((vmx->primary & PRIMARY_MONITOR_TRAP_FLAG) && cpu->activity == ACTIVITY_ACTIVE);
    bool due = interrupt_window || nmi_window || mtf || timer_expired(cpu);
    if (due && cpu->activity != ACTIVITY_WAIT_FOR_SIPI)
        cpu->pending |= PENDING_VMX;
    else
        cpu->pending &= ~(uint32_t)PENDING_VMX;
}

static enum exec_result exit_boundary(struct cpu *cpu, enum vmx_exit_reason reason, uint64_t qualification)
{
    const struct vm_exit exit = {
        .reason = reason,
        .saves_pending_debug =
            reason == EXIT_INIT_SIGNAL || reason == EXIT_MONITOR_TRAP_FLAG || reason == EXIT_TPR_BELOW_THRESHOLD,
        .qualification = qualification,
    };
    return vmx_exit(cpu, &exit);
}

static enum exec_result exit_nmi(struct cpu *cpu)
{
    cpu->pending &= ~(uint32_t)PENDING_NMI;
    const struct vm_exit exit = {
        .reason = EXIT_EXCEPTION_OR_NMI,
        .rf = RF_OF_EVENT,
        .interruption_info = VECTOR_NMI | (EVENT_NMI << INTERRUPTION_TYPE_SHIFT) | (uint32_t)INTERRUPTION_VALID,
    };
    enum exec_result result = vmx_exit(cpu, &exit);
    cpu->interruptibility |= (uint32_t)BLOCKING_NMI; // not part of what was saved
    return result;
}

// EXEC_NEXT: no interrupt is asserted after all.
static enum exec_result exit_external_interrupt(struct cpu *cpu)
{
    struct vm_exit exit = {.reason = EXIT_EXTERNAL_INTERRUPT, .rf = RF_OF_EVENT};
    if (cpu->vmx->exit_controls & EXIT_ACK_INTERRUPT_ON_EXIT) {
        int vector = cpu->env.interrupt_acknowledge(cpu->env.owner);
        if (vector < 0) {
            cpu->pending &= ~(uint32_t)PENDING_INTERRUPT;
            return EXEC_NEXT;
        }
        exit.interruption_info =
            (uint32_t)vector | (EVENT_EXTERNAL_INTERRUPT << INTERRUPTION_TYPE_SHIFT) | (uint32_t)INTERRUPTION_VALID;
    } else if (!cpu->env.interrupt_pending || !cpu->env.interrupt_pending(cpu->env.owner)) {
        cpu->pending &= ~(uint32_t)PENDING_INTERRUPT;
        return EXEC_NEXT;
    }
    return vmx_exit(cpu, &exit);
}

// NMI window and NMI. EXEC_NEXT with *deliver: an NMI is to be delivered, which precedes all that follows.
static enum exec_result check_nmi(struct cpu *cpu, bool *deliver)
{
    const struct vmx *vmx = cpu->vmx;
    if (cpu->interruptibility & BLOCKING_MOV_SS)
        return EXEC_NEXT;
    if ((vmx->primary & PRIMARY_NMI_WINDOW_EXITING) && !vmx->virtual_nmi_blocking)
        return exit_boundary(cpu, EXIT_NMI_WINDOW, 0);
    if (!(cpu->pending & PENDING_NMI) || (cpu->interruptibility & BLOCKING_NMI))
        return EXEC_NEXT;
    if (vmx->pin & PIN_NMI_EXITING)
        return exit_nmi(cpu);
    *deliver = true;
    return EXEC_NEXT;
}

static enum exec_result check_interrupt(struct cpu *cpu)
{
    const struct vmx *vmx = cpu->vmx;
    if ((cpu->interruptibility & (BLOCKING_STI | BLOCKING_MOV_SS)) || cpu->activity == ACTIVITY_SHUTDOWN)
        return EXEC_NEXT;
    if ((vmx->primary & PRIMARY_INTERRUPT_WINDOW_EXITING) && (cpu->rflags_system & RFLAGS_IF))
        return exit_boundary(cpu, EXIT_INTERRUPT_WINDOW, 0);
    if ((cpu->pending & PENDING_INTERRUPT) && (vmx->pin & PIN_EXTERNAL_INTERRUPT_EXITING))
        return exit_external_interrupt(cpu);
    return EXEC_NEXT;
}

// In the order of their priority. EXEC_NEXT: none exits.
static enum exec_result check_events(struct cpu *cpu)
{
    if (cpu->pending & PENDING_INIT) {
        cpu->pending &= ~(uint32_t)PENDING_INIT;
        return exit_boundary(cpu, EXIT_INIT_SIGNAL, 0);
    }
    if (cpu->vmx->mtf_pending && cpu->activity != ACTIVITY_SHUTDOWN)
        return exit_boundary(cpu, EXIT_MONITOR_TRAP_FLAG, 0);
    if (is_trap_due(cpu))
        return EXEC_NEXT; // the core delivers it (or it exits as an exception)
    if (timer_expired(cpu))
        return exit_boundary(cpu, EXIT_PREEMPTION_TIMER, 0);
    bool deliver = false;
    enum exec_result result = check_nmi(cpu, &deliver);
    if (result != EXEC_NEXT || deliver)
        return result;
    return check_interrupt(cpu);
}

static enum exec_result wait_for_sipi(struct cpu *cpu)
{
    cpu->pending &= ~(uint32_t)PENDING_VMX;
    if (!(cpu->pending & PENDING_SIPI))
        return EXEC_NEXT;
    cpu->pending &= ~(uint32_t)PENDING_SIPI;
    return exit_boundary(cpu, EXIT_STARTUP_IPI, cpu->sipi_vector & 0xFF);
}

enum exec_result event_boundary(struct cpu *cpu)
{
    struct vmx *vmx = cpu->vmx;
    if (cpu->activity == ACTIVITY_WAIT_FOR_SIPI)
        return wait_for_sipi(cpu);
    cpu->pending &= ~(uint32_t)PENDING_SIPI;
    enum exec_result result = check_events(cpu);
    if (result != EXEC_NEXT)
        return result;
    // The monitor trap flag takes effect after the next instruction, or after the event that is delivered instead of it.
    if ((vmx->primary & PRIMARY_MONITOR_TRAP_FLAG) && (cpu->activity == ACTIVITY_ACTIVE || is_event_due(cpu)))
        vmx->mtf_pending = true;
    event_arm(cpu);
    return EXEC_NEXT;
}
