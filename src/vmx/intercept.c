// What makes an instruction exit in VMX non-root operation: SDM 3C 26.1 "Instructions That Cause VM Exits", 26.3 "Changes to
// Instruction Behavior", and the exit qualifications of 28.2.1.
//
// cpu->intercepts holds a bit for each operation that may exit; it is computed when a VM entry loads the controls, so that the
// handlers of all others ask nothing. The handlers call after the faults that precede the exit.
#include "vmx/transition.h"

#define CPU_RAX(cpu) ((uint32_t)(cpu)->regs[REG_RAX])
#define CPU_RCX(cpu) ((uint32_t)(cpu)->regs[REG_RCX])
#define CPU_RDX(cpu) ((uint32_t)(cpu)->regs[REG_RDX])

// Exit qualification for control-register accesses: 3:0 register, 5:4 kind, 6 LMSW from memory, 11:8 GPR, 31:16 LMSW source.
enum { CR_MOV_TO = 0, CR_MOV_FROM = 1, CR_CLTS = 2, CR_LMSW = 3 };
#define CR_KIND_SHIFT        4
#define CR_LMSW_MEMORY       BIT(6)
#define CR_GPR_SHIFT         8
#define CR_LMSW_SOURCE_SHIFT 16

// For MOV DR: 2:0 register, 4 direction, 11:8 GPR.
#define DR_FROM BIT(4)

// For I/O: 2:0 size less 1, 3 IN, 4 string, 5 REP, 6 immediate port, 31:16 port.
#define IO_IN         BIT(3)
#define IO_STRING     BIT(4)
#define IO_REP        BIT(5)
#define IO_IMMEDIATE  BIT(6)
#define IO_PORT_SHIFT 16

// VM-exit instruction information for descriptor-table instructions: 29:28 identity; and for LGDT.. bit 11: operand size.
#define INFO_IDENTITY_SHIFT 28
#define INFO_OPERAND_32     BIT(11)

// The virtual-APIC page's VTPR.
#define VIRTUAL_APIC_TPR 0x80

// --- The word of intercepts ---------------------------------------------------------------------------------------

static uint64_t primary_intercepts(uint32_t primary)
{
    uint64_t word = 0;
    if (primary & PRIMARY_HLT_EXITING)
        word |= BIT(INTERCEPT_HLT);
    if (primary & PRIMARY_INVLPG_EXITING)
        word |= BIT(INTERCEPT_INVLPG) | BIT(INTERCEPT_INVPCID);
    if (primary & PRIMARY_MWAIT_EXITING)
        word |= BIT(INTERCEPT_MWAIT);
    if (primary & PRIMARY_RDPMC_EXITING)
        word |= BIT(INTERCEPT_RDPMC);
    if (primary & PRIMARY_RDTSC_EXITING)
        word |= BIT(INTERCEPT_RDTSC) | BIT(INTERCEPT_RDTSCP);
    if (primary & PRIMARY_CR3_LOAD_EXITING)
        word |= BIT(INTERCEPT_MOV_TO_CR3);
    if (primary & PRIMARY_CR3_STORE_EXITING)
        word |= BIT(INTERCEPT_MOV_FROM_CR3);
    if (primary & (PRIMARY_CR8_LOAD_EXITING | PRIMARY_USE_TPR_SHADOW))
        word |= BIT(INTERCEPT_MOV_TO_CR8);
    if (primary & (PRIMARY_CR8_STORE_EXITING | PRIMARY_USE_TPR_SHADOW))
        word |= BIT(INTERCEPT_MOV_FROM_CR8);
    if (primary & PRIMARY_MOV_DR_EXITING)
        word |= BIT(INTERCEPT_MOV_DR);
    if (primary & (PRIMARY_UNCONDITIONAL_IO_EXITING | PRIMARY_USE_IO_BITMAPS))
        word |= BIT(INTERCEPT_IO);
    if (primary & PRIMARY_MONITOR_EXITING)
        word |= BIT(INTERCEPT_MONITOR);
    if (primary & PRIMARY_PAUSE_EXITING)
        word |= BIT(INTERCEPT_PAUSE);
    return word;
}

static uint64_t secondary_intercepts(uint32_t secondary)
{
    uint64_t word = 0;
    if (secondary & SECONDARY_DESCRIPTOR_TABLE_EXITING)
        word |= BIT(INTERCEPT_DESCRIPTOR_TABLE);
    if (!(secondary & SECONDARY_ENABLE_RDTSCP))
        word |= BIT(INTERCEPT_NO_RDTSCP);
    if (secondary & SECONDARY_WBINVD_EXITING)
        word |= BIT(INTERCEPT_WBINVD);
    if (secondary & SECONDARY_PAUSE_LOOP_EXITING)
        word |= BIT(INTERCEPT_PAUSE);
    if (secondary & SECONDARY_RDRAND_EXITING)
        word |= BIT(INTERCEPT_RDRAND);
    if (secondary & SECONDARY_RDSEED_EXITING)
        word |= BIT(INTERCEPT_RDSEED);
    if (!(secondary & SECONDARY_ENABLE_INVPCID))
        word |= BIT(INTERCEPT_NO_INVPCID);
    if (!(secondary & SECONDARY_ENABLE_XSAVES_XRSTORS))
        word |= BIT(INTERCEPT_NO_XSAVES);
    return word | BIT(INTERCEPT_XSAVES) | BIT(INTERCEPT_XRSTORS);
}

void intercept_update(struct cpu *cpu)
{
    const struct vmx *vmx = cpu->vmx;
    uint64_t word = BIT(INTERCEPT_CPUID) | BIT(INTERCEPT_GETSEC) | BIT(INTERCEPT_INVD) | BIT(INTERCEPT_XSETBV) |
                    BIT(INTERCEPT_TASK_SWITCH) | BIT(INTERCEPT_RDMSR) | BIT(INTERCEPT_WRMSR) | BIT(INTERCEPT_IRET_NMI);
    word |= primary_intercepts(vmx->primary) | secondary_intercepts(vmx->secondary);
    if (vmx->cr0_mask)
        word |= BIT(INTERCEPT_MOV_TO_CR0) | BIT(INTERCEPT_CLTS) | BIT(INTERCEPT_LMSW);
    if (vmx->cr4_mask)
        word |= BIT(INTERCEPT_MOV_TO_CR4);
    bool page_faults = vmcs_get(vmx->current, VMCS_PAGE_FAULT_ERROR_CODE_MATCH) != 0 ||
                       (vmx->exception_bitmap & BIT(VECTOR_PF)) ||
                       vmcs_get(vmx->current, VMCS_PAGE_FAULT_ERROR_CODE_MASK) != 0;
    if (vmx->exception_bitmap || page_faults)
        word |= BIT(INTERCEPT_EXCEPTION);
    if (vmx->pin & PIN_EXTERNAL_INTERRUPT_EXITING)
        word |= BIT(INTERCEPT_EXTERNAL_INTERRUPT);
    if (vmx->pin & PIN_NMI_EXITING)
        word |= BIT(INTERCEPT_NMI);
    cpu->intercepts = word;
}

// --- Control and debug registers ----------------------------------------------------------------------------------

uint64_t intercept_read_cr0(const struct cpu *cpu)
{
    const struct vmx *vmx = cpu->vmx;
    return (cpu->cr0 & ~vmx->cr0_mask) | (vmx->cr0_shadow & vmx->cr0_mask);
}

uint64_t intercept_read_cr4(const struct cpu *cpu)
{
    const struct vmx *vmx = cpu->vmx;
    return (cpu->cr4 & ~vmx->cr4_mask) | (vmx->cr4_shadow & vmx->cr4_mask);
}

uint64_t intercept_merge_cr0(const struct cpu *cpu, uint64_t value)
{
    uint64_t mask = cpu->vmx->cr0_mask;
    return (cpu->cr0 & mask) | (value & ~mask);
}

uint64_t intercept_merge_cr4(const struct cpu *cpu, uint64_t value)
{
    uint64_t mask = cpu->vmx->cr4_mask;
    return (cpu->cr4 & mask) | (value & ~mask);
}

static enum exec_result exit_mov_cr(struct cpu *cpu, const struct insn *in, unsigned number, unsigned kind)
{
    uint64_t qualification = number | (kind << CR_KIND_SHIFT) | ((uint64_t)in->rm << CR_GPR_SHIFT);
    return vmx_exit_instruction(cpu, in, EXIT_CR_ACCESS, qualification);
}

static bool is_cr3_target(const struct vmx *vmx, uint64_t value)
{
    uint64_t count = vmcs_get(vmx->current, VMCS_CR3_TARGET_COUNT);
    for (unsigned i = 0; i < count && i < 4; i++) {
        if (vmx->current->field[VMCS_CR3_TARGET_0 + i] == value)
            return true;
    }
    return false;
}

static enum exec_result clts(struct cpu *cpu, const struct insn *in)
{
    if (!(cpu->vmx->cr0_mask & cpu->vmx->cr0_shadow & CR0_TS))
        return EXEC_NEXT;
    return vmx_exit_instruction(cpu, in, EXIT_CR_ACCESS, CR_CLTS << CR_KIND_SHIFT);
}

// LMSW can set PE but not clear it: a source bit 0 of 0 attempts nothing.
static enum exec_result lmsw(struct cpu *cpu, const struct insn *in, uint64_t source)
{
    const struct vmx *vmx = cpu->vmx;
    uint64_t changed = (source ^ vmx->cr0_shadow) & vmx->cr0_mask & (BITS(3, 1) | (source & CR0_PE));
    if (!changed)
        return EXEC_NEXT;
    uint64_t qualification = (CR_LMSW << CR_KIND_SHIFT) | ((source & 0xFFFF) << CR_LMSW_SOURCE_SHIFT);
    if (in->form == FORM_MEM) {
        qualification |= CR_LMSW_MEMORY;
        uint64_t offset = instruction_displacement(cpu, in);
        if (in->base != REG_RIP)
            offset += cpu->regs[in->base] + (cpu->regs[in->index] << in->scale);
        offset &= cpu->addr_mask[in->addr_log2];
        uint64_t linear = cpu->segment_base[in->segment] + offset;
        vmcs_put(vmx->current, VMCS_GUEST_LINEAR_ADDRESS, cpu_64bit(cpu) ? linear : (uint32_t)linear);
    }
    return vmx_exit_instruction(cpu, in, EXIT_CR_ACCESS, qualification);
}

static enum exec_result mov_dr(struct cpu *cpu, const struct insn *in)
{
    uint64_t qualification = (in->reg & 7u) | ((uint64_t)in->rm << CR_GPR_SHIFT);
    if (in->op == OP_MOV_FROM_DR)
        qualification |= DR_FROM;
    return vmx_exit_instruction(cpu, in, EXIT_MOV_DR, qualification);
}

// TPR shadow: CR8 is bits 7:4 of VTPR; a value below the threshold exits after the instruction (30.1.2, 30.3).
static enum exec_result mov_to_cr8(struct cpu *cpu, const struct insn *in, uint64_t value)
{
    struct vmx *vmx = cpu->vmx;
    if (vmx->primary & PRIMARY_CR8_LOAD_EXITING)
        return exit_mov_cr(cpu, in, 8, CR_MOV_TO);
    if (value & ~(uint64_t)0xF)
        return raise_error(cpu, VECTOR_GP, 0);
    hpa_t page = vmcs_get(vmx->current, VMCS_VIRTUAL_APIC_ADDR) & PAGE_FRAME_MASK;
    bus_write(cpu->bus, page + VIRTUAL_APIC_TPR, 4, value << 4);
    enum exec_result result = exec_end_system(cpu, in);
    if (value >= (vmcs_get(vmx->current, VMCS_TPR_THRESHOLD) & 0xF))
        return result;
    // A trap: the instruction has ended.
    cpu->interruptibility &= (uint32_t) ~(BLOCKING_STI | BLOCKING_MOV_SS);
    if ((cpu->rflags_system & RFLAGS_TF) && !(cpu->debugctl & DEBUGCTL_BTF))
        cpu->pending_debug |= PENDING_DEBUG_BS;
    const struct vm_exit exit = {.reason = EXIT_TPR_BELOW_THRESHOLD, .rf = RF_CLEAR, .saves_pending_debug = true};
    return vmx_exit(cpu, &exit);
}

static enum exec_result mov_from_cr8(struct cpu *cpu, const struct insn *in)
{
    struct vmx *vmx = cpu->vmx;
    if (vmx->primary & PRIMARY_CR8_STORE_EXITING)
        return exit_mov_cr(cpu, in, 8, CR_MOV_FROM);
    hpa_t page = vmcs_get(vmx->current, VMCS_VIRTUAL_APIC_ADDR) & PAGE_FRAME_MASK;
    cpu->regs[in->rm] = bits_get(bus_read(cpu->bus, page + VIRTUAL_APIC_TPR, 1), 7, 4);
    return exec_end_system(cpu, in);
}

static enum exec_result mov_to_cr(struct cpu *cpu, const struct insn *in, enum intercept what, uint64_t value)
{
    const struct vmx *vmx = cpu->vmx;
    switch (what) {
    case INTERCEPT_MOV_TO_CR0:
        return (value ^ vmx->cr0_shadow) & vmx->cr0_mask ? exit_mov_cr(cpu, in, 0, CR_MOV_TO) : EXEC_NEXT;
    case INTERCEPT_MOV_TO_CR3: return is_cr3_target(vmx, value) ? EXEC_NEXT : exit_mov_cr(cpu, in, 3, CR_MOV_TO);
    case INTERCEPT_MOV_TO_CR4:
        return (value ^ vmx->cr4_shadow) & vmx->cr4_mask ? exit_mov_cr(cpu, in, 4, CR_MOV_TO) : EXEC_NEXT;
    default: return mov_to_cr8(cpu, in, value);
    }
}

// --- I/O ----------------------------------------------------------------------------------------------------------

static bool io_bitmap_bit(const struct cpu *cpu, unsigned port)
{
    hpa_t bitmap = vmcs_get(cpu->vmx->current, port < 0x8000 ? VMCS_IO_BITMAP_A : VMCS_IO_BITMAP_B);
    return (bus_read(cpu->bus, bitmap + (port & 0x7FFF) / 8, 1) >> (port & 7)) & 1;
}

static bool io_exits(const struct cpu *cpu, unsigned port, unsigned size)
{
    if (!(cpu->vmx->primary & PRIMARY_USE_IO_BITMAPS))
        return true;
    if (port + size > 0x10000)
        return true;
    for (unsigned i = 0; i < size; i++) {
        if (io_bitmap_bit(cpu, port + i))
            return true;
    }
    return false;
}

// INS and OUTS: linear address of the memory operand, address size and segment.
static uint32_t record_string_io(struct cpu *cpu, const struct insn *in)
{
    struct vmcs_region *vmcs = cpu->vmx->current;
    bool input = in->op == OP_INS;
    enum segment_register segment = input ? SEG_ES : (enum segment_register)in->segment;
    if (cpu_64bit(cpu) || !(cpu->segments[segment].access_rights & SEGMENT_UNUSABLE)) {
        uint64_t offset = cpu->regs[input ? REG_RDI : REG_RSI] & cpu->addr_mask[in->addr_log2];
        uint64_t linear = cpu->segment_base[segment] + offset;
        vmcs_put(vmcs, VMCS_GUEST_LINEAR_ADDRESS, cpu_64bit(cpu) ? linear : (uint32_t)linear);
    }
    return ((uint32_t)(in->addr_log2 - 1) << 7) | ((uint32_t)segment << 15);
}

static enum exec_result io(struct cpu *cpu, const struct insn *in, uint64_t operand)
{
    unsigned port = (unsigned)(operand & 0xFFFF);
    bool string = in->op == OP_INS || in->op == OP_OUTS;
    unsigned size = insn_size(in) > 4 ? 4 : insn_size(in);
    if (!io_exits(cpu, port, size))
        return EXEC_NEXT;
    uint64_t qualification = (size - 1) | ((uint64_t)port << IO_PORT_SHIFT);
    if (in->op == OP_IN || in->op == OP_INS)
        qualification |= IO_IN;
    if (!string) {
        qualification |= in->has_imm ? IO_IMMEDIATE : 0;
        return vmx_exit_instruction(cpu, in, EXIT_IO_INSTRUCTION, qualification);
    }
    qualification |= IO_STRING | (in->flags & (INSN_REP | INSN_REPNE) ? IO_REP : 0);
    uint32_t information = record_string_io(cpu, in);
    if (!(cpu->vmx->caps->basic & VMX_BASIC_INS_OUTS_INFORMATION))
        return vmx_exit_instruction(cpu, in, EXIT_IO_INSTRUCTION, qualification);
    return vmx_exit_instruction_info(cpu, in, EXIT_IO_INSTRUCTION, qualification, information);
}

// --- MSRs ---------------------------------------------------------------------------------------------------------

// The MSR-bitmap page: 1 KByte each for reads of 0-1FFFH, reads of C0000000H-C0001FFFH, writes, writes.
static bool msr_exits(const struct cpu *cpu, bool write)
{
    if (!(cpu->vmx->primary & PRIMARY_USE_MSR_BITMAPS))
        return true;
    uint32_t index = CPU_RCX(cpu);
    uint32_t low = index & 0x1FFF;
    if (index != low && index != (0xC0000000u | low))
        return true;
    hpa_t address =
        vmcs_get(cpu->vmx->current, VMCS_MSR_BITMAP) + low / 8 + (index != low ? 0x400 : 0) + (write ? 0x800 : 0);
    return (bus_read(cpu->bus, address, 1) >> (low & 7)) & 1;
}

uint64_t intercept_guest_tsc(const struct cpu *cpu, uint64_t tsc) { return tsc + cpu->vmx->tsc_offset; }

// --- PAUSE --------------------------------------------------------------------------------------------------------

// PAUSE-loop exiting (26.1.3): two executions further apart than PLE_Gap begin a new loop; one later than PLE_Window after the first exits.
static bool pause_loop_exits(struct cpu *cpu)
{
    struct vmx *vmx = cpu->vmx;
    if (!(vmx->secondary & SECONDARY_PAUSE_LOOP_EXITING) || cpu->cpl != 0)
        return false;
    uint64_t now = cpu_tsc(cpu);
    bool first = !vmx->pause_loop || now - vmx->pause_last > vmcs_get(vmx->current, VMCS_PLE_GAP);
    vmx->pause_loop = true;
    vmx->pause_last = now;
    if (first) {
        vmx->pause_first = now;
        return false;
    }
    return now - vmx->pause_first > vmcs_get(vmx->current, VMCS_PLE_WINDOW);
}

static enum exec_result pause(struct cpu *cpu, const struct insn *in)
{
    if (!(cpu->vmx->primary & PRIMARY_PAUSE_EXITING) && !pause_loop_exits(cpu))
        return EXEC_NEXT;
    return vmx_exit_instruction(cpu, in, EXIT_PAUSE, 0);
}

// --- Others -------------------------------------------------------------------------------------------------------

static enum exec_result descriptor_table(struct cpu *cpu, const struct insn *in)
{
    static const struct {
        uint16_t op;
        uint8_t reason, identity;
    } forms[] = {
        {OP_SGDT, EXIT_GDTR_IDTR_ACCESS, 0}, {OP_SIDT, EXIT_GDTR_IDTR_ACCESS, 1}, {OP_LGDT, EXIT_GDTR_IDTR_ACCESS, 2},
        {OP_LIDT, EXIT_GDTR_IDTR_ACCESS, 3}, {OP_SLDT, EXIT_LDTR_TR_ACCESS, 0},   {OP_STR, EXIT_LDTR_TR_ACCESS, 1},
        {OP_LLDT, EXIT_LDTR_TR_ACCESS, 2},   {OP_LTR, EXIT_LDTR_TR_ACCESS, 3},
    };
    for (unsigned i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (forms[i].op != in->op)
            continue;
        uint32_t information = instruction_information(in) | ((uint32_t)forms[i].identity << INFO_IDENTITY_SHIFT);
        if (forms[i].reason == EXIT_GDTR_IDTR_ACCESS && in->size_log2 >= 2)
            information |= (uint32_t)INFO_OPERAND_32;
        return vmx_exit_instruction_info(cpu, in, (enum vmx_exit_reason)forms[i].reason,
                                         instruction_displacement(cpu, in), information);
    }
    return EXEC_NEXT;
}

// Destination in 6:3, operand size in 12:11 (0: 16 bits, 1: 32, 2: 64).
static enum exec_result random_number(struct cpu *cpu, const struct insn *in, enum vmx_exit_reason reason)
{
    uint32_t information = ((uint32_t)in->rm << 3) | ((uint32_t)(in->size_log2 - 1) << 11);
    return vmx_exit_instruction_info(cpu, in, reason, 0, information);
}

static enum exec_result xsaves(struct cpu *cpu, const struct insn *in, enum vmx_exit_reason reason)
{
    const struct vmx *vmx = cpu->vmx;
    uint64_t components = ((uint64_t)CPU_RDX(cpu) << 32) | CPU_RAX(cpu);
    if (!(components & cpu->xss & vmcs_get(vmx->current, VMCS_XSS_EXITING_BITMAP)))
        return EXEC_NEXT;
    return vmx_exit_instruction_info(cpu, in, reason, instruction_displacement(cpu, in), instruction_information(in));
}

static enum exec_result invpcid(struct cpu *cpu, const struct insn *in)
{
    return vmx_exit_instruction_info(cpu, in, EXIT_INVPCID, instruction_displacement(cpu, in),
                                     instruction_information_reg2(in));
}

// IRET ends blocking by NMI: virtual blocking with virtual NMIs; with NMI exiting alone none; else the processor's (26.3).
static enum exec_result iret_nmi(struct cpu *cpu)
{
    struct vmx *vmx = cpu->vmx;
    if (vmx->pin & PIN_VIRTUAL_NMIS) {
        cpu->nmi_unblocked_by_iret = vmx->virtual_nmi_blocking;
        vmx->virtual_nmi_blocking = false;
        event_arm(cpu);
    } else if (!(vmx->pin & PIN_NMI_EXITING)) {
        cpu->nmi_unblocked_by_iret = (cpu->interruptibility & BLOCKING_NMI) != 0;
        cpu->interruptibility &= (uint32_t)~BLOCKING_NMI;
    }
    return EXEC_NEXT;
}

enum exec_result intercept_instruction(struct cpu *cpu, const struct insn *in, enum intercept what, uint64_t operand)
{
    if (cpu->block)
        exec_leave_before(cpu, in);
    switch (what) {
    case INTERCEPT_CPUID: return vmx_exit_instruction(cpu, in, EXIT_CPUID, 0);
    case INTERCEPT_GETSEC: return vmx_exit_instruction(cpu, in, EXIT_GETSEC, 0);
    case INTERCEPT_HLT: return vmx_exit_instruction(cpu, in, EXIT_HLT, 0);
    case INTERCEPT_INVD: return vmx_exit_instruction(cpu, in, EXIT_INVD, 0);
    case INTERCEPT_INVLPG: return vmx_exit_instruction(cpu, in, EXIT_INVLPG, operand);
    case INTERCEPT_RDPMC: return vmx_exit_instruction(cpu, in, EXIT_RDPMC, 0);
    case INTERCEPT_RDTSC: return vmx_exit_instruction(cpu, in, EXIT_RDTSC, 0);
    case INTERCEPT_RDTSCP: return vmx_exit_instruction(cpu, in, EXIT_RDTSCP, 0);
    case INTERCEPT_RSM: return EXEC_NEXT; // #UD outside SMM
    case INTERCEPT_MOV_TO_CR0:
    case INTERCEPT_MOV_TO_CR3:
    case INTERCEPT_MOV_TO_CR4:
    case INTERCEPT_MOV_TO_CR8: return mov_to_cr(cpu, in, what, operand);
    case INTERCEPT_MOV_FROM_CR0:
    case INTERCEPT_MOV_FROM_CR4: return EXEC_NEXT; // reads give the shadow, they never exit
    case INTERCEPT_MOV_FROM_CR3: return exit_mov_cr(cpu, in, 3, CR_MOV_FROM);
    case INTERCEPT_MOV_FROM_CR8: return mov_from_cr8(cpu, in);
    case INTERCEPT_CLTS: return clts(cpu, in);
    case INTERCEPT_LMSW: return lmsw(cpu, in, operand);
    case INTERCEPT_MOV_DR: return mov_dr(cpu, in);
    case INTERCEPT_IO: return io(cpu, in, operand);
    case INTERCEPT_RDMSR: return msr_exits(cpu, false) ? vmx_exit_instruction(cpu, in, EXIT_RDMSR, 0) : EXEC_NEXT;
    case INTERCEPT_WRMSR: return msr_exits(cpu, true) ? vmx_exit_instruction(cpu, in, EXIT_WRMSR, 0) : EXEC_NEXT;
    case INTERCEPT_MWAIT: return vmx_exit_instruction(cpu, in, EXIT_MWAIT, cpu->monitor_armed);
    case INTERCEPT_MONITOR: return vmx_exit_instruction(cpu, in, EXIT_MONITOR, 0);
    case INTERCEPT_PAUSE: return pause(cpu, in);
    case INTERCEPT_DESCRIPTOR_TABLE: return descriptor_table(cpu, in);
    case INTERCEPT_WBINVD: return vmx_exit_instruction(cpu, in, EXIT_WBINVD_WBNOINVD, 0);
    case INTERCEPT_XSETBV: return vmx_exit_instruction(cpu, in, EXIT_XSETBV, 0);
    case INTERCEPT_RDRAND: return random_number(cpu, in, EXIT_RDRAND);
    case INTERCEPT_RDSEED: return random_number(cpu, in, EXIT_RDSEED);
    case INTERCEPT_INVPCID: return invpcid(cpu, in);
    case INTERCEPT_XSAVES: return xsaves(cpu, in, EXIT_XSAVES);
    case INTERCEPT_XRSTORS: return xsaves(cpu, in, EXIT_XRSTORS);
    case INTERCEPT_IRET_NMI: return iret_nmi(cpu);
    case INTERCEPT_TASK_SWITCH:
    case INTERCEPT_EXCEPTION:
    case INTERCEPT_EXTERNAL_INTERRUPT:
    case INTERCEPT_NMI: break; // these have callbacks of their own
    case INTERCEPT_NO_RDTSCP:
    case INTERCEPT_NO_INVPCID:
    case INTERCEPT_NO_XSAVES:
    case INTERCEPT_COUNT: break; // these none
    }
    return EXEC_NEXT;
}
