// Guest instructions without a native handler: the reference executor carries them out with the results that the SDM gives. Random operands
// against the host processor: tests/cpu/random_lockstep.c.
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/exec.h"
#include "cpu/select.h"
#include "cpu/system.h"
#include "flat_machine.h"
#include "reference/deviations.h"

enum { CODE = 0x6000, DATA = 0x18000 };

static struct machine *machine;
static struct cpu *cpu;

static void setup(void)
{
    machine = flat_machine_create(MODE_CODE64);
    ck_assert_ptr_nonnull(machine);
    cpu = &machine->processor[0]->cpu;
    cpu->regs[REG_RBX] = DATA;
    cpu->regs[REG_RDX] = 0;
    cpu->regs[REG_RDI] = DATA + 64;
}

static void teardown(void) { flat_machine_destroy(machine); }

// Runs one instruction.
static void run(const char *bytes, unsigned length)
{
    memory_write(&machine->memory, CODE, bytes, length);
    cpu->regs[REG_RIP] = CODE;
    cpu_run(cpu, cpu_now(cpu) + 100000, true);
    ck_assert_uint_eq(cpu->regs[REG_RIP], CODE + length);
}
#define RUN(bytes) run(bytes, sizeof(bytes) - 1)

// Runs one instruction that the core leaves to the executor.
static void run_reference(const char *bytes, unsigned length)
{
    uint64_t before = cpu->reference_instructions;
    run(bytes, length);
    ck_assert_uint_eq(cpu->reference_instructions, before + 1);
}
#define RUN_REFERENCE(bytes) run_reference(bytes, sizeof(bytes) - 1)

static void put(uint64_t value, unsigned offset) { memory_write(&machine->memory, DATA + offset, &value, 8); }

static uint64_t get(unsigned offset)
{
    uint64_t value = 0;
    memory_read(&machine->memory, DATA + offset, &value, 8);
    return value;
}

static void expect_xmm(unsigned number, uint64_t hi, uint64_t lo)
{
    ck_assert_uint_eq(cpu->xmm[number].hi, hi);
    ck_assert_uint_eq(cpu->xmm[number].lo, lo);
}

START_TEST(x87_adds_numbers_in_memory)
{
    put(0x3FF8000000000000, 0);    // 1.5
    put(0x4002000000000000, 8);    // 2.25
    RUN_REFERENCE("\xDB\xE3");     // FNINIT
    RUN_REFERENCE("\xDD\x03");     // FLD QWORD [RBX]
    RUN_REFERENCE("\xDC\x43\x08"); // FADD QWORD [RBX + 8]
    ck_assert_uint_eq(cpu->fpu.status >> 11 & 7, 7);
    ck_assert_uint_eq(cpu->fpu.dp, DATA + 8);
    RUN_REFERENCE("\xDD\x5B\x10");                  // FSTP QWORD [RBX + 16]
    ck_assert_uint_eq(get(16), 0x400E000000000000); // 3.75
    ck_assert_uint_eq(cpu->fpu.status >> 11 & 7, 0);
    ck_assert_uint_eq(cpu->fpu.tag, 0xFFFF);
    ck_assert_uint_eq(cpu->fpu.ip, CODE);
}
END_TEST

START_TEST(x87_compares_into_rflags)
{
    RUN_REFERENCE("\xDB\xE3"); // FNINIT
    RUN_REFERENCE("\xD9\xE8"); // FLD1
    RUN_REFERENCE("\xD9\xEE"); // FLDZ
    flags_set_arithmetic(cpu, RFLAGS_ARITHMETIC);
    RUN_REFERENCE("\xDB\xF1"); // FCOMI ST, ST(1): 0 < 1
    ck_assert_uint_eq(flags_arithmetic(cpu), RFLAGS_CF);
}
END_TEST

START_TEST(mmx_adds_and_takes_the_x87_registers)
{
    cpu->fpu.status = 3 << 11;
    cpu->fpu.tag = 0xFFFF;
    put(0x00FF00FF00FF0001, 0);
    put(0x0001000100010001, 8);
    RUN_REFERENCE("\x0F\x6F\x0B");     // MOVQ MM1, [RBX]
    RUN_REFERENCE("\x0F\xFC\x4B\x08"); // PADDB MM1, [RBX + 8]
    ck_assert_uint_eq(cpu->fpu.st[1].mantissa, 0x0000000000000002);
    ck_assert_uint_eq(cpu->fpu.st[1].sign_exponent, 0xFFFF);
    ck_assert_uint_eq(cpu->fpu.tag, 0);
    ck_assert_uint_eq(cpu->fpu.status >> 11 & 7, 0);
    RUN_REFERENCE("\x0F\x77"); // EMMS
    ck_assert_uint_eq(cpu->fpu.tag, 0xFFFF);
}
END_TEST

START_TEST(mmx_registers_have_no_rex_extension)
{
    put(0x1122334455667788, 0);
    RUN_REFERENCE("\x44\x0F\x6F\x0B"); // MOVQ MM1, [RBX] with REX.R
    ck_assert_uint_eq(cpu->fpu.st[1].mantissa, 0x1122334455667788);
}
END_TEST

START_TEST(maskmovq_stores_the_marked_bytes)
{
    put(0x1111111111111111, 64);
    cpu->fpu.st[1].mantissa = 0xA8A7A6A5A4A3A2A1;
    cpu->fpu.st[2].mantissa = 0x80007F00FF000080;
    RUN("\x0F\xF7\xCA"); // MASKMOVQ MM1, MM2
    ck_assert_uint_eq(get(64), 0xA8111111A41111A1);
}
END_TEST

START_TEST(pshufb_shuffles)
{
    cpu->xmm[1] = (struct xmm){0x0706050403020100, 0x0F0E0D0C0B0A0908};
    put(0x8000010203040506, 0);
    put(0x0F0E0D0C0B0A0980, 8);
    RUN_REFERENCE("\x66\x0F\x38\x00\x0B"); // PSHUFB XMM1, [RBX]
    expect_xmm(1, 0x0F0E0D0C0B0A0900, 0x0000010203040506);
}
END_TEST

START_TEST(phaddw_of_a_register_with_itself)
{
    cpu->xmm[9] = (struct xmm){0x0004000300020001, 0x0008000700060005};
    RUN_REFERENCE("\x66\x45\x0F\x38\x01\xC9"); // PHADDW XMM9, XMM9
    expect_xmm(9, 0x000F000B00070003, 0x000F000B00070003);
}
END_TEST

START_TEST(sse41_multiplies_and_extracts)
{
    cpu->xmm[2] = (struct xmm){0xFFFFFFFF00000003, 0x0001000000000002};
    cpu->xmm[3] = (struct xmm){0x0000000500000007, 0x0001000100000009};
    RUN_REFERENCE("\x66\x0F\x38\x40\xD3"); // PMULLD XMM2, XMM3
    expect_xmm(2, 0x0001000000000012, 0xFFFFFFFB00000015);
    RUN_REFERENCE("\x66\x48\x0F\x3A\x16\xD0\x00"); // PEXTRQ RAX, XMM2, 0
    ck_assert_uint_eq(cpu->regs[REG_RAX], 0xFFFFFFFB00000015);
    RUN_REFERENCE("\x66\x0F\x3A\x14\x53\x20\x00"); // PEXTRB [RBX + 32], XMM2, 0
    ck_assert_uint_eq(get(32), 0x15);
}
END_TEST

START_TEST(aesenc_of_the_published_example)
{
    // FIPS 197 appendix B, round 1: start of round, round key and start of round 2
    const uint8_t state[16] = {0x19, 0x3d, 0xe3, 0xbe, 0xa0, 0xf4, 0xe2, 0x2b,
                               0x9a, 0xc6, 0x8d, 0x2a, 0xe9, 0xf8, 0x48, 0x08};
    const uint8_t key[16] = {0xa0, 0xfa, 0xfe, 0x17, 0x88, 0x54, 0x2c, 0xb1,
                             0x23, 0xa3, 0x39, 0x39, 0x2a, 0x6c, 0x76, 0x05};
    const uint8_t result[16] = {0xa4, 0x9c, 0x7f, 0xf2, 0x68, 0x9f, 0x35, 0x2b,
                                0x6b, 0x5b, 0xea, 0x43, 0x02, 0x6a, 0x50, 0x49};
    memcpy(&cpu->xmm[0], state, 16);
    memory_write(&machine->memory, DATA, key, 16);
    RUN_REFERENCE("\x66\x0F\x38\xDC\x03"); // AESENC XMM0, [RBX]
    ck_assert_mem_eq(&cpu->xmm[0], result, 16);
}
END_TEST

START_TEST(pclmulqdq_is_native)
{
    cpu->xmm[1] = (struct xmm){0, 0x8000000000000003};
    cpu->xmm[2] = (struct xmm){0x5, 0};
    RUN("\x66\x0F\x3A\x44\xCA\x01"); // PCLMULQDQ XMM1, XMM2, 1
    expect_xmm(1, 0x2, 0x800000000000000F);
    ck_assert(!select_is_reference(OP_PCLMULQDQ));
}
END_TEST

START_TEST(pcmpistri_finds_a_character)
{
    memcpy(&cpu->xmm[1], "xyz\0............", 16);
    memory_write(&machine->memory, DATA, "abcdefghizklmnop", 16);
    RUN("\x66\x0F\x3A\x63\x0B\x00"); // PCMPISTRI XMM1, [RBX], equal any of bytes
    ck_assert_uint_eq(cpu->regs[REG_RCX], 9);
    ck_assert_uint_eq(flags_arithmetic(cpu), RFLAGS_CF | RFLAGS_SF);
}
END_TEST

START_TEST(pcmpestri_bounds_any_length)
{
    memcpy(&cpu->xmm[1], "aaaaaaaaaaaaaaaa", 16);
    memcpy(&cpu->xmm[2], "aaaaaaaaaaaaaaab", 16);
    cpu->regs[REG_RAX] = 0x80000000;
    cpu->regs[REG_RDX] = 0x80000000;
    RUN("\x66\x0F\x3A\x61\xCA\x18"); // PCMPESTRI XMM1, XMM2, equal each, negated
    ck_assert_uint_eq(cpu->regs[REG_RCX], 15);
}
END_TEST

START_TEST(operand_has_to_be_aligned)
{
    uint64_t before = cpu->exception_count[VECTOR_GP];
    memory_write(&machine->memory, CODE, "\x66\x0F\x38\x00\x4B\x01", 6); // PSHUFB XMM1, [RBX + 1]
    cpu->regs[REG_RIP] = CODE;
    cpu_run(cpu, cpu_now(cpu) + 100000, true);
    ck_assert_uint_gt(cpu->exception_count[VECTOR_GP], before);
}
END_TEST

// ---- Lockstep ----

static bool lockstep(const char *bytes, unsigned length, char *text, size_t size, void (*disturb)(void))
{
    memory_write(&machine->memory, CODE, bytes, length);
    cpu->regs[REG_RIP] = CODE;
    ck_assert(reference_lockstep_before(machine->reference, cpu));
    cpu_run(cpu, cpu_now(cpu) + 100000, true);
    disturb();
    return reference_lockstep_after(machine->reference, cpu, text, size);
}

static void nothing(void) {}
static void disturb_register(void) { cpu->regs[REG_RDX] ^= 4; }
static void disturb_carry(void) { flags_set_arithmetic(cpu, flags_arithmetic(cpu) ^ RFLAGS_CF); }
static void disturb_memory(void) { put(get(0) ^ BIT(40), 0); }
static void disturb_xmm(void) { cpu->xmm[15].hi ^= BIT(63); }

START_TEST(lockstep_accepts_what_is_equal)
{
    char text[512];
    put(0x123456789ABCDEF0, 0);
    ck_assert(lockstep("\x48\x01\x03", 3, text, sizeof text, nothing));         // ADD [RBX], RAX
    ck_assert(lockstep("\x66\x44\x0F\xFC\x3B", 5, text, sizeof text, nothing)); // PADDB XMM15, [RBX]
}
END_TEST

START_TEST(lockstep_reports_each_kind_of_difference)
{
    char text[512];
    ck_assert(!lockstep("\x48\x01\x03", 3, text, sizeof text, disturb_register));
    ck_assert_ptr_nonnull(strstr(text, "lockstep: add (48 01 03) before RIP 0x6003: RDX is 0x4 here and 0x0"));
    ck_assert(!lockstep("\x48\x01\x03", 3, text, sizeof text, disturb_carry));
    ck_assert_ptr_nonnull(strstr(text, "RFLAGS"));
    ck_assert(!lockstep("\x48\x01\x03", 3, text, sizeof text, disturb_memory));
    ck_assert_ptr_nonnull(strstr(text, "byte 5 of the memory operand"));
    ck_assert(!lockstep("\x66\x44\x0F\xFC\x3B", 5, text, sizeof text, disturb_xmm));
    ck_assert_ptr_nonnull(strstr(text, "XMM15"));
}
END_TEST

START_TEST(lockstep_follows_a_bit_offset)
{
    char text[512];
    put(0, 64);
    cpu->regs[REG_RAX] = 64 * 8 + 3;
    ck_assert(lockstep("\x48\x0F\xAB\x03", 4, text, sizeof text, nothing)); // BTS [RBX], RAX
    ck_assert_uint_eq(get(64), 8);
}
END_TEST

START_TEST(lockstep_accepts_a_listed_deviation_only)
{
    char text[512];
    cpu->regs[REG_RBP] = 0x1234567800000005;
    cpu->regs[REG_RCX] = 0xFF00; // BEXTR EAX, EBP, ECX: length 255
    ck_assert(lockstep("\xC4\xE2\x70\xF7\xC5", 5, text, sizeof text, nothing));
    cpu->regs[REG_RBP] = 0x80000005;
    cpu->regs[REG_RCX] = 0x0800;
    ck_assert(lockstep("\xC4\xE2\x70\xF7\xC5", 5, text, sizeof text, nothing));
    ck_assert(!lockstep("\xC4\xE2\x70\xF7\xC5", 5, text, sizeof text, disturb_register));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("reference executor");
    TCase *cases = tcase_create("reference executor");
    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, x87_adds_numbers_in_memory);
    tcase_add_test(cases, x87_compares_into_rflags);
    tcase_add_test(cases, mmx_adds_and_takes_the_x87_registers);
    tcase_add_test(cases, mmx_registers_have_no_rex_extension);
    tcase_add_test(cases, maskmovq_stores_the_marked_bytes);
    tcase_add_test(cases, pshufb_shuffles);
    tcase_add_test(cases, phaddw_of_a_register_with_itself);
    tcase_add_test(cases, sse41_multiplies_and_extracts);
    tcase_add_test(cases, aesenc_of_the_published_example);
    tcase_add_test(cases, pclmulqdq_is_native);
    tcase_add_test(cases, pcmpistri_finds_a_character);
    tcase_add_test(cases, pcmpestri_bounds_any_length);
    tcase_add_test(cases, operand_has_to_be_aligned);
    tcase_add_test(cases, lockstep_accepts_what_is_equal);
    tcase_add_test(cases, lockstep_reports_each_kind_of_difference);
    tcase_add_test(cases, lockstep_follows_a_bit_offset);
    tcase_add_test(cases, lockstep_accepts_a_listed_deviation_only);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
