// What the files of src/mmu share: the guest walk, TLB fill and lookup, fast tags. Not for other modules.
#ifndef VMXON_MMU_INTERNAL_H
#define VMXON_MMU_INTERNAL_H

#include "mmu/mmu.h"

// Guest paging-structure entries (SDM 3A 4.3 to 4.5).
#define PTE_PRESENT       BIT(0)
#define PTE_WRITABLE      BIT(1)
#define PTE_USER          BIT(2)
#define PTE_ACCESSED      BIT(5)
#define PTE_DIRTY         BIT(6)
#define PTE_LARGE         BIT(7) // PS; in an entry that maps a 4-KByte page it is the PAT bit
#define PTE_GLOBAL        BIT(8)
#define PTE_NO_EXECUTE    BIT(63)
#define PDE32_RESERVED_4M BIT(21)
#define CR3_PAE_TABLE     BITS(31, 5)

#define SHIFT_4K   12
#define SHIFT_2M   21
#define SHIFT_4M   22
#define SHIFT_1G   30
#define SHIFT_PML4 39
#define SHIFT_PML5 48

// A guest walk, from the linear address to the guest-physical one.
struct guest_walk {
    gva_t gva;
    enum mmu_access access;
    enum mmu_mode mode;
    unsigned count;      // entries used, root first
    unsigned entry_size; // 4 or 8 bytes
    gpa_t entry_gpa[5];
    hpa_t entry_hpa[5];
    uint64_t entry[5];
    // Result.
    gpa_t gpa;      // guest-physical address of the 4-KByte frame
    uint16_t flags; // the guest part of enum tlb_flag
};

// Walks the guest's tables, judges the access and sets accessed and dirty flags. Requires paging on.
enum mmu_status walk_guest(struct mmu *mmu, struct guest_walk *walk, struct mmu_fault *fault);

// Reserved bits set in a present 8-byte entry of the level that covers 1 << shift bytes.
static inline uint64_t entry_reserved(const struct mmu *mmu, uint64_t entry, unsigned shift)
{
    uint64_t reserved = mmu->reserved_bits;
    if (shift > SHIFT_4K && (entry & PTE_LARGE)) {
        if (shift == SHIFT_2M || (shift == SHIFT_1G && mmu->page_1g))
            reserved |= BITS(shift - 1, 13);
        else
            reserved |= PTE_LARGE;
    }
    return entry & reserved;
}

// The same for a 4-byte page-directory entry that maps a 4-MByte page. PSE-36 holds address bits 39:32 in bits 20:13.
static inline uint64_t entry_reserved_4m(const struct mmu *mmu, uint64_t entry)
{
    uint64_t reserved = PDE32_RESERVED_4M;
    if (mmu->maxphyaddr < 40)
        reserved |= BITS(20, mmu->maxphyaddr - 19);
    return entry & reserved;
}

static inline uint64_t frame_4m(uint64_t entry) { return (entry & BITS(31, 22)) | (bits_get(entry, 20, 13) << 32); }

// Root table of 4- and 5-level paging and of 32-bit paging, and the shift of its entries; PAE starts at a PDPTE register.
static inline uint64_t root_table(const struct mmu *mmu)
{
    return mmu->cr3 & (mmu->paging == PAGING_32BIT ? BITS(31, 12) : BITS(51, 12));
}

// Translates through EPT, guest-physical mappings first. `access` is a set of enum ept_access. Requires EPT on.
// On a violation fault->gpa and bits 5:0 of fault->qualification are set, and what must be forgotten is.
enum mmu_status physical_translate(struct mmu *mmu, gpa_t gpa, unsigned access,
                                   const struct tlb_guest_physical **mapping, struct mmu_fault *fault);

// True if the guest rights in `flags` allow the access (SDM 3A 4.6 "Access Rights").
static inline bool guest_rights_allow(const struct mmu *mmu, unsigned flags, enum mmu_access access, enum mmu_mode mode)
{
    unsigned controls = mmu->controls;
    if (mode == MMU_USER) {
        if (!(flags & TLB_USER))
            return false;
    } else if (flags & TLB_USER) {
        if (access == MMU_FETCH ? controls & MMU_SMEP : mode == MMU_SUPERVISOR && (controls & MMU_SMAP))
            return false;
    }
    if (access == MMU_WRITE)
        return (flags & TLB_WRITABLE) || (mode != MMU_USER && !(controls & MMU_WP));
    if (access == MMU_FETCH)
        return !(flags & TLB_NO_EXECUTE) || !(controls & MMU_NXE);
    return true;
}

// True if a cached translation allows the access without another walk.
static inline bool cached_rights_allow(const struct mmu *mmu, unsigned flags, enum mmu_access access,
                                       enum mmu_mode mode)
{
    static const uint16_t needed[] = {
        [MMU_READ] = TLB_EPT_READ,
        [MMU_WRITE] = TLB_EPT_WRITE | TLB_DIRTY,
        [MMU_FETCH] = TLB_EPT_EXECUTE,
    };
    return (flags & needed[access]) == needed[access] && guest_rights_allow(mmu, flags, access, mode);
}

// True if the entry translates the page in the current context.
static inline bool tlb_matches(const struct mmu *mmu, const struct tlb_entry *entry, gva_t page)
{
    return entry->page == page && (entry->context == mmu->linear_context || entry->context == mmu->global_context);
}

// Recomputes the current context numbers from (VPID, PCID, EPTRTA), after any of them changed.
void tlb_select_contexts(struct mmu *mmu);
// Gives the current contexts numbers if they have none.
void tlb_resolve_contexts(struct mmu *mmu);
// Stores a translation in the current context; entry->context is chosen here.
void tlb_fill(struct mmu *mmu, const struct tlb_entry *translation);
// Forgets the translation of the page in the current context.
void tlb_forget_page(struct mmu *mmu, gva_t gva);
// Forgets every cached translation of any kind.
void tlb_wipe(struct mmu *mmu);

static inline void code_forget(struct mmu *mmu) { mmu->code.page = UINT64_MAX; }

// The fast tag number of the current contexts and controls.
uint64_t fast_tag(struct mmu *mmu);
void fast_clear(struct mmu *mmu);

static inline void fast_clear_slot(struct mmu *mmu, unsigned bank, unsigned slot)
{
    for (unsigned mode = 0; mode < MMU_MODES; mode++) {
        struct fast_entry *entry = &mmu->fast[bank][mode][slot];
        entry->read = entry->write = entry->fetch = TLB_NO_TAG;
    }
}

#endif
