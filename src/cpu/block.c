// The decoded-block cache: building, finding and invalidating blocks.
//
// Invalidation is by written range. A store into a page with code comes here because such a page has no fast write tag;
// 64-byte granules decide quickly that data beside code was meant. An invalidated block is taken out of the hash table
// and gets a cost that no budget covers, so every link and jump-cache entry that leads to it fails by itself.
#include <string.h>

#include "base/assert.h"
#include "base/host.h"
#include "cpu/block_cache.h"
#include "cpu/handlers.h"
#include "cpu/select.h"

enum {
    ARENA_SIZE = 32 << 20,
    ARENA_ALIGNMENT = 64,
    BLOCK_MAX_BYTES = sizeof(struct block) + (BLOCK_MAX_INSNS + 1) * sizeof(struct insn),
    SCRATCH_BYTES = sizeof(struct block) + 2 * sizeof(struct insn),
};

const struct block block_none = {.cost = BLOCK_COST_NEVER, .address = UINT64_MAX, .link = {&block_none, &block_none}};

static void code_written(void *owner, hpa_t address, unsigned size);

static size_t align_up(size_t bytes) { return (bytes + ARENA_ALIGNMENT - 1) & ~(size_t)(ARENA_ALIGNMENT - 1); }

// ---- Creation ----

static void clear_tables(struct block_cache *cache)
{
    memset(cache->hash, 0, sizeof(cache->hash));
    memset(cache->pages, 0, sizeof(cache->pages));
    for (unsigned i = 0; i < JUMP_ENTRIES; i++)
        cache->jump[i] = (struct jump_entry){.rip = UINT64_MAX, .block = &block_none};
    cache->used = align_up(SCRATCH_BYTES);
}

static uint64_t cache_mapping_size(void) { return (sizeof(struct block_cache) + PAGE_OFFSET_MASK) & PAGE_FRAME_MASK; }

struct block_cache *block_cache_create(struct memory *memory, struct mmu *mmu)
{
    struct block_cache *cache = host_map_zeroed(cache_mapping_size());
    if (!cache)
        return NULL;
    cache->arena = host_map_zeroed(ARENA_SIZE);
    if (!cache->arena) {
        host_unmap(cache, cache_mapping_size());
        return NULL;
    }
    cache->cpu = (struct cpu *)((uint8_t *)mmu - offsetof(struct cpu, mmu));
    cache->memory = memory;
    for (unsigned op = 0; op < OP_COUNT; op++)
        cache->cost[op] = (uint16_t)op_cost(op);
    cache->scratch = (struct block *)cache->arena;
    clear_tables(cache);
    if (memory->code_written == code_written)
        cache->next = memory->code_owner;
    memory->code_written = code_written;
    memory->code_owner = cache;
    return cache;
}

void block_cache_destroy(struct block_cache *cache)
{
    block_cache_drop(cache);
    struct memory *memory = cache->memory;
    struct block_cache *previous = memory->code_owner;
    if (previous == cache) {
        memory->code_owner = cache->next;
        if (!cache->next)
            memory->code_written = NULL;
    } else {
        while (previous->next != cache)
            previous = previous->next;
        previous->next = cache->next;
    }
    host_unmap(cache->arena, ARENA_SIZE);
    host_unmap(cache, cache_mapping_size());
}

// ---- Pages ----

static struct code_page **page_bucket(struct block_cache *cache, hpa_t frame)
{
    return &cache->pages[(frame >> PAGE_SHIFT) & (PAGE_HASH_SIZE - 1)];
}

static struct code_page *page_find(struct block_cache *cache, hpa_t frame)
{
    struct code_page *page = *page_bucket(cache, frame);
    while (page && page->frame != frame)
        page = page->hash_next;
    return page;
}

// True if a cache of this memory other than `except` (NULL: any) has blocks of the page.
static bool page_has_code(struct memory *memory, hpa_t frame, const struct block_cache *except)
{
    for (struct block_cache *cache = memory->code_owner; cache; cache = cache->next) {
        const struct code_page *page = cache == except ? NULL : page_find(cache, frame);
        if (page && page->blocks)
            return true;
    }
    return false;
}

static uint8_t *page_flags(struct memory *memory, hpa_t frame)
{
    return &memory->page_flags[memory_ram_offset(memory, frame) >> PAGE_SHIFT];
}

// Marks a page as holding code: from now on no vCPU writes it by a fast tag.
static void page_protect(struct block_cache *cache, hpa_t frame)
{
    uint8_t *flags = page_flags(cache->memory, frame);
    if (*flags & PAGE_CODE)
        return;
    *flags |= PAGE_CODE;
    for (struct block_cache *each = cache->memory->code_owner; each; each = each->next)
        mmu_protect_frame(&each->cpu->mmu, frame);
}

static uint64_t granules_of(hpa_t address, unsigned size)
{
    unsigned first = (unsigned)(address & PAGE_OFFSET_MASK) >> GRANULE_SHIFT;
    unsigned last = (unsigned)((address & PAGE_OFFSET_MASK) + size - 1) >> GRANULE_SHIFT;
    return BITS(last, first);
}

// ---- Finding ----

static struct block **block_bucket(struct block_cache *cache, hpa_t address, unsigned mode)
{
    uint64_t key = address ^ (address >> 15) ^ ((uint64_t)mode << 9);
    return &cache->hash[key & (BLOCK_HASH_SIZE - 1)];
}

struct block *block_find(struct block_cache *cache, hpa_t address, unsigned mode)
{
    struct block *block = *block_bucket(cache, address, mode);
    while (block && (block->address != address || block->mode != mode))
        block = block->hash_next;
    return block;
}

// ---- Invalidation ----

static void unhash(struct block_cache *cache, struct block *block)
{
    struct block **place = block_bucket(cache, block->address, block->mode);
    while (*place != block)
        place = &(*place)->hash_next;
    *place = block->hash_next;
}

static void page_invalidate(struct block_cache *cache, struct code_page *page, hpa_t address, unsigned size)
{
    uint64_t granules = 0;
    bool hit = false;
    struct block **place = &page->blocks;
    while (*place) {
        struct block *block = *place;
        if (block->address < address + size && address < block->address + block->bytes) {
            unhash(cache, block);
            block->cost = BLOCK_COST_NEVER;
            *place = block->page_next;
            cache->dropped++;
            hit = true;
        } else {
            granules |= granules_of(block->address, block->bytes);
            place = &block->page_next;
        }
    }
    page->granules = granules;
    if (hit)
        cache->cpu->stop_block = 1; // the running block may be among them
}

// The listener of struct memory: [address, address + size) within one page is about to be written.
static void code_written(void *owner, hpa_t address, unsigned size)
{
    struct block_cache *first = owner;
    hpa_t frame = address & PAGE_FRAME_MASK;
    for (struct block_cache *cache = first; cache; cache = cache->next) {
        struct code_page *page = page_find(cache, frame);
        if (page && (page->granules & granules_of(address, size)))
            page_invalidate(cache, page, address, size);
    }
    if (!page_has_code(first->memory, frame, NULL))
        *page_flags(first->memory, frame) &= (uint8_t)~PAGE_CODE;
}

void block_cache_drop(struct block_cache *cache)
{
    for (unsigned i = 0; i < PAGE_HASH_SIZE; i++) {
        for (const struct code_page *page = cache->pages[i]; page; page = page->hash_next) {
            if (!page_has_code(cache->memory, page->frame, cache))
                *page_flags(cache->memory, page->frame) &= (uint8_t)~PAGE_CODE;
        }
    }
    clear_tables(cache);
}

// ---- Building ----

static bool ends_block(const struct insn *in)
{
    return op_ends_block(in->op) || select_is_reference(in->op) || select_is_repeated_string(in);
}

// Decodes one instruction into the record after the block's last. False: the bytes do not hold a whole one.
static bool append(struct block *block, const uint8_t *bytes, unsigned available)
{
    struct insn *in = &block->insns[block->count];
    memset(in, 0, sizeof(*in));
    switch (decode(bytes, available, block->mode & ~(unsigned)MODE_SINGLE, in)) {
    case DECODE_OK: break;
    case DECODE_UNDEFINED: in->op = OP_UD; break;
    case DECODE_TOO_LONG:
        in->op = OP_UD;
        in->exec = exec_too_long;
        in->length = INSN_MAX_LENGTH;
        break;
    case DECODE_TRUNCATED: return false;
    }
    select_normalize(in);
    in->delta = block->bytes;
    block->bytes = (uint16_t)(block->bytes + in->length);
    block->count++;
    if (in->form == FORM_MEM && in->base == REG_RIP) {
        int64_t disp = (int64_t)in->disp + block->bytes;
        in->disp = (int32_t)disp;
        if (disp != in->disp)
            in->flags |= INSN_RIP_WRAP;
    }
    return true;
}

// Marks register instructions whose flags are overwritten before anything can look at them.
static void find_dead_flags(struct block *block)
{
    bool dead = false;
    for (unsigned i = block->count; i-- > 0;) {
        struct insn *in = &block->insns[i];
        switch (select_flag_use(in)) {
        case FLAGS_OBSERVED: dead = false; break;
        case FLAGS_UNTOUCHED: break;
        case FLAGS_OVERWRITTEN:
            if (dead)
                in->flags |= INSN_NO_FLAGS;
            dead = true;
            break;
        case FLAGS_CHANGED:
            if (dead)
                in->flags |= INSN_NO_FLAGS;
            break;
        case FLAGS_USED:
            if (dead)
                in->flags |= INSN_NO_FLAGS;
            dead = false;
            break;
        }
    }
}

// True if the branch and its target lie in one page in which links may be made.
static bool is_linkable(const struct block *block, const struct insn *in)
{
    if (!block->host || !mode_is_direct(block->mode) || !select_is_direct_branch(in))
        return false;
    int64_t target = (int64_t)(block->address & PAGE_OFFSET_MASK) + in->delta + in->length + in->imm;
    return target >= 0 && target < (int64_t)PAGE_SIZE;
}

// Chooses the handlers, after all instructions are known.
static void finish(struct block *block)
{
    if (!(block->mode & MODE_SINGLE))
        find_dead_flags(block);
    int64_t cost = 0;
    for (unsigned i = 0; i < block->count; i++) {
        struct insn *in = &block->insns[i];
        cost += op_cost(in->op);
        if (!in->exec)
            in->exec = select_handler(in, block->mode);
    }
    block->cost = cost;
    struct insn *last = &block->insns[block->count - 1];
    if (is_linkable(block, last)) {
        exec_fn *linked = select_linked(last, block->mode);
        if (linked) {
            last->exec = linked;
            last->imm += last->delta + last->length;
            last->disp = last->delta + last->length;
            exec_fn *fused = block->count > 1 ? select_fused(last - 1, last) : NULL;
            if (fused)
                last[-1].exec = fused;
        }
    }
    struct insn *end = last + 1;
    memset(end, 0, sizeof(*end));
    end->delta = block->bytes;
    end->exec = block->host && mode_is_direct(block->mode) ? exec_block_end : exec_block_end_far;
    block->link[0] = block->link[1] = &block_none;
}

// Enters a finished block into the tables.
static void insert(struct block_cache *cache, struct block *block)
{
    hpa_t frame = block->address & PAGE_FRAME_MASK;
    struct code_page *page = page_find(cache, frame);
    if (!page) {
        page = (struct code_page *)(cache->arena + cache->used);
        cache->used += align_up(sizeof(*page));
        struct code_page **bucket = page_bucket(cache, frame);
        *page = (struct code_page){.frame = frame, .hash_next = *bucket};
        *bucket = page;
    }
    page->granules |= granules_of(block->address, block->bytes);
    block->page_next = page->blocks;
    page->blocks = block;
    struct block **bucket = block_bucket(cache, block->address, block->mode);
    block->hash_next = *bucket;
    *bucket = block;
    page_protect(cache, frame);
    cache->built++;
}

struct block *block_build(struct block_cache *cache, hpa_t address, unsigned mode)
{
    if (cache->used + align_up(BLOCK_MAX_BYTES) + align_up(sizeof(struct code_page)) > ARENA_SIZE)
        block_cache_drop(cache);
    const uint8_t *host = memory_host(cache->memory, address);
    ASSERT(host, "blocks are made from RAM only");
    struct block *block = (struct block *)(cache->arena + cache->used);
    *block = (struct block){.address = address, .mode = mode, .host = host};
    unsigned room = (unsigned)(PAGE_SIZE - (address & PAGE_OFFSET_MASK));
    unsigned limit = mode & MODE_SINGLE ? 1 : BLOCK_MAX_INSNS;
    while (block->count < limit && block->bytes < room) {
        if (!append(block, host + block->bytes, room - block->bytes) || ends_block(&block->insns[block->count - 1]))
            break;
    }
    if (block->count == 0)
        return NULL;
    finish(block);
    cache->used += align_up(sizeof(*block) + (block->count + 1u) * sizeof(struct insn));
    insert(cache, block);
    return block;
}

const struct block *block_build_scratch(struct block_cache *cache, const uint8_t *bytes, unsigned available,
                                        unsigned mode)
{
    struct block *block = cache->scratch;
    *block = (struct block){.address = UINT64_MAX, .mode = mode | MODE_SINGLE};
    if (!append(block, bytes, available))
        return NULL;
    finish(block);
    return block;
}
