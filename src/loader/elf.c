// ELF32 and ELF64 executables: header checks and the list of segments.
//
// System V ABI, chapter 4 "Object Files", chapter 5 "Program Header". Segments
// load at p_paddr. Relocatable and position-independent files are refused.
#include "loader/loader_internal.h"

enum { IDENT_CLASS = 4, IDENT_DATA = 5, IDENT_VERSION = 6, IDENT_SIZE = 16 };
enum { CLASS_32 = 1, CLASS_64 = 2, DATA_LITTLE = 1, VERSION_CURRENT = 1 };
enum { TYPE_EXEC = 2, MACHINE_386 = 3, MACHINE_X86_64 = 62, SEGMENT_LOAD = 1 };
enum { HEADER_32 = 52, HEADER_64 = 64, PROGRAM_32 = 32, PROGRAM_64 = 56, SECTION_32 = 40, SECTION_64 = 64 };
enum { AT_TYPE = 16, AT_MACHINE = 18, AT_VERSION = 20 };

bool load_is_elf(const uint8_t *bytes, uint64_t size)
{
    return size >= 4 && bytes[0] == 0x7f && bytes[1] == 'E' && bytes[2] == 'L' && bytes[3] == 'F';
}

static enum load_status check_identity(struct load_job *job, struct load_elf *elf)
{
    const struct load_file *image = &job->request->image;
    const uint8_t *bytes = image->bytes;
    if (image->size < IDENT_SIZE)
        return load_refuse(job, LOAD_ELF_TRUNCATED, 0, IDENT_SIZE, image->size);
    if (bytes[IDENT_CLASS] != CLASS_32 && bytes[IDENT_CLASS] != CLASS_64)
        return load_refuse(job, LOAD_ELF_BAD_CLASS, IDENT_CLASS, bytes[IDENT_CLASS], 0);
    elf->is_64_bit = bytes[IDENT_CLASS] == CLASS_64;
    if (bytes[IDENT_DATA] != DATA_LITTLE)
        return load_refuse(job, LOAD_ELF_BAD_ENDIANNESS, IDENT_DATA, bytes[IDENT_DATA], DATA_LITTLE);
    uint64_t header_size = elf->is_64_bit ? HEADER_64 : HEADER_32;
    if (image->size < header_size)
        return load_refuse(job, LOAD_ELF_TRUNCATED, 0, header_size, image->size);
    if (bytes[IDENT_VERSION] != VERSION_CURRENT)
        return load_refuse(job, LOAD_ELF_BAD_VERSION, IDENT_VERSION, bytes[IDENT_VERSION], VERSION_CURRENT);
    return LOAD_OK;
}

static enum load_status check_target(struct load_job *job, const struct load_elf *elf)
{
    const uint8_t *bytes = job->request->image.bytes;
    uint16_t machine = elf->is_64_bit ? MACHINE_X86_64 : MACHINE_386;
    if (load_u16(bytes + AT_MACHINE) != machine)
        return load_refuse(job, LOAD_ELF_BAD_MACHINE, AT_MACHINE, load_u16(bytes + AT_MACHINE), machine);
    if (load_u16(bytes + AT_TYPE) != TYPE_EXEC)
        return load_refuse(job, LOAD_ELF_BAD_TYPE, AT_TYPE, load_u16(bytes + AT_TYPE), TYPE_EXEC);
    if (load_u32(bytes + AT_VERSION) != VERSION_CURRENT)
        return load_refuse(job, LOAD_ELF_BAD_VERSION, AT_VERSION, load_u32(bytes + AT_VERSION), VERSION_CURRENT);
    return LOAD_OK;
}

// The fields after e_version differ in width between the classes.
static enum load_status read_tables(struct load_job *job, struct load_elf *elf)
{
    const uint8_t *bytes = job->request->image.bytes;
    bool wide = elf->is_64_bit;
    elf->entry = wide ? load_u64(bytes + 24) : load_u32(bytes + 24);
    elf->program_headers = wide ? load_u64(bytes + 32) : load_u32(bytes + 28);
    elf->section_headers = wide ? load_u64(bytes + 40) : load_u32(bytes + 32);
    unsigned sizes = wide ? 54 : 42; // e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx follow each other
    unsigned program_size = load_u16(bytes + sizes), expected = wide ? PROGRAM_64 : PROGRAM_32;
    elf->program_header_count = load_u16(bytes + sizes + 2);
    elf->section_header_size = load_u16(bytes + sizes + 4);
    elf->section_header_count = load_u16(bytes + sizes + 6);
    elf->section_name_index = load_u16(bytes + sizes + 8);
    if (elf->program_header_count == 0)
        return load_refuse(job, LOAD_ELF_NO_SEGMENTS, sizes + 2, 0, 0);
    if (program_size != expected)
        return load_refuse(job, LOAD_ELF_BAD_HEADER_SIZE, sizes, program_size, expected);
    expected = wide ? SECTION_64 : SECTION_32;
    if (elf->section_header_count && elf->section_header_size != expected)
        return load_refuse(job, LOAD_ELF_BAD_HEADER_SIZE, sizes + 4, elf->section_header_size, expected);
    return LOAD_OK;
}

static struct load_segment read_segment(const uint8_t *header, bool wide)
{
    if (wide)
        return (struct load_segment){
            .file_offset = load_u64(header + 8),
            .virtual_address = load_u64(header + 16),
            .address = load_u64(header + 24),
            .file_size = load_u64(header + 32),
            .memory_size = load_u64(header + 40),
        };
    return (struct load_segment){
        .file_offset = load_u32(header + 4),
        .virtual_address = load_u32(header + 8),
        .address = load_u32(header + 12),
        .file_size = load_u32(header + 16),
        .memory_size = load_u32(header + 20),
    };
}

static enum load_status collect_segments(struct load_job *job, const struct load_elf *elf)
{
    const struct load_file *image = &job->request->image;
    uint64_t header_size = elf->is_64_bit ? PROGRAM_64 : PROGRAM_32;
    uint64_t table_size = header_size * elf->program_header_count;
    if (!load_range_fits(elf->program_headers, table_size, image->size))
        return load_refuse(job, LOAD_ELF_PROGRAM_HEADERS_TRUNCATED, elf->program_headers,
                           load_saturating_add(elf->program_headers, table_size), image->size);
    for (unsigned i = 0; i < elf->program_header_count; i++) {
        uint64_t place = elf->program_headers + i * header_size;
        if (load_u32(image->bytes + place) != SEGMENT_LOAD)
            continue;
        struct load_segment segment = read_segment(image->bytes + place, elf->is_64_bit);
        segment.header_offset = place;
        if (segment.memory_size == 0 && segment.file_size == 0)
            continue;
        if (job->segment_count == LOADER_MAX_SEGMENTS)
            return load_refuse(job, LOAD_ELF_TOO_MANY_SEGMENTS, place, LOADER_MAX_SEGMENTS + 1, LOADER_MAX_SEGMENTS);
        job->segments[job->segment_count++] = segment;
    }
    if (job->segment_count == 0)
        return load_refuse(job, LOAD_ELF_NO_SEGMENTS, elf->program_headers, elf->program_header_count, 0);
    return LOAD_OK;
}

enum load_status load_read_elf(struct load_job *job, struct load_elf *elf)
{
    enum load_status status = check_identity(job, elf);
    if (status == LOAD_OK)
        status = check_target(job, elf);
    if (status == LOAD_OK)
        status = read_tables(job, elf);
    if (status == LOAD_OK)
        status = collect_segments(job, elf);
    return status;
}
