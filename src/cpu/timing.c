// The cost of each op, from timing.def.
#include "base/assert.h"
#include "cpu/block_cache.h"

enum cost_class {
#define COST(class, cycles, mark, source) COST_##class,
#include "cpu/timing.def"
    COST_CLASSES
};

static const uint16_t class_cycles[COST_CLASSES] = {
#define COST(class, cycles, mark, source) [COST_##class] = (cycles),
#include "cpu/timing.def"
};

#define COST(class, cycles, mark, source) static_assert((cycles) >= 1, "every instruction costs a cycle");
#include "cpu/timing.def"

// Class of an op plus 1; 0: that of its op_class.
static const uint8_t class_of_op[OP_COUNT] = {
#define OP_COST(op, class) [OP_##op] = COST_##class + 1,
#include "cpu/timing.def"
};

static enum cost_class default_class(unsigned op)
{
    switch (op_class(op)) {
    case OP_CLASS_SSE: return COST_VECTOR;
    case OP_CLASS_MMX: return COST_MMX;
    case OP_CLASS_X87: return COST_X87;
    case OP_CLASS_SYSTEM: return COST_SYSTEM;
    case OP_CLASS_BRANCH: return COST_BRANCH;
    case OP_CLASS_VMX: return COST_VMX;
    case OP_CLASS_INTEGER: break;
    }
    return COST_SIMPLE;
}

unsigned op_cost(unsigned op)
{
    ASSERT(op < OP_COUNT, "operations come from enum op");
    unsigned known = class_of_op[op];
    return class_cycles[known ? known - 1 : default_class(op)];
}
