/*
 * Exceptions in a guest: the exception bitmap, page-fault error-code mask and match, what an exit by exception reports and
 * what it leaves undone, faults while an event is delivered (IDT-vectoring information), double and triple faults.
 * SDM 3C "Exceptions", "Information for VM Exits Due to Vectored Events", "... That Occur During Event Delivery".
 */
#include "boot.h"
#include "check.h"
#include "cpu.h"
#include "pages.h"
#include "trap.h"
#include "vm.h"

enum {
    DR6_FIXED = 0xFFFF0FF0,
    DR6_BS = 1 << 14,
    PF_W = 2,
    PF_ID = 16,
    VIOLATION_BITS = 0x1BF, /* those of every processor: see labs/02-ept */
};

#define SNIPPET(name, code)      \
    extern const uint8_t name[]; \
    __asm__(#name ": " code "; vmcall")
SNIPPET(guest_divide, "xor %ecx, %ecx; div %ecx");
SNIPPET(guest_ud, "ud2");
SNIPPET(guest_int3, "int3");
SNIPPET(guest_int_3, ".byte 0xCD, 3");
SNIPPET(guest_int1, ".byte 0xF1");
SNIPPET(guest_int_20, "int $0x20");
SNIPPET(guest_gp, "mov $0xFFFF, %eax; mov %eax, %ds");
SNIPPET(guest_read, "mov (%rbx), %al");
SNIPPET(guest_write, "mov %al, (%rbx)");
SNIPPET(guest_push, "push %rax");
SNIPPET(guest_step, "pushfq; orl $0x100, (%rsp); popfq; nop; nop");
SNIPPET(guest_watch, "movl $1, (%rbx); nop; nop");
SNIPPET(guest_lidt_ud, "lidt (%rbx); ud2");
SNIPPET(guest_iret, "mov $0x33, %eax; push %rax; push %rax; pushfq; push %rax; push %rax; iretq");

static uint8_t frame[4096] __attribute__((aligned(4096)));

static void check_event(uint32_t info, uint64_t qualification, const void *rip, const char *what)
{
    uint32_t reason = (uint32_t)vmcs_read(VMCS_EXIT_REASON), seen = (uint32_t)vmcs_read(VMCS_EXIT_INTERRUPTION_INFO);
    bool right = reason == EXIT_EXCEPTION_OR_NMI && (seen & ~EVENT_NMI_UNBLOCK) == info &&
                 vmcs_read(VMCS_EXIT_QUALIFICATION) == qualification && vmcs_read(VMCS_GUEST_RIP) == (uint64_t)rip;
    if (!check(right, "%s: interruption information 0x%x, qualification 0x%lx", what, info, qualification)) {
        note("reason %u, information 0x%x, qualification 0x%lx, RIP 0x%lx (want 0x%lx)", reason, seen,
             vmcs_read(VMCS_EXIT_QUALIFICATION), vmcs_read(VMCS_GUEST_RIP), (uint64_t)rip);
    }
}

static void test_bitmap(void)
{
    vm_create((struct vm_controls){0});
    vmcs_write(VMCS_EXCEPTION_BITMAP, 1 << VECTOR_DE | 1 << VECTOR_BP | 1 << VECTOR_DB);
    vm_run(guest_divide);
    check_event(EVENT_EXCEPTION | VECTOR_DE, 0, guest_divide + 2, "#DE");
    check_field(VMCS_IDT_VECTORING_INFO, 0, "no IDT-vectoring");
    vm_run(guest_int3);
    check_event(EVENT_INT3 | VECTOR_BP, 0, guest_int3, "INT3 is a software exception, RIP at it");
    check_field(VMCS_EXIT_INSTRUCTION_LENGTH, 1, "instruction length");
    check(!(vmcs_read(VMCS_GUEST_RFLAGS) & RFLAGS_RF), "RF is saved as 0");
    vm_run(guest_int1);
    check_event(EVENT_INT1 | VECTOR_DB, 0, guest_int1, "INT1 is a privileged software exception");

    vmcs_write(VMCS_EXCEPTION_BITMAP, ~(UINT32_C(1) << VECTOR_UD | UINT32_C(1) << VECTOR_PF));
    trap_resume_rip = (uint64_t)guest_ud + 2; /* our own IDT serves the guest */
    trap_resume_rsp = (uint64_t)(vm_stack + sizeof vm_stack);
    check(vm_run(guest_ud) == EXIT_VMCALL && trap.taken && trap.frame.vector == VECTOR_UD,
          "a clear bit: the guest handles #UD itself");
    trap_resume_rip = (uint64_t)guest_int_20 + 2;
    trap_on_vector(0x20);
    check(vm_run(guest_int_20) == EXIT_VMCALL && trap.frame.vector == 0x20, "INT n is no exception: vector 32");
    trap_resume_rip = (uint64_t)guest_int_3 + 2;
    idt_gate(VECTOR_BP)->type |= GATE_PRESENT;
    check(vm_run(guest_int_3) == EXIT_VMCALL && trap.frame.vector == VECTOR_BP, "nor is INT 3 in two bytes");
    vm_run(guest_gp);
    check_event(EVENT_EXCEPTION | EVENT_ERROR_CODE | VECTOR_GP, 0, guest_gp + 5, "#GP");
    check_field(VMCS_EXIT_INTERRUPTION_ERROR_CODE, 0xFFFC, "error code: the selector");
}

static void test_page_faults(void)
{
    uint64_t address = page_address(2) + 8;
    page_set(2, 0);
    vm_registers.rbx = address;
    vm_create((struct vm_controls){0});
    vmcs_write(VMCS_EXCEPTION_BITMAP, 1 << VECTOR_PF);
    __asm__ volatile("mov %0, %%cr2" : : "r"(UINT64_C(0x1111)));
    vm_run(guest_read);
    check_event(EVENT_EXCEPTION | EVENT_ERROR_CODE | VECTOR_PF, address, guest_read, "#PF");
    check_field(VMCS_EXIT_INTERRUPTION_ERROR_CODE, 0, "error code of a read");
    check(read_cr2() == 0x1111, "CR2 is not written");
    vm_run(guest_write);
    check_field(VMCS_EXIT_INTERRUPTION_ERROR_CODE, PF_W, "error code of a write");

    /* Exit if and only if bit 14 of the bitmap equals (error code & mask) == match. */
    for (unsigned bit = 0; bit < 2; bit++) {
        vmcs_write(VMCS_EXCEPTION_BITMAP, bit << VECTOR_PF);
        vmcs_write(VMCS_PAGE_FAULT_ERROR_CODE_MASK, PF_W);
        for (unsigned match = 0; match < 2; match++) {
            vmcs_write(VMCS_PAGE_FAULT_ERROR_CODE_MATCH, match * PF_W);
            trap_resume_rip = (uint64_t)guest_write + 2;
            uint32_t of_write = vm_run(guest_write);
            check(of_write == (bit == match ? EXIT_EXCEPTION_OR_NMI : EXIT_VMCALL), "bitmap %u, match W=%u: a write %s",
                  bit, match, bit == match ? "exits" : "does not exit");
            trap_resume_rip = (uint64_t)guest_read + 2;
            uint32_t of_read = vm_run(guest_read);
            check(of_read == (bit != match ? EXIT_EXCEPTION_OR_NMI : EXIT_VMCALL), "bitmap %u, match W=%u: a read %s",
                  bit, match, bit != match ? "exits" : "does not exit");
        }
    }
    check(read_cr2() == address, "without an exit CR2 is written");
    vmcs_write(VMCS_PAGE_FAULT_ERROR_CODE_MATCH, 1 << 4);
    vmcs_write(VMCS_EXCEPTION_BITMAP, 1 << VECTOR_PF);
    trap_resume_rip = (uint64_t)guest_read + 2;
    check(vm_run(guest_read) == EXIT_VMCALL, "a match outside the mask never agrees");
    vmcs_write(VMCS_EXCEPTION_BITMAP, 0);
    check(vm_run(guest_read) == EXIT_EXCEPTION_OR_NMI, "and with bit 14 clear every #PF exits");
    trap_resume_rip = 0;
}

static void test_debug_exceptions(void)
{
    vm_create((struct vm_controls){0});
    vmcs_write(VMCS_EXCEPTION_BITMAP, 1 << VECTOR_DB);
    __asm__ volatile("mov %0, %%dr6" : : "r"((uint64_t)DR6_FIXED));
    vm_run(guest_step);
    check_event(EVENT_EXCEPTION | VECTOR_DB, DR6_BS, guest_step + 10, "single step, after the instruction");
    uint64_t dr6;
    __asm__ volatile("mov %%dr6, %0" : "=r"(dr6));
    check(dr6 == DR6_FIXED, "DR6 is not written");

    static volatile uint32_t watched;
    __asm__ volatile("mov %0, %%dr2" : : "r"(&watched));
    vmcs_write(VMCS_GUEST_DR7, 1 << 10 | 1 << 5 | 1 << 24 | 3 << 26);
    vm_registers.rbx = (uint64_t)&watched;
    vm_run(guest_watch);
    check_event(EVENT_EXCEPTION | VECTOR_DB, 1 << 2, guest_watch + 6, "data breakpoint 2, after the write");
    check(read_dr7() == 1 << 10, "in the host DR7 is 0x400");
    vmcs_write(VMCS_GUEST_DR7, 1 << 10);
}

static void test_during_delivery(void)
{
    struct gate64 *gate = idt_gate(0x20);
    vm_create((struct vm_controls){0});
    vmcs_write(VMCS_EXCEPTION_BITMAP, 1 << VECTOR_NP | 1 << VECTOR_PF | 1 << VECTOR_GP);
    gate->type &= (uint8_t)~GATE_PRESENT;
    vm_run(guest_int_20);
    gate->type |= GATE_PRESENT;
    check_event(EVENT_EXCEPTION | EVENT_ERROR_CODE | VECTOR_NP, 0, guest_int_20, "INT 20h through a gate not present");
    check_field(VMCS_EXIT_INTERRUPTION_ERROR_CODE, 0x20 * 8 + 2, "error code: the gate, no EXT");
    check_field(VMCS_IDT_VECTORING_INFO, EVENT_SOFTWARE | 0x20, "IDT-vectoring information: a software interrupt");
    check_field(VMCS_EXIT_INSTRUCTION_LENGTH, 2, "instruction length: the INT's");

    idt_gate(VECTOR_UD)->type &= (uint8_t)~GATE_PRESENT;
    vm_run(guest_ud);
    idt_gate(VECTOR_UD)->type |= GATE_PRESENT;
    check_event(EVENT_EXCEPTION | EVENT_ERROR_CODE | VECTOR_NP, 0, guest_ud, "#UD through a gate not present");
    check_field(VMCS_EXIT_INTERRUPTION_ERROR_CODE, VECTOR_UD * 8 + 3, "error code: the gate, EXT");
    check_field(VMCS_IDT_VECTORING_INFO, EVENT_EXCEPTION | VECTOR_UD, "IDT-vectoring information: #UD");

    idt_gate(VECTOR_GP)->type &= (uint8_t)~GATE_PRESENT;
    vmcs_write(VMCS_EXCEPTION_BITMAP, 1 << VECTOR_NP);
    vm_run(guest_gp);
    check_event(EVENT_EXCEPTION | EVENT_ERROR_CODE | VECTOR_NP, 0, guest_gp + 5, "#GP through a gate not present");
    check_field(VMCS_IDT_VECTORING_INFO, EVENT_EXCEPTION | EVENT_ERROR_CODE | VECTOR_GP,
                "IDT-vectoring information: #GP");
    check_field(VMCS_IDT_VECTORING_ERROR_CODE, 0xFFFC, "IDT-vectoring error code");
    vmcs_write(VMCS_EXCEPTION_BITMAP, 1 << VECTOR_DF);
    vm_run(guest_gp);
    check_event(EVENT_EXCEPTION | EVENT_ERROR_CODE | VECTOR_DF, 0, guest_gp + 5, "the same, with only #DF intercepted");
    check_field(VMCS_IDT_VECTORING_INFO, 0, "no IDT-vectoring information");
    check_field(VMCS_EXIT_INTERRUPTION_ERROR_CODE, 0, "error code 0");

    idt_gate(VECTOR_DF)->type &= (uint8_t)~GATE_PRESENT;
    vmcs_write(VMCS_EXCEPTION_BITMAP, 0);
    vm_run(guest_gp);
    check_exit_at(EXIT_TRIPLE_FAULT, guest_gp + 5, "the same, without a double-fault gate");
    check_field(VMCS_EXIT_INTERRUPTION_INFO, 0, "no interruption information");
    check_field(VMCS_IDT_VECTORING_INFO, 0, "no IDT-vectoring information");
    vmcs_write(VMCS_EXCEPTION_BITMAP, 1 << VECTOR_NP);
    idt_gate(VECTOR_NP)->type &= (uint8_t)~GATE_PRESENT;
    vm_run(guest_iret);
    idt_gate(VECTOR_NP)->type |= GATE_PRESENT;
    idt_gate(VECTOR_DF)->type |= GATE_PRESENT;
    idt_gate(VECTOR_GP)->type |= GATE_PRESENT;
    check(vmcs_read(VMCS_EXIT_REASON) == EXIT_EXCEPTION_OR_NMI, "a fault of IRET during whose delivery another occurs");

    static const struct descriptor_table_register empty = {0, 0};
    vm_registers.rbx = (uint64_t)&empty;
    vmcs_write(VMCS_EXCEPTION_BITMAP, 0);
    vm_run(guest_lidt_ud);
    check_exit_at(EXIT_TRIPLE_FAULT, guest_lidt_ud + 3, "any exception with an empty IDT");
    vmcs_write(VMCS_GUEST_IDTR_LIMIT, sidt().limit);
    vmcs_write(VMCS_GUEST_IDTR_BASE, sidt().base);
}

/* The guest's stack for IST 4 lies in a page that EPT does not let it write, or that its own tables do not have. */
static void test_stack_faults(void)
{
    enum { TSS_IST1 = 36, IST = 4 };
    struct gate64 *gate = idt_gate(0x20);
    uint64_t *ist = (uint64_t *)(boot_tss + TSS_IST1 + (IST - 1) * 8);
    page_set(5, 0);
    __builtin_memcpy(ist, &(uint64_t){page_address(5) + 512}, 8);
    gate->ist = IST;
    vm_create((struct vm_controls){.secondary = SECONDARY_ENABLE_EPT});
    vmcs_write(VMCS_EPTP, vm_eptp());
    vmcs_write(VMCS_EXCEPTION_BITMAP, 1 << VECTOR_PF);
    vm_run(guest_int_20);
    check_event(EVENT_EXCEPTION | EVENT_ERROR_CODE | VECTOR_PF, page_address(5) + 504, guest_int_20,
                "INT 20h, its stack not present");
    check_field(VMCS_IDT_VECTORING_INFO, EVENT_SOFTWARE | 0x20, "IDT-vectoring information");
    check_field(VMCS_GUEST_RSP, (uint64_t)(vm_stack + sizeof vm_stack), "RSP is as before");

    page_set(5, (uint64_t)frame | PTE_P | PTE_W);
    *vm_ept_entry(frame) = (uint64_t)frame | (EPT_ALL & ~2u);
    vm_run(guest_int_20);
    check_exit_at(EXIT_EPT_VIOLATION, guest_int_20, "INT 20h, its stack not writable in EPT");
    check((vmcs_read(VMCS_EXIT_QUALIFICATION) & VIOLATION_BITS) == 0x1AA,
          "qualification: write, linear address, its page");
    check_field(VMCS_GUEST_LINEAR_ADDRESS, page_address(5) + 504, "guest linear address: the first push");
    check_field(VMCS_GUEST_PHYSICAL_ADDRESS, (uint64_t)frame + 504, "guest-physical address");
    check_field(VMCS_IDT_VECTORING_INFO, EVENT_SOFTWARE | 0x20, "IDT-vectoring information");
    check_field(VMCS_EXIT_INSTRUCTION_LENGTH, 2, "instruction length");

    *vm_ept_entry(frame) = (uint64_t)frame | EPT_ALL;
    vmcs_write(VMCS_ENTRY_INTERRUPTION_INFO, EVENT_SOFTWARE | 0x20);
    vmcs_write(VMCS_ENTRY_INSTRUCTION_LENGTH, 2);
    trap_resume_rip = (uint64_t)guest_int_20 + 2;
    check(vm_resume() == EXIT_VMCALL && trap.frame.rip == (uint64_t)guest_int_20 + 2,
          "repaired and injected: it is delivered, RIP after the INT");
    check(trap.stack == page_address(5) + 512, "on its stack");
    check_field(VMCS_ENTRY_INTERRUPTION_INFO, 0x20 | 4 << 8, "the exit cleared the valid bit");

    page_set(5, 0);
    idt_gate(VECTOR_DF)->type &= (uint8_t)~GATE_PRESENT;
    vm_registers.rbx = page_address(5);
    idt_gate(VECTOR_PF)->ist = IST;
    vmcs_write(VMCS_EXCEPTION_BITMAP, 0);
    vm_run(guest_read);
    check_exit_at(EXIT_TRIPLE_FAULT, guest_read, "#PF, #PF on its stack, #NP of #DF");
    idt_gate(VECTOR_PF)->ist = 0;
    idt_gate(VECTOR_DF)->type |= GATE_PRESENT;
    gate->ist = 0;
}

int main(void)
{
    vm_begin("vmx-exceptions", "the exception bitmap and faults during delivery");
    pages_init();
    test_bitmap();
    test_page_faults();
    test_debug_exceptions();
    test_during_delivery();
    test_stack_faults();
    return check_verdict("%u checks", check_count());
}
