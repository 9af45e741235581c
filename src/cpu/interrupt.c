// Instruction boundaries: which pending event is taken, and what blocks it.
//
// SDM 3A 6.9 "Priority Among Concurrent Events", 6.8 "Enabling and Disabling Interrupts", 9.4 (INIT and SIPI). Machine checks and SMIs do not occur.
#include "cpu/descriptor.h"
#include "cpu/system.h"

void interrupt_inhibit_begin(struct cpu *cpu) { cpu->pending &= ~(uint32_t)PENDING_INHIBIT; }

void interrupt_inhibit_end(struct cpu *cpu)
{
    if (cpu->pending & PENDING_INHIBIT) // the instruction itself began another such period
        return;
    cpu->interruptibility &= ~(uint32_t)(BLOCKING_STI | BLOCKING_MOV_SS);
    cpu->rflags_system &= ~(uint32_t)RFLAGS_RF;
}

static enum exec_result take_init(struct cpu *cpu)
{
    cpu->pending &= ~(uint32_t)PENDING_INIT;
    cpu_reset(cpu, true);
    if (cpu->env.init_taken)
        cpu->env.init_taken(cpu->env.owner);
    return cpu->activity == ACTIVITY_ACTIVE ? EXEC_DONE : EXEC_HALT;
}

// A start-up IPI starts the processor at vector * 4096 in real-address mode.
static enum exec_result take_sipi(struct cpu *cpu)
{
    cpu->pending &= ~(uint32_t)PENDING_SIPI;
    segment_load_real(cpu, SEG_CS, (uint16_t)(cpu->sipi_vector << 8));
    cpu->regs[REG_RIP] = 0;
    cpu->activity = ACTIVITY_ACTIVE;
    cpu_update_mode(cpu);
    return EXEC_DONE;
}

// Debug traps of the previous instruction. Matches of breakpoints that DR7 does not enable are dropped.
static enum exec_result take_debug_trap(struct cpu *cpu)
{
    uint64_t bits = cpu->pending_debug;
    cpu->pending &= ~(uint32_t)PENDING_DEBUG;
    cpu->pending_debug = 0;
    if (!(bits & (PENDING_DEBUG_ENABLED | PENDING_DEBUG_BS | PENDING_DEBUG_BT)))
        return EXEC_NEXT;
    cpu->event =
        (struct event){.vector = VECTOR_DB, .type = EVENT_HARDWARE_EXCEPTION, .cr2 = bits & (0xF | DR6_BS | DR6_BT)};
    return exception_deliver(cpu);
}

static enum exec_result take_nmi(struct cpu *cpu)
{
    cpu->pending &= ~(uint32_t)PENDING_NMI;
    cpu->interruptibility |= BLOCKING_NMI;
    const struct event event = {.vector = VECTOR_NMI, .type = EVENT_NMI};
    return cpu_deliver_event(cpu, &event);
}

static enum exec_result take_interrupt(struct cpu *cpu)
{
    cpu->pending &= ~(uint32_t)PENDING_INTERRUPT;
    int vector = cpu->env.interrupt_acknowledge ? cpu->env.interrupt_acknowledge(cpu->env.owner) : -1;
    if (vector < 0)
        return EXEC_NEXT;
    const struct event event = {.vector = (uint8_t)vector, .type = EVENT_EXTERNAL_INTERRUPT};
    enum exec_result r = cpu_deliver_event(cpu, &event);
    interrupt_recheck(cpu);
    return r;
}

static bool nmi_takeable(const struct cpu *cpu)
{
    return (cpu->pending & PENDING_NMI) && !(cpu->interruptibility & (BLOCKING_NMI | BLOCKING_MOV_SS));
}

static bool interrupts_enabled(const struct cpu *cpu)
{
    return (cpu->rflags_system & RFLAGS_IF) && !(cpu->interruptibility & (BLOCKING_STI | BLOCKING_MOV_SS));
}

bool interrupt_wakes(const struct cpu *cpu)
{
    if (cpu->pending & PENDING_VMX)
        return true;
    // INIT is blocked in VMX root operation, and in a guest that waits for SIPI.
    if ((cpu->pending & PENDING_INIT) &&
        (!cpu->vmx_operation || (cpu->non_root && cpu->activity != ACTIVITY_WAIT_FOR_SIPI)))
        return true;
    if (cpu->activity == ACTIVITY_WAIT_FOR_SIPI)
        return (cpu->pending & PENDING_SIPI) != 0;
    if ((cpu->pending & PENDING_NMI) && !(cpu->interruptibility & BLOCKING_NMI)) // exits and delivery are blocked alike
        return true;
    if (cpu->activity == ACTIVITY_SHUTDOWN)
        return false;
    if (cpu->pending & PENDING_DEBUG)
        return true;
    return (cpu->pending & PENDING_INTERRUPT) &&
           (cpu->non_root || cpu->mwait_unmasked || (cpu->rflags_system & RFLAGS_IF));
}

// What is left when nothing was taken.
static enum exec_result nothing_taken(const struct cpu *cpu)
{
    return cpu->activity == ACTIVITY_ACTIVE ? EXEC_NEXT : EXEC_HALT;
}

enum exec_result interrupt_poll(struct cpu *cpu)
{
    enum exec_result r;
    if (cpu->non_root &&
        (cpu->pending & (PENDING_VMX | PENDING_INTERRUPT | PENDING_NMI | PENDING_INIT | PENDING_SIPI))) {
        r = cpu->vmx_ops->boundary(cpu);
        if (r != EXEC_NEXT)
            return r;
    }
    if ((cpu->pending & PENDING_INIT) && !cpu->vmx_operation) // VMX root operation blocks INIT
        return take_init(cpu);
    if (cpu->activity == ACTIVITY_WAIT_FOR_SIPI)
        return (cpu->pending & PENDING_SIPI) && !cpu->vmx_operation ? take_sipi(cpu) : EXEC_HALT;
    cpu->pending &= ~(uint32_t)PENDING_SIPI;

    if ((cpu->pending & PENDING_DEBUG) && cpu->activity != ACTIVITY_SHUTDOWN &&
        !(cpu->interruptibility & BLOCKING_MOV_SS)) {
        r = take_debug_trap(cpu);
        if (r != EXEC_NEXT)
            return r;
    }
    if (nmi_takeable(cpu))
        return take_nmi(cpu);
    if (cpu->activity == ACTIVITY_SHUTDOWN)
        return EXEC_HALT;
    if (cpu->pending & PENDING_INTERRUPT) {
        if (interrupts_enabled(cpu)) {
            r = take_interrupt(cpu);
            if (r != EXEC_NEXT)
                return r;
        } else if (cpu->activity == ACTIVITY_HLT && cpu->mwait_unmasked) {
            cpu->activity = ACTIVITY_ACTIVE; // goes on after MWAIT; the interrupt stays pending
        } else if (!(cpu->rflags_system & RFLAGS_IF) && !(cpu->intercepts & BIT(INTERCEPT_EXTERNAL_INTERRUPT))) {
            cpu->pending &= ~(uint32_t)PENDING_INTERRUPT; // asked for again when IF is set
            cpu->interrupt_parked = true;
        }
    }
    return nothing_taken(cpu);
}
