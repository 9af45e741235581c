// Task switches with 16-bit and 32-bit TSSs. Not in IA-32e mode.
//
// SDM 3A 8.2 "Task Management Data Structures", 8.3 "Task Switching" and its table of checks. After the new task's registers are in
// place, what goes wrong is a fault of the new task.
#include "base/assert.h"
#include "cpu/descriptor.h"
#include "cpu/system.h"

// Bytes of a TSS, and where its parts are.
enum {
    TSS32_MINIMUM_LIMIT = 0x67,
    TSS32_CR3 = 0x1C,
    TSS32_EIP = 0x20,
    TSS32_EFLAGS = 0x24,
    TSS32_REGISTERS = 0x28,
    TSS32_SEGMENTS = 0x48,
    TSS32_LDT = 0x60,
    TSS32_TRAP = 0x64,
    TSS16_MINIMUM_LIMIT = 0x2B,
    TSS16_IP = 0x0E,
    TSS16_FLAGS = 0x10,
    TSS16_REGISTERS = 0x12,
    TSS16_SEGMENTS = 0x22,
    TSS16_LDT = 0x2A,
};
#define DR7_LOCAL UINT64_C(0x155) // L0 to L3 and LE

struct task {
    uint32_t cr3, eip, eflags;
    uint32_t registers[8];
    uint16_t segments[6]; // ES CS SS DS FS GS
    uint16_t ldt;
    bool trap;
};

static bool read_field(struct cpu *cpu, gva_t base, unsigned offset, unsigned size, uint64_t *value)
{
    return lin_read(cpu, (uint32_t)(base + offset), size, value, MMU_SUPERVISOR);
}

static bool write_field(struct cpu *cpu, gva_t base, unsigned offset, unsigned size, uint64_t value)
{
    return lin_write(cpu, (uint32_t)(base + offset), size, value, MMU_SUPERVISOR);
}

static bool read_task32(struct cpu *cpu, gva_t base, struct task *task)
{
    uint64_t v;
    if (!read_field(cpu, base, TSS32_CR3, 4, &v))
        return false;
    task->cr3 = (uint32_t)v;
    if (!read_field(cpu, base, TSS32_EIP, 4, &v))
        return false;
    task->eip = (uint32_t)v;
    if (!read_field(cpu, base, TSS32_EFLAGS, 4, &v))
        return false;
    task->eflags = (uint32_t)v;
    for (unsigned i = 0; i < 8; i++) {
        if (!read_field(cpu, base, TSS32_REGISTERS + 4 * i, 4, &v))
            return false;
        task->registers[i] = (uint32_t)v;
    }
    for (unsigned i = 0; i < 6; i++) {
        if (!read_field(cpu, base, TSS32_SEGMENTS + 4 * i, 2, &v))
            return false;
        task->segments[i] = (uint16_t)v;
    }
    if (!read_field(cpu, base, TSS32_LDT, 2, &v))
        return false;
    task->ldt = (uint16_t)v;
    if (!read_field(cpu, base, TSS32_TRAP, 2, &v))
        return false;
    task->trap = v & 1;
    return true;
}

static bool read_task16(struct cpu *cpu, gva_t base, struct task *task)
{
    uint64_t v;
    *task = (struct task){0};
    if (!read_field(cpu, base, TSS16_IP, 2, &v))
        return false;
    task->eip = (uint32_t)v;
    if (!read_field(cpu, base, TSS16_FLAGS, 2, &v))
        return false;
    task->eflags = (uint32_t)v;
    for (unsigned i = 0; i < 8; i++) {
        if (!read_field(cpu, base, TSS16_REGISTERS + 2 * i, 2, &v))
            return false;
        task->registers[i] = (uint32_t)v;
    }
    for (unsigned i = 0; i < 4; i++) {
        if (!read_field(cpu, base, TSS16_SEGMENTS + 2 * i, 2, &v))
            return false;
        task->segments[i] = (uint16_t)v;
    }
    if (!read_field(cpu, base, TSS16_LDT, 2, &v))
        return false;
    task->ldt = (uint16_t)v;
    return true;
}

// Stores the dynamic fields of the outgoing task.
static bool write_task(struct cpu *cpu, gva_t base, bool wide, uint32_t eip, uint32_t eflags)
{
    unsigned size = wide ? 4 : 2;
    if (!write_field(cpu, base, wide ? TSS32_EIP : TSS16_IP, size, eip) ||
        !write_field(cpu, base, wide ? TSS32_EFLAGS : TSS16_FLAGS, size, eflags))
        return false;
    for (unsigned i = 0; i < 8; i++)
        if (!write_field(cpu, base, (wide ? TSS32_REGISTERS : TSS16_REGISTERS) + size * i, size, cpu->regs[i]))
            return false;
    for (unsigned i = 0; i < (wide ? 6u : 4u); i++)
        if (!write_field(cpu, base, (wide ? TSS32_SEGMENTS : TSS16_SEGMENTS) + size * i, 2, cpu->segments[i].selector))
            return false;
    return true;
}

// The TSS descriptor of the new task: type, presence and limit.
static bool fetch_tss(struct cpu *cpu, uint16_t selector, enum task_switch_source source, struct descriptor *d)
{
    enum vector vector = source == TASK_SWITCH_IRET ? VECTOR_TS : VECTOR_GP;
    if (selector_is_null(selector) || (selector & SELECTOR_TI))
        return fail_selector(cpu, vector, selector);
    if (!descriptor_fetch(cpu, selector, vector, d))
        return false;
    unsigned type = descriptor_type(d), busy = source == TASK_SWITCH_IRET ? SYSTEM_TYPE_BUSY : 0;
    if (!descriptor_is_system(d) || (type != (SYSTEM_TSS_AVAILABLE | busy) && type != (SYSTEM_TSS16_AVAILABLE | busy)))
        return fail_selector(cpu, vector, selector);
    if (!descriptor_present(d))
        return fail_selector(cpu, VECTOR_NP, selector);
    if (descriptor_limit(d) < (type & 8 ? TSS32_MINIMUM_LIMIT : TSS16_MINIMUM_LIMIT))
        return fail_selector(cpu, VECTOR_TS, selector);
    return true;
}

static bool clear_busy(struct cpu *cpu, uint16_t selector)
{
    gva_t address = cpu->gdtr.base + (selector & ~7u) + 5;
    uint64_t byte;
    return lin_read(cpu, address, 1, &byte, MMU_SUPERVISOR) &&
           lin_write(cpu, address, 1, byte & ~(uint64_t)SYSTEM_TYPE_BUSY, MMU_SUPERVISOR);
}

static bool load_code_segment(struct cpu *cpu, uint16_t selector)
{
    struct descriptor d;
    if (selector_is_null(selector))
        return fail_selector(cpu, VECTOR_TS, selector);
    if (!descriptor_fetch(cpu, selector, VECTOR_TS, &d))
        return false;
    unsigned rpl = selector & SELECTOR_RPL;
    if (!descriptor_is_code(&d) ||
        (descriptor_is_conforming(&d) ? descriptor_dpl(&d) > rpl : descriptor_dpl(&d) != rpl))
        return fail_selector(cpu, VECTOR_TS, selector);
    if (!descriptor_present(&d))
        return fail_selector(cpu, VECTOR_NP, selector);
    if (!descriptor_set_type_bits(cpu, &d, TYPE_ACCESSED))
        return false;
    segment_from_descriptor(&cpu->segments[SEG_CS], selector, &d);
    return true;
}

// LDTR and the segment registers of the new task, whose CPL is set.
static bool load_segments(struct cpu *cpu, const struct task *task)
{
    struct segment segment;
    if (!ldtr_fetch(cpu, task->ldt, VECTOR_TS, &segment))
        return false;
    cpu->segments[SEG_LDTR] = segment;
    if (cpu_v8086(cpu)) {
        for (unsigned s = SEG_ES; s <= SEG_GS; s++)
            segment_load_v8086(cpu, (enum segment_register)s, task->segments[s]);
        return true;
    }
    if (!load_code_segment(cpu, task->segments[SEG_CS]))
        return false;
    if (!stack_segment_fetch(cpu, task->segments[SEG_SS], cpu->cpl, VECTOR_TS, &segment))
        return false;
    cpu->segments[SEG_SS] = segment;
    static const uint8_t data[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    for (unsigned i = 0; i < sizeof(data); i++) {
        if (!data_segment_fetch(cpu, task->segments[data[i]], VECTOR_TS, &segment))
            return false;
        cpu->segments[data[i]] = segment;
    }
    return true;
}

// General registers, RFLAGS and EIP; the segment registers get their selectors, but are unusable until they are loaded.
static void load_registers(struct cpu *cpu, const struct task *task, bool wide, bool nested)
{
    for (unsigned i = 0; i < 8; i++)
        cpu->regs[i] = wide ? task->registers[i] : (cpu->regs[i] & 0xFFFF0000) | task->registers[i];
    uint32_t eflags = task->eflags | (nested ? (uint32_t)RFLAGS_NT : 0);
    cpu->regs[REG_RIP] = task->eip;
    cpu->cpl = eflags & RFLAGS_VM ? 3 : task->segments[SEG_CS] & SELECTOR_RPL;
    for (unsigned s = SEG_ES; s <= SEG_GS; s++)
        segment_load_null(&cpu->segments[s], task->segments[s], s == SEG_SS ? cpu->cpl : 0);
    segment_load_null(&cpu->segments[SEG_LDTR], task->ldt, 0);
    cpu_set_rflags(cpu, eflags);
}

static bool push_error_code(struct cpu *cpu, bool wide, uint32_t error_code)
{
    struct stack stack = stack_current(cpu, &cpu->segments[SEG_SS], cpu->cpl);
    if (!stack_push(cpu, &stack, wide ? 4 : 2, error_code))
        return false;
    stack_commit(cpu, &stack);
    return true;
}

// The part after the commit: faults belong to the new task.
static enum exec_result begin_task(struct cpu *cpu, const struct task *task, bool wide, const struct event *during)
{
    bool loaded = load_segments(cpu, task);
    cpu_update_mode(cpu);
    if (!loaded)
        return EXEC_FAULT;
    if (task->trap)
        debug_trap(cpu, PENDING_DEBUG_BT);
    if (during && during->has_error_code && !push_error_code(cpu, wide, during->error_code))
        return EXEC_FAULT;
    if (task->eip > cpu->segments[SEG_CS].limit)
        return raise_error(cpu, VECTOR_GP, 0);
    return EXEC_DONE;
}

enum exec_result task_switch(struct cpu *cpu, uint16_t selector, enum task_switch_source source, unsigned length,
                             const struct event *during, uint64_t saved_rflags)
{
    struct descriptor d;
    if (!fetch_tss(cpu, selector, source, &d))
        return EXEC_FAULT;
    if (cpu->non_root) {
        enum exec_result r = cpu->vmx_ops->task_switch(cpu, selector, source, length, during);
        if (r != EXEC_NEXT)
            return r;
    }
    struct segment *tr = &cpu->segments[SEG_TR];
    bool wide = (descriptor_type(&d) & 8) != 0, old_wide = (tr->access_rights & 8) != 0;
    bool nested = source == TASK_SWITCH_CALL || source == TASK_SWITCH_GATE;
    bool leaves = source == TASK_SWITCH_JMP || source == TASK_SWITCH_IRET;
    gva_t new_base = descriptor_base(&d);
    uint16_t old_selector = tr->selector;
    struct task task;
    if (!(wide ? read_task32(cpu, new_base, &task) : read_task16(cpu, new_base, &task)))
        return EXEC_FAULT;
    uint32_t eflags = (uint32_t)(source == TASK_SWITCH_IRET ? saved_rflags & ~RFLAGS_NT : saved_rflags);
    if (!write_task(cpu, tr->base, old_wide, (uint32_t)(cpu->regs[REG_RIP] + length), eflags) ||
        (leaves && !clear_busy(cpu, old_selector)) || (nested && !write_field(cpu, new_base, 0, 2, old_selector)) ||
        !descriptor_set_type_bits(cpu, &d, SYSTEM_TYPE_BUSY))
        return EXEC_FAULT;

    segment_from_descriptor(tr, selector, &d);
    cpu->cr0 |= CR0_TS;
    cpu->interruptibility &= ~(uint32_t)(BLOCKING_STI | BLOCKING_MOV_SS);
    cpu->pending &= ~(uint32_t)PENDING_INHIBIT;
    load_registers(cpu, &task, wide, nested);
    cpu_write_dr7(cpu, cpu->dr7 & ~DR7_LOCAL);
    if (wide && (cpu->cr0 & CR0_PG) && cpu_write_cr3(cpu, task.cr3) != EXEC_NEXT)
        return EXEC_FAULT;
    return begin_task(cpu, &task, wide, during);
}
