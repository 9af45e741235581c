/* See ept.h. */
#include "ept.h"

#include "check.h"
#include "cpu.h"
#include "vmx.h"

enum {
    ENTRIES = 512,
    INDEX_BITS = 9,
    ROOT_SHIFT = 39, /* an entry of the root covers 2^39 bytes */
    TABLES_MAX = 16,
};

#define EPT_ADDRESS_MASK UINT64_C(0x000FFFFFFFFFF000)

/* 63:12 root table | 6 enable accessed and dirty flags | 5:3 levels - 1 | 2:0 memory type of the tables */
#define EPTP_WRITE_BACK     UINT64_C(6)
#define EPTP_4_LEVELS       (UINT64_C(3) << 3)
#define EPTP_ACCESSED_DIRTY (UINT64_C(1) << 6)

typedef volatile uint64_t ept_table[ENTRIES];

static ept_table tables[TABLES_MAX] __attribute__((aligned(4096))); /* tables[0] is the root */
static unsigned tables_used = 1;

static volatile uint64_t *entry_in(volatile uint64_t *table, uint64_t gpa, unsigned shift)
{
    return &table[gpa >> shift & (ENTRIES - 1)];
}

/* The table that `entry` refers to; a new one if there is none yet. Rights are left to the last level. */
static volatile uint64_t *next_table(volatile uint64_t *entry)
{
    if (!(*entry & EPT_ALL_RIGHTS)) {
        require_quietly(tables_used < TABLES_MAX, "%u EPT tables are enough", (unsigned)TABLES_MAX);
        *entry = (uint64_t)tables[tables_used++] | EPT_ALL_RIGHTS;
    }
    return (volatile uint64_t *)(*entry & EPT_ADDRESS_MASK);
}

static volatile uint64_t *walk(uint64_t gpa, enum ept_page_size size)
{
    volatile uint64_t *table = tables[0];
    for (unsigned shift = ROOT_SHIFT; shift > size; shift -= INDEX_BITS) {
        table = next_table(entry_in(table, gpa, shift));
    }
    return entry_in(table, gpa, size);
}

void ept_map(uint64_t gpa, uint64_t hpa, enum ept_page_size size, uint64_t rights)
{
    *walk(gpa, size) = hpa | EPT_TYPE_WRITE_BACK | rights | (size > EPT_PAGE_4K ? EPT_LARGE_PAGE : 0);
}

volatile uint64_t *ept_entry(uint64_t gpa) { return walk(gpa, EPT_PAGE_4K); }

uint64_t ept_pointer(bool accessed_dirty)
{
    return (uint64_t)tables[0] | EPTP_4_LEVELS | EPTP_WRITE_BACK | (accessed_dirty ? EPTP_ACCESSED_DIRTY : 0);
}

void ept_invalidate(uint64_t eptp)
{
    bool single = rdmsr(MSR_IA32_VMX_EPT_VPID_CAP) & EPT_CAP_INVEPT_SINGLE_CONTEXT;
    enum vmx_result result = invept(single ? INVEPT_SINGLE_CONTEXT : INVEPT_ALL_CONTEXTS, eptp);
    check_quietly(result == VMX_SUCCEED, "INVEPT succeeds");
}
