// Builds small ELF, Multiboot and Linux images in memory for the loader tests.
//
// An ELF image has its header at 0, program headers behind it, a Multiboot
// header at 0x200 if asked for, and its segments' bytes from 0x1000 on.
#ifndef VMXON_TESTS_LOADER_IMAGE_BUILDER_H
#define VMXON_TESTS_LOADER_IMAGE_BUILDER_H

#include "loader/loader.h"

#include <string.h>

enum { IMAGE_CAPACITY = 65536, IMAGE_DATA = 0x1000, IMAGE_MULTIBOOT = 0x200 };

struct image {
    uint8_t bytes[IMAGE_CAPACITY];
    uint64_t size;
    bool wide; // ELF64
};

static inline void put_bytes(struct image *image, uint64_t at, uint64_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        image->bytes[at + i] = (uint8_t)(value >> (8 * i));
}

static inline uint64_t program_header_at(const struct image *image, unsigned index)
{
    return image->wide ? 64 + 56 * (uint64_t)index : 52 + 32 * (uint64_t)index;
}

// An ELF executable without segments; its data is 0x1000 bytes that count up.
static inline void build_elf(struct image *image, bool wide, uint64_t entry)
{
    memset(image, 0, sizeof *image);
    image->wide = wide;
    image->size = IMAGE_DATA + 0x1000;
    memcpy(image->bytes,
           "\x7f"
           "ELF",
           4);
    image->bytes[4] = wide ? 2 : 1;
    image->bytes[5] = image->bytes[6] = 1;
    put_bytes(image, 16, 2, 2);
    put_bytes(image, 18, wide ? 62 : 3, 2);
    put_bytes(image, 20, 1, 4);
    put_bytes(image, 24, entry, wide ? 8 : 4);
    put_bytes(image, wide ? 32 : 28, program_header_at(image, 0), 4);
    put_bytes(image, wide ? 54 : 42, wide ? 56 : 32, 2);
    put_bytes(image, wide ? 58 : 46, wide ? 64 : 40, 2);
    for (unsigned i = 0; i < 0x1000; i++)
        image->bytes[IMAGE_DATA + i] = (uint8_t)(i + 1);
}

// Adds a PT_LOAD segment.
static inline void add_segment(struct image *image, uint64_t file_offset, uint64_t file_size, uint64_t address,
                               uint64_t memory_size, uint64_t virtual_address)
{
    unsigned count_field = image->wide ? 56 : 44, count = image->bytes[count_field];
    uint64_t at = program_header_at(image, count);
    put_bytes(image, at, 1, 4);
    if (image->wide) {
        put_bytes(image, at + 8, file_offset, 8);
        put_bytes(image, at + 16, virtual_address, 8);
        put_bytes(image, at + 24, address, 8);
        put_bytes(image, at + 32, file_size, 8);
        put_bytes(image, at + 40, memory_size, 8);
    } else {
        put_bytes(image, at + 4, file_offset, 4);
        put_bytes(image, at + 8, virtual_address, 4);
        put_bytes(image, at + 12, address, 4);
        put_bytes(image, at + 16, file_size, 4);
        put_bytes(image, at + 20, memory_size, 4);
    }
    put_bytes(image, count_field, count + 1, 2);
}

static inline void add_multiboot_header(struct image *image, uint64_t at, uint32_t flags)
{
    put_bytes(image, at, 0x1badb002, 4);
    put_bytes(image, at + 4, flags, 4);
    put_bytes(image, at + 8, 0 - (0x1badb002 + flags), 4);
}

// A Multiboot ELF32 kernel at 1 MiB: 0x800 bytes from the file, 0x2000 in memory.
static inline void build_kernel(struct image *image)
{
    build_elf(image, false, 0x100010);
    add_segment(image, IMAGE_DATA, 0x800, 0x100000, 0x2000, 0x100000);
    add_multiboot_header(image, IMAGE_MULTIBOOT, 3);
}

// A plain ELF64 program at 1 MiB.
static inline void build_program(struct image *image)
{
    build_elf(image, true, 0x100010);
    add_segment(image, IMAGE_DATA, 0x800, 0x100000, 0x2000, 0x100000);
}

// Raw Multiboot code with load addresses in its header, which lies at file offset 0x40.
static inline void build_raw_kernel(struct image *image, uint32_t header_address, uint32_t load, uint32_t load_end,
                                    uint32_t bss_end, uint32_t entry)
{
    memset(image, 0, sizeof *image);
    image->size = 0x400;
    for (unsigned i = 0; i < image->size; i++)
        image->bytes[i] = (uint8_t)(i + 1);
    add_multiboot_header(image, 0x40, 0x10003);
    put_bytes(image, 0x4c, header_address, 4);
    put_bytes(image, 0x50, load, 4);
    put_bytes(image, 0x54, load_end, 4);
    put_bytes(image, 0x58, bss_end, 4);
    put_bytes(image, 0x5c, entry, 4);
}

// Adds two sections: a symbol table of 0x30 bytes and a string table of 0x11 bytes; the headers lie at 0x1c00.
static inline void add_sections(struct image *image)
{
    uint64_t at = 0x1c00, size = image->wide ? 64 : 40;
    put_bytes(image, image->wide ? 40 : 32, at, 4);
    put_bytes(image, image->wide ? 60 : 48, 3, 2);
    put_bytes(image, image->wide ? 62 : 50, 2, 2);
    for (unsigned i = 1; i < 3; i++) {
        uint64_t header = at + i * size;
        memset(image->bytes + header, 0, size);
        put_bytes(image, header + 4, i == 1 ? 2 : 3, 4);
        put_bytes(image, header + (image->wide ? 24 : 16), i == 1 ? 0x1a00 : 0x1a30, 4);
        put_bytes(image, header + (image->wide ? 32 : 20), i == 1 ? 0x30 : 0x11, 4);
    }
    memset(image->bytes + at, 0, size);
}

#endif
