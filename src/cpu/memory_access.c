// Memory accesses of instructions, with all checks: segmentation, canonical addresses, alignment, page crossing, paging,
// devices, and stores into decoded code.
//
// SDM 3A 5.3 "Limit Checking", 5.5 (types), 3.3.7.1 (canonical), 6.15 "Interrupt 17"; SDM 1 3.7.5.
// An access that spans two pages translates both before either is touched. A device is asked with the clock exact: an
// instruction in the middle of a block, whose rest is paid for already, gives up and is run again alone.
#include "base/assert.h"
#include "cpu/exec_fast.h"
#include "cpu/system.h"
#include "cpu/timing.h"

#define TYPE_CODE        BIT(3)
#define TYPE_READABLE    BIT(1)
#define TYPE_WRITABLE    BIT(1)
#define TYPE_EXPAND_DOWN BIT(2)

// ---- Segmentation ----

static bool segment_fault(struct cpu *cpu, enum segment_register segment)
{
    raise_error(cpu, segment == SEG_SS ? VECTOR_SS : VECTOR_GP, 0);
    return false;
}

static bool type_permits(const struct segment *s, enum mmu_access access)
{
    if (s->access_rights & SEGMENT_UNUSABLE)
        return false;
    if (s->access_rights & TYPE_CODE)
        return access != MMU_WRITE && (s->access_rights & TYPE_READABLE);
    return access != MMU_WRITE || (s->access_rights & TYPE_WRITABLE);
}

// A segment of 4 GiB wraps around; otherwise every byte must lie within the limit.
static bool limit_permits(const struct segment *s, uint64_t offset, unsigned size)
{
    uint64_t last = offset + size - 1;
    if ((s->access_rights & (TYPE_CODE | TYPE_EXPAND_DOWN)) == TYPE_EXPAND_DOWN) {
        uint64_t upper = s->access_rights & SEGMENT_DB ? 0xFFFFFFFF : 0xFFFF;
        return offset > s->limit && last <= upper;
    }
    return last <= s->limit || s->limit == 0xFFFFFFFF;
}

bool mem_linear(struct cpu *cpu, enum segment_register segment, uint64_t offset, unsigned size, enum mmu_access access,
                gva_t *linear)
{
    const struct segment *s = &cpu->segments[segment];
    if (likely(cpu_64bit(cpu))) {
        *linear = offset + (segment >= SEG_FS ? s->base : 0);
        unsigned width = cpu_linear_width(cpu);
        if (unlikely(!is_canonical(*linear, width) || !is_canonical(*linear + size - 1, width)))
            return segment_fault(cpu, segment);
        return true;
    }
    if (!(cpu->mode & MODE_REAL) && !type_permits(s, access))
        return segment_fault(cpu, segment);
    if (!limit_permits(s, offset, size))
        return segment_fault(cpu, segment);
    *linear = (uint32_t)(s->base + offset);
    return true;
}

// ---- Paging ----

static void charge_walk(struct cpu *cpu)
{
    cpu_charge(cpu, cpu->mmu.references * TIMING_WALK_REFERENCE);
    cpu->mmu.references = 0;
}

static bool paging_fault(struct cpu *cpu, enum mmu_status status, const struct mmu_fault *fault)
{
    cpu->event = (struct event){.vector = VECTOR_PF, .type = EVENT_HARDWARE_EXCEPTION};
    if (status == MMU_PAGE_FAULT) {
        cpu->event.has_error_code = true;
        cpu->event.error_code = fault->error_code;
        cpu->event.cr2 = fault->gva;
    } else {
        cpu->event.ept_exit = true;
        cpu->event.ept_status = status;
        cpu->event.fault = *fault;
    }
    return false;
}

bool mem_translate(struct cpu *cpu, gva_t linear, enum mmu_access access, enum mmu_mode mode, hpa_t *hpa)
{
    struct mmu_fault fault;
    enum mmu_status status = mmu_translate(&cpu->mmu, linear, access, mode, hpa, &fault);
    if (unlikely(cpu->mmu.references))
        charge_walk(cpu);
    if (unlikely(status != MMU_OK))
        return paging_fault(cpu, status, &fault);
    mmu_fill_fast(&cpu->mmu, linear, mode);
    if (unlikely(cpu->mmu.code.page == UINT64_MAX))
        cpu->stop_block = 1;
    return true;
}

// A range of linear addresses in at most two pages.
struct span {
    hpa_t address[2];
    unsigned size[2]; // bytes; size[1] is 0 if one page holds all
};

// In 32-bit modes linear addresses wrap at 4 GiB.
static gva_t next_page(const struct cpu *cpu, gva_t linear)
{
    gva_t next = (linear & PAGE_FRAME_MASK) + PAGE_SIZE;
    return cpu_64bit(cpu) || cpu_long_mode(cpu) ? next : (uint32_t)next;
}

static bool translate_span(struct cpu *cpu, gva_t linear, unsigned size, enum mmu_access access, enum mmu_mode mode,
                           struct span *span)
{
    unsigned room = (unsigned)(PAGE_SIZE - (linear & PAGE_OFFSET_MASK));
    span->size[0] = size < room ? size : room;
    span->size[1] = size - span->size[0];
    if (!mem_translate(cpu, linear, access, mode, &span->address[0]))
        return false;
    return span->size[1] == 0 || mem_translate(cpu, next_page(cpu, linear), access, mode, &span->address[1]);
}

// ---- Devices ----

// True if the clock is exact now: a system instruction is running, or a block of one instruction.
static bool clock_is_exact(const struct cpu *cpu) { return !cpu->block || cpu->block->count == 1; }

// Gives up an instruction in the middle of a block. Returns false, as for a fault.
static bool run_alone(struct cpu *cpu)
{
    cpu->run_alone = true;
    return false;
}

// Takes the payment for a block of one instruction back, for a moment.
static void unpay(struct cpu *cpu)
{
    if (cpu->block) {
        cpu->cycles_left += insn_cost(cpu, cpu->block->insns);
        cpu->instructions--;
    }
}

static void pay_again(struct cpu *cpu)
{
    if (cpu->block) {
        cpu->cycles_left -= insn_cost(cpu, cpu->block->insns);
        cpu->instructions++;
    }
    cpu->stop_block = 1; // time, interrupts and memory may have changed
    cpu_charge(cpu, TIMING_DEVICE_ACCESS);
}

// The largest power of two up to 8 that fits.
static unsigned piece_of(unsigned size) { return size >= 8 ? 8 : size >= 4 ? 4 : size >= 2 ? 2 : 1; }

static void device_read(struct cpu *cpu, hpa_t address, void *buffer, unsigned size)
{
    unpay(cpu);
    for (uint8_t *to = buffer; size;) {
        unsigned piece = piece_of(size);
        uint64_t value = bus_read(cpu->bus, address, piece);
        memcpy(to, &value, piece);
        to += piece;
        address += piece;
        size -= piece;
    }
    pay_again(cpu);
}

static void device_write(struct cpu *cpu, hpa_t address, const void *buffer, unsigned size)
{
    unpay(cpu);
    for (const uint8_t *from = buffer; size;) {
        unsigned piece = piece_of(size);
        uint64_t value = 0;
        memcpy(&value, from, piece);
        bus_write(cpu->bus, address, piece, value);
        from += piece;
        address += piece;
        size -= piece;
    }
    pay_again(cpu);
}

static bool span_is_ram(const struct cpu *cpu, const struct span *span)
{
    return memory_host(cpu->memory, span->address[0]) && (!span->size[1] || memory_host(cpu->memory, span->address[1]));
}

static bool read_span(struct cpu *cpu, const struct span *span, void *buffer)
{
    if (unlikely(!span_is_ram(cpu, span)) && !clock_is_exact(cpu))
        return run_alone(cpu);
    uint8_t *to = buffer;
    for (unsigned i = 0; i < 2 && span->size[i]; i++) {
        const uint8_t *host = memory_host(cpu->memory, span->address[i]);
        if (host)
            memcpy(to, host, span->size[i]);
        else
            device_read(cpu, span->address[i], to, span->size[i]);
        to += span->size[i];
    }
    return true;
}

static bool write_span(struct cpu *cpu, const struct span *span, const void *buffer)
{
    if (unlikely(!span_is_ram(cpu, span)) && !clock_is_exact(cpu))
        return run_alone(cpu);
    const uint8_t *from = buffer;
    for (unsigned i = 0; i < 2 && span->size[i]; i++) {
        uint8_t *host = memory_host(cpu->memory, span->address[i]);
        if (host) {
            memory_note_write(cpu->memory, span->address[i], span->size[i]);
            memcpy(host, from, span->size[i]);
        } else {
            device_write(cpu, span->address[i], from, span->size[i]);
        }
        from += span->size[i];
    }
    return true;
}

// ---- Linear addresses ----

static bool aligned(struct cpu *cpu, gva_t linear, unsigned size, enum mmu_mode mode)
{
    if (likely(!(linear & (size - 1))) || mode != MMU_USER || !cpu_checks_alignment(cpu))
        return true;
    raise_error(cpu, VECTOR_AC, 0);
    return false;
}

// Tells the debug registers of an explicit access that was done.
static void watch(struct cpu *cpu, gva_t linear, unsigned size, bool write, enum mmu_mode mode)
{
    if (unlikely(debug_watches_data(cpu)) && mode == cpu->mmu.mode) {
        debug_data_access(cpu, linear, size, write);
        cpu->stop_block |= cpu->pending;
    }
}

bool lin_read(struct cpu *cpu, gva_t linear, unsigned size, uint64_t *value, enum mmu_mode mode)
{
    struct span span;
    *value = 0;
    if (!aligned(cpu, linear, size, mode) || !translate_span(cpu, linear, size, MMU_READ, mode, &span) ||
        !read_span(cpu, &span, value))
        return false;
    watch(cpu, linear, size, false, mode);
    return true;
}

bool lin_write(struct cpu *cpu, gva_t linear, unsigned size, uint64_t value, enum mmu_mode mode)
{
    struct span span;
    if (!aligned(cpu, linear, size, mode) || !translate_span(cpu, linear, size, MMU_WRITE, mode, &span) ||
        !write_span(cpu, &span, &value))
        return false;
    watch(cpu, linear, size, true, mode);
    return true;
}

// ---- Operands ----

// True if the fast entry of the current mode may serve the access: it does neither alignment checks nor breakpoints.
static bool may_use_fast(const struct cpu *cpu, gva_t linear, unsigned size)
{
    return likely(!debug_watches_data(cpu)) && (likely(!(linear & (size - 1))) || !cpu_checks_alignment(cpu));
}

bool mem_read(struct cpu *cpu, enum segment_register segment, uint64_t offset, unsigned size, uint64_t *value)
{
    gva_t linear;
    if (!mem_linear(cpu, segment, offset, size, MMU_READ, &linear))
        return false;
    if (may_use_fast(cpu, linear, size)) {
        const void *host;
        if (fast_read(cpu, linear, size, &host)) {
            *value = host_load(host, size);
            return true;
        }
    }
    return lin_read(cpu, linear, size, value, cpu->mmu.mode);
}

bool mem_write(struct cpu *cpu, enum segment_register segment, uint64_t offset, unsigned size, uint64_t value)
{
    gva_t linear;
    if (!mem_linear(cpu, segment, offset, size, MMU_WRITE, &linear))
        return false;
    if (may_use_fast(cpu, linear, size)) {
        void *host;
        if (fast_write(cpu, linear, size, &host)) {
            host_store(host, size, value);
            return true;
        }
    }
    return lin_write(cpu, linear, size, value, cpu->mmu.mode);
}

bool mem_read_for_write(struct cpu *cpu, enum segment_register segment, uint64_t offset, unsigned size, uint64_t *value)
{
    gva_t linear;
    struct span span;
    enum mmu_mode mode = cpu->mmu.mode;
    if (!mem_linear(cpu, segment, offset, size, MMU_WRITE, &linear))
        return false;
    if (may_use_fast(cpu, linear, size)) {
        void *host;
        if (fast_write(cpu, linear, size, &host)) {
            *value = host_load(host, size);
            return true;
        }
    }
    *value = 0;
    if (!aligned(cpu, linear, size, mode) || !translate_span(cpu, linear, size, MMU_WRITE, mode, &span) ||
        !read_span(cpu, &span, value))
        return false;
    watch(cpu, linear, size, false, mode);
    return true;
}

// Segmentation, alignment (`alignment` bytes, else #GP(0)) and translation of an operand of up to 4096 bytes.
static bool span_of_operand(struct cpu *cpu, enum segment_register segment, uint64_t offset, unsigned size,
                            unsigned alignment, enum mmu_access access, gva_t *linear, struct span *span)
{
    if (!mem_linear(cpu, segment, offset, size, access, linear))
        return false;
    if (unlikely(*linear & (alignment - 1))) {
        raise_error(cpu, VECTOR_GP, 0);
        return false;
    }
    return translate_span(cpu, *linear, size, access, cpu->mmu.mode, span);
}

bool mem_read_bytes(struct cpu *cpu, enum segment_register segment, uint64_t offset, void *buffer, unsigned size,
                    unsigned alignment)
{
    gva_t linear;
    struct span span;
    if (!span_of_operand(cpu, segment, offset, size, alignment, MMU_READ, &linear, &span) ||
        !read_span(cpu, &span, buffer))
        return false;
    watch(cpu, linear, size, false, cpu->mmu.mode);
    return true;
}

bool mem_write_bytes(struct cpu *cpu, enum segment_register segment, uint64_t offset, const void *buffer, unsigned size,
                     unsigned alignment)
{
    gva_t linear;
    struct span span;
    if (!span_of_operand(cpu, segment, offset, size, alignment, MMU_WRITE, &linear, &span) ||
        !write_span(cpu, &span, buffer))
        return false;
    watch(cpu, linear, size, true, cpu->mmu.mode);
    return true;
}

bool mem_check_write(struct cpu *cpu, enum segment_register segment, uint64_t offset, unsigned size)
{
    gva_t linear;
    struct span span;
    return span_of_operand(cpu, segment, offset, size, 1, MMU_WRITE, &linear, &span);
}
