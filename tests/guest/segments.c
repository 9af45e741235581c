/*
 * Segmentation in 32-bit protected mode, virtual-8086 and real mode: limits, privilege, call gates, task switches.
 * SDM 3A "Protected-Mode Memory Management", "Protection", "Task Management"; SDM 3B "8086 Emulation".
 */
#include "check.h"
#include "start.h"
#include "string.h"

enum {
    VECTOR_BP = 3,
    VECTOR_OF = 4,
    VECTOR_BR = 5,
    VECTOR_UD = 6,
    VECTOR_TS = 10,
    VECTOR_NP = 11,
    VECTOR_SS = 12,
    VECTOR_GP = 13,
    DATA_RW = 0x93,
    DATA_EXPAND_DOWN = 0x97,
    CODE_CONFORMING = 0x9F,
    CODE_EXECUTE_ONLY = 0x99,
    DPL_3 = 0x60,
    CALL_GATE_32 = 0x8C,
    TASK_GATE = 0x85,
    TSS_AVAILABLE = 0x89,
    LDT_TYPE = 0x82,
    FLAG_32BIT = 4,
    FLAG_PAGES = 8,
    EFLAGS_NT = 1 << 14,
    EFLAGS_VM = 1 << 17,
    EFLAGS_IOPL_3 = 3 << 12,
};

uint8_t data[64] __attribute__((aligned(16)));
static uint8_t user_stack[1024] __attribute__((aligned(16)));

static uint16_t spare(unsigned i) { return (uint16_t)(SPARE + 8 * i); }
static uint64_t *slot(unsigned i) { return &gdt[SPARE / 8 + i]; }

static void load_gs(uint16_t selector) { __asm__ volatile("mov %0, %%gs" : : "r"((uint32_t)selector)); }

static void read_gs(uint32_t offset) { TRY("movl %%gs:(%0), %%eax", : : "r"(offset) : "eax"); }

static void test_limits(void)
{
    *slot(0) = descriptor((uint32_t)data, 15, DATA_RW, FLAG_32BIT);
    *(uint32_t *)data = 0x1234;
    load_gs(spare(0));
    uint32_t value;
    __asm__ volatile("movl %%gs:0, %0" : "=r"(value));
    check(value == 0x1234, "a segment's base counts");
    read_gs(12);
    check(!trap.taken, "the last dword within the limit");
    read_gs(13);
    check_trap(VECTOR_GP, 0, 0, "one byte beyond it: #GP(0)");
    load_gs(spare(0)); /* recovery from an exception loads a flat segment */
    read_gs(0xFFFFFFFE);
    check_trap(VECTOR_GP, 0, 0, "wrapping around: #GP(0)");
    *slot(0) = descriptor((uint32_t)data, 0, DATA_RW, FLAG_32BIT | FLAG_PAGES);
    load_gs(spare(0));
    read_gs(0xFFC);
    check(!trap.taken, "a limit of 0 pages is 4 KiB");
    read_gs(0xFFD);
    check_trap(VECTOR_GP, 0, 0, "and no more");
    *slot(0) = descriptor((uint32_t)data - 0x1000, 0xFFF, DATA_EXPAND_DOWN, FLAG_32BIT);
    load_gs(spare(0));
    read_gs(0x1000);
    check(!trap.taken, "expand-down: above the limit");
    read_gs(0xFFF);
    check_trap(VECTOR_GP, 0, 0, "at the limit: #GP(0)");
    *slot(0) = descriptor((uint32_t)data - 0xFF00, 0xFEFF, DATA_EXPAND_DOWN, 0);
    load_gs(spare(0));
    read_gs(0xFFFC);
    check(!trap.taken, "expand-down of 16 bits: up to FFFF");
    read_gs(0xFFFD);
    check_trap(VECTOR_GP, 0, 0, "and no more");
    *slot(0) = descriptor((uint32_t)data, 15, 0x91, FLAG_32BIT);
    load_gs(spare(0));
    TRY("movl $1, %%gs:0", : : : "memory");
    check_trap(VECTOR_GP, 0, 0, "a write to a read-only segment: #GP(0)");
    *slot(0) = descriptor(0, 0xFFFFF, CODE_EXECUTE_ONLY, FLAG_32BIT | FLAG_PAGES);
    TRY("mov %0, %%gs", : : "r"((uint32_t)spare(0)));
    check_trap(VECTOR_GP, spare(0), 0, "GS := execute-only code: #GP(selector)");
    load_gs(0);
    read_gs(0);
    check_trap(VECTOR_GP, 0, 0, "an access by a null selector: #GP(0)");
    TRY("movl $1, %%cs:data", : : : "memory");
    check_trap(VECTOR_GP, 0, 0, "a write to the flat code segment: #GP(0)");
    static const uint32_t bounds[2] = {10, 20};
    TRY("bound %0, %1", : : "r"(15), "m"(bounds[0]));
    check(!trap.taken, "BOUND within");
    TRY("bound %0, %1", : : "r"(21), "m"(bounds[0]));
    check_trap(VECTOR_BR, 0, 0, "BOUND beyond: #BR at the instruction");
    TRY("mov $0x7FFFFFFF, %%eax; inc %%eax; into", : : : "eax", "cc");
    check_trap(VECTOR_OF, 0, 7, "INTO with OF: #OF after the instruction");
    TRY("xor %%eax, %%eax; into", : : : "eax", "cc");
    check(!trap.taken, "INTO without");
    load_gs(KERNEL_DS);
}

static void test_inspection(void)
{
    uint32_t value = 0;
    bool zero;
    __asm__ volatile("lar %2, %0" : "+r"(value), "=@ccz"(zero) : "r"(KERNEL_CS) : "cc");
    check(zero && (value & 0x00F0FF00) == 0x00C09B00, "LAR of a code segment");
    __asm__ volatile("lsl %2, %0" : "+r"(value), "=@ccz"(zero) : "r"(KERNEL_DS) : "cc");
    check(zero && value == 0xFFFFFFFF, "LSL of a flat segment: bytes");
    __asm__ volatile("lsl %2, %0" : "+r"(value), "=@ccz"(zero) : "r"(0x7FF8) : "cc");
    check(!zero && value == 0xFFFFFFFF, "LSL beyond the GDT clears ZF and nothing else");
    *slot(0) = descriptor(0, 0xFFFF, 0x91, FLAG_32BIT);
    __asm__ volatile("verr %w1" : "=@ccz"(zero) : "r"((uint32_t)spare(0)) : "cc");
    check(zero, "VERR of a read-only segment");
    __asm__ volatile("verw %w1" : "=@ccz"(zero) : "r"((uint32_t)spare(0)) : "cc");
    check(!zero, "VERW of it");
    uint16_t selector = KERNEL_DS;
    __asm__ volatile("arpl %w2, %w0" : "+r"(selector), "=@ccz"(zero) : "r"(3) : "cc");
    check(zero && selector == (KERNEL_DS | 3), "ARPL raises the RPL");
    __asm__ volatile("arpl %w2, %w0" : "+r"(selector), "=@ccz"(zero) : "r"(1) : "cc");
    check(!zero && selector == (KERNEL_DS | 3), "and does not lower it");

    static uint64_t ldt[2];
    ldt[1] = descriptor((uint32_t)data, 15, DATA_RW & ~1, FLAG_32BIT);
    *slot(1) = descriptor((uint32_t)ldt, sizeof ldt - 1, LDT_TYPE, 0);
    __asm__ volatile("lldt %w0" : : "r"((uint32_t)spare(1)));
    load_gs(8 | 4);
    __asm__ volatile("movl %%gs:0, %0" : "=r"(value));
    check(value == 0x1234, "a segment of the LDT");
    check(ldt[1] >> 40 & 1, "loading sets the accessed bit");
    TRY("mov %0, %%gs", : : "r"(16 | 4));
    check_trap(VECTOR_GP, 16 | 4, 0, "beyond the LDT: #GP(selector)");
    TRY("lldt %w0", : : "r"(KERNEL_DS));
    check_trap(VECTOR_GP, KERNEL_DS, 0, "LLDT of a data segment: #GP(selector)");
    TRY("ltr %w0", : : "r"(MAIN_TSS));
    check_trap(VECTOR_GP, MAIN_TSS, 0, "LTR of a busy TSS: #GP(selector)");
    load_gs(KERNEL_DS);
}

/* Level 3 and back: `code` runs with EFLAGS 2 and ends with an exception. */
static void run_user(void (*code)(void))
{
    trap.taken = false;
    trap_first_eip = (uint32_t)code;
    __asm__ volatile("push %%ebp; push %%ebx; push %%esi; push %%edi\n"
                     "movl $77f, trap_resume_eip\n"
                     "movl %%esp, trap_resume_esp\n"
                     "pushl %3; pushl %1; pushl $2; pushl %2; pushl %0\n"
                     "mov %3, %%ecx; mov %%ecx, %%ds; mov %%ecx, %%es\n"
                     "iret\n"
                     "77: pop %%edi; pop %%esi; pop %%ebx; pop %%ebp"
                     :
                     : "a"(code), "d"(user_stack + sizeof user_stack), "i"(USER_CS), "i"(USER_DS)
                     : "ecx", "memory", "cc");
}

void user_privileged(void);
void user_call_gate(void);
void user_call_conforming(void);
void user_gate_private(void);
void gate_target(void);
void conforming_target(void);
void user_int(void);
uint32_t gate_seen[6];
uint32_t conforming_cs;
__asm__(
    "user_privileged: hlt\n"
    "user_int: int $0x50\n"
    "user_call_gate: push $0x1111; push $0x2222; lcall $0x43, $0; mov %esp, %eax; ud2\n"
    "gate_target: mov %esp, %ecx; mov (%ecx), %eax; mov %eax, gate_seen; mov 4(%ecx), %eax; mov %eax, gate_seen + 4\n"
    "mov 8(%ecx), %eax; mov %eax, gate_seen + 8; mov 12(%ecx), %eax; mov %eax, gate_seen + 12\n"
    "mov 16(%ecx), %eax; mov %eax, gate_seen + 16; mov 20(%ecx), %eax; mov %eax, gate_seen + 20; lret $8\n"
    "user_call_conforming: lcall $0x4B, $conforming_target; ud2\n"
    "conforming_target: mov %cs, conforming_cs; lret\n"
    "user_gate_private: lcall $0x53, $0; ud2\n");

static void test_privilege(void)
{
    run_user(user_privileged);
    check_trap(VECTOR_GP, 0, 0, "HLT at level 3: #GP(0)");
    check(trap.frame.cs == USER_CS && trap.frame.ss == USER_DS &&
              trap.frame.esp == (uint32_t)(user_stack + sizeof user_stack),
          "SS:ESP and CS are the user's");
    run_user(user_int);
    check_trap(VECTOR_GP, 0x50 * 8 + 2, 0, "INT by a gate of DPL 0: #GP(IDT entry)");

    *slot(0) = gate(KERNEL_CS, (uint32_t)gate_target, CALL_GATE_32 | DPL_3, 2);
    *slot(1) = descriptor(0, 0xFFFFF, CODE_CONFORMING, FLAG_32BIT | FLAG_PAGES);
    *slot(2) = gate(KERNEL_CS, (uint32_t)gate_target, CALL_GATE_32, 0);
    run_user(user_call_gate);
    check(trap.taken && trap.frame.vector == VECTOR_UD && trap.frame.cs == USER_CS, "a call gate and RETF to level 3");
    check(gate_seen[0] == (uint32_t)user_call_gate + 17 && gate_seen[1] == USER_CS,
          "return address on the new stack: 0x%x", gate_seen[0] - (uint32_t)user_call_gate);
    check(gate_seen[2] == 0x2222 && gate_seen[3] == 0x1111, "two parameters are copied");
    check(gate_seen[4] == (uint32_t)(user_stack + sizeof user_stack) - 8 && gate_seen[5] == USER_DS, "the old SS:ESP");
    check(trap.frame.eax == (uint32_t)(user_stack + sizeof user_stack), "RETF n drops the parameters from both stacks");
    run_user(user_gate_private);
    check_trap(VECTOR_GP, spare(2), 0, "a call gate of DPL 0: #GP(selector)");
    run_user(user_call_conforming);
    check(trap.frame.vector == VECTOR_UD && (conforming_cs & 0xFFFF) == (spare(1) | 3),
          "conforming code runs at the caller's level");
    *slot(0) &= ~(UINT64_C(0x80) << 40);
    run_user(user_call_gate);
    check(trapped(VECTOR_NP, spare(0)), "a call gate not present: #NP(selector)");
    *slot(0) |= UINT64_C(0x80) << 40;
    load_gs(KERNEL_DS);
    run_user(user_privileged);
    check((uint16_t)trap.frame.gs == 0, "IRET to level 3 makes GS, a segment of DPL 0, null");
    load_gs(KERNEL_DS);
}

static struct tss32 task;
static uint8_t task_stack[1024] __attribute__((aligned(16)));
uint32_t task_runs, task_flags;
void task_code(void);
__asm__("task_code: 1: incl task_runs; pushfl; popl task_flags; iret; jmp 1b\n");
void task_jump_back(void);
__asm__("task_jump_back: incl task_runs; ljmp $0x18, $0; jmp task_jump_back\n");
void task_error(void);
uint32_t task_error_code;
__asm__("task_error: 1: popl task_error_code; incl task_runs; mov task_return, %eax; mov %eax, main_tss + 32; iret; "
        "jmp 1b");
uint32_t task_return;

static bool is_busy(unsigned i) { return *slot(i) >> 41 & 1; }

static void init_task(void (*code)(void))
{
    memset(&task, 0, sizeof task);
    task.eip = (uint32_t)code;
    task.eflags = 2;
    task.esp = (uint32_t)(task_stack + sizeof task_stack);
    task.cs = KERNEL_CS;
    task.ss = task.ds = task.es = task.fs = task.gs = KERNEL_DS;
    task.ecx = 0x77;
    task.io_map = TSS_BYTES;
    *slot(3) = descriptor((uint32_t)&task, TSS_BYTES - 1, TSS_AVAILABLE, 0);
}

static void test_tasks(void)
{
    init_task(task_code);
    __asm__ volatile("lcall $0x58, $0" : : : "memory"); /* slot 3 */
    check(task_runs == 1, "CALL of a TSS, and IRET");
    check(task_flags & EFLAGS_NT, "in the task EFLAGS.NT is set");
    check((task.link & 0xFFFF) == MAIN_TSS, "the link is the caller's TSS");
    check(!is_busy(3) && gdt[MAIN_TSS / 8] >> 41 & 1, "afterwards the task's TSS is available, the caller's busy");
    check(!(task.eflags & EFLAGS_NT), "IRET saves EFLAGS without NT");
    check(task.ecx == 0x77, "the task's registers are kept");
    uint32_t cr0;
    __asm__ volatile("mov %%cr0, %0" : "=r"(cr0));
    check(cr0 & 8, "a task switch sets CR0.TS");
    __asm__ volatile("clts");
    __asm__ volatile("lcall $0x58, $0" : : : "memory");
    check(task_runs == 2, "the next CALL goes on after its IRET");
    *slot(4) = gate(spare(3), 0, TASK_GATE, 0);
    __asm__ volatile("lcall $0x60, $0" : : : "memory");
    check(task_runs == 3, "by a task gate in the GDT");
    idt_write(0x50, gate(spare(3), 0, TASK_GATE, 0));
    __asm__ volatile("int $0x50" : : : "memory");
    check(task_runs == 4, "by a task gate in the IDT");

    init_task(task_jump_back);
    __asm__ volatile("ljmp $0x58, $0" : : : "memory");
    check(task_runs == 5 && !(main_tss.eflags & EFLAGS_NT), "JMP there and JMP back");
    check(!is_busy(3), "JMP makes the TSS it leaves available");
    *slot(3) |= UINT64_C(2) << 40;
    TRY("lcall $0x58, $0", : : : "memory");
    check_trap(VECTOR_GP, spare(3), 0, "CALL of a busy TSS: #GP(selector)");
    init_task(task_code);
    *slot(3) &= ~(UINT64_C(0x80) << 40);
    TRY("lcall $0x58, $0", : : : "memory");
    check_trap(VECTOR_NP, spare(3), 0, "of one not present: #NP(selector)");
    *slot(3) = descriptor((uint32_t)&task, TSS_BYTES - 2, TSS_AVAILABLE, 0);
    TRY("lcall $0x58, $0", : : : "memory");
    check_trap(VECTOR_TS, spare(3), 0, "of one too short: #TS(selector)");

    init_task(task_error);
    *slot(5) = descriptor(0, 0xFFFFF, 0x13, FLAG_32BIT | FLAG_PAGES); /* not present */
    uint64_t saved_gate = idt_read(VECTOR_NP);
    idt_write(VECTOR_NP, gate(spare(3), 0, TASK_GATE, 0));
    __asm__ volatile("movl $1f, task_return; mov %0, %%gs; ud2; 1:" : : "r"((uint32_t)spare(5)) : "memory", "eax");
    idt_write(VECTOR_NP, saved_gate);
    check(task_runs == 6 && task_error_code == spare(5),
          "an exception by a task gate: its error code is on the task's stack");
    load_gs(KERNEL_DS);
    __asm__ volatile("clts");
}

/* Virtual-8086 mode: code at 0x7000:0. */
enum { V86_SEGMENT = 0x7000, V86_STACK = 0x7100 };
extern const uint8_t v86_code[], v86_code_end[];
__asm__(".code16\n"
        "v86_code: mov %cs, %ax; mov %ax, %ds; movw $0x5678, 0x100; mov $0x7200, %bx; mov %bx, %es\n"
        "movb $0x5A, %es:(0x10); int $0x51\n"
        "v86_code_end:\n.code32\n");

static void run_v86(uint32_t eip, uint32_t eflags)
{
    trap.taken = false;
    trap_first_eip = 0;
    __asm__ volatile("push %%ebp; push %%ebx; push %%esi; push %%edi\n"
                     "movl $77f, trap_resume_eip\n"
                     "movl %%esp, trap_resume_esp\n"
                     "pushl $0x1004; pushl $0x1003; pushl $0x1002; pushl $0x1001\n" /* GS FS DS ES */
                     "pushl %2; pushl $0x100; pushl %1; pushl %3; pushl %0\n"
                     "iret\n"
                     "77: pop %%edi; pop %%esi; pop %%ebx; pop %%ebp"
                     :
                     : "a"(eip), "d"(eflags), "i"(V86_STACK), "i"(V86_SEGMENT)
                     : "ecx", "memory", "cc");
}

static void test_v86(void)
{
    uint8_t *code = (uint8_t *)(V86_SEGMENT << 4);
    memcpy(code, v86_code, (uint32_t)(v86_code_end - v86_code));
    idt_write(0x51, idt_read(0x51) | (uint64_t)DPL_3 << 40);
    run_v86(0, 2 | EFLAGS_VM | EFLAGS_IOPL_3);
    check(trap.taken && trap.frame.vector == 0x51, "INT n in virtual-8086 mode, IOPL 3: by the IDT");
    check(trap.frame.eflags & EFLAGS_VM, "saved EFLAGS has VM");
    check(trap.frame.cs == V86_SEGMENT && trap.frame.eip == (uint32_t)(v86_code_end - v86_code) &&
              trap.frame.ss == V86_STACK && trap.frame.esp == 0x100,
          "CS:IP and SS:SP are saved");
    check(trap.frame.v86_es == 0x7200 && trap.frame.v86_ds == V86_SEGMENT && trap.frame.v86_gs == 0x1004,
          "ES, DS, FS and GS too");
    check((uint16_t)trap.frame.ds == 0 && (uint16_t)trap.frame.gs == 0, "and are null in the handler");
    check(*(uint16_t *)(code + 0x100) == 0x5678 && *(uint8_t *)0x72010 == 0x5A, "segments are selectors times 16");
    run_v86(0, 2 | EFLAGS_VM);
    check(trapped(VECTOR_GP, 0), "INT n with IOPL below 3: #GP(0)");
    code[0] = 0xFA; /* CLI */
    run_v86(0, 2 | EFLAGS_VM);
    check(trapped(VECTOR_GP, 0) && trap.frame.eip == 0, "CLI with IOPL below 3: #GP(0)");
    code[0] = 0xF4; /* HLT */
    run_v86(0, 2 | EFLAGS_VM | EFLAGS_IOPL_3);
    check(trapped(VECTOR_GP, 0), "HLT: #GP(0)");
    static const uint8_t beyond[] = {0x66, 0xA1, 0xFE, 0xFF}; /* MOV EAX, [FFFE] */
    memcpy(code, beyond, sizeof beyond);
    run_v86(0, 2 | EFLAGS_VM | EFLAGS_IOPL_3);
    check(trapped(VECTOR_GP, 0), "an access beyond FFFF: #GP(0)");
    static const uint8_t load_tr[] = {0x0F, 0x00, 0xD8}; /* LTR AX */
    memcpy(code, load_tr, sizeof load_tr);
    run_v86(0, 2 | EFLAGS_VM | EFLAGS_IOPL_3);
    check(trapped(VECTOR_UD, 0), "LTR: #UD");
}

/* Real mode and back, at 0x8000:0. Results in the words at 0x8000:0x200. */
enum { REAL_SEGMENT = 0x8000 };
extern const uint8_t real_code[], real_code_end[];
__asm__(".code16\n"
        "real_code:\n" /* entered in 16-bit protected mode, CS = a segment of base 80000h */
        "mov $0x38, %ax; mov %ax, %ds; mov %ax, %es; mov %ax, %ss\n"
        "mov %cr0, %eax; and $~1, %al; mov %eax, %cr0; ljmp $0x8000, $(1f - real_code)\n"
        "1: mov %cs, %ax; mov %ax, %ds; mov %ax, %ss; mov $0xF00, %sp\n"
        "lidt 0x1F0\n"
        "movw $(2f - real_code), 0x300 + 6 * 4; mov %cs, 0x302 + 6 * 4\n"   /* #UD */
        "movw $(4f - real_code), 0x300 + 13 * 4; mov %cs, 0x302 + 13 * 4\n" /* #GP */
        "movw $(6f - real_code), 0x300 + 0x20 * 4; mov %cs, 0x302 + 0x20 * 4\n"
        "ud2\n"
        "2: pop %ax; mov %ax, 0x200; pop %ax; pop %ax\n" /* offset of the UD2 */
        "mov $0xFFFF, %bx; mov (%bx), %ax\n"
        "4: pop %ax; mov %ax, 0x202; pop %ax; pop %ax\n"
        "mov %sp, 0x204; stc; int $0x20; mov %sp, 0x206; jmp 7f\n"
        "6: movw $0x77, 0x208; iret\n"
        "7: mov %gs:0, %eax; mov %eax, 0x20C\n" /* GS keeps base 0 and a limit of 4 GiB: unreal mode */
        "mov $0x100000, %ebx; addr32 mov %gs:(%ebx), %eax; mov %eax, 0x210\n"
        "mov %cr0, %eax; or $1, %al; mov %eax, %cr0; ljmpl $0x08, $real_back\n"
        "real_code_end:\n.code32\n"
        "real_back: mov $0x10, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss; mov %eax, %fs; mov real_esp, %esp\n"
        "popa; ret\n"
        "run_real: pusha; mov %esp, real_esp; mov $0x10, %eax; mov %eax, %gs; ljmp $0x78, $0\n"
        ".globl real_ud2\n.set real_ud2, 2b - real_code - 2\n");
uint32_t real_esp;
void run_real(void);

static void test_real(void)
{
    uint8_t *place = (uint8_t *)(REAL_SEGMENT << 4);
    memcpy(place, real_code, (uint32_t)(real_code_end - real_code));
    *slot(7) = descriptor(REAL_SEGMENT << 4, 0xFFFF, 0x9B, 0);
    struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) vectors = {0x3FF, (REAL_SEGMENT << 4) + 0x300}, saved;
    memcpy(place + 0x1F0, &vectors, sizeof vectors);
    __asm__ volatile("sidt %0" : "=m"(saved));
    run_real();
    __asm__ volatile("lidt %0" : : "m"(saved));
    const volatile uint16_t *seen = (const volatile uint16_t *)(place + 0x200);
    extern const uint8_t real_ud2[];
    check(seen[0] == (uint16_t)(uint32_t)real_ud2, "real mode: #UD by the interrupt vector table, IP at the UD2");
    check(seen[1] != 0 && seen[1] > seen[0], "a word at FFFF: #GP, without an error code");
    check(seen[2] == seen[3] && seen[4] == 0x77, "INT and IRET: 3 words pushed and popped");
    check(*(const volatile uint32_t *)(place + 0x210) == *(const volatile uint32_t *)0x100000,
          "a limit of 4 GiB stays (unreal mode)");
}

int main(void)
{
    check_begin("segments", "segmentation, tasks, virtual-8086 and real mode");
    test_limits();
    test_inspection();
    test_privilege();
    test_tasks();
    test_v86();
    test_real();
    return check_verdict("%u checks", check_count());
}
