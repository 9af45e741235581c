// Loads of segment registers, LDTR and TR, and the instructions that inspect descriptors.
#include "cpu_fixture.h"

// MOV sreg, ax with a selector. Returns the vector raised, or -1.
static int load(unsigned reg, uint16_t selector)
{
    cpu->regs[REG_RAX] = selector;
    const uint8_t bytes[] = {0x8E, (uint8_t)(0xC0 | reg << 3)};
    put(CODE, bytes, sizeof bytes);
    cpu->regs[REG_RIP] = CODE;
    uint64_t sp = cpu->regs[REG_RSP];
    step();
    if (cpu->regs[REG_RIP] == CODE + 2)
        return -1;
    unsigned vector = (unsigned)(cpu->regs[REG_RIP] - HANDLERS) / 16;
    cpu->regs[REG_RSP] = cpu->segments[SEG_SS].access_rights & SEGMENT_DPL ? cpu->regs[REG_RSP] : sp;
    return (int)vector;
}

// The error code of an exception taken at CPL 0 from ESP = STACK3.
static uint32_t error_code(void) { return get32(STACK3 - 16); }

START_TEST(real_mode_load_keeps_limit)
{
    enter_real();
    cpu->segments[SEG_DS].limit = 0xFFFFFFFF;
    cpu->regs[REG_RAX] = 0x1234;
    code(0x8E, 0xD8);
    step();
    ck_hex(cpu->segments[SEG_DS].base, 0x12340);
    ck_hex(cpu->segments[SEG_DS].limit, 0xFFFFFFFF);
}
END_TEST

START_TEST(data_load_sets_accessed)
{
    enter_protected(0);
    put64(GDT + DATA0, D_NOT_ACCESSED(D_DATA));
    ck_assert_int_eq(load(SEG_DS, DATA0), -1);
    ck_hex(get64(GDT + DATA0), D_DATA);
    ck_assert(cpu->mode & MODE_FLAT);
}
END_TEST

START_TEST(data_load_checks)
{
    static const struct {
        uint16_t selector;
        int vector;
    } row[] = {
        {0, -1},          {3, -1},        {DATA0, -1},        {DATA3, -1}, {CODE0, -1},
        {CONFORMING, -1}, {READONLY, -1}, {EXECUTE_ONLY, 13}, {TSS_A, 13}, {ABSENT, 11},
        {DATA0 | 1, 13},  {0x100, 13},    {DATA0 | 4, 13},
    };
    enter_protected(0);
    for (unsigned i = 0; i < sizeof row / sizeof row[0]; i++) {
        int vector = load(SEG_ES, row[i].selector);
        ck_assert_msg(vector == row[i].vector, "selector %04x: %d", row[i].selector, vector);
        if (vector >= 0)
            ck_hex(error_code(), row[i].selector & ~3u);
    }
}
END_TEST

START_TEST(null_data_segment_faults_on_use)
{
    enter_protected(0);
    ck_assert_int_eq(load(SEG_DS, 0), -1);
    ck_assert(!(cpu->mode & MODE_FLAT));
    code(0xA0, 0, 0, 0, 0); // mov al, [0]
    step();
    ck_handler(13);
}
END_TEST

START_TEST(stack_load_checks)
{
    static const struct {
        uint16_t selector;
        int vector;
    } row[] = {
        {0, 13}, {DATA3, 13}, {READONLY, 13}, {CODE0, 13}, {DATA0 | 1, 13}, {ABSENT, 12}, {DATA0, -1},
    };
    enter_protected(0);
    for (unsigned i = 0; i < sizeof row / sizeof row[0]; i++) {
        int vector = load(SEG_SS, row[i].selector);
        ck_assert_msg(vector == row[i].vector, "selector %04x: %d", row[i].selector, vector);
    }
    ck_assert(cpu->interruptibility & BLOCKING_MOV_SS);
}
END_TEST

START_TEST(mov_ss_holds_interrupts_for_one_instruction)
{
    enter_protected(0);
    cpu_set_rflags(cpu, RFLAGS_IF);
    cpu->regs[REG_RAX] = DATA0;
    code(0x8E, 0xD0, 0x90, 0x90);
    step();
    pending_vector = 0x50;
    cpu->pending |= PENDING_INTERRUPT;
    step();
    ck_hex(cpu->regs[REG_RIP], CODE + 3);
    ck_assert(!(cpu->interruptibility & BLOCKING_MOV_SS));
    step();
    ck_handler(0x50);
    ck_hex(get32(STACK3 - 12), CODE + 3);
}
END_TEST

START_TEST(null_ss_is_allowed_in_64_bit_kernel_code)
{
    enter_long(0);
    ck_assert_int_eq(load(SEG_SS, 0), -1);
    ck_assert_uint_eq(cpu->cpl, 0);
    enter_long(3);
    ck_assert_int_eq(load(SEG_SS, 3), 13);
}
END_TEST

START_TEST(long_mode_fs_load_takes_base_from_descriptor)
{
    enter_long(0);
    put64(GDT + DATA0, D_DATA | UINT64_C(0x12) << 56 | UINT64_C(0x345678) << 16);
    cpu_wrmsr(cpu, 0xC0000100, UINT64_C(0x7FFF00000000));
    ck_assert_int_eq(load(SEG_FS, DATA0), -1);
    ck_hex(cpu->segment_base[SEG_FS], 0x12345678);
    ck_assert_int_eq(load(SEG_FS, 0), -1);
    ck_hex(cpu->segment_base[SEG_FS], 0);
}
END_TEST

START_TEST(lldt_and_ldt_selectors)
{
    enter_protected(0);
    put64(0x3800 + 8, D_DATA);
    cpu->regs[REG_RAX] = LDT;
    code(0x0F, 0x00, 0xD0);
    step();
    ck_hex(cpu->segments[SEG_LDTR].base, 0x3800);
    ck_assert_int_eq(load(SEG_DS, 8 | 4), -1);
    cpu->regs[REG_RAX] = DATA0;
    code(0x0F, 0x00, 0xD0);
    step();
    ck_handler(13);
}
END_TEST

START_TEST(ltr_marks_busy_and_refuses_busy)
{
    enter_protected(0);
    cpu->regs[REG_RAX] = TSS_B;
    code(0x0F, 0x00, 0xD8);
    step();
    ck_hex(get64(GDT + TSS_B) >> 40 & 15, SYSTEM_TSS_BUSY);
    ck_hex(cpu->segments[SEG_TR].access_rights & 15, SYSTEM_TSS_BUSY);
    code(0x0F, 0x00, 0xD8);
    step();
    ck_handler(13);
    ck_hex(error_code(), TSS_B);
}
END_TEST

START_TEST(ltr_in_long_mode_reads_16_bytes)
{
    enter_long(0);
    put64(GDT + TSS_B, system_descriptor(TSS2, 0x67, SYSTEM_TSS_AVAILABLE));
    put64(GDT + TSS_B + 8, 0xFFFF8000);
    cpu->regs[REG_RAX] = TSS_B;
    code(0x0F, 0x00, 0xD8);
    step();
    ck_hex(cpu->segments[SEG_TR].base, UINT64_C(0xFFFF800000000000) | TSS2);
}
END_TEST

static bool zf(void) { return (cpu_rflags(cpu) & RFLAGS_ZF) != 0; }

START_TEST(lar_lsl_verr_verw)
{
    enter_protected(0);
    cpu->regs[REG_RAX] = TSS_B;
    code(0x0F, 0x02, 0xD8, 0x0F, 0x03, 0xC8, 0x0F, 0x00, 0xE0, 0x0F, 0x00,
         0xE8); // lar ebx, eax; lsl ecx, eax; verr ax; verw ax
    step();
    ck_assert(zf());
    ck_hex(cpu->regs[REG_RBX], 0x8900);
    step();
    ck_assert(zf());
    ck_hex(cpu->regs[REG_RCX], 0x67);
    step();
    ck_assert(!zf());
    cpu->regs[REG_RAX] = READONLY;
    cpu->regs[REG_RIP] = CODE + 6;
    step();
    ck_assert(zf());
    step();
    ck_assert(!zf());
    cpu->regs[REG_RAX] = 0;
    cpu->regs[REG_RIP] = CODE;
    step();
    ck_assert(!zf());
    ck_hex(cpu->regs[REG_RBX], 0x8900);
}
END_TEST

START_TEST(lsl_applies_granularity)
{
    enter_protected(0);
    cpu->regs[REG_RAX] = DATA0;
    code(0x0F, 0x03, 0xC8);
    step();
    ck_hex(cpu->regs[REG_RCX], 0xFFFFFFFF);
}
END_TEST

START_TEST(arpl_raises_rpl)
{
    enter_protected(0);
    cpu->regs[REG_RAX] = 0x10;
    cpu->regs[REG_RCX] = 3;
    code(0x63, 0xC8, 0x63, 0xC8); // arpl ax, cx
    step();
    ck_assert(zf());
    ck_hex(cpu->regs[REG_RAX], 0x13);
    step();
    ck_assert(!zf());
}
END_TEST

START_TEST(protected_instructions_are_undefined_in_real_mode)
{
    enter_real();
    code(0x0F, 0x00, 0xC0); // sldt ax
    step();
    ck_handler(6);
}
END_TEST

START_TEST(push_and_pop_of_segments)
{
    enter_protected(0);
    put32(STACK3 - 4, 0xAAAAAAAA);
    code(0x1E, 0x07); // push ds; pop es
    step();
    ck_hex(get32(STACK3 - 4), 0xAAAA0000 | DATA0); // only the low word is written
    step();
    ck_hex(cpu->segments[SEG_ES].selector, DATA0);
    ck_hex(cpu->regs[REG_RSP], STACK3);
}
END_TEST

START_TEST(lds_loads_both)
{
    enter_protected(0);
    put32(DATA, 0x12345678);
    put16(DATA + 4, DATA3);
    code(0xC5, 0x1D, 0x00, 0x80, 0x02, 0x00); // lds ebx, [28000h]
    step();
    ck_hex(cpu->regs[REG_RBX], 0x12345678);
    ck_hex(cpu->segments[SEG_DS].selector, DATA3);
}
END_TEST

START_TEST(expand_down_stack_is_not_flat)
{
    enter_protected(0);
    put64(GDT + DATA0, UINT64_C(0x00CF970000000000)); // expand-down, limit FFFH
    ck_assert_int_eq(load(SEG_SS, DATA0), -1);
    ck_assert(!(cpu->mode & MODE_FLAT));
    cpu->regs[REG_RSP] = 0x1000;
    code(0x50);
    step();
    ck_assert(cpu->activity == ACTIVITY_SHUTDOWN ||
              cpu->regs[REG_RIP] != CODE + 1); // the stack cannot take the #SS either
}
END_TEST

START_TEST(rip_relative_operand_of_a_system_instruction)
{
    enter_long(0);
    // nop; nop; lgdt [rip + 0]; the pseudo-descriptor follows
    code(0x90, 0x90, 0x0F, 0x01, 0x15, 0x00, 0x00, 0x00, 0x00, 0x77, 0x01, 0x00, 0x10, 0, 0, 0, 0, 0, 0);
    cpu_run(cpu, cpu_now(cpu) + 4, false);
    while (cpu->regs[REG_RIP] < CODE + 9)
        step();
    ck_hex(cpu->gdtr.limit, 0x177);
    ck_hex(cpu->gdtr.base, 0x1000);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu/segment");
#define T(name) add_test(suite, #name, name)
    T(real_mode_load_keeps_limit);
    T(data_load_sets_accessed);
    T(data_load_checks);
    T(null_data_segment_faults_on_use);
    T(stack_load_checks);
    T(mov_ss_holds_interrupts_for_one_instruction);
    T(null_ss_is_allowed_in_64_bit_kernel_code);
    T(long_mode_fs_load_takes_base_from_descriptor);
    T(lldt_and_ldt_selectors);
    T(ltr_marks_busy_and_refuses_busy);
    T(ltr_in_long_mode_reads_16_bytes);
    T(lar_lsl_verr_verw);
    T(lsl_applies_granularity);
    T(arpl_raises_rpl);
    T(protected_instructions_are_undefined_in_real_mode);
    T(push_and_pop_of_segments);
    T(lds_loads_both);
    T(expand_down_stack_is_not_flat);
    T(rip_relative_operand_of_a_system_instruction);
    return run_suite(suite);
}
