/* See vmx_setup.h. */
#include "vmx_setup.h"

#include "boot.h"
#include "cpu.h"
#include "end.h"
#include "serial.h"
#include "string.h"

bool vmx_is_supported(void) { return cpuid(1, 0).ecx & CPUID_1_ECX_VMX; }

static bool permit_vmxon(void)
{
    uint64_t feature_control = rdmsr(MSR_IA32_FEATURE_CONTROL);
    if (!(feature_control & FEATURE_CONTROL_LOCK)) {
        feature_control |= FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMXON_OUTSIDE_SMX;
        wrmsr(MSR_IA32_FEATURE_CONTROL, feature_control);
    }
    return feature_control & FEATURE_CONTROL_VMXON_OUTSIDE_SMX;
}

/* A bit that is 1 in FIXED0 must be 1; a bit that is 0 in FIXED1 must be 0. */
static uint64_t apply_fixed_bits(uint64_t value, enum msr fixed0, enum msr fixed1)
{
    return (value | rdmsr(fixed0)) & rdmsr(fixed1);
}

bool vmx_enable(void)
{
    if (!permit_vmxon()) {
        return false;
    }
    write_cr0(apply_fixed_bits(read_cr0(), MSR_IA32_VMX_CR0_FIXED0, MSR_IA32_VMX_CR0_FIXED1));
    write_cr4(apply_fixed_bits(read_cr4() | CR4_VMXE, MSR_IA32_VMX_CR4_FIXED0, MSR_IA32_VMX_CR4_FIXED1));
    return true;
}

void vmx_region_init(struct vmx_region *region)
{
    memset(region, 0, sizeof *region);
    region->revision = (uint32_t)(rdmsr(MSR_IA32_VMX_BASIC) & VMX_BASIC_REVISION_MASK);
}

/*
 * A capability MSR of a control field: bits 31:0 are the control bits that must be 1, bits 63:32 those that may be 1.
 * The TRUE MSRs, where they exist, let more of the bits be 0.
 */
static uint64_t read_control_capability(enum control_field field)
{
    static const enum msr classic[] = {
        [CONTROLS_PIN] = MSR_IA32_VMX_PINBASED_CTLS,         [CONTROLS_PRIMARY] = MSR_IA32_VMX_PROCBASED_CTLS,
        [CONTROLS_SECONDARY] = MSR_IA32_VMX_PROCBASED_CTLS2, [CONTROLS_EXIT] = MSR_IA32_VMX_EXIT_CTLS,
        [CONTROLS_ENTRY] = MSR_IA32_VMX_ENTRY_CTLS,
    };
    static const enum msr true_controls[] = {
        [CONTROLS_PIN] = MSR_IA32_VMX_TRUE_PINBASED_CTLS,    [CONTROLS_PRIMARY] = MSR_IA32_VMX_TRUE_PROCBASED_CTLS,
        [CONTROLS_SECONDARY] = MSR_IA32_VMX_PROCBASED_CTLS2, /* there is no TRUE one */
        [CONTROLS_EXIT] = MSR_IA32_VMX_TRUE_EXIT_CTLS,       [CONTROLS_ENTRY] = MSR_IA32_VMX_TRUE_ENTRY_CTLS,
    };
    bool has_true_controls = rdmsr(MSR_IA32_VMX_BASIC) & VMX_BASIC_TRUE_CONTROLS;
    return rdmsr(has_true_controls ? true_controls[field] : classic[field]);
}

bool vmx_controls_allow(enum control_field field, uint32_t wanted)
{
    if (field == CONTROLS_SECONDARY && !vmx_controls_allow(CONTROLS_PRIMARY, PRIMARY_ACTIVATE_SECONDARY_CONTROLS)) {
        return false; /* the capability MSR does not exist either */
    }
    uint32_t may_be_one = (uint32_t)(read_control_capability(field) >> 32);
    return (wanted & ~may_be_one) == 0;
}

uint32_t vmx_controls_value(enum control_field field, uint32_t wanted)
{
    static const char *const names[] = {"pin-based", "primary", "secondary", "VM-exit", "VM-entry"};
    if (!vmx_controls_allow(field, wanted)) {
        serial_printf("this processor does not allow all of the %s controls 0x%x\n", names[field], wanted);
        finish(1);
    }
    uint32_t must_be_one = (uint32_t)read_control_capability(field);
    return wanted | must_be_one;
}

void vmx_write_host_state(void)
{
    vmcs_write(VMCS_HOST_CR0, read_cr0());
    vmcs_write(VMCS_HOST_CR3, read_cr3());
    vmcs_write(VMCS_HOST_CR4, read_cr4());

    vmcs_write(VMCS_HOST_CS_SELECTOR, BOOT_CS);
    vmcs_write(VMCS_HOST_SS_SELECTOR, BOOT_DS);
    vmcs_write(VMCS_HOST_DS_SELECTOR, BOOT_DS);
    vmcs_write(VMCS_HOST_ES_SELECTOR, BOOT_DS);
    vmcs_write(VMCS_HOST_FS_SELECTOR, BOOT_DS);
    vmcs_write(VMCS_HOST_GS_SELECTOR, BOOT_DS);
    vmcs_write(VMCS_HOST_TR_SELECTOR, BOOT_TR);

    vmcs_write(VMCS_HOST_FS_BASE, rdmsr(MSR_IA32_FS_BASE));
    vmcs_write(VMCS_HOST_GS_BASE, rdmsr(MSR_IA32_GS_BASE));
    vmcs_write(VMCS_HOST_TR_BASE, (uint64_t)boot_tss);
    vmcs_write(VMCS_HOST_GDTR_BASE, sgdt().base);
    vmcs_write(VMCS_HOST_IDTR_BASE, sidt().base);

    vmcs_write(VMCS_HOST_IA32_SYSENTER_CS, rdmsr(MSR_IA32_SYSENTER_CS));
    vmcs_write(VMCS_HOST_IA32_SYSENTER_ESP, rdmsr(MSR_IA32_SYSENTER_ESP));
    vmcs_write(VMCS_HOST_IA32_SYSENTER_EIP, rdmsr(MSR_IA32_SYSENTER_EIP));
}

void vmx_write_guest_segment(enum segment_register segment, uint16_t selector, uint64_t base, uint32_t limit,
                             uint32_t access_rights)
{
    vmcs_write(VMCS_GUEST_ES_SELECTOR + 2 * segment, selector);
    vmcs_write(VMCS_GUEST_ES_BASE + 2 * segment, base);
    vmcs_write(VMCS_GUEST_ES_LIMIT + 2 * segment, limit);
    vmcs_write(VMCS_GUEST_ES_ACCESS_RIGHTS + 2 * segment, access_rights);
}

static void write_guest_segments_64(void)
{
    vmx_write_guest_segment(SEGMENT_CS, BOOT_CS, 0, 0xFFFFFFFF, ACCESS_RIGHTS_CODE64);
    vmx_write_guest_segment(SEGMENT_SS, BOOT_DS, 0, 0xFFFFFFFF, ACCESS_RIGHTS_DATA32);
    vmx_write_guest_segment(SEGMENT_DS, BOOT_DS, 0, 0xFFFFFFFF, ACCESS_RIGHTS_DATA32);
    vmx_write_guest_segment(SEGMENT_ES, BOOT_DS, 0, 0xFFFFFFFF, ACCESS_RIGHTS_DATA32);
    vmx_write_guest_segment(SEGMENT_FS, BOOT_DS, 0, 0xFFFFFFFF, ACCESS_RIGHTS_DATA32);
    vmx_write_guest_segment(SEGMENT_GS, BOOT_DS, 0, 0xFFFFFFFF, ACCESS_RIGHTS_DATA32);
    vmx_write_guest_segment(SEGMENT_LDTR, 0, 0, 0, ACCESS_RIGHTS_UNUSABLE);
    vmx_write_guest_segment(SEGMENT_TR, BOOT_TR, (uint64_t)boot_tss, BOOT_TSS_LIMIT, ACCESS_RIGHTS_BUSY_TSS);

    vmcs_write(VMCS_GUEST_GDTR_BASE, sgdt().base);
    vmcs_write(VMCS_GUEST_GDTR_LIMIT, sgdt().limit);
    vmcs_write(VMCS_GUEST_IDTR_BASE, sidt().base);
    vmcs_write(VMCS_GUEST_IDTR_LIMIT, sidt().limit);
}

/* No event to inject, no MSR lists, no bitmaps, no CR0 or CR4 bit owned by the host. */
static void clear_unused_controls(void)
{
    vmcs_write(VMCS_EXCEPTION_BITMAP, 0);
    vmcs_write(VMCS_PAGE_FAULT_ERROR_CODE_MASK, 0);
    vmcs_write(VMCS_PAGE_FAULT_ERROR_CODE_MATCH, 0);
    vmcs_write(VMCS_CR3_TARGET_COUNT, 0);
    vmcs_write(VMCS_EXIT_MSR_STORE_COUNT, 0);
    vmcs_write(VMCS_EXIT_MSR_LOAD_COUNT, 0);
    vmcs_write(VMCS_ENTRY_MSR_LOAD_COUNT, 0);
    vmcs_write(VMCS_ENTRY_INTERRUPTION_INFO, 0);
    vmcs_write(VMCS_CR0_GUEST_HOST_MASK, 0);
    vmcs_write(VMCS_CR4_GUEST_HOST_MASK, 0);
    vmcs_write(VMCS_CR0_READ_SHADOW, read_cr0());
    vmcs_write(VMCS_CR4_READ_SHADOW, read_cr4());
}

void vmx_write_guest_state_64(uint64_t rip, uint64_t rsp)
{
    clear_unused_controls();
    write_guest_segments_64();

    vmcs_write(VMCS_GUEST_CR0, read_cr0());
    vmcs_write(VMCS_GUEST_CR3, read_cr3());
    vmcs_write(VMCS_GUEST_CR4, read_cr4());
    vmcs_write(VMCS_GUEST_DR7, read_dr7());
    vmcs_write(VMCS_GUEST_RIP, rip);
    vmcs_write(VMCS_GUEST_RSP, rsp);
    vmcs_write(VMCS_GUEST_RFLAGS, RFLAGS_FIXED);

    vmcs_write(VMCS_GUEST_IA32_DEBUGCTL, 0);
    vmcs_write(VMCS_GUEST_IA32_SYSENTER_CS, 0);
    vmcs_write(VMCS_GUEST_IA32_SYSENTER_ESP, 0);
    vmcs_write(VMCS_GUEST_IA32_SYSENTER_EIP, 0);

    vmcs_write(VMCS_GUEST_INTERRUPTIBILITY_STATE, 0);
    vmcs_write(VMCS_GUEST_ACTIVITY_STATE, 0);
    vmcs_write(VMCS_GUEST_PENDING_DEBUG_EXCEPTIONS, 0);
    vmcs_write(VMCS_LINK_POINTER, UINT64_MAX); /* no shadow VMCS */
}
