// Randomly generated ordinary instructions on the native core, on Unicorn, and (64-bit mode) on the host processor.
//
//   random_lockstep [INSTRUCTIONS [SEED]]      prints what was compared, the deviations met, and `N passed, N failed`
//
// INSTRUCTIONS counts the executions compared with Unicorn. Each instruction is random bytes that the decoder accepts as ordinary, run in
// several random states (random_instruction.c). Known deviations are rows of src/reference/deviations.def (Unicorn) and
// host_deviations.def (the host), each with its reason; any other difference is a failure. What the core leaves to the reference executor is
// compared with the host alone.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/exec.h"
#include "cpu/select.h"
#include "cpu/system.h"
#include "flat_machine.h"
#include "host_oracle.h"
#include "random_instruction.h"
#include "reference/deviations.h"

enum {
    STATES = 8,         // states an instruction is tried with
    FAILURES_SHOWN = 2, // of each operation and oracle
};
static_assert((int)HOST_DATA == (int)TRIAL_WINDOW, "the host runs instructions at the same addresses");

enum oracle { UNICORN, HOST, ORACLES };
static const char *const oracle_names[ORACLES] = {"Unicorn", "the host"};

static const struct {
    unsigned op;
    const char *reason;
} host_deviations[] = {
#define DEVIATION(first, last, condition, reason) {OP_##first, reason},
#include "host_deviations.def"
#undef DEVIATION
};
enum { HOST_DEVIATIONS = sizeof host_deviations / sizeof host_deviations[0], MAX_DEVIATIONS = 512 };

static int host_deviation_find(const struct lockstep *step, const struct difference *difference)
{
    int row = 0;
#define DEVIATION(first, last, condition, reason)                             \
    if (step->in.op >= OP_##first && step->in.op <= OP_##last && (condition)) \
        return row;                                                           \
    row++;
#include "host_deviations.def"
#undef DEVIATION
    return -1;
}

struct tally {
    uint64_t compared[ORACLES], reference_only, faults;
    uint64_t failed;
    uint64_t seen[OP_COUNT], op_failed[OP_COUNT][ORACLES];
    uint64_t hits[ORACLES][MAX_DEVIATIONS];
};

// ---- The machine ----

// The vector of the exception that the instruction raised. There is no IDT, so #GP, #DF and a triple fault follow it.
static int first_exception(const struct cpu *cpu, const uint64_t before[32])
{
    for (int vector = 0; vector < 32; vector++) {
        if (vector != VECTOR_DF && vector != VECTOR_GP && cpu->exception_count[vector] != before[vector])
            return vector;
    }
    return VECTOR_GP;
}

// Runs one instruction. -1: done; otherwise the vector of the exception, and the processor is reset.
static int run_natively(struct machine *machine, const struct lockstep *step)
{
    struct cpu *cpu = &machine->processor[0]->cpu;
    uint64_t before[32];
    for (unsigned i = 0; i < 32; i++)
        before[i] = cpu->exception_count[i];
    cpu->pending = 0;
    cpu_run(cpu, cpu_now(cpu) + 1000000, true);
    if (cpu->regs[REG_RIP] == step->next_rip)
        return -1;
    int vector = first_exception(cpu, before);
    cpu_reset(cpu, false);
    flat_machine_enter(machine, step->code_size);
    return vector;
}

// ---- Comparison ----

static void report(struct tally *tally, enum oracle oracle, const struct lockstep *step,
                   const struct difference *difference)
{
    char text[256];
    int row = oracle == UNICORN ? deviation_find(step, difference) : host_deviation_find(step, difference);
    if (row >= 0) {
        tally->hits[oracle][row]++;
        return;
    }
    tally->failed++;
    if (tally->op_failed[step->in.op][oracle]++ >= FAILURES_SHOWN)
        return;
    printf("%s, %u-bit code:", op_name(step->in.op), 16u << step->code_size);
    for (unsigned i = 0; i < step->in.length; i++)
        printf(" %02x", step->bytes[i]);
    lockstep_describe(difference, oracle_names[oracle], text, sizeof text);
    printf("\n    %s\n", text);
    if (difference->kind == DIFFERENT_XMM || difference->kind == DIFFERENT_MXCSR) {
        const struct xmm *a = &step->before.xmm[step->in.reg & 15], *b = &step->before.xmm[step->in.rm & 15];
        printf("    MXCSR %x, operands %016" PRIx64 " %016" PRIx64 ", %016" PRIx64 " %016" PRIx64 "\n",
               step->before.mxcsr, a->hi, a->lo, b->hi, b->lo);
    }
}

// `theirs`: the oracle's state if theirs_vector is -1.
static void compare(struct tally *tally, enum oracle oracle, const struct lockstep *step, int our_vector,
                    const struct reference_state *ours, int their_vector, const struct reference_state *theirs)
{
    struct difference difference = {0};
    if (our_vector != their_vector)
        difference =
            (struct difference){DIFFERENT_EXCEPTION, 0, (uint64_t)(our_vector + 1), (uint64_t)(their_vector + 1)};
    else if (our_vector == -1)
        difference = lockstep_compare(step, ours, theirs);
    if (difference.kind != SAME)
        report(tally, oracle, step, &difference);
    tally->compared[oracle]++;
}

// How the host reports the vectors that it cannot tell apart.
static int as_host_vector(int vector)
{
    switch (vector) {
    case VECTOR_SS:
    case VECTOR_PF:
    case VECTOR_AC: return VECTOR_GP;
    case VECTOR_MF: return VECTOR_XM;
    default: return vector;
    }
}

static void try_once(struct machine *machine, const struct trial *trial, struct tally *tally)
{
    struct cpu *cpu = &machine->processor[0]->cpu;
    static struct lockstep step;
    static struct reference_state ours, theirs;
    uint8_t memory[TRIAL_MEMORY];
    if (!random_state(trial, cpu, memory))
        return;
    memory_write(&machine->memory, trial->window, memory, TRIAL_MEMORY);
    memory_write(&machine->memory, TRIAL_CODE, trial->bytes, INSN_MAX_LENGTH);
    if (!lockstep_prepare(&step, cpu))
        return;
    if (trial->in_place) {
        step.operand = step.in.form == FORM_MEM ? (unsigned)(step.linear - trial->window) : 0;
        step.linear = trial->window;
        step.before.memory_address = trial->window;
        step.before.memory_size = TRIAL_MEMORY;
        memcpy(step.before.memory, memory, TRIAL_MEMORY);
    }
    int vector = run_natively(machine, &step);
    reference_state_from(&ours, cpu);
    ours.memory_size = step.before.memory_size;
    memory_read(&machine->memory, step.linear, ours.memory, ours.memory_size);
    tally->seen[step.in.op]++;
    tally->faults += vector >= 0;
    // The engine does not check alignment, and does not raise #XM.
    if (trial->native && vector != VECTOR_GP && vector != VECTOR_XM) {
        theirs = step.before;
        bool done = reference_run(machine->reference, &step.in, step.bytes, step.code_size, &theirs);
        theirs.mxcsr = ours.mxcsr; // whose flags the engine does not report
        compare(tally, UNICORN, &step, vector, &ours, done ? -1 : vector >= 0 ? vector : VECTOR_UD, &theirs);
    }
    if (step.code_size == MODE_CODE64 && host_oracle_available()) {
        theirs = step.before;
        int host = host_oracle_run(&step.in, step.bytes, &theirs);
        if (host == HOST_UNAVAILABLE)
            return;
        compare(tally, HOST, &step, as_host_vector(vector), &ours, host, &theirs);
        tally->reference_only += !trial->native;
    }
}

// ---- The runs ----

static bool run_mode(unsigned code_size, uint64_t wanted, struct tally *tally)
{
    struct machine *machine = flat_machine_create(code_size);
    if (!machine)
        return false;
    uint64_t goal = tally->compared[UNICORN] + wanted;
    while (tally->compared[UNICORN] < goal) {
        struct trial trial;
        if (!random_trial(&trial, machine->processor[0]->cpu.mode))
            continue;
        for (unsigned i = 0; i < STATES; i++)
            try_once(machine, &trial, tally);
    }
    flat_machine_destroy(machine);
    return true;
}

static void print_summary(const struct tally *tally)
{
    unsigned operations = 0;
    printf("not met:");
    for (unsigned op = 0; op < OP_COUNT; op++) {
        operations += tally->seen[op] != 0;
        if (tally->seen[op] == 0 && random_trial_includes(op))
            printf(" %s", op_name(op));
    }
    printf("\n%" PRIu64 " executions of %u operations compared with Unicorn, %" PRIu64 " with the host (%" PRIu64
           " of them of instructions that the reference executor runs); %" PRIu64 " raised an exception\n",
           tally->compared[UNICORN], operations, tally->compared[HOST], tally->reference_only, tally->faults);
    for (unsigned i = 0; i < deviation_count(); i++)
        printf("deviation of Unicorn, met %" PRIu64 " times: %s: %s\n", tally->hits[UNICORN][i],
               op_name(deviation_op(i)), deviation_reason(i));
    for (unsigned i = 0; i < HOST_DEVIATIONS; i++)
        printf("deviation of the host, met %" PRIu64 " times: %s: %s\n", tally->hits[HOST][i],
               op_name(host_deviations[i].op), host_deviations[i].reason);
    for (unsigned op = 0; op < OP_COUNT; op++) {
        for (unsigned i = 0; i < ORACLES; i++) {
            if (tally->op_failed[op][i])
                printf("FAIL %s: %" PRIu64 " times unlike %s, of %" PRIu64 "\n", op_name(op), tally->op_failed[op][i],
                       oracle_names[i], tally->seen[op]);
        }
    }
}

int main(int argc, char **argv)
{
    const uint64_t wanted = argc > 1 ? strtoull(argv[1], NULL, 0) : 1000000;
    random_seed(argc > 2 ? strtoull(argv[2], NULL, 0) : 1);
    static struct tally tally;
    if (!run_mode(MODE_CODE64, wanted / 2, &tally) || !run_mode(MODE_CODE32, wanted / 4, &tally) ||
        !run_mode(MODE_CODE16, wanted - wanted / 2 - wanted / 4, &tally))
        tally.failed++;
    print_summary(&tally);
    const uint64_t total = tally.compared[UNICORN] + tally.compared[HOST];
    printf("%" PRIu64 " passed, %" PRIu64 " failed\n", total > tally.failed ? total - tally.failed : 0, tally.failed);
    return tally.failed != 0;
}
