// Processor state: RESET and INIT values, and what derives from the control registers, the segments and RFLAGS.
//
// SDM 3A 10.1.1 "Processor State After Reset", table 10-1. Leaves out the built-in self-test (EAX is 0).
#include <string.h>

#include "base/assert.h"
#include "cpu/block.h"
#include "cpu/descriptor.h"
#include "cpu/exec.h"
#include "cpu/msr.h"
#include "cpu/profile.h"
#include "cpu/system.h"

// RFLAGS bits that exist.
#define RFLAGS_DEFINED                                                                                         \
    (RFLAGS_ARITHMETIC | RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_IOPL | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM | \
     RFLAGS_AC | RFLAGS_VIF | RFLAGS_VIP | RFLAGS_ID)

enum {
    RESET_DATA_RIGHTS = 0x93, // present, read/write, accessed
    RESET_CODE_RIGHTS = 0x9B,
    RESET_LDTR_RIGHTS = 0x82,
    RESET_TR_RIGHTS = 0x8B, // busy 32-bit TSS
    RESET_MXCSR = 0x1F80,
    RESET_FPU_CONTROL = 0x40,
    RESET_FPU_TAG = 0x5555,
};

bool cpu_init(struct cpu *cpu, struct bus *bus, const struct cpu_profile *profile, unsigned id)
{
    memset(cpu, 0, sizeof(*cpu));
    cpu->bus = bus;
    cpu->memory = bus->memory;
    cpu->profile = profile;
    cpu->id = id;
    mmu_init(&cpu->mmu, bus, profile->maxphyaddr);
    cpu->mmu.page_1g = cpu_has(cpu, FEATURE_PAGE1GB);
    cpu->blocks = block_cache_create(cpu->memory, &cpu->mmu);
    if (!cpu->blocks)
        return false;
    cpu->addr_mask[0] = cpu->addr_mask[1] = 0xFFFF;
    cpu->addr_mask[2] = 0xFFFFFFFF;
    cpu->addr_mask[3] = ~(uint64_t)0;
    cpu_reset(cpu, false);
    return true;
}

void cpu_destroy(struct cpu *cpu)
{
    if (cpu->blocks)
        block_cache_destroy(cpu->blocks);
    cpu->blocks = NULL;
}

static void reset_segments(struct cpu *cpu)
{
    for (unsigned s = 0; s < SEG_COUNT; s++)
        cpu->segments[s] = (struct segment){.limit = 0xFFFF, .access_rights = RESET_DATA_RIGHTS};
    cpu->segments[SEG_CS] =
        (struct segment){.selector = 0xF000, .base = 0xFFFF0000, .limit = 0xFFFF, .access_rights = RESET_CODE_RIGHTS};
    cpu->segments[SEG_LDTR].access_rights = RESET_LDTR_RIGHTS;
    cpu->segments[SEG_TR].access_rights = RESET_TR_RIGHTS;
    cpu->gdtr = cpu->idtr = (struct descriptor_table){.limit = 0xFFFF};
}

// What RESET sets and INIT leaves alone: x87, XMM, MSRs, TSC.
static void reset_persistent(struct cpu *cpu)
{
    memset(cpu->xmm, 0, sizeof(cpu->xmm));
    memset(&cpu->fpu, 0, sizeof(cpu->fpu));
    cpu->fpu.control = RESET_FPU_CONTROL;
    cpu->fpu.tag = RESET_FPU_TAG;
    cpu->mxcsr = RESET_MXCSR;
    cpu->xcr0 = 1;
    msr_reset(cpu);
    cpu->tsc_offset = -(int64_t)cpu_now(cpu);
    cpu->debugctl = 0;
}

void cpu_reset(struct cpu *cpu, bool init_signal)
{
    uint64_t cache_bits = init_signal ? cpu->cr0 & (CR0_CD | CR0_NW) : CR0_CD | CR0_NW;
    memset(cpu->regs, 0, sizeof(cpu->regs));
    cpu->regs[REG_RDX] = cpu->profile->signature;
    cpu->regs[REG_RIP] = 0xFFF0;
    cpu->cr0 = CR0_ET | cache_bits;
    cpu->cr2 = cpu->cr3 = cpu->cr4 = 0;
    cpu->efer = 0;
    memset(cpu->dr, 0, sizeof(cpu->dr));
    cpu->dr6 = 0xFFFF0FF0;
    cpu_write_dr7(cpu, 0x400);
    reset_segments(cpu);
    if (!init_signal)
        reset_persistent(cpu);
    cpu->block = NULL;
    cpu->interruptibility = 0;
    cpu->pending_debug = 0;
    cpu->repeating = false;
    cpu->monitor_armed = false;
    cpu->non_root = false;
    cpu->vmx_operation = false;
    cpu->intercepts = 0;
    cpu->pending &= PENDING_STOP;
    cpu->interrupt_parked = true;
    // The processor with APIC ID 0 is the bootstrap processor.
    cpu->activity = cpu->id == 0 ? ACTIVITY_ACTIVE : ACTIVITY_WAIT_FOR_SIPI;
    if (!init_signal)
        mmu_reset(&cpu->mmu);
    else
        mmu_invalidate_everything(&cpu->mmu);
    cpu->rflags_system = RFLAGS_ONE;
    flags_set_arithmetic(cpu, 0);
    cpu_update_mode(cpu);
}

uint64_t cpu_rflags(const struct cpu *cpu) { return cpu->rflags_system | flags_arithmetic(cpu); }

static enum mmu_mode explicit_mode(const struct cpu *cpu)
{
    if (cpu->cpl == 3)
        return MMU_USER;
    return cpu->rflags_system & RFLAGS_AC ? MMU_SUPERVISOR_AC : MMU_SUPERVISOR;
}

// Pending work that follows from RFLAGS.
static void update_pending_flags(struct cpu *cpu)
{
    if (cpu->rflags_system & RFLAGS_TF)
        cpu->pending |= PENDING_SINGLE_STEP;
    else
        cpu->pending &= ~(uint32_t)PENDING_SINGLE_STEP;
}

void cpu_set_rflags(struct cpu *cpu, uint64_t rflags)
{
    uint32_t old = cpu->rflags_system;
    uint32_t system = ((uint32_t)(rflags & RFLAGS_DEFINED) & ~(uint32_t)RFLAGS_ARITHMETIC) | (uint32_t)RFLAGS_ONE;
    cpu->rflags_system = system;
    flags_set_arithmetic(cpu, rflags & RFLAGS_ARITHMETIC);
    update_pending_flags(cpu);
    if (system & RFLAGS_RF)
        cpu->pending |= PENDING_INHIBIT;
    if (cpu->non_root && (~old & system & RFLAGS_IF))
        cpu->pending |= PENDING_VMX; // an interrupt window may have opened
    if (((old ^ system) & RFLAGS_VM) || (((old ^ system) & RFLAGS_AC) && cpu->cpl == 3)) {
        cpu_update_mode(cpu);
        return;
    }
    if ((old ^ system) & RFLAGS_AC)
        mmu_set_mode(&cpu->mmu, explicit_mode(cpu));
    if (unlikely(cpu->interrupt_parked) && (system & RFLAGS_IF))
        interrupt_recheck(cpu);
}

void interrupt_recheck(struct cpu *cpu)
{
    cpu->interrupt_parked = false;
    if (cpu->env.interrupt_pending && cpu->env.interrupt_pending(cpu->env.owner))
        cpu->pending |= PENDING_INTERRUPT;
}

// Base 0, 4 GiB, and permitting reads (and writes).
static bool segment_is_flat(const struct segment *s, bool writable)
{
    if (s->base != 0 || s->limit != 0xFFFFFFFF ||
        (s->access_rights & (SEGMENT_UNUSABLE | SEGMENT_P | SEGMENT_S)) != (SEGMENT_P | SEGMENT_S))
        return false;
    if (s->access_rights & TYPE_CODE)
        return !writable && (s->access_rights & TYPE_READABLE);
    return !(s->access_rights & TYPE_EXPAND_DOWN) && (!writable || (s->access_rights & TYPE_WRITABLE));
}

static unsigned code_mode(const struct cpu *cpu)
{
    const struct segment *cs = &cpu->segments[SEG_CS], *ss = &cpu->segments[SEG_SS];
    bool watched = debug_watches_data(cpu) || cpu_checks_alignment(cpu);
    if (cpu_long_mode(cpu) && (cs->access_rights & SEGMENT_L))
        return MODE_CODE64 | MODE_STACK64 | (watched ? 0 : MODE_FLAT);
    unsigned mode = cs->access_rights & SEGMENT_DB ? MODE_CODE32 : MODE_CODE16;
    if (ss->access_rights & SEGMENT_DB)
        mode |= MODE_STACK32;
    if (!(cpu->cr0 & CR0_PE) || cpu_v8086(cpu))
        mode |= MODE_REAL;
    bool flat = segment_is_flat(cs, !(cpu->cr0 & CR0_PE) && !(cs->access_rights & TYPE_CODE)) &&
                segment_is_flat(ss, true) && segment_is_flat(&cpu->segments[SEG_DS], true) &&
                segment_is_flat(&cpu->segments[SEG_ES], true);
    if (flat && !watched)
        mode |= MODE_FLAT;
    return mode;
}

void cpu_update_mode(struct cpu *cpu)
{
    if (!(cpu->cr0 & CR0_PE))
        cpu->cpl = 0;
    else if (cpu_v8086(cpu))
        cpu->cpl = 3;
    else
        cpu->cpl = (cpu->segments[SEG_SS].access_rights & SEGMENT_DPL) >> SEGMENT_DPL_SHIFT;

    cpu->mode = (cpu->mode & MODE_SINGLE) | code_mode(cpu);
    bool code64 = cpu_64bit(cpu);
    cpu->rip_mask =
        code64 ? ~(uint64_t)0 : 0xFFFFFFFF; // in 16-bit code too: EIP passes FFFFH; only branches cut it off
    for (unsigned s = 0; s < SEG_COUNT; s++)
        cpu->segment_base[s] = code64 && s < SEG_FS ? 0 : cpu->segments[s].base;

    if (cpu->mmu.cr0 != cpu->cr0 || cpu->mmu.cr3 != cpu->cr3 || cpu->mmu.cr4 != cpu->cr4 || cpu->mmu.efer != cpu->efer)
        mmu_set_control(&cpu->mmu, cpu->cr0, cpu->cr3, cpu->cr4, cpu->efer);
    mmu_set_mode(&cpu->mmu, explicit_mode(cpu));
    update_pending_flags(cpu);
    if (unlikely(cpu->interrupt_parked))
        interrupt_recheck(cpu);
}

void cpu_load_control_registers(struct cpu *cpu, uint64_t cr0, uint64_t cr3, uint64_t cr4, uint64_t efer)
{
    cpu->cr0 = cr0;
    cpu->cr3 = cr3;
    cpu->cr4 = cr4;
    cpu->efer = efer;
    mmu_set_control(&cpu->mmu, cr0, cr3, cr4, efer);
}
