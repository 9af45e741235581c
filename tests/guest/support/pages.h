/*
 * 4-KiB mappings beside the boot page tables' identity map, in linear addresses from PAGES_BASE on.
 * SDM 3A "4-Level Paging and 5-Level Paging".
 */
#ifndef GUEST_SUPPORT_PAGES_H
#define GUEST_SUPPORT_PAGES_H

#include <stdint.h>

#define PAGES_BASE  UINT64_C(0x8000000000) /* PML4 entry 1: 2 MiB from here can be mapped */
#define PAGES_COUNT 512

#define PTE_P        (UINT64_C(1) << 0)
#define PTE_W        (UINT64_C(1) << 1)
#define PTE_U        (UINT64_C(1) << 2)
#define PTE_A        (UINT64_C(1) << 5)
#define PTE_D        (UINT64_C(1) << 6)
#define PTE_PS       (UINT64_C(1) << 7)
#define PTE_G        (UINT64_C(1) << 8)
#define PTE_NX       (UINT64_C(1) << 63)
#define PTE_ADDRESS  UINT64_C(0x000FFFFFFFFFF000)
#define PTE_RESERVED (UINT64_C(1) << 51) /* beyond every MAXPHYADDR met so far */

/* The tables of PAGES_BASE: all accesses allowed above the page tables' entries. */
extern uint64_t pages_pdpt[512], pages_directory[512], pages_table[PAGES_COUNT];

void pages_init(void);

/* Linear address of page `index`, and its page-table entry. */
static inline uint64_t page_address(unsigned index) { return PAGES_BASE + index * UINT64_C(4096); }

/* Writes the entry of page `index` and executes INVLPG for it. */
void page_set(unsigned index, uint64_t entry);

#endif
