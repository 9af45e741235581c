/*
 * What boot.S leaves behind: the selectors of its GDT, and its task-state segment. Usable from C and from assembly.
 *
 * When main() runs, the processor is in 64-bit mode at privilege level 0 with interrupts off, linear address equals
 * physical address for the first 4 GiB (2 MiB pages, supervisor, writable), and TR holds a busy 64-bit TSS.
 */
#ifndef LABS_LIB_BOOT_H
#define LABS_LIB_BOOT_H

#define BOOT_CS 0x08 /* 64-bit code, DPL 0 */
#define BOOT_DS 0x10 /* data, DPL 0; in SS, DS, ES, FS and GS */
#define BOOT_TR 0x18 /* 64-bit TSS; its descriptor takes two slots */

#define BOOT_TSS_LIMIT        0x67 /* a 64-bit TSS of 104 bytes, without an I/O permission bitmap */
#define BOOT_IST_DOUBLE_FAULT 1    /* the double-fault handler gets a stack of its own */

#ifndef __ASSEMBLER__
#include <stdint.h>

extern uint8_t boot_tss[BOOT_TSS_LIMIT + 1];
#endif

#endif
