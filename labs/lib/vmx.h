/*
 * Intel VMX: the instructions, the encodings of the VMCS fields and the names of the control bits.
 * SDM 3C "VMX Instruction Reference"; App. A "VMX Capability Reporting Facility"; App. B "Field Encoding in VMCS".
 * Leaves out fields and controls that came after EPT, VPID and unrestricted guest and that no guest here needs.
 */
#ifndef LABS_LIB_VMX_H
#define LABS_LIB_VMX_H

#include <stdint.h>

/* SDM 3C "Conventions": how a VMX instruction reports back, in RFLAGS. */
enum vmx_result {
    VMX_SUCCEED,      /* CF = ZF = 0 */
    VMX_FAIL_INVALID, /* CF = 1: there is no current VMCS to hold an error number */
    VMX_FAIL_VALID,   /* ZF = 1: the number is in the current VMCS, field vm_instruction_error */
};

/* SDM 3C "VM Instruction Error Numbers", those that the guests here provoke. */
enum vm_instruction_error {
    VM_ERROR_VMCLEAR_INVALID_ADDRESS = 2,
    VM_ERROR_VMCLEAR_VMXON_POINTER = 3,
    VM_ERROR_VMLAUNCH_NOT_CLEAR = 4,
    VM_ERROR_VMRESUME_NOT_LAUNCHED = 5,
    VM_ERROR_ENTRY_INVALID_CONTROL = 7,
    VM_ERROR_ENTRY_INVALID_HOST_STATE = 8,
    VM_ERROR_VMPTRLD_INVALID_ADDRESS = 9,
    VM_ERROR_VMPTRLD_VMXON_POINTER = 10,
    VM_ERROR_VMPTRLD_WRONG_REVISION = 11,
    VM_ERROR_UNSUPPORTED_FIELD = 12,
    VM_ERROR_READ_ONLY_FIELD = 13,
    VM_ERROR_VMXON_IN_ROOT = 15,
    VM_ERROR_INVALIDATE_INVALID_OPERAND = 28, /* INVEPT, INVVPID */
};

/* SDM 3C "VMX Basic Exit Reasons", bits 15:0 of the field exit_reason, those that the guests here meet. */
enum exit_reason {
    EXIT_EXCEPTION_OR_NMI = 0,
    EXIT_EXTERNAL_INTERRUPT = 1,
    EXIT_TRIPLE_FAULT = 2,
    EXIT_CPUID = 10,
    EXIT_HLT = 12,
    EXIT_INVLPG = 14,
    EXIT_RDTSC = 16,
    EXIT_VMCALL = 18,
    EXIT_CR_ACCESS = 28,
    EXIT_MOV_DR = 29,
    EXIT_IO_INSTRUCTION = 30,
    EXIT_RDMSR = 31,
    EXIT_WRMSR = 32,
    EXIT_ENTRY_FAIL_GUEST_STATE = 33,
    EXIT_EPT_VIOLATION = 48,
    EXIT_EPT_MISCONFIGURATION = 49,
    EXIT_PREEMPTION_TIMER = 52,
};

#define EXIT_REASON_ENTRY_FAILURE (UINT32_C(1) << 31)

/* SDM 3C "Pin-Based VM-Execution Controls" */
enum pin_based_controls {
    PIN_EXTERNAL_INTERRUPT_EXITING = 1 << 0,
    PIN_NMI_EXITING = 1 << 3,
    PIN_VIRTUAL_NMIS = 1 << 5,
    PIN_ACTIVATE_PREEMPTION_TIMER = 1 << 6,
};

/* SDM 3C "Processor-Based VM-Execution Controls", primary */
#define PRIMARY_HLT_EXITING                 (UINT32_C(1) << 7)
#define PRIMARY_INVLPG_EXITING              (UINT32_C(1) << 9)
#define PRIMARY_RDTSC_EXITING               (UINT32_C(1) << 12)
#define PRIMARY_CR3_LOAD_EXITING            (UINT32_C(1) << 15)
#define PRIMARY_CR3_STORE_EXITING           (UINT32_C(1) << 16)
#define PRIMARY_MOV_DR_EXITING              (UINT32_C(1) << 23)
#define PRIMARY_UNCONDITIONAL_IO_EXITING    (UINT32_C(1) << 24)
#define PRIMARY_USE_IO_BITMAPS              (UINT32_C(1) << 25)
#define PRIMARY_USE_MSR_BITMAPS             (UINT32_C(1) << 28)
#define PRIMARY_ACTIVATE_SECONDARY_CONTROLS (UINT32_C(1) << 31)

/* The same, secondary */
enum secondary_proc_based_controls {
    SECONDARY_ENABLE_EPT = 1 << 1,
    SECONDARY_ENABLE_RDTSCP = 1 << 3,
    SECONDARY_ENABLE_VPID = 1 << 5,
    SECONDARY_UNRESTRICTED_GUEST = 1 << 7,
    SECONDARY_ENABLE_INVPCID = 1 << 12,
};

/* SDM 3C "VM-Exit Controls", primary */
enum exit_controls {
    EXIT_SAVE_DEBUG_CONTROLS = 1 << 2,
    EXIT_HOST_ADDRESS_SPACE_SIZE = 1 << 9,
    EXIT_SAVE_IA32_EFER = 1 << 20,
    EXIT_LOAD_IA32_EFER = 1 << 21,
};

/* SDM 3C "VM-Entry Controls" */
enum entry_controls {
    ENTRY_LOAD_DEBUG_CONTROLS = 1 << 2,
    ENTRY_IA32E_MODE_GUEST = 1 << 9,
    ENTRY_LOAD_IA32_EFER = 1 << 15,
};

/* Bits of IA32_VMX_BASIC */
#define VMX_BASIC_REVISION_MASK UINT64_C(0x7FFFFFFF)
#define VMX_BASIC_TRUE_CONTROLS (UINT64_C(1) << 55)

/* Bits of IA32_VMX_EPT_VPID_CAP */
#define EPT_CAP_EXECUTE_ONLY          (UINT64_C(1) << 0)
#define EPT_CAP_WALK_LENGTH_4         (UINT64_C(1) << 6)
#define EPT_CAP_WRITE_BACK            (UINT64_C(1) << 14)
#define EPT_CAP_2M_PAGES              (UINT64_C(1) << 16)
#define EPT_CAP_1G_PAGES              (UINT64_C(1) << 17)
#define EPT_CAP_INVEPT                (UINT64_C(1) << 20)
#define EPT_CAP_ACCESSED_DIRTY        (UINT64_C(1) << 21)
#define EPT_CAP_INVEPT_SINGLE_CONTEXT (UINT64_C(1) << 25)
#define EPT_CAP_INVEPT_ALL_CONTEXTS   (UINT64_C(1) << 26)
#define VPID_CAP_INVVPID              (UINT64_C(1) << 32)
#define VPID_CAP_INDIVIDUAL_ADDRESS   (UINT64_C(1) << 40)
#define VPID_CAP_SINGLE_CONTEXT       (UINT64_C(1) << 41)
#define VPID_CAP_ALL_CONTEXTS         (UINT64_C(1) << 42)

/* SDM 3C "Segment access rights": bits 15:0 are those of a descriptor; bit 16 marks an unusable register. */
enum segment_access_rights {
    ACCESS_RIGHTS_CODE64 = 0xA09B, /* 64-bit code, readable, accessed, DPL 0, present, G */
    ACCESS_RIGHTS_DATA32 = 0xC093, /* data, writable, accessed, DPL 0, present, D/B, G */
    ACCESS_RIGHTS_CODE16 = 0x009B, /* as real mode leaves CS */
    ACCESS_RIGHTS_DATA16 = 0x0093, /* as real mode leaves the others */
    ACCESS_RIGHTS_BUSY_TSS = 0x008B,
    ACCESS_RIGHTS_LDT = 0x0082,
    ACCESS_RIGHTS_UNUSABLE = 0x10000,
};

enum invept_type {
    INVEPT_SINGLE_CONTEXT = 1,
    INVEPT_ALL_CONTEXTS = 2,
};

enum invvpid_type {
    INVVPID_INDIVIDUAL_ADDRESS = 0,
    INVVPID_SINGLE_CONTEXT = 1,
    INVVPID_ALL_CONTEXTS = 2,
};

/* 15 reserved | 14:13 width | 12 reserved | 11:10 type | 9:1 index | 0 access type (1: bits 63:32 of a 64-bit field) */
enum vmcs_field {
    /* 16-bit control fields */
    VMCS_VPID = 0x0000,
    VMCS_POSTED_INTR_NOTIFICATION_VECTOR = 0x0002,
    VMCS_EPTP_INDEX = 0x0004,

    /* 16-bit guest-state area */
    VMCS_GUEST_ES_SELECTOR = 0x0800,
    VMCS_GUEST_CS_SELECTOR = 0x0802,
    VMCS_GUEST_SS_SELECTOR = 0x0804,
    VMCS_GUEST_DS_SELECTOR = 0x0806,
    VMCS_GUEST_FS_SELECTOR = 0x0808,
    VMCS_GUEST_GS_SELECTOR = 0x080A,
    VMCS_GUEST_LDTR_SELECTOR = 0x080C,
    VMCS_GUEST_TR_SELECTOR = 0x080E,
    VMCS_GUEST_INTERRUPT_STATUS = 0x0810,
    VMCS_PML_INDEX = 0x0812,

    /* 16-bit host-state area */
    VMCS_HOST_ES_SELECTOR = 0x0C00,
    VMCS_HOST_CS_SELECTOR = 0x0C02,
    VMCS_HOST_SS_SELECTOR = 0x0C04,
    VMCS_HOST_DS_SELECTOR = 0x0C06,
    VMCS_HOST_FS_SELECTOR = 0x0C08,
    VMCS_HOST_GS_SELECTOR = 0x0C0A,
    VMCS_HOST_TR_SELECTOR = 0x0C0C,

    /* 64-bit control fields */
    VMCS_IO_BITMAP_A = 0x2000,
    VMCS_IO_BITMAP_B = 0x2002,
    VMCS_MSR_BITMAP = 0x2004,
    VMCS_EXIT_MSR_STORE_ADDR = 0x2006,
    VMCS_EXIT_MSR_LOAD_ADDR = 0x2008,
    VMCS_ENTRY_MSR_LOAD_ADDR = 0x200A,
    VMCS_EXECUTIVE_VMCS_PTR = 0x200C,
    VMCS_PML_ADDR = 0x200E,
    VMCS_TSC_OFFSET = 0x2010,
    VMCS_VIRTUAL_APIC_ADDR = 0x2012,
    VMCS_APIC_ACCESS_ADDR = 0x2014,
    VMCS_POSTED_INTR_DESC_ADDR = 0x2016,
    VMCS_VM_FUNCTION_CONTROLS = 0x2018,
    VMCS_EPTP = 0x201A,
    VMCS_EOI_EXIT_BITMAP_0 = 0x201C,
    VMCS_EOI_EXIT_BITMAP_1 = 0x201E,
    VMCS_EOI_EXIT_BITMAP_2 = 0x2020,
    VMCS_EOI_EXIT_BITMAP_3 = 0x2022,
    VMCS_EPTP_LIST_ADDR = 0x2024,
    VMCS_VMREAD_BITMAP = 0x2026,
    VMCS_VMWRITE_BITMAP = 0x2028,
    VMCS_VIRT_EXCEPTION_INFO_ADDR = 0x202A,
    VMCS_XSS_EXITING_BITMAP = 0x202C,
    VMCS_ENCLS_EXITING_BITMAP = 0x202E,
    VMCS_TSC_MULTIPLIER = 0x2032,

    /* 64-bit VM-exit information fields (read-only unless IA32_VMX_MISC[29]) */
    VMCS_GUEST_PHYSICAL_ADDRESS = 0x2400,

    /* 64-bit guest-state area */
    VMCS_LINK_POINTER = 0x2800,
    VMCS_GUEST_IA32_DEBUGCTL = 0x2802,
    VMCS_GUEST_IA32_PAT = 0x2804,
    VMCS_GUEST_IA32_EFER = 0x2806,
    VMCS_GUEST_IA32_PERF_GLOBAL_CTRL = 0x2808,
    VMCS_GUEST_PDPTE0 = 0x280A,
    VMCS_GUEST_PDPTE1 = 0x280C,
    VMCS_GUEST_PDPTE2 = 0x280E,
    VMCS_GUEST_PDPTE3 = 0x2810,
    VMCS_GUEST_IA32_BNDCFGS = 0x2812,

    /* 64-bit host-state area */
    VMCS_HOST_IA32_PAT = 0x2C00,
    VMCS_HOST_IA32_EFER = 0x2C02,
    VMCS_HOST_IA32_PERF_GLOBAL_CTRL = 0x2C04,

    /* 32-bit control fields */
    VMCS_PIN_BASED_CONTROLS = 0x4000,
    VMCS_PRIMARY_PROC_BASED_CONTROLS = 0x4002,
    VMCS_EXCEPTION_BITMAP = 0x4004,
    VMCS_PAGE_FAULT_ERROR_CODE_MASK = 0x4006,
    VMCS_PAGE_FAULT_ERROR_CODE_MATCH = 0x4008,
    VMCS_CR3_TARGET_COUNT = 0x400A,
    VMCS_PRIMARY_EXIT_CONTROLS = 0x400C,
    VMCS_EXIT_MSR_STORE_COUNT = 0x400E,
    VMCS_EXIT_MSR_LOAD_COUNT = 0x4010,
    VMCS_ENTRY_CONTROLS = 0x4012,
    VMCS_ENTRY_MSR_LOAD_COUNT = 0x4014,
    VMCS_ENTRY_INTERRUPTION_INFO = 0x4016,
    VMCS_ENTRY_EXCEPTION_ERROR_CODE = 0x4018,
    VMCS_ENTRY_INSTRUCTION_LENGTH = 0x401A,
    VMCS_TPR_THRESHOLD = 0x401C,
    VMCS_SECONDARY_PROC_BASED_CONTROLS = 0x401E,
    VMCS_PLE_GAP = 0x4020,
    VMCS_PLE_WINDOW = 0x4022,

    /* 32-bit VM-exit information fields (read-only unless IA32_VMX_MISC[29]) */
    VMCS_VM_INSTRUCTION_ERROR = 0x4400,
    VMCS_EXIT_REASON = 0x4402,
    VMCS_EXIT_INTERRUPTION_INFO = 0x4404,
    VMCS_EXIT_INTERRUPTION_ERROR_CODE = 0x4406,
    VMCS_IDT_VECTORING_INFO = 0x4408,
    VMCS_IDT_VECTORING_ERROR_CODE = 0x440A,
    VMCS_EXIT_INSTRUCTION_LENGTH = 0x440C,
    VMCS_EXIT_INSTRUCTION_INFO = 0x440E,

    /* 32-bit guest-state area */
    VMCS_GUEST_ES_LIMIT = 0x4800,
    VMCS_GUEST_CS_LIMIT = 0x4802,
    VMCS_GUEST_SS_LIMIT = 0x4804,
    VMCS_GUEST_DS_LIMIT = 0x4806,
    VMCS_GUEST_FS_LIMIT = 0x4808,
    VMCS_GUEST_GS_LIMIT = 0x480A,
    VMCS_GUEST_LDTR_LIMIT = 0x480C,
    VMCS_GUEST_TR_LIMIT = 0x480E,
    VMCS_GUEST_GDTR_LIMIT = 0x4810,
    VMCS_GUEST_IDTR_LIMIT = 0x4812,
    VMCS_GUEST_ES_ACCESS_RIGHTS = 0x4814,
    VMCS_GUEST_CS_ACCESS_RIGHTS = 0x4816,
    VMCS_GUEST_SS_ACCESS_RIGHTS = 0x4818,
    VMCS_GUEST_DS_ACCESS_RIGHTS = 0x481A,
    VMCS_GUEST_FS_ACCESS_RIGHTS = 0x481C,
    VMCS_GUEST_GS_ACCESS_RIGHTS = 0x481E,
    VMCS_GUEST_LDTR_ACCESS_RIGHTS = 0x4820,
    VMCS_GUEST_TR_ACCESS_RIGHTS = 0x4822,
    VMCS_GUEST_INTERRUPTIBILITY_STATE = 0x4824,
    VMCS_GUEST_ACTIVITY_STATE = 0x4826,
    VMCS_GUEST_SMBASE = 0x4828,
    VMCS_GUEST_IA32_SYSENTER_CS = 0x482A,
    VMCS_PREEMPTION_TIMER_VALUE = 0x482E,

    /* 32-bit host-state area */
    VMCS_HOST_IA32_SYSENTER_CS = 0x4C00,

    /* natural-width control fields */
    VMCS_CR0_GUEST_HOST_MASK = 0x6000,
    VMCS_CR4_GUEST_HOST_MASK = 0x6002,
    VMCS_CR0_READ_SHADOW = 0x6004,
    VMCS_CR4_READ_SHADOW = 0x6006,
    VMCS_CR3_TARGET_0 = 0x6008,
    VMCS_CR3_TARGET_1 = 0x600A,
    VMCS_CR3_TARGET_2 = 0x600C,
    VMCS_CR3_TARGET_3 = 0x600E,

    /* natural-width VM-exit information fields (read-only unless IA32_VMX_MISC[29]) */
    VMCS_EXIT_QUALIFICATION = 0x6400,
    VMCS_IO_RCX = 0x6402,
    VMCS_IO_RSI = 0x6404,
    VMCS_IO_RDI = 0x6406,
    VMCS_IO_RIP = 0x6408,
    VMCS_GUEST_LINEAR_ADDRESS = 0x640A,

    /* natural-width guest-state area */
    VMCS_GUEST_CR0 = 0x6800,
    VMCS_GUEST_CR3 = 0x6802,
    VMCS_GUEST_CR4 = 0x6804,
    VMCS_GUEST_ES_BASE = 0x6806,
    VMCS_GUEST_CS_BASE = 0x6808,
    VMCS_GUEST_SS_BASE = 0x680A,
    VMCS_GUEST_DS_BASE = 0x680C,
    VMCS_GUEST_FS_BASE = 0x680E,
    VMCS_GUEST_GS_BASE = 0x6810,
    VMCS_GUEST_LDTR_BASE = 0x6812,
    VMCS_GUEST_TR_BASE = 0x6814,
    VMCS_GUEST_GDTR_BASE = 0x6816,
    VMCS_GUEST_IDTR_BASE = 0x6818,
    VMCS_GUEST_DR7 = 0x681A,
    VMCS_GUEST_RSP = 0x681C,
    VMCS_GUEST_RIP = 0x681E,
    VMCS_GUEST_RFLAGS = 0x6820,
    VMCS_GUEST_PENDING_DEBUG_EXCEPTIONS = 0x6822,
    VMCS_GUEST_IA32_SYSENTER_ESP = 0x6824,
    VMCS_GUEST_IA32_SYSENTER_EIP = 0x6826,

    /* natural-width host-state area */
    VMCS_HOST_CR0 = 0x6C00,
    VMCS_HOST_CR3 = 0x6C02,
    VMCS_HOST_CR4 = 0x6C04,
    VMCS_HOST_FS_BASE = 0x6C06,
    VMCS_HOST_GS_BASE = 0x6C08,
    VMCS_HOST_TR_BASE = 0x6C0A,
    VMCS_HOST_GDTR_BASE = 0x6C0C,
    VMCS_HOST_IDTR_BASE = 0x6C0E,
    VMCS_HOST_IA32_SYSENTER_ESP = 0x6C10,
    VMCS_HOST_IA32_SYSENTER_EIP = 0x6C12,
    VMCS_HOST_RSP = 0x6C14,
    VMCS_HOST_RIP = 0x6C16,
};

/* A VMXON region or a VMCS: 4 KiB, its first dword the VMCS revision identifier. */
struct vmx_region {
    uint32_t revision;
    uint32_t abort_indicator;
    uint8_t data[4096 - 8]; /* the processor's own business */
} __attribute__((aligned(4096)));

/*
 * The registers that a VM exit leaves as the guest had them; the others are in the VMCS. by_number[] has the numbers of
 * instruction encodings and exit qualifications. vmx_enter.S knows the layout.
 */
struct guest_registers {
    union {
        struct {
            uint64_t rax, rcx, rdx, rbx;
            uint64_t rsp_in_vmcs; /* not used: the field guest_rsp has it */
            uint64_t rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15;
        };
        uint64_t by_number[16];
    };
};

enum vmx_entry_instruction {
    VMX_VMLAUNCH,
    VMX_VMRESUME,
};

/* The operand of each of these three is a physical address. */
enum vmx_result vmxon(uint64_t region);
enum vmx_result vmclear(uint64_t region);
enum vmx_result vmptrld(uint64_t region);

/* The current-VMCS pointer, all ones if there is none. */
uint64_t vmptrst(void);

enum vmx_result vmxoff(void);
enum vmx_result vmread(enum vmcs_field field, uint64_t *value);
enum vmx_result vmwrite(enum vmcs_field field, uint64_t value);
enum vmx_result invept(enum invept_type type, uint64_t eptp);
enum vmx_result invvpid(enum invvpid_type type, uint16_t vpid, uint64_t linear_address);

/* The same for a field that exists in a current VMCS that exists: a failure ends the run with a report. */
uint64_t vmcs_read(enum vmcs_field field);
void vmcs_write(enum vmcs_field field, uint64_t value);

/*
 * Enters the guest with its general registers taken from `registers`, and returns at the next VM exit with them there.
 * VMX_SUCCEED: there was a VM exit; a VM entry that failed on guest state or MSR loading is one too, with bit 31 of
 * exit_reason set, and leaves `registers` as they were. The other results: the instruction itself failed.
 * Writes the fields host_rsp and host_rip; the rest of the VMCS is the caller's.
 */
enum vmx_result vmx_enter(struct guest_registers *registers, enum vmx_entry_instruction instruction);

#endif
