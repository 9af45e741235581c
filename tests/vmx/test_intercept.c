// Which instructions exit under which controls, with which qualification. SDM 3C ch. 26, 28.2.1.
#include <stdlib.h>

#include "cpu/profile.h"
#include "vmx_fixture.h"

static struct fixture *f;

static void setup(void)
{
    f = fixture_create();
    fixture_prepare_guest(f);
}

static void teardown(void) { fixture_destroy(f); }

enum word { NEVER, ALWAYS, PRIMARY, SECONDARY };

// An instruction that exits if and only if a control is 1.
struct row {
    const char *name;
    uint8_t length, code[6];
    enum word word;
    uint32_t control;
    enum vmx_exit_reason reason;
    uint64_t qualification;
};

static const struct row rows[] = {
    {"cpuid", 2, {0x0F, 0xA2}, ALWAYS, 0, EXIT_CPUID, 0},
    {"invd", 2, {0x0F, 0x08}, ALWAYS, 0, EXIT_INVD, 0},
    {"hlt", 1, {0xF4}, PRIMARY, PRIMARY_HLT_EXITING, EXIT_HLT, 0},
    {"invlpg", 3, {0x0F, 0x01, 0x3B}, PRIMARY, PRIMARY_INVLPG_EXITING, EXIT_INVLPG, AT_OPERAND},
    {"rdtsc", 2, {0x0F, 0x31}, PRIMARY, PRIMARY_RDTSC_EXITING, EXIT_RDTSC, 0},
    {"monitor", 3, {0x0F, 0x01, 0xC8}, PRIMARY, PRIMARY_MONITOR_EXITING, EXIT_MONITOR, 0},
    {"mwait", 3, {0x0F, 0x01, 0xC9}, PRIMARY, PRIMARY_MWAIT_EXITING, EXIT_MWAIT, 0},
    {"pause", 2, {0xF3, 0x90}, PRIMARY, PRIMARY_PAUSE_EXITING, EXIT_PAUSE, 0},
    {"mov dr3", 3, {0x0F, 0x23, 0xD8}, PRIMARY, PRIMARY_MOV_DR_EXITING, EXIT_MOV_DR, 3},
    {"mov from dr3", 4, {0x41, 0x0F, 0x21, 0xD9}, PRIMARY, PRIMARY_MOV_DR_EXITING, EXIT_MOV_DR, 3 | 0x10 | 0x900},
    {"mov cr3", 3, {0x0F, 0x22, 0xD9}, PRIMARY, PRIMARY_CR3_LOAD_EXITING, EXIT_CR_ACCESS, 3 | (REG_RCX << 8)},
    {"mov from cr3",
     3,
     {0x0F, 0x20, 0xDA},
     PRIMARY,
     PRIMARY_CR3_STORE_EXITING,
     EXIT_CR_ACCESS,
     3 | 0x10 | (REG_RDX << 8)},
    {"in al, dx", 1, {0xEC}, PRIMARY, PRIMARY_UNCONDITIONAL_IO_EXITING, EXIT_IO_INSTRUCTION, 0x00800008},
    {"out 71h, eax", 2, {0xE7, 0x71}, PRIMARY, PRIMARY_UNCONDITIONAL_IO_EXITING, EXIT_IO_INSTRUCTION, 0x00710043},
    {"sgdt", 3, {0x0F, 0x01, 0x03}, SECONDARY, SECONDARY_DESCRIPTOR_TABLE_EXITING, EXIT_GDTR_IDTR_ACCESS, 0},
    {"sldt", 3, {0x0F, 0x00, 0xC0}, SECONDARY, SECONDARY_DESCRIPTOR_TABLE_EXITING, EXIT_LDTR_TR_ACCESS, 0},
    {"wbinvd", 2, {0x0F, 0x09}, SECONDARY, SECONDARY_WBINVD_EXITING, EXIT_WBINVD_WBNOINVD, 0},
    {"rdrand", 3, {0x0F, 0xC7, 0xF0}, SECONDARY, SECONDARY_RDRAND_EXITING, EXIT_RDRAND, 0},
    {"rdseed", 3, {0x0F, 0xC7, 0xF8}, SECONDARY, SECONDARY_RDSEED_EXITING, EXIT_RDSEED, 0},
    {"nop", 1, {0x90}, NEVER, 0, EXIT_CPUID, 0},
};

static void run_row(const struct row *row)
{
    fixture_put(f, VMCS_GUEST_RIP, AT_GUEST_CODE);
    fixture_enter_guest(f);
    f->cpu.regs[REG_RAX] = AT_OPERAND;
    f->cpu.regs[REG_RBX] = AT_OPERAND;
    f->cpu.regs[REG_RCX] = row->reason == EXIT_CR_ACCESS ? f->cpu.cr3 : 0;
    f->cpu.regs[REG_RDX] = 0x80;
    fixture_run(f, row->code, row->length);
}

static void leave_guest(void)
{
    if (!f->cpu.non_root)
        return;
    f->cpu.activity = ACTIVITY_ACTIVE;
    RUN(f, 0x0F, 0xA2);
    fixture_expect_exit(f, EXIT_CPUID);
}

START_TEST(controls_decide)
{
    const struct row *row = &rows[_i];
    fixture_clear(f, VMCS_PRIMARY_PROC_BASED_CONTROLS, PRIMARY_CR3_LOAD_EXITING | PRIMARY_CR3_STORE_EXITING);
    fixture_enable_secondary(f, 0);
    if (row->word != ALWAYS) {
        run_row(row);
        ck_assert_msg(f->cpu.non_root, "%s exits without its control", row->name);
        leave_guest();
    }
    if (row->word == NEVER)
        return;
    if (row->word == PRIMARY)
        fixture_set(f, VMCS_PRIMARY_PROC_BASED_CONTROLS, row->control);
    if (row->word == SECONDARY)
        fixture_enable_secondary(f, row->control);
    run_row(row);
    ck_assert_msg(!f->cpu.non_root, "%s does not exit", row->name);
    fixture_expect_exit(f, row->reason);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_QUALIFICATION), row->qualification);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INSTRUCTION_LENGTH), row->length);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RIP), AT_GUEST_CODE);
}
END_TEST

START_TEST(privilege_faults_precede_exits)
{
    fixture_set(f, VMCS_PRIMARY_PROC_BASED_CONTROLS, PRIMARY_HLT_EXITING);
    fixture_enter_guest(f);
    fixture_set_cpl3(f);
    RUN(f, 0xF4);
    ck_assert(f->cpu.non_root);
    ck_assert_uint_eq(fixture_exceptions(f, VECTOR_GP), 1);
}
END_TEST

START_TEST(mov_dr_exit_precedes_the_privilege_fault)
{
    fixture_set(f, VMCS_PRIMARY_PROC_BASED_CONTROLS, PRIMARY_MOV_DR_EXITING);
    fixture_enter_guest(f);
    fixture_set_cpl3(f);
    RUN(f, 0x0F, 0x23, 0xC0);
    fixture_expect_exit(f, EXIT_MOV_DR);
}
END_TEST

START_TEST(cr0_mask_and_shadow)
{
    fixture_put(f, VMCS_CR0_GUEST_HOST_MASK, CR0_TS | CR0_WP);
    fixture_put(f, VMCS_CR0_READ_SHADOW, CR0_WP);
    fixture_enter_guest(f);
    RUN(f, 0x0F, 0x20, 0xC0); // MOV RAX, CR0
    ck_assert_uint_eq(f->cpu.regs[REG_RAX], f->cpu.cr0 | CR0_WP);
    f->cpu.regs[REG_RAX] = f->cpu.cr0 | CR0_WP | CR0_MP; // WP as in the shadow: MP changes, WP does not
    RUN(f, 0x0F, 0x22, 0xC0);
    ck_assert(f->cpu.non_root);
    ck_assert_uint_eq(f->cpu.cr0 & (CR0_WP | CR0_MP), CR0_MP);
    f->cpu.regs[REG_RAX] = f->cpu.cr0 | CR0_WP | CR0_TS;
    RUN(f, 0x0F, 0x22, 0xC0);
    fixture_expect_exit(f, EXIT_CR_ACCESS);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_QUALIFICATION), 0);
}
END_TEST

START_TEST(clts_and_lmsw)
{
    fixture_put(f, VMCS_CR0_GUEST_HOST_MASK, CR0_TS);
    fixture_put(f, VMCS_CR0_READ_SHADOW, 0);
    fixture_set(f, VMCS_GUEST_CR0, CR0_TS);
    fixture_enter_guest(f);
    RUN(f, 0x0F, 0x06); // CLTS: mask 1, shadow 0: no exit, no effect
    ck_assert(f->cpu.non_root);
    ck_assert(f->cpu.cr0 & CR0_TS);
    f->cpu.regs[REG_RAX] = 0x9; // TS as it is not in the shadow
    RUN(f, 0x0F, 0x01, 0xF0);   // LMSW AX
    fixture_expect_exit(f, EXIT_CR_ACCESS);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_QUALIFICATION), 0x90030);
    fixture_put(f, VMCS_CR0_READ_SHADOW, CR0_TS);
    fixture_enter_guest(f);
    RUN(f, 0x0F, 0x06);
    fixture_expect_exit(f, EXIT_CR_ACCESS);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_QUALIFICATION), 0x20);
}
END_TEST

START_TEST(lmsw_does_not_attempt_to_clear_pe)
{
    fixture_put(f, VMCS_CR0_GUEST_HOST_MASK, CR0_PE);
    fixture_put(f, VMCS_CR0_READ_SHADOW, CR0_PE);
    fixture_enter_guest(f);
    f->cpu.regs[REG_RAX] = 0;
    RUN(f, 0x0F, 0x01, 0xF0);
    ck_assert(f->cpu.non_root);
    ck_assert(f->cpu.cr0 & CR0_PE);
    fixture_put(f, VMCS_CR0_READ_SHADOW, 0);
    leave_guest();
    fixture_put(f, VMCS_GUEST_RIP, AT_GUEST_CODE);
    fixture_enter_guest(f);
    f->cpu.regs[REG_RAX] = CR0_PE;
    RUN(f, 0x0F, 0x01, 0xF0);
    fixture_expect_exit(f, EXIT_CR_ACCESS);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_QUALIFICATION), 0x10030);
}
END_TEST

START_TEST(cr4_vmxe_can_be_hidden)
{
    fixture_put(f, VMCS_CR4_GUEST_HOST_MASK, CR4_VMXE);
    fixture_put(f, VMCS_CR4_READ_SHADOW, 0);
    fixture_enter_guest(f);
    RUN(f, 0x0F, 0x20, 0xE0);
    ck_assert_uint_eq(f->cpu.regs[REG_RAX], CR4_PAE);
    f->cpu.regs[REG_RAX] = CR4_PAE | CR4_PGE;
    RUN(f, 0x0F, 0x22, 0xE0);
    ck_assert(f->cpu.non_root);
    ck_assert_uint_eq(f->cpu.cr4, CR4_PAE | CR4_PGE | CR4_VMXE);
}
END_TEST

START_TEST(cr3_targets_do_not_exit)
{
    fixture_set(f, VMCS_PRIMARY_PROC_BASED_CONTROLS, PRIMARY_CR3_LOAD_EXITING);
    fixture_put(f, VMCS_CR3_TARGET_COUNT, 2);
    fixture_put(f, VMCS_CR3_TARGET_1, AT_PAGE_TABLES);
    fixture_enter_guest(f);
    f->cpu.regs[REG_RAX] = AT_PAGE_TABLES;
    RUN(f, 0x0F, 0x22, 0xD8);
    ck_assert(f->cpu.non_root);
    fixture_put(f, VMCS_CR3_TARGET_COUNT, 1);
    RUN(f, 0x0F, 0x22, 0xD8);
    fixture_expect_exit(f, EXIT_CR_ACCESS);
}
END_TEST

START_TEST(io_bitmaps)
{
    fixture_set(f, VMCS_PRIMARY_PROC_BASED_CONTROLS, PRIMARY_USE_IO_BITMAPS | PRIMARY_UNCONDITIONAL_IO_EXITING);
    fixture_put(f, VMCS_IO_BITMAP_A, AT_BITMAP_A);
    fixture_put(f, VMCS_IO_BITMAP_B, AT_BITMAP_B);
    fixture_write(f, AT_BITMAP_A + 0x83 / 8, 1u << 3, 1);
    fixture_enter_guest(f);
    f->cpu.regs[REG_RDX] = 0x82;
    RUN(f, 0xEE); // OUT DX, AL: the bitmap wins over unconditional exiting
    ck_assert(f->cpu.non_root);
    RUN(f, 0x66, 0xEF); // OUT DX, AX touches 83H
    fixture_expect_exit(f, EXIT_IO_INSTRUCTION);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_QUALIFICATION), 0x00820001);
    fixture_enter_guest(f);
    f->cpu.regs[REG_RDX] = 0xFFFF;
    RUN(f, 0xEE);
    ck_assert(f->cpu.non_root);
    RUN(f, 0x66, 0xEF); // wraps around
    fixture_expect_exit(f, EXIT_IO_INSTRUCTION);
}
END_TEST

START_TEST(string_io_records_its_operand)
{
    fixture_set(f, VMCS_PRIMARY_PROC_BASED_CONTROLS, PRIMARY_UNCONDITIONAL_IO_EXITING);
    fixture_enter_guest(f);
    f->cpu.regs[REG_RDX] = 0x1F0;
    f->cpu.regs[REG_RCX] = 3;
    f->cpu.regs[REG_RDI] = 0x12345;
    RUN(f, 0xF3, 0x6D); // REP INSD
    fixture_expect_exit(f, EXIT_IO_INSTRUCTION);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_QUALIFICATION), 0x01F0003B);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_LINEAR_ADDRESS), 0x12345);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INSTRUCTION_INFO) >> 7 & 7, 2);
    ck_assert_uint_eq(f->cpu.regs[REG_RCX], 3);
}
END_TEST

START_TEST(msr_bitmaps)
{
    fixture_set(f, VMCS_PRIMARY_PROC_BASED_CONTROLS, PRIMARY_USE_MSR_BITMAPS);
    fixture_put(f, VMCS_MSR_BITMAP, AT_MSR_BITMAP);
    fixture_write(f, AT_MSR_BITMAP + 0x400 + 0x81 / 8, 1u << 1, 1);            // reads of C0000081H
    fixture_write(f, AT_MSR_BITMAP + 0x800 + 0x174 / 8, 1u << (0x174 & 7), 1); // writes of 174H
    fixture_enter_guest(f);
    f->cpu.regs[REG_RCX] = 0x174;
    RUN(f, 0x0F, 0x32);
    ck_assert(f->cpu.non_root);
    RUN(f, 0x0F, 0x30);
    fixture_expect_exit(f, EXIT_WRMSR);
    fixture_enter_guest(f);
    f->cpu.regs[REG_RCX] = 0xC0000081;
    RUN(f, 0x0F, 0x32);
    fixture_expect_exit(f, EXIT_RDMSR);
    fixture_enter_guest(f);
    f->cpu.regs[REG_RCX] = 0x12345678; // outside the bitmaps: exits before #GP
    RUN(f, 0x0F, 0x32);
    fixture_expect_exit(f, EXIT_RDMSR);
}
END_TEST

START_TEST(tsc_offset)
{
    fixture_set(f, VMCS_PRIMARY_PROC_BASED_CONTROLS, PRIMARY_USE_TSC_OFFSETTING);
    fixture_put(f, VMCS_TSC_OFFSET, (uint64_t)1 << 40);
    fixture_enter_guest(f);
    RUN(f, 0x0F, 0x31);
    uint64_t tsc = (f->cpu.regs[REG_RDX] << 32) | f->cpu.regs[REG_RAX];
    ck_assert_uint_ge(tsc, (uint64_t)1 << 40);
    ck_assert_uint_lt(tsc, ((uint64_t)1 << 40) + 1000000);
}
END_TEST

START_TEST(instructions_need_their_enabling_control)
{
    fixture_enter_guest(f);
    RUN(f, 0x0F, 0x01, 0xF9); // RDTSCP
    ck_assert_uint_eq(fixture_exceptions(f, VECTOR_UD), 1);
    f->cpu.regs[REG_RIP] = AT_GUEST_CODE;
    f->cpu.regs[REG_RBX] = AT_OPERAND;
    RUN(f, 0x66, 0x0F, 0x38, 0x82, 0x03); // INVPCID RAX, [RBX]
    ck_assert_uint_eq(fixture_exceptions(f, VECTOR_UD), 2);
    f->cpu.regs[REG_RIP] = AT_GUEST_CODE;
    leave_guest();
    fixture_put(f, VMCS_GUEST_RIP, AT_GUEST_CODE);
    fixture_enable_secondary(f, SECONDARY_ENABLE_RDTSCP | SECONDARY_ENABLE_INVPCID);
    fixture_enter_guest(f);
    RUN(f, 0x0F, 0x01, 0xF9);
    ck_assert_uint_eq(fixture_exceptions(f, VECTOR_UD), 2);
    leave_guest();
    fixture_set(f, VMCS_PRIMARY_PROC_BASED_CONTROLS, PRIMARY_RDTSC_EXITING | PRIMARY_INVLPG_EXITING);
    fixture_enter_guest(f);
    RUN(f, 0x0F, 0x01, 0xF9);
    fixture_expect_exit(f, EXIT_RDTSCP);
    fixture_enter_guest(f);
    RUN(f, 0x66, 0x0F, 0x38, 0x82, 0x03);
    fixture_expect_exit(f, EXIT_INVPCID);
}
END_TEST

// RDTSCP, RDPID, INVPCID, XSAVES, XRSTORS (SDM 3C 26.3): #UD comes before the faults of CR4.TSD and CPL.
START_TEST(a_withheld_instruction_is_undefined_before_anything_else)
{
    static const struct row withheld[] = {
        {"rdtscp", 3, {0x0F, 0x01, 0xF9}, NEVER, 0, 0, 0},
        {"rdpid", 4, {0xF3, 0x0F, 0xC7, 0xF8}, NEVER, 0, 0, 0},
        {"invpcid", 5, {0x66, 0x0F, 0x38, 0x82, 0x03}, NEVER, 0, 0, 0},
        {"xsaves", 4, {0x48, 0x0F, 0xC7, 0x2B}, NEVER, 0, 0, 0},
        {"xrstors", 4, {0x48, 0x0F, 0xC7, 0x1B}, NEVER, 0, 0, 0},
    };
    f->cpu.profile = cpu_profile_find("icelake"); // has RDPID
    fixture_put(f, VMCS_GUEST_CR4, fixture_get(f, VMCS_GUEST_CR4) | CR4_TSD | CR4_OSXSAVE);
    fixture_enter_guest(f);
    fixture_set_cpl3(f);
    fixture_run(f, withheld[_i].code, withheld[_i].length);
    ck_assert_msg(fixture_exceptions(f, VECTOR_UD) == 1, "%s is not undefined", withheld[_i].name);
    ck_assert_uint_eq(fixture_exceptions(f, VECTOR_GP), 0);
}
END_TEST

START_TEST(pause_loops)
{
    fixture_enable_secondary(f, SECONDARY_PAUSE_LOOP_EXITING);
    fixture_put(f, VMCS_PLE_GAP, 100000);
    fixture_put(f, VMCS_PLE_WINDOW, 300);
    fixture_enter_guest(f);
    unsigned executed = 0;
    while (f->cpu.non_root && executed < 1000) {
        RUN(f, 0xF3, 0x90);
        executed++;
    }
    fixture_expect_exit(f, EXIT_PAUSE);
    ck_assert_uint_gt(executed, 2);
    fixture_put(f, VMCS_PLE_GAP, 0); // every PAUSE begins a loop
    fixture_enter_guest(f);
    for (unsigned i = 0; i < 1000; i++)
        RUN(f, 0xF3, 0x90);
    ck_assert(f->cpu.non_root);
}
END_TEST

START_TEST(tpr_shadow)
{
    fixture_set(f, VMCS_PRIMARY_PROC_BASED_CONTROLS, PRIMARY_USE_TPR_SHADOW);
    fixture_clear(f, VMCS_PRIMARY_PROC_BASED_CONTROLS, PRIMARY_CR8_LOAD_EXITING | PRIMARY_CR8_STORE_EXITING);
    fixture_put(f, VMCS_VIRTUAL_APIC_ADDR, AT_VIRTUAL_APIC);
    fixture_write(f, AT_VIRTUAL_APIC + 0x80, 0x50, 4);
    fixture_put(f, VMCS_TPR_THRESHOLD, 4);
    fixture_enter_guest(f);
    RUN(f, 0x44, 0x0F, 0x20, 0xC0); // MOV RAX, CR8
    ck_assert_uint_eq(f->cpu.regs[REG_RAX], 5);
    f->cpu.regs[REG_RAX] = 4;
    RUN(f, 0x44, 0x0F, 0x22, 0xC0);
    ck_assert(f->cpu.non_root);
    ck_assert_uint_eq(fixture_read(f, AT_VIRTUAL_APIC + 0x80, 4), 0x40);
    f->cpu.regs[REG_RAX] = 3;
    RUN(f, 0x44, 0x0F, 0x22, 0xC0);
    fixture_expect_exit(f, EXIT_TPR_BELOW_THRESHOLD);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RIP), AT_GUEST_CODE + 12); // a trap
}
END_TEST

START_TEST(fixed_bits_hold_in_vmx_operation)
{
    f->cpu.regs[REG_RAX] = f->cpu.cr4 & ~CR4_VMXE;
    RUN(f, 0x0F, 0x22, 0xE0);
    ck_assert_uint_eq(fixture_exceptions(f, VECTOR_GP), 1);
    f->cpu.regs[REG_RIP] = AT_HOST_CODE;
    f->cpu.regs[REG_RAX] = f->cpu.cr0 & ~CR0_NE;
    RUN(f, 0x0F, 0x22, 0xC0);
    ck_assert_uint_eq(fixture_exceptions(f, VECTOR_GP), 2);
}
END_TEST

START_TEST(intercepts_are_off_outside_non_root_operation)
{
    ck_assert_uint_eq(f->cpu.intercepts, 0);
    uint64_t rip = f->cpu.regs[REG_RIP];
    RUN(f, 0x0F, 0xA2);
    ck_assert_uint_eq(f->cpu.regs[REG_RIP], rip + 2);
    ck_assert_uint_eq(f->vmx.exits[EXIT_CPUID], 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vmx intercepts");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, controls_decide, 0, (int)(sizeof rows / sizeof rows[0]));
    tcase_add_test(tc, privilege_faults_precede_exits);
    tcase_add_test(tc, mov_dr_exit_precedes_the_privilege_fault);
    tcase_add_test(tc, cr0_mask_and_shadow);
    tcase_add_test(tc, clts_and_lmsw);
    tcase_add_test(tc, lmsw_does_not_attempt_to_clear_pe);
    tcase_add_test(tc, cr4_vmxe_can_be_hidden);
    tcase_add_test(tc, cr3_targets_do_not_exit);
    tcase_add_test(tc, io_bitmaps);
    tcase_add_test(tc, string_io_records_its_operand);
    tcase_add_test(tc, msr_bitmaps);
    tcase_add_test(tc, tsc_offset);
    tcase_add_test(tc, instructions_need_their_enabling_control);
    tcase_add_loop_test(tc, a_withheld_instruction_is_undefined_before_anything_else, 0, 5);
    tcase_add_test(tc, pause_loops);
    tcase_add_test(tc, tpr_shadow);
    tcase_add_test(tc, fixed_bits_hold_in_vmx_operation);
    tcase_add_test(tc, intercepts_are_off_outside_non_root_operation);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
