// Guest page walks: formats, reserved bits, rights, error codes, accessed and dirty flags, and the order with EPT.
#include "mmu_fixture.h"
#include "reference_walk.h"

#include <stdio.h>

#define TEST_GVA   (BIT(39) | BIT(30) | BIT(21) | BIT(12) | 0x123)
#define TEST_FRAME 0x5000u
#define CODE_FLAGS (P | RW | US)

static hpa_t root;
static hpa_t entry_at[4]; // PML4E, PDPTE, PDE, PTE of TEST_GVA

// One page in 4-level tables, everything allowed.
static void build_4level(void)
{
    next_table = 0x100000;
    root = new_table();
    for (hpa_t a = 0x100000; a < 0x110000; a += 8)
        put64(a, 0);
    entry_at[3] = map_4k(root, TEST_GVA, TEST_FRAME | CODE_FLAGS);
    entry_at[0] = root + 8;
    entry_at[1] = (get64(entry_at[0]) & BITS(51, 12)) + 8;
    entry_at[2] = (get64(entry_at[1]) & BITS(51, 12)) + 8;
    enter_long_mode(root);
}

static void set_long(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    mmu_set_control(&mmu, CR0_PE | CR0_PG | cr0, root, CR4_PAE | cr4, EFER_LME | EFER_LMA | efer);
    mmu_invalidate_everything(&mmu);
}

static uint32_t error_of(enum mmu_access access, enum mmu_mode mode)
{
    ck_assert_int_eq(access_as(TEST_GVA, access, mode), MMU_PAGE_FAULT);
    ck_assert_uint_eq(fault.gva, TEST_GVA);
    return fault.error_code;
}

START_TEST(paging_off_is_one_to_one)
{
    ck_assert_int_eq(access_as(0xFFFFF123, MMU_FETCH, MMU_USER), MMU_OK);
    ck_assert_uint_eq(hpa, 0xFFFFF123);
    ck_assert_int_eq(access_as(0x123456, MMU_WRITE, MMU_SUPERVISOR), MMU_OK);
    ck_assert_uint_eq(hpa, 0x123456);
    ck_assert_uint_eq(mmu.references, 0);
}
END_TEST

START_TEST(four_level_walk_finds_pages_of_each_size)
{
    build_4level();
    ck_assert_int_eq(read_page(TEST_GVA), MMU_OK);
    ck_assert_uint_eq(hpa, TEST_FRAME | 0x123);
    ck_assert_uint_eq(mmu.references, 4);
    put64(entry_at[2], 0x600000 | PS | CODE_FLAGS);
    mmu_invalidate_everything(&mmu);
    ck_assert_int_eq(read_page(TEST_GVA), MMU_OK);
    ck_assert_uint_eq(hpa, 0x601123);
    put64(entry_at[1], BIT(32) | PS | CODE_FLAGS);
    mmu_invalidate_everything(&mmu);
    ck_assert_int_eq(read_page(TEST_GVA), MMU_OK);
    ck_assert_uint_eq(hpa, BIT(32) | 0x201123);
}
END_TEST

START_TEST(five_level_walk_adds_a_level)
{
    build_4level();
    hpa_t pml5 = new_table();
    put64(pml5 + 8, root | CODE_FLAGS);
    mmu_set_control(&mmu, LONG_CR0, pml5, LONG_CR4 | CR4_LA57, LONG_EFER);
    ck_assert_int_eq(read_page(TEST_GVA | BIT(48)), MMU_OK);
    ck_assert_uint_eq(hpa, TEST_FRAME | 0x123);
    ck_assert(mmu_probe(&mmu, TEST_GVA | BIT(48), &hpa));
    ck_assert_uint_eq(hpa, TEST_FRAME | 0x123);
}
END_TEST

START_TEST(pcid_and_low_bits_of_cr3_do_not_change_the_root)
{
    build_4level();
    mmu_set_control(&mmu, LONG_CR0, root | 0x18, LONG_CR4, LONG_EFER);
    mmu_invalidate_everything(&mmu);
    ck_assert_int_eq(read_page(TEST_GVA), MMU_OK);
}
END_TEST

START_TEST(not_present_entry_faults_with_p_clear)
{
    for (unsigned level = 0; level < 4; level++) {
        build_4level();
        put64(entry_at[level], ~(uint64_t)P); // reserved bits of such an entry do not count
        ck_assert_uint_eq(error_of(MMU_READ, MMU_SUPERVISOR), 0);
        ck_assert_uint_eq(error_of(MMU_WRITE, MMU_USER), PF_WRITE | PF_USER);
        ck_assert_uint_eq(error_of(MMU_FETCH, MMU_USER), PF_FETCH | PF_USER);
    }
}
END_TEST

START_TEST(reserved_bits_of_4level_entries_are_exact)
{
    for (unsigned nxe = 0; nxe < 2; nxe++) {
        for (unsigned bit = 7; bit < 64; bit++) {
            for (unsigned level = 0; level < 4; level++) {
                build_4level();
                set_long(CR0_WP, 0, nxe ? EFER_NXE : 0);
                if (bit >= 12 && bit < 40)
                    continue; // address
                if (bit == 7 && (level == 1 || level == 2))
                    continue; // makes it a large page
                put64(entry_at[level], get64(entry_at[level]) | BIT(bit));
                bool reserved = (bit >= 40 && bit <= 51) || (bit == 63 && !nxe) || (bit == 7 && level == 0);
                enum mmu_status status = read_page(TEST_GVA);
                ck_assert_msg(status == (reserved ? MMU_PAGE_FAULT : MMU_OK), "level %u bit %u", level, bit);
                if (reserved)
                    ck_assert_uint_eq(fault.error_code, PF_PRESENT | PF_RESERVED);
            }
        }
    }
}
END_TEST

START_TEST(reserved_bits_of_large_pages_are_exact)
{
    for (unsigned bit = 12; bit < 30; bit++) {
        build_4level();
        put64(entry_at[2], PS | CODE_FLAGS | BIT(bit));
        ck_assert_int_eq(read_page(TEST_GVA), bit >= 13 && bit <= 20 ? MMU_PAGE_FAULT : MMU_OK);
        build_4level();
        put64(entry_at[1], PS | CODE_FLAGS | BIT(bit));
        ck_assert_int_eq(read_page(TEST_GVA), bit >= 13 ? MMU_PAGE_FAULT : MMU_OK);
    }
}
END_TEST

START_TEST(gbyte_page_without_support_is_reserved)
{
    build_4level();
    put64(entry_at[1], PS | CODE_FLAGS);
    mmu.page_1g = false;
    ck_assert_uint_eq(error_of(MMU_READ, MMU_SUPERVISOR), PF_PRESENT | PF_RESERVED);
}
END_TEST

START_TEST(user_access_needs_us_in_every_entry)
{
    for (unsigned level = 0; level < 4; level++) {
        build_4level();
        put64(entry_at[level], get64(entry_at[level]) & ~US);
        ck_assert_uint_eq(error_of(MMU_READ, MMU_USER), PF_PRESENT | PF_USER);
        ck_assert_uint_eq(error_of(MMU_FETCH, MMU_USER), PF_PRESENT | PF_USER | PF_FETCH);
        ck_assert_int_eq(read_page(TEST_GVA), MMU_OK);
        ck_assert_uint_eq(error_of(MMU_READ, MMU_USER), PF_PRESENT | PF_USER); // now from the TLB
    }
}
END_TEST

START_TEST(write_needs_rw_in_every_entry_unless_supervisor_without_wp)
{
    for (unsigned level = 0; level < 4; level++) {
        build_4level();
        put64(entry_at[level], get64(entry_at[level]) & ~RW);
        ck_assert_uint_eq(error_of(MMU_WRITE, MMU_USER), PF_PRESENT | PF_USER | PF_WRITE);
        ck_assert_uint_eq(error_of(MMU_WRITE, MMU_SUPERVISOR), PF_PRESENT | PF_WRITE);
        set_long(0, 0, EFER_NXE);
        ck_assert_int_eq(access_as(TEST_GVA, MMU_WRITE, MMU_SUPERVISOR), MMU_OK);
        ck_assert_uint_eq(error_of(MMU_WRITE, MMU_USER), PF_PRESENT | PF_USER | PF_WRITE);
    }
}
END_TEST

START_TEST(fetch_from_execute_disabled_page_faults)
{
    for (unsigned level = 0; level < 4; level++) {
        build_4level();
        put64(entry_at[level], get64(entry_at[level]) | XD);
        ck_assert_uint_eq(error_of(MMU_FETCH, MMU_SUPERVISOR), PF_PRESENT | PF_FETCH);
        ck_assert_int_eq(read_page(TEST_GVA), MMU_OK);
    }
}
END_TEST

START_TEST(fetch_bit_of_the_error_code_needs_nxe_or_smep)
{
    build_4level();
    put64(entry_at[3], 0);
    set_long(CR0_WP, 0, 0);
    ck_assert_uint_eq(error_of(MMU_FETCH, MMU_SUPERVISOR), 0);
    set_long(CR0_WP, CR4_SMEP, 0);
    ck_assert_uint_eq(error_of(MMU_FETCH, MMU_SUPERVISOR), PF_FETCH);
    set_long(CR0_WP, 0, EFER_NXE);
    ck_assert_uint_eq(error_of(MMU_FETCH, MMU_SUPERVISOR), PF_FETCH);
}
END_TEST

START_TEST(smep_forbids_supervisor_fetches_from_user_pages)
{
    build_4level();
    set_long(CR0_WP, CR4_SMEP, EFER_NXE);
    ck_assert_uint_eq(error_of(MMU_FETCH, MMU_SUPERVISOR), PF_PRESENT | PF_FETCH);
    ck_assert_uint_eq(error_of(MMU_FETCH, MMU_SUPERVISOR_AC), PF_PRESENT | PF_FETCH);
    ck_assert_int_eq(access_as(TEST_GVA, MMU_FETCH, MMU_USER), MMU_OK);
    ck_assert_int_eq(read_page(TEST_GVA), MMU_OK);
    put64(entry_at[2], get64(entry_at[2]) & ~US);
    mmu_invalidate_everything(&mmu);
    ck_assert_int_eq(access_as(TEST_GVA, MMU_FETCH, MMU_SUPERVISOR), MMU_OK);
}
END_TEST

START_TEST(smap_forbids_supervisor_data_accesses_to_user_pages_unless_ac)
{
    build_4level();
    set_long(CR0_WP, CR4_SMAP, EFER_NXE);
    ck_assert_uint_eq(error_of(MMU_READ, MMU_SUPERVISOR), PF_PRESENT);
    ck_assert_uint_eq(error_of(MMU_WRITE, MMU_SUPERVISOR), PF_PRESENT | PF_WRITE);
    ck_assert_int_eq(access_as(TEST_GVA, MMU_WRITE, MMU_SUPERVISOR_AC), MMU_OK);
    ck_assert_int_eq(access_as(TEST_GVA, MMU_WRITE, MMU_USER), MMU_OK);
    ck_assert_int_eq(access_as(TEST_GVA, MMU_FETCH, MMU_SUPERVISOR), MMU_OK);
}
END_TEST

START_TEST(read_sets_accessed_in_all_and_dirty_in_none)
{
    build_4level();
    read_page(TEST_GVA);
    for (unsigned level = 0; level < 4; level++)
        ck_assert_uint_eq(get64(entry_at[level]) & (ACC | DIRTY), ACC);
}
END_TEST

START_TEST(write_sets_dirty_in_the_leaf)
{
    build_4level();
    read_page(TEST_GVA);
    ck_assert_int_eq(access_as(TEST_GVA, MMU_WRITE, MMU_SUPERVISOR), MMU_OK); // in the TLB, but without D
    for (unsigned level = 0; level < 4; level++)
        ck_assert_uint_eq(get64(entry_at[level]) & (ACC | DIRTY), ACC | (level == 3 ? DIRTY : 0));
    ck_assert_uint_eq(mmu.walks, 2);
    ck_assert_int_eq(access_as(TEST_GVA, MMU_WRITE, MMU_SUPERVISOR), MMU_OK);
    ck_assert_uint_eq(mmu.walks, 2);
}
END_TEST

START_TEST(faulting_walk_sets_no_flags)
{
    build_4level();
    put64(entry_at[3], TEST_FRAME | P);
    ck_assert_int_eq(access_as(TEST_GVA, MMU_WRITE, MMU_USER), MMU_PAGE_FAULT);
    for (unsigned level = 0; level < 4; level++)
        ck_assert_uint_eq(get64(entry_at[level]) & (ACC | DIRTY), 0);
}
END_TEST

START_TEST(entry_used_at_two_levels_keeps_both_updates)
{
    build_4level();
    put64(root + 511 * 8, root | P | RW); // recursive
    gva_t self = UINT64_MAX << 12;
    ck_assert_int_eq(access_as(self, MMU_WRITE, MMU_SUPERVISOR), MMU_OK);
    ck_assert_uint_eq(hpa, root);
    ck_assert_uint_eq(get64(root + 511 * 8), root | P | RW | ACC | DIRTY);
}
END_TEST

// ---- 32-bit and PAE paging ----

#define GVA32 0x00C01234u // directory index 3, table index 1

static void build_32bit(uint64_t cr4)
{
    root = 0x100000;
    put32(root + 3 * 4, 0x101000 | CODE_FLAGS);
    put32(0x101000 + 4, TEST_FRAME | CODE_FLAGS);
    mmu_set_control(&mmu, LONG_CR0, root, cr4, 0);
    mmu_invalidate_everything(&mmu);
}

START_TEST(two_level_walk_finds_the_page_and_sets_flags)
{
    build_32bit(0);
    ck_assert_int_eq(access_as(GVA32, MMU_WRITE, MMU_USER), MMU_OK);
    ck_assert_uint_eq(hpa, TEST_FRAME | 0x234);
    ck_assert_uint_eq(mmu.references, 2);
    ck_assert_uint_eq(get32(root + 12), 0x101000 | CODE_FLAGS | ACC);
    ck_assert_uint_eq(get32(0x101004), TEST_FRAME | CODE_FLAGS | ACC | DIRTY);
}
END_TEST

START_TEST(flag_update_of_a_4_byte_entry_leaves_its_neighbour)
{
    build_32bit(0);
    put32(0x101008, 0xDEADBEEF);
    access_as(GVA32, MMU_WRITE, MMU_USER);
    ck_assert_uint_eq(get32(0x101008), 0xDEADBEEF);
}
END_TEST

START_TEST(ps_bit_counts_only_with_cr4_pse)
{
    build_32bit(0);
    put32(root + 12, 0x101000 | CODE_FLAGS | (uint32_t)PS);
    ck_assert_int_eq(read_page(GVA32), MMU_OK);
    ck_assert_uint_eq(hpa, TEST_FRAME | 0x234);
    build_32bit(CR4_PSE);
    put32(root + 12, 0x800000 | CODE_FLAGS | (uint32_t)PS);
    ck_assert_int_eq(access_as(GVA32, MMU_WRITE, MMU_USER), MMU_OK);
    ck_assert_uint_eq(hpa, 0x801234);
    ck_assert(get32(root + 12) & DIRTY);
}
END_TEST

START_TEST(pse36_gives_address_bits_39_to_32_up_to_maxphyaddr)
{
    for (unsigned width = 36; width <= 44; width += 4) {
        mmu_init(&mmu, &bus, width);
        for (unsigned bit = 12; bit < 22; bit++) {
            build_32bit(CR4_PSE);
            put32(root + 12, 0x800000 | CODE_FLAGS | (uint32_t)PS | 1u << bit);
            bool reserved = bit == 21 || (bit >= 13 && bit + 19 >= width);
            ck_assert_int_eq(read_page(GVA32), reserved ? MMU_PAGE_FAULT : MMU_OK);
            if (reserved)
                ck_assert_uint_eq(fault.error_code, PF_PRESENT | PF_RESERVED);
            else
                ck_assert_uint_eq(hpa, 0x801234 | (bit >= 13 ? BIT(bit + 19) : 0));
        }
    }
}
END_TEST

START_TEST(fetch_bit_in_32bit_paging_needs_smep)
{
    build_32bit(0);
    mmu_set_control(&mmu, LONG_CR0, root, 0, EFER_NXE);
    ck_assert_int_eq(access_as(0, MMU_FETCH, MMU_USER), MMU_PAGE_FAULT);
    ck_assert_uint_eq(fault.error_code, PF_USER);
    mmu_set_control(&mmu, LONG_CR0, root, CR4_SMEP, 0);
    ck_assert_int_eq(access_as(0, MMU_FETCH, MMU_USER), MMU_PAGE_FAULT);
    ck_assert_uint_eq(fault.error_code, PF_USER | PF_FETCH);
}
END_TEST

static void build_pae(void)
{
    const uint64_t registers[4] = {0, 0x101000 | P, 0, 0};
    root = 0x100020;
    put64(root + 8, 0x101000 | P);
    put64(0x101000 + 8, 0x102000 | CODE_FLAGS);
    put64(0x102000 + 8, TEST_FRAME | CODE_FLAGS);
    mmu_set_pdptes(&mmu, registers);
    mmu_set_control(&mmu, LONG_CR0, root, CR4_PAE, EFER_NXE);
    mmu_invalidate_everything(&mmu);
}
#define GVA_PAE 0x40201234u

START_TEST(pae_walk_starts_at_the_pdpte_registers)
{
    build_pae();
    ck_assert(mmu_is_pae(mmu.cr0, mmu.cr4, mmu.efer));
    put64(root + 8, 0); // memory no longer counts
    ck_assert_int_eq(access_as(GVA_PAE, MMU_WRITE, MMU_USER), MMU_OK);
    ck_assert_uint_eq(hpa, TEST_FRAME | 0x234);
    ck_assert_uint_eq(mmu.references, 2);
    ck_assert_int_eq(read_page(0x80000000), MMU_PAGE_FAULT);
    ck_assert_uint_eq(fault.error_code, 0);
}
END_TEST

START_TEST(pae_reserves_bits_62_to_maxphyaddr)
{
    for (unsigned bit = 40; bit < 63; bit++) {
        build_pae();
        put64(0x102008, TEST_FRAME | CODE_FLAGS | BIT(bit));
        ck_assert_int_eq(read_page(GVA_PAE), MMU_PAGE_FAULT);
        ck_assert_uint_eq(fault.error_code, PF_PRESENT | PF_RESERVED);
    }
    build_pae();
    put64(0x102008, TEST_FRAME | CODE_FLAGS | XD);
    ck_assert_int_eq(read_page(GVA_PAE), MMU_OK);
    ck_assert_int_eq(access_as(GVA_PAE, MMU_FETCH, MMU_USER), MMU_PAGE_FAULT);
}
END_TEST

START_TEST(pae_2mbyte_page_needs_no_pse)
{
    build_pae();
    put64(0x101008, 0x600000 | CODE_FLAGS | PS);
    ck_assert_int_eq(read_page(GVA_PAE), MMU_OK);
    ck_assert_uint_eq(hpa, 0x601234);
}
END_TEST

START_TEST(pdpte_loads_check_reserved_bits_of_present_entries)
{
    uint64_t pdpte[4];
    for (unsigned bit = 1; bit < 64; bit++) {
        bool reserved = bit == 1 || bit == 2 || (bit >= 5 && bit <= 8) || bit >= 40;
        ck_assert_int_eq(mmu_pdpte_valid(&mmu, P | BIT(bit)), !reserved);
        ck_assert(mmu_pdpte_valid(&mmu, BIT(bit)));
    }
    put64(0x100020, 0x101000 | P);
    put64(0x100038, BIT(1));
    ck_assert_int_eq(mmu_read_pdptes(&mmu, 0x10003F, pdpte, &fault), MMU_OK); // bits 4:0 of CR3 are ignored
    ck_assert_uint_eq(pdpte[0], 0x101000 | P);
    ck_assert_uint_eq(pdpte[3], BIT(1));
    put64(0x100038, BIT(1) | P);
    ck_assert_int_eq(mmu_read_pdptes(&mmu, 0x100020, pdpte, &fault), MMU_PAGE_FAULT);
}
END_TEST

// ---- With EPT ----

static uint64_t eptp;

static void build_nested(uint64_t eptp_flags)
{
    build_4level();
    next_table = 0x800000;
    eptp = identity_ept() | eptp_flags;
    mmu_set_vm(&mmu, 0, true, eptp);
    mmu_invalidate_everything(&mmu);
}

// Changes the EPT leaf of a guest-physical page.
static void set_ept(gpa_t gpa, uint64_t leaf) { put64(ept_leaf_address(eptp, gpa), leaf); }

START_TEST(nested_walk_reads_24_entries)
{
    build_nested(0);
    set_ept(TEST_FRAME, 0x7000 | EPT_LEAF);
    ck_assert_int_eq(read_page(TEST_GVA), MMU_OK);
    ck_assert_uint_eq(hpa, 0x7123);
    // 4 guest entries, 5 EPT walks of 4; the flag updates find their mappings cached
    ck_assert_uint_eq(mmu.references, 24);
    ck_assert_uint_eq(mmu.ept_walks, 5);
}
END_TEST

START_TEST(violation_on_a_table_reports_bit_7_and_not_bit_8)
{
    for (unsigned level = 0; level < 4; level++) {
        build_nested(0);
        set_ept(entry_at[level], 0);
        ck_assert_int_eq(access_as(TEST_GVA, MMU_WRITE, MMU_USER), MMU_EPT_VIOLATION);
        ck_assert_uint_eq(fault.qualification, EPT_QUAL_READ | EPT_QUAL_LINEAR_VALID);
        ck_assert_uint_eq(fault.gpa, entry_at[level]);
        ck_assert_uint_eq(fault.gva, TEST_GVA);
        ck_assert(fault.gva_valid);
    }
}
END_TEST

START_TEST(table_access_with_ept_flags_counts_as_read_and_write)
{
    build_nested(EPTP_ACCESSED_DIRTY);
    set_ept(entry_at[2], (entry_at[2] & PAGE_FRAME_MASK) | (EPT_LEAF & ~EPT_WRITE));
    ck_assert_int_eq(read_page(TEST_GVA), MMU_EPT_VIOLATION);
    ck_assert_uint_eq(fault.qualification,
                      EPT_QUAL_READ | EPT_QUAL_WRITE | EPT_QUAL_READABLE | EPT_QUAL_EXECUTABLE | EPT_QUAL_LINEAR_VALID);
    set_ept(entry_at[2], (entry_at[2] & PAGE_FRAME_MASK) | EPT_LEAF);
    ck_assert_int_eq(read_page(TEST_GVA), MMU_OK);
    ck_assert(get64(ept_leaf_address(eptp, entry_at[2])) & EPT_DIRTY);
    ck_assert(!(get64(ept_leaf_address(eptp, TEST_FRAME)) & EPT_DIRTY));
    ck_assert(get64(ept_leaf_address(eptp, TEST_FRAME)) & EPT_ACCESSED);
}
END_TEST

START_TEST(guest_flag_update_in_a_read_only_table_is_a_read_and_write_violation)
{
    build_nested(0);
    set_ept(entry_at[3], (entry_at[3] & PAGE_FRAME_MASK) | (EPT_LEAF & ~EPT_WRITE));
    ck_assert_int_eq(read_page(TEST_GVA), MMU_EPT_VIOLATION);
    ck_assert_uint_eq(fault.qualification,
                      EPT_QUAL_READ | EPT_QUAL_WRITE | EPT_QUAL_READABLE | EPT_QUAL_EXECUTABLE | EPT_QUAL_LINEAR_VALID);
    ck_assert_uint_eq(fault.gpa, entry_at[3]);
    for (unsigned level = 0; level < 4; level++)
        put64(entry_at[level], get64(entry_at[level]) | ACC);
    ck_assert_int_eq(read_page(TEST_GVA), MMU_OK); // nothing to update
    ck_assert_int_eq(access_as(TEST_GVA, MMU_WRITE, MMU_USER), MMU_EPT_VIOLATION);
}
END_TEST

START_TEST(final_violation_reports_bits_7_and_8_and_the_full_address)
{
    build_nested(0);
    mmu.ept_caps.advanced_violation_info = false;
    set_ept(TEST_FRAME, TEST_FRAME | (EPT_LEAF & ~EPT_WRITE));
    ck_assert_int_eq(access_as(TEST_GVA, MMU_WRITE, MMU_USER), MMU_EPT_VIOLATION);
    ck_assert_uint_eq(fault.qualification, EPT_QUAL_WRITE | EPT_QUAL_READABLE | EPT_QUAL_EXECUTABLE |
                                               EPT_QUAL_LINEAR_VALID | EPT_QUAL_FINAL_TRANSLATION);
    ck_assert_uint_eq(fault.gpa, TEST_FRAME | 0x123);
    ck_assert_uint_eq(fault.gva, TEST_GVA);
}
END_TEST

START_TEST(advanced_information_describes_the_guest_translation)
{
    build_nested(0);
    set_ept(TEST_FRAME, 0);
    ck_assert_int_eq(read_page(TEST_GVA), MMU_EPT_VIOLATION);
    ck_assert_uint_eq(fault.qualification >> 9, 3);
    put64(entry_at[3], TEST_FRAME | P | XD);
    ck_assert_int_eq(read_page(TEST_GVA), MMU_EPT_VIOLATION);
    ck_assert_uint_eq(fault.qualification >> 9, 4);
}
END_TEST

START_TEST(violation_with_paging_off_counts_as_user_and_writable)
{
    build_nested(0);
    mmu_set_control(&mmu, CR0_PE, 0, 0, 0);
    set_ept(TEST_FRAME, 0);
    ck_assert_int_eq(access_as(TEST_FRAME | 4, MMU_FETCH, MMU_SUPERVISOR), MMU_EPT_VIOLATION);
    ck_assert_uint_eq(fault.qualification, EPT_QUAL_FETCH | EPT_QUAL_LINEAR_VALID | EPT_QUAL_FINAL_TRANSLATION |
                                               EPT_QUAL_USER | EPT_QUAL_GUEST_WRITABLE);
    ck_assert_uint_eq(fault.gpa, TEST_FRAME | 4);
}
END_TEST

START_TEST(misconfiguration_gives_the_guest_physical_address)
{
    build_nested(0);
    set_ept(TEST_FRAME, TEST_FRAME | EPT_WRITE);
    ck_assert_int_eq(read_page(TEST_GVA), MMU_EPT_MISCONFIGURATION);
    ck_assert_uint_eq(fault.gpa, TEST_FRAME | 0x123);
    set_ept(entry_at[1], EPT_WRITE);
    mmu_invalidate_everything(&mmu);
    ck_assert_int_eq(read_page(TEST_GVA), MMU_EPT_MISCONFIGURATION);
    ck_assert_uint_eq(fault.gpa, entry_at[1]);
}
END_TEST

START_TEST(guest_fault_wins_over_the_final_violation_and_loses_to_a_table_violation)
{
    build_nested(0);
    set_ept(TEST_FRAME, 0);
    put64(entry_at[3], TEST_FRAME | P);
    ck_assert_int_eq(access_as(TEST_GVA, MMU_WRITE, MMU_USER), MMU_PAGE_FAULT);
    build_nested(0);
    set_ept(entry_at[3], 0);
    put64(entry_at[3], 0);
    ck_assert_int_eq(read_page(TEST_GVA), MMU_EPT_VIOLATION);
    put64(entry_at[2], 0); // an upper guest fault comes before the lower table's violation
    ck_assert_int_eq(read_page(TEST_GVA), MMU_PAGE_FAULT);
}
END_TEST

START_TEST(pdpte_load_through_ept_is_a_plain_read_without_linear_address)
{
    uint64_t pdpte[4];
    build_nested(EPTP_ACCESSED_DIRTY);
    put64(0x100020, 0x101000 | P);
    ck_assert_int_eq(mmu_read_pdptes(&mmu, 0x100020, pdpte, &fault), MMU_OK);
    ck_assert_uint_eq(get64(ept_leaf_address(eptp, 0x100020)) & (EPT_ACCESSED | EPT_DIRTY), EPT_ACCESSED);
    set_ept(0x100020, 0);
    mmu_invalidate_everything(&mmu);
    ck_assert_int_eq(mmu_read_pdptes(&mmu, 0x100020, pdpte, &fault), MMU_EPT_VIOLATION);
    ck_assert_uint_eq(fault.qualification, EPT_QUAL_READ);
    ck_assert(!fault.gva_valid);
    ck_assert_uint_eq(fault.gpa, 0x100020);
}
END_TEST

START_TEST(probe_gives_the_address_without_side_effects)
{
    build_nested(EPTP_ACCESSED_DIRTY);
    set_ept(TEST_FRAME, 0x7000 | EPT_LEAF);
    uint8_t *before = malloc(FIXTURE_RAM);
    memcpy(before, memory.ram, FIXTURE_RAM);
    ck_assert(mmu_probe(&mmu, TEST_GVA, &hpa));
    ck_assert_uint_eq(hpa, 0x7123);
    ck_assert(!mmu_probe(&mmu, TEST_GVA + PAGE_SIZE, &hpa));
    ck_assert(memcmp(before, memory.ram, FIXTURE_RAM) == 0);
    free(before);
    ck_assert_uint_eq(mmu.references, 0);
}
END_TEST

// ---- Random tables against the reference ----

static uint64_t random_state;

static uint64_t random64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * 0x2545F4914F6CDD1D;
}

static bool chance(unsigned one_in) { return (random64() >> 20) % one_in == 0; }

// EPT tables live in pages 0-15, guest tables in 16 pages at 2 MBytes; EPT maps guest-physical pages there or
// nowhere, so no guest flag update ever changes an EPT table.
#define POOL_PAGES 16
#define EPT_POOL   0u
#define GUEST_POOL 0x200000u
#define RANDOM_RAM 0x400000u

static uint64_t random_ept_entry(void)
{
    uint64_t entry = chance(12) ? random64() & 7 : chance(6) ? EPT_READ | EPT_EXECUTE : EPT_RWX;
    entry |= chance(2) ? EPT_ACCESSED : 0;
    if (chance(40))
        entry |= BIT(random64() % 12);
    if (chance(60))
        entry |= BIT(40 + random64() % 24);
    return entry;
}

static void fill_ept_pool(void)
{
    // Page n < 4 is a PML4 table, < 8 PDPT, < 12 PD, < 16 PT.
    for (unsigned page = 0; page < POOL_PAGES; page++) {
        for (unsigned i = 0; i < 512; i++) {
            uint64_t entry = random_ept_entry();
            bool large = page >= 4 && page < 12 && chance(4);
            if (page >= 12)
                entry |= (6u << 3) | (chance(2) ? EPT_DIRTY : 0) | (GUEST_POOL + random64() % POOL_PAGES * PAGE_SIZE);
            else if (large && page >= 8)
                entry |= (6u << 3) | EPT_LARGE_PAGE | GUEST_POOL;
            else if (large)
                entry |= (6u << 3) | EPT_LARGE_PAGE;
            else
                entry |= ((page & ~3u) + 4 + random64() % 4) * PAGE_SIZE;
            put64(EPT_POOL + page * PAGE_SIZE + i * 8, entry);
        }
    }
}

static void fill_guest_pool(bool pae)
{
    for (unsigned i = 0; i < POOL_PAGES * PAGE_SIZE / 8; i++) {
        uint64_t entry = P | RW | US | (GUEST_POOL + random64() % POOL_PAGES * PAGE_SIZE);
        if (chance(8))
            entry ^= random64() & 7;
        entry |= chance(2) ? ACC : 0;
        entry |= chance(2) ? DIRTY : 0;
        entry |= chance(2) ? GLOBAL : 0;
        if (chance(6))
            entry = (entry & ~BITS(29, 13)) | PS;
        if (chance(20))
            entry |= XD;
        if (chance(30))
            entry |= BIT(random64() % 64);
        if (!pae) {
            uint64_t second = (entry & ~BITS(31, 12)) | (GUEST_POOL + random64() % POOL_PAGES * PAGE_SIZE);
            entry = (entry & BITS(31, 0)) | second << 32;
        }
        put64(GUEST_POOL + i * 8, entry);
    }
}

static void random_configuration(struct reference *r)
{
    *r = (struct reference){.ram_size = RANDOM_RAM, .maxphyaddr = chance(2) ? 40 : 36};
    r->paging = !chance(16);
    unsigned kind = (unsigned)(random64() % 4);
    r->pae = r->paging && kind != 0;
    r->long_mode = r->paging && kind >= 2;
    r->pse = chance(2), r->pge = chance(2), r->wp = chance(2), r->nxe = !chance(4);
    r->smep = chance(4), r->smap = chance(4), r->page_1g = chance(2);
    r->ept = chance(2), r->ept_ad = chance(2), r->execute_only = chance(2);
    r->ept_2m = !chance(8), r->ept_1g = !chance(8), r->advanced = chance(2);
    r->cr3 = GUEST_POOL + random64() % POOL_PAGES * PAGE_SIZE;
    r->ept_root = EPT_POOL + random64() % 4 * PAGE_SIZE;
    for (unsigned i = 0; i < 4; i++)
        r->pdpte[i] = (GUEST_POOL + random64() % POOL_PAGES * PAGE_SIZE) | (chance(8) ? 0 : P);
}

static void apply_configuration(const struct reference *r)
{
    mmu_init(&mmu, &bus, (unsigned)r->maxphyaddr);
    mmu.page_1g = r->page_1g;
    mmu.ept_caps.execute_only = r->execute_only;
    mmu.ept_caps.page_2m = r->ept_2m;
    mmu.ept_caps.page_1g = r->ept_1g;
    mmu.ept_caps.advanced_violation_info = r->advanced;
    uint64_t cr0 = CR0_PE | (r->paging ? CR0_PG : 0) | (r->wp ? CR0_WP : 0);
    uint64_t cr4 = (r->pae ? CR4_PAE : 0) | (r->pse ? CR4_PSE : 0) | (r->pge ? CR4_PGE : 0) | (r->smep ? CR4_SMEP : 0) |
                   (r->smap ? CR4_SMAP : 0);
    uint64_t efer = (r->nxe ? EFER_NXE : 0) | (r->long_mode ? EFER_LMA | EFER_LME : 0);
    mmu_set_pdptes(&mmu, r->pdpte);
    mmu_set_control(&mmu, cr0, r->cr3, cr4, efer);
    mmu_set_vm(&mmu, 1, r->ept, r->ept_root | (3u << 3) | 6u | (r->ept_ad ? EPTP_ACCESSED_DIRTY : 0));
}

static void compare(const struct reference *r, int expected, enum mmu_status status)
{
    static const enum mmu_status same[] = {MMU_OK, MMU_PAGE_FAULT, MMU_EPT_VIOLATION, MMU_EPT_MISCONFIGURATION};
    ck_assert_int_eq(status, same[expected]);
    if (expected == REF_OK)
        ck_assert_uint_eq(hpa, r->address);
    if (expected == REF_PAGE_FAULT)
        ck_assert_uint_eq(fault.error_code, r->error_code);
    if (expected == REF_VIOLATION)
        ck_assert_uint_eq(fault.qualification, r->qualification);
    if (expected == REF_VIOLATION || expected == REF_MISCONFIGURATION)
        ck_assert_uint_eq(fault.gpa, r->gpa);
    ck_assert(memcmp(memory.ram, r->ram, POOL_PAGES * PAGE_SIZE) == 0);
    ck_assert(memcmp(memory.ram + GUEST_POOL, r->ram + GUEST_POOL, POOL_PAGES * PAGE_SIZE) == 0);
}

// One configuration, many accesses. The reference sees the same memory; flags it sets must be those the MMU sets.
static void random_accesses(struct reference *r, unsigned count, unsigned outcomes[4])
{
    static const char kind[] = {[MMU_READ] = 'r', [MMU_WRITE] = 'w', [MMU_FETCH] = 'x'};
    for (unsigned i = 0; i < count; i++) {
        gva_t gva = random64() & BITS(47, 0);
        if (chance(2))
            gva &= 0x80C0602FFF; // two values an index: walks meet again in the TLB
        if (!r->long_mode)
            gva &= 0xFFFFFFFF;
        enum mmu_access access = (enum mmu_access)(random64() % 3);
        enum mmu_mode mode = (enum mmu_mode)(random64() % MMU_MODES);
        r->user = mode == MMU_USER;
        r->alignment_check = mode == MMU_SUPERVISOR_AC;
        hpa_t probed;
        bool mapped = mmu_probe(&mmu, gva, &probed);
        int expected = ref_translate(r, gva, kind[access]);
        compare(r, expected, access_as(gva, access, mode));
        if (expected == REF_OK)
            ck_assert(!mapped || probed == hpa); // not mapped: tables outside RAM
        outcomes[expected]++;
    }
}

// The same configurations and accesses whatever the compiler or host; `fresh` accesses find an empty TLB.
static void random_comparison(uint64_t seed, unsigned configurations, unsigned accesses)
{
    unsigned outcomes[4] = {0};
    random_state = seed;
    memory_destroy(&memory);
    ck_assert_int_eq(memory_create(&memory, RANDOM_RAM), MEMORY_OK);
    struct reference r;
    uint8_t *copy = malloc(RANDOM_RAM);
    for (unsigned i = 0; i < configurations; i++) {
        random_configuration(&r);
        fill_ept_pool();
        fill_guest_pool(r.pae);
        memcpy(copy, memory.ram, RANDOM_RAM);
        r.ram = copy;
        apply_configuration(&r);
        random_accesses(&r, accesses, outcomes);
    }
    free(copy);
    for (unsigned i = 0; i < 4; i++)
        ck_assert_msg(outcomes[i] > configurations / 8, "outcome %u was met only %u times", i, outcomes[i]);
}

START_TEST(random_walks_agree_with_the_reference) { random_comparison(0x9E3779B97F4A7C15 + (uint64_t)_i, 250, 40); }
END_TEST

int main(void)
{
    Suite *suite = suite_create("mmu walk");
    TCase *tests = tcase_create("walk");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, fixture_setup, fixture_teardown);
    tcase_add_test(tests, paging_off_is_one_to_one);
    tcase_add_test(tests, four_level_walk_finds_pages_of_each_size);
    tcase_add_test(tests, five_level_walk_adds_a_level);
    tcase_add_test(tests, pcid_and_low_bits_of_cr3_do_not_change_the_root);
    tcase_add_test(tests, not_present_entry_faults_with_p_clear);
    tcase_add_test(tests, reserved_bits_of_4level_entries_are_exact);
    tcase_add_test(tests, reserved_bits_of_large_pages_are_exact);
    tcase_add_test(tests, gbyte_page_without_support_is_reserved);
    tcase_add_test(tests, user_access_needs_us_in_every_entry);
    tcase_add_test(tests, write_needs_rw_in_every_entry_unless_supervisor_without_wp);
    tcase_add_test(tests, fetch_from_execute_disabled_page_faults);
    tcase_add_test(tests, fetch_bit_of_the_error_code_needs_nxe_or_smep);
    tcase_add_test(tests, smep_forbids_supervisor_fetches_from_user_pages);
    tcase_add_test(tests, smap_forbids_supervisor_data_accesses_to_user_pages_unless_ac);
    tcase_add_test(tests, read_sets_accessed_in_all_and_dirty_in_none);
    tcase_add_test(tests, write_sets_dirty_in_the_leaf);
    tcase_add_test(tests, faulting_walk_sets_no_flags);
    tcase_add_test(tests, entry_used_at_two_levels_keeps_both_updates);
    tcase_add_test(tests, two_level_walk_finds_the_page_and_sets_flags);
    tcase_add_test(tests, flag_update_of_a_4_byte_entry_leaves_its_neighbour);
    tcase_add_test(tests, ps_bit_counts_only_with_cr4_pse);
    tcase_add_test(tests, pse36_gives_address_bits_39_to_32_up_to_maxphyaddr);
    tcase_add_test(tests, fetch_bit_in_32bit_paging_needs_smep);
    tcase_add_test(tests, pae_walk_starts_at_the_pdpte_registers);
    tcase_add_test(tests, pae_reserves_bits_62_to_maxphyaddr);
    tcase_add_test(tests, pae_2mbyte_page_needs_no_pse);
    tcase_add_test(tests, pdpte_loads_check_reserved_bits_of_present_entries);
    tcase_add_test(tests, nested_walk_reads_24_entries);
    tcase_add_test(tests, violation_on_a_table_reports_bit_7_and_not_bit_8);
    tcase_add_test(tests, table_access_with_ept_flags_counts_as_read_and_write);
    tcase_add_test(tests, guest_flag_update_in_a_read_only_table_is_a_read_and_write_violation);
    tcase_add_test(tests, final_violation_reports_bits_7_and_8_and_the_full_address);
    tcase_add_test(tests, advanced_information_describes_the_guest_translation);
    tcase_add_test(tests, violation_with_paging_off_counts_as_user_and_writable);
    tcase_add_test(tests, misconfiguration_gives_the_guest_physical_address);
    tcase_add_test(tests, guest_fault_wins_over_the_final_violation_and_loses_to_a_table_violation);
    tcase_add_test(tests, pdpte_load_through_ept_is_a_plain_read_without_linear_address);
    tcase_add_test(tests, probe_gives_the_address_without_side_effects);
    tcase_add_loop_test(tests, random_walks_agree_with_the_reference, 0, 4);
    suite_add_tcase(suite, tests);
    return run_cases(suite);
}
