// Declarations of all handlers named in op_handlers*.def, and the choice of a handler for a decoded instruction.
#ifndef VMXON_CPU_HANDLERS_H
#define VMXON_CPU_HANDLERS_H

#include "cpu/insn.h"

#define HANDLER(op, function) exec_fn function;
#define REFERENCE(op)
#include "cpu/op_handlers.def"
#include "cpu/op_handlers_sse.def"
#include "cpu/op_handlers_system.def"
#undef HANDLER
#undef REFERENCE

// Runs an instruction that has no native handler through cpu->env.reference.
exec_fn exec_reference;

// The handler that does the op in every form, by enum op.
extern exec_fn *const op_handler[OP_COUNT];

// The best handler for the instruction in blocks of `mode` (enum code_mode bits).
exec_fn *select_handler(const struct insn *in, unsigned mode);

#endif
