// VM exits: what is recorded, guest-state save, host-state load, MSR lists, VMX aborts. SDM 3C ch. 28.
#include <stdlib.h>

#include "vmx_fixture.h"

#define INFO(type, vector) (0x80000000u | ((type) << 8) | (vector))

static struct fixture *f;

static void setup(void)
{
    f = fixture_create();
    fixture_prepare_guest(f);
}

static void teardown(void) { fixture_destroy(f); }

static void exit_by_cpuid(void)
{
    RUN(f, 0x0F, 0xA2);
    fixture_expect_exit(f, EXIT_CPUID);
}

START_TEST(guest_state_is_saved)
{
    fixture_enter_guest(f);
    f->cpu.regs[REG_RSP] = 0x7777;
    f->cpu.segments[SEG_GS].base = 0x1234000;
    f->cpu.sysenter_cs = 0x88;
    RUN(f, 0x0F, 0xA2);
    fixture_expect_exit(f, EXIT_CPUID);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RSP), 0x7777);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RIP), AT_GUEST_CODE);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RFLAGS), RFLAGS_ONE | RFLAGS_ARITHMETIC);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_GS_BASE), 0x1234000);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_IA32_SYSENTER_CS), 0x88);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_LDTR_ACCESS_RIGHTS) & SEGMENT_UNUSABLE, SEGMENT_UNUSABLE);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INSTRUCTION_LENGTH), 2);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_QUALIFICATION), 0);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INTERRUPTION_INFO), 0);
    ck_assert_uint_eq(fixture_get(f, VMCS_IDT_VECTORING_INFO), 0);
    ck_assert_uint_eq(f->vmx.exits[EXIT_CPUID], 1);
}
END_TEST

START_TEST(host_state_is_loaded)
{
    fixture_put(f, VMCS_HOST_FS_SELECTOR, 0);
    fixture_put(f, VMCS_HOST_FS_BASE, 0x5000);
    fixture_put(f, VMCS_HOST_IA32_SYSENTER_ESP, 0x6000);
    fixture_put(f, VMCS_GUEST_DR7, 0x401);
    fixture_set(f, VMCS_ENTRY_CONTROLS, ENTRY_LOAD_DEBUG_CONTROLS);
    fixture_set(f, VMCS_PRIMARY_EXIT_CONTROLS, EXIT_SAVE_DEBUG_CONTROLS);
    fixture_enter_guest(f);
    ck_assert_uint_eq(f->cpu.dr7, 0x401);
    exit_by_cpuid();
    const struct cpu *cpu = &f->cpu;
    ck_assert_uint_eq(cpu_rflags(cpu), RFLAGS_ONE);
    ck_assert_uint_eq(cpu->regs[REG_RSP], AT_HOST_STACK);
    ck_assert_uint_eq(cpu->segments[SEG_CS].access_rights, 0xA09B);
    ck_assert_uint_eq(cpu->segments[SEG_SS].access_rights, 0xC093);
    ck_assert_uint_eq(cpu->segments[SEG_TR].access_rights, 0x8B);
    ck_assert_uint_eq(cpu->segments[SEG_TR].limit, 0x67);
    ck_assert(cpu->segments[SEG_LDTR].access_rights & SEGMENT_UNUSABLE);
    ck_assert(cpu->segments[SEG_FS].access_rights & SEGMENT_UNUSABLE);
    ck_assert_uint_eq(cpu->segments[SEG_FS].base, 0x5000);
    ck_assert_uint_eq(cpu->gdtr.limit, 0xFFFF);
    ck_assert_uint_eq(cpu->idtr.limit, 0xFFFF);
    ck_assert_uint_eq(cpu->sysenter_esp, 0x6000);
    ck_assert_uint_eq(cpu->dr7, 0x400);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_DR7), 0x401);
    ck_assert_uint_eq(cpu->cpl, 0);
    ck_assert_uint_eq(cpu->intercepts, 0);
    ck_assert_int_eq(cpu->activity, ACTIVITY_ACTIVE);
}
END_TEST

START_TEST(entry_valid_bit_is_cleared_and_ia32e_control_follows_lma)
{
    fixture_put(f, VMCS_ENTRY_INTERRUPTION_INFO, INFO(4, 0x80));
    fixture_put(f, VMCS_ENTRY_INSTRUCTION_LENGTH, 2);
    fixture_enter_guest(f);
    exit_by_cpuid();
    ck_assert_uint_eq(fixture_get(f, VMCS_ENTRY_INTERRUPTION_INFO), INFO(4, 0x80) & 0x7FFFFFFF);
    ck_assert_uint_eq(fixture_get(f, VMCS_ENTRY_CONTROLS) & ENTRY_IA32E_MODE_GUEST, ENTRY_IA32E_MODE_GUEST);
}
END_TEST

START_TEST(instruction_exits_save_rf_clear_and_keep_sti_blocking)
{
    fixture_set(f, VMCS_PRIMARY_PROC_BASED_CONTROLS, PRIMARY_HLT_EXITING);
    fixture_put(f, VMCS_GUEST_RFLAGS, RFLAGS_ONE | RFLAGS_RF | RFLAGS_IF);
    fixture_put(f, VMCS_GUEST_INTERRUPTIBILITY_STATE, BLOCKING_STI);
    fixture_enter_guest(f);
    RUN(f, 0xF4);
    fixture_expect_exit(f, EXIT_HLT);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RFLAGS) & RFLAGS_RF, 0);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_INTERRUPTIBILITY_STATE), BLOCKING_STI);
    ck_assert_uint_eq(f->cpu.interruptibility, 0);
}
END_TEST

START_TEST(exceptions_exit_by_the_bitmap)
{
    fixture_put(f, VMCS_EXCEPTION_BITMAP, BIT(VECTOR_UD) | BIT(VECTOR_BP));
    fixture_enter_guest(f);
    RUN(f, 0x0F, 0x0B); // UD2
    fixture_expect_exit(f, EXIT_EXCEPTION_OR_NMI);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INTERRUPTION_INFO), INFO(3, VECTOR_UD));
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RFLAGS) & RFLAGS_RF, RFLAGS_RF);
    ck_assert_uint_eq(fixture_exceptions(f, VECTOR_UD), 0);
    fixture_enter_guest(f);
    RUN(f, 0xCC);
    fixture_expect_exit(f, EXIT_EXCEPTION_OR_NMI);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INTERRUPTION_INFO), INFO(6, VECTOR_BP));
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INSTRUCTION_LENGTH), 1);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RIP), AT_GUEST_CODE);
    fixture_enter_guest(f);
    f->cpu.regs[REG_RIP] = AT_GUEST_CODE;
    RUN(f, 0x48, 0xF7, 0xF0); // DIV RAX with RAX = 0: not in the bitmap
    ck_assert(f->cpu.non_root);
}
END_TEST

START_TEST(page_faults_compare_the_error_code)
{
    fixture_put(f, VMCS_EXCEPTION_BITMAP, BIT(VECTOR_PF));
    fixture_put(f, VMCS_PAGE_FAULT_ERROR_CODE_MASK, PF_WRITE);
    fixture_put(f, VMCS_PAGE_FAULT_ERROR_CODE_MATCH, PF_WRITE);
    fixture_enter_guest(f);
    f->cpu.regs[REG_RBX] = (uint64_t)1 << 46;
    f->cpu.cr2 = 5;
    RUN(f, 0x89, 0x03); // MOV [RBX], EAX
    fixture_expect_exit(f, EXIT_EXCEPTION_OR_NMI);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_QUALIFICATION), (uint64_t)1 << 46);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INTERRUPTION_ERROR_CODE), PF_WRITE);
    ck_assert_uint_eq(f->cpu.cr2, 5);
    fixture_enter_guest(f);
    RUN(f, 0x8B, 0x03); // a read does not match
    ck_assert(f->cpu.non_root);
    ck_assert_uint_eq(f->cpu.cr2, (uint64_t)1 << 46);
    ck_assert_uint_eq(f->cpu.regs[REG_RIP], AT_HANDLERS + 16 * VECTOR_PF);
}
END_TEST

START_TEST(triple_fault_exits)
{
    fixture_put(f, VMCS_GUEST_IDTR_LIMIT, 0);
    fixture_enter_guest(f);
    RUN(f, 0x0F, 0x0B);
    fixture_expect_exit(f, EXIT_TRIPLE_FAULT);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_ACTIVITY_STATE), ACTIVITY_ACTIVE);
    ck_assert_uint_eq(fixture_get(f, VMCS_IDT_VECTORING_INFO), 0);
}
END_TEST

START_TEST(double_fault_exits_without_idt_vectoring)
{
    fixture_put(f, VMCS_GUEST_IDTR_LIMIT, 0x8F); // vectors 0 to 8: #GP in the delivery of #GP
    fixture_put(f, VMCS_EXCEPTION_BITMAP, BIT(VECTOR_DF));
    fixture_enter_guest(f);
    f->cpu.regs[REG_RBX] = (uint64_t)1 << 60;
    RUN(f, 0x8B, 0x03); // not canonical
    fixture_expect_exit(f, EXIT_EXCEPTION_OR_NMI);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INTERRUPTION_INFO), INFO(3, VECTOR_DF) | 0x800);
    ck_assert_uint_eq(fixture_get(f, VMCS_IDT_VECTORING_INFO), 0);
}
END_TEST

START_TEST(ept_violation_of_a_data_access)
{
    fixture_enable_ept(f);
    fixture_write(f, AT_EPT + 0x2000 + 8 * 4, 0, 8); // 8 to 10 MBytes
    fixture_enter_guest(f);
    f->cpu.regs[REG_RBX] = 0x800123;
    RUN(f, 0x88, 0x03); // MOV [RBX], AL
    fixture_expect_exit(f, EXIT_EPT_VIOLATION);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_PHYSICAL_ADDRESS), 0x800123);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_LINEAR_ADDRESS), 0x800123);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_QUALIFICATION) & 0x1FF, 0x182);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RFLAGS) & RFLAGS_RF, RFLAGS_RF);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RIP), AT_GUEST_CODE);
}
END_TEST

START_TEST(ept_misconfiguration)
{
    fixture_enable_ept(f);
    fixture_write(f, AT_EPT + 0x2000 + 8 * 4, 0x800000 | 0x82, 8); // write without read
    fixture_enter_guest(f);
    f->cpu.regs[REG_RBX] = 0x800123;
    RUN(f, 0x8A, 0x03);
    fixture_expect_exit(f, EXIT_EPT_MISCONFIGURATION);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_PHYSICAL_ADDRESS), 0x800123);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_QUALIFICATION), 0);
}
END_TEST

START_TEST(ept_violation_during_delivery_has_idt_vectoring)
{
    fixture_enable_ept(f);
    fixture_write(f, AT_EPT + 0x2000 + 8 * 4, 0, 8);
    fixture_put(f, VMCS_GUEST_RSP, 0x900000);
    fixture_enter_guest(f);
    RUN(f, 0xCD, 0x80);
    fixture_expect_exit(f, EXIT_EPT_VIOLATION);
    ck_assert_uint_eq(fixture_get(f, VMCS_IDT_VECTORING_INFO), INFO(4, 0x80));
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INSTRUCTION_LENGTH), 2);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RSP), 0x900000);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RIP), AT_GUEST_CODE);
}
END_TEST

START_TEST(msr_lists_of_exits)
{
    fixture_put(f, VMCS_EXIT_MSR_STORE_ADDR, AT_MSR_LIST);
    fixture_put(f, VMCS_EXIT_MSR_STORE_COUNT, 1);
    fixture_put(f, VMCS_EXIT_MSR_LOAD_ADDR, AT_MSR_LIST + 0x100);
    fixture_put(f, VMCS_EXIT_MSR_LOAD_COUNT, 1);
    fixture_write(f, AT_MSR_LIST, 0xC0000102, 8);
    fixture_write(f, AT_MSR_LIST + 0x100, 0xC0000102, 8);
    fixture_write(f, AT_MSR_LIST + 0x108, 0x2000, 8);
    fixture_enter_guest(f);
    f->cpu.kernel_gs_base = 0x1000;
    exit_by_cpuid();
    ck_assert_uint_eq(fixture_read(f, AT_MSR_LIST + 8, 8), 0x1000);
    ck_assert_uint_eq(f->cpu.kernel_gs_base, 0x2000);
}
END_TEST

static void expect_abort(unsigned code)
{
    ck_assert_int_eq(RUN(f, 0x0F, 0xA2), EXEC_STOP);
    ck_assert_uint_eq(f->vmx.abort, code);
    ck_assert_uint_eq(fixture_read(f, AT_VMCS + 4, 4), code);
}

START_TEST(failed_msr_store_is_abort_1)
{
    fixture_put(f, VMCS_EXIT_MSR_STORE_ADDR, AT_MSR_LIST);
    fixture_put(f, VMCS_EXIT_MSR_STORE_COUNT, 1);
    fixture_write(f, AT_MSR_LIST, 0x808, 8);
    fixture_enter_guest(f);
    expect_abort(1);
}
END_TEST

START_TEST(failed_msr_load_is_abort_4)
{
    fixture_put(f, VMCS_EXIT_MSR_LOAD_ADDR, NO_RAM); // reads all ones
    fixture_put(f, VMCS_EXIT_MSR_LOAD_COUNT, 1);
    fixture_enter_guest(f);
    expect_abort(4);
}
END_TEST

START_TEST(an_msr_list_is_no_longer_than_recommended)
{
    const unsigned longest = 512 * ((unsigned)bits_get(f->caps.misc, 27, 25) + 1);
    for (unsigned i = 0; i <= longest; i++)
        fixture_write(f, 0x400000 + 16 * i, 0xC0000102, 8);
    fixture_put(f, VMCS_EXIT_MSR_LOAD_ADDR, 0x400000);
    fixture_put(f, VMCS_EXIT_MSR_LOAD_COUNT, longest);
    fixture_enter_guest(f);
    exit_by_cpuid();
    fixture_put(f, VMCS_EXIT_MSR_LOAD_COUNT, longest + 1);
    fixture_enter_guest(f);
    expect_abort(4);
}
END_TEST

START_TEST(external_interrupts_exit)
{
    fixture_set(f, VMCS_PIN_BASED_CONTROLS, PIN_EXTERNAL_INTERRUPT_EXITING);
    fixture_enter_guest(f); // IF = 0: it does not matter
    f->interrupt_line = true;
    f->acknowledged = 0x40;
    f->cpu.pending |= PENDING_INTERRUPT;
    RUN(f, 0x90);
    fixture_expect_exit(f, EXIT_EXTERNAL_INTERRUPT);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INTERRUPTION_INFO), 0); // not acknowledged
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RIP), AT_GUEST_CODE);
}
END_TEST

START_TEST(external_interrupts_are_delivered_without_the_control)
{
    fixture_put(f, VMCS_GUEST_RFLAGS, RFLAGS_ONE | RFLAGS_IF);
    fixture_enter_guest(f);
    f->acknowledged = 0x40;
    f->cpu.pending |= PENDING_INTERRUPT;
    RUN(f, 0x90);
    ck_assert(f->cpu.non_root);
    ck_assert_uint_eq(f->cpu.regs[REG_RIP], AT_HANDLERS + 16 * 0x40);
}
END_TEST

START_TEST(nmi_exits_and_is_blocked_afterwards)
{
    fixture_set(f, VMCS_PIN_BASED_CONTROLS, PIN_NMI_EXITING);
    fixture_enter_guest(f);
    f->cpu.pending |= PENDING_NMI;
    RUN(f, 0x90);
    fixture_expect_exit(f, EXIT_EXCEPTION_OR_NMI);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INTERRUPTION_INFO), INFO(2, 2));
    ck_assert_uint_eq(f->cpu.interruptibility, BLOCKING_NMI);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_INTERRUPTIBILITY_STATE), 0);
}
END_TEST

START_TEST(tlb_of_vpid_0_is_flushed_and_of_another_vpid_kept)
{
    for (unsigned vpid = 0; vpid < 2; vpid++) {
        fixture_put(f, VMCS_GUEST_RIP, AT_GUEST_CODE);
        if (vpid) {
            fixture_enable_secondary(f, SECONDARY_ENABLE_VPID);
            fixture_put(f, VMCS_VPID, 7);
        }
        fixture_write(f, AT_PAGE_TABLES + 0x2000 + 8 * 5, 0xA00087, 8);
        fixture_write(f, 0xA00000, 0x11, 8);
        fixture_write(f, 0xC00000, 0x22, 8);
        fixture_enter_guest(f);
        f->cpu.regs[REG_RBX] = 0xA00000;
        RUN(f, 0x8B, 0x03);
        ck_assert_uint_eq(f->cpu.regs[REG_RAX], 0x11);
        exit_by_cpuid();
        fixture_write(f, AT_PAGE_TABLES + 0x2000 + 8 * 5, 0xC00087, 8); // without INVLPG
        fixture_put(f, VMCS_GUEST_RIP, AT_GUEST_CODE);
        fixture_enter_guest(f);
        RUN(f, 0x8B, 0x03);
        ck_assert_uint_eq(f->cpu.regs[REG_RAX], vpid ? 0x11 : 0x22);
        exit_by_cpuid();
    }
}
END_TEST

static uint64_t read_through_tlb(void)
{
    f->cpu.regs[REG_RBX] = 0xA00000;
    RUN(f, 0x8B, 0x03);
    return f->cpu.regs[REG_RAX];
}

static void map_test_page(uint64_t frame) { fixture_write(f, AT_PAGE_TABLES + 0x2000 + 8 * 5, frame | 0x87, 8); }

START_TEST(without_vpid_entries_and_exits_both_flush)
{
    fixture_write(f, 0xA00000, 0x11, 8);
    fixture_write(f, 0xC00000, 0x22, 8);
    ck_assert_uint_eq(read_through_tlb(), 0x11);
    map_test_page(0xC00000);
    fixture_enter_guest(f); // the host's mapping is gone
    ck_assert_uint_eq(read_through_tlb(), 0x22);
    map_test_page(0xA00000);
    exit_by_cpuid(); // and so is the guest's
    ck_assert_uint_eq(read_through_tlb(), 0x11);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vm exit");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, guest_state_is_saved);
    tcase_add_test(tc, host_state_is_loaded);
    tcase_add_test(tc, entry_valid_bit_is_cleared_and_ia32e_control_follows_lma);
    tcase_add_test(tc, instruction_exits_save_rf_clear_and_keep_sti_blocking);
    tcase_add_test(tc, exceptions_exit_by_the_bitmap);
    tcase_add_test(tc, page_faults_compare_the_error_code);
    tcase_add_test(tc, triple_fault_exits);
    tcase_add_test(tc, double_fault_exits_without_idt_vectoring);
    tcase_add_test(tc, ept_violation_of_a_data_access);
    tcase_add_test(tc, ept_misconfiguration);
    tcase_add_test(tc, ept_violation_during_delivery_has_idt_vectoring);
    tcase_add_test(tc, msr_lists_of_exits);
    tcase_add_test(tc, failed_msr_store_is_abort_1);
    tcase_add_test(tc, failed_msr_load_is_abort_4);
    tcase_add_test(tc, an_msr_list_is_no_longer_than_recommended);
    tcase_add_test(tc, external_interrupts_exit);
    tcase_add_test(tc, external_interrupts_are_delivered_without_the_control);
    tcase_add_test(tc, nmi_exits_and_is_blocked_afterwards);
    tcase_add_test(tc, without_vpid_entries_and_exits_both_flush);
    tcase_add_test(tc, tlb_of_vpid_0_is_flushed_and_of_another_vpid_kept);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
