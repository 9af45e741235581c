// VMX capabilities of a processor profile. SDM 3D appendix A "VMX Capability Reporting Facility".
#ifndef VMXON_VMX_CAPABILITIES_H
#define VMXON_VMX_CAPABILITIES_H

#include "base/types.h"
#include "ept/ept.h"
#include "vmcs/vmcs.h"

#define MSR_IA32_FEATURE_CONTROL 0x3A
#define MSR_IA32_VMX_BASIC       0x480
#define MSR_IA32_VMX_VMFUNC      0x491

// Allowed settings of a control word: a bit of `must` has to be 1, a bit outside `may` has to be 0.
struct control_caps {
    uint64_t must, may;
};

struct vmx_caps {
    const char *profile;
    uint64_t msr[MSR_IA32_VMX_VMFUNC - MSR_IA32_VMX_BASIC +
                 1]; // by index - 480H, what RDMSR reads; already limited to what is implemented
    bool msr_present[MSR_IA32_VMX_VMFUNC - MSR_IA32_VMX_BASIC + 1];
    uint64_t feature_control; // reset value of IA32_FEATURE_CONTROL
    struct control_caps pin, primary, secondary, tertiary, exit, exit2, entry, vmfunc; // TRUE MSRs where available
    uint64_t cr0_fixed0, cr0_fixed1, cr4_fixed0, cr4_fixed1;
    uint64_t basic;    // IA32_VMX_BASIC
    uint64_t misc;     // IA32_VMX_MISC
    uint64_t ept_vpid; // IA32_VMX_EPT_VPID_CAP
    bool
        sti_blocks_nmi_injection; // VM entry refuses to inject an NMI during blocking by STI (the SDM leaves it to the processor)
    uint32_t revision;            // VMCS revision identifier
    unsigned maxphyaddr;   // bits
    unsigned linear_width; // bits: 48 or 57
    struct ept_caps ept;
};

// Masks of the bits and bit fields of capability_bits.def: VMX_MISC_STORE_LMA, VMX_EPT_VPID_CAP_INVEPT and so on.
#define CAPABILITY_BIT(msr, high, low, name, title, implemented) \
    static const uint64_t VMX_##msr##_##name = BITS(high, low);
#include "vmx/capability_bits.def"
#undef CAPABILITY_BIT
// What a bit field of an MSR holds.
static inline uint64_t vmx_capability_field(uint64_t msr, uint64_t mask)
{
    return (msr & mask) >> __builtin_ctzll(mask);
}

// Fills caps for a profile name ("skylake"). maxphyaddr: 32 to 52 bits. False: no such profile.
bool vmx_caps_init(struct vmx_caps *caps, const char *profile, unsigned maxphyaddr);
// The fields that exist with these capabilities.
void vmx_caps_fields(const struct vmx_caps *caps, struct vmcs_field_set *set);

// --- For people: what each MSR says -------------------------------------------------------------------------------

// What one bit or bit field of a capability MSR means.
struct vmx_capability_bit {
    const char *name;   // "ENABLE_EPT"; as in controls.def and capability_bits.def
    const char *title;  // one line
    unsigned high, low; // bits of the control word, or of the MSR where it is no control word
    uint64_t value;     // of a bit field; 1 or 0 of a bit: for a control "the 1-setting is allowed"
    bool must_be_1;     // controls: the 0-setting is not allowed
    bool withheld;      // the processor of the profile has it, vmxon does not offer it
};
// Calls `each` for every known bit of an MSR (480H to 491H) in ascending order; `owner` is handed through. False: no such MSR.
bool vmx_caps_decode(const struct vmx_caps *caps, uint32_t msr,
                     void (*each)(void *owner, const struct vmx_capability_bit *bit), void *owner);
// "IA32_VMX_BASIC" ...; NULL: not one of 480H to 491H.
const char *vmx_caps_msr_name(uint32_t msr);
// The value of an MSR (480H to 491H, or 3AH) on the real processor of the profile. False: it has none.
bool vmx_caps_profile_value(const char *profile, uint32_t msr, uint64_t *value);
// Names of the profiles in the order of their age; NULL past the last.
const char *vmx_caps_profile_name(unsigned index);

#endif
