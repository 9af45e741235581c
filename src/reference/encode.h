// Rewrites an instruction so that its memory operand lies at a fixed address.
#ifndef VMXON_REFERENCE_ENCODE_H
#define VMXON_REFERENCE_ENCODE_H

#include "cpu/insn.h"

enum { ENCODE_MAX = 24 }; // bytes of a rewritten instruction at most

// Copies the `in->length` bytes of an instruction with a ModRM memory operand to `out`, its operand moved to `address` (an offset in a
// segment with base 0; below 64 KiB for mode 16), without segment and address-size prefixes. Returns the new length.
// Instructions without FORM_MEM are copied as they are.
unsigned encode_moved(const struct insn *in, const uint8_t *bytes, unsigned code_mode, uint32_t address, uint8_t out[ENCODE_MAX]);

#endif
