// Randomly generated ordinary instructions on the native core, on Unicorn, and (64-bit mode) on the host processor.
//
//   random_lockstep [INSTRUCTIONS [SEED]]      prints what was compared, the deviations met, and `N passed, N failed`
//
// Each instruction is random bytes that the decoder accepts as ordinary; its memory operand is steered to a data area; each runs with
// several random states. Known deviations of Unicorn and of the host are rows of lockstep_deviations.def, each with its reason.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/exec.h"
#include "cpu/handlers.h"
#include "cpu/system.h"
#include "host_oracle.h"
#include "machine/machine.h"
#include "reference/engine.h"
#include "reference/undefined_flags.h"

enum {
    CODE = 0x10000,
    DATA = 0x20000,
    PAGE_TABLES = 0x30000,
    STATES = 8,          // states an instruction is tried with
    FAILURES_SHOWN = 2,  // of each operation
};

enum which { OTHER_UNICORN = 1, OTHER_HOST = 2 };

static const struct {
    unsigned op;
    unsigned which;
    const char *reason;
} deviations[] = {
#define DEVIATION(op, which, reason) {OP_##op, which, reason},
#include "lockstep_deviations.def"
#undef DEVIATION
};
enum { DEVIATION_COUNT = sizeof deviations / sizeof deviations[0] };
static uint64_t deviation_hits[DEVIATION_COUNT + 1];

static uint64_t random_state = 1;

static uint64_t random64(void) // splitmix64
{
    uint64_t z = random_state += 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
}

// Values at which arithmetic goes wrong, and any others.
static uint64_t random_value(void)
{
    static const uint64_t special[] = {0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
                                       0x7FFFFFFFFFFFFFFF, 0x8000000000000000, UINT64_MAX, 0xF, 0x10, 0x1F, 0x20, 0x3F, 0x40};
    uint64_t choice = random64();
    if (choice % 3 == 0)
        return special[choice / 3 % (sizeof special / sizeof special[0])];
    return random64() >> (choice / 3 % 64);
}

// Floating-point patterns as well: zeros, infinities, NaNs, denormals, and numbers near one.
static uint64_t random_float_bits(void)
{
    static const uint64_t doubles[] = {0, 0x8000000000000000, 0x7FF0000000000000, 0xFFF0000000000000, 0x7FF8000000000001,
                                       0x7FF0000000000001, 1, 0x000FFFFFFFFFFFFF, 0x3FF0000000000000, 0x41DFFFFFFFC00000};
    static const uint32_t floats[] = {0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00001, 0x7F800001, 1, 0x007FFFFF, 0x3F800000, 0x4F000000};
    uint64_t choice = random64();
    switch (choice & 3) {
    case 0: return doubles[choice / 4 % 10];
    case 1: return (uint64_t)floats[choice / 4 % 10] << 32 | floats[choice / 64 % 10];
    case 2: return 0x3FF0000000000000 ^ (random64() & 0x80FFFFFFFFFFFFFF);
    default: return random64();
    }
}

static void set_flat_segments(struct cpu *cpu, unsigned code_size)
{
    for (unsigned i = 0; i < SEG_LDTR; i++)
        cpu->segments[i] = (struct segment){.limit = 0xFFFFFFFF, .access_rights = 0xC093, .selector = 0x10};
    cpu->segments[SEG_CS].selector = 8;
    cpu->segments[SEG_CS].access_rights = code_size == MODE_CODE64 ? 0xA09B : code_size == MODE_CODE32 ? 0xC09B : 0x809B;
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

// Flat, at CPL 0: 64-bit mode, 32-bit protected mode, or 16-bit protected mode.
static void enter_mode(struct machine *machine, unsigned code_size)
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

// Prefix combinations that other executors are known to treat otherwise: REX not last, 66 beside F2 or F3 (where the SDM lets one
// of them win), F2 beside F3. tests/cpu/test_decode.c has them.
static bool has_common_prefixes(const uint8_t *bytes, unsigned code_size)
{
    bool operand_size = false, repeat = false;
    for (unsigned i = 0; i < INSN_MAX_LENGTH; i++) {
        switch (bytes[i]) {
        case 0x66: operand_size = true; break;
        case 0xF2:
        case 0xF3:
            if (repeat)
                return false;
            repeat = true;
            break;
        case 0x26: case 0x2E: case 0x36: case 0x3E: case 0x64: case 0x65: case 0x67: case 0xF0: break;
        default:
            if (operand_size && repeat)
                return false;
            if (code_size != MODE_CODE64 || (bytes[i] & 0xF0) != 0x40)
                return true;
            switch (bytes[i + 1]) {
            case 0x66: case 0xF2: case 0xF3: case 0x26: case 0x2E: case 0x36: case 0x3E: case 0x64: case 0x65: case 0x67: case 0xF0:
                return false;
            default: return (bytes[i + 1] & 0xF0) != 0x40;
            }
        }
    }
    return false;
}

// Random bytes that decode as an instruction with registers and at most a ModRM memory operand.
static bool random_instruction(unsigned code_size, uint8_t *bytes, struct insn *in)
{
    static const uint8_t prefixes[] = {0x66, 0x66, 0x66, 0xF2, 0xF3, 0xF3, 0x67, 0xF0, 0x2E, 0x64};
    unsigned n = 0;
    uint64_t dice = random64();
    for (unsigned i = 0; i < 15; i++)
        bytes[i] = (uint8_t)(random64() >> 20);
    if (dice & 1)
        bytes[n++] = prefixes[(dice >> 8) % 10];
    if ((dice & 6) == 6)
        bytes[n++] = prefixes[(dice >> 16) % 10];
    if (code_size == MODE_CODE64 && (dice & 8))
        bytes[n++] = (uint8_t)(0x40 | (dice >> 24 & 15));
    if ((dice & 0x30) == 0x10)
        bytes[n++] = 0x0F;
    else if ((dice & 0x30) == 0x20) {
        bytes[n++] = 0x0F;
        if ((dice & 0xC0) == 0x40)
            bytes[n++] = 0x38;
    } else if ((dice & 0xFC0) == 0x40) {
        bytes[n++] = 0xC4;
        bytes[n] = (uint8_t)((bytes[n] & 0xE0) | 2);
    }
    const unsigned mode = code_size | MODE_FLAT | (code_size == MODE_CODE64 ? MODE_STACK64 : code_size == MODE_CODE32 ? MODE_STACK32 : 0);
    return has_common_prefixes(bytes, code_size) && decode(bytes, 15, mode, in) == DECODE_OK;
}

// Sets a register of the address so that the operand lies in the data area. False: the form has none that can be set.
static bool steer_operand(struct cpu *cpu, const struct insn *in)
{
    unsigned size = op_memory_size(in);
    if (in->form != FORM_MEM || size == 0)
        return in->form != FORM_MEM || in->op == OP_LEA;
    if (in->base == REG_RIP || in->base == REG_NONE || in->base == in->index)
        return false;
    uint64_t target = DATA + (random64() & 0xFF0);
    if (size < 16 && (random64() & 7) == 0)
        target += random64() & 15;
    if (in->index != REG_NONE)
        cpu->regs[in->index] &= 0xFF;
    uint64_t base = target - (cpu->regs[in->index] << in->scale) - (uint64_t)(int64_t)in->disp;
    cpu->regs[in->base] = in->addr_log2 == 1 ? base & 0xFFFF : in->addr_log2 == 2 ? base & 0xFFFFFFFF : base;
    return in->addr_log2 != 1 || target < 0x10000;
}

static void random_cpu_state(struct cpu *cpu, const struct insn *in)
{
    for (unsigned i = 0; i < 16; i++)
        cpu->regs[i] = random_value();
    if (!cpu_64bit(cpu)) {
        for (unsigned i = 0; i < 16; i++)
            cpu->regs[i] = i < 8 ? (uint32_t)cpu->regs[i] : 0;
    }
    for (unsigned i = 0; i < 16; i++)
        cpu->xmm[i] = (struct xmm){random_float_bits(), random_float_bits()};
    if (!cpu_64bit(cpu))
        memset(cpu->xmm + 8, 0, sizeof cpu->xmm / 2);
    cpu->mxcsr = 0x1F80;
    flags_set_arithmetic(cpu, random64());
    // Half of the divisions would raise #DE with independent operands.
    // A 16-bit double shift by more than 16 has an undefined result.
    if ((in->op == OP_SHLD || in->op == OP_SHRD) && in->size_log2 == 1)
        cpu->regs[REG_RCX] &= 15;
    if (in->op == OP_DIV || in->op == OP_IDIV)
        cpu->regs[REG_RDX] = (random64() & 1) ? 0 : random64() & 0xF;
}

static bool known_deviation(unsigned op, enum which which)
{
    for (unsigned i = 0; i < DEVIATION_COUNT; i++) {
        if (deviations[i].op == op && (deviations[i].which & which)) {
            deviation_hits[i]++;
            return true;
        }
    }
    return false;
}

static void print_bytes(const char *what, const struct lockstep *step, unsigned code_size)
{
    printf("%s: %s, %u-bit code:", what, op_name(step->in.op), 16u << code_size);
    for (unsigned i = 0; i < step->in.length; i++)
        printf(" %02x", step->bytes[i]);
    printf("\n");
}

static bool same_as_host(const struct lockstep *step, const struct cpu *cpu, char *text, size_t size)
{
    struct reference_state host = step->before;
    if (!host_oracle_run(&step->in, step->bytes, &host)) {
        snprintf(text, size, "the host raised an exception, the native core did not");
        return false;
    }
    uint64_t defined = RFLAGS_ARITHMETIC & ~undefined_flags(&step->in, step->before.gpr[REG_RCX]);
    for (unsigned i = 0; i < 16; i++) {
        if (host.gpr[i] != cpu->regs[i]) {
            snprintf(text, size, "register %u: 0x%" PRIx64 " here, 0x%" PRIx64 " on the host", i, cpu->regs[i], host.gpr[i]);
            return false;
        }
        if (host.xmm[i].lo != cpu->xmm[i].lo || host.xmm[i].hi != cpu->xmm[i].hi) {
            snprintf(text, size, "XMM%u: 0x%016" PRIx64 "%016" PRIx64 " here, 0x%016" PRIx64 "%016" PRIx64 " on the host", i,
                     cpu->xmm[i].hi, cpu->xmm[i].lo, host.xmm[i].hi, host.xmm[i].lo);
            return false;
        }
    }
    if ((host.rflags ^ cpu_rflags(cpu)) & defined) {
        snprintf(text, size, "RFLAGS: 0x%" PRIx64 " here, 0x%" PRIx64 " on the host", cpu_rflags(cpu) & defined, host.rflags & defined);
        return false;
    }
    if (host.mxcsr != cpu->mxcsr) {
        snprintf(text, size, "MXCSR: 0x%x here, 0x%x on the host", cpu->mxcsr, host.mxcsr);
        return false;
    }
    return true;
}

struct tally {
    uint64_t unicorn, host, failed, faults, ops_seen;
    bool op_seen[OP_COUNT];
    uint64_t op_failed[OP_COUNT];
};

static void report_failure(struct tally *tally, const char *who, const struct lockstep *step, unsigned code_size, const char *text)
{
    tally->failed++;
    if (tally->op_failed[step->in.op]++ < FAILURES_SHOWN) {
        print_bytes(who, step, code_size);
        printf("    %s\n", text);
    }
}

static void try_once(struct machine *machine, unsigned code_size, const uint8_t *bytes, const struct insn *in, struct tally *tally)
{
    struct cpu *cpu = &machine->processor[0]->cpu;
    struct lockstep *step = reference_lockstep(machine->reference);
    char text[512];
    random_cpu_state(cpu, in);
    cpu->regs[REG_RIP] = CODE;
    if (!steer_operand(cpu, in))
        return;
    for (unsigned i = 0; i < 16; i++) {
        uint64_t data = random_float_bits();
        memory_write(&machine->memory, DATA + (random64() & 0xFF8), &data, 8);
    }
    memory_write(&machine->memory, CODE, bytes, INSN_MAX_LENGTH);
    if (!reference_lockstep_before(machine->reference, cpu))
        return;
    cpu->pending = 0;
    cpu_run(cpu, cpu_now(cpu) + 1000000, true);
    if (cpu->regs[REG_RIP] != step->next_rip) {
        tally->faults++;
        snprintf(text, sizeof text, "exception %u here, none on the reference executor", cpu->event.vector);
        if (!known_deviation(in->op, OTHER_UNICORN))
            report_failure(tally, "unicorn", step, code_size, text);
        // The exception's delivery has no IDT: put the processor back to its state.
        cpu_reset(cpu, false);
        enter_mode(machine, code_size);
        return;
    }
    tally->unicorn++;
    tally->ops_seen += !tally->op_seen[in->op];
    tally->op_seen[in->op] = true;
    if (!reference_lockstep_after(machine->reference, cpu, text, sizeof text) && !known_deviation(in->op, OTHER_UNICORN))
        report_failure(tally, "unicorn", step, code_size, text);
    if (code_size == MODE_CODE64 && host_oracle_available()) {
        tally->host++;
        if (!same_as_host(step, cpu, text, sizeof text) && !known_deviation(in->op, OTHER_HOST))
            report_failure(tally, "host", step, code_size, text);
    }
}

int main(int argc, char **argv)
{
    uint64_t wanted = argc > 1 ? strtoull(argv[1], NULL, 0) : 1000000;
    random_state = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    static struct tally tally;
    static const unsigned sizes[] = {MODE_CODE64, MODE_CODE64, MODE_CODE32, MODE_CODE16};
    for (unsigned round = 0; round < 4; round++) {
        struct vmxon_config config;
        struct vmxon *vm;
        struct vmxon_error error;
        vmxon_config_init(&config);
        config.memory_size = 4 << 20;
        if (vmxon_create(&config, &vm, &error) != VMXON_OK) {
            printf("%s\n0 passed, 1 failed\n", error.text);
            return 1;
        }
        struct machine *machine = (struct machine *)vm;
        enter_mode(machine, sizes[round]);
        uint64_t goal = wanted * (round + 1) / 4;
        while (tally.unicorn < goal) {
            uint8_t bytes[INSN_MAX_LENGTH];
            struct insn in;
            if (!random_instruction(sizes[round], bytes, &in))
                continue;
            for (unsigned i = 0; i < STATES; i++)
                try_once(machine, sizes[round], bytes, &in, &tally);
        }
        vmxon_destroy(vm);
    }
    printf("%" PRIu64 " instructions compared with Unicorn, %" PRIu64 " of them with the host; %" PRIu64 " operations\n", tally.unicorn,
           tally.host, tally.ops_seen);
    for (unsigned i = 0; i < OP_COUNT; i++) {
        if (tally.op_failed[i])
            printf("FAIL %s: %" PRIu64 " times\n", op_name(i), tally.op_failed[i]);
    }
    for (unsigned i = 0; i < DEVIATION_COUNT; i++)
        printf("known deviation, met %" PRIu64 " times: %s: %s\n", deviation_hits[i], op_name(deviations[i].op), deviations[i].reason);
    printf("%" PRIu64 " passed, %" PRIu64 " failed\n", tally.unicorn - (tally.failed < tally.unicorn ? tally.failed : tally.unicorn),
           tally.failed);
    return tally.failed != 0;
}
