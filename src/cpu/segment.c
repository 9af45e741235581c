// Instructions on segment registers and descriptors: MOV, PUSH and POP Sreg, LxS, LLDT, LTR, SLDT, STR, LAR, LSL, VERR, VERW, ARPL.
//
// SDM 3A 5.2 to 5.8, SDM 2 (each instruction). Reading a selector into a 32- or 64-bit register zero-extends it.
#include "cpu/descriptor.h"
#include "cpu/handlers.h"
#include "cpu/system.h"

// The word operand ModRM.rm, at `offset` if it is in memory. False: cpu->event is set.
static bool read_selector(struct cpu *cpu, const struct insn *in, uint64_t offset, uint16_t *selector)
{
    uint64_t value = cpu->regs[in->rm];
    if (in->form == FORM_MEM && !mem_read(cpu, in->segment, offset, 2, &value))
        return false;
    *selector = (uint16_t)value;
    return true;
}

// Stores a selector in ModRM.rm: a word of memory, or a zero-extended register of the operand size.
static bool write_selector(struct cpu *cpu, const struct insn *in, uint64_t offset, uint16_t value)
{
    if (in->form == FORM_MEM)
        return mem_write(cpu, in->segment, offset, 2, value);
    reg_write(cpu, in->rm, insn_size(in), value);
    return true;
}

static void set_zf(struct cpu *cpu, bool zf)
{
    uint32_t flags = flags_arithmetic(cpu) & ~(uint32_t)RFLAGS_ZF;
    flags_set_arithmetic(cpu, flags | (zf ? RFLAGS_ZF : 0));
}

static bool load_stack_segment(struct cpu *cpu, uint16_t selector)
{
    if (selector_is_null(selector) && cpu_64bit(cpu) && cpu->cpl < 3 && (selector & SELECTOR_RPL) == cpu->cpl) {
        segment_load_null(&cpu->segments[SEG_SS], selector, cpu->cpl);
        return true;
    }
    struct segment ss;
    if (!stack_segment_fetch(cpu, selector, cpu->cpl, VECTOR_GP, &ss))
        return false;
    cpu->segments[SEG_SS] = ss;
    return true;
}

bool segment_load(struct cpu *cpu, enum segment_register s, uint16_t selector)
{
    if (cpu_v8086(cpu)) {
        segment_load_v8086(cpu, s, selector);
        return true;
    }
    if (!cpu_protected(cpu)) {
        segment_load_real(cpu, s, selector);
        return true;
    }
    if (s == SEG_SS)
        return load_stack_segment(cpu, selector);
    struct segment segment;
    if (!data_segment_fetch(cpu, selector, VECTOR_GP, &segment))
        return false;
    cpu->segments[s] = segment;
    return true;
}

static void block_after_ss_load(struct cpu *cpu)
{
    cpu->interruptibility |= BLOCKING_MOV_SS;
    cpu->pending |= PENDING_INHIBIT;
}

enum exec_result exec_mov_to_sreg(struct cpu *cpu, const struct insn *in)
{
    uint64_t offset = begin_system_operand(cpu, in);
    if (in->reg == SEG_CS || in->reg > SEG_GS)
        return raise_exception(cpu, VECTOR_UD);
    uint16_t selector;
    if (!read_selector(cpu, in, offset, &selector) || !segment_load(cpu, in->reg, selector))
        return EXEC_FAULT;
    cpu_update_mode(cpu);
    if (in->reg == SEG_SS)
        block_after_ss_load(cpu);
    return exec_end_system(cpu, in);
}

// MOV from and PUSH of a segment register do not end a block.
enum exec_result exec_mov_from_sreg(struct cpu *cpu, const struct insn *in)
{
    if (in->reg > SEG_GS) {
        raise_exception(cpu, VECTOR_UD);
        return exec_fault(cpu, in);
    }
    if (!write_selector(cpu, in, in->form == FORM_MEM ? exec_offset(cpu, in) : 0, cpu->segments[in->reg].selector))
        return exec_fault(cpu, in);
    return exec_next_slow(cpu, in);
}

// With an operand size of 32 bits only the low word of the stack slot is written, as recent processors do (SDM 2 PUSH).
enum exec_result exec_push_sreg(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    uint64_t mask = stack_mask(cpu);
    uint64_t sp = (cpu->regs[REG_RSP] - size) & mask;
    if (!mem_write(cpu, SEG_SS, sp, size == 4 ? 2 : size, cpu->segments[in->reg].selector))
        return exec_fault(cpu, in);
    stack_pointer_set(cpu, mask, sp);
    return exec_next_slow(cpu, in);
}

enum exec_result exec_pop_sreg(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    uint64_t mask = stack_mask(cpu);
    uint64_t value;
    if (!stack_peek(cpu, 0, insn_size(in), &value) || !segment_load(cpu, in->reg, (uint16_t)value))
        return EXEC_FAULT;
    stack_pointer_set(cpu, mask, cpu->regs[REG_RSP] + insn_size(in));
    cpu_update_mode(cpu);
    if (in->reg == SEG_SS)
        block_after_ss_load(cpu);
    return exec_end_system(cpu, in);
}

static enum exec_result load_far_pointer(struct cpu *cpu, const struct insn *in, enum segment_register s)
{
    uint64_t offset = begin_system_operand(cpu, in), value, selector;
    if (in->form != FORM_MEM)
        return raise_exception(cpu, VECTOR_UD);
    unsigned size = insn_size(in);
    if (!mem_read(cpu, in->segment, offset, size, &value) ||
        !mem_read(cpu, in->segment, (offset + size) & cpu->addr_mask[in->addr_log2], 2, &selector) ||
        !segment_load(cpu, s, (uint16_t)selector))
        return EXEC_FAULT;
    reg_write(cpu, in->reg, size, value);
    cpu_update_mode(cpu);
    return exec_end_system(cpu, in);
}

enum exec_result exec_les(struct cpu *cpu, const struct insn *in) { return load_far_pointer(cpu, in, SEG_ES); }
enum exec_result exec_lds(struct cpu *cpu, const struct insn *in) { return load_far_pointer(cpu, in, SEG_DS); }
enum exec_result exec_lss(struct cpu *cpu, const struct insn *in) { return load_far_pointer(cpu, in, SEG_SS); }
enum exec_result exec_lfs(struct cpu *cpu, const struct insn *in) { return load_far_pointer(cpu, in, SEG_FS); }
enum exec_result exec_lgs(struct cpu *cpu, const struct insn *in) { return load_far_pointer(cpu, in, SEG_GS); }

// What LLDT and LTR begin with: #UD outside protected mode, #GP(0) above CPL 0, the intercept, then the operand.
static enum exec_result begin_table_load(struct cpu *cpu, const struct insn *in, uint16_t *selector)
{
    uint64_t offset = begin_system_operand(cpu, in);
    if (!cpu_protected(cpu))
        return raise_exception(cpu, VECTOR_UD);
    if (cpu->cpl != 0)
        return raise_error(cpu, VECTOR_GP, 0);
    enum exec_result r = exec_intercept(cpu, in, INTERCEPT_DESCRIPTOR_TABLE, 0);
    if (r != EXEC_NEXT)
        return r;
    return read_selector(cpu, in, offset, selector) ? EXEC_NEXT : EXEC_FAULT;
}

enum exec_result exec_lldt(struct cpu *cpu, const struct insn *in)
{
    uint16_t selector;
    enum exec_result r = begin_table_load(cpu, in, &selector);
    if (r != EXEC_NEXT)
        return r;
    struct segment ldtr;
    if (!ldtr_fetch(cpu, selector, VECTOR_GP, &ldtr))
        return EXEC_FAULT;
    cpu->segments[SEG_LDTR] = ldtr;
    return exec_end_system(cpu, in);
}

static bool fetch_task_register(struct cpu *cpu, uint16_t selector, struct segment *tr)
{
    struct descriptor d;
    if (selector_is_null(selector)) {
        raise_error(cpu, VECTOR_GP, 0);
        return false;
    }
    if (selector & SELECTOR_TI)
        return fail_selector(cpu, VECTOR_GP, selector);
    if (!descriptor_fetch(cpu, selector, VECTOR_GP, &d))
        return false;
    bool long_mode = cpu_long_mode(cpu);
    unsigned type = descriptor_type(&d);
    if (!descriptor_is_system(&d) || !(type == SYSTEM_TSS_AVAILABLE || (type == SYSTEM_TSS16_AVAILABLE && !long_mode)))
        return fail_selector(cpu, VECTOR_GP, selector);
    if (!descriptor_present(&d))
        return fail_selector(cpu, VECTOR_NP, selector);
    uint64_t upper = 0;
    if (long_mode) {
        if (!descriptor_fetch_upper(cpu, selector, VECTOR_GP, &d, &upper))
            return false;
        if (bits_get(upper, 44, 40) || !is_canonical(descriptor_base(&d) | upper << 32, 48))
            return fail_selector(cpu, VECTOR_GP, selector);
    }
    if (!descriptor_set_type_bits(cpu, &d, SYSTEM_TYPE_BUSY))
        return false;
    segment_from_descriptor(tr, selector, &d);
    tr->base |= upper << 32;
    return true;
}

enum exec_result exec_ltr(struct cpu *cpu, const struct insn *in)
{
    uint16_t selector;
    enum exec_result r = begin_table_load(cpu, in, &selector);
    if (r != EXEC_NEXT)
        return r;
    struct segment tr;
    if (!fetch_task_register(cpu, selector, &tr))
        return EXEC_FAULT;
    cpu->segments[SEG_TR] = tr;
    return exec_end_system(cpu, in);
}

static enum exec_result store_table_selector(struct cpu *cpu, const struct insn *in, enum segment_register s)
{
    uint64_t offset = begin_system_operand(cpu, in);
    if (!cpu_protected(cpu))
        return raise_exception(cpu, VECTOR_UD);
    if (cpu->cpl != 0 && (cpu->cr4 & CR4_UMIP))
        return raise_error(cpu, VECTOR_GP, 0);
    enum exec_result r = exec_intercept(cpu, in, INTERCEPT_DESCRIPTOR_TABLE, 0);
    if (r != EXEC_NEXT)
        return r;
    if (!write_selector(cpu, in, offset, cpu->segments[s].selector))
        return EXEC_FAULT;
    return exec_end_system(cpu, in);
}

enum exec_result exec_sldt(struct cpu *cpu, const struct insn *in) { return store_table_selector(cpu, in, SEG_LDTR); }
enum exec_result exec_str(struct cpu *cpu, const struct insn *in) { return store_table_selector(cpu, in, SEG_TR); }

// Begins the instruction and reads the descriptor that LAR, LSL, VERR and VERW look at. DESCRIPTOR_OUTSIDE also for a null selector.
static enum descriptor_status inspect(struct cpu *cpu, const struct insn *in, uint16_t *selector, struct descriptor *d)
{
    uint64_t offset = begin_system_operand(cpu, in);
    if (!cpu_protected(cpu)) {
        raise_exception(cpu, VECTOR_UD);
        return DESCRIPTOR_FAULT;
    }
    if (!read_selector(cpu, in, offset, selector))
        return DESCRIPTOR_FAULT;
    return selector_is_null(*selector) ? DESCRIPTOR_OUTSIDE : descriptor_read(cpu, *selector, d);
}

// CPL and RPL may look at the segment (conforming code: anybody).
static bool inspection_allowed(const struct cpu *cpu, uint16_t selector, const struct descriptor *d)
{
    if (descriptor_is_code(d) && descriptor_is_conforming(d))
        return true;
    return descriptor_dpl(d) >= cpu->cpl && descriptor_dpl(d) >= (selector & SELECTOR_RPL);
}

// System descriptor types that LAR and LSL accept, one bit a type.
enum {
    LAR_TYPES_LEGACY = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 9 | 1 << 11 | 1 << 12,
    LAR_TYPES_LONG = 1 << 2 | 1 << 9 | 1 << 11 | 1 << 12,
    LSL_TYPES_LEGACY = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 9 | 1 << 11,
    LSL_TYPES_LONG = 1 << 2 | 1 << 9 | 1 << 11,
};

static enum exec_result inspect_value(struct cpu *cpu, const struct insn *in, bool limit)
{
    uint16_t selector;
    struct descriptor d;
    enum descriptor_status status = inspect(cpu, in, &selector, &d);
    if (status == DESCRIPTOR_FAULT)
        return EXEC_FAULT;
    unsigned types = limit ? (cpu_long_mode(cpu) ? LSL_TYPES_LONG : LSL_TYPES_LEGACY)
                           : (cpu_long_mode(cpu) ? LAR_TYPES_LONG : LAR_TYPES_LEGACY);
    bool valid = status == DESCRIPTOR_OK && (!descriptor_is_system(&d) || (types >> descriptor_type(&d) & 1)) &&
                 inspection_allowed(cpu, selector, &d);
    set_zf(cpu, valid);
    if (valid)
        reg_write(cpu, in->reg, insn_size(in), limit ? descriptor_limit(&d) : (d.raw >> 32) & 0x00FFFF00);
    return exec_end_system(cpu, in);
}

enum exec_result exec_lar(struct cpu *cpu, const struct insn *in) { return inspect_value(cpu, in, false); }
enum exec_result exec_lsl(struct cpu *cpu, const struct insn *in) { return inspect_value(cpu, in, true); }

static enum exec_result verify(struct cpu *cpu, const struct insn *in, bool write)
{
    uint16_t selector;
    struct descriptor d;
    enum descriptor_status status = inspect(cpu, in, &selector, &d);
    if (status == DESCRIPTOR_FAULT)
        return EXEC_FAULT;
    bool valid = status == DESCRIPTOR_OK && !descriptor_is_system(&d) && inspection_allowed(cpu, selector, &d);
    if (valid && write)
        valid = descriptor_is_writable_data(&d);
    else if (valid)
        valid = !descriptor_is_code(&d) || (descriptor_type(&d) & TYPE_READABLE);
    set_zf(cpu, valid);
    return exec_end_system(cpu, in);
}

enum exec_result exec_verr(struct cpu *cpu, const struct insn *in) { return verify(cpu, in, false); }
enum exec_result exec_verw(struct cpu *cpu, const struct insn *in) { return verify(cpu, in, true); }

enum exec_result exec_arpl(struct cpu *cpu, const struct insn *in)
{
    uint64_t offset = begin_system_operand(cpu, in);
    if (!cpu_protected(cpu))
        return raise_exception(cpu, VECTOR_UD);
    uint64_t destination = cpu->regs[in->rm];
    if (in->form == FORM_MEM && !mem_read_for_write(cpu, in->segment, offset, 2, &destination))
        return EXEC_FAULT;
    uint64_t rpl = cpu->regs[in->reg] & SELECTOR_RPL;
    bool raise = (destination & SELECTOR_RPL) < rpl;
    if (raise) {
        destination = (destination & ~(uint64_t)SELECTOR_RPL) | rpl;
        if (in->form != FORM_MEM)
            reg_write(cpu, in->rm, 2, destination);
        else if (!mem_write(cpu, in->segment, offset, 2, destination))
            return EXEC_FAULT;
    }
    set_zf(cpu, raise);
    return exec_end_system(cpu, in);
}
