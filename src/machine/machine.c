// Making and unmaking a machine.
#include "machine/machine.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/host.h"
#include "cpu/system.h"

void vmxon_config_init(struct vmxon_config *config)
{
    *config = (struct vmxon_config){
        .memory_size = 128u << 20,
        .cpus = 1,
        .cpu_profile = "skylake",
        .rtc_seconds = 946684800, // 2000-01-01 00:00:00
    };
}

static enum vmxon_status refuse(struct vmxon_error *error, enum vmxon_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    error->status = status;
    vsnprintf(error->text, sizeof error->text, format, arguments);
    va_end(arguments);
    return status;
}

static enum vmxon_status make_memory(struct machine *machine, uint64_t size, struct vmxon_error *error)
{
    switch (memory_create(&machine->memory, size)) {
    case MEMORY_OK: return VMXON_OK;
    case MEMORY_BAD_SIZE:
        return refuse(error, VMXON_BAD_CONFIG,
                      "memory size 0x%llx is not a multiple of 4 KiB from 4 KiB to 0x%llx bytes",
                      (unsigned long long)size, (unsigned long long)MEMORY_MAX_SIZE);
    default:
        return refuse(error, VMXON_NO_MEMORY, "the host cannot provide 0x%llx bytes of memory",
                      (unsigned long long)size);
    }
}

static bool make_processor(struct machine *machine, unsigned index, const struct vmxon_config *config)
{
    struct processor *processor = host_map_zeroed(sizeof *processor);
    if (!processor)
        return false;
    machine->processor[index] = processor;
    machine->processor_count = index + 1;
    processor->machine = machine;
    if (!cpu_init(&processor->cpu, &machine->bus, machine->profile, index))
        return false;
    processor->cpu.random_state = config->seed + index;
    processor->cpu.package_cpus = config->cpus;
    vmx_init(&processor->vmx, &processor->cpu, &machine->vmx_caps);
    return true;
}

enum vmxon_status vmxon_create(const struct vmxon_config *config, struct vmxon **result, struct vmxon_error *error)
{
    *result = NULL;
    const struct cpu_profile *profile = cpu_profile_find(config->cpu_profile);
    if (!profile)
        return refuse(error, VMXON_BAD_CONFIG, "unknown processor profile '%s'; `vmxon cpus` lists them",
                      config->cpu_profile);
    if (config->cpus < 1 || config->cpus > VMXON_MAX_CPUS)
        return refuse(error, VMXON_BAD_CONFIG, "%u processors, the limit is %d", config->cpus, VMXON_MAX_CPUS);
    struct machine *machine = calloc(1, sizeof *machine);
    if (!machine)
        return refuse(error, VMXON_NO_MEMORY, "the host cannot provide memory for the machine");
    machine->profile = profile;
    machine->cycle_hz = (uint64_t)profile->base_mhz * 1000000;
    machine->serial_output = config->serial_output;
    machine->user = config->user;
    enum vmxon_status status = make_memory(machine, config->memory_size, error);
    if (status == VMXON_OK && !vmx_caps_init(&machine->vmx_caps, profile->name, profile->maxphyaddr))
        status = refuse(error, VMXON_BAD_CONFIG, "processor profile '%s' has no VMX capabilities", profile->name);
    if (status == VMXON_OK) {
        bus_init(&machine->bus, &machine->memory);
        machine->reference = reference_create();
        if (!machine->reference)
            status = refuse(error, VMXON_NO_MEMORY, "the reference executor cannot be created");
    }
    for (unsigned i = 0; status == VMXON_OK && i < config->cpus; i++) {
        if (!make_processor(machine, i, config))
            status = refuse(error, VMXON_NO_MEMORY, "the host cannot provide memory for processor %u", i);
    }
    if (status != VMXON_OK) {
        vmxon_destroy((struct vmxon *)machine);
        return status;
    }
    machine->lockstep = config->lockstep;
    board_init(machine, config);
    firmware_init(machine);
    for (unsigned i = 1; i < machine->processor_count; i++)
        machine->processor[i]->cpu.activity = ACTIVITY_WAIT_FOR_SIPI;
    *result = (struct vmxon *)machine;
    return VMXON_OK;
}

void vmxon_destroy(struct vmxon *vmxon)
{
    struct machine *machine = (struct machine *)vmxon;
    if (!machine)
        return;
    for (unsigned i = 0; i < machine->processor_count; i++) {
        cpu_destroy(&machine->processor[i]->cpu);
        host_unmap(machine->processor[i], sizeof *machine->processor[i]);
    }
    if (machine->reference)
        reference_destroy(machine->reference);
    if (machine->memory.ram)
        memory_destroy(&machine->memory);
    free(machine);
}
