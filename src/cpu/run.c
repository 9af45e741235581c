// The run loop: which block comes next, and what has to happen between instructions.
//
// Inside a block nothing is checked: its cost and its count are paid at the entry. Blocks follow each other without
// coming back here while the budget lasts (block_cache.h). They come back (EXEC_DONE) when the next block is not known,
// when it does not fit before the deadline, after a system instruction, and after an access that may have changed the world.
// Instructions then run alone (MODE_SINGLE) wherever a boundary must be seen: near the deadline, with TF set, in an
// interrupt shadow, with breakpoints, on behalf of VMX, when the caller steps.
#include "base/assert.h"
#include "cpu/block_cache.h"
#include "cpu/handlers.h"
#include "cpu/system.h"
#include "cpu/timing.h"

// Pending work that needs a look before every instruction.
enum {
    PENDING_EACH_INSTRUCTION = PENDING_VMX | PENDING_DEBUG | PENDING_INHIBIT | PENDING_SINGLE_STEP | PENDING_BREAKPOINTS
};

// ---- Leaving a block ----

// Takes back what was paid for the instructions of the running block from number `first` on.
static void refund(struct cpu *cpu, const struct block *block, unsigned first)
{
    if (first == 0 && block->cost != BLOCK_COST_NEVER) {
        cpu->cycles_left += block->cost;
    } else {
        for (unsigned i = first; i < block->count; i++)
            cpu->cycles_left += insn_cost(cpu, &block->insns[i]);
    }
    cpu->instructions -= block->count - first;
}

void exec_leave_before(struct cpu *cpu, const struct insn *in)
{
    const struct block *block = cpu->block;
    refund(cpu, block, (unsigned)(in - block->insns));
    cpu->regs[REG_RIP] = exec_rip(cpu, in) & cpu->rip_mask;
    cpu->block = NULL;
}

enum exec_result exec_leave_after(struct cpu *cpu, const struct insn *in)
{
    const struct block *block = cpu->block;
    refund(cpu, block, (unsigned)(in - block->insns) + 1);
    cpu->regs[REG_RIP] = exec_next_rip(cpu, in);
    cpu->block = NULL;
    return EXEC_DONE;
}

void exec_retire(struct cpu *cpu, const struct insn *in)
{
    cpu->instructions++;
    cpu->cycles_left -= insn_cost(cpu, in);
}

// ---- Exceptions of instructions ----

enum exec_result raise_exception(struct cpu *cpu, enum vector vector)
{
    cpu->event = (struct event){.vector = (uint8_t)vector, .type = EVENT_HARDWARE_EXCEPTION};
    return EXEC_FAULT;
}

enum exec_result raise_error(struct cpu *cpu, enum vector vector, uint32_t error_code)
{
    cpu->event = (struct event){
        .vector = (uint8_t)vector, .type = EVENT_HARDWARE_EXCEPTION, .has_error_code = true, .error_code = error_code};
    return EXEC_FAULT;
}

// ---- Handlers of the builder ----

enum exec_result exec_too_long(struct cpu *cpu, const struct insn *in)
{
    raise_error(cpu, VECTOR_GP, 0);
    return exec_fault(cpu, in);
}

enum exec_result exec_reference(struct cpu *cpu, const struct insn *in)
{
    if (!cpu->env.reference) {
        raise_exception(cpu, VECTOR_UD);
        return exec_fault(cpu, in);
    }
    return cpu->env.reference(cpu, in);
}

// ---- Finding the next block ----

// Linear address of the next instruction. False: #GP(0) is in cpu->event.
static bool fetch_address(struct cpu *cpu, gva_t *linear)
{
    uint64_t rip = cpu->regs[REG_RIP];
    bool allowed;
    if (cpu_64bit(cpu)) {
        *linear = rip;
        allowed = is_canonical(rip, cpu_linear_width(cpu));
    } else {
        *linear = (uint32_t)(cpu->segments[SEG_CS].base + rip);
        allowed = rip <= cpu->segments[SEG_CS].limit;
    }
    if (unlikely(!allowed))
        raise_error(cpu, VECTOR_GP, 0);
    return allowed;
}

// Makes mmu.code the translation of the page of `linear`. False: cpu->event is set.
static bool fetch_translate(struct cpu *cpu, gva_t linear)
{
    gva_t page = linear & PAGE_FRAME_MASK;
    hpa_t hpa;
    if (likely(cpu->mmu.code.page == page))
        return true;
    if (!mem_translate(cpu, linear, MMU_FETCH, cpu->mmu.mode, &hpa))
        return false;
    cpu->mmu.code.page = page;
    cpu->mmu.code.frame = hpa & PAGE_FRAME_MASK;
    return true;
}

// Bytes from RIP to the end of the code segment; INSN_MAX_LENGTH if there are at least so many.
static unsigned bytes_in_segment(const struct cpu *cpu)
{
    if (mode_is_direct(cpu->mode))
        return INSN_MAX_LENGTH;
    uint64_t left = (uint64_t)cpu->segments[SEG_CS].limit - cpu->regs[REG_RIP];
    return left < INSN_MAX_LENGTH ? (unsigned)left + 1 : INSN_MAX_LENGTH;
}

// Bytes `from` to `to` of the instruction at RIP, the first of them at `address`. Both within INSN_MAX_LENGTH.
static void copy_code(struct cpu *cpu, hpa_t address, uint8_t bytes[INSN_MAX_LENGTH], unsigned from, unsigned to)
{
    const uint8_t *host = memory_host(cpu->memory, address);
    for (unsigned i = from; i < to && i < INSN_MAX_LENGTH; i++)
        bytes[i] = host ? host[i - from] : (uint8_t)bus_read(cpu->bus, address + (i - from), 1);
}

// A block of one instruction that cannot be cached: it crosses into the next page or the segment's end, or is not in RAM. NULL: cpu->event is set.
static const struct block *fetch_scratch(struct cpu *cpu, gva_t linear, hpa_t address)
{
    uint8_t bytes[INSN_MAX_LENGTH];
    unsigned allowed = bytes_in_segment(cpu);
    unsigned room = (unsigned)(PAGE_SIZE - (address & PAGE_OFFSET_MASK)), first = room < allowed ? room : allowed;
    copy_code(cpu, address, bytes, 0, first);
    const struct block *block = block_build_scratch(cpu->blocks, bytes, first, cpu->mode);
    if (block)
        return block;
    if (first < allowed) {
        gva_t next = (linear & PAGE_FRAME_MASK) + PAGE_SIZE;
        hpa_t second;
        if (!cpu_64bit(cpu))
            next = (uint32_t)next;
        if (cpu_64bit(cpu) && !is_canonical(next, cpu_linear_width(cpu))) {
            raise_error(cpu, VECTOR_GP, 0);
            return NULL;
        }
        if (!mem_translate(cpu, next, MMU_FETCH, cpu->mmu.mode, &second))
            return NULL;
        copy_code(cpu, second, bytes, first, allowed);
        block = block_build_scratch(cpu->blocks, bytes, allowed, cpu->mode);
    }
    if (!block)
        raise_error(cpu, VECTOR_GP, 0);
    return block;
}

// True if the code segment ends, or RIP wraps, within the block.
static bool leaves_segment(const struct cpu *cpu, const struct block *block)
{
    return !mode_is_direct(block->mode) && cpu->regs[REG_RIP] + block->bytes - 1 > cpu->segments[SEG_CS].limit;
}

// The block at RIP, of one instruction if `single`. NULL: cpu->event is set, RIP at the instruction.
static const struct block *fetch_block(struct cpu *cpu, bool single)
{
    gva_t linear;
    if (!fetch_address(cpu, &linear) || !fetch_translate(cpu, linear))
        return NULL;
    hpa_t address = cpu->mmu.code.frame | (linear & PAGE_OFFSET_MASK);
    unsigned mode = (cpu->mode & ~(unsigned)MODE_SINGLE) | (single ? MODE_SINGLE : 0u);
    const struct block *block = block_find(cpu->blocks, address, mode);
    if (unlikely(!block)) {
        if (memory_host(cpu->memory, address))
            block = block_build(cpu->blocks, address, mode);
        if (!block)
            return fetch_scratch(cpu, linear, address);
    }
    if (unlikely(leaves_segment(cpu, block)))
        return single ? fetch_scratch(cpu, linear, address) : fetch_block(cpu, true);
    if (!single && mode_is_direct(mode))
        *jump_slot(cpu->blocks, cpu->regs[REG_RIP]) = (struct jump_entry){.rip = cpu->regs[REG_RIP], .block = block};
    return block;
}

// ---- Running ----

// Runs blocks until one comes back with other than EXEC_NEXT or EXEC_BLOCK.
static enum exec_result run_blocks(struct cpu *cpu, const struct block *block)
{
    cpu->stop_block = 0;
    cpu->cycles_left -= block->cost;
    cpu->instructions += block->count;
    cpu->block = block;
    const struct insn *in = block->insns;
    for (;;) {
        enum exec_result result = in->exec(cpu, in);
        if (result == EXEC_BLOCK)
            in = cpu->next_insn;
        else if (result == EXEC_NEXT)
            in++; // only without tail calls, where every handler comes back here
        else
            return result;
    }
}

// One instruction, and what frames it. EXEC_FAULT: cpu->event is to be delivered.
static enum exec_result run_single(struct cpu *cpu)
{
    uint32_t pending = cpu->pending;
    if ((pending & PENDING_BREAKPOINTS) && debug_instruction_breakpoint(cpu))
        return EXEC_FAULT;
    if (pending & PENDING_SINGLE_STEP)
        debug_step_begin(cpu);
    if (pending & PENDING_INHIBIT)
        interrupt_inhibit_begin(cpu);
    const struct block *block = fetch_block(cpu, true);
    if (!block)
        return EXEC_FAULT;
    cpu->mode |= MODE_SINGLE;
    enum exec_result result = run_blocks(cpu, block);
    cpu->mode &= ~(unsigned)MODE_SINGLE;
    if (result != EXEC_DONE && result != EXEC_HALT)
        return result; // a fault, or a VM transition that loaded all of this state
    if (pending & PENDING_INHIBIT)
        interrupt_inhibit_end(cpu);
    if (pending & PENDING_SINGLE_STEP)
        debug_step_end(cpu);
    return result;
}

// As many instructions as go without a look in between, at least one.
static enum exec_result run_free(struct cpu *cpu)
{
    const struct block *block = jump_cached(cpu, cpu->regs[REG_RIP]);
    if (likely(block))
        return run_blocks(cpu, block);
    block = fetch_block(cpu, false);
    if (unlikely(!block))
        return EXEC_FAULT;
    if (likely(block_fits(cpu, block)))
        return run_blocks(cpu, block);
    return run_single(cpu);
}

// What an instruction boundary asks for. EXEC_NEXT: run an instruction.
static enum exec_result at_boundary(struct cpu *cpu)
{
    if (likely(!cpu->pending && cpu->activity == ACTIVITY_ACTIVE))
        return EXEC_NEXT;
    return interrupt_poll(cpu);
}

// One step of the loop: an event, an instruction, or many.
static enum exec_result step(struct cpu *cpu, bool single)
{
    enum exec_result result = at_boundary(cpu);
    if (result != EXEC_NEXT)
        return result;
    result = single || (cpu->pending & PENDING_EACH_INSTRUCTION) ? run_single(cpu) : run_free(cpu);
    if (result == EXEC_FAULT && cpu->run_alone) {
        // No boundary lies between: the instruction was begun, and may have been charged for page walks.
        cpu->run_alone = false;
        result = run_single(cpu);
    }
    if (result != EXEC_FAULT)
        return result;
    ASSERT(!cpu->block, "a handler that faults leaves its block");
    return exception_deliver(cpu);
}

enum exec_result cpu_run(struct cpu *cpu, cycle_t deadline, bool single)
{
    cpu->cycles_left += (int64_t)(deadline - cpu->deadline);
    cpu->deadline = deadline;
    while (cpu->cycles_left > 0) {
        enum exec_result result = cpu->pending & PENDING_STOP ? EXEC_STOP : step(cpu, single);
        cpu->block = NULL;
        if (result == EXEC_HALT || result == EXEC_STOP)
            return result;
        if (single)
            break;
    }
    return EXEC_DONE;
}
