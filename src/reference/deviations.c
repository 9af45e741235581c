#include "reference/deviations.h"

#include <string.h>

#include "cpu/mxcsr.h"

static const struct {
    unsigned op;
    const char *reason;
} rows[] = {
#define DEVIATION(first, last, condition, reason) {OP_##first, reason},
#include "reference/deviations.def"
#undef DEVIATION
};

unsigned deviation_count(void) { return sizeof rows / sizeof rows[0]; }
unsigned deviation_op(unsigned row) { return rows[row].op; }
const char *deviation_reason(unsigned row) { return rows[row].reason; }

int deviation_find(const struct lockstep *step, const struct difference *difference)
{
    int row = 0;
#define DEVIATION(first, last, condition, reason)                             \
    if (step->in.op >= OP_##first && step->in.op <= OP_##last && (condition)) \
        return row;                                                           \
    row++;
#include "reference/deviations.def"
#undef DEVIATION
    return -1;
}

bool differ_flags(const struct difference *difference, uint64_t flags)
{
    return difference->kind == DIFFERENT_FLAGS && ((difference->ours ^ difference->theirs) & ~flags) == 0;
}

bool differ_x87_status(const struct difference *difference)
{
    return difference->kind == DIFFERENT_X87 && difference->index == X87_STATUS &&
           ((difference->ours ^ difference->theirs) & ~0x82FFull) == 0;
}

bool x87_is_approximate(const struct lockstep *step)
{
    if (step->in.op != OP_X87 || step->in.form != FORM_REG || (step->in.imm >> 8 & 7) != 1)
        return false;
    switch (step->in.imm & 0xFF) {
    case 0xF0:
    case 0xF1:
    case 0xF2:
    case 0xF3:
    case 0xF5:
    case 0xF8:
    case 0xF9:
    case 0xFA:
    case 0xFB:
    case 0xFE:
    case 0xFF: return true;
    default: return false;
    }
}

bool differ_exception(const struct difference *difference) { return difference->kind == DIFFERENT_EXCEPTION; }

// 16 bytes of the second operand of an SSE instruction; what memory does not give is 0.
static void get_source(const struct lockstep *step, uint8_t *source)
{
    memset(source, 0, 16);
    if (step->in.form == FORM_MEM)
        memcpy(source, step->before.memory + step->operand,
               op_memory_size(&step->in) < 16 ? op_memory_size(&step->in) : 16);
    else
        memcpy(source, &step->before.xmm[step->in.rm & 15], 16);
}

static bool is_nan(const uint8_t *bytes, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, bytes, size);
    return size == 4 ? (value & 0x7FFFFFFF) > 0x7F800000 : (value & 0x7FFFFFFFFFFFFFFF) > 0x7FF0000000000000;
}

bool nans_meet(const struct lockstep *step)
{
    uint8_t operands[2][16];
    const char *name = op_name(step->in.op);
    const unsigned size = name[strlen(name) - 1] == 's' ? 4 : 8; // ADDPS, ADDSD
    const bool horizontal = name[0] == 'h';
    memcpy(operands[0], &step->before.xmm[step->in.reg & 15], 16);
    get_source(step, operands[1]);
    for (unsigned i = 0; i < 16; i += size) {
        if (!horizontal && is_nan(operands[0] + i, size) && is_nan(operands[1] + i, size))
            return true;
        for (unsigned k = 0; horizontal && i % (2 * size) == 0 && k < 2; k++) {
            if (is_nan(operands[k] + i, size) && is_nan(operands[k] + i + size, size))
                return true;
        }
    }
    return false;
}

bool differ_upper_half(const struct difference *difference)
{
    return difference->kind == DIFFERENT_GPR && (uint32_t)difference->ours == (uint32_t)difference->theirs;
}

bool has_rex(const struct lockstep *step, uint8_t bits)
{
    if (step->code_size != MODE_CODE64 || step->in.vex)
        return false;
    struct encode_layout layout = encode_find(&step->in, step->bytes, step->code_size);
    uint8_t byte = step->bytes[layout.prefixes];
    return (byte & 0xF0) == 0x40 && (bits == 0 || (byte & bits));
}

uint64_t vex_source(const struct lockstep *step) { return step->before.gpr[step->in.imm & 15]; }

unsigned modrm_reg(const struct lockstep *step)
{
    struct encode_layout layout = encode_find(&step->in, step->bytes, step->code_size);
    return step->bytes[layout.operand] >> 3 & 7;
}

unsigned last_opcode(const struct lockstep *step)
{
    return step->bytes[encode_find(&step->in, step->bytes, step->code_size).opcode];
}

uint64_t source_value(const struct lockstep *step)
{
    uint64_t value = step->before.gpr[step->in.rm & 15];
    if (step->in.form == FORM_MEM)
        memcpy(&value, step->before.memory + step->operand, 8);
    return step->in.size_log2 == 3 ? value : value & (((uint64_t)1 << (8u << step->in.size_log2)) - 1);
}
