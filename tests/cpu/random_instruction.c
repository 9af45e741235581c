#include "random_instruction.h"

#include <string.h>

#include "cpu/exec.h"
#include "cpu/mxcsr.h"
#include "cpu/select.h"

static uint64_t random_counter;

void random_seed(uint64_t seed) { random_counter = seed * 0x2545F4914F6CDD1D; }

uint64_t random64(void) // splitmix64
{
    uint64_t z = random_counter += 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
}

static uint64_t below(uint64_t limit) { return random64() % limit; }
static bool one_in(unsigned n) { return below(n) == 0; }

// ---- Values ----

// Values at which arithmetic goes wrong, and any others.
static uint64_t random_value(void)
{
    static const uint64_t special[] = {0,
                                       1,
                                       2,
                                       0x7F,
                                       0x80,
                                       0xFF,
                                       0x7FFF,
                                       0x8000,
                                       0xFFFF,
                                       0x7FFFFFFF,
                                       0x80000000,
                                       0xFFFFFFFF,
                                       0x7FFFFFFFFFFFFFFF,
                                       0x8000000000000000,
                                       UINT64_MAX,
                                       0xF,
                                       0x10,
                                       0x1F,
                                       0x20,
                                       0x3F,
                                       0x40};
    uint64_t choice = random64();
    if (choice % 3 == 0)
        return special[choice / 3 % (sizeof special / sizeof special[0])];
    return random64() >> (choice / 3 % 64);
}

// Floating-point patterns as well: zeros, infinities, NaNs, denormals, and numbers near one.
static uint64_t random_float_bits(void)
{
    static const uint64_t doubles[] = {0,
                                       0x8000000000000000,
                                       0x7FF0000000000000,
                                       0xFFF0000000000000,
                                       0x7FF8000000000001,
                                       0x7FF0000000000001,
                                       1,
                                       0x000FFFFFFFFFFFFF,
                                       0x3FF0000000000000,
                                       0x41DFFFFFFFC00000,
                                       0x0010000000000000,
                                       0x7FEFFFFFFFFFFFFF,
                                       0xC1E0000000000000,
                                       0x43E0000000000000};
    static const uint32_t floats[] = {0,          0x80000000, 0x7F800000, 0xFF800000, 0x7FC00001,
                                      0x7F800001, 1,          0x007FFFFF, 0x3F800000, 0x4F000000,
                                      0x00800000, 0x7F7FFFFF, 0xCF000000, 0x5F000000};
    uint64_t choice = random64();
    switch (choice % 5) {
    case 0: return doubles[choice / 8 % 14];
    case 1: return (uint64_t)floats[choice / 8 % 14] << 32 | floats[choice / 256 % 14];
    case 2: return 0x3FF0000000000000 ^ (random64() & 0x80FFFFFFFFFFFFFF);
    case 3: return 0x3F8000003F800000 ^ (random64() & 0x81FFFFFF81FFFFFF);
    default: return random_value();
    }
}

// ---- Instructions ----

// Prefix combinations that the SDM leaves open, or that executors are known to treat otherwise: REX not last, 66 beside F2 or F3,
// F2 beside F3. tests/cpu/test_decode.c has them.
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
        case 0x26:
        case 0x2E:
        case 0x36:
        case 0x3E:
        case 0x64:
        case 0x65:
        case 0x67:
        case 0xF0: break;
        default:
            // POPCNT, TZCNT, LZCNT have 16-bit forms.
            if (operand_size && repeat)
                return bytes[i] == 0x0F && (bytes[i + 1] == 0xB8 || bytes[i + 1] == 0xBC || bytes[i + 1] == 0xBD);
            if (code_size != MODE_CODE64 || (bytes[i] & 0xF0) != 0x40)
                return true;
            switch (bytes[i + 1]) {
            case 0x66:
            case 0xF2:
            case 0xF3:
            case 0x26:
            case 0x2E:
            case 0x36:
            case 0x3E:
            case 0x64:
            case 0x65:
            case 0x67:
            case 0xF0: return false;
            default: return (bytes[i + 1] & 0xF0) != 0x40;
            }
        }
    }
    return false;
}

static void random_bytes(uint8_t bytes[INSN_MAX_LENGTH], unsigned code_size)
{
    static const uint8_t prefixes[] = {0x66, 0x66, 0x66, 0xF2, 0xF3, 0xF3, 0x67, 0xF0, 0x2E, 0x64, 0x3E, 0x65};
    unsigned n = 0;
    for (unsigned i = 0; i < INSN_MAX_LENGTH; i++)
        bytes[i] = (uint8_t)(random64() >> 20);
    if (one_in(2))
        bytes[n++] = prefixes[below(sizeof prefixes)];
    if (one_in(6))
        bytes[n++] = prefixes[below(sizeof prefixes)];
    const bool rex = code_size == MODE_CODE64 && one_in(2);
    switch (below(16)) {
    case 0: // VEX, map 2 or 3, L = 0: the general-register instructions are at F0 to F7
        bytes[n] = 0xC4;
        bytes[n + 1] = (uint8_t)((bytes[n + 1] & 0xE0) | (one_in(4) ? 3 : 2));
        bytes[n + 2] &= 0xFB;
        bytes[n + 3] = (uint8_t)(0xF0 | (bytes[n + 3] & 7));
        return;
    case 1:
    case 2:
    case 3:
    case 4:
    case 5:
    case 6:
        if (rex)
            bytes[n++] = (uint8_t)(0x40 | below(16));
        bytes[n++] = 0x0F;
        if (one_in(32)) // MOVD and MOVQ, of which 66 REX.W is one form of many
            bytes[n] = one_in(2) ? 0x6E : 0x7E;
        return;
    case 7:
    case 8:
        if (rex)
            bytes[n++] = (uint8_t)(0x40 | below(16));
        bytes[n++] = 0x0F;
        bytes[n++] = one_in(3) ? 0x3A : 0x38;
        if (bytes[n - 1] == 0x38 && one_in(3))
            bytes[n] = (uint8_t)(0xF0 | (bytes[n] & 7)); // MOVBE, CRC32, ADCX, ADOX
        return;
    default:
        if (rex)
            bytes[n] = (uint8_t)(0x40 | below(16));
        return;
    }
}

// Memory operands that no ModRM names. False: none.
static bool has_implicit_memory(const struct insn *in)
{
    switch (in->op) {
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
    case OP_MASKMOVDQU:
    case OP_MASKMOVQ: return true;
    default: return false;
    }
}

bool random_trial_includes(unsigned op)
{
    enum op_class class = op_class(op);
    if (class == OP_CLASS_SYSTEM || class == OP_CLASS_BRANCH || class == OP_CLASS_VMX)
        return false;
    switch (op) {
    // Segment registers and exceptions of their own: tests/cpu/test_segment.c, test_exception.c. INS, OUTS: the machine's ports.
    case OP_PUSH_SREG:
    case OP_POP_SREG:
    case OP_MOV_FROM_SREG:
    case OP_MOV_TO_SREG:
    case OP_BOUND:
    case OP_ARPL:
    case OP_INS:
    case OP_OUTS: return false;
    // Not seen through the state that is compared, or loads it (LDMXCSR): tests/cpu/test_exec_sse.c. No row of opcodes.def is a MOVQ.
    case OP_MOVQ:
    case OP_LDMXCSR:
    case OP_STMXCSR:
    case OP_FWAIT:
    case OP_PAUSE: return false;
    default: return true;
    }
}

// Where neither the core nor the oracles would do what is to be compared.
static bool is_comparable(const struct trial *trial)
{
    const struct insn *in = &trial->in;
    const bool implicit = has_implicit_memory(in);
    // The images of the x87 state have the last instruction's addresses, which differ.
    const unsigned escape = in->op == OP_X87 ? (unsigned)in->imm >> 8 : 0;
    if (in->form == FORM_MEM &&
        ((escape == 1 && (in->reg == 4 || in->reg == 6)) || (escape == 5 && (in->reg == 4 || in->reg == 6))))
        return false;
    if (in->op == OP_X87 && in->form == FORM_REG && (in->imm & 7) == 7)
        return false; // ST(7) is empty, see random_float_control()
    // FS and GS have a base of the host's own; and outside 64-bit mode nothing can be written by way of CS.
    if ((in->flags & INSN_SEGMENT) && (in->form == FORM_MEM || implicit)) {
        if (trial->code_size != MODE_CODE64 && in->segment == SEG_CS &&
            (op_memory_written(in) || in->op == OP_MASKMOVDQU || in->op == OP_MASKMOVQ))
            return false;
        if (implicit && (in->segment >= SEG_FS || (trial->code_size == MODE_CODE16 && in->segment == SEG_CS)))
            return false;
    }
    // PUSH and POP of memory by way of RSP: near it only.
    if (implicit && in->form == FORM_MEM && in->base == REG_RSP &&
        (in->index != REG_NONE || in->disp < -64 || in->disp > 64))
        return false;
    if (implicit && (in->flags & (INSN_REP | INSN_REPNE)))
        return false;
    // The engine has no SSE in 16-bit code, and 32-bit code would address otherwise.
    return !(in->op == OP_MASKMOVDQU && trial->code_size == MODE_CODE16);
}

// Chooses the displacement of operands without a register that could be set. False: there is no room for one.
static bool set_displacement(struct trial *trial)
{
    struct insn *in = &trial->in;
    unsigned offset, size = encode_displacement(in, trial->bytes, trial->code_size, &offset);
    uint64_t target = trial->window + 16 * (1 + below(TRIAL_MEMORY / 16 - 3));
    if (op_memory_size(in) < 16 && one_in(2))
        target += below(16);
    if (in->base == REG_RIP)
        target -= TRIAL_CODE + in->length;
    if (size < 2 || (size == 2 && target > 0xFFFF))
        return false;
    const uint64_t value = target;
    memcpy(trial->bytes + offset, &value, size);
    return true;
}

bool random_trial(struct trial *trial, unsigned mode)
{
    struct insn *in = &trial->in;
    trial->code_size = mode & MODE_CODE_MASK;
    trial->window = trial->code_size == MODE_CODE16 ? TRIAL_WINDOW16 : TRIAL_WINDOW;
    random_bytes(trial->bytes, trial->code_size);
    if (!has_common_prefixes(trial->bytes, trial->code_size) ||
        decode(trial->bytes, INSN_MAX_LENGTH, mode, in) != DECODE_OK || !random_trial_includes(in->op) ||
        !is_comparable(trial))
        return false;
    if (in->op == OP_ENTER && one_in(2))
        trial->bytes[in->length - 1] &= 3;
    if (in->op == OP_ENTER)
        trial->bytes[in->length - 2] &= 0xF;
    const bool fixed_address =
        in->form == FORM_MEM && (in->moffs || in->base == REG_RIP || (in->base == REG_NONE && in->index == REG_NONE));
    if (fixed_address && in->op != OP_LEA && !set_displacement(trial))
        return false;
    if (in->addr_log2 == 1 && trial->window > 0xFFFF && (in->form == FORM_MEM || has_implicit_memory(in)))
        trial->window = TRIAL_WINDOW16;
    if (in->addr_log2 == 1 && fixed_address && in->op != OP_LEA && !set_displacement(trial))
        return false;
    decode(trial->bytes, INSN_MAX_LENGTH, mode, in);
    if (in->base == REG_RIP)
        in->disp += in->length;
    trial->native = !select_is_reference(in->op);
    trial->in_place = has_implicit_memory(in);
    // Half of the others, where the oracles can run them so. The engine's CS has another base in 16-bit code, where it has no SSE and no VEX.
    if (in->form == FORM_MEM && op_memory_size(in) && in->base != REG_RIP && in->segment < SEG_FS && one_in(2) &&
        (trial->code_size != MODE_CODE16 || (op_class(in->op) == OP_CLASS_INTEGER && !in->vex && in->op != OP_ADCX &&
                                             in->op != OP_ADOX && in->segment != SEG_CS)))
        trial->in_place = true;
    return in->base != REG_RIP || (in->op != OP_LEA && !trial->in_place);
}

// ---- States ----

static uint64_t address_mask(unsigned addr_log2)
{
    return addr_log2 == 3 ? UINT64_MAX : ((uint64_t)1 << (8u << addr_log2)) - 1;
}

// A value for an address register: bits beyond the address size do not count.
static uint64_t with_random_top(uint64_t value, unsigned addr_log2, const struct cpu *cpu)
{
    uint64_t mask = address_mask(addr_log2), top = cpu_64bit(cpu) ? random64() : (uint32_t)random64();
    return (value & mask) | (top & ~mask);
}

// Sets the registers that instructions with implicit memory operands use as addresses.
static void steer_implicit(const struct trial *trial, struct cpu *cpu)
{
    const struct insn *in = &trial->in;
    const uint64_t middle = trial->window + TRIAL_MEMORY / 2 + below(32);
    const unsigned stack_log2 = trial->code_size == MODE_CODE64 ? 3 : trial->code_size == MODE_CODE32 ? 2 : 1;
    switch (in->op) {
    case OP_XLAT: cpu->regs[REG_RBX] = with_random_top(trial->window + below(256), in->addr_log2, cpu); break;
    case OP_MOVS:
    case OP_STOS:
    case OP_LODS:
    case OP_SCAS:
    case OP_CMPS:
    case OP_MASKMOVDQU:
    case OP_MASKMOVQ:
        cpu->regs[REG_RSI] = with_random_top(trial->window + 16 + below(TRIAL_MEMORY - 64), in->addr_log2, cpu);
        cpu->regs[REG_RDI] = with_random_top(trial->window + 16 + below(TRIAL_MEMORY - 64), in->addr_log2, cpu);
        break;
    case OP_LEAVE: cpu->regs[REG_RBP] = with_random_top(middle, stack_log2, cpu); break;
    case OP_ENTER:
        // 31 levels of 8 bytes are copied from below the one to below the other: they do not overlap, because a processor may begin anew.
        cpu->regs[REG_RSP] = with_random_top(trial->window + TRIAL_MEMORY - 8, stack_log2, cpu);
        cpu->regs[REG_RBP] = with_random_top(trial->window + TRIAL_MEMORY / 2 - 8, stack_log2, cpu);
        break;
    default: cpu->regs[REG_RSP] = with_random_top(middle, stack_log2, cpu); break;
    }
}

// Sets a register of the address so that the operand, `size` bytes, lies in the window. False: it cannot be done.
static bool steer_operand(const struct trial *trial, struct cpu *cpu, unsigned size)
{
    const struct insn *in = &trial->in;
    uint64_t target = trial->window + 16 * (4 + below(TRIAL_MEMORY / 16 - 9));
    // Unaligned operands of 16 bytes: only where a processor can tell what is right.
    if ((size < 16 && one_in(3)) || (trial->code_size == MODE_CODE64 && trial->in_place && one_in(6)))
        target += below(16);
    const bool bit_offset =
        (in->op == OP_BT || in->op == OP_BTS || in->op == OP_BTR || in->op == OP_BTC) && !in->has_imm;
    if (bit_offset) {
        if (in->reg == in->base || in->reg == in->index)
            return false;
        cpu->regs[in->reg] = (below(256) - 128) & (size == 8 ? UINT64_MAX : ((uint64_t)1 << 8 * size) - 1);
    }
    if (in->base == REG_NONE && in->index == REG_NONE)
        return true; // set_displacement() did it
    if (in->base == REG_RIP || in->moffs)
        return true;
    if (in->base == REG_RSP && has_implicit_memory(in))
        return true;
    const uint64_t mask = address_mask(in->addr_log2);
    uint64_t sum = target - (uint64_t)(int64_t)in->disp;
    if (in->base == in->index) { // base * (1 + 2^scale)
        if (in->addr_log2 != 3)
            sum &= mask;
        cpu->regs[in->base] = (uint64_t)((int64_t)sum / (1 + (1 << in->scale)));
        return size < 16;
    }
    if (in->base == REG_NONE) {
        if (in->addr_log2 != 3)
            sum &= mask;
        cpu->regs[in->index] = (uint64_t)((int64_t)sum >> in->scale);
        return size < 16;
    }
    if (in->index != REG_NONE)
        cpu->regs[in->index] = with_random_top((below(256) - 128) & mask, in->addr_log2, cpu);
    sum -= cpu->regs[in->index] << in->scale;
    cpu->regs[in->base] = with_random_top(sum, in->addr_log2, cpu);
    return true;
}

static void random_float_control(struct cpu *cpu, const struct trial *trial)
{
    cpu->mxcsr = 0x1F80;
    if (op_class(trial->in.op) == OP_CLASS_SSE) {
        cpu->mxcsr |= (uint32_t)(below(4) << MXCSR_RC_SHIFT | (one_in(2) ? 0 : below(64)));
        if (one_in(4))
            cpu->mxcsr |= (uint32_t)random64() & (MXCSR_FTZ | MXCSR_DAZ);
        // Exceptions: only where a processor can tell what is right, because the engine raises none.
        if (trial->code_size == MODE_CODE64 && one_in(8))
            cpu->mxcsr &= (uint32_t)random64() | ~0x1F80u;
    }
    memset(&cpu->fpu, 0, sizeof cpu->fpu);
    cpu->fpu.control = 0x37F;
    cpu->fpu.tag = 0xFFFF;
    enum op_class class = op_class(trial->in.op);
    if (trial->native || (class != OP_CLASS_MMX && class != OP_CLASS_X87 && trial->in.op != OP_SSSE3))
        return;
    cpu->fpu.status = (uint16_t)(below(8) << 11);
    for (unsigned i = 0; i < 8; i++) {
        cpu->fpu.st[i].mantissa = random_float_bits();
        cpu->fpu.st[i].sign_exponent = 0xFFFF;
        if (class == OP_CLASS_X87) {
            cpu->fpu.st[i].mantissa |= (uint64_t)1 << 63;
            cpu->fpu.st[i].sign_exponent = (uint16_t)(0x3FF0 + below(32) + (below(2) << 15));
        }
    }
    // ST(7) is empty, so that no stack fault happens: the engine knows none.
    unsigned top = cpu->fpu.status >> 11 & 7;
    cpu->fpu.tag = (uint16_t)(3u << 2 * ((top + 7) & 7));
}

// What makes the interesting cases of an operation likely.
static void favour_cases(const struct trial *trial, struct cpu *cpu, uint8_t *operand)
{
    const struct insn *in = &trial->in;
    switch (in->op) {
    case OP_DIV:
    case OP_IDIV: // with independent operands half would raise #DE
        if (operand)
            break;
        if (!one_in(8))
            cpu->regs[REG_RDX] = one_in(3) ? 0 : one_in(2) ? UINT64_MAX : random64() & 0xF;
        if (!one_in(8) && in->size_log2 == 0)
            cpu->regs[REG_RAX] &= ~(uint64_t)0xF800;
        if (!cpu_64bit(cpu))
            cpu->regs[REG_RDX] = (uint32_t)cpu->regs[REG_RDX];
        break;
    case OP_CMPXCHG:
    case OP_CMPXCHG8B:
    case OP_CMPXCHG16B:
        if (!operand || one_in(2))
            break;
        if (in->op == OP_CMPXCHG) {
            memcpy(operand, &cpu->regs[REG_RAX], 1u << in->size_log2);
        } else {
            unsigned half = in->op == OP_CMPXCHG8B ? 4 : 8;
            memcpy(operand, &cpu->regs[REG_RAX], half);
            memcpy(operand + half, &cpu->regs[REG_RDX], half);
        }
        break;
    default: break;
    }
}

bool random_state(const struct trial *trial, struct cpu *cpu, uint8_t memory[TRIAL_MEMORY])
{
    const struct insn *in = &trial->in;
    const bool vectors = op_class(in->op) != OP_CLASS_INTEGER;
    for (unsigned i = 0; i < 16; i++)
        cpu->regs[i] = random_value();
    if (!cpu_64bit(cpu)) {
        for (unsigned i = 0; i < 16; i++)
            cpu->regs[i] = i < 8 ? (uint32_t)cpu->regs[i] : 0;
    }
    for (unsigned i = 0; i < (vectors ? 16u : 1u); i++)
        cpu->xmm[i] = (struct xmm){random_float_bits(), random_float_bits()};
    if (!cpu_64bit(cpu))
        memset(cpu->xmm + 8, 0, sizeof cpu->xmm / 2);
    for (unsigned i = 0; i < TRIAL_MEMORY; i += 8) {
        uint64_t data = vectors ? random_float_bits() : random_value();
        memcpy(memory + i, &data, 8);
    }
    random_float_control(cpu, trial);
    cpu->rflags_system = (uint32_t)(RFLAGS_ONE | (random64() & RFLAGS_DF));
    flags_set_arithmetic(cpu, random64());
    cpu->regs[REG_RIP] = TRIAL_CODE;
    favour_cases(trial, cpu, NULL);
    if (has_implicit_memory(in))
        steer_implicit(trial, cpu);
    const unsigned size = op_memory_size(in);
    if (in->form == FORM_MEM && in->op != OP_LEA && !steer_operand(trial, cpu, size))
        return false;
    if (in->op == OP_POPF) { // only flags that do not change how the machine runs
        for (unsigned i = 0; i < TRIAL_MEMORY; i++)
            memory[i] = 0;
        uint64_t at = (cpu->regs[REG_RSP] & address_mask(trial->code_size + 1)) - trial->window;
        uint16_t flags = (uint16_t)(random64() & (RFLAGS_ARITHMETIC | RFLAGS_DF));
        memcpy(memory + at, &flags, 2);
    }
    if (in->form == FORM_MEM && size) {
        uint64_t offset = in->moffs ? (uint64_t)in->imm : exec_offset(cpu, in);
        if (!in->moffs && in->op != OP_LEA && (offset < trial->window || offset + size > trial->window + TRIAL_MEMORY))
            return false;
        favour_cases(trial, cpu, memory + (offset - trial->window));
    }
    return true;
}
