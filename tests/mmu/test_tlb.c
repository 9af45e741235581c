// The TLB: what stays cached, what each invalidation forgets and keeps, replacement, and fast entries.
#include "mmu_fixture.h"

#define GVA       0x7F0000403000u
#define OTHER_GVA 0x7F0000507000u
#define FRAME_A   0x5000u
#define FRAME_B   0x6000u
#define FLAGS     (P | RW | US | ACC)

static hpa_t root, leaf_at, other_at;

static void setup(void)
{
    fixture_setup();
    root = new_table();
    leaf_at = map_4k(root, GVA, FRAME_A | FLAGS);
    other_at = map_4k(root, OTHER_GVA, FRAME_A | FLAGS);
    enter_long_mode(root);
}

static void set_cr4(uint64_t cr4) { mmu_set_control(&mmu, LONG_CR0, mmu.cr3, LONG_CR4 | cr4, LONG_EFER); }

static void set_cr3(uint64_t cr3) { mmu_set_control(&mmu, mmu.cr0, cr3, mmu.cr4, mmu.efer); }

static hpa_t frame_of(gva_t gva)
{
    ck_assert_int_eq(read_page(gva), MMU_OK);
    return hpa & PAGE_FRAME_MASK;
}

// Caches GVA as FRAME_A, then changes the tables to FRAME_B behind the TLB's back. `is_cached` then tells.
static void cache_and_change(uint64_t flags)
{
    put64(leaf_at, FRAME_A | flags);
    mmu_invalidate_page(&mmu, GVA);
    ck_assert_uint_eq(frame_of(GVA), FRAME_A);
    put64(leaf_at, FRAME_B | flags);
}

static bool is_cached(void) { return frame_of(GVA) == FRAME_A; }

static bool fast_hits(gva_t gva, enum mmu_mode mode, enum mmu_access access)
{
    const struct fast_entry *fast = &mmu.fast[mmu.bank][mode][mmu_slot(gva)];
    uint64_t tag = access == MMU_READ ? fast->read : access == MMU_WRITE ? fast->write : fast->fetch;
    return tag == ((gva & PAGE_FRAME_MASK) | mmu.context);
}

static void fill(gva_t gva, enum mmu_mode mode, enum mmu_access access)
{
    ck_assert_int_eq(access_as(gva, access, mode), MMU_OK);
    mmu_fill_fast(&mmu, gva, mode);
}

// ---- What is cached ----

START_TEST(translation_stays_until_invalidated)
{
    cache_and_change(FLAGS);
    ck_assert(is_cached());
    ck_assert(mmu_probe(&mmu, GVA, &hpa));
    ck_assert_uint_eq(hpa, FRAME_B); // the tables, not the TLB
}
END_TEST

START_TEST(not_present_is_never_cached)
{
    put64(leaf_at, 0);
    ck_assert_int_eq(read_page(GVA), MMU_PAGE_FAULT);
    put64(leaf_at, FRAME_B | FLAGS);
    ck_assert_int_eq(read_page(GVA), MMU_OK);
}
END_TEST

START_TEST(added_rights_need_no_invalidation)
{
    put64(leaf_at, FRAME_A | P | ACC | XD);
    read_page(GVA);
    put64(leaf_at, FRAME_A | FLAGS);
    ck_assert_int_eq(access_as(GVA, MMU_WRITE, MMU_USER), MMU_OK);
    ck_assert_int_eq(access_as(GVA, MMU_FETCH, MMU_USER), MMU_OK);
}
END_TEST

START_TEST(removed_rights_stay_until_invalidated)
{
    ck_assert_int_eq(access_as(GVA, MMU_WRITE, MMU_USER), MMU_OK);
    put64(leaf_at, FRAME_A | P | ACC);
    ck_assert_int_eq(access_as(GVA, MMU_WRITE, MMU_USER), MMU_OK);
    mmu_invalidate_page(&mmu, GVA);
    ck_assert_int_eq(access_as(GVA, MMU_WRITE, MMU_USER), MMU_PAGE_FAULT);
}
END_TEST

START_TEST(page_fault_forgets_the_translation)
{
    put64(leaf_at, FRAME_A | P | ACC);
    ck_assert_uint_eq(frame_of(GVA), FRAME_A);
    put64(leaf_at, FRAME_B | P | ACC);
    ck_assert_int_eq(access_as(GVA, MMU_WRITE, MMU_USER), MMU_PAGE_FAULT);
    ck_assert_uint_eq(frame_of(GVA), FRAME_B);
}
END_TEST

START_TEST(another_page_of_the_slot_takes_its_place)
{
    gva_t rival = GVA + ((gva_t)TLB_ENTRIES << PAGE_SHIFT);
    map_4k(root, rival, FRAME_A | FLAGS);
    cache_and_change(FLAGS);
    fill(GVA, MMU_USER, MMU_READ);
    read_page(rival);
    ck_assert(!fast_hits(GVA, MMU_USER, MMU_READ));
    ck_assert(!is_cached());
}
END_TEST

// ---- Invalidations of guest software ----

START_TEST(invlpg_forgets_one_page_even_if_global)
{
    set_cr4(CR4_PGE);
    cache_and_change(FLAGS | GLOBAL);
    ck_assert_uint_eq(frame_of(OTHER_GVA), FRAME_A);
    put64(other_at, FRAME_B | FLAGS);
    mmu_invalidate_page(&mmu, GVA + 0x123);
    ck_assert(!is_cached());
    ck_assert_uint_eq(frame_of(OTHER_GVA), FRAME_A);
}
END_TEST

START_TEST(mov_cr3_keeps_global_pages_only)
{
    set_cr4(CR4_PGE);
    cache_and_change(FLAGS | GLOBAL);
    mmu_invalidate_pcid(&mmu, 0);
    ck_assert(is_cached());
    cache_and_change(FLAGS);
    mmu_invalidate_pcid(&mmu, 0);
    ck_assert(!is_cached());
    set_cr4(0);
    mmu_invalidate_vpid(&mmu, 0, false);
    cache_and_change(FLAGS | GLOBAL); // without CR4.PGE the bit says nothing
    mmu_invalidate_pcid(&mmu, 0);
    ck_assert(!is_cached());
}
END_TEST

START_TEST(mov_cr4_forgets_global_pages_too)
{
    set_cr4(CR4_PGE);
    cache_and_change(FLAGS | GLOBAL);
    mmu_invalidate_vpid(&mmu, 0, true);
    ck_assert(is_cached());
    mmu_invalidate_vpid(&mmu, 0, false);
    ck_assert(!is_cached());
}
END_TEST

START_TEST(translations_of_another_pcid_do_not_match_but_stay)
{
    set_cr4(CR4_PCIDE);
    set_cr3(root | 1);
    cache_and_change(FLAGS);
    set_cr3(root | 2);
    ck_assert(!is_cached()); // takes the slot
    set_cr3(root | 1);
    ck_assert(!is_cached());
    cache_and_change(FLAGS);
    set_cr3(root | 2);
    mmu_invalidate_pcid(&mmu, 2);
    mmu_invalidate_pcid_page(&mmu, 2, GVA);
    set_cr3(root | 1);
    ck_assert(is_cached());
    mmu_invalidate_pcid(&mmu, 1);
    ck_assert(!is_cached());
}
END_TEST

START_TEST(global_pages_serve_every_pcid)
{
    set_cr4(CR4_PCIDE | CR4_PGE);
    set_cr3(root | 1);
    cache_and_change(FLAGS | GLOBAL);
    set_cr3(root | 2);
    ck_assert(is_cached());
}
END_TEST

START_TEST(invpcid_of_a_page_keeps_globals_and_other_pcids)
{
    set_cr4(CR4_PCIDE | CR4_PGE);
    set_cr3(root | 3);
    cache_and_change(FLAGS);
    mmu_invalidate_pcid_page(&mmu, 4, GVA);
    ck_assert(is_cached());
    set_cr3(root | 4);
    mmu_invalidate_pcid_page(&mmu, 3, GVA); // not the current one
    set_cr3(root | 3);
    ck_assert(!is_cached());
    cache_and_change(FLAGS | GLOBAL);
    mmu_invalidate_pcid_page(&mmu, 3, GVA);
    ck_assert(is_cached());
}
END_TEST

// Maps a 2-MByte page and touches two fragments.
START_TEST(invlpg_forgets_all_fragments_of_a_large_page)
{
    gva_t large = 0x7F0040000000;
    hpa_t at = map_page(root, large, 21, 0x600000 | PS | FLAGS, P | RW | US);
    ck_assert_uint_eq(frame_of(large), 0x600000);
    ck_assert_uint_eq(frame_of(large + 0x5000), 0x605000);
    cache_and_change(FLAGS);
    put64(at, 0x800000 | PS | FLAGS);
    mmu_invalidate_page(&mmu, large + 0x5000);
    ck_assert_uint_eq(frame_of(large), 0x800000);
    ck_assert_uint_eq(frame_of(large + 0x5000), 0x805000);
    ck_assert(is_cached());
}
END_TEST

START_TEST(invlpg_of_a_neighbour_keeps_a_large_page)
{
    gva_t large = 0x7F0040000000;
    hpa_t at = map_page(root, large, 21, 0x600000 | PS | FLAGS, P | RW | US);
    ck_assert_uint_eq(frame_of(large), 0x600000);
    put64(at, 0x800000 | PS | FLAGS);
    mmu_invalidate_page(&mmu, large + 0x200000);
    ck_assert_uint_eq(frame_of(large), 0x600000);
    mmu_invalidate_page(&mmu, large + 0x1FFFFF);
    ck_assert_uint_eq(frame_of(large), 0x800000);
}
END_TEST

START_TEST(gbyte_page_is_forgotten_whole)
{
    gva_t large = 0x7F0040000000;
    hpa_t at = map_page(root, large, 30, PS | FLAGS, P | RW | US);
    ck_assert_uint_eq(frame_of(large + 0x3000000), 0x3000000);
    put64(at, BIT(30) | PS | FLAGS);
    mmu_invalidate_page(&mmu, large + 0x20000000);
    ck_assert_uint_eq(frame_of(large + 0x3000000), BIT(30) + 0x3000000);
}
END_TEST

START_TEST(paging_off_translations_do_not_mix_with_paging_on)
{
    gva_t low = 0x9000;
    map_4k(root, low, FRAME_B | FLAGS);
    mmu_set_control(&mmu, CR0_PE, root, 0, 0);
    ck_assert_uint_eq(frame_of(low), low);
    mmu_set_control(&mmu, LONG_CR0, root, LONG_CR4, LONG_EFER);
    ck_assert_uint_eq(frame_of(low), FRAME_B);
    mmu_set_control(&mmu, CR0_PE, root, 0, 0);
    ck_assert_uint_eq(frame_of(low), low);
}
END_TEST

// ---- VPIDs and EPT ----

START_TEST(translations_of_another_vpid_do_not_match_but_stay)
{
    mmu_set_vm(&mmu, 1, false, 0);
    cache_and_change(FLAGS);
    mmu_set_vm(&mmu, 0, false, 0);
    mmu_invalidate_vpid(&mmu, 0, false);
    mmu_invalidate_page(&mmu, GVA);
    mmu_set_vm(&mmu, 1, false, 0);
    ck_assert(is_cached());
    mmu_set_vm(&mmu, 0, false, 0);
    mmu_invalidate_vpid(&mmu, 1, false);
    mmu_set_vm(&mmu, 1, false, 0);
    ck_assert(!is_cached());
}
END_TEST

START_TEST(invvpid_of_a_page_reaches_all_pcids_and_globals_of_the_vpid)
{
    set_cr4(CR4_PCIDE | CR4_PGE);
    for (unsigned global = 0; global < 2; global++) {
        set_cr3(root | 5);
        mmu_set_vm(&mmu, 7, false, 0);
        cache_and_change(FLAGS | (global ? GLOBAL : 0));
        mmu_set_vm(&mmu, 0, false, 0);
        set_cr3(root);
        mmu_invalidate_vpid_page(&mmu, 8, GVA);
        mmu_invalidate_vpid_page(&mmu, 7, GVA + PAGE_SIZE);
        set_cr3(root | 5);
        mmu_set_vm(&mmu, 7, false, 0);
        ck_assert(is_cached());
        mmu_set_vm(&mmu, 0, false, 0);
        mmu_invalidate_vpid_page(&mmu, 7, GVA);
        mmu_set_vm(&mmu, 7, false, 0);
        ck_assert(!is_cached());
    }
}
END_TEST

START_TEST(all_context_invvpid_spares_vpid_0)
{
    cache_and_change(FLAGS);
    mmu_invalidate_all_vpids(&mmu);
    ck_assert(is_cached());
    mmu_set_vm(&mmu, 3, false, 0);
    cache_and_change(FLAGS);
    mmu_set_vm(&mmu, 0, false, 0);
    mmu_invalidate_all_vpids(&mmu);
    mmu_set_vm(&mmu, 3, false, 0);
    ck_assert(!is_cached());
}
END_TEST

static uint64_t eptp;

// As cache_and_change, but the EPT entry changes.
static void cache_and_change_ept(void)
{
    put64(ept_leaf_address(eptp, FRAME_A), FRAME_A | EPT_LEAF);
    mmu_invalidate_eptp(&mmu, eptp);
    ck_assert_uint_eq(frame_of(GVA), FRAME_A);
    put64(ept_leaf_address(eptp, FRAME_A), FRAME_B | EPT_LEAF);
}

static void enter_vm(void)
{
    next_table = 0x800000;
    eptp = identity_ept();
    mmu_set_vm(&mmu, 1, true, eptp);
}

START_TEST(invept_forgets_combined_and_guest_physical_mappings)
{
    enter_vm();
    cache_and_change_ept();
    ck_assert(is_cached());
    mmu_invalidate_eptp(&mmu, eptp ^ 0x1000000);
    ck_assert(is_cached());
    mmu_invalidate_eptp(&mmu, eptp);
    ck_assert(!is_cached());
    cache_and_change_ept();
    mmu_invalidate_all_epts(&mmu);
    ck_assert(!is_cached());
}
END_TEST

START_TEST(guest_physical_mappings_outlive_invlpg_and_invvpid)
{
    enter_vm();
    cache_and_change_ept();
    mmu_invalidate_page(&mmu, GVA);
    ck_assert(is_cached());
    mmu_invalidate_pcid(&mmu, 0);
    ck_assert(is_cached());
    mmu_invalidate_vpid(&mmu, 1, false);
    ck_assert(is_cached());
    mmu_invalidate_vpid(&mmu, 0, false);
    mmu_invalidate_all_vpids(&mmu);
    ck_assert(is_cached());
    mmu_set_vm(&mmu, 0, true, eptp); // tagged by EPTRTA, not by VPID
    ck_assert(is_cached());
}
END_TEST

START_TEST(combined_mappings_are_forgotten_by_guest_invalidations)
{
    enter_vm();
    cache_and_change(FLAGS);
    ck_assert(is_cached());
    mmu_invalidate_page(&mmu, GVA);
    ck_assert(!is_cached());
}
END_TEST

START_TEST(combined_mappings_of_another_eptrta_do_not_match)
{
    enter_vm();
    uint64_t other = identity_ept();
    put64(ept_leaf_address(other, FRAME_A), FRAME_B | EPT_LEAF);
    ck_assert_uint_eq(frame_of(GVA), FRAME_A);
    mmu_set_vm(&mmu, 1, true, other);
    ck_assert_uint_eq(frame_of(GVA), FRAME_B);
}
END_TEST

START_TEST(guest_invalidations_reach_every_eptrta)
{
    enter_vm();
    cache_and_change(FLAGS);
    mmu_set_vm(&mmu, 1, true, identity_ept());
    mmu_invalidate_page(&mmu, GVA);
    mmu_set_vm(&mmu, 1, true, eptp);
    ck_assert(!is_cached());
    cache_and_change(FLAGS);
    mmu_set_vm(&mmu, 1, false, 0); // even with EPT off
    mmu_invalidate_pcid(&mmu, 0);
    mmu_set_vm(&mmu, 1, true, eptp);
    ck_assert(!is_cached());
}
END_TEST

START_TEST(mov_cr3_with_paging_off_forgets_combined_mappings)
{
    enter_vm();
    mmu_set_control(&mmu, CR0_PE, 0, 0, 0);
    ck_assert_uint_eq(frame_of(FRAME_A), FRAME_A);
    put64(ept_leaf_address(eptp, FRAME_A), FRAME_B | EPT_LEAF);
    ck_assert_uint_eq(frame_of(FRAME_A + TLB_GUEST_PHYSICAL * PAGE_SIZE), FRAME_A + TLB_GUEST_PHYSICAL * PAGE_SIZE);
    ck_assert_uint_eq(frame_of(FRAME_A), FRAME_A); // its guest-physical mapping was replaced
    mmu_invalidate_pcid(&mmu, 0);
    ck_assert_uint_eq(frame_of(FRAME_A), FRAME_B);
}
END_TEST

START_TEST(invept_spares_linear_mappings)
{
    cache_and_change(FLAGS);
    mmu_invalidate_all_epts(&mmu);
    ck_assert(is_cached());
}
END_TEST

START_TEST(ept_violation_forgets_the_mappings_of_its_address)
{
    enter_vm();
    put64(ept_leaf_address(eptp, FRAME_A), FRAME_A | (EPT_LEAF & ~EPT_WRITE));
    ck_assert_uint_eq(frame_of(GVA), FRAME_A);
    put64(ept_leaf_address(eptp, FRAME_A), FRAME_B | (EPT_LEAF & ~EPT_WRITE));
    ck_assert(is_cached());
    ck_assert_int_eq(access_as(GVA, MMU_WRITE, MMU_SUPERVISOR), MMU_EPT_VIOLATION);
    ck_assert(!is_cached());
}
END_TEST

START_TEST(added_ept_rights_need_no_invalidation)
{
    enter_vm();
    put64(ept_leaf_address(eptp, FRAME_A), FRAME_A | (EPT_LEAF & ~(EPT_WRITE | EPT_EXECUTE)));
    read_page(GVA);
    put64(ept_leaf_address(eptp, FRAME_A), FRAME_A | EPT_LEAF);
    ck_assert_int_eq(access_as(GVA, MMU_FETCH, MMU_SUPERVISOR), MMU_OK);
    ck_assert_int_eq(access_as(GVA, MMU_WRITE, MMU_SUPERVISOR), MMU_OK);
}
END_TEST

START_TEST(first_write_sets_the_ept_dirty_flag_after_a_cached_read)
{
    enter_vm();
    mmu_set_vm(&mmu, 1, true, eptp | EPTP_ACCESSED_DIRTY);
    put64(leaf_at, FRAME_A | FLAGS | DIRTY);
    fill(GVA, MMU_SUPERVISOR, MMU_READ);
    ck_assert(!fast_hits(GVA, MMU_SUPERVISOR, MMU_WRITE));
    ck_assert(!(get64(ept_leaf_address(eptp, FRAME_A)) & EPT_DIRTY));
    fill(GVA, MMU_SUPERVISOR, MMU_WRITE);
    ck_assert(get64(ept_leaf_address(eptp, FRAME_A)) & EPT_DIRTY);
    ck_assert(fast_hits(GVA, MMU_SUPERVISOR, MMU_WRITE));
}
END_TEST

START_TEST(execute_only_page_can_be_fetched_and_not_read)
{
    enter_vm();
    put64(ept_leaf_address(eptp, FRAME_A), FRAME_A | (6u << 3) | EPT_EXECUTE);
    fill(GVA, MMU_SUPERVISOR, MMU_FETCH);
    ck_assert(fast_hits(GVA, MMU_SUPERVISOR, MMU_FETCH));
    ck_assert(!fast_hits(GVA, MMU_SUPERVISOR, MMU_READ));
    ck_assert_int_eq(read_page(GVA), MMU_EPT_VIOLATION);
}
END_TEST

// ---- Numbers and replacement ----

START_TEST(contexts_are_replaced_least_recently_used_first)
{
    set_cr4(CR4_PCIDE);
    set_cr3(root | 1);
    cache_and_change(FLAGS);
    // Far more contexts than there are slots, each with a translation in another slot of the TLB.
    for (unsigned pcid = 2; pcid < 2 + TLB_CONTEXTS; pcid++) {
        set_cr3(root | pcid);
        ck_assert_uint_eq(frame_of(OTHER_GVA), FRAME_A);
    }
    ck_assert_uint_eq(mmu.contexts_used, TLB_CONTEXTS);
    set_cr3(root | 1);
    ck_assert(!is_cached()); // replaced
    set_cr3(root | (1 + TLB_CONTEXTS));
    put64(other_at, FRAME_B | FLAGS);
    ck_assert_uint_eq(frame_of(OTHER_GVA), FRAME_A); // the last one was not
}
END_TEST

START_TEST(running_out_of_context_numbers_forgets_everything)
{
    cache_and_change(FLAGS);
    mmu.next_context_number = UINT32_MAX - 2;
    ck_assert(is_cached());
    mmu_set_vm(&mmu, 9, false, 0);
    read_page(OTHER_GVA); // needs numbers
    ck_assert(mmu.next_context_number < 10);
    mmu_set_vm(&mmu, 0, false, 0);
    ck_assert(!is_cached());
}
END_TEST

START_TEST(running_out_of_fast_tags_changes_nothing)
{
    cache_and_change(FLAGS);
    fill(GVA, MMU_USER, MMU_READ);
    for (unsigned i = 0; i < 3 * MMU_FAST_TAGS; i++) {
        mmu_drop_fast(&mmu);
        if (mmu.context == 0 || mmu.context > MMU_FAST_TAGS || fast_hits(GVA, MMU_USER, MMU_READ))
            ck_abort_msg("a dropped entry matched");
    }
    ck_assert(is_cached());
}
END_TEST

START_TEST(setting_the_same_values_changes_no_number)
{
    read_page(GVA);
    uint64_t context = mmu.context;
    mmu.code.page = GVA;
    mmu_set_control(&mmu, mmu.cr0, mmu.cr3, mmu.cr4, mmu.efer);
    mmu_set_vm(&mmu, 0, false, 0x1234000);
    ck_assert_uint_eq(mmu.context, context);
    ck_assert_uint_eq(mmu.code.page, GVA);
}
END_TEST

START_TEST(every_invalidation_forgets_the_code_page)
{
    for (unsigned i = 0; i < 10; i++) {
        mmu.code.page = GVA;
        switch (i) {
        case 0: mmu_invalidate_page(&mmu, 0); break;
        case 1: mmu_invalidate_pcid_page(&mmu, 1, 0); break;
        case 2: mmu_invalidate_pcid(&mmu, 1); break;
        case 3: mmu_invalidate_vpid(&mmu, 1, true); break;
        case 4: mmu_invalidate_vpid_page(&mmu, 1, 0); break;
        case 5: mmu_invalidate_all_vpids(&mmu); break;
        case 6: mmu_invalidate_eptp(&mmu, 0); break;
        case 7: mmu_invalidate_all_epts(&mmu); break;
        case 8: mmu_invalidate_everything(&mmu); break;
        case 9: mmu_reset(&mmu); break;
        }
        ck_assert_msg(mmu.code.page == UINT64_MAX, "invalidation %u", i);
    }
}
END_TEST

START_TEST(code_page_is_forgotten_when_its_rights_may_change)
{
    mmu.code.page = GVA;
    mmu_set_mode(&mmu, MMU_SUPERVISOR_AC);
    ck_assert_uint_eq(mmu.code.page, GVA);
    mmu_set_mode(&mmu, MMU_USER);
    ck_assert(mmu.code.page == UINT64_MAX);
    mmu.code.page = GVA;
    set_cr4(CR4_SMEP);
    ck_assert(mmu.code.page == UINT64_MAX);
    mmu.code.page = GVA;
    mmu_set_vm(&mmu, 1, false, 0);
    ck_assert(mmu.code.page == UINT64_MAX);
}
END_TEST

// ---- Fast entries ----

START_TEST(fast_entry_points_at_the_frame)
{
    fill(GVA, MMU_USER, MMU_READ);
    ck_assert(fast_hits(GVA, MMU_USER, MMU_READ));
    uint64_t host = GVA + 0x321 + mmu.fast[mmu.bank][MMU_USER][mmu_slot(GVA)].addend;
    ck_assert_ptr_eq((uint8_t *)(uintptr_t)host, memory.ram + FRAME_A + 0x321);
    ck_assert(!fast_hits(GVA, MMU_SUPERVISOR, MMU_READ)); // each mode has its own
}
END_TEST

START_TEST(current_is_the_table_of_the_mode)
{
    for (unsigned mode = 0; mode < MMU_MODES; mode++) {
        mmu_set_mode(&mmu, (enum mmu_mode)mode);
        ck_assert_ptr_eq(mmu.current, mmu.fast[mmu.bank][mode]);
    }
}
END_TEST

START_TEST(fast_tags_follow_rights_and_mode)
{
    put64(leaf_at, FRAME_A | P | US | ACC | DIRTY | XD);
    set_cr4(CR4_SMAP);
    fill(GVA, MMU_USER, MMU_READ);
    ck_assert(fast_hits(GVA, MMU_USER, MMU_READ));
    ck_assert(!fast_hits(GVA, MMU_USER, MMU_WRITE));
    ck_assert(!fast_hits(GVA, MMU_USER, MMU_FETCH));
    mmu_fill_fast(&mmu, GVA, MMU_SUPERVISOR);
    ck_assert(!fast_hits(GVA, MMU_SUPERVISOR, MMU_READ));
    mmu_fill_fast(&mmu, GVA, MMU_SUPERVISOR_AC);
    ck_assert(fast_hits(GVA, MMU_SUPERVISOR_AC, MMU_READ));
}
END_TEST

START_TEST(write_tag_comes_with_a_write_and_marks_the_page_dirty)
{
    memory.page_flags[FRAME_A >> PAGE_SHIFT] = 0;
    put64(leaf_at, FRAME_A | FLAGS | DIRTY);
    fill(GVA, MMU_USER, MMU_READ);
    ck_assert(!fast_hits(GVA, MMU_USER, MMU_WRITE));
    ck_assert_uint_eq(memory.page_flags[FRAME_A >> PAGE_SHIFT], 0);
    fill(GVA, MMU_USER, MMU_WRITE);
    ck_assert(fast_hits(GVA, MMU_USER, MMU_WRITE));
    ck_assert_uint_eq(memory.page_flags[FRAME_A >> PAGE_SHIFT], PAGE_DIRTY);
    fill(GVA, MMU_USER, MMU_READ);
    ck_assert(fast_hits(GVA, MMU_USER, MMU_WRITE)); // a later read takes nothing away
}
END_TEST

START_TEST(code_pages_get_no_write_tag)
{
    memory.page_flags[FRAME_A >> PAGE_SHIFT] = PAGE_CODE;
    fill(GVA, MMU_USER, MMU_WRITE);
    ck_assert(fast_hits(GVA, MMU_USER, MMU_READ));
    ck_assert(!fast_hits(GVA, MMU_USER, MMU_WRITE));
}
END_TEST

START_TEST(protecting_a_frame_takes_the_write_tags_of_all_its_addresses)
{
    fill(GVA, MMU_USER, MMU_WRITE);
    fill(OTHER_GVA, MMU_SUPERVISOR, MMU_WRITE); // the same frame
    ck_assert(fast_hits(OTHER_GVA, MMU_SUPERVISOR, MMU_WRITE));
    mmu_protect_frame(&mmu, FRAME_B);
    ck_assert(fast_hits(GVA, MMU_USER, MMU_WRITE));
    mmu_protect_frame(&mmu, FRAME_A + 5);
    ck_assert(!fast_hits(GVA, MMU_USER, MMU_WRITE));
    ck_assert(!fast_hits(OTHER_GVA, MMU_SUPERVISOR, MMU_WRITE));
    ck_assert(fast_hits(GVA, MMU_USER, MMU_READ));
}
END_TEST

START_TEST(frames_outside_ram_have_no_fast_entries)
{
    put64(leaf_at, 0xFEE00000 | FLAGS);
    fill(GVA, MMU_USER, MMU_READ);
    ck_assert(!fast_hits(GVA, MMU_USER, MMU_READ));
}
END_TEST

START_TEST(control_bits_and_contexts_separate_fast_entries_without_dropping_them)
{
    fill(GVA, MMU_SUPERVISOR, MMU_READ);
    set_cr4(CR4_SMAP);
    ck_assert(!fast_hits(GVA, MMU_SUPERVISOR, MMU_READ));
    set_cr4(0);
    ck_assert(fast_hits(GVA, MMU_SUPERVISOR, MMU_READ));
    mmu_set_vm(&mmu, 1, false, 0);
    ck_assert(!fast_hits(GVA, MMU_SUPERVISOR, MMU_READ));
    mmu_set_vm(&mmu, 0, false, 0);
    ck_assert(fast_hits(GVA, MMU_SUPERVISOR, MMU_READ));
    mmu_invalidate_pcid(&mmu, 0);
    ck_assert(!fast_hits(GVA, MMU_SUPERVISOR, MMU_READ));
}
END_TEST

START_TEST(fast_entries_die_with_their_translation)
{
    fill(GVA, MMU_USER, MMU_WRITE);
    mmu_invalidate_page(&mmu, GVA);
    ck_assert(!fast_hits(GVA, MMU_USER, MMU_READ));
    ck_assert(!fast_hits(GVA, MMU_USER, MMU_WRITE));
    fill(GVA, MMU_USER, MMU_WRITE);
    mmu_drop_fast(&mmu);
    ck_assert(!fast_hits(GVA, MMU_USER, MMU_READ));
}
END_TEST

START_TEST(rebuild_restores_everything_derived)
{
    set_cr4(CR4_PCIDE | CR4_PGE);
    set_cr3(root | 1);
    mmu_set_mode(&mmu, MMU_USER);
    cache_and_change(FLAGS);
    fill(GVA, MMU_USER, MMU_READ);
    uint64_t clock = mmu.context_clock;
    struct mmu *copy = malloc(sizeof *copy);
    memcpy(copy, &mmu, sizeof mmu);
    mmu_invalidate_everything(&mmu);
    memcpy(&mmu, copy, sizeof mmu);
    mmu_rebuild(&mmu);
    ck_assert(!fast_hits(GVA, MMU_USER, MMU_READ));
    ck_assert(is_cached());
    ck_assert_uint_eq(mmu.context_clock, clock);
    ck_assert_ptr_eq(mmu.current, mmu.fast[mmu.bank][MMU_USER]);
    free(copy);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mmu tlb");
    TCase *tests = tcase_create("tlb");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, setup, fixture_teardown);
    tcase_add_test(tests, translation_stays_until_invalidated);
    tcase_add_test(tests, not_present_is_never_cached);
    tcase_add_test(tests, added_rights_need_no_invalidation);
    tcase_add_test(tests, removed_rights_stay_until_invalidated);
    tcase_add_test(tests, page_fault_forgets_the_translation);
    tcase_add_test(tests, another_page_of_the_slot_takes_its_place);
    tcase_add_test(tests, invlpg_forgets_one_page_even_if_global);
    tcase_add_test(tests, mov_cr3_keeps_global_pages_only);
    tcase_add_test(tests, mov_cr4_forgets_global_pages_too);
    tcase_add_test(tests, translations_of_another_pcid_do_not_match_but_stay);
    tcase_add_test(tests, global_pages_serve_every_pcid);
    tcase_add_test(tests, invpcid_of_a_page_keeps_globals_and_other_pcids);
    tcase_add_test(tests, invlpg_forgets_all_fragments_of_a_large_page);
    tcase_add_test(tests, invlpg_of_a_neighbour_keeps_a_large_page);
    tcase_add_test(tests, gbyte_page_is_forgotten_whole);
    tcase_add_test(tests, paging_off_translations_do_not_mix_with_paging_on);
    tcase_add_test(tests, translations_of_another_vpid_do_not_match_but_stay);
    tcase_add_test(tests, invvpid_of_a_page_reaches_all_pcids_and_globals_of_the_vpid);
    tcase_add_test(tests, all_context_invvpid_spares_vpid_0);
    tcase_add_test(tests, invept_forgets_combined_and_guest_physical_mappings);
    tcase_add_test(tests, guest_physical_mappings_outlive_invlpg_and_invvpid);
    tcase_add_test(tests, combined_mappings_are_forgotten_by_guest_invalidations);
    tcase_add_test(tests, combined_mappings_of_another_eptrta_do_not_match);
    tcase_add_test(tests, guest_invalidations_reach_every_eptrta);
    tcase_add_test(tests, mov_cr3_with_paging_off_forgets_combined_mappings);
    tcase_add_test(tests, invept_spares_linear_mappings);
    tcase_add_test(tests, ept_violation_forgets_the_mappings_of_its_address);
    tcase_add_test(tests, added_ept_rights_need_no_invalidation);
    tcase_add_test(tests, first_write_sets_the_ept_dirty_flag_after_a_cached_read);
    tcase_add_test(tests, execute_only_page_can_be_fetched_and_not_read);
    tcase_add_test(tests, contexts_are_replaced_least_recently_used_first);
    tcase_add_test(tests, running_out_of_context_numbers_forgets_everything);
    tcase_add_test(tests, running_out_of_fast_tags_changes_nothing);
    tcase_add_test(tests, setting_the_same_values_changes_no_number);
    tcase_add_test(tests, every_invalidation_forgets_the_code_page);
    tcase_add_test(tests, code_page_is_forgotten_when_its_rights_may_change);
    tcase_add_test(tests, fast_entry_points_at_the_frame);
    tcase_add_test(tests, current_is_the_table_of_the_mode);
    tcase_add_test(tests, fast_tags_follow_rights_and_mode);
    tcase_add_test(tests, write_tag_comes_with_a_write_and_marks_the_page_dirty);
    tcase_add_test(tests, code_pages_get_no_write_tag);
    tcase_add_test(tests, protecting_a_frame_takes_the_write_tags_of_all_its_addresses);
    tcase_add_test(tests, frames_outside_ram_have_no_fast_entries);
    tcase_add_test(tests, control_bits_and_contexts_separate_fast_entries_without_dropping_them);
    tcase_add_test(tests, fast_entries_die_with_their_translation);
    tcase_add_test(tests, rebuild_restores_everything_derived);
    suite_add_tcase(suite, tests);
    return run_cases(suite);
}
