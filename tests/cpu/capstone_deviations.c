// The allow-list of Capstone 4.0.2 against src/cpu/opcodes.def.
//
// Capstone is a disassembler: it prints what it can and does not check what a
// processor checks. Each row below says in which of three ways it differs
// (accepts what we refuse, refuses what we accept, other length) and why. Ours
// was checked on these points with Zydis 4.0 and on a processor.
#include "capstone_deviations.h"

#include <string.h>

enum map { ONE, M0F, M0F38, M0F3A, VECTOR };

// The parts of an instruction that the rows look at.
struct sample {
    uint8_t bytes[INSN_MAX_LENGTH];
    unsigned size; // of bytes
    unsigned mode;
    unsigned prefixes; // bytes before the opcode, REX included
    bool lock, operand_size, address_size, repeat;
    unsigned rex; // 0: none in effect
    enum map map;
    uint8_t opcode;
    uint8_t modrm; // the byte after the opcode
    bool modrm_known;
};

static bool is_legacy_prefix(uint8_t byte)
{
    return memchr("\x26\x2E\x36\x3E\x64\x65\x66\x67\xF0\xF2\xF3", byte, 11) != NULL;
}

// False: no opcode within the bytes.
static bool parse(struct sample *sample)
{
    unsigned at = 0;
    for (; at < sample->size; at++) {
        uint8_t byte = sample->bytes[at];
        bool rex = sample->mode == MODE_CODE64 && (byte & 0xF0) == 0x40;
        if (!rex && !is_legacy_prefix(byte))
            break;
        sample->rex = rex ? byte : 0;
        sample->lock |= byte == 0xF0;
        sample->operand_size |= byte == 0x66;
        sample->address_size |= byte == 0x67;
        sample->repeat |= byte == 0xF2 || byte == 0xF3;
    }
    sample->prefixes = at;
    unsigned left = sample->size - at;
    if (!left)
        return false;
    const uint8_t *opcode = sample->bytes + at;
    unsigned length = 1;
    sample->map = ONE;
    if (opcode[0] == 0x0F) {
        length = left > 1 && (opcode[1] == 0x38 || opcode[1] == 0x3A) ? 3 : 2;
        sample->map = length == 2 ? M0F : opcode[1] == 0x38 ? M0F38 : M0F3A;
    } else if (opcode[0] == 0xC4 || opcode[0] == 0xC5 || opcode[0] == 0x62) {
        if (sample->mode == MODE_CODE64 || (left > 1 && opcode[1] >= 0xC0))
            sample->map = VECTOR;
    }
    if (left < length)
        return false;
    sample->opcode = opcode[length - 1];
    sample->modrm_known = left > length;
    sample->modrm = sample->modrm_known ? opcode[length] : 0;
    return true;
}

static unsigned modrm_reg(const struct sample *sample) { return sample->modrm >> 3 & 7; }

static bool modrm_is_register(const struct sample *sample) { return sample->modrm >= 0xC0; }

// --- Capstone accepts what we refuse ---

// Opcodes of extensions that we do not have, or do not know: a range of them, by map and ModRM.reg.
static const struct foreign {
    enum map map;
    uint8_t first, last;
    uint8_t regs; // set of 1 << ModRM.reg
    enum { ANY_FORM, REGISTER_FORM } form;
    const char *reason;
} foreign[] = {
    {VECTOR, 0x62, 0x62, 0xFF, ANY_FORM, "EVEX: AVX-512 is not modelled"},
    {VECTOR, 0xC4, 0xC5, 0xFF, ANY_FORM, "VEX: only BMI1 and BMI2 are modelled"},
    {ONE, 0x8E, 0x8E, 1 << 1, ANY_FORM, "MOV to CS is #UD (SDM 2 \"MOV\")"},
    {ONE, 0x8F, 0x8F, 0xFE, ANY_FORM, "XOP is not modelled"},
    {ONE, 0xC6, 0xC7, 0x80, REGISTER_FORM, "TSX: XABORT, XBEGIN"},
    {ONE, 0xD6, 0xD6, 0xFF, ANY_FORM, "SALC, which SDM does not define"},
    {M0F, 0x01, 0x01, 0xFF, REGISTER_FORM, "SVM, TSX, SGX, PKU, CLZERO and the like under 0F 01"},
    {M0F, 0x0E, 0x0F, 0xFF, ANY_FORM, "3DNow!"},
    {M0F, 0x24, 0x27, 0xFF, ANY_FORM, "test registers: processors up to the 486"},
    {M0F, 0x2B, 0x2B, 0xFF, ANY_FORM, "SSE4A: MOVNTSS, MOVNTSD"},
    {M0F, 0x78, 0x79, 0xFF, ANY_FORM, "SSE4A: EXTRQ, INSERTQ"},
    {M0F, 0xA6, 0xA7, 0xFF, ANY_FORM, "VIA PadLock"},
    {M0F38, 0xC8, 0xCD, 0xFF, ANY_FORM, "SHA"},
    {M0F3A, 0xCC, 0xCC, 0xFF, ANY_FORM, "SHA"},
};

static const char *accepts_foreign(const struct sample *sample)
{
    for (unsigned i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        const struct foreign *row = &foreign[i];
        uint8_t opcode = sample->map == VECTOR ? sample->bytes[sample->prefixes] : sample->opcode;
        if (row->map == sample->map && row->first <= opcode && opcode <= row->last &&
            (row->regs >> modrm_reg(sample) & 1) && (row->form == ANY_FORM || modrm_is_register(sample)))
            return row->reason;
    }
    return NULL;
}

static const char *accepts_register_number(const struct sample *sample)
{
    bool control = sample->opcode == 0x20 || sample->opcode == 0x22,
         debug = sample->opcode == 0x21 || sample->opcode == 0x23;
    if (sample->map != M0F || !(control || debug))
        return NULL;
    unsigned number = modrm_reg(sample) | (sample->rex & 4) << 1;
    if (control && !(1u << number & 0x11D))
        return "control registers other than 0, 2, 3, 4, 8 are #UD (SDM 2 \"MOV - Move to/from Control Registers\")";
    if (debug && number >= 8)
        return "debug registers 8 to 15 are #UD (SDM 2 \"MOV - Move to/from Debug Registers\")";
    return NULL;
}

// The sample without prefixes that `drop` names. False if none is among them.
static bool without(const struct sample *sample, const char *drop, struct sample *result)
{
    *result = (struct sample){.mode = sample->mode};
    for (unsigned i = 0; i < sample->size; i++)
        if (i >= sample->prefixes || !strchr(drop, sample->bytes[i]))
            result->bytes[result->size++] = sample->bytes[i];
    return result->size < sample->size && parse(result);
}

static const char *accepts(const struct sample *sample);

// Without the prefixes the instruction is one, for us or for another reason.
static bool is_instruction_without(const struct sample *sample, const char *drop)
{
    struct sample rest;
    struct insn in = {0};
    if (!without(sample, drop, &rest))
        return false;
    enum decode_status status = decode(rest.bytes, rest.size, rest.mode, &in);
    return status == DECODE_OK || status == DECODE_TRUNCATED || accepts(&rest);
}

static const char *accepts_lock(const struct sample *sample)
{
    return sample->lock && is_instruction_without(sample, "\xF0") ? "Capstone does not check where LOCK is allowed"
                                                                  : NULL;
}

static const char *accepts_mandatory_prefix(const struct sample *sample)
{
    if (sample->map == ONE || sample->map == VECTOR)
        return NULL;
    return is_instruction_without(sample, "\x66\xF2\xF3") || is_instruction_without(sample, "\xF2\xF3")
               ? "Capstone ignores 66, F2, F3 where they select no instruction"
               : NULL;
}

static const char *accepts_as_if_66(const struct sample *sample)
{
    struct sample other = *sample;
    struct insn in = {0};
    if (sample->map == ONE || !sample->address_size || !(sample->rex & 8) || sample->operand_size)
        return NULL;
    *(uint8_t *)memchr(other.bytes, 0x67, other.prefixes) = 0x66;
    return decode(other.bytes, other.size, other.mode, &in) == DECODE_OK
               ? "Capstone takes 67 with REX.W for the mandatory prefix 66"
               : NULL;
}

static const char *accepts(const struct sample *sample)
{
    static const char *(*const rows[])(const struct sample *) = {
        accepts_foreign, accepts_register_number, accepts_lock, accepts_mandatory_prefix, accepts_as_if_66,
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *reason = rows[i](sample);
        if (reason)
            return reason;
    }
    return NULL;
}

// --- Capstone refuses what we accept ---

static const char *refuses_hint(const struct sample *sample)
{
    if (sample->map == M0F && sample->opcode == 0x0D)
        return "PREFETCHW, PREFETCHWT1: Capstone knows 0F 0D /0 and /1 only with 3DNow!";
    if (sample->map == M0F && 0x18 <= sample->opcode && sample->opcode <= 0x1F && modrm_is_register(sample))
        return "hint NOPs 0F 18 to 0F 1F have register forms (SDM 2 table A-3)";
    return NULL;
}

static const char *refuses_fence(const struct sample *sample)
{
    bool fence = sample->map == M0F && sample->opcode == 0xAE && sample->modrm >= 0xE8;
    return fence && (sample->modrm & 7) ? "LFENCE, MFENCE, SFENCE ignore ModRM.rm" : NULL;
}

static const char *refuses_segment_register(const struct sample *sample)
{
    bool segment = sample->map == ONE && (sample->opcode == 0x8C || sample->opcode == 0x8E);
    return segment && (sample->rex & 4) ? "REX.R does not extend a segment register number" : NULL;
}

static const char *refuses_mandatory_prefix(const struct sample *sample)
{
    if (sample->map == ONE || sample->map == VECTOR || !(sample->operand_size || sample->repeat))
        return NULL;
    if (sample->mode == MODE_CODE16 || sample->prefixes > (sample->rex ? 2u : 1u) || (sample->rex & 8))
        return "Capstone loses a mandatory prefix in 16-bit code, beside REX.W and beside another prefix";
    return NULL;
}

static const char *refuses_ud0(const struct sample *sample)
{
    return sample->map == M0F && sample->opcode == 0xFF ? "Capstone knows UD0 only without prefixes" : NULL;
}

static const char *refuses_moffs(const struct sample *sample)
{
    bool moffs = sample->map == ONE && (sample->opcode & 0xFC) == 0xA0;
    return moffs && sample->operand_size && sample->repeat ? "Capstone loses 66 beside F2, F3 or REX" : NULL;
}

static const char *refuses(const struct sample *sample)
{
    static const char *(*const rows[])(const struct sample *) = {
        refuses_hint, refuses_fence, refuses_segment_register, refuses_mandatory_prefix, refuses_ud0, refuses_moffs,
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *reason = rows[i](sample);
        if (reason)
            return reason;
    }
    return NULL;
}

// --- Capstone accepts with another length ---

static bool is_near_branch(const struct sample *sample)
{
    return sample->map == M0F ? (sample->opcode & 0xF0) == 0x80 : sample->map == ONE && (sample->opcode & 0xFE) == 0xE8;
}

static const char *has_other_length(const struct sample *sample)
{
    if (sample->map == M0F && (sample->opcode == 0xB9 || sample->opcode == 0xFF))
        return "UD0, UD1 have a ModRM byte (SDM 2 \"UD - Undefined Instruction\")";
    if (sample->mode == MODE_CODE64 && is_near_branch(sample) && sample->operand_size)
        return "near branches ignore 66 in 64-bit mode (SDM 2 \"Jcc\"); Capstone does as AMD";
    if (sample->operand_size && (sample->repeat || sample->rex))
        return "Capstone loses 66 beside F2, F3 or REX";
    if (sample->address_size && (sample->rex & 8))
        return "Capstone takes 67 with REX.W for 66";
    return NULL;
}

bool capstone_agrees(enum decode_status status, const struct insn *in, struct capstone_answer answer)
{
    return answer.valid ? status == DECODE_OK && in->length == answer.length : status != DECODE_OK;
}

const char *capstone_deviation(const uint8_t *bytes, unsigned available, unsigned mode, enum decode_status status,
                               const struct insn *in, struct capstone_answer answer)
{
    struct sample sample = {.mode = mode, .size = available < INSN_MAX_LENGTH ? available : INSN_MAX_LENGTH};
    memcpy(sample.bytes, bytes, sample.size);
    if (!parse(&sample))
        return NULL;
    // Another length is a refusal or an acceptance where the bytes, or the 15 that count, end in between.
    if (!answer.valid) {
        const char *reason = refuses(&sample);
        return reason || in->length + 2u <= sample.size ? reason : has_other_length(&sample);
    }
    return status == DECODE_OK || status == DECODE_TOO_LONG ? has_other_length(&sample) : accepts(&sample);
}
