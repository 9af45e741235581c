// The decoded-block cache: derived state, coherent with stores, droppable at any time.
//
// A block is decoded once and keyed by the physical address of its first byte and by the code mode. It ends at a control
// transfer, a system instruction, the end of the page, or BLOCK_MAX_INSNS.
#ifndef VMXON_CPU_BLOCK_H
#define VMXON_CPU_BLOCK_H

#include "cpu/cpu.h"

#define BLOCK_MAX_INSNS 64

struct block {
    hpa_t address;             // of the first byte
    uint32_t mode;             // enum code_mode bits
    uint32_t cost;             // cycles of all its instructions
    uint16_t count;            // instructions
    uint16_t bytes;            // code bytes covered
    uint32_t valid;            // 0 after its code was written
    struct block *hash_next;
    struct block *page_next;   // other blocks of the same physical page
    struct block *link[2];     // successors within the page: 0 fall through, 1 branch taken
    struct insn insns[];       // count + 1 records; the last is a terminator
};

struct block_cache;

struct block_cache *block_cache_create(struct memory *memory, struct mmu *mmu);
void block_cache_destroy(struct block_cache *cache);
void block_cache_drop(struct block_cache *cache);

// Cycles of one instruction by its op (timing.def).
unsigned op_cost(unsigned op);

#endif
