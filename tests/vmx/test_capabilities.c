// Capability profiles: nothing unimplemented is offered, nothing the real processor lacks is invented.
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "vmx/capabilities.h"
#include "vmx/controls.h"
#include "vmx/names.h"
#include "vmx/vmx.h"

static struct vmx_caps caps;

enum { FIRST = MSR_IA32_VMX_BASIC, LAST = MSR_IA32_VMX_VMFUNC, COUNT = LAST - FIRST + 1 };

static const char *profile(int index) { return vmx_caps_profile_name((unsigned)index); }
static void setup(void) { ck_assert(vmx_caps_init(&caps, "skylake", 39)); }
static uint64_t msr(uint32_t index) { return caps.msr[index - FIRST]; }

START_TEST(profiles_are_known_and_others_refused)
{
    ck_assert_str_eq(vmx_caps_profile_name(0), "skylake");
    ck_assert_str_eq(vmx_caps_profile_name(1), "icelake");
    ck_assert_ptr_null(vmx_caps_profile_name(2));
    ck_assert(!vmx_caps_init(&caps, "nonesuch", 39));
    ck_assert(!vmx_caps_init(&caps, "", 39));
}
END_TEST

// What RDMSR shows on the skylake profile, in full.
START_TEST(skylake_values)
{
    static const uint64_t expected[COUNT] = {
        0x00D8100000000004, 0x0000007F00000016, 0xFFF9FFFE0401E172, 0x007FEFFF00036DFF, 0x0000D3FF000011FF,
        0x00000000600401E7, 0x0000000080000021, 0x00000000FFFFFFFF, 0x0000000000002000, 0x00000000003727FF,
        0x000000000000002E, 0x00117CEE00000000, 0x00000F0106334141, 0x0000007F00000016, 0xFFF9FFFE04006172,
        0x007FEFFF00036DFB, 0x0000D3FF000011FB, 0x0000000000000001};
    for (unsigned i = 0; i < COUNT; i++)
        ck_assert_msg(caps.msr[i] == expected[i] && caps.msr_present[i], "%s: %016llX, expected %016llX",
                      vmx_caps_msr_name(FIRST + i), (unsigned long long)caps.msr[i], (unsigned long long)expected[i]);
    ck_assert_uint_eq(caps.feature_control, 5);
}
END_TEST

static bool is_offered(const struct vmx_control_info *control)
{
    const struct control_caps *words[CONTROL_WORD_COUNT] = {[CONTROL_WORD_PIN] = &caps.pin,
                                                            [CONTROL_WORD_PRIMARY] = &caps.primary,
                                                            [CONTROL_WORD_SECONDARY] = &caps.secondary,
                                                            [CONTROL_WORD_TERTIARY] = &caps.tertiary,
                                                            [CONTROL_WORD_EXIT] = &caps.exit,
                                                            [CONTROL_WORD_EXIT2] = &caps.exit2,
                                                            [CONTROL_WORD_ENTRY] = &caps.entry,
                                                            [CONTROL_WORD_VMFUNC] = &caps.vmfunc};
    return words[control->word]->may >> control->bit & 1;
}

START_TEST(unimplemented_controls_are_never_offered)
{
    ck_assert(vmx_caps_init(&caps, profile(_i), 39));
    unsigned count;
    const struct vmx_control_info *controls = vmx_controls(&count);
    for (unsigned i = 0; i < count; i++)
        ck_assert_msg(controls[i].implemented || !is_offered(&controls[i]), "%s", controls[i].name);
}
END_TEST

START_TEST(skylake_offers_every_implemented_control)
{
    unsigned count;
    const struct vmx_control_info *controls = vmx_controls(&count);
    for (unsigned i = 0; i < count; i++)
        ck_assert_msg(!controls[i].implemented || is_offered(&controls[i]), "%s", controls[i].name);
}
END_TEST

START_TEST(offered_bits_are_those_of_the_real_processor)
{
    ck_assert(vmx_caps_init(&caps, profile(_i), 39));
    for (uint32_t index = FIRST; index <= LAST; index++) {
        uint64_t raw;
        if (index == FIRST || index == 0x48A) // the region size and VMCS_ENUM are ours
            continue;
        ck_assert(vmx_caps_profile_value(profile(_i), index, &raw));
        ck_assert_msg(!(caps.msr[index - FIRST] & ~raw), "%s", vmx_caps_msr_name(index));
    }
}
END_TEST

// SDM 3D A.2 to A.5: what must be 1 may be 1, and the TRUE MSRs differ in allowed 0-settings only.
START_TEST(control_msrs_are_consistent)
{
    ck_assert(vmx_caps_init(&caps, profile(_i), 39));
    static const uint32_t words[] = {0x481, 0x482, 0x483, 0x484, 0x48B, 0x48D, 0x48E, 0x48F, 0x490};
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++)
        ck_assert(!((msr(words[i]) & 0xFFFFFFFF) & ~(msr(words[i]) >> 32)));
    for (uint32_t i = 0; i < 4; i++) {
        ck_assert_uint_eq(msr(0x481 + i) >> 32, msr(0x48D + i) >> 32);
        ck_assert(!(msr(0x48D + i) & 0xFFFFFFFF & ~msr(0x481 + i)));
    }
    ck_assert(!(caps.cr0_fixed0 & ~caps.cr0_fixed1) && !(caps.cr4_fixed0 & ~caps.cr4_fixed1));
}
END_TEST

// What kvm-unit-tests (test_vmx_caps) demands of reserved bits.
START_TEST(reserved_bits_are_0)
{
    ck_assert(vmx_caps_init(&caps, profile(_i), 39));
    ck_assert_uint_eq(caps.basic & (BITS(63, 57) | BITS(47, 45) | BIT(31)), 0);
    ck_assert_uint_eq(caps.misc & 0x80007E00, 0);
    ck_assert_uint_eq(bits_get(caps.basic, 44, 32), 4096);
    ck_assert_uint_ge(bits_get(caps.basic, 44, 32), sizeof(struct vmcs_region));
    ck_assert_uint_ge(msr(0x48A), 0x2A);
}
END_TEST

START_TEST(enum_msr_gives_the_highest_index_that_vmread_accepts)
{
    ck_assert(vmx_caps_init(&caps, profile(_i), 39));
    struct vmcs_field_set set;
    vmx_caps_fields(&caps, &set);
    uint64_t highest = 0;
    for (uint64_t encoding = 0; encoding < 0x8000; encoding++) {
        enum vmcs_field field;
        bool high;
        if (vmcs_find(&set, encoding, &field, &high) && bits_get(encoding, 9, 1) > highest)
            highest = bits_get(encoding, 9, 1);
    }
    ck_assert_uint_eq(msr(0x48A), highest << 1);
}
END_TEST

START_TEST(fields_exist_with_their_controls)
{
    struct vmcs_field_set set;
    enum vmcs_field field;
    bool high;
    vmx_caps_fields(&caps, &set);
    ck_assert(vmcs_find(&set, 0x0000, &field, &high) && field == VMCS_VPID);
    ck_assert(vmcs_find(&set, 0x201A, &field, &high) && field == VMCS_EPTP);
    ck_assert(!vmcs_find(&set, 0x2014, &field, &high)); // APIC-access address
    ck_assert(!vmcs_find(&set, 0x2032, &field, &high)); // TSC multiplier
    caps.secondary.may &= ~(uint64_t)SECONDARY_ENABLE_EPT;
    caps.misc &= ~BITS(24, 16);
    vmx_caps_fields(&caps, &set);
    ck_assert(!vmcs_find(&set, 0x201A, &field, &high));
    ck_assert(!vmcs_find(&set, 0x6008, &field, &high)); // CR3-target value 0
    ck_assert(vmcs_find(&set, 0x6800, &field, &high));
}
END_TEST

static unsigned seen, withheld;
static uint64_t seen_bits;
static void count_bit(void *owner, const struct vmx_capability_bit *bit)
{
    ck_assert(bit->name && *bit->title && bit->high >= bit->low && bit->high < 64);
    ck_assert_msg(!(seen_bits & BITS(bit->high, bit->low)), "%s overlaps", bit->name);
    ck_assert_msg(!(seen_bits >> bit->low), "%s is out of order", bit->name);
    seen_bits |= BITS(bit->high, bit->low);
    seen++;
    withheld += bit->withheld;
    if (owner && !strcmp(bit->name, owner)) {
        ck_assert_uint_eq(bit->value, 1);
        ck_assert(!bit->withheld);
        *(char *)owner = '\0'; // found
    }
}

START_TEST(decoding_names_every_bit_of_every_msr)
{
    for (uint32_t index = FIRST; index <= LAST; index++) {
        seen = withheld = 0;
        seen_bits = 0;
        ck_assert(vmx_caps_decode(&caps, index, count_bit, NULL));
        if (index != 0x486 && index != 0x487 && index != 0x488)
            ck_assert_msg(seen > 0, "%s", vmx_caps_msr_name(index));
    }
    ck_assert(!vmx_caps_decode(&caps, LAST + 1, count_bit, NULL));
    ck_assert(!vmx_caps_decode(&caps, FIRST - 1, count_bit, NULL));
    seen_bits = 0, withheld = 0;
    char name[] = "ENABLE_EPT";
    ck_assert(vmx_caps_decode(&caps, 0x48B, count_bit, name));
    ck_assert_str_eq(name, "");
    ck_assert_uint_eq(withheld, 6); // APIC accesses, x2APIC, ENCLS, PML, #VE and PT of the real processor
}
END_TEST

START_TEST(names_are_unique_within_a_word)
{
    unsigned count;
    const struct vmx_control_info *controls = vmx_controls(&count);
    for (unsigned i = 0; i < count; i++) {
        ck_assert_ptr_eq(vmx_control_find(controls[i].word, controls[i].bit), &controls[i]);
        for (unsigned k = 0; k < i; k++)
            ck_assert(controls[i].word != controls[k].word || strcmp(controls[i].name, controls[k].name));
    }
    ck_assert_ptr_null(vmx_control_find(CONTROL_WORD_PIN, 1));
}
END_TEST

START_TEST(reasons_and_errors_have_names)
{
    ck_assert_str_eq(vmx_exit_reason_name(48), "EPT_VIOLATION");
    ck_assert_str_eq(vmx_exit_reason_title(48), "EPT violation");
    ck_assert_int_eq(vmx_exit_reason_by_name("ept_violation"), 48);
    ck_assert_int_eq(vmx_exit_reason_by_name("nonesuch"), -1);
    ck_assert_ptr_null(vmx_exit_reason_name(35));
    ck_assert_ptr_null(vmx_exit_reason_name(86));
    ck_assert_str_eq(vmx_instruction_error_text(12), "VMREAD/VMWRITE from/to unsupported VMCS component");
    ck_assert_ptr_null(vmx_instruction_error_text(14));
    ck_assert_ptr_null(vmx_instruction_error_text(29));
}
END_TEST

START_TEST(field_values_have_meanings)
{
    char text[512];
    ck_assert(vmx_decode_field(VMCS_EXIT_REASON, 0x80000021, text, sizeof text));
    ck_assert_str_eq(text, "ENTRY_FAIL_GUEST_STATE (33) VM-entry failure");
    ck_assert(vmx_decode_field(VMCS_SECONDARY_PROC_BASED_CONTROLS, 0x22, text, sizeof text));
    ck_assert_str_eq(text, "ENABLE_EPT ENABLE_VPID");
    ck_assert(vmx_decode_field(VMCS_ENTRY_INTERRUPTION_INFO, 0x80000B0E, text, sizeof text));
    ck_assert_str_eq(text, "hardware exception, vector 14 with error code");
    ck_assert(vmx_decode_field(VMCS_GUEST_CS_ACCESS_RIGHTS, 0xA09B, text, sizeof text));
    ck_assert_str_eq(text, "type 11 S 1 DPL 0 P 1 64-bit G");
    ck_assert(vmx_decode_field(VMCS_GUEST_ACTIVITY_STATE, 77, text, sizeof text));
    ck_assert_str_eq(text, "unknown");
    ck_assert(vmx_decode_field(VMCS_PRIMARY_PROC_BASED_CONTROLS, 0xFFFFFFFF, text, 16)); // cut off, not overrun
    ck_assert_uint_lt(strlen(text), 16);
    ck_assert(!vmx_decode_field(VMCS_GUEST_RIP, 1, text, sizeof text));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vmx/capabilities");
    TCase *tc = tcase_create("capabilities");
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_test(tc, profiles_are_known_and_others_refused);
    tcase_add_test(tc, skylake_values);
    tcase_add_loop_test(tc, unimplemented_controls_are_never_offered, 0, 2);
    tcase_add_test(tc, skylake_offers_every_implemented_control);
    tcase_add_loop_test(tc, offered_bits_are_those_of_the_real_processor, 0, 2);
    tcase_add_loop_test(tc, control_msrs_are_consistent, 0, 2);
    tcase_add_loop_test(tc, reserved_bits_are_0, 0, 2);
    tcase_add_loop_test(tc, enum_msr_gives_the_highest_index_that_vmread_accepts, 0, 2);
    tcase_add_test(tc, fields_exist_with_their_controls);
    tcase_add_test(tc, decoding_names_every_bit_of_every_msr);
    tcase_add_test(tc, names_are_unique_within_a_word);
    tcase_add_test(tc, reasons_and_errors_have_names);
    tcase_add_test(tc, field_values_have_meanings);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
