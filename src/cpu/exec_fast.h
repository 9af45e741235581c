// What the specialised handlers are made from: the fast TLB probe, operand forms, flags of arithmetic.
//
// A template is an always-inline function whose operation, size and form are constants; a row of handlers.def makes a
// handler of it. Memory forms probe the fast TLB and, on a miss, tail-call the general handler of the op, which does
// the access with all checks.
#ifndef VMXON_CPU_EXEC_FAST_H
#define VMXON_CPU_EXEC_FAST_H

#include <string.h>

#include "cpu/block_cache.h"
#include "cpu/exec.h"
#include "cpu/handlers.h"

// Operands of a specialised handler. R: register insn.rm, M: memory, I: immediate; the destination comes first.
enum insn_kind {
    KIND_RR, // rm, reg (a form with to_reg is turned round by the builder)
    KIND_RI, // rm, imm
    KIND_RM, // reg, memory
    KIND_MR, // memory, reg
    KIND_MI, // memory, imm
    KIND_R,  // rm
    KIND_M,  // memory
    KIND_I,  // imm
    KIND_RC, // rm, CL
    KIND_NONE,
};

// How a handler finds its memory operand.
enum insn_address {
    ADDRESS_GENERAL, // base + index + displacement, cut to the address size, plus a segment base
    ADDRESS_BASE,    // base + displacement of 64 bits, no segment base
};

ALWAYS_INLINE gva_t fast_linear(const struct cpu *cpu, const struct insn *in, enum insn_address address)
{
    uint64_t offset = cpu->regs[in->base] + (uint64_t)(int64_t)in->disp;
    if (address == ADDRESS_BASE)
        return offset;
    offset += cpu->regs[in->index] << in->scale;
    return (offset & cpu->addr_mask[in->addr_log2]) + cpu->segment_base[in->segment];
}

// True if `size` bytes at a linear address may be read (written) and lie in one page of RAM; *host is then their host address.
ALWAYS_INLINE bool fast_read(const struct cpu *cpu, gva_t linear, unsigned size, const void **host)
{
    const struct fast_entry *entry = &cpu->mmu.current[mmu_slot(linear)];
    *host = (const void *)(uintptr_t)(linear + entry->addend);
    return likely((((linear + size - 1) & PAGE_FRAME_MASK) | cpu->mmu.context) == entry->read);
}

ALWAYS_INLINE bool fast_write(const struct cpu *cpu, gva_t linear, unsigned size, void **host)
{
    const struct fast_entry *entry = &cpu->mmu.current[mmu_slot(linear)];
    *host = (void *)(uintptr_t)(linear + entry->addend);
    return likely((((linear + size - 1) & PAGE_FRAME_MASK) | cpu->mmu.context) == entry->write);
}

ALWAYS_INLINE uint64_t host_load(const void *host, unsigned size)
{
    uint8_t b;
    uint16_t w;
    uint32_t d;
    uint64_t q;
    switch (size) {
    case 1: memcpy(&b, host, 1); return b;
    case 2: memcpy(&w, host, 2); return w;
    case 4: memcpy(&d, host, 4); return d;
    default: memcpy(&q, host, 8); return q;
    }
}

ALWAYS_INLINE void host_store(void *host, unsigned size, uint64_t value)
{
    uint8_t b = (uint8_t)value;
    uint16_t w = (uint16_t)value;
    uint32_t d = (uint32_t)value;
    switch (size) {
    case 1: memcpy(host, &b, 1); break;
    case 2: memcpy(host, &w, 2); break;
    case 4: memcpy(host, &d, 4); break;
    default: memcpy(host, &value, 8); break;
    }
}

// ---- General handlers ----

// The rm operand: register or memory, with all checks. False: cpu->event is set.
static inline bool operand_read(struct cpu *cpu, const struct insn *in, unsigned size, uint64_t *value)
{
    if (in->form == FORM_MEM)
        return mem_read(cpu, in->segment, exec_offset(cpu, in), size, value);
    *value = reg_read(cpu, in->rm, size);
    return true;
}

// As operand_read, for an operand that operand_write will write.
static inline bool operand_read_for_write(struct cpu *cpu, const struct insn *in, unsigned size, uint64_t *value)
{
    if (in->form == FORM_MEM)
        return mem_read_for_write(cpu, in->segment, exec_offset(cpu, in), size, value);
    *value = reg_read(cpu, in->rm, size);
    return true;
}

static inline bool operand_write(struct cpu *cpu, const struct insn *in, unsigned size, uint64_t value)
{
    if (in->form == FORM_MEM)
        return mem_write(cpu, in->segment, exec_offset(cpu, in), size, value);
    reg_write(cpu, in->rm, size, value);
    return true;
}

// Ends a general handler. done: what the function that did the work returned; false: cpu->event is set.
ALWAYS_INLINE enum exec_result exec_complete(struct cpu *cpu, const struct insn *in, bool done)
{
    if (unlikely(!done))
        return exec_fault(cpu, in);
    return in->form == FORM_REG ? exec_next(cpu, in) : exec_next_slow(cpu, in);
}

// ---- Flags ----

ALWAYS_INLINE uint64_t sign_extended(uint64_t value, unsigned size)
{
    switch (size) {
    case 1: return (uint64_t)(int8_t)value;
    case 2: return (uint64_t)(int16_t)value;
    case 4: return (uint64_t)(int32_t)value;
    default: return value;
    }
}

ALWAYS_INLINE uint64_t truncated(uint64_t value, unsigned size) { return value & (~(uint64_t)0 >> (64 - 8 * size)); }

ALWAYS_INLINE bool sign_of(uint64_t value, unsigned size) { return value >> (8 * size - 1) & 1; }

// The aux word from the carries out of each bit of an addition, or the borrows of a subtraction.
ALWAYS_INLINE uint32_t aux_of_carries(uint64_t carries, unsigned size)
{
    uint64_t top = size == 8 ? carries >> 32 : carries << (32 - 8 * size);
    return ((uint32_t)top & (uint32_t)(AUX_CF | AUX_PO)) | ((uint32_t)carries & (uint32_t)AUX_AF);
}

ALWAYS_INLINE uint32_t aux_of(bool carry, bool overflow)
{
    return (uint32_t)carry << 31 | (uint32_t)(carry ^ overflow) << 30;
}

ALWAYS_INLINE uint64_t carries_of_add(uint64_t a, uint64_t b, uint64_t sum) { return (a & b) | ((a | b) & ~sum); }
ALWAYS_INLINE uint64_t borrows_of_sub(uint64_t a, uint64_t b, uint64_t difference)
{
    return (~a & b) | (~(a ^ b) & difference);
}

ALWAYS_INLINE void set_flags(struct cpu *cpu, uint64_t result, unsigned size, uint32_t aux)
{
    cpu->lazy.result = sign_extended(result, size);
    cpu->lazy.aux = aux;
}

// CF and OF alone.
ALWAYS_INLINE void set_cf_of(struct cpu *cpu, bool carry, bool overflow)
{
    cpu->lazy.aux = (cpu->lazy.aux & ~(uint32_t)(AUX_CF | AUX_PO)) | aux_of(carry, overflow);
}

// A condition by its code, SDM 2 appendix B.1.4.7.
ALWAYS_INLINE bool condition(const struct cpu *cpu, unsigned code)
{
    bool value;
    switch (code >> 1) {
    case 0: value = flag_of(cpu); break;
    case 1: value = flag_cf(cpu); break;
    case 2: value = flag_zf(cpu); break;
    case 3: value = flag_cf(cpu) || flag_zf(cpu); break;
    case 4: value = flag_sf(cpu); break;
    case 5: value = flag_pf(cpu); break;
    case 6: value = flag_sf(cpu) != flag_of(cpu); break;
    default: value = flag_zf(cpu) || flag_sf(cpu) != flag_of(cpu); break;
    }
    return value != (code & 1);
}

#endif
