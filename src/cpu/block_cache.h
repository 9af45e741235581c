// The inside of the block cache, for block.c, run.c and the handlers that go from block to block. Not for other modules.
//
// Blocks lie in one arena that is emptied as a whole when it is full, between instructions: a block stays readable for
// as long as execution is in it, even after its code was written.
#ifndef VMXON_CPU_BLOCK_CACHE_H
#define VMXON_CPU_BLOCK_CACHE_H

#include "cpu/block.h"
#include "cpu/exec.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))
// For the working part of a general handler: its locals have their address taken, which would keep the handler from ending in a jump.
#define NEVER_INLINE static __attribute__((noinline))

enum {
    JUMP_BITS = 12,
    JUMP_ENTRIES = 1 << JUMP_BITS,
    BLOCK_HASH_SIZE = 1 << 15,
    PAGE_HASH_SIZE = 1 << 12,
    GRANULE_SHIFT = 6, // writes are held against 64-byte granules of a page first
};

// Where a RIP led the last time, in modes with a flat code segment. Checked against the current translation at each use.
struct jump_entry {
    uint64_t rip;
    const struct block *block;
};

// A physical page that blocks were made from.
struct code_page {
    hpa_t frame;
    uint64_t granules; // bit n: some block covers bytes of granule n
    struct block *blocks;
    struct code_page *hash_next;
};

struct block_cache {
    struct jump_entry jump[JUMP_ENTRIES];
    struct cpu *cpu;
    struct memory *memory;
    struct block_cache *next; // other caches of the same memory
    uint8_t *arena;
    size_t used;             // bytes
    struct block *scratch;   // a block of one instruction that is not kept
    uint16_t cost[OP_COUNT]; // op_cost of each op, where the hot path finds it
    uint64_t built, dropped; // blocks; statistics
    struct block *hash[BLOCK_HASH_SIZE];
    struct code_page *pages[PAGE_HASH_SIZE];
};

ALWAYS_INLINE struct jump_entry *jump_slot(struct block_cache *cache, uint64_t rip)
{
    return &cache->jump[(rip ^ (rip >> JUMP_BITS)) & (JUMP_ENTRIES - 1)];
}

// The block of this key, or NULL. mode: enum code_mode bits.
struct block *block_find(struct block_cache *cache, hpa_t address, unsigned mode);
// Decodes a block from RAM. NULL: its first instruction does not end in this page.
struct block *block_build(struct block_cache *cache, hpa_t address, unsigned mode);
// A block of one instruction from `available` bytes at `bytes`, valid until the next call. NULL: they do not hold a whole one.
const struct block *block_build_scratch(struct block_cache *cache, const uint8_t *bytes, unsigned available,
                                        unsigned mode);

// Cycles of the instruction when it retires.
ALWAYS_INLINE unsigned insn_cost(const struct cpu *cpu, const struct insn *in) { return cpu->blocks->cost[in->op]; }

// Enters a block whose cost the budget covers. The last thing a handler does.
ALWAYS_INLINE enum exec_result block_enter(struct cpu *cpu, const struct block *block)
{
    cpu->cycles_left -= block->cost;
    cpu->instructions += block->count;
    cpu->block = block;
#if VMXON_TAIL_CALLS
    return block->insns[0].exec(cpu, block->insns);
#else
    cpu->next_insn = block->insns;
    return EXEC_BLOCK;
#endif
}

ALWAYS_INLINE bool block_fits(const struct cpu *cpu, const struct block *block)
{
    return block->cost <= cpu->cycles_left;
}

// The way on to a successor without a link, or one that the budget does not cover. The instruction that ends the
// running block has retired; `which` is the link to make.
enum exec_result exec_link_slow(struct cpu *cpu, unsigned which, uint64_t target);
// The same for a successor that the jump cache does not know on the present code page.
enum exec_result exec_goto_slow(struct cpu *cpu, uint64_t target);

// Goes on at a RIP of the present code page, along a link of the running block.
ALWAYS_INLINE enum exec_result exec_follow(struct cpu *cpu, unsigned which, uint64_t target)
{
    const struct block *next = cpu->block->link[which];
    if (unlikely(!block_fits(cpu, next)))
        return exec_link_slow(cpu, which, target);
    cpu->regs[REG_RIP] = target;
    return block_enter(cpu, next);
}

// The block at RIP `target`, if the jump cache knows it on the present code page and the budget covers it; or NULL.
ALWAYS_INLINE const struct block *jump_cached(struct cpu *cpu, uint64_t target)
{
    const struct jump_entry *entry = jump_slot(cpu->blocks, target);
    const struct block *block = entry->block;
    if (likely(entry->rip == target && (target & PAGE_FRAME_MASK) == cpu->mmu.code.page &&
               (block->address ^ cpu->mmu.code.frame) < PAGE_SIZE && block->mode == cpu->mode &&
               block_fits(cpu, block)))
        return block;
    return NULL;
}

// Goes on at any RIP, canonical and within the code segment.
ALWAYS_INLINE enum exec_result exec_goto(struct cpu *cpu, uint64_t target)
{
    const struct block *block = jump_cached(cpu, target);
    if (unlikely(!block))
        return exec_goto_slow(cpu, target);
    cpu->regs[REG_RIP] = target;
    return block_enter(cpu, block);
}

// True in modes where RIP is the linear address and no limit applies: links and the jump cache are for these.
static inline bool mode_is_direct(unsigned mode)
{
    return (mode & MODE_FLAT) || (mode & MODE_CODE_MASK) == MODE_CODE64;
}

// Ends of blocks, chosen by the builder.
exec_fn exec_block_end;     // falls through to the next block, in the same page, along link 0
exec_fn exec_block_end_far; // falls through, anywhere
exec_fn exec_too_long;      // more than 15 bytes: #GP(0)

#endif
