// Where the parts of an encoded instruction are, and rewriting it so that its memory operand lies at a fixed address.
#ifndef VMXON_REFERENCE_ENCODE_H
#define VMXON_REFERENCE_ENCODE_H

#include "cpu/insn.h"

enum { ENCODE_MAX = 24 }; // bytes of a rewritten instruction at most

// Offsets in bytes from the start of the instruction.
struct encode_layout {
    unsigned prefixes; // number of legacy prefixes: the offset of what follows them
    unsigned opcode;   // of the last opcode byte
    unsigned map;      // 1: one-byte opcodes, 2: 0F, 3: 0F 38, 4: 0F 3A
    unsigned operand;  // of what follows the opcode: ModRM, moffs, an immediate
};
struct encode_layout encode_find(const struct insn *in, const uint8_t *bytes, unsigned code_mode);

// True if `prefix` (66, F2, F3...) is among the legacy prefixes.
bool encode_has_prefix(const struct encode_layout *layout, const uint8_t *bytes, uint8_t prefix);

// The displacement field of a memory operand. Returns its size in bytes (0: none) and its offset. moffs: the whole offset.
unsigned encode_displacement(const struct insn *in, const uint8_t *bytes, unsigned code_mode, unsigned *offset);

// Copies the `in->length` bytes of an instruction with a memory operand to `out`, its operand moved to `address` (an offset in a
// segment with base 0; 64-bit code: sign-extended; 16-bit code: the low 16 bits), without segment and address-size prefixes. Returns the new
// length. Instructions without memory operand, and LEA, are copied as they are.
unsigned encode_moved(const struct insn *in, const uint8_t *bytes, unsigned code_mode, uint32_t address,
                      uint8_t out[ENCODE_MAX]);

// The same for an instruction whose ModRM.rm names a register: its operand becomes memory.
unsigned encode_in_memory(const struct insn *in, const uint8_t *bytes, unsigned code_mode, uint32_t address,
                          uint8_t out[ENCODE_MAX]);

#endif
