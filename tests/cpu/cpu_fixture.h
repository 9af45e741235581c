// A processor with 16 MiB of RAM for unit tests, put into a mode with tables to match.
//
// Physical layout: GDT 1000H, IDT 2000H, TSS 3000H (second 3400H), handlers 8000H + 16 * vector (each HLT), code 20000H, stacks below
// 30000H (CPL 3), 31000H (CPL 0), 32000H (CPL 1), 33000H (IST1), page tables 100000H.
#ifndef VMXON_TESTS_CPU_FIXTURE_H
#define VMXON_TESTS_CPU_FIXTURE_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"
#include "cpu/descriptor.h"
#include "cpu/profile.h"
#include "cpu/system.h"

#define GDT       0x1000u
#define IDT       0x2000u
#define TSS       0x3000u
#define TSS2      0x3400u
#define HANDLERS  0x8000u
#define CODE      0x20000u
#define DATA      0x28000u
#define STACK3    0x30000u
#define STACK0    0x31000u
#define STACK1    0x32000u
#define STACK_IST 0x33000u
#define TABLES    0x100000u

enum { // selectors
    CODE0 = 0x08,
    DATA0 = 0x10,
    CODE3 = 0x1B,
    DATA3 = 0x23,
    TSS_A = 0x28,
    CODE16 = 0x38,
    CONFORMING = 0x40,
    GATE = 0x48,
    TSS_B = 0x58,
    LDT = 0x60,
    CODE1 = 0x71,
    DATA1 = 0x79,
    CODE64 = 0x80,
    CODE64_USER = 0x8B,
    ABSENT = 0x90,
    READONLY = 0x98,
    EXECUTE_ONLY = 0xA0,
    TASK_GATE = 0xA8,
    GDT_LIMIT = 0xFF,
};

#define D_CODE            UINT64_C(0x00CF9B000000FFFF) // 32-bit code, DPL 0, flat, accessed
#define D_DATA            UINT64_C(0x00CF93000000FFFF)
#define D_CODE64          UINT64_C(0x00AF9B000000FFFF)
#define D_DPL(n)          ((uint64_t)(n) << 45)
#define D_NOT_ACCESSED(d) ((d) & ~BIT(40))

static struct memory memory;
static struct bus bus;
static struct cpu *cpu;
static int pending_vector; // what the interrupt controller asserts; -1: nothing

static inline bool test_interrupt_pending(void *owner)
{
    (void)owner;
    return pending_vector >= 0;
}
static inline int test_acknowledge(void *owner)
{
    (void)owner;
    int vector = pending_vector;
    pending_vector = -1;
    return vector;
}

static inline void put(hpa_t address, const void *bytes, unsigned size)
{
    ck_assert(memory_write(&memory, address, bytes, size));
}
static inline void put64(hpa_t address, uint64_t value) { put(address, &value, 8); }
static inline void put32(hpa_t address, uint32_t value) { put(address, &value, 4); }
static inline void put16(hpa_t address, uint16_t value) { put(address, &value, 2); }
static inline uint64_t get64(hpa_t address)
{
    uint64_t v;
    ck_assert(memory_read(&memory, address, &v, 8));
    return v;
}
static inline uint32_t get32(hpa_t address) { return (uint32_t)get64(address); }
static inline uint16_t get16(hpa_t address) { return (uint16_t)get64(address); }

// Places instruction bytes at CODE and points RIP there.
#define code(...)                                              \
    do {                                                       \
        static const uint8_t code_bytes[] = {__VA_ARGS__};     \
        put(CODE, code_bytes, sizeof code_bytes);              \
        cpu->regs[REG_RIP] = CODE - cpu->segment_base[SEG_CS]; \
    } while (0)

// One instruction, or one event.
static inline enum exec_result step(void) { return cpu_run(cpu, cpu_now(cpu) + 1000000, true); }

static inline uint64_t gate(uint16_t selector, uint32_t offset, unsigned type, unsigned dpl)
{
    return (offset & 0xFFFF) | (uint64_t)selector << 16 | (uint64_t)type << 40 | D_DPL(dpl) | BIT(47) |
           (uint64_t)(offset >> 16) << 48;
}

static inline uint64_t system_descriptor(uint32_t base, uint32_t limit, unsigned type)
{
    return (limit & 0xFFFF) | (uint64_t)(base & 0xFFFFFF) << 16 | (uint64_t)type << 40 | BIT(47) |
           (uint64_t)(base >> 24) << 56;
}

static inline void fixture_setup(void)
{
    ck_assert_int_eq(memory_create(&memory, UINT64_C(16) << 20), MEMORY_OK);
    bus_init(&bus, &memory);
    cpu = aligned_alloc(64, (sizeof(struct cpu) + 63) / 64 * 64);
    ck_assert(cpu && cpu_init(cpu, &bus, cpu_profile_find("skylake"), 0));
    pending_vector = -1;
    cpu->env.interrupt_pending = test_interrupt_pending;
    cpu->env.interrupt_acknowledge = test_acknowledge;
}

static inline void fixture_teardown(void)
{
    cpu_destroy(cpu);
    free(cpu);
    memory_destroy(&memory);
}

// Real-address mode: IVT at 0 with handlers 800:16n, CS = 2000H, SS:SP = 3000:0, DS = 2800H.
static inline void enter_real(void)
{
    for (unsigned v = 0; v < 256; v++) {
        put32(v * 4, (HANDLERS >> 4) << 16 | v * 16);
        put(HANDLERS + v * 16, "\xF4", 1);
    }
    segment_load_real(cpu, SEG_CS, CODE >> 4);
    segment_load_real(cpu, SEG_SS, STACK3 >> 4);
    segment_load_real(cpu, SEG_DS, DATA >> 4);
    segment_load_real(cpu, SEG_ES, DATA >> 4);
    cpu->regs[REG_RSP] = 0x1000;
    cpu->regs[REG_RIP] = 0;
    cpu_update_mode(cpu);
}

static inline void load_table(void)
{
    static const struct {
        uint16_t selector;
        uint64_t descriptor;
    } row[] = {
        {CODE0, D_CODE},
        {DATA0, D_DATA},
        {CODE3, D_CODE | D_DPL(3)},
        {DATA3, D_DATA | D_DPL(3)},
        {CODE16, UINT64_C(0x00009B000000FFFF)},
        {CONFORMING, UINT64_C(0x00CF9F000000FFFF)},
        {CODE1, D_CODE | D_DPL(1)},
        {DATA1, D_DATA | D_DPL(1)},
        {CODE64, D_CODE64},
        {CODE64_USER, D_CODE64 | D_DPL(3)},
        {ABSENT, D_DATA & ~BIT(47)},
        {READONLY, UINT64_C(0x00CF91000000FFFF)},
        {EXECUTE_ONLY, UINT64_C(0x00CF99000000FFFF)},
    };
    for (unsigned i = 0; i < sizeof row / sizeof row[0]; i++)
        put64(GDT + (row[i].selector & ~7u), row[i].descriptor);
    put64(GDT + TSS_A, system_descriptor(TSS, 0x2FF, SYSTEM_TSS_BUSY));
    put64(GDT + TSS_B, system_descriptor(TSS2, 0x67, SYSTEM_TSS_AVAILABLE));
    put64(GDT + LDT, system_descriptor(0x3800, 0xFF, SYSTEM_LDT));
    put64(GDT + TASK_GATE, gate(TSS_B, 0, SYSTEM_TASK_GATE, 0));
    cpu->gdtr = (struct descriptor_table){.base = GDT, .limit = GDT_LIMIT};
    cpu->idtr = (struct descriptor_table){.base = IDT, .limit = 0xFFF};
}

static inline void load_segment(enum segment_register s, uint16_t selector)
{
    struct descriptor d = {.raw = get64(GDT + (selector & ~7u))};
    segment_from_descriptor(&cpu->segments[s], selector, &d);
}

// Protected mode at a privilege level, no paging; CPL 0 or 3.
static inline void enter_protected(unsigned cpl)
{
    load_table();
    for (unsigned v = 0; v < 256; v++) {
        put64(IDT + v * 8, gate(CODE0, HANDLERS + v * 16, SYSTEM_INTERRUPT_GATE, 0));
        put(HANDLERS + v * 16, "\xF4", 1);
    }
    put32(TSS + 4, STACK0);
    put16(TSS + 8, DATA0);
    put32(TSS + 12, STACK1);
    put16(TSS + 16, DATA1);
    put16(TSS + 102, 0x88); // I/O bitmap
    cpu->cr0 |= CR0_PE;
    load_segment(SEG_CS, cpl ? CODE3 : CODE0);
    for (unsigned s = 0; s < 6; s++)
        if (s != SEG_CS)
            load_segment((enum segment_register)s, cpl ? DATA3 : DATA0);
    load_segment(SEG_TR, TSS_A);
    cpu->regs[REG_RSP] = STACK3;
    cpu_update_mode(cpu);
    ck_assert_uint_eq(cpu->cpl, cpl);
}

// Makes every exception come through a gate of DPL 3.
static inline void open_gate(unsigned vector) { put64(IDT + vector * 8, get64(IDT + vector * 8) | D_DPL(3)); }

// 64-bit mode at CPL 0 or 3, the first 1 GiB mapped by itself with 2-MiB user pages.
static inline void enter_long(unsigned cpl)
{
    enter_protected(0);
    put64(TABLES, (TABLES + 0x1000) | 7);
    put64(TABLES + 0x1000, (TABLES + 0x2000) | 7);
    for (uint64_t i = 0; i < 512; i++)
        put64(TABLES + 0x2000 + i * 8, i << 21 | 0x87);
    for (unsigned v = 0; v < 256; v++) {
        put64(IDT + v * 16, gate(CODE64, HANDLERS + v * 16, SYSTEM_INTERRUPT_GATE, 0));
        put64(IDT + v * 16 + 8, 0);
    }
    put64(TSS + 4, STACK0);
    put64(TSS + 36, STACK_IST);
    cpu_load_control_registers(cpu, cpu->cr0 | CR0_PG | CR0_WP, TABLES, CR4_PAE | CR4_OSFXSR | CR4_OSXSAVE,
                               EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE);
    load_segment(SEG_CS, cpl ? CODE64_USER : CODE64);
    load_segment(SEG_SS, cpl ? DATA3 : DATA0);
    cpu_update_mode(cpu);
    ck_assert_uint_eq(cpu->cpl, cpl);
    ck_assert(cpu_64bit(cpu));
}

// Virtual-8086 mode with IOPL 3.
static inline void enter_v8086(void)
{
    enter_protected(0);
    for (unsigned s = 0; s < 6; s++)
        segment_load_v8086(cpu, (enum segment_register)s, DATA >> 4);
    segment_load_v8086(cpu, SEG_CS, CODE >> 4);
    segment_load_v8086(cpu, SEG_SS, (STACK3 - 0x1000) >> 4);
    cpu->regs[REG_RSP] = 0x1000;
    cpu_set_rflags(cpu, RFLAGS_VM | RFLAGS_IOPL | RFLAGS_IF);
    cpu_update_mode(cpu);
    cpu->regs[REG_RIP] = 0;
}

#define ck_handler(vector) \
    ck_assert_uint_eq(cpu->segment_base[SEG_CS] + cpu->regs[REG_RIP], HANDLERS + (unsigned)(vector)*16)
#define ck_hex(a, b)                                                                                           \
    ck_assert_msg((uint64_t)(a) == (uint64_t)(b), "%s = 0x%llx, expected 0x%llx", #a, (unsigned long long)(a), \
                  (unsigned long long)(b))

static inline void add_test(Suite *suite, const char *name, const TTest *test)
{
    TCase *tcase = tcase_create(name);
    tcase_add_checked_fixture(tcase, fixture_setup, fixture_teardown);
    tcase_add_test(tcase, test);
    suite_add_tcase(suite, tcase);
}

static inline int run_suite(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
