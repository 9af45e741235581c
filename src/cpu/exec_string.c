// String instructions: MOVS STOS LODS SCAS CMPS INS OUTS, alone and repeated (SDM 1 7.3.9, SDM 2 "REP").
//
// A repeated instruction is the last of its block. Each iteration costs cycles and ends at a boundary where events may
// come: RIP stays, the registers say how far it got. It retires once, when it is finished. In flat modes, going upwards,
// the iterations within a page are done in one go, as many as fit before the deadline.
#include "cpu/exec_alu.h"
#include "cpu/system.h"
#include "cpu/timing.h"

// An instruction in progress.
struct string {
    unsigned size;         // bytes an element
    unsigned address_size; // bytes
    uint64_t step;         // added to the index registers after an element
    enum segment_register source_segment;
};

static struct string string_of(const struct cpu *cpu, const struct insn *in)
{
    unsigned size = insn_size(in);
    return (struct string){
        .size = size,
        .address_size = 1u << in->addr_log2,
        .step = cpu->rflags_system & RFLAGS_DF ? 0 - (uint64_t)size : size,
        .source_segment = in->segment,
    };
}

static bool uses_source(unsigned op) { return op == OP_MOVS || op == OP_LODS || op == OP_CMPS || op == OP_OUTS; }
static bool uses_destination(unsigned op) { return op != OP_LODS && op != OP_OUTS; }

static uint64_t source_offset(const struct cpu *cpu, const struct string *s)
{
    return reg_read(cpu, REG_RSI, s->address_size);
}
static uint64_t destination_offset(const struct cpu *cpu, const struct string *s)
{
    return reg_read(cpu, REG_RDI, s->address_size);
}

static void advance(struct cpu *cpu, const struct string *s, unsigned op, uint64_t elements)
{
    if (uses_source(op))
        reg_write(cpu, REG_RSI, s->address_size, cpu->regs[REG_RSI] + elements * s->step);
    if (uses_destination(op))
        reg_write(cpu, REG_RDI, s->address_size, cpu->regs[REG_RDI] + elements * s->step);
}

static void compare(struct cpu *cpu, unsigned size, uint64_t a, uint64_t b)
{
    uint32_t aux;
    uint64_t difference = alu_compute(cpu, OP_CMP, size, a, b, &aux);
    set_flags(cpu, difference, size, aux);
}

// ---- One element, with all checks. False: cpu->event is set and nothing is changed ----

static bool one_element(struct cpu *cpu, const struct string *s, unsigned op)
{
    uint64_t a = 0, b = 0;
    if (uses_source(op) && !mem_read(cpu, s->source_segment, source_offset(cpu, s), s->size, &a))
        return false;
    switch (op) {
    case OP_MOVS:
    case OP_STOS:
        if (op == OP_STOS)
            a = cpu->regs[REG_RAX];
        if (!mem_write(cpu, SEG_ES, destination_offset(cpu, s), s->size, a))
            return false;
        break;
    case OP_LODS: reg_write(cpu, REG_RAX, s->size, a); break;
    default:
        if (!mem_read(cpu, SEG_ES, destination_offset(cpu, s), s->size, &b))
            return false;
        compare(cpu, s->size, op == OP_SCAS ? cpu->regs[REG_RAX] : a, b);
        break;
    }
    advance(cpu, s, op, 1);
    return true;
}

// ---- Many elements within a page ----

// Elements from here to the end of the page that `linear` is in.
static uint64_t room_in_page(gva_t linear, unsigned size) { return (PAGE_SIZE - (linear & PAGE_OFFSET_MASK)) / size; }

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

// Iterations that begin before the deadline; 1 if single-stepping.
static uint64_t iterations_in_budget(const struct cpu *cpu)
{
    if (cpu->mode & MODE_SINGLE || cpu->cycles_left <= 0)
        return 1;
    return ((uint64_t)cpu->cycles_left + TIMING_STRING_ITERATION - 1) / TIMING_STRING_ITERATION;
}

// Copies upwards one element after the other, as if by MOVS: an overlapping destination above the source repeats it.
static void copy_elements(uint8_t *target, const uint8_t *source, unsigned size, uint64_t elements)
{
    uint64_t bytes = elements * size;
    if ((uintptr_t)target - (uintptr_t)source >= bytes) {
        memmove(target, source, (size_t)bytes);
        return;
    }
    for (uint64_t i = 0; i < bytes; i += size)
        host_store(target + i, size, host_load(source + i, size));
}

static void fill_elements(uint8_t *target, unsigned size, uint64_t elements, uint64_t value)
{
    switch (size) {
    case 1: memset(target, (int)(value & 0xFF), (size_t)elements); break;
    case 2:
        for (uint64_t i = 0; i < elements; i++)
            host_store(target + 2 * i, 2, value);
        break;
    case 4:
        for (uint64_t i = 0; i < elements; i++)
            host_store(target + 4 * i, 4, value);
        break;
    default:
        for (uint64_t i = 0; i < elements; i++)
            host_store(target + 8 * i, 8, value);
        break;
    }
}

// SCAS and CMPS up to the element that ends the repetition; sets the flags of the last one compared. `source` NULL: SCAS.
static uint64_t compare_elements(struct cpu *cpu, const uint8_t *source, const uint8_t *destination, unsigned size,
                                 uint64_t elements, bool while_equal)
{
    uint64_t a = truncated(cpu->regs[REG_RAX], size), b = 0, n = 0;
    do {
        if (source)
            a = host_load(source + n * size, size);
        b = host_load(destination + n * size, size);
        n++;
    } while (n < elements && (a == b) == while_equal);
    compare(cpu, size, a, b);
    return n;
}

// Does up to `count` iterations at once. Returns how many: 0 if the fast way is not open here.
static uint64_t many_elements(struct cpu *cpu, const struct string *s, const struct insn *in, uint64_t count)
{
    unsigned op = in->op;
    bool other_segment = uses_source(op) && s->source_segment >= SEG_FS && !cpu_64bit(cpu);
    if (!(cpu->mode & MODE_FLAT) || (cpu->rflags_system & RFLAGS_DF) || other_segment)
        return 0;
    uint64_t n = smaller(count, iterations_in_budget(cpu));
    const void *source = NULL, *compared = NULL;
    void *target = NULL;
    gva_t from = source_offset(cpu, s) + cpu->segment_base[s->source_segment], to = destination_offset(cpu, s);
    if (uses_source(op))
        n = smaller(n, room_in_page(from, s->size));
    if (uses_destination(op))
        n = smaller(n, room_in_page(to, s->size));
    if (n == 0)
        return 0;
    unsigned bytes = (unsigned)(n * s->size);
    if (uses_source(op) && !fast_read(cpu, from, bytes, &source))
        return 0;
    bool writes = op == OP_MOVS || op == OP_STOS;
    if (uses_destination(op) && (writes ? !fast_write(cpu, to, bytes, &target) : !fast_read(cpu, to, bytes, &compared)))
        return 0;
    switch (op) {
    case OP_MOVS: copy_elements(target, source, s->size, n); break;
    case OP_STOS: fill_elements(target, s->size, n, cpu->regs[REG_RAX]); break;
    case OP_LODS:
        reg_write(cpu, REG_RAX, s->size, host_load((const uint8_t *)source + (n - 1) * s->size, s->size));
        break;
    default:
        n = compare_elements(cpu, op == OP_CMPS ? source : NULL, compared, s->size, n, (in->flags & INSN_REP) != 0);
        break;
    }
    advance(cpu, s, op, n);
    return n;
}

// ---- The instructions ----

static bool is_repeated(const struct insn *in) { return (in->flags & (INSN_REP | INSN_REPNE)) != 0; }

// True if the comparison just made ends the repetition.
static bool comparison_ends(const struct cpu *cpu, const struct insn *in)
{
    bool compares = in->op == OP_SCAS || in->op == OP_CMPS;
    return compares && flag_zf(cpu) != ((in->flags & INSN_REP) != 0);
}

// True if the run loop has to be asked before the next iteration.
static bool must_pause(const struct cpu *cpu)
{
    return cpu->cycles_left <= 0 || cpu->stop_block || cpu->pending || (cpu->mode & MODE_SINGLE);
}

static void count_down(struct cpu *cpu, const struct string *s, uint64_t elements)
{
    reg_write(cpu, REG_RCX, s->address_size, cpu->regs[REG_RCX] - elements);
    cpu->cycles_left -= (int64_t)(elements * TIMING_STRING_ITERATION);
}

// After the last iteration: retires, and goes on with the next block at once if nothing is in the way.
static enum exec_result finish_repeated(struct cpu *cpu, const struct insn *in)
{
    exec_retire(cpu, in);
    uint64_t next = (cpu->regs[REG_RIP] + in->length) & cpu->rip_mask;
    cpu->regs[REG_RIP] = next;
    if (cpu->stop_block || cpu->cycles_left <= 0)
        return EXEC_DONE;
    return exec_goto(cpu, next);
}

// A boundary between two iterations, where an event that comes saves RFLAGS.RF = 1 (SDM 3B 18.3.1.1).
static enum exec_result pause_repeated(struct cpu *cpu)
{
    cpu->repeating = true;
    return EXEC_DONE;
}

static enum exec_result repeat(struct cpu *cpu, const struct insn *in)
{
    exec_begin_system(cpu, in);
    cpu->repeating = false;
    struct string s = string_of(cpu, in);
    for (;;) {
        uint64_t count = reg_read(cpu, REG_RCX, s.address_size);
        if (count == 0)
            return finish_repeated(cpu, in);
        uint64_t done = many_elements(cpu, &s, in, count);
        if (done == 0) {
            if (!one_element(cpu, &s, in->op))
                return EXEC_FAULT;
            done = 1;
        }
        count_down(cpu, &s, done);
        if (done == count || comparison_ends(cpu, in))
            return finish_repeated(cpu, in);
        if (must_pause(cpu))
            return pause_repeated(cpu);
    }
}

enum exec_result exec_string(struct cpu *cpu, const struct insn *in)
{
    if (is_repeated(in))
        return repeat(cpu, in);
    struct string s = string_of(cpu, in);
    return one_element(cpu, &s, in->op) ? exec_next_slow(cpu, in) : exec_fault(cpu, in);
}

// ---- INS and OUTS ----

// One transfer: permission and intercept, then the memory operand's checks, then the port. Nothing is changed unless EXEC_NEXT.
static enum exec_result one_transfer(struct cpu *cpu, const struct insn *in, const struct string *s)
{
    uint16_t port = (uint16_t)cpu->regs[REG_RDX];
    uint64_t value;
    enum exec_result result = io_access_check(cpu, in, port, s->size);
    if (result != EXEC_NEXT)
        return result;
    if (in->op == OP_INS) {
        if (!mem_check_write(cpu, SEG_ES, destination_offset(cpu, s), s->size))
            return EXEC_FAULT;
        value = io_read(cpu, port, s->size);
        if (!mem_write(cpu, SEG_ES, destination_offset(cpu, s), s->size, value))
            return EXEC_FAULT;
    } else {
        if (!mem_read(cpu, s->source_segment, source_offset(cpu, s), s->size, &value))
            return EXEC_FAULT;
        io_write(cpu, port, s->size, value);
    }
    advance(cpu, s, in->op, 1);
    return EXEC_NEXT;
}

static enum exec_result transfer(struct cpu *cpu, const struct insn *in)
{
    struct string s = string_of(cpu, in);
    bool repeated = is_repeated(in);
    exec_begin_system(cpu, in);
    cpu->repeating = false;
    if (repeated && reg_read(cpu, REG_RCX, s.address_size) == 0)
        return exec_end_system(cpu, in);
    for (;;) {
        enum exec_result result = one_transfer(cpu, in, &s);
        if (result != EXEC_NEXT)
            return result;
        if (!repeated)
            return exec_end_system(cpu, in);
        count_down(cpu, &s, 1);
        if (reg_read(cpu, REG_RCX, s.address_size) == 0)
            return exec_end_system(cpu, in);
        if (must_pause(cpu))
            return pause_repeated(cpu);
    }
}

enum exec_result exec_ins(struct cpu *cpu, const struct insn *in) { return transfer(cpu, in); }
enum exec_result exec_outs(struct cpu *cpu, const struct insn *in) { return transfer(cpu, in); }
