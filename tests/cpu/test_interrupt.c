// Instruction boundaries: interrupts, NMIs, their blocking, HLT and MWAIT, and debug traps.
#include "cpu_fixture.h"

static void assert_interrupt(int vector)
{
    pending_vector = vector;
    cpu->pending |= PENDING_INTERRUPT;
}

START_TEST(interrupt_needs_if)
{
    enter_protected(0);
    code(0x90, 0x90, 0x90);
    assert_interrupt(0x50);
    step();
    ck_hex(cpu->regs[REG_RIP], CODE + 1);
    cpu_set_rflags(cpu, RFLAGS_IF); // asks the controller again
    ck_assert_int_eq(step(), EXEC_DONE);
    ck_handler(0x50);
    ck_assert(!(cpu->rflags_system & RFLAGS_IF));
    ck_assert_uint_eq(cpu->interrupt_count, 1);
    ck_hex(get32(STACK3 - 4), RFLAGS_IF | 2); // RF is not set
}
END_TEST

START_TEST(sti_delays_by_one_instruction)
{
    enter_protected(0);
    code(0xFB, 0x90, 0x90); // sti; nop; nop
    assert_interrupt(0x50);
    step();
    ck_assert(cpu->interruptibility & BLOCKING_STI);
    step();
    ck_hex(cpu->regs[REG_RIP], CODE + 2);
    step();
    ck_handler(0x50);
    ck_hex(get32(STACK3 - 12), CODE + 2);
}
END_TEST

START_TEST(sti_then_hlt_wakes)
{
    enter_protected(0);
    code(0xFB, 0xF4, 0x90); // sti; hlt
    assert_interrupt(0x50);
    step();
    ck_assert_int_eq(step(), EXEC_HALT);
    ck_assert_int_eq(cpu->activity, ACTIVITY_HLT);
    ck_assert(interrupt_wakes(cpu));
    step();
    ck_handler(0x50);
    ck_assert_int_eq(cpu->activity, ACTIVITY_ACTIVE);
    ck_hex(get32(STACK3 - 12), CODE + 2);
}
END_TEST

START_TEST(sti_with_if_set_does_not_block)
{
    enter_protected(0);
    cpu_set_rflags(cpu, RFLAGS_IF);
    code(0xFB, 0x90);
    step();
    ck_assert(!(cpu->interruptibility & BLOCKING_STI));
}
END_TEST

START_TEST(cli_and_sti_check_iopl)
{
    enter_protected(3);
    code(0xFA);
    step();
    ck_handler(13);
    enter_protected(3);
    cpu_set_rflags(cpu, RFLAGS_IOPL);
    code(0xFB);
    step();
    ck_assert(cpu->rflags_system & RFLAGS_IF);
    enter_protected(3);
    cpu->cr4 |= CR4_PVI;
    cpu_set_rflags(cpu, 0);
    code(0xFB);
    step();
    ck_assert(cpu->rflags_system & RFLAGS_VIF);
    cpu_set_rflags(cpu, RFLAGS_VIP);
    code(0xFB);
    step();
    ck_handler(13);
}
END_TEST

START_TEST(nmi_is_delivered_and_blocks)
{
    enter_protected(0);
    code(0x90, 0x90);
    cpu->pending |= PENDING_NMI;
    step();
    ck_handler(2);
    ck_assert(cpu->interruptibility & BLOCKING_NMI);
    cpu->pending |= PENDING_NMI;
    code(0x90);
    step();
    ck_hex(cpu->regs[REG_RIP], CODE + 1);
    ck_assert(cpu->pending & PENDING_NMI);
    put32(STACK3 - 12, CODE);
    put32(STACK3 - 8, CODE0);
    put32(STACK3 - 4, 2);
    cpu->regs[REG_RSP] = STACK3 - 12;
    code(0xCF);
    step();
    step();
    ck_handler(2);
}
END_TEST

START_TEST(nmi_ranks_above_interrupts)
{
    enter_protected(0);
    cpu_set_rflags(cpu, RFLAGS_IF);
    code(0x90);
    assert_interrupt(0x50);
    cpu->pending |= PENDING_NMI;
    step();
    ck_handler(2);
}
END_TEST

START_TEST(hlt_sleeps_without_events)
{
    enter_protected(0);
    code(0xF4);
    ck_assert_int_eq(step(), EXEC_HALT);
    ck_assert(!interrupt_wakes(cpu));
    assert_interrupt(0x50); // IF = 0
    ck_assert_int_eq(step(), EXEC_HALT);
    cpu->pending |= PENDING_NMI;
    step();
    ck_handler(2);
}
END_TEST

START_TEST(an_interrupt_wakes_hlt_while_an_nmi_is_blocked)
{
    enter_protected(0);
    code(0xF4);
    cpu_set_rflags(cpu, RFLAGS_IF);
    cpu->interruptibility |= BLOCKING_NMI;
    cpu->pending |= PENDING_NMI;
    ck_assert_int_eq(step(), EXEC_HALT);
    ck_assert(!interrupt_wakes(cpu));
    assert_interrupt(0x50);
    ck_assert(interrupt_wakes(cpu));
    step();
    ck_handler(0x50);
    ck_assert(cpu->pending & PENDING_NMI);
}
END_TEST

START_TEST(mwait_wakes_on_masked_interrupt)
{
    enter_protected(0);
    cpu->regs[REG_RAX] = DATA;
    cpu->regs[REG_RCX] = 0;
    code(0x0F, 0x01, 0xC8, 0x0F, 0x01, 0xC9, 0x90); // monitor; mwait; nop
    step();
    ck_assert(cpu->monitor_armed);
    cpu->regs[REG_RCX] = 1;
    cpu->regs[REG_RAX] = 0;
    ck_assert_int_eq(step(), EXEC_HALT);
    ck_assert(!interrupt_wakes(cpu));
    assert_interrupt(0x50);
    ck_assert(interrupt_wakes(cpu));
    step();
    ck_assert_int_eq(cpu->activity, ACTIVITY_ACTIVE);
    ck_hex(cpu->regs[REG_RIP], CODE + 7);
    ck_assert_int_eq(pending_vector, 0x50); // not taken
}
END_TEST

START_TEST(init_and_sipi_start_an_application_processor)
{
    cpu->id = 1;
    cpu_reset(cpu, false);
    ck_assert_int_eq(cpu->activity, ACTIVITY_WAIT_FOR_SIPI);
    ck_assert_int_eq(step(), EXEC_HALT);
    cpu->sipi_vector = 0x12;
    cpu->pending |= PENDING_SIPI;
    step();
    ck_assert_int_eq(cpu->activity, ACTIVITY_ACTIVE);
    ck_hex(cpu->segments[SEG_CS].selector, 0x1200);
    ck_hex(cpu->segment_base[SEG_CS] + cpu->regs[REG_RIP], 0x12000);
    cpu->pending |= PENDING_INIT;
    step();
    ck_assert_int_eq(cpu->activity, ACTIVITY_WAIT_FOR_SIPI);
}
END_TEST

START_TEST(reset_state)
{
    enter_long(0);
    cpu->xmm[3].lo = 7;
    cpu_reset(cpu, true);
    ck_hex(cpu->regs[REG_RIP], 0xFFF0);
    ck_hex(cpu->segment_base[SEG_CS], 0xFFFF0000);
    ck_hex(cpu->cr0, CR0_ET | CR0_CD | CR0_NW);
    ck_hex(cpu->regs[REG_RDX], 0x506E3);
    ck_hex(cpu_rflags(cpu), 2);
    ck_hex(cpu->xmm[3].lo, 7); // INIT keeps it
    ck_hex(cpu->dr6, DR6_FIXED);
    cpu_reset(cpu, false);
    ck_hex(cpu->xmm[3].lo, 0);
    ck_hex(cpu->pat, UINT64_C(0x0007040600070406));
    ck_hex(cpu->mxcsr, 0x1F80);
}
END_TEST

START_TEST(single_step_traps_after_the_instruction)
{
    enter_protected(0);
    cpu_set_rflags(cpu, RFLAGS_TF);
    code(0x90, 0x90);
    step();
    ck_hex(cpu->regs[REG_RIP], CODE + 1);
    step();
    ck_handler(1);
    ck_assert(cpu->dr6 & DR6_BS);
    ck_hex(get32(STACK3 - 12), CODE + 1);
    ck_assert(!(cpu->rflags_system & RFLAGS_TF));
}
END_TEST

START_TEST(int_does_not_trap_after_itself)
{
    enter_protected(0);
    cpu_set_rflags(cpu, RFLAGS_TF);
    code(0xCD, 0x40);
    step();
    ck_handler(0x40);
    ck_assert(!(cpu->pending & PENDING_DEBUG));
}
END_TEST

START_TEST(instruction_breakpoint_is_a_fault_and_rf_suppresses_it)
{
    enter_protected(0);
    cpu->dr[0] = CODE + 1;
    cpu_write_dr7(cpu, 2); // G0, execute
    code(0x90, 0x90, 0x90);
    step();
    step();
    ck_handler(1);
    ck_hex(get32(STACK3 - 12), CODE + 1);
    ck_hex(get32(STACK3 - 4), 2); // RF is left to the handler
    ck_hex(cpu->dr6 & 0xF, 1);
    // the handler sets RF and returns
    put32(STACK3 - 4, RFLAGS_RF | 2);
    put(HANDLERS + 16, "\xCF", 1);
    step();
    ck_assert(cpu->rflags_system & RFLAGS_RF);
    step();
    ck_hex(cpu->regs[REG_RIP], CODE + 2);
    ck_assert(!(cpu->rflags_system & RFLAGS_RF));
    cpu->regs[REG_RIP] = CODE + 1;
    step();
    ck_handler(1);
}
END_TEST

START_TEST(data_breakpoint_is_a_trap)
{
    enter_protected(0);
    cpu->dr[1] = DATA;
    cpu_write_dr7(cpu, BIT(2) | (uint64_t)0xD << 20); // L1, write, 4 bytes
    ck_assert(debug_watches_data(cpu));
    code(0xA1, 0x00, 0x80, 0x02, 0x00, 0xA3, 0x03, 0x80, 0x02, 0x00, 0x90); // mov eax, [DATA]; mov [DATA + 3], eax
    step();
    ck_hex(cpu->regs[REG_RIP], CODE + 5);
    step();
    step();
    ck_handler(1);
    ck_hex(cpu->dr6 & 0xF, 2);
    ck_hex(get32(STACK3 - 12), CODE + 10);
}
END_TEST

START_TEST(data_breakpoint_in_64_bit_mode)
{
    enter_long(0);
    cpu->dr[0] = DATA + 8;
    cpu_write_dr7(cpu, BIT(0) | (uint64_t)0xB << 16);     // L0, read or write, 8 bytes
    code(0x8B, 0x04, 0x25, 0x0C, 0x80, 0x02, 0x00, 0x90); // mov eax, [DATA + 12]
    cpu_run(cpu, cpu_now(cpu) + 1, false);
    for (unsigned i = 0; i < 3 && cpu->regs[REG_RIP] < CODE + 8 && cpu->regs[REG_RIP] >= CODE; i++)
        step();
    ck_handler(1);
    ck_hex(get64(STACK3 - 40), CODE + 7);
}
END_TEST

START_TEST(mov_ss_delays_debug_traps)
{
    enter_protected(0);
    cpu->dr[0] = DATA;
    cpu_write_dr7(cpu, BIT(0) | (uint64_t)0xF << 16);
    put16(DATA, DATA0);
    code(0x8E, 0x15, 0x00, 0x80, 0x02, 0x00, 0x90, 0x90); // mov ss, [DATA]
    step();
    step();
    ck_hex(cpu->regs[REG_RIP], CODE + 7);
    step();
    ck_handler(1);
    ck_hex(get32(STACK3 - 12), CODE + 7);
}
END_TEST

START_TEST(io_permission_bitmap)
{
    static const struct {
        uint8_t bits;
        bool ok;
    } row[] = {{0x00, true}, {0x01, false}, {0x02, true}, {0xFF, false}};
    for (unsigned i = 0; i < sizeof row / sizeof row[0]; i++) {
        enter_protected(3);
        put(TSS + 0x88 + 0x80 / 8, &row[i].bits, 1);
        code(0xE4, 0x80); // in al, 80h
        step();
        if (row[i].ok)
            ck_hex(cpu->regs[REG_RIP], CODE + 2);
        else
            ck_handler(13);
    }
    enter_protected(3);
    cpu->segments[SEG_TR].limit = 0x88 + 0x80 / 8; // the second byte is beyond
    put(TSS + 0x88 + 0x80 / 8, "\0", 1);
    code(0xE4, 0x80);
    step();
    ck_handler(13);
    cpu_set_rflags(cpu, RFLAGS_IOPL);
    load_segment(SEG_CS, CODE3);
    load_segment(SEG_SS, DATA3);
    cpu_set_rflags(cpu, RFLAGS_IOPL);
    cpu_update_mode(cpu);
    cpu->regs[REG_RAX] = 0;
    code(0xE4, 0x80);
    step();
    ck_hex(cpu->regs[REG_RAX], 0xFF); // no device
}
END_TEST

START_TEST(io_breakpoint)
{
    enter_protected(0);
    cpu->cr4 |= CR4_DE;
    cpu->dr[0] = 0x80;
    cpu_write_dr7(cpu, BIT(0) | (uint64_t)2 << 16);
    code(0xE6, 0x80, 0x90);
    step();
    step();
    ck_handler(1);
}
END_TEST

START_TEST(popf_enabling_interrupts_takes_a_pending_one)
{
    enter_protected(0);
    assert_interrupt(0x51);
    code(0x90, 0x9D, 0x90); // nop; popf
    step();
    put32(STACK3 - 4, RFLAGS_IF | 2);
    cpu->regs[REG_RSP] = STACK3 - 4;
    step();
    step();
    ck_handler(0x51);
}
END_TEST

START_TEST(random_numbers_repeat_with_the_seed)
{
    enter_long(0);
    cpu->random_state = 42;
    code(0x48, 0x0F, 0xC7, 0xF0, 0x48, 0x0F, 0xC7, 0xFB); // rdrand rax; rdseed rbx
    step();
    step();
    uint64_t a = cpu->regs[REG_RAX], b = cpu->regs[REG_RBX];
    ck_assert(a != b && a && b);
    ck_hex(cpu_rflags(cpu) & RFLAGS_ARITHMETIC, RFLAGS_CF);
    cpu->random_state = 42;
    cpu->regs[REG_RIP] = CODE;
    step();
    ck_hex(cpu->regs[REG_RAX], a);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu/interrupt");
#define T(name) add_test(suite, #name, name)
    T(interrupt_needs_if);
    T(sti_delays_by_one_instruction);
    T(sti_then_hlt_wakes);
    T(sti_with_if_set_does_not_block);
    T(cli_and_sti_check_iopl);
    T(nmi_is_delivered_and_blocks);
    T(nmi_ranks_above_interrupts);
    T(hlt_sleeps_without_events);
    T(an_interrupt_wakes_hlt_while_an_nmi_is_blocked);
    T(mwait_wakes_on_masked_interrupt);
    T(init_and_sipi_start_an_application_processor);
    T(reset_state);
    T(single_step_traps_after_the_instruction);
    T(int_does_not_trap_after_itself);
    T(instruction_breakpoint_is_a_fault_and_rf_suppresses_it);
    T(data_breakpoint_is_a_trap);
    T(data_breakpoint_in_64_bit_mode);
    T(mov_ss_delays_debug_traps);
    T(io_permission_bitmap);
    T(io_breakpoint);
    T(popf_enabling_interrupts_takes_a_pending_one);
    T(random_numbers_repeat_with_the_seed);
    return run_suite(suite);
}
