// Near control transfers: JMP Jcc CALL RET LOOPcc JCXZ, and the ends of blocks (SDM 2).
//
// A branch whose target lies in its own page (and in a mode where RIP is the linear address) is "linked": it follows
// links between blocks, and the builder has put offsets from the block's start into imm (target) and disp (next
// instruction). All others go through the jump cache. Targets are checked before anything is committed, so that a
// #GP is reported at the branch.
#include "cpu/exec_alu.h"
#include "cpu/exec_stack.h"
#include "cpu/fast_handlers.h"

// ---- From block to block ----

enum exec_result exec_goto_slow(struct cpu *cpu, uint64_t target)
{
    cpu->regs[REG_RIP] = target;
    cpu->block = NULL;
    const struct jump_entry *entry = jump_slot(cpu->blocks, target);
    const struct block *block = entry->block;
    if (entry->rip != target || block->mode != cpu->mode || !block_fits(cpu, block))
        return EXEC_DONE;
    // Another page: the fast entry stands for the TLB entry that a fetch would find.
    const struct fast_entry *fetch = &cpu->mmu.current[mmu_slot(target)];
    if (fetch->fetch != ((target & PAGE_FRAME_MASK) | cpu->mmu.context) ||
        target + fetch->addend != (uint64_t)(uintptr_t)block->host)
        return EXEC_DONE;
    cpu->mmu.code.page = target & PAGE_FRAME_MASK;
    cpu->mmu.code.frame = block->address & PAGE_FRAME_MASK;
    return block_enter(cpu, block);
}

enum exec_result exec_link_slow(struct cpu *cpu, unsigned which, uint64_t target)
{
    struct block *from = (struct block *)cpu->block; // blocks live in the cache's own memory; handlers only read them
    target &= cpu->rip_mask;
    if ((target & PAGE_FRAME_MASK) != cpu->mmu.code.page)
        return exec_goto_slow(cpu, target);
    cpu->regs[REG_RIP] = target;
    cpu->block = NULL;
    if ((from->mode & MODE_SINGLE) || from->cost == BLOCK_COST_NEVER)
        return EXEC_DONE;
    struct block *next = block_find(cpu->blocks, cpu->mmu.code.frame | (target & PAGE_OFFSET_MASK), from->mode);
    if (!next)
        return EXEC_DONE;
    from->link[which] = next;
    return block_fits(cpu, next) ? block_enter(cpu, next) : EXEC_DONE;
}

enum exec_result exec_block_end(struct cpu *cpu, const struct insn *in)
{
    return exec_follow(cpu, 0, cpu->regs[REG_RIP] + in->delta);
}

enum exec_result exec_block_end_far(struct cpu *cpu, const struct insn *in)
{
    cpu->regs[REG_RIP] = (cpu->regs[REG_RIP] + in->delta) & cpu->rip_mask;
    cpu->block = NULL;
    return EXEC_DONE;
}

// ---- General handlers ----

// Ends the block at a new RIP after accesses with all checks.
static enum exec_result leave_to(struct cpu *cpu, uint64_t target)
{
    cpu->regs[REG_RIP] = target;
    cpu->block = NULL;
    return EXEC_DONE;
}

// False: #GP(0) is in cpu->event.
static bool target_allowed(struct cpu *cpu, uint64_t target)
{
    if (likely(cpu_64bit(cpu) ? is_canonical(target, cpu_linear_width(cpu)) : target <= cpu->segments[SEG_CS].limit))
        return true;
    raise_error(cpu, VECTOR_GP, 0);
    return false;
}

static uint64_t relative_target(const struct cpu *cpu, const struct insn *in)
{
    return truncated(exec_next_rip(cpu, in) + (uint64_t)in->imm, insn_size(in));
}

static enum exec_result jump(struct cpu *cpu, const struct insn *in, uint64_t target)
{
    if (unlikely(!target_allowed(cpu, target)))
        return exec_fault(cpu, in);
    return exec_goto(cpu, target);
}

enum exec_result exec_jmp(struct cpu *cpu, const struct insn *in) { return jump(cpu, in, relative_target(cpu, in)); }

enum exec_result exec_jcc(struct cpu *cpu, const struct insn *in)
{
    if (condition(cpu, (unsigned)in->op - OP_JO))
        return jump(cpu, in, relative_target(cpu, in));
    return exec_goto(cpu, exec_next_rip(cpu, in));
}

// The counter is RCX, ECX or CX by the address size.
enum exec_result exec_loop(struct cpu *cpu, const struct insn *in)
{
    unsigned size = 1u << in->addr_log2;
    uint64_t count = reg_read(cpu, REG_RCX, size);
    bool taken;
    if (in->op == OP_JCXZ) {
        taken = count == 0;
    } else {
        count--;
        taken = truncated(count, size) != 0;
        if (in->op != OP_LOOP)
            taken = taken && flag_zf(cpu) == (in->op == OP_LOOPE);
    }
    uint64_t target = taken ? relative_target(cpu, in) : exec_next_rip(cpu, in);
    if (taken && unlikely(!target_allowed(cpu, target)))
        return exec_fault(cpu, in);
    if (in->op != OP_JCXZ)
        reg_write(cpu, REG_RCX, size, count);
    return exec_goto(cpu, target);
}

static enum exec_result call(struct cpu *cpu, const struct insn *in, uint64_t target)
{
    if (!target_allowed(cpu, target) || !stack_push_value(cpu, insn_size(in), exec_next_rip(cpu, in)))
        return exec_fault(cpu, in);
    return leave_to(cpu, target);
}

enum exec_result exec_call(struct cpu *cpu, const struct insn *in) { return call(cpu, in, relative_target(cpu, in)); }

static bool indirect_target(struct cpu *cpu, const struct insn *in, uint64_t *target)
{
    return operand_read(cpu, in, insn_size(in), target);
}

static enum exec_result do_jmp_ind(struct cpu *cpu, const struct insn *in)
{
    uint64_t target;
    if (!indirect_target(cpu, in, &target) || !target_allowed(cpu, target))
        return exec_fault(cpu, in);
    return leave_to(cpu, target);
}

enum exec_result exec_jmp_ind(struct cpu *cpu, const struct insn *in) { return do_jmp_ind(cpu, in); }

enum exec_result exec_call_ind(struct cpu *cpu, const struct insn *in)
{
    uint64_t target;
    if (!indirect_target(cpu, in, &target))
        return exec_fault(cpu, in);
    return call(cpu, in, target);
}

enum exec_result exec_ret(struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    uint64_t target;
    if (!stack_peek(cpu, 0, size, &target) || !target_allowed(cpu, target))
        return exec_fault(cpu, in);
    stack_set(cpu, cpu->regs[REG_RSP] + size + (in->has_imm ? (uint64_t)in->imm : 0));
    return leave_to(cpu, target);
}

// ---- Flat modes ----

// Of 48-bit addresses; with 57 the general handlers decide.
ALWAYS_INLINE bool surely_canonical(uint64_t target) { return is_canonical(target, 48); }

enum exec_result fast_JMP_IND_R_3(struct cpu *cpu, const struct insn *in)
{
    uint64_t target = cpu->regs[in->rm];
    if (unlikely(!surely_canonical(target)))
        return exec_jmp_ind(cpu, in);
    return exec_goto(cpu, target);
}

ALWAYS_INLINE enum exec_result jump_memory(struct cpu *cpu, const struct insn *in, enum insn_address address)
{
    const void *source;
    if (unlikely(!fast_read(cpu, fast_linear(cpu, in, address), 8, &source)))
        return exec_jmp_ind(cpu, in);
    uint64_t target = host_load(source, 8);
    if (unlikely(!surely_canonical(target)))
        return exec_jmp_ind(cpu, in);
    return exec_goto(cpu, target);
}

enum exec_result fast_JMP_IND_M_3_0(struct cpu *cpu, const struct insn *in)
{
    return jump_memory(cpu, in, ADDRESS_GENERAL);
}

enum exec_result fast_JMP_IND_M_3_1(struct cpu *cpu, const struct insn *in)
{
    return jump_memory(cpu, in, ADDRESS_BASE);
}

// Pushes the return address by the fast way. False: nothing was done.
ALWAYS_INLINE bool push_return(struct cpu *cpu, const struct insn *in, unsigned size)
{
    uint64_t rsp = truncated(cpu->regs[REG_RSP] - size, size);
    void *host;
    if (unlikely(!fast_write(cpu, rsp, size, &host)))
        return false;
    host_store(host, size, cpu->regs[REG_RIP] + in->delta + in->length);
    cpu->regs[REG_RSP] = rsp;
    return true;
}

enum exec_result fast_CALL_3(struct cpu *cpu, const struct insn *in)
{
    uint64_t target = cpu->regs[REG_RIP] + in->delta + in->length + (uint64_t)in->imm;
    if (unlikely(!surely_canonical(target) || !push_return(cpu, in, 8)))
        return exec_call(cpu, in);
    return exec_goto(cpu, target);
}

enum exec_result fast_CALL_IND_R_3(struct cpu *cpu, const struct insn *in)
{
    uint64_t target = cpu->regs[in->rm];
    if (unlikely(!surely_canonical(target) || !push_return(cpu, in, 8)))
        return exec_call_ind(cpu, in);
    return exec_goto(cpu, target);
}

ALWAYS_INLINE enum exec_result ret(struct cpu *cpu, const struct insn *in, unsigned size)
{
    uint64_t rsp = truncated(cpu->regs[REG_RSP], size);
    const void *source;
    if (unlikely(!fast_read(cpu, rsp, size, &source)))
        return exec_ret(cpu, in);
    uint64_t target = host_load(source, size);
    if (unlikely(!surely_canonical(target)))
        return exec_ret(cpu, in);
    cpu->regs[REG_RSP] = truncated(rsp + size + (uint64_t)in->imm, size);
    return exec_goto(cpu, target);
}

enum exec_result fast_RET_2(struct cpu *cpu, const struct insn *in) { return ret(cpu, in, 4); }
enum exec_result fast_RET_3(struct cpu *cpu, const struct insn *in) { return ret(cpu, in, 8); }

// ---- Linked branches ----

enum exec_result linked_JMP(struct cpu *cpu, const struct insn *in)
{
    return exec_follow(cpu, 1, cpu->regs[REG_RIP] + (uint64_t)in->imm);
}

ALWAYS_INLINE enum exec_result linked_branch(struct cpu *cpu, const struct insn *in, bool taken)
{
    if (taken)
        return exec_follow(cpu, 1, cpu->regs[REG_RIP] + (uint64_t)in->imm);
    return exec_follow(cpu, 0, cpu->regs[REG_RIP] + (uint64_t)(int64_t)in->disp);
}

static enum exec_result linked_call_slow(struct cpu *cpu, const struct insn *in)
{
    return call(cpu, in, cpu->regs[REG_RIP] + (uint64_t)in->imm);
}

enum exec_result linked_CALL_2(struct cpu *cpu, const struct insn *in)
{
    if (unlikely(!push_return(cpu, in, 4)))
        return linked_call_slow(cpu, in);
    return exec_follow(cpu, 1, cpu->regs[REG_RIP] + (uint64_t)in->imm);
}

enum exec_result linked_CALL_3(struct cpu *cpu, const struct insn *in)
{
    if (unlikely(!push_return(cpu, in, 8)))
        return linked_call_slow(cpu, in);
    return exec_follow(cpu, 1, cpu->regs[REG_RIP] + (uint64_t)in->imm);
}

#define CONDITION(code, jcc, setcc, cmovcc)                               \
    enum exec_result linked_##jcc(struct cpu *cpu, const struct insn *in) \
    {                                                                     \
        return linked_branch(cpu, in, condition(cpu, code));              \
    }
#include "cpu/handlers.def"

// ---- An arithmetic instruction and the linked conditional branch after it ----

// The condition after a comparison of these operands. Unsigned and signed order directly, the others from the flags just set.
ALWAYS_INLINE bool condition_of_compare(const struct cpu *cpu, unsigned code, unsigned size, uint64_t a, uint64_t b)
{
    bool value;
    uint64_t ua = truncated(a, size), ub = truncated(b, size);
    int64_t sa = (int64_t)sign_extended(a, size), sb = (int64_t)sign_extended(b, size);
    switch (code >> 1) {
    case 1: value = ua < ub; break;
    case 2: value = ua == ub; break;
    case 3: value = ua <= ub; break;
    case 6: value = sa < sb; break;
    case 7: value = sa <= sb; break;
    default: return condition(cpu, code);
    }
    return value != (code & 1);
}

ALWAYS_INLINE enum exec_result fused(struct cpu *cpu, const struct insn *in, unsigned op, enum insn_kind kind,
                                     unsigned size, unsigned code)
{
    uint64_t a = reg_read(cpu, in->rm, size), b = 0, result;
    uint32_t aux;
    bool writes = alu_writes(op);
    if (kind == KIND_R) {
        result = unary_compute(cpu, op, size, a, &aux);
    } else {
        b = kind == KIND_RI ? (uint64_t)in->imm : reg_read(cpu, in->reg, size);
        result = alu_compute(cpu, op, size, a, b, &aux);
    }
    if (writes)
        reg_write(cpu, in->rm, size, result);
    set_flags(cpu, result, size, aux);
    bool taken = op == OP_CMP || op == OP_SUB ? condition_of_compare(cpu, code, size, a, b) : condition(cpu, code);
    return linked_branch(cpu, in + 1, taken);
}

#define FUSED(op, kind, size, code)                                                                       \
    static enum exec_result fused_##op##_##kind##_##size##_##code(struct cpu *cpu, const struct insn *in) \
    {                                                                                                     \
        return fused(cpu, in, OP_##op, KIND_##kind, 1u << size, code);                                    \
    }
// The formatter never comes to rest on this list.
// clang-format off
#define FUSED_16(X, op, kind, size) \
    X(op, kind, size, 0) X(op, kind, size, 1) X(op, kind, size, 2) X(op, kind, size, 3) \
    X(op, kind, size, 4) X(op, kind, size, 5) X(op, kind, size, 6) X(op, kind, size, 7) \
    X(op, kind, size, 8) X(op, kind, size, 9) X(op, kind, size, 10) X(op, kind, size, 11) \
    X(op, kind, size, 12) X(op, kind, size, 13) X(op, kind, size, 14) X(op, kind, size, 15)
// clang-format on
#define NAME(op, kind, size, code) fused_##op##_##kind##_##size##_##code,
#define FUSE(op, kind, size)        \
    FUSED_16(FUSED, op, kind, size) \
    exec_fn *const fused_##op##_##kind##_##size[16] = {FUSED_16(NAME, op, kind, size)};
#include "cpu/handlers.def"
#undef FUSED
#undef FUSED_16
#undef NAME
