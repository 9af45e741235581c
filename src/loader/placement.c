// Where things go in guest memory: segments, modules, boot structures.
//
// Segments lie where the image says, everything else in the lowest free range
// that suits. The result depends on sizes only, so it is the same on every host.
#include "loader/loader_internal.h"

#include "base/assert.h"

#include <string.h>

static bool overlaps(uint64_t start, uint64_t end, uint64_t other_start, uint64_t other_end)
{
    return start < other_end && other_start < end;
}

static void add_range(struct load_job *job, uint64_t start, uint64_t end)
{
    job->used[job->used_count++] = (struct load_range){start, end};
}

static enum load_status check_reserved(struct load_job *job, const struct load_segment *segment)
{
    uint64_t start = segment->address, end = start + segment->memory_size;
    if (start < LOADER_RESERVED_LOW)
        return load_refuse(job, LOAD_SEGMENT_IN_LOW_PAGE, segment->header_offset, start, LOADER_RESERVED_LOW);
    if (overlaps(start, end, LOADER_VIDEO_START, LOADER_HIGH_START))
        return load_refuse(job, LOAD_SEGMENT_IN_VIDEO, segment->header_offset, start, LOADER_HIGH_START);
    return LOAD_OK;
}

static enum load_status check_segment(struct load_job *job, const struct load_segment *segment)
{
    const struct memory *memory = job->memory;
    uint64_t start = segment->address, size = segment->memory_size, place = segment->header_offset;
    if (!load_range_fits(segment->file_offset, segment->file_size, job->request->image.size))
        return load_refuse(job, LOAD_SEGMENT_TRUNCATED, place,
                           load_saturating_add(segment->file_offset, segment->file_size), job->request->image.size);
    if (segment->file_size > size)
        return load_refuse(job, LOAD_SEGMENT_FILE_EXCEEDS_MEMORY, place, segment->file_size, size);
    if (start + size < start)
        return load_refuse(job, LOAD_SEGMENT_OVERFLOW, place, start, size);
    if (memory_is_ram(memory, start, size))
        return LOAD_OK;
    if (overlaps(start, start + size, MEMORY_HOLE_START, MEMORY_HIGH_START))
        return load_refuse(job, LOAD_SEGMENT_IN_HOLE, place, start + size, MEMORY_HOLE_START);
    bool high = start >= MEMORY_HIGH_START && memory->high_size;
    uint64_t memory_end = high ? MEMORY_HIGH_START + memory->high_size : memory->low_size;
    return load_refuse(job, LOAD_SEGMENT_OUTSIDE_MEMORY, place, start + size, memory_end);
}

static enum load_status check_overlap(struct load_job *job, unsigned index)
{
    const struct load_segment *segment = &job->segments[index];
    for (unsigned i = 0; i < index; i++) {
        const struct load_segment *other = &job->segments[i];
        if (overlaps(segment->address, segment->address + segment->memory_size, other->address,
                     other->address + other->memory_size))
            return load_refuse(job, LOAD_SEGMENTS_OVERLAP, segment->header_offset, other->address, segment->address);
    }
    return LOAD_OK;
}

enum load_status load_reserve_segments(struct load_job *job, bool reserved_areas_allowed)
{
    for (unsigned i = 0; i < job->segment_count; i++) {
        const struct load_segment *segment = &job->segments[i];
        enum load_status status = check_segment(job, segment);
        if (status == LOAD_OK && !reserved_areas_allowed)
            status = check_reserved(job, segment);
        if (status == LOAD_OK)
            status = check_overlap(job, i);
        if (status != LOAD_OK)
            return status;
        add_range(job, segment->address, segment->address + segment->memory_size);
        if (segment->address + segment->memory_size > job->result->image_end)
            job->result->image_end = segment->address + segment->memory_size;
    }
    return LOAD_OK;
}

static uint64_t align_up(uint64_t value, uint64_t align) { return (value + align - 1) & ~(align - 1); }

uint64_t load_reserve(struct load_job *job, uint64_t size, uint64_t align, uint64_t low, uint64_t high)
{
    uint64_t start = align_up(low, align);
    high = high < job->memory->low_size ? high : job->memory->low_size;
    for (unsigned i = 0; i < job->used_count && load_range_fits(start, size, high);) {
        if (overlaps(start, start + size, job->used[i].start, job->used[i].end)) {
            start = align_up(job->used[i].end, align);
            i = 0; // the new place may meet a range seen before
        } else {
            i++;
        }
    }
    if (!load_range_fits(start, size, high) || job->used_count == LOADER_MAX_RANGES)
        return LOADER_NOWHERE;
    add_range(job, start, start + size);
    return start;
}

uint64_t load_end_of_image(const struct load_job *job)
{
    uint64_t end = LOADER_HIGH_START;
    for (unsigned i = 0; i < job->segment_count; i++) {
        uint64_t segment_end = job->segments[i].address + job->segments[i].memory_size;
        if (segment_end <= job->memory->low_size && segment_end > end)
            end = segment_end;
    }
    return align_up(end, PAGE_SIZE);
}

uint64_t load_reserve_boot(struct load_job *job, uint64_t size)
{
    size = align_up(size, PAGE_SIZE);
    uint64_t address = load_reserve(job, size, PAGE_SIZE, LOADER_RESERVED_LOW, LOADER_LOW_END);
    if (address == LOADER_NOWHERE)
        address = load_reserve(job, size, PAGE_SIZE, load_end_of_image(job), MEMORY_HOLE_START);
    return address;
}

void load_copy(struct load_job *job, gpa_t address, const void *bytes, uint64_t size)
{
    bool written = size == 0 || memory_write(job->memory, address, bytes, size);
    ASSERT(written, "only ranges checked to be RAM are written");
}

static bool page_part_is_zero(const uint8_t *bytes, uint64_t size)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0;
}

// Clears memory, but leaves pages alone that are zero: fresh RAM costs the host nothing until it is written.
static void clear(struct load_job *job, gpa_t address, uint64_t size)
{
    static const uint8_t zeros[PAGE_SIZE];
    while (size) {
        uint64_t part = PAGE_SIZE - (address & PAGE_OFFSET_MASK);
        part = part < size ? part : size;
        if (!page_part_is_zero(memory_host(job->memory, address), part))
            load_copy(job, address, zeros, part);
        address += part;
        size -= part;
    }
}

void load_copy_segments(struct load_job *job)
{
    for (unsigned i = 0; i < job->segment_count; i++) {
        const struct load_segment *segment = &job->segments[i];
        load_copy(job, segment->address, job->request->image.bytes + segment->file_offset, segment->file_size);
        clear(job, segment->address + segment->file_size, segment->memory_size - segment->file_size);
    }
}

enum load_status load_set_entry(struct load_job *job, uint64_t offset, uint64_t entry, uint64_t limit)
{
    uint64_t physical = LOADER_NOWHERE;
    for (unsigned i = 0; i < job->segment_count && physical == LOADER_NOWHERE; i++) {
        const struct load_segment *segment = &job->segments[i];
        if (entry - segment->virtual_address < segment->memory_size)
            physical = entry - segment->virtual_address + segment->address;
    }
    for (unsigned i = 0; i < job->segment_count && physical == LOADER_NOWHERE; i++)
        if (entry - job->segments[i].address < job->segments[i].memory_size)
            physical = entry;
    if (physical == LOADER_NOWHERE)
        return load_refuse(job, LOAD_ENTRY_OUTSIDE_IMAGE, offset, entry, 0);
    if (physical >= limit)
        return load_refuse(job, LOAD_ENTRY_UNREACHABLE, offset, physical, limit);
    job->result->rip = physical;
    return LOAD_OK;
}
