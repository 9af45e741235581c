// Time: who runs how long, when devices are looked at, how a run ends.
//
// All processors run to machine->turn_end, one after the other; then devices
// are brought to that cycle. turn_end is the next device event, so that an
// event comes at the first instruction boundary at or after its cycle however
// the machine is driven (design D6, D7). A halted machine skips to the event.
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "cpu/system.h"
#include "machine/machine.h"

void machine_end(struct machine *machine, enum vmxon_end end, uint32_t status, const char *format, ...)
{
    if (machine->ended)
        return;
    struct cpu *cpu = &machine->processor[machine->running]->cpu;
    machine->ended = true;
    machine->outcome = (struct vmxon_outcome){.end = end, .status = status, .cpu = machine->running};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(machine->outcome.text, sizeof machine->outcome.text, format, arguments);
    va_end(arguments);
    cpu->pending |= PENDING_STOP;
    cpu->stop_block = 1;
}

static uint64_t total_instructions(const struct machine *machine)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < machine->processor_count; i++)
        total += machine->processor[i]->cpu.instructions;
    return total;
}

static bool is_active(const struct machine *machine)
{
    for (unsigned i = 0; i < machine->processor_count; i++) {
        if (machine->processor[i]->cpu.activity == ACTIVITY_ACTIVE)
            return true;
    }
    return false;
}

// True if nothing but RESET can ever wake a processor.
static bool is_dead(const struct machine *machine, bool events_left)
{
    for (unsigned i = 0; i < machine->processor_count; i++) {
        const struct cpu *cpu = &machine->processor[i]->cpu;
        bool deaf = cpu->activity == ACTIVITY_WAIT_FOR_SIPI || cpu->activity == ACTIVITY_SHUTDOWN ||
                    (cpu->activity == ACTIVITY_HLT && !(cpu->rflags_system & RFLAGS_IF) && !cpu->non_root);
        if (cpu->activity == ACTIVITY_ACTIVE || interrupt_wakes(cpu) || (events_left && !deaf))
            return false;
        if (cpu->pending & (PENDING_NMI | PENDING_INIT | PENDING_SIPI))
            return false;
    }
    return true;
}

// A processor entered shutdown, or VMX stopped the machine.
static void note_death(struct machine *machine)
{
    const struct processor *processor = machine->processor[machine->running];
    if (processor->vmx.abort)
        machine_end(machine, VMXON_END_VMX_ABORT, processor->vmx.abort,
                    "VMX abort %u on processor %u: VMCS at 0x%" PRIx64, processor->vmx.abort, machine->running,
                    processor->vmx.current_pointer);
    else if (processor->cpu.activity == ACTIVITY_SHUTDOWN && !processor->cpu.non_root)
        machine_end(machine, VMXON_END_TRIPLE_FAULT, 0,
                    "triple fault on processor %u at RIP 0x%" PRIx64 ": last exception %s", machine->running,
                    processor->cpu.regs[REG_RIP], exception_name(processor->cpu.event.vector));
}

// Lets one processor run to `until`.
static void run_processor(struct machine *machine, unsigned index, cycle_t until, bool single)
{
    struct cpu *cpu = &machine->processor[index]->cpu;
    machine->running = index;
    if (cpu_now(cpu) >= until)
        return;
    bool compare = machine->lockstep && cpu->activity == ACTIVITY_ACTIVE && reference_lockstep_before(machine->reference, cpu);
    enum exec_result result = cpu_run(cpu, until, single);
    if (compare && !reference_lockstep_after(machine->reference, cpu, machine->outcome.text, sizeof machine->outcome.text)) {
        char text[sizeof machine->outcome.text];
        snprintf(text, sizeof text, "%s", machine->outcome.text);
        machine_end(machine, VMXON_END_CHECK, 0, "%s", text);
    }
    if (result == EXEC_STOP || cpu->activity == ACTIVITY_SHUTDOWN)
        note_death(machine);
    // An inactive processor's clock goes on without instructions.
    if (result == EXEC_HALT && cpu_now(cpu) < until && !interrupt_wakes(cpu)) {
        cpu->deadline = until;
        cpu->cycles_left = 0;
    }
}

static cycle_t slowest_clock(const struct machine *machine)
{
    cycle_t slowest = UINT64_MAX;
    for (unsigned i = 0; i < machine->processor_count; i++) {
        cycle_t now = cpu_now(&machine->processor[i]->cpu);
        if (now < slowest)
            slowest = now;
    }
    return slowest;
}

static void note_limit(struct machine *machine, struct vmxon_outcome *outcome, const char *what, uint64_t limit)
{
    *outcome = (struct vmxon_outcome){.end = VMXON_END_LIMIT, .cpu = machine->running};
    snprintf(outcome->text, sizeof outcome->text, "%" PRIu64 " %s", limit, what);
}

// Where the next turn ends: the next event, a limit, or the turn of one processor among several.
static cycle_t choose_turn_end(struct machine *machine, cycle_t now, const struct vmxon_limits *limits)
{
    cycle_t end = board_next_event(machine);
    if (limits->cycles && limits->cycles < end)
        end = limits->cycles;
    if (is_active(machine)) {
        if (machine->processor_count > 1 && end - now > MACHINE_TURN_CYCLES)
            end = now + MACHINE_TURN_CYCLES;
        // Every instruction costs a cycle at least, so the instruction limit cannot be passed before this one.
        uint64_t left = limits->instructions ? limits->instructions - total_instructions(machine) : INT64_MAX / 2;
        left = left / machine->processor_count + (left < machine->processor_count);
        if (end - now > left)
            end = now + left;
    }
    if (end - now > INT64_MAX / 2)
        end = now + INT64_MAX / 2;
    return end;
}

void machine_run(struct machine *machine, const struct vmxon_limits *limits, bool one_step)
{
    bool single = one_step || limits->single_step || machine->lockstep;
    machine->outcome = machine->ended ? machine->outcome : (struct vmxon_outcome){0};
    while (!machine->ended) {
        cycle_t now = slowest_clock(machine);
        board_advance(machine, now);
        if (limits->instructions && total_instructions(machine) >= limits->instructions) {
            note_limit(machine, &machine->outcome, "instructions", limits->instructions);
            break;
        }
        if (limits->cycles && now >= limits->cycles) {
            note_limit(machine, &machine->outcome, "cycles", limits->cycles);
            break;
        }
        if (is_dead(machine, board_next_event(machine) != CYCLE_NEVER)) {
            machine_end(machine, VMXON_END_HALTED, 0, "halted for ever");
            break;
        }
        if (now >= machine->turn_end)
            machine->turn_end = choose_turn_end(machine, now, limits);
        for (unsigned i = 0; i < machine->processor_count && !machine->ended; i++)
            run_processor(machine, i, machine->turn_end, single);
        if (one_step)
            break;
        machine->turn_end = 0;
    }
    machine->outcome.rip = machine->processor[machine->outcome.cpu]->cpu.regs[REG_RIP];
}
