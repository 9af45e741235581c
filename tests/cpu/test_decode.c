// The decoder: each rule of docs/decoder.md, the opcode table's own rules, and length and validity against Capstone.
// Long because every rule has its encodings here; the order is that of decode.c.
#include <capstone/capstone.h>
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "capstone_deviations.h"
#include "cpu/decode_table.h"

#define M16 MODE_CODE16
#define M32 MODE_CODE32
#define M64 MODE_CODE64

static struct insn in; // of the last D or STATUS

// Decodes exactly these bytes: the status; the instruction is in `in`.
#define STATUS(mode, ...) decode((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), mode, &in)
// The bytes are one whole instruction of op `operation`.
#define D(mode, operation, ...)                                               \
    do {                                                                      \
        ck_assert_int_eq(STATUS(mode, __VA_ARGS__), DECODE_OK);               \
        ck_assert_str_eq(op_name(in.op), op_name(OP_##operation));            \
        ck_assert_int_eq(in.op, OP_##operation);                              \
        ck_assert_uint_eq(in.length, sizeof((const uint8_t[]){__VA_ARGS__})); \
    } while (0)
#define UNDEFINED(mode, ...) ck_assert_int_eq(STATUS(mode, __VA_ARGS__), DECODE_UNDEFINED)
#define SIZE_IS(bytes)       ck_assert_uint_eq(1u << in.size_log2, bytes)
#define IMM_IS(value)        ck_assert_int_eq(in.imm, value)
#define REGISTERS(rm_, reg_) ck_assert(in.form == FORM_REG && in.rm == (rm_) && in.reg == (reg_))
#define ADDRESS(base_, index_, scale_, disp_, segment_)                                                    \
    ck_assert(in.form == FORM_MEM && in.base == (base_) && in.index == (index_) && in.scale == (scale_) && \
              in.disp == (disp_) && in.segment == (segment_))
#define MEMORY(size, read, written) \
    ck_assert(op_memory_size(&in) == (size) && op_memory_read(&in) == (read) && op_memory_written(&in) == (written))

// --- prefixes ---

START_TEST(operand_size_follows_code_size_66_and_rex_w)
{
    D(M16, ADD, 0x01, 0xD8);
    SIZE_IS(2);
    D(M16, ADD, 0x66, 0x01, 0xD8);
    SIZE_IS(4);
    ck_assert(in.flags & INSN_OPSIZE);
    D(M32, ADD, 0x01, 0xD8);
    SIZE_IS(4);
    D(M32, ADD, 0x66, 0x01, 0xD8);
    SIZE_IS(2);
    D(M64, ADD, 0x01, 0xD8);
    SIZE_IS(4);
    D(M64, ADD, 0x66, 0x01, 0xD8);
    SIZE_IS(2);
    D(M64, ADD, 0x66, 0x48, 0x01, 0xD8);
    SIZE_IS(8);
}
END_TEST

START_TEST(stack_operations_default_to_64_bits)
{
    D(M64, PUSH, 0x50);
    SIZE_IS(8);
    D(M64, PUSH, 0x66, 0x50);
    SIZE_IS(2);
    D(M64, POP, 0x8F, 0x00);
    SIZE_IS(8);
    D(M64, PUSH, 0x66, 0x68, 0x34, 0x92);
    SIZE_IS(2);
    IMM_IS((int16_t)0x9234);
    D(M64, PUSH, 0x68, 0x00, 0x00, 0x00, 0x80);
    SIZE_IS(8);
    IMM_IS(INT32_MIN);
    D(M64, PUSHF, 0x9C);
    SIZE_IS(8);
    D(M64, LEAVE, 0xC9);
    SIZE_IS(8);
    D(M64, IRET, 0xCF); // IRET and far returns do not
    SIZE_IS(4);
    D(M64, IRET, 0x48, 0xCF);
    SIZE_IS(8);
}
END_TEST

START_TEST(near_branches_ignore_66_in_64_bit_mode)
{
    D(M64, JE, 0x66, 0x0F, 0x84, 0x00, 0x00, 0x00, 0x80);
    SIZE_IS(8);
    IMM_IS(INT32_MIN);
    D(M64, CALL, 0x66, 0xE8, 0x01, 0x00, 0x00, 0x00);
    D(M64, RET, 0x66, 0xC3);
    SIZE_IS(8);
    D(M64, CALL_IND, 0x66, 0xFF, 0xD0);
    SIZE_IS(8);
    D(M64, JMP_IND, 0xFF, 0x20);
    MEMORY(8, true, false);
    D(M32, JE, 0x66, 0x0F, 0x84, 0x00, 0x80);
    SIZE_IS(2);
    IMM_IS(INT16_MIN);
    D(M16, JMP, 0xE9, 0xFE, 0xFF);
    IMM_IS(-2);
    D(M32, JMP, 0xEB, 0x80);
    IMM_IS(-128);
}
END_TEST

START_TEST(address_size_follows_code_size_and_67)
{
    static const uint8_t log2_of[3][2] = {{1, 2}, {2, 1}, {3, 2}};
    for (unsigned mode = M16; mode <= M64; mode++) {
        ck_assert(STATUS(mode, 0xAA) == DECODE_OK && in.addr_log2 == log2_of[mode][0]);
        ck_assert(STATUS(mode, 0x67, 0xAA) == DECODE_OK && in.addr_log2 == log2_of[mode][1]);
        ck_assert(STATUS(mode, 0x67, 0x67, 0xAA) == DECODE_OK && in.addr_log2 == log2_of[mode][1]);
    }
}
END_TEST

START_TEST(rex_counts_only_right_before_the_opcode)
{
    D(M64, ADD, 0x48, 0x66, 0x01, 0xD8);
    SIZE_IS(2);
    D(M64, ADD, 0x4F, 0x41, 0x01, 0xD8);
    SIZE_IS(4);
    REGISTERS(8, 3);
    D(M64, MOV, 0x40, 0x2E, 0xB4, 0x01); // without REX it is AH
    REGISTERS(1, 0);
    D(M32, INC, 0x40);
    D(M16, DEC, 0x4F);
    REGISTERS(REG_RDI, 0);
}
END_TEST

START_TEST(byte_registers_are_byte_offsets)
{
    static const uint8_t legacy[8] = {0, 8, 16, 24, 1, 9, 17, 25};
    for (uint8_t i = 0; i < 8; i++) {
        D(M64, MOV, (uint8_t)(0xB0 + i), 0x80);
        REGISTERS(legacy[i], 0);
        IMM_IS(-128);
        D(M64, MOV, 0x40, (uint8_t)(0xB0 + i), 0x80);
        REGISTERS(i * 8, 0);
        D(M64, ADD, 0x45, 0x00, (uint8_t)(0xC0 | i << 3 | i));
        REGISTERS((i + 8) * 8, (i + 8) * 8);
        D(M32, SETE, 0x0F, 0x94, (uint8_t)(0xC0 | i));
        REGISTERS(legacy[i], 0);
    }
    D(M64, MOVZX, 0x0F, 0xB6, 0xC4);
    REGISTERS(1, 0);
    D(M64, CRC32, 0xF2, 0x0F, 0x38, 0xF0, 0xC4);
    REGISTERS(1, 0);
}
END_TEST

START_TEST(segment_overrides_in_64_bit_mode_are_fs_and_gs)
{
    D(M32, MOV, 0x2E, 0x8B, 0x03);
    ADDRESS(REG_RBX, REG_NONE, 0, 0, SEG_CS);
    ck_assert(in.flags & INSN_SEGMENT);
    D(M32, MOV, 0x64, 0x26, 0x8B, 0x03); // the last one
    ADDRESS(REG_RBX, REG_NONE, 0, 0, SEG_ES);
    D(M64, MOV, 0x36, 0x8B, 0x03);
    ADDRESS(REG_RBX, REG_NONE, 0, 0, SEG_DS);
    ck_assert(!(in.flags & INSN_SEGMENT));
    D(M64, MOV, 0x65, 0x3E, 0x8B, 0x45, 0x00);
    ADDRESS(REG_RBP, REG_NONE, 0, 0, SEG_GS);
    D(M64, LODS, 0x64, 0xAC);
    ck_assert(in.form == FORM_NONE && in.segment == SEG_FS);
}
END_TEST

START_TEST(lock_needs_a_lockable_operation_on_memory)
{
    D(M64, ADD, 0xF0, 0x01, 0x03);
    ck_assert(in.flags & INSN_LOCK);
    UNDEFINED(M64, 0xF0, 0x01, 0xC3);       // register
    UNDEFINED(M64, 0xF0, 0x03, 0x03);       // memory is the source
    UNDEFINED(M64, 0xF0, 0x39, 0x03);       // CMP
    UNDEFINED(M64, 0xF0, 0x90);             // NOP
    UNDEFINED(M64, 0xF0, 0x0F, 0xA3, 0x03); // BT
    UNDEFINED(M64, 0xF0, 0x89, 0x03);       // MOV
    UNDEFINED(M32, 0xF0, 0x0F, 0x22, 0xC0); // no MOV CR8
    D(M64, BTS, 0xF0, 0x0F, 0xAB, 0x03);
    D(M64, BTC, 0xF0, 0x0F, 0xBA, 0x3B, 0x01);
    D(M64, XCHG, 0xF0, 0x87, 0x03);
    D(M64, XADD, 0xF0, 0x0F, 0xC1, 0x03);
    D(M64, CMPXCHG, 0xF0, 0x0F, 0xB0, 0x03);
    D(M64, CMPXCHG8B, 0xF0, 0x0F, 0xC7, 0x0B);
    D(M64, CMPXCHG16B, 0xF0, 0x48, 0x0F, 0xC7, 0x0B);
    D(M64, NOT, 0xF0, 0xF6, 0x13);
    D(M64, SBB, 0xF0, 0x83, 0x1B, 0x01);
    D(M64, DEC, 0xF0, 0xFF, 0x0B);
}
END_TEST

START_TEST(mandatory_prefixes_f2_and_f3_win_over_66_and_the_last_of_them_counts)
{
    D(M64, ADDPS, 0x0F, 0x58, 0xC1);
    D(M64, ADDPD, 0x66, 0x0F, 0x58, 0xC1);
    ck_assert(!(in.flags & INSN_OPSIZE));
    D(M64, ADDSD, 0xF2, 0x0F, 0x58, 0xC1);
    ck_assert(!(in.flags & INSN_REPNE));
    D(M64, ADDSS, 0xF3, 0x66, 0x0F, 0x58, 0xC1);
    ck_assert(!(in.flags & INSN_REP));
    D(M64, ADDSD, 0xF3, 0xF2, 0x66, 0x0F, 0x58, 0xC1);
    D(M64, POPCNT, 0x66, 0xF3, 0x0F, 0xB8, 0xC1);
    SIZE_IS(2);
    D(M64, TZCNT, 0xF3, 0x0F, 0xBC, 0xC1);
    D(M64, LZCNT, 0xF3, 0x0F, 0xBD, 0xC1);
    D(M64, BSF, 0xF2, 0x0F, 0xBC, 0xC1);
    D(M64, BSR, 0x66, 0x0F, 0xBD, 0xC1);
    UNDEFINED(M64, 0x0F, 0xB8, 0xC1);
    UNDEFINED(M64, 0xF3, 0x0F, 0x77);
}
END_TEST

START_TEST(repeat_prefixes_are_flags_elsewhere)
{
    D(M64, MOVS, 0xF3, 0xA4);
    ck_assert_uint_eq(in.flags, INSN_REP);
    D(M64, SCAS, 0xF2, 0x48, 0xAF);
    ck_assert_uint_eq(in.flags, INSN_REPNE);
    SIZE_IS(8);
    D(M64, CMPS, 0xF2, 0xF3, 0xA6);
    ck_assert_uint_eq(in.flags, INSN_REP);
    D(M32, ADD, 0xF3, 0x01, 0xC0);
}
END_TEST

START_TEST(nop_pause_and_xchg_share_opcode_90)
{
    D(M64, NOP, 0x90);
    ck_assert_int_eq(in.form, FORM_NONE);
    D(M64, NOP, 0x48, 0x90);
    D(M64, PAUSE, 0xF3, 0x90);
    ck_assert(!(in.flags & INSN_REP));
    D(M64, XCHG, 0x41, 0x90);
    REGISTERS(8, 0);
    D(M64, XCHG, 0xF3, 0x41, 0x90);
    D(M64, XCHG, 0x93);
    REGISTERS(REG_RBX, REG_RAX);
}
END_TEST

START_TEST(instructions_longer_than_15_bytes_are_too_long)
{
    uint8_t bytes[20];
    memset(bytes, 0x66, sizeof bytes);
    bytes[14] = 0x90;
    ck_assert(decode(bytes, 20, M64, &in) == DECODE_OK && in.length == 15);
    bytes[14] = 0x66;
    bytes[15] = 0x90;
    ck_assert_int_eq(decode(bytes, 20, M64, &in), DECODE_TOO_LONG);
    ck_assert_int_eq(decode(bytes, 15, M64, &in), DECODE_TOO_LONG);
    ck_assert_int_eq(decode(bytes, 14, M64, &in), DECODE_TRUNCATED);
    memcpy(bytes + 5, (const uint8_t[]){0xC7, 0x84, 0x80, 1, 2, 3, 4, 1, 2, 3, 4},
           11); // 66 x 5, MOV with disp32 and imm16
    bytes[4] = 0x2E;
    ck_assert_int_eq(decode(bytes, 20, M64, &in), DECODE_OK);
    ck_assert_uint_eq(in.length, 14);
    bytes[4] = 0x48; // imm32
    ck_assert_int_eq(decode(bytes, 20, M64, &in), DECODE_TOO_LONG);
    ck_assert_int_eq(decode(bytes, 0, M64, &in), DECODE_TRUNCATED);
}
END_TEST

// --- ModRM ---

START_TEST(addressing_16_bit_forms)
{
    static const uint8_t base[8] = {REG_RBX, REG_RBX, REG_RBP, REG_RBP, REG_RSI, REG_RDI, REG_RBP, REG_RBX};
    static const uint8_t index[8] = {REG_RSI, REG_RDI, REG_RSI, REG_RDI, REG_NONE, REG_NONE, REG_NONE, REG_NONE};
    for (uint8_t rm = 0; rm < 8; rm++) {
        unsigned segment = base[rm] == REG_RBP ? SEG_SS : SEG_DS;
        if (rm != 6) {
            D(M16, MOV, 0x8B, rm);
            ADDRESS(base[rm], index[rm], 0, 0, segment);
            ck_assert(!(in.flags & INSN_DISP));
        }
        D(M16, MOV, 0x8B, 0x40 | rm, 0x80);
        ADDRESS(base[rm], index[rm], 0, -128, segment);
        D(M32, MOV, 0x67, 0x8B, 0x80 | rm, 0x34, 0x12);
        ADDRESS(base[rm], index[rm], 0, 0x1234, segment);
        ck_assert(in.flags & INSN_DISP);
    }
    D(M16, MOV, 0x8B, 0x06, 0x34, 0x12);
    ADDRESS(REG_NONE, REG_NONE, 0, 0x1234, SEG_DS);
    D(M16, MOV, 0x3E, 0x8B, 0x46, 0x02);
    ADDRESS(REG_RBP, REG_NONE, 0, 2, SEG_DS);
}
END_TEST

START_TEST(addressing_32_and_64_bit_forms)
{
    D(M32, MOV, 0x8B, 0x45, 0xFC);
    ADDRESS(REG_RBP, REG_NONE, 0, -4, SEG_SS);
    D(M32, MOV, 0x8B, 0x04, 0x24);
    ADDRESS(REG_RSP, REG_NONE, 0, 0, SEG_SS);
    D(M32, MOV, 0x8B, 0x44, 0x8D, 0x10);
    ADDRESS(REG_RBP, REG_RCX, 2, 0x10, SEG_SS);
    D(M32, MOV, 0x8B, 0x04, 0xCD, 0x00, 0x00, 0x00, 0x80);
    ADDRESS(REG_NONE, REG_RCX, 3, INT32_MIN, SEG_DS);
    D(M64, MOV, 0x43, 0x8B, 0x04, 0x24); // R12 as index and base
    ADDRESS(REG_R12, REG_R12, 0, 0, SEG_DS);
    D(M64, MOV, 0x41, 0x8B, 0x45, 0x00);
    ADDRESS(REG_R13, REG_NONE, 0, 0, SEG_DS);
    D(M64, MOV, 0x41, 0x8B, 0x04, 0x25, 0x78, 0x56, 0x34, 0x12); // REX.B does not make base 5 with mod 0 a register
    ADDRESS(REG_NONE, REG_NONE, 0, 0x12345678, SEG_DS);
    D(M16, MOV, 0x67, 0x66, 0x8B, 0x80, 0x00, 0x10, 0x00, 0x00);
    ADDRESS(REG_RAX, REG_NONE, 0, 0x1000, SEG_DS);
    ck_assert_uint_eq(in.addr_log2, 2);
}
END_TEST

START_TEST(mod_0_rm_5_is_rip_relative_in_64_bit_mode_only)
{
    D(M64, LEA, 0x48, 0x8D, 0x05, 0xF9, 0xFF, 0xFF, 0xFF);
    ADDRESS(REG_RIP, REG_NONE, 0, -7, SEG_DS);
    D(M64, MOV, 0x67, 0x41, 0x8B, 0x05, 1, 0, 0, 0); // REX.B is ignored
    ADDRESS(REG_RIP, REG_NONE, 0, 1, SEG_DS);
    ck_assert_uint_eq(in.addr_log2, 2);
    D(M32, MOV, 0x8B, 0x05, 1, 0, 0, 0);
    ADDRESS(REG_NONE, REG_NONE, 0, 1, SEG_DS);
}
END_TEST

START_TEST(moffs_is_as_wide_as_an_address)
{
    D(M64, MOV, 0xA1, 1, 2, 3, 4, 5, 6, 7, 0x88);
    ADDRESS(REG_NONE, REG_NONE, 0, 0, SEG_DS);
    ck_assert(in.moffs && in.to_reg && in.reg == REG_RAX && !in.has_imm);
    IMM_IS((int64_t)0x8807060504030201);
    MEMORY(4, true, false);
    D(M64, MOV, 0x67, 0x48, 0xA3, 0, 0, 0, 0x80);
    ck_assert(in.moffs && !in.to_reg);
    IMM_IS(0x80000000);
    MEMORY(8, false, true);
    D(M16, MOV, 0x2E, 0xA0, 0xFF, 0xFF);
    ADDRESS(REG_NONE, REG_NONE, 0, 0, SEG_CS);
    IMM_IS(0xFFFF);
    MEMORY(1, true, false);
}
END_TEST

// --- operands ---

START_TEST(to_reg_says_which_operand_is_the_destination)
{
    D(M64, MOV, 0x89, 0xC3);
    ck_assert(!in.to_reg);
    REGISTERS(REG_RBX, REG_RAX);
    D(M64, MOV, 0x8B, 0xC3);
    ck_assert(in.to_reg);
    REGISTERS(REG_RBX, REG_RAX);
    D(M64, MOVUPS, 0x44, 0x0F, 0x10, 0x03);
    ck_assert(in.to_reg && in.reg == 8);
    MEMORY(16, true, false);
    D(M64, MOVUPS, 0x0F, 0x11, 0x03);
    ck_assert(!in.to_reg);
    MEMORY(16, false, true);
    D(M64, MOVBE, 0x0F, 0x38, 0xF1, 0x03);
    ck_assert(!in.to_reg);
    UNDEFINED(M64, 0x0F, 0x38, 0xF1, 0xC3);
}
END_TEST

START_TEST(immediates_are_extended_as_documented)
{
    D(M64, ADD, 0x48, 0x83, 0xC0, 0xFF);
    IMM_IS(-1);
    ck_assert(in.has_imm);
    D(M64, ADD, 0x48, 0x81, 0xC0, 0, 0, 0, 0x80);
    IMM_IS(INT32_MIN);
    D(M64, MOV, 0x48, 0xC7, 0xC0, 0, 0, 0, 0x80);
    IMM_IS(INT32_MIN);
    D(M64, MOV, 0x48, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0x80);
    IMM_IS(INT64_MIN);
    D(M64, MOV, 0xB8, 0, 0, 0, 0x80);
    IMM_IS(INT32_MIN);
    D(M16, MOV, 0xB8, 0, 0x80);
    IMM_IS(INT16_MIN);
    D(M64, SHL, 0xC1, 0xE0, 0xFF);
    IMM_IS(0xFF);
    D(M64, SAR, 0xD1, 0xF8);
    IMM_IS(1);
    ck_assert(in.has_imm);
    D(M64, SHL, 0xD3, 0xF0); // member 6 is an alias
    ck_assert(!in.has_imm);
    D(M64, BT, 0x0F, 0xBA, 0xE0, 0xFF);
    IMM_IS(0xFF);
    D(M64, SHLD, 0x0F, 0xA4, 0xD8, 0x80);
    IMM_IS(0x80);
    REGISTERS(REG_RAX, REG_RBX);
    D(M64, SHRD, 0x0F, 0xAD, 0xD8);
    ck_assert(!in.has_imm);
    D(M64, INT, 0xCD, 0x80);
    IMM_IS(0x80);
    D(M64, RET, 0xC2, 0xFF, 0xFF);
    IMM_IS(0xFFFF);
    D(M64, ENTER, 0xC8, 0x34, 0x92, 0xFF);
    IMM_IS(0xFF9234);
    D(M64, PSHUFD, 0x66, 0x0F, 0x70, 0xC1, 0xFF);
    IMM_IS(0xFF);
}
END_TEST

START_TEST(accumulator_forms_name_rax_in_rm)
{
    D(M64, ADD, 0x04, 0xFF);
    REGISTERS(0, 0);
    SIZE_IS(1);
    IMM_IS(-1);
    ck_assert(in.has_imm && !in.to_reg);
    D(M64, TEST, 0x48, 0xA9, 0, 0, 0, 0x80);
    REGISTERS(0, 0);
    IMM_IS(INT32_MIN);
    D(M64, IN, 0xE4, 0x80);
    IMM_IS(0x80);
    ck_assert(in.has_imm);
    D(M64, OUT, 0x48, 0xEF); // REX.W is ignored
    SIZE_IS(4);
    ck_assert(!in.has_imm);
    D(M64, OUTS, 0x66, 0x6F);
    SIZE_IS(2);
}
END_TEST

START_TEST(multiplications_have_three_shapes)
{
    D(M64, IMUL, 0xF7, 0xEB);
    REGISTERS(REG_RBX, 0);
    D(M64, IMUL2, 0x0F, 0xAF, 0xC3);
    REGISTERS(REG_RBX, REG_RAX);
    ck_assert(in.to_reg);
    D(M64, IMUL3, 0x6B, 0xC3, 0xFE);
    REGISTERS(REG_RBX, REG_RAX);
    IMM_IS(-2);
    D(M64, IMUL3, 0x66, 0x69, 0x03, 0x00, 0x80);
    IMM_IS(INT16_MIN);
}
END_TEST

START_TEST(source_size_of_extensions_is_in_imm)
{
    D(M64, MOVZX, 0x48, 0x0F, 0xB6, 0x03);
    SIZE_IS(8);
    IMM_IS(1);
    MEMORY(1, true, false);
    D(M64, MOVZX, 0x0F, 0xB7, 0x03);
    IMM_IS(2);
    D(M64, MOVSX, 0x0F, 0xBF, 0xC3);
    SIZE_IS(4);
    IMM_IS(2);
    D(M64, MOVSXD, 0x48, 0x63, 0x03);
    IMM_IS(4);
    MEMORY(4, true, false);
    D(M64, MOVSXD, 0x66, 0x63, 0x03);
    IMM_IS(2);
    D(M32, ARPL, 0x63, 0x03);
    SIZE_IS(2);
    D(M64, CRC32, 0x66, 0xF2, 0x0F, 0x38, 0xF1, 0x03);
    SIZE_IS(4);
    IMM_IS(2);
    MEMORY(2, true, false);
    D(M64, CRC32, 0xF2, 0x48, 0x0F, 0x38, 0xF1, 0x03);
    SIZE_IS(8);
    IMM_IS(8);
}
END_TEST

START_TEST(far_pointers_are_selector_and_offset)
{
    D(M32, JMP_FAR, 0xEA, 1, 2, 3, 0x84, 5, 0x86);
    IMM_IS(0x860584030201);
    D(M16, CALL_FAR, 0x9A, 1, 2, 3, 4);
    IMM_IS(0x040300000201);
    UNDEFINED(M64, 0xEA);
    D(M64, CALL_FAR_IND, 0x48, 0xFF, 0x1B);
    MEMORY(10, true, false);
    D(M32, JMP_FAR_IND, 0xFF, 0x2B);
    MEMORY(6, true, false);
    D(M16, LES, 0xC4, 0x1F);
    MEMORY(4, true, false);
    D(M64, LSS, 0x48, 0x0F, 0xB2, 0x03);
    MEMORY(10, true, false);
    UNDEFINED(M64, 0xFF, 0xDB);
}
END_TEST

// --- system ---

START_TEST(control_and_debug_register_moves_ignore_mod)
{
    D(M64, MOV_TO_CR, 0x66, 0x0F, 0x22, 0x1B);
    REGISTERS(REG_RBX, 3);
    SIZE_IS(8);
    D(M16, MOV_FROM_CR, 0x0F, 0x20, 0x06);
    REGISTERS(REG_RSI, 0);
    SIZE_IS(4);
    D(M64, MOV_TO_CR, 0x44, 0x0F, 0x22, 0xC0);
    REGISTERS(REG_RAX, 8);
    UNDEFINED(M64, 0x0F, 0x22, 0xC8);       // CR1
    UNDEFINED(M64, 0x44, 0x0F, 0x20, 0xC8); // CR9
    D(M64, MOV_FROM_DR, 0x41, 0x0F, 0x21, 0xFF);
    REGISTERS(REG_R15, 7);
    UNDEFINED(M64, 0x44, 0x0F, 0x23, 0xC0); // DR8
}
END_TEST

START_TEST(segment_register_moves_use_16_bit_memory)
{
    D(M64, MOV_FROM_SREG, 0x48, 0x8C, 0xD8);
    REGISTERS(REG_RAX, SEG_DS);
    SIZE_IS(8);
    D(M64, MOV_FROM_SREG, 0x48, 0x8C, 0x18);
    SIZE_IS(2);
    MEMORY(2, false, true);
    D(M64, MOV_TO_SREG, 0x44, 0x8E, 0xE8);
    ck_assert(in.reg == SEG_GS && in.to_reg);
    SIZE_IS(2);
    UNDEFINED(M64, 0x8E, 0xC8); // CS
    UNDEFINED(M64, 0x8C, 0xF0);
    D(M32, PUSH_SREG, 0x0E);
    ck_assert(in.reg == SEG_CS && in.form == FORM_NONE);
    D(M64, POP_SREG, 0x0F, 0xA9);
    ck_assert(in.reg == SEG_GS && in.size_log2 == 3);
}
END_TEST

START_TEST(group_0f_01_has_an_instruction_for_each_register_form)
{
    static const struct {
        uint8_t modrm;
        uint16_t op;
    } rows[] = {
        {0xC1, OP_VMCALL}, {0xC2, OP_VMLAUNCH}, {0xC3, OP_VMRESUME}, {0xC4, OP_VMXOFF}, {0xC8, OP_MONITOR},
        {0xC9, OP_MWAIT},  {0xCA, OP_CLAC},     {0xCB, OP_STAC},     {0xD0, OP_XGETBV}, {0xD1, OP_XSETBV},
        {0xD4, OP_VMFUNC}, {0xE0, OP_SMSW},     {0xF7, OP_LMSW},     {0xF8, OP_SWAPGS}, {0xF9, OP_RDTSCP},
        {0x00, OP_SGDT},   {0x08, OP_SIDT},     {0x10, OP_LGDT},     {0x18, OP_LIDT},   {0x20, OP_SMSW},
        {0x30, OP_LMSW},   {0x38, OP_INVLPG},   {0xC0, OP_UD},       {0xC5, OP_UD},     {0xD5, OP_UD},
        {0xD8, OP_UD},     {0xE8, OP_UD},       {0xFF, OP_UD},       {0x28, OP_UD},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        enum decode_status status = STATUS(M64, 0x0F, 0x01, rows[i].modrm);
        ck_assert_uint_eq(in.op, rows[i].op);
        ck_assert_int_eq(status, rows[i].op == OP_UD ? DECODE_UNDEFINED : DECODE_OK);
    }
    UNDEFINED(M32, 0x0F, 0x01, 0xF8); // SWAPGS
    D(M64, LGDT, 0x66, 0x0F, 0x01, 0x13);
    SIZE_IS(8);
    MEMORY(10, true, false);
    D(M16, SIDT, 0x0F, 0x01, 0x0F);
    SIZE_IS(2);
    MEMORY(6, false, true);
}
END_TEST

START_TEST(vmx_instructions_by_mandatory_prefix)
{
    D(M64, VMPTRLD, 0x0F, 0xC7, 0x33);
    MEMORY(8, true, false);
    D(M64, VMCLEAR, 0x66, 0x0F, 0xC7, 0x33);
    D(M64, VMXON, 0xF3, 0x0F, 0xC7, 0x33);
    UNDEFINED(M64, 0xF2, 0x0F, 0xC7, 0x33);
    D(M64, VMPTRST, 0x0F, 0xC7, 0x3B);
    MEMORY(8, false, true);
    D(M64, RDRAND, 0x66, 0x0F, 0xC7, 0xF3);
    SIZE_IS(2);
    D(M64, RDSEED, 0x48, 0x0F, 0xC7, 0xFB);
    SIZE_IS(8);
    D(M64, RDPID, 0xF3, 0x0F, 0xC7, 0xFB);
    SIZE_IS(8);
    D(M64, VMREAD, 0x0F, 0x78, 0x03);
    MEMORY(8, false, true);
    D(M32, VMREAD, 0x0F, 0x78, 0x03);
    MEMORY(4, false, true);
    D(M64, VMWRITE, 0x0F, 0x79, 0x03);
    MEMORY(8, true, false);
    for (uint8_t opcode = 0x78; opcode <= 0x79; opcode++) {
        UNDEFINED(M64, 0x66, 0x0F, opcode, 0x03);
        UNDEFINED(M64, 0xF2, 0x0F, opcode, 0x03);
        UNDEFINED(M64, 0xF3, 0x0F, opcode, 0x03);
    }
    D(M64, INVEPT, 0x66, 0x0F, 0x38, 0x80, 0x03);
    MEMORY(16, true, false);
    D(M64, INVVPID, 0x66, 0x0F, 0x38, 0x81, 0x03);
    D(M64, INVPCID, 0x66, 0x0F, 0x38, 0x82, 0x03);
    UNDEFINED(M64, 0x66, 0x0F, 0x38, 0x80, 0xC3);
    UNDEFINED(M64, 0x0F, 0x38, 0x80, 0x03);
}
END_TEST

START_TEST(group_0f_ae_by_form_and_prefix)
{
    D(M64, FXSAVE, 0x0F, 0xAE, 0x03);
    MEMORY(512, false, true);
    D(M64, FXRSTOR, 0x48, 0x0F, 0xAE, 0x0B);
    SIZE_IS(8);
    D(M64, LDMXCSR, 0x0F, 0xAE, 0x13);
    MEMORY(4, true, false);
    D(M64, XSAVE, 0x0F, 0xAE, 0x23);
    D(M64, XRSTOR, 0x0F, 0xAE, 0x2B);
    D(M64, XSAVEOPT, 0x0F, 0xAE, 0x33);
    D(M64, CLFLUSH, 0x0F, 0xAE, 0x3B);
    D(M64, CLWB, 0x66, 0x0F, 0xAE, 0x33);
    D(M64, CLFLUSHOPT, 0x66, 0x0F, 0xAE, 0x3B);
    D(M64, LFENCE, 0x0F, 0xAE, 0xEF);
    D(M64, MFENCE, 0x0F, 0xAE, 0xF0);
    D(M64, SFENCE, 0x0F, 0xAE, 0xF8);
    D(M64, RDFSBASE, 0xF3, 0x0F, 0xAE, 0xC3);
    SIZE_IS(4);
    D(M64, WRGSBASE, 0xF3, 0x49, 0x0F, 0xAE, 0xDB);
    SIZE_IS(8);
    REGISTERS(REG_R11, 0);
    UNDEFINED(M32, 0xF3, 0x0F, 0xAE, 0xC3);
    UNDEFINED(M64, 0x0F, 0xAE, 0xC3);
    D(M64, XSAVEC, 0x0F, 0xC7, 0x23);
    D(M64, XSAVES, 0x0F, 0xC7, 0x2B);
    D(M64, XRSTORS, 0x0F, 0xC7, 0x1B);
}
END_TEST

START_TEST(cmpxchg16b_needs_rex_w)
{
    D(M64, CMPXCHG8B, 0x0F, 0xC7, 0x0B);
    MEMORY(8, true, true);
    D(M64, CMPXCHG16B, 0x48, 0x0F, 0xC7, 0x0B);
    MEMORY(16, true, true);
    UNDEFINED(M64, 0x0F, 0xC7, 0xCB);
}
END_TEST

START_TEST(undefined_opcodes_and_hint_nops)
{
    D(M64, UD, 0x0F, 0x0B);
    D(M64, UD, 0x0F, 0xB9, 0x80, 1, 2, 3, 4);
    MEMORY(0, false, false);
    D(M64, UD, 0x0F, 0xFF, 0xC0);
    UNDEFINED(M64, 0x0F, 0x0F, 0x00, 0x00); // 3DNow!
    ck_assert_uint_eq(in.op, OP_UD);
    D(M64, NOP, 0x66, 0x0F, 0x1F, 0x44, 0x00, 0x00);
    MEMORY(0, false, false);
    D(M64, NOP, 0xF3, 0x0F, 0x1E, 0xFA); // ENDBR64
    D(M64, PREFETCH, 0x0F, 0x18, 0x0B);
    D(M64, NOP, 0x0F, 0x18, 0x23);
    D(M64, PREFETCH, 0x0F, 0x0D, 0x0B);
}
END_TEST

START_TEST(opcodes_that_64_bit_mode_lacks)
{
    static const uint8_t gone[] = {0x06, 0x07, 0x0E, 0x16, 0x17, 0x1E, 0x1F, 0x27, 0x2F, 0x37, 0x3F,
                                   0x60, 0x61, 0x62, 0x82, 0x9A, 0xC5, 0xCE, 0xD4, 0xD5, 0xD6, 0xEA};
    for (unsigned i = 0; i < sizeof gone; i++) {
        UNDEFINED(M64, gone[i], 0, 0, 0, 0, 0, 0, 0);
        if (gone[i] != 0xD6) {
            ck_assert_int_eq(STATUS(M32, gone[i], 0, 0, 0, 0, 0, 0, 0), DECODE_OK);
            ck_assert_int_eq(STATUS(M16, gone[i], 0, 0, 0, 0, 0, 0, 0), DECODE_OK);
        }
    }
    D(M32, BOUND, 0x62, 0x03);
    MEMORY(8, true, false);
    D(M32, LDS, 0xC5, 0x03);
    UNDEFINED(M32, 0x62, 0xC0);
    UNDEFINED(M32, 0xC5, 0xC0);
}
END_TEST

START_TEST(protected_mode_instructions_are_undefined_in_real_mode)
{
    UNDEFINED(M16 | MODE_REAL, 0x0F, 0x00, 0xD0); // LLDT
    UNDEFINED(M16 | MODE_REAL, 0x0F, 0x02, 0xC0); // LAR
    UNDEFINED(M16 | MODE_REAL, 0x63, 0xC0);       // ARPL
    UNDEFINED(M32 | MODE_REAL, 0xC4, 0xE2, 0x70, 0xF2, 0xC1);
    D(M16 | MODE_REAL, LGDT, 0x0F, 0x01, 0x17);
    D(M16 | MODE_REAL, VMCALL, 0x0F, 0x01, 0xC1); // whether it is #UD is VMX's to say
    D(M32 | MODE_REAL, MOV_TO_CR, 0x0F, 0x22, 0xC0);
}
END_TEST

// --- VEX, x87, MMX ---

START_TEST(vex_encodes_bmi_only)
{
    D(M64, ANDN, 0xC4, 0x42, 0xA8, 0xF2, 0xDC); // ANDN r11, r10, r12
    REGISTERS(REG_R12, REG_R11);
    IMM_IS(REG_R10);
    SIZE_IS(8);
    ck_assert(in.vex && in.to_reg && !in.has_imm);
    D(M64, BLSR, 0xC4, 0xE2, 0x60, 0xF3, 0x09);
    IMM_IS(REG_RBX);
    MEMORY(4, true, false);
    D(M32, RORX, 0xC4, 0xE3, 0xFB, 0xF0, 0xC1, 0x85);
    SIZE_IS(4); // VEX.W is ignored
    IMM_IS(0x85);
    ck_assert(in.has_imm);
    D(M64, SHRX, 0xC4, 0xE2, 0x63, 0xF7, 0xC1);
    D(M64, SARX, 0xC4, 0xE2, 0x62, 0xF7, 0xC1);
    D(M64, SHLX, 0xC4, 0xE2, 0x61, 0xF7, 0xC1);
    D(M64, BEXTR, 0xC4, 0xE2, 0x60, 0xF7, 0xC1);
    D(M64, MULX, 0xC4, 0xE2, 0x63, 0xF6, 0xC1);
    UNDEFINED(M64, 0xC4, 0xE2, 0x74, 0xF2, 0xC1);       // VEX.L
    UNDEFINED(M64, 0x66, 0xC4, 0xE2, 0x70, 0xF2, 0xC1); // a prefix before VEX
    UNDEFINED(M64, 0xF0, 0xC4, 0xE2, 0x70, 0xF2, 0x01);
    UNDEFINED(M64, 0x48, 0xC4, 0xE2, 0x70, 0xF2, 0xC1);
    UNDEFINED(M64, 0xC4, 0xE3, 0x73, 0xF0, 0xC1, 0x01); // RORX with vvvv
    UNDEFINED(M32, 0xC4, 0xE3, 0x3B, 0xF0, 0xC1, 0x01); // all four bits of it count
    D(M32, ANDN, 0xC4, 0xE2, 0x20, 0xF2, 0xC1);         // but its bit 3 is no register bit outside 64-bit mode
    IMM_IS(REG_RBX);
    UNDEFINED(M64, 0xC4, 0xE2, 0x70, 0xF3, 0xC1); // group 17 /0
    UNDEFINED(M64, 0xC5, 0xF8, 0x77);             // VZEROUPPER
    UNDEFINED(M64, 0x62, 0xF1, 0x7C, 0x48, 0x28, 0xC1);
    D(M64, BLSI, 0x64, 0x67, 0xC4, 0xE2, 0x60, 0xF3, 0x19);
}
END_TEST

START_TEST(x87_opcode_is_in_imm)
{
    static const struct {
        uint8_t escape, reg;
        unsigned size;
        bool written;
    } rows[] = {
        {0xD8, 7, 4, false}, {0xD9, 0, 4, false},  {0xD9, 3, 4, true},    {0xD9, 4, 28, false}, {0xD9, 5, 2, false},
        {0xD9, 6, 28, true}, {0xD9, 7, 2, true},   {0xDA, 0, 4, false},   {0xDB, 5, 10, false}, {0xDB, 7, 10, true},
        {0xDC, 3, 8, false}, {0xDD, 2, 8, true},   {0xDD, 4, 108, false}, {0xDD, 6, 108, true}, {0xDD, 7, 2, true},
        {0xDE, 0, 2, false}, {0xDF, 4, 10, false}, {0xDF, 5, 8, false},   {0xDF, 6, 10, true},  {0xDF, 7, 8, true},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        D(M64, X87, rows[i].escape, (uint8_t)(rows[i].reg << 3 | 3));
        ck_assert_uint_eq(in.reg, rows[i].reg);
        IMM_IS((rows[i].escape & 7) << 8 | rows[i].reg << 3 | 3);
        MEMORY(rows[i].size, !rows[i].written, rows[i].written);
    }
    D(M16, X87, 0xD9, 0x37);
    MEMORY(14, false, true);
    D(M32, X87, 0x66, 0xDD, 0x23);
    MEMORY(94, true, false);
    D(M64, X87, 0x41, 0xDE, 0xD9); // FCOMPP; REX.B does not matter
    REGISTERS(1, 3);
    UNDEFINED(M64, 0xD9, 0xD1);
    UNDEFINED(M64, 0xD9, 0x0B);
    UNDEFINED(M64, 0xDD, 0xF0);
    UNDEFINED(M64, 0xDE, 0xD8);
}
END_TEST

START_TEST(shared_operations_know_their_row)
{
    D(M64, MMX, 0x0F, 0xFC, 0x03); // PADDB
    MEMORY(8, true, false);
    D(M64, MMX, 0x0F, 0x60, 0x03); // PUNPCKLBW
    MEMORY(4, true, false);
    D(M64, MMX, 0x0F, 0xE7, 0x03); // MOVNTQ
    MEMORY(8, false, true);
    D(M64, MMX, 0x4D, 0x0F, 0x7E, 0xC1); // MOVQ r9, mm0
    REGISTERS(REG_R9, 0);
    D(M64, SSE41, 0x66, 0x0F, 0x38, 0x22, 0x03); // PMOVSXBQ
    MEMORY(2, true, false);
    D(M64, SSE41, 0x66, 0x0F, 0x3A, 0x14, 0x03, 0x85); // PEXTRB
    MEMORY(1, false, true);
    ck_assert_uint_eq((uint8_t)in.imm, 0x85);
    D(M64, SSSE3, 0x66, 0x0F, 0x38, 0x00, 0x03);
    MEMORY(16, true, false);
    D(M64, AES, 0x66, 0x0F, 0x38, 0xDC, 0xC1);
    D(M64, PCLMULQDQ, 0x66, 0x0F, 0x3A, 0x44, 0xC1, 0x11);
    D(M64, PCMPISTRI, 0x66, 0x0F, 0x3A, 0x63, 0xC1, 0x0C);
}
END_TEST

START_TEST(sse_operands_keep_the_integer_size)
{
    D(M64, MOVD, 0x66, 0x48, 0x0F, 0x6E, 0xC3);
    SIZE_IS(8);
    D(M64, MOVD_STORE, 0x66, 0x0F, 0x7E, 0x03);
    MEMORY(4, false, true);
    D(M64, CVTSI2SD, 0xF2, 0x48, 0x0F, 0x2A, 0x03);
    MEMORY(8, true, false);
    D(M64, CVTTSD2SI, 0xF2, 0x48, 0x0F, 0x2C, 0x03);
    SIZE_IS(8);
    MEMORY(8, true, false);
    D(M64, PINSRW, 0x66, 0x0F, 0xC4, 0x03, 0x01);
    MEMORY(2, true, false);
    D(M64, MOVHLPS, 0x0F, 0x12, 0xC1);
    D(M64, MOVLPS, 0x0F, 0x12, 0x01);
    MEMORY(8, true, false);
}
END_TEST

// --- properties of operations ---

START_TEST(classes_and_block_ends)
{
    static const struct {
        unsigned op;
        enum op_class class;
        bool ends;
    } rows[] = {
        {OP_ADD, OP_CLASS_INTEGER, false}, {OP_MOVS, OP_CLASS_INTEGER, false},
        {OP_ADDPD, OP_CLASS_SSE, false},   {OP_MMX, OP_CLASS_MMX, false},
        {OP_X87, OP_CLASS_X87, false},     {OP_CPUID, OP_CLASS_SYSTEM, true},
        {OP_JE, OP_CLASS_BRANCH, true},    {OP_VMCALL, OP_CLASS_VMX, true},
        {OP_POPF, OP_CLASS_SYSTEM, true},  {OP_STI, OP_CLASS_SYSTEM, true},
        {OP_RET, OP_CLASS_BRANCH, true},   {OP_MOV_TO_SREG, OP_CLASS_SYSTEM, true},
        {OP_UD, OP_CLASS_SYSTEM, true},    {OP_IN, OP_CLASS_SYSTEM, true},
        {OP_INVEPT, OP_CLASS_VMX, true},   {OP_MOV_FROM_SREG, OP_CLASS_INTEGER, false},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        ck_assert_int_eq(op_class(rows[i].op), rows[i].class);
        ck_assert_int_eq(op_ends_block(rows[i].op), rows[i].ends);
    }
}
END_TEST

START_TEST(memory_accesses_of_integer_instructions)
{
    D(M64, ADD, 0x01, 0x03);
    MEMORY(4, true, true);
    D(M64, CMP, 0x48, 0x39, 0x03);
    MEMORY(8, true, false);
    D(M64, ADD, 0x03, 0x03);
    MEMORY(4, true, false);
    D(M64, MOV, 0x88, 0x03);
    MEMORY(1, false, true);
    D(M64, XCHG, 0x87, 0x03);
    MEMORY(4, true, true);
    D(M64, LEA, 0x8D, 0x03);
    MEMORY(0, false, false);
    D(M64, PUSH, 0xFF, 0x33);
    MEMORY(8, true, false);
    D(M64, POP, 0x8F, 0x03);
    MEMORY(8, false, true);
    D(M64, SETE, 0x0F, 0x94, 0x03);
    MEMORY(1, false, true);
    D(M64, STMXCSR, 0x0F, 0xAE, 0x1B);
    MEMORY(4, false, true);
    D(M64, INVLPG, 0x0F, 0x01, 0x3B);
    MEMORY(0, false, false);
    D(M64, MOVS, 0xA5); // implicit operands do not count
    MEMORY(0, false, false);
}
END_TEST

// --- the table ---

static bool is_row(unsigned number) { return number < opcode_row_count && opcode_rows[number].key != 0; }

// An encoding of the row in `mode`, with a memory operand if there is a choice and `memory`. Its bytes are padded to 15.
static void encode(const struct opcode_row *row, bool memory, uint8_t *bytes)
{
    unsigned map = (row->key >> 8) - 1u, n = 0;
    memset(bytes, 0, INSN_MAX_LENGTH);
    if (map >= MAP_V0F38) {
        bytes[n++] = 0xC4;
        bytes[n++] = map == MAP_V0F38 ? 0xE2 : 0xE3;
        bytes[n++] = (uint8_t)(0x78 | (row->prefixes == 1 << OPCODE_66   ? 1
                                       : row->prefixes == 1 << OPCODE_F3 ? 2
                                       : row->prefixes == 1 << OPCODE_F2 ? 3
                                                                         : 0));
    } else {
        if (!(row->prefixes & 1 << OPCODE_NP))
            bytes[n++] = row->prefixes & 1 << OPCODE_66 ? 0x66 : row->prefixes & 1 << OPCODE_F2 ? 0xF2 : 0xF3;
        if (row->flags & ROW_W1)
            bytes[n++] = 0x48;
        if (map != MAP_ONE)
            bytes[n++] = 0x0F;
        if (map == MAP_0F38 || map == MAP_0F3A)
            bytes[n++] = map == MAP_0F38 ? 0x38 : 0x3A;
    }
    bytes[n++] = (uint8_t)row->key;
    if (row->flags & ROW_MODRM)
        bytes[n] = (uint8_t)(row->modrm_value | (row->modrm_mask & 0xC0 || memory ? 0 : 0xC0));
}

START_TEST(every_row_is_decoded_and_keeps_its_memory_operand)
{
    unsigned rows = 0;
    for (unsigned number = 0; number < opcode_row_count; number++) {
        if (!is_row(number))
            continue;
        const struct opcode_row *row = &opcode_rows[number];
        for (unsigned memory = 0; memory < 2; memory++) {
            uint8_t bytes[INSN_MAX_LENGTH];
            encode(row, memory, bytes);
            unsigned mode = row->flags & ROW_I64 ? M32 : M64;
            ck_assert_msg(decode(bytes, sizeof bytes, mode, &in) == DECODE_OK, "opcodes.def:%u", number);
            bool nop = row->op == OP_XCHG && (row->key & 0xFF) == 0x90;
            ck_assert_msg(in.op == (nop ? OP_NOP : row->op), "opcodes.def:%u decodes as %s", number, op_name(in.op));
            if (in.form != FORM_MEM)
                continue;
            unsigned size = row->memory <= MEMORY_16 ? row->memory : op_memory_size(&in);
            bool first = !(row->flags & ROW_TO_REG);
            bool written = (first && (row->flags & ROW_W)) || (row->flags & ROW_BOTH);
            bool read = !first || !(row->flags & ROW_W) || (row->flags & ROW_R);
            ck_assert_msg(op_memory_size(&in) == size && (size == 0) == (row->memory == 0), "opcodes.def:%u: size",
                          number);
            ck_assert_msg(op_memory_written(&in) == (size && written), "opcodes.def:%u: written", number);
            ck_assert_msg(op_memory_read(&in) == (size && read), "opcodes.def:%u: read", number);
        }
        rows++;
    }
    ck_assert_uint_gt(rows, 900);
}
END_TEST

// Operations whose first operand, where it is memory, is only read.
START_TEST(rows_with_memory_first_write_it_unless_listed)
{
    static const uint16_t readers[] = {
        OP_CMP,      OP_TEST,         OP_BT,      OP_MUL,         OP_IMUL,    OP_DIV,        OP_IDIV,    OP_PUSH,
        OP_CALL_IND, OP_CALL_FAR_IND, OP_JMP_IND, OP_X87,         OP_LLDT,    OP_LTR,        OP_VERR,    OP_VERW,
        OP_LGDT,     OP_LIDT,         OP_LMSW,    OP_JMP_FAR_IND, OP_FXRSTOR, OP_XRSTOR,     OP_XRSTORS, OP_LDMXCSR,
        OP_CLFLUSH,  OP_CLWB,         OP_VMXON,   OP_VMCLEAR,     OP_VMPTRLD, OP_CLFLUSHOPT,
    };
    for (unsigned number = 0; number < opcode_row_count; number++) {
        const struct opcode_row *row = &opcode_rows[number];
        if (!is_row(number) || !row->memory || (row->flags & ROW_TO_REG))
            continue;
        bool reader = false;
        for (unsigned i = 0; i < sizeof readers / sizeof *readers; i++)
            reader |= row->op == readers[i];
        ck_assert_msg(reader ? !(row->flags & ROW_W) || row->op == OP_X87 : (row->flags & ROW_W) != 0, "opcodes.def:%u",
                      number);
    }
}
END_TEST

START_TEST(every_operation_is_decoded)
{
    for (unsigned op = 0; op < OP_COUNT; op++)
        if (op != OP_MOVQ) // MOVD with size_log2 = 3, MOVQ_LOAD and MOVQ_STORE stand for it
            ck_assert_msg(opcode_of_op[op] != 0, "%s has no row", op_name(op));
}
END_TEST

START_TEST(rows_of_an_opcode_stand_together)
{
    bool seen[(MAP_COUNT + 1) * 256] = {false};
    for (unsigned number = 1; number < opcode_row_count; number++) {
        unsigned key = opcode_rows[number].key;
        if (key && key != opcode_rows[number - 1].key) {
            ck_assert_msg(!seen[key], "opcodes.def:%u", number);
            seen[key] = true;
        }
    }
}
END_TEST

START_TEST(rows_of_an_opcode_exclude_each_other)
{
    for (unsigned a = 1; a < opcode_row_count; a++) {
        for (unsigned b = a + 1; is_row(a) && b < opcode_row_count && opcode_rows[b].key == opcode_rows[a].key; b++) {
            const struct opcode_row *x = &opcode_rows[a], *y = &opcode_rows[b];
            unsigned common = x->modrm_mask & y->modrm_mask;
            uint32_t either = x->flags | y->flags;
            bool modes =
                (either & (ROW_I64 | ROW_O64)) == (ROW_I64 | ROW_O64) && (x->flags & ROW_I64) != (y->flags & ROW_I64);
            bool widths = (either & (ROW_W0 | ROW_W1)) == (ROW_W0 | ROW_W1);
            bool range = x->rm == RM_OPCODE; // 90: NOP and PAUSE override XCHG
            ck_assert_msg(!(x->prefixes & y->prefixes) || (x->modrm_value & common) != (y->modrm_value & common) ||
                              modes || widths || range,
                          "opcodes.def:%u and %u", a, b);
            ck_assert_msg((x->flags & ROW_MODRM) == (y->flags & ROW_MODRM), "opcodes.def:%u and %u: ModRM", a, b);
            ck_assert_msg((x->flags & ROW_NOMOD) == (y->flags & ROW_NOMOD), "opcodes.def:%u and %u: NOMOD", a, b);
        }
    }
}
END_TEST

START_TEST(rows_of_an_operation_agree_on_its_properties)
{
    const uint32_t classes = ROW_SSE | ROW_MMX | ROW_X87 | ROW_SYS | ROW_BR | ROW_VMX;
    for (unsigned number = 1; number < opcode_row_count; number++) {
        if (!is_row(number))
            continue;
        const struct opcode_row *row = &opcode_rows[number], *other = &opcode_rows[opcode_of_op[row->op]];
        ck_assert_msg((row->flags & classes) == (other->flags & classes), "opcodes.def:%u: class", number);
        ck_assert_msg((row->flags & (ROW_ROWNO | ROW_SRC | ROW_BOTH)) ==
                          (other->flags & (ROW_ROWNO | ROW_SRC | ROW_BOTH)),
                      "opcodes.def:%u: flags", number);
        ck_assert_msg(__builtin_popcount(row->flags & classes) <= 1, "opcodes.def:%u: two classes", number);
    }
}
END_TEST

// Names that Capstone gives to our operations where it has another one: by size, by alias, by syntax.
static bool is_capstone_name(const char *ours, const char *capstones)
{
    static const char *const aliases[][2] = {
        {"ud", "ud0"},
        {"ud", "ud2"},
        {"ud", "ud2b"},
        {"shl", "sal"},
        {"fwait", "wait"},
        {"xlat", "xlatb"},
        {"mov", "movabs"},
        {"jmp far", "ljmp"},
        {"call far", "lcall"},
        {"ret far", "retf"},
        {"iret", "iretd"},
        {"pushf", "pushfq"},
        {"popf", "popfq"},
        {"pusha", "pushal"},
        {"popa", "popal"},
        {"cbw", "cwde"},
        {"cwd", "cdq"},
        {"jcxz", "jrcxz"},
        {"cmpps", "cmpeqps"},
        {"cmppd", "cmpeqpd"},
        {"cmpss", "cmpeqss"},
        {"cmpsd", "cmpeqsd"},
        {"prefetch", "prefetchnta"},
        {"prefetch", "prefetcht0"},
        {"prefetch", "prefetcht1"},
        {"prefetch", "prefetcht2"},
        {"prefetch", "prefetchw"},
        {"movs", "movsb"},
        {"movs", "movsd"},
        {"stos", "stosb"},
        {"stos", "stosd"},
        {"lods", "lodsb"},
        {"lods", "lodsd"},
        {"scas", "scasb"},
        {"scas", "scasd"},
        {"cmps", "cmpsb"},
        {"cmps", "cmpsd"},
        {"ins", "insb"},
        {"ins", "insd"},
        {"outs", "outsb"},
        {"outs", "outsd"},
        {"rdpid", "rdseed"},
    };
    if (!strcmp(ours, capstones))
        return true;
    for (unsigned i = 0; i < sizeof aliases / sizeof *aliases; i++)
        if (!strcmp(ours, aliases[i][0]) && !strcmp(capstones, aliases[i][1]))
            return true;
    return false;
}

// Bytes of the memory operand as Capstone has it; 0: none.
static unsigned capstone_memory_size(const cs_insn *insn)
{
    for (unsigned i = 0; i < insn->detail->x86.op_count; i++)
        if (insn->detail->x86.operands[i].type == X86_OP_MEM)
            return insn->detail->x86.operands[i].size;
    return 0;
}

// Where Capstone's size is wrong, by SDM 2.
static bool is_capstone_size_wrong(const struct opcode_row *row)
{
    switch (row->op) {
    case OP_COMISS: // it says 16
    case OP_COMISD: return true;
    case OP_LSL: return true;                      // it says 4; SDM: r32/m16
    case OP_MMX: return row->memory == MEMORY_4;   // PUNPCKLBW, PUNPCKLWD, PUNPCKLDQ: it says 8; SDM: mm/m32
    case OP_X87: return (row->key & 0xFF) == 0xDD; // FRSTOR, FNSAVE, FNSTSW: it says 4
    default:
        return row->memory == MEMORY_P || row->memory == MEMORY_FX || row->memory == MEMORY_XS; // without selector; 8
    }
}

START_TEST(every_row_has_capstones_name_and_memory_size)
{
    csh handles[2];
    ck_assert_int_eq(cs_open(CS_ARCH_X86, CS_MODE_32, &handles[0]), CS_ERR_OK);
    ck_assert_int_eq(cs_open(CS_ARCH_X86, CS_MODE_64, &handles[1]), CS_ERR_OK);
    cs_option(handles[0], CS_OPT_DETAIL, CS_OPT_ON);
    cs_option(handles[1], CS_OPT_DETAIL, CS_OPT_ON);
    cs_insn *insn = cs_malloc(handles[0]);
    unsigned compared = 0;
    for (unsigned number = 0; number < opcode_row_count; number++) {
        for (unsigned memory = 0; is_row(number) && memory < 2; memory++) {
            const struct opcode_row *row = &opcode_rows[number];
            uint8_t bytes[INSN_MAX_LENGTH];
            encode(row, memory, bytes);
            bool long_mode = !(row->flags & ROW_I64);
            const uint8_t *code = bytes;
            size_t size = sizeof bytes;
            uint64_t address = 0;
            if (decode(bytes, sizeof bytes, long_mode ? M64 : M32, &in) != DECODE_OK ||
                !cs_disasm_iter(handles[long_mode], &code, &size, &address, insn))
                continue;
            bool shared = in.op == OP_X87 || (row->flags & ROW_ROWNO);
            ck_assert_msg(shared || is_capstone_name(op_name(in.op), insn->mnemonic),
                          "opcodes.def:%u: %s, Capstone: %s", number, op_name(in.op), insn->mnemonic);
            if (in.form != FORM_MEM || !op_memory_size(&in) || is_capstone_size_wrong(row))
                continue;
            ck_assert_msg(op_memory_size(&in) == capstone_memory_size(insn),
                          "opcodes.def:%u: %s: %u bytes, Capstone %u", number, insn->mnemonic, op_memory_size(&in),
                          capstone_memory_size(insn));
            compared++;
        }
    }
    ck_assert_uint_gt(compared, 400);
    cs_free(insn, 1);
    cs_close(&handles[0]);
    cs_close(&handles[1]);
}
END_TEST

// --- random bytes ---

static uint64_t random_state;

static uint64_t random64(void)
{
    random_state += 0x9E3779B97F4A7C15;
    uint64_t z = random_state;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
}

// Random bytes that look like instructions more often than random bytes do: up to four prefixes, then often an escape.
static void random_bytes(uint8_t bytes[16])
{
    static const uint8_t prefixes[16] = {0x66, 0x67, 0xF2, 0xF3, 0xF0, 0x2E, 0x64, 0x65,
                                         0x40, 0x48, 0x41, 0x44, 0x4F, 0x36, 0x66, 0x3E};
    uint64_t words[2] = {random64(), random64()}, choice = random64();
    memcpy(bytes, words, 16);
    unsigned n = 0, count = choice & 7;
    for (; count <= 4 && n < count; n++)
        bytes[n] = prefixes[choice >> (8 + 4 * n) & 15];
    switch (choice >> 32 & 7) {
    case 0:
    case 1:
    case 2: bytes[n] = 0x0F; break;
    case 3:
        bytes[n] = 0x0F;
        bytes[n + 1] = choice >> 40 & 1 ? 0x38 : 0x3A;
        break;
    case 4: // VEX map 0F38, opcodes F0 to FF
        bytes[n] = 0xC4;
        bytes[n + 1] = 0xE2;
        bytes[n + 3] |= 0xF0;
        break;
    default: break;
    }
}

START_TEST(random_bytes_agree_with_capstone_on_length_and_validity)
{
    static const cs_mode modes[3] = {CS_MODE_16, CS_MODE_32, CS_MODE_64};
    random_state = 1;
    for (unsigned mode = 0; mode < 3; mode++) {
        csh handle;
        ck_assert_int_eq(cs_open(CS_ARCH_X86, modes[mode], &handle), CS_ERR_OK);
        cs_insn *insn = cs_malloc(handle);
        unsigned valid = 0, allowed = 0;
        for (unsigned i = 0; i < 100000; i++) {
            uint8_t bytes[16];
            random_bytes(bytes);
            const uint8_t *code = bytes;
            size_t size = INSN_MAX_LENGTH;
            uint64_t address = 0;
            bool ok = cs_disasm_iter(handle, &code, &size, &address, insn);
            struct capstone_answer answer = {.valid = ok, .length = ok ? insn->size : 0};
            enum decode_status status = decode(bytes, sizeof bytes, mode, &in);
            valid += status == DECODE_OK;
            if (capstone_agrees(status, &in, answer))
                continue;
            allowed++;
            ck_assert_msg(
                capstone_deviation(bytes, sizeof bytes, mode, status, &in, answer) != NULL,
                "code size %u: %02X %02X %02X %02X %02X %02X %02X %02X %02X: we say status %d length %u (%s), "
                "Capstone %s length %u",
                16u << mode, bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7], bytes[8],
                status, in.length, op_name(in.op), ok ? insn->mnemonic : "refuses", answer.length);
        }
        cs_free(insn, 1);
        cs_close(&handle);
        ck_assert_uint_gt(valid, 50000);
        ck_assert_uint_lt(allowed, 10000);
    }
}
END_TEST

START_TEST(random_bytes_are_truncated_exactly_before_their_end)
{
    random_state = 2;
    for (unsigned i = 0; i < 50000; i++) {
        uint8_t bytes[16];
        random_bytes(bytes);
        unsigned mode = i % 3;
        struct insn whole = {0}, part;
        enum decode_status status = decode(bytes, sizeof bytes, mode, &whole);
        unsigned needed = status == DECODE_TOO_LONG ? INSN_MAX_LENGTH : whole.length;
        for (unsigned available = 0; available < 16; available++) {
            uint8_t *exact = malloc(available ? available : 1); // the sanitizer sees a read beyond it
            memcpy(exact, bytes, available);
            memset(&part, 0, sizeof part);
            ck_assert_int_eq(decode(exact, available, mode, &part), available < needed ? DECODE_TRUNCATED : status);
            if (available >= needed && status == DECODE_OK)
                ck_assert_mem_eq(&part, &whole, sizeof part);
            free(exact);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("decode");
    TCase *tests = tcase_create("decode");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, operand_size_follows_code_size_66_and_rex_w);
    tcase_add_test(tests, stack_operations_default_to_64_bits);
    tcase_add_test(tests, near_branches_ignore_66_in_64_bit_mode);
    tcase_add_test(tests, address_size_follows_code_size_and_67);
    tcase_add_test(tests, rex_counts_only_right_before_the_opcode);
    tcase_add_test(tests, byte_registers_are_byte_offsets);
    tcase_add_test(tests, segment_overrides_in_64_bit_mode_are_fs_and_gs);
    tcase_add_test(tests, lock_needs_a_lockable_operation_on_memory);
    tcase_add_test(tests, mandatory_prefixes_f2_and_f3_win_over_66_and_the_last_of_them_counts);
    tcase_add_test(tests, repeat_prefixes_are_flags_elsewhere);
    tcase_add_test(tests, nop_pause_and_xchg_share_opcode_90);
    tcase_add_test(tests, instructions_longer_than_15_bytes_are_too_long);
    tcase_add_test(tests, addressing_16_bit_forms);
    tcase_add_test(tests, addressing_32_and_64_bit_forms);
    tcase_add_test(tests, mod_0_rm_5_is_rip_relative_in_64_bit_mode_only);
    tcase_add_test(tests, moffs_is_as_wide_as_an_address);
    tcase_add_test(tests, to_reg_says_which_operand_is_the_destination);
    tcase_add_test(tests, immediates_are_extended_as_documented);
    tcase_add_test(tests, accumulator_forms_name_rax_in_rm);
    tcase_add_test(tests, multiplications_have_three_shapes);
    tcase_add_test(tests, source_size_of_extensions_is_in_imm);
    tcase_add_test(tests, far_pointers_are_selector_and_offset);
    tcase_add_test(tests, control_and_debug_register_moves_ignore_mod);
    tcase_add_test(tests, segment_register_moves_use_16_bit_memory);
    tcase_add_test(tests, group_0f_01_has_an_instruction_for_each_register_form);
    tcase_add_test(tests, vmx_instructions_by_mandatory_prefix);
    tcase_add_test(tests, group_0f_ae_by_form_and_prefix);
    tcase_add_test(tests, cmpxchg16b_needs_rex_w);
    tcase_add_test(tests, undefined_opcodes_and_hint_nops);
    tcase_add_test(tests, opcodes_that_64_bit_mode_lacks);
    tcase_add_test(tests, protected_mode_instructions_are_undefined_in_real_mode);
    tcase_add_test(tests, vex_encodes_bmi_only);
    tcase_add_test(tests, x87_opcode_is_in_imm);
    tcase_add_test(tests, shared_operations_know_their_row);
    tcase_add_test(tests, sse_operands_keep_the_integer_size);
    tcase_add_test(tests, classes_and_block_ends);
    tcase_add_test(tests, memory_accesses_of_integer_instructions);
    tcase_add_test(tests, every_row_is_decoded_and_keeps_its_memory_operand);
    tcase_add_test(tests, every_row_has_capstones_name_and_memory_size);
    tcase_add_test(tests, rows_with_memory_first_write_it_unless_listed);
    tcase_add_test(tests, every_operation_is_decoded);
    tcase_add_test(tests, rows_of_an_opcode_stand_together);
    tcase_add_test(tests, rows_of_an_opcode_exclude_each_other);
    tcase_add_test(tests, rows_of_an_operation_agree_on_its_properties);
    tcase_add_test(tests, random_bytes_agree_with_capstone_on_length_and_validity);
    tcase_add_test(tests, random_bytes_are_truncated_exactly_before_their_end);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
