// Control and debug registers: MOV CR, MOV DR, CLTS, LMSW, SMSW, and the loads behind them.
//
// SDM 3A 2.5 "Control Registers", 4.10.4.1 "Operations that Invalidate TLBs and Paging-Structure Caches", 10.8.5 "Initializing
// IA-32e Mode"; SDM 3C 26.3 "Changes to Instruction Behavior in VMX Non-Root Operation".
#include "base/assert.h"
#include "cpu/descriptor.h"
#include "cpu/handlers.h"
#include "cpu/profile.h"
#include "cpu/system.h"

#define CR0_DEFINED        (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)
#define CR0_MSW            BITS(3, 0) // what LMSW loads
#define CR0_RELOADS_PDPTES (CR0_PG | CR0_CD | CR0_NW)
#define CR4_RELOADS_PDPTES (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP)

uint64_t cpu_cr4_reserved(const struct cpu *cpu)
{
    static const struct {
        uint64_t bit;
        enum cpu_feature feature;
    } row[] = {
        {CR4_VME | CR4_PVI, FEATURE_VME}, {CR4_TSD, FEATURE_TSC},           {CR4_DE, FEATURE_DE},
        {CR4_PSE, FEATURE_PSE},           {CR4_PAE, FEATURE_PAE},           {CR4_MCE, FEATURE_MCE},
        {CR4_PGE, FEATURE_PGE},           {CR4_OSFXSR, FEATURE_FXSR},       {CR4_OSXMMEXCPT, FEATURE_SSE},
        {CR4_UMIP, FEATURE_UMIP},         {CR4_LA57, FEATURE_LA57},         {CR4_VMXE, FEATURE_VMX},
        {CR4_SMXE, FEATURE_SMX},          {CR4_FSGSBASE, FEATURE_FSGSBASE}, {CR4_PCIDE, FEATURE_PCID},
        {CR4_OSXSAVE, FEATURE_XSAVE},     {CR4_SMEP, FEATURE_SMEP},         {CR4_SMAP, FEATURE_SMAP},
        {CR4_PKE, FEATURE_PKU},
    };
    uint64_t allowed = CR4_PCE;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++)
        if (cpu_has(cpu, row[i].feature))
            allowed |= row[i].bit;
    return ~allowed;
}

// CR0 and EFER.LMA as they would become: whether IA-32e mode may be entered or left (SDM 3A 10.8.5).
static bool long_mode_change_allowed(const struct cpu *cpu, uint64_t value)
{
    bool enters = (cpu->efer & EFER_LME) && !(cpu->cr0 & CR0_PG) && (value & CR0_PG);
    if (enters) {
        unsigned tss = cpu->segments[SEG_TR].access_rights & SEGMENT_TYPE;
        return (cpu->cr4 & CR4_PAE) && !(cpu->segments[SEG_CS].access_rights & SEGMENT_L) && tss != SYSTEM_TSS16_BUSY &&
               tss != SYSTEM_TSS16_AVAILABLE;
    }
    bool leaves = (cpu->cr0 & CR0_PG) && !(value & CR0_PG);
    return !(leaves && (cpu_64bit(cpu) || (cpu->cr4 & CR4_PCIDE)));
}

static bool cr0_valid(const struct cpu *cpu, uint64_t value)
{
    if (value >> 32)
        return false;
    if (((value & CR0_PG) && !(value & CR0_PE)) || ((value & CR0_NW) && !(value & CR0_CD)))
        return false;
    if (!long_mode_change_allowed(cpu, value))
        return false;
    return !cpu->vmx_operation || cpu->vmx_ops->cr0_allowed(cpu, value);
}

// Loads the PAE PDPTEs of `cr3` for the registers given. EXEC_NEXT: loaded into `pdpte`, which is to be stored at commit.
static enum exec_result read_pdptes(struct cpu *cpu, uint64_t cr3, uint64_t pdpte[4])
{
    struct mmu_fault fault = {0};
    enum mmu_status status = mmu_read_pdptes(&cpu->mmu, cr3, pdpte, &fault);
    if (status == MMU_OK)
        return EXEC_NEXT;
    if (status == MMU_PAGE_FAULT)
        return raise_error(cpu, VECTOR_GP, 0);
    cpu->event = (struct event){.ept_exit = true, .ept_status = status, .fault = fault};
    return EXEC_FAULT;
}

static void store_pdptes(struct cpu *cpu, const uint64_t pdpte[4])
{
    for (unsigned i = 0; i < 4; i++)
        cpu->mmu.pdpte[i] = pdpte[i];
    mmu_drop_fast(&cpu->mmu);
}

enum exec_result cpu_write_cr0(struct cpu *cpu, uint64_t value)
{
    uint64_t pdpte[4];
    if (!cr0_valid(cpu, value))
        return raise_error(cpu, VECTOR_GP, 0);
    value = (value & CR0_DEFINED) | CR0_ET;
    uint64_t changed = value ^ cpu->cr0, efer = cpu->efer & ~EFER_LMA;
    if ((value & CR0_PG) && (efer & EFER_LME))
        efer |= EFER_LMA;
    bool loads = mmu_is_pae(value, cpu->cr4, efer) && (changed & CR0_RELOADS_PDPTES);
    if (loads && read_pdptes(cpu, cpu->cr3, pdpte) != EXEC_NEXT)
        return EXEC_FAULT;
    cpu->cr0 = value;
    cpu->efer = efer;
    if (loads)
        store_pdptes(cpu, pdpte);
    cpu_update_mode(cpu);
    if (changed & CR0_PG)
        mmu_invalidate_vpid(&cpu->mmu, cpu->mmu.vpid, false);
    return EXEC_NEXT;
}

enum exec_result cpu_write_cr3(struct cpu *cpu, uint64_t value)
{
    uint64_t pdpte[4];
    bool pcid = (cpu->cr4 & CR4_PCIDE) != 0, keep = pcid && (value & CR3_NOFLUSH);
    if (keep)
        value &= ~CR3_NOFLUSH;
    if (!cpu_long_mode(cpu))
        value &= 0xFFFFFFFF;
    else if (value >> cpu->profile->maxphyaddr)
        return raise_error(cpu, VECTOR_GP, 0);
    bool loads = mmu_is_pae(cpu->cr0, cpu->cr4, cpu->efer);
    if (loads && read_pdptes(cpu, value, pdpte) != EXEC_NEXT)
        return EXEC_FAULT;
    cpu->cr3 = value;
    if (loads)
        store_pdptes(cpu, pdpte);
    mmu_set_control(&cpu->mmu, cpu->cr0, cpu->cr3, cpu->cr4, cpu->efer);
    if (!keep)
        mmu_invalidate_pcid(&cpu->mmu, pcid ? (uint16_t)(value & CR3_PCID_MASK) : 0);
    return EXEC_NEXT;
}

static bool cr4_valid(const struct cpu *cpu, uint64_t value)
{
    if (value & cpu_cr4_reserved(cpu))
        return false;
    if (cpu_long_mode(cpu) && !(value & CR4_PAE))
        return false;
    if ((value & CR4_PCIDE) && !(cpu->cr4 & CR4_PCIDE) && (!cpu_long_mode(cpu) || (cpu->cr3 & CR3_PCID_MASK)))
        return false;
    return !cpu->vmx_operation || cpu->vmx_ops->cr4_allowed(cpu, value);
}

// What MOV to CR4 invalidates: all contexts of the VPID, or those of the current PCID.
static void invalidate_after_cr4(struct cpu *cpu, uint64_t old, uint64_t value)
{
    uint64_t changed = old ^ value;
    if ((changed & CR4_PGE) || (changed & old & CR4_PCIDE))
        mmu_invalidate_vpid(&cpu->mmu, cpu->mmu.vpid, false);
    else if ((changed & (CR4_PAE | CR4_PSE)) || (changed & value & CR4_SMEP))
        mmu_invalidate_pcid(&cpu->mmu, value & CR4_PCIDE ? (uint16_t)(cpu->cr3 & CR3_PCID_MASK) : 0);
}

enum exec_result cpu_write_cr4(struct cpu *cpu, uint64_t value)
{
    uint64_t pdpte[4];
    if (!cr4_valid(cpu, value))
        return raise_error(cpu, VECTOR_GP, 0);
    uint64_t old = cpu->cr4;
    bool loads = mmu_is_pae(cpu->cr0, value, cpu->efer) && ((old ^ value) & CR4_RELOADS_PDPTES);
    if (loads && read_pdptes(cpu, cpu->cr3, pdpte) != EXEC_NEXT)
        return EXEC_FAULT;
    cpu->cr4 = value;
    if (loads)
        store_pdptes(cpu, pdpte);
    cpu_update_mode(cpu);
    invalidate_after_cr4(cpu, old, value);
    return EXEC_NEXT;
}

static uint64_t read_cr0(const struct cpu *cpu) { return cpu->non_root ? cpu->vmx_ops->read_cr0(cpu) : cpu->cr0; }

static uint64_t merge_cr0(const struct cpu *cpu, uint64_t value)
{
    return cpu->non_root ? cpu->vmx_ops->merge_cr0(cpu, value) : value;
}

// CR8 is the task-priority class of the local APIC.
static enum exec_result write_cr8(struct cpu *cpu, uint64_t value)
{
    if (value >> 4)
        return raise_error(cpu, VECTOR_GP, 0);
    if (cpu->env.apic_set_tpr)
        cpu->env.apic_set_tpr(cpu->env.owner, (uint8_t)(value << 4));
    interrupt_recheck(cpu);
    return EXEC_NEXT;
}

static enum exec_result write_control_register(struct cpu *cpu, unsigned number, uint64_t value)
{
    switch (number) {
    case 0: return cpu_write_cr0(cpu, merge_cr0(cpu, value));
    case 2: cpu->cr2 = value; return EXEC_NEXT;
    case 3: return cpu_write_cr3(cpu, value);
    case 4: return cpu_write_cr4(cpu, cpu->non_root ? cpu->vmx_ops->merge_cr4(cpu, value) : value);
    default: return write_cr8(cpu, value);
    }
}

static bool control_register_exists(unsigned number)
{
    return number == 0 || number == 2 || number == 3 || number == 4 || number == 8;
}

static enum exec_result intercept_control_register(struct cpu *cpu, const struct insn *in, bool write, uint64_t value)
{
    switch (in->reg) {
    case 0: return exec_intercept(cpu, in, write ? INTERCEPT_MOV_TO_CR0 : INTERCEPT_MOV_FROM_CR0, value);
    case 3: return exec_intercept(cpu, in, write ? INTERCEPT_MOV_TO_CR3 : INTERCEPT_MOV_FROM_CR3, value);
    case 4: return exec_intercept(cpu, in, write ? INTERCEPT_MOV_TO_CR4 : INTERCEPT_MOV_FROM_CR4, value);
    case 8: return exec_intercept(cpu, in, write ? INTERCEPT_MOV_TO_CR8 : INTERCEPT_MOV_FROM_CR8, value);
    default: return EXEC_NEXT;
    }
}

static enum exec_result begin_control_register(struct cpu *cpu, const struct insn *in)
{
    if (!control_register_exists(in->reg))
        return raise_exception(cpu, VECTOR_UD);
    return cpu->cpl != 0 ? raise_error(cpu, VECTOR_GP, 0) : EXEC_NEXT;
}

enum exec_result exec_mov_to_cr(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    uint64_t value = cpu_64bit(cpu) ? cpu->regs[in->rm] : (uint32_t)cpu->regs[in->rm];
    enum exec_result r = begin_control_register(cpu, in);
    if (r == EXEC_NEXT)
        r = intercept_control_register(cpu, in, true, value);
    if (r == EXEC_NEXT)
        r = write_control_register(cpu, in->reg, value);
    return r == EXEC_NEXT ? exec_end_system(cpu, in) : r;
}

enum exec_result exec_mov_from_cr(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    enum exec_result r = begin_control_register(cpu, in);
    if (r == EXEC_NEXT)
        r = intercept_control_register(cpu, in, false, 0);
    if (r != EXEC_NEXT)
        return r;
    uint64_t value;
    switch (in->reg) {
    case 0: value = read_cr0(cpu); break;
    case 2: value = cpu->cr2; break;
    case 3: value = cpu->cr3; break;
    case 4: value = cpu->non_root ? cpu->vmx_ops->read_cr4(cpu) : cpu->cr4; break;
    default: value = cpu->env.apic_get_tpr ? cpu->env.apic_get_tpr(cpu->env.owner) >> 4 : 0; break;
    }
    reg_write(cpu, in->rm, cpu_64bit(cpu) ? 8 : 4, value);
    return exec_end_system(cpu, in);
}

enum exec_result exec_clts(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    if (cpu->cpl != 0)
        return raise_error(cpu, VECTOR_GP, 0);
    enum exec_result r = exec_intercept(cpu, in, INTERCEPT_CLTS, 0);
    if (r != EXEC_NEXT)
        return r;
    uint64_t value = merge_cr0(cpu, cpu->cr0 & ~CR0_TS);
    if (cpu->vmx_operation && !cpu->vmx_ops->cr0_allowed(cpu, value))
        return raise_error(cpu, VECTOR_GP, 0);
    cpu->cr0 = value;
    cpu_update_mode(cpu);
    return exec_end_system(cpu, in);
}

enum exec_result exec_lmsw(struct cpu *cpu, const struct insn *in)
{
    uint64_t offset = begin_system_operand(cpu, in);
    if (cpu->cpl != 0)
        return raise_error(cpu, VECTOR_GP, 0);
    uint64_t source = cpu->regs[in->rm];
    if (in->form == FORM_MEM && !mem_read(cpu, in->segment, offset, 2, &source)) // the exit depends on its value
        return EXEC_FAULT;
    enum exec_result r = exec_intercept(cpu, in, INTERCEPT_LMSW, source & 0xFFFF);
    if (r != EXEC_NEXT)
        return r;
    uint64_t value = (cpu->cr0 & ~CR0_MSW) | (source & CR0_MSW) | (cpu->cr0 & CR0_PE); // LMSW does not clear PE
    r = cpu_write_cr0(cpu, merge_cr0(cpu, value));
    return r == EXEC_NEXT ? exec_end_system(cpu, in) : r;
}

enum exec_result exec_smsw(struct cpu *cpu, const struct insn *in)
{
    uint64_t offset = begin_system_operand(cpu, in);
    if (cpu->cpl != 0 && (cpu->cr4 & CR4_UMIP))
        return raise_error(cpu, VECTOR_GP, 0);
    uint64_t value = read_cr0(cpu);
    if (in->form == FORM_MEM) {
        if (!mem_write(cpu, in->segment, offset, 2, value & 0xFFFF))
            return EXEC_FAULT;
    } else {
        reg_write(cpu, in->rm, insn_size(in), value);
    }
    return exec_end_system(cpu, in);
}

// --- Debug registers ---

// What MOV DR begins with: the exit precedes the privilege check, and #UD for DR4 and DR5 with CR4.DE comes after both.
// *number: DR4 and DR5 become DR6 and DR7.
static enum exec_result begin_debug_register(struct cpu *cpu, const struct insn *in, uint64_t value, unsigned *number)
{
    if (in->reg > 7)
        return raise_exception(cpu, VECTOR_UD);
    enum exec_result r = exec_intercept(cpu, in, INTERCEPT_MOV_DR, value);
    if (r != EXEC_NEXT)
        return r;
    *number = in->reg;
    if (in->reg == 4 || in->reg == 5) {
        if (cpu->cr4 & CR4_DE)
            return raise_exception(cpu, VECTOR_UD);
        *number = in->reg + 2u;
    }
    if (cpu->cpl != 0)
        return raise_error(cpu, VECTOR_GP, 0);
    if (cpu->dr7 & DR7_GD) {
        cpu->event = (struct event){.vector = VECTOR_DB, .type = EVENT_HARDWARE_EXCEPTION, .cr2 = DR6_BD};
        return EXEC_FAULT;
    }
    return EXEC_NEXT;
}

enum exec_result exec_mov_to_dr(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    uint64_t value = cpu_64bit(cpu) ? cpu->regs[in->rm] : (uint32_t)cpu->regs[in->rm];
    unsigned number;
    enum exec_result r = begin_debug_register(cpu, in, value, &number);
    if (r != EXEC_NEXT)
        return r;
    if (number >= 6 && value >> 32)
        return raise_error(cpu, VECTOR_GP, 0);
    if (number == 7)
        cpu_write_dr7(cpu, value);
    else if (number == 6)
        cpu->dr6 = (value & (0xF | DR6_BD | DR6_BS | DR6_BT)) | DR6_FIXED;
    else
        cpu->dr[number] = value;
    return exec_end_system(cpu, in);
}

enum exec_result exec_mov_from_dr(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    unsigned number;
    enum exec_result r = begin_debug_register(cpu, in, 0, &number);
    if (r != EXEC_NEXT)
        return r;
    uint64_t value = number == 7 ? cpu->dr7 : number == 6 ? cpu->dr6 : cpu->dr[number];
    reg_write(cpu, in->rm, cpu_64bit(cpu) ? 8 : 4, value);
    return exec_end_system(cpu, in);
}
