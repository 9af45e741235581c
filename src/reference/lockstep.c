// Lockstep: every ordinary instruction runs on the native core and on the reference executor; the results are compared.
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cpu/exec.h"
#include "reference/engine.h"
#include "reference/undefined_flags.h"

// Ordinary: general registers, XMM registers and at most the one memory operand that ModRM names.
static bool is_ordinary(const struct insn *in)
{
    enum op_class class = op_class(in->op);
    if (class != OP_CLASS_INTEGER && class != OP_CLASS_SSE)
        return false;
    switch (in->op) {
    // Implicit memory operands, or what the engine's own environment decides.
    case OP_PUSH: case OP_POP: case OP_PUSHA: case OP_POPA: case OP_PUSHF: case OP_POPF: case OP_ENTER: case OP_LEAVE:
    case OP_XLAT: case OP_MOVS: case OP_STOS: case OP_LODS: case OP_SCAS: case OP_CMPS: case OP_INS: case OP_OUTS:
    case OP_MASKMOVDQU: case OP_MASKMOVQ: case OP_LDMXCSR: case OP_STMXCSR: case OP_PUSH_SREG: case OP_POP_SREG:
    case OP_MOV_FROM_SREG: case OP_MOV_TO_SREG: case OP_BOUND: case OP_ARPL:
        return false;
    // BT with a register bit offset addresses memory beyond the operand.
    case OP_BT: case OP_BTS: case OP_BTR: case OP_BTC: return in->form == FORM_REG || in->has_imm;
    case OP_LEA: return in->base != REG_RIP; // its operand is an address, which encode_moved would change
    default: return !in->moffs;
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

bool reference_lockstep_before(struct reference *reference, struct cpu *cpu)
{
    struct lockstep *step = reference_lockstep(reference);
    gva_t rip = cpu->segments[SEG_CS].base + cpu->regs[REG_RIP];
    if (!cpu_64bit(cpu))
        rip = (uint32_t)rip;
    unsigned available = INSN_MAX_LENGTH;
    while (available > 0 && !probe(cpu, rip, step->bytes, available))
        available--;
    if (available == 0 || decode(step->bytes, available, cpu->mode, &step->in) != DECODE_OK || !is_ordinary(&step->in))
        return false;
    if (step->in.op == OP_LEA)
        return false;
    if (step->in.base == REG_RIP)
        step->in.disp += step->in.length;
    step->next_rip = (cpu->regs[REG_RIP] + step->in.length) & cpu->rip_mask;
    reference_state_from(&step->before, cpu);
    step->before.memory_size = op_memory_size(&step->in);
    if (step->before.memory_size) {
        step->linear = exec_offset(cpu, &step->in) + cpu->segments[step->in.segment].base;
        if (cpu_64bit(cpu) && step->in.segment < SEG_FS)
            step->linear = exec_offset(cpu, &step->in);
        if (!cpu_64bit(cpu))
            step->linear = (uint32_t)step->linear;
        if (!probe(cpu, step->linear, step->before.memory, step->before.memory_size))
            return false;
    }
    step->after = step->before;
    return reference_run(reference, &step->in, step->bytes, cpu->mode & MODE_CODE_MASK, &step->after);
}

static bool report(const struct lockstep *step, char *text, size_t size, const char *what, uint64_t ours, uint64_t theirs)
{
    char bytes[3 * INSN_MAX_LENGTH + 1] = "";
    for (unsigned i = 0; i < step->in.length; i++)
        snprintf(bytes + 3 * i, 4, "%02x ", step->bytes[i]);
    snprintf(text, size,
             "lockstep: %s (%s) before RIP 0x%" PRIx64 ": %s is 0x%" PRIx64 " here and 0x%" PRIx64 " on the reference executor",
             op_name(step->in.op), bytes, step->next_rip, what, ours, theirs);
    return false;
}

bool reference_lockstep_after(struct reference *reference, struct cpu *cpu, char *text, size_t size)
{
    static const char *const names[16] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                          "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15"};
    struct lockstep *step = reference_lockstep(reference);
    if (cpu->regs[REG_RIP] != step->next_rip)
        return true; // it faulted, or an event came
    for (unsigned i = 0; i < 16; i++) {
        if (cpu->regs[i] != step->after.gpr[i])
            return report(step, text, size, names[i], cpu->regs[i], step->after.gpr[i]);
    }
    uint64_t defined = RFLAGS_ARITHMETIC & ~undefined_flags(&step->in, step->before.gpr[REG_RCX]);
    uint64_t flags = cpu_rflags(cpu);
    if ((flags ^ step->after.rflags) & defined)
        return report(step, text, size, "RFLAGS", flags & defined, step->after.rflags & defined);
    for (unsigned i = 0; i < 16; i++) {
        char name[8];
        snprintf(name, sizeof name, "XMM%u", i);
        if (cpu->xmm[i].lo != step->after.xmm[i].lo)
            return report(step, text, size, name, cpu->xmm[i].lo, step->after.xmm[i].lo);
        if (cpu->xmm[i].hi != step->after.xmm[i].hi)
            return report(step, text, size, name, cpu->xmm[i].hi, step->after.xmm[i].hi);
    }
    uint8_t memory[sizeof step->after.memory];
    if (step->after.memory_size && probe(cpu, step->linear, memory, step->after.memory_size) &&
        memcmp(memory, step->after.memory, step->after.memory_size) != 0) {
        uint64_t ours = 0, theirs = 0;
        memcpy(&ours, memory, step->after.memory_size < 8 ? step->after.memory_size : 8);
        memcpy(&theirs, step->after.memory, step->after.memory_size < 8 ? step->after.memory_size : 8);
        return report(step, text, size, "the memory operand", ours, theirs);
    }
    return true;
}
