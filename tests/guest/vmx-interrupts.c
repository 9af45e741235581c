/*
 * External interrupts and NMIs of a guest: exits with and without acknowledgement, interrupt window, NMI window, virtual
 * NMIs, blocking by STI, MOV SS and NMI, a guest in HLT. SDM 3C "Pin-Based VM-Execution Controls", "Other Causes of VM
 * Exits", "Guest Non-Register State".
 */
#include "apic.h"
#include "boot.h"
#include "check.h"
#include "cpu.h"
#include "emulator.h"
#include "trap.h"
#include "vm.h"

enum { VECTOR = 0x51 };

#define SNIPPET(name, code)      \
    extern const uint8_t name[]; \
    __asm__(#name ": " code "; vmcall")
SNIPPET(guest_nops, "nop; nop; nop");
SNIPPET(guest_sti, "nop; sti; nop; nop");
SNIPPET(guest_mov_ss, "mov %ss, %eax; mov %eax, %ss; nop; nop"); /* offsets 0, 2, 4, 5 */
SNIPPET(guest_hlt, "sti; hlt; nop");
/* Sends itself an NMI: the ICR write is at offset 11. */
SNIPPET(guest_nmi, "mov $0xFEE00300, %eax; movl $0x4400, %ecx; nop; mov %ecx, (%rax); nop; nop");
SNIPPET(guest_iret, "mov %rsp, %rbx; push $0x10; push %rbx; push $2; push $8; push $2f; 1: iretq; 2: nop; nop");
SNIPPET(guest_bad_iret, "push $0x10; push $0; push $2; push $0xFFF8; push $0; iretq");

static volatile unsigned delivered; /* to our IDT, by host or guest */

static void count(struct interrupt_frame *frame)
{
    delivered++;
    if (frame->vector == VECTOR) {
        apic_eoi();
    }
}

static void take_pending(void) { __asm__ volatile("sti; nop; nop; cli" : : : "memory"); }

static void test_external(const struct multiboot_info *information)
{
    vm_create((struct vm_controls){.pin = PIN_EXTERNAL_INTERRUPT_EXITING});
    apic_self_ipi(VECTOR);
    if (!bochs_lacks(information, "exit by an interrupt pending at an entry with IF 0")) {
        vm_run(guest_nops);
        check_exit_at(EXIT_EXTERNAL_INTERRUPT, guest_nops, "a pending interrupt, RFLAGS.IF 0 in the guest");
    }
    vm_run_with(guest_nops, RFLAGS_FIXED | RFLAGS_IF);
    check_exit_at(EXIT_EXTERNAL_INTERRUPT, guest_nops, "a pending interrupt, RFLAGS.IF 1 in the guest");
    check(!(vmcs_read(VMCS_EXIT_INTERRUPTION_INFO) & EVENT_VALID), "not acknowledged: no interruption information");
    check(apic_bit(APIC_IRR, VECTOR) && !apic_bit(APIC_ISR, VECTOR), "it is still requested");
    vm_run_with(guest_nops, RFLAGS_FIXED | RFLAGS_IF);
    check_exit_at(EXIT_EXTERNAL_INTERRUPT, guest_nops, "so the next entry exits too");
    delivered = 0;
    take_pending();
    check(delivered == 1, "the host takes it");
    check(vm_run(guest_nops) == EXIT_VMCALL, "and then the guest runs");

    vm_set_controls((struct vm_controls){.pin = PIN_EXTERNAL_INTERRUPT_EXITING, .exit = EXIT_ACK_INTERRUPT});
    apic_self_ipi(VECTOR);
    vm_run_with(guest_nops, RFLAGS_FIXED | RFLAGS_IF);
    check_exit_at(EXIT_EXTERNAL_INTERRUPT, guest_nops, "with acknowledgement");
    check_field(VMCS_EXIT_INTERRUPTION_INFO, EVENT_INTERRUPT | VECTOR, "interruption information: the vector");
    check(!apic_bit(APIC_IRR, VECTOR) && apic_bit(APIC_ISR, VECTOR), "it is in service");
    apic_eoi();
    check(!apic_bit(APIC_ISR, VECTOR), "until EOI");

    vm_set_controls((struct vm_controls){0});
    apic_self_ipi(VECTOR);
    delivered = 0;
    check(vm_run(guest_nops) == EXIT_VMCALL && delivered == 0, "without the control, IF 0: the guest is not disturbed");
    check(vm_run_with(guest_nops, RFLAGS_FIXED | RFLAGS_IF) == EXIT_VMCALL && delivered == 1,
          "IF 1: the guest takes it");
    check_field(VMCS_GUEST_RSP, (uint64_t)(vm_stack + sizeof vm_stack), "and returns from it");
}

static void test_interrupt_window(const struct multiboot_info *information)
{
    vm_create((struct vm_controls){.primary = PRIMARY_INTERRUPT_WINDOW});
    vm_run(guest_sti);
    check_exit_at(EXIT_INTERRUPT_WINDOW, guest_sti + 3, "interrupt window: one instruction after STI");
    check_field(VMCS_GUEST_INTERRUPTIBILITY_STATE, 0, "nothing is blocked");
    vm_run_with(guest_nops, RFLAGS_FIXED | RFLAGS_IF);
    check_exit_at(EXIT_INTERRUPT_WINDOW, guest_nops, "IF 1 at entry: before the first instruction");
    check(vm_run(guest_nops) == EXIT_VMCALL, "IF 0: never");
    vm_run_with(guest_mov_ss, RFLAGS_FIXED | RFLAGS_IF);
    check_exit_at(EXIT_INTERRUPT_WINDOW, guest_mov_ss, "again");

    vmcs_write(VMCS_GUEST_INTERRUPTIBILITY_STATE, BLOCKING_BY_MOV_SS);
    vm_resume();
    check_exit_at(EXIT_INTERRUPT_WINDOW, guest_mov_ss + 2, "blocking by MOV SS at entry: one instruction later");
    vmcs_write(VMCS_GUEST_INTERRUPTIBILITY_STATE, BLOCKING_BY_STI);
    vm_resume();
    check_exit_at(EXIT_INTERRUPT_WINDOW, guest_mov_ss + 5,
                  "blocking by STI at entry, then MOV SS: two instructions later");

    if (!bochs_lacks(information, "the interrupt window in HLT")) {
        vmcs_write(VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_HLT);
        vm_resume();
        check_exit_at(EXIT_INTERRUPT_WINDOW, guest_mov_ss + 5, "in HLT: at once");
    }
}

static void start_timer(uint32_t ticks)
{
    apic_write(APIC_TIMER_DIVIDE, 0xB);
    apic_write(APIC_LVT_TIMER, VECTOR);
    apic_write(APIC_TIMER_INITIAL, ticks);
}

static void test_hlt(const struct multiboot_info *information)
{
    vm_create((struct vm_controls){.pin = PIN_EXTERNAL_INTERRUPT_EXITING, .exit = EXIT_ACK_INTERRUPT});
    start_timer(20000);
    vm_run(guest_hlt);
    check_exit_at(EXIT_EXTERNAL_INTERRUPT, guest_hlt + 2, "a timer interrupt wakes the guest from HLT; RIP after it");
    apic_eoi();
    if (!bochs_lacks(information, "activity state HLT after an interrupt")) {
        check_field(VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_HLT, "activity state: HLT");
        start_timer(20000);
        vm_resume();
        check_exit_at(EXIT_EXTERNAL_INTERRUPT, guest_hlt + 2, "entered in HLT, it sleeps on");
        apic_eoi();
    }
    vmcs_write(VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_HLT);
    vm_set_controls((struct vm_controls){0});
    start_timer(20000);
    delivered = 0;
    check(vm_resume() == EXIT_VMCALL && delivered == 1, "without the control the guest wakes itself");
    check_field(VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_ACTIVE, "activity state: active");
    vm_set_controls((struct vm_controls){.primary = PRIMARY_HLT_EXITING});
    vm_run(guest_hlt);
    check_exit_at(EXIT_HLT, guest_hlt + 1, "HLT exiting");
    check_field(VMCS_GUEST_INTERRUPTIBILITY_STATE, BLOCKING_BY_STI, "blocking by STI is saved");
}

static void unblock_nmis(void)
{
    __asm__ volatile("mov %%rsp, %%rbx; push $0x10; push %%rbx; pushfq; push $8; push $1f; iretq; 1:"
                     :
                     :
                     : "rbx", "memory");
}

static void test_nmi(const struct multiboot_info *information)
{
    vm_create((struct vm_controls){.pin = PIN_NMI_EXITING});
    idt_set_handler(VECTOR_NMI, count);
    delivered = 0;
    apic_write(APIC_ICR_HIGH, apic_read(APIC_ID));
    vm_run(guest_nmi);
    check(vmcs_read(VMCS_EXIT_REASON) == EXIT_EXCEPTION_OR_NMI && vmcs_read(VMCS_GUEST_RIP) >= (uint64_t)guest_nmi + 13,
          "NMI exiting: exit after the instruction that sent it");
    check_field(VMCS_EXIT_INTERRUPTION_INFO, EVENT_NMI | VECTOR_NMI, "interruption information: NMI");
    if (!bochs_lacks(information, "the blocking that follows the exit is not saved")) {
        check_field(VMCS_GUEST_INTERRUPTIBILITY_STATE, 0, "blocking by NMI is not saved");
    }
    check(delivered == 0, "no handler ran");
    apic_self_nmi();
    for (volatile int i = 0; i < 100; i++) {
    }
    check(delivered == 0, "after the exit the host has NMIs blocked");
    unblock_nmis();
    for (volatile int i = 0; i < 100; i++) {
    }
    check(delivered == 1, "until it executes IRET");

    vm_set_controls((struct vm_controls){0});
    delivered = 0;
    check(vm_run(guest_nmi) == EXIT_VMCALL && delivered == 1, "without the control the guest takes the NMI");
    check_field(VMCS_GUEST_INTERRUPTIBILITY_STATE, 0, "after its IRET nothing is blocked");

    vmcs_write(VMCS_ENTRY_INTERRUPTION_INFO, EVENT_NMI | VECTOR_NMI);
    trap_on_vector(VECTOR_NMI);
    idt_set_handler(VECTOR_NMI, 0);
    struct gate64 *gate = idt_gate(VECTOR_NMI), saved = *gate;
    extern const uint8_t guest_vmcall[];
    gate->offset_15_0 = (uint16_t)(uint64_t)guest_vmcall;
    gate->offset_31_16 = (uint16_t)((uint64_t)guest_vmcall >> 16);
    check(vm_run(guest_nops) == EXIT_VMCALL, "an injected NMI, its handler a VMCALL");
    check_field(VMCS_GUEST_INTERRUPTIBILITY_STATE, BLOCKING_BY_NMI, "in the handler NMIs are blocked");

    /* Virtual NMIs: the blocking is the guest's alone. */
    vm_set_controls((struct vm_controls){.pin = PIN_NMI_EXITING | PIN_VIRTUAL_NMIS});
    vmcs_write(VMCS_ENTRY_INTERRUPTION_INFO, EVENT_NMI | VECTOR_NMI);
    check(vm_run(guest_nops) == EXIT_VMCALL, "the same with virtual NMIs");
    check_field(VMCS_GUEST_INTERRUPTIBILITY_STATE, BLOCKING_BY_NMI, "virtual NMIs are blocked");
    *gate = saved;
    unblock_nmis(); /* the injected one blocked NMIs as a real one does */
    idt_set_handler(VECTOR_NMI, count);
}
__asm__("guest_vmcall: vmcall");

static void test_nmi_window(const struct multiboot_info *information)
{
    vm_create((struct vm_controls){.pin = PIN_NMI_EXITING | PIN_VIRTUAL_NMIS, .primary = PRIMARY_NMI_WINDOW});
    if (!bochs_lacks(information, "an NMI window open at entry")) {
        vm_run(guest_nops);
        check_exit_at(EXIT_NMI_WINDOW, guest_nops, "NMI window, nothing blocked: before the first instruction");
        vmcs_write(VMCS_GUEST_INTERRUPTIBILITY_STATE, BLOCKING_BY_MOV_SS);
        vm_resume();
        check_exit_at(EXIT_NMI_WINDOW, guest_nops + 1, "blocking by MOV SS: one instruction later");
    }
    vm_run(guest_nops);
    vmcs_write(VMCS_GUEST_INTERRUPTIBILITY_STATE, BLOCKING_BY_NMI);
    check(vm_resume() == EXIT_VMCALL, "virtual NMIs blocked: never");
    vmcs_write(VMCS_GUEST_RIP, (uint64_t)guest_iret);
    vm_resume();
    check(vmcs_read(VMCS_EXIT_REASON) == EXIT_NMI_WINDOW && *(const uint8_t *)vmcs_read(VMCS_GUEST_RIP) == 0x90 &&
              ((const uint8_t *)vmcs_read(VMCS_GUEST_RIP))[-1] == 0xCF,
          "after IRET: exit before the next instruction");
    check_field(VMCS_GUEST_INTERRUPTIBILITY_STATE, 0, "nothing is blocked");

    vm_set_controls((struct vm_controls){.pin = PIN_NMI_EXITING | PIN_VIRTUAL_NMIS});
    vmcs_write(VMCS_EXCEPTION_BITMAP, 1 << VECTOR_GP);
    vmcs_write(VMCS_GUEST_INTERRUPTIBILITY_STATE, BLOCKING_BY_NMI);
    vmcs_write(VMCS_GUEST_RIP, (uint64_t)guest_bad_iret);
    vm_resume();
    check_field(VMCS_EXIT_INTERRUPTION_INFO, EVENT_EXCEPTION | EVENT_ERROR_CODE | EVENT_NMI_UNBLOCK | VECTOR_GP,
                "an IRET that faults: interruption information tells that it unblocked NMIs");
    check_field(VMCS_GUEST_INTERRUPTIBILITY_STATE, 0, "and they are not blocked");
    vm_run(guest_bad_iret);
    check_field(VMCS_EXIT_INTERRUPTION_INFO, EVENT_EXCEPTION | EVENT_ERROR_CODE | VECTOR_GP,
                "if they were not blocked before, it does not");
}

int main(const struct multiboot_info *information)
{
    vm_begin("vmx-interrupts", "external interrupts, NMIs and windows");
    apic_enable();
    idt_set_handler(VECTOR, count);
    test_external(information);
    test_interrupt_window(information);
    test_hlt(information);
    test_nmi(information);
    test_nmi_window(information);
    return check_verdict("%u checks", check_count());
}
