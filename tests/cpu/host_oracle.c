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

enum { OFFSET_CODE = 0, OFFSET_STATE = 0x1000, OFFSET_SCRATCH = 0x2400, OFFSET_STACK = 0x3000, REGION_SIZE = 0x8000 };

// What the generated code works on, at OFFSET_STATE.
struct host_frame {
    uint64_t gpr[16];
    uint64_t rflags;
    uint64_t host_rsp;
    struct xmm xmm[16] __attribute__((aligned(16)));
    uint32_t mxcsr, host_mxcsr;
};

static uint8_t *region;
static sigjmp_buf escape;

bool host_oracle_available(void) { return true; }

static void on_signal(int number) { siglongjmp(escape, number); }

static void prepare(void)
{
    static uint8_t signal_stack[65536];
    region = mmap(NULL, REGION_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (region == MAP_FAILED)
        region = NULL;
    const stack_t stack = {.ss_sp = signal_stack, .ss_size = sizeof signal_stack};
    sigaltstack(&stack, NULL);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_NODEFER};
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

static uint8_t *emit_xmm(uint8_t *at, bool load, unsigned number, size_t offset)
{
    char opcode[4];
    size_t size = 0;
    if (number & 8)
        opcode[size++] = 0x44;
    opcode[size++] = 0x0F;
    opcode[size++] = (char)(load ? 0x28 : 0x29); // MOVAPS
    return emit_absolute(at, opcode, size, number, offset);
}

static void generate(const uint8_t *code, unsigned length)
{
    const size_t state = OFFSET_STATE;
    const size_t rflags = state + offsetof(struct host_frame, rflags), rsp = state + offsetof(struct host_frame, host_rsp);
    uint8_t *at = region + OFFSET_CODE;
    at = emit(at, "\x53\x55\x41\x54\x41\x55\x41\x56\x41\x57\x9C", 11); // PUSH RBX RBP R12-R15, PUSHFQ
    at = emit_gpr(at, false, REG_RSP, rsp);
    at = emit_absolute(at, "\x0F\xAE", 2, 3, state + offsetof(struct host_frame, host_mxcsr)); // STMXCSR
    at = emit_absolute(at, "\x0F\xAE", 2, 2, state + offsetof(struct host_frame, mxcsr));      // LDMXCSR
    for (unsigned i = 0; i < 16; i++)
        at = emit_xmm(at, true, i, state + offsetof(struct host_frame, xmm) + 16 * i);
    at = emit_absolute(at, "\xFF", 1, 6, rflags); // PUSH rflags
    at = emit(at, "\x9D", 1);                     // POPFQ
    for (unsigned i = 0; i < 16; i++)
        at = emit_gpr(at, true, i, state + 8 * i);
    at = emit(at, code, length);
    for (unsigned i = 0; i < 16; i++)
        at = emit_gpr(at, false, i, state + 8 * i);
    at = emit_gpr(at, true, REG_RSP, rsp);
    at = emit(at, "\x9C", 1);                     // PUSHFQ
    at = emit_absolute(at, "\x8F", 1, 0, rflags); // POP rflags
    for (unsigned i = 0; i < 16; i++)
        at = emit_xmm(at, false, i, state + offsetof(struct host_frame, xmm) + 16 * i);
    at = emit_absolute(at, "\x0F\xAE", 2, 3, state + offsetof(struct host_frame, mxcsr));
    at = emit_absolute(at, "\x0F\xAE", 2, 2, state + offsetof(struct host_frame, host_mxcsr));
    emit(at, "\x9D\x41\x5F\x41\x5E\x41\x5D\x41\x5C\x5D\x5B\xC3", 12);
}

bool host_oracle_run(const struct insn *in, const uint8_t *bytes, struct reference_state *state)
{
    if (!region)
        prepare();
    if (!region)
        return false;
    uint8_t code[ENCODE_MAX];
    unsigned length = encode_moved(in, bytes, MODE_CODE64, low(OFFSET_SCRATCH), code);
    generate(code, length);
    struct host_frame *frame = (struct host_frame *)(void *)(region + OFFSET_STATE);
    memcpy(frame->gpr, state->gpr, sizeof frame->gpr);
    frame->rflags = state->rflags | RFLAGS_IF;
    memcpy(frame->xmm, state->xmm, sizeof frame->xmm);
    frame->mxcsr = state->mxcsr;
    memcpy(region + OFFSET_SCRATCH, state->memory, state->memory_size);
    if (sigsetjmp(escape, 0) != 0)
        return false;
    void (*run)(void);
    void *entry = region + OFFSET_CODE;
    memcpy(&run, &entry, sizeof run);
    run();
    memcpy(state->gpr, frame->gpr, sizeof frame->gpr);
    state->rflags = frame->rflags & (RFLAGS_ARITHMETIC | RFLAGS_DF | RFLAGS_ONE);
    memcpy(state->xmm, frame->xmm, sizeof frame->xmm);
    state->mxcsr = frame->mxcsr;
    memcpy(state->memory, region + OFFSET_SCRATCH, state->memory_size);
    return true;
}

#else

bool host_oracle_available(void) { return false; }

bool host_oracle_run(const struct insn *in, const uint8_t *bytes, struct reference_state *state)
{
    (void)in, (void)bytes, (void)state;
    return false;
}

#endif
