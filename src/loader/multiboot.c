// Multiboot 1: header, modules and the boot information.
//
// Multiboot Specification 0.6.96: 3.1 "OS image format", 3.2 "Machine state",
// 3.3 "Boot information format". Modules are always page aligned. The video
// mode that flags bit 2 asks for is not set, and no drives are reported.
#include "loader/loader_internal.h"

#include <string.h>

enum { SEARCH_LIMIT = 8192, HEADER_SIZE = 12, HEADER_SIZE_WITH_ADDRESSES = 32 };
#define HEADER_MAGIC 0x1badb002u
#define ENTRY_MAGIC  0x2badb002u
enum {
    FLAG_PAGE_ALIGN = 1 << 0,
    FLAG_MEMORY_INFO = 1 << 1,
    FLAG_VIDEO = 1 << 2,
    FLAGS_KNOWN = FLAG_PAGE_ALIGN | FLAG_MEMORY_INFO | FLAG_VIDEO,
    FLAGS_REQUIRED = 0xffff, // an unknown one among these must be refused
    FLAG_ADDRESSES = 1 << 16
};
enum {
    INFO_MEMORY = 1 << 0,
    INFO_COMMAND_LINE = 1 << 2,
    INFO_MODULES = 1 << 3,
    INFO_ELF_SECTIONS = 1 << 5,
    INFO_MEMORY_MAP = 1 << 6,
    INFO_LOADER_NAME = 1 << 9
};
enum {
    INFO_SIZE = 128,
    MODULE_ENTRY_SIZE = 16,
    MAP_ENTRY_SIZE = 24,
    MAP_MAX_ENTRIES = 5,
    MAP_USABLE = 1,
    MAP_RESERVED = 2
};
enum { BASE_MEMORY_END = 0x9fc00 }; // the extended BIOS data area follows
static const char loader_name[] = "vmxon";

uint64_t load_find_multiboot(const uint8_t *bytes, uint64_t size, uint64_t *bad_checksum)
{
    uint64_t end = size < SEARCH_LIMIT ? size : SEARCH_LIMIT;
    *bad_checksum = LOADER_NOWHERE;
    for (uint64_t at = 0; load_range_fits(at, HEADER_SIZE, end); at += 4) {
        if (load_u32(bytes + at) != HEADER_MAGIC)
            continue;
        if (HEADER_MAGIC + load_u32(bytes + at + 4) + load_u32(bytes + at + 8) == 0)
            return at;
        if (*bad_checksum == LOADER_NOWHERE)
            *bad_checksum = at;
    }
    return LOADER_NOWHERE;
}

// The one segment that the addresses in the header describe (flags bit 16, for images that are not ELF).
static enum load_status read_addresses(struct load_job *job, uint64_t header)
{
    const struct load_file *image = &job->request->image;
    if (!load_range_fits(header, HEADER_SIZE_WITH_ADDRESSES, image->size))
        return load_refuse(job, LOAD_MULTIBOOT_TRUNCATED, header, header + HEADER_SIZE_WITH_ADDRESSES, image->size);
    const uint8_t *fields = image->bytes + header;
    uint64_t header_address = load_u32(fields + 12), start = load_u32(fields + 16), end = load_u32(fields + 20);
    uint64_t bss_end = load_u32(fields + 24);
    if (start > header_address)
        return load_refuse(job, LOAD_MULTIBOOT_BAD_ADDRESSES, header + 16, header_address, start);
    if (header_address - start > header)
        return load_refuse(job, LOAD_MULTIBOOT_BAD_ADDRESSES, header + 12, header_address - start, header);
    uint64_t file_offset = header - (header_address - start);
    if (end == 0)
        end = start + (image->size - file_offset);
    if (end < header_address + HEADER_SIZE)
        return load_refuse(job, LOAD_MULTIBOOT_BAD_ADDRESSES, header + 20, end, header_address + HEADER_SIZE);
    if (!load_range_fits(file_offset, end - start, image->size))
        return load_refuse(job, LOAD_MULTIBOOT_DATA_TRUNCATED, header + 20, file_offset + (end - start), image->size);
    if (bss_end != 0 && bss_end < end)
        return load_refuse(job, LOAD_MULTIBOOT_BAD_ADDRESSES, header + 24, bss_end, end);
    job->segments[job->segment_count++] = (struct load_segment){
        .header_offset = header,
        .file_offset = file_offset,
        .file_size = end - start,
        .address = start,
        .memory_size = (bss_end ? bss_end : end) - start,
        .virtual_address = start,
    };
    return LOAD_OK;
}

// Where everything lies, decided before anything is written.
struct plan {
    gpa_t modules[LOADER_MAX_MODULES];
    struct load_symbols symbols;
    gpa_t info, module_list, memory_map, strings;
    unsigned map_entries;
};

static enum load_status place_modules(struct load_job *job, struct plan *plan)
{
    const struct load_request *request = job->request;
    if (request->module_count > LOADER_MAX_MODULES)
        return load_refuse(job, LOAD_TOO_MANY_MODULES, LOADER_NO_OFFSET, request->module_count, LOADER_MAX_MODULES);
    uint64_t low = load_end_of_image(job); // nothing lies above it, so the lowest free place keeps their order
    for (unsigned i = 0; i < request->module_count; i++) {
        const struct load_file *module = &request->modules[i];
        enum load_status status = load_check_command_line(job, module);
        if (status != LOAD_OK)
            return status;
        plan->modules[i] = load_reserve(job, module->size, PAGE_SIZE, low, MEMORY_HOLE_START);
        if (plan->modules[i] == LOADER_NOWHERE)
            return load_fail(job->error, module->name, LOAD_NO_ROOM_FOR_MODULE, LOADER_NO_OFFSET, module->size,
                             job->memory->low_size);
    }
    return LOAD_OK;
}

static enum load_status place_symbols(struct load_job *job, struct plan *plan)
{
    enum load_status status = load_measure_symbols(job, &plan->symbols);
    if (status != LOAD_OK || plan->symbols.size == 0)
        return status;
    plan->symbols.address = load_reserve(job, plan->symbols.size, PAGE_SIZE, load_end_of_image(job), MEMORY_HOLE_START);
    if (plan->symbols.address == LOADER_NOWHERE)
        return load_refuse(job, LOAD_NO_ROOM, LOADER_NO_OFFSET, plan->symbols.size, job->memory->low_size);
    return LOAD_OK;
}

static enum load_status place_info(struct load_job *job, struct plan *plan)
{
    const struct load_request *request = job->request;
    uint64_t lists = MODULE_ENTRY_SIZE * (uint64_t)request->module_count + MAP_ENTRY_SIZE * MAP_MAX_ENTRIES;
    uint64_t strings = sizeof loader_name + load_command_line_size(&request->image);
    for (unsigned i = 0; i < request->module_count; i++)
        strings += load_command_line_size(&request->modules[i]);
    plan->info = load_reserve_boot(job, INFO_SIZE + lists + strings);
    if (plan->info == LOADER_NOWHERE)
        return load_refuse(job, LOAD_NO_ROOM, LOADER_NO_OFFSET, INFO_SIZE + lists + strings, job->memory->low_size);
    plan->module_list = plan->info + INFO_SIZE;
    plan->memory_map = plan->module_list + MODULE_ENTRY_SIZE * (uint64_t)request->module_count;
    plan->strings = plan->memory_map + MAP_ENTRY_SIZE * MAP_MAX_ENTRIES;
    return LOAD_OK;
}

static void put_u32(uint8_t *bytes, uint64_t value)
{
    for (unsigned i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
}

static void write_map_entry(struct load_job *job, struct plan *plan, uint64_t start, uint64_t end, unsigned type)
{
    uint8_t entry[MAP_ENTRY_SIZE];
    if (start >= end)
        return;
    put_u32(entry, MAP_ENTRY_SIZE - 4); // the size field does not count itself
    put_u32(entry + 4, start);
    put_u32(entry + 8, start >> 32);
    put_u32(entry + 12, end - start);
    put_u32(entry + 16, (end - start) >> 32);
    put_u32(entry + 20, type);
    load_copy(job, plan->memory_map + MAP_ENTRY_SIZE * (uint64_t)plan->map_entries, entry, sizeof entry);
    plan->map_entries++;
}

static void write_memory_map(struct load_job *job, struct plan *plan)
{
    uint64_t low = job->memory->low_size, high = job->memory->high_size;
    write_map_entry(job, plan, 0, low < BASE_MEMORY_END ? low : BASE_MEMORY_END, MAP_USABLE);
    write_map_entry(job, plan, BASE_MEMORY_END, low < LOADER_HIGH_START ? low : LOADER_HIGH_START, MAP_RESERVED);
    write_map_entry(job, plan, LOADER_HIGH_START, low, MAP_USABLE);
    write_map_entry(job, plan, 0xfec00000, 0xfef00000, MAP_RESERVED); // I/O APIC and local APIC
    write_map_entry(job, plan, MEMORY_HIGH_START, MEMORY_HIGH_START + high, MAP_USABLE);
}

// Modules with their list; returns where the next string goes.
static gpa_t write_modules(struct load_job *job, const struct plan *plan, gpa_t strings)
{
    for (unsigned i = 0; i < job->request->module_count; i++) {
        const struct load_file *module = &job->request->modules[i];
        uint8_t entry[MODULE_ENTRY_SIZE] = {0};
        put_u32(entry, plan->modules[i]);
        put_u32(entry + 4, plan->modules[i] + module->size);
        put_u32(entry + 8, strings);
        load_copy(job, plan->module_list + MODULE_ENTRY_SIZE * (uint64_t)i, entry, sizeof entry);
        load_copy(job, plan->modules[i], module->bytes, module->size);
        load_write_command_line(job, strings, module);
        strings += load_command_line_size(module);
    }
    return strings;
}

static void write_info(struct load_job *job, struct plan *plan)
{
    const struct load_request *request = job->request;
    uint64_t low = job->memory->low_size, flags = INFO_MEMORY | INFO_COMMAND_LINE | INFO_MEMORY_MAP | INFO_LOADER_NAME;
    uint8_t info[INFO_SIZE] = {0};
    gpa_t name = plan->strings, command_line = name + sizeof loader_name;
    load_copy(job, name, loader_name, sizeof loader_name);
    load_write_command_line(job, command_line, &request->image);
    write_modules(job, plan, command_line + load_command_line_size(&request->image));
    write_memory_map(job, plan);
    put_u32(info + 4, (low < BASE_MEMORY_END ? low : BASE_MEMORY_END) / 1024);
    put_u32(info + 8, low > LOADER_HIGH_START ? (low - LOADER_HIGH_START) / 1024 : 0);
    put_u32(info + 16, command_line);
    if (request->module_count) {
        flags |= INFO_MODULES;
        put_u32(info + 20, request->module_count);
        put_u32(info + 24, plan->module_list);
    }
    if (plan->symbols.size) {
        flags |= INFO_ELF_SECTIONS;
        put_u32(info + 28, plan->symbols.elf.section_header_count);
        put_u32(info + 32, plan->symbols.elf.section_header_size);
        put_u32(info + 36, plan->symbols.address);
        put_u32(info + 40, plan->symbols.elf.section_name_index);
        load_write_symbols(job, &plan->symbols);
    }
    put_u32(info + 44, MAP_ENTRY_SIZE * (uint64_t)plan->map_entries);
    put_u32(info + 48, plan->memory_map);
    put_u32(info + 64, name);
    put_u32(info, flags);
    load_copy(job, plan->info, info, sizeof info);
}

static enum load_status read_image(struct load_job *job, uint64_t header, struct plan *plan)
{
    const struct load_file *image = &job->request->image;
    uint32_t flags = load_u32(image->bytes + header + 4);
    uint64_t entry, entry_field;
    enum load_status status;
    if (flags & FLAGS_REQUIRED & ~(uint32_t)FLAGS_KNOWN)
        return load_refuse(job, LOAD_MULTIBOOT_UNKNOWN_FLAGS, header + 4, flags, FLAGS_KNOWN | FLAG_ADDRESSES);
    if (flags & FLAG_ADDRESSES) {
        status = read_addresses(job, header);
        entry_field = header + 28;
        entry = status == LOAD_OK ? load_u32(image->bytes + entry_field) : 0;
    } else if (load_is_elf(image->bytes, image->size)) {
        status = load_read_elf(job, &plan->symbols.elf);
        entry_field = 24;
        entry = plan->symbols.elf.entry;
    } else {
        return load_refuse(job, LOAD_MULTIBOOT_NO_ADDRESSES, header + 4, flags, 0);
    }
    if (status == LOAD_OK)
        status = load_reserve_segments(job, false);
    if (status == LOAD_OK)
        status = load_set_entry(job, entry_field, entry, MEMORY_HIGH_START);
    return status;
}

enum load_status load_multiboot(struct load_job *job, uint64_t header)
{
    struct plan plan = {0};
    enum load_status status = read_image(job, header, &plan);
    if (status == LOAD_OK)
        status = load_check_command_line(job, &job->request->image);
    if (status == LOAD_OK)
        status = place_modules(job, &plan);
    if (status == LOAD_OK)
        status = place_symbols(job, &plan);
    if (status == LOAD_OK)
        status = load_reserve_boot_state(job, LOAD_PROT32);
    if (status == LOAD_OK)
        status = place_info(job, &plan);
    if (status != LOAD_OK)
        return status;
    load_copy_segments(job);
    load_write_boot_state(job);
    write_info(job, &plan);
    job->result->info_address = plan.info;
    job->result->gpr[LOAD_RAX] = ENTRY_MAGIC;
    job->result->gpr[LOAD_RBX] = plan.info;
    return LOAD_OK;
}
