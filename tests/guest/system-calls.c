/*
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, the FSGSBASE instructions, and what WRMSR refuses.
 * SDM 2 of each; SDM 3A "Fast System Calls in 64-Bit Mode".
 */
#include "boot.h"
#include "check.h"
#include "cpu.h"
#include "trap.h"
#include "user.h"

#define MSR_IA32_STAR           UINT32_C(0xC0000081)
#define MSR_IA32_LSTAR          UINT32_C(0xC0000082)
#define MSR_IA32_CSTAR          UINT32_C(0xC0000083)
#define MSR_IA32_FMASK          UINT32_C(0xC0000084)
#define MSR_IA32_KERNEL_GS_BASE UINT32_C(0xC0000102)
#define CANONICAL_END           (UINT64_C(1) << 47)

enum { CR4_FSGSBASE = 1 << 16, IOPL_3 = 3 << 12 };

uint64_t saved_rcx, saved_r11, saved_rflags, saved_rsp, saved_cs, saved_ss, resume_rflags;

/* SYSCALL leads here, SYSENTER to the second; each saves what it finds and goes back to where it came from. */
void syscall_entry(void);
void sysenter_entry(void);
void user_syscall(void);
void user_sysenter(void);
void user_sysret_target(void);
__asm__("syscall_entry: mov %rcx, saved_rcx; mov %r11, saved_r11; mov %rsp, saved_rsp\n"
        "mov $kernel_stack + 4096, %rsp; pushfq; pop saved_rflags; mov %cs, saved_cs; mov %ss, saved_ss\n"
        "mov saved_rsp, %rsp; mov resume_rflags, %r11; mov saved_rcx, %rcx; sysretq\n"
        "sysenter_entry: mov %rsp, saved_rsp; pushfq; pop saved_rflags; mov %cs, saved_cs; mov %ss, saved_ss\n"
        "mov $user_stack + 2048, %rcx; mov $user_after_sysenter, %rdx; sysexitq\n"
        "user_syscall: stc; std; syscall; ud2\n"
        "user_sysenter: sysenter; nop\n"
        "user_after_sysenter: ud2\n");

static void test_syscall(void)
{
    TRY("syscall", : : : "rcx", "r11");
    check_trap(VECTOR_UD, 0, 0, "SYSCALL without EFER.SCE: #UD");
    wrmsr(MSR_IA32_EFER, rdmsr(MSR_IA32_EFER) | EFER_SCE);
    wrmsr(MSR_IA32_STAR, (uint64_t)(USER_CS32 & ~3) << 48 | (uint64_t)BOOT_CS << 32);
    wrmsr(MSR_IA32_LSTAR, (uint64_t)syscall_entry);
    wrmsr(MSR_IA32_FMASK, RFLAGS_DF | RFLAGS_IF | RFLAGS_TF);
    resume_rflags = RFLAGS_FIXED | RFLAGS_ZF;
    user_run(user_syscall);
    check(trap.frame.vector == VECTOR_UD && trap.frame.rip == (uint64_t)user_syscall + 4,
          "SYSCALL and SYSRET: there and back");
    check(saved_rcx == (uint64_t)user_syscall + 4, "SYSCALL: RCX is the return address");
    check((saved_r11 & (RFLAGS_DF | RFLAGS_CF)) == (RFLAGS_DF | RFLAGS_CF), "R11 is RFLAGS");
    check(!(saved_rflags & RFLAGS_DF) && (saved_rflags & RFLAGS_CF), "IA32_FMASK clears DF and leaves CF");
    check(saved_rsp == (uint64_t)(user_stack + sizeof user_stack), "RSP is unchanged");
    check((uint16_t)saved_cs == BOOT_CS && (uint16_t)saved_ss == BOOT_CS + 8, "CS and SS come from IA32_STAR");
    check(trap.frame.cs == USER_CS64 && trap.frame.ss == USER_DS, "SYSRET: CS and SS of privilege level 3");
    check((trap.frame.rflags & ~RFLAGS_RF) == resume_rflags, "RFLAGS is R11");
    TRY("mov %0, %%rcx; sysretq", : : "r"(CANONICAL_END) : "rcx");
    check(trap.taken && trap.frame.vector == VECTOR_GP && trap.frame.cs == BOOT_CS,
          "SYSRET to a non-canonical address: #GP at privilege level 0");
    static const uint8_t compatibility[] = {0x0F, 0x0B}; /* UD2 */
    trap_first_rip = (uint64_t)compatibility;
    trap.taken = false;
    TRY("mov %0, %%rcx; mov $0x2, %%r11d; sysretl", : : "r"(compatibility) : "rcx", "r11");
    check(trap.frame.vector == VECTOR_UD && trap.frame.cs == USER_CS32 && trap.frame.rip == (uint64_t)compatibility,
          "SYSRET with a 32-bit operand: to compatibility mode");
}

static void test_sysenter(void)
{
    wrmsr(MSR_IA32_SYSENTER_CS, 0);
    user_run(user_sysenter);
    check_trap(VECTOR_GP, 0, 0, "SYSENTER with IA32_SYSENTER_CS 0: #GP(0)");
    wrmsr(MSR_IA32_SYSENTER_CS, BOOT_CS);
    wrmsr(MSR_IA32_SYSENTER_EIP, (uint64_t)sysenter_entry);
    wrmsr(MSR_IA32_SYSENTER_ESP, (uint64_t)kernel_stack + 4096);
    user_run(user_sysenter);
    check(trap.frame.vector == VECTOR_UD && trap.offset == 3, "SYSENTER and SYSEXIT: there and back");
    check(saved_rsp == (uint64_t)kernel_stack + 4096, "SYSENTER: RSP from IA32_SYSENTER_ESP");
    check((uint16_t)saved_cs == BOOT_CS && (uint16_t)saved_ss == BOOT_CS + 8, "CS and SS from IA32_SYSENTER_CS");
    check(!(saved_rflags & RFLAGS_IF), "IF is cleared");
    check(trap.frame.cs == BOOT_CS + 32 + 3 && trap.frame.ss == BOOT_CS + 40 + 3, "SYSEXIT: CS and SS of level 3");
    check(trap.frame.rsp == (uint64_t)user_stack + 2048, "RSP is RCX");
    void user_sysexit(void);
    user_run((const void *)user_sysexit);
    check_trap(VECTOR_GP, 0, 0, "SYSEXIT at privilege level 3: #GP(0)");
    void user_sysret(void);
    user_run((const void *)user_sysret);
    check_trap(VECTOR_GP, 0, 0, "SYSRET at privilege level 3: #GP(0)");
}
__asm__("user_sysexit: sysexitq\n"
        "user_sysret: sysretq\n");

static void test_bases(void)
{
    wrmsr(MSR_IA32_GS_BASE, 0x1111000);
    wrmsr(MSR_IA32_KERNEL_GS_BASE, UINT64_C(0xFFFF800000002222));
    __asm__ volatile("swapgs");
    check(rdmsr(MSR_IA32_GS_BASE) == UINT64_C(0xFFFF800000002222) && rdmsr(MSR_IA32_KERNEL_GS_BASE) == 0x1111000,
          "SWAPGS exchanges the two bases");
    void user_swapgs(void);
    user_run((const void *)user_swapgs);
    check_trap(VECTOR_GP, 0, 0, "at privilege level 3: #GP(0)");
    static uint64_t cell = 0x1234567;
    wrmsr(MSR_IA32_GS_BASE, (uint64_t)&cell - 8);
    uint64_t value;
    __asm__ volatile("mov %%gs:8, %0" : "=r"(value));
    check(value == cell, "GS base counts in 64-bit mode");
    wrmsr(MSR_IA32_FS_BASE, (uint64_t)&cell);
    __asm__ volatile("mov %%fs:(%1), %0" : "=r"(value) : "r"(UINT64_C(0)));
    check(value == cell, "FS base too");
    __asm__ volatile("mov %0, %%gs" : : "r"(BOOT_DS));
    check(rdmsr(MSR_IA32_GS_BASE) == 0, "MOV to GS loads the descriptor's base");

    if (!(cpuid(7, 0).ebx & 1)) {
        note("left out: FSGSBASE, which this processor does not have");
        return;
    }
    TRY("rdfsbase %%rax", : : : "rax");
    check_trap(VECTOR_UD, 0, 0, "RDFSBASE without CR4.FSGSBASE: #UD");
    write_cr4(read_cr4() | CR4_FSGSBASE);
    __asm__ volatile("wrfsbase %1; rdfsbase %0" : "=r"(value) : "r"(UINT64_C(0xFFFF900000000000)));
    check(value == UINT64_C(0xFFFF900000000000) && rdmsr(MSR_IA32_FS_BASE) == value, "WRFSBASE and RDFSBASE");
    __asm__ volatile("wrgsbase %k1; rdgsbase %0" : "=r"(value) : "r"(UINT64_C(0xFFFF9000ABCD0000)));
    check(value == 0xABCD0000, "WRGSBASE of 32 bits zero-extends");
    TRY("wrfsbase %0", : : "r"(CANONICAL_END));
    check_trap(VECTOR_GP, 0, 0, "WRFSBASE of a non-canonical address: #GP(0)");
    write_cr4(read_cr4() & ~(uint64_t)CR4_FSGSBASE);
    wrmsr(MSR_IA32_FS_BASE, 0);
    wrmsr(MSR_IA32_GS_BASE, 0);
}
__asm__("user_swapgs: swapgs");

static void refuse(uint32_t msr, uint64_t value, const char *what)
{
    TRY("wrmsr", : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
    check_trap(VECTOR_GP, 0, 0, what);
}

static void test_msrs(void)
{
    uint64_t efer = rdmsr(MSR_IA32_EFER);
    check((efer & (EFER_LME | EFER_LMA)) == (EFER_LME | EFER_LMA), "EFER has LME and LMA");
    refuse(MSR_IA32_EFER, efer & ~EFER_LME, "clearing EFER.LME with paging: #GP(0)");
    refuse(MSR_IA32_EFER, efer | 2, "a reserved bit of EFER: #GP(0)");
    refuse(MSR_IA32_LSTAR, CANONICAL_END, "a non-canonical IA32_LSTAR: #GP(0)");
    refuse(MSR_IA32_SYSENTER_ESP, CANONICAL_END, "a non-canonical IA32_SYSENTER_ESP: #GP(0)");
    refuse(MSR_IA32_KERNEL_GS_BASE, CANONICAL_END, "a non-canonical IA32_KERNEL_GS_BASE: #GP(0)");
    refuse(MSR_IA32_PAT, 2, "an IA32_PAT of type 2: #GP(0)");
    refuse(MSR_IA32_PAT, UINT64_C(8) << 56, "an IA32_PAT of type 8: #GP(0)");
    refuse(MSR_IA32_VMX_BASIC, 0, "a read-only MSR: #GP(0)");
    refuse(0x1B, rdmsr(0x1B) | 1, "a reserved bit of IA32_APIC_BASE: #GP(0)");
    refuse(0x2FF, UINT64_C(1) << 12, "a reserved bit of IA32_MTRR_DEF_TYPE: #GP(0)");
    refuse(0xFE, 0, "IA32_MTRRCAP: #GP(0)");
    wrmsr(MSR_IA32_EFER, efer & ~EFER_SCE);
    check(!(rdmsr(MSR_IA32_EFER) & EFER_SCE), "EFER.SCE can be cleared");
    void user_rdmsr(void);
    user_run((const void *)user_rdmsr);
    check_trap(VECTOR_GP, 0, 0, "RDMSR at privilege level 3: #GP(0)");
    uint64_t pat = rdmsr(MSR_IA32_PAT);
    wrmsr(MSR_IA32_PAT, UINT64_C(0x0001040506070001));
    check(rdmsr(MSR_IA32_PAT) == UINT64_C(0x0001040506070001), "IA32_PAT can be written");
    wrmsr(MSR_IA32_PAT, pat);
    check((cpuid(0, 0).ebx == 0x756E6547) && cpuid(0x80000000, 0).eax >= 0x80000008,
          "CPUID: GenuineIntel, leaf 80000008");
    uint32_t highest = cpuid(0, 0).eax;
    struct cpuid_result beyond = cpuid(0x7FFFFFFF, 0), last = cpuid(highest, 0);
    check(beyond.eax == last.eax && beyond.ebx == last.ebx, "a leaf beyond the highest returns the highest's data");
    uint64_t first = rdtsc(), second = rdtsc();
    check(second > first, "RDTSC goes forward");
    wrmsr(0x10, UINT64_C(1) << 40);
    check(rdtsc() - (UINT64_C(1) << 40) < 1 << 20, "the TSC can be written");
    write_cr4(read_cr4() | 4);
    void user_rdtsc(void);
    user_run((const void *)user_rdtsc);
    check_trap(VECTOR_GP, 0, 0, "RDTSC at privilege level 3 with CR4.TSD: #GP(0)");
    write_cr4(read_cr4() & ~UINT64_C(4));
    user_run((const void *)user_rdtsc);
    check_trap(VECTOR_BP, 0, 3, "without: allowed");
    if (cpuid(7, 0).ecx & 4) {
        write_cr4(read_cr4() | 1 << 11);
        void user_sgdt(void);
        user_run((const void *)user_sgdt);
        check_trap(VECTOR_GP, 0, 0, "SGDT at privilege level 3 with CR4.UMIP: #GP(0)");
        write_cr4(read_cr4() & ~(UINT64_C(1) << 11));
    }
}
__asm__("user_rdmsr: rdmsr\n"
        "user_sgdt: sgdt -16(%rsp); int3\n"
        "user_rdtsc: rdtsc; int3");

int main(void)
{
    check_begin("system-calls", "system calls, segment bases, MSRs");
    trap_init();
    user_init();
    test_syscall();
    test_sysenter();
    test_bases();
    test_msrs();
    return check_verdict("%u checks", check_count());
}
