// Delivery of exceptions and interrupts in every mode.
#include "cpu_fixture.h"

START_TEST(real_mode_pushes_three_words)
{
    enter_real();
    cpu_set_rflags(cpu, RFLAGS_IF | RFLAGS_TF | RFLAGS_CF);
    cpu_set_rflags(cpu, RFLAGS_IF | RFLAGS_CF);
    code(0xCD, 0x21); // int 21h
    step();
    ck_handler(0x21);
    ck_hex(cpu->regs[REG_RSP], 0x1000 - 6);
    ck_hex(get16(STACK3 + 0x1000 - 2), RFLAGS_IF | RFLAGS_CF | 2);
    ck_hex(get16(STACK3 + 0x1000 - 4), CODE >> 4);
    ck_hex(get16(STACK3 + 0x1000 - 6), 2);
    ck_hex(cpu_rflags(cpu), RFLAGS_CF | 2);
}
END_TEST

START_TEST(real_mode_vector_beyond_limit_is_fatal_in_the_end)
{
    enter_real();
    cpu->idtr.limit = 3;
    code(0xCD, 0x21);
    ck_assert_int_eq(step(), EXEC_HALT);
    ck_assert_int_eq(cpu->activity, ACTIVITY_SHUTDOWN);
}
END_TEST

START_TEST(same_level_pushes_flags_cs_eip)
{
    enter_protected(0);
    code(0xCC); // int3
    step();
    ck_handler(3);
    ck_hex(cpu->regs[REG_RSP], STACK3 - 12);
    ck_hex(get32(STACK3 - 12), CODE + 1);
    ck_hex(get32(STACK3 - 8), CODE0);
    ck_hex(get32(STACK3 - 4), 2);
    ck_assert_uint_eq(cpu->exception_count[3], 1);
}
END_TEST

START_TEST(inner_level_switches_stack_and_sets_rf_for_faults)
{
    enter_protected(3);
    code(0x0F, 0x0B); // ud2
    step();
    ck_handler(6);
    ck_assert_uint_eq(cpu->cpl, 0);
    ck_hex(cpu->segments[SEG_SS].selector, DATA0);
    ck_hex(cpu->regs[REG_RSP], STACK0 - 20);
    ck_hex(get32(STACK0 - 20), CODE);
    ck_hex(get32(STACK0 - 16), CODE3);
    ck_hex(get32(STACK0 - 12), RFLAGS_RF | 2);
    ck_hex(get32(STACK0 - 8), STACK3);
    ck_hex(get32(STACK0 - 4), DATA3);
}
END_TEST

START_TEST(error_code_is_pushed_last)
{
    enter_protected(3);
    code(0xF4); // hlt at CPL 3: #GP(0)
    step();
    ck_handler(13);
    ck_hex(cpu->regs[REG_RSP], STACK0 - 24);
    ck_hex(get32(STACK0 - 24), 0);
}
END_TEST

START_TEST(software_interrupt_checks_gate_dpl)
{
    enter_protected(3);
    code(0xCD, 0x40);
    step();
    ck_handler(13);
    ck_hex(get32(STACK0 - 24), 0x40 * 8 + 2);
    ck_hex(get32(STACK0 - 20), CODE); // fault: at the instruction
}
END_TEST

START_TEST(software_interrupt_through_open_gate)
{
    enter_protected(3);
    open_gate(0x40);
    code(0xCD, 0x40);
    step();
    ck_handler(0x40);
    ck_hex(get32(STACK0 - 20), CODE + 2);
}
END_TEST

START_TEST(gate_not_present_gives_np_with_ext_for_faults)
{
    enter_protected(0);
    put64(IDT + 6 * 8, get64(IDT + 6 * 8) & ~BIT(47));
    code(0x0F, 0x0B);
    step();
    ck_handler(11);
    ck_hex(get32(STACK3 - 16), 6 * 8 + 2 + 1);
}
END_TEST

START_TEST(contributory_pair_is_double_fault)
{
    enter_protected(3);
    put64(IDT + 13 * 8, 0);
    code(0xF4);
    step();
    ck_handler(8);
    ck_hex(get32(STACK0 - 24), 0);
    ck_assert_uint_eq(cpu->exception_count[8], 1);
}
END_TEST

START_TEST(fault_during_double_fault_shuts_down)
{
    enter_protected(3);
    put64(IDT + 13 * 8, 0);
    put64(IDT + 8 * 8, 0);
    code(0xF4);
    ck_assert_int_eq(step(), EXEC_HALT);
    ck_assert_int_eq(cpu->activity, ACTIVITY_SHUTDOWN);
}
END_TEST

START_TEST(bad_inner_stack_gives_ts)
{
    enter_protected(3);
    put16(TSS + 8, DATA3);
    put64(IDT + 6 * 8, gate(CODE0, HANDLERS + 6 * 16, SYSTEM_INTERRUPT_GATE, 0));
    put64(IDT + 10 * 8, gate(TSS_B, 0, SYSTEM_TASK_GATE, 0)); // #TS needs a stack of its own
    put32(TSS2 + 0x20, HANDLERS + 10 * 16);
    put32(TSS2 + 0x24, 2);
    put32(TSS2 + 0x38, STACK1);
    put16(TSS2 + 0x48, DATA0);
    put16(TSS2 + 0x4C, CODE0);
    put16(TSS2 + 0x50, DATA0);
    put16(TSS2 + 0x54, DATA0);
    code(0x0F, 0x0B);
    step();
    ck_handler(10);
    ck_hex(get32(STACK1 - 4), (DATA3 & ~3u) | 1);
    ck_hex(get16(TSS2), TSS_A);
    ck_assert(cpu->rflags_system & RFLAGS_NT);
    ck_hex(get32(TSS + 0x20), CODE);
}
END_TEST

START_TEST(trap_gate_keeps_if)
{
    enter_protected(0);
    put64(IDT + 3 * 8, gate(CODE0, HANDLERS + 3 * 16, SYSTEM_TRAP_GATE, 0));
    cpu_set_rflags(cpu, RFLAGS_IF);
    code(0xCC);
    step();
    ck_assert(cpu->rflags_system & RFLAGS_IF);
}
END_TEST

START_TEST(sixteen_bit_gate_pushes_words)
{
    enter_protected(0);
    put64(IDT + 3 * 8, gate(CODE0, HANDLERS + 3 * 16, SYSTEM_INTERRUPT_GATE16, 0));
    code(0xCC);
    step();
    ck_handler(3);
    ck_hex(cpu->regs[REG_RSP], STACK3 - 6);
}
END_TEST

START_TEST(long_mode_same_level_aligns_and_pushes_five)
{
    enter_long(0);
    cpu->regs[REG_RSP] = STACK3 - 3;
    code(0xCC);
    step();
    ck_handler(3);
    uint64_t top = (STACK3 - 3) & ~15u;
    ck_hex(cpu->regs[REG_RSP], top - 40);
    ck_hex(get64(top - 8), DATA0);
    ck_hex(get64(top - 16), STACK3 - 3);
    ck_hex(get64(top - 40), CODE + 1);
    ck_hex(cpu->segments[SEG_SS].selector, DATA0);
}
END_TEST

START_TEST(long_mode_inner_level_nulls_ss)
{
    enter_long(3);
    code(0x0F, 0x0B);
    step();
    ck_handler(6);
    ck_hex(cpu->segments[SEG_SS].selector, 0);
    ck_assert(cpu->segments[SEG_SS].access_rights & SEGMENT_UNUSABLE);
    ck_assert_uint_eq(cpu->cpl, 0);
    ck_hex(cpu->regs[REG_RSP], STACK0 - 40);
}
END_TEST

START_TEST(long_mode_ist_is_used)
{
    enter_long(0);
    put64(IDT + 6 * 16, get64(IDT + 6 * 16) | (uint64_t)1 << 32);
    code(0x0F, 0x0B);
    step();
    ck_handler(6);
    ck_hex(cpu->regs[REG_RSP], STACK_IST - 40);
}
END_TEST

START_TEST(long_mode_page_fault_sets_cr2_and_code)
{
    enter_long(0);
    code(0xA1, 0, 0, 0, 0, 0x10, 0, 0, 0); // mov eax, [1000000000h]
    step();
    ck_handler(14);
    ck_hex(cpu->cr2, UINT64_C(0x1000000000));
    ck_hex(get64((STACK3 & ~15u) - 48), 0);
}
END_TEST

START_TEST(page_fault_during_page_fault_is_double_fault)
{
    enter_long(0);
    cpu->regs[REG_RSP] = UINT64_C(0x2000000000);
    put64(IDT + 8 * 16, get64(IDT + 8 * 16) | (uint64_t)1 << 32);
    code(0xA1, 0, 0, 0, 0, 0x10, 0, 0, 0);
    step();
    ck_handler(8);
    ck_assert(cpu->cr2 >= UINT64_C(0x2000000000) - 8 && cpu->cr2 < UINT64_C(0x2000000000)); // of the second fault
}
END_TEST

START_TEST(long_mode_needs_64_bit_handler)
{
    enter_long(0);
    put64(IDT + 3 * 16, gate(CODE0, HANDLERS, SYSTEM_INTERRUPT_GATE, 0));
    code(0xCC);
    step();
    ck_handler(13);
    ck_hex(get64((STACK3 & ~15u) - 48), CODE0); // INT3 is not external
}
END_TEST

START_TEST(long_mode_rejects_16_bit_gate_types)
{
    enter_long(0);
    put64(IDT + 3 * 16, gate(CODE64, HANDLERS, SYSTEM_INTERRUPT_GATE16, 0));
    code(0xCC);
    step();
    ck_handler(13);
}
END_TEST

START_TEST(v8086_interrupt_saves_segments)
{
    enter_v8086();
    open_gate(0x21);
    code(0xCD, 0x21);
    step();
    ck_handler(0x21);
    ck_assert(!cpu_v8086(cpu));
    ck_hex(cpu->regs[REG_RSP], STACK0 - 36);
    ck_hex(get32(STACK0 - 4), DATA >> 4); // GS
    ck_hex(get32(STACK0 - 20), (STACK3 - 0x1000) >> 4);
    ck_hex(get32(STACK0 - 24), 0x1000);
    ck_hex(get32(STACK0 - 28), RFLAGS_VM | RFLAGS_IOPL | RFLAGS_IF | 2);
    ck_assert(cpu->segments[SEG_DS].access_rights & SEGMENT_UNUSABLE);
}
END_TEST

START_TEST(v8086_int_below_iopl_3_faults)
{
    enter_v8086();
    cpu_set_rflags(cpu, RFLAGS_VM | RFLAGS_IF);
    open_gate(0x21);
    code(0xCD, 0x21);
    step();
    ck_handler(13);
}
END_TEST

START_TEST(v8086_redirection_uses_the_8086_table)
{
    enter_v8086();
    cpu->cr4 |= CR4_VME;
    cpu_set_rflags(cpu, RFLAGS_VM | RFLAGS_VIF | RFLAGS_IF); // IOPL 0
    put16(TSS + 102, 0x88);                                  // redirection bitmap: 68H to 87H, all zero: redirect
    put32(0x21 * 4, (HANDLERS >> 4) << 16 | 0x21 * 16);
    code(0xCD, 0x21);
    step();
    ck_handler(0x21);
    ck_assert(cpu_v8086(cpu));
    ck_hex(get16(STACK3 - 2), RFLAGS_IOPL | RFLAGS_IF | 2); // IOPL 3, IF = VIF
    ck_assert(!(cpu->rflags_system & RFLAGS_VIF));
    ck_assert(cpu->rflags_system & RFLAGS_IF);
}
END_TEST

START_TEST(v8086_redirection_bit_set_goes_to_the_monitor)
{
    enter_v8086();
    cpu->cr4 |= CR4_VME;
    cpu_set_rflags(cpu, RFLAGS_VM | RFLAGS_IF);
    put16(TSS + 0x68 + 0x21 / 8, 1 << (0x21 % 8));
    code(0xCD, 0x21);
    step();
    ck_handler(13);
}
END_TEST

START_TEST(bound_and_into)
{
    enter_protected(0);
    put32(DATA, 5);
    put32(DATA + 4, 10);
    cpu->regs[REG_RAX] = 4;
    code(0x62, 0x05, 0x00, 0x80, 0x02, 0x00); // bound eax, [28000h]
    step();
    ck_handler(5);
    cpu->regs[REG_RAX] = 10;
    code(0x62, 0x05, 0x00, 0x80, 0x02, 0x00);
    step();
    ck_hex(cpu->regs[REG_RIP], CODE + 6);
    cpu_set_rflags(cpu, RFLAGS_OF);
    code(0xCE);
    step();
    ck_handler(4);
}
END_TEST

START_TEST(instructions_count_int_once)
{
    enter_protected(0);
    uint64_t before = cpu->instructions;
    code(0xCC);
    step();
    ck_assert_uint_eq(cpu->instructions, before + 1);
    code(0x0F, 0x0B);
    step();
    ck_assert_uint_eq(cpu->instructions, before + 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu/exception");
#define T(name) add_test(suite, #name, name)
    T(real_mode_pushes_three_words);
    T(real_mode_vector_beyond_limit_is_fatal_in_the_end);
    T(same_level_pushes_flags_cs_eip);
    T(inner_level_switches_stack_and_sets_rf_for_faults);
    T(error_code_is_pushed_last);
    T(software_interrupt_checks_gate_dpl);
    T(software_interrupt_through_open_gate);
    T(gate_not_present_gives_np_with_ext_for_faults);
    T(contributory_pair_is_double_fault);
    T(fault_during_double_fault_shuts_down);
    T(bad_inner_stack_gives_ts);
    T(trap_gate_keeps_if);
    T(sixteen_bit_gate_pushes_words);
    T(long_mode_same_level_aligns_and_pushes_five);
    T(long_mode_inner_level_nulls_ss);
    T(long_mode_ist_is_used);
    T(long_mode_page_fault_sets_cr2_and_code);
    T(page_fault_during_page_fault_is_double_fault);
    T(long_mode_needs_64_bit_handler);
    T(long_mode_rejects_16_bit_gate_types);
    T(v8086_interrupt_saves_segments);
    T(v8086_int_below_iopl_3_faults);
    T(v8086_redirection_uses_the_8086_table);
    T(v8086_redirection_bit_set_goes_to_the_monitor);
    T(bound_and_into);
    T(instructions_count_int_once);
    return run_suite(suite);
}
