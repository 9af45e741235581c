// Lockstep: every ordinary instruction runs on the native core and on the reference executor; the results are compared.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cpu/exec.h"
#include "cpu/select.h"
#include "reference/deviations.h"
#include "reference/undefined_flags.h"

// Ordinary: general registers, XMM registers and at most the one memory operand that ModRM or moffs names.
static bool is_ordinary(const struct insn *in)
{
    enum op_class class = op_class(in->op);
    if ((class != OP_CLASS_INTEGER && class != OP_CLASS_SSE) || select_is_reference(in->op))
        return false;
    switch (in->op) {
    // Implicit memory operands, or what the engine's own environment decides.
    case OP_PUSH:
    case OP_POP:
    case OP_PUSHA:
    case OP_POPA:
    case OP_PUSHF:
    case OP_POPF:
    case OP_ENTER:
    case OP_LEAVE:
    case OP_XLAT:
    case OP_MOVS:
    case OP_STOS:
    case OP_LODS:
    case OP_SCAS:
    case OP_CMPS:
    case OP_INS:
    case OP_OUTS:
    case OP_MASKMOVDQU:
    case OP_MASKMOVQ:
    case OP_LDMXCSR:
    case OP_STMXCSR:
    case OP_PUSH_SREG:
    case OP_POP_SREG:
    case OP_MOV_FROM_SREG:
    case OP_MOV_TO_SREG:
    case OP_BOUND:
    case OP_ARPL: return false;
    case OP_LEA: return in->base != REG_RIP; // its operand is an address, which is not moved
    default: return true;
    }
}

int64_t reference_operand_shift(const struct insn *in, const struct reference_state *state)
{
    switch (in->op) {
    case OP_BT:
    case OP_BTS:
    case OP_BTR:
    case OP_BTC: break;
    default: return 0;
    }
    if (in->form != FORM_MEM || in->has_imm)
        return 0;
    switch (in->size_log2) {
    case 1: return ((int16_t)state->gpr[in->reg] >> 4) * 2;
    case 2: return ((int32_t)state->gpr[in->reg] >> 5) * 4;
    default: return ((int64_t)state->gpr[in->reg] >> 6) * 8;
    }
}

static bool probe(const struct cpu *cpu, gva_t linear, uint8_t *buffer, unsigned size)
{
    for (unsigned i = 0; i < size; i++) {
        hpa_t physical;
        if (!mmu_probe(&cpu->mmu, linear + i, &physical) || !memory_read(cpu->memory, physical, buffer + i, 1))
            return false;
    }
    return true;
}

static gva_t operand_linear(const struct cpu *cpu, const struct lockstep *step)
{
    const struct insn *in = &step->in;
    uint64_t offset = in->moffs ? (uint64_t)in->imm : exec_offset(cpu, in);
    offset = (offset + (uint64_t)reference_operand_shift(in, &step->before)) & cpu->addr_mask[in->addr_log2];
    if (cpu_64bit(cpu))
        return offset + (in->segment < SEG_FS ? 0 : cpu->segments[in->segment].base);
    return (uint32_t)(offset + cpu->segments[in->segment].base);
}

bool lockstep_prepare(struct lockstep *step, struct cpu *cpu)
{
    gva_t rip = cpu->segments[SEG_CS].base + cpu->regs[REG_RIP];
    if (!cpu_64bit(cpu))
        rip = (uint32_t)rip;
    unsigned available = INSN_MAX_LENGTH;
    while (available > 0 && !probe(cpu, rip, step->bytes, available))
        available--;
    if (available == 0 || decode(step->bytes, available, cpu->mode, &step->in) != DECODE_OK)
        return false;
    step->code_size = cpu->mode & MODE_CODE_MASK;
    if (step->in.base == REG_RIP)
        step->in.disp += step->in.length;
    step->operand = 0;
    step->next_rip = (cpu->regs[REG_RIP] + step->in.length) & cpu->rip_mask;
    reference_state_from(&step->before, cpu);
    step->before.memory_size = op_memory_size(&step->in);
    if (step->before.memory_size == 0)
        return true;
    // The engine's operand is moved the other way by as much, which has to fit a displacement.
    int64_t shift = reference_operand_shift(&step->in, &step->before);
    if (shift < -(1 << 29) || shift > 1 << 29)
        return false;
    step->linear = operand_linear(cpu, step);
    return probe(cpu, step->linear, step->before.memory, step->before.memory_size);
}

bool reference_lockstep_before(struct reference *reference, struct cpu *cpu)
{
    struct lockstep *step = reference_lockstep(reference);
    if (!lockstep_prepare(step, cpu) || !is_ordinary(&step->in))
        return false;
    step->after = step->before;
    return reference_run(reference, &step->in, step->bytes, cpu->mode & MODE_CODE_MASK, &step->after);
}

static struct difference different(enum difference_kind kind, unsigned index, uint64_t ours, uint64_t theirs)
{
    return (struct difference){.kind = kind, .index = index, .ours = ours, .theirs = theirs};
}

// One bit a physical register: 0 empty.
static unsigned abridged_tag(uint16_t tag)
{
    unsigned present = 0;
    for (unsigned i = 0; i < 8; i++)
        present |= (unsigned)((tag >> 2 * i & 3) != 3) << i;
    return present;
}

static struct difference compare_x87(const struct reference_state *ours, const struct reference_state *theirs)
{
    for (unsigned i = 0; i < 8; i++) {
        uint64_t a, b;
        memcpy(&a, ours->st[i], 8);
        memcpy(&b, theirs->st[i], 8);
        if (a != b)
            return different(DIFFERENT_X87, i, a, b);
        if (memcmp(ours->st[i] + 8, theirs->st[i] + 8, 2) != 0)
            return different(DIFFERENT_X87, X87_EXPONENT + i, ours->st[i][8] | (uint64_t)ours->st[i][9] << 8,
                             theirs->st[i][8] | (uint64_t)theirs->st[i][9] << 8);
    }
    if (ours->fpu_control != theirs->fpu_control)
        return different(DIFFERENT_X87, X87_CONTROL, ours->fpu_control, theirs->fpu_control);
    if (ours->fpu_status != theirs->fpu_status)
        return different(DIFFERENT_X87, X87_STATUS, ours->fpu_status, theirs->fpu_status);
    if (abridged_tag(ours->fpu_tag) != abridged_tag(theirs->fpu_tag))
        return different(DIFFERENT_X87, X87_TAG, abridged_tag(ours->fpu_tag), abridged_tag(theirs->fpu_tag));
    return (struct difference){0};
}

struct difference lockstep_compare(const struct lockstep *step, const struct reference_state *ours,
                                   const struct reference_state *theirs)
{
    for (unsigned i = 0; i < 16; i++) {
        if (ours->gpr[i] != theirs->gpr[i])
            return different(DIFFERENT_GPR, i, ours->gpr[i], theirs->gpr[i]);
    }
    uint64_t defined = (RFLAGS_ARITHMETIC | RFLAGS_DF) & ~undefined_flags(&step->in, step->before.gpr[REG_RCX]);
    if ((ours->rflags ^ theirs->rflags) & defined)
        return different(DIFFERENT_FLAGS, 0, ours->rflags & defined, theirs->rflags & defined);
    for (unsigned i = 0; i < 16; i++) {
        if (ours->xmm[i].lo != theirs->xmm[i].lo)
            return different(DIFFERENT_XMM, i, ours->xmm[i].lo, theirs->xmm[i].lo);
        if (ours->xmm[i].hi != theirs->xmm[i].hi)
            return different(DIFFERENT_XMM, i, ours->xmm[i].hi, theirs->xmm[i].hi);
    }
    for (unsigned i = 0; i < ours->memory_size; i++) {
        if (ours->memory[i] != theirs->memory[i])
            return different(DIFFERENT_MEMORY, i, ours->memory[i], theirs->memory[i]);
    }
    struct difference x87 = compare_x87(ours, theirs);
    if (x87.kind != SAME)
        return x87;
    if (ours->mxcsr != theirs->mxcsr)
        return different(DIFFERENT_MXCSR, 0, ours->mxcsr, theirs->mxcsr);
    return (struct difference){0};
}

void lockstep_describe(const struct difference *difference, const char *who, char *text, size_t size)
{
    static const char *const gprs[16] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                         "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15"};
    static const char *const controls[] = {"the x87 control word", "the x87 status word", "the x87 tag"};
    char what[32];
    switch (difference->kind) {
    case DIFFERENT_EXCEPTION:
        snprintf(text, size, "exception %d here and %d on %s (-1: none)", (int)difference->ours - 1,
                 (int)difference->theirs - 1, who);
        return;
    case DIFFERENT_GPR: snprintf(what, sizeof what, "%s", gprs[difference->index]); break;
    case DIFFERENT_FLAGS: snprintf(what, sizeof what, "RFLAGS"); break;
    case DIFFERENT_XMM: snprintf(what, sizeof what, "XMM%u", difference->index); break;
    case DIFFERENT_MEMORY: snprintf(what, sizeof what, "byte %u of the memory operand", difference->index); break;
    case DIFFERENT_MXCSR: snprintf(what, sizeof what, "MXCSR"); break;
    case DIFFERENT_X87:
        if (difference->index >= X87_CONTROL && difference->index <= X87_TAG)
            snprintf(what, sizeof what, "%s", controls[difference->index - X87_CONTROL]);
        else
            snprintf(what, sizeof what, "R%u (x87)", difference->index & 7);
        break;
    default: snprintf(what, sizeof what, "nothing"); break;
    }
    snprintf(text, size, "%s is 0x%" PRIx64 " here and 0x%" PRIx64 " on %s", what, difference->ours, difference->theirs,
             who);
}

bool reference_lockstep_after(struct reference *reference, struct cpu *cpu, char *text, size_t size)
{
    struct lockstep *step = reference_lockstep(reference);
    if (cpu->regs[REG_RIP] != step->next_rip)
        return true; // it faulted, or an event came
    struct reference_state ours;
    reference_state_from(&ours, cpu);
    ours.memory_size = step->after.memory_size;
    if (ours.memory_size && !probe(cpu, step->linear, ours.memory, ours.memory_size))
        return true;
    ours.mxcsr = step->after.mxcsr; // whose flags the engine does not report
    struct difference difference = lockstep_compare(step, &ours, &step->after);
    if (difference.kind == SAME || deviation_find(step, &difference) >= 0)
        return true;
    char bytes[3 * INSN_MAX_LENGTH + 1] = "", what[128];
    for (unsigned i = 0; i < step->in.length; i++)
        snprintf(bytes + 3 * i, 4, " %02x", step->bytes[i]);
    lockstep_describe(&difference, "the reference executor", what, sizeof what);
    snprintf(text, size, "lockstep: %s (%s) before RIP 0x%" PRIx64 ": %s", op_name(step->in.op), bytes + 1,
             step->next_rip, what);
    return false;
}
