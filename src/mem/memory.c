// Guest RAM: creation, bulk copies, and the page flags that follow writes.
//
// Every write to RAM passes memory_note_write first, or was allowed to bypass
// it by a fast write tag of an MMU, which is granted only after the page was
// marked dirty and never while the page holds decoded code.
#include "mem/memory.h"

#include "base/host.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "guest values are copied without swapping");

// page_flags takes one byte a page of RAM; the mapping is rounded up to whole host pages.
static uint64_t flags_mapping_size(const struct memory *memory)
{
    uint64_t pages = (memory->low_size + memory->high_size) >> PAGE_SHIFT;
    return (pages + PAGE_OFFSET_MASK) & PAGE_FRAME_MASK;
}

enum memory_status memory_create(struct memory *memory, uint64_t size)
{
    memset(memory, 0, sizeof *memory);
    if (size == 0 || (size & PAGE_OFFSET_MASK) || size > MEMORY_MAX_SIZE)
        return MEMORY_BAD_SIZE;
    memory->low_size = size < MEMORY_HOLE_START ? size : MEMORY_HOLE_START;
    memory->high_size = size - memory->low_size;
    memory->ram = host_map_zeroed(size);
    if (memory->ram)
        memory->page_flags = host_map_zeroed(flags_mapping_size(memory));
    if (!memory->page_flags) {
        memory_destroy(memory);
        return MEMORY_NO_HOST;
    }
    return MEMORY_OK;
}

void memory_destroy(struct memory *memory)
{
    if (memory->page_flags)
        host_unmap(memory->page_flags, flags_mapping_size(memory));
    if (memory->ram)
        host_unmap(memory->ram, memory->low_size + memory->high_size);
    memset(memory, 0, sizeof *memory);
}

bool memory_is_ram(const struct memory *memory, hpa_t address, uint64_t size)
{
    if (address < memory->low_size)
        return size <= memory->low_size - address;
    if (address < MEMORY_HIGH_START || address - MEMORY_HIGH_START > memory->high_size)
        return size == 0;
    return size <= memory->high_size - (address - MEMORY_HIGH_START);
}

bool memory_read(const struct memory *memory, hpa_t address, void *buffer, uint64_t size)
{
    if (!memory_is_ram(memory, address, size))
        return false;
    if (size)
        memcpy(buffer, memory->ram + memory_ram_offset(memory, address), (size_t)size);
    return true;
}

bool memory_write(struct memory *memory, hpa_t address, const void *buffer, uint64_t size)
{
    if (!memory_is_ram(memory, address, size))
        return false;
    const uint8_t *source = buffer;
    while (size) {
        uint64_t room = PAGE_SIZE - (address & PAGE_OFFSET_MASK);
        unsigned part = (unsigned)(size < room ? size : room);
        memory_note_write(memory, address, part);
        memcpy(memory->ram + memory_ram_offset(memory, address), source, part);
        address += part;
        source += part;
        size -= part;
    }
    return true;
}

// The part of a noted write that lies in one page.
static void note_page_write(struct memory *memory, hpa_t address, unsigned size)
{
    uint8_t *flags = &memory->page_flags[memory_ram_offset(memory, address) >> PAGE_SHIFT];
    if (unlikely((*flags & PAGE_CODE) && memory->code_written))
        memory->code_written(memory->code_owner, address, size);
    *flags |= PAGE_DIRTY;
}

void memory_note_write(struct memory *memory, hpa_t address, unsigned size)
{
    unsigned room = (unsigned)(PAGE_SIZE - (address & PAGE_OFFSET_MASK));
    if (likely(size <= room)) {
        if (likely(memory_ram_offset(memory, address) != UINT64_MAX))
            note_page_write(memory, address, size);
        return;
    }
    while (size) {
        unsigned part = size < room ? size : room;
        if (memory_ram_offset(memory, address) != UINT64_MAX)
            note_page_write(memory, address, part);
        address += part;
        size -= part;
        room = (unsigned)PAGE_SIZE;
    }
}
