// The block cache and the run loop: code that changes, pages and segments that end, deadlines, devices, other processors.
#include <check.h>

#include "core_fixture.h"
#include "cpu/block_cache.h"

static struct core *core;
static struct cpu *cpu;

static void setup(void)
{
    core = core_create();
    cpu = &core->cpu;
}

static void teardown(void) { core_destroy(core); }

static void put(hpa_t address, const char *bytes, size_t size) { core_poke(core, address, bytes, size); }
#define PUT(address, bytes) put(address, bytes, sizeof(bytes) - 1)

static enum exec_result run_for(uint64_t cycles) { return cpu_run(cpu, cpu_now(cpu) + cycles, false); }

static void run_to_halt(hpa_t rip)
{
    cpu->regs[REG_RIP] = rip;
    cpu->activity = ACTIVITY_ACTIVE;
    ck_assert_int_eq(run_for(1000000), EXEC_HALT);
}

// ---- Code that changes ----

START_TEST(store_into_the_next_instruction_of_the_block_takes_effect)
{
    // mov byte [rip+1], 2 (the immediate of the next); mov al, 1; hlt
    PUT(CORE_CODE, "\xC6\x05\x01\x00\x00\x00\x02"
                   "\xB0\x01"
                   "\xF4");
    run_to_halt(CORE_CODE);
    ck_assert_uint_eq(cpu->regs[REG_RAX] & 0xFF, 2);
}
END_TEST

START_TEST(store_into_another_block_takes_effect_at_its_next_run)
{
    PUT(CORE_CODE, "\xB0\x01"
                   "\xF4"); // mov al, 1; hlt
    PUT(CORE_CODE + 0x800, "\xC6\x05\xFA\xF7\xFF\xFF\x07"
                           "\xEB\xF7"
                           "\xF4"); // mov byte [CORE_CODE+1], 7; jmp CORE_CODE + 0x800
    run_to_halt(CORE_CODE);
    PUT(CORE_CODE + 0x800, "\xC6\x05\xFA\xF7\xFF\xFF\x07"
                           "\xF4");
    run_to_halt(CORE_CODE + 0x800);
    run_to_halt(CORE_CODE);
    ck_assert_uint_eq(cpu->regs[REG_RAX] & 0xFF, 7);
}
END_TEST

START_TEST(store_of_another_page_takes_effect)
{
    PUT(CORE_CODE + 0x1000, "\xB0\x01"
                            "\xF4");
    PUT(CORE_CODE, "\xC6\x05\xFA\x0F\x00\x00\x09"
                   "\xE9\xF4\x0F\x00\x00"); // mov byte [CORE_CODE+0x1001], 9; jmp CORE_CODE + 0x1000
    run_to_halt(CORE_CODE + 0x1000);
    run_to_halt(CORE_CODE);
    ck_assert_uint_eq(cpu->regs[REG_RAX] & 0xFF, 9);
}
END_TEST

START_TEST(write_by_a_device_takes_effect)
{
    PUT(CORE_CODE, "\xB0\x01"
                   "\xF4");
    run_to_halt(CORE_CODE);
    PUT(CORE_CODE, "\xB0\x05");
    run_to_halt(CORE_CODE);
    ck_assert_uint_eq(cpu->regs[REG_RAX] & 0xFF, 5);
}
END_TEST

START_TEST(store_through_an_alias_of_the_page_takes_effect)
{
    uint64_t *pd = (uint64_t *)(core->memory.ram + CORE_TABLES + 0x2000);
    pd[100] = 7 | 0x80; // linear C800000H is physical 0, as linear 0 is
    PUT(CORE_CODE, "\xB0\x01"
                   "\xF4");
    run_to_halt(CORE_CODE);
    PUT(CORE_CODE + 0x2000, "\xC6\x03\x06"
                            "\xF4"); // mov byte [rbx], 6
    // 'C6 03' stores to CORE_CODE + 1, linear 100 * 2 MiB above
    cpu->regs[REG_RBX] = (100ull << 21) + CORE_CODE + 1;
    run_to_halt(CORE_CODE + 0x2000);
    run_to_halt(CORE_CODE);
    ck_assert_uint_eq(cpu->regs[REG_RAX] & 0xFF, 6);
}
END_TEST

START_TEST(data_beside_code_does_not_drop_blocks)
{
    // mov ecx, 1000; loop: mov [CORE_CODE + 0x400], ecx; dec ecx; jnz; hlt
    PUT(CORE_CODE, "\xB9\xE8\x03\x00\x00"
                   "\x89\x0D\xF5\x03\x00\x00"
                   "\xFF\xC9"
                   "\x75\xF6"
                   "\xF4");
    run_to_halt(CORE_CODE);
    ck_assert_uint_eq(cpu->blocks->dropped, 0);
    ck_assert_uint_le(cpu->blocks->built, 4);
}
END_TEST

START_TEST(page_without_code_left_is_written_fast_again)
{
    PUT(CORE_CODE, "\xF4");
    run_to_halt(CORE_CODE);
    ck_assert(core->memory.page_flags[CORE_CODE >> PAGE_SHIFT] & PAGE_CODE);
    PUT(CORE_CODE, "\x90");
    ck_assert(!(core->memory.page_flags[CORE_CODE >> PAGE_SHIFT] & PAGE_CODE));
}
END_TEST

START_TEST(store_of_another_processor_takes_effect)
{
    struct cpu *other = calloc(1, sizeof(*other));
    unsigned count;
    ck_assert(cpu_init(other, &core->bus, cpu_profiles(&count), 0));
    core_segments(other, 0xA09B, 0xC093);
    cpu_load_control_registers(other, cpu->cr0, cpu->cr3, cpu->cr4, cpu->efer);
    cpu_update_mode(other);
    PUT(CORE_DATA, "\xC6\x03\x06"
                   "\xC6\x03\x08"
                   "\xF4"); // mov byte [rbx], 6; mov byte [rbx], 8
    PUT(CORE_CODE, "\xB0\x01"
                   "\xF4");
    // The other processor has a fast write tag for the page before it becomes code.
    other->regs[REG_RIP] = CORE_DATA;
    other->regs[REG_RBX] = CORE_CODE + 1;
    ck_assert_int_eq(cpu_run(other, 1000, true), EXEC_DONE);
    run_to_halt(CORE_CODE);
    ck_assert_uint_eq(cpu->regs[REG_RAX] & 0xFF, 6);
    ck_assert_int_eq(cpu_run(other, 2000, true), EXEC_DONE);
    run_to_halt(CORE_CODE);
    ck_assert_uint_eq(cpu->regs[REG_RAX] & 0xFF, 8);
    cpu_destroy(other);
    free(other);
}
END_TEST

START_TEST(more_blocks_than_fit_are_dropped_and_built_again)
{
    for (uint64_t i = 0; i < 300000; i++)
        memcpy(core->memory.ram + CORE_DATA + 2 * i, "\xEB\x00", 2); // jmp to the next
    memcpy(core->memory.ram + CORE_DATA + 600000, "\xF4", 1);
    uint64_t before = cpu->instructions;
    run_to_halt(CORE_DATA);
    ck_assert_uint_eq(cpu->instructions - before, 300001);
    run_to_halt(CORE_DATA);
    ck_assert_uint_eq(cpu->instructions - before, 600002);
}
END_TEST

// ---- Where pages and segments end ----

START_TEST(instruction_across_two_pages_needs_both)
{
    core_long_mode(core, true);
    uint64_t *entry = (uint64_t *)(core->memory.ram + CORE_TABLES + 0x3000) + (CORE_CODE >> 12) + 1;
    uint64_t present = *entry;
    *entry = 0;
    PUT(CORE_CODE + 0xFFD, "\xB8\x11\x22\x33\x44"
                           "\xF4"); // mov eax, imm32
    cpu->regs[REG_RIP] = CORE_CODE + 0xFFD;
    cpu->regs[REG_RAX] = 0;
    cpu->idtr.limit = 0;
    ck_assert_int_eq(run_for(100), EXEC_HALT); // triple fault: there is no IDT
    ck_assert_uint_eq(cpu->cr2, CORE_CODE + 0x1000);
    ck_assert_uint_eq(cpu->regs[REG_RIP], CORE_CODE + 0xFFD);
    *entry = present;
    run_to_halt(CORE_CODE + 0xFFD);
    ck_assert_uint_eq(cpu->regs[REG_RAX], 0x44332211);
    PUT(CORE_CODE + 0x1000, "\x99");
    run_to_halt(CORE_CODE + 0xFFD);
    ck_assert_uint_eq(cpu->regs[REG_RAX], 0x44992211);
}
END_TEST

START_TEST(sixteen_bytes_are_too_long)
{
    PUT(CORE_CODE, "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90\xF4");
    cpu->regs[REG_RIP] = CORE_CODE;
    cpu->idtr.limit = 0;
    run_for(100);
    ck_assert_uint_eq(cpu->exception_count[VECTOR_GP] > 0, 1);
    ck_assert_uint_eq(cpu->regs[REG_RIP], CORE_CODE);
}
END_TEST

static void protected_mode(uint32_t code_rights, uint32_t code_base, uint32_t code_limit)
{
    core_segments(cpu, code_rights, 0xC093);
    cpu->segments[SEG_CS].base = code_base;
    cpu->segments[SEG_CS].limit = code_limit;
    cpu_load_control_registers(cpu, CR0_PE | CR0_ET, 0, 0, 0);
    cpu->idtr.limit = 0;
    cpu_update_mode(cpu);
}

START_TEST(code_runs_up_to_the_segment_limit_and_no_further)
{
    protected_mode(0x409B, CORE_CODE, 7);
    PUT(CORE_CODE, "\x40\x40\x40\x40\x83\xC0\x01\x40\x40\xF4"); // eight bytes of inc eax and add; the ninth is outside
    cpu->regs[REG_RAX] = 0;
    cpu->regs[REG_RIP] = 0;
    run_for(100);
    ck_assert_uint_eq(cpu->regs[REG_RAX], 6);
    ck_assert_uint_eq(cpu->regs[REG_RIP], 8);
    ck_assert(cpu->exception_count[VECTOR_GP] > 0);
}
END_TEST

START_TEST(instruction_across_the_segment_limit_is_a_fault)
{
    protected_mode(0x409B, CORE_CODE, 5);
    PUT(CORE_CODE, "\x40\x40\x40\x40\x83\xC0\x01\xF4");
    cpu->regs[REG_RAX] = 0;
    cpu->regs[REG_RIP] = 0;
    run_for(100);
    ck_assert_uint_eq(cpu->regs[REG_RAX], 4);
    ck_assert_uint_eq(cpu->regs[REG_RIP], 4);
    ck_assert(cpu->exception_count[VECTOR_GP] > 0);
}
END_TEST

START_TEST(real_mode_code_runs)
{
    cpu_reset(cpu, false);
    cpu->segments[SEG_CS] =
        (struct segment){.selector = 0x1000, .base = 0x10000, .limit = 0xFFFF, .access_rights = 0x9B};
    cpu->segments[SEG_DS] =
        (struct segment){.selector = 0x2000, .base = 0x20000, .limit = 0xFFFF, .access_rights = 0x93};
    cpu->segments[SEG_SS] = cpu->segments[SEG_DS];
    cpu_update_mode(cpu);
    // mov cx, 10; loop: add [0x100], cx; push cx; pop ax; loop; hlt
    PUT(0x10000, "\xB9\x0A\x00"
                 "\x01\x0E\x00\x01"
                 "\x51"
                 "\x58"
                 "\xE2\xF8"
                 "\xF4");
    cpu->regs[REG_RSP] = 0x1000;
    run_to_halt(0);
    uint16_t total;
    memcpy(&total, core->memory.ram + 0x20100, 2);
    ck_assert_uint_eq(total, 55);
    ck_assert_uint_eq(cpu->regs[REG_RAX] & 0xFFFF, 1);
    ck_assert_uint_eq(cpu->regs[REG_RSP], 0x1000);
}
END_TEST

START_TEST(code_outside_ram_is_all_ones)
{
    cpu->regs[REG_RIP] = 0x10000000;
    cpu->idtr.limit = 0;
    run_for(100);
    ck_assert_uint_eq(cpu->exception_count[VECTOR_UD], 1);
}
END_TEST

START_TEST(branch_to_a_noncanonical_address_faults_at_the_branch)
{
    PUT(CORE_CODE, "\xFF\xE0\xF4"); // jmp rax
    cpu->regs[REG_RAX] = 0x800000000000;
    cpu->regs[REG_RIP] = CORE_CODE;
    cpu->idtr.limit = 0;
    run_for(100);
    ck_assert(cpu->exception_count[VECTOR_GP] > 0);
    ck_assert_uint_eq(cpu->regs[REG_RIP], CORE_CODE);
}
END_TEST

// ---- Time ----

START_TEST(run_stops_at_the_first_boundary_at_or_after_the_deadline)
{
    for (unsigned i = 0; i < 3000; i++)
        memcpy(core->memory.ram + CORE_CODE + i, "\x90", 1);
    cpu->regs[REG_RIP] = CORE_CODE;
    run_for(0x40);
    cycle_t start = cpu_now(cpu);
    for (unsigned n = 1; n < 70; n++) {
        uint64_t instructions = cpu->instructions, rip = cpu->regs[REG_RIP];
        ck_assert_int_eq(run_for(n), EXEC_DONE);
        ck_assert_uint_eq(cpu->instructions - instructions, n);
        ck_assert_uint_eq(cpu->regs[REG_RIP] - rip, n);
        start += n;
        ck_assert_uint_eq(cpu_now(cpu), start);
    }
}
END_TEST

static uint64_t read_clock(void *device, uint64_t offset, unsigned size)
{
    (void)device, (void)offset, (void)size;
    return cpu_now(cpu);
}

static void ignore_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    (void)device, (void)offset, (void)size, (void)value;
}

START_TEST(device_sees_the_cycle_at_which_its_instruction_starts)
{
    const struct bus_region region = {0x10000000, 0x1000, read_clock, ignore_write, NULL, "clock"};
    bus_register_mmio(&core->bus, &region);
    // mov rax, [rbp] in the middle of a block of NOPs
    PUT(CORE_CODE, "\x90\x90\x90\x90\x90"
                   "\x48\x8B\x45\x00"
                   "\x90\x90\x48\x8B\x5D\x00\x90\x90\xF4");
    cpu->regs[REG_RBP] = 0x10000000;
    run_to_halt(CORE_CODE); // fills the TLB
    cycle_t start = cpu_now(cpu);
    uint64_t instructions = cpu->instructions;
    run_to_halt(CORE_CODE);
    ck_assert_uint_eq(cpu->regs[REG_RAX], start + 5);
    ck_assert_uint_eq(cpu->regs[REG_RBX] - cpu->regs[REG_RAX], 1 + 200 + 2);
    ck_assert_uint_eq(cpu->instructions - instructions, 12);
    ck_assert_uint_eq(cpu_now(cpu) - start, 12 + 2 * 200);
}
END_TEST

START_TEST(repeated_string_stops_between_elements_and_goes_on)
{
    PUT(CORE_CODE, "\xF3\xA4\xF4"); // rep movsb
    for (unsigned i = 0; i < 10000; i++)
        core->memory.ram[CORE_DATA + i] = (uint8_t)(i * 7);
    cpu->regs[REG_RSI] = CORE_DATA;
    cpu->regs[REG_RDI] = CORE_DATA + 0x10800;
    cpu->regs[REG_RCX] = 10000;
    cpu->regs[REG_RIP] = CORE_CODE;
    unsigned pauses = 0;
    while (run_for(777) == EXEC_DONE) {
        ck_assert_uint_eq(cpu->regs[REG_RIP], CORE_CODE);
        ck_assert_uint_eq(cpu->regs[REG_RSI] + cpu->regs[REG_RCX], CORE_DATA + 10000);
        ck_assert_uint_eq(cpu->instructions, 0);
        pauses++;
    }
    ck_assert_uint_ge(pauses, 12);
    ck_assert_uint_eq(cpu->instructions, 2);
    ck_assert_uint_eq(cpu->regs[REG_RCX], 0);
    ck_assert(memcmp(core->memory.ram + CORE_DATA, core->memory.ram + CORE_DATA + 0x10800, 10000) == 0);
}
END_TEST

START_TEST(overlapping_copy_repeats_its_start)
{
    PUT(CORE_CODE, "\xF3\xA4\xF4");
    memcpy(core->memory.ram + CORE_DATA, "abc", 3);
    cpu->regs[REG_RSI] = CORE_DATA;
    cpu->regs[REG_RDI] = CORE_DATA + 3;
    cpu->regs[REG_RCX] = 6;
    run_to_halt(CORE_CODE);
    ck_assert(memcmp(core->memory.ram + CORE_DATA, "abcabcabc", 9) == 0);
}
END_TEST

START_TEST(scan_stops_at_the_element_found)
{
    PUT(CORE_CODE, "\xF2\xAE\xF4"); // repne scasb
    memcpy(core->memory.ram + CORE_DATA + 0xFF0, "0123456789ABCDEFGHIJKLMNOP", 26);
    cpu->regs[REG_RDI] = CORE_DATA + 0xFF0;
    cpu->regs[REG_RCX] = 100;
    cpu->regs[REG_RAX] = 'K';
    run_to_halt(CORE_CODE);
    ck_assert_uint_eq(cpu->regs[REG_RDI], CORE_DATA + 0xFF0 + 21);
    ck_assert_uint_eq(cpu->regs[REG_RCX], 79);
    ck_assert(flag_zf(cpu));
}
END_TEST

START_TEST(string_faults_after_the_elements_before_it)
{
    core_long_mode(core, true);
    uint64_t *entry = (uint64_t *)(core->memory.ram + CORE_TABLES + 0x3000) + (CORE_DATA >> 12) + 1;
    *entry = 0;
    PUT(CORE_CODE, "\xF3\xAA\xF4"); // rep stosb
    cpu->regs[REG_RDI] = CORE_DATA + 0xFF0;
    cpu->regs[REG_RCX] = 100;
    cpu->regs[REG_RIP] = CORE_CODE;
    cpu->idtr.limit = 0;
    run_for(100000);
    ck_assert_uint_eq(cpu->cr2, CORE_DATA + 0x1000);
    ck_assert_uint_eq(cpu->regs[REG_RDI], CORE_DATA + 0x1000);
    ck_assert_uint_eq(cpu->regs[REG_RCX], 84);
    ck_assert_uint_eq(cpu->regs[REG_RIP], CORE_CODE);
}
END_TEST

START_TEST(single_step_runs_one_instruction_even_in_a_known_loop)
{
    PUT(CORE_CODE, "\xFF\xC0\xEB\xFC"); // inc eax; jmp
    cpu->regs[REG_RIP] = CORE_CODE;
    run_for(1000);
    cpu->regs[REG_RIP] = CORE_CODE;
    for (unsigned i = 0; i < 10; i++) {
        uint64_t before = cpu->instructions;
        cpu_run(cpu, cpu_now(cpu) + 1000, true);
        ck_assert_uint_eq(cpu->instructions - before, 1);
        ck_assert_uint_eq(cpu->regs[REG_RIP], CORE_CODE + (i % 2 ? 0 : 2));
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        store_into_the_next_instruction_of_the_block_takes_effect,
        store_into_another_block_takes_effect_at_its_next_run,
        store_of_another_page_takes_effect,
        write_by_a_device_takes_effect,
        store_through_an_alias_of_the_page_takes_effect,
        data_beside_code_does_not_drop_blocks,
        page_without_code_left_is_written_fast_again,
        store_of_another_processor_takes_effect,
        more_blocks_than_fit_are_dropped_and_built_again,
        instruction_across_two_pages_needs_both,
        sixteen_bytes_are_too_long,
        code_runs_up_to_the_segment_limit_and_no_further,
        instruction_across_the_segment_limit_is_a_fault,
        real_mode_code_runs,
        code_outside_ram_is_all_ones,
        branch_to_a_noncanonical_address_faults_at_the_branch,
        run_stops_at_the_first_boundary_at_or_after_the_deadline,
        device_sees_the_cycle_at_which_its_instruction_starts,
        repeated_string_stops_between_elements_and_goes_on,
        overlapping_copy_repeats_its_start,
        scan_stops_at_the_element_found,
        string_faults_after_the_elements_before_it,
        single_step_runs_one_instruction_even_in_a_known_loop,
    };
    Suite *suite = suite_create("exec blocks");
    TCase *group = tcase_create("blocks");
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
