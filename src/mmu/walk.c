// The guest page walk: 32-bit, PAE, 4-level and 5-level paging (SDM 3A 4.3 to 4.8).
//
// Every paging-structure entry is fetched through EPT when EPT is on. Each is
// judged as it is read: not present, then reserved bits. Rights are judged once,
// after the last entry. Only then are accessed and dirty flags set, root first,
// so a walk that faults changes nothing in memory. Protection keys are left out.
#include "mmu/mmu_internal.h"

#include <string.h>

static enum mmu_status page_fault(const struct mmu *mmu, const struct guest_walk *walk, uint64_t cause,
                                  struct mmu_fault *fault)
{
    uint64_t error_code = cause;
    if (walk->access == MMU_WRITE)
        error_code |= PF_WRITE;
    if (walk->mode == MMU_USER)
        error_code |= PF_USER;
    if (walk->access == MMU_FETCH && (mmu->controls & (MMU_SMEP | MMU_NXE)))
        error_code |= PF_FETCH;
    *fault = (struct mmu_fault){.gva = walk->gva, .error_code = (uint32_t)error_code, .gva_valid = true};
    return MMU_PAGE_FAULT;
}

// Physical address of a guest paging-structure entry. With EPT accessed and dirty flags every such access counts as a write.
static enum mmu_status structure_address(struct mmu *mmu, const struct guest_walk *walk, gpa_t gpa, bool write,
                                         hpa_t *hpa, struct mmu_fault *fault)
{
    if (likely(!mmu->ept_enabled)) {
        *hpa = gpa;
        return MMU_OK;
    }
    unsigned access = EPT_ACCESS_READ;
    if (write || (mmu->eptp & EPTP_ACCESSED_DIRTY))
        access |= EPT_ACCESS_WRITE;
    const struct tlb_guest_physical *mapping;
    enum mmu_status status = physical_translate(mmu, gpa, access, &mapping, fault);
    if (unlikely(status != MMU_OK)) {
        fault->gva = walk->gva;
        fault->gva_valid = true;
        if (status == MMU_EPT_VIOLATION)
            fault->qualification |= EPT_QUAL_LINEAR_VALID;
        return status;
    }
    *hpa = mapping->frame | (gpa & PAGE_OFFSET_MASK);
    return MMU_OK;
}

// Reads the next entry of the walk.
static inline enum mmu_status read_entry(struct mmu *mmu, struct guest_walk *walk, gpa_t gpa, unsigned size,
                                         uint64_t *entry, struct mmu_fault *fault)
{
    hpa_t hpa;
    enum mmu_status status = structure_address(mmu, walk, gpa, false, &hpa, fault);
    if (unlikely(status != MMU_OK))
        return status;
    const uint8_t *host = memory_host(mmu->memory, hpa);
    uint64_t value = 0;
    if (unlikely(!host))
        value = bus_read(mmu->bus, hpa, size);
    else if (size == 8)
        memcpy(&value, host, 8);
    else
        memcpy(&value, host, 4);
    walk->entry_gpa[walk->count] = gpa;
    walk->entry_hpa[walk->count] = hpa;
    walk->entry[walk->count] = value;
    walk->count++;
    mmu->references++;
    *entry = value;
    return MMU_OK;
}

// Sets flags in one entry in memory, as an atomic read-modify-write would; a guest-physical write of its own.
static enum mmu_status set_entry_flags(struct mmu *mmu, struct guest_walk *walk, unsigned i, uint64_t flags,
                                       struct mmu_fault *fault)
{
    hpa_t hpa;
    enum mmu_status status = structure_address(mmu, walk, walk->entry_gpa[i], true, &hpa, fault);
    if (status != MMU_OK)
        return status;
    uint64_t entry = bus_read(mmu->bus, hpa, walk->entry_size);
    if ((entry & flags) != flags)
        bus_write(mmu->bus, hpa, walk->entry_size, entry | flags);
    walk->entry[i] |= flags;
    return MMU_OK;
}

static enum mmu_status update_accessed_dirty(struct mmu *mmu, struct guest_walk *walk, struct mmu_fault *fault)
{
    for (unsigned i = 0; i < walk->count; i++) {
        bool leaf = i == walk->count - 1;
        uint64_t flags = PTE_ACCESSED | (leaf && walk->access == MMU_WRITE ? PTE_DIRTY : 0);
        if (likely((walk->entry[i] & flags) == flags))
            continue;
        enum mmu_status status = set_entry_flags(mmu, walk, i, flags, fault);
        if (status != MMU_OK)
            return status;
    }
    return MMU_OK;
}

// The last entry was read: judges rights, sets flags, completes the result.
// `all` is the AND and `any` the OR of the entries used; the page has 1 << shift bytes.
static inline enum mmu_status finish_walk(struct mmu *mmu, struct guest_walk *walk, uint64_t all, uint64_t any,
                                          gpa_t frame, unsigned shift, struct mmu_fault *fault)
{
    unsigned flags = 0;
    if (all & PTE_USER)
        flags |= TLB_USER;
    if (all & PTE_WRITABLE)
        flags |= TLB_WRITABLE;
    if (any & PTE_NO_EXECUTE)
        flags |= TLB_NO_EXECUTE;
    if (shift != SHIFT_4K) {
        flags |= TLB_LARGE;
        flags |= shift == SHIFT_1G ? TLB_LARGE_1G : shift == SHIFT_4M ? TLB_LARGE_4M : 0u;
    }
    if (!guest_rights_allow(mmu, flags, walk->access, walk->mode))
        return page_fault(mmu, walk, PF_PRESENT, fault);
    enum mmu_status status = update_accessed_dirty(mmu, walk, fault);
    if (unlikely(status != MMU_OK))
        return status;
    uint64_t leaf = walk->entry[walk->count - 1];
    if (leaf & PTE_DIRTY)
        flags |= TLB_DIRTY;
    if ((leaf & PTE_GLOBAL) && (mmu->controls & MMU_PGE))
        flags |= TLB_GLOBAL;
    walk->flags = (uint16_t)flags;
    walk->gpa = frame | (walk->gva & BITS(shift - 1, 0) & PAGE_FRAME_MASK);
    return MMU_OK;
}

// From a table of 8-byte entries that each cover 1 << shift bytes down to the page.
static enum mmu_status walk_entries_64(struct mmu *mmu, struct guest_walk *walk, gpa_t table, unsigned shift,
                                       struct mmu_fault *fault)
{
    uint64_t all = ~(uint64_t)0, any = 0;
    walk->entry_size = 8;
    for (;; shift -= 9) {
        uint64_t entry;
        gpa_t gpa = table | (((walk->gva >> shift) & 0x1FF) << 3);
        enum mmu_status status = read_entry(mmu, walk, gpa, 8, &entry, fault);
        if (unlikely(status != MMU_OK))
            return status;
        if (unlikely(!(entry & PTE_PRESENT)))
            return page_fault(mmu, walk, 0, fault);
        if (unlikely(entry_reserved(mmu, entry, shift)))
            return page_fault(mmu, walk, PF_PRESENT | PF_RESERVED, fault);
        all &= entry;
        any |= entry;
        if (shift == SHIFT_4K || (entry & PTE_LARGE))
            return finish_walk(mmu, walk, all, any, entry & BITS(51, shift), shift, fault);
        table = entry & BITS(51, 12);
    }
}

static enum mmu_status walk_pae(struct mmu *mmu, struct guest_walk *walk, struct mmu_fault *fault)
{
    uint64_t pdpte = mmu->pdpte[bits_get(walk->gva, 31, 30)];
    if (!(pdpte & PTE_PRESENT))
        return page_fault(mmu, walk, 0, fault);
    return walk_entries_64(mmu, walk, pdpte & BITS(51, 12), SHIFT_2M, fault);
}

static enum mmu_status walk_32bit(struct mmu *mmu, struct guest_walk *walk, struct mmu_fault *fault)
{
    walk->entry_size = 4;
    uint64_t pde, pte;
    gpa_t gpa = root_table(mmu) | (bits_get(walk->gva, 31, 22) << 2);
    enum mmu_status status = read_entry(mmu, walk, gpa, 4, &pde, fault);
    if (status != MMU_OK)
        return status;
    if (!(pde & PTE_PRESENT))
        return page_fault(mmu, walk, 0, fault);
    if ((pde & PTE_LARGE) && (mmu->controls & MMU_PSE)) {
        if (entry_reserved_4m(mmu, pde))
            return page_fault(mmu, walk, PF_PRESENT | PF_RESERVED, fault);
        return finish_walk(mmu, walk, pde, 0, frame_4m(pde), SHIFT_4M, fault);
    }
    gpa = (pde & BITS(31, 12)) | (bits_get(walk->gva, 21, 12) << 2);
    status = read_entry(mmu, walk, gpa, 4, &pte, fault);
    if (status != MMU_OK)
        return status;
    if (!(pte & PTE_PRESENT))
        return page_fault(mmu, walk, 0, fault);
    return finish_walk(mmu, walk, pde & pte, 0, pte & BITS(31, 12), SHIFT_4K, fault);
}

enum mmu_status walk_guest(struct mmu *mmu, struct guest_walk *walk, struct mmu_fault *fault)
{
    walk->count = 0;
    switch (mmu->paging) {
    case PAGING_4LEVEL: return walk_entries_64(mmu, walk, root_table(mmu), SHIFT_PML4, fault);
    case PAGING_5LEVEL: return walk_entries_64(mmu, walk, root_table(mmu), SHIFT_PML5, fault);
    case PAGING_PAE: return walk_pae(mmu, walk, fault);
    case PAGING_32BIT: return walk_32bit(mmu, walk, fault);
    case PAGING_OFF: break;
    }
    // Linear addresses are guest-physical ones, with every right (SDM 3C 29.3.3.2: user-mode, writable).
    walk->gpa = walk->gva & PAGE_FRAME_MASK;
    walk->flags = TLB_USER | TLB_WRITABLE | TLB_DIRTY;
    return MMU_OK;
}
