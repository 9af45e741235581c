// RDMSR, WRMSR and what is behind them: msrs.def, the time-stamp counter, EFER, MTRRs and PAT.
//
// SDM 4 ch. 2; SDM 3A 12.11 "Memory Type Range Registers", 12.12 "Page Attribute Table"; SDM 3B 18.17 "Time-Stamp Counter". Memory
// types are stored, but have no effect.
#include <stddef.h>

#include "base/assert.h"
#include "cpu/descriptor.h"
#include "cpu/handlers.h"
#include "cpu/msr.h"
#include "cpu/profile.h"
#include "cpu/system.h"

enum {
    MSR_TIME_STAMP_COUNTER = 0x10,
    MSR_X2APIC_FIRST = 0x800,
    MSR_X2APIC_LAST = 0x8FF,
};

// Fast strings, BTS and PEBS unavailable, MONITOR. Writable: those that the CPUID leaves here follow from, and inert ones.
#define MISC_ENABLE_RESET      (BIT(0) | BIT(11) | BIT(12) | BIT(18))
#define MISC_ENABLE_WRITABLE   (BIT(0) | BIT(3) | BIT(16) | BIT(18) | BIT(22) | BIT(23) | BIT(34) | BIT(38))
#define MTRR_DEF_TYPE_WRITABLE (BITS(7, 0) | BIT(10) | BIT(11))

// --- Checks of values ---

static bool check_canonical(const struct cpu *cpu, uint64_t value)
{
    return is_canonical(value, cpu->profile->linear_width);
}

// UC, WC, WT, WP, WB.
static bool mtrr_type_valid(uint64_t type) { return type == 0 || type == 1 || (type >= 4 && type <= 6); }

static bool check_mtrr_types(const struct cpu *cpu, uint64_t value)
{
    (void)cpu;
    for (unsigned i = 0; i < 8; i++)
        if (!mtrr_type_valid(value >> (8 * i) & 0xFF))
            return false;
    return true;
}

static bool check_mtrr_base(const struct cpu *cpu, uint64_t value)
{
    return mtrr_type_valid(value & 0xFF) && !(value & BITS(11, 8)) && !(value >> cpu->profile->maxphyaddr);
}

static bool check_mtrr_mask(const struct cpu *cpu, uint64_t value)
{
    return !(value & BITS(10, 0)) && !(value >> cpu->profile->maxphyaddr);
}

static bool check_mtrr_def_type(const struct cpu *cpu, uint64_t value)
{
    (void)cpu;
    return mtrr_type_valid(value & 0xFF) && !(value & ~MTRR_DEF_TYPE_WRITABLE);
}

static bool check_pat(const struct cpu *cpu, uint64_t value)
{
    (void)cpu;
    for (unsigned i = 0; i < 8; i++) {
        uint64_t type = value >> (8 * i) & 0xFF;
        if (type != 7 && !mtrr_type_valid(type)) // 7 is UC-
            return false;
    }
    return true;
}

// --- Time-stamp counter ---

uint64_t cpu_tsc(const struct cpu *cpu) { return cpu_now(cpu) + (uint64_t)cpu->tsc_offset; }

static bool read_tsc(struct cpu *cpu, uint32_t index, uint64_t *value)
{
    (void)index;
    *value = cpu_tsc(cpu);
    return true;
}

// Moves the counter; IA32_TSC_ADJUST follows it (SDM 3B 18.17.3).
static void move_tsc(struct cpu *cpu, uint64_t delta)
{
    cpu->tsc_offset = (int64_t)((uint64_t)cpu->tsc_offset + delta);
    cpu->tsc_adjust += delta;
    if (cpu->env.rescheduled) // a TSC deadline may be nearer now
        cpu->env.rescheduled(cpu->env.owner);
}

static bool write_tsc(struct cpu *cpu, uint32_t index, uint64_t value)
{
    (void)index;
    move_tsc(cpu, value - cpu_tsc(cpu));
    return true;
}

static bool read_tsc_adjust(struct cpu *cpu, uint32_t index, uint64_t *value)
{
    (void)index;
    *value = cpu->tsc_adjust;
    return cpu_has(cpu, FEATURE_TSC_ADJUST);
}

static bool write_tsc_adjust(struct cpu *cpu, uint32_t index, uint64_t value)
{
    (void)index;
    if (!cpu_has(cpu, FEATURE_TSC_ADJUST))
        return false;
    move_tsc(cpu, value - cpu->tsc_adjust);
    return true;
}

// --- Owned by the local APIC and by VMX ---

static bool read_apic(struct cpu *cpu, uint32_t index, uint64_t *value)
{
    return cpu->env.apic_rdmsr && cpu->env.apic_rdmsr(cpu->env.owner, index, value);
}

static bool write_apic(struct cpu *cpu, uint32_t index, uint64_t value)
{
    return cpu->env.apic_wrmsr && cpu->env.apic_wrmsr(cpu->env.owner, index, value);
}

static bool read_vmx(struct cpu *cpu, uint32_t index, uint64_t *value)
{
    return cpu->vmx_ops && cpu->vmx_ops->rdmsr(cpu, index, value);
}

static bool write_vmx(struct cpu *cpu, uint32_t index, uint64_t value)
{
    return cpu->vmx_ops && cpu->vmx_ops->wrmsr(cpu, index, value);
}

// --- Facts of the profile ---

static bool read_core_count(struct cpu *cpu, uint32_t index, uint64_t *value)
{
    (void)index;
    uint64_t count = cpu->package_cpus ? cpu->package_cpus : 1;
    *value = count << 16 | count;
    return true;
}

static bool write_core_count(struct cpu *cpu, uint32_t index, uint64_t value)
{
    (void)cpu, (void)index, (void)value;
    return false;
}

// Bits 15:8 the ratio of the TSC to 100 MHz, bits 47:40 the lowest ratio.
static bool read_platform_info(struct cpu *cpu, uint32_t index, uint64_t *value)
{
    (void)index;
    *value = (uint64_t)8 << 40 | (uint64_t)(cpu->profile->base_mhz / 100) << 8;
    return true;
}

static bool write_platform_info(struct cpu *cpu, uint32_t index, uint64_t value)
{
    (void)cpu, (void)index, (void)value;
    return false;
}

static bool read_perf_status(struct cpu *cpu, uint32_t index, uint64_t *value)
{
    (void)index;
    *value = (uint64_t)(cpu->profile->base_mhz / 100) << 8;
    return true;
}

static bool write_perf_status(struct cpu *cpu, uint32_t index, uint64_t value)
{
    (void)cpu, (void)index, (void)value;
    return false;
}

static bool read_turbo_ratio(struct cpu *cpu, uint32_t index, uint64_t *value)
{
    (void)index;
    *value = (uint64_t)(cpu->profile->max_mhz / 100) * 0x01010101;
    return true;
}

static bool write_turbo_ratio(struct cpu *cpu, uint32_t index, uint64_t value)
{
    (void)cpu, (void)index, (void)value;
    return false;
}

// Microcode updates are accepted and change nothing; the trigger cannot be read.
static bool read_microcode(struct cpu *cpu, uint32_t index, uint64_t *value)
{
    (void)cpu, (void)index, (void)value;
    return false;
}

static bool write_microcode(struct cpu *cpu, uint32_t index, uint64_t value)
{
    (void)cpu, (void)index, (void)value;
    return true;
}

// --- EFER and segment bases ---

uint64_t cpu_efer_reserved(const struct cpu *cpu)
{
    uint64_t allowed = 0;
    if (cpu_has(cpu, FEATURE_SYSCALL))
        allowed |= EFER_SCE;
    if (cpu_has(cpu, FEATURE_LM))
        allowed |= EFER_LME | EFER_LMA;
    if (cpu_has(cpu, FEATURE_NX) && !(cpu->misc_enable & BIT(34)))
        allowed |= EFER_NXE;
    return ~allowed;
}

static bool read_efer(struct cpu *cpu, uint32_t index, uint64_t *value)
{
    (void)index;
    *value = cpu->efer;
    return true;
}

static bool write_efer(struct cpu *cpu, uint32_t index, uint64_t value)
{
    (void)index;
    if (value & cpu_efer_reserved(cpu))
        return false;
    if (((value ^ cpu->efer) & EFER_LME) && (cpu->cr0 & CR0_PG))
        return false;
    cpu->efer = (value & ~EFER_LMA) | (cpu->efer & EFER_LMA); // LMA follows CR0.PG
    cpu_update_mode(cpu);
    return true;
}

static bool write_base(struct cpu *cpu, enum segment_register s, uint64_t value)
{
    if (!check_canonical(cpu, value))
        return false;
    cpu->segments[s].base = value;
    cpu->segment_base[s] = value;
    return true;
}

static bool read_fs_base(struct cpu *cpu, uint32_t index, uint64_t *value)
{
    (void)index;
    *value = cpu->segments[SEG_FS].base;
    return true;
}

static bool write_fs_base(struct cpu *cpu, uint32_t index, uint64_t value)
{
    (void)index;
    return write_base(cpu, SEG_FS, value);
}

static bool read_gs_base(struct cpu *cpu, uint32_t index, uint64_t *value)
{
    (void)index;
    *value = cpu->segments[SEG_GS].base;
    return true;
}

static bool write_gs_base(struct cpu *cpu, uint32_t index, uint64_t value)
{
    (void)index;
    return write_base(cpu, SEG_GS, value);
}

// --- The table ---

enum msr_kind { KIND_STORED, KIND_CHECKED, KIND_CONSTANT, KIND_IGNORED, KIND_SPECIAL };

struct msr {
    uint32_t index;
    uint32_t offset; // STORED, CHECKED: of the field in struct cpu
    enum msr_kind kind;
    const char *name;
    uint64_t writable;
    uint64_t value; // at RESET, or always
    bool (*check)(const struct cpu *cpu, uint64_t value);
    bool (*read)(struct cpu *cpu, uint32_t index, uint64_t *value);
    bool (*write)(struct cpu *cpu, uint32_t index, uint64_t value);
};

static const struct msr msrs[] = {
#define STORED(i, n, field, w, reset) \
    {.index = i, .name = #n, .kind = KIND_STORED, .offset = offsetof(struct cpu, field), .writable = w, .value = reset},
#define CHECKED(i, n, field, c, reset)      \
    {.index = i,                            \
     .name = #n,                            \
     .kind = KIND_CHECKED,                  \
     .offset = offsetof(struct cpu, field), \
     .check = check_##c,                    \
     .value = reset},
#define CONSTANT(i, n, v) {.index = i, .name = #n, .kind = KIND_CONSTANT, .value = v},
#define IGNORED(i, n, v)  {.index = i, .name = #n, .kind = KIND_IGNORED, .value = v},
#define SPECIAL(i, n, access) \
    {.index = i, .name = #n, .kind = KIND_SPECIAL, .read = read_##access, .write = write_##access},
#include "cpu/msrs.def"
#undef STORED
#undef CHECKED
#undef CONSTANT
#undef IGNORED
#undef SPECIAL
};

static const struct msr x2apic_msr = {
    .kind = KIND_SPECIAL, .name = "IA32_X2APIC", .read = read_apic, .write = write_apic};

static const struct msr *find(uint32_t index)
{
    if (index >= MSR_X2APIC_FIRST && index <= MSR_X2APIC_LAST)
        return &x2apic_msr;
    size_t low = 0, high = sizeof(msrs) / sizeof(msrs[0]);
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (msrs[middle].index == index)
            return &msrs[middle];
        if (msrs[middle].index < index)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static uint64_t *storage(struct cpu *cpu, const struct msr *msr) { return (uint64_t *)((char *)cpu + msr->offset); }

const char *msr_name(uint32_t index)
{
    const struct msr *msr = find(index);
    return msr ? msr->name : NULL;
}

void msr_reset(struct cpu *cpu)
{
    for (size_t i = 0; i < sizeof(msrs) / sizeof(msrs[0]); i++) {
        ASSERT(i == 0 || msrs[i - 1].index < msrs[i].index, "msrs.def is in ascending order");
        if (msrs[i].kind == KIND_STORED || msrs[i].kind == KIND_CHECKED)
            *storage(cpu, &msrs[i]) = msrs[i].value;
    }
    cpu->tsc_adjust = 0;
}

bool cpu_rdmsr(struct cpu *cpu, uint32_t index, uint64_t *value)
{
    const struct msr *msr = find(index);
    if (!msr)
        return false;
    switch (msr->kind) {
    case KIND_STORED:
    case KIND_CHECKED: *value = *storage(cpu, msr); return true;
    case KIND_CONSTANT:
    case KIND_IGNORED: *value = msr->value; return true;
    default: return msr->read(cpu, index, value);
    }
}

bool cpu_wrmsr(struct cpu *cpu, uint32_t index, uint64_t value)
{
    const struct msr *msr = find(index);
    if (!msr)
        return false;
    switch (msr->kind) {
    case KIND_STORED:
        if ((value ^ *storage(cpu, msr)) & ~msr->writable)
            return false;
        *storage(cpu, msr) = value;
        return true;
    case KIND_CHECKED:
        if (!msr->check(cpu, value))
            return false;
        *storage(cpu, msr) = value;
        return true;
    case KIND_CONSTANT: return false;
    case KIND_IGNORED: return true;
    default: return msr->write(cpu, index, value);
    }
}

enum exec_result exec_rdmsr(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    if (cpu->cpl != 0)
        return raise_error(cpu, VECTOR_GP, 0);
    enum exec_result r = exec_intercept(cpu, in, INTERCEPT_RDMSR, 0);
    if (r != EXEC_NEXT)
        return r;
    uint32_t index = (uint32_t)cpu->regs[REG_RCX];
    uint64_t value = 0;
    if (!cpu_rdmsr(cpu, index, &value))
        return raise_error(cpu, VECTOR_GP, 0);
    if (index == MSR_TIME_STAMP_COUNTER && cpu->non_root)
        value = cpu->vmx_ops->guest_tsc(cpu, value);
    cpu->regs[REG_RAX] = (uint32_t)value;
    cpu->regs[REG_RDX] = value >> 32;
    return exec_end_system(cpu, in);
}

enum exec_result exec_wrmsr(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    if (cpu->cpl != 0)
        return raise_error(cpu, VECTOR_GP, 0);
    enum exec_result r = exec_intercept(cpu, in, INTERCEPT_WRMSR, 0);
    if (r != EXEC_NEXT)
        return r;
    uint64_t value = cpu->regs[REG_RDX] << 32 | (uint32_t)cpu->regs[REG_RAX];
    if (!cpu_wrmsr(cpu, (uint32_t)cpu->regs[REG_RCX], value))
        return raise_error(cpu, VECTOR_GP, 0);
    return exec_end_system(cpu, in);
}
