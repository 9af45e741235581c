// System instructions without a family of their own: flags, descriptor tables, caches and TLB, time, random numbers, segment bases,
// MONITOR and MWAIT, extended control registers.
//
// SDM 2 (each instruction); SDM 3C 26.1 for the order of faults and VM exits.
#include "cpu/descriptor.h"
#include "cpu/handlers.h"
#include "cpu/profile.h"
#include "cpu/system.h"

#define XCR0_X87       BIT(0)
#define XCR0_SUPPORTED (BIT(0) | BIT(1))

static unsigned iopl(const struct cpu *cpu) { return (cpu->rflags_system & RFLAGS_IOPL) >> RFLAGS_IOPL_SHIFT; }

// Which flag CLI and STI work on: IF, VIF (virtual-8086 mode with VME, CPL 3 with PVI), or 0: #GP(0). SDM 2 tables 3-7 and 4-19.
static uint32_t interrupt_flag(const struct cpu *cpu)
{
    if (!(cpu->cr0 & CR0_PE) || iopl(cpu) >= cpu->cpl) // CPL is 3 in virtual-8086 mode
        return RFLAGS_IF;
    bool is_virtual = cpu_v8086(cpu) ? (cpu->cr4 & CR4_VME) != 0 : cpu->cpl == 3 && (cpu->cr4 & CR4_PVI);
    return is_virtual ? RFLAGS_VIF : 0;
}

enum exec_result exec_cli(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    uint32_t flag = interrupt_flag(cpu);
    if (!flag)
        return raise_error(cpu, VECTOR_GP, 0);
    cpu->rflags_system &= ~flag;
    return exec_end_system(cpu, in);
}

enum exec_result exec_sti(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    uint32_t flag = interrupt_flag(cpu);
    if (!flag || (flag == RFLAGS_VIF && (cpu->rflags_system & RFLAGS_VIP)))
        return raise_error(cpu, VECTOR_GP, 0);
    if (flag == RFLAGS_IF && !(cpu->rflags_system & RFLAGS_IF)) {
        cpu->interruptibility |= BLOCKING_STI;
        cpu->pending |= PENDING_INHIBIT;
        interrupt_recheck(cpu);
        if (cpu->non_root)
            cpu->pending |= PENDING_VMX; // an interrupt window may open
    }
    cpu->rflags_system |= flag;
    return exec_end_system(cpu, in);
}

enum exec_result exec_hlt(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    if (cpu->cpl != 0)
        return raise_error(cpu, VECTOR_GP, 0);
    enum exec_result r = exec_intercept(cpu, in, INTERCEPT_HLT, 0);
    if (r != EXEC_NEXT)
        return r;
    cpu->activity = ACTIVITY_HLT;
    cpu->mwait = cpu->mwait_unmasked = false;
    exec_end_system(cpu, in);
    return EXEC_HALT;
}

// --- Descriptor-table registers ---

static enum exec_result load_table(struct cpu *cpu, const struct insn *in, struct descriptor_table *table)
{
    uint64_t offset = begin_system_operand(cpu, in), limit, base;
    if (in->form != FORM_MEM)
        return raise_exception(cpu, VECTOR_UD);
    if (cpu->cpl != 0)
        return raise_error(cpu, VECTOR_GP, 0);
    enum exec_result r = exec_intercept(cpu, in, INTERCEPT_DESCRIPTOR_TABLE, 0);
    if (r != EXEC_NEXT)
        return r;
    bool wide = cpu_64bit(cpu);
    if (!mem_read(cpu, in->segment, offset, 2, &limit) ||
        !mem_read(cpu, in->segment, (offset + 2) & cpu->addr_mask[in->addr_log2], wide ? 8 : 4, &base))
        return EXEC_FAULT;
    if (!wide && insn_size(in) == 2)
        base &= 0xFFFFFF;
    if (!is_canonical(base, cpu->profile->linear_width))
        return raise_error(cpu, VECTOR_GP, 0);
    *table = (struct descriptor_table){.base = base, .limit = (uint16_t)limit};
    return exec_end_system(cpu, in);
}

enum exec_result exec_lgdt(struct cpu *cpu, const struct insn *in) { return load_table(cpu, in, &cpu->gdtr); }
enum exec_result exec_lidt(struct cpu *cpu, const struct insn *in) { return load_table(cpu, in, &cpu->idtr); }

// All 32 bits of the base are stored whatever the operand size, as processors since the 386 do.
static enum exec_result store_table(struct cpu *cpu, const struct insn *in, const struct descriptor_table *table)
{
    uint64_t offset = begin_system_operand(cpu, in);
    if (in->form != FORM_MEM)
        return raise_exception(cpu, VECTOR_UD);
    if (cpu->cpl != 0 && (cpu->cr4 & CR4_UMIP))
        return raise_error(cpu, VECTOR_GP, 0);
    enum exec_result r = exec_intercept(cpu, in, INTERCEPT_DESCRIPTOR_TABLE, 0);
    if (r != EXEC_NEXT)
        return r;
    unsigned size = cpu_64bit(cpu) ? 8 : 4;
    uint64_t base_offset = (offset + 2) & cpu->addr_mask[in->addr_log2];
    if (!mem_check_write(cpu, in->segment, base_offset, size) ||
        !mem_write(cpu, in->segment, offset, 2, table->limit) ||
        !mem_write(cpu, in->segment, base_offset, size, table->base))
        return EXEC_FAULT;
    return exec_end_system(cpu, in);
}

enum exec_result exec_sgdt(struct cpu *cpu, const struct insn *in) { return store_table(cpu, in, &cpu->gdtr); }
enum exec_result exec_sidt(struct cpu *cpu, const struct insn *in) { return store_table(cpu, in, &cpu->idtr); }

// --- Caches and TLB ---

// Memory is always coherent here: nothing is left to do after the checks.
static enum exec_result invalidate_caches(struct cpu *cpu, const struct insn *in, enum intercept what)
{
    exec_begin_system(cpu, in);
    if (cpu->cpl != 0)
        return raise_error(cpu, VECTOR_GP, 0);
    enum exec_result r = exec_intercept(cpu, in, what, 0);
    return r == EXEC_NEXT ? exec_end_system(cpu, in) : r;
}

enum exec_result exec_invd(struct cpu *cpu, const struct insn *in)
{
    return invalidate_caches(cpu, in, INTERCEPT_INVD);
}
enum exec_result exec_wbinvd(struct cpu *cpu, const struct insn *in)
{
    return invalidate_caches(cpu, in, INTERCEPT_WBINVD);
}

enum exec_result exec_invlpg(struct cpu *cpu, const struct insn *in)
{
    uint64_t offset = begin_system_operand(cpu, in);
    if (in->form != FORM_MEM)
        return raise_exception(cpu, VECTOR_UD);
    if (cpu->cpl != 0)
        return raise_error(cpu, VECTOR_GP, 0);
    gva_t linear = cpu->segment_base[in->segment] + offset; // neither limit nor rights are checked
    if (!cpu_64bit(cpu))
        linear = (uint32_t)linear;
    enum exec_result r = exec_intercept(cpu, in, INTERCEPT_INVLPG, linear);
    if (r != EXEC_NEXT)
        return r;
    if (is_canonical(linear, cpu->profile->linear_width))
        mmu_invalidate_page(&cpu->mmu, linear);
    return exec_end_system(cpu, in);
}

enum invpcid_type { INVPCID_ADDRESS, INVPCID_CONTEXT, INVPCID_ALL, INVPCID_ALL_BUT_GLOBAL };

static bool invpcid_valid(const struct cpu *cpu, uint64_t type, uint64_t pcid, gva_t linear)
{
    if (type > INVPCID_ALL_BUT_GLOBAL || (pcid & ~CR3_PCID_MASK))
        return false;
    if (type >= INVPCID_ALL)
        return true;
    if (pcid && !(cpu->cr4 & CR4_PCIDE))
        return false;
    return type != INVPCID_ADDRESS || is_canonical(linear, cpu->profile->linear_width);
}

enum exec_result exec_invpcid(struct cpu *cpu, const struct insn *in)
{
    uint64_t offset = begin_system_operand(cpu, in), descriptor[2];
    if (!cpu_has(cpu, FEATURE_INVPCID) || exec_withheld(cpu, INTERCEPT_NO_INVPCID))
        return raise_exception(cpu, VECTOR_UD);
    if (cpu->cpl != 0)
        return raise_error(cpu, VECTOR_GP, 0);
    enum exec_result r = exec_intercept(cpu, in, INTERCEPT_INVPCID, 0);
    if (r != EXEC_NEXT)
        return r;
    uint64_t type = cpu_64bit(cpu) ? cpu->regs[in->reg] : (uint32_t)cpu->regs[in->reg];
    if (!mem_read_bytes(cpu, in->segment, offset, descriptor, sizeof(descriptor), 1))
        return EXEC_FAULT;
    if (!invpcid_valid(cpu, type, descriptor[0], descriptor[1]))
        return raise_error(cpu, VECTOR_GP, 0);
    switch (type) {
    case INVPCID_ADDRESS: mmu_invalidate_pcid_page(&cpu->mmu, (uint16_t)descriptor[0], descriptor[1]); break;
    case INVPCID_CONTEXT: mmu_invalidate_pcid(&cpu->mmu, (uint16_t)descriptor[0]); break;
    case INVPCID_ALL: mmu_invalidate_vpid(&cpu->mmu, cpu->mmu.vpid, false); break;
    default: mmu_invalidate_vpid(&cpu->mmu, cpu->mmu.vpid, true); break;
    }
    return exec_end_system(cpu, in);
}

// --- Time ---

static uint64_t visible_tsc(const struct cpu *cpu)
{
    uint64_t tsc = cpu_tsc(cpu);
    return cpu->non_root ? cpu->vmx_ops->guest_tsc(cpu, tsc) : tsc;
}

static void store_edx_eax(struct cpu *cpu, uint64_t value)
{
    cpu->regs[REG_RAX] = (uint32_t)value;
    cpu->regs[REG_RDX] = value >> 32;
}

static enum exec_result read_tsc(struct cpu *cpu, const struct insn *in, enum intercept what)
{
    exec_begin_system(cpu, in);
    if ((cpu->cr4 & CR4_TSD) && cpu->cpl != 0)
        return raise_error(cpu, VECTOR_GP, 0);
    enum exec_result r = exec_intercept(cpu, in, what, 0);
    if (r != EXEC_NEXT)
        return r;
    store_edx_eax(cpu, visible_tsc(cpu));
    if (what == INTERCEPT_RDTSCP)
        cpu->regs[REG_RCX] = (uint32_t)cpu->tsc_aux;
    return exec_end_system(cpu, in);
}

enum exec_result exec_rdtsc(struct cpu *cpu, const struct insn *in) { return read_tsc(cpu, in, INTERCEPT_RDTSC); }

enum exec_result exec_rdtscp(struct cpu *cpu, const struct insn *in)
{
    if (cpu_has(cpu, FEATURE_RDTSCP) && !exec_withheld(cpu, INTERCEPT_NO_RDTSCP))
        return read_tsc(cpu, in, INTERCEPT_RDTSCP);
    exec_begin_system(cpu, in);
    return raise_exception(cpu, VECTOR_UD);
}

// The profile has four general and three fixed counters; none of them counts.
enum exec_result exec_rdpmc(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    if (cpu->cpl != 0 && !(cpu->cr4 & CR4_PCE))
        return raise_error(cpu, VECTOR_GP, 0);
    enum exec_result r = exec_intercept(cpu, in, INTERCEPT_RDPMC, 0);
    if (r != EXEC_NEXT)
        return r;
    uint32_t counter = (uint32_t)cpu->regs[REG_RCX];
    bool fixed = counter & BIT(30);
    if ((counter & ~(uint32_t)BIT(30)) >= (fixed ? 3u : 4u))
        return raise_error(cpu, VECTOR_GP, 0);
    store_edx_eax(cpu, 0);
    return exec_end_system(cpu, in);
}

enum exec_result exec_rdpid(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    if (!cpu_has(cpu, FEATURE_RDPID) || exec_withheld(cpu, INTERCEPT_NO_RDTSCP)) // it reads the same MSR
        return raise_exception(cpu, VECTOR_UD);
    reg_write(cpu, in->rm, cpu_64bit(cpu) ? 8 : 4, cpu->tsc_aux);
    return exec_end_system(cpu, in);
}

// --- MONITOR and MWAIT ---

// The segment that MONITOR's address in rAX is in: DS unless overridden.
static enum exec_result begin_monitor(struct cpu *cpu, const struct insn *in, enum intercept what)
{
    exec_begin_system(cpu, in);
    bool enabled = cpu_has(cpu, FEATURE_MONITOR) && (cpu->misc_enable & BIT(18));
    if (!enabled || cpu->cpl != 0)
        return raise_exception(cpu, VECTOR_UD);
    return exec_intercept(cpu, in, what, 0);
}

enum exec_result exec_monitor(struct cpu *cpu, const struct insn *in)
{
    enum exec_result r = begin_monitor(cpu, in, INTERCEPT_MONITOR);
    if (r != EXEC_NEXT)
        return r;
    if ((uint32_t)cpu->regs[REG_RCX] != 0)
        return raise_error(cpu, VECTOR_GP, 0);
    enum segment_register s = in->flags & INSN_SEGMENT ? (enum segment_register)in->segment : SEG_DS;
    uint64_t offset = cpu->regs[REG_RAX] & cpu->addr_mask[in->addr_log2], value;
    if (!mem_read(cpu, s, offset, 1, &value))
        return EXEC_FAULT;
    cpu->monitor_address = cpu->segment_base[s] + offset;
    cpu->monitor_armed = true;
    return exec_end_system(cpu, in);
}

// With one processor nothing but an interrupt can end the wait: it is the HLT state. With several MWAIT does not wait, which the
// architecture allows, because a store of another processor to the monitored line would have to end it.
enum exec_result exec_mwait(struct cpu *cpu, const struct insn *in)
{
    enum exec_result r = begin_monitor(cpu, in, INTERCEPT_MWAIT);
    if (r != EXEC_NEXT)
        return r;
    uint32_t extensions = (uint32_t)cpu->regs[REG_RCX];
    if (extensions & ~1u)
        return raise_error(cpu, VECTOR_GP, 0);
    bool armed = cpu->monitor_armed;
    cpu->monitor_armed = false;
    exec_end_system(cpu, in);
    if (!armed || cpu->package_cpus > 1)
        return EXEC_DONE;
    cpu->activity = ACTIVITY_HLT;
    cpu->mwait = true;
    cpu->mwait_unmasked = (extensions & 1) != 0;
    interrupt_recheck(cpu);
    return EXEC_HALT;
}

// --- Flags and extended control registers ---

static enum exec_result set_ac(struct cpu *cpu, const struct insn *in, bool ac)
{
    exec_begin_system(cpu, in);
    if (!cpu_has(cpu, FEATURE_SMAP) || cpu->cpl != 0)
        return raise_exception(cpu, VECTOR_UD);
    cpu_set_rflags(cpu, (cpu_rflags(cpu) & ~RFLAGS_AC) | (ac ? RFLAGS_AC : 0));
    return exec_end_system(cpu, in);
}

enum exec_result exec_clac(struct cpu *cpu, const struct insn *in) { return set_ac(cpu, in, false); }
enum exec_result exec_stac(struct cpu *cpu, const struct insn *in) { return set_ac(cpu, in, true); }

enum exec_result exec_xgetbv(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    if (!(cpu->cr4 & CR4_OSXSAVE))
        return raise_exception(cpu, VECTOR_UD);
    uint32_t index = (uint32_t)cpu->regs[REG_RCX];
    if (index > 1 || (index == 1 && !cpu_has(cpu, FEATURE_XGETBV1)))
        return raise_error(cpu, VECTOR_GP, 0);
    store_edx_eax(cpu, index == 0 ? cpu->xcr0 : cpu->xcr0 & state_in_use(cpu));
    return exec_end_system(cpu, in);
}

enum exec_result exec_xsetbv(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    if (!(cpu->cr4 & CR4_OSXSAVE))
        return raise_exception(cpu, VECTOR_UD);
    if (cpu->cpl != 0)
        return raise_error(cpu, VECTOR_GP, 0);
    enum exec_result r = exec_intercept(cpu, in, INTERCEPT_XSETBV, 0);
    if (r != EXEC_NEXT)
        return r;
    uint64_t value = cpu->regs[REG_RDX] << 32 | (uint32_t)cpu->regs[REG_RAX];
    if ((uint32_t)cpu->regs[REG_RCX] != 0 || !(value & XCR0_X87) || (value & ~XCR0_SUPPORTED))
        return raise_error(cpu, VECTOR_GP, 0);
    cpu->xcr0 = value;
    return exec_end_system(cpu, in);
}

// --- Random numbers: a deterministic sequence (splitmix64) from the configured seed ---

static uint64_t next_random(struct cpu *cpu)
{
    uint64_t z = cpu->random_state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static enum exec_result random_number(struct cpu *cpu, const struct insn *in, enum cpu_feature feature,
                                      enum intercept what)
{
    exec_begin_system(cpu, in);
    if (!cpu_has(cpu, feature))
        return raise_exception(cpu, VECTOR_UD);
    enum exec_result r = exec_intercept(cpu, in, what, 0);
    if (r != EXEC_NEXT)
        return r;
    reg_write(cpu, in->rm, insn_size(in), next_random(cpu));
    flags_set_arithmetic(cpu, RFLAGS_CF);
    return exec_end_system(cpu, in);
}

enum exec_result exec_rdrand(struct cpu *cpu, const struct insn *in)
{
    return random_number(cpu, in, FEATURE_RDRAND, INTERCEPT_RDRAND);
}
enum exec_result exec_rdseed(struct cpu *cpu, const struct insn *in)
{
    return random_number(cpu, in, FEATURE_RDSEED, INTERCEPT_RDSEED);
}

// --- Segment bases ---

enum exec_result exec_swapgs(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    if (!cpu_64bit(cpu))
        return raise_exception(cpu, VECTOR_UD);
    if (cpu->cpl != 0)
        return raise_error(cpu, VECTOR_GP, 0);
    uint64_t base = cpu->segments[SEG_GS].base;
    cpu->segments[SEG_GS].base = cpu->segment_base[SEG_GS] = cpu->kernel_gs_base;
    cpu->kernel_gs_base = base;
    return exec_end_system(cpu, in);
}

static enum exec_result read_base(struct cpu *cpu, const struct insn *in, enum segment_register s)
{
    exec_begin_system(cpu, in);
    if (!cpu_64bit(cpu) || !(cpu->cr4 & CR4_FSGSBASE))
        return raise_exception(cpu, VECTOR_UD);
    reg_write(cpu, in->rm, insn_size(in), cpu->segments[s].base);
    return exec_end_system(cpu, in);
}

static enum exec_result write_base(struct cpu *cpu, const struct insn *in, enum segment_register s)
{
    exec_begin_system(cpu, in);
    if (!cpu_64bit(cpu) || !(cpu->cr4 & CR4_FSGSBASE))
        return raise_exception(cpu, VECTOR_UD);
    uint64_t base = reg_read(cpu, in->rm, insn_size(in));
    if (!is_canonical(base, cpu->profile->linear_width))
        return raise_error(cpu, VECTOR_GP, 0);
    cpu->segments[s].base = cpu->segment_base[s] = base;
    return exec_end_system(cpu, in);
}

enum exec_result exec_rdfsbase(struct cpu *cpu, const struct insn *in) { return read_base(cpu, in, SEG_FS); }
enum exec_result exec_rdgsbase(struct cpu *cpu, const struct insn *in) { return read_base(cpu, in, SEG_GS); }
enum exec_result exec_wrfsbase(struct cpu *cpu, const struct insn *in) { return write_base(cpu, in, SEG_FS); }
enum exec_result exec_wrgsbase(struct cpu *cpu, const struct insn *in) { return write_base(cpu, in, SEG_GS); }

// --- Undefined, and VMX ---

static enum exec_result undefined(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    return raise_exception(cpu, VECTOR_UD);
}

enum exec_result exec_ud(struct cpu *cpu, const struct insn *in) { return undefined(cpu, in); }
// There is no SMM to resume from, and CR4.SMXE cannot be set.
enum exec_result exec_rsm(struct cpu *cpu, const struct insn *in) { return undefined(cpu, in); }
enum exec_result exec_getsec(struct cpu *cpu, const struct insn *in) { return undefined(cpu, in); }

enum exec_result exec_vmx(struct cpu *cpu, const struct insn *in)
{
    if (!cpu->vmx_ops)
        return undefined(cpu, in);
    return cpu->vmx_ops->instruction(cpu, in); // begins the instruction itself
}
