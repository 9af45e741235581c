// Moving memory operands (src/reference/encode.c): every addressing form, every code size, prefixes, REX, VEX, moffs, immediates.
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "reference/encode.h"

static struct insn in;
static uint8_t out[ENCODE_MAX];
static const unsigned modes[3] = {MODE_CODE16, MODE_CODE32, MODE_CODE64};

static unsigned decode_in(unsigned code_mode, const uint8_t *bytes, unsigned length)
{
    uint8_t padded[INSN_MAX_LENGTH] = {0};
    memcpy(padded, bytes, length);
    ck_assert_int_eq(decode(padded, INSN_MAX_LENGTH, code_mode, &in), DECODE_OK);
    ck_assert_uint_eq(in.length, length);
    return encode_moved(&in, padded, code_mode, 0x1234, out);
}

#define BYTES(...) ((const uint8_t[]){__VA_ARGS__}), sizeof((const uint8_t[]){__VA_ARGS__})

static void expect(unsigned length, const uint8_t *bytes, unsigned size)
{
    ck_assert_uint_eq(length, size);
    ck_assert_mem_eq(out, bytes, size);
}

START_TEST(register_forms_stay)
{
    expect(decode_in(MODE_CODE64, BYTES(0x66, 0x45, 0x01, 0xC8)), BYTES(0x66, 0x45, 0x01, 0xC8));
}
END_TEST

START_TEST(lea_stays)
{
    expect(decode_in(MODE_CODE64, BYTES(0x48, 0x8D, 0x44, 0x88, 0x10)), BYTES(0x48, 0x8D, 0x44, 0x88, 0x10));
}
END_TEST

START_TEST(operand_moves_in_each_code_size)
{
    // ADD [base], reg, with disp8 in the first two
    expect(decode_in(MODE_CODE16, BYTES(0x01, 0x50, 0x10)), BYTES(0x01, 0x16, 0x34, 0x12));
    expect(decode_in(MODE_CODE32, BYTES(0x01, 0x50, 0x10)), BYTES(0x01, 0x15, 0x34, 0x12, 0, 0));
    expect(decode_in(MODE_CODE64, BYTES(0x01, 0x10)), BYTES(0x01, 0x14, 0x25, 0x34, 0x12, 0, 0));
}
END_TEST

START_TEST(segment_and_address_prefixes_go_and_others_stay)
{
    // LOCK ADD FS:[EAX], CX
    expect(decode_in(MODE_CODE64, BYTES(0x64, 0xF0, 0x67, 0x66, 0x01, 0x08)),
           BYTES(0xF0, 0x66, 0x01, 0x0C, 0x25, 0x34, 0x12, 0, 0));
}
END_TEST

START_TEST(immediate_follows_the_new_address)
{
    // ADD DWORD [RAX + RBX * 4 + 0x11223344], 0x55667788
    expect(decode_in(MODE_CODE64, BYTES(0x81, 0x84, 0x98, 0x44, 0x33, 0x22, 0x11, 0x88, 0x77, 0x66, 0x55)),
           BYTES(0x81, 0x04, 0x25, 0x34, 0x12, 0, 0, 0x88, 0x77, 0x66, 0x55));
}
END_TEST

START_TEST(rex_keeps_w_and_r_only)
{
    // MOV R9, [R8 + R10]
    expect(decode_in(MODE_CODE64, BYTES(0x4F, 0x8B, 0x0C, 0x10)), BYTES(0x4C, 0x8B, 0x0C, 0x25, 0x34, 0x12, 0, 0));
}
END_TEST

START_TEST(vex_extensions_of_the_address_go)
{
    // ANDN EAX, EBX, [R8 + R9]: VEX.X and VEX.B, stored inverted, become 1
    expect(decode_in(MODE_CODE64, BYTES(0xC4, 0x82, 0x60, 0xF2, 0x04, 0x08)),
           BYTES(0xC4, 0xE2, 0x60, 0xF2, 0x04, 0x25, 0x34, 0x12, 0, 0));
}
END_TEST

START_TEST(escapes_are_part_of_the_opcode)
{
    expect(decode_in(MODE_CODE32, BYTES(0x66, 0x0F, 0x3A, 0x0F, 0x0E, 0x05)),
           BYTES(0x66, 0x0F, 0x3A, 0x0F, 0x0D, 0x34, 0x12, 0, 0, 0x05));
    expect(decode_in(MODE_CODE32, BYTES(0x0F, 0x38, 0x00, 0x0E)), BYTES(0x0F, 0x38, 0x00, 0x0D, 0x34, 0x12, 0, 0));
    expect(decode_in(MODE_CODE32, BYTES(0x0F, 0xAF, 0x0E)), BYTES(0x0F, 0xAF, 0x0D, 0x34, 0x12, 0, 0));
}
END_TEST

START_TEST(moffs_has_the_size_of_an_address)
{
    expect(decode_in(MODE_CODE16, BYTES(0xA1, 0x78, 0x56)), BYTES(0xA1, 0x34, 0x12));
    expect(decode_in(MODE_CODE32, BYTES(0x67, 0xA1, 0x78, 0x56)), BYTES(0xA1, 0x34, 0x12, 0, 0));
    expect(decode_in(MODE_CODE64, BYTES(0x67, 0x48, 0xA3, 0x78, 0x56, 0x34, 0x12)),
           BYTES(0x48, 0xA3, 0x34, 0x12, 0, 0, 0, 0, 0, 0));
}
END_TEST

START_TEST(register_becomes_memory)
{
    const uint8_t bytes[INSN_MAX_LENGTH] = {0x66, 0x45, 0x0F, 0x38, 0x01, 0xC0}; // PHADDW XMM8, XMM8
    ck_assert_int_eq(decode(bytes, INSN_MAX_LENGTH, MODE_CODE64, &in), DECODE_OK);
    expect(encode_in_memory(&in, bytes, MODE_CODE64, 0x1234, out),
           BYTES(0x66, 0x44, 0x0F, 0x38, 0x01, 0x04, 0x25, 0x34, 0x12, 0, 0));
}
END_TEST

START_TEST(layout_is_found)
{
    const uint8_t bytes[INSN_MAX_LENGTH] = {0xF2, 0x66, 0x4D, 0x0F,
                                            0x38, 0xF1, 0x48, 0x10}; // CRC32 R9, QWORD [R8 + 0x10]
    unsigned offset;
    ck_assert_int_eq(decode(bytes, INSN_MAX_LENGTH, MODE_CODE64, &in), DECODE_OK);
    struct encode_layout layout = encode_find(&in, bytes, MODE_CODE64);
    ck_assert_uint_eq(layout.prefixes, 2);
    ck_assert_uint_eq(layout.map, 3);
    ck_assert_uint_eq(layout.opcode, 5);
    ck_assert_uint_eq(layout.operand, 6);
    ck_assert(encode_has_prefix(&layout, bytes, 0x66));
    ck_assert(!encode_has_prefix(&layout, bytes, 0xF3));
    ck_assert_uint_eq(encode_displacement(&in, bytes, MODE_CODE64, &offset), 1);
    ck_assert_uint_eq(offset, 7);
}
END_TEST

// What any ModRM and SIB byte becomes still decodes as the same operation with the same register and immediate, at the new address.
START_TEST(every_form_decodes_as_the_same_operation)
{
    for (unsigned mode = 0; mode < 3; mode++) {
        for (unsigned i = 0; i < 256 * 256 * 2; i++) {
            uint8_t bytes[INSN_MAX_LENGTH] = {0x67, 0x81, (uint8_t)i, (uint8_t)(i >> 8), 1, 2, 3, 4, 5, 6, 7, 8,
                                              9,    10,   11};
            const uint8_t *from = i >> 16 ? bytes : bytes + 1;
            struct insn moved;
            uint8_t padded[INSN_MAX_LENGTH + ENCODE_MAX] = {0};
            if (decode(from, i >> 16 ? INSN_MAX_LENGTH : INSN_MAX_LENGTH - 1, modes[mode], &in) != DECODE_OK ||
                in.form != FORM_MEM)
                continue;
            unsigned length = encode_moved(&in, from, modes[mode], 0x1234, padded);
            ck_assert_int_eq(decode(padded, INSN_MAX_LENGTH, modes[mode], &moved), DECODE_OK);
            ck_assert_uint_eq(moved.length, length);
            ck_assert_uint_eq(moved.op, in.op);
            ck_assert_int_eq(moved.imm, in.imm);
            ck_assert_uint_eq(moved.size_log2, in.size_log2);
            ck_assert_uint_eq(moved.base, REG_NONE);
            ck_assert_uint_eq(moved.index, REG_NONE);
            ck_assert_int_eq(moved.disp, 0x1234);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("encode");
    TCase *cases = tcase_create("encode");
    tcase_set_timeout(cases, 300);
    tcase_add_test(cases, register_forms_stay);
    tcase_add_test(cases, lea_stays);
    tcase_add_test(cases, operand_moves_in_each_code_size);
    tcase_add_test(cases, segment_and_address_prefixes_go_and_others_stay);
    tcase_add_test(cases, immediate_follows_the_new_address);
    tcase_add_test(cases, rex_keeps_w_and_r_only);
    tcase_add_test(cases, vex_extensions_of_the_address_go);
    tcase_add_test(cases, escapes_are_part_of_the_opcode);
    tcase_add_test(cases, moffs_has_the_size_of_an_address);
    tcase_add_test(cases, register_becomes_memory);
    tcase_add_test(cases, layout_is_found);
    tcase_add_test(cases, every_form_decodes_as_the_same_operation);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
