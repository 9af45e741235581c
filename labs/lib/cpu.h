/*
 * Privileged state of the processor: control registers, MSRs, descriptor tables, CPUID, and the names of their bits.
 * SDM 3A "Control Registers"; SDM 4 "Architectural MSRs". Each function is one instruction.
 */
#ifndef LABS_LIB_CPU_H
#define LABS_LIB_CPU_H

#include <stdint.h>

#define CR0_PE (UINT64_C(1) << 0)
#define CR0_MP (UINT64_C(1) << 1)
#define CR0_EM (UINT64_C(1) << 2)
#define CR0_TS (UINT64_C(1) << 3)
#define CR0_ET (UINT64_C(1) << 4)
#define CR0_NE (UINT64_C(1) << 5)
#define CR0_WP (UINT64_C(1) << 16)
#define CR0_AM (UINT64_C(1) << 18)
#define CR0_NW (UINT64_C(1) << 29)
#define CR0_CD (UINT64_C(1) << 30)
#define CR0_PG (UINT64_C(1) << 31)

#define CR4_PSE     (UINT64_C(1) << 4)
#define CR4_PAE     (UINT64_C(1) << 5)
#define CR4_PGE     (UINT64_C(1) << 7)
#define CR4_VMXE    (UINT64_C(1) << 13)
#define CR4_PCIDE   (UINT64_C(1) << 17)
#define CR4_OSXSAVE (UINT64_C(1) << 18)
#define CR4_SMEP    (UINT64_C(1) << 20)
#define CR4_SMAP    (UINT64_C(1) << 21)

#define RFLAGS_FIXED (UINT64_C(1) << 1) /* always 1 */
#define RFLAGS_CF    (UINT64_C(1) << 0)
#define RFLAGS_ZF    (UINT64_C(1) << 6)
#define RFLAGS_TF    (UINT64_C(1) << 8)
#define RFLAGS_IF    (UINT64_C(1) << 9)

#define EFER_SCE (UINT64_C(1) << 0)
#define EFER_LME (UINT64_C(1) << 8)
#define EFER_LMA (UINT64_C(1) << 10)
#define EFER_NXE (UINT64_C(1) << 11)

#define CPUID_1_ECX_VMX (UINT32_C(1) << 5)

#define FEATURE_CONTROL_LOCK              (UINT64_C(1) << 0)
#define FEATURE_CONTROL_VMXON_OUTSIDE_SMX (UINT64_C(1) << 2)

enum msr {
    MSR_IA32_FEATURE_CONTROL = 0x3A,
    MSR_IA32_SYSENTER_CS = 0x174,
    MSR_IA32_SYSENTER_ESP = 0x175,
    MSR_IA32_SYSENTER_EIP = 0x176,
    MSR_IA32_DEBUGCTL = 0x1D9,
    MSR_IA32_PAT = 0x277,
    MSR_IA32_VMX_BASIC = 0x480,
    MSR_IA32_VMX_PINBASED_CTLS = 0x481,
    MSR_IA32_VMX_PROCBASED_CTLS = 0x482,
    MSR_IA32_VMX_EXIT_CTLS = 0x483,
    MSR_IA32_VMX_ENTRY_CTLS = 0x484,
    MSR_IA32_VMX_MISC = 0x485,
    MSR_IA32_VMX_CR0_FIXED0 = 0x486,
    MSR_IA32_VMX_CR0_FIXED1 = 0x487,
    MSR_IA32_VMX_CR4_FIXED0 = 0x488,
    MSR_IA32_VMX_CR4_FIXED1 = 0x489,
    MSR_IA32_VMX_VMCS_ENUM = 0x48A,
    MSR_IA32_VMX_PROCBASED_CTLS2 = 0x48B,
    MSR_IA32_VMX_EPT_VPID_CAP = 0x48C,
    MSR_IA32_VMX_TRUE_PINBASED_CTLS = 0x48D,
    MSR_IA32_VMX_TRUE_PROCBASED_CTLS = 0x48E,
    MSR_IA32_VMX_TRUE_EXIT_CTLS = 0x48F,
    MSR_IA32_VMX_TRUE_ENTRY_CTLS = 0x490,
};

/* MSR numbers of 2^31 and above do not fit an enum constant, which is an int. */
#define MSR_IA32_EFER    UINT32_C(0xC0000080)
#define MSR_IA32_FS_BASE UINT32_C(0xC0000100)
#define MSR_IA32_GS_BASE UINT32_C(0xC0000101)

static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return (uint64_t)high << 32 | low;
}

static inline void wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}

static inline uint64_t read_cr0(void)
{
    uint64_t value;
    __asm__ volatile("mov %%cr0, %0" : "=r"(value));
    return value;
}

static inline void write_cr0(uint64_t value) { __asm__ volatile("mov %0, %%cr0" : : "r"(value) : "memory"); }

static inline uint64_t read_cr2(void)
{
    uint64_t value;
    __asm__ volatile("mov %%cr2, %0" : "=r"(value));
    return value;
}

static inline uint64_t read_cr3(void)
{
    uint64_t value;
    __asm__ volatile("mov %%cr3, %0" : "=r"(value));
    return value;
}

static inline void write_cr3(uint64_t value) { __asm__ volatile("mov %0, %%cr3" : : "r"(value) : "memory"); }

static inline uint64_t read_cr4(void)
{
    uint64_t value;
    __asm__ volatile("mov %%cr4, %0" : "=r"(value));
    return value;
}

static inline void write_cr4(uint64_t value) { __asm__ volatile("mov %0, %%cr4" : : "r"(value) : "memory"); }

static inline uint64_t read_dr7(void)
{
    uint64_t value;
    __asm__ volatile("mov %%dr7, %0" : "=r"(value));
    return value;
}

static inline void invlpg(uint64_t linear_address)
{
    __asm__ volatile("invlpg (%0)" : : "r"(linear_address) : "memory");
}

static inline uint64_t rdtsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

struct cpuid_result {
    uint32_t eax, ebx, ecx, edx;
};

static inline struct cpuid_result cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct cpuid_result result;
    __asm__ volatile("cpuid"
                     : "=a"(result.eax), "=b"(result.ebx), "=c"(result.ecx), "=d"(result.edx)
                     : "a"(leaf), "c"(subleaf));
    return result;
}

/* What LGDT and LIDT read, and SGDT and SIDT write. */
struct descriptor_table_register {
    uint16_t limit; /* bytes - 1 */
    uint64_t base;
} __attribute__((packed));

static inline struct descriptor_table_register sgdt(void)
{
    struct descriptor_table_register gdtr;
    __asm__ volatile("sgdt %0" : "=m"(gdtr));
    return gdtr;
}

static inline struct descriptor_table_register sidt(void)
{
    struct descriptor_table_register idtr;
    __asm__ volatile("sidt %0" : "=m"(idtr));
    return idtr;
}

static inline void lidt(const struct descriptor_table_register *idtr) { __asm__ volatile("lidt %0" : : "m"(*idtr)); }

#endif
