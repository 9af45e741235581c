// Segment and gate descriptors: reading, decoding, marking. Internal to the system layer of src/cpu.
//
// SDM 3A 3.4.5 "Segment Descriptors", 3.5 "System Descriptor Types", 6.8.3 "Call Gates". A descriptor as 64 bits:
//   63    56 55 54 53 52 51   48 47 46 45 44 43  40 39    32 31    16 15     0
//   base 31:24 G D/B L AVL limit  P  DPL   S  type   base 23:0 .....  limit 15:0
#ifndef VMXON_CPU_DESCRIPTOR_H
#define VMXON_CPU_DESCRIPTOR_H

#include "cpu/cpu.h"
#include "cpu/exec.h"

// Type bits of code and data segments.
#define TYPE_ACCESSED    BIT(0)
#define TYPE_WRITABLE    BIT(1) // data
#define TYPE_READABLE    BIT(1) // code
#define TYPE_EXPAND_DOWN BIT(2) // data
#define TYPE_CONFORMING  BIT(2) // code
#define TYPE_CODE        BIT(3)

// Types of system descriptors.
enum system_type {
    SYSTEM_TSS16_AVAILABLE = 1,
    SYSTEM_LDT = 2,
    SYSTEM_TSS16_BUSY = 3,
    SYSTEM_CALL_GATE16 = 4,
    SYSTEM_TASK_GATE = 5,
    SYSTEM_INTERRUPT_GATE16 = 6,
    SYSTEM_TRAP_GATE16 = 7,
    SYSTEM_TSS_AVAILABLE = 9,
    SYSTEM_TSS_BUSY = 11,
    SYSTEM_CALL_GATE = 12,
    SYSTEM_INTERRUPT_GATE = 14,
    SYSTEM_TRAP_GATE = 15,
};
enum { SYSTEM_TYPE_BUSY = 2 }; // the type bit of a TSS descriptor

#define SELECTOR_RPL      3u
#define SELECTOR_TI       4u
#define V8086_DATA_RIGHTS 0xF3u // present, DPL 3, read/write, accessed

struct descriptor {
    uint64_t raw;
    gva_t address; // linear address of its first byte
};

static inline unsigned descriptor_type(const struct descriptor *d) { return (unsigned)bits_get(d->raw, 43, 40); }
static inline bool descriptor_is_system(const struct descriptor *d) { return !(d->raw & BIT(44)); }
static inline unsigned descriptor_dpl(const struct descriptor *d) { return (unsigned)bits_get(d->raw, 46, 45); }
static inline bool descriptor_present(const struct descriptor *d) { return (d->raw & BIT(47)) != 0; }
static inline bool descriptor_long(const struct descriptor *d) { return (d->raw & BIT(53)) != 0; }
static inline bool descriptor_default_big(const struct descriptor *d) { return (d->raw & BIT(54)) != 0; }
static inline bool descriptor_is_code(const struct descriptor *d)
{
    return !descriptor_is_system(d) && (descriptor_type(d) & TYPE_CODE);
}
static inline bool descriptor_is_conforming(const struct descriptor *d)
{
    return (descriptor_type(d) & TYPE_CONFORMING) != 0;
}
static inline bool descriptor_is_writable_data(const struct descriptor *d)
{
    return !descriptor_is_system(d) && !(descriptor_type(d) & TYPE_CODE) && (descriptor_type(d) & TYPE_WRITABLE);
}
static inline uint64_t descriptor_base(const struct descriptor *d)
{
    return bits_get(d->raw, 39, 16) | bits_get(d->raw, 63, 56) << 24;
}
static inline uint32_t descriptor_limit(const struct descriptor *d)
{
    uint32_t limit = (uint32_t)(bits_get(d->raw, 15, 0) | bits_get(d->raw, 51, 48) << 16);
    return d->raw & BIT(55) ? limit << 12 | 0xFFF : limit;
}
// Gates: selector and the low 32 bits of the offset.
static inline uint16_t gate_selector(const struct descriptor *d) { return (uint16_t)bits_get(d->raw, 31, 16); }
static inline uint32_t gate_offset(const struct descriptor *d)
{
    return (uint32_t)(bits_get(d->raw, 15, 0) | bits_get(d->raw, 63, 48) << 16);
}

static inline bool selector_is_null(uint16_t selector) { return (selector & ~SELECTOR_RPL) == 0; }

// Sets cpu->event to an exception whose error code names a selector; always false.
static inline bool fail_selector(struct cpu *cpu, enum vector vector, uint16_t selector)
{
    raise_error(cpu, vector, selector & ~SELECTOR_RPL);
    return false;
}

enum descriptor_status {
    DESCRIPTOR_OK,
    DESCRIPTOR_OUTSIDE, // the selector is beyond the table's limit (or there is no LDT)
    DESCRIPTOR_FAULT,   // the table could not be read; cpu->event is set
};

// Reads the descriptor of a selector that is not null.
enum descriptor_status descriptor_read(struct cpu *cpu, uint16_t selector, struct descriptor *d);
// The same; outside the table raises `vector` with the selector. False: cpu->event is set.
bool descriptor_fetch(struct cpu *cpu, uint16_t selector, enum vector vector, struct descriptor *d);
// Reads bytes 8 to 15 of a system descriptor in IA-32e mode, with limit check. False: cpu->event is set.
bool descriptor_fetch_upper(struct cpu *cpu, uint16_t selector, enum vector vector, const struct descriptor *d,
                            uint64_t *upper);
// Sets type bits (accessed, busy) in memory and in *d, if they are not set. False: cpu->event is set.
bool descriptor_set_type_bits(struct cpu *cpu, struct descriptor *d, unsigned type_bits);

// The hidden part of a segment register that holds this descriptor.
void segment_from_descriptor(struct segment *segment, uint16_t selector, const struct descriptor *d);
// A segment register as real-address mode (the limit is kept) or virtual-8086 mode loads it.
void segment_load_real(struct cpu *cpu, enum segment_register s, uint16_t selector);
void segment_load_v8086(struct cpu *cpu, enum segment_register s, uint16_t selector);
// A segment register with a null selector; cpl is kept in the DPL of SS.
void segment_load_null(struct segment *segment, uint16_t selector, unsigned cpl);

// A stack segment for `cpl`: not null, RPL and DPL equal to cpl, writable data, present. `vector` for all errors but not-present (#SS).
bool stack_segment_fetch(struct cpu *cpu, uint16_t selector, unsigned cpl, enum vector vector, struct segment *segment);
// ES, DS, FS or GS in protected mode; `vector` as above (not-present is #NP). Stores into *segment.
bool data_segment_fetch(struct cpu *cpu, uint16_t selector, enum vector vector, struct segment *segment);
// LDTR. False: cpu->event is set.
bool ldtr_fetch(struct cpu *cpu, uint16_t selector, enum vector vector, struct segment *segment);

// SS and stack pointer of privilege level `level` from the current TSS (not IA-32e mode). False: #TS or a memory fault.
bool tss_read_stack(struct cpu *cpu, unsigned level, uint16_t *ss, uint32_t *esp);
// RSP0-2 (index 0 to 2) or IST1-7 (index 4 to 10) of the 64-bit TSS.
bool tss_read_stack64(struct cpu *cpu, unsigned index, uint64_t *rsp);

// After a return to an outer level: segments that the new CPL may not use become null (SDM 3A 5.8.6).
void segments_drop_privileged(struct cpu *cpu);

// --- A stack being pushed to before it is committed: the segment and stack pointer may not be those of the registers yet.
struct stack {
    const struct segment *segment; // NULL: 64-bit, no segmentation
    uint64_t sp;
    uint64_t mask;
    enum mmu_mode mode;
    uint16_t error_selector; // in the error code of #SS
};
// Pushes `size` bytes. False: #SS or a page fault in cpu->event.
bool stack_push(struct cpu *cpu, struct stack *stack, unsigned size, uint64_t value);
// The current stack, with accesses at `cpl`.
struct stack stack_current(struct cpu *cpu, const struct segment *ss, unsigned cpl);
void stack_commit(struct cpu *cpu, const struct stack *stack);
// Mode of explicit accesses at a privilege level.
enum mmu_mode access_mode(const struct cpu *cpu, unsigned cpl);

static inline uint64_t stack_mask(const struct cpu *cpu)
{
    if (cpu->mode & MODE_STACK64)
        return ~(uint64_t)0;
    return cpu->mode & MODE_STACK32 ? 0xFFFFFFFF : 0xFFFF;
}
// Stores a stack pointer of the width of `mask`.
static inline void stack_pointer_set(struct cpu *cpu, uint64_t mask, uint64_t sp)
{
    if (mask == 0xFFFF)
        reg_write(cpu, REG_RSP, 2, sp);
    else
        cpu->regs[REG_RSP] = sp & mask;
}
// Reads `size` bytes at `offset` from the stack pointer, without moving it.
static inline bool stack_peek(struct cpu *cpu, uint64_t offset, unsigned size, uint64_t *value)
{
    return mem_read(cpu, SEG_SS, (cpu->regs[REG_RSP] + offset) & stack_mask(cpu), size, value);
}

// exec_begin_system() for an instruction with a memory operand: its offset, computed first, because a RIP-relative one counts from the
// start of the block. 0 for other forms.
static inline uint64_t begin_system_operand(struct cpu *cpu, const struct insn *in)
{
    uint64_t offset = in->form == FORM_MEM ? exec_offset(cpu, in) : 0;
    exec_begin_system(cpu, in);
    return offset;
}
// RIP of the instruction after `in`, once it has begun as a system instruction.
static inline uint64_t system_next_rip(const struct cpu *cpu, const struct insn *in)
{
    return (cpu->regs[REG_RIP] + in->length) & cpu->rip_mask;
}

// Task switch (task.c).
enum task_switch_source { TASK_SWITCH_CALL, TASK_SWITCH_IRET, TASK_SWITCH_JMP, TASK_SWITCH_GATE };
// Switches to the task of TSS `selector`. `next_rip`: what is saved as the old task's EIP. `during`: the event delivered through a task
// gate (or NULL); its error code is pushed. EXEC_DONE: RIP and all are those of the new task. EXEC_FAULT: before or after the
// commit (then the event is of the new task). EXEC_VMEXIT.
enum exec_result task_switch(struct cpu *cpu, uint16_t selector, enum task_switch_source source, unsigned length,
                             const struct event *during, uint64_t saved_rflags);

// Delivers an event after asking VMX about it, as exception_deliver does for cpu->event (INT3, INTO, INT1).
enum exec_result event_raise(struct cpu *cpu, const struct event *event);

// INT n in virtual-8086 mode with CR4.VME: whether the redirection bitmap of the TSS sends `vector` to the 8086 handler.
// False: cpu->event is set.
bool v8086_redirection(struct cpu *cpu, uint8_t vector, bool *redirected);

// XINUSE: components (bit 0 x87, bit 1 SSE) that are not in their initial configuration (SDM 1 13.6).
uint64_t state_in_use(const struct cpu *cpu);

// Makes a debug trap pending: pending_debug bits.
static inline void debug_trap(struct cpu *cpu, uint64_t bits)
{
    cpu->pending_debug |= bits;
    cpu->pending |= PENDING_DEBUG;
}
#define PENDING_DEBUG_ENABLED BIT(12) // an enabled breakpoint was met
#define PENDING_DEBUG_BS      BIT(14)
#define PENDING_DEBUG_BT      BIT(15) // not in the VMCS field
#define PENDING_DEBUG_RTM     BIT(16)

#define DR6_BD       BIT(13)
#define DR6_BS       BIT(14)
#define DR6_BT       BIT(15)
#define DR6_RTM      BIT(16)
#define DR6_FIXED    UINT64_C(0xFFFF0FF0)
#define DR7_GD       BIT(13)
#define DR7_FIXED    UINT64_C(0x400)
#define DR7_WRITABLE UINT64_C(0xFFFF23FF)
#define DEBUGCTL_LBR BIT(0)
#define DEBUGCTL_BTF BIT(1)

#endif
