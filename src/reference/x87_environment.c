// The four layouts of an x87 environment: 16 or 32 bits, protected mode or real-address and virtual-8086 mode.
//
// SDM 1 figures 8-9 to 8-12. In 64-bit mode the layout is that of 32-bit protected mode.
#include "reference/x87_environment.h"

#include <string.h>

enum { SIZE_16 = 14, SIZE_16_SAVE = 94 };
enum { STORE_GROUP = 6, LOAD_GROUP = 4 };   // ModRM.reg with the escapes D9 (environment) and DD (the whole state)
enum { POINTERS_16 = 6, POINTERS_32 = 12 }; // where the pointers begin

static bool is_environment(const struct insn *in, unsigned group)
{
    unsigned escape = (unsigned)in->imm >> 8 & 7;
    return in->form == FORM_MEM && in->reg == group && (escape == 1 || escape == 5);
}

bool x87_is_environment(const struct insn *in)
{
    return op_class(in->op) == OP_CLASS_X87 && (is_environment(in, STORE_GROUP) || is_environment(in, LOAD_GROUP));
}

static bool is_16_bit(unsigned size) { return size == SIZE_16 || size == SIZE_16_SAVE; }

static uint32_t get(const uint8_t *bytes, unsigned size)
{
    uint32_t value = 0;
    memcpy(&value, bytes, size);
    return value;
}

void x87_environment_store(const struct cpu *cpu, const struct insn *in, uint8_t *memory, unsigned size)
{
    if (!is_environment(in, STORE_GROUP))
        return;
    uint32_t ip = (uint32_t)cpu->fpu.ip, dp = (uint32_t)cpu->fpu.dp, words[4];
    unsigned width = is_16_bit(size) ? 2 : 4;
    uint8_t *pointers = memory + (width == 2 ? POINTERS_16 : POINTERS_32);
    if (cpu_protected(cpu)) {
        words[0] = ip;
        words[1] = cpu->fpu.cs | (uint32_t)cpu->fpu.opcode << 16;
        words[2] = dp;
        words[3] = cpu->fpu.ds;
    } else { // linear addresses, in two parts
        ip += (uint32_t)cpu->fpu.cs << 4;
        dp += (uint32_t)cpu->fpu.ds << 4;
        words[0] = ip & 0xFFFF;
        words[1] = (ip >> 16 << 12) | cpu->fpu.opcode;
        words[2] = dp & 0xFFFF;
        words[3] = dp >> 16 << 12;
    }
    for (unsigned i = 0; i < 4; i++)
        memcpy(pointers + i * width, &words[i], width);
}

void x87_environment_load(struct cpu *cpu, const struct insn *in, const uint8_t *memory, unsigned size)
{
    if (!is_environment(in, LOAD_GROUP))
        return;
    unsigned width = is_16_bit(size) ? 2 : 4;
    const uint8_t *pointers = memory + (width == 2 ? POINTERS_16 : POINTERS_32);
    uint32_t words[4];
    for (unsigned i = 0; i < 4; i++)
        words[i] = get(pointers + i * width, width);
    cpu->fpu.ip = words[0];
    cpu->fpu.dp = words[2];
    if (cpu_protected(cpu)) {
        cpu->fpu.cs = (uint16_t)words[1];
        cpu->fpu.ds = (uint16_t)words[3];
        cpu->fpu.opcode = width == 4 ? words[1] >> 16 & 0x7FF : 0;
    } else {
        cpu->fpu.ip = (words[0] & 0xFFFF) | words[1] >> 12 << 16;
        cpu->fpu.dp = (words[2] & 0xFFFF) | words[3] >> 12 << 16;
        cpu->fpu.opcode = words[1] & 0x7FF;
        cpu->fpu.cs = cpu->fpu.ds = 0;
    }
}
