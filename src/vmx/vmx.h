// VMX of one vCPU: operation state, capabilities, and the public interface of the module.
//
// SDM 3C ch. 24 to 31. Files: capabilities.c (profile -> MSRs and allowed bits), instructions.c (the thirteen instructions),
// entry_checks.def/.c (every consistency check), entry.c, exit.c, intercept.c (what exits), events.c (injection, windows, boundary).
#ifndef VMXON_VMX_VMX_H
#define VMXON_VMX_VMX_H

#include "cpu/cpu.h"
#include "vmcs/vmcs.h"
#include "vmx/capabilities.h"
#include "vmx/entry_memo.h"

enum vmx_exit_reason {
#define EXIT_REASON(number, name, title) EXIT_##name = number,
#include "vmx/exit_reasons.def"
#undef EXIT_REASON
    EXIT_REASON_COUNT = 86
};

// What made the last VM entry or VMX instruction fail, for the explanation printed to the user.
struct vmx_failure {
    int check_id;               // enum entry_check_id, or -1
    unsigned instruction_error; // VM-instruction error number, or 0
};

struct vmx {
    const struct vmx_caps *caps;
    struct vmcs_field_set fields;
    hpa_t vmxon_pointer;
    hpa_t current_pointer;       // VMCS_NO_POINTER: no current VMCS
    struct vmcs_region *current; // host view of it; NULL if none
    struct vmcs_region *shadow;  // of the link pointer, in non-root with VMCS shadowing; else NULL

    // Effective controls of the running guest, set at VM entry (secondary 0 unless activated).
    uint32_t pin, primary, secondary, exit_controls, entry_controls;
    uint32_t exception_bitmap;
    uint64_t cr0_mask, cr0_shadow, cr4_mask, cr4_shadow;
    bool mtf_pending;
    bool virtual_nmi_blocking;
    uint64_t tsc_offset;         // 0 unless TSC offsetting is in use
    cycle_t preemption_deadline; // cycle at which the VMX-preemption timer reaches 0; UINT64_MAX: not running
    uint64_t pause_first,
        pause_last;         // PAUSE-loop exiting: TSC of the first and the last PAUSE of the present loop at CPL 0
    bool pause_loop;        // a loop has begun
    struct event injecting; // the event being injected by VM entry (delivery is "during" it)
    bool is_injecting;
    bool has_rtm, has_sgx; // CPUID of the profile; entry checks depend on them

    // Statistics.
    uint64_t entries, entry_failures, instruction_failures;
    uint64_t exits[EXIT_REASON_COUNT];
    struct entry_memo memo; // derived: what the entry checks last accepted
    struct vmx_failure last_failure;
    // VMX abort: the machine stops with exit status 6.
    unsigned abort; // abort indicator, 0: none
};

// Connects VMX to a vCPU: sets cpu->vmx and cpu->vmx_ops. `vmx` is owned by the caller.
void vmx_init(struct vmx *vmx, struct cpu *cpu, const struct vmx_caps *caps);
void vmx_reset(struct vmx *vmx, struct cpu *cpu);
extern const struct vmx_ops vmx_cpu_ops;

// Next cycle at which VMX needs its boundary callback (preemption timer), or UINT64_MAX. The machine sets PENDING_VMX when it has come.
cycle_t vmx_next_event(const struct cpu *cpu);

// Computes again what derives from current_pointer and the state of operation (host pointers, intercepts): after a snapshot was restored.
void vmx_rebind(struct cpu *cpu);

const char *vmx_exit_reason_name(unsigned reason);      // basic reason 0..85; NULL: unused number
const char *vmx_instruction_error_text(unsigned error); // NULL: unused number

#endif
