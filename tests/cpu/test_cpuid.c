// CPUID against the feature table, and the leaves software reads.
#include "cpu_fixture.h"

enum { REGISTER_EAX, REGISTER_EBX, REGISTER_ECX, REGISTER_EDX };
static const struct {
    uint32_t leaf, subleaf;
    unsigned reg, bit, since;
    const char *name;
} features[] = {
#define FEATURE(name, leaf, subleaf, reg, bit, since, title) \
    {leaf, subleaf, REGISTER_##reg, bit, GENERATION_##since, #name},
#include "cpu/cpu_features.def"
#undef FEATURE
};
#define FEATURES (sizeof features / sizeof features[0])

static uint32_t cpuid_register(uint32_t leaf, uint32_t subleaf, unsigned reg)
{
    struct cpuid_result r;
    cpuid_read(cpu, leaf, subleaf, &r);
    return reg == REGISTER_EAX ? r.eax : reg == REGISTER_EBX ? r.ebx : reg == REGISTER_ECX ? r.ecx : r.edx;
}

START_TEST(features_are_reported_as_the_table_says)
{
    enter_long(0);
    for (unsigned i = 0; i < FEATURES; i++) {
        bool expected = features[i].since <= cpu->profile->generation;
        bool reported = cpuid_register(features[i].leaf, features[i].subleaf, features[i].reg) >> features[i].bit & 1;
        ck_assert_msg(expected == reported, "%s", features[i].name);
        ck_assert_msg(expected == cpu_has(cpu, (enum cpu_feature)i), "%s", features[i].name);
    }
}
END_TEST

START_TEST(what_is_not_implemented_is_not_advertised)
{
    ck_assert(!(cpuid_register(1, 0, REGISTER_ECX) & (BIT(28) | BIT(12) | BIT(6)))); // AVX, FMA, SMX
    ck_assert(!(cpuid_register(7, 0, REGISTER_EBX) &
                (BIT(4) | BIT(5) | BIT(11) | BIT(14) | BIT(2) | BIT(16)))); // HLE AVX2 RTM MPX SGX AVX512F
    ck_assert(!cpuid_register(0xA, 0, REGISTER_EAX));
    ck_assert(!cpuid_register(0x14, 0, REGISTER_EAX));
}
END_TEST

START_TEST(identity)
{
    struct cpuid_result r;
    cpuid_read(cpu, 0, 0, &r);
    ck_hex(r.eax, 0x16);
    ck_assert(!memcmp(&r.ebx, "Genu", 4) && !memcmp(&r.edx, "ineI", 4) && !memcmp(&r.ecx, "ntel", 4));
    ck_hex(cpuid_register(1, 0, REGISTER_EAX), 0x506E3);
    char brand[49] = {0};
    for (uint32_t i = 0; i < 3; i++) {
        cpuid_read(cpu, 0x80000002 + i, 0, &r);
        memcpy(brand + 16 * i, &r, 16);
    }
    ck_assert_str_eq(brand, cpu->profile->brand);
    ck_hex(cpuid_register(0x80000008, 0, REGISTER_EAX), 48 << 8 | 39);
}
END_TEST

START_TEST(osxsave_follows_cr4)
{
    ck_assert(!(cpuid_register(1, 0, REGISTER_ECX) & BIT(27)));
    cpu->cr4 |= CR4_OSXSAVE;
    ck_assert(cpuid_register(1, 0, REGISTER_ECX) & BIT(27));
}
END_TEST

START_TEST(leaves_beyond_the_maximum_give_the_highest_basic_leaf)
{
    struct cpuid_result a, b;
    cpuid_read(cpu, 0x16, 0, &a);
    cpuid_read(cpu, 0x40000000, 0, &b);
    ck_assert(!memcmp(&a, &b, sizeof a));
    cpuid_read(cpu, 0x80000009, 0, &b);
    ck_assert(!memcmp(&a, &b, sizeof a));
}
END_TEST

START_TEST(topology_of_several_processors)
{
    cpu->package_cpus = 3;
    cpu->id = 2;
    ck_hex(cpuid_register(1, 0, REGISTER_EBX) >> 16, 2 << 8 | 3);
    ck_assert(cpuid_register(1, 0, REGISTER_EDX) & BIT(28));
    ck_hex(cpuid_register(0xB, 0, REGISTER_EBX), 1);
    ck_hex(cpuid_register(0xB, 1, REGISTER_EAX), 2);
    ck_hex(cpuid_register(0xB, 1, REGISTER_EBX), 3);
    ck_hex(cpuid_register(0xB, 1, REGISTER_EDX), 2);
    ck_hex(cpuid_register(4, 3, REGISTER_EAX) >> 26, 3);
}
END_TEST

START_TEST(cache_leaf_ends)
{
    ck_hex(cpuid_register(4, 4, REGISTER_EAX) & 31, 0);
    uint32_t ebx = cpuid_register(4, 3, REGISTER_EBX), ecx = cpuid_register(4, 3, REGISTER_ECX);
    ck_assert_uint_eq(((ebx >> 22) + 1) * ((ebx & 0xFFF) + 1) * (ecx + 1), 8 << 20);
}
END_TEST

START_TEST(tsc_frequency_leaf_agrees_with_the_profile)
{
    uint64_t hz = (uint64_t)cpuid_register(0x15, 0, REGISTER_ECX) * cpuid_register(0x15, 0, REGISTER_EBX) /
                  cpuid_register(0x15, 0, REGISTER_EAX);
    ck_assert_uint_eq(hz / 1000000, cpu->profile->base_mhz);
}
END_TEST

START_TEST(syscall_is_reported_in_64_bit_mode_only)
{
    ck_assert(!(cpuid_register(0x80000001, 0, REGISTER_EDX) & BIT(11)));
    enter_long(0);
    ck_assert(cpuid_register(0x80000001, 0, REGISTER_EDX) & BIT(11));
}
END_TEST

START_TEST(instruction_clears_upper_halves)
{
    enter_long(3);
    cpu->regs[REG_RAX] = UINT64_C(0xFFFFFFFF00000001);
    cpu->regs[REG_RBX] = ~UINT64_C(0);
    code(0x0F, 0xA2);
    step();
    ck_hex(cpu->regs[REG_RAX], 0x506E3);
    ck_hex(cpu->regs[REG_RBX] >> 32, 0);
}
END_TEST

START_TEST(profiles_are_found_by_name)
{
    unsigned count;
    const struct cpu_profile *all = cpu_profiles(&count);
    for (unsigned i = 0; i < count; i++) {
        ck_assert_ptr_eq(cpu_profile_find(all[i].name), &all[i]);
        ck_assert(strlen(all[i].brand) < 48);
    }
    ck_assert_ptr_null(cpu_profile_find("no such processor"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu/cpuid");
#define T(name) add_test(suite, #name, name)
    T(features_are_reported_as_the_table_says);
    T(what_is_not_implemented_is_not_advertised);
    T(identity);
    T(osxsave_follows_cr4);
    T(leaves_beyond_the_maximum_give_the_highest_basic_leaf);
    T(topology_of_several_processors);
    T(cache_leaf_ends);
    T(tsc_frequency_leaf_agrees_with_the_profile);
    T(syscall_is_reported_in_64_bit_mode_only);
    T(instruction_clears_upper_halves);
    T(profiles_are_found_by_name);
    return run_suite(suite);
}
