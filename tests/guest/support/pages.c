/* See pages.h. */
#include "pages.h"

#include "cpu.h"

uint64_t pages_pdpt[512] __attribute__((aligned(4096)));
uint64_t pages_directory[512] __attribute__((aligned(4096)));
uint64_t pages_table[PAGES_COUNT] __attribute__((aligned(4096)));

void pages_init(void)
{
    uint64_t *pml4 = (uint64_t *)(read_cr3() & PTE_ADDRESS);
    pml4[1] = (uint64_t)pages_pdpt | PTE_P | PTE_W | PTE_U;
    pages_pdpt[0] = (uint64_t)pages_directory | PTE_P | PTE_W | PTE_U;
    pages_directory[0] = (uint64_t)pages_table | PTE_P | PTE_W | PTE_U;
    write_cr3(read_cr3());
}

void page_set(unsigned index, uint64_t entry)
{
    *(volatile uint64_t *)&pages_table[index] = entry;
    invlpg(page_address(index));
}
