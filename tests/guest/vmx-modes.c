/*
 * An unrestricted guest below EPT that goes its whole way: real mode with its interrupt vector table, protected mode, task
 * switches (which exit), long mode. SDM 3C "Unrestricted Guests", "Task Switches"; exit qualification for task switches.
 */
#include "check.h"
#include "cpu.h"
#include "string.h"
#include "trap.h"
#include "vm.h"

enum {
    BASE = 0x20000, /* where the guest's program is copied: real mode reaches it */
    SELECTOR_TSS = 0x20,
    SELECTOR_TASK_GATE = 0x28,
    SOURCE_CALL = 0,
    SOURCE_IRET = 1,
    SOURCE_JMP = 2,
    SOURCE_GATE = 3,
    EFLAGS_NT = 1 << 14,
};

extern const uint8_t program[], program_end[], at_hlt[], at_real_ud[], at_call[], at_jmp[], at_iret[], at_int[],
    at_task_ud[], at_protected[], at_long[], at_gate_call[];
__asm__(".code16\n"
        "program:\n"
        "mov %cs, %ax; mov %ax, %ds; mov %ax, %ss; mov $0xF000, %sp; mov $0, %cx\n"
        "mov $0x600D, %bx; int $0x21\n" /* its handler adds one to BX */
        "at_hlt: hlt\n"
        "at_real_ud: ud2\n" /* its handler skips it */
        "lgdtl gdt_register - program\n"
        "mov %cr0, %eax; or $1, %al; mov %eax, %cr0\n"
        "ljmpl $8, $(1f - program + 0x20000)\n"
        ".code32\n"
        "1: mov $0x10, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss; mov $0x2F000, %esp\n"
        "mov $0x18, %eax; ltr %ax\n"
        "lidt idt_register - program + 0x20000\n"
        "at_protected: vmcall\n"
        "at_call: lcall $0x20, $0\n"
        "at_jmp: ljmp $0x20, $0\n"
        "at_gate_call: lcall $0x28, $0\n"
        "at_int: int $0x30\n"
        "at_task_ud: ud2\n"
        "pushfl; orl $0x4000, (%esp); popfl\n"
        "at_iret: iret\n"
        "pushfl; andl $~0x4000, (%esp); popfl\n"
        "mov %cr4, %eax; or $0x20, %eax; mov %eax, %cr4\n"
        "mov %esi, %cr3; mov $0xC0000080, %ecx; rdmsr; or $0x100, %eax; wrmsr\n"
        "mov %cr0, %eax; or $0x80000000, %eax; mov %eax, %cr0\n"
        "ljmp $0x30, $(2f - program + 0x20000)\n"
        ".code64\n"
        "2: mov $0x123456789ABCDEF0, %rax\n"
        "at_long: vmcall\n"
        ".code16\n"
        "add_one: inc %bx; iret\n"
        "skip_ud: pop %dx; add $2, %dx; push %dx; iret\n"
        ".balign 8\n"
        "gdt_table: .quad 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF\n"
        ".quad 0x0000890250000067, 0x0000890251000067\n" /* TSSs at 25000h, which LTR makes busy, and 25100h */
        ".quad 0x0000850000200000, 0x00AF9B000000FFFF\n" /* task gate; 64-bit code */
        "gdt_register: .word gdt_register - gdt_table - 1; .long gdt_table - program + 0x20000\n"
        "idt_register: .word 0x31 * 8 - 1; .long 0x26000\n"
        ".globl add_one, skip_ud\n"
        "program_end:\n"
        ".code64\n");
extern const uint8_t add_one[], skip_ud[];

static uint64_t offset_of(const uint8_t *place) { return (uint64_t)(place - program); }
static uint64_t address_of(const uint8_t *place) { return offset_of(place) + BASE; }

static bool launch(void)
{
    uint32_t secondary = SECONDARY_ENABLE_EPT | SECONDARY_UNRESTRICTED_GUEST;
    if (!vm_allows(CONTROLS_SECONDARY, secondary, "unrestricted guests")) {
        return false;
    }
    static uint8_t msr_bitmap[4096] __attribute__((aligned(4096)));
    memcpy((void *)(uint64_t)BASE, program, offset_of(program_end));
    vm_create((struct vm_controls){.primary = PRIMARY_HLT_EXITING | PRIMARY_USE_MSR_BITMAPS, .secondary = secondary});
    vmcs_write(VMCS_MSR_BITMAP, (uint64_t)msr_bitmap);
    vmcs_write(VMCS_ENTRY_CONTROLS, vmcs_read(VMCS_ENTRY_CONTROLS) & ~(uint64_t)ENTRY_IA32E_MODE_GUEST);
    vmcs_write(VMCS_EPTP, vm_eptp());
    vmcs_write(VMCS_GUEST_CR0, read_cr0() & ~(CR0_PE | CR0_PG));
    vmcs_write(VMCS_GUEST_CR4, read_cr4() & ~CR4_PAE);
    vmcs_write(VMCS_GUEST_IA32_EFER, 0);
    for (enum segment_register s = SEGMENT_ES; s <= SEGMENT_GS; s++) {
        vmx_write_guest_segment(s, BASE >> 4, BASE, 0xFFFF,
                                s == SEGMENT_CS ? ACCESS_RIGHTS_CODE16 : ACCESS_RIGHTS_DATA16);
    }
    vmcs_write(VMCS_GUEST_IDTR_BASE, BASE + 0x4000);
    vmcs_write(VMCS_GUEST_IDTR_LIMIT, 0x3FF);
    uint16_t *vectors = (uint16_t *)(uint64_t)(BASE + 0x4000);
    vectors[2 * 0x21] = (uint16_t)offset_of(add_one);
    vectors[2 * 0x21 + 1] = BASE >> 4;
    vectors[2 * VECTOR_UD] = (uint16_t)offset_of(skip_ud);
    vectors[2 * VECTOR_UD + 1] = BASE >> 4;
    uint64_t *idt = (uint64_t *)(uint64_t)(BASE + 0x6000);
    idt[0x30] = UINT64_C(0x0000E50000200000); /* task gates to the TSS, DPL 3 */
    idt[VECTOR_UD] = UINT64_C(0x0000850000200000);
    vmcs_write(VMCS_GUEST_RIP, 0);
    return true;
}

static void test_real_mode(void)
{
    vmcs_write(VMCS_EXCEPTION_BITMAP, 0);
    vm_resume();
    check((uint32_t)vmcs_read(VMCS_EXIT_REASON) == EXIT_HLT && vmcs_read(VMCS_GUEST_RIP) == offset_of(at_hlt),
          "real mode: HLT exits, IP is its offset");
    check((uint16_t)vm_registers.rbx == 0x600E, "INT went through the interrupt vector table and back");
    check_field(VMCS_GUEST_RSP, 0xF000, "SP");
    vmcs_write(VMCS_EXCEPTION_BITMAP, 1 << VECTOR_UD);
    vm_skip();
    check((uint32_t)vmcs_read(VMCS_EXIT_REASON) == EXIT_EXCEPTION_OR_NMI &&
              vmcs_read(VMCS_GUEST_RIP) == offset_of(at_real_ud),
          "#UD in real mode exits");
    check_field(VMCS_EXIT_INTERRUPTION_INFO, EVENT_EXCEPTION | VECTOR_UD, "interruption information");
    vmcs_write(VMCS_ENTRY_INTERRUPTION_INFO, EVENT_EXCEPTION | VECTOR_UD);
    vm_resume();
    check((uint32_t)vmcs_read(VMCS_EXIT_REASON) == EXIT_VMCALL && vmcs_read(VMCS_GUEST_RIP) == address_of(at_protected),
          "injected, it is handled; and the guest comes to protected mode");
    check((vmcs_read(VMCS_GUEST_CR0) & (CR0_PE | CR0_PG)) == CR0_PE, "without paging");
    check_field(VMCS_GUEST_CS_ACCESS_RIGHTS, 0xC09B, "CS is 32-bit code");
    check_field(VMCS_GUEST_TR_SELECTOR, 0x18, "TR");
}

static void check_task_switch(const uint8_t *at, uint64_t source, uint64_t length, const char *what)
{
    bool right = (uint32_t)vmcs_read(VMCS_EXIT_REASON) == EXIT_TASK_SWITCH &&
                 vmcs_read(VMCS_GUEST_RIP) == address_of(at) &&
                 vmcs_read(VMCS_EXIT_QUALIFICATION) == (source << 30 | (source == SOURCE_IRET ? 0x18 : SELECTOR_TSS));
    if (!check(right, "task switch by %s", what)) {
        note("reason %lu, qualification 0x%lx, RIP 0x%lx, want 0x%lx", vmcs_read(VMCS_EXIT_REASON),
             vmcs_read(VMCS_EXIT_QUALIFICATION), vmcs_read(VMCS_GUEST_RIP), address_of(at));
    }
    if (length) {
        check_field(VMCS_EXIT_INSTRUCTION_LENGTH, length, "instruction length");
    }
}

static void resume_at(const uint8_t *place)
{
    vmcs_write(VMCS_GUEST_RIP, address_of(place));
    vm_resume();
}

static void test_task_switches(void)
{
    vmcs_write(VMCS_EXCEPTION_BITMAP, 0);
    vm_skip();
    check_task_switch(at_call, SOURCE_CALL, 7, "CALL");
    check_field(VMCS_GUEST_TR_SELECTOR, 0x18, "TR is the old one");
    check_field(VMCS_IDT_VECTORING_INFO, 0, "no IDT-vectoring information");
    resume_at(at_jmp);
    check_task_switch(at_jmp, SOURCE_JMP, 7, "JMP");
    resume_at(at_gate_call);
    check_task_switch(at_gate_call, SOURCE_CALL, 7, "CALL of a task gate: the TSS's selector");
    resume_at(at_int);
    check_task_switch(at_int, SOURCE_GATE, 2, "INT and a task gate in the IDT");
    check_field(VMCS_IDT_VECTORING_INFO, EVENT_SOFTWARE | 0x30, "IDT-vectoring information");
    resume_at(at_task_ud);
    check_task_switch(at_task_ud, SOURCE_GATE, 0, "#UD and a task gate");
    check_field(VMCS_IDT_VECTORING_INFO, EVENT_EXCEPTION | VECTOR_UD, "IDT-vectoring information");
    *(uint16_t *)(uint64_t)0x25000 =
        0x18; /* the link of the current TSS leads to itself, which is busy as IRET wants */
    resume_at(at_task_ud + 2);
    check_task_switch(at_iret, SOURCE_IRET, 1, "IRET with NT: the link");
}

static void test_long_mode(void)
{
    vm_registers.rsi = read_cr3();
    vmcs_write(VMCS_EXCEPTION_BITMAP, 0xFFFFFFFF);
    resume_at(at_iret + 1);
    check((uint32_t)vmcs_read(VMCS_EXIT_REASON) == EXIT_VMCALL && vmcs_read(VMCS_GUEST_RIP) == address_of(at_long),
          "the guest comes to 64-bit mode without any exit");
    check(vm_registers.rax == UINT64_C(0x123456789ABCDEF0), "and executes 64-bit code");
    check_field(VMCS_GUEST_IA32_EFER, EFER_LME | EFER_LMA, "EFER has LME and LMA");
    if (rdmsr(MSR_IA32_VMX_MISC) & 1 << 5) {
        check(vmcs_read(VMCS_ENTRY_CONTROLS) & ENTRY_IA32E_MODE_GUEST,
              "the exit stored EFER.LMA in the VM-entry controls");
    }
    check_field(VMCS_GUEST_CS_ACCESS_RIGHTS, 0xA09B, "CS is 64-bit code");
}

int main(void)
{
    vm_begin("vmx-modes", "an unrestricted guest from real mode to long mode; task switches");
    if (launch()) {
        test_real_mode();
        test_task_switches();
        test_long_mode();
    }
    return check_verdict("%u checks", check_count());
}
