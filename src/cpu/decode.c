// The instruction decoder: bytes to struct insn (SDM 2, ch. 2 "Instruction Format" and appendix A).
//
// All knowledge of single instructions is in opcodes.def; here are prefixes,
// ModRM and SIB, operand and address size, immediates and the 15-byte limit.
// Left out: VEX beyond BMI1/BMI2, EVEX, XOP, 3DNow!: undefined, as on a processor
// without them. Fields are documented at struct insn, deviations of Capstone in docs/decoder.md.
#include <string.h>

#include "cpu/decode_table.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "immediates are loaded in the host's byte order"
#endif

enum { REX_B = 1, REX_X = 2, REX_R = 4, REX_W = 8 };

enum prefix_kind { PREFIX_NO, PREFIX_REX, PREFIX_SEGMENT, PREFIX_OPERAND, PREFIX_ADDRESS, PREFIX_LOCK, PREFIX_REPEAT };

static const uint8_t prefix_kinds[256] = {
    [0x26] = PREFIX_SEGMENT, [0x2E] = PREFIX_SEGMENT, [0x36] = PREFIX_SEGMENT, [0x3E] = PREFIX_SEGMENT,
    [0x64] = PREFIX_SEGMENT, [0x65] = PREFIX_SEGMENT, [0x66] = PREFIX_OPERAND, [0x67] = PREFIX_ADDRESS,
    [0xF0] = PREFIX_LOCK,    [0xF2] = PREFIX_REPEAT,  [0xF3] = PREFIX_REPEAT,  [0x40 ... 0x4F] = PREFIX_REX,
};

// size_log2 by rule, memory form, and code size (3) x 66 prefix (2) x REX.W (2).
#define SAME(n)                                                                      \
    {                                                                                \
        {n, n, n, n, n, n, n, n, n, n, n, n}, { n, n, n, n, n, n, n, n, n, n, n, n } \
    }
#define BOTH_FORMS(...)                \
    {                                  \
        {__VA_ARGS__}, { __VA_ARGS__ } \
    }
#define BY_OPERAND_SIZE 1, 1, 2, 2, 2, 2, 1, 1, 2, 3, 1, 3
static const uint8_t operand_sizes[SIZE_RULES][2][12] = {
    [SIZE_B] = SAME(0),
    [SIZE_W] = SAME(1),
    [SIZE_D] = SAME(2),
    [SIZE_Q] = SAME(3),
    [SIZE_V] = BOTH_FORMS(BY_OPERAND_SIZE),
    [SIZE_VD64] = BOTH_FORMS(1, 1, 2, 2, 2, 2, 1, 1, 3, 3, 1, 3),
    [SIZE_VF64] = BOTH_FORMS(1, 1, 2, 2, 2, 2, 1, 1, 3, 3, 3, 3),
    [SIZE_Y] = BOTH_FORMS(2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 3),
    [SIZE_Z] = BOTH_FORMS(1, 1, 2, 2, 2, 2, 1, 1, 2, 2, 1, 2),
    [SIZE_N] = BOTH_FORMS(2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3),
    [SIZE_VW] = {{BY_OPERAND_SIZE}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
    [SIZE_DW] = {{2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
    [SIZE_DB] = {{2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2}, {0}},
};

// 16-bit addressing (SDM 2 table 2-1), by ModRM.rm.
static const uint8_t base16[8] = {REG_RBX, REG_RBX, REG_RBP, REG_RBP, REG_RSI, REG_RDI, REG_RBP, REG_RBX};
static const uint8_t index16[8] = {REG_RSI, REG_RDI, REG_RSI, REG_RDI, REG_NONE, REG_NONE, REG_NONE, REG_NONE};

// What is known before the opcode's row: the place in the bytes and the prefixes.
struct decoder {
    const uint8_t *bytes;
    unsigned position;
    unsigned limit; // bytes that may be read
    unsigned available;
    unsigned code; // enum code_mode & MODE_CODE_MASK
    unsigned rex;  // REX_*, or the same bits of VEX
    bool rex_present;
    bool segment_override;
    bool lock;
    bool operand_size; // 66
    uint8_t segment;
    uint8_t repeat; // 0, F2 or F3: the last one
    uint8_t vvvv;
};

static inline uint64_t load(const struct decoder *decoder, unsigned bytes)
{
    uint64_t value = 0;
    memcpy(&value, decoder->bytes + decoder->position, bytes);
    return value;
}

static inline bool has(const struct decoder *decoder, unsigned bytes)
{
    return likely(decoder->position + bytes <= decoder->limit);
}

// The bytes ran out.
static enum decode_status ran_out(const struct decoder *decoder)
{
    return decoder->available >= INSN_MAX_LENGTH ? DECODE_TOO_LONG : DECODE_TRUNCATED;
}

static enum decode_status undefined(const struct decoder *decoder, struct insn *in)
{
    in->op = OP_UD;
    in->length = (uint8_t)decoder->position;
    return DECODE_UNDEFINED;
}

// Byte registers: AH, CH, DH, BH are byte 1 of RAX, RCX, RDX, RBX, unless a REX prefix is present.
static inline uint8_t byte_register(unsigned number, bool rex_present)
{
    if (!rex_present && number >= 4)
        return (uint8_t)((number - 4) * 8 + 1);
    return (uint8_t)(number * 8);
}

// The displacement of `bytes` bytes (0, 1, 2, 4), sign-extended.
static inline bool fetch_displacement(struct decoder *decoder, unsigned bytes, struct insn *in)
{
    if (!bytes)
        return true;
    if (!has(decoder, bytes))
        return false;
    in->disp = (int32_t)sign_extend(load(decoder, bytes), bytes * 8);
    in->flags |= INSN_DISP;
    decoder->position += bytes;
    return true;
}

static bool decode_memory16(struct decoder *decoder, unsigned modrm, struct insn *in)
{
    unsigned mod = modrm >> 6, rm = modrm & 7;
    unsigned displacement = mod; // 0, 1 or 2 bytes
    in->base = base16[rm];
    in->index = index16[rm];
    if (mod == 0 && rm == 6) {
        in->base = REG_NONE;
        displacement = 2;
    }
    if (in->base == REG_RBP && !decoder->segment_override)
        in->segment = SEG_SS;
    return fetch_displacement(decoder, displacement, in);
}

// 32- and 64-bit addressing (SDM 2 tables 2-2 and 2-3, 2.2.1.6 "RIP-Relative Addressing").
static bool decode_memory(struct decoder *decoder, unsigned modrm, struct insn *in)
{
    unsigned mod = modrm >> 6, rm = modrm & 7;
    unsigned displacement = mod == 2 ? 4 : mod;
    unsigned base = rm | (decoder->rex & REX_B) << 3;
    if (rm == 4) {
        if (!has(decoder, 1))
            return false;
        unsigned sib = decoder->bytes[decoder->position++];
        unsigned index = (sib >> 3 & 7) | (decoder->rex & REX_X) << 2;
        if (index != REG_RSP)
            in->index = (uint8_t)index;
        in->scale = sib >> 6 & 3;
        base = (sib & 7) | (decoder->rex & REX_B) << 3;
        if (mod == 0 && (sib & 7) == 5) {
            base = REG_NONE;
            displacement = 4;
        }
    } else if (mod == 0 && rm == 5) {
        base = decoder->code == MODE_CODE64 ? REG_RIP : REG_NONE;
        displacement = 4;
    }
    in->base = (uint8_t)base;
    if ((base == REG_RSP || base == REG_RBP) && !decoder->segment_override)
        in->segment = SEG_SS;
    return fetch_displacement(decoder, displacement, in);
}

// The immediate. False: the bytes ran out.
static bool decode_immediate(struct decoder *decoder, unsigned kind, struct insn *in)
{
    // Iz and Jz: 16 bits with 16-bit operands, else 32, sign-extended.
    unsigned size_z = in->size_log2 == 1 ? 2 : 4;
    unsigned bytes;
    in->has_imm = kind < IMM_J8;
    switch (kind) {
    case IMM_U8:
    case IMM_S8: bytes = 1; break;
    case IMM_U16: bytes = 2; break;
    case IMM_SZ: bytes = size_z; break;
    case IMM_SV: bytes = 1u << in->size_log2; break;
    case IMM_ENTER: bytes = 3; break;
    case IMM_J8: bytes = 1; break;
    case IMM_JZ: bytes = size_z; break;
    case IMM_FAR: bytes = size_z + 2; break;
    default: in->imm = 1; return true; // IMM_ONE
    }
    if (!has(decoder, bytes))
        return false;
    uint64_t value = load(decoder, bytes);
    decoder->position += bytes;
    switch (kind) {
    case IMM_U8:
    case IMM_U16:
    case IMM_ENTER: break; // size in bits 15:0, level above, as encoded
    case IMM_FAR: value = (value >> size_z * 8) << 32 | (value & BITS(size_z * 8 - 1, 0)); break;
    default: value = sign_extend(value, bytes * 8); break;
    }
    in->imm = (int64_t)value;
    return true;
}

// The offset of MOV A0-A3: as wide as an address.
static bool decode_moffs(struct decoder *decoder, struct insn *in)
{
    unsigned bytes = 1u << in->addr_log2;
    if (!has(decoder, bytes))
        return false;
    in->imm = (int64_t)load(decoder, bytes);
    in->moffs = 1;
    in->flags |= INSN_DISP;
    decoder->position += bytes;
    return true;
}

// ModRM.reg or what stands for it. False: there is no such register (#UD).
static inline bool decode_reg(const struct decoder *decoder, unsigned kind, unsigned field, struct insn *in)
{
    unsigned number = field | (decoder->rex & REX_R) << 1;
    switch (kind) {
    case REG_KIND_NONE: break;
    case REG_KIND_GPR:
    case REG_KIND_XMM: in->reg = (uint8_t)number; break;
    case REG_KIND_GPR8: in->reg = byte_register(number, decoder->rex_present); break;
    case REG_KIND_LOW3: in->reg = (uint8_t)field; break;
    case REG_KIND_CR:
        in->reg = (uint8_t)number;
        return 1u << number & (1u << 0 | 1u << 2 | 1u << 3 | 1u << 4 | 1u << 8);
    case REG_KIND_DR: in->reg = (uint8_t)number; return number < 8;
    default: in->reg = (uint8_t)(kind - REG_KIND_FIXED_ES); break;
    }
    return true;
}

static inline void decode_rm_register(const struct decoder *decoder, unsigned kind, unsigned field, struct insn *in)
{
    unsigned number = field | (decoder->rex & REX_B) << 3;
    in->form = FORM_REG;
    switch (kind) {
    case RM_GPR8:
    case RM_OPCODE8: in->rm = byte_register(number, decoder->rex_present); break;
    case RM_MMX:
    case RM_MMX_ONLY: in->rm = (uint8_t)field; break;
    case RM_ACCUMULATOR: break;
    default: in->rm = (uint8_t)number; break;
    }
}

static inline unsigned size_log2(const struct decoder *decoder, unsigned rule, bool memory)
{
    return operand_sizes[rule][memory][decoder->code * 4 + decoder->operand_size * 2u + (decoder->rex & REX_W) / REX_W];
}

// Instructions whose imm is more than the encoded immediate; see struct insn.
static void adjust_imm(const struct decoder *decoder, const struct opcode_row *row, unsigned modrm, struct insn *in)
{
    if (row->flags & ROW_ROWNO) {
        in->imm |= (int64_t)(row - opcode_rows) << 16;
    } else if (row->flags & ROW_X87) {
        in->imm = (row->key & 7) << 8 | (int64_t)modrm;
        in->reg = modrm >> 3 & 7;
    } else if (row->flags & ROW_HAS_VVVV) {
        in->imm =
            decoder->code == MODE_CODE64 ? decoder->vvvv : decoder->vvvv & 7; // bit 3 is ignored outside 64-bit mode
    } else if (row->flags & ROW_SRC) {
        unsigned operand_size = 1u << size_log2(decoder, SIZE_V, false);
        in->imm = row->memory == MEMORY_V || row->memory > operand_size ? operand_size : row->memory;
    }
}

// What follows the opcode. `reject`: row flags that exclude a row in this mode and with these prefixes.
static enum decode_status decode_opcode(struct decoder *decoder, unsigned map, unsigned opcode, uint32_t reject,
                                        struct insn *in)
{
    unsigned last = opcode_last[map * 256 + opcode];
    if (unlikely(!last))
        return undefined(decoder, in);
    const struct opcode_row *row = &opcode_rows[last];
    unsigned modrm = 0, matched = 0;
    bool memory = false;
    if (row->flags & ROW_MODRM) {
        if (!has(decoder, 1))
            return ran_out(decoder);
        modrm = decoder->bytes[decoder->position++];
        if (row->flags & ROW_NOMOD)
            modrm |= 0xC0;
        memory = modrm < 0xC0;
        matched = memory ? modrm & 0x3F : modrm;
    }
    unsigned prefix = decoder->repeat == 0xF3   ? OPCODE_F3
                      : decoder->repeat == 0xF2 ? OPCODE_F2
                      : decoder->operand_size   ? OPCODE_66
                                                : OPCODE_NP;
    row = opcode_find(row, prefix, matched, reject);
    if (unlikely(!row))
        return undefined(decoder, in);
    if (unlikely(decoder->lock) && (!(row->flags & ROW_LOCK) || (row->flags & ROW_TO_REG) || !memory))
        return undefined(decoder, in);
    if (unlikely(row->flags & ROW_VEX) && !(row->flags & ROW_HAS_VVVV) && decoder->vvvv != 0)
        return undefined(decoder, in);

    if (unlikely(decoder->repeat | decoder->operand_size)) {
        if (decoder->repeat == 0xF3 && row->prefixes != 1 << OPCODE_F3)
            in->flags |= INSN_REP;
        if (decoder->repeat == 0xF2 && row->prefixes != 1 << OPCODE_F2)
            in->flags |= INSN_REPNE;
        if (decoder->operand_size && row->prefixes != 1 << OPCODE_66)
            in->flags |= INSN_OPSIZE;
    }
    in->op = row->op;
    in->to_reg = (row->flags & ROW_TO_REG) != 0;
    in->size_log2 = size_log2(decoder, row->size, memory) & 3u;

    if (!decode_reg(decoder, row->reg, modrm >> 3 & 7, in))
        return undefined(decoder, in);
    if (memory) {
        in->form = FORM_MEM;
        if (!(in->addr_log2 == 1 ? decode_memory16(decoder, modrm, in) : decode_memory(decoder, modrm, in)))
            return ran_out(decoder);
    } else if (row->rm == RM_MOFFS) {
        in->form = FORM_MEM;
        if (!decode_moffs(decoder, in))
            return ran_out(decoder);
    } else if (row->rm != RM_NONE) {
        decode_rm_register(decoder, row->rm, row->rm >= RM_OPCODE ? opcode & 7 : modrm & 7, in);
    }
    if (row->imm != IMM_NONE && !decode_immediate(decoder, row->imm, in))
        return ran_out(decoder);
    if (row->flags & ROW_SPECIAL_IMM)
        adjust_imm(decoder, row, modrm, in);
    in->length = (uint8_t)decoder->position;
    return DECODE_OK;
}

// A three-byte VEX prefix, whose first byte was read (SDM 2 2.3.5 "The VEX Prefix"). Its inverted bits are used as REX bits.
// The two-byte prefix C5 leads to map 0F only, where no instruction of ours is.
static enum decode_status decode_vex(struct decoder *decoder, uint32_t reject, struct insn *in)
{
    static const uint8_t repeat_of_pp[4] = {0, 0, 0xF3, 0xF2};
    if (!has(decoder, 2))
        return ran_out(decoder);
    unsigned byte1 = decoder->bytes[decoder->position++], byte2 = decoder->bytes[decoder->position++];
    unsigned map = byte1 & 0x1F;
    if (decoder->rex_present || decoder->lock || decoder->operand_size || decoder->repeat)
        return undefined(decoder, in);
    if ((map != 2 && map != 3) || (byte2 & 4)) // byte2 bit 2: VEX.L
        return undefined(decoder, in);
    if (!has(decoder, 1))
        return ran_out(decoder);
    decoder->vvvv = ~byte2 >> 3 & 15;
    if (decoder->code == MODE_CODE64)
        decoder->rex = (~byte1 >> 5 & 7) | (byte2 >> 4 & 8);
    decoder->repeat = repeat_of_pp[byte2 & 3];
    decoder->operand_size = (byte2 & 3) == 1;
    in->vex = 1;
    unsigned opcode = decoder->bytes[decoder->position++];
    return decode_opcode(decoder, map == 2 ? MAP_V0F38 : MAP_V0F3A, opcode, reject, in);
}

// C4, C5 and 62 are LES, LDS and BOUND only outside 64-bit mode and with a memory operand; else VEX and EVEX.
static bool is_vector_prefix(const struct decoder *decoder)
{
    return decoder->code == MODE_CODE64 || decoder->bytes[decoder->position] >= 0xC0;
}

static uint32_t rejected_flags(const struct decoder *decoder, unsigned mode)
{
    uint32_t reject = decoder->code == MODE_CODE64 ? ROW_I64 : ROW_O64;
    reject |= decoder->rex & REX_W ? ROW_W0 : ROW_W1;
    if (decoder->rex & REX_B)
        reject |= ROW_NOREXB;
    if (mode & MODE_REAL)
        reject |= ROW_PM;
    return reject;
}

static void legacy_prefix(struct decoder *decoder, unsigned kind, uint8_t byte, struct insn *in)
{
    switch (kind) {
    case PREFIX_SEGMENT:
        if (byte >= 0x64)
            decoder->segment = (uint8_t)(byte - 0x64 + SEG_FS);
        else if (decoder->code != MODE_CODE64)
            decoder->segment = byte >> 3 & 3;
        else
            return; // SDM 1 3.4.2.1: CS, DS, ES, SS overrides are ignored
        decoder->segment_override = true;
        break;
    case PREFIX_OPERAND: decoder->operand_size = true; break;
    case PREFIX_ADDRESS: in->addr_log2 = decoder->code == MODE_CODE32 ? 1 : 2; break;
    case PREFIX_LOCK: decoder->lock = true; break;
    default: decoder->repeat = byte; break;
    }
}

enum decode_status decode(const uint8_t *bytes, unsigned available, unsigned mode, struct insn *in)
{
    struct decoder decoder = {
        .bytes = bytes,
        .limit = available < INSN_MAX_LENGTH ? available : INSN_MAX_LENGTH,
        .available = available,
        .code = mode & MODE_CODE_MASK,
        .segment = SEG_DS,
    };
    *in = (struct insn){
        .exec = in->exec,
        .delta = in->delta,
        .base = REG_NONE,
        .index = REG_NONE,
        .addr_log2 = (decoder.code + 1) & 3u,
    };

    uint8_t opcode;
    for (;;) {
        if (unlikely(decoder.position >= decoder.limit))
            return ran_out(&decoder);
        opcode = bytes[decoder.position++];
        unsigned kind = prefix_kinds[opcode];
        if (likely(kind == PREFIX_NO))
            break;
        if (kind == PREFIX_REX) {
            if (decoder.code != MODE_CODE64)
                break;
            decoder.rex = opcode & 15;
            decoder.rex_present = true;
            continue;
        }
        // A REX prefix that is not the last one is ignored (SDM 2 2.2.1).
        decoder.rex = 0;
        decoder.rex_present = false;
        legacy_prefix(&decoder, kind, opcode, in);
    }
    in->segment = decoder.segment & 7u;
    if (decoder.segment_override)
        in->flags |= INSN_SEGMENT;
    if (decoder.lock)
        in->flags |= INSN_LOCK;

    uint32_t reject = rejected_flags(&decoder, mode);
    unsigned map = MAP_ONE;
    if (opcode == 0x0F) {
        map = MAP_0F;
        if (!has(&decoder, 1))
            return ran_out(&decoder);
        opcode = bytes[decoder.position++];
        if (opcode == 0x38 || opcode == 0x3A) {
            map = opcode == 0x38 ? MAP_0F38 : MAP_0F3A;
            if (!has(&decoder, 1))
                return ran_out(&decoder);
            opcode = bytes[decoder.position++];
        }
    } else if (unlikely((opcode & 0xFE) == 0xC4 || opcode == 0x62)) {
        if (decoder.code != MODE_CODE64 && !has(&decoder, 1))
            return ran_out(&decoder);
        if (is_vector_prefix(&decoder)) {
            if (opcode == 0xC4)
                return decode_vex(&decoder, reject, in);
            decoder.position += decoder.code != MODE_CODE64; // the byte that decided
            return undefined(&decoder, in);
        }
    }
    return decode_opcode(&decoder, map, opcode, reject, in);
}
