// One vCPU: its architectural state and what the execution core keeps beside it.
//
// SDM 3A ch. 2, 3, 6; SDM 3C 25.3 "Change of Modes". The run loop is cpu_run
// (run.c); handlers are in exec_*.c; `vmx` connects VMX without this module
// knowing it.
#ifndef VMXON_CPU_CPU_H
#define VMXON_CPU_CPU_H

#include "base/types.h"
#include "cpu/insn.h"
#include "mem/bus.h"
#include "mmu/mmu.h"

#define RFLAGS_CF         BIT(0)
#define RFLAGS_ONE        BIT(1)
#define RFLAGS_PF         BIT(2)
#define RFLAGS_AF         BIT(4)
#define RFLAGS_ZF         BIT(6)
#define RFLAGS_SF         BIT(7)
#define RFLAGS_TF         BIT(8)
#define RFLAGS_IF         BIT(9)
#define RFLAGS_DF         BIT(10)
#define RFLAGS_OF         BIT(11)
#define RFLAGS_IOPL       BITS(13, 12)
#define RFLAGS_IOPL_SHIFT 12
#define RFLAGS_NT         BIT(14)
#define RFLAGS_RF         BIT(16)
#define RFLAGS_VM         BIT(17)
#define RFLAGS_AC         BIT(18)
#define RFLAGS_VIF        BIT(19)
#define RFLAGS_VIP        BIT(20)
#define RFLAGS_ID         BIT(21)
#define RFLAGS_ARITHMETIC (RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF)

// Access rights as the VMCS keeps them (SDM 3C 25.4.1): type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15, unusable 16.
#define SEGMENT_TYPE      BITS(3, 0)
#define SEGMENT_S         BIT(4)
#define SEGMENT_DPL       BITS(6, 5)
#define SEGMENT_DPL_SHIFT 5
#define SEGMENT_P         BIT(7)
#define SEGMENT_AVL       BIT(12)
#define SEGMENT_L         BIT(13)
#define SEGMENT_DB        BIT(14)
#define SEGMENT_G         BIT(15)
#define SEGMENT_UNUSABLE  BIT(16)

struct segment {
    uint64_t base;
    uint32_t limit; // bytes, last valid offset (granularity applied)
    uint32_t access_rights;
    uint16_t selector;
};

struct descriptor_table {
    uint64_t base;
    uint16_t limit;
};

struct xmm {
    uint64_t lo, hi;
};

enum vector {
    VECTOR_DE = 0,
    VECTOR_DB = 1,
    VECTOR_NMI = 2,
    VECTOR_BP = 3,
    VECTOR_OF = 4,
    VECTOR_BR = 5,
    VECTOR_UD = 6,
    VECTOR_NM = 7,
    VECTOR_DF = 8,
    VECTOR_TS = 10,
    VECTOR_NP = 11,
    VECTOR_SS = 12,
    VECTOR_GP = 13,
    VECTOR_PF = 14,
    VECTOR_MF = 16,
    VECTOR_AC = 17,
    VECTOR_MC = 18,
    VECTOR_XM = 19,
    VECTOR_VE = 20
};

// Interruption types, numbered as in the VMCS (SDM 3C 25.8.3).
enum event_type {
    EVENT_EXTERNAL_INTERRUPT = 0,
    EVENT_NMI = 2,
    EVENT_HARDWARE_EXCEPTION = 3,
    EVENT_SOFTWARE_INTERRUPT = 4,
    EVENT_PRIVILEGED_SOFTWARE_EXCEPTION = 5,
    EVENT_SOFTWARE_EXCEPTION = 6,
    EVENT_OTHER = 7
};

struct event {
    uint8_t vector;
    uint8_t type; // enum event_type
    bool has_error_code;
    bool ept_exit;  // not an exception: an EPT violation or misconfiguration met by an access (`fault` says which)
    uint8_t length; // instruction length, types 4 to 6: return RIP = RIP + length
    uint32_t error_code;
    uint64_t cr2; // #PF: faulting linear address. #DB: DR6 bits to set (enum in debug.c)
    enum mmu_status ept_status;
    struct mmu_fault fault;
};

enum activity_state { ACTIVITY_ACTIVE, ACTIVITY_HLT, ACTIVITY_SHUTDOWN, ACTIVITY_WAIT_FOR_SIPI };

// Interruptibility state, numbered as in the VMCS (SDM 3C table "Format of Interruptibility State").
#define BLOCKING_STI    BIT(0)
#define BLOCKING_MOV_SS BIT(1)
#define BLOCKING_SMI    BIT(2)
#define BLOCKING_NMI    BIT(3)

// Pending work that the run loop must look at before the next instruction (cpu->pending).
enum pending {
    PENDING_INTERRUPT = 1 << 0, // an external interrupt is asserted (IF decides)
    PENDING_NMI = 1 << 1,
    PENDING_INIT = 1 << 2,
    PENDING_SIPI = 1 << 3,
    PENDING_DEBUG = 1 << 4,       // cpu->pending_debug holds debug traps
    PENDING_VMX = 1 << 5,         // VMX wants its boundary callback (MTF, windows, preemption timer)
    PENDING_STOP = 1 << 6,        // the machine asks the run loop to return
    PENDING_INHIBIT = 1 << 7,     // STI or MOV SS blocking is in effect for one instruction
    PENDING_SINGLE_STEP = 1 << 8, // RFLAGS.TF was set when the instruction began
    PENDING_BREAKPOINTS = 1 << 9, // DR7 enables an instruction breakpoint
};

// Instructions and operations that VMX non-root operation may intercept; bit numbers in cpu->intercepts.
enum intercept {
    INTERCEPT_CPUID,
    INTERCEPT_GETSEC,
    INTERCEPT_HLT,
    INTERCEPT_INVD,
    INTERCEPT_INVLPG,
    INTERCEPT_RDPMC,
    INTERCEPT_RDTSC,
    INTERCEPT_RDTSCP,
    INTERCEPT_RSM,
    INTERCEPT_MOV_TO_CR0,
    INTERCEPT_MOV_TO_CR3,
    INTERCEPT_MOV_TO_CR4,
    INTERCEPT_MOV_TO_CR8,
    INTERCEPT_MOV_FROM_CR0,
    INTERCEPT_MOV_FROM_CR3,
    INTERCEPT_MOV_FROM_CR4,
    INTERCEPT_MOV_FROM_CR8,
    INTERCEPT_CLTS,
    INTERCEPT_LMSW,
    INTERCEPT_MOV_DR,
    INTERCEPT_IO,
    INTERCEPT_RDMSR,
    INTERCEPT_WRMSR,
    INTERCEPT_MWAIT,
    INTERCEPT_MONITOR,
    INTERCEPT_PAUSE,
    INTERCEPT_DESCRIPTOR_TABLE, // LGDT LIDT SGDT SIDT LLDT LTR SLDT STR
    INTERCEPT_WBINVD,
    INTERCEPT_XSETBV,
    INTERCEPT_RDRAND,
    INTERCEPT_RDSEED,
    INTERCEPT_INVPCID,
    INTERCEPT_XSAVES,
    INTERCEPT_XRSTORS,
    INTERCEPT_TASK_SWITCH,
    INTERCEPT_EXCEPTION, // any exception is to be shown to vmx->exception
    INTERCEPT_EXTERNAL_INTERRUPT,
    INTERCEPT_NMI,
    INTERCEPT_IRET_NMI, // IRET: virtual NMIs, or NMI exiting without them
    // The control that enables the instruction is 0: #UD before all other faults (exec_withheld), no callback.
    INTERCEPT_NO_RDTSCP,
    INTERCEPT_NO_INVPCID,
    INTERCEPT_NO_XSAVES,
    INTERCEPT_COUNT
};
static_assert(INTERCEPT_COUNT <= 64, "cpu->intercepts has 64 bits");

struct cpu;

// VMX, as the core sees it. All are called only in the situations named; `machine` sets the table.
struct vmx_ops {
    // One of the VMX instructions (OP_VMXON .. OP_VMFUNC), in any operation. RIP etc. handled as for any system instruction (exec.h).
    enum exec_result (*instruction)(struct cpu *cpu, const struct insn *in);
    // In VMX non-root operation with cpu->intercepts bit `what` set, after the faults that precede the exit. operand: per instruction: CR/DR value to
    // write; I/O: port; INVLPG: linear address; others 0. EXEC_NEXT: no exit, carry on. EXEC_VMEXIT: exit done.
    // EXEC_DONE: VMX carried the instruction out itself (MOV CR8 with TPR shadow, x2APIC virtualization) and called exec_end_system().
    enum exec_result (*intercept)(struct cpu *cpu, const struct insn *in, enum intercept what, uint64_t operand);
    // In non-root, an event is about to be delivered while `during` (or NULL) was being delivered: EXEC_VMEXIT if it exits instead; EXEC_NEXT to deliver.
    enum exec_result (*exception)(struct cpu *cpu, const struct event *event, const struct event *during);
    // In non-root: event->ept_exit met by an instruction, or while delivering `during`.
    enum exec_result (*ept_exit)(struct cpu *cpu, const struct event *event, const struct event *during);
    enum exec_result (*triple_fault)(struct cpu *cpu);
    // In non-root: source 0 CALL 1 IRET 2 JMP 3 task gate in the IDT (then `during`); length: instruction length or 0.
    enum exec_result (*task_switch)(struct cpu *cpu, uint16_t selector, unsigned source, unsigned length,
                                    const struct event *during);
    // At an instruction boundary with PENDING_VMX or an interrupt, NMI, INIT or SIPI pending in non-root: decides by the priority table. EXEC_NEXT: nothing exits.
    // With PENDING_DEBUG and no MOV SS blocking only what ranks above debug traps (INIT, MTF) is decided; the core then delivers the trap.
    enum exec_result (*boundary)(struct cpu *cpu);
    // In VMX operation: whether CR0/CR4 values are allowed (fixed bits). Outside it is not called.
    bool (*cr0_allowed)(const struct cpu *cpu, uint64_t value);
    bool (*cr4_allowed)(const struct cpu *cpu, uint64_t value);
    // In non-root: what reading gives, (CR & ~mask) | (shadow & mask); and what a load without exit stores, (CR & mask) | (value & ~mask).
    uint64_t (*read_cr0)(const struct cpu *cpu);
    uint64_t (*read_cr4)(const struct cpu *cpu);
    uint64_t (*merge_cr0)(const struct cpu *cpu, uint64_t value);
    uint64_t (*merge_cr4)(const struct cpu *cpu, uint64_t value);
    // VMX capability MSRs (480H to 491H) and IA32_FEATURE_CONTROL: false -> #GP(0).
    bool (*rdmsr)(struct cpu *cpu, uint32_t index, uint64_t *value);
    bool (*wrmsr)(struct cpu *cpu, uint32_t index, uint64_t value);
    // RDTSC value in non-root (offset, scaling).
    uint64_t (*guest_tsc)(const struct cpu *cpu, uint64_t tsc);
};

// The machine around the processor, as the core sees it.
struct cpu_env {
    void *owner;
    // Local APIC: MSRs 1BH and 800H-8FFH, 6E0H; false -> #GP(0).
    bool (*apic_rdmsr)(void *owner, uint32_t index, uint64_t *value);
    bool (*apic_wrmsr)(void *owner, uint32_t index, uint64_t value);
    uint8_t (*apic_get_tpr)(void *owner); // CR8 << 4
    void (*apic_set_tpr)(void *owner, uint8_t tpr);
    int (*interrupt_acknowledge)(void *owner); // vector, or -1 if none is pending after all
    bool (*interrupt_pending)(void *owner);    // an interrupt is asserted to the processor
    void (*init_taken)(void *owner);           // the processor was reset by INIT; so is what is beside it. May be NULL
    // What the reference executor does with an ordinary instruction without native handler; see exec_reference.
    enum exec_result (*reference)(struct cpu *cpu, const struct insn *in);
    void (*rescheduled)(void *owner); // an access to a device may have moved the next event
};

// Lazy arithmetic flags: every flag follows from these two words.
//   ZF = (result == 0), SF = bit 63 of result ^ bit 0 of aux, PF = even parity of (result & FFH) ^ (aux >> 8 & FFH),
//   CF = bit 31 of aux, OF = bit 31 ^ bit 30 of aux, AF = bit 3 of aux.
struct lazy_flags {
    uint64_t result; // result sign-extended from the operand size
    uint32_t aux;
};
#define AUX_CF BIT(31)
#define AUX_PO BIT(30)
#define AUX_AF BIT(3)
#define AUX_SD BIT(0)

struct cpu_profile;

struct cpu {
    // --- hot: used by every handler ---
    uint64_t regs[REG_COUNT + 1];
    struct lazy_flags lazy;
    int64_t cycles_left;          // until the deadline; the whole running block is already subtracted
    uint64_t instructions;        // retired; the whole running block is already added
    const struct block *block;    // the running block, NULL between blocks
    const struct insn *next_insn; // EXEC_BLOCK: where to go on
    uint64_t addr_mask[4];        // by insn.addr_log2: address-size masks
    uint64_t segment_base[8];     // base used by the fast handlers, by enum segment_register
    uint64_t rip_mask;            // 32 or 64 ones
    uint32_t stop_block;          // != 0: leave the block after the current instruction (set by slow paths)
    uint32_t pending;             // enum pending: looked at between blocks
    uint64_t intercepts;          // BIT(enum intercept); 0 outside non-root
    unsigned mode;                // enum code_mode
    unsigned cpl;
    uint32_t rflags_system; // RFLAGS without RFLAGS_ARITHMETIC; bit 1 set
    cycle_t deadline;       // now = deadline - cycles_left (between blocks)

    // --- architectural state ---
    struct segment segments[SEG_COUNT];
    struct descriptor_table gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4; // CR8 is the APIC's
    uint64_t dr[4], dr6, dr7;
    uint64_t efer, star, lstar, cstar, fmask, kernel_gs_base, tsc_aux;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, misc_enable, debugctl, xcr0, xss, spec_ctrl, feature_control, tsc_adjust, perf_global_ctrl,
        bios_sign_id, mtrr_def_type;
    uint64_t mtrr_fixed[11], mtrr_base[10], mtrr_mask[10];
    int64_t tsc_offset; // IA32_TIME_STAMP_COUNTER - cycles
    struct xmm xmm[16];
    uint32_t mxcsr;
    struct {
        uint16_t control, status, tag; // tag: full 16-bit tag word
        uint16_t opcode, cs, ds;
        uint64_t ip, dp;
        struct {
            uint64_t mantissa;
            uint16_t sign_exponent;
        } st[8]; // physical registers R0-R7
    } fpu;
    enum activity_state activity;
    uint32_t interruptibility; // BLOCKING_*
    uint64_t
        pending_debug; // as VMCS "pending debug exceptions": bits 3:0, 12, 14, 16; bit 15: T flag of a TSS (never in non-root)
    uint64_t random_state;      // of RDRAND and RDSEED: seeded by the configuration
    uint64_t step_rip;          // RIP at debug_step_begin()
    bool nmi_unblocked_by_iret; // the fault in cpu->event is of an IRET that ended blocking by NMI (or virtual NMI)
    bool interrupt_parked; // PENDING_INTERRUPT was cleared with the interrupt still asserted, because RFLAGS.IF = 0
    bool event_delivered;  // an event was delivered since debug_step_begin(): no single-step trap after it
    bool repeating;        // RIP is at a REP string instruction between two of its iterations
    uint64_t monitor_address;
    bool monitor_armed;
    bool mwait;          // the HLT state was entered by MWAIT (for VMX it is the active state)
    bool mwait_unmasked; // by MWAIT with ECX bit 0: an interrupt ends it even if RFLAGS.IF = 0

    // --- VMX, owned by src/vmx ---
    bool vmx_operation; // VMXON executed
    bool non_root;
    struct vmx *vmx;

    // --- what the core needs beside it ---
    struct event event; // EXEC_FAULT: what to deliver
    struct mmu mmu;
    struct bus *bus;
    struct memory *memory;
    struct block_cache *blocks;
    const struct vmx_ops *vmx_ops;
    struct cpu_env env;
    const struct cpu_profile *profile;
    unsigned id;           // APIC ID
    unsigned package_cpus; // vCPUs of the machine, for the topology leaves of CPUID; 0 counts as 1
    unsigned sipi_vector;
    uint64_t reference_instructions; // executed by the reference executor
    bool
        run_alone; // EXEC_FAULT: no exception; the instruction met a device in the middle of a block and is run again alone
    bool stop_requested; // EXEC_STOP: the machine knows why
    uint64_t exception_count[32];
    uint64_t interrupt_count;
};

// Creates the vCPU's state (RESET values, SDM 3A table 10-1) and its caches. False if the host has no memory.
bool cpu_init(struct cpu *cpu, struct bus *bus, const struct cpu_profile *profile, unsigned id);
void cpu_destroy(struct cpu *cpu);
void cpu_reset(struct cpu *cpu, bool init_signal);

// Runs until the deadline (an absolute cycle) is reached, the vCPU leaves the active state, or PENDING_STOP. `single`: at most one
// instruction (or one event delivery). Returns EXEC_DONE, EXEC_HALT or EXEC_STOP.
// The deadline is at most CPU_RUN_MAX_CYCLES away (block_cache.h has a cost above every budget).
#define CPU_RUN_MAX_CYCLES ((cycle_t)1 << 30)
enum exec_result cpu_run(struct cpu *cpu, cycle_t deadline, bool single);

// Clock: cycles since creation. Exact between blocks and in handlers that end a block.
static inline cycle_t cpu_now(const struct cpu *cpu) { return cpu->deadline - (cycle_t)cpu->cycles_left; }
// Adds `cycles` to the clock (page walks, device accesses, VM transitions).
static inline void cpu_charge(struct cpu *cpu, unsigned cycles) { cpu->cycles_left -= (int64_t)cycles; }

uint64_t cpu_rflags(const struct cpu *cpu);            // all of RFLAGS
void cpu_set_rflags(struct cpu *cpu, uint64_t rflags); // all of RFLAGS, as given; recomputes derived state

// Recomputes what derives from CR0, CR3, CR4, EFER, segments, CPL and RFLAGS: mode, masks, segment_base, mmu control and mode.
// To be called after any change of them outside a plain flags operation.
void cpu_update_mode(struct cpu *cpu);

static inline uint64_t *cpu_rip(struct cpu *cpu) { return &cpu->regs[REG_RIP]; }
static inline bool cpu_long_mode(const struct cpu *cpu) { return (cpu->efer & EFER_LMA) != 0; }
static inline bool cpu_64bit(const struct cpu *cpu) { return (cpu->mode & MODE_CODE_MASK) == MODE_CODE64; }
// Bits of a linear address in 64-bit mode.
static inline unsigned cpu_linear_width(const struct cpu *cpu) { return cpu->cr4 & CR4_LA57 ? 57 : 48; }
static inline bool cpu_protected(const struct cpu *cpu)
{
    return (cpu->cr0 & CR0_PE) && !(cpu->rflags_system & RFLAGS_VM);
}
static inline bool cpu_v8086(const struct cpu *cpu) { return (cpu->rflags_system & RFLAGS_VM) != 0; }

#endif
