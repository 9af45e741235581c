// Properties of operations and of decoded instructions, all taken from the rows of opcodes.def.
#include "base/assert.h"
#include "cpu/decode_table.h"

static const char *const op_names[OP_COUNT] = {
#define OP(name, mnemonic) [OP_##name] = mnemonic,
#include "cpu/ops.def"
#undef OP
};

const char *op_name(unsigned op) { return op < OP_COUNT ? op_names[op] : "?"; }

static const struct opcode_row *row_of_op(unsigned op)
{
    ASSERT(op < OP_COUNT, "operations come from enum op");
    return &opcode_rows[opcode_of_op[op]];
}

enum op_class op_class(unsigned op)
{
    uint32_t flags = row_of_op(op)->flags;
    return flags & ROW_SSE   ? OP_CLASS_SSE
           : flags & ROW_MMX ? OP_CLASS_MMX
           : flags & ROW_X87 ? OP_CLASS_X87
           : flags & ROW_SYS ? OP_CLASS_SYSTEM
           : flags & ROW_BR  ? OP_CLASS_BRANCH
           : flags & ROW_VMX ? OP_CLASS_VMX
                             : OP_CLASS_INTEGER;
}

bool op_ends_block(unsigned op) { return (row_of_op(op)->flags & (ROW_SYS | ROW_BR | ROW_VMX)) != 0; }

// The row of the instruction itself where one op stands for many encodings, else a row of its op.
static const struct opcode_row *row_of(const struct insn *in)
{
    const struct opcode_row *row = row_of_op(in->op);
    if (row->flags & ROW_ROWNO) {
        uint64_t number = (uint64_t)in->imm >> 16;
        ASSERT(number < opcode_row_count && opcode_rows[number].op == in->op,
               "imm holds the row the decoder put there");
        return &opcode_rows[number];
    }
    if (row->flags & ROW_X87) {
        unsigned modrm = (unsigned)in->imm & 0xFF, escape = 0xD8 | ((unsigned)in->imm >> 8 & 7);
        row = opcode_find(&opcode_rows[opcode_last[MAP_ONE * 256 + escape]], OPCODE_NP,
                          modrm < 0xC0 ? modrm & 0x3F : modrm, 0);
        ASSERT(row, "imm holds an x87 opcode that was decoded");
    }
    return row;
}

unsigned op_memory_size(const struct insn *in)
{
    if (in->form != FORM_MEM)
        return 0;
    const struct opcode_row *row = row_of(in);
    unsigned size = 1u << in->size_log2;
    if ((row->flags & ROW_SRC) && row->memory)
        return (unsigned)in->imm;
    switch (row->memory) {
    case MEMORY_V: return size;
    case MEMORY_A: return 2 * size;
    case MEMORY_P: return size + 2;
    case MEMORY_S: return in->size_log2 == 3 ? 10 : 6;
    case MEMORY_ENV: return in->size_log2 == 1 ? 14 : 28;
    case MEMORY_SAVE: return in->size_log2 == 1 ? 94 : 108;
    case MEMORY_FX: return 512;
    case MEMORY_XS: return 576;
    default: return row->memory;
    }
}

bool op_memory_read(const struct insn *in)
{
    if (!op_memory_size(in))
        return false;
    uint32_t flags = row_of(in)->flags;
    return in->to_reg || !(flags & ROW_W) || (flags & ROW_R);
}

bool op_memory_written(const struct insn *in)
{
    if (!op_memory_size(in))
        return false;
    uint32_t flags = row_of(in)->flags;
    return (flags & ROW_BOTH) || (!in->to_reg && (flags & ROW_W));
}
