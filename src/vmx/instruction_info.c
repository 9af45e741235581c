// VM-exit instruction information: SDM 3C 28.2.5 "Information for VM Exits Due to Instruction Execution", tables 28-8 to 28-14.
//
// The formats share their layout; an exit leaves out what its table leaves undefined.
//    31:28  27   26:23  22    21:18  17:15  14:11  10   9:7    6:3   2   1:0
//    Reg2 | !base | base | !index | index | segment | - | reg | asize | Reg1 | - | scale
#include "vmx/transition.h"

#define INFO_SCALE_SHIFT        0
#define INFO_REG1_SHIFT         3
#define INFO_ADDRESS_SIZE_SHIFT 7
#define INFO_REGISTER           BIT(10)
#define INFO_SEGMENT_SHIFT      15
#define INFO_INDEX_SHIFT        18
#define INFO_NO_INDEX           BIT(22)
#define INFO_BASE_SHIFT         23
#define INFO_NO_BASE            BIT(27)
#define INFO_REG2_SHIFT         28

uint32_t instruction_information(const struct insn *in)
{
    if (in->form == FORM_REG)
        return (uint32_t)INFO_REGISTER | ((uint32_t)in->rm << INFO_REG1_SHIFT);
    uint32_t information =
        ((uint32_t)(in->addr_log2 - 1) << INFO_ADDRESS_SIZE_SHIFT) | ((uint32_t)in->segment << INFO_SEGMENT_SHIFT);
    if (in->index < 16)
        information |= ((uint32_t)in->scale << INFO_SCALE_SHIFT) | ((uint32_t)in->index << INFO_INDEX_SHIFT);
    else
        information |= (uint32_t)INFO_NO_INDEX;
    if (in->base < 16)
        information |= (uint32_t)in->base << INFO_BASE_SHIFT;
    else
        information |= (uint32_t)INFO_NO_BASE;
    return information;
}

uint32_t instruction_information_reg2(const struct insn *in)
{
    return instruction_information(in) | ((uint32_t)in->reg << INFO_REG2_SHIFT);
}

uint64_t instruction_displacement(const struct cpu *cpu, const struct insn *in)
{
    if (in->form != FORM_MEM)
        return 0;
    uint64_t displacement = (uint64_t)(int64_t)in->disp;
    if (in->base != REG_RIP)
        return displacement;
    // RIP-relative: the record counts from the start of its block.
    displacement += cpu->regs[REG_RIP] - in->delta;
    return in->flags & INSN_RIP_WRAP ? displacement + BIT(32) : displacement;
}
