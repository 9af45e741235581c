// Loads a boot image into guest memory and says in which state the processor enters it.
//
// Sources: Multiboot Specification 0.6.96; System V ABI, "Object Files". Every
// check is made before the first byte is written, so a refused image leaves
// memory unchanged. Multiboot 2 and Linux bzImage are recognised and refused.
// Nothing is kept: the caller owns the image's bytes and all strings.
#ifndef VMXON_LOADER_LOADER_H
#define VMXON_LOADER_LOADER_H

#include "base/types.h"
#include "mem/memory.h"

enum {
    LOADER_MAX_SEGMENTS = 64,
    LOADER_MAX_MODULES = 64,
    LOADER_MAX_STRING = 4096, // bytes of one command line, with its final zero
    LOADER_TEXT_SIZE = 160,
    LOADER_RESERVED_LOW = 0x1000, // the first page: real-mode vectors and BIOS data
};

enum load_status {
#define LOAD_STATUS(id, message, value_label, limit_label) id,
#include "loader/load_status.def"
    LOAD_STATUS_COUNT
};

enum load_kind {
    LOAD_KIND_UNKNOWN,
    LOAD_KIND_MULTIBOOT1,
    LOAD_KIND_MULTIBOOT2, // refused
    LOAD_KIND_ELF64,
    LOAD_KIND_ELF32, // without a Multiboot header: refused
    LOAD_KIND_LINUX, // bzImage: refused
    LOAD_KIND_FLAT,
};

// The processor's mode at entry.
enum load_mode {
    LOAD_REAL16, // real mode, 16-bit code
    LOAD_PROT32, // protected mode without paging, flat 4-GiB segments
    LOAD_LONG64, // 64-bit mode, the first 4 GiB mapped to themselves
};

// Why an image was refused. `text` is one line without a final newline.
struct load_error {
    enum load_status status;
    uint64_t offset; // place in the image (or in the --flat text), UINT64_MAX if none
    uint64_t value;  // what was found
    uint64_t limit;  // what it was held against
    char text[LOADER_TEXT_SIZE];
};

struct load_file {
    const char *name;      // for messages, and the first word of its command line
    const char *arguments; // rest of the command line; NULL or "" for none
    const uint8_t *bytes;
    uint64_t size; // bytes
};

struct load_flat {
    gpa_t address;  // where the file's first byte goes
    uint64_t entry; // physical address of the first instruction
    enum load_mode mode;
};

struct load_request {
    struct load_file image;
    const struct load_file *modules; // module_count of them
    unsigned module_count;
    const struct load_flat *flat; // NULL: detect the kind of the image
};

// A segment register as the SDM's table of hidden parts has it.
struct load_segment_register {
    uint16_t selector;
    uint32_t access_rights; // VMX format: type 3:0, S 4, DPL 6:5, P 7, L 13, D/B 14, G 15
    uint32_t limit;         // in bytes, inclusive
    uint64_t base;
};

enum load_register {
    LOAD_RAX,
    LOAD_RCX,
    LOAD_RDX,
    LOAD_RBX,
    LOAD_RSP,
    LOAD_RBP,
    LOAD_RSI,
    LOAD_RDI, // SDM encoding order
    LOAD_R8,
    LOAD_R15 = 15,
    LOAD_REGISTER_COUNT
};

// State of the boot processor at entry. Registers not named are as after reset; RFLAGS is 2; A20 is on.
struct load_result {
    enum load_kind kind;
    enum load_mode mode;
    uint64_t rip;                      // offset in cs
    uint64_t gpr[LOAD_REGISTER_COUNT]; // by enum load_register
    uint64_t cr0, cr3, cr4, efer;
    struct load_segment_register cs;
    struct load_segment_register data; // DS, ES, SS, FS and GS
    struct load_segment_register tr;
    gpa_t gdt_base;
    uint16_t gdt_limit;
    gpa_t idt_base;
    uint16_t idt_limit;
    gpa_t image_end;    // first address after the image's highest segment
    gpa_t info_address; // Multiboot information, 0 if none
};

// The kind of an image by its bytes.
enum load_kind loader_detect(const uint8_t *bytes, uint64_t size);

// Loads request->image and its modules into `memory` and fills `result`. Returns LOAD_OK, or the reason for refusal
// with `error` filled and memory unchanged.
//
// Placement: modules lie page aligned above 1 MiB after the image, in order. GDT, page tables, stack, command line and
// Multiboot information lie, each page aligned, in the lowest free pages from 0x1000 to 0x9f000 in this order; what
// does not fit there lies after the modules. With nothing of the image below 0x11000 a 64-bit entry has its GDT at
// 0x1000, its page tables (PML4, PDPT, four page directories of 2-MiB pages) at 0x2000 to 0x7fff and its stack of
// 16 KiB below 0xc000, where RSP points.
//
// Multiboot: EAX holds 0x2badb002, EBX the address of the information. Plain ELF64: RDI holds the address of the
// command line, zero terminated. Flat: no registers; a real-mode entry below 64 KiB is reached as 0:ENTRY, a higher
// one with the bits 19:16 in CS.
enum load_status loader_load(const struct load_request *request, struct memory *memory, struct load_result *result,
                             struct load_error *error);

// Parses ADDR[:ENTRY[:real|prot|long]]: ENTRY defaults to ADDR, the mode to real.
enum load_status loader_parse_flat(const char *text, struct load_flat *flat, struct load_error *error);

// The name of a status ("LOAD_NO_ROOM") and its message; "?" for a number that is none.
const char *loader_status_name(enum load_status status);
const char *loader_status_message(enum load_status status);

#endif
