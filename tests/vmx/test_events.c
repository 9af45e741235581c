// Events around VM entries and exits: single-stepping, activity states, NMI unblocking, task switches, EPT exits of PDPTE loads, aborts.
// SDM 3C 26.2, 27.7, 28.2, 28.3.4, 28.7.
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

static void set_rflags(uint64_t bits) { cpu_set_rflags(&f->cpu, cpu_rflags(&f->cpu) | bits); }

START_TEST(a_single_step_trap_follows_a_vmx_instruction_that_fails)
{
    set_rflags(RFLAGS_TF);
    uint64_t rip = f->cpu.regs[REG_RIP];
    RUN(f, 0x0F, 0x01, 0xC3); // VMRESUME of a clear VMCS
    ck_assert_uint_eq(f->cpu.regs[REG_RIP], rip + 3);
    fixture_step(f);
    ck_assert_uint_eq(fixture_exceptions(f, VECTOR_DB), 1);
}
END_TEST

START_TEST(no_single_step_trap_follows_a_vm_entry)
{
    set_rflags(RFLAGS_TF);
    fixture_write(f, AT_GUEST_CODE, 0x9090, 2);
    fixture_enter_guest(f);
    fixture_step(f);
    fixture_step(f);
    ck_assert_uint_eq(f->cpu.regs[REG_RIP], AT_GUEST_CODE + 2);
    ck_assert_uint_eq(fixture_exceptions(f, VECTOR_DB), 0);
}
END_TEST

START_TEST(single_step_in_the_guest_exits_with_bs_and_leaves_dr6)
{
    fixture_put(f, VMCS_EXCEPTION_BITMAP, BIT(VECTOR_DB));
    fixture_put(f, VMCS_GUEST_RFLAGS, RFLAGS_ONE | RFLAGS_TF);
    fixture_enter_guest(f);
    uint64_t dr6 = f->cpu.dr6;
    RUN(f, 0x90);
    fixture_step(f);
    fixture_expect_exit(f, EXIT_EXCEPTION_OR_NMI);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INTERRUPTION_INFO), INFO(3, VECTOR_DB));
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_QUALIFICATION), BIT(14));
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RIP), AT_GUEST_CODE + 1);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_PENDING_DEBUG_EXCEPTIONS), 0);
    ck_assert_uint_eq(f->cpu.dr6, dr6);
}
END_TEST

START_TEST(mtf_comes_before_the_trap_which_stays_pending)
{
    fixture_set(f, VMCS_PRIMARY_PROC_BASED_CONTROLS, PRIMARY_MONITOR_TRAP_FLAG);
    fixture_put(f, VMCS_GUEST_RFLAGS, RFLAGS_ONE | RFLAGS_TF);
    fixture_enter_guest(f);
    RUN(f, 0x90);
    fixture_step(f);
    fixture_expect_exit(f, EXIT_MONITOR_TRAP_FLAG);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_PENDING_DEBUG_EXCEPTIONS), BIT(14));
}
END_TEST

START_TEST(mtf_after_an_injection_exits_at_the_handler)
{
    fixture_set(f, VMCS_PRIMARY_PROC_BASED_CONTROLS, PRIMARY_MONITOR_TRAP_FLAG);
    fixture_put(f, VMCS_ENTRY_INTERRUPTION_INFO, INFO(3, VECTOR_UD));
    fixture_enter_guest(f);
    fixture_step(f);
    fixture_expect_exit(f, EXIT_MONITOR_TRAP_FLAG);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RIP), AT_HANDLERS + 16 * VECTOR_UD);
}
END_TEST

START_TEST(a_debug_trap_precedes_the_preemption_timer)
{
    fixture_set(f, VMCS_PIN_BASED_CONTROLS, PIN_ACTIVATE_PREEMPTION_TIMER);
    fixture_put(f, VMCS_GUEST_RFLAGS, RFLAGS_ONE | RFLAGS_TF);
    fixture_put(f, VMCS_GUEST_PENDING_DEBUG_EXCEPTIONS, BIT(14));
    fixture_enter_guest(f);
    fixture_step(f);
    ck_assert(f->cpu.non_root);
    ck_assert_uint_eq(f->cpu.regs[REG_RIP], AT_HANDLERS + 16 * VECTOR_DB);
    fixture_step(f);
    fixture_expect_exit(f, EXIT_PREEMPTION_TIMER);
}
END_TEST

START_TEST(rf_of_the_guest_suppresses_one_instruction_breakpoint)
{
    fixture_set(f, VMCS_ENTRY_CONTROLS, ENTRY_LOAD_DEBUG_CONTROLS);
    fixture_put(f, VMCS_GUEST_DR7, 0x401);
    fixture_put(f, VMCS_EXCEPTION_BITMAP, BIT(VECTOR_DB));
    fixture_write(f, AT_GUEST_CODE, 0xFDEB90, 3); // NOP, and a jump back to it
    f->cpu.dr[0] = AT_GUEST_CODE;
    fixture_enter_guest(f);
    fixture_step(f);
    fixture_expect_exit(f, EXIT_EXCEPTION_OR_NMI);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_QUALIFICATION), 1);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RFLAGS) & RFLAGS_RF, 0); // of an instruction breakpoint alone
    fixture_set(f, VMCS_GUEST_RFLAGS, RFLAGS_RF);
    fixture_enter_guest(f);
    fixture_step(f);
    ck_assert(f->cpu.non_root);
    ck_assert_uint_eq(f->cpu.regs[REG_RIP], AT_GUEST_CODE + 1);
    ck_assert_uint_eq(cpu_rflags(&f->cpu) & RFLAGS_RF, 0);
    fixture_step(f); // the jump back
    fixture_step(f);
    fixture_expect_exit(f, EXIT_EXCEPTION_OR_NMI);
}
END_TEST

START_TEST(virtual_nmi_blocking_is_saved)
{
    fixture_set(f, VMCS_PIN_BASED_CONTROLS, PIN_NMI_EXITING | PIN_VIRTUAL_NMIS);
    fixture_put(f, VMCS_GUEST_INTERRUPTIBILITY_STATE, BLOCKING_NMI);
    fixture_enter_guest(f);
    RUN(f, 0x0F, 0xA2);
    fixture_expect_exit(f, EXIT_CPUID);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_INTERRUPTIBILITY_STATE), BLOCKING_NMI);
    ck_assert_uint_eq(f->cpu.interruptibility, 0);
}
END_TEST

START_TEST(software_interrupts_do_not_exit)
{
    fixture_put(f, VMCS_EXCEPTION_BITMAP, UINT32_MAX);
    fixture_enter_guest(f);
    RUN(f, 0xCD, 0x0D); // INT 13
    ck_assert(f->cpu.non_root);
    ck_assert_uint_eq(f->cpu.regs[REG_RIP], AT_HANDLERS + 16 * 13);
}
END_TEST

START_TEST(int1_exits_as_a_privileged_software_exception)
{
    fixture_put(f, VMCS_EXCEPTION_BITMAP, BIT(VECTOR_DB));
    fixture_enter_guest(f);
    RUN(f, 0xF1);
    fixture_expect_exit(f, EXIT_EXCEPTION_OR_NMI);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INTERRUPTION_INFO), INFO(5, VECTOR_DB));
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INSTRUCTION_LENGTH), 1);
}
END_TEST

// IRETQ to a null code segment.
static void fault_in_iret(void)
{
    for (unsigned i = 0; i < 5; i++)
        fixture_write(f, AT_OPERAND + 8 * i, 0, 8);
    f->cpu.regs[REG_RSP] = AT_OPERAND;
    RUN(f, 0x48, 0xCF);
    fixture_expect_exit(f, EXIT_EXCEPTION_OR_NMI);
}

START_TEST(a_fault_in_iret_reports_that_nmis_were_unblocked)
{
    fixture_put(f, VMCS_EXCEPTION_BITMAP, BIT(VECTOR_GP));
    fixture_put(f, VMCS_GUEST_INTERRUPTIBILITY_STATE, BLOCKING_NMI);
    fixture_enter_guest(f);
    ck_assert(f->cpu.interruptibility & BLOCKING_NMI);
    fault_in_iret();
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INTERRUPTION_INFO), INFO(3, VECTOR_GP) | BIT(11) | BIT(12));
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_INTERRUPTIBILITY_STATE), 0);

    fixture_set(f, VMCS_PIN_BASED_CONTROLS, PIN_NMI_EXITING | PIN_VIRTUAL_NMIS);
    fixture_put(f, VMCS_GUEST_INTERRUPTIBILITY_STATE, BLOCKING_NMI);
    fixture_enter_guest(f);
    fault_in_iret();
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INTERRUPTION_INFO), INFO(3, VECTOR_GP) | BIT(11) | BIT(12));
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_INTERRUPTIBILITY_STATE), 0);

    fixture_enter_guest(f); // nothing blocked this time
    fault_in_iret();
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INTERRUPTION_INFO), INFO(3, VECTOR_GP) | BIT(11));
}
END_TEST

START_TEST(nmi_exiting_without_virtual_nmis_keeps_nmis_blocked_over_iret)
{
    fixture_set(f, VMCS_PIN_BASED_CONTROLS, PIN_NMI_EXITING);
    fixture_put(f, VMCS_EXCEPTION_BITMAP, BIT(VECTOR_GP));
    fixture_put(f, VMCS_GUEST_INTERRUPTIBILITY_STATE, BLOCKING_NMI);
    fixture_enter_guest(f);
    f->cpu.pending |= PENDING_NMI;
    fixture_write(f, AT_GUEST_CODE, 0x90, 1);
    fixture_step(f);
    ck_assert(f->cpu.non_root);
    fault_in_iret();
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_INTERRUPTIBILITY_STATE), BLOCKING_NMI);
}
END_TEST

START_TEST(wait_for_sipi)
{
    fixture_put(f, VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_WAIT_FOR_SIPI);
    ck_assert_int_eq(fixture_vmlaunch(f), EXEC_HALT);
    f->cpu.pending |= PENDING_INIT | PENDING_NMI; // both blocked
    fixture_step(f);
    ck_assert(f->cpu.non_root);
    f->cpu.sipi_vector = 0x9A;
    f->cpu.pending |= PENDING_SIPI;
    fixture_step(f);
    fixture_expect_exit(f, EXIT_STARTUP_IPI);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_QUALIFICATION), 0x9A);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_ACTIVITY_STATE), ACTIVITY_WAIT_FOR_SIPI);
    ck_assert(f->cpu.pending & PENDING_INIT);
}
END_TEST

START_TEST(shutdown_state_is_left_by_an_nmi_only)
{
    fixture_put(f, VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_SHUTDOWN);
    fixture_set(f, VMCS_PIN_BASED_CONTROLS, PIN_NMI_EXITING | PIN_EXTERNAL_INTERRUPT_EXITING);
    ck_assert_int_eq(fixture_vmlaunch(f), EXEC_HALT);
    f->interrupt_line = true;
    f->cpu.pending |= PENDING_INTERRUPT;
    fixture_step(f);
    ck_assert(f->cpu.non_root);
    f->cpu.pending |= PENDING_NMI;
    fixture_step(f);
    fixture_expect_exit(f, EXIT_EXCEPTION_OR_NMI);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_ACTIVITY_STATE), ACTIVITY_SHUTDOWN);
}
END_TEST

START_TEST(preemption_timer_wakes_hlt)
{
    fixture_put(f, VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_HLT);
    fixture_set(f, VMCS_PIN_BASED_CONTROLS, PIN_ACTIVATE_PREEMPTION_TIMER);
    fixture_put(f, VMCS_PREEMPTION_TIMER_VALUE, 10);
    ck_assert_int_eq(fixture_vmlaunch(f), EXEC_HALT);
    fixture_step(f);
    ck_assert(f->cpu.non_root);
    f->cpu.deadline = vmx_next_event(&f->cpu); // as the machine does: the clock goes on, then
    f->cpu.cycles_left = 0;
    f->cpu.pending |= PENDING_VMX;
    fixture_step(f);
    fixture_expect_exit(f, EXIT_PREEMPTION_TIMER);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_ACTIVITY_STATE), ACTIVITY_HLT);
}
END_TEST

START_TEST(the_activity_state_never_says_mwait)
{
    fixture_set(f, VMCS_PIN_BASED_CONTROLS, PIN_EXTERNAL_INTERRUPT_EXITING);
    fixture_enter_guest(f);
    f->cpu.regs[REG_RAX] = AT_OPERAND;
    f->cpu.regs[REG_RCX] = 0;
    RUN(f, 0x0F, 0x01, 0xC8); // MONITOR
    ck_assert_int_eq(RUN(f, 0x0F, 0x01, 0xC9), EXEC_HALT);
    f->interrupt_line = true;
    f->cpu.pending |= PENDING_INTERRUPT;
    fixture_step(f);
    fixture_expect_exit(f, EXIT_EXTERNAL_INTERRUPT);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_ACTIVITY_STATE), ACTIVITY_ACTIVE);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RIP), AT_GUEST_CODE + 6);
}
END_TEST

// The host's MWAIT with ECX bit 0 must not make a guest's HLT end on a masked interrupt.
START_TEST(entry_into_hlt_forgets_the_hosts_mwait)
{
    f->cpu.mwait_unmasked = true;
    fixture_put(f, VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_HLT);
    ck_assert_int_eq(fixture_vmlaunch(f), EXEC_HALT);
    f->interrupt_line = true;
    f->cpu.pending |= PENDING_INTERRUPT;
    fixture_step(f);
    ck_assert(f->cpu.non_root);
    ck_assert_int_eq(f->cpu.activity, ACTIVITY_HLT);
}
END_TEST

START_TEST(the_preemption_timer_goes_on_when_the_guest_writes_its_tsc)
{
    fixture_set(f, VMCS_PIN_BASED_CONTROLS, PIN_ACTIVATE_PREEMPTION_TIMER);
    fixture_set(f, VMCS_PRIMARY_EXIT_CONTROLS, EXIT_SAVE_PREEMPTION_TIMER);
    fixture_put(f, VMCS_PREEMPTION_TIMER_VALUE, 1000000);
    fixture_enter_guest(f);
    ck_assert(cpu_wrmsr(&f->cpu, 0x10, (uint64_t)1 << 40));
    RUN(f, 0x0F, 0xA2);
    fixture_expect_exit(f, EXIT_CPUID);
    ck_assert_uint_le(fixture_get(f, VMCS_PREEMPTION_TIMER_VALUE), 1000000);
    ck_assert_uint_ge(fixture_get(f, VMCS_PREEMPTION_TIMER_VALUE), 999000);
}
END_TEST

// SDM 3C 28.3.3: RF is as delivery would push it, 1 between two iterations; not so for exits that are no events.
START_TEST(an_interrupt_between_iterations_saves_rf)
{
    fixture_set(f, VMCS_PIN_BASED_CONTROLS, PIN_EXTERNAL_INTERRUPT_EXITING);
    fixture_enter_guest(f);
    f->cpu.regs[REG_RCX] = 4;
    f->cpu.regs[REG_RDI] = AT_OPERAND;
    RUN(f, 0xF3, 0xAA); // REP STOSB: one iteration a step
    ck_assert_uint_eq(f->cpu.regs[REG_RIP], AT_GUEST_CODE);
    f->interrupt_line = true;
    f->cpu.pending |= PENDING_INTERRUPT;
    fixture_step(f);
    fixture_expect_exit(f, EXIT_EXTERNAL_INTERRUPT);
    ck_assert(fixture_get(f, VMCS_GUEST_RFLAGS) & RFLAGS_RF);

    fixture_put(f, VMCS_GUEST_RFLAGS, RFLAGS_ONE);
    fixture_set(f, VMCS_PRIMARY_PROC_BASED_CONTROLS, PRIMARY_MONITOR_TRAP_FLAG);
    f->interrupt_line = false;
    f->cpu.pending &= ~(uint32_t)PENDING_INTERRUPT;
    fixture_enter_guest(f);
    fixture_step(f);
    fixture_step(f);
    fixture_expect_exit(f, EXIT_MONITOR_TRAP_FLAG);
    ck_assert(!(fixture_get(f, VMCS_GUEST_RFLAGS) & RFLAGS_RF));
}
END_TEST

// A 32-bit guest without paging: flat segments.
static void prepare_protected_mode(void)
{
    fixture_enable_ept(f);
    fixture_enable_secondary(f, SECONDARY_UNRESTRICTED_GUEST);
    fixture_clear(f, VMCS_ENTRY_CONTROLS, ENTRY_IA32E_MODE_GUEST);
    fixture_put(f, VMCS_GUEST_CR0, CR0_PE | CR0_NE | CR0_ET);
    fixture_put(f, VMCS_GUEST_CR4, CR4_VMXE | CR4_PAE);
    fixture_put(f, VMCS_GUEST_CS_ACCESS_RIGHTS, 0xC09B);
    fixture_set(f, VMCS_ENTRY_CONTROLS, ENTRY_LOAD_IA32_EFER); // with 0: LME would survive, as paging is off
}

START_TEST(task_switches_exit)
{
    prepare_protected_mode();
    fixture_put(f, VMCS_GUEST_GDTR_LIMIT, 0x47);
    fixture_write(f, AT_GDT + 0x40, 0x0000890000000067 | ((uint64_t)AT_OPERAND << 16), 8);
    fixture_enter_guest(f);
    RUN(f, 0xEA, 0, 0, 0, 0, 0x40, 0); // JMP 40H:0
    fixture_expect_exit(f, EXIT_TASK_SWITCH);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_QUALIFICATION), 0x40 | (2u << 30));
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INSTRUCTION_LENGTH), 7);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RIP), AT_GUEST_CODE);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_TR_SELECTOR), SELECTOR_TSS);
}
END_TEST

START_TEST(ept_violation_of_a_pdpte_load_has_no_linear_address)
{
    prepare_protected_mode();
    fixture_write(f, AT_EPT + 0x2000 + 8 * 4, 0, 8);
    fixture_put(f, VMCS_GUEST_LINEAR_ADDRESS, 0x5555);
    fixture_clear(f, VMCS_PRIMARY_PROC_BASED_CONTROLS, PRIMARY_CR3_LOAD_EXITING);
    fixture_enter_guest(f);
    ck_assert_uint_eq(f->cpu.efer, 0);
    f->cpu.regs[REG_RAX] = 0x800020;
    RUN(f, 0x0F, 0x22, 0xD8); // MOV CR3, EAX: no load while paging is off
    ck_assert(f->cpu.non_root);
    f->cpu.regs[REG_RAX] = f->cpu.cr0 | CR0_PG;
    RUN(f, 0x0F, 0x22, 0xC0);
    fixture_expect_exit(f, EXIT_EPT_VIOLATION);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_QUALIFICATION), 1);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_PHYSICAL_ADDRESS), 0x800020);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_LINEAR_ADDRESS), 0x5555);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_CR0) & CR0_PG, 0);
}
END_TEST

START_TEST(interrupts_wait_for_the_instruction_after_sti)
{
    fixture_set(f, VMCS_PIN_BASED_CONTROLS, PIN_EXTERNAL_INTERRUPT_EXITING);
    fixture_put(f, VMCS_GUEST_RFLAGS, RFLAGS_ONE | RFLAGS_IF);
    fixture_put(f, VMCS_GUEST_INTERRUPTIBILITY_STATE, BLOCKING_STI);
    f->interrupt_line = true;
    f->cpu.pending |= PENDING_INTERRUPT;
    fixture_enter_guest(f);
    fixture_write(f, AT_GUEST_CODE, 0x9090, 2);
    fixture_step(f);
    ck_assert(f->cpu.non_root);
    fixture_step(f);
    fixture_expect_exit(f, EXIT_EXTERNAL_INTERRUPT);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RIP), AT_GUEST_CODE + 1);
}
END_TEST

START_TEST(a_vmcs_overwritten_under_its_guest_is_abort_3)
{
    fixture_enter_guest(f);
    fixture_put(f, VMCS_HOST_CR0, 0);
    ck_assert_int_eq(RUN(f, 0x0F, 0xA2), EXEC_STOP);
    ck_assert_uint_eq(f->vmx.abort, 3);
}
END_TEST

START_TEST(leaving_ia32e_mode_for_a_32_bit_host_is_abort_6)
{
    fixture_enter_guest(f);
    f->vmx.exit_controls &= ~(uint32_t)EXIT_HOST_ADDRESS_SPACE_SIZE; // a guest that entered IA-32e mode itself
    ck_assert_int_eq(RUN(f, 0x0F, 0xA2), EXEC_STOP);
    ck_assert_uint_eq(f->vmx.abort, 6);
}
END_TEST

START_TEST(overwritten_addresses_cannot_lead_out_of_memory)
{
    fixture_put(f, VMCS_EXIT_MSR_STORE_ADDR, FIXTURE_MEMORY - 16);
    fixture_put(f, VMCS_EXIT_MSR_STORE_COUNT, 1);
    fixture_write(f, FIXTURE_MEMORY - 16, 0xC0000102, 8);
    fixture_enter_guest(f);
    fixture_put(f, VMCS_EXIT_MSR_STORE_ADDR, FIXTURE_MEMORY - 4);
    RUN(f, 0x0F, 0xA2);
    fixture_expect_exit(f, EXIT_CPUID);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vmx events");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_single_step_trap_follows_a_vmx_instruction_that_fails);
    tcase_add_test(tc, no_single_step_trap_follows_a_vm_entry);
    tcase_add_test(tc, single_step_in_the_guest_exits_with_bs_and_leaves_dr6);
    tcase_add_test(tc, mtf_comes_before_the_trap_which_stays_pending);
    tcase_add_test(tc, mtf_after_an_injection_exits_at_the_handler);
    tcase_add_test(tc, a_debug_trap_precedes_the_preemption_timer);
    tcase_add_test(tc, rf_of_the_guest_suppresses_one_instruction_breakpoint);
    tcase_add_test(tc, virtual_nmi_blocking_is_saved);
    tcase_add_test(tc, software_interrupts_do_not_exit);
    tcase_add_test(tc, int1_exits_as_a_privileged_software_exception);
    tcase_add_test(tc, a_fault_in_iret_reports_that_nmis_were_unblocked);
    tcase_add_test(tc, nmi_exiting_without_virtual_nmis_keeps_nmis_blocked_over_iret);
    tcase_add_test(tc, wait_for_sipi);
    tcase_add_test(tc, shutdown_state_is_left_by_an_nmi_only);
    tcase_add_test(tc, preemption_timer_wakes_hlt);
    tcase_add_test(tc, an_interrupt_between_iterations_saves_rf);
    tcase_add_test(tc, the_activity_state_never_says_mwait);
    tcase_add_test(tc, entry_into_hlt_forgets_the_hosts_mwait);
    tcase_add_test(tc, the_preemption_timer_goes_on_when_the_guest_writes_its_tsc);
    tcase_add_test(tc, task_switches_exit);
    tcase_add_test(tc, ept_violation_of_a_pdpte_load_has_no_linear_address);
    tcase_add_test(tc, interrupts_wait_for_the_instruction_after_sti);
    tcase_add_test(tc, a_vmcs_overwritten_under_its_guest_is_abort_3);
    tcase_add_test(tc, leaving_ia32e_mode_for_a_32_bit_host_is_abort_6);
    tcase_add_test(tc, overwritten_addresses_cannot_lead_out_of_memory);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
