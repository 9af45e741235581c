// The system layer of the processor: what the run loop, the other handlers and VMX call.
//
// Events (exception.c, interrupt.c, debug.c), segments and tasks (segment.c, far.c, task.c), control registers
// (control_register.c), MSRs (msr.c), CPUID (cpuid.c). SDM 3A ch. 2 to 7, 10 and 18. struct cpu and cpu_init,
// cpu_reset, cpu_update_mode, cpu_rflags and cpu_set_rflags are in cpu.h.
#ifndef VMXON_CPU_SYSTEM_H
#define VMXON_CPU_SYSTEM_H

#include "cpu/cpu.h"

// --- Events -------------------------------------------------------------------------------------------------------

// Delivers the exception in cpu->event, which an instruction or a fetch raised with RIP at its start (traps: after it).
// In non-root VMX is asked first; event.ept_exit goes to vmx_ops->ept_exit. Exceptions met on the way are combined.
// EXEC_DONE: RIP is at the handler. EXEC_VMEXIT. EXEC_HALT: shutdown after a triple fault (activity says so). EXEC_STOP.
enum exec_result exception_deliver(struct cpu *cpu);

// Delivers `event` without asking VMX about the event itself (external interrupts, NMIs, INT n, VM-entry injection);
// exceptions met on the way are treated as above, with `event` as the one during which they occurred. RF is pushed as it is.
// Does not set blocking by NMI: the caller does. Results as exception_deliver.
enum exec_result cpu_deliver_event(struct cpu *cpu, const struct event *event);

// At an instruction boundary with cpu->pending != 0, or in an inactive activity state: takes the event with the highest priority
// (INIT, SIPI, debug traps, NMI, external interrupt), asking VMX first in non-root. EXEC_NEXT: nothing taken, go on with the
// instruction. EXEC_DONE: an event was delivered. EXEC_HALT: nothing to do in an inactive state. EXEC_VMEXIT, EXEC_STOP.
enum exec_result interrupt_poll(struct cpu *cpu);

// Sets PENDING_INTERRUPT if the machine asserts an interrupt. interrupt_poll clears it while RFLAGS.IF = 0 (unless external interrupts
// exit) and sets cpu->interrupt_parked; then cpu_set_rflags, cpu_update_mode and STI call this.
void interrupt_recheck(struct cpu *cpu);

// True if the processor would leave the HLT state for what is pending now.
bool interrupt_wakes(const struct cpu *cpu);

// The one instruction after STI, MOV SS, POP SS, or a load of RF = 1 runs alone. The run loop calls interrupt_inhibit_begin() when it
// starts an instruction with PENDING_INHIBIT, and interrupt_inhibit_end() when that instruction has completed (not faulted).
void interrupt_inhibit_begin(struct cpu *cpu);
void interrupt_inhibit_end(struct cpu *cpu);

// --- Debug (SDM 3B ch. 18) ----------------------------------------------------------------------------------------

// Single-stepping: debug_step_begin() before an instruction that starts with PENDING_SINGLE_STEP; debug_step_end() after it completed
// (EXEC_DONE, EXEC_HALT): makes the trap pending, unless the instruction delivered an event.
void debug_step_begin(struct cpu *cpu);
void debug_step_end(struct cpu *cpu);

// Instruction breakpoints: with PENDING_BREAKPOINTS, before the fetch. True: cpu->event holds the #DB fault. False if RFLAGS.RF = 1.
bool debug_instruction_breakpoint(struct cpu *cpu);

// Data and I/O breakpoints. While debug_watches_data() is true MODE_FLAT is off, and mem_*/lin_* (not implicit accesses) call
// debug_data_access() for each explicit access done; the trap is then pending at the end of the instruction.
static inline bool debug_watches_data(const struct cpu *cpu)
{
    return unlikely(cpu->dr7 & 0xFF) && (cpu->dr7 & 0x33330000);
}
void debug_data_access(struct cpu *cpu, gva_t linear, unsigned size, bool write);
void debug_io_access(struct cpu *cpu, uint16_t port, unsigned size);

// Whether a misaligned access raises #AC now. MODE_FLAT is off then too.
static inline bool cpu_checks_alignment(const struct cpu *cpu)
{
    return cpu->cpl == 3 && (cpu->cr0 & CR0_AM) && (cpu->rflags_system & RFLAGS_AC);
}

// --- I/O ----------------------------------------------------------------------------------------------------------

// IOPL, the I/O bitmap of the TSS, then the intercept. EXEC_NEXT: allowed. EXEC_FAULT, EXEC_VMEXIT. size: 1, 2 or 4 bytes.
enum exec_result io_access_check(struct cpu *cpu, const struct insn *in, uint16_t port, unsigned size);
// The access itself, with breakpoints and the event queue told.
uint64_t io_read(struct cpu *cpu, uint16_t port, unsigned size);
void io_write(struct cpu *cpu, uint16_t port, unsigned size, uint64_t value);

// --- Segments -----------------------------------------------------------------------------------------------------

// Loads ES, SS, DS, FS or GS as MOV does, with all checks, in any mode. False: cpu->event is set.
// Does not call cpu_update_mode (the caller does, once).
bool segment_load(struct cpu *cpu, enum segment_register segment, uint16_t selector);

// --- Control registers and MSRs -----------------------------------------------------------------------------------

// MOV to CR with all checks, TLB invalidations, PDPTE loads and LMA; no intercepts. `value` is what is to be stored.
// EXEC_NEXT: done (cpu_update_mode was called). EXEC_FAULT: #GP(0), or an EPT exit of a PDPTE load, in cpu->event.
enum exec_result cpu_write_cr0(struct cpu *cpu, uint64_t value);
enum exec_result cpu_write_cr3(struct cpu *cpu, uint64_t value);
enum exec_result cpu_write_cr4(struct cpu *cpu, uint64_t value);

// Stores control registers and EFER as VM entry and VM exit load them: no checks, no architectural invalidation. The caller sets
// the segments and RFLAGS and then calls cpu_update_mode. PAE PDPTEs are the caller's as well.
void cpu_load_control_registers(struct cpu *cpu, uint64_t cr0, uint64_t cr3, uint64_t cr4, uint64_t efer);

uint64_t cpu_cr4_reserved(const struct cpu *cpu);    // bits of CR4 that the profile does not have
uint64_t cpu_efer_reserved(const struct cpu *cpu);   // bits of IA32_EFER that the profile does not have
void cpu_write_dr7(struct cpu *cpu, uint64_t value); // fixes the reserved bits and recomputes PENDING_BREAKPOINTS

// RDMSR and WRMSR without privilege check and intercept (also for VMX MSR lists). False: #GP(0) is due, nothing is changed.
// A write may change the mode; cpu_update_mode is called if so.
bool cpu_rdmsr(struct cpu *cpu, uint32_t index, uint64_t *value);
bool cpu_wrmsr(struct cpu *cpu, uint32_t index, uint64_t value);
const char *msr_name(uint32_t index);    // NULL: not in the table
uint64_t cpu_tsc(const struct cpu *cpu); // IA32_TIME_STAMP_COUNTER, without VMX offset and scaling

// --- CPUID --------------------------------------------------------------------------------------------------------

struct cpuid_result {
    uint32_t eax, ebx, ecx, edx;
};
void cpuid_read(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf, struct cpuid_result *result);

// Features, by the names of cpu_features.def.
enum cpu_feature {
#define FEATURE(name, leaf, subleaf, reg, bit, generation, title) FEATURE_##name,
#include "cpu/cpu_features.def"
#undef FEATURE
    FEATURE_COUNT
};
bool cpu_has(const struct cpu *cpu, enum cpu_feature feature);

#endif
