// MOV CR and MOV DR, LMSW, SMSW, CLTS, and what they invalidate.
#include "cpu_fixture.h"

static void mov_to_cr(unsigned number, uint64_t value)
{
    cpu->regs[REG_RAX] = value;
    const uint8_t bytes[] = {0x0F, 0x22, (uint8_t)(0xC0 | number << 3)};
    put(CODE, bytes, sizeof bytes);
    cpu->regs[REG_RIP] = CODE;
    step();
}

#define ck_done(length) ck_assert_uint_eq(cpu->regs[REG_RIP], CODE + (length))
#define ck_gp()         ck_handler(13)

START_TEST(cr0_consistency)
{
    static const struct {
        uint64_t value;
        bool ok;
    } row[] = {
        {CR0_PE, true},
        {CR0_PE | CR0_NW, false},
        {CR0_PE | CR0_NW | CR0_CD, true},
        {CR0_PE | BIT(32), true /* 32-bit operand */},
        {CR0_PG, false},
        {CR0_PE | CR0_WP | CR0_NE | BIT(10), true},
    };
    for (unsigned i = 0; i < sizeof row / sizeof row[0]; i++) {
        enter_protected(0);
        mov_to_cr(0, row[i].value);
        if (row[i].ok)
            ck_done(3);
        else
            ck_gp();
    }
    ck_hex(cpu->cr0, CR0_PE | CR0_WP | CR0_NE | CR0_ET); // reserved bits stay 0
}
END_TEST

START_TEST(cr0_upper_half_is_reserved_in_64_bit_mode)
{
    enter_long(0);
    mov_to_cr(0, cpu->cr0 | BIT(32));
    ck_gp();
}
END_TEST

START_TEST(paging_cannot_be_left_from_64_bit_code)
{
    enter_long(0);
    mov_to_cr(0, cpu->cr0 & ~CR0_PG);
    ck_gp();
    ck_assert(cpu_long_mode(cpu));
}
END_TEST

START_TEST(long_mode_is_entered_by_paging)
{
    enter_long(0); // makes the tables
    uint64_t cr0 = cpu->cr0;
    cpu_load_control_registers(cpu, cr0 & ~CR0_PG, TABLES, CR4_PAE, EFER_LME);
    load_segment(SEG_CS, CODE0);
    cpu_update_mode(cpu);
    for (unsigned v = 0; v < 32; v++)
        put64(IDT + v * 8, gate(CODE0, HANDLERS + v * 16, SYSTEM_INTERRUPT_GATE, 0));
    mov_to_cr(0, cr0);
    ck_done(3);
    ck_assert(cpu_long_mode(cpu));
    ck_assert(!cpu_64bit(cpu)); // compatibility mode until CS.L
    mov_to_cr(0, cr0 & ~CR0_PG);
    ck_done(3);
    ck_assert(!cpu_long_mode(cpu));
}
END_TEST

START_TEST(long_mode_needs_pae)
{
    enter_protected(0);
    cpu->efer = EFER_LME;
    mov_to_cr(0, cpu->cr0 | CR0_PG);
    ck_gp();
}
END_TEST

START_TEST(cr4_reserved_bits)
{
    static const struct {
        uint64_t value;
        bool ok;
    } row[] = {
        {CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_FSGSBASE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP | CR4_VMXE,
         true},
        {CR4_PAE | CR4_PCIDE, true},
        {0, false},
        {CR4_PAE | CR4_LA57, false},
        {CR4_PAE | CR4_SMXE, false},
        {CR4_PAE | CR4_PKE, false},
        {CR4_PAE | CR4_UMIP, false},
        {CR4_PAE | BIT(32), false},
        {CR4_PAE | BIT(63), false},
        {CR4_PAE | BIT(15), false},
    };
    for (unsigned i = 0; i < sizeof row / sizeof row[0]; i++) {
        enter_long(0);
        mov_to_cr(4, row[i].value);
        if (row[i].ok)
            ck_hex(cpu->cr4, row[i].value);
        else
            ck_gp();
    }
}
END_TEST

START_TEST(pcide_needs_pcid_0)
{
    enter_long(0);
    cpu->cr3 |= 5;
    cpu_update_mode(cpu);
    mov_to_cr(4, cpu->cr4 | CR4_PCIDE);
    ck_gp();
}
END_TEST

START_TEST(cr3_reserved_bits)
{
    enter_long(0);
    mov_to_cr(3, TABLES | BIT(39)); // MAXPHYADDR is 39
    ck_gp();
    mov_to_cr(3, TABLES | CR3_NOFLUSH); // without PCIDE
    ck_gp();
}
END_TEST

// Maps linear 40000000H to `frame` through a page directory of its own.
static void map_probe(uint64_t frame, uint64_t flags)
{
    put64(TABLES + 0x1000 + 8, (TABLES + 0x3000) | 7);
    put64(TABLES + 0x3000, frame | 0x87 | flags);
}

static uint32_t probe(void)
{
    code(0x8B, 0x04, 0x25, 0x00, 0x00, 0x00, 0x40); // mov eax, [40000000h]
    step();
    return (uint32_t)cpu->regs[REG_RAX];
}

START_TEST(mov_cr3_flushes_all_but_global)
{
    enter_long(0);
    cpu->cr4 |= CR4_PGE;
    cpu_update_mode(cpu);
    put32(0x200000, 0x2222);
    put32(0x400000, 0x4444);
    map_probe(0x200000, 0);
    ck_hex(probe(), 0x2222);
    map_probe(0x400000, 0);
    ck_hex(probe(), 0x2222); // still the cached translation
    mov_to_cr(3, TABLES);
    ck_hex(probe(), 0x4444);
    map_probe(0x200000, BIT(8)); // global
    mov_to_cr(3, TABLES);
    ck_hex(probe(), 0x2222);
    map_probe(0x400000, BIT(8));
    mov_to_cr(3, TABLES);
    ck_hex(probe(), 0x2222);
    mov_to_cr(4, cpu->cr4 & ~CR4_PGE);
    ck_hex(probe(), 0x4444);
}
END_TEST

START_TEST(mov_cr3_with_bit_63_keeps_the_pcid)
{
    enter_long(0);
    mov_to_cr(4, cpu->cr4 | CR4_PCIDE);
    put32(0x200000, 0x2222);
    put32(0x400000, 0x4444);
    map_probe(0x200000, 0);
    ck_hex(probe(), 0x2222);
    map_probe(0x400000, 0);
    mov_to_cr(3, TABLES | CR3_NOFLUSH);
    ck_hex(cpu->cr3, TABLES);
    ck_hex(probe(), 0x2222);
    mov_to_cr(3, TABLES | 1); // another PCID
    ck_hex(cpu->mmu.cr3, TABLES | 1);
    mov_to_cr(3, TABLES | CR3_NOFLUSH);
    ck_hex(probe(), 0x2222);
    mov_to_cr(3, TABLES);
    ck_hex(probe(), 0x4444);
}
END_TEST

START_TEST(invlpg_and_invpcid)
{
    enter_long(0);
    put32(0x200000, 0x2222);
    put32(0x400000, 0x4444);
    map_probe(0x200000, 0);
    ck_hex(probe(), 0x2222);
    map_probe(0x400000, 0);
    code(0x0F, 0x01, 0x3C, 0x25, 0x00, 0x00, 0x00, 0x40); // invlpg [40000000h]
    step();
    ck_hex(probe(), 0x4444);
    map_probe(0x200000, 0);
    put64(DATA, 0);
    put64(DATA + 8, 0x40000000);
    cpu->regs[REG_RCX] = 0;
    code(0x66, 0x0F, 0x38, 0x82, 0x0C, 0x25, 0x00, 0x80, 0x02, 0x00); // invpcid rcx, [28000h]
    step();
    ck_hex(probe(), 0x2222);
    cpu->regs[REG_RCX] = 4;
    code(0x66, 0x0F, 0x38, 0x82, 0x0C, 0x25, 0x00, 0x80, 0x02, 0x00);
    step();
    ck_gp();
    put64(DATA, 1); // a PCID without CR4.PCIDE
    cpu->regs[REG_RCX] = 1;
    code(0x66, 0x0F, 0x38, 0x82, 0x0C, 0x25, 0x00, 0x80, 0x02, 0x00);
    step();
    ck_gp();
}
END_TEST

START_TEST(pae_pdptes_are_loaded_by_mov_cr3)
{
    enter_protected(0);
    for (unsigned i = 0; i < 4; i++)
        put64(TABLES + i * 8, i == 0 ? (TABLES + 0x1000) | 1 : 0);
    for (uint64_t i = 0; i < 512; i++)
        put64(TABLES + 0x1000 + i * 8, i << 21 | 0x87);
    cpu->cr3 = TABLES;
    cpu->cr4 = CR4_PAE;
    cpu_update_mode(cpu);
    mov_to_cr(0, cpu->cr0 | CR0_PG);
    ck_done(3);
    ck_hex(cpu->mmu.pdpte[0], (TABLES + 0x1000) | 1);
    put64(TABLES + 8, 0x8000 | 1 | BIT(5)); // a reserved bit
    mov_to_cr(3, TABLES);
    ck_gp();
    ck_hex(cpu->mmu.pdpte[1], 0); // the old ones stay
}
END_TEST

START_TEST(cpl_3_may_not_touch_control_registers)
{
    enter_protected(3);
    mov_to_cr(0, 0);
    ck_gp();
}
END_TEST

START_TEST(control_registers_1_5_7_are_undefined)
{
    enter_protected(0);
    mov_to_cr(1, 0);
    ck_handler(6);
    mov_to_cr(7, 0);
    ck_handler(6);
}
END_TEST

START_TEST(lmsw_sets_but_does_not_clear_pe)
{
    enter_protected(0);
    cpu->regs[REG_RAX] = CR0_TS | CR0_MP;
    code(0x0F, 0x01, 0xF0);
    step();
    ck_hex(cpu->cr0 & 0xF, CR0_PE | CR0_TS | CR0_MP);
    code(0x0F, 0x06); // clts
    step();
    ck_assert(!(cpu->cr0 & CR0_TS));
    code(0x0F, 0x01, 0xE0); // smsw eax
    step();
    ck_hex(cpu->regs[REG_RAX], cpu->cr0);
}
END_TEST

static void mov_to_dr(unsigned number, uint64_t value)
{
    cpu->regs[REG_RAX] = value;
    const uint8_t bytes[] = {0x0F, 0x23, (uint8_t)(0xC0 | number << 3)};
    put(CODE, bytes, sizeof bytes);
    cpu->regs[REG_RIP] = CODE;
    step();
}

START_TEST(debug_registers)
{
    enter_protected(0);
    mov_to_dr(7, 0xFFFFFFFF & ~DR7_GD & ~UINT64_C(0xFF));
    ck_hex(cpu->dr7, 0xFFFF0700);
    mov_to_dr(5, 0x400); // DR5 is DR7 without CR4.DE
    ck_hex(cpu->dr7, 0x400);
    mov_to_dr(6, 0);
    ck_hex(cpu->dr6, DR6_FIXED);
    cpu->cr4 |= CR4_DE;
    mov_to_dr(4, 0);
    ck_handler(6);
}
END_TEST

START_TEST(general_detect)
{
    enter_protected(0);
    mov_to_dr(7, DR7_GD);
    mov_to_dr(0, 0);
    ck_handler(1);
    ck_assert(cpu->dr6 & DR6_BD);
    ck_assert(!(cpu->dr7 & DR7_GD));
    ck_hex(get32(STACK3 - 12), CODE);
}
END_TEST

START_TEST(debug_register_upper_half_faults)
{
    enter_long(0);
    mov_to_dr(7, BIT(32));
    ck_gp();
    mov_to_dr(6, BIT(63));
    ck_gp();
    mov_to_dr(0, BIT(63));
    ck_done(3);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu/control_register");
#define T(name) add_test(suite, #name, name)
    T(cr0_consistency);
    T(cr0_upper_half_is_reserved_in_64_bit_mode);
    T(paging_cannot_be_left_from_64_bit_code);
    T(long_mode_is_entered_by_paging);
    T(long_mode_needs_pae);
    T(cr4_reserved_bits);
    T(pcide_needs_pcid_0);
    T(cr3_reserved_bits);
    T(mov_cr3_flushes_all_but_global);
    T(mov_cr3_with_bit_63_keeps_the_pcid);
    T(invlpg_and_invpcid);
    T(pae_pdptes_are_loaded_by_mov_cr3);
    T(cpl_3_may_not_touch_control_registers);
    T(control_registers_1_5_7_are_undefined);
    T(lmsw_sets_but_does_not_clear_pe);
    T(debug_registers);
    T(general_detect);
    T(debug_register_upper_half_faults);
    return run_suite(suite);
}
