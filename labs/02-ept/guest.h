/*
 * The 64-bit guest of lab 02: it does one memory access after the other, as the hypervisor tells it, on page tables of
 * its own. An access is begun, exits or not, and is ended:
 *
 *   guest_begin(GUEST_READ, WINDOW_GVA, 0);   the guest runs until the first VM exit, which the VMCS tells of
 *   ...                                       the hypervisor looks, and repairs
 *   value = guest_end();                      the guest tries again, and must complete the access now
 */
#ifndef LABS_02_GUEST_H
#define LABS_02_GUEST_H

/* Operations, in RDI; the address in RSI, the value in RDX. */
#define GUEST_READ  1 /* result: the quadword there */
#define GUEST_WRITE 2 /* result: the value written */
#define GUEST_CALL  3 /* result: what the function there leaves in RAX */

#ifndef __ASSEMBLER__
#include <stdint.h>

/*
 * What the guest's page tables map:
 *   0 to 2 GiB                      the same guest-physical address
 *   WINDOW_GVA, 512 pages           WINDOW_GPA on
 *   WINDOW_GVA + 2 MiB, 512 pages   WINDOW_GPA on, but through a page table that lies at WALK_TABLE_GPA
 */
#define WINDOW_GVA     UINT64_C(0x8000000000)
#define WINDOW_GPA     UINT64_C(0xC0000000)
#define WALK_GVA       (WINDOW_GVA + (2 << 20))
#define WALK_TABLE_GPA (WINDOW_GPA + 511 * 4096)

/* Builds the page tables. */
void guest_build_page_tables(void);

/* The table that the hypervisor has to put at WALK_TABLE_GPA, and the guest's own entry for window page `page`. */
uint64_t *guest_walk_table(void);
uint64_t *guest_window_entry(unsigned page);

/* Fills the guest-state area of the current VMCS and launches the guest, up to its first question. */
void guest_launch(void);

void guest_begin(unsigned operation, uint64_t gva, uint64_t value);

/* Ends the run with a report if the guest exits again for another reason than to return the result. */
uint64_t guest_end(void);

/* For an access that causes no exit. */
uint64_t guest_do(unsigned operation, uint64_t gva, uint64_t value);
#endif

#endif
