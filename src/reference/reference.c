// The Unicorn side of the reference executor: engines, state in and out, one instruction.
//
// One engine a code size, made when first needed. An instruction is put, followed by HLT, into a slot of its own, found again by
// its bytes, so that the engine's translation stays valid; when the slots are used up the engine is made anew, because it was seen to keep
// translations of code that was overwritten. The engine runs flat, without paging, at address 0.
//   0x0000..0x0FFF scratch page: the memory operand lies at SCRATCH_OPERAND
//   0x1000..       slots of SLOT_SIZE bytes
// DEVIATION(reference_fpu_pointers): x87 instruction and data pointers are set by us to the instruction's, not by the engine.
#include "reference/reference.h"

#include <stdlib.h>
#include <string.h>
#include <unicorn/unicorn.h>

#include "base/assert.h"
#include "base/host.h"
#include "cpu/exec.h"
#include "reference/engine.h"

enum {
    SLOT_SIZE = 32,
    SLOT_COUNT = 16384,
    HASH_SIZE = 2 * SLOT_COUNT, // a power of two
    CODE_ADDRESS = 0x1000,
    SCRATCH_OPERAND = 0x400,
    ARENA_SIZE = CODE_ADDRESS + SLOT_SIZE * SLOT_COUNT,
};

struct engine {
    uc_engine *uc;
    uint8_t *arena;                            // the engine's memory, ARENA_SIZE bytes
    unsigned slots_used;
    uint16_t hash[HASH_SIZE];                  // slot number + 1 by the hash of its bytes; 0: free
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

static void put_vectors(uc_engine *uc, const struct reference_state *state)
{
    for (int i = 0; i < 16; i++)
        uc_reg_write(uc, UC_X86_REG_XMM0 + i, &state->xmm[i]);
    uint32_t mxcsr = state->mxcsr;
    uc_reg_write(uc, UC_X86_REG_MXCSR, &mxcsr);
}

static void get_vectors(uc_engine *uc, struct reference_state *state)
{
    for (int i = 0; i < 16; i++)
        uc_reg_read(uc, UC_X86_REG_XMM0 + i, &state->xmm[i]);
}

static void put_x87(uc_engine *uc, const struct reference_state *state)
{
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

bool reference_run(struct reference *reference, const struct insn *in, const uint8_t *bytes, unsigned code_size,
                   struct reference_state *state)
{
    enum op_class class = op_class(in->op);
    // The 16-bit engine does not run SSE and x87; their encodings mean the same in 32-bit code.
    if (code_size == MODE_CODE16 && class != OP_CLASS_INTEGER)
        code_size = MODE_CODE32;
    struct engine *engine = &reference->engine[code_size];
    if (!engine->uc && !engine_open(engine, code_size))
        return false;
    uint8_t code[ENCODE_MAX];
    unsigned length = encode_moved(in, bytes, code_size, SCRATCH_OPERAND, code);
    uint64_t address = engine_slot(engine, code, length);
    if (!address) {
        engine_close(engine);
        if (!engine_open(engine, code_size))
            return false;
        address = engine_slot(engine, code, length);
    }
    bool vectors = class == OP_CLASS_SSE || class == OP_CLASS_MMX;
    bool x87 = class == OP_CLASS_X87 || class == OP_CLASS_MMX;
    put_gprs(engine->uc, state, code_size);
    if (vectors)
        put_vectors(engine->uc, state);
    if (x87)
        put_x87(engine->uc, state);
    memcpy(engine->arena + SCRATCH_OPERAND, state->memory, state->memory_size);
    uc_err error = uc_emu_start(engine->uc, address, UINT64_MAX, 0, 0);
    if (error != UC_ERR_OK)
        return false;
    get_gprs(engine->uc, state, code_size);
    if (vectors)
        get_vectors(engine->uc, state);
    if (x87)
        get_x87(engine->uc, state);
    memcpy(state->memory, engine->arena + SCRATCH_OPERAND, state->memory_size);
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

static void store_vectors(const struct reference_state *state, struct cpu *cpu) { memcpy(cpu->xmm, state->xmm, sizeof state->xmm); }

static void store_x87(const struct reference_state *state, struct cpu *cpu, bool mmx)
{
    cpu->fpu.control = state->fpu_control;
    cpu->fpu.status = state->fpu_status;
    cpu->fpu.tag = state->fpu_tag;
    for (unsigned i = 0; i < 8; i++) {
        uint64_t before = cpu->fpu.st[i].mantissa;
        memcpy(&cpu->fpu.st[i].mantissa, state->st[i], 8);
        memcpy(&cpu->fpu.st[i].sign_exponent, state->st[i] + 8, 2);
        // A write to an MMX register sets the sign and exponent to ones (SDM 1 9.5.1).
        if (mmx && cpu->fpu.st[i].mantissa != before)
            cpu->fpu.st[i].sign_exponent = 0xFFFF;
    }
}

// The faults that precede execution by instruction class (SDM 3A table 13-1, SDM 1 8.6).
static enum exec_result check_available(struct cpu *cpu, enum op_class class)
{
    bool x87 = class == OP_CLASS_X87 || class == OP_CLASS_MMX;
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

static void note_x87_pointers(struct cpu *cpu, const struct insn *in)
{
    if (is_no_wait(in))
        return;
    cpu->fpu.opcode = (uint16_t)(in->imm & 0x7FF);
    cpu->fpu.ip = cpu->regs[REG_RIP];
    cpu->fpu.cs = cpu->segments[SEG_CS].selector;
    if (in->form == FORM_MEM) {
        cpu->fpu.dp = exec_offset(cpu, in);
        cpu->fpu.ds = cpu->segments[in->segment].selector;
    }
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
    if (!(class == OP_CLASS_X87 && is_no_wait(in)) || (cpu->cr0 & (CR0_EM | CR0_TS))) {
        enum exec_result result = check_available(cpu, class);
        if (result != EXEC_NEXT)
            return result;
    }
    if (!fetch_bytes(cpu, in, bytes))
        return raise_exception(cpu, VECTOR_UD);
    reference_state_from(&state, cpu);
    unsigned size = op_memory_size(in);
    ASSERT(size <= sizeof state.memory, "the longest memory operand is that of XSAVE");
    state.memory_size = size;
    uint64_t offset = size ? exec_offset(cpu, in) : 0;
    // 128-bit operands of SSSE3 to SSE4.1, AES and PCLMULQDQ have to be aligned (SDM 2 2.4, exception type 4).
    unsigned alignment = class == OP_CLASS_SSE && size == 16 && in->op != OP_SSE42 ? 16 : 1;
    if (size && op_memory_read(in) && !mem_read_bytes(cpu, in->segment, offset, state.memory, size, alignment))
        return EXEC_FAULT;
    if (size && op_memory_written(in) && !mem_check_write(cpu, in->segment, offset, size))
        return EXEC_FAULT;
    if (!reference_run(reference, in, bytes, cpu->mode & MODE_CODE_MASK, &state))
        return raise_exception(cpu, VECTOR_UD);
    if (size && op_memory_written(in) && !mem_write_bytes(cpu, in->segment, offset, state.memory, size, alignment))
        return EXEC_FAULT;
    if (class == OP_CLASS_X87)
        note_x87_pointers(cpu, in);
    memcpy(cpu->regs, state.gpr, sizeof state.gpr);
    flags_set_arithmetic(cpu, state.rflags);
    if (class == OP_CLASS_SSE || class == OP_CLASS_MMX)
        store_vectors(&state, cpu);
    if (class == OP_CLASS_X87 || class == OP_CLASS_MMX)
        store_x87(&state, cpu, class == OP_CLASS_MMX);
    cpu->reference_instructions++;
    return exec_end_system(cpu, in);
}
