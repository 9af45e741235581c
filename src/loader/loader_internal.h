// What the parts of the loader share: the job at hand, little-endian reads, placement.
//
// A job collects ranges of memory first (segments, modules, boot structures);
// only when all have a place is anything written.
#ifndef VMXON_LOADER_LOADER_INTERNAL_H
#define VMXON_LOADER_LOADER_INTERNAL_H

#include "loader/loader.h"

enum {
    LOADER_LOW_END = 0x9f000, // boot structures stay below the extended BIOS data area
    LOADER_VIDEO_START = 0xa0000,
    LOADER_HIGH_START = 0x100000,
    LOADER_MAX_RANGES = LOADER_MAX_SEGMENTS + LOADER_MAX_MODULES + 16,
};
#define LOADER_NOWHERE   UINT64_MAX
#define LOADER_NO_OFFSET UINT64_MAX

struct load_range {
    uint64_t start, end; // end excluded
};

struct load_segment {
    uint64_t header_offset; // where the image describes it, for messages
    uint64_t file_offset, file_size;
    uint64_t address, memory_size; // physical; the rest after file_size is zero
    uint64_t virtual_address;
};

struct load_job {
    const struct load_request *request;
    struct memory *memory;
    struct load_result *result;
    struct load_error *error;
    struct load_segment segments[LOADER_MAX_SEGMENTS];
    unsigned segment_count;
    struct load_range used[LOADER_MAX_RANGES];
    unsigned used_count;
};

static inline uint16_t load_u16(const uint8_t *bytes) { return (uint16_t)(bytes[0] | bytes[1] << 8); }

static inline uint32_t load_u32(const uint8_t *bytes) { return load_u16(bytes) | (uint32_t)load_u16(bytes + 2) << 16; }

static inline uint64_t load_u64(const uint8_t *bytes) { return load_u32(bytes) | (uint64_t)load_u32(bytes + 4) << 32; }

// True if [offset, offset + count) lies within `size` bytes; immune to overflow.
static inline bool load_range_fits(uint64_t offset, uint64_t count, uint64_t size)
{
    return offset <= size && count <= size - offset;
}

// a + b, or UINT64_MAX if that overflows: for the numbers in messages.
static inline uint64_t load_saturating_add(uint64_t a, uint64_t b) { return a + b < a ? UINT64_MAX : a + b; }

// Fills the error with a status about the named file and returns the status.
enum load_status load_fail(struct load_error *error, const char *name, enum load_status status, uint64_t offset,
                           uint64_t value, uint64_t limit);
// The same about the job's image.
enum load_status load_refuse(struct load_job *job, enum load_status status, uint64_t offset, uint64_t value,
                             uint64_t limit);

// Placement (placement.c)
// Checks job->segments against file, memory, reserved areas and each other, and reserves their ranges.
enum load_status load_reserve_segments(struct load_job *job, bool reserved_areas_allowed);
// Reserves the lowest free range of `size` bytes at a multiple of `align` (a power of two) within [low, high).
// Returns its address or LOADER_NOWHERE.
uint64_t load_reserve(struct load_job *job, uint64_t size, uint64_t align, uint64_t low, uint64_t high);
// Reserves whole pages for a boot structure: low memory first, else above 1 MiB.
uint64_t load_reserve_boot(struct load_job *job, uint64_t size);
// First page boundary above 1 MiB and all segments below the hole.
uint64_t load_end_of_image(const struct load_job *job);
// Writes what the ranges were reserved for; the ranges are RAM.
void load_copy_segments(struct load_job *job);
void load_copy(struct load_job *job, gpa_t address, const void *bytes, uint64_t size);
// Sets the result's rip from the entry address: physical if it lies in a segment, or translated from virtual.
enum load_status load_set_entry(struct load_job *job, uint64_t offset, uint64_t entry, uint64_t limit);

// State at entry (boot_state.c): reserves, then, in the write functions, fills.
enum load_status load_reserve_boot_state(struct load_job *job, enum load_mode mode);
void load_write_boot_state(struct load_job *job);

// Bytes of "NAME ARGUMENTS" with its final zero, and the string itself.
uint64_t load_command_line_size(const struct load_file *file);
void load_write_command_line(struct load_job *job, gpa_t address, const struct load_file *file);
enum load_status load_check_command_line(struct load_job *job, const struct load_file *file);

// ELF (elf.c)
struct load_elf {
    bool is_64_bit;
    uint64_t entry, program_headers, section_headers;
    unsigned program_header_count, section_header_count, section_name_index;
    unsigned section_header_size;
};
bool load_is_elf(const uint8_t *bytes, uint64_t size);
// Reads and checks the header and collects the PT_LOAD segments into job->segments.
enum load_status load_read_elf(struct load_job *job, struct load_elf *elf);

// Multiboot 1 (multiboot.c)
// Offset of a valid header, or LOADER_NOWHERE; then *bad_checksum is the offset of a lone magic number or LOADER_NOWHERE.
uint64_t load_find_multiboot(const uint8_t *bytes, uint64_t size, uint64_t *bad_checksum);
enum load_status load_multiboot(struct load_job *job, uint64_t header);

// The symbol tables that Multiboot hands over (elf_symbols.c): 0 bytes if there are none.
struct load_symbols {
    struct load_elf elf;
    uint64_t size; // bytes: section headers, then symbol and string sections
    gpa_t address;
};
enum load_status load_measure_symbols(struct load_job *job, struct load_symbols *symbols);
void load_write_symbols(struct load_job *job, const struct load_symbols *symbols);

#endif
