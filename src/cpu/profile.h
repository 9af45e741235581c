// Processor profiles: which model of processor the vCPU is. Rows in profiles.def; features in cpu_features.def.
#ifndef VMXON_CPU_PROFILE_H
#define VMXON_CPU_PROFILE_H

#include "base/types.h"

// Generations in the order of their features; a feature is there in its generation and all later ones.
enum cpu_generation { GENERATION_SKYLAKE, GENERATION_ICELAKE, GENERATION_NEVER };

struct cpu_profile {
    const char *name;        // as given to --cpu
    const char *description; // one line
    const char *brand;       // brand string, at most 47 characters
    enum cpu_generation generation;
    uint32_t signature;    // CPUID.1:EAX: family, model, stepping
    unsigned maxphyaddr;   // bits
    unsigned linear_width; // bits: 48
    unsigned base_mhz;     // nominal frequency; the TSC counts at it
    unsigned max_mhz;
    unsigned crystal_hz; // CPUID.15H:ECX
};

// The profile of a name, or NULL.
const struct cpu_profile *cpu_profile_find(const char *name);
// All profiles, `*count` of them.
const struct cpu_profile *cpu_profiles(unsigned *count);

#endif
