// What every handler uses: going on to the next instruction, leaving a block, raising an exception, operands.
//
// Protocol of a handler: compute and access memory first, commit registers and
// flags last, then `return exec_next(cpu, in)`. Only a fast handler returns to
// its own slow variant; a slow handler whose access may have changed the world
// (device, self-modified code, page walk past the deadline) ends with
// `return exec_next_slow(cpu, in)`.
//   System instructions and control transfers are the last of their block. They start with exec_begin_system(), which
//   puts RIP at the instruction and takes its cost back, so that a fault or a VM exit needs nothing more; and end with
//   exec_end_system(), which retires it and moves RIP past it, or set RIP themselves and call exec_retire().
#ifndef VMXON_CPU_EXEC_H
#define VMXON_CPU_EXEC_H

#include "base/assert.h"
#include "cpu/block.h"
#include "cpu/cpu.h"

// Tail calls: with them a handler ends in a jump to the next one; without (-O0, sanitizers, other compilers) it returns and a loop calls.
// gcc makes them from -O2 on; a build with -O1 needs VMXON_NO_TAIL_CALLS. tests/cpu/check-tail-calls looks at the objects.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define VMXON_NO_TAIL_CALLS
#endif
#endif
#if !defined(VMXON_NO_TAIL_CALLS) && defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__)
#define VMXON_TAIL_CALLS 1
#else
#define VMXON_TAIL_CALLS 0
#endif
#if VMXON_TAIL_CALLS && defined(__clang__)
#define TAIL_CALL __attribute__((musttail))
#else
#define TAIL_CALL
#endif

static inline enum exec_result exec_next(struct cpu *cpu, const struct insn *in)
{
#if VMXON_TAIL_CALLS
    TAIL_CALL return in[1].exec(cpu, in + 1);
#else
    (void)cpu, (void)in;
    return EXEC_NEXT;
#endif
}

// RIP of `in`, and of the instruction after it (not yet truncated to the instruction-pointer size).
static inline uint64_t exec_rip(const struct cpu *cpu, const struct insn *in) { return cpu->regs[REG_RIP] + in->delta; }
static inline uint64_t exec_next_rip(const struct cpu *cpu, const struct insn *in)
{
    return (cpu->regs[REG_RIP] + in->delta + in->length) & cpu->rip_mask;
}

// Leaves the running block before `in` (RIP = that of in) or after it; takes back what was prepaid for the rest.
void exec_leave_before(struct cpu *cpu, const struct insn *in);
enum exec_result exec_leave_after(struct cpu *cpu, const struct insn *in);

// The end of a slow handler.
static inline enum exec_result exec_next_slow(struct cpu *cpu, const struct insn *in)
{
    if (unlikely(cpu->stop_block) || cpu->cycles_left < 0)
        return exec_leave_after(cpu, in);
    // By way of the run loop: a handler whose locals had their address taken may not be able to end in a jump.
    cpu->next_insn = in + 1;
    return EXEC_BLOCK;
}

// System instructions: see above.
static inline void exec_begin_system(struct cpu *cpu, const struct insn *in) { exec_leave_before(cpu, in); }
// Retires the instruction (count and cost). For REP string instructions: once, at the last iteration.
void exec_retire(struct cpu *cpu, const struct insn *in);
static inline enum exec_result exec_end_system(struct cpu *cpu, const struct insn *in)
{
    cpu->regs[REG_RIP] = (cpu->regs[REG_RIP] + in->length) & cpu->rip_mask;
    exec_retire(cpu, in);
    return EXEC_DONE;
}

// Raises an exception of the current instruction: fills cpu->event and returns EXEC_FAULT. Use `exec_fault` after it in
// handlers that did not begin with exec_begin_system: it leaves the block first.
enum exec_result raise_exception(struct cpu *cpu, enum vector vector);
enum exec_result raise_error(struct cpu *cpu, enum vector vector, uint32_t error_code);
static inline enum exec_result exec_fault(struct cpu *cpu, const struct insn *in)
{
    if (cpu->block)
        exec_leave_before(cpu, in);
    return EXEC_FAULT;
}

// Intercepts in VMX non-root operation. EXEC_NEXT: carry on.
static inline enum exec_result exec_intercept(struct cpu *cpu, const struct insn *in, enum intercept what,
                                              uint64_t operand)
{
    if (likely(!(cpu->intercepts & BIT(what))))
        return EXEC_NEXT;
    return cpu->vmx_ops->intercept(cpu, in, what, operand);
}

// True if an instruction is undefined in VMX non-root operation because the control that enables it is 0: INTERCEPT_NO_*.
static inline bool exec_withheld(const struct cpu *cpu, enum intercept what)
{
    return (cpu->intercepts & BIT(what)) != 0;
}

// --- memory, the complete way: segment checks, canonicality, alignment check, page split, paging, MMIO. False: cpu->event is set.
// size: 1, 2, 4, 8 bytes. offset: effective address, already truncated to the address size.
bool mem_read(struct cpu *cpu, enum segment_register segment, uint64_t offset, unsigned size, uint64_t *value);
bool mem_write(struct cpu *cpu, enum segment_register segment, uint64_t offset, unsigned size, uint64_t value);
// A read that will be followed by a write of the same operand: checks for write permission.
bool mem_read_for_write(struct cpu *cpu, enum segment_register segment, uint64_t offset, unsigned size,
                        uint64_t *value);
// Any length up to 4096 bytes (FXSAVE, XMM, VMX operands). `alignment` in bytes: not aligned -> #GP(0); 1: none.
bool mem_read_bytes(struct cpu *cpu, enum segment_register segment, uint64_t offset, void *buffer, unsigned size,
                    unsigned alignment);
bool mem_write_bytes(struct cpu *cpu, enum segment_register segment, uint64_t offset, const void *buffer, unsigned size,
                     unsigned alignment);
// Checks that a write of `size` bytes would succeed, without writing.
bool mem_check_write(struct cpu *cpu, enum segment_register segment, uint64_t offset, unsigned size);
// Segmentation only: linear address of a range, or false with #GP(0)/#SS(0) set.
bool mem_linear(struct cpu *cpu, enum segment_register segment, uint64_t offset, unsigned size, enum mmu_access access,
                gva_t *linear);
// Translates the page of a linear address, charges the walk, and fills the fast entry. False: cpu->event is set.
bool mem_translate(struct cpu *cpu, gva_t linear, enum mmu_access access, enum mmu_mode mode, hpa_t *hpa);
// Linear addresses, after segmentation: explicit accesses at the current CPL, and implicit supervisor ones (descriptor tables, TSS, IDT).
bool lin_read(struct cpu *cpu, gva_t linear, unsigned size, uint64_t *value, enum mmu_mode mode);
bool lin_write(struct cpu *cpu, gva_t linear, unsigned size, uint64_t value, enum mmu_mode mode);

// Effective address (offset in the segment) of a FORM_MEM operand, truncated to the address size.
static inline uint64_t exec_offset(const struct cpu *cpu, const struct insn *in)
{
    uint64_t offset = cpu->regs[in->base] + (cpu->regs[in->index] << in->scale) + (uint64_t)(int64_t)in->disp;
    if (unlikely(in->flags & INSN_RIP_WRAP))
        offset += (uint64_t)1 << 32;
    return offset & cpu->addr_mask[in->addr_log2];
}

// --- general registers by operand size (bytes); for size 1 `number` is a byte offset, see insn.h. Writing 4 bytes clears bits 63:32.
static inline uint64_t reg_read(const struct cpu *cpu, unsigned number, unsigned size)
{
    switch (size) {
    case 1: return ((const uint8_t *)cpu->regs)[number];
    case 2: return (uint16_t)cpu->regs[number];
    case 4: return (uint32_t)cpu->regs[number];
    default: return cpu->regs[number];
    }
}
static inline void reg_write(struct cpu *cpu, unsigned number, unsigned size, uint64_t value)
{
    switch (size) {
    case 1: ((uint8_t *)cpu->regs)[number] = (uint8_t)value; break;
    case 2: cpu->regs[number] = (cpu->regs[number] & ~(uint64_t)0xFFFF) | (uint16_t)value; break;
    case 4: cpu->regs[number] = (uint32_t)value; break;
    default: cpu->regs[number] = value; break;
    }
}

static inline unsigned insn_size(const struct insn *in) { return 1u << in->size_log2; }

// --- lazy flags
static inline bool flag_cf(const struct cpu *cpu) { return (cpu->lazy.aux & AUX_CF) != 0; }
static inline bool flag_zf(const struct cpu *cpu) { return cpu->lazy.result == 0; }
static inline bool flag_sf(const struct cpu *cpu) { return ((cpu->lazy.result >> 63) ^ (cpu->lazy.aux & AUX_SD)) != 0; }
static inline bool flag_of(const struct cpu *cpu) { return ((cpu->lazy.aux ^ (cpu->lazy.aux << 1)) & AUX_CF) != 0; }
static inline bool flag_af(const struct cpu *cpu) { return (cpu->lazy.aux & AUX_AF) != 0; }
static inline bool flag_pf(const struct cpu *cpu)
{
    return !__builtin_parity((unsigned)((cpu->lazy.result ^ (cpu->lazy.aux >> 8)) & 0xFF));
}
uint32_t flags_arithmetic(const struct cpu *cpu);            // the RFLAGS_ARITHMETIC bits
void flags_set_arithmetic(struct cpu *cpu, uint64_t rflags); // from the RFLAGS_ARITHMETIC bits of rflags

#endif
