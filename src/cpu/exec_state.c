// Saving and restoring x87 and SSE state: FXSAVE, FXRSTOR and the XSAVE family.
//
// SDM 1 10.5 "FXSAVE and FXRSTOR Instructions", 13.4 to 13.12 (XSAVE). State components 0 (x87) and 1 (SSE) only. The area:
//   0 FCW  2 FSW  4 FTW (abridged)  6 FOP  8 FIP  16 FDP  24 MXCSR  28 MXCSR_MASK  32 ST0-7 (16 bytes each)  160 XMM0-15
//   512 XSTATE_BV  520 XCOMP_BV  528 to 575 zero
// The init and modified optimizations of XSAVEOPT and XSAVES are the init optimization only.
#include <string.h>

#include "cpu/descriptor.h"
#include "cpu/handlers.h"
#include "cpu/system.h"

enum {
    AREA_MXCSR = 24,
    AREA_MXCSR_MASK = 28,
    AREA_ST = 32,
    AREA_XMM = 160,
    AREA_HEADER = 512,
    LEGACY_SIZE = 512,
    HEADER_SIZE = 64,
    FXSAVE_ALIGNMENT = 16,
    XSAVE_ALIGNMENT = 64,
    X87_SIZE = 24, // the x87 part below MXCSR
    ST_SIZE = 128,
    FPU_INITIAL_CONTROL = 0x37F,
    FPU_INITIAL_TAG = 0xFFFF,
    MXCSR_INITIAL = 0x1F80,
    MXCSR_DEFINED = 0xFFFF,
};
#define COMPONENT_X87 BIT(0)
#define COMPONENT_SSE BIT(1)
#define COMPONENT_AVX BIT(2)
#define COMPACTED     BIT(63)

// --- x87 ---

static unsigned fpu_top(const struct cpu *cpu) { return cpu->fpu.status >> 11 & 7; }

static bool x87_initial(const struct cpu *cpu)
{
    if (cpu->fpu.control != FPU_INITIAL_CONTROL || cpu->fpu.status || cpu->fpu.tag != FPU_INITIAL_TAG ||
        cpu->fpu.opcode || cpu->fpu.ip || cpu->fpu.dp)
        return false;
    for (unsigned i = 0; i < 8; i++)
        if (cpu->fpu.st[i].mantissa || cpu->fpu.st[i].sign_exponent)
            return false;
    return true;
}

static unsigned xmm_count(const struct cpu *cpu) { return cpu_64bit(cpu) ? 16 : 8; }

uint64_t state_in_use(const struct cpu *cpu)
{
    uint64_t in_use = x87_initial(cpu) ? 0 : COMPONENT_X87;
    for (unsigned i = 0; i < xmm_count(cpu); i++)
        if (cpu->xmm[i].lo | cpu->xmm[i].hi)
            in_use |= COMPONENT_SSE;
    return in_use;
}

static void put(uint8_t *area, unsigned offset, uint64_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        area[offset + i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get(const uint8_t *area, unsigned offset, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)area[offset + i] << (8 * i);
    return value;
}

// One bit a register: not empty.
static uint8_t abridged_tag(const struct cpu *cpu)
{
    uint8_t tag = 0;
    for (unsigned i = 0; i < 8; i++)
        if ((cpu->fpu.tag >> (2 * i) & 3) != 3)
            tag |= (uint8_t)(1u << i);
    return tag;
}

// The tag of a register that is not empty: 0 valid, 1 zero, 2 special.
static unsigned full_tag(uint64_t mantissa, uint16_t sign_exponent)
{
    unsigned exponent = sign_exponent & 0x7FFF;
    if (exponent == 0 && mantissa == 0)
        return 1;
    return exponent == 0 || exponent == 0x7FFF || !(mantissa & BIT(63)) ? 2 : 0;
}

// The x87 part of the area. With REX.W the pointers have 64 bits; else 32 and a selector, which this profile leaves 0 (FCS and FDS deprecated).
static void x87_put(const struct cpu *cpu, uint8_t *area, bool wide)
{
    bool selectors = !cpu_has(cpu, FEATURE_NO_FCS_FDS);
    put(area, 0, cpu->fpu.control, 2);
    put(area, 2, cpu->fpu.status, 2);
    put(area, 4, abridged_tag(cpu), 1);
    put(area, 5, 0, 1);
    put(area, 6, cpu->fpu.opcode, 2);
    put(area, 8, wide ? cpu->fpu.ip : (uint32_t)cpu->fpu.ip | (uint64_t)(selectors ? cpu->fpu.cs : 0) << 32, 8);
    put(area, 16, wide ? cpu->fpu.dp : (uint32_t)cpu->fpu.dp | (uint64_t)(selectors ? cpu->fpu.ds : 0) << 32, 8);
    for (unsigned i = 0; i < 8; i++) {
        unsigned physical = (fpu_top(cpu) + i) & 7;
        put(area, AREA_ST + 16 * i, cpu->fpu.st[physical].mantissa, 8);
        put(area, AREA_ST + 16 * i + 8, cpu->fpu.st[physical].sign_exponent, 8);
    }
}

static void x87_get(struct cpu *cpu, const uint8_t *area, bool wide)
{
    cpu->fpu.control = (uint16_t)((get(area, 0, 2) & 0x1F3F) | 0x40);
    cpu->fpu.status = (uint16_t)get(area, 2, 2);
    cpu->fpu.opcode = (uint16_t)(get(area, 6, 2) & 0x7FF);
    cpu->fpu.ip = get(area, 8, wide ? 8 : 4);
    cpu->fpu.dp = get(area, 16, wide ? 8 : 4);
    cpu->fpu.cs = cpu->fpu.ds = 0;
    unsigned abridged = (unsigned)get(area, 4, 1);
    cpu->fpu.tag = 0;
    for (unsigned i = 0; i < 8; i++) {
        unsigned physical = (fpu_top(cpu) + i) & 7;
        uint64_t mantissa = get(area, AREA_ST + 16 * i, 8);
        uint16_t sign_exponent = (uint16_t)get(area, AREA_ST + 16 * i + 8, 2);
        cpu->fpu.st[physical].mantissa = mantissa;
        cpu->fpu.st[physical].sign_exponent = sign_exponent;
        unsigned tag = abridged >> physical & 1 ? full_tag(mantissa, sign_exponent) : 3;
        cpu->fpu.tag |= (uint16_t)(tag << (2 * physical));
    }
}

static void x87_initialize(struct cpu *cpu)
{
    memset(&cpu->fpu, 0, sizeof(cpu->fpu));
    cpu->fpu.control = FPU_INITIAL_CONTROL;
    cpu->fpu.tag = FPU_INITIAL_TAG;
}

// --- SSE ---

static void xmm_put(const struct cpu *cpu, uint8_t *area)
{
    for (unsigned i = 0; i < xmm_count(cpu); i++) {
        put(area, AREA_XMM + 16 * i, cpu->xmm[i].lo, 8);
        put(area, AREA_XMM + 16 * i + 8, cpu->xmm[i].hi, 8);
    }
}

static void xmm_get(struct cpu *cpu, const uint8_t *area)
{
    for (unsigned i = 0; i < xmm_count(cpu); i++)
        cpu->xmm[i] = (struct xmm){.lo = get(area, AREA_XMM + 16 * i, 8), .hi = get(area, AREA_XMM + 16 * i + 8, 8)};
}

static void xmm_initialize(struct cpu *cpu) { memset(cpu->xmm, 0, xmm_count(cpu) * sizeof(cpu->xmm[0])); }

static void mxcsr_put(const struct cpu *cpu, uint8_t *area)
{
    put(area, AREA_MXCSR, cpu->mxcsr, 4);
    put(area, AREA_MXCSR_MASK, MXCSR_DEFINED, 4);
}

// --- FXSAVE and FXRSTOR ---

static bool write_part(struct cpu *cpu, const struct insn *in, uint64_t offset, const uint8_t *area, unsigned start,
                       unsigned size)
{
    return mem_write_bytes(cpu, in->segment, (offset + start) & cpu->addr_mask[in->addr_log2], area + start, size, 1);
}

// #UD, #NM and alignment.
static enum exec_result begin_fx(struct cpu *cpu, const struct insn *in, uint64_t offset)
{
    gva_t linear;
    if (cpu->cr0 & (CR0_EM | CR0_TS))
        return raise_exception(cpu, VECTOR_NM);
    if (!mem_linear(cpu, in->segment, offset, LEGACY_SIZE, MMU_READ, &linear))
        return EXEC_FAULT;
    return linear % FXSAVE_ALIGNMENT ? raise_error(cpu, VECTOR_GP, 0) : EXEC_NEXT;
}

enum exec_result exec_fxsave(struct cpu *cpu, const struct insn *in)
{
    uint64_t offset = begin_system_operand(cpu, in);
    enum exec_result r = begin_fx(cpu, in, offset);
    if (r != EXEC_NEXT)
        return r;
    uint8_t area[LEGACY_SIZE] = {0};
    x87_put(cpu, area, insn_size(in) == 8);
    mxcsr_put(cpu, area);
    xmm_put(cpu, area);
    if (!write_part(cpu, in, offset, area, 0, AREA_XMM + 16 * xmm_count(cpu)))
        return EXEC_FAULT;
    return exec_end_system(cpu, in);
}

enum exec_result exec_fxrstor(struct cpu *cpu, const struct insn *in)
{
    uint64_t offset = begin_system_operand(cpu, in);
    enum exec_result r = begin_fx(cpu, in, offset);
    if (r != EXEC_NEXT)
        return r;
    uint8_t area[LEGACY_SIZE];
    if (!mem_read_bytes(cpu, in->segment, offset, area, LEGACY_SIZE, 1))
        return EXEC_FAULT;
    uint32_t mxcsr = (uint32_t)get(area, AREA_MXCSR, 4);
    if (mxcsr & ~(uint32_t)MXCSR_DEFINED)
        return raise_error(cpu, VECTOR_GP, 0);
    x87_get(cpu, area, insn_size(in) == 8);
    cpu->mxcsr = mxcsr;
    xmm_get(cpu, area);
    return exec_end_system(cpu, in);
}

// --- XSAVE family ---

// Requested-feature bitmap: EDX:EAX limited to what XCR0 enables.
static uint64_t requested(const struct cpu *cpu)
{
    return (cpu->regs[REG_RDX] << 32 | (uint32_t)cpu->regs[REG_RAX]) & cpu->xcr0;
}

static enum exec_result begin_xsave(struct cpu *cpu, const struct insn *in, uint64_t offset, enum mmu_access access)
{
    gva_t linear;
    if (!(cpu->cr4 & CR4_OSXSAVE))
        return raise_exception(cpu, VECTOR_UD);
    if (cpu->cr0 & CR0_TS)
        return raise_exception(cpu, VECTOR_NM);
    if (!mem_linear(cpu, in->segment, offset, LEGACY_SIZE + HEADER_SIZE, access, &linear))
        return EXEC_FAULT;
    return linear % XSAVE_ALIGNMENT ? raise_error(cpu, VECTOR_GP, 0) : EXEC_NEXT;
}

// Writes components to the area: x87 and XMM those of `components`, MXCSR if asked for.
static bool write_components(struct cpu *cpu, const struct insn *in, uint64_t offset, uint64_t components, bool mxcsr)
{
    uint8_t area[LEGACY_SIZE] = {0};
    x87_put(cpu, area, insn_size(in) == 8);
    mxcsr_put(cpu, area);
    xmm_put(cpu, area);
    if ((components & COMPONENT_X87) &&
        (!write_part(cpu, in, offset, area, 0, X87_SIZE) || !write_part(cpu, in, offset, area, AREA_ST, ST_SIZE)))
        return false;
    if (mxcsr && !write_part(cpu, in, offset, area, AREA_MXCSR, 8))
        return false;
    return !(components & COMPONENT_SSE) || write_part(cpu, in, offset, area, AREA_XMM, 16 * xmm_count(cpu));
}

static uint64_t header_offset(const struct cpu *cpu, const struct insn *in, uint64_t offset)
{
    return (offset + AREA_HEADER) & cpu->addr_mask[in->addr_log2];
}

// XSAVE and XSAVEOPT: XSTATE_BV keeps its bits outside the request. `optimized`: components in initial configuration are not written.
static enum exec_result xsave_standard(struct cpu *cpu, const struct insn *in, bool optimized)
{
    uint64_t offset = begin_system_operand(cpu, in), header = header_offset(cpu, in, offset), xstate;
    enum exec_result r = begin_xsave(cpu, in, offset, MMU_WRITE);
    if (r != EXEC_NEXT)
        return r;
    uint64_t mask = requested(cpu), in_use = mask & state_in_use(cpu);
    bool mxcsr = (mask & (COMPONENT_SSE | COMPONENT_AVX)) != 0;
    if (!mem_read_for_write(cpu, in->segment, header, 8, &xstate) ||
        !write_components(cpu, in, offset, optimized ? in_use : mask, mxcsr) ||
        !mem_write(cpu, in->segment, header, 8, (xstate & ~mask) | in_use))
        return EXEC_FAULT;
    return exec_end_system(cpu, in);
}

enum exec_result exec_xsave(struct cpu *cpu, const struct insn *in) { return xsave_standard(cpu, in, false); }
enum exec_result exec_xsaveopt(struct cpu *cpu, const struct insn *in) { return xsave_standard(cpu, in, true); }

// XSAVEC and XSAVES after their checks. An MXCSR that is not initial makes SSE count as in use.
static enum exec_result xsave_compacted(struct cpu *cpu, const struct insn *in, uint64_t offset)
{
    uint64_t mask = requested(cpu), in_use = mask & state_in_use(cpu), header = header_offset(cpu, in, offset);
    if ((mask & COMPONENT_SSE) && cpu->mxcsr != MXCSR_INITIAL)
        in_use |= COMPONENT_SSE;
    if (!mem_check_write(cpu, in->segment, header, 8) ||
        !write_components(cpu, in, offset, in_use, (in_use & COMPONENT_SSE) != 0) ||
        !mem_write(cpu, in->segment, header, 8, in_use) ||
        !mem_write(cpu, in->segment, (header + 8) & cpu->addr_mask[in->addr_log2], 8, mask | COMPACTED))
        return EXEC_FAULT;
    return exec_end_system(cpu, in);
}

enum exec_result exec_xsavec(struct cpu *cpu, const struct insn *in)
{
    uint64_t offset = begin_system_operand(cpu, in);
    enum exec_result r = begin_xsave(cpu, in, offset, MMU_WRITE);
    return r == EXEC_NEXT ? xsave_compacted(cpu, in, offset) : r;
}

static bool bytes_are_zero(const uint8_t *bytes, unsigned first, unsigned last)
{
    for (unsigned i = first; i <= last; i++)
        if (bytes[i])
            return false;
    return true;
}

// SDM 1 13.8.1 and 13.8.2: what makes a header invalid. `enabled`: components that may occur.
static bool header_valid(const uint8_t *header, uint64_t enabled)
{
    uint64_t xstate = get(header, 0, 8), xcomp = get(header, 8, 8);
    if (!(xcomp & COMPACTED))
        return !(xstate & ~enabled) && xcomp == 0 && bytes_are_zero(header, 16, 23);
    return !(xcomp & ~COMPACTED & ~enabled) && !(xstate & ~xcomp) && bytes_are_zero(header, 16, 63);
}

static void load_components(struct cpu *cpu, const uint8_t *area, uint64_t mask, uint64_t xstate, bool wide)
{
    if (mask & xstate & COMPONENT_X87)
        x87_get(cpu, area, wide);
    else if (mask & COMPONENT_X87)
        x87_initialize(cpu);
    if (mask & xstate & COMPONENT_SSE)
        xmm_get(cpu, area);
    else if (mask & COMPONENT_SSE)
        xmm_initialize(cpu);
}

// XRSTOR and XRSTORS after their checks. MXCSR: in the standard form it is loaded whenever SSE or AVX is requested; in the compacted form it
// belongs to SSE and gets its initial value with it.
static enum exec_result xrstor(struct cpu *cpu, const struct insn *in, uint64_t offset, bool compacted_only)
{
    uint8_t area[LEGACY_SIZE + HEADER_SIZE];
    if (!mem_read_bytes(cpu, in->segment, offset, area, sizeof(area), 1))
        return EXEC_FAULT;
    const uint8_t *header = area + AREA_HEADER;
    uint64_t xstate = get(header, 0, 8), mask = requested(cpu);
    bool compacted = (get(header, 8, 8) & COMPACTED) != 0;
    if (!header_valid(header, cpu->xcr0) || (compacted_only && !compacted))
        return raise_error(cpu, VECTOR_GP, 0);
    uint32_t mxcsr = cpu->mxcsr;
    if (!compacted && (mask & (COMPONENT_SSE | COMPONENT_AVX)))
        mxcsr = (uint32_t)get(area, AREA_MXCSR, 4);
    else if (compacted && (mask & COMPONENT_SSE))
        mxcsr = xstate & COMPONENT_SSE ? (uint32_t)get(area, AREA_MXCSR, 4) : MXCSR_INITIAL;
    if (mxcsr & ~(uint32_t)MXCSR_DEFINED)
        return raise_error(cpu, VECTOR_GP, 0);
    cpu->mxcsr = mxcsr;
    load_components(cpu, area, mask, xstate, insn_size(in) == 8);
    return exec_end_system(cpu, in);
}

enum exec_result exec_xrstor(struct cpu *cpu, const struct insn *in)
{
    uint64_t offset = begin_system_operand(cpu, in);
    enum exec_result r = begin_xsave(cpu, in, offset, MMU_READ);
    return r == EXEC_NEXT ? xrstor(cpu, in, offset, false) : r;
}

// IA32_XSS is always 0: XSAVES and XRSTORS handle the components of XCR0. Order: #UD, #GP(CPL), the exit, then #NM and the operand.
static enum exec_result begin_supervisor(struct cpu *cpu, const struct insn *in, uint64_t offset, enum intercept what,
                                         enum mmu_access access)
{
    if (!(cpu->cr4 & CR4_OSXSAVE) || !cpu_has(cpu, FEATURE_XSAVES) || exec_withheld(cpu, INTERCEPT_NO_XSAVES))
        return raise_exception(cpu, VECTOR_UD);
    if (cpu->cpl != 0)
        return raise_error(cpu, VECTOR_GP, 0);
    enum exec_result r = exec_intercept(cpu, in, what, 0);
    return r == EXEC_NEXT ? begin_xsave(cpu, in, offset, access) : r;
}

enum exec_result exec_xsaves(struct cpu *cpu, const struct insn *in)
{
    uint64_t offset = begin_system_operand(cpu, in);
    enum exec_result r = begin_supervisor(cpu, in, offset, INTERCEPT_XSAVES, MMU_WRITE);
    return r == EXEC_NEXT ? xsave_compacted(cpu, in, offset) : r;
}

enum exec_result exec_xrstors(struct cpu *cpu, const struct insn *in)
{
    uint64_t offset = begin_system_operand(cpu, in);
    enum exec_result r = begin_supervisor(cpu, in, offset, INTERCEPT_XRSTORS, MMU_READ);
    return r == EXEC_NEXT ? xrstor(cpu, in, offset, true) : r;
}
