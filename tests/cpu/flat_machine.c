#include "flat_machine.h"

#include <stdio.h>

#include "cpu/system.h"

enum { PAGE_TABLES = 0x30000 };

static void set_flat_segments(struct cpu *cpu, unsigned code_size)
{
    for (unsigned i = 0; i < SEG_LDTR; i++)
        cpu->segments[i] = (struct segment){.limit = 0xFFFFFFFF, .access_rights = 0xC093, .selector = 0x10};
    cpu->segments[SEG_CS].selector = 8;
    cpu->segments[SEG_CS].access_rights = code_size == MODE_CODE64   ? 0xA09B
                                          : code_size == MODE_CODE32 ? 0xC09B
                                                                     : 0x809B;
    if (code_size == MODE_CODE16)
        cpu->segments[SEG_SS].access_rights = 0x8093;
}

static void map_one_to_one(struct machine *machine)
{
    uint64_t entry = (PAGE_TABLES + 0x1000) | 7;
    memory_write(&machine->memory, PAGE_TABLES, &entry, 8);
    entry = (PAGE_TABLES + 0x2000) | 7;
    memory_write(&machine->memory, PAGE_TABLES + 0x1000, &entry, 8);
    for (unsigned i = 0; i < 512; i++) {
        entry = (uint64_t)i << 21 | 0x87;
        memory_write(&machine->memory, PAGE_TABLES + 0x2000 + 8 * i, &entry, 8);
    }
}

void flat_machine_enter(struct machine *machine, unsigned code_size)
{
    struct cpu *cpu = &machine->processor[0]->cpu;
    map_one_to_one(machine);
    set_flat_segments(cpu, code_size);
    uint64_t cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    if (code_size == MODE_CODE64)
        cpu_load_control_registers(cpu, CR0_PE | CR0_NE | CR0_ET | CR0_PG, PAGE_TABLES, cr4, EFER_LME | EFER_LMA);
    else
        cpu_load_control_registers(cpu, CR0_PE | CR0_NE | CR0_ET, 0, cr4, 0);
    cpu_update_mode(cpu);
}

struct machine *flat_machine_create(unsigned code_size)
{
    struct vmxon_config config;
    struct vmxon *vm;
    struct vmxon_error error;
    vmxon_config_init(&config);
    config.memory_size = 4 << 20;
    if (vmxon_create(&config, &vm, &error) != VMXON_OK) {
        printf("%s\n", error.text);
        return NULL;
    }
    struct machine *machine = (struct machine *)vm;
    flat_machine_enter(machine, code_size);
    return machine;
}

void flat_machine_destroy(struct machine *machine) { vmxon_destroy((struct vmxon *)machine); }
