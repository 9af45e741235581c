// Segment descriptors: reading them, checking them, marking them, and what a segment register makes of them.
//
// SDM 3A 3.4.5 "Segment Descriptors", 5.4 to 5.8 (type, limit and privilege checks), 8.2.1 "Task-State Segment (TSS)".
#include "cpu/descriptor.h"
#include "cpu/system.h"

enum descriptor_status descriptor_read(struct cpu *cpu, uint16_t selector, struct descriptor *d)
{
    uint64_t base = cpu->gdtr.base;
    uint32_t limit = cpu->gdtr.limit;
    if (selector & SELECTOR_TI) {
        const struct segment *ldtr = &cpu->segments[SEG_LDTR];
        if ((ldtr->access_rights & SEGMENT_UNUSABLE) || selector_is_null(ldtr->selector))
            return DESCRIPTOR_OUTSIDE;
        base = ldtr->base;
        limit = ldtr->limit;
    }
    uint32_t offset = selector & ~7u;
    if (offset + 7 > limit)
        return DESCRIPTOR_OUTSIDE;
    d->address = base + offset;
    return lin_read(cpu, d->address, 8, &d->raw, MMU_SUPERVISOR) ? DESCRIPTOR_OK : DESCRIPTOR_FAULT;
}

bool descriptor_fetch(struct cpu *cpu, uint16_t selector, enum vector vector, struct descriptor *d)
{
    enum descriptor_status status = descriptor_read(cpu, selector, d);
    if (status == DESCRIPTOR_OUTSIDE)
        return fail_selector(cpu, vector, selector);
    return status == DESCRIPTOR_OK;
}

bool descriptor_fetch_upper(struct cpu *cpu, uint16_t selector, enum vector vector, const struct descriptor *d,
                            uint64_t *upper)
{
    uint32_t limit = selector & SELECTOR_TI ? cpu->segments[SEG_LDTR].limit : cpu->gdtr.limit;
    if ((selector & ~7u) + 15 > limit)
        return fail_selector(cpu, vector, selector);
    return lin_read(cpu, d->address + 8, 8, upper, MMU_SUPERVISOR);
}

bool descriptor_set_type_bits(struct cpu *cpu, struct descriptor *d, unsigned type_bits)
{
    uint64_t raw = d->raw | (uint64_t)type_bits << 40;
    if (raw == d->raw)
        return true;
    if (!lin_write(cpu, d->address + 5, 1, bits_get(raw, 47, 40), MMU_SUPERVISOR))
        return false;
    d->raw = raw;
    return true;
}

void segment_from_descriptor(struct segment *segment, uint16_t selector, const struct descriptor *d)
{
    segment->selector = selector;
    segment->base = descriptor_base(d);
    segment->limit = descriptor_limit(d);
    segment->access_rights = (uint32_t)bits_get(d->raw, 55, 40) & 0xF0FF;
}

void segment_load_real(struct cpu *cpu, enum segment_register s, uint16_t selector)
{
    struct segment *segment = &cpu->segments[s];
    segment->selector = selector;
    segment->base = (uint64_t)selector << 4;
    segment->access_rights =
        (segment->access_rights & ~(uint32_t)(SEGMENT_UNUSABLE | 0xFF)) | 0x93; // limit, D/B and G are kept
}

void segment_load_v8086(struct cpu *cpu, enum segment_register s, uint16_t selector)
{
    cpu->segments[s] = (struct segment){
        .selector = selector, .base = (uint64_t)selector << 4, .limit = 0xFFFF, .access_rights = V8086_DATA_RIGHTS};
}

void segment_load_null(struct segment *segment, uint16_t selector, unsigned cpl)
{
    *segment =
        (struct segment){.selector = selector, .access_rights = (uint32_t)SEGMENT_UNUSABLE | cpl << SEGMENT_DPL_SHIFT};
}

bool stack_segment_fetch(struct cpu *cpu, uint16_t selector, unsigned cpl, enum vector vector, struct segment *segment)
{
    struct descriptor d;
    if (selector_is_null(selector)) {
        raise_error(cpu, vector, 0);
        return false;
    }
    if (!descriptor_fetch(cpu, selector, vector, &d))
        return false;
    if ((selector & SELECTOR_RPL) != cpl || !descriptor_is_writable_data(&d) || descriptor_dpl(&d) != cpl)
        return fail_selector(cpu, vector, selector);
    if (!descriptor_present(&d))
        return fail_selector(cpu, VECTOR_SS, selector);
    if (!descriptor_set_type_bits(cpu, &d, TYPE_ACCESSED))
        return false;
    segment_from_descriptor(segment, selector, &d);
    return true;
}

bool data_segment_fetch(struct cpu *cpu, uint16_t selector, enum vector vector, struct segment *segment)
{
    struct descriptor d;
    if (selector_is_null(selector)) {
        segment_load_null(segment, selector, 0);
        return true;
    }
    if (!descriptor_fetch(cpu, selector, vector, &d))
        return false;
    bool code = descriptor_is_code(&d);
    if (descriptor_is_system(&d) || (code && !(descriptor_type(&d) & TYPE_READABLE)))
        return fail_selector(cpu, vector, selector);
    unsigned dpl = descriptor_dpl(&d);
    if (!(code && descriptor_is_conforming(&d)) && ((selector & SELECTOR_RPL) > dpl || cpu->cpl > dpl))
        return fail_selector(cpu, vector, selector);
    if (!descriptor_present(&d))
        return fail_selector(cpu, VECTOR_NP, selector);
    if (!descriptor_set_type_bits(cpu, &d, TYPE_ACCESSED))
        return false;
    segment_from_descriptor(segment, selector, &d);
    return true;
}

bool ldtr_fetch(struct cpu *cpu, uint16_t selector, enum vector vector, struct segment *segment)
{
    struct descriptor d;
    if (selector_is_null(selector)) {
        segment_load_null(segment, selector, 0);
        return true;
    }
    if (selector & SELECTOR_TI)
        return fail_selector(cpu, vector, selector);
    if (!descriptor_fetch(cpu, selector, vector, &d))
        return false;
    if (!descriptor_is_system(&d) || descriptor_type(&d) != SYSTEM_LDT)
        return fail_selector(cpu, vector, selector);
    uint64_t upper = 0;
    if (cpu_long_mode(cpu) && !descriptor_fetch_upper(cpu, selector, vector, &d, &upper))
        return false;
    if (!descriptor_present(&d)) // a task switch reports #TS here
        return fail_selector(cpu, vector == VECTOR_TS ? VECTOR_TS : VECTOR_NP, selector);
    segment_from_descriptor(segment, selector, &d);
    segment->base |= upper << 32;
    if (cpu_long_mode(cpu) && (!is_canonical(segment->base, 48) || bits_get(upper, 44, 40)))
        return fail_selector(cpu, vector, selector);
    return true;
}

bool tss_read_stack(struct cpu *cpu, unsigned level, uint16_t *ss, uint32_t *esp)
{
    const struct segment *tr = &cpu->segments[SEG_TR];
    bool wide = (tr->access_rights & SEGMENT_TYPE) == SYSTEM_TSS_BUSY;
    // 32-bit TSS: ESPn at 4 + 8n, SSn after it; 16-bit TSS: SPn at 2 + 4n, SSn after it.
    unsigned offset = wide ? 4 + 8 * level : 2 + 4 * level;
    unsigned size = wide ? 4 : 2;
    if (offset + size + 1 > tr->limit)
        return fail_selector(cpu, VECTOR_TS, tr->selector);
    uint64_t pointer, selector;
    if (!lin_read(cpu, tr->base + offset, size, &pointer, MMU_SUPERVISOR) ||
        !lin_read(cpu, tr->base + offset + size, 2, &selector, MMU_SUPERVISOR))
        return false;
    *esp = (uint32_t)pointer;
    *ss = (uint16_t)selector;
    return true;
}

bool tss_read_stack64(struct cpu *cpu, unsigned index, uint64_t *rsp)
{
    const struct segment *tr = &cpu->segments[SEG_TR];
    unsigned offset = 4 + 8 * index; // RSP0 at 4, IST1 at 36
    if (offset + 7 > tr->limit)
        return fail_selector(cpu, VECTOR_TS, tr->selector);
    if (!lin_read(cpu, tr->base + offset, 8, rsp, MMU_SUPERVISOR))
        return false;
    if (!is_canonical(*rsp, 48)) {
        raise_error(cpu, VECTOR_SS, 0);
        return false;
    }
    return true;
}

void segments_drop_privileged(struct cpu *cpu)
{
    static const uint8_t data[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    for (unsigned i = 0; i < sizeof(data); i++) {
        struct segment *segment = &cpu->segments[data[i]];
        if (segment->access_rights & SEGMENT_UNUSABLE)
            continue;
        bool conforming = (segment->access_rights & (TYPE_CODE | TYPE_CONFORMING)) == (TYPE_CODE | TYPE_CONFORMING);
        if (!conforming && bits_get(segment->access_rights, 6, 5) < cpu->cpl)
            segment_load_null(segment, 0, 0);
    }
}

enum mmu_mode access_mode(const struct cpu *cpu, unsigned cpl)
{
    if (cpl == 3)
        return MMU_USER;
    return cpu->rflags_system & RFLAGS_AC ? MMU_SUPERVISOR_AC : MMU_SUPERVISOR;
}

struct stack stack_current(struct cpu *cpu, const struct segment *ss, unsigned cpl)
{
    struct stack stack = {.sp = cpu->regs[REG_RSP], .mode = access_mode(cpu, cpl)};
    if (cpu->mode & MODE_STACK64) {
        stack.mask = ~(uint64_t)0;
    } else {
        stack.segment = ss;
        stack.mask = ss->access_rights & SEGMENT_DB ? 0xFFFFFFFF : 0xFFFF;
    }
    return stack;
}

// True if [offset, offset + size) is within a data segment's limit.
static bool stack_within_limit(const struct segment *ss, uint64_t offset, unsigned size)
{
    uint64_t last = offset + size - 1;
    if ((ss->access_rights & (TYPE_CODE | TYPE_EXPAND_DOWN)) == TYPE_EXPAND_DOWN)
        return offset > ss->limit && last <= (ss->access_rights & SEGMENT_DB ? 0xFFFFFFFF : 0xFFFF);
    return last <= ss->limit;
}

bool stack_push(struct cpu *cpu, struct stack *stack, unsigned size, uint64_t value)
{
    uint64_t sp = (stack->sp - size) & stack->mask;
    gva_t linear = sp;
    if (stack->segment) {
        if ((stack->segment->access_rights & SEGMENT_UNUSABLE) || !stack_within_limit(stack->segment, sp, size))
            return fail_selector(cpu, VECTOR_SS, stack->error_selector);
        linear = (uint32_t)(stack->segment->base + sp);
    } else if (!is_canonical(sp, 48) || !is_canonical(sp + size - 1, 48)) {
        return fail_selector(cpu, VECTOR_SS, stack->error_selector);
    }
    if (!lin_write(cpu, linear, size, value, stack->mode))
        return false;
    stack->sp = stack->mask == 0xFFFF ? (stack->sp & ~(uint64_t)0xFFFF) | sp : sp;
    return true;
}

void stack_commit(struct cpu *cpu, const struct stack *stack) { stack_pointer_set(cpu, stack->mask, stack->sp); }
