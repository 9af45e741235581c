// The stack of the current privilege level, for the instructions that push and pop.
#ifndef VMXON_CPU_EXEC_STACK_H
#define VMXON_CPU_EXEC_STACK_H

#include "cpu/exec_fast.h"

// Ones in the bits of RSP that the stack segment uses.
static inline uint64_t stack_mask(const struct cpu *cpu)
{
    return cpu->mode & MODE_STACK64 ? ~(uint64_t)0 : cpu->mode & MODE_STACK32 ? 0xFFFFFFFF : 0xFFFF;
}

static inline void stack_set(struct cpu *cpu, uint64_t rsp)
{
    reg_write(cpu, REG_RSP, cpu->mode & MODE_STACK64 ? 8 : cpu->mode & MODE_STACK32 ? 4 : 2, rsp);
}

// The value `above` bytes above the top of the stack. False: cpu->event is set.
static inline bool stack_peek(struct cpu *cpu, unsigned above, unsigned size, uint64_t *value)
{
    return mem_read(cpu, SEG_SS, (cpu->regs[REG_RSP] + above) & stack_mask(cpu), size, value);
}

// Stores a value and moves RSP. False: cpu->event is set and RSP is as before.
static inline bool stack_push_value(struct cpu *cpu, unsigned size, uint64_t value)
{
    uint64_t rsp = cpu->regs[REG_RSP] - size;
    if (!mem_write(cpu, SEG_SS, rsp & stack_mask(cpu), size, value))
        return false;
    stack_set(cpu, rsp);
    return true;
}

#endif
