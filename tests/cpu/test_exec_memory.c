// Memory accesses with all checks, and the stack instructions: segments, alignment, page crossing, widths.
#include <check.h>

#include "core_fixture.h"

static struct core *core;
static struct cpu *cpu;
static uint64_t value;

static void setup(void)
{
    core = core_create();
    cpu = &core->cpu;
}

static void teardown(void) { core_destroy(core); }

#define PUT(address, bytes) core_poke(core, address, bytes, sizeof(bytes) - 1)

static void protected_mode(void)
{
    core_segments(cpu, 0xC09B, 0xC093);
    cpu_load_control_registers(cpu, CR0_PE | CR0_ET, 0, 0, 0);
    cpu_update_mode(cpu);
}

static void segment(enum segment_register number, uint32_t base, uint32_t limit, uint32_t rights)
{
    cpu->segments[number] = (struct segment){.base = base, .limit = limit, .access_rights = rights, .selector = 0x18};
    cpu_update_mode(cpu);
}

static bool faults(bool done, enum vector vector)
{
    return !done && cpu->event.vector == vector && cpu->event.error_code == 0;
}

START_TEST(limit_is_the_last_byte)
{
    protected_mode();
    segment(SEG_DS, CORE_DATA, 0xFFF, 0x4093);
    ck_assert(mem_read(cpu, SEG_DS, 0xFFC, 4, &value));
    ck_assert(faults(mem_read(cpu, SEG_DS, 0xFFD, 4, &value), VECTOR_GP));
    ck_assert(faults(mem_write(cpu, SEG_DS, 0x1000, 1, 0), VECTOR_GP));
    segment(SEG_SS, CORE_DATA, 0xFFF, 0x4093);
    ck_assert(faults(mem_write(cpu, SEG_SS, 0xFFF, 2, 0), VECTOR_SS));
}
END_TEST

START_TEST(expand_down_segment_begins_above_its_limit)
{
    protected_mode();
    segment(SEG_DS, CORE_DATA, 0xFFF, 0x0097); // 16-bit: up to FFFFH
    ck_assert(faults(mem_read(cpu, SEG_DS, 0xFFF, 1, &value), VECTOR_GP));
    ck_assert(mem_read(cpu, SEG_DS, 0x1000, 4, &value));
    ck_assert(mem_read(cpu, SEG_DS, 0xFFFE, 2, &value));
    ck_assert(faults(mem_read(cpu, SEG_DS, 0xFFFF, 2, &value), VECTOR_GP));
    segment(SEG_DS, CORE_DATA, 0xFFF, 0x4097); // 32-bit: up to FFFFFFFFH
    ck_assert(mem_read(cpu, SEG_DS, 0xFFFF, 2, &value));
}
END_TEST

START_TEST(types_decide_reads_and_writes)
{
    protected_mode();
    segment(SEG_DS, 0, 0xFFFFFFFF, 0xC091); // read-only data
    ck_assert(mem_read(cpu, SEG_DS, CORE_DATA, 4, &value));
    ck_assert(faults(mem_write(cpu, SEG_DS, CORE_DATA, 4, 0), VECTOR_GP));
    ck_assert(faults(mem_read_for_write(cpu, SEG_DS, CORE_DATA, 4, &value), VECTOR_GP));
    segment(SEG_DS, 0, 0xFFFFFFFF, 0xC099); // execute-only code
    ck_assert(faults(mem_read(cpu, SEG_DS, CORE_DATA, 4, &value), VECTOR_GP));
    ck_assert(mem_read(cpu, SEG_CS, CORE_DATA, 4, &value));
    ck_assert(faults(mem_write(cpu, SEG_CS, CORE_DATA, 4, 0), VECTOR_GP));
    segment(SEG_ES, 0, 0, SEGMENT_UNUSABLE);
    ck_assert(faults(mem_read(cpu, SEG_ES, 0, 1, &value), VECTOR_GP));
}
END_TEST

START_TEST(linear_addresses_wrap_at_4_gib_outside_64_bit_mode)
{
    protected_mode();
    segment(SEG_DS, 0xFFFFF000, 0xFFFFFFFF, 0xC093);
    PUT(CORE_DATA, "\x11\x22\x33\x44");
    ck_assert(mem_read(cpu, SEG_DS, CORE_DATA + 0x1000, 4, &value));
    ck_assert_uint_eq(value, 0x44332211);
}
END_TEST

START_TEST(noncanonical_addresses_fault_by_their_segment)
{
    ck_assert(faults(mem_read(cpu, SEG_DS, 0x800000000000, 1, &value), VECTOR_GP));
    ck_assert(faults(mem_read(cpu, SEG_SS, 0x800000000000, 1, &value), VECTOR_SS));
    ck_assert(faults(mem_read(cpu, SEG_DS, 0x7FFFFFFFFFFF, 2, &value), VECTOR_GP));
    cpu->segments[SEG_FS].base = 0x7FFFFFFFF000;
    cpu_update_mode(cpu);
    ck_assert(faults(mem_read(cpu, SEG_FS, 0x1000, 1, &value), VECTOR_GP));
}
END_TEST

START_TEST(alignment_is_checked_for_users_who_ask)
{
    for (unsigned s = 0; s < SEG_LDTR; s++)
        cpu->segments[s].access_rights |= SEGMENT_DPL;
    cpu_update_mode(cpu);
    ck_assert_uint_eq(cpu->cpl, 3);
    ck_assert(mem_read(cpu, SEG_DS, CORE_DATA + 1, 4, &value));
    cpu_load_control_registers(cpu, cpu->cr0 | CR0_AM, cpu->cr3, cpu->cr4, cpu->efer);
    cpu_set_rflags(cpu, RFLAGS_AC);
    cpu_update_mode(cpu);
    ck_assert(faults(mem_read(cpu, SEG_DS, CORE_DATA + 1, 4, &value), VECTOR_AC));
    ck_assert(faults(mem_write(cpu, SEG_DS, CORE_DATA + 4, 8, 0), VECTOR_AC));
    ck_assert(mem_read(cpu, SEG_DS, CORE_DATA + 4, 4, &value));
    // The specialised handlers check as well: mov eax, [rsi]
    PUT(CORE_CODE, "\x8B\x06");
    cpu->regs[REG_RSI] = CORE_DATA + 2;
    cpu->regs[REG_RIP] = CORE_CODE;
    cpu->idtr.limit = 0;
    cpu_run(cpu, cpu_now(cpu) + 10, false);
    ck_assert_uint_eq(cpu->exception_count[VECTOR_AC], 1);
}
END_TEST

START_TEST(write_across_two_pages_changes_neither_if_one_faults)
{
    core_long_mode(core, true);
    uint64_t *entry = (uint64_t *)(core->memory.ram + CORE_TABLES + 0x3000) + (CORE_DATA >> 12) + 1;
    *entry &= ~(uint64_t)2;
    PUT(CORE_DATA + 0xFFC, "\1\2\3\4\5\6\7\x8");
    ck_assert(!mem_write(cpu, SEG_DS, CORE_DATA + 0xFFE, 4, 0));
    ck_assert_uint_eq(cpu->event.vector, VECTOR_PF);
    ck_assert_uint_eq(cpu->event.cr2, CORE_DATA + 0x1000);
    ck_assert_uint_eq(cpu->event.error_code, PF_PRESENT | PF_WRITE);
    ck_assert(mem_read(cpu, SEG_DS, CORE_DATA + 0xFFC, 8, &value));
    ck_assert_uint_eq(value, 0x0807060504030201);
    *entry |= 2;
    ck_assert(mem_write(cpu, SEG_DS, CORE_DATA + 0xFFE, 4, 0xAABBCCDD));
    ck_assert(mem_read(cpu, SEG_DS, CORE_DATA + 0xFFC, 8, &value));
    ck_assert_uint_eq(value, 0x0807AABBCCDD0201);
}
END_TEST

START_TEST(bytes_demand_their_alignment)
{
    uint8_t bytes[16];
    ck_assert(mem_read_bytes(cpu, SEG_DS, CORE_DATA, bytes, 16, 16));
    ck_assert(faults(mem_read_bytes(cpu, SEG_DS, CORE_DATA + 8, bytes, 16, 16), VECTOR_GP));
    ck_assert(mem_write_bytes(cpu, SEG_DS, CORE_DATA + 0xFF8, bytes, 16, 1));
}
END_TEST

// ---- The stack ----

static void run(const char *code, size_t size)
{
    core_poke(core, CORE_CODE, code, size);
    core_poke(core, CORE_CODE + size, "\xF4", 1);
    cpu->regs[REG_RIP] = CORE_CODE;
    cpu->activity = ACTIVITY_ACTIVE;
    ck_assert_int_eq(cpu_run(cpu, cpu_now(cpu) + 100000, false), EXEC_HALT);
}
#define RUN(code) run(code, sizeof(code) - 1)

static uint64_t stack_slot(unsigned offset, unsigned size)
{
    uint64_t slot = 0;
    memcpy(&slot, core->memory.ram + CORE_STACK_TOP - offset, size);
    return slot;
}

START_TEST(push_of_the_stack_pointer_stores_its_old_value)
{
    RUN("\x54");
    ck_assert_uint_eq(stack_slot(8, 8), CORE_STACK_TOP);
    ck_assert_uint_eq(cpu->regs[REG_RSP], CORE_STACK_TOP - 8);
}
END_TEST

START_TEST(pop_of_the_stack_pointer_loads_the_value)
{
    cpu->regs[REG_RSP] = CORE_STACK_TOP - 8;
    memcpy(core->memory.ram + CORE_STACK_TOP - 8, "\x34\x12\x10\0\0\0\0", 8);
    RUN("\x5C");
    ck_assert_uint_eq(cpu->regs[REG_RSP], 0x101234);
}
END_TEST

START_TEST(pop_to_memory_addresses_after_the_increment)
{
    RUN("\x6A\x77"
        "\x8F\x04\x24"); // push 0x77; pop [rsp]
    ck_assert_uint_eq(stack_slot(0, 8), 0x77);
    ck_assert_uint_eq(cpu->regs[REG_RSP], CORE_STACK_TOP);
}
END_TEST

START_TEST(push_of_an_immediate_extends_its_sign)
{
    RUN("\x6A\x80"
        "\x66\x6A\x80"); // push -128; push word -128
    ck_assert_uint_eq(stack_slot(8, 8), (uint64_t)-128);
    ck_assert_uint_eq(stack_slot(10, 2), 0xFF80);
    ck_assert_uint_eq(cpu->regs[REG_RSP], CORE_STACK_TOP - 10);
}
END_TEST

START_TEST(enter_copies_frames_and_leave_undoes_it)
{
    cpu->regs[REG_RBP] = CORE_STACK_TOP - 0x100;
    memcpy(core->memory.ram + CORE_STACK_TOP - 0x108, "\x5A", 1);
    RUN("\xC8\x20\x00\x02"); // enter 32, 2
    ck_assert_uint_eq(stack_slot(8, 8), CORE_STACK_TOP - 0x100);
    ck_assert_uint_eq(stack_slot(16, 8), 0x5A);
    ck_assert_uint_eq(stack_slot(24, 8), CORE_STACK_TOP - 8);
    ck_assert_uint_eq(cpu->regs[REG_RBP], CORE_STACK_TOP - 8);
    ck_assert_uint_eq(cpu->regs[REG_RSP], CORE_STACK_TOP - 24 - 32);
    RUN("\xC9");
    ck_assert_uint_eq(cpu->regs[REG_RBP], CORE_STACK_TOP - 0x100);
    ck_assert_uint_eq(cpu->regs[REG_RSP], CORE_STACK_TOP);
}
END_TEST

START_TEST(pusha_and_popa_keep_the_registers)
{
    protected_mode();
    for (unsigned r = 0; r < 8; r++)
        cpu->regs[r] = r == REG_RSP ? CORE_STACK_TOP : 0x1000 + r;
    RUN("\x60");
    for (unsigned r = 0; r < 8; r++)
        ck_assert_uint_eq(stack_slot(4 * (r + 1), 4), r == REG_RSP ? CORE_STACK_TOP : 0x1000 + r);
    for (unsigned r = 0; r < 8; r++)
        cpu->regs[r] = r == REG_RSP ? cpu->regs[r] : 0;
    RUN("\x61");
    for (unsigned r = 0; r < 8; r++)
        ck_assert_uint_eq(cpu->regs[r], r == REG_RSP ? CORE_STACK_TOP : 0x1000 + r);
}
END_TEST

START_TEST(sixteen_bit_stack_wraps_and_keeps_the_upper_half)
{
    protected_mode();
    segment(SEG_SS, CORE_DATA, 0xFFFF, 0x0093);
    cpu->regs[REG_RSP] = 0xABCD0000;
    cpu->regs[REG_RAX] = 0x11223344;
    RUN("\x66\x50"); // push ax
    ck_assert_uint_eq(cpu->regs[REG_RSP], 0xABCDFFFE);
    ck_assert(mem_read(cpu, SEG_SS, 0xFFFE, 2, &value));
    ck_assert_uint_eq(value, 0x3344);
}
END_TEST

START_TEST(popf_leaves_iopl_and_if_to_the_privileged)
{
    const uint64_t all =
        RFLAGS_IOPL | RFLAGS_IF | RFLAGS_CF | RFLAGS_DF | RFLAGS_ID | RFLAGS_VIF | RFLAGS_VIP | RFLAGS_VM | RFLAGS_RF;
    cpu->regs[REG_RAX] = all;
    RUN("\x50\x9D");
    ck_assert_uint_eq(cpu_rflags(cpu), RFLAGS_IOPL | RFLAGS_IF | RFLAGS_CF | RFLAGS_DF | RFLAGS_ID | RFLAGS_ONE);
    cpu_set_rflags(cpu, 0);
    for (unsigned s = 0; s < SEG_LDTR; s++)
        cpu->segments[s].access_rights |= SEGMENT_DPL;
    cpu_update_mode(cpu);
    cpu->idtr.limit = 0;
    cpu->regs[REG_RIP] = CORE_CODE;
    cpu->activity = ACTIVITY_ACTIVE;
    cpu_run(cpu, cpu_now(cpu) + 10000, false); // ends in #GP at HLT
    ck_assert_uint_eq(cpu_rflags(cpu) & ~RFLAGS_RF, RFLAGS_CF | RFLAGS_DF | RFLAGS_ID | RFLAGS_ONE);
}
END_TEST

START_TEST(division_overflow_is_an_error_and_its_edge_is_not)
{
    cpu->regs[REG_RDX] = UINT64_MAX; // -2^63 * 1
    cpu->regs[REG_RAX] = 0x8000000000000000;
    cpu->regs[REG_RCX] = 1;
    RUN("\x48\xF7\xF9"); // idiv rcx
    ck_assert_uint_eq(cpu->regs[REG_RAX], 0x8000000000000000);
    ck_assert_uint_eq(cpu->regs[REG_RDX], 0);
    cpu->regs[REG_RDX] = UINT64_MAX;
    cpu->regs[REG_RCX] = UINT64_MAX; // quotient 2^63
    cpu->idtr.limit = 0;
    cpu->regs[REG_RIP] = CORE_CODE;
    cpu->activity = ACTIVITY_ACTIVE;
    cpu_run(cpu, cpu_now(cpu) + 10, false);
    ck_assert_uint_eq(cpu->exception_count[VECTOR_DE], 1);
}
END_TEST

START_TEST(rip_relative_operands_reach_over_2_gib)
{
    // A displacement at the end of its range plus the block offset leaves 32 bits: lea rax, [rip + 7FFFFFFFH]
    RUN("\x90\x48\x8D\x05\xFF\xFF\xFF\x7F");
    ck_assert_uint_eq(cpu->regs[REG_RAX], CORE_CODE + 8 + 0x7FFFFFFFull);
    RUN("\x90\x67\x48\x8D\x05\xFF\xFF\xFF\xFF"); // lea rax, [eip - 1]
    ck_assert_uint_eq(cpu->regs[REG_RAX], CORE_CODE + 9 - 1);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        limit_is_the_last_byte,
        expand_down_segment_begins_above_its_limit,
        types_decide_reads_and_writes,
        linear_addresses_wrap_at_4_gib_outside_64_bit_mode,
        noncanonical_addresses_fault_by_their_segment,
        alignment_is_checked_for_users_who_ask,
        write_across_two_pages_changes_neither_if_one_faults,
        bytes_demand_their_alignment,
        push_of_the_stack_pointer_stores_its_old_value,
        pop_of_the_stack_pointer_loads_the_value,
        pop_to_memory_addresses_after_the_increment,
        push_of_an_immediate_extends_its_sign,
        enter_copies_frames_and_leave_undoes_it,
        pusha_and_popa_keep_the_registers,
        sixteen_bit_stack_wraps_and_keeps_the_upper_half,
        popf_leaves_iopl_and_if_to_the_privileged,
        division_overflow_is_an_error_and_its_edge_is_not,
        rip_relative_operands_reach_over_2_gib,
    };
    Suite *suite = suite_create("exec memory");
    TCase *group = tcase_create("memory");
    tcase_add_checked_fixture(group, setup, teardown);
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        tcase_add_test(group, tests[i]);
    suite_add_tcase(suite, group);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
