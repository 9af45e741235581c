// The choice of a handler for each instruction, when its block is built.
#include "cpu/select.h"

#include "base/assert.h"
#include "cpu/exec_fast.h"
#include "cpu/fast_handlers.h"

// ---- One handler for every op: a missing row, or two, do not compile ----

enum {
#define HANDLER(op, function) HAS_ROW_##op,
#define REFERENCE(op)         HAS_ROW_##op,
#include "cpu/op_handlers.def"
#include "cpu/op_handlers_sse.def"
#include "cpu/op_handlers_system.def"
#undef HANDLER
#undef REFERENCE
};
#define OP(name, mnemonic) static_assert(HAS_ROW_##name >= 0, "a row of op_handlers*.def is missing");
#include "cpu/ops.def"
#undef OP

exec_fn *const op_handler[OP_COUNT] = {
#define HANDLER(op, function) [OP_##op] = function,
#define REFERENCE(op)         [OP_##op] = exec_reference,
#include "cpu/op_handlers.def"
#include "cpu/op_handlers_sse.def"
#include "cpu/op_handlers_system.def"
#undef HANDLER
#undef REFERENCE
};

bool select_is_reference(unsigned op) { return op_handler[op] == exec_reference; }

bool select_is_repeated_string(const struct insn *in)
{
    return op_handler[in->op] == exec_string && (in->flags & (INSN_REP | INSN_REPNE));
}

// ---- Specialised handlers ----

#define KEY(op, kind, size) ((unsigned)(op) << 6 | (unsigned)(kind) << 2 | (unsigned)(size))
#define CASE(op, kind, name, size)                                                                              \
    case KEY(OP_##op, KIND_##kind, size): {                                                                     \
        static exec_fn *const variants[2] = {fast_##op##_##name##_##size##_0, fast_##op##_##name##_##size##_1}; \
        return variants;                                                                                        \
    }
#define CASE_2(op, kind) CASE(op, kind, kind, 2) CASE(op, kind, kind, 3)
#define CASE_4(op, kind) CASE(op, kind, kind, 0) CASE(op, kind, kind, 1) CASE_2(op, kind)

// The two variants of the row of handlers.def, or NULL.
static exec_fn *const *find_row(unsigned op, enum insn_kind kind, unsigned size)
{
    switch (KEY(op, kind, size)) {
#define ALU(op, kind)                       CASE_4(op, kind)
#define UNARY(op, kind)                     CASE_4(op, kind)
#define MOVE(op, kind)                      CASE_4(op, kind)
#define SHIFT(op, kind)                     CASE_4(op, kind)
#define IMUL(op, kind)                      CASE_2(op, kind)
#define LEA(op, kind)                       CASE_2(op, kind)
#define CONDITION(code, jcc, setcc, cmovcc) CASE(setcc, R, R, 0) CASE_2(cmovcc, RR) CASE_2(cmovcc, RM)
#define STACK(op, kind, size)               CASE(op, kind, kind, size)
#include "cpu/handlers.def"
    case KEY(OP_JMP_IND, KIND_M, 3): {
        static exec_fn *const variants[2] = {fast_JMP_IND_M_3_0, fast_JMP_IND_M_3_1};
        return variants;
    }
    default: return NULL;
    }
}

// The same for the rows EXTEND, by the size of the source in bytes.
static exec_fn *const *find_extend_row(unsigned op, enum insn_kind kind, unsigned size, unsigned source)
{
    switch (KEY(op, kind, size) << 2 | source >> 1) {
#define EXTEND(op, kind, size, source)                                                 \
    case KEY(OP_##op, KIND_##kind, size) << 2 | (1u << (source)) >> 1: {               \
        static exec_fn *const variants[2] = {fast_##op##_##kind##source##_##size##_0,  \
                                             fast_##op##_##kind##source##_##size##_1}; \
        return variants;                                                               \
    }
#include "cpu/handlers.def"
    default: return NULL;
    }
}

#undef CASE
#undef CASE_2
#undef CASE_4
#undef KEY

static bool is_extension(unsigned op) { return op == OP_MOVZX || op == OP_MOVSX || op == OP_MOVSXD; }
static bool is_alu(unsigned op) { return op <= OP_TEST; }
static_assert(OP_ADD == 0 && OP_TEST == 8, "is_alu counts on the order of ops.def");
static bool is_shift(unsigned op) { return op >= OP_ROL && op <= OP_SAR; }
static bool is_condition(unsigned op, unsigned first) { return op >= first && op < first + 16; }

// Masked count of a shift by an immediate.
static unsigned shift_count(const struct insn *in) { return (unsigned)in->imm & (in->size_log2 == 3 ? 63 : 31); }

// Operands of the instruction as handlers.def names them.
static enum insn_kind kind_of(const struct insn *in)
{
    unsigned op = in->op;
    bool memory = in->form == FORM_MEM;
    if (in->form == FORM_NONE)
        return in->has_imm ? KIND_I : KIND_NONE;
    if (is_alu(op) || op == OP_MOV || op == OP_XCHG) {
        if (in->has_imm)
            return memory ? KIND_MI : KIND_RI;
        if (!memory)
            return KIND_RR;
        return in->to_reg ? KIND_RM : KIND_MR;
    }
    if (is_shift(op) && (memory || !in->has_imm))
        return memory ? KIND_M : KIND_RC;
    if (is_shift(op))
        return shift_count(in) ? KIND_RI : KIND_NONE;
    if (is_extension(op) || op == OP_IMUL2 || op == OP_IMUL3 || is_condition(op, OP_CMOVO))
        return memory ? KIND_RM : KIND_RR;
    return memory ? KIND_M : KIND_R;
}

static bool kind_is_memory(enum insn_kind kind)
{
    return kind == KIND_RM || kind == KIND_MR || kind == KIND_MI || kind == KIND_M;
}

void select_normalize(struct insn *in)
{
    if (in->form != FORM_REG || !in->to_reg || !(is_alu(in->op) || in->op == OP_MOV))
        return;
    uint8_t source = in->rm;
    in->rm = in->reg;
    in->reg = source;
    in->to_reg = 0;
}

// The variant for a memory operand, or -1: only the general handler will do.
static int memory_variant(const struct insn *in, unsigned mode)
{
    bool code64 = (mode & MODE_CODE_MASK) == MODE_CODE64;
    bool based =
        in->segment >= SEG_FS || (in->segment == SEG_CS && !code64); // MODE_FLAT does not promise a writable CS
    bool address_only = in->op == OP_LEA;
    if (in->moffs || (in->flags & INSN_RIP_WRAP))
        return -1;
    if (!address_only && (!(mode & MODE_FLAT) || (based && !code64)))
        return -1;
    bool plain = in->addr_log2 == 3 && in->index == REG_NONE && (address_only || !based);
    return plain ? ADDRESS_BASE : ADDRESS_GENERAL;
}

// PUSH, POP, LEAVE, RET, CALL: the fast handlers need flat stacks as wide as the operand.
static bool fast_stack(const struct insn *in, unsigned mode)
{
    unsigned stack = mode & MODE_STACK64 ? MODE_STACK64 : mode & MODE_STACK32;
    return (mode & MODE_FLAT) &&
           ((stack == MODE_STACK64 && in->size_log2 == 3) || (stack == MODE_STACK32 && in->size_log2 == 2));
}

static exec_fn *select_branch_handler(const struct insn *in, unsigned mode)
{
    bool wide = in->size_log2 == 3 && fast_stack(in, mode), reg = in->form == FORM_REG;
    switch (in->op) {
    case OP_RET: return !fast_stack(in, mode) ? NULL : wide ? fast_RET_3 : fast_RET_2;
    case OP_CALL: return wide ? fast_CALL_3 : NULL;
    case OP_CALL_IND: return wide && reg ? fast_CALL_IND_R_3 : NULL;
    case OP_JMP_IND: return wide && reg ? fast_JMP_IND_R_3 : NULL;
    default: return NULL;
    }
}

exec_fn *select_handler(const struct insn *in, unsigned mode)
{
    exec_fn *general = op_handler[in->op], *branch = select_branch_handler(in, mode);
    if (branch)
        return branch;
    if ((in->op == OP_PUSH || in->op == OP_POP || in->op == OP_LEAVE) && !fast_stack(in, mode))
        return general;
    enum insn_kind kind = kind_of(in);
    exec_fn *const *row = is_extension(in->op) ? find_extend_row(in->op, kind, in->size_log2, (unsigned)in->imm)
                                               : find_row(in->op, kind, in->size_log2);
    if (!row)
        return general;
    if (!kind_is_memory(kind))
        return row[(in->flags & INSN_NO_FLAGS) != 0];
    int variant = memory_variant(in, mode);
    return variant < 0 ? general : row[variant];
}

// ---- Branches ----

bool select_is_direct_branch(const struct insn *in)
{
    return (is_condition(in->op, OP_JO) || in->op == OP_JMP || in->op == OP_CALL) && in->size_log2 != 1;
}

exec_fn *select_linked(const struct insn *in, unsigned mode)
{
    switch (in->op) {
    case OP_JMP: return linked_JMP;
    case OP_CALL: return !fast_stack(in, mode) ? NULL : in->size_log2 == 3 ? linked_CALL_3 : linked_CALL_2;
#define CONDITION(code, jcc, setcc, cmovcc) \
    case OP_##jcc: {                        \
        return linked_##jcc;                \
    }
#include "cpu/handlers.def"
    default: return NULL;
    }
}

exec_fn *select_fused(const struct insn *in, const struct insn *branch)
{
    if (!is_condition(branch->op, OP_JO))
        return NULL;
    unsigned code = (unsigned)branch->op - OP_JO;
    enum insn_kind kind = kind_of(in);
#define FUSE(op_, kind_, size_)                                                 \
    if (in->op == OP_##op_ && kind == KIND_##kind_ && in->size_log2 == (size_)) \
        return fused_##op_##_##kind_##_##size_[code];
#include "cpu/handlers.def"
    return NULL;
}

// ---- Flags ----

// Two- and one-operand instructions on registers that cannot fault.
static bool is_register_only(const struct insn *in) { return in->form == FORM_REG || in->op == OP_LEA; }

static enum flag_use flag_use_of_shift(const struct insn *in)
{
    if (in->op == OP_RCL || in->op == OP_RCR)
        return FLAGS_OBSERVED;
    bool rotate = in->op == OP_ROL || in->op == OP_ROR;
    return !rotate && in->has_imm && shift_count(in) ? FLAGS_OVERWRITTEN : FLAGS_CHANGED;
}

enum flag_use select_flag_use(const struct insn *in)
{
    if (in->op == OP_NOP || in->op == OP_CBW || in->op == OP_CWD)
        return FLAGS_UNTOUCHED;
    if (!is_register_only(in) || in->exec)
        return FLAGS_OBSERVED;
    switch (in->op) {
    case OP_ADC:
    case OP_SBB: return FLAGS_USED;
    case OP_ADD:
    case OP_OR:
    case OP_AND:
    case OP_SUB:
    case OP_XOR:
    case OP_CMP:
    case OP_TEST:
    case OP_NEG: return FLAGS_OVERWRITTEN;
    case OP_INC:
    case OP_DEC: return FLAGS_CHANGED;
    case OP_ROL:
    case OP_ROR:
    case OP_RCL:
    case OP_RCR:
    case OP_SHL:
    case OP_SHR:
    case OP_SAR: return flag_use_of_shift(in);
    case OP_IMUL2:
    case OP_IMUL3: return in->size_log2 >= 2 ? FLAGS_OVERWRITTEN : FLAGS_OBSERVED;
    case OP_MOV:
    case OP_MOVZX:
    case OP_MOVSX:
    case OP_MOVSXD:
    case OP_LEA:
    case OP_NOT:
    case OP_XCHG:
    case OP_BSWAP: return FLAGS_UNTOUCHED;
    default: return FLAGS_OBSERVED;
    }
}
