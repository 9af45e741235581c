// The decoded-block cache: derived state, coherent with stores, droppable at any time.
//
// A block is decoded once and keyed by the physical address of its first byte and by the code mode. It ends at a control
// transfer, a system instruction, the end of the page, or BLOCK_MAX_INSNS.
#ifndef VMXON_CPU_BLOCK_H
#define VMXON_CPU_BLOCK_H

#include "cpu/cpu.h"

#define BLOCK_MAX_INSNS 64

// The cost of a block that may not be entered: invalidated, or the end of a link not made yet. No budget covers it, so
// that the one comparison at the entry of a block is enough.
#define BLOCK_COST_NEVER INT64_MAX

struct block {
    hpa_t address;  // of the first byte
    int64_t cost;   // cycles of all its instructions, or BLOCK_COST_NEVER: its code was written
    uint32_t mode;  // enum code_mode bits
    uint16_t count; // instructions
    uint16_t bytes; // code bytes covered
    struct block *hash_next;
    struct block *page_next;     // other blocks of the same physical page
    const struct block *link[2]; // successors within the page: 0 fall through, 1 branch taken; &block_none: not linked
    const uint8_t *host;         // the first byte in host memory; NULL: a block outside the cache
    struct insn insns[];         // count + 1 records; the last is a terminator
};
static_assert(sizeof(struct block) == 64, "the first instruction begins a cache line");

// Stands for "no block" wherever one is entered: its cost is BLOCK_COST_NEVER.
extern const struct block block_none;

struct block_cache;

// The cache of the vCPU that `mmu` is part of. Listens to writes of code pages through memory->code_written; several caches
// may share one memory. NULL if the host has no memory.
struct block_cache *block_cache_create(struct memory *memory, struct mmu *mmu);
void block_cache_destroy(struct block_cache *cache);
// Drops all blocks. To be called between instructions only.
void block_cache_drop(struct block_cache *cache);

// Cycles of one instruction by its op (timing.def).
unsigned op_cost(unsigned op);

#endif
