// One execution, however it is driven (design D7): random programs give the same state, instruction by instruction count and
// cycle by cycle, whether they run free, in random turns, or one instruction at a time.
//
// The programs mix arithmetic, loads and stores (also across pages, also to pages that conflict in the TLB), stores into
// their own code, a device that reads the clock and moves the next event, faults, string instructions, calls and loops.
#include <check.h>
#include <stdarg.h>
#include <stdio.h>

#include "core_fixture.h"

enum {
    PROGRAM_BYTES = 3 * 4096,
    PATCHES = 64,
    GDT = 0x20000,
    IDT = 0x21000,
    HANDLERS = 0x22000,
    DEVICE = 0x10000000,
    UNMAPPED = 0x0C800000,
    FAULT_LENGTH = 7,
    COMPARED = 16 << 20, // bytes of memory; nothing above is written
};

static uint64_t seed;

static uint64_t random64(void) // splitmix64
{
    uint64_t z = seed += 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
}

static unsigned below(unsigned n) { return (unsigned)(random64() % n); }

// ---- The program ----

struct program {
    uint8_t code[PROGRAM_BYTES + 64];
    unsigned size;
    unsigned patch[PATCHES]; // offsets of 4-byte immediates that stores may change
    unsigned patches;
    bool wide; // 64-bit mode
};

static void emit(struct program *p, unsigned count, ...)
{
    va_list bytes;
    va_start(bytes, count);
    for (unsigned i = 0; i < count; i++)
        p->code[p->size++] = (uint8_t)va_arg(bytes, int);
    va_end(bytes);
}

static void emit32(struct program *p, uint64_t value)
{
    for (unsigned i = 0; i < 4; i++)
        p->code[p->size++] = (uint8_t)(value >> (8 * i));
}

// RSI, RDI: data. RBX: the code. RBP: the device. RSP: stack. The others may hold anything.
static unsigned scratch(const struct program *p)
{
    static const uint8_t registers[] = {0, 1, 2, 8, 9, 10, 11, 12, 13, 14};
    return registers[below(p->wide ? 10 : 3)];
}

// Prefixes and opcode of an instruction with the registers `reg` and `rm`. size: 0 to 3, log2 of bytes. opcode: of the byte form, bit 0 makes it wide.
static void emit_opcode(struct program *p, unsigned size, unsigned opcode, unsigned reg, unsigned rm)
{
    if (size == 1)
        emit(p, 1, 0x66);
    unsigned rex = (size == 3 ? 8u : 0) | (reg >= 8 ? 4u : 0) | (rm >= 8 ? 1u : 0);
    if (p->wide && (rex || size == 0))
        emit(p, 1, 0x40 | (int)rex);
    emit(p, 1, (int)(size == 0 ? opcode & ~1u : opcode | 1u));
}

static unsigned random_size(const struct program *p) { return below(p->wide ? 4 : 3); }

static unsigned register_of_size(const struct program *p, unsigned size)
{
    unsigned reg = scratch(p);
    return size == 0 && !p->wide ? reg & 3 : reg;
}

static void emit_modrm(struct program *p, unsigned reg, unsigned rm)
{
    emit(p, 1, (int)(0xC0 | (reg & 7) << 3 | (rm & 7)));
}

// [rsi or rdi + disp32], which reaches over the ends of pages.
static void emit_memory(struct program *p, unsigned reg)
{
    emit(p, 1, (int)(0x80 | (reg & 7) << 3 | 6 | (below(2))));
    emit32(p, below(16) == 0 ? 4090 + below(8) : below(3 * 4096));
}

static void emit_alu(struct program *p)
{
    unsigned op = below(8) * 8, size = random_size(p), a = register_of_size(p, size), b = register_of_size(p, size);
    emit_opcode(p, size, op | 1, a, b);
    emit_modrm(p, a, b);
}

static void emit_alu_immediate(struct program *p)
{
    unsigned size = random_size(p), a = register_of_size(p, size);
    bool byte = size && below(2);
    emit_opcode(p, size, byte ? 0x83 : 0x81, 0, a);
    emit_modrm(p, below(8), a);
    if (byte || size == 0)
        emit(p, 1, (int)below(256));
    else if (size == 1)
        emit(p, 2, (int)below(256), (int)below(256));
    else
        emit32(p, random64());
}

static void emit_alu_memory(struct program *p)
{
    unsigned op = below(8) * 8 + 2 * below(2), size = random_size(p), a = register_of_size(p, size);
    emit_opcode(p, size, op | 1, a, 0);
    emit_memory(p, a);
}

static void emit_mov_memory(struct program *p)
{
    unsigned size = random_size(p), a = register_of_size(p, size);
    emit_opcode(p, size, below(2) ? 0x89 : 0x8B, a, 0);
    emit_memory(p, a);
}

static void emit_unary(struct program *p)
{
    unsigned size = random_size(p), a = register_of_size(p, size), kind = below(4);
    emit_opcode(p, size, kind < 2 ? 0xFF : 0xF7, 0, a);
    emit_modrm(p, kind, a); // INC, DEC, NOT, NEG
}

static void emit_shift(struct program *p)
{
    unsigned size = random_size(p), a = register_of_size(p, size);
    emit_opcode(p, size, below(2) ? 0xC1 : 0xD3, 0, a);
    bool immediate = (p->code[p->size - 1] & 0xFE) == 0xC0;
    emit_modrm(p, below(8), a);
    if (immediate)
        emit(p, 1, (int)below(256));
}

static void emit_two_byte(struct program *p)
{
    unsigned a = scratch(p), b = scratch(p);
    static const uint8_t opcodes[] = {0xAF, 0xB6, 0xB7, 0xBE, 0xBF, 0xA3, 0xBC, 0xBD, 0xC1, 0x45, 0x42, 0x4C, 0x4F};
    unsigned opcode = opcodes[below(sizeof(opcodes))];
    if (!p->wide && (opcode == 0xB6 || opcode == 0xBE))
        b &= 3;
    if (p->wide)
        emit(p, 1, (int)(0x40 | (below(2) ? 8u : 0) | (a >= 8 ? 4u : 0) | (b >= 8 ? 1u : 0)));
    emit(p, 2, 0x0F, (int)opcode);
    emit_modrm(p, a, b);
}

static void emit_setcc(struct program *p)
{
    unsigned a = below(3);
    emit(p, 3, 0x0F, (int)(0x90 + below(16)), (int)(0xC0 | a));
}

static void emit_flag_instruction(struct program *p)
{
    static const uint8_t opcodes[] = {0xF8, 0xF9, 0xF5, 0x9E, 0x9F, 0x98, 0x99, 0x90};
    emit(p, 1, opcodes[below(8)]);
}

static void emit_lea(struct program *p)
{
    unsigned a = below(3);
    emit(p, 3, 0x8D, (int)(a << 3 | 0x44), (int)(below(3) << 3 | below(4) << 6 | below(3)));
    emit(p, 1, (int)below(256));
}

// mov r32, imm32 that stores may patch.
static void emit_patchable(struct program *p)
{
    if (p->patches < PATCHES)
        p->patch[p->patches++] = p->size + 1;
    emit(p, 1, (int)(0xB8 + below(3)));
    emit32(p, random64());
}

// mov [rbx + offset], reg: changes code before this place, or the immediate of the instruction that follows.
static void emit_patch(struct program *p)
{
    bool ahead = !p->patches || below(2);
    emit(p, 2, 0x89, (int)(0x83 | below(3) << 3));
    emit32(p, ahead ? p->size + 5 : p->patch[below(p->patches)]);
    if (ahead)
        emit_patchable(p);
}

static void emit_device(struct program *p)
{
    static const uint8_t opcodes[] = {0x8B, 0x89, 0x03, 0x01, 0x8A, 0x33};
    emit(p, 3, opcodes[below(6)], (int)(0x45 | below(3) << 3), (int)(below(16) * 8));
}

static void emit_fault(struct program *p)
{
    static const uint8_t opcodes[] = {0x8B, 0x89, 0x03, 0x01, 0x3B};
    if (below(3) == 0)
        emit(p, 2, 0xF7, (int)(0xF0 | below(3))); // DIV of 32 bits, most often too large
    else if (below(2))
        emit(p, 2, 0x0F, 0x0B);
    else {
        emit(p, 3, opcodes[below(5)], (int)(0x04 | below(3) << 3), 0x25);
        emit32(p, UNMAPPED + below(64));
    }
}

static void emit_stack(struct program *p)
{
    unsigned a = below(3);
    emit(p, 2, (int)(0x50 + below(3)), (int)(0x58 + a));
    if (below(4) == 0)
        emit(p, 2, 0x9C, (int)(0x58 + a)); // PUSHF
    if (below(8) == 0)
        emit(p, 7, 0x25, 0xD5, 0x08, 0x04, 0x00, 0x50, 0x9D); // AND EAX, arithmetic flags and AC; PUSH; POPF
}

// mov ecx, n; [std;] rep or not; rsi and rdi are put back.
static void emit_string(struct program *p)
{
    static const uint8_t opcodes[] = {0xA4, 0xA5, 0xAA, 0xAB, 0xAC, 0xAD, 0xA6, 0xA7, 0xAE, 0xAF};
    emit(p, 2, 0x56, 0x57);
    emit(p, 1, 0xB9);
    emit32(p, below(4) ? below(40) : below(3000));
    if (below(3) == 0) // offset, so that elements cross pages
        emit(p, 4, p->wide ? 0x48 : 0x90, 0x8D, 0x76, (int)below(128));
    if (below(6) == 0)
        emit(p, 1, 0xFD);
    unsigned repeat = below(4);
    if (repeat)
        emit(p, 1, repeat == 1 ? 0xF2 : 0xF3);
    if (p->wide && below(2))
        emit(p, 1, 0x48);
    emit(p, 1, opcodes[below(10)]);
    emit(p, 3, 0xFC, 0x5F, 0x5E);
}

static void emit_branch(struct program *p)
{
    emit(p, 2, (int)(0x70 + below(16)), (int)below(3)); // over the next bytes, which are NOPs
    emit(p, 3, 0x90, 0x90, 0x90);
}

// A loop of a few rounds; its counter is on the stack meanwhile.
static void emit_loop(struct program *p)
{
    emit(p, 1, 0x51); // push rcx
    emit(p, 1, 0xB9);
    emit32(p, 2 + below(20));
    unsigned start = p->size;
    emit(p, 1, 0x51);
    for (unsigned i = below(3); i-- > 0;)
        emit_alu(p);
    emit(p, 1, 0x59);
    if (below(2)) {
        emit(p, 2, 0xE2, (int)(start - p->size - 2)); // LOOP
    } else {
        emit(p, 3, 0x83, 0xE9, 1); // sub ecx, 1; jnz
        emit(p, 2, 0x75, (int)(start - p->size - 2));
    }
    emit(p, 1, 0x59);
}

// A subroutine, jumped over, and a call of it.
static void emit_call(struct program *p)
{
    emit(p, 2, 0xEB, 0);
    unsigned jump = p->size;
    emit_alu(p);
    emit(p, 1, 0xC3);
    p->code[jump - 1] = (uint8_t)(p->size - jump);
    emit(p, 1, 0xE8);
    emit32(p, (uint64_t)jump - (p->size + 4));
}

// An indirect jump to the next instruction.
static void emit_indirect(struct program *p)
{
    emit(p, 1, 0xE8);
    emit32(p, 0);
    emit(p, 1, 0x58); // pop rax: this address
    if (p->wide)
        emit(p, 1, 0x48);
    emit(p, 3, 0x83, 0xC0, p->wide ? 7 : 6); // add rax: after the jmp
    emit(p, 2, 0xFF, 0xE0);
}

static void emit_one(struct program *p)
{
    unsigned kind = below(64);
    if (kind < 12)
        emit_alu(p);
    else if (kind < 18)
        emit_alu_immediate(p);
    else if (kind < 25)
        emit_alu_memory(p);
    else if (kind < 32)
        emit_mov_memory(p);
    else if (kind < 36)
        emit_unary(p);
    else if (kind < 39)
        emit_shift(p);
    else if (kind < 43)
        emit_two_byte(p);
    else if (kind < 45)
        emit_setcc(p);
    else if (kind < 47)
        emit_flag_instruction(p);
    else if (kind < 49)
        emit_lea(p);
    else if (kind < 51)
        emit_patchable(p);
    else if (kind < 52)
        emit_patch(p);
    else if (kind < 53)
        emit_device(p);
    else if (kind < 54)
        emit_fault(p);
    else if (kind < 56)
        emit_stack(p);
    else if (kind < 57)
        emit_string(p);
    else if (kind < 60)
        emit_branch(p);
    else if (kind < 61)
        emit_loop(p);
    else if (kind < 63)
        emit_call(p);
    else
        emit_indirect(p);
}

static void make_program(struct program *p, bool wide)
{
    memset(p, 0, sizeof(*p));
    p->wide = wide;
    unsigned end = 200 + below(PROGRAM_BYTES - 400);
    while (p->size < end)
        emit_one(p);
    emit(p, 1, 0xE9);
    emit32(p, 0 - (uint64_t)(p->size + 4));
}

// ---- The machine around it ----

struct drive {
    struct core *core;
    cycle_t next_event;
    uint64_t events, trail; // how many; a hash of where and when each came
    uint64_t device_trail;
};

static uint64_t mixed(uint64_t hash, uint64_t value) { return (hash ^ value) * 0x9E3779B97F4A7C15 + (hash >> 29); }

static void lower_deadline(struct drive *d)
{
    struct cpu *cpu = &d->core->cpu;
    if (d->next_event < cpu->deadline) {
        cpu->cycles_left -= (int64_t)(cpu->deadline - d->next_event);
        cpu->deadline = d->next_event;
    }
}

static uint64_t device_read(void *device, uint64_t offset, unsigned size)
{
    struct drive *d = device;
    (void)size;
    uint64_t now = cpu_now(&d->core->cpu);
    d->device_trail = mixed(d->device_trail, now + offset + d->core->cpu.instructions);
    return now;
}

static void device_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
    struct drive *d = device;
    cycle_t now = cpu_now(&d->core->cpu);
    d->device_trail = mixed(d->device_trail, now + offset * size + value);
    d->next_event = now + 1 + value % 300;
    lower_deadline(d);
}

static void put_gate(struct core *core, unsigned vector, uint32_t handler, bool wide)
{
    uint64_t gate =
        (handler & 0xFFFF) | (wide ? 0x08ull : 0x18ull) << 16 | 0x8E00ull << 32 | (uint64_t)(handler >> 16) << 48;
    core_poke(core, IDT + vector * (wide ? 16u : 8u), &gate, 8);
}

// Handlers step over the instruction: 2 bytes for #DE and #UD, FAULT_LENGTH for #PF.
static void put_handlers(struct core *core, bool wide)
{
    static const uint8_t plain64[] = {0x48, 0x83, 0x04, 0x24, 2, 0x48, 0xCF}, plain32[] = {0x83, 0x04, 0x24, 2, 0xCF};
    static const uint8_t fault64[] = {0x48, 0x83, 0x44, 0x24, 8, FAULT_LENGTH, 0x48, 0x83, 0xC4, 8, 0x48, 0xCF};
    static const uint8_t fault32[] = {0x83, 0x44, 0x24, 4, FAULT_LENGTH, 0x83, 0xC4, 4, 0xCF};
    const uint64_t gdt[] = {0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00CF9B000000FFFF};
    core_poke(core, GDT, gdt, sizeof(gdt));
    core_poke(core, HANDLERS, wide ? plain64 : plain32, wide ? sizeof(plain64) : sizeof(plain32));
    core_poke(core, HANDLERS + 64, wide ? fault64 : fault32, wide ? sizeof(fault64) : sizeof(fault32));
    put_gate(core, VECTOR_DE, HANDLERS, wide);
    put_gate(core, VECTOR_UD, HANDLERS, wide);
    put_gate(core, VECTOR_PF, HANDLERS + 64, wide);
    core->cpu.gdtr = (struct descriptor_table){GDT, sizeof(gdt) - 1};
    core->cpu.idtr = (struct descriptor_table){IDT, 0xFFF};
}

static void legacy_mode(struct core *core)
{
    struct cpu *cpu = &core->cpu;
    uint64_t pdpt[4] = {(CORE_TABLES + 0x2000) | 1};
    core_poke(core, CORE_TABLES + 0x1000, pdpt, sizeof(pdpt));
    cpu_load_control_registers(cpu, CR0_PE | CR0_PG | CR0_ET | CR0_NE | CR0_WP, CORE_TABLES + 0x1000, CR4_PAE,
                               EFER_NXE);
    mmu_set_pdptes(&cpu->mmu, pdpt);
    core_segments(cpu, 0xC09B, 0xC093);
    cpu->segments[SEG_CS].selector = 0x18;
    cpu_update_mode(cpu);
}

static void start(struct drive *d, const struct program *p, bool flat)
{
    struct core *core = d->core = core_create();
    struct cpu *cpu = &core->cpu;
    core_long_mode(core, true);
    uint64_t absent = 0;
    core_poke(core, CORE_TABLES + 0x2000 + (UNMAPPED >> 21) * 8, &absent, 8);
    if (!p->wide)
        legacy_mode(core);
    if (!flat) {
        cpu->dr[0] = 0x700000; // watched, never touched: all handlers with all checks
        cpu_write_dr7(cpu, 0x00030002);
    }
    put_handlers(core, p->wide);
    core_poke(core, CORE_CODE, p->code, p->size);
    const struct bus_region region = {DEVICE, 0x1000, device_read, device_write, d, "test"};
    bus_register_mmio(&core->bus, &region);
    cpu->regs[REG_RIP] = CORE_CODE;
    cpu->regs[REG_RBX] = CORE_CODE;
    cpu->regs[REG_RSP] = CORE_STACK_TOP;
    cpu->regs[REG_RSI] = CORE_DATA;
    cpu->regs[REG_RDI] = CORE_DATA + (4 << 20) + 0x800; // conflicts with the pages of RSI in the TLB
    cpu->regs[REG_RBP] = DEVICE;
    cpu->regs[REG_RCX] = 0x123456789;
    d->next_event = 100;
}

enum manner { FREE, TURNS, STEPS };

static void drive(struct drive *d, cycle_t end, enum manner manner)
{
    struct cpu *cpu = &d->core->cpu;
    while (cpu_now(cpu) < end) {
        cycle_t until = d->next_event < end ? d->next_event : end;
        if (manner == TURNS && until - cpu_now(cpu) > 40)
            until = cpu_now(cpu) + 1 + below(40);
        enum exec_result result = cpu_run(cpu, until, manner == STEPS);
        ck_assert_msg(result == EXEC_DONE, "result %d vector %u rip %lx", result, cpu->event.vector,
                      (long)cpu->regs[REG_RIP]);
        if (cpu_now(cpu) >= d->next_event) {
            d->events++;
            d->trail = mixed(d->trail, cpu_now(cpu) * 3 + cpu->regs[REG_RIP] + cpu->instructions);
            d->trail = mixed(d->trail, cpu_rflags(cpu) ^ cpu->regs[REG_RAX] ^ cpu->regs[REG_RCX]);
            d->next_event = cpu_now(cpu) + 50 + d->trail % 1000;
        }
    }
}

static void compare(struct drive *a, struct drive *b, const char *what)
{
    struct cpu *x = &a->core->cpu, *y = &b->core->cpu;
    ck_assert_msg(cpu_now(x) == cpu_now(y), "%s: cycles %lu %lu", what, (long)cpu_now(x), (long)cpu_now(y));
    ck_assert_msg(x->instructions == y->instructions, "%s: instructions %lu %lu", what, (long)x->instructions,
                  (long)y->instructions);
    for (unsigned r = 0; r < REG_COUNT; r++)
        ck_assert_msg(x->regs[r] == y->regs[r], "%s: register %u: %lx %lx", what, r, (long)x->regs[r],
                      (long)y->regs[r]);
    ck_assert_msg(cpu_rflags(x) == cpu_rflags(y), "%s: rflags %lx %lx", what, (long)cpu_rflags(x), (long)cpu_rflags(y));
    ck_assert_msg(memcmp(a->core->memory.ram, b->core->memory.ram, COMPARED) == 0, "%s: memory", what);
    for (unsigned i = 0; i < TLB_BANKS * TLB_ENTRIES; i++) {
        const struct tlb_entry *t = &x->mmu.tlb[i / TLB_ENTRIES][i % TLB_ENTRIES],
                               *u = &y->mmu.tlb[i / TLB_ENTRIES][i % TLB_ENTRIES];
        bool same = t->page == u->page && t->frame == u->frame && t->gpa == u->gpa && t->context == u->context &&
                    t->flags == u->flags;
        ck_assert_msg(same, "%s: TLB entry %u", what, i);
    }
    ck_assert_msg(x->mmu.code.page == y->mmu.code.page && x->mmu.walks == y->mmu.walks, "%s: code page or walks", what);
    ck_assert_msg(a->events == b->events && a->trail == b->trail && a->device_trail == b->device_trail, "%s: events",
                  what);
}

static void check_seed(uint64_t number, bool wide, bool flat)
{
    static struct program program;
    struct drive one = {0}, turns = {0}, steps = {0};
    char what[64];
    seed = number * 1000003;
    make_program(&program, wide);
    start(&one, &program, flat);
    start(&turns, &program, flat);
    start(&steps, &program, flat);
    for (unsigned i = 1; i <= 4; i++) {
        cycle_t end = i * 20000;
        drive(&one, end, FREE);
        drive(&turns, end, TURNS);
        drive(&steps, end, STEPS);
        snprintf(what, sizeof(what), "seed %lu part %u, free against steps", (long)number, i);
        compare(&one, &steps, what);
        snprintf(what, sizeof(what), "seed %lu part %u, turns against steps", (long)number, i);
        compare(&turns, &steps, what);
    }
    core_destroy(one.core);
    core_destroy(turns.core);
    core_destroy(steps.core);
}

static unsigned rounds(void)
{
    const char *text = getenv("EQUIVALENCE_ROUNDS");
    return text ? (unsigned)atoi(text) : 40;
}

START_TEST(programs_of_64_bits_run_the_same_however_driven)
{
    for (unsigned n = 0; n < rounds(); n++)
        check_seed(n, true, true);
}
END_TEST

START_TEST(programs_of_32_bits_run_the_same_however_driven)
{
    for (unsigned n = 0; n < rounds(); n++)
        check_seed(1000 + n, false, true);
}
END_TEST

START_TEST(programs_with_all_checks_run_the_same_however_driven)
{
    for (unsigned n = 0; n < rounds() / 2; n++)
        check_seed(2000 + n, n & 1, false);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("exec equivalence");
    TCase *tests = tcase_create("programs");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, programs_of_64_bits_run_the_same_however_driven);
    tcase_add_test(tests, programs_of_32_bits_run_the_same_however_driven);
    tcase_add_test(tests, programs_with_all_checks_run_the_same_however_driven);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
