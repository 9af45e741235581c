// The ELF section headers and symbol tables that a Multiboot kernel is given.
//
// Multiboot Specification 0.6.96, 3.3 "Boot information format", flags bit 5.
// The section headers are copied, and after them the symbol tables and the
// string tables, whose sh_addr is set. Other sections that no segment loads
// (debug information) are not copied and keep an address of 0.
#include "loader/loader_internal.h"

enum { SECTION_SYMBOLS = 2, SECTION_STRINGS = 3, SECTION_ALIGN = 16 };

struct section {
    uint32_t type;
    uint64_t address, offset, size;
};

static struct section read_section(const uint8_t *header, bool wide)
{
    if (wide)
        return (struct section){load_u32(header + 4), load_u64(header + 16), load_u64(header + 24),
                                load_u64(header + 32)};
    return (struct section){load_u32(header + 4), load_u32(header + 12), load_u32(header + 16), load_u32(header + 20)};
}

static bool is_copied(const struct section *section)
{
    return (section->type == SECTION_SYMBOLS || section->type == SECTION_STRINGS) && section->address == 0 &&
           section->size != 0;
}

static uint64_t aligned(uint64_t size) { return (size + SECTION_ALIGN - 1) & ~(uint64_t)(SECTION_ALIGN - 1); }

enum load_status load_measure_symbols(struct load_job *job, struct load_symbols *symbols)
{
    const struct load_file *image = &job->request->image;
    const struct load_elf *elf = &symbols->elf;
    uint64_t table_size = (uint64_t)elf->section_header_count * elf->section_header_size;
    symbols->size = 0;
    if (table_size == 0)
        return LOAD_OK;
    if (!load_range_fits(elf->section_headers, table_size, image->size))
        return load_refuse(job, LOAD_ELF_SECTION_HEADERS_TRUNCATED, elf->section_headers,
                           load_saturating_add(elf->section_headers, table_size), image->size);
    uint64_t total = aligned(table_size);
    for (unsigned i = 0; i < elf->section_header_count; i++) {
        uint64_t place = elf->section_headers + (uint64_t)i * elf->section_header_size;
        struct section section = read_section(image->bytes + place, elf->is_64_bit);
        if (!is_copied(&section))
            continue;
        if (!load_range_fits(section.offset, section.size, image->size))
            return load_refuse(job, LOAD_ELF_SECTION_TRUNCATED, place,
                               load_saturating_add(section.offset, section.size), image->size);
        total = load_saturating_add(total, aligned(section.size));
    }
    symbols->size = total;
    return LOAD_OK;
}

void load_write_symbols(struct load_job *job, const struct load_symbols *symbols)
{
    const uint8_t *bytes = job->request->image.bytes;
    const struct load_elf *elf = &symbols->elf;
    uint64_t header_size = elf->section_header_size, table_size = header_size * elf->section_header_count;
    unsigned address_field = elf->is_64_bit ? 16 : 12, address_size = elf->is_64_bit ? 8 : 4;
    gpa_t next = symbols->address + aligned(table_size);
    load_copy(job, symbols->address, bytes + elf->section_headers, table_size);
    for (unsigned i = 0; i < elf->section_header_count; i++) {
        struct section section = read_section(bytes + elf->section_headers + i * header_size, elf->is_64_bit);
        if (!is_copied(&section))
            continue;
        uint8_t address[8];
        for (unsigned b = 0; b < address_size; b++)
            address[b] = (uint8_t)(next >> (8 * b));
        load_copy(job, symbols->address + i * header_size + address_field, address, address_size);
        load_copy(job, next, bytes + section.offset, section.size);
        next += aligned(section.size);
    }
}
