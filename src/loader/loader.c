// Detects the kind of an image, loads it, and words the refusals.
//
// The kinds are tried from the most to the least explicit: what --flat says, a
// Multiboot 1 header, a Multiboot 2 header, a Linux boot header, ELF.
#include "loader/loader.h"

#include "loader/loader_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MULTIBOOT2_SEARCH_LIMIT = 32768, MULTIBOOT2_HEADER_SIZE = 16 };
enum { LINUX_BOOT_FLAG = 0x1fe, LINUX_MAGIC = 0x202, LINUX_VERSION = 0x206, LINUX_HEADER_END = 0x208 };
enum { ELF_CLASS = 4, ELF_CLASS_32 = 1, REAL_MODE_LIMIT = 0x100000 };
#define MULTIBOOT2_MAGIC 0xe85250d6u

struct status_row {
    const char *name, *message, *value_label, *limit_label;
};

static const struct status_row status_rows[LOAD_STATUS_COUNT] = {
#define LOAD_STATUS(id, message, value_label, limit_label) [id] = {#id, message, value_label, limit_label},
#include "loader/load_status.def"
};

const char *loader_status_name(enum load_status status)
{
    return (unsigned)status < LOAD_STATUS_COUNT ? status_rows[status].name : "?";
}

const char *loader_status_message(enum load_status status)
{
    return (unsigned)status < LOAD_STATUS_COUNT ? status_rows[status].message : "?";
}

// Appends to a text of LOADER_TEXT_SIZE bytes; what does not fit is cut.
__attribute__((format(printf, 2, 3))) static void append(char *text, const char *format, ...)
{
    size_t used = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + used, LOADER_TEXT_SIZE - used, format, arguments);
    va_end(arguments);
}

enum load_status load_fail(struct load_error *error, const char *name, enum load_status status, uint64_t offset,
                           uint64_t value, uint64_t limit)
{
    const struct status_row *row = &status_rows[status];
    *error = (struct load_error){.status = status, .offset = offset, .value = value, .limit = limit};
    // A long path keeps its end, where the file name is.
    size_t length = strlen(name), shown = 20;
    append(error->text, "%s%s: %s", length > shown ? "..." : "", length > shown ? name + length - shown : name,
           row->message);
    if (row->value_label)
        append(error->text, ": %s 0x%llx", row->value_label, (unsigned long long)value);
    if (row->limit_label)
        append(error->text, "%s%s 0x%llx", row->value_label ? ", " : ": ", row->limit_label, (unsigned long long)limit);
    if (offset != LOADER_NO_OFFSET)
        append(error->text, " (file offset 0x%llx)", (unsigned long long)offset);
    return status;
}

enum load_status load_refuse(struct load_job *job, enum load_status status, uint64_t offset, uint64_t value,
                             uint64_t limit)
{
    return load_fail(job->error, job->request->image.name, status, offset, value, limit);
}

static bool has_arguments(const struct load_file *file) { return file->arguments && file->arguments[0]; }

uint64_t load_command_line_size(const struct load_file *file)
{
    return strlen(file->name) + (has_arguments(file) ? 1 + strlen(file->arguments) : 0) + 1;
}

void load_write_command_line(struct load_job *job, gpa_t address, const struct load_file *file)
{
    uint64_t name_size = strlen(file->name);
    load_copy(job, address, file->name, name_size + 1);
    if (!has_arguments(file))
        return;
    load_copy(job, address + name_size, " ", 1);
    load_copy(job, address + name_size + 1, file->arguments, strlen(file->arguments) + 1);
}

enum load_status load_check_command_line(struct load_job *job, const struct load_file *file)
{
    uint64_t size = load_command_line_size(file);
    if (size <= LOADER_MAX_STRING)
        return LOAD_OK;
    return load_fail(job->error, file->name, LOAD_STRING_TOO_LONG, LOADER_NO_OFFSET, size, LOADER_MAX_STRING);
}

static uint64_t find_multiboot2(const uint8_t *bytes, uint64_t size)
{
    uint64_t end = size < MULTIBOOT2_SEARCH_LIMIT ? size : MULTIBOOT2_SEARCH_LIMIT;
    for (uint64_t at = 0; load_range_fits(at, MULTIBOOT2_HEADER_SIZE, end); at += 8) {
        uint32_t sum = 0;
        for (unsigned i = 0; i < MULTIBOOT2_HEADER_SIZE; i += 4)
            sum += load_u32(bytes + at + i);
        if (load_u32(bytes + at) == MULTIBOOT2_MAGIC && sum == 0)
            return at;
    }
    return LOADER_NOWHERE;
}

static bool is_linux(const uint8_t *bytes, uint64_t size)
{
    return size >= LINUX_HEADER_END && load_u16(bytes + LINUX_BOOT_FLAG) == 0xaa55 &&
           memcmp(bytes + LINUX_MAGIC, "HdrS", 4) == 0;
}

enum load_kind loader_detect(const uint8_t *bytes, uint64_t size)
{
    uint64_t bad_checksum;
    if (load_find_multiboot(bytes, size, &bad_checksum) != LOADER_NOWHERE)
        return LOAD_KIND_MULTIBOOT1;
    if (find_multiboot2(bytes, size) != LOADER_NOWHERE)
        return LOAD_KIND_MULTIBOOT2;
    if (is_linux(bytes, size))
        return LOAD_KIND_LINUX;
    if (load_is_elf(bytes, size))
        return size > ELF_CLASS && bytes[ELF_CLASS] == ELF_CLASS_32 ? LOAD_KIND_ELF32 : LOAD_KIND_ELF64;
    return LOAD_KIND_UNKNOWN;
}

static enum load_status load_elf64(struct load_job *job)
{
    struct load_elf elf;
    enum load_status status = load_read_elf(job, &elf);
    if (status == LOAD_OK)
        status = load_reserve_segments(job, false);
    if (status == LOAD_OK)
        status = load_set_entry(job, 24, elf.entry, MEMORY_HIGH_START);
    if (status == LOAD_OK)
        status = load_check_command_line(job, &job->request->image);
    if (status == LOAD_OK)
        status = load_reserve_boot_state(job, LOAD_LONG64);
    if (status != LOAD_OK)
        return status;
    uint64_t size = load_command_line_size(&job->request->image);
    gpa_t command_line = load_reserve_boot(job, size);
    if (command_line == LOADER_NOWHERE)
        return load_refuse(job, LOAD_NO_ROOM, LOADER_NO_OFFSET, size, job->memory->low_size);
    load_copy_segments(job);
    load_write_boot_state(job);
    load_write_command_line(job, command_line, &job->request->image);
    job->result->gpr[LOAD_RDI] = command_line;
    return LOAD_OK;
}

// The whole file is one segment; the user may put it anywhere in RAM.
static enum load_status load_flat(struct load_job *job, const struct load_flat *flat)
{
    job->segments[job->segment_count++] = (struct load_segment){
        .header_offset = LOADER_NO_OFFSET,
        .file_size = job->request->image.size,
        .address = flat->address,
        .memory_size = job->request->image.size,
        .virtual_address = flat->address,
    };
    enum load_status status = load_reserve_segments(job, true);
    if (status == LOAD_OK)
        status = load_set_entry(job, LOADER_NO_OFFSET, flat->entry,
                                flat->mode == LOAD_REAL16 ? REAL_MODE_LIMIT : MEMORY_HIGH_START);
    if (status == LOAD_OK)
        status = load_reserve_boot_state(job, flat->mode);
    if (status != LOAD_OK)
        return status;
    load_copy_segments(job);
    load_write_boot_state(job);
    return LOAD_OK;
}

static enum load_status refuse_unknown(struct load_job *job)
{
    const struct load_file *image = &job->request->image;
    uint64_t bad_checksum, start = 0;
    load_find_multiboot(image->bytes, image->size, &bad_checksum);
    if (bad_checksum != LOADER_NOWHERE) {
        const uint8_t *header = image->bytes + bad_checksum;
        uint32_t sum = load_u32(header) + load_u32(header + 4) + load_u32(header + 8);
        return load_refuse(job, LOAD_MULTIBOOT_BAD_CHECKSUM, bad_checksum, sum, 0);
    }
    for (unsigned i = 0; i < 4 && i < image->size; i++)
        start |= (uint64_t)image->bytes[i] << (8 * i);
    return load_refuse(job, LOAD_UNKNOWN_FORMAT, 0, start, 0);
}

static enum load_status load_detected(struct load_job *job)
{
    const struct load_file *image = &job->request->image;
    enum load_kind kind = job->result->kind;
    uint64_t bad_checksum;
    if (kind == LOAD_KIND_MULTIBOOT1)
        return load_multiboot(job, load_find_multiboot(image->bytes, image->size, &bad_checksum));
    if (kind == LOAD_KIND_MULTIBOOT2)
        return load_refuse(job, LOAD_UNSUPPORTED_MULTIBOOT2, find_multiboot2(image->bytes, image->size), 0, 0);
    if (kind == LOAD_KIND_LINUX)
        return load_refuse(job, LOAD_UNSUPPORTED_LINUX, LINUX_MAGIC, load_u16(image->bytes + LINUX_VERSION), 0);
    load_find_multiboot(image->bytes, image->size, &bad_checksum);
    if (kind == LOAD_KIND_ELF32 && bad_checksum == LOADER_NOWHERE)
        return load_refuse(job, LOAD_ELF32_WITHOUT_MULTIBOOT, 0, 0, 8192);
    if (kind != LOAD_KIND_ELF64)
        return refuse_unknown(job);
    return load_elf64(job);
}

enum load_status loader_load(const struct load_request *request, struct memory *memory, struct load_result *result,
                             struct load_error *error)
{
    struct load_job job = {.request = request, .memory = memory, .result = result, .error = error};
    const struct load_file *image = &request->image;
    *result = (struct load_result){.kind = LOAD_KIND_FLAT};
    *error = (struct load_error){.status = LOAD_OK, .offset = LOADER_NO_OFFSET};
    if (image->size == 0)
        return load_refuse(&job, LOAD_EMPTY, LOADER_NO_OFFSET, 0, 0);
    if (!request->flat)
        result->kind = loader_detect(image->bytes, image->size);
    bool modules_taken = result->kind == LOAD_KIND_MULTIBOOT1;
    bool loadable = modules_taken || result->kind == LOAD_KIND_ELF64 || result->kind == LOAD_KIND_FLAT;
    if (request->module_count && loadable && !modules_taken)
        return load_refuse(&job, LOAD_MODULES_UNSUPPORTED, LOADER_NO_OFFSET, request->module_count, 0);
    return request->flat ? load_flat(&job, request->flat) : load_detected(&job);
}
