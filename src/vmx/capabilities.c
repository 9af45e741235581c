// VMX capabilities: from the MSRs of the real processor to what vmxon offers. SDM 3D appendix A "VMX Capability Reporting Facility".
//
// A bit is offered if the processor of the profile has it and vmxon implements it, so nothing unimplemented is ever advertised.
// VMCS_ENUM and the region size follow from our fields (docs/sdm.md).
#include "vmx/capabilities.h"

#include <string.h>

#include "base/assert.h"
#include "vmx/controls.h"

#define MSR_COUNT    (MSR_IA32_VMX_VMFUNC - MSR_IA32_VMX_BASIC + 1)
#define REGION_SIZE  4096
#define LINEAR_WIDTH 48

enum { // offsets from IA32_VMX_BASIC
    BASIC = 0x0,
    PINBASED = 0x1,
    PROCBASED = 0x2,
    EXIT = 0x3,
    ENTRY = 0x4,
    MISC = 0x5,
    CR0_FIXED0 = 0x6,
    CR0_FIXED1 = 0x7,
    CR4_FIXED0 = 0x8,
    CR4_FIXED1 = 0x9,
    VMCS_ENUM = 0xA,
    PROCBASED2 = 0xB,
    EPT_VPID_CAP = 0xC,
    TRUE_PINBASED = 0xD,
    TRUE_PROCBASED = 0xE,
    TRUE_EXIT = 0xF,
    TRUE_ENTRY = 0x10,
    VMFUNC = 0x11
};

struct profile_msr {
    const char *profile;
    uint32_t index;
    const char *name;
    uint64_t value;
};
static const struct profile_msr profile_msrs[] = {
#define CAPABILITY_MSR(profile, index, name, value) {#profile, index, #name, value},
#include "vmx/capability_msrs.def"
#undef CAPABILITY_MSR
};
enum { PROFILE_MSR_COUNT = sizeof profile_msrs / sizeof *profile_msrs };

struct capability_bit {
    unsigned msr; // offset from IA32_VMX_BASIC
    unsigned high, low;
    const char *name, *title;
    bool implemented;
};
static const struct capability_bit capability_bits[] = {
#define CAPABILITY_BIT(msr, high, low, name, title, implemented) {msr, high, low, #name, title, implemented},
#include "vmx/capability_bits.def"
#undef CAPABILITY_BIT
};
enum { CAPABILITY_BIT_COUNT = sizeof capability_bits / sizeof *capability_bits };

// Which control word a capability MSR speaks of.
static bool control_word_of(unsigned offset, enum control_word *word)
{
    switch (offset) {
    case PINBASED:
    case TRUE_PINBASED: *word = CONTROL_WORD_PIN; return true;
    case PROCBASED:
    case TRUE_PROCBASED: *word = CONTROL_WORD_PRIMARY; return true;
    case EXIT:
    case TRUE_EXIT: *word = CONTROL_WORD_EXIT; return true;
    case ENTRY:
    case TRUE_ENTRY: *word = CONTROL_WORD_ENTRY; return true;
    case PROCBASED2: *word = CONTROL_WORD_SECONDARY; return true;
    case VMFUNC: *word = CONTROL_WORD_VMFUNC; return true;
    default: return false;
    }
}

// --- Profiles -----------------------------------------------------------------------------------------------------

static const struct profile_msr *profile_msr_find(const char *profile, uint32_t msr)
{
    for (unsigned i = 0; i < PROFILE_MSR_COUNT; i++)
        if (profile_msrs[i].index == msr && !strcmp(profile_msrs[i].profile, profile))
            return &profile_msrs[i];
    return NULL;
}

bool vmx_caps_profile_value(const char *profile, uint32_t msr, uint64_t *value)
{
    const struct profile_msr *found = profile_msr_find(profile, msr);
    if (!found)
        return false;
    *value = found->value;
    return true;
}

const char *vmx_caps_profile_name(unsigned index)
{
    const char *name = NULL;
    for (unsigned i = 0; i < PROFILE_MSR_COUNT; i++) {
        if (name && !strcmp(name, profile_msrs[i].profile))
            continue;
        name = profile_msrs[i].profile;
        if (!index--)
            return name;
    }
    return NULL;
}

const char *vmx_caps_msr_name(uint32_t msr)
{
    for (unsigned i = 0; i < PROFILE_MSR_COUNT; i++)
        if (profile_msrs[i].index == msr && msr >= MSR_IA32_VMX_BASIC)
            return profile_msrs[i].name;
    return NULL;
}

// --- Limiting to what is implemented ------------------------------------------------------------------------------

// Bits of a control word that may be 1: those with an implemented row, and the reserved bits that have to be 1.
static uint64_t control_mask(enum control_word word, uint64_t default1)
{
    uint64_t implemented = 0, known = 0;
    unsigned count;
    const struct vmx_control_info *controls = vmx_controls(&count);
    for (unsigned i = 0; i < count; i++) {
        if (controls[i].word != word)
            continue;
        known |= BIT(controls[i].bit);
        if (controls[i].implemented)
            implemented |= BIT(controls[i].bit);
    }
    ASSERT(!(default1 & known & ~implemented), "a control that must be 1 has to be implemented");
    return implemented | (default1 & ~known);
}

// `raw` and the result: bits 31:0 must be 1, bits 63:32 may be 1. IA32_VMX_VMFUNC: all 64 bits may be 1.
static uint64_t limit_control(unsigned offset, enum control_word word, uint64_t raw, uint64_t default1)
{
    uint64_t mask = control_mask(word, default1);
    return offset == VMFUNC ? raw & mask : (raw & 0xFFFFFFFF) | (raw & mask << 32);
}

static uint64_t limit_bits(unsigned offset, uint64_t raw)
{
    uint64_t mask = 0;
    for (unsigned i = 0; i < CAPABILITY_BIT_COUNT; i++)
        if (capability_bits[i].msr == offset && capability_bits[i].implemented)
            mask |= BITS(capability_bits[i].high, capability_bits[i].low);
    return raw & mask;
}

// The MSR of the word without TRUE, whose bits 31:0 hold the default1 class.
static unsigned plain_offset(unsigned offset)
{
    return offset >= TRUE_PINBASED && offset <= TRUE_ENTRY ? offset - TRUE_PINBASED + PINBASED : offset;
}

static uint64_t limited_value(const char *profile, unsigned offset, uint64_t raw)
{
    enum control_word word;
    if (control_word_of(offset, &word)) {
        uint64_t default1 = 0;
        if (offset != VMFUNC)
            vmx_caps_profile_value(profile, MSR_IA32_VMX_BASIC + plain_offset(offset), &default1);
        return limit_control(offset, word, raw, default1 & 0xFFFFFFFF);
    }
    switch (offset) {
    case CR0_FIXED0:
    case CR0_FIXED1:
    case CR4_FIXED0: return raw;
    // DEVIATION(region_size): real processors say 1,024; our layout has 8 bytes a field.
    case BASIC: return (limit_bits(BASIC, raw) & ~BITS(44, 32)) | (uint64_t)REGION_SIZE << 32;
    default: return limit_bits(offset, raw);
    }
}

// --- Filling struct vmx_caps --------------------------------------------------------------------------------------

static struct control_caps control_caps(const struct vmx_caps *caps, unsigned plain, unsigned with_true)
{
    unsigned offset = caps->msr_present[with_true] ? with_true : plain;
    return (struct control_caps){.must = caps->msr[offset] & 0xFFFFFFFF, .may = caps->msr[offset] >> 32};
}

static void fill_controls(struct vmx_caps *caps)
{
    caps->pin = control_caps(caps, PINBASED, TRUE_PINBASED);
    caps->primary = control_caps(caps, PROCBASED, TRUE_PROCBASED);
    caps->exit = control_caps(caps, EXIT, TRUE_EXIT);
    caps->entry = control_caps(caps, ENTRY, TRUE_ENTRY);
    if (caps->primary.may & PRIMARY_ACTIVATE_SECONDARY_CONTROLS)
        caps->secondary = control_caps(caps, PROCBASED2, PROCBASED2);
    if (caps->secondary.may & SECONDARY_ENABLE_VM_FUNCTIONS)
        caps->vmfunc.may = caps->msr[VMFUNC];
}

static void fill_ept(struct vmx_caps *caps)
{
    caps->ept_vpid = caps->msr[EPT_VPID_CAP];
    caps->ept =
        (struct ept_caps){.execute_only = caps->ept_vpid & VMX_EPT_VPID_CAP_EXECUTE_ONLY,
                          .walk_length_5 = caps->ept_vpid & VMX_EPT_VPID_CAP_WALK_LENGTH_5,
                          .page_2m = caps->ept_vpid & VMX_EPT_VPID_CAP_PAGE_2M,
                          .page_1g = caps->ept_vpid & VMX_EPT_VPID_CAP_PAGE_1G,
                          .advanced_violation_info = caps->ept_vpid & VMX_EPT_VPID_CAP_ADVANCED_EXIT_INFORMATION,
                          .maxphyaddr = caps->maxphyaddr};
}

static unsigned highest_field_index(const struct vmcs_field_set *set)
{
    unsigned highest = 0;
    for (unsigned i = 0; i < VMCS_FIELD_COUNT; i++) {
        unsigned index = (unsigned)bits_get(vmcs_fields[i].encoding, 9, 1);
        if ((set->present[i / 64] >> i % 64 & 1) && index > highest)
            highest = index;
    }
    return highest;
}

bool vmx_caps_init(struct vmx_caps *caps, const char *profile, unsigned maxphyaddr)
{
    const struct profile_msr *basic = profile_msr_find(profile, MSR_IA32_VMX_BASIC);
    if (!basic)
        return false;
    ASSERT(maxphyaddr >= 32 && maxphyaddr <= 52, "the processor profiles have between 32 and 52 physical-address bits");
    *caps = (struct vmx_caps){.profile = basic->profile,
                              .maxphyaddr = maxphyaddr,
                              .linear_width = LINEAR_WIDTH,
                              .sti_blocks_nmi_injection = true};
    vmx_caps_profile_value(profile, MSR_IA32_FEATURE_CONTROL, &caps->feature_control);
    for (unsigned offset = 0; offset < MSR_COUNT; offset++) {
        uint64_t raw;
        caps->msr_present[offset] = vmx_caps_profile_value(profile, MSR_IA32_VMX_BASIC + offset, &raw);
        if (caps->msr_present[offset])
            caps->msr[offset] = limited_value(profile, offset, raw);
    }
    caps->basic = caps->msr[BASIC];
    caps->misc = caps->msr[MISC];
    caps->revision = (uint32_t)vmx_capability_field(caps->basic, VMX_BASIC_VMCS_REVISION);
    caps->cr0_fixed0 = caps->msr[CR0_FIXED0];
    caps->cr0_fixed1 = caps->msr[CR0_FIXED1];
    caps->cr4_fixed0 = caps->msr[CR4_FIXED0];
    caps->cr4_fixed1 = caps->msr[CR4_FIXED1];
    fill_controls(caps);
    fill_ept(caps);

    struct vmcs_field_set set;
    vmx_caps_fields(caps, &set);
    caps->msr[VMCS_ENUM] = (uint64_t)highest_field_index(&set) << 1;
    return true;
}

void vmx_caps_fields(const struct vmx_caps *caps, struct vmcs_field_set *set)
{
    *set = (struct vmcs_field_set){0};
#define FIELD(name, encoding, width, group, exists_when, title) \
    if (exists_when)                                            \
        set->present[VMCS_##name / 64] |= BIT(VMCS_##name % 64);
#include "vmcs/fields.def"
#undef FIELD
}

// --- Decoding -----------------------------------------------------------------------------------------------------

static void decode_controls(const struct vmx_caps *caps, unsigned offset, enum control_word word, uint64_t raw,
                            void (*each)(void *, const struct vmx_capability_bit *), void *owner)
{
    uint64_t value = caps->msr[offset];
    uint64_t may = offset == VMFUNC ? value : value >> 32, must = offset == VMFUNC ? 0 : value & 0xFFFFFFFF;
    uint64_t raw_may = offset == VMFUNC ? raw : raw >> 32;
    unsigned count;
    const struct vmx_control_info *controls = vmx_controls(&count);
    for (unsigned i = 0; i < count; i++) {
        unsigned bit = controls[i].bit;
        if (controls[i].word == word)
            each(owner, &(struct vmx_capability_bit){.name = controls[i].name,
                                                     .title = controls[i].title,
                                                     .high = bit,
                                                     .low = bit,
                                                     .value = may >> bit & 1,
                                                     .must_be_1 = must >> bit & 1,
                                                     .withheld = (raw_may & ~may) >> bit & 1});
    }
}

bool vmx_caps_decode(const struct vmx_caps *caps, uint32_t msr,
                     void (*each)(void *owner, const struct vmx_capability_bit *bit), void *owner)
{
    unsigned offset = msr - MSR_IA32_VMX_BASIC;
    if (msr < MSR_IA32_VMX_BASIC || offset >= MSR_COUNT || !caps->msr_present[offset])
        return false;
    uint64_t raw = 0;
    vmx_caps_profile_value(caps->profile, msr, &raw);
    enum control_word word;
    if (control_word_of(offset, &word)) {
        decode_controls(caps, offset, word, raw, each, owner);
        return true;
    }
    for (unsigned i = 0; i < CAPABILITY_BIT_COUNT; i++) {
        const struct capability_bit *bit = &capability_bits[i];
        if (bit->msr == offset)
            each(owner,
                 &(struct vmx_capability_bit){.name = bit->name,
                                              .title = bit->title,
                                              .high = bit->high,
                                              .low = bit->low,
                                              .value = bits_get(caps->msr[offset], bit->high, bit->low),
                                              .withheld = !bit->implemented && bits_get(raw, bit->high, bit->low)});
    }
    return true;
}
