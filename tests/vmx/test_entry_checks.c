// VM-entry checks: every row of entry_checks.def has a case in which it applies and holds, and one in which it is the first to fail.
//
// A missing case is a build error: the table at the end is made from the same rows. Break a row and its case turns red.
#include "vmcs_fixture.h"

// case_ID(false) arranges that the check applies and holds, at its limit where it has one; case_ID(true) that it alone fails.
#define CASE(id) static void case_##id(bool fail)

#define OUTSIDE         BIT(FIXTURE_MAXPHYADDR) // an address bit beyond MAXPHYADDR
#define NOT_CANONICAL   BIT(47)
#define SELECTOR_TI_BIT 4

// --- Controls -----------------------------------------------------------------------------------------------------

CASE(PIN_MUST_BE_1) { V(PIN_BASED_CONTROLS) &= ~(fail ? BIT(1) : 0); }
CASE(PIN_MUST_BE_0)
{
    V(PIN_BASED_CONTROLS) |= fail ? (uint64_t)PIN_PROCESS_POSTED_INTERRUPTS : PIN_EXTERNAL_INTERRUPT_EXITING;
}
CASE(PRIMARY_MUST_BE_1) { V(PRIMARY_PROC_BASED_CONTROLS) &= ~(fail ? BIT(26) : 0); }
CASE(PRIMARY_MUST_BE_0)
{
    V(PRIMARY_PROC_BASED_CONTROLS) |= fail ? (uint64_t)PRIMARY_ACTIVATE_TERTIARY_CONTROLS : PRIMARY_HLT_EXITING;
}
CASE(SECONDARY_ALLOWED)
{
    V(SECONDARY_PROC_BASED_CONTROLS) |= fail ? (uint64_t)SECONDARY_ENABLE_PML : SECONDARY_ENABLE_RDTSCP;
}
CASE(CR3_TARGET_COUNT) { V(CR3_TARGET_COUNT) = fail ? 5 : 4; }
CASE(IO_BITMAP_A_ALIGNED) { V(IO_BITMAP_A) |= fail ? 0x800 : 0; }
CASE(IO_BITMAP_A_WIDTH) { V(IO_BITMAP_A) |= fail ? OUTSIDE : OUTSIDE >> 1; }
CASE(IO_BITMAP_B_ALIGNED) { V(IO_BITMAP_B) |= fail ? 1 : 0; }
CASE(IO_BITMAP_B_WIDTH) { V(IO_BITMAP_B) |= fail ? OUTSIDE : OUTSIDE >> 1; }
CASE(MSR_BITMAP_ALIGNED) { V(MSR_BITMAP) |= fail ? 0x800 : 0; }
CASE(MSR_BITMAP_WIDTH) { V(MSR_BITMAP) |= fail ? BIT(63) : OUTSIDE >> 1; }
CASE(VIRTUAL_APIC_ALIGNED) { V(VIRTUAL_APIC_ADDR) |= fail ? 0x800 : 0; }
CASE(VIRTUAL_APIC_WIDTH) { V(VIRTUAL_APIC_ADDR) |= fail ? OUTSIDE : OUTSIDE >> 1; }
CASE(TPR_THRESHOLD_RESERVED)
{
    V(TPR_THRESHOLD) = fail ? 0x10 : 0xF;
    poke(FIXTURE_VIRTUAL_APIC + 0x80, 0xF0, 4);
}
CASE(TPR_THRESHOLD_ABOVE_VTPR)
{
    poke(FIXTURE_VIRTUAL_APIC + 0x80, 0x5F, 4);
    V(TPR_THRESHOLD) = fail ? 6 : 5;
}
CASE(VIRTUAL_NMIS_NEED_NMI_EXITING)
{
    V(PIN_BASED_CONTROLS) &= ~(uint64_t)(PIN_NMI_EXITING | PIN_VIRTUAL_NMIS);
    V(PIN_BASED_CONTROLS) |= fail ? (uint64_t)PIN_VIRTUAL_NMIS : 0;
    V(PRIMARY_PROC_BASED_CONTROLS) &= ~(uint64_t)PRIMARY_NMI_WINDOW_EXITING;
}
CASE(NMI_WINDOW_NEEDS_VIRTUAL_NMIS)
{
    V(PIN_BASED_CONTROLS) &= ~(uint64_t)PIN_VIRTUAL_NMIS;
    V(PRIMARY_PROC_BASED_CONTROLS) &= ~(fail ? 0 : (uint64_t)PRIMARY_NMI_WINDOW_EXITING);
}
CASE(VPID_ZERO) { V(VPID) = fail ? 0 : 0xFFFF; }
CASE(EPTP_MEMORY_TYPE) { V(EPTP) = (V(EPTP) & ~(uint64_t)7) | (fail ? 5 : 0); }
CASE(EPTP_WALK_LENGTH) { V(EPTP) = (V(EPTP) & ~BITS(5, 3)) | (fail ? BIT(5) : BITS(4, 3)); }
CASE(EPTP_ACCESSED_DIRTY)
{
    V(EPTP) |= BIT(6);
    fx.caps.ept_vpid &= ~(fail ? BIT(21) : 0);
}
CASE(EPTP_SHADOW_STACK)
{
    V(EPTP) |= BIT(7);
    fx.caps.ept_vpid |= fail ? 0 : BIT(23);
}
CASE(EPTP_RESERVED) { V(EPTP) |= fail ? BIT(11) : 0; }
CASE(EPTP_WIDTH) { V(EPTP) |= fail ? OUTSIDE : OUTSIDE >> 1; }
CASE(UNRESTRICTED_GUEST_NEEDS_EPT)
{
    make_unrestricted();
    V(VM_FUNCTION_CONTROLS) = 0;
    V(SECONDARY_PROC_BASED_CONTROLS) &= ~(fail ? (uint64_t)SECONDARY_ENABLE_EPT : 0);
}
CASE(VM_FUNCTIONS_RESERVED) { V(VM_FUNCTION_CONTROLS) |= fail ? BIT(63) : 1; }
CASE(EPTP_SWITCHING_NEEDS_EPT) { V(SECONDARY_PROC_BASED_CONTROLS) &= ~(fail ? (uint64_t)SECONDARY_ENABLE_EPT : 0); }
CASE(EPTP_LIST_ALIGNED) { V(EPTP_LIST_ADDR) |= fail ? 8 : 0; }
CASE(EPTP_LIST_WIDTH) { V(EPTP_LIST_ADDR) |= fail ? OUTSIDE : OUTSIDE >> 1; }
CASE(VMREAD_BITMAP_ALIGNED) { V(VMREAD_BITMAP) |= fail ? 8 : 0; }
CASE(VMREAD_BITMAP_WIDTH) { V(VMREAD_BITMAP) |= fail ? OUTSIDE : OUTSIDE >> 1; }
CASE(VMWRITE_BITMAP_ALIGNED) { V(VMWRITE_BITMAP) |= fail ? 8 : 0; }
CASE(VMWRITE_BITMAP_WIDTH) { V(VMWRITE_BITMAP) |= fail ? OUTSIDE : OUTSIDE >> 1; }

CASE(EXIT_MUST_BE_1) { V(PRIMARY_EXIT_CONTROLS) &= ~(fail ? BIT(0) : 0); }
CASE(EXIT_MUST_BE_0) { V(PRIMARY_EXIT_CONTROLS) |= fail ? (uint64_t)EXIT_CLEAR_IA32_BNDCFGS : EXIT_SAVE_IA32_PAT; }
CASE(SAVE_TIMER_NEEDS_TIMER)
{
    V(PIN_BASED_CONTROLS) &= ~(uint64_t)PIN_ACTIVATE_PREEMPTION_TIMER;
    V(PRIMARY_EXIT_CONTROLS) &= ~(fail ? 0 : (uint64_t)EXIT_SAVE_PREEMPTION_TIMER);
}

// An MSR list of two entries: the last 32 bytes of physical memory hold, one entry further does not.
static void msr_list_aligned(bool fail, enum vmcs_field address, enum vmcs_field count)
{
    vmcs_put(fx.vmcs, count, 1);
    vmcs_put(fx.vmcs, address, fail ? 0x1008 : 0x1010);
}
static void msr_list_width(bool fail, enum vmcs_field address, enum vmcs_field count)
{
    vmcs_put(fx.vmcs, count, 2);
    vmcs_put(fx.vmcs, address, fail ? OUTSIDE : OUTSIDE - 32);
}
static void msr_list_last(bool fail, enum vmcs_field address, enum vmcs_field count)
{
    vmcs_put(fx.vmcs, count, 2);
    vmcs_put(fx.vmcs, address, fail ? OUTSIDE - 16 : OUTSIDE - 32);
}
#define LIST_CASES(list)                                                                      \
    CASE(list##_ALIGNED) { msr_list_aligned(fail, VMCS_##list##_ADDR, VMCS_##list##_COUNT); } \
    CASE(list##_WIDTH) { msr_list_width(fail, VMCS_##list##_ADDR, VMCS_##list##_COUNT); }     \
    CASE(list##_LAST) { msr_list_last(fail, VMCS_##list##_ADDR, VMCS_##list##_COUNT); }
LIST_CASES(EXIT_MSR_STORE)
LIST_CASES(EXIT_MSR_LOAD)
LIST_CASES(ENTRY_MSR_LOAD)

CASE(ENTRY_MUST_BE_1) { V(ENTRY_CONTROLS) &= ~(fail ? BIT(0) : 0); }
CASE(ENTRY_MUST_BE_0) { V(ENTRY_CONTROLS) |= fail ? (uint64_t)ENTRY_ENTRY_TO_SMM : 0; }
CASE(INJECT_RESERVED_TYPE) { inject(fail ? (enum event_type)1 : EVENT_NMI, 2); }
CASE(INJECT_OTHER_NEEDS_MTF)
{
    inject(EVENT_OTHER, 0);
    fx.caps.primary.may &= ~(fail ? (uint64_t)PRIMARY_MONITOR_TRAP_FLAG : 0);
}
CASE(INJECT_NMI_VECTOR) { inject(EVENT_NMI, fail ? 3 : 2); }
CASE(INJECT_EXCEPTION_VECTOR) { inject(EVENT_HARDWARE_EXCEPTION, fail ? 32 : 31); }
CASE(INJECT_OTHER_VECTOR) { inject(EVENT_OTHER, fail ? 1 : 0); }
CASE(INJECT_ERROR_CODE)
{
    inject(EVENT_HARDWARE_EXCEPTION, VECTOR_GP);
    V(ENTRY_INTERRUPTION_INFO) |= fail ? 0 : BIT(11);
}
CASE(INJECT_ERROR_CODE_TYPE)
{
    fx.caps.basic |= BIT(56);
    inject(fail ? EVENT_SOFTWARE_EXCEPTION : EVENT_HARDWARE_EXCEPTION, VECTOR_BP);
    V(ENTRY_INTERRUPTION_INFO) |= BIT(11);
    V(ENTRY_INSTRUCTION_LENGTH) = 1;
}
CASE(INJECT_RESERVED_BITS)
{
    inject(EVENT_NMI, 2);
    V(ENTRY_INTERRUPTION_INFO) |= fail ? BIT(12) : 0;
}
CASE(INJECT_ERROR_CODE_WIDTH)
{
    inject(EVENT_HARDWARE_EXCEPTION, VECTOR_PF);
    V(ENTRY_INTERRUPTION_INFO) |= BIT(11);
    V(ENTRY_EXCEPTION_ERROR_CODE) = fail ? 0x10000 : 0xFFFF;
}
CASE(INJECT_INSTRUCTION_LENGTH)
{
    inject(EVENT_SOFTWARE_INTERRUPT, 0x80);
    V(ENTRY_INSTRUCTION_LENGTH) = fail ? 16 : 15;
}

// --- Host state ---------------------------------------------------------------------------------------------------

CASE(HOST_CR0_FIXED_1) { V(HOST_CR0) &= ~(fail ? CR0_NE : 0); }
CASE(HOST_CR0_FIXED_0) { V(HOST_CR0) |= fail ? BIT(32) : CR0_CD | CR0_NW; }
CASE(HOST_CR4_FIXED_1) { V(HOST_CR4) &= ~(fail ? CR4_VMXE : 0); }
CASE(HOST_CR4_FIXED_0) { V(HOST_CR4) |= fail ? CR4_SMXE : CR4_PCIDE; }
CASE(HOST_CR3_WIDTH) { V(HOST_CR3) |= fail ? OUTSIDE : OUTSIDE >> 1; }
CASE(HOST_SYSENTER_ESP_CANONICAL) { V(HOST_IA32_SYSENTER_ESP) = fail ? NOT_CANONICAL : BITS(63, 47); }
CASE(HOST_SYSENTER_EIP_CANONICAL) { V(HOST_IA32_SYSENTER_EIP) = fail ? NOT_CANONICAL : BITS(63, 47); }
CASE(HOST_PAT) { V(HOST_IA32_PAT) = fail ? 0x0706050401000200 : 0x0706050401000100; }
CASE(HOST_EFER_RESERVED) { V(HOST_IA32_EFER) |= fail ? BIT(9) : 0; }
CASE(HOST_EFER_LMA) { V(HOST_IA32_EFER) &= ~(fail ? EFER_LMA : 0); }
CASE(HOST_EFER_LME) { V(HOST_IA32_EFER) &= ~(fail ? EFER_LME : 0); }
#define HOST_SELECTOR_CASE(R, bit) \
    CASE(HOST_##R##_SELECTOR) { V(HOST_##R##_SELECTOR) = fail ? 0x20 | BIT(bit) : 0x20; }
HOST_SELECTOR_CASE(CS, 0)
HOST_SELECTOR_CASE(SS, 1)
HOST_SELECTOR_CASE(DS, 2)
HOST_SELECTOR_CASE(ES, 0)
HOST_SELECTOR_CASE(FS, 1)
HOST_SELECTOR_CASE(GS, 2)
HOST_SELECTOR_CASE(TR, 2)
CASE(HOST_CS_NULL) { V(HOST_CS_SELECTOR) = fail ? 0 : 0xFFF8; }
CASE(HOST_TR_NULL) { V(HOST_TR_SELECTOR) = fail ? 0 : 0xFFF8; }
CASE(HOST_SS_NULL)
{
    make_host_32bit();
    V(HOST_SS_SELECTOR) = fail ? 0 : 0xFFF8;
}
#define HOST_BASE_CASE(R) \
    CASE(HOST_##R##_BASE_CANONICAL) { V(HOST_##R##_BASE) = fail ? NOT_CANONICAL : BITS(63, 47); }
HOST_BASE_CASE(FS)
HOST_BASE_CASE(GS)
HOST_BASE_CASE(GDTR)
HOST_BASE_CASE(IDTR)
HOST_BASE_CASE(TR)
CASE(IA32E_GUEST_NEEDS_LMA)
{
    make_host_32bit();
    V(ENTRY_CONTROLS) |= fail ? (uint64_t)ENTRY_IA32E_MODE_GUEST : 0;
}
CASE(HOST_64BIT_NEEDS_LMA)
{
    make_host_32bit();
    V(PRIMARY_EXIT_CONTROLS) |= fail ? (uint64_t)EXIT_HOST_ADDRESS_SPACE_SIZE : 0;
    V(HOST_IA32_EFER) = fail ? EFER_LMA | EFER_LME : 0;
}
CASE(LMA_NEEDS_HOST_64BIT)
{
    if (fail) {
        make_host_32bit();
        fx.context.efer = EFER_LME | EFER_LMA;
    }
}
CASE(IA32E_GUEST_NEEDS_HOST_64BIT) // shadowed: IA32E_GUEST_NEEDS_LMA and LMA_NEEDS_HOST_64BIT leave it nothing
{
    make_host_32bit();
    V(ENTRY_CONTROLS) |= fail ? (uint64_t)ENTRY_IA32E_MODE_GUEST : 0;
}
CASE(HOST_32BIT_PCIDE)
{
    make_host_32bit();
    V(HOST_CR4) |= fail ? CR4_PCIDE : 0;
}
CASE(HOST_32BIT_RIP)
{
    make_host_32bit();
    V(HOST_RIP) = fail ? BIT(32) : 0xFFFFFFFF;
}
CASE(HOST_64BIT_PAE) { V(HOST_CR4) &= ~(fail ? CR4_PAE : 0); }
CASE(HOST_64BIT_RIP) { V(HOST_RIP) = fail ? NOT_CANONICAL : BITS(63, 47); }

// --- Guest registers ----------------------------------------------------------------------------------------------

CASE(GUEST_CR0_FIXED_1) { V(GUEST_CR0) &= ~(fail ? CR0_NE : 0); }
CASE(GUEST_CR0_FIXED_0) { V(GUEST_CR0) |= fail ? BIT(32) : CR0_CD | CR0_NW; }
CASE(GUEST_CR0_PG_NEEDS_PE)
{
    make_guest_32bit();
    make_unrestricted();
    V(GUEST_CR0) = fail ? CR0_NE | CR0_PG : CR0_NE | CR0_PG | CR0_PE;
}
CASE(GUEST_CR4_FIXED_1) { V(GUEST_CR4) &= ~(fail ? CR4_VMXE : 0); }
CASE(GUEST_CR4_FIXED_0) { V(GUEST_CR4) |= fail ? BIT(15) : CR4_SMAP; }
CASE(GUEST_DEBUGCTL_RESERVED) { V(GUEST_IA32_DEBUGCTL) = fail ? BIT(2) : BIT(0); }
CASE(IA32E_GUEST_NEEDS_PG)
{
    make_unrestricted();
    V(GUEST_CR0) &= ~(fail ? CR0_PG : 0);
}
CASE(IA32E_GUEST_NEEDS_PAE) { V(GUEST_CR4) &= ~(fail ? CR4_PAE : 0); }
CASE(PCIDE_NEEDS_IA32E_GUEST)
{
    make_guest_32bit();
    V(GUEST_CR4) |= fail ? CR4_PCIDE : 0;
}
CASE(GUEST_CR3_WIDTH) { V(GUEST_CR3) |= fail ? BIT(63) : OUTSIDE >> 1; }
CASE(GUEST_DR7_HIGH) { V(GUEST_DR7) = fail ? BIT(32) : 0xFFFFFFFF; }
CASE(GUEST_SYSENTER_ESP_CANONICAL) { V(GUEST_IA32_SYSENTER_ESP) = fail ? NOT_CANONICAL : BITS(63, 47); }
CASE(GUEST_SYSENTER_EIP_CANONICAL) { V(GUEST_IA32_SYSENTER_EIP) = fail ? NOT_CANONICAL : BITS(63, 47); }
CASE(GUEST_PAT) { V(GUEST_IA32_PAT) = fail ? 0x0806050401000706 : 0x0706050401000706; }
CASE(GUEST_EFER_RESERVED) { V(GUEST_IA32_EFER) |= fail ? BIT(12) : EFER_NXE; }
CASE(GUEST_EFER_LMA) { V(GUEST_IA32_EFER) &= ~(fail ? EFER_LMA : 0); }
CASE(GUEST_EFER_LME) { V(GUEST_IA32_EFER) &= ~(fail ? EFER_LME : 0); }

// --- Guest segments -----------------------------------------------------------------------------------------------

CASE(GUEST_TR_TI) { V(GUEST_TR_SELECTOR) |= fail ? 4 : 3; }
CASE(GUEST_LDTR_TI) { V(GUEST_LDTR_SELECTOR) |= fail ? 4 : 3; }
CASE(GUEST_SS_RPL) { V(GUEST_CS_SELECTOR) |= fail ? 3 : 0; }

#define V8086_CASES(R)                                 \
    CASE(GUEST_##R##_V8086_BASE)                       \
    {                                                  \
        make_guest_v8086();                            \
        V(GUEST_##R##_BASE) += fail ? 16 : 0;          \
    }                                                  \
    CASE(GUEST_##R##_V8086_LIMIT)                      \
    {                                                  \
        make_guest_v8086();                            \
        V(GUEST_##R##_LIMIT) = fail ? 0xFFFE : 0xFFFF; \
    }                                                  \
    CASE(GUEST_##R##_V8086_ACCESS_RIGHTS)              \
    {                                                  \
        make_guest_v8086();                            \
        V(GUEST_##R##_ACCESS_RIGHTS) ^= fail ? 8 : 0;  \
    }
V8086_CASES(CS)
V8086_CASES(SS)
V8086_CASES(DS)
V8086_CASES(ES)
V8086_CASES(FS)
V8086_CASES(GS)

CASE(GUEST_TR_BASE_CANONICAL) { V(GUEST_TR_BASE) = fail ? NOT_CANONICAL : BITS(63, 47); }
CASE(GUEST_FS_BASE_CANONICAL)
{
    V(GUEST_FS_ACCESS_RIGHTS) = SEGMENT_UNUSABLE; // checked all the same
    V(GUEST_FS_BASE) = fail ? NOT_CANONICAL : BITS(63, 47);
}
CASE(GUEST_GS_BASE_CANONICAL)
{
    V(GUEST_GS_ACCESS_RIGHTS) = SEGMENT_UNUSABLE;
    V(GUEST_GS_BASE) = fail ? NOT_CANONICAL : BITS(63, 47);
}
CASE(GUEST_LDTR_BASE_CANONICAL) { V(GUEST_LDTR_BASE) = fail ? NOT_CANONICAL : BITS(63, 47); }
CASE(GUEST_CS_BASE_HIGH) { V(GUEST_CS_BASE) = fail ? BIT(32) : 0xFFFFFFFF; }
CASE(GUEST_SS_BASE_HIGH) { V(GUEST_SS_BASE) = fail ? BIT(32) : 0xFFFFFFFF; }
CASE(GUEST_DS_BASE_HIGH) { V(GUEST_DS_BASE) = fail ? BIT(32) : 0xFFFFFFFF; }
CASE(GUEST_ES_BASE_HIGH) { V(GUEST_ES_BASE) = fail ? BIT(32) : 0xFFFFFFFF; }

static void set_type(enum vmcs_field access_rights, uint64_t type)
{
    vmcs_put(fx.vmcs, access_rights, (vmcs_get(fx.vmcs, access_rights) & ~SEGMENT_TYPE) | type);
}
static void set_dpl(enum vmcs_field access_rights, uint64_t dpl)
{
    vmcs_put(fx.vmcs, access_rights, (vmcs_get(fx.vmcs, access_rights) & ~SEGMENT_DPL) | dpl << SEGMENT_DPL_SHIFT);
}

CASE(GUEST_CS_TYPE) { set_type(VMCS_GUEST_CS_ACCESS_RIGHTS, fail ? 3 : 9); }
CASE(GUEST_SS_TYPE) { set_type(VMCS_GUEST_SS_ACCESS_RIGHTS, fail ? 1 : 7); }
#define TYPE_CASES(R)                                                                      \
    CASE(GUEST_##R##_ACCESSED) { set_type(VMCS_GUEST_##R##_ACCESS_RIGHTS, fail ? 2 : 1); } \
    CASE(GUEST_##R##_READABLE) { set_type(VMCS_GUEST_##R##_ACCESS_RIGHTS, fail ? 9 : 11); }
TYPE_CASES(DS)
TYPE_CASES(ES)
TYPE_CASES(FS)
TYPE_CASES(GS)

CASE(GUEST_CS_DPL_TYPE_3)
{
    make_unrestricted();
    set_type(VMCS_GUEST_CS_ACCESS_RIGHTS, 3);
    set_dpl(VMCS_GUEST_CS_ACCESS_RIGHTS, fail ? 3 : 0);
}
CASE(GUEST_CS_DPL_NONCONFORMING) { set_dpl(VMCS_GUEST_CS_ACCESS_RIGHTS, fail ? 3 : 0); }
CASE(GUEST_CS_DPL_CONFORMING)
{
    set_type(VMCS_GUEST_CS_ACCESS_RIGHTS, 13);
    V(GUEST_CS_SELECTOR) |= 2;
    V(GUEST_SS_SELECTOR) |= 2;
    set_dpl(VMCS_GUEST_SS_ACCESS_RIGHTS, 2);
    set_dpl(VMCS_GUEST_CS_ACCESS_RIGHTS, fail ? 3 : 1);
}
CASE(GUEST_SS_DPL_RPL)
{
    V(GUEST_CS_SELECTOR) |= 3;
    V(GUEST_SS_SELECTOR) |= 3;
    set_dpl(VMCS_GUEST_CS_ACCESS_RIGHTS, fail ? 1 : 3);
    set_dpl(VMCS_GUEST_SS_ACCESS_RIGHTS, fail ? 1 : 3);
}
CASE(GUEST_SS_DPL_0)
{
    make_guest_real();
    set_dpl(VMCS_GUEST_CS_ACCESS_RIGHTS, fail ? 3 : 0);
    set_dpl(VMCS_GUEST_SS_ACCESS_RIGHTS, fail ? 3 : 0);
}
#define DPL_CASE(R)                                            \
    CASE(GUEST_##R##_DPL)                                      \
    {                                                          \
        V(GUEST_##R##_SELECTOR) |= 2;                          \
        set_dpl(VMCS_GUEST_##R##_ACCESS_RIGHTS, fail ? 1 : 2); \
    }
DPL_CASE(DS)
DPL_CASE(ES)
DPL_CASE(FS)
DPL_CASE(GS)

#define SEGMENT_CASES(R)                                                                   \
    CASE(GUEST_##R##_S) { V(GUEST_##R##_ACCESS_RIGHTS) &= ~(fail ? SEGMENT_S : 0); }       \
    CASE(GUEST_##R##_PRESENT) { V(GUEST_##R##_ACCESS_RIGHTS) &= ~(fail ? SEGMENT_P : 0); } \
    CASE(GUEST_##R##_RESERVED_LOW) { V(GUEST_##R##_ACCESS_RIGHTS) |= fail ? BIT(8) : 0; }  \
    CASE(GUEST_##R##_GRANULARITY_0)                                                        \
    {                                                                                      \
        V(GUEST_##R##_LIMIT) = 0xFFFFE;                                                    \
        V(GUEST_##R##_ACCESS_RIGHTS) &= ~(fail ? 0 : SEGMENT_G);                           \
    }                                                                                      \
    CASE(GUEST_##R##_GRANULARITY_1)                                                        \
    {                                                                                      \
        V(GUEST_##R##_LIMIT) = 0x100FFF;                                                   \
        V(GUEST_##R##_ACCESS_RIGHTS) &= ~(fail ? SEGMENT_G : 0);                           \
    }                                                                                      \
    CASE(GUEST_##R##_RESERVED_HIGH) { V(GUEST_##R##_ACCESS_RIGHTS) |= fail ? BIT(17) : 0; }
SEGMENT_CASES(CS)
SEGMENT_CASES(SS)
SEGMENT_CASES(DS)
SEGMENT_CASES(ES)
SEGMENT_CASES(FS)
SEGMENT_CASES(GS)
CASE(GUEST_CS_DB_WITH_L) { V(GUEST_CS_ACCESS_RIGHTS) |= fail ? SEGMENT_DB : 0; }

CASE(GUEST_TR_TYPE_LEGACY)
{
    make_guest_32bit();
    set_type(VMCS_GUEST_TR_ACCESS_RIGHTS, fail ? 9 : 3);
}
CASE(GUEST_TR_TYPE_IA32E) { set_type(VMCS_GUEST_TR_ACCESS_RIGHTS, fail ? 3 : 11); }
CASE(GUEST_LDTR_TYPE) { set_type(VMCS_GUEST_LDTR_ACCESS_RIGHTS, fail ? 3 : 2); }
#define SYSTEM_SEGMENT_CASES(R)                                                            \
    CASE(GUEST_##R##_S) { V(GUEST_##R##_ACCESS_RIGHTS) |= fail ? SEGMENT_S : 0; }          \
    CASE(GUEST_##R##_PRESENT) { V(GUEST_##R##_ACCESS_RIGHTS) &= ~(fail ? SEGMENT_P : 0); } \
    CASE(GUEST_##R##_RESERVED_LOW) { V(GUEST_##R##_ACCESS_RIGHTS) |= fail ? BIT(11) : 0; } \
    CASE(GUEST_##R##_GRANULARITY_0)                                                        \
    {                                                                                      \
        V(GUEST_##R##_LIMIT) = 0xFF7;                                                      \
        V(GUEST_##R##_ACCESS_RIGHTS) |= fail ? SEGMENT_G : 0;                              \
    }                                                                                      \
    CASE(GUEST_##R##_GRANULARITY_1)                                                        \
    {                                                                                      \
        V(GUEST_##R##_LIMIT) = 0x80000FFF;                                                 \
        V(GUEST_##R##_ACCESS_RIGHTS) |= fail ? 0 : SEGMENT_G;                              \
    }                                                                                      \
    CASE(GUEST_##R##_RESERVED_HIGH) { V(GUEST_##R##_ACCESS_RIGHTS) |= fail ? BIT(31) : 0; }
SYSTEM_SEGMENT_CASES(TR)
SYSTEM_SEGMENT_CASES(LDTR)
CASE(GUEST_TR_UNUSABLE) { V(GUEST_TR_ACCESS_RIGHTS) |= fail ? SEGMENT_UNUSABLE : 0; }

CASE(GUEST_GDTR_BASE_CANONICAL) { V(GUEST_GDTR_BASE) = fail ? NOT_CANONICAL : BITS(63, 47); }
CASE(GUEST_GDTR_LIMIT) { V(GUEST_GDTR_LIMIT) = fail ? 0x10000 : 0xFFFF; }
CASE(GUEST_IDTR_BASE_CANONICAL) { V(GUEST_IDTR_BASE) = fail ? NOT_CANONICAL : BITS(63, 47); }
CASE(GUEST_IDTR_LIMIT) { V(GUEST_IDTR_LIMIT) = fail ? 0x10000 : 0xFFFF; }

// --- Guest RIP, RFLAGS and non-register state ---------------------------------------------------------------------

CASE(GUEST_RIP_HIGH)
{
    V(GUEST_CS_ACCESS_RIGHTS) = ACCESS_RIGHTS_CODE32; // compatibility mode
    V(GUEST_RIP) = fail ? BIT(32) : 0xFFFFFFFF;
}
CASE(GUEST_RIP_64BIT) { V(GUEST_RIP) = fail ? BIT(48) : BIT(47); }
CASE(GUEST_RFLAGS_RESERVED) { V(GUEST_RFLAGS) |= fail ? BIT(22) : RFLAGS_ID; }
CASE(GUEST_RFLAGS_BIT_1) { V(GUEST_RFLAGS) &= ~(fail ? RFLAGS_ONE : 0); }
CASE(GUEST_RFLAGS_VM)
{
    if (fail) {
        make_guest_v8086();
        make_unrestricted();
        V(GUEST_CR0) = CR0_NE;
    } else {
        make_guest_real();
    }
}
CASE(GUEST_RFLAGS_IF)
{
    inject(EVENT_EXTERNAL_INTERRUPT, 0x20);
    V(GUEST_RFLAGS) |= fail ? 0 : RFLAGS_IF;
}
CASE(ACTIVITY_SUPPORTED)
{
    V(GUEST_ACTIVITY_STATE) = ACTIVITY_SHUTDOWN;
    fx.caps.misc &= ~(fail ? BIT(7) : 0);
}
CASE(ACTIVITY_HLT_DPL)
{
    V(GUEST_CS_SELECTOR) |= fail ? 3 : 0;
    V(GUEST_SS_SELECTOR) |= fail ? 3 : 0;
    set_dpl(VMCS_GUEST_CS_ACCESS_RIGHTS, fail ? 3 : 0);
    set_dpl(VMCS_GUEST_SS_ACCESS_RIGHTS, fail ? 3 : 0);
    V(GUEST_ACTIVITY_STATE) = ACTIVITY_HLT;
}
CASE(ACTIVITY_WITH_BLOCKING)
{
    V(GUEST_INTERRUPTIBILITY_STATE) = BLOCKING_MOV_SS;
    V(GUEST_ACTIVITY_STATE) = fail ? ACTIVITY_HLT : ACTIVITY_ACTIVE;
}
CASE(INJECT_INTO_HLT)
{
    V(GUEST_ACTIVITY_STATE) = ACTIVITY_HLT;
    inject(EVENT_HARDWARE_EXCEPTION, fail ? VECTOR_UD : VECTOR_DB);
}
CASE(INJECT_INTO_SHUTDOWN)
{
    V(GUEST_ACTIVITY_STATE) = ACTIVITY_SHUTDOWN;
    inject(EVENT_HARDWARE_EXCEPTION, fail ? VECTOR_DB : VECTOR_MC);
}
CASE(INJECT_INTO_WAIT_FOR_SIPI)
{
    V(GUEST_ACTIVITY_STATE) = ACTIVITY_WAIT_FOR_SIPI;
    if (fail)
        inject(EVENT_NMI, 2);
}
CASE(INTERRUPTIBILITY_RESERVED) { V(GUEST_INTERRUPTIBILITY_STATE) = fail ? BIT(5) : 0; }
CASE(INTERRUPTIBILITY_STI_AND_MOV_SS)
{
    V(GUEST_RFLAGS) |= RFLAGS_IF;
    V(GUEST_INTERRUPTIBILITY_STATE) = fail ? BLOCKING_STI | BLOCKING_MOV_SS : BLOCKING_STI;
}
CASE(INTERRUPTIBILITY_STI_NEEDS_IF) { V(GUEST_INTERRUPTIBILITY_STATE) = fail ? BLOCKING_STI : BLOCKING_MOV_SS; }
CASE(INJECT_INTERRUPT_BLOCKED)
{
    V(GUEST_RFLAGS) |= RFLAGS_IF;
    inject(EVENT_EXTERNAL_INTERRUPT, 0x20);
    V(GUEST_INTERRUPTIBILITY_STATE) = fail ? BLOCKING_STI : BLOCKING_NMI;
}
CASE(INJECT_NMI_MOV_SS)
{
    inject(EVENT_NMI, 2);
    V(GUEST_INTERRUPTIBILITY_STATE) = fail ? BLOCKING_MOV_SS : 0;
}
CASE(INTERRUPTIBILITY_SMI) { V(GUEST_INTERRUPTIBILITY_STATE) = fail ? BLOCKING_SMI : 0; }
CASE(INJECT_NMI_STI)
{
    V(GUEST_RFLAGS) |= RFLAGS_IF;
    inject(EVENT_NMI, 2);
    V(GUEST_INTERRUPTIBILITY_STATE) = fail ? BLOCKING_STI : 0;
}
CASE(INJECT_NMI_BLOCKED)
{
    inject(EVENT_NMI, 2);
    V(GUEST_INTERRUPTIBILITY_STATE) = fail ? BLOCKING_NMI : 0;
}
CASE(INTERRUPTIBILITY_ENCLAVE_MOV_SS)
{
    fx.context.sgx = true;
    V(GUEST_INTERRUPTIBILITY_STATE) = fail ? BIT(4) | BLOCKING_MOV_SS : BIT(4);
}
CASE(INTERRUPTIBILITY_ENCLAVE_SGX)
{
    fx.context.sgx = !fail;
    V(GUEST_INTERRUPTIBILITY_STATE) = BIT(4);
}
CASE(PENDING_DEBUG_RESERVED) { V(GUEST_PENDING_DEBUG_EXCEPTIONS) = fail ? BIT(4) : BITS(3, 0) | BIT(12) | BIT(14); }
CASE(PENDING_DEBUG_BS_MISSING)
{
    V(GUEST_INTERRUPTIBILITY_STATE) = BLOCKING_MOV_SS;
    V(GUEST_RFLAGS) |= RFLAGS_TF;
    V(GUEST_PENDING_DEBUG_EXCEPTIONS) = fail ? 0 : BIT(14);
}
CASE(PENDING_DEBUG_BS_EXTRA)
{
    V(GUEST_ACTIVITY_STATE) = ACTIVITY_HLT;
    V(GUEST_RFLAGS) |= RFLAGS_TF;
    V(GUEST_IA32_DEBUGCTL) = BIT(1); // BTF
    V(GUEST_PENDING_DEBUG_EXCEPTIONS) = fail ? BIT(14) : 0;
}
CASE(PENDING_DEBUG_RTM_BITS)
{
    fx.context.rtm = true;
    V(GUEST_PENDING_DEBUG_EXCEPTIONS) = fail ? BIT(16) : BIT(16) | BIT(12);
}
CASE(PENDING_DEBUG_RTM_SUPPORTED)
{
    fx.context.rtm = !fail;
    V(GUEST_PENDING_DEBUG_EXCEPTIONS) = BIT(16) | BIT(12);
}
CASE(PENDING_DEBUG_RTM_MOV_SS)
{
    fx.context.rtm = true;
    V(GUEST_INTERRUPTIBILITY_STATE) = fail ? BLOCKING_MOV_SS : 0;
    V(GUEST_PENDING_DEBUG_EXCEPTIONS) = BIT(16) | BIT(12);
}
CASE(LINK_POINTER_ALIGNED) { V(VMCS_LINK_POINTER) |= fail ? 0x10 : 0; }
CASE(LINK_POINTER_WIDTH) { V(VMCS_LINK_POINTER) |= fail ? OUTSIDE : 0; }
CASE(LINK_POINTER_REVISION) { poke(FIXTURE_LINK, (fail ? 0x123 : fx.caps.revision) | VMCS_SHADOW_INDICATOR, 4); }
CASE(LINK_POINTER_SHADOW) { poke(FIXTURE_LINK, fx.caps.revision | (fail ? 0 : VMCS_SHADOW_INDICATOR), 4); }
CASE(LINK_POINTER_CURRENT)
{
    V(SECONDARY_PROC_BASED_CONTROLS) &= ~(uint64_t)SECONDARY_VMCS_SHADOWING;
    poke(FIXTURE_LINK, fx.caps.revision, 4);
    V(VMCS_LINK_POINTER) = fail ? FIXTURE_CURRENT : FIXTURE_LINK;
}
#define PDPTE_CASES(n)                                           \
    CASE(GUEST_PDPTE##n##_IN_MEMORY)                             \
    {                                                            \
        make_guest_pae_without_ept();                            \
        poke(FIXTURE_PDPT + 8 * (n), fail ? 0xE003 : 0xE002, 8); \
    }                                                            \
    CASE(GUEST_PDPTE##n)                                         \
    {                                                            \
        make_guest_32bit();                                      \
        V(GUEST_PDPTE##n) = 0xE001 | (fail ? OUTSIDE : 0);       \
    }
PDPTE_CASES(0)
PDPTE_CASES(1)
PDPTE_CASES(2)
PDPTE_CASES(3)

// --- Tests --------------------------------------------------------------------------------------------------------

static void (*const cases[ENTRY_CHECK_COUNT])(bool fail) = {
#define CHECK(id, outcome, spec_id, sdm, message, applies_when, must_hold) [CHECK_##id] = case_##id,
#include "vmx/entry_checks.def"
#undef CHECK
};

// Rows that can never be the first to fail, since the rows before leave them nothing; and which row fails instead.
static int first_failure_of(int id)
{
    return id == CHECK_IA32E_GUEST_NEEDS_HOST_64BIT ? CHECK_IA32E_GUEST_NEEDS_LMA : id;
}

static int first_failure(void)
{
    int id = entry_check_controls_and_host(&fx.context);
    return id >= 0 ? id : entry_check_guest(&fx.context);
}

static const char *name_of(int id) { return id < 0 ? "(none)" : entry_checks[id].name; }

START_TEST(fixture_passes_every_check)
{
    ck_assert_str_eq(name_of(first_failure()), "(none)");
    for (int id = 0; id < ENTRY_CHECK_COUNT; id++)
        ck_assert_msg(entry_check_holds((enum entry_check_id)id, &fx.context), "%s", name_of(id));
}
END_TEST

START_TEST(check_holds_in_its_valid_case)
{
    cases[_i](false);
    int id = first_failure();
    ck_assert_msg(id < 0, "valid case of %s fails %s", name_of(_i), name_of(id));
    ck_assert(entry_check_holds((enum entry_check_id)_i, &fx.context));
}
END_TEST

START_TEST(check_fails_first_in_its_invalid_case)
{
    cases[_i](true);
    int id = first_failure();
    ck_assert_msg(id == first_failure_of(_i), "invalid case of %s fails %s", name_of(_i), name_of(id));
    ck_assert(!entry_check_holds((enum entry_check_id)_i, &fx.context));
    bool is_guest = entry_checks[_i].outcome > FAIL_HOST;
    ck_assert_int_eq(entry_check_controls_and_host(&fx.context) < 0, is_guest);
}
END_TEST

START_TEST(explanation_names_check_section_and_fields)
{
    cases[_i](true);
    char line[1024];
    entry_check_explain((enum entry_check_id)_i, fx.vmcs, line, sizeof line);
    ck_assert_msg(strlen(line) < sizeof line - 1, "%s: cut off", line);
    ck_assert(!strncmp(line, name_of(_i), strlen(name_of(_i))));
    ck_assert(strstr(line, entry_checks[_i].message) && strstr(line, entry_checks[_i].sdm) && !strchr(line, '\n'));
    enum vmcs_field fields[8];
    unsigned count = entry_check_fields((enum entry_check_id)_i, fields, 8);
    ck_assert_uint_ge(count, 1);
    ck_assert_uint_le(count, 8);
    for (unsigned i = 0; i < count; i++)
        ck_assert_msg(strstr(line, vmcs_fields[fields[i]].name) != NULL, "%s", line);
}
END_TEST

START_TEST(explanation_shows_values_and_fits_any_buffer)
{
    V(HOST_CR3) = 0x123456789A000;
    char line[1024], small[24];
    entry_check_explain(CHECK_HOST_CR3_WIDTH, fx.vmcs, line, sizeof line);
    ck_assert_str_eq(
        line,
        "HOST_CR3_WIDTH: host CR3 sets bits beyond MAXPHYADDR [SDM 3C 27.2.2 Checks on Host Control Registers, MSRs, "
        "and SSP]: HOST_CR3=0x123456789a000");
    entry_check_explain(CHECK_HOST_CR3_WIDTH, fx.vmcs, small, sizeof small);
    ck_assert_uint_eq(strlen(small), sizeof small - 1);
    entry_check_explain(CHECK_HOST_CR3_WIDTH, fx.vmcs, small, 1);
    ck_assert_uint_eq(strlen(small), 0);
}
END_TEST

START_TEST(control_failures_precede_host_failures_precede_guest_failures)
{
    V(GUEST_RFLAGS) = 0;
    V(HOST_CS_SELECTOR) = 0;
    V(VPID) = 0;
    ck_assert_int_eq(entry_check_controls_and_host(&fx.context), CHECK_VPID_ZERO);
    V(VPID) = 1;
    ck_assert_int_eq(entry_check_controls_and_host(&fx.context), CHECK_HOST_CS_NULL);
    V(HOST_CS_SELECTOR) = 8;
    ck_assert_int_eq(first_failure(), CHECK_GUEST_RFLAGS_BIT_1);
    for (int id = 1; id < ENTRY_CHECK_COUNT; id++)
        ck_assert(entry_checks[id - 1].outcome <= FAIL_HOST || entry_checks[id].outcome > FAIL_HOST);
}
END_TEST

START_TEST(outcomes_give_error_and_qualification)
{
    ck_assert_uint_eq(entry_check_instruction_error(FAIL_CONTROL), 7);
    ck_assert_uint_eq(entry_check_instruction_error(FAIL_HOST), 8);
    ck_assert_uint_eq(entry_check_instruction_error(FAIL_GUEST_0), 0);
    ck_assert_uint_eq(entry_check_exit_qualification(FAIL_GUEST_0), 0);
    ck_assert_uint_eq(entry_check_exit_qualification(FAIL_GUEST_PDPTE), 2);
    ck_assert_uint_eq(entry_check_exit_qualification(FAIL_GUEST_NMI), 3);
    ck_assert_uint_eq(entry_check_exit_qualification(FAIL_GUEST_LINK), 4);
}
END_TEST

START_TEST(inactive_controls_switch_their_checks_off)
{
    const uint64_t garbage = _i ? ~(uint64_t)0 : BIT(63) | 1;
    V(PRIMARY_PROC_BASED_CONTROLS) =
        fx.caps.primary.must; // so the secondary controls count as 0, however wrong they are
    V(SECONDARY_PROC_BASED_CONTROLS) = 0xFFFFFFFF;
    V(IO_BITMAP_A) = V(IO_BITMAP_B) = V(MSR_BITMAP) = V(EPTP) = V(EPTP_LIST_ADDR) = garbage;
    V(VMREAD_BITMAP) = V(VMWRITE_BITMAP) = V(VM_FUNCTION_CONTROLS) = garbage;
    V(VIRTUAL_APIC_ADDR) = _i ? garbage : FIXTURE_VIRTUAL_APIC;
    V(VPID) = 0;
    V(TPR_THRESHOLD) = 0xFF;
    V(ENTRY_CONTROLS) = fx.caps.entry.must | ENTRY_IA32E_MODE_GUEST;
    V(PRIMARY_EXIT_CONTROLS) = fx.caps.exit.must | EXIT_HOST_ADDRESS_SPACE_SIZE;
    V(HOST_IA32_PAT) = V(GUEST_IA32_PAT) = V(GUEST_DR7) = garbage;
    V(HOST_IA32_EFER) = V(GUEST_IA32_EFER) = _i ? garbage : 0;
    V(GUEST_IA32_DEBUGCTL) = BIT(2);
    V(EXIT_MSR_LOAD_ADDR) = V(EXIT_MSR_STORE_ADDR) = V(ENTRY_MSR_LOAD_ADDR) = garbage; // counts are 0
    V(VMCS_LINK_POINTER) = VMCS_NO_POINTER;
    V(ENTRY_EXCEPTION_ERROR_CODE) = V(ENTRY_INSTRUCTION_LENGTH) = 0xFFFFFFFF;
    for (uint64_t type = 0; type < 8; type++) {
        V(ENTRY_INTERRUPTION_INFO) = BITS(30, 11) | type << 8 | 0xFF; // not valid
        ck_assert_str_eq(name_of(first_failure()), "(none)");
    }
}
END_TEST

START_TEST(unrestricted_guest_is_free_of_rpl_and_dpl_rules)
{
    make_unrestricted();
    V(GUEST_SS_SELECTOR) |= 3;
    V(GUEST_DS_SELECTOR) |= 3;
    V(GUEST_ES_SELECTOR) |= 3;
    V(GUEST_FS_SELECTOR) |= 3;
    V(GUEST_GS_SELECTOR) |= 3;
    ck_assert_str_eq(name_of(first_failure()), "(none)");
}
END_TEST

START_TEST(conforming_code_in_a_data_segment_register_is_free_of_dpl_rule)
{
    V(GUEST_DS_SELECTOR) |= 3;
    V(GUEST_ES_SELECTOR) |= 3;
    V(GUEST_FS_SELECTOR) |= 3;
    V(GUEST_GS_SELECTOR) |= 3;
    set_type(VMCS_GUEST_DS_ACCESS_RIGHTS, 15);
    set_type(VMCS_GUEST_ES_ACCESS_RIGHTS, 15);
    set_type(VMCS_GUEST_FS_ACCESS_RIGHTS, 15);
    set_type(VMCS_GUEST_GS_ACCESS_RIGHTS, 15);
    ck_assert_str_eq(name_of(first_failure()), "(none)");
}
END_TEST

START_TEST(v8086_guest_is_free_of_ordinary_segment_rules)
{
    make_guest_v8086();
    V(GUEST_SS_SELECTOR) |= 3; // RPL has no meaning
    V(GUEST_SS_BASE) = V(GUEST_SS_SELECTOR) << 4;
    ck_assert_str_eq(name_of(first_failure()), "(none)");
}
END_TEST

START_TEST(pdptes_are_checked_only_where_they_are_used)
{
    V(GUEST_PDPTE0) = V(GUEST_PDPTE1) = V(GUEST_PDPTE2) = V(GUEST_PDPTE3) = BITS(63, 0); // 64-bit guest
    ck_assert_str_eq(name_of(first_failure()), "(none)");
    make_guest_pae_without_ept();
    ck_assert_str_eq(name_of(first_failure()), "(none)");
    for (unsigned i = 0; i < 4; i++)
        poke(FIXTURE_PDPT + 8 * i, BITS(63, 0), 8);
    V(GUEST_CR4) &= ~CR4_PAE; // 32-bit paging
    ck_assert_str_eq(name_of(first_failure()), "(none)");
    V(GUEST_PDPTE0) = V(GUEST_PDPTE1) = V(GUEST_PDPTE2) = V(GUEST_PDPTE3) = 0;
    V(GUEST_CR4) |= CR4_PAE;
    V(SECONDARY_PROC_BASED_CONTROLS) |= SECONDARY_ENABLE_EPT;
    ck_assert_str_eq(name_of(first_failure()), "(none)");
}
END_TEST

START_TEST(pcide_is_allowed_to_a_64bit_guest_and_ss_null_to_a_64bit_host)
{
    V(GUEST_CR4) |= CR4_PCIDE;
    V(HOST_CR4) |= CR4_PCIDE;
    V(HOST_SS_SELECTOR) = 0;
    ck_assert_str_eq(name_of(first_failure()), "(none)");
}
END_TEST

START_TEST(legacy_host_needs_no_pae)
{
    make_host_32bit();
    V(HOST_CR4) &= ~CR4_PAE;
    V(GUEST_CR4) &= ~CR4_PAE;
    V(HOST_RIP) = 0x80000000;
    ck_assert_str_eq(name_of(first_failure()), "(none)");
}
END_TEST

START_TEST(unpaged_guest_may_have_lme_without_lma)
{
    make_guest_real();
    V(GUEST_IA32_EFER) = EFER_LME;
    ck_assert_str_eq(name_of(first_failure()), "(none)");
}
END_TEST

START_TEST(unusable_segments_are_not_checked_except_cs)
{
    V(GUEST_SS_ACCESS_RIGHTS) = V(GUEST_DS_ACCESS_RIGHTS) = V(GUEST_ES_ACCESS_RIGHTS) = V(GUEST_FS_ACCESS_RIGHTS) =
        SEGMENT_UNUSABLE;
    V(GUEST_GS_ACCESS_RIGHTS) = V(GUEST_LDTR_ACCESS_RIGHTS) = SEGMENT_UNUSABLE;
    V(GUEST_SS_BASE) = V(GUEST_DS_BASE) = V(GUEST_ES_BASE) = V(GUEST_LDTR_BASE) = BIT(50);
    V(GUEST_LDTR_SELECTOR) |= SELECTOR_TI_BIT;
    ck_assert_str_eq(name_of(first_failure()), "(none)");
    const uint64_t everything_wrong =
        SEGMENT_UNUSABLE | BITS(31, 17) | BITS(11, 8); // type, S, P 0; G 0 with a large limit
    V(GUEST_SS_ACCESS_RIGHTS) = V(GUEST_DS_ACCESS_RIGHTS) = V(GUEST_ES_ACCESS_RIGHTS) = V(GUEST_FS_ACCESS_RIGHTS) =
        everything_wrong;
    V(GUEST_GS_ACCESS_RIGHTS) = V(GUEST_LDTR_ACCESS_RIGHTS) = everything_wrong;
    V(GUEST_DS_SELECTOR) |= 3;
    V(GUEST_ES_SELECTOR) |= 3;
    V(GUEST_FS_SELECTOR) |= 3;
    V(GUEST_GS_SELECTOR) |= 3;
    ck_assert_str_eq(name_of(first_failure()), "(none)");
    V(GUEST_CS_ACCESS_RIGHTS) = SEGMENT_UNUSABLE;
    ck_assert_str_eq(name_of(first_failure()), "GUEST_CS_TYPE");
}
END_TEST

// bit 11 is 1 exactly for the exceptions that have an error code, and in real mode for none.
START_TEST(error_code_bit_follows_vector_and_mode)
{
    const uint64_t with_code = BIT(8) | BIT(10) | BIT(11) | BIT(12) | BIT(13) | BIT(14) | BIT(17);
    for (unsigned vector = 0; vector < 32; vector++) {
        for (unsigned bit = 0; bit < 2; bit++) {
            inject(EVENT_HARDWARE_EXCEPTION, vector);
            V(ENTRY_INTERRUPTION_INFO) |= bit << 11;
            ck_assert_int_eq(entry_check_holds(CHECK_INJECT_ERROR_CODE, &fx.context), bit == (with_code >> vector & 1));
        }
    }
    make_guest_real();
    inject(EVENT_HARDWARE_EXCEPTION, VECTOR_GP);
    ck_assert_int_eq(first_failure(), -1);
    V(ENTRY_INTERRUPTION_INFO) |= BIT(11);
    ck_assert_int_eq(first_failure(), CHECK_INJECT_ERROR_CODE);
}
END_TEST

START_TEST(software_event_of_length_0_needs_misc_bit_30)
{
    inject(EVENT_SOFTWARE_EXCEPTION, VECTOR_BP);
    V(ENTRY_INSTRUCTION_LENGTH) = 0;
    ck_assert_int_eq(first_failure(), -1);
    fx.caps.misc &= ~BIT(30);
    ck_assert_int_eq(first_failure(), CHECK_INJECT_INSTRUCTION_LENGTH);
}
END_TEST

START_TEST(pat_accepts_exactly_the_six_memory_types)
{
    for (unsigned byte = 0; byte < 8; byte++) {
        for (uint64_t type = 0; type < 256; type++) {
            bool valid = type <= 7 && type != 2 && type != 3;
            V(GUEST_IA32_PAT) = type << (8 * byte);
            ck_assert_int_eq(entry_check_holds(CHECK_GUEST_PAT, &fx.context), valid);
        }
    }
}
END_TEST

START_TEST(eptp_check_agrees_with_the_rows)
{
    for (unsigned bit = 0; bit < 64; bit++) {
        V(EPTP) = (0x8000 | 3 << 3 | 6) ^ BIT(bit);
        int failed = entry_check_controls_and_host(&fx.context);
        ck_assert_int_eq(entry_check_eptp(&fx.caps, V(EPTP)), failed < 0);
    }
}
END_TEST

START_TEST(events_that_wake_hlt_are_accepted)
{
    V(GUEST_ACTIVITY_STATE) = ACTIVITY_HLT;
    for (unsigned type = 0; type < 8; type++) {
        for (unsigned vector = 0; vector < 256; vector++) {
            inject((enum event_type)type, vector);
            bool wakes = type == EVENT_EXTERNAL_INTERRUPT || type == EVENT_NMI ||
                         (type == EVENT_HARDWARE_EXCEPTION && (vector == 1 || vector == 18)) ||
                         (type == EVENT_OTHER && vector == 0);
            ck_assert_int_eq(entry_check_holds(CHECK_INJECT_INTO_HLT, &fx.context), wakes);
        }
    }
}
END_TEST

START_TEST(structures_outside_ram_read_as_ones)
{
    V(VMCS_LINK_POINTER) = 0x1000000;
    ck_assert_int_eq(first_failure(), CHECK_LINK_POINTER_REVISION);
    fixture_teardown();
    fixture_setup();
    V(VIRTUAL_APIC_ADDR) = 0x1000000; // VTPR FFH: no threshold is too high
    V(TPR_THRESHOLD) = 15;
    ck_assert_int_eq(first_failure(), -1);
    make_guest_pae_without_ept();
    V(GUEST_CR3) = 0x1000000;
    ck_assert_int_eq(first_failure(), CHECK_GUEST_PDPTE0_IN_MEMORY);
}
END_TEST

START_TEST(checks_change_nothing)
{
    static uint8_t before[FIXTURE_RAM];
    memcpy(before, fx.memory.ram, FIXTURE_RAM);
    ck_assert_int_eq(first_failure(), -1);
    ck_assert(!memcmp(before, fx.memory.ram, FIXTURE_RAM));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vmx/entry_checks");
    TCase *tc = tcase_create("entry_checks");
    tcase_add_checked_fixture(tc, fixture_setup, fixture_teardown);
    tcase_add_test(tc, fixture_passes_every_check);
    tcase_add_loop_test(tc, check_holds_in_its_valid_case, 0, ENTRY_CHECK_COUNT);
    tcase_add_loop_test(tc, check_fails_first_in_its_invalid_case, 0, ENTRY_CHECK_COUNT);
    tcase_add_loop_test(tc, explanation_names_check_section_and_fields, 0, ENTRY_CHECK_COUNT);
    tcase_add_test(tc, explanation_shows_values_and_fits_any_buffer);
    tcase_add_test(tc, control_failures_precede_host_failures_precede_guest_failures);
    tcase_add_test(tc, outcomes_give_error_and_qualification);
    tcase_add_loop_test(tc, inactive_controls_switch_their_checks_off, 0, 2);
    tcase_add_test(tc, unusable_segments_are_not_checked_except_cs);
    tcase_add_test(tc, unrestricted_guest_is_free_of_rpl_and_dpl_rules);
    tcase_add_test(tc, conforming_code_in_a_data_segment_register_is_free_of_dpl_rule);
    tcase_add_test(tc, v8086_guest_is_free_of_ordinary_segment_rules);
    tcase_add_test(tc, pdptes_are_checked_only_where_they_are_used);
    tcase_add_test(tc, pcide_is_allowed_to_a_64bit_guest_and_ss_null_to_a_64bit_host);
    tcase_add_test(tc, legacy_host_needs_no_pae);
    tcase_add_test(tc, unpaged_guest_may_have_lme_without_lma);
    tcase_add_test(tc, error_code_bit_follows_vector_and_mode);
    tcase_add_test(tc, software_event_of_length_0_needs_misc_bit_30);
    tcase_add_test(tc, pat_accepts_exactly_the_six_memory_types);
    tcase_add_test(tc, eptp_check_agrees_with_the_rows);
    tcase_add_test(tc, events_that_wake_hlt_are_accepted);
    tcase_add_test(tc, structures_outside_ram_read_as_ones);
    tcase_add_test(tc, checks_change_nothing);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
