// SSE handlers against the host processor, instruction by instruction, and the exceptions that depend on system state.
//
// The instructions are found by decoding: every prefix and every opcode of the 0F map whose op has a native handler in
// op_handlers_sse.def, with a register and with a memory operand.
#include "core_fixture.h"
#include "cpu/mxcsr.h"
#include "cpu/sse.h"
#include "sse_host.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

enum { OPERAND = 0x8000, ROUNDS = 2000, ROUNDS_INTEGER = 100 };

static exec_fn *const handlers[OP_COUNT] = {
#define HANDLER(op, function) [OP_##op] = function,
#define REFERENCE(op)
#include "cpu/op_handlers_sse.def"
#undef HANDLER
#undef REFERENCE
};

static struct core *core;
static struct cpu *cpu;

static uint64_t random_state = 0x9E3779B97F4A7C15;

static uint64_t random_bits(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * 0x2545F4914F6CDD1D;
}

static void *ram(hpa_t address) { return core->memory.ram + address; }

// 64-bit mode: memory operands take the fast way once the TLB holds their page.
static void setup_long_mode(void)
{
    core = core_create();
    cpu = &core->cpu;
    cpu->cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
}

// Real-address mode: memory operands take the complete way. Linear = offset, as the base of DS is 0.
static void setup_real_mode(void)
{
    setup_long_mode();
    cpu_reset(cpu, false);
    cpu->cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
}

static void teardown(void) { core_destroy(core); }

static enum exec_result stop(struct cpu *c, const struct insn *in)
{
    (void)c, (void)in;
    return EXEC_NEXT;
}

static bool decode_bytes(const uint8_t *bytes, struct insn *in)
{
    return decode(bytes, 15, MODE_CODE64, in) == DECODE_OK && handlers[in->op];
}

// Runs one decoded instruction, in a block of its own. EXEC_NEXT: done. EXEC_FAULT: cpu->event.
static enum exec_result run(const struct insn *in)
{
    static struct block *block;
    if (!block)
        block = calloc(1, sizeof *block + 2 * sizeof *in);
    ck_assert_ptr_nonnull(block);
    block->count = 1;
    block->insns[0] = *in;
    block->insns[1].exec = stop;
    cpu->block = block;
    cpu->cycles_left = 1000;
    cpu->stop_block = 0;
    enum exec_result result = handlers[in->op](cpu, block->insns);
    return result == EXEC_FAULT ? EXEC_FAULT : EXEC_NEXT; // after an access it may be EXEC_BLOCK or EXEC_DONE
}

// ---- Against the host ----

static uint32_t special32(void)
{
    static const uint32_t values[] = {
        0,          1,          2,          0x7FFFFF,   0x800000,   0x800001,   0x3F800000, 0x3F800001, 0x3F7FFFFF,
        0x40000000, 0x3F000000, 0x3EFFFFFF, 0x3F000001, 0x3FC00000, 0x7F7FFFFF, 0x7F7FFFFE, 0x7F800000, 0x7F800001,
        0x7FBFFFFF, 0x7FC00000, 0x7FC12345, 0x7FFFFFFF, 0x4F000000, 0x4EFFFFFF, 0x4F7FFFFF, 0x5F000000, 0x5EFFFFFF,
        0x00400000, 0x34000000, 0x4B000000, 0x4B7FFFFF, 0x1F800000, 0x20000000, 0x5F800000, 0x7E800000};
    uint32_t value = values[random_bits() % (sizeof values / sizeof values[0])];
    return value | (uint32_t)(random_bits() & 0x80000000);
}

static uint64_t special64(void)
{
    static const uint64_t values[] = {0,
                                      1,
                                      0xFFFFFFFFFFFFF,
                                      0x10000000000000,
                                      0x10000000000001,
                                      0x3FF0000000000000,
                                      0x3FEFFFFFFFFFFFFF,
                                      0x3FF0000000000001,
                                      0x4000000000000000,
                                      0x3FE0000000000000,
                                      0x3FDFFFFFFFFFFFFF,
                                      0x3FE0000000000001,
                                      0x7FEFFFFFFFFFFFFF,
                                      0x7FF0000000000000,
                                      0x7FF0000000000001,
                                      0x7FF7FFFFFFFFFFFF,
                                      0x7FF8000000000000,
                                      0x7FF8123456789ABC,
                                      0x7FFFFFFFFFFFFFFF,
                                      0x41E0000000000000,
                                      0x41DFFFFFFFE00000,
                                      0x41DFFFFFFFC00000,
                                      0x41EFFFFFFFE00000,
                                      0x43E0000000000000,
                                      0x43DFFFFFFFFFFFFF,
                                      0x43F0000000000000,
                                      0x4330000000000000,
                                      0x433FFFFFFFFFFFFF,
                                      0x47EFFFFFE0000000,
                                      0x47EFFFFFF0000000,
                                      0x47F0000000000000,
                                      0x3810000000000000,
                                      0x380FFFFFFFFFFFFF,
                                      0x36A0000000000000,
                                      0x3690000000000000,
                                      0x3690000000000001,
                                      0x380FFFFFE0000000,
                                      0x380FFFFFF0000000,
                                      0x380FFFFFD0000000,
                                      0x1FF0000000000000,
                                      0x2000000000000000,
                                      0x5FE0000000000000};
    uint64_t value = values[random_bits() % (sizeof values / sizeof values[0])];
    return value | (random_bits() & BIT(63));
}

// A number whose exponent is near the limits or near that of 1.
static uint64_t random_float(unsigned bits)
{
    unsigned precision = bits == 32 ? 24 : 53;
    uint64_t largest = bits == 32 ? 0xFF : 0x7FF, exponent = 0, fraction = random_bits() & (BIT(precision - 1) - 1);
    switch (random_bits() & 3) {
    case 0: exponent = random_bits() % 4; break;
    case 1: exponent = largest - 1 - random_bits() % 3; break;
    default: exponent = largest / 2 + random_bits() % 80 - 30; break;
    }
    if (random_bits() & 1)
        fraction &= random_bits() & random_bits() & random_bits();
    return (random_bits() & 1) << (bits - 1) | exponent << (precision - 1) | fraction;
}

static uint64_t random_half(void)
{
    switch (random_bits() % 6) {
    case 0: return random_bits();
    case 1: return special64();
    case 2: return random_float(64);
    case 3: return special32() | (uint64_t)special32() << 32;
    case 4: return random_float(32) | random_float(32) << 32;
    default: return random_bits() & 0x1F; // shift counts, small integers
    }
}

// The second number sometimes equals or comes near the first, so that differences cancel.
static uint64_t random_second(uint64_t first)
{
    switch (random_bits() % 8) {
    case 0: return first;
    case 1: return first ^ (random_bits() & 0x8000000380000003);
    default: return random_half();
    }
}

static uint32_t random_mxcsr(void)
{
    uint32_t mxcsr = MXCSR_FLAGS << MXCSR_MASKS_SHIFT;
    mxcsr |= (uint32_t)random_bits() & (3u << MXCSR_RC_SHIFT | MXCSR_PE);
    if (random_bits() & 1)
        mxcsr &= ~(3u << MXCSR_RC_SHIFT);
    if (!(random_bits() & 3))
        mxcsr |= (uint32_t)random_bits() & (MXCSR_DAZ | MXCSR_FTZ | MXCSR_FLAGS);
    if (!(random_bits() & 3))
        mxcsr &= ~((uint32_t)random_bits() & MXCSR_FLAGS << MXCSR_MASKS_SHIFT);
    return mxcsr;
}

struct example {
    uint8_t bytes[16];
    struct insn in;
};

static const char *describe(const struct example *e, const struct sse_host_state *s, const uint64_t *operand)
{
    static char text[400];
    snprintf(text, sizeof text,
             "%s (%s operand, imm %llx) xmm1 %016llx%016llx xmm2 %016llx%016llx memory %016llx%016llx rcx %llx rdx "
             "%llx mxcsr %x",
             op_name(e->in.op), e->in.form == FORM_MEM ? "memory" : "register", (unsigned long long)e->in.imm,
             (unsigned long long)s->xmm1[1], (unsigned long long)s->xmm1[0], (unsigned long long)s->xmm2[1],
             (unsigned long long)s->xmm2[0], (unsigned long long)operand[1], (unsigned long long)operand[0],
             (unsigned long long)s->rcx, (unsigned long long)s->rdx, s->mxcsr);
    return text;
}

// False: no host to compare with.
static bool compare_once(const struct example *e)
{
    static uint64_t operand[8] __attribute__((aligned(64)));
    struct sse_host_state before, host;
    memset(&before, 0, sizeof before);
    for (unsigned i = 0; i < 2; i++) {
        before.xmm1[i] = random_half();
        before.xmm2[i] = random_second(before.xmm1[i]);
        operand[i] = random_second(before.xmm1[i]);
    }
    before.rcx = random_half();
    before.rdx = random_half();
    before.rflags = RFLAGS_ONE | (random_bits() & RFLAGS_ARITHMETIC);
    before.mxcsr = random_mxcsr();
    uint64_t given[2] = {operand[0], operand[1]};

    uint64_t *memory = ram(OPERAND);
    memcpy(memory, operand, 16);
    cpu->xmm[1] = (struct xmm){before.xmm1[0], before.xmm1[1]};
    cpu->xmm[2] = (struct xmm){before.xmm2[0], before.xmm2[1]};
    cpu->regs[REG_RCX] = before.rcx;
    cpu->regs[REG_RDX] = before.rdx;
    cpu->regs[REG_RBX] = cpu->regs[REG_RDI] = OPERAND;
    cpu->mxcsr = before.mxcsr;
    flags_set_arithmetic(cpu, before.rflags);
    cpu->event.vector = 0;
    enum exec_result result = run(&e->in);

    host = before;
    host.rbx = host.rdi = (uintptr_t)operand;
    enum sse_host_result host_result = sse_host_run(e->bytes, e->in.length, &host);
    if (host_result == SSE_HOST_UNAVAILABLE)
        return false;
    const char *text = describe(e, &before, given);
    ck_assert_msg((result == EXEC_FAULT) == (host_result == SSE_HOST_FAULT),
                  "%s: result %d, host %d, mxcsr %x, host's %x", text, result, host_result, cpu->mxcsr, host.mxcsr);
    ck_assert_msg(cpu->mxcsr == host.mxcsr, "%s: mxcsr %x, host's %x", text, cpu->mxcsr, host.mxcsr);
    if (result == EXEC_FAULT) {
        ck_assert_msg(cpu->event.vector == VECTOR_XM, "%s: vector %u", text, cpu->event.vector);
        host = before;
        memcpy(operand, given, 16);
    }
    ck_assert_msg(cpu->xmm[1].lo == host.xmm1[0] && cpu->xmm[1].hi == host.xmm1[1],
                  "%s: xmm1 %016llx%016llx, host's %016llx%016llx", text, (unsigned long long)cpu->xmm[1].hi,
                  (unsigned long long)cpu->xmm[1].lo, (unsigned long long)host.xmm1[1],
                  (unsigned long long)host.xmm1[0]);
    ck_assert_msg(cpu->xmm[2].lo == host.xmm2[0] && cpu->xmm[2].hi == host.xmm2[1],
                  "%s: xmm2 %016llx%016llx, host's %016llx%016llx", text, (unsigned long long)cpu->xmm[2].hi,
                  (unsigned long long)cpu->xmm[2].lo, (unsigned long long)host.xmm2[1],
                  (unsigned long long)host.xmm2[0]);
    ck_assert_msg(cpu->regs[REG_RCX] == host.rcx && cpu->regs[REG_RDX] == host.rdx,
                  "%s: rcx %llx rdx %llx, host's %llx %llx", text, (unsigned long long)cpu->regs[REG_RCX],
                  (unsigned long long)cpu->regs[REG_RDX], (unsigned long long)host.rcx, (unsigned long long)host.rdx);
    ck_assert_msg(flags_arithmetic(cpu) == (host.rflags & RFLAGS_ARITHMETIC), "%s: flags %x, host's %llx", text,
                  flags_arithmetic(cpu), (unsigned long long)(host.rflags & RFLAGS_ARITHMETIC));
    ck_assert_msg(memcmp(memory, operand, 16) == 0, "%s: memory %016llx%016llx, host's %016llx%016llx", text,
                  (unsigned long long)memory[1], (unsigned long long)memory[0], (unsigned long long)operand[1],
                  (unsigned long long)operand[0]);
    return true;
}

static bool is_approximation(unsigned op)
{
    return op == OP_RCPPS || op == OP_RCPSS || op == OP_RSQRTPS || op == OP_RSQRTSS;
}

// LDMXCSR loads what the random operand holds: it has a test of its own. The string comparisons use RAX and XMM0, which the examples
// do not have: random_lockstep compares them with the host.
static bool compared_with_host(unsigned op)
{
    return op != OP_LDMXCSR && !(op >= OP_PCMPESTRM && op <= OP_PCMPISTRI) && !is_approximation(op);
}

static bool is_float(unsigned op) { return op >= OP_ADDPS && op <= OP_CVTTPD2PI; }

static bool op_seen[OP_COUNT];
static unsigned long comparisons;

static void compare_example(struct example *e)
{
    op_seen[e->in.op] = true;
    if (!compared_with_host(e->in.op))
        return;
    unsigned rounds = is_float(e->in.op) ? ROUNDS : ROUNDS_INTEGER;
    for (unsigned i = 0; i < rounds; i++) {
        if (e->in.has_imm) {
            e->bytes[e->in.length - 1] = (uint8_t)(random_bits() & (random_bits() & 1 ? 0xFF : 0x1F));
            ck_assert(decode_bytes(e->bytes, &e->in));
        }
        if (!compare_once(e))
            return;
        comparisons++;
    }
}

// All forms of one opcode: REX.W or not, xmm2/rdx or [rbx], and every reg field that selects another operation.
static void compare_opcode(unsigned prefix, const uint8_t *escape, unsigned escape_length, uint8_t opcode)
{
    static const uint8_t rm_bytes[] = {0xC2, 0x03};
    for (unsigned form = 0; form < 8 * 4; form++) {
        unsigned reg = form / 4, rex_w = form / 2 & 1, length = 0;
        struct example e = {.bytes = {0}};
        struct insn usual;
        if (prefix)
            e.bytes[length++] = (uint8_t)prefix;
        if (rex_w)
            e.bytes[length++] = 0x48;
        memcpy(e.bytes + length, escape, escape_length);
        length += escape_length;
        e.bytes[length++] = opcode;
        e.bytes[length] = rm_bytes[form & 1] | 1 << 3;
        enum decode_status usual_status = decode(e.bytes, 15, MODE_CODE64, &usual);
        e.bytes[length] = (uint8_t)(rm_bytes[form & 1] | reg << 3);
        if (decode_bytes(e.bytes, &e.in) && (reg == 1 || usual_status != DECODE_OK || usual.op != e.in.op))
            compare_example(&e);
    }
}

START_TEST(instructions_do_what_the_host_does)
{
    static const uint8_t prefixes[] = {0, 0x66, 0xF2, 0xF3};
    for (unsigned prefix = 0; prefix < 4; prefix++) {
        for (unsigned opcode = 0; opcode < 256; opcode++)
            if (opcode != 0x38 && opcode != 0x3A)
                compare_opcode(prefixes[prefix], (const uint8_t *)"\x0F", 1, (uint8_t)opcode);
        compare_opcode(prefixes[prefix], (const uint8_t *)"\x0F\x38", 2, 0x2A); // MOVNTDQA
        compare_opcode(prefixes[prefix], (const uint8_t *)"\x0F\x38", 2, 0x37); // PCMPGTQ
        compare_opcode(prefixes[prefix], (const uint8_t *)"\x0F\x3A", 2, 0x44); // PCLMULQDQ
        for (unsigned opcode = 0x60; opcode <= 0x63; opcode++)                  // PCMPESTRM to PCMPISTRI
            compare_opcode(prefixes[prefix], (const uint8_t *)"\x0F\x3A", 2, (uint8_t)opcode);
    }
    for (unsigned op = 0; op < OP_COUNT; op++)
        ck_assert_msg(!handlers[op] || op_seen[op] || op == OP_MOVQ, "%s was not tested",
                      op_name(op)); // no row of opcodes.def is a MOVQ
    printf("%lu comparisons with the host\n", comparisons);
}
END_TEST

// ---- State of the system ----

static struct insn decode_text(const char *bytes, unsigned length)
{
    uint8_t code[15] = {0};
    struct insn in;
    memcpy(code, bytes, length);
    ck_assert(decode_bytes(code, &in));
    ck_assert_uint_eq(in.length, length);
    return in;
}
#define DECODE(literal) decode_text(literal, sizeof literal - 1)

static void check_fault(const struct insn *in, enum vector vector, const char *why)
{
    cpu->event.vector = 0xFF;
    ck_assert_msg(run(in) == EXEC_FAULT, "%s did not fault: %s", op_name(in->op), why);
    ck_assert_msg(cpu->event.vector == vector, "%s: vector %u: %s", op_name(in->op), cpu->event.vector, why);
}

// Every native op in a form that works otherwise.
static void for_every_op(void (*check)(const struct insn *in))
{
    static const uint8_t prefixes[] = {0, 0x66, 0xF2, 0xF3};
    for (unsigned prefix = 0; prefix < 4; prefix++)
        for (unsigned opcode = 0; opcode < 256; opcode++)
            for (unsigned modrm = 0; modrm < 256; modrm++) {
                uint8_t bytes[15] = {prefixes[prefix], 0x0F, (uint8_t)opcode, (uint8_t)modrm};
                struct insn in;
                if (((modrm & 7) == 3 && (modrm < 0x40 || modrm >= 0xC0)) &&
                    decode_bytes(prefix ? bytes : bytes + 1, &in))
                    check(&in);
            }
}

static void refused_by_state(const struct insn *in)
{
    uint64_t cr0 = cpu->cr0, cr4 = cpu->cr4;
    cpu->cr0 = cr0 | CR0_TS;
    check_fault(in, VECTOR_NM, "CR0.TS");
    cpu->cr0 = cr0 | CR0_EM;
    check_fault(in, VECTOR_UD, "CR0.EM");
    cpu->cr0 = cr0 | CR0_TS;
    cpu->cr4 = cr4 & ~CR4_OSFXSR;
    check_fault(in, VECTOR_UD, "CR4.OSFXSR is 0, whatever CR0.TS");
    cpu->cr0 = cr0;
    check_fault(in, VECTOR_UD, "CR4.OSFXSR is 0");
    cpu->cr4 = cr4;
}

START_TEST(every_instruction_heeds_em_ts_and_osfxsr) { for_every_op(refused_by_state); }
END_TEST

static bool may_be_unaligned(const struct insn *in)
{
    switch (in->op) {
    case OP_MOVUPS:
    case OP_MOVUPD:
    case OP_MOVDQU:
    case OP_LDDQU: return true;
    default: return op_memory_size(in) < 16;
    }
}

static unsigned aligned_seen, unaligned_seen;

static void needs_alignment(const struct insn *in)
{
    if (in->form != FORM_MEM)
        return;
    memset(ram(OPERAND), 0, 32);
    cpu->regs[REG_RBX] = OPERAND + 8;
    cpu->mxcsr = 0x1F80;
    struct xmm before = {0x0123456789ABCDEF, 0xFEDCBA9876543210};
    unsigned number = in->reg & 15;
    cpu->xmm[number] = before;
    if (may_be_unaligned(in)) {
        unaligned_seen++;
        ck_assert_msg(run(in) == EXEC_NEXT, "%s refuses an unaligned operand", op_name(in->op));
        return;
    }
    aligned_seen++;
    check_fault(in, VECTOR_GP, "unaligned operand");
    ck_assert(cpu->event.has_error_code && cpu->event.error_code == 0);
    ck_assert(cpu->xmm[number].lo == before.lo && cpu->xmm[number].hi == before.hi);
    cpu->regs[REG_RBX] = OPERAND;
    ck_assert_msg(run(in) == EXEC_NEXT, "%s refuses an aligned operand", op_name(in->op));
}

START_TEST(operands_of_16_bytes_are_aligned)
{
    aligned_seen = unaligned_seen = 0;
    for_every_op(needs_alignment);
    ck_assert_uint_gt(aligned_seen, 500);
    ck_assert_uint_gt(unaligned_seen, 100);
}
END_TEST

START_TEST(unaligned_operand_may_cross_a_page)
{
    struct insn load = DECODE("\x0F\x10\x0B"), store = DECODE("\x0F\x11\x0B"); // MOVUPS xmm1, [rbx]; MOVUPS [rbx], xmm1
    uint8_t bytes[32], seen[32];
    for (unsigned i = 0; i < 32; i++)
        bytes[i] = (uint8_t)(i + 1);
    for (unsigned offset = 1; offset < 16; offset++) {
        for (unsigned warm = 0; warm < 2; warm++) { // the second time the TLB has both pages
            memcpy(ram(OPERAND + PAGE_SIZE - 16), bytes, 32);
            cpu->regs[REG_RBX] = OPERAND + PAGE_SIZE - 16 + offset;
            ck_assert_int_eq(run(&load), EXEC_NEXT);
            ck_assert_mem_eq(&cpu->xmm[1], bytes + offset, 16);
            memset(ram(OPERAND + PAGE_SIZE - 16), 0, 32);
            ck_assert_int_eq(run(&store), EXEC_NEXT);
            memcpy(seen, ram(OPERAND + PAGE_SIZE - 16), 32);
            for (unsigned i = 0; i < 32; i++)
                ck_assert_uint_eq(seen[i], i >= offset && i < offset + 16 ? bytes[i] : 0);
        }
    }
}
END_TEST

START_TEST(unmasked_exception_is_ud_without_osxmmexcpt)
{
    struct insn divide = DECODE("\x0F\x5E\xCA"); // DIVPS xmm1, xmm2
    const struct xmm one = {0x3F8000003F800000, 0x3F8000003F800000}, zero = {0, 0};
    for (unsigned osxmmexcpt = 0; osxmmexcpt < 2; osxmmexcpt++) {
        cpu->cr4 = (cpu->cr4 & ~CR4_OSXMMEXCPT) | (osxmmexcpt ? CR4_OSXMMEXCPT : 0);
        cpu->xmm[1] = one;
        cpu->xmm[2] = zero;
        cpu->mxcsr = 0x1F80 & ~(MXCSR_ZE << MXCSR_MASKS_SHIFT);
        check_fault(&divide, osxmmexcpt ? VECTOR_XM : VECTOR_UD, "zero divide");
        ck_assert_uint_eq(cpu->mxcsr & MXCSR_FLAGS, MXCSR_ZE);
        ck_assert(cpu->xmm[1].lo == one.lo && cpu->xmm[1].hi == one.hi);
    }
}
END_TEST

START_TEST(flag_already_set_raises_nothing)
{
    struct insn add = DECODE("\x0F\x58\xCA"); // ADDPS xmm1, xmm2
    cpu->xmm[1] = cpu->xmm[2] = (struct xmm){0, 0};
    cpu->mxcsr = MXCSR_FLAGS; // all unmasked
    ck_assert_int_eq(run(&add), EXEC_NEXT);
}
END_TEST

START_TEST(ldmxcsr_refuses_bits_that_do_not_exist)
{
    struct insn load = DECODE("\x0F\xAE\x13"); // LDMXCSR [rbx]
    cpu->regs[REG_RBX] = OPERAND;
    for (unsigned bit = 0; bit < 32; bit++) {
        uint32_t value = 1u << bit;
        memcpy(ram(OPERAND), &value, 4);
        cpu->mxcsr = 0x1F80;
        if (bit < 16) {
            ck_assert_int_eq(run(&load), EXEC_NEXT);
            ck_assert_uint_eq(cpu->mxcsr, value);
        } else {
            check_fault(&load, VECTOR_GP, "reserved bit");
            ck_assert_uint_eq(cpu->mxcsr, 0x1F80);
        }
    }
}
END_TEST

START_TEST(masked_store_leaves_memory_as_it_was_on_a_fault)
{
    struct insn store = DECODE("\x66\x0F\xF7\xCA"); // MASKMOVDQU xmm1, xmm2
    cpu->xmm[1] = (struct xmm){UINT64_MAX, UINT64_MAX};
    memset(ram(0xFFF0), 0, 16);
    cpu->regs[REG_RDI] = 0xFFF8; // the limit of DS is FFFFH
    cpu->xmm[2] = (struct xmm){UINT64_MAX, 0x80};
    check_fault(&store, VECTOR_GP, "the ninth byte is beyond the limit");
    uint64_t stored;
    memcpy(&stored, ram(0xFFF8), 8);
    ck_assert_uint_eq(stored, 0);
    cpu->xmm[2] = (struct xmm){0xFF7FFFFFFFFFFFFF, 0};
    ck_assert_int_eq(run(&store), EXEC_NEXT);
    memcpy(&stored, ram(0xFFF8), 8);
    ck_assert_uint_eq(stored, 0xFF00FFFFFFFFFFFF);
}
END_TEST

// ---- Approximations ----

static float as_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

START_TEST(approximations_are_near)
{
    for (unsigned i = 0; i < 200000; i++) {
        uint32_t bits = (uint32_t)random_float(32) & 0x7FFFFFFF;
        double value = as_float(bits);
        if (bits < 0x00800000 || bits >= 0x7F800000)
            continue;
        double inverse = as_float(float_reciprocal(bits)), root = as_float(float_reciprocal_sqrt(bits));
        double error = inverse * value - 1, root_error = root * root * value - 1; // twice the relative error
        if (inverse >= 0x1p-125)                                                  // else flushed to zero
            ck_assert_msg(error < 0x1.8p-12 && error > -0x1.8p-12, "1 / %a = %a", value, inverse);
        ck_assert_msg(root_error < 0x1.8p-11 && root_error > -0x1.8p-11, "1 / sqrt(%a) = %a", value, root);
        ck_assert((float_reciprocal(bits) & 0xFFF) == 0 && (float_reciprocal_sqrt(bits) & 0xFFF) == 0);
    }
}
END_TEST

START_TEST(approximations_of_special_values)
{
    static const struct {
        uint32_t value, reciprocal, root;
    } cases[] = {
        {0x00000000, 0x7F800000, 0x7F800000}, {0x80000000, 0xFF800000, 0xFF800000}, // zeros
        {0x00000001, 0x7F800000, 0x7F800000}, {0x807FFFFF, 0xFF800000, 0xFF800000}, // denormals
        {0x7F800000, 0x00000000, 0x00000000}, {0xFF800000, 0x80000000, 0xFFC00000}, // infinities
        {0x7F800001, 0x7FC00001, 0x7FC00001}, {0xFFC12345, 0xFFC12345, 0xFFC12345}, // NaNs
        {0x3F800000, 0x3F800000, 0x3F800000}, {0x40800000, 0x3E800000, 0x3F000000}, // 1, 4
        {0x3E800000, 0x40800000, 0x40000000}, {0xBF800000, 0xBF800000, 0xFFC00000}, // 1/4, -1
        {0x7F7FFFFF, 0x00000000, 0x1F800000}, // the largest: tiny results are flushed
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_uint_eq(float_reciprocal(cases[i].value), cases[i].reciprocal);
        ck_assert_uint_eq(float_reciprocal_sqrt(cases[i].value), cases[i].root);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("SSE");
    TCase *flat = tcase_create("64-bit mode"), *real = tcase_create("real-address mode"),
          *pure = tcase_create("functions");
    tcase_add_checked_fixture(flat, setup_long_mode, teardown);
    tcase_add_checked_fixture(real, setup_real_mode, teardown);
    TCase *const modes[] = {flat, real};
    for (unsigned i = 0; i < 2; i++) {
        tcase_set_timeout(modes[i], 120);
        tcase_add_test(modes[i], instructions_do_what_the_host_does);
        tcase_add_test(modes[i], every_instruction_heeds_em_ts_and_osfxsr);
        tcase_add_test(modes[i], operands_of_16_bytes_are_aligned);
        tcase_add_test(modes[i], unaligned_operand_may_cross_a_page);
        tcase_add_test(modes[i], unmasked_exception_is_ud_without_osxmmexcpt);
        tcase_add_test(modes[i], flag_already_set_raises_nothing);
        tcase_add_test(modes[i], ldmxcsr_refuses_bits_that_do_not_exist);
        suite_add_tcase(suite, modes[i]);
    }
    tcase_add_test(real, masked_store_leaves_memory_as_it_was_on_a_fault);
    tcase_add_test(pure, approximations_are_near);
    tcase_add_test(pure, approximations_of_special_values);
    suite_add_tcase(suite, pure);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
