// The EPT walk: each rule of SDM 3C 29.3 that ept_walk models.
#include "ept/ept.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define PML4_TABLE 0x1000u
#define PDPT_TABLE 0x2000u
#define PD_TABLE   0x3000u
#define PT_TABLE   0x4000u
#define PML5_TABLE 0x5000u
#define EPTP_BASE  (PML4_TABLE | (3u << 3) | 6u)
#define WB         (6u << 3)
#define RWX        EPT_PERMISSIONS

// The address the tests translate: index 1 at every level, offset 123H.
#define TEST_GPA   (BIT(39) | BIT(30) | BIT(21) | BIT(12) | 0x123)
#define TEST_FRAME 0xABCDE000u

static struct memory memory;
static struct bus bus;
static struct ept_caps caps;
static uint64_t eptp;
static struct ept_result result;

static const hpa_t entry_at[] = {PML4_TABLE + 8, PDPT_TABLE + 8, PD_TABLE + 8, PT_TABLE + 8};

static void put(hpa_t address, uint64_t entry) { ck_assert(memory_write(&memory, address, &entry, 8)); }

static uint64_t get(hpa_t address)
{
    uint64_t entry;
    ck_assert(memory_read(&memory, address, &entry, 8));
    return entry;
}

// Entries of level 0 (PML4E) to 3 (PTE), changed by one test and put back by the next.
static void build(void)
{
    put(entry_at[0], PDPT_TABLE | RWX);
    put(entry_at[1], PD_TABLE | RWX);
    put(entry_at[2], PT_TABLE | RWX);
    put(entry_at[3], TEST_FRAME | WB | RWX);
}

static void setup(void)
{
    ck_assert_int_eq(memory_create(&memory, 64 * PAGE_SIZE), MEMORY_OK);
    bus_init(&bus, &memory);
    caps = (struct ept_caps){.execute_only = true, .page_2m = true, .page_1g = true, .maxphyaddr = 39};
    eptp = EPTP_BASE;
    build();
}

static void teardown(void) { memory_destroy(&memory); }

static enum ept_status walk(gpa_t gpa, unsigned access)
{
    ept_walk(&caps, &bus, eptp, gpa, access, &result);
    return result.status;
}

START_TEST(four_kbyte_page_is_found_through_four_entries)
{
    ck_assert_int_eq(walk(TEST_GPA, EPT_ACCESS_READ), EPT_OK);
    ck_assert_uint_eq(result.frame, TEST_FRAME);
    ck_assert_uint_eq(result.page_shift, 12);
    ck_assert_uint_eq(result.references, 4);
    ck_assert_uint_eq(result.permissions, RWX);
    ck_assert(result.dirty);
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_uint_eq(result.entry_address[i], entry_at[i]);
        ck_assert_uint_eq(result.entry[i], get(entry_at[i]));
    }
}
END_TEST

START_TEST(large_pages_keep_the_low_address_bits)
{
    put(entry_at[2], 0x40000000 | EPT_LARGE_PAGE | WB | RWX);
    ck_assert_int_eq(walk(TEST_GPA, EPT_ACCESS_READ), EPT_OK);
    ck_assert_uint_eq(result.frame, 0x40001000);
    ck_assert_uint_eq(result.page_shift, 21);
    put(entry_at[1], BIT(32) | EPT_LARGE_PAGE | WB | RWX);
    ck_assert_int_eq(walk(TEST_GPA, EPT_ACCESS_READ), EPT_OK);
    ck_assert_uint_eq(result.frame, BIT(32) | BIT(21) | BIT(12));
    ck_assert_uint_eq(result.page_shift, 30);
    ck_assert_uint_eq(result.references, 2);
}
END_TEST

START_TEST(five_level_walk_starts_at_a_pml5_table)
{
    caps.walk_length_5 = true;
    eptp = PML5_TABLE | (4u << 3) | 6u;
    put(PML5_TABLE + 8, PML4_TABLE | RWX);
    ck_assert_int_eq(walk(TEST_GPA | BIT(48), EPT_ACCESS_READ), EPT_OK);
    ck_assert_uint_eq(result.frame, TEST_FRAME);
    ck_assert_uint_eq(result.references, 5);
    ck_assert_int_eq(walk(TEST_GPA | BIT(57), EPT_ACCESS_READ), EPT_VIOLATION);
    put(PML5_TABLE + 8, PML4_TABLE | RWX | EPT_LARGE_PAGE);
    ck_assert_int_eq(walk(TEST_GPA | BIT(48), EPT_ACCESS_READ), EPT_MISCONFIGURATION);
}
END_TEST

START_TEST(address_above_the_walk_width_is_a_violation)
{
    ck_assert_int_eq(walk(TEST_GPA | BIT(48), EPT_ACCESS_WRITE), EPT_VIOLATION);
    ck_assert_uint_eq(result.qualification, EPT_QUAL_WRITE);
    ck_assert_uint_eq(result.references, 0);
}
END_TEST

START_TEST(entry_not_present_is_a_violation_without_permissions)
{
    for (unsigned level = 0; level < 4; level++) {
        build();
        put(entry_at[level], ~(uint64_t)RWX); // the other bits are ignored
        ck_assert_int_eq(walk(TEST_GPA, EPT_ACCESS_READ | EPT_ACCESS_WRITE), EPT_VIOLATION);
        ck_assert_uint_eq(result.qualification, EPT_QUAL_READ | EPT_QUAL_WRITE);
        ck_assert_uint_eq(result.permissions, 0);
        ck_assert_uint_eq(result.references, level + 1);
    }
}
END_TEST

// The permissions of three levels are full; those of one level are p.
static void check_permissions(unsigned level, unsigned p, unsigned access)
{
    build();
    put(entry_at[level], (get(entry_at[level]) & ~(uint64_t)RWX) | p);
    enum ept_status status = walk(TEST_GPA, access);
    bool write_only = !(p & EPT_READ) && (p & EPT_WRITE);
    bool execute_only = p == EPT_EXECUTE;
    if (write_only || (execute_only && !caps.execute_only)) {
        ck_assert_int_eq(status, EPT_MISCONFIGURATION);
    } else if (access & ~p) {
        ck_assert_int_eq(status, EPT_VIOLATION);
        ck_assert_uint_eq(result.qualification, access | (p << 3));
    } else {
        ck_assert_int_eq(status, EPT_OK);
        ck_assert_uint_eq(result.permissions, p);
    }
}

START_TEST(permissions_of_every_level_decide)
{
    for (unsigned only = 0; only < 2; only++) {
        caps.execute_only = only;
        for (unsigned level = 0; level < 4; level++)
            for (unsigned p = 1; p < 8; p++)
                for (unsigned access = 1; access < 8; access++)
                    check_permissions(level, p, access);
    }
}
END_TEST

START_TEST(qualification_reports_the_and_of_permissions)
{
    put(entry_at[0], PDPT_TABLE | EPT_READ | EPT_WRITE);
    put(entry_at[3], TEST_FRAME | WB | EPT_READ | EPT_EXECUTE);
    ck_assert_int_eq(walk(TEST_GPA, EPT_ACCESS_FETCH), EPT_VIOLATION);
    ck_assert_uint_eq(result.qualification, EPT_QUAL_FETCH | EPT_QUAL_READABLE);
}
END_TEST

START_TEST(misconfiguration_beats_the_violation_of_the_same_entry_and_of_lower_ones)
{
    put(entry_at[2], PT_TABLE | EPT_WRITE);
    put(entry_at[3], 0);
    ck_assert_int_eq(walk(TEST_GPA, EPT_ACCESS_FETCH), EPT_MISCONFIGURATION);
    ck_assert_uint_eq(result.qualification, 0);
}
END_TEST

START_TEST(missing_right_above_does_not_hide_a_misconfiguration_below)
{
    put(entry_at[1], PD_TABLE | EPT_READ); // privileges are judged at the end
    put(entry_at[3], TEST_FRAME | WB | EPT_WRITE);
    ck_assert_int_eq(walk(TEST_GPA, EPT_ACCESS_WRITE), EPT_MISCONFIGURATION);
}
END_TEST

START_TEST(violation_above_wins_over_misconfiguration_below)
{
    put(entry_at[1], 0);
    put(entry_at[2], PT_TABLE | EPT_WRITE);
    ck_assert_int_eq(walk(TEST_GPA, EPT_ACCESS_READ), EPT_VIOLATION);
}
END_TEST

// Sets one bit in the entry of a level and tells whether that is a misconfiguration.
static bool bit_is_reserved(unsigned level, unsigned bit, uint64_t base)
{
    build();
    put(entry_at[level], base | BIT(bit));
    return walk(TEST_GPA, EPT_ACCESS_READ) == EPT_MISCONFIGURATION;
}

START_TEST(reserved_bits_are_exactly_those_of_the_formats)
{
    static const uint64_t tables[] = {PDPT_TABLE, PD_TABLE, PT_TABLE};
    for (unsigned bit = 3; bit < 64; bit++) {
        bool beyond = bit >= caps.maxphyaddr && bit <= 51;
        bool table_address = bit >= 12 && bit < caps.maxphyaddr; // would lead elsewhere
        for (unsigned level = 0; level < 3 && !table_address; level++) {
            if (bit == 7 && level > 0)
                continue; // makes it a leaf
            bool reserved = beyond || (bit >= 3 && bit <= 7);
            ck_assert_msg(bit_is_reserved(level, bit, tables[level] | RWX) == reserved, "level %u bit %u", level, bit);
        }
        // Memory type WB: adding bit 3 makes the reserved type 7.
        bool leaf = beyond || bit == 3;
        uint64_t large = EPT_LARGE_PAGE | WB | RWX;
        ck_assert_msg(bit_is_reserved(3, bit, WB | RWX) == leaf, "PTE %u", bit);
        ck_assert_msg(bit_is_reserved(2, bit, large) == (leaf || (bit >= 12 && bit <= 20)), "2M PDE %u", bit);
        ck_assert_msg(bit_is_reserved(1, bit, large) == (leaf || (bit >= 12 && bit <= 29)), "1G PDPTE %u", bit);
    }
}
END_TEST

START_TEST(leaf_memory_types_2_3_and_7_are_misconfigurations)
{
    for (unsigned type = 0; type < 8; type++) {
        bool bad = type == 2 || type == 3 || type == 7;
        for (unsigned level = 1; level < 4; level++) {
            build();
            put(entry_at[level], (type << 3) | (level < 3 ? EPT_LARGE_PAGE : 0) | RWX);
            ck_assert_int_eq(walk(TEST_GPA, EPT_ACCESS_READ), bad ? EPT_MISCONFIGURATION : EPT_OK);
        }
    }
}
END_TEST

START_TEST(large_page_without_the_capability_is_a_misconfiguration)
{
    caps.page_2m = caps.page_1g = false;
    ck_assert(bit_is_reserved(2, 7, WB | RWX));
    ck_assert(bit_is_reserved(1, 7, WB | RWX));
    caps.page_2m = true;
    ck_assert(!bit_is_reserved(2, 7, WB | RWX));
    ck_assert(bit_is_reserved(1, 7, WB | RWX));
}
END_TEST

START_TEST(flags_are_untouched_while_the_eptp_disables_them)
{
    ck_assert_int_eq(walk(TEST_GPA, EPT_ACCESS_WRITE), EPT_OK);
    for (unsigned level = 0; level < 4; level++)
        ck_assert(!(get(entry_at[level]) & (EPT_ACCESSED | EPT_DIRTY)));
    ck_assert(result.dirty);
}
END_TEST

START_TEST(read_sets_accessed_everywhere_and_dirty_nowhere)
{
    eptp |= EPTP_ACCESSED_DIRTY;
    ck_assert_int_eq(walk(TEST_GPA, EPT_ACCESS_READ), EPT_OK);
    ck_assert(!result.dirty);
    for (unsigned level = 0; level < 4; level++)
        ck_assert_uint_eq(get(entry_at[level]) & (EPT_ACCESSED | EPT_DIRTY), EPT_ACCESSED);
}
END_TEST

START_TEST(write_sets_dirty_in_the_leaf_only)
{
    eptp |= EPTP_ACCESSED_DIRTY;
    ck_assert_int_eq(walk(TEST_GPA, EPT_ACCESS_READ | EPT_ACCESS_WRITE), EPT_OK);
    ck_assert(result.dirty);
    for (unsigned level = 0; level < 4; level++)
        ck_assert_uint_eq(get(entry_at[level]) & (EPT_ACCESSED | EPT_DIRTY),
                          EPT_ACCESSED | (level == 3 ? EPT_DIRTY : 0));
    put(entry_at[2], 0x40000000 | EPT_LARGE_PAGE | WB | RWX);
    ck_assert_int_eq(walk(TEST_GPA, EPT_ACCESS_WRITE), EPT_OK);
    ck_assert(get(entry_at[2]) & EPT_DIRTY);
}
END_TEST

START_TEST(failed_access_changes_no_flags)
{
    eptp |= EPTP_ACCESSED_DIRTY;
    put(entry_at[3], TEST_FRAME | WB | EPT_READ);
    ck_assert_int_eq(walk(TEST_GPA, EPT_ACCESS_WRITE), EPT_VIOLATION);
    put(entry_at[3], TEST_FRAME | WB | EPT_WRITE);
    ck_assert_int_eq(walk(TEST_GPA, EPT_ACCESS_WRITE), EPT_MISCONFIGURATION);
    for (unsigned level = 0; level < 4; level++)
        ck_assert(!(get(entry_at[level]) & (EPT_ACCESSED | EPT_DIRTY)));
}
END_TEST

START_TEST(flag_updates_mark_the_table_page_dirty)
{
    eptp |= EPTP_ACCESSED_DIRTY;
    memset(memory.page_flags, 0, 64);
    walk(TEST_GPA, EPT_ACCESS_READ);
    ck_assert(memory.page_flags[PT_TABLE >> 12] & PAGE_DIRTY);
    memset(memory.page_flags, 0, 64);
    walk(TEST_GPA, EPT_ACCESS_READ); // all set: nothing is written
    ck_assert(!(memory.page_flags[PT_TABLE >> 12] & PAGE_DIRTY));
}
END_TEST

START_TEST(table_outside_ram_reads_as_ones)
{
    put(entry_at[0], 0x80000000 | RWX);
    ck_assert_int_eq(walk(TEST_GPA, EPT_ACCESS_READ), EPT_MISCONFIGURATION);
    ck_assert_uint_eq(result.entry[1], UINT64_MAX);
}
END_TEST

START_TEST(probe_agrees_and_changes_nothing)
{
    hpa_t hpa;
    eptp |= EPTP_ACCESSED_DIRTY;
    ck_assert(ept_probe(&caps, &memory, eptp, TEST_GPA, &hpa));
    ck_assert_uint_eq(hpa, TEST_FRAME | 0x123);
    ck_assert(!(get(entry_at[0]) & EPT_ACCESSED));
    ck_assert(!ept_probe(&caps, &memory, eptp, TEST_GPA | BIT(48), &hpa));
    put(entry_at[2], PT_TABLE | EPT_WRITE);
    ck_assert(!ept_probe(&caps, &memory, eptp, TEST_GPA, &hpa));
    put(entry_at[2], 0);
    ck_assert(!ept_probe(&caps, &memory, eptp, TEST_GPA, &hpa));
    put(entry_at[2], 0x80000000 | RWX);
    ck_assert(!ept_probe(&caps, &memory, eptp, TEST_GPA, &hpa));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ept");
    TCase *tests = tcase_create("ept");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, four_kbyte_page_is_found_through_four_entries);
    tcase_add_test(tests, large_pages_keep_the_low_address_bits);
    tcase_add_test(tests, five_level_walk_starts_at_a_pml5_table);
    tcase_add_test(tests, address_above_the_walk_width_is_a_violation);
    tcase_add_test(tests, entry_not_present_is_a_violation_without_permissions);
    tcase_add_test(tests, permissions_of_every_level_decide);
    tcase_add_test(tests, qualification_reports_the_and_of_permissions);
    tcase_add_test(tests, misconfiguration_beats_the_violation_of_the_same_entry_and_of_lower_ones);
    tcase_add_test(tests, missing_right_above_does_not_hide_a_misconfiguration_below);
    tcase_add_test(tests, violation_above_wins_over_misconfiguration_below);
    tcase_add_test(tests, reserved_bits_are_exactly_those_of_the_formats);
    tcase_add_test(tests, leaf_memory_types_2_3_and_7_are_misconfigurations);
    tcase_add_test(tests, large_page_without_the_capability_is_a_misconfiguration);
    tcase_add_test(tests, flags_are_untouched_while_the_eptp_disables_them);
    tcase_add_test(tests, read_sets_accessed_everywhere_and_dirty_nowhere);
    tcase_add_test(tests, write_sets_dirty_in_the_leaf_only);
    tcase_add_test(tests, failed_access_changes_no_flags);
    tcase_add_test(tests, flag_updates_mark_the_table_page_dirty);
    tcase_add_test(tests, table_outside_ram_reads_as_ones);
    tcase_add_test(tests, probe_agrees_and_changes_nothing);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
