// VM entries: order of the checks, guest state, MSR list, launch state, injection. SDM 3C ch. 27.
#include <stdlib.h>

#include "vmx_fixture.h"

#define ENTRY_FAILURE        0x80000000u
#define INJECT(type, vector) (0x80000000u | ((type) << 8) | (vector))

static struct fixture *f;

static void setup(void)
{
    f = fixture_create();
    fixture_prepare_guest(f);
}

static void teardown(void) { fixture_destroy(f); }

static void expect_entry_failure(enum vmx_exit_reason reason, uint64_t qualification)
{
    ck_assert(!f->cpu.non_root);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_REASON), ENTRY_FAILURE | reason);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_QUALIFICATION), qualification);
    ck_assert_uint_eq(f->cpu.regs[REG_RIP], AT_HOST_RIP);
    ck_assert_uint_eq(vmcs_region_at(&f->memory, AT_VMCS)->launch_state, LAUNCH_STATE_CLEAR);
}

START_TEST(vmlaunch_loads_guest_state)
{
    fixture_put(f, VMCS_GUEST_RFLAGS, RFLAGS_ONE | RFLAGS_CF | RFLAGS_ZF | RFLAGS_IF);
    fixture_put(f, VMCS_GUEST_FS_BASE, 0x123456789AB0);
    fixture_put(f, VMCS_GUEST_IA32_SYSENTER_EIP, 0xFFFF800000001000);
    f->cpu.regs[REG_RDX] = 77;
    ck_assert_int_eq(fixture_vmlaunch(f), EXEC_DONE);
    ck_assert(f->cpu.non_root);
    ck_assert_uint_eq(f->cpu.regs[REG_RIP], AT_GUEST_CODE);
    ck_assert_uint_eq(f->cpu.regs[REG_RSP], AT_GUEST_STACK);
    ck_assert_uint_eq(f->cpu.regs[REG_RDX], 77);
    ck_assert_uint_eq(cpu_rflags(&f->cpu), RFLAGS_ONE | RFLAGS_CF | RFLAGS_ZF | RFLAGS_IF);
    ck_assert_uint_eq(f->cpu.segments[SEG_FS].base, 0x123456789AB0);
    ck_assert_uint_eq(f->cpu.sysenter_eip, 0xFFFF800000001000);
    ck_assert_uint_eq(vmcs_region_at(&f->memory, AT_VMCS)->launch_state, LAUNCH_STATE_LAUNCHED);
    ck_assert_uint_eq(f->vmx.entries, 1);
}
END_TEST

START_TEST(launch_state_decides_which_instruction_enters)
{
    fixture_vmresume(f);
    ck_assert_uint_eq(fixture_get(f, VMCS_VM_INSTRUCTION_ERROR), 5);
    fixture_enter_guest(f);
    RUN(f, 0x0F, 0xA2);
    fixture_expect_exit(f, EXIT_CPUID);
    fixture_vmlaunch(f);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_FAIL_VALID);
    ck_assert_uint_eq(fixture_get(f, VMCS_VM_INSTRUCTION_ERROR), 4);
    fixture_vmresume(f);
    ck_assert(f->cpu.non_root);
}
END_TEST

START_TEST(mov_ss_blocking_fails_with_26_before_all_checks)
{
    f->cpu.interruptibility = BLOCKING_MOV_SS;
    f->cpu.pending |= PENDING_INHIBIT;
    fixture_put(f, VMCS_HOST_CR0, 0);
    fixture_vmresume(f);
    ck_assert_uint_eq(fixture_get(f, VMCS_VM_INSTRUCTION_ERROR), 26);
}
END_TEST

START_TEST(control_errors_precede_guest_errors)
{
    fixture_put(f, VMCS_GUEST_RFLAGS, 0);
    fixture_put(f, VMCS_PIN_BASED_CONTROLS, 0);
    fixture_vmlaunch(f);
    ck_assert_uint_eq(fixture_get(f, VMCS_VM_INSTRUCTION_ERROR), 7);
    ck_assert_int_ge(f->vmx.last_failure.check_id, 0);
    fixture_put(f, VMCS_PIN_BASED_CONTROLS, f->caps.pin.must);
    fixture_put(f, VMCS_HOST_RIP, (uint64_t)1 << 50);
    fixture_vmlaunch(f);
    ck_assert_uint_eq(fixture_get(f, VMCS_VM_INSTRUCTION_ERROR), 8);
    ck_assert_int_eq(fixture_outcome(f), OUTCOME_FAIL_VALID);
}
END_TEST

START_TEST(invalid_guest_state_loads_host_state)
{
    fixture_put(f, VMCS_GUEST_RFLAGS, 0);
    fixture_put(f, VMCS_ENTRY_INTERRUPTION_INFO, INJECT(3, 6));
    fixture_vmlaunch(f);
    expect_entry_failure(EXIT_ENTRY_FAIL_GUEST_STATE, 0);
    ck_assert_int_ge(f->vmx.last_failure.check_id, 0);
    ck_assert_uint_eq(fixture_get(f, VMCS_ENTRY_INTERRUPTION_INFO),
                      INJECT(3, 6)); // only a VM exit clears the valid bit
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RFLAGS), 0);
    ck_assert_uint_eq(f->vmx.entry_failures, 1);
}
END_TEST

START_TEST(bad_link_pointer_has_qualification_4)
{
    fixture_put(f, VMCS_VMCS_LINK_POINTER, AT_VMCS + 1);
    fixture_vmlaunch(f);
    expect_entry_failure(EXIT_ENTRY_FAIL_GUEST_STATE, 4);
}
END_TEST

START_TEST(msr_load_list)
{
    fixture_put(f, VMCS_ENTRY_MSR_LOAD_ADDR, AT_MSR_LIST);
    fixture_put(f, VMCS_ENTRY_MSR_LOAD_COUNT, 2);
    fixture_write(f, AT_MSR_LIST, 0xC0000102, 8); // KERNEL_GS_BASE
    fixture_write(f, AT_MSR_LIST + 8, 0x12345000, 8);
    fixture_write(f, AT_MSR_LIST + 16, 0xC0000100, 8); // FS_BASE may not be in the list
    fixture_write(f, AT_MSR_LIST + 24, 0, 8);
    fixture_vmlaunch(f);
    expect_entry_failure(EXIT_ENTRY_FAIL_MSR_LOAD, 2);
    ck_assert_uint_eq(f->cpu.kernel_gs_base, 0x12345000);
    fixture_write(f, AT_MSR_LIST + 16, ((uint64_t)1 << 32) | 0xC0000102, 8); // reserved bits
    fixture_vmlaunch(f);
    expect_entry_failure(EXIT_ENTRY_FAIL_MSR_LOAD, 2);
    fixture_write(f, AT_MSR_LIST + 16, 0x808, 8); // x2APIC
    fixture_vmlaunch(f);
    expect_entry_failure(EXIT_ENTRY_FAIL_MSR_LOAD, 2);
    fixture_put(f, VMCS_ENTRY_MSR_LOAD_COUNT, 1);
    fixture_enter_guest(f);
}
END_TEST

START_TEST(efer_follows_the_control)
{
    f->cpu.efer |= EFER_SCE;
    fixture_enter_guest(f);
    ck_assert_uint_eq(f->cpu.efer, EFER_SCE | EFER_LME | EFER_LMA);
    RUN(f, 0x0F, 0xA2);
    fixture_set(f, VMCS_ENTRY_CONTROLS, ENTRY_LOAD_IA32_EFER);
    fixture_put(f, VMCS_GUEST_IA32_EFER, EFER_LME | EFER_LMA | EFER_NXE);
    fixture_enter_guest(f);
    ck_assert_uint_eq(f->cpu.efer, EFER_LME | EFER_LMA | EFER_NXE);
}
END_TEST

START_TEST(unusable_segments_and_cpl)
{
    fixture_put(f, VMCS_GUEST_DS_ACCESS_RIGHTS, SEGMENT_UNUSABLE);
    fixture_put(f, VMCS_GUEST_CS_ACCESS_RIGHTS, 0xA0FB);
    fixture_put(f, VMCS_GUEST_CS_SELECTOR, SELECTOR_USER_CODE);
    fixture_put(f, VMCS_GUEST_SS_ACCESS_RIGHTS, 0xC0F3);
    fixture_put(f, VMCS_GUEST_SS_SELECTOR, SELECTOR_USER_DATA);
    fixture_enter_guest(f);
    ck_assert_uint_eq(f->cpu.cpl, 3);
    ck_assert(f->cpu.segments[SEG_DS].access_rights & SEGMENT_UNUSABLE);
}
END_TEST

// Guest state of an unrestricted guest in real-address mode.
static void prepare_real_mode(void)
{
    fixture_enable_ept(f);
    fixture_enable_secondary(f, SECONDARY_UNRESTRICTED_GUEST);
    fixture_clear(f, VMCS_ENTRY_CONTROLS, ENTRY_IA32E_MODE_GUEST);
    fixture_put(f, VMCS_GUEST_CR0, CR0_NE | CR0_ET);
    fixture_put(f, VMCS_GUEST_CR4, CR4_VMXE);
    for (unsigned i = 0; i < 6; i++) {
        fixture_put(f, (enum vmcs_field)(VMCS_GUEST_ES_SELECTOR + i), AT_GUEST_CODE >> 4);
        fixture_put(f, (enum vmcs_field)(VMCS_GUEST_ES_BASE + i), AT_GUEST_CODE);
        fixture_put(f, (enum vmcs_field)(VMCS_GUEST_ES_LIMIT + i), 0xFFFF);
        fixture_put(f, (enum vmcs_field)(VMCS_GUEST_ES_ACCESS_RIGHTS + i), i == 1 ? 0x9B : 0x93);
    }
    fixture_put(f, VMCS_GUEST_RIP, 0);
}

START_TEST(unrestricted_guest_runs_in_real_mode)
{
    prepare_real_mode();
    fixture_enter_guest(f);
    ck_assert_uint_eq(f->cpu.efer & (EFER_LMA | EFER_LME), EFER_LME); // LME is left alone while CR0.PG = 0
    ck_assert_uint_eq(f->cpu.mode & MODE_CODE_MASK, MODE_CODE16);
    memory_write(&f->memory, AT_GUEST_CODE, (const uint8_t[]){0xB8, 0x34, 0x12, 0x0F, 0xA2}, 5); // MOV AX, 1234H; CPUID
    fixture_step(f);
    ck_assert_uint_eq(f->cpu.regs[REG_RAX] & 0xFFFF, 0x1234);
    fixture_step(f);
    fixture_expect_exit(f, EXIT_CPUID);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RIP), 3);
    ck_assert(cpu_64bit(&f->cpu));
    ck_assert_uint_eq(fixture_get(f, VMCS_ENTRY_CONTROLS) & ENTRY_IA32E_MODE_GUEST, 0);
}
END_TEST

// SDM 3C 28.2.2, 28.2.4: "error code valid" is 0 with CR0.PE = 0, so that the event can be injected as it was reported.
START_TEST(exceptions_of_real_mode_have_no_error_code)
{
    prepare_real_mode();
    fixture_put(f, VMCS_EXCEPTION_BITMAP, BIT(VECTOR_GP));
    fixture_put(f, VMCS_GUEST_DS_LIMIT, 0xFFFF);
    fixture_enter_guest(f);
    memory_write(&f->memory, AT_GUEST_CODE, (const uint8_t[]){0xA1, 0xFF, 0xFF}, 3); // MOV AX, [FFFFH]
    fixture_step(f);
    fixture_expect_exit(f, EXIT_EXCEPTION_OR_NMI);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INTERRUPTION_INFO), 0x8000030D);
}
END_TEST

START_TEST(pdptes_of_a_pae_guest_come_from_the_fields_with_ept)
{
    prepare_real_mode();
    fixture_put(f, VMCS_GUEST_CR0, CR0_PE | CR0_PG | CR0_NE | CR0_ET);
    fixture_put(f, VMCS_GUEST_CR4, CR4_VMXE | CR4_PAE);
    fixture_put(f, VMCS_GUEST_PDPTE0, (AT_PAGE_TABLES + 0x2000) | 1);
    fixture_put(f, VMCS_GUEST_PDPTE1, 1 | BIT(1)); // reserved
    fixture_vmlaunch(f);
    expect_entry_failure(EXIT_ENTRY_FAIL_GUEST_STATE, 2);
    fixture_put(f, VMCS_GUEST_PDPTE1, 0);
    fixture_enter_guest(f);
    ck_assert_uint_eq(f->cpu.mmu.pdpte[0], (AT_PAGE_TABLES + 0x2000) | 1);
    f->cpu.regs[REG_RIP] = 0;
    memory_write(&f->memory, AT_GUEST_CODE, (const uint8_t[]){0x0F, 0xA2}, 2);
    fixture_step(f);
    fixture_expect_exit(f, EXIT_CPUID);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_PDPTE0), (AT_PAGE_TABLES + 0x2000) | 1);
}
END_TEST

// --- Injection

START_TEST(injected_exception_reaches_the_handler)
{
    fixture_put(f, VMCS_ENTRY_INTERRUPTION_INFO, INJECT(3, 13) | 0x800);
    fixture_put(f, VMCS_ENTRY_EXCEPTION_ERROR_CODE, 0x18);
    fixture_put(f, VMCS_EXCEPTION_BITMAP, 0xFFFFFFFF); // not asked about the event itself
    fixture_enter_guest(f);
    ck_assert_uint_eq(f->cpu.regs[REG_RIP], AT_HANDLERS + 16 * 13);
    ck_assert_uint_eq(fixture_read(f, f->cpu.regs[REG_RSP], 8), 0x18);
    ck_assert_uint_eq(fixture_read(f, f->cpu.regs[REG_RSP] + 8, 8), AT_GUEST_CODE);
}
END_TEST

START_TEST(injected_software_interrupt_returns_after_the_instruction)
{
    fixture_put(f, VMCS_ENTRY_INTERRUPTION_INFO, INJECT(4, 0x80));
    fixture_put(f, VMCS_ENTRY_INSTRUCTION_LENGTH, 2);
    fixture_enter_guest(f);
    ck_assert_uint_eq(f->cpu.regs[REG_RIP], AT_HANDLERS + 16 * 0x80);
    ck_assert_uint_eq(fixture_read(f, f->cpu.regs[REG_RSP], 8), AT_GUEST_CODE + 2);
}
END_TEST

START_TEST(a_fault_during_injection_exits_with_idt_vectoring)
{
    fixture_put(f, VMCS_GUEST_IDTR_LIMIT, 0xFF); // vectors 0 to 15 only
    fixture_put(f, VMCS_GUEST_RFLAGS, RFLAGS_ONE | RFLAGS_IF);
    fixture_put(f, VMCS_ENTRY_INTERRUPTION_INFO, INJECT(0, 0x40));
    fixture_put(f, VMCS_EXCEPTION_BITMAP, BIT(VECTOR_GP));
    fixture_vmlaunch(f);
    fixture_expect_exit(f, EXIT_EXCEPTION_OR_NMI);
    ck_assert_uint_eq(fixture_get(f, VMCS_IDT_VECTORING_INFO), INJECT(0, 0x40));
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INTERRUPTION_INFO), INJECT(3, 13) | 0x800);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INTERRUPTION_ERROR_CODE), 0x40 * 8 + 2 + 1);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RIP), AT_GUEST_CODE);
    ck_assert_uint_eq(fixture_get(f, VMCS_ENTRY_INTERRUPTION_INFO) >> 31, 0);
    ck_assert_uint_eq(vmcs_region_at(&f->memory, AT_VMCS)->launch_state, LAUNCH_STATE_LAUNCHED);
}
END_TEST

START_TEST(injected_nmi_blocks_nmis)
{
    fixture_put(f, VMCS_ENTRY_INTERRUPTION_INFO, INJECT(2, 2));
    fixture_enter_guest(f);
    ck_assert(f->cpu.interruptibility & BLOCKING_NMI);
    RUN(f, 0x0F, 0xA2);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_INTERRUPTIBILITY_STATE), BLOCKING_NMI);
    ck_assert(f->cpu.interruptibility & BLOCKING_NMI); // no other exit than that of an NMI changes it
}
END_TEST

START_TEST(virtual_nmi_blocking_is_apart_from_the_processors)
{
    fixture_set(f, VMCS_PIN_BASED_CONTROLS, PIN_NMI_EXITING | PIN_VIRTUAL_NMIS);
    fixture_put(f, VMCS_ENTRY_INTERRUPTION_INFO, INJECT(2, 2));
    fixture_enter_guest(f);
    ck_assert(!(f->cpu.interruptibility & BLOCKING_NMI));
    ck_assert(f->vmx.virtual_nmi_blocking);
    RUN(f, 0x48, 0xCF); // IRETQ
    ck_assert_uint_eq(f->cpu.regs[REG_RIP], AT_GUEST_CODE);
    ck_assert(!f->vmx.virtual_nmi_blocking);
    f->cpu.pending |= PENDING_NMI;
    fixture_step(f);
    fixture_expect_exit(f, EXIT_EXCEPTION_OR_NMI);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INTERRUPTION_INFO), INJECT(2, 2));
    ck_assert(f->cpu.interruptibility & BLOCKING_NMI);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_INTERRUPTIBILITY_STATE), 0);
}
END_TEST

START_TEST(injected_mtf_exits_before_the_first_instruction)
{
    fixture_put(f, VMCS_ENTRY_INTERRUPTION_INFO, INJECT(7, 0));
    fixture_enter_guest(f);
    RUN(f, 0x0F, 0xA2);
    fixture_expect_exit(f, EXIT_MONITOR_TRAP_FLAG);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RIP), AT_GUEST_CODE);
}
END_TEST

START_TEST(monitor_trap_flag_exits_after_one_instruction)
{
    fixture_set(f, VMCS_PRIMARY_PROC_BASED_CONTROLS, PRIMARY_MONITOR_TRAP_FLAG);
    fixture_enter_guest(f);
    RUN(f, 0x90, 0x90);
    ck_assert(f->cpu.non_root);
    ck_assert_uint_eq(f->cpu.regs[REG_RIP], AT_GUEST_CODE + 1);
    fixture_step(f);
    fixture_expect_exit(f, EXIT_MONITOR_TRAP_FLAG);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RIP), AT_GUEST_CODE + 1);
}
END_TEST

START_TEST(monitor_trap_flag_holds_without_single_stepping_the_machine)
{
    fixture_set(f, VMCS_PRIMARY_PROC_BASED_CONTROLS, PRIMARY_MONITOR_TRAP_FLAG);
    fixture_write(f, AT_GUEST_CODE, 0x9090909090909090, 8);
    fixture_write(f, AT_HOST_RIP, 0xF4, 1); // HLT
    fixture_enter_guest(f);
    ck_assert_int_eq(cpu_run(&f->cpu, cpu_now(&f->cpu) + 100000, false), EXEC_HALT);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_REASON), EXIT_MONITOR_TRAP_FLAG);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RIP), AT_GUEST_CODE + 1);
    ck_assert_uint_eq(f->vmx.exits[EXIT_MONITOR_TRAP_FLAG], 1);
}
END_TEST

START_TEST(entry_into_hlt_state_waits_for_an_event)
{
    fixture_put(f, VMCS_GUEST_ACTIVITY_STATE, ACTIVITY_HLT);
    fixture_set(f, VMCS_PIN_BASED_CONTROLS, PIN_EXTERNAL_INTERRUPT_EXITING);
    fixture_set(f, VMCS_PRIMARY_EXIT_CONTROLS, EXIT_ACK_INTERRUPT_ON_EXIT);
    ck_assert_int_eq(fixture_vmlaunch(f), EXEC_HALT);
    ck_assert(f->cpu.non_root);
    ck_assert_int_eq(fixture_step(f), EXEC_HALT);
    f->acknowledged = 0x51;
    f->interrupt_line = true;
    f->cpu.pending |= PENDING_INTERRUPT;
    fixture_step(f);
    fixture_expect_exit(f, EXIT_EXTERNAL_INTERRUPT);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_INTERRUPTION_INFO), INJECT(0, 0x51));
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_ACTIVITY_STATE), ACTIVITY_HLT);
    ck_assert_int_eq(f->cpu.activity, ACTIVITY_ACTIVE);
}
END_TEST

START_TEST(pending_debug_exception_is_delivered_at_the_first_boundary)
{
    fixture_put(f, VMCS_GUEST_RFLAGS, RFLAGS_ONE | RFLAGS_TF);
    fixture_put(f, VMCS_GUEST_PENDING_DEBUG_EXCEPTIONS, BIT(14));
    fixture_put(f, VMCS_EXCEPTION_BITMAP, BIT(VECTOR_DB));
    fixture_enter_guest(f);
    RUN(f, 0x90);
    fixture_expect_exit(f, EXIT_EXCEPTION_OR_NMI);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RIP), AT_GUEST_CODE);
    ck_assert_uint_eq(fixture_get(f, VMCS_EXIT_QUALIFICATION), BIT(14));
}
END_TEST

START_TEST(preemption_timer)
{
    fixture_set(f, VMCS_PIN_BASED_CONTROLS, PIN_ACTIVATE_PREEMPTION_TIMER);
    fixture_set(f, VMCS_PRIMARY_EXIT_CONTROLS, EXIT_SAVE_PREEMPTION_TIMER);
    fixture_put(f, VMCS_PREEMPTION_TIMER_VALUE, 0);
    fixture_enter_guest(f);
    RUN(f, 0x90);
    fixture_expect_exit(f, EXIT_PREEMPTION_TIMER);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RIP), AT_GUEST_CODE);

    fixture_put(f, VMCS_PREEMPTION_TIMER_VALUE, 1000000);
    fixture_enter_guest(f);
    unsigned shift = f->caps.misc & 0x1F;
    cycle_t deadline = vmx_next_event(&f->cpu);
    ck_assert_uint_ge(deadline, cpu_now(&f->cpu) + (999999ull << shift));
    ck_assert_uint_le(deadline, cpu_now(&f->cpu) + (1000000ull << shift));
    RUN(f, 0x0F, 0xA2);
    fixture_expect_exit(f, EXIT_CPUID);
    ck_assert_uint_le(fixture_get(f, VMCS_PREEMPTION_TIMER_VALUE), 1000000);
    ck_assert_uint_ge(fixture_get(f, VMCS_PREEMPTION_TIMER_VALUE), 990000);
    ck_assert_uint_eq(vmx_next_event(&f->cpu), UINT64_MAX);
}
END_TEST

START_TEST(interrupt_window_opens_after_sti)
{
    fixture_set(f, VMCS_PRIMARY_PROC_BASED_CONTROLS, PRIMARY_INTERRUPT_WINDOW_EXITING);
    fixture_enter_guest(f);
    RUN(f, 0xFB, 0x90, 0x90); // STI; NOP; NOP
    ck_assert(f->cpu.non_root);
    fixture_step(f);
    ck_assert(f->cpu.non_root); // blocking by STI
    fixture_step(f);
    fixture_expect_exit(f, EXIT_INTERRUPT_WINDOW);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_RIP), AT_GUEST_CODE + 2);
    ck_assert_uint_eq(fixture_get(f, VMCS_GUEST_INTERRUPTIBILITY_STATE), 0);
}
END_TEST

START_TEST(nmi_window_exits_at_once)
{
    fixture_set(f, VMCS_PIN_BASED_CONTROLS, PIN_NMI_EXITING | PIN_VIRTUAL_NMIS);
    fixture_set(f, VMCS_PRIMARY_PROC_BASED_CONTROLS, PRIMARY_NMI_WINDOW_EXITING);
    fixture_enter_guest(f);
    RUN(f, 0x90);
    fixture_expect_exit(f, EXIT_NMI_WINDOW);
}
END_TEST

START_TEST(init_exits_and_is_blocked_in_root)
{
    f->cpu.pending |= PENDING_INIT;
    RUN(f, 0x90);
    ck_assert(f->cpu.vmx_operation);
    fixture_enter_guest(f);
    RUN(f, 0x90);
    fixture_expect_exit(f, EXIT_INIT_SIGNAL);
    ck_assert(!(f->cpu.pending & PENDING_INIT));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vm entry");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, vmlaunch_loads_guest_state);
    tcase_add_test(tc, launch_state_decides_which_instruction_enters);
    tcase_add_test(tc, mov_ss_blocking_fails_with_26_before_all_checks);
    tcase_add_test(tc, control_errors_precede_guest_errors);
    tcase_add_test(tc, invalid_guest_state_loads_host_state);
    tcase_add_test(tc, bad_link_pointer_has_qualification_4);
    tcase_add_test(tc, msr_load_list);
    tcase_add_test(tc, efer_follows_the_control);
    tcase_add_test(tc, unusable_segments_and_cpl);
    tcase_add_test(tc, unrestricted_guest_runs_in_real_mode);
    tcase_add_test(tc, exceptions_of_real_mode_have_no_error_code);
    tcase_add_test(tc, pdptes_of_a_pae_guest_come_from_the_fields_with_ept);
    tcase_add_test(tc, injected_exception_reaches_the_handler);
    tcase_add_test(tc, injected_software_interrupt_returns_after_the_instruction);
    tcase_add_test(tc, a_fault_during_injection_exits_with_idt_vectoring);
    tcase_add_test(tc, injected_nmi_blocks_nmis);
    tcase_add_test(tc, virtual_nmi_blocking_is_apart_from_the_processors);
    tcase_add_test(tc, injected_mtf_exits_before_the_first_instruction);
    tcase_add_test(tc, monitor_trap_flag_exits_after_one_instruction);
    tcase_add_test(tc, monitor_trap_flag_holds_without_single_stepping_the_machine);
    tcase_add_test(tc, entry_into_hlt_state_waits_for_an_event);
    tcase_add_test(tc, pending_debug_exception_is_delivered_at_the_first_boundary);
    tcase_add_test(tc, preemption_timer);
    tcase_add_test(tc, interrupt_window_opens_after_sti);
    tcase_add_test(tc, nmi_window_exits_at_once);
    tcase_add_test(tc, init_exits_and_is_blocked_in_root);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
