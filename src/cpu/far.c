// Far transfers: JMP, CALL and RET far through code segments, call gates, task gates and TSSs; IRET in every mode.
//
// SDM 3A 5.8 "Privilege Level Checking When Transferring Program Control", 21.2 (virtual-8086 mode), SDM 2 JMP, CALL, RET, IRET.
// Each function checks and accesses memory first and stores registers last.
#include "cpu/descriptor.h"
#include "cpu/handlers.h"
#include "cpu/system.h"

enum { RPL_USER = 3 };

static bool fail_general(struct cpu *cpu)
{
    raise_error(cpu, VECTOR_GP, 0);
    return false;
}

// A target offset must be within the limit of a legacy segment, or canonical in a 64-bit one.
static bool check_target(struct cpu *cpu, const struct segment *cs, uint64_t rip)
{
    if (cpu_long_mode(cpu) && (cs->access_rights & SEGMENT_L))
        return is_canonical(rip, 48) || fail_general(cpu);
    return rip <= cs->limit || fail_general(cpu);
}

// A code segment that is both L and D is not valid in IA-32e mode.
static bool long_bits_valid(const struct cpu *cpu, const struct descriptor *d)
{
    return !cpu_long_mode(cpu) || !descriptor_long(d) || !descriptor_default_big(d);
}

static enum exec_result finish(struct cpu *cpu, const struct insn *in, uint64_t rip)
{
    cpu->regs[REG_RIP] = rip;
    cpu_update_mode(cpu);
    exec_retire(cpu, in);
    return EXEC_DONE;
}

static enum exec_result finish_task_switch(struct cpu *cpu, const struct insn *in, enum exec_result r)
{
    if (r == EXEC_DONE)
        exec_retire(cpu, in);
    return r;
}

// The return address of a far CALL, on `stack`.
static bool push_return(struct cpu *cpu, const struct insn *in, struct stack *stack, unsigned size)
{
    return stack_push(cpu, stack, size, cpu->segments[SEG_CS].selector) &&
           stack_push(cpu, stack, size, system_next_rip(cpu, in));
}

// Real-address and virtual-8086 mode.
static enum exec_result far_8086(struct cpu *cpu, const struct insn *in, uint16_t selector, uint64_t offset, bool call)
{
    struct stack stack = stack_current(cpu, &cpu->segments[SEG_SS], cpu->cpl);
    if (offset > cpu->segments[SEG_CS].limit)
        return raise_error(cpu, VECTOR_GP, 0);
    if (call && !push_return(cpu, in, &stack, insn_size(in)))
        return EXEC_FAULT;
    stack_commit(cpu, &stack);
    if (cpu_v8086(cpu))
        segment_load_v8086(cpu, SEG_CS, selector);
    else
        segment_load_real(cpu, SEG_CS, selector);
    return finish(cpu, in, offset);
}

// Directly to a code segment: same privilege level.
static enum exec_result far_code(struct cpu *cpu, const struct insn *in, uint16_t selector, uint64_t offset, bool call,
                                 struct descriptor *d)
{
    unsigned dpl = descriptor_dpl(d);
    bool allowed =
        descriptor_is_conforming(d) ? dpl <= cpu->cpl : dpl == cpu->cpl && (selector & SELECTOR_RPL) <= cpu->cpl;
    if (!allowed || !long_bits_valid(cpu, d)) {
        fail_selector(cpu, VECTOR_GP, selector);
        return EXEC_FAULT;
    }
    if (!descriptor_present(d)) {
        fail_selector(cpu, VECTOR_NP, selector);
        return EXEC_FAULT;
    }
    struct segment cs;
    struct stack stack = stack_current(cpu, &cpu->segments[SEG_SS], cpu->cpl);
    segment_from_descriptor(&cs, (uint16_t)((selector & ~SELECTOR_RPL) | cpu->cpl), d);
    cs.access_rights |= TYPE_ACCESSED;
    if (!check_target(cpu, &cs, offset) || (call && !push_return(cpu, in, &stack, insn_size(in))) ||
        !descriptor_set_type_bits(cpu, d, TYPE_ACCESSED))
        return EXEC_FAULT;
    stack_commit(cpu, &stack);
    cpu->segments[SEG_CS] = cs;
    return finish(cpu, in, offset);
}

// The code segment that a call gate names. *inner: CALL changes to the more privileged level DPL.
static bool fetch_gate_target(struct cpu *cpu, uint16_t selector, bool call, struct descriptor *d, bool *inner)
{
    if (selector_is_null(selector))
        return fail_general(cpu);
    if (!descriptor_fetch(cpu, selector, VECTOR_GP, d))
        return false;
    unsigned dpl = descriptor_dpl(d);
    bool conforming = descriptor_is_conforming(d);
    if (!descriptor_is_code(d) || dpl > cpu->cpl || (!call && !conforming && dpl != cpu->cpl))
        return fail_selector(cpu, VECTOR_GP, selector);
    if (cpu_long_mode(cpu) && (!descriptor_long(d) || descriptor_default_big(d)))
        return fail_selector(cpu, VECTOR_GP, selector);
    if (!descriptor_present(d))
        return fail_selector(cpu, VECTOR_NP, selector);
    *inner = !conforming && dpl < cpu->cpl;
    return true;
}

// Reads the parameters of a call gate from the caller's stack; values[0] is nearest to the top.
static bool read_parameters(struct cpu *cpu, unsigned count, unsigned size, uint64_t values[31])
{
    for (unsigned i = 0; i < count; i++)
        if (!stack_peek(cpu, (uint64_t)i * size, size, &values[i]))
            return false;
    return true;
}

// The stack of a more privileged level, with the caller's SS:SP and the parameters on it.
static bool prepare_inner_stack(struct cpu *cpu, const struct descriptor *gate, unsigned level, unsigned size,
                                struct segment *ss, struct stack *stack)
{
    uint64_t old_sp = cpu->regs[REG_RSP];
    if (cpu_long_mode(cpu)) {
        *stack = (struct stack){.mask = ~(uint64_t)0, .mode = access_mode(cpu, level)};
        segment_load_null(ss, (uint16_t)level, level);
        return tss_read_stack64(cpu, level, &stack->sp) && stack_push(cpu, stack, 8, cpu->segments[SEG_SS].selector) &&
               stack_push(cpu, stack, 8, old_sp);
    }
    uint16_t selector;
    uint32_t esp;
    uint64_t parameters[31];
    unsigned count = (unsigned)bits_get(gate->raw, 36, 32);
    if (!tss_read_stack(cpu, level, &selector, &esp) || !stack_segment_fetch(cpu, selector, level, VECTOR_TS, ss) ||
        !read_parameters(cpu, count, size, parameters))
        return false;
    *stack = (struct stack){
        .segment = ss,
        .sp = esp,
        .mask = ss->access_rights & SEGMENT_DB ? 0xFFFFFFFF : 0xFFFF,
        .mode = access_mode(cpu, level),
        .error_selector = selector,
    };
    if (!stack_push(cpu, stack, size, cpu->segments[SEG_SS].selector) || !stack_push(cpu, stack, size, old_sp))
        return false;
    while (count--)
        if (!stack_push(cpu, stack, size, parameters[count]))
            return false;
    return true;
}

static enum exec_result far_call_gate(struct cpu *cpu, const struct insn *in, uint16_t gate_number, bool call,
                                      const struct descriptor *gate)
{
    if (!descriptor_present(gate)) {
        fail_selector(cpu, VECTOR_NP, gate_number);
        return EXEC_FAULT;
    }
    uint64_t upper = 0;
    if (cpu_long_mode(cpu)) {
        if (!descriptor_fetch_upper(cpu, gate_number, VECTOR_GP, gate, &upper))
            return EXEC_FAULT;
        if (bits_get(upper, 44, 40)) {
            fail_selector(cpu, VECTOR_GP, gate_number);
            return EXEC_FAULT;
        }
    }
    unsigned size = cpu_long_mode(cpu) ? 8 : descriptor_type(gate) & 8 ? 4 : 2;
    uint16_t selector = gate_selector(gate);
    uint64_t offset = (size == 2 ? gate_offset(gate) & 0xFFFF : gate_offset(gate)) | upper << 32;
    struct descriptor d;
    bool inner;
    if (!fetch_gate_target(cpu, selector, call, &d, &inner))
        return EXEC_FAULT;
    unsigned level = inner ? descriptor_dpl(&d) : cpu->cpl;
    struct segment cs, ss = cpu->segments[SEG_SS];
    struct stack stack = stack_current(cpu, &ss, cpu->cpl);
    segment_from_descriptor(&cs, (uint16_t)((selector & ~SELECTOR_RPL) | level), &d);
    cs.access_rights |= TYPE_ACCESSED;
    if (inner && !prepare_inner_stack(cpu, gate, level, size, &ss, &stack))
        return EXEC_FAULT;
    if ((call && !push_return(cpu, in, &stack, size)) || !check_target(cpu, &cs, offset) ||
        !descriptor_set_type_bits(cpu, &d, TYPE_ACCESSED))
        return EXEC_FAULT;
    cpu->segments[SEG_CS] = cs;
    cpu->segments[SEG_SS] = ss;
    stack_commit(cpu, &stack);
    return finish(cpu, in, offset);
}

// Through a call gate, a task gate or a TSS descriptor.
static enum exec_result far_system(struct cpu *cpu, const struct insn *in, uint16_t selector, bool call,
                                   const struct descriptor *d)
{
    unsigned type = descriptor_type(d);
    bool long_mode = cpu_long_mode(cpu);
    bool task =
        !long_mode && (type == SYSTEM_TSS_AVAILABLE || type == SYSTEM_TSS16_AVAILABLE || type == SYSTEM_TASK_GATE);
    bool gate = type == SYSTEM_CALL_GATE || (!long_mode && type == SYSTEM_CALL_GATE16);
    unsigned rpl = selector & SELECTOR_RPL;
    if ((!task && !gate) || descriptor_dpl(d) < cpu->cpl || descriptor_dpl(d) < rpl) {
        fail_selector(cpu, VECTOR_GP, selector);
        return EXEC_FAULT;
    }
    if (gate)
        return far_call_gate(cpu, in, selector, call, d);
    if (type == SYSTEM_TASK_GATE) {
        if (!descriptor_present(d)) {
            fail_selector(cpu, VECTOR_NP, selector);
            return EXEC_FAULT;
        }
        selector = gate_selector(d);
    }
    enum task_switch_source source = call ? TASK_SWITCH_CALL : TASK_SWITCH_JMP;
    return finish_task_switch(cpu, in, task_switch(cpu, selector, source, in->length, NULL, cpu_rflags(cpu)));
}

static enum exec_result far_transfer(struct cpu *cpu, const struct insn *in, uint16_t selector, uint64_t offset,
                                     bool call)
{
    if (!cpu_protected(cpu))
        return far_8086(cpu, in, selector, offset, call);
    if (selector_is_null(selector))
        return raise_error(cpu, VECTOR_GP, 0);
    struct descriptor d;
    if (!descriptor_fetch(cpu, selector, VECTOR_GP, &d))
        return EXEC_FAULT;
    if (descriptor_is_system(&d))
        return far_system(cpu, in, selector, call, &d);
    if (!descriptor_is_code(&d)) {
        fail_selector(cpu, VECTOR_GP, selector);
        return EXEC_FAULT;
    }
    return far_code(cpu, in, selector, offset, call, &d);
}

static enum exec_result far_immediate(struct cpu *cpu, const struct insn *in, bool call)
{
    exec_begin_system(cpu, in);
    uint64_t offset = (uint64_t)in->imm & (insn_size(in) == 2 ? 0xFFFF : 0xFFFFFFFF);
    return far_transfer(cpu, in, (uint16_t)((uint64_t)in->imm >> 32), offset, call);
}

static enum exec_result far_indirect(struct cpu *cpu, const struct insn *in, bool call)
{
    uint64_t address = begin_system_operand(cpu, in), offset, selector;
    if (in->form != FORM_MEM)
        return raise_exception(cpu, VECTOR_UD);
    unsigned size = insn_size(in);
    if (!mem_read(cpu, in->segment, address, size, &offset) ||
        !mem_read(cpu, in->segment, (address + size) & cpu->addr_mask[in->addr_log2], 2, &selector))
        return EXEC_FAULT;
    return far_transfer(cpu, in, (uint16_t)selector, offset, call);
}

enum exec_result exec_jmp_far(struct cpu *cpu, const struct insn *in) { return far_immediate(cpu, in, false); }
enum exec_result exec_call_far(struct cpu *cpu, const struct insn *in) { return far_immediate(cpu, in, true); }
enum exec_result exec_jmp_far_ind(struct cpu *cpu, const struct insn *in) { return far_indirect(cpu, in, false); }
enum exec_result exec_call_far_ind(struct cpu *cpu, const struct insn *in) { return far_indirect(cpu, in, true); }

// The code segment that RET or IRET returns to.
static bool fetch_return_segment(struct cpu *cpu, uint16_t selector, struct segment *cs)
{
    struct descriptor d;
    unsigned rpl = selector & SELECTOR_RPL;
    if (selector_is_null(selector))
        return fail_general(cpu);
    if (!descriptor_fetch(cpu, selector, VECTOR_GP, &d))
        return false;
    bool level = descriptor_is_conforming(&d) ? descriptor_dpl(&d) <= rpl : descriptor_dpl(&d) == rpl;
    if (!descriptor_is_code(&d) || rpl < cpu->cpl || !level || !long_bits_valid(cpu, &d))
        return fail_selector(cpu, VECTOR_GP, selector);
    if (!descriptor_present(&d))
        return fail_selector(cpu, VECTOR_NP, selector);
    if (!descriptor_set_type_bits(cpu, &d, TYPE_ACCESSED))
        return false;
    segment_from_descriptor(cs, selector, &d);
    return true;
}

// The stack segment of an outer level; null is allowed for 64-bit code above user level.
static bool fetch_return_stack(struct cpu *cpu, uint16_t selector, const struct segment *cs, struct segment *ss)
{
    unsigned rpl = cs->selector & SELECTOR_RPL;
    bool code64 = cpu_long_mode(cpu) && (cs->access_rights & SEGMENT_L);
    if (selector_is_null(selector) && code64 && rpl != RPL_USER && (selector & SELECTOR_RPL) == rpl) {
        segment_load_null(ss, selector, rpl);
        return true;
    }
    return stack_segment_fetch(cpu, selector, rpl, VECTOR_GP, ss);
}

// What a return pops.
struct frame {
    uint64_t rip, cs, rflags, rsp, ss;
};

// Stores CS, SS and the stack pointer of a return. `ss`: NULL if the stack segment stays; the stack pointer then moves by `released`.
static void return_commit(struct cpu *cpu, const struct segment *cs, const struct segment *ss, uint64_t rsp)
{
    uint64_t mask = stack_mask(cpu);
    bool outer = (cs->selector & SELECTOR_RPL) > cpu->cpl;
    cpu->segments[SEG_CS] = *cs;
    if (ss) {
        cpu->segments[SEG_SS] = *ss;
        bool code64 = cpu_long_mode(cpu) && (cs->access_rights & SEGMENT_L);
        mask = code64 ? ~(uint64_t)0 : ss->access_rights & SEGMENT_DB ? 0xFFFFFFFF : 0xFFFF;
    }
    stack_pointer_set(cpu, mask, rsp);
    if (outer) {
        cpu->cpl = cs->selector & SELECTOR_RPL;
        segments_drop_privileged(cpu);
    }
}

static enum exec_result ret_far_8086(struct cpu *cpu, const struct insn *in, const struct frame *frame)
{
    if (frame->rip > cpu->segments[SEG_CS].limit)
        return raise_error(cpu, VECTOR_GP, 0);
    stack_pointer_set(cpu, stack_mask(cpu), cpu->regs[REG_RSP] + 2 * (uint64_t)insn_size(in) + (uint16_t)in->imm);
    if (cpu_v8086(cpu))
        segment_load_v8086(cpu, SEG_CS, (uint16_t)frame->cs);
    else
        segment_load_real(cpu, SEG_CS, (uint16_t)frame->cs);
    return finish(cpu, in, frame->rip);
}

enum exec_result exec_ret_far(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    unsigned size = insn_size(in);
    uint16_t release = (uint16_t)in->imm;
    struct frame frame;
    if (!stack_peek(cpu, 0, size, &frame.rip) || !stack_peek(cpu, size, size, &frame.cs))
        return EXEC_FAULT;
    if (!cpu_protected(cpu))
        return ret_far_8086(cpu, in, &frame);
    struct segment cs, ss;
    if (!fetch_return_segment(cpu, (uint16_t)frame.cs, &cs))
        return EXEC_FAULT;
    bool outer = (cs.selector & SELECTOR_RPL) > cpu->cpl;
    if (!outer) {
        if (!check_target(cpu, &cs, frame.rip))
            return EXEC_FAULT;
        return_commit(cpu, &cs, NULL, cpu->regs[REG_RSP] + 2 * (uint64_t)size + release);
        return finish(cpu, in, frame.rip);
    }
    uint64_t offset = 2 * (uint64_t)size + release;
    if (!stack_peek(cpu, offset, size, &frame.rsp) || !stack_peek(cpu, offset + size, size, &frame.ss) ||
        !fetch_return_stack(cpu, (uint16_t)frame.ss, &cs, &ss) || !check_target(cpu, &cs, frame.rip))
        return EXEC_FAULT;
    return_commit(cpu, &cs, &ss, frame.rsp + release);
    return finish(cpu, in, frame.rip);
}

// Flags that IRET loads at a privilege level and operand size; the others keep their value.
static uint64_t iret_mask(const struct cpu *cpu, unsigned size)
{
    uint64_t mask = RFLAGS_ARITHMETIC | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT;
    if (size > 2)
        mask |= RFLAGS_RF | RFLAGS_AC | RFLAGS_ID;
    if (cpu->cpl <= (cpu->rflags_system & RFLAGS_IOPL) >> RFLAGS_IOPL_SHIFT)
        mask |= RFLAGS_IF;
    if (cpu->cpl == 0)
        mask |= RFLAGS_IOPL | (size > 2 ? RFLAGS_VIF | RFLAGS_VIP : 0);
    return mask;
}

static uint64_t iret_rflags(const struct cpu *cpu, uint64_t popped, uint64_t mask)
{
    return (cpu_rflags(cpu) & ~mask) | (popped & mask);
}

static enum exec_result iret_finish(struct cpu *cpu, const struct insn *in, uint64_t rip, uint64_t rflags)
{
    cpu->regs[REG_RIP] = rip;
    cpu_update_mode(cpu);
    cpu_set_rflags(cpu, rflags);
    exec_retire(cpu, in);
    return EXEC_DONE;
}

static bool iret_pop(struct cpu *cpu, unsigned size, struct frame *frame)
{
    return stack_peek(cpu, 0, size, &frame->rip) && stack_peek(cpu, size, size, &frame->cs) &&
           stack_peek(cpu, 2 * size, size, &frame->rflags);
}

static enum exec_result iret_8086(struct cpu *cpu, const struct insn *in, const struct frame *frame, uint64_t rflags)
{
    if (frame->rip > cpu->segments[SEG_CS].limit)
        return raise_error(cpu, VECTOR_GP, 0);
    stack_pointer_set(cpu, stack_mask(cpu), cpu->regs[REG_RSP] + 3 * (uint64_t)insn_size(in));
    if (cpu_v8086(cpu))
        segment_load_v8086(cpu, SEG_CS, (uint16_t)frame->cs);
    else
        segment_load_real(cpu, SEG_CS, (uint16_t)frame->cs);
    return iret_finish(cpu, in, frame->rip, rflags);
}

// In virtual-8086 mode: with IOPL 3 as in real-address mode but for IOPL, VIF and VIP; below it only with VME, 16-bit operands and the
// virtual interrupt flag.
static enum exec_result iret_from_v8086(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    struct frame frame;
    bool iopl3 = (cpu->rflags_system & RFLAGS_IOPL) == RFLAGS_IOPL;
    if (!iopl3 && (!(cpu->cr4 & CR4_VME) || size != 2))
        return raise_error(cpu, VECTOR_GP, 0);
    if (!iret_pop(cpu, size, &frame))
        return EXEC_FAULT;
    uint64_t mask = iret_mask(cpu, size) & ~(RFLAGS_IOPL | RFLAGS_VIF | RFLAGS_VIP);
    if (iopl3)
        return iret_8086(cpu, in, &frame, iret_rflags(cpu, frame.rflags, mask));
    bool enable = (frame.rflags & RFLAGS_IF) != 0;
    if ((frame.rflags & RFLAGS_TF) || (enable && (cpu->rflags_system & RFLAGS_VIP)))
        return raise_error(cpu, VECTOR_GP, 0);
    uint64_t rflags = iret_rflags(cpu, frame.rflags, mask & ~RFLAGS_IF) & ~RFLAGS_VIF;
    return iret_8086(cpu, in, &frame, rflags | (enable ? RFLAGS_VIF : 0));
}

static enum exec_result iret_to_v8086(struct cpu *cpu, const struct insn *in, const struct frame *frame)
{
    static const uint8_t order[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    uint64_t esp, ss, selector[4];
    if (!stack_peek(cpu, 12, 4, &esp) || !stack_peek(cpu, 16, 4, &ss))
        return EXEC_FAULT;
    for (unsigned i = 0; i < 4; i++)
        if (!stack_peek(cpu, 20 + 4 * i, 4, &selector[i]))
            return EXEC_FAULT;
    if (frame->rip > 0xFFFF)
        return raise_error(cpu, VECTOR_GP, 0);
    segment_load_v8086(cpu, SEG_CS, (uint16_t)frame->cs);
    segment_load_v8086(cpu, SEG_SS, (uint16_t)ss);
    for (unsigned i = 0; i < 4; i++)
        segment_load_v8086(cpu, order[i], (uint16_t)selector[i]);
    cpu->regs[REG_RSP] = (uint32_t)esp;
    return iret_finish(cpu, in, frame->rip, frame->rflags);
}

// The nested task returns to the one whose TSS the link field of the current TSS names.
static enum exec_result iret_task(struct cpu *cpu, const struct insn *in)
{
    uint64_t link;
    if (!lin_read(cpu, cpu->segments[SEG_TR].base, 2, &link, MMU_SUPERVISOR))
        return EXEC_FAULT;
    return finish_task_switch(cpu, in,
                              task_switch(cpu, (uint16_t)link, TASK_SWITCH_IRET, in->length, NULL, cpu_rflags(cpu)));
}

static enum exec_result iret_protected(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    struct frame frame;
    if (cpu->rflags_system & RFLAGS_NT)
        return cpu_long_mode(cpu) ? raise_error(cpu, VECTOR_GP, 0) : iret_task(cpu, in);
    if (!iret_pop(cpu, size, &frame))
        return EXEC_FAULT;
    if (!cpu_long_mode(cpu) && size == 4 && (frame.rflags & RFLAGS_VM) && cpu->cpl == 0)
        return iret_to_v8086(cpu, in, &frame);

    struct segment cs, ss;
    if (!fetch_return_segment(cpu, (uint16_t)frame.cs, &cs))
        return EXEC_FAULT;
    bool outer = (cs.selector & SELECTOR_RPL) > cpu->cpl, pops_stack = outer || cpu_64bit(cpu);
    if (pops_stack && (!stack_peek(cpu, 3 * size, size, &frame.rsp) || !stack_peek(cpu, 4 * size, size, &frame.ss) ||
                       !fetch_return_stack(cpu, (uint16_t)frame.ss, &cs, &ss)))
        return EXEC_FAULT;
    if (!check_target(cpu, &cs, frame.rip))
        return EXEC_FAULT;
    uint64_t rflags = iret_rflags(cpu, frame.rflags, iret_mask(cpu, size)); // at the CPL before the return
    return_commit(cpu, &cs, pops_stack ? &ss : NULL, pops_stack ? frame.rsp : cpu->regs[REG_RSP] + 3 * (uint64_t)size);
    return iret_finish(cpu, in, frame.rip, rflags);
}

// IRET ends blocking by NMI even if it then faults (SDM 3A 6.7.1). With INTERCEPT_IRET_NMI that is up to VMX.
static enum exec_result unblock_nmi(struct cpu *cpu, const struct insn *in)
{
    if (cpu->intercepts & BIT(INTERCEPT_IRET_NMI))
        return exec_intercept(cpu, in, INTERCEPT_IRET_NMI, 0);
    cpu->nmi_unblocked_by_iret = (cpu->interruptibility & BLOCKING_NMI) != 0;
    cpu->interruptibility &= ~(uint32_t)BLOCKING_NMI;
    return EXEC_NEXT;
}

enum exec_result exec_iret(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    enum exec_result r = unblock_nmi(cpu, in);
    if (r != EXEC_NEXT)
        return r;
    if (cpu_v8086(cpu)) {
        r = iret_from_v8086(cpu, in);
    } else if (cpu_protected(cpu)) {
        r = iret_protected(cpu, in);
    } else {
        struct frame frame;
        if (!iret_pop(cpu, insn_size(in), &frame))
            return EXEC_FAULT;
        r = iret_8086(cpu, in, &frame,
                      iret_rflags(cpu, frame.rflags, iret_mask(cpu, insn_size(in)) & ~(RFLAGS_VIF | RFLAGS_VIP)));
    }
    if (r != EXEC_FAULT)
        cpu->nmi_unblocked_by_iret = false;
    return r;
}
