// Time: who runs how long, when devices are looked at, how a run ends.
//
// All processors run to machine->turn_end, one after the other; then devices
// are brought to that cycle. turn_end is the next device event, so that an
// event comes at the first instruction boundary at or after its cycle however
// the machine is driven (design D6, D7). A processor that sleeps keeps its clock
// until something wakes it; if all sleep, time skips to the next event.
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

static const char *exception_name(unsigned vector)
{
    static const char *const names[] = {
        [VECTOR_DE] = "#DE", [VECTOR_DB] = "#DB", [VECTOR_BP] = "#BP", [VECTOR_OF] = "#OF", [VECTOR_BR] = "#BR", [VECTOR_UD] = "#UD",
        [VECTOR_NM] = "#NM", [VECTOR_DF] = "#DF", [VECTOR_TS] = "#TS", [VECTOR_NP] = "#NP", [VECTOR_SS] = "#SS", [VECTOR_GP] = "#GP",
        [VECTOR_PF] = "#PF", [VECTOR_MF] = "#MF", [VECTOR_AC] = "#AC", [VECTOR_MC] = "#MC", [VECTOR_XM] = "#XM", [VECTOR_VE] = "#VE"};
    return vector < sizeof names / sizeof names[0] && names[vector] ? names[vector] : "an interrupt";
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

// Lets one processor run from `now` to `until`. One that sleeps and has no reason to wake is passed over.
static void run_processor(struct machine *machine, unsigned index, cycle_t now, cycle_t until, bool single)
{
    struct cpu *cpu = &machine->processor[index]->cpu;
    machine->running = index;
    if (cpu->activity != ACTIVITY_ACTIVE) {
        if (!interrupt_wakes(cpu))
            return;
        if (cpu_now(cpu) < now) { // it has slept until now
            cpu->deadline = now;
            cpu->cycles_left = 0;
        }
    }
    if (cpu_now(cpu) >= until)
        return;
    bool compare = machine->lockstep && cpu->activity == ACTIVITY_ACTIVE && reference_lockstep_before(machine->reference, cpu);
    enum exec_result result = cpu_run(cpu, until, single);
    char text[sizeof machine->outcome.text];
    if (compare && !reference_lockstep_after(machine->reference, cpu, text, sizeof text))
        machine_end(machine, VMXON_END_CHECK, 0, "%s", text);
    if (result == EXEC_STOP || cpu->activity == ACTIVITY_SHUTDOWN)
        note_death(machine);
}

// The cycle that every processor has reached: the slowest clock of those that do not sleep.
static cycle_t common_time(const struct machine *machine)
{
    cycle_t slowest = UINT64_MAX, fastest = machine->slept_until;
    for (unsigned i = 0; i < machine->processor_count; i++) {
        const struct cpu *cpu = &machine->processor[i]->cpu;
        cycle_t clock = cpu_now(cpu);
        if (cpu->activity == ACTIVITY_ACTIVE && clock < slowest)
            slowest = clock;
        if (clock > fastest)
            fastest = clock;
    }
    return slowest != UINT64_MAX ? slowest : fastest;
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
    if (end - now > CPU_RUN_MAX_CYCLES)
        end = now + CPU_RUN_MAX_CYCLES;
    return end;
}

void machine_run(struct machine *machine, const struct vmxon_limits *limits, bool one_step)
{
    bool single = one_step || limits->single_step || machine->lockstep;
    machine->outcome = machine->ended ? machine->outcome : (struct vmxon_outcome){0};
    while (!machine->ended) {
        cycle_t now = common_time(machine);
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
        machine->turn_end = choose_turn_end(machine, now, limits);
        for (unsigned i = 0; i < machine->processor_count && !machine->ended; i++)
            run_processor(machine, i, now, machine->turn_end, single);
        if (!is_active(machine))
            machine->slept_until = machine->turn_end;
        if (one_step)
            break;
    }
    machine->outcome.rip = machine->processor[machine->outcome.cpu]->cpu.regs[REG_RIP];
}
