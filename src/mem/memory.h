// Guest RAM: one contiguous host block with a hole below 4 GiB for MMIO.
//
// Physical layout: RAM occupies [0, low_size) and, if larger than the hole's
// start, [4 GiB, 4 GiB + high_size). Everything else is MMIO or unbacked (the
// bus answers). Each 4-KiB page has flags: DIRTY (written since the flag was
// last cleared; snapshots use it) and CODE (decoded blocks were made from it:
// a write must go through memory_write so that they are dropped).
#ifndef VMXON_MEM_MEMORY_H
#define VMXON_MEM_MEMORY_H

#include "base/types.h"

#define MEMORY_HOLE_START 0xC0000000u         // RAM below 4 GiB ends here at the latest
#define MEMORY_HIGH_START ((hpa_t)1 << 32)    // RAM above the hole starts here
#define MEMORY_MAX_SIZE   ((uint64_t)1 << 38) // largest accepted size, bytes
#define MEMORY_ROM_PAGES  0

enum page_flag {
    PAGE_DIRTY = 1 << 0, // written since last cleared
    PAGE_CODE = 1 << 1,  // decoded code exists for this page
};

struct memory {
    uint8_t *ram;        // low_size + high_size bytes, page aligned, zero at start
    uint64_t low_size;   // bytes of RAM from physical address 0
    uint64_t high_size;  // bytes of RAM from MEMORY_HIGH_START
    uint8_t *page_flags; // one byte of enum page_flag a RAM page, indexed by page of `ram`
    // Called before a page with PAGE_CODE is written, with the written range.
    void (*code_written)(void *owner, hpa_t address, unsigned size);
    void *code_owner;
};

enum memory_status {
    MEMORY_OK,
    MEMORY_BAD_SIZE, // zero, not a multiple of 4 KiB, or above MEMORY_MAX_SIZE
    MEMORY_NO_HOST,  // the host cannot map so much
};

// Creates `size` bytes of zeroed RAM (size: multiple of 4 KiB). Pages cost the host nothing until touched.
enum memory_status memory_create(struct memory *memory, uint64_t size);
void memory_destroy(struct memory *memory);

// Offset into memory->ram of a physical address, or UINT64_MAX if it is not RAM.
static inline uint64_t memory_ram_offset(const struct memory *memory, hpa_t address)
{
    if (likely(address < memory->low_size))
        return address;
    if (address >= MEMORY_HIGH_START && address - MEMORY_HIGH_START < memory->high_size)
        return address - MEMORY_HIGH_START + memory->low_size;
    return UINT64_MAX;
}

// Physical address of an offset into memory->ram.
static inline hpa_t memory_ram_address(const struct memory *memory, uint64_t offset)
{
    return offset < memory->low_size ? offset : offset - memory->low_size + MEMORY_HIGH_START;
}

// Host pointer to RAM for reading, valid to the end of its 4-KiB page; NULL if the address is not RAM.
static inline uint8_t *memory_host(const struct memory *memory, hpa_t address)
{
    uint64_t offset = memory_ram_offset(memory, address);
    return offset == UINT64_MAX ? NULL : memory->ram + offset;
}

// True if [address, address + size) is RAM throughout.
bool memory_is_ram(const struct memory *memory, hpa_t address, uint64_t size);

// Copies between RAM and a buffer; any length and alignment. False (and nothing copied) if the range is not all RAM.
bool memory_read(const struct memory *memory, hpa_t address, void *buffer, uint64_t size);
bool memory_write(struct memory *memory, hpa_t address, const void *buffer, uint64_t size);

// Marks the page of a RAM address as about to be written through a host pointer: sets
// PAGE_DIRTY, and tells code_owner if it holds decoded code in [address, address + size).
void memory_note_write(struct memory *memory, hpa_t address, unsigned size);

#endif
