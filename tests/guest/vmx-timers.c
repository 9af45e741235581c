/*
 * What ends a guest's run after a time or an instruction: the VMX-preemption timer, the monitor trap flag; and the time the
 * guest sees, RDTSC with an offset. SDM 3C "VMX-Preemption Timer", "Monitor Trap Flag", "RDTSC" in non-root operation.
 */
#include "apic.h"
#include "check.h"
#include "cpu.h"
#include "emulator.h"
#include "trap.h"
#include "vm.h"

#define SNIPPET(name, code)      \
    extern const uint8_t name[]; \
    __asm__(#name ": " code "; vmcall")
SNIPPET(guest_loop, "1: jmp 1b");
SNIPPET(guest_nops, "nop; nop");
SNIPPET(guest_hlt, "hlt");
SNIPPET(guest_rdtsc, "rdtsc");
SNIPPET(guest_rdtscp, "rdtscp");
SNIPPET(guest_rdmsr_tsc, "mov $0x10, %ecx; rdmsr");
SNIPPET(guest_steps, "nop; mov $3, %ecx; rep stosb; int $0x60; ud2");
SNIPPET(guest_mov_ss, "mov %ss, %eax; mov %eax, %ss; nop");

static void test_preemption_timer(void)
{
    unsigned rate = rdmsr(MSR_IA32_VMX_MISC) & 31;
    if (!vm_allows(CONTROLS_PIN, PIN_ACTIVATE_PREEMPTION_TIMER, "the VMX-preemption timer")) {
        return;
    }
    vm_create((struct vm_controls){.pin = PIN_ACTIVATE_PREEMPTION_TIMER, .exit = EXIT_SAVE_PREEMPTION_TIMER});
    vmcs_write(VMCS_PREEMPTION_TIMER_VALUE, 0);
    vm_run(guest_nops);
    check_exit_at(EXIT_PREEMPTION_TIMER, guest_nops, "a value of 0: exit before the first instruction");
    vmcs_write(VMCS_PREEMPTION_TIMER_VALUE, 1 << 30);
    check(vm_run(guest_nops) == EXIT_VMCALL, "a large value: the guest comes to its end");
    uint64_t left = vmcs_read(VMCS_PREEMPTION_TIMER_VALUE);
    check(left <= 1 << 30 && left > (1 << 30) - (1 << 20), "what is left is saved");

    enum { TICKS = 2000 };
    vmcs_write(VMCS_PREEMPTION_TIMER_VALUE, TICKS);
    uint64_t start = rdtsc();
    vm_run(guest_loop);
    uint64_t elapsed = rdtsc() - start;
    check_exit_at(EXIT_PREEMPTION_TIMER, guest_loop, "an endless loop is ended");
    check(elapsed >> rate >= TICKS - 1, "not before its time");
    check_field(VMCS_PREEMPTION_TIMER_VALUE, 0, "the saved value");
    vmcs_write(VMCS_PREEMPTION_TIMER_VALUE, TICKS);
    vm_run(guest_hlt);
    check_exit_at(EXIT_PREEMPTION_TIMER, guest_hlt + 1, "HLT, interrupts off, is ended too");
    check_field(VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_HLT, "activity state: HLT");

    vm_set_controls((struct vm_controls){.pin = PIN_ACTIVATE_PREEMPTION_TIMER});
    vmcs_write(VMCS_PREEMPTION_TIMER_VALUE, TICKS);
    vm_run(guest_loop);
    check_field(VMCS_PREEMPTION_TIMER_VALUE, TICKS, "without the save control the field is unchanged");
}

static uint64_t edx_eax(void) { return (uint32_t)vm_registers.rax | vm_registers.rdx << 32; }

static void test_tsc(void)
{
    static uint8_t bitmap[4096] __attribute__((aligned(4096)));
    static const uint64_t offsets[] = {0, UINT64_C(1) << 40, -(UINT64_C(1) << 20)};
    vm_create((struct vm_controls){.primary = PRIMARY_TSC_OFFSETTING | PRIMARY_USE_MSR_BITMAPS,
                                   .secondary = SECONDARY_ENABLE_RDTSCP});
    vmcs_write(VMCS_MSR_BITMAP, (uint64_t)bitmap);
    for (unsigned i = 0; i < 3; i++) {
        vmcs_write(VMCS_TSC_OFFSET, offsets[i]);
        const uint8_t *const code[] = {guest_rdtsc, guest_rdtscp, guest_rdmsr_tsc};
        for (unsigned j = 0; j < 3; j++) {
            uint64_t before = rdtsc();
            vm_run(code[j]);
            uint64_t seen = edx_eax() - offsets[i], after = rdtsc();
            check(before < seen && seen < after, "TSC offset 0x%lx, %s", offsets[i],
                  j == 0   ? "RDTSC"
                  : j == 1 ? "RDTSCP"
                           : "RDMSR");
        }
    }
    vm_set_controls((struct vm_controls){.primary = PRIMARY_RDTSC_EXITING, .secondary = SECONDARY_ENABLE_RDTSCP});
    vm_run(guest_rdtsc);
    check_exit_at(EXIT_RDTSC, guest_rdtsc, "RDTSC exiting: RDTSC");
    vm_run(guest_rdtscp);
    check_exit_at(EXIT_RDTSCP, guest_rdtscp, "RDTSC exiting: RDTSCP");
    vm_create((struct vm_controls){0});
    vmcs_write(VMCS_EXCEPTION_BITMAP, 1 << VECTOR_UD);
    vm_run(guest_rdtscp);
    check_exit_at(EXIT_EXCEPTION_OR_NMI, guest_rdtscp, "RDTSCP without its control: #UD");
    vmcs_write(VMCS_TSC_OFFSET, 1);
    uint64_t before = rdtsc();
    vm_run(guest_rdtsc);
    check(before < edx_eax() && edx_eax() < rdtsc(), "without the control the offset does not count");
}

/* The first instruction of a vector's handler. */
static const uint8_t *handler_of(unsigned vector)
{
    const struct gate64 *gate = idt_gate(vector);
    return (const uint8_t *)((uint64_t)gate->offset_15_0 | (uint64_t)gate->offset_31_16 << 16 |
                             (uint64_t)gate->offset_63_32 << 32);
}

static void test_monitor_trap_flag(const struct multiboot_info *information)
{
    if (!vm_allows(CONTROLS_PRIMARY, PRIMARY_MONITOR_TRAP_FLAG, "the monitor trap flag") ||
        bochs_lacks(information, "the monitor trap flag, whose control exists")) {
        return;
    }
    static uint8_t bytes[8];
    vm_create((struct vm_controls){.primary = PRIMARY_MONITOR_TRAP_FLAG});
    vm_registers.rdi = (uint64_t)bytes;
    vm_run(guest_steps);
    check_exit_at(EXIT_MONITOR_TRAP_FLAG, guest_steps + 1, "after NOP");
    vm_resume();
    check_exit_at(EXIT_MONITOR_TRAP_FLAG, guest_steps + 6, "after MOV");
    for (unsigned left = 2; left; left--) {
        vm_resume();
        check_exit_at(EXIT_MONITOR_TRAP_FLAG, guest_steps + 6, "after an iteration of REP STOSB");
        check(vm_registers.rcx == left, "RCX is %u", left);
    }
    vm_resume();
    check_exit_at(EXIT_MONITOR_TRAP_FLAG, guest_steps + 8, "after the last");

    vm_resume();
    check_exit_at(EXIT_MONITOR_TRAP_FLAG, handler_of(0x60), "after INT: at the first instruction of the handler");
    vmcs_write(VMCS_GUEST_RIP, (uint64_t)guest_steps + 10);
    vm_resume();
    check_exit_at(EXIT_MONITOR_TRAP_FLAG, handler_of(VECTOR_UD),
                  "after a fault: at the first instruction of its handler");
    vm_run(guest_mov_ss);
    check_exit_at(EXIT_MONITOR_TRAP_FLAG, guest_mov_ss + 2, "after MOV from SS");
    vm_resume();
    check_exit_at(EXIT_MONITOR_TRAP_FLAG, guest_mov_ss + 4, "MOV to SS does not hold it back");
    check_field(VMCS_GUEST_INTERRUPTIBILITY_STATE, BLOCKING_BY_MOV_SS, "blocking by MOV SS is saved");

    vm_set_controls((struct vm_controls){0});
    vmcs_write(VMCS_ENTRY_INTERRUPTION_INFO, EVENT_OTHER);
    vm_run(guest_nops);
    check_exit_at(EXIT_MONITOR_TRAP_FLAG, guest_nops, "injected, without the control: before the first instruction");
    check(vm_resume() == EXIT_VMCALL, "and only once");
    vm_set_controls((struct vm_controls){.primary = PRIMARY_MONITOR_TRAP_FLAG});
    vmcs_write(VMCS_ENTRY_INTERRUPTION_INFO, EVENT_SOFTWARE | 0x60);
    vmcs_write(VMCS_ENTRY_INSTRUCTION_LENGTH, 2);
    vm_run(guest_nops);
    check_exit_at(EXIT_MONITOR_TRAP_FLAG, handler_of(0x60),
                  "with an injected interrupt: at the first instruction of its handler");
}

int main(const struct multiboot_info *information)
{
    vm_begin("vmx-timers", "preemption timer, TSC offset, monitor trap flag");
    trap_on_vector(0x60);
    test_preemption_timer();
    test_tsc();
    test_monitor_trap_flag(information);
    return check_verdict("%u checks", check_count());
}
