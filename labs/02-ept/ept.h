/*
 * Extended page tables of four levels: from guest-physical to host-physical addresses.
 * SDM 3C "The Extended Page Table Mechanism (EPT)".
 */
#ifndef LABS_02_EPT_H
#define LABS_02_EPT_H

#include <stdbool.h>
#include <stdint.h>

/*
 * An entry that maps a page:
 *   51:12 address | 9 dirty | 8 accessed | 7 page larger than 4 KiB | 6 ignore PAT | 5:3 memory type | 2 X | 1 W | 0 R
 */
enum ept_entry_bits {
    EPT_READ = 1 << 0,
    EPT_WRITE = 1 << 1,
    EPT_EXECUTE = 1 << 2,
    EPT_ALL_RIGHTS = EPT_READ | EPT_WRITE | EPT_EXECUTE,
    EPT_TYPE_WRITE_BACK = 6 << 3,
    EPT_LARGE_PAGE = 1 << 7,
    EPT_ACCESSED = 1 << 8,
    EPT_DIRTY = 1 << 9,
};

/* The base-2 logarithm of the page size. */
enum ept_page_size {
    EPT_PAGE_4K = 12,
    EPT_PAGE_2M = 21,
    EPT_PAGE_1G = 30,
};

/*
 * Maps the page of size `size` at `gpa` to `hpa`, both aligned to the size. `rights`: EPT_READ, EPT_WRITE, EPT_EXECUTE.
 * Tables on the way are allocated. A mapping that is there already is replaced; INVEPT is the caller's business.
 */
void ept_map(uint64_t gpa, uint64_t hpa, enum ept_page_size size, uint64_t rights);

/* The entry that maps the 4-KiB page at `gpa`, which must have been mapped with ept_map() once. */
volatile uint64_t *ept_entry(uint64_t gpa);

/* The value for the VMCS field eptp. */
uint64_t ept_pointer(bool accessed_dirty);

/* INVEPT of this EPTP: single-context if the processor has it, else all contexts. */
void ept_invalidate(uint64_t eptp);

#endif
