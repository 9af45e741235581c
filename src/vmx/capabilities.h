// VMX capabilities of a processor profile. SDM 3D appendix A "VMX Capability Reporting Facility".
#ifndef VMXON_VMX_CAPABILITIES_H
#define VMXON_VMX_CAPABILITIES_H

#include "base/types.h"
#include "ept/ept.h"
#include "vmcs/vmcs.h"

#define MSR_IA32_FEATURE_CONTROL 0x3A
#define MSR_IA32_VMX_BASIC 0x480
#define MSR_IA32_VMX_VMFUNC 0x491

// Allowed settings of a control word: a bit of `must` has to be 1, a bit outside `may` has to be 0.
struct control_caps {
    uint64_t must, may;
};

struct vmx_caps {
    const char *profile;
    uint64_t msr[MSR_IA32_VMX_VMFUNC - MSR_IA32_VMX_BASIC + 1]; // by index - 480H, what RDMSR reads; already limited to what is implemented
    bool msr_present[MSR_IA32_VMX_VMFUNC - MSR_IA32_VMX_BASIC + 1];
    uint64_t feature_control;       // reset value of IA32_FEATURE_CONTROL
    struct control_caps pin, primary, secondary, tertiary, exit, exit2, entry, vmfunc; // TRUE MSRs where available
    uint64_t cr0_fixed0, cr0_fixed1, cr4_fixed0, cr4_fixed1;
    uint64_t ept_vpid;              // IA32_VMX_EPT_VPID_CAP
    uint64_t misc;                  // IA32_VMX_MISC
    uint32_t revision;              // VMCS revision identifier
    unsigned maxphyaddr;            // bits
    unsigned linear_width;          // bits: 48 or 57
    struct ept_caps ept;
};

// Fills caps for a profile name ("skylake"). False: no such profile.
bool vmx_caps_init(struct vmx_caps *caps, const char *profile, unsigned maxphyaddr);
// The fields that exist with these capabilities.
void vmx_caps_fields(const struct vmx_caps *caps, struct vmcs_field_set *set);

#endif
