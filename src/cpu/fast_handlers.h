// Names of the specialised handlers: fast_<op>_<KIND>_<size>_<variant>, declared from the rows of handlers.def.
//
// Every row has two variants. Register kinds: 0 computes the flags, 1 leaves them. Memory kinds: enum insn_address.
#ifndef VMXON_CPU_FAST_HANDLERS_H
#define VMXON_CPU_FAST_HANDLERS_H

#include "cpu/insn.h"

#define DECLARE(op, kind, size)        exec_fn fast_##op##_##kind##_##size##_0, fast_##op##_##kind##_##size##_1;
#define DECLARE_2(op, kind)            DECLARE(op, kind, 2) DECLARE(op, kind, 3)
#define DECLARE_4(op, kind)            DECLARE(op, kind, 0) DECLARE(op, kind, 1) DECLARE_2(op, kind)
#define ALU(op, kind)                  DECLARE_4(op, kind)
#define UNARY(op, kind)                DECLARE_4(op, kind)
#define MOVE(op, kind)                 DECLARE_4(op, kind)
#define SHIFT(op, kind)                DECLARE_4(op, kind)
#define EXTEND(op, kind, size, source) DECLARE(op, kind##source, size)
#define IMUL(op, kind)                 DECLARE_2(op, kind)
#define LEA(op, kind)                  DECLARE_2(op, kind)
#define CONDITION(code, jcc, setcc, cmovcc) \
    DECLARE(setcc, R, 0) DECLARE_2(cmovcc, RR) DECLARE_2(cmovcc, RM) exec_fn linked_##jcc;
#define STACK(op, kind, size) DECLARE(op, kind, size)
#include "cpu/handlers.def"

// Direct branches within a page. CALL by the size of stack and return address.
exec_fn linked_JMP, linked_CALL_2, linked_CALL_3;
exec_fn fast_CALL_3, fast_CALL_IND_R_3, fast_JMP_IND_R_3, fast_JMP_IND_M_3_0, fast_JMP_IND_M_3_1, fast_RET_2,
    fast_RET_3;
// [op, KIND, size of FUSE][condition code]
#define FUSE(op, kind, size) extern exec_fn *const fused_##op##_##kind##_##size[16];
#include "cpu/handlers.def"

#undef DECLARE
#undef DECLARE_2
#undef DECLARE_4

#endif
