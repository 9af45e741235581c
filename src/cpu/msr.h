// MSR storage: internal to the system layer of src/cpu. cpu_rdmsr and cpu_wrmsr are in system.h.
#ifndef VMXON_CPU_MSR_H
#define VMXON_CPU_MSR_H

#include "cpu/cpu.h"

// What IA32_BIOS_SIGN_ID holds after RESET and after CPUID leaf 1.
#define MICROCODE_REVISION (UINT64_C(0xF0) << 32)

// Gives every MSR that is stored in struct cpu its RESET value (msrs.def). EFER and the TSC are the caller's.
void msr_reset(struct cpu *cpu);

#endif
