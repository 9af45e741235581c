// The opcode table in the form the decoder searches; private to decode*.c and their tests.
//
// opcodes.def is compiled into opcode_rows, indexed by line number, and
// opcode_last, which gives the last row of an opcode. The rows of an opcode are
// consecutive, so a search goes downwards while the key stays the same.
#ifndef VMXON_CPU_DECODE_TABLE_H
#define VMXON_CPU_DECODE_TABLE_H

#include "cpu/insn.h"

enum opcode_map { MAP_ONE, MAP_0F, MAP_0F38, MAP_0F3A, MAP_V0F38, MAP_V0F3A, MAP_COUNT };

// Which of 66, F2, F3 selects the row; opcode_row.prefixes is a set of 1 << these.
enum opcode_prefix { OPCODE_NP, OPCODE_66, OPCODE_F2, OPCODE_F3 };

enum rm_kind {
    RM_NONE,
    RM_GPR,
    RM_GPR8,
    RM_GPR_ONLY,
    RM_MEMORY,
    RM_XMM,
    RM_XMM_ONLY,
    RM_MMX,
    RM_MMX_ONLY, // also x87: three bits, no REX.B
    RM_OPCODE,   // from here on: no ModRM byte
    RM_OPCODE8,
    RM_ACCUMULATOR,
    RM_MOFFS,
};

enum reg_kind {
    REG_KIND_NONE,
    REG_KIND_GPR,
    REG_KIND_GPR8,
    REG_KIND_XMM,
    REG_KIND_LOW3, // MMX, segment: REX.R ignored
    REG_KIND_CR,
    REG_KIND_DR,
    REG_KIND_FIXED_ES, // from here on: reg - REG_KIND_FIXED_ES, as enum segment_register
    REG_KIND_FIXED_CS,
    REG_KIND_FIXED_SS,
    REG_KIND_FIXED_DS,
    REG_KIND_FIXED_FS,
    REG_KIND_FIXED_GS,
};

enum imm_kind { IMM_NONE, IMM_U8, IMM_S8, IMM_U16, IMM_SZ, IMM_SV, IMM_ENTER, IMM_ONE, IMM_J8, IMM_JZ, IMM_FAR };

// Rules for insn.size_log2. VW, DW, DB: as V or D for a register, 16 or 8 bits for memory. VD64, VF64: V with D64 or F64.
enum size_rule {
    SIZE_NONE,
    SIZE_B,
    SIZE_W,
    SIZE_D,
    SIZE_Q,
    SIZE_V,
    SIZE_VD64,
    SIZE_VF64,
    SIZE_Y,
    SIZE_Z,
    SIZE_N,
    SIZE_VW,
    SIZE_DW,
    SIZE_DB,
    SIZE_RULES
};

// Bytes of a memory operand: a number up to 16, or one of these.
enum memory_rule {
    MEMORY_0 = 0,
    MEMORY_1 = 1,
    MEMORY_2 = 2,
    MEMORY_4 = 4,
    MEMORY_8 = 8,
    MEMORY_10 = 10,
    MEMORY_16 = 16,
    MEMORY_V, // the operand size
    MEMORY_A, // two of it
    MEMORY_P, // selector and offset
    MEMORY_S, // limit and base
    MEMORY_ENV,
    MEMORY_SAVE,
    MEMORY_FX,
    MEMORY_XS,
};

enum row_flag {
    ROW_W = 1 << 0,
    ROW_R = 1 << 1, // with W: read too
    ROW_BOTH = 1 << 2,
    ROW_LOCK = 1 << 3,
    ROW_I64 = 1 << 4,
    ROW_O64 = 1 << 5,
    ROW_PM = 1 << 6,
    ROW_D64 = 1 << 7,
    ROW_F64 = 1 << 8,
    ROW_W0 = 1 << 9,
    ROW_W1 = 1 << 10,
    ROW_NOREXB = 1 << 11,
    ROW_NOMOD = 1 << 12,
    ROW_MODRM = 1 << 13,
    ROW_NOMEM = 1 << 14,
    ROW_SRC = 1 << 15,
    ROW_ROWNO = 1 << 16,
    ROW_VEX = 1 << 17,
    ROW_SSE = 1 << 18,
    ROW_MMX = 1 << 19,
    ROW_X87 = 1 << 20,
    ROW_SYS = 1 << 21,
    ROW_BR = 1 << 22,
    ROW_VMX = 1 << 23,
    // derived from the operands
    ROW_TO_REG = 1 << 24,
    ROW_HAS_VVVV = 1 << 25,
    ROW_SPECIAL_IMM = 1 << 26, // imm is not, or not only, an encoded immediate: SRC, ROWNO, X87, VEX
};

struct opcode_row {
    uint16_t key; // (map + 1) << 8 | opcode; 0: not a row
    uint16_t op;
    uint8_t prefixes;   // set of 1 << enum opcode_prefix
    uint8_t modrm_mask; // the row matches if (ModRM & mask) == value, where the mod bits of memory forms count as 0
    uint8_t modrm_value;
    uint8_t rm;     // enum rm_kind
    uint8_t reg;    // enum reg_kind
    uint8_t imm;    // enum imm_kind
    uint8_t size;   // enum size_rule
    uint8_t memory; // enum memory_rule
    uint32_t flags; // enum row_flag
};
static_assert(sizeof(struct opcode_row) == 16, "four rows a cache line");

extern const struct opcode_row opcode_rows[];
extern const unsigned opcode_row_count;             // lines of opcodes.def
extern const uint16_t opcode_last[MAP_COUNT * 256]; // by map * 256 + opcode; 0: undefined
extern const uint16_t
    opcode_of_op[OP_COUNT + 1]; // a row of the op, one with a memory operand if there is one; 0: never decoded

// The row that matches; NULL: undefined. modrm: with the mod bits of memory forms cleared. reject: flags that exclude a row.
static inline const struct opcode_row *opcode_find(const struct opcode_row *row, unsigned prefix, unsigned modrm,
                                                   uint32_t reject)
{
    for (unsigned key = row->key; row->key == key; row--)
        if ((row->prefixes >> prefix & 1) && (modrm & row->modrm_mask) == row->modrm_value && !(row->flags & reject))
            return row;
    return NULL;
}

#endif
