/*
 * Exceptions in 64-bit mode: what each saves and where, error codes, stacks, faults during delivery, single-stepping and
 * breakpoints. SDM 3A "Interrupt and Exception Handling"; SDM 3B "Debug, Branch Profile, TSC, ...".
 */
#include "boot.h"
#include "check.h"
#include "cpu.h"
#include "io.h"
#include "pages.h"
#include "string.h"
#include "trap.h"
#include "user.h"

enum {
    CR4_DE = 1 << 3,
    CR4_OSFXSR = 1 << 9,
    CR4_OSXMMEXCPT = 1 << 10,
    ERROR_EXT = 1 << 0,
    ERROR_IDT = 1 << 1,
    PF_P = 1 << 0,
    PF_W = 1 << 1,
    PF_U = 1 << 2,
    PF_RSVD = 1 << 3,
    PF_ID = 1 << 4,
    DR6_BD = 1 << 13,
    DR6_BS = 1 << 14,
    DR6_FIXED = 0xFFFF0FF0,
    DR7_FIXED = 1 << 10,
    DR7_GD = 1 << 13,
    SPARE_VECTOR = 0x90,
    IST_TESTED = 3,
    TSS_IST1 = 36,
};

static void write_dr0(const volatile void *address) { __asm__ volatile("mov %0, %%dr0" : : "r"(address)); }
static void write_dr1(const volatile void *address) { __asm__ volatile("mov %0, %%dr1" : : "r"(address)); }
static void write_dr6(uint64_t value) { __asm__ volatile("mov %0, %%dr6" : : "r"(value)); }
static void write_dr7(uint64_t value) { __asm__ volatile("mov %0, %%dr7" : : "r"(value)); }

static void check_rf(bool expected, const char *what)
{
    check(!(trap.frame.rflags & RFLAGS_RF) == !expected, "%s: RF saved as %u", what, expected);
}

static void test_vectors(void)
{
    TRY("nop; div %%ecx", : : "a"(1), "d"(0), "c"(0) : "cc");
    check_trap(VECTOR_DE, 0, 1, "DIV by 0: #DE at the instruction");
    check_rf(true, "#DE");
    TRY("idiv %%ecx", : : "a"(0x80000000), "d"(-1), "c"(-1) : "cc");
    check_trap(VECTOR_DE, 0, 0, "IDIV that overflows: #DE");
    TRY("nop; int3; nop", :);
    check_trap(VECTOR_BP, 0, 2, "INT3: #BP after the instruction");
    check_rf(false, "#BP");
    TRY("ud2", :);
    check_trap(VECTOR_UD, 0, 0, "UD2: #UD at the instruction");
    TRY(".byte 0x06", :);
    check_trap(VECTOR_UD, 0, 0, "PUSH ES in 64-bit mode: #UD");
    TRY(".byte 0xF0, 0x90", :);
    check_trap(VECTOR_UD, 0, 0, "LOCK NOP: #UD");
    TRY(".byte 0xF0, 0x01, 0xC1", : : : "rcx", "cc");
    check_trap(VECTOR_UD, 0, 0, "LOCK ADD to a register: #UD");
    TRY(".byte 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x90", :);
    check_trap(VECTOR_GP, 0, 0, "an instruction of 16 bytes: #GP(0)");
    TRY(".byte 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0x90", :);
    check_no_trap("an instruction of 15 bytes is executed");
}

static void test_fpu(void)
{
    uint64_t cr0 = read_cr0(), cr4 = read_cr4();
    write_cr4(cr4 | CR4_OSFXSR | CR4_OSXMMEXCPT);
    write_cr0((cr0 & ~CR0_EM) | CR0_MP | CR0_NE);
    write_cr0(read_cr0() | CR0_TS);
    TRY("fnop", :);
    check_trap(VECTOR_NM, 0, 0, "x87 with CR0.TS: #NM");
    TRY("wait", :);
    check_trap(VECTOR_NM, 0, 0, "WAIT with CR0.TS and MP: #NM");
    TRY("clts; fninit; fldcw %0; fld1; fldz; fdivrp; fnop; nop", : : "m"((uint16_t){0x37B}));
    check(trap.taken && trap.frame.vector == VECTOR_MF, "unmasked division by zero: #MF at the next x87 instruction");
    TRY("fnclex; fninit", :);
    check_no_trap("FNCLEX ends it");
    write_cr0((read_cr0() & ~CR0_TS) | CR0_EM);
    TRY("fnop", :);
    check_trap(VECTOR_NM, 0, 0, "x87 with CR0.EM: #NM");
    TRY("xorps %%xmm0, %%xmm0", :);
    check_trap(VECTOR_UD, 0, 0, "SSE with CR0.EM: #UD");
    write_cr0(read_cr0() & ~CR0_EM);
    uint32_t mxcsr = 0x1F80 & ~0x200u; /* division by zero not masked */
    TRY("ldmxcsr %0; xorps %%xmm1, %%xmm1; movss %1, %%xmm0; 1: divss %%xmm1, %%xmm0", : : "m"(mxcsr), "m"((float){1}));
    check(trap.taken && trap.frame.vector == VECTOR_XM, "unmasked division by zero in SSE: #XM");
    mxcsr = 1u << 16;
    TRY("ldmxcsr %0", : : "m"(mxcsr));
    check(trap.taken && trap.frame.vector == VECTOR_GP, "reserved bit of MXCSR: #GP");
    mxcsr = 0x1F80;
    TRY("ldmxcsr %0", : : "m"(mxcsr));
    write_cr4(cr4);
    TRY("xorps %%xmm0, %%xmm0", :);
    check_trap(VECTOR_UD, 0, 0, "SSE without CR4.OSFXSR: #UD");
    write_cr0(cr0);
}

void user_read_stack(void);
__asm__("user_read_stack: mov $0x800000000000, %rbp; mov (%rbp), %al; int3");

static void test_protection(void)
{
    user_gdt[GDT_SPARE / 8] = 0x00CF13000000FFFF;     /* data, not present */
    user_gdt[GDT_SPARE / 8 + 1] = 0x00CF91000000FFFF; /* data, read-only */
    TRY("mov %%ecx, %%ds", : : "c"(GDT_SPARE));
    check_trap(VECTOR_NP, GDT_SPARE, 0, "DS := a segment not present: #NP(selector)");
    TRY("mov %%ecx, %%ss", : : "c"(GDT_SPARE + 8));
    check_trap(VECTOR_GP, GDT_SPARE + 8, 0, "SS := a read-only segment: #GP(selector)");
    user_gdt[GDT_SPARE / 8] = 0x00CF13000000FFFF;
    TRY("mov %%ecx, %%ss", : : "c"(GDT_SPARE));
    check_trap(VECTOR_SS, GDT_SPARE, 0, "SS := a segment not present: #SS(selector)");
    TRY("mov %%ecx, %%es", : : "c"(0x1000));
    check_trap(VECTOR_GP, 0x1000, 0, "ES := beyond the GDT: #GP(selector)");
    TRY("mov %%ecx, %%es", : : "c"(0x1007));
    check_trap(VECTOR_GP, 0x1004, 0, "ES := LDT selector without LDT: #GP(selector, TI, no RPL)");
    TRY("mov %%ecx, %%ds; mov %%edx, %%ds", : : "c"(3), "d"(BOOT_DS));
    check_no_trap("DS := null selector");

    uint64_t bad = UINT64_C(1) << 47;
    TRY("mov (%0), %%al", : : "r"(bad) : "rax");
    check_trap(VECTOR_GP, 0, 0, "non-canonical read: #GP(0)");
    user_run(user_read_stack);
    check(trap.taken && trap.frame.vector == VECTOR_SS && trap.frame.error_code == 0,
          "non-canonical read through RBP: #SS(0)");
    TRY("mov %%al, -1(%0)", : : "r"(bad + 1));
    check_trap(VECTOR_GP, 0, 0, "write of the first non-canonical byte: #GP(0)");
    TRY("mov %%ax, -1(%0)", : : "r"(bad));
    check(trap.taken && (trap.frame.vector == VECTOR_GP || trap.frame.vector == VECTOR_PF),
          "a write across the end of the canonical half faults");
    TRY("jmp *%0", : : "r"(bad));
    check_trap(VECTOR_GP, 0, 0, "JMP to a non-canonical address: #GP(0) at the JMP");
    TRY("push %0; ret", : : "r"(bad));
    check(trap.taken && trap.frame.vector == VECTOR_GP, "RET to a non-canonical address: #GP(0)");
    TRY("wrmsr", : : "c"(MSR_IA32_FS_BASE), "a"(0), "d"(0x8000));
    check_trap(VECTOR_GP, 0, 0, "WRMSR of a non-canonical FS base: #GP(0)");
    TRY("rdmsr", : : "c"(0x4000FFFF) : "rax", "rdx");
    check_trap(VECTOR_GP, 0, 0, "RDMSR of an MSR that does not exist: #GP(0)");
    TRY("mov %0, %%cr0", : : "r"((read_cr0() | CR0_PG) & ~CR0_PE));
    check_trap(VECTOR_GP, 0, 0, "CR0 with PG and without PE: #GP(0)");
    TRY("mov %0, %%cr4", : : "r"(read_cr4() & ~CR4_PAE));
    check_trap(VECTOR_GP, 0, 0, "CR4 without PAE in IA-32e mode: #GP(0)");
    TRY("mov %0, %%cr4", : : "r"(read_cr4() | UINT64_C(1) << 63));
    check_trap(VECTOR_GP, 0, 0, "a reserved bit of CR4: #GP(0)");
    TRY("mov %0, %%dr7", : : "r"(UINT64_C(1) << 32));
    check_trap(VECTOR_GP, 0, 0, "the high half of DR7: #GP(0)");
}

static void check_page_fault(uint64_t error_code, uint64_t address, const char *what)
{
    check(trap.taken && trap.frame.vector == VECTOR_PF && trap.frame.error_code == error_code && trap.cr2 == address,
          "%s: #PF(0x%lx), CR2 0x%lx", what, trap.taken ? trap.frame.error_code : 0, trap.cr2);
}

static uint8_t frame_of_page[4096] __attribute__((aligned(4096)));

void user_read(void);
void user_write(void);
void user_fetch(void);
void user_rmw(void);
__asm__("user_read:  mov user_target, %rax; mov (%rax), %al; int3\n"
        "user_write: mov user_target, %rax; mov %al, (%rax); int3\n"
        "user_rmw:   mov user_target, %rax; lock addb $0, (%rax); int3\n"
        "user_fetch: mov user_target, %rax; jmp *%rax\n");
uint64_t user_target;

static void test_page_faults(void)
{
    uint64_t frame = (uint64_t)frame_of_page;
    uint64_t target = page_address(3) + 5;
    user_target = target;
    frame_of_page[5] = 0xCC; /* INT3 */
    wrmsr(MSR_IA32_EFER, rdmsr(MSR_IA32_EFER) | EFER_NXE);
    write_cr0(read_cr0() | CR0_WP);

    page_set(3, 0);
    TRY("mov (%0), %%al", : : "r"(target) : "rax");
    check_page_fault(0, target, "supervisor read, not present");
    check_rf(true, "#PF");
    TRY("movb $0xCC, (%0)", : : "r"(target) : "memory");
    check_page_fault(PF_W, target, "supervisor write, not present");
    TRY("jmp *%0", : : "r"(target));
    check_page_fault(PF_ID, target, "supervisor fetch, not present");
    check(trap.frame.rip == target, "RIP is the address that could not be fetched");
    user_run(user_read);
    check_page_fault(PF_U, target, "user read, not present");
    user_run(user_write);
    check_page_fault(PF_U | PF_W, target, "user write, not present");
    user_run(user_fetch);
    check_page_fault(PF_U | PF_ID, target, "user fetch, not present");

    page_set(3, frame | PTE_P | PTE_U);
    TRY("movb $0xCC, (%0)", : : "r"(target) : "memory");
    check_page_fault(PF_P | PF_W, target, "supervisor write, read-only, CR0.WP");
    user_run(user_write);
    check_page_fault(PF_P | PF_U | PF_W, target, "user write, read-only");
    user_run(user_rmw);
    check_page_fault(PF_P | PF_U | PF_W, target, "user read-modify-write, read-only");
    write_cr0(read_cr0() & ~CR0_WP);
    TRY("movb $0xCC, (%0)", : : "r"(target) : "memory");
    check_no_trap("supervisor write, read-only, no CR0.WP");
    write_cr0(read_cr0() | CR0_WP);

    page_set(3, frame | PTE_P | PTE_W);
    user_run(user_read);
    check_page_fault(PF_P | PF_U, target, "user read of a supervisor page");
    user_run(user_write);
    check_page_fault(PF_P | PF_U | PF_W, target, "user write of a supervisor page");
    user_run(user_fetch);
    check_page_fault(PF_P | PF_U | PF_ID, target, "user fetch from a supervisor page");

    page_set(3, frame | PTE_P | PTE_W | PTE_U | PTE_NX);
    TRY("jmp *%0", : : "r"(target));
    check_page_fault(PF_P | PF_ID, target, "supervisor fetch, XD");
    user_run(user_fetch);
    check_page_fault(PF_P | PF_U | PF_ID, target, "user fetch, XD");
    TRY("mov (%0), %%al", : : "r"(target) : "rax");
    check_no_trap("supervisor read, XD");

    page_set(3, frame | PTE_P | PTE_W | PTE_U | PTE_RESERVED);
    TRY("mov (%0), %%al", : : "r"(target) : "rax");
    check_page_fault(PF_P | PF_RSVD, target, "supervisor read, reserved bit");
    user_run(user_write);
    check_page_fault(PF_P | PF_RSVD | PF_U | PF_W, target, "user write, reserved bit");

    page_set(3, frame | PTE_P | PTE_W | PTE_U);
    user_run(user_fetch);
    check(trap.taken && trap.frame.vector == VECTOR_BP, "user fetch, allowed");
    pages_directory[1] = frame | PTE_P | PTE_W | PTE_PS | (1 << 13);
    uint64_t large = PAGES_BASE + (2 << 20);
    TRY("mov (%0), %%al", : : "r"(large) : "rax");
    check_page_fault(PF_P | PF_RSVD, large, "bit 13 of the entry of a 2-MiB page");
    pages_directory[1] = 0;

    page_set(4, 0);
    TRY("mov %%rax, (%0)", : : "r"(page_address(4) - 3) : "memory");
    check_page_fault(PF_W, page_address(4), "a write across pages, the second not present");
    check(frame_of_page[4093] == 0, "nothing of it was written");
}

static uint64_t seen_rsp, seen_ss;
static void note_stack(struct interrupt_frame *frame)
{
    seen_rsp = (uint64_t)(frame + 1);
    uint16_t ss;
    __asm__("mov %%ss, %0" : "=r"(ss));
    seen_ss = ss;
    (void)frame;
}

void user_software_interrupt(void);
__asm__("user_software_interrupt: int $0x90; ud2");

static void test_stacks(void)
{
    static uint8_t ist_stack[4096] __attribute__((aligned(16)));
    uint64_t ist_top = (uint64_t)(ist_stack + sizeof ist_stack) - 8; /* to be aligned down */
    memcpy(boot_tss + TSS_IST1 + (IST_TESTED - 1) * 8, &ist_top, sizeof ist_top);
    idt_set_handler(SPARE_VECTOR, note_stack);

    uint64_t rsp;
    __asm__ volatile("mov %%rsp, %0; int $0x90" : "=&r"(rsp) : : "memory");
    check(seen_rsp == (rsp & ~UINT64_C(15)), "same privilege: pushes begin at RSP, aligned to 16 bytes");
    check(seen_ss == BOOT_DS, "SS is unchanged");
    __asm__ volatile("mov %%rsp, %%rbx; lea -8(%%rsp), %%rsp; mov %%rsp, %0; int $0x90; mov %%rbx, %%rsp"
                     : "=&r"(rsp)
                     :
                     : "memory", "rbx");
    check(seen_rsp == (rsp & ~UINT64_C(15)), "also if RSP was 8 bytes off");

    idt_gate(SPARE_VECTOR)->ist = IST_TESTED;
    __asm__ volatile("int $0x90" : : : "memory");
    check(seen_rsp == (ist_top & ~UINT64_C(15)), "IST: the stack is the TSS's, aligned to 16 bytes");
    idt_gate(SPARE_VECTOR)->ist = 0;

    user_run(user_software_interrupt);
    check(trap.taken && trap.frame.vector == VECTOR_GP && trap.frame.error_code == SPARE_VECTOR * 8 + ERROR_IDT &&
              trap.offset == 0,
          "INT n from privilege level 3, gate DPL 0: #GP(IDT entry)");
    check(trap.frame.cs == USER_CS64 && trap.frame.ss == USER_DS, "saved CS and SS are the user's");
    check(trap.frame.rsp == (uint64_t)(user_stack + sizeof user_stack), "saved RSP is the user's");
    check(trap.stack == (uint64_t)(kernel_stack + sizeof kernel_stack), "the stack is RSP0's");

    idt_gate(SPARE_VECTOR)->type |= GATE_DPL_3;
    seen_ss = 1;
    user_run(user_software_interrupt);
    check(trap.taken && trap.frame.vector == VECTOR_UD && trap.offset == 2, "gate DPL 3: handled, and back to level 3");
    check(seen_ss == 0, "in the handler SS is null");
    idt_gate(SPARE_VECTOR)->ist = IST_TESTED;
    user_run(user_software_interrupt);
    check(seen_rsp == (ist_top & ~UINT64_C(15)), "IST from level 3");
    idt_gate(SPARE_VECTOR)->ist = 0;
    trap_on_vector(SPARE_VECTOR);
    TRY("stc; std; int $0x90", : : : "cc");
    __asm__ volatile("cld");
    check_trap(SPARE_VECTOR, 0, 4, "INT n: RIP after the instruction");
    check((trap.frame.rflags & (RFLAGS_CF | RFLAGS_DF)) == (RFLAGS_CF | RFLAGS_DF), "saved RFLAGS has CF and DF");
}

static uint64_t handler_rflags;
static void note_rflags(struct interrupt_frame *frame)
{
    __asm__ volatile("pushfq; pop %0" : "=r"(handler_rflags));
    (void)frame;
}

static void test_gates(void)
{
    struct gate64 *gate = idt_gate(SPARE_VECTOR);
    idt_set_handler(SPARE_VECTOR, note_rflags);
    gate->type = GATE_INTERRUPT_64;
    __asm__ volatile("sti; nop; int $0x90; cli" : : : "memory", "cc");
    check(!(handler_rflags & RFLAGS_IF), "an interrupt gate clears IF");
    gate->type = GATE_TRAP_64;
    __asm__ volatile("sti; nop; int $0x90; cli" : : : "memory", "cc");
    check(handler_rflags & RFLAGS_IF, "a trap gate leaves it");
    trap_on_vector(SPARE_VECTOR);

    gate->type = GATE_INTERRUPT_64 & ~GATE_PRESENT;
    TRY("int $0x90", :);
    check_trap(VECTOR_NP, SPARE_VECTOR * 8 + ERROR_IDT, 0, "INT n, gate not present: #NP(IDT entry)");
    gate->type = GATE_PRESENT | 5;
    TRY("int $0x90", :);
    check_trap(VECTOR_GP, SPARE_VECTOR * 8 + ERROR_IDT, 0, "INT n, a task gate in IA-32e mode: #GP(IDT entry)");
    gate->type = GATE_INTERRUPT_64;
    gate->selector = BOOT_DS;
    TRY("int $0x90", :);
    check_trap(VECTOR_GP, BOOT_DS, 0, "INT n, gate to a data segment: #GP(selector)");
    gate->selector = 0;
    TRY("int $0x90", :);
    check_trap(VECTOR_GP, 0, 0, "INT n, gate with a null selector: #GP(0)");
    gate->selector = KERNEL_CS32;
    TRY("int $0x90", :);
    check_trap(VECTOR_GP, KERNEL_CS32, 0, "INT n, gate to a 32-bit segment: #GP(selector)");
    gate->selector = BOOT_CS;

    struct descriptor_table_register whole = sidt(), cut = whole;
    cut.limit = SPARE_VECTOR * 16 + 14;
    lidt(&cut);
    TRY("int $0x90", :);
    lidt(&whole);
    check_trap(VECTOR_GP, SPARE_VECTOR * 8 + ERROR_IDT, 0, "INT n, entry beyond the IDT's limit: #GP(IDT entry)");

    idt_gate(VECTOR_UD)->type &= ~GATE_PRESENT;
    TRY("ud2", :);
    idt_gate(VECTOR_UD)->type |= GATE_PRESENT;
    check_trap(VECTOR_NP, VECTOR_UD * 8 + ERROR_IDT + ERROR_EXT, 0, "#UD, gate not present: #NP(IDT entry, EXT)");

    idt_gate(VECTOR_DE)->type &= ~GATE_PRESENT;
    TRY("div %%ecx", : : "a"(1), "d"(0), "c"(0) : "cc");
    idt_gate(VECTOR_DE)->type |= GATE_PRESENT;
    check(trap.taken && trap.frame.vector == VECTOR_DF && trap.frame.error_code == 0, "#DE, then #NP: #DF(0)");
    idt_gate(VECTOR_GP)->type &= ~GATE_PRESENT;
    TRY("rdmsr", : : "c"(0x4000FFFF) : "rax", "rdx");
    check(trap.taken && trap.frame.vector == VECTOR_DF && trap.frame.error_code == 0, "#GP, then #NP: #DF(0)");
    idt_gate(VECTOR_GP)->type |= GATE_PRESENT;
    page_set(3, 0);
    idt_gate(VECTOR_PF)->type &= ~GATE_PRESENT;
    TRY("mov (%0), %%al", : : "r"(page_address(3)) : "rax");
    idt_gate(VECTOR_PF)->type |= GATE_PRESENT;
    check(trap.taken && trap.frame.vector == VECTOR_DF && trap.frame.error_code == 0, "#PF, then #NP: #DF(0)");
    check(trap.stack != 0 && trap.cr2 == page_address(3), "CR2 is the page fault's");

    TRY("mov %0, %%rsp; push %%rax", : : "r"(page_address(3) + 64));
    check(trap.taken && trap.frame.vector == VECTOR_DF, "a stack that is not present: #PF, then #PF: #DF");

    uint64_t bad_stack = page_address(3) + 256;
    memcpy(boot_tss + TSS_IST1 + (IST_TESTED - 1) * 8, &bad_stack, sizeof bad_stack);
    gate->ist = IST_TESTED;
    TRY("int $0x90", :);
    check(trap.taken && trap.frame.vector == VECTOR_PF && trap.offset == 0 && trap.frame.error_code == PF_W,
          "INT n to an IST stack that is not present: #PF at the INT");
    check(trap.cr2 == bad_stack - 8, "CR2 is the first push's");
    bad_stack = UINT64_C(1) << 60;
    memcpy(boot_tss + TSS_IST1 + (IST_TESTED - 1) * 8, &bad_stack, sizeof bad_stack);
    TRY("int $0x90", :);
    check(trap.taken && trap.frame.vector == VECTOR_SS, "INT n to a non-canonical IST stack: #SS");
    gate->ist = 0;
}

static struct {
    unsigned count;
    uint64_t offset[64], dr6[64];
    uint64_t base;
    uint64_t dr7_in_handler;
} steps;

static void log_step(struct interrupt_frame *frame)
{
    uint64_t dr6;
    __asm__ volatile("mov %%dr6, %0" : "=r"(dr6));
    write_dr6(DR6_FIXED);
    steps.dr7_in_handler = read_dr7();
    if (steps.count < 64) {
        steps.offset[steps.count] = frame->rip - steps.base;
        steps.dr6[steps.count] = dr6;
    }
    steps.count++;
    frame->rflags |= RFLAGS_RF; /* of consequence at an instruction breakpoint */
}

static bool steps_are(const uint8_t *offsets, unsigned count)
{
    bool same = steps.count == count;
    for (unsigned i = 0; i < count && i < 64; i++) {
        same = same && steps.offset[i] == offsets[i];
    }
    if (!same) {
        for (unsigned i = 0; i < steps.count && i < 64; i++) {
            note("step %u: offset 0x%lx, DR6 0x%lx", i, steps.offset[i], steps.dr6[i]);
        }
    }
    return same;
}

extern const uint8_t step_code[];
static void run_steps(void)
{
    steps.count = 0;
    steps.base = (uint64_t)step_code;
    write_dr6(DR6_FIXED);
    __asm__ volatile("mov %%rsp, %%rbp\n"
                     "lea -64(%%rsp), %%rsp\n"
                     "push %%rax\n"
                     "mov %%ss, %%edx\n"
                     "lea step_bytes, %%rsi\n"
                     "lea step_bytes + 8, %%rdi\n"
                     "mov $3, %%ecx\n"
                     "pushfq\n"
                     "pushfq\n"
                     "orq $0x100, (%%rsp)\n"
                     "popfq\n"
                     ".globl step_code\n"
                     "step_code:\n"
                     "nop\n"             /* 0: the trap comes after it, not after POPF */
                     "mov %%edx, %%ss\n" /* 1: no trap after it */
                     "nop\n"             /* 3 */
                     "rep movsb\n"       /* 4: after each iteration */
                     "sti\n"             /* 6 */
                     "nop\n"             /* 7 */
                     "int $0x91\n"       /* 8: returns with TF */
                     "nop\n"             /* a */
                     "popfq\n"           /* b: the last trap is after it */
                     "nop\n"             /* c */
                     "mov %%rbp, %%rsp\n"
                     "cli\n"
                     :
                     :
                     : "rax", "rbp", "rcx", "rdx", "rsi", "rdi", "memory", "cc");
}
uint8_t step_bytes[16];

static void ignore(struct interrupt_frame *frame) { (void)frame; }

static void test_single_step(void)
{
    idt_set_handler(VECTOR_DB, log_step);
    idt_set_handler(0x91, ignore);
    run_steps();
    static const uint8_t expected[] = {1, 4, 4, 4, 6, 7, 8, 0xB, 0xC};
    check(steps_are(expected, sizeof expected),
          "single-stepping: not after POPF and MOV SS, after each REP iteration, after STI, not after INT n");
    bool all_bs = true;
    for (unsigned i = 0; i < steps.count && i < 64; i++) {
        all_bs = all_bs && steps.dr6[i] == (DR6_FIXED | DR6_BS);
    }
    check(all_bs, "DR6 has BS and nothing else each time");
    check(step_bytes[8] == step_bytes[0], "and REP MOVSB did its work");
    trap_on_vector(VECTOR_DB);
    TRY("pushfq; orl $0x100, (%%rsp); popfq; ud2", : : : "cc", "memory");
    check_trap(VECTOR_UD, 0, 9, "a fault in a stepped instruction comes first");
    check(trap.frame.rflags & RFLAGS_TF, "its saved RFLAGS has TF");
}

static volatile uint32_t watched[4] __attribute__((aligned(16)));

static void test_breakpoints(void)
{
    extern const uint8_t breakpoint_here[];
    idt_set_handler(VECTOR_DB, log_step);
    write_dr6(DR6_FIXED);
    write_dr0(breakpoint_here);
    write_dr7(DR7_FIXED | 2); /* G0: instruction execution */
    steps.count = 0;
    steps.base = (uint64_t)breakpoint_here;
    uint32_t value = 0;
    __asm__ volatile("nop\n"
                     ".globl breakpoint_here\n"
                     "breakpoint_here: inc %0\n"
                     "nop\n"
                     : "+r"(value)
                     :
                     : "cc", "memory");
    check(steps.count == 1 && steps.offset[0] == 0, "instruction breakpoint: #DB at the instruction, once with RF: %u",
          steps.count);
    check(steps.dr6[0] == (DR6_FIXED | 1), "DR6.B0: 0x%lx", steps.dr6[0]);
    check(value == 1, "then the instruction is executed");

    write_dr0(watched + 1);
    write_dr7(DR7_FIXED | 2 | 1 << 16 | 3 << 18); /* write, 4 bytes */
    steps.count = 0;
    extern const uint8_t data_next[];
    steps.base = (uint64_t)data_next;
    __asm__ volatile("nop\n"
                     "movb $1, 6+%0\n"
                     ".globl data_next\n"
                     "data_next: mov 4+%0, %%eax\n"
                     "movl $2, 8+%0\n"
                     "movl $3, %0\n"
                     "movl $4, 1+%0\n"
                     "nop\n"
                     : "+m"(watched[0])
                     :
                     : "rax", "memory");
    check(steps.count == 2, "data breakpoint on writes: the byte within and the dword that overlaps, 2 traps: %u",
          steps.count);
    check(steps.dr6[0] == (DR6_FIXED | 1) && steps.offset[0] == 0, "#DB after the write: offset %lu, DR6 0x%lx",
          steps.offset[0], steps.dr6[0]);

    write_dr0(0);
    write_dr1(watched + 1);
    write_dr7(DR7_FIXED | 8 | 3 << 20 | 3 << 22); /* G1: read or write, 4 bytes */
    steps.count = 0;
    __asm__ volatile("mov 4+%0, %%eax; mov %0, %%eax; movl $1, 4+%0" : "+m"(watched[0]) : : "rax", "memory");
    check(steps.count == 2 && steps.dr6[0] == (DR6_FIXED | 2), "data breakpoint on reads and writes: %u traps",
          steps.count);

    steps.count = 0;
    extern const uint8_t rep_here[];
    steps.base = (uint64_t)rep_here;
    __asm__ volatile(".globl rep_here\n"
                     "rep_here: rep stosl\n"
                     :
                     : "a"(0), "D"(watched), "c"(4)
                     : "memory");
    check(steps.count == 1 && steps.offset[0] == 0, "REP STOS: #DB after the iteration, at the instruction: %u, 0x%lx",
          steps.count, steps.offset[0]);
    check(watched[3] == 0, "and it went on to its end");
    write_dr1(0);

    write_dr7(DR7_FIXED | DR7_GD);
    trap_on_vector(VECTOR_DB);
    TRY("mov %%dr3, %%rax; nop", : : : "rax");
    check_trap(VECTOR_DB, 0, 0, "MOV DR with DR7.GD: #DB at the instruction");
    check((trap.dr6 & DR6_BD) && read_dr7() == DR7_FIXED, "DR6.BD is set and DR7.GD cleared");
    write_dr6(DR6_FIXED);

    write_dr7(DR7_FIXED);
    TRY("mov %%dr4, %%rax; mov %%rax, %%dr5", : : : "rax");
    write_dr7(DR7_FIXED);
    write_dr6(DR6_FIXED);
    check_no_trap("DR4 and DR5 stand for DR6 and DR7 without CR4.DE");
    write_cr4(read_cr4() | CR4_DE);
    TRY("mov %%dr4, %%rax", : : : "rax");
    check_trap(VECTOR_UD, 0, 0, "with CR4.DE: #UD");
    __asm__ volatile("mov %0, %%dr0" : : "r"(UINT64_C(0x80)));
    write_dr7(DR7_FIXED | 2 | 2 << 16); /* I/O, 1 byte */
    TRY("inb $0x61, %%al; outb %%al, $0x80; nop; nop", : : : "rax");
    write_dr7(DR7_FIXED);
    check_trap(VECTOR_DB, 0, 4, "I/O breakpoint: #DB after the OUT");
    check((trap.dr6 & 0xF) == 1, "DR6.B0");
    write_dr6(DR6_FIXED);
    write_cr4(read_cr4() & ~(uint64_t)CR4_DE);

    TRY(".byte 0xF1; nop", :);
    check_trap(VECTOR_DB, 0, 1, "INT1: #DB after the instruction");

    /* MOV SS holds back a data breakpoint it meets itself until after the next instruction. */
    static volatile uint16_t selector = BOOT_DS;
    write_dr0(&selector);
    write_dr7(DR7_FIXED | 2 | 3 << 16 | 1 << 18); /* read or write, 2 bytes */
    TRY("mov %0, %%ss; nop; nop; nop", : : "m"(selector));
    write_dr7(DR7_FIXED);
    check(trap.taken && trap.frame.vector == VECTOR_DB && (trap.dr6 & 1), "data breakpoint at MOV SS");
    check(trap.offset >= 4 && ((const uint8_t *)trap.frame.rip)[-1] == 0x90, "comes one instruction later");
    write_dr6(DR6_FIXED);
}

void user_align(void);
void user_align_ok(void);
__asm__("user_align:    mov %rsp, %rax; mov -5(%rax), %ecx; int3\n"
        "user_align_ok: mov %rsp, %rax; mov -5(%rax), %cl; mov -6(%rax), %cx; mov -8(%rax), %ecx; mov -16(%rax), %rcx; "
        "int3\n");

static void run_with_ac(void (*code)(void))
{
    user_enter(&(struct user_state){(uint64_t)code, USER_CS64, RFLAGS_FIXED | RFLAGS_AC,
                                    (uint64_t)(user_stack + sizeof user_stack), USER_DS});
}

static void test_alignment(void)
{
    run_with_ac(user_align);
    check(trap.frame.vector == VECTOR_BP, "RFLAGS.AC without CR0.AM: no #AC");
    write_cr0(read_cr0() | CR0_AM);
    run_with_ac(user_align);
    check_trap(VECTOR_AC, 0, 3, "a misaligned dword at privilege level 3: #AC(0)");
    run_with_ac(user_align_ok);
    check(trap.frame.vector == VECTOR_BP, "aligned accesses of each size are allowed");
    TRY("pushfq; orl $0x40000, (%%rsp); popfq; mov -5(%%rsp), %%ecx; pushfq; andl $~0x40000, (%%rsp); popfq",
        :
        :
        : "rcx", "cc");
    check_no_trap("at privilege level 0: no #AC");
    write_cr0(read_cr0() & ~CR0_AM);
}

int main(void)
{
    check_begin("exceptions", "delivery, error codes, debug exceptions in 64-bit mode");
    trap_init();
    user_init();
    pages_init();
    test_vectors();
    test_fpu();
    test_protection();
    test_page_faults();
    test_stacks();
    test_gates();
    test_single_step();
    test_breakpoints();
    test_alignment();
    return check_verdict("%u checks", check_count());
}
