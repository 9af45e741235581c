// Rewriting addressing forms (SDM 2 2.1 "Instruction Format").
//
//   legacy prefixes | REX or VEX | opcode | ModRM | SIB | displacement | immediate
//                                          \_______ replaced ________/
#include "reference/encode.h"

#include <string.h>

static bool is_dropped_prefix(uint8_t byte)
{
    switch (byte) {
    case 0x26:
    case 0x2E:
    case 0x36:
    case 0x3E:
    case 0x64:
    case 0x65:
    case 0x67: return true;
    default: return false;
    }
}

static bool is_legacy_prefix(uint8_t byte)
{
    return is_dropped_prefix(byte) || byte == 0x66 || byte == 0xF0 || byte == 0xF2 || byte == 0xF3;
}

static bool is_rex(uint8_t byte, unsigned code_mode) { return code_mode == MODE_CODE64 && (byte & 0xF0) == 0x40; }

struct encode_layout encode_find(const struct insn *in, const uint8_t *bytes, unsigned code_mode)
{
    struct encode_layout layout = {.map = 1};
    unsigned at = 0;
    // A REX prefix that is not the last prefix is ignored by the processor (SDM 2 2.2.1); it counts as one of the legacy prefixes here.
    while (at < in->length &&
           (is_legacy_prefix(bytes[at]) || (is_rex(bytes[at], code_mode) && at + 1 < in->length &&
                                            (is_legacy_prefix(bytes[at + 1]) || is_rex(bytes[at + 1], code_mode)))))
        at++;
    layout.prefixes = at;
    if (in->vex) {
        layout.map = bytes[at] == 0xC4 ? 1 + (bytes[at + 1] & 3u) : 2;
        at += bytes[at] == 0xC4 ? 3 : 2;
    } else {
        if (is_rex(bytes[at], code_mode))
            at++;
        if (bytes[at] == 0x0F) {
            at++;
            layout.map = bytes[at] == 0x38 ? 3 : bytes[at] == 0x3A ? 4 : 2;
            if (layout.map != 2)
                at++;
        }
    }
    layout.opcode = at;
    layout.operand = at + 1;
    return layout;
}

bool encode_has_prefix(const struct encode_layout *layout, const uint8_t *bytes, uint8_t prefix)
{
    return memchr(bytes, prefix, layout->prefixes) != NULL;
}

// Bytes of displacement that a ModRM byte with mod != 3 asks for.
static unsigned displacement_bytes(const uint8_t *modrm, unsigned addr_log2)
{
    unsigned mod = modrm[0] >> 6, rm = modrm[0] & 7;
    if (addr_log2 == 1)
        return mod == 0 ? (rm == 6 ? 2 : 0) : mod;
    unsigned base = rm == 4 ? modrm[1] & 7 : rm;
    if (mod == 0)
        return base == 5 ? 4 : 0;
    return mod == 1 ? 1 : 4;
}

static unsigned sib_bytes(const uint8_t *modrm, unsigned addr_log2) { return addr_log2 != 1 && (modrm[0] & 7) == 4; }

unsigned encode_displacement(const struct insn *in, const uint8_t *bytes, unsigned code_mode, unsigned *offset)
{
    struct encode_layout layout = encode_find(in, bytes, code_mode);
    *offset = layout.operand;
    if (in->moffs)
        return 1u << in->addr_log2;
    if (in->form != FORM_MEM)
        return 0;
    const uint8_t *modrm = bytes + layout.operand;
    *offset += 1 + sib_bytes(modrm, in->addr_log2);
    return displacement_bytes(modrm, in->addr_log2);
}

// ModRM (but for `reg`, its bits 5:3), SIB and displacement of an absolute address. Returns their length.
static unsigned put_absolute(uint8_t *out, unsigned reg, uint32_t address, unsigned code_mode)
{
    switch (code_mode) {
    case MODE_CODE64: // with SIB, base and index none: without SIB it would be RIP-relative
        out[0] = (uint8_t)(reg | 4);
        out[1] = 0x25;
        memcpy(out + 2, &address, 4);
        return 6;
    case MODE_CODE32:
        out[0] = (uint8_t)(reg | 5);
        memcpy(out + 1, &address, 4);
        return 5;
    default:
        out[0] = (uint8_t)(reg | 6);
        memcpy(out + 1, &address, 2);
        return 3;
    }
}

unsigned encode_moved(const struct insn *in, const uint8_t *bytes, unsigned code_mode, uint32_t address,
                      uint8_t out[ENCODE_MAX])
{
    if (in->form == FORM_MEM && in->op != OP_LEA)
        return encode_in_memory(in, bytes, code_mode, address, out);
    memcpy(out, bytes, in->length);
    return in->length;
}

unsigned encode_in_memory(const struct insn *in, const uint8_t *bytes, unsigned code_mode, uint32_t address,
                          uint8_t out[ENCODE_MAX])
{
    struct encode_layout layout = encode_find(in, bytes, code_mode);
    unsigned from = layout.prefixes, to = 0;
    for (unsigned i = 0; i < layout.prefixes; i++) {
        if (!is_dropped_prefix(bytes[i]) && !is_rex(bytes[i], code_mode))
            out[to++] = bytes[i];
    }
    uint8_t *encoding = out + to;
    memcpy(encoding, bytes + from, layout.operand - from);
    to += layout.operand - from;
    // No index or base register of the operand is extended any more. VEX stores X and B inverted.
    if (in->vex && encoding[0] == 0xC4)
        encoding[1] |= 0x60;
    else if (!in->vex && is_rex(encoding[0], code_mode))
        encoding[0] &= 0xFC;
    if (in->moffs) {
        const unsigned size = 2u << code_mode;
        const int64_t extended = (int32_t)address;
        memcpy(out + to, &extended, size);
        return to + size;
    }
    const uint8_t *modrm = bytes + layout.operand;
    from = layout.operand + 1;
    if (in->form == FORM_MEM)
        from += sib_bytes(modrm, in->addr_log2) + displacement_bytes(modrm, in->addr_log2);
    to += put_absolute(out + to, modrm[0] & 0x38, address, code_mode);
    memcpy(out + to, bytes + from, in->length - from);
    return to + in->length - from;
}
