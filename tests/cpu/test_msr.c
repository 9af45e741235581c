// MSRs: each row of msrs.def reads, and what may be written.
#include "cpu_fixture.h"

static const struct {
    uint32_t index;
    const char *name;
    enum { STORED_ROW, CHECKED_ROW, CONSTANT_ROW, IGNORED_ROW, SPECIAL_ROW } kind;
} rows[] = {
#define STORED(i, n, field, w, reset)  {i, #n, STORED_ROW},
#define CHECKED(i, n, field, c, reset) {i, #n, CHECKED_ROW},
#define CONSTANT(i, n, v)              {i, #n, CONSTANT_ROW},
#define IGNORED(i, n, v)               {i, #n, IGNORED_ROW},
#define SPECIAL(i, n, a)               {i, #n, SPECIAL_ROW},
#include "cpu/msrs.def"
#undef STORED
#undef CHECKED
#undef CONSTANT
#undef IGNORED
#undef SPECIAL
};
#define ROWS (sizeof rows / sizeof rows[0])

static bool wrmsr(uint32_t index, uint64_t value)
{
    cpu->regs[REG_RCX] = index;
    cpu->regs[REG_RAX] = (uint32_t)value;
    cpu->regs[REG_RDX] = value >> 32;
    code(0x0F, 0x30);
    step();
    return cpu->regs[REG_RIP] == CODE + 2;
}

static bool rdmsr(uint32_t index, uint64_t *value)
{
    cpu->regs[REG_RCX] = index;
    code(0x0F, 0x32);
    step();
    *value = cpu->regs[REG_RDX] << 32 | (uint32_t)cpu->regs[REG_RAX];
    return cpu->regs[REG_RIP] == CODE + 2;
}

START_TEST(rows_ascend_and_are_named)
{
    for (unsigned i = 0; i < ROWS; i++) {
        ck_assert(i == 0 || rows[i - 1].index < rows[i].index);
        ck_assert_str_eq(msr_name(rows[i].index), rows[i].name);
    }
    ck_assert_ptr_null(msr_name(0x12345));
}
END_TEST

START_TEST(stored_rows_keep_what_they_read)
{
    enter_long(0);
    for (unsigned i = 0; i < ROWS; i++) {
        uint64_t value = 0, again = 0;
        if (rows[i].kind == SPECIAL_ROW)
            continue;
        ck_assert_msg(rdmsr(rows[i].index, &value), "%s", rows[i].name);
        ck_assert_msg(wrmsr(rows[i].index, value) == (rows[i].kind != CONSTANT_ROW), "%s", rows[i].name);
        ck_assert(rdmsr(rows[i].index, &again));
        ck_assert_msg(value == again, "%s", rows[i].name);
    }
}
END_TEST

START_TEST(ignored_rows_lose_writes)
{
    enter_long(0);
    for (unsigned i = 0; i < ROWS; i++) {
        uint64_t before, after;
        if (rows[i].kind != IGNORED_ROW)
            continue;
        ck_assert(rdmsr(rows[i].index, &before) && wrmsr(rows[i].index, ~before) && rdmsr(rows[i].index, &after));
        ck_assert_msg(before == after, "%s", rows[i].name);
    }
}
END_TEST

START_TEST(invalid_values_fault)
{
    static const struct {
        uint32_t index;
        uint64_t value;
        bool ok;
    } row[] = {
        {0xC0000080, EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE, true},
        {0xC0000080, BIT(1), false},
        {0xC0000080, EFER_LMA, false}, // LME may not change with paging on
        {0xC0000082, UINT64_C(0x800000000000), false},
        {0xC0000082, UINT64_C(0xFFFF800000000000), true},
        {0xC0000100, BIT(63), false},
        {0xC0000101, UINT64_C(0xFFFFFFFF80000000), true},
        {0xC0000102, BIT(48), false},
        {0xC0000103, BIT(32), false},
        {0xC0000084, BIT(32), false},
        {0x174, BIT(32), false},
        {0x175, BIT(50), false},
        {0x277, 0x0007040600070402, false},
        {0x277, 0x0505050505050505, true},
        {0x2FF, 0xC06, true},
        {0x2FF, 0x1000, false},
        {0x2FF, 2, false},
        {0x200, 6, true},
        {0x200, 0x106, false},
        {0x200, BIT(39), false},
        {0x201, 0x800, true},
        {0x201, 1, false},
        {0x250, 0x0606060606060606, true},
        {0x250, 3, false},
        {0xFE, 0, false},
        {0x1D9, 3, true},
        {0x1D9, BIT(40), false},
        {0xDA0, 1, false},
        {0x179, 0, false},
        {0x48, 0, false},
        {0xC0010015, 0, false},
        {0x40000000, 0, false},
    };
    for (unsigned i = 0; i < sizeof row / sizeof row[0]; i++) {
        enter_long(0);
        ck_assert_msg(wrmsr(row[i].index, row[i].value) == row[i].ok, "%x %llx", row[i].index,
                      (unsigned long long)row[i].value);
    }
}
END_TEST

START_TEST(unknown_msr_faults)
{
    uint64_t value;
    enter_long(0);
    ck_assert(!rdmsr(0x12345, &value));
    ck_handler(13);
    ck_assert(!rdmsr(0x480, &value)); // without VMX connected
}
END_TEST

START_TEST(msr_access_needs_cpl_0)
{
    uint64_t value;
    enter_long(3);
    ck_assert(!rdmsr(0x10, &value));
    ck_handler(13);
}
END_TEST

START_TEST(tsc_counts_cycles_and_adjust_follows)
{
    uint64_t first, second, adjust;
    enter_long(0);
    ck_assert(rdmsr(0x10, &first) && rdmsr(0x10, &second));
    ck_assert(second > first && second - first < 1000);
    ck_assert(wrmsr(0x10, UINT64_C(1000000000000)));
    ck_assert(rdmsr(0x10, &second));
    ck_assert(second >= UINT64_C(1000000000000) && second < UINT64_C(1000000001000));
    ck_assert(rdmsr(0x3B, &adjust));
    ck_assert(adjust > UINT64_C(999999990000) && adjust <= UINT64_C(1000000000000));
    ck_assert(wrmsr(0x3B, 0));
    ck_assert(rdmsr(0x10, &second));
    ck_assert(second < 100000);
}
END_TEST

START_TEST(rdtsc_honours_tsd)
{
    enter_long(3);
    code(0x0F, 0x31);
    step();
    ck_hex(cpu->regs[REG_RIP], CODE + 2);
    cpu->cr4 |= CR4_TSD;
    code(0x0F, 0x31);
    step();
    ck_handler(13);
}
END_TEST

START_TEST(rdtscp_returns_tsc_aux)
{
    enter_long(3);
    cpu->tsc_aux = 0x1234;
    code(0x0F, 0x01, 0xF9);
    step();
    ck_hex(cpu->regs[REG_RCX], 0x1234);
}
END_TEST

START_TEST(segment_bases)
{
    uint64_t value;
    enter_long(0);
    ck_assert(wrmsr(0xC0000101, 0x1111) && wrmsr(0xC0000102, 0x2222));
    code(0x0F, 0x01, 0xF8); // swapgs
    step();
    ck_assert(rdmsr(0xC0000101, &value));
    ck_hex(value, 0x2222);
    ck_hex(cpu->segment_base[SEG_GS], 0x2222);
    code(0xF3, 0x48, 0x0F, 0xAE, 0xC8); // rdgsbase rax
    step();
    ck_handler(6); // without CR4.FSGSBASE
    cpu->cr4 |= CR4_FSGSBASE;
    code(0xF3, 0x48, 0x0F, 0xAE, 0xC8);
    step();
    ck_hex(cpu->regs[REG_RAX], 0x2222);
    cpu->regs[REG_RAX] = BIT(50);
    code(0xF3, 0x48, 0x0F, 0xAE, 0xD0); // wrfsbase rax
    step();
    ck_handler(13);
}
END_TEST

START_TEST(nx_disable_hides_nx)
{
    struct cpuid_result r;
    uint64_t misc;
    enter_protected(0);
    cpuid_read(cpu, 0x80000001, 0, &r);
    ck_assert(r.edx & BIT(20));
    ck_assert(rdmsr(0x1A0, &misc) && wrmsr(0x1A0, misc | BIT(34)));
    cpuid_read(cpu, 0x80000001, 0, &r);
    ck_assert(!(r.edx & BIT(20)));
    ck_assert(!wrmsr(0xC0000080, EFER_NXE));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu/msr");
#define T(name) add_test(suite, #name, name)
    T(rows_ascend_and_are_named);
    T(stored_rows_keep_what_they_read);
    T(ignored_rows_lose_writes);
    T(invalid_values_fault);
    T(unknown_msr_faults);
    T(msr_access_needs_cpl_0);
    T(tsc_counts_cycles_and_adjust_follows);
    T(rdtsc_honours_tsd);
    T(rdtscp_returns_tsc_aux);
    T(segment_bases);
    T(nx_disable_hides_nx);
    return run_suite(suite);
}
