// The Unicorn side of the reference executor: engines, state in and out, one instruction.
//
// One engine a code size, made when first needed. An instruction is put, followed by HLT, into a slot of its own, found again by
// its bytes, so that the engine's translation stays valid; when the slots are used up the engine is made anew, because it was seen to keep
// translations of code that was overwritten. The engine runs flat, without paging, at address 0.
//   0x00000..0x1FFFF data: the memory operand lies at SCRATCH_OPERAND
//   0x20000..        slots of SLOT_SIZE bytes
// Unicorn 2.0.1 reports an exception only the first time that an engine has one; whether an instruction was carried out is seen by RIP.
// Whatever the CPU model, it refuses POPCNT, MOVBE and PCLMULQDQ.
// DEVIATION(reference_exceptions): the engine reports no flags in MXCSR and none but C0, C2, C3 in the x87 status word; there are no x87 stack
// faults, and no #XM or #MF from what runs here. Transcendental functions and FPREM have 53 bits.
// DEVIATION(reference_fpu_pointers): x87 instruction and data pointers are set by us to the instruction's, not by the engine.
#include "reference/reference.h"

#include <stdlib.h>
#include <string.h>
#include <unicorn/unicorn.h>

#include "base/assert.h"
#include "base/host.h"
#include "cpu/exec.h"
#include "reference/engine.h"
#include "reference/x87_environment.h"

enum {
    SLOT_SIZE = 32,
    SLOT_COUNT = 16384,
    HASH_SIZE = 2 * SLOT_COUNT, // a power of two
    CODE_ADDRESS = REFERENCE_DATA_SIZE,
    SCRATCH_OPERAND = 0x400,
    ARENA_SIZE = CODE_ADDRESS + SLOT_SIZE * SLOT_COUNT,
};

#define FPU_STATUS_TOP    BITS(13, 11)
#define FPU_CONTROL_BITS  0x1F3Fu
#define FPU_CONTROL_FIXED 0x0040u // reads as 1

struct engine {
    uc_engine *uc;
    uint8_t *arena; // the engine's memory, ARENA_SIZE bytes
    unsigned slots_used;
    uint16_t code_segment;    // 16-bit code: the engine's CS, with base CS * 16
    uint16_t hash[HASH_SIZE]; // slot number + 1 by the hash of its bytes; 0: free
};

struct reference {
    struct engine engine[3]; // by code size: enum code_mode
    struct lockstep lockstep;
};

static void engine_close(struct engine *engine)
{
    if (engine->uc)
        uc_close(engine->uc);
    if (engine->arena)
        host_unmap(engine->arena, ARENA_SIZE);
    *engine = (struct engine){0};
}

struct reference *reference_create(void) { return calloc(1, sizeof(struct reference)); }

void reference_destroy(struct reference *reference)
{
    for (unsigned i = 0; i < 3; i++)
        engine_close(&reference->engine[i]);
    free(reference);
}

struct lockstep *reference_lockstep(struct reference *reference) { return &reference->lockstep; }

static bool engine_open(struct engine *engine, unsigned code_size)
{
    static const uc_mode modes[3] = {UC_MODE_16, UC_MODE_32, UC_MODE_64};
    engine->arena = host_map_zeroed(ARENA_SIZE);
    if (!engine->arena || uc_open(UC_ARCH_X86, modes[code_size], &engine->uc) != UC_ERR_OK)
        return false;
    uc_ctl_set_cpu_model(engine->uc, UC_CPU_X86_SKYLAKE_CLIENT);
    if (uc_mem_map_ptr(engine->uc, 0, ARENA_SIZE, UC_PROT_ALL, engine->arena) != UC_ERR_OK)
        return false;
    // Without an `until` address the engine does not retranslate at each start; HLT ends the run.
    uc_ctl_exits_enable(engine->uc);
    uint64_t cr4 = 0;
    uc_reg_read(engine->uc, UC_X86_REG_CR4, &cr4);
    cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    uc_reg_write(engine->uc, UC_X86_REG_CR4, &cr4);
    return true;
}

// The address of the slot that holds exactly these bytes and HLT; 0 if there is none and none is free.
static uint64_t engine_slot(struct engine *engine, const uint8_t *bytes, unsigned length)
{
    uint8_t code[SLOT_SIZE];
    uint32_t hash = 2166136261u;
    memset(code, 0xF4, sizeof code); // HLT
    memcpy(code, bytes, length);
    for (unsigned i = 0; i < length; i++)
        hash = (hash ^ bytes[i]) * 16777619u;
    for (unsigned place = (hash ^ hash >> 15) % HASH_SIZE;; place = (place + 1) % HASH_SIZE) {
        if (engine->hash[place] == 0) {
            if (engine->slots_used == SLOT_COUNT)
                return 0;
            uint64_t address = CODE_ADDRESS + (uint64_t)engine->slots_used * SLOT_SIZE;
            memcpy(engine->arena + address, code, sizeof code);
            engine->hash[place] = (uint16_t)++engine->slots_used;
            return address;
        }
        uint64_t address = CODE_ADDRESS + (uint64_t)(engine->hash[place] - 1) * SLOT_SIZE;
        if (memcmp(engine->arena + address, code, sizeof code) == 0)
            return address;
    }
}

static int gpr_ids[] = {UC_X86_REG_RAX, UC_X86_REG_RCX, UC_X86_REG_RDX, UC_X86_REG_RBX, UC_X86_REG_RSP, UC_X86_REG_RBP,
                        UC_X86_REG_RSI, UC_X86_REG_RDI, UC_X86_REG_R8,  UC_X86_REG_R9,  UC_X86_REG_R10, UC_X86_REG_R11,
                        UC_X86_REG_R12, UC_X86_REG_R13, UC_X86_REG_R14, UC_X86_REG_R15};
static int gpr32_ids[] = {UC_X86_REG_EAX, UC_X86_REG_ECX, UC_X86_REG_EDX, UC_X86_REG_EBX,
                          UC_X86_REG_ESP, UC_X86_REG_EBP, UC_X86_REG_ESI, UC_X86_REG_EDI};

static void put_gprs(uc_engine *uc, const struct reference_state *state, unsigned code_size)
{
    void *values[16];
    for (unsigned i = 0; i < 16; i++)
        values[i] = (void *)(uintptr_t)&state->gpr[i];
    if (code_size == MODE_CODE64)
        uc_reg_write_batch(uc, gpr_ids, values, 16);
    else
        uc_reg_write_batch(uc, gpr32_ids, values, 8);
    uint64_t rflags = state->rflags;
    uc_reg_write(uc, UC_X86_REG_EFLAGS, &rflags);
}

static void get_gprs(uc_engine *uc, struct reference_state *state, unsigned code_size)
{
    void *values[16];
    for (unsigned i = 0; i < 16; i++)
        values[i] = &state->gpr[i];
    if (code_size == MODE_CODE64) {
        uc_reg_read_batch(uc, gpr_ids, values, 16);
    } else {
        for (unsigned i = 0; i < 8; i++)
            state->gpr[i] &= 0xFFFFFFFF00000000;
        uc_reg_read_batch(uc, gpr32_ids, values, 8);
    }
    uint64_t rflags = 0;
    uc_reg_read(uc, UC_X86_REG_EFLAGS, &rflags);
    state->rflags = rflags;
}

static int vector_ids[] = {UC_X86_REG_XMM0,  UC_X86_REG_XMM1,  UC_X86_REG_XMM2,  UC_X86_REG_XMM3,
                           UC_X86_REG_XMM4,  UC_X86_REG_XMM5,  UC_X86_REG_XMM6,  UC_X86_REG_XMM7,
                           UC_X86_REG_XMM8,  UC_X86_REG_XMM9,  UC_X86_REG_XMM10, UC_X86_REG_XMM11,
                           UC_X86_REG_XMM12, UC_X86_REG_XMM13, UC_X86_REG_XMM14, UC_X86_REG_XMM15};

static void put_vectors(uc_engine *uc, const struct reference_state *state)
{
    void *values[16];
    for (unsigned i = 0; i < 16; i++)
        values[i] = (void *)(uintptr_t)&state->xmm[i];
    uc_reg_write_batch(uc, vector_ids, values, 16);
    uint32_t mxcsr = state->mxcsr;
    uc_reg_write(uc, UC_X86_REG_MXCSR, &mxcsr);
}

static void get_vectors(uc_engine *uc, struct reference_state *state)
{
    void *values[16];
    for (unsigned i = 0; i < 16; i++)
        values[i] = &state->xmm[i];
    uc_reg_read_batch(uc, vector_ids, values, 16);
}

// The engine lets MXCSR.FZ, which an SSE instruction before may have left, flush results of x87 instructions too.
static void put_x87(uc_engine *uc, const struct reference_state *state)
{
    const uint32_t mxcsr = 0x1F80; // as after reset; put_vectors comes later
    uc_reg_write(uc, UC_X86_REG_MXCSR, &mxcsr);
    uc_reg_write(uc, UC_X86_REG_FPCW, &state->fpu_control);
    uc_reg_write(uc, UC_X86_REG_FPSW, &state->fpu_status);
    uc_reg_write(uc, UC_X86_REG_FPTAG, &state->fpu_tag);
    for (int i = 0; i < 8; i++)
        uc_reg_write(uc, UC_X86_REG_FP0 + i, state->st[i]);
}

static void get_x87(uc_engine *uc, struct reference_state *state)
{
    uc_reg_read(uc, UC_X86_REG_FPCW, &state->fpu_control);
    uc_reg_read(uc, UC_X86_REG_FPSW, &state->fpu_status);
    uc_reg_read(uc, UC_X86_REG_FPTAG, &state->fpu_tag);
    for (int i = 0; i < 8; i++)
        uc_reg_read(uc, UC_X86_REG_FP0 + i, state->st[i]);
}

// SSSE3 instructions have MMX forms.
static bool uses_mmx(const struct insn *in, const uint8_t *bytes, unsigned code_size)
{
    if (in->op != OP_SSSE3)
        return op_class(in->op) == OP_CLASS_MMX;
    struct encode_layout layout = encode_find(in, bytes, code_size);
    return !encode_has_prefix(&layout, bytes, 0x66);
}

// What the engine runs in 32-bit code only; there the encodings mean the same. The layout of an x87 environment goes by the operand size.
static bool needs_32_bit_engine(const struct insn *in)
{
    if (x87_is_environment(in))
        return false;
    return op_class(in->op) != OP_CLASS_INTEGER || in->vex || in->op == OP_ADCX || in->op == OP_ADOX;
}

// Outside 64-bit code VEX.B, VEX.W (for general registers) and bit 3 of VEX.vvvv are ignored (SDM 2 2.3.5); the engine uses them.
static void clear_vex_extensions(uint8_t *vex)
{
    if (vex[0] != 0xC4)
        return;
    vex[1] |= 0x20;
    vex[2] = (uint8_t)((vex[2] | 0x40) & 0x7F);
}

// REX.R and REX.B do not extend MMX register numbers. The engine would take what lies behind its MMX registers.
static void clear_rex_extensions(const struct insn *in, uint8_t *bytes, unsigned code_size)
{
    struct encode_layout layout = encode_find(in, bytes, code_size);
    uint8_t *rex = bytes + layout.prefixes, opcode = bytes[layout.opcode];
    if (code_size != MODE_CODE64 || (*rex & 0xF0) != 0x40)
        return;
    bool reg = true, rm = in->form == FORM_REG;
    switch (in->op) {
    case OP_CVTPI2PS:
    case OP_CVTPI2PD:
    case OP_MOVQ2DQ: reg = false; break;
    case OP_CVTPS2PI:
    case OP_CVTPD2PI:
    case OP_CVTTPS2PI:
    case OP_CVTTPD2PI:
    case OP_MOVDQ2Q: rm = false; break;
    case OP_MMX:
        reg = opcode != 0xC5 && opcode != 0xD7;                        // PEXTRW, PMOVMSKB
        rm = rm && opcode != 0x6E && opcode != 0x7E && opcode != 0xC4; // MOVD, PINSRW
        break;
    default: break;
    }
    *rex &= (uint8_t) ~((reg ? 4 : 0) | (rm ? 1 : 0));
}

// The address of a slot with these bytes. 0: the engine cannot be made.
static uint64_t place_code(struct engine *engine, unsigned code_size, const uint8_t *code, unsigned length)
{
    if (!engine->uc && !engine_open(engine, code_size))
        return 0;
    uint64_t address = engine_slot(engine, code, length);
    if (address)
        return address;
    engine_close(engine);
    return engine_open(engine, code_size) ? engine_slot(engine, code, length) : 0;
}

// Runs to the HLT that follows the instruction. False: it was not carried out.
static bool run_slot(struct engine *engine, unsigned code_size, uint64_t address, unsigned length)
{
    uint64_t rip = 0, end = address + length + 1;
    if (code_size == MODE_CODE16) {
        uint16_t segment = (uint16_t)((address & ~(uint64_t)0xFFFF) >> 4);
        if (segment != engine->code_segment)
            uc_reg_write(engine->uc, UC_X86_REG_CS, &segment);
        engine->code_segment = segment;
        end &= 0xFFFF;
    }
    if (uc_emu_start(engine->uc, address, UINT64_MAX, 0, 0) != UC_ERR_OK)
        return false;
    uc_reg_read(engine->uc, code_size == MODE_CODE64 ? UC_X86_REG_RIP : UC_X86_REG_EIP, &rip);
    return rip == end;
}

bool reference_run(struct reference *reference, const struct insn *in, const uint8_t *bytes, unsigned code_size,
                   struct reference_state *state)
{
    enum op_class class = op_class(in->op);
    if (in->op == OP_PCMPESTRM || in->op == OP_PCMPESTRI)
        return false; // with some lengths the engine reads beyond its own state
    bool mmx = uses_mmx(in, bytes, code_size);
    bool vectors = class == OP_CLASS_SSE || class == OP_CLASS_MMX;
    bool x87 = class == OP_CLASS_X87 || mmx;
    if (code_size == MODE_CODE16 && needs_32_bit_engine(in))
        code_size = MODE_CODE32;
    uint8_t code[ENCODE_MAX];
    unsigned length = in->length;
    uint32_t operand = state->memory_address;
    const bool same = in->op == OP_SSSE3 && in->form == FORM_REG && in->reg == in->rm;
    if (operand) {
        memcpy(code, bytes, length);
    } else if (same) {
        // PHADD and PHSUB of a register with itself: the engine overwrites the source before it has read all of it.
        operand = SCRATCH_OPERAND;
        length = encode_in_memory(in, bytes, code_size, operand, code);
        memcpy(state->memory, mmx ? state->st[in->rm] : (const uint8_t *)&state->xmm[in->rm], mmx ? 8 : 16);
        state->memory_size = mmx ? 8 : 16;
    } else {
        operand = SCRATCH_OPERAND;
        length = encode_moved(in, bytes, code_size, operand - (uint32_t)reference_operand_shift(in, state), code);
    }
    if (in->vex && code_size != MODE_CODE64)
        clear_vex_extensions(code + encode_find(in, code, code_size).prefixes);
    if (mmx)
        clear_rex_extensions(in, code, code_size);
    struct engine *engine = &reference->engine[code_size];
    uint64_t address = place_code(engine, code_size, code, length);
    if (!address)
        return false;
    put_gprs(engine->uc, state, code_size);
    if (x87)
        put_x87(engine->uc, state);
    if (vectors)
        put_vectors(engine->uc, state);
    memcpy(engine->arena + operand, state->memory, state->memory_size);
    if (!run_slot(engine, code_size, address, length))
        return false;
    get_gprs(engine->uc, state, code_size);
    if (vectors)
        get_vectors(engine->uc, state);
    if (x87)
        get_x87(engine->uc, state);
    memcpy(state->memory, engine->arena + operand, state->memory_size);
    return true;
}

void reference_state_from(struct reference_state *state, const struct cpu *cpu)
{
    memset(state, 0, sizeof *state);
    memcpy(state->gpr, cpu->regs, sizeof state->gpr);
    // Only what an ordinary instruction may read or write: arithmetic flags and DF.
    state->rflags = (cpu_rflags(cpu) & (RFLAGS_ARITHMETIC | RFLAGS_DF)) | RFLAGS_ONE;
    memcpy(state->xmm, cpu->xmm, sizeof state->xmm);
    state->mxcsr = cpu->mxcsr;
    state->fpu_control = cpu->fpu.control;
    state->fpu_status = cpu->fpu.status;
    state->fpu_tag = cpu->fpu.tag;
    for (unsigned i = 0; i < 8; i++) {
        memcpy(state->st[i], &cpu->fpu.st[i].mantissa, 8);
        memcpy(state->st[i] + 8, &cpu->fpu.st[i].sign_exponent, 2);
    }
}

static void store_vectors(const struct reference_state *state, struct cpu *cpu)
{
    memcpy(cpu->xmm, state->xmm, sizeof state->xmm);
}

// The MMX register that the instruction writes, -1: none.
static int mmx_written(const struct insn *in, const uint8_t *bytes, unsigned code_size)
{
    struct encode_layout layout = encode_find(in, bytes, code_size);
    uint8_t opcode = bytes[layout.opcode];
    switch (in->op) {
    case OP_CVTPI2PS:
    case OP_CVTPI2PD:
    case OP_MOVQ2DQ:
    case OP_EMMS:
    case OP_MASKMOVQ: return -1;
    case OP_MMX:
        if (opcode == 0xC5 || opcode == 0xD7 || opcode == 0x7E || opcode == 0xE7) // PEXTRW, PMOVMSKB, MOVD, MOVNTQ
            return -1;
        if (opcode == 0x7F) // MOVQ mm/m64, mm
            return in->form == FORM_MEM ? -1 : in->rm & 7;
        return opcode >= 0x71 && opcode <= 0x73 ? in->rm & 7 : in->reg & 7; // shifts by an immediate
    default: return in->reg & 7;
    }
}

// The effect of MMX instructions on the x87 state (SDM 3A 13.2, table "Action Taken By MMX Instructions on x87 FPU State").
static void store_mmx(struct reference_state *state, struct cpu *cpu, const struct insn *in, const uint8_t *bytes)
{
    if (in->op == OP_CVTPI2PD && in->form == FORM_MEM)
        return; // no transition to MMX technology
    int written = mmx_written(in, bytes, cpu->mode & MODE_CODE_MASK);
    if (written >= 0) {
        memcpy(&cpu->fpu.st[written].mantissa, state->st[written], 8);
        cpu->fpu.st[written].sign_exponent = 0xFFFF;
    }
    cpu->fpu.status &= (uint16_t)~FPU_STATUS_TOP;
    cpu->fpu.tag = in->op == OP_EMMS ? 0xFFFF : 0;
}

static void store_x87(const struct reference_state *state, struct cpu *cpu)
{
    cpu->fpu.control = (state->fpu_control & FPU_CONTROL_BITS) | FPU_CONTROL_FIXED;
    cpu->fpu.status = state->fpu_status;
    cpu->fpu.tag = state->fpu_tag;
    for (unsigned i = 0; i < 8; i++) {
        memcpy(&cpu->fpu.st[i].mantissa, state->st[i], 8);
        memcpy(&cpu->fpu.st[i].sign_exponent, state->st[i] + 8, 2);
    }
}

// FUCOMI, FCOMI, FUCOMIP, FCOMIP: DB E8-F7, DF E8-F7. They clear OF, SF and AF (SDM 2), which the engine leaves.
static bool is_compare_to_flags(const struct insn *in)
{
    unsigned escape = (unsigned)in->imm >> 8 & 7;
    return in->form == FORM_REG && (escape == 3 || escape == 7) && (in->reg == 5 || in->reg == 6);
}

// The faults that precede execution by instruction class (SDM 3A table 13-1, SDM 1 8.6).
static enum exec_result check_available(struct cpu *cpu, enum op_class class, bool x87)
{
    if (class == OP_CLASS_SSE && !(cpu->cr4 & CR4_OSFXSR))
        return raise_exception(cpu, VECTOR_UD);
    if ((cpu->cr0 & CR0_EM) && class != OP_CLASS_INTEGER)
        return raise_exception(cpu, class == OP_CLASS_X87 ? VECTOR_NM : VECTOR_UD);
    if ((cpu->cr0 & CR0_TS) && class != OP_CLASS_INTEGER)
        return raise_exception(cpu, VECTOR_NM);
    if (x87 && (cpu->fpu.status & 0x80) && (cpu->cr0 & CR0_NE))
        return raise_exception(cpu, VECTOR_MF);
    return EXEC_NEXT;
}

// FNINIT, FNCLEX, FNSTCW, FNSTSW, FNSTENV, FNSAVE do not wait for a pending x87 exception.
static bool is_no_wait(const struct insn *in)
{
    unsigned escape = (unsigned)in->imm >> 8 & 7, modrm = (unsigned)in->imm & 0xFF;
    if (in->form == FORM_MEM)
        return (escape == 1 && (in->reg == 6 || in->reg == 7)) || (escape == 5 && (in->reg == 6 || in->reg == 7));
    return (escape == 3 && (modrm == 0xE2 || modrm == 0xE3)) || (escape == 7 && modrm == 0xE0);
}

// The instruction's own bytes, fetched again: it was decoded from them, so the page is mapped.
static bool fetch_bytes(struct cpu *cpu, const struct insn *in, uint8_t *bytes)
{
    gva_t linear = cpu->segments[SEG_CS].base + cpu->regs[REG_RIP];
    if (!cpu_64bit(cpu))
        linear = (uint32_t)linear;
    for (unsigned i = 0; i < in->length; i++) {
        hpa_t physical;
        if (!mmu_probe(&cpu->mmu, linear + i, &physical))
            return false;
        bytes[i] = (uint8_t)bus_read(cpu->bus, physical, 1);
    }
    return true;
}

// Control instructions leave the pointers to the last other one, or initialise them (FNINIT, FNSAVE).
static void note_x87_pointers(struct cpu *cpu, const struct insn *in)
{
    unsigned escape = (unsigned)in->imm >> 8 & 7, modrm = (unsigned)in->imm & 0xFF;
    bool load =
        in->form == FORM_MEM && ((escape == 1 && (in->reg == 4 || in->reg == 5)) || (escape == 5 && in->reg == 4));
    if ((in->form == FORM_MEM && escape == 5 && in->reg == 6) ||
        (in->form != FORM_MEM && escape == 3 && modrm == 0xE3)) {
        cpu->fpu.ip = cpu->fpu.dp = 0;
        cpu->fpu.opcode = cpu->fpu.cs = cpu->fpu.ds = 0;
    }
    if (load || is_no_wait(in))
        return;
    cpu->fpu.opcode = (uint16_t)(in->imm & 0x7FF);
    cpu->fpu.ip = cpu->regs[REG_RIP];
    cpu->fpu.cs = cpu->segments[SEG_CS].selector;
    if (in->form == FORM_MEM) {
        cpu->fpu.dp = exec_offset(cpu, in);
        cpu->fpu.ds = cpu->segments[in->segment].selector;
    }
}

// MASKMOVQ is carried out here, because the engine's memory is not the guest's: the bytes of ModRM.reg whose byte in ModRM.rm has its sign set.
static bool masked_store(struct cpu *cpu, const struct insn *in)
{
    uint64_t data = cpu->fpu.st[in->reg & 7].mantissa, mask = cpu->fpu.st[in->rm & 7].mantissa;
    uint64_t limit = cpu->addr_mask[in->addr_log2], base = cpu->regs[REG_RDI];
    for (unsigned i = 0; i < 8; i++) {
        if ((mask >> (8 * i + 7) & 1) && !mem_check_write(cpu, in->segment, (base + i) & limit, 1))
            return false;
    }
    for (unsigned i = 0; i < 8; i++) {
        if ((mask >> (8 * i + 7) & 1) && !mem_write(cpu, in->segment, (base + i) & limit, 1, data >> 8 * i & 0xFF))
            return false;
    }
    cpu->fpu.status &= (uint16_t)~FPU_STATUS_TOP;
    cpu->fpu.tag = 0;
    return true;
}

enum exec_result reference_execute(struct reference *reference, struct cpu *cpu, const struct insn *in)
{
    struct reference_state state;
    uint8_t bytes[INSN_MAX_LENGTH];
    struct insn copy = *in;
    exec_leave_before(cpu, in);
    copy.delta = 0;
    if (in->base == REG_RIP)
        copy.disp = in->disp - in->delta; // relative to RIP, which is now the instruction's own
    in = &copy;
    enum op_class class = op_class(in->op);
    if (!fetch_bytes(cpu, in, bytes))
        return raise_exception(cpu, VECTOR_UD);
    bool mmx = uses_mmx(in, bytes, cpu->mode & MODE_CODE_MASK);
    if (!(class == OP_CLASS_X87 && is_no_wait(in)) || (cpu->cr0 & (CR0_EM | CR0_TS))) {
        enum exec_result result = check_available(cpu, class, mmx || class == OP_CLASS_X87);
        if (result != EXEC_NEXT)
            return result;
    }
    if (in->op == OP_MASKMOVQ)
        return masked_store(cpu, in) ? exec_end_system(cpu, in) : EXEC_FAULT;
    reference_state_from(&state, cpu);
    unsigned size = op_memory_size(in);
    ASSERT(size <= sizeof state.memory, "the longest memory operand is that of XSAVE");
    state.memory_size = size;
    uint64_t offset = size ? exec_offset(cpu, in) : 0;
    // 128-bit operands have to be aligned (SDM 2 2.4, exception type 4).
    unsigned alignment = (class == OP_CLASS_SSE || class == OP_CLASS_MMX) && size == 16 ? 16 : 1;
    if (size && op_memory_read(in) && !mem_read_bytes(cpu, in->segment, offset, state.memory, size, alignment))
        return EXEC_FAULT;
    if (size && op_memory_written(in) && !mem_check_write(cpu, in->segment, offset, size))
        return EXEC_FAULT;
    if (!reference_run(reference, in, bytes, cpu->mode & MODE_CODE_MASK, &state))
        return raise_exception(cpu, VECTOR_UD);
    if (class == OP_CLASS_X87)
        x87_environment_store(cpu, in, state.memory, size);
    if (size && op_memory_written(in) && !mem_write_bytes(cpu, in->segment, offset, state.memory, size, alignment))
        return EXEC_FAULT;
    if (class == OP_CLASS_X87) {
        note_x87_pointers(cpu, in);
        x87_environment_load(cpu, in, state.memory, size);
    }
    memcpy(cpu->regs, state.gpr, sizeof state.gpr);
    if (class == OP_CLASS_X87 && is_compare_to_flags(in))
        state.rflags &= ~(RFLAGS_OF | RFLAGS_SF | RFLAGS_AF);
    flags_set_arithmetic(cpu, state.rflags);
    if (class == OP_CLASS_SSE || class == OP_CLASS_MMX)
        store_vectors(&state, cpu);
    if (class == OP_CLASS_X87)
        store_x87(&state, cpu);
    else if (mmx)
        store_mmx(&state, cpu, in, bytes);
    cpu->reference_instructions++;
    return exec_end_system(cpu, in);
}
