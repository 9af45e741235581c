// The checks of VM entry on controls, host state and guest state. SDM 3C 27.2 and 27.3.1.
//
// Each check is a row of entry_checks.def; the rows run in the order of the table and the first that does not hold wins. The basic
// checks (27.1), the loading of MSRs (27.4) and what is loaded from valid guest state are entry.c's. Checks of features that this
// version does not offer (controls.def) have no row: their controls cannot be set.
#ifndef VMXON_VMX_ENTRY_CHECKS_H
#define VMXON_VMX_ENTRY_CHECKS_H

#include "mem/memory.h"
#include "vmcs/vmcs.h"
#include "vmx/capabilities.h"

// enum entry_check_id: CHECK_HOST_CR3_WIDTH etc., in the order of the table.
enum entry_check_id {
#define CHECK(id, outcome, spec_id, sdm, message, applies_when, must_hold) CHECK_##id,
#include "vmx/entry_checks.def"
#undef CHECK
    ENTRY_CHECK_COUNT
};

// What a failed check leads to.
enum check_outcome {
    FAIL_CONTROL,     // VMfailValid 7
    FAIL_HOST,        // VMfailValid 8
    FAIL_GUEST_0,     // VM-entry failure, exit reason 33, exit qualification 0
    FAIL_GUEST_PDPTE, // the same, exit qualification 2
    FAIL_GUEST_NMI,   // exit qualification 3
    FAIL_GUEST_LINK,  // exit qualification 4
};

// What the checks look at. Nothing is changed; `memory` is read (virtual-APIC page, VMCS at the link pointer, PDPTEs).
struct entry_context {
    const struct vmx_caps *caps;
    const struct vmcs_region *vmcs; // the current VMCS
    hpa_t current_pointer;          // its address
    const struct memory *memory;
    uint64_t efer; // IA32_EFER of the processor at the time of VM entry
    bool rtm;      // CPUID reports RTM (CPUID.07H.0:EBX bit 11)
    bool sgx;      // CPUID reports SGX (CPUID.07H.0:EBX bit 2)
};

// The first check that fails, as enum entry_check_id, or -1 if all hold.
int entry_check_controls_and_host(const struct entry_context *context);
// To be called only after the former returned -1.
int entry_check_guest(const struct entry_context *context);

// Whether one check holds, whatever the others say: for reports that name every fault of a VMCS at once.
bool entry_check_holds(enum entry_check_id id, const struct entry_context *context);

// Whether an EPTP passes the checks of VM entry, which VMFUNC and INVEPT make too.
bool entry_check_eptp(const struct vmx_caps *caps, uint64_t eptp);

struct entry_check_info {
    const char *name;    // "HOST_CR3_WIDTH"
    const char *spec_id; // "HCR.CR3": stable id of the rule, shared by the instances of one rule
    const char *sdm;     // section of SDM 3C: "27.2.2 Checks on Host Control Registers, MSRs, and SSP"
    const char *message; // what is wrong: "host CR3 sets bits beyond MAXPHYADDR"
    enum check_outcome outcome;
    const char *applies_when, *must_hold; // the expressions, as written in entry_checks.def
};
extern const struct entry_check_info entry_checks[ENTRY_CHECK_COUNT];

// VM-instruction error of an outcome (7 or 8), or 0 for a guest-state check.
unsigned entry_check_instruction_error(enum check_outcome outcome);
// Exit qualification of the VM-entry failure of a guest-state check.
uint64_t entry_check_exit_qualification(enum check_outcome outcome);

// The VMCS fields that a check reads, in the order in which it names them. Returns how many; at most `size` are stored.
unsigned entry_check_fields(enum entry_check_id id, enum vmcs_field *fields, unsigned size);

// One line, without newline: id, message, section, the fields with their values in `vmcs`. `size` > 0; cut off if too long.
void entry_check_explain(enum entry_check_id id, const struct vmcs_region *vmcs, char *buffer, size_t size);

#endif
