// VMCS fields: encodings, look-up, dump.
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "vmcs/dump.h"
#include "vmcs/vmcs.h"

static struct vmcs_field_set all;

static void setup(void) { memset(&all, 0xFF, sizeof all); }

START_TEST(every_field_is_found_by_its_encoding_name_and_high_half)
{
    const struct vmcs_field_info *info = &vmcs_fields[_i];
    enum vmcs_field field = VMCS_FIELD_COUNT;
    bool high = true;
    ck_assert(vmcs_find(&all, info->encoding, &field, &high));
    ck_assert_uint_eq(field, (unsigned)_i);
    ck_assert(!high);
    bool has_high = vmcs_find(&all, info->encoding | 1, &field, &high);
    ck_assert_int_eq(has_high, info->width == VMCS_WIDTH_64);
    ck_assert(!has_high || (high && field == (enum vmcs_field)_i));
    ck_assert(vmcs_field_by_name(info->name, strlen(info->name), &field) && field == (enum vmcs_field)_i);
    ck_assert(vmcs_field_by_encoding(info->encoding, &field) && field == (enum vmcs_field)_i);
}
END_TEST

START_TEST(encodings_are_unique_and_ascend_within_a_group)
{
    for (unsigned i = 0; i < VMCS_FIELD_COUNT; i++)
        for (unsigned k = 0; k < i; k++)
            ck_assert_msg(vmcs_fields[k].encoding < vmcs_fields[i].encoding, "%s", vmcs_fields[i].name);
}
END_TEST

// SDM 3D appendix B: every other encoding, and any set bit above 14, is an unsupported component.
START_TEST(only_listed_encodings_are_found)
{
    unsigned found = 0, expected = 0;
    enum vmcs_field field;
    bool high;
    for (uint64_t encoding = 0; encoding < 0x20000; encoding++)
        found += vmcs_find(&all, encoding, &field, &high);
    for (unsigned i = 0; i < VMCS_FIELD_COUNT; i++)
        expected += vmcs_fields[i].width == VMCS_WIDTH_64 ? 2 : 1;
    ck_assert_uint_eq(found, expected);
    for (unsigned bit = 15; bit < 64; bit++)
        ck_assert(!vmcs_find(&all, 0x6800 | BIT(bit), &field, &high));
    ck_assert(!vmcs_find(&all, 0x7800, &field, &high)); // bit 12
    ck_assert(!vmcs_find(&all, 0x482C, &field, &high)); // unassigned
    ck_assert(!vmcs_find(&all, ~(uint64_t)0, &field, &high));
}
END_TEST

START_TEST(absent_fields_are_not_found)
{
    enum vmcs_field field;
    bool high;
    all.present[VMCS_EPTP / 64] &= ~BIT(VMCS_EPTP % 64);
    ck_assert(!vmcs_find(&all, 0x201A, &field, &high));
    ck_assert(!vmcs_find(&all, 0x201B, &field, &high));
    ck_assert(vmcs_find(&all, 0x201C, &field, &high));
}
END_TEST

START_TEST(well_known_encodings)
{
    static const struct {
        enum vmcs_field field;
        uint32_t encoding;
    } known[] = {{VMCS_VPID, 0x0000},
                 {VMCS_GUEST_TR_SELECTOR, 0x080E},
                 {VMCS_HOST_TR_SELECTOR, 0x0C0C},
                 {VMCS_EPTP, 0x201A},
                 {VMCS_GUEST_PHYSICAL_ADDRESS, 0x2400},
                 {VMCS_VMCS_LINK_POINTER, 0x2800},
                 {VMCS_HOST_IA32_EFER, 0x2C02},
                 {VMCS_PIN_BASED_CONTROLS, 0x4000},
                 {VMCS_EXIT_REASON, 0x4402},
                 {VMCS_PREEMPTION_TIMER_VALUE, 0x482E},
                 {VMCS_HOST_IA32_SYSENTER_CS, 0x4C00},
                 {VMCS_EXIT_QUALIFICATION, 0x6400},
                 {VMCS_GUEST_RIP, 0x681E},
                 {VMCS_HOST_RIP, 0x6C16}};
    for (unsigned i = 0; i < sizeof known / sizeof *known; i++)
        ck_assert_uint_eq(vmcs_fields[known[i].field].encoding, known[i].encoding);
}
END_TEST

START_TEST(names_are_case_insensitive_and_exact)
{
    enum vmcs_field field;
    ck_assert(vmcs_field_by_name("guest_rip", 9, &field) && field == VMCS_GUEST_RIP);
    ck_assert(vmcs_field_by_name("Guest_Rip!", 9, &field) && field == VMCS_GUEST_RIP);
    ck_assert(!vmcs_field_by_name("guest_ri", 8, &field));
    ck_assert(!vmcs_field_by_name("", 0, &field));
}
END_TEST

START_TEST(region_address_ignores_page_offset_and_refuses_what_is_not_ram)
{
    struct memory memory;
    ck_assert_int_eq(memory_create(&memory, 0x10000), MEMORY_OK);
    ck_assert_ptr_eq(vmcs_region_at(&memory, 0x3000), memory.ram + 0x3000);
    ck_assert_ptr_null(vmcs_region_at(&memory, 0x10000));
    memory_destroy(&memory);
}
END_TEST

static char dumped[65536];
static void collect(void *owner, const char *text)
{
    (void)owner;
    ck_assert_uint_lt(strlen(dumped) + strlen(text), sizeof dumped);
    strcat(dumped, text);
}
static bool say_hello(enum vmcs_field field, uint64_t value, char *buffer, size_t size)
{
    snprintf(buffer, size, "value %llx", (unsigned long long)value);
    return field == VMCS_GUEST_RIP;
}

START_TEST(dump_lists_present_fields_by_group)
{
    static struct vmcs_region region;
    region.revision = (uint32_t)(4 | VMCS_SHADOW_INDICATOR);
    region.launch_state = LAUNCH_STATE_LAUNCHED;
    vmcs_put(&region, VMCS_GUEST_RIP, 0x1234);
    all.present[VMCS_EPTP / 64] &= ~BIT(VMCS_EPTP % 64);
    vmcs_dump_text(&region, &all, say_hello, collect, NULL);
    ck_assert(
        !strncmp(dumped, "VMCS revision 00000004 (shadow), launch state launched, abort indicator 0\nguest:\n", 80));
    ck_assert(strstr(dumped, "  681E GUEST_RIP                            0000000000001234  value 1234\n"));
    ck_assert(strstr(dumped, "\nhost:\n") < strstr(dumped, "\ncontrol:\n"));
    ck_assert(strstr(dumped, "\ncontrol:\n") < strstr(dumped, "\nexit information:\n"));
    ck_assert_ptr_null(strstr(dumped, " EPTP "));
    unsigned lines = 0;
    for (const char *at = dumped; (at = strchr(at, '\n')); at++)
        lines++;
    ck_assert_uint_eq(lines, 1 + 4 + VMCS_FIELD_COUNT - 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vmcs/fields");
    TCase *tc = tcase_create("fields");
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_loop_test(tc, every_field_is_found_by_its_encoding_name_and_high_half, 0, VMCS_FIELD_COUNT);
    tcase_add_test(tc, encodings_are_unique_and_ascend_within_a_group);
    tcase_add_test(tc, only_listed_encodings_are_found);
    tcase_add_test(tc, absent_fields_are_not_found);
    tcase_add_test(tc, well_known_encodings);
    tcase_add_test(tc, names_are_case_insensitive_and_exact);
    tcase_add_test(tc, region_address_ignores_page_offset_and_refuses_what_is_not_ram);
    tcase_add_test(tc, dump_lists_present_fields_by_group);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
