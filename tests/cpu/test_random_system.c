// Random system instructions on random descriptor tables, in every mode: nothing may crash, and the processor stays consistent.
// The sanitizer builds give this test its teeth.
#include "cpu_fixture.h"

enum { ROUNDS = 300, STEPS = 60 };

static uint64_t state;

static uint64_t random64(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

// Opcodes of the system layer; what follows them is random.
static const uint8_t opcodes[][3] = {
    {1, 0x8E},       {1, 0x8C},       {1, 0x9A},       {1, 0xEA},       {1, 0xCF},       {1, 0xCB},
    {1, 0xCA},       {1, 0xCD},       {1, 0xCC},       {1, 0xCE},       {1, 0xF1},       {1, 0x62},
    {1, 0xC4},       {1, 0xC5},       {1, 0x07},       {1, 0x17},       {1, 0x1F},       {1, 0x06},
    {1, 0xE4},       {1, 0xEE},       {1, 0x6C},       {1, 0xFA},       {1, 0xFB},       {1, 0x9D},
    {1, 0xFF},       {1, 0x63},       {2, 0x0F, 0x00}, {2, 0x0F, 0x01}, {2, 0x0F, 0x02}, {2, 0x0F, 0x03},
    {2, 0x0F, 0x05}, {2, 0x0F, 0x06}, {2, 0x0F, 0x07}, {2, 0x0F, 0x20}, {2, 0x0F, 0x21}, {2, 0x0F, 0x22},
    {2, 0x0F, 0x23}, {2, 0x0F, 0x30}, {2, 0x0F, 0x32}, {2, 0x0F, 0x34}, {2, 0x0F, 0x35}, {2, 0x0F, 0xA2},
    {2, 0x0F, 0xAE}, {2, 0x0F, 0xC7}, {2, 0x0F, 0xB2}, {2, 0x0F, 0xB4}, {2, 0x0F, 0xA1}, {2, 0x0F, 0x31},
};

static void random_table(hpa_t address, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i += 8)
        if (random64() % 3 == 0)
            put64(address + i, get64(address + i) ^ (random64() & random64() & random64()));
}

static void random_state(void)
{
    for (unsigned i = 0; i < 16; i++)
        cpu->regs[i] = random64() % 4 ? random64() & 0x3FFFF : random64();
    if (!cpu_64bit(cpu))
        for (unsigned i = 0; i < 16; i++)
            cpu->regs[i] &= 0xFFFFFFFF;
    random_table(GDT, GDT_LIMIT + 1);
    random_table(IDT, 0x1000);
    random_table(TSS, 0x800);
    if (random64() % 4 == 0)
        cpu_set_rflags(cpu, (cpu->rflags_system & RFLAGS_VM) | (random64() & 0x3F7FD7 & ~RFLAGS_VM));
    if (random64() % 4 == 0)
        cpu_write_dr7(cpu, random64());
    cpu->cr4 |= random64() & (CR4_VME | CR4_PVI | CR4_DE | CR4_FSGSBASE | CR4_PCIDE | CR4_TSD) &
                (cpu_long_mode(cpu) ? ~UINT64_C(0) : ~CR4_PCIDE);
    cpu_update_mode(cpu);
}

static void random_code(hpa_t address)
{
    for (unsigned i = 0; i < 64; i += 8)
        put64(address + i, random64());
    for (unsigned i = 0; i < 4; i++) {
        const uint8_t *opcode = opcodes[random64() % (sizeof opcodes / sizeof opcodes[0])];
        put(address + i * 12, opcode + 1, opcode[0]);
    }
}

static void check_consistent(void)
{
    ck_assert(!cpu->block);
    ck_assert(cpu->cpl <= 3);
    ck_assert(!(cpu->cr0 & CR0_PE) || cpu_v8086(cpu) ||
              bits_get(cpu->segments[SEG_SS].access_rights, 6, 5) == cpu->cpl);
    ck_assert(!(cpu->cr0 & CR0_PG) || (cpu->cr0 & CR0_PE));
    ck_assert(!!(cpu->efer & EFER_LMA) == ((cpu->cr0 & CR0_PG) && (cpu->efer & EFER_LME)));
    ck_assert(!cpu_long_mode(cpu) || ((cpu->cr4 & CR4_PAE) && !cpu_v8086(cpu)));
    ck_assert(!(cpu->rflags_system & ~UINT64_C(0x3F7702)) && (cpu->rflags_system & RFLAGS_ONE));
    ck_assert(!(cpu->cr4 & cpu_cr4_reserved(cpu)));
    ck_assert(cpu->mmu.cr0 == cpu->cr0 && cpu->mmu.cr3 == cpu->cr3 && cpu->mmu.cr4 == cpu->cr4 &&
              cpu->mmu.efer == cpu->efer);
    ck_assert((cpu->rip_mask & 0xFFFF) == 0xFFFF);
    ck_assert(is_canonical(cpu->gdtr.base, 48) && is_canonical(cpu->idtr.base, 48));
}

static void round_of(void (*enter)(void))
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        if (i)
            cpu_reset(cpu, true);
        cpu->efer = 0;
        enter();
        random_state();
        random_code(CODE);
        cpu->regs[REG_RIP] = CODE - cpu->segment_base[SEG_CS];
        for (unsigned s = 0; s < STEPS && cpu->activity == ACTIVITY_ACTIVE; s++) {
            if (random64() % 16 == 0) {
                pending_vector = (int)(random64() & 0xFF);
                cpu->pending |= PENDING_INTERRUPT;
            }
            if (random64() % 32 == 0)
                cpu->pending |= PENDING_NMI;
            enum exec_result r = cpu_run(cpu, cpu_now(cpu) + (random64() % 2 ? 20 : 200), random64() % 2);
            ck_assert(r == EXEC_DONE || r == EXEC_HALT);
            check_consistent();
            if (random64() % 8 == 0) {
                random_code(CODE + 256);
                cpu->regs[REG_RIP] = (CODE + 256 - cpu->segment_base[SEG_CS]) & cpu->rip_mask;
            }
        }
        cpu->activity = ACTIVITY_ACTIVE;
    }
}

static void protected0(void) { enter_protected(0); }
static void protected3(void)
{
    enter_protected(3);
    cpu_set_rflags(cpu, random64() & RFLAGS_IOPL);
}
static void long0(void) { enter_long(0); }
static void long3(void) { enter_long(3); }

START_TEST(real_mode)
{
    state = 1;
    round_of(enter_real);
}
END_TEST
START_TEST(protected_mode_cpl_0)
{
    state = 2;
    round_of(protected0);
}
END_TEST
START_TEST(protected_mode_cpl_3)
{
    state = 3;
    round_of(protected3);
}
END_TEST
START_TEST(virtual_8086_mode)
{
    state = 4;
    round_of(enter_v8086);
}
END_TEST
START_TEST(long_mode_cpl_0)
{
    state = 5;
    round_of(long0);
}
END_TEST
START_TEST(long_mode_cpl_3)
{
    state = 6;
    round_of(long3);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu/random_system");
#define T(name) add_test(suite, #name, name)
    T(real_mode);
    T(protected_mode_cpl_0);
    T(protected_mode_cpl_3);
    T(virtual_8086_mode);
    T(long_mode_cpl_0);
    T(long_mode_cpl_3);
    return run_suite(suite);
}
