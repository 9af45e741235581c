// FXSAVE, FXRSTOR and the XSAVE family.
#include "cpu_fixture.h"

#define AREA DATA

// Runs an instruction of group 15 or 9 (after `prefix` bytes) on [AREA], with RBX = AREA. rex_w: 64-bit form.
static void run(uint8_t opcode, unsigned reg, bool rex_w)
{
    uint8_t bytes[4];
    unsigned n = 0;
    if (rex_w)
        bytes[n++] = 0x48;
    bytes[n++] = 0x0F;
    bytes[n++] = opcode;
    bytes[n++] = (uint8_t)(reg << 3 | REG_RBX);
    put(CODE, bytes, n);
    cpu->regs[REG_RIP] = CODE;
    step();
}
#define FXSAVE()   run(0xAE, 0, true)
#define FXRSTOR()  run(0xAE, 1, true)
#define XSAVE()    run(0xAE, 4, true)
#define XRSTOR()   run(0xAE, 5, true)
#define XSAVEOPT() run(0xAE, 6, true)
#define XSAVEC()   run(0xC7, 4, true)
#define XSAVES()   run(0xC7, 5, true)
#define XRSTORS()  run(0xC7, 3, true)
#define ck_ok()    ck_assert_msg(cpu->regs[REG_RIP] == CODE + 4, "RIP %llx", (unsigned long long)cpu->regs[REG_RIP])

static void fill(void)
{
    enter_long(0);
    cpu->xcr0 = 3;
    cpu->regs[REG_RBX] = AREA;
    cpu->regs[REG_RAX] = 3;
    cpu->regs[REG_RDX] = 0;
    cpu->fpu.control = 0x27F;
    cpu->fpu.status = 5 << 11; // TOP = 5
    cpu->fpu.tag = 0xFFFF & ~(3u << 10);
    cpu->fpu.st[5].mantissa = BIT(63);
    cpu->fpu.st[5].sign_exponent = 0x3FFF;
    for (unsigned i = 0; i < 16; i++)
        cpu->xmm[i] = (struct xmm){.lo = i * 3 + 1, .hi = ~(uint64_t)i};
    cpu->mxcsr = 0x1F81;
}

static void clear(void)
{
    memset(&cpu->fpu, 0, sizeof cpu->fpu);
    memset(cpu->xmm, 0, sizeof cpu->xmm);
    cpu->mxcsr = 0;
}

static void check_restored(void)
{
    ck_hex(cpu->fpu.control, 0x27F);
    ck_hex(cpu->fpu.status, 5 << 11);
    ck_hex(cpu->fpu.tag, 0xFFFF & ~(3u << 10));
    ck_hex(cpu->fpu.st[5].mantissa, BIT(63));
    ck_hex(cpu->fpu.st[5].sign_exponent, 0x3FFF);
    for (unsigned i = 0; i < 16; i++)
        ck_assert(cpu->xmm[i].lo == i * 3 + 1 && cpu->xmm[i].hi == ~(uint64_t)i);
    ck_hex(cpu->mxcsr, 0x1F81);
}

START_TEST(fxsave_layout_and_back)
{
    fill();
    put64(AREA + 464, 0x1234567812345678);
    FXSAVE();
    ck_ok();
    ck_hex(get16(AREA), 0x27F);
    ck_hex(get16(AREA + 4), 1 << 5);   // abridged tag by physical register
    ck_hex(get64(AREA + 32), BIT(63)); // ST0 first
    ck_hex(get32(AREA + 24), 0x1F81);
    ck_hex(get32(AREA + 28), 0xFFFF);
    ck_hex(get64(AREA + 160 + 16 * 15), 46);
    ck_hex(get64(AREA + 464), 0x1234567812345678); // left to software
    clear();
    FXRSTOR();
    ck_ok();
    check_restored();
}
END_TEST

START_TEST(fxsave_faults)
{
    fill();
    cpu->regs[REG_RBX] = AREA + 8;
    FXSAVE();
    ck_handler(13);
    fill();
    cpu->cr0 |= CR0_TS;
    FXSAVE();
    ck_handler(7);
}
END_TEST

START_TEST(fxrstor_refuses_reserved_mxcsr)
{
    fill();
    FXSAVE();
    put32(AREA + 24, 0x10000);
    FXRSTOR();
    ck_handler(13);
    ck_hex(cpu->mxcsr, 0x1F81);
}
END_TEST

START_TEST(outside_64_bit_mode_eight_registers)
{
    fill();
    enter_protected(0);
    cpu->cr0 &= ~CR0_PG;
    put64(AREA + 160 + 16 * 8, 0x77);
    run(0xAE, 0, false);
    ck_hex(get64(AREA + 160 + 16 * 7), 22);
    ck_hex(get64(AREA + 160 + 16 * 8), 0x77);
}
END_TEST

START_TEST(xsave_and_xrstor)
{
    fill();
    put64(AREA + 512, 0);
    XSAVE();
    ck_ok();
    ck_hex(get64(AREA + 512), 3);
    clear();
    XRSTOR();
    ck_ok();
    check_restored();
}
END_TEST

START_TEST(xsave_needs_osxsave_and_alignment)
{
    fill();
    cpu->regs[REG_RBX] = AREA + 16;
    XSAVE();
    ck_handler(13);
    fill();
    cpu->cr4 &= ~CR4_OSXSAVE;
    XSAVE();
    ck_handler(6);
}
END_TEST

START_TEST(xsave_keeps_bits_outside_the_request)
{
    fill();
    put64(AREA + 512, 3);
    cpu->regs[REG_RAX] = 1;
    put64(AREA + 160, 0x55);
    XSAVE();
    ck_hex(get64(AREA + 512), 3);
    ck_hex(get64(AREA + 160), 0x55);
    memset(&cpu->fpu, 0, sizeof cpu->fpu);
    cpu->fpu.control = 0x37F;
    cpu->fpu.tag = 0xFFFF;
    XSAVE();
    ck_hex(get64(AREA + 512), 2); // x87 is in its initial configuration
}
END_TEST

START_TEST(xsaveopt_does_not_write_initial_components)
{
    fill();
    memset(cpu->xmm, 0, sizeof cpu->xmm);
    put64(AREA + 160, 0x55);
    put64(AREA + 512, 0);
    XSAVEOPT();
    ck_ok();
    ck_hex(get64(AREA + 512), 1);
    ck_hex(get64(AREA + 160), 0x55);
    ck_hex(get32(AREA + 24), 0x1F81); // MXCSR is written all the same
}
END_TEST

START_TEST(xsavec_compacts)
{
    fill();
    put64(AREA + 520, 0x99);
    XSAVEC();
    ck_ok();
    ck_hex(get64(AREA + 512), 3);
    ck_hex(get64(AREA + 520), BIT(63) | 3);
    for (unsigned i = 528; i < 576; i += 8)
        put64(AREA + i, 0);
    clear();
    XRSTOR();
    ck_ok();
    check_restored();
}
END_TEST

START_TEST(xsaves_and_xrstors)
{
    fill();
    for (unsigned i = 528; i < 576; i += 8)
        put64(AREA + i, 0);
    XSAVES();
    ck_ok();
    clear();
    XRSTORS();
    ck_ok();
    check_restored();
    put64(AREA + 520, 0); // XRSTORS takes the compacted form only
    XRSTORS();
    ck_handler(13);
}
END_TEST

START_TEST(xrstor_initializes_absent_components)
{
    fill();
    put64(AREA + 512, 0);
    put64(AREA + 520, 0);
    put64(AREA + 528, 0);
    put32(AREA + 24, 0x1FA0);
    XRSTOR();
    ck_ok();
    ck_hex(cpu->fpu.control, 0x37F);
    ck_hex(cpu->xmm[5].lo, 0);
    ck_hex(cpu->mxcsr, 0x1FA0); // standard form: loaded even so
}
END_TEST

START_TEST(xrstor_header_checks)
{
    static const struct {
        uint64_t xstate, xcomp, reserved;
        unsigned reserved_at;
        bool ok;
    } row[] = {
        {3, 0, 0, 528, true},
        {4, 0, 0, 528, false},
        {3, 1, 0, 528, false},
        {3, 0, 1, 528, false},
        {3, 0, 1, 536, true},
        {3, BIT(63) | 3, 0, 528, true},
        {3, BIT(63) | 1, 0, 528, false},
        {1, BIT(63) | 7, 0, 528, false},
        {3, BIT(63) | 3, 1, 568, false},
    };
    for (unsigned i = 0; i < sizeof row / sizeof row[0]; i++) {
        fill();
        for (unsigned j = 512; j < 576; j += 8)
            put64(AREA + j, 0);
        put64(AREA + 512, row[i].xstate);
        put64(AREA + 520, row[i].xcomp);
        put64(AREA + row[i].reserved_at, row[i].reserved);
        put32(AREA + 24, 0x1F80);
        XRSTOR();
        ck_assert_msg((cpu->regs[REG_RIP] == CODE + 4) == row[i].ok, "row %u", i);
    }
}
END_TEST

START_TEST(xsetbv_and_xgetbv)
{
    static const struct {
        uint32_t index, value;
        bool ok;
    } row[] = {{0, 3, true}, {0, 1, true}, {0, 2, false}, {0, 7, false}, {1, 1, false}};
    for (unsigned i = 0; i < sizeof row / sizeof row[0]; i++) {
        enter_long(0);
        cpu->regs[REG_RCX] = row[i].index;
        cpu->regs[REG_RAX] = row[i].value;
        cpu->regs[REG_RDX] = 0;
        code(0x0F, 0x01, 0xD1);
        step();
        ck_assert_msg((cpu->regs[REG_RIP] == CODE + 3) == row[i].ok, "row %u", i);
    }
    fill();
    memset(cpu->xmm, 0, sizeof cpu->xmm);
    cpu->regs[REG_RCX] = 1;
    code(0x0F, 0x01, 0xD0);
    step();
    ck_hex(cpu->regs[REG_RAX], 1); // in use: x87 only
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu/state");
#define T(name) add_test(suite, #name, name)
    T(fxsave_layout_and_back);
    T(fxsave_faults);
    T(fxrstor_refuses_reserved_mxcsr);
    T(outside_64_bit_mode_eight_registers);
    T(xsave_and_xrstor);
    T(xsave_needs_osxsave_and_alignment);
    T(xsave_keeps_bits_outside_the_request);
    T(xsaveopt_does_not_write_initial_components);
    T(xsavec_compacts);
    T(xsaves_and_xrstors);
    T(xrstor_initializes_absent_components);
    T(xrstor_header_checks);
    T(xsetbv_and_xgetbv);
    return run_suite(suite);
}
