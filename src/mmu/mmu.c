// The translation of one access, and the setters of what decides it.
//
// Order of one access (SDM 3C 29.3.3.3 "Prioritization of EPT-Induced VM Exits"): TLB; guest walk with each
// entry's address through EPT; guest rights; guest accessed and dirty flags; the final address through EPT.
#include "mmu/mmu_internal.h"

#include "base/assert.h"

#include <string.h>

// ---- Guest-physical mappings ----

static struct tlb_guest_physical *physical_slot(struct mmu *mmu, gpa_t gpa)
{
    return &mmu->guest_physical[(gpa >> PAGE_SHIFT) % TLB_GUEST_PHYSICAL];
}

static bool physical_matches(const struct mmu *mmu, const struct tlb_guest_physical *mapping, gpa_t gpa)
{
    return mapping->page == (gpa & PAGE_FRAME_MASK) && mapping->context == mmu->physical_context;
}

// The EPT walk of a guest-physical address whose mapping is not cached, or lacks a right.
static enum mmu_status physical_walk(struct mmu *mmu, gpa_t gpa, unsigned access, struct tlb_guest_physical *slot,
                                     struct mmu_fault *fault)
{
    struct ept_result result;
    ept_walk(&mmu->ept_caps, mmu->bus, mmu->eptp, gpa, access, &result);
    mmu->ept_walks++;
    mmu->references += result.references;
    if (unlikely(result.status != EPT_OK)) {
        *fault = (struct mmu_fault){.gpa = gpa, .qualification = result.qualification};
        if (result.status == EPT_MISCONFIGURATION)
            return MMU_EPT_MISCONFIGURATION;
        if (physical_matches(mmu, slot, gpa))
            slot->page = UINT64_MAX; // SDM 3C 29.4.3.1: a violation invalidates the mapping of its address
        return MMU_EPT_VIOLATION;
    }
    *slot = (struct tlb_guest_physical){
        .page = gpa & PAGE_FRAME_MASK,
        .frame = result.frame,
        .context = mmu->physical_context,
        .permissions = (uint8_t)result.permissions,
        .dirty = result.dirty,
    };
    return MMU_OK;
}

enum mmu_status physical_translate(struct mmu *mmu, gpa_t gpa, unsigned access,
                                   const struct tlb_guest_physical **mapping, struct mmu_fault *fault)
{
    struct tlb_guest_physical *slot = physical_slot(mmu, gpa);
    *mapping = slot;
    if (likely(physical_matches(mmu, slot, gpa) && !(access & ~(unsigned)slot->permissions) &&
               (slot->dirty || !(access & EPT_ACCESS_WRITE))))
        return MMU_OK;
    return physical_walk(mmu, gpa, access, slot, fault);
}

static unsigned ept_access_of(enum mmu_access access)
{
    return access == MMU_READ ? EPT_ACCESS_READ : access == MMU_WRITE ? EPT_ACCESS_WRITE : EPT_ACCESS_FETCH;
}

// ---- Linear accesses ----

// Bits 7 to 11 of the exit qualification of a violation by the final translation.
static uint64_t final_qualification(const struct mmu *mmu, unsigned guest_flags)
{
    uint64_t qualification = EPT_QUAL_LINEAR_VALID | EPT_QUAL_FINAL_TRANSLATION;
    if (!mmu->ept_caps.advanced_violation_info)
        return qualification;
    if (guest_flags & TLB_USER)
        qualification |= EPT_QUAL_USER;
    if (guest_flags & TLB_WRITABLE)
        qualification |= EPT_QUAL_GUEST_WRITABLE;
    if (guest_flags & TLB_NO_EXECUTE)
        qualification |= EPT_QUAL_GUEST_EXECUTE_DISABLE;
    return qualification;
}

// The last step of a linear access: the address the guest tables gave, through EPT if on.
static enum mmu_status translate_final(struct mmu *mmu, const struct guest_walk *walk, struct tlb_entry *translation,
                                       struct mmu_fault *fault)
{
    *translation = (struct tlb_entry){
        .page = walk->gva & PAGE_FRAME_MASK,
        .frame = walk->gpa,
        .gpa = walk->gpa,
        .flags = walk->flags | TLB_EPT_READ | TLB_EPT_WRITE | TLB_EPT_EXECUTE,
    };
    if (likely(!mmu->ept_enabled))
        return MMU_OK;
    gpa_t gpa = walk->gpa | (walk->gva & PAGE_OFFSET_MASK);
    const struct tlb_guest_physical *mapping;
    enum mmu_status status = physical_translate(mmu, gpa, ept_access_of(walk->access), &mapping, fault);
    if (unlikely(status != MMU_OK)) {
        fault->gva = walk->gva;
        fault->gva_valid = true;
        if (status == MMU_EPT_VIOLATION) {
            fault->qualification |= final_qualification(mmu, walk->flags);
            tlb_forget_page(mmu, walk->gva);
        }
        return status;
    }
    unsigned flags = walk->flags;
    if (mapping->permissions & EPT_READ)
        flags |= TLB_EPT_READ;
    if ((mapping->permissions & EPT_WRITE) && mapping->dirty)
        flags |= TLB_EPT_WRITE;
    if (mapping->permissions & EPT_EXECUTE)
        flags |= TLB_EPT_EXECUTE;
    translation->flags = (uint16_t)flags;
    translation->frame = mapping->frame;
    return MMU_OK;
}

static enum mmu_status translate_miss(struct mmu *mmu, gva_t gva, enum mmu_access access, enum mmu_mode mode,
                                      hpa_t *hpa, struct mmu_fault *fault)
{
    mmu->walks++;
    struct guest_walk walk;
    walk.gva = gva;
    walk.access = access;
    walk.mode = mode;
    enum mmu_status status = walk_guest(mmu, &walk, fault);
    if (unlikely(status != MMU_OK)) {
        if (status == MMU_PAGE_FAULT)
            tlb_forget_page(mmu, gva); // SDM 3A 4.10.4.1: so does the fault itself
        return status;
    }
    struct tlb_entry translation;
    status = translate_final(mmu, &walk, &translation, fault);
    if (unlikely(status != MMU_OK))
        return status;
    tlb_fill(mmu, &translation);
    *hpa = translation.frame | (gva & PAGE_OFFSET_MASK);
    return MMU_OK;
}

enum mmu_status mmu_translate(struct mmu *mmu, gva_t gva, enum mmu_access access, enum mmu_mode mode, hpa_t *hpa,
                              struct mmu_fault *fault)
{
    const struct tlb_entry *entry = &mmu->tlb[mmu->bank][mmu_slot(gva)];
    mmu->last_access = access;
    if (unlikely(!mmu->context))
        tlb_resolve_contexts(mmu); // before the lookup: global pages may still be there
    if (tlb_matches(mmu, entry, gva & PAGE_FRAME_MASK) && cached_rights_allow(mmu, entry->flags, access, mode)) {
        *hpa = entry->frame | (gva & PAGE_OFFSET_MASK);
        return MMU_OK;
    }
    return translate_miss(mmu, gva, access, mode, hpa, fault);
}

enum mmu_status mmu_translate_gpa(struct mmu *mmu, gpa_t gpa, enum mmu_access access, hpa_t *hpa,
                                  struct mmu_fault *fault)
{
    if (!mmu->ept_enabled) {
        *hpa = gpa;
        return MMU_OK;
    }
    if (!mmu->context)
        tlb_resolve_contexts(mmu);
    const struct tlb_guest_physical *mapping;
    enum mmu_status status = physical_translate(mmu, gpa, ept_access_of(access), &mapping, fault);
    if (status == MMU_OK)
        *hpa = mapping->frame | (gpa & PAGE_OFFSET_MASK);
    return status;
}

// ---- PDPTE registers (SDM 3A 4.4.1) ----

bool mmu_pdpte_valid(const struct mmu *mmu, uint64_t pdpte)
{
    uint64_t reserved = BITS(2, 1) | BITS(8, 5) | (mmu->maxphyaddr < 64 ? BITS(63, mmu->maxphyaddr) : 0);
    return !(pdpte & PTE_PRESENT) || !(pdpte & reserved);
}

enum mmu_status mmu_read_pdptes(struct mmu *mmu, uint64_t cr3, uint64_t pdpte[4], struct mmu_fault *fault)
{
    for (unsigned i = 0; i < 4; i++) {
        gpa_t gpa = (cr3 & CR3_PAE_TABLE) + i * 8u;
        hpa_t hpa;
        enum mmu_status status = mmu_translate_gpa(mmu, gpa, MMU_READ, &hpa, fault);
        if (status != MMU_OK)
            return status;
        pdpte[i] = bus_read(mmu->bus, hpa, 8);
        mmu->references++;
    }
    for (unsigned i = 0; i < 4; i++) {
        if (!mmu_pdpte_valid(mmu, pdpte[i])) {
            *fault = (struct mmu_fault){0};
            return MMU_PAGE_FAULT;
        }
    }
    return MMU_OK;
}

// ---- Setters ----

static enum paging_mode paging_mode_of(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    if (!(cr0 & CR0_PG))
        return PAGING_OFF;
    if (!(cr4 & CR4_PAE))
        return PAGING_32BIT;
    if (!(efer & EFER_LMA))
        return PAGING_PAE;
    return cr4 & CR4_LA57 ? PAGING_5LEVEL : PAGING_4LEVEL;
}

static uint16_t controls_of(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    if (!(cr0 & CR0_PG))
        return 0;
    unsigned controls = MMU_PAGING;
    controls |= cr0 & CR0_WP ? MMU_WP : 0u;
    controls |= cr4 & CR4_SMEP ? MMU_SMEP : 0u;
    controls |= cr4 & CR4_SMAP ? MMU_SMAP : 0u;
    controls |= cr4 & CR4_PGE ? MMU_PGE : 0u;
    controls |= cr4 & CR4_PSE ? MMU_PSE : 0u;
    controls |= (cr4 & CR4_PAE) && (efer & EFER_NXE) ? MMU_NXE : 0u;
    return (uint16_t)controls;
}

// Reserved in all present 8-byte entries: address bits beyond MAXPHYADDR, the ignored bits too in PAE paging, and XD without NXE.
static uint64_t reserved_bits_of(const struct mmu *mmu)
{
    uint64_t reserved = BITS(mmu->paging == PAGING_PAE ? 62 : 51, mmu->maxphyaddr);
    return mmu->controls & MMU_NXE ? reserved : reserved | PTE_NO_EXECUTE;
}

static void derive_from_control(struct mmu *mmu)
{
    mmu->paging = paging_mode_of(mmu->cr0, mmu->cr4, mmu->efer);
    mmu->controls = controls_of(mmu->cr0, mmu->cr4, mmu->efer);
    mmu->reserved_bits = reserved_bits_of(mmu);
    mmu->current = mmu->fast[mmu->bank][mmu->mode];
}

// The bits outside CR3 that anything here depends on.
#define CR0_RELEVANT  (CR0_PG | CR0_WP)
#define CR4_RELEVANT  (CR4_PSE | CR4_PAE | CR4_PGE | CR4_LA57 | CR4_PCIDE | CR4_SMEP | CR4_SMAP)
#define EFER_RELEVANT (EFER_LMA | EFER_NXE)

void mmu_set_control(struct mmu *mmu, uint64_t cr0, uint64_t cr3, uint64_t cr4, uint64_t efer)
{
    bool controls_change =
        ((mmu->cr0 ^ cr0) & CR0_RELEVANT) || ((mmu->cr4 ^ cr4) & CR4_RELEVANT) || ((mmu->efer ^ efer) & EFER_RELEVANT);
    bool pcid_change = (cr4 & CR4_PCIDE) && ((mmu->cr3 ^ cr3) & CR3_PCID_MASK);
    mmu->cr0 = cr0;
    mmu->cr3 = cr3;
    mmu->cr4 = cr4;
    mmu->efer = efer;
    if (controls_change)
        derive_from_control(mmu);
    if (controls_change || pcid_change) {
        tlb_select_contexts(mmu);
        code_forget(mmu);
    }
}

void mmu_set_mode(struct mmu *mmu, enum mmu_mode mode)
{
    if ((mmu->mode == MMU_USER) != (mode == MMU_USER))
        code_forget(mmu); // fetch rights differ; between the supervisor modes they do not
    mmu->mode = mode;
    mmu->current = mmu->fast[mmu->bank][mode];
}

void mmu_set_pdptes(struct mmu *mmu, const uint64_t pdpte[4]) { memcpy(mmu->pdpte, pdpte, sizeof mmu->pdpte); }

void mmu_set_vm(struct mmu *mmu, uint16_t vpid, bool ept_enabled, uint64_t eptp)
{
    bool change =
        mmu->vpid != vpid || mmu->ept_enabled != ept_enabled || (ept_enabled && ((mmu->eptp ^ eptp) & BITS(51, 12)));
    mmu->vpid = vpid;
    mmu->ept_enabled = ept_enabled;
    mmu->eptp = eptp;
    if (change) {
        mmu->bank = vpid || ept_enabled;
        mmu->current = mmu->fast[mmu->bank][mmu->mode];
        tlb_select_contexts(mmu);
        code_forget(mmu);
    }
}

void mmu_init(struct mmu *mmu, struct bus *bus, unsigned maxphyaddr)
{
    ASSERT(maxphyaddr >= 32 && maxphyaddr <= 52, "a CPU profile has an impossible physical-address width");
    memset(mmu, 0, sizeof *mmu);
    mmu->bus = bus;
    mmu->memory = bus->memory;
    mmu->maxphyaddr = maxphyaddr;
    mmu->page_1g = true;
    mmu->ept_caps = (struct ept_caps){
        .execute_only = true,
        .page_2m = true,
        .page_1g = true,
        .advanced_violation_info = true,
        .maxphyaddr = maxphyaddr,
    };
    mmu_reset(mmu);
}

void mmu_reset(struct mmu *mmu)
{
    mmu->cr0 = CR0_CD | CR0_NW | CR0_ET;
    mmu->cr3 = mmu->cr4 = mmu->efer = 0;
    memset(mmu->pdpte, 0, sizeof mmu->pdpte);
    mmu->vpid = 0;
    mmu->ept_enabled = false;
    mmu->eptp = 0;
    mmu->bank = 0;
    mmu->mode = MMU_SUPERVISOR;
    mmu->context_clock = 0;
    derive_from_control(mmu);
    tlb_wipe(mmu);
}

void mmu_rebuild(struct mmu *mmu)
{
    derive_from_control(mmu);
    memset(mmu->context_hint, 0, sizeof mmu->context_hint);
    fast_clear(mmu);
    // As tlb_select_contexts, but a restored machine must not look as if the contexts had been used again.
    uint64_t clock = mmu->context_clock;
    struct tlb_context contexts[TLB_CONTEXTS];
    memcpy(contexts, mmu->contexts, sizeof contexts);
    tlb_select_contexts(mmu);
    memcpy(mmu->contexts, contexts, sizeof contexts);
    mmu->context_clock = clock;
}
