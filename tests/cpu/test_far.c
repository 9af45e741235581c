// Far jumps, calls and returns, IRET, task switches, and the fast system calls.
#include "cpu_fixture.h"

// JMP or CALL ptr16:32 to selector:offset.
static void far(uint8_t opcode, uint16_t selector, uint32_t offset)
{
    uint8_t bytes[7] = {opcode,
                        (uint8_t)offset,
                        (uint8_t)(offset >> 8),
                        (uint8_t)(offset >> 16),
                        (uint8_t)(offset >> 24),
                        (uint8_t)selector,
                        (uint8_t)(selector >> 8)};
    put(CODE, bytes, sizeof bytes);
    cpu->regs[REG_RIP] = CODE;
    step();
}
#define JMP    0xEA
#define CALL   0x9A
#define TARGET 0x21000u

START_TEST(real_mode_far_call_and_return)
{
    enter_real();
    code(0x9A, 0x34, 0x12, 0x00, 0x25); // call 2500:1234
    put(0x26234, "\xCB", 1);
    step();
    ck_hex(cpu->segments[SEG_CS].base, 0x25000);
    ck_hex(cpu->regs[REG_RIP], 0x1234);
    ck_hex(get16(STACK3 + 0x1000 - 2), CODE >> 4);
    ck_hex(get16(STACK3 + 0x1000 - 4), 5);
    step();
    ck_hex(cpu->regs[REG_RIP], 5);
    ck_hex(cpu->segments[SEG_CS].selector, CODE >> 4);
    ck_hex(cpu->regs[REG_RSP], 0x1000);
}
END_TEST

START_TEST(jump_into_protected_mode)
{
    enter_real();
    load_table();
    cpu->regs[REG_RAX] = 1;
    code(0x0F, 0x22, 0xC0, 0x66, 0xEA, 0x00, 0x10, 0x02, 0x00, CODE0, 0x00); // mov cr0, eax; jmp dword 8:21000h
    step();
    ck_assert(cpu->cr0 & CR0_PE);
    step();
    ck_hex(cpu->regs[REG_RIP], TARGET);
    ck_assert((cpu->mode & MODE_CODE_MASK) == MODE_CODE32);
}
END_TEST

START_TEST(direct_jump_checks)
{
    static const struct {
        uint16_t selector;
        int vector;
        uint16_t error;
    } row[] = {
        {CODE0, -1, 0}, {CODE0 | 3, 13, CODE0}, {CODE3, 13, CODE3 & ~3}, {CONFORMING, -1, 0}, {DATA0, 13, DATA0},
        {0, 13, 0},     {0x200, 13, 0x200},
    };
    for (unsigned i = 0; i < sizeof row / sizeof row[0]; i++) {
        enter_protected(0);
        far(JMP, row[i].selector, TARGET);
        if (row[i].vector < 0) {
            ck_hex(cpu->regs[REG_RIP], TARGET);
        } else {
            ck_handler(row[i].vector);
            ck_hex(get32(STACK3 - 16), row[i].error);
        }
    }
}
END_TEST

START_TEST(conforming_code_keeps_cpl)
{
    enter_protected(3);
    far(JMP, CONFORMING, TARGET);
    ck_hex(cpu->regs[REG_RIP], TARGET);
    ck_assert_uint_eq(cpu->cpl, 3);
    ck_hex(cpu->segments[SEG_CS].selector, CONFORMING | 3);
}
END_TEST

START_TEST(target_beyond_limit_faults)
{
    enter_protected(0);
    far(JMP, CODE16, 0x10000);
    ck_handler(13);
    ck_hex(get32(STACK3 - 16), 0);
}
END_TEST

START_TEST(call_gate_to_inner_level_copies_parameters)
{
    enter_protected(3);
    put64(GDT + GATE, gate(CODE0, TARGET, SYSTEM_CALL_GATE, 3) | (uint64_t)2 << 32);
    put32(STACK3 - 8, 0x1111);
    put32(STACK3 - 4, 0x2222);
    cpu->regs[REG_RSP] = STACK3 - 8;
    far(CALL, GATE | 3, 0xDEAD);
    ck_hex(cpu->regs[REG_RIP], TARGET);
    ck_assert_uint_eq(cpu->cpl, 0);
    ck_hex(cpu->regs[REG_RSP], STACK0 - 24);
    ck_hex(get32(STACK0 - 4), DATA3);
    ck_hex(get32(STACK0 - 8), STACK3 - 8);
    ck_hex(get32(STACK0 - 12), 0x2222);
    ck_hex(get32(STACK0 - 16), 0x1111);
    ck_hex(get32(STACK0 - 20), CODE3);
    ck_hex(get32(STACK0 - 24), CODE + 7);
    // and back, dropping the parameters on both stacks
    put(TARGET, "\xCA\x08\x00", 3); // retf 8
    step();
    ck_hex(cpu->regs[REG_RIP], CODE + 7);
    ck_assert_uint_eq(cpu->cpl, 3);
    ck_hex(cpu->regs[REG_RSP], STACK3);
}
END_TEST

START_TEST(call_gate_checks_privilege)
{
    enter_protected(3);
    put64(GDT + GATE, gate(CODE0, TARGET, SYSTEM_CALL_GATE, 0));
    far(CALL, GATE | 3, 0);
    ck_handler(13);
    ck_hex(get32(STACK0 - 24), GATE);
    enter_protected(3);
    put64(GDT + GATE, gate(CODE0, TARGET, SYSTEM_CALL_GATE, 3));
    far(JMP, GATE | 3, 0); // JMP does not change the level
    ck_handler(13);
    ck_hex(get32(STACK0 - 24), CODE0);
}
END_TEST

START_TEST(return_to_outer_level_nulls_privileged_segments)
{
    enter_protected(0);
    put32(STACK3 - 16, TARGET);
    put32(STACK3 - 12, CODE3);
    put32(STACK3 - 8, STACK1);
    put32(STACK3 - 4, DATA3);
    cpu->regs[REG_RSP] = STACK3 - 16;
    load_segment(SEG_ES, DATA3);
    code(0xCB);
    step();
    ck_hex(cpu->regs[REG_RIP], TARGET);
    ck_assert_uint_eq(cpu->cpl, 3);
    ck_hex(cpu->regs[REG_RSP], STACK1);
    ck_hex(cpu->segments[SEG_DS].selector, 0);
    ck_hex(cpu->segments[SEG_ES].selector, DATA3);
}
END_TEST

START_TEST(iret_same_level_restores_flags)
{
    enter_protected(0);
    put32(STACK3 - 12, TARGET);
    put32(STACK3 - 8, CODE0);
    put32(STACK3 - 4, RFLAGS_IF | RFLAGS_CF | RFLAGS_IOPL);
    cpu->regs[REG_RSP] = STACK3 - 12;
    code(0xCF);
    step();
    ck_hex(cpu->regs[REG_RIP], TARGET);
    ck_hex(cpu_rflags(cpu), RFLAGS_IF | RFLAGS_CF | RFLAGS_IOPL | 2);
}
END_TEST

START_TEST(iret_at_cpl_3_keeps_iopl_and_if)
{
    enter_protected(3);
    put32(STACK3 - 12, TARGET);
    put32(STACK3 - 8, CODE3);
    put32(STACK3 - 4, RFLAGS_IF | RFLAGS_CF | RFLAGS_IOPL);
    cpu->regs[REG_RSP] = STACK3 - 12;
    code(0xCF);
    step();
    ck_hex(cpu_rflags(cpu), RFLAGS_CF | 2);
}
END_TEST

START_TEST(iret_to_v8086_and_back)
{
    enter_protected(0);
    uint32_t frame[] = {0,      CODE >> 4, RFLAGS_VM | RFLAGS_IOPL | RFLAGS_IF, 0xFFE, STACK3 >> 4, 0x1111, 0x2222,
                        0x3333, 0x4444};
    put(STACK1, frame, sizeof frame);
    cpu->regs[REG_RSP] = STACK1;
    code(0xCF);
    step();
    ck_assert(cpu_v8086(cpu));
    ck_assert_uint_eq(cpu->cpl, 3);
    ck_hex(cpu->segments[SEG_ES].base, 0x11110);
    ck_hex(cpu->segments[SEG_DS].base, 0x22220);
    ck_hex(cpu->segments[SEG_FS].base, 0x33330);
    ck_hex(cpu->segments[SEG_GS].base, 0x44440);
    ck_hex(cpu->segments[SEG_CS].access_rights, V8086_DATA_RIGHTS);
    ck_hex(cpu->regs[REG_RSP], 0xFFE);
}
END_TEST

START_TEST(iret_in_64_bit_mode_always_pops_the_stack)
{
    enter_long(0);
    uint64_t frame[] = {TARGET, CODE64, RFLAGS_IF, STACK1, DATA0};
    put(STACK0, frame, sizeof frame);
    cpu->regs[REG_RSP] = STACK0;
    code(0x48, 0xCF);
    step();
    ck_hex(cpu->regs[REG_RIP], TARGET);
    ck_hex(cpu->regs[REG_RSP], STACK1);
}
END_TEST

START_TEST(iret_to_compatibility_mode)
{
    enter_long(0);
    uint64_t frame[] = {TARGET, CODE3, RFLAGS_IF, STACK1, DATA3};
    put(STACK0, frame, sizeof frame);
    cpu->regs[REG_RSP] = STACK0;
    code(0x48, 0xCF);
    step();
    ck_hex(cpu->regs[REG_RIP], TARGET);
    ck_assert((cpu->mode & MODE_CODE_MASK) == MODE_CODE32);
    ck_assert_uint_eq(cpu->cpl, 3);
}
END_TEST

START_TEST(iret_to_noncanonical_rip_faults)
{
    enter_long(0);
    uint64_t frame[] = {UINT64_C(0x800000000000), CODE64, RFLAGS_IF, STACK1, DATA0};
    put(STACK0, frame, sizeof frame);
    cpu->regs[REG_RSP] = STACK0;
    code(0x48, 0xCF);
    step();
    ck_handler(13);
    ck_hex(get64(STACK0 - 48), 0);
}
END_TEST

START_TEST(iret_with_nt_in_long_mode_faults)
{
    enter_long(0);
    cpu_set_rflags(cpu, RFLAGS_NT);
    code(0x48, 0xCF);
    step();
    ck_handler(13);
}
END_TEST

START_TEST(iret_unblocks_nmi_even_if_it_faults)
{
    enter_protected(0);
    cpu->interruptibility = BLOCKING_NMI;
    put32(STACK3 - 8, 0); // null CS
    cpu->regs[REG_RSP] = STACK3 - 12;
    code(0xCF);
    step();
    ck_handler(13);
    ck_assert(!(cpu->interruptibility & BLOCKING_NMI));
}
END_TEST

static void prepare_task(void)
{
    put32(TSS2 + 0x20, TARGET);
    put32(TSS2 + 0x24, 2);
    put32(TSS2 + 0x28, 0xAAAA);
    put32(TSS2 + 0x38, STACK1);
    put16(TSS2 + 0x48, DATA0);
    put16(TSS2 + 0x4C, CODE0);
    put16(TSS2 + 0x50, DATA0);
    put16(TSS2 + 0x54, DATA0);
    put32(TSS2 + 0x64, 0x680000);
}

START_TEST(call_to_a_task_and_iret_back)
{
    enter_protected(0);
    prepare_task();
    cpu->regs[REG_RBX] = 0x1234;
    far(CALL, TSS_B, 0);
    ck_hex(cpu->regs[REG_RIP], TARGET);
    ck_hex(cpu->regs[REG_RAX], 0xAAAA);
    ck_hex(cpu->segments[SEG_TR].selector, TSS_B);
    ck_assert(cpu->cr0 & CR0_TS);
    ck_assert(cpu->rflags_system & RFLAGS_NT);
    ck_hex(get16(TSS2), TSS_A);
    ck_hex(get64(GDT + TSS_B) >> 40 & 15, SYSTEM_TSS_BUSY);
    ck_hex(get32(TSS + 0x20), CODE + 7);
    put(TARGET, "\xCF", 1);
    step();
    ck_hex(cpu->regs[REG_RIP], CODE + 7);
    ck_hex(cpu->regs[REG_RBX], 0x1234);
    ck_hex(cpu->segments[SEG_TR].selector, TSS_A);
    ck_hex(get64(GDT + TSS_B) >> 40 & 15, SYSTEM_TSS_AVAILABLE);
    ck_assert(!(get32(TSS2 + 0x24) & RFLAGS_NT));
    ck_assert(!(cpu->rflags_system & RFLAGS_NT));
}
END_TEST

START_TEST(jump_through_a_task_gate)
{
    enter_protected(0);
    prepare_task();
    far(JMP, TASK_GATE, 0);
    ck_hex(cpu->regs[REG_RIP], TARGET);
    ck_hex(get64(GDT + TSS_A) >> 40 & 15, SYSTEM_TSS_AVAILABLE);
    ck_assert(!(cpu->rflags_system & RFLAGS_NT));
}
END_TEST

START_TEST(busy_task_is_refused)
{
    enter_protected(0);
    prepare_task();
    far(JMP, TSS_A, 0);
    ck_handler(13);
    ck_hex(get32(STACK3 - 16), TSS_A);
}
END_TEST

START_TEST(short_tss_is_refused)
{
    enter_protected(0);
    put64(GDT + TSS_B, system_descriptor(TSS2, 0x66, SYSTEM_TSS_AVAILABLE));
    far(JMP, TSS_B, 0);
    ck_handler(10);
    ck_hex(get32(STACK3 - 16), TSS_B);
}
END_TEST

START_TEST(trap_flag_of_a_task_is_a_debug_exception)
{
    enter_protected(0);
    prepare_task();
    put32(TSS2 + 0x64, 0x680001);
    far(JMP, TSS_B, 0);
    step();
    ck_handler(1);
    ck_assert(cpu->dr6 & DR6_BT);
}
END_TEST

START_TEST(no_tasks_in_long_mode)
{
    enter_long(0);
    // call far [rip+0]
    code(0xFF, 0x1D, 0, 0, 0, 0, 0, 0, 0, 0, TSS_B, 0);
    step();
    ck_handler(13);
    ck_hex(get64(STACK3 - 48), TSS_B);
}
END_TEST

START_TEST(long_mode_call_gate)
{
    enter_long(3);
    put64(GDT + GATE, gate(CODE64, TARGET, SYSTEM_CALL_GATE, 3));
    put64(GDT + GATE + 8, 0);
    code(0xFF, 0x1D, 0, 0, 0, 0, 0, 0, 0, 0, GATE | 3, 0);
    step();
    ck_hex(cpu->regs[REG_RIP], TARGET);
    ck_assert_uint_eq(cpu->cpl, 0);
    ck_hex(cpu->regs[REG_RSP], STACK0 - 32);
    ck_hex(get64(STACK0 - 8), DATA3);
    ck_hex(get64(STACK0 - 32), CODE + 6);
    put(TARGET, "\x48\xCB", 2);
    step();
    ck_hex(cpu->regs[REG_RIP], CODE + 6);
    ck_assert_uint_eq(cpu->cpl, 3);
}
END_TEST

START_TEST(syscall_and_sysret)
{
    enter_long(3);
    cpu->star = (uint64_t)(CODE3 & ~3u) << 48 | (uint64_t)CODE64 << 32;
    cpu->lstar = TARGET;
    cpu->fmask = RFLAGS_IF;
    cpu_set_rflags(cpu, RFLAGS_IF | RFLAGS_CF);
    code(0x0F, 0x05);
    step();
    ck_hex(cpu->regs[REG_RIP], TARGET);
    ck_hex(cpu->regs[REG_RCX], CODE + 2);
    ck_hex(cpu->regs[REG_R11], RFLAGS_IF | RFLAGS_CF | 2);
    ck_hex(cpu_rflags(cpu), RFLAGS_CF | 2);
    ck_assert_uint_eq(cpu->cpl, 0);
    ck_hex(cpu->segments[SEG_CS].selector, CODE64);
    put(TARGET, "\x48\x0F\x07", 3);
    step();
    ck_hex(cpu->regs[REG_RIP], CODE + 2);
    ck_assert_uint_eq(cpu->cpl, 3);
    ck_hex(cpu->segments[SEG_CS].selector, (CODE3 & ~3u) + 16 + 3);
    ck_hex(cpu_rflags(cpu), RFLAGS_IF | RFLAGS_CF | 2);
}
END_TEST

START_TEST(sysret_to_noncanonical_faults_at_cpl_0)
{
    enter_long(0);
    cpu->regs[REG_RCX] = UINT64_C(0x800000000000);
    code(0x48, 0x0F, 0x07);
    step();
    ck_handler(13);
}
END_TEST

START_TEST(sysenter_and_sysexit)
{
    enter_protected(3);
    cpu->sysenter_cs = CODE0;
    cpu->sysenter_esp = STACK0;
    cpu->sysenter_eip = TARGET;
    code(0x0F, 0x34);
    step();
    ck_hex(cpu->regs[REG_RIP], TARGET);
    ck_assert_uint_eq(cpu->cpl, 0);
    ck_hex(cpu->regs[REG_RSP], STACK0);
    cpu->regs[REG_RCX] = STACK3;
    cpu->regs[REG_RDX] = CODE;
    put(TARGET, "\x0F\x35", 2);
    step();
    ck_hex(cpu->regs[REG_RIP], CODE);
    ck_assert_uint_eq(cpu->cpl, 3);
    ck_hex(cpu->segments[SEG_SS].selector, CODE0 + 24 + 3);
}
END_TEST

START_TEST(sysenter_with_null_cs_faults)
{
    enter_protected(0);
    cpu->sysenter_cs = 3;
    code(0x0F, 0x34);
    step();
    ck_handler(13);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu/far");
#define T(name) add_test(suite, #name, name)
    T(real_mode_far_call_and_return);
    T(jump_into_protected_mode);
    T(direct_jump_checks);
    T(conforming_code_keeps_cpl);
    T(target_beyond_limit_faults);
    T(call_gate_to_inner_level_copies_parameters);
    T(call_gate_checks_privilege);
    T(return_to_outer_level_nulls_privileged_segments);
    T(iret_same_level_restores_flags);
    T(iret_at_cpl_3_keeps_iopl_and_if);
    T(iret_to_v8086_and_back);
    T(iret_in_64_bit_mode_always_pops_the_stack);
    T(iret_to_compatibility_mode);
    T(iret_to_noncanonical_rip_faults);
    T(iret_with_nt_in_long_mode_faults);
    T(iret_unblocks_nmi_even_if_it_faults);
    T(call_to_a_task_and_iret_back);
    T(jump_through_a_task_gate);
    T(busy_task_is_refused);
    T(short_tss_is_refused);
    T(trap_flag_of_a_task_is_a_debug_exception);
    T(no_tasks_in_long_mode);
    T(long_mode_call_gate);
    T(syscall_and_sysret);
    T(sysret_to_noncanonical_faults_at_cpl_0);
    T(sysenter_and_sysexit);
    T(sysenter_with_null_cs_faults);
    return run_suite(suite);
}
