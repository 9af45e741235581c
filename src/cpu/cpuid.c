// CPUID: the leaves of a profile, derived from cpu_features.def.
//
// SDM 2A CPUID. Leaves that report what is not modelled (performance monitoring, RDT, SGX, processor trace) are zero.
#include <string.h>

#include "cpu/exec.h"
#include "cpu/handlers.h"
#include "cpu/msr.h"
#include "cpu/profile.h"
#include "cpu/system.h"

enum cpuid_register { REGISTER_EAX, REGISTER_EBX, REGISTER_ECX, REGISTER_EDX };

struct feature {
    uint32_t leaf;
    uint8_t subleaf;
    uint8_t reg; // enum cpuid_register
    uint8_t bit;
    uint8_t since; // enum cpu_generation
};

static const struct feature features[FEATURE_COUNT] = {
#define FEATURE(name, leaf, subleaf, reg, bit, since, title) {leaf, subleaf, REGISTER_##reg, bit, GENERATION_##since},
#include "cpu/cpu_features.def"
#undef FEATURE
};

static const struct cpu_profile profiles[] = {
#define PROFILE(name, generation, signature, maxphyaddr, linear_width, base_mhz, max_mhz, crystal_hz, brand, \
                description)                                                                                 \
    {name,     description, brand,     GENERATION_##generation, signature, maxphyaddr, linear_width,         \
     base_mhz, max_mhz,     crystal_hz},
#include "cpu/profiles.def"
#undef PROFILE
};

enum {
    MAX_BASIC_LEAF = 0x16,
    LIMITED_BASIC_LEAF = 2, // with IA32_MISC_ENABLE bit 22
    XSAVE_AREA_SIZE = 576,  // legacy region and header; no further components
    OSXSAVE_BIT = 27,
    APIC_BIT = 9,
    HTT_BIT = 28,
    MONITOR_BIT = 3,
    NX_BIT = 20,
};
#define MISC_ENABLE_MONITOR     BIT(18)
#define MISC_ENABLE_LIMIT_CPUID BIT(22)
#define MISC_ENABLE_XD_DISABLE  BIT(34)

const struct cpu_profile *cpu_profile_find(const char *name)
{
    for (size_t i = 0; i < sizeof(profiles) / sizeof(profiles[0]); i++)
        if (!strcmp(profiles[i].name, name))
            return &profiles[i];
    return NULL;
}

const struct cpu_profile *cpu_profiles(unsigned *count)
{
    *count = (unsigned)(sizeof(profiles) / sizeof(profiles[0]));
    return profiles;
}

bool cpu_has(const struct cpu *cpu, enum cpu_feature feature)
{
    return features[feature].since <= cpu->profile->generation;
}

static uint32_t feature_bits(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf, enum cpuid_register reg)
{
    uint32_t bits = 0;
    for (unsigned i = 0; i < FEATURE_COUNT; i++)
        if (features[i].leaf == leaf && features[i].subleaf == subleaf && features[i].reg == reg &&
            cpu_has(cpu, (enum cpu_feature)i))
            bits |= (uint32_t)1 << features[i].bit;
    return bits;
}

static unsigned package_cpus(const struct cpu *cpu) { return cpu->package_cpus ? cpu->package_cpus : 1; }

// Bits of the APIC ID below the package: ceil(log2(vCPUs)).
static unsigned package_shift(const struct cpu *cpu)
{
    unsigned shift = 0;
    while ((1u << shift) < package_cpus(cpu))
        shift++;
    return shift;
}

static void leaf_signature(const struct cpu *cpu, struct cpuid_result *r)
{
    r->eax = cpu->profile->signature;
    r->ebx = cpu->id << 24 | package_cpus(cpu) << 16 | 8 << 8; // CLFLUSH line: 8 quadwords
    if (cpu->cr4 & CR4_OSXSAVE)
        r->ecx |= (uint32_t)1 << OSXSAVE_BIT;
    if (package_cpus(cpu) > 1)
        r->edx |= (uint32_t)1 << HTT_BIT;
    if (!(cpu->misc_enable & MISC_ENABLE_MONITOR))
        r->ecx &= ~((uint32_t)1 << MONITOR_BIT);
    uint64_t apic_base = BIT(11);
    if (cpu->env.apic_rdmsr && cpu->env.apic_rdmsr(cpu->env.owner, 0x1B, &apic_base) && !(apic_base & BIT(11)))
        r->edx &= ~((uint32_t)1 << APIC_BIT);
}

// Leaf 4, deterministic cache parameters: L1D 32K/8, L1I 32K/8, L2 256K/4, L3 8M/16, lines of 64 bytes.
static void leaf_caches(const struct cpu *cpu, uint32_t subleaf, struct cpuid_result *r)
{
    static const struct {
        uint32_t type, level, ways, sets, edx;
        bool shared;
    } cache[4] = {
        {1, 1, 8, 64, 0, false},
        {2, 1, 8, 64, 0, false},
        {3, 2, 4, 1024, 0, false},
        {3, 3, 16, 8192, 6, true},
    };
    if (subleaf >= 4)
        return;
    unsigned package = (1u << package_shift(cpu)) - 1;
    r->eax = cache[subleaf].type | cache[subleaf].level << 5 | BIT(8) | (cache[subleaf].shared ? package << 14 : 0) |
             package << 26;
    r->ebx = (cache[subleaf].ways - 1) << 22 | 63;
    r->ecx = cache[subleaf].sets - 1;
    r->edx = cache[subleaf].edx;
}

static void leaf_topology(const struct cpu *cpu, uint32_t subleaf, struct cpuid_result *r)
{
    r->ecx = subleaf & 0xFF;
    r->edx = cpu->id;
    if (subleaf == 0) {
        r->ebx = 1;
        r->ecx |= 1 << 8;
    } else if (subleaf == 1) {
        r->eax = package_shift(cpu);
        r->ebx = package_cpus(cpu);
        r->ecx |= 2 << 8;
    }
}

static void leaf_xsave(uint32_t subleaf, struct cpuid_result *r)
{
    if (subleaf == 0)
        *r = (struct cpuid_result){.eax = 3, .ebx = XSAVE_AREA_SIZE, .ecx = XSAVE_AREA_SIZE};
    else if (subleaf == 1)
        r->ebx = XSAVE_AREA_SIZE;
}

static void leaf_brand(const struct cpu *cpu, uint32_t leaf, struct cpuid_result *r)
{
    char brand[48] = {0};
    memcpy(brand, cpu->profile->brand, strnlen(cpu->profile->brand, sizeof(brand) - 1));
    memcpy(r, brand + (leaf - 0x80000002) * 16, 16);
}

void cpuid_read(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf, struct cpuid_result *result)
{
    const struct cpu_profile *profile = cpu->profile;
    // A leaf above the maximum gives the data of the highest basic leaf.
    uint32_t maximum = cpu->misc_enable & MISC_ENABLE_LIMIT_CPUID ? LIMITED_BASIC_LEAF : MAX_BASIC_LEAF;
    if ((leaf > maximum && leaf < 0x80000000) || leaf > 0x80000008)
        leaf = maximum;
    struct cpuid_result r = {
        .eax = feature_bits(cpu, leaf, subleaf, REGISTER_EAX),
        .ebx = feature_bits(cpu, leaf, subleaf, REGISTER_EBX),
        .ecx = feature_bits(cpu, leaf, subleaf, REGISTER_ECX),
        .edx = feature_bits(cpu, leaf, subleaf, REGISTER_EDX),
    };
    switch (leaf) {
    case 0:
        r = (struct cpuid_result){
            .eax = maximum, .ebx = 0x756E6547, .ecx = 0x6C65746E, .edx = 0x49656E69}; // GenuineIntel
        break;
    case 1:
        // The subleaf is not looked at.
        r.ecx = feature_bits(cpu, 1, 0, REGISTER_ECX);
        r.edx = feature_bits(cpu, 1, 0, REGISTER_EDX);
        leaf_signature(cpu, &r);
        break;
    case 2: r = (struct cpuid_result){.eax = 0x76036301, .ebx = 0x00F0B5FF, .edx = 0x00C30000}; break;
    case 4: leaf_caches(cpu, subleaf, &r); break;
    case 5:
        r = (struct cpuid_result){.eax = 64, .ebx = 64, .ecx = 3, .edx = 0x20}; // monitor line; C1 has two sub-states
        break;
    case 6: r.eax = feature_bits(cpu, 6, 0, REGISTER_EAX); break;
    case 0xB: leaf_topology(cpu, subleaf, &r); break;
    case 0xD:
        leaf_xsave(subleaf, &r);
        if (subleaf == 1)
            r.eax = feature_bits(cpu, 0xD, 1, REGISTER_EAX);
        break;
    case 0x15:
        r.eax = 2;
        r.ebx = (uint32_t)(((uint64_t)profile->base_mhz * 2000000 + profile->crystal_hz / 2) / profile->crystal_hz);
        r.ecx = profile->crystal_hz;
        break;
    case 0x16:
        r = (struct cpuid_result){.eax = profile->base_mhz / 100 * 100, .ebx = profile->max_mhz, .ecx = 100};
        break;
    case 0x80000000: r.eax = 0x80000008; break;
    case 0x80000001:
        r.ecx = feature_bits(cpu, leaf, 0, REGISTER_ECX);
        r.edx = feature_bits(cpu, leaf, 0, REGISTER_EDX);
        if (cpu->misc_enable & MISC_ENABLE_XD_DISABLE)
            r.edx &= ~((uint32_t)1 << NX_BIT);
        if (!cpu_64bit(cpu))
            r.edx &= ~((uint32_t)1 << 11); // SYSCALL is reported in 64-bit mode only
        break;
    case 0x80000002:
    case 0x80000003:
    case 0x80000004: leaf_brand(cpu, leaf, &r); break;
    case 0x80000006:
        r.ecx = 0x01006040; // L2: 256 KBytes, lines of 64 bytes
        break;
    case 0x80000007: r.edx = feature_bits(cpu, leaf, 0, REGISTER_EDX); break;
    case 0x80000008: r.eax = profile->linear_width << 8 | profile->maxphyaddr; break;
    default: break;
    }
    *result = r;
}

enum exec_result exec_cpuid(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    enum exec_result r = exec_intercept(cpu, in, INTERCEPT_CPUID, 0);
    if (r != EXEC_NEXT)
        return r;
    struct cpuid_result result;
    cpuid_read(cpu, (uint32_t)cpu->regs[REG_RAX], (uint32_t)cpu->regs[REG_RCX], &result);
    if ((uint32_t)cpu->regs[REG_RAX] == 1)
        cpu->bios_sign_id = MICROCODE_REVISION;
    cpu->regs[REG_RAX] = result.eax;
    cpu->regs[REG_RBX] = result.ebx;
    cpu->regs[REG_RCX] = result.ecx;
    cpu->regs[REG_RDX] = result.edx;
    return exec_end_system(cpu, in);
}
