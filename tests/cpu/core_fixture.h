// A bare processor in 64-bit mode with identity paging, for tests and measurements of the execution core.
//
// Memory: 64 MiB. Page tables from 1000H to 13FFFH (2-MByte pages, or 4-KByte pages of the first 32 MiB), code at CODE,
// data from DATA, a stack below STACK_TOP.
#ifndef VMXON_TESTS_CORE_FIXTURE_H
#define VMXON_TESTS_CORE_FIXTURE_H

#include <stdlib.h>
#include <string.h>

#include "cpu/block.h"
#include "cpu/exec.h"
#include "cpu/profile.h"
#include "cpu/system.h"

enum {
    CORE_MEMORY = 64 << 20,
    CORE_TABLES = 0x1000,
    CORE_CODE = 0x100000,
    CORE_STACK_TOP = 0x200000,
    CORE_DATA = 0x400000,
};

struct core {
    struct memory memory;
    struct bus bus;
    struct cpu cpu;
};

static inline void core_poke(struct core *core, hpa_t address, const void *bytes, size_t size)
{
    memory_write(&core->memory, address, bytes, size);
}

// 4-level tables that map the low 1 GiB to itself, or with 4-KByte pages the low 32 MiB.
static inline void core_map(struct core *core, bool small_pages)
{
    const uint64_t rights = 7;
    uint64_t *pml4 = (uint64_t *)(core->memory.ram + CORE_TABLES), *pdpt = pml4 + 512, *pd = pml4 + 1024,
             *pt = pml4 + 1536;
    pml4[0] = (CORE_TABLES + 0x1000) | rights;
    pdpt[0] = (CORE_TABLES + 0x2000) | rights;
    for (uint64_t i = 0; i < 512; i++)
        pd[i] = i << 21 | rights | 0x80;
    for (uint64_t i = 0; small_pages && i < 16; i++) {
        pd[i] = (CORE_TABLES + 0x3000 + i * 0x1000) | rights;
        for (uint64_t k = 0; k < 512; k++)
            pt[i * 512 + k] = (i << 21 | k << 12) | rights;
    }
}

static inline void core_segments(struct cpu *cpu, uint32_t code_rights, uint32_t data_rights)
{
    for (unsigned s = 0; s < SEG_LDTR; s++)
        cpu->segments[s] = (struct segment){.limit = 0xFFFFFFFF, .access_rights = data_rights, .selector = 0x10};
    cpu->segments[SEG_CS] = (struct segment){.limit = 0xFFFFFFFF, .access_rights = code_rights, .selector = 0x08};
}

static inline void core_long_mode(struct core *core, bool small_pages)
{
    struct cpu *cpu = &core->cpu;
    core_map(core, small_pages);
    core_segments(cpu, 0xA09B, 0xC093);
    cpu_load_control_registers(cpu, CR0_PE | CR0_PG | CR0_ET | CR0_NE | CR0_WP, CORE_TABLES, CR4_PAE | CR4_OSFXSR,
                               EFER_LME | EFER_LMA | EFER_NXE);
    cpu_update_mode(cpu);
}

static inline struct core *core_create(void)
{
    struct core *core = calloc(1, sizeof(*core));
    unsigned count;
    if (!core || memory_create(&core->memory, CORE_MEMORY) != MEMORY_OK)
        abort();
    bus_init(&core->bus, &core->memory);
    if (!cpu_init(&core->cpu, &core->bus, cpu_profiles(&count), 0))
        abort();
    core_long_mode(core, false);
    core->cpu.regs[REG_RIP] = CORE_CODE;
    core->cpu.regs[REG_RSP] = CORE_STACK_TOP;
    return core;
}

static inline void core_destroy(struct core *core)
{
    cpu_destroy(&core->cpu);
    memory_destroy(&core->memory);
    free(core);
}

#endif
