// Results and flags of the integer instructions, at every size and in every operand form, against formulas of their own.
#include <check.h>
#include <stdio.h>

#include "core_fixture.h"

enum operation { ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST, INC, DEC, NEG, NOT, SHL, SHR, SAR, ROL, ROR, RCL, RCR };

static const char *const names[] = {"add", "or",  "adc", "sbb", "and", "sub", "xor", "cmp", "test", "inc",
                                    "dec", "neg", "not", "shl", "shr", "sar", "rol", "ror", "rcl",  "rcr"};

static const uint64_t values[] = {0,
                                  1,
                                  2,
                                  0xF,
                                  0x10,
                                  0x7F,
                                  0x80,
                                  0x81,
                                  0xFF,
                                  0x7FFF,
                                  0x8000,
                                  0xFFFF,
                                  0x12345678,
                                  0x7FFFFFFF,
                                  0x80000000,
                                  0xFFFFFFFF,
                                  0x123456789ABCDEF0,
                                  0x7FFFFFFFFFFFFFFF,
                                  0x8000000000000000,
                                  UINT64_MAX};
enum { VALUES = sizeof(values) / sizeof(values[0]) };

// ---- The formulas: bit by bit, or in twice the width ----

struct outcome {
    uint64_t result;
    uint64_t flags; // RFLAGS_ARITHMETIC bits
};

static uint64_t cut(uint64_t value, unsigned size) { return size == 8 ? value : value & (BIT(8 * size) - 1); }
static bool top(uint64_t value, unsigned size) { return value >> (8 * size - 1) & 1; }

static uint64_t flags_of_result(uint64_t result, unsigned size)
{
    uint64_t flags = result == 0 ? RFLAGS_ZF : 0;
    unsigned ones = 0;
    for (unsigned i = 0; i < 8; i++)
        ones += result >> i & 1;
    return flags | (top(result, size) ? RFLAGS_SF : 0) | (ones % 2 == 0 ? RFLAGS_PF : 0);
}

static struct outcome sum(uint64_t a, uint64_t b, unsigned carry, unsigned size)
{
    unsigned __int128 wide = (unsigned __int128)a + b + carry;
    uint64_t result = cut((uint64_t)wide, size);
    uint64_t flags = flags_of_result(result, size);
    flags |= wide >> (8 * size) & 1 ? RFLAGS_CF : 0;
    flags |= (a & 15) + (b & 15) + carry > 15 ? RFLAGS_AF : 0;
    flags |= top(a, size) == top(b, size) && top(result, size) != top(a, size) ? RFLAGS_OF : 0;
    return (struct outcome){result, flags};
}

static struct outcome difference(uint64_t a, uint64_t b, unsigned borrow, unsigned size)
{
    uint64_t result = cut(a - b - borrow, size);
    uint64_t flags = flags_of_result(result, size);
    flags |= (unsigned __int128)a < (unsigned __int128)b + borrow ? RFLAGS_CF : 0;
    flags |= (a & 15) < (b & 15) + borrow ? RFLAGS_AF : 0;
    flags |= top(a, size) != top(b, size) && top(result, size) != top(a, size) ? RFLAGS_OF : 0;
    return (struct outcome){result, flags};
}

static struct outcome logic(uint64_t result, unsigned size)
{
    return (struct outcome){result, flags_of_result(result, size)};
}

// One bit at a time. OF as after the last step; SF, ZF, PF, AF of rotates as before.
static struct outcome shifted(enum operation op, uint64_t a, unsigned count, uint64_t flags, unsigned size)
{
    unsigned bits = 8 * size;
    bool carry = flags & RFLAGS_CF, overflow = flags & RFLAGS_OF, rotate = op >= ROL;
    count &= size == 8 ? 63 : 31;
    if (op == RCL || op == RCR)
        count %= bits + 1;
    if (count == 0)
        return (struct outcome){a, flags};
    for (unsigned i = 0; i < count; i++) {
        bool high = top(a, size), low = a & 1, before = carry;
        switch (op) {
        case SHL:
        case ROL:
        case RCL:
            a = cut(a << 1, size) | (op == ROL ? high : op == RCL ? before : 0u);
            carry = high;
            overflow = top(a, size) != carry;
            break;
        default:
            a = a >> 1;
            if (op == SAR ? high : op == ROR ? low : op == RCR && before)
                a |= BIT(bits - 1);
            carry = low;
            overflow = top(a, size) != (op == SHR || op == SAR ? high : (a >> (bits - 2) & 1));
            break;
        }
    }
    uint64_t kept = rotate ? flags & ~(RFLAGS_CF | RFLAGS_OF) : flags_of_result(a, size);
    return (struct outcome){a, kept | (carry ? RFLAGS_CF : 0) | (overflow ? RFLAGS_OF : 0)};
}

static struct outcome expected(enum operation op, uint64_t a, uint64_t b, uint64_t flags, unsigned size)
{
    unsigned carry = flags & RFLAGS_CF ? 1 : 0;
    struct outcome o;
    a = cut(a, size);
    b = cut(b, size);
    switch (op) {
    case ADD: return sum(a, b, 0, size);
    case ADC: return sum(a, b, carry, size);
    case SUB: return difference(a, b, 0, size);
    case SBB: return difference(a, b, carry, size);
    case CMP:
        o = difference(a, b, 0, size);
        o.result = a;
        return o;
    case OR: return logic(a | b, size);
    case AND: return logic(a & b, size);
    case XOR: return logic(a ^ b, size);
    case TEST:
        o = logic(a & b, size);
        o.result = a;
        return o;
    case INC:
        o = sum(a, 1, 0, size);
        o.flags = (o.flags & ~RFLAGS_CF) | (flags & RFLAGS_CF);
        return o;
    case DEC:
        o = difference(a, 1, 0, size);
        o.flags = (o.flags & ~RFLAGS_CF) | (flags & RFLAGS_CF);
        return o;
    case NEG: return difference(0, a, 0, size);
    case NOT: return (struct outcome){cut(~a, size), flags};
    default: return shifted(op, a, (unsigned)b & 0xFF, flags, size);
    }
}

// ---- The instructions ----

enum form { RR, RR_BACK, RI, RM, MR, MI };
static const char *const forms[] = {"rr", "rr (opcode with the direction bit)", "ri", "rm", "mr", "mi"};

static unsigned put_immediate(uint8_t *code, uint64_t value, unsigned size)
{
    unsigned bytes = size == 8 ? 4 : size;
    for (unsigned i = 0; i < bytes; i++)
        code[i] = (uint8_t)(value >> (8 * i));
    return bytes;
}

static unsigned put_opcode(uint8_t *code, unsigned opcode, unsigned size)
{
    unsigned n = 0;
    if (size == 2)
        code[n++] = 0x66;
    code[n++] = size == 8 ? 0x48 : 0x40;
    code[n++] = (uint8_t)(size == 1 ? opcode : opcode | 1);
    return n;
}

// RDX (or [RSI]) op RBX or an immediate; shifts by CL or an immediate. Returns the length, 0: the form does not exist.
static unsigned encode(uint8_t *code, enum operation op, enum form form, uint64_t b, unsigned size)
{
    enum { RDX = 2, RBX = 3, MEMORY = 0x06, REGISTER = 0xC2 };
    bool memory = form >= RM, immediate = form == RI || form == MI;
    unsigned n, target = memory ? MEMORY : REGISTER;
    if (op >= SHL) {
        static const uint8_t digit[] = {4, 5, 7, 0, 1, 2, 3};
        if (form == RM || form == RR_BACK)
            return 0;
        n = put_opcode(code, immediate ? 0xC0 : 0xD2, size);
        code[n++] = (uint8_t)(target | (unsigned)digit[op - SHL] << 3);
        if (immediate)
            code[n++] = (uint8_t)b;
        return n;
    }
    if (op >= INC) {
        if (form != RR && form != MR)
            return 0;
        bool inc_dec = op == INC || op == DEC;
        n = put_opcode(code, inc_dec ? 0xFE : 0xF6, size);
        code[n++] = (uint8_t)(target | (op == INC ? 0u : op == DEC ? 1u : op == NEG ? 3u : 2u) << 3);
        return n;
    }
    if (op == TEST) {
        if (form == RM || form == RR_BACK)
            return 0;
        n = put_opcode(code, immediate ? 0xF6 : 0x84, size);
        code[n++] = (uint8_t)(target | (immediate ? 0 : RBX << 3));
        return immediate ? n + put_immediate(code + n, b, size) : n;
    }
    if (immediate) {
        n = put_opcode(code, 0x80, size);
        code[n++] = (uint8_t)(target | (unsigned)op << 3);
        return n + put_immediate(code + n, b, size);
    }
    n = put_opcode(code, (unsigned)op * 8 + (form == RM || form == RR_BACK ? 2 : 0), size);
    code[n++] = form == RR_BACK ? (uint8_t)(0xC0 | RDX << 3 | RBX) : (uint8_t)(target | (form == RM ? 2u : 3u) << 3);
    return n;
}

// Runs one instruction. `in_block`: between others, in a block with dead flags around it, instead of alone.
static void run(struct core *core, const uint8_t *code, unsigned length, bool in_block)
{
    static const uint8_t before[] = {0x49, 0x89, 0xC0, 0x4D, 0x8D, 0x48, 0x01},
                         after[] = {0x4D, 0x89, 0xC8, 0xF4}; // mov, lea; mov, hlt
    struct cpu *cpu = &core->cpu;
    uint8_t bytes[64];
    unsigned n = 0;
    if (in_block) {
        memcpy(bytes, before, sizeof(before));
        n = sizeof(before);
    }
    memcpy(bytes + n, code, length);
    memcpy(bytes + n + length, after, sizeof(after));
    core_poke(core, CORE_CODE, bytes, n + length + (unsigned)sizeof(after));
    cpu->regs[REG_RIP] = CORE_CODE;
    cpu->activity = ACTIVITY_ACTIVE;
    enum exec_result result = cpu_run(cpu, cpu_now(cpu) + (in_block ? 10000 : 1), !in_block);
    ck_assert_int_eq(result, in_block ? EXEC_HALT : EXEC_DONE);
}

static void check_one(struct core *core, enum operation op, enum form form, unsigned size, uint64_t a, uint64_t b,
                      uint64_t flags, bool in_block)
{
    struct cpu *cpu = &core->cpu;
    uint8_t code[16];
    bool immediate = form == RI || form == MI, to_memory = form == MR || form == MI;
    if (immediate && size == 8)
        b = (uint64_t)(int64_t)(int32_t)b;
    unsigned length = encode(code, op, form, b, size);
    if (!length)
        return;
    uint64_t other = 0xA5A5A5A5A5A5A5A5;
    cpu->regs[REG_RDX] = to_memory ? other : a;
    cpu->regs[REG_RBX] = cpu->regs[REG_RCX] = b;
    cpu->regs[REG_RSI] = CORE_DATA;
    uint64_t memory = to_memory ? a : form == RM ? b : other;
    core_poke(core, CORE_DATA, &memory, 8);
    flags_set_arithmetic(cpu, flags);
    run(core, code, length, in_block);

    struct outcome o = expected(op, a, b, flags, size);
    uint64_t whole = to_memory ? memory : a;
    uint64_t written = size == 8                 ? o.result
                       : size == 4 && !to_memory ? o.result
                                                 : (whole & ~(BIT(8 * size) - 1)) | o.result;
    if (op == CMP || op == TEST)
        written = whole;
    uint64_t got = cpu->regs[REG_RDX];
    if (to_memory)
        memcpy(&got, core->memory.ram + CORE_DATA, 8);
    char what[128];
    snprintf(what, sizeof(what), "%s %s of %u bytes, %lx and %lx, flags %lx", names[op], forms[form], size, (long)a,
             (long)b, (long)flags);
    ck_assert_msg(got == written, "%s: result %lx instead of %lx", what, (long)got, (long)written);
    ck_assert_msg(flags_arithmetic(cpu) == o.flags, "%s: flags %lx instead of %lx", what, (long)flags_arithmetic(cpu),
                  (long)o.flags);
}

static void check_operation(struct core *core, enum operation op, bool in_block)
{
    for (unsigned size = 1; size <= 8; size *= 2) {
        for (enum form form = RR; form <= MI; form++) {
            for (unsigned i = 0; i < VALUES; i++) {
                for (unsigned k = 0; k < VALUES; k++) {
                    uint64_t b = op >= SHL ? (k * 5) % 70 : values[k];
                    uint64_t flags = ((i ^ k) & 1 ? RFLAGS_CF : 0) | (i & 2 ? RFLAGS_OF | RFLAGS_ZF : 0) |
                                     (k & 2 ? RFLAGS_SF | RFLAGS_AF : 0);
                    check_one(core, op, form, size, values[i], b, flags, in_block);
                }
            }
        }
    }
}

START_TEST(each_operation_gives_result_and_flags_alone)
{
    struct core *core = core_create();
    for (enum operation op = ADD; op <= RCR; op++)
        check_operation(core, op, false);
    core_destroy(core);
}
END_TEST

START_TEST(each_operation_gives_result_and_flags_in_a_block)
{
    struct core *core = core_create();
    for (enum operation op = ADD; op <= RCR; op++)
        check_operation(core, op, true);
    core_destroy(core);
}
END_TEST

// cmp/test/sub/dec, jcc: taken as the condition says, and the flags stay for later.
static bool condition_holds(unsigned code, uint64_t flags)
{
    bool cf = flags & RFLAGS_CF, zf = flags & RFLAGS_ZF, sf = flags & RFLAGS_SF, of = flags & RFLAGS_OF,
         pf = flags & RFLAGS_PF;
    const bool holds[] = {of, cf, zf, cf || zf, sf, pf, sf != of, zf || sf != of};
    return holds[code >> 1] != (code & 1);
}

static void check_fused(struct core *core, enum operation op, enum form form, unsigned size, unsigned code, uint64_t a,
                        uint64_t b)
{
    struct cpu *cpu = &core->cpu;
    uint8_t bytes[24];
    if (form == RI && size == 8)
        b = (uint64_t)(int64_t)(int32_t)b;
    unsigned n = encode(bytes, op, form, b, size);
    if (!n)
        return;
    bytes[n++] = (uint8_t)(0x70 + code);
    bytes[n++] = 1;
    bytes[n++] = 0xF4; // hlt; taken: the second one
    bytes[n++] = 0xF4;
    cpu->regs[REG_RDX] = a;
    cpu->regs[REG_RBX] = b;
    flags_set_arithmetic(cpu, RFLAGS_CF);
    core_poke(core, CORE_CODE, bytes, n);
    cpu->regs[REG_RIP] = CORE_CODE;
    cpu->activity = ACTIVITY_ACTIVE;
    uint64_t before = cpu->instructions;
    ck_assert_int_eq(cpu_run(cpu, cpu_now(cpu) + 1000, false), EXEC_HALT);
    struct outcome o = expected(op, a, b, RFLAGS_CF, size);
    bool taken = cpu->regs[REG_RIP] == CORE_CODE + n;
    ck_assert_msg(taken == condition_holds(code, o.flags), "%s %s of %u bytes and condition %u: %lx, %lx", names[op],
                  forms[form], size, code, (long)a, (long)b);
    ck_assert_uint_eq(flags_arithmetic(cpu), o.flags);
    ck_assert_uint_eq(cpu->instructions - before, 3);
}

START_TEST(arithmetic_before_a_branch_decides_it)
{
    static const enum operation operations[] = {CMP, TEST, SUB, ADD, AND, DEC, INC};
    struct core *core = core_create();
    for (unsigned o = 0; o < 7; o++)
        for (unsigned size = 1; size <= 8; size *= 2)
            for (enum form form = RR; form <= RI; form++)
                for (unsigned code = 0; code < 16; code++)
                    for (unsigned i = 0; i < VALUES; i += 2)
                        for (unsigned k = 1; k < VALUES; k += 3)
                            check_fused(core, operations[o], form, size, code, values[i],
                                        k % 2 ? values[k] : values[i]);
    core_destroy(core);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("exec integer");
    TCase *tests = tcase_create("arithmetic");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, each_operation_gives_result_and_flags_alone);
    tcase_add_test(tests, each_operation_gives_result_and_flags_in_a_block);
    tcase_add_test(tests, arithmetic_before_a_branch_decides_it);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
