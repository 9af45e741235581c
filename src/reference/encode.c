// Rewriting ModRM addressing forms (SDM 2, 2.1 "Instruction Format").
//
//   legacy prefixes | REX or VEX | opcode | ModRM | SIB | displacement | immediate
//                                          \_______ replaced ________/
#include "reference/encode.h"

#include <string.h>

static bool is_dropped_prefix(uint8_t byte)
{
    switch (byte) {
    case 0x26: case 0x2E: case 0x36: case 0x3E: case 0x64: case 0x65: case 0x67: return true;
    default: return false;
    }
}

static bool is_legacy_prefix(uint8_t byte)
{
    return is_dropped_prefix(byte) || byte == 0x66 || byte == 0xF0 || byte == 0xF2 || byte == 0xF3;
}

// Bytes of SIB and displacement that follow a ModRM byte with mod != 3.
static unsigned address_bytes(const uint8_t *modrm, unsigned addr_log2)
{
    unsigned mod = modrm[0] >> 6, rm = modrm[0] & 7;
    if (addr_log2 == 1)
        return mod == 0 ? (rm == 6 ? 2 : 0) : mod;
    unsigned sib = rm == 4;
    unsigned base = sib ? modrm[1] & 7 : rm;
    if (mod == 0)
        return sib + (base == 5 ? 4 : 0);
    return sib + (mod == 1 ? 1 : 4);
}

unsigned encode_moved(const struct insn *in, const uint8_t *bytes, unsigned code_mode, uint32_t address, uint8_t out[ENCODE_MAX])
{
    unsigned from = 0, to = 0;
    if (in->form != FORM_MEM) {
        memcpy(out, bytes, in->length);
        return in->length;
    }
    for (; from < in->length && is_legacy_prefix(bytes[from]); from++) {
        if (!is_dropped_prefix(bytes[from]))
            out[to++] = bytes[from];
    }
    if (in->vex && bytes[from] == 0xC4) {
        // X and B are stored inverted: 1 means the base and index extension is 0.
        memcpy(out + to, bytes + from, 4);
        out[to + 1] |= 0x60;
        from += 4, to += 4;
    } else if (in->vex) {
        memcpy(out + to, bytes + from, 3);
        from += 3, to += 3;
    } else {
        if (code_mode == MODE_CODE64 && (bytes[from] & 0xF0) == 0x40)
            out[to++] = bytes[from++] & 0xFC; // without REX.X and REX.B
        if (bytes[from] == 0x0F) {
            out[to++] = bytes[from++];
            if (bytes[from] == 0x38 || bytes[from] == 0x3A)
                out[to++] = bytes[from++];
        }
        out[to++] = bytes[from++];
    }
    unsigned reg = bytes[from] & 0x38;
    from += 1 + address_bytes(bytes + from, in->addr_log2);
    switch (code_mode) {
    case MODE_CODE64:
        out[to++] = (uint8_t)(reg | 4); // SIB without base and index, disp32
        out[to++] = 0x25;
        memcpy(out + to, &address, 4);
        to += 4;
        break;
    case MODE_CODE32:
        out[to++] = (uint8_t)(reg | 5);
        memcpy(out + to, &address, 4);
        to += 4;
        break;
    default:
        out[to++] = (uint8_t)(reg | 6);
        memcpy(out + to, &address, 2);
        to += 2;
        break;
    }
    memcpy(out + to, bytes + from, in->length - from);
    return to + in->length - from;
}
