/*
 * The Multiboot 1 information a loader hands over: Multiboot Specification 0.6.96, 3.3 Boot information format.
 * Only the members that guests here use are named; all addresses are physical and below 4 GiB.
 */
#ifndef LABS_LIB_MULTIBOOT_H
#define LABS_LIB_MULTIBOOT_H

#include <stdint.h>

enum multiboot_info_flags {
    MULTIBOOT_INFO_MEMORY = 1 << 0,       /* mem_lower, mem_upper */
    MULTIBOOT_INFO_COMMAND_LINE = 1 << 2, /* cmdline */
    MULTIBOOT_INFO_MODULES = 1 << 3,      /* mods_count, mods_addr */
    MULTIBOOT_INFO_MEMORY_MAP = 1 << 6,   /* mmap_length, mmap_addr */
};

struct multiboot_info {
    uint32_t flags;     /* which members below are valid: enum multiboot_info_flags */
    uint32_t mem_lower; /* KiB from address 0, at most 640 */
    uint32_t mem_upper; /* KiB from 1 MiB to the first hole */
    uint32_t boot_device;
    uint32_t cmdline; /* address of a NUL-terminated string */
    uint32_t mods_count;
    uint32_t mods_addr; /* address of mods_count structs multiboot_module */
    uint32_t syms[4];
    uint32_t mmap_length; /* bytes */
    uint32_t mmap_addr;   /* address of the first struct multiboot_mmap_entry */
};

struct multiboot_module {
    uint32_t mod_start;
    uint32_t mod_end; /* first byte after the module */
    uint32_t string;  /* address of a NUL-terminated string */
    uint32_t reserved;
};

struct multiboot_mmap_entry {
    uint32_t size; /* bytes of this entry after this member: the next entry begins at &addr + size */
    uint64_t addr;
    uint64_t len;  /* bytes */
    uint32_t type; /* 1: available memory */
} __attribute__((packed));

#endif
