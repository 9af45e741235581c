// The public API: loading, running and looking at a machine. Creation is in machine.c.
#include <stdio.h>
#include <string.h>

#include "cpu/system.h"
#include "loader/loader.h"
#include "machine/machine.h"

static struct machine *machine_of(struct vmxon *vmxon) { return (struct machine *)vmxon; }
static const struct machine *const_machine_of(const struct vmxon *vmxon) { return (const struct machine *)vmxon; }

// --- loading

static void set_segment(struct segment *segment, const struct load_segment_register *from)
{
    *segment = (struct segment){
        .base = from->base, .limit = from->limit, .access_rights = from->access_rights, .selector = from->selector};
}

static void enter_image(struct cpu *cpu, const struct load_result *result)
{
    static const enum segment_register data[] = {SEG_DS, SEG_ES, SEG_SS, SEG_FS, SEG_GS};
    for (unsigned i = 0; i < LOAD_REGISTER_COUNT; i++)
        cpu->regs[i] = result->gpr[i];
    cpu->regs[REG_RIP] = result->rip;
    set_segment(&cpu->segments[SEG_CS], &result->cs);
    for (unsigned i = 0; i < sizeof data / sizeof data[0]; i++)
        set_segment(&cpu->segments[data[i]], &result->data);
    set_segment(&cpu->segments[SEG_TR], &result->tr);
    cpu->gdtr = (struct descriptor_table){result->gdt_base, result->gdt_limit};
    cpu->idtr = (struct descriptor_table){result->idt_base, result->idt_limit};
    cpu->cpl = 0;
    cpu_load_control_registers(cpu, result->cr0, result->cr3, result->cr4, result->efer);
    cpu_set_rflags(cpu, RFLAGS_ONE);
    cpu_update_mode(cpu);
}

enum vmxon_status vmxon_load(struct vmxon *vmxon, const struct vmxon_image *image, struct vmxon_error *error)
{
    struct machine *machine = machine_of(vmxon);
    struct load_file modules[LOADER_MAX_MODULES];
    struct load_error reason;
    struct load_result result;
    struct load_flat flat;
    if (image->flat && loader_parse_flat(image->flat, &flat, &reason) != LOAD_OK) {
        error->status = VMXON_BAD_CONFIG;
        snprintf(error->text, sizeof error->text, "%s", reason.text);
        return error->status;
    }
    if (image->module_count > LOADER_MAX_MODULES) {
        error->status = VMXON_BAD_IMAGE;
        snprintf(error->text, sizeof error->text, "%u modules, the limit is %d", image->module_count,
                 LOADER_MAX_MODULES);
        return error->status;
    }
    for (unsigned i = 0; i < image->module_count; i++)
        modules[i] = (struct load_file){
            .name = image->modules[i].string, .bytes = image->modules[i].bytes, .size = image->modules[i].size};
    const struct load_request request = {
        .image = {.name = image->name, .arguments = image->command_line, .bytes = image->bytes, .size = image->size},
        .modules = modules,
        .module_count = image->module_count,
        .flat = image->flat ? &flat : NULL,
    };
    if (loader_load(&request, &machine->memory, &result, &reason) != LOAD_OK) {
        error->status = VMXON_BAD_IMAGE;
        snprintf(error->text, sizeof error->text, "%s", reason.text);
        return error->status;
    }
    enter_image(&machine->processor[0]->cpu, &result);
    machine->loaded = true;
    return VMXON_OK;
}

// --- running

enum vmxon_status vmxon_run(struct vmxon *vmxon, const struct vmxon_limits *limits, struct vmxon_outcome *outcome)
{
    static const struct vmxon_limits none;
    struct machine *machine = machine_of(vmxon);
    if (!machine->loaded)
        return VMXON_NOT_LOADED;
    machine_run(machine, limits ? limits : &none, false);
    *outcome = machine->outcome;
    return VMXON_OK;
}

enum vmxon_status vmxon_step(struct vmxon *vmxon, struct vmxon_outcome *outcome)
{
    struct machine *machine = machine_of(vmxon);
    if (!machine->loaded)
        return VMXON_NOT_LOADED;
    machine_run(machine, &(struct vmxon_limits){.single_step = true}, true);
    *outcome = machine->outcome;
    return VMXON_OK;
}

size_t vmxon_serial_input(struct vmxon *vmxon, const uint8_t *bytes, size_t n)
{
    return uart_receive(&machine_of(vmxon)->com1, bytes, n);
}

// --- looking

enum vmxon_status vmxon_get_registers(const struct vmxon *vmxon, unsigned index, struct vmxon_registers *registers)
{
    const struct machine *machine = const_machine_of(vmxon);
    if (index >= machine->processor_count)
        return VMXON_BAD_CPU;
    const struct processor *processor = machine->processor[index];
    const struct cpu *cpu = &processor->cpu;
    *registers = (struct vmxon_registers){
        .rip = cpu->regs[REG_RIP],
        .rflags = cpu_rflags(cpu),
        .cr0 = cpu->cr0,
        .cr2 = cpu->cr2,
        .cr3 = cpu->cr3,
        .cr4 = cpu->cr4,
        .cr8 = lapic_tpr(&processor->lapic) >> 4,
        .efer = cpu->efer,
        .gdtr_base = cpu->gdtr.base,
        .gdtr_limit = cpu->gdtr.limit,
        .idtr_base = cpu->idtr.base,
        .idtr_limit = cpu->idtr.limit,
        .vmx_operation = cpu->vmx_operation,
        .non_root = cpu->non_root,
        .current_vmcs = processor->vmx.current_pointer,
    };
    memcpy(registers->gpr, cpu->regs, sizeof registers->gpr);
    for (unsigned i = 0; i < SEG_COUNT; i++) {
        registers->segment[i].selector = cpu->segments[i].selector;
        registers->segment[i].limit = cpu->segments[i].limit;
        registers->segment[i].access_rights = cpu->segments[i].access_rights;
        registers->segment[i].base = cpu->segments[i].base;
    }
    return VMXON_OK;
}

enum vmxon_status vmxon_read_physical(const struct vmxon *vmxon, uint64_t address, void *buffer, size_t size)
{
    return memory_read(&const_machine_of(vmxon)->memory, address, buffer, size) ? VMXON_OK : VMXON_BAD_ADDRESS;
}

enum vmxon_status vmxon_write_physical(struct vmxon *vmxon, uint64_t address, const void *buffer, size_t size)
{
    return memory_write(&machine_of(vmxon)->memory, address, buffer, size) ? VMXON_OK : VMXON_BAD_ADDRESS;
}

enum vmxon_status vmxon_read_linear(const struct vmxon *vmxon, unsigned index, uint64_t address, void *buffer,
                                    size_t size)
{
    const struct machine *machine = const_machine_of(vmxon);
    if (index >= machine->processor_count)
        return VMXON_BAD_CPU;
    uint8_t *bytes = buffer;
    while (size > 0) {
        size_t part = PAGE_SIZE - (address & PAGE_OFFSET_MASK);
        hpa_t physical;
        if (part > size)
            part = size;
        if (!mmu_probe(&machine->processor[index]->cpu.mmu, address, &physical) ||
            !memory_read(&machine->memory, physical, bytes, part))
            return VMXON_BAD_ADDRESS;
        address += part;
        bytes += part;
        size -= part;
    }
    return VMXON_OK;
}

void vmxon_get_stats(const struct vmxon *vmxon, struct vmxon_stats *stats)
{
    static_assert(VMXON_EXIT_REASONS == EXIT_REASON_COUNT, "the public header counts the exit reasons");
    const struct machine *machine = const_machine_of(vmxon);
    *stats = (struct vmxon_stats){.cycles = machine->slept_until};
    for (unsigned i = 0; i < machine->processor_count; i++) {
        const struct processor *processor = machine->processor[i];
        const struct cpu *cpu = &processor->cpu;
        stats->instructions += cpu->instructions;
        if (cpu_now(cpu) > stats->cycles)
            stats->cycles = cpu_now(cpu);
        stats->vm_entries += processor->vmx.entries;
        stats->vm_entry_failures += processor->vmx.entry_failures;
        for (unsigned reason = 0; reason < EXIT_REASON_COUNT; reason++)
            stats->vm_exits[reason] += processor->vmx.exits[reason];
        stats->tlb_misses += cpu->mmu.walks;
        stats->ept_walks += cpu->mmu.ept_walks;
        stats->interrupts += cpu->interrupt_count;
        for (unsigned vector = 0; vector < 32; vector++)
            stats->exceptions[vector] += cpu->exception_count[vector];
        stats->reference_instructions += cpu->reference_instructions;
    }
}

const char *vmxon_exit_reason_name(unsigned reason) { return vmx_exit_reason_name(reason); }

const char *vmxon_profile_name(unsigned index)
{
    unsigned count;
    const struct cpu_profile *profiles = cpu_profiles(&count);
    return index < count ? profiles[index].name : NULL;
}

const char *vmxon_profile_description(unsigned index)
{
    unsigned count;
    const struct cpu_profile *profiles = cpu_profiles(&count);
    return index < count ? profiles[index].description : NULL;
}
