// A page below 2 GiB holds code that loads all registers from a state, runs the instruction and stores them again; the memory operand is
// moved to the same region (encode_moved). Exceptions come back as signals on a stack of their own.
#undef _GNU_SOURCE // <signal.h> would define register names of its own
#define _DEFAULT_SOURCE
#include "host_oracle.h"

#if defined(__x86_64__)

#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"

enum { OFFSET_CODE = 0, OFFSET_STATE = 0x1000, OFFSET_SCRATCH = 0x2400, REGION_SIZE = 0x8000 };
enum { DATA_BELOW = 0x4000 }; // ENTER looks at the stack below its operands

// The FXSAVE area, 64-bit form (SDM 1 10.5.1).
struct fxsave {
    uint16_t control, status;
    uint8_t tag, reserved1;
    uint16_t opcode;
    uint64_t ip, dp;
    uint32_t mxcsr, mxcsr_mask;
    uint8_t st[8][16]; // ST(0) to ST(7)
    struct xmm xmm[16];
    uint8_t reserved2[96];
};
static_assert(sizeof(struct fxsave) == 512, "FXSAVE area");

// What the generated code works on, at OFFSET_STATE.
struct host_frame {
    struct fxsave fx __attribute__((aligned(16)));
    struct fxsave host_fx __attribute__((aligned(16)));
    uint64_t gpr[16];
    uint64_t rflags;
    uint64_t host_rsp;
};

static uint8_t *region;
static uint8_t *data; // at HOST_DATA
static sigjmp_buf escape;
static volatile sig_atomic_t running; // signals at other times are defects of ours

bool host_oracle_available(void) { return true; }

// What siglongjmp brings back is a vector + 1.
static void on_signal(int number, siginfo_t *info, void *context)
{
    (void)context;
    if (!running) {
        signal(number, SIG_DFL);
        return;
    }
    int vector = 13;
    switch (number) {
    case SIGFPE: vector = info->si_code == FPE_INTDIV ? 0 : 19; break;
    case SIGILL: vector = 6; break;
    case SIGTRAP: vector = 1; break;
    default: break;
    }
    siglongjmp(escape, vector + 1);
}

static void prepare(void)
{
    static uint8_t signal_stack[65536];
    region =
        mmap(NULL, REGION_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (region == MAP_FAILED)
        region = NULL;
    void *wanted;
    const uintptr_t address = HOST_DATA - DATA_BELOW;
    memcpy(&wanted, &address, sizeof wanted);
    data = mmap(wanted, DATA_BELOW + 0x1000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    data = data == wanted ? data + DATA_BELOW : NULL;
    const stack_t stack = {.ss_sp = signal_stack, .ss_size = sizeof signal_stack};
    sigaltstack(&stack, NULL);
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_ONSTACK | SA_NODEFER | SA_SIGINFO};
    static const int signals[] = {SIGILL, SIGFPE, SIGSEGV, SIGBUS, SIGTRAP};
    for (unsigned i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaction(signals[i], &action, NULL);
}

static uint8_t *emit(uint8_t *at, const void *bytes, size_t size)
{
    memcpy(at, bytes, size);
    return at + size;
}

static uint32_t low(size_t offset) { return (uint32_t)(uintptr_t)(region + offset); }

// opcode bytes, then ModRM and SIB for an absolute 32-bit address with the given reg.
static uint8_t *emit_absolute(uint8_t *at, const char *opcode, size_t size, unsigned reg, size_t offset)
{
    uint32_t address = low(offset);
    const uint8_t modrm[2] = {(uint8_t)(4 | (reg & 7) << 3), 0x25};
    at = emit(at, opcode, size);
    at = emit(at, modrm, 2);
    return emit(at, &address, 4);
}

static uint8_t *emit_gpr(uint8_t *at, bool load, unsigned number, size_t offset)
{
    const char opcode[2] = {(char)(0x48 | (number & 8 ? 4 : 0)), (char)(load ? 0x8B : 0x89)};
    return emit_absolute(at, opcode, 2, number, offset);
}

static void generate(const uint8_t *code, unsigned length)
{
    static uint8_t last[ENCODE_MAX];
    static unsigned last_length;
    if (length == last_length && memcmp(code, last, length) == 0)
        return;
    memcpy(last, code, length);
    last_length = length;
    const size_t frame = OFFSET_STATE;
    const size_t fx = frame + offsetof(struct host_frame, fx), host_fx = frame + offsetof(struct host_frame, host_fx);
    const size_t gpr = frame + offsetof(struct host_frame, gpr);
    const size_t rflags = frame + offsetof(struct host_frame, rflags),
                 rsp = frame + offsetof(struct host_frame, host_rsp);
    uint8_t *at = region + OFFSET_CODE;
    at = emit(at, "\x53\x55\x41\x54\x41\x55\x41\x56\x41\x57\x9C", 11); // PUSH RBX RBP R12-R15, PUSHFQ
    at = emit_gpr(at, false, REG_RSP, rsp);
    at = emit_absolute(at, "\x48\x0F\xAE", 3, 0, host_fx); // FXSAVE64
    at = emit_absolute(at, "\x48\x0F\xAE", 3, 1, fx);      // FXRSTOR64
    at = emit_absolute(at, "\xFF", 1, 6, rflags);          // PUSH rflags
    at = emit(at, "\x9D", 1);                              // POPFQ
    for (unsigned i = 0; i < 16; i++)
        at = emit_gpr(at, true, i, gpr + 8 * i);
    at = emit(at, code, length);
    for (unsigned i = 0; i < 16; i++)
        at = emit_gpr(at, false, i, gpr + 8 * i);
    at = emit_gpr(at, true, REG_RSP, rsp);
    at = emit(at, "\x9C", 1);                     // PUSHFQ
    at = emit_absolute(at, "\x8F", 1, 0, rflags); // POP rflags
    at = emit_absolute(at, "\x48\x0F\xAE", 3, 0, fx);
    at = emit_absolute(at, "\x48\x0F\xAE", 3, 1, host_fx);
    emit(at, "\x9D\x41\x5F\x41\x5E\x41\x5D\x41\x5C\x5D\x5B\xC3", 12);
}

static void put_state(struct host_frame *frame, const struct reference_state *state)
{
    memcpy(frame->gpr, state->gpr, sizeof frame->gpr);
    frame->rflags = state->rflags | RFLAGS_IF;
    memset(&frame->fx, 0, sizeof frame->fx);
    memcpy(frame->fx.xmm, state->xmm, sizeof frame->fx.xmm);
    frame->fx.mxcsr = state->mxcsr;
    frame->fx.control = state->fpu_control;
    frame->fx.status = state->fpu_status;
    const unsigned top = state->fpu_status >> 11 & 7;
    for (unsigned i = 0; i < 8; i++) {
        frame->fx.tag |= (uint8_t)(((state->fpu_tag >> 2 * i & 3) != 3) << i);
        memcpy(frame->fx.st[i], state->st[(top + i) & 7], 10);
    }
}

static void get_state(struct reference_state *state, const struct host_frame *frame)
{
    memcpy(state->gpr, frame->gpr, sizeof frame->gpr);
    state->rflags = frame->rflags & (RFLAGS_ARITHMETIC | RFLAGS_DF | RFLAGS_ONE);
    memcpy(state->xmm, frame->fx.xmm, sizeof frame->fx.xmm);
    state->mxcsr = frame->fx.mxcsr;
    state->fpu_control = frame->fx.control;
    state->fpu_status = frame->fx.status;
    const unsigned top = frame->fx.status >> 11 & 7;
    state->fpu_tag = 0;
    for (unsigned i = 0; i < 8; i++) {
        if (!(frame->fx.tag >> i & 1))
            state->fpu_tag |= (uint16_t)(3 << 2 * i);
        memcpy(state->st[(top + i) & 7], frame->fx.st[i], 10);
    }
}

int host_oracle_run(const struct insn *in, const uint8_t *bytes, struct reference_state *state)
{
    if (!region)
        prepare();
    if (!region || (state->memory_address && (!data || state->memory_address < HOST_DATA)))
        return HOST_UNAVAILABLE;
    uint8_t code[ENCODE_MAX];
    unsigned length = in->length;
    uint8_t *volatile operand = region + OFFSET_SCRATCH;
    if (state->memory_address) {
        memcpy(code, bytes, length);
        operand = data + (state->memory_address - HOST_DATA);
    } else {
        int64_t address = low(OFFSET_SCRATCH) - reference_operand_shift(in, state);
        if (address < 0 || address > INT32_MAX)
            return HOST_UNAVAILABLE;
        length = encode_moved(in, bytes, MODE_CODE64, (uint32_t)address, code);
    }
    generate(code, length);
    struct host_frame *frame = (struct host_frame *)(void *)(region + OFFSET_STATE);
    put_state(frame, state);
    memcpy(operand, state->memory, state->memory_size);
    const int vector = sigsetjmp(escape, 0);
    if (vector != 0) {
        running = 0;
        __asm__ volatile("fninit");
        return vector - 1;
    }
    void (*run)(void);
    void *entry = region + OFFSET_CODE;
    memcpy(&run, &entry, sizeof run);
    running = 1;
    run();
    running = 0;
    get_state(state, frame);
    memcpy(state->memory, operand, state->memory_size);
    return HOST_DONE;
}

#else

bool host_oracle_available(void) { return false; }

int host_oracle_run(const struct insn *in, const uint8_t *bytes, struct reference_state *state)
{
    (void)in, (void)bytes, (void)state;
    return HOST_UNAVAILABLE;
}

#endif
