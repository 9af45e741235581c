// The walk of a debugger: where a linear address leads now, by the tables in memory, without any side effect.
//
// It ignores rights and cached translations, sets no flags and touches no device: tables outside RAM count as not mapped.
#include "mmu/mmu_internal.h"

static bool probe_physical(const struct mmu *mmu, gpa_t gpa, hpa_t *hpa)
{
    if (mmu->ept_enabled)
        return ept_probe(&mmu->ept_caps, mmu->memory, mmu->eptp, gpa, hpa);
    *hpa = gpa;
    return true;
}

// Reads a present entry of `size` bytes.
static bool probe_entry(const struct mmu *mmu, gpa_t gpa, unsigned size, uint64_t *entry)
{
    hpa_t hpa;
    *entry = 0;
    return probe_physical(mmu, gpa, &hpa) && memory_read(mmu->memory, hpa, entry, size) && (*entry & PTE_PRESENT);
}

static bool probe_64(const struct mmu *mmu, gva_t gva, gpa_t table, unsigned shift, gpa_t *gpa)
{
    for (;; shift -= 9) {
        uint64_t entry;
        if (!probe_entry(mmu, table | (((gva >> shift) & 0x1FF) << 3), 8, &entry) || entry_reserved(mmu, entry, shift))
            return false;
        if (shift == SHIFT_4K || (entry & PTE_LARGE)) {
            *gpa = (entry & BITS(51, shift)) | (gva & BITS(shift - 1, 0));
            return true;
        }
        table = entry & BITS(51, 12);
    }
}

static bool probe_32bit(const struct mmu *mmu, gva_t gva, gpa_t *gpa)
{
    uint64_t pde, pte;
    if (!probe_entry(mmu, root_table(mmu) | (bits_get(gva, 31, 22) << 2), 4, &pde))
        return false;
    if ((pde & PTE_LARGE) && (mmu->controls & MMU_PSE)) {
        *gpa = frame_4m(pde) | (gva & BITS(21, 0));
        return !entry_reserved_4m(mmu, pde);
    }
    if (!probe_entry(mmu, (pde & BITS(31, 12)) | (bits_get(gva, 21, 12) << 2), 4, &pte))
        return false;
    *gpa = (pte & BITS(31, 12)) | (gva & PAGE_OFFSET_MASK);
    return true;
}

static bool probe_guest(const struct mmu *mmu, gva_t gva, gpa_t *gpa)
{
    switch (mmu->paging) {
    case PAGING_4LEVEL: return probe_64(mmu, gva, root_table(mmu), SHIFT_PML4, gpa);
    case PAGING_5LEVEL: return probe_64(mmu, gva, root_table(mmu), SHIFT_PML5, gpa);
    case PAGING_PAE: {
        uint64_t pdpte = mmu->pdpte[bits_get(gva, 31, 30)];
        return (pdpte & PTE_PRESENT) && probe_64(mmu, gva, pdpte & BITS(51, 12), SHIFT_2M, gpa);
    }
    case PAGING_32BIT: return probe_32bit(mmu, gva, gpa);
    case PAGING_OFF: break;
    }
    *gpa = gva;
    return true;
}

bool mmu_probe(const struct mmu *mmu, gva_t gva, hpa_t *hpa)
{
    gpa_t gpa;
    return probe_guest(mmu, gva, &gpa) && probe_physical(mmu, gpa, hpa);
}
