// Compiles opcodes.def and decode_operands.def into constant tables.
//
// Each column is turned into a field by constant expressions, so that the
// decoder does not interpret operands: an operand becomes an integer of four
// bytes (group, kind, size rule, memory rule), and a row picks from its three.
#include "cpu/decode_table.h"

enum operand_group { GROUP_IMPLICIT, GROUP_RM, GROUP_REG, GROUP_IMM, GROUP_VVVV };

// Kinds by group, for decode_operands.def.
#define KIND_RM(kind)       RM_##kind
#define KIND_REG(kind)      REG_KIND_##kind
#define KIND_IMM(kind)      IMM_##kind
#define KIND_VVVV(kind)     kind
#define KIND_IMPLICIT(kind) kind

enum operand {
#define OPERAND(name, group, kind, size, memory) \
    OPERAND_##name = GROUP_##group << 24 | KIND_##group(kind) << 16 | SIZE_##size << 8 | MEMORY_##memory,
#include "cpu/decode_operands.def"
#undef OPERAND
};

// The flags as opcodes.def spells them.
enum {
    W = ROW_W,
    RW = ROW_W | ROW_R,
    BOTH = ROW_BOTH,
    LOCK = ROW_LOCK,
    I64 = ROW_I64,
    O64 = ROW_O64,
    PM = ROW_PM,
    D64 = ROW_D64,
    F64 = ROW_F64,
    W0 = ROW_W0,
    W1 = ROW_W1,
    NOREXB = ROW_NOREXB,
    NOMOD = ROW_NOMOD,
    MODRM = ROW_MODRM,
    NOMEM = ROW_NOMEM,
    SRC = ROW_SRC,
    ROWNO = ROW_ROWNO,
    VEX = ROW_VEX,
    SSE = ROW_SSE,
    MMX = ROW_MMX,
    X87 = ROW_X87,
    SYS = ROW_SYS,
    BR = ROW_BR,
    VMX = ROW_VMX,
};

enum {
    PREFIXES_NP = 1 << OPCODE_NP,
    PREFIXES_66 = 1 << OPCODE_66,
    PREFIXES_F2 = 1 << OPCODE_F2,
    PREFIXES_F3 = 1 << OPCODE_F3,
    PREFIXES_NP66 = PREFIXES_NP | PREFIXES_66,
    PREFIXES_NOTF3 = PREFIXES_NP | PREFIXES_66 | PREFIXES_F2,
    PREFIXES__ = PREFIXES_NOTF3 | PREFIXES_F3,
};

// Columns mod, reg and rm as (mask, value) of ModRM.
enum { MOD__ = 0, MOD_M = 1, MOD_R = 2 };
enum { FIELD__ = 8, FIELD_0 = 0, FIELD_1, FIELD_2, FIELD_3, FIELD_4, FIELD_5, FIELD_6, FIELD_7 };

#define GROUP(operand)       ((operand) >> 24)
#define KIND(operand)        ((operand) >> 16 & 0xFF)
#define SIZE(operand)        ((operand) >> 8 & 0xFF)
#define PICK(group, a, b, c) (GROUP(a) == (group) ? (a) : GROUP(b) == (group) ? (b) : GROUP(c) == (group) ? (c) : 0)
#define FIRST_SIZE(a, b, c)  (SIZE(a) ? SIZE(a) : SIZE(b) ? SIZE(b) : SIZE(c) ? SIZE(c) : SIZE_V)
#define SIZE_BY_FLAGS(size, flags) \
    ((size) != SIZE_V ? (size) : (flags)&F64 ? SIZE_VF64 : (flags)&D64 ? SIZE_VD64 : SIZE_V)

#define RM_KIND(a, b, c)         KIND(PICK(GROUP_RM, a, b, c))
#define MEMORY_FORM_ONLY(kind)   ((kind) == RM_MEMORY)
#define REGISTER_FORM_ONLY(kind) ((kind) == RM_GPR_ONLY || (kind) == RM_XMM_ONLY || (kind) == RM_MMX_ONLY)
#define MOD_MASK(mod, kind)      ((mod) != MOD__ || MEMORY_FORM_ONLY(kind) || REGISTER_FORM_ONLY(kind) ? 0xC0 : 0)
#define MOD_VALUE(mod, kind)     ((mod) == MOD_R || REGISTER_FORM_ONLY(kind) ? 0xC0 : 0)
#define HAS_MODRM(kind)          ((kind) != RM_NONE && (kind) < RM_OPCODE)
#define DERIVED_FLAGS(a, b, c, flags)                                                                              \
    ((HAS_MODRM(RM_KIND(a, b, c)) ? ROW_MODRM : 0) | (GROUP(a) != GROUP_RM && RM_KIND(a, b, c) ? ROW_TO_REG : 0) | \
     (PICK(GROUP_VVVV, a, b, c) ? ROW_HAS_VVVV : 0) |                                                              \
     ((flags) & (SRC | ROWNO | X87 | VEX) || RM_KIND(a, b, c) == RM_MOFFS ? ROW_SPECIAL_IMM : 0))

const struct opcode_row opcode_rows[] = {
#define ROW(map, opcode, prefix, mod, reg_field, rm_field, name, a, b, c, row_flags)                       \
    [__LINE__] = {                                                                                         \
        .key = (MAP_##map + 1) << 8 | (opcode),                                                            \
        .op = OP_##name,                                                                                   \
        .prefixes = PREFIXES_##prefix,                                                                     \
        .modrm_mask = MOD_MASK(MOD_##mod, RM_KIND(OPERAND_##a, OPERAND_##b, OPERAND_##c)) |                \
                      (FIELD_##reg_field == FIELD__ ? 0 : 7 << 3) | (FIELD_##rm_field == FIELD__ ? 0 : 7), \
        .modrm_value = MOD_VALUE(MOD_##mod, RM_KIND(OPERAND_##a, OPERAND_##b, OPERAND_##c)) |              \
                       (FIELD_##reg_field & 7) << 3 | (FIELD_##rm_field & 7),                              \
        .rm = RM_KIND(OPERAND_##a, OPERAND_##b, OPERAND_##c),                                              \
        .reg = KIND(PICK(GROUP_REG, OPERAND_##a, OPERAND_##b, OPERAND_##c)),                               \
        .imm = KIND(PICK(GROUP_IMM, OPERAND_##a, OPERAND_##b, OPERAND_##c)),                               \
        .size = SIZE_BY_FLAGS(FIRST_SIZE(OPERAND_##a, OPERAND_##b, OPERAND_##c), row_flags),               \
        .memory = (row_flags)&NOMEM ? 0 : PICK(GROUP_RM, OPERAND_##a, OPERAND_##b, OPERAND_##c) & 0xFF,    \
        .flags = (row_flags) | DERIVED_FLAGS(OPERAND_##a, OPERAND_##b, OPERAND_##c, row_flags),            \
    },
#include "cpu/opcodes.def"
#undef ROW
};

const unsigned opcode_row_count = sizeof opcode_rows / sizeof *opcode_rows;
static_assert(sizeof opcode_rows / sizeof *opcode_rows <= UINT16_MAX, "row numbers have 16 bits");

// Later rows of an opcode replace earlier ones here: that is what makes the last row the one that is found.
#pragma GCC diagnostic push
#ifdef __clang__
#pragma GCC diagnostic ignored "-Winitializer-overrides"
#else
#pragma GCC diagnostic ignored "-Woverride-init"
#endif

#define IN_OPCODE(kind) ((kind) == RM_OPCODE || (kind) == RM_OPCODE8)

const uint16_t opcode_last[MAP_COUNT * 256] = {
#define ROW(map, opcode, prefix, mod, reg_field, rm_field, name, a, b, c, row_flags) \
    [MAP_##map * 256 + (opcode)... MAP_##map * 256 + (opcode) +                      \
        (IN_OPCODE(RM_KIND(OPERAND_##a, OPERAND_##b, OPERAND_##c)) ? 7 : 0)] = __LINE__,
#include "cpu/opcodes.def"
#undef ROW
};

// Rows with a memory operand come second, so they replace the others; those without one go to the spare element instead.
const uint16_t opcode_of_op[OP_COUNT + 1] = {
#define ROW(map, opcode, prefix, mod, reg_field, rm_field, name, a, b, c, row_flags) [OP_##name] = __LINE__,
#include "cpu/opcodes.def"
#undef ROW
#define ROW(map, opcode, prefix, mod, reg_field, rm_field, name, a, b, c, row_flags) \
    [PICK(GROUP_RM, OPERAND_##a, OPERAND_##b, OPERAND_##c) & 0xFF ? OP_##name : OP_COUNT] = __LINE__,
#include "cpu/opcodes.def"
#undef ROW
};

#pragma GCC diagnostic pop
