// Time: who runs how long, when devices are looked at, how a run ends.
//
// Time goes in turns. At the start of a turn devices are brought to its cycle; then each processor in order runs to the
// end of the turn, which is the next device event, or MACHINE_TURN_CYCLES away if there are several processors. So an
// event comes at the first instruction boundary at or after its cycle. Where a turn begins and ends depends on the state
// of the machine only: limits and single-stepping interrupt a turn, the next run goes on with it (design D6, D7).
// A processor that sleeps keeps its clock until something wakes it; if all sleep, time skips to the next event.
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

static bool is_awake(const struct cpu *cpu) { return cpu->activity == ACTIVITY_ACTIVE || interrupt_wakes(cpu); }

static bool any_awake(const struct machine *machine)
{
    for (unsigned i = 0; i < machine->processor_count; i++) {
        if (is_awake(&machine->processor[i]->cpu))
            return true;
    }
    return false;
}

// True if an interrupt request of a device cannot wake the processor. Asked when none runs, so there are no IPIs either.
static bool is_deaf(const struct cpu *cpu)
{
    bool takes_interrupts = (cpu->rflags_system & RFLAGS_IF) || cpu->mwait_unmasked ||
                            (cpu->intercepts & BIT(INTERCEPT_EXTERNAL_INTERRUPT));
    return !(cpu->activity == ACTIVITY_HLT && takes_interrupts) && vmx_next_event(cpu) == CYCLE_NEVER;
}

static bool all_deaf(const struct machine *machine)
{
    for (unsigned i = 0; i < machine->processor_count; i++) {
        if (!is_deaf(&machine->processor[i]->cpu))
            return false;
    }
    return !board_may_signal(machine);
}

static const char *exception_name(unsigned vector)
{
    static const char *const names[] = {
        [VECTOR_DE] = "#DE", [VECTOR_DB] = "#DB", [VECTOR_BP] = "#BP", [VECTOR_OF] = "#OF", [VECTOR_BR] = "#BR",
        [VECTOR_UD] = "#UD", [VECTOR_NM] = "#NM", [VECTOR_DF] = "#DF", [VECTOR_TS] = "#TS", [VECTOR_NP] = "#NP",
        [VECTOR_SS] = "#SS", [VECTOR_GP] = "#GP", [VECTOR_PF] = "#PF", [VECTOR_MF] = "#MF", [VECTOR_AC] = "#AC",
        [VECTOR_MC] = "#MC", [VECTOR_XM] = "#XM", [VECTOR_VE] = "#VE"};
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

// ---- Turns ----

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

// The next device event, or the end of the VMX-preemption timer of a processor that sleeps. (One that runs minds its own.)
static cycle_t next_event(const struct machine *machine)
{
    cycle_t next = board_next_event(machine);
    for (unsigned i = 0; i < machine->processor_count; i++) {
        const struct cpu *cpu = &machine->processor[i]->cpu;
        cycle_t timer = vmx_next_event(cpu);
        if (cpu->activity != ACTIVITY_ACTIVE && !(cpu->pending & PENDING_VMX) && timer < next)
            next = timer;
    }
    return next;
}

// What became of a look at the machine.
enum progress {
    PROGRESS_NONE, // a new turn begins
    PROGRESS_TIME, // all slept, time was skipped
    PROGRESS_RAN,  // a processor ran
    PROGRESS_STOP, // the run is over, `outcome` says why
};

// True if a limit was reached, with `outcome` filled.
static bool note_limit(struct machine *machine, const struct vmxon_limits *limits)
{
    const char *what;
    uint64_t limit;
    bool in_turn = machine->turn_next < machine->processor_count;
    if (limits->instructions && total_instructions(machine) >= limits->instructions) {
        what = "instructions";
        limit = limits->instructions;
    } else if (limits->cycles && (in_turn ? machine_now(machine) : common_time(machine)) >= limits->cycles) {
        what = "cycles";
        limit = limits->cycles;
    } else {
        return false;
    }
    machine->outcome = (struct vmxon_outcome){.end = VMXON_END_LIMIT, .cpu = machine->running};
    snprintf(machine->outcome.text, sizeof machine->outcome.text, "%" PRIu64 " %s", limit, what);
    return true;
}

static enum progress note_halted(struct machine *machine)
{
    machine->outcome =
        (struct vmxon_outcome){.end = VMXON_END_HALTED, .cpu = machine->running, .text = "halted for ever"};
    return PROGRESS_STOP;
}

// All sleep: skips to the next event. PROGRESS_STOP: there is none, or it comes after the limit.
static enum progress sleep_until_event(struct machine *machine, const struct vmxon_limits *limits)
{
    cycle_t next = next_event(machine), now = common_time(machine);
    if (next == CYCLE_NEVER || all_deaf(machine))
        return note_halted(machine);
    machine->slept_until = next > now ? next : now;
    if (limits->cycles && machine->slept_until >= limits->cycles) {
        machine->slept_until = limits->cycles > now ? limits->cycles : now;
        note_limit(machine, limits);
        return PROGRESS_STOP;
    }
    return PROGRESS_TIME;
}

static void begin_turn(struct machine *machine)
{
    cycle_t now = common_time(machine);
    board_advance(machine, now);
    machine->turn_start = now;
    machine->turn_end = next_event(machine);
    if (machine->processor_count > 1 && machine->turn_end > now + MACHINE_TURN_CYCLES)
        machine->turn_end = now + MACHINE_TURN_CYCLES;
    if (machine->turn_end <= now)
        machine->turn_end = now + 1;
    machine->turn_next = 0;
    machine->turn_idle = true;
}

// From one turn to the next. If nobody had a use for the last one, what keeps them awake is blocked: time goes on without them.
static enum progress next_turn(struct machine *machine, const struct vmxon_limits *limits)
{
    enum progress progress = PROGRESS_NONE;
    if (machine->turn_idle && any_awake(machine)) {
        if (machine->turn_end == CYCLE_NEVER || all_deaf(machine))
            return note_halted(machine);
        machine->slept_until = machine->turn_end;
        progress = PROGRESS_TIME;
    } else if (!any_awake(machine)) {
        progress = sleep_until_event(machine, limits);
    }
    if (progress != PROGRESS_STOP)
        begin_turn(machine);
    return progress;
}

// The processor whose part of the turn it is, awake and with its clock and VMX-preemption timer looked at. NULL: the turn is over.
static struct cpu *find_running(struct machine *machine)
{
    for (; machine->turn_next < machine->processor_count; machine->turn_next++) {
        struct cpu *cpu = &machine->processor[machine->turn_next]->cpu;
        cycle_t clock = cpu_now(cpu);
        if (cpu->activity != ACTIVITY_ACTIVE && clock < machine->turn_start)
            clock = machine->turn_start;
        if (vmx_next_event(cpu) <= clock)
            cpu->pending |= PENDING_VMX;
        if (!is_awake(cpu) || clock >= machine->turn_end)
            continue;
        if (cpu_now(cpu) < clock) { // it has slept until now
            cpu->deadline = clock;
            cpu->cycles_left = 0;
        }
        board_select(machine, machine->turn_next);
        return cpu;
    }
    return NULL;
}

// How far the processor may run without a look: the end of the turn, its VMX-preemption timer, a limit. Every
// instruction costs a cycle at least, so the instruction limit cannot be passed before as many cycles.
static cycle_t choose_deadline(const struct machine *machine, const struct cpu *cpu, const struct vmxon_limits *limits)
{
    cycle_t now = cpu_now(cpu), end = machine->turn_end;
    cycle_t timer = vmx_next_event(cpu);
    if (timer > now && timer < end)
        end = timer;
    if (limits->cycles && limits->cycles < end)
        end = limits->cycles;
    uint64_t span = end - now;
    if (limits->instructions && limits->instructions - total_instructions(machine) < span)
        span = limits->instructions - total_instructions(machine);
    return now + (span < CPU_RUN_MAX_CYCLES ? span : CPU_RUN_MAX_CYCLES);
}

static void run_processor(struct machine *machine, struct cpu *cpu, const struct vmxon_limits *limits, bool single)
{
    cycle_t start = cpu_now(cpu);
    bool compare =
        machine->lockstep && cpu->activity == ACTIVITY_ACTIVE && reference_lockstep_before(machine->reference, cpu);
    enum exec_result result = cpu_run(cpu, choose_deadline(machine, cpu, limits), single);
    char text[sizeof machine->outcome.text];
    if (compare && !reference_lockstep_after(machine->reference, cpu, text, sizeof text))
        machine_end(machine, VMXON_END_CHECK, 0, "%s", text);
    if (result == EXEC_STOP || cpu->activity == ACTIVITY_SHUTDOWN)
        note_death(machine);
    if (cpu->activity != ACTIVITY_ACTIVE && cpu_now(cpu) == start)
        machine->turn_next++; // it seemed to be woken, and was not
    else
        machine->turn_idle = false;
}

// ---- A run ----

// One instruction or event in single mode, more otherwise; or the way from one turn to the next.
static enum progress advance(struct machine *machine, const struct vmxon_limits *limits, bool single)
{
    struct cpu *cpu = find_running(machine);
    if (note_limit(machine, limits))
        return PROGRESS_STOP;
    if (!cpu)
        return next_turn(machine, limits);
    run_processor(machine, cpu, limits, single);
    return PROGRESS_RAN;
}

void machine_run(struct machine *machine, const struct vmxon_limits *limits, bool one_step)
{
    bool single = one_step || limits->single_step || machine->lockstep;
    machine->outcome = machine->ended ? machine->outcome : (struct vmxon_outcome){0};
    while (!machine->ended) {
        enum progress progress = advance(machine, limits, single);
        if (progress == PROGRESS_STOP || (one_step && progress != PROGRESS_NONE))
            break;
    }
    machine->outcome.rip = machine->processor[machine->outcome.cpu]->cpu.regs[REG_RIP];
}
