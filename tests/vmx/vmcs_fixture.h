// A VMCS that passes every check of VM entry: 64-bit host, 64-bit guest with EPT, VPID, VM functions, VMCS shadowing, I/O and MSR bitmaps,
// TPR shadow, PAT and EFER loaded both ways. Tests break it in one place.
#ifndef VMXON_TESTS_VMX_VMCS_FIXTURE_H
#define VMXON_TESTS_VMX_VMCS_FIXTURE_H

#include <check.h>
#include <string.h>

#include "cpu/cpu.h"
#include "mem/memory.h"
#include "vmx/controls.h"
#include "vmx/entry_checks.h"

enum {
    FIXTURE_CURRENT = 0x4000,
    FIXTURE_LINK = 0x5000,
    FIXTURE_VIRTUAL_APIC = 0x6000,
    FIXTURE_PDPT = 0x7020,
    FIXTURE_RAM = 0x10000,
    FIXTURE_MAXPHYADDR = 39
};

#define ACCESS_RIGHTS_CODE64 0xA09B // type 11, S, P, L, G
#define ACCESS_RIGHTS_CODE32 0xC09B // type 11, S, P, D, G
#define ACCESS_RIGHTS_DATA   0xC093 // type 3, S, P, B, G
#define ACCESS_RIGHTS_TSS    0x008B
#define ACCESS_RIGHTS_LDT    0x0082
#define ACCESS_RIGHTS_V8086  0x00F3
#define PAT_AFTER_RESET      0x0007040600070406

struct fixture {
    struct vmx_caps caps;
    struct memory memory;
    struct vmcs_region *vmcs; // at FIXTURE_CURRENT
    struct entry_context context;
};
static struct fixture fx;

// Field X of the VMCS under test.
#define V(name) (fx.vmcs->field[VMCS_##name])

static inline void poke(hpa_t address, uint64_t value, unsigned size)
{
    ck_assert(memory_write(&fx.memory, address, &value, size));
}

static inline void fixture_controls(void)
{
    const struct vmx_caps *caps = &fx.caps;
    V(PIN_BASED_CONTROLS) = caps->pin.must | PIN_NMI_EXITING | PIN_VIRTUAL_NMIS | PIN_ACTIVATE_PREEMPTION_TIMER;
    V(PRIMARY_PROC_BASED_CONTROLS) = caps->primary.must | PRIMARY_ACTIVATE_SECONDARY_CONTROLS | PRIMARY_USE_IO_BITMAPS |
                                     PRIMARY_USE_MSR_BITMAPS | PRIMARY_USE_TPR_SHADOW | PRIMARY_NMI_WINDOW_EXITING;
    V(SECONDARY_PROC_BASED_CONTROLS) =
        SECONDARY_ENABLE_EPT | SECONDARY_ENABLE_VPID | SECONDARY_ENABLE_VM_FUNCTIONS | SECONDARY_VMCS_SHADOWING;
    V(PRIMARY_EXIT_CONTROLS) = caps->exit.must | EXIT_HOST_ADDRESS_SPACE_SIZE | EXIT_LOAD_IA32_PAT |
                               EXIT_LOAD_IA32_EFER | EXIT_SAVE_PREEMPTION_TIMER;
    V(ENTRY_CONTROLS) = caps->entry.must | ENTRY_IA32E_MODE_GUEST | ENTRY_LOAD_DEBUG_CONTROLS | ENTRY_LOAD_IA32_PAT |
                        ENTRY_LOAD_IA32_EFER;
    V(IO_BITMAP_A) = 0x1000;
    V(IO_BITMAP_B) = 0x2000;
    V(MSR_BITMAP) = 0x3000;
    V(VIRTUAL_APIC_ADDR) = FIXTURE_VIRTUAL_APIC;
    V(VPID) = 1;
    V(EPTP) = 0x8000 | 3 << 3 | 6;
    V(VM_FUNCTION_CONTROLS) = VMFUNC_EPTP_SWITCHING;
    V(EPTP_LIST_ADDR) = 0x9000;
    V(VMREAD_BITMAP) = 0xA000;
    V(VMWRITE_BITMAP) = 0xB000;
    V(VMCS_LINK_POINTER) = FIXTURE_LINK;
}

static inline void fixture_host(void)
{
    V(HOST_CR0) = CR0_PE | CR0_NE | CR0_PG;
    V(HOST_CR3) = 0xC000;
    V(HOST_CR4) = CR4_PAE | CR4_VMXE;
    V(HOST_IA32_PAT) = PAT_AFTER_RESET;
    V(HOST_IA32_EFER) = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
    V(HOST_CS_SELECTOR) = 0x08;
    V(HOST_SS_SELECTOR) = V(HOST_DS_SELECTOR) = V(HOST_ES_SELECTOR) = V(HOST_FS_SELECTOR) = V(HOST_GS_SELECTOR) = 0x10;
    V(HOST_TR_SELECTOR) = 0x18;
    V(HOST_RIP) = 0xFFFF800000001000;
    V(HOST_GDTR_BASE) = 0xFFFF800000002000;
    V(HOST_IDTR_BASE) = 0x00007FFFFFFFF000;
}

static inline void fixture_data_segment(enum vmcs_field selector, enum vmcs_field limit, enum vmcs_field access_rights)
{
    vmcs_put(fx.vmcs, selector, 0x10);
    vmcs_put(fx.vmcs, limit, 0xFFFFFFFF);
    vmcs_put(fx.vmcs, access_rights, ACCESS_RIGHTS_DATA);
}

static inline void fixture_guest(void)
{
    V(GUEST_CR0) = CR0_PE | CR0_NE | CR0_PG;
    V(GUEST_CR3) = 0xD000;
    V(GUEST_CR4) = CR4_PAE | CR4_VMXE;
    V(GUEST_IA32_PAT) = PAT_AFTER_RESET;
    V(GUEST_IA32_EFER) = EFER_LME | EFER_LMA;
    V(GUEST_DR7) = 0x400;
    V(GUEST_CS_SELECTOR) = 0x08;
    V(GUEST_CS_LIMIT) = 0xFFFFFFFF;
    V(GUEST_CS_ACCESS_RIGHTS) = ACCESS_RIGHTS_CODE64;
    fixture_data_segment(VMCS_GUEST_SS_SELECTOR, VMCS_GUEST_SS_LIMIT, VMCS_GUEST_SS_ACCESS_RIGHTS);
    fixture_data_segment(VMCS_GUEST_DS_SELECTOR, VMCS_GUEST_DS_LIMIT, VMCS_GUEST_DS_ACCESS_RIGHTS);
    fixture_data_segment(VMCS_GUEST_ES_SELECTOR, VMCS_GUEST_ES_LIMIT, VMCS_GUEST_ES_ACCESS_RIGHTS);
    fixture_data_segment(VMCS_GUEST_FS_SELECTOR, VMCS_GUEST_FS_LIMIT, VMCS_GUEST_FS_ACCESS_RIGHTS);
    fixture_data_segment(VMCS_GUEST_GS_SELECTOR, VMCS_GUEST_GS_LIMIT, VMCS_GUEST_GS_ACCESS_RIGHTS);
    V(GUEST_TR_SELECTOR) = 0x18;
    V(GUEST_TR_LIMIT) = 0x67;
    V(GUEST_TR_ACCESS_RIGHTS) = ACCESS_RIGHTS_TSS;
    V(GUEST_LDTR_SELECTOR) = 0x20;
    V(GUEST_LDTR_LIMIT) = 0xFFF;
    V(GUEST_LDTR_ACCESS_RIGHTS) = ACCESS_RIGHTS_LDT;
    V(GUEST_GDTR_LIMIT) = V(GUEST_IDTR_LIMIT) = 0xFFFF;
    V(GUEST_RIP) = 0x1000;
    V(GUEST_RFLAGS) = RFLAGS_ONE;
}

static inline void fixture_setup(void)
{
    ck_assert(vmx_caps_init(&fx.caps, "skylake", FIXTURE_MAXPHYADDR));
    ck_assert_int_eq(memory_create(&fx.memory, FIXTURE_RAM), MEMORY_OK);
    fx.vmcs = vmcs_region_at(&fx.memory, FIXTURE_CURRENT);
    fx.vmcs->revision = fx.caps.revision;
    poke(FIXTURE_LINK, fx.caps.revision | VMCS_SHADOW_INDICATOR, 4);
    fx.context = (struct entry_context){.caps = &fx.caps,
                                        .vmcs = fx.vmcs,
                                        .current_pointer = FIXTURE_CURRENT,
                                        .memory = &fx.memory,
                                        .efer = EFER_LME | EFER_LMA};
    fixture_controls();
    fixture_host();
    fixture_guest();
}

static inline void fixture_teardown(void) { memory_destroy(&fx.memory); }

// --- Variations ---------------------------------------------------------------------------------------------------

// A 32-bit protected-mode guest with PAE paging.
static inline void make_guest_32bit(void)
{
    V(ENTRY_CONTROLS) &= ~(uint64_t)ENTRY_IA32E_MODE_GUEST;
    V(GUEST_IA32_EFER) = 0;
    V(GUEST_CS_ACCESS_RIGHTS) = ACCESS_RIGHTS_CODE32;
}

// A 32-bit host, and so a 32-bit guest.
static inline void make_host_32bit(void)
{
    make_guest_32bit();
    fx.context.efer = 0;
    V(PRIMARY_EXIT_CONTROLS) &= ~(uint64_t)EXIT_HOST_ADDRESS_SPACE_SIZE;
    V(HOST_IA32_EFER) = 0;
    V(HOST_RIP) = 0xFFFFFFFF;
}

static inline void make_unrestricted(void) { V(SECONDARY_PROC_BASED_CONTROLS) |= SECONDARY_UNRESTRICTED_GUEST; }

// An unrestricted guest in real mode.
static inline void make_guest_real(void)
{
    make_guest_32bit();
    make_unrestricted();
    V(GUEST_CR0) = CR0_NE;
}

static inline void make_v8086_segment(enum vmcs_field selector, enum vmcs_field base, enum vmcs_field limit,
                                      enum vmcs_field access_rights)
{
    vmcs_put(fx.vmcs, base, vmcs_get(fx.vmcs, selector) << 4);
    vmcs_put(fx.vmcs, limit, 0xFFFF);
    vmcs_put(fx.vmcs, access_rights, ACCESS_RIGHTS_V8086);
}

static inline void make_guest_v8086(void)
{
    make_guest_32bit();
    V(GUEST_RFLAGS) |= RFLAGS_VM;
    make_v8086_segment(VMCS_GUEST_CS_SELECTOR, VMCS_GUEST_CS_BASE, VMCS_GUEST_CS_LIMIT, VMCS_GUEST_CS_ACCESS_RIGHTS);
    make_v8086_segment(VMCS_GUEST_SS_SELECTOR, VMCS_GUEST_SS_BASE, VMCS_GUEST_SS_LIMIT, VMCS_GUEST_SS_ACCESS_RIGHTS);
    make_v8086_segment(VMCS_GUEST_DS_SELECTOR, VMCS_GUEST_DS_BASE, VMCS_GUEST_DS_LIMIT, VMCS_GUEST_DS_ACCESS_RIGHTS);
    make_v8086_segment(VMCS_GUEST_ES_SELECTOR, VMCS_GUEST_ES_BASE, VMCS_GUEST_ES_LIMIT, VMCS_GUEST_ES_ACCESS_RIGHTS);
    make_v8086_segment(VMCS_GUEST_FS_SELECTOR, VMCS_GUEST_FS_BASE, VMCS_GUEST_FS_LIMIT, VMCS_GUEST_FS_ACCESS_RIGHTS);
    make_v8086_segment(VMCS_GUEST_GS_SELECTOR, VMCS_GUEST_GS_BASE, VMCS_GUEST_GS_LIMIT, VMCS_GUEST_GS_ACCESS_RIGHTS);
}

// A 32-bit guest with PAE paging whose PDPTEs are read from memory.
static inline void make_guest_pae_without_ept(void)
{
    make_guest_32bit();
    V(SECONDARY_PROC_BASED_CONTROLS) &= ~(uint64_t)(SECONDARY_ENABLE_EPT | SECONDARY_ENABLE_VM_FUNCTIONS);
    V(GUEST_CR3) = FIXTURE_PDPT;
    for (unsigned i = 0; i < 4; i++)
        poke(FIXTURE_PDPT + 8 * i, 0xE001, 8);
}

// Arranges for an event to be injected; bits 31:0 of the interruption-information field without the valid bit.
static inline void inject(enum event_type type, unsigned vector)
{
    V(ENTRY_INTERRUPTION_INFO) = BIT(31) | (uint64_t)type << 8 | vector;
}

#endif
