// Private to src/vmx: what the instructions, VM entries, VM exits and intercepts share.
#ifndef VMXON_VMX_TRANSITION_H
#define VMXON_VMX_TRANSITION_H

#include "cpu/exec.h"
#include "cpu/system.h"
#include "vmx/controls.h"
#include "vmx/vmx.h"

// Cycles of the transitions and the VMX instructions (timing.def).
enum vmx_timing {
#define TIMING(name, cycles, mark, source) TIMING_##name = cycles,
#include "vmx/timing.def"
#undef TIMING
};

// Interruption information as three fields of the VMCS have it (SDM 3C 25.8.3, 25.9.2, 25.9.3):
//    31    30      13   12    11      10:8   7:0
//   valid |  0 ...  0 | NMI | error | type | vector         NMI: "NMI unblocking due to IRET", VM-exit interruption information only
#define INTERRUPTION_VECTOR        BITS(7, 0)
#define INTERRUPTION_TYPE_SHIFT    8
#define INTERRUPTION_ERROR_CODE    BIT(11)
#define INTERRUPTION_NMI_UNBLOCKED BIT(12)
#define INTERRUPTION_VALID         BIT(31)

// Pending debug exceptions (SDM 3C 25.4.2): 3:0 breakpoints met.
#define PENDING_DEBUG_ENABLED BIT(12) // one of them is enabled in DR7
#define PENDING_DEBUG_BS      BIT(14) // a single step

#define DEBUGCTL_BTF BIT(1) // IA32_DEBUGCTL: single-step on branches

#define EXIT_REASON_ENTRY_FAILURE BIT(31)
#define EPT_QUAL_NMI_UNBLOCKED    BIT(12)

// IA32_FEATURE_CONTROL
#define FEATURE_CONTROL_LOCK  BIT(0)
#define FEATURE_CONTROL_VMXON BIT(2) // outside SMX

// VMX-abort indicators (SDM 3C 28.7 "VMX Aborts").
enum vmx_abort {
    ABORT_MSR_STORE = 1,
    ABORT_HOST_PDPTE = 2,
    ABORT_VMCS_CORRUPT = 3,
    ABORT_MSR_LOAD = 4,
    ABORT_MACHINE_CHECK = 5,
    ABORT_HOST_NOT_64BIT = 6
};

// What RFLAGS.RF the guest-state area receives (SDM 3C 28.3.3 "Saving RIP, RSP, RFLAGS, and SSP").
// RF_OF_EVENT: as delivery of an interrupt or trap pushes it.
enum saved_rf { RF_AS_IT_IS, RF_CLEAR, RF_SET, RF_OF_EVENT };

// A VM exit in the making. Fields left 0 mean: nothing valid.
struct vm_exit {
    enum vmx_exit_reason reason;
    enum saved_rf rf;
    bool saves_pending_debug; // the pending debug exceptions go to the guest-state area even without MOV SS blocking
    bool is_debug_exception;  // a #DB: they do not
    uint32_t interruption_info, interruption_error_code;
    uint64_t qualification;
    const struct event *during; // the exit interrupts the delivery of this event
};

// Exits. All return EXEC_VMEXIT, or EXEC_STOP after a VMX abort.
enum exec_result vmx_exit(struct cpu *cpu, const struct vm_exit *exit);
// Caused by an instruction, RIP at its start: instruction length recorded, RF saved as 0.
enum exec_result vmx_exit_instruction(struct cpu *cpu, const struct insn *in, enum vmx_exit_reason reason,
                                      uint64_t qualification);
// The same with VM-exit instruction information, which the caller composes from instruction_info.c's functions.
enum exec_result vmx_exit_instruction_info(struct cpu *cpu, const struct insn *in, enum vmx_exit_reason reason,
                                           uint64_t qualification, uint32_t information);
// A VM-entry failure (reason 33, 34 or 41): loads host state only.
enum exec_result vmx_entry_failure(struct cpu *cpu, enum vmx_exit_reason reason, uint64_t qualification);

// VM-exit instruction information (SDM 3C 28.2.5) and the displacement that such exits have as qualification. RIP at the instruction.
uint32_t instruction_information(
    const struct insn *in); // address size, segment, base, index, scale; register form: bit 10, Reg1
uint32_t instruction_information_reg2(const struct insn *in); // the same with ModRM.reg as Reg2 in 31:28
uint64_t instruction_displacement(const struct cpu *cpu, const struct insn *in);

// VM entry for VMLAUNCH and VMRESUME, from the basic checks on; CPL and operation mode are checked, RIP is at the instruction.
enum exec_result vmx_enter(struct cpu *cpu, const struct insn *in, bool launch);

// How a VMX instruction ends (SDM 3C "Conventions"): sets the six flags; retires the instruction.
enum exec_result vmx_succeed(struct cpu *cpu, const struct insn *in);
enum exec_result vmx_fail_invalid(struct cpu *cpu, const struct insn *in);
enum exec_result vmx_fail_valid(struct cpu *cpu, const struct insn *in, unsigned error);
enum exec_result vmx_fail(struct cpu *cpu, const struct insn *in,
                          unsigned error); // Valid if there is a current VMCS, else Invalid

enum exec_result vmx_instruction(struct cpu *cpu, const struct insn *in);

// Entries of a VM-entry MSR-load, VM-exit MSR-store or MSR-load area (SDM 3C 25.7.2): number of the first one that fails, counted from 1;
// 0: all done.
uint32_t msr_list_load(struct cpu *cpu, hpa_t address, uint32_t count);
uint32_t msr_list_store(struct cpu *cpu, hpa_t address, uint32_t count);

// Computes cpu->intercepts from the effective controls.
void intercept_update(struct cpu *cpu);
enum exec_result intercept_instruction(struct cpu *cpu, const struct insn *in, enum intercept what, uint64_t operand);
uint64_t intercept_read_cr0(const struct cpu *cpu);
uint64_t intercept_read_cr4(const struct cpu *cpu);
uint64_t intercept_merge_cr0(const struct cpu *cpu, uint64_t value);
uint64_t intercept_merge_cr4(const struct cpu *cpu, uint64_t value);
uint64_t intercept_guest_tsc(const struct cpu *cpu, uint64_t tsc);

// events.c: exits of events, injection, what is to be looked at between instructions.
enum exec_result event_exception(struct cpu *cpu, const struct event *event, const struct event *during);
enum exec_result event_triple_fault(struct cpu *cpu);
enum exec_result event_task_switch(struct cpu *cpu, uint16_t selector, unsigned source, unsigned length,
                                   const struct event *during);
enum exec_result event_boundary(struct cpu *cpu);
enum exec_result event_inject(struct cpu *cpu, uint32_t interruption_info);
void event_arm(struct cpu *cpu); // sets or clears PENDING_VMX
void preemption_timer_start(struct cpu *cpu, uint32_t value);
uint32_t preemption_timer_value(const struct cpu *cpu);

// ept_exit.c
enum exec_result ept_exit(struct cpu *cpu, const struct event *event, const struct event *during);

static inline bool is_effective_vpid(const struct vmx *vmx) { return (vmx->secondary & SECONDARY_ENABLE_VPID) != 0; }
static inline bool is_effective_ept(const struct vmx *vmx) { return (vmx->secondary & SECONDARY_ENABLE_EPT) != 0; }

// Interruption information of an event (IDT-vectoring or VM-exit interruption information).
static inline uint32_t event_information(const struct event *event)
{
    return (uint32_t)(event->vector | ((uint32_t)event->type << INTERRUPTION_TYPE_SHIFT) |
                      (event->has_error_code ? INTERRUPTION_ERROR_CODE : 0) | INTERRUPTION_VALID);
}

#endif
