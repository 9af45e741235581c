// The architectural TLB: contexts, fills and invalidations (SDM 3A 4.10, SDM 3C 29.4 "Caching Translation Information").
//
// A context is one of: linear or combined mappings of a (VPID, PCID, EPTRTA),
// the global ones of a (VPID, EPTRTA), the guest-physical ones of an EPTRTA.
// Invalidating a context takes its number away, which costs the same however
// many entries it has; only invalidations of a page look at entries.
#include "mmu/mmu_internal.h"

#include <string.h>

// ---- Contexts ----

static uint16_t current_pcid(const struct mmu *mmu)
{
    if (mmu->paging == PAGING_OFF)
        return TLB_NO_PAGING;
    return mmu->cr4 & CR4_PCIDE ? (uint16_t)(mmu->cr3 & CR3_PCID_MASK) : 0;
}

static uint64_t eptrta_of(uint64_t eptp) { return (eptp & BITS(51, 12)) | 1; }

static uint64_t current_eptrta(const struct mmu *mmu) { return mmu->ept_enabled ? eptrta_of(mmu->eptp) : 0; }

static bool context_is(const struct tlb_context *context, uint64_t eptrta, uint16_t vpid, uint16_t pcid)
{
    return context->eptrta == eptrta && context->vpid == vpid && context->pcid == pcid;
}

static uint8_t *context_hint(struct mmu *mmu, uint64_t eptrta, uint16_t vpid, uint16_t pcid)
{
    unsigned hash = (unsigned)(eptrta >> 12) + vpid * 5u + pcid * 3u;
    return &mmu->context_hint[hash % (sizeof mmu->context_hint)];
}

// The slot of a context, or NULL.
static struct tlb_context *find_context(struct mmu *mmu, uint64_t eptrta, uint16_t vpid, uint16_t pcid)
{
    uint8_t *hint = context_hint(mmu, eptrta, vpid, pcid);
    if (likely(*hint < mmu->contexts_used && context_is(&mmu->contexts[*hint], eptrta, vpid, pcid)))
        return &mmu->contexts[*hint];
    for (unsigned i = 0; i < mmu->contexts_used; i++) {
        if (context_is(&mmu->contexts[i], eptrta, vpid, pcid)) {
            *hint = (uint8_t)i;
            return &mmu->contexts[i];
        }
    }
    return NULL;
}

// A slot for a new context: an unused one, one without entries, or the least recently used. The current
// contexts are never the least recently used: they were used last, and there are at most three.
static struct tlb_context *free_context(struct mmu *mmu)
{
    if (mmu->contexts_used < TLB_CONTEXTS)
        return &mmu->contexts[mmu->contexts_used++];
    struct tlb_context *victim = NULL;
    for (unsigned i = 0; i < TLB_CONTEXTS; i++) {
        struct tlb_context *context = &mmu->contexts[i];
        if (!victim || (context->number != 0) < (victim->number != 0) ||
            ((context->number != 0) == (victim->number != 0) && context->last_used < victim->last_used))
            victim = context;
    }
    return victim;
}

// The number of a context if it has one, else 0; marks it as used.
static uint32_t use_context(struct mmu *mmu, uint64_t eptrta, uint16_t vpid, uint16_t pcid)
{
    struct tlb_context *context = find_context(mmu, eptrta, vpid, pcid);
    if (!context)
        return 0;
    context->last_used = ++mmu->context_clock;
    return context->number;
}

// The number of a context, given to it now if it has none.
static uint32_t claim_context(struct mmu *mmu, uint64_t eptrta, uint16_t vpid, uint16_t pcid)
{
    struct tlb_context *context = find_context(mmu, eptrta, vpid, pcid);
    if (!context) {
        context = free_context(mmu);
        *context = (struct tlb_context){.eptrta = eptrta, .vpid = vpid, .pcid = pcid};
    }
    context->last_used = ++mmu->context_clock;
    if (!context->number)
        context->number = mmu->next_context_number++;
    return context->number;
}

void tlb_select_contexts(struct mmu *mmu)
{
    uint64_t eptrta = current_eptrta(mmu);
    mmu->linear_context = use_context(mmu, eptrta, mmu->vpid, current_pcid(mmu));
    mmu->global_context =
        mmu->paging == PAGING_OFF ? mmu->linear_context : use_context(mmu, eptrta, mmu->vpid, TLB_ANY_PCID);
    mmu->physical_context = mmu->ept_enabled ? use_context(mmu, eptrta, 0, TLB_NO_LINEAR) : 0;
    bool resolved = mmu->linear_context && mmu->global_context && (!mmu->ept_enabled || mmu->physical_context);
    mmu->context = resolved ? fast_tag(mmu) : 0;
}

void tlb_resolve_contexts(struct mmu *mmu)
{
    if (unlikely(mmu->next_context_number > UINT32_MAX - 3))
        tlb_wipe(mmu);
    uint64_t eptrta = current_eptrta(mmu);
    mmu->linear_context = claim_context(mmu, eptrta, mmu->vpid, current_pcid(mmu));
    mmu->global_context =
        mmu->paging == PAGING_OFF ? mmu->linear_context : claim_context(mmu, eptrta, mmu->vpid, TLB_ANY_PCID);
    mmu->physical_context = mmu->ept_enabled ? claim_context(mmu, eptrta, 0, TLB_NO_LINEAR) : 0;
    mmu->context = fast_tag(mmu);
}

void tlb_wipe(struct mmu *mmu)
{
    for (unsigned bank = 0; bank < TLB_BANKS; bank++) {
        for (unsigned slot = 0; slot < TLB_ENTRIES; slot++)
            mmu->tlb[bank][slot] = (struct tlb_entry){.page = UINT64_MAX, .frame = UINT64_MAX};
    }
    for (unsigned i = 0; i < TLB_GUEST_PHYSICAL; i++)
        mmu->guest_physical[i] = (struct tlb_guest_physical){.page = UINT64_MAX};
    memset(mmu->contexts, 0, sizeof mmu->contexts);
    mmu->contexts_used = 0;
    mmu->next_context_number = 1;
    memset(mmu->large_2m, 0, sizeof mmu->large_2m);
    mmu->large_1g = 0;
    mmu->context = 0;
    mmu->linear_context = mmu->global_context = mmu->physical_context = 0;
    fast_clear(mmu);
    code_forget(mmu);
}

// Takes the number of a context away; a current context gets a new one at its next use.
static void invalidate_context(struct mmu *mmu, struct tlb_context *context)
{
    if (!context->number)
        return;
    if (context->number == mmu->linear_context || context->number == mmu->global_context ||
        context->number == mmu->physical_context)
        mmu->context = 0;
    context->number = 0;
}

// ---- Entries ----

static unsigned large_page_shift(unsigned flags)
{
    return flags & TLB_LARGE_1G ? SHIFT_1G : flags & TLB_LARGE_4M ? SHIFT_4M : SHIFT_2M;
}

static uint64_t region_1g(gva_t gva) { return BIT(((gva >> SHIFT_1G) * 0x9E3779B97F4A7C15u) >> 58); }

static unsigned region_2m(gva_t gva) { return (unsigned)(((gva >> SHIFT_2M) * 0x9E3779B97F4A7C15u) >> 55); }
_Static_assert(TLB_LARGE_REGIONS == 1 << (64 - 55), "region_2m gives a number below it");

static void note_large(struct mmu *mmu, const struct tlb_entry *entry)
{
    if (entry->flags & TLB_LARGE_1G) {
        mmu->large_1g |= region_1g(entry->page);
        return;
    }
    // A page of 4 MBytes is two regions.
    gva_t first = entry->flags & TLB_LARGE_4M ? entry->page & ~BIT(SHIFT_2M) : entry->page;
    gva_t last = entry->flags & TLB_LARGE_4M ? entry->page | BIT(SHIFT_2M) : entry->page;
    mmu->large_2m[region_2m(first) / 64] |= BIT(region_2m(first) % 64);
    mmu->large_2m[region_2m(last) / 64] |= BIT(region_2m(last) % 64);
}

static bool may_be_large(const struct mmu *mmu, gva_t gva)
{
    return (mmu->large_2m[region_2m(gva) / 64] >> (region_2m(gva) % 64) & 1) || (mmu->large_1g & region_1g(gva));
}

void tlb_fill(struct mmu *mmu, const struct tlb_entry *translation)
{
    unsigned slot = mmu_slot(translation->page);
    mmu->tlb[mmu->bank][slot] = *translation;
    mmu->tlb[mmu->bank][slot].context = translation->flags & TLB_GLOBAL ? mmu->global_context : mmu->linear_context;
    if (translation->flags & TLB_LARGE)
        note_large(mmu, translation);
    fast_clear_slot(mmu, mmu->bank, slot);
}

static void forget_slot(struct mmu *mmu, unsigned bank, unsigned slot)
{
    mmu->tlb[bank][slot] = (struct tlb_entry){.page = UINT64_MAX, .frame = UINT64_MAX};
    fast_clear_slot(mmu, bank, slot);
}

void tlb_forget_page(struct mmu *mmu, gva_t gva)
{
    unsigned slot = mmu_slot(gva);
    if (tlb_matches(mmu, &mmu->tlb[mmu->bank][slot], gva & PAGE_FRAME_MASK))
        forget_slot(mmu, mmu->bank, slot);
    if (mmu->code.page == (gva & PAGE_FRAME_MASK))
        code_forget(mmu);
}

// Which entries a page invalidation is about.
struct page_scope {
    uint16_t vpid;
    uint16_t pcid; // or TLB_ANY_PCID: all of them, and global pages
    bool globals;
};

static bool pcid_in_scope(const struct page_scope *scope, uint16_t pcid)
{
    if (pcid == TLB_ANY_PCID)
        return scope->globals;
    return scope->pcid == TLB_ANY_PCID || pcid == scope->pcid || (pcid == TLB_NO_PAGING && scope->pcid == 0);
}

// True if the entry's context is in scope, under any EPTRTA.
static bool entry_in_scope(const struct mmu *mmu, const struct tlb_entry *entry, const struct page_scope *scope)
{
    for (unsigned i = 0; i < mmu->contexts_used; i++) {
        const struct tlb_context *context = &mmu->contexts[i];
        if (context->number == entry->context)
            return entry->context && context->vpid == scope->vpid && context->pcid != TLB_NO_LINEAR &&
                   pcid_in_scope(scope, context->pcid);
    }
    return false;
}

// Forgets all fragments of a large page that holds gva, and finds out anew where large pages are.
static void forget_large_fragments(struct mmu *mmu, gva_t gva, const struct page_scope *scope)
{
    memset(mmu->large_2m, 0, sizeof mmu->large_2m);
    mmu->large_1g = 0;
    for (unsigned i = 0; i < TLB_BANKS * TLB_ENTRIES; i++) {
        unsigned bank = i / TLB_ENTRIES, slot = i % TLB_ENTRIES;
        struct tlb_entry *entry = &mmu->tlb[bank][slot];
        if (!(entry->flags & TLB_LARGE))
            continue;
        if ((entry->page ^ gva) >> large_page_shift(entry->flags) == 0 && entry_in_scope(mmu, entry, scope))
            forget_slot(mmu, bank, slot);
        else
            note_large(mmu, entry);
    }
}

static void forget_page_in_scope(struct mmu *mmu, gva_t gva, const struct page_scope *scope)
{
    code_forget(mmu);
    unsigned slot = mmu_slot(gva);
    for (unsigned bank = 0; bank < TLB_BANKS; bank++) {
        const struct tlb_entry *entry = &mmu->tlb[bank][slot];
        if (entry->page == (gva & PAGE_FRAME_MASK) && entry_in_scope(mmu, entry, scope))
            forget_slot(mmu, bank, slot);
    }
    if (may_be_large(mmu, gva))
        forget_large_fragments(mmu, gva, scope);
}

// ---- Invalidations ----

void mmu_invalidate_page(struct mmu *mmu, gva_t gva)
{
    uint16_t pcid = current_pcid(mmu);
    struct page_scope scope = {.vpid = mmu->vpid, .pcid = pcid == TLB_NO_PAGING ? 0 : pcid, .globals = true};
    forget_page_in_scope(mmu, gva, &scope);
}

void mmu_invalidate_pcid_page(struct mmu *mmu, uint16_t pcid, gva_t gva)
{
    struct page_scope scope = {.vpid = mmu->vpid, .pcid = pcid, .globals = false};
    forget_page_in_scope(mmu, gva, &scope);
}

void mmu_invalidate_vpid_page(struct mmu *mmu, uint16_t vpid, gva_t gva)
{
    struct page_scope scope = {.vpid = vpid, .pcid = TLB_ANY_PCID, .globals = true};
    forget_page_in_scope(mmu, gva, &scope);
}

void mmu_invalidate_pcid(struct mmu *mmu, uint16_t pcid)
{
    code_forget(mmu);
    struct page_scope scope = {.vpid = mmu->vpid, .pcid = pcid, .globals = false};
    for (unsigned i = 0; i < mmu->contexts_used; i++) {
        struct tlb_context *context = &mmu->contexts[i];
        if (context->vpid == mmu->vpid && context->pcid != TLB_NO_LINEAR && pcid_in_scope(&scope, context->pcid))
            invalidate_context(mmu, context);
    }
}

void mmu_invalidate_vpid(struct mmu *mmu, uint16_t vpid, bool keep_globals)
{
    code_forget(mmu);
    for (unsigned i = 0; i < mmu->contexts_used; i++) {
        struct tlb_context *context = &mmu->contexts[i];
        if (context->vpid == vpid && context->pcid != TLB_NO_LINEAR && !(keep_globals && context->pcid == TLB_ANY_PCID))
            invalidate_context(mmu, context);
    }
}

void mmu_invalidate_all_vpids(struct mmu *mmu)
{
    code_forget(mmu);
    for (unsigned i = 0; i < mmu->contexts_used; i++) {
        if (mmu->contexts[i].vpid) // guest-physical contexts have VPID 0 here
            invalidate_context(mmu, &mmu->contexts[i]);
    }
}

void mmu_invalidate_eptp(struct mmu *mmu, uint64_t eptp)
{
    code_forget(mmu);
    uint64_t eptrta = eptrta_of(eptp);
    for (unsigned i = 0; i < mmu->contexts_used; i++) {
        if (mmu->contexts[i].eptrta == eptrta)
            invalidate_context(mmu, &mmu->contexts[i]);
    }
}

void mmu_invalidate_all_epts(struct mmu *mmu)
{
    code_forget(mmu);
    for (unsigned i = 0; i < mmu->contexts_used; i++) {
        if (mmu->contexts[i].eptrta)
            invalidate_context(mmu, &mmu->contexts[i]);
    }
}

void mmu_invalidate_everything(struct mmu *mmu) { tlb_wipe(mmu); }
