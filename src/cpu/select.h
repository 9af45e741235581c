// What the block builder asks about instructions: handlers, and how they treat the arithmetic flags.
#ifndef VMXON_CPU_SELECT_H
#define VMXON_CPU_SELECT_H

#include "cpu/insn.h"

// How an instruction treats the arithmetic flags, as far as leaving flags uncomputed is concerned.
enum flag_use {
    FLAGS_OBSERVED,    // it, or whatever can happen at it (faults, leaving the block), may look at all flags
    FLAGS_UNTOUCHED,   // cannot fault, reads and writes none
    FLAGS_OVERWRITTEN, // cannot fault, reads none and writes all
    FLAGS_CHANGED,     // cannot fault, writes some or passes old values on; without its flags it reads none
    FLAGS_USED,        // cannot fault, reads some for its result and writes all
};
enum flag_use select_flag_use(const struct insn *in);

// Turns register-to-register forms with to_reg = 1 round, so that rm is the destination.
void select_normalize(struct insn *in);

// Jcc, JMP and CALL with a displacement and an operand size other than 16 bits.
bool select_is_direct_branch(const struct insn *in);
bool select_is_reference(unsigned op); // the op has no native handler
bool select_is_repeated_string(const struct insn *in);

// The handler of a direct branch whose target is in its page (imm, disp: offsets from the block's start of the target and of
// the next instruction). NULL: none.
exec_fn *select_linked(const struct insn *in, unsigned mode);
// The handler that does `in` and the linked conditional branch after it. NULL: none.
exec_fn *select_fused(const struct insn *in, const struct insn *branch);

#endif
