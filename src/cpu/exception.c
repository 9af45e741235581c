// Delivery of interrupts and exceptions through the IVT or IDT in every mode, and what follows from faults on the way.
//
// SDM 3A 6.10 to 6.15 (gates, stacks, error codes, double and triple faults), 21.1.4 (real-address mode), 21.2 and 21.3
// (virtual-8086 mode); SDM 2 "INT n". Leaves out shadow stacks and SMM.
#include "base/assert.h"
#include "cpu/descriptor.h"
#include "cpu/system.h"
#include "cpu/timing.h"

enum {
    ERROR_IDT = 2, // the index in the error code is into the IDT
    ERROR_EXTERNAL = 1,
    TSS_IO_BASE = 102,
};

// A software interrupt or exception: INT n, INT3, INTO. They check the gate's DPL and are not external to the program.
static bool is_software(const struct event *event)
{
    return event->type == EVENT_SOFTWARE_INTERRUPT || event->type == EVENT_SOFTWARE_EXCEPTION;
}

// Bytes that the return address lies after RIP.
static unsigned instruction_length(const struct event *event)
{
    return is_software(event) || event->type == EVENT_PRIVILEGED_SOFTWARE_EXCEPTION ? event->length : 0;
}

static uint64_t return_rip(const struct cpu *cpu, const struct event *event)
{
    return (cpu->regs[REG_RIP] + instruction_length(event)) & cpu->rip_mask;
}

static bool fail_gate(struct cpu *cpu, enum vector vector, const struct event *event)
{
    raise_error(cpu, vector, (uint32_t)event->vector * 8 + ERROR_IDT);
    return false;
}

// What every way of delivery ends with. CS, SS and the stack pointer are stored already.
static enum exec_result finish(struct cpu *cpu, uint64_t rip, uint64_t rflags)
{
    cpu->regs[REG_RIP] = rip;
    cpu->interruptibility &= ~(uint32_t)(BLOCKING_STI | BLOCKING_MOV_SS);
    cpu_set_rflags(cpu, rflags);
    cpu->pending &= ~(uint32_t)PENDING_INHIBIT;
    cpu_update_mode(cpu);
    return EXEC_DONE;
}

// The 8086 way: a vector table of CS:IP pairs, three words on the stack. `mode`: of the access to the table.
static enum exec_result deliver_8086(struct cpu *cpu, const struct event *event, gva_t table, enum mmu_mode mode,
                                     uint64_t image, uint64_t new_rflags)
{
    uint64_t entry;
    if (!lin_read(cpu, table + (uint64_t)event->vector * 4, 4, &entry, mode))
        return EXEC_FAULT;
    uint16_t ip = (uint16_t)entry, cs = (uint16_t)(entry >> 16);
    struct stack stack = stack_current(cpu, &cpu->segments[SEG_SS], cpu->cpl);
    if (!stack_push(cpu, &stack, 2, image & 0xFFFF) || !stack_push(cpu, &stack, 2, cpu->segments[SEG_CS].selector) ||
        !stack_push(cpu, &stack, 2, return_rip(cpu, event)))
        return EXEC_FAULT;
    if (ip > cpu->segments[SEG_CS].limit)
        return raise_error(cpu, VECTOR_GP, 0);
    stack_commit(cpu, &stack);
    if (cpu_v8086(cpu))
        segment_load_v8086(cpu, SEG_CS, cs);
    else
        segment_load_real(cpu, SEG_CS, cs);
    return finish(cpu, ip, new_rflags);
}

static enum exec_result deliver_real(struct cpu *cpu, const struct event *event, uint64_t image)
{
    if ((uint32_t)event->vector * 4 + 3 > cpu->idtr.limit)
        return raise_error(cpu, VECTOR_GP, 0);
    return deliver_8086(cpu, event, cpu->idtr.base, MMU_SUPERVISOR, image,
                        image & ~(RFLAGS_IF | RFLAGS_TF | RFLAGS_AC | RFLAGS_RF));
}

bool v8086_redirection(struct cpu *cpu, uint8_t vector, bool *redirected)
{
    const struct segment *tr = &cpu->segments[SEG_TR];
    uint64_t base, byte;
    *redirected = false;
    if (!(cpu->cr4 & CR4_VME))
        return true;
    if (TSS_IO_BASE + 1 > tr->limit) {
        raise_error(cpu, VECTOR_GP, 0);
        return false;
    }
    if (!lin_read(cpu, tr->base + TSS_IO_BASE, 2, &base, MMU_SUPERVISOR))
        return false;
    uint64_t offset = base - 32 + vector / 8; // the bitmap is the 32 bytes below the I/O bitmap
    if (base < 32 || offset > tr->limit) {
        raise_error(cpu, VECTOR_GP, 0);
        return false;
    }
    if (!lin_read(cpu, tr->base + offset, 1, &byte, MMU_SUPERVISOR))
        return false;
    *redirected = !(byte >> (vector & 7) & 1);
    return true;
}

// Interrupt redirection in virtual-8086 mode (SDM 3A 21.3.3): below IOPL 3 the virtual interrupt flag stands for IF.
static enum exec_result deliver_redirected(struct cpu *cpu, const struct event *event, uint64_t image)
{
    uint64_t flag = RFLAGS_IF, pushed = image;
    if ((image & RFLAGS_IOPL) != RFLAGS_IOPL) {
        flag = RFLAGS_VIF;
        pushed = (image & ~RFLAGS_IF) | RFLAGS_IOPL | (image & RFLAGS_VIF ? RFLAGS_IF : 0);
    }
    return deliver_8086(cpu, event, 0, MMU_USER, pushed, image & ~(flag | RFLAGS_TF | RFLAGS_RF | RFLAGS_NT));
}

// Reads a gate of 8 or 16 bytes and checks limit, type, DPL and P (SDM 2 INT n, PROTECTED-MODE).
static bool fetch_gate(struct cpu *cpu, const struct event *event, struct descriptor *gate, uint64_t *upper)
{
    bool long_mode = cpu_long_mode(cpu);
    unsigned bytes = long_mode ? 16 : 8;
    uint32_t offset = event->vector * bytes;
    if (offset + bytes - 1 > cpu->idtr.limit)
        return fail_gate(cpu, VECTOR_GP, event);
    gate->address = cpu->idtr.base + offset;
    *upper = 0;
    if (!lin_read(cpu, gate->address, 8, &gate->raw, MMU_SUPERVISOR) ||
        (long_mode && !lin_read(cpu, gate->address + 8, 8, upper, MMU_SUPERVISOR)))
        return false;
    unsigned type = descriptor_type(gate);
    bool valid =
        type == SYSTEM_INTERRUPT_GATE || type == SYSTEM_TRAP_GATE ||
        (!long_mode && (type == SYSTEM_TASK_GATE || type == SYSTEM_INTERRUPT_GATE16 || type == SYSTEM_TRAP_GATE16));
    if (!descriptor_is_system(gate) || !valid)
        return fail_gate(cpu, VECTOR_GP, event);
    if (is_software(event) && descriptor_dpl(gate) < cpu->cpl)
        return fail_gate(cpu, VECTOR_GP, event);
    if (!descriptor_present(gate))
        return fail_gate(cpu, VECTOR_NP, event);
    return true;
}

// The handler's code segment. *level: the CPL it will run at.
static bool fetch_handler_segment(struct cpu *cpu, uint16_t selector, struct segment *cs, unsigned *level)
{
    struct descriptor d;
    if (selector_is_null(selector)) {
        raise_error(cpu, VECTOR_GP, 0);
        return false;
    }
    if (!descriptor_fetch(cpu, selector, VECTOR_GP, &d))
        return false;
    if (!descriptor_is_code(&d) || descriptor_dpl(&d) > cpu->cpl)
        return fail_selector(cpu, VECTOR_GP, selector);
    if (cpu_long_mode(cpu) && (!descriptor_long(&d) || descriptor_default_big(&d)))
        return fail_selector(cpu, VECTOR_GP, selector);
    if (!descriptor_present(&d))
        return fail_selector(cpu, VECTOR_NP, selector);
    *level = descriptor_is_conforming(&d) ? cpu->cpl : descriptor_dpl(&d);
    if (cpu_v8086(cpu) && *level != 0) // interrupts from virtual-8086 mode are handled at level 0
        return fail_selector(cpu, VECTOR_GP, selector);
    if (!descriptor_set_type_bits(cpu, &d, TYPE_ACCESSED))
        return false;
    segment_from_descriptor(cs, (uint16_t)((selector & ~SELECTOR_RPL) | *level), &d);
    return true;
}

static uint64_t handler_rflags(uint64_t image, const struct descriptor *gate)
{
    uint64_t clear = RFLAGS_TF | RFLAGS_VM | RFLAGS_RF | RFLAGS_NT;
    if (!(descriptor_type(gate) & 1)) // interrupt gate, not trap gate
        clear |= RFLAGS_IF;
    return image & ~clear;
}

static bool push_return(struct cpu *cpu, struct stack *stack, unsigned size, const struct event *event, uint64_t image)
{
    return stack_push(cpu, stack, size, image) && stack_push(cpu, stack, size, cpu->segments[SEG_CS].selector) &&
           stack_push(cpu, stack, size, return_rip(cpu, event)) &&
           (!event->has_error_code || stack_push(cpu, stack, size, event->error_code));
}

// Protected mode: the stack the handler starts on, from the TSS if the privilege level changes.
static bool prepare_stack(struct cpu *cpu, unsigned level, struct segment *ss, struct stack *stack)
{
    if (level == cpu->cpl) {
        *ss = cpu->segments[SEG_SS];
        *stack = stack_current(cpu, ss, level);
        return true;
    }
    uint16_t selector;
    uint32_t esp;
    if (!tss_read_stack(cpu, level, &selector, &esp) || !stack_segment_fetch(cpu, selector, level, VECTOR_TS, ss))
        return false;
    *stack = (struct stack){
        .segment = ss,
        .sp = esp,
        .mask = ss->access_rights & SEGMENT_DB ? 0xFFFFFFFF : 0xFFFF,
        .mode = access_mode(cpu, level),
        .error_selector = selector,
    };
    return true;
}

static bool push_v8086_segments(struct cpu *cpu, struct stack *stack, unsigned size)
{
    return stack_push(cpu, stack, size, cpu->segments[SEG_GS].selector) &&
           stack_push(cpu, stack, size, cpu->segments[SEG_FS].selector) &&
           stack_push(cpu, stack, size, cpu->segments[SEG_DS].selector) &&
           stack_push(cpu, stack, size, cpu->segments[SEG_ES].selector);
}

static enum exec_result deliver_protected(struct cpu *cpu, const struct event *event, uint64_t image)
{
    struct descriptor gate;
    uint64_t upper;
    if (!fetch_gate(cpu, event, &gate, &upper))
        return EXEC_FAULT;
    if (descriptor_type(&gate) == SYSTEM_TASK_GATE)
        return task_switch(cpu, gate_selector(&gate), TASK_SWITCH_GATE, instruction_length(event), event, image);

    struct segment cs, ss;
    struct stack stack;
    unsigned level;
    unsigned size = descriptor_type(&gate) & 8 ? 4 : 2;
    if (!fetch_handler_segment(cpu, gate_selector(&gate), &cs, &level) || !prepare_stack(cpu, level, &ss, &stack))
        return EXEC_FAULT;
    bool from_v8086 = cpu_v8086(cpu), inner = level != cpu->cpl;
    if (inner) {
        uint64_t old_ss = cpu->segments[SEG_SS].selector, old_sp = cpu->regs[REG_RSP];
        if ((from_v8086 && !push_v8086_segments(cpu, &stack, size)) || !stack_push(cpu, &stack, size, old_ss) ||
            !stack_push(cpu, &stack, size, old_sp))
            return EXEC_FAULT;
    }
    if (!push_return(cpu, &stack, size, event, image))
        return EXEC_FAULT;
    uint32_t eip = size == 4 ? gate_offset(&gate) : gate_offset(&gate) & 0xFFFF;
    if (eip > cs.limit)
        return raise_error(cpu, VECTOR_GP, 0);

    if (from_v8086) {
        static const uint8_t data[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
        for (unsigned i = 0; i < sizeof(data); i++)
            segment_load_null(&cpu->segments[data[i]], 0, 0);
    }
    cpu->segments[SEG_CS] = cs;
    cpu->segments[SEG_SS] = ss;
    stack_commit(cpu, &stack);
    return finish(cpu, eip, handler_rflags(image, &gate));
}

static enum exec_result deliver_long(struct cpu *cpu, const struct event *event, uint64_t image)
{
    struct descriptor gate;
    struct segment cs;
    uint64_t upper;
    unsigned level;
    if (!fetch_gate(cpu, event, &gate, &upper) || !fetch_handler_segment(cpu, gate_selector(&gate), &cs, &level))
        return EXEC_FAULT;
    uint64_t rip = gate_offset(&gate) | upper << 32;
    unsigned ist = (unsigned)bits_get(gate.raw, 34, 32);
    bool inner = level != cpu->cpl;
    struct stack stack = {.sp = cpu->regs[REG_RSP], .mask = ~(uint64_t)0, .mode = access_mode(cpu, level)};
    if ((ist || inner) && !tss_read_stack64(cpu, ist ? ist + 3 : level, &stack.sp))
        return EXEC_FAULT;
    stack.sp &= ~(uint64_t)15;
    if (!stack_push(cpu, &stack, 8, cpu->segments[SEG_SS].selector) ||
        !stack_push(cpu, &stack, 8, cpu->regs[REG_RSP]) || !push_return(cpu, &stack, 8, event, image))
        return EXEC_FAULT;
    if (!is_canonical(rip, 48))
        return raise_error(cpu, VECTOR_GP, 0);

    cpu->segments[SEG_CS] = cs;
    if (inner)
        segment_load_null(&cpu->segments[SEG_SS], (uint16_t)level, level);
    cpu->regs[REG_RSP] = stack.sp;
    return finish(cpu, rip, handler_rflags(image, &gate));
}

// RFLAGS.RF in the pushed image: set for faults other than instruction breakpoints and between the iterations of a string
// instruction, so that the restarted instruction does not meet its breakpoint again (SDM 3B 18.3.1.1). `raised`: an exception of the program, not one that VM entry injects.
static uint64_t pushed_rflags(const struct cpu *cpu, const struct event *event, bool raised)
{
    uint64_t image = cpu_rflags(cpu);
    bool fault = event->type == EVENT_HARDWARE_EXCEPTION && event->vector != VECTOR_DB && event->vector != VECTOR_MC;
    return (raised && fault) || cpu->repeating ? image | RFLAGS_RF : image;
}

static enum exec_result deliver_once(struct cpu *cpu, const struct event *event, bool raised)
{
    uint64_t image = pushed_rflags(cpu, event, raised);
    if (!(cpu->cr0 & CR0_PE))
        return deliver_real(cpu, event, image);
    if (cpu_long_mode(cpu))
        return deliver_long(cpu, event, image);
    if (cpu_v8086(cpu) && event->type == EVENT_SOFTWARE_INTERRUPT) {
        bool redirected;
        if (!v8086_redirection(cpu, event->vector, &redirected))
            return EXEC_FAULT;
        if (redirected)
            return deliver_redirected(cpu, event, image);
    }
    return deliver_protected(cpu, event, image);
}

// Classes of SDM 3A table 6-4; only hardware exceptions are other than benign.
enum exception_class { CLASS_BENIGN, CLASS_CONTRIBUTORY, CLASS_PAGE_FAULT, CLASS_DOUBLE_FAULT };

static enum exception_class class_of(const struct event *event)
{
    if (event->type != EVENT_HARDWARE_EXCEPTION)
        return CLASS_BENIGN;
    switch (event->vector) {
    case VECTOR_DE:
    case VECTOR_TS:
    case VECTOR_NP:
    case VECTOR_SS:
    case VECTOR_GP: return CLASS_CONTRIBUTORY;
    case VECTOR_PF:
    case VECTOR_VE: return CLASS_PAGE_FAULT;
    case VECTOR_DF: return CLASS_DOUBLE_FAULT;
    default: return CLASS_BENIGN;
    }
}

enum combination { COMBINE_SERIAL, COMBINE_DOUBLE_FAULT, COMBINE_TRIPLE_FAULT };

// SDM 3A table 6-5 "Conditions for Generating a Double Fault".
static enum combination combine(const struct event *first, const struct event *second)
{
    enum exception_class a = class_of(first), b = class_of(second);
    if (b == CLASS_BENIGN)
        return COMBINE_SERIAL;
    if (a == CLASS_DOUBLE_FAULT)
        return COMBINE_TRIPLE_FAULT;
    if (a == CLASS_PAGE_FAULT || (a == CLASS_CONTRIBUTORY && b == CLASS_CONTRIBUTORY))
        return COMBINE_DOUBLE_FAULT;
    return COMBINE_SERIAL;
}

static enum exec_result triple_fault(struct cpu *cpu)
{
    if (cpu->non_root)
        return cpu->vmx_ops->triple_fault(cpu);
    cpu->activity = ACTIVITY_SHUTDOWN;
    return EXEC_HALT;
}

static enum exec_result ask_vmx(struct cpu *cpu, const struct event *event, const struct event *during)
{
    return cpu->non_root ? cpu->vmx_ops->exception(cpu, event, during) : EXEC_NEXT;
}

// Registers that an exception sets before its delivery begins.
static void note_exception(struct cpu *cpu, const struct event *event)
{
    if (event->vector == VECTOR_DB) {
        if (event->cr2)
            cpu->dr6 = (cpu->dr6 & ~(uint64_t)0xF) | event->cr2 | DR6_FIXED;
        cpu->dr7 &= ~DR7_GD;
        cpu->debugctl &= ~(DEBUGCTL_LBR | DEBUGCTL_BTF);
    }
    if (event->vector < 32)
        cpu->exception_count[event->vector]++;
}

// Delivers `event`; `raised`: it is an exception that VMX has to be asked about. Then whatever happens on the way.
static enum exec_result deliver(struct cpu *cpu, struct event event, bool raised)
{
    struct event previous = {0};
    const struct event *during = NULL;
    for (;;) {
        if (event.ept_exit) {
            ASSERT(cpu->non_root, "EPT is in use in VMX non-root operation only");
            return cpu->vmx_ops->ept_exit(cpu, &event, during);
        }
        if (!(cpu->cr0 & CR0_PE))
            event.has_error_code = false; // neither pushed nor reported in real-address mode (SDM 3C 28.2.2)
        if (raised) {
            enum exec_result r = ask_vmx(cpu, &event, during);
            if (r != EXEC_NEXT)
                return r;
            if (event.vector == VECTOR_PF && event.type == EVENT_HARDWARE_EXCEPTION)
                cpu->cr2 = event.cr2;
            enum combination combination = during ? combine(during, &event) : COMBINE_SERIAL;
            if (combination == COMBINE_TRIPLE_FAULT)
                return triple_fault(cpu);
            if (combination == COMBINE_DOUBLE_FAULT) {
                event = (struct event){.vector = VECTOR_DF, .type = EVENT_HARDWARE_EXCEPTION};
                event.has_error_code = (cpu->cr0 & CR0_PE) != 0;
                r = ask_vmx(cpu, &event, NULL);
                if (r != EXEC_NEXT)
                    return r;
            }
            note_exception(cpu, &event);
        } else {
            cpu->interrupt_count++;
        }
        if (event.type <= EVENT_HARDWARE_EXCEPTION) // the INT instructions have a cost of their own
            cpu_charge(cpu, TIMING_EVENT_DELIVERY);
        enum exec_result r = deliver_once(cpu, &event, raised);
        if (r != EXEC_FAULT) {
            cpu->event_delivered = true;
            cpu->repeating = false;
            cpu->activity = r == EXEC_DONE ? ACTIVITY_ACTIVE : cpu->activity;
            return r;
        }
        bool external = !is_software(&event);
        previous = event;
        during = &previous;
        event = cpu->event;
        if (external && !event.ept_exit && event.vector >= VECTOR_TS && event.vector <= VECTOR_GP)
            event.error_code |= ERROR_EXTERNAL;
        raised = true;
    }
}

enum exec_result exception_deliver(struct cpu *cpu)
{
    enum exec_result r = deliver(cpu, cpu->event, true);
    cpu->nmi_unblocked_by_iret = false;
    return r;
}

enum exec_result event_raise(struct cpu *cpu, const struct event *event) { return deliver(cpu, *event, true); }

enum exec_result cpu_deliver_event(struct cpu *cpu, const struct event *event) { return deliver(cpu, *event, false); }
