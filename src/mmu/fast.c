// Fast entries: host pointers derived from TLB entries, for the loads and stores of the execution core.
//
// A fast entry is tagged with a number that stands for everything it depends on
// (the contexts, CR0.WP, SMEP, SMAP, NXE), so a change of these is a change of
// number and nothing need be cleared. Numbers are used once; when they run out
// all fast entries go and counting starts again, which nobody can observe.
#include "mmu/mmu_internal.h"

#include <string.h>

void fast_clear(struct mmu *mmu)
{
    memset(mmu->fast, 0xFF, sizeof mmu->fast); // TLB_NO_TAG everywhere
    memset(mmu->views, 0, sizeof mmu->views);
    mmu->next_fast_tag = 1;
}

uint64_t fast_tag(struct mmu *mmu)
{
    unsigned hash = (mmu->linear_context * 31 + mmu->controls * 7u) & (MMU_VIEWS - 1);
    struct mmu_view *view = &mmu->views[hash];
    if (view->tag && view->linear_context == mmu->linear_context && view->global_context == mmu->global_context &&
        view->controls == mmu->controls)
        return view->tag;
    if (unlikely(mmu->next_fast_tag > MMU_FAST_TAGS))
        fast_clear(mmu);
    *view = (struct mmu_view){
        .linear_context = mmu->linear_context,
        .global_context = mmu->global_context,
        .controls = mmu->controls,
        .tag = mmu->next_fast_tag++,
    };
    return view->tag;
}

void mmu_fill_fast(struct mmu *mmu, gva_t gva, enum mmu_mode mode)
{
    gva_t page = gva & PAGE_FRAME_MASK;
    unsigned slot = mmu_slot(gva);
    const struct tlb_entry *translation = &mmu->tlb[mmu->bank][slot];
    if (unlikely(!mmu->context || !tlb_matches(mmu, translation, page)))
        return;
    uint64_t offset = memory_ram_offset(mmu->memory, translation->frame);
    if (offset == UINT64_MAX)
        return;
    uint64_t tag = page | mmu->context;
    unsigned flags = translation->flags;
    struct fast_entry *fast = &mmu->fast[mmu->bank][mode][slot];
    fast->addend = (uint64_t)(uintptr_t)(mmu->memory->ram + offset) - page;
    fast->read = cached_rights_allow(mmu, flags, MMU_READ, mode) ? tag : TLB_NO_TAG;
    fast->fetch = cached_rights_allow(mmu, flags, MMU_FETCH, mode) ? tag : TLB_NO_TAG;
    if (fast->write == tag)
        return; // granted before, and nothing was taken back since
    fast->write = TLB_NO_TAG;
    if (mmu->last_access == MMU_WRITE && !(mmu->memory->page_flags[offset >> PAGE_SHIFT] & PAGE_CODE) &&
        cached_rights_allow(mmu, flags, MMU_WRITE, mode)) {
        memory_note_write(mmu->memory, translation->frame, (unsigned)PAGE_SIZE);
        fast->write = tag;
    }
}

void mmu_drop_fast(struct mmu *mmu)
{
    // No tag is given twice before fast_clear, so forgetting which were given makes all entries unreachable.
    memset(mmu->views, 0, sizeof mmu->views);
    if (mmu->context)
        mmu->context = fast_tag(mmu);
}

void mmu_protect_frame(struct mmu *mmu, hpa_t frame)
{
    frame &= PAGE_FRAME_MASK;
    for (unsigned bank = 0; bank < TLB_BANKS; bank++) {
        for (unsigned slot = 0; slot < TLB_ENTRIES; slot++) {
            if (likely(mmu->tlb[bank][slot].frame != frame))
                continue;
            for (unsigned mode = 0; mode < MMU_MODES; mode++)
                mmu->fast[bank][mode][slot].write = TLB_NO_TAG;
        }
    }
}
